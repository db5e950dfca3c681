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
# # The multilayer perceptron
#
# > The baseline: a network that sees 50,176 gray values and no picture

# %%
#| default_exp mlp

# %%
#| export
import keras
import numpy as np
from keras import layers

# %%
#| hide
from fastcore.test import test_close, test_eq
from IPython.display import Markdown, display
from pneumo_nb.run import finish, open_stage, plot_style, set_seed
from pneumo_nb.preprocessing import film_source, load_films, load_ranges
from pneumo_nb.training import compile_model, show_history, train_model, training_findings, write_predictions
plot_style()

# %% tags=["parameters"]
run_dir = ""          # the run directory; "" for a temporary one
seed = 42             # decides initial weights, dropout, order and augmentation
image_size = 64       # side of the films, pixels
batch_size = 32
epochs = 2            # at most; early stopping may end sooner
learning_rate = 1e-4
jit_compile = True    # XLA; measured on two cores at 224 pixels: faster for this network


# %% [markdown]
# A multilayer perceptron joins every pixel to every unit of its first layer. It has no notion of neighbourhood: shuffle
# the pixels of all films in the same way, once augmented, and it learns exactly as well. It is here to show how much of the answer lies
# in plain brightness at fixed places, and what that costs: nearly all of its 77 million parameters sit between the
# film and the first 512 units.

# %% [markdown]
# ## Inside the network: gray to three channels
#
# The reference study fed colour images whose three channels were equal. To keep its parameter counts, the gray film is
# repeated to three channels **inside** the network; scaling to [0, 1] lives there too.

# %%
#| export
def gray_input(
    image_size: int, # side of the film, pixels
): # the input tensor, (N, image_size, image_size, 1) gray 0-255, and it repeated to three channels
    "What every model of the study begins with."
    inputs = keras.Input((image_size, image_size, 1), name="film")
    return inputs, layers.Concatenate(name="to_three_channels")([inputs] * 3)


# %% [markdown]
# ## The network
#
# Three dense layers, each followed by batch normalisation and dropout, and one sigmoid: the probability of pneumonia.
#
# Batch normalisation keeps running means for prediction. Keras moves them by 1 % a batch, which on a set this small
# takes epochs to catch up with the weights: validation is then judged with stale means and calls every film
# pneumonia, and the study's own rules cut the learning rate or stop. Here they move by 10 %, chosen on validation films.
# It changes no parameter count.

# %%
#| export
BATCH_NORM_MOMENTUM = .9

def build_mlp(
    image_size: int = 224, # side of the films, pixels
) -> keras.Model: # (N, image_size, image_size, 1) gray 0-255 → (N, 1) probability of pneumonia; not compiled
    "The study's multilayer perceptron."
    inputs, x = gray_input(image_size)
    x = layers.Flatten()(layers.Rescaling(1 / 255)(x))
    for units in (512, 256, 128):
        x = layers.Dropout(.5)(layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM)(layers.Dense(units, activation="relu")(x)))
    return keras.Model(inputs, layers.Dense(1, activation="sigmoid", name="pneumonia")(x), name="mlp")


# %%
model = build_mlp(224)
test_eq(model.count_params(), 77_238_785)   # as in the reference study
test_eq((model.input_shape, model.output_shape), ((None, 224, 224, 1), (None, 1)))
print(f"{model.layers[4].count_params() / model.count_params():.1%} of the parameters are in the first dense layer")


# %% [markdown]
# ## Three equal channels, trained as one
#
# The gray film enters three times, so a pixel's three weights meet the same value, get the same gradient, and Adam moves
# them by the same step. What the network computes depends on their mean alone. Training can therefore keep one weight
# for each pixel, their mean, and count it three times: a third of the memory to move in each step, and
# memory is what limits this network. `unfold_channels` gives each channel its own weights back.

# %%
#| export
class MeanOfChannels(layers.Dense):
    "A dense layer for three equal inputs that holds the mean of their weights; its gradient is that of any one of the three."
    def call(self, x):
        once = keras.ops.matmul(x, self.kernel)
        return self.activation(once + 2 * keras.ops.stop_gradient(once) + self.bias)

def first_dense(model: keras.Model) -> layers.Dense:
    "The layer that meets the film."
    return next(l for l in model.layers if isinstance(l, layers.Dense))

def fold_channels(
    model: keras.Model, # from `build_mlp`
) -> keras.Model: # the same function of a film, not compiled; shares all layers but the first dense one
    "The network with one weight a pixel instead of three that move together."
    first = first_dense(model)
    kernel, bias = first.get_weights()
    inputs, dense = keras.Input(model.input_shape[1:], name="film"), MeanOfChannels(first.units, activation="relu", name="folded")
    x = dense(layers.Flatten()(layers.Rescaling(1 / 255)(inputs)))
    dense.set_weights([kernel.reshape(-1, 3, first.units).mean(axis=1), bias])
    for layer in model.layers[model.layers.index(first) + 1:]: x = layer(x)
    return keras.Model(inputs, x, name="mlp_folded")

def unfold_channels(
    folded: keras.Model, # from `fold_channels(model)`, trained since
    model: keras.Model,  # changed in place
) -> keras.Model: # `model`
    "Move each channel's weights by what their mean has moved."
    first = first_dense(model)
    (kernel, _), (mean, bias) = first.get_weights(), folded.get_layer("folded").get_weights()
    channels = np.array(kernel).reshape(-1, 3, first.units)
    channels += (mean - channels.mean(axis=1))[:, None]   # in place: at 224 pixels this is 0.3 GB
    first.set_weights([channels.reshape(kernel.shape), bias])
    return model


# %% [markdown]
# Trained one step each way, the two give the same probabilities:

# %%
films = np.random.default_rng(0).integers(0, 256, (8, 24, 24, 1), np.uint8)
answers = []
for folding in (False, True):
    set_seed(1)
    small = build_mlp(24)
    trained = fold_channels(small) if folding else small
    compile_model(trained, 1e-3)
    trained.train_on_batch(films, np.arange(8)[:, None] % 2)
    answers.append((unfold_channels(trained, small) if folding else small).predict_on_batch(films))
test_close(*answers, eps=1e-5)
del model   # 0.3 GB

# %% [markdown]
# ## This run
#
# [The curves](#fig-mlp_history) show the training epoch by epoch; the line marks the epoch that was kept.
#
# *Loss* is what training makes small; an *epoch* is one pass through the train films. Train is measured on films turned and shifted
# at random, with parts of the network switched off (dropout) and the loss weighted by class; validation on untouched films with the
# whole network. So validation can look better than train without anything being wrong.

# %%
stage = open_stage("mlp", run_dir, seed=seed, image_size=image_size, batch_size=batch_size, epochs=epochs,
                   learning_rate=learning_rate, jit_compile=jit_compile)
source = film_source(load_films(stage, image_size, seed), seed, load_ranges(stage))
set_seed(seed)
model = build_mlp(image_size)
folded = fold_channels(model)
compile_model(folded, learning_rate, jit_compile)
history = train_model(stage, "mlp", folded, source, epochs, batch_size, seed, whole=lambda: unfold_channels(folded, model))

# %%
show_history(stage, "mlp", history)
predictions = write_predictions(stage, "mlp", model, source, batch_size)
display(Markdown(training_findings("mlp", model, history, epochs)))
record = finish(stage)
