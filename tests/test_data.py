"""File names, splits and bad folders, on the real naming scheme."""
import random, shutil, warnings
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, strategies as st

from pneumo_nb.data import check_dataset, film_kind, patient_id, scan_dataset, split_patients
from pneumo_nb.phantom import make_dataset
from pneumo_nb.run import StudyError

numbers = st.integers(0, 99999)
folders = st.sampled_from(["", "test/PNEUMONIA/", "/data/person7_virus_1/", "IM-0001/"])

@given(folders, st.sampled_from(["", "NORMAL2-"]), numbers, st.lists(numbers, min_size=1, max_size=2), st.sampled_from([".jpeg", ".JPG", ".png"]))
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

def real_scheme(seed: int) -> pd.DataFrame:
    "Rows named as in the public set: series, pairs of person and kind, up to 30 films a patient, val films."
    rng, rows = random.Random(seed), []
    for n in range(400):
        split = rng.choice(["train"] * 8 + ["test"] * 2 + ["val"])
        kind = rng.choice(["normal", "bacteria", "bacteria", "virus"])
        for film in range(rng.choice([1, 1, 1, 2, 3, 30] if n % 40 == 0 else [1, 1, 2, 4])):
            name = (f"{'NORMAL2-' if n % 2 else ''}IM-{n:04d}-0001-{film:04d}.jpeg" if kind == "normal" else f"person{n // 3}_{kind}_{n * 40 + film}.jpeg")
            rows.append(dict(path=f"{split}/{'NORMAL' if kind == 'normal' else 'PNEUMONIA'}/{name}", split=split, label=int(kind != "normal"),
                             kind=kind, patient_id=patient_id(name), sha1=f"{n}-{film}"))
    images = pd.DataFrame(rows)
    official = images.groupby("patient_id").split.transform("first")  # as in the public set: one side for each patient
    return images.assign(split=official)

@pytest.mark.parametrize("seed", range(5))
def test_no_patient_in_two_splits(seed):
    images = real_scheme(seed)
    parts = split_patients(images, fraction=.2, seed=seed)
    assert parts.groupby("patient_id").split.nunique().max() == 1
    assert set(parts.split) == {"train", "validation", "test"} and len(parts) == len(images)
    assert (parts.path[parts.split == "test"].tolist()) == images.path[images.split == "test"].tolist()
    pool = parts[parts.split != "test"]
    for kind, films in pool.groupby("kind"): assert abs((films.split == "validation").mean() - .2) < .06, kind

def test_identical_films_stay_together_and_leaks_are_left_out_by_name():
    images = real_scheme(1)
    train = images.index[images.split == "train"]
    images.loc[train[:40], "sha1"] = [f"copy{i // 2}" for i in range(40)]
    parts = split_patients(images)
    assert parts[parts.split != "test"].groupby("sha1").split.nunique().max() == 1
    leaked = images.loc[train[0], "patient_id"]
    extra = images.loc[[train[0]]].assign(path="test/x", split="test", sha1="new")
    with pytest.warns(UserWarning, match=leaked): parts = split_patients(pd.concat([images, extra], ignore_index=True))
    assert parts.groupby("patient_id").split.nunique().max() == 1 and set(parts.split[parts.patient_id == leaked]) == {"test"}

@pytest.fixture(scope="module")
def phantoms(tmp_path_factory): return make_dataset(tmp_path_factory.mktemp("data")/"set", n_train=24, n_test=9, n_val=4, seed=3)

@pytest.fixture
def copy(phantoms, tmp_path): return Path(shutil.copytree(phantoms, tmp_path/"set"))

def test_scan_of_phantoms(phantoms):
    images = scan_dataset(phantoms)
    assert images.split.value_counts().to_dict() == {"train": 24, "test": 9, "val": 4}
    assert images["mode"].eq("L").all() and images.sha1.str.len().eq(40).all() and images.width.between(200, 900).all()
    assert all((phantoms/p).stat().st_size == b for p, b in zip(images.path, images.bytes))
    assert len(list((phantoms/"masks").rglob("*.png"))) == len(images)

def spoil(root, how):
    film = next((root/"train/PNEUMONIA").glob("*.jpeg"))
    if how == "no train": shutil.rmtree(root/"train")
    if how == "nothing": shutil.rmtree(root/"train"); shutil.rmtree(root/"test")
    if how == "empty class": shutil.rmtree(root/"test/NORMAL"); (root/"test/NORMAL").mkdir()
    if how == "missing class": shutil.rmtree(root/"test/NORMAL")
    if how == "unknown class": (root/"train/COVID").mkdir()
    if how == "unknown name": film.rename(film.with_name("scan.jpeg"))
    if how == "wrong folder": film.rename(root/"train/NORMAL"/film.name)
    if how == "capital": (root/"test").rename(root/"Test")
    if how == "all cut short":
        for f in (root/"test/NORMAL").glob("*"): f.write_bytes(f.read_bytes()[:300])

@pytest.mark.parametrize("how, says", [
    ("no train", "Expected train/ and test/"), ("nothing", "found masks, phantom.json, val"), ("empty class", "found none"),
    ("missing class", "found PNEUMONIA"), ("unknown class", "found COVID, NORMAL, PNEUMONIA"), ("unknown name", "found 1 other(s): train/PNEUMONIA/scan.jpeg"),
    ("wrong folder", "the kind fits the folder; found 1 other(s): train/NORMAL/person"), ("all cut short", "only unreadable"), ("capital", "found Test")])
def test_bad_folders_give_one_sentence(copy, how, says):
    spoil(copy, how)
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
