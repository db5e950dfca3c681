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
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from pneumo_nb.run import CLASS_NAMES, COLOURS, DASHES, MODEL_TITLES, Stage, StudyError, finish, note, open_stage, plot_style, save_figure, write_csv, write_json
from pneumo_nb.data import film_kind, patient_id
from pneumo_nb.eda import patient_interval

# %%
#| hide
import matplotlib.pyplot as plt
from fastcore.test import test_close, test_eq, test_fail
from IPython.display import Markdown, display
plot_style()

# %% tags=["parameters"]
run_dir = ""     # the run directory; "" for a temporary one
seed = 42        # of the bootstrap intervals
threshold = 0.5  # a film is called pneumonia if its predicted probability is at least this


# %% [markdown]
# Everything here starts from `predictions/*.csv`: a path, a split, a label and a probability for each film. No model is
# loaded, so another model's predictions on the same films can be judged by dropping a file there. The test films give
# final numbers and choose nothing; what can be chosen (a threshold) is chosen on validation.
#
# ## Counting right and wrong
#
# A film is *called* pneumonia when its probability reaches the threshold. **Sensitivity** (recall of pneumonia) is the share of
# pneumonia films that are called so, **specificity** (recall of normal) the share of normal films called normal, **precision** the
# share of calls that are right, **F1** the harmonic mean of precision and recall. All count films: a child with five films counts
# five times. Normal means that readers saw no pneumonia, not that the child was well. Accuracy mixes both classes and depends on how
# many films show pneumonia. AUROC needs no threshold: it is the chance that a random pneumonia film gets a higher probability than a
# random normal one.

# %%
#| export
def check_predictions(y_true, y_prob) -> tuple[np.ndarray, np.ndarray]: # labels int (n,), probabilities float (n,)
    "Refuse labels other than 0 and 1 and probabilities outside [0, 1]."
    y_true, y_prob = np.asarray(y_true), np.asarray(y_prob, float)
    if y_true.ndim != 1 or y_true.shape != y_prob.shape or len(y_true) == 0: raise StudyError(
        f"Expected as many labels as probabilities, at least one, in one dimension; found shapes {y_true.shape} and {y_prob.shape}.")
    if not np.isin(y_true, (0, 1)).all(): raise StudyError(
        f"Expected labels 0 (normal) and 1 (pneumonia), found {sorted(set(y_true.tolist()) - {0, 1})[:5]}.")
    if not ((y_prob >= 0) & (y_prob <= 1)).all(): raise StudyError(
        f"Expected probabilities between 0 and 1, found {y_prob.min()} to {y_prob.max()}; give the sigmoid's output, not logits.")
    return y_true.astype(int), y_prob

def classification_metrics(
    y_true,          # (n,) labels, 0 normal, 1 pneumonia
    y_prob,          # (n,) predicted probability of pneumonia, in [0, 1]
    threshold: float = .5, # a film is called pneumonia if its probability is at least this
) -> dict: # accuracy, precision_/recall_/f1_ of normal and pneumonia, roc_auc, confusion_matrix [[TN, FP], [FN, TP]]
    "What the study reports of a model; what is undefined (a precision without calls, an AUROC of one class) is NaN."
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support, roc_auc_score
    y_true, y_prob = check_predictions(y_true, y_prob)
    if not 0 <= threshold <= 1: raise StudyError(f"Expected a threshold between 0 and 1, found {threshold}.")
    called = (y_prob >= threshold).astype(int)
    scores = precision_recall_fscore_support(y_true, called, labels=[0, 1], zero_division=np.nan)
    metrics = dict(accuracy=float((called == y_true).mean()))
    for measure, values in zip(("precision", "recall", "f1"), scores):
        metrics |= {f"{measure}_{name.lower()}": float(v) for name, v in zip(CLASS_NAMES, values)}
    metrics["roc_auc"] = float(roc_auc_score(y_true, y_prob)) if len(set(y_true)) == 2 else float("nan")
    return metrics | dict(confusion_matrix=confusion_matrix(y_true, called, labels=[0, 1]))


# %% [markdown]
# The reference study's MLP called 170 of 234 normal test films normal and 306 of 390 pneumonia films sick. The rest of
# its table follows from these counts, to the last digit:

# %%
labels, called = np.repeat([0, 0, 1, 1], [170, 64, 84, 306]), np.repeat([0., 1., 0., 1.], [170, 64, 84, 306])
mlp = classification_metrics(labels, called)
test_eq({k: round(v, 6) for k, v in mlp.items() if k not in ("confusion_matrix", "roc_auc")}, dict(accuracy=.762821,
    precision_normal=.669291, precision_pneumonia=.827027, recall_normal=.726496, recall_pneumonia=.784615,
    f1_normal=.696721, f1_pneumonia=.805263))
test_eq(mlp["confusion_matrix"], [[170, 64], [84, 306]])
test_eq(classification_metrics([0, 1, 1], [.2, .1, .9])["roc_auc"], .5)   # one of two pairs in the right order
test_fail(lambda: classification_metrics([0, 1], [-3.2, 4.1]), contains="not logits")
test_fail(lambda: classification_metrics([0, 1], [.5]), contains="shapes (2,) and (1,)")


# %% [markdown]
# ## The predictions of this run

# %%
#| export
def load_predictions(
    stage: Stage,
) -> dict[str, pd.DataFrame]: # model → path, split, label, probability, kind, patient_id
    "All `predictions/*.csv` of the run, in the study's order; from a quick MLP on phantoms if there are none."
    if not list(stage.path("predictions").glob("*.csv")): quick_predictions(stage)
    found, order = {}, list(MODEL_TITLES)
    for file in sorted(stage.path("predictions").glob("*.csv"), key=lambda f: (order.index(f.stem) if f.stem in order else 99, f.stem)):
        table = pd.read_csv(file)
        if missing := {"path", "split", "label", "probability"} - {*table.columns}:
            raise StudyError(f"Expected path, split, label, probability in {file.name}, found no {', '.join(sorted(missing))}.")
        found[file.stem] = table.assign(kind=table.path.map(film_kind), patient_id=table.path.map(patient_id))
    return found

def quick_predictions(stage: Stage):
    "Train a small MLP for one epoch on quick phantoms, so that this notebook has something to show by itself."
    from pneumo_nb.preprocessing import AUGMENTATION, film_source, load_films
    from pneumo_nb.training import compile_model, train_model, write_predictions
    from pneumo_nb.mlp import build_mlp
    from pneumo_nb.run import set_seed
    films = load_films(stage, 32)
    if films.images.attrs["source"] != "phantoms": raise StudyError(
        f"Expected predictions/*.csv in {stage.folder}, found none; run a model stage on these films first.")
    note(stage, "no predictions in this run, so an MLP was trained for one epoch on phantoms of 32 pixels.")
    set_seed(42)
    model = build_mlp(32)
    compile_model(model, 1e-3)
    source = film_source(films, 42, AUGMENTATION)
    train_model(stage, "mlp", model, source, epochs=1, batch_size=16, seed=42)
    write_predictions(stage, "mlp", model, source)


# %%
#| export
def judged_films(predictions: dict[str, pd.DataFrame]) -> tuple[str, dict[str, pd.DataFrame]]: # split, model → its films
    "The test films; validation where a set has no test films."
    judged = "test" if any((t.split == "test").any() for t in predictions.values()) else "validation"
    tests = {name: t[t.split == judged].reset_index(drop=True) for name, t in predictions.items()}
    if empty := [name for name, t in tests.items() if t.empty]: raise StudyError(
        f"Expected {judged} films in the predictions of {', '.join(empty)}, found none; run that model again.")
    return judged, tests

def title(model: str) -> str:
    "How a model is called in figures and tables."
    return MODEL_TITLES.get(model, model)


# %%
stage = open_stage("evaluation", run_dir, seed=seed, threshold=threshold)
predictions = load_predictions(stage)
judged, tests = judged_films(predictions)
if judged != "test": note(stage, "there are no test films, so the models are judged on validation, which also chose their epoch: too kindly.")
print(f"{judged} films: " + ", ".join(f"{title(name)} {len(table):,}" for name, table in tests.items()))


# %% [markdown]
# ## Model by model
#
# Three views of the same test films for each model: the [MLP](#fig-evaluation_mlp), the [CNN](#fig-evaluation_cnn), the
# [frozen ResNet50](#fig-evaluation_resnet_frozen) and the [fine-tuned one](#fig-evaluation_resnet_finetuned). The
# **confusion matrix** counts at the threshold. The **ROC curve** shows every threshold at once: sensitivity gained
# against normal films called pneumonia. The **precision-recall curve** asks how many of the called are truly sick; its
# dotted baseline is the share of pneumonia, not .5.

# %%
#| export
def plot_confusion(ax, matrix: np.ndarray, heading: str):
    "Confusion matrix as a heatmap, with counts and the share of each true class."
    import seaborn as sns
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    notes = np.array([f"{n}\n{s:.1%}" for n, s in zip(matrix.flat, shares.flat)]).reshape(2, 2)
    sns.heatmap(shares, annot=notes, fmt="", cmap="Blues", vmin=0, vmax=1, cbar=False, ax=ax, linewidths=1,
                xticklabels=CLASS_NAMES, yticklabels=CLASS_NAMES)
    ax.set(xlabel="called", ylabel="true", title=heading)

def plot_curves(roc_ax, pr_ax, table: pd.DataFrame, model: str):
    "One model's ROC and precision-recall curves."
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve
    style = dict(color=COLOURS.get(model, COLOURS["other"]), ls=DASHES.get(model, "-"), lw=2)
    false_alarms, sensitivity, _ = roc_curve(table.label, table.probability)
    roc_ax.plot(false_alarms, sensitivity, **style, label=f"{title(model)}: {roc_auc_score(table.label, table.probability):.4f}")
    precision, recall, _ = precision_recall_curve(table.label, table.probability)
    pr_ax.plot(recall, precision, **style, label=f"{title(model)}: {average_precision_score(table.label, table.probability):.4f}")

def frame_curves(roc_ax, pr_ax, share: float):
    "Axes, baselines and legends of ROC and precision-recall curves."
    roc_ax.plot([0, 1], [0, 1], color="gray", lw=.8, ls=":")
    pr_ax.axhline(share, color="gray", lw=.8, ls=":")
    roc_ax.set(xlabel="false alarms (1 - specificity)", ylabel="sensitivity", title="ROC", xlim=(-.01, 1.01), ylim=(-.01, 1.01))
    pr_ax.set(xlabel="recall (sensitivity)", ylabel="precision", title="Precision and recall", xlim=(-.01, 1.01), ylim=(0, 1.02))
    roc_ax.legend(title="AUROC", loc="lower right", fontsize=9)
    pr_ax.legend(title="average precision", loc="lower left", fontsize=9)


# %%
#| export
def plot_model(
    model: str,          # key of predictions
    table: pd.DataFrame, # its test films
    threshold: float,
): # matplotlib Figure
    "Confusion matrix, ROC and precision-recall curve of one model."
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.9))
    plot_confusion(axes[0], classification_metrics(table.label, table.probability, threshold)["confusion_matrix"],
                   f"{title(model)} at threshold {threshold:g}")
    plot_curves(axes[1], axes[2], table, model)
    frame_curves(axes[1], axes[2], table.label.mean())
    return figure

def class_report(
    table: pd.DataFrame, # test films of one model
    threshold: float,
) -> pd.DataFrame: # rows NORMAL, PNEUMONIA; precision, recall, f1, films
    "Precision, recall and F1 of each class."
    m = classification_metrics(table.label, table.probability, threshold)
    return pd.DataFrame({name: {measure: m[f"{measure}_{name.lower()}"] for measure in ("precision", "recall", "f1")}
                         | {"films": int((table.label == n).sum())} for n, name in enumerate(CLASS_NAMES)}).T.astype({"films": int})


# %%
for name, table in tests.items():
    (tn, fp), (fn, tp) = classification_metrics(table.label, table.probability, threshold)["confusion_matrix"]
    save_figure(stage, plot_model(name, table, threshold), f"evaluation_{name}", f"{title(name)}, {judged} films: confusion matrix, ROC and precision-recall curve.",
                f"{title(name)} on {len(table)} {judged} films at threshold {threshold:g}: {tn} normal and {tp} pneumonia films called "
                f"right, {fp} false alarms, {fn} missed. Beside it the ROC and the precision-recall curve.")
    display(class_report(table, threshold).style.format(precision=4).set_caption(title(name)))


# %% [markdown]
# ## Side by side
#
# `comparison.csv` has one row a model; [the figure](#fig-evaluation_comparison) draws them together. The time is that of all training that went into the network, so the fine-tuned
# ResNet50 carries the frozen stage's as well. The intervals hold 95 %: for the AUROC by redrawing patients, since films of
# one child are not independent; for accuracy, sensitivity and specificity by Wilson's formula (1927), which takes films as
# independent and is therefore somewhat too narrow where children have several films. So is the McNemar test below.

# %%
#| export
def wilson(right: int, n: int) -> tuple[float, float]: # NaN if n is 0
    "Wilson's 95 % interval of a proportion."
    from scipy.stats import binomtest
    if n == 0: return float("nan"), float("nan")
    return tuple(binomtest(int(right), int(n)).proportion_ci(method="wilson"))

def training_time(stage: Stage, model: str) -> dict: # epochs and training_seconds; NaN without a history
    "Epochs run in a model's own training, and the seconds of all training that went into it."
    file = stage.path("history", f"{model}.csv")
    if not file.exists(): return dict(epochs=float("nan"), training_seconds=float("nan"))
    history = pd.read_csv(file)
    return dict(epochs=len(history), training_seconds=history.total_seconds.iloc[-1])

def compare_models(
    stage: Stage,
    tests: dict[str, pd.DataFrame], # model → test films
    threshold: float,
    seed: int,
) -> pd.DataFrame: # a row a model
    "Metrics, intervals, counts and training time of every model."
    from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score
    rows = []
    for model, table in tests.items():
        metrics = classification_metrics(table.label, table.probability, threshold)
        (tn, fp), (fn, tp) = metrics.pop("confusion_matrix")
        bounds = dict(roc_auc=patient_interval(table, table.probability.to_numpy(), roc_auc_score, seed), accuracy=wilson(tn + tp, len(table)),
                      sensitivity=wilson(tp, fn + tp), specificity=wilson(tn, tn + fp))
        limits = {f"{k}_{side}": v for k, pair in bounds.items() for side, v in zip(("low", "high"), pair)}
        whole = dict(average_precision=average_precision_score(table.label, table.probability), brier=brier_score_loss(table.label, table.probability))
        rows.append(dict(model=model, films=len(table), threshold=threshold, **metrics, **whole, **limits, tn=tn, fp=fp, fn=fn, tp=tp,
                         **training_time(stage, model)))
    return pd.DataFrame(rows)


# %%
test_close(wilson(544, 624), (.8433, .8958), eps=1e-4)   # the reference CNN's accuracy .872 could be .843 to .896
comparison = compare_models(stage, tests, threshold, seed)
write_csv(stage.path("comparison.csv"), comparison)


# %%
#| export
def comparison_table(
    comparison: pd.DataFrame, # from `compare_models`
) -> pd.DataFrame: # text, made for reading
    "The comparison with intervals, as a reader wants it."
    def span(r, key, value): return f"{value:.4f} ({r[f'{key}_low']:.3f}–{r[f'{key}_high']:.3f})"
    return pd.DataFrame([{"model": title(r["model"]), "AUROC": span(r, "roc_auc", r["roc_auc"]), "accuracy": span(r, "accuracy", r["accuracy"]),
        "sensitivity": span(r, "sensitivity", r["recall_pneumonia"]), "specificity": span(r, "specificity", r["recall_normal"]),
        "F1 normal": f"{r['f1_normal']:.4f}", "F1 pneumonia": f"{r['f1_pneumonia']:.4f}",
        "epochs run": f"{r['epochs']:.0f}", "training": f"{r['training_seconds']:,.0f} s"} for r in comparison.to_dict("records")])


# %%
comparison_table(comparison).style.hide(axis="index")


# %%
#| export
def plot_comparison(
    comparison: pd.DataFrame, # from `compare_models`
    tests: dict[str, pd.DataFrame],
): # matplotlib Figure
    "All ROC and precision-recall curves, and bars of accuracy, AUROC and both F1."
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.4), width_ratios=[1, 1, 1.6])
    for model, table in tests.items(): plot_curves(axes[0], axes[1], table, model)
    frame_curves(axes[0], axes[1], next(iter(tests.values())).label.mean())
    measures = {"accuracy": "accuracy", "roc_auc": "AUROC", "f1_normal": "F1 normal", "f1_pneumonia": "F1 pneumonia"}
    width = .84 / len(comparison)
    for n, row in enumerate(comparison.to_dict("records")):
        place, values = np.arange(len(measures)) + width * (n - (len(comparison) - 1) / 2), [row[m] for m in measures]
        bars = axes[2].bar(place, values, width * .94, color=COLOURS.get(row["model"], COLOURS["other"]), label=title(row["model"]))
        axes[2].bar_label(bars, labels=[f"{v:.2f}" for v in values], fontsize=8, padding=1)
    axes[2].set(xticks=range(len(measures)), xticklabels=measures.values(), ylim=(0, 1.24), yticks=np.arange(0, 1.1, .2), title="At the threshold")
    axes[2].legend(ncols=2, fontsize=9, loc="upper center")
    return figure


# %%
save_figure(stage, plot_comparison(comparison, tests), "evaluation_comparison", "All models: ROC, precision and recall, and metrics at the threshold.", "ROC and precision-recall curves of all models and bars of accuracy, "
            "AUROC and F1. AUROC: " + ", ".join(f"{title(r.model)} {r.roc_auc:.4f}" for r in comparison.itertuples()) + ".")


# %% [markdown]
# ## Do they differ?
#
# Two models judged on the same films are compared film by film: on how many is only one of them right? If they were
# equally good, that count would split evenly, which the exact **McNemar** test judges. Several pairs mean several chances
# to be fooled, so the p-values are corrected after Holm (1979).

# %%
#| export
def paired_tests(
    tests: dict[str, pd.DataFrame], # model → test films, the same ones
    threshold: float,
) -> pd.DataFrame: # a row a pair: first, second, only_first, only_second, p, p_holm
    "Exact McNemar test for each pair of models, with Holm's correction."
    from scipy.stats import binomtest
    right = {m: t.set_index("path").eval("(probability >= @threshold) == label") for m, t in tests.items()}
    rows = []
    for a, b in combinations(right, 2):
        if set(right[a].index) != set(right[b].index): raise StudyError(f"Expected {a} and {b} to be tested on the same films, found different ones.")
        only_a, only_b = int((right[a] & ~right[b]).sum()), int((~right[a] & right[b]).sum())
        rows.append(dict(first=a, second=b, only_first=only_a, only_second=only_b,
                         p=binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.))
    table = pd.DataFrame(rows, columns=["first", "second", "only_first", "only_second", "p"]).sort_values("p", kind="stable")
    table["p_holm"] = np.minimum(1, np.maximum.accumulate(table.p.to_numpy() * np.arange(len(table), 0, -1)))
    return table.reset_index(drop=True)


def p_text(p: float) -> str:
    "A p-value for reading."
    return "< 0.001" if p < .001 else f"{p:.2g}"


# %%
made_up = pd.DataFrame(dict(path=range(10), label=1, probability=[.9] * 10))
worse = made_up.assign(probability=[.9] * 4 + [.1] * 6)
test_close(paired_tests(dict(a=made_up, b=worse), .5).p[0], 2 * .5**6)   # six discordant films, all one way
pairs = paired_tests(tests, threshold)
readable = pairs.assign(first=pairs["first"].map(title), second=pairs["second"].map(title)).rename(columns={
    "only_first": "only first right", "only_second": "only second right", "p_holm": "p after Holm"})
readable.style.hide(axis="index").format(p_text, subset=["p", "p after Holm"])


# %% [markdown]
# ## Bacterial and viral
#
# Both count as pneumonia, but a lobar patch and a fine veil are not equally easy to see. The intervals take films as independent. Where few children
# have many films (see the table of patients in the chapter on data) they are too narrow; in the public test films that is so above all for the
# bacterial ones.

# %%
#| export
def kind_sensitivity(
    tests: dict[str, pd.DataFrame],
    threshold: float,
) -> pd.DataFrame: # a row a model and kind: model, kind, films, sensitivity, low, high
    "Sensitivity for bacterial and viral pneumonia, with Wilson's interval."
    rows = []
    for model, table in tests.items():
        for kind in ("bacteria", "virus"):
            found = table.probability[table.kind == kind] >= threshold
            low, high = wilson(found.sum(), len(found))
            rows.append(dict(model=model, kind=kind, films=len(found), sensitivity=found.mean(), low=low, high=high))
    return pd.DataFrame(rows)


# %%
kinds = kind_sensitivity(tests, threshold)
kinds.assign(model=kinds.model.map(title)).style.hide(axis="index").format(precision=3)


# %% [markdown]
# ## The threshold
#
# Pneumonia is more common in train than in test, and class weights bend the probabilities, so .5 has no special right.
# A threshold may be chosen, but on **validation** films only: here the one with the largest sum of sensitivity and
# specificity (Youden, 1950). What it does on test is then reported, whatever it is.

# %%
#| export
def youden_threshold(
    table: pd.DataFrame, # validation films of one model: label, probability
) -> float:
    "The threshold with the largest sensitivity + specificity, half way to the next lower probability."
    from sklearn.metrics import roc_curve
    false_alarms, sensitivity, thresholds = roc_curve(table.label, table.probability, drop_intermediate=False)
    best = max(1, int(np.argmax(sensitivity - false_alarms)))
    below = table.probability[table.probability < thresholds[best]]
    return float((thresholds[best] + (below.max() if len(below) else 0)) / 2)

def threshold_table(
    predictions: dict[str, pd.DataFrame],
    fixed: float, # the run's own threshold
) -> pd.DataFrame: # a row a model and threshold
    "Metrics of the judged films at the fixed threshold and at the one chosen on validation."
    rows, tests = [], judged_films(predictions)[1]
    for model, table in predictions.items():
        validation, test = table[table.split == "validation"], tests[model]
        choices = {"fixed": fixed} | ({"validation": youden_threshold(validation)} if validation.label.nunique() == 2 else {})
        for chosen, value in choices.items():
            m = classification_metrics(test.label, test.probability, value)
            rows.append(dict(model=model, chosen=chosen, threshold=value, accuracy=m["accuracy"],
                             sensitivity=m["recall_pneumonia"], specificity=m["recall_normal"]))
    return pd.DataFrame(rows)


# %%
test_eq(youden_threshold(pd.DataFrame(dict(label=[0, 0, 1, 1], probability=[.1, .2, .6, .9]))), .4)
thresholds = threshold_table(predictions, threshold)
thresholds.assign(model=thresholds.model.map(title)).style.hide(axis="index").format(precision=3)


# %% [markdown]
# ## Can a probability be taken at its word?
#
# Of the films given about .8, are 80 % sick? The **reliability diagram**, [the figure](#fig-evaluation_reliability), compares, in groups of equally many films, the mean
# probability with the share that is sick; the diagonal is honesty, below it a model promises more pneumonia than there is. The **Brier score** is the mean squared error of the
# probability: 0 is perfect, and giving every film the prevalence scores the prevalence times its complement.

# %%
#| export
def plot_reliability(
    tests: dict[str, pd.DataFrame],
): # matplotlib Figure
    "Reliability diagram of all models, with Brier scores."
    import matplotlib.pyplot as plt
    from sklearn.calibration import calibration_curve
    from sklearn.metrics import brier_score_loss
    figure, ax = plt.subplots(figsize=(5.4, 4.6))
    ax.plot([0, 1], [0, 1], color="gray", lw=.8, ls=":")
    for (model, table), marker in zip(tests.items(), "os^D" * len(tests)):
        share, mean = calibration_curve(table.label, table.probability, n_bins=8, strategy="quantile")
        ax.plot(mean, share, marker=marker, ms=4, color=COLOURS.get(model, COLOURS["other"]), ls=DASHES.get(model, "-"),
                label=f"{title(model)}: {brier_score_loss(table.label, table.probability):.4f}")
    ax.set(xlabel="mean predicted probability", ylabel="share with pneumonia", title="Reliability", xlim=(-.02, 1.02), ylim=(-.02, 1.02))
    ax.legend(title="Brier score", fontsize=9)
    return figure


# %%
save_figure(stage, plot_reliability(tests), "evaluation_reliability", "Predicted probability against the share that is sick.",
            "Share of test films with pneumonia against the mean predicted probability, for each model, beside the diagonal of honest probabilities.")


# %% [markdown]
# ## What it comes to

# %%
#| export
def evaluation_findings(
    comparison: pd.DataFrame, # from `compare_models`
    pairs: pd.DataFrame,      # from `paired_tests`
    kinds: pd.DataFrame,      # from `kind_sensitivity`
    thresholds: pd.DataFrame, # from `threshold_table`
) -> str: # markdown
    "What the evaluation found, in words."
    best = comparison.loc[comparison.roc_auc.idxmax()]
    positives = best.fn + best.tp
    majority = max(positives, best.films - positives) / best.films
    lines = [f"- The highest AUROC is **{title(best.model)}'s, {best.roc_auc:.3f}** ({best.roc_auc_low:.3f} to {best.roc_auc_high:.3f}). At threshold "
             f"{best.threshold:g} it finds {best.tp} of {positives} pneumonia films and calls {best.fp} of {best.films - positives} normal ones sick."]
    lines += [f"- {title(r.model)}, accuracy {r.accuracy:.3f}, does not beat calling every film {CLASS_NAMES[int(2 * positives >= best.films)].lower()} ({majority:.3f})."
              for r in comparison.itertuples() if r.accuracy <= majority]
    differing = pairs[pairs.p_holm < .05]
    if len(pairs) > 1 and len(differing) == len(pairs):
        r = differing.loc[differing.p_holm.idxmax()]
        lines.append(f"- All {len(pairs)} pairs of models differ by more than chance at this threshold (table above); the closest are {title(r['first'])} and {title(r['second'])}: "
                     f"{r.only_first} films only the first has right, {r.only_second} only the second (p {p_text(r.p_holm)} after Holm).")
    else: lines += [f"- The films support a difference between {title(r.first)} and {title(r.second)}: only the first is right on {r.only_first}, "
                    f"only the second on {r.only_second} (p {p_text(r.p_holm)} after Holm)." for r in differing.itertuples()]
    if same := len(pairs) - len(differing): lines.append(f"- {same} of {len(pairs)} pairs of models cannot be told apart on these films at this threshold.")
    both = kinds[kinds.model == best.model].set_index("kind")
    if both.films.min() > 0: lines.append(f"- {title(best.model)} finds {both.sensitivity['bacteria']:.1%} of bacterial and "
        f"{both.sensitivity['virus']:.1%} of viral pneumonia ({both.films['bacteria']} and {both.films['virus']} films).")
    mine = thresholds[thresholds.model == best.model].set_index("chosen")
    if "validation" in mine.index: lines.append(f"- A threshold of {mine.threshold['validation']:.3f}, chosen on validation, takes {title(best.model)} from "
        f"accuracy {mine.accuracy['fixed']:.3f} to {mine.accuracy['validation']:.3f} (sensitivity {mine.sensitivity['validation']:.3f}, "
        f"specificity {mine.specificity['validation']:.3f}).")
    share = positives / best.films
    lines.append(f"- Its probabilities have a Brier score of {best.brier:.3f}; giving every film the prevalence would score {share * (1 - share):.3f}.")
    return "\n".join(lines)


# %%
display(Markdown(evaluation_findings(comparison, pairs, kinds, thresholds)))
write_json(stage.path("metrics/evaluation.json"), dict(threshold=threshold, judged=judged, comparison=comparison.to_dict("records"), pairs=pairs.to_dict("records"),
           kinds=kinds.to_dict("records"), thresholds=thresholds.to_dict("records")))
record = finish(stage)
