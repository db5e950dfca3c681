"""Intervals and tests keep what they promise, on data whose truth is known."""
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from scipy.stats import norm

from pneumo_nb.data import number_folds, series_folds
from pneumo_nb.eda import overlap_weights
from pneumo_nb.evaluation import all_measures, calibration_line, delong, delong_interval, intervals, paired_tests, predictive_values, sensitivity_threshold, subgroup_table, telling_films, threshold_interval, threshold_table, youden_threshold

def drawn(rng, patients=60, films=3, gap=1.2, shared=.8):
    "Films of patients: scores share a part within a patient; the sick lie `gap` deviations higher."
    label = np.repeat(rng.random(patients) < .6, films).astype(int)
    score = gap * label + np.sqrt(shared) * np.repeat(rng.normal(size=patients), films) + np.sqrt(1 - shared) * rng.normal(size=patients * films)
    names = np.repeat(np.arange(patients), films)
    return pd.DataFrame(dict(path=[f"train/PNEUMONIA/person{p}_bacteria_{n}.jpeg" for n, p in enumerate(names)], label=label, probability=norm.cdf(score - .6), patient_id=names))

def test_intervals_cover_the_truth_where_films_of_a_patient_are_alike():
    rng, n = np.random.default_rng(0), 250
    auroc, sensitivity = norm.cdf(1.2 / np.sqrt(2)), norm.sf(.6 - 1.2)
    inside = np.zeros(4)
    for k in range(n):
        table = drawn(rng)
        found = intervals(table, .5, seed=k, draws=200)
        aucs, covariance = delong(table.label.to_numpy(), table.probability.to_numpy()[None], table.patient_id)
        _, alone = delong(table.label.to_numpy(), table.probability.to_numpy()[None], range(len(table)))
        bounds = [found["roc_auc"], delong_interval(aucs[0], covariance[0, 0]), found["sensitivity"], delong_interval(aucs[0], alone[0, 0])]
        inside += [low <= truth <= high for (low, high), truth in zip(bounds, [auroc, auroc, sensitivity, auroc])]
    bootstrap, clustered, rate, films_alone = inside / n
    assert .91 < bootstrap < .98 and .92 < clustered < .98 and .90 < rate < .98
    assert films_alone < .86   # had films been taken as independent, the interval would miss too often

def test_delong_and_bootstrap_agree_on_independent_films():
    table = drawn(np.random.default_rng(1), patients=500, films=1)
    aucs, covariance = delong(table.label.to_numpy(), table.probability.to_numpy()[None], table.patient_id)
    assert np.allclose(delong_interval(aucs[0], covariance[0, 0]), intervals(table, .5, 0, 2000)["roc_auc"], atol=.006)

def test_paired_tests_reject_equal_models_rarely_and_find_a_real_difference():
    rng, rejected = np.random.default_rng(2), 0
    for k in range(150):
        table = drawn(rng, patients=80, films=1)
        noisy = [table.assign(probability=norm.cdf(norm.ppf(table.probability) + .5 * rng.normal(size=len(table)))) for _ in range(2)]
        rejected += paired_tests(dict(a=noisy[0], b=noisy[1]), .5, draws=20).p_auroc[0] < .05
    assert 2 <= rejected <= 15   # 7.5 expected
    worse = table.assign(probability=np.random.default_rng(0).random(len(table)))
    pair = paired_tests(dict(a=table, b=worse), .5, draws=200).iloc[0]
    assert pair.p_auroc < .01 and pair.auroc_low > 0 and pair.accuracy_low > 0

def test_pairs_are_corrected_together_and_a_model_equals_itself():
    table = drawn(np.random.default_rng(3), patients=40, films=1)
    pairs = paired_tests(dict(a=table, b=table, c=table.assign(probability=1 - table.probability)), .5, draws=20)
    assert len(pairs) == 3 and (pairs.p_holm >= pairs.p).all()
    same = pairs[(pairs["first"] == "a") & (pairs["second"] == "b")].iloc[0]
    assert same.p == 1 and same.p_auroc == 1 and same.auroc_difference == 0

def test_a_measure_with_one_class_is_undefined_not_wrong():
    table = drawn(np.random.default_rng(4))
    sick = table[table.label == 1]
    found = all_measures(sick, .5)
    assert np.isnan(found["roc_auc"][0]) and np.isnan(found["specificity"][0]) and found["sensitivity"][0] == (sick.probability >= .5).mean()
    assert all(np.isnan(v) for v in intervals(sick, .5, 0, 50)["specificity"])

def test_thresholds_come_from_validation_alone():
    rng = np.random.default_rng(5)
    table = pd.concat([drawn(rng).assign(split="validation"), drawn(rng).assign(split="test")], ignore_index=True)
    first = threshold_table(dict(a=table), .5, draws=20)
    turned = table.assign(probability=table.probability.where(table.split == "validation", 1 - table.probability))
    second = threshold_table(dict(a=turned), .5, draws=20)
    assert first.threshold.tolist() == second.threshold.tolist() and list(first.chosen) == ["fixed", "Youden", "sensitivity .95", "sensitivity .98"]
    assert (first.validation_sensitivity[2:] >= [.95, .98]).all() and not np.allclose(first.sensitivity, second.sensitivity)
    validation = table[table.split == "validation"]
    for wanted in (.5, .95, .98, 1): # no larger threshold reaches the sensitivity
        value, sick = sensitivity_threshold(validation, wanted), validation.probability[validation.label == 1]
        assert (sick >= value).mean() >= wanted and (sick > sick[sick >= value].min()).mean() < wanted

def test_bayes_rule_gives_back_the_counts():
    table = drawn(np.random.default_rng(6))
    m = {k: float(v[0]) for k, v in all_measures(table, .5).items()}
    ppv, npv = predictive_values(m["sensitivity"], m["specificity"], table.label.mean())
    assert ppv == pytest.approx(m["ppv"]) and npv == pytest.approx(m["npv"])

def test_subgroups_and_errors_say_what_the_films_say():
    table = drawn(np.random.default_rng(7)).assign(split="test", kind="bacteria", series="bacteria", films_of_patient=3)
    table.loc[table.label == 0, ["kind", "series"]] = "normal", "IM"
    groups = subgroup_table(dict(a=table), .5, 0, 50).set_index(["by", "group", "label"])
    assert groups.rate["kind", "normal", 0] == (table.probability[table.label == 0] < .5).mean()
    assert groups.films["films of the patient", "2 or 3", 1] == table.label.sum() and groups.patients["kind", "bacteria", 1] == table.label.sum() / 3
    shown = telling_films(table, .5, 2)
    worst = table[table.label == 0].probability.max()
    assert shown.probability[shown.why == "normal, called pneumonia"].iloc[0] == worst
    assert (shown.why == "least certain").sum() == 2

def test_a_flat_choice_has_a_wide_interval_and_a_clear_one_a_narrow_one():
    rng = np.random.default_rng(2)
    apart = pd.DataFrame(dict(label=[0, 1] * 100, patient_id=range(200), probability=[.2, .8] * 100))
    flat = apart.assign(probability=rng.uniform(size=200))  # says nothing: any threshold is as good
    (low, high), (flat_low, flat_high) = (threshold_interval(table, youden_threshold, 1, 100) for table in (apart, flat))
    assert low == high == youden_threshold(apart) and flat_high - flat_low > .5
    assert threshold_interval(apart, youden_threshold, 1, 100) == (low, high)

def test_films_with_tall_side_markers_are_a_group_of_their_own():
    table = drawn(np.random.default_rng(3)).assign(split="test", kind="bacteria", series="bacteria", films_of_patient=1)
    marked = table.assign(marker=np.where(np.arange(len(table)) % 4 == 0, .08, .04))
    groups = subgroup_table(dict(a=marked), .5, 0, 50).set_index(["by", "group", "label"])
    tall = marked[(marked.marker == .08) & (marked.label == 0)]
    assert groups.rate["side marker", "tall", 0] == (tall.probability < .5).mean() and groups.films["side marker", "tall", 0] == len(tall)
    for unmarked in (table, table.assign(marker=np.nan), table.assign(marker=.04)): assert "side marker" not in set(subgroup_table(dict(a=unmarked), .5, 0, 50)["by"])

def test_calibration_of_separated_classes_does_not_stop_the_evaluation():
    table = pd.DataFrame(dict(label=[0] * 20 + [1] * 20, probability=[.01] * 20 + [.99] * 20, patient_id=range(40)))
    assert set(calibration_line(table, "probability")) == {f"{n}{s}" for n in ("slope", "intercept") for s in ("", "_low", "_high")}

def test_folds_keep_patients_and_films_in_common_together():
    names = [f"train/NORMAL/IM-{n:04d}-0001.jpeg" for n in range(20)] + [f"train/PNEUMONIA/person{n}_virus_{k}.jpeg" for n in range(10) for k in (1, 2)]
    images = pd.DataFrame(dict(path=names, split="train", patient_id=[n.split("/")[-1][:7] for n in names[:20]] + [f"person{n}_virus" for n in range(10) for _ in (1, 2)], sha1=[str(n) for n in range(40)]))
    images.loc[[0, 19], "sha1"] = "same film"  # the first and the last patient by number share a film
    folds = number_folds(images, 4)
    assert folds[0] == folds[19] == 0 and set(folds) == {0, 1, 2, 3}
    assert images.assign(fold=folds).groupby("patient_id").fold.nunique().max() == 1
    assert (np.diff(folds[:19]) >= 0).all()

def test_folds_across_series_hold_one_series_of_normal_films_and_stretches_of_pneumonia():
    normal = [f"train/NORMAL/{series}-{100 + n:04d}-0001.jpeg" for series in ("IM", "NORMAL2-IM") for n in range(10)]
    sick = [f"train/PNEUMONIA/person{n}_bacteria_{n}.jpeg" for n in range(16)]
    images = pd.DataFrame(dict(path=[*normal, *sick, "test/NORMAL/IM-0001-0001.jpeg"], split=["train"] * 36 + ["test"], kind=["normal"] * 20 + ["bacteria"] * 16 + ["normal"]))
    images = images.assign(patient_id=images.path.str.split("/").str[-1], sha1=range(37))
    folds = series_folds(images)
    assert folds.tolist() == [0] * 10 + [1] * 10 + [0, 1, 2, 3] * 4 + [-1]
    images.loc[15, "sha1"] = images.sha1[3]       # one film under two names: both lie in one fold
    assert (series_folds(images) != folds).nonzero()[0].tolist() == [15]

def test_overlap_weights_take_a_known_confounder_out():
    rng = np.random.default_rng(0)
    trait = rng.normal(size=20_000)
    chance = 1 / (1 + np.exp(-1.5 * trait - .7))
    sick = (rng.random(20_000) < chance).astype(int)
    shared = sick * .5 + rng.normal(size=20_000)                       # a true sign, apart from the trait
    weights = overlap_weights(chance, sick)
    means = [np.average(trait[sick == c], weights=weights[sick == c]) for c in (0, 1)]
    assert abs(np.diff([trait[sick == c].mean() for c in (0, 1)])[0]) > .9 and abs(means[0] - means[1]) < .03
    assert abs(roc_auc_score(sick, trait, sample_weight=weights) - .5) < .02 and roc_auc_score(sick, shared, sample_weight=weights) > .6
    assert ((weights >= 0) & (weights <= 1)).all()
