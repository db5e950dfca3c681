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
# # The cache
#
# > Every film decoded once for all runs, kept whole or not at all, and read without holding on to memory

# %%
#| default_exp cache

# %%
#| export
import hashlib, json, mmap, os, re, shutil, time, zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from pneumo_nb.run import (
    StudyError, atomic_path, cache_folder, check_cache, jsonable, read_json, threads, write_json)
from pneumo_nb.films import content_digest, read_film

# %%
#| hide
import io, tempfile
from contextlib import redirect_stdout
from unittest import mock
from fastcore.test import test_eq, test_fail
from pneumo_nb.phantom import make_dataset
from pneumo_nb.films import scan_dataset


# %% [markdown]
# Networks want equal squares, many times over. Decoding a full-size JPEG takes longer than anything else that
# happens to a film before training. So each film is read in gray once, squashed to a square and kept as
# bytes. The result depends on the films and the size alone, so all runs share it.
#
# ## A film as a square
#
# `INTER_AREA` averages the pixels that fall into each new one. Fine texture is blurred rather than turned
# into a false pattern. The shape is not kept: a wide film is squeezed more than a square one.

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
test_eq(squash(np.array([[0, 0, 90, 90]], np.uint8), 2)[0], [0, 90])


# %% [markdown]
# ## Where it lies
#
# The cache is the folder `PNEUMO_CACHE`, or else the user's own cache folder (`cache_folder`). An entry's
# name is a fingerprint of its **key**: everything that its content depends on. So no entry is ever out of
# date. Other content has another name.

# %%
#| export
def _entry_name(key: dict) -> str:
    "What an entry is called, without its ending."
    text = json.dumps(jsonable(key), sort_keys=True)
    return f"{key['kind']}-{hashlib.sha1(text.encode()).hexdigest()[:20]}"


# %%
test_eq(_entry_name(dict(kind="films", size=64)), _entry_name(dict(size=64, kind="films")))
assert _entry_name(dict(kind="films", size=64)) != _entry_name(dict(kind="films", size=96))
_entry_name(dict(kind="films", size=64))

# %% [markdown]
# Names of this form are the cache's own. Whatever else lies in the folder, such as the ledger of looks, is
# neither counted nor removed.

# %%
#| export
_ENTRY = re.compile(r"\.?(partial-\d+-)?[a-z]+-[0-9a-f]{20}\.(npy|json|lock)")

def _cache_files(folder: Path) -> list[Path]:
    "What the cache has written there, unfinished files too."
    return [f for f in folder.glob("*") if _ENTRY.fullmatch(f.name)]

def _cache_bytes(folder: Path) -> int:
    "How much the cache holds."
    return sum(f.stat().st_size for f in _cache_files(folder))

def clean_cache() -> int: # bytes
    "Remove every entry; how much that was."
    size = _cache_bytes(cache_folder())
    for f in _cache_files(cache_folder()): f.unlink(missing_ok=True)
    return size


# %%
with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, PNEUMO_CACHE=folder):
    entry = f"{_entry_name(dict(kind='films'))}.npy"
    for name in (entry, f".partial-7-{entry}", "films-of-mine.npy"): (Path(folder)/name).write_bytes(b"123")
    test_eq(clean_cache(), 6)
    test_eq(os.listdir(folder), ["films-of-mine.npy"])
    (Path(folder)/"looks.jsonl").write_text("{}\n")
    test_eq(clean_cache(), 0)
    assert (Path(folder)/"looks.jsonl").exists()

# %% [markdown]
# The cache may hold 60 GB, or `PNEUMO_CACHE_GB`. It also leaves 1 GB of the disk free. What would not fit is
# refused before anything is made.

# %%
#| export
_LIMIT_GB = 60.  # unless PNEUMO_CACHE_GB says otherwise

def _limit_gb() -> float:
    "The most that the cache may hold."
    asked = os.environ.get("PNEUMO_CACHE_GB") or _LIMIT_GB
    try: return float(asked)
    except ValueError:
        raise StudyError(f"Expected PNEUMO_CACHE_GB to be a number, found {asked!r}.") from None


# %%
#| export
def _check_room(
    folder: Path, # the cache
    needed: int,  # bytes
):
    "Refuse an entry that would overfill the cache or the disk."
    limit, held, free = _limit_gb(), _cache_bytes(folder), shutil.disk_usage(folder).free
    advice = "run `pneumo data clean`, or point PNEUMO_CACHE to a larger disk"
    if held + needed > limit * 1e9:
        raise StudyError(f"Expected the cache to stay within {limit:g} GB, found {held / 1e9:.1f} GB in it "
                         f"and {needed / 1e9:.1f} GB to add; {advice}, or raise PNEUMO_CACHE_GB.")
    if needed > free - 1e9:
        raise StudyError(f"Expected room for {needed / 1e9:.1f} GB in {folder} and 1 GB to spare, "
                         f"found {free / 1e9:.1f} GB; {advice}.")


# %%
with tempfile.TemporaryDirectory() as folder:
    test_fail(lambda: _check_room(Path(folder), 10 ** 15), contains="stay within 60 GB, found 0.0 GB in it")
    with mock.patch.dict(os.environ, PNEUMO_CACHE_GB="1e9"):
        test_fail(lambda: _check_room(Path(folder), 10 ** 15), contains="Expected room for 1000000.0 GB")


# %% [markdown]
# ## Whole, or made again
#
# An entry is a NumPy file and, written after it, a note of its length and checksum. A file that was cut short
# or changed on the disk no longer fits its note, and is made again. A process sums up each entry once only,
# since entries may have gigabytes.

# %%
#| export
def _checksum(file: Path) -> int: # CRC-32 of the content
    "A number that changes when the file does."
    crc = 0
    with open(file, "rb") as f:
        while block := f.read(1 << 20): crc = zlib.crc32(block, crc)
    return crc


# %%
#| export
_sound: set = set()  # entries that this process has read through

def _is_whole(file: Path) -> bool:
    "Whether an entry is there and as it was written."
    try: noted = read_json(file.with_suffix(".json"))
    except (OSError, ValueError): return False
    if not file.exists() or file.stat().st_size != noted["bytes"]: return False
    version = file, file.stat().st_mtime_ns, noted["checksum"]
    if version not in _sound and _checksum(file) == noted["checksum"]: _sound.add(version)
    return version in _sound


# %% [markdown]
# The content arrives in chunks, so that a set of any size passes through little memory.

# %%
#| export
def _write_chunks(file: Path, shape: tuple[int, ...], dtype, chunks):
    "Write arrays one after the other as one NumPy file."
    header = dict(descr=np.lib.format.dtype_to_descr(np.dtype(dtype)), fortran_order=False, shape=shape)
    with atomic_path(file) as partial:
        with open(partial, "wb") as f:
            np.lib.format.write_array_header_2_0(f, header)
            for chunk in chunks: f.write(np.ascontiguousarray(chunk, dtype).data)
        written = np.load(partial, mmap_mode="r").shape
        if written != shape: raise ValueError(f"{written} instead of {shape}")


# %%
with tempfile.TemporaryDirectory() as folder:
    file = Path(folder)/"pair.npy"
    _write_chunks(file, (2, 3), np.uint8, iter([np.zeros((1, 3)), np.ones((1, 3))]))
    test_eq(np.load(file), [[0, 0, 0], [1, 1, 1]])


# %%
#| export
def _make_entry(file: Path, key: dict, shape: tuple[int, ...], dtype, chunks):
    "Write an entry and its note, in place of what is left of an earlier one."
    facts = file.with_suffix(".json")
    if facts.exists(): print(f"Note: {file.name} in the cache was damaged and is made again.")
    unfinished = file.parent.glob(f".partial-*-{file.name}")  # of processes that were killed
    for old in (facts, file, *unfinished): old.unlink(missing_ok=True)
    _check_room(file.parent, int(np.prod(shape)) * np.dtype(dtype).itemsize)
    start = time.time()
    _write_chunks(file, shape, dtype, chunks())
    seconds = time.time() - start
    write_json(facts, dict(key=key, seconds=seconds, bytes=file.stat().st_size, checksum=_checksum(file)))


# %% [markdown]
# `cached_array` opens an entry as a memory map, from which the system reads only what is asked for. A lock
# keeps two runs from making the same entry at the same time.

# %%
#| export
def cached_array(
    key: dict,               # everything the content depends on; `kind` names it, such as "films"
    shape: tuple[int, ...],
    dtype,
    chunks,                  # function that gives an iterator of arrays, consecutive along the first axis
) -> np.ndarray: # `shape`, memory-mapped, read-only
    "What `chunks` gives for this key, made now or earlier, in this run or another."
    from filelock import FileLock
    folder, name = check_cache(), _entry_name(key)
    file = folder/f"{name}.npy"
    with FileLock(folder/f".{name}.lock"):
        if not _is_whole(file): _make_entry(file, key, shape, dtype, chunks)
    return np.load(file, mmap_mode="r")


# %% [markdown]
# Made once, read from the cache the second time, and made again when a byte has changed:

# %%
calls = []
def squares():
    calls.append(1)
    yield from (np.arange(n, n + 2)[:, None] ** 2 for n in (0, 2))

def cached_squares(): return cached_array(dict(kind="squares"), (4, 1), np.int16, squares)

with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, PNEUMO_CACHE=folder):
    for _ in range(2): test_eq(cached_squares(), [[0], [1], [4], [9]])
    test_eq(len(calls), 1)
    file = next(Path(folder).glob("squares-*.npy"))
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with redirect_stdout(io.StringIO()) as printed: test_eq(cached_squares()[3], [9])
    test_eq(len(calls), 2)
print(printed.getvalue())


# %% [markdown]
# An entry's note also holds how long it took. A training that starts from cached features counts that time,
# whenever it was spent.

# %%
#| export
def seconds_to_make(array: np.memmap) -> float: # from `cached_array`
    "How long an entry took to make, whenever that was."
    return read_json(Path(array.filename).with_suffix(".json"))["seconds"]


# %% [markdown]
# ## Reading without holding on
#
# Pages of a memory map that were read stay in the process's books until memory runs short. That looks like a
# leak, and makes a set of a million films look like 50 GB. `take` copies what is wanted and hands the pages
# back at once. The system keeps them at hand for the next epoch all the same.

# %%
#| export
def _hand_back(array: np.ndarray):
    "Tell the system that the pages read from a memory map are not needed now."
    pages = getattr(array, "_mmap", None)
    if pages is not None and hasattr(mmap, "MADV_DONTNEED"): pages.madvise(mmap.MADV_DONTNEED)

def take(
    array: np.ndarray,   # memory-mapped or not
    chosen: np.ndarray,  # (b,) indices
) -> np.ndarray: # (b, ...) a copy
    "Rows of an array, without holding on to its pages."
    rows = array[chosen]
    _hand_back(array)
    return rows


# %%
with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, PNEUMO_CACHE=folder):
    kept = cached_squares()
    test_eq(take(kept, np.array([3, 1])), [[9], [1]])
    print(f"made in {seconds_to_make(kept):.4f} s")


# %% [markdown]
# ## The films of a run
#
# Decoded films travel as one object: the table with a row a film, and the pixels in the same order.

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
        "What the films show."
        return self.images.label.to_numpy()

    @property
    def size(self) -> int: # pixels
        "Side of the squares."
        return self.pixels.shape[1]


# %%
table = pd.DataFrame(dict(split=["train", "test", "train"], label=[0, 1, 1]))
three = Films(table, np.zeros((3, 16, 16), np.uint8))
test_eq(three.rows("train"), [0, 2])
test_eq((three.labels.tolist(), three.size), ([0, 1, 1], 16))

# %% [markdown]
# Decoded films depend on the bytes of the files, on the size, on the version of OpenCV, and on the code that
# reads and squashes. `PIXELS` stands for that code. It is to be raised when `read_film`, `squash`,
# `draw_matrices` or `warp` gives other pixels, so that older entries are not taken for new ones.

# %%
#| export
PIXELS = 2  # 2: films are turned as EXIF says, 10 to 14 bits in a 16-bit file are scaled

def pixels_key(images: pd.DataFrame, size: int) -> dict:
    "All that decoded films depend on."
    return dict(pixels=PIXELS, opencv=cv2.__version__, size=size, films=content_digest(images))


# %%
#| export
def decoded(
    root: str | Path,  # folder that the paths are relative to
    paths: list[str],
    size: int,         # side of the squares
): # yields (n, size, size) uint8
    "Decode and squash films, a few hundred at a time, on all cores."
    read = lambda path: squash(read_film(Path(root)/path), size)
    with ThreadPoolExecutor(threads()) as pool:
        for start in range(0, len(paths), 256):
            yield np.stack(list(pool.map(read, paths[start:start + 256])))


# %%
#| export
def decode_films(
    images: pd.DataFrame, # path and sha1 of each film; attrs: root
    image_size: int,      # side of the squares, pixels; at least 16
) -> Films:
    "Films from the cache, or decoded now."
    if image_size < 16: raise StudyError(f"Expected an image_size of at least 16 pixels, found {image_size}.")
    key, shape = pixels_key(images, image_size), (len(images), image_size, image_size)
    chunks = lambda: decoded(images.attrs["root"], images.path.tolist(), image_size)
    return Films(images, cached_array(dict(kind="films") | key, shape, np.uint8, chunks))


# %% [markdown]
# A few phantoms, drawn into a folder and decoded. The second time no file is opened, so the films could be
# gone:

# %%
with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, PNEUMO_CACHE=f"{folder}/cache"):
    root = make_dataset(Path(folder)/"set", n_train=6, n_test=4, n_val=0, seed=1)
    images = scan_dataset(root)
    films = decode_films(images, 64)
    test_eq(films.pixels[2], squash(read_film(root/images.path[2]), 64))
    for file in root.rglob("*.jpeg"): file.unlink()
    test_eq(decode_films(images, 64).pixels, films.pixels)
    test_fail(lambda: decode_films(images, 8), contains="at least 16 pixels, found 8")
films.pixels.shape
