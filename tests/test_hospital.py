"""A detector on the films of hospital B, drawn, as DICOM: judged, and adjusted."""
import re

import numpy as np
import pandas as pd
import pytest

from pneumo_nb.detector import Detector, read_bundle, write_bundle
from pneumo_nb.hospital import (
    LEAST_PATIENTS, fit_calibration, local_answers, local_films, recalibrate, recalibrated)
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
