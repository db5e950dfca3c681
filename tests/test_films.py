"""File names, splits and bad folders, on the real naming scheme."""
import random, shutil, warnings
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, strategies as st

from pneumo_nb.films import check_dataset, film_kind, patient_id, read_film, scan_dataset
from pneumo_nb.phantom import make_dataset
from pneumo_nb.run import StudyError
from pneumo_nb.splits import split_patients

numbers = st.integers(0, 99999)
folders = st.sampled_from(["", "test/PNEUMONIA/", "/data/person7_virus_1/", "IM-0001/"])

@given(folders, st.sampled_from(["", "NORMAL2-"]), numbers, st.lists(numbers, min_size=1, max_size=2),
       st.sampled_from([".jpeg", ".JPG", ".png"]))
def test_normal_names(folder, series, patient, films, ending):
    name = f"{folder}{series}IM-{patient:04d}-" + "-".join(f"{n:04d}" for n in films) + ending
    assert (patient_id(name), film_kind(name)) == (f"{series}IM-{patient:04d}", "normal")

@given(folders, numbers, st.sampled_from(["bacteria", "virus"]), st.lists(numbers, min_size=1, max_size=2))
def test_pneumonia_names(folder, person, kind, films):
    name = f"{folder}person{person}_{kind}_" + "_".join(map(str, films)) + ".jpeg"
    assert (patient_id(name), film_kind(name)) == (f"person{person}_{kind}", kind)

@given(st.text(max_size=30))
def test_any_other_name_is_refused_or_one_of_the_scheme(name):
    try: patient = patient_id(name)
    except StudyError as e: assert "tells no patient" in str(e)
    else: assert patient and patient in Path(name).stem

def film_name(kind: str, number: int, film: int) -> str:
    "A name as in the public set."
    if kind != "normal": return f"person{number // 3}_{kind}_{number * 40 + film}.jpeg"
    return f"{'NORMAL2-' if number % 2 else ''}IM-{number:04d}-0001-{film:04d}.jpeg"

def real_scheme(seed: int) -> pd.DataFrame:
    "Rows named as in the public set: series, pairs of person and kind, up to 30 films a patient, val films."
    rng, rows = random.Random(seed), []
    for n in range(400):
        split = rng.choice(["train"] * 8 + ["test"] * 2 + ["val"])
        kind = rng.choice(["normal", "bacteria", "bacteria", "virus"])
        folder = "NORMAL" if kind == "normal" else "PNEUMONIA"
        for film in range(rng.choice([1, 1, 1, 2, 3, 30] if n % 40 == 0 else [1, 1, 2, 4])):
            name = film_name(kind, n, film)
            rows.append(dict(path=f"{split}/{folder}/{name}", split=split, label=int(kind != "normal"),
                             kind=kind, patient_id=patient_id(name), sha1=f"{n}-{film}"))
    images = pd.DataFrame(rows)
    one_side = images.groupby("patient_id").split.transform("first")  # for each patient, as in the public set
    return images.assign(split=one_side)

@pytest.mark.parametrize("seed", range(5))
def test_no_patient_in_two_splits(seed):
    images = real_scheme(seed)
    parts = split_patients(images, fraction=.2, seed=seed)
    assert parts.groupby("patient_id").split.nunique().max() == 1
    assert set(parts.split) == {"train", "validation", "test"} and len(parts) == len(images)
    assert (parts.path[parts.split == "test"].tolist()) == images.path[images.split == "test"].tolist()
    pool = parts[parts.split != "test"]
    for kind, films in pool.groupby("kind"):
        assert abs((films.split == "validation").mean() - .2) < .06, kind

def test_identical_films_stay_together():
    images = real_scheme(1)
    train = images.index[images.split == "train"]
    images.loc[train[:40], "sha1"] = [f"copy{i // 2}" for i in range(40)]
    parts = split_patients(images)
    assert parts[parts.split != "test"].groupby("sha1").split.nunique().max() == 1

def test_patients_who_are_in_test_are_left_out_of_train_by_name():
    images = real_scheme(1)
    first = images[images.split == "train"].iloc[[0]]
    leaked = first.patient_id.item()
    images = pd.concat([images, first.assign(path="test/x", split="test", sha1="new")], ignore_index=True)
    with pytest.warns(UserWarning, match=leaked): parts = split_patients(images)
    assert parts.groupby("patient_id").split.nunique().max() == 1
    assert set(parts.split[parts.patient_id == leaked]) == {"test"}

@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data")/"set", n_train=24, n_test=9, n_val=4, seed=3)

@pytest.fixture
def copy(phantoms, tmp_path): return Path(shutil.copytree(phantoms, tmp_path/"set"))

def test_scan_of_phantoms(phantoms):
    images = scan_dataset(phantoms)
    assert images.split.value_counts().to_dict() == {"train": 24, "test": 9, "val": 4}
    assert images["mode"].eq("L").all() and images.sha1.str.len().eq(40).all()
    assert images.width.between(200, 900).all()
    assert all((phantoms/p).stat().st_size == b for p, b in zip(images.path, images.bytes))
    assert len(list((phantoms/"masks").rglob("*.png"))) == len(images)

def rename_to(film, *parts): film.rename(film.parents[2].joinpath(*parts))

def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()

def remove(*folders):
    for folder in folders: shutil.rmtree(folder)

def cut_short(folder):
    for film in folder.glob("*"): film.write_bytes(film.read_bytes()[:300])

SPOILED = {  # what is done to a set, given its folder and one of its pneumonia films; what is said of it
    "no train": (lambda root, film: remove(root/"train"), "Expected train/ and test/"),
    "nothing": (lambda root, film: remove(root/"train", root/"test"), "found masks, phantom.json, val"),
    "empty class": (lambda root, film: empty(root/"test/NORMAL"), "found none"),
    "missing class": (lambda root, film: remove(root/"test/NORMAL"), "found PNEUMONIA"),
    "unknown class": (lambda root, film: (root/"train/COVID").mkdir(), "found COVID, NORMAL, PNEUMONIA"),
    "unknown name": (lambda root, film: rename_to(film, "train", "PNEUMONIA", "scan.jpeg"),
                     "found 1 other(s): train/PNEUMONIA/scan.jpeg"),
    "wrong folder": (lambda root, film: rename_to(film, "train", "NORMAL", film.name),
                     "the kind fits the folder; found 1 other(s): train/NORMAL/person"),
    "all cut short": (lambda root, film: cut_short(root/"test/NORMAL"), "only unreadable"),
    "capital": (lambda root, film: (root/"test").rename(root/"Test"), "found Test")}

@pytest.mark.parametrize("spoil, says", SPOILED.values(), ids=SPOILED)
def test_bad_folders_give_one_sentence(copy, spoil, says):
    spoil(copy, next((copy/"train/PNEUMONIA").glob("*.jpeg")))
    with warnings.catch_warnings(), pytest.raises(StudyError) as e:
        warnings.simplefilter("ignore")
        scan_dataset(copy)
    assert says in str(e.value) and "\n" not in str(e.value)

def test_nothing_that_looks_like_a_film_disappears(copy):
    (copy/"train/NORMAL/IM-7001-0001.jpeg").symlink_to("nowhere.jpeg")
    (copy/"elsewhere").mkdir()
    shutil.copy(next((copy/"train/NORMAL").glob("IM*1.jpeg")), copy/"elsewhere/IM-7002-0001.jpeg")
    (copy/"train/NORMAL/more").symlink_to(copy/"elsewhere")
    (copy/"train/NORMAL/.ipynb_checkpoints").mkdir()
    (copy/"train/NORMAL/.ipynb_checkpoints/IM-0001-0001-checkpoint.jpeg").write_bytes(b"?")
    with pytest.warns(UserWarning, match="IM-7001"): images = scan_dataset(copy)
    assert "train/NORMAL/more/IM-7002-0001.jpeg" in set(images.path) and len(images) == 38
    table = check_dataset(copy, images).set_index("problem").films
    assert (table["unreadable or cut short, left out"], table["hidden file, ignored"]) == (1, 1)

@pytest.mark.parametrize("cut", [0, 100, .5, .98])
def test_damaged_films_are_left_out_by_name(copy, cut):
    film = next((copy/"train/PNEUMONIA").glob("*.jpeg"))
    content = film.read_bytes()
    film.write_bytes(content[:int(cut * len(content)) if isinstance(cut, float) else cut])
    with pytest.warns(UserWarning, match=film.name): images = scan_dataset(copy)
    assert len(images) == 36 and list(images.attrs["left_out"]) == [film.relative_to(copy).as_posix()]
    with pytest.warns(UserWarning): table = check_dataset(copy).set_index("problem")
    assert film.name in table.examples["unreadable or cut short, left out"]

def test_an_empty_file_and_one_that_is_no_picture_are_refused_with_a_sentence(tmp_path):
    for content in (b"", b"no picture"):
        (tmp_path/"IM-0001-0001.jpeg").write_bytes(content)
        with pytest.raises(StudyError, match="OpenCV cannot decode"): read_film(tmp_path/"IM-0001-0001.jpeg")

def test_the_chapter_gives_what_its_readers_know():
    from pneumo_nb import data, films, splits
    assert data.scan_dataset is films.scan_dataset and data.patient_id is films.patient_id
    assert data.split_patients is splits.split_patients
