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

from pneumo_nb.networks import BATCH_NORM_MOMENTUM, gray_input

# %%
#| hide
from fastcore.test import test_eq
from IPython.display import Markdown, display
from pneumo_nb.run import finish, open_stage, set_seed
from pneumo_nb.style import plot_style
from pneumo_nb.batches import film_source
from pneumo_nb.networks import fast_twin, with_weights_of
from pneumo_nb.training import compile_model, keep_model, show_history, show_network, train_model
from pneumo_nb.training import training_findings
from pneumo_nb.preprocessing import load_films, load_ranges
plot_style()

# %% tags=["parameters"]
run_dir = ""          # the run directory; "" for a temporary one
seed = 42             # decides initial weights, dropout, order and augmentation
image_size = 64       # side of the films, pixels
batch_size = 32
epochs = 6            # at most; early stopping may end sooner
learning_rate = 1e-4
jit_compile = False   # XLA; measured on two cores at 224 pixels: slower for this network

# %%
#| export
RANGES = {
    "image_size": "whole number from 16 to 1024",
    "batch_size": "whole number from 1 to 4096",
    "epochs": "whole number from 1 to 10000",
    "learning_rate": "number above 0 and up to 1",
    "jit_compile": "true or false",
}

# %%
#| export
STAGE = {
    "reads": ["images.csv", "metrics/preprocessing.json"],
    "models": {"cnn": {"title": "CNN", "colour": "#009E73", "dash": "-"}},
    "card": ["cnn_history"],
    "methods": """<p>The convolutional network takes films of {{ p.image_size }} pixels a side. Adam
        minimises the binary cross-entropy, each class with the same weight in sum, with a learning rate
        of {{ p.learning_rate }} for at most {{ p.epochs }} epochs. The epoch with the lowest
        validation loss is kept, and the learning rate falls when that loss does not.</p>""",
}


# %% [markdown]
# Does it help to look for patterns rather than for gray values at fixed places? A convolution asks the same
# small question at every place of the film. Four blocks ask about ever larger surroundings, halving the
# resolution each time: edges, ribs and vessels, streaks and patches, regions. What a filter learns in one
# corner holds in all others. Only the dense layers behind them, which hold most of the parameters, are tied
# to places.
#
# ## The network
#
# The blocks have 32, 64, 128 and 256 filters of 3 × 3 pixels, each followed by pooling and batch
# normalisation. Two dense layers and a sigmoid follow.

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
trained = sum(w.numpy().size for w in model.trainable_weights)
test_eq((model.count_params(), trained), (26_212_545, 26_211_585))   # as in the reference study
test_eq((model.input_shape, model.output_shape), ((None, 224, 224, 1), (None, 1)))
dense = sum(l.count_params() for l in model.layers if isinstance(l, layers.Dense))
print(f"{dense / model.count_params():.1%} of the parameters are in the dense layers")
del model

# %% [markdown]
# ## This run
#
# The network is trained as its faster twin, which has the same weights in the same order and gives the same
# answers (chapter on networks). What is kept is the plain network.

# %%
stage = open_stage("cnn", run_dir, seed=seed, image_size=image_size, batch_size=batch_size, epochs=epochs,
                   learning_rate=learning_rate, jit_compile=jit_compile)
source = film_source(load_films(stage, image_size, seed), seed, load_ranges(stage))
set_seed(seed)
model = build_cnn(image_size)
fast = fast_twin(model)
compile_model(fast, learning_rate, jit_compile)
history = train_model(stage, "cnn", fast, source, epochs, batch_size, seed)

# %% [markdown]
# [The figure](#fig-cnn_network) shows the network from the film above to the answer below. A narrower blue
# bar has fewer places for a pattern; a yellow square is a layer that joins all places.

# %%
show_network(stage, model)

# %% [markdown]
# [The curves](#fig-cnn_history) show the training epoch by epoch; the line marks the epoch that was kept.

# %%
show_history(stage, "cnn", history)

# %% [markdown]
# ## What it comes to

# %%
with_weights_of(fast, model)
predictions = keep_model(stage, "cnn", model, source, history, batch_size=batch_size)
display(Markdown(training_findings("cnn", model, history, epochs)))
record = finish(stage)
