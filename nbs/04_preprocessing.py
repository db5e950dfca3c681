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
# # Preprocessing
#
# > From files to batches: every film decoded once, augmented afresh in each epoch, weighted by class

# %%
#| default_exp preprocessing

# %%
#| export
import hashlib, json, mmap, os, re, shutil, time, zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from pneumo_nb.run import CLASS_NAMES, COLOURS, Stage, StudyError, atomic_path, finish, note, open_stage, plain, plot_style, read_json, rng_for, save_figure, threads, write_json
from pneumo_nb.data import load_images
from pneumo_nb.eda import read_film, sample_films

# %%
#| hide
import io, tempfile
from contextlib import redirect_stdout
from unittest import mock
import matplotlib.pyplot as plt
import tensorflow as tf
from fastcore.test import test_close, test_eq, test_fail
from IPython.display import Markdown, display
plot_style()

# %% tags=["parameters"]
run_dir = ""     # the run directory; "" for a temporary one
seed = 42        # decides the augmentation shown
image_size = 64  # side of the square that films are squashed to, in pixels
rotation = 20.0  # augmentation: degrees either way
shift = 0.2      # fraction of the side, either way, along each axis
shear = 0.2      # degrees either way
zoom = 0.2       # each axis scaled by 1 - zoom to 1 + zoom
flip = True      # mirror left and right with probability one half

# %% [markdown]
# Networks want equal squares, many times over. Decoding a full-size JPEG is slow, so it happens **once**: each film is
# read in gray, shrunk to a square and kept as bytes. In every epoch, training then takes the kept films and moves them
# about a little. Models receive gray values from 0 to 255 as they are; scaling to what each network wants is part of
# the network, so that a saved model needs no recipe beside it.

# %%
stage = open_stage("preprocessing", run_dir, seed=seed, image_size=image_size, rotation=rotation, shift=shift, shear=shear,
                   zoom=zoom, flip=flip)
images = load_images(stage, seed)


# %% [markdown]
# ## Squashing
#
# `INTER_AREA` averages the pixels that fall into each new one, so fine texture is blurred rather than turned into a
# false pattern. It does not keep the shape: a wide film is squeezed more than a square one, as [before and
# after](#fig-preprocessing_squash) show (a copy that was squashed earlier looks the same in both); the chapter on exploration says what that gives away.

# %%
#| export
def squash(
    film: np.ndarray, # (H, W) uint8
    size: int,        # side of the result, pixels
) -> np.ndarray: # (size, size) uint8
    "A film as a square, by area averaging."
    return cv2.resize(film, (size, size), interpolation=cv2.INTER_AREA)


# %%
test_eq(squash(np.array([[0, 100], [50, 50]], np.uint8), 1), [[50]])
first = images.iloc[0]
film = read_film(images.attrs["root"], first.path)
figure, (left, right) = plt.subplots(1, 2, figsize=(7, 3))
left.imshow(film, vmin=0, vmax=255); left.set_title(f"as it is, {film.shape[1]}×{film.shape[0]}")
right.imshow(squash(film, image_size), vmin=0, vmax=255); right.set_title(f"as models see it, {image_size}×{image_size}")
for ax in (left, right): ax.axis("off")
save_figure(stage, figure, "preprocessing_squash", "One film as it is, and as the models see it.", "A film at its own size and squashed to a square.")

# %% [markdown]
# ## Decoded once, for all runs
#
# This section and the next are about speed; the films themselves go on under *Augmentation*.
#
# Decoding is the same in every run on the same films, so its result is kept in a **cache** that all runs share:
# the folder `PNEUMO_CACHE`, or else the user's own cache folder. An entry's name is a fingerprint of everything that its content depends
# on, so no entry is ever out of date; `pneumo data clean` removes them all.

# %%
#| export
CACHE_LIMIT_GB = 60.  # PNEUMO_CACHE_GB overrides it

def cache_folder() -> Path:
    "Where decoded films and features are kept for all runs."
    from platformdirs import user_cache_path
    return Path(os.environ.get("PNEUMO_CACHE") or user_cache_path("pneumo_nb")).expanduser().resolve()

ENTRY = re.compile(r"\.?(partial-\d+-)?[a-z]+-[0-9a-f]{20}\.(npy|json|lock)")

def cache_files(folder: Path) -> list[Path]:
    "What the cache has written there, unfinished files too; whatever else lies in the folder is not its own."
    return [f for f in folder.glob("*") if ENTRY.fullmatch(f.name)]

def cache_size(folder: Path) -> int: # bytes
    "How much the cache holds."
    return sum(f.stat().st_size for f in cache_files(folder))

def make_room(
    folder: Path, # the cache
    needed: int,  # bytes
):
    "Refuse an entry that would overfill the cache or the disk."
    try: limit = float(os.environ.get("PNEUMO_CACHE_GB") or CACHE_LIMIT_GB)
    except ValueError: raise StudyError(f"Expected PNEUMO_CACHE_GB to be a number, found {os.environ['PNEUMO_CACHE_GB']!r}.") from None
    held, free = cache_size(folder), shutil.disk_usage(folder).free
    help = "run `pneumo data clean`, or point PNEUMO_CACHE to a larger disk"
    if held + needed > limit * 1e9: raise StudyError(f"Expected the cache to stay within {limit:g} GB, found {held / 1e9:.1f} GB in it and {needed / 1e9:.1f} GB "
                                                     f"to add; {help}, or raise PNEUMO_CACHE_GB.")
    if needed > free - 1e9: raise StudyError(f"Expected room for {needed / 1e9:.1f} GB in {folder} and 1 GB to spare, found {free / 1e9:.1f} GB; {help}.")


# %% [markdown]
# An entry is a NumPy file and, written after it, a note of its length and checksum. A file that was cut short or changed on the disk
# no longer fits its note and is made again. The content arrives in chunks, so that a set of any size passes through little memory; it is
# opened as a memory map, from which the system reads only what is asked for.

# %%
#| export
def checksum(file: Path) -> int: # CRC-32 of the content
    "A number that changes when the file does."
    crc = 0
    with open(file, "rb") as f:
        while block := f.read(1 << 20): crc = zlib.crc32(block, crc)
    return crc

def is_whole(file: Path, facts: Path) -> bool:
    "Whether an entry is there and as it was written."
    try: noted = read_json(facts)
    except (OSError, ValueError): return False
    if not file.exists() or file.stat().st_size != noted["bytes"]: return False
    seen = file, file.stat().st_mtime_ns, noted["checksum"]
    if seen not in _sound and checksum(file) == noted["checksum"]: _sound.add(seen)
    return seen in _sound

_sound: set = set()  # entries that this process has read through, so that gigabytes are not summed up again at each opening

def write_chunks(file: Path, shape: tuple[int, ...], dtype, chunks):
    "Write arrays one after the other as one NumPy file."
    with atomic_path(file) as partial:
        with open(partial, "wb") as f:
            np.lib.format.write_array_header_2_0(f, dict(descr=np.lib.format.dtype_to_descr(np.dtype(dtype)), fortran_order=False, shape=shape))
            for chunk in chunks: f.write(np.ascontiguousarray(chunk, dtype).data)
        if (found := np.load(partial, mmap_mode="r").shape) != shape: raise ValueError(f"{found} instead of {shape}")


# %%
#| export
def cached_array(
    key: dict,               # everything the content depends on; `kind` names it, such as "films"
    shape: tuple[int, ...],
    dtype,
    chunks,                  # function that gives an iterator of arrays, which follow one another along the first axis
) -> np.ndarray: # `shape`, memory-mapped, read-only
    "What `chunks` gives for this key, made now or earlier, in this run or another."
    from filelock import FileLock
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{key['kind']}-{hashlib.sha1(json.dumps(plain(key), sort_keys=True).encode()).hexdigest()[:20]}"
    file, facts = folder/f"{name}.npy", folder/f"{name}.json"
    with FileLock(folder/f".{name}.lock"):  # another run may be making it just now
        if not is_whole(file, facts):
            if facts.exists(): print(f"Note: {file.name} in the cache was damaged and is made again.")
            for old in (facts, file, *folder.glob(f".partial-*-{name}.npy")): old.unlink(missing_ok=True)  # a killed process leaves the last
            make_room(folder, int(np.prod(shape)) * np.dtype(dtype).itemsize)
            start = time.time()
            write_chunks(file, shape, dtype, chunks())
            write_json(facts, dict(key=key, seconds=time.time() - start, bytes=file.stat().st_size, checksum=checksum(file)))
    return np.load(file, mmap_mode="r")

def seconds_to_make(array: np.memmap) -> float: # from `cached_array`
    "How long an entry took to make, whenever that was."
    return read_json(Path(array.filename).with_suffix(".json"))["seconds"]

def clean_cache() -> int: # bytes
    "Remove every entry; how much that was."
    size = cache_size(cache_folder())
    for f in cache_files(cache_folder()): f.unlink(missing_ok=True)
    return size


# %% [markdown]
# Made once, found the second time, made again when a byte has changed, refused when there is no room:

# %%
calls = []
def squares():
    calls.append(1)
    yield from (np.arange(n, n + 2)[:, None] ** 2 for n in (0, 2))

with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, PNEUMO_CACHE=folder):
    for _ in range(2): test_eq(cached_array(dict(kind="squares"), (4, 1), np.int16, squares), [[0], [1], [4], [9]])
    test_eq(len(calls), 1)
    file = next(Path(folder).glob("squares-*.npy"))
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with redirect_stdout(io.StringIO()) as said: test_eq(cached_array(dict(kind="squares"), (4, 1), np.int16, squares)[3], [9])
    test_eq((len(calls), "was damaged and is made again" in said.getvalue()), (2, True))
    with mock.patch.dict(os.environ, PNEUMO_CACHE_GB="1e-9"): test_fail(lambda: cached_array(dict(kind="others"), (4, 1), np.int16, squares), contains="pneumo data clean")


# %% [markdown]
# Pages of a memory map that were read stay in the process's books until memory runs short, which looks like a leak and
# makes a set of a million films look like 50 GB. `take` copies what is wanted and hands the pages back at once; the system keeps them
# at hand for the next epoch all the same.

# %%
#| export
def take(
    array: np.ndarray,   # memory-mapped or not
    chosen: np.ndarray,  # (b,) indices
) -> np.ndarray: # (b, ...) a copy
    "Rows of an array, without holding on to its pages."
    rows = array[chosen]
    hand_back(array)
    return rows

def hand_back(array: np.ndarray):
    "Tell the system that the pages read from a memory map are not needed now."
    pages = getattr(array, "_mmap", None)
    if pages is not None and hasattr(mmap, "MADV_DONTNEED"): pages.madvise(mmap.MADV_DONTNEED)


# %% [markdown]
# ## The films of a run

# %%
#| export
@dataclass
class Films:
    "The films of a run, decoded."
    images: pd.DataFrame # what images.csv holds
    pixels: np.ndarray   # (N, size, size) uint8, memory-mapped, in the order of `images`

    def rows(self, split: str) -> np.ndarray: # (n,) indices
        "Where the films of a split are."
        return np.flatnonzero(self.images.split == split)

    @property
    def labels(self) -> np.ndarray: # (N,) 0 normal, 1 pneumonia
        return self.images.label.to_numpy()

    @property
    def size(self) -> int: # pixels
        "Side of the squares."
        return self.pixels.shape[1]

def content_digest(images: pd.DataFrame) -> str:
    "Fingerprint of the films' bytes, in their order."
    return hashlib.sha1("\n".join(images.path + " " + images.sha1).encode()).hexdigest()


# %%
#| export
PIXELS = 1  # to be raised when `read_film`, `squash`, `draw_matrices` or `warp` gives other pixels, so that older entries are not found

def pixels_key(images: pd.DataFrame, size: int) -> dict:
    "All that decoded films depend on."
    return dict(pixels=PIXELS, opencv=cv2.__version__, size=size, films=content_digest(images))

def decoded(
    root: str | Path,  # folder that the paths are relative to
    paths: list[str],
    size: int,         # side of the squares
): # yields (n, size, size) uint8
    "Decode and squash films, a few hundred at a time, on all cores."
    with ThreadPoolExecutor(threads()) as pool:
        for start in range(0, len(paths), 256):
            yield np.stack(list(pool.map(lambda path: squash(read_film(root, path), size), paths[start:start + 256])))

def load_films(
    stage: Stage,
    image_size: int, # side of the squares, pixels
    seed: int = 42,  # for phantoms, if the run has no films yet
) -> Films:
    "The decoded films of this run, from the cache or decoded now."
    if image_size < 16: raise StudyError(f"Expected an image_size of at least 16 pixels, found {image_size}.")
    images = load_images(stage, seed)
    return Films(images, cached_array(dict(kind="films") | pixels_key(images, image_size), (len(images), image_size, image_size), np.uint8,
                                      lambda: decoded(images.attrs["root"], images.path.tolist(), image_size)))


# %%
start = time.time()
films = load_films(stage, image_size, seed)
print(f"{len(films.images):,} films in {time.time() - start:.1f} s")
films.pixels.shape

# %%
again = load_films(stage, image_size, seed)   # nothing is decoded this time
test_eq(again.pixels, films.pixels)
test_eq(again.pixels[0], squash(film, image_size))


# %% [markdown]
# ## Augmentation
#
# Each time a film is trained on it is turned, shifted, zoomed and perhaps mirrored at random, within the reference
# study's ranges. The steps are composed into **one** affine map, so the film is interpolated once. (The study's shear
# of 0.2 means 0.2 *degrees* in Keras, which is next to nothing; it is kept as it is.) Validation and test films are
# never touched: they must look like the films a model will meet.

# %%
#| export
def affine_matrix(
    size: int,          # side of the film, pixels
    rotation=0.,        # degrees, anticlockwise; like all that follow a number, or (N,) for N films
    shift=(0., 0.),     # fraction of the side, along x and y
    shear=0.,           # degrees
    zoom=(1., 1.),      # along x and y; above 1 shows more of the surroundings, as in Keras
    flip=False,         # mirror left and right
) -> np.ndarray: # (..., 2, 3): output pixel → input pixel
    "Rotation, shift, shear, zoom and mirror about the film's middle, as one map."
    turn, lean = np.deg2rad(rotation), np.deg2rad(rotation) + np.deg2rad(shear)
    mirror = np.where(flip, -1., 1.)
    linear = np.array([[np.cos(turn) * zoom[0] * mirror, -np.sin(lean) * zoom[1]],
                       [np.sin(turn) * zoom[0] * mirror, np.cos(lean) * zoom[1]]])
    moved = np.array([np.cos(turn) * shift[0] - np.sin(turn) * shift[1], np.sin(turn) * shift[0] + np.cos(turn) * shift[1]]) * size
    middle = (size - 1) / 2
    offset = middle - linear.sum(axis=1) * middle + moved
    return np.moveaxis(np.concatenate([linear, offset[:, None]], axis=1), (0, 1), (-2, -1))

def warp(
    film: np.ndarray,   # (size, size) uint8, a film or a mask
    matrix: np.ndarray, # (2, 3) from `affine_matrix`
    interpolation=cv2.INTER_LINEAR,
) -> np.ndarray: # like `film`; what lies outside repeats the nearest edge
    "Apply an affine map."
    return cv2.warpAffine(film, matrix, film.shape[::-1], flags=interpolation | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE)


# %% [markdown]
# On a 4 × 4 film the right answers can be written down: nothing, a mirror, a quarter turn and a shift by one pixel.

# %%
tiny = np.arange(16, dtype=np.uint8).reshape(4, 4)
test_eq(warp(tiny, affine_matrix(4)), tiny)
test_eq(warp(tiny, affine_matrix(4, flip=True)), tiny[:, ::-1])
test_eq(warp(tiny, affine_matrix(4, rotation=90)), np.rot90(tiny))
test_eq(warp(tiny, affine_matrix(4, shift=(.25, 0))), tiny[:, [1, 2, 3, 3]])

# %%
#| export
AUGMENTATION = dict(rotation=20., shift=.2, shear=.2, zoom=.2, flip=True)  # the reference study's

def check_ranges(ranges: dict):
    "Refuse ranges with which nothing of a film might be left."
    limits = dict(rotation=180, shift=1, shear=90, zoom=1)
    for name, limit in limits.items():
        if not 0 <= ranges[name] < limit + (name == "rotation"): raise StudyError(
            f"Expected {name} to be at least 0 and below {limit}, found {ranges[name]}.")

def load_ranges(stage: Stage) -> dict: # as `AUGMENTATION`
    "The augmentation this run's preprocessing chose; the study's own if that stage has not run here."
    file = stage.path("metrics/preprocessing.json")
    if file.exists(): return read_json(file)["augmentation"]
    note(stage, "no preprocessing in this run, so films are augmented with the reference study's ranges.")
    return AUGMENTATION

def draw_matrices(
    seed: int,
    view: int,    # which drawing; an epoch, say
    count: int,   # how many films
    size: int,    # side of the films, pixels
    ranges: dict, # as `AUGMENTATION`
) -> np.ndarray: # (count, 2, 3); film n's does not depend on `count`
    "A random affine map within `ranges` for each film."
    turn, x, y, lean, wide, high, mirror = rng_for(seed, "augment", view).random((count, 7)).T
    either = lambda u, most: (2 * u - 1) * most
    return affine_matrix(size, either(turn, ranges["rotation"]), either(np.stack([x, y]), ranges["shift"]), either(lean, ranges["shear"]),
                         1 + either(np.stack([wide, high]), ranges["zoom"]), ranges["flip"] & (mirror < .5))


# %%
ranges = dict(rotation=rotation, shift=shift, shear=shear, zoom=zoom, flip=flip)
check_ranges(ranges)
test_fail(lambda: check_ranges(AUGMENTATION | dict(zoom=5)), contains="zoom to be at least 0 and below 1, found 5")
test_eq(draw_matrices(seed, 3, 9, 64, ranges), draw_matrices(seed, 3, 12, 64, ranges)[:9])
assert (draw_matrices(seed, 3, 9, 64, ranges) != draw_matrices(seed, 4, 9, 64, ranges)).any()


# %% [markdown]
# ## Batches
#
# Training runs through the train films in a new order each epoch. Order and augmentation depend on seed, epoch and
# film alone, so a training that was interrupted after epoch 7 continues with exactly the films that epoch 8 would have
# had, on however many threads.
#
# First the order: which films, in batches.

# %%
#| export
def shuffled(
    rows: np.ndarray, # which films
    batch_size: int,
    seed: int,
    first_epoch: int = 0,
): # yields epoch and (b,) indices, epoch after epoch, without end
    "Batches of training: a new order in each epoch."
    for epoch in count(first_epoch):
        order = rows[rng_for(seed, "order", epoch).permutation(len(rows))]
        for start in range(0, len(order), batch_size): yield epoch, order[start:start + batch_size]

def in_order(rows: np.ndarray, batch_size: int): # yields 0 and (b,) indices, once through
    "Batches of validation and test."
    for start in range(0, len(rows), batch_size): yield 0, rows[start:start + batch_size]


# %%
test_eq([(e, len(r)) for (e, r), _ in zip(shuffled(np.arange(5), 2, seed=1), range(4))], [(0, 2), (0, 2), (0, 1), (1, 2)])
test_eq([r.tolist() for _, r in in_order(np.array([4, 6, 9]), 2)], [[4, 6], [9]])


# %% [markdown]
# Then what a batch of an epoch looks like. With `views`, only so many augmented versions of each film are drawn and
# used in turn; 0 draws a new one in every epoch.

# %%
#| export
def as_they_are(pixels: np.ndarray): # function of epoch and (b,) indices → (b, size, size, 1) uint8
    "Reads films untouched."
    return lambda epoch, chosen: take(pixels, chosen)[..., None]

def augmented(
    pixels: np.ndarray, # (N, size, size) uint8
    seed: int,
    ranges: dict,       # as `AUGMENTATION`
    views: int = 0,     # versions of each film, used in turn; 0: a new one in every epoch
): # function of epoch and (b,) indices → (b, size, size, 1) uint8
    "Reads films as an epoch sees them."
    if views < 0: raise StudyError(f"Expected views of 0 (a new one in every epoch) or more, found {views}.")
    matrices = lru_cache(2)(lambda view: draw_matrices(seed, view, len(pixels), pixels.shape[1], ranges))
    def read(epoch, chosen):
        matrix = matrices(int(epoch) % views if views else int(epoch))
        return np.stack([warp(film, matrix[n]) for film, n in zip(take(pixels, chosen), chosen)])[..., None]
    return read


# %%
read = augmented(films.pixels, seed, ranges, views=2)
first = read(0, np.array([3, 5]))
test_eq(first, read(2, np.array([3, 5])))                       # two views: epoch 2 sees what epoch 0 saw
test_eq(first[1], read(0, np.array([5]))[0])                    # whatever else is in the batch
assert (first != read(1, np.array([3, 5]))).any()
first.shape

# %% [markdown]
# Last, `tf.data`: several threads read batches ahead, in order, while the network works on the present one. Its
# self-tuning is switched off. There is nothing to tune here, and the thread that does it sleeps for intervals that double each time;
# whoever closes a set may wait until it wakes. On some machines that has doubled the time of an epoch; what it costs on this one:

# %%
for tuned in (True, False):
    options = tf.data.Options()
    options.autotune.enabled = tuned
    numbers, start = iter(tf.data.Dataset.range(10 ** 9).map(lambda n: n, num_parallel_calls=2).with_options(options)), time.time()
    while time.time() - start < .7: next(numbers)
    start = time.time()
    del numbers
    print(f"with{'' if tuned else 'out'} self-tuning, closing a set after 0.7 s takes {time.time() - start:.2f} s")


# %%
#| export
def as_dataset(
    batches,             # function without arguments that gives an iterator of epoch and (b,) indices
    read,                # function of epoch and (b,) indices → (b, *shape)
    targets: np.ndarray, # (N, t) float32
    shape: tuple,        # of one film, or of its features
    dtype,
    length: int | None,  # number of batches; None for no end
): # tf.data.Dataset of (b, *shape) and (b, t) float32
    "Batches as a `tf.data` set, in the same order on any number of threads."
    import tensorflow as tf
    def fetch(epoch, chosen):
        x, y = tf.numpy_function(read, [epoch, chosen], dtype, stateful=False), tf.numpy_function(pick, [chosen], tf.float32, stateful=False)
        return tf.ensure_shape(x, (None, *shape)), tf.ensure_shape(y, (None, targets.shape[1]))
    pick = lambda chosen: targets[chosen]
    plan = tf.data.Dataset.from_generator(batches, output_signature=(tf.TensorSpec((), tf.int64), tf.TensorSpec((None,), tf.int64)))
    dataset = plan.map(fetch, num_parallel_calls=threads(), deterministic=True).prefetch(2)
    endless, options = tf.data.experimental.INFINITE_CARDINALITY, tf.data.Options()
    options.autotune.enabled = False
    return dataset.apply(tf.data.experimental.assert_cardinality(endless if length is None else length)).with_options(options)


# %% [markdown]
# A `Source` holds together what a network is trained on: films here, features of films in the chapter on ResNet50.

# %%
#| export
@dataclass
class Source:
    "What a network is trained and judged on."
    films: Films
    training: Callable # (epoch, (b,) indices) → (b, *shape), for train films
    plain: Callable    # the same for validation and test films
    shape: tuple
    dtype: type
    key: dict          # everything that `training` depends on
    classes: np.ndarray | None = None # (N,) 0, 1, … where a network tells more classes than the label's two

    @property
    def targets(self) -> np.ndarray: # (N, 1) labels, or (N, number of classes) ones and zeros; float32
        "What a network should answer."
        if self.classes is None: return self.films.labels[:, None].astype(np.float32)
        return np.eye(self.classes.max() + 1, dtype=np.float32)[self.classes]

    def train(self, batch_size: int, seed: int, first_epoch: int = 0):
        "The train films without end, as a `tf.data` set."
        return as_dataset(lambda: shuffled(self.films.rows("train"), batch_size, seed, first_epoch), self.training, self.targets, self.shape, self.dtype, None)

    def judge(self, rows: np.ndarray, batch_size: int):
        "Some validation or test films, once through."
        return as_dataset(lambda: in_order(rows, batch_size), self.plain, self.targets, self.shape, self.dtype, -(-len(rows) // batch_size))

def film_source(films: Films, seed: int, ranges: dict, views: int = 0) -> Source: # as for `augmented`
    "Augmented train films, untouched others."
    return Source(films, augmented(films.pixels, seed, ranges, views), as_they_are(films.pixels), (films.size, films.size, 1), np.uint8,
                  dict(pixels=pixels_key(films.images, films.size), split=films.images.split.tolist(), ranges=ranges, views=views, seed=seed))


# %% [markdown]
# [The figure](#fig-preprocessing_augmentation) shows train films, each as it is and as the first five epochs see it, read by `augmented` itself. What is
# moved out of the picture is lost, and the empty margin is filled by drawing out the edge, hence the streaks. A mirrored film has the heart on the
# wrong side, as hardly any child has. These are the reference study's choices, kept for comparison.

# %%
#| export
def plot_augmentation(
    films: Films,
    rows: np.ndarray, # a few train films
    seed: int,
    ranges: dict,
    epochs: int = 5,
): # matplotlib Figure
    "Films beside what training sees of them."
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots(len(rows), epochs + 1, figsize=(2 * (epochs + 1), 2.15 * len(rows)), squeeze=False)
    read = augmented(films.pixels, seed, ranges)
    for ax in axes.flat: ax.set(xticks=[], yticks=[])
    for row, n in zip(axes, rows):
        row[0].imshow(films.pixels[n], vmin=0, vmax=255)
        row[0].set_ylabel(films.images.kind[n], color=COLOURS[films.images.kind[n]])
    for epoch in range(epochs):
        for ax, film in zip(axes[:, epoch + 1], read(epoch, rows)): ax.imshow(film[..., 0], vmin=0, vmax=255)
        axes[0, epoch + 1].set_title(f"epoch {epoch + 1}")
    axes[0, 0].set_title("as it is")
    return figure


# %%
train = films.rows("train")
shown = sample_films(films.images.iloc[train], "kind", 1, seed).index.to_numpy()
save_figure(stage, plot_augmentation(films, shown, seed, ranges), "preprocessing_augmentation", "The same train films as they are, and as the first epochs see them.",
            f"A normal, a bacterial and a viral train film as they are and as five epochs see them: turned up to {rotation:g} degrees, "
            f"shifted and zoomed up to {zoom:.0%}" + (", some mirrored." if flip else "."))

# %%
#| hide
source = film_source(films, seed, ranges)
seen = source.train(32, seed).as_numpy_iterator()
labels = np.concatenate([next(seen)[1] for _ in range(-(-len(train) // 32))])
test_eq((len(labels), labels.sum()), (len(train), films.labels[train].sum()))
test_eq(next(source.train(32, seed, first_epoch=1).as_numpy_iterator())[0], next(seen)[0])
x, y = next(source.judge(films.rows("validation"), 8).as_numpy_iterator())
test_eq(x[..., 0], films.pixels[films.rows("validation")[:8]])


# %% [markdown]
# ## Where the time goes
#
# What it costs to bring one film to the network on this machine, [step by step](#fig-preprocessing_costs). Decoding is paid once
# for all epochs and runs; what remains in each epoch is a copy from the cache and one interpolation.

# %%
#| export
def seconds_of(
    step,             # function without arguments
    times: int = 5,
) -> float: # median, after one call that is not counted
    "How long something takes."
    step()
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        step()
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))

def plot_film_costs(
    costs: dict[str, float], # step → microseconds a film
): # matplotlib Figure
    "A dot for what each step costs."
    import matplotlib.pyplot as plt
    figure, ax = plt.subplots(figsize=(7, 2.2))
    ax.plot(list(costs.values()), list(costs), "o", color="black", ms=9)
    for step, cost in costs.items(): ax.annotate(f"{cost:,.1f} µs" if cost < 10 else f"{cost:,.0f} µs", (cost, step), (9, 0), textcoords="offset points", va="center")
    ax.set(xlabel="microseconds a film, on one thread (logarithmic)", xscale="log", xlim=(.5, max(costs.values()) * 5), ylim=(len(costs) - .5, -.5))
    ax.grid(axis="x", color="#dddddd")
    return figure


# %%
some = train[:32]
matrices = draw_matrices(seed, 0, len(films.images), image_size, ranges)
paths, copies = films.images.path[some].tolist(), take(films.pixels, some)
costs = {"decode and squash (once)": seconds_of(lambda: [squash(read_film(films.images.attrs["root"], p), image_size) for p in paths]),
         "copy from the cache": seconds_of(lambda: take(films.pixels, some)),
         "draw the affine map": seconds_of(lambda: draw_matrices(seed, 0, 32, image_size, ranges)),
         "apply it": seconds_of(lambda: [warp(film, matrices[n]) for film, n in zip(copies, some)])}
costs = {step: 1e6 * seconds / 32 for step, seconds in costs.items()}
each_epoch = sum(costs.values()) - costs["decode and squash (once)"]
save_figure(stage, plot_film_costs(costs), "preprocessing_costs", "What a film costs, step by step.", "Microseconds a film: " + ", ".join(f"{step} {cost:.0f}" for step, cost in costs.items()) + ".")
print(f"In each epoch a film costs {each_epoch:,.0f} µs of one thread; decoding it again would add {costs['decode and squash (once)']:,.0f} µs.")


# %% [markdown]
# ## Class weights
#
# With three pneumonia films for each normal one, a network gains most by leaning towards pneumonia. Weighting each film
# by n / (2 n_c), n being all films trained on and n_c those of its class, makes both classes count the same (with three classes, 3 takes the place of 2). On the published train folder
# these are about 1.945 and 0.673.

# %%
#| export
def class_weights(
    labels: np.ndarray, # (n,) 0, 1, …, of the films trained on
    classes: int = 2,
) -> dict[int, float]: # class → weight
    "Weights with which all classes count the same in the loss."
    counts = np.bincount(labels, minlength=classes)
    if counts.min() == 0: raise StudyError(f"Expected films of {classes} classes to train on, found {' and '.join(map(str, counts))}.")
    return {n: len(labels) / (classes * c) for n, c in enumerate(counts.tolist())}


# %%
test_close(list(class_weights(np.repeat([0, 1], [1341, 3875])).values()), [1.945, .673], eps=1e-3)
test_fail(lambda: class_weights(np.ones(3, int)), contains="of 2 classes to train on, found 0 and 3")
test_eq(class_weights(np.array([0, 1, 1, 2]), 3), {0: 4 / 3, 1: 2 / 3, 2: 4 / 3})
weights = class_weights(films.labels[train])
print(f"normal {weights[0]:.4f}, pneumonia {weights[1]:.4f}")


# %%
#| export
def preprocessing_findings(
    films: Films,
    weights: dict[int, float], # from `class_weights`
) -> str: # markdown
    "What preprocessing made, in words."
    n, size = len(films.images), films.size
    return (f"- **{n:,} films of {size} × {size} pixels** take {films.pixels.nbytes / 1e6:,.1f} MB and are not decoded again, in this run or another.\n"
            f"- A normal train film counts {weights[0]:.3f}, a pneumonia one {weights[1]:.3f}.\n"
            f"- Only the {len(films.rows('train')):,} train films are augmented; the {len(films.rows('validation')):,} validation and "
            f"{len(films.rows('test')):,} test films stay as they are.")


# %%
display(Markdown(preprocessing_findings(films, weights)))
write_json(stage.path("metrics/preprocessing.json"), dict(image_size=image_size, films=len(films.images), class_weights=weights,
           augmentation=ranges))
record = finish(stage)
