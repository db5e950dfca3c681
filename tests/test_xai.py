"""Occlusion against a plain double loop, and against a model whose answer is known."""
import keras
import numpy as np
import pytest

from pneumo_nb.run import StudyError, set_seed
from pneumo_nb.xai import occlusion_map, patch_positions

def plain_loop(model, image, patch, stride, fill):
    "Cover, predict, add up, divide: one film, one prediction at a time."
    h, w = image.shape
    rows, columns = ([*range(0, n - patch, stride), n - patch] for n in (h, w))
    total, times = np.zeros((h, w)), np.zeros((h, w))
    base = float(model(image[None, ..., None])[0, 0])
    for r in rows:
        for c in columns:
            covered = image.copy()
            covered[r:r + patch, c:c + patch] = fill
            total[r:r + patch, c:c + patch] += base - float(model(covered[None, ..., None])[0, 0])
            times[r:r + patch, c:c + patch] += 1
    assert times.min() >= 1
    return total / times

@pytest.fixture(scope="module")
def model():
    set_seed(0)
    return keras.Sequential([keras.Input((23, 31, 1)), keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(4, 3, activation="relu"),
                             keras.layers.Flatten(), keras.layers.Dense(1, "sigmoid")])

@pytest.mark.parametrize("patch, stride, fill", [(5, 3, 127.5), (4, 4, 0.), (7, 2, 255.), (23, 1, 127.5), (1, 1, 127.5)])
def test_equals_a_plain_double_loop(model, patch, stride, fill):
    images = np.random.default_rng(1).uniform(0, 255, (2, 23, 31)).astype(np.float32)
    maps = occlusion_map(model, images, patch, stride, fill, batch_size=13)
    assert maps.shape == (2, 23, 31) and maps.dtype == np.float32
    for image, change in zip(images, maps): np.testing.assert_allclose(change, plain_loop(model, image, patch, stride, fill), atol=2e-6)

def test_linear_model_has_a_known_answer():
    weights = (np.random.default_rng(2).integers(-64, 64, (10, 10)) / 64).astype(np.float32)  # so that sums are exact
    linear = keras.Sequential([keras.Input((10, 10, 1)), keras.layers.Flatten(), keras.layers.Dense(1, use_bias=False)])
    linear.set_weights([weights.reshape(-1, 1)])
    image = np.full((1, 10, 10), 101, np.uint8)
    maps = occlusion_map(linear, image, patch_size=1, stride=1, fill=100.)
    np.testing.assert_array_equal(maps[0], weights)   # covering a pixel takes one gray value off
    np.testing.assert_array_equal(maps, occlusion_map(linear, image[..., None], patch_size=1, stride=1, fill=100.))

@pytest.mark.parametrize("size, patch, stride", [(224, 20, 10), (10, 3, 3), (11, 3, 3), (50, 7, 5), (8, 8, 1)])
def test_every_pixel_is_covered(size, patch, stride):
    starts = patch_positions(size, patch, stride)
    assert sorted({p for s in starts for p in range(s, s + patch)}) == list(range(size))

@pytest.mark.parametrize("wrong, says", [(dict(stride=21), "leaves pixels uncovered"), (dict(patch_size=40), "1 to the film's 23 pixels"),
                                         (dict(patch_size=0), "found 0"), (dict(fill=300), "found 300")])
def test_bad_settings_are_refused(model, wrong, says):
    with pytest.raises(StudyError, match=says): occlusion_map(model, np.zeros((1, 23, 31)), **wrong)
