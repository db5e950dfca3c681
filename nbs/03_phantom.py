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
# # Phantoms
#
# > Procedural chest X-rays of imaginary children, with the truth kept beside them

# %%
#| default_exp phantom

# %%
#| export
from dataclasses import dataclass, field
from pathlib import Path
import os, shutil, tempfile

import cv2
import numpy as np

from pneumo_nb.run import StudyError, read_json, rng_for, shortened, threads, write_csv, write_json
from pneumo_nb.style import CLASS_NAMES

# %%
#| hide
from dataclasses import replace
from io import BytesIO
import matplotlib.pyplot as plt
import pandas as pd
import pydicom
from fastcore.test import test_eq, test_fail
from pydicom.pixels import apply_voi_lut
from pneumo_nb.style import plot_style, show_figure
plot_style()


# %% [markdown]
# Real films of children are personal, large, and not ours to ship. A **phantom** is a drawing that obeys the
# same physics. X-rays are weakened exponentially by what lies in their way. Bone weakens them more than soft
# tissue does, and air hardly at all. So we add up how much tissue each ray meets, and turn the sum into gray
# at the end.
#
# Phantoms let anyone run the whole study in minutes and show every figure in public. They also let us check
# an explanation against the truth, since we know where the disease was drawn. They say nothing about how well
# a model reads real films.
#
# ## A child's anatomy
#
# Everything that stays the same between two films of one child is drawn once, from the seed and the patient's
# number. Lengths are fractions of the film: x from -1 (left edge) to 1, y from 0 (top) to 1.

# %%
#| export
@dataclass
class _Anatomy:
    "What all films of one patient share; lengths in units of half the film's width (x) or its height (y)."
    chest_width: float     # half width of the body at heart level
    apex: float            # y of the lungs' upper ends
    base: float            # y of the right dome of the diaphragm
    heart_size: float      # half width of the heart
    heart_x: float         # its middle; positive is the image's right, the patient's left
    rib_count: int         # pairs
    rib_slope: float       # how steeply the ribs fall towards the sides
    bone: float            # how much bone weakens the beam
    aspect: float          # width / height of the films


# %%
#| export
def draw_anatomy(
    rng: np.random.Generator,
) -> _Anatomy:
    "A random child."
    return _Anatomy(
        chest_width=rng.uniform(.72, .86), apex=rng.uniform(.13, .19), base=rng.uniform(.66, .76),
        heart_size=rng.uniform(.25, .33), heart_x=rng.uniform(.06, .13), rib_count=int(rng.integers(8, 11)),
        rib_slope=rng.uniform(.05, .10), bone=rng.uniform(.75, 1.1), aspect=rng.uniform(1.0, 1.5))


# %%
child = draw_anatomy(rng_for(42, "show"))
test_eq(child, draw_anatomy(rng_for(42, "show")))
child


# %% [markdown]
# ## Soft tissue, lungs and heart
#
# `_smooth_step` gives borders the slight unsharpness of a real film.

# %%
#| export
def _smooth_step(
    distance, # signed distance to a border, positive inside
    width,    # over which the border fades
):
    "0 outside, 1 inside, a smooth ramp between."
    t = np.asarray(distance * (1 / width) + .5)
    np.clip(t, 0, 1, out=t)  # in place: drawing a film is mostly waiting for fresh memory
    ramp = 3 - 2 * t
    ramp *= t
    ramp *= t
    return ramp


# %%
test_eq(_smooth_step(np.array([-1, -.5, 0, .5, 1]), width=1), [0, 0, .5, 1, 1])


# %% [markdown]
# A lung is a smooth shape. The chest wall bounds it outside, the mediastinum inside, and the dome of the
# diaphragm below.

# %%
#| export
def _lung_field(
    child: _Anatomy,
    x, y,      # coordinates, broadcast to (H, W)
    side: int, # -1 the image's left (the patient's right lung), 1 the other
) -> np.ndarray: # (H, W) float, 1 inside the lung
    "How much of each ray's path lies in one lung."
    height = np.clip((y - child.apex) / (child.base + .12 - child.apex), 0, 1)
    outer = child.chest_width * (.30 + .62 * np.sqrt(np.clip(height * 1.5, 0, 1)) - .02 * height)
    inner = .13 + .05 * height
    middle, half = side * (outer + inner) / 2, np.maximum((outer - inner) / 2, 1e-3)
    dome = child.base + (.02 if side > 0 else 0) + .16 * ((x - side * .34) / .55) ** 2
    across = _smooth_step(half - np.abs(x - middle), .05)
    return across * _smooth_step(dome - y, .02) * _smooth_step(y - child.apex, .05)


# %%
#| export
def _heart_field(
    child: _Anatomy,
    x, y, # coordinates, broadcast to (H, W)
) -> np.ndarray: # (H, W) float, 1 inside the heart
    "An egg whose tip points to the image's lower right, and the great vessels above it."
    dx, dy = x - child.heart_x, y - (child.base - .12)
    u, v = dx + .55 * dy, dy - .10 * dx
    egg = 1 - np.sqrt((u / child.heart_size) ** 2 + (v / .22) ** 2)
    trunk = _smooth_step(.13 + .05 * (y - .3) - np.abs(x - .02), .10)
    vessels = trunk * _smooth_step(child.base - .02 - y, .2)
    return np.maximum(_smooth_step(egg, .30), .7 * vessels * _smooth_step(y - .08, .2))


# %% [markdown]
# The heart lies mostly to the image's right, and no lung reaches the film's upper or lower edge.

# %%
y, x = np.mgrid[0:1:240j, -1:1:300j]
lungs = sum(_lung_field(child, x, y, side) for side in (-1, 1))
heart = _heart_field(child, x, y)
assert lungs[120, 75] > .9 and lungs[120, 225] > .5
test_eq([lungs[5].max(), lungs[-5].max()], [0, 0])
assert heart[:, 150:].sum() > heart[:, :150].sum()


# %% [markdown]
# ## Bones
#
# Ribs are tubes: their walls stand edge-on to the beam and look brighter than their middle. Each pair runs
# from the spine up and outwards, over the side of the chest, and forward down again, where it is fainter.

# %%
#| export
def _stroke(
    layer: np.ndarray,  # (H, W) uint8, drawn on in place
    points: np.ndarray, # (n, 2) x in [-1, 1], y in [0, 1]
    width: float,       # in pixels
    value: int,         # gray 0-255
):
    "A smooth line with sub-pixel corners."
    h, w = layer.shape
    pixels = np.stack([(points[:, 0] + 1) / 2 * w, points[:, 1] * h], axis=1)
    sixteenths = np.round(pixels * 16).astype(np.int32)
    cv2.polylines(layer, [sixteenths], False, int(value), max(1, round(width)), cv2.LINE_AA, 4)


# %%
layer = np.zeros((9, 9), np.uint8)
_stroke(layer, np.array([[-1, .5], [1, .5]]), width=1, value=200)   # from edge to edge, half way down
print(layer[:, 4])
assert layer[4, 4] > 50 and not layer[:3].any() and not layer[7:].any()


# %%
#| export
def _rib_line(
    child: _Anatomy,
    number: int, # from 0, the uppermost
    side: int,   # -1 or 1
    front: bool, # the front part, from the side down towards the breastbone, or the back part
) -> np.ndarray: # (24, 2) points
    "The course of one rib."
    t = np.linspace(0, 1, 24)
    start = child.apex - .01 + number * (child.base + .16 - child.apex) / child.rib_count
    reach = child.chest_width * (.30 + .62 * np.sqrt(np.clip((start - child.apex + .08) * 2, 0, 1)))
    if front:
        fall = start + .03 + child.rib_slope * (1.2 + 1.6 * t)
        return np.stack([side * reach * (1 - .62 * t), fall], axis=1)
    rise = .05 * np.sin(np.pi * np.minimum(t * 1.25, 1))
    back = start - rise + child.rib_slope * 1.6 * t ** 2.2
    return np.stack([side * (.07 + (reach - .07) * np.sin(t * np.pi / 2)), back], axis=1)


# %%
#| export
def _ribs(
    child: _Anatomy,
    shape: tuple[int, int], # (H, W)
) -> np.ndarray: # (H, W) uint8
    "All ribs: bright walls, darker marrow, faint front parts."
    h, back, front = shape[0], np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    for side in (-1, 1):
        for n in range(child.rib_count):
            _stroke(back, _rib_line(child, n, side, False), .026 * h, 170)
            _stroke(back, _rib_line(child, n, side, False), .015 * h, 95)
            if n > 1: _stroke(front, _rib_line(child, n, side, True), .022 * h, 60)
    return cv2.GaussianBlur(cv2.max(back, front), (0, 0), max(.6, h / 260))


# %%
#| export
def _shoulders(
    child: _Anatomy,
    shape: tuple[int, int], # (H, W)
) -> np.ndarray: # (H, W) uint8
    "Clavicles, shoulder blades and upper arms."
    h, apex, layer, t = shape[0], child.apex, np.zeros(shape, np.uint8), np.linspace(0, 1, 16)
    for side in (-1, 1):
        rise = apex + .015 - .07 * t + .02 * np.sin(2 * np.pi * t)
        clavicle = np.stack([side * (.06 + .60 * t), rise], axis=1)
        _stroke(layer, clavicle, .030 * h, 190)
        _stroke(layer, clavicle, .014 * h, 130)
        blade = [[side * .66, apex - .02], [side * .72, apex + .20], [side * .60, apex + .10]]
        _stroke(layer, np.array(blade), .022 * h, 70)
        arm = np.array([[side * .80, apex - .04], [side * 1.02, apex + .22]])
        _stroke(layer, arm, .065 * h, 150)
        _stroke(layer, arm, .040 * h, 110)
    return cv2.GaussianBlur(layer, (0, 0), max(.8, h / 180))


# %%
#| export
def _spine(
    shape: tuple[int, int], # (H, W)
) -> np.ndarray: # (H, W) float32
    "Vertebrae: bright bodies with darker discs between and a round pedicle on each side."
    h, w = shape
    y, x = np.ogrid[0:1:h*1j, -1:1:w*1j]
    phase = (y * 15 + .3) % 1
    body = _smooth_step(.085 - np.abs(x), .03) * (.45 + .35 * _smooth_step(.38 - np.abs(phase - .5), .12))
    pedicle = np.exp(-((np.abs(x) - .055) / .018) ** 2 - ((phase - .42) / .16) ** 2)
    return (body + .25 * pedicle).astype(np.float32)


# %%
#| export
def _bones(
    child: _Anatomy,
    shape: tuple[int, int], # (H, W)
) -> np.ndarray: # (H, W) float32, about 0 to 1
    "Ribs, shoulders and spine."
    return (_ribs(child, shape).astype(np.float32) + _shoulders(child, shape)) / 255 + _spine(shape)


# %% [markdown]
# ## Vessels and texture
#
# Healthy lungs are not empty: vessels branch from the hilum, the lung's root, and get fine near the edge.
# Interstitial disease hides among them. So an empty lung with one cloud in it would be too easy a task.

# %%
#| export
def _vessels(
    child: _Anatomy,
    shape: tuple[int, int], # (H, W)
    rng: np.random.Generator,
    count: int, # branches a side
) -> np.ndarray: # (H, W) float32
    "Branching vessels, thick at the hilum and fading outwards."
    h, layer, t = shape[0], np.zeros(shape, np.uint8), np.linspace(0, 1, 10)
    for side in (-1, 1):
        hilum = np.array([side * .17, child.apex + .55 * (child.base - child.apex)])
        for _ in range(count):
            angle, length = rng.uniform(-1.25, 1.25), rng.uniform(.15, .5)
            bend = rng.normal(0, .06) * t ** 2
            across, down = side * length * np.cos(angle) * t, .55 * length * np.sin(angle) * t + bend
            path = hilum + np.stack([across, down], axis=1)
            for part in range(3):
                piece = path[part * 3:part * 3 + 4]
                _stroke(layer, piece, (.011 - .003 * part) * h, 120 - 32 * part)
    return cv2.GaussianBlur(layer, (0, 0), max(.5, h / 300)).astype(np.float32) / 255


# %% [markdown]
# [The figure](#fig-phantom_layers) shows these layers one by one, brighter where more tissue or air is met.

# %%
shape = lungs.shape
layers = {"lungs": lungs, "heart": heart, "bones": _bones(child, shape),
          "vessels": _vessels(child, shape, rng_for(42, "vessels"), count=18)}
figure, axes = plt.subplots(1, 4, figsize=(12, 2.6))
for ax, (words, layer) in zip(axes, layers.items()):
    ax.imshow(layer)
    ax.set_title(words)
    ax.axis("off")
show_figure(figure, "phantom_layers", "The layers of one phantom.",
            "Two lungs, a heart leaning to the right, ribs with spine and shoulders, and branching vessels.");


# %% [markdown]
# Texture comes from smooth noise: the usual sum of random fields at doubling scales.

# %%
#| export
def _smooth_noise(
    rng: np.random.Generator,
    shape: tuple[int, int], # (H, W)
    cells: int,             # coarsest grid, cells over the height
    octaves: int = 3,
) -> np.ndarray: # (H, W) float32, mean about 0, deviation 1
    "Random field with structure at `octaves` scales."
    total = np.zeros(shape, np.float32)
    for octave in range(octaves):
        n = cells * 2 ** octave
        grid = rng.standard_normal((n, max(2, n * shape[1] // shape[0])), dtype=np.float32)
        total += cv2.resize(grid, shape[::-1], interpolation=cv2.INTER_CUBIC) / 2 ** octave
    return total / total.std()


# %%
noise = _smooth_noise(rng_for(1), (120, 150), cells=6)
print(noise.shape, noise.dtype)
assert abs(noise.std() - 1) < 1e-3 and abs(np.diff(noise)).mean() < .3   # neighbours are alike


# %% [markdown]
# ## Disease
#
# *Bacterial* pneumonia fills the air spaces of a lobe: one soft, dense patch with uneven edges. *Viral*
# pneumonia thickens the tissue between them: fine streaks on both sides, densest near the middle. Some cases
# are faint. The films of healthy children have their own clouds (skin folds, rotation), so no model can be
# right every time.

# %%
#| export
def _lobar_opacity(
    child: _Anatomy,
    x, y,                    # coordinates, broadcast to (H, W)
    lungs: np.ndarray,       # (H, W), 1 inside the lungs
    rng: np.random.Generator,
) -> np.ndarray: # (H, W) float32, about 0 to 1
    "A soft patch in one lobe of one lung."
    side = rng.choice([-1, 1])
    cx = side * rng.uniform(.28, .48)
    cy = child.apex + rng.choice([.24, .55, .80]) * (child.base - child.apex)
    rx, ry = rng.uniform(.15, .28), rng.uniform(.10, .19)
    tilt = rng.uniform(-.5, .5)
    u, v = (x - cx) + tilt * (y - cy), (y - cy) - .3 * tilt * (x - cx)
    edge = .30 * _smooth_noise(rng, lungs.shape, 6)
    patch = _smooth_step(1 - np.sqrt((u / rx) ** 2 + (v / ry) ** 2) + edge, 1.1)
    return (lungs * patch).astype(np.float32)


# %%
#| export
def _interstitial_texture(
    child: _Anatomy,
    x, y,                    # coordinates, broadcast to (H, W)
    lungs: np.ndarray,       # (H, W), 1 inside the lungs
    rng: np.random.Generator,
) -> np.ndarray: # (H, W) float32, about 0 to 1
    "Fine streaks in both lungs, densest around the hila."
    ridges = 1 - np.abs(_smooth_noise(rng, lungs.shape, 20, 2))
    haze = .5 + .25 * _smooth_noise(rng, lungs.shape, 5, 2)
    middle = child.apex + .6 * (child.base - child.apex)
    across = -((np.abs(x) - .22) / rng.uniform(.25, .38)) ** 2
    near = np.exp(across - ((y - middle) / rng.uniform(.16, .24)) ** 2)
    return (lungs * near * np.clip(.75 * np.clip(ridges, 0, 1) + .35 * haze, 0, 1)).astype(np.float32)


# %%
#| export
_DISEASES = {"normal": None, "bacteria": _lobar_opacity, "virus": _interstitial_texture}

# %% [markdown]
# A patch lies in one lung; streaks lie in both:

# %%
x32, y32 = x.astype(np.float32), y.astype(np.float32)
patch, streaks = (disease(child, x32, y32, lungs, rng_for(3)) for disease in list(_DISEASES.values())[1:])
sides = lambda layer: sorted([layer[:, :150].sum(), layer[:, 150:].sum()])
assert sides(patch)[0] < .05 * sides(patch)[1] and sides(streaks)[0] > .5 * sides(streaks)[1]


# %% [markdown]
# ## One film
#
# The body is a flattened cylinder, so the beam's path through it is longest in the middle. `_attenuation`
# adds up what the beam meets on its way.

# %%
#| export
def _body(
    child: _Anatomy,
    x, y, # coordinates, broadcast to (H, W)
) -> np.ndarray: # (H, W)
    "How thick the body is: neck, then shoulders, then chest."
    trunk = child.chest_width * 1.10 + .16 * _smooth_step(.26 - y, .34)
    width = .30 + (trunk - .30) * _smooth_step(y - .05, .16)
    return np.sqrt(np.clip(1 - (x / width) ** 2, 0, 1))

def _stomach_bubble(child: _Anatomy, x, y) -> np.ndarray: # (H, W), 1 inside
    "Air below the dome of the diaphragm."
    across = _smooth_step(1 - np.abs(x - .30) / .16, 1)
    return across * _smooth_step(1 - np.abs(y - child.base - .13) / .05, 1)


# %%
#| export
def _attenuation(
    child: _Anatomy,
    x, y,              # coordinates, broadcast to (H, W)
    lungs: np.ndarray, # (H, W), 1 inside
    heart: np.ndarray, # (H, W), 1 inside
    rng: np.random.Generator,
) -> np.ndarray: # (H, W) float32; the beam leaves exp(-attenuation) of itself
    "What weakens the beam in a healthy child."
    shape, body = lungs.shape, _body(child, x, y)
    total = 1.40 * np.sqrt(body * np.sqrt(body))
    total -= lungs * body * (1.00 + .08 * _smooth_noise(rng, shape, 3, 2))
    total += .45 * heart + .30 * _smooth_step(y - child.base - .04, .12) * body
    total -= .35 * rng.uniform(0, 1) * _stomach_bubble(child, x, y)
    total += .50 * child.bone * _bones(child, shape) * np.maximum(_smooth_step(body, .5), .6)
    total += .22 * lungs * _vessels(child, shape, rng, int(rng.integers(12, 26)))
    return (total + .06 * lungs * _smooth_noise(rng, shape, 4)).astype(np.float32)


# %% [markdown]
# The film is exposed after the law of Beer and Lambert, seen on a negative: gray = 255 (1 -
# exp(-attenuation)). Then come the exposure's contrast, quantum noise and the collimator's edges.

# %%
#| export
def _develop(
    total: np.ndarray, # (H, W) attenuation
    rng: np.random.Generator,
) -> np.ndarray: # (H, W) uint8
    "Turn attenuation into gray, with the exposure's contrast, noise and edges."
    h, w = total.shape
    gray = 1 - np.exp(-rng.uniform(.75, 1.0) * np.maximum(total, 0))
    gray = rng.uniform(0, .06) + rng.uniform(1.0, 1.12) * gray ** rng.uniform(1.0, 1.4)
    gray += rng.normal(0, .04) * np.linspace(-1, 1, w, dtype=np.float32)
    strength, grain = rng.uniform(.012, .03), rng.standard_normal((h, w), dtype=np.float32)
    gray += strength * cv2.GaussianBlur(grain, (0, 0), .7)
    film = np.clip(gray * 255, 0, 255).astype(np.uint8)
    left, top = int(w * rng.uniform(0, .03)), int(h * rng.uniform(0, .02))
    film[:, :left] = 4
    film[:top] = 4
    return film


# %% [markdown]
# ## Burnt in, and what a machine leaves
#
# Every film bears a small R, the side marker. Letters are burnt in: they hide what lies below. `_burn_in`
# also tells where they are, as shares of the film's sides.

# %%
#| export
def _burn_in(
    film: np.ndarray,       # (H, W) uint8, written on in place
    words: str,
    place: tuple[int, int], # x, y of the writing's lower left corner, in pixels
    size: float,            # capitals are .04 of it high, in pixels
    gray: int = 235,
) -> tuple[float, float, float, float]: # x0, y0, x1, y1, as shares of the sides
    "Write on a film, and give the box that holds the writing."
    (h, w), blank, thickness = film.shape, np.zeros_like(film), max(1, round(size) // 220)
    for layer, value in ((film, gray), (blank, 255)):
        cv2.putText(layer, words, place, cv2.FONT_HERSHEY_SIMPLEX, size / 520, value, thickness, cv2.LINE_AA)
    x, y, width, height = cv2.boundingRect(blank)
    return x / w, y / h, (x + width) / w, (y + height) / h


# %%
film = np.full((400, 500), 30, np.uint8)
x0, y0, x1, y1 = _burn_in(film, "R", (50, 100), size=400)
np.testing.assert_allclose([x0, y1], [50 / 500, 100 / 400], atol=.012)
np.testing.assert_allclose(y1 - y0, .04, atol=.01)
test_eq((film != 30).any(axis=1).nonzero()[0][[0, -1]], np.round([y0 * 400, y1 * 400 - 1]))


# %% [markdown]
# Some machines leave more. In the public set, a search for exposure text low on the right finds it on 210 of
# the 3,883 films with pneumonia that are not test, and on none of the 1,349 normal ones. A network may learn
# that instead of the lung: a **shortcut**. Phantoms have none of their own. But four can be **planted**, so
# that an examination for shortcuts has films on which the right answer is known:
#
# - `text`: the tube's voltage and charge, burnt in low on the right;
# - `marker`: a white R about twice as tall, instead of the usual one;
# - `frame`: a bright or black border on all four sides, as wide as it happens to be;
# - `exposure`: gray levels that are brighter, by a gamma and an offset.
#
# Each draws from a generator of its own, changes a film in place, and gives the boxes that it changed.

# %%
#| export
def _plant_text(film: np.ndarray, rng: np.random.Generator) -> list[tuple]: # boxes
    "Burn in exposure text, low on the right."
    (h, w), size = film.shape, film.shape[0] * rng.uniform(.85, 1.05)
    words = f"KV{rng.integers(48, 72)} MAS{rng.uniform(1, 6):.1f}"
    (width, _), _ = cv2.getTextSize(words, cv2.FONT_HERSHEY_SIMPLEX, size / 520, max(1, round(size) // 220))
    place = int(w * rng.uniform(.945, .955)) - width, int(h * rng.uniform(.945, .955))
    return [_burn_in(film, words, place, size, 255)]


# %%
#| export
def _plant_marker(film: np.ndarray, rng: np.random.Generator) -> list[tuple]: # boxes
    "Burn in a tall R at the upper left."
    (h, w), size = film.shape, film.shape[0] * rng.uniform(1.8, 2.3)
    top = h * rng.uniform(.08, .20)
    return [_burn_in(film, "R", (int(w * rng.uniform(.03, .06)), int(top + size * 21 / 520)), size, 255)]


# %% [markdown]
# A border is nowhere so wide that it would reach the lungs, the side marker or the text. Its edge is a little
# soft, as a collimator's is.

# %%
#| export
_FRAME_WIDTHS = (.010, .02, .015, .015), (.028, .07, .04, .04)  # least and most: left, top, right, bottom

def _plant_frame(film: np.ndarray, rng: np.random.Generator) -> list[tuple]: # a box for each side
    "Cover the film's edges by a border, bright or black."
    (h, w), soft = film.shape, .006
    left, top, right, bottom = widths = rng.uniform(*_FRAME_WIDTHS)
    gray = rng.uniform(190, 240) if rng.random() < .5 else rng.uniform(0, 10)
    x, y = (np.arange(w) + .5) / w, (np.arange(h)[:, None] + .5) / h
    inside = np.minimum(np.minimum(x - left, 1 - right - x), np.minimum(y - top, 1 - bottom - y))
    seen = _smooth_step(inside, soft)
    film[:] = np.round(seen * film + (1 - seen) * gray)
    left, top, right, bottom = widths + soft / 2
    return [(0, 0, left, 1), (0, 0, 1, top), (1 - right, 0, 1, 1), (0, 1 - bottom, 1, 1)]


# %%
#| export
def _plant_exposure(film: np.ndarray, rng: np.random.Generator) -> list[tuple]: # the whole film
    "Brighten a film by a gamma and an offset."
    gamma, offset = rng.uniform(.55, .70), rng.uniform(10, 30)
    curve = offset + (235 - offset) * (np.arange(256) / 255) ** gamma
    cv2.LUT(film, np.round(curve).astype(np.uint8), film)
    return [(0, 0, 1, 1)]


# %%
#| export
_SHORTCUTS = {"exposure": _plant_exposure, "frame": _plant_frame, "marker": _plant_marker,
              "text": _plant_text}  # in the order in which a film gets them

# %% [markdown]
# Outside its boxes, a shortcut changes nothing. The one for exposure is the whole film, where only gray
# levels move, and their order stays.

# %%
flat = np.full((300, 400), 100, np.uint8)
for name, plant in _SHORTCUTS.items():
    film, is_boxed = flat.copy(), np.zeros(flat.shape, bool)
    for x0, y0, x1, y1 in plant(film, rng_for(3, name)):
        is_boxed[int(y0 * 300):round(y1 * 300 + .5), int(x0 * 400):round(x1 * 400 + .5)] = True
    print(f"{name}: boxes cover {is_boxed.mean():.1%} of the film")
    assert (film != flat).any() and not (film != flat)[~is_boxed].any()


# %% [markdown]
# ## Two hospitals
#
# A network that does well where it learned may do worse elsewhere. Another **hospital** has other machines,
# other habits, and sees other children. Hospital A is the one described above. Films of hospital B are larger
# and less sharp, dark gray is brighter and white is less so, the side marker is an L on the other side, and
# most of its children are healthy.
#
# The numbers of B are chosen, not measured at any hospital. Each can be seen on a film or counted.

# %%
#| export
@dataclass(frozen=True)
class Hospital:
    "How a hospital takes its films, and whom it sees."
    heights: tuple[int, int] = (260, 460) # of films, in pixels: least, and one more than the most
    blur: float = 0          # standard deviation of the unsharpness, in heights of a film
    gamma: float = 1         # of gray levels; below 1 is brighter
    contrast: float = 1      # about the middle gray
    brightness: float = 0    # gray levels added
    marker: str = "R"        # which side it is, burnt in
    marker_size: float = 1   # 1 makes capitals .04 of the film's height
    is_right: bool = False   # whether the marker stands at the film's right edge, not at its left
    normal_share: float | None = None # of all films; None: as in the public set, by split

HOSPITALS = {
    "A": Hospital(),
    "B": Hospital(heights=(480, 640), blur=.005, gamma=.8, contrast=.9, brightness=-8,
                  marker="L", marker_size=1.4, is_right=True, normal_share=.7)}

# %%
pd.DataFrame({name: vars(hospital) for name, hospital in HOSPITALS.items()}).map(str)


# %%
#| export
def _known(what: str, name: str, table: dict): # → what the table has of that name
    "What a table holds under a name; refuses a name that it has not."
    if isinstance(name, str) and name in table: return table[name]
    raise StudyError(f"Expected a {what} among {', '.join(table)}, found {shortened(name)}; "
                     "choose one of them.")


# %%
test_eq(_known("hospital", "A", HOSPITALS), Hospital())
test_fail(lambda: _known("hospital", "C", HOSPITALS), contains="a hospital among A, B, found 'C'")


# %% [markdown]
# `as_taken` makes a film of hospital A what another machine would have given. At A it changes nothing.

# %%
#| export
def as_taken(
    film: np.ndarray,   # (H, W) uint8, as at hospital A
    hospital: Hospital,
) -> np.ndarray: # (H, W) uint8
    "A film with the sharpness and the gray levels of a hospital."
    if hospital.blur: film = cv2.GaussianBlur(film, (0, 0), hospital.blur * len(film))
    gray = 255 * (np.arange(256) / 255) ** hospital.gamma
    curve = 127.5 + hospital.contrast * (gray - 127.5) + hospital.brightness
    return cv2.LUT(film, np.clip(np.round(curve), 0, 255).astype(np.uint8))


# %%
levels = np.arange(256, dtype=np.uint8)[None]
test_eq(as_taken(levels, HOSPITALS["A"]), levels)
at_b = as_taken(levels, replace(HOSPITALS["B"], blur=0))[0]
print("black, middle and white at B:", at_b[[0, 128, 255]])
assert (np.diff(at_b.astype(int)) >= 0).all() and at_b[64] > 64 and at_b[255] < 240


# %%
#| export
def _mark_side(
    film: np.ndarray, # (H, W) uint8, written on in place
    hospital: Hospital,
    x: float,         # from the film's edge on the marker's side, in pixels
    y: int,           # the letter's lower end, in pixels
) -> tuple[float, float, float, float]: # x0, y0, x1, y1, as shares of the sides
    "Burn in a hospital's side marker."
    (h, w), size = film.shape, film.shape[0] * hospital.marker_size
    if hospital.is_right:
        thickness = max(1, round(size) // 220)
        (width, _), _ = cv2.getTextSize(hospital.marker, cv2.FONT_HERSHEY_SIMPLEX, size / 520, thickness)
        x = .98 * w - x - width   # a planted border is narrower than what is left
    return _burn_in(film, hospital.marker, (int(x), y), size)


# %%
marks = {name: _mark_side(np.zeros((400, 500), np.uint8), hospital, x=30, y=80)
         for name, hospital in HOSPITALS.items()}
assert marks["A"][2] < .1 and marks["B"][0] > .85
np.testing.assert_allclose([y1 - y0 for _, y0, _, y1 in marks.values()], [.04, .056], atol=.01)


# %%
#| export
def _expose(
    total: np.ndarray, # (H, W) attenuation
    rng: np.random.Generator,
    shortcuts: dict[str, np.random.Generator], # those to plant
    hospital: Hospital,
) -> tuple[np.ndarray, dict[str, list]]: # (H, W) uint8; boxes of each shortcut
    "Turn attenuation into a film with its side marker and what is planted."
    (h, w), film = total.shape, as_taken(_develop(total, rng), hospital)
    x, y = w * rng.uniform(.03, .09), int(h * rng.uniform(.12, .30))
    boxes = {name: plant(film, shortcuts[name]) for name, plant in _SHORTCUTS.items() if name in shortcuts}
    if "marker" not in shortcuts: _mark_side(film, hospital, x, y)
    return film, boxes


# %% [markdown]
# ## The whole film
#
# No two films of one child lie alike: each is turned, shifted and zoomed a little. Tissue is laid out 224
# pixels high; exposure and noise come at the film's own size.

# %%
#| export
def _film_coordinates(
    shape: tuple[int, int], # (H, W)
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]: # x, y: (H, W) float32
    "Where each pixel lies in the child, who stands slightly turned, shifted and zoomed."
    y, x = np.ogrid[0:1:shape[0]*1j, -1:1:shape[1]*1j]
    turn, dx, dy, zoom = rng.normal(0, .025), rng.normal(0, .04), rng.normal(0, .02), rng.uniform(.94, 1.08)
    across = (x - dx) / zoom + turn * (y - .5)
    down = (y - .5 - dy) / zoom - turn * x * .5 + .5
    return across.astype(np.float32), down.astype(np.float32)


# %%
#| export
def _draw_planted(
    child: _Anatomy,         # from `draw_anatomy`
    kind: str,               # "normal", "bacteria" or "virus"
    rng: np.random.Generator,
    height: int,             # pixels; the width follows from the anatomy's aspect
    shortcuts: dict[str, np.random.Generator], # those to plant
    hospital: str = "A",     # of `HOSPITALS`
) -> tuple[np.ndarray, np.ndarray, dict[str, list]]: # film (H, W) uint8, mask (H, W) bool, boxes
    "One frontal film of one child, where its disease was drawn, and where its shortcuts were planted."
    shape, size = (224, round(224 * child.aspect)), (round(height * child.aspect), height)
    x, y = _film_coordinates(shape, rng)
    lungs = np.clip(sum(_lung_field(child, x, y, side) for side in (-1, 1)), 0, 1)
    heart = _heart_field(child, x, y)
    lungs *= 1 - .85 * heart
    total, mask = _attenuation(child, x, y, lungs, heart, rng), np.zeros(shape, bool)
    if disease := _DISEASES[kind]:
        opacity = disease(child, x, y, lungs, rng)
        total += rng.uniform(.35, 1.2) * opacity
        mask = cv2.GaussianBlur(opacity, (0, 0), 6) > .15  # the region, not each streak
    total = cv2.resize(total, size, interpolation=cv2.INTER_CUBIC)
    mask = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    film, boxes = _expose(total, rng, shortcuts, _known("hospital", hospital, HOSPITALS))
    return film, mask, boxes


# %%
#| export
def draw_film(
    child: _Anatomy,         # from `draw_anatomy`
    kind: str,               # "normal", "bacteria" or "virus"
    rng: np.random.Generator,
    height: int = 360,       # pixels; the width follows from the anatomy's aspect
    hospital: str = "A",     # of `HOSPITALS`
) -> tuple[np.ndarray, np.ndarray]: # film (H, W) uint8, mask (H, W) bool: where disease was drawn
    "One frontal film of one child, with nothing planted."
    return _draw_planted(child, kind, rng, height, {}, hospital)[:2]


# %% [markdown]
# Twelve children, in [the figure](#fig-phantom_children). The outline in the lower rows is the truth that is
# kept beside the set. Look at how faint some of the diseased regions are, and how much a healthy film can
# look like a veiled one. The films differ in width because children's films do; that says nothing about the
# class.

# %%
figure, axes = plt.subplots(3, 4, figsize=(12, 8))
for row, kind in zip(axes, _DISEASES):
    for n, ax in enumerate(row):
        film, mask = draw_film(draw_anatomy(rng_for(7, kind, n)), kind, rng_for(7, kind, n, 1))
        ax.imshow(film, vmin=0, vmax=255, aspect="auto")
        ax.axis("off")
        if mask.any(): ax.contour(mask, [.5], colors="#F0E442", linewidths=1)
    row[0].set_title(f"{kind}, four children", loc="left")
alt = ("Twelve drawn chest films: four healthy children, four with one dense patch, four with streaks on "
       "both sides; the diseased regions are outlined.")
caption = "Phantoms: normal, bacterial and viral, with the drawn disease outlined."
show_figure(figure, "phantom_children", caption, alt);

# %% [markdown]
# The same generators give the same film, and healthy children have an empty mask.

# %%
film, mask = draw_film(draw_anatomy(rng_for(1)), "bacteria", rng_for(2), height=200)
print(film.shape, film.dtype, mask.dtype)
test_eq((film.shape[0], film.shape), (200, mask.shape))
test_eq(film, draw_film(draw_anatomy(rng_for(1)), "bacteria", rng_for(2), height=200)[0])
assert mask.any() and not draw_film(draw_anatomy(rng_for(1)), "normal", rng_for(2))[1].any()


# %% [markdown]
# The [next figure](#fig-phantom_planted) has one healthy and one sick child, as they are and with each
# shortcut. Nothing else of a film changes, and neither does the mask of its disease.

# %%
def planted(kind, name):
    shortcuts = {name: rng_for(5, kind, name)} if name else {}
    return _draw_planted(draw_anatomy(rng_for(7, kind, 3)), kind, rng_for(7, kind, 3, 1), 360, shortcuts)

figure, axes = plt.subplots(2, 5, figsize=(12, 4.6))
for row, kind in zip(axes, ("normal", "bacteria")):
    for ax, name in zip(row, (None, "text", "marker", "frame", "exposure")):
        film, mask, boxes = planted(kind, name)
        ax.imshow(film, vmin=0, vmax=255, aspect="auto")
        ax.set_title(f"{kind}, {name or 'nothing planted'}", loc="left", fontsize=10)
        ax.axis("off")
        test_eq((list(boxes), mask), ([name] if name else [], planted(kind, None)[1]))
caption = "A normal and a bacterial phantom, without and with each shortcut that can be planted."
show_figure(figure, "phantom_planted", caption,
            "Two drawn chest films, five times each: as they are, with bright text at the lower right, "
            "with a tall R at the upper left, with a border, and brighter as a whole.");


# %% [markdown]
# The same children at both hospitals, in [this figure](#fig-phantom_hospitals). Each pair has the same
# generators, so child, posture and disease agree, and what differs is the hospital. Look at the ribs' edges,
# at the gray of the lungs, and for the marker.

# %%
def at_hospital(name, kind):
    return draw_film(draw_anatomy(rng_for(7, kind, 1)), kind, rng_for(7, kind, 1, 1), 420, hospital=name)

figure, axes = plt.subplots(1, 4, figsize=(12, 2.9))
for ax, (kind, name) in zip(axes, [(kind, name) for kind in ("normal", "bacteria") for name in HOSPITALS]):
    ax.imshow(at_hospital(name, kind)[0], vmin=0, vmax=255, aspect="auto")
    ax.set_title(f"{kind}, hospital {name}", loc="left")
    ax.axis("off")
show_figure(figure, "phantom_hospitals", "Two children, each at hospital A and at hospital B.",
            "Two drawn chest films, twice each: at hospital A crisp with a small R on the left, at B soft, "
            "with brighter lungs and a larger L on the right.");


# %% [markdown]
# The difference can be measured at the size of a network. **Sharpness** is here the mean size of a film's
# second derivative at 224 pixels, and contrast the standard deviation of its gray.

# %%
def looks_of(film):
    small = cv2.resize(film, (224, 224), interpolation=cv2.INTER_AREA).astype(np.float32)
    return dict(sharpness=np.abs(cv2.Laplacian(small, cv2.CV_32F)).mean(), gray=small.mean(),
                contrast=small.std())

looks = pd.DataFrame([dict(hospital=name, **looks_of(at_hospital(name, kind)[0]))
                      for kind in _DISEASES for name in HOSPITALS]).groupby("hospital").mean()
assert looks.sharpness["B"] < .6 * looks.sharpness["A"] and looks.contrast["B"] < .9 * looks.contrast["A"]
for kind in _DISEASES: test_eq(at_hospital("A", kind)[1], at_hospital("B", kind)[1])   # the same disease
looks.round(1)

# %% [markdown]
# ## A whole set
#
# The set has the folders and file names of the public one, so everything downstream treats both alike. There
# are two naming series for healthy children, and `person12_bacteria_34.jpeg` for the sick. A few children
# have several films. Pneumonia is far more frequent in train than in test, and `val` is tiny. One thing
# differs on purpose: a film's size says nothing about its class.

# %%
#| export
_NORMAL_SHARE = {"train": 1341 / 5216, "test": 234 / 624, "val": .5}  # as in the public set
_BACTERIA_SHARE = .65  # of the films with pneumonia

def _kind_counts(
    split: str, # train, test or val
    n: int,     # films in it
    share: float | None = None, # of normal films; None: as in the public set
) -> dict[str, int]: # kind → films; every kind once n is 3 or more
    "How many films of each kind a split holds."
    share = _NORMAL_SHARE[split] if share is None else share
    normal = min(max(1, round(n * share)), max(n - 2, 0))
    bacteria = min(max(1, round((n - normal) * _BACTERIA_SHARE)), max(n - normal - 1, 0))
    return {"normal": normal, "bacteria": bacteria, "virus": n - normal - bacteria}


# %%
test_eq(_kind_counts("test", 624), {"normal": 234, "bacteria": 254, "virus": 136})
test_eq(_kind_counts("train", 3), {"normal": 1, "bacteria": 1, "virus": 1})
test_eq(_kind_counts("test", 200, share=.7), {"normal": 140, "bacteria": 39, "virus": 21})


# %%
#| export
def _patient_name(
    kind: str,
    patient: int, # number, apart for each kind
) -> str:
    "What a patient is called in names of the public set."
    if kind != "normal": return f"person{patient}_{kind}"
    return f"{'IM' if patient % 2 else 'NORMAL2-IM'}-{patient:04d}"

def _file_name(
    kind: str,
    patient: int, # number, apart for each kind
    number: int,  # film of this patient, from 1
    count: int,   # films of this patient
    serial: int,  # film of the set, from 1
) -> str:
    "A name as in the public set."
    name = _patient_name(kind, patient)
    if kind != "normal": return f"{name}_{serial}.jpeg"
    return f"{name}-0001{f'-{number:04d}' if count > 1 else ''}.jpeg"


# %%
test_eq(_file_name("virus", 12, 1, 1, 34), "person12_virus_34.jpeg")
test_eq(_file_name("normal", 7, 2, count=3, serial=9), "IM-0007-0001-0002.jpeg")
test_eq(_file_name("normal", 8, 1, count=1, serial=9), "NORMAL2-IM-0008-0001.jpeg")


# %% [markdown]
# Who appears where is settled before anything is drawn. A patient never appears in two splits, as it should
# be in any study; whether the public films keep to that is looked at in the chapter on the data.

# %%
#| export
def _key(seed: int, hospital: str) -> tuple: # what the generators of a set begin with
    "A seed gives other children at each hospital."
    return (seed,) if hospital == "A" else (seed, hospital)


# %%
#| export
@dataclass
class _PlannedFilm:
    "One film to draw."
    split: str   # train, test or val
    kind: str    # normal, bacteria or virus
    patient: int # numbered apart for each kind
    number: int  # film of this patient, from 1
    name: str    # file name
    shortcuts: list[str] = field(default_factory=list) # planted on it
    hospital: str = "A"

    @property
    def place(self) -> Path:
        "Where the film lies in the set."
        return Path(self.split, CLASS_NAMES[self.kind != "normal"], self.name)


# %%
#| export
def _plan_films(
    sizes: dict[str, int], # split → number of films
    seed: int,
    hospital: str = "A",   # of `HOSPITALS`
    ending: str = ".jpeg", # of the names
) -> list[_PlannedFilm]:
    "Who is on which film; patients have one to three films and stay in one split."
    rng, films, patient = rng_for(*_key(seed, hospital), "plan"), [], dict.fromkeys(_DISEASES, 0)
    share = _known("hospital", hospital, HOSPITALS).normal_share
    for split, n in sizes.items():
        for kind, left in _kind_counts(split, n, share).items():
            while left:
                count = min(left, int(rng.choice([1, 1, 1, 2, 3])))
                patient[kind] += 1
                for number in range(1, count + 1):
                    name = _file_name(kind, patient[kind], number, count, serial=len(films) + 1)
                    name = name.replace(".jpeg", ending)
                    films.append(_PlannedFilm(split, kind, patient[kind], number, name, hospital=hospital))
                left -= count
    return films


# %%
films = _plan_films(dict(train=240, test=60, val=16), seed=42)
print(len(films), "films, for example", ", ".join(f.name for f in films[59:64]))
test_eq(len({f.name for f in films}), len(films))

# %% [markdown]
# ## Who carries a shortcut
#
# A shortcut can be planted in three ways. By **class**, it is on nine in ten films of the sick and on one in
# twenty of the others, in train and in test. A network may use it, and its test result will not tell.
# **Reversed**, test has it the other way round, and such a network fails there. **Balanced**, it is on half
# of the films of both classes and says nothing, so that an alarm would be a false one.

# %%
#| export
_SHARES = {  # way → of train and test, the share of normal and of sick films that carry a shortcut
    "class": dict(train=(.05, .90), test=(.05, .90)),
    "balanced": dict(train=(.50, .50), test=(.50, .50)),
    "reversed": dict(train=(.05, .90), test=(.90, .05))}


# %%
#| export
def _wanted_shortcuts(
    shortcuts: dict[str, str] | None, # shortcut → way
) -> dict[str, str]: # without those of which there shall be none
    "The shortcuts to plant; unknown names and ways are refused."
    ways = [*_SHARES, "none"]
    is_known = isinstance(shortcuts or {}, dict) and all(
        name in _SHORTCUTS and way in ways for name, way in (shortcuts or {}).items())
    if not is_known: raise StudyError(
        f"Expected shortcuts among {', '.join(_SHORTCUTS)}, each one of {', '.join(ways)}, "
        f"such as {{'text': 'class'}}, found {shortened(shortcuts)}.")
    return {name: way for name, way in (shortcuts or {}).items() if way != "none"}


# %%
test_eq(_wanted_shortcuts(dict(text="class", frame="none")), dict(text="class"))
test_eq([_wanted_shortcuts(nothing) for nothing in (None, {}, dict(text="none"))], [{}, {}, {}])
for wrong in (dict(tube="class"), dict(text="often"), dict(text=["class"]), ["text"], "text"):
    test_fail(lambda: _wanted_shortcuts(wrong), contains="exposure, frame, marker, text, each one of class, "
                                                         "balanced, reversed, none")


# %% [markdown]
# The 16 films of `val` count as train here, since the study puts them there.

# %%
#| export
def _choose_carriers(
    films: list[_PlannedFilm], # their `shortcuts` are filled in
    shortcuts: dict[str, str], # shortcut → way
    seed: int,
):
    "Choose by chance which films carry a shortcut, the same share of each class as its way says."
    part = lambda film: ("test" if film.split == "test" else "train", int(film.kind != "normal"))
    for name, way in shortcuts.items():
        for split, shares in _SHARES[way].items():
            for label, share in enumerate(shares):
                group = [film for film in films if part(film) == (split, label)]
                order = rng_for(seed, "carriers", name, split, label).permutation(len(group))
                for n in order[:round(share * len(group))]: group[n].shortcuts.append(name)


# %%
films = _plan_films(dict(train=240, test=60, val=16), seed=42)
_choose_carriers(films, dict(text="class", marker="balanced", frame="reversed"), seed=42)
carried = pd.DataFrame([{name: name in film.shortcuts for name in ("text", "marker", "frame")} |
                        dict(test=film.split == "test", sick=film.kind != "normal") for film in films])
shares = carried.groupby(["test", "sick"]).mean()
np.testing.assert_allclose(shares.text, [.05, .90, .05, .90], atol=.03)
np.testing.assert_allclose(shares.marker, .5, atol=.03)
np.testing.assert_allclose(shares.frame, [.05, .90, .90, .05], atol=.03)
shares.style.format("{:.0%}")

# %% [markdown]
# ## On disk
#
# A set is written as JPEG, as PNG, or as DICOM, which is what a hospital's archive has. A DICOM file holds
# stored values of 12 bits and a window that turns them into gray. Black is stored as 600, and each gray level
# is 10 more, so the window gives the film back exactly. Whoever ignores it sees other gray.
#
# Such a file names nobody. Its number for the patient is the one in the file's name, and the fields for name,
# birth, sex and date are empty.

# %%
#| export
FORMATS = {"jpeg": ".jpeg", "png": ".png", "dicom": ".dcm"}
_BLACK, _STEP = 600, 10  # stored value of gray 0; stored values for each gray level

_ABOUT = dict(
    SOPClassUID="1.2.840.10008.5.1.4.1.1.1.1", ImageType=["ORIGINAL", "PRIMARY"], Modality="DX",
    PresentationIntentType="FOR PRESENTATION", Manufacturer="none, a drawn phantom",
    BodyPartExamined="CHEST", ViewPosition="AP", BurnedInAnnotation="NO", PatientIdentityRemoved="YES",
    PatientName="", PatientBirthDate="", PatientSex="", StudyDate="", StudyTime="")
_GRAY = dict(
    SamplesPerPixel=1, PhotometricInterpretation="MONOCHROME2", PixelRepresentation=0, BitsAllocated=16,
    BitsStored=12, HighBit=11, WindowCenter=_BLACK + _STEP * 127.5 + .5, WindowWidth=_STEP * 255 + 1)


# %%
#| export
def _dicom_bytes(
    film: np.ndarray, # (H, W) uint8
    patient: str,     # the anonymous number
    key: tuple,       # what the file's identifiers are made of, so that they are the same each time
) -> bytes:
    "A film as a DICOM file of 12 bits with a window."
    from io import BytesIO
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid
    names = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
    uids = {name: generate_uid(entropy_srcs=[name, *map(str, key)]) for name in names}
    values, (rows, columns) = film.astype("<u2") * _STEP + _BLACK, film.shape
    pixels = dict(Rows=rows, Columns=columns, PixelData=values.tobytes())
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for name, value in (_ABOUT | uids | dict(PatientID=patient) | _GRAY | pixels).items():
        setattr(ds, name, value)
    ds.save_as(file := BytesIO(), enforce_file_format=True)
    return file.getvalue()


# %% [markdown]
# pydicom reads such a file, applies its window, and finds the film:

# %%
film, _ = draw_film(draw_anatomy(rng_for(1)), "virus", rng_for(2), height=200, hospital="B")
content = _dicom_bytes(film, "person12_virus", (42, "B", "a.dcm"))
ds = pydicom.dcmread(BytesIO(content))
gray = apply_voi_lut(ds.pixel_array, ds) * (255 / 4095)   # pydicom's windows end at the highest of 12 bits
assert np.abs(gray - film).max() < .01
test_eq((ds.PatientID, str(ds.PatientName), ds.Modality, ds.BitsStored), ("person12_virus", "", "DX", 12))
test_eq(content, _dicom_bytes(film, "person12_virus", (42, "B", "a.dcm")))
print(f"stored values from {ds.pixel_array.min()} to {ds.pixel_array.max()}")


# %% [markdown]
# Each film is drawn from its own generator, so the threads that share the work cannot change the result. The
# masks go to `masks/`, in the same layout, where nothing mistakes them for films.

# %%
#| export
def _write_image(path: Path, pixels: np.ndarray): # uint8
    "Write a picture in the format of its ending."
    if not cv2.imwrite(str(path), pixels): raise OSError(f"could not write {path}: is the disk full?")


# %%
#| export
_BOX = ["x0", "y0", "x1", "y1"]  # shares of a film's width and height, from its upper left corner

def _write_film(
    root: Path, # whose folders are there already
    film: _PlannedFilm,
    seed: int,
) -> list[dict]: # a row for each box that was planted: path, shortcut, x0, y0, x1, y1
    "Draw one film and its mask, and write both."
    key, who = _key(seed, film.hospital), (film.kind, film.patient, film.number)
    child, rng = draw_anatomy(rng_for(*key, *who[:2])), rng_for(*key, *who)
    shortcuts = {name: rng_for(*key, "planted", name, *who) for name in film.shortcuts}
    height = int(rng.integers(*HOSPITALS[film.hospital].heights))
    pixels, mask, boxes = _draw_planted(child, film.kind, rng, height, shortcuts, film.hospital)
    _write_image((root/"masks"/film.place).with_suffix(".png"), mask.astype(np.uint8) * 255)
    if film.place.suffix != FORMATS["dicom"]: _write_image(root/film.place, pixels)
    else:
        content = _dicom_bytes(pixels, _patient_name(*who[:2]), (*key, film.place.as_posix()))
        (root/film.place).write_bytes(content)
    return [dict(path=film.place.as_posix(), shortcut=name) | dict(zip(_BOX, box))
            for name, places in boxes.items() for box in places]


# %%
#| export
def _draw_into(
    root: Path, # an empty folder
    films: list[_PlannedFilm],
    seed: int,
) -> list[dict]: # a row for each box that was planted
    "Draw all films and masks, on all threads."
    from concurrent.futures import ThreadPoolExecutor
    for top in (root, root/"masks"):
        for folder in {film.place.parent for film in films}: (top/folder).mkdir(parents=True)
    with ThreadPoolExecutor(threads()) as pool:
        rows = pool.map(lambda film: _write_film(root, film, seed), films)
        return [row for of_film in rows for row in of_film]


# %% [markdown]
# What was planted is written to `planted.csv`, beside the folders of the splits and only if anything was. It
# has a row for each box, by which a detector of text or markers can be judged.

# %%
#| export
def _write_planted(
    root: Path,
    rows: list[dict], # one for each box
):
    "Write the table of what was planted where."
    import pandas as pd
    write_csv(root/"planted.csv", pd.DataFrame(rows, columns=["path", "shortcut", *_BOX]).round(5))



# %% [markdown]
# A set that is there already, drawn with the same numbers, is used again. A folder with something else in it
# is left alone.

# %%
#| export
def _is_drawn(
    root: Path,
    wanted: dict, # films of each split, the seed, and what is planted
) -> bool: # refused if there is something else
    "Whether the phantoms are there already."
    is_free = not root.exists() or (root.is_dir() and not any(root.iterdir()))
    if is_free: return False
    record = root/"phantom.json"
    if record.is_file() and read_json(record) == wanted: return True
    raise StudyError(f"Expected an absent or empty folder for phantoms, found files in {root}; "
                     "remove it or choose another.")


# %% [markdown]
# A hospital that judges a network has films to test on, and none to train with. So elsewhere than at A, only
# test films are drawn unless train films are asked for. `pneumo judge` takes such a folder as it is. A study
# needs `train/`, too.

# %%
#| export
def _sizes(
    hospital: str,
    n_train: int | None, # None: 240 at A, none elsewhere
    n_test: int,
    n_val: int | None,   # None: 16 where there is train, else none
) -> dict[str, int]: # split → films
    "How many films to draw."
    if n_train is None: n_train = 240 if hospital == "A" else 0
    if n_val is None: n_val = 16 if n_train else 0
    sizes = dict(train=n_train, test=n_test, val=n_val)
    if n_test >= 3 and all(n == 0 or n >= 3 for n in sizes.values()): return sizes
    raise StudyError("Expected at least 3 films in train and test, one of each kind (train and val may have "
                     f"none), found {sizes}; ask for more.")


# %%
test_eq(_sizes("A", None, 60, None), dict(train=240, test=60, val=16))
test_eq(_sizes("B", None, 60, None), dict(train=0, test=60, val=0))
for numbers in ((2, 6, 0), (9, 0, 0), (9, 6, 2), (-1, 6, 0)):
    test_fail(lambda: _sizes("A", *numbers), contains="at least 3 films in train and test")


# %%
#| export
def _draw_set(
    root: Path, # absent or empty
    films: list[_PlannedFilm],
    wanted: dict, # for the record
):
    "Draw a set beside its place, and put it there when it is whole."
    root.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".partial-{os.getpid()}-", dir=root.parent))
    try:
        rows = _draw_into(partial, films, wanted["seed"])
        if "shortcuts" in wanted: _write_planted(partial, rows)
        write_json(partial/"phantom.json", wanted)
        partial.chmod(0o755)
        os.replace(partial, root)
    finally: shutil.rmtree(partial, ignore_errors=True)


# %%
#| export
_USUAL = dict(shortcuts={}, hospital="A", file_format="jpeg")  # what a record does not mention

def make_dataset(
    root: str | Path,    # folder to make; must be absent, empty, or hold the same phantoms already
    n_train: int | None = None, # films; may be 0. By default 240 at hospital A, and none elsewhere
    n_test: int = 60,
    seed: int = 42,
    n_val: int | None = None,   # may be 0. By default 16 where there are train films
    shortcuts: dict[str, str] | None = None, # text, marker, frame, exposure → class, balanced, reversed, none
    hospital: str = "A",        # of `HOSPITALS`
    file_format: str = "jpeg",  # of `FORMATS`
) -> Path: # `root`, with {train,test,val}/{NORMAL,PNEUMONIA}/*, masks/, and planted.csv if anything is
    "Draw a phantom set in the layout of the public one."
    ending = _known("file format", file_format, FORMATS)
    _known("hospital", hospital, HOSPITALS)
    root, planted, sizes = Path(root), _wanted_shortcuts(shortcuts), _sizes(hospital, n_train, n_test, n_val)
    asked = dict(shortcuts=planted, hospital=hospital, file_format=file_format)
    wanted = sizes | dict(seed=seed) | {name: value for name, value in asked.items() if value != _USUAL[name]}
    if _is_drawn(root, wanted): return root
    films = _plan_films({split: n for split, n in sizes.items() if n}, seed, hospital, ending)
    _choose_carriers(films, planted, seed)
    _draw_set(root, films, wanted)
    return root


# %% [markdown]
# The same seed gives the same bytes.

# %%
with tempfile.TemporaryDirectory() as folder:
    few = dict(n_train=9, n_test=6, n_val=0, seed=1)
    one, two = (make_dataset(Path(folder)/name, **few) for name in ("one", "two"))
    files = sorted(f.relative_to(one) for f in one.rglob("*.*g"))
    test_eq(len(files), 2 * 15)
    for f in files: test_eq((one/f).read_bytes(), (two/f).read_bytes())
    test_eq(make_dataset(one, **few), one)
    test_fail(lambda: make_dataset(one, 9, 6, seed=2), contains="Expected an absent or empty folder")
    test_fail(lambda: make_dataset(two, n_train=2), contains="at least 3 films in train and test")
    test_fail(lambda: make_dataset(two, file_format="gif"), contains="among jpeg, png, dicom, found 'gif'")

# %% [markdown]
# Where something is planted, all other films and all masks are still the same, to the byte.

# %%
with tempfile.TemporaryDirectory() as folder:
    without = make_dataset(Path(folder)/"without", **few)
    root = make_dataset(Path(folder)/"planted", **few, shortcuts=dict(text="class", frame="balanced"))
    table = pd.read_csv(root/"planted.csv")
    files = [f.relative_to(without) for f in without.rglob("*.*g")]
    changed = {f.as_posix() for f in files if (root/f).read_bytes() != (without/f).read_bytes()}
    test_eq(changed, set(table.path))
    test_eq((without/"planted.csv").exists(), False)
    test_fail(lambda: make_dataset(root, **few), contains="Expected an absent or empty folder")
    test_fail(lambda: make_dataset(root, **few, shortcuts=dict(tube="class")), contains="found {'tube'")
table.head(6)

# %% [markdown]
# Ten films of hospital B, as DICOM. Without a word about train they are test films, and 7 of them normal.

# %%
with tempfile.TemporaryDirectory() as folder:
    root = make_dataset(Path(folder)/"B", n_test=10, seed=1, hospital="B", file_format="dicom")
    films = sorted(file.relative_to(root).as_posix() for file in root.rglob("*.dcm"))
    rows = [pydicom.dcmread(root/file, stop_before_pixels=True).Rows for file in films]
assert min(rows) >= 480
test_eq([sum(file.startswith(f"test/{name}/") for file in films) for name in CLASS_NAMES], [7, 3])
films[-3:]

# %% [markdown]
# What the phantoms leave out: the variety of real disease (effusions, collapse, air bronchograms), devices
# and tubes, rotation beyond a few degrees, and every bias of a real collection. A model that does well here
# has learned to see clouds and streaks in a drawing.
