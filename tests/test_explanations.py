"""Maps from derivatives and from samples: against answers that are known, on networks of every make."""
import cv2
import keras
import numpy as np
import pytest

from pneumo_nb.cnn import build_cnn
from pneumo_nb.explanation import METHODS, explain
from pneumo_nb.gradients import _follow, _log_odds, gradcam, hirescam, integrated_gradients
from pneumo_nb.gradients import log_odds_gradients, smoothgrad
from pneumo_nb.joint import joint_network
from pneumo_nb.mlp import build_mlp
from pneumo_nb.networks import as_model, film_network, pneumonia_logits, temperature_scaled
from pneumo_nb.resnet import build_resnet
from pneumo_nb.run import StudyError, set_seed
from pneumo_nb.sampling import edge_map, random_map, rise

L, ops = keras.layers, keras.ops

def films(shape, count=2, seed=1):
    return np.random.default_rng(seed).uniform(0, 255, (count, *shape)).astype(np.float32)

def as_if_trained(model, seed=3):
    "The model with biases and running statistics that are not zero and one."
    rng = np.random.default_rng(seed)
    for w in model.weights:
        if w.path.split("/")[-1] in ("bias", "beta", "moving_mean"): w.assign(rng.uniform(-.1, .1, w.shape))
        elif "kernel" not in w.path and "seed" not in w.path: w.assign(rng.uniform(.5, 1.5, w.shape))
    return model

def film_input(side): return keras.Input((side, side, 1))

def ensemble(side=32, flip=True):
    set_seed(5)
    return as_model(pneumonia_logits([as_if_trained(film_network(side, (4,), 3, "local"), n)
                                      for n in range(2)], flip))

def convolutional(shape=(21, 18), end=(L.GlobalAveragePooling2D,), **own):
    set_seed(2)
    return keras.Sequential([keras.Input((*shape, 1)), L.Rescaling(1 / 255, **own), L.Conv2D(4, 3, **own),
                             L.ReLU(**own), L.MaxPooling2D(2, **own), L.Conv2D(5, 3, **own),
                             *(layer(**own) for layer in end), L.Dense(1, "sigmoid", **own)])

def linear(shape=(6, 7), activation=None):
    weights = np.random.default_rng(4).normal(size=shape).astype(np.float32) / 500
    model = keras.Sequential([keras.Input((*shape, 1)), L.Flatten(), L.Dense(1, activation)])
    model.set_weights([weights.reshape(-1, 1), np.array([.3])])
    return model, weights

def squeezing():
    "Blocks as in EfficientNet: a pooled map weighs the channels of the map itself."
    set_seed(4)
    inputs = film_input(16)
    x = L.Conv2D(4, 3, activation="relu", padding="same", name="before")(L.Rescaling(1 / 255)(inputs))
    gate = L.GlobalAveragePooling2D(keepdims=True)(x)
    x = L.Multiply(name="weighed")([x, L.Conv2D(4, 1, activation="sigmoid")(gate)])
    x = L.Add(name="last")([x, L.Conv2D(4, 3, padding="same")(x)])
    return keras.Model(inputs, L.Dense(1, "sigmoid")(L.GlobalAveragePooling2D()(x)))

def two_branches():
    "Two convolutions side by side that meet behind pooling, in a model inside a model."
    set_seed(6)
    inputs, film = film_input(17), film_input(17)
    branch = lambda filters, size: L.GlobalAveragePooling2D()(L.Conv2D(filters, size)(inputs))
    inner = keras.Model(inputs, L.Concatenate()([branch(3, 3), branch(2, 5)]))
    return keras.Model(film, L.Dense(1, "sigmoid", name="top")(inner(L.Rescaling(1 / 255)(film))))

STUDY = {"mlp": lambda: as_if_trained(build_mlp(32)), "cnn": lambda: as_if_trained(build_cnn(32)),
         "ensemble": ensemble, "branches": two_branches, "squeezing": squeezing}

@pytest.fixture(scope="module")
def networks():
    "The study's networks and others, made once."
    set_seed(1)
    made = {name: build() for name, build in STUDY.items()} | dict(simple=convolutional())
    halves = {dtype: convolutional(dtype=dtype) for dtype in ("mixed_float16", "mixed_bfloat16")}
    for half in halves.values(): half.set_weights(made["simple"].get_weights())
    return made | halves


# The log odds, and their derivative

def softmax_of_three():
    return keras.Sequential([keras.Input((6, 7, 1)), L.Rescaling(1 / 255), L.Flatten(),
                             L.Dense(3, "softmax")])

def mean_of_probabilities():
    inputs = keras.Input((6, 7, 1))
    x = L.Flatten()(L.Rescaling(1 / 255)(inputs))
    return keras.Model(inputs, L.Average()([L.Dense(1, "sigmoid")(x) for _ in range(3)]))

class OwnClass(keras.Model):
    "A class of its own, which Keras keeps no graph of."
    def __init__(self): super().__init__(); self.dense = L.Dense(1, "sigmoid")
    def call(self, x): return self.dense(L.Flatten()(x / 255))

def own_class():
    model = OwnClass()
    model(np.zeros((1, 6, 7, 1), np.float32))
    return model

def ends(*last): return keras.Sequential([linear()[0], *last])

ENDINGS = {"dense": lambda: linear(activation="sigmoid")[0], "own class": own_class,
           "activation": lambda: ends(L.Activation("sigmoid")),
           "function": lambda: ends(L.Lambda(ops.sigmoid)),
           "inside": lambda: keras.Sequential([keras.Input((6, 7, 1)), linear(activation="sigmoid")[0]]),
           "reshaped": lambda: ends(L.Activation("sigmoid"), L.Reshape((1,))),
           "mean": mean_of_probabilities}

@pytest.mark.parametrize("ending", ENDINGS)
def test_log_odds_of_every_ending(ending):
    model, some = ENDINGS[ending](), films((6, 7), 3)
    p = np.asarray(model(some[..., None]), float)[:, 0]
    odds, slopes = log_odds_gradients(model, some)
    np.testing.assert_allclose(odds, np.log(p / (1 - p)), rtol=1e-4, atol=1e-5)
    assert slopes.shape == some.shape and np.abs(slopes).max() > 1e-6

def test_log_odds_of_one_among_three():
    model, some = softmax_of_three(), films((6, 7), 3)
    p = np.asarray(model(some[..., None]), float)
    for output in range(3):
        odds, _ = log_odds_gradients(model, some, output=output)
        np.testing.assert_allclose(odds, np.log(p[:, output] / (1 - p[:, output])), rtol=1e-4, atol=1e-5)

def test_a_probability_of_one_still_has_log_odds():
    "Read before the sigmoid they are exact where the probability has no digits left."
    model, weights = linear(activation="sigmoid")
    model.layers[-1].bias.assign([40.])
    some = films((6, 7))
    odds, slopes = log_odds_gradients(model, some)
    np.testing.assert_allclose(odds, 40 + (some * weights).sum(axis=(1, 2)), rtol=1e-5)
    np.testing.assert_allclose(slopes, [weights] * 2, rtol=1e-5)

@pytest.mark.parametrize("name", STUDY)
def test_followed_step_by_step_a_network_says_the_same(networks, name):
    model = networks[name]
    some = films(model.input_shape[1:3], 3)
    p = np.asarray(model.predict_on_batch(some[..., None]), float)[:, 0]
    np.testing.assert_allclose(1 / (1 + np.exp(-log_odds_gradients(model, some)[0])), p, atol=2e-5)

@pytest.mark.parametrize("name", ["cnn", "ensemble", "branches"])
def test_derivatives_equal_differences(networks, name):
    model = networks[name]
    some = films(model.input_shape[1:3], 1)
    slopes = log_odds_gradients(model, some)[1][0]
    way = (slopes / np.abs(slopes).max()).astype(np.float32)
    after, before = (log_odds_gradients(model, some + step * way)[0][0] for step in (.05, -.05))
    np.testing.assert_allclose((after - before) / .1, (slopes * way).sum(), rtol=.02)

def test_rounding_in_a_smaller_network_hides_nothing():
    "Each network of the joint ensemble has its share of the derivative, also behind rounded gray levels."
    def one(side, seed):
        set_seed(seed)
        return as_model(pneumonia_logits([film_network(side, (4,), 3, "local")], False))
    parts = {"small": one(16, 1), "large": one(32, 2)}
    some, joint = films((32, 32), 1), joint_network(parts)
    large = log_odds_gradients(parts["large"], some)[1] / 2
    reduced = some.reshape(1, 16, 2, 16, 2).mean(axis=(2, 4))
    small = log_odds_gradients(parts["small"], np.floor(reduced + .5))[1] / 2
    expected = large + np.kron(small[0], np.ones((2, 2)))[None] / 4
    assert np.abs(small).max() > 1e-5
    np.testing.assert_allclose(log_odds_gradients(joint, some)[1], expected, atol=1e-6)

@pytest.mark.parametrize("method", ["gradcam", "integrated_gradients", "smoothgrad"])
def test_parts_that_are_black_all_over_have_finite_maps(networks, method):
    some = films((32, 32))
    some[0], some[1, :, :20] = 0, 0
    assert np.isfinite(explain(networks["ensemble"], some, method)).all()


# Answers that are known

BASELINES = {"black": np.zeros_like,
             "blurred": lambda films: np.stack([cv2.GaussianBlur(f, (0, 0), len(f) / 8) for f in films]),
             "mean": lambda films: np.zeros_like(films) + films.mean(axis=(1, 2), keepdims=True)}

@pytest.mark.parametrize("name, baseline", [*((name, "black") for name in STUDY), ("mlp", "mean"),
                                            ("ensemble", "blurred"), ("branches", "mean")])
def test_integrated_gradients_add_up_to_the_change_of_the_log_odds(networks, name, baseline):
    model = networks[name]
    some = films(model.input_shape[1:3], 2, seed=3)
    some[:, 4:, :8] /= 8    # a film of noise is much like its mean
    start = BASELINES[baseline](some)
    change = log_odds_gradients(model, some)[0] - log_odds_gradients(model, start)[0]
    summed = integrated_gradients(model, some, baseline).sum(axis=(1, 2))
    np.testing.assert_allclose(summed, change, rtol=.01, atol=1e-4)

def test_a_sum_that_does_not_fit_is_told(networks):
    with pytest.warns(UserWarning, match="raise most_steps"):
        integrated_gradients(networks["cnn"], films((32, 32)), steps=1, most_steps=1, tolerance=1e-6)

@pytest.mark.parametrize("size", [(9, 7), (12, 12)])
def test_one_pooled_feature_is_its_own_map(size):
    model = keras.Sequential([keras.Input((*size, 1)), L.Conv2D(1, 3, padding="same", activation="relu"),
                              L.GlobalAveragePooling2D(), L.Dense(1, "sigmoid")])
    model.layers[-1].set_weights([np.ones((1, 1)), np.zeros(1)])
    some = films(size, 3)
    feature = np.asarray(model.layers[0](some[..., None]))[..., 0]
    for method in (gradcam, hirescam): np.testing.assert_allclose(method(model, some), feature, rtol=1e-4)

def against(maps, expected):
    "Correlation film by film: 1 where maps are equal up to a scale."
    return min(np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(maps, expected))

OWN = {"occlusion": dict(patch_size=1, stride=1, fill=0.), "rise": dict(masks=4000, cells=7)}

@pytest.mark.parametrize("activation", [None, "sigmoid"])
@pytest.mark.parametrize("method", ["occlusion", "integrated_gradients", "smoothgrad", "rise"])
def test_a_linear_model_has_weights_times_input(method, activation):
    model, weights = linear((7, 7), activation)
    some = films((7, 7))
    made = explain(model, some, method, **OWN.get(method, {}))
    expected = weights * some
    assert against(made, expected) > (.97 if method == "rise" else .9 if method == "occlusion" else .99999)
    if not activation and method != "rise": np.testing.assert_allclose(made, expected, atol=1e-4)

def test_a_linear_model_of_feature_maps_has_weights_times_input_above_zero():
    "With a convolution that changes nothing, HiResCAM sees the film itself, and Grad-CAM its mean weight."
    _, weights = linear((9, 8))
    model = keras.Sequential([keras.Input((9, 8, 1)), L.Conv2D(1, 1, use_bias=False), L.Flatten(),
                              L.Dense(1, "sigmoid", use_bias=False)])
    model.set_weights([np.ones((1, 1, 1, 1)), weights.reshape(-1, 1)])
    some = films((9, 8))
    np.testing.assert_allclose(hirescam(model, some), np.maximum(weights * some, 0) * 72, rtol=1e-4)
    np.testing.assert_allclose(gradcam(model, some), np.maximum(weights.sum() * some, 0), rtol=1e-3)

@pytest.mark.parametrize("masks", [300, 3000])
def test_rise_misses_a_linear_answer_by_what_its_variance_says(masks):
    model, weights = linear((7, 7))
    some = films((7, 7), 1)
    made = np.concatenate([rise(model, some, masks, cells=7, seed=seed) for seed in range(6)])
    shares = weights * some
    expected = ((shares ** 2).sum() - shares ** 2) / masks   # of the other pixels, which come and go
    ratio = ((made - shares) ** 2).mean(axis=0) / expected[0]
    assert .8 < ratio.mean() < 1.25    # 6 × 49 squares that scatter by √2 of their mean
    assert np.abs((made - shares).mean(axis=0)).max() < 6 * np.sqrt(expected.max() / 6)

@pytest.mark.parametrize("fill", [0., 100.])
def test_rise_uncovers_from_the_gray_that_covers(fill):
    model, weights = linear((7, 7))
    some = films((7, 7))
    made = rise(model, some, 4000, cells=7, fill=fill)
    assert against(made, weights * (some - fill)) > .97


# The last feature map, wherever it is

def last_map(model, some):
    "Grad-CAM by hand, of a chain of layers: features and derivatives of their pooled mean."
    last = max(n for n, layer in enumerate(model.layers) if len(layer.output.shape) == 4)
    inner = keras.Model(model.inputs, model.layers[last].output)
    kernel = model.layers[-1].get_weights()[0][:, 0]
    return np.maximum((np.asarray(inner(some[..., None])) * kernel).sum(axis=-1), 0)

def test_the_last_feature_map_is_found():
    model, some = convolutional((13, 13)), films((13, 13))
    found, expected = gradcam(model, some), last_map(model, some)
    np.testing.assert_allclose(found, ops.image.resize(expected[..., None], (13, 13))[..., 0], rtol=1e-4)
    name = model.layers[-3].name
    np.testing.assert_array_equal(gradcam(model, some, layer=name), found)

def test_a_pooled_gate_is_not_the_end():
    model, some = squeezing(), films((16, 16))
    np.testing.assert_array_equal(gradcam(model, some), gradcam(model, some, layer="last"))
    assert np.abs(gradcam(model, some) - gradcam(model, some, layer="before")).max() > 1e-3

def test_a_residual_network_inside_a_model_is_followed():
    model, some = build_resnet(32, "none"), films((32, 32))
    odds = _log_odds(_follow(model, some[..., None]), 0)   # not compiled, which takes longest
    np.testing.assert_allclose(1 / (1 + np.exp(-odds)), np.asarray(model(some[..., None]))[:, 0], atol=2e-5)
    found = _follow(model, some[..., None], "conv3_block4_out")
    assert [m.value.shape for m in found.maps] == [(2, 4, 4, 512)]

def test_branches_add_their_maps(networks):
    model, some = networks["branches"], films((17, 17))
    names = [layer.name for layer in model._flatten_layers() if isinstance(layer, L.Conv2D)]
    apart = [gradcam(model, some, layer=name) for name in names]
    np.testing.assert_allclose(gradcam(model, some), sum(apart), rtol=1e-4, atol=1e-6)

@pytest.fixture(scope="module")
def parts():
    "An ensemble of two networks and its parts, which see the film and its mirror image."
    set_seed(5)
    networks = [film_network(16, (4,), 3, "local") for _ in range(2)]
    return [as_model(pneumonia_logits(some, True)) for some in (networks, networks[:1], networks[1:])]

@pytest.mark.parametrize("method", ["gradcam", "integrated_gradients", "smoothgrad"])
def test_an_ensemble_has_the_mean_of_its_networks_maps(parts, method):
    whole, *alone = (explain(part, films((16, 16)), method, **settings(method)) for part in parts)
    if method == "integrated_gradients":    # each to its own tolerance
        assert against(whole, np.mean(alone, axis=0)) > .98
    else: np.testing.assert_allclose(whole, np.mean(alone, axis=0), atol=2e-3 * np.abs(whole).max())

def test_a_network_that_mirrors_has_the_mirrored_map_of_a_mirrored_film(parts):
    some = films((16, 16))
    one, other = gradcam(parts[1], some), gradcam(parts[1], some[:, :, ::-1])
    np.testing.assert_allclose(one, other[:, :, ::-1], atol=1e-4 * one.max())

@pytest.mark.parametrize("make, layer, says", [
    (lambda: build_mlp(32), None, "no feature map in it"), (lambda: build_mlp(32), "gone", "none of them"),
    (own_class, None, "no feature map in it"), (two_branches, "top", "found 'top', which has none")])
@pytest.mark.parametrize("method", ["gradcam", "hirescam"])
def test_networks_without_a_feature_map_are_refused_in_a_sentence(make, layer, says, method):
    model = make()
    shape = (6, 7) if isinstance(model, OwnClass) else model.input_shape[1:3]
    with pytest.raises(StudyError, match=says): explain(model, films(shape), method, layer=layer)


# Every method on every make

def settings(method):
    few = {"rise": dict(masks=40), "occlusion": dict(patch_size=6, stride=4), "smoothgrad": dict(samples=4)}
    return few.get(method, {})

@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("method", METHODS)
def test_half_precision_tells_the_same(networks, method, dtype):
    some = films((21, 18), 1)
    full, half = networks["simple"], networks[dtype]
    with_own = settings(method) | (dict(tolerance=.1) if method == "integrated_gradients" else {})
    made, expected = (explain(model, some, method, **with_own) for model in (half, full))
    assert made.dtype == np.float32 and np.isfinite(made).all()
    assert against(made, expected) > (.6 if METHODS[method].unit.startswith(("drop", "rise")) else .95)

@pytest.mark.parametrize("dtype", [np.float16, np.uint8, np.float64])
def test_films_of_any_type_have_the_same_map(networks, dtype):
    some, model = np.round(films((21, 18))), networks["simple"]
    for method in METHODS:
        np.testing.assert_allclose(explain(model, some.astype(dtype), method, **settings(method)),
                                   explain(model, some, method, **settings(method)), rtol=1e-5)

@pytest.mark.parametrize("method", METHODS)
def test_same_seed_same_bytes(networks, method):
    some = films((21, 18))
    model, own = convolutional(), settings(method)
    made, again = (explain(network, some, method, **own) for network in (networks["simple"], model))
    assert made.tobytes() == again.tobytes()
    if "seed" in METHODS[method].defaults:
        other = explain(model, some, method, seed=7, **own)
        assert np.abs(other - made).max() > 0

@pytest.mark.parametrize("method", METHODS)
def test_batches_make_no_difference(networks, method):
    some, model = films((21, 18), 5), networks["simple"]
    whole = explain(model, some, method, **settings(method))
    alone = np.concatenate([explain(model, film[None], method, **settings(method)) for film in some])
    np.testing.assert_allclose(alone, whole, atol=1e-4 * np.abs(whole).max())
    if "batch_size" not in METHODS[method].defaults: return
    np.testing.assert_allclose(explain(model, some, method, batch_size=3, **settings(method)), whole,
                               atol=1e-4 * np.abs(whole).max())

def test_a_model_is_compiled_once_and_follows_its_weights():
    model = convolutional()
    def made(count): return [explain(model, films((21, 18), count), m) for m in ("gradcam", "smoothgrad")]
    first = made(1)
    made(2), made(5)
    compiled = model.__dict__["_pneumo_gradients"].values()
    assert [function.experimental_get_tracing_count() for function in compiled] == [1, 1]
    with temperature_scaled(model, 2.): halved = made(1)
    for before, after in zip(first, halved): np.testing.assert_allclose(after, before / 2, rtol=1e-4)

def test_a_model_that_was_explained_can_be_saved_and_loaded(tmp_path):
    model, some = convolutional(), films((21, 18))
    expected = gradcam(model, some)
    model.save(tmp_path/"model.keras")
    loaded = keras.saving.load_model(tmp_path/"model.keras")
    np.testing.assert_allclose(gradcam(loaded, some), expected, rtol=1e-5)


# Controls, and what is refused

def test_controls_do_not_look_at_the_network():
    some, (one, other) = films((21, 18)), (convolutional(), convolutional(end=[L.Flatten]))
    controls = [name for name, method in METHODS.items() if method.is_control]
    assert controls == ["random_map", "edge_map"]
    for control in controls:
        np.testing.assert_array_equal(explain(one, some, control), explain(other, some, control))

def test_a_random_map_is_another_for_each_film_and_points_anywhere():
    model, some = convolutional((16, 16)), films((16, 16), 300)
    drawn = random_map(model, some)
    tops = drawn.reshape(300, -1).argmax(axis=1)
    rows, columns = np.divmod(tops, 16)
    for middle in (rows.mean(), columns.mean()): assert 6 < middle < 9    # 7.5 expected, ± .27
    assert len(set(tops.tolist())) > 50

def test_an_edge_map_is_zero_where_nothing_changes():
    some = np.full((1, 21, 18), 60, np.float32)
    some[:, :, 9:] = 180
    drawn = edge_map(convolutional(), some)[0]
    assert drawn.min() == 0 and np.allclose(drawn[:, :4], 0) and set(drawn.argmax(axis=1)) <= {8, 9}

@pytest.mark.parametrize("method, own, says", [
    ("integrated_gradients", dict(baseline="white"), '"black", "blurred" or "mean", found \'white\''),
    ("integrated_gradients", dict(steps=0), "steps from 1 to most_steps, found 0"),
    ("smoothgrad", dict(samples=0), "1 sample or more"), ("smoothgrad", dict(noise=-1.), "found 32 and -1.0"),
    ("rise", dict(masks=1), "masks of 2 or more, found 1"), ("rise", dict(keep=1.), "below 1, found 1.0"),
    ("rise", dict(fill=300.), "a fill from 0 to 255"), ("gradcam", dict(batch_size=0), "found 0"),
    ("random_map", dict(cells=0), "cells of 1 or more"), ("edge_map", dict(smooth=0.), "above 0, found 0.0"),
    ("gaze", {}, "a method of occlusion, gradcam, .*, found 'gaze'"),
    ("gradcam", dict(steps=3), "settings of layer, batch_size, output, found steps")])
def test_settings_are_refused_in_one_sentence(networks, method, own, says):
    with pytest.raises(StudyError, match=says) as refused:
        explain(networks["simple"], films((21, 18)), method, **own)
    assert str(refused.value).startswith("Expected ") and "\n" not in str(refused.value)

def test_weights_that_are_no_numbers_are_refused():
    model = convolutional()
    model.layers[-1].bias.assign([np.nan])
    for method in ("gradcam", "integrated_gradients", "smoothgrad", "rise"):
        with pytest.raises(StudyError, match="finite answers"): explain(model, films((21, 18)), method)
