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
import time
from functools import partial
from pathlib import Path

import keras
import pandas as pd
from keras import layers

from pneumo_nb.run import StudyError
from pneumo_nb.measures import auroc
from pneumo_nb.batches import Source, feature_source
from pneumo_nb.networks import gray_input, seed_states, set_seed_states
from pneumo_nb.training import compile_model, fit, predict_films

# %%
#| hide
import numpy as np
from fastcore.test import test_close, test_eq, test_fail
from IPython.display import Markdown, display
from pneumo_nb.run import finish, note, open_stage, set_seed
from pneumo_nb.style import plot_style, readable
from pneumo_nb.batches import film_source
from pneumo_nb.training import keep_model, show_history, show_network, train_model, training_findings
from pneumo_nb.preprocessing import load_films, load_ranges
plot_style()

# %% tags=["parameters"]
run_dir = ""          # the run directory; "" for a temporary one
seed = 42             # decides initial weights, dropout, order and augmentation
image_size = 64       # side of the films, pixels
batch_size = 32
weights = "none"      # of the trunk: "imagenet", "none" (random) or a weights file
# the head alone, on a frozen trunk
frozen_epochs = 2     # at most
frozen_learning_rate = 1e-4
# then the head and the last blocks
finetune_epochs = 2   # at most
finetune_learning_rate = 1e-5
finetune_blocks = 3   # residual blocks, from the end; the study's 30 layers are these three but for two
# versions of a train film
views = 2             # augmented versions, used in turn and cached; 0: a new one in every epoch
compare_views = [1, 2, 4] # numbers of views to compare on validation; [] for none
jit_compile = False

# %%
#| export
RANGES = {
    "image_size": "whole number from 32 to 1024",
    "batch_size": "whole number from 1 to 4096",
    "weights": "plain text",
    "frozen_epochs, finetune_epochs": "whole number from 1 to 10000",
    "frozen_learning_rate, finetune_learning_rate": "number above 0 and up to 1",
    "finetune_blocks": "whole number from 0 to 16",
    "views": "whole number from 0 to 100",
    "compare_views": "list of whole numbers from 1 to 100",
    "jit_compile": "true or false",
}

# %%
#| export
STAGE = {
    "reads": ["images.csv", "metrics/preprocessing.json"],
    "models": {
        "resnet_frozen": {"title": "ResNet50, frozen", "colour": "#56B4E9", "dash": "--"},
        "resnet_finetuned": {"title": "ResNet50, fine-tuned", "colour": "#4D4D4D", "dash": "-."},
    },
    "card": ["resnet_finetuned_history", "resnet_frozen_history"],
    "methods": """<p>ResNet50 takes films of {{ p.image_size }} pixels a side and begins with
        {% if p.weights == "imagenet" %}weights learned on ImageNet{% elif p.weights == "none" %}random
        weights{% else %}weights from a file{% endif %}. Adam minimises the binary cross-entropy, each class
        with the same weight in sum: at most {{ p.frozen_epochs }} epochs for a new head (learning rate
        {{ p.frozen_learning_rate }}), then at most {{ p.finetune_epochs }} for the head and the last
        {{ p.finetune_blocks }} blocks (learning rate {{ p.finetune_learning_rate }}). Each time the epoch
        with the lowest validation loss is kept, and the learning rate falls when that loss does not.</p>""",
    "remark": "{% if p.weights == 'none' %}random weights{% endif %}",
    "caution": """{% if p.weights == "none" %}<strong>ResNet50 began with random weights here</strong>,
        not with those learned on photographs. Its rows say nothing about transfer learning.{% endif %}""",
    "paths": {"weights": ["imagenet", "none"]},
}


# %% [markdown]
# Does what a network learned from photographs serve radiographs? ResNet50 (He et al., 2016; arXiv:1512.03385)
# comes with weights learned on a million photographs. Transfer learning bets that what it learned about edges
# and textures is of use here too. It keeps the trunk, puts a new head on it and trains the head. Only then
# may the last blocks of the trunk follow, gently.
#
# Both steps are kept as models of their own, so that each can be tested and timed. A run can also begin with
# random weights. It says so below, and then nothing is transferred: "frozen" means a trunk that never learned
# anything.

# %% [markdown]
# ## The trunk and its weights
#
# With `weights="none"` the trunk is random. If ImageNet's weights cannot be downloaded, that is an error. A
# study that quietly went on with random ones would report transfer learning that never happened.

# %%
#| export
def _weights_error(
    source: str,          # "imagenet" or a weights file
    error: Exception,     # of Keras
) -> StudyError:
    "What went wrong, in one sentence."
    reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    if source != "imagenet":
        return StudyError(f"Expected {source} to hold weights of ResNet50 without its top, found: {reason}")
    return StudyError(f"Could not fetch the ImageNet weights of ResNet50 ({reason}); connect to the network, "
                      'give a weights file, or set weights to "none" for a random trunk.')


# %%
#| export
def _load_trunk(
    image_size: int,      # side of the films, pixels
    source: str | None,   # "imagenet", a weights file, or None for random weights
) -> keras.Model: # (N, image_size, image_size, 3) → (N, 2048)
    "ResNet50 from `keras.applications`."
    shape = (image_size, image_size, 3)
    build = partial(keras.applications.ResNet50, include_top=False, pooling="avg", name="resnet50")
    try: return build(weights=source, input_shape=shape)
    except Exception as e: # network, disk, file format: Keras has many errors for them
        raise _weights_error(source, e) from None


# %%
#| export
def _build_trunk(
    image_size: int,     # side of the films, pixels; at least 32
    weights: str | None, # "imagenet", "none" (random) or a weights file
) -> keras.Model: # (N, image_size, image_size, 3) → (N, 2048)
    "ResNet50 without its top, globally averaged."
    if image_size < 32:
        raise StudyError(f"Expected an image_size of at least 32 pixels for ResNet50, found {image_size}.")
    source = None if weights in (None, "none") else weights
    if source not in (None, "imagenet") and not Path(source).is_file():
        raise StudyError(f'Expected weights to be "imagenet", "none" or a file, found {source!r}, '
                         "which is no file here.")
    return _load_trunk(image_size, source)


# %%
test_fail(lambda: _build_trunk(224, "no_such.weights.h5"), contains='"imagenet", "none" or a file')
test_fail(lambda: _build_trunk(24, "none"), contains="at least 32 pixels for ResNet50, found 24")

# %% [markdown]
# ## The network
#
# The ImageNet weights expect what they were trained on: blue, green, red in 0-255 with ImageNet's mean taken
# off. That step is part of the network here. Feeding [0, 1] instead, a common slip, leaves the trunk nearly
# blind.
#
# The trunk runs in inference mode throughout, so its batch normalisation keeps the statistics that it came
# with. Waking it up during fine-tuning would replace them with those of a few small batches and undo what was
# transferred.

# %%
#| export
_IMAGENET_MEAN = (103.939, 116.779, 123.68)  # blue, green, red


# %%
#| export
def build_resnet(
    image_size: int = 224,             # side of the films, pixels; at least 32
    weights: str | None = "imagenet",  # of the trunk: "imagenet", "none" (random) or a weights file
) -> keras.Model: # (N, image_size, image_size, 1) gray 0-255 → (N, 1) probability of pneumonia; not compiled
    "ResNet50, frozen, with the study's head."
    inputs, x = gray_input(image_size)
    trunk = _build_trunk(image_size, weights)
    trunk.trainable = False
    x = layers.Rescaling(1., offset=[-m for m in _IMAGENET_MEAN], name="imagenet_preprocessing")(x)
    x = trunk(x, training=False)
    for units in (1024, 512):
        x = layers.Dropout(.5)(layers.Dense(units, activation="relu")(x))
    output = layers.Dense(1, activation="sigmoid", name="pneumonia")(x)
    return keras.Model(inputs, output, name="resnet_frozen")


# %%
model = build_resnet(224, weights="none")
trained = sum(w.numpy().size for w in model.trainable_weights)
test_eq((model.count_params(), trained), (26_211_201, 2_623_489))   # as in the reference study
test_eq((model.input_shape, model.output_shape), ((None, 224, 224, 1), (None, 1)))

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
# A residual block adds its output to its input; cutting through one trains half a sum. The study's "last 30
# layers" begin inside a block, so they are rounded to whole ones: the last three, which are all of the
# trunk's fifth group. Their batch normalisation stays frozen.

# %%
#| export
def _split_blocks(
    trunk: keras.Model,
    blocks: int, # how many, from the end
) -> tuple[list[str], list[str]]: # names of the blocks before, and of these
    "The residual blocks, from the film to the top, in two parts."
    names = list(dict.fromkeys("_".join(l.name.split("_")[:2]) for l in trunk.layers if "_block" in l.name))
    if not 0 <= blocks <= len(names):
        raise StudyError(f"Expected 0 to {len(names)} blocks to fine-tune, found {blocks}.")
    return names[:len(names) - blocks], names[len(names) - blocks:]


# %%
#| export
def unfreeze_blocks(
    model: keras.Model, # from `build_resnet`, changed in place
    blocks: int,        # how many, from the end; 0 to 16
) -> list[str]: # names of the blocks that are trained from now on
    "Let the last residual blocks of the trunk be trained, but not their batch normalisation."
    trunk = model.get_layer("resnet50")
    _, chosen = _split_blocks(trunk, blocks)
    trunk.trainable = True
    for layer in trunk.layers:
        in_blocks = layer.name.startswith(tuple(f"{name}_" for name in chosen))
        layer.trainable = in_blocks and not isinstance(layer, layers.BatchNormalization)
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
# While the trunk is frozen it gives the same numbers for the same film in every epoch, and it is where nearly
# all of the time goes. So a film is sent through it once for each augmented **view**. The **features** that
# come out are kept in the cache, and the part that is trained starts from them. When the last blocks are
# trained too, everything before them is still frozen, and its output is what is kept.
#
# That limits augmentation to a fixed number of views, used in turn. Epoch 5 of a training with two views sees
# what epochs 1 and 3 saw. `views = 0` lifts the limit and goes through the whole network each time.
#
# First the two parts. They share their layers with the model, so training the second trains the model.

# %%
#| export
def split_model(
    model: keras.Model, # from `build_resnet`
    blocks: int,        # how many blocks, counted from the end, belong to the second part; 0: the head alone
) -> tuple[keras.Model, keras.Model]: # film → features, features → probability
    "The model in two parts that share its layers."
    trunk, prepared = model.get_layer("resnet50"), model.get_layer("imagenet_preprocessing").output
    before, _ = _split_blocks(trunk, blocks)
    last = f"{before[-1]}_out" if before else "pool1_pool"
    cut = trunk.get_layer(last).output if blocks else trunk.output
    front = keras.Model(model.input, keras.Model(trunk.input, cut)(prepared, training=False), name="front")
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
# For both steps in one pass: a film goes through the trunk up to the blocks that fine-tuning will train. From
# there it goes to the top, once more from the cache.

# %%
#| export
def trunk_features(
    model: keras.Model,  # from `build_resnet`
    source: Source,      # from `film_source`, with the same number of views
    blocks: int,         # blocks that fine-tuning will train
    views: int,          # 1 or more
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
stage = open_stage(
    "resnet", run_dir, seed=seed, image_size=image_size, batch_size=batch_size, weights=weights,
    frozen_epochs=frozen_epochs, frozen_learning_rate=frozen_learning_rate,
    finetune_epochs=finetune_epochs, finetune_learning_rate=finetune_learning_rate,
    finetune_blocks=finetune_blocks, views=views, compare_views=compare_views, jit_compile=jit_compile)
if weights == "none":
    note(stage, 'weights is "none": the trunk is random, so nothing is transferred and the frozen model sees '
                "the films through a random projection.")


# %% [markdown]
# How many views? More of them show the head more of what augmentation can do, and each costs one pass of all
# train films through the trunk. The table tries some, each with a new head that is trained for all epochs
# without early stopping. It is judged on validation as it is at the end, so its numbers differ from those of
# the model kept below. `seconds` counts features and head.

# %%
#| export
def _try_head(
    head: keras.Model, # compiled; trained in place
    source: Source,    # what enters the head
    epochs: int,
    batch_size: int,
    seed: int,
) -> dict: # validation AUROC and loss, seconds
    "A head trained for all epochs."
    from sklearn.metrics import log_loss
    start, validation = time.time(), source.films.rows("validation")
    fit(head, source, epochs, batch_size, seed)
    labels, probability = source.films.labels[validation], predict_films(head, source, validation)
    return dict(val_auc=auroc(labels, probability), val_loss=log_loss(labels, probability.astype(float)),
                seconds=time.time() - start)


# %%
#| export
def _try_views(
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
        row = _try_head(head, source, epochs, batch_size, seed)
        rows.append(dict(views=views) | row | dict(seconds=seconds + row["seconds"]))
        head.set_weights(weights)   # as it was, for the next number and for the run
        set_seed_states(head, seeds)
    return pd.DataFrame(rows)


# %%
films, ranges = load_films(stage, image_size, seed), load_ranges(stage)
set_seed(seed)
model = build_resnet(image_size, weights)
if compare_views:
    tried = {n: trunk_features(model, film_source(films, seed, ranges, n), finetune_blocks, n)[1:]
             for n in compare_views}
    table = readable(_try_views(model, tried, frozen_epochs, frozen_learning_rate, batch_size, seed))
    display(table.style.hide(axis="index").format(precision=3).format(precision=1, subset=["seconds"]))

# %% [markdown]
# The head is trained on the features. An interruption during the second step does not repeat the first: its
# last state is kept until the stage is finished.

# %%
source = film_source(films, seed, ranges, views)
lower, features, seconds, head, blocks_and_head = source, source, 0., model, model
if views:
    lower, features, seconds = trunk_features(model, source, finetune_blocks, views)
    (_, head), (_, blocks_and_head) = split_model(model, 0), split_model(model, finetune_blocks)
    print(f"Features of {views} views of each train film, {lower.shape} and {features.shape} each, "
          f"took {seconds:,.1f} s when they were made.")

# %%
compile_model(head, frozen_learning_rate, jit_compile)
frozen = train_model(stage, "resnet_frozen", head, features, frozen_epochs, batch_size, seed, seconds)

# %% [markdown]
# [The curves](#fig-resnet_frozen_history) follow the head; the line marks the epoch that was kept.

# %%
show_history(stage, "resnet_frozen", frozen)

# %%
predictions = keep_model(stage, "resnet_frozen", head, features, frozen, saved=model, batch_size=batch_size)
display(Markdown(training_findings("resnet_frozen", model, frozen, frozen_epochs)))

# %% [markdown]
# ## This run, fine-tuned

# %%
unfreeze_blocks(model, finetune_blocks)
compile_model(blocks_and_head, finetune_learning_rate, jit_compile)
tuned = train_model(stage, "resnet_finetuned", blocks_and_head, lower, finetune_epochs, batch_size, seed,
                    seconds_before=frozen.total_seconds.iloc[-1])

# %% [markdown]
# [The network](#fig-resnet_network) from the film above to the answer below: the trunk's blocks, and a head.

# %%
show_network(stage, model)

# %% [markdown]
# [The curves](#fig-resnet_finetuned_history) begin where the frozen stage ended.

# %%
show_history(stage, "resnet_finetuned", tuned)

# %% [markdown]
# ## What it comes to

# %%
predictions = keep_model(stage, "resnet_finetuned", blocks_and_head, lower, tuned, saved=model,
                         batch_size=batch_size)
display(Markdown(training_findings("resnet_finetuned", model, tuned, finetune_epochs)))
record = finish(stage)
