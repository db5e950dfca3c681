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
# # Explanations
#
# > One contract for all methods that explain an answer by a map, and how maps are drawn and checked

# %%
#| default_exp explanation

# %%
#| export
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature

import numpy as np

from scipy import ndimage

from pneumo_nb.gradients import gradcam, hirescam, integrated_gradients, smoothgrad
from pneumo_nb.measures import patient_draws, proportion_interval
from pneumo_nb.occlusion import check_explained, occlusion_map
from pneumo_nb.run import StudyError, set_seed
from pneumo_nb.sampling import edge_map, random_map, rise

# %%
#| hide
import keras
from fastcore.test import test_close, test_eq, test_fail
from keras import layers
from pneumo_nb.cache import squash
from pneumo_nb.phantom import draw_anatomy, draw_film
from pneumo_nb.run import rng_for
from pneumo_nb.style import plot_style, show_figure
plot_style()


# %% [markdown]
# An explanation here is a **map**: one number for each pixel of a film. It is above zero where the model took
# the pixel as a sign of pneumonia, below zero where it spoke against, and zero where it did not count. How
# large the numbers are and what they mean depends on the method.
#
# ## One contract
#
# A method is a function of a model and films, and gives a map for each film. Beside the function stand the
# words for people: what a map is called, what its unit is, and what red means.

# %%
#| export
@dataclass(frozen=True)
class Method:
    "A way to explain a model's answers by maps."
    name: str          # its key in `METHODS`
    function: Callable # (model, films (N, H, W) gray 0-255, **settings) → maps (N, H, W) float32
    title: str         # what a map is called
    unit: str          # what a value means
    red: str           # what a value above 0 says, as a clause
    is_control: bool = False  # made without asking the network?
    floor: float = .05        # the smallest value that may get the full colour, in the unit
    faint: str = ""           # what it means if all values are small, as a clause
    faint_below: float = 0.   # the largest value of a faint map

    @property
    def defaults(self) -> dict: # setting → value, read from the function
        "The settings that the method works with unless told otherwise."
        _, _, *settings = signature(self.function).parameters.values()
        return {setting.name: setting.default for setting in settings}


# %% [markdown]
# All methods stand in one table. The chapter that explains a run's films, its figures and one test for all
# follow from this table. A new method is one notebook with its function, and one entry here.

# %%
#| export
_TABLE = [
    Method("occlusion", occlusion_map, "occlusion map", "drop in probability when covered",
           "covering lowers the probability of pneumonia", faint_below=.05,
           faint="their answers do not hang on any one place. A network weighs the film as a whole, or it is "
                 "so sure that a patch cannot move it"),
    Method("gradcam", gradcam, "Grad-CAM map", "weighted features, log odds",
           "the last feature maps hold what speaks for pneumonia"),
    Method("hirescam", hirescam, "HiResCAM map", "log odds of a place, times the places",
           "a place of the last feature maps speaks for pneumonia"),
    Method("integrated_gradients", integrated_gradients, "map of Integrated Gradients", "log odds of a pixel",
           "a pixel adds to the log odds of pneumonia", floor=.001),
    Method("smoothgrad", smoothgrad, "SmoothGrad map", "derivative of the log odds times gray",
           "the log odds of pneumonia grow with a pixel", floor=.001),
    Method("rise", rise, "RISE map", "rise in probability when uncovered",
           "uncovering raises the probability of pneumonia"),
    Method("random_map", random_map, "random map", "noise", "a random number is above 0",
           is_control=True, floor=1.),
    Method("edge_map", edge_map, "edge map", "change of gray, levels a pixel", "the film's gray changes",
           is_control=True, floor=1.)]

METHODS = {method.name: method for method in _TABLE}

# %%
METHODS["occlusion"].defaults


# %% [markdown]
# `explain` is the one way to a map. A misspelled method or setting is refused with the names that there are.
# So are films that the model does not take, and a model of several outputs when none is chosen.

# %%
#| export
def explain(
    model,                     # Keras model: (N, H, W, 1) gray 0-255 → (N, 1) probability of pneumonia
    images,                    # (N, H, W) or (N, H, W, 1), gray 0-255
    method: str = "gradcam",   # a key of `METHODS`
    **own,                     # settings of the method, in place of its defaults
) -> np.ndarray: # (N, H, W) float32, above 0 where a pixel counts as a sign of pneumonia
    "A map for each film."
    if method not in METHODS:
        raise StudyError(f"Expected a method of {', '.join(METHODS)}, found {method!r}.")
    settings = METHODS[method].defaults
    if unknown := sorted(set(own) - set(settings)):
        raise StudyError(f"Expected settings of {', '.join(settings)}, found {', '.join(unknown)}.")
    images, _ = check_explained(model, images, own.get("output"))
    return METHODS[method].function(model, images, **own)


# %% [markdown]
# The example is a phantom with drawn pneumonia, and a model whose answer is known. It compares the mean gray
# inside the diseased region with the mean gray of the whole film, so it looks at nothing but that difference.

# %%
def toy_film(side):
    film, mask = draw_film(draw_anatomy(rng_for(7, "bacteria", 1)), "bacteria", rng_for(7, "bacteria", 1, 1))
    return squash(film, side), squash(mask.astype(np.uint8), side) > 0

def toy_model(mask):
    weights = (mask / mask.sum() - 1 / mask.size) / 32
    model = keras.Sequential([keras.Input((*mask.shape, 1)), layers.Flatten(), layers.Dense(1, "sigmoid")])
    model.set_weights([weights.reshape(-1, 1), np.zeros(1)])
    return model

film, mask = toy_film(96)
model = toy_model(mask)
settings = dict(patch_size=12, stride=6, fill=0.)
toy_map = explain(model, film[None], "occlusion", **settings)
print(toy_map.shape, f"from {toy_map.min():+.3f} to {toy_map.max():+.3f}")

# %%
test_eq(toy_map, occlusion_map(model, film[None], **settings))
test_fail(lambda: explain(model, film[None], "gaze"), contains="edge_map, found 'gaze'")
test_fail(lambda: explain(model, film[None], step=3), contains="layer, batch_size, output, found step")
test_fail(lambda: explain(model, film[None] / -1.), contains="gray values from 0 to 255")


# %% [markdown]
# ## A map on its film
#
# The colours diverge from white at no change. On the film they become a tint, so that the anatomy can be seen
# through it.

# %%
#| export
def overlay(
    image: np.ndarray,  # (H, W) gray 0-255
    change: np.ndarray, # (H, W) its map
    limit: float,       # value that gets the full colour, above 0
) -> np.ndarray: # (H, W, 3) RGB in [0, 1]
    "The film tinted red where the map is above 0 and blue where it is below; untouched at 0."
    import matplotlib.pyplot as plt
    strength = np.clip(np.abs(change) / limit, 0, 1)[..., None] * .6
    tint = plt.get_cmap("RdBu_r")((np.clip(change / limit, -1, 1) + 1) / 2)[..., :3]
    return (1 - strength) * (np.asarray(image)[..., None] / 255) + strength * tint


# %% [markdown]
# Red must be red. OpenCV's colour maps come as blue, green, red; shown unchanged they have painted many a hot
# spot blue. Here the channels are checked:

# %%
tinted = overlay(np.full((1, 3), 128), np.array([[1., 0, -1]]), limit=1)
assert tinted[0, 0, 0] > tinted[0, 0, 2] and tinted[0, 2, 2] > tinted[0, 2, 0]
test_close(tinted[0, 1], [128 / 255] * 3)


# %% [markdown]
# ## Films, maps and overlays
#
# **One scale serves all films of a figure**, so a pale map means a model that hardly reacted, not a faint
# print.

# %%
#| export
def _colour_limit(maps) -> float: # above 0
    "The largest size of any value, which gets the full colour."
    return max(*(float(np.abs(change).max()) for change in maps), 1e-6)


# %%
test_eq(_colour_limit([np.array([.5, -2.])]), 2.)


# %%
#| export
def _show_film(
    ax,
    image: np.ndarray, # (H, W) gray 0-255, or (H, W, 3) RGB in [0, 1]
    title: str = "",
    **place,           # of the title, as for `set_title`
):
    "One picture without axes."
    ax.imshow(image, vmin=0, vmax=255)
    ax.set_title(title, fontsize=10, **place)
    ax.axis("off")


# %%
#| export
def plot_maps(
    pixels: np.ndarray,        # (N, H, W) gray 0-255
    maps: np.ndarray,          # (N, H, W) from `explain`
    captions: list[str],       # N, one a film
    method: str = "occlusion", # a key of `METHODS`
): # matplotlib Figure
    "A row a film: film, map, overlay; one colour scale for all."
    import matplotlib.pyplot as plt
    limit, words = _colour_limit(maps), METHODS[method]
    size = (9.4, 3.0 * len(maps))
    figure, axes = plt.subplots(len(maps), 3, figsize=size, squeeze=False)
    for n, (row, image, change, text) in enumerate(zip(axes, pixels, maps, captions)):
        _show_film(row[0], image, text, loc="left")
        drawn = row[1].imshow(change, cmap="RdBu_r", vmin=-limit, vmax=limit)
        row[1].axis("off")
        _show_film(row[2], overlay(image, change, limit), "" if n else "overlay")
    axes[0, 1].set_title(words.title, fontsize=10)
    figure.colorbar(drawn, ax=axes[:, 1:], shrink=min(1, 1.6 / len(maps)), label=words.unit)
    return figure


# %% [markdown]
# [The figure](#fig-explanation_maps) shows the phantom and the model of above. The red lies on the drawn
# disease; the rest is a faint blue, since a brighter rest speaks against pneumonia in this model.

# %%
figure = plot_maps(film[None], toy_map, ["a phantom with\nbacterial pneumonia"])
alt = "A phantom, its occlusion map with one red spot where the disease was drawn, and both overlaid."
show_figure(figure, "explanation_maps", "A film, its map and both overlaid.", alt);


# %% [markdown]
# ## Two models on one film
#
# Models are compared on the same film and one scale. They may take films of different sizes. Then each
# overlay is drawn on the film as that model sees it.

# %%
#| export
def plot_beside(
    pixels: list[np.ndarray],  # the film as each model sees it, (H, W) gray 0-255; sizes may differ
    maps: list[np.ndarray],    # each model's map, of the size of its film
    captions: list[str],       # one a model
    method: str = "occlusion", # a key of `METHODS`
): # matplotlib Figure
    "One film, and the overlay of each model on a shared scale."
    import matplotlib.pyplot as plt
    limit, count = _colour_limit(maps), 1 + len(maps)
    figure, axes = plt.subplots(1, count, figsize=(3.3 * count + .8, 3.5))
    _show_film(axes[0], max(pixels, key=len), "film")
    for ax, image, change, text in zip(axes[1:], pixels, maps, captions):
        _show_film(ax, overlay(image, change, limit), text)
    scale = plt.cm.ScalarMappable(plt.Normalize(-limit, limit), "RdBu_r")
    figure.colorbar(scale, ax=axes, label=textwrap.fill(METHODS[method].unit, 20), shrink=.8)
    return figure


# %% [markdown]
# A second toy model takes the phantom at 48 pixels. A patch of the same number of pixels covers more of a
# small film, so its map is coarser and its values are larger: [side by side](#fig-explanation_beside).

# %%
small, small_mask = toy_film(48)
small_map = explain(toy_model(small_mask), small[None], "occlusion", **settings)
figure = plot_beside([film, small], [toy_map[0], small_map[0]], ["96 pixels", "48 pixels"])
shapes = [ax.images[0].get_array().shape for ax in figure.axes[:3]]
test_eq(shapes, [(96, 96), (96, 96, 3), (48, 48, 3)])
alt = "A phantom, and two overlays: the red spot of the smaller film is wider."
show_figure(figure, "explanation_beside", "One phantom, explained at two sizes on one scale.", alt);


# %% [markdown]
# ## Against the truth
#
# Where the true region is known, as on phantoms, a map can be checked. The **pointing game** (Zhang et al.,
# 2018; arXiv:1608.00507) counts how often a map's highest point lies in the true region. Pointing blindly
# scores the region's share of the film.
#
# The highest point of an occlusion map is not one pixel but a plateau, as large as a step of the patch. Its
# first corner may lie outside a region that its middle hits. So the pixel nearest to the middle counts. A map
# of one value all over points nowhere.

# %%
#| export
def highest_point(
    change: np.ndarray, # (H, W), a map
) -> tuple[int, int] | None: # row and column; None where all values are equal
    "The pixel nearest to the middle of the largest plateau among a map's highest values."
    if change.min() == change.max(): return None
    plateaus, _ = ndimage.label(change == change.max())
    largest = np.argwhere(plateaus == np.argmax(np.bincount(plateaus.ravel())[1:]) + 1)
    nearest = np.argmin(((largest - largest.mean(axis=0)) ** 2).sum(axis=1))
    return tuple(largest[nearest].tolist())


# %%
plateau = np.zeros((5, 7))
plateau[1:4, 2:5] = plateau[0, 6] = 1
test_eq(highest_point(plateau), (2, 3))   # neither the first corner nor between the two plateaus
test_eq(highest_point(plateau * 0), None)


# %%
#| export
def pointing_hits(
    maps: np.ndarray,  # (N, H, W)
    masks: np.ndarray, # (N, H, W) bool, where disease is
) -> np.ndarray: # (N,) bool
    "Whether the highest point of each map lies in the true region."
    points = [highest_point(change) for change in maps]
    return np.array([p is not None and mask[p] for p, mask in zip(points, masks)], bool)


# %%
#| export
def pointing_game(
    maps: np.ndarray,  # (N, H, W)
    masks: np.ndarray, # (N, H, W) bool, where disease is
) -> tuple[float, float]: # hits, and what blind pointing would score, both 0-1; NaN without films
    "How often the highest point of a map lies in the true region."
    if not len(maps): return float("nan"), float("nan")
    return float(pointing_hits(maps, masks).mean()), float(masks.mean())


# %%
two_maps = np.array([[[0, 1], [0, 0]], [[0, 0], [2, 1]]])
upper_right = np.array([[[False, True], [False, False]]] * 2)
test_eq(pointing_game(two_maps, upper_right), (.5, .25))
test_eq(pointing_game(toy_map, mask[None])[0], 1.)
test_eq(np.isnan(pointing_game(two_maps[:0], upper_right[:0])), [True, True])


# %% [markdown]
# Few films make a share uncertain. Its interval comes from redrawn patients. Where all films are hits, or
# none is, every draw gives the same, and redrawing would promise certainty. There the exact interval for as
# many patients takes its place (Clopper and Pearson, 1934).

# %%
#| export
def hits_interval(
    hits: np.ndarray, # (N,) bool, one a film
    patients,         # (N,) whose film each is
    seed: int,
    draws: int = 2000,
) -> tuple[float, float]: # 2.5 and 97.5 percentiles, 0-1
    "The interval of the share of hits over redrawn patients."
    hits = np.asarray(hits, float)
    if hits.min() == hits.max():
        count = len(set(patients))
        return proportion_interval(round(hits[0] * count), count, method="exact")
    shares = [block @ hits / block.sum(axis=1) for block in patient_draws(patients, draws, seed)]
    return tuple(np.percentile(np.concatenate(shares), [2.5, 97.5]).tolist())


# %%
once = hits_interval(np.arange(40) % 4 > 0, np.arange(40), seed=1)
thrice = hits_interval(np.repeat(np.arange(40) % 4 > 0, 3), np.repeat(np.arange(40), 3), seed=1)
test_eq(once, thrice)                      # three films of a patient tell no more than one
test_close(once, (.75 - .134, .75 + .134), eps=.02)
assert hits_interval(np.ones(5, bool), list("abcde"), seed=1)[0] < .5


# %% [markdown]
# Good hits alone do not show that a network has learned to look there: any network reacts to covered bright
# spots. So the same game is played by the same architecture with random weights (Adebayo et al., 2018;
# arXiv:1810.03292).

# %%
#| export
def with_random_weights(
    model, # Keras model
    seed: int,
): # a model of the same layers that has learned nothing
    "A copy of the architecture with new initial weights."
    import keras
    set_seed(seed)
    return keras.models.clone_model(model)


# %%
again, other = with_random_weights(model, 1), with_random_weights(model, 2)
test_eq(again.get_weights()[0], with_random_weights(model, 1).get_weights()[0])
assert (again.get_weights()[0] != other.get_weights()[0]).any()
assert (again.get_weights()[0] != model.get_weights()[0]).any()
