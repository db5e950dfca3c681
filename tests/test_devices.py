"""Trainings on two devices beside the same on one. Each is a process: TensorFlow asks once what it has."""
import os, subprocess, sys

import numpy as np
import pytest

from pneumo_nb.run import StudyError, machine
from pneumo_nb.phantom import make_dataset

# Trains some networks and keeps losses, weights and probabilities. It may then train the last one again in
# another folder, and be killed after two epochs.
TRAINING = """
import os, signal, sys
import keras
import numpy as np
from pneumo_nb.run import StudyError, devices, open_stage, set_seed
from pneumo_nb.films import scan_dataset
from pneumo_nb.splits import split_patients
from pneumo_nb.cache import decode_films
from pneumo_nb.views import AUGMENTATION, RECIPE
from pneumo_nb.batches import film_source, recipe_source
from pneumo_nb.members import _compile_recipe
from pneumo_nb.training import compile_model, predict_films, train_kept

root, folder, other, *names = sys.argv[1:]
images = split_patients(scan_dataset(root), .2, seed=1).reset_index(drop=True)
images = images.drop(images.index[images.split == "train"][44:]).reset_index(drop=True)
images.attrs["root"] = root
films = decode_films(images, 24)
gray = film_source(films, 1, AUGMENTATION)
kinds = recipe_source(films, 1, RECIPE, dict(normal=0, bacteria=1, virus=2))
recipe = dict(learning_rate=.01, epochs=3, weight_decay=.5, average=.9, label_smoothing=.05)

def network(name):
    set_seed(1)
    middle = [keras.layers.BatchNormalization(), keras.layers.Dropout(.5)] if name == "random" else []
    classes = 3 if name == "recipe" else 1
    built = keras.Sequential([
        keras.Input((24, 24, 1)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten(),
        keras.layers.Dense(8, "relu"), *middle,
        keras.layers.Dense(classes, None if classes > 1 else "sigmoid")])
    if classes > 1: _compile_recipe(built, 3, recipe)
    else: compile_model(built, 1e-3, jit_compile=devices() > 1)   # XLA is left out there
    return built

class Kill(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1: os.kill(os.getpid(), signal.SIGKILL)

def trained(name, folder, extra=()):
    stage = open_stage("toys", folder, seed=1)
    model, source = network(name), kinds if name == "recipe" else gray
    kept, history = train_kept(stage, name, model, source, 3, 16, 1, extra=extra, keep="last")
    rows = np.concatenate([films.rows("validation"), films.rows("test")])
    weights = np.concatenate([w.ravel() for w in kept.get_weights()])
    return dict(loss=[*history.loss, history.val_loss.iloc[-1]], weights=weights,
                predictions=predict_films(kept, source, rows),
                last=np.concatenate([w.ravel() for w in model.get_weights()]))

found = {f"{name}/{what}": values for name in names for what, values in trained(name, folder).items()}
np.savez(f"{folder}/found.npz", **found)
if other: trained(names[-1], other, (Kill(),))
os.environ["PNEUMO_DEVICES"] = "5"   # now TensorFlow has started with fewer
try: trained(names[-1], f"{folder}-refused")
except StudyError as error: print("refused:", error)
"""

def begin(home, name, devices, *words):
    for folder in (name, f"{name}-refused"): (home/folder).mkdir(exist_ok=True)
    variables = os.environ | dict(PNEUMO_CACHE=str(home/"cache"), PNEUMO_DEVICES=devices, PNEUMO_THREADS="1")
    return subprocess.Popen([sys.executable, "-c", TRAINING, str(home/"films"), str(home/name), *words],
                            env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    "What was found on one device, on two, and on two after a kill; and what was printed."
    home = tmp_path_factory.mktemp("devices")
    make_dataset(home/"films", n_train=72, n_test=16, n_val=0, seed=1)
    (home/"again").mkdir()
    one = begin(home, "one", "", "", "recipe")
    two = begin(home, "two", "2", str(home/"again"), "recipe", "random")
    said = {"one": one.communicate(timeout=300), "two": two.communicate(timeout=300)}
    again = begin(home, "again", "2", "", "random")
    said["again"] = again.communicate(timeout=300)
    assert [one.returncode, two.returncode, again.returncode] == [0, -9, 0], said
    found = {name: np.load(home/name/"found.npz") for name in said}
    return found, {name: output for name, (output, _) in said.items()}

WHAT = "loss", "weights", "predictions", "last"   # weights kept, and those the network itself ends with

@pytest.mark.parametrize("what", WHAT)
def test_two_devices_give_what_one_gives(runs, what):
    "Where weights decay, but for biases, and are averaged; without dropout and normalisation by batch."
    one, two = (runs[0][count][f"recipe/{what}"] for count in ("one", "two"))
    assert len(one) >= 3
    np.testing.assert_allclose(two, one, atol=1e-5)

@pytest.mark.parametrize("what", WHAT)
def test_a_training_killed_on_two_devices_goes_on_as_if_it_had_not_been(runs, what):
    "With dropout and normalisation by batch, which differ from those on one device."
    assert "random: continues after epoch 2" in runs[1]["again"]
    straight, again = (runs[0][count][f"random/{what}"] for count in ("two", "again"))
    np.testing.assert_allclose(again, straight, atol=1e-5)

@pytest.mark.parametrize("name, found", [("one", 1), ("again", 2)])
def test_more_devices_than_there_are_are_refused(runs, name, found):
    said = f"Expected 5 devices for PNEUMO_DEVICES=5, found {found}; set it to {found} or less."
    assert f"refused: {said}" in runs[1][name].splitlines()

@pytest.mark.parametrize("asked", ["0", "x", "-1", "2.5"])
def test_what_is_no_number_of_devices_is_refused(monkeypatch, asked):
    monkeypatch.setenv("PNEUMO_DEVICES", asked)
    with pytest.raises(StudyError, match=f"PNEUMO_DEVICES to be a whole number above 0, found '{asked}'"):
        machine()

def test_the_record_holds_the_number_of_devices(monkeypatch):
    assert machine()["devices"] == 1
    monkeypatch.setenv("PNEUMO_DEVICES", "3")
    assert machine()["devices"] == 3
