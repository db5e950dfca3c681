"""Side markers are measured as they were drawn, and no bone is taken for one."""
import cv2
import numpy as np
import pytest

from pneumo_nb.appearance import TALL_MARKER, appearance_table, marker_height
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
    heights = appearance_table(images).marker
    assert (heights < .06).all() and .06 < TALL_MARKER
    assert abs(np.median(heights[heights > 0]) - 21 / 520) < .012 and (heights > 0).sum() > 10
    table = marker_table(images, heights)
    assert table.films.sum() == len(images) and table.tall.sum() == 0
