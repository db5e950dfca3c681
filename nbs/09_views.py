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
# # Views of a film
#
# > The same film moved, with other gray levels, other sharpness or another shape: what training sees of it

# %%
#| default_exp views

# %%
#| export
from functools import lru_cache

import cv2
import numpy as np
import pandas as pd

from pneumo_nb.run import StudyError, rng_for
from pneumo_nb.cache import Films, take

# %%
#| hide
import matplotlib.pyplot as plt
from fastcore.test import test_close, test_eq, test_fail
from pneumo_nb.style import plot_style, show_figure
from pneumo_nb.phantom import draw_anatomy, draw_film
from pneumo_nb.cache import squash
plot_style()


# %% [markdown]
# A network that saw each film once a training, always the same way, would learn the films by heart.
# Augmentation shows it another **view** of a film in each epoch. A view may change whatever says nothing
# about the child's lungs: where the child stood, how dark the film is, how sharply the machine draws.
#
# This notebook has two ways of augmentation. The first is the reference study's, which moves films. The
# second is the recipe's, which also takes away what separates the classes without being disease. Validation
# and test films are never touched: they must look like the films that a model will meet.
#
# Two phantoms of 128 pixels serve as examples, one normal and one with pneumonia:

# %%
def phantom(kind, number):
    film, _ = draw_film(draw_anatomy(rng_for(number)), kind, rng_for(number + 1), height=256)
    return squash(film, 128)

normal, sick = phantom("normal", 3), phantom("bacteria", 8)
normal.shape, sick.shape


# %% [markdown]
# ## Moving a film
#
# Turning, shifting, shearing, zooming and mirroring are composed into **one** affine map, so that the film is
# interpolated only once. The map leads from a pixel of the result to the place that it comes from.

# %%
#| export
def affine_matrix(
    size: int,          # side of the film, pixels
    rotation=0.,        # degrees, anticlockwise; like all that follow a number, or (N,) for N films
    shift=(0., 0.),     # fraction of the side, along x and y
    shear=0.,           # degrees
    zoom=(1., 1.),      # along x and y; above 1 shows more of the surroundings, as in Keras
    flip=False,         # mirror left and right
) -> np.ndarray: # (..., 2, 3): output pixel → input pixel
    "Rotation, shift, shear, zoom and mirror about the film's middle, as one map."
    turn, lean = np.deg2rad(rotation), np.deg2rad(rotation) + np.deg2rad(shear)
    mirror = np.where(flip, -1., 1.)
    linear = np.array([[np.cos(turn) * zoom[0] * mirror, -np.sin(lean) * zoom[1]],
                       [np.sin(turn) * zoom[0] * mirror, np.cos(lean) * zoom[1]]])
    moved = np.array([np.cos(turn) * shift[0] - np.sin(turn) * shift[1],
                      np.sin(turn) * shift[0] + np.cos(turn) * shift[1]]) * size
    middle = (size - 1) / 2
    offset = middle - linear.sum(axis=1) * middle + moved
    return np.moveaxis(np.concatenate([linear, offset[:, None]], axis=1), (0, 1), (-2, -1))


# %%
test_eq(affine_matrix(4), [[1, 0, 0], [0, 1, 0]])
affine_matrix(4, rotation=np.array([10., 20., 30.])).shape


# %%
#| export
def warp(
    film: np.ndarray,   # (size, size) uint8, a film or a mask
    matrix: np.ndarray, # (2, 3) from `affine_matrix`
    interpolation=cv2.INTER_LINEAR,
) -> np.ndarray: # like `film`; what lies outside repeats the nearest edge
    "Apply an affine map."
    return cv2.warpAffine(film, matrix, film.shape[::-1], flags=interpolation | cv2.WARP_INVERSE_MAP,
                          borderMode=cv2.BORDER_REPLICATE)


# %% [markdown]
# On a film of 4 × 4 pixels the right answers can be written down: nothing, a mirror, a quarter turn, and a
# shift by one pixel.

# %%
tiny = np.arange(16, dtype=np.uint8).reshape(4, 4)
test_eq(warp(tiny, affine_matrix(4)), tiny)
test_eq(warp(tiny, affine_matrix(4, flip=True)), tiny[:, ::-1])
test_eq(warp(tiny, affine_matrix(4, rotation=90)), np.rot90(tiny))
test_eq(warp(tiny, affine_matrix(4, shift=(.25, 0))), tiny[:, [1, 2, 3, 3]])

# %% [markdown]
# ## The reference study's augmentation
#
# The study's ranges are kept for comparison, with two peculiarities. Its shear of 0.2 means 0.2 *degrees* in
# Keras, which is next to nothing. And a mirrored film has the heart on the wrong side, as hardly any child
# has.

# %%
#| export
AUGMENTATION = dict(rotation=20., shift=.2, shear=.2, zoom=.2, flip=True)

def check_ranges(
    ranges: dict, # as `AUGMENTATION`: degrees, fraction of the side, degrees, fraction, whether to mirror
):
    "Refuse ranges with which nothing of a film might be left."
    for name, limit in dict(rotation=181, shift=1, shear=90, zoom=1).items():
        if not 0 <= ranges[name] < limit:
            raise StudyError(f"Expected {name} to be at least 0 and below {limit}, found {ranges[name]}.")


# %%
check_ranges(AUGMENTATION)
check_ranges(AUGMENTATION | dict(rotation=180))
too_far = AUGMENTATION | dict(zoom=5)
test_fail(lambda: check_ranges(too_far), contains="zoom to be at least 0 and below 1, found 5")


# %% [markdown]
# Maps are drawn for all films of a set at once. A film's map depends on the seed, the view and its own
# number, not on how many other films there are.

# %%
#| export
def draw_matrices(
    seed: int,
    view: int,    # which drawing; an epoch, say
    count: int,   # how many films
    size: int,    # side of the films, pixels
    ranges: dict, # as `AUGMENTATION`
) -> np.ndarray: # (count, 2, 3); film n's does not depend on `count`
    "A random affine map within `ranges` for each film."
    turn, x, y, lean, wide, high, mirror = rng_for(seed, "augment", view).random((count, 7)).T
    either_way = lambda u, most: (2 * u - 1) * most
    return affine_matrix(
        size, either_way(turn, ranges["rotation"]), either_way(np.stack([x, y]), ranges["shift"]),
        either_way(lean, ranges["shear"]), 1 + either_way(np.stack([wide, high]), ranges["zoom"]),
        ranges["flip"] & (mirror < .5))


# %%
nine = draw_matrices(1, 3, 9, 64, AUGMENTATION)
test_eq(nine, draw_matrices(1, 3, 12, 64, AUGMENTATION)[:9])
assert (nine != draw_matrices(1, 4, 9, 64, AUGMENTATION)).any()


# %% [markdown]
# ## What an epoch reads
#
# Training asks for films by epoch and index. A **reader** answers with a batch. The plain one, for validation
# and test films, gives films as they are.

# %%
#| export
def as_they_are(pixels: np.ndarray): # function of epoch and (b,) indices → (b, size, size, 1) uint8
    "Reads films untouched."
    return lambda epoch, chosen: take(pixels, chosen)[..., None]


# %%
pair = np.stack([normal, sick])
test_eq(as_they_are(pair)(0, np.array([1]))[0, ..., 0], sick)


# %% [markdown]
# The augmenting reader has one map for each film and epoch. With `views`, only so many versions of each film
# are drawn and used in turn; 0 draws a new one in every epoch. A network whose first layers are frozen can
# then have those layers' output kept for each view.

# %%
#| export
def augmented(
    pixels: np.ndarray, # (N, size, size) uint8
    seed: int,
    ranges: dict,       # as `AUGMENTATION`
    views: int = 0,     # versions of each film, used in turn; 0: a new one in every epoch
): # function of epoch and (b,) indices → (b, size, size, 1) uint8
    "Reads films as an epoch sees them."
    if views < 0: raise StudyError(f"Expected views of 0 (a new one in every epoch) or more, found {views}.")
    matrices = lru_cache(2)(lambda view: draw_matrices(seed, view, len(pixels), pixels.shape[1], ranges))
    def read(epoch, chosen):
        matrix = matrices(int(epoch) % views if views else int(epoch))
        return np.stack([warp(film, matrix[n]) for film, n in zip(take(pixels, chosen), chosen)])[..., None]
    return read


# %%
read = augmented(pair, 1, AUGMENTATION, views=2)
both = read(0, np.array([0, 1]))
test_eq(both, read(2, np.array([0, 1])))        # two views: epoch 2 sees what epoch 0 saw
test_eq(both[1], read(0, np.array([1]))[0])     # whatever else is in the batch
assert (both != read(1, np.array([0, 1]))).any()
test_fail(lambda: augmented(pair, 1, AUGMENTATION, views=-1), contains="views of 0")
both.shape


# %% [markdown]
# ## Gray levels from elsewhere
#
# Classes may differ in their gray levels because other machines filmed other children. To take that away,
# `match_levels` gives a film the histogram of another. The darkest tenth of its pixels become as dark as the
# darkest tenth there, and so on. The order of gray stays, so bones and vessels stay where they are.

# %%
#| export
def level_counts(film: np.ndarray) -> np.ndarray: # (256,) how many pixels are at most 0, 1, … 255
    "Cumulative histogram of a uint8 film."
    return np.cumsum(np.bincount(film.ravel(), minlength=256))

def match_levels(
    film: np.ndarray,   # (H, W) uint8
    counts: np.ndarray, # `level_counts` of another film
) -> np.ndarray: # (H, W) uint8
    "The film with the other's gray levels: the lowest level there that as many pixels reach."
    here = level_counts(film)
    return np.searchsorted(counts * here[-1], here * counts[-1]).astype(np.uint8)[film]


# %%
dark = np.array([[0, 10], [20, 30]], np.uint8)
light = np.array([[100, 120], [140, 160]], np.uint8)
test_eq(match_levels(dark, level_counts(light)), light)
test_eq(match_levels(light, level_counts(light)), light)

# %% [markdown]
# ## Sharpness from elsewhere
#
# A film is cut into four bands of detail, each twice as coarse as the one before, and a rest. The bands are
# differences of Gaussians, as in the pyramid of Burt and Adelson (1983). The coarsest reaches up to about a
# twelfth of the side.

# %%
#| export
_BAND_COUNT = 4

def _split_bands(
    film: np.ndarray, # (S, S)
) -> tuple[list[np.ndarray], np.ndarray]: # details (S, S) float32, fine to coarse, and the rest
    "Bands of detail and the rest, which add up to the film."
    details, left = [], film.astype(np.float32)
    for n in range(_BAND_COUNT):
        deviation = .6 / 64 * 2 ** n * len(film)  # of the Gaussian, pixels: from .94 % of the side
        coarser = cv2.GaussianBlur(left, (0, 0), deviation)
        details.append(left - coarser)
        left = coarser
    return details, left


# %%
details, rest = _split_bands(sick)
test_close(sum(details) + rest, sick, eps=1e-3)
titles = ["film", "finest", "fine", "coarse", "coarsest", "rest"]
figure, axes = plt.subplots(1, 6, figsize=(12, 2.3))
for ax, part, title in zip(axes, [sick, *details, rest], titles):
    low, high = (0, 255) if title in ("film", "rest") else (-30, 30)
    ax.imshow(part, vmin=low, vmax=high)
    ax.set_title(title)
    ax.axis("off")
_ = show_figure(figure, "views_bands", "A film cut into four bands of detail and a rest.",
                "A phantom film, its details from finest to coarsest, and what is left: a soft chest.")


# %% [markdown]
# How far the pixels of a band scatter says how strongly a machine draws detail of that size. In
# `match_bands`, each band gets the scatter that it has in another film, so contrast is copied at four sizes.
# Where a vessel or a rib is stays as it was; how strongly it is drawn does not. A veil over the whole lung
# changes these numbers as well, so a true sign may be weakened.

# %%
#| export
def band_scatters(film: np.ndarray) -> np.ndarray: # (4,) gray values, fine to coarse
    "Standard deviation of each band of a film (S, S)."
    return np.array([detail.std() for detail in _split_bands(film)[0]])

def match_bands(
    film: np.ndarray,     # (S, S) uint8
    scatters: np.ndarray, # `band_scatters` of another film
) -> np.ndarray: # (S, S) uint8
    "The film with the other's sharpness; no band gets more than three times stronger or weaker."
    details, rest = _split_bands(film)
    for detail, scatter in zip(details, scatters):
        rest += detail * np.clip(scatter / max(detail.std(), .5), 1 / 3, 3)
    return np.clip(rest, 0, 255).astype(np.uint8)


# %%
grainy = np.random.default_rng(0).integers(60, 190, (64, 64)).astype(np.uint8)
soft = match_bands(grainy, band_scatters(grainy) / 2)
test_close(band_scatters(soft)[0] / band_scatters(grainy)[0], .5, eps=.03)
test_close(soft.mean(), grainy.mean(), eps=1)

# %% [markdown]
# ## A frame from elsewhere
#
# The outermost pixels of a film show no lung. They show how the film was cut, the black beside the patient,
# side markers, and text that a machine burnt in. All of that may be a sign of the class. To take it away,
# `lend_frame` puts the frame of another film around a film. A soft edge leaves no line to learn from.

# %%
#| export
FRAME_WIDTHS = .04, .16  # least and greatest, as a share of the film's side

@lru_cache(64)
def frame_mask(
    size: int,          # side of the film, pixels
    width: float,       # of the frame, as a share of the side
    edge: float = .03,  # over which the frame fades, as a share of the side
) -> np.ndarray: # (size, size) float32: 1 on the frame, 0 inside, between them across the edge
    "Where a frame lies."
    place = np.arange(size) + .5
    from_edge = np.minimum(place, size - place) / size
    inward = np.minimum(from_edge[:, None], from_edge)
    return np.clip((width - inward) / edge + .5, 0, 1).astype(np.float32)


def lend_frame(
    film: np.ndarray,  # (S, S) uint8
    other: np.ndarray, # (S, S) uint8, the film whose frame is lent
    width: float,      # of the frame, as a share of the side
) -> np.ndarray: # (S, S) uint8
    "The film in the frame of another."
    mask = frame_mask(len(film), round(float(width), 3))
    return np.rint(film + mask * (other.astype(np.float32) - film)).astype(np.uint8)


# %%
framed = lend_frame(normal, sick, .1)
test_eq(framed[20:-20, 20:-20], normal[20:-20, 20:-20])    # 10 % of 128 pixels and the edge are outside
test_eq(framed[:10], sick[:10])
test_eq(lend_frame(sick, sick, .1), sick)


# %% [markdown]
# ## Text painted over, and text from elsewhere
#
# Text and side markers can be taken out of a film, or put into one. A place is given as a box, in shares of
# the film's sides, so that it fits at any size. Each box is widened by a hundredth of the side, at least by a
# pixel, because letters fade into their surroundings.

# %%
#| export
def box_mask(
    size: int,   # side of the film, pixels
    boxes: list, # of x, y, w, h: left and upper edge, width and height, shares of the sides
) -> np.ndarray: # (size, size) uint8: 1 in the widened boxes
    "Where boxes lie."
    mask, margin = np.zeros((size, size), np.uint8), max(1, round(size / 100))
    for x, y, w, h in boxes:
        left, top = (max(0, int(share * size) - margin) for share in (x, y))
        right, bottom = (int(np.ceil(share * size)) + margin for share in (x + w, y + h))
        mask[top:bottom, left:right] = 1
    return mask


# %%
test_eq(box_mask(8, [(.25, .5, .25, .125)])[[2, 3, 5, 6], :5],
        [[0] * 5, [0, 1, 1, 1, 1], [0, 1, 1, 1, 1], [0] * 5])


# %% [markdown]
# `painted_over` fills the boxes with what lies around them (Telea, 2004). What was written there is gone, and
# so is whatever lung lay below. The boxes are emptied first: at a film's edge, OpenCV reads what it shall
# replace.

# %%
#| export
def painted_over(
    film: np.ndarray, # (S, S) uint8
    boxes: list,      # of x, y, w, h, shares of the sides
) -> np.ndarray: # (S, S) uint8
    "The film with boxes filled from their surroundings."
    mask = box_mask(len(film), boxes)
    if not mask.any(): return film
    emptied = np.where(mask == 1, film[mask == 0].mean().astype(np.uint8), film)
    return cv2.inpaint(emptied, mask, 3, cv2.INPAINT_TELEA)


# %%
corner = [(.7, .85, .25, .08)]
written = cv2.putText(np.full((128, 128), 90, np.uint8), "KV5", (92, 118), cv2.FONT_HERSHEY_PLAIN, .8, 230)
blank, filled = np.full((128, 128), 90, np.uint8), painted_over(written, corner)
assert written.max() == 230 and np.abs(filled.astype(int) - 90).max() < 5
test_eq(filled, painted_over(blank, corner))   # nothing of the text is left
test_eq(painted_over(written, []), written)


# %% [markdown]
# `pasted` lays the boxes of another film over this one. Their edge is soft, as that of a lent frame.

# %%
#| export
def pasted(
    film: np.ndarray,  # (S, S) uint8
    other: np.ndarray, # (S, S) uint8
    boxes: list,       # of x, y, w, h, shares of the sides
) -> np.ndarray: # (S, S) uint8
    "The film with the boxes of another."
    mask = box_mask(len(film), boxes).astype(np.float32)
    mask = np.maximum(mask, cv2.GaussianBlur(mask, (0, 0), len(film) / 100))
    return np.rint(film + mask * (other.astype(np.float32) - film)).astype(np.uint8)


# %%
lent = pasted(normal, written, corner)
test_eq(lent[109:119, 90:121], written[109:119, 90:121])   # the text is there
test_eq(lent[:96], normal[:96])                             # and far from it all is as it was
test_eq(pasted(normal, written, []), normal)

# %% [markdown]
# ## The recipe's augmentation
#
# In each epoch a train film goes through these steps, in this order. It may be lent the frame of another
# film, and may be given other gray levels. It is turned, shifted, stretched and perhaps mirrored in one map.
# It may be given other sharpness. It is made harder or softer, darker or lighter, and may be blurred or given
# noise. Last, rectangles of it are wiped out.
#
# The table holds each ingredient's largest value: a share of films, degrees, or a fraction of the side. For
# `stretch` and `gamma` it is the exponent of e, and `cutout` counts rectangles. `RECIPE` holds the values
# that the study uses unless a run says otherwise.

# %%
#| export
RECIPE = dict(frames=.5, match=.5, bands=.5, rotation=10., shift=.06, stretch=.18, flip=True, equalise=.3,
              gamma=.4, blur=.3, noise=.3, cutout=1)
RECIPE_RANGES = dict(frames=1, match=1, bands=1, rotation=180, shift=.5, stretch=1, flip=1, equalise=1,
                     gamma=2, blur=1, noise=1, cutout=8)

def check_recipe(
    ranges: dict, # a value for each name in RECIPE_RANGES
):
    "Refuse ranges that make no sense."
    for name, most in RECIPE_RANGES.items():
        if not 0 <= ranges[name] <= most:
            raise StudyError(f"Expected {name} to be between 0 and {most}, found {ranges[name]}.")


# %%
check_recipe(RECIPE)
test_fail(lambda: check_recipe(RECIPE | dict(match=3)), contains="match to be between 0 and 1, found 3")


# %% [markdown]
# Both axes are stretched by themselves. Squashing to a square made the shape of a chest a sign of its class,
# and stretching takes that sign away.

# %%
#| export
def _move_film(film: np.ndarray, rng, ranges: dict) -> np.ndarray:
    "Turn, shift, stretch and mirror, in one map."
    shift, stretch = ranges["shift"], ranges["stretch"]
    most = np.array([ranges["rotation"], shift, shift, stretch, stretch])
    turn, x, y, wide, high = rng.uniform(-1, 1, 5) * most
    mirrored = ranges["flip"] and rng.random() < .5
    return warp(film, affine_matrix(len(film), turn, (x, y), 0., np.exp([wide, high]), mirrored))


# %%
still = dict.fromkeys(RECIPE_RANGES, 0)
test_eq(_move_film(sick, np.random.default_rng(0), still), sick)


# %% [markdown]
# Local equalisation is CLAHE (Zuiderveld, 1994): gray levels are spread out in each part of the film, with a
# limit on contrast.

# %%
#| export
def _change_gray(film: np.ndarray, rng, ranges: dict) -> np.ndarray:
    "Local equalisation, gamma, blur and noise."
    if rng.random() < ranges["equalise"]: film = cv2.createCLAHE(2., (4, 4)).apply(film)
    power = np.exp(rng.uniform(-ranges["gamma"], ranges["gamma"]))
    film = ((np.arange(256) / 255) ** power * 255).astype(np.float32)[film]
    if rng.random() < ranges["blur"]:
        film = cv2.GaussianBlur(film, (0, 0), rng.uniform(.003, .0125) * len(film))
    if rng.random() < ranges["noise"]:
        film = film + rng.standard_normal(film.shape, np.float32) * rng.uniform(1, 10)
    return np.clip(film, 0, 255).astype(np.uint8)


# %%
changed = [_change_gray(sick, np.random.default_rng(n), RECIPE) for n in range(2)]
assert (changed[0] != changed[1]).any()
assert np.abs(_change_gray(sick, np.random.default_rng(0), still).astype(int) - sick).max() <= 1   # rounding


# %%
#| export
def _wipe_out(film: np.ndarray, rng, rectangles: int) -> np.ndarray: # `film`, changed in place
    "Rectangles of a tenth to a third of the side, filled with their own mean (DeVries and Taylor, 2017)."
    for _ in range(rectangles):
        h, w = (rng.uniform(.1, .35, 2) * len(film)).astype(int)
        y, x = rng.integers(0, len(film) - h + 1), rng.integers(0, len(film) - w + 1)
        film[y:y + h, x:x + w] = film[y:y + h, x:x + w].mean()
    return film


# %%
test_close(_wipe_out(sick.copy(), np.random.default_rng(0), 3).mean(), sick.mean(), eps=.5)


# %% [markdown]
# Frames, gray levels and sharpness come from the train films, of whatever class. Each number is drawn from
# the seed, the epoch and the film alone, as everywhere in the study. Frames are drawn by themselves, so that
# a recipe without them sees what it saw before there were any.

# %%
#| export
def _lend_any_frame(film: np.ndarray, train: np.ndarray, rng, share: float) -> np.ndarray:
    "The film, or with a chance of `share` in the frame of a random train film."
    if not share or rng.random() >= share: return film
    return lend_frame(film, train[rng.integers(len(train))], rng.uniform(*FRAME_WIDTHS))


# %%
test_eq(_lend_any_frame(normal, pair, np.random.default_rng(0), 0), normal)
assert (_lend_any_frame(normal, sick[None], np.random.default_rng(0), 1) != normal).any()


# %%
#| export
def recipe_views(
    films: Films,
    seed: int,
    ranges: dict, # a value for each name in RECIPE_RANGES
): # function of epoch and (b,) indices → (b, size, size, 1) uint8
    "Reads train films as an epoch of the recipe sees them."
    train = take(films.pixels, films.rows("train"))
    counts = np.stack([level_counts(film) for film in train])
    scatters = np.stack([band_scatters(film) for film in train]) if ranges["bands"] else None
    def view(film, epoch, n):
        film = _lend_any_frame(film, train, rng_for(seed, "frame", epoch, n), ranges["frames"])
        rng = rng_for(seed, "recipe", epoch, n)
        if rng.random() < ranges["match"]: film = match_levels(film, counts[rng.integers(len(counts))])
        film = _move_film(film, rng, ranges)
        if rng.random() < ranges["bands"]: film = match_bands(film, scatters[rng.integers(len(scatters))])
        return _wipe_out(_change_gray(film, rng, ranges), rng, ranges["cutout"])
    def read(epoch, chosen):
        views = [view(film, int(epoch), int(n)) for film, n in zip(take(films.pixels, chosen), chosen)]
        return np.stack(views)[..., None]
    return read


# %%
films = Films(pd.DataFrame(dict(split=["train"] * 2, label=[0, 1])), pair)
read, both = recipe_views(films, 1, RECIPE), np.array([0, 1])
test_eq(read(1, both)[1], read(1, both[1:])[0])                     # whatever else is in the batch
test_eq(read(1, both), recipe_views(films, 1, RECIPE)(1, both))      # and whenever it is asked for
assert (read(1, both) != read(2, both)).any()

# %% [markdown]
# [The figure](#fig-views_recipe) shows the phantom with pneumonia as the reference study's augmentation sees
# it in four epochs, and below as the recipe does.

# %%
rows = {"the study's": augmented(pair, 1, AUGMENTATION), "the recipe's": read}
figure, axes = plt.subplots(2, 5, figsize=(10, 4.2))
for ax in axes.flat: ax.set(xticks=[], yticks=[])
for row, (title, reader) in zip(axes, rows.items()):
    row[0].imshow(sick, vmin=0, vmax=255)
    row[0].set_ylabel(title)
    for epoch, ax in enumerate(row[1:]):
        ax.imshow(reader(epoch, both[1:])[0, ..., 0], vmin=0, vmax=255)
        axes[0, epoch + 1].set_title(f"epoch {epoch + 1}")
axes[0, 0].set_title("as it is")
_ = show_figure(figure, "views_recipe", "One film in four epochs of either augmentation.",
                "A phantom film as it is; moved about by the study's augmentation; and by the recipe's moved "
                "less, with other gray levels and a wiped-out rectangle.")


# %% [markdown]
# ## One property of the other class
#
# What does a network lean on? One can ask it again about films that got one property of the **other class**.
# A network that reads gray levels as a sign of the class is misled each time by `swapped_levels`. A network
# that was augmented with `match` has trained for that, so for that one property it is no independent
# evidence. The same holds for `bands` and `swapped_bands`, and for `stretch` and `swapped_shape`.

# %%
#| export
def _one_of_other_class(labels: np.ndarray, rng) -> list[int]: # for each film a place in `labels`
    "A random film of the other class for each film."
    return [rng.choice(np.flatnonzero(labels != label)) for label in labels]

def swapped_levels(
    films: Films,
    rows: np.ndarray, # which films, of both classes
    seed: int,
) -> np.ndarray: # (len(rows), size, size) uint8
    "Films with the gray levels of a random one of the other class among them."
    pixels = take(films.pixels, rows)
    others = _one_of_other_class(films.labels[rows], rng_for(seed, "swap"))
    counts = [level_counts(film) for film in pixels]
    return np.stack([match_levels(film, counts[other]) for film, other in zip(pixels, others)])


# %%
bright = Films(films.images, np.stack([normal // 4, 255 - sick // 4]))
swapped = swapped_levels(bright, both, 1)
assert swapped[0].min() >= 191 and swapped[1].max() < 64


# %%
#| export
def swapped_bands(
    films: Films,
    rows: np.ndarray, # which films, of both classes
    seed: int,
) -> np.ndarray: # (len(rows), size, size) uint8
    "Films with the sharpness of a random one of the other class among them."
    pixels = take(films.pixels, rows)
    scatters = np.stack([band_scatters(film) for film in pixels])
    others = _one_of_other_class(films.labels[rows], rng_for(seed, "swap sharpness"))
    return np.stack([match_bands(film, scatters[other]) for film, other in zip(pixels, others)])


# %%
blurred = Films(films.images, np.stack([cv2.GaussianBlur(normal, (0, 0), 1), normal]))
before = [band_scatters(film)[0] for film in blurred.pixels]
after = [band_scatters(film)[0] for film in swapped_bands(blurred, both, 1)]
assert before[0] < before[1] and after[0] > after[1]


# %% [markdown]
# A frame says nothing about the lungs. `swapped_frames` gives every film the widest frame that the recipe
# lends, from a film of the other class. With `same_class` it comes from another film of the same class: that
# shows what a strange frame costs by itself.

# %%
#| export
def swapped_frames(
    films: Films,
    rows: np.ndarray, # which films, of both classes
    seed: int,
    same_class: bool = False, # take the frame from a film of the same class, the film itself included
) -> np.ndarray: # (len(rows), size, size) uint8
    "Films in the frame of a random one of the other class among them."
    pixels, labels, rng = take(films.pixels, rows), films.labels[rows], rng_for(seed, "swap frames")
    if same_class: others = [rng.choice(np.flatnonzero(labels == label)) for label in labels]
    else: others = _one_of_other_class(labels, rng)
    return np.stack([lend_frame(film, pixels[other], FRAME_WIDTHS[1]) for film, other in zip(pixels, others)])


# %%
test_eq(swapped_frames(films, both, 1), [lend_frame(normal, sick, .16), lend_frame(sick, normal, .16)])
test_eq(swapped_frames(films, both, 1, same_class=True), pair)   # of one film a class, each gets its own

# %% [markdown]
# Originals with pneumonia are wider for their height, so squashing to a square makes their chests narrower.
# In the reference study's sample of 100 films a class, mean width over mean height is 1205 / 826 with
# pneumonia and 1630 / 1346 without: a ratio of 1.2. With `swapped_shape`, every film is stretched as if its
# original had had the form that is usual in the other class.

# %%
#| export
SHAPE_GAP = (1205 / 826) / (1630 / 1346)

def swapped_shape(
    films: Films,
    rows: np.ndarray,
    gap: float = SHAPE_GAP, # width over height with pneumonia, divided by that without
) -> np.ndarray: # (len(rows), size, size) uint8
    "Normal films as if from originals wider by the gap, pneumonia films as if from narrower ones."
    wider = np.where(films.labels[rows] == 0, np.sqrt(gap), 1 / np.sqrt(gap))
    matrices = [affine_matrix(films.size, zoom=(z, 1 / z)) for z in wider]
    return np.stack([warp(film, matrix) for film, matrix in zip(take(films.pixels, rows), matrices)])


# %%
box = np.zeros((2, 65, 65), np.uint8)
box[:, 22:43, 22:43] = 200
was_normal, was_sick = swapped_shape(Films(films.images, box), both) > 100
wide, high = was_normal.any(axis=0).sum(), was_normal.any(axis=1).sum()
assert wide < 21 < high                     # narrower than high, as squashed films with pneumonia are
test_eq(was_sick.any(axis=0).sum(), high)
test_eq(swapped_shape(Films(films.images, box), both, gap=1.), box)   # no gap, nothing to swap


# %% [markdown]
# The study's gap must not be applied to films that have another. It makes normal films narrower than they
# are. Where no gap made the two classes alike, this **adds** a sign of the class instead of swapping one, and
# the network may look better than before.
#
# So the gap is measured on the originals. Where all of them have one size, someone has reshaped them before,
# and there is nothing to measure; then it is the study's. Among few films a measured gap may itself be
# chance. So both directions are tried and the lower AUROC counts: one direction misleads, the other may
# flatter, and a mean would hide the first behind the second. That makes the examination a little severe.

# %%
#| export
def shape_gaps(
    images: pd.DataFrame, # label, width, height of the originals
) -> list[float]: # the measured gap, or the study's where none can be measured, in both directions
    "By which gaps to swap the shape; the lower AUROC counts."
    gap, is_sized = SHAPE_GAP, {"width", "height"} <= set(images) and images.label.nunique() == 2
    if is_sized and len(images[["width", "height"]].drop_duplicates()) > 1:
        means = images.groupby("label")[["width", "height"]].mean()
        aspect = means.width / means.height
        gap = float(aspect[1] / aspect[0])
    return [gap, 1 / gap]


# %%
sizes = pd.DataFrame(dict(label=[0, 0, 1, 1], width=[90, 110, 120, 120], height=[100] * 4))
test_close(shape_gaps(sizes), [1.2, 1 / 1.2])
test_eq(shape_gaps(sizes.assign(width=100)), [SHAPE_GAP, 1 / SHAPE_GAP])
test_close(shape_gaps(sizes.assign(width=[90, 110, 90, 110])), [1., 1.])
