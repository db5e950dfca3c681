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
# # Sampling
#
# > Maps from many altered films, and two maps that know nothing of the network

# %%
#| default_exp sampling

# %%
#| export
import cv2
import numpy as np
from zlib import crc32

from pneumo_nb.occlusion import check_explained
from pneumo_nb.run import StudyError, rng_for

# %%
#| hide
import keras
from fastcore.test import test_close, test_eq, test_fail
from keras import layers
from pneumo_nb.cache import squash
from pneumo_nb.phantom import draw_anatomy, draw_film
from pneumo_nb.style import plot_style, show_figure
plot_style()


# %% [markdown]
# A method of this kind asks the network about many altered films and looks for what goes with its answers. It
# needs nothing from inside. Beside it stand two **controls**: maps made without asking any network. What a
# control scores, a map can score without knowing anything.
#
# ## Masks
#
# RISE covers a film at random, some places at a time. Its masks are coarse grids of 0 and 1, enlarged by
# interpolation and moved by a random part of a cell. So their borders are soft and lie everywhere.

# %%
#| export
def _draw_grids(
    shape: tuple[int, int], # (H, W) of the films
    masks: int,
    cells: int,             # along each axis
    keep: float,            # share of cells left as they are, above 0 and below 1
    seed: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]: # grids (masks, ·, ·), shifts (masks, 2), cell size (2,)
    "The random part of all masks: the grids, and how far each is moved."
    size = np.ceil(np.array(shape) / cells).astype(int)
    random = rng_for(seed, "rise")
    grids = (random.random((masks, cells + 1, cells + 1)) < keep).astype(np.float32)
    return grids, random.integers(0, size, (masks, 2)), size


# %%
#| export
def _enlarge(
    grid: np.ndarray,       # (cells + 1, cells + 1) float32
    shift: np.ndarray,      # (2,) rows and columns, less than a cell
    size: np.ndarray,       # (2,) of a cell, pixels
    shape: tuple[int, int], # (H, W)
) -> np.ndarray: # (H, W) float32 from 0 to 1
    "One mask: the grid enlarged, and cut to the film from where the shift says."
    (row, column), (height, width) = shift, np.array(grid.shape) * size
    large = cv2.resize(grid, (int(width), int(height)), interpolation=cv2.INTER_LINEAR)
    return large[row:row + shape[0], column:column + shape[1]]


# %%
grids, shifts, size = _draw_grids((9, 11), 400, 4, .5, seed=1)
masks = np.stack([_enlarge(grid, shift, size, (9, 11)) for grid, shift in zip(grids, shifts)])
test_eq((masks.shape, masks.min(), masks.max()), ((400, 9, 11), 0, 1))
test_close(masks.mean(axis=0), np.full((9, 11), .5), eps=.1)
test_eq(_draw_grids((9, 11), 400, 4, .5, seed=1)[0], grids)

# %% [markdown]
# With as many cells as pixels, each pixel is covered by itself:

# %%
grids, shifts, size = _draw_grids((6, 6), 2, 6, .5, seed=1)
test_eq(_enlarge(grids[0], shifts[0], size, (6, 6)), grids[0, :6, :6])


# %% [markdown]
# ## RISE
#
# RISE (Petsiuk et al., 2018; arXiv:1806.07421) asks which places are left uncovered when the probability is
# high. Petsiuk adds up the masks, weighted by the probabilities; here it is the slope of the probability
# against each pixel's mask, which is zero where a pixel does not count. It cannot show anything finer than a
# cell, nor places that matter only together with others. It is a random estimate: its error falls with the
# root of the number of masks, and different seeds give different maps. The trap: half a film covered is no
# film, and a network that calls all of those the same has a map of noise, which looks like one with spots.

# %%
#| export
def _slopes(
    answers: np.ndarray, # (masks, N) probabilities
    sums: tuple,         # Σ answer × mask (N, H, W), Σ mask (H, W), Σ mask² (H, W)
) -> np.ndarray: # (N, H, W) float32
    "How much a probability rises from covered to uncovered, by least squares for each pixel alone."
    both, mask, square = sums
    count, mean = len(answers), answers.mean(axis=0)
    varies = np.maximum(square - mask ** 2 / count, 1e-9)
    return ((both - mean[:, None, None] * mask) / varies).astype(np.float32)


# %%
random = np.random.default_rng(0)
covers, answers = random.random((50, 2, 2)), random.random((50, 1))
sums = (answers.T @ covers.reshape(50, -1)).reshape(1, 2, 2), covers.sum(axis=0), (covers ** 2).sum(axis=0)
test_close(_slopes(answers, sums)[0, 0, 1], np.polyfit(covers[:, 0, 1], answers[:, 0], 1)[0], eps=1e-6)


# %%
#| export
def _answers(
    model,
    films: np.ndarray, # (N, H, W)
    masks: np.ndarray, # (masks, H, W)
    fill: float,       # gray of what is covered
    output: int,
) -> np.ndarray: # (masks, N)
    "What a model says of each film under each mask."
    def under(film): return (film * masks + fill * (1 - masks))[..., None]
    answers = [np.asarray(model.predict_on_batch(under(film)))[:, output] for film in films]
    return np.stack(answers, axis=1).astype(np.float64)


# %%
#| export
def _check_sampling(masks: int, cells: int, keep: float, fill: float, batch_size: int):
    "Refuse settings that give no masks."
    for name, value, least in (("masks", masks, 2), ("cells", cells, 1), ("batch_size", batch_size, 1)):
        if value < least: raise StudyError(f"Expected {name} of {least} or more, found {value}.")
    if not 0 < keep < 1: raise StudyError(f"Expected keep to be above 0 and below 1, found {keep}.")
    if not 0 <= fill <= 255: raise StudyError(f"Expected a fill from 0 to 255, found {fill}.")


# %%
#| export
def rise(
    model,                     # Keras model: (N, H, W, 1) gray 0-255 → (N, 1) probability of pneumonia
    images,                    # (N, H, W) or (N, H, W, 1), gray 0-255
    masks: int = 1000,         # masked copies of each film
    cells: int = 8,            # of a mask along each axis; no more than the film has pixels
    keep: float = .5,          # share of cells that are not covered
    fill: float = 0.,          # gray of what is covered, 0-255
    seed: int = 42,            # of the masks; they are the same for every film
    batch_size: int = 64,      # copies predicted at a time
    output: int | None = None, # which of several outputs to explain; None: the only one
) -> np.ndarray: # (N, H, W) float32, in probability: positive where uncovering raises the prediction
    "How much the probability rises where a film is uncovered, over random masks."
    images, output = check_explained(model, images, output)
    shape = images.shape[1:]
    _check_sampling(masks, cells, keep, fill, batch_size)
    if not len(images): return np.zeros((0, *shape), np.float32)
    grids, shifts, size = _draw_grids(shape, masks, min(cells, *shape), keep, seed)
    answers, both, one, square = [], np.zeros((len(images), np.prod(shape))), 0., 0.
    for n in range(0, masks, batch_size):
        some = zip(grids[n:n + batch_size], shifts[n:n + batch_size])
        drawn = np.stack([_enlarge(grid, shift, size, shape) for grid, shift in some])
        answers.append(_answers(model, images, drawn, fill, output))
        both += answers[-1].T @ drawn.reshape(len(drawn), -1)
        one, square = one + drawn.sum(axis=0), square + (drawn ** 2).sum(axis=0)
    if not np.isfinite(both).all():
        raise StudyError("Expected finite answers of the model, found nan or infinity.")
    return _slopes(np.concatenate(answers), (both.reshape(images.shape), one, square))


# %% [markdown]
# A linear model's answer is known: uncovering a pixel adds its weight times its gray value. Pixel by pixel,
# the estimate misses that by the other pixels' shares, which come and go at random. Over many masks its mean
# square error is the sum of their squares, divided by the number of masks.

# %%
weights = np.random.default_rng(1).normal(size=(6, 6)).astype(np.float32) / 500
linear = keras.Sequential([keras.Input((6, 6, 1)), layers.Flatten(), layers.Dense(1)])
linear.layers[-1].set_weights([weights.reshape(-1, 1), np.zeros(1)])
some = np.random.default_rng(2).uniform(0, 255, (2, 6, 6)).astype(np.float32)
for count in (250, 1000, 4000):
    error = (rise(linear, some, count, cells=6) - weights * some) ** 2
    expected = ((weights * some) ** 2).sum() / len(some) / count
    print(f"{count:5} masks: mean square error {error.mean():.5f}, expected {expected:.5f}")
    assert .5 < error.mean() / expected < 2

# %%
test_eq(rise(linear, some, 50), rise(linear, some, 50))
test_fail(lambda: rise(linear, some, masks=1), contains="masks of 2 or more, found 1")
test_fail(lambda: rise(linear, some, keep=1.), contains="above 0 and below 1, found 1.0")


# %% [markdown]
# ## A random map
#
# The random map asks nothing at all: it is noise as coarse as a RISE mask, drawn from the film's bytes and
# the seed. It cannot tell anything, and whatever it scores is chance. Other films get other maps, and the
# same film gets the same again. A measure on which a method does no better has not shown that its maps mean
# anything. The trap is on the reader's side: on a film, its spots look like findings.

# %%
#| export
def random_map(
    model,                     # Keras model; not asked
    images,                    # (N, H, W) or (N, H, W, 1), gray 0-255
    cells: int = 8,            # of the noise along each axis
    seed: int = 42,
    output: int | None = None, # which of several outputs; makes no difference
) -> np.ndarray: # (N, H, W) float32, signed
    "A control: noise that knows neither the network nor what is on the film."
    if cells < 1: raise StudyError(f"Expected cells of 1 or more, found {cells}.")
    images, _ = check_explained(model, images, output)
    def noise(film):
        drawn = rng_for(seed, "random_map", crc32(film.tobytes())).normal(size=(cells, cells))
        return cv2.resize(drawn.astype(np.float32), film.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return np.stack([noise(film) for film in images]) if len(images) else images


# %%
noise = random_map(linear, some)
test_eq(noise[1:], random_map(linear, some[1:]))
assert abs(np.corrcoef(noise.reshape(2, -1))[0, 1]) < .9


# %% [markdown]
# ## An edge map
#
# The edge map asks where the film's gray changes, by Sobel's filters on the film smoothed a little. It knows
# the film and not the network, so it cannot tell what any network looks at. Adebayo et al. (2018;
# arXiv:1810.03292) show how like an explanation it looks. A map that resembles it may show the film and
# nothing else. The trap: since bones and heart have edges, it convinces the eye.

# %%
#| export
def edge_map(
    model,                     # Keras model; not asked
    images,                    # (N, H, W) or (N, H, W, 1), gray 0-255
    smooth: float = 1.,        # deviation of the smoothing, pixels; above 0
    output: int | None = None, # which of several outputs; makes no difference
) -> np.ndarray: # (N, H, W) float32, 0 or above, in gray levels a pixel
    "A control: how steeply the film's gray changes, whatever the network does."
    if smooth <= 0: raise StudyError(f"Expected smooth to be above 0, found {smooth}.")
    images, _ = check_explained(model, images, output)
    def edges(film):
        film = cv2.GaussianBlur(film, (0, 0), smooth)
        return np.hypot(*(cv2.Sobel(film, cv2.CV_32F, *d, scale=1 / 8) for d in ((1, 0), (0, 1))))
    return np.stack([edges(film) for film in images]) if len(images) else images


# %%
ramp = np.arange(81, dtype=np.float32).reshape(1, 9, 9)
nine = keras.Sequential([keras.Input((9, 9, 1)), layers.Flatten(), layers.Dense(1)])
test_close(edge_map(nine, ramp)[0, 4, 4], np.hypot(1, 9), eps=1e-2)
