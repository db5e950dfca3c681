"""Phantoms of two hospitals, as JPEG, PNG and DICOM: what differs, and what does not."""
import hashlib
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from click.testing import CliRunner
from pydicom.pixels import apply_voi_lut

from pneumo_nb.cli import main
from pneumo_nb.films import check_dataset, dicom_remarks, patient_id, possible_films, read_film, scan_dataset
from pneumo_nb.phantom import FORMATS, HOSPITALS, _plan_films, draw_anatomy, draw_film, make_dataset
from pneumo_nb.run import StudyError, read_json, rng_for

FEW = dict(n_train=0, n_test=6, seed=1)
GOLDEN_NAMES = "e29c0893a2817d25987c946c351032c846744c73"   # of a set drawn before there was a hospital B
GOLDEN_GRAY = [138.8, 137.9, 159.4, 144.2, 146.4, 134.2]

@pytest.fixture(scope="module")
def at_b(tmp_path_factory):
    "The same few films of hospital B in each format."
    folder = tmp_path_factory.mktemp("phantoms")
    return {name: make_dataset(folder/name, **FEW, hospital="B", file_format=name) for name in FORMATS}

def files(root): return sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file())

def pairs(count=6):
    "Films and masks of the same children, at A and at B."
    for n in range(count):
        kind = ["normal", "bacteria", "virus"][n % 3]
        yield [draw_film(draw_anatomy(rng_for(n)), kind, rng_for(n, "film"), 300, hospital)
               for hospital in "AB"]

# ---- the same again

@pytest.mark.parametrize("name", FORMATS)
def test_a_seed_gives_the_same_bytes_in_every_format(at_b, tmp_path, name):
    again = make_dataset(tmp_path/"again", **FEW, hospital="B", file_format=name)
    assert files(again) == files(at_b[name]) and len(files(again)) == 13   # films, masks, the record
    for file in files(again): assert (again/file).read_bytes() == (at_b[name]/file).read_bytes(), file
    assert {file.suffix for file in files(again) if file.parts[0] == "test"} == {FORMATS[name]}

def test_hospital_a_draws_its_set_as_it_did_before_there_was_a_b(tmp_path):
    "Names and record to the byte; gray within a level, since other processors round otherwise."
    root = make_dataset(tmp_path/"set", n_train=6, n_test=6, seed=5, n_val=3)
    names = [file.as_posix() for file in files(root)]
    record = (root/"phantom.json").read_text()
    assert record.split() == '{ "train": 6, "test": 6, "val": 3, "seed": 5 }'.split()
    assert hashlib.sha1("\n".join(names).encode()).hexdigest() == GOLDEN_NAMES
    gray = [read_film(root/name).mean() for name in names if name.startswith("test/")]
    np.testing.assert_allclose(gray, GOLDEN_GRAY, atol=1)
    assert make_dataset(root, 6, 6, 5, 3, hospital="A", file_format="jpeg") == root   # not drawn again
    with pytest.raises(StudyError, match="Expected an absent or empty folder"):
        make_dataset(root, 6, 6, 5, 3, file_format="png")

# ---- what differs at hospital B

def sharpness(film):
    "Mean size of the second derivative at 224 pixels."
    small = cv2.resize(film, (224, 224), interpolation=cv2.INTER_AREA).astype(np.float32)
    return np.abs(cv2.Laplacian(small, cv2.CV_32F)).mean()

def test_films_of_b_are_less_sharp_and_of_other_gray_but_show_the_same_disease():
    for (film, mask), (other, same) in pairs():
        assert sharpness(other) < .6 * sharpness(film)
        assert other.std() < .95 * film.std() and other.max() == 235   # the marker's white
        lungs = film[90:190, 60:-60] < 90
        assert np.median(other[90:190, 60:-60][lungs]) > np.median(film[90:190, 60:-60][lungs]) + 5
        assert (mask == same).all()

def test_b_marks_the_other_side_with_a_larger_letter():
    for _, (film, _) in pairs():
        rows, columns = np.nonzero(film == 235)   # nothing else at B is as white
        assert columns.min() > .8 * film.shape[1] and columns.max() < .96 * film.shape[1]
        assert rows.max() < .31 * len(film) and .045 < np.ptp(rows) / len(film) < .07

def test_b_sees_fewer_sick_children_on_larger_films(at_b):
    share = lambda hospital: np.mean([film.kind != "normal" for film in
                                      _plan_films(dict(test=400), 1, hospital)])
    assert share("A") == pytest.approx(.625, abs=.01) and share("B") == pytest.approx(.3, abs=.01)
    heights = [len(read_film(path)) for path in possible_films(at_b["jpeg"])]
    assert len(heights) == 6 and HOSPITALS["A"].heights[1] < min(heights)

def test_a_seed_gives_other_children_at_b(at_b, tmp_path):
    "A child's films have one shape, and the children of the same name have different ones."
    def shapes(root):
        films = {patient_id(path): read_film(path) for path in possible_films(root)}
        return {patient: film.shape[1] / len(film) for patient, film in films.items()}
    a, b = shapes(make_dataset(tmp_path/"a", **FEW)), shapes(at_b["png"])
    both = set(a) & set(b)
    assert len(both) >= 3 and all(abs(a[patient] - b[patient]) > .01 for patient in both)

# ---- DICOM

def test_dicom_pixels_are_those_of_png(at_b):
    for path in at_b["png"].glob("test/*/*.png"):
        drawn = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        place = path.relative_to(at_b["png"]).with_suffix(".dcm")
        ds = pydicom.dcmread(at_b["dicom"]/place)
        shown = apply_voi_lut(ds.pixel_array, ds) * (255 / 4095)
        assert drawn.dtype == np.uint8 and np.abs(shown - drawn).max() <= 1
        assert (read_film(at_b["dicom"]/place) == drawn).all()
        assert ds.pixel_array.max() > 255 and ds.pixel_array.max() < 2 ** ds.BitsStored

def test_dicom_tags_say_what_it_is_and_name_nobody(at_b):
    identifiers = []
    for path in at_b["dicom"].glob("test/*/*.dcm"):
        ds = pydicom.dcmread(path)
        assert (ds.Modality, ds.BodyPartExamined, ds.ViewPosition) == ("DX", "CHEST", "AP")
        assert (ds.PhotometricInterpretation, ds.BitsStored, ds.HighBit) == ("MONOCHROME2", 12, 11)
        assert ds.PatientID == patient_id(path) and dicom_remarks(path.read_bytes()) == []
        told = {element.keyword for element in ds if element.tag.group == 0x10 and element.value}
        assert told == {"PatientID"}
        assert not [element for element in ds if element.VR in ("DA", "TM", "DT", "PN") and element.value]
        identifiers += [ds.SOPInstanceUID, ds.StudyInstanceUID, ds.file_meta.MediaStorageSOPInstanceUID]
    assert len(identifiers) == 18 and len(set(identifiers)) == 12   # the file's own number is there twice

def test_a_study_can_be_run_on_planted_phantoms_in_dicom(tmp_path):
    root = make_dataset(tmp_path/"set", 9, 6, 2, 0, dict(text="class"), "B", "dicom")
    images = scan_dataset(root)
    checks = check_dataset(root, images)
    assert len(images) == 15 and checks.films.sum() == 0, checks[checks.films > 0]
    paths = {line.split(",")[0] for line in (root/"planted.csv").read_text().splitlines()[1:]}
    assert paths and paths <= set(images.path)

# ---- asked for

def test_the_command_draws_test_films_of_another_hospital(tmp_path):
    root = tmp_path/"b"
    words = ["data", "phantom", str(root), "--hospital", "B", "--format", "dicom", "--test", "4"]
    done = CliRunner().invoke(main, words)
    assert (done.exit_code, done.output) == (0, f"Phantoms in {root}\n")
    assert {path.parts[0] for path in files(root)} == {"test", "masks", "phantom.json"}
    assert len(list(root.glob("test/*/*.dcm"))) == 4
    assert read_json(root/"phantom.json") == dict(train=0, test=4, val=0, seed=42, hospital="B",
                                                 file_format="dicom")

@pytest.mark.parametrize("words, says", [
    (["--hospital", "C"], "Expected a hospital among A, B, found 'C'; choose one of them."),
    (["--format", "gif"], "Expected a file format among jpeg, png, dicom, found 'gif'; choose one of them."),
    (["--train", "2"], "Expected at least 3 films in train and test")])
def test_what_there_is_not_is_refused_before_anything_is_drawn(tmp_path, words, says):
    done = CliRunner().invoke(main, ["data", "phantom", str(tmp_path/"set"), *words])
    assert done.exit_code == 1 and says in done.output and not list(tmp_path.iterdir())
