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
# # Occlusion
#
# > How much a model's answer changes when one part of a film is covered, for every part in turn

# %%
#| default_exp occlusion

# %%
#| export
from functools import reduce
from itertools import accumulate, product

import keras
import numpy as np
from keras import layers, ops

from pneumo_nb.films import check_gray
from pneumo_nb.run import StudyError

# %%
#| hide
import time
import pandas as pd
from fastcore.test import test_close, test_eq, test_fail
from pneumo_nb.networks import gray_input


# %% [markdown]
# **Occlusion sensitivity** (Zeiler and Fergus, 2014; arXiv:1311.2901) covers one part of a film and asks how
# much the predicted probability of pneumonia changes. A gray patch visits every position. Each pixel is given
# the mean change over all patches that covered it. A positive value means that covering lowers the
# probability: the model took that part as a sign of pneumonia. A negative value means that it spoke against.
#
# Such a map has limits. Of two parts that each suffice, neither shows, because the other one remains. The
# gray square is itself something that no lung contains. And a map shows what a model uses, never whether it
# is right to use it.
#
# ## Where the patch goes
#
# The patch moves in steps of `stride`. If the steps do not end at the edge, one more position lies flush with
# it, so that every pixel is covered.

# %%
#| export
def patch_positions(
    size: int,       # of the film along one axis, pixels
    patch_size: int, # side of the patch, pixels; 1 to `size`
    stride: int,     # pixels; 1 to `patch_size`
) -> list[int]: # first pixel of each patch
    "Where patches start along one axis, so that every pixel is covered."
    if not 1 <= patch_size <= size: raise StudyError(
        f"Expected a patch_size from 1 to the film's {size} pixels, found {patch_size}.")
    if not 1 <= stride <= patch_size: raise StudyError(
        f"Expected a stride from 1 to the patch_size of {patch_size} pixels, found {stride}; "
        "a larger one leaves pixels uncovered.")
    last = size - patch_size
    return sorted({*range(0, last + 1, stride), last})


# %%
test_eq(patch_positions(10, 4, 3), [0, 3, 6])
test_eq(patch_positions(11, 4, 3), [0, 3, 6, 7])
test_fail(lambda: patch_positions(10, 4, 5), contains="leaves pixels uncovered")
test_fail(lambda: patch_positions(10, 11, 5), contains="the film's 10 pixels, found 11")

# %% [markdown]
# The reference study moves a patch of 20 pixels by 10 over 224 pixels. That is 22 × 22 positions. Its own
# loop made 21 × 21 and left the last four rows and columns out.

# %%
starts = patch_positions(224, 20, 10)
test_eq((len(starts), starts[-1] + 20), (22, 224))


# %% [markdown]
# ## Covering and collecting
#
# To cover a film is to write something into copies of it. What is written is called a **window** here: at
# first the gray patch, later what a layer makes of it. A window may stick out over the edge.

# %%
#| export
def _paste(
    canvases: np.ndarray, # (P, H, W, C), changed in place
    windows: np.ndarray,  # (P, h, w, C)
    corners: np.ndarray,  # (P, 2) where the first row and column of each window go; may be negative
) -> np.ndarray: # the canvases
    "Write one window into each canvas, as far as it lies inside."
    (height, width), (h, w) = canvases.shape[1:3], windows.shape[1:3]
    for canvas, window, (r, c) in zip(canvases, windows, corners):
        inside = window[max(-r, 0):max(height - r, 0), max(-c, 0):max(width - c, 0)]
        canvas[max(r, 0):max(r + h, 0), max(c, 0):max(c + w, 0)] = inside
    return canvases


# %%
#| export
def _cover(
    image: np.ndarray,   # (H, W, C), a film or what some layers made of it
    windows: np.ndarray, # (P, h, w, C)
    corners: np.ndarray, # (P, 2) first row and column of each window
) -> np.ndarray: # (P, H, W, C)
    "One copy of the film for each window, covered by it."
    return _paste(np.repeat(image[None], len(windows), axis=0), windows, corners)


# %%
covered = _cover(np.zeros((3, 3, 1)), np.full((2, 2, 2, 1), 9), [(1, 1), (2, -1)])
test_eq(covered[0, ..., 0], [[0, 0, 0], [0, 9, 9], [0, 9, 9]])
test_eq(covered[1, ..., 0], [[0, 0, 0], [0, 0, 0], [9, 0, 0]])


# %% [markdown]
# The changes are then spread back over the pixels and divided by how often each pixel was covered. Without
# the division the middle of a film would count four times as much as its corners.

# %%
#| export
def _spread(
    changes: np.ndarray,             # (P,) of the probability, one for each patch
    corners: list[tuple[int, int]],  # P, where the patches lay
    patch_size: int,                 # pixels
    shape: tuple[int, int],          # (H, W) of the film
) -> np.ndarray: # (H, W) float32
    "The mean change over the patches that covered each pixel."
    total, times = np.zeros(shape), np.zeros(shape)
    for change, (row, column) in zip(changes, corners):
        total[row:row + patch_size, column:column + patch_size] += change
        times[row:row + patch_size, column:column + patch_size] += 1
    return (total / times).astype(np.float32)


# %%
test_eq(_spread(np.array([1., 3.]), [(0, 0), (0, 1)], 2, (2, 3)), [[1, 2, 3], [1, 2, 3]])


# %% [markdown]
# ## How far a patch reaches
#
# The obvious way predicts every covered film whole, and so repeats nearly the same work hundreds of times. A
# convolution computes each value from its neighbours only. Behind it, a patch has changed a window a little
# larger than itself, and everything outside is what it was on the uncovered film. Pooling makes the window
# smaller again. Where the window lies follows from the layer's kernel, stride and padding:

# %%
#| export
def _geometry(
    layer,         # Conv2D or MaxPooling2D
    before: tuple, # (H, W) of its input
    after: tuple,  # (H, W) of its output
) -> tuple[np.ndarray, ...]: # kernel (2,), stride (2,), padding at both ends of each axis (2, 2)
    "What a layer computes one value from, how far apart, and how much is added at the edges."
    if type(layer) is layers.Conv2D: kernel = (np.array(layer.kernel_size) - 1) * layer.dilation_rate + 1
    else: kernel = np.array(layer.pool_size)
    stride = np.array(layer.strides)
    pad = np.maximum((np.array(after) - 1) * stride + kernel - before, 0)   # 0 with padding "valid"
    return kernel, stride, np.stack([pad // 2, pad - pad // 2], axis=1)


# %%
kernel, stride, pad = _geometry(layers.Conv2D(1, 3, padding="same"), (9, 9), (9, 9))
test_eq((kernel.tolist(), stride.tolist(), pad.tolist()), ([3, 3], [1, 1], [[1, 1], [1, 1]]))


# %%
#| export
def _reach(
    corners: np.ndarray, # (P, 2) first row and column of each window
    size,                # (2,) rows and columns of the windows
    kernel: np.ndarray,  # (2,) as from `_geometry`
    stride: np.ndarray,  # (2,)
    pad: np.ndarray,     # (2, 2)
    after,               # (H, W) of the layer's output
) -> tuple[np.ndarray, np.ndarray]: # corners (P, 2) and size (2,) of the windows in the output
    "All that is computed from any value of a window, as windows of one size that lie inside the output."
    start, final = corners + pad[:, 0], np.array(after) - 1
    first = np.clip(-((kernel - 1 - start) // stride), 0, final)   # -(-a // b) rounds up
    last = np.clip((start + size - 1) // stride, 0, final)
    size = np.maximum((last - first).max(axis=0), 0) + 1
    return np.minimum(first, after - size), size


# %% [markdown]
# A patch of 2 × 2 pixels lies in rows 0 and 1, columns 4 and 5. A convolution of 3 × 3 carries it to rows 0
# to 2 and columns 3 to 6. Pooling leaves one value of it, or two where it lies across a boundary.

# %%
same = (layers.Conv2D(1, 3, padding="same"), (9, 9), (9, 9))
half = (layers.MaxPooling2D(2), (9, 9), (4, 4))
test_eq(_reach(np.array([(0, 4)]), (2, 2), *_geometry(*same), (9, 9)), ([[0, 3]], [3, 4]))
test_eq(_reach(np.array([(0, 4)]), (2, 2), *_geometry(*half), (4, 4)), ([[0, 2]], [1, 1]))
test_eq(_reach(np.array([(0, 3)]), (2, 2), *_geometry(*half), (4, 4)), ([[0, 1]], [1, 2]))


# %% [markdown]
# ## Through one layer
#
# So a layer has to look at a small region for each patch. The region is the window, surrounded by what the
# uncovered film has there.

# %%
#| export
def _apply_valid(
    layer,               # Conv2D or MaxPooling2D
    regions: np.ndarray, # (P, h, w, C)
): # (P, h', w', C')
    "The layer without padding of its own."
    if type(layer) is layers.MaxPooling2D:
        return ops.max_pool(regions, layer.pool_size, layer.strides, "valid", layer.data_format)
    x = ops.conv(regions, layer.kernel, layer.strides, "valid", layer.data_format, layer.dilation_rate)
    return layer.activation(x + layer.bias if layer.use_bias else x)


# %%
#| export
def _through_layer(
    layer,               # Conv2D or MaxPooling2D
    base: np.ndarray,    # (H, W, C), its input for the uncovered film
    after: tuple,        # (H', W') of its output
    windows: np.ndarray, # (P, h, w, C), its input where a patch changed it
    corners: np.ndarray, # (P, 2) where these are
) -> tuple[np.ndarray, np.ndarray]: # the same of its output: windows (P, h', w', C') and their corners
    "Windows through a layer that looks at neighbours."
    kernel, stride, pad = _geometry(layer, base.shape[:2], after)
    moved, size = _reach(corners, windows.shape[1:3], kernel, stride, pad, after)
    outside = 0 if type(layer) is layers.Conv2D else -np.inf
    padded = np.pad(base, [*pad, (0, 0)], constant_values=outside)
    (h, w), start = (size - 1) * stride + kernel, moved * stride
    regions = np.stack([padded[r:r + h, c:c + w] for r, c in start])
    _paste(regions, windows, corners + pad[:, 0] - start)
    return np.asarray(_apply_valid(layer, regions)), moved


# %% [markdown]
# The test: what comes out of the layer for covered films must equal what comes out for the uncovered film,
# covered with the new windows.

# %%
layer, random = layers.Conv2D(3, 5, strides=2, padding="same"), np.random.default_rng(42)
film, patches = random.random((14, 11, 2), np.float32), random.random((2, 4, 4, 2), np.float32)
corners = np.array([(0, 0), (7, 5)])
uncovered = np.asarray(layer(film[None]))[0]
windows, moved = _through_layer(layer, film, uncovered.shape[:2], patches, corners)
whole = np.asarray(layer(_cover(film, patches, corners)))
test_close(_cover(uncovered, windows, moved), whole, eps=1e-5)
windows.shape


# %% [markdown]
# ## Layers that windows can pass
#
# Keras keeps a network as a graph of nodes, each the call of a layer. Where every node works on nothing but
# the result of the one before, the nodes form a chain.

# %%
#| export
def _chain(model) -> list: # of Keras nodes behind the input; [] where the network branches
    "The calls that make up a network, if each works on nothing but the result of the one before."
    if not type(model).__module__.startswith("keras."): return []   # a class of its own may compute anything
    functional = getattr(model, "_functional", model)               # which `Sequential` holds
    levels = getattr(functional, "_nodes_by_depth", {})
    nodes = [node for depth in sorted(levels, reverse=True) for node in levels[depth]]
    single = all(set(node.parent_nodes) == {before} and len(node.outputs) == 1
                 for before, node in zip(nodes, nodes[1:]))
    return nodes[1:] if single and model.inputs[0].dtype == "float32" else []


# %%
#| export
def _call_node(node, x):
    "What a node makes of a batch."
    args, kwargs = node.arguments.fill_in({id(t): x for t in node.input_tensors})
    return node.operation(*args, **kwargs)

def _call_nodes(nodes: list, x) -> np.ndarray:
    "What nodes make of a batch, one after the other."
    return np.asarray(reduce(lambda x, node: _call_node(node, x), nodes, x))


# %%
network = keras.Sequential([keras.Input((6, 6, 1)), layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(1)])
film = np.random.default_rng(0).random((1, 6, 6, 1), np.float32)
test_eq([node.operation.name.split("_")[0] for node in _chain(network)], ["conv2d", "flatten", "dense"])
test_close(_call_nodes(_chain(network), film), network.predict_on_batch(film), eps=1e-6)

# %% [markdown]
# The layers that windows can pass are written down as a list. Some look at neighbours, the others treat each
# pixel by itself. The first layer that is not on the list ends the windows.

# %%
#| export
_POINTWISE = (layers.Rescaling, layers.Concatenate, layers.BatchNormalization, layers.Activation, layers.ReLU,
              layers.Dropout)
_LOCAL = (layers.Conv2D, layers.MaxPooling2D, *_POINTWISE)


# %% [markdown]
# Settings of a layer may change what it computes. So a layer counts only in the form that is understood here.

# %%
#| export
def _is_one_of(
    node,
    kinds: tuple, # of layers
) -> bool:
    "Is it a layer of these kinds, in float32, channels last, with an activation of Keras, and not training?"
    layer = node.operation
    activation = getattr(layer, "activation", keras.activations.linear)
    last = getattr(layer, "data_format", "channels_last") == "channels_last"
    last = last and getattr(layer, "axis", -1) in (-1, 3)
    numbers = (getattr(layer, name, 0) for name in ("scale", "offset"))   # a Rescaling may differ by pixel
    same_everywhere = all(set(np.shape(number)[:-1]) <= {1} for number in numbers)
    training = node.arguments.kwargs.get("training")
    return (type(layer) in kinds and layer.dtype_policy.name == "float32" and last and not training
            and same_everywhere and activation in vars(keras.activations).values())


# %%
test_eq([_is_one_of(node, _LOCAL) for node in _chain(network)], [True, False, False])


# %% [markdown]
# ## The rest of the network
#
# A first dense layer sees the whole film, but it only adds up. Its sums are those of the uncovered film, plus
# the change in the window times the weights of that place. Windows that begin in the same row share these
# weights: the rows of the weight matrix that belong to one strip of the film.

# %%
#| export
def _dense_sums(
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
        changes = _cover(strip, windows[here], corners[here] - (top, 0)) - strip
        weights = kernel[top * row_size:(top + height) * row_size]
        sums[here] += ops.matmul(changes.reshape(len(changes), -1), weights)
    return sums


# %%
weights, twos = np.arange(1., 5)[:, None], np.full((2, 2, 1), 2.)
fives, lower_left = np.full((1, 1, 1, 1), 5.), np.array([(1, 0)])
test_eq(_dense_sums(weights, twos, np.array([[20.]]), fives, lower_left), [[20 + (5 - 2) * 3]])


# %%
#| export
def _begins_dense(nodes: list) -> bool:
    "Do a flatten and a dense layer come first?"
    kinds = [(layers.Flatten,), (layers.Dense,)]
    return len(nodes) > 1 and all(_is_one_of(node, kind) for node, kind in zip(nodes, kinds))

def _rest_of(
    nodes: list,
    base: np.ndarray, # (1, H, W, C), input of the first of them for the uncovered film
): # function of windows (P, h, w, C) and their corners → (P, 1) probabilities
    "The network from where the windows end."
    if not _begins_dense(nodes):
        return lambda windows, corners: _call_nodes(nodes, _cover(base[0], windows, corners))
    dense = nodes[1].operation
    bias = dense.bias if dense.use_bias else 0
    sums = np.asarray(ops.matmul(base.reshape(1, -1), dense.kernel) + bias)
    def rest(windows, corners):
        changed = _dense_sums(dense.kernel, base[0], sums, windows, corners)
        return _call_nodes(nodes[2:], dense.activation(changed))
    return rest


# %% [markdown]
# ## Predicting covered films
#
# Windows pay where they pass a convolution, or where a dense layer follows. A network that branches, such as
# a residual one, gets covered films and computes all of them whole. That gives the same map.

# %%
#| export
def split_chain(
    model,
) -> tuple[list, list]: # nodes that windows go through, nodes of the rest; [], [] where windows save nothing
    "Where windows end in a network."
    nodes = _chain(model)
    end = next((n for n, node in enumerate(nodes) if not _is_one_of(node, _LOCAL)), 0)
    convolves = any(type(node.operation) is layers.Conv2D for node in nodes[:end])
    saves = convolves or _begins_dense(nodes[end:])
    return (nodes[:end], nodes[end:]) if saves else ([], [])


# %%
test_eq([len(part) for part in split_chain(network)], [1, 2])   # the convolution; flatten and dense


# %%
#| export
def _through_layers(
    nodes: list,
    bases: list[np.ndarray], # inputs of the nodes for the uncovered film, then the last one's output
    windows: np.ndarray,     # (P, h, w, C)
    corners: np.ndarray,     # (P, 2)
) -> tuple[np.ndarray, np.ndarray]: # windows and corners behind the last node
    "Windows through all layers that they can pass."
    for node, base, after in zip(nodes, bases, bases[1:]):
        if type(node.operation) in _POINTWISE: windows = np.asarray(_call_node(node, windows))
        else: windows, corners = _through_layer(node.operation, base[0], after.shape[1:3], windows, corners)
    return windows, corners


# %%
#| export
def _predict_covered(
    model,                # Keras model: (N, H, W, 1) → (N, outputs)
    image: np.ndarray,    # (H, W, 1) gray 0-255
    windows: np.ndarray,  # (P, h, w, 1) what to cover it with, one after the other
    corners: np.ndarray,  # (P, 2) where
    batch_size: int = 64, # windows at a time
    output: int = 0,      # which of the outputs
) -> np.ndarray: # (P,) probabilities
    "What a model says of a film covered in many ways."
    local, nodes = split_chain(model)
    step = lambda x, node: np.asarray(_call_node(node, x))
    bases = list(accumulate(local, step, initial=image[None]))
    if nodes: rest = _rest_of(nodes, bases[-1])
    else: rest = lambda windows, corners: model.predict_on_batch(_cover(image, windows, corners))
    probabilities = []
    for start in range(0, len(corners), batch_size):
        batch = slice(start, start + batch_size)
        changed = _through_layers(local, bases, windows[batch], corners[batch])
        probabilities.append(np.asarray(rest(*changed))[:, output])
    return np.concatenate(probabilities)


# %% [markdown]
# An example is the reference study's convolutional network, at its 224 pixels, patch of 20 and stride of 10.
# In it the windows stay small while the film shrinks. `share` is what they leave of each layer's
# multiplications:

# %%
inputs, x = gray_input(224)
x = layers.Rescaling(1 / 255)(x)
for filters in (32, 64, 128, 256):
    x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
    x = layers.BatchNormalization()(layers.MaxPooling2D()(x))
x = layers.Dense(64, activation="relu")(layers.Flatten()(x))
network = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x))

# %%
corners = np.array(list(product(starts, starts)))
size, moved, rows = (20, 20), corners, []
for layer in [node.operation for node in split_chain(network)[0]]:
    if type(layer) in _POINTWISE: continue
    before, after = layer.input.shape[1:3], layer.output.shape[1:3]
    moved, size = _reach(moved, size, *_geometry(layer, before, after), after)
    share = np.prod(size) / np.prod(after)
    rows.append(dict(layer=layer.name, film="%d × %d" % after, window="%d × %d" % tuple(size), share=share))
pd.DataFrame(rows).style.hide(axis="index").format(dict(share="{:.1%}"))

# %% [markdown]
# The probabilities are the same, for less work:

# %%
film = np.random.default_rng(42).uniform(0, 255, (224, 224, 1)).astype(np.float32)
some = corners[::7]
gray = np.full((len(some), 20, 20, 1), 127.5, np.float32)
start = time.time()
whole = network.predict_on_batch(_cover(film, gray, some))[:, 0]
middle = time.time()
windowed = _predict_covered(network, film, gray, some)
print(f"{len(some)} covered films: whole {middle - start:.1f} s, in windows {time.time() - middle:.1f} s")
assert np.allclose(windowed, whole, rtol=0, atol=2e-6)


# %% [markdown]
# ## What can be explained
#
# A map of the wrong class, or of films in another range than the model learned from, looks like any other
# map. So every method checks first whether model and films belong together. These checks are for all methods.

# %%
#| export
def _try_on(
    model,
    images: np.ndarray, # (N, H, W) gray 0-255
) -> tuple: # shape of the answer, None for the number of films
    "What a model that tells no shape gives for the first film."
    film = images[:1, ..., None] if len(images) else np.zeros((1, *images.shape[1:], 1), np.float32)
    try: return None, *np.asarray(model(film)).shape[1:]
    except Exception as error: raise StudyError(
        f"Expected a model of gray films {film.shape}, found that it fails on one: {error}") from error


# %%
#| export
def _model_shapes(model, images: np.ndarray) -> tuple[tuple, tuple]: # (N, H, W, C) and (N, outputs)
    "What a model takes and gives, with None where any number will do."
    if not getattr(model, "built", True): raise StudyError(
        "Expected a model with weights, found one that is not built; give it an Input and train it.")
    takes, gives = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if not (takes and gives): return (None, None, None, 1), _try_on(model, images)
    if len(takes) > 1 or len(gives) > 1: raise StudyError(
        f"Expected a model of one input and one output, found {len(takes)} and {len(gives)}; "
        "make a keras.Model of those to explain.")
    return tuple(takes[0].shape), tuple(gives[0].shape)


# %%
test_eq(_model_shapes(network, np.zeros((0, 224, 224))), ((None, 224, 224, 1), (None, 1)))
test_fail(lambda: _model_shapes(keras.Sequential([layers.Dense(1)]), None), contains="not built")


# %%
#| export
def _check_takes(takes: tuple): # shape of a model's input
    "Refuse a model that takes other films than gray ones, or a fixed number."
    if len(takes) != 4 or takes[3] not in (1, None): raise StudyError(
        f"Expected a model of gray films (N, H, W, 1), found one that takes {takes}; "
        "put a layer before it that repeats the gray channel.")
    if takes[0] is not None: raise StudyError(
        f"Expected a model of any number of films, found one that takes {takes[0]} at a time; "
        "load its weights into one whose Input has no batch size.")


# %%
test_fail(lambda: _check_takes((None, 9, 9, 3)), contains="found one that takes (None, 9, 9, 3)")
test_fail(lambda: _check_takes((4, 9, 9, 1)), contains="takes 4 at a time")


# %%
#| export
def _check_size(takes: tuple, size: tuple[int, int]): # shape of a model's input; (H, W) of the films
    "Refuse films of another size than the model takes."
    if any(expected not in (found, None) for expected, found in zip(takes[1:3], size)): raise StudyError(
        f"Expected films of {takes[1]} × {takes[2]} pixels, as the model takes, "
        f"found {size[0]} × {size[1]}.")


# %%
#| export
def _check_output(
    gives: tuple,       # shape of a model's output
    output: int | None, # which one to explain; None: the only one
) -> int: # which one
    "Refuse a model of several outputs unless one is chosen."
    if len(gives) != 2 or gives[1] is None: raise StudyError(
        f"Expected a model that gives (N, outputs), found {gives}.")
    if output is None and gives[1] > 1: raise StudyError(
        f"Expected output=0 to {gives[1] - 1}, which of the model's {gives[1]} outputs to explain; "
        "found none.")
    output = 0 if output is None else output
    if output not in range(gives[1]): raise StudyError(
        f"Expected an output from 0 to {gives[1] - 1}, as the model has {gives[1]}, found {output}.")
    return int(output)


# %% [markdown]
# Films scaled to 0-1 lie within 0 to 255, too. A film that is not black all over, and nowhere above 1, is
# taken for one of those.

# %%
#| export
def _check_range(images: np.ndarray): # (N, H, W) gray
    "Refuse films that were scaled to 0-1."
    for n, film in enumerate(images):
        if film.size and 0 < film.max() <= 1: raise StudyError(
            f"Expected gray values 0-255, found 0-1 in film {n} (its largest is {film.max():g}); "
            "multiply films that were scaled by 255.")


# %%
nines = np.full((1, 9, 9), 200, np.float32)
_check_range(nines * 0)                    # black all over in any range
test_fail(lambda: _check_range(nines / 255), contains="gray values 0-255, found 0-1 in film 0")


# %%
#| export
def check_explained(
    model,                     # Keras model: (N, H, W, 1) gray 0-255 → (N, outputs)
    images,                    # (N, H, W) or (N, H, W, 1), gray 0-255
    output: int | None = None, # which of several outputs
) -> tuple[np.ndarray, int]: # films (N, H, W) float32, and which output
    "Refuse a model and films that do not belong together."
    images = check_gray(images)
    _check_range(images)
    takes, gives = _model_shapes(model, images)
    _check_takes(takes)
    _check_size(takes, images.shape[1:])
    return images, _check_output(gives, output)


# %%
two = keras.Sequential([keras.Input((9, 9, 1)), layers.Flatten(), layers.Dense(2, "softmax")])
test_eq(check_explained(two, nines, 1)[1], 1)
test_fail(lambda: check_explained(two, nines), contains="which of the model's 2 outputs to explain")
test_fail(lambda: check_explained(two, nines, 2), contains="an output from 0 to 1")
test_fail(lambda: check_explained(two, nines[:, :8], 1), contains="films of 9 × 9 pixels")


# %% [markdown]
# ## The map
#
# The film's own pixels go through the same machinery as a first "patch", and give the probability of the
# uncovered film.

# %%
#| export
def occlusion_map(
    model,              # Keras model: (N, H, W, 1) gray 0-255 → (N, 1) probability of pneumonia
    images,             # (N, H, W) or (N, H, W, 1), gray 0-255
    patch_size: int = 20, # side of the covering square, pixels
    stride: int = 10,     # step between positions, pixels
    fill: float = 127.5,  # gray of the patch, 0-255
    batch_size: int = 64, # patches predicted at a time
    output: int | None = None, # which of several outputs to explain; None: the only one
) -> np.ndarray: # (N, H, W) float32, in probability: positive where covering lowers the prediction
    "Occlusion sensitivity of each film: signed, averaged over coverage, every pixel covered."
    images, output = check_explained(model, images, output)
    if not 0 <= fill <= 255: raise StudyError(f"Expected a fill from 0 to 255, found {fill}.")
    if batch_size < 1: raise StudyError(f"Expected a batch_size of 1 or more, found {batch_size}.")
    shape = images.shape[1:]
    corners = list(product(*(patch_positions(side, patch_size, stride) for side in shape)))
    windows = np.full((1 + len(corners), patch_size, patch_size, 1), fill, np.float32)
    maps = []
    for image in images[..., None]:
        windows[0] = image[:patch_size, :patch_size]
        places = np.array([(0, 0), *corners])
        base, *covered = _predict_covered(model, image, windows, places, batch_size, output)
        if not np.isfinite([base, *covered]).all():
            raise StudyError("Expected finite answers of the model, found nan or infinity.")
        maps.append(_spread(base - np.array(covered), corners, patch_size, shape))
    return np.stack(maps) if maps else np.zeros((0, *shape), np.float32)


# %% [markdown]
# A model that looks at one pixel only has a known answer: covering that pixel matters, and nothing else does.
# The pixel is in the last row, where the reference study's loop never went. Covering 200 by 100 takes 0.004 ×
# 100 off the prediction.

# %%
one_pixel = np.zeros((9, 9), np.float32)
one_pixel[8, 4] = .004
linear = keras.Sequential([keras.Input((9, 9, 1)), layers.Flatten(), layers.Dense(1, use_bias=False)])
linear.set_weights([one_pixel.reshape(-1, 1)])
film = np.full((1, 9, 9), 200, np.float32)
answer = occlusion_map(linear, film, patch_size=3, stride=3, fill=100)
test_close(answer[0, 6:9, 3:6], np.full((3, 3), .4), eps=1e-6)
test_close(np.abs(answer).sum(), 9 * .4, eps=1e-5)

# %%
test_fail(lambda: occlusion_map(linear, film - 250), contains="from 0 to 255, found -50")
test_fail(lambda: occlusion_map(linear, film, fill=300), contains="a fill from 0 to 255, found 300")
