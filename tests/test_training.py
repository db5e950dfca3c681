"""What a training may and may not take over from an interrupted one."""
import shutil

import keras
import numpy as np
import pytest

from pneumo_nb.cnn import build_cnn, fast_twin, with_weights_of
from pneumo_nb.mlp import build_mlp, first_dense, fold_channels, unfold_channels
from pneumo_nb.phantom import make_dataset
from pneumo_nb.preprocessing import AUGMENTATION, film_source, load_films
from pneumo_nb.resnet import build_resnet, split_model, trunk_features, unfreeze_blocks
from pneumo_nb.run import finish, open_stage, set_seed, stale_reason
from pneumo_nb.training import compile_model, train_model

@pytest.fixture
def stage(tmp_path): return open_stage("cnn", tmp_path, seed=1, image_size=32)

def toy():
    set_seed(1)
    model = keras.Sequential([keras.Input((32, 32, 1)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten(),
                              keras.layers.Dense(8, "relu"), keras.layers.Dropout(.5), keras.layers.Dense(1, "sigmoid")])
    compile_model(model, 1e-3)
    return model

def two_steps(stage, films):
    "Train, then train on under another name, as ResNet50 is fine-tuned."
    model = toy()
    train_model(stage, "first", model, film_source(films, 1, AUGMENTATION), epochs=2, batch_size=16, seed=1)
    compile_model(model, 1e-4)
    train_model(stage, "second", model, film_source(films, 1, AUGMENTATION), epochs=2, batch_size=16, seed=1)
    return model.get_weights()

def test_a_second_step_is_the_same_whether_the_first_was_just_trained_or_taken_over(stage, capsys):
    films = load_films(stage, 32)
    unbroken = two_steps(stage, films)
    shutil.rmtree(stage.scratch/"second")  # as if killed before the second step's first epoch was saved
    for a, b in zip(unbroken, two_steps(stage, films)): np.testing.assert_array_equal(a, b)
    assert "first: continues after epoch 2" in capsys.readouterr().out

def test_other_augmentation_starts_anew(stage, capsys):
    films = load_films(stage, 32)
    train_model(stage, "toy", toy(), film_source(films, 1, AUGMENTATION), epochs=2, batch_size=16, seed=1)
    train_model(stage, "toy", toy(), film_source(films, 1, AUGMENTATION | dict(rotation=0.)), epochs=2, batch_size=16, seed=1)
    assert "continues" not in capsys.readouterr().out

def test_a_changed_data_folder_is_noticed(tmp_path):
    films = make_dataset(tmp_path/"films", n_train=9, n_test=6, n_val=0)
    params = dict(seed=1, data_dir=str(films))
    stage = open_stage("data", tmp_path/"run", **params)
    finish(stage)
    assert stale_reason(tmp_path/"run", "data", params) == ""
    next(films.rglob("*.jpeg")).unlink()
    assert stale_reason(tmp_path/"run", "data", params) == "its input files changed"

# The paths that save time give what the plain paths give.

RATES = dict(size=48, epochs=2, batch_size=16, seed=1)

def losses(stage, name, model, source, rate):
    compile_model(model, rate)
    return train_model(stage, name, model, source, RATES["epochs"], RATES["batch_size"], RATES["seed"])[["loss", "val_loss"]].to_numpy()

@pytest.fixture
def double_precision():
    "Rounding in single precision is amplified by Adam within epochs; in double precision what is left is the method itself."
    for kind in ("float64", "float32"):
        keras.config.set_floatx(kind)
        keras.config.set_dtype_policy(kind)
        if kind == "float64": yield

def test_three_equal_channels_trained_as_one_give_the_same_losses(stage, double_precision):
    source, got = film_source(load_films(stage, 32), 1, AUGMENTATION), []
    for folding in (False, True):
        set_seed(1)
        model = build_mlp(32)
        got.append(losses(stage, f"m{folding}", fold_channels(model) if folding else model, source, 1e-4))
    np.testing.assert_allclose(got[1], got[0], atol=1e-5)

def test_the_fast_twin_of_the_cnn_trains_as_the_cnn(stage):
    "Loss for loss over three epochs of a slow learning rate, and the plain network that is saved says what its twin said."
    source, got = film_source(load_films(stage, 48), 1, AUGMENTATION), []
    for twin in (lambda model: model, fast_twin):
        set_seed(1)
        model = build_cnn(48)
        trained = twin(model)
        got.append(losses(stage, f"c{twin is fast_twin}", trained, source, 1e-6))
        films = source.films.pixels[:20, ..., None]
        said = trained.predict(films, verbose=0)
        np.testing.assert_allclose(with_weights_of(trained, model).predict(films, verbose=0), said, atol=1e-5)
    np.testing.assert_allclose(got[1], got[0], atol=1e-4)

def test_unfolding_gives_the_function_that_was_trained(stage):
    source = film_source(load_films(stage, 48), 1, AUGMENTATION)
    set_seed(1)
    model = build_mlp(48)
    folded, before = fold_channels(model), first_dense(model).get_weights()[0]
    losses(stage, "mlp", folded, source, 1e-3)
    films = source.films.pixels[:20, ..., None]
    np.testing.assert_allclose(unfold_channels(folded, model).predict(films, verbose=0), folded.predict(films, verbose=0), atol=1e-6)
    moved = (first_dense(model).get_weights()[0] - before).reshape(-1, 3, 512)
    np.testing.assert_allclose(moved[:, 0], moved[:, 2], atol=1e-6)   # each channel moved by the same step, from its own start
    assert np.abs(moved).max() > 1e-3

@pytest.mark.parametrize("blocks, rate", [(0, 1e-4), (3, 1e-5)])
def test_training_from_kept_features_gives_the_losses_of_the_whole_network(stage, blocks, rate):
    "Frozen and fine-tuned, with the same two views: to 1e-5 an epoch for the head, 1e-4 where blocks are trained."
    source, got = film_source(load_films(stage, 48), 1, AUGMENTATION, views=2), []
    for kept in (False, True):
        set_seed(1)
        model = build_resnet(48, "none")
        lower, top, _ = trunk_features(model, source, blocks, 2)
        if blocks: unfreeze_blocks(model, blocks)
        got.append(losses(stage, f"r{kept}", split_model(model, blocks)[1] if kept else model, lower if kept else source, rate))
    np.testing.assert_allclose(got[1], got[0], atol=1e-4 if blocks else 1e-5)

def test_features_of_other_weights_augmentation_or_sizes_are_not_taken(stage, cache):
    counts, closer = [], AUGMENTATION | dict(zoom=.1)
    for size, weights_seed, ranges in ((48, 1, AUGMENTATION), (48, 2, AUGMENTATION), (48, 1, closer), (48, 1, AUGMENTATION), (64, 1, AUGMENTATION)):
        set_seed(weights_seed)
        trunk_features(build_resnet(size, "none"), film_source(load_films(stage, size), 1, ranges, 1), 0, 1)
        counts.append(len(list(cache.glob("features-*.npy"))))
    assert counts == [2, 4, 5, 5, 7]   # train and the rest; both anew; train anew; nothing anew; both anew
