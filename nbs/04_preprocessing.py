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
# > From files to batches: every film decoded once, augmented afresh in each epoch, weighted by class

# %%
#| default_exp preprocessing

# %%
#| export
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from pneumo_nb.run import CLASS_NAMES, COLOURS, Stage, StudyError, atomic_path, finish, note, open_stage, plot_style, read_json, rng_for, save_figure, write_json
from pneumo_nb.data import load_images
from pneumo_nb.eda import read_film, sample_films

# %%
#| hide
import tempfile, time
import matplotlib.pyplot as plt
from fastcore.test import test_close, test_eq, test_fail
from IPython.display import Markdown, display
plot_style()

# %% tags=["parameters"]
run_dir = ""     # the run directory; "" for a temporary one
seed = 42        # decides the augmentation shown
image_size = 64  # side of the square that films are squashed to, in pixels
rotation = 20.0  # augmentation: degrees either way
shift = 0.2      # fraction of the side, either way, along each axis
shear = 0.2      # degrees either way
zoom = 0.2       # each axis scaled by 1 - zoom to 1 + zoom
flip = True      # mirror left and right with probability one half

# %% [markdown]
# Networks want equal squares, many times over. Decoding a JPEG is the slow part, so it happens **once**: each film is
# read in gray, shrunk to a square and kept as bytes. In every epoch, training then takes the kept films and moves them
# about a little. Models receive gray values from 0 to 255 as they are; scaling to what each network wants is part of
# the network, so that a saved model needs no recipe beside it.

# %%
stage = open_stage("preprocessing", run_dir, seed=seed, image_size=image_size, rotation=rotation, shift=shift, shear=shear,
                   zoom=zoom, flip=flip)
images = load_images(stage, seed)


# %% [markdown]
# ## Squashing
#
# `INTER_AREA` averages the pixels that fall into each new one, so fine texture is blurred rather than turned into a
# false pattern. It does not keep the shape: a wide film is squeezed more than a square one (see the chapter on
# exploration for what that gives away).

# %%
#| export
def squash(
    film: np.ndarray, # (H, W) uint8
    size: int,        # side of the result, pixels
) -> np.ndarray: # (size, size) uint8
    "A film as a square, by area averaging."
    return cv2.resize(film, (size, size), interpolation=cv2.INTER_AREA)


# %%
test_eq(squash(np.array([[0, 100], [50, 50]], np.uint8), 1), [[50]])
first = images.iloc[0]
film = read_film(images.attrs["root"], first.path)
figure, (left, right) = plt.subplots(1, 2, figsize=(7, 3))
left.imshow(film, vmin=0, vmax=255); left.set_title(f"as it is, {film.shape[1]}×{film.shape[0]}")
right.imshow(squash(film, image_size), vmin=0, vmax=255); right.set_title(f"as models see it, {image_size}×{image_size}")
for ax in (left, right): ax.axis("off")
save_figure(stage, figure, "preprocessing_squash", "A film at its own size and squashed to a square.")


# %% [markdown]
# ## Decoded once
#
# The cache is one NumPy file, opened as a memory map: the system reads the pages it needs and drops them when memory
# is short, so a set of any size can be trained on. Its name carries the size and the data fingerprint, and it is
# renamed into place when complete, so a file of that name is always the right one and always whole.

# %%
#| export
@dataclass
class Films:
    "The films of a run, decoded."
    images: pd.DataFrame # what images.csv holds
    pixels: np.ndarray   # (N, size, size) uint8, memory-mapped, in the order of `images`

    def rows(self, split: str) -> np.ndarray: # (n,) indices
        "Where the films of a split are."
        return np.flatnonzero(self.images.split == split)

    @property
    def labels(self) -> np.ndarray: # (N,) 0 normal, 1 pneumonia
        return self.images.label.to_numpy()

def decode_films(
    root: str | Path,  # folder that the paths are relative to
    paths: list[str],
    size: int,         # side of the squares
    file: Path,        # .npy to write
):
    "Decode and squash films into one NumPy file, (N, size, size) uint8."
    def one(n): pixels[n] = squash(read_film(root, paths[n]), size)
    with atomic_path(file) as partial:
        pixels = np.lib.format.open_memmap(partial, "w+", np.uint8, (len(paths), size, size))
        with ThreadPoolExecutor(os.cpu_count()) as pool: list(pool.map(one, range(len(paths))))
        pixels.flush()


# %%
#| export
def load_films(
    stage: Stage,
    image_size: int, # side of the squares, pixels
    seed: int = 42,  # for phantoms, if the run has no films yet
) -> Films:
    "The decoded films of this run, from the cache or decoded now."
    if image_size < 16: raise StudyError(f"Expected an image_size of at least 16 pixels, found {image_size}.")
    images = load_images(stage, seed)
    file = stage.path("cache", f"films_{image_size}_{images.attrs['fingerprint'][:12]}.npy")
    if not file.exists():
        if stage.name != "preprocessing": note(stage, f"the {image_size} px films were not in the cache and were decoded now.")
        for old in stage.path("cache").glob(f"films_{image_size}_*.npy"): old.unlink()  # of other films
        decode_films(images.attrs["root"], images.path.tolist(), image_size, file)
    return Films(images, np.load(file, mmap_mode="r"))


# %%
start = time.time()
films = load_films(stage, image_size, seed)
print(f"{len(films.images):,} films in {time.time() - start:.1f} s")
films.pixels.shape

# %%
again = load_films(stage, image_size, seed)   # nothing is decoded this time
test_eq(again.pixels, films.pixels)
test_eq(again.pixels[0], squash(film, image_size))


# %% [markdown]
# ## Augmentation
#
# Each time a film is trained on it is turned, shifted, zoomed and perhaps mirrored at random, within the reference
# study's ranges. The steps are composed into **one** affine map, so the film is interpolated once. (The study's shear
# of 0.2 means 0.2 *degrees* in Keras, which is next to nothing; it is kept as it is.) Validation and test films are
# never touched: they must look like the films a model will meet.

# %%
#| export
def affine_matrix(
    size: int,          # side of the film, pixels
    rotation=0.,        # degrees, anticlockwise
    shift=(0., 0.),     # fraction of the side, along x and y
    shear=0.,           # degrees
    zoom=(1., 1.),      # along x and y; above 1 shows more of the surroundings, as in Keras
    flip=False,         # mirror left and right
) -> np.ndarray: # (2, 3): output pixel → input pixel
    "Rotation, shift, shear, zoom and mirror about the film's middle, as one map."
    angle, slant = np.deg2rad(rotation), np.deg2rad(shear)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    lean = np.array([[1, -np.sin(slant)], [0, np.cos(slant)]])
    linear = turn @ lean @ np.diag(zoom) @ np.diag([-1. if flip else 1., 1.])
    middle = np.full(2, (size - 1) / 2)
    return np.column_stack([linear, middle - linear @ middle + turn @ (np.asarray(shift) * size)])

def warp(
    film: np.ndarray,   # (size, size) uint8, a film or a mask
    matrix: np.ndarray, # (2, 3) from `affine_matrix`
    interpolation=cv2.INTER_LINEAR,
) -> np.ndarray: # like `film`; what lies outside repeats the nearest edge
    "Apply an affine map."
    return cv2.warpAffine(film, matrix, film.shape[::-1], flags=interpolation | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE)


# %% [markdown]
# On a 4 × 4 film the right answers can be written down: nothing, a mirror, a quarter turn and a shift by one pixel.

# %%
tiny = np.arange(16, dtype=np.uint8).reshape(4, 4)
test_eq(warp(tiny, affine_matrix(4)), tiny)
test_eq(warp(tiny, affine_matrix(4, flip=True)), tiny[:, ::-1])
test_eq(warp(tiny, affine_matrix(4, rotation=90)), np.rot90(tiny))
test_eq(warp(tiny, affine_matrix(4, shift=(.25, 0))), tiny[:, [1, 2, 3, 3]])

# %%
#| export
AUGMENTATION = dict(rotation=20., shift=.2, shear=.2, zoom=.2, flip=True)  # the reference study's

def check_ranges(ranges: dict):
    "Refuse ranges with which nothing of a film might be left."
    limits = dict(rotation=180, shift=1, shear=90, zoom=1)
    for name, limit in limits.items():
        if not 0 <= ranges[name] < limit + (name == "rotation"): raise StudyError(
            f"Expected {name} to be at least 0 and below {limit}, found {ranges[name]}.")

def load_ranges(stage: Stage) -> dict: # as `AUGMENTATION`
    "The augmentation this run's preprocessing chose; the study's own if that stage has not run here."
    file = stage.path("metrics/preprocessing.json")
    if file.exists(): return read_json(file)["augmentation"]
    note(stage, "no preprocessing in this run, so films are augmented with the reference study's ranges.")
    return AUGMENTATION

def draw_matrix(
    rng: np.random.Generator,
    size: int,    # side of the film, pixels
    ranges: dict, # as `AUGMENTATION`
) -> np.ndarray: # (2, 3)
    "A random affine map within `ranges`."
    return affine_matrix(size, rng.uniform(-ranges["rotation"], ranges["rotation"]),
                         rng.uniform(-ranges["shift"], ranges["shift"], 2), rng.uniform(-ranges["shear"], ranges["shear"]),
                         rng.uniform(1 - ranges["zoom"], 1 + ranges["zoom"], 2), ranges["flip"] and rng.random() < .5)

def augment(
    film: np.ndarray, # (size, size) uint8
    seed: int,
    epoch: int,
    number: int,      # which film, its row in images.csv
    ranges: dict,     # as `AUGMENTATION`; {} leaves the film as it is
) -> np.ndarray: # (size, size) uint8
    "The film as epoch `epoch` sees it."
    return warp(film, draw_matrix(rng_for(seed, "augment", epoch, number), len(film), ranges)) if ranges else film


# %%
ranges = dict(rotation=rotation, shift=shift, shear=shear, zoom=zoom, flip=flip)
check_ranges(ranges)
test_fail(lambda: check_ranges(AUGMENTATION | dict(zoom=5)), contains="zoom to be at least 0 and below 1, found 5")
one = augment(films.pixels[0], seed, 3, 0, ranges)
test_eq(one, augment(films.pixels[0], seed, 3, 0, ranges))
assert (one != augment(films.pixels[0], seed, 4, 0, ranges)).any()
test_eq(augment(films.pixels[0], seed, 3, 0, {}), films.pixels[0])


# %% [markdown]
# ## Batches
#
# Training runs through the train films in a new order each epoch. Order and augmentation depend on seed, epoch and
# film alone, so a training that was interrupted after epoch 7 continues with exactly the films that epoch 8 would have
# had. `tf.data` draws the next batches while the network works on the present one.

# %%
#| export
def training_batches(
    films: Films,
    rows: np.ndarray, # which films
    batch_size: int,
    seed: int,
    ranges: dict,     # as `AUGMENTATION`, or {}
    first_epoch: int = 0,
): # yields films (b, size, size, 1) uint8 and labels (b, 1) float32, epoch after epoch, without end
    "Shuffled, augmented batches."
    for epoch in count(first_epoch):
        order = rows[rng_for(seed, "order", epoch).permutation(len(rows))]
        for chosen in np.split(order, range(batch_size, len(order), batch_size)):
            batch = np.stack([augment(films.pixels[n], seed, epoch, int(n), ranges) for n in chosen])
            yield batch[..., None], films.labels[chosen, None].astype(np.float32)

def plain_batches(
    films: Films,
    rows: np.ndarray,
    batch_size: int,
): # yields as `training_batches`, once through, in order, untouched
    "Validation and test batches."
    for chosen in np.split(rows, range(batch_size, len(rows), batch_size)):
        yield films.pixels[chosen][..., None], films.labels[chosen, None].astype(np.float32)

def as_dataset(
    batches, # function without arguments that gives an iterator of batches
    size: int,
    length: int | None, # number of batches; None for no end
): # tf.data.Dataset
    "Batches as a `tf.data` set that stays two ahead."
    import tensorflow as tf
    signature = (tf.TensorSpec((None, size, size, 1), tf.uint8), tf.TensorSpec((None, 1), tf.float32))
    endless = tf.data.experimental.INFINITE_CARDINALITY
    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature).prefetch(2)
    return dataset.apply(tf.data.experimental.assert_cardinality(endless if length is None else length))


# %% [markdown]
# The figure shows train films, each as it is and as the first five epochs see it, taken from `training_batches`
# itself.

# %%
#| export
def plot_augmentation(
    films: Films,
    rows: np.ndarray, # a few train films
    seed: int,
    ranges: dict,
    epochs: int = 5,
): # matplotlib Figure
    "Films beside what training sees of them."
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots(len(rows), epochs + 1, figsize=(2 * (epochs + 1), 2.15 * len(rows)), squeeze=False)
    batches = training_batches(films, rows, 1, seed, ranges)
    for ax in axes.flat: ax.set(xticks=[], yticks=[])
    for row, n in zip(axes, rows):
        row[0].imshow(films.pixels[n], vmin=0, vmax=255)
        row[0].set_ylabel(films.images.kind[n], color=COLOURS[films.images.kind[n]])
    for epoch in range(epochs):
        for n in rows[rng_for(seed, "order", epoch).permutation(len(rows))]:
            axes[list(rows).index(n), epoch + 1].imshow(next(batches)[0][0, ..., 0], vmin=0, vmax=255)
        axes[0, epoch + 1].set_title(f"epoch {epoch + 1}")
    axes[0, 0].set_title("as it is")
    return figure


# %%
train = films.rows("train")
shown = sample_films(films.images.iloc[train], "kind", 1, seed).index.to_numpy()
save_figure(stage, plot_augmentation(films, shown, seed, ranges), "preprocessing_augmentation",
            f"A normal, a bacterial and a viral train film as they are and as five epochs see them: turned up to {rotation:g} degrees, "
            f"shifted and zoomed up to {zoom:.0%}" + (", some mirrored." if flip else "."))

# %%
#| hide
batches = training_batches(films, train, 32, seed, ranges)
first = [next(batches) for _ in range(-(-len(train) // 32))]
test_eq(sum(len(y) for _, y in first), len(train))
test_eq(np.concatenate([y for _, y in first]).sum(), films.labels[train].sum())
test_eq(next(batches)[0], next(training_batches(films, train, 32, seed, ranges, first_epoch=1))[0])
x, y = next(plain_batches(films, films.rows("validation"), 8))
test_eq(x[..., 0], films.pixels[films.rows("validation")[:8]])


# %% [markdown]
# ## Class weights
#
# With three pneumonia films for each normal one, a network gains most by leaning towards pneumonia. Weighting each film
# by n / (2 n_c), from the films actually trained on, makes both classes count the same. On the published train folder
# these are about 1.945 and 0.673.

# %%
#| export
def class_weights(
    labels: np.ndarray, # (n,) 0 or 1, of the films trained on
) -> dict[int, float]: # class → weight
    "Weights with which both classes count the same in the loss."
    counts = np.bincount(labels, minlength=2)
    if counts.min() == 0: raise StudyError(f"Expected films of both classes to train on, found {counts[0]} normal and {counts[1]} pneumonia.")
    return {n: len(labels) / (2 * c) for n, c in enumerate(counts.tolist())}


# %%
test_close(list(class_weights(np.repeat([0, 1], [1341, 3875])).values()), [1.945, .673], eps=1e-3)
test_fail(lambda: class_weights(np.ones(3, int)), contains="0 normal")
weights = class_weights(films.labels[train])
weights


# %%
#| export
def preprocessing_findings(
    films: Films,
    weights: dict[int, float], # from `class_weights`
) -> str: # markdown
    "What preprocessing made, in words."
    n, size = len(films.images), films.pixels.shape[1]
    return (f"- **{n:,} films of {size} × {size} pixels** take {films.pixels.nbytes / 1e6:,.1f} MB and are decoded no more in this run.\n"
            f"- A normal train film counts {weights[0]:.3f}, a pneumonia one {weights[1]:.3f}.\n"
            f"- Only the {len(films.rows('train')):,} train films are augmented; the {len(films.rows('validation')):,} validation and "
            f"{len(films.rows('test')):,} test films stay as they are.")


# %%
display(Markdown(preprocessing_findings(films, weights)))
write_json(stage.path("metrics/preprocessing.json"), dict(image_size=image_size, films=len(films.images), class_weights=weights,
           augmentation=ranges))
record = finish(stage)
