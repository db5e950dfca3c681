"""The reference study's table, reproduced from its counts."""
import numpy as np
import pytest

from pneumo_nb.evaluation import classification_metrics
from pneumo_nb.run import StudyError

KEYS = ["accuracy", "precision_normal", "recall_normal", "f1_normal", "precision_pneumonia", "recall_pneumonia", "f1_pneumonia"]

@pytest.mark.parametrize("tn, fp, fn, tp, table", [
    (170, 64, 84, 306, [.762821, .669291, .726496, .696721, .827027, .784615, .805263]),
    (198, 36, 44, 346, [.871795, .818182, .846154, .831933, .905759, .887179, .896373]),
    (181, 53, 30, 360, [.866987, .857820, .773504, .813483, .871671, .923077, .896638])])
def test_the_studys_table_to_six_digits(tn, fp, fn, tp, table):
    labels, called = np.repeat([0, 0, 1, 1], [tn, fp, fn, tp]), np.repeat([.1, .5, .49999, .9], [tn, fp, fn, tp])
    metrics = classification_metrics(labels, called)
    assert [round(metrics[k], 6) for k in KEYS] == table
    assert metrics["confusion_matrix"].tolist() == [[tn, fp], [fn, tp]]

def test_auroc_is_the_share_of_pairs_in_order_with_ties_half():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 80), rng.integers(0, 9, 80) / 10
    pairs = scores[labels == 1][:, None] - scores[labels == 0][None]
    assert classification_metrics(labels, scores)["roc_auc"] == pytest.approx((pairs > 0).mean() + (pairs == 0).mean() / 2)

def test_what_is_undefined_is_nan_and_what_is_wrong_is_refused():
    metrics = classification_metrics([1, 1], [.9, .8])
    assert np.isnan(metrics["roc_auc"]) and np.isnan(metrics["recall_normal"]) and metrics["recall_pneumonia"] == 1
    for labels, probs in (([0, 2], [.1, .2]), ([0, 1], [.1, 1.2]), ([0, 1], [.1, np.nan]), ([], []), ([0, 1], [[.1, .2]])):
        with pytest.raises(StudyError): classification_metrics(labels, probs)
