"""Augmentation moves films and masks alike, and batches depend on seed, epoch and film alone."""
import cv2
import numpy as np
import pandas as pd

from pneumo_nb.phantom import draw_anatomy, draw_film
from pneumo_nb.preprocessing import AUGMENTATION, Films, draw_matrix, plain_batches, training_batches, warp
from pneumo_nb.run import rng_for

def test_masks_and_films_stay_aligned():
    film, mask = draw_film(draw_anatomy(rng_for(5)), "bacteria", rng_for(6), height=128)
    mask = cv2.resize(mask.astype(np.uint8) * 255, (128, 128))
    painted = np.where(mask > 127, 255, 0).astype(np.uint8)   # a film that is white just where the mask is
    for n in range(50):
        matrix = draw_matrix(rng_for(1, n), 128, AUGMENTATION)
        together = warp(painted, matrix) > 127
        apart = warp((painted > 0).astype(np.uint8), matrix, cv2.INTER_NEAREST) > 0
        assert (together != apart).sum() <= .02 * painted.size and (together.any() == apart.any() or apart.sum() < 9)

def test_matrices_stay_within_the_studys_ranges():
    matrices = np.array([draw_matrix(rng_for(2, n), 100, AUGMENTATION) for n in range(400)])
    zoom = np.linalg.norm(matrices[:, :, :2], axis=1)
    assert (zoom > .79).all() and (zoom < 1.21).all() and np.ptp(zoom) > .35
    flipped = np.linalg.det(matrices[:, :, :2]) < 0
    assert .4 < flipped.mean() < .6
    middle = matrices @ np.array([49.5, 49.5, 1]) - 49.5
    assert (np.linalg.norm(middle, axis=1) <= 20 * 2 ** .5 + 1e-6).all() and np.abs(middle).max() > 15

def test_validation_and_test_films_are_never_touched():
    pixels = np.random.default_rng(0).integers(0, 256, (9, 16, 16), np.uint8)
    films = Films(pd.DataFrame(dict(split=["train"] * 5 + ["validation"] * 4, label=[0, 1] * 4 + [0])), pixels)
    seen = np.concatenate([x for x, _ in plain_batches(films, films.rows("validation"), 3)])
    np.testing.assert_array_equal(seen[..., 0], pixels[5:])
    batches = training_batches(films, films.rows("train"), 2, 1, {})
    epoch = np.concatenate([next(batches)[0] for _ in range(3)])[..., 0]
    assert sorted(f.tobytes() for f in epoch) == sorted(f.tobytes() for f in pixels[:5])
