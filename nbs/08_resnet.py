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
# > A deep network made for photographs, first with its trunk frozen, then with its last blocks trained

# %%
#| default_exp resnet

# %%
#| export
import hashlib, time
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from keras import layers
from sklearn.metrics import log_loss, roc_auc_score

from pneumo_nb.run import StudyError
from pneumo_nb.preprocessing import Source, cached_array, seconds_to_make, take
from pneumo_nb.training import compile_model, fit, predict_films, seed_states, set_seed_states
from pneumo_nb.mlp import BATCH_NORM_MOMENTUM, gray_input

# %%
#| hide
from fastcore.test import test_close, test_eq, test_fail
from IPython.display import Markdown, display
from pneumo_nb.run import finish, note, open_stage, plot_style, set_seed
from pneumo_nb.preprocessing import film_source, load_films, load_ranges
from pneumo_nb.training import FusedBatchNormalization, show_history, train_model, training_findings, write_predictions
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
views = 2             # augmented versions of each train film, used in turn and kept in the cache; 0: a new one in every epoch, through the whole network
compare_views = [1, 2, 4] # numbers of views to compare on validation; [] for none
jit_compile = False

# %% [markdown]
# ResNet50 (He et al., 2016; arXiv:1512.03385) comes with weights learned on a million photographs. Transfer learning bets that what it
# learned about edges and textures serves radiographs too: keep its trunk, put a new head on it, train the head, and only
# then let the last blocks of the trunk follow, gently. Both steps are kept as models of their own, so that each can be
# tested and timed. A run can also begin with random weights. It says so below, and then nothing is transferred: "frozen" means a
# trunk that never learned anything.

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
def split_blocks(
    trunk: keras.Model,
    blocks: int, # how many, from the end
) -> tuple[list[str], list[str]]: # names of the blocks before, and of these
    "The residual blocks, from the film to the top, in two parts."
    names = list(dict.fromkeys("_".join(l.name.split("_")[:2]) for l in trunk.layers if "_block" in l.name))
    if not 0 <= blocks <= len(names): raise StudyError(f"Expected 0 to {len(names)} blocks to fine-tune, found {blocks}.")
    return names[:len(names) - blocks], names[len(names) - blocks:]

def unfreeze_blocks(
    model: keras.Model, # from `build_resnet`, changed in place
    blocks: int,        # how many, from the end; 0 to 16
) -> list[str]: # names of the blocks that are trained from now on
    "Let the last residual blocks of the trunk be trained, but not their batch normalisation."
    trunk = model.get_layer("resnet50")
    _, chosen = split_blocks(trunk, blocks)
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
# ## What does not change is computed once
#
# While the trunk is frozen it gives the same numbers for the same film in every epoch, and it is where nearly all of the
# time goes. So a film is sent through it once for each augmented **view**, and the **features** that come out are
# kept in the cache; the part that is trained then starts from them. When the last blocks are trained too, everything before them
# is still frozen, and its output is what is kept.
#
# That limits augmentation to a fixed number of views, used in turn: epoch 5 of a training with two views sees what
# epochs 1 and 3 saw. `views = 0` lifts the limit and goes through the whole network each time.
#
# First the two parts. They share their layers with the model, so training the second trains the model.

# %%
#| export
def split_model(
    model: keras.Model, # from `build_resnet`
    blocks: int,        # how many blocks, counted from the end, belong to the second part; 0: the head alone
) -> tuple[keras.Model, keras.Model]: # film → features, features → probability
    "The model in two parts that share its layers."
    trunk = model.get_layer("resnet50")
    before, _ = split_blocks(trunk, blocks)
    cut = trunk.output if not blocks else trunk.get_layer(f"{before[-1]}_out" if before else "pool1_pool").output
    front = keras.Model(model.input, keras.Model(trunk.input, cut)(model.get_layer("imagenet_preprocessing").output, training=False), name="front")
    inputs = keras.Input(cut.shape[1:], name="features")
    x = keras.Model(cut, trunk.output, name="blocks")(inputs, training=False) if blocks else inputs
    for layer in model.layers[model.layers.index(trunk) + 1:]: x = layer(x)
    return front, keras.Model(inputs, x, name=model.name)


# %%
films = np.random.default_rng(0).uniform(0, 255, (2, 224, 224, 1)).astype(np.float32)
for blocks in (0, 3):
    front, back = split_model(model, blocks)
    print(f"{blocks} blocks: features {front.output_shape[1:]}")
    test_close(back.predict_on_batch(front.predict_on_batch(films)), model.predict_on_batch(films), eps=1e-5)


# %% [markdown]
# Then the features of all films, as another `Source` to train from. The cache's key holds the trunk's weights, so features of
# other weights are never taken for these.

# %%
#| export
def weights_digest(model: keras.Model) -> str:
    "Fingerprint of a network's weights and of the shape it gives."
    digest = hashlib.sha1(repr(model.output_shape).encode())
    for w in model.get_weights(): digest.update(np.ascontiguousarray(w).data)
    return digest.hexdigest()

def cached_features(
    front: keras.Model,  # film → features
    read,                # function of view and (b,) indices → what `front` takes
    view: int,
    rows: np.ndarray,    # which films
    key: dict,           # everything but the view and the films that the features depend on
    batch_size: int = 32,
) -> np.ndarray: # (len(rows), *features) float32, memory-mapped
    "Features of some films, from the cache or computed now."
    shape = (len(rows), *front.output_shape[1:])
    batches = lambda: (front.predict_on_batch(read(view, rows[i:i + batch_size])) for i in range(0, len(rows), batch_size))
    return cached_array(key | dict(kind="features", view=view, rows=hashlib.sha1(rows.astype(np.int64).tobytes()).hexdigest()), shape, np.float32, batches)

def feature_source(
    source: Source,      # from `film_source`, with the same number of views
    front: keras.Model,  # frozen; film → features
    views: int,          # 1 or more
) -> tuple[Source, float]: # features in place of films; seconds that they took, whenever they were made
    "Features of `views` versions of every train film, and of the others as they are."
    if views < 1: raise StudyError(f"Expected 1 view or more to keep features of, found {views}.")
    train, rest = source.films.rows("train"), np.flatnonzero(source.films.images.split != "train")
    weights = [*source.key.get("weights", []), weights_digest(front)]  # all that a film has come through
    always = dict(weights=weights, keras=keras.__version__, pixels=source.key["pixels"])
    moved = always | {k: source.key[k] for k in ("ranges", "seed")}
    made = [cached_features(front, source.training, view, train, moved) for view in range(views)]
    plain = cached_features(front, source.plain, 0, rest, always)
    return replace(source, shape=plain.shape[1:], dtype=np.float32, key=source.key | always,
                   training=lambda epoch, chosen: take(made[int(epoch) % views], np.searchsorted(train, chosen)),
                   plain=lambda epoch, chosen: take(plain, np.searchsorted(rest, chosen))), sum(map(seconds_to_make, [*made, plain]))


# %% [markdown]
# For both steps in one pass: a film goes through the trunk up to the blocks that fine-tuning will train, and from there,
# once more from the cache, to the top.

# %%
#| export
def trunk_features(
    model: keras.Model,  # from `build_resnet`
    source: Source,      # from `film_source`, with the same number of views
    blocks: int,         # blocks that fine-tuning will train
    views: int,
) -> tuple[Source, Source, float]: # what enters these blocks; what enters the head; seconds for both
    "The features that fine-tuning and the head start from."
    front, back = split_model(model, blocks)
    lower, seconds = feature_source(source, front, views)
    if not blocks: return lower, lower, seconds
    top, more = feature_source(lower, back.get_layer("blocks"), views)
    return lower, top, seconds + more


# %% [markdown]
# ## This run, frozen

# %%
stage = open_stage("resnet", run_dir, seed=seed, image_size=image_size, batch_size=batch_size, weights=weights,
                   frozen_epochs=frozen_epochs, frozen_learning_rate=frozen_learning_rate, finetune_epochs=finetune_epochs,
                   finetune_learning_rate=finetune_learning_rate, finetune_blocks=finetune_blocks, views=views,
                   compare_views=compare_views, jit_compile=jit_compile)
if weights == "none": note(stage, 'weights is "none": the trunk is random, so nothing is transferred and the frozen model sees the films '
                                  "through a random projection.")


# %% [markdown]
# How many views? More of them show the head more of what augmentation can do, and each costs one pass of all train films through
# the trunk. The table tries some, each with a new head, trained for all epochs without early stopping and judged on
# validation as it is at the end, so its numbers differ from those of the model kept below; `seconds` counts features and head.

# %%
#| export
def try_views(
    model: keras.Model, # from `build_resnet`; its head is trained for each number and put back
    sources: dict[int, tuple[Source, float]], # number of views → what enters the head, and seconds that took
    epochs: int,
    learning_rate: float,
    batch_size: int,
    seed: int,
) -> pd.DataFrame: # views, validation AUROC and loss, seconds for features and head
    "The head trained on different numbers of views."
    rows, (_, head) = [], split_model(model, 0)
    weights, seeds = head.get_weights(), [v.numpy() for v in seed_states(head)]
    for views, (source, seconds) in sources.items():
        compile_model(head, learning_rate)
        start, validation = time.time(), source.films.rows("validation")
        fit(head, source, epochs, batch_size, seed)
        labels, said = source.films.labels[validation], predict_films(head, source, validation)
        rows.append(dict(views=views, auroc=roc_auc_score(labels, said), loss=log_loss(labels, said.astype(float)), seconds=seconds + time.time() - start))
        head.set_weights(weights)   # as it was, for the next number and for the run
        set_seed_states(head, seeds)
    return pd.DataFrame(rows)


# %%
films, ranges = load_films(stage, image_size, seed), load_ranges(stage)
set_seed(seed)
model = build_resnet(image_size, weights)
if compare_views:
    tried = {n: trunk_features(model, film_source(films, seed, ranges, n), finetune_blocks, n)[1:] for n in compare_views}
    display(try_views(model, tried, frozen_epochs, frozen_learning_rate, batch_size, seed).style.hide(axis="index").format(
        {"auroc": "{:.3f}", "loss": "{:.3f}", "seconds": "{:,.1f}"}))

# %% [markdown]
# The head is trained on the features; [the curves](#fig-resnet_frozen_history) follow it. An interruption during the second step does not repeat the first: its last state is
# kept until the stage is finished.

# %%
source = film_source(films, seed, ranges, views)
if views:
    lower, features, seconds = trunk_features(model, source, finetune_blocks, views)
    (_, head), (_, blocks_and_head) = split_model(model, 0), split_model(model, finetune_blocks)
    print(f"Features of {views} views of each train film, {lower.shape} and {features.shape} each, took {seconds:,.1f} s when they were made.")
else: lower, features, seconds, head, blocks_and_head = source, source, 0., model, model
compile_model(head, frozen_learning_rate, jit_compile)
frozen = train_model(stage, "resnet_frozen", head, features, frozen_epochs, batch_size, seed, seconds_before=seconds, whole=lambda: model)

# %%
show_history(stage, "resnet_frozen", frozen)
write_predictions(stage, "resnet_frozen", head, features, batch_size)
display(Markdown(training_findings("resnet_frozen", model, frozen, frozen_epochs)))

# %% [markdown]
# ## This run, fine-tuned
#
# [The curves](#fig-resnet_finetuned_history) begin where the frozen stage ended.

# %%
unfreeze_blocks(model, finetune_blocks)
compile_model(blocks_and_head, finetune_learning_rate, jit_compile)
tuned = train_model(stage, "resnet_finetuned", blocks_and_head, lower, finetune_epochs, batch_size, seed,
                    seconds_before=frozen.total_seconds.iloc[-1], whole=lambda: model)

# %%
show_history(stage, "resnet_finetuned", tuned)
write_predictions(stage, "resnet_finetuned", blocks_and_head, lower, batch_size)
display(Markdown(training_findings("resnet_finetuned", model, tuned, finetune_epochs)))
record = finish(stage)


# %% [markdown]
# ## A compact one
#
# ResNet50 was made for a thousand kinds of things in colour. The same idea, a block that adds what it has found to what it was given, works with a twentieth of
# the parameters. `build_compact` has a first convolution of stride 2 and a block for each width, each but the first halving the
# resolution. The last normalisation in a block starts at zero, so that every block begins as its short cut alone (Goyal et al., 2017; arXiv:1706.02677). Its
# answers are logits, one for each class; the next chapter trains it, on films of its own preparation, and says why.

# %%
#| export
def residual_block(x, width: int, stride: int, norm, dtype):
    "Two 3 × 3 convolutions added to their input, which is averaged and projected where the shape changes."
    convolution = lambda size, stride=1: layers.Conv2D(width, size, stride, padding="same", use_bias=False, dtype=dtype)
    inner = layers.ReLU(dtype=dtype)(norm(momentum=BATCH_NORM_MOMENTUM, dtype=dtype)(convolution(3, stride)(x)))
    inner = norm(momentum=BATCH_NORM_MOMENTUM, gamma_initializer="zeros", dtype=dtype)(convolution(3)(inner))
    if stride > 1: x = layers.AveragePooling2D(stride, padding="same", dtype=dtype)(x)
    if stride > 1 or x.shape[-1] != width: x = norm(momentum=BATCH_NORM_MOMENTUM, dtype=dtype)(convolution(1)(x))
    return layers.ReLU(dtype=dtype)(layers.Add(dtype=dtype)([inner, x]))

def build_compact(
    image_size: int = 96,           # side of the films, pixels; at least 16
    widths=(32, 64, 128, 256),      # filters of each block
    classes: int = 3,
    norm=layers.BatchNormalization, # or `FusedBatchNormalization`, faster in training; the same weights in the same order
    dtype: str = "float32",         # or "mixed_bfloat16": products of half the length, weights still float32
) -> keras.Model: # (N, image_size, image_size, 1) prepared films → (N, classes) logits, float32; not compiled
    "A residual network of two convolutions a width."
    inputs = keras.Input((image_size, image_size, 1), name="prepared")
    x = layers.Conv2D(widths[0], 5, 2, padding="same", use_bias=False, dtype=dtype)(inputs)
    x = layers.ReLU(dtype=dtype)(norm(momentum=BATCH_NORM_MOMENTUM, dtype=dtype)(x))
    for n, width in enumerate(widths): x = residual_block(x, width, 2 if n else 1, norm, dtype)
    x = layers.Dropout(.2, dtype=dtype)(layers.GlobalAveragePooling2D(dtype=dtype)(x))
    return keras.Model(inputs, layers.Dense(classes, name="logits", dtype="float32")(x), name="compact")


# %%
compact = build_compact(96)
test_eq((compact.input_shape, compact.output_shape), ((None, 96, 96, 1), (None, 3)))
assert compact.count_params() < 26_211_201 / 20
some = np.random.default_rng(0).normal(size=(2, 96, 96, 1)).astype(np.float32)
fused = build_compact(96, norm=FusedBatchNormalization)
fused.set_weights(compact.get_weights())
test_close(fused.predict_on_batch(some), compact.predict_on_batch(some), eps=1e-6)
print(f"{compact.count_params():,} parameters")
