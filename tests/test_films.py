"""File names, splits and bad folders, on the real naming scheme."""
import os, random, shutil, warnings
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from pneumo_nb.films import LEFT_OUT, check_dataset, film_kind, patient_id, read_film, scan_dataset
from pneumo_nb.phantom import make_dataset
from pneumo_nb.data import load_images, prepare_data
from pneumo_nb.run import StudyError, finish, open_stage, read_json, stale_reason
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
    else: assert patient and Path(name).stem.startswith(("IM-", "NORMAL", "person"))

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
                     "found 1 other: train/PNEUMONIA/scan.jpeg"),
    "wrong folder": (lambda root, film: rename_to(film, "train", "NORMAL", film.name),
                     "the kind fits the folder; found 1 other: train/NORMAL/person"),
    "all cut short": (lambda root, film: cut_short(root/"test/NORMAL"), "only unreadable, empty or missing"),
    "capital": (lambda root, film: (root/"test").rename(root/"Test"), "found Test; rename it"),
    "valid": (lambda root, film: (root/"val").rename(root/"valid"), "found valid; rename it"),
    "another split": (lambda root, film: shutil.copytree(root/"val", root/"more"), "found more; rename it")}

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
    assert (table[LEFT_OUT], table["hidden file or folder, ignored"]) == (1, 1)

@pytest.mark.parametrize("cut", [0, 100, .5, .98])
def test_damaged_films_are_left_out_by_name(copy, cut):
    film = next((copy/"train/PNEUMONIA").glob("*.jpeg"))
    content = film.read_bytes()
    film.write_bytes(content[:int(cut * len(content)) if isinstance(cut, float) else cut])
    with pytest.warns(UserWarning, match=film.name): images = scan_dataset(copy)
    assert len(images) == 36 and list(images.attrs["left_out"]) == [film.relative_to(copy).as_posix()]
    with pytest.warns(UserWarning): table = check_dataset(copy).set_index("problem")
    assert film.name in table.examples[LEFT_OUT]

def test_an_empty_file_and_one_that_is_no_picture_are_refused_with_a_sentence(tmp_path):
    for content, words in ((b"", "an empty file"), (b"no picture", "neither JPEG, PNG"),
                           (b"\xff\xd8\xff", "OpenCV cannot decode")):
        (tmp_path/"IM-0001-0001.jpeg").write_bytes(content)
        with pytest.raises(StudyError, match=words): read_film(tmp_path/"IM-0001-0001.jpeg")

def checked(root: Path) -> tuple[pd.DataFrame, dict, dict]:
    "The films of a spoilt set, why others are left out, and problem -> films of what is serious."
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        images = scan_dataset(root)
        table = check_dataset(root, images)
    serious = table[table.serious & (table.films > 0)]
    return images, images.attrs["left_out"], dict(zip(serious.problem, serious.films))

def gray(film: Path) -> np.ndarray: return cv2.imread(str(film), cv2.IMREAD_GRAYSCALE)

def save_instead(film: Path, pixels: np.ndarray) -> Path:
    "A PNG in place of a JPEG."
    film.unlink()
    cv2.imwrite(str(film.with_suffix(".png")), pixels)
    return film.with_suffix(".png")

def a_film(root: Path, place="train/NORMAL") -> Path: return min((root/place).glob("*.jpeg"))

def test_detector_values_in_16_bits_are_read_by_their_range_and_named(copy):
    pixels, image = gray(a_film(copy)), a_film(copy)
    film = save_instead(image, pixels.astype(np.uint16) * 16)
    np.testing.assert_array_equal(read_film(film), pixels)
    assert checked(copy)[2]["8 to 14 bits in a 16-bit file, read by that range"] == 1

def test_other_ways_to_save_a_film_are_read_as_ever(tmp_path):
    pixels = np.add.outer(np.arange(80), np.arange(90)).astype(np.uint8)
    ways = {"full range": pixels.astype(np.uint16) * 257, "colour": np.dstack([pixels] * 3),
            "opaque": np.dstack([pixels] * 3 + [np.full_like(pixels, 255)])}
    for name, saved in ways.items():
        cv2.imwrite(str(tmp_path/f"{name}.png"), saved)
        np.testing.assert_array_equal(read_film(tmp_path/f"{name}.png"), pixels, name)
    cv2.imwrite(str(tmp_path/"progressive.jpeg"), pixels, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    assert np.abs(read_film(tmp_path/"progressive.jpeg").astype(int) - pixels).max() < 10

def with_alpha(pixels): return np.dstack([np.zeros_like(pixels)] * 3 + [pixels])

EMPTY = {  # what a film is replaced by; why it is left out
    "transparent": (with_alpha, "transparent pixels"),
    "black": (lambda pixels: pixels * 0, "hardly anything to see"),
    "white": (lambda pixels: pixels * 0 + 255, "hardly anything to see"),
    "nearly black": (lambda pixels: pixels // 16, "hardly anything to see"),
    "one pixel": (lambda pixels: pixels[:1, :1], "too small: 1 × 1 pixels")}

@pytest.mark.parametrize("spoil, says", EMPTY.values(), ids=EMPTY)
def test_pictures_without_a_film_are_left_out_by_name(copy, spoil, says):
    film = save_instead(a_film(copy), spoil(gray(a_film(copy))))
    images, left_out, serious = checked(copy)
    assert says in left_out[film.relative_to(copy).as_posix()] and len(images) == 36 and LEFT_OUT in serious

def test_negatives_and_colour_pictures_are_named(copy):
    noise = np.random.default_rng(1).integers(0, 255, (300, 300, 3)).astype(np.uint8)
    save_instead(a_film(copy), 255 - gray(a_film(copy)))
    save_instead(a_film(copy, "test/NORMAL"), noise)
    serious = checked(copy)[2]
    assert serious["looks like a negative, spine darker than lungs"] >= 1
    assert serious["picture in colour, read as gray"] == 1

@pytest.mark.parametrize("ending", ["png", "jpeg"])
def test_a_test_film_saved_again_into_train_is_found(copy, ending):
    pixels = gray(a_film(copy, "test/NORMAL"))
    small = cv2.resize(pixels, None, fx=.6, fy=.6, interpolation=cv2.INTER_AREA)
    file = str(copy/f"train/NORMAL/IM-7001-0001.{ending}")
    if ending == "png": cv2.imwrite(file, pixels)
    else: cv2.imwrite(file, small, [cv2.IMWRITE_JPEG_QUALITY, 40])
    assert checked(copy)[2] == {"same picture in test and elsewhere, saved anew": 2}

def test_every_picture_that_is_not_used_is_named(copy):
    film = a_film(copy)
    for name in ("a.gif", "b.BMP", "c.bak"): shutil.copy(film, film.with_name(name))
    film.with_name("no_ending").write_bytes(bytes(128) + b"DICM")
    shutil.copy(film, copy/"train/IM-7001-0001.jpeg")   # beside the classes
    assert checked(copy)[2] == {"picture that is not used, by its ending or place": 5}

def test_each_folder_counts_once_and_those_of_systems_never(copy):
    for name in ("@eaDir", "__MACOSX", ".cache"):
        shutil.copytree(copy/"val/NORMAL", copy/"train/NORMAL"/name)
        shutil.copytree(copy/"val", copy/name)
    (copy/"train/NORMAL/self").symlink_to(".")
    (copy/"train/PNEUMONIA/all").symlink_to("..")
    images, left_out, serious = checked(copy)
    assert len(images) == 37 and not left_out and not serious
    (copy/"__MACOSX/train").mkdir()
    (copy/"train").rename(copy/"elsewhere")
    with pytest.raises(StudyError) as e: scan_dataset(copy)
    assert "__MACOSX;" not in str(e.value) and "__MACOSX" not in str(e.value).partition("point to")[2]

def test_films_behind_linked_classes_are_watched(copy, tmp_path):
    (copy/"train/NORMAL").rename(tmp_path/"store")
    (copy/"train/NORMAL").symlink_to(tmp_path/"store")
    params = dict(data_dir=str(copy), seed=1)
    stage = open_stage("data", tmp_path/"run", **params)
    prepare_data(stage, **params)
    finish(stage)
    assert stale_reason(stage.folder, "data", params) == ""
    a_film(copy).unlink()
    assert stale_reason(stage.folder, "data", params) == "its input files changed"

def no_permission(real, closed: Path):
    "A way to open that one file or folder refuses; root may open everything."
    def method(path, *more, **named):
        if path == closed: raise PermissionError(13, "Permission denied")
        return real(path, *more, **named)
    return method

def test_what_cannot_be_opened_or_written_is_left_out_by_name(copy, monkeypatch):
    normal, film = copy/"train/NORMAL", a_film(copy)
    closed = normal/"closed"
    shutil.copytree(copy/"val/NORMAL", closed)
    os.mkfifo(normal/"IM-9999-0001.jpeg")
    for name in (b"IM-\xe9.jpeg", b"IM-0001-\n0001.jpeg", b"r\xe9sum\xe9.txt"):
        shutil.copy(film, os.fsencode(normal) + b"/" + name)
    monkeypatch.setattr(Path, "iterdir", no_permission(Path.iterdir, closed))
    monkeypatch.setattr("builtins.open", no_permission(open, film))
    images, left_out, serious = checked(copy)
    assert len(images) == 36 and serious[LEFT_OUT] == 5
    reasons = {"closed": "cannot be read", "IM-9999-0001.jpeg": "a pipe", "IM-\\udce9.jpeg": "not UTF-8",
               "IM-0001-\\n0001.jpeg": "control characters", film.name: "Permission denied"}
    for name, reason in reasons.items(): assert reason in left_out[f"train/NORMAL/{name}"]
    assert any("r\\udce9sum\\udce9.txt" in files for files in check_dataset(copy, images).examples)

def test_one_number_written_in_two_ways_is_one_patient(copy):
    film = min((copy/"train/PNEUMONIA").glob("person*_bacteria_*"))
    shutil.copy(film, copy/"test/PNEUMONIA"/film.name.replace("person", "person00"))
    serious = checked(copy)[2]
    assert serious["patient in test and in train or val"] >= 2

def test_what_is_serious_is_printed_and_stands_in_the_record(copy, tmp_path, capsys):
    shutil.copy(a_film(copy), a_film(copy).with_suffix(".jpe"))
    stage = open_stage("data", tmp_path/"run", data_dir=str(copy))
    prepare_data(stage, str(copy), seed=1)
    words = "serious: 1 × picture that is not used, by its ending or place (train/NORMAL/"
    assert words in capsys.readouterr().out
    assert any(words in said for said in finish(stage)["notes"])

def test_a_run_can_be_renamed(tmp_path):
    stage = open_stage("data", tmp_path/"a")
    prepare_data(stage, phantom_train=24, phantom_test=6)
    assert str(tmp_path) not in stage.path("metrics/data.json").read_text()
    stage.folder.rename(tmp_path/"b")
    images = load_images(open_stage("eda", tmp_path/"b"))
    assert read_film(Path(images.attrs["root"])/images.path[0]).ndim == 2
    assert Path(images.attrs["root"]).is_relative_to(tmp_path/"b")
    assert (tmp_path/"b"/read_json(tmp_path/"b/metrics/data.json")["root"]).is_dir()

def test_the_chapter_gives_what_its_readers_know():
    from pneumo_nb import data, films, splits
    assert data.scan_dataset is films.scan_dataset and data.patient_id is films.patient_id
    assert data.split_patients is splits.split_patients

# ---- own films, which a table lists

@pytest.fixture(scope="module")
def clinic_films(tmp_path_factory):
    "Sixty small films of two folders, with names that tell nothing; three films a patient."
    drawn = make_dataset(tmp_path_factory.mktemp("drawn")/"set", n_train=54, n_test=6, n_val=0, seed=3)
    films = [film for name in ("NORMAL", "PNEUMONIA") for film in sorted(drawn.glob(f"t*/{name}/*"))]
    labels = [film.parent.name.lower() for film in films]
    folder = tmp_path_factory.mktemp("own")/"clinic"
    for place in ("a", "b"): (folder/place).mkdir(parents=True)
    paths = [f"a/patient_{n}.jpeg" if n % 2 else f"b/IM-0001-0001 ({n}).jpeg" for n in range(60)]
    for film, path in zip(films, paths): shutil.copy(film, folder/path)
    sides = np.where(np.arange(60) // 3 % 5 == 0, "test", "train")
    return folder, pd.DataFrame(dict(path=paths, label=labels, split=sides,
                                     patient=[f"child {n // 3}" for n in range(60)]))

@pytest.fixture
def clinic(clinic_films, tmp_path):
    "A copy of the clinic's films with their table."
    folder = Path(shutil.copytree(clinic_films[0], tmp_path/"clinic"))
    clinic_films[1].to_csv(folder/"films.csv", index=False)
    return folder, clinic_films[1].copy()

def prepared(run: Path, **params) -> tuple:
    "The data stage on own films."
    stage = open_stage("data", run, seed=1, **params)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepare_data(stage, seed=1, **params)
    return stage, finish(stage)

def test_own_films_are_what_their_table_says(clinic, tmp_path):
    folder, table = clinic
    params = dict(seed=1, data_dir=str(folder))
    stage, record = prepared(tmp_path/"run", data_dir=str(folder))
    images = load_images(stage).set_index("path")
    said = table.set_index("path").loc[images.index]
    assert images.patient_id.eq(said.patient).all() and images.kind.eq(said.label).all()
    assert (images.split == "test").eq(said.split == "test").all() and images.series.eq(images.kind).all()
    assert images.groupby("patient_id").split.nunique().max() == 1 and record["notes"] == []
    assert stale_reason(stage.folder, "data", params) == ""
    (folder/"beside.txt").touch()
    assert stale_reason(stage.folder, "data", params) == ""   # the table does not list it
    fingerprint = read_json(stage.path("metrics/data.json"))["fingerprint"]
    table.replace("child 19", "child 18").to_csv(folder/"films.csv", index=False)
    assert stale_reason(stage.folder, "data", params) == "its input files changed"
    prepared(tmp_path/"run", data_dir=str(folder))
    assert read_json(stage.path("metrics/data.json"))["fingerprint"] != fingerprint
    (folder/table.path[0]).touch()
    assert stale_reason(stage.folder, "data", params) == "its input files changed"

def test_a_table_without_patients_or_test_says_so_and_so_does_the_landing_page(clinic, tmp_path):
    from pneumo_nb.report import _data_section
    folder, table = clinic
    table[["path", "label"]][:-2].to_csv(tmp_path/"mine.csv", sep=";", index=False)
    (folder/"films.csv").unlink()
    stage, record = prepared(tmp_path/"run", data_dir=str(folder), films_csv=str(tmp_path/"mine.csv"))
    words = " ".join(record["notes"])
    assert "there are no test films" in words and "2 pictures that the table of films does not" in words
    assert "serious: the table of films names no patients, so each of the 58 films" in words
    assert "counted as a patient of its own: 58 films" in _data_section(stage.folder)
    assert load_images(stage).patient_id.nunique() == 58

def test_missing_films_of_a_table_are_left_out_by_name(clinic):
    folder, table = clinic
    (folder/table.path[0]).unlink()
    images, left_out, serious = checked(folder)
    assert len(images) == 59 and left_out == {table.path[0]: "there is no such file, or a link leads nowhere"}
    assert LEFT_OUT in serious

WRITTEN = {"semicolons": (dict(sep=";"), "utf-8"), "tabs": (dict(sep="\t"), "utf-8"),
           "byte order mark": ({}, "utf-8-sig"), "Windows": (dict(lineterminator="\r\n"), "utf-8")}

@pytest.mark.parametrize("options, encoding", WRITTEN.values(), ids=WRITTEN)
def test_tables_of_spreadsheets_are_read(clinic, options, encoding):
    from pneumo_nb.films import _films_in_table
    folder, table = clinic
    expected = _films_in_table(folder/"films.csv", folder)
    table.replace({"normal": "0", "pneumonia": "Pneumonia"}).to_csv(
        folder/"films.csv", index=False, encoding=encoding, **options)
    assert _films_in_table(folder/"films.csv", folder) == expected

def test_tables_in_other_encodings_are_refused(clinic):
    folder, table = clinic
    for encoding in ("latin-1", "utf-16"):
        table.replace("child 0", "René").to_csv(folder/"films.csv", index=False, encoding=encoding)
        with pytest.raises(StudyError, match="Expected UTF-8 in .*found something else in line"):
            scan_dataset(folder)

def test_a_set_of_other_names_leads_to_the_template_and_the_template_to_a_run(clinic):
    from pneumo_nb.films import write_template
    folder, table = clinic
    (folder/"films.csv").unlink()
    with pytest.raises(StudyError, match=f"`pneumo data template {folder}` begins"): scan_dataset(folder)
    file = write_template(folder)
    with pytest.raises(StudyError, match="found nothing as label in line 2"): scan_dataset(folder)
    begun = pd.read_csv(file, keep_default_na=False)
    label = begun.path.map(dict(zip(table.path, table.label)))
    begun.assign(label=label).to_csv(file, index=False)
    assert len(scan_dataset(folder)) == 60
    with pytest.raises(StudyError, match="found one; fill it in, or move it away"): write_template(folder)

def test_own_films_have_folds_along_their_patients_and_none_across_series(clinic):
    from pneumo_nb.splits import number_folds, series_folds
    images = scan_dataset(clinic[0])
    folds = pd.Series(number_folds(images, 3))
    assert set(folds) == {-1, 0, 1, 2} and folds.groupby(images.patient_id).nunique().max() == 1
    with pytest.raises(StudyError, match="found normal; take folds along the numbers"): series_folds(images)

def test_a_run_on_own_films_explores_and_prepares_them(clinic, tmp_path):
    from click.testing import CliRunner
    from pneumo_nb.cli import main
    words = ["run", "--run", str(tmp_path/"run"), "--films", str(clinic[0]/"films.csv"), "--only",
             "data,eda,preprocessing", "-p", "preprocessing.image_size=32", "-p", "eda.films_per_class=1"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    again = CliRunner().invoke(main, ["run", "--run", str(tmp_path/"run"), "--only", "data,eda"])
    assert again.output.count("unchanged, skipped") == 2
