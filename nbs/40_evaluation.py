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
# # Evaluation
#
# > How good the models are on the test films, how sure that is, and whether they differ at all

# %%
#| default_exp evaluation

# %%
#| export
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from pneumo_nb.run import Stage, StudyError, models, read_provenance, read_table, stage_words
from pneumo_nb.style import (
    CLASS_NAMES, COLOURS, WORDS, counted, in_list, kind_words, mean_and_range, model_order, model_style,
    model_title, p_text, readable, title_with_remark, value_with_interval)
from pneumo_nb.films import film_kind, patient_id, read_film, with_series
from pneumo_nb.measures import (
    MEASURES, RULES, all_measures, auroc, auroc_interval, calibration_error, calibration_line,
    classification_metrics, flat_intervals, honest_calibration_error, intervals, logit, net_benefit,
    pair_differences, patient_draws, predictive_values, proportion_interval, read_predictions,
    threshold_interval, youden_threshold)
from pneumo_nb.appearance import TALL_MARKER
from pneumo_nb.doubt import (
    conformal_quantiles, conformal_sets, coverage_table, resplit_coverage, risk_coverage)
from pneumo_nb.data import load_images
from pneumo_nb.eda import load_appearance

# %%
#| hide
import tempfile

from fastcore.test import test_close, test_eq, test_fail
from IPython.display import Markdown, display
from pneumo_nb.run import finish, look, note, open_stage, write_csv, write_json
from pneumo_nb.style import looks_in_words, plot_style, save_figure
from pneumo_nb.measures import paired_tests
from pneumo_nb.eda import plot_along_numbers
from pneumo_nb.mlp import train_quick
plot_style()

# %% tags=["parameters"]
run_dir = ""     # the run directory; "" for a temporary one
seed = 42        # of the bootstrap intervals
threshold = 0.5  # a film is called pneumonia if its predicted probability is at least this
draws = 1000     # of the bootstrap

# %%
#| export
RANGES = {
    "threshold": "number above 0 and below 1",
    "draws": "whole number from 40 to 100000",
}

# %%
#| export
STAGE = {
    "reads": ["predictions/*.csv", "members/*.csv", "history/*.csv", "images.csv", "appearance.csv",
              "metrics/data.json"],
    "writes": ["comparison.csv", "metrics/evaluation.json", "metrics/evaluation_*.csv"],
    "card": ["evaluation_roc"],
}


# %% [markdown]
# How good are the models on films of children that none of them has learned from? How sure is that, and do
# the models differ at all? The test films give final numbers and choose nothing. What can be chosen, such as
# a threshold, is chosen on validation.

# %% [markdown]
# Everything here starts from `predictions/*.csv`: a path, a split, a label and a probability for each film.
# No model is loaded, so another model's predictions of the same films can be judged by dropping a file there.
# The measures are explained, with their sources, in the chapter on measures.
#
# The run's list of films tells the rest: the kind, the patient and the naming series. Of films that it does
# not hold, their names do.

# %%
#| export
def with_names(
    table: pd.DataFrame, # path
    folder: Path,        # the run directory
) -> pd.DataFrame: # with kind, patient_id, series, number and published
    "Films with their kind, patient and series, as images.csv has them or as their names tell."
    file, named = folder/"images.csv", table[["path"]].drop_duplicates()
    images = read_table(file, ["path", "kind", "patient_id"]) if file.exists() else named[:0]
    others = named[~named.path.isin(images.path)]
    others = others.assign(kind=others.path.map(film_kind), patient_id=others.path.map(patient_id))
    known = pd.concat([with_series(images[images.path.isin(named.path)]), with_series(others)])
    columns = ["kind", "patient_id", "series", "number", "published"]
    return table.drop(columns=columns, errors="ignore").join(known.set_index("path")[columns], on="path")


# %%
#| export
def _check_model_name(file: Path):
    "Refuse a name that tables and figures would take for markup."
    if not set(file.stem) & set("<>&\"'`$\\*|"): return
    raise StudyError(f"Expected a model's name of letters, digits, spaces and points, found {file.name!r} in "
                     f"{file.parent}; rename that file.")


# %%
#| export
def load_predictions(
    stage: Stage,
) -> dict[str, pd.DataFrame]: # model → path, split, label, probability, kind, patient_id, series …
    "All `predictions/*.csv` of the run, in the study's order."
    files = stage.path("predictions").glob("*.csv")
    predictions = {}
    for file in sorted(files, key=lambda file: model_order(file.stem)):
        _check_model_name(file)
        table = with_names(read_predictions(file), stage.folder)
        films = table.groupby(["split", "patient_id"]).path.transform("size")
        predictions[file.stem] = table.assign(films_of_patient=films)
    if not predictions: raise StudyError(
        f"Expected predictions/*.csv in {stage.folder}, found none; run a model stage first.")
    return predictions


# %%
one = pd.DataFrame(dict(path=["test/NORMAL/IM-0001-0001.jpeg"], split="test", label=0, probability=.2))
with tempfile.TemporaryDirectory() as folder:
    other_run = open_stage("evaluation", folder)
    test_fail(lambda: load_predictions(other_run), contains="run a model stage first")
    write_csv(other_run.path("predictions/mine.csv"), one)
    test_eq(load_predictions(other_run)["mine"].patient_id.tolist(), ["IM-0001"])
    write_csv(other_run.path("predictions/mine.csv"), one.drop(columns="label"))
    test_fail(lambda: load_predictions(other_run), contains="mine.csv, found no label")
    write_csv(other_run.path("predictions/mine.csv"), pd.concat([one, one]))
    test_fail(lambda: load_predictions(other_run), contains="found 1 again")
    write_csv(other_run.path("predictions/mine.csv"), one.assign(probability=-1.4))
    test_fail(lambda: load_predictions(other_run), contains="not logits")
    write_csv(other_run.path("predictions/<b>.csv"), one)
    test_fail(lambda: load_predictions(other_run), contains="found '<b>.csv'")


# %% [markdown]
# Models are judged on test films. A set without any is judged on validation films, all models alike.

# %%
#| export
def test_films(
    predictions: dict[str, pd.DataFrame], # model → path, split, label, probability
) -> tuple[str, dict[str, pd.DataFrame]]: # split, model → its films of that split
    "The films that models are judged on: test, or validation where a set has no test films."
    has_test = any((table.split == "test").any() for table in predictions.values())
    split = "test" if has_test else "validation"
    tests = {name: table[table.split == split].reset_index(drop=True) for name, table in predictions.items()}
    empty = [name for name, table in tests.items() if table.empty]
    if empty: raise StudyError(f"Expected {split} films in the predictions of {', '.join(empty)}, "
                               "found none; run that model again.")
    return split, tests


# %%
no_test = one.assign(split="validation")
test_eq(test_films(dict(a=no_test))[0], "validation")
test_fail(lambda: test_films(dict(a=one, b=no_test)), contains="Expected test films in the predictions of b")

# %% [markdown]
# Where a run has no predictions, a small MLP learns from phantoms first, so that this notebook has something
# to show by itself.

# %%
stage = open_stage("evaluation", run_dir, seed=seed, threshold=threshold, draws=draws)
if not list(stage.path("predictions").glob("*.csv")): train_quick(stage)
predictions = load_predictions(stage)
split, tests = test_films(predictions)
if split == "test": look(stage, f"predictions of {counted(len(tests), 'model')}")
else: note(stage, "there are no test films, so the models are judged on validation, which also chose epoch "
                  "and temperature: too kindly.")


# %% [markdown]
# ## All models side by side

# %% [markdown]
# Every measure has its 95 % interval. The AUROC's is DeLong's on the logit, all others are the bootstrap's;
# near 1 the bootstrap would promise too much for an AUROC. Both take patients, not films, as independent.

# %%
#| export
def _measured(
    films: pd.DataFrame, # of one model: label, probability, patient_id
    threshold: float,
    seed: int,
    draws: int,
) -> dict: # every measure, each with _low and _high; tn, fp, fn, tp
    "Measures, intervals and counts of one model."
    metrics = classification_metrics(films.label, films.probability, threshold)
    (tn, fp), (fn, tp) = metrics.pop("confusion_matrix")
    values = {m: float(v[0]) for m, v in all_measures(films, threshold).items()} | metrics
    bounds = intervals(films, threshold, seed, draws)
    bounds["delong"] = bounds["roc_auc"]   # the column that held this interval before it led
    return values | flat_intervals(bounds) | dict(tn=tn, fp=fp, fn=fn, tp=tp)


# %%
four = pd.DataFrame(dict(label=[0, 0, 1, 1], probability=[.1, .6, .4, .9], patient_id=range(4)))
measured = _measured(four, .5, seed=1, draws=20)
test_eq([measured[key] for key in ("tn", "fp", "fn", "tp", "accuracy", "roc_auc")], [1, 1, 1, 1, .5, .75])
assert measured["roc_auc_low"] < .75 < measured["roc_auc_high"]


# %% [markdown]
# `comparison.csv` has one row a model, in the study's order. Behind the measures stands the accuracy at a
# threshold that was chosen on validation by Youden's rule, and the AUROC there. The interval of that
# accuracy holds the threshold fixed. Where validation itself is judged, nothing can be chosen on it.

# %%
#| export
def _validation_films(
    table: pd.DataFrame, # predictions of one model
    films: pd.DataFrame, # those it is judged on
) -> pd.DataFrame:
    "The validation films; none where they are the ones that are judged."
    uses_validation = (films.split == "validation").any()
    return table[(table.split == "validation") & (not uses_validation)]


# %%
#| export
def _chosen_accuracy(validation: pd.DataFrame, films: pd.DataFrame, seed: int, draws: int) -> dict:
    "Accuracy at the threshold that validation chooses; NaN where validation has not both classes."
    names = ("chosen_threshold", "chosen_accuracy")
    if validation.label.nunique() < 2: return dict.fromkeys(names, float("nan"))
    value = youden_threshold(validation)
    accuracy = float(all_measures(films, value)["accuracy"][0])
    interval = intervals(films, value, seed, draws)["accuracy"]
    return dict(zip(names, (value, accuracy))) | flat_intervals(dict(chosen_accuracy=interval))


# %%
of_split = lambda split: four.assign(split=split)
both = pd.concat([of_split("validation"), of_split("test")])
validation = _validation_films(both, of_split("test"))
test_eq(len(validation), 4)
test_eq(_chosen_accuracy(validation, four, 1, 20)["chosen_threshold"], .75)   # half way from .9 to .6
test_eq(len(_validation_films(both, of_split("validation"))), 0)


# %% [markdown]
# Last come the facts of training. The time is that of all training that went into the network. So a
# fine-tuned network carries the time of its frozen stage, and an ensemble that of its members. The remark is
# what the model's stage says of this run, such as random weights where weights from photographs are usual.

# %%
#| export
def _history(stage: Stage, model: str) -> pd.DataFrame | None: # None where there is none
    "How a model was trained, a row an epoch."
    file = stage.path("history", f"{model}.csv")
    return pd.read_csv(file) if file.exists() else None


# %%
#| export
def _training_facts(history: pd.DataFrame | None) -> dict: # epochs, training_seconds, parameters
    "Epochs run (of each member), seconds of all training that went in, number of parameters."
    if history is None: return dict.fromkeys(("epochs", "training_seconds", "parameters"), float("nan"))
    parameters = history.parameters.iloc[-1] if "parameters" in history else float("nan")
    return dict(epochs=history.epoch.max(), training_seconds=history.total_seconds.iloc[-1],
                parameters=parameters)


# %%
#| export
def _remark(stage: Stage, model: str) -> str: # "" for a model of no stage
    "What a reader must know beside a model's name."
    declared = models().get(model)
    return stage_words(stage.folder, declared["stage"], "remark") if declared else ""


# %%
trained = pd.DataFrame(dict(epoch=[1, 2, 1, 2], member=list("aabb"), total_seconds=[3., 6., 9., 12.]))
facts = _training_facts(trained)
test_eq((facts["epochs"], facts["training_seconds"]), (2, 12.))
assert np.isnan(_training_facts(None)["epochs"])
test_eq(_remark(stage, "someone else's"), "")


# %%
#| export
def _last_columns(
    stage: Stage,
    model: str,
    validation: pd.DataFrame, # its validation films
) -> dict: # epochs, training_seconds, parameters, validation_roc_auc, networks, remark
    "Facts of training, the AUROC on validation, how many networks answer together, and the remark."
    history = _history(stage, model)
    has_members = history is not None and "member" in history
    is_defined = validation.label.nunique() == 2
    return _training_facts(history) | dict(
        validation_roc_auc=auroc(validation.label, validation.probability) if is_defined else float("nan"),
        networks=history.member.nunique() if has_members else 1, remark=_remark(stage, model))


# %%
with tempfile.TemporaryDirectory() as folder:
    other_run = open_stage("evaluation", folder)
    write_csv(other_run.path("history/mine.csv"), trained)
    facts = _last_columns(other_run, "mine", validation)
test_eq((facts["networks"], facts["validation_roc_auc"]), (2, .75))


# %%
#| export
def compare_models(
    stage: Stage,
    predictions: dict[str, pd.DataFrame], # from `load_predictions`
    threshold: float,
    seed: int,
    draws: int = 1000,
) -> pd.DataFrame: # a row a model
    "Measures with intervals, counts and facts of training of every model, on the films of `test_films`."
    rows = []
    for model, films in test_films(predictions)[1].items():
        validation = _validation_films(predictions[model], films)
        row = dict(model=model, films=len(films), prevalence=films.label.mean(), threshold=threshold)
        row |= _measured(films, threshold, seed, draws)
        row |= _chosen_accuracy(validation, films, seed, draws)
        rows.append(row | _last_columns(stage, model, validation))
    return pd.DataFrame(rows)


# %%
comparison = compare_models(stage, predictions, threshold, seed, draws)
write_csv(stage.path("comparison.csv"), comparison)


# %%
#| export
def _number(
    value: float,
    digits: int = 4,
) -> str:
    "A number, or a dash where there is none, for reading."
    return "–" if value != value else f"{value:.{digits}f}"


# %%
test_eq([_number(value) for value in (.93, float("nan"))], ["0.9300", "–"])


# %% [markdown]
# [The first picture](#fig-evaluation_roc) has the **ROC curve** of every model, the best first. It shows
# every threshold at once: sensitivity gained against normal films called pneumonia. The band round the best
# is where its curve lies in 95 % of redrawn sets of patients, at each share of false alarms by itself.

# %%
#| export
def best_first(comparison: pd.DataFrame) -> pd.DataFrame: # `comparison`: from `compare_models`
    "The comparison from the highest AUROC to the lowest; without one, in the study's order."
    return comparison.sort_values("roc_auc", ascending=False, kind="stable", ignore_index=True)

def roc_band(
    films: pd.DataFrame, # of one model: label, probability, patient_id
    at: np.ndarray,      # shares of false alarms, 0-1
    seed: int,
    draws: int = 500,
) -> tuple[np.ndarray, np.ndarray]: # 2.5 and 97.5 percentiles of sensitivity at each
    "How far a ROC curve moves when patients are redrawn."
    films = films.sort_values("probability", ascending=False, kind="stable")
    curves, label = [], films.label.to_numpy()
    for weights in (w for block in patient_draws(films.patient_id, draws, seed) for w in block):
        sick, well = (np.r_[0, np.cumsum(weights * (label == kind))] for kind in (1, 0))
        if sick[-1] and well[-1]: curves.append(np.interp(at, well / well[-1], sick / sick[-1]))
    return tuple(np.percentile(curves, [2.5, 97.5], axis=0))


# %%
many = pd.DataFrame(dict(label=np.arange(200) % 2, patient_id=range(200)))
many["probability"] = many.label * .5 + np.linspace(0, .6, 200)
low, high = roc_band(many, np.array([0, .2, 1]), seed=1, draws=100)
assert (low <= high).all() and low[1] < 1 and high[2] == 1


# %%
#| export
def _plot_roc(
    comparison: pd.DataFrame,       # from `compare_models`
    tests: dict[str, pd.DataFrame], # from `test_films`
    seed: int,
): # matplotlib Figure
    "ROC curves of all models, with a band round the best."
    import matplotlib.pyplot as plt
    from sklearn.metrics import roc_curve
    rows, at = best_first(comparison).to_dict("records"), np.linspace(0, 1, 101)
    figure, ax = plt.subplots(figsize=(5.2, 4.4 + .22 * len(rows)))
    first = rows[0]["model"]
    if tests[first].label.nunique() == 2:
        band = roc_band(tests[first], at, seed)
        ax.fill_between(at, *band, color=model_style(first)["color"], alpha=.18, lw=0)
    for row in rows:
        false_alarms, sensitivity, _ = roc_curve(tests[row["model"]].label, tests[row["model"]].probability)
        label = f"{title_with_remark(row)}: {value_with_interval(row, 'roc_auc', 3)}"
        ax.plot(false_alarms, sensitivity, **model_style(row["model"]), lw=2, label=label)
    ax.plot([0, 1], [0, 1], color="gray", lw=.8, ls=":")
    ax.set(xlabel="false alarms (1 − specificity)", ylabel="sensitivity")
    figure.legend(loc="outside lower left", title="AUROC, 95 % interval", fontsize=10, alignment="left")
    return figure


# %%
tests = {model: tests[model] for model in best_first(comparison).model}   # in every figure and table below
scores = ", ".join(f"{model_title(row.model)} {_number(row.roc_auc, 3)}"
                   for row in best_first(comparison).itertuples())
save_figure(stage, _plot_roc(comparison, tests, seed), "evaluation_roc",
            f"ROC curves on {comparison.films[0]:,} {split} films, with a 95 % band round the best.",
            f"ROC curves of all models. AUROC: {scores}.")


# %% [markdown]
# [The next](#fig-evaluation_forest) has the measures at the run's threshold, each with its interval.
# Intervals that overlap do not tell whether two models differ. Further down they are compared on the same
# films.

# %%
#| export
def _plot_forest(comparison: pd.DataFrame): # from `compare_models`
    "A row a model, a panel a measure, with intervals."
    import matplotlib.pyplot as plt
    rows = best_first(comparison).to_dict("records")
    size = 6.8, 1.2 + .54 * len(rows)
    figure, axes = plt.subplots(2, 2, figsize=size, sharey=True)
    for ax, measure in zip(axes.flat, ("roc_auc", "accuracy", "sensitivity", "specificity")):
        for y, row in enumerate(rows):
            value, low, high = (row[measure + end] for end in ("", "_low", "_high"))
            colour = model_style(row["model"])["color"]
            ax.plot([low, high], [y, y], color=colour, lw=2)
            ax.plot(value, y, "o", color=colour, ms=6)
        ax.axvline(.5, color="gray", lw=.8, ls=":")
        ax.set(title=WORDS[measure], xlim=(-.02, 1.02), yticks=range(len(rows)),
               yticklabels=[model_title(row["model"]) for row in rows])
    axes[0, 0].invert_yaxis()
    return figure


# %%
save_figure(stage, _plot_forest(comparison), "evaluation_forest",
            f"All models at threshold {threshold:g}, with 95 % intervals over patients.",
            f"Points with intervals for AUROC, accuracy, sensitivity and specificity. AUROC: {scores}.")


# %% [markdown]
# The same as a table, the best model first; in brackets are 95 % intervals, DeLong's for the AUROC and the
# bootstrap's for the others, both over patients. An interval says how much a number owes to the patients who
# happened to be tested. It does not hold the chance of training: another seed gives another network. Names
# carry the remarks of this run.

# %%
#| export
def _whole(value: float) -> str:
    "A number without decimals, for reading."
    return "–" if value != value else f"{value:,.0f}"


# %%
test_eq(_whole(1234.4), "1,234")


# %%
#| export
def comparison_table(
    comparison: pd.DataFrame, # from `compare_models`
    is_brief: bool = False,   # AUROC, sensitivity and specificity alone
) -> pd.DataFrame: # text, with column heads for people
    "The comparison with intervals, the best model first."
    brief = ("roc_auc", "sensitivity", "specificity")
    measures = brief if is_brief else (*brief, "accuracy")
    rows = []
    for row in best_first(comparison).to_dict("records"):
        values = {measure: value_with_interval(row, measure, 3) for measure in measures}
        facts = {} if is_brief else {key: _whole(row[key]) for key in ("epochs", "training_seconds")}
        rows.append(dict(model=title_with_remark(row)) | values | facts)
    return readable(pd.DataFrame(rows))


# %%
comparison_table(comparison).style.hide(axis="index")


# %% [markdown]
# **Precision** asks how many of the called are truly sick: [the curves](#fig-evaluation_precision). The
# dotted baseline is the share of pneumonia, not .5.

# %%
#| export
def _plot_precision(comparison: pd.DataFrame, tests: dict[str, pd.DataFrame]): # as for `_plot_roc`
    "Precision-recall curves of all models."
    import matplotlib.pyplot as plt
    from sklearn.metrics import precision_recall_curve
    rows = best_first(comparison).to_dict("records")
    figure, ax = plt.subplots(figsize=(5.2, 3.6 + .22 * len(rows)))
    for row in rows:
        films = tests[row["model"]]
        precision, recall, _ = precision_recall_curve(films.label, films.probability)
        label = f"{model_title(row['model'])}: {_number(row['average_precision'], 3)}"
        ax.plot(recall, precision, **model_style(row["model"]), lw=2, label=label)
    ax.axhline(films.label.mean(), color="gray", lw=.8, ls=":")
    ax.set(xlabel="recall (sensitivity)", ylabel="precision", xlim=(-.01, 1.01), ylim=(0, 1.02))
    figure.legend(loc="outside lower left", title="average precision", fontsize=10, alignment="left")
    return figure


# %%
save_figure(stage, _plot_precision(comparison, tests), "evaluation_precision",
            "Precision against recall; the dotted line is the share of pneumonia.",
            "Precision-recall curves of all models.")


# %% [markdown]
# The model with the highest AUROC is looked at more closely below, and first by the chapter on explanations.
# Where there are several models its AUROC is a little too kind, being the highest on these very films.

# %%
#| export
def best_model(
    comparison: pd.DataFrame, # model, roc_auc
) -> str:
    "The model with the highest AUROC; the first, where none has an AUROC."
    return comparison.loc[comparison.roc_auc.fillna(-1).idxmax(), "model"]


# %%
test_eq(best_model(pd.DataFrame(dict(model=list("abc"), roc_auc=[.7, .9, float("nan")]))), "b")
best = best_model(comparison)
names = {row["model"]: title_with_remark(row) for row in comparison.to_dict("records")}
print(f"highest AUROC: {names[best]}")


# %% [markdown]
# All measures, a column a model, for the best of them; `comparison.csv` has the others. PPV and NPV are the
# shares of pneumonia calls and of normal calls that are right. MCC is 1 for a perfect model and 0 for
# guessing.

# %%
#| export
def _measures_table(
    comparison: pd.DataFrame, # from `compare_models`
) -> pd.DataFrame: # text: a row a measure, a column a model
    "Every measure of the five best models, with its interval."
    columns = {}
    for row in best_first(comparison)[:5].to_dict("records"):
        values = {measure: value_with_interval(row, measure, 3) for measure in MEASURES}
        columns[title_with_remark(row)] = values
    return readable(pd.DataFrame(columns).T).T


# %%
caption = (f"All measures at threshold {threshold:g}; the baseline of average precision is "
           f"{comparison.prevalence[0]:.3f}")
_measures_table(comparison).style.set_caption(caption)


# %% [markdown]
# ## Right and wrong calls
#
# [The confusion matrices](#fig-evaluation_confusion) count calls at the run's threshold, with the share of
# each true class below the count.

# %%
#| export
def _plot_confusion(
    ax,
    matrix: np.ndarray, # [[TN, FP], [FN, TP]]
    heading: str,
):
    "Confusion matrix as a heatmap, with counts and the share of each true class."
    import seaborn as sns
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    texts = [f"{n}\n{share:.1%}" for n, share in zip(matrix.flat, shares.flat)]
    names = [name.lower() for name in CLASS_NAMES]
    sns.heatmap(shares, annot=np.reshape(texts, (2, 2)), fmt="", cmap="Blues", vmin=0, vmax=1, cbar=False,
                ax=ax, linewidths=1, xticklabels=names, yticklabels=names)
    ax.set_title(heading, fontsize=11)

def _plot_confusions(comparison: pd.DataFrame): # from `compare_models`
    "A confusion matrix for each model, the best first."
    import matplotlib.pyplot as plt
    rows = best_first(comparison).to_dict("records")
    count = -(-len(rows) // 2)
    figure, axes = plt.subplots(count, 2, figsize=(6.6, 2.5 * count), sharex=True, sharey=True, squeeze=False)
    for ax, row in zip(axes.flat, rows):
        matrix = np.array([[row["tn"], row["fp"]], [row["fn"], row["tp"]]])
        _plot_confusion(ax, matrix, model_title(row["model"]))
    for ax in axes.flat[len(rows):]: ax.axis("off")
    figure.supxlabel("called")
    figure.supylabel("true")
    return figure


# %%
parts = [f"{model_title(row.model)} misses {row.fn} of {row.fn + row.tp} and calls {row.fp} of "
         f"{row.fp + row.tn} normal films pneumonia" for row in best_first(comparison).itertuples()]
save_figure(stage, _plot_confusions(comparison), "evaluation_confusion",
            f"Calls at threshold {threshold:g} on {split} films.", f"Confusion matrices. {'; '.join(parts)}.")


# %%
#| export
def _class_report(
    films: pd.DataFrame, # of one model
    threshold: float,
) -> pd.DataFrame: # rows NORMAL, PNEUMONIA; precision, recall, f1, films
    "Precision, recall and F1 of each class."
    metrics = classification_metrics(films.label, films.probability, threshold)
    rows, measures = {}, ("precision", "recall", "f1")
    for label, name in enumerate(CLASS_NAMES):
        rows[name] = {measure: metrics[f"{measure}_{name.lower()}"] for measure in measures}
        rows[name]["films"] = int((films.label == label).sum())
    return pd.DataFrame(rows).T.astype(dict(films=int))


# %%
test_eq(_class_report(four, .5).loc["PNEUMONIA"].tolist(), [.5, .5, .5, 2])

# %%
reports = {model_title(row.model): _class_report(tests[row.model], threshold)
           for row in best_first(comparison).itertuples()}
report = pd.concat(reports, names=["model", "class"]).reset_index()
caption = f"Precision, recall and F1 of each class at threshold {threshold:g}"
readable(report).style.hide(axis="index").format(precision=3, na_rep="–").set_caption(caption)


# %% [markdown]
# ## Do they differ?
#
# Two models are compared film by film, in two ways. Do they **rank** differently: the difference of their
# AUROCs, with an interval and a p-value after DeLong, patients being independent. Do they **call**
# differently at the threshold: on how many films is only one of them right? McNemar's exact test judges that
# count and takes films as independent; the exact test beside it asks the same of patients. The difference in
# accuracy has an interval from redrawn patients.
#
# Several pairs mean several chances to be fooled, so p-values are corrected after Holm. McNemar's are
# corrected over the pairs. Those of DeLong and of patients, from which the findings are drawn, are corrected
# all together.

# %%
#| export
def _difference(
    row: dict,    # of `paired_tests`
    measure: str, # "auroc" or "accuracy"
) -> str: # such as "+0.012 (-0.003 to +0.027)"
    "The difference of two models with its interval."
    value, low, high = (row[f"{measure}_{key}"] for key in ("difference", "low", "high"))
    if value != value: return "–"
    return f"{value:+.3f}" if low != low else f"{value:+.3f} ({low:+.3f} to {high:+.3f})"


# %%
row = dict(auroc_difference=.012, auroc_low=-.003, auroc_high=.027)
test_eq(_difference(row, "auroc"), "+0.012 (-0.003 to +0.027)")
test_eq(_difference(row | dict(auroc_low=float("nan")), "auroc"), "+0.012")


# %%
#| export
def _pairs_table(
    pairs: pd.DataFrame, # from `paired_tests`
) -> pd.DataFrame: # text
    "Pairs of models, for reading."
    rows = []
    for row in pairs.to_dict("records"):
        p = {key: p_text(row[key]) for key in ("p_auroc_holm", "p_holm", "p_calls_holm")}
        rows.append(dict(
            first=model_title(row["first"]), second=model_title(row["second"]),
            auroc_difference=_difference(row, "auroc"), p_auroc_holm=p["p_auroc_holm"],
            right_alone=f"{row['only_first']} : {row['only_second']}",
            accuracy_difference=_difference(row, "accuracy"), p_holm=p["p_holm"],
            p_calls_holm=p["p_calls_holm"]))
    return readable(pd.DataFrame(rows))


# %%
pairs = paired_tests(tests, threshold, seed, draws)
write_csv(stage.path("metrics/evaluation_pairs.csv"), pairs)
if len(pairs): display(_pairs_table(pairs).style.hide(axis="index"))
else: print("No two models of this run have films in common.")


# %% [markdown]
# ## Whom does a model miss?
#
# Bacterial and viral pneumonia both count as pneumonia, but a lobar patch and a fine veil are not equally
# easy to see. The two naming series of the normal films were probably taken at different times. A child with
# many films may be a sicker one.
#
# A **tall side marker** stands for machines by which, in the public films, many sick and few other children
# were filmed; the exploration measures it. A model that knows the machine calls its normal films sick. This
# group was made after errors on test had been looked at. Where the originals differ in size and shape, a
# model may also fare differently on wide films and on narrow ones.
#
# Sizes come from `images.csv` and markers from `appearance.csv`. A run may hold predictions alone, or its
# films may have moved. Then a note says what is missing.

# %%
#| export
def _run_films(
    stage: Stage,
    seed: int,
) -> pd.DataFrame | None: # what images.csv holds; attrs: root; None where a run has predictions alone
    "The films of this run."
    files = ("images.csv", "metrics/data.json")
    return load_images(stage, seed) if all(stage.path(file).exists() for file in files) else None

def _are_there(images: pd.DataFrame | None, paths) -> bool:
    "Whether all films lie where this run found them."
    return images is not None and all((Path(images.attrs["root"])/path).is_file() for path in paths)


# %%
#| export
def _load_markers(
    stage: Stage,
    images: pd.DataFrame | None, # from `_run_films`
    seed: int,
) -> pd.Series | None: # path → height of the side marker; None where it is not known
    "Side markers, as the exploration measured them, or measured now."
    if images is None: return None
    is_measured = stage.path("appearance.csv").exists()
    if not (is_measured or _are_there(images, images.path)): return None
    return load_appearance(stage, images, seed).marker.set_axis(images.path)


# %%
images = _run_films(stage, seed)
markers = _load_markers(stage, images, seed)
paths = {path for films in tests.values() for path in films.path}
has_films = _are_there(images, paths)
unknown = "nothing is told of their side markers, and " if markers is None else ""
if not has_films:
    note(stage, "the films themselves are not, or not all, where this run found them, so "
                f"{unknown}there is no gallery.")

# %%
with tempfile.TemporaryDirectory() as folder:
    moved = pd.DataFrame(dict(path=["test/NORMAL/IM-0001-0001.jpeg"]))
    moved.attrs["root"] = folder
    test_eq(_load_markers(open_stage("evaluation", folder), moved, seed), None)


# %%
#| export
def _with_looks(
    films: pd.DataFrame,         # of one model
    images: pd.DataFrame | None, # from `_run_films`
    markers: pd.Series | None,   # from `_load_markers`
) -> pd.DataFrame: # with width, height and marker, as far as they are known
    "Films with their size and the height of their side marker."
    if images is None: return films
    sizes = images.set_index("path")[["width", "height"]]
    films = films.join(sizes, on="path")
    return films if markers is None else films.assign(marker=films.path.map(markers))


# %%
two = pd.DataFrame(dict(path=["a", "b"]))
sized = pd.DataFrame(dict(path=["b"], width=300, height=200))
test_eq(_with_looks(two, sized, pd.Series([.1], ["b"])).iloc[1].tolist(), ["b", 300, 200, .1])
test_eq(list(_with_looks(two, None, None)), ["path"])


# %% [markdown]
# Sizes are cut into thirds. A group that all films share, or that is not known, is left out.

# %%
#| export
def _thirds(
    values: pd.Series, # of films, NaN where unknown
) -> pd.Series: # ordered text, such as "below 1.31"
    "Lowest, middle and highest third."
    low, high = np.quantile(values.dropna(), [1 / 3, 2 / 3])
    words = lambda value: f"{value:,.0f}" if value >= 10 else f"{value:.2f}"
    labels = [f"below {words(low)}", f"{words(low)} to {words(high)}", f"{words(high)} or more"]
    return pd.cut(values, [-np.inf, low, high, np.inf], right=False, duplicates="drop",
                  labels=None if low == high else labels)


# %%
test_eq(_thirds(pd.Series([1., 2., 4.])).tolist(), ["below 1.67", "1.67 to 2.67", "2.67 or more"])


# %%
#| export
def _film_groups(
    films: pd.DataFrame, # from `load_predictions`; width, height and marker where known
) -> dict[str, pd.Series]: # what is grouped by → (n,) each film's group, NaN for none
    "Films by kind, naming series, films of the patient, side marker, and original size and shape."
    counts = pd.cut(films.films_of_patient, [0, 1, 3, np.inf], labels=["1", "2 or 3", "4 or more"])
    normal_series = films.series.where((films.label == 0) & (films.series != films.kind))   # others are kinds
    groups = {"kind": films.kind, "naming series": normal_series, "films of the patient": counts}
    if "marker" in films and (films.marker > TALL_MARKER).any():
        words = np.where(films.marker > TALL_MARKER, "tall", "other or none found")
        groups["side marker"] = pd.Series(words, films.index)
    if "width" in films and films.width.nunique() > 1:
        groups["original width, pixels"] = _thirds(films.width)
        groups["original width / height"] = _thirds(films.width / films.height)
    return groups


# %%
films = four.assign(kind=["normal"] * 2 + ["virus"] * 2, series=list("abcc"), films_of_patient=[1, 3, 4, 1],
                    marker=[.08, .01, 0, 0])
groups = _film_groups(films)
test_eq(groups["naming series"].tolist()[:2], ["a", "b"])
test_eq(groups["films of the patient"].tolist(), ["1", "2 or 3", "4 or more", "1"])
test_eq(groups["side marker"].value_counts().to_dict(), {"other or none found": 3, "tall": 1})
assert "original width, pixels" not in groups      # not known here


# %% [markdown]
# The table counts each group's films and patients. The rate is sensitivity for groups of pneumonia films and
# specificity for groups of normal ones. The AUROC sets a group against all films of the other class. It has
# no interval where either has one patient.

# %%
#| export
def _group_auroc(
    films: pd.DataFrame, # of one model
    chosen: np.ndarray,  # (n,) bool: the group
    label: int,          # of all its films
) -> dict: # roc_auc, roc_auc_low, roc_auc_high; NaN where there is no other class
    "AUROC of a group against all films of the other class, with its interval after DeLong."
    rows = films[chosen | (films.label == 1 - label).to_numpy()]
    names = ("roc_auc", "roc_auc_low", "roc_auc_high")
    return dict(zip(names, (auroc(rows.label, rows.probability), *auroc_interval(rows))))


# %%
#| export
def _group_rate(
    group: pd.DataFrame, # films of one class
    label: int,
    threshold: float,
    seed: int,
    draws: int,
) -> dict: # films, patients, measure, rate, rate_low, rate_high
    "How often the films of a group are called right."
    measure = "sensitivity" if label else "specificity"
    rate, limits = all_measures(group, threshold)[measure], intervals(group, threshold, seed, draws)[measure]
    return dict(films=len(group), patients=group.patient_id.nunique(), measure=measure,
                rate=float(rate[0]), **flat_intervals(dict(rate=limits)))


# %%
#| export
def subgroup_table(
    tests: dict[str, pd.DataFrame], # model → its films, from `load_predictions`
    threshold: float,
    seed: int,
    draws: int = 1000,
) -> pd.DataFrame: # a row a model, grouping, class and group
    "How often each group of films is called right, with intervals from redrawn patients."
    rows = []
    for model, films in tests.items():
        for by, groups in _film_groups(films).items():
            for label, group in product((0, 1), groups.astype("category").cat.categories):
                chosen = ((groups == group) & (films.label == label)).to_numpy()
                if not chosen.any(): continue
                row = dict(model=model, label=label, by=by, group=str(group))
                row |= _group_rate(films[chosen], label, threshold, seed, draws)
                rows.append(row | _group_auroc(films, chosen, label))
    return pd.DataFrame(rows)


# %%
one_sick = four.assign(patient_id=[0, 1, 2, 2])
alone = _group_auroc(one_sick, one_sick.label.to_numpy() == 1, 1)
test_eq(alone["roc_auc"], .75)
assert np.isnan(alone["roc_auc_low"])

# %%
with_looks = {name: _with_looks(films, images, markers) for name, films in tests.items()}
subgroups = subgroup_table(with_looks, threshold, seed, draws)
write_csv(stage.path("metrics/evaluation_subgroups.csv"), subgroups)
films_by_kind = subgroups[subgroups["by"] == "kind"].groupby("model").films.sum()
test_eq(films_by_kind.to_dict(), {name: len(films) for name, films in tests.items()})   # none is left out


# %%
#| export
def _groups_table(
    subgroups: pd.DataFrame, # rows of one model, from `subgroup_table`
) -> pd.DataFrame: # text
    "Groups of films, for reading."
    rows = subgroups.to_dict("records")
    texts = {key: [value_with_interval(row, key, 3) for row in rows] for key in ("rate", "roc_auc")}
    return readable(subgroups[["by", "group", "films", "patients", "measure"]].assign(**texts))


# %%
caption = f"{names[best]}; the other models are in metrics/evaluation_subgroups.csv"
_groups_table(subgroups[subgroups.model == best]).style.hide(axis="index").set_caption(caption)


# %% [markdown]
# [The figure](#fig-evaluation_subgroups) shows the rates of all models. Look for groups that lie apart from
# the others in every model. Many groups mean many chances, so a single one that sticks out is a question, not
# a finding.

# %%
#| export
def _plot_groups(
    ax,
    rows: pd.DataFrame,           # of one class, from `subgroup_table`
    keys: list[tuple[str, str]],  # groupings and groups, from top to bottom
):
    "Rates of every group and model of one class."
    names = list(dict.fromkeys(rows.model))
    for n, name in enumerate(names):
        model = rows[rows.model == name].set_index(["by", "group"]).reindex(keys)
        lift = .62 * (n / (len(names) - 1) - .5) if len(names) > 1 else 0
        error = [model.rate - model.rate_low, model.rate_high - model.rate]
        ax.errorbar(model.rate, np.arange(len(keys)) + lift, xerr=error, fmt="os^Dv*"[n % 6], ms=5, lw=1,
                    color=model_style(name)["color"], label=model_title(name))
    counts = rows.drop_duplicates(["by", "group"]).set_index(["by", "group"]).films
    labels = [f"{by}: {group} ({counts[by, group]})" for by, group in keys]
    ax.set(yticks=range(len(keys)), yticklabels=labels, xlim=(None, 1.01))
    ax.grid(axis="x", color="#dddddd")
    ax.invert_yaxis()


# %%
#| export
def _plot_subgroups(
    subgroups: pd.DataFrame, # from `subgroup_table`
): # matplotlib Figure
    "Specificity and sensitivity of every group and model, with intervals."
    import matplotlib.pyplot as plt
    classes = [subgroups[subgroups.label == label] for label in (0, 1)]
    keys = [list(dict.fromkeys(zip(rows["by"], rows["group"]))) for rows in classes]
    heights = [len(groups) for groups in keys]
    size = 8, 1.8 + .42 * sum(heights)
    figure, axes = plt.subplots(2, 1, figsize=size, height_ratios=heights)
    for ax, rows, groups in zip(axes, classes, keys): _plot_groups(ax, rows, groups)
    for ax, measure, name in zip(axes, ("specificity", "sensitivity"), CLASS_NAMES):
        ax.set_title(f"{measure}, {name.lower()} films")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


# %%
save_figure(stage, _plot_subgroups(subgroups), "evaluation_subgroups",
            "Films called right by group, with 95 % intervals; the number of films in brackets.",
            "Dots with intervals, specificity of groups of normal films and sensitivity of groups of "
            "pneumonia films for each model, at the run's threshold. The numbers are in "
            "metrics/evaluation_subgroups.csv.")


# %% [markdown]
# ## The threshold
#
# Pneumonia is more common in train than in test, and class weights bend the probabilities, so .5 has no
# special right. Three rules choose another threshold, on **validation** films only. Youden's rule takes the
# largest sum of sensitivity and specificity. The others take the largest threshold that finds 95 % or 98 % of
# the validation films with pneumonia, as one would want where a miss is worse than a false alarm.
#
# What the thresholds do on the films judged is then read off, whatever it is. Compare sensitivity and
# specificity with those on validation: where they are not found again, validation did not resemble test. The
# interval beside a threshold says which one other validation patients would have led to. Near its best the
# sum of sensitivity and specificity is flat, so Youden's choice is partly chance, and so is any accuracy read
# off at it.

# %%
#| export
def _threshold_row(
    validation: pd.DataFrame, # films that chose it, maybe none
    films: pd.DataFrame,      # that the model is judged on
    value: float,             # the threshold
    seed: int,
    draws: int,
) -> dict: # sensitivity and specificity on validation; measures with intervals
    "What a threshold does."
    measures = ("accuracy", "sensitivity", "specificity", "ppv", "npv")
    rates = all_measures(validation, value) if len(validation) else {}
    before = {f"validation_{m}": float(rates[m][0]) if rates else float("nan")
              for m in ("sensitivity", "specificity")}
    values, bounds = all_measures(films, value), intervals(films, value, seed, draws)
    return (before | {m: float(values[m][0]) for m in measures}
            | flat_intervals({m: bounds[m] for m in measures}))


# %%
#| export
def _thresholds_of(
    validation: pd.DataFrame, # of one model
    fixed: float,
    seed: int,
    draws: int,
) -> dict: # rule → threshold, low, high
    "The run's threshold and those that rules choose, each with its interval."
    chosen = {"fixed": (fixed, float("nan"), float("nan"))}
    if validation.label.nunique() < 2: return chosen
    for name, rule in RULES.items():
        chosen[name] = rule(validation), *threshold_interval(validation, rule, seed, draws)
    return chosen


# %%
#| export
def threshold_table(
    predictions: dict[str, pd.DataFrame], # model → split, label, probability, patient_id
    fixed: float,                         # the run's own threshold
    seed: int = 42,
    draws: int = 1000,
) -> pd.DataFrame: # a row a model and rule
    "The films of `test_films` at the fixed threshold and at those chosen on validation."
    rows = []
    for model, films in test_films(predictions)[1].items():
        validation = _validation_films(predictions[model], films)
        for chosen, (value, low, high) in _thresholds_of(validation, fixed, seed, draws).items():
            row = dict(model=model, chosen=chosen, threshold=value, threshold_low=low, threshold_high=high)
            rows.append(row | _threshold_row(validation, films, value, seed, draws))
    return pd.DataFrame(rows)


# %%
toy = threshold_table(dict(toy=both), .5, draws=20)
test_eq(list(toy.chosen), ["fixed", *RULES])
test_eq(toy.validation_sensitivity.tolist(), [.5, .5, 1, 1])
alone = threshold_table(dict(toy=of_split("test")), .5, draws=20)
test_eq(list(alone.chosen), ["fixed"])     # nothing to choose by


# %%
#| export
def _readable_thresholds(
    thresholds: pd.DataFrame, # from `threshold_table`
    names: dict[str, str],    # model → what it is called
) -> pd.DataFrame: # text
    "Thresholds and what they do, for reading."
    rows, measures = [], ("threshold", "sensitivity", "specificity", "accuracy")
    for row in thresholds.to_dict("records"):
        values = {m: value_with_interval(row, m, 3) for m in measures}
        before = {f"validation_{m}": _number(row[f"validation_{m}"], 3) for m in measures[1:3]}
        threshold = dict(threshold=values.pop("threshold"))
        rows.append(dict(model=names[row["model"]], chosen=row["chosen"]) | threshold | before | values)
    return readable(pd.DataFrame(rows))


# %%
thresholds = threshold_table(predictions, threshold, seed, draws)
write_csv(stage.path("metrics/evaluation_thresholds.csv"), thresholds)
_readable_thresholds(thresholds, names).style.hide(axis="index")


# %% [markdown]
# ## Where pneumonia is rarer
#
# What a call is worth also depends on how many children are sick. [The figure](#fig-evaluation_prevalence)
# carries each model's sensitivity and specificity, at the threshold that Youden's rule chose on validation,
# to other prevalences by Bayes' rule. It assumes that the sick elsewhere are as sick, and the well as well,
# as here. A screening clinic would not confirm that.

# %%
#| export
def _plot_prevalence(
    thresholds: pd.DataFrame, # from `threshold_table`
    here: float,              # prevalence among the films judged
): # matplotlib Figure
    "PPV and NPV of every model against prevalence."
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), sharey=True)
    titles = ("PPV: pneumonia calls that are right", "NPV: normal calls that are right")
    prevalence = np.linspace(.005, .995, 199)
    for model, rows in thresholds.groupby("model", sort=False):
        row = rows[rows.chosen == "Youden"].iloc[0] if (rows.chosen == "Youden").any() else rows.iloc[0]
        values = predictive_values(row.sensitivity, row.specificity, prevalence)
        for ax, share in zip(axes, values):
            ax.plot(prevalence, share, **model_style(model), lw=2, label=model_title(model))
    for ax, title in zip(axes, titles):
        ax.axvline(here, color="gray", lw=.8, ls=":")
        ax.set(title=title, xlabel="prevalence of pneumonia (dotted: these films)", ylim=(0, 1.02))
        ax.xaxis.set_major_formatter("{x:.0%}")
    axes[0].legend(fontsize=9)
    return figure


# %%
save_figure(stage, _plot_prevalence(thresholds, comparison.prevalence[0]), "evaluation_prevalence",
            "What a call is worth, by how common pneumonia is.",
            "PPV rises and NPV falls with the prevalence of pneumonia, for every model at its threshold "
            "chosen on validation.")

# %% [markdown]
# ## Is a model worth using?
#
# [The decision curve](#fig-evaluation_decision) compares each model's net benefit with calling everyone and
# calling no one. Read it at the exchange rate that a clinic would choose: a threshold of 10 % says that one
# missed pneumonia weighs as much as nine false alarms. A model whose line lies below both others there does
# harm. Shaded are exchange rates from 19 false alarms for a miss down to one: beyond them a false alarm would
# count more than a missed pneumonia. The curve takes probabilities at their word, so calibration matters, and
# it holds for the share of pneumonia among these films.

# %%
#| export
_IN_USE = .05, .5  # threshold probabilities from 19 false alarms for a miss to one

def _plot_decision(
    tests: dict[str, pd.DataFrame], # model → label, probability
): # matplotlib Figure
    "Decision curves of all models, beside calling everyone and no one."
    import matplotlib.pyplot as plt
    figure, ax = plt.subplots(figsize=(7, 4.8))
    t, share = np.linspace(.01, .99, 99), next(iter(tests.values())).label.mean()
    for model, films in tests.items():
        ax.plot(t, net_benefit(films, t), **model_style(model), lw=2, label=model_title(model))
    ax.plot(t, share - (1 - share) * t / (1 - t), color="black", lw=1, label="call everyone")
    ax.axhline(0, color="gray", lw=1, ls=":", label="call no one")
    ax.axvspan(*_IN_USE, color="#0072B2", alpha=.08, lw=0)
    ax.set(xlabel="threshold probability t", ylabel="net benefit per film", ylim=(-.05, share * 1.08),
           title="Decision curve")
    figure.legend(loc="outside lower center", fontsize=9, ncols=3)
    return figure


# %%
save_figure(stage, _plot_decision(tests), "evaluation_decision",
            "Net benefit of each model by the exchange rate of misses and false alarms; shaded, where one "
            "would use it.",
            "Net benefit against threshold probability for each model, beside the curves of calling everyone "
            "and of calling no one.")


# %% [markdown]
# ## Can a probability be taken at its word?
#
# Of the films given about .8, are 80 % sick? Models are saved with a temperature that was fitted on
# validation. The table shows their calibration before and after it. The **Brier score** is 0 for a perfect
# model; giving every film the prevalence scores the prevalence times its complement. **ECE** is the expected
# calibration error. **Slope** and **intercept** are 1 and 0 for honest probabilities. A slope between 0 and 1
# means too sure on both sides, and an intercept below 0 means too much pneumonia promised on the whole. Their
# intervals let patients vary.
#
# Honest probabilities have an ECE above 0, too, since labels fall by chance. Beside a model's ECE stands the
# one that its own probabilities would stay below in 95 of 100 sets of as many films, if they were perfectly
# calibrated. Only an ECE beyond that is evidence. A model within it is called *calibrated*, any other
# *temperature-scaled*.

# %%
#| export
def _calibration_table(
    tests: dict[str, pd.DataFrame], # model → label, probability, patient_id, maybe uncalibrated
    seed: int = 42,
    draws: int = 1000,
) -> pd.DataFrame: # a row a model and whether before or after the temperature
    "Brier score, ECE, slope and intercept before and after the temperature; the ECE of honest probabilities."
    rows, columns = [], dict(before="uncalibrated", after="probability")
    for (model, films), (when, column) in product(tests.items(), columns.items()):
        if column not in films: continue
        brier = float(((films[column] - films.label) ** 2).mean())
        ece = calibration_error(films.label, films[column])
        rows.append(dict(model=model, when=when, brier=brier, ece=ece) | calibration_line(films, column)
                    | dict(ece_honest=honest_calibration_error(films[column], seed, draws)))
    return pd.DataFrame(rows)


# %%
toy = _calibration_table(dict(toy=four.assign(uncalibrated=[0., 1., 0., 1.]))).set_index("when")
test_close(toy.brier.tolist(), [.5, (.01 + .36 + .36 + .01) / 4])


# %%
#| export
def _readable_calibration(
    calibration: pd.DataFrame, # from `_calibration_table`
    names: dict[str, str],     # model → what it is called
) -> pd.DataFrame: # text
    "Calibration of every model, for reading."
    rows = []
    for row in calibration.to_dict("records"):
        scores = {key: _number(row[key]) for key in ("brier", "ece", "ece_honest")}
        line = {key: value_with_interval(row, key, 2) for key in ("slope", "intercept")}
        rows.append(dict(model=names[row["model"]], when=row["when"]) | scores | line)
    return readable(pd.DataFrame(rows))


# %%
calibration = _calibration_table(tests, seed, draws)
write_csv(stage.path("metrics/evaluation_calibration.csv"), calibration)
_readable_calibration(calibration, names).style.hide(axis="index")


# %% [markdown]
# [The reliability diagram](#fig-evaluation_reliability) compares, in groups of equally many films, the mean
# probability with the share that is sick. On the diagonal, probabilities are honest; below it a model
# promises more pneumonia than there is. Hollow marks show the model before its temperature. The band joins
# Wilson's 95 % intervals of the groups, which take films as independent.

# %%
#| export
def _reliability(
    films: pd.DataFrame, # label, and probabilities in `column`
    column: str,
    groups: int = 8,
) -> pd.DataFrame: # a row a group: mean probability, share with pneumonia, low, high
    "Groups of about equally many films; films of equal probability stay together."
    cuts = np.quantile(films[column], np.arange(1, groups) / groups)
    rows = []
    for _, group in films.groupby(np.searchsorted(cuts, films[column])):
        low, high = proportion_interval(int(group.label.sum()), len(group))
        rows.append(dict(mean=group[column].mean(), share=group.label.mean(), low=low, high=high))
    return pd.DataFrame(rows)


# %%
test_eq(_reliability(four, "probability", 2)[["mean", "share"]].to_numpy(), [[.25, .5], [.75, .5]])
equal = four.assign(probability=.3)
test_eq(_reliability(equal, "probability").share.tolist(), [.5])


# %%
#| export
def _plot_one_reliability(ax, films: pd.DataFrame, model: str):
    "Reliability of one model before and after the temperature."
    colour, marks = model_style(model)["color"], dict(marker="o", ls="none", ms=6)
    ax.plot([0, 1], [0, 1], color="gray", lw=.8, ls=":")
    if "uncalibrated" in films:
        before = _reliability(films, "uncalibrated")
        ax.plot(before["mean"], before.share, color=colour, mfc="white", alpha=.8, label="before", **marks)
    after = _reliability(films, "probability")
    ax.plot(after["mean"], after.share, color=colour, label="after", **marks)
    ax.fill_between(after["mean"], after.low, after.high, color=colour, alpha=.18, lw=0)
    ax.set(title=model_title(model), xlim=(-.02, 1.02), ylim=(-.02, 1.02))
    ax.legend(title="temperature", fontsize=9)


# %%
#| export
def _plot_reliability(
    tests: dict[str, pd.DataFrame], # model → label, probability, maybe uncalibrated
): # matplotlib Figure
    "Reliability diagram of each model."
    import matplotlib.pyplot as plt
    columns = min(len(tests), 2)
    lines = -(-len(tests) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(3.8 * columns, 3.4 * lines), squeeze=False,
                                sharex=True, sharey=True)
    for ax in axes.flat[len(tests):]: ax.axis("off")
    for ax, (model, films) in zip(axes.flat, tests.items()): _plot_one_reliability(ax, films, model)
    figure.supxlabel("mean predicted probability")
    figure.supylabel("share with pneumonia")
    return figure


# %%
save_figure(stage, _plot_reliability(tests), "evaluation_reliability",
            "Predicted probability against the share that is sick, in eight groups of films.",
            f"For each model the share of {split} films with pneumonia against the mean predicted "
            "probability, with a band of intervals, before and after the temperature, beside the diagonal "
            "of honest probabilities.")

# %% [markdown]
# ## When not to answer
#
# A model can say more than a call: which classes it cannot rule out. The chapter on doubt explains conformal
# sets. Their limits come from **validation**, or from the films that each member left out, separately for
# each class and with a patient counting once. They promise that the set holds the true class of 90 % of
# patients.
#
# The table has that share for patients of validation, over a thousand random halves of them. There it must be
# what was promised. On the films judged it is what it is: less than promised means that these films are not
# like those of validation. A set with both classes, or with neither, leaves the film to a person.

# %%
#| export
SET_LEVEL = .9  # share of patients of each class whose set shall hold it

def _set_rows(
    validation: pd.DataFrame, # of one model, maybe none
    films: pd.DataFrame,      # that it is judged on
    seed: int,
    draws: int,
) -> pd.DataFrame: # a row a class; none without validation
    "What conformal sets of one model hold."
    if validation.empty: return pd.DataFrame()
    answers = lambda table: (table.label, table.probability, table.patient_id)
    limits = conformal_quantiles(*answers(validation), SET_LEVEL)
    rows = coverage_table(*answers(films), limits, seed, draws)
    halves = resplit_coverage(*answers(validation), SET_LEVEL, seed=seed).set_index("class")
    before = dict(validation_coverage="coverage", validation_error="error")
    columns = {column: rows["class"].map(halves[name]) for column, name in before.items()}
    return rows.assign(level=SET_LEVEL, limit=rows["class"].map(limits), **columns)


# %%
#| export
def set_table(
    predictions: dict[str, pd.DataFrame], # model → split, label, probability, patient_id
    seed: int = 42,
    draws: int = 1000,
) -> pd.DataFrame: # a row a model and class
    "Conformal sets on the films of `test_films`, with limits from validation."
    tables = []
    for model, films in test_films(predictions)[1].items():
        rows = _set_rows(_validation_films(predictions[model], films), films, seed, draws)
        tables.append(pd.DataFrame(dict(model=model), rows.index).join(rows))
    return pd.concat(tables, ignore_index=True)


# %%
alike = pd.DataFrame(dict(label=np.arange(80) % 2, probability=np.arange(80) % 2 * .5 + np.arange(80) / 200))
alike = pd.concat([alike.assign(split=name, patient_id=range(80)) for name in ("validation", "test")])
toy_sets = set_table(dict(toy=alike), draws=20)
assert (toy_sets.coverage >= SET_LEVEL).all()
assert (toy_sets.validation_coverage >= SET_LEVEL - 2 * toy_sets.validation_error).all()
test_eq(len(set_table(dict(toy=of_split("test")))), 0)     # nothing to set limits by

# %%
#| export
_SETS = {"coverage": "true class in the set", "validation_coverage": "the same, halves of validation",
         "both": "set of both", "neither": "empty set", "wrong": "only the other class"}

def _readable_sets(
    sets: pd.DataFrame,    # from `set_table`
    names: dict[str, str], # model → what it is called
) -> pd.DataFrame: # text
    "Conformal sets of every model, for reading."
    rows = []
    for row in sets.to_dict("records"):
        shares = {key: _number(row[key], 3) for key in list(_SETS)[1:]}
        facts = {"model": names[row["model"]], "true class": row["class"], "films": row["films"]}
        rows.append(facts | dict(coverage=value_with_interval(row, "coverage", 3)) | shares)
    return pd.DataFrame(rows).rename(columns=_SETS)


# %%
sets = set_table(predictions, seed, draws)
write_csv(stage.path("metrics/evaluation_sets.csv"), sets)
if len(sets): display(_readable_sets(sets, names).style.hide(axis="index"))
else: print("There is no validation beside the films judged, so no limits of sets.")


# %% [markdown]
# [The curve](#fig-evaluation_risk) leaves films out by doubt: how near a probability is to the threshold, in
# log odds. On the right all films are answered, and the risk is one less the accuracy. Towards the left only
# the surest are. A curve that does not fall to the left means that a model does not know when it is wrong. A
# dot stands where a model answers only films whose set holds one class, with that class. It may lie above the
# curve, since sets are made to hold both classes equally often, not to make the fewest mistakes.

# %%
#| export
def _single_sets(
    sets: pd.DataFrame,  # rows of one model, from `set_table`
    films: pd.DataFrame, # that it is judged on
) -> tuple[float, float]: # share of films with one class in the set; share of these that are wrong
    "What it comes to if only sets of one class are answers."
    said = np.array(conformal_sets(films.probability, dict(zip(sets["class"], sets.limit))))
    is_single = np.isin(said, [name.lower() for name in CLASS_NAMES])
    wrong = (said == CLASS_NAMES[1].lower()) != (films.label == 1)
    return float(is_single.mean()), float(wrong[is_single].mean()) if is_single.any() else float("nan")


# %%
limits = pd.DataFrame({"class": ["normal", "pneumonia"], "limit": [.2, .2]})
test_eq(_single_sets(limits, four), (.5, 0))   # .6 and .4 have an empty set


# %%
#| export
def _plot_risk(
    tests: dict[str, pd.DataFrame], # model → its films
    sets: pd.DataFrame,             # from `set_table`
    threshold: float,
): # matplotlib Figure
    "Risk against coverage of every model, and where sets of one class lie."
    import matplotlib.pyplot as plt
    figure, ax = plt.subplots(figsize=(7, 4))
    for model, films in tests.items():
        curve, style = risk_coverage(films.label, films.probability, threshold), model_style(model)
        ax.plot(curve.coverage, curve.risk, **style, lw=2, label=model_title(model))
        rows = sets[sets.model == model] if len(sets) else sets
        if len(rows): ax.plot(*_single_sets(rows, films), "o", ms=8, color=style["color"], mec="black")
    ax.set(xlabel="coverage: share of films answered", ylabel="risk: share of these called wrong",
           xlim=(0, 1.01), ylim=(0, None), title="Risk against coverage")
    ax.legend(fontsize=9)
    return figure


# %%
save_figure(stage, _plot_risk(tests, sets, threshold), "evaluation_risk",
            "The share of wrong calls among the surest films; dots: only films whose set holds one class.",
            "Risk against coverage for each model: the share of wrong calls among the films answered, from "
            "the surest film alone on the left to all films on the right.")


# %% [markdown]
# ## Films behind the counts
#
# Numbers hide what single films show. Of each cell of the confusion matrix, the films are listed on which the
# model with the highest AUROC is most sure, and then those on which it is least sure. Someone who reads films
# should look at the wrong ones first: some will be mislabelled, some taken badly, some truly hard. Here they
# are only shown. To change a label after seeing a model's answer would be to let the model grade itself.

# %%
#| export
def telling_films(
    table: pd.DataFrame, # films of one model, from `load_predictions`
    threshold: float,
    count: int = 4,      # films of each reason
) -> pd.DataFrame: # rows of `table` with `why` and `called`
    "The most confident films of each cell of the confusion matrix, and those nearest to the threshold."
    is_called, is_sick = table.probability >= threshold, table.label == 1
    distance = np.abs(logit(table.probability) - logit(threshold))
    table = table.assign(called=np.where(is_called, "pneumonia", "normal"), distance=distance)
    farthest_first = lambda films: films.sort_values("distance", ascending=False)
    cells = {"pneumonia, found": is_called & is_sick, "pneumonia, called normal": ~is_called & is_sick,
             "normal, called normal": ~is_called & ~is_sick, "normal, called pneumonia": is_called & ~is_sick}
    reasons = {why: farthest_first(table[chosen]) for why, chosen in cells.items()} | {
               "least certain": table.sort_values("distance")}
    shown = pd.concat([films.head(count).assign(why=why) for why, films in reasons.items()])
    return shown[["why", "path", "kind", "patient_id", "films_of_patient", "probability", "called"]]


# %%
toy = four.assign(path=list("abcd"), kind="", films_of_patient=1)
test_eq(telling_films(toy, .5, count=1).path.tolist(), ["d", "c", "a", "b", "b"])

# %%
shown = telling_films(tests[best], threshold)
of_all = [telling_films(films, threshold, 10).assign(model=name) for name, films in tests.items()]
write_csv(stage.path("metrics/evaluation_errors.csv"), pd.concat(of_all))
table = readable(shown[["why", "path", "probability", "films_of_patient"]])
table.style.hide(axis="index").format({"probability": "{:.4f}"}).set_caption(names[best])


# %% [markdown]
# [The gallery](#fig-evaluation_errors) shows these films, each with its kind and the model's probability of
# pneumonia. It needs the films themselves.

# %%
#| export
def _plot_films(
    films: pd.DataFrame, # from `telling_films`
    root: str,           # folder of the films
): # matplotlib Figure
    "A row of films for each reason."
    import matplotlib.pyplot as plt
    groups = [(why, rows) for why, rows in films.groupby("why", sort=False)]
    columns = films.why.value_counts().max()
    figure, axes = plt.subplots(len(groups), columns, figsize=(9, 2.3 * len(groups)), squeeze=False)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    for (why, rows), line in zip(groups, axes):
        line[0].set_ylabel(why)
        for ax, film in zip(line, rows.itertuples()):
            ax.imshow(read_film(f"{root}/{film.path}"), vmin=0, vmax=255)
            ax.set_title(f"{film.kind}: {film.probability:.3f}", fontsize=10, color=COLOURS[film.kind])
    return figure


# %%
if has_films:
    save_figure(stage, _plot_films(shown, images.attrs["root"]), "evaluation_errors",
                f"{model_title(best)}: its surest films of each cell of the confusion matrix and its least "
                "certain ones, with its probability of pneumonia.",
                f"{len(shown)} {split} films in rows: pneumonia found, pneumonia missed, normal called "
                "normal, normal called pneumonia, nearest to the threshold; each with kind and probability.")

# %% [markdown]
# Mistakes that lie close together in the order of the numbers probably have a cause in common. [The
# figure](#fig-evaluation_numbers) shows what the model with the highest AUROC says of each film along the
# patient numbers of its series. Above the dashed line it calls pneumonia.

# %%
answers = predictions[best].reset_index(drop=True)
figure = plot_along_numbers(answers, pd.Series(logit(answers.probability)), "log odds of pneumonia")
for ax in figure.axes: ax.axhline(logit(threshold), color="black", lw=.8, ls="--")
title = model_title(best)
save_figure(stage, figure, "evaluation_numbers",
            f"{title}: log odds of pneumonia along the patient numbers of each series; dashed, the "
            "threshold.",
            f"Scatter of the log odds that {title} gives each film against the patient number, a panel for "
            f"each naming series, with a running median. The numbers are in predictions/{best}.csv.")


# %% [markdown]
# ## Other seeds
#
# One training is one draw: other initial weights, another order of films, perhaps another fold left out. The
# files in `members/` hold trainings that differ by such chance alone, each under the model that it is a
# training of. Each is judged here as a model of its own, at the threshold that Youden's rule chose on its
# validation films. The other rules have their thresholds and accuracies beside it. Members that learned from
# all folds have as validation the answers of their own seed's networks that left a fold out.

# %%
#| export
def _load_members(
    stage: Stage,
) -> pd.DataFrame: # model, member, path, split, label, probability …; no row without members
    "Predictions of all trainings that differ by chance alone."
    tables = [pd.read_csv(file) for file in sorted(stage.path("members").glob("*.csv"))]
    columns = ["model", "member", "seed", "path", "split", "label", "probability", "kind"]
    if not tables: return pd.DataFrame(columns=columns)
    return with_names(pd.concat(tables, ignore_index=True), stage.folder)


# %%
#| export
def _member_measures(
    films: pd.DataFrame, # that a member is judged on
    value: float,        # its threshold
) -> dict: # roc_auc, sensitivity, specificity, brier
    "Measures of one member."
    measures = all_measures(films, value)
    return {m: float(measures[m][0]) for m in ("roc_auc", "sensitivity", "specificity", "brier")}


# %%
#| export
_OF_KIND = "sensitivity_"

def _sensitivity_by_kind(films: pd.DataFrame, value: float) -> dict: # nothing with one kind of pneumonia
    "Which share of each kind of pneumonia a member finds."
    is_called, sick = films.probability >= value, sorted({*films.kind[films.label == 1]})
    shares = {f"{_OF_KIND}{kind}": float(is_called[films.kind == kind].mean()) for kind in sick}
    return shares if len(shares) > 1 else {}


# %%
#| export
def _member_row(
    table: pd.DataFrame, # predictions of one member
    split: str,          # that is judged
    threshold: float,    # the run's own
) -> dict | None: # None where either split has not both classes
    "One member, judged."
    films = table[table.split == split]
    validation = _validation_films(table, films)
    if min(films.label.nunique(), validation.label.nunique()) < 2: return None
    accuracy = lambda value: float(all_measures(films, value)["accuracy"][0])
    chosen = {rule: choose(validation) for rule, choose in RULES.items()}
    youden, ece = chosen["Youden"], calibration_error(films.label, films.probability)
    return ({f"threshold_{rule}": value for rule, value in chosen.items()}
            | {f"accuracy_{rule}": accuracy(value) for rule, value in chosen.items()}
            | dict(validation_roc_auc=auroc(validation.label, validation.probability))
            | _member_measures(films, youden) | dict(accuracy_fixed=accuracy(threshold))
            | _sensitivity_by_kind(films, youden) | dict(ece=ece))


# %%
#| export
def member_table(
    members: pd.DataFrame, # model, member, path, split, label, probability, kind
    split: str,            # that is judged
    threshold: float = .5, # the run's own
) -> pd.DataFrame: # a row a member; `kind` is the model that it is a training of
    "Measures of each member at the threshold that Youden's rule chose on its validation films."
    groups = {key: table for key, table in members.groupby(["model", "member"])}
    rows = []
    for model, member in sorted(groups, key=lambda key: (model_order(key[0]), key[1])):
        row = _member_row(groups[model, member], split, threshold)
        if row: rows.append(dict(member=member, kind=model) | row)
    return pd.DataFrame(rows)


# %%
kinds = ["normal", "normal", "bacteria", "virus"] * 2
trainings = pd.concat([both.assign(kind=kinds, model=model, member=f"{model}_s{n}")
                       for model, n in (("twice", 0), ("twice", 1), ("someone_s_net", 0))])
toy = member_table(trainings, "test")
test_eq(toy.kind.tolist(), ["someone_s_net", "twice", "twice"])
test_eq(toy[["sensitivity_bacteria", "sensitivity_virus"]].values.tolist(), [[0, 1]] * 3)
assert "sensitivity_bacteria" not in member_table(trainings.replace("virus", "bacteria"), "test")  # one kind
test_eq(len(member_table(trainings, "validation")), 0)   # nothing to choose a threshold by


# %% [markdown]
# The mean says what to expect of one more training, the range how much luck is in it. One training has
# neither, so its value stands alone.

# %%
#| export
def spread_table(
    table: pd.DataFrame, # from `member_table`
) -> pd.DataFrame: # text: a row a kind
    "Mean and range over the trainings of each kind."
    chosen = [f"{key}_{rule}" for key in ("threshold", "accuracy") for rule in RULES]
    of_kinds = {column: f"sensitivity, {kind_words(column.removeprefix(_OF_KIND))}"
                for column in table if column.startswith(_OF_KIND)}
    columns = ["validation_roc_auc", "roc_auc", "accuracy_fixed", *chosen, "sensitivity", "specificity",
               *of_kinds, "ece"]
    rows = []
    for kind, group in table.groupby("kind", sort=False):
        count = "one training" if len(group) == 1 else f"{len(group)} trainings"
        spreads = {column: mean_and_range(group[column]) for column in columns}
        rows.append(dict(model=model_title(kind), networks=count) | spreads)
    return readable(pd.DataFrame(rows).rename(columns=of_kinds))


# %%
spread = spread_table(toy).set_index("model")
test_eq(spread["trained"].tolist(), ["one training", "2 trainings"])
test_eq(spread["AUROC"].tolist(), ["0.7500", "0.7500 (0.750–0.750)"])

# %%
members = member_table(_load_members(stage), split, threshold)
write_csv(stage.path("metrics/evaluation_members.csv"), members)
caption = ("Mean and range over trainings, each at the threshold that Youden's rule chose on its validation "
           "unless another is named")
if len(members): display(spread_table(members).set_index("model").T.style.set_caption(caption))
else: print("No model of this run was trained more than once.")

# %% [markdown]
# ## How often test was looked at
#
# A test set is used up a little with each look. This run's record counts them, and a ledger those of all runs
# on the same films. Here stand the looks up to this chapter; chapters after it may look again. The report's
# first page and `pneumo results` count all.

# %%
looks = pd.DataFrame(read_provenance(stage.folder).get("test_looks", []), columns=["stage", "at", "time"])
print(f"So far: {looks_in_words(stage.folder)}")
looks = looks.assign(time=looks.time.str[:16].str.replace("T", " "))
readable(looks).style.hide(axis="index")

# %% [markdown]
# ## What it comes to

# %%
#| export
_FINDINGS = dict(
    best="- The highest AUROC, **{roc_auc:.3f}**{between}, is that of **{name}**. ",
    between=" ({roc_auc_low:.3f} to {roc_auc_high:.3f})",
    one_class="- All films judged are of one class, so there is no AUROC. First stands **{name}**. ",
    calls="At threshold {threshold:g} it finds {tp} of {sick} pneumonia films and calls {fp} of {well} "
          "normal ones sick.",
    too_kind=" Being the highest of {} on these very films, it is a little too kind.",
    below="- **{name} ranks films worse than chance**: its AUROC is {roc_auc:.3f} ({roc_auc_low:.3f} to "
          "{roc_auc_high:.3f}), all below .5.",
    upside_down="- **{name} ranks every pair of films the wrong way round**: its AUROC is 0.",
    majority="- {name}, accuracy {accuracy:.3f}, does not beat calling every film {answer} ({share:.3f}).",
    kinds="- {} finds {}.", kind="{:.1%} of {} ({})",
    sets="- Sets of {name} that shall hold the true class of {level:.0%} of patients hold it for "
         "{normal:.1%} of normal and {pneumonia:.1%} of pneumonia patients.",
    chosen="- A threshold of {chosen_threshold:.3f}, chosen on validation, takes {name} from accuracy "
           "{accuracy:.3f} to {chosen_accuracy:.3f}.",
    probability="- Its probabilities have a Brier score of {:.3f}, where giving every film the prevalence "
                "would score {:.3f}, and an expected calibration error of {:.3f}. Perfectly calibrated ones "
                "would stay below {:.3f} on as many films in 95 of 100 cases, so they are {}.")

_NOT_CALIBRATED = "temperature-scaled at most, not calibrated"

_DIFFERENCES = dict(
    pair="- The films support a difference between {} and {} {}.",
    auroc="in AUROC ({auroc_difference:+.3f}, p {p})",
    calls="in calls ({only_first} films only the first has right, {only_second} only the second, p {p})",
    many="- {} of {} pairs of models differ by more than chance, in AUROC or in calls (table above).",
    alike="- {} of {} pairs of models cannot be told apart on these films.")


# %%
#| export
def _best_findings(
    best: dict, # row of the comparison
    count: int, # of models
) -> list[str]: # markdown lines
    "The best model at the run's threshold and at the one chosen on validation."
    sick, well = best["fn"] + best["tp"], best["tn"] + best["fp"]
    has_interval, has_auroc = (best[key] == best[key] for key in ("roc_auc_low", "roc_auc"))
    between = _FINDINGS["between"].format(**best) if has_interval else ""
    facts = best | dict(name=title_with_remark(best), sick=sick, well=well, between=between)
    first = (_FINDINGS["best" if has_auroc else "one_class"] + _FINDINGS["calls"]).format(**facts)
    if count > 1 and has_auroc: first += _FINDINGS["too_kind"].format(count)
    has_chosen = best["chosen_threshold"] == best["chosen_threshold"]
    return [first] + ([_FINDINGS["chosen"].format(**facts)] if has_chosen else [])


# %%
known = dict(model="best", threshold=.5, tn=3, fp=1, fn=0, tp=4, chosen_threshold=float("nan"),
             roc_auc=.9, roc_auc_low=.7, roc_auc_high=.97)
calls = "At threshold 0.5 it finds 4 of 4 pneumonia films and calls 1 of 4 normal ones sick."
test_eq(_best_findings(known, 1), [
    "- The highest AUROC, **0.900** (0.700 to 0.970), is that of **best**. " + calls])
one_patient = known | dict(roc_auc_low=float("nan"))
test_eq(_best_findings(one_patient, 1), ["- The highest AUROC, **0.900**, is that of **best**. " + calls])


# %%
#| export
def _below_findings(rows: list[dict]) -> list[str]:
    "Models whose AUROC is below that of guessing by more than chance."
    lines = []
    for row in rows:
        key = "upside_down" if row["roc_auc"] == 0 else "below" if row["roc_auc_high"] < .5 else None
        if key: lines.append(_FINDINGS[key].format(**row | dict(name=title_with_remark(row))))
    return lines


# %%
below = known | dict(model="turned", roc_auc=.3, roc_auc_low=.2, roc_auc_high=.42)
test_eq(_below_findings([known, one_patient, below | dict(roc_auc_high=.51), below]), [
    "- **turned ranks films worse than chance**: its AUROC is 0.300 (0.200 to 0.420), all below .5."])


# %%
#| export
def _majority_findings(rows: list[dict]) -> list[str]:
    "Models that are no more often right than the same answer for every film."
    lines = []
    for row in rows:
        sick, well = row["fn"] + row["tp"], row["tn"] + row["fp"]
        share, answer = max(sick, well) / row["films"], CLASS_NAMES[int(sick >= well)].lower()
        if row["accuracy"] > share: continue
        lines.append(_FINDINGS["majority"].format(
            name=title_with_remark(row), answer=answer, share=share, accuracy=row["accuracy"]))
    return lines


# %%
idle = dict(model="idle", films=8, tn=0, fp=3, fn=0, tp=5, accuracy=.625)
test_eq(_majority_findings([idle, idle | dict(accuracy=.75)]), [
    "- idle, accuracy 0.625, does not beat calling every film pneumonia (0.625)."])


# %%
#| export
def _how_different(
    row: dict, # of `paired_tests`
) -> str: # "" where nothing differs
    "In what two models differ by more than chance."
    return " and ".join(_DIFFERENCES[kind].format(**row | dict(p=p_text(row[f"p_{kind}_holm"])))
                        for kind in pair_differences(row))


# %%
#| export
def _difference_findings(
    pairs: pd.DataFrame,   # from `paired_tests`
    names: dict[str, str], # model → what it is called
) -> list[str]: # markdown lines
    "Which differences between models the films support; only their number, where they are many."
    rows = [(row, _how_different(row)) for row in pairs.to_dict("records")]
    lines = [_DIFFERENCES["pair"].format(names[row["first"]], names[row["second"]], words)
             for row, words in rows if words]
    alike = len(pairs) - len(lines)
    if len(lines) > 6: lines = [_DIFFERENCES["many"].format(len(lines), len(pairs))]
    return lines + ([_DIFFERENCES["alike"].format(alike, len(pairs))] if alike else [])


# %%
row = dict(first="a", second="b", p_auroc_holm=.01, p_calls_holm=.2, auroc_difference=.1, only_first=3,
           only_second=1)
same = row | dict(p_auroc_holm=1)
test_eq(_difference_findings(pd.DataFrame([row, same]), dict(a="A", b="B")), [
    "- The films support a difference between A and B in AUROC (+0.100, p 0.01).",
    "- 1 of 2 pairs of models cannot be told apart on these films."])
test_eq(_difference_findings(pd.DataFrame([row] * 7), {"a": "A", "b": "B"}), [
    "- 7 of 7 pairs of models differ by more than chance, in AUROC or in calls (table above)."])


# %%
#| export
def _kind_findings(
    subgroups: pd.DataFrame, # from `subgroup_table`
    model: str,
    name: str,               # what it is called
) -> list[str]: # no line or one, markdown
    "How much of each kind of pneumonia a model finds, where there are several."
    is_kind = (subgroups.model == model) & (subgroups["by"] == "kind") & (subgroups.label == 1)
    shares = [_FINDINGS["kind"].format(row.rate, kind_words(row.group), counted(row.films, "film"))
              for row in subgroups[is_kind].itertuples()]
    return [_FINDINGS["kinds"].format(name, in_list(shares))] if len(shares) > 1 else []


# %%
rows = dict(model="a", by="kind", label=[0, 1, 1], group=["normal", "bacteria", "fungus"], rate=[1, .9, .5],
            films=[9, 10, 1])
test_eq(_kind_findings(pd.DataFrame(rows), "a", "A"),
        ["- A finds 90.0% of bacterial pneumonia (10 films) and 50.0% of fungus (1 film)."])
test_eq(_kind_findings(pd.DataFrame(rows)[:2], "a", "A"), [])


# %%
#| export
def _probability_findings(best: dict, calibration: pd.DataFrame) -> list[str]:
    "How good the best model's probabilities are."
    rows = calibration[(calibration.model == best["model"]) & (calibration.when == "after")]
    of_prevalence = best["prevalence"] * (1 - best["prevalence"])
    row = rows.iloc[0]
    word = "calibrated, as far as these films can tell" if row.ece <= row.ece_honest else _NOT_CALIBRATED
    return [_FINDINGS["probability"].format(best["brier"], of_prevalence, row.ece, row.ece_honest, word)]


# %%
#| export
def _set_findings(
    sets: pd.DataFrame, # from `set_table`
    model: str,
    name: str,          # what it is called
) -> list[str]: # no line or one, markdown
    "Whether a model's sets hold what they promise."
    rows = sets[(sets.model == model) & sets.coverage.notna()] if len(sets) else sets
    if len(rows) < 2: return []
    coverage = dict(zip(rows["class"], rows.coverage))
    return [_FINDINGS["sets"].format(name=name, level=rows.level.iloc[0], **coverage)]


# %%
test_eq(_set_findings(toy_sets.assign(coverage=[.5, .95]), "toy", "Toy"), [
    "- Sets of Toy that shall hold the true class of 90% of patients hold it for 50.0% of normal and 95.0% "
    "of pneumonia patients."])
test_eq(_set_findings(pd.DataFrame(), "toy", "Toy"), [])


# %%
#| export
def _all_findings(
    comparison: pd.DataFrame,  # from `compare_models`
    subgroups: pd.DataFrame,   # from `subgroup_table`
    calibration: pd.DataFrame, # from `_calibration_table`
    pairs: pd.DataFrame,       # from `paired_tests`
) -> list[str]: # markdown lines
    "What the tables of the chapter come to."
    rows, best = comparison.to_dict("records"), best_model(comparison)
    names = {row["model"]: title_with_remark(row) for row in rows}
    first = next(row for row in rows if row["model"] == best)
    return [*_best_findings(first, len(rows)), *_kind_findings(subgroups, best, names[best]),
            *_probability_findings(first, calibration), *_below_findings(rows), *_majority_findings(rows),
            *_difference_findings(pairs, names)]


# %%
lines = _all_findings(comparison, subgroups, calibration, pairs) + _set_findings(sets, best, names[best])
display(Markdown("\n".join(lines)))

# %%
tables = dict(comparison=comparison, pairs=pairs, calibration=calibration, sets=sets, members=members)
tables = {name: table.to_dict("records") for name, table in tables.items()}
write_json(stage.path("metrics/evaluation.json"), dict(threshold=threshold, split=split, best=best) | tables)
record = finish(stage)
