"""Trainings on two devices beside the same on one. Each is a process: TensorFlow asks once what it has."""
import json, os, subprocess, sys

import numpy as np
import pytest

from pneumo_nb.run import StudyError, machine
from pneumo_nb.phantom import make_dataset

# Trains some networks, keeps losses, weights and probabilities, and may be killed after two epochs.
TRAINING = """
import json, os, signal, sys
import keras
import numpy as np
from pneumo_nb.run import StudyError, open_stage, set_seed
from pneumo_nb.films import scan_dataset
from pneumo_nb.splits import split_patients
from pneumo_nb.cache import decode_films
from pneumo_nb.views import AUGMENTATION, RECIPE
from pneumo_nb.batches import film_source, recipe_source
from pneumo_nb.members import _compile_recipe
from pneumo_nb.training import compile_model, predict_films, train_kept

root, folder, killed, names = *sys.argv[1:4], sys.argv[4:]
images = split_patients(scan_dataset(root), .2, seed=1).reset_index(drop=True)
images = images.drop(images.index[images.split == "train"][44:]).reset_index(drop=True)
images.attrs["root"] = root
films = decode_films(images, 24)
gray = film_source(films, 1, AUGMENTATION)
kinds = recipe_source(films, 1, RECIPE, dict(normal=0, bacteria=1, virus=2))
recipe = dict(learning_rate=.01, epochs=3, weight_decay=.5, average=.9, label_smoothing=.05)

def network(name):
    set_seed(1)
    middle = dict(dropout=[keras.layers.Dropout(.5)], normalised=[keras.layers.BatchNormalization()])
    classes = 3 if name == "recipe" else 1
    built = keras.Sequential([
        keras.Input((24, 24, 1)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten(),
        keras.layers.Dense(8, "relu"), *middle.get(name, []),
        keras.layers.Dense(classes, None if classes > 1 else "sigmoid")])
    if classes > 1: _compile_recipe(built, 3, recipe)
    else: compile_model(built, 1e-3, jit_compile=name == "compiled")
    return built

class Kill(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1: os.kill(os.getpid(), signal.SIGKILL)

def trained(name, extra=()):
    stage = open_stage("toys", folder, seed=1)
    model, source = network(name), kinds if name == "recipe" else gray
    kept, history = train_kept(stage, name, model, source, 3, 16, 1, extra=extra, keep="last")
    rows = np.concatenate([films.rows("validation"), films.rows("test")])
    weights = np.concatenate([w.ravel() for w in kept.get_weights()])
    return dict(loss=history.loss, weights=weights, predictions=predict_films(kept, source, rows),
                last=np.concatenate([w.ravel() for w in model.get_weights()]))

extra = (Kill(),) if killed == "killed" else ()
found = {f"{name}/{what}": values for name in names for what, values in trained(name, extra).items()}
np.savez(f"{folder}/found.npz", **found)
os.environ["PNEUMO_DEVICES"] = "5"   # now TensorFlow has started with fewer
try: trained("refused")
except StudyError as error: print("refused:", error)
"""

def begin(home, name, devices, *words):
    folder = home/name
    folder.mkdir(exist_ok=True)
    variables = os.environ | dict(PNEUMO_CACHE=str(home/"cache"), PNEUMO_DEVICES=devices)
    return subprocess.Popen([sys.executable, "-c", TRAINING, str(home/"films"), str(folder), *words],
                            env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

def ended(process):
    output, errors = process.communicate(timeout=300)
    return process.returncode, output, errors

@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    "What was found on one device, on two, and on two after a kill."
    home = tmp_path_factory.mktemp("devices")
    make_dataset(home/"films", n_train=72, n_test=16, n_val=0, seed=1)
    names = "plain", "recipe", "dropout", "normalised"
    begun = [begin(home, "one", "", "whole", *names, "compiled"),
             begin(home, "two", "2", "whole", *names, "compiled"),
             begin(home, "again", "2", "killed", "dropout")]
    one, two, killed = map(ended, begun)
    assert killed[0] == -9, killed
    again = ended(begin(home, "again", "2", "whole", "dropout"))
    for code, output, errors in (one, two, again): assert code == 0, errors
    found = {name: np.load(home/name/"found.npz") for name in ("one", "two", "again")}
    return found | dict(output=dict(one=one[1], two=two[1], again=again[1]))

@pytest.mark.parametrize("name", ["plain", "recipe", "compiled"])
def test_two_devices_give_what_one_gives(runs, name):
    "Losses, weights and predictions to 1e-5; XLA, which `compiled` asks for, is left out on two."
    for what in ("loss", "weights", "predictions", "last"):
        one, two = (runs[count][f"{name}/{what}"] for count in ("one", "two"))
        np.testing.assert_allclose(two, one, atol=1e-5)
