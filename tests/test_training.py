"""What a training may and may not take over from an interrupted one."""
import shutil

import keras
import numpy as np
import pytest

from pneumo_nb.phantom import make_dataset
from pneumo_nb.preprocessing import AUGMENTATION, load_films
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
    train_model(stage, "first", model, films, AUGMENTATION, epochs=2, batch_size=16, seed=1)
    compile_model(model, 1e-4)
    train_model(stage, "second", model, films, AUGMENTATION, epochs=2, batch_size=16, seed=1)
    return model.get_weights()

def test_a_second_step_is_the_same_whether_the_first_was_just_trained_or_taken_over(stage, capsys):
    films = load_films(stage, 32)
    unbroken = two_steps(stage, films)
    shutil.rmtree(stage.scratch/"second")  # as if killed before the second step's first epoch was saved
    for a, b in zip(unbroken, two_steps(stage, films)): np.testing.assert_array_equal(a, b)
    assert "first: continues after epoch 2" in capsys.readouterr().out

def test_other_augmentation_starts_anew(stage, capsys):
    films = load_films(stage, 32)
    train_model(stage, "toy", toy(), films, AUGMENTATION, epochs=2, batch_size=16, seed=1)
    train_model(stage, "toy", toy(), films, AUGMENTATION | dict(rotation=0.), epochs=2, batch_size=16, seed=1)
    assert "continues" not in capsys.readouterr().out

def test_a_changed_data_folder_is_noticed(tmp_path):
    films = make_dataset(tmp_path/"films", n_train=9, n_test=6, n_val=0)
    params = dict(seed=1, data_dir=str(films))
    stage = open_stage("data", tmp_path/"run", **params)
    finish(stage)
    assert stale_reason(tmp_path/"run", "data", params) == ""
    next(films.rglob("*.jpeg")).unlink()
    assert stale_reason(tmp_path/"run", "data", params) == "its input files changed"
