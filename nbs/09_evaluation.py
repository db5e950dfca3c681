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
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pandas as pd

from pneumo_nb.run import CLASS_NAMES, COLOURS, DASHES, MODEL_TITLES, Stage, StudyError, finish, look, note, open_stage, plot_style, read_json, read_provenance, save_figure, study_order, write_csv, write_json
from pneumo_nb.data import film_kind, naming_series, patient_id
from pneumo_nb.eda import TALL_MARKER, appearance_table, patient_draws, patient_interval, plot_along_numbers, read_film
from pneumo_nb.training import logit

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
draws = 1000     # of the bootstrap


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
    found = {}
    for file in sorted(stage.path("predictions").glob("*.csv"), key=lambda f: study_order(f.stem)):
        table = pd.read_csv(file)
        if missing := {"path", "split", "label", "probability"} - {*table.columns}:
            raise StudyError(f"Expected path, split, label, probability in {file.name}, found no {', '.join(sorted(missing))}.")
        if table.duplicated(["split", "path"]).any(): raise StudyError(f"Expected each film once in {file.name}, found {table.duplicated(['split', 'path']).sum()} again; remove the copies.")
        for column in {"probability", "uncalibrated"} & {*table.columns}: check_predictions(table.label, table[column])
        table = table.assign(kind=table.path.map(film_kind), patient_id=table.path.map(patient_id), series=table.path.map(naming_series))
        found[file.stem] = table.assign(films_of_patient=table.groupby(["split", "patient_id"]).path.transform("size"))
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
stage = open_stage("evaluation", run_dir, seed=seed, threshold=threshold, draws=draws)
predictions = load_predictions(stage)
judged, tests = judged_films(predictions)
if judged == "test": look(stage, f"predictions of {len(tests)} model(s)")
if judged != "test": note(stage, "there are no test films, so the models are judged on validation, which also chose epoch and temperature: too kindly.")
print(f"{judged} films: " + ", ".join(f"{title(name)} {len(table):,}" for name, table in tests.items()))


# %% [markdown]
# ## Model by model
#
# Three views of the same test films for each model: the [MLP](#fig-evaluation_mlp), the [CNN](#fig-evaluation_cnn), the
# [frozen ResNet50](#fig-evaluation_resnet_frozen), the [fine-tuned one](#fig-evaluation_resnet_finetuned), the [compact network](#fig-evaluation_compact) and the
# [compact ensemble](#fig-evaluation_compact_ensemble), as far as they were trained. The
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
# ## How sure is a number?
#
# Another hospital week would have brought other children. The **bootstrap** plays that through: it draws as many patients as there are, with
# replacement, and computes every measure on their films, `draws` times; the middle 95 % of the results are the interval. Patients are
# drawn, not films, because the films of one child are alike and count for less than as many children. What an interval does not hold is the chance
# of training: another seed gives another network.
#
# Next to accuracy, which depends on the mix of classes, stand **balanced accuracy** (the mean of sensitivity and specificity) and Matthews'
# correlation coefficient, **MCC** (1 perfect, 0 guessing). **PPV** and **NPV** are the shares of pneumonia calls and of normal calls that are right.
# **Average precision** sums up the precision-recall curve; its baseline is the share of pneumonia.

# %%
#| export
MEASURES = {"roc_auc": "AUROC", "average_precision": "average precision", "accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "sensitivity": "sensitivity",
            "specificity": "specificity", "ppv": "PPV", "npv": "NPV", "f1_normal": "F1 normal", "f1_pneumonia": "F1 pneumonia", "mcc": "MCC", "brier": "Brier score"}

def ratio(a, b): # arrays → a / b, NaN where b is 0
    "Division that leaves what is undefined undefined."
    a, b = np.asarray(a, float), np.asarray(b, float)
    return np.divide(a, b, out=np.full(np.broadcast(a, b).shape, np.nan), where=b != 0)

def count_measures(tn, fp, fn, tp) -> dict: # numbers or arrays of counts, weighted or not
    "The measures that follow from a confusion matrix."
    tn, fp, fn, tp = (np.asarray(c, float) for c in (tn, fp, fn, tp))
    sensitivity, specificity = ratio(tp, tp + fn), ratio(tn, tn + fp)
    root = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return dict(accuracy=ratio(tp + tn, tp + tn + fp + fn), balanced_accuracy=(sensitivity + specificity) / 2, sensitivity=sensitivity, specificity=specificity,
                ppv=ratio(tp, tp + fp), npv=ratio(tn, tn + fn), f1_normal=ratio(2 * tn, 2 * tn + fp + fn), f1_pneumonia=ratio(2 * tp, 2 * tp + fp + fn),
                mcc=np.where(root == 0, 0., ratio(tp * tn - fp * fn, root)))


# %%
#| export
def rank_measures(
    label: np.ndarray,       # (n,) 0 or 1
    probability: np.ndarray, # (n,)
    weights: np.ndarray,     # (draws, n) how often each film counts
) -> dict: # AUROC and average precision of each draw
    "What needs no threshold: AUROC with ties counting half, and average precision, as scikit-learn defines them."
    order = np.argsort(-probability, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(probability[order]) != 0])  # films with equal probability go together
    sick, well = (np.add.reduceat(weights[:, order] * (label[order] == c), starts, axis=1, dtype=float) for c in (1, 0))
    tp, fp = sick.cumsum(axis=1), well.cumsum(axis=1)
    n_sick, n_well = tp[:, -1], fp[:, -1]
    auroc = ratio((well * (tp - sick / 2)).sum(axis=1), n_sick * n_well)
    precision = np.nan_to_num(ratio(tp, tp + fp))
    return dict(roc_auc=auroc, average_precision=ratio((sick * precision).sum(axis=1), n_sick))

def all_measures(
    table: pd.DataFrame, # label, probability
    threshold: float,
    weights: np.ndarray | None = None, # (draws, n); None: each film once
) -> dict[str, np.ndarray]: # measure → (draws,)
    "Every measure of MEASURES for each draw."
    label, probability = table.label.to_numpy(), table.probability.to_numpy()
    weights = np.ones((1, len(table)), int) if weights is None else weights
    called = probability >= threshold
    counts = [weights @ ((called == c) & (label == l)) for l, c in ((0, False), (0, True), (1, False), (1, True))]
    return rank_measures(label, probability, weights) | count_measures(*counts) | dict(brier=ratio(weights @ (probability - label) ** 2, weights.sum(axis=1)))

def intervals(
    table: pd.DataFrame, # label, probability, patient_id
    threshold: float,
    seed: int,
    draws: int = 1000,
) -> dict[str, tuple[float, float]]: # measure → low, high
    "95 % intervals of every measure, patients redrawn."
    parts = [all_measures(table, threshold, w) for w in patient_draws(table.patient_id, draws, seed)]
    found = {m: np.concatenate([p[m] for p in parts]) for m in parts[0]}
    return {m: interval(table, threshold, m, v[~np.isnan(v)]) for m, v in found.items()}



# %%
#| export
def interval(table: pd.DataFrame, threshold: float, measure: str, values: np.ndarray) -> tuple[float, float]:
    "The middle 95 % of the draws; where all are alike, Clopper and Pearson's interval of a proportion over patients, and for what is no proportion none."
    from statsmodels.stats.proportion import proportion_confint
    if len(values) and values.min() < values.max(): return tuple(np.percentile(values, [2.5, 97.5]).tolist())
    called, sick = table.probability >= threshold, table.label == 1
    of = dict(accuracy=called | True, sensitivity=sick, specificity=~sick, ppv=called, npv=~called).get(measure)
    if of is None or len(values) == 0: return float("nan"), float("nan")
    n = table.patient_id[of].nunique()
    return tuple(map(float, proportion_confint(round(values[0] * n), n, method="beta")))


# %% [markdown]
# The measures of a draw are scikit-learn's, with the draw's weights; that is checked here on made-up films with many ties:

# %%
from sklearn import metrics as sk
rng = np.random.default_rng(0)
some = pd.DataFrame(dict(label=rng.integers(0, 2, 60), probability=rng.integers(0, 9, 60) / 8, patient_id=rng.integers(0, 20, 60)))
w = next(patient_draws(some.patient_id, 3, seed=1))
found, called = all_measures(some, .5, w), some.probability >= .5
for n in range(3):
    options = dict(sample_weight=w[n])
    expected = dict(roc_auc=sk.roc_auc_score(some.label, some.probability, **options), average_precision=sk.average_precision_score(some.label, some.probability, **options),
        accuracy=sk.accuracy_score(some.label, called, **options), balanced_accuracy=sk.balanced_accuracy_score(some.label, called, **options),
        mcc=sk.matthews_corrcoef(some.label, called, **options), f1_pneumonia=sk.f1_score(some.label, called, **options), f1_normal=sk.f1_score(some.label, called, pos_label=0, **options),
        ppv=sk.precision_score(some.label, called, **options), npv=sk.precision_score(some.label, called, pos_label=0, **options), brier=sk.brier_score_loss(some.label, some.probability, **options))
    for measure, value in expected.items(): test_close(found[measure][n], value, eps=1e-9)


# %% [markdown]
# For the AUROC there is also an interval without drawing, after **DeLong** et al. (1988): each film's *placement* is the share of films of the
# other class that it is ranked right against, the AUROC is their mean, and their scatter gives its variance, and for two models on the same films
# the variance of the difference. Where patients have several films, their placements are summed first (Obuchowski, 1997), so that here
# too it is patients that count. The interval is taken on the logit, which keeps it below 1.

# %%
#| export
def placements(
    label: np.ndarray,       # (n,) 0 or 1, both present
    probability: np.ndarray, # (n,)
) -> np.ndarray: # (n,) share of the other class that each film is on the right side of, ties half
    "DeLong's structural components, by ranks (Sun and Xu 2014)."
    from scipy.stats import rankdata
    found, everyone = np.empty(len(label)), rankdata(probability)
    for c in (0, 1):
        below = everyone[label == c] - rankdata(probability[label == c])  # films of the other class below it
        found[label == c] = below / (label != c).sum() if c else 1 - below / (label != c).sum()
    return found

def delong(
    label: np.ndarray,         # (n,)
    probabilities: np.ndarray, # (m, n) of m models on the same films
    patients,                  # (n,) whose film each is; each its own for DeLong's own formula
) -> tuple[np.ndarray, np.ndarray]: # (m,) AUROCs; (m, m) their covariance
    "AUROCs of several models and how they vary together, patients being independent."
    places = np.stack([placements(label, p) for p in probabilities])
    aucs = places[:, label == 1].mean(axis=1)
    codes, share = pd.factorize(np.asarray(patients))[0], np.zeros((len(places), len(set(patients))))
    for c in (0, 1):
        members, scatter = label == c, (places - aucs[:, None]) / (label == c).sum()
        sums = np.stack([np.bincount(codes[members], row[members], share.shape[1]) for row in scatter])
        count = len(np.unique(codes[members]))
        share += sums * np.sqrt(count / max(count - 1, 1))
    return aucs, share @ share.T

def delong_interval(auc: float, variance: float) -> tuple[float, float]:
    "95 % interval of an AUROC, on the logit; none where all or no pairs are in order."
    from scipy.special import expit
    if not 0 < auc < 1: return float("nan"), float("nan")
    half = 1.959964 * np.sqrt(variance) / (auc * (1 - auc))
    return tuple(expit(logit(auc) + np.array([-half, half])).tolist())


# %% [markdown]
# Against the plain definition, all pairs of a sick and a well film one by one:

# %%
label, probabilities = np.repeat([0, 1], [13, 17]), rng.integers(0, 12, (2, 30)) / 11
aucs, covariance = delong(label, probabilities, range(30))
pairs = np.stack([(p[label == 1][:, None] > p[label == 0]) + .5 * (p[label == 1][:, None] == p[label == 0]) for p in probabilities])
test_close(aucs, pairs.mean(axis=(1, 2)), eps=1e-12)
test_close(covariance, np.cov(pairs.mean(axis=2)) / 17 + np.cov(pairs.mean(axis=1)) / 13, eps=1e-12)
doubled = delong(np.tile(label, 2), np.tile(probabilities, 2), np.tile(range(30), 2))   # every film twice tells nothing new
test_close(doubled[1], covariance, eps=1e-12)


# %% [markdown]
# ## Side by side
#
# `comparison.csv` has one row a model; [the figure](#fig-evaluation_comparison) draws them together. The time is that of all training that went into the network, so the fine-tuned
# ResNet50 carries the frozen stage's as well, and an ensemble that of its members. In brackets are 95 % intervals, patients redrawn. Last stand the accuracy at a threshold that was
# chosen on validation (below; its interval holds the threshold fixed) and, to compare, the AUROC's interval after DeLong.

# %%
#| export
def training_facts(stage: Stage, model: str) -> dict: # epochs, training_seconds, parameters; NaN without a history
    "Epochs run, for an ensemble those of each member, the seconds of all training that went into it, its number of parameters."
    file = stage.path("history", f"{model}.csv")
    if not file.exists(): return dict(epochs=float("nan"), training_seconds=float("nan"), parameters=float("nan"))
    history = pd.read_csv(file)
    return dict(epochs=history.epoch.max(), training_seconds=history.total_seconds.iloc[-1], parameters=history.get("parameters", pd.Series([np.nan])).iloc[-1])

def compare_models(
    stage: Stage,
    predictions: dict[str, pd.DataFrame], # from `load_predictions`
    threshold: float,
    seed: int,
    draws: int = 1000,
) -> pd.DataFrame: # a row a model
    "Metrics, intervals, counts and training time of every model on the judged films."
    rows = []
    for model, table in judged_films(predictions)[1].items():
        metrics = classification_metrics(table.label, table.probability, threshold)
        (tn, fp), (fn, tp) = metrics.pop("confusion_matrix")
        values = {m: float(v[0]) for m, v in all_measures(table, threshold).items()} | metrics
        limits = flat(intervals(table, threshold, seed, draws))
        if table.label.nunique() == 2:
            aucs, variance = delong(table.label.to_numpy(), table.probability.to_numpy()[None], table.patient_id)
            limits |= flat(dict(delong=delong_interval(aucs[0], variance[0, 0])))
        rows.append(dict(model=model, films=len(table), prevalence=table.label.mean(), threshold=threshold, **values, **limits, tn=tn, fp=fp, fn=fn, tp=tp,
                         **chosen_threshold(predictions[model], table, seed, draws), **training_facts(stage, model)))
    return pd.DataFrame(rows)

def flat(bounds: dict[str, tuple[float, float]]) -> dict[str, float]: # NAME_low, NAME_high
    "Intervals as columns."
    return {f"{name}_{side}": value for name, pair in bounds.items() for side, value in zip(("low", "high"), pair)}


# %%
#| export
def youden_threshold(
    table: pd.DataFrame, # validation films of one model: label, probability
) -> float:
    "The threshold with the largest sensitivity + specificity (Youden 1950), half way to the next lower probability."
    from sklearn.metrics import roc_curve
    false_alarms, sensitivity, thresholds = roc_curve(table.label, table.probability, drop_intermediate=False)
    return between(table, thresholds[max(1, int(np.argmax(sensitivity - false_alarms)))])

def sensitivity_threshold(
    table: pd.DataFrame, # validation films of one model
    wanted: float,       # sensitivity, above 0 and at most 1
) -> float:
    "The largest threshold that calls at least this share of the pneumonia films."
    sick = np.sort(table.probability[table.label == 1])
    return between(table, sick[len(sick) - int(np.ceil(wanted * len(sick)))])

def between(table: pd.DataFrame, probability: float) -> float:
    "Half way from a film's probability to the next lower one, so that the film is still called."
    below = table.probability[table.probability < probability]
    return float((probability + (below.max() if len(below) else 0)) / 2)

def to_choose_by(table: pd.DataFrame, judged: pd.DataFrame) -> pd.DataFrame:
    "The validation films, none where they are the ones that are judged."
    return table[(table.split == "validation") & (not (judged.split == "validation").any())]

def chosen_threshold(table: pd.DataFrame, test: pd.DataFrame, seed: int, draws: int) -> dict: # chosen_threshold, chosen_accuracy with its interval
    "The accuracy on the judged films at the threshold that validation chooses; nothing where validation has one class."
    validation = to_choose_by(table, test)
    if validation.label.nunique() < 2: return dict(chosen_threshold=float("nan"), chosen_accuracy=float("nan"))
    value = youden_threshold(validation)
    return dict(chosen_threshold=value, chosen_accuracy=float(all_measures(test, value)["accuracy"][0])) | flat(dict(chosen_accuracy=intervals(test, value, seed, draws)["accuracy"]))


# %%
four = pd.DataFrame(dict(label=[0, 0, 1, 1], probability=[.1, .2, .6, .9]))
test_eq(youden_threshold(four), .4)
test_eq([sensitivity_threshold(four, wanted) for wanted in (.5, .51, 1)], [.75, .4, .4])
comparison = compare_models(stage, predictions, threshold, seed, draws)
write_csv(stage.path("comparison.csv"), comparison)


# %%
#| export
def span(row: dict, key: str, digits: int = 4) -> str:
    "A value of the comparison with its interval, for reading."
    if row.get(key) is None or row[key] != row[key]: return "–"
    if row[f"{key}_low"] is None or row[f"{key}_low"] != row[f"{key}_low"]: return f"{row[key]:.{digits}f}"
    return f"{row[key]:.{digits}f} ({row[f'{key}_low']:.3f}{' to ' if row[f'{key}_low'] < 0 else '–'}{row[f'{key}_high']:.3f})"

def comparison_table(
    comparison: pd.DataFrame, # from `compare_models`
) -> pd.DataFrame: # text, made for reading
    "The comparison with intervals, as a reader wants it."
    return pd.DataFrame([{"model": title(r["model"]), **{MEASURES[m]: span(r, m) for m in ("roc_auc", "accuracy", "sensitivity", "specificity")},
        "accuracy at the threshold chosen on validation": span(r, "chosen_accuracy"),
        "epochs run": f"{r['epochs']:.0f}", "training": f"{r['training_seconds']:,.0f} s"} for r in comparison.to_dict("records")])

def measures_table(comparison: pd.DataFrame) -> pd.DataFrame: # text: a row a measure, a column a model
    "Every measure with its interval."
    rows = {words: {title(r["model"]): span(r, m) for r in comparison.to_dict("records")} for m, words in MEASURES.items()}
    rows["AUROC, interval after DeLong"] = {title(r["model"]): f"{r['roc_auc']:.4f} ({r['delong_low']:.3f}–{r['delong_high']:.3f})" for r in comparison.to_dict("records") if "delong_low" in r}
    return pd.DataFrame(rows).T


# %%
display(comparison_table(comparison).style.hide(axis="index"))
measures_table(comparison).style.set_caption(f"All measures at threshold {threshold:g}; the baseline of average precision is {comparison.prevalence[0]:.3f}")


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
    measures = {m: MEASURES[m] for m in ("accuracy", "roc_auc", "f1_normal", "f1_pneumonia")}
    width = .84 / len(comparison)
    for n, row in enumerate(comparison.to_dict("records")):
        place, values = np.arange(len(measures)) + width * (n - (len(comparison) - 1) / 2), [row[m] for m in measures]
        axes[2].bar(place, values, width * .94, color=COLOURS.get(row["model"], COLOURS["other"]), label=title(row["model"]))
        axes[2].errorbar(place, values, [[v - row[f"{m}_low"] for m, v in zip(measures, values)], [row[f"{m}_high"] - v for m, v in zip(measures, values)]], fmt="none", ecolor="black", lw=1)
    axes[2].set(xticks=range(len(measures)), xticklabels=measures.values(), ylim=(0, 1.24), yticks=np.arange(0, 1.1, .2), title="At the threshold")
    axes[2].legend(ncols=2, fontsize=9, loc="upper center")
    return figure


# %%
save_figure(stage, plot_comparison(comparison, tests), "evaluation_comparison", "All models: ROC, precision and recall, and metrics at the threshold.", "ROC and precision-recall curves of all models and bars of accuracy, "
            "AUROC and F1. AUROC: " + ", ".join(f"{title(r.model)} {r.roc_auc:.4f}" for r in comparison.itertuples()) + ".")


# %% [markdown]
# ## Do they differ?
#
# Two models judged on the same films are compared film by film, in two ways. Do they **rank** differently: the difference of their AUROCs, with an
# interval and a p-value after DeLong, patients being independent. Do they **call** differently at the threshold: on how many films is only one of them
# right? If they were equally good that count would split evenly, which the exact **McNemar** test judges. It takes films as independent; the exact test
# beside it asks the same of patients, each with the balance of their films, and the difference in accuracy has an interval from redrawn patients. Several pairs mean several chances to be
# fooled, so p-values are corrected after Holm (1979): McNemar's over the pairs, and those of DeLong and of patients, from which the findings are drawn, all together.

# %%
#| export
def paired_tests(
    tests: dict[str, pd.DataFrame], # model → judged films
    threshold: float,
    seed: int = 42,
    draws: int = 1000,
) -> pd.DataFrame: # a row a pair with films in common
    "Differences of AUROC (DeLong) and of calls (exact McNemar; exact test over patients; bootstrap of accuracy) for each pair of models, with Holm's correction."
    from statsmodels.stats.multitest import multipletests
    rows = [compare_pair(a, b, tests, threshold, seed, draws) for a, b in combinations(tests, 2) if set(tests[a].path) & set(tests[b].path)]
    table = pd.DataFrame(rows, columns=["first", "second", "films", "auroc_difference", "auroc_low", "auroc_high", "p_auroc", "only_first", "only_second",
                                        "accuracy_difference", "accuracy_low", "accuracy_high", "p", "p_calls"])
    holm = lambda p: multipletests(p, method="holm")[1] if len(p) else np.zeros(0)
    together = holm(np.concatenate([table.p_auroc, table.p_calls]).astype(float))  # both feed the findings, so they are one family
    table = table.assign(p_holm=holm(table.p), p_auroc_holm=together[:len(table)], p_calls_holm=together[len(table):])
    return table.sort_values(["p_calls", "p_auroc"], kind="stable").reset_index(drop=True)

def patient_sign_test(better: np.ndarray, patients) -> float: # (n,) 1 where only the first is right, -1 where only the second, 0
    "Two-sided p-value: had each patient's balance an equal chance of either sign; McNemar's exact test where each has one film."
    balance = np.abs(total := pd.Series(np.asarray(better)).groupby(np.asarray(patients)).sum().to_numpy())
    chances = np.ones(1)  # of each sum, from the lowest to the highest
    for size in balance[balance > 0]: chances = np.r_[chances, np.zeros(2 * size)] / 2 + np.r_[np.zeros(2 * size), chances] / 2
    return float(min(1, chances[np.abs(np.arange(len(chances)) - balance.sum()) >= abs(total.sum())].sum()))


# %%
#| export
def compare_pair(a: str, b: str, tests: dict[str, pd.DataFrame], threshold: float, seed: int, draws: int) -> dict: # a row of `paired_tests`
    "Two models on the films that both were judged on."
    from scipy.stats import binomtest, norm
    first, second = tests[a].set_index("path"), tests[b].set_index("path")
    common = first.index.intersection(second.index)
    first, second = first.loc[common], second.loc[common]
    if (first.label != second.label).any(): raise StudyError(f"Expected {a} and {b} to give each film the same label, found {(first.label != second.label).sum()} film(s) with two.")
    better = ((first.probability >= threshold) == first.label).astype(int) - ((second.probability >= threshold) == second.label).astype(int)
    drawn = np.concatenate([w @ better.to_numpy() / w.sum(axis=1) for w in patient_draws(first.patient_id, draws, seed)])
    only_a, only_b = int((better == 1).sum()), int((better == -1).sum())
    row = dict(first=a, second=b, films=len(common), only_first=only_a, only_second=only_b, p=binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.,
               p_calls=patient_sign_test(better, first.patient_id), accuracy_difference=better.mean(), **flat(dict(accuracy=np.percentile(drawn, [2.5, 97.5]))))
    if first.label.nunique() < 2: return row | dict(auroc_difference=np.nan, auroc_low=np.nan, auroc_high=np.nan, p_auroc=1.)
    aucs, c = delong(first.label.to_numpy(), np.stack([first.probability, second.probability]), first.patient_id)
    error, gap = np.sqrt(max(c[0, 0] + c[1, 1] - 2 * c[0, 1], 0)), aucs[0] - aucs[1]
    if error < 1e-12: return row | dict(auroc_difference=gap, auroc_low=np.nan, auroc_high=np.nan, p_auroc=1.)  # nothing varies, nothing can be tested
    return row | dict(auroc_difference=gap, auroc_low=gap - 1.959964 * error, auroc_high=gap + 1.959964 * error, p_auroc=2 * norm.sf(abs(gap) / error))

def p_text(p: float) -> str:
    "A p-value for reading."
    return "< 0.001" if p < .001 else f"{p:.2g}"


# %%
made_up = pd.DataFrame(dict(path=range(10), patient_id=range(10), label=1, probability=[.9] * 10))
worse = made_up.assign(probability=[.9] * 4 + [.1] * 6)
test_close(paired_tests(dict(a=made_up, b=worse), .5).p[0], 2 * .5**6)   # six discordant films, all one way
test_close(patient_sign_test([1] * 6 + [0] * 4, range(10)), 2 * .5**6)         # one film a patient: the same
test_close(patient_sign_test([1] * 6 + [0] * 4, [1, 1, 1, 2, 2, 2, 3, 3, 3, 3]), 2 * .5**2)   # two patients say less than six
pairs = paired_tests(tests, threshold, seed, draws)
write_csv(stage.path("metrics/evaluation_pairs.csv"), pairs)
readable = pd.DataFrame([{"first": title(r["first"]), "second": title(r["second"]), "films": r.films, "AUROC, first − second": f"{r.auroc_difference:+.3f} ({r.auroc_low:+.3f} to {r.auroc_high:+.3f})",
    "p, DeLong and Holm": p_text(r.p_auroc_holm), "right alone": f"{r.only_first} / {r.only_second}",
    "accuracy, first − second": f"{r.accuracy_difference:+.3f} ({r.accuracy_low:+.3f} to {r.accuracy_high:+.3f})", "p, McNemar and Holm": p_text(r.p_holm), "p, patients and Holm": p_text(r.p_calls_holm)} for _, r in pairs.iterrows()])
readable.style.hide(axis="index")


# %% [markdown]
# ## Whom does a model miss?
#
# Bacterial and viral pneumonia both count as pneumonia, but a lobar patch and a fine veil are not equally easy to see. The two naming series of the
# normal films were probably taken at different times. A child with many films may be a sicker one. A tall side marker stands for machines by which, in the public films, many sick and few other
# children were filmed (the exploration measures it): a model that knows the machine calls its normal films sick. This group was made after errors on test had been looked at. And where the originals differ in size and shape, a
# model may fare differently on wide films and on narrow ones. The table counts each group's films and patients; the rate is sensitivity for
# groups of pneumonia films and specificity for groups of normal ones, and AUROC sets a group against all films of the other class. [The figure](#fig-evaluation_subgroups)
# shows the rates. Many groups mean many chances: a single one that sticks out is a question, not a finding.

# %%
#| export
def film_groups(
    table: pd.DataFrame, # from `load_predictions`; width, height and marker where known
) -> dict[str, pd.Series]: # what is grouped by → (n,) each film's group
    "Films by kind, naming series, films of the patient, side marker, and original size and shape where these differ."
    many = pd.cut(table.films_of_patient, [0, 1, 3, np.inf], labels=["1", "2 or 3", "4 or more"])
    by = {"kind": table.kind, "naming series": table.series.where(table.label == 0), "films of the patient": many}  # pneumonia's series are its kinds
    if "marker" in table and (table.marker > TALL_MARKER).any(): by["side marker"] = pd.Series(np.where(table.marker > TALL_MARKER, "tall", "other or none found"), table.index)
    if "width" in table and table.width.nunique() > 1: by |= {"original width, pixels": thirds(table.width), "original width / height": thirds(table.width / table.height)}
    return by

def thirds(values: pd.Series) -> pd.Series: # of ordered text, such as "below 1.31"
    "Lowest, middle and highest third."
    low, high = np.quantile(values.dropna(), [1 / 3, 2 / 3])
    words = lambda v: f"{v:,.0f}" if v >= 10 else f"{v:.2f}"
    return pd.cut(values, [-np.inf, low, high, np.inf], right=False, duplicates="drop", labels=None if low == high else [f"below {words(low)}", f"{words(low)} to {words(high)}", f"{words(high)} or more"])


# %%
#| export
def subgroup_table(
    tests: dict[str, pd.DataFrame],
    threshold: float,
    seed: int,
    draws: int = 1000,
) -> pd.DataFrame: # a row a model, grouping, class and group: films, patients, measure, rate and AUROC with low and high
    "How often each group of films is called right, with intervals from redrawn patients."
    rows = []
    for model, table in tests.items():
        for by, groups in film_groups(table).items():
            for label, group in product((0, 1), groups.astype("category").cat.categories):
                chosen = ((groups == group) & (table.label == label)).to_numpy()
                if chosen.any(): rows.append(dict(model=model, label=label) | group_row(table, by, str(group), chosen, label, threshold, seed, draws))
    return pd.DataFrame(rows)

def group_row(table: pd.DataFrame, by: str, group: str, chosen: np.ndarray, label: int, threshold: float, seed: int, draws: int) -> dict:
    "Counts, rate and AUROC of one group, all of one class."
    films, rate = table[chosen], "sensitivity" if label else "specificity"
    against = table[chosen | (table.label == 1 - label).to_numpy()]
    auroc = dict(roc_auc=float("nan"), roc_auc_low=float("nan"), roc_auc_high=float("nan"))
    if against.label.nunique() == 2:
        aucs, c = delong(against.label.to_numpy(), against.probability.to_numpy()[None], against.patient_id)
        auroc = dict(roc_auc=aucs[0]) | flat(dict(roc_auc=delong_interval(aucs[0], c[0, 0])))
    return {"by": by, "group": group, "films": len(films), "patients": films.patient_id.nunique(), "measure": rate, "rate": float(all_measures(films, threshold)[rate][0]),
            **flat(dict(rate=intervals(films, threshold, seed, draws)[rate])), **auroc}


# %%
images = pd.read_csv(stage.path("images.csv")) if stage.path("images.csv").exists() else pd.DataFrame(columns=["path", "width", "height", "bytes"])
root = read_json(stage.path("metrics/data.json"))["root"] if stage.path("metrics/data.json").exists() else ""
seen = pd.concat(tests.values())[["path"]].drop_duplicates().merge(images[["path", "width", "height", "bytes"]], on="path", how="left")
if not (root and all((Path(root)/path).is_file() for path in seen.path)):
    root = ""
    note(stage, "the films themselves are not, or not all, where this run found them, so nothing is told of their side markers, and there is no gallery.")
seen = seen.drop(columns="bytes").assign(marker=appearance_table(seen, root).marker if root else np.nan)
sized = {name: table.merge(seen, on="path", how="left") for name, table in tests.items()}
subgroups = subgroup_table(sized, threshold, seed, draws)
write_csv(stage.path("metrics/evaluation_subgroups.csv"), subgroups)
whole = subgroups[subgroups.by == "kind"]
test_eq(whole.groupby("model").films.sum().to_dict(), {name: len(table) for name, table in tests.items()})   # the kinds are a partition
readable = [{"by": r["by"], "group": r["group"], "films": r["films"], "patients": r["patients"], "called right": f"{r['measure']} {span(r, 'rate', 3)}", "AUROC": span(r, "roc_auc", 3)} for r in subgroups[subgroups.model == list(tests)[-1]].to_dict("records")]
pd.DataFrame(readable).style.hide(axis="index").set_caption(f"{title(list(tests)[-1])}; the other models are in metrics/evaluation_subgroups.csv")


# %%
#| export
def plot_subgroups(
    subgroups: pd.DataFrame, # from `subgroup_table`
): # matplotlib Figure
    "Sensitivity and specificity of every group and model, with intervals."
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots(1, 2, figsize=(13, 1.4 + .42 * subgroups.groupby("label")[["by", "group"]].value_counts().groupby("label").size().max()))
    for ax, label, measure in zip(axes, (0, 1), ("specificity", "sensitivity")):
        rows = subgroups[subgroups.label == label]
        keys = list(dict.fromkeys(zip(rows["by"], rows["group"])))
        for n, (model, own) in enumerate(rows.groupby("model", sort=False)):
            own, lift = own.set_index(["by", "group"]).reindex(keys), .62 * (n / max(rows.model.nunique() - 1, 1) - .5) if rows.model.nunique() > 1 else 0
            ax.errorbar(own.rate, np.arange(len(keys)) + lift, xerr=[own.rate - own.rate_low, own.rate_high - own.rate], fmt="os^Dv*"[n % 6], ms=5, lw=1,
                        color=COLOURS.get(model, COLOURS["other"]), label=title(model))
        counts = rows.drop_duplicates(["by", "group"]).set_index(["by", "group"]).films
        ax.set(yticks=range(len(keys)), yticklabels=[f"{by}: {group} ({counts[by, group]})" for by, group in keys], xlim=(None, 1.01), title=f"{measure}, {CLASS_NAMES[label].lower()} films")
        ax.grid(axis="x", color="#dddddd")
        ax.invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
    return figure


# %%
save_figure(stage, plot_subgroups(subgroups), "evaluation_subgroups", "Films called right by group, with 95 % intervals; the number of films in brackets.",
            "Dots with intervals, specificity of groups of normal films and sensitivity of groups of pneumonia films for each model, at the run's threshold. The numbers are in metrics/evaluation_subgroups.csv.")

# %% [markdown]
# ## The threshold
#
# Pneumonia is more common in train than in test, and class weights bend the probabilities, so .5 has no special right.
# A threshold may be chosen, but on **validation** films only. Three rules: the largest sum of sensitivity and specificity (Youden, 1950), and the
# largest threshold that finds 95 % or 98 % of the validation films with pneumonia, as one would want where a miss is worse than a false alarm.
# What they do on the judged films is then read off, whatever it is. The column *on validation* holds sensitivity and specificity there; where they are not found again, validation did not resemble test.
# The interval beside a chosen threshold says which threshold other validation patients would have led to: near its best the sum of sensitivity and specificity is flat, so the choice is partly chance, and so is any accuracy read off at it.
# Youden's rule suffers most: the place of a maximum is found with an error that shrinks with the cube root of the number of patients (Kim and Pollard, 1990), a quantile, as the other two rules take it, with an error that shrinks with the square root.

# %%
#| export
RULES = {"Youden": youden_threshold, "sensitivity .95": lambda v: sensitivity_threshold(v, .95), "sensitivity .98": lambda v: sensitivity_threshold(v, .98)}

def threshold_table(
    predictions: dict[str, pd.DataFrame],
    fixed: float, # the run's own threshold
    seed: int = 42,
    draws: int = 1000,
) -> pd.DataFrame: # a row a model and rule: threshold with its interval, its measures on validation and, with intervals, on the judged films
    "The judged films at the fixed threshold and at those chosen on validation."
    rows, tests = [], judged_films(predictions)[1]
    for model, table in predictions.items():
        validation, test = to_choose_by(table, tests[model]), tests[model]
        choices = {"fixed": fixed} | ({name: rule(validation) for name, rule in RULES.items()} if validation.label.nunique() == 2 else {})
        for chosen, value in choices.items():
            there = {m: float(v[0]) for m, v in all_measures(test, value).items()}
            bounds = intervals(test, value, seed, draws)
            kept = ("accuracy", "sensitivity", "specificity", "ppv", "npv")
            before = {f"validation_{m}": float(all_measures(validation, value)[m][0]) if len(validation) else float("nan") for m in ("sensitivity", "specificity")}
            low, high = threshold_interval(validation, RULES[chosen], seed, min(draws, 200)) if chosen in RULES else (float("nan"), float("nan"))
            rows.append(dict(model=model, chosen=chosen, threshold=value, threshold_low=low, threshold_high=high, **before, **{m: there[m] for m in kept}, **flat({m: bounds[m] for m in kept})))
    return pd.DataFrame(rows)

def threshold_interval(validation: pd.DataFrame, rule, seed: int, draws: int) -> tuple[float, float]: # 2.5 and 97.5 percentiles
    "Where a rule would have put the threshold for redrawn patients."
    chosen = lambda labels, scores, sample_weight: rule(validation.iloc[np.repeat(np.arange(len(validation)), sample_weight)])
    return patient_interval(validation, validation.probability.to_numpy(), chosen, seed, draws)


# %%
thresholds = threshold_table(predictions, threshold, seed, draws)
write_csv(stage.path("metrics/evaluation_thresholds.csv"), thresholds)
readable = [{"model": title(r["model"]), "chosen by": r["chosen"], "threshold": f"{r['threshold']:.3f}" + ("" if r["threshold_low"] != r["threshold_low"] else f" ({r['threshold_low']:.2f}–{r['threshold_high']:.2f})"), "on validation": f"{r['validation_sensitivity']:.3f} / {r['validation_specificity']:.3f}",
             **{MEASURES[m]: span(r, m, 3) for m in ("sensitivity", "specificity", "accuracy")}, "PPV / NPV": f"{r['ppv']:.3f} / {r['npv']:.3f}"} for r in thresholds.to_dict("records")]
pd.DataFrame(readable).style.hide(axis="index")


# %% [markdown]
# ## Where pneumonia is rarer
#
# Sensitivity and specificity belong to a model and the kind of films; what a call is worth also depends on how many children are sick. [The
# figure](#fig-evaluation_prevalence) carries each model's own pair, at the threshold that Youden's rule chose on validation, to other prevalences by Bayes' rule. It assumes that the
# sick elsewhere are as sick and the well as well as here, which a screening clinic would not confirm.

# %%
#| export
def predictive_values(sensitivity, specificity, prevalence) -> tuple: # numbers or arrays → PPV, NPV
    "Bayes' rule."
    sick, well = np.asarray(prevalence, float), 1 - np.asarray(prevalence, float)
    return (ratio(sensitivity * sick, sensitivity * sick + (1 - specificity) * well), ratio(specificity * well, specificity * well + (1 - sensitivity) * sick))

def plot_prevalence(
    thresholds: pd.DataFrame, # from `threshold_table`
    here: float,              # prevalence among the judged films
): # matplotlib Figure
    "PPV and NPV of every model against prevalence."
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), sharey=True)
    prevalence = np.linspace(.005, .995, 199)
    for model, own in thresholds.groupby("model", sort=False):
        row = own[own.chosen == "Youden"].iloc[0] if (own.chosen == "Youden").any() else own.iloc[0]
        for ax, values in zip(axes, predictive_values(row.sensitivity, row.specificity, prevalence)):
            ax.plot(prevalence, values, color=COLOURS.get(model, COLOURS["other"]), ls=DASHES.get(model, "-"), lw=2, label=title(model))
    for ax, name in zip(axes, ("PPV: pneumonia calls that are right", "NPV: normal calls that are right")):
        ax.axvline(here, color="gray", lw=.8, ls=":")
        ax.set(title=name, xlabel="prevalence of pneumonia (dotted: these films)", ylim=(0, 1.02))
        ax.xaxis.set_major_formatter("{x:.0%}")
    axes[0].legend(fontsize=9)
    return figure


# %%
test_close(predictive_values(.9, .8, .5), (.9 / 1.1, .8 / .9))
test_close(predictive_values(.9, .8, .01)[0], .009 / (.009 + .198))   # rare disease: most alarms are false
save_figure(stage, plot_prevalence(thresholds, comparison.prevalence[0]), "evaluation_prevalence", "What a call is worth, by how common pneumonia is.",
            "PPV rises and NPV falls with the prevalence of pneumonia, for every model at its threshold chosen on validation.")


# %% [markdown]
# ## Is a model worth using?
#
# A threshold of 10 % says that one missed pneumonia weighs as much as nine false alarms. **Net benefit** (Vickers and Elkin, 2006) counts a model's right
# alarms and takes off its false ones at that exchange rate, per film: TP / n - FP / n · t / (1 - t). [The decision curve](#fig-evaluation_decision) compares it with calling
# everyone and calling no one. A model whose line lies below both at the rate that a clinic would choose does harm there. It reads probabilities at their word, so calibration matters, and
# it holds for the share of pneumonia among these films.

# %%
#| export
def net_benefit(table: pd.DataFrame, thresholds: np.ndarray) -> np.ndarray: # (t,)
    "Net benefit of calling films from each threshold on."
    called = table.probability.to_numpy() >= np.asarray(thresholds)[:, None]
    sick = table.label.to_numpy() == 1
    return (called & sick).mean(axis=1) - (called & ~sick).mean(axis=1) * thresholds / (1 - thresholds)

def plot_decision(tests: dict[str, pd.DataFrame]): # matplotlib Figure
    "Decision curves of all models, beside calling everyone and no one."
    import matplotlib.pyplot as plt
    figure, ax = plt.subplots(figsize=(7, 4))
    t, share = np.linspace(.01, .99, 99), next(iter(tests.values())).label.mean()
    for model, table in tests.items(): ax.plot(t, net_benefit(table, t), color=COLOURS.get(model, COLOURS["other"]), ls=DASHES.get(model, "-"), lw=2, label=title(model))
    ax.plot(t, share - (1 - share) * t / (1 - t), color="black", lw=1, label="call everyone")
    ax.axhline(0, color="gray", lw=1, ls=":", label="call no one")
    ax.set(xlabel="threshold probability t", ylabel="net benefit per film", ylim=(-.05, share * 1.08), title="Decision curve")
    ax.legend(fontsize=9, loc="lower left")
    return figure


# %%
perfect = pd.DataFrame(dict(label=[0, 1, 1, 1], probability=[0., 1., 1., 1.]))
test_close(net_benefit(perfect, np.array([.2, .5])), [.75, .75])
test_close(net_benefit(perfect.assign(probability=1.), np.array([.2, .5])), [.75 - .25 * .25, .5])   # everyone is called
save_figure(stage, plot_decision(tests), "evaluation_decision", "Net benefit of each model by the exchange rate of misses and false alarms.",
            "Net benefit against threshold probability for each model, beside the curves of calling everyone and of calling no one.")


# %% [markdown]
# ## Can a probability be taken at its word?
#
# Of the films given about .8, are 80 % sick? The **reliability diagram**, [the figure](#fig-evaluation_reliability), compares, in groups of equally many films, the mean
# probability with the share that is sick; the diagonal is honesty, below it a model promises more pneumonia than there is. Models are saved with a temperature that
# was fitted on validation; the hollow marks show them before, and the bars (Wilson, 1927) take films as independent. In numbers:
#
# - **Brier score**: mean squared error of the probability. 0 is perfect; giving every film the prevalence scores the prevalence times its complement.
# - **ECE**, expected calibration error, as Guo et al. (2017) define it, here for the probability of pneumonia: the mean distance between probability and share over 15 equally wide groups, weighted by their films.
# - **slope** and **intercept** (Cox, 1958) of a logistic regression of the truth on the logit. 1 and 0 are perfect. A slope between 0 and 1: too sure on both sides; below 0: ranked the wrong way. The intercept is taken with the
#   slope held at 1; below 0: too much pneumonia promised on the whole, which a temperature cannot mend. Their intervals let patients vary.

# %%
#| export
def calibration_error(label, probability, bins: int = 15) -> float:
    "Expected calibration error over equally wide bins."
    label, probability = np.asarray(label), np.asarray(probability)
    where = np.minimum((probability * bins).astype(int), bins - 1)
    gaps = np.bincount(where, probability - label, bins)
    return float(np.abs(gaps).sum() / len(label))

def calibration_line(table: pd.DataFrame, probability: str) -> dict: # slope, intercept, with low and high; NaN where they are not defined
    "Calibration slope, and intercept with the slope held at 1; no slope where one probability separates the classes, neither with one class."
    import statsmodels.api as sm
    odds, label, fitted = logit(table[probability]), table.label.to_numpy(), {}
    sick, well = odds[label == 1], odds[label == 0]
    both = len(sick) > 0 and len(well) > 0
    defined = dict(slope=both and well.max() > sick.min() and sick.max() > well.min(), intercept=both)
    models = dict(slope=(np.stack([np.ones(len(table)), odds], axis=1), None), intercept=(np.ones((len(table), 1)), odds))
    for name, (given, offset) in models.items():
        values = (np.nan,) * 3
        if defined[name]:
            fit = sm.GLM(label, given, family=sm.families.Binomial(), offset=offset).fit(cov_type="cluster", cov_kwds=dict(groups=pd.factorize(table.patient_id)[0]))
            values = (np.asarray(fit.params)[-1], *np.asarray(fit.conf_int())[-1])
        fitted |= dict(zip((name, f"{name}_low", f"{name}_high"), map(float, values)))
    return fitted

def calibration_table(
    tests: dict[str, pd.DataFrame],
) -> pd.DataFrame: # a row a model and whether before or after the temperature
    "Brier score, ECE, slope and intercept before and after the temperature."
    rows = []
    for model, table in tests.items():
        for when, column in (("before", "uncalibrated"), ("after", "probability")):
            if column in table: rows.append(dict(model=model, when=when, brier=float(((table[column] - table.label) ** 2).mean()), ece=calibration_error(table.label, table[column]), **calibration_line(table, column)))
    return pd.DataFrame(rows)


# %%
rng = np.random.default_rng(0)
odds = rng.normal(0, 2, 4000)
honest = pd.DataFrame(dict(label=(rng.random(4000) < 1 / (1 + np.exp(-odds))).astype(int), probability=1 / (1 + np.exp(-odds)), uncalibrated=1 / (1 + np.exp(-2 * odds - 1)), patient_id=range(4000)))
line = calibration_table(dict(made_up=honest)).set_index("when")
assert line.slope_low["after"] < 1 < line.slope_high["after"] and line.intercept_low["after"] < 0 < line.intercept_high["after"]
assert line.slope_high["before"] < .6 and line.intercept_high["before"] < 0     # too sure, and too much promised
test_close(calibration_error([0, 1, 1, 1], [.9] * 4), .15)
calibration = calibration_table(tests)
write_csv(stage.path("metrics/evaluation_calibration.csv"), calibration)
readable = [{"model": title(r["model"]), "temperature": r["when"], "Brier score": f"{r['brier']:.4f}", "ECE": f"{r['ece']:.4f}", "slope": span(r, "slope", 2), "intercept": span(r, "intercept", 2)} for r in calibration.to_dict("records")]
pd.DataFrame(readable).style.hide(axis="index")


# %%
#| export
def plot_reliability(
    tests: dict[str, pd.DataFrame],
): # matplotlib Figure
    "Reliability diagram of each model with Wilson's intervals, before and after the temperature."
    import matplotlib.pyplot as plt
    from statsmodels.stats.proportion import proportion_confint
    columns = min(len(tests), 3)
    figure, axes = plt.subplots(-(-len(tests) // columns), columns, figsize=(4.3 * columns, 3.9 * -(-len(tests) // columns)), squeeze=False, sharex=True, sharey=True)
    for ax in axes.flat[len(tests):]: ax.axis("off")
    for ax, (model, table) in zip(axes.flat, tests.items()):
        ax.plot([0, 1], [0, 1], color="gray", lw=.8, ls=":")
        for column, style in (("uncalibrated", dict(marker="o", mfc="white", ls="none", ms=6, alpha=.8, label="before")), ("probability", dict(marker="o", ls="none", ms=6, label="after"))):
            if column not in table: continue
            bins = np.searchsorted(np.quantile(table[column], np.arange(1, 8) / 8), table[column])  # films of equal probability stay together
            groups = [group for _, group in table.groupby(bins)]
            mean, share = [g[column].mean() for g in groups], np.array([g.label.mean() for g in groups])
            limits = np.array([proportion_confint(g.label.sum(), len(g), method="wilson") for g in groups])
            ax.plot(mean, share, color=COLOURS.get(model, COLOURS["other"]), **style)
            if column == "probability": ax.vlines(mean, limits[:, 0], limits[:, 1], color=COLOURS.get(model, COLOURS["other"]), lw=1)
        ax.set(title=title(model), xlim=(-.02, 1.02), ylim=(-.02, 1.02))
        ax.legend(title="temperature", fontsize=9)
    figure.supxlabel("mean predicted probability"); figure.supylabel("share with pneumonia")
    return figure


# %%
save_figure(stage, plot_reliability(tests), "evaluation_reliability", "Predicted probability against the share that is sick, in eight groups of films.",
            f"For each model the share of {judged} films with pneumonia against the mean predicted probability, with intervals, before and after the temperature, beside the diagonal of honest probabilities.")


# %% [markdown]
# ## Its worst films
#
# Numbers hide what single films show. Listed are the films on which the model with the highest AUROC is most sure and wrong, and those on which it is least sure,
# and [the gallery](#fig-evaluation_errors) shows them. Someone who reads films should look at these first: some will be mislabelled, some taken badly, some truly hard. Here they are
# only shown; to change a label after seeing a model's answer would be to let the model grade itself.

# %%
#| export
def telling_films(
    table: pd.DataFrame, # judged films of one model
    threshold: float,
    count: int = 4,
) -> pd.DataFrame: # rows of `table` with `why`: called pneumonia but normal, called normal but pneumonia, least certain
    "The most confident mistakes of both kinds, and the films nearest to the threshold."
    called = table.probability >= threshold
    table = table.assign(called=np.where(called, "pneumonia", "normal"), distance=np.abs(logit(table.probability) - logit(threshold)))
    parts = {"normal, called pneumonia": table[called & (table.label == 0)].sort_values("distance", ascending=False),
             "pneumonia, called normal": table[~called & (table.label == 1)].sort_values("distance", ascending=False), "least certain": table.sort_values("distance")}
    return pd.concat([films.head(count).assign(why=why) for why, films in parts.items()])[["why", "path", "kind", "patient_id", "films_of_patient", "probability", "called"]]

def plot_films(films: pd.DataFrame, root): # matplotlib Figure
    "A row of films for each reason."
    import matplotlib.pyplot as plt
    groups = [(why, rows) for why, rows in films.groupby("why", sort=False)]
    figure, axes = plt.subplots(len(groups), films.why.value_counts().max(), figsize=(11, 2.9 * len(groups)), squeeze=False)
    for ax in axes.flat: ax.set(xticks=[], yticks=[]); ax.spines[:].set_visible(False)
    for (why, rows), line in zip(groups, axes):
        line[0].set_ylabel(why)
        for ax, film in zip(line, rows.itertuples()):
            ax.imshow(read_film(root, film.path), vmin=0, vmax=255)
            ax.set_title(f"{film.kind}: {film.probability:.3f}", fontsize=10, color=COLOURS[film.kind])
    return figure


# %%
best = comparison.loc[comparison.roc_auc.fillna(-1).idxmax(), "model"]
shown = telling_films(tests[best], threshold)
write_csv(stage.path("metrics/evaluation_errors.csv"), pd.concat([telling_films(table, threshold, 10).assign(model=name) for name, table in tests.items()]))
if root: save_figure(stage, plot_films(shown, root), "evaluation_errors",
    f"{title(best)}: its most confident mistakes and its least certain films, with its probability of pneumonia.",
    f"{len(shown)} {judged} films: normal ones called pneumonia, pneumonia called normal, and films nearest to the threshold, each with its kind and probability.")
shown[["why", "path", "probability", "films_of_patient"]].rename(columns=dict(films_of_patient="films of the patient")).style.hide(axis="index").format({"probability": "{:.4f}"})

# %% [markdown]
# Mistakes that lie close together in the order of the numbers probably have a cause in common. [The figure](#fig-evaluation_numbers) shows what the model with the highest AUROC says of each film along the patient numbers of its series: above the dashed line it calls pneumonia.

# %%
answers = predictions[best].reset_index(drop=True)
figure = plot_along_numbers(answers, pd.Series(logit(answers.probability)), "log odds of pneumonia")
for ax in figure.axes: ax.axhline(logit(threshold), color="black", lw=.8, ls="--")
save_figure(stage, figure, "evaluation_numbers", f"{title(best)}: log odds of pneumonia along the patient numbers of each series; dashed, the threshold.",
            f"Scatter of the log odds that {title(best)} gives each film against the patient number, a panel for each naming series, with a running median. The numbers are in predictions/{best}.csv.")


# %% [markdown]
# ## Other seeds
#
# One training is one draw: other initial weights, another order of films, perhaps another fold left out. Where a run trained several members of a kind, each is judged here as a model of its own,
# and so is each seed's ensemble, with the threshold that Youden's rule chose on validation; for each of the three rules the table has the thresholds and the accuracy there. Members that learned from all folds have as validation the answers of their own seed's networks that left a fold out. The mean says what to expect of one more training, the range how much luck is in it.

# %%
#| export
def load_members(stage: Stage) -> dict[str, pd.DataFrame]: # name → path, split, label, probability; empty where there are none
    "Predictions of trainings that differ by seed, or seed and fold, alone: `KIND_sSEED…csv`."
    return {f.stem: pd.read_csv(f).assign(kind=lambda t: t.path.map(film_kind)) for f in sorted(stage.path("predictions/members").glob("*.csv"))}

def member_table(
    members: dict[str, pd.DataFrame], # from `load_members`
    split: str,                       # that is judged
    threshold: float = .5,            # the run's own
) -> pd.DataFrame: # a row a member
    "Measures of each member on the judged films at the threshold that Youden's rule chose on its validation films; threshold and accuracy for each rule, and accuracy at the run's own threshold."
    rows = []
    for name, table in sorted(members.items(), key=lambda m: (study_order(m[0].partition("_s")[0]), m[0])):
        own = table[table.split == split]
        validation = to_choose_by(table, own)
        if min(own.label.nunique(), validation.label.nunique()) < 2: continue
        chosen = {rule: choose(validation) for rule, choose in RULES.items()}
        value = chosen["Youden"]
        found, called = all_measures(own, value), own.probability >= value
        rows.append(dict(member=name, kind=name.partition("_s")[0], **{f"threshold_{rule}": v for rule, v in chosen.items()}, **{f"accuracy_{rule}": float(all_measures(own, v)["accuracy"][0]) for rule, v in chosen.items()},
                         validation_roc_auc=float(all_measures(validation, value)["roc_auc"][0]), **{m: float(found[m][0]) for m in ("roc_auc", "sensitivity", "specificity", "brier")}, accuracy_fixed=float(all_measures(own, threshold)["accuracy"][0]),
                         bacteria=float(called[own.kind == "bacteria"].mean()), virus=float(called[own.kind == "virus"].mean()), ece=calibration_error(own.label, own.probability)))
    return pd.DataFrame(rows)

def spread_table(table: pd.DataFrame) -> pd.DataFrame: # text: a row a kind
    "Mean and range over the members of each kind, and of each size where they see several."
    columns = {"validation_roc_auc": "AUROC on validation", "roc_auc": "AUROC", "accuracy_fixed": "accuracy at the run's threshold", **{f"{what}_{rule}": f"{what}, {rule}" for what in ("threshold", "accuracy") for rule in RULES}, "sensitivity": "sensitivity", "specificity": "specificity", "bacteria": "sensitivity, bacterial", "virus": "sensitivity, viral", "ece": "ECE"}
    text = lambda v: f"{v.mean():.4f} ({v.min():.3f}–{v.max():.3f})"
    kinds = table.kind.map(title) + (", " + table.member.str.extract(r"_(\d+)px$")[0] + " pixels").fillna("")  # networks that see other sizes are of another kind
    return pd.DataFrame([{"": kind, "trained": len(own), **{words: text(own[c]) for c, words in columns.items()}} for kind, own in table.groupby(kinds, sort=False)])


# %%
members = member_table(load_members(stage), judged, threshold)
write_csv(stage.path("metrics/evaluation_members.csv"), members)
if len(members): display(spread_table(members).set_index("").T.style.set_caption("Mean and range over trainings, each at the threshold that Youden's rule chose on its validation unless another is named"))
else: print("No model of this run was trained more than once.")

# %% [markdown]
# ## How often test was looked at
#
# A test set is used up a little with each look. This run's record counts them:

# %%
looks = pd.DataFrame(read_provenance(stage.folder).get("test_looks", []), columns=["stage", "at", "time"])
print(f"{len(looks)} look(s) at the test films in this run")
looks.assign(time=looks.time.str[:16].str.replace("T", " ")).rename(columns=dict(time="time (UTC)")).style.hide(axis="index")


# %% [markdown]
# ## What it comes to

# %%
#| export
def evaluation_findings(
    comparison: pd.DataFrame,  # from `compare_models`
    pairs: pd.DataFrame,       # from `paired_tests`
    subgroups: pd.DataFrame,   # from `subgroup_table`
    calibration: pd.DataFrame, # from `calibration_table`
) -> str: # markdown
    "What the evaluation found, in words."
    best = comparison.loc[comparison.roc_auc.fillna(-1).idxmax()]
    positives = best.fn + best.tp
    majority = max(positives, best.films - positives) / best.films
    lines = [f"- The highest AUROC is **{title(best.model)}'s, {best.roc_auc:.3f}** ({best.roc_auc_low:.3f} to {best.roc_auc_high:.3f}). At threshold "
             f"{best.threshold:g} it finds {best.tp} of {positives} pneumonia films and calls {best.fp} of {best.films - positives} normal ones sick."
             + (f" Being the highest of {len(comparison)} on these very films, it is a little too kind." if len(comparison) > 1 else "")]
    lines += [f"- {title(r.model)}, accuracy {r.accuracy:.3f}, does not beat calling every film {CLASS_NAMES[int(2 * positives >= best.films)].lower()} ({majority:.3f})."
              for r in comparison.itertuples() if r.accuracy <= majority]
    lines += difference_findings(pairs)
    both = subgroups[(subgroups.model == best.model) & (subgroups["by"] == "kind")].set_index("group")
    if {"bacteria", "virus"} <= set(both.index): lines.append(f"- {title(best.model)} finds {both.rate['bacteria']:.1%} of bacterial and "
        f"{both.rate['virus']:.1%} of viral pneumonia ({both.films['bacteria']} and {both.films['virus']} films).")
    if best.chosen_threshold == best.chosen_threshold: lines.append(f"- A threshold of {best.chosen_threshold:.3f}, chosen on validation, takes {title(best.model)} from accuracy {best.accuracy:.3f} to {best.chosen_accuracy:.3f}.")
    share, after = positives / best.films, calibration[(calibration.model == best.model) & (calibration.when == "after")].iloc[0]
    lines.append(f"- Its probabilities have a Brier score of {best.brier:.3f}, where giving every film the prevalence would score {share * (1 - share):.3f}, and an expected calibration error of {after.ece:.3f}.")
    return "\n".join(lines)

def difference_findings(pairs: pd.DataFrame) -> list[str]: # markdown lines
    "Which differences between models the films support."
    if pairs.empty: return []
    either = pairs[(pairs.p_calls_holm < .05) | (pairs.p_auroc_holm < .05)]
    how = lambda r: " and ".join(([f"in AUROC ({r.auroc_difference:+.3f}, p {p_text(r.p_auroc_holm)})"] if r.p_auroc_holm < .05 else [])
                                 + ([f"in calls ({r.only_first} films only the first has right, {r.only_second} only the second, p {p_text(r.p_calls_holm)})"] if r.p_calls_holm < .05 else []))
    lines = [f"- The films support a difference between {title(r['first'])} and {title(r['second'])} {how(r)}." for _, r in either.iterrows()] if len(either) <= 6 else \
            [f"- {len(either)} of {len(pairs)} pairs of models differ by more than chance, in AUROC or in calls (table above)."]
    if same := len(pairs) - len(either): lines.append(f"- {same} of {len(pairs)} pairs of models cannot be told apart on these films.")
    return lines


# %%
display(Markdown(evaluation_findings(comparison, pairs, subgroups, calibration)))
write_json(stage.path("metrics/evaluation.json"), dict(threshold=threshold, judged=judged, comparison=comparison.to_dict("records"), pairs=pairs.to_dict("records"),
           calibration=calibration.to_dict("records"), members=members.to_dict("records")))
record = finish(stage)
