"""Shortcuts are planted in the right films and places; a film without any is as it always was."""
import cv2
import numpy as np
import pandas as pd
import pytest

from pneumo_nb.appearance import TALL_MARKER, marker_height
from pneumo_nb.films import check_dataset, read_film, scan_dataset
from pneumo_nb.phantom import _draw_planted, draw_anatomy, draw_film, make_dataset
from pneumo_nb.run import StudyError, read_json, rng_for

SHORTCUTS = ["exposure", "frame", "marker", "text"]
SIZES = dict(n_train=40, n_test=20, n_val=4, seed=5)

def drawn(n, *names):
    "A film, its mask and its boxes, with some shortcuts."
    kind, generators = ["normal", "bacteria", "virus"][n % 3], {name: rng_for(n, name) for name in names}
    height = 260 + 20 * (n % 10)
    return _draw_planted(draw_anatomy(rng_for(n)), kind, rng_for(n, "film"), height, generators)

def covered(shape, boxes):
    "Which pixels some boxes touch."
    (h, w), inside = shape, np.zeros(shape, bool)
    for x0, y0, x1, y1 in boxes:
        rows = slice(int(y0 * h + .01), int(np.ceil(y1 * h - .01)))
        inside[rows, int(x0 * w + .01):int(np.ceil(x1 * w - .01))] = True
    return inside

def test_films_without_shortcuts_are_drawn_as_ever():
    "Within two gray levels, since other processors round otherwise; another draw would differ by far more."
    film, mask = draw_film(draw_anatomy(rng_for(1)), "bacteria", rng_for(2), height=200)
    small = cv2.resize(film, (6, 4), interpolation=cv2.INTER_AREA)
    golden = [[74, 133, 175, 173, 128, 63],
              [73, 108, 149, 175, 123, 58],
              [57, 108, 191, 209, 150, 48],
              [71, 181, 201, 195, 175, 54]]
    assert film.shape == (200, 255) and abs(int(mask.sum()) - 3156) < 40
    assert np.abs(small.astype(int) - golden).max() <= 2

@pytest.mark.parametrize("name", SHORTCUTS)
def test_a_shortcut_stays_in_its_boxes_and_leaves_the_mask_as_it_is(name):
    for n in range(8):
        (plain, mask, none), (film, same, boxes) = drawn(n), drawn(n, name)
        assert none == {} and list(boxes) == [name] and (mask == same).all()
        inside = covered(film.shape, boxes[name])
        if name == "marker": inside[:film.shape[0] // 3, :film.shape[1] // 4] = True  # the usual one is gone
        assert (film != plain)[inside].any() and not (film != plain)[~inside].any()

def test_no_border_hides_disease_the_text_or_a_marker():
    for n in range(30):
        _, mask, boxes = drawn(n, "frame", "marker", "text")
        border = covered(mask.shape, boxes["frame"])
        assert not (border & mask).any()
        assert not (border & covered(mask.shape, boxes["marker"] + boxes["text"])).any()

def test_planted_markers_are_tall_and_others_are_not():
    "The finder of markers misses some on bright tissue; a box tells the height of all."
    films = [drawn(n, "marker") for n in range(20)]
    boxes = [boxes["marker"][0] for _, _, boxes in films]
    assert all(TALL_MARKER < y1 - y0 < .115 for _, y0, _, y1 in boxes)
    hits = [(marker_height(film), y1 - y0) for (film, *_), (_, y0, _, y1) in zip(films, boxes)]
    hits = [(measured, height) for measured, height in hits if measured]
    assert len(hits) >= 12 and all(abs(measured - height) < .02 for measured, height in hits)
    assert max(marker_height(drawn(n)[0]) for n in range(20)) < TALL_MARKER

def test_a_set_says_what_was_planted_where_and_keeps_everything_else(tmp_path):
    ways = dict(text="class", exposure="reversed", frame="balanced", marker="none")
    root, without = (make_dataset(tmp_path/name, **SIZES, shortcuts=s) for name, s in
                     [("planted", ways), ("without", dict(marker="none"))])
    table, images = pd.read_csv(root/"planted.csv"), scan_dataset(root)
    assert list(table.columns) == ["path", "shortcut", "x0", "y0", "x1", "y1"]
    assert table[["x0", "y0"]].ge(0).all(axis=None) and table[["x1", "y1"]].le(1).all(axis=None)
    assert set(table.shortcut) == {"text", "exposure", "frame"} and not (without/"planted.csv").exists()
    assert read_json(root/"phantom.json")["shortcuts"] == {k: v for k, v in ways.items() if v != "none"}
    assert "shortcuts" not in read_json(without/"phantom.json")
    changed = {p for p in images.path if (root/p).read_bytes() != (without/p).read_bytes()}
    assert changed == set(table.path)
    for mask in (without/"masks").rglob("*.png"):
        assert (root/mask.relative_to(without)).read_bytes() == mask.read_bytes()
    checks = check_dataset(root, images)
    assert len(images) == 64 and checks.films.sum() == 0, checks[checks.films > 0]
    carried = {name: images.path.isin(table.path[table.shortcut == name]) for name in set(table.shortcut)}
    shares = pd.DataFrame(carried).groupby([images.split == "test", images.label]).mean()
    assert np.abs(shares.text - [.05, .9, .05, .9]).max() < .08
    assert np.abs(shares.exposure - [.05, .9, .9, .05]).max() < .08
    assert np.abs(shares.frame - .5).max() < .08
    mean_gray = lambda folder: np.mean([read_film(folder/p).mean() for p in images.path[carried["exposure"]]])
    assert mean_gray(root) - mean_gray(without) > 15

WRONG = [dict(tube="class"), dict(text="often"), dict(text=["class"]), ["text"], "text"]

@pytest.mark.parametrize("wrong", WRONG)
def test_other_shortcuts_and_ways_are_refused_before_anything_is_drawn(tmp_path, wrong):
    says = "exposure, frame, marker, text, each one of class, balanced, reversed, none"
    with pytest.raises(StudyError, match=says): make_dataset(tmp_path/"films", **SIZES, shortcuts=wrong)
    assert not (tmp_path/"films").exists()
