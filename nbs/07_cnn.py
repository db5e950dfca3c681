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
# # The convolutional network
#
# > Four blocks that look for small patterns anywhere in the film

# %%
#| default_exp cnn

# %%
#| export
import keras
from keras import layers

from pneumo_nb.training import FusedBatchNormalization, seed_states, set_seed_states
from pneumo_nb.mlp import BATCH_NORM_MOMENTUM, gray_input

# %%
#| hide
import numpy as np
from fastcore.test import test_close, test_eq, test_fail
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
epochs = 6            # at most; early stopping may end sooner
learning_rate = 1e-4
jit_compile = False   # XLA; measured on two cores at 224 pixels: slower for this network


# %% [markdown]
# A convolution asks the same small question at every place of the film. Four blocks ask about ever larger surroundings,
# halving the resolution each time: edges, ribs and vessels, streaks and patches, regions. What a filter learns in one
# corner holds in all others; only the dense layers behind them, which hold most of the parameters, are tied to places.

# %% [markdown]
# ## The network
#
# 32, 64, 128, 256 filters of 3 × 3 pixels, each block followed by pooling and batch normalisation, then two dense
# layers.

# %%
#| export
def build_cnn(
    image_size: int = 224, # side of the films, pixels; at least 16
) -> keras.Model: # (N, image_size, image_size, 1) gray 0-255 → (N, 1) probability of pneumonia; not compiled
    "The study's convolutional network."
    inputs, x = gray_input(image_size)
    x = layers.Rescaling(1 / 255)(x)
    for filters in (32, 64, 128, 256):
        x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        x = layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM)(layers.MaxPooling2D(2)(x))
    x = layers.Flatten()(x)
    for units in (512, 256):
        x = layers.Dropout(.5)(layers.Dense(units, activation="relu")(x))
    return keras.Model(inputs, layers.Dense(1, activation="sigmoid", name="pneumonia")(x), name="cnn")


# %%
model = build_cnn(224)
test_eq(model.count_params(), 26_212_545)   # as in the reference study
test_eq((model.input_shape, model.output_shape), ((None, 224, 224, 1), (None, 1)))


# %% [markdown]
# ## The same network, trained faster
#
# The first convolution has three equal inputs and many places, the least that a convolution routine is made for. Written as a
# product, each place's nine gray values times the sum of its three channels' filters, it takes less time, and so does batch
# normalisation in one operation; `make bench` measures both beside the study's way. `fast_twin` is the network with these two in place:
# the same weights in the same order, the same answers, the same gradients. It is trained; what is saved is the plain network.

# %%
#| export
class GrayConvolution(layers.Conv2D):
    "A 3 × 3 convolution of stride 1 that keeps the size, for three equal inputs, as a product."
    def call(self, x):
        height, width = x.shape[1:3]
        gray = keras.ops.pad(x[..., :1], [[0, 0], [1, 1], [1, 1], [0, 0]])
        around = keras.ops.concatenate([gray[:, i:i + height, j:j + width] for i in range(3) for j in range(3)], axis=-1)
        filters = keras.ops.reshape(keras.ops.sum(self.kernel, axis=2), (9, self.filters))
        return self.activation(keras.ops.matmul(around, filters) + self.bias)

def fast_twin(
    model: keras.Model, # from `build_cnn`
) -> keras.Model: # the same function, weights in the same order; not compiled
    "The network in layers that train faster on a processor."
    first = next(l.name for l in model.layers if isinstance(l, layers.Conv2D))
    kinds = {layers.BatchNormalization: FusedBatchNormalization}
    def twin(layer):
        kind = GrayConvolution if layer.name == first else kinds.get(type(layer), type(layer))
        return kind.from_config(layer.get_config())
    fast = keras.models.clone_model(model, clone_function=twin)
    fast.set_weights(model.get_weights())
    set_seed_states(fast, [v.numpy() for v in seed_states(model)])  # dropout drops the same
    return fast

def with_weights_of(twin: keras.Model, model: keras.Model) -> keras.Model: # `model`, changed in place
    "Give the plain network what its twin has learned."
    model.set_weights(twin.get_weights())
    return model


# %%
films, sick = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 1), np.uint8), np.arange(8)[:, None] % 2
answers = []
for twin in (lambda m: m, fast_twin):
    set_seed(1)
    plain = build_cnn(32)
    trained = twin(plain)
    compile_model(trained, 1e-4)
    losses = [float(trained.train_on_batch(films, sick)[0]) for _ in range(3)]
    answers.append([*losses, *with_weights_of(trained, plain).predict_on_batch(films).ravel()])
test_close(*map(np.array, answers), eps=1e-4)

# %% [markdown]
# ## This run
#
# [The curves](#fig-cnn_history) show the training epoch by epoch; the line marks the epoch that was kept.

# %%
stage = open_stage("cnn", run_dir, seed=seed, image_size=image_size, batch_size=batch_size, epochs=epochs,
                   learning_rate=learning_rate, jit_compile=jit_compile)
source = film_source(load_films(stage, image_size, seed), seed, load_ranges(stage))
set_seed(seed)
model = build_cnn(image_size)
fast = fast_twin(model)
compile_model(fast, learning_rate, jit_compile)
history = train_model(stage, "cnn", fast, source, epochs, batch_size, seed, whole=lambda: with_weights_of(fast, model))

# %%
show_history(stage, "cnn", history)
predictions = write_predictions(stage, "cnn", model, source, batch_size)
display(Markdown(training_findings("cnn", model, history, epochs)))
record = finish(stage)
