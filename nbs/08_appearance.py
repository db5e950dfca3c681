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
# # Appearance
#
# > What a film gives away as a whole: its side marker, its size, and eight measures that know no place in it

# %%
#| default_exp appearance

# %%
#| export
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pandas as pd
from scipy.special import expit, logit

from pneumo_nb.run import threads
from pneumo_nb.films import read_film
from pneumo_nb.measures import auroc, auroc_interval

# %%
#| hide
import tempfile

import matplotlib.pyplot as plt
from fastcore.test import test_close, test_eq
from pneumo_nb.run import rng_for
from pneumo_nb.style import plot_style, show_figure
from pneumo_nb.phantom import draw_anatomy, draw_film
plot_style()

# %% [markdown]
# A network that tells pneumonia from normal need not look at a lung. Films of sick and of healthy children
# may come from different machines, and a machine shows in the whole film: in gray levels, sharpness,
# compression, or the letter that marks the side. This chapter measures such things and asks how well they
# alone tell two groups of films apart.
#
# Films are reduced to 224 by 224 pixels first, the size of a public copy of the set.

# %%
#| export
_SIDE = 224  # pixels

def _reduced(
    film: np.ndarray, # (H, W) uint8
) -> np.ndarray: # (224, 224) uint8
    "The film squashed to a square of 224 pixels, if it is none."
    if film.shape == (_SIDE, _SIDE): return film
    return cv2.resize(film, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)


# %%
test_eq(_reduced(np.full((600, 900), 7, np.uint8)), np.full((224, 224), 7, np.uint8))


# %% [markdown]
# ## The side marker
#
# On a film an R is burnt in, so that nobody mistakes the sides. How large it comes out depends on the machine
# and on how the film was cut afterwards, and nothing about it is disease. The marker is looked for in a
# little more than the upper half of the film, within about a quarter of its width from either edge.
#
# A marker is much brighter than its surroundings and made of thin strokes. The white top-hat transform keeps
# just that: the film less its opening, from which everything thinner than 7 pixels is gone.

# %%
#| export
def _thin_and_bright(
    small: np.ndarray, # (224, 224) uint8
    rise: int = 70,    # gray levels
) -> np.ndarray: # (224, 224) bool
    "Where strokes stand out from their surroundings by more than `rise`."
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
    return cv2.morphologyEx(small, cv2.MORPH_TOPHAT, disc) > rise


# %% [markdown]
# A stroke of 3 pixels stays; of a square of 15 only the corners do:

# %%
drawn = np.full((224, 224), 30, np.uint8)
drawn[50:80, 20:23] = drawn[50:65, 100:115] = 235
thin = _thin_and_bright(drawn)
test_eq([thin[50:80, 20:23].all(), thin[52:63, 102:113].any()], [True, False])


# %% [markdown]
# Electrodes, clips and tubes, which sick children have more of, are bright and thin, too. So a shape must
# also have the size and the proportions of a letter:

# %%
#| export
def _has_letter_size(
    w: int, h: int, # of the shape's box, pixels
    area: int,      # pixels of the shape
) -> bool:
    "Whether a shape could be a letter by its size, its proportions, and how much of its box it fills."
    fits = 5 <= h <= 32 and 3 <= w <= 24
    is_upright = .4 <= w / h <= 1.1
    has_strokes = 14 <= area and .25 <= area / (w * h) <= .8
    return fits and is_upright and has_strokes


# %%
test_eq(_has_letter_size(9, 13, area=60), True)
test_eq(_has_letter_size(3, 30, area=90), False)   # a wire


# %% [markdown]
# And it must have the form of an R: a stem over its whole height, and one hole in its upper half.

# %%
#| export
def _looks_like_r(
    part: np.ndarray, # (h, w) bool, a shape cut to its box
) -> bool:
    "Whether a shape has a stem on its left and one hole, whose middle is in the upper half."
    padded = np.pad(part, 1).astype(np.uint8)
    outlines, order = cv2.findContours(padded, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    holes = [outline for outline, (*_, parent) in zip(outlines, order[0]) if parent >= 0]
    if len(holes) != 1: return False
    is_high = holes[0][:, 0, 1].mean() < .45 * (len(part) + 2)
    stem = part[:, :max(2, part.shape[1] // 4)].any(axis=1).mean()  # share of the height that it covers
    return bool(is_high and stem > .9)


# %% [markdown]
# Four letters by hand. An A has no stem, a B two holes, an L none:

# %%
letters = dict(R=["###.", "#..#", "###.", "#.#.", "#..#"], A=[".##.", "#..#", "####", "#..#", "#..#"],
               B=["###.", "#..#", "###.", "#..#", "###."], L=["#...", "#...", "#...", "#...", "####"])
as_shape = lambda rows: np.kron([[c == "#" for c in row] for row in rows], np.ones((3, 3))) > 0
is_r = {letter: _looks_like_r(as_shape(rows)) for letter, rows in letters.items()}
test_eq(is_r, dict(R=True, A=False, B=False, L=False))


# %%
#| export
def _shapes(
    thin: np.ndarray, # (h, w) bool, a part of `_thin_and_bright`
    gap: int = 1,     # pixels; what is less far apart along a row belongs together
): # yields x, y, w, h, area of each shape's box, and the (h, w) bool shape cut to it
    "The connected shapes of a part of a film."
    joined = cv2.morphologyEx(thin.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((1, gap), np.uint8))
    _, numbers, boxes, _ = cv2.connectedComponentsWithStats(joined)
    for n, (x, y, w, h, area) in enumerate(boxes[1:], 1):
        inside = slice(y, y + h), slice(x, x + w)
        yield (int(x), int(y), int(w), int(h), int(area)), (numbers[inside] == n) & thin[inside]


# %%
#| export
def _marker_boxes(
    small: np.ndarray, # (224, 224) uint8
) -> list[tuple]: # x, y, w, h in pixels
    "Where side markers are."
    thin, boxes = _thin_and_bright(small), []
    for left in (0, 164):
        for (x, *size, area), part in _shapes(thin[:120, left:left + 60]):
            y, w, h = size
            if _has_letter_size(w, h, area) and _looks_like_r(part): boxes.append((left + x, y, w, h))
    return boxes


# %% [markdown]
# The height of the tallest marker is the one number that later chapters need.

# %%
#| export
TALL_MARKER = 1 / 16  # of the film's height: most films have smaller letters, some machines larger ones

def marker_height(
    film: np.ndarray, # (H, W) uint8
) -> float: # share of the film's height, of the tallest marker, at most 1/7; 0 if there is none
    "Height of the side marker, an R."
    heights = [h for _, _, _, h in _marker_boxes(_reduced(film))]
    return max(heights, default=0) / _SIDE


# %% [markdown]
# Letters of three heights are measured to within 2.5 of 224 pixels; an X and an O are no marker, and a film's
# own size does not matter.

# %%
def film_with(letter, height):
    film = np.full((224, 224), 30, np.uint8)
    return cv2.putText(film, letter, (12, 60), cv2.FONT_HERSHEY_SIMPLEX, height / 21, 235, 2, cv2.LINE_AA)

for height in (9, 14, 20):
    test_close(marker_height(film_with("R", height)) * 224, height, eps=2.5)
    test_eq([marker_height(film_with(letter, height)) for letter in "XO"], [0, 0])
tall = film_with("R", 20)
test_close(marker_height(cv2.resize(tall, (900, 600))), marker_height(tall), eps=.01)
test_eq(marker_height(np.full((224, 224), 30, np.uint8)), 0)

# %% [markdown]
# [The figure](#fig-appearance_marker) shows two phantoms, the frames that are searched, and what the top-hat
# leaves there. In the first the R is measured. In the second it lies on tissue; parts of it no longer stand
# out, and it is missed, as are letters that are cut or touch something.

# %%
children = [draw_film(draw_anatomy(rng_for(42, "marker", n)), "normal", rng_for(42, "marker", n, 1))[0]
            for n in (4, 0)]
figure, axes = plt.subplots(1, 4, figsize=(12, 3))
for (left, right), film in zip(axes.reshape(2, 2), children):
    left.imshow(_reduced(film), vmin=0, vmax=255)
    left.set_title(f"marker height {marker_height(film):.3f}")
    right.imshow(_thin_and_bright(_reduced(film)))
    right.set_title("thin and bright")
    for x in (0, 163): left.add_patch(plt.Rectangle((x, 0), 60, 120, fill=False, color="#E69F00"))
for ax in axes: ax.axis("off")
show_figure(figure, "appearance_marker", "Two phantoms, their thin, bright parts, and the frames searched.",
            "Two drawn chest films with a small R at the upper left, each beside its thin bright parts.");
test_eq([marker_height(film) > 0 for film in children], [True, False])


# %% [markdown]
# ## Burnt-in text
#
# Some machines burn the time of day or the exposure into a corner of the film, such as "KV59". Such text is
# no disease either, but it may be found on the films of one class only. A line of text is thin and bright
# like a marker. Its letters stand so close that they join into a low box when gaps of up to 4 pixels are
# closed. Within the box every row crosses several strokes, and most strokes reach its upper and lower edge.

# %%
#| export
def _reads_as_text(
    part: np.ndarray, # (h, w) bool: thin, bright pixels of one shape, cut to its box
) -> bool:
    "Whether a shape could be a line of letters, by its size, its strokes, and how straight its edges are."
    h, w = part.shape
    if not (4 <= h <= 12 and 10 <= w <= 70 and w >= 1.6 * h and .25 <= part.mean() <= .85): return False
    strokes = np.diff(part.astype(np.int8), axis=1, prepend=0) == 1
    columns = part.any(axis=0)
    above = part.argmax(axis=0)[columns]         # pixels between the box's edge and the first of a column
    below = part[::-1].argmax(axis=0)[columns]
    is_straight = (above <= 1).mean() >= .55 and (below <= 1).mean() >= .45
    return bool(strokes.sum(axis=1).mean() >= max(2.2, w / 9) and is_straight)


# %% [markdown]
# Drawn letters read as text. A bar of the same size crosses one stroke alone.

# %%
written = np.zeros((14, 60), np.uint8)
cv2.putText(written, "KV59", (2, 11), cv2.FONT_HERSHEY_PLAIN, .8, 255, 1)
cut = written[written.any(axis=1)][:, written.any(axis=0)] > 0
test_eq([_reads_as_text(cut), _reads_as_text(np.ones_like(cut))], [True, False])


# %%
#| export
def _lines_of_text(
    small: np.ndarray, # (224, 224) uint8
    rise: int,         # gray levels by which strokes stand out
) -> list[tuple]: # x, y, w, h in pixels
    "Where shapes read as text."
    return [box[:4] for box, part in _shapes(_thin_and_bright(small, rise), gap=5) if _reads_as_text(part)]

def _touch(one: tuple, other: tuple) -> bool: # x, y, w, h
    "Whether two boxes overlap."
    return all(one[n] < other[n] + other[n + 2] and other[n] < one[n] + one[n + 2] for n in range(2))


# %% [markdown]
# Text on tissue stands out less. But with a smaller rise, ribs and collarbones read as text, too. So faint
# text counts only near the edges of a film.

# %%
#| export
def _text_boxes(
    small: np.ndarray, # (224, 224) uint8
) -> list[tuple]: # x, y, w, h in pixels
    "Where lines of burnt-in text are: clear ones anywhere, faint ones within 24 pixels of an edge."
    from_edge = lambda x, y, w, h: min(x + w / 2, _SIDE - x - w / 2, y + h / 2, _SIDE - y - h / 2)
    faint = [box for box in _lines_of_text(small, 30) if from_edge(*box) <= 24]
    clear = [box for box in _lines_of_text(small, 45) if not any(_touch(box, other) for other in faint)]
    return faint + clear


# %%
written_at = lambda y, rise: cv2.putText(np.full((224, 224), 120, np.uint8), "KV59", (150, y),
                                         cv2.FONT_HERSHEY_PLAIN, .8, 120 + rise, 1)
test_eq([len(_text_boxes(written_at(y, rise))) for y in (120, 210) for rise in (50, 90)], [0, 1, 1, 1])


# %% [markdown]
# How far can the hits be trusted? They were looked at on films of the public set that are not test.
#
# - **Precision**: all 55 films with clear text that were looked at show text. On 40 it is exposure text low
#   on the right. On 15, all that have hits elsewhere, it is a projection mark or a number. Faint text alone
#   is found on 50 more films. Of these 46 show text, 2 a side marker that is cut, and 2 no letter.
# - **Recall**: of 22 exposure texts that can be seen on 40 films with a tall R, 21 are found by clear strokes
#   alone. Of 15 times of day at the upper edge it was 7, since they touch the edge and lie on tissue. Of the
#   texts planted on phantoms, which mostly lie on tissue, about 6 in 10 are found.
#
# | films of the public set | with text | with text low on the right |
# | --- | --- | --- |
# | normal, not test | 1 of 1,349 | 1 |
# | pneumonia, not test | 297 of 3,883 | 176 |
# | normal, test | 16 of 234 | 16 |
# | pneumonia, test | 40 of 390 | 14 |
#
# Boxes of both kinds, as shares of the film's side, so that they fit it at any size:

# %%
#| export
def burnt_in(
    film: np.ndarray, # (H, W) uint8
) -> list[dict]: # kind ("text" or "marker"), x, y, w, h: shares of the film's width and height
    "Where text and side markers are burnt in."
    small = _reduced(film)
    places = [("text", box) for box in _text_boxes(small)] + [("marker", box) for box in _marker_boxes(small)]
    return [dict(kind=kind) | dict(zip("xywh", np.divide(box, _SIDE).tolist())) for kind, box in places]


# %%
with_text = cv2.putText(film_with("R", 20), "KV59", (180, 216), cv2.FONT_HERSHEY_PLAIN, .8, 235, 1)
places = burnt_in(with_text)
test_eq([place["kind"] for place in places], ["text", "marker"])
assert places[0]["x"] > .75 and places[0]["y"] > .9 and places[1]["y"] < .3
pd.DataFrame(places).style.hide(axis="index").format(precision=3)

# %% [markdown]
# ## Eight measures of the whole film
#
# Mean gray and its scatter; how dark the darkest twentieth is and how bright the brightest; the share of
# black. Sharpness: how much neighbouring pixels differ, relative to the scatter. Bytes for a pixel: how hard
# the film was compressed. And how much more gray changes across the edges of JPEG's 8-pixel blocks than
# elsewhere.
#
# None knows a place in the film. They are not blind to disease, since a whitened lung makes a film brighter,
# but they do not see where.

# %%
#| export
APPEARANCE = ["mean", "scatter", "dark", "bright", "black", "sharpness", "bytes", "blocks"]

def appearance(
    film: np.ndarray, # (H, W) uint8
    bytes: int,       # size of its file
) -> dict: # measures of APPEARANCE; `bytes` and `blocks` at the film's own size
    "How a film looks as a whole."
    steps = np.abs(np.diff(film.astype(np.int16), axis=1)).mean(axis=0)
    small = _reduced(film)
    scatter, (dark, bright) = float(small.std()), np.percentile(small, [5, 95])
    edges = cv2.Laplacian(small, cv2.CV_32F).std()
    return dict(
        mean=float(small.mean()), scatter=scatter, dark=dark, bright=bright,
        black=float((small < 8).mean()), sharpness=float(edges / (scatter + 1)),
        bytes=bytes / film.size, blocks=float(steps[7::8].mean() / (steps.mean() + 1e-6)))


# %% [markdown]
# An even film has no scatter; noise is sharp and knows no blocks; columns of 8 equal pixels are all block.

# %%
rng = np.random.default_rng(0)
even, noisy = np.full((224, 224), 100, np.uint8), rng.integers(0, 255, (224, 224), np.uint8)
blocky = rng.integers(0, 255, (224, 28), np.uint8).repeat(8, axis=1)
test_eq([appearance(even, 50_176)[m] for m in ("mean", "scatter", "bytes", "sharpness")], [100, 0, 1, 0])
assert appearance(noisy, 1)["sharpness"] > 1 and abs(appearance(noisy, 1)["blocks"] - 1) < .05
assert appearance(blocky, 1)["blocks"] > 7

# %%
#| export
BURNT_IN = ["path", "kind", "x", "y", "w", "h"]

def measure_films(
    images: pd.DataFrame, # path and bytes; `images.attrs["root"]` is the folder
) -> tuple[pd.DataFrame, pd.DataFrame]: # APPEARANCE and marker, rows as of `images`; BURNT_IN, a row a place
    "`appearance`, `marker_height` and `burnt_in` of every film, each read once, on all threads."
    def measure(path, bytes):
        film = read_film(f"{images.attrs['root']}/{path}")
        places = [dict(path=path) | place for place in burnt_in(film)]
        return appearance(film, bytes) | dict(marker=marker_height(film)), places
    with ThreadPoolExecutor(threads()) as pool: films = list(pool.map(measure, images.path, images.bytes))
    looks, places = [looks for looks, _ in films], [place for _, places in films for place in places]
    return (pd.DataFrame(looks, index=images.index)[[*APPEARANCE, "marker"]],
            pd.DataFrame(places, columns=BURNT_IN))


# %%
with tempfile.TemporaryDirectory() as folder:
    for name, film in zip(("even", "noisy", "tall"), (even, noisy, tall)):
        cv2.imwrite(f"{folder}/{name}.png", film)
    three = pd.DataFrame(dict(path=["even.png", "noisy.png", "tall.png"], bytes=[50_176] * 3))
    three.attrs["root"] = folder
    measured, places = measure_films(three)
test_eq(measured.marker.tolist(), [0, 0, marker_height(tall)])
test_eq(places.to_dict("records"), [dict(path="tall.png") | place for place in burnt_in(tall)])
measured.set_index(three.path).style.format(precision=2)


# %% [markdown]
# ## How well appearance tells two groups apart
#
# A random forest learns from the eight measures which of two groups a film belongs to. It is asked about
# films of patients that it was not fitted on.

# %%
#| export
def _forest(
    seed: int,
    tried: str = "sqrt", # how many features a split may choose from; for hundreds, "log2" is fewer and faster
): # scikit-learn classifier
    "A random forest."
    from sklearn.ensemble import RandomForestClassifier
    return RandomForestClassifier(100, min_samples_leaf=5, max_features=tried, random_state=seed)


# %%
#| export
def _patient_folds(
    patients: pd.Series, # whose film each is
    target: np.ndarray,  # (n,) bool or 0 and 1
    folds: int,          # at most
    seed: int,
): # scikit-learn splitter; None where a group has fewer than two patients
    "Folds of whole patients, in which both groups are as frequent as in all."
    from sklearn.model_selection import StratifiedGroupKFold
    folds = min(folds, *(patients[target == t].nunique() for t in (False, True)))
    return StratifiedGroupKFold(folds, shuffle=True, random_state=seed) if folds > 1 else None


# %%
#| export
def appearance_scores(
    films: pd.DataFrame, # with APPEARANCE and patient_id
    target: np.ndarray,  # (n,) bool
    seed: int,
    folds: int = 5,
) -> np.ndarray | None: # (n,) probability of `target`; None with too few patients
    "What a random forest says of each film by appearance, fitted on other patients."
    from sklearn.model_selection import cross_val_predict
    cv = _patient_folds(films.patient_id, target, folds, seed)
    if cv is None: return None
    return cross_val_predict(_forest(seed), films[APPEARANCE], target, groups=films.patient_id, cv=cv,
                             method="predict_proba")[:, 1]


# %% [markdown]
# The result is an AUROC: .5 is guessing, 1 is certainty. Its interval is DeLong's over patients, as for
# models.

# %%
#| export
def _auroc_with_interval(
    films: pd.DataFrame, # patient_id
    label: np.ndarray,   # (n,) 0 or 1
    scores: np.ndarray,  # (n,)
) -> dict: # auroc, low, high, films
    "AUROC with its 95 % interval; there is none where every pair is in order, or a class has one patient."
    table = pd.DataFrame(dict(label=label, probability=scores, patient_id=films.patient_id.to_numpy()))
    low, high = auroc_interval(table)
    return dict(auroc=auroc(label, scores), low=low, high=high, films=len(films))


# %%
four = pd.DataFrame(dict(patient_id=range(4)))
in_order = _auroc_with_interval(four, np.array([0, 0, 1, 1]), np.array([.1, .2, .6, .9]))
test_eq((in_order["auroc"], np.isnan(in_order["low"])), (1, True))


# %%
#| export
def separation(
    films: pd.DataFrame, # with APPEARANCE and patient_id
    target: np.ndarray,  # (n,) bool
    seed: int,
    folds: int = 5,
) -> dict: # auroc, low, high, films; NaN where there are too few patients
    "How well two groups of films are told apart by appearance."
    scores = appearance_scores(films, target, seed, folds)
    if scores is None: return dict.fromkeys(("auroc", "low", "high"), float("nan")) | dict(films=len(films))
    return _auroc_with_interval(films, np.asarray(target).astype(int), scores)


# %% [markdown]
# Groups that a coin has chosen are not told apart, groups that differ in one measure are:

# %%
measures = np.random.default_rng(0).normal(size=(300, 8))
made_up = pd.DataFrame(measures, columns=APPEARANCE).assign(patient_id=np.arange(300) // 2)
coin = np.random.default_rng(1).random(300) < .5
by_chance = separation(made_up, coin, seed=1)
assert by_chance["low"] < .5 < by_chance["high"]
test_eq(separation(made_up.assign(dark=coin * 10.), coin, seed=1)["auroc"], 1)
by_chance


# %% [markdown]
# A shortcut that was learned on some films may or may not help on others. `carried_over` learns the class on
# one set of films and asks about another.

# %%
#| export
def carried_over(
    learned: pd.DataFrame, # films to learn from: APPEARANCE and label
    test: pd.DataFrame,    # films to ask about: APPEARANCE, label and patient_id
    seed: int,
) -> dict: # auroc, low, high, films
    "What appearance tells of the class of test films, as learned on the others."
    forest = _forest(seed).fit(learned[APPEARANCE], learned.label)
    scores = forest.predict_proba(test[APPEARANCE])[:, 1]
    return _auroc_with_interval(test, test.label.to_numpy(), scores)


# %%
labelled = made_up.assign(label=coin.astype(int), dark=coin * 10.)
turned = labelled.assign(dark=10. - labelled.dark)   # elsewhere the sign means the opposite
test_eq([carried_over(labelled, films, seed=1)["auroc"] for films in (labelled, turned)], [1, 0])


# %% [markdown]
# ## What size alone gives away
#
# Squashing every film to a square turns its aspect (width over height) into the shape of the chest. So a
# logistic regression gets width, height and aspect, and no pixel. It is asked about patients that it was not
# fitted on, as above.

# %%
#| export
def _size_scores(
    images: pd.DataFrame, # width, height, label, patient_id
    cv,                   # from `_patient_folds`
) -> np.ndarray: # (n,) probability of pneumonia
    "What a logistic regression says of each film by its size, fitted on other patients."
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    features = np.stack([images.width, images.height, images.width / images.height], axis=1)
    if (features == features[0]).all(): return np.full(len(images), .5)
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))
    return cross_val_predict(model, features, images.label, groups=images.patient_id, cv=cv,
                             method="predict_proba")[:, 1]


# %%
#| export
def size_baseline(
    images: pd.DataFrame, # films to use: width, height, label, patient_id
    seed: int = 42,
    folds: int = 5,       # at most
) -> dict: # auroc (pooled over folds), low and high (95 % interval), films, folds, constant (one size only)
    "AUROC of the class predicted from size alone, cross-validated by patient."
    cv = _patient_folds(images.patient_id, images.label, folds, seed)
    if cv is None:
        few = min(images.patient_id[images.label == n].nunique() for n in range(2))
        undefined = dict.fromkeys(("auroc", "low", "high"), float("nan"))
        return undefined | dict(films=len(images), folds=few, constant=False)
    is_constant = bool(images.width.nunique() == 1 and images.height.nunique() == 1)
    result = _auroc_with_interval(images, images.label.to_numpy(), _size_scores(images, cv))
    return result | dict(folds=cv.get_n_splits(), constant=is_constant)


# %% [markdown]
# On made-up sizes the answer is known. Unrelated sizes give about .5, a class that is always wider gives 1,
# and equal sizes give exactly .5.

# %%
rng = rng_for(1)
sizes = pd.DataFrame(dict(label=[0, 1] * 200, patient_id=[f"p{i}" for i in range(400)],
                          width=rng.integers(900, 1500, 400), height=rng.integers(700, 1200, 400)))
unrelated = size_baseline(sizes)
assert unrelated["low"] < .5 < unrelated["high"]
test_eq(size_baseline(sizes.assign(width=sizes.width + 1000 * sizes.label))["auroc"], 1.0)
test_eq(size_baseline(sizes.assign(width=224, height=224))["auroc"], .5)
print(unrelated)

# %% [markdown]
# ## Classifiers that see no lung
#
# How much of the class can be told without a lung? Films are reduced to 32 by 32 pixels. The same random
# forest then learns from some of these pixels, or from numbers that know no place at all. What it reaches is
# what a network could reach without looking at a lung.
#
# The outer frame is three pixels wide, a tenth of the side. Without the chest, all is left out between an
# eighth and seven eighths of the width and the height; lungs of children end within that. The whole film is
# there for comparison.

# %%
#| export
SMALL_SIDE = 32  # pixels

def _parts_of_a_film() -> dict[str, np.ndarray]: # name → (32, 32) bool
    "Which pixels of a small film each classifier sees."
    place = np.arange(SMALL_SIDE)
    from_edge = np.minimum(place, SMALL_SIDE - 1 - place)
    from_sides = np.minimum(from_edge[:, None], from_edge)
    corners = np.maximum(from_edge[:, None], from_edge) < 6
    lower_right = corners & (place[:, None] >= 16) & (place >= 16)
    return {"outer frame": from_sides < 3, "four corners": corners, "lower right corner": lower_right,
            "without the chest": from_sides < 4, "whole film": np.ones((SMALL_SIDE, SMALL_SIDE), bool)}


# %%
figure, axes = plt.subplots(1, 5, figsize=(11, 2.5))
for ax, (name, part) in zip(axes, _parts_of_a_film().items()):
    small = cv2.resize(children[0], part.shape, interpolation=cv2.INTER_AREA)
    ax.imshow(np.where(part, small, 0))
    ax.set_title(f"{name}\n{part.sum():,} pixels", fontsize=10)
    ax.axis("off")
_ = show_figure(figure, "appearance_parts", "What classifiers without lungs see of a phantom.",
                "A small drawn chest film of which only the outer frame, the corners, or all is left.")


# %%
#| export
def features_without_lungs(
    images: pd.DataFrame,   # width, height, and bytes of the file
    measured: pd.DataFrame, # APPEARANCE and marker, rows as of `images`
    small: np.ndarray,      # (N, 32, 32) uint8, films as of `images`, squashed to SMALL_SIDE
) -> dict[str, np.ndarray]: # classifier → (N, features)
    "What each classifier sees of the films."
    size = np.stack([images.width, images.height, images.width / images.height], axis=1)
    numbers = {"width and height": size, "height of the side marker": measured[["marker"]].to_numpy(),
               "bytes of the file": images[["bytes"]].to_numpy(),
               "eight measures": measured[APPEARANCE].to_numpy()}
    return numbers | {name: small[:, part] for name, part in _parts_of_a_film().items()}


# %% [markdown]
# Each classifier is asked twice. Films that are not test are judged by a forest that saw no film of their
# patient. Test films are judged by a forest that learned from all others. A split in a forest for pixels
# chooses among a few only; on the public set that takes half of the time and moves no AUROC by more than
# .003.

# %%
#| export
def _forest_answers(
    features: np.ndarray, # (N, f)
    images: pd.DataFrame, # split, label, patient_id
    cv,                   # from `_patient_folds`
    seed: int,
) -> np.ndarray: # (N,) probability of pneumonia
    "What a forest says of each film: out of fold, and of test films after all others."
    from sklearn.model_selection import cross_val_predict
    is_test, answers = (images.split == "test").to_numpy(), np.empty(len(images))
    learned, known = images[~is_test], features[~is_test]
    forest = _forest(seed, "log2" if features.shape[1] > len(APPEARANCE) else "sqrt")
    answers[~is_test] = cross_val_predict(forest, known, learned.label, groups=learned.patient_id,
                                          cv=cv, method="predict_proba")[:, 1]
    if is_test.any():
        forest.fit(known, learned.label)
        answers[is_test] = forest.predict_proba(features[is_test])[:, 1]
    return answers


# %%
#| export
WITHOUT_LUNGS = ["asked", "classifier", "features", "auroc", "low", "high", "films"]

def without_lungs(
    images: pd.DataFrame, # split, label, patient_id
    views: dict,          # from `features_without_lungs`
    seed: int,
    groups: np.ndarray | None = None, # (N,) which films are asked together; None: "others", "test" by split
) -> pd.DataFrame: # asked (a group), classifier, features, auroc, low, high, films
    "How well classifiers that see no lung tell pneumonia from normal; no rows with too few patients."
    is_test = (images.split == "test").to_numpy()
    if groups is None: groups = np.where(is_test, "test", "others")
    others, rows = images[~is_test], []
    cv = _patient_folds(others.patient_id, others.label.to_numpy(), 5, seed)
    ask = lambda features: _forest_answers(features, images, cv, seed)
    with ThreadPoolExecutor(threads()) as pool: answers = list(pool.map(ask, views.values() if cv else []))
    for (name, features), scores in zip(views.items(), answers):
        for asked in sorted(set(groups)):
            part = groups == asked
            if images.label[part].nunique() < 2: continue
            row = dict(asked=asked, classifier=name, features=features.shape[1])
            label = images.label[part].to_numpy()
            rows.append(row | _auroc_with_interval(images[part], label, scores[part]))
    return pd.DataFrame(rows, columns=WITHOUT_LUNGS)


# %% [markdown]
# Films of noise, of which the sick ones have a bright corner at the lower right. The classifiers that see
# this corner find it, and the file's bytes do not tell.

# %%
rng, label = np.random.default_rng(0), np.tile([0, 1], 60)
noise = rng.integers(0, 200, (120, 32, 32)).astype(np.uint8)
noise[label == 1, 27:, 27:] = 255
made_up = pd.DataFrame(dict(split=np.repeat(["train", "test"], [80, 40]), label=label, width=100, height=90,
                            patient_id=np.arange(120) // 2, bytes=rng.integers(0, 999, 120)))
measured = pd.DataFrame(rng.normal(size=(120, 9)), columns=[*APPEARANCE, "marker"])
answers = without_lungs(made_up, features_without_lungs(made_up, measured, noise), seed=1)
corner = answers.pivot(index="classifier", columns="asked", values="auroc")
assert (corner.loc[["outer frame", "four corners", "lower right corner"]] > .95).all(axis=None)
assert (corner.loc[["bytes of the file", "width and height"]] < .75).all(axis=None)
corner


# %% [markdown]
# ## Films weighted so that appearance says little
#
# If appearance may be a shortcut, a model should also be judged as if it were none. **Overlap weights** (Li,
# Morgan and Zaslavsky, 2018; *J. Am. Stat. Assoc.* 113, 390) do that. Let *e* be the chance of pneumonia by
# appearance alone, where both classes are equally common. Then a normal film counts *e*, and a pneumonia film
# counts 1 − *e*.
#
# So a film counts for much if it looks like the other class. Among films so weighted, appearance says much
# less about the class: nothing if *e* were exact. It is a strict judge, since what makes an appearance is
# partly disease.

# %%
#| export
def overlap_weights(
    scores: np.ndarray, # (n,) probability of pneumonia by appearance, fitted on other films
    labels: np.ndarray, # (n,) 0 or 1, both present
) -> np.ndarray: # (n,) within 0 and 1
    "How much each film counts where appearance shall not."
    even = expit(logit(np.clip(scores, .01, .99)) - logit(labels.mean()))  # as if both classes were as common
    return np.where(labels == 1, 1 - even, even)


# %% [markdown]
# A made-up trait that nine in ten of one class have and one in ten of the other. Weighted, each class has it
# half of the time:

# %%
trait, sick = np.repeat([0, 1, 0, 1], [90, 10, 30, 270]), np.repeat([0, 1], [100, 300])
weights = overlap_weights(np.where(trait, 270 / 280, 30 / 120), sick)
test_close([np.average(trait[sick == c], weights=weights[sick == c]) for c in (0, 1)], [.5, .5])
