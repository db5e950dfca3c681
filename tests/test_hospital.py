"""A detector on the films of hospital B, drawn, as DICOM: judged, and adjusted."""
import re, shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pneumo_nb.detector import Detector, read_bundle, write_bundle
from pneumo_nb.hospital import (
    LEAST_PATIENTS, compare_with_own, fit_calibration, judge_films, judged_groups, local_answers, local_films,
    recalibrate, recalibrated, recalibration_trial, trial_shares)
from pneumo_nb.films import data_fingerprint, scan_dataset
from pneumo_nb.judge import judge
from pneumo_nb.measures import calibration_line
from pneumo_nb.phantom import make_dataset
from pneumo_nb.run import StudyError, read_json, read_looks

@pytest.fixture(scope="module")
def detector(bundle): return Detector.load(bundle)

@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    place = tmp_path_factory.mktemp("b")/"hospital_b"
    return make_dataset(place, 110, 60, 5, 0, hospital="B", file_format="dicom")

@pytest.fixture(scope="module")
def answers(detector, hospital): return local_answers(detector, local_films(hospital))

def test_all_films_are_judged_whatever_their_split(answers):
    assert len(answers) == 170 and .2 < answers.label.mean() < .4 and answers.patient_id.nunique() < 170

def test_a_judgement_is_a_page_with_tables_and_counts_as_a_look(detector, hospital, answers, tmp_path):
    (hospital/"train/NORMAL/IM-0999-0001.dcm").write_bytes(b"no film")
    try:
        with pytest.warns(UserWarning, match="left out 1 path"):
            page = judge(detector, hospital, tmp_path/"out", draws=50)
    finally: (hospital/"train/NORMAL/IM-0999-0001.dcm").unlink()
    facts, text = read_json(tmp_path/"out/judgement.json"), page.read_text()
    assert facts["detector"] == detector.digest and detector.digest in text and facts["looks"] == 1
    assert [look["stage"] for look in read_looks(facts["fingerprint"])] == ["judge"]
    assert "IM-0999-0001.dcm was left out" in text and "No medical device" in text
    assert not re.search(r"\bnan\b|<td>None", text) and not re.search(r'(?:src|href)="(?!#|data:)', text)
    rules = pd.read_csv(tmp_path/"out/rules.csv").set_index("rule")
    assert rules.threshold.to_dict() == pytest.approx(detector.card["thresholds"])
    called = answers.probability >= rules.threshold.sensitivity95
    assert rules.sensitivity.sensitivity95 == pytest.approx(called[answers.label == 1].mean())
    assert sorted(f.name for f in tmp_path.iterdir() if f.name.startswith(".")) == []
    with pytest.raises(StudyError, match="absent or empty folder"): judge(detector, hospital, tmp_path/"out")

def test_recalibration_remembers_its_parent_and_mends_other_films(bundle, detector, answers, tmp_path):
    parent, local = read_bundle(bundle), ~answers.patient_id.isin(answers.patient_id.unique()[::4])
    changed = recalibrated(parent, answers[local], "b", draws=50)
    digest = write_bundle(changed, tmp_path/"b.pneumo")
    again = Detector.load(tmp_path/"b.pneumo")
    assert again.card["parent"] == parent.digest != digest and changed.network == parent.network
    rest = answers[~local]
    odds = lambda p: np.log(p / (1 - p))
    line = changed.card["calibration"]
    adjusted = lambda p: 1 / (1 + np.exp(-line["intercept"] - line["slope"] * odds(p)))
    mended = rest.assign(probability=adjusted(rest.probability))
    before, after = (abs(calibration_line(table, "probability")["intercept"]) for table in (rest, mended))
    assert after < max(before, .8)
    noise = np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)
    p, q = (float(one.predict(noise).probability[0]) for one in (detector, again))
    assert q == pytest.approx(adjusted(p), abs=1e-5)

def test_too_few_films_are_refused_and_the_missing_counted(bundle, tmp_path):
    root = make_dataset(tmp_path/"few", 12, 12, 5, 0, hospital="B", file_format="png")
    with pytest.raises(StudyError, match=rf"at least {LEAST_PATIENTS} normal .* \d+ more pneumonia patients"):
        recalibrate(read_bundle(bundle), root)

def test_calibration_is_found_again_with_many_films_and_finite_with_few():
    rng = np.random.default_rng(1)
    truth = rng.normal(0, 2, 50_000)
    labels = rng.random(50_000) < 1 / (1 + np.exp(-truth))
    assert fit_calibration(labels, truth / 2 + .7) == pytest.approx((-1.4, 2), abs=.1)
    assert np.isfinite(fit_calibration([0] * 20 + [1] * 20, [-9.] * 20 + [9.] * 20)).all()

@pytest.fixture(scope="module")
def few(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("few")/"few", 14, 14, 5, 0, hospital="B", file_format="png")

def test_films_in_folders_of_a_child_are_judged_and_those_of_no_class_named(few, tmp_path):
    films = sorted(few.glob("t*/*/*.png"))
    for n, film in enumerate(films):
        place = tmp_path/film.parent.name/f"child{n}"
        place.mkdir(parents=True)
        shutil.copy(film, place)
    (tmp_path/"later").mkdir()
    shutil.copy(films[0], tmp_path/"later/a.png")
    found = local_films(tmp_path)
    assert len(found) == len(films) == 28
    assert found.attrs["left_out"] == {"later/a.png": "in no folder of one class"}

def test_the_ledger_knows_judged_films_as_a_study_of_them_does(few):
    assert data_fingerprint(local_films(few)) == data_fingerprint(scan_dataset(few))

def test_the_films_of_its_own_run_are_neither_judged_nor_recalibrated_on(detector, few):
    own = dict(fingerprint=data_fingerprint(scan_dataset(few)))
    here = Detector(replace(detector.bundle, card=detector.card | dict(provenance=own)))
    with pytest.raises(StudyError, match="set of its own run"): judge_films(here, few, draws=20)
    with pytest.raises(StudyError, match="set of its own run"): recalibrate(here.bundle, few)

def test_a_recalibrated_card_keeps_of_its_test_what_did_not_change(bundle, answers):
    own = dict(roc_auc=.9, roc_auc_low=.8, roc_auc_high=.95, accuracy=.8, brier=.1, threshold=.5, films=20,
               prevalence=.5)
    parent = read_bundle(bundle)
    parent = replace(parent, card=parent.card | dict(own_test=own))
    kept = recalibrated(parent, answers, "b", draws=20).card["own_test"]
    assert kept == dict(roc_auc=.9, roc_auc_low=.8, roc_auc_high=.95, films=20, prevalence=.5)

def test_a_comparison_is_made_at_the_threshold_of_the_test(detector, few):
    answers = local_answers(detector, local_films(few))
    sides = {f"{name}{end}": .5 for name in ("accuracy", "roc_auc") for end in ("", "_low", "_high")}
    middle = float(answers.probability.median())
    card = detector.card | dict(own_test=sides | dict(threshold=middle))
    here = Detector(replace(detector.bundle, card=card))
    row = judge_films(here, few, draws=20)["comparison"].set_index("measure").loc["accuracy"]
    assert row.here == pytest.approx(((answers.probability >= middle) == (answers.label == 1)).mean())

def test_a_difference_from_a_test_that_found_nearly_all_is_possible():
    here = {"sensitivity": 1., "sensitivity_low": .94, "sensitivity_high": 1.}
    own = {"sensitivity": .97, "sensitivity_low": .95, "sensitivity_high": .99}
    row = compare_with_own(here, own).iloc[0]
    assert (row.low, row.high) == pytest.approx((.03 - np.hypot(.06, .02), .03 + .02))

def test_many_films_of_a_patient_make_a_share_no_surer():
    once = pd.DataFrame(dict(label=1, kind="virus", probability=[.9] * 15 + [.1] * 5, flags="",
                             patient_id=[f"p{n}" for n in range(20)]))
    often = pd.concat([once] * 9, ignore_index=True)
    one, many = (judged_groups(table, .5).iloc[0] for table in (once, often))
    assert (many.films, many.patients) == (180, 20)
    assert (many.right_low, many.right_high) == pytest.approx((one.right_low, one.right_high))

def test_answers_are_never_turned_round(bundle, answers):
    odds = np.where(answers.label == 1, -2., 2.) + np.linspace(-1, 1, len(answers))
    wrong = answers.assign(probability=1 / (1 + np.exp(-odds)))
    with pytest.raises(StudyError, match="found a slope of -"):
        recalibrated(read_bundle(bundle), wrong, "b", draws=20)

def test_a_trial_judges_the_same_films_with_and_without():
    rng = np.random.default_rng(2)
    truth = rng.normal(0, 2, 400)
    films = pd.DataFrame(dict(label=(rng.random(400) < 1 / (1 + np.exp(-truth))).astype(int),
                              probability=1 / (1 + np.exp(-truth - 2)), patient_id=range(400)))
    trial = recalibration_trial(films, .5, sizes=(25, 100), repeats=4)
    before = trial[trial["size"] == 25].set_index("repeat")
    none = trial[trial["size"] == 0].set_index("repeat")
    assert (before.intercept_before == none.intercept).all()   # a row of size 0 judges what 25 films left
    assert (before.intercept != none.intercept).all()
    shares = trial_shares(trial).set_index("size")
    assert shares.loc[100, "intercept farther from 0"] == 0 and shares.refused.to_dict() == {25: 1, 100: 0}

def test_a_table_of_films_is_taken_as_well_and_its_split_does_not_count(hospital, tmp_path):
    films = sorted((hospital/"test").glob("*/*.dcm"))[::2]
    lines = [f"{film.relative_to(hospital)};{film.parent.name};test" for film in films]
    (tmp_path/"films.csv").write_text("path;label;split\n" + "\n".join(lines))
    images = local_films(hospital, tmp_path/"films.csv")
    assert len(images) == 30 and images.label.sum() == sum(f.parent.name == "PNEUMONIA" for f in films)
