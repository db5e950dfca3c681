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
# # Networks
#
# > Layers that several chapters build networks from, and layers that train faster and give the same

# %%
#| default_exp networks

# %%
#| export
from contextlib import contextmanager
from functools import partial

import cv2
import keras
import numpy as np
from keras import layers, ops

from pneumo_nb.run import StudyError
from pneumo_nb.style import counted

# %%
#| hide
import tempfile
from fastcore.test import test_close, test_eq, test_fail
from pneumo_nb.measures import scaled_probability
from pneumo_nb.run import set_seed
from pneumo_nb.style import plot_style, show_figure
plot_style()


# %% [markdown]
# A chapter of the study builds one kind of network. What several of them need stands here. Every network
# takes gray values from 0 to 255 as they are stored, and whatever must be done to them is a layer. So a saved
# model needs no recipe beside it.
#
# ## Gray to three channels
#
# The reference study fed colour images whose three channels were equal. To keep its parameter counts, the
# gray film is repeated to three channels **inside** the network.

# %%
#| export
def gray_input(
    image_size: int, # side of the film, pixels
): # the input tensor, (N, image_size, image_size, 1) gray 0-255, and it repeated to three channels
    "What the reference study's networks begin with."
    inputs = keras.Input((image_size, image_size, 1), name="film")
    return inputs, layers.Concatenate(name="to_three_channels")([inputs] * 3)


# %%
test_eq([t.shape for t in gray_input(64)], [(None, 64, 64, 1), (None, 64, 64, 3)])

# %% [markdown]
# ## Normalisation by batch
#
# Batch normalisation keeps running means for prediction. Keras moves them by a hundredth a batch, which on a
# set this small takes epochs to catch up with the weights. Validation then sees stale means and calls every
# film pneumonia, and the rules for stopping cut the learning rate or end the training. Here the means move by
# a tenth, a number chosen on validation films. It changes no parameter count.

# %%
#| export
BATCH_NORM_MOMENTUM = .9


# %% [markdown]
# Keras computes a batch's mean and variance, then normalises, in several passes over memory. TensorFlow has
# one operation for all of it. `FusedBatchNormalization` has the weights of Keras's layer and gives what that
# gives. A network is trained with it and saved with Keras's own.

# %%
#| export
class FusedBatchNormalization(layers.BatchNormalization):
    "Keras's layer for films (N, H, W, C), in training by TensorFlow's fused operation."
    def call(self, x, training=None, mask=None):
        if not training: return super().call(x, training=training, mask=mask)
        from tensorflow.compat.v1.nn import fused_batch_norm
        normal, mean, variance = fused_batch_norm(
            x, self.gamma, self.beta, epsilon=self.epsilon, is_training=True)
        n = ops.cast(ops.size(x[..., 0]), "float32")
        variance = variance * (n - 1) / n   # Keras divides by n, this operation by n - 1
        for moving, new in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + new * (1 - self.momentum))
        return normal


# %%
both = [kind(momentum=.9) for kind in (layers.BatchNormalization, FusedBatchNormalization)]
batch = np.random.default_rng(0).normal(3, 2, (4, 5, 5, 3)).astype("float32")
test_close(*(np.array(layer(batch, training=True)) for layer in both), eps=1e-5)
for a, b in zip(*(layer.get_weights() for layer in both)): test_close(a, b, eps=1e-5)


# %% [markdown]
# ## What Keras leaves out of a network's weights
#
# Dropout draws random numbers, and how far they have come is not saved with the weights. A training that goes
# on where another was broken off needs it, and so does a twin that shall drop the same units.

# %%
#| export
def seed_states(
    model: keras.Model,
) -> list: # variables
    "What counts the random numbers of a network's dropout."
    return [v for v in model.variables if v.name == "seed_generator_state"]

def set_seed_states(
    model: keras.Model,
    values: list, # arrays, from `seed_states`
):
    "Put dropout's random numbers where `seed_states` found them."
    for variable, value in zip(seed_states(model), values, strict=True): variable.assign(value)


# %%
network = keras.Sequential([keras.Input((100,)), layers.Dropout(.5)])
before = [v.numpy() for v in seed_states(network)]
first, second = (np.array(network(np.ones((1, 100)), training=True)) for _ in range(2))
set_seed_states(network, before)
test_eq(np.array(network(np.ones((1, 100)), training=True)), first)
assert (first != second).any()


# %% [markdown]
# A compiled model carries its optimizer along, with two numbers for each weight. What is saved for prediction
# does without.

# %%
#| export
def without_optimizer(
    model: keras.Model,
    name: str | None = None, # of the new model
) -> keras.Model: # shares the layers
    "The same network as a model that was never compiled: a third of the size when saved."
    return keras.Model(model.inputs, model.outputs, name=name)


# %% [markdown]
# ## Three equal channels, trained as one
#
# In a dense network the gray film enters three times. So a pixel's three weights meet the same value, get the
# same gradient, and Adam moves them by the same step. What the network computes depends on their mean alone.
# Training can therefore keep one weight for each pixel, their mean, and count its gradient three times. That
# leaves a third of the memory to move in each step, and memory is what limits such a network.

# %%
#| export
class MeanOfChannels(layers.Dense):
    "A dense layer for three equal inputs that holds the mean of their weights, with the gradient of one."
    def call(self, x):
        once = ops.matmul(x, self.kernel)
        return self.activation(once + 2 * ops.stop_gradient(once) + self.bias)


# %%
#| export
def first_dense(model: keras.Model) -> layers.Dense:
    "The layer that meets the film."
    return next(l for l in model.layers if isinstance(l, layers.Dense))


# %%
#| export
def fold_channels(
    model: keras.Model, # gray film repeated to three channels, scaled to 0-1, flattened, then dense with ReLU
) -> keras.Model: # the same function of a film, not compiled; shares all layers but the first dense one
    "The network with one weight a pixel instead of three that move together."
    first = first_dense(model)
    kernel, bias = first.get_weights()
    inputs = keras.Input(model.input_shape[1:], name="film")
    dense = MeanOfChannels(first.units, activation="relu", name="folded")
    x = dense(layers.Flatten()(layers.Rescaling(1 / 255)(inputs)))
    dense.set_weights([kernel.reshape(-1, 3, first.units).mean(axis=1), bias])
    for layer in model.layers[model.layers.index(first) + 1:]: x = layer(x)
    return keras.Model(inputs, x, name=f"{model.name}_folded")


# %% [markdown]
# `unfold_channels` gives each channel its own weights back.

# %%
#| export
def unfold_channels(
    folded: keras.Model, # from `fold_channels(model)`, trained since
    model: keras.Model,  # changed in place
) -> keras.Model: # `model`
    "Move each channel's weights by what their mean has moved."
    first = first_dense(model)
    kernel, _ = first.get_weights()
    mean, bias = folded.get_layer("folded").get_weights()
    channels = np.array(kernel).reshape(-1, 3, first.units)
    channels += (mean - channels.mean(axis=1))[:, None]   # in place: at 224 pixels this is 0.3 GB
    first.set_weights([channels.reshape(kernel.shape), bias])
    return model


# %% [markdown]
# Trained for one step each way, a dense network gives the same probabilities:

# %%
def dense_network(side):
    inputs, x = gray_input(side)
    x = layers.Dense(16, activation="relu")(layers.Flatten()(layers.Rescaling(1 / 255)(x)))
    return keras.Model(inputs, layers.Dense(1, activation="sigmoid")(layers.Dropout(.5)(x)), name="dense")

def trained_one_step(build, into=lambda network: network, back=lambda trained, network: trained):
    set_seed(1)
    network = build(24)
    trained = into(network)
    trained.compile(keras.optimizers.Adam(1e-3), "binary_crossentropy")
    trained.train_on_batch(films, pneumonia)
    return back(trained, network).predict_on_batch(films)

films = np.random.default_rng(0).integers(0, 256, (8, 24, 24, 1), np.uint8)
pneumonia = np.arange(8)[:, None] % 2
plain = trained_one_step(dense_network)
test_close(trained_one_step(dense_network, fold_channels, unfold_channels), plain, eps=1e-5)


# %% [markdown]
# ## A first convolution as a product
#
# A first convolution has three equal inputs and many places, the least that a convolution routine is made
# for. As a product it takes less time: each place's nine gray values times the sum of its three channels'
# filters.

# %%
#| export
class GrayConvolution(layers.Conv2D):
    "A 3 × 3 convolution of stride 1 that keeps the size, for three equal inputs, as a product."
    def call(self, x):
        height, width = x.shape[1:3]
        gray = ops.pad(x[..., :1], [[0, 0], [1, 1], [1, 1], [0, 0]])
        moved = [gray[:, i:i + height, j:j + width] for i in range(3) for j in range(3)]
        filters = ops.reshape(ops.sum(self.kernel, axis=2), (9, self.filters))
        return self.activation(ops.matmul(ops.concatenate(moved, axis=-1), filters) + self.bias)


# %%
gray_film = np.random.default_rng(0).random((1, 9, 7, 1)).astype("float32").repeat(3, axis=-1)
convolution, product = (kind(4, 3, padding="same") for kind in (layers.Conv2D, GrayConvolution))
product.build(gray_film.shape)
expected = np.array(convolution(gray_film))
product.set_weights(convolution.get_weights())
test_close(np.array(product(gray_film)), expected, eps=1e-5)


# %% [markdown]
# `fast_twin` is a network with this product and the fused normalisation in place: the same weights in the
# same order, the same answers, the same gradients. It is trained, and what is saved is the plain network.
# `make bench` measures both beside the reference study's way.

# %%
#| export
def fast_twin(
    model: keras.Model, # its first convolution is 3 × 3 of stride 1, with padding, on three equal channels
) -> keras.Model: # the same function, weights in the same order; not compiled
    "The network in layers that train faster on a processor."
    first = next(l.name for l in model.layers if isinstance(l, layers.Conv2D))
    faster = {layers.BatchNormalization: FusedBatchNormalization}
    def twin(layer):
        kind = GrayConvolution if layer.name == first else faster.get(type(layer), type(layer))
        return kind.from_config(layer.get_config())
    fast = keras.models.clone_model(model, clone_function=twin)
    fast.set_weights(model.get_weights())
    set_seed_states(fast, [v.numpy() for v in seed_states(model)])  # dropout drops the same
    return fast


# %%
#| export
def with_weights_of(
    twin: keras.Model,  # from `fast_twin(model)`, trained since
    model: keras.Model, # changed in place
) -> keras.Model: # `model`
    "Give the plain network what its twin has learned."
    model.set_weights(twin.get_weights())
    return model


# %%
def convolutional_network(side):
    inputs, x = gray_input(side)
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(layers.Rescaling(1 / 255)(x))
    x = layers.GlobalAveragePooling2D()(layers.BatchNormalization()(x))
    x = layers.Dropout(.5)(x)
    return keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x))

plain = trained_one_step(convolutional_network)
test_close(trained_one_step(convolutional_network, fast_twin, with_weights_of), plain, eps=1e-5)


# %% [markdown]
# ## A temperature inside the network
#
# Calibration divides a network's log odds by one number, the temperature (Guo et al., 2017;
# arXiv:1706.04599); the chapter on measures fits it. Since the networks end in a dense layer and a sigmoid,
# dividing that layer's weights does it. A model saved so gives temperature-scaled probabilities by itself.

# %%
#| export
@contextmanager
def temperature_scaled(
    model: keras.Model, # ends in a dense layer with a sigmoid
    temperature: float, # above 0
):
    "Divide the last layer's weights by the temperature for as long as the block lasts."
    last = model.layers[-1]
    before = last.get_weights()
    last.set_weights([w / temperature for w in before])
    try: yield model
    finally: last.set_weights(before)


# %%
network = keras.Sequential([keras.Input((4,)), layers.Dense(1, "sigmoid")])
features = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
before = network.predict_on_batch(features)[:, 0]
with temperature_scaled(network, 2.5):
    test_close(network.predict_on_batch(features)[:, 0], scaled_probability(before, 2.5), eps=1e-6)
test_eq(network.predict_on_batch(features)[:, 0], before)


# %% [markdown]
# ## Contrast in place of gray
#
# `Contrast` gives each pixel's distance from the mean of its surroundings, in units of their scatter. The
# surroundings are a Gaussian window whose deviation is an eighth of the side. A film that is a little darker,
# flatter or foggier on one side looks nearly the same afterwards. With `to="film"` a pixel is compared with
# the whole film instead.
#
# The step is a layer, so a saved model takes plain gray values like the others. To load one, run `import
# pneumo_nb.networks` first.

# %%
#| export
@keras.saving.register_keras_serializable("pneumo_nb")
class Contrast(layers.Layer):
    "Gray values relative to their surroundings: (N, S, S, 1) of 0-255 → the same shape, about -3 to 3."
    def __init__(self,
        to: str = "local",    # or "film": relative to the whole film
        share: float = 1 / 8, # the window's deviation as a share of the side
        **options,            # of a Keras layer
    ):
        super().__init__(**options)
        if to not in ("local", "film"):
            raise StudyError(f'Expected contrast to be "local" or "film", found {to!r}.')
        self.to, self.share = to, share

    def build(self, shape):
        deviation = self.share * shape[1]
        column = (1, 2 * int(np.ceil(4 * self.share * shape[1])) + 1)   # blurs along one axis, edges mirrored
        self.window = cv2.GaussianBlur(np.eye(shape[1], dtype=np.float32), column, 1e-6, None, deviation)

    def blurred(self, x): return ops.matmul(ops.matmul(self.window, x), self.window.T)

    def call(self, x):
        x = ops.cast(x[..., 0], "float32")
        if self.to == "film":
            mean, scatter = ops.mean(x, (1, 2), keepdims=True), ops.std(x, (1, 2), keepdims=True)
            return ((x - mean) / (scatter + 1))[..., None]
        away = x - self.blurred(x)
        return (away / (ops.sqrt(self.blurred(away * away)) + 4))[..., None]

    def get_config(self): return super().get_config() | dict(to=self.to, share=self.share)


# %% [markdown]
# OpenCV's own blur cuts the window a little shorter, and else agrees:

# %%
gray = np.random.default_rng(0).uniform(0, 255, (64, 64)).astype(np.float32)
film = cv2.GaussianBlur(gray, (0, 0), 3)
blurred = lambda x: cv2.GaussianBlur(x, (0, 0), 64 / 8)
away = film - blurred(film)
local = np.array(Contrast()(film[None, ..., None]))[0, ..., 0]
test_close(local, away / (np.sqrt(blurred(away ** 2)) + 4), eps=.02)
to_film = np.array(Contrast("film")(film[None, ..., None]))
test_close((to_film.mean(), to_film.std()), (0, film.std() / (film.std() + 1)), eps=1e-4)
test_fail(lambda: Contrast("globe"), contains='"local" or "film"')
test_eq(keras.saving.get_registered_name(Contrast), "pneumo_nb>Contrast")   # the name in saved models


# %% [markdown]
# ## Smaller films, inside the network
#
# Networks that answer together may take films of different sides. One saved model takes the largest, and a
# layer reduces films for the others. It averages the area that each new pixel covers, as `squash` does: the
# film times one matrix from the left and one from the right.

# %%
#| export
def _area_weights(
    before: int, # side of a film, pixels
    after: int,  # smaller side
) -> np.ndarray: # (after, before) float32; each row adds up to 1
    "Which part of each new pixel every old one makes up, along one side."
    edges, pixels = np.arange(after + 1) * before / after, np.arange(before)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (np.clip(covered, 0, None) * after / before).astype(np.float32)


# %%
test_close(_area_weights(4, 2), [[.5, .5, 0, 0], [0, 0, .5, .5]])
test_close(_area_weights(3, 2), [[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]])


# %% [markdown]
# The result is rounded to whole gray levels, since networks learned from films of whole ones. OpenCV rounds a
# half up where the side is halved, and to the even neighbour elsewhere; so does the layer.

# %%
#| export
@keras.saving.register_keras_serializable("pneumo_nb")
class Reduce(layers.Layer):
    "Films of a smaller side, by area averaging: (N, S, S, 1) → (N, size, size, 1), whole gray levels."
    def __init__(self,
        size: int,  # side of the result, pixels; at most S
        **options,  # of a Keras layer
    ):
        super().__init__(**options)
        self.size = size

    def build(self, shape):
        if self.size > shape[1]: raise StudyError(
            f"Expected films of {self.size} pixels a side or more, found {shape[1]}.")
        self.weights_along, self.halves = _area_weights(shape[1], self.size), shape[1] == 2 * self.size

    def call(self, x):
        x = ops.cast(x[..., 0], "float32")
        mean = ops.matmul(ops.matmul(self.weights_along, x), self.weights_along.T)
        return (ops.floor(mean + .5) if self.halves else ops.round(mean))[..., None]

    def get_config(self): return super().get_config() | dict(size=self.size)


# %% [markdown]
# OpenCV gives the same, but for a few pixels within rounding error of a half.

# %%
grays = np.random.default_rng(0).integers(0, 256, (8, 96, 96), np.uint8)
by_area = lambda film, side: cv2.resize(film, (side, side), interpolation=cv2.INTER_AREA)
area = lambda films, side: np.stack([by_area(film, side) for film in films])
reduced = lambda films, side: np.array(Reduce(side)(films[..., None]))[..., 0]
for side in (96, 64, 48, 41, 32, 24):
    differ = np.abs(reduced(grays, side) - area(grays, side))
    assert differ.max() <= 1 and (differ > 0).mean() < 1e-3
test_fail(lambda: Reduce(128)(grays[..., None]), contains="films of 128 pixels a side or more, found 96")
test_eq(keras.saving.get_registered_name(Reduce), "pneumo_nb>Reduce")

# %% [markdown]
# A film reduced twice is the film reduced once, where the second step joins whole pixels. Only the rounding
# in between is left, at most one gray level:

# %%
grays = np.random.default_rng(0).integers(0, 256, (8, 224, 224), np.uint8)
in_two_steps = reduced(area(grays, 128), 64)
test_eq(np.abs(in_two_steps - area(grays, 64)).max(), 1)


# %% [markdown]
# ## A small residual network
#
# A residual block adds its output to what it was given (He et al., 2016; arXiv:1512.03385). The last
# normalisation in a block starts at zero, so every block begins as its short cut alone (Goyal et al., 2017;
# arXiv:1706.02677).

# %%
#| export
def _residual_block(
    x,           # (N, H, W, C)
    width: int,  # filters
    stride: int, # of the first convolution; 2 halves the resolution
    norm,        # class of the normalisation
    dtype: str,  # policy of all layers
): # (N, H / stride, W / stride, width)
    "Two 3 × 3 convolutions added to their input, which is averaged and projected where the shape changes."
    convolution = partial(layers.Conv2D, width, padding="same", use_bias=False, dtype=dtype)
    normalise = partial(norm, momentum=BATCH_NORM_MOMENTUM, dtype=dtype)
    inner = layers.ReLU(dtype=dtype)(normalise()(convolution(3, strides=stride)(x)))
    inner = normalise(gamma_initializer="zeros")(convolution(3)(inner))
    if stride > 1: x = layers.AveragePooling2D(stride, padding="same", dtype=dtype)(x)
    if stride > 1 or x.shape[-1] != width: x = normalise()(convolution(1)(x))
    return layers.ReLU(dtype=dtype)(layers.Add(dtype=dtype)([inner, x]))


# %% [markdown]
# The network has a first convolution of stride 2 and a block for each width, each but the first halving the
# resolution. Its answers are logits, one for each class.

# %%
#| export
def residual_network(
    image_size: int = 96,           # side of the films, pixels; at least 16
    widths=(32, 64, 128, 256),      # filters of each block
    classes: int = 3,
    norm=layers.BatchNormalization, # or `FusedBatchNormalization`, faster; the same weights in the same order
    dtype: str = "float32",         # or "mixed_bfloat16": products of half the length, weights still float32
    name: str = "residual",         # of the network
) -> keras.Model: # (N, image_size, image_size, 1) prepared films → (N, classes) logits, float32; not compiled
    "A residual network of two convolutions a width."
    inputs = keras.Input((image_size, image_size, 1), name="prepared")
    x = layers.Conv2D(widths[0], 5, 2, padding="same", use_bias=False, dtype=dtype)(inputs)
    x = layers.ReLU(dtype=dtype)(norm(momentum=BATCH_NORM_MOMENTUM, dtype=dtype)(x))
    for n, width in enumerate(widths): x = _residual_block(x, width, 2 if n else 1, norm, dtype)
    x = layers.Dropout(.2, dtype=dtype)(layers.GlobalAveragePooling2D(dtype=dtype)(x))
    return keras.Model(inputs, layers.Dense(classes, name="logits", dtype="float32")(x), name=name)


# %%
network = residual_network(96)
print(network.input_shape, "→", network.output_shape, f"{network.count_params():,} parameters")
prepared = np.random.default_rng(0).normal(size=(2, 96, 96, 1)).astype(np.float32)
fused = residual_network(96, norm=FusedBatchNormalization)
fused.set_weights(network.get_weights())
test_close(fused.predict_on_batch(prepared), network.predict_on_batch(prepared), eps=1e-6)


# %% [markdown]
# `film_network` puts contrast before it, so that it takes gray films.

# %%
#| export
def film_network(
    image_size: int, # side of the films, pixels
    widths,          # filters of each block
    classes: int,
    contrast: str,   # "local" or "film", as for `Contrast`
    **options,       # norm, dtype and name, as for `residual_network`
) -> keras.Model: # (N, image_size, image_size, 1) gray 0-255 → (N, classes) logits
    "Contrast, then the residual network."
    inputs = keras.Input((image_size, image_size, 1), name="film")
    network = residual_network(image_size, tuple(widths), classes, **options)
    return keras.Model(inputs, network(Contrast(contrast, dtype="float32")(inputs)))


# %% [markdown]
# ## From three classes to one probability
#
# Such a network may tell normal, bacterial and viral, while the study asks for pneumonia or not. The odds of
# pneumonia are those of both kinds together against normal. `pneumonia_logits` gives their logarithm for
# several networks at once. With `flip`, each looks at the film and at its mirror image, and the two log odds
# are averaged.

# %%
#| export
def pneumonia_logits(
    networks: list[keras.Model], # (N, S, S, 1) gray → (N, classes) logits; the first class is normal
    flip: bool,                  # look at the mirrored film as well
) -> keras.Model: # (N, S, S, 1) gray 0-255 → (N, number of networks) log odds of pneumonia
    "The networks side by side."
    film = keras.Input(networks[0].input_shape[1:], name="film")
    def odds(network, x):
        logits = network(x)
        return ops.logsumexp(logits[:, 1:], axis=1, keepdims=True) - logits[:, :1]
    def answer(network):
        if not flip: return odds(network, film)
        return layers.Average()([odds(network, film), odds(network, ops.flip(film, axis=2))])
    answers = [answer(network) for network in networks]
    return keras.Model(film, layers.Concatenate()(answers) if len(answers) > 1 else answers[0])


# %%
set_seed(1)
two = [film_network(32, (8, 16), 3, "local") for _ in range(2)]
gray = np.random.default_rng(0).uniform(0, 255, (3, 32, 32, 1)).astype(np.float32)
logits = pneumonia_logits(two, flip=True)
def by_hand(network, films):
    normal, bacteria, virus = network.predict_on_batch(films).T
    return np.log(np.exp(bacteria) + np.exp(virus)) - normal
expected = np.stack([(by_hand(n, gray) + by_hand(n, gray[:, :, ::-1].copy())) / 2 for n in two])
test_close(logits.predict_on_batch(gray).T, expected, eps=1e-4)


# %% [markdown]
# `as_model` makes one model of them, which ends like every other of the study: in a dense layer and a
# sigmoid.

# %%
#| export
def as_model(
    logits: keras.Model, # from `pneumonia_logits`
) -> keras.Model: # (N, S, S, 1) gray 0-255 → (N, 1) probability of pneumonia
    "The mean of the networks' log odds as one model."
    last = layers.Dense(1, activation="sigmoid", name="pneumonia")
    model = keras.Model(logits.input, last(logits.output))
    count = logits.output_shape[1]
    last.set_weights([np.full((count, 1), 1 / count, np.float32), np.zeros(1, np.float32)])
    return model


# %%
model = as_model(logits)
test_close(model.predict_on_batch(gray)[:, 0], 1 / (1 + np.exp(-expected.mean(axis=0))), eps=1e-5)
with tempfile.TemporaryDirectory() as folder:
    model.save(f"{folder}/two.keras")
    loaded = keras.saving.load_model(f"{folder}/two.keras")
test_eq(loaded.predict_on_batch(gray), model.predict_on_batch(gray))


# %% [markdown]
# The networks of an ensemble can be had from it again, to see whether they agree on more than the answer.

# %%
#| export
def networks_of(
    model: keras.Model, # as from `as_model`
) -> list[keras.Model]: # (N, S, S, 1) gray → (N, classes) logits; none where it is no ensemble
    "The networks, two or more, that an ensemble asks about the film as it is given."
    inside = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    of_films = [net for net in inside if net.input_shape == model.input_shape and net.output_shape[-1] > 1]
    return of_films if len(of_films) > 1 else []


# %%
test_eq([net.name for net in networks_of(loaded)], [net.name for net in two])
test_eq(networks_of(two[0]), [])


# %% [markdown]
# ## A picture of a network
#
# A network is drawn from its layers, so that no number in a picture is typed. Layers that give as many places
# are taken together: a row has its places and channels, a width by its places, and its number of weights.

# %%
#| export
def _leaves(model: keras.Model) -> list: # layers with weights, from the film to the answer
    "The layers of a model, and of the models inside it."
    inside = [_leaves(layer) if isinstance(layer, keras.Model) else [layer] for layer in model.layers]
    return [layer for layers in inside for layer in layers if layer.weights]

def network_rows(model: keras.Model) -> list[dict]: # places (side, pixels, or 0), channels, layers, weights
    "A network from the film to the answer; what only scales or normalises counts to the row before."
    rows = []
    for layer in _leaves(model):
        shape, weights = layer.output.shape, sum(int(np.prod(w.shape)) for w in layer.weights)
        places, is_asking = shape[1] if len(shape) == 4 else 0, hasattr(layer, "kernel")
        if is_asking and (not rows or rows[-1]["places"] != places or not places) or not rows:
            rows.append(dict(places=places, channels=0, layers=0, weights=0))
        rows[-1]["channels"] = max(rows[-1]["channels"], shape[-1])
        rows[-1]["layers"] += is_asking
        rows[-1]["weights"] += weights
    return rows


# %%
tiny = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(4, 3, padding="same"), layers.MaxPooling2D(),
                         layers.Conv2D(6, 3, padding="same"), layers.Flatten(), layers.Dense(1)])
test_eq([tuple(row.values()) for row in network_rows(tiny)], [(8, 4, 1, 40), (4, 6, 1, 222), (0, 1, 1, 97)])


# %%
#| export
def _row_words(row: dict) -> str: # of `network_rows`
    places, channels = row["places"], row["channels"]
    size = f"{places} × {places} × {channels:,}" if places else counted(channels, "unit")
    return f"{size}:  {counted(row['layers'], 'layer')}, {row['weights']:,} weights"

def plot_network(model: keras.Model): # (N, S, S, 1) → (N, outputs)
    "A network from the film above to the answer below."
    import matplotlib.pyplot as plt
    rows, side = network_rows(model), model.input_shape[1]
    figure, ax = plt.subplots(figsize=(5.6, .36 * (len(rows) + 1) + .3))
    widths = [1, *(np.sqrt(max(row["places"], side / 64) / side) for row in rows)]
    words = [f"film, {side} × {side}", *map(_row_words, rows)]
    colours = ["#bbbbbb"] + ["#0072B2" if row["places"] else "#E69F00" for row in rows]
    ax.barh(range(len(widths)), widths, left=[-w / 2 for w in widths], color=colours, height=.62)
    for y, text in enumerate(words): ax.text(.6, y, text, va="center", fontsize=10)
    ax.set(xlim=(-.55, 2.3), ylim=(len(widths) - .4, -.6))
    ax.axis("off")
    return figure

def network_alt(model: keras.Model) -> str: # as for `plot_network`
    "What is seen on that picture, in words."
    return "From the film to the answer: " + "; ".join(map(_row_words, network_rows(model))) + "."


# %%
figure, alt = plot_network(two[0]), network_alt(two[0])
show_figure(figure, "networks_rows", "A small network, drawn from its layers.", alt)
print(network_alt(tiny))
