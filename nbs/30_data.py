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
from pathlib import Path

import pandas as pd

from pneumo_nb.run import Stage, StudyError, films_at, note, read_json, write_csv, write_json
from pneumo_nb.style import COLOURS, counted
from pneumo_nb.phantom import make_dataset
from pneumo_nb.films import (
    LEFT_OUT, NO_TEST, OWN_PATIENTS, UNLISTED, check_dataset, data_fingerprint, patient_id, scan_dataset,
    with_series)
from pneumo_nb.splits import split_patients

# %%
#| hide
from fastcore.test import test_close, test_eq, test_fail
from IPython.display import Markdown, display
from pneumo_nb.run import finish, open_stage
from pneumo_nb.style import WORDS, plot_style, readable, save_figure
plot_style()

# %% tags=["parameters"]
run_dir = ""               # the run directory; "" for a temporary one
seed = 42                  # decides who goes into validation (and what phantoms look like)
data_dir = ""              # folder with train/ and test/, or with films.csv; "" draws phantoms
films_csv = ""             # table of own films; "" for films.csv in that folder, if there is one
phantom_train = 360        # phantom films to draw for train …
phantom_test = 120         # … and for test
# shortcuts to plant on phantoms: "class", "balanced" or "reversed" (in test), as the notebook on them says
phantom_text = "none"
phantom_marker = "none"
phantom_frame = "none"
phantom_exposure = "none"
validation_fraction = 0.2  # share of the train films set aside, by whole patients

# %%
#| export
RANGES = {
    "data_dir, films_csv": "plain text",
    "phantom_train, phantom_test": "whole number from 3 to 100000",
    "phantom_text, phantom_marker": ["none", "class", "balanced", "reversed"],
    "phantom_frame, phantom_exposure": ["none", "class", "balanced", "reversed"],
    "validation_fraction": "number above 0 and below 1",
}

# %%
#| export
STAGE = {
    "reads": [],
    "writes": ["images.csv", "metrics/data.json", "metrics/data_checks.csv", "cache/phantoms_*/phantom.json"],
    "card": ["data_splits"],
    "paths": {"data_dir": [""], "films_csv": [""]},
    "data_remark": """
        {% for name in ["text", "marker", "frame", "exposure"]
           if p["phantom_" + name] | default("none") != "none" %}
        {{ "Shortcuts are planted on these phantoms:" if loop.first }}
        {{ name }} ({{ p["phantom_" + name] }}){{ "." if loop.last else "," }}
        {% endfor %}""",
    "methods": """
        <p>Of the films that are not test, {{ "{:.0%}".format(p.validation_fraction) }} are set aside for
        validation, whole patients at a time, with as many of each kind as in the whole; seed {{ p.seed }}.
        Chapters that make folds of their own do not use this validation set.</p>""",
}


# %% [markdown]
# Can a result on these films mean anything? The public set (Kermany et al., *Cell* 172, 2018;
# doi:10.17632/rscbjbr9sj) holds 5,856 frontal films of children of one to five years from one hospital. Three
# questions come before any model sees a pixel. Does a child appear both where a model learns and where it is
# judged? Is every file what it claims to be? And can a stranger repeat the split?
#
# For the public set the answers are good, as far as names tell. No patient is in two splits and no file is
# damaged. Of the 5,856 films 62 are byte-identical copies, all within one split and with one label. The seed
# and a fingerprint of all films fix the split. There are two limits. This was counted on a copy of the set
# squashed to 224 pixels. And nobody published a table of patients: who is on a film is read from its name,
# which is an assumption.
#
# This run's own answers follow.
#
# ## Which films

# %% [markdown]
# Without a folder, a run draws phantoms and keeps them in its own cache. Own films come with a table,
# `films.csv`, that says of each film what folder and name say of the public ones. The notebook on films shows
# its columns, and `pneumo data template DIR` begins one.
#
# On phantoms, **shortcuts** may be planted: text, a tall side marker, a border, another exposure. The
# examinations of later chapters must find them, and a network that uses them can be seen to do so. Films of a
# folder stay as they are.

# %%
#| export
def _planted_in_words(
    shortcuts: dict[str, str], # shortcut → way
) -> str: # one sentence; "" where nothing is planted
    "What is planted on the phantoms, and how."
    planted = [f"{name} ({way})" for name, way in shortcuts.items() if way != "none"]
    return f"shortcuts are planted on these phantoms: {', '.join(planted)}." if planted else ""


# %%
test_eq(_planted_in_words(dict(text="class", frame="none", exposure="reversed")),
        "shortcuts are planted on these phantoms: text (class), exposure (reversed).")
test_eq(_planted_in_words(dict(text="none")), "")


# %%
#| export
def _check_nothing_planted(
    folder: Path,              # of films that are no phantoms
    shortcuts: dict[str, str], # shortcut → way
):
    "Refuse shortcuts on films of a folder."
    planted = [f"phantom_{name}={way}" for name, way in shortcuts.items() if way != "none"]
    if planted: raise StudyError(
        f"Expected no planted shortcuts on the films of {folder.name}, found {', '.join(planted)}; "
        "they can be planted on phantoms only, so leave out data_dir and films_csv, or these parameters.")


# %%
_check_nothing_planted(Path("films"), dict(text="none"))
test_fail(lambda: _check_nothing_planted(Path("films"), dict(text="class")),
          contains="found phantom_text=class")


# %%
#| export
def _film_folder(
    stage: Stage,
    data_dir: str,  # "" for that of the table, or for phantoms
    films_csv: str, # "" without a table
    seed: int,
    sizes: tuple[int, int],    # phantoms of train and test
    shortcuts: dict[str, str], # to plant: shortcut → way
) -> Path: # absolute
    "The folder of a run's films, drawn now if need be."
    folder, _ = films_at(data_dir, films_csv)
    if folder is not None:
        _check_nothing_planted(folder, shortcuts)
        return folder.resolve()
    planted = [f"{name}-{way}" for name, way in shortcuts.items() if way != "none"]
    if planted: note(stage, _planted_in_words(shortcuts))
    name = "_".join(["phantoms", *map(str, [*sizes, seed]), *planted])
    return make_dataset(stage.path("cache", name), *sizes, seed, shortcuts=shortcuts)


# %% [markdown]
# Whatever is left out is named in the run's notes, with the reason. So is a set without test films, since its
# models will be judged on the films that chose their epoch. And so is everything else that the checks call
# serious, before anything is learned from these films.

# %%
#| export
def _note_what_is_missing(
    stage: Stage,
    images: pd.DataFrame,     # with its splits
    left_out: dict[str, str], # path → reason
    root: Path,               # of the set
):
    "Write into the run's notes which films are left out, and that there is no test."
    if "test" not in set(images.split):
        note(stage, f"there are no test films in {root.name}, so models will be judged on validation, "
                    "which also chose their epoch.")
    for path, reason in left_out.items(): note(stage, f"left out {path}: {reason}")


# %%
#| export
def _serious_in_words(
    checks: pd.DataFrame, # from `check_dataset`
) -> list[str]: # a sentence each
    "What the checks call serious, but for what has a note of its own."
    have_notes = checks.problem.isin([LEFT_OUT, NO_TEST, OWN_PATIENTS])
    serious = checks[checks.serious & (checks.films > 0) & ~have_notes]
    return [f"serious: {row.films} × {row.problem} ({row.examples})." for row in serious.itertuples()]


# %%
leaks = pd.DataFrame(dict(problem=["same bytes in two splits", NO_TEST, "no picture, ignored"],
                          films=[2, 1, 3], serious=[True, True, False], examples="a.png"))
test_eq(_serious_in_words(leaks), ["serious: 2 × same bytes in two splits (a.png)."])


# %% [markdown]
# A table of own films may leave things open. It may list only some of the pictures, and it may name no
# patients. The second is as serious as a leak, since nobody can tell whether there is one.

# %%
#| export
def _table_in_words(checks: pd.DataFrame) -> list[str]: # a sentence each
    "What the table of films leaves open."
    rows = {row.problem: row for row in checks.itertuples() if row.films}
    lines = []
    if row := rows.get(UNLISTED):
        lines.append(f"{counted(row.films, 'picture')} that the table of films does not list "
                     f"{'is' if row.films == 1 else 'are'} not used ({row.examples}).")
    if row := rows.get(OWN_PATIENTS):
        lines.append(f"serious: the table of films names no patients, so each of the {row.films} films "
                     "counts as a patient of its own; films of one child may be on both sides of a split, "
                     "and every interval may be too narrow.")
    return lines


# %%
open_ends = pd.DataFrame(dict(problem=[UNLISTED, OWN_PATIENTS], films=[2, 60], examples="a.png, b.png"))
listed, named = _table_in_words(open_ends)
test_eq(listed, "2 pictures that the table of films does not list are not used (a.png, b.png).")
assert "each of the 60 films counts as a patient of its own" in named
test_eq(len(_table_in_words(open_ends.assign(films=[0, 60]))), 1)


# %%
#| export
def _check_classes(images: pd.DataFrame): # split, label
    "Refuse a split that leaves train or validation without one of the classes."
    for name in ("train", "validation"):
        classes = images.label[images.split == name].nunique()
        if classes == 2: continue
        counts = ["none of them", "one of them"]
        raise StudyError(f"Expected films of both classes in {name}, found {counts[classes]} "
                         "after whole patients were set aside; give more films of more patients, "
                         "or change validation_fraction or seed.")


# %%
one_class = pd.DataFrame(dict(split=["train", "train", "validation"], label=[0, 1, 1]))
test_fail(lambda: _check_classes(one_class), contains="both classes in validation, found one of them")


# %% [markdown]
# The stage writes `images.csv`, from which every later stage starts. Two files tell about it.
# `metrics/data.json` names the folder that the films lie in, and their **data fingerprint**, equal only for
# equal sets. A folder inside the run is named relative to it, so that a run can be renamed and moved.
# `metrics/data_checks.csv` holds what the checks found.

# %%
#| export
def _write_data(
    stage: Stage,
    scanned: pd.DataFrame,    # from `scan_dataset`
    images: pd.DataFrame,     # with its splits
    checks: pd.DataFrame,     # from `check_dataset`
    left_out: dict[str, str], # path → reason
):
    "Write the three files."
    root = Path(scanned.attrs["root"])
    table = scanned.attrs["films_csv"]
    source = "phantoms" if (root/"phantom.json").exists() and not table else "folder"
    place = root.relative_to(stage.folder) if root.is_relative_to(stage.folder) else root
    facts = dict(root=place.as_posix(), source=source, fingerprint=data_fingerprint(images))
    if table: facts["films_csv"] = table
    write_json(stage.path("metrics/data.json"), facts | dict(left_out=left_out))
    write_csv(stage.path("metrics/data_checks.csv"), checks)
    write_csv(stage.path("images.csv"), images)


# %%
#| export
def prepare_data(
    stage: Stage,               # any stage; the files go into its run directory
    data_dir: str = "",         # "" draws phantoms into the run's cache
    seed: int = 42,
    phantom_train: int = 60,    # films
    phantom_test: int = 24,
    validation_fraction: float = .2, # of the films of each kind that are not test
    films_csv: str = "",        # table of own films; "" for films.csv in the folder, if there is one
    shortcuts: dict[str, str] | None = None, # to plant on phantoms: text, marker, frame, exposure → way
) -> pd.DataFrame: # what images.csv holds; attrs: root, films_csv, left_out
    "Find or draw the films, check and split them, and write images.csv with its two companions."
    root = _film_folder(stage, data_dir, films_csv, seed, (phantom_train, phantom_test), shortcuts or {})
    scanned = scan_dataset(root, films_csv)
    images = split_patients(scanned, validation_fraction, seed).reset_index(drop=True)
    leaked = sorted({*scanned.path} - {*images.path})
    left_out = scanned.attrs["left_out"] | dict.fromkeys(leaked, "its patient is also in test")
    _note_what_is_missing(stage, images, left_out, root)
    checks = check_dataset(root, scanned)
    for text in _serious_in_words(checks) + _table_in_words(checks): note(stage, text)
    _check_classes(images)
    _write_data(stage, scanned, images, checks, left_out)
    images.attrs.update(root=str(root), left_out=left_out)
    return images


# %%
films = dict(data_dir=data_dir, films_csv=films_csv, phantom_train=phantom_train, phantom_test=phantom_test,
             validation_fraction=validation_fraction)
shortcuts = dict(text=phantom_text, marker=phantom_marker, frame=phantom_frame, exposure=phantom_exposure)
stage = open_stage("data", run_dir, seed=seed, **films,
                   **{f"phantom_{name}": way for name, way in shortcuts.items()})
images = prepare_data(stage, seed=seed, shortcuts=shortcuts, **films)


# %% [markdown]
# [The figure](#fig-data_splits) follows one patient of each split from the names of its films, and counts the
# films beside it. All films of a patient are on one side. Films of a folder `val` have joined train: the
# public set has 16 there, too few to steer anything. Validation is cut from train by the seed. Test films,
# where there are any, stay test.

# %%
#| export
def _splits_there(images: pd.DataFrame) -> list[str]:
    "The splits that have films, in the order of their use."
    return [split for split in ("train", "validation", "test") if (images.split == split).any()]

def _plot_names(ax, images: pd.DataFrame):
    "For each split the patient with most films: names, then whose they are."
    for line, split in enumerate(_splits_there(images)):
        rows = images[images.split == split]
        patient = rows.patient_id.value_counts().index[0]
        names = [Path(path).name for path in sorted(rows.path[rows.patient_id == patient])]
        more = f"and {counted(len(names) - 3, 'more film')}" if len(names) > 3 else ""
        text = "\n".join([*names[:3], *([more] if more else [])])
        ax.text(0, line, text, family="monospace", fontsize=9, va="center")
        ax.annotate("", (.68, line), (.58, line), arrowprops=dict(arrowstyle="->", color="gray"))
        ax.text(.7, line, f"patient {patient}\nin {split}", fontsize=10, va="center")
    ax.set(xlim=(0, 1), ylim=(2.5, -.5), title="One patient of each split")
    ax.axis("off")


# %%
#| export
def _plot_splits(images: pd.DataFrame): # matplotlib Figure; `images`: path, kind, patient_id, split
    "How names, patients and splits belong together, and how many films of each kind a split has."
    import matplotlib.pyplot as plt
    figure, (names, bars) = plt.subplots(1, 2, figsize=(8.6, 3.2), width_ratios=[1.25, 1])
    _plot_names(names, images)
    counts = pd.crosstab(images.split, images.kind).loc[_splits_there(images)]
    kinds = sorted(counts, key=[*COLOURS, *counts].index)
    counts[kinds].plot.barh(stacked=True, ax=bars, width=.6, color=[COLOURS[kind] for kind in kinds])
    patients = images.groupby("split").patient_id.nunique()
    for line, (split, row) in enumerate(counts.iterrows()):
        bars.text(row.sum(), line, f" {row.sum():,} films\n of {patients[split]:,}", va="center", fontsize=9)
    bars.set(xlabel="films", ylabel="", xlim=(0, 1.35 * counts.sum(axis=1).max()), title="Films by kind")
    bars.invert_yaxis()
    bars.legend(title=None, fontsize=9, loc="lower right")
    return figure


# %%
parts = "; ".join(f"{split} {(images.split == split).sum():,}" for split in _splits_there(images))
save_figure(stage, _plot_splits(images), "data_splits", "From names to patients to splits, and the films.",
            f"Names of one patient's films in each split, and bars of films by kind. Films: {parts}.")

# %% [markdown]
# The same counts, and the fingerprint by which this set of films is known:

# %%
counts = images.groupby(["split", "kind"]).agg(films=("path", "size"), patients=("patient_id", "nunique"))
print("Fingerprint of these films:", data_fingerprint(images))
counts.unstack("kind").loc[_splits_there(images)]


# %% [markdown]
# What was found is put into words here, and stands at the end of the chapter.

# %%
#| export
def _patients_by(images: pd.DataFrame) -> str: # attrs: films_csv
    "Who says which film is whose."
    if not images.attrs.get("films_csv"): return "patients as the names tell"
    if (images.patient_id == images.path).all(): return "each film counts as a patient of its own"
    return "patients as the table of films tells"

def _splits_in_words(images: pd.DataFrame) -> list[str]: # lines of Markdown
    "How many films and patients each split has, and how common pneumonia is there."
    parts = images.groupby("split").agg(films=("path", "size"), patients=("patient_id", "nunique"),
                                        share=("label", "mean"))
    across = parts.patients.sum() - images.patient_id.nunique()
    listed = "; ".join(f"{p.Index}: {p.films:,} films of {p.patients:,}, {p.share:.1%} with pneumonia"
                       for p in parts.itertuples())
    lines = [f"- **{len(images):,} films of {images.patient_id.nunique():,} patients** "
             f"({_patients_by(images)}). {listed}.", f"- Patients in more than one split: **{across}**."]
    if "test" in parts.index and abs(parts.share["train"] - parts.share["test"]) > .02:
        lines.append("- Pneumonia is not equally common in train and test, so a threshold that suits one "
                     "need not suit the other.")
    return lines


# %%
#| export
def _checks_in_words(checks: pd.DataFrame) -> str: # a line of Markdown
    "What the checks found."
    problems = [f"{row.films} × {row.problem}" + ("" if row.serious else " (spoils no result)")
                for row in checks.itertuples() if row.films]
    return f"- The checks found: {'; '.join(problems)}." if problems else "- The checks found nothing wrong."


# %%
copies = pd.DataFrame(dict(problem=["hidden file, ignored", "same bytes in two splits"], films=[3, 0],
                           serious=[False, True]))
test_eq(_checks_in_words(copies), "- The checks found: 3 × hidden file, ignored (spoils no result).")
test_eq(_checks_in_words(copies[1:]), "- The checks found nothing wrong.")


# %%
#| export
def _data_findings(
    images: pd.DataFrame, # with split train, validation, test
    checks: pd.DataFrame, # from `check_dataset`
) -> str: # Markdown
    "What the data stage found, in words."
    return "\n".join([*_splits_in_words(images), _checks_in_words(checks)])


# %% [markdown]
# ## How many films a patient has
#
# [The figure](#fig-data_patients) sorts the films by how many their patient has. Whoever has several makes a
# split by film unfair: the model would be judged on children that it knows.

# %%
#| export
def _plot_patients(
    images: pd.DataFrame, # kind, patient_id, path
): # matplotlib Figure
    "Films of each kind, by how many films their patient has."
    import matplotlib.pyplot as plt
    of_patient = images.groupby("patient_id").path.transform("size")
    steps = pd.cut(of_patient, [0, 1, 2, 4, 8, 1000], labels=["1", "2", "3 to 4", "5 to 8", "over 8"])
    counts = pd.crosstab(steps, images.kind)
    kinds = sorted(counts, key=[*COLOURS, *counts].index)
    figure, ax = plt.subplots(figsize=(7, 3))
    counts[kinds].plot.bar(ax=ax, rot=0, width=.8, color=[COLOURS[kind] for kind in kinds])
    ax.set(xlabel="films of the patient", ylabel="films")
    ax.get_legend().remove()
    figure.legend(loc="outside right upper")
    return figure


# %%
save_figure(stage, _plot_patients(images), "data_patients",
            "Films of each kind by the number of films that their patient has.",
            "Bars in groups from one film a patient to more than eight, with a colour for each kind.")


# %% [markdown]
# How much would a split by film give away? A validation film whose patient has others is fair only if all of
# those are in validation, too. The more films there are, the less likely that is.

# %%
#| export
def _chance_of_leak(
    images: pd.DataFrame, # path, patient_id; films that are not test
    fraction: float,      # share of films that goes to validation
) -> pd.Series: # (n,) probability
    "How likely another film of its patient is in train, if validation films are drawn one by one."
    others = images.groupby("patient_id").path.transform("size") - 1
    return 1 - fraction ** others


# %%
family = pd.DataFrame(dict(path=["a", "b", "c"], patient_id=["one", "one", "two"]))
test_close(_chance_of_leak(family, .2), [.8, .8, 0])   # nothing can leak of a single film

# %% [markdown]
# The last column of this table is the share of validation films that would be expected to have another film
# of the same child in train. It is for this run's films that are not test, drawn one by one.

# %%
outside = images[images.split != "test"]
of_patient = outside.groupby("patient_id").path.transform("size")
leaked = _chance_of_leak(outside, validation_fraction)
spread = outside.assign(most=of_patient, leaked=leaked).groupby("kind").agg(
    films=("path", "size"), patients=("patient_id", "nunique"), most=("most", "max"),
    leaked=("leaked", "mean"))
display(Markdown(f"Split by film, **{leaked.mean():.0%}** of the validation films would be expected to have "
                 "another film of their patient in train. Split by patient, none has."))
readable(spread).style.format({WORDS["leaked"]: "{:.0%}"})

# %% [markdown]
# ## What is wrong with the films
#
# Each row is one check. The notebook on films spoils a set on purpose and shows what they find there.

# %%
checks = pd.read_csv(stage.path("metrics/data_checks.csv"), keep_default_na=False)
readable(checks.assign(serious=checks.serious.map({True: "yes", False: "no"}))).style.hide(axis="index")

# %% [markdown]
# ## What it comes to

# %%
display(Markdown(_data_findings(images, checks)))

# %%
record = finish(stage)


# %% [markdown]
# ## For later chapters
#
# Later chapters call `load_images`. Where a notebook is opened alone, in an empty run directory, it draws a
# small phantom set and says so.

# %%
#| export
def load_images(
    stage: Stage,
    seed: int = 42,
) -> pd.DataFrame: # what images.csv holds; attrs: root, source, fingerprint
    "The films of this run; a quick phantom set if the data stage has not run here."
    if not stage.path("images.csv").exists():
        prepare_data(stage, seed=seed)
        note(stage, "no images.csv in this run, so a quick phantom set of 100 films was drawn.")
    text = dict.fromkeys(["path", "kind", "patient_id", "series"], str)  # patients may have numbers for names
    images = with_series(pd.read_csv(stage.path("images.csv"), dtype=text, keep_default_na=False))
    facts = read_json(stage.path("metrics/data.json"))
    images.attrs.update({key: facts[key] for key in ("source", "fingerprint")})
    images.attrs["films_csv"] = facts.get("films_csv", "")  # only films of a table have one
    images.attrs["root"] = str(stage.path(facts["root"]))  # an absolute path stays what it is
    return images


# %%
test_eq(load_images(stage).path.tolist(), images.path.tolist())
test_eq(load_images(stage).attrs["root"], images.attrs["root"])
