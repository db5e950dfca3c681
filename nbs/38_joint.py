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
# # Recipes together
#
# > Networks of different recipes answer together: what a second one adds, and one network of them all

# %%
#| default_exp joint

# %%
#| export
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from keras import layers
from scipy.special import expit

from pneumo_nb.run import Stage, StudyError, note, read_table, write_csv
from pneumo_nb.style import (
    CLASS_NAMES, COLOURS, counted, in_list, model_style, model_title, p_text, readable, value_with_interval)
from pneumo_nb.cache import Films, take
from pneumo_nb.measures import (
    auroc, auroc_interval, fit_temperature, flat_intervals, holm, logit, paired_tests, read_predictions,
    scaled_probability)
from pneumo_nb.networks import Reduce, as_model  # its layers are part of saved models
from pneumo_nb.training import save_model
from pneumo_nb.members import ensemble_of, recipe_stages

# %%
#| hide
import tempfile
from fastcore.test import test_close, test_eq, test_fail
from IPython.display import Markdown, display
from pneumo_nb.run import finish, open_stage, write_json
from pneumo_nb.style import plot_style, save_figure
from pneumo_nb.views import RECIPE
from pneumo_nb.members import keep_members, make_plan, train_members
from pneumo_nb.data import load_images
from pneumo_nb.preprocessing import load_films
plot_style()

# %% tags=["parameters"]
run_dir = ""  # the run directory; "" for a temporary one
seed = 42     # of phantoms, where this notebook stands alone

# %%
#| export
STAGE = {
    "reads": ["images.csv", "metrics/data.json"],
    "reads_of": "members",
    "at_least": 2,
    "writes": ["members/joint.csv", "metrics/joint.json"],
    "models": {"joint": {"title": "joint ensemble", "colour": "#3300CC", "dash": (0, (6, 2, 1, 2, 1, 2))}},
    "card": ["joint_recipes"],
    "methods": """<p>The joint ensemble averages the log odds of the recipes whose networks leave films out
        and judge them: of each recipe the answer of all its networks that answer on test. Its temperature
        was fitted on the films that every recipe judged without having learned from them. One saved network
        holds all of them and reduces films for those that take smaller ones.</p>""",
}

# %% [markdown]
# Is a second recipe worth more than another seed of the first? Networks that differ by their seed alone see
# the same films, at the same size, through the same layers. Much of what one of them gets wrong, the others
# get wrong as well. A mean cannot mend that. Networks of another kind, trained at another size, may err on
# other films.
#
# This chapter trains nothing. It takes the recipes of this run that train **members** (chapter on members),
# whatever they are, and lets them answer together.

# %%
stage = open_stage("joint", run_dir, seed=seed)

# %% [markdown]
# ## The recipes of this run
#
# A recipe is a stage with the rules of members, and it has left `members/NAME.csv`. From the run come its
# members' answers and the model that it kept of all of them. That is its ensemble, where several networks
# answer.

# %%
names = [recipe.name for recipe in recipe_stages()]
print(*names, sep=", ")
assert "joint" not in names


# %%
#| export
def _check_recipes(
    stage: Stage,
    there: list[str], # names of the recipes in this run
):
    "Refuse a run with fewer recipes than this stage needs."
    least = STAGE["at_least"]
    if len(there) >= least: return
    known = in_list([recipe.name for recipe in recipe_stages()])
    raise StudyError(
        f"Expected members of {least} recipes or more in {stage.folder}, found {in_list(there) or 'none'}; "
        f"{stage.name} needs {least} of {known}, so run another of them, or leave {stage.name} out.")


# %%
with tempfile.TemporaryDirectory() as folder:
    empty = open_stage("joint", folder)
    test_fail(lambda: _check_recipes(empty, []), contains="of 2 recipes or more in " + str(empty.folder))
    test_fail(lambda: _check_recipes(empty, names[:1]), contains=f"found {names[0]}; joint needs 2 of")
    _check_recipes(empty, names[:2])


# %% [markdown]
# A file that is missing, or that holds something else, is refused by its name.

# %%
#| export
def _written(
    stage: Stage,
    file: str, # inside the run
) -> Path:
    "A file that a recipe wrote."
    if stage.path(file).exists(): return stage.path(file)
    raise StudyError(f"Expected {file} in {stage.folder}, found none; run the stage again that writes it.")


# %%
test_fail(lambda: _written(stage, "predictions/nobody.csv"), contains="Expected predictions/nobody.csv in")


# %%
#| export
@dataclass(frozen=True)
class Recipe:
    "What a stage that trains members left in a run."
    name: str             # of the stage
    model: str            # the model that it kept of all members
    members: pd.DataFrame # model, member, seed, path, split, label, probability
    answers: pd.DataFrame # of that model: path, split, label, probability

    @property
    def seeds(self) -> set[int]: return set(self.members.seed)

    def of_seed(self, seed: int) -> pd.DataFrame: # path, split, label, probability
        "What the networks of one seed answer: its ensemble, where there is one, else its only network."
        rows = self.members[self.members.seed == seed]
        together = rows[rows.model == ensemble_of(self.name)]
        return together if len(together) else rows


# %%
#| export
def find_recipes(
    stage: Stage,
) -> list[Recipe]: # two or more, in the study's order
    "The recipes whose members are in this run."
    names = [recipe.name for recipe in recipe_stages()]
    there = [name for name in names if stage.path(f"members/{name}.csv").exists()]
    _check_recipes(stage, there)
    recipes = []
    for name in there:
        has_ensemble = stage.path(f"predictions/{ensemble_of(name)}.csv").exists()
        model = ensemble_of(name) if has_ensemble else name
        members = read_predictions(_written(stage, f"members/{name}.csv"), ("model", "member", "seed"))
        answers = read_predictions(_written(stage, f"predictions/{model}.csv"))
        recipes.append(Recipe(name, model, members, answers))
    return recipes


# %%
networks = pd.DataFrame(dict(model=["a", "a", "a_ensemble", "a"], member=list("mnop"), seed=[0, 0, 0, 1]))
recipe = Recipe("a", "a_ensemble", networks, None)
test_eq([recipe.of_seed(seed).member.tolist() for seed in (0, 1)], [["o"], ["p"]])


# %% [markdown]
# Where this notebook stands alone, there is no run to take recipes from. Then two toys learn from phantoms
# under the names of the first two: linear networks of 16 and of 32 pixels.

# %%
def toy(params, classes, train):
    side = params["image_size"]
    return keras.Sequential([keras.Input((side, side, 1)), layers.Rescaling(1 / 255), layers.Flatten(),
                             layers.Dense(classes, name="logits")])

def train_toy(name, side):
    rules = dict(folds_by="numbers", folds=2, only_folds=[], refits=1, seeds=2, batch_size=16, epochs=1,
                 learning_rate=.01, weight_decay=.05, label_smoothing=.05, average=0., kinds=True, flip=True)
    rules |= dict(seed=seed, image_size=side) | dict.fromkeys(set(RECIPE) - {"flip"}, 0)
    recipe = Stage(name, stage.folder, rules)
    films = load_films(recipe, side, seed)
    plan = make_plan(recipe, films)
    keep_members(recipe, films, plan, *train_members(recipe, films, plan, toy))


# %%
if run_dir == "":
    note(stage, "this notebook stands alone, so two toy recipes were trained for one epoch on phantoms.")
    for name, side in zip(names, (16, 32)): train_toy(name, side)

# %%
recipes = find_recipes(stage)
for recipe in recipes:
    print(f"{recipe.name}: {model_title(recipe.model)}, {counted(len(recipe.seeds), 'seed')}, "
          f"{len(recipe.answers):,} films answered")

# %% [markdown]
# ## Films that every recipe answered
#
# Recipes speak in log odds, taken from their temperature-scaled probabilities. So a recipe that is too sure
# of itself does not outvote the others. A film counts if every recipe answered it, either as a test film or
# as an out-of-fold film. The latter are films that a network had left out; tables call them validation.

# %%
#| export
_FILM = ["path", "split", "label"]

def common_log_odds(
    answers: dict[str, pd.DataFrame], # recipe → path, split, label, probability
) -> pd.DataFrame: # path, split, label, and a column of log odds for each recipe
    "The films that every recipe answered."
    columns = {name: pd.Series(logit(table.probability), pd.MultiIndex.from_frame(table[_FILM]))
               for name, table in answers.items()}
    return pd.concat(columns, axis=1, join="inner").rename_axis(_FILM).reset_index()


# %%
def made_up(paths, probability, split="validation"):
    return pd.DataFrame(dict(path=list(paths), split=split, label=[int(p in "cd") for p in paths],
                             probability=probability))

two = dict(first=made_up("abc", [.5, .2, .9]), second=made_up("cba", [.9, .5, .2]))
shared = common_log_odds(two)
test_eq(shared.path.tolist(), list("abc"))
test_close(shared.second, logit([.2, .5, .9]))
test_eq(common_log_odds(two | dict(second=made_up("xb", [.5, .2]))).path.tolist(), ["b"])
test_eq(len(common_log_odds(two | dict(second=made_up("abc", .5, "test")))), 0)   # another split

# %% [markdown]
# What is left out becomes a note. Without out-of-fold films of both classes in common, nothing could be
# fitted or chosen, and the stage is refused.

# %%
#| export
_SPLITS = dict(validation="out-of-fold film", test="test film")

def _left_out_words(
    answers: dict[str, pd.DataFrame], # recipe → path, split, label, probability
    log_odds: pd.DataFrame,           # from `common_log_odds`
) -> str: # "" where nothing is left out
    "Which films do not count since not every recipe answered them."
    count = lambda table, split: int((table.split == split).sum())
    more = {(name, split): count(table, split) - count(log_odds, split)
            for name, table in answers.items() for split in _SPLITS}
    words = [f"{counted(n, _SPLITS[split])} of {name}" for (name, split), n in more.items() if n]
    return f"only films that every recipe answered count; left out: {in_list(words)}." if words else ""


# %%
fewer = two | dict(second=made_up("ab", [.5, .2]))
test_eq(_left_out_words(fewer, common_log_odds(fewer)),
        "only films that every recipe answered count; left out: 1 out-of-fold film of first.")
test_eq(_left_out_words(two, shared), "")


# %%
#| export
def _check_common(log_odds: pd.DataFrame): # from `common_log_odds`
    "Refuse recipes that have not out-of-fold films of both classes in common."
    labels = log_odds.label[log_odds.split == "validation"]
    if labels.nunique() < 2: raise StudyError(
        "Expected out-of-fold films of both classes that every recipe answered, "
        f"found {(labels == 0).sum()} normal and {(labels == 1).sum()} with pneumonia; "
        "let the recipes leave out the same folds (folds_by, folds, only_folds).")


# %%
_check_common(shared)
test_fail(lambda: _check_common(shared[:2]), contains="found 2 normal and 0 with pneumonia")

# %%
kept = {recipe.name: recipe.answers for recipe in recipes}
log_odds = common_log_odds(kept)
_check_common(log_odds)
if words := _left_out_words(kept, log_odds): note(stage, words)
counts = log_odds.groupby(["split", "label"]).size().unstack().rename(columns=dict(enumerate(CLASS_NAMES)))
readable(counts)


# %% [markdown]
# ## One answer
#
# The joint answer is the mean of the recipes' log odds, divided by a temperature of its own. It is fitted on
# the out-of-fold films. Averaging brings a film on which recipes differ nearer to .5. So the mean tends to be
# not sure enough, and its temperature to lie below 1.

# %%
#| export
def joint_answers(
    log_odds: pd.DataFrame, # from `common_log_odds`
) -> tuple[pd.DataFrame, float]: # path, split, label, probability, uncalibrated; the temperature
    "The mean of the recipes' log odds, temperature-scaled."
    mean = log_odds.drop(columns=_FILM).mean(axis=1).to_numpy()
    left_out = (log_odds.split == "validation").to_numpy()
    temperature = fit_temperature(log_odds.label[left_out], expit(mean[left_out]))
    table = log_odds[_FILM].assign(probability=expit(mean / temperature), uncalibrated=expit(mean))
    return table, temperature


# %%
averaged, one = joint_answers(shared)
test_eq(one, 1)                                   # no film on the wrong side of .5
test_close(averaged.uncalibrated, [1 / 3, 1 / 3, .9])   # odds of 1 and 1/4 make 1/2

# %%
answers, temperature = joint_answers(log_odds)
print(f"temperature of the mean: {temperature:.3f}")


# %% [markdown]
# Each seed gets the same: what the networks of that seed say in every recipe, averaged. `members/joint.csv`
# holds these answers. From them evaluation sees how much joint answers differ by the seed alone. A seed
# counts if every recipe trained it.

# %%
#| export
def common_seeds(recipes: list[Recipe]) -> list[int]:
    "The seeds that every recipe trained."
    return sorted(set.intersection(*(recipe.seeds for recipe in recipes)))

def _seed_words(recipes: list[Recipe]) -> str: # "" where every recipe trained the same seeds
    "Which seeds do not count."
    words = [f"{counted(n, 'seed')} of {recipe.name}" for recipe in recipes
             if (n := len(recipe.seeds - set(common_seeds(recipes))))]
    return f"only seeds that every recipe trained count; left out: {in_list(words)}." if words else ""


# %%
#| export
_MEMBER_COLUMNS = ["model", "member", "seed", *_FILM, "probability", "uncalibrated"]

def joint_members(
    recipes: list[Recipe],
    model: str, # what the joint model is called
) -> pd.DataFrame: # model, member, seed, path, split, label, probability, uncalibrated
    "The joint answers of each seed."
    tables = []
    for seed in common_seeds(recipes):
        table, _ = joint_answers(common_log_odds({r.name: r.of_seed(seed) for r in recipes}))
        tables.append(table.assign(model=model, member=f"{model}_s{seed}", seed=seed)[_MEMBER_COLUMNS])
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=_MEMBER_COLUMNS)


# %%
of_seeds = lambda table, *seeds: pd.concat([table.assign(model="a", member=f"a_s{s}", seed=s) for s in seeds])
pair = [Recipe("a", "a", of_seeds(two["first"], 0, 1), two["first"]),
        Recipe("b", "b", of_seeds(two["second"], 0), two["second"])]
test_eq(_seed_words(pair), "only seeds that every recipe trained count; left out: 1 seed of a.")
test_eq(joint_members(pair, "both").member.unique().tolist(), ["both_s0"])
test_eq(joint_members([pair[0], Recipe("b", "b", of_seeds(two["second"], 7), None)], "both").shape, (0, 8))

# %%
if words := _seed_words(recipes): note(stage, words)
members = joint_members(recipes, stage.name)
write_csv(stage.path(f"members/{stage.name}.csv"), members)
members.groupby(["member", "split"]).size().unstack()


# %% [markdown]
# ## Do they err on other films?
#
# A mean gains where its parts err on different films. How alike two answers are, the correlation of their log
# odds says. It is taken within one class at a time, since any two networks that know something agree across
# classes.
#
# The table compares pairs in two ways: the same recipe with another seed, and another recipe with the same
# seed. Beside the correlation stands the AUROC of the pair's mean on the out-of-fold films.
#
# No test film enters here. Each fold has networks of its own, whose answers may lie a little higher or lower
# than those of another fold. So the AUROC over all folds is a little below that within folds.

# %%
#| export
def _compare_two(
    answers: tuple[pd.DataFrame, pd.DataFrame], # model, path, split, label, probability
) -> dict: # pair, normal, pneumonia (correlations), alone (the two by themselves, on average), auroc
    "How alike two answers are on out-of-fold films, and what their mean is worth."
    rows = common_log_odds(dict(enumerate(answers)))
    rows = rows[rows.split == "validation"]
    by_class = {CLASS_NAMES[label].lower(): float(films[0].corr(films[1]))
                for label, films in rows.groupby("label")}
    titles = [model_title(table.model.iloc[0]) for table in answers]
    same = titles[0] == titles[1]
    return dict(pair=f"{titles[0]}, two seeds" if same else f"{titles[0]} and {titles[1]}", **by_class,
                alone=np.mean([auroc(rows.label, rows[n]) for n in (0, 1)]),
                auroc=auroc(rows.label, rows[0] + rows[1]))


# %%
four = made_up("abcd", [.1, .6, .4, .8]).assign(model="a")
other = made_up("abcd", [.5, .2, .7, .6]).assign(model="b")
compared = _compare_two((four, other))
test_eq((compared["pair"], compared["alone"], compared["auroc"]), ("a and b", .875, 1))
test_close([compared["normal"], compared["pneumonia"]], [-1, -1])   # two films a class lie on a line
test_eq(_compare_two((four, four))["pair"], "a, two seeds")


# %%
#| export
def pairs_of_two(
    recipes: list[Recipe],
) -> pd.DataFrame: # pair, pairs (how many), normal, pneumonia, alone, auroc: means over pairs of that sort
    "The same recipe with another seed, and another recipe with the same seed."
    trained = [(recipe, seed) for recipe in recipes for seed in common_seeds(recipes)]
    pairs = [(a, b) for a, b in combinations(trained, 2) if (a[0] is b[0]) != (a[1] == b[1])]
    rows = [_compare_two(tuple(recipe.of_seed(seed) for recipe, seed in pair)) for pair in pairs]
    columns = ["pair", "normal", "pneumonia", "alone", "auroc"]
    groups = pd.DataFrame(rows, columns=columns).groupby("pair", sort=False)
    return groups.mean().assign(pairs=groups.size()).reset_index()


# %%
two_pairs = pairs_of_two(recipes)
shown = two_pairs.rename(columns=dict(
    normal="correlation, normal", pneumonia="correlation, pneumonia", alone="AUROC alone, on average",
    auroc="AUROC of the mean"))
shown.style.hide(axis="index").format(precision=4)


# %% [markdown]
# Then the kept models are compared on the same films: the mean against each recipe, with DeLong's intervals,
# patients being independent.

# %%
#| export
def out_of_fold(
    log_odds: pd.DataFrame, # from `common_log_odds`
    answers: pd.DataFrame,  # from `joint_answers`, of the same films
    recipes: list[Recipe],
    images: pd.DataFrame,   # path, patient_id
    model: str,             # what the joint model is called
) -> dict[str, pd.DataFrame]: # model, the joint one first → path, label, probability, patient_id
    "Answers of the joint model and of each recipe's on the out-of-fold films."
    chosen = (log_odds.split == "validation").to_numpy()
    patients = log_odds.path[chosen].map(images.set_index("path").patient_id)
    films = log_odds.loc[chosen, ["path", "label"]].assign(patient_id=patients)
    own = {recipe.model: films.assign(probability=expit(log_odds.loc[chosen, recipe.name]))
           for recipe in recipes}
    return {model: films.assign(probability=answers.probability[chosen])} | own


# %%
#| export
def score_table(
    tables: dict[str, pd.DataFrame], # from `out_of_fold`
) -> pd.DataFrame: # a row a model: model, auroc, auroc_low, auroc_high
    "AUROC of each model on the out-of-fold films, with its interval."
    return pd.DataFrame([
        dict(model=model, auroc=auroc(table.label, table.probability))
        | flat_intervals(dict(auroc=auroc_interval(table))) for model, table in tables.items()])

def worth_table(
    tables: dict[str, pd.DataFrame], # from `out_of_fold`
) -> pd.DataFrame: # a row a recipe: alone, auroc_difference, auroc_low, auroc_high, p (after Holm)
    "What the mean ranks better than each recipe alone, with DeLong's interval for pairs."
    pairs = paired_tests(tables, .5, draws=40)   # no use is made of the draws
    pairs = pairs[pairs["first"] == next(iter(tables))].set_index("second").loc[list(tables)[1:]]
    columns = ["auroc_difference", "auroc_low", "auroc_high"]
    return pairs[columns].assign(p=holm(pairs.p_auroc)).rename_axis("alone").reset_index()


# %%
tables = out_of_fold(log_odds, answers, recipes, load_images(stage, seed), stage.name)
scores, worth = score_table(tables), worth_table(tables)
shown = [dict(model=model_title(row["model"]), auroc=value_with_interval(row, "auroc"))
         for row in scores.to_dict("records")]
readable(pd.DataFrame(shown)).style.hide(axis="index")


# %% [markdown]
# [The figure](#fig-joint_recipes) shows every out-of-fold film by what two recipes say of it. They disagree
# on films in the upper left and the lower right quarter. On the dashed line the mean of the two is .5. Look
# for normal films that only one recipe puts above zero: there the other may set it right.

# %%
#| export
def _plot_against(
    ax,
    log_odds: pd.DataFrame, # of out-of-fold films
    recipes: list[Recipe],  # two
):
    "Log odds of one recipe against those of another, by class."
    names = [recipe.name for recipe in recipes]
    limit = log_odds[names].abs().max().max()
    for label, marker in enumerate("ox"):
        films = log_odds[log_odds.label == label]
        ax.scatter(films[names[0]], films[names[1]], s=14, marker=marker, lw=.8, alpha=.6,
                   color=COLOURS[CLASS_NAMES[label]], label=CLASS_NAMES[label].lower())
    for line in (ax.axhline, ax.axvline): line(0, color="gray", lw=.8, ls=":")
    ax.plot([-limit, limit], [limit, -limit], color="black", lw=.8, ls="--")
    titles = [model_title(recipe.model) for recipe in recipes]
    ax.set(xlabel=f"log odds, {titles[0]}", ylabel=f"log odds, {titles[1]}", aspect="equal")
    ax.legend(title="out-of-fold films", ncols=2, loc="lower center", bbox_to_anchor=(.5, 1))


# %%
#| export
def _plot_scores(
    ax,
    scores: pd.DataFrame, # from `score_table`
):
    "AUROC of each model with its interval."
    for place, row in enumerate(scores.itertuples()):
        colour = model_style(row.model)["color"]
        ax.plot([row.auroc_low, row.auroc_high], [place, place], color=colour, lw=2)
        ax.plot(row.auroc, place, "o", color=colour, ms=8)
    titles = [model_title(model) for model in scores.model]
    ax.set(yticks=range(len(scores)), yticklabels=titles, ylim=(len(scores) - .5, -.5),
           xlabel="AUROC on out-of-fold films, 95 % interval", title="Together and alone")
    ax.grid(axis="x", color="#dddddd")


# %%
#| export
def _plot_recipes(
    log_odds: pd.DataFrame, # from `common_log_odds`
    recipes: list[Recipe],
    scores: pd.DataFrame,   # from `score_table`
): # matplotlib Figure
    "The first recipe against each other one, and the AUROCs."
    import matplotlib.pyplot as plt
    others, rows = recipes[1:], log_odds[log_odds.split == "validation"]
    figure, axes = plt.subplots(1, len(others) + 1, figsize=(4.6 * len(others) + 5, 4.2))
    for ax, other in zip(axes, others): _plot_against(ax, rows, [recipes[0], other])
    _plot_scores(axes[-1], scores)
    return figure


# %%
in_words = "; ".join(f"{row['model']} {row['auroc']}" for row in shown)
count, first = len(tables[stage.name]), model_title(recipes[0].model)
save_figure(stage, _plot_recipes(log_odds, recipes, scores), "joint_recipes",
            "Out-of-fold films by the log odds that two recipes give them, and AUROC of the recipes and of "
            "their mean.",
            f"Scatter of {count:,} out-of-fold films, log odds of {first} against those of the other "
            f"recipes, by class. Beside it AUROCs with 95 % intervals: {in_words}.")


# %% [markdown]
# ## One network
#
# What is kept is one network that takes films of the largest side. For a recipe with smaller films it reduces
# them first, by the layer `Reduce` (chapter on networks). Each recipe's model ends in a dense layer and a
# sigmoid. Without the sigmoid it gives the log odds that were averaged above.

# %%
#| export
def _load_network(stage: Stage, recipe: Recipe) -> keras.Model: # (N, S, S, 1) gray 0-255 → (N, 1) probability
    "The model that a recipe kept."
    return keras.saving.load_model(_written(stage, f"models/{recipe.model}.keras"), compile=False)

def _log_odds_network(
    model: keras.Model, # ends in a dense layer with a sigmoid
    name: str,
) -> keras.Model: # the same input → (N, 1) log odds of pneumonia
    "A model without its sigmoid."
    last, linear = model.layers[-1], layers.Dense(1, name="log_odds")
    network = keras.Model(model.inputs[0], linear(last.input), name=name)
    linear.set_weights(last.get_weights())
    return network


# %%
#| export
def joint_network(
    networks: dict[str, keras.Model], # recipe → (N, S, S, 1) gray 0-255 → (N, 1) probability; S may differ
) -> keras.Model: # (N, S, S, 1) gray 0-255, the largest S → (N, 1) probability, no temperature yet
    "The mean of the recipes' log odds as one model."
    sides = {name: network.input_shape[1] for name, network in networks.items()}
    film = keras.Input((max(sides.values()),) * 2 + (1,), name="film")
    def log_odds(name):
        smaller = sides[name] < film.shape[1]
        return _log_odds_network(networks[name], name)(Reduce(sides[name])(film) if smaller else film)
    return as_model(keras.Model(film, layers.Concatenate()([log_odds(name) for name in networks])))


# %%
def one_answer(side):
    network = keras.Sequential([keras.Input((side, side, 1)), layers.Rescaling(1 / 255), layers.Flatten()])
    return keras.Sequential([network, layers.Dense(1, "sigmoid")])

toys = dict(small=one_answer(8), large=one_answer(16))
grays = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 1), np.uint8)
by_hand = np.mean([logit(toys["small"](Reduce(8)(grays))), logit(toys["large"](grays))], axis=0)
test_close(logit(joint_network(toys)(grays)), by_hand, eps=1e-5)

# %%
networks = {recipe.name: _load_network(stage, recipe) for recipe in recipes}
whole = joint_network(networks)
for name, network in networks.items(): print(f"{name}: films of {network.input_shape[1]} pixels")
print(f"together: {whole.input_shape} → {whole.output_shape}")
save_model(stage, stage.name, whole, temperature)


# %% [markdown]
# On test films, what is written are the answers of the saved network itself. They differ a little from the
# mean of the recipes' own answers. Those were given on films that were reduced from the original in one step,
# not from a film of the largest side. Where one side is a whole multiple of the other, only rounding differs.

# %%
#| export
def _rows_of(
    films: Films,
    paths, # of some of them
) -> np.ndarray: # (len(paths),)
    "Where films stand in a run's list."
    rows = pd.Series(np.arange(len(films.images)), films.images.path).reindex(paths)
    if rows.isna().any(): raise StudyError(
        f"Expected the recipes' films among those of this run, found {rows.index[rows.isna()][0]}, which is "
        "not; run the recipes again on the films of this run.")
    return rows.to_numpy(int)


# %%
pictured = Films(pd.DataFrame(dict(path=list("abc"))), grays[..., 0])
test_eq(_rows_of(pictured, ["c", "a"]), [2, 0])
test_fail(lambda: _rows_of(pictured, ["z"]), contains="found z, which is not")


# %%
#| export
def with_saved_answers(
    answers: pd.DataFrame, # from `joint_answers`
    temperature: float,
    saved: keras.Model,    # temperature-scaled
    films: Films,          # at its side
) -> tuple[pd.DataFrame, float]: # `answers`; the largest difference of a probability
    "The saved network's own answers on test films, and how far they are from the mean of the recipes'."
    is_test = (answers.split == "test").to_numpy()
    if not is_test.any(): return answers, 0.
    pixels = take(films.pixels, _rows_of(films, answers.path[is_test]))[..., None]
    asked = saved.predict(pixels, batch_size=32, verbose=0)[:, 0].astype(float)
    differ = np.abs(asked - answers.probability[is_test]).max()
    answers = answers.copy()
    answers.loc[is_test, "probability"] = asked
    answers.loc[is_test, "uncalibrated"] = scaled_probability(asked, 1 / temperature)
    return answers, float(differ)


# %%
halves = made_up("abc", [.5, .5, .5], ["validation", "test", "test"]).assign(uncalibrated=.5)
asked, differ = with_saved_answers(halves, 1., joint_network(toys), pictured)
test_eq(asked.probability[0], .5)                  # out-of-fold answers stay
test_close(asked.probability[1:], joint_network(toys).predict_on_batch(grays[1:])[:, 0], eps=1e-6)
test_close(differ, np.abs(asked.probability - .5).max())

# %%
saved = keras.saving.load_model(stage.path(f"models/{stage.name}.keras"), compile=False)
films = load_films(stage, saved.input_shape[1], seed)
answers, differ = with_saved_answers(answers, temperature, saved, films)
write_csv(stage.path(f"predictions/{stage.name}.csv"), answers)
count = counted(int((answers.split == "test").sum()), "test film")
print(f"On {count} the saved network and the mean of the recipes' own answers differ by at most "
      f"{differ:.2g}.")


# %% [markdown]
# Its history is that of all networks in it: one row an epoch and network, the seconds added up.

# %%
#| export
def joint_history(
    stage: Stage,
    recipes: list[Recipe],
    temperature: float,
) -> pd.DataFrame: # a row an epoch and network; parameters and temperature are the joint model's
    "What the training of all recipes took, one after the other."
    files, columns = [f"history/{recipe.model}.csv" for recipe in recipes], ["total_seconds", "parameters"]
    histories = [read_table(_written(stage, file), columns, columns) for file in files]
    before = np.cumsum([0, *(history.total_seconds.iloc[-1] for history in histories)])
    later = [history.assign(total_seconds=history.total_seconds + seconds)
             for history, seconds in zip(histories, before)]
    parameters = sum(int(history.parameters.iloc[-1]) for history in histories)
    return pd.concat(later, ignore_index=True).assign(parameters=parameters, temperature=temperature)


# %%
history = joint_history(stage, recipes, temperature)
write_csv(stage.path(f"history/{stage.name}.csv"), history)
print(f"{history.total_seconds.iloc[-1]:,.1f} s of training, {history.parameters.iloc[-1]:,} parameters")

# %% [markdown]
# ## What it comes to
#
# The out-of-fold films have chosen the temperatures. The networks of the folds stand in for those that answer
# on test. How well this carries over, the chapter on evaluation sees on test.

# %%
#| export
_FINDINGS = dict(
    together="- Averaged, {count} recipes rank the out-of-fold films with an AUROC of **{auroc}**.",
    alone="- {title} alone has {auroc}; the mean lies {difference} from that, p {p} after Holm: "
          "{verdict}.",
    pair="- Two answers, {pair}: AUROC {auroc:.4f} together, {alone:.4f} alone on average; their log odds "
         "correlate by {normal:.2f} within normal and {pneumonia:.2f} within pneumonia films.",
    temperature="- The mean needed a temperature of {value:.2f}: it was {verdict}.")


# %%
#| export
def _verdict(
    row: dict, # of `worth_table`
) -> str:
    "What a difference of two AUROCs comes to."
    if row["p"] >= .05: return "these films cannot tell them apart"
    return "the mean ranks better" if row["auroc_difference"] > 0 else "the mean ranks worse"

def _difference(row: dict) -> str: # such as "+0.0120 (-0.003 to +0.027)"
    "A difference of two AUROCs with its interval, if it has one."
    value, low, high = (row[key] for key in ("auroc_difference", "auroc_low", "auroc_high"))
    return f"{value:+.4f}" if low != low else f"{value:+.4f} ({low:+.4f} to {high:+.4f})"


# %%
row = dict(auroc_difference=.012, auroc_low=.003, auroc_high=.021, p=.01)
test_eq(_difference(row), "+0.0120 (+0.0030 to +0.0210)")
test_eq([_verdict(row), _verdict(row | dict(p=.2)), _verdict(row | dict(auroc_difference=-.1))],
        ["the mean ranks better", "these films cannot tell them apart", "the mean ranks worse"])


# %%
#| export
def _temperature_words(temperature: float) -> str:
    "What a temperature says."
    if temperature == 1: return "neither too sure nor not sure enough, as far as these films can tell"
    return "not sure enough" if temperature < 1 else "too sure"

def joint_findings(
    scores: pd.DataFrame, # from `score_table`
    worth: pd.DataFrame,  # from `worth_table`
    pairs: pd.DataFrame,  # from `pairs_of_two`
    temperature: float,
) -> str: # markdown
    "What averaging recipes is worth on the folds."
    aurocs = {row["model"]: value_with_interval(row, "auroc") for row in scores.to_dict("records")}
    lines = [_FINDINGS["together"].format(count=len(worth), auroc=next(iter(aurocs.values())))]
    for row in worth.to_dict("records"):
        lines.append(_FINDINGS["alone"].format(
            title=model_title(row["alone"]), auroc=aurocs[row["alone"]], difference=_difference(row),
            p=p_text(row["p"]), verdict=_verdict(row)))
    lines += [_FINDINGS["pair"].format(**row) for row in pairs.dropna().to_dict("records")]
    temperature = dict(value=temperature, verdict=_temperature_words(temperature))
    return "\n".join([*lines, _FINDINGS["temperature"].format(**temperature)])


# %%
display(Markdown(joint_findings(scores, worth, two_pairs, temperature)))

# %%
parts = [dict(recipe=recipe.name, model=recipe.model, side=networks[recipe.name].input_shape[1],
              seeds=len(recipe.seeds)) for recipe in recipes]
measured = dict(scores=scores, worth=worth, pairs=two_pairs)
write_json(stage.path(f"metrics/{stage.name}.json"), dict(
    recipes=parts, seeds=common_seeds(recipes), films=answers.split.value_counts().to_dict(),
    temperature=temperature, largest_difference=differ)
    | {name: table.to_dict("records") for name, table in measured.items()})
record = finish(stage)
