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
# > The baseline: a network that sees gray values at fixed places and no picture

# %%
#| default_exp mlp

# %%
#| export
import keras
from keras import layers

from pneumo_nb.run import Stage, StudyError, note, set_seed
from pneumo_nb.views import AUGMENTATION
from pneumo_nb.batches import film_source
from pneumo_nb.networks import BATCH_NORM_MOMENTUM, fold_channels, gray_input, unfold_channels
from pneumo_nb.training import compile_model, keep_model, train_model
from pneumo_nb.preprocessing import load_films

# %%
#| hide
from fastcore.test import test_eq
from IPython.display import Markdown, display
from pneumo_nb.run import finish, open_stage
from pneumo_nb.style import plot_style
from pneumo_nb.networks import first_dense
from pneumo_nb.training import show_history, show_network, training_findings
from pneumo_nb.preprocessing import load_ranges
plot_style()

# %% tags=["parameters"]
run_dir = ""          # the run directory; "" for a temporary one
seed = 42             # decides initial weights, dropout, order and augmentation
image_size = 64       # side of the films, pixels
batch_size = 32
epochs = 2            # at most; early stopping may end sooner
learning_rate = 1e-4
jit_compile = True    # XLA; measured on two cores at 224 pixels: faster for this network

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
    "models": {"mlp": {"title": "MLP", "colour": "#E69F00", "dash": ":"}},
    "card": ["mlp_history"],
    "methods": """<p>The multilayer perceptron takes films of {{ p.image_size }} pixels a side. Adam
        minimises the binary cross-entropy, each class with the same weight in sum, with a learning rate
        of {{ p.learning_rate }} for at most {{ p.epochs }} epochs. The epoch with the lowest
        validation loss is kept, and the learning rate falls when that loss does not.</p>""",
}


# %% [markdown]
# How much of the answer lies in plain brightness at fixed places, and what does that cost? A multilayer
# perceptron joins every pixel to every unit of its first layer. It has no notion of neighbourhood: shuffle
# the pixels of all films in the same way, once augmented, and it learns exactly as well.
#
# ## The network
#
# Three dense layers, each followed by batch normalisation and dropout, and one sigmoid: the probability of
# pneumonia.

# %%
#| export
def build_mlp(
    image_size: int = 224, # side of the films, pixels
) -> keras.Model: # (N, image_size, image_size, 1) gray 0-255 → (N, 1) probability of pneumonia; not compiled
    "The study's multilayer perceptron."
    inputs, x = gray_input(image_size)
    x = layers.Flatten()(layers.Rescaling(1 / 255)(x))
    for units in (512, 256, 128):
        dropout, normalisation = layers.Dropout(.5), layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM)
        x = dropout(normalisation(layers.Dense(units, activation="relu")(x)))
    return keras.Model(inputs, layers.Dense(1, activation="sigmoid", name="pneumonia")(x), name="mlp")


# %% [markdown]
# At 224 pixels, nearly all of its 77 million parameters sit between the film and the first 512 units:

# %%
model = build_mlp(224)
trained = sum(w.numpy().size for w in model.trainable_weights)
test_eq((model.count_params(), trained), (77_238_785, 77_236_993))   # as in the reference study
test_eq((model.input_shape, model.output_shape), ((None, 224, 224, 1), (None, 1)))
first = first_dense(model).count_params()
print(f"{first / model.count_params():.1%} of the parameters are in the first dense layer")
del model   # 0.3 GB

# %% [markdown]
# ## This run
#
# The three channels are equal, so they are trained as one, with a third of the weights to move in each step.
# The chapter on networks shows that this changes nothing else.

# %%
stage = open_stage("mlp", run_dir, seed=seed, image_size=image_size, batch_size=batch_size, epochs=epochs,
                   learning_rate=learning_rate, jit_compile=jit_compile)
films = load_films(stage, image_size, seed)
source = film_source(films, seed, load_ranges(stage))
set_seed(seed)
model = build_mlp(image_size)
folded = fold_channels(model)
compile_model(folded, learning_rate, jit_compile)
history = train_model(stage, "mlp", folded, source, epochs, batch_size, seed)

# %% [markdown]
# [The figure](#fig-mlp_network) shows the network from the film above to the answer below. Every yellow
# square is a layer that joins all that came before.

# %%
show_network(stage, model)

# %% [markdown]
# [The curves](#fig-mlp_history) show the training epoch by epoch; the line marks the epoch that was kept.
#
# *Loss* is what training makes small; an *epoch* is one pass through the train films. Train is measured on
# films turned and shifted at random, with dropout and weights for the classes. Validation is measured on
# untouched films with the whole network, so it can look better than train without anything being wrong.

# %%
show_history(stage, "mlp", history)

# %% [markdown]
# ## What it comes to

# %%
unfold_channels(folded, model)
predictions = keep_model(stage, "mlp", model, source, history, batch_size=batch_size)
display(Markdown(training_findings("mlp", model, history, epochs)))
record = finish(stage)


# %% [markdown]
# ## A quick one for other chapters
#
# A chapter that needs a trained model calls `train_quick` where a run has no predictions. That is for
# phantoms only; on real films a model stage must be run first.

# %%
#| export
def train_quick(
    stage: Stage, # any stage, in a run without predictions
):
    "Train a small MLP for one epoch on phantoms of 32 pixels and keep it."
    films = load_films(stage, 32)
    if films.images.attrs["source"] != "phantoms":
        raise StudyError(f"Expected predictions/*.csv in {stage.folder}, found none; "
                         "run a model stage on these films first.")
    note(stage, "no predictions in this run, so an MLP was trained for one epoch "
                "on phantoms of 32 pixels.")
    set_seed(42)
    model, source = build_mlp(32), film_source(films, 42, AUGMENTATION)
    compile_model(model, 1e-3)
    history = train_model(stage, "mlp", model, source, epochs=1, batch_size=16, seed=42)
    keep_model(stage, "mlp", model, source, history)
