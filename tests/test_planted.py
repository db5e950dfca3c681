"""Shortcuts are planted in the right films and places; a film without any is as it always was.

The audit of films without lungs finds what is planted by class, and nothing else: all of it in 20 s."""
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from pneumo_nb import eda
from pneumo_nb.appearance import (
    TALL_MARKER, appearance, burnt_in, features_without_lungs, marker_height, measure_films,
    without_lungs)
from pneumo_nb.cache import squash
from pneumo_nb.data import prepare_data
from pneumo_nb.films import check_dataset, read_film, scan_dataset
from pneumo_nb.phantom import (
    _SHORTCUTS, _choose_carriers, _draw_planted, _plan_films, draw_anatomy, draw_film, make_dataset)
from pneumo_nb.run import StudyError, finish, open_stage, read_json, rng_for, stage_words

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
    planted = table[table.shortcut == "text"].set_index("path")
    images.attrs["root"] = root
    hits = measure_films(images)[1].query("kind == 'text'")
    assert set(hits.path) <= set(planted.index)
    assert hits.path.nunique() >= .5 * len(planted)   # most text lies on bright tissue
    x, y, boxes = hits.x + hits.w / 2, hits.y + hits.h / 2, planted.loc[hits.path].set_index(hits.index)
    assert ((boxes.x0 < x) & (x < boxes.x1) & (boxes.y0 < y) & (y < boxes.y1)).all()

WRONG = [dict(tube="class"), dict(text="often"), dict(text=["class"]), ["text"], "text"]

@pytest.mark.parametrize("wrong", WRONG)
def test_other_shortcuts_and_ways_are_refused_before_anything_is_drawn(tmp_path, wrong):
    says = "exposure, frame, marker, text, each one of class, balanced, reversed, none"
    with pytest.raises(StudyError, match=says): make_dataset(tmp_path/"films", **SIZES, shortcuts=wrong)
    assert not (tmp_path/"films").exists()

# ---- a run with planted shortcuts

def test_a_run_says_what_is_planted_on_its_phantoms(tmp_path):
    "In its notes, and on the landing page. 1 s."
    params = dict(phantom_train=12, phantom_test=6)
    stage = open_stage("data", tmp_path/"run", **params, phantom_text="class", phantom_frame="reversed")
    shortcuts = dict(text="class", marker="none", frame="reversed")
    root = Path(prepare_data(stage, seed=1, shortcuts=shortcuts, **params).attrs["root"])
    assert root.name == "phantoms_12_6_1_text-class_frame-reversed" and (root/"planted.csv").exists()
    assert "shortcuts are planted on these phantoms: text (class), frame (reversed)." in stage.notes
    finish(stage)
    says = "Shortcuts are planted on these phantoms: text (class), frame (reversed)."
    assert stage_words(tmp_path/"run", "data", "data_remark") == says

def test_a_run_without_says_nothing_and_keeps_its_folder(tmp_path):
    stage = open_stage("data", tmp_path/"run", phantom_text="none")
    images = prepare_data(stage, seed=1, phantom_train=12, phantom_test=6)
    assert Path(images.attrs["root"]).name == "phantoms_12_6_1" and not stage.notes
    finish(stage)
    assert stage_words(tmp_path/"run", "data", "data_remark") == ""

def test_nothing_is_planted_on_films_of_a_folder(tmp_path):
    stage = open_stage("data", tmp_path/"run")
    with pytest.raises(StudyError, match="phantom_text=class; they can be planted on phantoms only"):
        prepare_data(stage, str(tmp_path), shortcuts=dict(text="class"))

# ---- the audit: what tells the class without a lung

@pytest.fixture(scope="module")
def plain():
    "Who is on 240 films, and the films with nothing planted: 4 s."
    films = _plan_films(dict(train=160, test=80), seed=3)
    draw = lambda n, film: _draw_planted(draw_anatomy(rng_for(3, film.kind, film.patient)), film.kind,
                                         rng_for(3, film.kind, film.patient, film.number),
                                         220 + 20 * (n % 5), {})[0]
    return films, [draw(n, film) for n, film in enumerate(films)]

def planted_films(plain, ways):
    "The table of films, and the films with shortcuts on them."
    films = [replace(film, shortcuts=[]) for film in plain[0]]
    _choose_carriers(films, ways, seed=3)
    pixels = [film.copy() for film in plain[1]]
    for n, film in enumerate(films):
        for name in _SHORTCUTS:
            if name in film.shortcuts: _SHORTCUTS[name](pixels[n], rng_for(3, name, n))
    rows = [dict(path=film.name, split=film.split, label=int(film.kind != "normal"), bytes=1,
                 patient_id=f"{film.kind}{film.patient}", height=len(drawn), width=drawn.shape[1])
            for film, drawn in zip(films, pixels)]
    return pd.DataFrame(rows), pixels

def audit(images, pixels, classifiers):
    "What some classifiers without lungs reach."
    measured = pd.DataFrame([appearance(film, 1) | dict(marker=marker_height(film)) for film in pixels])
    views = features_without_lungs(images, measured, np.stack([squash(film, 32) for film in pixels]))
    return without_lungs(images, {name: views[name] for name in classifiers}, seed=3)

TELLING = dict(text="lower right corner", marker="height of the side marker", frame="outer frame",
               exposure="eight measures")

@pytest.mark.parametrize("name", SHORTCUTS)
def test_the_audit_flags_a_shortcut_that_is_planted_by_class(plain, name):
    "Half a second each."
    answers = audit(*planted_films(plain, {name: "class"}), [TELLING[name]]).set_index("asked")
    assert (answers.low > .5).all() and (answers.auroc > .7).all(), answers

def test_the_audit_tells_that_a_shortcut_is_reversed_in_test(plain):
    answers = audit(*planted_films(plain, dict(text="reversed")), ["lower right corner"]).set_index("asked")
    assert answers.auroc["others"] > .8 and answers.auroc["test"] < .25

@pytest.mark.parametrize("way", ["none", "balanced"])
def test_the_audit_keeps_silent_where_nothing_tells_the_class(plain, way):
    "On films with nothing, and with every shortcut on half of them: 3 s each."
    images, pixels = planted_films(plain, dict.fromkeys(SHORTCUTS, way) if way != "none" else {})
    answers = audit(images, pixels, [*eda._SEEN, "eight measures"])
    assert not eda._is_told(answers[answers.asked == "others"]).any(), answers
    assert eda._WITHOUT_WORDS["none"] in eda._without_lungs_findings(answers, is_drawn=True)
    places = [dict(path=path) | place for path, film in zip(images.path, pixels) for place in burnt_in(film)]
    has = eda._films_with(images, pd.DataFrame(places))
    assert has.any().tolist() == [way != "none"] * 2
    for column, words in (("text", eda._TEXT_WORDS), ("tall", eda._MARKER_WORDS)):
        assert words["shortcut"] not in eda._class_findings(images, has[column], words)

def test_burnt_in_text_and_tall_markers_by_class_are_said_to_tell(plain):
    images, pixels = planted_films(plain, dict(text="class", marker="class"))
    places = [dict(path=path) | place for path, film in zip(images.path, pixels) for place in burnt_in(film)]
    has = eda._films_with(images, pd.DataFrame(places))
    for column, words in (("text", eda._TEXT_WORDS), ("tall", eda._MARKER_WORDS)):
        assert words["shortcut"] in eda._class_findings(images, has[column], words)
