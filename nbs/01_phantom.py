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
from dataclasses import dataclass
from pathlib import Path
import os, shutil, tempfile

import cv2
import numpy as np

from pneumo_nb.run import CLASS_NAMES, StudyError, read_json, rng_for, threads, write_json

# %%
#| hide
import matplotlib.pyplot as plt
from fastcore.test import test_eq, test_fail
from pneumo_nb.run import plot_style, show_figure
plot_style()


# %% [markdown]
# Real films of children are personal, large, and not ours to ship. A **phantom** is a drawing that obeys the same
# physics: X-rays are weakened exponentially by what lies in their way, bone weakens them more than soft tissue, and
# air hardly at all. So we add up how much tissue each ray meets and turn the sum into gray at the end. Phantoms let
# anyone run the whole study in minutes, show every figure in public, and check an explanation against the truth,
# since we know where the disease was drawn. They say nothing about how well a model reads real films.
#
# ## A child's anatomy
#
# Everything that stays the same between two films of one child is drawn once, from the seed and the patient's number.
# Lengths are fractions of the film: x from -1 (left edge) to 1, y from 0 (top) to 1.

# %%
#| export
@dataclass
class Anatomy:
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

def draw_anatomy(
    rng: np.random.Generator,
) -> Anatomy:
    "A random child."
    return Anatomy(chest_width=rng.uniform(.72, .86), apex=rng.uniform(.13, .19), base=rng.uniform(.66, .76),
                   heart_size=rng.uniform(.25, .33), heart_x=rng.uniform(.06, .13), rib_count=int(rng.integers(8, 11)),
                   rib_slope=rng.uniform(.05, .10), bone=rng.uniform(.75, 1.1), aspect=rng.uniform(1.0, 1.5))


# %% [markdown]
# ## Soft tissue, lungs and heart
#
# The body is a flattened cylinder, so the beam's path through it is longest in the middle. A lung is a smooth shape
# bounded by the chest wall outside, the mediastinum inside and the dome of the diaphragm below. `smooth_step` gives
# these borders the slight unsharpness of a real film.

# %%
#| export
def smooth_step(
    distance, # signed distance to a border, positive inside
    width,    # over which the border fades
):
    "0 outside, 1 inside, a smooth ramp between."
    t = np.asarray(distance * (1 / width) + .5)
    np.clip(t, 0, 1, out=t)  # in place: drawing a film is mostly waiting for fresh memory
    ramp = 3 - 2 * t
    ramp *= t; ramp *= t
    return ramp

def lung_field(
    a: Anatomy,
    x, y, # coordinates, broadcast to (H, W)
    side: int, # -1 the image's left (the patient's right lung), 1 the other
) -> np.ndarray: # (H, W) float, 1 inside the lung
    "How much of each ray's path lies in one lung."
    height = np.clip((y - a.apex) / (a.base + .12 - a.apex), 0, 1)
    outer = a.chest_width * (.30 + .62 * np.sqrt(np.clip(height * 1.5, 0, 1)) - .02 * height)
    inner = .13 + .05 * height
    middle, half = side * (outer + inner) / 2, np.maximum((outer - inner) / 2, 1e-3)
    dome = a.base + (.02 if side > 0 else 0) + .16 * ((x - side * .34) / .55) ** 2
    across = smooth_step(half - np.abs(x - middle), .05)
    return across * smooth_step(dome - y, .02) * smooth_step(y - a.apex, .05)

def heart_field(a: Anatomy, x, y) -> np.ndarray:
    "The heart, an egg whose tip points to the image's lower right, and the great vessels above it."
    dx, dy = x - a.heart_x, y - (a.base - .12)
    u, v = dx + .55 * dy, dy - .10 * dx
    egg = 1 - np.sqrt((u / a.heart_size) ** 2 + (v / .22) ** 2)
    vessels = smooth_step(.13 + .05 * (y - .3) - np.abs(x - .02), .10) * smooth_step(a.base - .02 - y, .2)
    return np.maximum(smooth_step(egg, .30), .7 * vessels * smooth_step(y - .08, .2))


# %%
a = draw_anatomy(rng_for(42, "show"))
y, x = np.mgrid[0:1:240j, -1:1:300j]
lungs = sum(lung_field(a, x, y, side) for side in (-1, 1))
heart = heart_field(a, x, y)
assert lungs[120, 75] > .9 and lungs[120, 225] > .5 and lungs[5].max() == 0 and lungs[-5].max() == 0
assert heart[:, 150:].sum() > heart[:, :150].sum()   # the heart lies to the image's right


# %% [markdown]
# ## Bones
#
# Ribs are tubes: their walls stand edge-on to the beam and look brighter than their middle. Each pair runs from the
# spine up and outwards, over the side of the chest, and forward down again, where it is fainter.

# %%
#| export
def stroke(
    layer: np.ndarray,  # (H, W) uint8, drawn on in place
    points: np.ndarray, # (n, 2) x in [-1, 1], y in [0, 1]
    width: float,       # in pixels
    value: int,         # gray 0-255
):
    "A smooth line with sub-pixel corners."
    h, w = layer.shape
    pixels = np.stack([(points[:, 0] + 1) / 2 * w, points[:, 1] * h], axis=1)
    cv2.polylines(layer, [np.round(pixels * 16).astype(np.int32)], False, int(value), max(1, round(width)), cv2.LINE_AA, 4)

def rib_line(a: Anatomy, number: int, side: int, front: bool) -> np.ndarray:
    "The course of one rib, as (n, 2) points."
    t = np.linspace(0, 1, 24)
    start = a.apex - .01 + number * (a.base + .16 - a.apex) / a.rib_count
    reach = a.chest_width * (.30 + .62 * np.sqrt(np.clip((start - a.apex + .08) * 2, 0, 1)))
    if front: # from the side down towards the breastbone
        return np.stack([side * reach * (1 - .62 * t), start + .03 + a.rib_slope * (1.2 + 1.6 * t)], axis=1)
    back = start - .05 * np.sin(np.pi * np.minimum(t * 1.25, 1)) + a.rib_slope * 1.6 * t ** 2.2
    return np.stack([side * (.07 + (reach - .07) * np.sin(t * np.pi / 2)), back], axis=1)


# %%
#| export
def bone_layer(
    a: Anatomy,
    shape: tuple[int, int], # (H, W)
) -> np.ndarray: # (H, W) float32, about 0 to 1
    "Ribs, spine, clavicles, shoulder blades and upper arms."
    h, w = shape
    back, front, other = (np.zeros(shape, np.uint8) for _ in range(3))
    for side in (-1, 1):
        for n in range(a.rib_count):
            stroke(back, rib_line(a, n, side, False), .026 * h, 170)
            stroke(back, rib_line(a, n, side, False), .015 * h, 95)
            if n > 1: stroke(front, rib_line(a, n, side, True), .022 * h, 60)
        t = np.linspace(0, 1, 16)
        clavicle = np.stack([side * (.06 + .60 * t), a.apex + .015 - .07 * t + .02 * np.sin(2 * np.pi * t)], axis=1)
        stroke(other, clavicle, .030 * h, 190); stroke(other, clavicle, .014 * h, 130)
        blade = np.array([[side * .66, a.apex - .02], [side * .72, a.apex + .20], [side * .60, a.apex + .10]])
        stroke(other, blade, .022 * h, 70)
        arm = np.array([[side * .80, a.apex - .04], [side * 1.02, a.apex + .22]])
        stroke(other, arm, .065 * h, 150); stroke(other, arm, .040 * h, 110)
    ribs = cv2.GaussianBlur(cv2.max(back, front), (0, 0), max(.6, h / 260))
    return (ribs.astype(np.float32) + cv2.GaussianBlur(other, (0, 0), max(.8, h / 180))) / 255 + spine_layer(a, shape)

def spine_layer(a: Anatomy, shape: tuple[int, int]) -> np.ndarray:
    "Vertebrae: bright bodies with darker discs between and a round pedicle on each side."
    h, w = shape
    y, x = np.ogrid[0:1:h*1j, -1:1:w*1j]
    phase = (y * 15 + .3) % 1
    body = smooth_step(.085 - np.abs(x), .03) * (.45 + .35 * smooth_step(.38 - np.abs(phase - .5), .12))
    pedicle = np.exp(-((np.abs(x) - .055) / .018) ** 2 - ((phase - .42) / .16) ** 2)
    return (body + .25 * pedicle).astype(np.float32)


# %% [markdown]
# ## Vessels and texture
#
# Healthy lungs are not empty: vessels branch from the hilum, fine near the edge. They are what interstitial disease
# hides among. `smooth_noise` is the usual sum of random fields at doubling scales.

# %%
#| export
def smooth_noise(
    rng: np.random.Generator,
    shape: tuple[int, int], # (H, W)
    cells: int,             # coarsest grid, cells over the height
    octaves: int = 3,
) -> np.ndarray: # (H, W) float32, mean about 0, deviation about 1
    "Random field with structure at `octaves` scales."
    total = np.zeros(shape, np.float32)
    for octave in range(octaves):
        n = cells * 2 ** octave
        grid = rng.standard_normal((n, max(2, n * shape[1] // shape[0])), dtype=np.float32)
        total += cv2.resize(grid, shape[::-1], interpolation=cv2.INTER_CUBIC) / 2 ** octave
    return total / total.std()

def vessel_layer(
    a: Anatomy,
    shape: tuple[int, int], # (H, W)
    rng: np.random.Generator,
    count: int, # branches a side
) -> np.ndarray: # (H, W) float32
    "Branching vessels, thick at the hilum and fading outwards."
    h, w = shape
    layer = np.zeros(shape, np.uint8)
    t = np.linspace(0, 1, 10)
    for side in (-1, 1):
        hilum = np.array([side * .17, a.apex + .55 * (a.base - a.apex)])
        for _ in range(count):
            angle, length = rng.uniform(-1.25, 1.25), rng.uniform(.15, .5)
            bend = rng.normal(0, .06) * t ** 2
            path = hilum + np.stack([side * length * np.cos(angle) * t, .55 * length * np.sin(angle) * t + bend], axis=1)
            for part in range(3):
                stroke(layer, path[part * 3:part * 3 + 4], (.011 - .003 * part) * h, 120 - 32 * part)
    return cv2.GaussianBlur(layer, (0, 0), max(.5, h / 300)).astype(np.float32) / 255


# %% [markdown]
# ## Disease
#
# *Bacterial* pneumonia fills the air spaces of a lobe: one soft, dense patch with uneven edges. *Viral* pneumonia
# thickens the tissue between them: fine streaks on both sides, densest near the middle. Some cases are faint, and the
# films of healthy children have their own clouds (skin folds, rotation), so no model can be right every time.

# %%
#| export
def lobar_opacity(
    a: Anatomy,
    x, y,                    # coordinates, broadcast to (H, W)
    lungs: np.ndarray,       # (H, W), 1 inside the lungs
    rng: np.random.Generator,
) -> np.ndarray: # (H, W) float32, about 0 to 1
    "A soft patch in one lobe of one lung."
    side = rng.choice([-1, 1])
    cx, cy = side * rng.uniform(.28, .48), a.apex + rng.choice([.24, .55, .80]) * (a.base - a.apex)
    rx, ry = rng.uniform(.15, .28), rng.uniform(.10, .19)
    tilt = rng.uniform(-.5, .5)
    u, v = (x - cx) + tilt * (y - cy), (y - cy) - .3 * tilt * (x - cx)
    edge = .30 * smooth_noise(rng, lungs.shape, 6)
    return (lungs * smooth_step(1 - np.sqrt((u / rx) ** 2 + (v / ry) ** 2) + edge, 1.1)).astype(np.float32)

def interstitial_texture(
    a: Anatomy,
    x, y,
    lungs: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray: # (H, W) float32, about 0 to 1
    "Fine streaks in both lungs, densest around the hila."
    ridges = 1 - np.abs(smooth_noise(rng, lungs.shape, 20, 2))
    haze = .5 + .25 * smooth_noise(rng, lungs.shape, 5, 2)
    middle = a.apex + .6 * (a.base - a.apex)
    near = np.exp(-((np.abs(x) - .22) / rng.uniform(.25, .38)) ** 2 - ((y - middle) / rng.uniform(.16, .24)) ** 2)
    return (lungs * near * np.clip(.75 * np.clip(ridges, 0, 1) + .35 * haze, 0, 1)).astype(np.float32)


# %% [markdown]
# ## One film
#
# `draw_film` adds everything up and exposes it: gray = 255 (1 - exp(-attenuation)), the law of Beer and Lambert seen
# on a negative, then the exposure's contrast, quantum noise, collimator edges and the side marker.

# %%
#| export
DISEASES = {"normal": None, "bacteria": lobar_opacity, "virus": interstitial_texture}

def attenuation(
    a: Anatomy,
    x, y,
    lungs: np.ndarray, heart: np.ndarray, # (H, W), 1 inside
    rng: np.random.Generator,
) -> np.ndarray: # (H, W) float32; the beam leaves exp(-attenuation) of itself
    "What weakens the beam in a healthy child."
    trunk = a.chest_width * 1.10 + .16 * smooth_step(.26 - y, .34)
    width = .30 + (trunk - .30) * smooth_step(y - .05, .16)   # neck, then shoulders, then chest
    body = np.sqrt(np.clip(1 - (x / width) ** 2, 0, 1))
    total = 1.40 * np.sqrt(body * np.sqrt(body))
    total -= lungs * body * (1.00 + .08 * smooth_noise(rng, lungs.shape, 3, 2))
    total += .45 * heart + .30 * smooth_step(y - a.base - .04, .12) * body
    bubble = smooth_step(1 - np.abs(x - .30) / .16, 1) * smooth_step(1 - np.abs(y - a.base - .13) / .05, 1)
    total -= .35 * rng.uniform(0, 1) * bubble
    total += .50 * a.bone * bone_layer(a, lungs.shape) * np.maximum(smooth_step(body, .5), .6)
    total += .22 * lungs * vessel_layer(a, lungs.shape, rng, int(rng.integers(12, 26)))
    return (total + .06 * lungs * smooth_noise(rng, lungs.shape, 4)).astype(np.float32)


# %%
#| export
def draw_film(
    a: Anatomy,
    kind: str,               # "normal", "bacteria" or "virus"
    rng: np.random.Generator,
    height: int = 360,       # pixels; the width follows from the anatomy's aspect
) -> tuple[np.ndarray, np.ndarray]: # film (H, W) uint8, mask (H, W) bool: where disease was drawn
    "One frontal film of one child: tissue is laid out 224 pixels high, exposure and noise come at the film's own size."
    shape = (224, round(224 * a.aspect))
    y, x = np.ogrid[0:1:shape[0]*1j, -1:1:shape[1]*1j]
    turn, dx, dy, zoom = rng.normal(0, .025), rng.normal(0, .04), rng.normal(0, .02), rng.uniform(.94, 1.08)
    x, y = (x - dx) / zoom + turn * (y - .5), (y - .5 - dy) / zoom - turn * x * .5 + .5
    x, y = x.astype(np.float32), y.astype(np.float32)
    lungs = np.clip(sum(lung_field(a, x, y, side) for side in (-1, 1)), 0, 1)
    heart = heart_field(a, x, y)
    lungs *= 1 - .85 * heart
    total, mask = attenuation(a, x, y, lungs, heart, rng), np.zeros(shape, bool)
    if disease := DISEASES[kind]:
        opacity = disease(a, x, y, lungs, rng)
        total += rng.uniform(.35, 1.2) * opacity
        mask = cv2.GaussianBlur(opacity, (0, 0), 6) > .15  # the region, not each streak
    size = (round(height * a.aspect), height)
    total = cv2.resize(total, size, interpolation=cv2.INTER_CUBIC)
    return expose(total, rng), cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0

def expose(
    total: np.ndarray, # (H, W) attenuation
    rng: np.random.Generator,
) -> np.ndarray: # (H, W) uint8
    "Turn attenuation into gray, with the exposure's contrast, noise, edges and marker."
    h, w = total.shape
    gray = 1 - np.exp(-rng.uniform(.75, 1.0) * np.maximum(total, 0))
    gray = rng.uniform(0, .06) + rng.uniform(1.0, 1.12) * gray ** rng.uniform(1.0, 1.4)
    gray += rng.normal(0, .04) * np.linspace(-1, 1, w, dtype=np.float32)
    gray += rng.uniform(.012, .03) * cv2.GaussianBlur(rng.standard_normal((h, w), dtype=np.float32), (0, 0), .7)
    film = np.clip(gray * 255, 0, 255).astype(np.uint8)
    for edge in (film[:, :int(w * rng.uniform(0, .03))], film[:int(h * rng.uniform(0, .02))]): edge[...] = 4
    place = (int(w * rng.uniform(.03, .09)), int(h * rng.uniform(.12, .30)))
    cv2.putText(film, "R", place, cv2.FONT_HERSHEY_SIMPLEX, h / 520, 235, max(1, h // 220), cv2.LINE_AA)
    return film


# %% [markdown]
# Twelve children, in [the figure](#fig-phantom_children). The outline in the lower rows is the truth that is kept beside the set:

# %%
fig, axes = plt.subplots(3, 4, figsize=(12, 8))
for row, kind in zip(axes, DISEASES):
    for n, ax in enumerate(row):
        film, mask = draw_film(draw_anatomy(rng_for(7, kind, n)), kind, rng_for(7, kind, n, 1))
        ax.imshow(film, vmin=0, vmax=255, aspect="auto"); ax.axis("off")
        if mask.any(): ax.contour(mask, [.5], colors="#F0E442", linewidths=1)
    row[0].set_title(f"{kind}, four children", loc="left")
_ = show_figure(fig, "phantom_children", "Phantoms: normal, bacterial and viral, with the drawn disease outlined.", "Twelve drawn chest films: four healthy children, four with one dense patch, four with streaks on both sides; the diseased regions are outlined.")

# %%
#| hide
film, mask = draw_film(draw_anatomy(rng_for(1)), "bacteria", rng_for(2), height=200)
test_eq((film.dtype, mask.dtype, film.shape[0], film.shape == mask.shape), (np.uint8, bool, 200, True))
test_eq(film, draw_film(draw_anatomy(rng_for(1)), "bacteria", rng_for(2), height=200)[0])
assert not draw_film(draw_anatomy(rng_for(1)), "normal", rng_for(2))[1].any()

# %% [markdown]
# ## A whole set
#
# The set has the folders and file names of the public one, so everything downstream treats both alike: two naming
# series for healthy children, `person12_bacteria_34.jpeg` for the sick, a few children with several films, far more
# pneumonia in train than in test, and a tiny `val`. One thing differs on purpose: a film's size says nothing about its
# class. `plan_films` fixes who appears where before anything is drawn.

# %%
#| export
NORMAL_SHARE = {"train": 1341 / 5216, "test": 234 / 624, "val": .5}  # as in the public set
BACTERIA_SHARE = .65

@dataclass
class PlannedFilm:
    "One film to draw."
    split: str   # train, test or val
    kind: str    # normal, bacteria or virus
    patient: int # numbered apart for each kind
    number: int  # film of this patient, from 1
    name: str    # file name

def file_name(kind: str, patient: int, number: int, count: int, serial: int) -> str:
    "A name as in the public set."
    if kind != "normal": return f"person{patient}_{kind}_{serial}.jpeg"
    series = "IM" if patient % 2 else "NORMAL2-IM"
    return f"{series}-{patient:04d}-0001{f'-{number:04d}' if count > 1 else ''}.jpeg"

def kind_counts(split: str, n: int) -> dict[str, int]: # kind → films; every kind once n is 3 or more
    "How many films of each kind a split holds."
    normal = min(max(1, round(n * NORMAL_SHARE[split])), max(n - 2, 0))
    bacteria = min(max(1, round((n - normal) * BACTERIA_SHARE)), max(n - normal - 1, 0))
    return {"normal": normal, "bacteria": bacteria, "virus": n - normal - bacteria}


# %%
#| export
def plan_films(
    sizes: dict[str, int], # split → number of films
    seed: int,
) -> list[PlannedFilm]:
    "Who is on which film; patients have one to three films and stay in one split."
    rng, films, patient, serial = rng_for(seed, "plan"), [], dict.fromkeys(DISEASES, 0), 0
    for split, n in sizes.items():
        for kind, left in kind_counts(split, n).items():
            while left:
                count = min(left, int(rng.choice([1, 1, 1, 2, 3])))
                patient[kind] += 1
                for number in range(1, count + 1):
                    serial += 1
                    name = file_name(kind, patient[kind], number, count, serial)
                    films.append(PlannedFilm(split, kind, patient[kind], number, name))
                left -= count
    return films


# %%
films = plan_films(dict(train=240, test=60, val=16), seed=42)
print(len(films), "films, for example", ", ".join(f.name for f in films[59:64]))
test_eq(len({f.name for f in films}), len(films))
test_eq(kind_counts("test", 624), {"normal": 234, "bacteria": 254, "virus": 136})
test_eq(kind_counts("train", 3), {"normal": 1, "bacteria": 1, "virus": 1})


# %% [markdown]
# Each film is drawn from its own generator, so the threads that share the work cannot change the result. The masks go
# to `masks/`, in the same layout, where nothing mistakes them for films.

# %%
#| export
def write_film(root: Path, film: PlannedFilm, seed: int):
    "Draw one film and its mask, and write both."
    anatomy = draw_anatomy(rng_for(seed, film.kind, film.patient))
    rng = rng_for(seed, film.kind, film.patient, film.number)
    pixels, mask = draw_film(anatomy, film.kind, rng, height=int(rng.integers(260, 460)))
    folder = CLASS_NAMES[film.kind != "normal"]
    for path, image in ((root/film.split/folder/film.name, pixels),
                        ((root/"masks"/film.split/folder/film.name).with_suffix(".png"), mask.astype(np.uint8) * 255)):
        if not cv2.imwrite(str(path), image): raise OSError(f"could not write {path}: is the disk full?")

def make_dataset(
    root: str | Path,  # folder to make; must be absent, empty, or hold the same phantoms already
    n_train: int = 240,
    n_test: int = 60,
    seed: int = 42,
    n_val: int = 16,
) -> Path: # `root`
    "Draw a phantom set in the layout of the public one: `root/{train,test,val}/{NORMAL,PNEUMONIA}/*.jpeg`, and `root/masks`."
    from concurrent.futures import ThreadPoolExecutor
    root, wanted = Path(root), dict(train=n_train, test=n_test, val=n_val, seed=seed)
    if min(n_train, n_test) < 3 or n_val < 0 or 0 < n_val < 3:
        raise StudyError(f"Expected at least 3 films in train and test (one of each kind; val may have none), found {wanted}.")
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        if (root/"phantom.json").is_file() and read_json(root/"phantom.json") == wanted: return root
        raise StudyError(f"Expected an absent or empty folder for phantoms, found files in {root}; remove it or choose another.")
    root.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".partial-{os.getpid()}-", dir=root.parent))
    try:
        films = plan_films({s: n for s, n in wanted.items() if s != "seed" and n}, seed)
        for f in {(f.split, CLASS_NAMES[f.kind != "normal"]) for f in films}:
            for top in (partial, partial/"masks"): top.joinpath(*f).mkdir(parents=True)
        with ThreadPoolExecutor(threads()) as pool: list(pool.map(lambda f: write_film(partial, f, seed), films))
        write_json(partial/"phantom.json", wanted)
        partial.chmod(0o755)
        os.replace(partial, root)
    finally: shutil.rmtree(partial, ignore_errors=True)
    return root


# %% [markdown]
# The same seed gives the same bytes; a folder with something else in it is left alone.

# %%
with tempfile.TemporaryDirectory() as folder:
    one, two = (make_dataset(Path(folder)/name, n_train=9, n_test=6, n_val=0, seed=1) for name in ("one", "two"))
    films = sorted(f.relative_to(one) for f in one.rglob("*.*g"))
    test_eq(len(films), 2 * 15)
    for f in films: test_eq((one/f).read_bytes(), (two/f).read_bytes())
    test_fail(lambda: make_dataset(one, n_train=9, n_test=6, seed=2), contains="Expected an absent or empty folder")

# %% [markdown]
# What the phantoms leave out: the variety of real disease (effusions, collapse, air bronchograms), devices and tubes,
# rotation beyond a few degrees, and every bias of a real collection. A model that does well here has learned to see
# clouds and streaks in a drawing.
