"""Side markers are measured as they were drawn, and no bone is taken for one."""
import cv2
import numpy as np
import pandas as pd
import pytest

from pneumo_nb import eda
from pneumo_nb.appearance import TALL_MARKER, marker_height, measure_films
from pneumo_nb.eda import marker_table
from pneumo_nb.films import scan_dataset
from pneumo_nb.phantom import make_dataset

@pytest.mark.parametrize("height", [150, 224, 600])
@pytest.mark.parametrize("share", [.045, .09])
def test_side_markers_are_measured_as_drawn_whatever_the_size_of_the_film(height, share):
    film = np.full((height, round(height * 1.3)), 40, np.uint8)
    size, stroke = share * height / 21, max(1, round(share * height / 6))
    for side in (.05, .87):
        place = int(side * film.shape[1]), int(.25 * height)
        drawn = cv2.putText(film.copy(), "R", place, cv2.FONT_HERSHEY_SIMPLEX, size, 235, stroke, cv2.LINE_AA)
        assert abs(marker_height(drawn) - share) < .02
    assert marker_height(film) == 0

def test_no_bone_of_a_phantom_is_taken_for_a_tall_marker(tmp_path):
    root = make_dataset(tmp_path/"films", n_train=48, n_test=12)
    images = scan_dataset(root)
    measured, places = measure_films(images)
    heights = measured.marker
    assert (heights < .06).all() and .06 < TALL_MARKER
    assert abs(np.median(heights[heights > 0]) - 21 / 520) < .012 and (heights > 0).sum() > 10
    table = marker_table(images, heights)
    assert table.films.sum() == len(images) and table.tall.sum() == 0
    assert set(places.kind) == {"marker"} and (places.h <= heights.max()).all()   # and no text

@pytest.mark.parametrize("answer", [dict(auroc=1., low=np.nan), dict(auroc=0., low=np.nan),
                                    dict(auroc=.5, low=np.nan), dict(auroc=np.nan, low=np.nan),
                                    dict(auroc=.9, low=.8), dict(auroc=.2, low=.1)])
def test_no_finding_of_the_exploration_says_nan(answer):
    "An AUROC without an interval, or none at all, of size and of appearance, with and without test."
    answer = answer | dict(high=answer["low"] + .1)
    assert "nan" not in eda._size_findings(answer | dict(films=8, folds=2, constant=False))
    rows = [dict(question=question) | answer for question in (
        "IM: test or train?", "train and validation: pneumonia or normal?", "the same, asked of test films")]
    numbers = pd.DataFrame(dict(published=["test"], stretches=1, series="IM", patients=1))
    for shift, known in ((pd.DataFrame(rows), numbers), (pd.DataFrame(rows[1:2]), numbers[:0])):
        words = eda._shift_findings(shift, known)
        assert words and "nan" not in words
        assert ("Appearance may be a shortcut" in words) == (answer["auroc"] in (.9, 1))
