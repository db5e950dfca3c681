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
# # Gradients
#
# > Maps from derivatives of the log odds: Grad-CAM, HiResCAM, Integrated Gradients and SmoothGrad

# %%
#| default_exp gradients

# %%
#| export
from dataclasses import dataclass, replace
from warnings import warn

import cv2
import keras
import numpy as np
from keras import layers, ops, tree

from pneumo_nb.networks import Contrast, Reduce
from pneumo_nb.occlusion import check_explained
from pneumo_nb.run import StudyError, rng_for

# %%
#| hide
import matplotlib.pyplot as plt
from fastcore.test import test_close, test_eq, test_fail
from pneumo_nb.cache import squash
from pneumo_nb.networks import as_model, film_network, gray_input, pneumonia_logits
from pneumo_nb.phantom import draw_anatomy, draw_film
from pneumo_nb.run import set_seed
from pneumo_nb.style import plot_style, show_figure
plot_style()


# %% [markdown]
# A network is a formula that can be differentiated. Its derivative says how much the answer moves when a
# value inside moves a little. Four methods turn derivatives into maps. All of them explain the **log odds**
# of pneumonia, not the probability: near 0 or 1 a probability hardly moves, whatever the film shows.
#
# ## Through a network, step by step
#
# Two things are needed from inside a network: what stood before the last sigmoid, and the last feature maps.
# So a network is computed step by step here. With each value go the facts that were gathered on the way.

# %%
#| export
@dataclass(frozen=True, eq=False)
class _Flow:
    "A value inside a network, and how it came about."
    value: object                   # tensor
    kind: str = "score"             # of the values: one of "score", "sigmoid", "softmax", "probability"
    logits: object = None           # tensor, what a sigmoid or softmax was applied to
    convolved: bool = False         # is a convolution among the steps?
    flips: frozenset = frozenset()  # axes along which it is mirrored against the film
    box: tuple = (0, 1, 0, 1)       # what of the film it covers: rows from, to, columns from, to, as shares
    maps: tuple = ()                # of `_Flow`, the last feature maps on the way


# %% [markdown]
# Keras keeps a network as a graph of calls. A model inside a model is one call there, and has a graph of its
# own. A class of one's own may compute anything, so it counts as one step.

# %%
#| export
def _graph(layer):
    "The graph that Keras keeps of a model; None for a layer, and for a class of one's own."
    if not type(layer).__module__.startswith("keras."): return None
    layer = getattr(layer, "_functional", None) or layer
    return layer if hasattr(layer, "_nodes_by_depth") else None


# %%
inner = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(2, 3, name="inner"), layers.ReLU()])
assert _graph(inner) and not _graph(layers.Dense(1))


# %% [markdown]
# ## How a network ends
#
# The study's networks end in a dense layer and a sigmoid. The log odds are the dense layer's sums. Others end
# in a softmax over classes: the log odds of one are its sum, less the logarithm of the others' summed
# exponentials. Sums without either are taken as they are.

# %%
#| export
def _activation_of(step) -> str:
    "The name of the function that a layer or operation applies last, in small letters."
    activation = getattr(step, "activation", None)
    return getattr(activation, "__name__", "") if activation else type(step).__name__.lower()

def _before_activation(step, x):
    "What a sigmoid or softmax is applied to; None where that cannot be told."
    if isinstance(step, (layers.Activation, layers.Softmax)) or not isinstance(step, layers.Layer): return x
    if type(step) is not layers.Dense: return None
    sums = ops.matmul(ops.cast(x, "float32"), ops.cast(step.kernel, "float32"))
    return sums + ops.cast(step.bias, "float32") if step.use_bias else sums


# %%
test_eq([_activation_of(s) for s in (layers.Dense(1, "sigmoid"), layers.Softmax())], ["sigmoid", "softmax"])
dense = layers.Dense(2, "sigmoid")
answers = dense(np.ones((1, 3)))
test_close(np.array(ops.sigmoid(_before_activation(dense, np.ones((1, 3))))), np.array(answers), eps=1e-6)

# %% [markdown]
# Where the last step is a mean of probabilities, or anything unknown, its values are taken for probabilities.
# Then the log odds are log(p / (1 − p)), with p kept a ten-millionth away from 0 and 1.

# %%
#| export
_KEEP_KIND = {"average", "mean", "reshape", "flatten", "identity", "dropout", "squeeze", "concatenate",
              "getitem", "expanddims", "globalaveragepooling2d"}

def _kind(step, before: list) -> str: # `before`: of `_Flow`
    "What the values are that a step gives: for `_Flow.kind`."
    name, layer = _activation_of(step), type(step).__name__.lower()
    if name in ("sigmoid", "softmax"): return name
    if not type(step).__module__.startswith("keras.") or layer == "lambda": return "probability"
    keeps = layer in _KEEP_KIND or (layer, name) == ("activation", "linear")
    return "probability" if keeps and all(f.kind != "score" for f in before) else "score"


# %%
half = [_Flow(None, "sigmoid")]
test_eq([_kind(layers.Flatten(), half), _kind(layers.Average(), half)], ["probability"] * 2)
test_eq([_kind(layers.Dense(1), half), _kind(layers.Add(), half)], ["score"] * 2)
test_eq(_kind(layers.Lambda(lambda x: x), []), "probability")


# %%
#| export
def _log_odds(flow: _Flow, output: int): # (N,) float32 tensor
    "The log odds of one output; nan where an answer that should be a probability is none."
    value = ops.cast(flow.value if flow.logits is None else flow.logits, "float32")
    chosen = value[:, output]
    if flow.kind == "score" or flow.kind == "sigmoid" and flow.logits is not None: return chosen
    if flow.kind == "softmax" and flow.logits is not None:
        others = ops.concatenate([value[:, :output], value[:, output + 1:]], axis=1)
        return chosen - ops.logsumexp(others, axis=1)
    inside = ops.clip(chosen, 1e-7, 1 - 1e-7)
    odds = ops.log(inside) - ops.log1p(-inside)
    return ops.where((chosen >= 0) & (chosen <= 1), odds, np.nan)


# %%
three = np.array([[1., 2., 4.]])
by_hand = 4 - np.log(np.exp(1) + np.exp(2))
test_close(np.array(_log_odds(_Flow(None, "softmax", three), 2)), [by_hand], eps=1e-6)
test_close(np.array(_log_odds(_Flow(np.array([[.9]]), "probability"), 0)), [np.log(9)], eps=1e-5)
test_eq(np.isnan(_log_odds(_Flow(np.array([[7.]]), "probability"), 0)), [True])


# %% [markdown]
# ## Steps without a useful derivative
#
# Two of the study's layers need care. `Reduce` rounds to whole gray levels, and a rounded value has the
# derivative zero: a network behind it would seem to look nowhere. Its derivative here is that of the mean
# before rounding. `Contrast` takes a square root, whose derivative at zero is infinite. On a part of a film
# that is black all over, the root is taken of a millionth instead.

# %%
#| export
def _reduced(layer, x): # as `Reduce` gives it
    "Rounded values that pass on the derivative of the mean."
    mean = ops.matmul(ops.matmul(layer.weights_along, x[..., 0]), layer.weights_along.T)[..., None]
    return mean + ops.stop_gradient(layer(x) - mean)

def _contrasted(layer, x): # as `Contrast` gives it
    "Contrast with a derivative everywhere."
    x, axes = x[..., 0], dict(axis=(1, 2), keepdims=True)
    root = lambda square: ops.sqrt(ops.maximum(square, 1e-6))
    if layer.to == "film":
        away = x - ops.mean(x, **axes)
        return (away / (root(ops.mean(away * away, **axes)) + 1))[..., None]
    away = x - layer.blurred(x)
    return (away / (root(layer.blurred(away * away)) + 4))[..., None]

_DIFFERENTIABLE = {Reduce: _reduced, Contrast: _contrasted}

# %%
gray = np.random.default_rng(0).uniform(0, 255, (2, 24, 24, 1)).astype(np.float32)
for layer in (Reduce(12), Contrast(), Contrast("film")):
    test_close(np.array(layer(gray)), np.array(_DIFFERENTIABLE[type(layer)](layer, gray)), eps=1e-3)


# %% [markdown]
# ## Feature maps
#
# A **feature map** is what a convolution, or a step behind one, gives for each place of a film. The last ones
# before the answer are what Grad-CAM looks at. A later map takes the place of an earlier one. A block that
# pools a map to weigh its channels is not an end, since its result flows into a later map. In a network with
# branches each branch has its own last map.

# %%
#| export
def _has_places(x) -> bool: # `x`: a tensor
    "Is this a value for each place of a film, with more than one place?"
    return len(x.shape) == 4 and x.shape[1] * x.shape[2] > 1

def _convolves(step) -> bool:
    "Has this layer a filter, a weight of four axes?"
    return any(len(w.shape) == 4 for w in getattr(step, "weights", ()))

def _flips(step, before: frozenset) -> frozenset: # axes
    "Along which axes values are mirrored behind a step."
    axis = getattr(step, "axis", None)
    return before ^ {axis % 4} if type(step).__name__ == "Flip" and isinstance(axis, int) else before


# %%
mirror = type("Flip", (), dict(axis=2))()
test_eq([_flips(mirror, frozenset()), _flips(mirror, frozenset({2}))], [{2}, set()])


# %% [markdown]
# Behind a layer that crops, a feature map covers only a part of the film.

# %%
#| export
def _box(step, before: _Flow) -> tuple: # as `_Flow.box`
    "What of the film values cover behind a step, in the film as it is mirrored there."
    cropped, mirrored = getattr(step, "cropping", ((0, 0), (0, 0))), _flips(step, frozenset())
    box = []
    for axis, (first, last) in enumerate(cropped, 1):
        start, end = before.box[2 * axis - 2:2 * axis]
        pixel = (end - start) / before.value.shape[axis] if first or last else 0
        start, end = start + first * pixel, end - last * pixel
        box += [1 - end, 1 - start] if axis in mirrored else [start, end]
    return tuple(box)


# %%
crop, whole = layers.Cropping2D(((0, 4), (2, 2))), _Flow(np.zeros((1, 8, 8, 1)))
test_eq(_box(crop, whole), (0, .5, .25, .75))
test_eq(_box(mirror, _Flow(None, box=(0, .5, .1, .25))), (0, .5, .75, .9))


# %%
#| export
def _value_of(step, node, before: list): # `before`: of `_Flow`
    "What one step gives."
    if type(step) in _DIFFERENTIABLE:
        return _DIFFERENTIABLE[type(step)](step, ops.cast(before[0].value, "float32"))
    values = {id(t): flow.value for t, flow in zip(node.input_tensors, before)}
    args, kwargs = node.arguments.fill_in(values)
    return step(*args, **kwargs)

def _unite(step, before: list, value) -> _Flow: # `before`: of `_Flow`
    "A step's value, with what is known of the values that it came from."
    kind, convolved = _kind(step, before), _convolves(step) or any(flow.convolved for flow in before)
    logits = None
    if kind in ("sigmoid", "softmax"): logits = _before_activation(step, before[0].value)
    maps = {id(m): m for flow in before for m in flow.maps}
    flips, box = _flips(step, before[0].flips), _box(step, before[0])
    return _Flow(value, kind, logits, convolved, flips, box, tuple(maps.values()))


# %%
#| export
def _follow_step(node, before: list, named: str | None) -> list: # of `_Flow`, in and out
    "One call of a layer, an operation, or a model inside the model."
    step = node.operation
    if _graph(step): flows = _follow_graph(_graph(step), before, named)
    else: flows = [_unite(step, before, v) for v in tree.flatten(_value_of(step, node, before))]
    def ends_here(flow): return step.name == named if named else flow.convolved and not _graph(step)
    return [replace(flow, maps=(flow,)) if ends_here(flow) and _has_places(flow.value) else flow
            for flow in flows]

def _follow_graph(graph, inputs: list, named: str | None) -> list: # of `_Flow`, in and out
    "A whole model, call by call."
    flows = dict(zip(map(id, graph.inputs), inputs))
    levels = graph._nodes_by_depth
    for node in [node for depth in sorted(levels, reverse=True) for node in levels[depth]]:
        if node.is_input: continue
        after = _follow_step(node, [flows[id(t)] for t in node.input_tensors], named)
        flows |= dict(zip(map(id, node.outputs), after))
    return [flows[id(t)] for t in graph.outputs]


# %%
#| export
def _follow(
    model,
    films,                    # (N, H, W, 1) float32 tensor
    named: str | None = None, # layer whose feature maps are wanted; None: the last ones
) -> _Flow: # the answer
    "A model's answer, with what came before the last step and the last feature maps."
    if graph := _graph(model): return _follow_graph(graph, [_Flow(films)], named)[0]
    return _Flow(model(films), "probability")


# %% [markdown]
# What is followed step by step must equal what the model says. The example is a small ensemble of the study's
# kind: two networks, each asked about the film and its mirror image. It has four last feature maps, and two
# of them are mirrored.

# %%
set_seed(1)
pair = [film_network(32, (4, 8), 3, "local") for _ in range(2)]
ensemble = as_model(pneumonia_logits(pair, flip=True))
gray = np.random.default_rng(0).uniform(0, 255, (3, 32, 32, 1)).astype(np.float32)
answer = _follow(ensemble, gray)
test_close(np.array(answer.value), np.array(ensemble(gray)), eps=1e-5)
test_close(np.array(ops.sigmoid(_log_odds(answer, 0))), np.array(answer.value)[:, 0], eps=1e-5)
test_eq([m.value.shape for m in answer.maps], [(3, 8, 8, 8)] * 4)
test_eq(sorted(len(m.flips) for m in answer.maps), [0, 0, 1, 1])


# %% [markdown]
# ## One place for derivatives
#
# `_differentiate` builds the function that computes log odds and derivatives for a batch. It is compiled once
# for a model, a size of films and a method, and kept with the model. It reads the model's weights each time,
# so it stays right when they change. A model in half precision has its derivatives computed of the log odds
# times 1,024, since small numbers vanish there.

# %%
#| export
def _combine_none(flow: _Flow, gradients: list, shape: tuple): # gradient with respect to the film
    "The derivative with respect to the film, without a channel."
    return gradients[0][..., 0]

def _loss_scale(model) -> float:
    "What log odds are multiplied with while they are differentiated."
    halves = [l for l in getattr(model, "_flatten_layers", list)() if l.compute_dtype == "float16"]
    return 1024. if halves else 1.


# %%
#| export
def _differentiate(
    model,
    shape: tuple[int, int],   # (H, W) of the films
    output: int,
    named: str | None = None, # layer whose feature maps are wanted
    combine=_combine_none,    # (answer, gradients, (H, W)) → maps (N, H, W)
): # compiled function of films (N, H, W, 1): log odds (N,) and maps (N, H, W)
    "How the log odds of films change with the film, or with the last feature maps."
    import tensorflow as tf
    of_film, scale = combine is _combine_none, _loss_scale(model)
    @tf.function(input_signature=[tf.TensorSpec((None, *shape, 1), tf.float32)], autograph=False)
    def compute(films):
        with tf.GradientTape() as tape:
            tape.watch(films)
            answer = _follow(model, films, named)
            odds = _log_odds(answer, output)
            total = ops.sum(odds) * scale
        sources = [films] if of_film else _checked_maps(model, answer, named)
        gradients = tape.gradient(total, sources, unconnected_gradients="zero")
        gradients = [ops.cast(g, "float32") / scale for g in gradients]
        return odds, combine(answer, gradients, shape)
    return compute


# %% [markdown]
# A network without a convolution has no feature maps, and a class of one's own hides them.

# %%
#| export
def _layer_names(model) -> list[str]: # of layers in the graph and in models inside it
    "The names of all layers of a model."
    return [layer.name for layer in getattr(model, "_flatten_layers", list)()]

def _checked_maps(model, answer: _Flow, named: str | None) -> list: # tensors
    "The feature maps of an answer, refused where there are none."
    if answer.maps: return [m.value for m in answer.maps]
    if named is None: raise StudyError(
        "Expected a network with convolutions that Keras keeps as a graph, found no feature map in it; "
        "take another method, such as occlusion.")
    if named not in _layer_names(model): raise StudyError(
        f"Expected layer to name one of the model's layers, found {named!r}, which is none of them; "
        "leave it out for the last feature map.")
    raise StudyError(f"Expected a layer whose values have more than one place and lead to the answer, found "
                     f"{named!r}, which has none; leave it out for the last feature map.")


# %%
#| export
def has_feature_map(
    model,                  # Keras model: (N, H, W, 1) gray 0-255 → (N, outputs)
    shape: tuple[int, int], # (H, W) of its films
) -> bool:
    "Has the network a feature map, so that Grad-CAM can explain it?"
    return bool(_follow(model, np.zeros((1, *shape, 1), np.float32)).maps)


# %%
test_eq([has_feature_map(net, (32, 32)) for net in (ensemble, pair[0])], [True, True])
flat = keras.Sequential([keras.Input((32, 32, 1)), layers.Flatten(), layers.Dense(1, "sigmoid")])
test_eq(has_feature_map(flat, (32, 32)), False)


# %%
#| export
def _compiled(model, *key): # as for `_differentiate`
    "The model's compiled function, made at its first use and kept with the model."
    kept = model.__dict__.setdefault("_pneumo_gradients", {})   # not by setattr, which Keras watches
    if key not in kept: kept[key] = _differentiate(model, *key)
    return kept[key]

def _in_batches(
    compute,           # compiled function of a batch
    films: np.ndarray, # (N, H, W)
    batch_size: int,
) -> tuple[np.ndarray, np.ndarray]: # log odds (N,), maps (N, H, W) float32
    "What a compiled function gives for films, some at a time."
    if batch_size < 1: raise StudyError(f"Expected a batch_size of 1 or more, found {batch_size}.")
    parts = [compute(films[n:n + batch_size, ..., None]) for n in range(0, len(films), batch_size)]
    if not parts: return np.zeros(0, np.float32), np.zeros(films.shape, np.float32)
    odds, maps = (np.concatenate(part) for part in zip(*parts))
    if not (np.isfinite(odds).all() and np.isfinite(maps).all()): raise StudyError(
        "Expected finite answers and derivatives of the model, found nan or infinity; its weights may be no "
        "numbers, or its answers no probabilities.")
    return odds, maps


# %%
#| export
def log_odds_gradients(
    model,                     # Keras model: (N, H, W, 1) gray 0-255 → (N, 1) probability of pneumonia
    images,                    # (N, H, W) or (N, H, W, 1), gray 0-255
    batch_size: int = 16,      # films at a time
    output: int | None = None, # which of several outputs to explain; None: the only one
) -> tuple[np.ndarray, np.ndarray]: # log odds (N,), and what a gray level more adds to them (N, H, W)
    "The log odds of pneumonia and their derivative with respect to each pixel."
    images, output = check_explained(model, images, output)
    return _in_batches(_compiled(model, images.shape[1:], output), images, batch_size)


# %% [markdown]
# The derivative of a linear model is its weights. A model of probabilities has the same log odds, whether
# they are read before the sigmoid or computed behind it.

# %%
weights = np.random.default_rng(1).normal(size=(6, 7)).astype(np.float32) / 500
linear = keras.Sequential([keras.Input((6, 7, 1)), layers.Flatten(), layers.Dense(1, "sigmoid")])
linear.layers[-1].set_weights([weights.reshape(-1, 1), np.zeros(1)])
behind = keras.Sequential([linear, layers.Lambda(lambda p: p + 0)])
some = np.random.default_rng(2).uniform(0, 255, (2, 6, 7)).astype(np.float32)
odds, slopes = log_odds_gradients(linear, some)
test_close(slopes, [weights] * 2, eps=1e-7)
test_close(odds, (some * weights).sum(axis=(1, 2)), eps=1e-5)
test_close(log_odds_gradients(behind, some)[1], slopes, eps=1e-5)


# %% [markdown]
# Measures of maps ask for the log odds of many altered copies, and need no derivative. `asked_log_odds` gives
# the function for that, compiled once and kept like the others. It checks nothing: a copy that is black but
# for a few pixels is no film that one would give by hand.

# %%
#| export
def asked_log_odds(
    model,                  # Keras model: (N, H, W, 1) gray 0-255 → (N, outputs)
    shape: tuple[int, int], # (H, W) of the films
    output: int,            # which of the outputs, as from `check_explained`
): # function of films (N, H, W): log odds (N,)
    "The log odds alone, without a derivative."
    import tensorflow as tf
    kept, key = model.__dict__.setdefault("_pneumo_gradients", {}), ("log odds", shape, output)
    if key not in kept:
        kept[key] = tf.function(lambda films: _log_odds(_follow(model, films), output), autograph=False,
                                input_signature=[tf.TensorSpec((None, *shape, 1), tf.float32)])
    return lambda films: np.asarray(kept[key](np.asarray(films, np.float32)[..., None]))


# %%
test_close(asked_log_odds(linear, (6, 7), 0)(some), odds, eps=1e-5)


# %% [markdown]
# ## A network for the pictures
#
# The pictures below are of one small network. It learned for a few seconds to tell phantoms with a drawn
# opacity from normal ones. The film shown is not among those.

# %%
#| hide
def phantoms(kind, numbers, side=48):
    drawn = [draw_film(draw_anatomy(np.random.default_rng(n)), kind, np.random.default_rng(n), 120)
             for n in numbers]
    return np.stack([squash(film, side) for film, _ in drawn])

set_seed(3)
network = keras.Sequential([keras.Input((48, 48, 1)), layers.Rescaling(1 / 127.5, -1)])
for filters in (8, 16, 16):
    network.add(layers.Conv2D(filters, 3, padding="same", activation="relu"))
    network.add(layers.MaxPooling2D())
network.add(layers.GlobalAveragePooling2D())
network.add(layers.Dense(1, "sigmoid"))
learned = np.concatenate([phantoms("normal", range(60)), phantoms("bacteria", range(60))])[..., None]
network.compile(keras.optimizers.Adam(1e-2), "binary_crossentropy")
network.fit(learned.astype(np.float32), np.repeat([0., 1.], 60), epochs=30, batch_size=20, verbose=0)
film = phantoms("bacteria", [1007])

def picture(maps, name, caption, alt):
    "The film and a map for each title, each map on a scale of its own."
    figure, axes = plt.subplots(1, 1 + len(maps), figsize=(2.6 * (1 + len(maps)), 2.8))
    axes[0].imshow(film[0], cmap="gray", vmin=0, vmax=255)
    for ax, (title, change) in zip(axes[1:], maps.items()):
        limit = max(np.abs(change).max(), 1e-6)
        ax.imshow(change[0], cmap="RdBu_r", vmin=-limit, vmax=limit)
        ax.set_title(title, fontsize=10)
    for ax in axes: ax.axis("off")
    show_figure(figure, name, caption, alt)


# %%
[probability], odds = np.array(network(film[..., None]))[0], log_odds_gradients(network, film)[0][0]
print(f"{probability:.2f} for pneumonia, log odds {odds:.2f}")


# %% [markdown]
# ## Grad-CAM
#
# Grad-CAM (Selvaraju et al., 2017; arXiv:1610.02391) asks where the last feature maps hold what speaks for
# pneumonia. Each feature gets one weight, the sum of the derivatives over all places, and the weighted
# features are added. Only what is above zero is kept, so the map cannot tell what spoke against. It is as
# coarse as the last feature map, and finer detail in a picture is interpolation. The trap: where a dense
# layer weighs places differently, one weight a feature blurs that, and a place may light up that the network
# does not use (Draelos and Carin, 2020; arXiv:2011.08891).
#
# The sum of the weighted features is divided by nothing here. So for a network of one pooled feature with the
# weight one, the map is that feature.

# %%
#| export
def _on_film(
    change,                 # (N, h, w) tensor, a value for each place of a feature map
    feature: _Flow,         # which feature map: how it lies on the film
    shape: tuple[int, int], # (H, W) of the film
): # (N, H, W) tensor
    "A feature map's values for each pixel, interpolated between the middles of places."
    top, bottom, left, right = (round(share * side) for share, side in zip(feature.box, np.repeat(shape, 2)))
    change = ops.image.resize(change[..., None], (bottom - top, right - left), "bilinear")[..., 0]
    change = ops.pad(change, ((0, 0), (top, shape[0] - bottom), (left, shape[1] - right)))
    return ops.flip(change, axis=sorted(feature.flips)) if feature.flips else change

def _activations(answer: _Flow, gradients: list, shape: tuple): # (N, 2, H, W) tensor
    "Weighted features above zero, over all branches: a weight a feature, then one a feature and place."
    totals = [0., 0.]
    for feature, gradient in zip(answer.maps, gradients):
        count = gradient.shape[1] * gradient.shape[2]
        for n, weights in enumerate((ops.sum(gradient, axis=(1, 2), keepdims=True), gradient * count)):
            change = ops.relu(ops.sum(weights * ops.cast(feature.value, "float32"), axis=-1))
            totals[n] += _on_film(change, feature, shape)
    return ops.stack(totals, axis=1)


# %%
corner = np.zeros((1, 2, 2), np.float32)
corner[0, 0, 1] = 1
test_eq(np.array(_on_film(corner, _Flow(None, flips=frozenset({2})), (2, 2)))[0], [[1, 0], [0, 0]])
test_close(np.array(_on_film(corner, _Flow(None), (4, 4))).sum(), 4)
test_eq(np.array(_on_film(corner, _Flow(None, box=(.5, 1, 0, .5)), (4, 4))).nonzero(), [[0], [2], [1]])


# %%
#| export
def _cam(model, images, layer, batch_size, output, by_place: bool) -> np.ndarray: # (N, H, W) float32
    "Check, compile once for both kinds, and compute."
    images, output = check_explained(model, images, output)
    compute = _compiled(model, images.shape[1:], output, layer, _activations)
    maps = _in_batches(compute, images, batch_size)[1]
    return maps[:, int(by_place)] if len(images) else maps


# %%
#| export
def gradcam(
    model,                     # Keras model: (N, H, W, 1) gray 0-255 → (N, 1) probability of pneumonia
    images,                    # (N, H, W) or (N, H, W, 1), gray 0-255
    layer: str | None = None,  # whose values are the feature map; None: the last before the answer
    batch_size: int = 16,      # films at a time
    output: int | None = None, # which of several outputs to explain; None: the only one
) -> np.ndarray: # (N, H, W) float32, 0 or above
    "Where the last feature maps speak for pneumonia, one weight a feature."
    return _cam(model, images, layer, batch_size, output, by_place=False)


# %%
one = keras.Sequential([keras.Input((6, 7, 1)), layers.Conv2D(1, 3, padding="same", use_bias=False),
                        layers.GlobalAveragePooling2D(), layers.Dense(1, "sigmoid")])
one.layers[-1].set_weights([np.ones((1, 1)), np.zeros(1)])
test_close(gradcam(one, some), np.maximum(np.array(one.layers[0](some[..., None]))[..., 0], 0), eps=1e-3)
test_fail(lambda: gradcam(linear, some), contains="found no feature map in it; take another method")
test_fail(lambda: gradcam(one, some, layer="nobody"), contains="found 'nobody', which is none of them")


# %% [markdown]
# The map of an ensemble is the mean of its networks' maps, each turned back if the network saw the film
# mirrored. This follows from adding branches: each has its share of the derivative.

# %%
def alone(net, flip): return gradcam(as_model(pneumonia_logits([net], flip)), gray[..., 0])
by_hand = np.mean([alone(net, True) for net in pair], axis=0)
test_close(gradcam(ensemble, gray[..., 0]), by_hand, eps=1e-5)


# %% [markdown]
# ## HiResCAM
#
# HiResCAM (Draelos and Carin, 2020; arXiv:2011.08891) asks the same, but multiplies each feature by its own
# derivative at each place. For a network of convolutions and one dense layer it gives the exact share of each
# place in the log odds. It is just as coarse and keeps only what is above zero, so it cannot tell what spoke
# against. Behind pooling over the whole film every place has the same derivative, and the map equals
# Grad-CAM's. The trap: a place of the last feature map saw a large part of the film, often far more than the
# pixels under it.

# %%
#| export
def hirescam(
    model,                     # Keras model: (N, H, W, 1) gray 0-255 → (N, 1) probability of pneumonia
    images,                    # (N, H, W) or (N, H, W, 1), gray 0-255
    layer: str | None = None,  # whose values are the feature map; None: the last before the answer
    batch_size: int = 16,      # films at a time
    output: int | None = None, # which of several outputs to explain; None: the only one
) -> np.ndarray: # (N, H, W) float32, 0 or above
    "Where the last feature maps speak for pneumonia, one weight a feature and place."
    return _cam(model, images, layer, batch_size, output, by_place=True)


# %%
test_close(hirescam(ensemble, gray[..., 0]), gradcam(ensemble, gray[..., 0]), eps=1e-5)
earlier = network.layers[3].name
maps = {"Grad-CAM": gradcam(network, film), "earlier layer": gradcam(network, film, earlier),
        "HiResCAM, earlier layer": hirescam(network, film, earlier)}
alt = "A phantom and three maps: one of broad spots, two finer ones of an earlier layer that differ."
picture(maps, "gradients_cam", "Grad-CAM of the last feature map, and both forms at an earlier one.", alt)


# %% [markdown]
# ## Integrated Gradients
#
# Integrated Gradients (Sundararajan et al., 2017; arXiv:1703.01365) asks how the log odds come about when the
# film fades in from a film without content, the baseline. Derivatives along the way are averaged and
# multiplied by how far each pixel moved, so that all pixels add up to the change of the log odds. It cannot
# tell which change would have mattered from another baseline. A pixel that equals the baseline gets zero, and
# from black a black pixel can never count. The trap: the maps are grainy, and multiplied by the film they
# look like its anatomy, whatever the network does (Adebayo et al., 2018; arXiv:1810.03292).
#
# The baseline is black unless told otherwise. A blurred one is the film through a Gaussian window whose
# deviation is an eighth of the longer side. A mean one has the film's mean gray all over.

# %%
#| export
def _baselines(
    films: np.ndarray, # (N, H, W) float32
    name: str,         # "black", "blurred" or "mean"
) -> np.ndarray: # (N, H, W) float32
    "Where each film fades in from."
    if name == "black": return np.zeros_like(films)
    if name == "mean": return np.ones_like(films) * films.mean(axis=(1, 2), keepdims=True)
    if name != "blurred": raise StudyError(
        f'Expected a baseline of "black", "blurred" or "mean", found {name!r}.')
    deviation = max(films.shape[1:]) / 8
    return np.stack([cv2.GaussianBlur(film, (0, 0), deviation) for film in films]) if len(films) else films


# %%
test_eq(_baselines(some, "black"), some * 0)
test_close(_baselines(some, "mean")[0], some[0].mean(), eps=1e-4)
assert _baselines(some, "blurred").std() < some.std() / 2
test_fail(lambda: _baselines(some, "gray"), contains='"black", "blurred" or "mean", found')


# %% [markdown]
# Derivatives are taken at some points of the way and weighted by Gauss and Legendre's rule. Most of the
# change lies near the baseline, where a network that normalises contrast sees a film appear. So the points
# are dense there: the way is walked in the square of the rule's variable.

# %%
#| export
def _way_points(count: int) -> tuple[np.ndarray, np.ndarray]: # shares of the way, weights; (count,) each
    "Where derivatives are taken, and what each counts."
    points, weights = np.polynomial.legendre.leggauss(count)
    points = (points + 1) / 2
    return (points ** 2).astype(np.float32), (weights * points).astype(np.float32)   # d(t²) = 2 t dt


# %%
shares, counts = _way_points(8)
test_close([counts.sum(), (counts * shares ** 2).sum()], [1, 1 / 3], eps=1e-6)


# %%
#| export
def _mean_slopes(
    compute,             # compiled function of films: log odds and derivatives
    films: np.ndarray,   # (N, H, W) float32
    altered,             # (films (B, H, W), their numbers (B,), steps (B,)) → (B, H, W) float32
    weights: np.ndarray, # (steps,) float32, what each step counts
    batch_size: int,
) -> np.ndarray: # (N, H, W) float32
    "The weighted sum of derivatives over altered copies of each film."
    total, count = np.zeros_like(films), len(weights)
    for n in range(0, len(films) * count, batch_size):
        film, step = np.divmod(np.arange(n, min(n + batch_size, len(films) * count)), count)
        slopes = _in_batches(compute, altered(films[film], film, step), batch_size)[1]
        np.add.at(total, film, slopes * weights[step, None, None])
    return total

def _integrate(compute, films, starts, steps: int, batch_size: int) -> np.ndarray: # `starts`: the baselines
    "Mean derivatives along the way from the baseline, times how far each pixel moved."
    shares, weights = _way_points(steps)
    def between(films, film, step):
        return starts[film] + shares[step, None, None] * (films - starts[film])
    return _mean_slopes(compute, films, between, weights, batch_size) * (films - starts)


# %% [markdown]
# How many points are enough depends on the network. So the sum over a map is compared with the change of the
# log odds. Where they differ by more than `tolerance`, the points are doubled.

# %%
#| export
def _is_whole(
    maps: np.ndarray,   # (N, H, W)
    change: np.ndarray, # (N,) of the log odds
    tolerance: float,   # share of the change
) -> np.ndarray: # (N,) bool
    "Do the pixels add up to the change of the log odds?"
    missing = np.abs(maps.sum(axis=(1, 2), dtype=np.float64) - change)
    return missing <= tolerance * np.maximum(np.abs(change), .01)


# %%
test_eq(_is_whole(np.full((2, 2, 2), .25), np.array([1.005, 1.02]), .01), [True, False])


# %%
#| export
def integrated_gradients(
    model,                     # Keras model: (N, H, W, 1) gray 0-255 → (N, 1) probability of pneumonia
    images,                    # (N, H, W) or (N, H, W, 1), gray 0-255
    baseline: str = "black",   # or "blurred", "mean": the film that stands for no content
    steps: int = 32,           # points on the way from the baseline, at first
    most_steps: int = 512,     # points up to which they are doubled
    tolerance: float = .01,    # how far the sum may be from the change of the log odds, as a share
    batch_size: int = 16,      # films at a time
    output: int | None = None, # which of several outputs to explain; None: the only one
) -> np.ndarray: # (N, H, W) float32, signed; adds up to the change of the log odds from the baseline
    "What each pixel adds to the log odds while the film fades in from a baseline."
    if not 1 <= steps <= most_steps: raise StudyError(
        f"Expected steps from 1 to most_steps, found {steps} and {most_steps}.")
    images, output = check_explained(model, images, output)
    compute, starts = _compiled(model, images.shape[1:], output), _baselines(images, baseline)
    odds, before = (_in_batches(compute, films, batch_size)[0] for films in (images, starts))
    maps, todo = np.zeros_like(images), np.arange(len(images))
    while len(todo) and steps <= most_steps:
        maps[todo] = _integrate(compute, images[todo], starts[todo], steps, batch_size)
        todo = todo[~_is_whole(maps[todo], (odds - before)[todo], tolerance)]
        steps *= 2
    missing = np.abs(maps.sum(axis=(1, 2)) - (odds - before))[todo]
    if (missing > .005).any() and np.isfinite(tolerance): warn(
        f"{len(todo)} of {len(images)} maps add up to the change of the log odds less well than "
        f"{tolerance:.1%} (at worst {missing.max():.3f} is missing); raise most_steps above {most_steps}.")
    return maps


# %% [markdown]
# The sum is right to the tolerance, for the linear model exactly:

# %%
made = integrated_gradients(linear, some)
test_close(made, weights * some, eps=1e-6)
change = np.subtract(*(log_odds_gradients(network, films)[0] for films in (film, film * 0)))
test_close(integrated_gradients(network, film).sum() / change[0], 1, eps=.01)
maps = {f"from {name}": integrated_gradients(network, film, name) for name in ("black", "blurred", "mean")}
alt = "A phantom and three grainy maps in red and blue; the one from black shows bones and heart most."
picture(maps, "gradients_integrated", "Integrated Gradients from three baselines.", alt)


# %% [markdown]
# ## SmoothGrad
#
# SmoothGrad (Smilkov et al., 2017; arXiv:1706.03825) asks which pixels the log odds follow, on average over
# copies of the film with noise. The derivatives are averaged and multiplied by the film's gray values, so
# that a linear model gets weights times input. It cannot tell what lies outside the reach of the noise, and
# it does not add up to anything. A black pixel gets zero here, too. The trap: noise of the wrong size gives a
# calm map of another question, that of noisy films, on which the network may say something else.

# %%
#| export
def smoothgrad(
    model,                     # Keras model: (N, H, W, 1) gray 0-255 → (N, 1) probability of pneumonia
    images,                    # (N, H, W) or (N, H, W, 1), gray 0-255
    samples: int = 32,         # noisy copies of each film
    noise: float = .1,         # deviation of the noise, as a share of the film's range of gray
    seed: int = 42,            # of the noise; each copy has the same on every film
    times_input: bool = True,  # multiply by the gray values; False: the mean derivative alone
    batch_size: int = 16,      # films at a time
    output: int | None = None, # which of several outputs to explain; None: the only one
) -> np.ndarray: # (N, H, W) float32, signed
    "Derivatives of the log odds averaged over noisy copies, times the film."
    if samples < 1 or noise < 0: raise StudyError(
        f"Expected 1 sample or more and a noise of 0 or more, found {samples} and {noise}.")
    images, output = check_explained(model, images, output)
    draw = lambda n: rng_for(seed, "smoothgrad", n).normal(size=images.shape[1:])
    grain = np.stack([draw(n) for n in range(samples)]).astype(np.float32) * noise
    def noisy(films, film, step):
        return np.clip(films + np.ptp(films, axis=(1, 2), keepdims=True) * grain[step], 0, 255)
    compute, equal = _compiled(model, images.shape[1:], output), np.full(samples, 1 / samples, np.float32)
    total = _mean_slopes(compute, images, noisy, equal, batch_size)
    return total * images if times_input else total


# %%
test_close(smoothgrad(linear, some, 2), weights * some, eps=1e-6)
test_eq(smoothgrad(network, film, 4), smoothgrad(network, film, 4))
maps = {f"noise {noise:.0%}": smoothgrad(network, film, noise=noise) for noise in (0., .1, .4)}
alt = "A phantom and three maps in red and blue, smoother with more noise."
picture(maps, "gradients_smooth", "SmoothGrad without noise, with a little and with much.", alt)
