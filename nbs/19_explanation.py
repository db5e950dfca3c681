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
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature

import cv2
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
    floor: float = .05        # no smaller value gets the full colour
    per_pixel: bool = False   # do pixels add up? Then `floor` is for a tenth of the film together
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
           "the last feature maps hold what speaks for pneumonia", floor=.5),
    Method("hirescam", hirescam, "HiResCAM map", "log odds of a place, times the places",
           "a place of the last feature maps speaks for pneumonia", floor=.5),
    Method("integrated_gradients", integrated_gradients, "map of Integrated Gradients", "log odds of a pixel",
           "a pixel adds to the log odds of pneumonia", floor=.5, per_pixel=True),
    Method("smoothgrad", smoothgrad, "SmoothGrad map", "derivative of the log odds times gray",
           "the log odds of pneumonia grow with a pixel", floor=.5, per_pixel=True),
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
# The map becomes a tint of the film, so that the anatomy stays visible: red above zero, blue below, and none
# at zero. The mixing is done in CIELAB, in which equal steps look about equal. Both full colours are equally
# light and equally strong there. So no value stands out because of its colour alone.

# %%
#| export
_RED, _BLUE = (58., 46., 26.), (58., 4., -53.)   # lightness, green to red, blue to yellow


# %%
#| export
def overlay(
    image: np.ndarray,  # (H, W) gray 0-255
    change: np.ndarray, # (H, W) its map
    limit: float,       # value that gets the full colour, above 0
) -> np.ndarray: # (H, W, 3) RGB in [0, 1]
    "The film tinted red where the map is above 0 and blue where it is below; untouched at 0."
    gray = np.repeat(np.asarray(image, np.float32)[..., None] / 255, 3, axis=-1)
    strength = np.clip(np.abs(change) / limit, 0, 1)[..., None] * .75
    full = np.where(np.asarray(change)[..., None] > 0, _RED, _BLUE)
    mixed = (1 - strength) * cv2.cvtColor(gray, cv2.COLOR_RGB2LAB) + strength * full
    return np.clip(cv2.cvtColor(mixed.astype(np.float32), cv2.COLOR_LAB2RGB), 0, 1)


# %% [markdown]
# Red must be red. OpenCV's colour maps come as blue, green, red; shown unchanged they have painted many a hot
# spot blue. Here the channels are checked, and that equal steps of a map are equal steps of colour:

# %%
tinted = overlay(np.full((1, 3), 128), np.array([[1., 0, -1]]), limit=1)
assert tinted[0, 0, 0] > tinted[0, 0, 2] and tinted[0, 2, 2] > tinted[0, 2, 0]
test_close(tinted[0, 1], [128 / 255] * 3, eps=1e-3)
steps = overlay(np.full((1, 9), 128), np.linspace(-1, 1, 9)[None], limit=1)
distances = np.linalg.norm(np.diff(cv2.cvtColor(steps, cv2.COLOR_RGB2LAB), axis=1), axis=-1)
assert distances.max() / distances.min() < 1.2


# %%
#| export
def map_colours():
    "The tints of middle gray as matplotlib's colour map, for colour bars."
    from matplotlib.colors import ListedColormap
    return ListedColormap(overlay(np.full((1, 256), 128), np.linspace(-1, 1, 256)[None], 1)[0], "map")


# %%
test_close(map_colours()(1.)[:3], tinted[0, 0], eps=1e-5)


# %% [markdown]
# ## How much colour
#
# One scale serves all films of a figure that are explained by the same method. So a pale map means a model
# that hardly reacted. A scale that follows the largest value alone would paint noise as vividly as a finding.
# So each method has a floor, below which no value gets the full colour. A few extreme pixels do not count:
# the scale ends where one value in 200 is larger.

# %%
#| export
def colour_floor(method: str, shape: tuple[int, int]) -> float: # `shape`: (H, W)
    "The smallest value that may get the full colour."
    of = METHODS[method]
    return of.floor * 10 / np.prod(shape) if of.per_pixel else of.floor

def colour_limit(
    maps,        # several (H, W), sizes may differ
    method: str, # a key of `METHODS`
) -> float: # above 0
    "The value that gets the full colour."
    sizes = np.concatenate([np.abs(change).ravel() for change in maps])
    return max(float(np.quantile(sizes, .995)), *(colour_floor(method, change.shape) for change in maps))


# %% [markdown]
# Noise of 0.003 gets a twentieth of the colour on an occlusion map. A map of clear spots uses all of it.

# %%
noise = np.random.default_rng(0).uniform(-.003, .003, (20, 20))
test_eq(colour_limit([noise], "occlusion"), .05)
test_close(colour_limit([noise * 200], "occlusion"), .6, eps=.02)
test_close(colour_floor("integrated_gradients", (10, 10)) * 100 / 10, .5)   # a tenth of the pixels together


# %% [markdown]
# A line runs round the strongest tenth of a map above zero. It is drawn on the map after smoothing by a
# thirtieth of the side, since the strongest pixels of a grainy map lie scattered. Where nothing reaches the
# floor there is no line.

# %%
#| export
def strongest_tenth(
    change: np.ndarray, # (H, W), a map
    floor: float,       # below which values mean nothing
) -> tuple[np.ndarray, float | None]: # smoothed map (H, W), and the level of the line; None for no line
    "Where the line round a map's strongest tenth runs."
    smooth = cv2.GaussianBlur(np.asarray(change, np.float32), (0, 0), max(change.shape) / 30)
    level = float(np.quantile(smooth, .9))
    if np.max(change) < floor or smooth.max() <= 0: return smooth, None
    return smooth, level if 0 < level < smooth.max() else float(smooth.max()) / 2


# %%
peak = np.zeros((30, 30))
peak[10:20, 10:20] = 1
smooth, level = strongest_tenth(peak, .05)
assert (smooth > level).sum() <= 90 and (smooth[12:18, 12:18] > level).all()
test_eq(strongest_tenth(noise, .05)[1], None)


# %%
#| export
def _show_film(
    ax,
    image: np.ndarray, # (H, W) gray 0-255, or (H, W, 3) RGB in [0, 1]
    title: str = "",
    mask=None,         # (H, W) bool, where disease is; None: not known
    **place,           # of the title, as for `set_title`
):
    "One picture without axes, disease outlined in yellow."
    ax.imshow(image, vmin=0, vmax=255)
    if mask is not None and np.any(mask):
        ax.contour(mask, [.5], colors="#F0E442", linewidths=1.4, linestyles="--")
    ax.set_title(title, fontsize=9, **place)
    ax.axis("off")


# %%
#| export
def _show_map(ax, image, change, limit: float, method: str, title: str = "", mask=None):
    "A film under its map, with a white line, edged black, round the strongest tenth."
    _show_film(ax, overlay(image, change, limit), title, mask)
    smooth, level = strongest_tenth(change, colour_floor(method, change.shape))
    if level is None: return
    for colour, width in (("black", 2.2), ("white", 1.)):
        ax.contour(smooth, [level], colors=colour, linewidths=width)


# %%
#| export
def _colour_bar(figure, place: dict, limit: float, label: str = ""): # `place`: of the bar, for `colorbar`
    "A scale from blue to red."
    import matplotlib.pyplot as plt
    scale = plt.cm.ScalarMappable(plt.Normalize(-limit, limit), map_colours())
    bar = figure.colorbar(scale, orientation="horizontal", **place)
    bar.set_ticks([-limit, 0, limit], labels=[f"{-limit:.2g}", "0", f"{limit:.2g}"])
    bar.ax.tick_params(labelsize=7, length=2)
    bar.outline.set_visible(False)
    if label: bar.set_label(textwrap.fill(label, 34), fontsize=7)


# %%
#| export
def _panel_title(method: str) -> str:
    "What stands over a map."
    of = METHODS[method]
    return ("control: " if of.is_control else "") + of.title.replace("map of ", "")


# %% [markdown]
# ## One film by all methods
#
# A film's page shows the film and its map by each method, with a scale each. Controls are among them. On
# phantoms a dashed yellow line shows where disease was drawn.

# %%
#| export
def plot_film(
    image: np.ndarray,           # (H, W) gray 0-255
    maps: dict[str, np.ndarray], # method → (H, W), from `explain`
    title: str,                  # over the film
    mask=None,                   # (H, W) bool, where disease is; None: not known
): # matplotlib Figure
    "The film and its map by each method, on a scale each."
    import matplotlib.pyplot as plt
    columns = min(3, 1 + len(maps))
    rows = -(-(1 + len(maps)) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3.2 * columns, 3.75 * rows), squeeze=False)
    _show_film(axes.flat[0], image, title, mask)
    for ax, (method, change) in zip(axes.flat[1:], maps.items()):
        limit = colour_limit([change], method)
        _show_map(ax, image, change, limit, method, _panel_title(method), mask)
        place = dict(ax=ax, shrink=.75, pad=.015, aspect=24)
        _colour_bar(figure, place, limit, METHODS[method].unit)
    for ax in axes.flat[1 + len(maps):]: ax.axis("off")
    return figure


# %%
#| export
def panel_boxes(
    figure,     # from `plot_film`
    count: int, # panels
) -> list[list[float]]: # left, top, width, height of each, as shares of the picture
    "Where the panels lie in the picture."
    figure.canvas.draw()
    boxes = [ax.get_position() for ax in figure.axes[:count]]
    return [[round(float(v), 4) for v in (b.x0, 1 - b.y1, b.width, b.height)] for b in boxes]


# %% [markdown]
# [The figure](#fig-explanation_film) shows the phantom and the model of above. The model is linear and has no
# feature map, so Grad-CAM refuses it. Occlusion finds the drawn disease. So do Integrated Gradients, whose
# values here are weights times gray, but a brighter rest speaks against pneumonia in this model.

# %%
test_fail(lambda: explain(model, film[None]), contains="found no feature map in it; take another method")
own = dict(occlusion=settings, rise=dict(masks=400), smoothgrad=dict(samples=4))
linear_methods = [name for name in METHODS if "cam" not in name]
maps = {name: explain(model, film[None], name, **own.get(name, {}))[0] for name in linear_methods}
figure = plot_film(film, maps, "a phantom with bacterial pneumonia", mask)
boxes = panel_boxes(figure, 7)
test_eq(len(boxes), 7)
assert all(0 <= x and x + w <= 1 and 0 <= y and y + h <= 1 for x, y, w, h in boxes)
alt = "A phantom and six maps: four with a red spot on the outlined disease, one of noise, one of edges."
show_figure(figure, "explanation_film", "One film by all methods that suit the model.", alt);


# %% [markdown]
# ## Several films, several models
#
# To compare films or models, each gets a row and each method a column. A column has one scale. Models may
# take films of different sizes: then each row shows the film as that model sees it.

# %%
#| export
def plot_rows(
    pixels: list[np.ndarray],          # a film a row, (H, W) gray 0-255
    maps: list[dict[str, np.ndarray]], # a row: method → (H, W); a method that a row lacks leaves a gap
    captions: list[str],               # one a row
    masks=None,                        # a row: (H, W) bool, where disease is; None: not known
): # matplotlib Figure
    "A row a film or model, a column a method."
    import matplotlib.pyplot as plt
    methods = list(dict.fromkeys(name for row in maps for name in row))
    count, masks = len(maps), [None] * len(maps) if masks is None else masks
    size = 2.5 * (1 + len(methods)), 2.85 * count + .4
    figure, axes = plt.subplots(count + 1, 1 + len(methods), figsize=size, squeeze=False,
                                height_ratios=[1] * count + [.03])
    for ax in axes.flat: ax.axis("off")
    for row, image, text, mask in zip(axes, pixels, captions, masks):
        _show_film(row[0], image, text, mask, loc="left")
    for column, method in zip(axes.T[1:], methods):
        limit = colour_limit([row[method] for row in maps if method in row], method)
        column[0].set_title(_panel_title(method), fontsize=9)
        for ax, image, row, mask in zip(column, pixels, maps, masks):
            title = ax.get_title()
            if method in row: _show_map(ax, image, row[method], limit, method, title, mask)
        column[-1].axis("on")
        _colour_bar(figure, dict(cax=column[-1]), limit)
    return figure


# %% [markdown]
# A second toy model takes the phantom at 48 pixels. A patch of the same number of pixels covers more of a
# small film, so its map is coarser and its values are larger: [side by side](#fig-explanation_rows).

# %%
small, small_mask = toy_film(48)
small_map = explain(toy_model(small_mask), small[None], "occlusion", **settings)
rows = [dict(occlusion=toy_map[0]), dict(occlusion=small_map[0])]
figure = plot_rows([film, small], rows, ["96 pixels", "48 pixels"], [mask, small_mask])
shapes = [ax.images[0].get_array().shape for ax in figure.axes[:4]]
test_eq(shapes, [(96, 96), (96, 96, 3), (48, 48), (48, 48, 3)])
alt = "A phantom twice, and two overlays: the red spot of the smaller film is wider."
show_figure(figure, "explanation_rows", "One phantom, explained at two sizes on one scale.", alt);


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

@contextmanager
def random_weights(model, seed: int): # gives the model's own weights
    "The model itself with new initial weights, for as long as the block runs; nothing is compiled again."
    own = model.get_weights()
    model.set_weights(with_random_weights(model, seed).get_weights())
    try: yield own
    finally: model.set_weights(own)


# %%
with random_weights(model, 1) as before:
    test_eq(model.get_weights()[0], with_random_weights(model, 1).get_weights()[0])
test_eq(model.get_weights()[0], before[0])
again, other = with_random_weights(model, 1), with_random_weights(model, 2)
test_eq(again.get_weights()[0], with_random_weights(model, 1).get_weights()[0])
assert (again.get_weights()[0] != other.get_weights()[0]).any()
assert (again.get_weights()[0] != model.get_weights()[0]).any()
