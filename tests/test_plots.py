"""What figures and tables show."""

import math

import matplotlib.colors
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lggseg_utils import data, plots


@pytest.mark.parametrize(
    ("value", "low", "text"),
    [(0.5, 0.25, "0.500 (0.250 to 0.900)"), (0.5, None, "0.500"), (None, None, "–")],
)
def test_a_score_has_its_interval_where_there_is_one(value, low, text):
    assert plots.score({"value": value, "low": low, "high": 0.9}) == text


def test_nan_is_never_shown():
    assert plots.score({"value": math.nan, "low": math.nan, "high": math.nan}) == "–"
    assert plots.score({"value": 0.5, "low": math.nan, "high": math.nan}) == "0.500"


def test_a_table_shows_a_dash_for_no_value_and_no_markup():
    page = plots.table(pd.DataFrame({"a": [1.0, None], "b": ["<x>", "y"]}), "1 < 2").to_html()
    assert ">1.000<" in page and ">–<" in page
    assert "&lt;x&gt;" in page and "1 &lt; 2" in page


def test_outlines_are_those_of_the_masks():
    figure, axis = plt.subplots()
    truth = np.zeros((8, 8))
    truth[2:5, 3:6] = 1
    plots.show_slice(axis, np.ones((8, 8, 3), np.uint8), truth=truth, prediction=0 * truth)
    (outline,) = axis.collections  # an empty prediction has none
    (x0, y0), (x1, y1) = outline.get_paths()[0].get_extents().get_points()
    assert (x0, y0, x1, y1) == (2.5, 1.5, 5.5, 4.5)
    plt.close(figure)


def test_bars_of_patients_are_sorted_and_name_mean_and_median():
    figure = plots.dice_bars(pd.DataFrame({"dice": [0.9, 0.1, 0.5]}))
    (axis,) = figure.axes
    assert [bar.get_height() for bar in axis.patches] == [0.1, 0.5, 0.9]
    labels = [line.get_label() for line in axis.lines]
    assert labels == ["mean 0.500", "median 0.500"]
    plt.close(figure)


COMPARED = pd.DataFrame(
    {"condition": ["a_b", "c"], "difference": [0.1, -0.2], "low": [0, -0.3], "high": [0.4, 0]}
)


def test_a_forest_shows_each_condition_with_its_interval():
    figure = plots.forest(COMPARED, "change")
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.get_yticklabels()] == ["a b", "c"]
    (bars,) = axis.collections
    ends = [path.vertices[:, 0].tolist() for path in bars.get_paths()]
    assert np.allclose(ends, [[0, 0.4], [-0.3, 0]])
    plt.close(figure)


def test_the_head_lies_in_its_box_with_a_margin():
    image = np.zeros((128, 128, 3), np.uint8)
    image[40:101, 60:91, data.FLAIR] = 200
    rows, columns = plots.head_box(image)
    assert (rows.start, rows.stop, columns.start, columns.stop) == (37, 103, 42, 108)


def test_the_box_of_a_head_that_touches_the_border_stays_on_the_image():
    image = np.zeros((128, 128, 3), np.uint8)
    image[:120, 100:, data.FLAIR] = 200
    rows, columns = plots.head_box(image)
    assert (rows.start, rows.stop, columns.start, columns.stop) == (0, 126, 2, 128)


def test_a_table_groups_thousands_and_hides_the_index():
    page = plots.table(pd.DataFrame({"n": [3929]}, index=["row"]), "x").to_html()
    assert ">3,929<" in page and ">row<" not in page


def test_a_slice_is_its_flair_with_truth_and_prediction_in_their_colours():
    image = np.zeros((8, 8, 3), np.uint8)
    image[..., data.FLAIR] = np.arange(8) * 10
    masks = [np.zeros((8, 8)) for _ in range(2)]
    masks[0][1:3, 1:3] = masks[1][5:7, 5:7] = 1
    figure, axis = plt.subplots()
    plots.show_slice(axis, image, truth=masks[0], prediction=masks[1])
    (shown,) = axis.images
    assert np.array_equal(shown.get_array(), image[..., data.FLAIR]) and shown.get_clim() == (0, 70)
    colours = [
        matplotlib.colors.to_hex(each.get_edgecolor()[0]).upper() for each in axis.collections
    ]
    corners = [each.get_paths()[0].get_extents().x0 for each in axis.collections]
    assert dict(zip(colours, corners, strict=True)) == {plots.TRUTH: 0.5, plots.PREDICTION: 4.5}
    plt.close(figure)


def test_each_slice_has_its_own_outlines():
    """Each slice is shown with its own mask, cut as the image is."""
    images = np.zeros((2, 32, 32, 3), np.uint8)
    images[:, 8:24, 8:24] = 100
    truths = np.zeros((2, 32, 32))
    truths[1, 10:12, 20:22] = 1
    figure = plots.slices(images, ["a", "b"], truths, truths, columns=2, to_head=True)
    first, second = figure.axes
    assert not first.collections and len(second.collections) == 2
    box = plots.head_box(images[1])
    (x0, y0), _ = second.collections[0].get_paths()[0].get_extents().get_points()
    assert (x0, y0) == (20 - box[1].start - 0.5, 10 - box[0].start - 0.5)
    (legend,) = figure.legends
    styles = {
        text.get_text(): line.get_linestyle()
        for text, line in zip(legend.get_texts(), legend.get_lines(), strict=True)
    }
    assert styles == {"truth": "-", "prediction": "--"}
    plt.close(figure)


def test_a_forest_has_each_difference_beside_its_name():
    figure = plots.forest(COMPARED, "change")
    (axis,) = figure.axes
    names = dict(
        zip(axis.get_yticks(), (text.get_text() for text in axis.get_yticklabels()), strict=True)
    )
    points = next(line for line in axis.lines if line.get_marker() == "o")
    assert {names[y]: x for x, y in zip(*points.get_data(), strict=True)} == {
        "a b": 0.1,
        "c": -0.2,
    }
    plt.close(figure)


def test_mean_and_median_stand_where_they_are():
    figure = plots.dice_bars(pd.DataFrame({"dice": [0.9, 0.1, 0.8]}))
    lines = {line.get_label(): line.get_ydata()[0] for line in figure.axes[0].lines}
    assert lines == pytest.approx({"mean 0.600": 0.6, "median 0.800": 0.8})
    plt.close(figure)


def test_pairs_of_patients_go_across_and_up():
    figure = plots.paired_patients([0.1, 0.2], [0.8, 0.9], "before", "after")
    (axis,) = figure.axes
    assert axis.collections[0].get_offsets().tolist() == [[0.1, 0.8], [0.2, 0.9]]
    assert axis.get_xlabel() == "before" and axis.get_ylabel().startswith("after")
    plt.close(figure)
