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
# # What a reviewer asks
#
# > Three checklists, a flow of films, a data card, a model card and an abstract, from a run's files

# %%
#| default_exp reporting

# %%
#| export
import re, textwrap
from collections import Counter
from pathlib import Path

import pandas as pd

from pneumo_nb.run import (
    StudyError, models, project_folder, read_json, read_provenance, read_table, short_commit, stages)
from pneumo_nb.style import (
    COLOURS, counted, in_list, kind_words, looks_in_words, model_title, title_with_remark,
    value_with_interval)
from pneumo_nb.detector import INTENDED, NOT_FOR

# %%
#| hide
import tempfile
import matplotlib.pyplot as plt
from fastcore.test import test_eq, test_fail
from pneumo_nb.run import write_csv, write_json
from pneumo_nb.style import plot_style, show_figure
plot_style()

# %% [markdown]
# A study of a medical test is read by people who have seen many of them go wrong. Their questions are
# written down: in checklists of what a report must say, and in cards that travel with data and models. This
# notebook answers them from the files of a run. What a run cannot answer is said to be missing.
#
# The lists are three:
#
# - [STARD 2015](https://doi.org/10.1136/bmj.h5527) for studies of accuracy: Bossuyt et al., *BMJ* 351, h5527;
# - [TRIPOD+AI](https://doi.org/10.1136/bmj-2023-078378) for prediction models: Collins et al., *BMJ* 385,
#   e078378, 2024;
# - [CLAIM, 2024 update](https://doi.org/10.1148/ryai.240300) for artificial intelligence in imaging: Tejani
#   et al., *Radiology: Artificial Intelligence* 6, e240300.
#
# Model cards follow [Mitchell et al., 2019](https://doi.org/10.1145/3287560.3287596).
#
# ## The checklists
#
# `nbs/assets/checklists.csv` has a row a point: what it asks, in this project's own words; whether the
# report answers; on which page; and one sentence on what is there or why not. Points with letters, such as
# 10a, are parts of one item. A list is no mark: a bad study can answer every point, and honestly.

# %%
#| export
STATUSES = ["in the report", "in part", "not done", "does not apply", "not in this run"]
_COLUMNS = ["checklist", "item", "asks", "status", "where", "words"]


# %%
#| export
def read_checklists(
    file: str | Path | None = None, # None: the project's own
) -> pd.DataFrame: # checklist, item, asks, status, where, words; all text
    "The points of the three lists, as the project answers them."
    file = file or project_folder()/"nbs/assets/checklists.csv"
    items = pd.read_csv(file, dtype=str, keep_default_na=False)
    unknown = sorted({*items.status} - {*STATUSES})
    if unknown: raise StudyError(
        f"Expected one of {in_list(STATUSES)} in {file}, found {in_list(unknown)}; mend that file.")
    return items[_COLUMNS]


# %%
points = read_checklists()
items_of = points.groupby("checklist", sort=False).item
test_eq(items_of.agg(lambda item: item.str.extract(r"(\d+)")[0].nunique()).to_dict(),
        {"STARD 2015": 30, "TRIPOD+AI 2024": 27, "CLAIM 2024": 44})
items_of.size()


# %% [markdown]
# A run may lack chapters. A point that is answered in a chapter which this run does not have is *not in this
# run*.

# %%
#| export
def pages_of(
    folder: str | Path, # a run directory
) -> set[str]: # file names
    "The pages that the report of a run has."
    folder = Path(folder)
    pages = {"index.html", "methods.html", "checklists.html"}
    if (folder/"images.csv").exists(): pages.add("cards.html")
    if any(folder.glob("predictions/*.csv")): pages.add("operating_point.html")
    chapters = [name for name, stage in stages().items()
                if (folder/f"notebooks/{stage.notebook}.ipynb").exists()]
    return pages | {f"{name}.html" for name in chapters}


# %%
#| export
def checklists_of(
    folder: str | Path, # a run directory
) -> pd.DataFrame: # as `read_checklists`
    "The points of the three lists, as far as this run's report answers them."
    items, pages = read_checklists(), pages_of(folder)
    is_missing = (items["where"] != "") & ~items["where"].str.split("#").str[0].isin(pages)
    return items.assign(status=items.status.mask(is_missing, "not in this run"),
                        where=items["where"].mask(is_missing, ""))


# %%
with tempfile.TemporaryDirectory() as folder:
    test_eq(pages_of(folder), {"index.html", "methods.html", "checklists.html"})
    few = checklists_of(folder).set_index(["checklist", "item"])
test_eq(few.status[("STARD 2015", "24")], "not in this run")   # stands in the evaluation
test_eq(few.status[("STARD 2015", "26")], "in the report")     # the limits are always there


# %%
#| export
def status_counts(
    items: pd.DataFrame, # from `checklists_of`
) -> pd.DataFrame: # a row a list, a column a status that occurs
    "How many points of each list have which status."
    counts = pd.crosstab(items.checklist, items.status).reindex(items.checklist.unique())
    return counts[[status for status in STATUSES if status in counts]]

_SAID = {  # of one point, of several
    "in the report": ("is in the report", "are in the report"),
    "in part": ("is answered in part", "are answered in part"), "not done": ("is not done", "are not done"),
    "does not apply": ("does not apply", "do not apply"),
    "not in this run": ("is not in this run", "are not in this run")}

def status_words(items: pd.DataFrame) -> list[str]: # a sentence a list
    "The counts in words."
    rows = status_counts(items).to_dict("index")
    said = lambda status, n: f"{n:,} {_SAID[status][n != 1]}"
    listed = lambda row: in_list([said(status, n) for status, n in row.items() if n])
    return [f"{name}, {counted(sum(row.values()), 'point')}: {listed(row)}." for name, row in rows.items()]


# %%
two = pd.DataFrame(dict(checklist="CLAIM", status=["in part", "in the report", "in part"]))
test_eq(status_words(two), ["CLAIM, 3 points: 1 is in the report and 2 are answered in part."])
status_counts(points)


# %% [markdown]
# ## A run to look at
#
# The examples below read one small run, written by hand. Its numbers are made up, and so are its films.

# %%
def small_run(folder, source="phantoms"):
    split = ["train"] * 5 + ["validation"] * 3 + ["test"] * 4
    label = [0, 1, 1, 1, 1, 0, 1, 1, 0, 0, 1, 1]
    kinds = ["bacteria" if n % 2 else "virus" for n in range(12)]
    images = pd.DataFrame(dict(path=[f"{n}.png" for n in range(12)], split=split, label=label,
                               kind=[kind if sick else "normal" for kind, sick in zip(kinds, label)],
                               patient_id=list("aabcdeffghij")))
    write_csv(folder/"images.csv", images)
    write_json(folder/"metrics/data.json", dict(root="films", source=source, fingerprint="1ab",
                                                left_out={"x.png": "is empty", "y.png": "is empty"}))
    write_csv(folder/"metrics/data_checks.csv", pd.DataFrame(dict(
        problem=["same bytes in two splits", "cut short"], films=[1, 0], serious=True, examples="0.png")))
    row = dict(model="cnn", films=4, threshold=.5, tn=1, fp=1, fn=0, tp=2, parameters=1234, epochs=3,
               training_seconds=65.2, networks=1, roc_auc=.75, roc_auc_low=.5, roc_auc_high=.9,
               sensitivity=1., sensitivity_low=.4, sensitivity_high=1., specificity=.5,
               specificity_low=None, specificity_high=None, validation_roc_auc=1., remark=None)
    write_json(folder/"metrics/evaluation.json",
               dict(threshold=.5, split="test", best="cnn", comparison=[row], pairs=[]))
    write_csv(folder/"metrics/evaluation_subgroups.csv", pd.DataFrame(dict(
        model="cnn", label=1, by="kind", group=["bacteria", "virus"], films=1, patients=1,
        measure="sensitivity", rate=1., rate_low=[.1, None], rate_high=[1., None])))
    parameters = dict(cnn=dict(image_size=64), evaluation=dict(draws=200))
    record = dict(started="2026-11-26T17:29:31+00:00", seconds=70, peak_memory_mb=200, git_commit="abc",
                  versions=dict(python="3.11.7", keras="3.15.1"), notes=[], machine={}, inputs={}, outputs={})
    records = {name: record | dict(parameters=p) for name, p in parameters.items()}
    write_json(folder/"provenance.json", dict(stages=records, test_looks=[]))
    return folder

temporary = tempfile.TemporaryDirectory()
small, own = (small_run(Path(temporary.name)/name, name) for name in ("phantoms", "folder"))

# %% [markdown]
# ## What a run knows of its films

# %%
#| export
_SPLITS = ["train", "validation", "test"]

def facts_of(folder: Path, file: str) -> dict: # {} where the run does not have it
    "A JSON file of a run."
    return read_json(folder/file) if (folder/file).exists() else {}

def _images(folder: Path) -> pd.DataFrame: # split, label, kind, patient_id
    "The films of a run."
    file, text = folder/"images.csv", dict.fromkeys(["path", "split", "kind", "patient_id"], str)
    read_table(file, ["split", "label", "kind", "patient_id"], ["label"])   # refused if it is none
    return pd.read_csv(file, dtype=text, keep_default_na=False)


# %% [markdown]
# The public set is known by the numbers of its test films.

# %%
#| export
_PUBLIC_KINDS = {"normal": 234, "bacteria": 242, "virus": 148}  # of the public test films


# %%
#| export
def is_public_test(
    folder: Path, # a run directory
) -> bool:
    "Whether a run's test films are, by their numbers and names, those that others published on."
    if not (folder/"images.csv").exists(): return False
    images = read_table(folder/"images.csv", ["kind", "split"])
    counts = images.kind[images.split == "test"].value_counts().to_dict()
    return counts == _PUBLIC_KINDS and read_json(folder/"metrics/data.json")["source"] != "phantoms"

def films_source(folder: Path) -> str: # "phantoms", "public" or "own"
    "Where the films of a run come from."
    if facts_of(folder, "metrics/data.json").get("source") == "phantoms": return "phantoms"
    return "public" if is_public_test(folder) else "own"


# %%
test_eq([films_source(folder) for folder in (small, own)], ["phantoms", "own"])


# %% [markdown]
# ## The flow of films
#
# STARD asks for a diagram: how many films were found, how many were left out and why, into which parts the
# others went, and what the test said of them. First the numbers.

# %%
#| export
def _counts(films: pd.DataFrame) -> dict: # films, patients, normal, pneumonia
    sick = int(films.label.sum())
    return dict(films=len(films), patients=films.patient_id.nunique(), normal=len(films) - sick,
                pneumonia=sick)

def judged_row(
    folder: Path,              # a run directory
    model: str | None = None,  # None: the one with the highest AUROC
) -> dict: # of the comparison, with split and threshold; {} where nothing was evaluated
    "How a model, or the one with the highest AUROC, did on the films that it was judged on."
    facts = facts_of(folder, "metrics/evaluation.json")
    rows = {row["model"]: row for row in facts.get("comparison", [])}
    row = rows.get(model or facts.get("best"))
    return row | dict(split=facts["split"], threshold=facts["threshold"]) if row else {}


# %%
#| export
def flow_counts(
    folder: str | Path, # a run directory with images.csv
) -> dict: # found; left_out: reason → paths; kept, splits: films, patients, normal, pneumonia; judged
    "How many films and patients took which way."
    folder = Path(folder)
    images, reasons = _images(folder), facts_of(folder, "metrics/data.json").get("left_out", {}).values()
    parts = {split: images[images.split == split] for split in _SPLITS}
    splits = {split: _counts(films) for split, films in parts.items() if len(films)}
    return dict(found=len(images) + len(reasons), left_out=dict(Counter(reasons).most_common()),
                kept=_counts(images), splits=splits, judged=judged_row(folder))


# %%
counts = flow_counts(small)
test_eq((counts["found"], counts["left_out"], counts["kept"]["films"]), (14, {"is empty": 2}, 12))
test_eq(counts["splits"]["train"], dict(films=5, patients=4, normal=1, pneumonia=4))
test_eq(sum(part["films"] for part in counts["splits"].values()), 12)
test_eq([counts["judged"][key] for key in ("tp", "fp", "fn", "tn")], [2, 1, 0, 1])

# %% [markdown]
# The same in words, for those who do not see the figure:

# %%
#| export
_KINDS_WORDS = "{normal:,} normal, {pneumonia:,} with pneumonia"
_CALLED = ("Of the {split} films {title} calls {positive:,} pneumonia at a threshold of {threshold:g}, "
           "{tp:,} of them rightly, and {negative:,} normal, {tn:,} of them rightly.")

def _called(judged: dict) -> dict: # `judged`, with the model's title and the two sums
    return judged | dict(title=model_title(judged["model"]), positive=judged["tp"] + judged["fp"],
                         negative=judged["fn"] + judged["tn"])

def _size_words(part: dict) -> str: # such as "5 films of 4 patients"
    return f"{counted(part['films'], 'film')} of {counted(part['patients'], 'patient')}"


# %%
#| export
def _left_out_words(left_out: dict[str, int], most: int = 3) -> list[str]: # a line a reason
    "Why films were left out, the most frequent reasons first."
    lines = [f"{count:,} × {reason}" for reason, count in list(left_out.items())[:most]]
    others = sum(list(left_out.values())[most:])
    return lines + ([f"{others:,} × other reasons"] if others else [])


# %%
#| export
def flow_words(
    folder: str | Path, # a run directory with images.csv
) -> str: # sentences
    "The flow of films in words."
    counts = flow_counts(folder)
    left_out = "; ".join(_left_out_words(counts["left_out"])) or "none"
    parts = [f"{split}: {_size_words(part)} ({_KINDS_WORDS.format(**part)})"
             for split, part in counts["splits"].items()]
    judged = counts["judged"]
    called = [_CALLED.format(**_called(judged))] if judged else []
    return " ".join([f"{counted(counts['found'], 'film')} found. Left out: {left_out}.",
                     f"Kept: {_size_words(counts['kept'])}.", *(f"{part}." for part in parts), *called])


# %%
print(textwrap.fill(flow_words(small), 100))
test_eq(_left_out_words(dict(a=4, b=3, c=2, d=1, e=1)), ["4 × a", "3 × b", "2 × c", "2 × other reasons"])


# %% [markdown]
# The figure is tall and narrow, so that a phone shows it whole. Blue is a call of normal and orange-red one
# of pneumonia, as everywhere.

# %%
#| export
def _box(
    ax,
    x: float, # of the middle, in [0, 1]
    y: float,
    lines: list[str],
    colour: str = "#444444",
    width: int = 24, # characters a line
): # matplotlib Text
    "A box with lines of text."
    text = "\n".join(part for line in lines for part in textwrap.wrap(line, width))
    look = dict(boxstyle="round,pad=0.45", facecolor="white", edgecolor=colour, linewidth=1.4)
    return ax.text(x, y, text, ha="center", va="center", fontsize=10, linespacing=1.25, bbox=look)

def _arrow(ax, start, end): # both from `_box`
    "An arrow from one box to another."
    look = dict(arrowstyle="-|>", color="#444444", patchA=start.get_bbox_patch(), shrinkA=0, shrinkB=2,
                patchB=end.get_bbox_patch())
    ax.annotate("", xy=end.get_position(), xytext=start.get_position(), arrowprops=look)


# %%
#| export
def _draw_splits(ax, counts: dict) -> dict: # split → box
    "The upper half of the flow: films found, left out, kept and divided."
    size = counts["kept"]
    found = _box(ax, .3, .95, [f"{counted(counts['found'], 'film')} found"])
    lines = [f"{counted(size['films'], 'film')} kept", counted(size["patients"], "patient")]
    kept = _box(ax, .3, .76, lines)
    reasons = _left_out_words(counts["left_out"])
    out = _box(ax, .77, .86, [f"{sum(counts['left_out'].values()):,} left out", *reasons], width=19)
    for end in (kept, out): _arrow(ax, found, end)
    boxes = {}
    for place, (split, part) in enumerate(counts["splits"].items()):
        lines = [split, counted(part["films"], "film"), counted(part["patients"], "patient"),
                 f"{part['normal']:,} normal", f"{part['pneumonia']:,} pneumonia"]
        boxes[split] = _box(ax, .16 + .34 * place, .55, lines)
        _arrow(ax, kept, boxes[split])
    return boxes


# %%
#| export
def _draw_calls(ax, judged: dict, start): # `start`: box of the films judged
    "The lower half of the flow: what the model said, against the labels."
    called = _called(judged)
    heading = "called by {title} at a threshold of {threshold:g}".format(**called)
    films = counted(judged["films"], f"{judged['split']} film")
    model = _box(ax, .5, .33, [heading, films], width=38)
    _arrow(ax, start, model)
    for x, call, total, sick, well in [(.25, "pneumonia", "positive", "tp", "fp"),
                                       (.75, "normal", "negative", "fn", "tn")]:
        colour = COLOURS[call.upper()]
        answer = _box(ax, x, .19, [f"called {call}", counted(called[total], "film")], colour)
        labels = [f"labelled pneumonia: {judged[sick]:,}", f"labelled normal: {judged[well]:,}"]
        truth = _box(ax, x, .06, labels, colour)
        _arrow(ax, model, answer)
        _arrow(ax, answer, truth)


# %%
#| export
def flow_figure(
    folder: str | Path, # a run directory with images.csv
): # matplotlib Figure
    "The flow of films and patients through a run, down to the calls of its best model."
    import matplotlib.pyplot as plt
    counts = flow_counts(folder)
    figure = plt.figure(figsize=(4.8, 7.4), layout="none")
    ax = figure.add_axes([0, 0, 1, 1])
    ax.set(xlim=(0, 1), ylim=(0, 1))
    ax.axis("off")
    boxes, judged = _draw_splits(ax, counts), counts["judged"]
    if judged and judged["split"] in boxes: _draw_calls(ax, judged, boxes[judged["split"]])
    return figure


# %%
show_figure(flow_figure(small), "reporting_flow", "The flow of films through a made-up run.",
            flow_words(small));

# %% [markdown]
# ## The data card
#
# What must be known of the films stands in three versions: for the public set, for phantoms, and for films of
# a reader's own, of which this project knows nothing. What is said of the public set was read in the paper
# that came with it (Kermany et al., *Cell* 172, 2018, 1122–1131) and on its page at Mendeley Data.

# %%
#| export
_PUBLIC = {
    "Source": """Kermany et al., Cell 172 (2018) 1122–1131, doi:10.1016/j.cell.2018.02.010; films at
        Mendeley Data, doi:10.17632/rscbjbr9sj.""",
    "Licence": "CC BY 4.0.",
    "Whose films": """Chest films of children of one to five years, from retrospective cohorts of Guangzhou
        Women and Children's Medical Center, taken in routine care. The dates were not published.""",
    "Labels": """The publishers removed films of low quality. Two physicians graded each film, and a third
        checked the evaluation set. They call them experts and say no more of them.""",
    "Ethics": """Their paper says that ethics committees approved, and that the work complied with HIPAA and
        the Declaration of Helsinki. Where it says so, it names no committee and no consent.""",
    "Funding": """The paper thanks two public programmes of China, the hospital, a laboratory in Guangzhou
        and three private funds. Its authors declare no competing interests.""",
    "Not recorded": """Age within one to five years, sex, machine, exposure, position, severity, treatment and
        the course of the disease."""}

# %%
#| export
_PHANTOMS = {
    "Source": "Drawn by this project's own code, from the seed on record.",
    "Licence": "That of the code, Apache-2.0.",
    "Whose films": "Nobody's: no child is on a phantom. Patients and names are made up.",
    "Labels": "Known without doubt: there is pneumonia where it was drawn.",
    "Ethics": "No person is concerned.",
    "Funding": "Nothing is on record.",
    "Not recorded": "Age, sex, machine, and any disease but what was drawn: phantoms have none."}

_NOT_KNOWN = "Not known here; the owner of the films must say."
_OWN = {"Source": "Films of a folder named {folder}."} | dict.fromkeys([*_PUBLIC][1:], _NOT_KNOWN)


# %%
#| export
def _about(folder: Path) -> dict[str, str]: # heading → sentences
    "What is known of the films of a run, by their source."
    texts = dict(public=_PUBLIC, phantoms=_PHANTOMS, own=_OWN)[films_source(folder)]
    name = Path(facts_of(folder, "metrics/data.json").get("root", "")).name or "no name"
    return {heading: " ".join(text.split()).replace("{folder}", name) for heading, text in texts.items()}


# %%
test_eq(_about(own)["Source"], "Films of a folder named films.")
test_eq({frozenset(texts) for texts in (_PUBLIC, _PHANTOMS, _OWN)}, {frozenset(_PUBLIC)})


# %% [markdown]
# Known faults are those that the checks of the chapter on data found.

# %%
#| export
def _faults(folder: Path) -> list[str]: # sentences
    "What the checks found, and what was left out."
    file, reasons = folder/"metrics/data_checks.csv", _left_out_words(flow_counts(folder)["left_out"])
    if not file.exists(): return ["The films have not been checked."]
    checks = read_table(file, ["problem", "films", "serious"], ["films"])
    spoils = lambda row: " (would spoil a result)" if str(row.serious) == "True" else ""
    lines = [f"{counted(row.films, 'film')}: {row.problem}{spoils(row)}."
             for row in checks[checks.films > 0].itertuples()]
    left_out = [f"Left out: {'; '.join(reasons)}."] if reasons else []
    return (lines or ["The checks found nothing."]) + left_out


# %%
test_eq(_faults(small), ["1 film: same bytes in two splits (would spoil a result).",
                         "Left out: 2 × is empty."])


# %%
#| export
def _split_rows(folder: Path) -> list[dict]: # split, films, patients, normal, pneumonia; text
    "A row a split."
    counts = flow_counts(folder)
    parts = counts["splits"] | {"all": counts["kept"]}
    return [{"split": split} | {key: f"{n:,}" for key, n in part.items()} for split, part in parts.items()]


# %%
#| export
def data_card(
    folder: str | Path, # a run directory with images.csv
) -> dict[str, list]: # heading → sentences, and tables as lists of rows
    "What must be known of the films of a run."
    folder = Path(folder)
    about = _about(folder)
    first = {heading: [about[heading]] for heading in ("Source", "Licence", "Whose films", "Labels")}
    counts = flow_counts(folder)
    across = sum(part["patients"] for part in counts["splits"].values()) - counts["kept"]["patients"]
    size = f"{_size_words(counts['kept'])}. Patients in more than one split: {across:,}."
    return first | {"Films and patients": [size, _split_rows(folder)], "Known faults": _faults(folder),
                    "Not recorded": [about["Not recorded"]], "Ethics": [about["Ethics"]],
                    "Funding": [about["Funding"]]}


# %%
card = data_card(small)
test_eq(card["Films and patients"][1][0],
        dict(split="train", films="5", patients="4", normal="1", pneumonia="4"))
pd.DataFrame(card["Films and patients"][1]).style.hide(axis="index")


# %% [markdown]
# ## The model card
#
# Its headings are those of Mitchell et al. Each is filled from the run's files.

# %%
#| export
def _model_details(folder: Path, model: str, row: dict) -> list[str]: # `row`: of the comparison, or {}
    "What the model is, and how it came to be."
    record = read_provenance(folder)["stages"].get(models().get(model, {}).get("stage", model), {})
    side, title = record.get("parameters", {}).get("image_size"), title_with_remark(dict(model=model) | row)
    film = f"a film of {side} × {side} gray values" if side else "a film of gray values"
    lines = [f"Given {film}, {title} answers with a probability of pneumonia.", *_size_sentences(row)]
    versions, commit = record.get("versions", {}), short_commit(record.get("git_commit", ""))
    made = [f"{name} {versions[name]}" for name in ("python", "tensorflow", "keras") if name in versions]
    if record: lines.append(
        f"Trained on {record['started'][:10]} by the code at commit {commit}, with {in_list(made)}.")
    return lines + ["Made by the pneumo_nb authors; the code's licence is Apache-2.0."]

def _size_sentences(row: dict) -> list[str]: # one or none; `row`: of the comparison
    "How large it is, and how long it was trained."
    if row.get("parameters") is None or row.get("training_seconds") is None: return []
    several = row.get("networks") not in (None, 1)
    networks = f", holds {int(row['networks'])} networks" if several else ""
    return [f"It has {counted(int(row['parameters']), 'parameter')}{networks} and was trained for "
            f"{counted(round(row['training_seconds']), 'second')}."]


# %%
print(*_model_details(small, "cnn", judged_row(small)), sep="\n")

# %% [markdown]
# The numbers are those at the run's threshold. A measure without a value is *undefined*.

# %%
#| export
_CARD_MEASURES = {"roc_auc": "AUROC", "sensitivity": "sensitivity", "specificity": "specificity",
                  "ppv": "PPV", "npv": "NPV", "accuracy": "accuracy", "brier": "Brier score"}

def _value(row: dict, key: str) -> str: # such as "0.9300 (0.908–0.950)"
    "A measure with its interval."
    limits = {f"{key}_low": None, f"{key}_high": None}
    text = value_with_interval(limits | row, key)
    return "undefined" if text == "–" else text

def _measure_rows(row: dict) -> list[dict]: # `row`: of the comparison
    "The measures of a model, a row each."
    return [{"measure": words, "value (95 % interval)": _value(row, key)}
            for key, words in _CARD_MEASURES.items() if key in row]


# %%
pd.DataFrame(_measure_rows(judged_row(small))).style.hide(axis="index")


# %%
#| export
def _groups(folder: Path, model: str) -> pd.DataFrame: # by, group, films, patients, measure, rate …
    "How the model did in groups of films; no row where that was not judged."
    file = folder/"metrics/evaluation_subgroups.csv"
    if not file.exists(): return pd.DataFrame(columns=["model", "by", "group"])
    groups = read_table(file, ["model", "by", "group", "films", "patients", "measure", "rate"])
    return groups[groups.model == model]

def _group_rows(groups: pd.DataFrame) -> list[dict]:
    "The groups for reading."
    return [{"by": row["by"], "group": kind_words(str(row["group"])), "films": f"{row['films']:,}",
             "patients": f"{row['patients']:,}", "measure": row["measure"],
             "value (95 % interval)": value_with_interval(row, "rate")} for row in groups.to_dict("records")]


# %%
test_eq([row["value (95 % interval)"] for row in _group_rows(_groups(small, "cnn"))],
        ["1.0000 (0.100–1.000)", "1.0000"])


# %%
#| export
def _training_data(folder: Path) -> list[str]:
    "What a model learned from, in words."
    splits, source = flow_counts(folder)["splits"], _about(folder)["Source"]
    named = [f"{_size_words(part)} in {split}" for split, part in splits.items() if split != "test"]
    return ["Models learn from train films, and validation films choose epoch, temperature or thresholds. "
            f"Recipes with folds learn from both. There are {in_list(named)}.", source]

def _evaluation_data(folder: Path, row: dict) -> list[str]: # `row`: from `judged_row`
    "What the model was judged on, in words."
    if not row: return ["The run has not been evaluated."]
    part = flow_counts(folder)["splits"].get(row["split"], dict(patients=0))
    films, patients = counted(row["films"], f"{row['split']} film"), counted(part["patients"], "patient")
    sick = counted(row["tp"] + row["fn"], "film")
    return [f"{films} of {patients}; {sick} with pneumonia. All are of the set that it learned from.",
            f"This run took {looks_in_words(folder)}."]


# %%
print(*_training_data(small), *_evaluation_data(small, judged_row(small)), sep="\n")
assert _evaluation_data(small, {}) == ["The run has not been evaluated."]

# %%
#| export
_USERS = "A person who reads films decides; the model's answer is at most one more opinion."
_SCOPE = ("Adults, films that are not frontal, any disease but pneumonia, and films from elsewhere, unless "
          "it was judged on some of them first.")
_METRICS = ("AUROC says how well films are ranked. The other measures count calls at the run's threshold of "
            "{threshold:g}, or take the probability at its word. Intervals let patients vary.")
_ADVICE = ("Judge it on films of your own before you believe it (`pneumo judge`). A packed model flags films "
           "unlike those it learned from; a flagged film is a person's.")
_ETHICS = dict(
    public="A wrong call could harm a child. The children and their families were not asked by this study.",
    phantoms="No child is concerned. The numbers must not be taken for those of real films.",
    own="A wrong call could harm a patient. Whether these films may be used so, their owner must know.")


# %%
#| export
def _caveats(row: dict) -> list[str]: # `row`: from `judged_row`
    "What to bear in mind, from the run's numbers where there are any."
    lines, before, after = [_ADVICE], row.get("validation_roc_auc"), row.get("roc_auc")
    if row.get("split") == "test" and before is not None and after is not None: lines.append(
        f"AUROC was {before:.4f} on validation and {after:.4f} on test.")
    if row.get("split") == "validation": lines.append(
        "There were no test films: validation had a say in the model, so its numbers are too kind.")
    return lines


# %%
test_eq(_caveats(judged_row(small))[1:], ["AUROC was 1.0000 on validation and 0.7500 on test."])


# %%
#| export
def model_card(
    folder: str | Path, # a run directory with images.csv
    model: str,         # a model that the run judged, or trained
) -> dict[str, list]: # heading → sentences, and tables as lists of rows
    "What must be known of a model before it is used."
    folder = Path(folder)
    row, groups, about = judged_row(folder, model), _groups(folder, model), _about(folder)
    by = f"Groups judged: {'; '.join(groups['by'].unique()) or 'none'}."
    missing = about["Not recorded"]
    metrics = [_METRICS.format(**row), _measure_rows(row)] if row else ["The run has not been evaluated."]
    return {"Model details": _model_details(folder, model, row), "Intended use": [INTENDED, _USERS],
            "Out of scope": [NOT_FOR, _SCOPE],
            "Factors": [by, f"Not recorded, so not judged: {missing[0].lower()}{missing[1:]}"],
            "Metrics": metrics, "Evaluation data": _evaluation_data(folder, row),
            "Training data": _training_data(folder),
            "Quantitative analyses": [_group_rows(groups)] if len(groups) else [by],
            "Ethical considerations": [_ETHICS[films_source(folder)]], "Caveats": _caveats(row)}


# %%
card = model_card(small, "cnn")
for heading, parts in card.items(): print(f"{heading}: {parts[0] if isinstance(parts[0], str) else ''}")
assert card["Metrics"][1][1]["value (95 % interval)"] == "1.0000 (0.400–1.000)"

# %% [markdown]
# ## The abstract
#
# It is written anew for each run, in the sections that STARD asks for, and holds for phantoms as well: then
# it says that it is no evidence.

# %%
#| export
_DESIGN = dict(
    public="Retrospective study of accuracy on a public set: films and labels were there before any model.",
    phantoms="Trial of the method on drawn phantoms. Nothing in it is evidence about real films.",
    own="Study of accuracy on films of the folder {folder}; how they were gathered is not known here.")
_REFERENCE = dict(
    public="The label of each film: two physicians graded it, and a third checked the evaluation set.",
    phantoms="What was drawn.", own="The label that came with each film; who gave it is not known here.")
_ENDS = dict(
    public="One hospital, labels from the same films, and test films that many have looked at before.",
    phantoms="Drawn films are not real ones, and their numbers cannot be carried over.",
    own="What the films cannot show, such as another hospital, the numbers cannot say.")


# %%
#| export
def _films_words(folder: Path) -> str: # sentences
    "The films of a run, for an abstract."
    counts = flow_counts(folder)
    parts = [f"{_size_words(part)} for {'training' if split == 'train' else split}"
             for split, part in counts["splits"].items()]
    left_out = sum(counts["left_out"].values())
    out = f" {counted(left_out, 'film').capitalize()} could not be used." if left_out else ""
    shares = [f"{part['pneumonia'] / part['films']:.1%} of the {split} films"
              for split, part in counts["splits"].items()]
    return (f"{_size_words(counts['kept'])}: {in_list(parts)}. Pneumonia is on {in_list(shares)}.{out}")


# %%
print(_films_words(small))


# %%
#| export
def _analysis_words(folder: Path, facts: dict) -> str: # `facts`: of the evaluation
    "How the numbers were made, for an abstract."
    evaluation = read_provenance(folder)["stages"].get("evaluation", {})
    draws = evaluation.get("parameters", {}).get("draws")
    redrawn = f"by redrawing patients {draws:,} times" if draws else "by redrawing patients"
    pairs = (" Pairs of models were compared after DeLong and by exact tests, corrected after Holm."
             if len(facts["comparison"]) > 1 else "")
    return f"Intervals of 95 % let patients vary: after DeLong for AUROC, else {redrawn}.{pairs}"

def _result_words(row: dict) -> str: # `row`: from `judged_row`
    "The main numbers, for an abstract."
    sick, well = row["tp"] + row["fn"], row["fp"] + row["tn"]
    films = counted(row["films"], f"{row['split']} film")
    return (f"On {films}, {sick:,} with pneumonia and {well:,} normal, AUROC was {_value(row, 'roc_auc')}. "
            f"At the threshold of {row['threshold']:g} sensitivity was {_value(row, 'sensitivity')} and "
            f"specificity {_value(row, 'specificity')}.")


# %%
print(_analysis_words(small, read_json(small/"metrics/evaluation.json")))
print(_result_words(judged_row(small)))

# %%
#| export
_OBJECTIVE = ("To find out whether a network can tell from a frontal chest film that a child has pneumonia, "
              "and how sure its answer is.")
_ONLY = "Only {title} was judged."
_BEST = ("Of {count} models {title} had the highest AUROC on the films judged, so its numbers are a little "
         "too kind.")
_INDEX = " It gives a probability; from {threshold:g} on, a film is called pneumonia."

def _judged_parts(folder: Path) -> list[tuple[str, str]]: # heading, sentences
    "The sections of an abstract that need an evaluation."
    facts, row = facts_of(folder, "metrics/evaluation.json"), judged_row(folder)
    if not row: return [("Results", "The run has not been evaluated.")]
    count = len(facts["comparison"])
    index = ((_BEST if count > 1 else _ONLY) + _INDEX).format(
        title=title_with_remark(row), count=count, threshold=row["threshold"])
    return [("Index test", index), ("Reference standard", _REFERENCE[films_source(folder)]),
            ("Analysis", _analysis_words(folder, facts)), ("Results", _result_words(row))]


# %%
#| export
def abstract(
    folder: str | Path, # a run directory
) -> list[tuple[str, str]]: # heading, sentences; none of a run without films
    "The run in a structured abstract."
    folder = Path(folder)
    if not (folder/"images.csv").exists(): return []
    source, name = films_source(folder), Path(facts_of(folder, "metrics/data.json").get("root", "")).name
    ends = f"{_ENDS[source]} This run took {looks_in_words(folder)}. None of this is a medical device."
    return [("Objective", _OBJECTIVE), ("Design", _DESIGN[source].replace("{folder}", name)),
            ("Films and patients", _films_words(folder)), *_judged_parts(folder), ("Limits", ends),
            ("Registration and funding", "Nothing is on record.")]


# %%
for heading, text in abstract(small): print(f"{heading}. {text}\n")
words = " ".join(text for _, text in abstract(small))
assert "0.7500 (0.500–0.900)" in words and "specificity 0.5000." in words
assert not re.search(r"\bnan\b|None(?! of)|[a-z]_[a-z]|\{", words)
temporary.cleanup()
