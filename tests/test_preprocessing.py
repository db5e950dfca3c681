"""Augmentation moves films and masks alike; batches depend on seed, epoch and film; the cache is right."""
import hashlib, os, shutil, subprocess, sys

import cv2
import numpy as np
import pandas as pd
import pytest

from pneumo_nb.run import StudyError, open_stage, rng_for
from pneumo_nb.phantom import draw_anatomy, draw_film, make_dataset
from pneumo_nb.cache import Films, cached_array, clean_cache, squash, take
from pneumo_nb.views import AUGMENTATION, augmented, draw_matrices, warp
from pneumo_nb.batches import film_source
from pneumo_nb.data import prepare_data
from pneumo_nb.preprocessing import load_films

STILL = dict(rotation=0., shift=0., shear=0., zoom=0., flip=False)

def some_films(n=9, size=16):
    pixels = np.random.default_rng(0).integers(0, 256, (n, size, size), np.uint8)
    names = [str(i) for i in range(n)]
    split = ["train"] * (n - 4) + ["validation"] * 4
    paths, labels = [f"{name}.png" for name in names], np.arange(n) % 2
    return Films(pd.DataFrame(dict(path=paths, sha1=names, label=labels, split=split)), pixels)

def test_masks_and_films_stay_aligned():
    _, mask = draw_film(draw_anatomy(rng_for(5)), "bacteria", rng_for(6), height=128)
    mask = cv2.resize(mask.astype(np.uint8) * 255, (128, 128))
    painted = np.where(mask > 127, 255, 0).astype(np.uint8)   # a film that is white just where the mask is
    for matrix in draw_matrices(1, 0, 50, 128, AUGMENTATION):
        together = warp(painted, matrix) > 127
        apart = warp((painted > 0).astype(np.uint8), matrix, cv2.INTER_NEAREST) > 0
        assert (together != apart).sum() <= .02 * painted.size
        assert together.any() == apart.any() or apart.sum() < 9

def test_matrices_stay_within_the_studys_ranges():
    matrices = draw_matrices(2, 0, 400, 100, AUGMENTATION)
    zoom = np.linalg.norm(matrices[:, :, :2], axis=1)
    assert (zoom > .79).all() and (zoom < 1.21).all() and np.ptp(zoom) > .35
    flipped = np.linalg.det(matrices[:, :, :2]) < 0
    assert .4 < flipped.mean() < .6
    middle = matrices @ np.array([49.5, 49.5, 1]) - 49.5
    assert (np.linalg.norm(middle, axis=1) <= 20 * 2 ** .5 + 1e-6).all() and np.abs(middle).max() > 15

def test_an_epoch_shows_every_train_film_once_with_its_label():
    films = some_films(40)
    batches = list(film_source(films, 1, STILL).train(7, 1).take(6).as_numpy_iterator())
    where = {film.tobytes(): n for n, film in enumerate(films.pixels)}
    seen = [(where[film.tobytes()], int(y)) for x, labels in batches for film, (y,) in zip(x[..., 0], labels)]
    assert sorted(seen) == [(n, films.labels[n]) for n in range(36)] and seen != sorted(seen)

def test_batches_are_the_same_on_any_number_of_threads():
    code = """
import sys; sys.path.insert(0, "tests"); import hashlib
from test_preprocessing import some_films, film_source, AUGMENTATION
source = film_source(some_films(200, 64), 3, AUGMENTATION)
batches = source.train(8, 3, first_epoch=2).take(50).as_numpy_iterator()
print(hashlib.sha1(b"".join(x.tobytes() + y.tobytes() for x, y in batches)).hexdigest())"""
    def run(count):
        environment = os.environ | dict(PNEUMO_THREADS=count)
        return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    one, five = run("1"), run("5")
    assert one.stdout and one.stdout == five.stdout, one.stderr
    assert "PNEUMO_THREADS to be a whole number above 0, found 'many'" in run("many").stderr

def test_views_come_in_turn():
    films, rows = some_films(), np.arange(5)
    two, fresh = (augmented(films.pixels, 1, AUGMENTATION, views) for views in (2, 0))
    for epoch in range(4): np.testing.assert_array_equal(two(epoch, rows), fresh(epoch % 2, rows))
    assert (fresh(0, rows) != fresh(2, rows)).any()

def test_pixels_are_as_ever():
    "Golden values of what the cache keeps; where they change on purpose, raise PIXELS."
    film = (np.add.outer(np.arange(90) * 2, np.arange(70)) % 256).astype(np.uint8)
    assert hashlib.sha1(squash(film, 32).tobytes()).hexdigest() == "00e06f9699d8a10123dc13e6ae3818175558684e"
    moved = augmented(some_films(5, 32).pixels, 7, AUGMENTATION)(4, np.arange(3))
    assert moved.shape == (3, 32, 32, 1)
    assert hashlib.sha1(moved.tobytes()).hexdigest() == "4bc8094ccbfd869c5bdee85416a8fc4c18d5b42d"

def test_a_second_run_on_the_same_films_decodes_nothing(tmp_path):
    root = make_dataset(tmp_path/"films", n_train=30, n_test=6, n_val=0)
    first = open_stage("data", tmp_path/"first", seed=1)
    prepare_data(first, str(root), seed=1)
    pixels = load_films(first, 32).pixels[:]
    shutil.copytree(tmp_path/"first", tmp_path/"second")
    for film in root.rglob("*.jpeg"): film.unlink()   # nothing is left to decode
    second = open_stage("data", tmp_path/"second")
    np.testing.assert_array_equal(load_films(second, 32).pixels, pixels)
    with pytest.raises(Exception): load_films(second, 48)

# The cache

def numbers(made, n=6):
    def chunks():
        made.append(1)
        yield np.arange(n, dtype=np.float32)
    return cached_array(dict(kind="numbers", n=n), (n,), np.float32, chunks)

HARM = {
    "cut short": lambda f: f.write_bytes(f.read_bytes()[:-3]),
    "a byte changed": lambda f: f.write_bytes(f.read_bytes()[:-1] + b"\7"),
    "note damaged": lambda f: f.with_suffix(".json").write_text("{"),
    "note gone": lambda f: f.with_suffix(".json").unlink(),
    "file gone": lambda f: f.unlink()}

@pytest.mark.parametrize("harm", HARM.values(), ids=HARM)
def test_what_is_damaged_is_made_again(cache, harm):
    made = []
    for _ in range(2): numbers(made)
    assert len(made) == 1
    harm(next(cache.glob("numbers-*.npy")))
    np.testing.assert_array_equal(numbers(made), np.arange(6))
    assert len(made) == 2

def test_a_process_killed_while_writing_leaves_nothing_that_is_taken_for_whole(cache):
    code = """
import os, signal, numpy as np
from pneumo_nb.cache import cached_array
def chunks():
    yield np.arange(3, dtype=np.float32)
    os.kill(os.getpid(), signal.SIGKILL)
cached_array(dict(kind="numbers", n=6), (6,), np.float32, chunks)"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert list(cache.glob(".partial-*"))
    made = []
    np.testing.assert_array_equal(numbers(made), np.arange(6))
    assert made and not list(cache.glob(".partial-*"))

def test_cleaning_removes_what_the_cache_wrote_and_nothing_else(cache):
    numbers([])
    mine = ["films-of-mine.npy", "notes.json", "weights.npy"]
    for name in mine: (cache/name).write_text("mine")
    assert clean_cache() > 0 and sorted(f.name for f in cache.iterdir()) == mine

def test_what_does_not_fit_is_refused_before_anything_is_made(cache, monkeypatch):
    monkeypatch.setenv("PNEUMO_CACHE_GB", "0.00001")
    made, too_full = [], "cache to stay within 1e-05 GB.*pneumo data clean"
    with pytest.raises(StudyError, match=too_full): numbers(made, 100_000)
    assert made == [] and not list(cache.glob("*.npy"))
    monkeypatch.setenv("PNEUMO_CACHE_GB", "lots")
    with pytest.raises(StudyError, match="PNEUMO_CACHE_GB to be a number, found 'lots'"): numbers(made)

def test_reading_a_large_map_does_not_add_to_resident_memory(cache):
    import psutil
    def chunks(): return (np.full((100, 64, 1024), n, np.uint8) for n in range(30))   # 197 MB in all
    array = cached_array(dict(kind="large"), (3000, 64, 1024), np.uint8, chunks)
    before = psutil.Process().memory_info().rss
    for start in range(0, 3000, 50):
        assert take(array, np.arange(start, start + 50))[0, 0, 0] == start // 100
    assert psutil.Process().memory_info().rss - before < 40e6
