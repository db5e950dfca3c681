"""What a training may take over from an interrupted one, and ways that save time against plain ones."""
import shutil

import keras
import numpy as np
import pandas as pd
import pytest

from pneumo_nb.run import finish, open_stage, set_seed, stale_reason
from pneumo_nb.phantom import make_dataset
from pneumo_nb.measures import scaled_probability
from pneumo_nb.views import AUGMENTATION
from pneumo_nb.batches import film_source
from pneumo_nb.networks import fast_twin, first_dense, fold_channels, unfold_channels, with_weights_of
from pneumo_nb.training import compile_model, keep_model, predict_films, train_kept, train_model
from pneumo_nb.preprocessing import load_films
from pneumo_nb.cnn import build_cnn
from pneumo_nb.mlp import build_mlp
from pneumo_nb.resnet import build_resnet, split_model, trunk_features, unfreeze_blocks

SHORT = dict(epochs=2, batch_size=16, seed=1)

@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    "A run with films; every test has a copy of its own."
    folder = tmp_path_factory.mktemp("drawn")
    load_films(open_stage("cnn", folder, seed=1, image_size=32), 32)
    return folder

@pytest.fixture
def stage(tmp_path, drawn):
    shutil.copytree(drawn, tmp_path, dirs_exist_ok=True)
    return open_stage("cnn", tmp_path, seed=1, image_size=32)

def toy():
    set_seed(1)
    model = keras.Sequential([
        keras.Input((32, 32, 1)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten(),
        keras.layers.Dense(8, "relu"), keras.layers.Dropout(.5), keras.layers.Dense(1, "sigmoid")])
    compile_model(model, 1e-3)
    return model

def two_steps(stage, source):
    "Train, then train on under another name, as ResNet50 is fine-tuned."
    model = toy()
    train_model(stage, "first", model, source, **SHORT)
    compile_model(model, 1e-4)
    train_model(stage, "second", model, source, **SHORT)
    return model.get_weights()

def test_a_second_step_is_the_same_whether_the_first_was_just_trained_or_taken_over(stage, capsys):
    source = film_source(load_films(stage, 32), 1, AUGMENTATION)
    unbroken = two_steps(stage, source)
    shutil.rmtree(stage.scratch/"second")  # as if killed before the second step's first epoch was saved
    for a, b in zip(unbroken, two_steps(stage, source), strict=True): np.testing.assert_array_equal(a, b)
    assert "first: continues after epoch 2" in capsys.readouterr().out

def test_other_augmentation_starts_anew(stage, capsys):
    films = load_films(stage, 32)
    for ranges in (AUGMENTATION, AUGMENTATION | dict(rotation=0.)):
        train_model(stage, "toy", toy(), film_source(films, 1, ranges), **SHORT)
    assert "continues" not in capsys.readouterr().out

def test_the_last_weights_are_kept_where_validation_shall_decide_nothing(stage):
    "Validation is asked in the last epoch and every fifth before it."
    source, model = film_source(load_films(stage, 32), 1, AUGMENTATION), toy()
    bare, history = train_kept(stage, "toy", model, source, epochs=7, batch_size=16, seed=1, keep="last")
    assert history.epoch[history.val_loss.notna()].tolist() == [2, 7]
    other = toy()
    other.load_weights(stage.scratch/"toy"/"epoch_0007.weights.h5")
    for a, b in zip(bare.get_weights(), other.get_weights(), strict=True): np.testing.assert_array_equal(a, b)

def test_one_temperature_is_in_the_table_the_model_and_the_history(stage):
    "What answers and what is saved may be two networks of the same layers, as where features are kept."
    source, whole = film_source(load_films(stage, 32), 1, AUGMENTATION), toy()
    history = train_model(stage, "toy", whole, source, **SHORT)
    answering = keras.Model(whole.inputs, whole.outputs)
    saved = keras.Sequential([keras.Input((32, 32, 1)), *whole.layers])
    table = keep_model(stage, "toy", answering, source, history, saved=saved)
    written = pd.read_csv(stage.path("predictions/toy.csv"))
    assert list(written) == ["path", "split", "label", "probability", "uncalibrated"] == list(table)
    kept = pd.read_csv(stage.path("history/toy.csv"))
    assert kept.parameters.unique().tolist() == [whole.count_params()] and kept.temperature.nunique() == 1
    expected = scaled_probability(written.uncalibrated, kept.temperature[0])
    np.testing.assert_allclose(written.probability, expected, atol=1e-12)
    rows = np.concatenate([source.films.rows(split) for split in ("validation", "test")])
    model = keras.saving.load_model(stage.path("models/toy.keras"))
    np.testing.assert_allclose(predict_films(model, source, rows), written.probability, atol=1e-5)
    np.testing.assert_allclose(predict_films(whole, source, rows), written.uncalibrated, atol=1e-6)

def test_a_changed_data_folder_is_noticed(tmp_path):
    films = make_dataset(tmp_path/"films", n_train=9, n_test=6, n_val=0)
    params = dict(seed=1, data_dir=str(films))
    finish(open_stage("data", tmp_path/"run", **params))
    assert stale_reason(tmp_path/"run", "data", params) == ""
    next(films.rglob("*.jpeg")).unlink()
    assert stale_reason(tmp_path/"run", "data", params) == "its input files changed"

# The ways that save time give what the plain ones give.

def losses(stage, name, model, source, rate):
    compile_model(model, rate)
    return train_model(stage, name, model, source, **SHORT)[["loss", "val_loss"]].to_numpy()

@pytest.fixture
def double_precision():
    "Adam amplifies rounding in single precision within epochs; in double the method itself is left."
    for kind in ("float64", "float32"):
        keras.config.set_floatx(kind)
        keras.config.set_dtype_policy(kind)
        if kind == "float64": yield

def test_three_equal_channels_trained_as_one_give_the_same_losses(stage, double_precision):
    source, rows = film_source(load_films(stage, 32), 1, AUGMENTATION), []
    for folding in (False, True):
        set_seed(1)
        model = build_mlp(32)
        rows.append(losses(stage, f"m{folding}", fold_channels(model) if folding else model, source, 1e-4))
    np.testing.assert_allclose(rows[1], rows[0], atol=1e-5)

def test_the_fast_twin_of_the_cnn_trains_as_the_cnn(stage):
    "Loss for loss at a slow learning rate, and the plain network that is saved answers as its twin did."
    source, rows = film_source(load_films(stage, 32), 1, AUGMENTATION), []
    films = source.films.pixels[:20, ..., None]
    for twin in (lambda model: model, fast_twin):
        set_seed(1)
        model = build_cnn(32)
        trained = twin(model)
        rows.append(losses(stage, f"c{twin is fast_twin}", trained, source, 1e-6))
        answers = trained.predict_on_batch(films)
        plain = with_weights_of(trained, model).predict_on_batch(films)
        np.testing.assert_allclose(plain, answers, atol=1e-5)
    np.testing.assert_allclose(rows[1], rows[0], atol=1e-4)

def test_unfolding_gives_the_function_that_was_trained(stage):
    source = film_source(load_films(stage, 32), 1, AUGMENTATION)
    set_seed(1)
    model = build_mlp(32)
    folded, before = fold_channels(model), first_dense(model).get_weights()[0]
    losses(stage, "mlp", folded, source, 1e-3)
    films = source.films.pixels[:20, ..., None]
    unfolded = unfold_channels(folded, model).predict_on_batch(films)
    np.testing.assert_allclose(unfolded, folded.predict_on_batch(films), atol=1e-6)
    moved = (first_dense(model).get_weights()[0] - before).reshape(-1, 3, 512)
    np.testing.assert_allclose(moved[:, 0], moved[:, 2], atol=1e-6)   # by one step, from different starts
    assert np.abs(moved).max() > 1e-3

@pytest.mark.parametrize("blocks, rate", [(0, 1e-4), (3, 1e-5)])
def test_training_from_kept_features_gives_the_losses_of_the_whole_network(stage, blocks, rate):
    "Frozen and fine-tuned, with the same two views: to 1e-5 for the head, 1e-4 where blocks are trained."
    source, rows = film_source(load_films(stage, 32), 1, AUGMENTATION, views=2), []
    for kept in (False, True):
        set_seed(1)
        model = build_resnet(32, "none")
        trained, learned_from = model, source
        if kept: learned_from, _, _ = trunk_features(model, source, blocks, 2)
        if blocks: unfreeze_blocks(model, blocks)
        if kept: _, trained = split_model(model, blocks)
        rows.append(losses(stage, f"r{kept}", trained, learned_from, rate))
    np.testing.assert_allclose(rows[1], rows[0], atol=1e-4 if blocks else 1e-5)

def test_features_of_other_weights_augmentation_or_sizes_are_not_taken(stage, cache):
    counts, closer = [], AUGMENTATION | dict(zoom=.1)
    asked = [(32, 1, AUGMENTATION), (32, 2, AUGMENTATION), (32, 1, closer), (32, 1, AUGMENTATION),
             (48, 1, AUGMENTATION)]
    for size, weights_seed, ranges in asked:
        set_seed(weights_seed)
        trunk_features(build_resnet(size, "none"), film_source(load_films(stage, size), 1, ranges, 1), 0, 1)
        counts.append(len(list(cache.glob("features-*.npy"))))
    assert counts == [2, 4, 5, 5, 7]   # train and the rest; both anew; train anew; nothing anew; both anew
