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
# # Batches
#
# > What a network is trained on: films or features of films, in an order that an interruption does not change

# %%
#| default_exp batches

# %%
#| export
import hashlib, time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count

import numpy as np

from pneumo_nb.run import StudyError, rng_for, threads
from pneumo_nb.cache import Films, cached_array, pixels_key, seconds_to_make, take
from pneumo_nb.views import as_they_are, augmented, recipe_views

# %%
#| hide
import os, tempfile
from pathlib import Path
from unittest import mock
import keras
import pandas as pd
import tensorflow as tf
from fastcore.test import test_close, test_eq, test_fail
from pneumo_nb.views import AUGMENTATION, RECIPE_RANGES


# %% [markdown]
# Training runs through the train films in a new order each epoch. Order and augmentation depend on the seed,
# the epoch and the film alone. So a training that was interrupted after epoch 7 continues with exactly the
# films that epoch 8 would have had, on however many threads.
#
# ## Order
#
# A batch is an epoch and the indices of its films.

# %%
#| export
def _shuffled(
    rows: np.ndarray, # which films
    batch_size: int,
    seed: int,
    first_epoch: int = 0,
): # yields epoch and (b,) indices, epoch after epoch, without end
    "Batches of training: a new order in each epoch."
    for epoch in count(first_epoch):
        order = rows[rng_for(seed, "order", epoch).permutation(len(rows))]
        for start in range(0, len(order), batch_size): yield epoch, order[start:start + batch_size]


# %%
batches = _shuffled(np.arange(5), 2, seed=1)
first_four = [next(batches) for _ in range(4)]
test_eq([(epoch, len(chosen)) for epoch, chosen in first_four], [(0, 2), (0, 2), (0, 1), (1, 2)])
test_eq(next(_shuffled(np.arange(5), 2, seed=1, first_epoch=1))[1], first_four[3][1])


# %%
#| export
def _in_order(rows: np.ndarray, batch_size: int): # yields 0 and (b,) indices, once through
    "Batches of validation and test."
    for start in range(0, len(rows), batch_size): yield 0, rows[start:start + batch_size]


# %%
test_eq([chosen.tolist() for _, chosen in _in_order(np.array([4, 6, 9]), 2)], [[4, 6], [9]])


# %% [markdown]
# ## Reading ahead
#
# With `tf.data`, several threads read batches ahead, in order, while the network works on the present one.
# Its self-tuning is switched off: there is nothing to tune here. The thread that does it sleeps for intervals
# that double each time, and whoever closes a set may wait until it wakes. On some machines that has doubled
# the time of an epoch. What it costs on this one:

# %%
def closing_seconds(tuned: bool) -> float:
    options = tf.data.Options()
    options.autotune.enabled = tuned
    dataset = tf.data.Dataset.range(10 ** 9).map(lambda n: n, num_parallel_calls=2)
    numbers, start = iter(dataset.with_options(options)), time.time()
    while time.time() - start < .7: next(numbers)
    start = time.time()
    del numbers
    return time.time() - start

for tuned, words in ((True, "with"), (False, "without")):
    print(f"{words} self-tuning, closing a set after 0.7 s takes {closing_seconds(tuned):.2f} s")


# %%
#| export
def _as_dataset(
    batches,             # function without arguments that gives an iterator of epoch and (b,) indices
    read,                # function of epoch and (b,) indices → (b, *shape)
    targets: np.ndarray, # (N, t) float32
    shape: tuple,        # of one film, or of its features
    dtype,
    length: int | None,  # number of batches; None for no end
): # tf.data.Dataset of (b, *shape) and (b, t) float32
    "Batches as a `tf.data` set, in the same order on any number of threads."
    import tensorflow as tf
    pick = lambda chosen: targets[chosen]
    def fetch(epoch, chosen):
        x = tf.numpy_function(read, [epoch, chosen], dtype, stateful=False)
        y = tf.numpy_function(pick, [chosen], tf.float32, stateful=False)
        return tf.ensure_shape(x, (None, *shape)), tf.ensure_shape(y, (None, targets.shape[1]))
    signature = tf.TensorSpec((), tf.int64), tf.TensorSpec((None,), tf.int64)
    plan = tf.data.Dataset.from_generator(batches, output_signature=signature)
    dataset = plan.map(fetch, num_parallel_calls=threads(), deterministic=True).prefetch(2)
    size = tf.data.experimental.INFINITE_CARDINALITY if length is None else length
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.apply(tf.data.experimental.assert_cardinality(size)).with_options(options)


# %%
squares, twice = lambda epoch, chosen: chosen[:, None] ** 2, np.arange(5, dtype=np.float32)[:, None] * 2
dataset = _as_dataset(lambda: _in_order(np.arange(5), 3), squares, twice, (1,), np.int64, 2)
test_eq([(x.ravel().tolist(), y.ravel().tolist()) for x, y in dataset.as_numpy_iterator()],
        [([0, 1, 4], [0, 2, 4]), ([9, 16], [6, 8])])


# %% [markdown]
# ## A source
#
# A `Source` holds together what a network is trained on: the films, one reader for train films and another
# for films as they are, and the key. An interrupted training is taken up only by one with the same key.

# %%
#| export
@dataclass
class Source:
    "What a network is trained and judged on."
    films: Films
    training: Callable  # (epoch, (b,) indices) → (b, *shape), for train films
    untouched: Callable # the same for validation and test films, which nothing changes
    shape: tuple
    dtype: type
    key: dict           # everything that `training` depends on
    classes: np.ndarray | None = None # (N,) 0, 1, … where a network tells more classes than the label's two

    @property
    def targets(self) -> np.ndarray: # (N, 1) labels, or (N, number of classes) ones and zeros; float32
        "What a network should answer."
        if self.classes is None: return self.films.labels[:, None].astype(np.float32)
        return np.eye(self.classes.max() + 1, dtype=np.float32)[self.classes]

    def train(self, batch_size: int, seed: int, first_epoch: int = 0): # tf.data.Dataset
        "The train films without end."
        batches = lambda: _shuffled(self.films.rows("train"), batch_size, seed, first_epoch)
        return _as_dataset(batches, self.training, self.targets, self.shape, self.dtype, None)

    def judge(self, rows: np.ndarray, batch_size: int): # tf.data.Dataset
        "Some validation or test films, once through."
        batches, length = lambda: _in_order(rows, batch_size), -(-len(rows) // batch_size)
        return _as_dataset(batches, self.untouched, self.targets, self.shape, self.dtype, length)


# %% [markdown]
# The study's own models learn from augmented films:

# %%
#| export
def _source_key(films: Films) -> dict:
    "What every source of films depends on."
    return dict(pixels=pixels_key(films.images, films.size), split=films.images.split.tolist())

def film_source(
    films: Films,
    seed: int,
    ranges: dict,   # as `AUGMENTATION`
    views: int = 0, # as for `augmented`
) -> Source:
    "Augmented train films, untouched others."
    key = _source_key(films) | dict(ranges=ranges, views=views, seed=seed)
    return Source(films, augmented(films.pixels, seed, ranges, views), as_they_are(films.pixels),
                  (films.size, films.size, 1), np.uint8, key)


# %% [markdown]
# Ten films of noise, six to train on. An epoch shows each train film once, with its label. Validation films
# come as they are.

# %%
images = pd.DataFrame(dict(path=[f"{n}.png" for n in range(10)], sha1=[f"{n}" for n in range(10)],
                           split=["train"] * 6 + ["validation"] * 4, label=[0, 1] * 5,
                           kind=["normal", "virus", "normal", "bacteria", "normal"] * 2))
films = Films(images, np.random.default_rng(0).integers(0, 256, (10, 16, 16), np.uint8))
source = film_source(films, 1, AUGMENTATION)
batches = source.train(4, seed=1).as_numpy_iterator()
(x, y), (more, labels) = next(batches), next(batches)
test_eq((x.shape, x.dtype, y.shape, more.shape), ((4, 16, 16, 1), np.uint8, (4, 1), (2, 16, 16, 1)))
test_eq(y.sum() + labels.sum(), 3)
test_eq(next(source.train(4, seed=1, first_epoch=1).as_numpy_iterator())[0], next(batches)[0])

# %%
untouched, _ = next(source.judge(films.rows("validation"), 8).as_numpy_iterator())
test_eq(untouched[..., 0], films.pixels[6:])


# %% [markdown]
# The recipe has readers of its own, and may ask for a class for each kind of film. Who trains says which kind
# is which class.

# %%
#| export
def recipe_source(
    films: Films,  # split into train, validation and test
    seed: int,
    ranges: dict,  # a value for each name in `RECIPE_RANGES`
    class_of: dict[str, int], # kind → class: 0, 1, …
) -> Source:
    "What a member of the recipe learns from."
    key = _source_key(films) | dict(recipe=ranges, kinds=class_of, seed=seed)
    return Source(films, recipe_views(films, seed, ranges), as_they_are(films.pixels),
                  (films.size, films.size, 1), np.uint8, key, films.images.kind.map(class_of).to_numpy())


# %%
still = dict.fromkeys(RECIPE_RANGES, 0)
class_of = dict(normal=0, bacteria=1, virus=2)
test_eq(recipe_source(films, 1, still, class_of).targets[1:4], [[0, 0, 1], [1, 0, 0], [0, 1, 0]])
test_eq(recipe_source(films, 1, still, class_of | dict(virus=1)).targets.shape, (10, 2))


# %% [markdown]
# ## What does not change is computed once
#
# Layers that are not trained give the same numbers for the same film in every epoch. In a large network with
# few layers to train, nearly all of the time goes there. So a film is sent through them once for each view.
# The **features** that come out are kept in the cache, and training starts from them.
#
# Features depend on the weights of those layers. So their fingerprint is part of the key.

# %%
#| export
def _weights_digest(
    model, # keras.Model
) -> str: # SHA-1
    "Fingerprint of a network's weights and of the shape it gives."
    digest = hashlib.sha1(repr(model.output_shape).encode())
    for w in model.get_weights(): digest.update(np.ascontiguousarray(w).data)
    return digest.hexdigest()


# %%
#| export
def _cached_features(
    front,               # keras.Model, film → features
    read,                # function of view and (b,) indices → what `front` takes
    view: int,
    rows: np.ndarray,    # which films
    key: dict,           # everything but the view and the films that the features depend on
    batch_size: int = 32,
) -> np.ndarray: # (len(rows), *features) float32, memory-mapped
    "Features of some films, from the cache or computed now."
    which = hashlib.sha1(rows.astype(np.int64).tobytes()).hexdigest()
    key = key | dict(kind="features", view=view, rows=which)
    def batches():
        for start in range(0, len(rows), batch_size):
            yield front.predict_on_batch(read(view, rows[start:start + batch_size]))
    return cached_array(key, (len(rows), *front.output_shape[1:]), np.float32, batches)


# %% [markdown]
# Features of all films are another `Source`. It may be made from features in turn: then its key holds the
# weights of all that a film has come through. Train films have a set of features for each view, the others
# have one.

# %%
#| export
def _feature_keys(
    source: Source,
    front, # keras.Model
) -> tuple[dict, dict]: # what all features depend on; what those of augmented films depend on
    "Keys of a source's features."
    import keras
    weights = [*source.key.get("weights", []), _weights_digest(front)]
    always = dict(weights=weights, keras=keras.__version__, pixels=source.key["pixels"])
    return always, always | {name: source.key[name] for name in ("ranges", "seed")}


# %%
#| export
def feature_source(
    source: Source, # from `film_source`, with the same number of views
    front,          # keras.Model, frozen; film → features
    views: int,     # 1 or more
) -> tuple[Source, float]: # features in place of films; seconds that they took, whenever they were made
    "Features of `views` versions of every train film, and of the others as they are."
    if views < 1: raise StudyError(f"Expected 1 view or more to keep features of, found {views}.")
    is_train = source.films.images.split == "train"
    train, rest = np.flatnonzero(is_train), np.flatnonzero(~is_train)
    always, augmented_key = _feature_keys(source, front)
    moved = [_cached_features(front, source.training, view, train, augmented_key) for view in range(views)]
    still = _cached_features(front, source.untouched, 0, rest, always)
    features = replace(
        source, shape=still.shape[1:], dtype=np.float32, key=source.key | always,
        training=lambda epoch, chosen: take(moved[int(epoch) % views], np.searchsorted(train, chosen)),
        untouched=lambda epoch, chosen: take(still, np.searchsorted(rest, chosen)))
    return features, sum(map(seconds_to_make, [*moved, still]))


# %% [markdown]
# A small network serves as the frozen part. What training reads is what it would have computed, view by view:

# %%
keras.utils.set_random_seed(1)
front = keras.Sequential([keras.Input((16, 16, 1)), keras.layers.Conv2D(3, 5, strides=4),
                          keras.layers.Flatten()])
two_views, some, rest = film_source(films, 1, AUGMENTATION, views=2), np.array([4, 0]), np.arange(6, 10)
with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, PNEUMO_CACHE=folder):
    features, seconds = feature_source(two_views, front, 2)
    for epoch in (0, 1, 2):
        computed = front.predict_on_batch(two_views.training(epoch, some))
        test_close(features.training(epoch, some), computed, eps=1e-3)
    test_close(features.untouched(0, rest), front.predict_on_batch(films.pixels[6:, ..., None]), eps=1e-3)
    test_eq(len(list(Path(folder).glob("*.npy"))), 3)   # two views of the train films, and the rest
    test_fail(lambda: feature_source(two_views, front, 0), contains="1 view or more")
features.shape


# %% [markdown]
# ## Class weights
#
# The public set has three pneumonia films for each normal one, so a network gains most by leaning towards
# pneumonia. Each film is weighted by n / (k n_c): n are all films trained on, k is the number of classes, and
# n_c those of its class. All classes then count the same in the loss. On the published train folder the
# weights are about 1.945 and 0.673.

# %%
#| export
def class_weights(
    labels: np.ndarray, # (n,) 0, 1, …, of the films trained on
    classes: int = 2,
) -> dict[int, float]: # class → weight
    "Weights with which all classes count the same in the loss."
    counts = np.bincount(labels, minlength=classes)
    if counts.min() == 0:
        numbers = " and ".join(map(str, counts))
        raise StudyError(f"Expected films of {classes} classes to train on, found {numbers}.")
    return {n: len(labels) / (classes * c) for n, c in enumerate(counts.tolist())}


# %%
test_close(list(class_weights(np.repeat([0, 1], [1341, 3875])).values()), [1.945, .673], eps=1e-3)
test_eq(class_weights(np.array([0, 1, 1, 2]), 3), {0: 4 / 3, 1: 2 / 3, 2: 4 / 3})
test_fail(lambda: class_weights(np.ones(3, int)), contains="of 2 classes to train on, found 0 and 3")


# %% [markdown]
# ## How long a step takes
#
# Where the time goes is measured the same way everywhere: the median of several calls, after one that is not
# counted.

# %%
#| export
def seconds_of(
    step,             # function without arguments
    times: int = 5,
) -> float: # median, after one call that is not counted
    "How long something takes."
    step()
    durations = []
    for _ in range(times):
        start = time.perf_counter()
        step()
        durations.append(time.perf_counter() - start)
    return float(np.median(durations))


# %%
assert .009 < seconds_of(lambda: time.sleep(.01), times=3) < 1
