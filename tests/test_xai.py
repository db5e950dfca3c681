"""Occlusion against a plain double loop and known answers, one contract for all methods, and the chapter."""
from pathlib import Path

import keras
import nbformat
import numpy as np
import pandas as pd
import pytest

from pneumo_nb.cnn import build_cnn
from pneumo_nb.explanation import METHODS, Method, explain, with_random_weights
from pneumo_nb.mlp import build_mlp
from pneumo_nb.networks import as_model, film_network, pneumonia_logits
from pneumo_nb.occlusion import occlusion_map, patch_positions, split_chain
from pneumo_nb.preprocessing import load_films
from pneumo_nb.resnet import build_resnet
from pneumo_nb.run import StudyError, open_stage, read_provenance, set_seed, write_csv, write_json

L, conv, pool = keras.layers, keras.layers.Conv2D, keras.layers.MaxPooling2D


# The map by the obvious way

def plain_loop(model, image, patch, stride, fill):
    "Cover, predict, add up, divide: every covered film whole."
    h, w = image.shape
    rows, columns = ([*range(0, n - patch, stride), n - patch] for n in (h, w))
    corners = [(r, c) for r in rows for c in columns]
    films = np.repeat(image[None, ..., None], 1 + len(corners), axis=0)
    for film, (r, c) in zip(films[1:], corners): film[r:r + patch, c:c + patch] = fill
    base, *covered = np.asarray(model(films))[:, 0]
    total, times = np.zeros((h, w)), np.zeros((h, w))
    for probability, (r, c) in zip(covered, corners):
        total[r:r + patch, c:c + patch] += float(base) - float(probability)
        times[r:r + patch, c:c + patch] += 1
    assert times.min() >= 1
    return total / times

def random_films(shape, count=1, seed=4):
    return np.random.default_rng(seed).uniform(0, 255, (count, *shape)).astype(np.float32)

def check_against_loop(model, patch, stride, fill=127.5, films=1, windowed=True):
    "Equal maps, which are not all zero, from the way that is meant to be taken."
    assert bool(split_chain(model)[0]) == windowed
    images = random_films(model.input_shape[1:3], films)
    maps = occlusion_map(model, images, patch, stride, fill, batch_size=7)
    assert len(maps) == films and all(np.abs(m).max() > 1e-4 for m in maps)
    for image, change in zip(images, maps):
        expected = plain_loop(model, image, patch, stride, fill)
        np.testing.assert_allclose(change, expected, rtol=0, atol=2e-6)

@pytest.fixture(scope="module")
def model():
    set_seed(0)
    return keras.Sequential([keras.Input((23, 31, 1)), L.Rescaling(1 / 255), conv(4, 3, activation="relu"),
                             L.Flatten(), L.Dense(1, "sigmoid")])

@pytest.mark.parametrize("patch, stride, fill", [(5, 3, 127.5), (4, 4, 0.), (7, 2, 255.), (23, 1, 127.5),
                                                 (1, 1, 127.5)])
def test_equals_a_plain_double_loop(model, patch, stride, fill):
    images = random_films((23, 31), 2, seed=1)
    maps = occlusion_map(model, images, patch, stride, fill, batch_size=13)
    for image, change in zip(images, maps):
        np.testing.assert_allclose(change, plain_loop(model, image, patch, stride, fill), atol=2e-6)


# Networks of every make

def as_if_trained(model, seed=3):
    "The model with biases and running statistics that are not zero and one."
    rng = np.random.default_rng(seed)
    for w in model.weights:
        if "kernel" not in w.path: w.assign(rng.uniform(.5, 1.5, w.shape))
    return model

def sequential(shape, *layers):
    set_seed(5)
    return as_if_trained(keras.Sequential([keras.Input((*shape, 1)), L.Rescaling(1 / 255), *layers]))

SMALL = {
    "same, odd sizes, pooling drops a row": ((37, 45), lambda: [
        conv(4, 3, padding="same", activation="relu"), pool(2), L.BatchNormalization(),
        conv(6, 3, padding="same", activation="relu"), pool(2), L.BatchNormalization(), L.Flatten()]),
    "valid, and windows that shrink": ((19, 24), lambda: [
        conv(3, 5, activation="relu"), pool((3, 2)), conv(3, (3, 2)), L.ReLU(), L.Flatten()]),
    "strides, and strides beyond the kernel": ((30, 26), lambda: [
        conv(4, 4, strides=2, padding="same"), L.Activation("tanh"), pool(1, strides=3), L.Flatten()]),
    "same pooling with negative values": ((21, 23), lambda: [
        conv(4, 3, padding="same"), L.Dropout(.5), pool(3, strides=2, padding="same"), L.Flatten()]),
    "dilation": ((20, 20), lambda: [
        conv(3, 3, dilation_rate=2, padding="same", use_bias=False), conv(3, 3, dilation_rate=(1, 3)),
        L.Flatten()]),
    "no flatten": ((20, 23), lambda: [conv(4, 3, padding="same"), pool(2), L.GlobalAveragePooling2D()]),
    "a layer that windows do not know": ((20, 23), lambda: [
        conv(4, 3), L.LayerNormalization(), L.AveragePooling2D(2), L.Flatten(), L.Dropout(.3)]),
    "nothing but a flatten": ((15, 12), lambda: [L.Flatten(), L.Dense(6, "relu"), L.Dropout(.5)])}

@pytest.mark.parametrize("name", SMALL)
def test_windows_equal_the_loop(name):
    shape, layers = SMALL[name]
    network = sequential(shape, *layers(), L.Dense(1, "sigmoid"))
    for patch, stride in ((6, 5), (3, 3), (11, 9)): check_against_loop(network, patch, stride)

def build_small_ensemble(size):
    networks = [film_network(size, (4, 8), 3, "local") for _ in range(2)]
    return as_model(pneumonia_logits(networks, flip=True))

@pytest.mark.parametrize("build, windowed", [(lambda: as_if_trained(build_mlp(48)), True),
                                             (lambda: as_if_trained(build_cnn(48)), True),
                                             (lambda: build_resnet(32, "none"), False),
                                             (lambda: build_small_ensemble(32), False)])
def test_models_of_the_study_equal_the_loop(build, windowed):
    set_seed(6)
    check_against_loop(build(), 16, 16, windowed=windowed)

@pytest.mark.parametrize("seed", range(12))
def test_random_networks_equal_the_loop(seed):
    rng = np.random.default_rng(seed)
    def draw():
        kind = rng.choice(["conv", "pool", "norm"], p=[.5, .3, .2])
        padding = str(rng.choice(["same", "valid"]))
        if kind == "norm": return L.BatchNormalization()
        size, strides = [int(n) for n in rng.integers(1, 4, 2)], int(rng.integers(1, 3))
        if kind == "pool": return pool(size, strides, padding)
        return conv(4, size, strides, padding, activation=str(rng.choice(["tanh", "linear"])))
    first = conv(4, 3, padding="same", activation="tanh")
    layers = [first, *(draw() for _ in range(3)), L.Flatten(), L.Dense(1)]   # no sigmoid either
    network = sequential(rng.integers(24, 40, 2), *layers)
    network.layers[-1].kernel.assign(network.layers[-1].kernel * .2)
    patch = int(rng.integers(2, 20))
    stride = int(rng.integers(max(1, patch // 2), patch + 1))
    check_against_loop(network, patch, stride, fill=float(rng.uniform(0, 255)))


# What windows cannot do

def own_class():
    class Squared(keras.Model):
        def call(self, x, training=None): return super().call(x, training=training) ** 2
    inputs = keras.Input((12, 14, 1))
    return Squared(inputs, L.Dense(1, "sigmoid")(L.Flatten()(L.Rescaling(1 / 255)(inputs))))

def skipping():
    inputs = keras.Input((12, 14, 1))
    x = conv(3, 3, padding="same", activation="relu")(L.Rescaling(1 / 255)(inputs))
    x = L.Add()([x, conv(3, 3, padding="same")(x)])
    return keras.Model(inputs, L.Dense(1, "sigmoid")(L.Flatten()(x)))

def whole_numbers():
    inputs = keras.Input((12, 14, 1), dtype="uint8")
    return keras.Model(inputs, L.Dense(1)(L.Flatten()(L.Rescaling(1 / 255)(inputs))))

def per_image():
    centred = conv(3, 3, activation=lambda x: x - keras.ops.mean(x, (1, 2), keepdims=True))
    return sequential((12, 14), centred, L.Flatten(), L.Dense(1, "sigmoid"))

@pytest.mark.parametrize("make", [own_class, skipping, whole_numbers, per_image])
def test_what_windows_cannot_do_is_done_whole(make):
    set_seed(7)
    check_against_loop(make(), 4, 3, fill=100, windowed=False)

@pytest.mark.parametrize("layer, settings", [
    (lambda: conv(2, 3, dtype="mixed_bfloat16"), {}), (lambda: L.Dropout(.5), dict(training=True)),
    (lambda: L.BatchNormalization(axis=1), {}), (lambda: conv(2, 1, data_format="channels_first"), {}),
    (lambda: L.Softmax(axis=1), {})])
def test_windows_end_before_what_is_not_local(layer, settings):
    inputs = keras.Input((12, 14, 1))
    x = L.Flatten()(layer()(inputs, **settings))
    assert split_chain(keras.Model(inputs, L.Dense(1)(x))) == ([], [])


# Known answers

def test_linear_model_has_a_known_answer():
    weights = np.random.default_rng(2).integers(-64, 64, (10, 10)) / 64   # so that sums are exact
    linear = keras.Sequential([keras.Input((10, 10, 1)), L.Flatten(), L.Dense(1, use_bias=False)])
    linear.set_weights([weights.reshape(-1, 1)])
    image = np.full((1, 10, 10), 101, np.uint8)
    maps = occlusion_map(linear, image, patch_size=1, stride=1, fill=100.)
    np.testing.assert_array_equal(maps[0], weights)   # covering a pixel takes one gray value off

@pytest.mark.parametrize("size, patch, stride", [(224, 20, 10), (10, 3, 3), (11, 3, 3), (50, 7, 5),
                                                 (8, 8, 1)])
def test_every_pixel_is_covered(size, patch, stride):
    starts = patch_positions(size, patch, stride)
    assert sorted({p for s in starts for p in range(s, s + patch)}) == list(range(size))

@pytest.mark.parametrize("wrong, says", [(dict(stride=21), "leaves pixels uncovered"),
                                         (dict(patch_size=40), "1 to the film's 23 pixels"),
                                         (dict(patch_size=0), "found 0"), (dict(fill=300), "found 300")])
def test_bad_settings_are_refused(model, wrong, says):
    with pytest.raises(StudyError, match=says): occlusion_map(model, np.zeros((1, 23, 31)), **wrong)


# One contract for all methods

@pytest.mark.parametrize("method", METHODS)
def test_contract_of_every_method(model, method):
    films = random_films((23, 31), 3, seed=8)
    before = films.copy()
    maps = explain(model, films, method)
    assert maps.shape == films.shape and maps.dtype == np.float32
    assert np.isfinite(maps).all() and all(np.abs(change).max() > 0 for change in maps)
    np.testing.assert_array_equal(films, before)
    np.testing.assert_array_equal(METHODS[method].function(model, films), maps)
    np.testing.assert_array_equal(explain(model, films[..., None], method), maps)
    one_by_one = np.concatenate([explain(model, film[None], method) for film in films])
    np.testing.assert_allclose(one_by_one, maps, rtol=0, atol=1e-6 * max(1, np.abs(maps).max()))
    assert explain(model, films[:0], method).shape == (0, 23, 31)
    for outside in (films - 250, films + 250):
        for function in (METHODS[method].function, lambda m, x: explain(m, x, method)):
            with pytest.raises(StudyError, match="gray values from 0 to 255"): function(model, outside)
    with pytest.raises(StudyError, match="found surprise"): explain(model, films, method, surprise=1)

def dense(*shape, outputs=1, first=(), **own):
    "A small network of one dense layer."
    return keras.Sequential([keras.Input(shape, **own), *first, L.Flatten(), L.Dense(outputs, "sigmoid")])

def two_headed():
    inputs = keras.Input((12, 14, 1))
    return keras.Model(inputs, [L.Dense(1)(L.Flatten()(inputs)) for _ in range(2)])

def two_armed():
    inputs = [keras.Input((12, 14, 1)) for _ in range(2)]
    return keras.Model(inputs, L.Dense(1)(L.Flatten()(L.Add()(inputs))))

class OfNoShape(keras.Model):
    "A subclassed model, which tells no shape before it is called."
    def __init__(self, outputs=1): super().__init__(); self.dense = L.Dense(outputs, "sigmoid")
    def call(self, x): return self.dense(L.Flatten()(x / 255))

def called(model):
    model(np.zeros((1, 12, 14, 1), np.float32))
    return model

@pytest.mark.parametrize("make, says", [
    (lambda: dense(12, 14, 1, outputs=2), "output=0 to 1, which of the model's 2 outputs to explain; found"),
    (lambda: called(OfNoShape(3)), "output=0 to 2, which of the model's 3 outputs"),
    (lambda: dense(24, 28, 1), "films of 24 × 28 pixels, as the model takes, found 12 × 14"),
    (lambda: dense(12, 14, 3), "gray films .*, found one that takes .None, 12, 14, 3."),
    (lambda: dense(168), "gray films .*, found one that takes .None, 168."),
    (lambda: dense(12, 14, 1, batch_size=4), "any number of films, found one that takes 4 at a time"),
    (lambda: keras.Sequential([L.Flatten(), L.Dense(1)]), "found one that is not built"),
    (OfNoShape, "found one that is not built"),
    (two_headed, "one input and one output, found 1 and 2"), (two_armed, "found 2 and 1"),
    (lambda: keras.Sequential([keras.Input((12, 14, 1)), conv(1, 3)]), "gives .N, outputs., found")])
@pytest.mark.parametrize("method", METHODS)
def test_models_that_cannot_be_explained_are_refused_in_a_sentence(make, says, method):
    made, films = make(), random_films((12, 14))
    for function in (METHODS[method].function, lambda m, x: explain(m, x, method)):
        with pytest.raises(StudyError, match=says): function(made, films)

@pytest.mark.parametrize("alter, says", [
    (lambda films: films / 255, "gray values 0-255, found 0-1 in film 0"),
    (lambda films: np.stack([films[0], films[1] / 255]), "found 0-1 in film 1"),
    (lambda films: np.round(films / 255).astype(np.uint8), "found 0-1"),
    (lambda films: films[:, :20], "films of 23 × 31 pixels, as the model takes, found 20 × 31"),
    (lambda films: np.swapaxes(films, 1, 2), "found 31 × 23"),
    (lambda films: np.repeat(films[..., None], 3, -1), r"\(N, H, W, 1\), found \(2, 23, 31, 3\)"),
    (lambda films: films[0], r"\(N, H, W, 1\), found \(23, 31\)")])
@pytest.mark.parametrize("method", METHODS)
def test_films_that_the_model_does_not_take_are_refused_in_a_sentence(model, alter, says, method):
    films = alter(random_films((23, 31), 2))
    for function in (METHODS[method].function, lambda m, x: explain(m, x, method)):
        with pytest.raises(StudyError, match=says): function(model, films)

def test_black_films_are_explained(model):
    assert occlusion_map(model, np.zeros((2, 23, 31), np.uint8)).shape == (2, 23, 31)

def two_classes():
    set_seed(2)   # by chance both filters may be shut everywhere, and every map is empty then
    first = [conv(2, 3, activation="relu"), L.Rescaling(1 / 255)]
    return keras.Sequential([keras.Input((12, 14, 1)), *first, L.Flatten(), L.Dense(2, "softmax")])

SIZES = {"occlusion": dict(patch_size=4, stride=2), "rise": dict(masks=50)}

@pytest.mark.parametrize("method", ["occlusion", "integrated_gradients", "smoothgrad", "rise"])
def test_each_output_has_a_map_of_its_own(method):
    "Two outputs that add up to one have opposite maps."
    made, films, size = two_classes(), random_films((12, 14)), SIZES.get(method, {})
    normal, sick = (explain(made, films, method, output=output, **size) for output in (0, 1))
    assert np.abs(sick).max() > 1e-4 and np.allclose(normal, -sick, atol=1e-6 * max(1, np.abs(sick).max()))

@pytest.mark.parametrize("method", ["gradcam", "hirescam"])
def test_methods_that_keep_what_is_above_zero_split_a_film_between_two_outputs(method):
    normal, sick = (explain(two_classes(), random_films((12, 14)), method, output=n) for n in (0, 1))
    assert min(normal.max(), sick.max()) >= 0 and max(normal.max(), sick.max()) > 1e-4

@pytest.mark.parametrize("output", [2, -1])
@pytest.mark.parametrize("method", METHODS)
def test_outputs_that_there_are_not_are_refused(method, output):
    with pytest.raises(StudyError, match=f"from 0 to 1, as the model has 2, found {output}"):
        explain(two_classes(), random_films((12, 14)), method, output=output, **SIZES.get(method, {}))

def test_models_of_other_makes_equal_the_loop():
    "One that is rescaled by pixel, one of any size, and a subclassed one."
    per_pixel = np.random.default_rng(1).uniform(.5, 1.5, (12, 14, 1)) / 255
    check_against_loop(dense(12, 14, 1, first=[L.Rescaling(per_pixel), conv(2, 3)]), 4, 3, windowed=False)
    any_size = [conv(2, 3, activation="relu"), L.GlobalAveragePooling2D(), L.Dense(1)]
    for network in (keras.Sequential([keras.Input((None, None, 1)), L.Rescaling(1 / 255), *any_size]),
                    called(OfNoShape())):
        film = random_films((12, 14))
        made = occlusion_map(network, film, 4, 3)
        np.testing.assert_allclose(made[0], plain_loop(network, film[0], 4, 3, 127.5), rtol=0, atol=2e-6)

def test_answers_that_are_no_numbers_are_refused():
    broken = dense(12, 14, 1)
    broken.layers[-1].bias.assign([np.nan])
    with pytest.raises(StudyError, match="finite answers"):
        occlusion_map(broken, random_films((12, 14)), 4, 3)


@pytest.mark.parametrize("build", [lambda: build_mlp(32), lambda: build_small_ensemble(32)])
def test_random_weights_are_new_and_seeded_and_leave_the_model_alone(build):
    made, film = build(), random_films((32, 32))[..., None]
    before = [w.copy() for w in made.get_weights()]
    first, again, other = (with_random_weights(made, seed).get_weights() for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(before, made.get_weights()))
    assert all(np.array_equal(a, b) for a, b in zip(first, again))
    largest = np.argmax([w.size for w in before])
    assert (first[largest] != before[largest]).any() and (first[largest] != other[largest]).any()
    assert np.isfinite(with_random_weights(made, 1).predict(film, verbose=0)).all()

# The chapter

NOTEBOOK = Path(__file__).parents[1]/"nbs/41_xai.ipynb"

def run_chapter(**parameters):
    "Execute the chapter's cells in this process."
    space = {"__name__": "__main__"}
    for cell in nbformat.read(NOTEBOOK, 4).cells:
        if cell.cell_type != "code": continue
        exec(compile(cell.source, str(NOTEBOOK), "exec"), space)
        if "parameters" in cell.metadata.get("tags", []): space |= parameters
    return space

def keep_tiny_model(stage, name, size):
    "A random network of this size, with predictions of which half are above .5."
    set_seed(size)
    inputs = keras.Input((size, size, 1))
    x = L.Flatten()(conv(2, 5, strides=4, activation="relu")(L.Rescaling(1 / 255)(inputs)))
    network = keras.Model(inputs, L.Dense(1, "sigmoid")(x))
    films = load_films(stage, size)
    table = films.images[["path", "split", "label"]].assign(uncalibrated=.5)
    odds = network.predict(films.pixels[..., None], verbose=0)[:, 0]
    network.layers[-1].bias.assign_sub([np.median(np.log(odds / (1 - odds)))])
    table["probability"] = network.predict(films.pixels[..., None], verbose=0)[:, 0]
    write_csv(stage.path(f"predictions/{name}.csv"), table[table.split != "train"])
    stage.path("models").mkdir(exist_ok=True)
    network.save(stage.path(f"models/{name}.keras"))

@pytest.fixture
def run(tmp_path):
    "A run of two models that take films of different sizes; the second is the better one."
    stage = open_stage("xai", tmp_path/"run")
    for name, size in (("mlp", 32), ("cnn", 48)): keep_tiny_model(stage, name, size)
    comparison = [dict(model="mlp", roc_auc=.6), dict(model="cnn", roc_auc=.7)]
    write_json(stage.path("metrics/evaluation.json"), dict(threshold=.5, best="cnn", comparison=comparison))
    return stage.folder

def test_chapter_explains_by_every_method_that_there_is(run, monkeypatch):
    "A method is one entry in the table: pictures, check and measures follow."
    def brightness(model, images, scale: float = 1 / 255): return (images * scale).astype(np.float32)
    added = Method("brightness", brightness, "brightness map", "gray", "the film is bright")
    monkeypatch.setitem(METHODS, "brightness", added)
    mute = Method("mute", lambda model, images: images * 0., "mute map", "nothing", "never")
    monkeypatch.setitem(METHODS, "mute", mute)
    validation = pd.read_csv(run/"predictions/cnn.csv").query("split == 'validation'").path.iloc[0]
    space = run_chapter(run_dir=str(run), paths=[validation], mistakes_shown=1, measured_films=3,
                        methods=["occlusion", "gradcam", "brightness", "mute"], rise_masks=40)
    assert space["ranking"] == ["cnn", "mlp"]
    asked = ["occlusion", "gradcam", "random_map", "edge_map", "brightness", "mute"]
    assert space["asked"] == asked and {m: drawn.shape for m, drawn in space["maps"].items()} == {
        method: (2, 48, 48) for method in asked}
    figures = {file.stem for file in (run/"figures").glob("*.png")}
    assert figures == {f"xai_{name}" for name in ("first", "sure", "film_1", "cnn", "mlp", "mistakes_cnn",
                                                  "mistakes_mlp", "beside", "sanity")}
    assert list(pd.read_csv(run/"metrics/xai.csv")) == ["film", "true", "MLP", "CNN"]
    check_tables(run, asked)
    notes = read_provenance(run)["stages"]["xai"]["notes"]
    assert any(validation in note and "may have been learned from" in note for note in notes)
    warned = space["_warning"](space["verdicts"], asked)
    assert "brightness maps" in warned and "random map" not in warned
    assert "do not show what it looks" in warned
    assert "brightness maps (hardly change" in space["use"]

def check_tables(run, asked):
    "The tables of a run on phantoms, whose truth is known."
    pointing = pd.read_csv(run/"metrics/xai_pointing.csv")
    assert list(pointing) == ["model", "films", "hits", "blind", "method", "low", "high", "random"]
    assert list(pointing.method) == ["gradcam"] * 2 and not pointing.isna().any(axis=None)
    for game in pointing.itertuples():
        table = pd.read_csv(run/f"predictions/{game.model}.csv").query("split == 'test' and label == 1")
        assert game.films == (table.probability >= .5).sum()    # all of them
        assert game.low <= game.hits <= game.high and 0 <= game.random <= 1
    for name in ("faithfulness", "places", "regions"):
        assert list(pd.read_csv(run/f"metrics/xai_{name}.csv").method.unique()) == asked
    verdicts = pd.read_csv(run/"metrics/xai_sanity.csv").set_index("method").verdict
    assert set(verdicts[["random_map", "edge_map", "brightness"]]) == {"hardly changes"}

def test_methods_that_there_are_not_are_refused(run):
    with pytest.raises(StudyError, match="Expected methods of occlusion, gradcam, .*, found gaze"):
        run_chapter(run_dir=str(run), methods=["gaze"])
