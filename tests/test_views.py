"""Gray levels and sharpness from elsewhere change what they should and nothing else."""
import cv2
import numpy as np
import pandas as pd

from pneumo_nb.cache import Films
from pneumo_nb.views import (
    RECIPE_RANGES, band_scatters, level_counts, match_bands, match_levels, painted_over, pasted, recipe_views,
    swapped_bands, swapped_levels)

def films_of(normal, sick):
    "Films of both classes, all in train."
    labels = [0] * len(normal) + [1] * len(sick)
    return Films(pd.DataFrame(dict(split="train", label=labels)), np.concatenate([normal, sick]))

def noise(low, high, *shape): return np.random.default_rng(0).integers(low, high, shape).astype(np.uint8)

def test_levels_from_elsewhere_keep_the_order():
    film, other = noise(0, 200, 24, 24), noise(100, 256, 24, 24)
    matched = match_levels(film, level_counts(other))
    order = np.argsort(film.ravel(), kind="stable")
    assert (np.diff(matched.ravel()[order].astype(int)) >= 0).all() and abs(matched.mean() - other.mean()) < 2

def test_swapped_levels_are_of_the_other_class():
    swapped = swapped_levels(films_of(noise(0, 60, 5, 16, 16), noise(200, 256, 5, 16, 16)), np.arange(10), 1)
    assert swapped[:5].min() >= 200 and swapped[5:].max() < 60

def test_sharpness_from_elsewhere_keeps_places():
    sharp = noise(60, 190, 64, 64)
    soft = cv2.GaussianBlur(sharp, (0, 0), 1)
    matched = match_bands(soft, band_scatters(sharp))
    before, after, there = (band_scatters(film)[0] for film in (soft, matched, sharp))
    assert before < .5 * there
    assert 2.4 < after / before < 3.1   # three times at most, less what rounding and the next band take
    assert np.corrcoef(matched.ravel(), soft.ravel())[0, 1] > .8 and abs(matched.mean() - soft.mean()) < 1
    assert np.abs(match_bands(sharp, band_scatters(sharp)).astype(int) - sharp).max() <= 2

def test_swapped_sharpness_is_of_the_other_class():
    sharp = noise(60, 190, 6, 64, 64)
    soft = np.stack([cv2.GaussianBlur(film, (0, 0), 1) for film in sharp[:3]])
    films = films_of(soft, sharp[3:])
    before = [band_scatters(film)[0] for film in films.pixels]
    after = [band_scatters(film)[0] for film in swapped_bands(films, np.arange(6), 1)]
    assert max(before[:3]) < min(before[3:])
    assert min(after[:3]) > 2 * max(before[:3]) and max(after[3:]) < .5 * min(before[3:])

def test_without_sharpness_from_elsewhere_the_recipe_changes_no_band():
    films = films_of(noise(60, 190, 2, 32, 32), noise(50, 180, 2, 32, 32))
    still = dict.fromkeys(RECIPE_RANGES, 0)
    def change(bands):
        seen = recipe_views(films, 0, still | dict(bands=bands))(1, np.arange(4))[..., 0]
        return np.abs(seen.astype(int) - films.pixels).max()
    assert change(bands=0) <= 1 < change(bands=1)

def test_nothing_of_a_box_is_left_when_it_is_painted_over():
    "Also at a film's edge, where OpenCV reads what it shall replace."
    film, boxes = noise(60, 190, 64, 64), [(.6, .8, .3, .1), (0, 0, .1, .1), (.95, .9, .05, .1)]
    overlay = pasted(np.zeros_like(film), np.full_like(film, 255), boxes)
    filled, other = painted_over(film, boxes), np.where(overlay == 255, 255, film).astype(np.uint8)
    assert (filled == painted_over(other, boxes)).all()
    assert (filled == film)[overlay == 0].all() and not (filled == film).all()

def test_a_pasted_box_is_the_others_and_the_rest_is_as_it_was():
    film, other, box = noise(0, 90, 100, 100), noise(160, 255, 100, 100), [(.5, .5, .2, .1)]
    lent = pasted(film, other, box)
    assert (lent[50:60, 50:70] == other[50:60, 50:70]).all()
    far = np.ones((100, 100), bool)
    far[44:66, 44:76] = False
    assert (lent == film)[far].all() and (pasted(film, film, box) == film).all()
    assert (painted_over(film, []) == film).all()
