"""Intervals and tests keep what they promise, on data whose truth is known."""
import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score, roc_curve

from pneumo_nb.appearance import overlap_weights
from pneumo_nb.evaluation import subgroup_table, telling_films, threshold_table
from pneumo_nb.measures import (
    RULES, all_measures, auroc, auroc_interval, calibration_error, calibration_line, delong, delong_interval,
    holm, honest_calibration_error, intervals, logit, pair_differences, paired_tests, patient_draws,
    patient_sign_test, predictive_values, proportion_interval, sensitivity_threshold,
    threshold_interval, youden_threshold)
from pneumo_nb.splits import number_folds, series_folds

def drawn(rng, patients=60, films=3, gap=1.2, shared=.8):
    "Films of patients: scores share a part within a patient; the sick lie `gap` deviations higher."
    label = np.repeat(rng.random(patients) < .6, films).astype(int)
    of_patient = np.repeat(rng.normal(size=patients), films)
    score = gap * label + np.sqrt(shared) * of_patient + np.sqrt(1 - shared) * rng.normal(size=len(label))
    names = np.repeat(np.arange(patients), films)
    paths = [f"train/PNEUMONIA/person{p}_bacteria_{n}.jpeg" for n, p in enumerate(names)]
    return pd.DataFrame(dict(path=paths, label=label, probability=norm.cdf(score - .6), patient_id=names))

def redrawn_auroc(table, seed, draws):
    "The middle 95 % of AUROCs of redrawn patients."
    blocks = patient_draws(table.patient_id, draws, seed)
    aurocs = np.concatenate([all_measures(table, .5, weights)["roc_auc"] for weights in blocks])
    return np.nanpercentile(aurocs, [2.5, 97.5])

def test_intervals_cover_the_truth_where_films_of_a_patient_are_alike():
    rng, n = np.random.default_rng(0), 250
    auc, sensitivity = norm.cdf(1.2 / np.sqrt(2)), norm.sf(.6 - 1.2)
    inside = np.zeros(4)
    for k in range(n):
        table = drawn(rng)
        bounds = intervals(table, .5, seed=k, draws=200)
        assert bounds["roc_auc"] == auroc_interval(table)
        of_films = auroc_interval(table.assign(patient_id=range(len(table))))
        of_auc = [redrawn_auroc(table, k, 200), bounds["roc_auc"], of_films]
        low, high = bounds["sensitivity"]
        inside += [*(low <= auc <= high for low, high in of_auc), low <= sensitivity <= high]
    bootstrap, clustered, films_alone, rate = inside / n
    assert .91 < bootstrap < .98 and .92 < clustered < .98 and .90 < rate < .98
    assert films_alone < .86   # had films been taken as independent, the interval would miss too often

def test_delong_and_bootstrap_agree_on_independent_films():
    table = drawn(np.random.default_rng(1), patients=500, films=1)
    assert np.allclose(auroc_interval(table), redrawn_auroc(table, 0, 2000), atol=.006)

def near_one(rng, patients=20, auc=.98):
    "Two films of each patient, alike but for a little noise; a pair is in order with chance `auc`."
    label = np.repeat([0, 1], 2 * patients)
    of_patient = np.repeat(np.sqrt(.9) * rng.normal(size=2 * patients), 2)
    score = np.sqrt(2) * norm.ppf(auc) * label + of_patient + np.sqrt(.1) * rng.normal(size=len(label))
    return pd.DataFrame(dict(label=label, probability=norm.cdf(score), patient_id=np.arange(len(label)) // 2))

def test_near_one_delongs_interval_holds_the_truth_more_often_than_the_bootstraps():
    rng, inside = np.random.default_rng(0), []
    for k in range(200):
        table = near_one(rng)
        bounds = [auroc_interval(table), redrawn_auroc(table, k, 200)]
        if np.isfinite(bounds[0]).all(): inside.append([low <= .98 <= high for low, high in bounds])
    by_formula, by_bootstrap = np.mean(inside, axis=0)
    assert by_formula > .85 and by_formula > by_bootstrap + .03

def test_patients_with_films_of_both_classes_are_obuchowskis():
    rng = np.random.default_rng(3)
    label, patients = rng.integers(0, 2, 40), rng.integers(0, 12, 40)
    scores = np.round(rng.normal(size=(2, 40)) + label, 1)
    aucs, covariance = delong(label, scores, patients)
    def sums(score, auc, c):   # of each patient, placements of the films of a class about their mean
        of = lambda k: np.mean([(score[k] > s) + (score[k] == s) / 2 for s in score[label != c]])
        value = lambda k: of(k) - auc if c else 1 - of(k) - auc
        rows = [[k for k in range(40) if patients[k] == p and label[k] == c] for p in np.unique(patients)]
        return np.array([sum(map(value, films)) for films in rows]) / (label == c).sum()
    count = lambda c: len(set(patients[label == c])) if c is not None else len(set(patients))
    share = lambda c: count(c) / (count(c) - 1)
    for a in range(2):
        for b in range(2):
            x, y = ([sums(scores[m], aucs[m], c) for c in (0, 1)] for m in (a, b))
            expected = (share(0) * x[0] @ y[0] + share(1) * x[1] @ y[1]
                        + share(None) * (x[0] @ y[1] + x[1] @ y[0]))
            assert covariance[a, b] == pytest.approx(expected, abs=1e-12)

def test_delongs_variance_is_right_where_patients_have_films_of_both_classes():
    rng, label = np.random.default_rng(4), np.tile([0, 0, 1], 30)
    aucs, variances, apart = [], [], []
    for _ in range(600):
        score = label + 2 * np.repeat(rng.normal(size=30), 3) + rng.normal(size=90)
        auc, covariance = delong(label, score[None], np.repeat(range(30), 3))
        aucs.append(auc[0])
        variances.append(covariance[0, 0])
        apart.append(delong(label, score[None], range(90))[1][0, 0])   # as if of 90 patients
    assert np.mean(variances) == pytest.approx(np.var(aucs), rel=.15)
    assert np.mean(apart) > 1.5 * np.var(aucs)

@pytest.mark.parametrize("label, patients", [
    ([0, 0, 0, 1], [0, 1, 2, 3]), ([0, 0, 1, 1], [0, 1, 2, 2]), ([0, 1, 1, 1], [0, 1, 2, 3])])
def test_one_patient_of_a_class_has_no_interval_and_no_test(label, patients):
    table = pd.DataFrame(dict(path=range(4), label=label, probability=[.1, .6, .4, .9], patient_id=patients))
    assert np.isnan(auroc_interval(table)).all() and np.isnan(intervals(table, .5, 1, 20)["roc_auc"]).all()
    pair = paired_tests(dict(a=table, b=table.assign(probability=[.1, .2, .6, .3])), .5, draws=20).iloc[0]
    assert np.isnan([pair.auroc_low, pair.auroc_high]).all() and pair.p_auroc == 1
    assert np.isfinite(pair[["p", "p_calls", "p_holm", "p_auroc_holm", "p_calls_holm"]].astype(float)).all()
    assert not pair_differences(pair)

def test_paired_tests_reject_equal_models_rarely_and_find_a_real_difference():
    rng, rejected = np.random.default_rng(2), 0
    for k in range(150):
        table = drawn(rng, patients=80, films=1)
        scores = norm.ppf(table.probability)
        noisy = [table.assign(probability=norm.cdf(scores + .5 * rng.normal(size=len(table)))) for _ in "ab"]
        rejected += paired_tests(dict(zip("ab", noisy)), .5, draws=20).p_auroc[0] < .05
    assert 2 <= rejected <= 15   # 7.5 expected
    worse = table.assign(probability=np.random.default_rng(0).random(len(table)))
    pair = paired_tests(dict(a=table, b=worse), .5, draws=200).iloc[0]
    assert pair.p_auroc < .01 and pair.auroc_low > 0 and pair.accuracy_low > 0

def test_pairs_are_corrected_together_and_a_model_equals_itself():
    table = drawn(np.random.default_rng(3), patients=40, films=1)
    turned = table.assign(probability=1 - table.probability)
    pairs = paired_tests(dict(a=table, b=table, c=turned), .5, draws=20)
    assert len(pairs) == 3 and (pairs.p_holm >= pairs.p).all()
    together = holm([*pairs.p_auroc, *pairs.p_calls])
    assert np.allclose([*pairs.p_auroc_holm, *pairs.p_calls_holm], together)
    same = pairs[(pairs["first"] == "a") & (pairs["second"] == "b")].iloc[0]
    assert same.p == 1 and same.p_auroc == 1 and same.auroc_difference == 0

def test_the_patient_test_counts_all_signs():
    rng = np.random.default_rng(8)
    for _ in range(20):
        better, patients = rng.integers(-1, 2, 12), rng.integers(0, 7, 12)
        balance = np.array([better[patients == p].sum() for p in set(patients)])
        signs = np.array(np.meshgrid(*[[-1, 1]] * len(balance))).reshape(len(balance), -1)
        as_uneven = np.abs(np.abs(balance) @ signs) >= abs(balance.sum())
        assert patient_sign_test(better, patients) == pytest.approx(as_uneven.mean())

def test_a_measure_with_one_class_is_undefined_not_wrong():
    table = drawn(np.random.default_rng(4))
    sick = table[table.label == 1]
    measures = all_measures(sick, .5)
    assert np.isnan(measures["roc_auc"][0]) and np.isnan(measures["specificity"][0])
    assert measures["sensitivity"][0] == (sick.probability >= .5).mean()
    assert all(np.isnan(v) for v in intervals(sick, .5, 0, 50)["specificity"])

def test_auroc_is_scikit_learns_with_ties_and_weights():
    rng = np.random.default_rng(9)
    for _ in range(50):
        label, score, weights = rng.integers(0, 2, 40), rng.integers(0, 9, 40) / 8, rng.integers(0, 4, 40)
        expected = roc_auc_score(label, score, sample_weight=weights)
        assert auroc(label, score, weights) == pytest.approx(expected)

def test_youdens_threshold_is_that_of_scikit_learns_curve():
    rng = np.random.default_rng(10)
    for k in range(100):
        films, steps = int(rng.integers(4, 60)), rng.choice([3, 20, 1000])
        label = np.r_[0, 1, rng.integers(0, 2, films - 2)]
        probability = (rng.integers(0, steps + 1, films) / steps + (k % 3 - 1) * (label - .5)).clip(0, 1)
        false_alarms, sensitivity, cuts = roc_curve(label, probability, drop_intermediate=False)
        gain = np.round(sensitivity - false_alarms, 12)[1:]         # the first is infinity
        cut = cuts[1 + np.argmax(gain)]
        below = max([0, *probability[probability < cut]])
        table = pd.DataFrame(dict(label=label, probability=probability))
        assert youden_threshold(table) == (cut + below) / 2

@pytest.mark.parametrize("label, probability, expected", [
    ([0, 1, 1], [.9, .8, .7], .35),           # the wrong way round: every film is called
    ([0, 1], [.9, .1], .05), ([0, 1], [.5, .5], .25), ([0, 1], [.1, .9], .5),
    ([1, 0, 0, 1], [.9, .8, .2, .1], .85)])   # a cut that is better than guessing is found
def test_youdens_rule_takes_no_cut_that_is_worse_than_guessing(label, probability, expected):
    table = pd.DataFrame(dict(label=label, probability=probability))
    assert youden_threshold(table) == pytest.approx(expected)

def test_a_share_of_films_is_that_many_films():
    for n in [*range(1, 41), 100, 1000]:
        table = pd.DataFrame(dict(label=1, probability=np.arange(1, n + 1) / (n + 1)))
        for k in range(1, n + 1, max(1, n // 100)):   # 55 of 100 among them
            called = (table.probability >= sensitivity_threshold(table, k / n)).sum()
            assert called == k

def test_thresholds_of_all_draws_are_those_of_each():
    table = drawn(np.random.default_rng(6), patients=30)
    table = table.assign(probability=table.probability.round(1))
    weights = next(patient_draws(table.patient_id, 40, 0))
    for rule in RULES.values():
        alone = [rule(table.loc[np.repeat(table.index, w)]) for w in weights]
        assert np.array_equal(rule(table, weights=weights), alone)

def test_thresholds_come_from_validation_alone():
    rng = np.random.default_rng(5)
    parts = [drawn(rng).assign(split=split) for split in ("validation", "test")]
    table = pd.concat(parts, ignore_index=True)
    first = threshold_table(dict(a=table), .5, draws=20)
    kept = table.split == "validation"
    turned = table.assign(probability=table.probability.where(kept, 1 - table.probability))
    second = threshold_table(dict(a=turned), .5, draws=20)
    assert first.threshold.tolist() == second.threshold.tolist()
    assert list(first.chosen) == ["fixed", "Youden", "sensitivity .95", "sensitivity .98"]
    assert (first.validation_sensitivity[2:] >= [.95, .98]).all()
    assert not np.allclose(first.sensitivity, second.sensitivity)

@pytest.mark.parametrize("wanted", [.5, .95, .98, 1])
def test_no_larger_threshold_reaches_the_sensitivity(wanted):
    table = drawn(np.random.default_rng(5))
    value, sick = sensitivity_threshold(table, wanted), table.probability[table.label == 1]
    assert (sick >= value).mean() >= wanted and (sick > sick[sick >= value].min()).mean() < wanted

def test_bayes_rule_gives_back_the_counts():
    table = drawn(np.random.default_rng(6))
    m = {k: float(v[0]) for k, v in all_measures(table, .5).items()}
    ppv, npv = predictive_values(m["sensitivity"], m["specificity"], table.label.mean())
    assert ppv == pytest.approx(m["ppv"]) and npv == pytest.approx(m["npv"])

def test_subgroups_and_errors_say_what_the_films_say():
    table = drawn(np.random.default_rng(7)).assign(
        split="test", kind="bacteria", series="bacteria", films_of_patient=3)
    table.loc[table.label == 0, ["kind", "series"]] = "normal", "IM"
    groups = subgroup_table(dict(a=table), .5, 0, 50).set_index(["by", "group", "label"])
    normal, pneumonia = table[table.label == 0], table[table.label == 1]
    assert groups.rate["kind", "normal", 0] == (normal.probability < .5).mean()
    assert groups.films["films of the patient", "2 or 3", 1] == len(pneumonia)
    assert groups.patients["kind", "bacteria", 1] == len(pneumonia) / 3
    shown = telling_films(table, .5, 2)
    assert shown.probability[shown.why == "normal, called pneumonia"].iloc[0] == normal.probability.max()
    assert (shown.why == "least certain").sum() == 2

def test_a_flat_choice_has_a_wide_interval_and_a_clear_one_a_narrow_one():
    rng = np.random.default_rng(2)
    apart = pd.DataFrame(dict(label=[0, 1] * 100, patient_id=range(200), probability=[.2, .8] * 100))
    flat = apart.assign(probability=rng.uniform(size=200))  # says nothing: any threshold is as good
    (low, high), (flat_low, flat_high) = (
        threshold_interval(table, youden_threshold, 1, 100) for table in (apart, flat))
    assert low == high == youden_threshold(apart) and flat_high - flat_low > .5
    assert threshold_interval(apart, youden_threshold, 1, 100) == (low, high)

def test_films_with_tall_side_markers_are_a_group_of_their_own():
    table = drawn(np.random.default_rng(3)).assign(
        split="test", kind="bacteria", series="bacteria", films_of_patient=1)
    marked = table.assign(marker=np.where(np.arange(len(table)) % 4 == 0, .08, .04))
    groups = subgroup_table(dict(a=marked), .5, 0, 50).set_index(["by", "group", "label"])
    tall = marked[(marked.marker == .08) & (marked.label == 0)]
    assert groups.rate["side marker", "tall", 0] == (tall.probability < .5).mean()
    assert groups.films["side marker", "tall", 0] == len(tall)
    for unmarked in (table, table.assign(marker=np.nan), table.assign(marker=.04)):
        assert "side marker" not in set(subgroup_table(dict(a=unmarked), .5, 0, 50)["by"])

def test_calibration_of_separated_classes_does_not_stop_the_evaluation():
    table = pd.DataFrame(dict(label=[0] * 20 + [1] * 20, probability=[.01] * 20 + [.99] * 20,
                              patient_id=range(40)))
    line = calibration_line(table, "probability")
    assert set(line) == {f"{n}{s}" for n in ("slope", "intercept") for s in ("", "_low", "_high")}
    assert np.isnan(line["slope"]) and np.isfinite(line["intercept"])

def test_calibration_bears_any_probabilities():
    rng = np.random.default_rng(12)
    for k in range(300):
        films = int(rng.integers(3, 40))
        probability = np.round(rng.random(films), int(rng.integers(0, 4)))   # many 0 and 1, on either side
        table = pd.DataFrame(dict(label=rng.integers(0, 2, films), probability=probability,
                                  patient_id=rng.integers(0, films, films)))
        line, classes = calibration_line(table, "probability"), table.label.nunique()
        assert np.isfinite(line["intercept"]) == (classes == 2)

def sure_misses(n, chance):
    "Half of `n` films are sick; one of them has almost no probability."
    rng, label = np.random.default_rng(13), np.repeat([0, 1], n // 2)
    p = 1 / (1 + np.exp(-rng.normal(1.5 * (2 * label - 1), 1.5)))
    p[-1] = chance
    return pd.DataFrame(dict(label=label, probability=p, patient_id=np.arange(n) // 2))

@pytest.mark.parametrize("films, chance", [(100, 1e-20), (100, 1e-16), (624, 1e-20), (624, 1e-30)])
def test_one_sure_miss_leaves_the_calibration_an_honest_interval(films, chance):
    from scipy.optimize import minimize
    table = sure_misses(films, chance)
    line, odds = calibration_line(table, "probability"), logit(table.probability)
    label = table.label.to_numpy()
    cases = dict(slope=(np.c_[np.ones(films), odds], 0 * odds), intercept=(np.ones((films, 1)), odds))
    for name, (given, offset) in cases.items():
        loss = lambda c: np.logaddexp(0, (1 - 2 * label) * (given @ c + offset)).sum()
        c = minimize(loss, np.zeros(given.shape[1]), method="Nelder-Mead",
                     options=dict(xatol=1e-9, fatol=1e-12, maxiter=4000)).x
        p = 1 / (1 + np.exp(-(given @ c + offset)))
        bread = np.linalg.inv((given * (p * (1 - p))[:, None]).T @ given)
        sums = pd.DataFrame(given * (label - p)[:, None]).groupby(table.patient_id).sum().to_numpy()
        patients, k = len(sums), given.shape[1]
        meat = patients / (patients - 1) * (films - 1) / (films - k) * sums.T @ sums
        half = 1.959964 * np.sqrt((bread @ meat @ bread)[-1, -1])
        ours = [line[name], line[f"{name}_low"], line[f"{name}_high"]]
        assert half > .05 and np.allclose(ours, [c[-1], c[-1] - half, c[-1] + half], atol=1e-4)

def test_fifty_zeros_and_ones_with_one_sure_miss():
    probability = np.r_[np.full(50, .3), np.full(49, .7), 1e-20]
    table = pd.DataFrame(dict(label=np.repeat([0, 1], 50), probability=probability, patient_id=range(100)))
    line = calibration_line(table, "probability")
    for name in ("slope", "intercept"):
        assert line[f"{name}_low"] + .01 < line[name] < line[f"{name}_high"] - .01   # once one number

def test_honest_probabilities_have_a_calibration_error_below_the_limit_in_95_of_100_sets():
    rng, above = np.random.default_rng(14), []
    p = 1 / (1 + np.exp(-rng.normal(0, 3, 624)))
    limit = honest_calibration_error(p, 1)
    above = [calibration_error((rng.random(624) < p).astype(int), p) > limit for _ in range(400)]
    assert .02 < limit < .06 and .02 < np.mean(above) < .09
    label = (rng.random(624) < p).astype(int)
    assert calibration_error(label, p ** 2) > honest_calibration_error(p ** 2, 1)   # too little promised
    assert honest_calibration_error(p, 1) == limit and honest_calibration_error(p, 2, 200) != limit

@pytest.mark.parametrize("seed", range(5))
def test_calibration_is_statsmodels_regression_with_clustered_errors(seed):
    import statsmodels.api as sm
    rng = np.random.default_rng(seed)
    odds, patients = rng.normal(rng.normal(), 1 + seed, 300), rng.integers(0, 90, 300)
    label = (rng.random(300) < 1 / (1 + np.exp(-(.7 * odds + .3)))).astype(int)
    table = pd.DataFrame(dict(label=label, probability=1 / (1 + np.exp(-odds)), patient_id=patients))
    line, binomial = calibration_line(table, "probability"), sm.families.Binomial()
    models = dict(slope=sm.GLM(label, sm.add_constant(odds), family=binomial),
                  intercept=sm.GLM(label, np.ones((300, 1)), family=binomial, offset=odds))
    for name, model in models.items():
        fit = model.fit(cov_type="cluster", cov_kwds=dict(groups=patients))
        expected = fit.params[-1], *fit.conf_int()[-1]
        assert np.allclose([line[name], line[f"{name}_low"], line[f"{name}_high"]], expected, atol=1e-6)

def test_corrections_and_proportions_are_statsmodels():
    from statsmodels.stats.multitest import multipletests   # one call: each collects garbage, .2 s
    from statsmodels.stats.proportion import proportion_confint
    p = np.random.default_rng(11).random(30).round(2) ** 3
    assert np.array_equal(holm(p), multipletests(p, method="holm")[1])
    for n in (1, 2, 7, 50):
        for count in range(n + 1):
            exact, wilson = (proportion_interval(count, n, method) for method in ("exact", "wilson"))
            assert np.allclose(exact, proportion_confint(count, n, method="beta"), atol=1e-12)
            assert np.allclose(wilson, proportion_confint(count, n, method="wilson"), atol=1e-7)

def test_folds_keep_patients_and_films_in_common_together():
    normal = [f"train/NORMAL/IM-{n:04d}-0001.jpeg" for n in range(20)]
    sick = [f"train/PNEUMONIA/person{n}_virus_{k}.jpeg" for n in range(10) for k in (1, 2)]
    patients = [n.split("/")[-1][:7] for n in normal] + [f"person{n // 2}_virus" for n in range(20)]
    images = pd.DataFrame(dict(path=normal + sick, split="train", patient_id=patients,
                               sha1=[str(n) for n in range(40)]))
    images.loc[[0, 19], "sha1"] = "same film"  # the first and the last patient by number share a film
    folds = number_folds(images, 4)
    assert folds[0] == folds[19] == 0 and set(folds) == {0, 1, 2, 3}
    assert images.assign(fold=folds).groupby("patient_id").fold.nunique().max() == 1
    assert (np.diff(folds[:19]) >= 0).all()

def test_folds_across_series_hold_one_series_of_normal_films_and_stretches_of_pneumonia():
    series = ("IM", "NORMAL2-IM")
    normal = [f"train/NORMAL/{name}-{100 + n:04d}-0001.jpeg" for name in series for n in range(10)]
    sick = [f"train/PNEUMONIA/person{n}_bacteria_{n}.jpeg" for n in range(16)]
    images = pd.DataFrame(dict(path=[*normal, *sick, "test/NORMAL/IM-0001-0001.jpeg"],
                               split=["train"] * 36 + ["test"],
                               kind=["normal"] * 20 + ["bacteria"] * 16 + ["normal"]))
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
    before = [trait[sick == c].mean() for c in (0, 1)]
    weighted = [np.average(trait[sick == c], weights=weights[sick == c]) for c in (0, 1)]
    assert abs(before[1] - before[0]) > .9 and abs(weighted[1] - weighted[0]) < .03
    assert abs(auroc(sick, trait, weights) - .5) < .02 and auroc(sick, shared, weights) > .6
    assert ((weights >= 0) & (weights <= 1)).all()
