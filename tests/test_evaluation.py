"""The reference study's table, reproduced from its counts."""
import numpy as np
import pytest

from pneumo_nb.measures import classification_metrics
from pneumo_nb.run import StudyError

KEYS = ["accuracy", "precision_normal", "recall_normal", "f1_normal",
        "precision_pneumonia", "recall_pneumonia", "f1_pneumonia"]

@pytest.mark.parametrize("tn, fp, fn, tp, table", [
    (170, 64, 84, 306, [.762821, .669291, .726496, .696721, .827027, .784615, .805263]),
    (198, 36, 44, 346, [.871795, .818182, .846154, .831933, .905759, .887179, .896373]),
    (181, 53, 30, 360, [.866987, .857820, .773504, .813483, .871671, .923077, .896638])])
def test_the_studys_table_to_six_digits(tn, fp, fn, tp, table):
    labels = np.repeat([0, 0, 1, 1], [tn, fp, fn, tp])
    probabilities = np.repeat([.1, .5, .49999, .9], [tn, fp, fn, tp])
    metrics = classification_metrics(labels, probabilities)
    assert [round(metrics[k], 6) for k in KEYS] == table
    assert metrics["confusion_matrix"].tolist() == [[tn, fp], [fn, tp]]

@pytest.mark.parametrize("threshold", [0, .3, .5, 1])
def test_metrics_are_scikit_learns(threshold):
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
    rng = np.random.default_rng(1)
    for films in (1, 2, 3, 50):
        labels, probabilities = rng.integers(0, 2, films), rng.integers(0, 11, films) / 10
        called = (probabilities >= threshold).astype(int)
        metrics = classification_metrics(labels, probabilities, threshold)
        expected = precision_recall_fscore_support(labels, called, labels=[0, 1], zero_division=np.nan)
        for measure, values in zip(("precision", "recall", "f1"), expected):
            ours = [metrics[f"{measure}_{name}"] for name in ("normal", "pneumonia")]
            assert np.array_equal(ours, values, equal_nan=True)
        assert np.array_equal(metrics["confusion_matrix"], confusion_matrix(labels, called, labels=[0, 1]))

def test_auroc_is_the_share_of_pairs_in_order_with_ties_half():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 80), rng.integers(0, 9, 80) / 10
    gaps = scores[labels == 1][:, None] - scores[labels == 0][None]
    in_order = (gaps > 0).mean() + (gaps == 0).mean() / 2
    assert classification_metrics(labels, scores)["roc_auc"] == pytest.approx(in_order)

def test_what_is_undefined_is_nan():
    metrics = classification_metrics([1, 1], [.9, .8])
    assert np.isnan(metrics["roc_auc"]) and np.isnan(metrics["recall_normal"])
    assert metrics["recall_pneumonia"] == 1

@pytest.mark.parametrize("labels, probabilities", [
    ([0, 2], [.1, .2]), ([0, 1], [.1, 1.2]), ([0, 1], [.1, np.nan]), ([], []), ([0, 1], [[.1, .2]])])
def test_what_is_wrong_is_refused(labels, probabilities):
    with pytest.raises(StudyError): classification_metrics(labels, probabilities)

def test_statistics_need_no_heavy_library():
    import subprocess, sys
    code = ("import sys, pneumo_nb.measures; "
            "print(*{'tensorflow', 'keras', 'sklearn', 'statsmodels', 'matplotlib'} & {*sys.modules})")
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == []
