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
import hashlib, os, re, warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from pneumo_nb.run import StudyError, rng_for, threads
from pneumo_nb.style import CLASS_NAMES

# %%
#| hide
import shutil, tempfile
import matplotlib.pyplot as plt
from fastcore.test import test_eq, test_fail
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
_NORMAL_NAME = re.compile(r"((?:NORMAL\d*-)?IM-\d+)(?:-\d+)+", re.ASCII)
_PNEUMONIA_NAME = re.compile(r"(person\d+)_(bacteria|virus)(?:_\d+)+", re.ASCII)

def patient_id(
    file_name: str | Path, # name or path of a film
) -> str: # such as "IM-0115", "NORMAL2-IM-1427" or "person1000_bacteria"
    "The patient a film belongs to, by the naming scheme of the public set."
    stem = Path(file_name).stem
    if match := _NORMAL_NAME.fullmatch(stem): return match[1]
    if match := _PNEUMONIA_NAME.fullmatch(stem): return f"{match[1]}_{match[2]}"
    raise StudyError("Expected a name like IM-0115-0001.jpeg, NORMAL2-IM-1427-0001.jpeg or "
                     f"person1000_bacteria_2931.jpeg, found {Path(file_name).name!r}, "
                     "which tells no patient; rename the film so that patients stay together.")


# %%
test_eq(patient_id("IM-0115-0001.jpeg"), "IM-0115")
test_eq(patient_id("test/NORMAL/NORMAL2-IM-0246-0001-0002.jpeg"), "NORMAL2-IM-0246")
test_eq(patient_id("person1_virus_6.jpeg"), "person1_virus")
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
# ## The folder
#
# A set is a folder with `train/` and `test/` (and maybe `val/`), each with `NORMAL/` and `PNEUMONIA/`.
# Anything else is refused with a sentence. The usual accident is to point one level too high or too low, and
# it would otherwise look like an empty set. Only `test/` may be absent. Such a sample can be explored and
# learned from, and the run's notes say that nothing but validation is left to judge a model on.

# %%
#| export
_SPLITS = ["train", "val", "test"]  # folders of a set

def _refuse_without_train(root: Path):
    "Say what a folder without train/ holds, and where a set may be."
    below = [p.parent for level in ("*/train", "*/*/train") for p in sorted(root.glob(level))]
    advice = f"point to {below[0]}" if below else "point to the folder that holds train/ and test/"
    names = ", ".join(sorted(p.name for p in root.iterdir())[:6]) or "nothing"
    raise StudyError(f"Expected train/ and test/ in {root}, found {names}; {advice}.")


# %%
#| export
def _check_classes(split: Path): # folder of a split
    "Refuse a split whose folders are not the two classes."
    folders = sorted(p.name for p in split.iterdir() if p.is_dir() and not p.name.startswith("."))
    if folders != CLASS_NAMES:
        raise StudyError(f"Expected the classes {' and '.join(CLASS_NAMES)} in {split}, "
                         f"found {', '.join(folders) or 'none'}; rename or move the folders.")


# %%
#| export
def check_layout(
    root: str | Path, # of the set
) -> list[Path]: # the split folders present: train first, then val, then test
    "Refuse a folder that is not laid out like the public set."
    root = Path(root)
    if not root.is_dir():
        raise StudyError("Expected a folder with train/ and test/, "
                         f"found no folder at {root}; check the path.")
    if not (root/"train").is_dir(): _refuse_without_train(root)
    folders = sorted(p.name for p in root.iterdir() if p.is_dir())
    capital = [name for name in folders if name.lower() in _SPLITS and name not in _SPLITS]
    if capital:
        raise StudyError(f"Expected the folders {', '.join(_SPLITS)} in {root}, found {', '.join(capital)}; "
                         "rename it in small letters.")
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

# %% [markdown]
# Inside the classes, every JPEG and PNG counts as a film, also in folders below and behind links. Hidden
# files are what systems and editors leave behind, and count for nothing.

# %%
#| export
_FILM_ENDINGS = {".jpeg", ".jpg", ".png"}

def _is_hidden(path: Path, root: Path) -> bool:
    "Whether a file or a folder above it, below `root`, begins with a dot."
    return any(part.startswith(".") for part in path.relative_to(root).parts)

def _is_film(path: Path, root: Path) -> bool:
    "Whether a file counts as a film by its name."
    return not _is_hidden(path, root) and path.suffix.lower() in _FILM_ENDINGS


# %%
test_eq([_is_film(root/name, root) for name in ("a.JPG", "a.txt", ".a.png", ".trash/a.png")],
        [True, False, False, False])


# %%
#| export
def _files_below(folder: Path) -> list[Path]: # sorted
    "Every file below a folder, links to folders followed."
    return sorted(Path(top)/name for top, _, names in os.walk(folder, followlinks=True) for name in names)

def _films_of_class(
    folder: Path, # of a class, in a split
    root: Path,   # of the set
) -> list[Path]: # sorted
    "The films of one class, which must have some."
    films = [path for path in _files_below(folder) if _is_film(path, root)]
    if films: return films
    raise StudyError(f"Expected films (.jpeg, .jpg or .png) in {folder}, found none; "
                     "a class without films cannot be learned or tested.")


# %%
#| export
def _list_films(root: Path) -> list[Path]: # train first, then val, then test; sorted within a class
    "All films of a set."
    folders = [split/name for split in check_layout(root) for name in CLASS_NAMES]
    return [film for folder in folders for film in _films_of_class(folder, root)]


# %%
films = _list_films(root)
test_eq(len(films), 30 + 16 + 12)
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
                     f"fits the folder; found {len(misnamed)} other(s): {shown}; rename or move them.")


# %%
scan = root/"train/NORMAL/scan.png"
test_fail(lambda: _check_names([scan], root), contains="found 1 other(s): train/NORMAL/scan.png")


# %% [markdown]
# ## One row a film
#
# A file cut short in the middle has a perfect header. So every file is read once as a whole, and all of its
# pixels are decoded at an eighth of their size. Pillow does that, and OpenCV as well, since it reads the
# films later.

# %%
#| export
def _image_facts(
    path: Path,
    content: bytes, # of the file
) -> dict: # width and height in pixels, mode, problem
    "What an image file holds; an error where Pillow cannot read it."
    with Image.open(path, formats=["JPEG", "PNG"]) as image:
        facts = dict(width=image.width, height=image.height, mode=image.mode, problem="")
        image.draft("L", (max(1, image.width // 8), max(1, image.height // 8)))
        image.load()
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_8)
    return facts if pixels is not None else facts | dict(problem="OpenCV cannot decode it")


# %%
#| export
def _film_facts(
    path: Path,
    root: Path, # of the set
) -> dict: # a row of the table; `problem` is "" if the film can be read
    "What a film's file tells, without keeping its pixels."
    relative = path.relative_to(root)
    content = path.read_bytes() if path.is_file() else b""
    row = dict(path=relative.as_posix(), split=relative.parts[0], label=_label(path, root),
               kind=film_kind(path), patient_id=patient_id(path), width=0, height=0, mode="",
               bytes=len(content), sha1=hashlib.sha1(content).hexdigest())
    try: return row | _image_facts(path, content)
    except Exception as e: # decoders raise what they like
        return row | dict(problem=f"{type(e).__name__}: {e}".replace(str(root), "").strip())


# %%
facts = _film_facts(films[0], root)
test_eq([facts[k] for k in ("split", "label", "kind", "mode", "problem")], ["train", 0, "normal", "L", ""])
facts

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
            raise StudyError(f"Expected readable films in {root/split/name}, found only unreadable ones; "
                             "fetch the set again.")


# %%
#| export
def scan_dataset(
    root: str | Path, # folder with train/ and test/ (and maybe val/), each with NORMAL/ and PNEUMONIA/
) -> pd.DataFrame: # `path` is relative to `root`, `label` 0 normal, 1 pneumonia; attrs: root, left_out
    "One row for every readable film."
    root = Path(root)
    films = _list_films(root)
    _check_names(films, root)
    with ThreadPoolExecutor(threads()) as pool:
        rows = pd.DataFrame(list(pool.map(lambda path: _film_facts(path, root), films)))
    bad = rows[rows.problem != ""]
    listed = "; ".join(f"{row.path} ({row.problem})" for row in bad.itertuples())
    if listed: warnings.warn(f"left out {len(bad)} unreadable film(s): {listed}", stacklevel=2)
    _check_readable(rows, root)
    images = rows[rows.problem == ""][_COLUMNS].reset_index(drop=True)
    images.attrs.update(root=str(root), left_out=dict(zip(bad.path, bad.problem)))
    return images


# %%
images = scan_dataset(root)
test_eq(list(images.columns), _COLUMNS)
test_eq(images.split.value_counts().to_dict(), {"train": 30, "val": 16, "test": 12})
test_eq(set(images.kind[images.label == 0]), {"normal"})
readable(images.head(3)).style.hide(axis="index")


# %% [markdown]
# ## What is wrong with a set
#
# Studies on these films have been spoiled by damaged and misnamed files, by the same film twice, and by the
# same patient on both sides of a split. Each check below gives the paths that it objects to.

# %%
#| export
def _stray_files(
    root: Path,
    hidden: bool, # those that are hidden, or the others
) -> list[str]:
    "Files that are not films."
    files = [path for split in check_layout(root) for path in _files_below(split)]
    stray = [path for path in files if not _is_film(path, root) and _is_hidden(path, root) == hidden]
    return [path.relative_to(root).as_posix() for path in stray]


# %%
#| export
def _misleading_endings(images: pd.DataFrame, root: Path) -> list[str]:
    "Films whose content is of another format than their ending says."
    def differs(path):
        with Image.open(root/path) as image:
            return image.format != ("PNG" if path.lower().endswith(".png") else "JPEG")
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
_CHECKS = {  # problem → paths; `images` are the readable films
    "unreadable or cut short, left out": lambda images, root: list(images.attrs.get("left_out", {})),
    "hidden file, ignored": lambda images, root: _stray_files(root, hidden=True),
    "ending is not .jpeg, .jpg or .png, ignored": lambda images, root: _stray_files(root, hidden=False),
    "content is not what the ending says": _misleading_endings,
    "not 8-bit gray or RGB": lambda images, root: images.path[~images["mode"].isin(["L", "RGB"])].tolist(),
    "no test/ folder, so nothing to judge a model on":
        lambda images, root: [] if "test" in set(images.split) else ["test/"],
    "same bytes as another film of its split": lambda images, root: _copies(images),
    "same bytes in two splits": lambda images, root: _shared(images, "sha1", "split"),
    "same bytes with two labels": lambda images, root: _shared(images, "sha1", "label"),
    "patient in test and in train or val": lambda images, root: _patients_across(images)}

_HARMLESS = {"hidden file, ignored", "ending is not .jpeg, .jpg or .png, ignored",
             "same bytes as another film of its split"}


# %%
#| export
def check_dataset(
    root: str | Path, # as for `scan_dataset`
    images: pd.DataFrame | None = None, # what `scan_dataset(root)` gave; scanned if not given
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
test_eq(dict(zip(checks.problem, checks.films)), {
    "unreadable or cut short, left out": 1, "hidden file, ignored": 1,
    "ending is not .jpeg, .jpg or .png, ignored": 1, "content is not what the ending says": 0,
    "not 8-bit gray or RGB": 0, "no test/ folder, so nothing to judge a model on": 0,
    "same bytes as another film of its split": 2, "same bytes in two splits": 2,
    "same bytes with two labels": 0, "patient in test and in train or val": of_leaked_patient})
test_eq(set(checks.problem[~checks.serious]), _HARMLESS)
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
# the paths and contents of all films, equal only for equal sets. The content digest also depends on the order
# of the films, because arrays of decoded films are kept in that order.

# %%
#| export
def data_fingerprint(
    images: pd.DataFrame, # path, sha1
) -> str: # SHA-1, in hex
    "Fingerprint of all films, in whatever order."
    return hashlib.sha1("\n".join(sorted(images.path + " " + images.sha1)).encode()).hexdigest()

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


# %% [markdown]
# ## Pixels
#
# There is one way to read a film in this project. Colour films become gray. A note of orientation inside the
# file is ignored, so that a film has the width and height of its row in the table.

# %%
#| export
def read_film(
    path: str | Path, # of the file
) -> np.ndarray: # (H, W) uint8
    "A film's pixels in gray, at full size."
    content, film = np.fromfile(path, np.uint8), None
    if len(content): film = cv2.imdecode(content, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
    if film is not None: return film
    raise StudyError(f"Expected a readable film at {path}, found one that OpenCV cannot decode; "
                     "replace or remove it.")


# %%
film = read_film(root/images.path[0])
test_eq(film.shape, (images.height[0], images.width[0]))
test_fail(lambda: read_film(root/"phantom.json"), contains="OpenCV cannot decode")
film.shape, film.dtype


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
    sets = [path for path in sets if "__MACOSX" not in path.parts]
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
