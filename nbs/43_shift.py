# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: python3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # How much of the error is shift?
#
# > The same recipe judged under two protocols: on the published test films, and on films like those it knows

# %%
#| default_exp shift

# %%
#| export
import copy
from importlib import import_module

import numpy as np
import pandas as pd
from scipy.special import expit

from pneumo_nb.run import Stage, StudyError, read_provenance
from pneumo_nb.style import WORDS, counted, readable, value_with_interval
from pneumo_nb.cache import Films
from pneumo_nb.measures import (
    all_measures, auroc_interval, calibration_line, fit_temperature, flat_intervals, grouped_auroc,
    intervals, logit, patient_draws, sensitivity_threshold)
from pneumo_nb.appearance import TALL_MARKER
from pneumo_nb.members import recipe_stages

# %%
#| hide
from fastcore.test import test_eq, test_fail
from IPython.display import Markdown, display
from pneumo_nb.run import finish, look, note, open_stage, write_csv, write_json
from pneumo_nb.style import plot_style, save_figure
from pneumo_nb.splits import random_folds
from pneumo_nb.cache import decode_films
from pneumo_nb.appearance import SMALL_SIDE, features_without_lungs, without_lungs
from pneumo_nb.members import keep_members, make_plan, train_members, train_side_by_side
from pneumo_nb.eda import load_appearance, load_burnt_in
from pneumo_nb.preprocessing import load_films
from pneumo_nb.compact import build_compact
plot_style()

# %% tags=["parameters"]
run_dir = ""  # the run directory; "" for a temporary one
seed = 42     # deals patients out to folds
recipe = ""   # stage whose networks are trained anew; "" for the first of this run
folds = 5     # patient-wise, over all films

# %%
#| export
RANGES = {
    "recipe": "plain text",
    "folds": "whole number from 2 to 100",
}

# %%
#| export
STAGE = {
    "reads": ["images.csv", "appearance.csv", "burnt_in.csv", "metrics/data.json",
              "metrics/without_lungs.csv"],
    "reads_of": "members",
    "writes": ["shift_answers.csv", "metrics/shift.csv", "metrics/shift.json"],
    "card": ["shift_protocols"],
}


# %% [markdown]
# The published test films were probably taken at another time than most others (chapter on exploration). A
# model that errs on them may lack skill, or may meet films unlike those it knows. One number cannot tell
# these apart. So the recipe is judged twice:
#
# - **As published**: a network learns from the films that are not test, and judges test.
# - **Exchangeable**: all films are dealt out to patient-wise folds by chance. A network that learned from the
#   other folds judges each. It has seen no film of these patients, but others of their time.
#
# The same test films are judged both ways. What is wrong as published and right in the second way, less what
# turns the other way round, is the share of shift.
#
# ## The recipe
#
# Any stage that trains members will do. Its parameters are those of this run.

# %%
#| export
def trained_recipes(
    stage: Stage, # of a run
) -> list[str]: # names, in the study's order
    "The stages of a run that trained members and are done."
    done = read_provenance(stage.folder)["stages"]
    return [recipe.name for recipe in recipe_stages() if recipe.name in done]


# %%
#| export
def with_recipe(
    stage: Stage,
    recipe: str, # a stage of `trained_recipes`; "" for the first
) -> tuple[Stage, str]: # the stage with the recipe's parameters; the recipe's name
    "A stage that trains by another stage's recipe: one network a fold, none on all films."
    trained = trained_recipes(stage)
    if recipe not in ["", *trained]: raise StudyError(
        f"Expected recipe to be one of {', '.join(trained) or 'none'}, found {recipe!r}; "
        "run that stage first, or name another.")
    if not trained: raise StudyError("Expected a stage in this run that trains members, found none; "
                                     "run one first.")
    recipe, trainer = recipe or trained[0], copy.copy(stage)
    learned_by = read_provenance(stage.folder)["stages"][recipe]["parameters"]
    trainer.params = learned_by | dict(seeds=1, refits=0, only_folds=[])
    return trainer, recipe


# %%
#| export
def recipe_builder(recipe: str): # function of parameters, classes, whether to train → network
    "The function that builds a recipe's network, from its own module."
    return getattr(import_module(f"pneumo_nb.{recipe}"), f"build_{recipe}")


# %%
stage = open_stage("shift", run_dir, seed=seed, recipe=recipe, folds=folds)
if not trained_recipes(stage) and run_dir == "":
    of_quick = dict(folds_by="series", folds=2, only_folds=[0], refits=1, seeds=1, batch_size=16, epochs=1,
                    learning_rate=2e-3, weight_decay=.05, label_smoothing=.05, average=0., image_size=32,
                    widths=[8, 16], kinds=True, contrast="local", precision="float32", flip=True, frames=.5)
    quick = open_stage("compact", stage.folder, seed=seed, **of_quick)
    few = load_films(quick, 32, seed)
    plan = make_plan(quick, few)
    keep_members(quick, few, plan, *train_members(quick, few, plan, build_compact))
    finish(quick)
    note(stage, "no recipe in this run, so one was trained for an epoch on phantoms of 32 pixels.")
trainer, recipe = with_recipe(stage, recipe)
test_fail(lambda: with_recipe(stage, "nobody"), contains="to be one of")
print(f"Recipe {recipe}: {trainer.params['image_size']} pixels, {trainer.params['epochs']} epochs")

# %% [markdown]
# ## Answers of networks that know such films
#
# Folds over all films, test films included. Whole patients move, so no network judges a patient that it
# knows.

# %%
films = load_films(stage, trainer.params["image_size"], seed)
is_test = (films.images.split == "test").to_numpy()
every = Films(films.images.assign(split="train"), films.pixels)
plan = make_plan(trainer, every, random_folds(every.images, folds, seed))
if is_test.any(): look(stage, "answers of networks that learned from other test films")
else: note(stage, "there are no test films, so there is nothing published to compare with.")
table = films.images.assign(fold=plan.fold_of, films=np.where(is_test, "test", "others"))
readable(table.groupby(["films", "fold"]).size().unstack(fill_value=0))

# %%
build = recipe_builder(recipe)
train_side_by_side(trainer, load_films, plan, build)
_, answers, histories = train_members(trainer, every, plan, build)
table["logit"] = answers.set_index("n").logit.reindex(range(len(table))).to_numpy()
print(f"{histories.member.nunique()} networks, {answers.n.nunique():,} of {len(table):,} films judged")

# %% [markdown]
# ## Thresholds that no judged film had a say in
#
# The rule is fixed beforehand: sensitivity .95. A fold's threshold and temperature come from the answers to
# the **other** folds, so no patient has a say in how he or she is called. The margin is the log odds above
# the threshold.

# %%
#| export
SENSITIVITY = .95


# %%
#| export
def _scaled(
    chosen_on: pd.DataFrame, # label and logit
    judged: pd.DataFrame,    # logit
) -> pd.DataFrame: # probability and margin, rows as of `judged`
    "Temperature and threshold from some films, applied to others."
    temperature = fit_temperature(chosen_on.label.to_numpy(), expit(chosen_on.logit.to_numpy()))
    table = chosen_on.assign(probability=expit(chosen_on.logit / temperature))
    threshold = sensitivity_threshold(table, SENSITIVITY)
    odds = judged.logit / temperature
    return pd.DataFrame(dict(probability=expit(odds), margin=odds - logit(threshold)), judged.index)


# %%
#| export
def cross_fitted(
    table: pd.DataFrame, # label, logit, fold
) -> pd.DataFrame: # with probability and margin
    "Each fold scaled and cut as the other folds say."
    parts = [_scaled(table[table.fold != fold], judged) for fold, judged in table.groupby("fold")]
    return table.join(pd.concat(parts))


# %%
by_hand = pd.DataFrame(dict(label=[0, 1] * 4, fold=[0] * 4 + [1] * 4, patient_id=list("abcdefgh"),
                            logit=[-2., 1, -1, 2, -3, 3, -2, 4]))
cut = cross_fitted(by_hand)
test_eq((cut.margin > 0).tolist(), [False, True, False, True, False, True, False, True])
changed = cross_fitted(by_hand.assign(logit=by_hand.logit.where(by_hand.fold == 1, 9.)))
test_eq(changed.margin[:4].nunique(), 1)   # cut where the other fold says, whatever these answers are


# %% [markdown]
# The published way has one threshold, from the films that the recipe's own networks left out.

# %%
#| export
def published_answers(
    members: pd.DataFrame, # of the recipe: model, member, path, split, label, probability, uncalibrated
    images: pd.DataFrame,  # path, patient_id, kind
    model: str,
) -> pd.DataFrame: # test films: path, label, patient_id, kind, probability, margin, fold (0)
    "What the first single network of a recipe says of the test films."
    of_model = members[members.model == model]
    first = of_model[of_model.member == of_model.member.iloc[0]]
    first = first.assign(logit=logit(first.uncalibrated), fold=0)
    chosen_on, test = first[first.split == "validation"], first[first.split == "test"]
    known = images.set_index("path")[["patient_id", "kind"]]
    columns = ["path", "label", "fold", "logit"]
    return test[columns].join(_scaled(chosen_on, test)).join(known, on="path")


# %%
two_members = pd.concat([pd.DataFrame(dict(
    model="m", member=name, path=list("vwxy"), split=["validation"] * 2 + ["test"] * 2, label=[0, 1, 0, 1],
    uncalibrated=[.2, .8, shifted, .9])) for name, shifted in (("m_s0", .6), ("m_s1", .1))])
of_images = pd.DataFrame(dict(path=list("vwxy"), patient_id=list("vwxy"), kind=["normal", "virus"] * 2))
first = published_answers(two_members, of_images, "m")
test_eq(first.path.tolist(), ["x", "y"])
test_eq((first.margin > 0).tolist(), [True, True])   # the false alarm of the first network

# %%
published = pd.DataFrame()
if is_test.any():
    members = pd.read_csv(stage.path(f"members/{recipe}.csv"))
    published = published_answers(members, films.images, recipe)
table = cross_fitted(table.reset_index(drop=True))
judged = {"exchangeable, all films": table}
if is_test.any(): judged = {
    "published, test films": published, "exchangeable, test films": table[table.films == "test"]} | judged
kept = table[["path", "split", "label", "fold", "logit", "probability", "margin"]]
write_csv(stage.path("shift_answers.csv"), kept)

# %% [markdown]
# ## Both protocols side by side

# %%
#| export
_MEASURES = ["roc_auc", "accuracy", "sensitivity", "specificity"]


# %%
#| export
def protocol_row(
    films: pd.DataFrame, # label, patient_id, fold, probability, margin
    seed: int,           # of the bootstrap intervals
) -> dict: # films, patients, _MEASURES, slope and intercept of calibration, each with _low and _high
    "The measures of some answers under one protocol."
    calls = films.assign(probability=expit(films.margin))
    bounds = {name: pair for name, pair in intervals(calls, .5, seed).items() if name in _MEASURES}
    bounds["roc_auc"] = auroc_interval(films, films.fold)
    values = {name: float(all_measures(calls, .5)[name][0]) for name in _MEASURES}
    values["roc_auc"] = grouped_auroc(films.fold.to_numpy(), films.label.to_numpy(),
                                      films.probability.to_numpy())
    counts = dict(films=len(films), patients=films.patient_id.nunique())
    return counts | values | flat_intervals(bounds) | calibration_line(films, "probability")


# %%
test_eq(protocol_row(cut, 1)["accuracy"], 1)

# %%
rows = pd.DataFrame([dict(protocol=name) | protocol_row(part, seed) for name, part in judged.items()])
write_csv(stage.path("metrics/shift.csv"), rows)


# %%
#| export
def protocol_table(
    rows: pd.DataFrame, # of `protocol_row`, with the protocol's name
) -> pd.DataFrame: # text: a row a measure, a column a protocol
    "The protocols for reading."
    keys = [*_MEASURES, "slope", "intercept"]
    texts = {row["protocol"]: [f"{row['films']:,}", *(value_with_interval(row, key, 3) for key in keys)]
             for row in rows.to_dict("records")}
    heads = ["films", *(WORDS.get(key, key) for key in _MEASURES), "calibration slope",
             "calibration intercept"]
    return pd.DataFrame(texts, heads)


# %%
caption = f"One network of the recipe; calls at the threshold with sensitivity {SENSITIVITY}"
protocol_table(rows).style.set_caption(caption)


# %% [markdown]
# The networks of the folds learned from fewer films than the published one, with five folds from a tenth
# fewer. So the difference between the two columns of test films is, if anything, too small.
#
# The error on test splits in two. Patients are redrawn for the interval, both ways judging the same films.

# %%
#| export
def error_split(
    published: pd.DataFrame,    # path, label, patient_id, margin
    exchangeable: pd.DataFrame, # path, margin, of the same films and maybe more
    seed: int,
    draws: int = 1000,
) -> dict: # published, exchangeable, difference: shares of wrong calls; difference_low, difference_high
    "How much of the error on some films goes when networks know films like them."
    label, other = published.label.to_numpy() == 1, exchangeable.set_index("path").margin[published.path]
    wrong = [(margin.to_numpy() >= 0) != label for margin in (published.margin, other)]
    change = wrong[0].astype(float) - wrong[1]
    blocks = patient_draws(published.patient_id, draws, seed)
    drawn = np.concatenate([(weights @ change) / weights.sum(axis=1) for weights in blocks])
    low, high = np.percentile(drawn, [2.5, 97.5])
    shares = dict(zip(("published", "exchangeable", "difference"), (*map(np.mean, wrong), change.mean())))
    return {name: float(value) for name, value in shares.items()} | dict(
        difference_low=float(low), difference_high=float(high))


# %%
alarms = pd.DataFrame(dict(path=list("abcd"), patient_id=list("abcd"), label=[0, 0, 1, 1],
                           margin=[1., -1, 1, -1]))
better = alarms.assign(margin=[-1., -1, 1, -1])
split = error_split(alarms, better, 1)
test_eq([split[key] for key in ("published", "exchangeable", "difference")], [.5, .25, .25])

# %%
split = error_split(published, table, seed) if is_test.any() else {}

# %% [markdown]
# ## Classifiers without lungs under both protocols
#
# The forests of the chapter on exploration see no lung. Asked again with test films dealt into the folds,
# they say how much of what a film gives away holds at any time.

# %%
#| export
_LOOKS = {"published, test films": dict(color="black", fmt="o"),
          "exchangeable, test films": dict(color="#0072B2", fmt="s"),
          "exchangeable, all films": dict(color="#8B5A2B", fmt="^"),
          "exchangeable, other films": dict(color="#CC79A7", fmt="v")}

# %%
looks = load_appearance(stage, films.images, seed).reset_index(drop=True)
small = decode_films(films.images, SMALL_SIDE).pixels
views = features_without_lungs(films.images.reset_index(drop=True), looks, small)
groups = np.where(is_test, "exchangeable, test films", "exchangeable, other films")
audit = without_lungs(every.images.reset_index(drop=True), views, seed, groups)
file = stage.path("metrics/without_lungs.csv")
if is_test.any() and file.exists():
    before = pd.read_csv(file)
    audit = pd.concat([before[before.asked == "test"].assign(asked="published, test films"), audit])
audit = audit.sort_values("asked", key=lambda names: names.map(list(_LOOKS).index), kind="stable")


# %%
#| export
def audit_table(
    audit: pd.DataFrame, # asked, classifier, auroc, low, high
) -> pd.DataFrame: # text: a row a classifier, a column for each way of asking
    "The classifiers for reading."
    bounds = lambda row: dict(auroc=row.auroc, auroc_low=row.low, auroc_high=row.high)
    texts = audit.assign(text=[value_with_interval(bounds(row), "auroc", 3) for row in audit.itertuples()])
    wide = texts.pivot(index="classifier", columns="asked", values="text")
    return wide.loc[audit.classifier.unique(), list(audit.asked.unique())].rename_axis(columns=None)


# %%
audit_table(audit)


# %% [markdown]
# [The figure](#fig-shift_protocols) holds both: on the left the network's measures, on the right the AUROC of
# the classifiers that see no lung. Black is the published way.

# %%
#| export
def _plot_dots(
    ax,
    table: pd.DataFrame, # protocol, what, value, low, high
):
    "Dots with intervals: a row for each thing measured, a mark for each protocol."
    names, protocols = list(table.what.unique()), list(table.protocol.unique())
    for n, protocol in enumerate(protocols):
        rows = table[table.protocol == protocol]
        lift = .5 * (n / max(len(protocols) - 1, 1) - .5)
        error = [(rows.value - rows.low).fillna(0), (rows.high - rows.value).fillna(0)]
        ax.errorbar(rows.value, rows.what.map(names.index) + lift, xerr=error, ms=5, lw=1.5, label=protocol,
                    **_LOOKS[protocol])
    ax.set(yticks=range(len(names)), yticklabels=names)
    ax.grid(axis="x", color="#dddddd")
    ax.invert_yaxis()


# %%
#| export
def _plot_protocols(
    rows: pd.DataFrame,  # of `protocol_row`
    audit: pd.DataFrame, # asked, classifier, auroc, low, high
): # matplotlib Figure
    "The recipe's measures and the classifiers without lungs, under each protocol."
    import matplotlib.pyplot as plt
    measured = pd.DataFrame([
        dict(protocol=row["protocol"], what=WORDS.get(key, key), value=row[key], low=row[f"{key}_low"],
             high=row[f"{key}_high"]) for row in rows.to_dict("records") for key in _MEASURES])
    asked = audit.rename(columns=dict(asked="protocol", classifier="what", auroc="value"))
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2))
    for ax, part in zip(axes, (measured, asked)):
        if len(part): _plot_dots(ax, part)
    axes[0].set_xlabel("network of the recipe")
    axes[1].set_xlabel("AUROC of forests that see no lung")
    handles = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels())}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2)
    return figure


# %%
in_words = "; ".join(f"{row.protocol}: AUROC {row.roc_auc:.3f}, accuracy {row.accuracy:.3f}"
                     for row in rows.itertuples())
save_figure(stage, _plot_protocols(rows, audit), "shift_protocols",
            "The recipe, and classifiers without lungs, under both protocols, with 95 % intervals.",
            f"Dots with intervals under each protocol: {in_words}; beside them the AUROC of classifiers "
            "that see no lung.")


# %% [markdown]
# ## Leaving an appearance out
#
# Films with burnt-in text or a tall side marker come from certain machines. A network learns from no patient
# with such a film and judges them. The networks of the folds, which knew others of the kind, judge the same
# films.

# %%
#| export
def marked_patients(
    images: pd.DataFrame, # path, patient_id
    places: pd.DataFrame, # path and kind of what is burnt in
    markers: np.ndarray,  # (N,) height of the side marker, share of the film's
) -> np.ndarray: # (N, 2) bool: the film has text or a tall marker; its patient has such a film
    "Which films look so, and which are of the same patients."
    has_text = images.path.isin(places.path[places.kind == "text"]).to_numpy()
    is_marked = has_text | (np.asarray(markers) > TALL_MARKER)
    of_patient = pd.Series(is_marked).groupby(images.patient_id.to_numpy()).transform("any").to_numpy()
    return np.stack([is_marked, of_patient], axis=1)


# %%
three_films = pd.DataFrame(dict(path=list("abc"), patient_id=[1, 1, 2]))
test_eq(marked_patients(three_films, pd.DataFrame(dict(path=["b"], kind=["text"])), [0, 0, 0]).tolist(),
        [[False, True], [True, True], [False, False]])

# %%
places = load_burnt_in(stage, films.images, seed)
is_marked, of_marked = marked_patients(films.images, places, looks.marker).T
marked = table[is_marked].reset_index()
can_ask = marked.label.nunique() == 2
counts = ", ".join(counted(int((marked.label == label).sum()), f"{words} film")
                   for label, words in enumerate(("normal", "pneumonia")))
print(f"With text or a tall marker: {counts}")
if not can_ask: note(stage, "no films of both classes with text or a tall marker, so none were left out.")

# %%
compared = pd.DataFrame()
if can_ask:
    without = make_plan(trainer, every, np.where(of_marked, 0, 1))
    without.members = [without.members[0] | dict(name=f"{stage.name}_apart")]
    _, said, _ = train_members(trainer, every, without, build)
    marked["apart"] = said.set_index("n").logit.reindex(marked["index"]).to_numpy()


# %%
#| export
def left_out_rows(
    marked: pd.DataFrame, # label, patient_id, fold, logit, apart
) -> pd.DataFrame: # network, roc_auc with _low and _high, median log odds of normal and pneumonia films
    "How networks that know such films, and one that does not, judge them."
    rows = []
    for network, key, groups in (("knows such films", "logit", marked.fold),
                                 ("knows none", "apart", pd.Series(0, marked.index))):
        scored = marked.assign(probability=expit(marked[key]))
        value = grouped_auroc(groups.to_numpy(), scored.label.to_numpy(), scored[key].to_numpy())
        odds = scored.groupby("label")[key].median()
        rows.append(dict(network=network, roc_auc=value, odds_normal=odds.get(0), odds_pneumonia=odds.get(1))
                    | flat_intervals(dict(roc_auc=auroc_interval(scored, groups))))
    return pd.DataFrame(rows)


# %%
known = pd.DataFrame(dict(label=[0, 1, 0, 1], patient_id=list("abcd"), fold=0, logit=[0., 1, 2, 3],
                          apart=[0., 1, 2, 1]))
test_eq(left_out_rows(known).roc_auc.tolist(), [.75, .5])

# %%
compared = left_out_rows(marked) if can_ask else pd.DataFrame()
shown = compared.assign(roc_auc=[value_with_interval(row, "roc_auc", 3)
                                 for row in compared.to_dict("records")]) if can_ask else compared
display(readable(shown.drop(columns=["roc_auc_low", "roc_auc_high"], errors="ignore")))

# %% [markdown]
# ## What it comes to

# %%
#| export
_FINDINGS = dict(
    much="- On the published test films {published:.1%} of the calls are wrong, and {exchangeable:.1%} when "
         "networks know other films of their time. So **{share:.0%} of the error there is shift**: "
         "{difference:+.1%} of the films ({difference_low:+.1%} to {difference_high:+.1%}).",
    none="- On the published test films {published:.1%} of the calls are wrong, and {exchangeable:.1%} when "
         "networks know other films of their time. The difference of {difference:+.1%} of the films "
         "({difference_low:+.1%} to {difference_high:+.1%}) may be chance: **no shift is seen**.",
    fewer="- On the published test films {published:.1%} of the calls are wrong, and {exchangeable:.1%} by "
          "the networks of the folds ({difference_low:+.1%} to {difference_high:+.1%}). These learned from "
          "fewer films, which outweighs whatever shift there is: **no shift is seen**.",
    whole="- When films are exchangeable, all {films:,} films are judged with an AUROC of **{roc_auc:.4f}** "
          "and an accuracy of **{accuracy:.3f}**; specificity is {specificity:.3f} at a sensitivity of "
          "{sensitivity:.3f}.",
    apart="- Films with text or a tall marker, of both classes: AUROC {with_them:.3f} by networks that know "
          "such films, {without:.3f} by one that knows none.")


# %%
#| export
def shift_findings(
    rows: pd.DataFrame,     # of `protocol_row`; all films come last
    split: dict,            # from `error_split`; {} without test films
    compared: pd.DataFrame, # from `left_out_rows`; empty where nothing was left out
) -> list[str]: # lines of Markdown
    "What the two protocols say, in words."
    lines = []
    if split:
        low, high = split["difference_low"], split["difference_high"]
        case = "much" if low > 0 else "fewer" if high < 0 else "none"
        share = split["difference"] / split["published"] if split["published"] else 0.
        lines.append(_FINDINGS[case].format(**split, share=share))
    lines.append(_FINDINGS["whole"].format(**rows.iloc[-1]))
    if len(compared):
        with_them, without = compared.roc_auc
        lines.append(_FINDINGS["apart"].format(with_them=with_them, without=without))
    return lines


# %%
one_row = pd.DataFrame([dict(films=9, roc_auc=.9, accuracy=.8, specificity=.7, sensitivity=.95)])
half = dict(published=.1, exchangeable=.05, difference=.05, difference_low=.02, difference_high=.08)
assert "**50% of the error there is shift**" in shift_findings(one_row, half, pd.DataFrame())[0]
assert "may be chance" in shift_findings(one_row, half | dict(difference_low=-.01), pd.DataFrame())[0]
worse = half | dict(difference=-.05, difference_low=-.08, difference_high=-.02)
assert "learned from fewer films" in shift_findings(one_row, worse, pd.DataFrame())[0]
test_eq(len(shift_findings(one_row, {}, left_out_rows(known))), 2)

# %%
display(Markdown("\n".join(shift_findings(rows, split, compared))))

# %%
write_json(stage.path("metrics/shift.json"), dict(
    recipe=recipe, folds=folds, sensitivity=SENSITIVITY, split=split, protocols=rows.to_dict("records"),
    audit=audit.to_dict("records"), left_out=compared.to_dict("records"),
    marked=dict(normal=int((marked.label == 0).sum()), pneumonia=int((marked.label == 1).sum())),
    seconds=float(histories.groupby("member").seconds.sum().mean())))
record = finish(stage)
