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
# # The residual network
#
# > A network that learned on photographs, first with its trunk frozen, then with its last blocks trained

# %%
#| default_exp resnet

# %%
#| export
import keras
from keras import layers
import numpy as np
from pathlib import Path

from pneumo_nb.run import StudyError
from pneumo_nb.mlp import gray_input

# %%
#| hide
from fastcore.test import test_close, test_eq, test_fail
from IPython.display import Markdown, display
from pneumo_nb.run import finish, note, open_stage, plot_style, set_seed
from pneumo_nb.preprocessing import load_films, load_ranges
from pneumo_nb.training import compile_model, show_history, train_model, training_findings, write_predictions
plot_style()

# %% tags=["parameters"]
run_dir = ""          # the run directory; "" for a temporary one
seed = 42             # decides initial weights, dropout, order and augmentation
image_size = 64       # side of the films, pixels
batch_size = 32
weights = "none"      # of the trunk: "imagenet", "none" (random) or a weights file
frozen_epochs = 2     # at most, training the head alone
frozen_learning_rate = 1e-4
finetune_epochs = 2   # at most, training the head and the last blocks
finetune_learning_rate = 1e-5
finetune_blocks = 3   # residual blocks unfrozen, counted from the end; the study's 30 layers are these three but for two
jit_compile = False

# %% [markdown]
# ResNet50 (He et al., 2016; arXiv:1512.03385) was trained on a million photographs. Transfer learning bets that what it
# learned about edges and textures serves radiographs too: keep its trunk, put a new head on it, train the head, and only
# then let the last blocks of the trunk follow, gently. Both steps are kept as models of their own, so that each can be
# tested and timed.

# %% [markdown]
# ## The trunk and its weights
#
# The ImageNet weights expect what they were trained on: blue, green, red in 0-255 with ImageNet's mean taken off. That
# step is part of the network here (feeding [0, 1] instead, a common slip, leaves the trunk nearly blind). With
# `weights="none"` the trunk is random. If ImageNet's weights cannot be downloaded, that is an error: a study that quietly
# went on with random ones would report transfer learning that never happened.

# %%
#| export
IMAGENET_MEAN = (103.939, 116.779, 123.68)  # blue, green, red

def build_trunk(
    image_size: int,     # side of the films, pixels; at least 32
    weights: str | None, # "imagenet", "none" (random) or a weights file
) -> keras.Model: # (N, image_size, image_size, 3) → (N, 2048)
    "ResNet50 without its top, globally averaged."
    if image_size < 32: raise StudyError(f"Expected an image_size of at least 32 pixels for ResNet50, found {image_size}.")
    source = None if weights in (None, "none") else weights
    if source not in (None, "imagenet") and not Path(source).is_file():
        raise StudyError(f'Expected weights to be "imagenet", "none" or a file, found {source!r}, which is no file here.')
    shape = (image_size, image_size, 3)
    try: return keras.applications.ResNet50(include_top=False, weights=source, input_shape=shape, pooling="avg", name="resnet50")
    except Exception as e:
        reason = str(e).splitlines()[0][:200] if str(e) else type(e).__name__
        if source != "imagenet": raise StudyError(f"Expected {source} to hold weights of ResNet50 without its top, found: {reason}") from None
        raise StudyError("Could not fetch the ImageNet weights of ResNet50 "
            f'({reason}); connect to the network, give a weights file, or set weights to "none" for a random trunk.') from None


# %% [markdown]
# ## The network
#
# The trunk runs in inference mode throughout: its batch normalisation keeps the statistics it came with. Waking it up
# during fine-tuning would replace them with those of a few small batches and undo what was transferred.

# %%
#| export
def build_resnet(
    image_size: int = 224,             # side of the films, pixels; at least 32
    weights: str | None = "imagenet",  # of the trunk: "imagenet", "none" (random) or a weights file
) -> keras.Model: # (N, image_size, image_size, 1) gray 0-255 → (N, 1) probability of pneumonia; not compiled
    "ResNet50, frozen, with the study's head."
    inputs, x = gray_input(image_size)
    trunk = build_trunk(image_size, weights)
    trunk.trainable = False
    x = layers.Rescaling(1., offset=[-m for m in IMAGENET_MEAN], name="imagenet_preprocessing")(x)
    x = trunk(x, training=False)
    for units in (1024, 512):
        x = layers.Dropout(.5)(layers.Dense(units, activation="relu")(x))
    return keras.Model(inputs, layers.Dense(1, activation="sigmoid", name="pneumonia")(x), name="resnet_frozen")


# %%
model = build_resnet(224, weights="none")
test_eq(model.count_params(), 26_211_201)   # as in the reference study
test_eq(sum(w.numpy().size for w in model.trainable_weights), 2_623_489)
test_eq((model.input_shape, model.output_shape), ((None, 224, 224, 1), (None, 1)))
test_fail(lambda: build_resnet(224, weights="no_such.weights.h5"), contains='"imagenet", "none" or a file')

# %% [markdown]
# What enters the trunk for a black and a white pixel is what `keras.applications` itself would make of them:

# %%
into_trunk = keras.Model(model.input, model.get_layer("imagenet_preprocessing").output)
gray = np.array([0., 255.], np.float32).reshape(2, 1, 1, 1) * np.ones((2, 224, 224, 1), np.float32)
expected = keras.applications.resnet50.preprocess_input(np.repeat(gray, 3, axis=-1).copy())
test_close(np.asarray(into_trunk(gray)), expected, eps=1e-4)
expected[:, 0, 0]


# %% [markdown]
# ## Fine-tuning
#
# A residual block adds its output to its input; cutting through one trains half a sum. The study's "last 30 layers" begin
# inside a block, so they are rounded to whole ones: the last three, which are all of the trunk's fifth group. Their
# batch normalisation stays frozen.

# %%
#| export
def unfreeze_blocks(
    model: keras.Model, # from `build_resnet`, changed in place
    blocks: int,        # how many, from the end; 0 to 16
) -> list[str]: # names of the blocks that are trained from now on
    "Let the last residual blocks of the trunk be trained, but not their batch normalisation."
    trunk = model.get_layer("resnet50")
    names = list(dict.fromkeys("_".join(l.name.split("_")[:2]) for l in trunk.layers if "_block" in l.name))
    if not 0 <= blocks <= len(names): raise StudyError(f"Expected 0 to {len(names)} blocks to fine-tune, found {blocks}.")
    chosen = names[len(names) - blocks:]
    trunk.trainable = True
    for layer in trunk.layers:
        layer.trainable = layer.name.startswith(tuple(f"{c}_" for c in chosen)) and not isinstance(layer, layers.BatchNormalization)
    return chosen


# %%
test_eq(unfreeze_blocks(model, 3), ["conv5_block1", "conv5_block2", "conv5_block3"])
trained = [l.name for l in model.get_layer("resnet50").layers if l.trainable and l.weights]
test_eq(len(trained), 10)                       # nine convolutions and a shortcut, no batch normalisation
test_fail(lambda: unfreeze_blocks(model, 17), contains="0 to 16 blocks")
trained

# %% [markdown]
# ## This run, frozen

# %%
stage = open_stage("resnet", run_dir, seed=seed, image_size=image_size, batch_size=batch_size, weights=weights,
                   frozen_epochs=frozen_epochs, frozen_learning_rate=frozen_learning_rate, finetune_epochs=finetune_epochs,
                   finetune_learning_rate=finetune_learning_rate, finetune_blocks=finetune_blocks, jit_compile=jit_compile)
films, ranges = load_films(stage, image_size, seed), load_ranges(stage)
if weights == "none": note(stage, 'weights is "none": the trunk is random, so nothing is transferred and the frozen model sees the films '
                                  "through a random projection.")

# %% [markdown]
# An interruption during the second step does not repeat the first: its last state is kept until the stage is finished.

# %%
set_seed(seed)
model = build_resnet(image_size, weights)
compile_model(model, frozen_learning_rate, jit_compile)
frozen = train_model(stage, "resnet_frozen", model, films, ranges, frozen_epochs, batch_size, seed)

# %%
show_history(stage, "resnet_frozen", frozen)
write_predictions(stage, "resnet_frozen", model, films, batch_size)
display(Markdown(training_findings("resnet_frozen", model, frozen, frozen_epochs)))

# %% [markdown]
# ## This run, fine-tuned

# %%
blocks = unfreeze_blocks(model, finetune_blocks)
compile_model(model, finetune_learning_rate, jit_compile)
tuned = train_model(stage, "resnet_finetuned", model, films, ranges, finetune_epochs, batch_size, seed,
                    seconds_before=frozen.total_seconds.iloc[-1])

# %%
show_history(stage, "resnet_finetuned", tuned)
write_predictions(stage, "resnet_finetuned", model, films, batch_size)
display(Markdown(training_findings("resnet_finetuned", model, tuned, finetune_epochs)))
record = finish(stage)
