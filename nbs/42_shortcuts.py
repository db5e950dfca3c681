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
# # Does the answer hang on the lung?
#
# > What moves the models' answers although no lung was touched: text, markers, frames, gray levels

# %%
#| default_exp shortcuts

# %%
#| export
from dataclasses import dataclass
from functools import partial
from textwrap import fill
from typing import Callable

import keras
import numpy as np
import pandas as pd

from pneumo_nb.run import StudyError, rng_for
from pneumo_nb.style import (
    WORDS, in_list, model_style, model_title, p_text, readable, value_with_interval)
from pneumo_nb.cache import Films, take
from pneumo_nb.measures import auroc, auroc_interval, flat_intervals, holm, logit, paired_tests
from pneumo_nb.views import (
    painted_over, pasted, shape_gaps, swapped_bands, swapped_frames, swapped_levels, swapped_shape)

# %%
#| hide
from fastcore.test import test_close, test_eq, test_fail
from IPython.display import Markdown, display
from pneumo_nb.run import finish, look, note, open_stage, read_json, write_csv, write_json
from pneumo_nb.style import counted, plot_style, save_figure
from pneumo_nb.data import load_images
from pneumo_nb.eda import load_burnt_in
from pneumo_nb.preprocessing import load_films
from pneumo_nb.mlp import train_quick
from pneumo_nb.evaluation import load_predictions, test_films
from pneumo_nb.xai import load_models
plot_style()

# %% tags=["parameters"]
run_dir = ""  # the run directory; "" for a temporary one
seed = 42     # decides which film lends what to which
films = 0     # films that are altered, of patients drawn by the seed; 0: all

# %%
#| export
RANGES = {
    "films": "whole number from 0 to 100000",
}

# %%
#| export
STAGE = {
    "reads": ["predictions/*.csv", "models/*.keras", "images.csv", "appearance.csv", "burnt_in.csv",
              "metrics/data.json", "metrics/evaluation.json"],
    "writes": ["metrics/shortcuts.csv", "metrics/shortcuts.json"],
    "card": ["shortcuts_auroc"],
}


# %% [markdown]
# A model may tell pneumonia from normal by signs that are no disease: text that a machine burnt in, a side
# marker, how a film was cut, how dark or sharp it is. The chapter on exploration shows how much such signs
# alone give away. This chapter asks which of them each model **uses**. It alters films where there is no
# lung, asks every model again, and looks at what happens to the answers.
#
# An answer that moves says that the model uses what was altered. An answer that stays says so only of this
# alteration. An alteration may also disturb a model merely because such films do not occur. So films get the
# frame of a film of the **same** class as well: only what the other class's frame does beyond that speaks for
# a shortcut.
#
# ## Films
#
# Films that the models are judged on are altered: test, or validation where there is no test. Where fewer are
# asked for, patients are drawn, each with all of their films.

# %%
#| export
def _films_asked(
    images: pd.DataFrame, # split, patient_id
    split: str,
    count: int,           # films, about; 0: all
    seed: int,
) -> np.ndarray: # (n,) rows of `images`
    "The films to alter: as many patients in random order as are needed for so many films."
    rows = np.flatnonzero(images.split == split)
    if not len(rows): raise StudyError(f"Expected {split} films in images.csv, found none; "
                                       "run the models of this run again on its films.")
    if not count or count >= len(rows): return rows
    patients = images.patient_id.to_numpy()[rows]
    order = rng_for(seed, "altered patients").permutation(pd.unique(patients))
    films_of = pd.Series(patients).value_counts()[order].cumsum()
    return rows[np.isin(patients, order[:int((films_of < count).sum()) + 1])]


# %%
made_up = pd.DataFrame(dict(split=["train", *["test"] * 6], patient_id=list("zaabbcc")))
test_eq(_films_asked(made_up, "test", 0, 1), range(1, 7))
drawn = _films_asked(made_up, "test", 3, 1)
test_eq(made_up.patient_id[drawn].value_counts().tolist(), [2, 2])   # of two patients all films
test_fail(lambda: _films_asked(made_up, "validation", 0, 1), contains="Expected validation films")


# %% [markdown]
# ## Alterations
#
# Text and markers are painted over where the exploration found them. A painted place shows no text, but it is
# smooth, and so it may give away what was there. So **every** film is painted over: one without text where a
# random film of the run has its text. Only then does the place say nothing about the class.
#
# Text is also pasted onto every film, of both classes alike, each time that of a random film of the run. That
# hides what text says.

# %%
#| export
def _boxes(
    films: Films,
    places: pd.DataFrame, # from `load_burnt_in`
    kind: str,            # "text" or "marker"
) -> list[list[tuple]]: # for each film its boxes, x, y, w, h
    "Where text or markers are on each film."
    of_path = places[places.kind == kind].groupby("path")[["x", "y", "w", "h"]]
    boxes = {path: list(rows.itertuples(index=False, name=None)) for path, rows in of_path}
    return [boxes.get(path, []) for path in films.images.path]


# %%
pair = Films(pd.DataFrame(dict(path=["a", "b"], label=[0, 1])), np.full((2, 64, 64), 90, np.uint8))
pair.pixels[1, 50:54, 40:60] = 240
one_text = pd.DataFrame([dict(path="b", kind="text", x=.6, y=.75, w=.36, h=.1)])
test_eq(_boxes(pair, one_text, "text"), [[], [(.6, .75, .36, .1)]])
test_eq(_boxes(pair, one_text, "marker"), [[], []])


# %%
#| export
def _without(kind: str, films: Films, rows: np.ndarray, places: pd.DataFrame, seed: int) -> list[np.ndarray]:
    "Text or markers painted over; on films that have none, the places of a random film that has some."
    boxes, pixels = _boxes(films, places, kind), take(films.pixels, rows)
    if not any(boxes[row] for row in rows): return []
    donors = np.flatnonzero([len(of_film) > 0 for of_film in boxes])
    lent = rng_for(seed, "paint over", kind).choice(donors, len(rows))
    return [np.stack([painted_over(film, boxes[row] or boxes[donor])
                      for film, row, donor in zip(pixels, rows, lent)])]


# %%
both = np.arange(2)
test_eq(_without("marker", pair, both, one_text, 1), [])
[cleaned] = _without("text", pair, both, one_text, 1)
assert pair.pixels[1].max() == 240 and cleaned.max() < 95


# %%
#| export
def _with_text(films: Films, rows: np.ndarray, places: pd.DataFrame, seed: int) -> list[np.ndarray]:
    "The text of a random other film of the run, pasted on."
    boxes, rng = _boxes(films, places, "text"), rng_for(seed, "paste text")
    donors = np.flatnonzero([len(of_film) > 0 for of_film in boxes])
    if not len(donors): return []
    def paste(row):
        others = donors[donors != row]
        donor = rng.choice(others if len(others) else donors)
        film, other = take(films.pixels, np.array([row, donor]))
        return pasted(film, other, boxes[donor])
    return [np.stack([paste(row) for row in rows])]


# %%
test_eq(_with_text(pair, both, one_text[:0], 1), [])
[written] = _with_text(pair, both, one_text, 1)
test_eq([written[0, 51, 50], written[0, :30].max()], [240, 90])


# %% [markdown]
# The frame, the gray levels, the sharpness and the shape are those of a random film of the other class, as
# the chapter on views has it. They need films of both classes. Where the classes do not differ in gray
# levels, sharpness or frame, a film of the other class lends what its own would, and nothing is added. The
# shape is stretched by the gap that the originals of these films have, or the study's where none can be
# measured, in both directions; the lower AUROC counts.

# %%
#| export
def _swapped(swap, films: Films, rows: np.ndarray, places: pd.DataFrame, seed: int) -> list[np.ndarray]:
    "A property of films of the other class."
    return [swap(films, rows, seed)] if len(np.unique(films.labels[rows])) == 2 else []

def _shape(films: Films, rows: np.ndarray, places: pd.DataFrame, seed: int) -> list[np.ndarray]:
    "The shape of the other class, in either direction."
    if len(np.unique(films.labels[rows])) < 2: return []
    return [swapped_shape(films, rows, gap) for gap in shape_gaps(films.images.iloc[rows])]


# %%
test_eq(_swapped(swapped_levels, pair, both[:1], one_text, 1), [])
test_eq(len(_shape(pair, both, one_text, 1)), 2)   # versions


# %% [markdown]
# All alterations stand in one table. Another one is one more entry; table, figure and sentences follow.

# %%
#| export
@dataclass(frozen=True)
class Alteration:
    "A way of altering films without touching the lung."
    title: str
    alter: Callable   # films, rows, places, seed → versions (n, S, S) uint8; none where it cannot be done
    why_not: str      # why it cannot be done, where it cannot
    kind: str = ""    # what it takes away, "text" or "marker"; it concerns films that have that, "" all
    control: str = "" # the alteration that disturbs films as much without misleading

_NO_TEXT, _ONE_CLASS = "no text found", "films of one class only"

ALTERATIONS = {
    "text_over": Alteration("text painted over", partial(_without, "text"), _NO_TEXT, "text"),
    "markers_over": Alteration("markers painted over", partial(_without, "marker"), "no marker found",
                               "marker"),
    "text_pasted": Alteration("text pasted onto every film", _with_text, _NO_TEXT),
    "frame_same": Alteration("frame of the same class", partial(
        _swapped, partial(swapped_frames, same_class=True)), _ONE_CLASS),
    "frame_other": Alteration("frame of the other class", partial(_swapped, swapped_frames), _ONE_CLASS,
                              control="frame_same"),
    "levels": Alteration("gray levels of the other class", partial(_swapped, swapped_levels), _ONE_CLASS),
    "sharpness": Alteration("sharpness of the other class", partial(_swapped, swapped_bands), _ONE_CLASS),
    "shape": Alteration("shape of the other class", _shape, _ONE_CLASS),
}

# %%
titles = pd.DataFrame(dict(alteration=[alteration.title for alteration in ALTERATIONS.values()]))
titles.style.hide(axis="index")


# %% [markdown]
# ## Asking again
#
# Each model is asked about the films as they are and about every version of them.

# %%
#| export
def _answers(
    network: keras.Model,
    pixels: np.ndarray, # (n, S, S) uint8
) -> np.ndarray: # (n,) probability of pneumonia
    "A model's answers."
    return network.predict(pixels[..., None], batch_size=32, verbose=0)[:, 0].astype(float)


# %% [markdown]
# What an alteration does has four sides:
#
# - the mean change of the **log odds** of pneumonia, for normal and for pneumonia films apart; a change in
#   one direction for both need not hurt the ranking;
# - the share of **calls** that turn at the run's threshold;
# - the **AUROC** over all films, with its interval;
# - its difference to that of the films as they are, with DeLong's interval for pairs, patients being
#   independent.
#
# The first two are over the films that an alteration concerns. Where text or markers are painted over, these
# are the films that have some; otherwise it is all.

# %%
#| export
def _mean(values: np.ndarray) -> float: # NaN of none
    return float(values.mean()) if len(values) else float("nan")

def _moved(
    table: pd.DataFrame,    # label
    before: np.ndarray,     # (n,) probabilities
    after: np.ndarray,      # (n,)
    is_concerned: np.ndarray, # (n,) bool
    threshold: float,
) -> dict: # concerned, odds_normal, odds_pneumonia, turned
    "How far the answers to some films moved."
    change, label = logit(after) - logit(before), table.label.to_numpy()
    turned = (before >= threshold) != (after >= threshold)
    return dict(concerned=int(is_concerned.sum()), odds_normal=_mean(change[is_concerned & (label == 0)]),
                odds_pneumonia=_mean(change[is_concerned & (label == 1)]), turned=_mean(turned[is_concerned]))


# %%
four = pd.DataFrame(dict(path=list("abcd"), patient_id=list("abcd"), label=[0, 0, 1, 1]))
before, after = np.array([.2, .3, .6, .9]), np.array([.2, .6, .4, .9])
moved = _moved(four, before, after, np.array([False, True, True, False]), .5)
test_eq((moved["concerned"], moved["turned"]), (2, 1))
test_close(moved["odds_normal"], logit(.6) - logit(.3))


# %%
#| export
def _auroc_facts(table: pd.DataFrame, probability: np.ndarray) -> dict: # roc_auc, roc_auc_low, roc_auc_high
    "AUROC of some answers with its interval; NaN with one class."
    names = ("roc_auc", "roc_auc_low", "roc_auc_high")
    if table.label.nunique() < 2: return dict.fromkeys(names, float("nan"))
    interval = auroc_interval(table.assign(probability=probability))
    return dict(roc_auc=auroc(table.label, probability)) | flat_intervals(dict(roc_auc=interval))


# %%
#| export
def _difference(
    table: pd.DataFrame, # path, label, patient_id
    after: np.ndarray,   # (n,) probabilities
    before: np.ndarray,  # (n,)
    key: str,            # of the columns
) -> dict: # KEY, KEY_low, KEY_high, KEY_p
    "Difference of two AUROCs of the same films, after less before."
    answers = dict(after=table.assign(probability=after), before=table.assign(probability=before))
    pair = paired_tests(answers, .5, draws=40).iloc[0]   # no use is made of the draws
    return {key: pair.auroc_difference, f"{key}_p": pair.p_auroc} | flat_intervals(
        {key: (pair.auroc_low, pair.auroc_high)})


# %%
test_eq(_difference(four, before, before, "lost")["lost"], 0)
test_close(_difference(four, after, before, "lost")["lost"], _auroc_facts(four, after)["roc_auc"] - 1)


# %% [markdown]
# Of several versions the one with the lowest AUROC counts. An alteration that cannot be done has no numbers,
# and its row says why.

# %%
#| export
def _worst_answers(
    network: keras.Model,
    versions: list,    # of films, (n, S, S) uint8 each
    label: np.ndarray, # (n,)
) -> np.ndarray: # (n,)
    "The answers to the version with the lowest AUROC."
    answers = [_answers(network, pixels) for pixels in versions]
    return answers[0] if len(answers) == 1 else min(answers, key=partial(auroc, label))


# %%
#| export
@dataclass(frozen=True)
class Altered:
    "What an alteration made of some films."
    versions: list[np.ndarray] # (n, S, S) uint8 each; none where it cannot be done
    concerned: np.ndarray      # (n,) bool, the films that it concerns


# %%
#| export
def altered_films(
    films: Films,         # of one size
    rows: np.ndarray,     # (n,) which films
    places: pd.DataFrame, # from `load_burnt_in`
    seed: int,
) -> dict[str, Altered]: # by alteration
    "The films in every alteration."
    def altered(alteration):
        carried = _boxes(films, places, alteration.kind)
        concerned = np.array([not alteration.kind or len(carried[row]) > 0 for row in rows])
        return Altered(alteration.alter(films, rows, places, seed), concerned)
    return {name: altered(alteration) for name, alteration in ALTERATIONS.items()}


# %%
made = altered_films(pair, both, one_text, 1)
test_eq(made["text_over"].concerned, [False, True])
test_eq(made["text_pasted"].concerned, [True, True])
test_eq(len(made["markers_over"].versions), 0)


# %%
#| export
def _row(
    name: str,                      # of the alteration
    films: Altered,
    table: pd.DataFrame,            # path, label, patient_id
    answers: dict[str, np.ndarray], # to the films as they are, "", and in each alteration
    threshold: float,
) -> dict:
    "What one alteration does; why it cannot be done, where it cannot."
    alteration, before, after = ALTERATIONS[name], answers[""], answers.get(name)
    row = dict(alteration=name, films=len(table))
    if after is None: return row | dict(concerned=0, remark=alteration.why_not)
    row |= _moved(table, before, after, films.concerned, threshold) | _auroc_facts(table, after)
    row |= _difference(table, after, before, "change")
    if alteration.control: row |= _difference(table, after, answers[alteration.control], "misled")
    return row | dict(remark="")


# %%
#| export
def alteration_rows(
    network: keras.Model,        # (n, S, S, 1) gray 0-255 → (n, 1) probability of pneumonia
    pixels: np.ndarray,          # (n, S, S) uint8, films as they are
    altered: dict[str, Altered], # from `altered_films`
    table: pd.DataFrame,         # path, label, patient_id of the films
    threshold: float,
) -> list[dict]: # a row for the films as they are, alteration "", and one for each alteration
    "What every alteration does to one model's answers."
    before, label = _answers(network, pixels), table.label.to_numpy()
    answers = {"": before} | {name: _worst_answers(network, films.versions, label)
                              for name, films in altered.items() if films.versions}
    first = dict(alteration="", films=len(table), concerned=0, remark="") | _auroc_facts(table, before)
    return [first, *(_row(name, films, table, answers, threshold) for name, films in altered.items())]


# %% [markdown]
# A network that knows nothing but the mean gray of a corner answers by the text that stands there:

# %%
inputs = keras.Input((64, 64, 1))
corner = keras.layers.GlobalAveragePooling2D()(keras.layers.Cropping2D(((48, 4), (36, 4)))(inputs))
reader = keras.Model(inputs, keras.layers.Lambda(lambda x: keras.ops.sigmoid(x - 110.))(corner))
of_pair = pd.DataFrame(dict(path=["a", "b"], patient_id=["a", "b"], label=[0, 1]))
of_toy = {name: made[name] for name in ("text_over", "markers_over")}
toy_rows = alteration_rows(reader, pair.pixels, of_toy, of_pair, .5)
test_eq([row.get("roc_auc") for row in toy_rows][::2], [1., None])
assert toy_rows[1]["concerned"] == 1 and toy_rows[1]["odds_pneumonia"] < -5
test_eq(toy_rows[2]["remark"], "no marker found")

# %% [markdown]
# Many models and alterations are many chances to find something, so p-values are corrected over all of them.

# %%
#| export
_NUMBERS = ["roc_auc", "roc_auc_low", "roc_auc_high", "odds_normal", "odds_pneumonia", "turned",
            *(f"{key}{side}" for key in ("change", "misled") for side in ("", "_low", "_high", "_p"))]


# %%
#| export
def with_corrected(
    table: pd.DataFrame, # rows of `alteration_rows` of all models
) -> pd.DataFrame: # with every column, and change_p_holm and misled_p_holm
    "The table with p-values corrected over all models and alterations."
    table = table.reindex(columns=["model", "alteration", "films", "concerned", *_NUMBERS, "remark"])
    p = np.concatenate([table.change_p, table.misled_p])
    corrected, is_test = np.full(len(p), np.nan), p == p
    corrected[is_test] = holm(p[is_test])
    return table.assign(change_p_holm=corrected[:len(table)], misled_p_holm=corrected[len(table):])


# %%
toy_table = with_corrected(pd.DataFrame(toy_rows).assign(model="reader"))
assert toy_table.change_p_holm.notna().tolist() == [False, True, False]

# %% [markdown]
# ## The models of this run
#
# Answers are those of the saved models, `models/*.keras`. Models that take films of one size share the
# altered films.

# %%
stage = open_stage("shortcuts", run_dir, seed=seed, films=films)
if not list(stage.path("predictions").glob("*.csv")): train_quick(stage)
predictions = load_predictions(stage)
networks = load_models(stage, list(predictions))
left_out = [name for name in predictions if name not in networks]
if left_out: note(stage, f"{in_list(left_out)}: no saved model, so there are predictions, but nobody to ask.")
split, _ = test_films(predictions)
images = load_images(stage, seed)
places, rows = load_burnt_in(stage, images, seed), _films_asked(images, split, films, seed)
if split == "test": look(stage, f"answers of {counted(len(networks), 'model')} to altered films")
else: note(stage, "there are no test films, so validation films are altered; some networks have learned from "
                  "them.")
file = stage.path("metrics/evaluation.json")
evaluation = read_json(file) if file.exists() else {}
threshold, best = evaluation.get("threshold", .5), evaluation.get("best")
if best not in networks:
    best = next(iter(networks))
    note(stage, f"evaluation names no best model of these, so {best} stands first, and calls are cut at "
                f"{threshold:g}.")
patients = images.patient_id.iloc[rows].nunique()
print(f"{counted(len(rows), f'{split} film')} of {counted(patients, 'patient')}, threshold {threshold:g}")

# %%
judged, made = images.iloc[rows][["path", "label", "patient_id"]], {}
for size in sorted({network.input_shape[1] for network in networks.values()}):
    of_size = load_films(stage, size, seed)
    pixels, altered = take(of_size.pixels, rows), altered_films(of_size, rows, places, seed)
    for name, network in networks.items():
        if network.input_shape[1] != size: continue
        made[name] = [dict(model=name) | row
                      for row in alteration_rows(network, pixels, altered, judged, threshold)]
table = with_corrected(pd.DataFrame([row for name in networks for row in made[name]]))
write_csv(stage.path("metrics/shortcuts.csv"), table)

# %% [markdown]
# ## What moves the answers
#
# First the best model in full. An alteration that concerns few films can change an AUROC but little, however
# much the model hangs on it.

# %%
#| export
_DASH, _AS_THEY_ARE = "–", "films as they are"

def _title(name: str) -> str:
    "What an alteration is called; none are the films as they are."
    return ALTERATIONS[name].title if name else _AS_THEY_ARE

def _number(value: float, form: str) -> str:
    "A number for reading; a dash where there is none."
    return _DASH if value != value else format(value, form)


# %%
#| export
def _shown_row(row: dict) -> dict: # of `with_corrected`
    "A row of the table for reading."
    difference = _DASH
    if row["change"] == row["change"]:
        has_interval = row["change_low"] == row["change_low"]
        between = f" ({row['change_low']:+.3f} to {row['change_high']:+.3f})" if has_interval else ""
        difference = f"{row['change']:+.4f}{between}"
    return dict(
        alteration=_title(row["alteration"]), concerned=row["concerned"] or "", **{
            "log odds, normal": _number(row["odds_normal"], "+.2f"),
            "log odds, pneumonia": _number(row["odds_pneumonia"], "+.2f"),
            "calls turned": _number(row["turned"], ".1%"),
            WORDS["roc_auc"]: value_with_interval(row, "roc_auc"), "AUROC, difference": difference})


# %%
#| export
def shown_table(
    table: pd.DataFrame, # from `with_corrected`
    model: str,
) -> pd.DataFrame: # text: a row for the films as they are, and one for each alteration that could be done
    "One model's table for reading."
    rows = table[(table.model == model) & (table.remark == "")]
    return readable(pd.DataFrame([_shown_row(row) for row in rows.to_dict("records")]))


# %%
toy_shown = shown_table(toy_table, "reader")
test_eq(toy_shown["alteration"].tolist(), ["films as they are", "text painted over"])

# %%
caption = (f"{model_title(best)}, {counted(len(rows), f'{split} film')}. Log odds of pneumonia and calls: "
           "over the films concerned; AUROC: over all, with 95 % intervals")
shown_table(table, best).style.hide(axis="index").set_caption(caption)


# %% [markdown]
# Then the AUROC of every model, the best first. Intervals are in the figure, everything else in
# `metrics/shortcuts.csv`.

# %%
#| export
def auroc_by_model(
    table: pd.DataFrame, # from `with_corrected`
    best: str,           # the model that stands first
) -> pd.DataFrame: # text: a row an alteration, a column a model
    "AUROC in every alteration that could be done, for reading."
    asked = table[table.remark == ""]
    wide = asked.pivot(index="alteration", columns="model", values="roc_auc")
    names = sorted(asked.model.unique(), key=lambda name: name != best)
    wide = wide.loc[asked.alteration.unique(), names].map(lambda value: _number(value, ".3f"))
    return wide.rename(index=_title, columns=model_title).rename_axis(columns=None).reset_index()


# %%
test_eq(auroc_by_model(toy_table, "reader").reader.iloc[0], "1.000")
auroc_by_model(table, best).style.hide(axis="index")


# %% [markdown]
# [The figure](#fig-shortcuts_auroc) shows the AUROCs. Compare each alteration with the films as they are, and
# the frame of the other class with that of the same class.

# %%
#| export
def _plot_alterations(
    table: pd.DataFrame, # from `with_corrected`
): # matplotlib Figure
    "AUROC of every model as films are and in every alteration, with intervals."
    import matplotlib.pyplot as plt
    names = list(dict.fromkeys(table.model))
    keys = [name for name in ["", *ALTERATIONS] if table.roc_auc[table.alteration == name].notna().any()]
    figure, ax = plt.subplots(figsize=(5.4, 1.6 + len(keys) * (.3 + .11 * len(names))))
    for n, name in enumerate(names):
        rows = table[table.model == name].set_index("alteration").reindex(keys)
        lift = .64 * (n / (len(names) - 1) - .5) if len(names) > 1 else 0
        error = [(rows.roc_auc - rows.roc_auc_low).fillna(0), (rows.roc_auc_high - rows.roc_auc).fillna(0)]
        ax.errorbar(rows.roc_auc, np.arange(len(keys)) + lift, xerr=error, fmt="os^Dv*"[n % 6], ms=5, lw=1,
                    color=model_style(name)["color"], label=model_title(name))
    ax.set(yticks=range(len(keys)), yticklabels=[fill(_title(key), 16) for key in keys], xlabel="AUROC")
    for place in np.arange(len(keys) - 1) + .5: ax.axhline(place, color="#dddddd", lw=1)
    ax.grid(axis="x", color="#dddddd")
    ax.invert_yaxis()
    figure.legend(loc="outside lower center", ncols=2)
    return figure


# %%
if table.roc_auc.notna().any():
    save_figure(stage, _plot_alterations(table), "shortcuts_auroc",
                f"AUROC on {split} films as they are and altered, with 95 % intervals.",
                "Dots with intervals for each model: the AUROC on films as they are, and below in every "
                "alteration. The numbers are in the table and in metrics/shortcuts.csv.")
else: print("All films judged are of one class, so there is no AUROC to show.")

# %% [markdown]
# ## What it comes to

# %%
#| export
_FINDINGS = dict(
    most="- {Title} costs **{name}** most: its AUROC goes from {before:.3f} to **{roc_auc:.3f}** "
         "({change:+.3f}, p {p}), and {turned:.1%} of its calls turn.",
    least="- No alteration lowers the AUROC of **{name}** by more than chance. It is lowest with {title}: "
          "{roc_auc:.3f} instead of {before:.3f}.",
    hang="- Hanging on the frame: {}. The frame of the other class lowers the AUROC by more than chance "
         "below what a frame of the same class leaves.",
    free="- In the frame of the other class no model ranks films worse, by more than chance, than in a frame "
         "of the same class.",
    text="- Text pasted onto every film moves the log odds of **{name}** by {odds_normal:+.2f} on normal and "
         "by {odds_pneumonia:+.2f} on pneumonia films.",
    missing="- Not asked: {}.")


# %%
#| export
def _lowered(rows: pd.DataFrame, key: str) -> pd.DataFrame:
    "Rows whose AUROC is lower by more than chance; `key` says lower than what."
    return rows[(rows[key] < 0) & (rows[f"{key}_p_holm"] < .05)]


# %%
#| export
def _best_findings(rows: pd.DataFrame, name: str) -> list[str]: # `rows`: of one model
    "Which alteration costs a model most, and what text does."
    before, asked = rows.roc_auc[rows.alteration == ""].iloc[0], rows[rows.change.notna()]
    if asked.empty: return []
    lowered = _lowered(asked, "change")
    row = (asked if lowered.empty else lowered).sort_values("change", kind="stable").iloc[0].to_dict()
    title = _title(row["alteration"])
    facts = row | dict(name=name, before=before, title=title, Title=title[0].upper() + title[1:],
                       p=p_text(row["change_p_holm"]))
    text = asked[asked.alteration == "text_pasted"].to_dict("records")
    return [_FINDINGS["least" if lowered.empty else "most"].format(**facts),
            *(_FINDINGS["text"].format(name=name, **row) for row in text)]


# %%
#| export
def _frame_findings(rows: pd.DataFrame) -> list[str]: # `rows`: of all models, frame of the other class
    "Which models hang on the frame."
    if rows.misled.isna().all(): return []
    lowered = _lowered(rows, "misled").sort_values("misled", kind="stable")
    hanging = [f"{model_title(row.model)} ({row.misled:+.3f}, p {p_text(row.misled_p_holm)})"
               for row in lowered.itertuples()]
    return [_FINDINGS["hang"].format(in_list(hanging))] if hanging else [_FINDINGS["free"]]


# %%
#| export
def shortcut_findings(
    table: pd.DataFrame, # from `with_corrected`
    best: str,           # the model that leads
) -> list[str]: # markdown lines
    "What the table comes to."
    of_best = table[table.model == best]
    missing = [f"{_title(row.alteration)} ({row.remark})" for row in of_best.itertuples() if row.remark]
    return [*_best_findings(of_best, model_title(best)),
            *_frame_findings(table[table.alteration == "frame_other"]),
            *([_FINDINGS["missing"].format(in_list(missing))] if missing else [])]


# %%
asked = dict(model="a", roc_auc=.9, odds_normal=.5, odds_pneumonia=.25, turned=.125, remark="")
by_hand = pd.DataFrame([
    asked | dict(alteration=""), asked | dict(alteration="text_over", remark="no text found", roc_auc=np.nan),
    asked | dict(alteration="frame_other", roc_auc=.7, change=-.2, change_p_holm=.01, misled=-.15,
                 misled_p_holm=.02)])
test_eq(shortcut_findings(by_hand, "a"), [
    "- Frame of the other class costs **a** most: its AUROC goes from 0.900 to **0.700** (-0.200, p 0.01), "
    "and 12.5% of its calls turn.",
    "- Hanging on the frame: a (-0.150, p 0.02). The frame of the other class lowers the AUROC by more than "
    "chance below what a frame of the same class leaves.", "- Not asked: text painted over (no text found)."])
by_chance = by_hand.assign(change_p_holm=.3, misled_p_holm=.3)
assert shortcut_findings(by_chance, "a")[0].endswith("of the other class: 0.700 instead of 0.900.")
assert shortcut_findings(by_chance, "a")[1].startswith("- In the frame of the other class no model")

# %%
display(Markdown("\n".join(shortcut_findings(table, best))))

# %%
facts = dict(split=split, threshold=threshold, best=best, films=len(rows),
             patients=patients,
             alterations={name: alteration.title for name, alteration in ALTERATIONS.items()})
write_json(stage.path("metrics/shortcuts.json"), facts | dict(rows=table.to_dict("records")))
record = finish(stage)
