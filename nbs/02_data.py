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
# # Data
#
# > Which films there are, whose they are, what is wrong with them, and who goes into which split

# %%
#| default_exp data

# %%
#| export
import hashlib, os, re, warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from pneumo_nb.run import CLASS_NAMES, Stage, StudyError, finish, note, open_stage, read_json, rng_for, threads, write_csv, write_json
from pneumo_nb.phantom import make_dataset

# %%
#| hide
import shutil, tempfile
from fastcore.test import test_eq, test_fail
from IPython.display import Markdown, display

# %% tags=["parameters"]
run_dir = ""               # the run directory; "" for a temporary one
seed = 42                  # decides who goes into validation (and what phantoms look like)
data_dir = ""              # folder with train/ and test/; "" draws phantoms
phantom_train = 360        # phantom films to draw for train …
phantom_test = 120         # … and for test
validation_fraction = 0.2  # share of the train films set aside, by whole patients

# %% [markdown]
# The public set (Kermany et al., *Cell* 172, 2018; doi:10.17632/rscbjbr9sj) holds 5,856 frontal films of children of
# one to five years from one hospital. Three questions decide whether a result on it means anything: does a child
# appear both where the model learns and where it is judged; is every file what it claims to be; and can a stranger
# repeat the split? This chapter answers them before any model sees a pixel.
#
# ## Who is on a film
#
# The file name tells. `IM-0115-0001.jpeg` and `NORMAL2-IM-1427-0001.jpeg` are healthy children of two naming series,
# so `IM-0115` and `NORMAL2-IM-0115` are two different ones. `person1000_bacteria_2931.jpeg` is pneumonia with its kind.
# The set's person numbers are counted separately for bacteria and virus, so the patient is the pair of both. **That is
# an assumption**: nobody published a patient table. It is supported by the official split, in which the pairs of train
# and test have no patient in common, while 170 bare numbers occur in both.

# %%
#| export
NORMAL_NAME = re.compile(r"((?:NORMAL\d*-)?IM-\d+)(?:-\d+)+", re.ASCII)
PNEUMONIA_NAME = re.compile(r"(person\d+)_(bacteria|virus)(?:_\d+)+", re.ASCII)

def patient_id(
    file_name: str | Path, # name or path of a film
) -> str: # such as "IM-0115", "NORMAL2-IM-1427" or "person1000_bacteria"
    "The patient a film belongs to, by the naming scheme of the public set."
    stem = Path(file_name).stem
    if match := NORMAL_NAME.fullmatch(stem): return match[1]
    if match := PNEUMONIA_NAME.fullmatch(stem): return f"{match[1]}_{match[2]}"
    raise StudyError(f"Expected a name like IM-0115-0001.jpeg, NORMAL2-IM-1427-0001.jpeg or person1000_bacteria_2931.jpeg, "
                     f"found {Path(file_name).name!r}, which tells no patient; rename the film so that patients stay together.")

def film_kind(
    file_name: str | Path,
) -> str: # "normal", "bacteria" or "virus"
    "The kind that a film's name tells."
    patient = patient_id(file_name)
    return patient.rpartition("_")[2] if patient.startswith("person") else "normal"


# %%
test_eq(patient_id("IM-0115-0001.jpeg"), "IM-0115")
test_eq(patient_id("test/NORMAL/NORMAL2-IM-0246-0001-0002.jpeg"), "NORMAL2-IM-0246")
test_eq(patient_id("person1_virus_6.jpeg"), "person1_virus")
assert patient_id("person1_virus_6.jpeg") != patient_id("person1_bacteria_2.jpeg")
test_eq([film_kind(n) for n in ("IM-0001-0001.jpeg", "person9_virus_1.jpeg")], ["normal", "virus"])
test_fail(lambda: patient_id("scan_03.jpeg"), contains="tells no patient")

# %% [markdown]
# ## The folder
#
# A set is a folder with `train/` and `test/` (and maybe `val/`), each with `NORMAL/` and `PNEUMONIA/`. Anything else is
# refused with a sentence, because the usual accident, pointing one level too high or too low, would otherwise look
# like an empty set. Only `test/` may be absent: such a sample can be explored and learned from, and the run's notes
# say that nothing but validation is left to judge a model on.

# %%
#| export
SPLITS = ["train", "val", "test"]
FILM_ENDINGS = {".jpeg", ".jpg", ".png"}

def check_layout(
    root: str | Path,
) -> list[Path]: # the split folders present
    "Refuse a folder that is not laid out like the public set."
    root = Path(root)
    if not root.is_dir(): raise StudyError(f"Expected a folder with train/ and test/, found no folder at {root}; check the path.")
    if not (root/"train").is_dir():
        inside = [p.parent.relative_to(root).as_posix() for p in sorted(root.glob("*/train")) + sorted(root.glob("*/*/train"))]
        advice = (f"point to {root/inside[0]}" if inside else "point to the folder that holds train/ and test/")
        found = ", ".join(sorted(p.name for p in root.iterdir())[:6]) or "nothing"
        raise StudyError(f"Expected train/ and test/ in {root}, found {found}; {advice}.")
    if odd := [p.name for p in sorted(root.iterdir()) if p.is_dir() and p.name.lower() in SPLITS and p.name not in SPLITS]:
        raise StudyError(f"Expected the folders {', '.join(SPLITS)} in {root}, found {', '.join(odd)}; rename it in small letters.")
    splits = [root/s for s in SPLITS if (root/s).is_dir()]
    for split in splits:
        found = sorted(p.name for p in split.iterdir() if p.is_dir() and not p.name.startswith("."))
        if found != CLASS_NAMES: raise StudyError(f"Expected the classes {' and '.join(CLASS_NAMES)} in {split}, "
            f"found {', '.join(found) or 'none'}; rename or move the folders.")
    return splits


# %%
#| export
def is_film(
    path: Path,
    root: Path, # of the set
) -> bool: # False for hidden files and other endings
    "Whether a file counts as a film by its name."
    return not is_hidden(path, root) and path.suffix.lower() in FILM_ENDINGS

def walk(folder: Path) -> list[Path]: # sorted
    "Everything below a folder but folders themselves, links to folders followed."
    return sorted(Path(top)/name for top, folders, files in os.walk(folder, followlinks=True) for name in files)

def is_hidden(path: Path, root: Path) -> bool:
    "Whether a file or a folder above it, below `root`, begins with a dot."
    return any(part.startswith(".") for part in path.relative_to(root).parts)

def list_films(
    root: str | Path,
) -> list[Path]: # sorted, train first, then val, then test
    "All films of a set, refusing a class without any."
    films = []
    for split in check_layout(root):
        for name in CLASS_NAMES:
            found = [p for p in walk(split/name) if is_film(p, Path(root))]
            if not found: raise StudyError(f"Expected films (.jpeg, .jpg or .png) in {split/name}, found none; "
                                           "a class without films cannot be learned or tested.")
            films += found
    return films


# %% [markdown]
# ## One row a film
#
# `scan_dataset` reads every file once: its size from the header, its fingerprint, and all of its pixels at an eighth
# of their size, because a file cut short in the middle has a perfect header. The label comes from the folder, the
# kind from the name; a name that contradicts its folder is an error in the data and is refused. What cannot be read
# is left out by name, with a warning, and listed in `attrs["left_out"]`.

# %%
#| export
def read_film_facts(
    path: Path,
    root: Path,
) -> dict: # a row of the table; `problem` is "" if the film can be read
    "What a film's file tells, without keeping its pixels."
    relative = path.relative_to(root)
    content = path.read_bytes() if path.is_file() else b""
    row = dict(path=relative.as_posix(), split=relative.parts[0], label=CLASS_NAMES.index(relative.parts[1]),
               kind=film_kind(path), patient_id=patient_id(path), width=0, height=0, mode="", bytes=len(content),
               sha1=hashlib.sha1(content).hexdigest(), problem="")
    try:
        with Image.open(path, formats=["JPEG", "PNG"]) as image:
            (row["width"], row["height"]), row["mode"], row["format"] = image.size, image.mode, image.format
            image.draft("L", (max(1, image.width // 8), max(1, image.height // 8)))
            image.load()
        if cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_8) is None: row["problem"] = "OpenCV cannot decode it"
    except Exception as e: row["problem"] = f"{type(e).__name__}: {e}".replace(str(root), "").strip()
    return row

def check_names(films: list[Path], root: Path):
    "Refuse films whose names tell no patient or contradict their folder, all of them at once."
    def wrong(path):
        try: return (film_kind(path) != "normal") != (CLASS_NAMES.index(path.relative_to(root).parts[1]) == 1)
        except StudyError: return True
    if bad := [p.relative_to(root).as_posix() for p in films if wrong(p)]: raise StudyError(
        f"Expected names like NORMAL/IM-0115-0001.jpeg and PNEUMONIA/person1000_bacteria_2931.jpeg, so that the patient is known and the kind fits "
        f"the folder; found {len(bad)} other(s): {', '.join(bad[:5])}{' …' if len(bad) > 5 else ''}; rename or move them.")


# %%
#| export
COLUMNS = ["path", "split", "label", "kind", "patient_id", "width", "height", "mode", "bytes", "sha1"]

def scan_dataset(
    root: str | Path, # folder with train/ and test/ (and maybe val/), each with NORMAL/ and PNEUMONIA/
) -> pd.DataFrame: # COLUMNS; `path` is relative to `root`, label 0 normal, 1 pneumonia; attrs: root, left_out
    "One row for every readable film."
    root = Path(root)
    films = list_films(root)
    check_names(films, root)
    with ThreadPoolExecutor(threads()) as pool:
        rows = pd.DataFrame(list(pool.map(lambda p: read_film_facts(p, root), films)))
    bad = rows[rows.problem != ""]
    if len(bad): warnings.warn(f"left out {len(bad)} unreadable film(s): "
                               + "; ".join(f"{r.path} ({r.problem})" for r in bad.itertuples()), stacklevel=2)
    images = rows[rows.problem == ""][COLUMNS].reset_index(drop=True)
    present = set(zip(images.split, images.label))
    for split in rows.split.unique():
        for label, name in enumerate(CLASS_NAMES):
            if (split, label) not in present: raise StudyError(
                f"Expected readable films in {root/split/name}, found only unreadable ones; fetch the set again.")
    images.attrs.update(root=str(root), left_out=dict(zip(bad.path, bad.problem)))
    return images


# %%
work = Path(tempfile.mkdtemp())
root = make_dataset(work/"set", n_train=30, n_test=12, seed=1)
images = scan_dataset(root)
images.head(3).style.hide(axis="index").set_caption("The first films of a small phantom set; this run's own films follow below")

# %%
test_eq(list(images.columns), COLUMNS)
test_eq(images.split.value_counts().to_dict(), {"train": 30, "val": 16, "test": 12})
test_eq(set(images.kind[images.label == 0]), {"normal"})
test_fail(lambda: scan_dataset(root/"train"), contains="Expected train/ and test/")
test_fail(lambda: scan_dataset(work), contains=f"point to {root}")


# %% [markdown]
# ## What is wrong with a set
#
# `check_dataset` looks for what has spoiled studies on these films: damaged and misnamed files, the same film twice,
# the same patient on both sides of a split. Each row names a problem, how many films it touches, whether it would spoil
# a result, and some of the films.

# %%
#| export
def stray_files(root: Path) -> dict[str, list[str]]:
    "Files that are not films: hidden ones, and those with another ending."
    found = {"hidden file, ignored": [], "ending is not .jpeg, .jpg or .png, ignored": []}
    for split in check_layout(root):
        for path in (p for p in walk(split) if not is_film(p, root)):
            kind = "hidden file, ignored" if is_hidden(path, root) else "ending is not .jpeg, .jpg or .png, ignored"
            found[kind].append(path.relative_to(root).as_posix())
    return found

def content_mismatch(images: pd.DataFrame, root: Path) -> list[str]:
    "Films whose content is of another format than their ending says."
    def differs(path):
        with Image.open(root/path) as image: return image.format != ("PNG" if path.lower().endswith(".png") else "JPEG")
    return [p for p in images.path if differs(p)]

def shared(images: pd.DataFrame, by: str, of: str) -> list[str]:
    "Films whose `by` (fingerprint, patient) occurs with more than one value of `of` (split, label)."
    return images.path[images.groupby(by)[of].transform("nunique") > 1].tolist()


# %%
#| export
def check_dataset(
    root: str | Path, # as for `scan_dataset`
    images: pd.DataFrame | None = None, # what `scan_dataset(root)` gave; scanned if not given
) -> pd.DataFrame: # problem, films, serious, examples; a row for every check, 0 films where all is well
    "A table of everything found wrong with a set."
    root = Path(root)
    images = scan_dataset(root) if images is None else images
    copies = images.path[images.duplicated("sha1", keep=False) & (images.groupby("sha1").split.transform("nunique") == 1)]
    found = {"unreadable or cut short, left out": list(images.attrs.get("left_out", {})), **stray_files(root),
             "content is not what the ending says": content_mismatch(images, root),
             "not 8-bit gray or RGB": images.path[~images["mode"].isin(["L", "RGB"])].tolist(),
             "no test/ folder, so nothing to judge a model on": [] if "test" in set(images.split) else ["test/"],
             "same bytes as another film of its split": copies.tolist(),
             "same bytes in two splits": shared(images, "sha1", "split"),
             "same bytes with two labels": shared(images, "sha1", "label"),
             "patient in test and in train or val": shared(
                 images.assign(split=images.split.where(images.split == "test", "train or val")), "patient_id", "split")}
    harmless = ("hidden", "ending", "same bytes as another film of its split")
    return pd.DataFrame([dict(problem=p, films=len(f), serious=not p.startswith(harmless), examples=", ".join(f[:3]) + (" …" if len(f) > 3 else ""))
                         for p, f in found.items()])


# %% [markdown]
# A phantom set spoiled on purpose, and what the table says of it:

# %%
spoiled = work/"spoiled"
shutil.copytree(root, spoiled)
films = sorted((spoiled/"train/PNEUMONIA").glob("*.jpeg"))
films[0].write_bytes(films[0].read_bytes()[:2000])                                # cut short
shutil.copy(films[1], spoiled/"test/PNEUMONIA"/films[1].name)                     # the same film and patient in test
shutil.copy(films[2], films[2].with_name("person900_virus_1.jpeg"))               # the same film twice
(spoiled/"train/NORMAL/.DS_Store").write_bytes(b"\0"); (spoiled/"test/NORMAL/notes.txt").write_text("?")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    checks = check_dataset(spoiled)
checks.rename(columns=dict(serious="would spoil a result")).style.hide(axis="index")

# %%
#| hide
test_eq(checks.set_index("problem").films.to_dict(), {
    "unreadable or cut short, left out": 1, "hidden file, ignored": 1, "ending is not .jpeg, .jpg or .png, ignored": 1,
    "content is not what the ending says": 0, "not 8-bit gray or RGB": 0, "no test/ folder, so nothing to judge a model on": 0, "same bytes as another film of its split": 2, "same bytes in two splits": 2,
    "same bytes with two labels": 0, "patient in test and in train or val": int((images.patient_id == patient_id(films[1])).sum()) + 1})
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    assert films[0].name in scan_dataset(spoiled).attrs["left_out"].popitem()[0]
assert films[0].name in str(caught[0].message)
shutil.rmtree(spoiled/"train/NORMAL"); test_fail(lambda: scan_dataset(spoiled), contains="found PNEUMONIA")
(spoiled/"train/NORMAL").mkdir(); test_fail(lambda: scan_dataset(spoiled), contains="found none")
(spoiled/"train/COVID").mkdir(); test_fail(lambda: scan_dataset(spoiled), contains="found COVID, NORMAL, PNEUMONIA")


# %% [markdown]
# ## Train, validation, test
#
# The test films stay as they were published. The 16 published `val` films are too few to steer anything and join
# train; validation is then cut from train anew: 20 % of the films of each kind, **whole patients**, drawn by the seed.
# Two "patients" with a byte-identical film are taken for one, since one of them must be misnamed. A random split by
# film would have put many validation films next to another film of the same child in train.

# %%
#| export
def patient_groups(images: pd.DataFrame) -> np.ndarray: # (n,) a number for each film's group
    "Patients, joined where they share a byte-identical film."
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    films = np.arange(len(images))
    keys = [images.patient_id] + ([images.sha1] if "sha1" in images else [])
    codes, start = [], len(images)
    for key in keys:
        codes.append(pd.factorize(key)[0] + start)
        start = codes[-1].max(initial=start) + 1
    edges = coo_matrix((np.ones(len(films) * len(keys)), (np.tile(films, len(keys)), np.concatenate(codes))), (start, start))
    return connected_components(edges, directed=False)[1][:len(images)]


# %%
#| export
def split_patients(
    images: pd.DataFrame,   # from `scan_dataset`
    fraction: float = 0.2,  # share of the train films of each kind that goes to validation
    seed: int = 42,
) -> pd.DataFrame: # the same rows with split train, validation or test; rows of patients that are also in test left out
    "Cut validation from train by whole patients, stratified by kind; `val` films join train, test stays."
    if not 0 < fraction < 1: raise StudyError(f"Expected a validation fraction between 0 and 1, found {fraction}.")
    group, test = pd.Series(patient_groups(images), images.index), images.split == "test"
    leak = ~test & group.isin(set(group[test]))
    if leak.any(): warnings.warn(f"left out {leak.sum()} train film(s) of patients who are in test: "
                                 + ", ".join(sorted(images.patient_id[leak].unique())[:10]), stacklevel=2)
    split = images.split.where(test, "train")
    for kind in sorted(images.kind.unique()):
        films = group[~test & ~leak & (images.kind == kind) & (split == "train")]
        sizes = films.value_counts().sort_index()
        sizes = sizes.iloc[rng_for(seed, "validation", kind).permutation(len(sizes))]
        before = sizes.cumsum() - sizes  # a patient is taken if that brings the share nearer to the fraction
        split[group.isin(sizes.index[before + sizes / 2 <= fraction * len(films)]) & ~test] = "validation"
    return images.assign(split=split)[~leak]


# %%
parts = split_patients(images, seed=1)
parts.groupby(["split", "kind"]).agg(films=("path", "size"), patients=("patient_id", "nunique"))

# %%
test_eq(parts.groupby("patient_id").split.nunique().max(), 1)
test_eq(parts, split_patients(images, seed=1))
assert not parts.split.equals(split_patients(images, seed=2).split)
test_eq((parts.split == "test").sum(), 12)
test_fail(lambda: split_patients(images, fraction=1.5), contains="found 1.5")


# %% [markdown]
# ## Folds along the numbers
#
# The official test films are not a random draw: within each naming series they are one or two stretches of consecutive numbers (the chapter on
# exploration shows it), so they were probably taken at another time than most train films. A random validation set holds numbers from everywhere between those of
# train and feels nothing of that. `number_folds` cuts each series into as many stretches of consecutive
# patient numbers, and a fold is one stretch of every series: to validate on a fold is to meet films of numbers that training never saw.

# %%
#| export
def naming_series(
    file_name: str | Path,
) -> str: # "IM", "NORMAL2-IM", "bacteria" or "virus"
    "The series that a film's name counts in."
    patient = patient_id(file_name)
    return patient.rpartition("_")[2] if patient.startswith("person") else patient.rpartition("-")[0]

def patient_number(
    file_name: str | Path,
) -> int: # 1427 of NORMAL2-IM-1427-0001.jpeg, 12 of person12_virus_3.jpeg
    "The number that a series gives the patient of a film."
    return int(re.search(r"(?:IM-|person)(\d+)", patient_id(file_name))[1])

def stretch_of(
    films: pd.DataFrame, # of one series
    count: int,          # how many stretches
) -> pd.Series: # indexed as `films`; 0 to count - 1
    "Which stretch of consecutive patient numbers a film lies in, each with about as many films."
    numbers = films.path.map(patient_number)
    sizes = films.groupby(numbers).size()
    middle = sizes.cumsum() - sizes / 2
    return numbers.map((middle * count / len(films)).astype(int))

def number_folds(
    images: pd.DataFrame, # with path, split and patient_id
    folds: int,
) -> np.ndarray: # (n,) fold of each film, 0 to folds - 1; -1 for test films
    "A fold for each film that is not in test: stretches of consecutive numbers, one of each series, whole patients."
    if folds < 2: raise StudyError(f"Expected 2 folds or more, found {folds}.")
    fold, learned = np.full(len(images), -1), images.reset_index(drop=True)[(images.split != "test").to_numpy()]
    for series, films in learned.groupby(learned.path.map(naming_series)):
        if (found := films.path.map(patient_number).nunique()) < folds: raise StudyError(f"Expected patients of at least {folds} numbers in the series {series}, found {found}; ask for fewer folds.")
        fold[films.index] = stretch_of(films, folds)
    return whole_patients(images, fold)

def whole_patients(images: pd.DataFrame, fold: np.ndarray) -> np.ndarray: # (n,) as `fold`
    "Patients with a film in common stay together, in the lowest of their folds."
    first = pd.Series(fold).where(fold >= 0).groupby(patient_groups(images)).transform("min")
    return np.where(fold >= 0, first.fillna(-1), -1).astype(int)


# %%
folds = number_folds(parts, 3)
assert set(folds[(parts.split != "test").to_numpy()]) == {0, 1, 2} and set(folds[(parts.split == "test").to_numpy()]) <= {-1}
test_eq(parts.assign(fold=folds)[folds >= 0].groupby("patient_id").fold.nunique().max(), 1)
bacteria = parts.assign(fold=folds, number=parts.path.map(patient_number))[(folds >= 0) & (parts.kind == "bacteria").to_numpy()]
edges = bacteria.groupby("fold").number.agg(["min", "max"])
assert (edges["max"].to_numpy()[:-1] < edges["min"].to_numpy()[1:]).all()   # one stretch after the other
test_eq([naming_series("NORMAL2-IM-1427-0001.jpeg"), patient_number("NORMAL2-IM-1427-0001.jpeg"), patient_number("person12_virus_3.jpeg")], ["NORMAL2-IM", 1427, 12])
test_fail(lambda: number_folds(parts, 500), contains="ask for fewer folds"); test_fail(lambda: number_folds(parts, 1), contains="2 folds or more")
edges


# %% [markdown]
# ## Folds across the naming series
#
# A harder question: does a model know a normal film when all that it learned of normal films came from the **other naming series**, of another time perhaps? `series_folds` makes one fold for each series of the normal films. Pneumonia has no second series of its kind, so
# short stretches of its numbers are dealt out in turn: to these folds, and as many again to further folds without normal films, which need not be left out. So with two series each network of a fold learns from three quarters of the pneumonia films, but only from about half of the normal ones.
# To validate on such a fold is to meet normal films of a series that training never saw.

# %%
#| export
def series_folds(
    images: pd.DataFrame, # with path, split, kind and patient_id
    stretches: int = 4,   # of each pneumonia series, for each fold
) -> np.ndarray: # (n,) fold of each film, counted from 0, those with normal films first; -1 for test films
    "A fold for each naming series of the normal films that are not in test, and as many with pneumonia alone; pneumonia films by stretches of numbers, whole patients."
    fold, learned = np.full(len(images), -1), images.reset_index(drop=True)[(images.split != "test").to_numpy()]
    series = learned.path.map(naming_series)
    names = sorted(series[learned.kind == "normal"].unique())
    if len(names) < 2: raise StudyError(f"Expected normal films of two naming series or more, found {', '.join(names) or 'none'}; take folds along the numbers instead.")
    for name, films in learned.groupby(series):
        fold[films.index] = names.index(name) if name in names else stretch_of(films, stretches * 2 * len(names)) % (2 * len(names))
    return whole_patients(images, fold)


# %%
across = parts.assign(series=parts.path.map(naming_series), fold=series_folds(parts, stretches=2))[(parts.split != "test").to_numpy()]
test_eq(across[across.kind == "normal"].groupby("fold").series.unique().map(list).to_dict(), {0: ["IM"], 1: ["NORMAL2-IM"]})
test_eq(across.groupby("patient_id").fold.nunique().max(), 1)
test_fail(lambda: series_folds(parts[parts.path.map(naming_series) != "IM"]), contains="found NORMAL2-IM; take folds along the numbers")
across.groupby(["fold", "series"]).size().unstack(fill_value=0)

# %% [markdown]
# ## Fetching the public set
#
# Kaggle serves the full-size set (1.2 GB, `paultimothymooney/chest-xray-pneumonia`) to anyone, without an account.
# Its own client shows progress, continues a broken download, checks the checksum and unpacks.

# %%
#| export
KAGGLE_SET = "paultimothymooney/chest-xray-pneumonia"

def fetch_dataset(
    folder: str | Path, # where the client keeps what it downloads
) -> Path: # the folder inside that holds train/ and test/
    "Download the public set from Kaggle."
    if Path(folder).exists() and not Path(folder).is_dir(): raise StudyError(f"Expected a folder to download into, found a file at {folder}; choose another.")
    import kagglehub
    os.environ["KAGGLEHUB_CACHE"] = str(Path(folder).resolve())  # its cache can go on with half a file; `output_dir` cannot
    try: got = Path(kagglehub.dataset_download(KAGGLE_SET))
    except Exception as e: # the client's errors are many: network, disk, service, checksum
        raise StudyError(f"Could not download {KAGGLE_SET} from Kaggle ({type(e).__name__}); "
                         f"check the network and run the command again, or put the set into {folder} by hand.") from None
    found = [p.parent for p in sorted(got.rglob("train")) if (p.parent/"test").is_dir() and "__MACOSX" not in p.parts]
    if not found: raise StudyError(f"Expected train/ and test/ in what Kaggle sent, found {sorted(p.name for p in got.iterdir())}.")
    return found[-1]


# %% [markdown]
# ## This run
#
# The stage writes `images.csv`, which every later stage starts from, and `metrics/data.json` with the folder the
# films lie in and the **data fingerprint**: one number made of all films' fingerprints, equal only for equal sets.

# %%
#| export
def data_fingerprint(images: pd.DataFrame) -> str:
    "SHA-1 over the paths and fingerprints of all films."
    return hashlib.sha1("\n".join(sorted(images.path + " " + images.sha1)).encode()).hexdigest()

def prepare_data(
    stage: Stage,               # any stage; the files go into its run directory
    data_dir: str = "",         # "" draws phantoms into cache/phantoms
    seed: int = 42,
    phantom_train: int = 60,
    phantom_test: int = 24,
    validation_fraction: float = .2,
) -> pd.DataFrame: # what images.csv holds; attrs: root, left_out
    "Find or draw the films, check and split them, and write images.csv, metrics/data.json and metrics/data_checks.csv."
    root = Path(data_dir).expanduser().resolve() if data_dir else stage.path("cache", f"phantoms_{phantom_train}_{phantom_test}_{seed}")
    if not data_dir: make_dataset(root, phantom_train, phantom_test, seed)
    scanned = scan_dataset(root)
    images = split_patients(scanned, validation_fraction, seed).reset_index(drop=True)
    left_out = scanned.attrs["left_out"] | {p: "its patient is also in test" for p in sorted({*scanned.path} - {*images.path})}
    if "test" not in set(images.split): note(stage, f"there is no test/ in {root.name}, so models will be judged on validation, which also chose their epoch.")
    for path, reason in left_out.items(): note(stage, f"left out {path}: {reason}")
    for name in ("train", "validation"):
        if (classes := images.label[images.split == name].nunique()) < 2: raise StudyError(
            f"Expected films of both classes in {name}, found {classes} class(es) after whole patients were set aside; "
            "give more films of more patients, or change validation_fraction or seed.")
    write_json(stage.path("metrics/data.json"), dict(root=root, source="phantoms" if (root/"phantom.json").exists() else "folder",
        fingerprint=data_fingerprint(images), left_out=left_out))
    write_csv(stage.path("metrics/data_checks.csv"), check_dataset(root, scanned))
    write_csv(stage.path("images.csv"), images)
    images.attrs.update(root=str(root), left_out=left_out)
    return images


# %% [markdown]
# Later stages call `load_images`. Where a notebook is opened alone, in an empty run directory, it draws a small
# phantom set and says so.

# %%
#| export
def load_images(
    stage: Stage,
    seed: int = 42,
) -> pd.DataFrame: # what images.csv holds; attrs: root, source
    "The films of this run; a quick phantom set if the data stage has not run here."
    if not stage.path("images.csv").exists():
        prepare_data(stage, seed=seed)
        note(stage, "no images.csv in this run, so a quick phantom set of 100 films was drawn.")
    images, facts = pd.read_csv(stage.path("images.csv")), read_json(stage.path("metrics/data.json"))
    images.attrs.update(root=facts["root"], source=facts["source"], fingerprint=facts["fingerprint"])
    return images


# %%
stage = open_stage("data", run_dir, seed=seed, data_dir=data_dir, phantom_train=phantom_train,
                   phantom_test=phantom_test, validation_fraction=validation_fraction)
images = prepare_data(stage, data_dir, seed, phantom_train, phantom_test, validation_fraction)
images.groupby(["split", "kind"]).agg(films=("path", "size"), patients=("patient_id", "nunique")).unstack("kind")

# %%
checks = pd.read_csv(stage.path("metrics/data_checks.csv"), keep_default_na=False)
checks.rename(columns=dict(serious="would spoil a result")).style.hide(axis="index")


# %%
#| export
def data_findings(
    images: pd.DataFrame, # with split train, validation, test
    checks: pd.DataFrame, # from `check_dataset`
) -> str: # markdown
    "What the data stage found, in words."
    parts = images.groupby("split").agg(films=("path", "size"), patients=("patient_id", "nunique"), share=("label", "mean"))
    across = parts.patients.sum() - images.patient_id.nunique()
    prevalence = abs(parts.share["train"] - parts.share["test"]) if "test" in parts.index else 0
    lines = [f"- **{len(images):,} films of {images.patient_id.nunique():,} patients** (patients as the names tell). "
             + "; ".join(f"{p.Index}: {p.films:,} films of {p.patients:,}, {p.share:.1%} with pneumonia"
                         for p in parts.itertuples()) + ".",
             f"- Patients in more than one split: **{across}**."]
    if prevalence > .02: lines.append("- Pneumonia is not equally common in train and test, so a threshold that suits one need not suit the other.")
    problems = checks[checks.films > 0]
    lines.append("- The checks found nothing wrong." if problems.empty else "- The checks found: " + "; ".join(
        f"{r.films} × {r.problem}" + ("" if r.serious else " (spoils no result)") for r in problems.itertuples()) + ".")
    return "\n".join(lines)


# %%
display(Markdown(data_findings(images, checks)))
record = finish(stage)

# %%
#| hide
shutil.rmtree(work)
