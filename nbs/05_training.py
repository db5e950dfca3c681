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
# > One way to compile, fit, interrupt, resume, plot and predict, for every model of the study

# %%
#| default_exp training

# %%
#| export
import shutil, time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from pneumo_nb.run import COLOURS, MODEL_TITLES, Stage, StudyError, atomic_path, note, plain, read_json, save_figure, set_seed, write_csv, write_json
from pneumo_nb.preprocessing import Source, class_weights, seconds_of

# %%
#| hide
import tempfile
import matplotlib.pyplot as plt
from fastcore.test import test_close, test_eq, test_fail
from pneumo_nb.run import open_stage, plot_style, show_figure
from pneumo_nb.preprocessing import AUGMENTATION, film_source, load_films
plot_style()


# %% [markdown]
# The three models share what can be shared: the loss, the optimizer, the rules for stopping, and the same films in the
# same order. What differs between them (layers, initial weights, learning rate, epochs) stands in their own chapters
# and in the run's parameters. This chapter holds the common part; it trains nothing for the study itself, only a toy to show that it works.
#
# ## Compile
#
# Adam and binary cross-entropy, and metrics with names, so that nobody has to guess which column of a history is which.

# %%
#| export
def compile_model(
    model: keras.Model,       # one sigmoid output
    learning_rate: float,
    jit_compile: bool = False, # XLA: compiles at first, then may run faster or slower; measured per model
):
    "Prepare a model for training, in place."
    model.compile(optimizer=keras.optimizers.Adam(learning_rate), loss="binary_crossentropy", jit_compile=jit_compile,
                  metrics=[keras.metrics.BinaryAccuracy(name="accuracy"), keras.metrics.Precision(name="precision"),
                           keras.metrics.Recall(name="recall")])


# %% [markdown]
# ## Batch normalisation in one operation
#
# Keras computes a batch's mean and variance, then normalises, in several passes over memory. TensorFlow has one operation for all
# of it. `FusedBatchNormalization` has the weights of Keras's layer and gives what that gives; a network is trained with it and
# saved with Keras's own.

# %%
#| export
class FusedBatchNormalization(keras.layers.BatchNormalization):
    "Keras's layer for float32 films (N, H, W, C), in training by TensorFlow's fused operation."
    def call(self, x, training=None, mask=None):
        if not training: return super().call(x, training=training, mask=mask)
        from tensorflow.compat.v1.nn import fused_batch_norm
        normal, mean, variance = fused_batch_norm(x, self.gamma, self.beta, epsilon=self.epsilon, is_training=True)
        n = keras.ops.cast(keras.ops.size(x[..., 0]), "float32")
        for kept, new in ((self.moving_mean, mean), (self.moving_variance, variance * (n - 1) / n)):  # Keras divides by n, this operation by n - 1
            kept.assign(kept * self.momentum + new * (1 - self.momentum))
        return normal


# %%
both = [layer(momentum=.9) for layer in (keras.layers.BatchNormalization, FusedBatchNormalization)]
some = np.random.default_rng(0).normal(3, 2, (4, 5, 5, 3)).astype("float32")
test_close(*(np.array(layer(some, training=True)) for layer in both), eps=1e-5)
for plain_weight, fused_weight in zip(*(layer.get_weights() for layer in both)): test_close(plain_weight, fused_weight, eps=1e-5)


# %% [markdown]
# ## The study's rules
#
# Training stops when the validation loss has not improved for five epochs, after three it learns five times more
# slowly, and the weights of the best epoch are the ones kept.

# %%
#| export
def study_callbacks() -> list: # keras callbacks; both look only at val_loss, so a history can be replayed through them
    "Early stopping and a learning rate that falls on plateaus, as in the reference study."
    return [keras.callbacks.EarlyStopping("val_loss", patience=5, mode="min"),
            keras.callbacks.ReduceLROnPlateau("val_loss", factor=.2, patience=3, min_lr=1e-6, mode="min")]


# %% [markdown]
# ## A training that survives
#
# After each epoch the weights, the optimizer's state and the history go to the stage's scratch folder. When a training
# is interrupted, the next one with the same parameters continues there: it replays the history through the rules above,
# loads the weights and goes on with the films that the next epoch would have seen. The result is the same to the bit,
# which needs one thing that Keras leaves out of its weight files: how far the random numbers of dropout have come.

# %%
#| export
def seed_states(model: keras.Model) -> list: # variables that count dropout's random numbers
    "What Keras does not save with the weights."
    return [v for v in model.variables if v.name == "seed_generator_state"]

def set_seed_states(model: keras.Model, values: list):
    "Put dropout's random numbers where `seed_states` found them."
    for variable, value in zip(seed_states(model), values, strict=True): variable.assign(value)

def without_optimizer(model: keras.Model, name: str | None = None) -> keras.Model:
    "The same layers as a model that was never compiled: a third of the size when saved."
    return keras.Model(model.inputs, model.outputs, name=name)


# %%
#| export
class Backup(keras.callbacks.Callback):
    "Save the state of a training after each epoch, and the weights to keep."
    def __init__(self,
        folder: Path, # where the state goes; it stays until the stage is finished
        key: dict,    # what the training depends on; a backup of another key is not continued
        epochs: int,
        seconds_before: float = 0., # of earlier trainings of the same network
        keep: str = "best", # weights of the epoch with the lowest validation loss, or of the "last"
    ):
        super().__init__()
        self.folder, self.key, self.epochs, self.seconds_before, self.keep = Path(folder), plain(key), epochs, seconds_before, keep
        self.history: list[dict] = []
        self.seeds: list = []
        if (self.folder/"key.json").exists() and read_json(self.folder/"key.json") == self.key:
            done = sorted(self.folder.glob("epoch_*.json"))
            if done: self.history, self.seeds = read_json(done[-1]).values()
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
            write_json(self.folder/"key.json", self.key)

    def state(self, epoch: int) -> Path: # from 1
        return self.folder/f"epoch_{epoch:04d}.weights.h5"

    def on_epoch_begin(self, epoch, logs=None): self.started = time.time()

    def on_epoch_end(self, epoch, logs):
        seconds = time.time() - self.started
        total = (self.history[-1]["total_seconds"] if self.history else self.seconds_before) + seconds
        self.history.append(dict(epoch=epoch + 1, **plain(logs), seconds=seconds, total_seconds=total))
        if None in [self.history[-1].get(name, 0.) for name in ("loss", "val_loss")]: raise StudyError(
            f"Expected a finite loss, found none in epoch {epoch + 1}: the training diverged; lower learning_rate.")
        if self.keep == "last" or np.argmin([row["val_loss"] for row in self.history]) == epoch:
            with atomic_path(self.folder/"kept.weights.h5") as partial: without_optimizer(self.model).save_weights(partial)
        with atomic_path(self.state(epoch + 1)) as partial: self.model.save_weights(partial)
        self.seeds = [v.numpy() for v in seed_states(self.model)]
        write_json(self.folder/f"epoch_{epoch + 1:04d}.json", dict(history=self.history, seeds=self.seeds))  # last: now the state is whole
        for old in self.folder.glob("epoch_*"):
            if old.name[:10] < f"epoch_{epoch + 1:04d}": old.unlink()
        print(epoch_line(self.history[-1], self.epochs), flush=True)


# %%
#| export
def epoch_line(
    row: dict,   # a row of the history
    epochs: int,
) -> str:
    "One epoch in one line."
    beside = lambda name, digits: f", validation {row[f'val_{name}']:.{digits}f}" if f"val_{name}" in row else ""
    return (f"epoch {row['epoch']:>2}/{epochs}  {row['seconds']:6.1f} s  loss {row['loss']:.4f}{beside('loss', 4)}  "
            f"accuracy {row['accuracy']:.3f}{beside('accuracy', 3)}")

def replay(
    callbacks: list,     # from `study_callbacks`
    model: keras.Model,  # compiled
    history: list[dict], # rows of the epochs already done
) -> bool: # whether the rules had stopped the training
    "Bring the callbacks to where they were after `history`."
    for callback in callbacks:
        callback.set_model(model)
        callback.on_train_begin()
        for row in history: callback.on_epoch_end(row["epoch"] - 1, dict(row))
    return bool(model.stop_training)

class Resume(keras.callbacks.Callback):
    "Replay the history when training begins; comes last, since `fit` resets the callbacks before it."
    def __init__(self, callbacks: list, backup: Backup):
        super().__init__()
        self.callbacks, self.backup = callbacks, backup

    def on_train_begin(self, logs=None):
        replay(self.callbacks, self.model, self.backup.history)
        self.model.stop_training = False
        self.model.optimizer.build(self.model.trainable_variables)
        self.model.load_weights(self.backup.state(len(self.backup.history)))
        set_seed_states(self.model, self.backup.seeds)


# %% [markdown]
# ## Probabilities that mean what they say
#
# A network trained until its loss stops falling tends to be too sure of itself, or, with smoothed targets, not sure enough. **Temperature
# scaling** (Guo et al., 2017; arXiv:1706.04599) divides the logit, the log of the odds, by one number, fitted on the validation films so that their
# likelihood is largest. It changes no order and no call at .5, only how far a probability lies from .5. Since the networks end in a dense layer
# and a sigmoid, the division is a change of that layer's weights: the saved model is calibrated, without a recipe beside it.

# %%
#| export
def logit(p): # (n,) probabilities → (n,) log odds, finite
    "Log of the odds; single precision tells no probability from 1 above 1 - 6e-8."
    p = np.clip(np.asarray(p, float), 1e-30, 1 - 6e-8)
    return np.log(p / (1 - p))

def scaled_probability(p, temperature: float) -> np.ndarray: # (n,) probabilities → (n,) float
    "Probabilities with their log odds divided by the temperature."
    from scipy.special import expit
    return expit(logit(p) / temperature)

def fit_temperature(
    labels: np.ndarray, # (n,) 0 or 1, of validation films
    p: np.ndarray,      # (n,) predicted probability of pneumonia
) -> float: # within 1/20 and 20; 1 where one class is missing, or all films are on the right side of .5 and any smaller one would do better
    "The temperature under which the labels are most likely."
    from scipy.optimize import minimize_scalar
    if len(set(labels)) < 2: return 1.
    signed = np.where(np.asarray(labels) == 1, 1, -1) * logit(p)
    if signed.min() > 0: return 1.
    loss = lambda log_t: np.logaddexp(0, -signed / np.exp(log_t)).mean()
    return float(np.exp(minimize_scalar(loss, bounds=(-np.log(20), np.log(20)), method="bounded").x))

@contextmanager
def calibrated(
    model: keras.Model,   # ends in a dense layer with a sigmoid
    temperature: float,
):
    "Divide the last layer's weights by the temperature for as long as the block lasts."
    last = model.layers[-1]
    before = last.get_weights()
    last.set_weights([w / temperature for w in before])
    try: yield model
    finally: last.set_weights(before)


# %% [markdown]
# Logits that were made three times too large are found out, and a layer of smaller weights gives what scaled probabilities give:

# %%
rng = np.random.default_rng(0)
true = rng.normal(0, 2, 20_000)
sick = rng.random(20_000) < 1 / (1 + np.exp(-true))
test_close(fit_temperature(sick.astype(int), 1 / (1 + np.exp(-3 * true))), 3, eps=.15)
test_eq(fit_temperature(np.ones(3, int), np.full(3, .9)), 1.)
toy = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, "sigmoid")])
some = rng.normal(size=(5, 4)).astype("float32")
plainly = toy.predict_on_batch(some)[:, 0]
with calibrated(toy, 2.5): test_close(toy.predict_on_batch(some)[:, 0], scaled_probability(plainly, 2.5), eps=1e-6)
test_eq(toy.predict_on_batch(some)[:, 0], plainly)


# %% [markdown]
# ## Fit
#
# `train_model` ties it together and leaves `models/NAME.keras` and `history/NAME.csv`. The saved model holds the
# weights of the best epoch, calibrated, and no optimizer; it takes gray values from 0 to 255, so the file is all that prediction
# needs.

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
    rows, classes = source.films.rows("train"), source.films.labels if source.classes is None else source.classes
    model.fit(source.train(batch_size, seed, first_epoch), steps_per_epoch=-(-len(rows) // batch_size), initial_epoch=first_epoch, epochs=epochs,
              verbose=0, shuffle=False, class_weight=class_weights(classes[rows], classes.max() + 1), **more)


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

def judged(model: keras.Model, source: Source, split: str, batch_size: int) -> tuple[np.ndarray, np.ndarray]: # labels, probabilities
    "A split's labels and what a model says."
    rows = source.films.rows(split)
    return source.films.labels[rows], predict_films(model, source, rows, batch_size)

def save_model(stage: Stage, name: str, model: keras.Model, temperature: float):
    "Write `models/NAME.keras`, calibrated; the model itself stays as it is."
    with calibrated(model, temperature), atomic_path(stage.path("models", f"{name}.keras")) as partial: model.save(partial)


# %%
#| export
def train_kept(
    stage: Stage,        # its parameters are part of what a backup depends on
    name: str,           # of the training
    model: keras.Model,  # compiled; trained in place
    source: Source,      # films, or features of films
    epochs: int,
    batch_size: int,
    seed: int,
    seconds_before: float = 0., # earlier trainings of the same network
    extra: tuple = (),   # more callbacks
    keep: str = "best",  # by the study's rules, or "last": all epochs, and the weights of the last; validation then decides nothing and is asked every fifth epoch
    params: dict | None = None, # what a backup depends on, if not on all of the stage's parameters
) -> tuple[keras.Model, pd.DataFrame]: # the same layers with the weights kept, not compiled; a row an epoch
    "Train, or take up a training where it was interrupted."
    callbacks = study_callbacks() if keep == "best" else []
    key = dict(name=name, params=stage.params if params is None else params, source=source.key, epochs=epochs, batch_size=batch_size, seed=seed)
    backup = Backup(stage.scratch/name, key, epochs, seconds_before, keep)
    done = len(backup.history)
    if done: print(f"{name}: continues after epoch {done} of an interrupted training")
    if not (done and replay(callbacks, model, backup.history)) and done < epochs:
        model.stop_training = False
        rows = source.films.rows("validation")  # none where a network learns from all folds
        fit(model, source, epochs, batch_size, seed, done, validation_data=source.judge(rows, batch_size) if len(rows) else None,
            validation_freq=1 if keep == "best" else list(range(epochs, 0, -5)), callbacks=[*callbacks, backup, *extra, *([Resume(callbacks, backup)] if done else [])])
    set_seed_states(model, backup.seeds)  # where fit was skipped
    bare = without_optimizer(model, name)
    bare.load_weights(backup.folder/"kept.weights.h5")
    return bare, pd.DataFrame(backup.history)


# %%
#| export
def train_model(
    stage: Stage,
    name: str,           # of the model, such as "cnn"
    model: keras.Model,  # compiled, ends in one sigmoid; trained in place
    source: Source,
    epochs: int,
    batch_size: int,
    seed: int,
    seconds_before: float = 0., # as for `train_kept`
    whole: Callable | None = None, # gives the model to save where that is not `model` itself; called when the best weights are in
    extra: tuple = (),
) -> pd.DataFrame: # a row an epoch: losses, metrics, learning_rate, seconds, total_seconds, parameters
    "Train on the train films, choose the epoch on the validation films, save the calibrated model and the history."
    bare, history = train_kept(stage, name, model, source, epochs, batch_size, seed, seconds_before, extra)
    saved = without_optimizer(whole(), name) if whole else bare
    temperature = fit_temperature(*judged(bare, source, "validation", batch_size))
    if not 1 / 19 < temperature < 19: note(stage, f"{name}: the temperature went to its bound, {temperature:.3g}, so validation found next to no use in the probabilities as they are.")
    save_model(stage, name, saved, temperature)
    history = history.assign(parameters=saved.count_params())
    write_csv(stage.path("history", f"{name}.csv"), history)
    return history


# %% [markdown]
# A toy network on a few phantoms. First three epochs in one go:

# %%
stage = open_stage("mlp", "", seed=1, image_size=32, epochs=3)
films = load_films(stage, 32, seed=1)
source = film_source(films, 1, AUGMENTATION)

def toy():
    set_seed(1)
    model = keras.Sequential([keras.Input((32, 32, 1)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten(),
                              keras.layers.Dense(8, "relu"), keras.layers.Dropout(.5), keras.layers.Dense(1, "sigmoid")])
    compile_model(model, 1e-3)
    return model

straight = toy()
history = train_model(stage, "toy", straight, source, epochs=3, batch_size=16, seed=1)
history.drop(columns=["seconds", "total_seconds"]).round(4)


# %% [markdown]
# Then the same, broken off after the second epoch and taken up again by a new process's worth of objects. Weights and
# losses agree exactly:

# %%
class PullThePlug(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1: raise KeyboardInterrupt

shutil.rmtree(stage.scratch)   # forget the first training
try: train_model(stage, "toy", toy(), source, epochs=3, batch_size=16, seed=1, extra=(PullThePlug(),))
except KeyboardInterrupt: print("-- interrupted --")
resumed = toy()
again = train_model(stage, "toy", resumed, source, epochs=3, batch_size=16, seed=1)
test_eq(again.drop(columns=["seconds", "total_seconds"]), history.drop(columns=["seconds", "total_seconds"]))
for a, b in zip(straight.get_weights(), resumed.get_weights()): test_eq(a, b)

# %%
#| hide
# The rules themselves, on a made-up history: the rate falls after three epochs without progress, five stop the training.
model = toy()
losses = [.5, .4, .41, .42, .43, .44, .45]
stopped = replay(study_callbacks(), model, [dict(epoch=n + 1, val_loss=v) for n, v in enumerate(losses)])
test_eq(stopped, True); test_close(float(model.optimizer.learning_rate.numpy()), 2e-4, eps=1e-8)
model = toy()
test_eq(replay(study_callbacks(), model, [dict(epoch=n + 1, val_loss=v) for n, v in enumerate(losses[:6])]), False)


# %% [markdown]
# ## Curves
#
# Train against validation for the four quantities that the study follows, as for [this toy](#fig-training_toy). Two readings matter: where validation turns
# away from train (memorising begins), and which epoch was kept. Train is measured on augmented films with dropout
# active, and its loss is weighted by class, so its accuracy can lie below validation's without anything being wrong.

# %%
#| export
def plot_history(
    history: pd.DataFrame, # from `train_model`
    title: str,
    colour: str = COLOURS["other"], # the model's, for its train curves; validation is black
): # matplotlib Figure
    "Accuracy, loss, precision and recall by epoch, with the epoch that was kept."
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots(1, 4, figsize=(14, 3.3))
    best = history.loc[history.val_loss.idxmin(), "epoch"]
    for ax, measure in zip(axes, ["accuracy", "loss", "precision", "recall"]):
        ax.plot(history.epoch, history[measure], "o-", ms=3, color=colour, label="train")
        ax.plot(history.epoch, history[f"val_{measure}"], "s--", ms=3, color="black", label="validation")
        ax.axvline(best, color="gray", lw=.8)
        ax.set(title=measure, xlabel="epoch")
        ax.xaxis.get_major_locator().set_params(integer=True)
        if measure != "loss": ax.set_ylim(None, 1.02)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    figure.suptitle(f"{title}: the line marks the epoch kept ({best})", x=.01, ha="left", fontsize=12)
    return figure

def show_history(stage: Stage, name: str, history: pd.DataFrame):
    "Save and show the curves of one model."
    best = history.loc[history.val_loss.idxmin()]
    save_figure(stage, plot_history(history, MODEL_TITLES[name], COLOURS[name]), f"{name}_history",
                f"Training of {MODEL_TITLES[name]}: train (solid) and validation (dashed) by epoch.", f"Accuracy, loss, precision and recall of {MODEL_TITLES[name]} over {len(history)} epochs, train and validation. "
                f"Lowest validation loss {best.val_loss:.4f} in epoch {best.epoch:.0f}.")


# %%
_ = show_figure(plot_history(history, "A toy"), "training_toy", "Training of the toy by epoch.", "Accuracy, loss, precision and recall of the toy over three epochs, train and validation.")


# %%
#| export
def training_findings(
    name: str,             # of the model
    model: keras.Model,
    history: pd.DataFrame, # from `train_model`
    epochs: int,           # asked for
) -> str: # markdown
    "How a training went, in words."
    best, trainable = history.loc[history.val_loss.idxmin()], sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    lines = [f"- **{MODEL_TITLES[name]}**: {model.count_params():,} parameters, {trainable:,} of them trained; {len(history)} of {epochs} epochs "
             f"in {history.seconds.sum():,.0f} s ({history.seconds.median():.1f} s an epoch).",
             f"- Epoch {best.epoch:.0f} was kept: validation loss {best.val_loss:.4f}, accuracy {best.val_accuracy:.3f}, "
             f"precision {best.val_precision:.3f}, recall {best.val_recall:.3f}."]
    if len(history) < epochs: lines.append("- It was stopped early: validation had not improved for five epochs.")
    elif best.epoch == len(history): lines.append("- The last epoch was the best, so more epochs might still help.")
    return "\n".join(lines)


# %% [markdown]
# ## Where the time of an epoch goes
#
# Other threads read and augment the next films while the network works on the present ones, so training should take no
# longer than its slower part. [The figure](#fig-training_costs) takes it apart for a small convolutional network: the input alone, the network
# alone on a batch that is already in memory, both together as training does it, and one pass over validation.
# If training takes hardly longer than the network alone, faster input would gain nothing. For the networks of the study, `make bench` measures the same.

# %%
#| export
def epoch_costs(
    model: keras.Model, # compiled; trained by this
    source: Source,
    batch_size: int,
    steps: int,         # batches
) -> dict[str, float]: # part → seconds
    "What the parts of training take alone, and together."
    x, y = next(iter(source.train(batch_size, 0)))
    return {"input alone": seconds_of(lambda: [None for _ in source.train(batch_size, 0).take(steps)]),
            "network alone": seconds_of(lambda: [model.train_on_batch(x, y) for _ in range(steps)]),
            "both, as in training": seconds_of(lambda: model.fit(source.train(batch_size, 0), steps_per_epoch=steps, shuffle=False, verbose=0)),
            "validation, once": seconds_of(lambda: model.evaluate(source.judge(source.films.rows("validation"), batch_size), verbose=0))}

def plot_epoch_costs(costs: dict[str, float]): # matplotlib Figure
    "Bars of the seconds each part takes."
    import matplotlib.pyplot as plt
    figure, ax = plt.subplots(figsize=(7, 2.3))
    bars = ax.barh(list(costs), list(costs.values()), color="#8C8C8C", height=.6)
    ax.bar_label(bars, [f"{v:.2f}" for v in costs.values()], padding=4)
    ax.set(xlabel="seconds", xlim=(0, max(costs.values()) * 1.15))
    ax.invert_yaxis()
    return figure


# %%
small = keras.Sequential([keras.Input((32, 32, 1)), keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(48, 3, activation="relu"),
                          keras.layers.Conv2D(48, 3, activation="relu"), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(1, "sigmoid")])
compile_model(small, 1e-3)
costs = epoch_costs(small, source, 16, steps=60)
_ = show_figure(plot_epoch_costs(costs), "training_costs", "Where the time of an epoch goes.", "Seconds for 60 batches: " + ", ".join(f"{part} {seconds:.2f}" for part, seconds in costs.items()) + ".")


# %% [markdown]
# ## Predict
#
# `predictions/NAME.csv` is what evaluation and explanations start from: path, split, label and the predicted
# probability of pneumonia for every validation and test film, as the saved model gives it and `uncalibrated`, before the temperature.

# %%
#| export
def write_predictions(
    stage: Stage,
    name: str,
    model: keras.Model,
    source: Source,
    batch_size: int = 32,
) -> pd.DataFrame: # path, split, label, probability, uncalibrated
    "Predict the validation and test films and write `predictions/NAME.csv`."
    rows = np.concatenate([source.films.rows("validation"), source.films.rows("test")])
    table = source.films.images.iloc[rows][["path", "split", "label"]].assign(uncalibrated=predict_films(model, source, rows, batch_size).astype(float))
    validation = table[table.split == "validation"]
    table.insert(3, "probability", scaled_probability(table.uncalibrated, fit_temperature(validation.label, validation.uncalibrated)))
    write_csv(stage.path("predictions", f"{name}.csv"), table)
    return table.reset_index(drop=True)


# %%
table = write_predictions(stage, "toy", straight, source)
test_eq(table.split.value_counts().to_dict(), {"test": len(films.rows("test")), "validation": len(films.rows("validation"))})
saved = keras.saving.load_model(stage.path("models/toy.keras"))
test_close(table.probability.to_numpy(), predict_films(saved, source, np.concatenate([films.rows("validation"), films.rows("test")])), eps=1e-5)
table.head(3)
