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
# # Faithfulness
#
# > Whether a map shows what the network used: measures, controls, and a rule for maps not to be believed

# %%
#| default_exp faithfulness

# %%
#| export
import re
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from itertools import combinations, zip_longest

import cv2
import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.stats import rankdata

from pneumo_nb.explanation import METHODS, explain, hits_interval, pointing_hits, random_weights
from pneumo_nb.explanation import with_random_weights
from pneumo_nb.gradients import asked_log_odds
from pneumo_nb.occlusion import check_explained
from pneumo_nb.run import StudyError, rng_for, set_seed
from pneumo_nb.style import counted, in_list
from pneumo_nb.views import box_mask

# %%
#| hide
import keras
import matplotlib.pyplot as plt
from fastcore.test import test_close, test_eq, test_fail
from keras import layers
from pneumo_nb.cache import squash
from pneumo_nb.phantom import draw_anatomy, draw_film
from pneumo_nb.style import plot_style, show_figure
plot_style()


# %% [markdown]
# A map of an explanation always looks like something. Whether it shows what the network used is a question
# that can be measured. This notebook has the measures, each with the question it asks:
#
# - does the answer fall when the places go that the map marks (deletion, insertion, mu-fidelity, infidelity);
# - does the map stay when the film hardly changes, and change when the network does (sensitivity, sanity);
# - does it lie on the disease where that is known, and off the text and the air beside the child;
# - do methods, and networks of other seeds, agree.
#
# Two models with known answers serve as examples. One is linear, so that weights times gray are its exact
# explanation. The other is a small network that learned phantoms for seconds.

# %%
def linear_model(weights):
    made = keras.Sequential([keras.Input((*weights.shape, 1)), layers.Flatten(), layers.Dense(1, "sigmoid")])
    made.layers[-1].set_weights([weights.reshape(-1, 1), np.zeros(1)])
    return made

rng = np.random.default_rng(1)
weights = rng.normal(size=(12, 14)).astype(np.float32) / 2000
linear = linear_model(weights)
some = rng.uniform(0, 255, (4, 12, 14)).astype(np.float32)
exact = weights * some
print(linear.predict(some[..., None], verbose=0)[:, 0].round(2))

# %%
#| hide
SIDE = 40

def phantoms(kind, numbers):
    drawn = [draw_film(draw_anatomy(rng_for(n, kind)), kind, rng_for(n, kind, 1), 120) for n in numbers]
    return tuple(np.stack([squash(part[n].astype(np.uint8), SIDE) for part in drawn]) for n in range(2))

def small_network():
    made = keras.Sequential([keras.Input((SIDE, SIDE, 1)), layers.Rescaling(1 / 127.5, -1)])
    for filters in (8, 16):
        made.add(layers.Conv2D(filters, 3, padding="same", activation="relu"))
        made.add(layers.MaxPooling2D())
    for layer in (layers.GlobalAveragePooling2D(), layers.Dense(1, "sigmoid")): made.add(layer)
    return made

normal, _ = phantoms("normal", range(60))
sick, lesions = phantoms("bacteria", range(60))
learned, labels = np.concatenate([normal, sick]), np.repeat([0, 1], 60)
shown, shown_masks = phantoms("bacteria", range(1000, 1012))
shown_masks = shown_masks > 0


# %% [markdown]
# ## What a film is changed into
#
# A place is removed by writing something else there. Mid-gray is even, and so it is something that no lung
# contains. A blurred film keeps the large shapes. The mean of the film keeps its brightness alone. A number,
# or a film such as the mean of the train films, may be given as well.

# %%
#| export
def fill_films(
    images: np.ndarray, # (N, H, W) gray 0-255
    fill,               # "gray", "black", "blurred", "mean" of each film, a gray value, or a film (H, W)
) -> np.ndarray: # (N, H, W) float32
    "What stands where a film is removed."
    if isinstance(fill, str):
        if fill == "blurred":
            blurred = [cv2.GaussianBlur(film, (0, 0), max(film.shape) / 8) for film in images]
            return np.stack(blurred) if blurred else images
        values = dict(gray=127.5, black=0., mean=images.mean(axis=(1, 2), keepdims=True))
        if fill not in values: raise StudyError(
            f'Expected a fill of "gray", "black", "blurred", "mean", a gray value or a film, found {fill!r}.')
        fill = values[fill]
    fill = np.asarray(fill, np.float32)
    if fill.ndim == 2 and fill.shape != images.shape[1:]: raise StudyError(
        f"Expected a film of {images.shape[1]} × {images.shape[2]} pixels to fill with, found {fill.shape}.")
    if not (fill.min() >= 0 and fill.max() <= 255):
        raise StudyError(f"Expected a fill from 0 to 255, found {fill.min():g} to {fill.max():g}.")
    return np.broadcast_to(fill, images.shape)


# %%
test_eq([fill_films(some, fill)[0, 0, 0] for fill in ("gray", "black", 7)], [127.5, 0, 7])
test_close(fill_films(some, "mean")[1], some[1].mean(), eps=1e-3)
assert fill_films(some, "blurred").std() < some.std() / 2
test_eq(fill_films(some, some[2])[0], some[2])
test_fail(lambda: fill_films(some, "white"), contains="found 'white'")
test_fail(lambda: fill_films(some, 300), contains="from 0 to 255, found 300")


# %% [markdown]
# Removed are single pixels, or square blocks of them. Single pixels make a texture that no film has, and a
# network may react to that. In blocks, a map is judged by its places and not by its grain.

# %%
#| export
def _blocks(
    shape: tuple[int, int],
    block: int, # side, pixels; those at the right and lower edge may be smaller
) -> np.ndarray: # (H, W) int, from 0
    "The number of the block that each pixel belongs to."
    if block < 1: raise StudyError(f"Expected a block of 1 pixel or more, found {block}.")
    rows, columns = (np.arange(side) // block for side in shape)
    return rows[:, None] * (columns[-1] + 1) + columns


# %%
test_eq(_blocks((2, 5), 2), [[0, 0, 1, 1, 2]] * 2)


# %%
#| export
def _block_means(maps: np.ndarray, numbers: np.ndarray) -> np.ndarray: # (N, blocks)
    "The mean of each map over each block."
    of_pixel, maps = numbers.ravel(), np.asarray(maps, np.float64)
    sums = [np.bincount(of_pixel, change.ravel()) for change in maps]
    return np.reshape(sums, (len(maps), of_pixel[-1] + 1)) / np.bincount(of_pixel)


# %%
test_eq(_block_means([[[1, 3, 5]]], _blocks((1, 3), 2)), [[2, 5]])


# %%
#| export
def _checked_maps(
    images: np.ndarray, # (N, H, W)
    maps,               # (N, H, W)
) -> np.ndarray: # (N, H, W) float64
    "Refuse maps that are not those of the films."
    maps = np.asarray(maps, np.float64)
    if maps.shape != images.shape: raise StudyError(
        f"Expected a map for each film, of shape {images.shape}, found {maps.shape}.")
    if not np.isfinite(maps).all(): raise StudyError("Expected finite maps, found nan or infinity.")
    return maps


# %%
test_fail(lambda: _checked_maps(some, exact[:2]), contains="(4, 12, 14), found (2, 12, 14)")


# %% [markdown]
# ## Deletion and insertion
#
# **Deletion** (Petsiuk et al., 2018; arXiv:1806.07421) removes the film from the map's highest place to its
# lowest, and looks at the predicted probability on the way. A map that marks what the network uses makes it
# fall early, and the area under the curve is small. **Insertion** starts from the filled film and brings back
# the highest places first. There a large area is good.
#
# On the linear model below no order removes faster than that of the exact map, and none brings back faster.
#
# Equal values of a map come in an order by chance, which the seed decides. Otherwise a map of many zeros
# would be removed from its upper edge.

# %%
#| export
def _ranks(
    maps: np.ndarray, # (N, H, W)
    block: int,       # side, pixels
    seed: int,
) -> np.ndarray: # (N, H, W) int, 0 for the highest
    "Each pixel's place in the order from the highest block to the lowest."
    numbers = _blocks(maps.shape[1:], block)
    chance = rng_for(seed, "ties").permutation(numbers.max() + 1)
    means, of_pixel = _block_means(maps, numbers), numbers.ravel()
    ranks = np.empty((len(maps), of_pixel.size), np.int64)
    for n, mean in enumerate(means):
        ranks[n, np.lexsort((chance[of_pixel], -mean[of_pixel]))] = np.arange(of_pixel.size)
    return ranks.reshape(maps.shape)


# %%
test_eq(_ranks(np.array([[[1., 5, 3, 2]]]), 1, 1)[0, 0], [3, 0, 1, 2])
test_eq(np.ptp(_ranks(np.zeros((1, 2, 6)), 2, 1)[0, :, :2]), 3)   # a block goes as a whole


# %%
#| export
def _answers(ask: Callable, copies, batch_size: int) -> np.ndarray: # `copies`: iterator of (n, H, W)
    "What is answered to many films, a batch at a time."
    answers, waiting = [], []
    for some in copies:
        waiting.append(some)
        if sum(map(len, waiting)) >= batch_size:
            answers.append(ask(np.concatenate(waiting)))
            waiting = []
    if waiting: answers.append(ask(np.concatenate(waiting)))
    answers = np.concatenate(answers).astype(np.float64) if answers else np.zeros(0)
    if not np.isfinite(answers).all():
        raise StudyError("Expected finite answers of the model, found nan or infinity.")
    return answers


# %%
test_eq(_answers(lambda films: films.sum(axis=(1, 2)), (np.full((3, 2, 2), n) for n in (1, 2)), 4),
        [4, 4, 4, 8, 8, 8])


# %%
#| export
def perturbation_curves(
    model,                     # Keras model: (N, H, W, 1) gray 0-255 → (N, 1) probability of pneumonia
    images,                    # (N, H, W) or (N, H, W, 1), gray 0-255
    maps,                      # (N, H, W)
    insert: bool = False,      # bring back, in place of removing
    steps: int = 32,           # from the first film to the last
    fill="gray",               # as for `fill_films`
    block: int = 1,            # side of what is removed together, pixels
    seed: int = 42,            # decides between equal values
    batch_size: int = 64,      # copies predicted at a time
    output: int | None = None, # which of several outputs; None: the only one
) -> tuple[np.ndarray, np.ndarray]: # shares of pixels changed (steps + 1,), answers (N, steps + 1)
    "The predicted probability while a film is removed, or brought back, from the map's highest place."
    images, output = check_explained(model, images, output)
    count = int(np.prod(images.shape[1:]))
    if not 1 <= steps <= count: raise StudyError(
        f"Expected steps from 1 to the film's number of pixels, {count}, found {steps}.")
    maps, filled = _checked_maps(images, maps), fill_films(images, fill)
    ends = np.round(np.linspace(0, count, steps + 1)).astype(int)
    first, last = (filled, images) if insert else (images, filled)
    ranks = _ranks(maps, block, seed)
    copies = (np.where(r < ends[:, None, None], b, a) for r, a, b in zip(ranks, first, last))
    ask = lambda films: np.asarray(model.predict_on_batch(films[..., None]))[:, output]
    return ends / count, _answers(ask, copies, batch_size).reshape(len(images), steps + 1)


# %%
#| export
def deletion(
    model,                     # Keras model: (N, H, W, 1) gray 0-255 → (N, 1) probability of pneumonia
    images,                    # (N, H, W) or (N, H, W, 1), gray 0-255
    maps,                      # (N, H, W)
    steps: int = 32,           # from the whole film to none of it
    fill="gray",               # as for `fill_films`
    **own,                     # block, seed, batch_size, output: as for `perturbation_curves`
) -> np.ndarray: # (N,) small where the map marks what the network uses
    "Area under the probability while the film is removed, highest places first."
    shares, answers = perturbation_curves(model, images, maps, False, steps, fill, **own)
    return np.trapezoid(answers, shares, axis=1)


# %%
other = rng.normal(size=exact.shape)
assert (deletion(linear, some, exact, fill="black") < deletion(linear, some, other, fill="black")).all()
test_fail(lambda: deletion(linear, some, exact, steps=0), contains="number of pixels, 168, found 0")


# %%
#| export
def insertion(
    model,
    images,
    maps,
    steps: int = 32,           # from none of the film to the whole
    fill="blurred",            # as for `fill_films`
    **own,                     # as for `deletion`
) -> np.ndarray: # (N,) large where the map marks what the network uses
    "Area under the probability while the film is brought back, highest places first."
    shares, answers = perturbation_curves(model, images, maps, True, steps, fill, **own)
    return np.trapezoid(answers, shares, axis=1)


# %%
assert (insertion(linear, some, exact, fill="black") > insertion(linear, some, other, fill="black")).all()
whole = linear.predict(some[..., None], verbose=0)[:, 0]
for area in (deletion, insertion):   # a straight line from the film to black
    test_close(area(linear, some, exact, steps=1, fill="black"), (whole + .5) / 2, eps=1e-5)


# %% [markdown]
# ## Mu-fidelity
#
# **Mu-fidelity** (Bhatt et al., 2020; arXiv:2005.00631) removes random blocks of a film, a fifth of them at a
# time. It correlates how much the log odds fall with how much of the map was removed. For exact shares of a
# linear model the correlation is 1. A map of noise has 0. What is removed turns black unless told otherwise,
# since weights times gray are shares of what is above black. Where all sums are equal the map predicts
# nothing, and the correlation counts as 0.

# %%
#| export
def random_blocks(
    shape: tuple[int, int], # (H, W) of the films
    block: int,             # side, pixels
    share: float,           # of the blocks, above 0 and below 1
    samples: int,
    seed: int,
) -> np.ndarray: # (samples, H, W) bool, the same number of blocks in each
    "Random blocks of a film, several times."
    if not 0 < share < 1: raise StudyError(f"Expected a share above 0 and below 1, found {share}.")
    numbers, rng = _blocks(shape, block), rng_for(seed, "blocks")
    count = numbers.max() + 1
    taken = np.stack([rng.permutation(count) for _ in range(samples)]) < max(1, round(share * count))
    return taken[:, numbers]


# %%
test_eq(random_blocks((4, 6), 2, .5, 3, seed=1).sum(axis=(1, 2)), [12] * 3)


# %%
#| export
def removal_changes(
    model,
    images: np.ndarray,  # (N, H, W) gray 0-255
    removed: np.ndarray, # (samples, H, W) bool
    fill="black",        # as for `fill_films`
    batch_size: int = 64,
    output: int | None = None,
) -> np.ndarray: # (N, samples)
    "How much the log odds of pneumonia fall when parts of each film are removed."
    images, output = check_explained(model, images, output)
    ask, filled = asked_log_odds(model, images.shape[1:], output), fill_films(images, fill)
    copies = (np.where(removed, f, film) for film, f in zip(images, filled))
    before = _answers(ask, (film[None] for film in images), batch_size)
    return before[:, None] - _answers(ask, copies, batch_size).reshape(len(images), len(removed))


# %%
half = random_blocks((12, 14), 4, .5, 2, seed=1)
test_close(removal_changes(linear, some, half), (exact[:, None] * half).sum(axis=(2, 3)), eps=1e-4)


# %%
#| export
def _removed_sums(maps: np.ndarray, removed: np.ndarray) -> np.ndarray: # (N, samples)
    "How much of each map lies in each removed part."
    return np.einsum("nhw,shw->ns", maps, removed.astype(np.float64), optimize=True)


# %%
#| export
def _row_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray: # (N, n) each → (N,)
    "Pearson's correlation of each row with the other's; 0 where one is constant."
    a, b = (rows - rows.mean(axis=1, keepdims=True) for rows in (first, second))
    sizes = [np.linalg.norm(rows, axis=1) for rows in (a, b)]
    spread = [s > 1e-9 * np.maximum(np.abs(r).max(axis=1), 1e-30) for s, r in zip(sizes, (first, second))]
    both = spread[0] & spread[1]
    return np.where(both, (a * b).sum(axis=1) / np.where(both, sizes[0] * sizes[1], 1), 0.)


# %%
test_close(_row_correlation(np.array([[1., 2, 3], [1, 1, 1]]), np.array([[2., 4, 6], [1, 2, 3]])), [1, 0])


# %%
#| export
def mu_fidelity(
    model,                     # Keras model: (N, H, W, 1) gray 0-255 → (N, 1) probability of pneumonia
    images,                    # (N, H, W) or (N, H, W, 1), gray 0-255
    maps,                      # (N, H, W)
    samples: int = 128,        # random choices of blocks
    share: float = .2,         # of the blocks, removed at a time
    fill="black",              # as for `fill_films`
    block: int = 4,            # side, pixels
    seed: int = 42,
    batch_size: int = 64,      # copies predicted at a time
    output: int | None = None, # which of several outputs; None: the only one
) -> np.ndarray: # (N,) -1 to 1
    "Correlation between what is removed of a map and how far the log odds fall."
    images, output = check_explained(model, images, output)
    removed = random_blocks(images.shape[1:], block, share, samples, seed)
    changes = removal_changes(model, images, removed, fill, batch_size, output)
    return _row_correlation(_removed_sums(_checked_maps(images, maps), removed), changes)


# %%
test_close(mu_fidelity(linear, some, exact), [1] * 4, eps=1e-4)
test_close(mu_fidelity(linear, some, exact - 2 * exact), [-1] * 4, eps=1e-4)
test_eq(mu_fidelity(linear, some, exact * 0), [0] * 4)
assert np.abs(mu_fidelity(linear, some, other)).max() < .8


# %% [markdown]
# ## Infidelity
#
# **Infidelity** (Yeh et al., 2019; arXiv:1901.09392) asks for more than a correlation: the map's sum over a
# removed part should **be** the fall of the log odds. Removed are squares at random places, an eighth to a
# half of the film's side. Methods have units of their own, so each map is first scaled by the one factor, 0
# or above, that suits it best. What is left of the squared fall is the infidelity: 0 for exact shares, 1 for
# a map that predicts nothing.

# %%
#| export
def random_squares(
    shape: tuple[int, int], # (H, W) of the films
    samples: int,
    seed: int,
) -> np.ndarray: # (samples, H, W) bool
    "Squares at random places, an eighth to a half of the shorter side."
    rng, removed = rng_for(seed, "squares"), np.zeros((samples, *shape), bool)
    for one in removed:
        side = int(rng.integers(max(1, min(shape) // 8), max(1, min(shape) // 2) + 1))
        row, column = (int(rng.integers(0, length - side + 1)) for length in shape)
        one[row:row + side, column:column + side] = True
    return removed


# %%
sides = random_squares((16, 20), 30, seed=1).sum(axis=(1, 2)) ** .5
test_eq([sides.min() >= 2, sides.max() <= 8], [True, True])


# %%
#| export
def _unexplained(sums: np.ndarray, changes: np.ndarray) -> np.ndarray: # (N, samples) each → (N,)
    "Share of the squared change that sums, scaled as suits them best, leave; 1 where there is no change."
    both, square = (sums * changes).sum(axis=1), (sums ** 2).sum(axis=1) * (changes ** 2).sum(axis=1)
    return 1 - np.divide(np.maximum(both, 0) ** 2, square, out=np.zeros(len(sums)), where=square > 0)


# %%
#| export
def infidelity(
    model,                     # Keras model: (N, H, W, 1) gray 0-255 → (N, 1) probability of pneumonia
    images,                    # (N, H, W) or (N, H, W, 1), gray 0-255
    maps,                      # (N, H, W)
    samples: int = 128,        # squares
    fill="black",              # as for `fill_films`
    seed: int = 42,
    batch_size: int = 64,      # copies predicted at a time
    output: int | None = None, # which of several outputs; None: the only one
) -> np.ndarray: # (N,) 0 to 1, small where the map's sums are the falls of the log odds
    "How badly a map's sum over a removed square predicts the fall of the log odds."
    images, output = check_explained(model, images, output)
    removed = random_squares(images.shape[1:], samples, seed)
    changes = removal_changes(model, images, removed, fill, batch_size, output)
    return _unexplained(_removed_sums(_checked_maps(images, maps), removed), changes)


# %%
test_close(infidelity(linear, some, 3 * exact), [0] * 4, eps=1e-4)
test_close(infidelity(linear, some, -exact), [1] * 4)
assert (infidelity(linear, some, other) > .1).all()


# %% [markdown]
# ## Sensitivity to tiny noise
#
# Noise of two in a hundred of the range of gray does not change what is on a film. **Max-sensitivity** (Yeh
# et al., 2019) is the largest change of the map over several draws of such noise, relative to the map. Near 0
# a map is stable. At 1 and above, its places hang on noise that nobody sees. A blank map that stays blank has
# 0.

# %%
#| export
def noisy_films(
    images: np.ndarray, # (N, H, W) gray 0-255
    radius: float,      # largest change of a pixel, as a share of the range of gray
    seed: int,
) -> np.ndarray: # (N, H, W) float32 within 0 and 255
    "Films with even noise."
    noise = rng_for(seed, "tiny noise").uniform(-1, 1, images.shape[1:])
    return np.clip(images + 255 * radius * noise, 0, 255).astype(np.float32)


# %%
assert 4 < np.abs(noisy_films(some, .02, 1) - some).max() < 5.2


# %%
#| export
def _relative_change(maps: np.ndarray, noisy: np.ndarray) -> np.ndarray: # (N, H, W) each → (N,)
    "Size of the difference, relative to the map; 0 where there is none."
    size, change = (np.linalg.norm(m.reshape(len(m), -1), axis=1) for m in (maps, noisy - maps))
    return np.divide(change, size, out=np.where(change > 0, np.inf, 0.), where=size > 0)


# %%
#| export
def max_sensitivity(
    model,               # Keras model: (N, H, W, 1) gray 0-255 → (N, 1) probability of pneumonia
    images,              # (N, H, W) or (N, H, W, 1), gray 0-255
    method: str,         # a key of `METHODS`
    radius: float = .02, # largest change of a pixel, as a share of the range of gray
    draws: int = 4,      # of noise
    seed: int = 42,
    settings: dict | None = None, # of the method
    maps=None,           # those of the films, if they are there already
) -> np.ndarray: # (N,) 0 or above, small where the map is stable
    "The largest relative change of a map over tiny noise."
    own = settings or {}
    images, _ = check_explained(model, images, own.get("output"))
    maps = explain(model, images, method, **own) if maps is None else maps
    noisy = [noisy_films(images, radius, seed + n) for n in range(draws)]
    changes = [_relative_change(maps, explain(model, films, method, **own)) for films in noisy]
    return np.max(changes, axis=0)


# %%
assert (max_sensitivity(linear, some, "integrated_gradients") < .1).all()
assert (max_sensitivity(linear, some, "random_map") > .5).all()   # drawn from the film's bytes
test_eq(max_sensitivity(linear, some, "edge_map", radius=0.), [0] * 4)


# %% [markdown]
# ## How alike two maps are
#
# Two measures, as Adebayo et al. (2018; arXiv:1810.03292) have them. Spearman's **rank correlation** compares
# the order of places and no scale. **SSIM** (Wang et al., 2004) compares means, scatter and pattern within a
# window of about eleven pixels.
#
# Both compare the **size** of values, without their sign, unless told otherwise. A sign may flip all over the
# film when a network changes, while the picture still shows the same places. A reader would see no
# difference, so none is counted.

# %%
#| export
def _sizes(maps, signed: bool) -> np.ndarray: # (N, H, W)
    "The values, or their sizes."
    maps = np.asarray(maps, np.float64)
    return maps if signed else np.abs(maps)


# %%
#| export
def rank_correlation(
    first,                # (N, H, W)
    second,               # (N, H, W), the map to compare with each
    signed: bool = False, # keep the sign; otherwise sizes are compared
) -> np.ndarray: # (N,) -1 to 1; 0 where a map is constant
    "Spearman's correlation of each map with the other."
    first, second = (_sizes(m, signed).reshape(len(m), -1) for m in (first, second))
    return _row_correlation(rankdata(first, axis=1), rankdata(second, axis=1))


# %%
test_close(rank_correlation(exact, exact ** 3), [1] * 4)
test_close([rank_correlation(exact, -exact, signed).mean() for signed in (False, True)], [1, -1])
test_eq(rank_correlation(exact, exact * 0), [0] * 4)


# %%
#| export
def structural_similarity(
    first,                # (N, H, W)
    second,               # (N, H, W)
    signed: bool = False, # keep the sign; otherwise sizes are compared
) -> np.ndarray: # (N,) at most 1
    "SSIM of each map with the other, both scaled to their largest value."
    def scaled(m): return m / max(np.abs(m).max(), 1e-30)
    def blur(m): return cv2.GaussianBlur(m, (11, 11), 1.5)
    def one(a, b):
        means, (c1, c2) = (blur(a), blur(b)), (.01 ** 2, .03 ** 2)
        spreads = blur(a * a) - means[0] ** 2, blur(b * b) - means[1] ** 2
        together = blur(a * b) - means[0] * means[1]
        same_mean = (2 * means[0] * means[1] + c1) / (means[0] ** 2 + means[1] ** 2 + c1)
        return (same_mean * (2 * together + c2) / (spreads[0] + spreads[1] + c2)).mean()
    pairs = zip(_sizes(first, signed), _sizes(second, signed))
    return np.array([one(scaled(a), scaled(b)) for a, b in pairs])


# %%
test_close(structural_similarity(exact, 5 * exact), [1] * 4)
assert (structural_similarity(exact, other) < .5).all()


# %% [markdown]
# ## Sanity: another network, another map
#
# A map that shows what a network learned must change when the network forgets. **Cascading randomisation**
# gives new weights to the network layer by layer, from the answer down to the film, and compares the map with
# that of the trained network. Afterwards the model has its own weights again. Layers that only scale, such as
# batch normalisation, go together with the layer below. Branches of the same form, such as the networks of an
# ensemble, go together, too. A deep network is cut into at most `rows` parts.

# %%
#| export
def _levels(model) -> list[list]: # of leaf layers with weights, from the answer down
    "What is randomised together, level by level."
    levels, alike = [], None
    for layer in reversed(model.layers):
        if not layer.weights: continue
        if not hasattr(layer, "layers"): levels.append([layer]); alike = None; continue
        inside, form = _levels(layer), [w.shape for w in layer.weights]
        if form == alike: # a branch beside the last one
            for old, new in zip(levels[-len(inside):], inside): old += new
        else: levels += inside
        alike = form
    return levels


# %%
#| export
def _with_kernels(levels: list[list]) -> list[list]:
    "Levels without a kernel join the next that has one; at the end, the last one."
    joined, waiting = [], []
    for level in levels:
        waiting = waiting + level
        if any(len(w.shape) > 1 for layer in level for w in layer.weights):
            joined.append(waiting)
            waiting = []
    if waiting and joined: joined[-1] = joined[-1] + waiting
    return joined


# %%
#| export
def _in_parts(levels: list[list], rows: int) -> list[list]: # at most `rows`
    "Neighbouring levels joined, so that few enough are left."
    groups = np.array_split(np.arange(len(levels)), min(rows, len(levels)))
    return [[layer for n in group for layer in levels[n]] for group in groups]


# %%
set_seed(1)
branch = lambda: keras.Sequential([keras.Input((9, 9, 1)), layers.Conv2D(2, 3), layers.BatchNormalization(),
                                   layers.Flatten(), layers.Dense(1)])
film_input = keras.Input((9, 9, 1))
both = layers.Dense(1, "sigmoid", name="top")(layers.Average()([b(film_input) for b in (branch(), branch())]))
forked = keras.Model(film_input, both)
found = _with_kernels(_levels(forked))
test_eq([len(level) for level in found], [1, 2, 4])   # the top, two dense layers, two pairs
test_eq([len(part) for part in _in_parts(found, 2)], [3, 4])


# %%
#| export
def _cascade(
    model,
    seed: int,
    rows: int, # at most
): # yields the name of the lowest layer that has new weights so far
    "A model that forgets, from the answer down to the film, and has its own weights again at the end."
    fresh, own = with_random_weights(model, seed), model.get_weights()
    levels = [_with_kernels(_levels(m)) for m in (model, fresh)]
    if not levels[0]: raise StudyError("Expected a network of layers with weights, found none; its maps "
                                       "cannot be checked in this way.")
    try:
        for mine, new in zip(*(_in_parts(part, rows) for part in levels)):
            for layer, source in zip(mine, new): layer.set_weights(source.get_weights())
            yield mine[-1].name
    finally: model.set_weights(own)


# %%
before = [w.copy() for w in forked.get_weights()]
steps = [(name, [w.copy() for w in forked.get_weights()]) for name in _cascade(forked, 1, 16)]
changed = [sum((a != b).any() for a, b in zip(w, before)) for _, w in steps]
test_eq([changed, steps[0][0]], [[1, 3, 5], "top"])   # kernels; other new weights equal the old ones here
for a, b in zip(before, forked.get_weights()): test_eq(a, b)


# %%
#| export
def _likeness(before, now, signed: bool) -> dict: # (N, H, W) each
    "How alike two sets of maps are, in the mean over films."
    return dict(correlation=rank_correlation(before, now, signed).mean(),
                ssim=structural_similarity(before, now, signed).mean())

def forget(
    model,           # Keras model; stays as it is
    images,          # (N, H, W) gray 0-255
    maps: dict,      # method → its maps of the model, (N, H, W)
    settings: dict,  # method → settings
    seed: int = 42,  # of the new weights
    draws: int = 1,  # of new weights; the mean over them counts
    rows: int = 16,  # at most
    signed: bool = False, # keep the sign of maps; otherwise sizes are compared
) -> pd.DataFrame: # method, step, layer, correlation, ssim
    "How alike the maps of several methods stay while the network forgets."
    made = []
    for draw in range(draws):
        with closing(_cascade(model, seed + draw, rows)) as layers:
            for step, layer in enumerate(layers): made += [
                dict(method=method, step=step, layer=layer) | _likeness(
                    before, explain(model, images, method, **settings.get(method, {})), signed)
                for method, before in maps.items()]
    groups = pd.DataFrame(made).groupby(["method", "step"], sort=False)
    return groups.agg(dict(layer="first", correlation="mean", ssim="mean")).reset_index()


# %%
#| export
def randomisation(
    model,           # Keras model: (N, H, W, 1) gray 0-255 → (N, 1) probability; stays as it is
    images,          # (N, H, W) or (N, H, W, 1), gray 0-255
    method: str,     # a key of `METHODS`
    settings: dict | None = None, # of the method
    **own,           # seed, draws, rows, signed: as for `forget`
) -> pd.DataFrame: # layer (the lowest with new weights), correlation, ssim: means over films
    "How alike maps stay while the network forgets, from the answer down to the film."
    settings = settings or {}
    images, _ = check_explained(model, images, settings.get("output"))
    maps = {method: explain(model, images, method, **settings)}
    return forget(model, images, maps, {method: settings}, **own)[["layer", "correlation", "ssim"]]


# %% [markdown]
# The small network learns, and two methods are compared. The edge map never asked the network. So it stays,
# to the last digit:

# %%
def trained(labels, seed):
    set_seed(seed)
    made = small_network()
    made.compile(keras.optimizers.Adam(1e-2), "binary_crossentropy")
    made.fit(learned[..., None].astype(np.float32), labels, epochs=25, batch_size=20, verbose=0)
    return made

network = trained(labels, 1)
probability = network.predict(shown[..., None], verbose=0)[:, 0]
print(f"{(probability > .5).mean():.0%} of {len(shown)} unseen films with pneumonia called so")
kept = randomisation(network, shown, "edge_map")
test_eq(list(kept), ["layer", "correlation", "ssim"])
test_close(kept[["correlation", "ssim"]].to_numpy(), np.ones((3, 2)))
randomisation(network, shown, "gradcam").style.format(precision=2)


# %% [markdown]
# ## When has a map changed enough?
#
# A correlation needs something to be held against. Two stand at hand, made by the same method:
#
# - **other films**: the correlation between the trained network's maps of different films. This much two maps
#   share although they show different things, because lungs lie in the middle of every film;
# - **tiny noise**: the correlation between maps of one film with and without noise that nobody sees. No more
#   can be asked of maps that should be the same.
#
# The rule has two limits. A map **changed** if its correlation with that of the random network is no higher
# than the mean over pairs of different films, plus two standard errors for the number of films. It **hardly
# changed** if the correlation is nearer to that under tiny noise than to that mean. A method that hardly
# changes does not look at the network. In between it changed in part: what it shows is partly the film.
#
# Where tiny noise moves a map as much as another film does, half way means nothing, and the first limit is
# the only one. And nine tenths of the correlation under tiny noise is the same map, however alike the maps of
# different films are. So a map that is nearly the same blob on every film hardly changes, as it should.

# %%
#| export
def other_films_correlation(
    maps: np.ndarray,     # (N, H, W), of different films
    signed: bool = False,
) -> np.ndarray: # (pairs,)
    "How alike maps of different films are."
    first, second = np.triu_indices(len(maps), 1)
    ranks = rankdata(_sizes(maps, signed).reshape(len(maps), -1), axis=1)
    return _row_correlation(ranks[first], ranks[second])


# %%
test_eq(other_films_correlation(np.stack([exact[0], exact[0], -exact[0]])).round(6), [1, 1, 1])


# %%
#| export
def sanity_verdict(
    after: float,       # correlation with the map of the random network
    apart: np.ndarray,  # (pairs,) correlations between maps of different films
    steady: np.ndarray, # (n,) correlations under tiny noise
) -> dict: # after, other_films (mean), usual (the first limit), steady (mean), limit (the second), verdict
    "Whether a map changed with the network."
    films = (1 + np.sqrt(1 + 8 * len(apart))) / 2
    mean, high = apart.mean(), steady.mean()
    usual = min(mean + 2 * apart.std() / np.sqrt(films), 1.)
    limit = usual if high <= usual else min((mean + high) / 2, .9 * high)
    is_same = after >= limit - 1e-9 and after > 0
    words = "hardly changes" if is_same else "changes in part" if after > usual else "changes"
    return dict(after=after, other_films=mean, usual=usual, steady=high, limit=limit, verdict=words)


# %%
apart, steady = np.array([.1, .2, .3]), np.array([.9, 1.])
test_eq([sanity_verdict(after, apart, steady)["verdict"] for after in (.2, .5, .8)],
        ["changes", "changes in part", "hardly changes"])
for same in (np.zeros(3), np.ones(3)):   # noise from the film's bytes; the same blob always
    test_eq(sanity_verdict(1., same, same)["verdict"], "hardly changes")


# %%
#| export
def sanity(
    model,                         # Keras model; stays as it is
    images,                        # (N, H, W) gray 0-255, 2 films or more
    methods: list[str],            # keys of `METHODS`
    settings: dict | None = None,  # method → settings
    seed: int = 42,
    draws: int = 1,                # of new weights
    rows: int = 6,                 # parts of the network, at most
) -> tuple[pd.DataFrame, pd.DataFrame]: # curves: method, step, layer, correlation, ssim; verdicts
    "The randomisation of every method, and what it says."
    if len(images) < 2: raise StudyError(f"Expected 2 films or more to compare maps of, found {len(images)}.")
    own, noise = settings or {}, noisy_films(images, .02, seed)
    maps, noisy = ({method: explain(model, films, method, **own.get(method, {})) for method in methods}
                   for films in (images, noise))
    curves, verdicts = forget(model, images, maps, own, seed, draws, rows), []
    for method, curve in curves.groupby("method", sort=False):
        steady = rank_correlation(maps[method], noisy[method])
        apart = other_films_correlation(maps[method])
        verdicts.append(dict(method=method) | sanity_verdict(curve.correlation.iloc[-1], apart, steady))
    return curves, pd.DataFrame(verdicts)


# %% [markdown]
# Many maps are needed, and fewer samples than for a picture do. `LIGHT` holds settings for that. The verdict
# is then about maps of these settings.

# %%
#| export
LIGHT = dict(rise=dict(masks=100), smoothgrad=dict(samples=8),
             integrated_gradients=dict(steps=16, tolerance=np.inf))   # the points are never doubled

# %%
test_eq(set(LIGHT) - set(METHODS), set())


# %%
#| export
def plot_sanity(
    curves: pd.DataFrame,   # from `sanity`
    verdicts: pd.DataFrame, # from `sanity`
): # matplotlib Figure
    "A curve for each method, with what maps of different films share."
    import matplotlib.pyplot as plt
    columns = min(4, len(verdicts))
    rows = -(-len(verdicts) // columns)
    size = (2.7 * columns + .6, 2.4 * rows + .4)
    figure, axes = plt.subplots(rows, columns, figsize=size, sharex=True, sharey=True, squeeze=False)
    for ax in axes.flat[len(verdicts):]: ax.axis("off")
    for ax, verdict in zip(axes.flat, verdicts.itertuples()):
        curve = curves[curves.method == verdict.method]
        parts = np.arange(len(curve) + 1)
        ax.axhspan(min(0, verdict.other_films), verdict.usual, color="#DDDDDD", lw=0, label="other films")
        ax.axhline(verdict.limit, color="#888888", ls=":", label="limit")
        ax.plot(parts, [1, *curve.correlation], marker="o", color="#0072B2", label="rank correlation")
        ax.plot(parts, [1, *curve.ssim], marker=".", ls="--", color="#D55E00", label="SSIM")
        ax.set_title(f"{METHODS[verdict.method].title}:\n{verdict.verdict}", fontsize=9)
        ax.set(xticks=parts, ylim=(-.6, 1.08))
    for ax in axes[-1]: ax.set_xlabel("parts with new weights", fontsize=9)
    axes[0, 0].legend(fontsize=7)
    return figure


# %% [markdown]
# [The curves](#fig-faithfulness_sanity) of the small network. At the left of each, the network is whole; at
# the right, nothing of it is left. A gray band holds what maps of different films share.

# %%
quick = LIGHT | dict(occlusion=dict(patch_size=10, stride=5))
tried = ["occlusion", "gradcam", "integrated_gradients", "smoothgrad", "rise", "random_map", "edge_map"]
curves, verdicts = sanity(network, shown[:6], tried, quick)
test_eq(set(verdicts.set_index("method").verdict[["random_map", "edge_map"]]), {"hardly changes"})
alt = "A small plot for each method: correlation and SSIM against the number of parts with new weights."
show_figure(plot_sanity(curves, verdicts), "faithfulness_sanity", "Maps while the network forgets.", alt)
verdicts.style.hide(axis="index").format(precision=2)


# %% [markdown]
# ## Sanity: a network that learned nothing true
#
# The second check trains the same architecture on **shuffled labels**. It learns what it can, but nothing
# about pneumonia. Its maps are compared with those of a network that learned the true labels. Beside that
# stands a second network of true labels and another seed: that much two maps differ although both networks
# learned the same.

# %%
#| export
def _quickly_trained(build: Callable, pixels, labels, seed: int, epochs: int):
    "A network trained for a few epochs."
    import keras
    set_seed(seed)
    network = build()
    network.compile(keras.optimizers.Adam(1e-2), "binary_crossentropy")
    films = np.asarray(pixels, np.float32)[..., None]
    network.fit(films, np.asarray(labels, np.float32), epochs=epochs, batch_size=20, verbose=0)
    return network


# %%
#| export
def shuffled_labels(
    build: Callable,    # gives a new network: (N, H, W, 1) gray 0-255 → (N, 1) probability of pneumonia
    pixels: np.ndarray, # (N, H, W) films to learn from
    labels: np.ndarray, # (N,) 0 or 1
    images: np.ndarray, # (n, H, W) films to explain
    methods: list[str], # keys of `METHODS`
    settings: dict | None = None, # method → settings
    seed: int = 42,
    epochs: int = 25,
) -> pd.DataFrame: # method, correlation and ssim with true labels, again: correlation of two of true labels
    "How alike maps are to those of a network that learned shuffled labels."
    shuffled = rng_for(seed, "shuffled labels").permutation(labels)
    learned = [(labels, seed), (shuffled, seed), (labels, seed + 1)]
    networks = [_quickly_trained(build, pixels, y, s, epochs) for y, s in learned]
    made = []
    for method in methods:
        own = (settings or {}).get(method, {})
        true, false, again = (explain(network, images, method, **own) for network in networks)
        made.append(dict(method=method, correlation=rank_correlation(true, false).mean(),
                         ssim=structural_similarity(true, false).mean(),
                         again=rank_correlation(true, again).mean()))
    return pd.DataFrame(made)


# %%
table = shuffled_labels(small_network, learned[::2], labels[::2], shown[:6], tried, quick, epochs=12)
test_close(table.set_index("method").correlation[["random_map", "edge_map"]].to_numpy(), [1, 1])
table.style.hide(axis="index").format(precision=2)


# %% [markdown]
# ## On the disease
#
# On phantoms the disease is known. Three numbers say how well a map lies on it:
#
# - **hit**: the pointing game, whether the middle of the highest plateau lies in the lesion;
# - **share**: how much of the positive weight lies in the lesion;
# - **IoU**: as many of the highest pixels as the lesion has are compared with it, intersection over union.
#
# **Chance** is the lesion's share *a* of the film for two of them. For the IoU, it is about *a* / (2 − *a*).
# A map without anything above zero has a share of 0.
#
# Chance is that of even noise. A network with **random weights** need not score it: its maps follow bright
# and dark places of the film. On 60 phantoms whose lesions cover 8 % of the film, over 12 draws of a small
# convolutional network, occlusion hit 1 % and Grad-CAM none. SmoothGrad's plain derivatives hit 16 %. So a
# method has to beat both.

# %%
#| export
def weight_share(
    maps,    # (N, H, W)
    regions, # (N, H, W) bool
) -> np.ndarray: # (N,) 0-1; 0 for a blank map
    "How much of a map's weight, up or down, lies in a region."
    sizes = np.abs(np.asarray(maps, np.float64))
    inside, whole = ((sizes * r).sum(axis=(1, 2)) for r in (np.asarray(regions, bool), 1))
    return np.divide(inside, whole, out=np.zeros(len(sizes)), where=whole > 0)


# %%
test_close(weight_share([[[1., -3]]], [[[False, True]]]), [.75])


# %%
#| export
def localisation(
    maps,  # (N, H, W)
    masks, # (N, H, W) bool, where disease is
    seed: int = 42, # decides between equal values
) -> pd.DataFrame: # a row a film: hit, share, iou
    "How well maps lie on the disease."
    masks = np.asarray(masks, bool)
    maps = _checked_maps(masks, maps)
    positive, area = np.maximum(maps, 0), masks.sum(axis=(1, 2))
    both = (masks & (_ranks(maps, 1, seed) < area[:, None, None])).sum(axis=(1, 2))
    return pd.DataFrame(dict(
        hit=pointing_hits(maps, masks).astype(float), share=weight_share(positive, masks),
        iou=np.divide(both, 2 * area - both, out=np.zeros(len(maps)), where=area > 0)))


# %%
perfect = localisation(shown_masks.astype(float), shown_masks)
test_close(perfect.to_numpy(), np.ones((len(shown), 3)))


# %%
#| export
def chance_localisation(
    masks, # (N, H, W) bool
) -> pd.DataFrame: # a row a film: hit, share, iou
    "What a map of even noise scores."
    area = np.asarray(masks, bool).mean(axis=(1, 2))
    return pd.DataFrame(dict(hit=area, share=area, iou=area / (2 - area)))


# %%
many = np.repeat(shown_masks, 20, axis=0)
noise = np.random.default_rng(1).uniform(size=many.shape)
test_close(localisation(noise, many).mean().to_numpy(), chance_localisation(many).mean().to_numpy(), eps=.05)


# %% [markdown]
# A region that is large, or in the middle of the film, is hit more easily. So results are also given by kind
# of pneumonia and by the lesion's size, halved at the median.

# %%
#| export
def lesion_groups(
    masks, # (N, H, W) bool
    kinds, # (N,) of the films, such as "bacteria"
) -> pd.DataFrame: # a row a film: kind, size ("small" or "large")
    "The groups by which localisation is given."
    area = np.asarray(masks, bool).mean(axis=(1, 2))
    return pd.DataFrame(dict(kind=list(kinds), size=np.where(area > np.median(area), "large", "small")))


# %%
test_eq(lesion_groups(shown_masks, ["bacteria"] * 12)["size"].value_counts().tolist(), [6, 6])


# %% [markdown]
# ## Off the child, and on text
#
# Real films come without masks of disease. Yet some places can hold none: the air beside the child, and
# burnt-in text and markers. **Outside the body** is what is darker than 25 and connected with the film's
# edge. A lung that is cut by the edge would count as outside if it were as dark. Text and markers lie where
# the exploration found them.

# %%
#| export
def outside_body(
    images, # (N, H, W) gray 0-255
    dark: float = 25., # gray below which it may be air
) -> np.ndarray: # (N, H, W) bool
    "The dark parts of each film that are connected with its edge."
    def outside(film):
        parts, _ = ndimage.label(cv2.GaussianBlur(film, (3, 3), 0) < dark)
        edge = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
        return np.isin(parts, edge[edge > 0])
    return np.stack([outside(film) for film in np.asarray(images, np.float32)])


# %%
beside = np.full((1, 20, 20), 90.)
beside[0, :, :4] = beside[0, 8:12, 8:12] = 5
test_eq(outside_body(beside)[0, 10, [0, 10, 15]], [True, False, False])


# %%
#| export
def burnt_in_regions(
    paths,                # (N,) of the films
    places: pd.DataFrame, # path, x, y, w, h: boxes, shares of the sides
    size: int,            # side of the films, pixels
) -> np.ndarray: # (N, size, size) bool
    "Where text and markers are."
    of_path = places.groupby("path")[["x", "y", "w", "h"]]
    boxes = {path: list(rows.itertuples(index=False, name=None)) for path, rows in of_path}
    return np.stack([box_mask(size, boxes.get(path, [])) > 0 for path in paths])


# %%
one_text = pd.DataFrame([dict(path="b", x=.5, y=.75, w=.25, h=.1)])
test_eq(burnt_in_regions(["a", "b"], one_text, 20).any(axis=(1, 2)), [False, True])


# %% [markdown]
# A share means little without the region's own. So the audit divides the weight by the area: at 1 a map pays
# the region no attention of its own. It counts films that have the region. Maps **point at** it if the
# interval over patients lies above 1.

# %%
#| export
def interval_of(values: np.ndarray, patients, seed: int) -> tuple[float, float]: # (n,) finite values
    "95 % interval of a mean over redrawn patients; of shares that are all 0 or all 1, the exact one."
    values = np.asarray(values, float)
    if values.min() == values.max() and values[0] not in (0., 1.): return float(values[0]), float(values[0])
    return hits_interval(values, patients, seed)


# %%
test_eq(interval_of([.3, .3], "ab", 1), (.3, .3))
assert interval_of([1., 1.], "ab", 1)[0] < .5


# %%
#| export
def region_audit(
    maps: np.ndarray,    # (N, H, W)
    regions: np.ndarray, # (N, H, W) bool
    patients,            # (N,) whose film each is
    seed: int = 42,
) -> dict: # films, weight, area, ratio, low, high
    "How much of the maps lies in a region, against its area."
    has = regions.any(axis=(1, 2))
    if not has.any(): return dict(films=0) | dict.fromkeys(("weight", "area", "ratio", "low", "high"), np.nan)
    weight, area = weight_share(maps[has], regions[has]), regions[has].mean(axis=(1, 2))
    low, high = interval_of(weight / area, np.asarray(patients)[has], seed)
    return dict(films=int(has.sum()), weight=weight.mean(), area=area.mean(), ratio=(weight / area).mean(),
                low=low, high=high)


# %%
#| export
def _plural(method: str) -> str: # such as "maps of Integrated Gradients"
    "What several maps of a method are called."
    return METHODS[method].title.replace("map", "maps", 1)


# %%
test_eq([_plural(name) for name in ("rise", "integrated_gradients")],
        ["RISE maps", "maps of Integrated Gradients"])


# %%
#| export
def audit_sentence(
    audit: dict,  # from `region_audit`
    method: str,  # a key of `METHODS`
    region: str,  # what it is, such as "text and markers"
) -> str:
    "What the maps of a method do in a region."
    title = _plural(method)
    if not audit["films"]: return f"No film shows {region}, so {title} cannot be asked about it."
    words = "point at" if audit["low"] > 1 else "avoid" if audit["high"] < 1 else "do not single out"
    where = f"{audit['weight']:.1%} of their weight lies on {audit['area']:.1%} of the film"
    times = f"{audit['ratio']:.1f} times its share ({audit['low']:.1f} to {audit['high']:.1f}"
    return (f"{title[0].upper()}{title[1:]} {words} {region}: {where}, {times}, "
            f"{counted(audit['films'], 'film')}).")


# %%
audit = region_audit(1 + 9 * shown_masks, shown_masks, range(len(shown)))
assert audit_sentence(audit, "rise", "the lesion").startswith("RISE maps point at the lesion: ")
none = region_audit(shown_masks * 1., shown_masks & False, range(len(shown)))
assert audit_sentence(none, "rise", "text").startswith("No film shows text")


# %% [markdown]
# ## Agreement
#
# Maps of one film by several methods, or by networks of several seeds, are compared in pairs. Here the sign
# counts: a place that speaks for pneumonia in one map and against it in the other is a disagreement. Two
# methods that agree may both be wrong. Two that disagree cannot both be right.

# %%
#| export
def agreement(
    maps: dict[str, np.ndarray], # name → (N, H, W), of the same films
    patients,                    # (N,) whose film each is
    seed: int = 42,
) -> pd.DataFrame: # first, second, correlation, low, high
    "Signed rank correlation of each pair of maps, with its interval over patients."
    made = []
    for first, second in combinations(maps, 2):
        values = rank_correlation(maps[first], maps[second], signed=True)
        low, high = interval_of(values, patients, seed)
        made.append(dict(first=first, second=second, correlation=values.mean(), low=low, high=high))
    return pd.DataFrame(made, columns=["first", "second", "correlation", "low", "high"])


# %%
again = trained(labels, 2)
maps = {name: explain(net, shown, "gradcam") for name, net in dict(seed_1=network, seed_2=again).items()}
agreement(maps | dict(edges=explain(network, shown, "edge_map")), range(12)).style.format(precision=2)


# %% [markdown]
# ## All measures of a method
#
# Deletion and insertion come with two fills each, mid-gray and blurred. For a fair table all methods lose the
# same parts of a film. What the network says of them is asked once.

# %%
#| export
@dataclass(frozen=True)
class Measure:
    "A column of the final table."
    title: str
    is_good_high: bool = True


# %%
#| export
MEASURES = {
    "deletion": Measure("deletion, gray", False), "deletion_blurred": Measure("deletion, blurred", False),
    "insertion": Measure("insertion, blurred"), "insertion_gray": Measure("insertion, gray"),
    "deletion_mean": Measure("deletion, train mean", False),
    "insertion_mean": Measure("insertion, train mean"),
    "mu_fidelity": Measure("mu-fidelity"), "infidelity": Measure("infidelity", False),
    "max_sensitivity": Measure("max-sensitivity", False),
    "hit": Measure("hits"), "share": Measure("share in lesion"), "iou": Measure("IoU")}


# %%
#| export
@dataclass(frozen=True)
class Removed:
    "What a network says of films of which parts are removed, the same for all methods."
    blocks: np.ndarray         # (samples, H, W) bool
    of_blocks: np.ndarray      # (N, samples) falls of the log odds
    squares: np.ndarray        # (samples, H, W) bool
    of_squares: np.ndarray     # (N, samples)


# %%
#| export
def ask_removed(model, images, block: int, samples: int, seed: int) -> Removed: # `images`: (N, H, W)
    "Ask a network about films without random blocks, and without random squares."
    shape = images.shape[1:]
    parts = random_blocks(shape, block, .2, samples, seed), random_squares(shape, samples, seed)
    changes = [removal_changes(model, images, part) for part in parts]
    return Removed(parts[0], changes[0], parts[1], changes[1])


# %%
#| export
def film_measures(
    model,
    images,              # (N, H, W) gray 0-255, films called pneumonia
    maps,                # (N, H, W)
    removed: Removed,   # from `ask_removed`
    mean=None,           # the mean of the train films, (H, W); None: not asked
    masks=None,          # (N, H, W) bool, where disease is; None: not known
    steps: int = 16,
    block: int = 4,
    seed: int = 42,
) -> pd.DataFrame: # a row a film, columns as in MEASURES but `max_sensitivity`
    "All measures of maps that need no further map."
    sums = [_removed_sums(_checked_maps(images, maps), part) for part in (removed.blocks, removed.squares)]
    made, own = {}, dict(steps=steps, block=block, seed=seed)
    fills = [("gray", "gray"), ("blurred", "blurred")] + [("mean", mean)] * (mean is not None)
    for name, fill in fills:
        made[f"deletion_{name}"] = deletion(model, images, maps, fill=fill, **own)
        made[f"insertion_{name}"] = insertion(model, images, maps, fill=fill, **own)
    made["deletion"], made["insertion"] = made.pop("deletion_gray"), made.pop("insertion_blurred")
    made["mu_fidelity"] = _row_correlation(sums[0], removed.of_blocks)
    made["infidelity"] = _unexplained(sums[1], removed.of_squares)
    if masks is not None: made |= dict(localisation(maps, masks, seed))
    return pd.DataFrame(made)[[name for name in MEASURES if name in made]]


# %%
removed = ask_removed(network, shown, 4, 32, 1)
cams = explain(network, shown, "gradcam")
made = film_measures(network, shown, cams, removed, masks=shown_masks)
print(made.shape)
test_close(made.mu_fidelity.to_numpy(), mu_fidelity(network, shown, cams, 32, seed=1))


# %% [markdown]
# A network of random weights gets the localisation measures only: what its maps hit, they hit without having
# learned anything.

# %%
#| export
def measure_methods(
    model,
    images,                       # (N, H, W) gray 0-255, films that are called pneumonia
    methods: list[str],           # keys of `METHODS`
    settings: dict | None = None, # method → settings
    masks=None,                   # (N, H, W) bool, where disease is; None: not known
    mean=None,                    # the mean of the train films, (H, W); None: not asked
    steps: int = 8,
    samples: int = 64,            # of random blocks, and of random squares
    noisy: int = 8,               # films for sensitivity, at most
    seed: int = 42,
) -> tuple[pd.DataFrame, dict]: # a row a method and film: method, film, measures; maps by method
    "Every measure of every method on every film."
    block, maps, made = max(1, images.shape[1] // 16), {}, []
    removed = ask_removed(model, images, block, samples, seed)
    asked = lambda method: explain(model, images, method, **(settings or {}).get(method, {}))
    if masks is not None:
        with random_weights(model, seed): untrained = {method: asked(method) for method in methods}
    for method in methods:
        own = (settings or {}).get(method, {})
        maps[method] = asked(method)
        values = film_measures(model, images, maps[method], removed, mean, masks, steps, block, seed)
        stable = max_sensitivity(model, images[:noisy], method, .02, 1, seed, own, maps[method][:noisy])
        values["max_sensitivity"] = np.r_[stable, np.full(len(images) - len(stable), np.nan)]
        if masks is not None:
            values = values.join(localisation(untrained[method], masks, seed).add_prefix("random_"))
        made.append(values.rename_axis("film").reset_index().assign(method=method))
    return pd.concat(made, ignore_index=True), maps


# %% [markdown]
# ## The table
#
# Each number is a mean over films, with an interval from redrawn patients. **Ranks have ties**: a method's
# rank is one more than the number of methods that are better with an interval that does not touch its own. So
# methods whose intervals overlap are not told apart.

# %%
#| export
def _ranked(rows: pd.DataFrame, is_good_high: bool) -> list[int]: # `rows`: low, high
    "One more than the number of methods whose intervals lie wholly on the better side."
    if is_good_high: return [int(1 + (rows.low > high).sum()) for high in rows.high]
    return [int(1 + (rows.high < low).sum()) for low in rows.low]


# %%
test_eq(_ranked(pd.DataFrame(dict(low=[.1, .2, .7], high=[.3, .4, .9])), True), [2, 2, 1])
test_eq(_ranked(pd.DataFrame(dict(low=[.1, .2, .7], high=[.3, .4, .9])), False), [1, 1, 3])


# %%
#| export
def faithfulness_table(
    values: pd.DataFrame, # from `measure_methods`
    patients,             # (N,) whose film each is
    seed: int = 42,
) -> pd.DataFrame: # a row a measure and method: measure, method, films, value, low, high, rank
    "Means over films with intervals over patients, and ranks with ties."
    made, patients = [], np.asarray(patients)
    for measure in [name for name in MEASURES if name in values]:
        rows = []
        for method, group in values.groupby("method", sort=False):
            given = group[np.isfinite(group[measure])]
            if given.empty: continue
            low, high = interval_of(given[measure].to_numpy(), patients[given.film], seed)
            rows.append(dict(measure=measure, method=method, films=len(given), value=given[measure].mean(),
                             low=low, high=high))
        rows = pd.DataFrame(rows)
        made.append(rows.assign(rank=_ranked(rows, MEASURES[measure].is_good_high)))
    return pd.concat(made, ignore_index=True)


# %%
#| export
def _short(title: str) -> str: # such as "Grad-CAM"
    "A method's title without the word map."
    return title.removesuffix(" map").removeprefix("map of ")

def shown_faithfulness(
    table: pd.DataFrame, # from `faithfulness_table`
) -> pd.DataFrame: # a row a measure, a column a method, in words
    "The table for reading: value (interval), rank."
    between = ["–" if low >= 0 else " to " for low in table.low]
    words = [re.sub(r"\b0\.", ".", f"{row.value:.2f} ({row.low:.2f}{to}{row.high:.2f}), {row.rank}")
             for row, to in zip(table.itertuples(), between)]
    named = table.assign(words=words, method=[_short(METHODS[m].title) for m in table.method],
                         measure=[MEASURES[m].title + (" ↑" if MEASURES[m].is_good_high else " ↓")
                                  for m in table.measure])
    wide = named.pivot(index="measure", columns="method", values="words").rename_axis(columns=None)
    return wide.loc[named.measure.unique(), named.method.unique()].fillna("–")


# %%
values, maps = measure_methods(network, shown, tried, quick, shown_masks, samples=32, noisy=4)
table = faithfulness_table(values, range(len(shown)))
assert table[table.method == "random_map"].set_index("measure").loc["mu_fidelity", "high"] < .4
shown_faithfulness(table)


# %% [markdown]
# Localisation by group, and beside what chance and random weights score:

# %%
#| export
def localisation_table(
    values: pd.DataFrame, # from `measure_methods`, with masks
    masks,                # (N, H, W) bool
    groups: pd.DataFrame, # from `lesion_groups`
    patients,             # (N,)
    seed: int = 42,
) -> pd.DataFrame: # method, group, films, measure, value, low, high, chance, random
    "Localisation of each method over all films, by kind, and by the lesion's size."
    chance, patients = chance_localisation(masks), np.asarray(patients)
    parts = {"all": np.ones(len(groups), bool)} | {
        name: (groups[column] == name).to_numpy() for column in groups for name in groups[column].unique()}
    made = []
    for method, rows in values.groupby("method", sort=False):
        for name, part in parts.items():
            some = rows[part[rows.film]]
            for measure in chance:
                low, high = interval_of(some[measure].to_numpy(), patients[some.film], seed)
                made.append(dict(
                    method=method, group=name, films=len(some), measure=measure, value=some[measure].mean(),
                    low=low, high=high, chance=chance[measure][part].mean(),
                    random=some[f"random_{measure}"].mean()))
    return pd.DataFrame(made)


# %%
places = localisation_table(values, shown_masks, lesion_groups(shown_masks, ["bacteria"] * 12), range(12))
hits = places[(places.measure == "hit") & (places.group == "all")]
hits.style.hide(axis="index").format(precision=2)


# %% [markdown]
# ## What the maps may be used for
#
# One sentence is computed from all of this. A method's maps may be used to see **where** a network looks if
# three things hold:
#
# 1. its maps change with the network, at least in part;
# 2. its mu-fidelity is better than that of every control, intervals apart;
# 3. where disease is known, its share in the lesion is better than chance and than random weights.
#
# A method that fails is named with the first thing that failed. How well the others foretell is said beside.
# A mu-fidelity of .1 is better than noise, and still far from 1.

# %%
#| export
def _failure(method: str, table: pd.DataFrame, verdicts: pd.DataFrame, places: pd.DataFrame | None) -> str:
    "Why maps of a method should not be believed; empty where nothing speaks against."
    if verdicts.set_index("method").verdict.get(method) == "hardly changes":
        return "hardly change when the network forgets"
    mu = table[table.measure == "mu_fidelity"].set_index("method")
    controls = [name for name in mu.index if METHODS[name].is_control]
    if controls and mu.low[method] <= mu.high[controls].max():
        return "foretell what removing does no better than a control"
    if places is None or places.empty: return ""
    row = places[(places.method == method) & (places.group == "all") & (places.measure == "share")].iloc[0]
    is_better = row.low > max(row.chance, row.random)
    return "" if is_better else "lie on the disease no better than chance or random weights"


# %%
#| export
def use_sentence(
    table: pd.DataFrame,                  # from `faithfulness_table`
    verdicts: pd.DataFrame,               # from `sanity`
    places: pd.DataFrame | None = None,   # from `localisation_table`; None where disease is not known
) -> str:
    "What the maps of this run may be used for, in one sentence."
    methods = [m for m in table.method.unique() if not METHODS[m].is_control]
    failed = {m: why for m in methods if (why := _failure(m, table, verdicts, places))}
    where = "may be used to see where the network looks"
    mu = table[table.measure == "mu_fidelity"].set_index("method").value
    fine = [m for m in methods if m not in failed]
    how_well = f" (mu-fidelity {min(mu[fine]):.2f} to {max(mu[fine]):.2f}, of 1)" if fine else ""
    known = "" if places is not None else ", which is not to say that disease is there"
    use = f"Of this run's maps, {in_list([_plural(m) for m in fine])} {where}{how_well}{known}"
    if not fine: use = f"None of this run's maps {where}"
    reasons = in_list([f"{_plural(m)} ({why})" for m, why in failed.items()])
    return use + (f"; not to be believed: {reasons}." if failed else ".")


# %%
print(use_sentence(table, verdicts, places))
stuck = verdicts.assign(verdict="hardly changes")
assert use_sentence(table, stuck, places).startswith("None of this run's maps may be used")

# %% [markdown]
# What no number here can say: whether a place that a network uses is a sign of disease. A map may be faithful
# to a network that is wrong.
