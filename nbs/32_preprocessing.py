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
# # Preprocessing
#
# > From files to what the models see: films squashed to a square, moved about in training, weighted by class

# %%
#| default_exp preprocessing

# %%
#| export
from pathlib import Path

import numpy as np

from pneumo_nb.run import Stage, note, read_json
from pneumo_nb.style import COLOURS
from pneumo_nb.films import read_film
from pneumo_nb.cache import Films, decode_films, squash, take
from pneumo_nb.views import AUGMENTATION, augmented, draw_matrices, warp
from pneumo_nb.batches import seconds_of
from pneumo_nb.data import load_images

# %%
#| hide
import time
import matplotlib.pyplot as plt
from fastcore.test import test_close, test_eq
from IPython.display import Markdown, display
from pneumo_nb.run import finish, open_stage, write_json
from pneumo_nb.style import plot_style, save_figure
from pneumo_nb.films import sample_films
from pneumo_nb.batches import class_weights, film_source
plot_style()

# %% tags=["parameters"]
run_dir = ""     # the run directory; "" for a temporary one
seed = 42        # decides the augmentation shown
image_size = 64  # side of the square that films are squashed to, in pixels
# augmentation
rotation = 20.0  # degrees either way
shift = 0.2      # fraction of the side, either way, along each axis
shear = 0.2      # degrees either way
zoom = 0.2       # each axis scaled by 1 - zoom to 1 + zoom
flip = True      # mirror left and right with probability one half

# %%
#| export
RANGES = {
    "image_size": "whole number from 16 to 1024",
    "rotation": "number from 0 and below 181",
    "shift, zoom": "number from 0 and below 1",
    "shear": "number from 0 and below 90",
    "flip": "true or false",
}

# %%
#| export
STAGE = {
    "reads": ["images.csv", "metrics/data.json"],
    "writes": ["metrics/preprocessing.json"],
    "card": ["preprocessing_augmentation"],
    "methods": """
        <p>For the study's own models films have {{ p.image_size }} pixels a side. Only train films are
        augmented: rotation up to {{ p.rotation }} degrees, shift up to {{ "{:.0%}".format(p.shift) }} of the
        side, shear up to {{ p.shear }} degrees, zoom up to
        {{ "{:.0%}".format(p.zoom) }}{{ ", mirrored left to right" if p.flip else "" }}.</p>""",
}

# %% [markdown]
# What do the study's models see of a film, and what do they never see? Films come in many sizes and shapes;
# networks want equal squares, many times over. So each film is squashed to a square, and in training it is
# moved about a little in each epoch. This chapter shows what that does to films, and decides nothing by
# looking at test.
#
# Models receive gray values from 0 to 255 as they are. Scaling to what each network wants is part of the
# network, so that a saved model needs no instructions beside it.

# %%
ranges = dict(rotation=rotation, shift=shift, shear=shear, zoom=zoom, flip=flip)
stage = open_stage("preprocessing", run_dir, seed=seed, image_size=image_size, **ranges)
images = load_images(stage, seed)

# %% [markdown]
# ## Squashing
#
# [Before and after](#fig-preprocessing_squash): a wide film is squeezed more than a square one, so the shape
# of the film is lost and the shape of the chest changes. The chapter on exploration says what that gives
# away. A copy that was squashed earlier looks the same in both.

# %%
film = read_film(Path(images.attrs["root"])/images.path[0])
parts = {f"as it is, {film.shape[1]}×{film.shape[0]}": film,
         f"as models see it, {image_size}×{image_size}": squash(film, image_size)}
figure, axes = plt.subplots(1, 2, figsize=(7, 3))
for ax, (title, picture) in zip(axes, parts.items()):
    ax.imshow(picture, vmin=0, vmax=255)
    ax.set_title(title)
    ax.axis("off")
save_figure(stage, figure, "preprocessing_squash", "One film as it is, and as the models see it.",
            "A film at its own size and squashed to a square.")


# %% [markdown]
# Decoding is slow and gives the same in every run, so it happens once for all runs on the same films. Later
# chapters get the films of a run from `load_films`.

# %%
#| export
def load_films(
    stage: Stage,
    image_size: int, # side of the squares, pixels
    seed: int = 42,  # for phantoms, if the run has no films yet
) -> Films:
    "The decoded films of this run, from the cache or decoded now."
    return decode_films(load_images(stage, seed), image_size)


# %%
start = time.time()
films = load_films(stage, image_size, seed)
print(f"{len(films.images):,} films in {time.time() - start:.1f} s")
test_eq(films.pixels[0], squash(film, image_size))
films.pixels.shape


# %% [markdown]
# ## Augmentation
#
# Each time that a film is trained on, it is turned, shifted, zoomed and perhaps mirrored at random, within
# the ranges of this run. Later chapters ask for them by `load_ranges`.

# %%
#| export
def load_ranges(stage: Stage) -> dict: # as `AUGMENTATION`
    "The augmentation that this run's preprocessing chose; the study's own if that stage has not run here."
    file = stage.path("metrics/preprocessing.json")
    if file.exists(): return read_json(file)["augmentation"]
    note(stage, "no preprocessing in this run, so films are augmented with the reference study's ranges.")
    return AUGMENTATION


# %% [markdown]
# [The figure](#fig-preprocessing_augmentation) shows a train film of each kind, as it is and as the first
# five epochs see it. What is moved out of the picture is lost. The empty margin is filled by drawing out the
# edge, hence the streaks. A mirrored film has the heart on the wrong side, as hardly any child has. That
# films are moved in these ways is the reference study's choice; how far is this run's.

# %%
#| export
def _plot_augmentation(
    films: Films,
    rows: np.ndarray, # a few train films
    seed: int,
    ranges: dict,
    epochs: int = 5,
): # matplotlib Figure
    "Films beside what training sees of them."
    import matplotlib.pyplot as plt
    size = 2 * (epochs + 1), 2.15 * len(rows)
    figure, axes = plt.subplots(len(rows), epochs + 1, figsize=size, squeeze=False)
    read, titles = augmented(films.pixels, seed, ranges), [f"epoch {n + 1}" for n in range(epochs)]
    columns = [films.pixels[rows], *(read(epoch, rows)[..., 0] for epoch in range(epochs))]
    for column, title, batch in zip(axes.T, ["as it is", *titles], columns):
        column[0].set_title(title)
        for ax, film in zip(column, batch): ax.imshow(film, vmin=0, vmax=255)
    for ax in axes.flat: ax.set(xticks=[], yticks=[])
    for ax, kind in zip(axes[:, 0], films.images.kind[rows]): ax.set_ylabel(kind, color=COLOURS[kind])
    return figure


# %%
train = films.rows("train")
shown = sample_films(films.images.iloc[train], "kind", 1, seed).index.to_numpy()
save_figure(stage, _plot_augmentation(films, shown, seed, ranges), "preprocessing_augmentation",
            "The same train films as they are, and as the first epochs see them.",
            f"One train film of each kind ({', '.join(films.images.kind[shown])}) as it is and as five "
            "epochs see it: "
            f"turned up to {rotation:g} degrees, shifted and zoomed up to {zoom:.0%}"
            + (", some mirrored." if flip else "."))

# %% [markdown]
# Films that are not train are never touched: they must look like the films that a model will meet.

# %%
validation, source = films.rows("validation"), film_source(films, seed, ranges)
test_eq(source.untouched(0, validation)[..., 0], films.pixels[validation])

# %% [markdown]
# ## Class weights
#
# Each film is weighted in the loss so that both classes count the same. This evens out how often they occur;
# it does not make up for how few normal films there are.

# %%
weights = class_weights(films.labels[train])
normal, sick = np.bincount(films.labels[train])
test_close(normal * weights[0], sick * weights[1])
print(f"normal {weights[0]:.4f}, pneumonia {weights[1]:.4f}")

# %% [markdown]
# ## Where the time goes
#
# What it costs to bring one film to a network on this machine, [step by step](#fig-preprocessing_costs).
# Decoding is paid once for all epochs and runs. What remains in each epoch is a copy from the cache and one
# interpolation.

# %%
#| export
_DECODING = "decode and squash (once)"

def _film_costs(
    films: Films,
    rows: np.ndarray, # some films
    seed: int,
    ranges: dict,
) -> dict[str, float]: # step → microseconds a film
    "What each step takes, on one thread."
    paths = [Path(films.images.attrs["root"])/path for path in films.images.path[rows]]
    matrices = draw_matrices(seed, 0, len(films.images), films.size, ranges)
    copies = take(films.pixels, rows)
    steps = {_DECODING: lambda: [squash(read_film(path), films.size) for path in paths],
             "copy from the cache": lambda: take(films.pixels, rows),
             "draw the affine map": lambda: draw_matrices(seed, 0, len(rows), films.size, ranges),
             "apply it": lambda: [warp(film, matrices[n]) for film, n in zip(copies, rows)]}
    return {step: 1e6 * seconds_of(run) / len(rows) for step, run in steps.items()}


# %%
#| export
def _plot_film_costs(
    costs: dict[str, float], # step → microseconds a film
): # matplotlib Figure
    "A dot for what each step costs."
    import matplotlib.pyplot as plt
    figure, ax = plt.subplots(figsize=(7, 2.2))
    ax.plot(list(costs.values()), list(costs), "o", color="black", ms=9)
    for step, cost in costs.items():
        words = f"{cost:,.1f} µs" if cost < 10 else f"{cost:,.0f} µs"
        ax.annotate(words, (cost, step), (9, 0), textcoords="offset points", va="center")
    ax.set(xlabel="microseconds a film, on one thread (logarithmic)", xscale="log",
           xlim=(.5, max(costs.values()) * 5), ylim=(len(costs) - .5, -.5))
    ax.grid(axis="x", color="#dddddd")
    return figure


# %%
costs = _film_costs(films, train[:32], seed, ranges)
save_figure(stage, _plot_film_costs(costs), "preprocessing_costs", "What a film costs, step by step.",
            "Microseconds a film: " + ", ".join(f"{step} {cost:.0f}" for step, cost in costs.items()) + ".")
each_epoch = sum(cost for step, cost in costs.items() if step != _DECODING)
print(f"In each epoch a film costs {each_epoch:,.0f} µs of one thread; "
      f"decoding it again would add {costs[_DECODING]:,.0f} µs.")


# %% [markdown]
# ## What it comes to

# %%
#| export
def _preprocessing_findings(
    films: Films,
    weights: dict[int, float], # from `class_weights`
) -> str: # markdown
    "What preprocessing made, in words."
    count, size, megabytes = len(films.images), films.size, films.pixels.nbytes / 1e6
    counts = {split: len(films.rows(split)) for split in ("train", "validation", "test")}
    kept = " and ".join(f"{counts[split]:,} {split}" for split in ("validation", "test") if counts[split])
    return (f"- **{count:,} films of {size} × {size} pixels** take {megabytes:,.1f} MB and are not decoded "
            "again, in this run or another.\n"
            f"- A normal train film counts {weights[0]:.3f}, a pneumonia one {weights[1]:.3f}.\n"
            f"- Only the {counts['train']:,} train films are augmented; the {kept} films stay as they "
            "are.")


# %%
display(Markdown(_preprocessing_findings(films, weights)))
write_json(stage.path("metrics/preprocessing.json"),
           dict(image_size=image_size, films=len(films.images), class_weights=weights, augmentation=ranges))
record = finish(stage)
