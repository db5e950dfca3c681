# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: python3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Films
#
# > What a file's name tells, which files are films, what is wrong with them, and how one is read

# %%
#| default_exp films

# %%
#| export
import atexit, errno, hashlib, io, json, logging, math, os, re, stat, struct, subprocess, sys, threading
import unicodedata, warnings, zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from pneumo_nb.run import (
    StudyError, films_at, is_hidden, read_cells, rng_for, threads, walk_files, write_csv)
from pneumo_nb.style import CLASS_NAMES, counted

# %%
#| hide
import shutil, tempfile
import matplotlib.pyplot as plt
from fastcore.test import test_close, test_eq, test_fail
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from pneumo_nb.style import plot_style, readable, show_figure
from pneumo_nb.phantom import make_dataset
plot_style()

# %% [markdown]
# Two mistakes can spoil a study of films before any model is trained. A child may be on both sides of a
# split, or a file may not be what it claims to be. This notebook turns a folder into a table with one row a
# film, and refuses or reports what is wrong with it.
#
# ## Who is on a film
#
# The public set (Kermany et al., *Cell* 172, 2018) has no table of patients. What is known of them stands in
# the file names. `IM-0115-0001.jpeg` and `NORMAL2-IM-1427-0001.jpeg` are healthy children of two naming
# series, so `IM-0115` and `NORMAL2-IM-0115` are two different children. `person1000_bacteria_2931.jpeg` is
# pneumonia with its kind. Person numbers are counted separately for bacteria and virus, so the patient is the
# pair of both.
#
# **That is an assumption**, since nobody published who is who. The official split supports it: as pairs, no
# patient is in both train and test, while 170 bare numbers are.

# %%
#| export
_NORMAL_NAME = re.compile(r"((?:NORMAL\d*-)?IM)-(\d+)(?:-\d+)+", re.ASCII)
_PNEUMONIA_NAME = re.compile(r"person(\d+)_(bacteria|virus)(?:_\d+)+", re.ASCII)

def patient_id(
    file_name: str | Path, # name or path of a film
) -> str: # such as "IM-0115", "NORMAL2-IM-1427" or "person1000_bacteria"
    "The patient a film belongs to, by the naming scheme of the public set."
    stem = Path(file_name).stem
    if match := _NORMAL_NAME.fullmatch(stem): return f"{match[1]}-{int(match[2]):04d}"
    if match := _PNEUMONIA_NAME.fullmatch(stem): return f"person{int(match[1])}_{match[2]}"
    raise StudyError("Expected a name like IM-0115-0001.jpeg, NORMAL2-IM-1427-0001.jpeg or "
                     f"person1000_bacteria_2931.jpeg, found {Path(file_name).name!r}, "
                     "which tells no patient; rename the film, or list all films in a table.")


# %%
test_eq(patient_id("IM-0115-0001.jpeg"), "IM-0115")
test_eq(patient_id("test/NORMAL/NORMAL2-IM-0246-0001-0002.jpeg"), "NORMAL2-IM-0246")
test_eq(patient_id("person1_virus_6.jpeg"), "person1_virus")
test_eq(patient_id("person01_virus_7.jpeg"), "person1_virus")   # one number, one patient
assert patient_id("person1_virus_6.jpeg") != patient_id("person1_bacteria_2.jpeg")
test_fail(lambda: patient_id("scan_03.jpeg"), contains="tells no patient")


# %% [markdown]
# A name tells the **kind** of film, too: normal, bacterial or viral. What it tells of a child's disease is
# the diagnosis of the public set, not something that this project has checked.

# %%
#| export
def film_kind(
    file_name: str | Path, # name or path of a film
) -> str: # "normal", "bacteria" or "virus"
    "The kind that a film's name tells."
    patient = patient_id(file_name)
    return patient.rpartition("_")[2] if patient.startswith("person") else "normal"


# %%
test_eq([film_kind(name) for name in ("IM-0001-0001.jpeg", "person9_virus_1.jpeg")], ["normal", "virus"])


# %% [markdown]
# Patients are numbered within a **naming series**, most likely in the order in which films were collected. So
# a number may tell roughly when a film joined the set.

# %%
#| export
def naming_series(
    file_name: str | Path, # name or path of a film
) -> str: # such as "IM", "NORMAL2-IM", "bacteria" or "virus"
    "The series that a film's name counts in."
    patient = patient_id(file_name)
    return patient.rpartition("_")[2] if patient.startswith("person") else patient.rpartition("-")[0]


# %%
#| export
def patient_number(
    file_name: str | Path, # name or path of a film
) -> int: # 1427 of NORMAL2-IM-1427-0001.jpeg, 12 of person12_virus_3.jpeg
    "The number that a series gives the patient of a film."
    return int(re.search(r"(?:IM-|person)(\d+)", patient_id(file_name))[1])


# %%
names = ["IM-0115-0001.jpeg", "NORMAL2-IM-1427-0001.jpeg", "person12_virus_3.jpeg"]
test_eq([naming_series(name) for name in names], ["IM", "NORMAL2-IM", "virus"])
test_eq([patient_number(name) for name in names], [115, 1427, 12])


# %% [markdown]
# Films that a table lists, as shown below, bring their series and numbers along. Whoever needs these asks
# `with_series`, so that no name is read where a table says otherwise.

# %%
#| export
def with_series(
    images: pd.DataFrame, # path; series, number and published as well, if a table lists the films
) -> pd.DataFrame: # with series, number and published, which is the split as it was given
    "Films with the place that names, or a table, give them."
    if "series" in images: return images
    return images.assign(series=images.path.map(naming_series), number=images.path.map(patient_number),
                         published=images.path.str.split("/").str[0])


# %%
by_name = with_series(pd.DataFrame(dict(path=["test/NORMAL/IM-0115-0001.jpeg"])))
test_eq(by_name.iloc[0].tolist()[1:], ["IM", 115, "test"])

# %% [markdown]
# ## The folder
#
# A set is a folder with `train/` and `test/` (and maybe `val/`), each with `NORMAL/` and `PNEUMONIA/`.
# Anything else is refused with a sentence. The usual accident is to point one level too high or too low, and
# it would otherwise look like an empty set. Only `test/` may be absent. Such a sample can be explored and
# learned from, and the run's notes say that nothing but validation is left to judge a model on.

# %%
#| export
_SPLITS = ["train", "val", "test"]  # folders of a set
_OTHER_NAMES = {"training", "valid", "validation", "dev", "eval", "evaluation", "testing", "holdout"}

def _folders(folder: Path) -> list[str]: # sorted
    "Names of the folders in a folder, but hidden ones and a system's own."
    try: return sorted(p.name for p in folder.iterdir() if os.path.isdir(p) and not is_hidden(p, folder))
    except OSError as e:
        raise StudyError(f"Expected a folder that can be read at {folder}, found: {e.strerror}; "
                         "give yourself permission to read it.") from None


# %%
#| export
def _refuse_without_train(root: Path):
    "Say what a folder without train/ holds, and where a set may be."
    below = [p.parent for level in ("*/train", "*/*/train") for p in sorted(root.glob(level))]
    below = [p for p in below if not is_hidden(p, root)]
    other = "point to the folder that holds train/ and test/, or list your own films in a table, which " \
            f"`pneumo data template {root}` begins"
    advice = f"point to {below[0]}" if below else other
    names = ", ".join(sorted(in_words(p.name) for p in root.iterdir())[:6]) or "nothing"
    raise StudyError(f"Expected train/ and test/ in {root}, found {names}; {advice}.")


# %% [markdown]
# A split under another name, such as `valid/` or `Test/`, would vanish with all its films. So would any other
# folder that holds the classes.

# %%
#| export
def _check_split_names(root: Path):
    "Refuse folders beside the splits that seem to be splits, too."
    def seems_a_split(name):
        classes = {below.upper() for below in _folders(root/name)} & set(CLASS_NAMES)
        return bool(classes) or name.lower() in {*_SPLITS, *_OTHER_NAMES}
    others = [name for name in _folders(root) if name not in _SPLITS and seems_a_split(name)]
    if others:
        raise StudyError(f"Expected the folders {', '.join(_SPLITS)} in {root}, found {', '.join(others)}; "
                         "rename it to one of the three, in small letters, or move it away.")


# %%
#| export
def _check_classes(split: Path): # folder of a split
    "Refuse a split whose folders are not the two classes."
    folders = _folders(split)
    if folders != CLASS_NAMES:
        raise StudyError(f"Expected the classes {' and '.join(CLASS_NAMES)} in {split}, "
                         f"found {', '.join(folders) or 'none'}; rename or move the folders.")


# %% [markdown]
# Names go into tables, pages and messages. One that is not UTF-8, or holds a line break or another control
# character, would break them. Such a name is written with escapes, and what bears it is left out by name.

# %%
#| export
def _is_writable(name: str) -> bool:
    "Whether a name is UTF-8 without control characters."
    return not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in str(name))

def in_words(name: str | Path) -> str:
    "A name, with escapes for what cannot be written."
    return "".join(c if _is_writable(c) else ascii(c)[1:-1] for c in str(name))


# %%
test_eq([in_words("\udce9.png"), in_words("a\nb"), in_words("é 肺.png")], ["\\udce9.png", "a\\nb", "é 肺.png"])


# %%
#| export
def _check_folder(root: Path):
    "Refuse a folder that is none, or that cannot be named."
    if not _is_writable(root):
        raise StudyError("Expected a folder whose name is UTF-8 without control characters, "
                         f"found {in_words(root)}; rename it.")
    if not root.is_dir():
        raise StudyError(f"Expected a folder with films, found no folder at {root}; check the path.")

def check_layout(
    root: str | Path, # of the set
) -> list[Path]: # the split folders present: train first, then val, then test
    "Refuse a folder that is not laid out like the public set."
    root = Path(root)
    _check_folder(root)
    _check_split_names(root)
    if not (root/"train").is_dir(): _refuse_without_train(root)
    splits = [root/name for name in _SPLITS if (root/name).is_dir()]
    for split in splits: _check_classes(split)
    return splits


# %% [markdown]
# The examples work on a small set of phantoms:

# %%
work = Path(tempfile.mkdtemp())
root = make_dataset(work/"set", n_train=30, n_test=12, seed=1)
test_eq([split.name for split in check_layout(root)], ["train", "val", "test"])
test_fail(lambda: check_layout(work/"typo"), contains="found no folder at")
test_fail(lambda: check_layout(root/"train"), contains="found NORMAL, PNEUMONIA; point to the")
test_fail(lambda: check_layout(work), contains=f"found set; point to {root}")
test_fail(lambda: check_layout("a\nb"), contains="found a\\nb; rename it")

# %% [markdown]
# Inside the classes, every JPEG, PNG, TIFF, WebP and DICOM file counts as a film, by its ending, also in
# folders below and behind links. Hidden files are what systems and editors leave behind, and count for
# nothing.

# %%
#| export
_ENDINGS = {".jpeg": "JPEG", ".jpg": "JPEG", ".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".webp": "WebP",
            ".dcm": "DICOM", ".dicom": "DICOM"}
FILM_ENDINGS = tuple(_ENDINGS)
_ENDINGS_IN_WORDS = f"{', '.join(FILM_ENDINGS[:-1])} or {FILM_ENDINGS[-1]}"

def _is_film(path: Path, root: Path) -> bool:
    "Whether a file counts as a film by its name and place: in a class, in a split."
    in_class = len(path.relative_to(root).parts) > 2
    return in_class and not is_hidden(path, root) and path.suffix.lower() in FILM_ENDINGS


# %%
names = ("a.JPG", "a.txt", ".a.png", ".trash/a.png", "@eaDir/a.png", "../a.png")
test_eq([_is_film(Path(os.path.normpath(root/"val/NORMAL"/name)), root) for name in names],
        [True, False, False, False, False, False])


# %%
#| export
def _listing(root: Path) -> list[Path]: # train first, then val, then test; sorted within
    "All that lies in the splits of a set, as `walk_files` gives it."
    splits = check_layout(root)
    return sorted(walk_files(*splits), key=lambda path: _SPLITS.index(path.relative_to(root).parts[0]))


# %%
#| export
def _check_not_empty(films: list[Path], root: Path):
    "Refuse a class without films."
    classes = {path.relative_to(root).parts[:2] for path in films}
    for split in check_layout(root):
        for name in CLASS_NAMES:
            if (split.name, name) in classes: continue
            raise StudyError(f"Expected films ({_ENDINGS_IN_WORDS}) in {split/name}, found none; "
                             "a class without films cannot be learned or tested.")


# %% [markdown]
# What cannot be reached is left out by name: folders without permission, and names that cannot be written.

# %%
#| export
def _out_of_reach(path: Path, root: Path) -> str: # "" if nothing is wrong
    "Why something in the listing cannot be used, as its place and name tell."
    if is_hidden(path, root): return ""
    if os.path.isdir(path): return "a folder that cannot be read; check its permissions"
    if _is_film(path, root) and not _is_writable(path.relative_to(root)):
        return "its name is not UTF-8 or holds control characters; rename it"
    return ""


# %%
#| export
def _list_films(root: Path) -> tuple[list[Path], dict[str, str]]: # films; what is out of reach → reason
    "All films of a set, train first, then val, then test; sorted within a class."
    listing = _listing(root)
    reasons = {path: reason for path in listing if (reason := _out_of_reach(path, root))}
    films = [path for path in listing if _is_film(path, root) and path not in reasons]
    _check_not_empty(films, root)
    return films, {in_words(path.relative_to(root).as_posix()): why for path, why in reasons.items()}


# %%
films, out_of_reach = _list_films(root)
test_eq((len(films), out_of_reach), (30 + 16 + 12, {}))
test_eq(films[0].relative_to(root).parts[:2], ("train", "NORMAL"))


# %% [markdown]
# The label of a film comes from its folder, the kind from its name. A name that contradicts its folder is an
# error in the data, and all such films are refused at once.

# %%
#| export
def _label(path: Path, root: Path) -> int: # 0 normal, 1 pneumonia
    "The class that a film's folder tells."
    return CLASS_NAMES.index(path.relative_to(root).parts[1])

def _is_misnamed(path: Path, root: Path) -> bool:
    "Whether a film's name tells no patient, or another class than its folder."
    try: kind = film_kind(path)
    except StudyError: return True
    return (kind != "normal") != _label(path, root)


# %%
names = ["IM-1-1.png", "person1_virus_1.png", "a.png"]
test_eq([_is_misnamed(root/"train/NORMAL"/name, root) for name in names], [False, True, True])


# %%
#| export
def _check_names(films: list[Path], root: Path):
    "Refuse films whose names tell no patient or contradict their folder."
    misnamed = [path.relative_to(root).as_posix() for path in films if _is_misnamed(path, root)]
    if not misnamed: return
    shown = ", ".join(misnamed[:5]) + (" …" if len(misnamed) > 5 else "")
    raise StudyError("Expected names like NORMAL/IM-0115-0001.jpeg and "
                     "PNEUMONIA/person1000_bacteria_2931.jpeg, so that the patient is known and the kind "
                     f"fits the folder; found {counted(len(misnamed), 'other')}: {shown}; rename or "
                     f"move them, or list all films in a table, which `pneumo data template {root}` begins.")


# %%
scan = root/"train/NORMAL/scan.png"
test_fail(lambda: _check_names([scan], root), contains="found 1 other: train/NORMAL/scan.png")
test_fail(lambda: _check_names([scan], root), contains=f"`pneumo data template {root}` begins")


# %%
#| export
def _films_in_folders(root: Path) -> tuple[list[dict], dict[str, str]]: # rows; path left out → reason
    "The films that folders and names tell of."
    films, left_out = _list_films(root)
    _check_names(films, root)
    return [dict(path=path.relative_to(root).as_posix(), split=path.relative_to(root).parts[0],
                 label=_label(path, root), kind=film_kind(path), patient_id=patient_id(path))
            for path in films], left_out


# %%
test_eq(_films_in_folders(root)[0][0] | dict(path=""),
        dict(path="", split="train", label=0, kind="normal", patient_id=patient_id(films[0])))

# %% [markdown]
# ## Own films
#
# Other films have other names. A table, **`films.csv`** in the folder, then takes the place of folder names
# and file names. `pneumo run --films FILE` names a table that lies elsewhere. Its columns:
#
# | column | what it holds |
# | --- | --- |
# | `path` | the film's file, relative to the data folder; without `--data`, to the table's own folder |
# | `label` | `NORMAL` or `PNEUMONIA`, in letters of any size, or 0 or 1 |
# | `split` | `train`, `val` or `test`; without this column all films are train films, and nothing is test |
# | `patient` | who is on the film; without this column each film counts as a patient of its own |
# | `kind` | such as `bacteria`; `normal` for normal films. Without this column: `normal` or `pneumonia` |
#
# The last three may be left out, or left empty throughout. A column of another name is refused, because it
# may be a misspelt one. A table may be separated by commas, semicolons or tabs, in UTF-8.
#
# Such films have no naming series. The kind stands in its place, and a patient's number is the place among
# all patients in the order of their names.

# %%
#| export
_TABLE_COLUMNS = ["path", "label", "split", "patient", "kind"]
_OF_TABLE = ["series", "number", "published"]  # columns that names tell elsewhere

def table_of_films(file: Path) -> pd.DataFrame: # text; with the line of each row
    "The table as it is written, its columns checked."
    header, rows = read_cells(file)
    unknown = [name for name in header if name not in _TABLE_COLUMNS]
    missing = [name for name in ("path", "label") if name not in header]
    twice = sorted({name for name in header if header.count(name) > 1})
    for names, words in ((missing, "no column {}"), (unknown, "a column {} as well"), (twice, "{} twice")):
        if names: raise StudyError(
            f"Expected the columns path and label, and if you like split, patient and kind, in {file}, "
            f"found {words.format(', '.join(map(repr, names)))}; rename or remove it.")
    if not rows: raise StudyError(f"Expected films in {file}, found no row; fill it in.")
    table = pd.DataFrame([row for _, row in rows], columns=header, dtype=object)
    empty = [name for name in ("split", "patient", "kind") if name in table and (table[name] == "").all()]
    return table.drop(columns=empty).assign(line=[line for line, _ in rows])


# %%
def table_of(text: str) -> pd.DataFrame:
    (work/"some.csv").write_text(text)
    return table_of_films(work/"some.csv")

test_eq(table_of("Path,label,kind\na.png,0,\nb.png,1,\n").columns.tolist(), ["path", "label", "line"])
test_fail(lambda: table_of("path,split\na.png,test"), contains="found no column 'label'; rename")
test_fail(lambda: table_of("path,label,sex\na.png,0,f"), contains="found a column 'sex' as well; rename or")
test_fail(lambda: table_of("path,label,path\na.png,0,b.png"), contains="found 'path' twice")
test_fail(lambda: table_of("path,label\n"), contains="found no row")

# %%
#| export
_KIND = re.compile(r"\w[\w .+-]*")

_CELLS = {  # column → what a cell holds in words; whether it does
    "path": ("a path", lambda cell: _is_writable(cell) and bool(cell)),
    "label": ("NORMAL, PNEUMONIA, 0 or 1", lambda cell: cell.upper() in {*CLASS_NAMES, "0", "1"}),
    "split": ("train, val or test", lambda cell: cell.lower() in _SPLITS),
    "patient": ("a patient", lambda cell: _is_writable(cell) and bool(cell)),
    "kind": ("a kind in letters and digits", lambda cell: bool(_KIND.fullmatch(cell)))}

def _refuse_rows(
    file: Path,
    rows: pd.DataFrame, # those that are wrong; none if all is well
    column: str,
    wanted: str,        # in words
):
    "Refuse a table for some of its rows, of which the first is named."
    if rows.empty: return
    cell, line = rows[column].iloc[0], rows.line.iloc[0]
    more = f" (and in {len(rows) - 1} more)" if len(rows) > 1 else ""
    raise StudyError(f"Expected {wanted} in every row of {file}, found {in_words(cell)[:80] or 'nothing'} "
                     f"as {column} in line {line}{more}; mend the table.")


# %%
#| export
def _place_inside(root: Path, path: str) -> str: # "" for a place outside
    "A path relative to a folder, in one way of writing."
    top = os.path.abspath(root)
    place = Path(os.path.normpath(os.path.join(top, path)))
    return place.relative_to(top).as_posix() if place.is_relative_to(top) and place != Path(top) else ""


# %%
test_eq([_place_inside(Path("/set"), path) for path in ("./a//b.png", "/set/a.png", "../a.png", ".")],
        ["a/b.png", "a.png", "", ""])


# %%
#| export
def _checked_table(file: Path, root: Path) -> pd.DataFrame: # path, label; split, patient and kind as given
    "A table of which every cell is what its column says."
    table = table_of_films(file)
    for column in [name for name in _CELLS if name in table]:
        wanted, fits = _CELLS[column]
        _refuse_rows(file, table[~table[column].map(fits).astype(bool)], column, wanted)
    place = table.path.map(lambda path: _place_inside(root, path))
    _refuse_rows(file, table[place == ""], "path", f"a path inside {root}")
    real = place.map(lambda path: os.path.realpath(root/path))
    _refuse_rows(file, table[real.duplicated()], "path", "a film that no other row names")
    label = table.label.str.upper().map({"NORMAL": 0, "0": 0, "PNEUMONIA": 1, "1": 1})
    if "kind" in table: table["kind"] = table.kind.str.lower()
    kind = table.get("kind", label.map({0: "normal", 1: "pneumonia"}))
    _refuse_rows(file, table[(kind == "normal") != (label == 0)], "kind",
                 "the kind normal for normal films, and for no others,")
    split = table.split.str.lower() if "split" in table else "train"
    return table.assign(path=place, label=label, kind=kind, split=split)


# %% [markdown]
# A split that has one class alone could not be judged, and a table of which no film is there probably belongs
# to another folder.

# %%
#| export
def _check_table(table: pd.DataFrame, file: Path, root: Path):
    "Refuse a table without films to learn from, with one class in a split, or of another folder."
    present = set(zip(table.split, table.label))
    for split in sorted({"train", *table.split}):
        for label, name in enumerate(CLASS_NAMES):
            if (split, label) in present: continue
            raise StudyError(f"Expected films of both classes in {split} of {file}, found no {name}; "
                             "give more films, or other splits.")
    if not any(os.path.lexists(root/path) for path in table.path):
        raise StudyError(f"Expected the films of {file} in {root}, found none of its {len(table):,} paths, "
                         f"such as {table.path.iloc[0]}; check --data, or the paths.")


# %%
#| export
def _natural(name: str) -> list: # alternately text and numbers
    "A name as a key to sort by: patient 9 before patient 10."
    return [int(part) if n % 2 else part for n, part in enumerate(re.split(r"(\d+)", name))]

def _films_in_table(file: Path, root: Path) -> list[dict]: # train first, then val, then test; sorted within
    "The films that a table lists, checked as far as it goes without opening one."
    _check_folder(root)
    table = _checked_table(file, root)
    _check_table(table, file, root)
    patient = table.get("patient", table.path)
    places = {name: n for n, name in enumerate(sorted(set(patient), key=_natural), 1)}
    rows = table.assign(patient_id=patient, series=table.kind, number=patient.map(places),
                        published=table.split, place=table.split.map(_SPLITS.index))
    columns = ["path", "split", "label", "kind", "patient_id", *_OF_TABLE]
    return rows.sort_values(["place", "path"])[columns].to_dict("records")


# %%
test_eq(sorted(["p10", "p9", "a"], key=_natural), ["a", "p9", "p10"])

# %% [markdown]
# The films of a clinic might lie in one folder, like this:

# %%
clinic = work/"clinic"
clinic.mkdir()
for n, path in enumerate(films[:8] + films[-8:]): shutil.copy(path, clinic/f"IM-0001-0001 ({n}).jpeg")
listed = [f"IM-0001-0001 ({n}).jpeg;{n // 8};{n // 2}" for n in range(16)]
table_file = clinic/"films.csv"
table_file.write_text("path;label;patient\n" + "\n".join(listed))
rows = pd.DataFrame(_films_in_table(table_file, clinic))
rows.iloc[[0, 1, -1]].style.hide(axis="index")


# %% [markdown]
# What is wrong with a table is told by its line:

# %%
def listing_fails(*lines, contains):
    "Write some lines into a table of the clinic, and see it refused."
    table_file.write_text("path,label,split,patient,kind\n" + "\n".join(lines))
    test_fail(lambda: _films_in_table(table_file, clinic), contains=contains)

good = "IM-0001-0001 (0).jpeg,normal,train,7,normal"
listing_fails(good, "b.png,,train,8,virus", contains="found nothing as label in line 3; mend")
listing_fails("b.png,2,train,8,virus", contains="Expected NORMAL, PNEUMONIA, 0 or 1 in every row")
listing_fails("b.png,1,dev,8,virus", contains="found dev as split in line 2")
listing_fails("b.png,1,train,,virus", good, contains="Expected a patient in every row")
listing_fails("b.png,1,train,8,normal", contains="Expected the kind normal for normal films")
listing_fails("../b.png,1,train,8,virus", contains="found ../b.png as path in line 2")
listing_fails(good, f"./{good}", good, contains="(0).jpeg as path in line 3 (and in 1 more)")
listing_fails(good, contains="in train of " + str(table_file) + ", found no PNEUMONIA")
listing_fails(good.replace("(0)", "(x)"), "b.png,1,train,8,virus", contains="found none of its 2 paths")
table_file.write_text("path;label;patient\n" + "\n".join(listed))


# %% [markdown]
# Nobody should have to write such a table from nothing. `pneumo data template DIR` writes a row for each
# picture below a folder. What the public set's names tell beyond doubt is filled in, and everything else is
# left to its reader.

# %%
#| export
def possible_films(root: Path) -> list[Path]: # sorted; without the masks of phantoms
    "Pictures anywhere below a folder that could be films."
    masks = root/"masks" if (root/"phantom.json").exists() else None
    return [path for path in walk_files(root) if path.suffix.lower() in FILM_ENDINGS
            and not is_hidden(path, root) and masks not in path.parents]


# %%
#| export
def _guess(path: Path) -> dict: # a row of a table; "" for what is not told
    "What a film's path tells, relative to its set, by the names of the public set."
    splits = {part for part in path.parts[:-1] if part in _SPLITS}
    classes = {part.upper() for part in path.parts[:-1]} & set(CLASS_NAMES)
    try: kind, patient = film_kind(path), patient_id(path)
    except StudyError: kind = patient = ""
    if kind: classes.add(CLASS_NAMES[kind != "normal"])
    only = lambda names: names.pop() if len(names) == 1 else ""
    return dict(path=path.as_posix(), label=only(classes), split=only(splits), patient=patient, kind=kind)


# %%
test_eq(list(_guess(Path("test/PNEUMONIA/person1_virus_6.jpeg")).values())[1:],
        ["PNEUMONIA", "test", "person1_virus", "virus"])
test_eq(list(_guess(Path("normal/scan.png")).values())[1:], ["NORMAL", "", "", ""])
test_eq(_guess(Path("NORMAL/person1_virus_6.jpeg"))["label"], "")   # the two contradict each other


# %%
#| export
def write_template(
    folder: str | Path, # with pictures, in whatever folders below
) -> Path: # films.csv in that folder
    "Begin a table of own films: a row for each picture."
    folder = Path(folder)
    _check_folder(folder)
    file, pictures = folder/"films.csv", possible_films(folder)
    if os.path.lexists(file):
        raise StudyError(f"Expected no films.csv in {folder} yet, found one; fill it in, or move it away.")
    if not pictures:
        raise StudyError(f"Expected pictures ({_ENDINGS_IN_WORDS}) in {folder}, found none; "
                         "check the path.")
    for path in (p for p in pictures if not _is_writable(p.relative_to(folder))):
        raise StudyError("Expected names that are UTF-8 without control characters, "
                         f"found {in_words(path)}; rename it.")
    write_csv(file, pd.DataFrame([_guess(path.relative_to(folder)) for path in pictures]))
    return file


# %%
table_file.unlink()
test_eq(table_of_films(write_template(clinic)).columns.tolist(), ["path", "label", "line"])
test_fail(lambda: write_template(clinic), contains="films.csv in " + str(clinic) + " yet, found one")
test_fail(lambda: _films_in_table(table_file, clinic), contains="found nothing as label in line 2 (and in 15")
table_file.unlink()
test_eq(len(read_cells(write_template(root))[1]), len(films))
(root/"films.csv").unlink()
table_file.write_text("path;label\n" + "\n".join(f"IM-0001-0001 ({n}).jpeg;{n // 8}" for n in range(15)))


# %%
#| export
def check_source(
    root: str | Path,           # as for `scan_dataset`
    films_csv: str | Path = "",
):
    "Refuse a folder of films, or a table, before any film is opened."
    root, table = films_at(root, films_csv)
    if table: _films_in_table(table, root)
    else: check_layout(root)


# %%
check_source(root)
check_source("", table_file)
test_fail(lambda: check_source(clinic, work/"none.csv"), contains="found no such file")

# %% [markdown]
# Two things about a table are worth a row among the checks of a set. Pictures that it does not list are not
# used, which is harmless. But a table without patients cannot keep the films of one child together, so a
# model may be judged on children that it knows.

# %%
#| export
UNLISTED = "picture that the table of films does not list, ignored"
OWN_PATIENTS = "film without a patient in the table of films, counted as a patient of its own"

def _table_findings(rows: pd.DataFrame, table: Path, root: Path) -> dict[str, list[str]]: # problem → paths
    "What a table leaves open."
    listed = {row["path"] for row in _films_in_table(table, root)}
    pictures = [path.relative_to(root).as_posix() for path in possible_films(root)]
    has_patients = "patient" in table_of_films(table)
    return {UNLISTED: [in_words(path) for path in pictures if path not in listed],
            OWN_PATIENTS: [] if has_patients else rows.path.tolist()}


# %% [markdown]
# ## Pixels
#
# There is one way to read a film in this project, for the study and for whoever sends a film later. It goes
# by what a file holds, not by its name: an HTML page called `film.dcm` is no film.

# %%
#| export
def film_format(
    content: bytes, # of a file, or its first 132 bytes
) -> str: # "JPEG", "PNG", "TIFF", "WebP" or "DICOM"; "" for anything else
    "What kind of film a file is, by how it begins."
    if content[:3] == b"\xff\xd8\xff": return "JPEG"
    if content[:8] == b"\x89PNG\r\n\x1a\n": return "PNG"
    if content[128:132] == b"DICM": return "DICOM"
    if content[:4] in (b"II*\0", b"MM\0*"): return "TIFF"
    return "WebP" if content[:4] == b"RIFF" and content[8:12] == b"WEBP" else ""


# %%
film_content = films[0].read_bytes()
test_eq([film_format(content) for content in (film_content, bytes(128) + b"DICM", b"<html>", b"")],
        ["JPEG", "DICOM", "", ""])

# %% [markdown]
# A file of a few kilobytes may claim 60,000 × 60,000 pixels, and a decoder that believes it takes all memory.
# So a film's size is read from its header first. The largest detectors for chest films have about 16 million
# pixels. Four times that is the most that is decoded, and 256 MiB the most that a file may hold.

# %%
#| export
MOST_PIXELS, MOST_BYTES = 64_000_000, 2 ** 28

_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}   # markers that begin a frame
_BARE = {0x00, 0x01, *range(0xD0, 0xD9)}              # markers without a length

def _jpeg_size(content: bytes) -> tuple[int, int]: # width, height; (0, 0) where none is told
    "What the frame header of a JPEG says, behind whatever stands before it."
    place, last = 2, len(content) - 9
    while 0 <= (place := content.find(b"\xff", place)) <= last:
        marker = content[place + 1]
        if marker in _FRAMES: return struct.unpack_from(">HH", content, place + 5)[::-1]
        if marker == 0xFF: place += 1   # a byte that fills
        elif marker in _BARE: place += 2
        else: place += 2 + (content[place + 2] << 8 | content[place + 3])
    return 0, 0


# %%
test_eq(_jpeg_size(film_content), Image.open(films[0]).size)
test_eq(_jpeg_size(film_content[:20]), (0, 0))


# %%
#| export
def _png_header(content: bytes) -> tuple[int, int]: # bits a value, kind of colour; (0, 0) for other files
    "What a PNG says of its values."
    return (content[24], content[25]) if content[:4] == b"\x89PNG" and len(content) > 25 else (0, 0)

def _webp_size(content: bytes) -> tuple[int, int, int]: # width, height, frames: 2 for any animation
    "What the first part of a WebP says."
    number = lambda start, stop: int.from_bytes(content[start:stop], "little")
    kind, animated = content[12:16], len(content) > 20 and bool(content[20] & 2)
    if kind == b"VP8X": return number(24, 27) + 1, number(27, 30) + 1, 1 + animated
    if kind == b"VP8L": return (number(21, 25) & 0x3FFF) + 1, (number(21, 25) >> 14 & 0x3FFF) + 1, 1
    return number(26, 28) & 0x3FFF, number(28, 30) & 0x3FFF, 1


# %% [markdown]
# A TIFF has a table of tags. Only those that bear on its pixels are read.

# %%
#| export
_TIFF = {256: "width", 257: "height", 258: "bits", 262: "meaning", 277: "channels",
         322: "across", 323: "down"}  # of a tile

def _tiff_tags(content: bytes) -> dict[str, int]: # tags of `_TIFF`; next, 0 if there is one page
    "What a TIFF says of its first page."
    order = "little" if content[:2] == b"II" else "big"
    number = lambda start, size: int.from_bytes(content[start:start + size], order)
    table, tags = number(4, 4), dict(width=0, height=0, bits=1, meaning=1, channels=1, across=0, down=0)
    for place in range(table + 2, table + 2 + 12 * number(table, 2), 12):
        size = {3: 2, 4: 4}.get(number(place + 2, 2), 0)
        inside = size * number(place + 4, 4) <= 4   # else the first value lies elsewhere
        name = _TIFF.get(number(place, 2))
        if name: tags[name] = number(place + 8 if inside else number(place + 8, 4), size)
    return tags | dict(next=number(table + 2 + 12 * number(table, 2), 4))


# %%
tiff_content = cv2.imencode(".tiff", np.zeros((30, 40, 3), np.uint16))[1].tobytes()
_tiff_tags(tiff_content)


# %%
#| export
def _too_much(content: bytes, form: str) -> str: # "" if nothing is wrong
    "Why a picture is not decoded, by its header."
    width = height = frames = 1
    if form == "JPEG": width, height = _jpeg_size(content)
    if form == "PNG": width, height = (int.from_bytes(content[n:n + 4], "big") for n in (16, 20))
    if form == "WebP": width, height, frames = _webp_size(content)
    if form == "TIFF":
        tags = _tiff_tags(content)
        if tags["channels"] > 4 or tags["across"] * tags["down"] > MOST_PIXELS:
            return "channels or tiles that no film has"
        width, height, frames = tags["width"], tags["height"], 2 if tags["next"] else 1
    if frames > 1: return "several frames"
    return f"{width:,} × {height:,} pixels" if width * height > MOST_PIXELS else ""


# %%
claims = lambda side: b"\x89PNG\r\n\x1a\n" + bytes(8) + side.to_bytes(4, "big") * 2
test_eq([_too_much(claims(side), "PNG") for side in (8_000, 60_000)], ["", "60,000 × 60,000 pixels"])
test_eq([_too_much(film_content, "JPEG"), _too_much(tiff_content, "TIFF")], ["", ""])

# %% [markdown]
# Colour films become gray, and a film that was saved lying is turned as its file says (EXIF).
#
# Detectors give 10, 12 or 14 bits. Where such values are stored in 16 bits as they are, the film would be
# nearly black. A model could then tell the classes by nothing else than how they were saved. So the highest
# value of a 16-bit film tells how many bits it has.

# %%
#| export
# What is wrong with a film is said once, in this project's words.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

def _decoded(content: bytes, flag: int) -> np.ndarray | None:
    "Pixels of an image file by OpenCV; None where it cannot."
    return cv2.imdecode(np.frombuffer(content, np.uint8), flag) if content else None

def _bits_used(values: np.ndarray) -> int: # 8, 10, 12, 14 or 16
    "Bits of the detector whose values these may be."
    return next(bits for bits in (8, 10, 12, 14, 16) if values.max(initial=0) < 2 ** bits)


# %%
test_eq([_bits_used(np.array([0, top])) for top in (255, 256, 4095, 4096, 65535)], [8, 10, 12, 14, 16])


# %%
#| export
def _is_deep(content: bytes) -> bool:
    "Whether a picture has values of 16 bits."
    if film_format(content) == "TIFF": return _tiff_tags(content)["bits"] == 16
    return _png_header(content)[0] == 16

def _gray_and_bits(content: bytes) -> tuple[np.ndarray | None, int]: # (H, W) uint8; bits used
    "A film's pixels in gray, and of how many bits they were made."
    if not _is_deep(content): return _decoded(content, cv2.IMREAD_GRAYSCALE), 16
    values = _decoded(content, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH)
    if values is None or values.dtype != np.uint16: return _decoded(content, cv2.IMREAD_GRAYSCALE), 16
    bits = _bits_used(values)
    if bits == 16: return _decoded(content, cv2.IMREAD_GRAYSCALE), 16
    is_negative = film_format(content) == "TIFF" and _tiff_tags(content)["meaning"] == 0   # 0 is white
    if is_negative: values = np.uint16(2 ** bits - 1) - values
    return (values >> (bits - 8)).astype(np.uint8), bits


# %%
#| export
def _may_be_transparent(content: bytes) -> bool:
    "Whether a picture has a fourth channel."
    form = film_format(content)
    if form == "TIFF": return _tiff_tags(content)["channels"] == 4 and _tiff_tags(content)["meaning"] == 2
    return form == "WebP" or _png_header(content)[1] in (3, 4, 6)

def _is_transparent(content: bytes) -> bool:
    "Whether a picture has pixels that are not opaque, so that its gray values are not the picture."
    if not _may_be_transparent(content): return False
    pixels = _decoded(content, cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.ndim < 3 or pixels.shape[2] < 4: return False
    return bool(pixels[..., 3].min() < np.iinfo(pixels.dtype).max)


# %% [markdown]
# ## DICOM
#
# A DICOM file holds **stored values** and tags that say how they become gray. A viewer applies them in this
# order (DICOM PS3.3, C.11):
#
# 1. The modality table, or the rescale slope and intercept.
# 2. The first VOI table. Without one, the first window, by its function.
# 3. The photometric interpretation: in MONOCHROME1 the highest value is black.
#
# Without table and window, values of 8 bits stay what they are. Of more bits, gray then runs **from the
# lowest to the highest pixel**, without those that only pad the frame.
#
# Tags hold a patient's name and dates, too. So only tags on a list are parsed. pydicom's warnings quote what
# they wonder about, and are switched off.

# %%
#| export
_SHOWN_TAGS = ("Modality", "BodyPartExamined", "ViewPosition", "PhotometricInterpretation", "Rows", "Columns",
               "BitsStored", "BurnedInAnnotation", "Manufacturer")  # none tells who is on a film
_PIXEL_TAGS = (
    "SamplesPerPixel", "PlanarConfiguration", "NumberOfFrames", "BitsAllocated", "HighBit",
    "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept",
    "ModalityLUTSequence", "VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction",
    "ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelData")

def _pydicom():
    "pydicom, which neither prints nor logs what it finds in a file."
    import pydicom
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", module=r"pydicom\b")
    return pydicom


# %% [markdown]
# In the deflated transfer syntax all tags are compressed together, by up to a thousand times. So they are
# unpacked once piece by piece, which keeps nothing, and only counted.

# %%
#| export
def _unpacks_to(packed: bytes, most: int) -> int: # bytes; more than `most` as soon as that is passed
    "How much a deflated text unpacks to."
    unpacker, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
    while packed and not unpacker.eof and total <= most:
        total += len(unpacker.decompress(packed, 2 ** 20))
        packed = unpacker.unconsumed_tail
    return total

def _is_dicom_bomb(content: bytes) -> bool:
    "Whether a deflated DICOM file unpacks to more than a film can hold."
    from pydicom.filereader import read_dataset
    file = io.BytesIO(content)
    file.seek(132)
    meta = read_dataset(file, False, True, stop_when=lambda tag, *_: tag.group != 2)
    deflated = meta.get("TransferSyntaxUID") == "1.2.840.10008.1.2.1.99"
    return deflated and _unpacks_to(content[file.tell():], MOST_BYTES) > MOST_BYTES


# %%
packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
packed = packer.compress(bytes(10_000_000)) + packer.flush()
test_eq((_unpacks_to(packed, 10 ** 9), len(packed) < 10_000), (10_000_000, True))
assert _unpacks_to(packed, 2 ** 21) < 2 ** 22


# %%
#| export
def _read_tags(
    content: bytes, # of a DICOM file
    names: tuple[str, ...] = (*_SHOWN_TAGS, *_PIXEL_TAGS, "ViewCodeSequence"),
): # pydicom's Dataset
    "Some tags of a DICOM file, and no others."
    pydicom = _pydicom()
    if _is_dicom_bomb(content): raise ValueError("unpacks to too much")
    without_pixels = "PixelData" not in names
    return pydicom.dcmread(io.BytesIO(content), stop_before_pixels=without_pixels, specific_tags=list(names))


# %% [markdown]
# What cannot be shown as one gray film is refused before a pixel is decoded.

# %%
#| export
def _dicom_problem(tags) -> str: # "" if nothing is wrong
    "Why the pixels of a DICOM file are not decoded, by its tags."
    if "PixelData" not in tags: return "no pixels in it"
    if int(tags.get("NumberOfFrames") or 1) > 1: return "several frames"
    kind, channels, stored = tags.PhotometricInterpretation, int(tags.SamplesPerPixel), int(tags.BitsStored)
    if int(tags.Rows) * int(tags.Columns) * channels > MOST_PIXELS:
        return f"{tags.Columns:,} × {tags.Rows:,} pixels"
    gray = kind in ("MONOCHROME1", "MONOCHROME2") and channels == 1
    colour = (kind == "RGB" or kind.startswith("YBR_")) and channels == 3
    if not (gray or colour): return "pixels that are neither gray nor RGB"
    if not 8 <= stored <= (16 if gray else 8) or tags.BitsAllocated not in (8, 16):
        return f"{stored} bits stored, not 8 to 16 in gray or 8 in colour"
    return "" if tags.get("HighBit", stored - 1) == stored - 1 else "stored values that are shifted"


# %% [markdown]
# The decoders of compressed pixels (GDCM) are written in C++, and bad data can abort the whole process. They
# work in a **process of their own**, which may use 2 GiB and a minute. If it dies, that film is refused, and
# the next film gets another process. There are as many as threads that decode at the same time.

# %%
#| export
_DECODER_BYTES, _DECODER_SECONDS = 2 ** 31, 60

def _stored_values(tags) -> np.ndarray: # (H, W), or (H, W, 3) in RGB
    "Values as they are stored, only the bits that count."
    from pydicom.pixels import pixel_array
    values = pixel_array(tags)
    values = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    spare = 8 * values.itemsize - int(tags.BitsStored)
    return (values << spare) >> spare if spare else values

def _serve_values():
    "Give the stored values of DICOM files from standard input on standard output, until it ends."
    import psutil
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)   # a decoder that prints does not spoil an answer
    me = psutil.Process()
    if hasattr(me, "rlimit"): me.rlimit(psutil.RLIMIT_AS, (me.memory_info().vms + _DECODER_BYTES,) * 2)
    while head := sys.stdin.buffer.read(8):
        try: values = _stored_values(_read_tags(sys.stdin.buffer.read(int.from_bytes(head, "big"))))
        except Exception: values = None   # the other side refuses the film
        shape = [] if values is None else [values.dtype.str, *values.shape]
        answers.write(json.dumps(shape).encode() + b"\n")
        if shape: answers.write(values.data)
        answers.flush()


# %%
#| export
_DECODERS = []  # processes that wait for work
if hasattr(os, "register_at_fork"): os.register_at_fork(after_in_child=_DECODERS.clear)

def _start_decoder() -> subprocess.Popen:
    "A process that decodes."
    code = "from pneumo_nb.films import _serve_values; _serve_values()"
    variables = os.environ | dict(PYTHONPATH=os.pathsep.join(path or os.getcwd() for path in sys.path))
    return subprocess.Popen([sys.executable, "-c", code], env=variables, stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

def _stop_decoder(decoder: subprocess.Popen):
    "End a process that decodes."
    decoder.kill()
    decoder.communicate()

@atexit.register
def _stop_decoders():
    "End all processes that wait for work."
    while _DECODERS: _stop_decoder(_DECODERS.pop())


# %%
#| export
def _ask_decoder(decoder: subprocess.Popen, content: bytes) -> np.ndarray | None:
    "What a process answers; None if it could not decode the file, an error if it died."
    decoder.stdin.write(len(content).to_bytes(8, "big"))
    decoder.stdin.write(content)
    decoder.stdin.flush()
    shape = json.loads(decoder.stdout.readline())   # nothing, from a process that died, is no JSON
    if not shape: return None
    size = np.dtype(shape[0]).itemsize * math.prod(shape[1:])
    return np.frombuffer(decoder.stdout.read(size), shape[0]).reshape(shape[1:])

def _values_elsewhere(content: bytes) -> np.ndarray:
    "Stored values of a DICOM file, decoded by another process."
    try: decoder = _DECODERS.pop()
    except IndexError: decoder = _start_decoder()
    if decoder.poll() is not None: decoder = _start_decoder()
    watch = threading.Timer(_DECODER_SECONDS, decoder.kill)
    watch.start()
    try: values = _ask_decoder(decoder, content)
    except BaseException:
        _stop_decoder(decoder)
        raise
    finally: watch.cancel()
    _DECODERS.append(decoder)
    if values is None: raise ValueError("cannot be decoded")
    return values


# %% [markdown]
# Stored values have at most 16 bits. So each possible value is turned into gray once, and a film is looked up
# in that table.

# %%
#| export
def _window(values, center: float, width: float, function: str = "LINEAR"): # → 0-255
    "Gray of values by a window."
    if width <= 0: raise ValueError("a window without width")
    if function == "SIGMOID": return 255 / (1 + np.exp(-4 * (values - center) / width))
    if function == "LINEAR": center, width = center - .5, max(width - 1, 1e-6)
    elif function != "LINEAR_EXACT": raise ValueError("an unknown window")
    return 255 * np.clip((values - center) / width + .5, 0, 1)


# %%
test_close(_window(np.array([0, 2047.5, 4095]), 2048, 4096), [0, 127.5, 255])
test_close(_window(np.array([-100, 0, 100]), 0, 100, "SIGMOID"), [4.587, 127.5, 250.413], 1e-3)
test_fail(lambda: _window(1, 0, 0))


# %%
#| export
def _by_table(values: np.ndarray, tags) -> np.ndarray: # 0-255
    "Gray of values by the first VOI table, whose highest value tells how many bits it has."
    from pydicom.pixels import apply_voi
    entries, first, bits = tags.VOILUTSequence[0].LUTDescriptor
    shades = apply_voi(np.arange(first, first + (entries or 2 ** 16)), tags)
    return apply_voi(np.rint(values).astype(int), tags) * (255 / (2 ** min(bits, _bits_used(shades)) - 1))

def _first(value): # what may be a single value or several
    return value[0] if hasattr(value, "__iter__") and not isinstance(value, str) else value

def _shown(values: np.ndarray, ends: tuple[float, float], tags) -> np.ndarray: # uint8
    "Gray that a viewer shows for stored values; from black to white between two ends, if no tag tells."
    from pydicom.pixels import apply_modality_lut
    center, width = _first(tags.get("WindowCenter")), _first(tags.get("WindowWidth"))
    low, high, *out = np.asarray(apply_modality_lut(np.array([*ends, *values], values.dtype), tags), float)
    if tags.get("VOILUTSequence"): gray = _by_table(np.array(out), tags)
    elif None not in (center, width):
        gray = _window(np.array(out), float(center), float(width), tags.get("VOILUTFunction") or "LINEAR")
    else: gray = 255 * (np.array(out) - min(low, high)) / max(abs(high - low), 1e-6)
    if not np.isfinite(gray).all(): raise ValueError("values that are no numbers")
    gray = np.rint(np.clip(gray, 0, 255)).astype(np.uint8)
    return 255 - gray if tags.PhotometricInterpretation == "MONOCHROME1" else gray


# %%
#| export
def _ends(values: np.ndarray, tags) -> tuple[int, int]:
    "The range of 8-bit values; of more bits, the lowest and highest pixel that is no padding."
    if tags.BitsStored == 8: return (-128, 127) if tags.PixelRepresentation else (0, 255)
    padding = tags.get("PixelPaddingValue")
    if padding is None: return int(values.min()), int(values.max())
    low, high = sorted((int(padding), int(tags.get("PixelPaddingRangeLimit", padding))))
    counts = (values < low) | (values > high)
    if not counts.any(): return low, high
    return (int(values.min(initial=values.max(), where=counts)),
            int(values.max(initial=values.min(), where=counts)))


# %%
#| export
def _dicom_gray(values: np.ndarray, tags) -> np.ndarray: # (H, W) uint8
    "A film of stored values."
    if values.ndim == 3: return cv2.cvtColor(values, cv2.COLOR_RGB2GRAY)
    low, high = int(values.min()), int(values.max())
    table = _shown(np.arange(low, high + 1).astype(values.dtype), _ends(values, tags), tags)
    places = values.view(f"u{values.itemsize}")
    places = places - places.dtype.type(low % 2 ** (8 * values.itemsize))   # from 0, also of signed values
    return np.stack([table[row] for row in places])

def _dicom_film(content: bytes) -> tuple[np.ndarray | None, str]: # (H, W) uint8; why there is none
    "The film in a DICOM file."
    try:
        tags = _read_tags(content)
        if problem := _dicom_problem(tags): return None, problem
        packed = tags.file_meta.TransferSyntaxUID.is_compressed
        values = _values_elsewhere(content) if packed else _stored_values(tags)
        if values.shape[:2] != (tags.Rows, tags.Columns): return None, "pixels of another size than its tags"
        return _dicom_gray(values, tags), ""
    except Exception: # decoders raise what they like, and quote a patient's tags
        return None, "one that pydicom cannot decode"


# %% [markdown]
# ## One reader
#
# `decode_film` takes what a file holds, and `read_film` the file. Each refuses with one sentence.

# %%
#| export
def _picture_film(content: bytes) -> tuple[np.ndarray | None, str]: # (H, W) uint8; why there is none
    "The film in a picture file."
    if problem := _too_much(content, film_format(content)): return None, problem
    if _is_transparent(content): return None, "transparent pixels, which a film has not"
    return _gray_and_bits(content)[0], "one that OpenCV cannot decode"

def _no_film(content: bytes) -> tuple[None, str]:
    "What a file is that is no film."
    return None, "a file that is neither JPEG, PNG, TIFF, WebP nor DICOM" if content else "an empty file"

def _film_or_problem(content: bytes) -> tuple[np.ndarray | None, str]: # (H, W) uint8; why there is none
    "The film in a file."
    return {"DICOM": _dicom_film, "": _no_film}.get(film_format(content), _picture_film)(content)


# %%
#| export
def decode_film(
    content: bytes, # of a file
    name: str,      # what a refusal calls it
) -> np.ndarray: # (H, W) uint8
    "A film's pixels in gray, at full size, upright."
    film, problem = _film_or_problem(content)
    if film is not None: return film
    raise StudyError(f"Expected a readable film at {name}, found {problem}; replace or remove it.")


# %% [markdown]
# ### Films elsewhere
#
# Films may lie where no path leads: an address such as `s3://bucket/films` stands for a path then. What
# begins like an address is one. [fsspec](https://filesystem-spec.readthedocs.io) reads it, with credentials
# from where it always takes them. Each kind of address needs its own package, such as s3fs.

# %%
#| export
def is_address(place: str | Path) -> bool:
    "Whether a place is an address, such as s3://bucket/films, and not a path."
    return re.match(r"[a-z][a-z0-9+.-]*://", str(place)) is not None


# %%
test_eq([is_address(place) for place in ("s3://b/a.png", "memory://a", "/a.png", "a:b.png", Path("s3://b"))],
        [True, True, False, False, False])


# %% [markdown]
# A film that is missing, or is no film, is the film's own fault. A place that does not answer, or wants other
# credentials, says nothing about the film. So that is an error of its own kind: it must never become an
# answer.

# %%
#| export
class PlaceError(StudyError):
    "A place that does not answer or refuses to; what lies there may be sound."

@contextmanager
def asking(address: str):
    "Turn what a place does wrong into one sentence; that something is not there stays as it is."
    try: yield
    except (StudyError, ImportError, FileNotFoundError, IsADirectoryError): raise
    except Exception as e: raise PlaceError(
        f"Expected an answer from {address}, found {type(e).__name__}: {e}; "
        "look at the address and its credentials, and try again.") from None


# %%
def refuse(reason):
    with asking("s3://films"): raise reason
test_fail(lambda: refuse(PermissionError("denied")), contains="found PermissionError: denied; look at")
test_fail(lambda: refuse(FileNotFoundError("a.png")), contains="a.png")


# %% [markdown]
# Listings are not kept in memory, for a folder may have a million films, and may change.

# %%
#| export
def filesystem(
    place: str | Path, # address or path
) -> tuple: # fsspec's filesystem, and the path in it
    "Where fsspec finds a place."
    try:
        import fsspec
        if not is_address(place): return fsspec.filesystem("file"), os.path.abspath(place)
        with asking(place): return fsspec.core.url_to_fs(str(place), use_listings_cache=False)
    except ImportError as e: raise StudyError(
        f"Expected the packages that read {place}, found one missing ({' '.join(str(e).split())}); "
        "install pneumo_nb with its extra cluster, or that package.") from None


# %%
test_eq(filesystem("memory://films/a.png")[1], "/films/a.png")
test_fail(lambda: filesystem("nowhere://a.png"), contains="Expected an answer from nowhere://a.png")


# %% [markdown]
# Some files are no files: to open a pipe, or a device, would wait for ever. They are named, not opened.

# %%
#| export
def _refuse_content(place: str | Path, found: str):
    "Refuse what is no file of a film's size."
    raise StudyError(f"Expected a film of at most {MOST_BYTES:,} bytes at {place}, found {found}; "
                     "replace or remove it.")

def _address_bytes(address: str) -> bytes:
    "What lies at an address, but no more of it than a film may have."
    files, path = filesystem(address)
    with asking(address):
        try: content = files.cat_file(path, start=0, end=MOST_BYTES + 1)
        except OSError as e:
            if e.errno != errno.EINVAL or files.size(path): raise
            content = b""  # a store knows no beginning of an empty file
    return content if len(content) <= MOST_BYTES else _refuse_content(address, f"more than {MOST_BYTES:,}")


# %%
#| export
def read_bytes(path: str | Path) -> bytes: # `path`: or an address
    "The content of a regular file of a film's size."
    if is_address(path): return _address_bytes(path)
    state = os.stat(path)  # a broken link says so itself
    if not stat.S_ISREG(state.st_mode): _refuse_content(path, "a pipe, device or folder")
    if state.st_size > MOST_BYTES: _refuse_content(path, f"{state.st_size:,} bytes")
    with open(path, "rb", buffering=0) as file: return file.readall()

def read_film(
    path: str | Path, # of the file, or an address
) -> np.ndarray: # (H, W) uint8
    "A film's pixels in gray, at full size, upright."
    return decode_film(read_bytes(path), str(path))


# %%
film = read_film(films[0])
test_fail(lambda: read_film(root/"phantom.json"), contains="neither JPEG, PNG, TIFF, WebP nor DICOM; replace")
test_fail(lambda: decode_film(b"", "upload.dcm"), contains="at upload.dcm, found an empty file")
test_fail(lambda: decode_film(claims(60_000), "a.png"), contains="found 60,000 × 60,000 pixels")
test_fail(lambda: read_film(work), contains="found a pipe, device or folder")
film.shape, film.dtype

# %% [markdown]
# A film has the same pixels wherever it lies:

# %%
filesystem("memory://films/a.jpeg")[0].pipe_file("/films/a.jpeg", films[0].read_bytes())
test_eq(read_film("memory://films/a.jpeg"), film)
test_fail(lambda: read_film("memory://films/b.jpeg"), contains="/films/b.jpeg")

# %% [markdown]
# Each way to save a film without loss gives the same pixels:

# %%
saved = {"12_bits.png": film.astype(np.uint16) * 16, "16_bits.png": film.astype(np.uint16) * 257,
         "8_bits.tiff": film, "12_bits.tif": film.astype(np.uint16) * 16, "colour.png": np.dstack([film] * 3)}
for name, values in saved.items():
    cv2.imwrite(str(work/name), values)
    test_eq(read_film(work/name), film)
Image.fromarray(film).save(work/"film.webp", lossless=True)
assert np.abs(read_film(work/"film.webp").astype(int) - film).max() <= 1   # by way of colour
exif = Image.Exif()
exif[274] = 6   # turn to the right
Image.fromarray(film).save(work/"lying.png", exif=exif)
test_eq(read_film(work/"lying.png"), np.rot90(film, -1))


# %% [markdown]
# So does DICOM: here the same film as 12-bit values in which high is black, as a detector might give them.

# %%
def as_dicom(film, **tags) -> bytes:
    "A film as a DICOM file of 12 bits; `tags` are added, or take the place of others."
    height, width = film.shape
    ds = Dataset(dict())
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    pixels = dict(SamplesPerPixel=1, PhotometricInterpretation="MONOCHROME1", Rows=height, Columns=width,
                  BitsAllocated=16, BitsStored=12, HighBit=11, PixelRepresentation=0)
    about = dict(SOPClassUID="1.2.840.10008.5.1.4.1.1.1.1", SOPInstanceUID="1.2.3", Modality="DX",
                 BodyPartExamined="CHEST", ViewPosition="AP", PatientName="Somebody")
    values = (255 - film.astype(np.uint16)) * 16
    for name, value in (about | pixels | dict(PixelData=values.tobytes()) | tags).items():
        setattr(ds, name, value)
    ds.save_as(file := io.BytesIO(), enforce_file_format=True)
    return file.getvalue()

windowed = as_dicom(film, WindowCenter=2040.5, WindowWidth=4081)
test_eq(decode_film(windowed, "film.dcm"), film)
bare = decode_film(as_dicom(film), "film.dcm")   # without a window: from the lowest to the highest pixel
assert bare.min() == 0 and bare.max() == 255
test_fail(lambda: decode_film(as_dicom(film, NumberOfFrames=2), "a.dcm"), contains="found several frames")
test_fail(lambda: decode_film(windowed[:-9], "a.dcm"), contains="found one that pydicom cannot decode")

# %% [markdown]
# ## What DICOM tags tell
#
# Tags may say that a file is no frontal film of a chest, or that something was written into it. That refuses
# nothing, since such tags are often wrong. `dicom_remarks` says it in words.

# %%
#| export
_RADIOGRAPHS, _FRONTAL = ("CR", "DX", "DR", "RG"), ("PA", "AP")

def _word(value) -> str:
    "A tag's value, if it is a word of DICOM; whoever writes a tag may write anything."
    text = str(value).strip().upper()
    return text if re.fullmatch(r"([A-Z0-9][A-Z0-9 _/-]{0,15})?", text) else "of another kind"

def _plain(name: str, value) -> str | int:
    "The value of a tag, or what the first code of a sequence means; \"\" where there is none."
    if name.endswith("Sequence"): value = value[0].get("CodeMeaning") if value else None
    if value is None: return ""
    return int(value) if isinstance(value, int) else in_words(value)[:64]

def _plain_tags(content: bytes, names: tuple[str, ...]) -> dict[str, str | int]: # name → value
    "Some tags of a DICOM file."
    try:
        tags = _read_tags(content, names)
        return {name: _plain(name, tags.get(name)) for name in names}   # parsed when it is taken
    except Exception: # of any kind, and with a patient's tags in its words
        raise StudyError("Expected a DICOM file whose tags can be read, found a damaged one; "
                         "replace it.") from None


# %%
#| export
def dicom_remarks(
    content: bytes, # of a file of any format
) -> list[str]: # a few words each; none for other formats
    "What a DICOM file's tags say against its being a frontal chest film without annotation."
    if film_format(content) != "DICOM": return []
    tags = _plain_tags(content, ("Modality", "BodyPartExamined", "ViewPosition", "ViewCodeSequence",
                                 "BurnedInAnnotation"))
    modality, part, view, _, burnt_in = map(_word, tags.values())
    is_lateral = re.search(r"\b(LATERAL|OBLIQUE|DECUBITUS)", str(tags["ViewCodeSequence"]).upper())
    says = {f"modality {modality}, no radiograph": modality and modality not in _RADIOGRAPHS,
            f"body part {part}, not the chest": part and not re.search("CHEST|THORAX|LUNG", part),
            f"view {view}, not frontal": view and view not in _FRONTAL,
            "view not frontal": is_lateral and not view,
            "writing burnt into the picture": burnt_in == "YES"}
    return [f"DICOM tags: {words}" for words, holds in says.items() if holds]


# %%
test_eq(dicom_remarks(windowed), [])
test_eq(dicom_remarks(film_content), [])
dicom_remarks(as_dicom(film, Modality="CT", BodyPartExamined="KNEE", ViewPosition="LL",
                       BurnedInAnnotation="YES"))


# %% [markdown]
# `dicom_tags` gives tags by name, from a short list. No name, number or date of a patient is on it.

# %%
#| export
def dicom_tags(
    content: bytes, # of a file of any format
    names: list[str] | tuple[str, ...] = _SHOWN_TAGS,
) -> dict[str, str | int]: # name → value, "" where there is none; empty for other formats
    "Some tags of a DICOM file that tell nothing of a patient."
    others = [in_words(name) for name in names if name not in _SHOWN_TAGS]
    if others: raise StudyError(f"Expected tags out of {', '.join(_SHOWN_TAGS)}, found {', '.join(others)}; "
                                "other tags may tell who is on a film.")
    if film_format(content) != "DICOM": return {}
    return _plain_tags(content, tuple(names))


# %%
test_fail(lambda: dicom_tags(windowed, ["PatientName"]), contains="found PatientName; other tags may tell")
test_eq(dicom_tags(windowed, ["Rows", "Manufacturer"]), dict(Rows=film.shape[0], Manufacturer=""))
dicom_tags(windowed)

# %% [markdown]
# ## One row a film
#
# A file cut short in the middle has a perfect header. So every file is read once as a whole, and all of its
# pixels are decoded. Of JPEG, PNG and WebP that is done at a smaller size, by Pillow and by OpenCV, which
# reads the films later.
#
# The small picture also tells whether there is a film to see. On the public set at 224 pixels, the darkest
# and the brightest hundredth of a film's pixels are at least 87 gray levels apart. Below 32, as in a black or
# constant picture, a film is left out by name. So is one of less than 32 pixels.

# %%
#| export
_SMALLEST, _FLATTEST = 32, 32  # pixels of a side; gray levels from the 1st to the 99th percentile

def _small_picture(content: bytes, width: int, height: int) -> np.ndarray | None: # (h, w, 3) uint8
    "A film at an eighth of its size, or less reduced where that would leave few pixels."
    if _is_deep(content):
        film = _gray_and_bits(content)[0]
        return film if film is None else cv2.cvtColor(film, cv2.COLOR_GRAY2BGR)
    reduced = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}
    fitting = [flag for factor, flag in reduced.items() if min(width, height) >= 64 * factor]
    return _decoded(content, fitting[0] if fitting else cv2.IMREAD_COLOR)


# %%
#| export
def _problem(gray: np.ndarray, content: bytes, width: int, height: int) -> str: # "" if nothing is wrong
    "Why a picture that can be decoded is no film to learn from."
    low, high = np.percentile(gray, [1, 99])
    if min(width, height) < _SMALLEST:
        return f"too small: {width} × {height} pixels, fewer than {_SMALLEST} on a side"
    if _is_transparent(content): return "it has transparent pixels; save it without an alpha channel"
    if high - low < _FLATTEST:
        return f"hardly anything to see: 98 % of its gray values lie between {low:.0f} and {high:.0f}"
    return ""


# %% [markdown]
# Three more things are told by a thumbnail of 32 pixels, and reported without leaving the film out. On a
# chest film the spine is brighter than the lungs beside it, on a negative darker: on none of the public set's
# films is it. A colour film has channels that differ. And two files with thumbnails that agree are one
# picture saved twice.

# %%
#| export
def _is_inverted(thumb: np.ndarray) -> bool: # (32, 32) gray
    "Whether the middle of a film is darker than the lungs beside it."
    rows = thumb[8:24].astype(float)
    return bool(rows[:, 14:18].mean() < np.c_[rows[:, 6:11], rows[:, 21:26]].mean())

def _is_colourful(picture: np.ndarray) -> bool: # (h, w, 3)
    "Whether the channels of a picture differ by more than 8 levels on average."
    blue, green, red = cv2.split(picture)
    spread = cv2.max(cv2.max(blue, green), red) - cv2.min(cv2.min(blue, green), red)
    return bool(spread.mean() > 8)


# %%
thumb = cv2.resize(film, (32, 32), interpolation=cv2.INTER_AREA)
test_eq([_is_inverted(thumb), _is_inverted(255 - thumb)], [False, True])
test_eq([_is_colourful(np.dstack([thumb, thumb, other])) for other in (thumb, thumb // 2)], [False, True])


# %%
#| export
def _header_facts(path: Path, content: bytes) -> dict: # width and height in pixels, upright; mode
    "What Pillow says of a JPEG, PNG or WebP that it can read as a whole."
    with Image.open(path, formats=["JPEG", "PNG", "WEBP"]) as image:
        size, mode, lying = image.size, image.mode, image.getexif().get(274, 1) > 4
        image.draft("L", (max(1, image.width // 8), max(1, image.height // 8)))
        image.load()
    width, height = size[::-1] if lying else size
    return dict(width=width, height=height, mode=mode)

def _decoded_facts(content: bytes, film: np.ndarray) -> dict: # width and height in pixels; mode
    "The same of a TIFF or DICOM file that has been decoded."
    mode = "L" if str(dicom_tags(content).get("PhotometricInterpretation", "M")).startswith("M") else "RGB"
    if film_format(content) == "TIFF":
        tags = _tiff_tags(content)
        mode = f"{tags['channels']} × {tags['bits']} bits"
        mode = {"1 × 8 bits": "L", "3 × 8 bits": "RGB", "1 × 16 bits": "I;16"}.get(mode, mode)
    return dict(width=film.shape[1], height=film.shape[0], mode=mode)


# %%
#| export
def _image_facts(
    path: Path,
    content: bytes, # of the file
) -> dict: # width and height in pixels, mode, problem; thumb and four findings where there is a picture
    "What a film's file holds; an error where Pillow cannot read it."
    form = film_format(content)
    film, problem = _film_or_problem(content) if form in ("TIFF", "DICOM", "") else (None, "")
    problem = problem if film is None else ""
    if problem := problem or _too_much(content, form): return dict(problem=f"found {problem}")
    facts = _header_facts(path, content) if film is None else _decoded_facts(content, film)
    width, height = facts["width"], facts["height"]
    picture = film if form == "DICOM" else _small_picture(content, width, height)
    if picture is None: return facts | dict(problem="OpenCV cannot decode it")
    gray = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY) if picture.ndim == 3 else picture
    thumb = cv2.resize(gray, (32, 32), interpolation=cv2.INTER_AREA)
    few_bits = _is_deep(content) and _gray_and_bits(content)[1] < 16
    return facts | dict(problem=_problem(gray, content, width, height), thumb=thumb, few_bits=few_bits,
                        inverted=_is_inverted(thumb), colourful=picture.ndim == 3 and _is_colourful(picture),
                        tagged=bool(dicom_remarks(content)))


# %%
#| export
def _film_facts(
    film: dict, # path, and what folders and names, or a table, say
    root: Path, # of the set
) -> dict: # a row of the table; `problem` is "" if the film can be used
    "What a film's file tells, without keeping its pixels."
    path, row = root/film["path"], film | dict(width=0, height=0, mode="")
    try:
        content = read_bytes(path)
        facts = dict(bytes=len(content), sha1=hashlib.sha1(content).hexdigest())
        return row | facts | _image_facts(path, content)
    except FileNotFoundError: return row | dict(problem="there is no such file, or a link leads nowhere")
    except Exception as e: # decoders raise what they like
        return row | dict(problem=f"{type(e).__name__}: {e}".replace(str(root), "").strip())


# %%
facts = _film_facts(_films_in_folders(root)[0][0], root)
test_eq([facts[k] for k in ("split", "label", "kind", "mode", "problem")], ["train", 0, "normal", "L", ""])
{key: value for key, value in facts.items() if key != "thumb"}

# %% [markdown]
# Re-saved copies across train and test would be judged by a network that knows the picture. Two thumbnails
# agree if their correlation is above .99. In the public set at 224 pixels, the best match of any of the 624
# test films among the other films is .972, so there is no false alarm. Copies at half the size and of poor
# JPEG quality (20) reach .998.

# %%
#| export
_SAME_PICTURE = .99  # correlation of two thumbnails

def _standardised(thumbs: np.ndarray) -> np.ndarray: # (n, 1024) float32, mean 0 and length 1
    "Thumbnails whose products are correlations."
    flat = thumbs.reshape(len(thumbs), -1).astype(np.float32)
    flat -= flat.mean(1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)


# %%
#| export
def _near_copies(rows: pd.DataFrame) -> list[str]: # split, thumb, sha1, path
    "Films in test, and films outside, that show the same picture in files of other bytes."
    test = (rows.split == "test").to_numpy()
    if test.all() or not test.any(): return []
    thumbs, pairs = _standardised(np.stack(list(rows.thumb))), []
    paths, sha1 = rows.path.array, rows.sha1.array
    inside, outside = np.flatnonzero(test), np.flatnonzero(~test)
    for start in range(0, len(inside), 256):
        chosen = inside[start:start + 256]
        hits = np.argwhere(thumbs[chosen] @ thumbs[outside].T > _SAME_PICTURE)
        pairs += [(chosen[i], outside[j]) for i, j in hits if sha1[chosen[i]] != sha1[outside[j]]]
    return list(dict.fromkeys(paths[place] for pair in pairs for place in pair))


# %%
two = pd.DataFrame(dict(path=["a", "b"], split=["train", "test"], sha1=["1", "2"]))
two["thumb"] = [thumb, thumb // 2]
test_eq(_near_copies(two), ["b", "a"])
test_eq(_near_copies(two.assign(sha1="1")), [])   # the same bytes have a check of their own
test_eq(_near_copies(two.assign(thumb=[thumb, 255 - thumb])), [])

# %% [markdown]
# `scan_dataset` makes the table. What cannot be read is left out by name, with a warning, and listed in
# `attrs["left_out"]`. A class of which nothing can be read is refused.

# %%
#| export
_COLUMNS = ["path", "split", "label", "kind", "patient_id", "width", "height", "mode", "bytes", "sha1"]

def _check_readable(
    rows: pd.DataFrame, # every film, readable or not
    root: Path,         # of the set
):
    "Refuse a class of which no film can be read."
    present = set(zip(rows.split[rows.problem == ""], rows.label[rows.problem == ""]))
    for split in rows.split.unique():
        for label, name in enumerate(CLASS_NAMES):
            if (split, label) in present: continue
            raise StudyError(f"Expected readable {name} films in {split} of {root}, "
                             "found only unreadable, empty or missing ones; fetch the set again.")


# %%
#| export
_FEW_BITS = "8 to 14 bits in a 16-bit file, read by that range"
_INVERTED = "looks like a negative, spine darker than lungs"
_COLOURFUL = "picture in colour, read as gray"
_TAGGED = "not a frontal chest film, or with writing burnt in, by its DICOM tags"
_NEAR_COPY = "same picture in test and elsewhere, saved anew"

def _findings(rows: pd.DataFrame) -> dict[str, list[str]]: # problem → paths
    "What the pixels of films tell that are not left out."
    columns = {_FEW_BITS: "few_bits", _INVERTED: "inverted", _COLOURFUL: "colourful",
               _TAGGED: "tagged"}
    findings = {problem: rows.path[rows[column].astype(bool)].tolist() for problem, column in columns.items()}
    return findings | {_NEAR_COPY: _near_copies(rows)}


# %%
#| export
def scan_dataset(
    root: str | Path, # folder with train/ and test/ (and maybe val/), or with a table; "" for the table's own
    films_csv: str | Path = "", # table of films; "" for films.csv in the folder, if there is one
) -> pd.DataFrame: # `path` is relative to `root`, `label` 0 or 1; attrs: root, films_csv, left_out, findings
    "One row for every film that can be used."
    root, table = films_at(root, films_csv)
    films, left_out = (_films_in_table(table, root), {}) if table else _films_in_folders(root)
    with ThreadPoolExecutor(threads()) as pool:
        rows = pd.DataFrame(list(pool.map(lambda film: _film_facts(film, root), films)))
    bad, good = rows[rows.problem != ""], rows[rows.problem == ""]
    left_out |= dict(zip(bad.path, bad.problem))
    listed = "; ".join(f"{path} ({reason})" for path, reason in left_out.items())
    if listed: warnings.warn(f"left out {counted(len(left_out), 'path')}: {listed}", stacklevel=2)
    _check_readable(rows, root)
    columns = _COLUMNS + (_OF_TABLE if table else [])
    images = good[columns].reset_index(drop=True).astype({"bytes": int})
    findings = _findings(good) | (_table_findings(good, table, root) if table else {})
    images.attrs.update(root=str(root), films_csv=str(table or ""), left_out=left_out, findings=findings)
    return images


# %%
images = scan_dataset(root)
test_eq(list(images.columns), _COLUMNS)
test_eq(images.split.value_counts().to_dict(), {"train": 30, "val": 16, "test": 12})
test_eq(set(images.kind[images.label == 0]), {"normal"})
readable(images.head(3)).style.hide(axis="index")

# %% [markdown]
# A table gives the same columns, and three more that names tell elsewhere:

# %%
own = scan_dataset(clinic)
test_eq(list(own.columns), _COLUMNS + _OF_TABLE)
test_eq(set(own.split), {"train"})
own.loc[[0, 14], ["path", "label", "kind", "patient_id", *_OF_TABLE]].style.hide(axis="index")

# %% [markdown]
# ## What is wrong with a set
#
# Studies on these films have been spoiled by damaged and misnamed files, by the same film twice, and by the
# same patient on both sides of a split. Each check below gives the paths that it objects to.

# %%
#| export
_PICTURE_ENDINGS = set(
    ".bmp .jfif .jpe .gif .jp2 .j2k .heic .avif .pgm".split())
_PICTURE_STARTS = (b"GIF8", b"\0\0\0\x0cjP  ")

def _is_picture(path: Path) -> bool:
    "Whether a file is a picture, by its ending or by how it begins."
    if path.suffix.lower() in {*_PICTURE_ENDINGS, *FILM_ENDINGS}: return True
    if not os.path.isfile(path) or not os.access(path, os.R_OK): return False
    with open(path, "rb") as f: start = f.read(132)
    return start.startswith(_PICTURE_STARTS) or film_format(start) != ""


# %%
(work/"film.dcm.bak").write_bytes(bytes(128) + b"DICM")
test_eq([_is_picture(work/name) for name in ("a.TIF", "film.dcm.bak", "none", "12_bits.png")],
        [True, True, False, True])


# %%
#| export
def _stray_files(
    images: pd.DataFrame,
    root: Path,
    sort: str, # "hidden", "picture" or "other"
) -> list[str]:
    "Files of a set's splits that do not count as films."
    def sort_of(path):
        if is_hidden(path, root): return "hidden"
        return "picture" if _is_picture(path) else "other"
    if images.attrs.get("films_csv"): return []  # a table says what counts
    stray = [p for p in _listing(root) if not _is_film(p, root) and not _out_of_reach(p, root)]
    return [in_words(path.relative_to(root).as_posix()) for path in stray if sort_of(path) == sort]


# %%
#| export
def _misleading_endings(images: pd.DataFrame, root: Path) -> list[str]:
    "Films whose content is of another format than their ending says."
    def differs(path):
        with open(root/path, "rb") as f: form = film_format(f.read(132))
        return form != _ENDINGS.get(Path(path).suffix.lower(), form)
    return [path for path in images.path if differs(path)]


# %%
#| export
def _shared(
    images: pd.DataFrame,
    by: str, # sha1 or patient_id
    of: str, # split or label
) -> list[str]:
    "Films whose `by` occurs with more than one value of `of`."
    return images.path[images.groupby(by)[of].transform("nunique") > 1].tolist()

def _copies(images: pd.DataFrame) -> list[str]:
    "Films that are in one split more than once."
    one_split = images.groupby("sha1").split.transform("nunique") == 1
    return images.path[images.duplicated("sha1", keep=False) & one_split].tolist()

def _patients_across(images: pd.DataFrame) -> list[str]:
    "Films of patients who are in test and elsewhere."
    side = images.split.where(images.split == "test", "train or val")
    return _shared(images.assign(split=side), "patient_id", "split")


# %%
pair = pd.DataFrame(dict(path=["a", "b"], split=["train", "val"], label=[0, 1]))
pair = pair.assign(patient_id="one", sha1="same")
test_eq(_shared(pair, "sha1", "label"), ["a", "b"])
test_eq(_copies(pair), [])             # not in one split
test_eq(_patients_across(pair), [])    # train and val are one side
test_eq(_patients_across(pair.assign(split=["val", "test"])), ["a", "b"])

# %% [markdown]
# `check_dataset` runs them all. Each row of its table names a problem, how many films it touches, whether it
# would spoil a result, and some of the films. Copies within one split spoil nothing, and neither do files
# that are ignored.

# %%
#| export
LEFT_OUT = "unreadable, empty or too small, left out"
NO_TEST = "no test films, so nothing to judge a model on"

def _finding(problem: str):
    "A check whose answer `scan_dataset` has found."
    return lambda images, root: images.attrs.get("findings", {}).get(problem, [])


# %%
#| export
_CHECKS = {  # problem → paths; `images` are the films that can be used
    LEFT_OUT: lambda images, root: list(images.attrs.get("left_out", {})),
    "hidden file or folder, ignored": lambda images, root: _stray_files(images, root, "hidden"),
    "picture that is not used, by its ending or place":
        lambda images, root: _stray_files(images, root, "picture"),
    "no picture, ignored": lambda images, root: _stray_files(images, root, "other"),
    UNLISTED: _finding(UNLISTED),
    OWN_PATIENTS: _finding(OWN_PATIENTS),
    "content is not what the ending says": _misleading_endings,
    "not 8-bit gray or RGB": lambda images, root: images.path[~images["mode"].isin(["L", "RGB"])].tolist(),
    **{problem: _finding(problem) for problem in (_FEW_BITS, _INVERTED, _COLOURFUL, _TAGGED)},
    NO_TEST: lambda images, root: [] if "test" in set(images.split) else ["test"],
    "same bytes as another film of its split": lambda images, root: _copies(images),
    "same bytes in two splits": lambda images, root: _shared(images, "sha1", "split"),
    "same bytes with two labels": lambda images, root: _shared(images, "sha1", "label"),
    _NEAR_COPY: _finding(_NEAR_COPY),
    "patient in test and in train or val": lambda images, root: _patients_across(images)}

_HARMLESS = {"hidden file or folder, ignored", "no picture, ignored", UNLISTED,
             "same bytes as another film of its split"}


# %%
#| export
def check_dataset(
    root: str | Path, # as for `scan_dataset`
    images: pd.DataFrame | None = None, # what `scan_dataset` gave of it; scanned if not given
) -> pd.DataFrame: # problem, films, serious, examples; a row for every check, 0 films where all is well
    "A table of everything found wrong with a set."
    root, rows = Path(root), []
    images = scan_dataset(root) if images is None else images
    for problem, check in _CHECKS.items():
        paths, serious = check(images, root), problem not in _HARMLESS
        examples = ", ".join(paths[:3]) + (" …" if len(paths) > 3 else "")
        rows.append(dict(problem=problem, films=len(paths), serious=serious, examples=examples))
    return pd.DataFrame(rows)


# %% [markdown]
# A phantom set spoiled on purpose, and what the table says of it:

# %%
spoiled = work/"spoiled"
shutil.copytree(root, spoiled)
first, second, third, *_ = sorted((spoiled/"train/PNEUMONIA").glob("*.jpeg"))
first.write_bytes(first.read_bytes()[:2000])                        # cut short
shutil.copy(second, spoiled/"test/PNEUMONIA"/second.name)           # the same film and patient in test
shutil.copy(third, third.with_name("person900_virus_1.jpeg"))       # the same film twice
(spoiled/"train/NORMAL/.DS_Store").write_bytes(b"\0")
(spoiled/"test/NORMAL/notes.txt").write_text("?")
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    checks = check_dataset(spoiled)
assert first.name in str(caught[0].message)
readable(checks).style.hide(axis="index")

# %%
#| hide
of_leaked_patient = int((images.patient_id == patient_id(second)).sum()) + 1
test_eq({row.problem: row.films for row in checks.itertuples() if row.films}, {
    LEFT_OUT: 1, "hidden file or folder, ignored": 1, "no picture, ignored": 1,
    "same bytes as another film of its split": 2, "same bytes in two splits": 2,
    "patient in test and in train or val": of_leaked_patient})
test_eq(set(checks.problem[~checks.serious]), _HARMLESS)
of_own = check_dataset(clinic, own).set_index("problem").films
test_eq([of_own[problem] for problem in (OWN_PATIENTS, UNLISTED, NO_TEST)], [15, 1, 1])
shutil.rmtree(spoiled/"train/NORMAL")
test_fail(lambda: scan_dataset(spoiled), contains="found PNEUMONIA")
(spoiled/"train/NORMAL").mkdir()
test_fail(lambda: scan_dataset(spoiled), contains="found none")
(spoiled/"train/COVID").mkdir()
test_fail(lambda: scan_dataset(spoiled), contains="found COVID, NORMAL, PNEUMONIA")


# %% [markdown]
# ## Fingerprints
#
# Two runs can be compared only if their films are the same. The **data fingerprint** is one number made of
# the paths and contents of all films, equal only for equal sets. Folders and names are part of the paths.
# Where a table stands in their place, its labels, patients, kinds and test films count as well. The content
# digest also depends on the order of the films, because arrays of decoded films are kept in that order.

# %%
#| export
def data_fingerprint(
    images: pd.DataFrame, # path, sha1; attrs: films_csv, where a table lists the films
) -> str: # SHA-1, in hex
    "Fingerprint of all films, in whatever order."
    lines = images.path + " " + images.sha1
    if images.attrs.get("films_csv"):
        facts = [images.split == "test", images.label, images.kind, images.patient_id]
        for column in facts: lines = lines + "\t" + column.astype(str)
    return hashlib.sha1("\n".join(sorted(lines)).encode()).hexdigest()

def content_digest(
    images: pd.DataFrame, # path, sha1
) -> str: # SHA-1, in hex
    "Fingerprint of all films, in their order."
    return hashlib.sha1("\n".join(images.path + " " + images.sha1).encode()).hexdigest()


# %%
backwards = images[::-1]
test_eq(data_fingerprint(images), data_fingerprint(backwards))
assert content_digest(images) != content_digest(backwards)
assert data_fingerprint(images) != data_fingerprint(images[1:])
assert data_fingerprint(own) != data_fingerprint(own.assign(patient_id="one"))


# %% [markdown]
# To show some films, a seeded pick is taken, so that nobody chooses the nice ones.

# %%
#| export
def sample_films(
    images: pd.DataFrame,
    by: str,    # column whose values are sampled, such as "kind"
    count: int, # films for each value
    seed: int,
) -> pd.DataFrame: # rows of `images`, value by value in order of their first film
    "A random pick, the same number for each value where there are enough."
    groups = [(value, images[images[by] == value]) for value in images[by].unique()]
    order = [rng_for(seed, "sample", str(value)).permutation(len(group)) for value, group in groups]
    return pd.concat([group.iloc[places[:count]] for (_, group), places in zip(groups, order)])


# %%
shown = sample_films(images, "kind", 2, seed=1)
test_eq(shown.kind.value_counts().to_dict(), {"normal": 2, "bacteria": 2, "virus": 2})
test_eq(shown.path.tolist(), sample_films(images, "kind", 2, seed=1).path.tolist())
figure, axes = plt.subplots(1, len(shown), figsize=(12, 2.4))
for ax, row in zip(axes, shown.itertuples()):
    ax.imshow(read_film(root/row.path), vmin=0, vmax=255)
    ax.set_title(row.patient_id, fontsize=9)
    ax.axis("off")
show_figure(figure, "films_sample", "Two phantoms of each kind, with the patient that the name tells.",
            "Six drawn chest X-rays in a row: two normal, two bacterial, two viral.");


# %% [markdown]
# Models and explanations take gray values from 0 to 255. A film scaled to 0 to 1 would look black to them,
# and nothing would fail. So whoever takes films from outside checks their range first.

# %%
#| export
def check_gray(
    images, # (N, H, W) or (N, H, W, 1), gray 0-255
) -> np.ndarray: # (N, H, W) float32
    "Films as float32 without a channel, refusing gray values outside 0 to 255."
    images = np.asarray(images, np.float32)
    if images.ndim == 4 and images.shape[-1] == 1: images = images[..., 0]
    if images.ndim != 3:
        raise StudyError(f"Expected films of shape (N, H, W) or (N, H, W, 1), found {images.shape}.")
    if images.size and not (images.min() >= 0 and images.max() <= 255):
        raise StudyError("Expected gray values from 0 to 255, "
                         f"found {images.min():g} to {images.max():g}.")
    return images


# %%
test_eq(check_gray(film[None, :, :, None]), film[None].astype(np.float32))
test_fail(lambda: check_gray(film), contains="Expected films of shape (N, H, W)")
test_fail(lambda: check_gray([[[-1., 300.]]]), contains="found -1 to 300")
test_fail(lambda: check_gray([[[np.nan]]]), contains="found nan to nan")

# %% [markdown]
# ## Fetching the public set
#
# Kaggle serves the full-size set (1.2 GB, `paultimothymooney/chest-xray-pneumonia`) to anyone, without an
# account. Its own client shows progress, continues a broken download, checks the checksum and unpacks.

# %%
#| export
_KAGGLE_SET = "paultimothymooney/chest-xray-pneumonia"

def _download(folder: Path) -> Path: # what Kaggle sent, unpacked
    "Have Kaggle's client fetch the set."
    import kagglehub
    os.environ["KAGGLEHUB_CACHE"] = str(folder.resolve())  # can go on with half a file; `output_dir` cannot
    try: return Path(kagglehub.dataset_download(_KAGGLE_SET))
    except Exception as e: # the client's errors are many: network, disk, service, checksum
        raise StudyError(f"Could not download {_KAGGLE_SET} from Kaggle ({type(e).__name__}); "
                         "check the network and run the command again, "
                         f"or put the set into {folder} by hand.") from None


# %% [markdown]
# An archive may hold the set more than once, in folders within folders, beside what a Mac added.

# %%
#| export
def _set_inside(folder: Path) -> Path:
    "The folder that holds train/ and test/, somewhere below."
    sets = [path.parent for path in sorted(folder.rglob("train")) if (path.parent/"test").is_dir()]
    sets = [path for path in sets if not is_hidden(path, folder)]
    if sets: return sets[-1]
    names = sorted(path.name for path in folder.iterdir())
    raise StudyError(f"Expected train/ and test/ in what Kaggle sent, found {names}.")


# %%
for name in ("films", "films/films", "films/__MACOSX"):
    for split in ("train", "test"): (work/"sent"/name/split).mkdir(parents=True)
test_eq(_set_inside(work/"sent"), work/"sent/films")
test_fail(lambda: _set_inside(work/"sent/films/train"), contains="found []")


# %%
#| export
def fetch_dataset(
    folder: str | Path, # where the client keeps what it downloads
) -> Path: # the folder inside that holds train/ and test/
    "Download the public set from Kaggle."
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise StudyError(f"Expected a folder to download into, found a file at {folder}; choose another.")
    return _set_inside(_download(folder))


# %%
test_fail(lambda: fetch_dataset(root/"phantom.json"), contains="found a file at")

# %%
#| hide
shutil.rmtree(work)
