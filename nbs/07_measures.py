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
# # Measures
#
# > How good a model's probabilities are, how sure that is, and whether two models differ

# %%
#| default_exp measures

# %%
#| export
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import betainccinv, betaincinv, expit, ndtr

from pneumo_nb.run import StudyError, read_table, rng_for
from pneumo_nb.style import counted

# %%
#| hide
import matplotlib.pyplot as plt
import statsmodels.api as sm
from fastcore.test import test_close, test_eq, test_fail
from scipy.stats import binomtest
from sklearn import metrics as sk
from pneumo_nb.style import COLOURS, plot_style, show_figure
plot_style()


# %% [markdown]
# All statistics of the study are in this notebook. They start from tables with one row a film: its true
# `label` (0 normal, 1 pneumonia), the model's `probability` of pneumonia, and the `patient_id`. They need
# NumPy and SciPy only. Where scikit-learn or statsmodels have the same measure, it serves here as a check.
#
# ## Odds and temperature
#
# The logit is the logarithm of the odds. Probabilities are kept 6e-8 below 1, where single precision ends, so
# that the logit stays finite.

# %%
#| export
def logit(p): # (n,) probabilities → (n,) log odds, finite
    "Logarithm of the odds."
    p = np.clip(np.asarray(p, float), 1e-30, 1 - 6e-8)
    return np.log(p / (1 - p))


# %%
test_close(logit([.5, .9]), [0, np.log(9)])
assert np.isfinite(logit([0, 1])).all()


# %% [markdown]
# A network trained until its loss stops falling tends to be too sure of itself. With smoothed targets it may
# not be sure enough. **Temperature scaling** (Guo et al., 2017; arXiv:1706.04599) divides the logit by one
# number. It changes neither the order of films nor a call at .5, only the distance of a probability from .5.

# %%
#| export
def scaled_probability(
    p,                  # (n,) probabilities
    temperature: float, # above 0; more than 1 brings probabilities nearer to .5
) -> np.ndarray: # (n,)
    "Probabilities with their log odds divided by the temperature."
    return expit(logit(p) / temperature)


# %%
test_close(scaled_probability([.5, .9], 2), [.5, .75])   # odds of 9 become odds of 3


# %% [markdown]
# The number is fitted on validation films: it is the one under which their labels are most likely. Where all
# films lie on the right side of .5, any smaller temperature would do better. Then there is none to find, and
# the temperature stays 1.

# %%
#| export
def fit_temperature(
    labels: np.ndarray, # (n,) 0 or 1, of validation films
    p: np.ndarray,      # (n,) predicted probability of pneumonia
) -> float: # between 1/20 and 20; 1 with one class, or with no film on the wrong side of .5
    "The temperature under which the labels are most likely."
    from scipy.optimize import minimize_scalar
    if len(set(labels)) < 2: return 1.
    signed = np.where(np.asarray(labels) == 1, 1, -1) * logit(p)
    if signed.min() > 0: return 1.
    loss = lambda log_t: np.logaddexp(0, -signed / np.exp(log_t)).mean()
    return float(np.exp(minimize_scalar(loss, bounds=(-np.log(20), np.log(20)), method="bounded").x))


# %% [markdown]
# Labels are drawn here with known chances, and the logits are then made three times too large. The
# temperature finds the three:

# %%
rng = np.random.default_rng(0)
true_logit = rng.normal(0, 2, 20_000)
drawn = (rng.random(20_000) < expit(true_logit)).astype(int)
test_close(fit_temperature(drawn, expit(3 * true_logit)), 3, eps=.15)
test_eq(fit_temperature(np.ones(3, int), np.full(3, .9)), 1.)
test_eq(fit_temperature(np.array([0, 1]), np.array([.4, .6])), 1.)


# %% [markdown]
# ## Counting right and wrong
#
# A film is *called* pneumonia when its probability reaches the threshold. Four counts follow: true negatives
# (TN), false positives (FP), false negatives (FN) and true positives (TP).
#
# | measure | formula | in words |
# | --- | --- | --- |
# | sensitivity, recall of pneumonia | TP / (TP + FN) | pneumonia films that are called so |
# | specificity, recall of normal | TN / (TN + FP) | normal films that are called normal |
# | PPV, precision of pneumonia | TP / (TP + FP) | pneumonia calls that are right |
# | NPV, precision of normal | TN / (TN + FN) | normal calls that are right |
# | F1 | 2 TP / (2 TP + FP + FN) | harmonic mean of precision and recall |
# | accuracy | (TP + TN) / all | films that are called right |
# | balanced accuracy | mean of sensitivity and specificity | accuracy with classes of equal weight |
# | MCC | Matthews' correlation coefficient | 1 perfect, 0 guessing |
#
# All of them count films, so a child with five films counts five times. Normal means that readers saw no
# pneumonia, not that the child was well. Accuracy depends on how many films show pneumonia; sensitivity and
# specificity do not. A share of nothing, such as the PPV without any pneumonia call, is undefined: NaN.

# %%
#| export
def _ratio(
    a, # number or array
    b, # number or array
) -> np.ndarray: # a / b, NaN where b is 0
    "Division that leaves what is undefined undefined."
    a, b = np.asarray(a, float), np.asarray(b, float)
    return np.divide(a, b, out=np.full(np.broadcast(a, b).shape, np.nan), where=b != 0)


# %%
#| export
def count_measures(
    tn, # normal films called normal: a number, or an array of counts, weighted or not
    fp, # normal films called pneumonia
    fn, # pneumonia films called normal
    tp, # pneumonia films called pneumonia
) -> dict: # measure → array
    "The measures that follow from a confusion matrix; an MCC without spread is 0."
    tn, fp, fn, tp = (np.asarray(c, float) for c in (tn, fp, fn, tp))
    sensitivity, specificity = _ratio(tp, tp + fn), _ratio(tn, tn + fp)
    root = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return dict(
        accuracy=_ratio(tp + tn, tp + tn + fp + fn),
        balanced_accuracy=(sensitivity + specificity) / 2,
        sensitivity=sensitivity, specificity=specificity,
        ppv=_ratio(tp, tp + fp), npv=_ratio(tn, tn + fn),
        f1_normal=_ratio(2 * tn, 2 * tn + fp + fn), f1_pneumonia=_ratio(2 * tp, 2 * tp + fp + fn),
        mcc=np.where(root == 0, 0., _ratio(tp * tn - fp * fn, root)))


# %%
counts = count_measures(tn=8, fp=2, fn=1, tp=9)
test_close([counts[m] for m in ("sensitivity", "specificity", "ppv", "accuracy")], [.9, .8, 9 / 11, .85])
assert np.isnan(count_measures(tn=8, fp=0, fn=2, tp=0)["ppv"])   # no call, so none is right or wrong


# %% [markdown]
# ## Ranking
#
# **AUROC** needs no threshold: it is the chance that a random pneumonia film gets a higher probability than a
# random normal one, ties counting half. **Average precision** sums up the precision-recall curve; its
# baseline is the share of pneumonia.
#
# Both follow from counts from the highest probability down. Films may carry weights, one row of weights for
# each draw of a bootstrap, so that one sort serves all draws.

# %%
#| export
def _counts_down(
    label: np.ndarray,       # (n,) 0 or 1
    probability: np.ndarray, # (n,)
    weights: np.ndarray,     # (draws, n) how often each film counts
) -> tuple: # (k,) probabilities, falling; (draws, k) pneumonia films, and normal films, that have each
    "How many films of each class have each probability; equal probabilities go together."
    order = np.argsort(-probability, kind="stable")
    falling = probability[order]
    starts = np.flatnonzero(np.r_[True, np.diff(falling) != 0])
    count = lambda c: np.add.reduceat(weights[:, order] * (label[order] == c), starts, axis=1, dtype=float)
    return falling[starts], count(1), count(0)


# %%
#| export
def _rank_measures(
    label: np.ndarray,       # (n,) 0 or 1
    probability: np.ndarray, # (n,)
    weights: np.ndarray,     # (draws, n)
) -> dict: # roc_auc and average_precision: (draws,)
    "AUROC and average precision, as scikit-learn defines them."
    _, pneumonia, normal = _counts_down(label, probability, weights)
    tp, fp = pneumonia.cumsum(axis=1), normal.cumsum(axis=1)
    precision = np.nan_to_num(_ratio(tp, tp + fp))
    right_pairs = (normal * (tp - pneumonia / 2)).sum(axis=1)
    return dict(roc_auc=_ratio(right_pairs, tp[:, -1] * fp[:, -1]),
                average_precision=_ratio((pneumonia * precision).sum(axis=1), tp[:, -1]))


# %%
#| export
def auroc(
    label,        # (n,) 0 or 1
    score,        # (n,) higher for pneumonia
    weights=None, # (n,) how often each film counts; None: once
) -> float: # NaN with one class
    "The chance that a random pneumonia film scores higher than a random normal one, ties half."
    label, score = np.asarray(label), np.asarray(score, float)
    weights = np.ones(len(label)) if weights is None else np.asarray(weights)
    return float(_rank_measures(label, score, weights[None])["roc_auc"][0])


# %%
test_eq(auroc([0, 0, 1], [.1, .9, .2]), .5)      # one of two pairs is in the right order
test_eq(auroc([0, 0, 1], [.1, .9, .2], [3, 1, 1]), .75)
assert np.isnan(auroc([1, 1], [.2, .3]))


# %% [markdown]
# Scores of different networks may lie on different scales. `grouped_auroc` compares only films of the same
# group, so whatever lies between groups does not count.

# %%
#| export
def grouped_auroc(
    groups: np.ndarray, # (n,) only films of the same group are compared
    labels: np.ndarray, # (n,) 0 or 1
    scores: np.ndarray, # (n,)
    weights=None,       # (n,) how often each film counts; None: once
) -> float: # NaN if no group has both classes
    "AUROC over all pairs of a normal and a pneumonia film of the same group."
    weights, parts = np.ones(len(labels)) if weights is None else weights, []
    for group in np.unique(groups):
        rows = groups == group
        pairs = weights[rows & (labels == 0)].sum() * weights[rows & (labels == 1)].sum()
        if pairs: parts.append((pairs, auroc(labels[rows], scores[rows], weights[rows])))
    if not parts: return float("nan")
    pairs, aurocs = zip(*parts)
    return float(np.average(aurocs, weights=pairs))


# %%
networks, labels, scores = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), np.array([1, 2, 8, 9])
test_eq(grouped_auroc(networks, labels, scores), 1)
test_eq(auroc(labels, scores), .75)


# %% [markdown]
# ## What a table reports
#
# `classification_metrics` is the study's summary of one model. It refuses logits and labels of another kind
# rather than measure nonsense.

# %%
#| export
def check_predictions(
    y_true, # (n,) labels
    y_prob, # (n,) probabilities
) -> tuple[np.ndarray, np.ndarray]: # labels int (n,), probabilities float (n,)
    "Refuse labels other than 0 and 1 and probabilities outside [0, 1]."
    y_true, y_prob = np.asarray(y_true), np.asarray(y_prob, float)
    if y_true.ndim != 1 or y_true.shape != y_prob.shape or len(y_true) == 0: raise StudyError(
        "Expected as many labels as probabilities, at least one, in one dimension; "
        f"found shapes {y_true.shape} and {y_prob.shape}.")
    if not np.isin(y_true, (0, 1)).all(): raise StudyError(
        "Expected labels 0 (normal) and 1 (pneumonia), "
        f"found {sorted(set(y_true.tolist()) - {0, 1})[:5]}.")
    if not ((y_prob >= 0) & (y_prob <= 1)).all(): raise StudyError(
        f"Expected probabilities between 0 and 1, found {y_prob.min()} to {y_prob.max()}; "
        "give the sigmoid's output, not logits.")
    return y_true.astype(int), y_prob


# %%
test_fail(lambda: check_predictions([0, 1], [-3.2, 4.1]), contains="not logits")
test_fail(lambda: check_predictions([0, 1], [.5]), contains="shapes (2,) and (1,)")
test_fail(lambda: check_predictions([0, 2], [.5, .5]), contains="found [2]")


# %% [markdown]
# Answers kept in a file are read with the same care, whoever wrote them.

# %%
#| export
def read_predictions(
    file: Path,
    keys: tuple = (), # columns that it has beside those of all answers, such as the member that answers
) -> pd.DataFrame: # path, split, label, probability, `keys`, maybe uncalibrated
    "Answers from a file; a table that cannot be judged is refused."
    table = read_table(file, [*keys, "path", "split", "label", "probability"], ["label", "probability"])
    copies = table.duplicated([*keys, "split", "path"]).sum()
    if copies: raise StudyError(
        f"Expected each film once in {file.name}, found {copies} again; remove the copies.")
    for column in ("probability", "uncalibrated"):
        try: check_predictions(table.label, table.get(column, table.probability))
        except StudyError as e: raise StudyError(f"{file} cannot be judged. {e}") from None
    return table


# %%
#| export
def _confusion(
    label: np.ndarray,       # (n,) 0 or 1
    probability: np.ndarray, # (n,)
    threshold: float,
    weights: np.ndarray,     # (n,) or (draws, n)
) -> list: # TN, FP, FN, TP, each a number or (draws,)
    "Counts of films by class and call."
    called = probability >= threshold
    pairs = ((0, False), (0, True), (1, False), (1, True))
    return [weights @ ((called == c) & (label == l)) for l, c in pairs]


# %%
#| export
def classification_metrics(
    y_true,          # (n,) labels, 0 normal, 1 pneumonia
    y_prob,          # (n,) predicted probability of pneumonia, in [0, 1]
    threshold: float = .5, # a film is called pneumonia if its probability is at least this
) -> dict: # accuracy, roc_auc, confusion_matrix [[TN, FP], [FN, TP]], and precision, recall, f1 of each class
    "What the study reports of a model; what is undefined is NaN."
    y_true, y_prob = check_predictions(y_true, y_prob)
    if not 0 <= threshold <= 1:
        raise StudyError(f"Expected a threshold between 0 and 1, found {threshold}.")
    counts = _confusion(y_true, y_prob, threshold, np.ones(len(y_true), int))
    measures = {m: float(v) for m, v in count_measures(*counts).items()}
    return dict(
        accuracy=measures["accuracy"],
        precision_normal=measures["npv"], precision_pneumonia=measures["ppv"],
        recall_normal=measures["specificity"], recall_pneumonia=measures["sensitivity"],
        f1_normal=measures["f1_normal"], f1_pneumonia=measures["f1_pneumonia"],
        roc_auc=auroc(y_true, y_prob), confusion_matrix=np.reshape(counts, (2, 2)))


# %% [markdown]
# The reference study's MLP called 170 of 234 normal test films normal, and 306 of 390 pneumonia films sick.
# The rest of its table follows from these counts, to the last digit:

# %%
label, called = (np.repeat(values, [170, 64, 84, 306]) for values in ([0, 0, 1, 1], [0., 1., 0., 1.]))
reference = classification_metrics(label, called)
test_eq(reference["confusion_matrix"], [[170, 64], [84, 306]])
published = dict(
    accuracy=.762821, precision_normal=.669291, precision_pneumonia=.827027, recall_normal=.726496,
    recall_pneumonia=.784615, f1_normal=.696721, f1_pneumonia=.805263)
test_eq({k: round(reference[k], 6) for k in published}, published)

# %% [markdown]
# ## Every measure at once
#
# A bootstrap needs every measure a thousand times. `all_measures` computes them for all draws together. The
# **Brier score** among them is the mean squared error of the probability.

# %%
#| export
MEASURES = ("roc_auc", "average_precision", "accuracy", "balanced_accuracy", "sensitivity", "specificity",
            "ppv", "npv", "f1_normal", "f1_pneumonia", "mcc", "brier")

def all_measures(
    table: pd.DataFrame, # label, probability
    threshold: float,
    weights: np.ndarray | None = None, # (draws, n) how often each film counts; None: each once
) -> dict[str, np.ndarray]: # measure → (draws,)
    "Every measure of MEASURES for each draw."
    label, probability = table.label.to_numpy(), table.probability.to_numpy()
    weights = np.ones((1, len(table)), int) if weights is None else weights
    counts = _confusion(label, probability, threshold, weights)
    squared_errors = weights @ (probability - label) ** 2
    brier = _ratio(squared_errors, weights.sum(axis=1))
    return _rank_measures(label, probability, weights) | count_measures(*counts) | dict(brier=brier)


# %% [markdown]
# scikit-learn gives the same on made-up films with many ties and weights:

# %%
rng = np.random.default_rng(0)
films = pd.DataFrame(dict(label=rng.integers(0, 2, 60), probability=rng.integers(0, 9, 60) / 8,
                          patient_id=rng.integers(0, 20, 60)))
weights = rng.integers(0, 4, (1, 60))
measured, calls = all_measures(films, .5, weights), films.probability >= .5
test_eq(tuple(measured), MEASURES)
weighted = lambda measure, answers, **more: measure(films.label, answers, sample_weight=weights[0], **more)
test_close(measured["roc_auc"][0], weighted(sk.roc_auc_score, films.probability), eps=1e-12)
test_close(measured["mcc"][0], weighted(sk.matthews_corrcoef, calls), eps=1e-12)
test_close(measured["npv"][0], weighted(sk.precision_score, calls, pos_label=0), eps=1e-12)

# %%
#| hide
same = dict(
    average_precision=weighted(sk.average_precision_score, films.probability),
    brier=weighted(sk.brier_score_loss, films.probability),
    accuracy=weighted(sk.accuracy_score, calls),
    balanced_accuracy=weighted(sk.balanced_accuracy_score, calls),
    sensitivity=weighted(sk.recall_score, calls), specificity=weighted(sk.recall_score, calls, pos_label=0),
    f1_pneumonia=weighted(sk.f1_score, calls), f1_normal=weighted(sk.f1_score, calls, pos_label=0),
    ppv=weighted(sk.precision_score, calls))
for measure, value in same.items(): test_close(measured[measure][0], value, eps=1e-12)


# %% [markdown]
# ## How sure is a number?
#
# Another week in the hospital would have brought other children. The **bootstrap** (Efron, 1979) plays that
# through: it draws as many patients as there are, with replacement, and computes the measure on their films.
# The middle 95 % of the results are the interval. Patients are drawn, not films, because the films of one
# child are alike and say less than films of as many children. What an interval does not hold is the chance of
# training: another seed gives another network. Near the end of a scale the middle 95 % are too short. For the
# AUROC, where that matters most, another interval is used and compared below.

# %%
#| export
def patient_draws(
    patients,          # (n,) whose film each is
    draws: int,
    seed: int,
    at_once: int = 5_000_000, # numbers held in memory together
): # yields (b, n) weights, `draws` rows in all
    "How often each film occurs when patients are redrawn with replacement."
    codes, names = pd.factorize(np.asarray(patients))
    rng, count = rng_for(seed, "interval"), len(names)
    step = max(1, at_once // max(len(codes), 1))
    for start in range(0, draws, step):
        yield rng.multinomial(count, np.full(count, 1 / count), size=min(step, draws - start))[:, codes]


# %%
weights = next(patient_draws(["a", "a", "b", "c"], draws=4, seed=1))
test_eq(weights[:, 0], weights[:, 1])                    # films of one patient come together
test_eq(weights[:, 1:].sum(axis=1), [3, 3, 3, 3])        # three patients each time
weights


# %%
#| export
def patient_interval(
    images: pd.DataFrame, # label, patient_id
    scores: np.ndarray,   # (n,)
    measure,              # function of labels, scores and weights; a draw in which it is NaN does not count
    seed: int,
    draws: int = 500,
) -> tuple[float, float]: # 2.5 and 97.5 percentiles; NaN where no draw has both classes
    "Bootstrap interval of one measure over redrawn patients."
    labels = images.label.to_numpy()
    weights = (w for block in patient_draws(images.patient_id, draws, seed) for w in block)
    values = [measure(labels, scores, w) for w in weights if len(set(labels[w > 0])) == 2]
    if not values: return float("nan"), float("nan")
    return tuple(np.nanpercentile(values, [2.5, 97.5]).tolist())


# %% [markdown]
# Every film three times under the same patient tells nothing new, and the interval stays:

# %%
thrice = pd.concat([films] * 3, ignore_index=True)
low, high = patient_interval(films, films.probability.to_numpy(), auroc, seed=1, draws=200)
test_close(patient_interval(thrice, thrice.probability.to_numpy(), auroc, seed=1, draws=200), (low, high))

# %% [markdown]
# [The figure](#fig-measures_patients) shows what happens if films count as patients. Forty patients get one,
# two, four or eight films each, and all films of a patient look alike. Redrawn by patient, the interval stays
# as wide as it is for one film each. Redrawn by film, it shrinks without any new patient, and promises too
# much.

# %%
rng = np.random.default_rng(3)
patients = pd.DataFrame(dict(label=np.repeat([0, 1], 20), patient_id=range(40)))
patients["score"] = patients.label + rng.normal(size=40)
copies = [1, 2, 4, 8]

def limits(by_patient): # (4, 2)
    "Intervals of the AUROC where each patient has 1, 2, 4 and 8 films."
    tables = [patients.loc[np.repeat(range(40), n)] for n in copies]
    if not by_patient: tables = [t.assign(patient_id=range(len(t))) for t in tables]
    return np.array([patient_interval(t, t.score.to_numpy(), auroc, seed=1, draws=200) for t in tables])

by_patient, by_film = limits(True), limits(False)
test_close(by_patient, by_patient[[0, 0, 0, 0]], eps=1e-9)
assert np.diff(by_film)[3] < .5 * np.diff(by_film)[0]

# %%
figure, ax = plt.subplots(figsize=(6.5, 2.8))
ax.vlines(np.array(copies) - .1, *by_patient.T, color=COLOURS["normal"], lw=4, label="redrawn by patient")
ax.vlines(np.array(copies) + .1, *by_film.T, color=COLOURS["bacteria"], lw=4, label="redrawn by film")
ax.set(xlabel="films of each patient, all alike", ylabel="AUROC, 95 % interval", xticks=copies)
ax.legend(loc="center left", bbox_to_anchor=(1, .5), fontsize=9)
png = show_figure(figure, "measures_patients", "Intervals of one AUROC, patients or films redrawn.",
                  "Intervals against the number of films of each patient. They stay equally wide when "
                  "patients are redrawn, and narrow when films are.")

# %% [markdown]
# ## Intervals of proportions
#
# Where films are independent, a proportion has an interval of its own. **Wilson**'s (1927) is close to 95 %
# on average. **Clopper and Pearson**'s (1934) is exact: it never covers less, so it is wider.

# %%
#| export
_QUANTILE = 1.959964  # of the normal distribution: 95 % lie within so many standard deviations

def _wilson(count: int, n: int) -> tuple[float, float]:
    "Wilson's interval of a proportion."
    share, spread = count / n, _QUANTILE ** 2 / n
    middle = (share + spread / 2) / (1 + spread)
    half = _QUANTILE * np.sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    return float(max(middle - half, 0)), float(min(middle + half, 1))

def _clopper_pearson(count: int, n: int) -> tuple[float, float]:
    "The exact interval of a proportion, by quantiles of the beta distribution."
    low = betaincinv(count, n - count + 1, .025) if count else 0
    high = betainccinv(count + 1, n - count, .025) if count < n else 1
    return float(low), float(high)


# %%
#| export
def proportion_interval(
    count: int, # films (or patients) for which it holds
    n: int,     # of so many, at least 1
    method: str = "wilson", # or "exact", after Clopper and Pearson
) -> tuple[float, float]: # low, high
    "95 % interval of a proportion of independent observations."
    methods = dict(wilson=_wilson, exact=_clopper_pearson)
    if method not in methods:
        raise StudyError(f"Expected a method in {', '.join(methods)}, found {method!r}.")
    if not 0 <= count <= n or n < 1:
        raise StudyError(f"Expected a count from 0 to n, found {count} of {n}.")
    return methods[method](count, n)


# %%
test_close(proportion_interval(10, 10, "exact"), (.025 ** .1, 1))   # below, ten of ten are too unlikely
for method in ("wilson", "exact"):
    for count in (0, 3, 20):
        expected = binomtest(count, 20).proportion_ci(method=method)
        test_close(proportion_interval(count, 20, method), expected, eps=1e-7)
test_fail(lambda: proportion_interval(3, 2), contains="found 3 of 2")
test_fail(lambda: proportion_interval(1, 2, "wald"), contains="wilson, exact")


# %% [markdown]
# ## The AUROC without drawing
#
# **DeLong** et al. (1988) give the AUROC an interval by a formula. A film's *placement* is the share of films
# of the other class that it is ranked right against. The AUROC is the mean of the placements, and their
# scatter gives its variance. For two models on the same films it gives the variance of the difference, too.

# %%
#| export
def placements(
    label: np.ndarray,       # (n,) 0 or 1, both present
    probability: np.ndarray, # (n,)
) -> np.ndarray: # (n,) share of the other class that each film is on the right side of, ties half
    "DeLong's structural components, by ranks (Sun and Xu, 2014)."
    from scipy.stats import rankdata
    places, ranks = np.empty(len(label)), rankdata(probability)
    for c in (0, 1):
        others_below = ranks[label == c] - rankdata(probability[label == c])
        share = others_below / (label != c).sum()
        places[label == c] = share if c else 1 - share
    return places


# %%
test_eq(placements(np.array([0, 0, 1]), np.array([.1, .9, .2])), [1, 0, .5])


# %% [markdown]
# Where patients have several films, their placements are summed first (Obuchowski, 1997). So here too it is
# patients that count. The scatter is taken over the patients of each class, with the correction I / (I - 1)
# for I of them. Where patients have films of both classes, the two sums vary together, over all patients.

# %%
#| export
def _patient_covariance(
    label: np.ndarray,   # (n,) 0 or 1
    scatter: np.ndarray, # (m, n) what each film adds to the AUROC of m models
    patients,            # (n,)
) -> np.ndarray: # (m, m); NaN with one patient of a class
    "How AUROCs vary together, patients being independent."
    codes, names = pd.factorize(np.asarray(patients))
    correction = lambda count: count / (count - 1) if count > 1 else float("nan")
    sums, covariance = [], 0
    for c in (0, 1):
        rows = label == c
        sums.append(np.stack([np.bincount(codes[rows], row[rows], len(names)) for row in scatter]))
        covariance = covariance + correction(len(np.unique(codes[rows]))) * sums[c] @ sums[c].T
    across = sums[0] @ sums[1].T
    return covariance + correction(len(names)) * (across + across.T)


# %%
#| export
def delong(
    label: np.ndarray,         # (n,) 0 or 1, both present
    probabilities: np.ndarray, # (m, n) of m models on the same films
    patients,                  # (n,) whose film each is; each its own for DeLong's own formula
) -> tuple[np.ndarray, np.ndarray]: # (m,) AUROCs; (m, m) their covariance, NaN with one patient of a class
    "AUROCs of several models and how they vary together, patients being independent."
    places = np.stack([placements(label, p) for p in probabilities])
    aucs = places[:, label == 1].mean(axis=1)
    counts = np.where(label == 1, (label == 1).sum(), (label == 0).sum())
    scatter = (places - aucs[:, None]) / counts
    return aucs, _patient_covariance(label, scatter, patients)


# %% [markdown]
# Against the definition, all pairs of a pneumonia and a normal film one by one:

# %%
label, probabilities = np.repeat([0, 1], [13, 17]), rng.integers(0, 12, (2, 30)) / 11
aucs, covariance = delong(label, probabilities, range(30))
pneumonia, normal = probabilities[:, label == 1, None], probabilities[:, None, label == 0]
pairs = (pneumonia > normal) + .5 * (pneumonia == normal)
test_close(aucs, pairs.mean(axis=(1, 2)), eps=1e-12)
test_close(covariance, np.cov(pairs.mean(axis=2)) / 17 + np.cov(pairs.mean(axis=1)) / 13, eps=1e-12)

# %%
twice = delong(np.tile(label, 2), np.tile(probabilities, 2), np.tile(range(30), 2))
test_close(twice[1], covariance, eps=1e-12)      # every film twice tells nothing new
assert np.isnan(delong(np.array([0, 0, 1]), np.array([[.1, .6, .4]]), range(3))[1]).all()   # one sick patient


# %% [markdown]
# The interval is taken on the logit, which keeps it below 1. There is none where a class has one patient, so
# that nothing can scatter, and none where all or no pairs are in order.

# %%
#| export
def delong_interval(
    auc: float,
    variance: float, # of the AUROC
) -> tuple[float, float]: # low, high; NaN where nothing varies
    "95 % interval of an AUROC, on the logit."
    if not (0 < auc < 1 and variance > 1e-24): return float("nan"), float("nan")
    half = _QUANTILE * np.sqrt(variance) / (auc * (1 - auc))
    return tuple(expit(logit(auc) + np.array([-half, half])).tolist())


# %%
low, high = delong_interval(.98, .01 ** 2)
assert low < .98 - 2 * .01 < .98 < high < 1      # longer below than above
test_close(np.diff(logit([low, .98, high]), 2), 0, eps=1e-9)
for auc, variance in ((1, 0), (.7, float("nan")), (.5, 0)):
    assert np.isnan(delong_interval(auc, variance)).all()


# %% [markdown]
# Where only films of a group are compared with one another, such as those that one network judged, a group's
# part counts as much as it has pairs. A patient may have films in several groups.

# %%
#| export
def _grouped_delong(
    groups: np.ndarray,      # (n,)
    label: np.ndarray,       # (n,) 0 or 1
    probability: np.ndarray, # (n,)
    patients,                # (n,)
) -> tuple[float, float]: # as `grouped_auroc`, its variance; 0 and NaN if no group has both classes
    "AUROC over all pairs of the same group, and how it varies, the shares of the groups being fixed."
    each = [groups == group for group in np.unique(groups)]
    pairs = np.array([(label[rows] == 0).sum() * (label[rows] == 1).sum() for rows in each])
    if not pairs.any(): return 0., float("nan")
    auc, scatter = 0., np.zeros((1, len(label)))
    for rows, share in zip(each, pairs / pairs.sum()):
        if not share: continue
        places, sick = placements(label[rows], probability[rows]), label[rows] == 1
        value = places[sick].mean()
        counts = np.where(sick, sick.sum(), (~sick).sum())
        auc, scatter[0, rows] = auc + share * value, share * (places - value) / counts
    return auc, float(_patient_covariance(label, scatter, patients)[0, 0])


# %%
alike = _grouped_delong(np.zeros(30), label, probabilities[0], range(30))
test_close(alike, (aucs[0], covariance[0, 0]), eps=1e-12)                # one group: DeLong's own
in_two = np.repeat([0, 1], 30), np.tile(label, 2), np.tile(probabilities[0], 2)
test_close(_grouped_delong(*in_two, np.tile(range(30), 2)), alike, eps=1e-12)   # the same films in two groups
others = _grouped_delong(*in_two, range(60))[1]
assert .9 < others / (alike[1] / 2) < 1                     # with other patients in the second
test_close(_grouped_delong(*in_two, range(60))[0], grouped_auroc(*in_two), eps=1e-12)


# %% [markdown]
# This is the interval of every model's AUROC. Near 1 the bootstrap's middle 95 % promise too much: few pairs
# are out of order, and a draw cannot invent others. The script `benchmarks/coverage.py` counts how often
# either interval holds a known AUROC, in 1,000 sets of films, three of each patient, that correlate by .9.
# With AUROCs from .95 to .99 and 20 patients a class, the bootstrap holds it in 81 to 88 % of sets, DeLong's
# interval in 89 to 92 %. With 60 patients a class these are 87 to 93 % and 91 to 95 %. With 200 they are 92
# to 94 % and 94 to 95 %. So near 1 the interval of a small set is still a little too short. Where all pairs
# are in order there is none, as in half of the sets with 8 patients a class and an AUROC of .99. Such sets
# are not counted.

# %%
#| export
def auroc_interval(
    table: pd.DataFrame, # label, probability, patient_id
    groups=None,         # (n,) as for `grouped_auroc`; None: all films are compared
) -> tuple[float, float]: # low, high; NaN where undefined
    "95 % interval of the AUROC after DeLong, patients being independent."
    if table.label.nunique() < 2: return float("nan"), float("nan")
    label, probability = table.label.to_numpy(), table.probability.to_numpy()
    if groups is not None:
        return delong_interval(*_grouped_delong(np.asarray(groups), label, probability, table.patient_id))
    aucs, covariance = delong(label, probability[None], table.patient_id)
    return delong_interval(aucs[0], covariance[0, 0])


# %%
test_eq(auroc_interval(films), delong_interval(*(float(x.squeeze()) for x in delong(
    films.label.to_numpy(), films.probability.to_numpy()[None], films.patient_id))))
assert np.isnan(auroc_interval(films[films.label == 1])).all()


# %% [markdown]
# An AUROC is above chance if all of its interval is. One of exactly 1 has no interval and is above chance,
# too.

# %%
#| export
def is_above_chance(
    auroc: float | None,
    low: float | None, # lower limit of its interval; None or NaN where there is none
) -> bool:
    "Whether an AUROC is above .5 by more than its interval."
    return auroc == 1 or (low is not None and low > .5)


# %%
nan = float("nan")
test_eq([is_above_chance(*pair) for pair in ((.7, .6), (.7, .4), (1, nan), (0, None), (nan, nan))],
        [True, False, True, False, False])


# %% [markdown]
# ## Intervals of every measure
#
# The AUROC has DeLong's interval, every other measure that of the bootstrap. In small groups all draws may
# agree: ten of ten films called right give 1 in every draw. The bootstrap then sees no doubt where there is
# some. For a proportion the exact interval over patients stands in; for other measures there is none.

# %%
#| export
def _counted_films(
    table: pd.DataFrame, # label, probability
    threshold: float,
) -> dict: # measure → (n,) bool; measures that are no proportion of films are left out
    "The films of which a proportion is the share."
    called, pneumonia = table.probability >= threshold, table.label == 1
    every_film = called | True
    return dict(accuracy=every_film, sensitivity=pneumonia, specificity=~pneumonia, ppv=called, npv=~called)


# %%
#| export
def _interval_of_draws(
    table: pd.DataFrame, # label, probability, patient_id
    threshold: float,
    measure: str,        # a key of MEASURES
    values: np.ndarray,  # of the draws in which the measure is defined
) -> tuple[float, float]: # low, high
    "The middle 95 % of the draws; where all are alike, the exact interval of a proportion of patients."
    if len(values) and values.min() < values.max(): return tuple(np.percentile(values, [2.5, 97.5]).tolist())
    films = _counted_films(table, threshold).get(measure)
    if films is None or len(values) == 0: return float("nan"), float("nan")
    patients = table.patient_id[films].nunique()
    return proportion_interval(round(values[0] * patients), patients, "exact")


# %%
#| export
def intervals(
    table: pd.DataFrame, # label, probability, patient_id
    threshold: float,
    seed: int,
    draws: int = 1000,
) -> dict[str, tuple[float, float]]: # measure → low, high
    "95 % intervals of every measure: the AUROC's after DeLong, all others with patients redrawn."
    blocks = [all_measures(table, threshold, w) for w in patient_draws(table.patient_id, draws, seed)]
    drawn = {m: np.concatenate([block[m] for block in blocks]) for m in blocks[0]}
    limits = {m: _interval_of_draws(table, threshold, m, v[~np.isnan(v)]) for m, v in drawn.items()}
    return limits | dict(roc_auc=auroc_interval(table))


# %%
test_eq(intervals(films, .5, seed=1, draws=200)["roc_auc"], auroc_interval(films))
perfect = pd.DataFrame(dict(label=[0, 1] * 10, probability=[.2, .8] * 10, patient_id=range(20)))
certain = intervals(perfect, .5, seed=1, draws=50)
test_close(certain["sensitivity"], (.025 ** .1, 1))
assert np.isnan(certain["roc_auc"]).all()


# %%
#| export
def flat_intervals(
    bounds: dict[str, tuple[float, float]], # name → low, high
) -> dict[str, float]: # NAME_low, NAME_high
    "Intervals as columns of a table."
    sides = ("low", "high")
    return {f"{name}_{side}": value for name, pair in bounds.items() for side, value in zip(sides, pair)}


# %%
test_eq(flat_intervals(dict(ppv=(.8, .9))), dict(ppv_low=.8, ppv_high=.9))


# %% [markdown]
# ## Do two models differ?
#
# Several pairs of models mean several chances to be fooled. **Holm**'s (1979) correction multiplies the
# smallest of m p-values by m, the next by m - 1, and so on. No corrected value is smaller than the one before
# it, and none exceeds 1.

# %%
#| export
def holm(
    p, # (m,) p-values
) -> np.ndarray: # (m,) corrected, in the same order
    "Holm's correction for several tests."
    p = np.asarray(p, float)
    order, corrected = np.argsort(p), np.empty(len(p))
    corrected[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return np.minimum(corrected, 1)


# %%
test_close(holm([.04, .01, .03, .9]), [.09, .04, .09, .9])


# %% [markdown]
# Two models on the same films may differ in how they **rank**. The difference of their AUROCs has an interval
# and a p-value after DeLong. They may also differ in how they **call** at the threshold. On some films only
# one of them is right; if both were equally good, these films would split evenly. The exact **McNemar** test
# judges this, and takes films as independent.
#
# `patient_sign_test` asks the same of patients. Each patient has a balance: films that only the first model
# calls right, less those that only the second does. Under equal models each balance might as well have the
# other sign. The distribution of the sum over all such signs is computed exactly.

# %%
#| export
def patient_sign_test(
    better,   # (n,) 1 where only the first model is right, -1 where only the second is, else 0
    patients, # (n,) whose film each is
) -> float: # two-sided p-value; McNemar's exact test where each patient has one film
    "How likely so uneven a sum is, if each patient's balance had an equal chance of either sign."
    total = pd.Series(np.asarray(better)).groupby(np.asarray(patients)).sum().to_numpy()
    balance = np.abs(total)
    chances = np.ones(1)  # of each sum, from the lowest to the highest
    for size in balance[balance > 0]:
        shift = np.zeros(2 * size)
        chances = np.r_[chances, shift] / 2 + np.r_[shift, chances] / 2
    sums = np.arange(len(chances)) - balance.sum()
    return float(min(1, chances[np.abs(sums) >= abs(total.sum())].sum()))


# %%
only_first = [1] * 6 + [0] * 4
test_close(patient_sign_test(only_first, range(10)), 2 * .5 ** 6)   # six patients, all one way
test_close(patient_sign_test(only_first, list("aaabbbcccc")), 2 * .5 ** 2)   # two patients say less
test_eq(patient_sign_test([0, 0], [1, 2]), 1)


# %%
#| export
def _common_films(
    first: pd.DataFrame,  # path, label
    second: pd.DataFrame,
    names: tuple[str, str],
) -> tuple[pd.DataFrame, pd.DataFrame]: # the same films in the same order
    "The films that both models were judged on."
    first, second = first.set_index("path"), second.set_index("path")
    common = first.index.intersection(second.index)
    first, second = first.loc[common], second.loc[common]
    differing = (first.label != second.label).sum()
    if differing: raise StudyError(
        f"Expected {names[0]} and {names[1]} to give each film the same label, "
        f"found {counted(differing, 'film')} with two.")
    return first, second


# %%
#| export
def _ranking_difference(
    first: pd.DataFrame, # from `_common_films`
    second: pd.DataFrame,
) -> dict: # auroc_difference, auroc_low, auroc_high, p_auroc; no interval where nothing varies
    "Difference of two AUROCs after DeLong."
    names = ("auroc_difference", "auroc_low", "auroc_high", "p_auroc")
    nan = float("nan")
    if first.label.nunique() < 2: return dict(zip(names, (nan, nan, nan, 1.)))
    probabilities = np.stack([first.probability, second.probability])
    aucs, c = delong(first.label.to_numpy(), probabilities, first.patient_id)
    gap, error = aucs[0] - aucs[1], np.sqrt(np.maximum(c[0, 0] + c[1, 1] - 2 * c[0, 1], 0))
    if not error > 1e-12: return dict(zip(names, (gap, nan, nan, 1.)))
    p = 2 * ndtr(-abs(gap) / error)
    return dict(zip(names, (gap, gap - _QUANTILE * error, gap + _QUANTILE * error, p)))


# %%
#| export
def _call_difference(
    first: pd.DataFrame, # from `_common_films`
    second: pd.DataFrame,
    threshold: float,
    seed: int,
    draws: int,
) -> dict: # only_first, only_second, p, p_calls, accuracy_difference, accuracy_low, accuracy_high
    "Difference of two models' calls."
    from scipy.stats import binomtest
    right = [((t.probability >= threshold) == t.label).to_numpy().astype(int) for t in (first, second)]
    better = right[0] - right[1]
    weights = patient_draws(first.patient_id, draws, seed)
    drawn = np.concatenate([w @ better / w.sum(axis=1) for w in weights])
    only = [int((better == sign).sum()) for sign in (1, -1)]
    return dict(
        only_first=only[0], only_second=only[1],
        p=binomtest(only[0], sum(only)).pvalue if sum(only) else 1.,
        p_calls=patient_sign_test(better, first.patient_id), accuracy_difference=better.mean(),
        **flat_intervals(dict(accuracy=np.percentile(drawn, [2.5, 97.5]))))


# %% [markdown]
# `paired_tests` does all this for each pair of models. McNemar's p-values are corrected over the pairs. Those
# of DeLong and of patients, from which the findings are drawn, are corrected all together.

# %%
#| export
_PAIR_COLUMNS = [
    "first", "second", "films", "auroc_difference", "auroc_low", "auroc_high", "p_auroc", "only_first",
    "only_second", "accuracy_difference", "accuracy_low", "accuracy_high", "p", "p_calls"]

def _compare_pair(
    names: tuple[str, str],         # of two models
    tests: dict[str, pd.DataFrame], # model → its films
    threshold: float,
    seed: int,
    draws: int,
) -> dict | None: # a row of `paired_tests`; None without films in common
    "Two models on the films that both were judged on."
    first, second = _common_films(*(tests[name] for name in names), names)
    if first.empty: return None
    row = dict(first=names[0], second=names[1], films=len(first))
    return row | _call_difference(first, second, threshold, seed, draws) | _ranking_difference(first, second)


# %%
#| export
def paired_tests(
    tests: dict[str, pd.DataFrame], # model → its films: path, label, probability, patient_id
    threshold: float,
    seed: int = 42,
    draws: int = 1000,
) -> pd.DataFrame: # a row a pair with films in common
    "Differences of AUROC and of calls for each pair of models, with Holm's correction."
    rows = [_compare_pair(names, tests, threshold, seed, draws) for names in combinations(tests, 2)]
    table = pd.DataFrame([row for row in rows if row], columns=_PAIR_COLUMNS)
    together = holm(np.concatenate([table.p_auroc, table.p_calls]))
    table = table.assign(p_holm=holm(table.p), p_auroc_holm=together[:len(table)],
                         p_calls_holm=together[len(table):])
    return table.sort_values(["p_calls", "p_auroc"], kind="stable").reset_index(drop=True)


# %%
a = pd.DataFrame(dict(path=range(10), patient_id=range(10), label=1, probability=[.9] * 10))
b = a.assign(probability=[.9] * 4 + [.1] * 6)
pairs = paired_tests(dict(a=a, b=b), .5)
test_close(pairs.p[0], 2 * .5 ** 6)              # six films on which the models disagree, all one way
test_eq(pairs[["only_first", "only_second"]].iloc[0].tolist(), [6, 0])
test_eq(len(paired_tests(dict(a=a), .5)), 0)
test_fail(lambda: paired_tests(dict(a=a, b=b.assign(label=0)), .5), contains="10 films with two")


# %% [markdown]
# A pair differs where a corrected p-value is below .05. The chapter on evaluation and the report's first page
# both count by this function.

# %%
#| export
def pair_differences(
    pair: dict, # a row of `paired_tests`
) -> list[str]: # of "auroc" and "calls"; empty where two models cannot be told apart
    "In what two models differ by more than chance."
    return [kind for kind in ("auroc", "calls") if pair[f"p_{kind}_holm"] < .05]


# %%
test_eq(pair_differences(dict(p_auroc_holm=.2, p_calls_holm=.01)), ["calls"])
test_eq(pair_differences(dict(p_auroc_holm=.05, p_calls_holm=1)), [])

# %% [markdown]
# A model that knows the labels, beside one whose probabilities say nothing:

# %%
coin = films.assign(path=range(60))
expert = coin.assign(probability=(coin.label + coin.probability) / 2)
pair = paired_tests(dict(expert=expert, coin=coin), .5)
assert pair.auroc_low[0] > 0 and pair.p_auroc_holm[0] < .001 and pair.accuracy_low[0] > 0
pair.T


# %% [markdown]
# ## Choosing a threshold
#
# Pneumonia is more common among the films to learn from than in the test set, and class weights bend the
# probabilities. So .5 has no special right. A threshold may be chosen, but on **validation** films only.
# Youden's (1950) rule takes the largest sum of sensitivity and specificity. Another rule takes the largest
# threshold that still finds a wanted share of pneumonia films, as one would where a miss is worse than a
# false alarm. Both put the threshold half way between two probabilities.

# %%
#| export
def _half_way(
    falling: np.ndarray, # (k,) probabilities
    is_there: np.ndarray, # (draws, k) bool: which of them a draw has
    chosen: np.ndarray,   # (draws,) places in `falling`
) -> np.ndarray: # (draws,)
    "Half way from the chosen probabilities to the next lower ones, or to 0, so that they are still called."
    is_lower = is_there & (np.arange(len(falling)) > chosen[:, None])
    following = np.where(is_lower.any(axis=1), is_lower.argmax(axis=1), len(falling))
    return (falling[chosen] + np.r_[falling, 0][following]) / 2


# %%
#| export
def _choose_threshold(
    table: pd.DataFrame, # label, probability
    weights,             # (draws, n) how often each film counts; None: once
    choose,              # function of (draws, k) counts of pneumonia and normal films: (draws,) places
): # (draws,) thresholds; a number without weights
    "Thresholds by a rule, for the films as they are or for all draws together."
    each = np.ones((1, len(table)), int) if weights is None else weights
    counts = _counts_down(table.label.to_numpy(), table.probability.to_numpy(), each)
    falling, pneumonia, normal = counts
    values = _half_way(falling, pneumonia + normal > 0, choose(pneumonia, normal))
    return float(values[0]) if weights is None else values


# %% [markdown]
# Youden's rule compares all cuts, from the highest probability down to the lowest, where every film is
# called. Calling every film is worth as much as guessing. So for a model that ranks the wrong way the rule
# calls every film, rather than take a cut that is worse than none. Whole counts are compared, since shares
# are rounded: .3 - .1 is less than .2 to a computer.

# %%
#| export
def _best_sum(
    pneumonia: np.ndarray, # (draws, k) films from the highest probability down
    normal: np.ndarray,    # (draws, k)
) -> np.ndarray: # (draws,) places
    "The first place with the largest sum of sensitivity and specificity."
    tp, fp = pneumonia.cumsum(axis=1), normal.cumsum(axis=1)
    gain = tp * fp[:, -1:] - fp * tp[:, -1:]
    return np.where(pneumonia + normal > 0, gain, -np.inf).argmax(axis=1)


# %%
#| export
def youden_threshold(
    table: pd.DataFrame, # validation films of one model: label, probability
    weights=None,        # (draws, n) how often each film counts; None: once
): # a number; (draws,) with weights
    "The threshold with the largest sum of both, the highest of several; none that is worse than guessing."
    return _choose_threshold(table, weights, _best_sum)


# %%
wrong_way = pd.DataFrame(dict(label=[0, 1, 1], probability=[.9, .8, .7]))
test_eq(youden_threshold(wrong_way), .35)        # .85 would call the normal film alone


# %% [markdown]
# A share of .55 of 100 films is 55 films, though a computer has .55 * 100 = 55.00000000000001. Rounding is
# taken off before films are counted.

# %%
#| export
def _films_needed(
    wanted: float, # share
    films,         # a number or array of counts
) -> np.ndarray:
    "The smallest whole number of films, at least 1, that makes up the share."
    return np.maximum(np.ceil(wanted * np.asarray(films) - 1e-9), 1)


# %%
test_eq(_films_needed(.55, [100, 101, 1]), [55, 56, 1])


# %%
#| export
def sensitivity_threshold(
    table: pd.DataFrame, # validation films of one model: label, probability
    wanted: float,       # sensitivity, above 0 and at most 1
    weights=None,        # (draws, n) how often each film counts; None: once
): # a number; (draws,) with weights
    "The largest threshold that calls at least this share of the pneumonia films."
    if not 0 < wanted <= 1:
        raise StudyError(f"Expected a sensitivity above 0 and at most 1, found {wanted}.")
    def is_reached(pneumonia, normal):
        tp = pneumonia.cumsum(axis=1)
        return (tp >= _films_needed(wanted, tp[:, -1:])).argmax(axis=1)
    return _choose_threshold(table, weights, is_reached)


# %%
four = pd.DataFrame(dict(label=[0, 0, 1, 1], probability=[.1, .2, .6, .9]))
test_eq(youden_threshold(four), .4)
test_eq([sensitivity_threshold(four, wanted) for wanted in (.5, .51, 1)], [.75, .4, .4])
test_eq(youden_threshold(four, np.array([[1, 1, 1, 1], [1, 0, 1, 1]])), [.4, .35])   # a draw without .2
test_fail(lambda: sensitivity_threshold(four, 0), contains="above 0 and at most 1, found 0")

# %% [markdown]
# scikit-learn's ROC curve leads to the same threshold, ties included:

# %%
false_alarms, sensitivity, cuts = sk.roc_curve(films.label, films.probability, drop_intermediate=False)
best = np.argmax(np.round(sensitivity - false_alarms, 12))   # the highest cut of several, but for rounding
test_eq(youden_threshold(films), cuts[best] - 1 / 16)        # films lie 1/8 apart

# %% [markdown]
# These are the rules of the study:

# %%
#| export
RULES = {
    "Youden": youden_threshold,
    "sensitivity .95": partial(sensitivity_threshold, wanted=.95),
    "sensitivity .98": partial(sensitivity_threshold, wanted=.98)}

# %% [markdown]
# [The figure](#fig-measures_rules) shows the three on made-up films. Sensitivity falls and specificity rises
# with the threshold. Youden's rule takes the place where their sum is largest.

# %%
rng = np.random.default_rng(5)
made_up = pd.DataFrame(dict(label=np.repeat([0, 1], [100, 300]), patient_id=range(400)))
made_up["probability"] = expit(2.5 * made_up.label - .5 + rng.normal(0, 1.2, 400))
cuts = np.linspace(0, 1, 201)
at_cuts = [all_measures(made_up, cut) for cut in cuts]
figure, ax = plt.subplots(figsize=(6.5, 3))
for measure, kind in dict(sensitivity="PNEUMONIA", specificity="NORMAL").items():
    ax.plot(cuts, [c[measure][0] for c in at_cuts], color=COLOURS[kind], label=measure)
chosen = {name: rule(made_up) for name, rule in RULES.items()}
for (name, cut), dash in zip(chosen.items(), ("-", "--", ":")):
    ax.axvline(cut, color="black", lw=1, ls=dash, label=name)
ax.set(xlabel="threshold", ylabel="share of films")
ax.legend(loc="center left", bbox_to_anchor=(1, .5), fontsize=9)
png = show_figure(figure, "measures_rules", "Sensitivity and specificity, and the thresholds of three rules.",
                  "Sensitivity falls and specificity rises with the threshold. Chosen: "
                  + ", ".join(f"{name} {cut:.2f}" for name, cut in chosen.items()) + ".")
sums = [c["sensitivity"][0] + c["specificity"][0] for c in at_cuts]
at_youden = all_measures(made_up, chosen["Youden"])
assert at_youden["sensitivity"][0] + at_youden["specificity"][0] >= max(sums)


# %% [markdown]
# A chosen threshold has an interval, too: where would other validation patients have put it? Near its best
# the sum of sensitivity and specificity is flat, so the choice is partly chance. The place of a maximum is
# found with an error that shrinks with the cube root of the number of patients (Kim and Pollard, 1990). A
# quantile, as the other rules take it, has an error that shrinks with the square root.

# %%
#| export
def threshold_interval(
    validation: pd.DataFrame, # label, probability, patient_id
    rule,                     # a value of RULES
    seed: int,
    draws: int,
) -> tuple[float, float]: # 2.5 and 97.5 percentiles
    "Where a rule would have put the threshold for redrawn patients."
    is_sick, values = validation.label.to_numpy() == 1, []
    for weights in patient_draws(validation.patient_id, draws, seed):
        has_both = weights[:, is_sick].any(axis=1) & weights[:, ~is_sick].any(axis=1)
        values.append(rule(validation, weights=weights[has_both]))
    values = np.concatenate(values)
    return tuple(np.percentile(values, [2.5, 97.5]).tolist()) if len(values) else (float("nan"),) * 2


# %%
test_eq(threshold_interval(perfect, youden_threshold, 1, 50), (.5, .5))      # classes far apart: no doubt
weights = next(patient_draws(films.patient_id, 50, 1))
one_by_one = [rule(films.iloc[np.repeat(range(60), w)]) for rule in RULES.values() for w in weights]
together = np.concatenate([rule(films, weights=weights) for rule in RULES.values()])
test_eq(together, one_by_one)                                                # all draws in one go
low, high = threshold_interval(films, youden_threshold, 1, 50)
assert high - low > .3                                                       # a coin: anything goes


# %% [markdown]
# ## Where pneumonia is rarer
#
# Sensitivity and specificity belong to a model and a kind of films. What a call is worth also depends on how
# many children are sick. Bayes' rule carries a pair to another prevalence. It assumes that the sick elsewhere
# are as sick, and the well as well, as here.

# %%
#| export
def predictive_values(
    sensitivity, # number or array, 0 to 1
    specificity, # number or array, 0 to 1
    prevalence,  # number or array, 0 to 1
) -> tuple[np.ndarray, np.ndarray]: # PPV, NPV
    "What calls are worth at a prevalence, by Bayes' rule."
    pneumonia, normal = np.asarray(prevalence, float), 1 - np.asarray(prevalence, float)
    ppv = _ratio(sensitivity * pneumonia, sensitivity * pneumonia + (1 - specificity) * normal)
    return ppv, _ratio(specificity * normal, specificity * normal + (1 - sensitivity) * pneumonia)


# %%
test_close(predictive_values(.9, .8, .5), (.9 / 1.1, .8 / .9))
test_close(predictive_values(.9, .8, .01)[0], .009 / (.009 + .198))          # most alarms are false


# %% [markdown]
# ## Is a model worth using?
#
# A threshold of 10 % says that one missed pneumonia weighs as much as nine false alarms. **Net benefit**
# (Vickers and Elkin, 2006) takes false alarms off the right ones at that rate, per film: TP / n - FP / n · t
# / (1 - t). It reads probabilities at their word, so calibration matters.

# %%
#| export
def net_benefit(
    table: pd.DataFrame,    # label, probability
    thresholds: np.ndarray, # (t,) above 0 and below 1
) -> np.ndarray: # (t,)
    "Net benefit of calling films from each threshold on."
    called = table.probability.to_numpy() >= np.asarray(thresholds)[:, None]
    pneumonia = table.label.to_numpy() == 1
    right, wrong = (called & pneumonia).mean(axis=1), (called & ~pneumonia).mean(axis=1)
    return right - wrong * thresholds / (1 - thresholds)


# %%
sure = pd.DataFrame(dict(label=[0, 1, 1, 1], probability=[0., 1., 1., 1.]))
test_close(net_benefit(sure, np.array([.2, .5])), [.75, .75])
everyone = sure.assign(probability=1.)
test_close(net_benefit(everyone, np.array([.2, .5])), [.75 - .25 * .25, .5])


# %% [markdown]
# ## Can a probability be taken at its word?
#
# Of the films given about .8, are 80 % sick? The **expected calibration error**, as Guo et al. (2017) define
# it, is taken here for the probability of pneumonia. It is the mean distance between probability and share
# over 15 equally wide groups, weighted by their films.

# %%
#| export
def calibration_error(
    label,       # (n,) 0 or 1
    probability, # (n,)
    bins: int = 15, # equally wide
) -> float: # 0 to 1
    "Expected calibration error of the probability of pneumonia."
    label, probability = np.asarray(label), np.asarray(probability)
    where = np.minimum((probability * bins).astype(int), bins - 1)
    gaps = np.bincount(where, probability - label, bins)
    return float(np.abs(gaps).sum() / len(label))


# %%
test_close(calibration_error([0, 1, 1, 1], [.9] * 4), .15)


# %% [markdown]
# The error of honest probabilities is not 0: labels fall by chance. So the study draws labels from the
# model's own probabilities and measures the error of each draw. Only an error above the largest of the
# smallest 95 % is evidence against a model. A model is called *calibrated* where its error is not above, and
# *temperature-scaled* otherwise. Films count as independent here. Those of one child share a label, so a
# little more would have to be allowed.

# %%
#| export
def honest_calibration_error(
    probability, # (n,)
    seed: int,
    draws: int = 1000,
    bins: int = 15,
) -> float: # 95 of 100 draws have no larger error
    "How large the expected calibration error of perfectly calibrated probabilities gets by chance."
    probability, rng = np.asarray(probability, float), rng_for(seed, "honest")
    where = np.minimum((probability * bins).astype(int), bins - 1)
    in_bin, errors, step = np.eye(bins)[where], [], max(1, 5_000_000 // len(probability))
    for start in range(0, draws, step):
        labels = rng.random((min(step, draws - start), len(probability))) < probability
        errors.append(np.abs((labels - probability) @ in_bin).sum(axis=1) / len(probability))
    return float(np.percentile(np.concatenate(errors), 95))


# %%
test_eq(honest_calibration_error([0., 1., 1.], seed=1), 0)        # nothing is left to chance
few, many = (honest_calibration_error(np.linspace(.01, .99, n), seed=1) for n in (100, 10_000))
assert .08 < few < .2 and .008 < many < .02                 # ten times smaller with a hundred times more


# %% [markdown]
# **Slope** and **intercept** (Cox, 1958) are those of a logistic regression of the truth on the logit. 1 and
# 0 are perfect. A slope between 0 and 1 means too sure on both sides; below 0, ranked the wrong way. The
# intercept is taken with the slope held at 1. Below 0, too much pneumonia is promised on the whole, which a
# temperature cannot mend.
#
# The regression is fitted by Newton's method. No step changes a film's log odds by more than 10, and a step
# that would make the labels less likely is halved. So extreme probabilities do not throw the fit off.

# %%
#| export
def _logistic_coefficients(
    given: np.ndarray,  # (n, k) columns of the regression
    label: np.ndarray,  # (n,) 0 or 1
    offset: np.ndarray, # (n,) log odds that are given
) -> np.ndarray: # (k,)
    "Logistic regression by Newton's method."
    signs, coefficients = np.where(label == 1, 1, -1), np.zeros(given.shape[1])
    loss = lambda c: np.logaddexp(0, -signs * (given @ c + offset)).sum()
    for _ in range(100):
        p = expit(given @ coefficients + offset)
        curvature = given.T @ (given * (p * (1 - p))[:, None])
        step = np.linalg.solve(curvature, given.T @ (label - p))
        step = step / max(1, np.abs(given @ step).max() / 10)
        while loss(coefficients + step) > loss(coefficients): step = step / 2
        coefficients = coefficients + step
        if np.abs(step).max() < 1e-10: break
    return coefficients


# %%
given, label = np.ones((4, 1)), np.array([0, 1, 1, 1])
test_close(_logistic_coefficients(given, label, np.zeros(4)), [np.log(3)])   # three of four: odds of 3


# %% [markdown]
# The intervals let patients vary. The gradient's scatter is taken over patients, not films (the *sandwich* of
# Liang and Zeger, 1986), with the small-sample correction that statsmodels and Stata use.

# %%
#| export
def _clustered_covariance(
    given: np.ndarray, # (n, k) columns of the regression
    label: np.ndarray, # (n,)
    p: np.ndarray,     # (n,) fitted probability
    patients,          # (n,)
) -> np.ndarray: # (k, k); NaN with one patient
    "Covariance of a logistic regression's coefficients, patients being independent."
    codes, names = pd.factorize(np.asarray(patients))
    (n, k), count = given.shape, len(names)
    if count < 2: return np.full((k, k), np.nan)
    gradients = given * (label - p)[:, None]
    sums = np.stack([np.bincount(codes, column, count) for column in gradients.T], axis=1)
    bread = np.linalg.inv(given.T @ (given * (p * (1 - p))[:, None]))
    correction = count / (count - 1) * (n - 1) / (n - k)
    return correction * bread @ (sums.T @ sums) @ bread


# %%
p = np.full(4, .75)
test_close(_clustered_covariance(given, label, p, range(4)), [[1 / (3 * .75 * .25)]])
assert np.isnan(_clustered_covariance(given, label, p, [1, 1, 1, 1])).all()


# %%
#| export
def _last_coefficient(
    given: np.ndarray,  # (n, k) columns of the regression
    label: np.ndarray,  # (n,)
    offset: np.ndarray, # (n,)
    patients,           # (n,)
) -> tuple[float, float, float]: # value, low, high
    "The last coefficient of a logistic regression with its 95 % interval."
    coefficients = _logistic_coefficients(given, label, offset)
    p = expit(given @ coefficients + offset)
    half = _QUANTILE * np.sqrt(_clustered_covariance(given, label, p, patients)[-1, -1])
    value = coefficients[-1]
    return float(value), float(value - half), float(value + half)


# %%
#| export
def calibration_line(
    table: pd.DataFrame, # label, patient_id and `column`
    column: str,         # of probabilities
) -> dict: # slope and intercept, each with _low and _high; NaN where undefined
    "Calibration slope, and intercept with the slope held at 1."
    odds, label, ones = logit(table[column]), table.label.to_numpy(), np.ones((len(table), 1))
    pneumonia, normal = odds[label == 1], odds[label == 0]
    both = len(pneumonia) > 0 and len(normal) > 0
    overlap = both and normal.max() > pneumonia.min() and pneumonia.max() > normal.min()
    regressions = dict(slope=(overlap, np.c_[ones, odds], np.zeros(len(odds))), intercept=(both, ones, odds))
    line = {}
    for name, (defined, given, offset) in regressions.items():
        values = (float("nan"),) * 3
        if defined: values = _last_coefficient(given, label, offset, table.patient_id)
        line |= dict(zip((name, f"{name}_low", f"{name}_high"), values))
    return line


# %% [markdown]
# There is no slope where one probability separates the classes, and neither number with one class. Honest
# probabilities have a slope near 1 and an intercept near 0. Doubled logits that promise too much are found
# out:

# %%
rng = np.random.default_rng(0)
odds = rng.normal(0, 2, 4000)
honest = pd.DataFrame(dict(label=(rng.random(4000) < expit(odds)).astype(int), probability=expit(odds),
                           uncalibrated=expit(2 * odds + 1), patient_id=range(4000)))
after, before = (calibration_line(honest, column) for column in ("probability", "uncalibrated"))
assert after["slope_low"] < 1 < after["slope_high"] and after["intercept_low"] < 0 < after["intercept_high"]
assert before["slope_high"] < .6 and before["intercept_high"] < 0
assert np.isnan(calibration_line(perfect, "probability")["slope"])
{name: round(value, 3) for name, value in before.items()}

# %% [markdown]
# statsmodels' regression with clustered errors gives the same, here with four films of each patient. The two
# part only where a pneumonia film has a probability below 1e-15: statsmodels rounds there.

# %%
in_fours = honest.assign(patient_id=honest.patient_id // 4)
line, clusters = calibration_line(in_fours, "uncalibrated"), dict(groups=in_fours.patient_id.to_numpy())
odds, binomial = logit(in_fours.uncalibrated), sm.families.Binomial()
regressions = dict(slope=sm.GLM(in_fours.label, sm.add_constant(odds), family=binomial),
                   intercept=sm.GLM(in_fours.label, np.ones((4000, 1)), family=binomial, offset=odds))
for name, regression in regressions.items():
    fitted = regression.fit(cov_type="cluster", cov_kwds=clusters)
    expected = [fitted.params.iloc[-1], *fitted.conf_int().iloc[-1]]
    test_close([line[name], line[f"{name}_low"], line[f"{name}_high"]], expected, eps=1e-6)

# %%
#| hide
wrong = pd.DataFrame(dict(label=[0, 1, 0, 1], probability=[0., 0., 1., 1.], patient_id=range(4)))
test_close(calibration_line(wrong, "probability")["slope"], 0, eps=1e-9)
assert np.isfinite(list(calibration_line(wrong, "probability").values())).all()
test_eq(set(calibration_line(wrong.assign(label=1), "probability")), {*line})
assert np.isnan(list(calibration_line(wrong.assign(label=1), "probability").values())).all()
