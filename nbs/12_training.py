# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: python3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Training
#
# > One way to compile, fit, interrupt, resume, keep and plot, for every network of the study

# %%
#| default_exp training

# %%
#| export
import shutil, time
from contextlib import contextmanager, suppress
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from pneumo_nb.run import (
    Stage, StudyError, atomic_path, devices, jsonable, note, read_json, threads, write_csv, write_json)
from pneumo_nb.style import COLOURS, counted, model_style, model_title, save_figure
from pneumo_nb.measures import fit_temperature, scaled_probability
from pneumo_nb.batches import Source, class_weights
from pneumo_nb.networks import (
    network_alt, plot_network, seed_states, set_seed_states, temperature_scaled, without_optimizer)

# %%
#| hide
import matplotlib.pyplot as plt
from fastcore.test import test_close, test_eq, test_fail
from pneumo_nb.run import open_stage, set_seed
from pneumo_nb.style import plot_style, show_figure
from pneumo_nb.phantom import make_dataset
from pneumo_nb.films import scan_dataset
from pneumo_nb.splits import split_patients
from pneumo_nb.cache import decode_films
from pneumo_nb.views import AUGMENTATION
from pneumo_nb.batches import film_source, seconds_of
plot_style()


# %% [markdown]
# The networks of the study share what can be shared: the loss, the optimizer, the rules for stopping, and the
# same films in the same order. What differs between them stands in their own chapters and in the run's
# parameters: layers, initial weights, learning rate, epochs. This chapter holds the common part. It trains
# nothing for the study itself, only a toy on a few phantoms to show that it works.
#
# ## Compile
#
# The optimizer is Adam and the loss is the binary cross-entropy. Each metric has a name, so nobody has to
# guess which column of a history is which.

# %%
#| export
def compile_model(
    model: keras.Model,        # one sigmoid output
    learning_rate: float,
    jit_compile: bool = False, # XLA: compiles at first, then may run faster or slower; measured per model
):
    "Prepare a model for training, in place."
    metrics = [keras.metrics.BinaryAccuracy(name="accuracy"), keras.metrics.Precision(name="precision"),
               keras.metrics.Recall(name="recall")]
    model.compile(optimizer=keras.optimizers.Adam(learning_rate), loss="binary_crossentropy",
                  jit_compile=jit_compile, metrics=metrics)


# %% [markdown]
# ## The rules
#
# Training stops when the validation loss has not improved for five epochs. After three it learns five times
# more slowly. The weights of the best epoch are the ones kept.

# %%
#| export
def _study_callbacks() -> list: # keras callbacks; both look only at val_loss
    "Early stopping and a learning rate that falls on plateaus, as in the reference study."
    return [keras.callbacks.EarlyStopping("val_loss", patience=5, mode="min"),
            keras.callbacks.ReduceLROnPlateau("val_loss", factor=.2, patience=3, min_lr=1e-6, mode="min")]


# %% [markdown]
# Since both look at the validation loss alone, a history can be replayed through them.

# %%
#| export
def _replay(
    callbacks: list,     # from `_study_callbacks`
    model: keras.Model,  # compiled
    history: list[dict], # rows of the epochs already done
) -> bool: # whether the rules had stopped the training
    "Bring the callbacks to where they were after `history`."
    for callback in callbacks:
        callback.set_model(model)
        callback.on_train_begin()
        for row in history: callback.on_epoch_end(row["epoch"] - 1, dict(row))
    return bool(model.stop_training)


# %% [markdown]
# A made-up history shows the rules. The rate falls after three epochs without progress, and five stop the
# training:

# %%
def toy():
    set_seed(1)
    network = keras.Sequential([
        keras.Input((32, 32, 1)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten(),
        keras.layers.Dense(8, "relu"), keras.layers.Dropout(.5), keras.layers.Dense(1, "sigmoid")])
    compile_model(network, 1e-3)
    return network

rows = [dict(epoch=n + 1, val_loss=loss) for n, loss in enumerate([.5, .4, .41, .42, .43, .44, .45])]
network = toy()
test_eq(_replay(_study_callbacks(), network, rows), True)
test_close(float(network.optimizer.learning_rate.numpy()), 2e-4, eps=1e-8)
test_eq(_replay(_study_callbacks(), toy(), rows[:6]), False)


# %% [markdown]
# ## Several devices
#
# With `PNEUMO_DEVICES=4` four GPUs of one machine share each batch. TensorFlow's `MirroredStrategy` keeps a
# copy of the weights on each. A device computes the gradient of its part of the batch. The gradients are
# added up, and all copies take the same step. The batch stays as large as it was, so no parameter changes.
#
# Where there is no GPU, the processor counts as several devices. That saves no time; it serves to try what
# several GPUs would do. TensorFlow must know of it before it starts.

# %%
#| export
def _split_processor(
    count: int, # parts
):
    "Let the processor count as several devices where there is no GPU, if TensorFlow has not started yet."
    import tensorflow as tf
    if tf.config.list_physical_devices("GPU"): return
    processor, parts = tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()]
    with suppress(RuntimeError):   # it has; `_first_devices` refuses what is missing then
        tf.config.set_logical_device_configuration(processor, parts * count)

if devices() > 1: _split_processor(devices())


# %%
#| export
def _first_devices(
    found: list[str], # names
    count: int,
) -> list[str]: # names
    "As many devices as are asked for."
    if len(found) >= count: return found[:count]
    raise StudyError(f"Expected {counted(count, 'device')} for PNEUMO_DEVICES={count}, found {len(found)}; "
                     f"set it to {len(found)} or less.")


# %%
test_eq(_first_devices(["GPU:0", "GPU:1", "GPU:2"], 2), ["GPU:0", "GPU:1"])
test_fail(lambda: _first_devices(["GPU:0", "GPU:1"], 5), contains="Expected 5 devices for PNEUMO_DEVICES=5, "
          "found 2; set it to 2 or less")


# %% [markdown]
# GPUs add gradients up by NCCL, TensorFlow's choice. The parts of a processor add them up on the first part:
# with TensorFlow's choice for them, a training on two cores once waited for itself without end.

# %%
#| export
def _strategy(): # tf.distribute.MirroredStrategy
    "Copies on the devices that are asked for."
    import tensorflow as tf
    gpus, parts = (tf.config.list_logical_devices(kind) for kind in ("GPU", "CPU"))
    names = _first_devices([device.name for device in gpus or parts], devices())
    adding = None if gpus else tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(names, cross_device_ops=adding)


# %% [markdown]
# A network is built on one device, wherever that is done. To train it, `_mirrored` makes a copy of it on all
# devices, with the same loss and a new optimizer of the same kind. Afterwards the network has what its copy
# has learned. Keras compiles with XLA on one device alone, so the copy does without. On one device nothing is
# copied.

# %%
#| export
@contextmanager
def _mirrored(model: keras.Model): # compiled
    "The network as it is trained, on `devices()` devices; after the block its weights are in `model`."
    if devices() == 1:
        yield model
        return
    with _strategy().scope():
        again = lambda layer: type(layer).from_config(layer.get_config())
        copy = keras.models.clone_model(model, clone_function=again, recursive=True)
        copy.compile_from_config(model.get_compile_config() | dict(jit_compile=False))
        copy.set_weights(model.get_weights())
        set_seed_states(copy, [v.numpy() for v in seed_states(model)])
        yield copy
    model.set_weights(copy.get_weights())
    set_seed_states(model, [v.numpy() for v in seed_states(copy)])


# %% [markdown]
# Each device must get as many films as the others, since each part's mean counts the same. Where an epoch's
# last batch cannot be divided, its first films are taken once more. Validation films are asked in batches of
# which the first can be divided, as Keras needs it.

# %%
#| export
def _even(batch_size: int, films: int) -> int:
    "The size of a batch that all devices can share, of so many films."
    return max(min(batch_size, films) // devices(), 1) * devices() if devices() > 1 else batch_size


# %%
test_eq([_even(16, films) for films in (100, 15)], [16, 16])   # here, on one device


# %%
#| export
def _filled(
    x,          # (b, …) tensor
    y,          # (b, …) tensor
    count: int, # devices
): # the same with a multiple of `count` for b
    "A batch that `count` devices can share."
    import tensorflow as tf
    films = tf.shape(y)[0]
    rows = tf.range(-(-films // count) * count) % films
    return tf.gather(x, rows), tf.gather(y, rows)


# %%
five = np.arange(5)
test_eq(_filled(five, five, 3)[1].numpy(), [0, 1, 2, 3, 4, 0])
test_eq(_filled(five, five, 5)[0].numpy(), five)


# %% [markdown]
# Normalisation by batch keeps its running means on each device for itself. What is saved is the first
# device's, so that is what validation must judge.

# %%
#| export
class _SameMeans(keras.callbacks.Callback):
    "Give all devices what the first has, before validation."
    def on_test_begin(self, logs=None): self.model.set_weights(self.model.get_weights())


# %% [markdown]
# How near are two devices to one? It was measured over three epochs on 44 phantoms, with two parts of a
# processor. Losses, weights and predictions of a dense network agreed to 2e-7. With dropout they did not:
# each device draws the same numbers for its own films. The loss of an epoch differed by up to .07. With
# normalisation by batch it differed by up to .05, since each device normalises its part of the batch by
# itself. Such networks become other ones than on one device. Several GPUs have not been tried.
#
# `PNEUMO_WORKERS` and `PNEUMO_DEVICES` do not divide GPUs between them: each worker would take the same ones.

# %% [markdown]
# ## Fit and predict

# %%
#| export
def fit(
    model: keras.Model,  # compiled; trained in place
    source: Source,
    epochs: int,
    batch_size: int,
    seed: int,
    first_epoch: int = 0,
    **more,              # for Keras's own `fit`, such as callbacks
):
    "Epochs over the train films, each class with the same weight."
    rows = source.films.rows("train")
    classes = source.films.labels if source.classes is None else source.classes
    batches, count = source.train(batch_size, seed, first_epoch), devices()
    if count > 1:
        batches = batches.map(lambda x, y: _filled(x, y, count))
        more["callbacks"] = [*more.get("callbacks", []), _SameMeans()]
    with _mirrored(model) as network:
        network.fit(batches, steps_per_epoch=-(-len(rows) // batch_size),
                    initial_epoch=first_epoch, epochs=epochs, verbose=0, shuffle=False,
                    class_weight=class_weights(classes[rows], classes.max() + 1), **more)


# %%
#| export
def predict_films(
    model: keras.Model,
    source: Source,
    rows: np.ndarray,     # which films
    batch_size: int = 32,
) -> np.ndarray: # (n,) probability of pneumonia
    "Predicted probabilities, in the order of `rows`."
    if len(rows) == 0: return np.zeros(0, np.float32)
    return model.predict(source.judge(rows, batch_size), verbose=0)[:, 0]


# %% [markdown]
# The toy is trained on a hundred phantoms of 32 pixels, in a stage that belongs to no run. Twenty epochs are
# enough to lower its loss on train films:

# %%
stage = open_stage("training", "", seed=1)
root = make_dataset(stage.path("cache/phantoms"), n_train=60, n_test=24, seed=1)
images = split_patients(scan_dataset(root), .2, seed=1).reset_index(drop=True)
images.attrs["root"] = str(root)
films = decode_films(images, 32)
source = film_source(films, 1, AUGMENTATION)
print(films.pixels.shape, images.split.value_counts().to_dict())

# %%
network, train = toy(), films.rows("train")
def train_loss(): return network.evaluate(films.pixels[train, ..., None], films.labels[train], verbose=0)[0]
before = train_loss()
fit(network, source, epochs=20, batch_size=16, seed=1)
after = train_loss()
print(f"loss on train films: {before:.3f} before, {after:.3f} after")
assert after < before


# %% [markdown]
# ## A training that survives
#
# After each epoch the weights, the optimizer's state and the history go to the stage's scratch folder. When a
# training is interrupted, the next one with the same parameters continues there. It replays the history
# through the rules, loads the weights and goes on with the films that the next epoch would have seen. The
# result is the same to the bit.
#
# A training is known by its key, which holds all that it depends on. A folder of another key is of no use.

# %%
#| export
def _state_of(
    folder: Path, # of one training
    key: dict,
) -> tuple[list[dict], list]: # rows of the epochs done; how far dropout's random numbers have come
    "The last whole state of the training with this key; a folder of another key is emptied."
    if (folder/"key.json").exists() and read_json(folder/"key.json") == key:
        states = sorted(folder.glob("epoch_*.json"))
        if not states: return [], []
        state = read_json(states[-1])
        return state["history"], state["seeds"]
    shutil.rmtree(folder, ignore_errors=True)
    write_json(folder/"key.json", key)
    return [], []


# %% [markdown]
# Each epoch is told in one line:

# %%
#| export
def _epoch_line(
    row: dict,   # a row of the history
    epochs: int, # asked for
) -> str:
    "One epoch in one line."
    def beside(name, digits):
        return f", validation {row[f'val_{name}']:.{digits}f}" if f"val_{name}" in row else ""
    return (f"epoch {row['epoch']:>2}/{epochs}  {row['seconds']:6.1f} s"
            f"  loss {row['loss']:.4f}{beside('loss', 4)}"
            f"  accuracy {row['accuracy']:.3f}{beside('accuracy', 3)}")


# %%
row = dict(epoch=2, seconds=3.14, loss=.61, val_loss=.59, accuracy=.7)
test_eq(_epoch_line(row, 15), "epoch  2/15     3.1 s  loss 0.6100, validation 0.5900  accuracy 0.700")


# %% [markdown]
# `_Backup` saves the state. Weights to keep are those of the lowest validation loss so far, or of the last
# epoch where validation shall decide nothing. The JSON file is written last: once it is there, the state is
# whole.

# %%
#| export
class _Backup(keras.callbacks.Callback):
    "Save the state of a training after each epoch, and the weights to keep."
    def __init__(self,
        folder: Path,               # where the state goes; it stays until the stage is finished
        key: dict,                  # what the training depends on
        epochs: int,                # asked for
        seconds_before: float = 0., # of earlier trainings of the same network
        keep: str = "best",         # weights of the epoch with the lowest validation loss, or of the "last"
    ):
        super().__init__()
        self.folder, self.epochs, self.keep = Path(folder), epochs, keep
        self.seconds_before = seconds_before
        self.history, self.seeds = _state_of(self.folder, jsonable(key))

    def on_epoch_begin(self, epoch, logs=None): self.started = time.time()

    def on_epoch_end(self, epoch, logs):
        seconds = time.time() - self.started
        before = self.history[-1]["total_seconds"] if self.history else self.seconds_before
        row = dict(epoch=epoch + 1, **jsonable(logs), seconds=seconds, total_seconds=before + seconds)
        _check_losses(row)
        self.history.append(row)
        self.seeds = [v.numpy() for v in seed_states(self.model)]
        _save_state(self)
        print(_epoch_line(row, self.epochs), flush=True)


# %%
#| export
def _check_losses(row: dict): # of a history; what is not finite is None
    "Refuse a training that diverged."
    if None in (row.get("loss", 0.), row.get("val_loss", 0.)):
        raise StudyError(f"Expected a finite loss, found none in epoch {row['epoch']}: "
                         "the training diverged; lower learning_rate.")

def _weights_file(folder: Path, epoch: int) -> Path: # counted from 1
    "Where an epoch's weights and optimizer are."
    return folder/f"epoch_{epoch:04d}.weights.h5"


# %% [markdown]
# An optimizer may keep a mean of the weights along the way. Then these are the weights to keep, while
# training goes on from those of the last step.

# %%
#| export
@contextmanager
def _averaged(model: keras.Model): # compiled
    "The weights as the optimizer averaged them, if it does; as they were afterwards."
    if not model.optimizer.use_ema:
        yield
        return
    weights = [v.numpy() for v in model.trainable_variables]
    model.optimizer.finalize_variable_values(model.trainable_variables)
    try: yield
    finally:
        for variable, weight in zip(model.trainable_variables, weights): variable.assign(weight)


# %%
line = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
line.compile(keras.optimizers.SGD(1., use_ema=True, ema_momentum=.5, ema_overwrite_frequency=None), "mae")
seen = [line.get_weights()[0].item()]
for _ in range(3):
    line.train_on_batch(np.ones((1, 1)), np.full((1, 1), 1e3))   # each step adds 1
    seen.append(line.get_weights()[0].item())
with _averaged(line): mean = line.get_weights()[0].item()
test_close(mean, seen[1] / 4 + seen[2] / 4 + seen[3] / 2, eps=1e-5)
test_eq(line.get_weights()[0].item(), seen[3])


# %%
#| export
def _save_state(backup: _Backup):
    "Write the state after the history's last epoch and remove earlier ones."
    history, folder, model = backup.history, backup.folder, backup.model
    epoch = history[-1]["epoch"]
    if backup.keep == "last" or np.argmin([row["val_loss"] for row in history]) == epoch - 1:
        with _averaged(model), atomic_path(folder/"kept.weights.h5") as partial:
            without_optimizer(model).save_weights(partial)
    with atomic_path(_weights_file(folder, epoch)) as partial: model.save_weights(partial)
    state = dict(history=history, seeds=backup.seeds, threads=threads(), devices=devices())
    write_json(folder/f"epoch_{epoch:04d}.json", state)
    for file in folder.glob("epoch_*"):
        if file.name[:10] < f"epoch_{epoch:04d}": file.unlink()


# %% [markdown]
# `_Resume` puts a network where the backup left it. It comes last among the callbacks, since `fit` resets
# those before it.

# %%
#| export
class _Resume(keras.callbacks.Callback):
    "Replay the history when training begins, and load the state."
    def __init__(self, rules: list, backup: _Backup):
        super().__init__()
        self.rules, self.backup = rules, backup

    def on_train_begin(self, logs=None):
        _replay(self.rules, self.model, self.backup.history)
        self.model.stop_training = False
        self.model.optimizer.build(self.model.trainable_variables)
        self.model.load_weights(_weights_file(self.backup.folder, len(self.backup.history)))
        set_seed_states(self.model, self.backup.seeds)


# %% [markdown]
# `train_kept` ties it together. With `keep="last"` a network learns for all epochs and its last weights are
# kept. Validation films, if there are any, are then asked every fifth epoch and decide nothing.

# %%
#| export
def _validation(
    source: Source,
    batch_size: int,
    epochs: int,
    keep: str, # as for `train_kept`
) -> dict: # keywords for `fit`
    "When a training asks the validation films, and which."
    rows = source.films.rows("validation")  # none where a network learns from all folds
    batch_size = _even(batch_size, len(rows))
    return dict(validation_data=source.judge(rows, batch_size) if len(rows) else None,
                validation_freq=1 if keep == "best" else list(range(epochs, 0, -5)))


# %%
#| export
def train_kept(
    stage: Stage,               # its parameters are part of what a backup depends on
    name: str,                  # of the training
    model: keras.Model,         # compiled; trained in place
    source: Source,             # films, or features of films
    epochs: int,
    batch_size: int,
    seed: int,
    seconds_before: float = 0., # earlier trainings of the same network
    extra: tuple = (),          # more callbacks
    keep: str = "best",         # weights of the best epoch by the study's rules, or of the "last"
    params: dict | None = None, # what a backup depends on, if not on all of the stage's parameters
) -> tuple[keras.Model, pd.DataFrame]: # same layers, weights kept, not compiled; a row an epoch
    "Train, or take up a training where it was interrupted."
    rules = _study_callbacks() if keep == "best" else []
    key = dict(name=name, params=stage.params if params is None else params, source=source.key, epochs=epochs,
               batch_size=batch_size, seed=seed)
    backup = _Backup(stage.scratch/name, key, epochs, seconds_before, keep)
    done = len(backup.history)
    if done: _say_resumed(stage, name, backup)
    stopped = bool(done) and _replay(rules, model, backup.history)
    if not stopped and done < epochs:
        model.stop_training = False
        callbacks = [*rules, backup, *extra, *([_Resume(rules, backup)] if done else [])]
        validation = _validation(source, batch_size, epochs, keep)
        fit(model, source, epochs, batch_size, seed, done, callbacks=callbacks, **validation)
    set_seed_states(model, backup.seeds)  # where fit was skipped
    bare = without_optimizer(model, name)
    bare.load_weights(backup.folder/"kept.weights.h5")
    return bare, pd.DataFrame(backup.history)


# %%
#| export
def _say_resumed(stage: Stage, name: str, backup: _Backup):
    "Say where a training is taken up, and whether it was begun on other numbers of threads or devices."
    done = len(backup.history)
    print(f"{name}: continues after epoch {done} of an interrupted training")
    state = read_json(backup.folder/f"epoch_{done:04d}.json")
    for what, before, now in (("thread", state.get("threads", threads()), threads()),
                              ("device", state.get("devices", 1), devices())):
        if before != now: note(
            stage, f"{name} was begun on {counted(before, what)} and goes on with {now}; the same "
                   f"numbers as without a break need the same number of {what}s.")


# %% [markdown]
# `train_model` is the way of most chapters: the study's rules, and the best epoch's weights in the model
# itself.

# %%
#| export
def train_model(
    stage: Stage,
    name: str,                  # of the model
    model: keras.Model,         # compiled, ends in one sigmoid; trained in place, ends with the weights kept
    source: Source,
    epochs: int,
    batch_size: int,
    seed: int,
    seconds_before: float = 0., # earlier trainings of the same network
    extra: tuple = (),          # more callbacks
) -> pd.DataFrame: # a row an epoch: losses, metrics, learning_rate, seconds, total_seconds
    "Train on the train films and choose the epoch on the validation films."
    _, history = train_kept(stage, name, model, source, epochs, batch_size, seed, seconds_before, extra)
    return history


# %% [markdown]
# The toy again. First three epochs in one go:

# %%
straight = toy()
history = train_model(stage, "toy", straight, source, epochs=3, batch_size=16, seed=1)
history.drop(columns=["seconds", "total_seconds"]).round(4)


# %% [markdown]
# Then the same, broken off after the second epoch and taken up by objects that know nothing of it. Weights
# and losses agree exactly:

# %%
class PullThePlug(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1: raise KeyboardInterrupt

shutil.rmtree(stage.scratch)   # forget the first training
try: train_model(stage, "toy", toy(), source, epochs=3, batch_size=16, seed=1, extra=(PullThePlug(),))
except KeyboardInterrupt: print("-- interrupted --")
resumed = toy()
again = train_model(stage, "toy", resumed, source, epochs=3, batch_size=16, seed=1)

# %%
timing = ["seconds", "total_seconds"]
test_eq(again.drop(columns=timing), history.drop(columns=timing))
for a, b in zip(straight.get_weights(), resumed.get_weights()): test_eq(a, b)

# %% [markdown]
# A learning rate that is far too high makes the loss infinite or undefined, and training ends there:

# %%
broken = _Backup(stage.scratch/"broken", {}, 3)
broken.on_epoch_begin(0)
logs = dict(loss=.7, val_loss=float("nan"))
test_fail(lambda: broken.on_epoch_end(0, logs), contains="the training diverged")


# %% [markdown]
# ## Keep
#
# A model that is kept has three files:
#
# - `predictions/NAME.csv`, which evaluation and explanations start from. It has path, split, label and
#   probability of pneumonia for every validation and test film. `uncalibrated` is the probability before the
#   temperature.
# - `models/NAME.keras`, which takes gray values from 0 to 255 and gives temperature-scaled probabilities. It
#   holds no optimizer.
# - `history/NAME.csv`, a row an epoch, with the number of parameters and the temperature.
#
# The **temperature** divides the log odds so that the labels of the validation films become most likely
# (chapter on measures). It changes no order and no call at .5, only how far a probability lies from .5. It is
# fitted in one place, on the predictions that are written, and goes from there into the model and the
# history.

# %%
#| export
def _predicted(
    model: keras.Model,
    source: Source,
    batch_size: int,
) -> tuple[pd.DataFrame, float]: # path, split, label, probability, uncalibrated; the temperature
    "Predict the validation and test films; fit the temperature on the former."
    rows = np.concatenate([source.films.rows("validation"), source.films.rows("test")])
    table = source.films.images.iloc[rows][["path", "split", "label"]]
    table = table.assign(uncalibrated=predict_films(model, source, rows, batch_size).astype(float))
    validation = table[table.split == "validation"]
    temperature = fit_temperature(validation.label, validation.uncalibrated)
    table.insert(3, "probability", scaled_probability(table.uncalibrated, temperature))
    return table.reset_index(drop=True), temperature


# %%
#| export
def save_model(
    stage: Stage,
    name: str,            # of the model
    model: keras.Model,   # ends in a dense layer with a sigmoid; stays as it is
    temperature: float,
):
    "Write `models/NAME.keras`, temperature-scaled."
    file = stage.path("models", f"{name}.keras")
    with temperature_scaled(model, temperature), atomic_path(file) as partial: model.save(partial)


# %%
#| export
def keep_model(
    stage: Stage,
    name: str,                        # of the model
    answering: keras.Model,           # takes what `source` gives
    source: Source,
    history: pd.DataFrame,            # from `train_model`
    saved: keras.Model | None = None, # takes gray films; None where `answering` does
    batch_size: int = 32,             # for prediction
) -> pd.DataFrame: # what predictions/NAME.csv holds
    "Predict, fit the temperature and write the model's three files."
    table, temperature = _predicted(answering, source, batch_size)
    if not 1 / 19 < temperature < 19:
        note(stage, f"{model_title(name)}: the temperature went to its bound, {temperature:.3g}, "
                    "so validation found next to no use in the probabilities as they are.")
    whole = without_optimizer(answering if saved is None else saved, name)
    save_model(stage, name, whole, temperature)
    write_csv(stage.path("predictions", f"{name}.csv"), table)
    history = history.assign(parameters=whole.count_params(), temperature=temperature)
    write_csv(stage.path("history", f"{name}.csv"), history)
    return table


# %% [markdown]
# The saved toy gives the probabilities of the table by itself:

# %%
table = keep_model(stage, "toy", straight, source, history)
rows = np.concatenate([films.rows("validation"), films.rows("test")])
test_eq(table.path.tolist(), images.path[rows].tolist())
saved = keras.saving.load_model(stage.path("models/toy.keras"))
test_close(table.probability.to_numpy(), predict_films(saved, source, rows), eps=1e-5)
kept = pd.read_csv(stage.path("history/toy.csv"))
print(f"{kept.parameters[0]:,} parameters, temperature {kept.temperature[0]:.2f}")
table.head(3)


# %% [markdown]
# ## Curves
#
# A training is shown by four quantities, train against validation. Two readings matter: where validation
# turns away from train, which is where memorising begins, and which epoch was kept. Train is measured on
# augmented films with dropout active, and its loss is weighted by class. So its accuracy can lie below
# validation's without anything being wrong.

# %%
#| export
def plot_history(
    history: pd.DataFrame,           # from `train_model`
    title: str,
    colour: str = COLOURS["other"],  # the model's, for its train curves; validation is black
): # matplotlib Figure
    "Accuracy, loss, precision and recall by epoch, with the epoch that was kept."
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots(2, 2, figsize=(7.5, 5.4), sharex=True)
    best = history.loc[history.val_loss.idxmin(), "epoch"]
    for ax, measure in zip(axes.flat, ["accuracy", "loss", "precision", "recall"]):
        ax.plot(history.epoch, history[measure], "o-", ms=3, color=colour, label="train")
        ax.plot(history.epoch, history[f"val_{measure}"], "s--", ms=3, color="black", label="validation")
        ax.axvline(best, color="gray", lw=.8)
        ax.set_title(measure)
        ax.xaxis.get_major_locator().set_params(integer=True)
        if measure != "loss": ax.set_ylim(None, 1.02)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    figure.supxlabel(f"epoch; the line marks the one kept, {best}", fontsize=11)
    figure.suptitle(title, x=.01, ha="left", fontsize=12)
    return figure


# %% [markdown]
# For [the toy](#fig-training_toy) three epochs show little more than the form of the figure:

# %%
_ = show_figure(plot_history(history, "A toy"), "training_toy", "Training of the toy by epoch.",
                "Accuracy, loss, precision and recall of the toy over three epochs, train and validation.")


# %%
#| export
def show_network(
    stage: Stage,
    model: keras.Model, # (N, S, S, 1) → (N, outputs), with layers that Keras keeps as a graph
):
    "Save and show a picture of the stage's network."
    caption = "The network of this run: places × channels of its layers, then units."
    save_figure(stage, plot_network(model), f"{stage.name}_network", caption, network_alt(model))


# %%
#| export
def show_history(
    stage: Stage,
    name: str,             # of the model
    history: pd.DataFrame, # from `train_model`
):
    "Save and show the curves of one model."
    best, title = history.loc[history.val_loss.idxmin()], model_title(name)
    caption = f"Training of {title}: train (solid) and validation (dashed) by epoch."
    alt = (f"Accuracy, loss, precision and recall of {title} over {len(history)} epochs, train and "
           f"validation. Lowest validation loss {best.val_loss:.4f} in epoch {best.epoch:.0f}.")
    figure = plot_history(history, title, model_style(name)["color"])
    save_figure(stage, figure, f"{name}_history", caption, alt)


# %% [markdown]
# The same in words:

# %%
#| export
def _ending(
    history: pd.DataFrame, # from `train_model`
    epochs: int,           # asked for
) -> str: # "" where there is nothing to say
    "Why a training ended, if that says something."
    if len(history) < epochs: return "It was stopped early: validation had not improved for five epochs."
    best = history.loc[history.val_loss.idxmin(), "epoch"]
    return "The last epoch was the best, so more epochs might still help." if best == len(history) else ""


# %%
#| export
def training_findings(
    name: str,             # of the model
    model: keras.Model,
    history: pd.DataFrame, # from `train_model`
    epochs: int,           # asked for
) -> str: # markdown
    "How a training went, in words."
    best = history.loc[history.val_loss.idxmin()]
    trainable = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    size = f"{model.count_params():,} parameters, {trainable:,} of them trained"
    time = f"in {history.seconds.sum():,.0f} s ({history.seconds.median():.1f} s an epoch)"
    scores = (f"validation loss {best.val_loss:.4f}, accuracy {best.val_accuracy:.3f}, "
              f"precision {best.val_precision:.3f}, recall {best.val_recall:.3f}")
    lines = [f"**{model_title(name)}**: {size}; {len(history)} of {epochs} epochs {time}.",
             f"Epoch {best.epoch:.0f} was kept: {scores}.", _ending(history, epochs)]
    return "\n".join(f"- {line}" for line in lines if line)


# %%
print(training_findings("toy", straight, history, 3))
assert "stopped early" in training_findings("toy", straight, history, 9)

# %% [markdown]
# ## Where the time of an epoch goes
#
# Other threads read and augment the next films while the network works on the present ones. So training
# should take no longer than its slower part. [The figure](#fig-training_costs) takes it apart for a small
# convolutional network:
#
# - the input alone,
# - the network alone on a batch that is already in memory,
# - both together, as training does it,
# - one pass over validation.
#
# If training takes hardly longer than the network alone, faster input would gain nothing. For the networks of
# the study, `make bench` measures the same.

# %%
small = keras.Sequential([
    keras.Input((32, 32, 1)), keras.layers.Rescaling(1 / 255),
    keras.layers.Conv2D(48, 3, activation="relu"), keras.layers.Conv2D(48, 3, activation="relu"),
    keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(1, "sigmoid")])
compile_model(small, 1e-3)
x, y = next(iter(source.train(16, 0)))
validation = films.rows("validation")
def train(): small.fit(source.train(16, 0), steps_per_epoch=40, shuffle=False, verbose=0)
parts = {
    "input alone": lambda: [None for _ in source.train(16, 0).take(40)],
    "network alone": lambda: [small.train_on_batch(x, y) for _ in range(40)],
    "both, as in training": train,
    "validation, once": lambda: small.evaluate(source.judge(validation, 16), verbose=0)}
costs = {part: seconds_of(step, times=3) for part, step in parts.items()}

# %%
figure, ax = plt.subplots(figsize=(7, 2.3))
bars = ax.barh(list(costs), list(costs.values()), color="#8C8C8C", height=.6)
ax.bar_label(bars, [f"{seconds:.2f}" for seconds in costs.values()], padding=4)
ax.set(xlabel="seconds", xlim=(0, max(costs.values()) * 1.15))
ax.invert_yaxis()
_ = show_figure(figure, "training_costs", "Where the time of an epoch goes.", "Seconds for 40 batches: "
                + ", ".join(f"{part} {seconds:.2f}" for part, seconds in costs.items()) + ".")
