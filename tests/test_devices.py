"One training on several devices, here parts of the processor. About 60 s."
import json, os, subprocess, sys

import numpy as np
import pytest

TRAIN = """
import json, os, signal, sys
import keras
import numpy as np
from pathlib import Path
from pneumo_nb.run import open_stage, set_seed
from pneumo_nb.cache import decode_films
from pneumo_nb.films import scan_dataset
from pneumo_nb.phantom import make_dataset
from pneumo_nb.splits import split_patients
from pneumo_nb.views import AUGMENTATION
from pneumo_nb.batches import film_source
from pneumo_nb.training import compile_model, predict_films, train_model

place, size, kill_after = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
root = place/"films"
if not root.exists(): make_dataset(root, n_train=60, n_test=24, seed=1)
images = split_patients(scan_dataset(root), .2, seed=1)
images = images.drop(images.index[images.split == "train"][48:]).reset_index(drop=True)
images.attrs["root"] = str(root)
films = decode_films(images, 32)
set_seed(1)
layers = keras.layers
model = keras.Sequential([
    keras.Input((32, 32, 1)), layers.Rescaling(1 / 255), layers.Conv2D(8, 3, activation="relu"),
    layers.MaxPooling2D(4), layers.Flatten(), layers.Dense(16, "relu"), layers.Dense(1, "sigmoid")])
compile_model(model, 1e-3)

class Kill(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch + 1 == kill_after: os.kill(os.getpid(), signal.SIGKILL)

history = train_model(open_stage("cnn", place/f"run{os.environ['PNEUMO_DEVICES']}", seed=1), "cnn", model,
                      film_source(films, 1, AUGMENTATION), 4, size, 1, extra=(Kill(),))
answers = predict_films(model, film_source(films, 1, AUGMENTATION), np.arange(len(images)))
learned = {name: history[name].tolist() for name in ("loss", "val_loss")}
print(json.dumps(learned | dict(answers=answers.tolist())))
"""

def train(place, devices, size=16, kill_after=0):
    env = os.environ | dict(PNEUMO_DEVICES=str(devices), PNEUMO_THREADS="1", PNEUMO_CACHE=str(place/"cache"))
    words = [sys.executable, "-c", TRAIN, str(place), str(size), str(kill_after)]
    return subprocess.run(words, env=env, capture_output=True, text=True, timeout=300)

def test_two_devices_learn_what_one_does_also_after_a_kill(tmp_path):
    one = train(tmp_path, 1)
    assert one.returncode == 0, one.stderr
    assert train(tmp_path, 2, kill_after=2).returncode == -9
    two = train(tmp_path, 2)
    assert two.returncode == 0 and "continues after epoch 2" in two.stdout, two.stderr
    read = lambda done: json.loads(done.stdout.splitlines()[-1])
    for name, values in read(one).items():
        assert np.abs(np.subtract(values, read(two)[name])).max() < 1e-5, name

@pytest.mark.parametrize("devices, size, found", [
    ("0", 16, "PNEUMO_DEVICES to be a whole number above 0, found '0'"),
    ("two", 16, "PNEUMO_DEVICES to be a whole number above 0, found 'two'"),
    ("3", 16, "batch_size to be a multiple of PNEUMO_DEVICES, 3, found 16")])
def test_what_cannot_be_spread_is_refused(tmp_path, devices, size, found):
    done = train(tmp_path, devices, size)
    assert done.returncode == 1 and found in done.stderr.splitlines()[-1]
