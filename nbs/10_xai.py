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
# # Explanations
#
# > Which parts of a film a model's answer depends on, by covering them one after the other

# %%
#| default_exp xai

# %%
#| export
from functools import partial, reduce
from itertools import accumulate
from pathlib import Path

import cv2
import keras
from keras import layers, ops
import numpy as np
import pandas as pd

from pneumo_nb.run import CLASS_NAMES, COLOURS, MODEL_TITLES, Stage, StudyError, finish, look, note, open_stage, plot_style, read_json, rng_for, save_figure, write_csv
from pneumo_nb.preprocessing import Films, load_films
from pneumo_nb.evaluation import judged_films, load_predictions, title

# %%
#| hide
import time
import matplotlib.pyplot as plt
from fastcore.test import test_close, test_eq, test_fail
from IPython.display import Markdown, display
from pneumo_nb.cnn import build_cnn
plot_style()

# %% tags=["parameters"]
run_dir = ""        # the run directory; "" for a temporary one
seed = 42           # decides which films are explained
films_shown = 4     # right and wrong test films, picked by the seed
paths = []          # or the films to explain, as named in images.csv
mistakes_shown = 3  # misclassified films of each model
patch_size = 12     # side of the covering square, pixels
stride = 6          # step from one position to the next, pixels
fill = 127.5        # gray of the patch, 0-255


# %% [markdown]
# **Occlusion sensitivity** (Zeiler and Fergus, 2014; arXiv:1311.2901) asks a plain question: if this part of the film is
# covered, how much does the predicted probability of pneumonia change? A gray patch visits every position, and each
# pixel is given the mean change over all patches that covered it. Positive (red) means that covering lowers the
# probability: the model took that part as a sign of pneumonia. Negative (blue) means that it spoke against.
#
# What it does not tell: two parts that each suffice hide one another, the gray square is itself something no lung
# contains, and a map shows what the model uses, never whether it is right to.
#
# How the maps are computed quickly comes first. Whoever wants the films goes on to *The models and films of this run*.
#
# ## Where the patch goes
#
# Steps of `stride`, and one more position flush with the edge if the steps do not end there, so that every pixel is
# covered. At 224 pixels with the study's patch of 20 and stride of 10 that is 22 × 22 positions; its own loop made
# 21 × 21 and left the last four rows and columns out.

# %%
#| export
def patch_positions(
    size: int,       # of the film along one axis, pixels
    patch_size: int, # pixels
    stride: int,     # pixels
) -> list[int]: # first pixel of each patch
    "Where patches start along one axis, so that every pixel is covered."
    if not 1 <= patch_size <= size: raise StudyError(f"Expected a patch_size from 1 to the film's {size} pixels, found {patch_size}.")
    if not 1 <= stride <= patch_size: raise StudyError(
        f"Expected a stride from 1 to the patch_size of {patch_size} pixels, found {stride}; a larger one leaves pixels uncovered.")
    last = size - patch_size
    return sorted({*range(0, last + 1, stride), last})


# %%
test_eq(patch_positions(10, 4, 3), [0, 3, 6])
test_eq(patch_positions(11, 4, 3), [0, 3, 6, 7])
test_eq((len(patch_positions(224, 20, 10)), patch_positions(224, 20, 10)[-1] + 20), (22, 224))
test_fail(lambda: patch_positions(10, 4, 5), contains="leaves pixels uncovered")


# %% [markdown]
# ## Covering and collecting
#
# Two small steps: paste something into copies of the film, and spread the changes back over the pixels. Dividing by how
# often each pixel was covered matters: without it the middle of a film counts four times as much as its corners.

# %%
#| export
def paste(
    canvases: np.ndarray, # (P, H, W, C), changed in place
    windows: np.ndarray,  # (P, h, w, C)
    corners: np.ndarray,  # (P, 2) where the first row and column of each window go
) -> np.ndarray: # the canvases
    "Write one window into each canvas, as far as it lies inside."
    (height, width), (h, w) = canvases.shape[1:3], windows.shape[1:3]
    for canvas, window, (r, c) in zip(canvases, windows, corners):
        inside = window[max(-r, 0):max(height - r, 0), max(-c, 0):max(width - c, 0)]
        canvas[max(r, 0):max(r + h, 0), max(c, 0):max(c + w, 0)] = inside
    return canvases

def cover(
    image: np.ndarray,   # (H, W, C), a film or what some layers made of it
    windows: np.ndarray, # (P, h, w, C)
    corners: np.ndarray, # (P, 2) first row and column of each window
) -> np.ndarray: # (P, H, W, C)
    "One copy of the film for each window, covered by it."
    return paste(np.repeat(image[None], len(windows), axis=0), windows, corners)

def spread(
    changes: np.ndarray,             # (P,) of the probability, one for each patch
    corners: list[tuple[int, int]],
    patch_size: int,
    shape: tuple[int, int],          # (H, W)
) -> np.ndarray: # (H, W) float32
    "The mean change over the patches that covered each pixel."
    total, times = np.zeros(shape), np.zeros(shape)
    for change, (row, column) in zip(changes, corners):
        total[row:row + patch_size, column:column + patch_size] += change
        times[row:row + patch_size, column:column + patch_size] += 1
    return (total / times).astype(np.float32)


# %%
test_eq(cover(np.zeros((3, 3, 1)), np.full((2, 2, 2, 1), 9), [(1, 1), (2, -1)])[..., 0],
        [[[0, 0, 0], [0, 9, 9], [0, 9, 9]], [[0, 0, 0], [0, 0, 0], [9, 0, 0]]])
test_eq(spread(np.array([1., 3.]), [(0, 0), (0, 1)], 2, (2, 3)), [[1, 2, 3], [1, 2, 3]])


# %% [markdown]
# ## How far a patch reaches
#
# Predicting every covered film whole repeats nearly the same work hundreds of times. A convolution computes each value
# from its neighbours only, so behind it a patch has changed a **window** a little larger than itself, and everything
# outside is what it was on the uncovered film. Pooling halves the window. Where it lies follows from the layer's kernel,
# stride and padding:

# %%
#| export
def geometry(
    layer,         # Conv2D or MaxPooling2D
    before: tuple, # (H, W) of its input
    after: tuple,  # (H, W) of its output
) -> tuple[np.ndarray, np.ndarray, np.ndarray]: # kernel (2,), stride (2,), padding at both ends of each axis (2, 2)
    "What a layer computes one value from, how far apart, and how much is added at the edges."
    if type(layer) is layers.Conv2D: kernel = (np.array(layer.kernel_size) - 1) * layer.dilation_rate + 1
    else: kernel = np.array(layer.pool_size)
    stride = np.array(layer.strides)
    pad = np.maximum((np.array(after) - 1) * stride + kernel - before, 0)   # 0 where the layer's padding is "valid"
    return kernel, stride, np.stack([pad // 2, pad - pad // 2], axis=1)

def reach(
    corners: np.ndarray, # (P, 2) first row and column of each window
    size,                # (2,) rows and columns of the windows
    kernel: np.ndarray,  # as from `geometry`, like the next two
    stride: np.ndarray,
    pad: np.ndarray,
    after,               # (H, W) of the layer's output
) -> tuple[np.ndarray, np.ndarray]: # corners (P, 2) and size (2,) of the windows in the output
    "All that is computed from any value of a window, as windows of one size that lie inside the output."
    start, final = corners + pad[:, 0], np.array(after) - 1
    first = np.clip(-((kernel - 1 - start) // stride), 0, final)   # -(-a // b) rounds up
    last = np.clip((start + size - 1) // stride, 0, final)
    size = np.maximum((last - first).max(axis=0), 0) + 1
    return np.minimum(first, after - size), size


# %%
same, half = (layers.Conv2D(1, 3, padding="same"), (9, 9), (9, 9)), (layers.MaxPooling2D(2), (9, 9), (4, 4))
test_eq(reach(np.array([(0, 4)]), (2, 2), *geometry(*same), (9, 9)), ([[0, 3]], [3, 4]))   # rows 0-2, columns 3-6
test_eq(reach(np.array([(0, 4)]), (2, 2), *geometry(*half), (4, 4)), ([[0, 2]], [1, 1]))
test_eq(reach(np.array([(0, 3)]), (2, 2), *geometry(*half), (4, 4)), ([[0, 1]], [1, 2]))


# %% [markdown]
# ## Through one layer
#
# So a layer has to look at a small region for each patch: the window, surrounded by what the uncovered film has there.

# %%
#| export
def apply_valid(
    layer,               # Conv2D or MaxPooling2D
    regions: np.ndarray, # (P, h, w, C)
): # (P, h', w', C')
    "The layer without padding of its own."
    if type(layer) is layers.MaxPooling2D: return ops.max_pool(regions, layer.pool_size, layer.strides, "valid", layer.data_format)
    x = ops.conv(regions, layer.kernel, layer.strides, "valid", layer.data_format, layer.dilation_rate)
    return layer.activation(x + layer.bias if layer.use_bias else x)

def through_layer(
    layer,               # Conv2D or MaxPooling2D
    base: np.ndarray,    # (H, W, C), its input for the uncovered film
    after: tuple,        # (H', W') of its output
    windows: np.ndarray, # (P, h, w, C), its input where a patch changed it
    corners: np.ndarray, # (P, 2) where these are
) -> tuple[np.ndarray, np.ndarray]: # the same of its output: windows (P, h', w', C') and their corners
    "Windows through a layer that looks at neighbours."
    kernel, stride, pad = geometry(layer, base.shape[:2], after)
    moved, size = reach(corners, windows.shape[1:3], kernel, stride, pad, after)
    padded = np.pad(base, [*pad, (0, 0)], constant_values=0 if type(layer) is layers.Conv2D else -np.inf)
    (h, w), start = (size - 1) * stride + kernel, moved * stride
    regions = np.stack([padded[r:r + h, c:c + w] for r, c in start])
    return np.asarray(apply_valid(layer, paste(regions, windows, corners + pad[:, 0] - start))), moved


# %% [markdown]
# Covering what comes out of the layer with these windows must give what comes out of the layer for covered films:

# %%
layer, made_up = layers.Conv2D(3, 5, strides=2, padding="same"), np.random.default_rng(seed)
film, patches = made_up.random((14, 11, 2), np.float32), made_up.random((2, 4, 4, 2), np.float32)
corners = np.array([(0, 0), (7, 5)])
uncovered = np.asarray(layer(film[None]))[0]
windows, moved = through_layer(layer, film, uncovered.shape[:2], patches, corners)
test_close(cover(uncovered, windows, moved), np.asarray(layer(cover(film, patches, corners))), eps=1e-5)
windows.shape

# %% [markdown]
# ## Through the network
#
# Keras keeps a network as a graph of nodes, each the call of a layer. Where every node works on the result of the one
# before, the windows go from node to node as long as layers are local: those above, and those that treat each pixel by
# itself. Those are written down as a list; the first layer that is not on it ends the windows.

# %%
#| export
POINTWISE = (layers.Rescaling, layers.Concatenate, layers.BatchNormalization, layers.Activation, layers.ReLU, layers.Dropout)
LOCAL = (layers.Conv2D, layers.MaxPooling2D, *POINTWISE)

def chain(model) -> list: # of Keras nodes behind the input; [] where the network branches
    "The calls that make up a network, if each works on nothing but the result of the one before."
    if not type(model).__module__.startswith("keras."): return []   # a class of its own may do anything in its `call`
    levels = getattr(getattr(model, "_functional", model), "_nodes_by_depth", {})   # Sequential holds a functional model
    nodes = [node for depth in sorted(levels, reverse=True) for node in levels[depth]]
    simple = all(set(n.parent_nodes) == {before} and len(n.outputs) == 1 for before, n in zip(nodes, nodes[1:]))
    return nodes[1:] if simple and model.inputs[0].dtype == "float32" else []

def call_node(node, x):
    "What a node makes of a batch."
    args, kwargs = node.arguments.fill_in({id(t): x for t in node.input_tensors})
    return node.operation(*args, **kwargs)

def is_plain(
    node,
    kinds: tuple, # of layers
) -> bool:
    "Is it a layer of these kinds, in float32, channels last, with one of Keras's own activations, and not training?"
    layer, activation = node.operation, getattr(node.operation, "activation", keras.activations.linear)
    return (type(layer) in kinds and layer.dtype_policy.name == "float32" and not node.arguments.kwargs.get("training")
            and getattr(layer, "data_format", "channels_last") == "channels_last" and getattr(layer, "axis", -1) in (-1, 3)
            and activation in vars(keras.activations).values())

def begins_dense(nodes: list) -> bool:
    "Do a flatten and a dense layer come first?"
    return len(nodes) > 1 and is_plain(nodes[0], (layers.Flatten,)) and is_plain(nodes[1], (layers.Dense,))


# %% [markdown]
# ## The rest of the network
#
# A first dense layer sees the whole film, but it only adds up. So its sums are those of the uncovered film, plus the
# change in the window times the weights of that place. Windows that begin in the same row share these weights: the rows
# of the weight matrix that belong to one strip of the film.

# %%
#| export
def dense_sums(
    kernel,              # (H × W × C, units) weights of a dense layer behind a flatten
    base: np.ndarray,    # (H, W, C), input of the flatten for the uncovered film
    sums: np.ndarray,    # (1, units) what the layer adds up to for it
    windows: np.ndarray, # (P, h, w, C)
    corners: np.ndarray, # (P, 2)
) -> np.ndarray: # (P, units)
    "What the layer adds up to for each window."
    sums, height, row_size = np.repeat(sums, len(windows), axis=0), windows.shape[1], base[0].size
    for top in np.unique(corners[:, 0]):
        here, strip = corners[:, 0] == top, base[top:top + height]
        changes = cover(strip, windows[here], corners[here] - (top, 0)) - strip
        sums[here] += ops.matmul(changes.reshape(len(changes), -1), kernel[top * row_size:(top + height) * row_size])
    return sums

def rest_of(
    nodes: list,
    base: np.ndarray, # (1, H, W, C), input of the first of them for the uncovered film
): # function of windows (P, h, w, C) and their corners → (P, 1) probabilities
    "The network from where the windows end."
    join = partial(cover, base[0])
    if begins_dense(nodes):
        dense, nodes = nodes[1].operation, nodes[2:]
        sums = np.asarray(ops.matmul(base.reshape(1, -1), dense.kernel) + (dense.bias if dense.use_bias else 0))
        join = lambda *covering: dense.activation(dense_sums(dense.kernel, base[0], sums, *covering))
    return lambda *covering: np.asarray(reduce(lambda x, node: call_node(node, x), nodes, join(*covering)))


# %%
weights, twos = np.arange(1., 5)[:, None], np.full((2, 2, 1), 2.)
test_eq(dense_sums(weights, twos, np.array([[20.]]), np.full((1, 1, 1, 1), 5.), np.array([(1, 0)])), [[20 + (5 - 2) * 3]])


# %% [markdown]
# A network that branches (ResNet50), or whose first layers leave nothing to save, gets covered films and computes all of
# them whole, which gives the same map.

# %%
#| export
def split_chain(model) -> tuple[list, list]: # nodes that windows go through, nodes of the rest; [], [] where they save nothing
    "Where windows end in a network."
    nodes = chain(model)
    end = next((n for n, node in enumerate(nodes) if not is_plain(node, LOCAL)), 0)
    saves = begins_dense(nodes[end:]) or any(type(node.operation) is layers.Conv2D for node in nodes[:end])
    return (nodes[:end], nodes[end:]) if saves else ([], [])

def predict_covered(
    model,                # keras model: (N, H, W, 1) → (N, 1)
    image: np.ndarray,    # (H, W, 1) gray 0-255
    windows: np.ndarray,  # (P, h, w, 1) what to cover it with, one after the other
    corners: np.ndarray,  # (P, 2) where
    batch_size: int = 64, # windows at a time
) -> np.ndarray: # (P,) probabilities
    "What a model says of a film covered in many ways."
    local, nodes = split_chain(model)
    bases = [*accumulate(local, lambda x, node: np.asarray(call_node(node, x)), initial=image[None])]
    rest = rest_of(nodes, bases[-1]) if nodes else lambda *covering: model.predict_on_batch(cover(image, *covering))
    found = []
    for start in range(0, len(corners), batch_size):
        x, at = windows[start:start + batch_size], corners[start:start + batch_size]
        for node, base, after in zip(local, bases, bases[1:]):
            if type(node.operation) in POINTWISE: x = np.asarray(call_node(node, x))
            else: x, at = through_layer(node.operation, base[0], after.shape[1:3], x, at)
        found.append(rest(x, at)[:, 0])
    return np.concatenate(found)


# %% [markdown]
# In the study's CNN, at its 224 pixels, patch of 20 and stride of 10, the windows stay small while the film shrinks.
# `share` is what they leave of each layer's multiplications:

# %%
network = build_cnn(224)
corners = np.array([(r, c) for r in patch_positions(224, 20, 10) for c in patch_positions(224, 20, 10)])
size, at, rows = (20, 20), corners, []
for layer in [node.operation for node in split_chain(network)[0] if type(node.operation) not in POINTWISE]:
    before, after = layer.input.shape[1:3], layer.output.shape[1:3]
    at, size = reach(at, size, *geometry(layer, before, after), after)
    rows.append(dict(layer=layer.name, film="%d × %d" % after, window="%d × %d" % tuple(size), share=f"{np.prod(size) / np.prod(after):.1%}"))
pd.DataFrame(rows).style.hide(axis="index")

# %% [markdown]
# The same answers, then, for less work:

# %%
film = np.random.default_rng(seed).uniform(0, 255, (224, 224, 1)).astype(np.float32)
corners, gray = corners[::7], np.full((len(corners[::7]), 20, 20, 1), 127.5, np.float32)
start = time.time(); whole = network.predict_on_batch(cover(film, gray, corners))[:, 0]; seconds = time.time() - start
start = time.time(); windowed = predict_covered(network, film, gray, corners)
print(f"{len(corners)} covered films: whole {seconds:.1f} s, in windows {time.time() - start:.1f} s")
assert np.allclose(windowed, whole, rtol=0, atol=2e-6)


# %% [markdown]
# ## The map

# %%
#| export
def check_images(images) -> np.ndarray: # (N, H, W) float32, gray 0-255
    "Films as (N, H, W) or (N, H, W, 1), in gray values from 0 to 255."
    images = np.asarray(images, np.float32)
    if images.ndim == 4 and images.shape[-1] == 1: images = images[..., 0]
    if images.ndim != 3: raise StudyError(f"Expected films of shape (N, H, W) or (N, H, W, 1), found {images.shape}.")
    if images.size and not (images.min() >= 0 and images.max() <= 255): raise StudyError(
        f"Expected gray values from 0 to 255, found {images.min():g} to {images.max():g}.")
    return images

def occlusion_map(
    model,              # keras model: (N, H, W, 1) gray 0-255 → (N, 1) probability of pneumonia
    images,             # (N, H, W) or (N, H, W, 1), gray 0-255
    patch_size: int = 20, # side of the covering square, pixels
    stride: int = 10,     # step between positions, pixels
    fill: float = 127.5,  # gray of the patch
    batch_size: int = 64, # patches predicted at a time
) -> np.ndarray: # (N, H, W) float32, in probability: positive where covering lowers the prediction
    "Occlusion sensitivity of each film: signed, averaged over coverage, every pixel covered."
    images = check_images(images)
    if not 0 <= fill <= 255: raise StudyError(f"Expected a fill from 0 to 255, found {fill}.")
    shape = images.shape[1:]
    corners = [(r, c) for r in patch_positions(shape[0], patch_size, stride) for c in patch_positions(shape[1], patch_size, stride)]
    windows = np.full((1 + len(corners), patch_size, patch_size, 1), fill, np.float32)
    maps = []
    for image in images[..., None]:
        windows[0] = image[:patch_size, :patch_size]   # the film's own pixels: not covered at all
        base, *covered = predict_covered(model, image, windows, np.array([(0, 0), *corners]), batch_size)
        maps.append(spread(base - np.array(covered), corners, patch_size, shape))
    return np.stack(maps) if maps else np.zeros((0, *shape), np.float32)


# %% [markdown]
# A model that only looks at one pixel has a known answer: covering that pixel, and nothing else, matters. The pixel is
# in the last row, where the study's own loop never went.

# %%
one_pixel = np.zeros((9, 9), np.float32); one_pixel[8, 4] = .004
linear = keras.Sequential([keras.Input((9, 9, 1)), keras.layers.Flatten(), keras.layers.Dense(1, use_bias=False)])
linear.set_weights([one_pixel.reshape(-1, 1)])
film = np.full((1, 9, 9), 200, np.float32)
answer = occlusion_map(linear, film, patch_size=3, stride=3, fill=100)
test_close(answer[0, 6:9, 3:6], np.full((3, 3), .4), eps=1e-6)   # 0.004 × (200 - 100)
test_close(np.abs(answer).sum(), 9 * .4, eps=1e-5)
test_fail(lambda: occlusion_map(linear, film - 250), contains="from 0 to 255, found -50")


# %% [markdown]
# ## The models and films of this run
#
# Models are loaded from `models/*.keras`, each with films of the size it takes. Unless films are named by the `paths`
# parameter, the pick is seeded: test films that the CNN (or else the first model) got right and wrong, of both classes
# where there are any. The threshold is the evaluation's.

# %%
#| export
def load_models(
    stage: Stage,
    names: list[str], # of the predictions
) -> dict: # name → keras model
    "The run's saved models that have predictions."
    import pneumo_nb.compact  # its layer `Contrast` is part of some
    found = {n: keras.saving.load_model(stage.path("models", f"{n}.keras"), compile=False)
             for n in names if stage.path("models", f"{n}.keras").exists()}
    if not found: raise StudyError(f"Expected models/NAME.keras for the predictions of {', '.join(names)}, found none; run a model stage first.")
    return found

def pick_films(
    table: pd.DataFrame, # predictions of one model on test films
    count: int,
    threshold: float,
    seed: int,
) -> list[str]: # paths
    "A seeded pick that takes turns between right and wrong films of both classes."
    right = (table.probability >= threshold) == table.label
    groups = [table.path[(right == r) & (table.label == l)].tolist() for r in (True, False) for l in (0, 1)]
    for n, group in enumerate(groups): rng_for(seed, "explain", n).shuffle(group)
    turns = [g[i] for i in range(max(map(len, groups))) for g in groups if i < len(g)]
    return turns[:count]


# %%
stage = open_stage("xai", run_dir, seed=seed, films_shown=films_shown, paths=paths, mistakes_shown=mistakes_shown,
                   patch_size=patch_size, stride=stride, fill=fill)
predictions = load_predictions(stage)
models = load_models(stage, list(predictions))
films = {name: load_films(stage, model.input_shape[1], seed) for name, model in models.items()}
judged, tests = judged_films(predictions)
if judged == "test": look(stage, "films to explain and mistakes to show")
threshold = read_json(stage.path("metrics/evaluation.json"))["threshold"] if stage.path("metrics/evaluation.json").exists() else .5
main = "cnn" if "cnn" in models else next(iter(models))
chosen = list(paths) or pick_films(tests[main], films_shown, threshold, seed)
if unknown := [p for p in chosen if p not in set(predictions[main].path)]: raise StudyError(
    f"Expected paths as in predictions/{main}.csv (validation and test films), found {', '.join(unknown[:3])}, which is not among them.")
if main.startswith("compact") and (unseen := set(tests[main].path)) and (learned := [p for p in chosen if p not in unseen]) and list(stage.path("predictions/members").glob("compact_s*_r*.csv")): note(
    stage, f"the compact networks learned from {', '.join(learned)}; the probability given is that of a network that did not, the map is not.")
if not chosen: raise StudyError("Expected at least one film to explain, found none; set films_shown to 1 or more, or name some in paths.")
print(f"{title(main)} leads, threshold {threshold:g}; explained are", *chosen, sep="\n  ")


# %% [markdown]
# What each model calls these films, with its probability for the class that it names (the maps below are always about the
# probability of pneumonia):

# %%
#| export
def explained_table(
    predictions: dict[str, pd.DataFrame], # model → path, label, probability …
    paths: list[str],
    threshold: float,
) -> pd.DataFrame: # a row a film: film, true, then each model's call and probability
    "Predictions of every model on the films explained; confidence is the probability of the class called."
    rows = []
    for path in paths:
        row = dict(film=Path(path).name)
        for model, table in predictions.items():
            found = table[table.path == path]
            if found.empty: continue
            p = found.probability.iloc[0]
            called = int(p >= threshold)
            row |= {"true": CLASS_NAMES[found.label.iloc[0]], title(model): f"{CLASS_NAMES[called]} {p if called else 1 - p:.1%}"}
        rows.append(row)
    return pd.DataFrame(rows)


# %%
table = explained_table(predictions, chosen, threshold)
write_csv(stage.path("metrics/xai.csv"), table)
table.style.hide(axis="index").format(precision=4)


# %% [markdown]
# ## Pictures
#
# Image, map and overlay side by side, for the [MLP](#fig-xai_mlp), the [CNN](#fig-xai_cnn), the [frozen
# ResNet50](#fig-xai_resnet_frozen), the [fine-tuned one](#fig-xai_resnet_finetuned), the [compact network](#fig-xai_compact) and the
# [compact ensemble](#fig-xai_compact_ensemble). The colours diverge from white
# at no change, and **one scale serves all films of a
# figure**, so a pale map means a model that hardly reacted, not a faint print.
#
# Ask of every map whether the colour lies on lung. Colour on the spine, the heart, below the diaphragm or in the black beside the
# child is not a sign of pneumonia, even where the answer is right. Nor is covering the same everywhere: the patch is of middle gray, so
# it darkens heart, spine and belly, brightens the black margin, and is about as bright as an aerated lung. A pale lung does not show
# that the model ignores it; a red spine may show only that brightness counts.

# %%
#| export
def overlay(
    image: np.ndarray, # (H, W) gray 0-255
    change: np.ndarray, # (H, W) from `occlusion_map`
    limit: float,      # change that gets the full colour
) -> np.ndarray: # (H, W, 3) RGB in [0, 1]
    "The film tinted red where covering lowers the probability, blue where it raises it; untouched where nothing changes."
    import matplotlib.pyplot as plt
    strength = np.clip(np.abs(change) / limit, 0, 1)[..., None] * .6
    tint = plt.get_cmap("RdBu_r")((np.clip(change / limit, -1, 1) + 1) / 2)[..., :3]
    return (1 - strength) * (np.asarray(image)[..., None] / 255) + strength * tint


# %% [markdown]
# Red must be red. OpenCV's colour maps come as blue, green, red, and shown unchanged they have painted many a hot spot
# blue; here the channels are checked:

# %%
tinted = overlay(np.full((1, 3), 128), np.array([[1., 0, -1]]), limit=1)
assert tinted[0, 0, 0] > tinted[0, 0, 2] and tinted[0, 2, 2] > tinted[0, 2, 0]
test_close(tinted[0, 1], [128 / 255] * 3)


# %%
#| export
def caption(model: str, table: pd.DataFrame, path: str, threshold: float) -> str:
    "Who says what of a film, and how surely."
    film = table[table.path == path].iloc[0]
    called = int(film.probability >= threshold)
    sure = film.probability if called else 1 - film.probability
    return f"{title(model)}: {CLASS_NAMES[called]} {'> 99%' if sure >= .995 else f'{sure:.0%}'}\ntrue: {CLASS_NAMES[film.label]}"

def plot_maps(
    pixels: np.ndarray,    # (N, H, W) gray 0-255
    maps: np.ndarray,      # (N, H, W) from `occlusion_map`
    captions: list[str],   # one a film
): # matplotlib Figure
    "A row a film: image, occlusion map, overlay; one colour scale for all."
    import matplotlib.pyplot as plt
    limit = max(float(np.abs(maps).max()), 1e-6)
    figure, axes = plt.subplots(len(maps), 3, figsize=(9.4, 3.0 * len(maps)), squeeze=False)
    for row, image, change, text in zip(axes, pixels, maps, captions):
        row[0].imshow(image, vmin=0, vmax=255)
        drawn = row[1].imshow(change, cmap="RdBu_r", vmin=-limit, vmax=limit)
        row[2].imshow(overlay(image, change, limit))
        row[0].set_title(text, fontsize=10, loc="left")
        for ax in row: ax.axis("off")
    axes[0, 1].set_title("occlusion map", fontsize=10); axes[0, 2].set_title("overlay", fontsize=10)
    figure.colorbar(drawn, ax=axes[:, 1:], shrink=min(1, 1.6 / len(maps)), label="drop in probability when covered")
    return figure


# %%
#| export
def film_pixels(films: Films, paths: list[str]) -> np.ndarray: # (N, size, size) uint8
    "The decoded films of some paths, in their order."
    where = {path: n for n, path in enumerate(films.images.path)}
    return np.stack([films.pixels[where[p]] for p in paths])

def explain(
    model,
    name: str,           # of the model
    table: pd.DataFrame, # its predictions
    films: Films,
    paths: list[str],
    threshold: float,
    **patches,           # patch_size, stride, fill
): # figure, maps (N, H, W)
    "Occlusion maps of one model on some films, as a figure."
    pixels = film_pixels(films, paths)
    maps = occlusion_map(model, pixels, **patches)
    return plot_maps(pixels, maps, [f"{Path(p).stem}\n{caption(name, table, p, threshold)}" for p in paths]), maps


# %%
patches, collected = dict(patch_size=patch_size, stride=stride, fill=fill), {}
for name in models:
    start = time.time()
    figure, collected[name] = explain(models[name], name, predictions[name], films[name], chosen, threshold, **patches)
    positions = len(patch_positions(models[name].input_shape[1], patch_size, stride)) ** 2
    print(f"{title(name)}: {len(chosen)} maps of {positions} positions in {time.time() - start:.1f} s")
    save_figure(stage, figure, f"xai_{name}", f"{title(name)}: films, occlusion maps and overlays; red where covering lowers the probability of pneumonia.", f"{len(chosen)} {judged} films with {title(name)}'s occlusion maps and overlays. The maps reach "
                f"from {collected[name].min():+.2f} to {collected[name].max():+.2f} of probability.")


# %% [markdown]
# ## Two models on one film
#
# The same film, the same scale: [a comparison](#fig-xai_beside). Agreement between two models is not proof, but disagreement is a warning.

# %%
#| export
def plot_beside(
    image: np.ndarray,            # (H, W) gray 0-255
    maps: dict[str, np.ndarray],  # caption → (H, W)
): # matplotlib Figure
    "One film, and the overlay of each model on a shared scale."
    import matplotlib.pyplot as plt
    limit = max(*(float(np.abs(m).max()) for m in maps.values()), 1e-6)
    figure, axes = plt.subplots(1, 1 + len(maps), figsize=(3.3 * (1 + len(maps)) + .8, 3.5))
    axes[0].imshow(image, vmin=0, vmax=255); axes[0].set_title("film", fontsize=10)
    for ax, (text, change) in zip(axes[1:], maps.items()):
        ax.imshow(overlay(image, change, limit)); ax.set_title(text, fontsize=10)
    for ax in axes: ax.axis("off")
    scale = plt.cm.ScalarMappable(plt.Normalize(-limit, limit), "RdBu_r")
    figure.colorbar(scale, ax=axes, label="drop in probability\nwhen covered", shrink=.8)
    return figure


# %%
pair = next((list(p) for p in (("cnn", "resnet_finetuned"), ("compact", "compact_ensemble")) if set(p) <= set(collected)), [])
if len(pair) == 2 and len({models[m].input_shape for m in pair}) == 1:
    which = int(np.argmax([collected[pair[0]][n].max() for n in range(len(chosen))]))
    image = film_pixels(films[main], [chosen[which]])[0]
    both = {caption(m, predictions[m], chosen[which], threshold): collected[m][which] for m in pair}
    save_figure(stage, plot_beside(image, both), "xai_beside", "The one of the explained films to which the first of two models reacts most, and what each reacts to. On this shared scale a weaker model looks pale; its own figure shows where it reacts. Red where covering lowers the probability of pneumonia.", f"One {judged} film with the overlays of {' and '.join(map(title, pair))} on one scale.")
else: print("This run has no pair of models of one film size to compare.")


# %% [markdown]
# ## Mistakes
#
# The films that each model got most confidently wrong: the [MLP](#fig-xai_mistakes_mlp), the
# [CNN](#fig-xai_mistakes_cnn), the [frozen ResNet50](#fig-xai_mistakes_resnet_frozen), the [fine-tuned
# one](#fig-xai_mistakes_resnet_finetuned), the [compact network](#fig-xai_mistakes_compact) and the [compact ensemble](#fig-xai_mistakes_compact_ensemble). Each is named, so
# that it can be looked up, with what it is and what it was called. Where the model is all but certain, no patch moves its answer and the
# map stays blank: blank does not mean that it looked nowhere. A map cannot say why a film was called wrong.

# %%
#| export
def worst_mistakes(
    table: pd.DataFrame, # predictions of one model on test films
    count: int,
    threshold: float,
) -> list[str]: # paths, most confident first
    "The films called wrong with the greatest confidence."
    wrong = table[(table.probability >= threshold) != table.label]
    return wrong.path.loc[(wrong.probability - wrong.label).abs().sort_values(ascending=False, kind="stable").index[:count]].tolist()


# %%
made_up = pd.DataFrame(dict(path=list("abcd"), label=[0, 1, 1, 0], probability=[.9, .05, .6, .2]))
test_eq(worst_mistakes(made_up, 3, .5), ["b", "a"])
for name in models:
    wrong = worst_mistakes(tests[name], mistakes_shown, threshold)
    if not wrong: print(f"{title(name)} called every {judged} film right."); continue
    figure, _ = explain(models[name], name, predictions[name], films[name], wrong, threshold, **patches)
    save_figure(stage, figure, f"xai_mistakes_{name}", f"{title(name)}: its most confident mistakes.", f"The {len(wrong)} {judged} films that {title(name)} called wrong most confidently, with maps and overlays.")


# %% [markdown]
# ## Against the truth
#
# On phantoms we know where disease was drawn. If a model looks at it, covering it should lower the probability more
# than covering the rest. The **pointing game** (Zhang et al., 2018; arXiv:1608.00507) counts how often a map's highest point
# lies in the true region; pointing blindly scores the region's share of the film.

# %%
#| export
def pointing_game(
    maps: np.ndarray,  # (N, H, W)
    masks: np.ndarray, # (N, H, W) bool, where disease is
) -> tuple[float, float]: # hits, and what blind pointing would score; NaN without films
    "How often the highest point of a map lies in the true region."
    if not len(maps): return float("nan"), float("nan")
    hits = [mask.flat[np.argmax(change)] for change, mask in zip(maps, masks)]
    return float(np.mean(hits)), float(masks.mean())

def load_masks(
    root: str | Path, # of the phantoms
    paths: list[str],
    size: int,
) -> np.ndarray: # (N, size, size) bool
    "Where disease was drawn on phantom films."
    files = [(Path(root)/"masks"/p).with_suffix(".png") for p in paths]
    return np.stack([cv2.resize(cv2.imread(str(f), cv2.IMREAD_GRAYSCALE), (size, size), interpolation=cv2.INTER_AREA) > 127 for f in files])


# %%
test_eq(pointing_game(np.array([[[0, 1], [0, 0]]]), np.array([[[False, True], [False, False]]])), (1., .25))
facts, pointing = read_json(stage.path("metrics/data.json")), []
if facts["source"] == "phantoms":
    for name in models:
        found = tests[name][(tests[name].label == 1) & (tests[name].probability >= threshold)].path.tolist()[:8]
        if not found: print(f"{title(name)} found no pneumonia to explain."); continue
        pixels = film_pixels(films[name], found)
        hits, blind = pointing_game(occlusion_map(models[name], pixels, **patches), load_masks(facts["root"], found, pixels.shape[1]))
        pointing.append(dict(model=name, films=len(found), hits=hits, blind=blind))
else: print("These films come without masks, so the maps cannot be checked against the truth here.")
pointing = pd.DataFrame(pointing, columns=["model", "films", "hits", "blind"])
write_csv(stage.path("metrics/xai_pointing.csv"), pointing)


# %% [markdown]
# ## What the maps say

# %%
#| export
def xai_findings(
    collected: dict[str, np.ndarray], # model → maps (N, H, W)
    pointing: pd.DataFrame,           # model, films, hits, blind
) -> str: # markdown
    "How strongly the models react to covering, in words."
    lines = []
    for model, maps in collected.items():
        if not len(maps): continue
        reach = np.abs(maps).max(axis=(1, 2))
        lines.append(f"- **{title(model)}**: on the {len(maps)} films above, covering one place changes the probability by up to {np.median(reach):.3f} on the median film "
                     f"({reach.min():.3f} to {reach.max():.3f}); on {int((maps.mean(axis=(1, 2)) > 0).sum())} of {len(maps)} covering lowers it on average.")
    lines.append("- These films were picked, half of them right and half wrong where there are both, so this is not an average over test films.")
    lines += [f"- {title(r.model)}'s highest point lies in the drawn disease on {r.hits:.0%} of {r.films} films; pointing blindly would hit {r.blind:.0%}."
              for r in pointing.itertuples()]
    return "\n".join(lines + ["- A small change everywhere means that the answer does not hang on any one place: the network weighs the film as a whole, "
                              "or it is so sure that a patch cannot move it."])


# %%
display(Markdown(xai_findings(collected, pointing)))
record = finish(stage)
