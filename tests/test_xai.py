"""Occlusion against a plain double loop, and against a model whose answer is known."""
import keras
import numpy as np
import pytest

from pneumo_nb.cnn import build_cnn
from pneumo_nb.mlp import build_mlp
from pneumo_nb.resnet import build_resnet
from pneumo_nb.run import StudyError, set_seed
from pneumo_nb.xai import occlusion_map, patch_positions, split_chain

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

def as_if_trained(model, seed=3):
    "The model with biases and running statistics that are not zero and one."
    rng = np.random.default_rng(seed)
    for w in model.weights:
        if "kernel" not in w.path: w.assign(rng.uniform(.5, 1.5, w.shape))
    return model

def check_against_loop(model, patch, stride, fill=127.5, films=1, windowed=True):
    "Equal maps, which are not all zero, from the way that is meant to be taken."
    assert bool(split_chain(model)[0]) == windowed
    images = np.random.default_rng(4).uniform(0, 255, (films, *model.input_shape[1:3])).astype(np.float32)
    maps = occlusion_map(model, images, patch, stride, fill, batch_size=7)
    assert len(maps) == films and all(np.abs(m).max() > 1e-4 for m in maps)
    for image, change in zip(images, maps): np.testing.assert_allclose(change, plain_loop(model, image, patch, stride, fill), rtol=0, atol=2e-6)

def sequential(shape, *layers):
    set_seed(5)
    return as_if_trained(keras.Sequential([keras.Input((*shape, 1)), keras.layers.Rescaling(1 / 255), *layers]))

L, conv, pool = keras.layers, keras.layers.Conv2D, keras.layers.MaxPooling2D
SMALL = {
    "same, odd sizes, pooling drops a row": ((37, 45), [conv(4, 3, padding="same", activation="relu"), pool(2), L.BatchNormalization(),
                                                        conv(6, 3, padding="same", activation="relu"), pool(2), L.BatchNormalization(), L.Flatten()]),
    "valid, and windows that shrink": ((19, 24), [conv(3, 5, activation="relu"), pool((3, 2)), conv(3, (3, 2)), L.ReLU(), L.Flatten()]),
    "strides, and strides beyond the kernel": ((30, 26), [conv(4, 4, strides=2, padding="same"), L.Activation("tanh"), pool(1, strides=3), L.Flatten()]),
    "same pooling with negative values": ((21, 23), [conv(4, 3, padding="same"), L.Dropout(.5), pool(3, strides=2, padding="same"), L.Flatten()]),
    "dilation": ((20, 20), [conv(3, 3, dilation_rate=2, padding="same", use_bias=False), conv(3, 3, dilation_rate=(1, 3)), L.Flatten()]),
    "no flatten": ((20, 23), [conv(4, 3, padding="same"), pool(2), L.GlobalAveragePooling2D()]),
    "a layer that windows do not know": ((20, 23), [conv(4, 3), L.LayerNormalization(), L.AveragePooling2D(2), L.Flatten(), L.Dropout(.3)]),
    "nothing but a flatten": ((15, 12), [L.Flatten(), L.Dense(6, "relu"), L.Dropout(.5)])}

@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("patch, stride", [(6, 5), (3, 3), (11, 9)])
def test_windows_equal_the_loop(name, patch, stride):
    shape, layers = SMALL[name]
    layers = [layer.__class__.from_config(layer.get_config()) for layer in layers]
    check_against_loop(sequential(shape, *layers, L.Dense(1, "sigmoid")), patch, stride)

@pytest.mark.parametrize("build, windowed", [(build_mlp, True), (build_cnn, True), (lambda size: build_resnet(size, "none"), False)])
def test_models_of_the_study_equal_the_loop(build, windowed):
    set_seed(6)
    model = build(48)
    check_against_loop(model if model.name.startswith("resnet") else as_if_trained(model), 16, 16, films=2, windowed=windowed)

@pytest.mark.parametrize("seed", range(12))
def test_random_networks_equal_the_loop(seed):
    rng = np.random.default_rng(seed)
    def draw():
        kind, padding = rng.choice(["conv", "pool", "norm"], p=[.5, .3, .2]), str(rng.choice(["same", "valid"]))
        if kind == "norm": return L.BatchNormalization()
        size, strides = [int(n) for n in rng.integers(1, 4, 2)], int(rng.integers(1, 3))
        return pool(size, strides, padding) if kind == "pool" else conv(4, size, strides, padding, activation=str(rng.choice(["tanh", "linear"])))
    first = conv(4, 3, padding="same", activation="tanh")
    model = sequential(rng.integers(24, 40, 2), first, *(draw() for _ in range(3)), L.Flatten(), L.Dense(1))   # no sigmoid either
    model.layers[-1].kernel.assign(model.layers[-1].kernel * .2)
    patch = int(rng.integers(2, 20))
    check_against_loop(model, patch, int(rng.integers(max(1, patch // 2), patch + 1)), fill=float(rng.uniform(0, 255)))

def own_class():
    class Squared(keras.Model):
        def call(self, x, training=None): return super().call(x, training=training) ** 2
    inputs = keras.Input((12, 14, 1))
    return Squared(inputs, L.Dense(1, "sigmoid")(L.Flatten()(L.Rescaling(1 / 255)(inputs))))

def skipping():
    x = inputs = keras.Input((12, 14, 1))
    x = conv(3, 3, padding="same", activation="relu")(L.Rescaling(1 / 255)(x))
    return keras.Model(inputs, L.Dense(1, "sigmoid")(L.Flatten()(L.Add()([x, conv(3, 3, padding="same")(x)]))))

def whole_numbers():
    inputs = keras.Input((12, 14, 1), dtype="uint8")
    return keras.Model(inputs, L.Dense(1)(L.Flatten()(L.Rescaling(1 / 255)(inputs))))

def per_image():
    return sequential((12, 14), conv(3, 3, activation=lambda x: x - keras.ops.mean(x, (1, 2), keepdims=True)), L.Flatten(), L.Dense(1, "sigmoid"))

@pytest.mark.parametrize("make", [own_class, skipping, whole_numbers, per_image])
def test_what_windows_cannot_do_is_done_whole(make):
    set_seed(7)
    check_against_loop(make(), 4, 3, fill=100, windowed=False)

@pytest.mark.parametrize("layer, settings", [(conv(2, 3, dtype="mixed_bfloat16"), {}), (L.Dropout(.5), dict(training=True)), (L.BatchNormalization(axis=1), {}),
                                             (conv(2, 1, data_format="channels_first"), {}), (L.Softmax(axis=1), {})])
def test_windows_end_before_what_is_not_local(layer, settings):
    inputs = keras.Input((12, 14, 1))
    assert split_chain(keras.Model(inputs, L.Dense(1)(L.Flatten()(layer(inputs, **settings))))) == ([], [])

def test_a_second_map_of_the_same_model_is_the_same(model):
    film = np.random.default_rng(8).uniform(0, 255, (1, 23, 31))
    np.testing.assert_array_equal(occlusion_map(model, film, 5, 3), occlusion_map(model, film, 5, 3))

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
