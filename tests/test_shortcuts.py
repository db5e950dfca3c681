"""What moves the answers without touching the lung: phantoms with planted text, and networks that are known.

The set is drawn and decoded once, and one network is trained on its lower right corner (`conftest.py`)."""
import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers as L

from pneumo_nb import shortcuts
from pneumo_nb.cache import take
from pneumo_nb.measures import auroc
from pneumo_nb.run import StudyError
from pneumo_nb.shortcuts import (
    ALTERATIONS, _boxes, alteration_rows, altered_films, with_corrected)
from pneumo_nb.views import painted_over

SIZE = 64

def asked(network, films, places, rows=None):
    "The rows of one network, by alteration, on test films."
    rows = films.rows("test") if rows is None else rows
    made = alteration_rows(network, take(films.pixels, rows), altered_films(films, rows, places, 1),
                           films.images.iloc[rows][["path", "label", "patient_id"]], .5)
    return with_corrected(pd.DataFrame(made).assign(model="a")).set_index("alteration")

def test_a_network_that_reads_text_is_found_out(planted, corner_reader):
    rows = asked(corner_reader, *planted)
    before, over, pasted = (rows.loc[name] for name in ("", "text_over", "text_pasted"))
    assert before.roc_auc > .85
    assert over.concerned > 30 and over.odds_pneumonia < -1
    assert over.roc_auc < .65 and over.change_p_holm < .05
    assert over.change_low <= over.change <= over.change_high < 0
    assert pasted.odds_normal > 1 and pasted.change < -.1 and pasted.concerned == pasted.films
    said = shortcuts.shortcut_findings(rows.reset_index(), "a")
    assert "costs **a** most" in said[0] and "log odds of **a** by +" in said[1]

def test_where_text_was_does_not_give_the_class_away_either(planted, corner_reader):
    "A painted place is smooth, which is a sign itself; on films of both classes it is none."
    films, places = planted
    rows, boxes = films.rows("test"), _boxes(films, places, "text")
    [alike] = ALTERATIONS["text_over"].alter(films, rows, places, 1)
    those_with_text = np.stack([painted_over(film, boxes[row]) for film, row in
                                zip(take(films.pixels, rows), rows)])
    assert (alike != take(films.pixels, rows)).any(axis=(1, 2)).all()
    remaining = [auroc(films.labels[rows], corner_reader.predict(pixels[..., None], verbose=0)[:, 0])
                 for pixels in (those_with_text, alike)]
    assert remaining[0] > remaining[1] + .2

def test_the_frame_counts_by_what_the_other_class_adds(planted, corner_reader):
    rows = asked(corner_reader, *planted)
    assert rows.misled.notna().sum() == 1
    frame = rows.loc["frame_other"]
    assert frame.misled == pytest.approx(frame.roc_auc - rows.roc_auc["frame_same"])
    assert frame.misled < -.3 and frame.misled_p_holm < .05   # text lies in the frame
    assert "Hanging on the frame: a" in "".join(shortcuts.shortcut_findings(rows.reset_index(), "a"))

def test_a_network_that_sees_no_frame_and_no_text_does_not_move(planted):
    inputs, third = keras.Input((SIZE, SIZE, 1)), SIZE // 3
    middle = L.GlobalAveragePooling2D()(L.Cropping2D(third)(L.Rescaling(1 / 255)(inputs)))
    dense = L.Dense(1, "sigmoid", kernel_initializer="ones")
    rows = asked(keras.Model(inputs, dense(middle)), *planted)
    for name in ("frame_same", "frame_other", "text_over", "text_pasted"):
        row = rows.loc[name]
        assert row.concerned > 0 and not row[["odds_normal", "odds_pneumonia", "turned", "change"]].any()
    assert rows.misled["frame_other"] == 0 and rows.odds_normal["levels"] != 0

def test_what_cannot_be_altered_says_why(planted, corner_reader):
    films, places = planted
    rows = asked(corner_reader, films, places[:0])
    for name in ("text_over", "text_pasted", "markers_over"):
        assert rows.concerned[name] == 0 and np.isnan(rows.change[name]) and np.isnan(rows.turned[name])
    assert rows.remark["text_over"] == "no text found" and rows.remark["markers_over"] == "no marker found"
    said = shortcuts.shortcut_findings(rows.reset_index(), "a")[-1]
    assert said.startswith("- Not asked: text painted over (no text found)")
    shown = shortcuts.shown_table(rows.reset_index(), "a")["alteration"]
    assert "text painted over" not in set(shown) and "frame of the other class" in set(shown)

def test_films_of_one_class_have_no_auroc_and_no_other_class(planted, corner_reader):
    films, places = planted
    sick = films.rows("test")[films.labels[films.rows("test")] == 1]
    rows = asked(corner_reader, films, places, sick)
    assert rows.roc_auc.isna().all() and rows.change.isna().all() and rows.odds_pneumonia["text_over"] < -1
    assert set(rows.remark[["frame_other", "levels", "sharpness", "shape"]]) == {"films of one class only"}
    shortcuts.shortcut_findings(rows.reset_index(), "a")

def test_text_is_pasted_onto_films_of_both_classes_alike(planted):
    films, places = planted
    rows = films.rows("test")
    [written] = ALTERATIONS["text_pasted"].alter(films, rows, places, 1)
    assert written.shape == (len(rows), SIZE, SIZE) and written.dtype == np.uint8
    differs = written != take(films.pixels, rows)
    changed = differs.any(axis=0)
    assert differs.any(axis=(1, 2)).all() and not changed[:SIZE // 2].any()   # text stands low
    [again] = ALTERATIONS["text_pasted"].alter(films, rows, places, 1)
    assert np.array_equal(written, again)

def test_the_shape_of_no_class_adds_no_sign(planted):
    """The form of these originals differs by chance; either direction is tried, and the lower AUROC counts.

    A network that reads width would rank better if only the gap that is there were turned round."""
    films, places = planted
    inputs = keras.Input((SIZE, SIZE, 1))
    for sign in (-1., 1.):
        edge = L.GlobalAveragePooling2D()(L.Cropping2D(((0, 0), (0, SIZE - 8)))(L.Rescaling(1 / 255)(inputs)))
        dense = L.Dense(1, "sigmoid", kernel_initializer=keras.initializers.Constant(sign))
        assert asked(keras.Model(inputs, dense(edge)), films, places).change["shape"] <= 0

def test_only_so_many_films_of_whole_patients():
    images = pd.DataFrame(dict(split="test", patient_id=np.arange(30) // 3))
    rows = shortcuts._films_asked(images, "test", 10, 1)
    assert images.patient_id[rows].value_counts().tolist() == [3] * 4
    assert len(shortcuts._films_asked(images, "test", 0, 1)) == 30
    with pytest.raises(StudyError, match="Expected validation films"):
        shortcuts._films_asked(images, "validation", 0, 1)
