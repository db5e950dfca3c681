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
# # Exploration
#
# > What the films look like before any model sees them, and what their looks alone give away

# %%
#| default_exp eda

# %%
#| export
from pathlib import Path

import numpy as np
import pandas as pd

from pneumo_nb.run import Stage, look, note, write_csv
from pneumo_nb.style import CLASS_NAMES, COLOURS, counted, in_list, value_with_interval
from pneumo_nb.films import read_film, with_series
from pneumo_nb.cache import decode_films
from pneumo_nb.measures import holm, is_above_chance, logit, proportion_interval
from pneumo_nb.appearance import (
    BURNT_IN, SMALL_SIDE, TALL_MARKER, appearance_scores, carried_over, features_without_lungs, measure_films,
    overlap_weights, separation, without_lungs)

# %%
#| hide
import io, tempfile
from contextlib import redirect_stdout
from fastcore.test import test_eq, test_fail
from IPython.display import Markdown, display
from pneumo_nb.run import finish, open_stage, read_provenance, write_json
from pneumo_nb.style import plot_style, readable, save_figure
from pneumo_nb.films import sample_films
from pneumo_nb.measures import auroc
from pneumo_nb.appearance import size_baseline
from pneumo_nb.data import load_images
plot_style()

# %% tags=["parameters"]
run_dir = ""         # the run directory; "" for a temporary one
seed = 42            # decides which films are shown, and the folds of what is predicted from size and looks
films_per_class = 5  # in the grid of sample films

# %%
#| export
RANGES = {
    "films_per_class": "whole number from 1 to 50",
}

# %%
#| export
STAGE = {
    "reads": ["images.csv", "metrics/data.json"],
    "writes": ["appearance.csv", "burnt_in.csv", "metrics/eda_*.json", "metrics/without_lungs.csv"],
    "card": ["eda_samples"],
}

# %% [markdown]
# Could a model be right about these films for the wrong reason? Before any network is trained, this chapter
# looks at three things. How many films there are of each class decides what an accuracy means. What they look
# like decides what is hard. And how they were taken (their size, their gray levels, the letter that marks the
# side) may give the class away without any sign of disease.
#
# The last sounds dull and is not. If the sick were photographed in another format than the healthy, then
# squashing everything to one square leaves a **shortcut**. A network could tell the classes apart by how
# stretched a chest looks, and never see a lung.

# %%
stage = open_stage("eda", run_dir, seed=seed, films_per_class=films_per_class)
images = load_images(stage, seed)
is_drawn = images.attrs["source"] == "phantoms"
print(f"{len(images):,} films" + (", drawn phantoms" if is_drawn else ""))


# %% [markdown]
# ## How many
#
# The first table counts the films by the folder that they lie in.

# %%
#| export
def _count_table(
    images: pd.DataFrame, # with `label`
    split: pd.Series,     # the split of each film
) -> pd.DataFrame: # a row a split, columns NORMAL, PNEUMONIA, total
    "Films by split and class."
    names = images.label.map(dict(enumerate(CLASS_NAMES)))
    table = pd.crosstab(split.rename("split"), names.rename("class"))
    table = table.reindex(columns=CLASS_NAMES, fill_value=0)
    order = [s for s in ("train", "val", "validation", "test") if s in table.index]
    return table.loc[order].assign(total=table.sum(axis=1))


# %%
three = pd.DataFrame(dict(label=[0, 1, 1]))
test_eq(_count_table(three, pd.Series(["train", "train", "test"])).to_numpy(), [[1, 1, 2], [0, 1, 1]])
_count_table(images, images.published).style.format("{:,}")

# %% [markdown]
# The second counts this run's own split, in which validation was cut from train by whole patients. [The
# figure](#fig-eda_counts) draws it.

# %%
counts = _count_table(images, images.split)
counts.style.format("{:,}")


# %%
#| export
def _plot_bars(ax, counts: pd.DataFrame):
    "Bars of films by split and class."
    for n, name in enumerate(CLASS_NAMES):
        places = np.arange(len(counts)) + .4 * n - .2
        bars = ax.bar(places, counts[name], .38, label=name, color=COLOURS[name])
        ax.bar_label(bars, labels=[f"{v:,}" for v in counts[name]], padding=2)
    ax.set(xticks=range(len(counts)), xticklabels=counts.index, ylabel="films", title="Films by split")
    ax.legend()


# %%
#| export
def _plot_counts(
    counts: pd.DataFrame, # from `_count_table`
): # matplotlib Figure
    "Bars of films by split and class, and the balance of the classes over all splits."
    import matplotlib.pyplot as plt
    figure, (bars, pie) = plt.subplots(1, 2, figsize=(11, 4), width_ratios=[1.7, 1])
    _plot_bars(bars, counts)
    pie.pie(counts[CLASS_NAMES].sum(), labels=CLASS_NAMES, colors=[COLOURS[c] for c in CLASS_NAMES],
            autopct="%.1f %%", startangle=90, counterclock=False, textprops=dict(color="black"),
            wedgeprops=dict(edgecolor="white"))
    pie.set_title("All films")
    return figure


# %%
totals = counts[CLASS_NAMES].sum()
save_figure(stage, _plot_counts(counts), "eda_counts",
            "Films by split and class, and the balance of the classes.",
            f"Bars of films by split and class, and a pie chart: {totals['NORMAL']:,} normal and "
            f"{totals['PNEUMONIA']:,} pneumonia films, {totals['PNEUMONIA'] / totals.sum():.0%} pneumonia.")


# %%
#| export
def _count_findings(
    counts: pd.DataFrame, # from `_count_table`
) -> str: # markdown
    "What the counts mean, in words."
    classes, train = counts[CLASS_NAMES], counts.loc["train"]
    most, share = classes.idxmax(axis=1).str.lower(), classes.max(axis=1) / counts["total"]
    judged = "test" if "test" in counts.index else "validation"
    lines = [f"- A model that calls every film {most[s]} is right on **{share[s]:.1%}** of the {s} films: "
             "the accuracy to beat." for s in ("train", judged)]
    lines.append(f"- In train there are {train['PNEUMONIA'] / train['NORMAL']:.1f} pneumonia films for each "
                 "normal one; class weights make up for that in training.")
    return "\n".join(lines)


# %%
mostly_normal = pd.DataFrame(dict(NORMAL=[6, 3], PNEUMONIA=[2, 1], total=[8, 4]), ["train", "validation"])
assert "every film normal is right on **75.0%** of the validation films" in _count_findings(mostly_normal)

# %%
display(Markdown(_count_findings(counts)))


# %% [markdown]
# ## What they look like
#
# [The figure](#fig-eda_samples) is a seeded pick of train films as the files are, with their size in pixels.
# Look for the heart, bright, mostly to the right of the spine in the picture (the child's left), and for the
# dark lung fields. Then see whether you can tell the rows apart. Bacterial pneumonia tends to whiten one
# region, viral pneumonia to veil both lungs. Phantoms are drawn so; many films of children show neither
# clearly.

# %%
#| export
def _plot_samples(
    films: pd.DataFrame, # rows to show
    root: str,           # folder of the films
): # matplotlib Figure
    "A grid of films with their size, a row a kind."
    import matplotlib.pyplot as plt
    kinds, columns = films.kind.unique(), films.kind.value_counts().max()
    figure, axes = plt.subplots(len(kinds), columns, figsize=(12, 2.6 * len(kinds)), squeeze=False)
    for ax in axes.flat: ax.axis("off")
    for kind, row in zip(kinds, axes):
        for ax, film in zip(row, films[films.kind == kind].itertuples()):
            ax.imshow(read_film(f"{root}/{film.path}"), vmin=0, vmax=255)
            ax.set_title(f"{kind}  {film.width}×{film.height}", fontsize=10, color=COLOURS[kind])
    return figure


# %%
shown = sample_films(images[images.split == "train"], "kind", films_per_class, seed)
save_figure(stage, _plot_samples(shown, images.attrs["root"]), "eda_samples",
            "Train films of each kind, each with its size in pixels.",
            f"{len(shown)} train films: a row for each kind, with their width and "
            "height.")


# %% [markdown]
# ## How large they are
#
# Width, height and their ratio for every film, by class: a table, then [a picture](#fig-eda_sizes).

# %%
#| export
def _size_table(
    images: pd.DataFrame,
) -> pd.DataFrame: # rows: class and measure; columns as of `describe`
    "Summary of width, height and aspect (width / height) by class."
    names = images.label.map(dict(enumerate(CLASS_NAMES)))
    sizes = images.assign(aspect=images.width / images.height, film=names)
    summary = sizes.groupby("film")[["width", "height", "aspect"]].describe()
    return summary.stack(level=0, future_stack=True)


# %%
if not is_drawn: display(Markdown(
    "For comparison: the reference study looked at 100 films a class of the full-size public set. It saw "
    "normal films of 1630 × 1346 pixels on average, and pneumonia films of 1205 × 826."))
_size_table(images).style.format(lambda v: f"{v:,.0f}" if v >= 10 else f"{v:.3f}")


# %%
#| export
def _plot_boxes(ax, groups: list[pd.Series], name: str):
    "Box plots of one measure, one box a class."
    boxes = ax.boxplot(groups, tick_labels=CLASS_NAMES, widths=.6, patch_artist=True,
                       medianprops=dict(color="black"), flierprops=dict(markersize=3))
    for box, c in zip(boxes["boxes"], CLASS_NAMES): box.set(facecolor=COLOURS[c], alpha=.75)
    ax.set(title=name, ylabel="width / height" if name == "aspect" else "pixels")
    ax.tick_params(axis="x", labelsize=8)


# %%
#| export
def _plot_sizes(
    images: pd.DataFrame,
): # matplotlib Figure
    "Box plots of width, height and aspect by class, and width against height."
    import matplotlib.pyplot as plt
    figure, places = plt.subplot_mosaic("abc;ddd", figsize=(7.5, 7), height_ratios=[1, 1.2])
    *boxes, scatter = places.values()
    sizes = images[["width", "height"]].assign(aspect=images.width / images.height)
    groups = [sizes[images.label == n] for n in range(2)]
    for ax, name in zip(boxes, sizes): _plot_boxes(ax, [group[name] for group in groups], name)
    for group, name, marker in zip(groups, CLASS_NAMES, "o^"):
        scatter.scatter(group.width, group.height, s=14, alpha=.5, marker=marker, color=COLOURS[name],
                        label=name, linewidths=0)
    scatter.set(title="Every film", xlabel="width (pixels)", ylabel="height (pixels)")
    scatter.legend()
    return figure


# %%
means = images.groupby("label")[["width", "height"]].mean()
words = "; ".join(f"{CLASS_NAMES[n]} {m.width:.0f}×{m.height:.0f} pixels" for n, m in means.iterrows())
save_figure(stage, _plot_sizes(images), "eda_sizes", "Size and aspect of the films by class.",
            "Box plots of width, height and aspect by class, and a scatter of width against height. "
            f"Mean size: {words}.")

# %% [markdown]
# How well does a logistic regression tell the classes apart from width, height and aspect, without a single
# pixel? It is asked about patients that it was not fitted on: five folds of whole patients, train and
# validation films only. An AUROC of .5 is a coin. Anything reliably above is a shortcut that a model trained
# on squashed films may take, since squashing turns aspect into the shape of the chest.

# %%
#| export
_SIZE_WORDS = dict(
    few="- Too few patients for a size baseline.",
    constant="- **Every film has the same size**: these are copies that were squashed before. The table "
             "and the figure above therefore show nothing. The shape that the originals had is still "
             "hidden in the shape of the chest, and nothing here can measure it.",
    measured="- From width, height and aspect alone the class is told with an **AUROC of {}**, by {:,} train "
             "and validation films in {} folds by patient.",
    shortcut="- **Size is a shortcut.** Squashing every film to a square carries the difference into the "
             "pixels as a stretch of the chest, so part of what a model scores may be the format of the "
             "film. Results on squashed films should be read with that in mind.",
    none="- That is not reliably above guessing (.5), so these films show no size shortcut that squashing "
         "could pass on.")


# %%
#| export
def _interval_text(
    answer: dict, # auroc, low, high
) -> str:
    "An AUROC with its interval, or with the reason why it has none."
    if answer["low"] == answer["low"]:
        return "{auroc:.3f} (95 % interval {low:.3f} to {high:.3f})".format(**answer)
    reasons = {0: "all pairs of films are in the wrong order", 1: "all pairs of films are in order"}
    reason = reasons.get(answer["auroc"], "too few patients, or nothing that varies")
    return f"{answer['auroc']:.3f} (no interval: {reason})"


# %%
undefined = dict(low=float("nan"), high=float("nan"))
test_eq(_interval_text(dict(auroc=.7, low=.6, high=.8)), "0.700 (95 % interval 0.600 to 0.800)")
test_eq(_interval_text(undefined | dict(auroc=1.)), "1.000 (no interval: all pairs of films are in order)")


# %%
#| export
def _size_findings(
    baseline: dict, # from `size_baseline`
) -> str: # markdown
    "What the size baseline means for squashing, in words."
    if baseline["auroc"] != baseline["auroc"]: return _SIZE_WORDS["few"]
    if baseline["constant"]: return _SIZE_WORDS["constant"]
    verdict = "shortcut" if is_above_chance(baseline["auroc"], baseline["low"]) else "none"
    measured = _SIZE_WORDS["measured"].format(_interval_text(baseline), baseline["films"], baseline["folds"])
    return measured + "\n" + _SIZE_WORDS[verdict]


# %%
telling = dict(auroc=.7, low=.6, high=.8, films=1300, folds=5, constant=False)
assert "Size is a shortcut" in _size_findings(telling)
assert "not reliably above guessing" in _size_findings(telling | dict(low=.4))
assert "Size is a shortcut" in _size_findings(telling | undefined | dict(auroc=1.))
assert "Every film has the same size" in _size_findings(telling | dict(constant=True))

# %%
baseline = size_baseline(images[images.split != "test"], seed)
display(Markdown(_size_findings(baseline)))
write_json(stage.path("metrics/eda_sizes.json"), baseline)


# %% [markdown]
# ## Which numbers are in which split
#
# Names carry numbers, given in some order: of films of patients most likely that in which they were
# collected. A test set drawn at random has its numbers among those of train, in many short stretches. Where a
# table lists the films, a series below is a kind. A number is then a patient's place in the order of all
# patients' names.

# %%
#| export
def _number_table(
    images: pd.DataFrame, # with path, patient_id
) -> pd.DataFrame: # a row a naming series and published split
    "The stretch of patient numbers that each split takes of each series, and how often it is broken off."
    films = with_series(images).sort_values(["series", "number", "published"])
    place = films[["series", "published"]]
    films["begins"] = (place != place.shift()).any(axis=1)
    return films.groupby(["series", "published"]).agg(
        films=("path", "size"), patients=("patient_id", "nunique"), lowest=("number", "min"),
        median=("number", "median"), highest=("number", "max"), stretches=("begins", "sum")).reset_index()


# %% [markdown]
# Test between two stretches of train makes one stretch of test and two of train:

# %%
splits = ["train", "train", "test", "test", "train"]
paths = [f"{split}/NORMAL/IM-{n}-1.jpeg" for n, split in enumerate(splits)]
five = pd.DataFrame(dict(path=paths, patient_id=range(5)))
test_eq(_number_table(five).stretches.tolist(), [1, 2])
numbers = _number_table(images)
test_eq(numbers.films.sum(), len(images))
readable(numbers).style.hide(axis="index").format({"middle": "{:.0f}"})


# %% [markdown]
# ## How each film looks as a whole
#
# The instruments of the chapter on appearance give each film nine numbers: eight measures of its looks and
# the height of its side marker. They also say where text and markers are burnt in. From the eight measures, a
# random forest says how likely each film that is not test shows pneumonia, always asked about patients that
# it was not fitted on. That gives the film its **overlap weight**: much, if its looks speak against its
# class. The chapter on the compact recipe uses the weights to compare recipes on films that are not test.

# %%
#| export
def _film_weights(
    images: pd.DataFrame,   # label, split, patient_id
    measured: pd.DataFrame, # from `appearance_table`
    seed: int,
) -> pd.Series: # (N,) within 0 and 1; NaN for test films, and for all where there are too few patients
    "Overlap weights of the films that are not test."
    learned = images.drop(columns="bytes").join(measured)[images.split != "test"]
    scores = appearance_scores(learned, learned.label == 1, seed)
    if scores is None: return pd.Series(np.nan, images.index)
    weights = overlap_weights(scores, learned.label.to_numpy())
    return pd.Series(weights, learned.index).reindex(images.index)


# %%
#| export
def _measure_films(
    stage: Stage,
    images: pd.DataFrame, # from `load_images`
    seed: int,            # of the weights
) -> tuple[pd.DataFrame, pd.DataFrame]: # how each film looks, and what is burnt in, as the two loaders below
    "Measure every film, each read once, and write burnt_in.csv and appearance.csv."
    measured, places = measure_films(images)
    measured = measured.assign(weight=_film_weights(images, measured, seed))
    write_csv(stage.path("burnt_in.csv"), places)
    write_csv(stage.path("appearance.csv"), pd.concat([images[["path", "sha1"]], measured], axis=1))
    return measured, places


# %%
if (images.split == "test").any():
    look(stage, "gray levels, sharpness, burnt-in text and side markers, and what classifiers tell without a "
                "lung, by class")
measured, places = _measure_films(stage, images, seed)
films = pd.DataFrame(dict(film=images.path.str.split("/").str[-1])).join(measured)
readable(films.head(3)).style.hide(axis="index").format(precision=3)


# %% [markdown]
# Later chapters read those files. Where they are not there, or are of other films, the first chapter that
# needs them makes them, with the same numbers, and notes it.

# %%
#| export
def _as_text(
    file: Path,
    columns: list[str], # that it must have
) -> pd.DataFrame | None: # all text, since older parsers of pandas lose a number's last digit
    "A file of this chapter; None where it is not there, or is another."
    if not file.exists() or not file.stat().st_size: return None
    text = pd.read_csv(file, dtype=str)
    return text if {*columns} <= {*text} else None

def _read_appearance(
    stage: Stage,
    images: pd.DataFrame, # path, sha1
) -> pd.DataFrame | None: # rows as of `images`; None where the file is not there, or is of other films
    "How films look, as measured before."
    text = _as_text(stage.path("appearance.csv"), ["path", "sha1"])
    if text is None or {*zip(text.path, text.sha1)} != {*zip(images.path, images.sha1)}: return None
    table = text.set_index("path").drop(columns="sha1").astype(float)
    return table.loc[images.path].set_index(images.index)

def _read_burnt_in(
    stage: Stage,
    images: pd.DataFrame, # path, sha1
) -> pd.DataFrame | None: # BURNT_IN; None where a file is not there, or is of other films
    "What is burnt into films, as measured before; appearance.csv, written after it, says of which films."
    text = _as_text(stage.path("burnt_in.csv"), BURNT_IN)
    if text is None or _read_appearance(stage, images) is None: return None
    return text.astype(dict.fromkeys("xywh", float))


# %%
#| export
def _measure_here(
    stage: Stage,         # not exploration
    images: pd.DataFrame, # from `load_images`
    seed: int,            # of the weights
) -> tuple[pd.DataFrame, pd.DataFrame]: # from `_measure_films`
    "Measure the films for a chapter that needs it, and note it; with test films, that is a look at them."
    note(stage, "exploration has not been done in this run, so how the films look was measured here.")
    if (images.split == "test").any():
        look(stage, "gray levels, sharpness, burnt-in text and side markers, by class")
    return _measure_films(stage, images, seed)


# %%
#| export
def load_appearance(
    stage: Stage,         # that asks
    images: pd.DataFrame, # from `load_images`
    seed: int,            # of the weights, where they are not there yet
) -> pd.DataFrame: # APPEARANCE, marker and weight (NaN for test films), rows as of `images`
    "How each film of this run looks; measured here if nobody has."
    table = _read_appearance(stage, images)
    return _measure_here(stage, images, seed)[0] if table is None else table

def load_burnt_in(
    stage: Stage,         # that asks
    images: pd.DataFrame, # from `load_images`
    seed: int,            # of the weights, which are made with it
) -> pd.DataFrame: # path, kind ("text" or "marker"), x, y, w, h (shares of width and height); a row a place
    "Where text and side markers are burnt in; measured here if nobody has."
    places = _read_burnt_in(stage, images)
    return _measure_here(stage, images, seed)[1] if places is None else places


# %%
#| hide
# Twelve films in a run of their own: the first call measures and writes, the second reads the same numbers.
few = sample_films(images, "kind", 4, seed)
few.attrs.update(images.attrs)
with tempfile.TemporaryDirectory() as folder:
    later = open_stage("compact", folder)
    with redirect_stdout(io.StringIO()): made = load_appearance(later, few, seed)
    pd.testing.assert_frame_equal(load_appearance(later, few, seed + 1), made, check_exact=True)
    rows = lambda table: sorted(table.itertuples(index=False, name=None))
    test_eq(rows(load_burnt_in(later, few, seed)), rows(places[places.path.isin(few.path)]))
    test_eq(_read_appearance(later, few.iloc[1:]), None)   # of other films
    test_eq(_read_burnt_in(later, few.iloc[1:]), None)
    test_eq(len(read_provenance(folder).get("test_looks", [])), int((few.split == "test").any()))


# %% [markdown]
# ## Does the side marker give the class away?
#
# How many films have a marker taller than a sixteenth of the film, by series and side of the split? Letters
# that are cut, gray or touch something else are missed. The intervals (Wilson, 1927) take films as
# independent.

# %%
#| export
def marker_table(
    images: pd.DataFrame, # path, split
    markers: pd.Series,   # heights of their side markers
) -> pd.DataFrame: # a row a naming series and side of the split; `found` is a share, `tall` a number of films
    "How many films have a tall marker."
    rows, series = [], with_series(images).series
    for (name, is_test), heights in markers.groupby([series, images.split == "test"]):
        tall, films = int((heights > TALL_MARKER).sum()), len(heights)
        low, high = proportion_interval(tall, films)
        rows.append(dict(series=name, split="test" if is_test else "train and validation", films=films,
                         found=(heights > 0).mean(), tall=tall, share=tall / films, low=low, high=high))
    return pd.DataFrame(rows)


# %%
if not is_drawn: display(Markdown(
    "On the public set the finds on train films were looked at: 48 of those with pneumonia, drawn at random, "
    "and all 18 normal ones showed an R."))
markers = marker_table(images, measured.marker)
test_eq(markers.films.sum(), len(images))
shares = {"with a marker": "{:.0%}", "share with a tall marker": "{:.1%}",
          "lower limit, 95 %": "{:.1%}", "upper limit, 95 %": "{:.1%}"}
readable(markers).style.hide(axis="index").format(shares)


# %%
#| export
def _count_of(
    has: pd.Series,  # (N,) bool
    rows: pd.Series, # (N,) bool, among which films
) -> str: # such as "18 of 1,349 (1.3%)"
    "How many of some films have something, in words."
    words = f"{has[rows].sum():,} of {rows.sum():,}"
    return words + f" ({has[rows].mean():.1%})" if rows.any() else words


# %%
#| export
def _more_among(has: pd.Series, rows: pd.Series, others: pd.Series) -> bool:
    "Whether something is more frequent among some films than among others, beyond both intervals."
    if not (rows.any() and others.any()): return False
    low, _ = proportion_interval(int(has[rows].sum()), int(rows.sum()))
    _, high = proportion_interval(int(has[others].sum()), int(others.sum()))
    return low > high


# %%
tall, first = pd.Series([True] * 30 + [False] * 70), pd.Series([True] * 50 + [False] * 50)
test_eq(_count_of(tall, first), "30 of 50 (60.0%)")
test_eq([_more_among(tall, first, ~first), _more_among(tall, ~first, first)], [True, False])

# %%
#| export
_FOUND_WORDS = dict(
    learned="- **{} is found** on {} pneumonia films and on {} normal ones that are not test.",
    test="- On test it is found on {} and {}.")

_MARKER_WORDS = dict(
    what="A tall side marker",
    none="- No film has a side marker taller than a sixteenth of it; it gives nothing away here.",
    shortcut="- So a network that recognises the films with the tall marker, by whatever sign, can take "
             "what they have in common for the disease, such as the machine and who is filmed by it. The "
             "normal films among them are the ones to judge it by.")

def _class_findings(
    images: pd.DataFrame, # split, label
    has: pd.Series,       # (N,) bool, which films have it
    words: dict,          # what, none, shortcut
) -> str: # markdown
    "What something on the films gives away about their class, in words."
    is_test, is_sick = images.split == "test", images.label == 1
    if not has.any(): return words["none"]
    counts = lambda split: [_count_of(has, split & is_sick), _count_of(has, split & ~is_sick)]
    lines = [_FOUND_WORDS["learned"].format(words["what"], *counts(~is_test))]
    if is_test.any(): lines.append(_FOUND_WORDS["test"].format(*counts(is_test)))
    if _more_among(has, ~is_test & is_sick, ~is_test & ~is_sick): lines.append(words["shortcut"])
    return "\n".join(lines)


# %%
display(Markdown(_class_findings(images, measured.marker > TALL_MARKER, _MARKER_WORDS)))
assert "gives nothing away" in _class_findings(images, measured.marker > 1, _MARKER_WORDS)


# %% [markdown]
# ## Which films have text burnt in?
#
# Times, exposures and numbers that a machine writes are no disease either. The table counts the films on
# which the detector of the chapter on appearance finds text, and a tall side marker, by split and class.

# %%
#| export
def _films_with(
    images: pd.DataFrame, # path
    places: pd.DataFrame, # from `load_burnt_in`
) -> pd.DataFrame: # text and tall, bool; rows as of `images`
    "Which films have text, and which a tall marker."
    is_text, is_tall = places.kind == "text", (places.kind == "marker") & (places.h > TALL_MARKER)
    return pd.DataFrame(dict(text=images.path.isin(places.path[is_text]),
                             tall=images.path.isin(places.path[is_tall])))


# %%
#| export
def _burnt_in_table(
    images: pd.DataFrame, # split, label
    has: pd.DataFrame,    # from `_films_with`
) -> pd.DataFrame: # split, class, films, text, text_share, tall, share; a row a split and class
    "How many films have text, and how many a tall marker."
    groups = has.groupby([images.split, images.label])
    table = groups.sum().assign(films=groups.size(), text_share=groups.text.mean(), share=groups.tall.mean())
    table = table.reset_index()
    table["class"] = table.label.map(dict(enumerate(CLASS_NAMES)))
    order = table.split.map(dict(train=0, validation=1, test=2))
    columns = ["split", "class", "films", "text", "text_share", "tall", "share"]
    return table.loc[order.sort_values(kind="stable").index, columns]


# %%
made_up = pd.DataFrame(dict(path=["a.png", "b.png", "c.png"], split=["test", "train", "train"],
                            label=[0, 1, 1]))
drawn_in = pd.DataFrame([["b.png", "text", .8, .9, .1, .05], ["c.png", "marker", .1, .1, .1, .09],
                         ["a.png", "marker", .1, .1, .02, .04]], columns=BURNT_IN)
counted_in = _burnt_in_table(made_up, _films_with(made_up, drawn_in))
test_eq(counted_in.values.tolist(),
        [["train", "PNEUMONIA", 2, 1, .5, 1, .5], ["test", "NORMAL", 1, 0, 0, 0, 0]])

# %%
has = _films_with(images, places)
test_eq(has.tall.tolist(), (measured.marker > TALL_MARKER).tolist())
readable(_burnt_in_table(images, has)).style.hide(axis="index").format(
    {"share with text": "{:.1%}", "share with a tall marker": "{:.1%}"})

# %%
#| export
_TEXT_WORDS = dict(
    what="Burnt-in text",
    none="- No text is found on any film; it gives nothing away here.",
    shortcut="- So text, or the machine that writes it, tells of the class, and a network can learn to read "
             "either.")

# %%
display(Markdown(_class_findings(images, has.text, _TEXT_WORDS)))

# %% [markdown]
# [The figure](#fig-eda_burnt_in) shows films that are not test, those with text first, with frames around
# what was found.

# %%
#| export
_FRAMES = dict(text="#E69F00", marker="#56B4E9")

def _plot_burnt_in(
    films: pd.DataFrame,  # path; at least one
    places: pd.DataFrame, # from `load_burnt_in`
    root: str,            # folder of the films
): # matplotlib Figure
    "Films with frames around text and side markers."
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots(1, len(films), figsize=(2.6 * len(films), 2.6), squeeze=False)
    for ax, film in zip(axes.flat, films.itertuples()):
        pixels = read_film(f"{root}/{film.path}")
        ax.imshow(pixels, vmin=0, vmax=255)
        ax.axis("off")
        for place in places[places.path == film.path].itertuples():
            (h, w), margin = pixels.shape, .012
            ax.add_patch(plt.Rectangle(
                ((place.x - margin) * w, (place.y - margin) * h), (place.w + 2 * margin) * w,
                (place.h + 2 * margin) * h, fill=False, lw=1.5, color=_FRAMES[place.kind]))
    return figure


# %%
with_any = images.assign(text=has.text)[images.path.isin(places.path) & (images.split != "test")]
shown = with_any.sample(frac=1, random_state=seed).sort_values("text", ascending=False, kind="stable").head(5)
if len(shown): save_figure(
    stage, _plot_burnt_in(shown, places, images.attrs["root"]), "eda_burnt_in",
    "Films that are not test; orange frames are around text, blue ones around side markers.",
    f"{counted(len(shown), 'film')}, framed where something was found; {shown.text.sum()} with text.")


# %% [markdown]
# ## Is appearance a shortcut?
#
# Among the films to learn from, can a classifier that knows the eight measures and nothing else tell
# **pneumonia from normal**? As far as it can, a network may too, without looking at any place in the lung.
#
# Where there are test films, two more questions are asked. Can it tell **test from train** within one naming
# series? Under a random split it could not: .5. And how far does what it learned about the classes hold on
# test?

# %%
#| export
def _shift_table(
    images: pd.DataFrame, # path, split, label, patient_id and APPEARANCE
    seed: int,
) -> pd.DataFrame: # a row a question: question, auroc, low, high, films
    "Is test told from train within a series, and a class from the other, by appearance alone?"
    is_test, rows = images.split == "test", []
    if is_test.any():
        for series, films in images.groupby("series"):
            answer = separation(films, (films.split == "test").to_numpy(), seed)
            rows.append(dict(question=f"{series}: test or train?") | answer)
    learned, test = images[~is_test], images[is_test]
    answer = separation(learned, (learned.label == 1).to_numpy(), seed)
    rows.append(dict(question="train and validation: pneumonia or normal?") | answer)
    if len(test): rows.append(dict(question="the same, asked of test films: pneumonia or normal?")
                              | carried_over(learned, test, seed))
    return pd.DataFrame(rows)


# %%
looks = images.drop(columns="bytes").join(measured)
shift = _shift_table(looks, seed)
digits = {"AUROC": "{:.3f}", "lower limit, 95 %": "{:.3f}", "upper limit, 95 %": "{:.3f}"}
readable(shift).style.hide(axis="index").format(digits, na_rep="–")

# %% [markdown]
# With overlap weights, appearance should tell much less about the class. It is the same forest, asked again
# with each film counted by its weight.

# %%
learned = looks[looks.split != "test"]
scores = appearance_scores(learned, learned.label == 1, seed)
if scores is not None:
    alike, weighted = auroc(learned.label, scores), auroc(learned.label, scores, learned.weight)
    print("Pneumonia told from normal by appearance, films that are not test: "
          f"AUROC {alike:.3f}, weighted {weighted:.3f}")


# %% [markdown]
# [The figure](#fig-eda_shift) shows one of the eight along the patient numbers. A step of the running median,
# or test films that lie apart from the others, means that these films were made in another way.

# %%
#| export
def _plot_series(ax, number: pd.Series, values: pd.Series, is_test: pd.Series, colour: str):
    "One measure along the patient numbers of one series."
    ax.scatter(number[~is_test], values[~is_test], s=9, alpha=.45, linewidths=0, marker="o", color=colour,
               label="not test, in the colour of the kind")
    if is_test.any(): ax.scatter(number[is_test], values[is_test], s=14, alpha=.45, linewidths=.9, marker="x",
                                 color="black", label="test")
    order = number.sort_values(kind="stable").index
    middle = values[order].rolling(51, center=True, min_periods=15).median()
    ax.plot(number[order], middle, color="white", lw=4)
    ax.plot(number[order], middle, color="#444444", lw=2, label="running median")
    ax.set_xlabel("patient number")


# %%
#| export
def plot_along_numbers(
    images: pd.DataFrame, # path, kind, split
    values: pd.Series,    # of each film, indexed as `images`
    label: str,           # what they are
): # matplotlib Figure
    "One measure along the patient numbers of each naming series, train and test."
    import matplotlib.pyplot as plt
    series, number = with_series(images).series, with_series(images).number
    names, is_test = sorted(series.unique()), images.split == "test"
    figure, axes = plt.subplots(1, len(names), figsize=(13, 3.2), sharey=True, squeeze=False)
    for ax, name in zip(axes.flat, names):
        rows = series == name
        _plot_series(ax, number[rows], values[rows], is_test[rows], COLOURS[images.kind[rows].iloc[0]])
        ax.set_title(name)
    axes[0, 0].set_ylabel(label)
    figure.legend(*axes[0, -1].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


# %%
figure = plot_along_numbers(images, measured.dark, "5th percentile of gray")
save_figure(stage, figure, "eda_shift",
            "The darkest gray of each film along the patient numbers of its series.",
            "Scatter of the 5th percentile of gray against the patient number for each naming series, with a "
            "running median" + ("; test films are crosses." if (images.split == "test").any() else "."))

# %% [markdown]
# ## What can be told without a lung?
#
# The most direct question comes last: how much of the class can be told where no lung is? Random forests get
# parts of films reduced to 32 pixels: the outer frame, the corners, all but the chest. Others get the height
# of the side marker or numbers of the whole film, and one, for comparison, the whole film. Each judges
# patients that it was not fitted on; test films are judged after all others.

# %%
small = decode_films(images, SMALL_SIDE).pixels
answers = without_lungs(images, features_without_lungs(images, measured, small), seed)
write_csv(stage.path("metrics/without_lungs.csv"), answers)

# %%
#| export
_ASKED = dict(others="films that are not test", test="test films")

def _without_lungs_table(
    answers: pd.DataFrame, # from `without_lungs`
) -> pd.DataFrame: # a row a classifier: AUROC and interval on both sides of the split, as text
    "What each classifier reaches."
    interval = lambda row: value_with_interval(
        dict(auroc=row.auroc, auroc_low=row.low, auroc_high=row.high), "auroc", digits=3)
    texts = answers.assign(text=[interval(row) for row in answers.itertuples()])
    table = texts.pivot(index="classifier", columns="asked", values="text")
    table = table.loc[answers.classifier.unique()].rename(columns=lambda key: f"AUROC, {_ASKED[key]}")
    features = answers.groupby("classifier").features.first()
    return table.assign(features=features).rename_axis(columns=None).reset_index()


# %%
two = pd.DataFrame([dict(asked="others", auroc=.9, low=.8, high=.95), dict(asked="test", auroc=1.)]).assign(
    classifier="outer frame", features=348, films=90)
test_eq(_without_lungs_table(two).iloc[0].tolist(), ["outer frame", "0.900 (0.800–0.950)", "1.000", 348])
_without_lungs_table(answers).style.hide(axis="index")

# %% [markdown]
# [The figure](#fig-eda_without_lungs) draws the same. What lies to the right of the dotted line, with its
# whole interval, is told better than by guessing. Where test films lie further left than the others, part of
# what was learned does not hold on them: a network that learned the same would lose as much.
#
# Do such classifiers find what is there, and nothing else? Phantoms on which a shortcut is planted answer
# that, since there the truth is known. Try `pneumo run -p data.phantom_text=class --only data,eda`: the lower
# right corner tells the class. With `balanced` in the place of `class` it does not.

# %%
#| export
_MARKS = dict(others=dict(color=COLOURS["other"], marker="o"), test=dict(color="black", marker="x"))

def _plot_without_lungs(
    answers: pd.DataFrame, # from `without_lungs`
): # matplotlib Figure
    "AUROC of each classifier with its interval, on both sides of the split."
    import matplotlib.pyplot as plt
    names = list(answers.classifier.unique())
    figure, ax = plt.subplots(figsize=(8, .45 * len(names) + 1.4))
    for shift, (asked, rows) in zip((-.12, .12), answers.groupby("asked")):
        places = rows.classifier.map(names.index) + shift
        ax.hlines(places, rows.low, rows.high, color=_MARKS[asked]["color"], lw=1.5)
        ax.plot(rows.auroc, places, ls="none", ms=6, label=_ASKED[asked], **_MARKS[asked])
    ax.axvline(.5, color="gray", lw=1, ls=":", label="guessing")
    ax.set(yticks=range(len(names)), yticklabels=names, xlabel="AUROC, pneumonia told from normal")
    ax.invert_yaxis()
    figure.legend(loc="outside lower center", ncols=3)
    return figure


# %%
#| export
def _list_answers(
    answers: pd.DataFrame, # from `without_lungs`
) -> str: # such as "outer frame 0.973 (test 0.899)"
    "Every classifier with its AUROC, in words."
    table = answers.pivot(index="classifier", columns="asked", values="auroc")
    parts = []
    for name in answers.classifier.unique():
        row = table.loc[name]
        test = f" (test {row.test:.3f})" if "test" in row and row.test == row.test else ""
        parts.append(f"{name} {row.others:.3f}{test}" if "others" in row else f"{name}{test}")
    return ", ".join(parts)


# %%
test_eq(_list_answers(two), "outer frame 0.900 (test 1.000)")
test_eq(_list_answers(two[:1]), "outer frame 0.900")
if len(answers): save_figure(
    stage, _plot_without_lungs(answers), "eda_without_lungs",
    "How well classifiers that see no lung tell pneumonia from normal, with 95 % intervals.",
    f"AUROC of each classifier as a mark with its interval: {_list_answers(answers)}.")


# %% [markdown]
# Six of the classifiers see nothing that is lung. The file's size, the eight measures and the whole film have
# lungs in them, and are there to compare. Asked six times, chance alone would tell a class now and then, so
# the p-values are corrected after Holm. Each follows from the interval, which is even on the logit.

# %%
#| export
def _is_told(
    answers: pd.DataFrame, # auroc, low, high; NaN where there is no interval
) -> np.ndarray: # (n,) bool
    "Which AUROCs are above .5 by more than chance, where as many questions are asked."
    from scipy.stats import norm
    auroc, low, high = (answers[key].to_numpy(float) for key in ("auroc", "low", "high"))
    errors = (logit(high) - logit(low)) / (2 * norm.ppf(.975))
    p = np.nan_to_num(2 * norm.sf(np.abs(logit(auroc)) / errors), nan=1)
    return (auroc == 1) | (auroc > .5) & (holm(p) < .05)


# %%
asked = pd.DataFrame(dict(auroc=[.7, .556, .3, 1, .5], low=[.6, .507, .2, np.nan, np.nan],
                          high=[.786, .605, .42, np.nan, np.nan]))
test_eq(_is_told(asked).tolist(), [True, False, False, True, False])
test_eq(_is_told(asked[1:2]).tolist(), [True])   # asked alone

# %%
#| export
_WITHOUT_WORDS = dict(
    few="- Too few patients to ask classifiers that see no lung.",
    none="- No classifier that sees no lung tells pneumonia from normal reliably better than by guessing.",
    best="- **Without a lung, pneumonia is told from normal**: from {} with an AUROC of {} on films that are "
         "not test{}.",
    test=", and with {} on test films",
    more="- The same holds of {}.",
    whole="- For comparison, where lungs are seen, too: {}.",
    drawn="- Phantoms have their disease in the lungs alone. So what tells the class elsewhere was planted, "
          "or is chance.",
    real="- A network can reach as much without a look at a lung. Part of it may be due to disease, as the "
         "sick may be placed and filmed in other ways. Only a test on other films, or on films changed where "
         "no lung is, shows what a network uses.")

_SEEN = {  # classifier → what it sees, where that is no lung
    "width and height": "width and height alone", "height of the side marker": "the side marker's height",
    "outer frame": "the outermost tenth on each side",
    "four corners": "the four corners", "lower right corner": "the lower right corner",
    "without the chest": "all but the chest"}


# %%
#| export
def _best_without_lungs(
    told: pd.DataFrame, # answers that tell, on films that are not test, the best first
    test: pd.DataFrame, # the same classifiers' answers on test films; may be empty
) -> list[str]: # markdown
    "What the best classifier without lungs reaches, and which others tell."
    best, *more = told.to_dict("records")
    on_test = test[test.classifier == best["classifier"]].to_dict("records")
    words = "".join(_WITHOUT_WORDS["test"].format(_interval_text(row)) for row in on_test)
    line = _WITHOUT_WORDS["best"].format(_SEEN[best["classifier"]], _interval_text(best), words)
    listed = [f"{_SEEN[row['classifier']]} ({row['auroc']:.3f})" for row in more]
    return [line] + ([_WITHOUT_WORDS["more"].format(in_list(listed))] if listed else [])


# %%
#| export
def _without_lungs_findings(
    answers: pd.DataFrame, # from `without_lungs`
    is_drawn: bool,        # phantoms
) -> str: # markdown
    "What can be told without a lung, in words."
    if not len(answers): return _WITHOUT_WORDS["few"]
    others, test = (answers[answers.asked == asked] for asked in ("others", "test"))
    blind, seeing = others[others.classifier.isin(_SEEN)], others[~others.classifier.isin(_SEEN)]
    told = blind[_is_told(blind)].sort_values("auroc", ascending=False)
    lines = _best_without_lungs(told, test) if len(told) else [_WITHOUT_WORDS["none"]]
    listed = in_list([f"{row.classifier} {row.auroc:.3f}" for row in seeing.itertuples()])
    if listed: lines.append(_WITHOUT_WORDS["whole"].format(listed))
    if len(told): lines.append(_WITHOUT_WORDS["drawn" if is_drawn else "real"])
    return "\n".join(lines)


# %%
words = _without_lungs_findings(two, is_drawn=False)
assert "from the outermost tenth on each side with an AUROC of 0.900 (95 %" in words
assert "and with 1.000 (no interval: all pairs of films are in order) on test films" in words
assert "was planted" in _without_lungs_findings(two[:1], is_drawn=True)
test_eq(_without_lungs_findings(two.assign(low=.4, auroc=.6), True), _WITHOUT_WORDS["none"])
test_eq(_without_lungs_findings(two[:0], True), _WITHOUT_WORDS["few"])
display(Markdown(_without_lungs_findings(answers, is_drawn)))

# %% [markdown]
# ## What it comes to

# %%
#| export
_SHIFT_WORDS = dict(
    nothing="- By appearance, pneumonia is not told from normal reliably better than by guessing.",
    apart="- **Test is not a random draw.** By appearance alone, test is told from train with an AUROC of"
          " {}; a random split would give .5. Validation cut from train cannot feel that.",
    alike="- By appearance, test is not told from train within any series reliably better than by guessing.",
    order="- In the order of the numbers, test takes {}.",
    cut=" The split was made along the numbers, not at random.",
    shortcut="- **Appearance may be a shortcut**: without knowing any place in a film, pneumonia is told "
             "from normal among train and validation films with an AUROC of {}",
    carried=", and among test films, after learning from these, with {}",
    caution=". Part of it can be disease, which whitens lungs{}.",
    lost="; what is lost on test is not")


# %%
#| export
def _draw_findings(
    kinds: list[dict], # rows of `_shift_table` that ask for test
) -> list[str]: # no line or one, markdown
    "Whether test looks like a random draw."
    apart = [f"{_interval_text(row)} among {row['question'].split(':')[0]} films"
             for row in kinds if is_above_chance(row["auroc"], row["low"])]
    if apart: return [_SHIFT_WORDS["apart"].format(", ".join(apart))]
    is_known = any(row["auroc"] == row["auroc"] for row in kinds)
    return [_SHIFT_WORDS["alike"]] if is_known else []


# %%
#| export
def _order_findings(
    numbers: pd.DataFrame, # from `_number_table`
) -> list[str]: # no line or one, markdown
    "Where test lies among the patient numbers."
    test = numbers[numbers.published == "test"]
    if not len(test): return []
    places = [f"{row.stretches} stretch{'es' if row.stretches > 1 else ''} of {row.series} "
              f"({counted(row.patients, 'patient')})" for row in test.itertuples()]
    is_cut = (test.patients > 10 * test.stretches).all()
    return [_SHIFT_WORDS["order"].format(", ".join(places)) + (_SHIFT_WORDS["cut"] if is_cut else "")]


# %%
#| export
def _shortcut_finding(
    classes: dict,       # row of `_shift_table`: train and validation films by class
    carried: list[dict], # the same of test films; may be empty
) -> str: # markdown
    "That appearance tells the class, and how far that reaches."
    line, lost = _SHIFT_WORDS["shortcut"].format(_interval_text(classes)), ""
    for test in carried:
        if test["auroc"] == test["auroc"]: line += _SHIFT_WORDS["carried"].format(_interval_text(test))
        if test["auroc"] < classes["auroc"]: lost = _SHIFT_WORDS["lost"]
    return line + _SHIFT_WORDS["caution"].format(lost)


# %%
#| export
def _shift_findings(
    shift: pd.DataFrame,   # from `_shift_table`
    numbers: pd.DataFrame, # from `_number_table`
) -> str: # markdown
    "What the shift means, in words."
    asks_for_test = shift.question.str.endswith("test or train?")
    classes, *carried = shift[~asks_for_test].to_dict("records")
    lines = _draw_findings(shift[asks_for_test].to_dict("records")) + _order_findings(numbers)
    if is_above_chance(classes["auroc"], classes["low"]): lines.append(_shortcut_finding(classes, carried))
    return "\n".join(lines) or _SHIFT_WORDS["nothing"]


# %%
asked = pd.DataFrame([dict(question="train and validation: pneumonia or normal?", auroc=1., **undefined),
                      dict(question="the same, asked of test films", auroc=float("nan"), **undefined)])
words = _shift_findings(asked, numbers[numbers.published == "train"])
assert "1.000 (no interval: all pairs of films are in order). Part of it" in words
test_eq(_shift_findings(asked.assign(auroc=.5), numbers[:0]), _SHIFT_WORDS["nothing"])

# %%
display(Markdown(_shift_findings(shift, numbers)))
tables = dict(numbers=numbers, shift=shift, markers=markers)
tables = {name: table.to_dict("records") for name, table in tables.items()}
write_json(stage.path("metrics/eda_shift.json"), tables)
record = finish(stage)
