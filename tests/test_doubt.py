"""When not to answer: strange films are flagged, sets hold what they promise, and fewer answers are surer."""
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from pneumo_nb import evaluation
from pneumo_nb.cache import decoded
from pneumo_nb.doubt import (
    STRANGE, conformal_quantiles, conformal_sets, coverage_table, covered, false_flags, fit_reference,
    flags_of, reference_arrays, reference_from, resplit_coverage, risk_coverage, share_interval,
    strange_films, unlikeness)
from pneumo_nb.films import scan_dataset
from pneumo_nb.phantom import make_dataset
from pneumo_nb.run import StudyError, rng_for

# ---- unlike the films it learned from

@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    "Pixels and patients of phantoms to learn from, and of others."
    root = make_dataset(tmp_path_factory.mktemp("doubt")/"set", n_train=180, n_test=30, n_val=0, seed=3)
    images = scan_dataset(root)
    pixels = np.concatenate(list(decoded(root, images.path, 64)))
    is_test = (images.split == "test").to_numpy()
    return [(pixels[of], images.patient_id[of].to_numpy()) for of in (~is_test, is_test)]

@pytest.fixture(scope="module")
def reference(phantoms): return fit_reference(*phantoms[0])

@pytest.fixture(scope="module")
def strange(phantoms): return strange_films(phantoms[1][0], seed=1)

def flagged(reference, films): return unlikeness(reference, films) > reference.threshold

@pytest.mark.parametrize("kind", STRANGE)
def test_strange_films_are_flagged(reference, strange, kind):
    assert flagged(reference, strange[kind]).mean() >= .9

def test_films_in_order_are_flagged_about_as_rarely_as_asked(phantoms):
    pixels, patients = phantoms[0]
    flags = false_flags(pixels, patients)
    share, low, high = share_interval(flags, patients)
    assert low < .05 < high and share < .1

def test_a_rarer_flag_is_less_often_raised(phantoms):
    (pixels, patients), (others, _) = phantoms
    thresholds = [fit_reference(pixels, patients, rate=rate).threshold for rate in (.3, .1, .05)]
    assert thresholds == sorted(thresholds) and len(set(thresholds)) == 3

@pytest.mark.parametrize("gray", [0, 7, 128, 255])
def test_an_empty_film_of_any_gray_is_flagged(reference, gray):
    assert flags_of(reference, np.full((1, 64, 64), gray, np.uint8))[0]

@pytest.mark.parametrize("kind, words", [
    ("mirrored", "left and right perhaps exchanged"), ("rotated by 180°", "top and bottom perhaps exchanged"),
    ("inverted", "gray levels"), ("blank", "sharpness or empty margins"), ("noise", "sharpness")])
def test_a_flag_says_what_is_strange(reference, strange, kind, words):
    flags = [flag for film in flags_of(reference, strange[kind]) for flag in film]
    assert all(flag.startswith("unlike the films it learned from: ") for flag in flags)
    assert np.mean([words in flag for flag in flags]) > .8

def test_a_film_has_words_if_and_only_if_its_score_is_above_the_threshold(reference, phantoms, strange):
    films = np.concatenate([phantoms[1][0], strange["mirrored"]])
    assert [bool(flags) for flags in flags_of(reference, films)] == flagged(reference, films).tolist()
    assert flags_of(reference, films[:0]) == []

def test_a_score_does_not_depend_on_the_films_beside(reference, phantoms):
    films = np.concatenate([phantoms[0][0], phantoms[1][0], phantoms[0][0]])   # measured in two parts
    alone = [unlikeness(reference, films[n:n + 1])[0] for n in (0, 190, 380)]
    assert unlikeness(reference, films)[[0, 190, 380]] == pytest.approx(alone, rel=1e-5)

def test_a_reference_is_kept_without_pickle_and_is_small(reference, phantoms, tmp_path):
    np.savez(tmp_path/"reference.npz", **reference_arrays(reference))
    assert (tmp_path/"reference.npz").stat().st_size < 400_000
    with np.load(tmp_path/"reference.npz", allow_pickle=False) as arrays: again = reference_from(arrays)
    assert (unlikeness(again, phantoms[1][0]) == unlikeness(reference, phantoms[1][0])).all()
    assert (again.threshold, again.rate) == (reference.threshold, .05)

def test_the_same_seed_gives_the_same_reference_and_films(phantoms, reference, strange):
    assert fit_reference(*phantoms[0]).threshold == reference.threshold
    assert fit_reference(*phantoms[0], seed=7).threshold != reference.threshold
    again = strange_films(phantoms[1][0], seed=1)
    assert all((again[kind] == films).all() for kind, films in strange.items())

@pytest.mark.parametrize("side", [17, 24])
def test_small_films_have_a_reference_as_well(phantoms, side):
    pixels = phantoms[0][0][:, 10:10 + side, 5:5 + side]
    reference = fit_reference(pixels, phantoms[0][1])
    assert flagged(reference, pixels).mean() < .12 and flagged(reference, 255 - pixels).mean() > .9

def test_too_few_patients_are_refused(phantoms):
    pixels, patients = phantoms[0]
    with pytest.raises(StudyError, match="at least 24 patients.*found 1; give more films"):
        fit_reference(pixels, np.repeat(patients[0], len(pixels)))

# ---- sets of answers

def simulated(seed, patients=198, films=1, shift=0.):
    "Labels, probabilities and patients; films of one patient are alike."
    rng, label = np.random.default_rng(seed), np.repeat([0, 1], patients)
    of_patient = np.repeat(rng.normal(2 * label - 1 + shift, 1), films)
    odds = of_patient + rng.normal(0, .7, len(of_patient))
    return np.repeat(label, films), 1 / (1 + np.exp(-odds)), np.repeat(np.arange(2 * patients), films)

@pytest.mark.parametrize("level, patients", [(.9, 198), (.8, 98), (.95, 118)])
def test_resplits_cover_within_two_standard_errors_of_what_is_promised(level, patients):
    "A half has n patients, and (n + 1) times the level is whole: nothing is lost to rounding."
    table = resplit_coverage(*simulated(3, patients), level)
    assert (np.abs(table.coverage - level) < 2 * table.error).all() and (table.error < .003).all()

def test_resplits_hold_what_is_promised_where_patients_have_several_films():
    table = resplit_coverage(*simulated(4, films=3))
    assert table.coverage.between(.9 - 2 * table.error, table.at_most).all()

def test_each_class_is_covered_even_if_one_is_rare_and_harder():
    "Limits set without regard to the class would be those of the common one."
    labels, probabilities, patients = simulated(5, 400, shift=1.)
    kept = (labels == 1) | (patients % 5 == 0)
    fresh = simulated(6, 4000, shift=1.)
    limits = conformal_quantiles(labels[kept], probabilities[kept], patients[kept])
    coverage = coverage_table(*fresh, limits, draws=20).set_index("class").coverage
    assert (np.abs(coverage - .9) < .06).all()
    pooled = np.quantile(np.where(labels == 1, 1 - probabilities, probabilities)[kept], .9)
    alike = coverage_table(*fresh, dict(normal=pooled, pneumonia=pooled), draws=20)
    assert alike.coverage[0] < .8

def test_a_patient_with_many_films_counts_once():
    labels, probabilities, patients = simulated(7, 100)
    many = [np.r_[values, np.full(500, value)] for values, value in
            ((labels, 1), (probabilities, .01), (patients, patients[-1]))]
    once = np.r_[probabilities[:-1], .01]
    assert conformal_quantiles(*many)["pneumonia"] == pytest.approx(
        conformal_quantiles(labels, once, patients)["pneumonia"], abs=.03)

def test_sets_do_not_depend_on_a_temperature():
    labels, p, patients = simulated(8)
    hot = 1 / (1 + np.exp(-np.log(p / (1 - p)) / 3))
    sets = [conformal_sets(q, conformal_quantiles(labels, q, patients)) for q in (p, hot)]
    assert sets[0] == sets[1] and len(Counter(sets[0])) > 2

def test_shifted_films_are_not_covered_as_promised():
    limits = conformal_quantiles(*simulated(9, 500))
    coverage = coverage_table(*simulated(10, 500, shift=1.5), limits, draws=20).set_index("class").coverage
    assert coverage["normal"] < .7 and coverage["pneumonia"] > .95

def test_with_too_few_patients_nothing_is_ruled_out():
    limits = conformal_quantiles([0] * 8 + [1] * 9, np.linspace(0, 1, 17), range(17))
    assert limits["normal"] == np.inf and limits["pneumonia"] < np.inf
    assert set(conformal_sets([0., .2, 1.], limits)) <= {"normal", "both"}
    table = resplit_coverage([0, 1], [.1, .9], ["a", "b"])
    assert table.coverage.isna().all()

def test_what_a_set_covers():
    assert covered([0, 0, 0, 1, 1], ["normal", "both", "neither", "pneumonia", "normal"]).tolist() == [
        True, True, False, True, False]
    one_class = coverage_table([1, 1], [.2, .9], ["a", "b"], dict(normal=.5, pneumonia=.5))
    assert np.isnan(one_class.coverage[0]) and one_class.coverage[1] == .5
    assert one_class.wrong[1] == .5

def test_an_interval_of_a_share_counts_patients():
    flags = np.random.default_rng(0).random(100) < .3
    narrow, wide = (share_interval(np.repeat(flags, 4), names) for names in (range(400), np.arange(400) // 4))
    assert narrow[0] == wide[0] == flags.mean()
    assert wide[2] - wide[1] > 1.7 * (narrow[2] - narrow[1])

# ---- risk against coverage

def test_risk_by_coverage_is_that_of_the_surest_films():
    labels, p, _ = simulated(11)
    curve, distance = risk_coverage(labels, p), np.abs(p - .5)   # at .5, the same order as log odds
    surest = np.argsort(-distance)[:100]
    assert curve.risk[99] == pytest.approx(np.mean((p[surest] >= .5) != labels[surest]))
    assert curve.risk.iloc[-1] == pytest.approx(np.mean((p >= .5) != labels)) and curve.coverage.iloc[-1] == 1
    order = rng_for(1).permutation(len(p))
    coarse = np.round(p, 1)
    pd.testing.assert_frame_equal(risk_coverage(labels, coarse), risk_coverage(labels[order], coarse[order]))

# ---- in the chapter on evaluation

def predictions(seed=12):
    "A model's answers about validation films and about shifted test films."
    tables = []
    for split, shift in (("validation", 0.), ("test", 1.5)):
        label, p, patient = simulated(seed, 60, films=2, shift=shift)
        tables.append(pd.DataFrame(dict(split=split, label=label, probability=p,
                                        patient_id=[f"{split}{n}" for n in patient])))
    return pd.concat(tables)

def test_the_chapter_sets_limits_by_validation_and_counts_on_test():
    answers = predictions()
    table = evaluation.set_table(dict(net=answers), draws=50).set_index("class")
    validation, test = (answers[answers.split == split] for split in ("validation", "test"))
    limits = conformal_quantiles(validation.label, validation.probability, validation.patient_id)
    assert table.limit.to_dict() == limits
    sets = np.array(conformal_sets(test.probability, limits))
    right = covered(test.label, sets)
    assert table.coverage["normal"] == pytest.approx(right[test.label == 0].mean())   # two films a patient
    assert table.validation_coverage.between(.88, .93).all() and table.coverage["normal"] < .7
    said = evaluation._set_findings(table.reset_index(), "net", "Net")
    assert said[0].startswith("- Sets of Net that shall hold the true class of 90% of patients hold it for ")

@pytest.mark.parametrize("change", [
    lambda t: t[t.split == "validation"], lambda t: t[t.split == "test"], lambda t: t[t.label == 1],
    lambda t: t.groupby(["split", "label"]).head(2), lambda t: t.assign(probability=.5)],
    ids=["no test", "no validation", "one class", "few", "constant"])
def test_the_chapter_has_something_to_show_for_any_answers(change):
    answers = change(predictions()).reset_index(drop=True)
    tests = evaluation.test_films(dict(net=answers))[1]
    sets = evaluation.set_table(dict(net=answers), draws=50)
    shown = evaluation._readable_sets(sets, dict(net="Net"))
    assert len(shown) == len(sets) and "nan" not in shown.to_string()
    assert "nan" not in "".join(evaluation._set_findings(sets, "net", "Net"))
    figure = evaluation._plot_risk(tests, sets, .5)
    assert figure.axes[0].get_lines()[0].get_xdata()[-1] == 1
