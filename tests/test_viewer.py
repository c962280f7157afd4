"""The slider: outlines are where the masks are, pictures are the channels, names break nothing."""

import base64
import json
import re

import cv2
import numpy as np
import pytest

from lggseg_utils import data, plots, viewer


def volume(count=3, side=8):
    """A small volume whose channels are told apart by their values, and a mask that grows."""
    images = np.zeros((count, side, side, 3), np.uint8)
    images[..., 0], images[..., 1], images[..., 2] = 40, 120, 240
    images[0] = 0
    masks = np.zeros((count, side, side), np.uint8)
    masks[1, 2:4, 2:4] = masks[2, 1:5, 1:5] = 1
    return images, masks


def content(page):
    """The data of a viewer's script."""
    return json.loads(re.search(r"const data = (.*);", page.data)[1])


def corners(path):
    """Smallest and largest x, smallest and largest y of an outline."""
    pairs = re.findall(r"([-\d.]+) ([-\d.]+)", path)
    x, y = np.array(pairs, dtype=float).T
    return x.min(), x.max(), y.min(), y.max()


def test_an_outline_runs_around_the_pixels_of_the_mask():
    mask = np.zeros((6, 6), np.uint8)
    mask[2:4, 1:5] = 1
    assert corners(viewer.outline(mask)) == (1, 5, 2, 4)
    assert viewer.outline(mask).count("M") == 1
    mask[0, 0] = 1
    assert viewer.outline(mask).count("M") == 2
    assert corners(viewer.outline(np.ones((6, 6)))) == (0, 6, 0, 6)
    assert viewer.outline(np.zeros((6, 6))) == ""


def test_it_opens_at_the_largest_truth_and_holds_every_slice():
    images, masks = volume()
    page = viewer.volume_viewer(images, [7, 8, 9], "TCGA_XX", truth=masks)
    assert content(page)["first"] == 2 and content(page)["side"] == 8
    readings = [row["reading"] for row in content(page)["slices"]]
    assert readings == [
        "slice 7: no tumour",
        "slice 8: tumour on 6.2% of it",
        "slice 9: tumour on 25.0% of it",
    ]


def test_pictures_are_the_channels_in_their_order():
    images, masks = volume()
    images[2, ..., 1] = 60
    pictures = content(viewer.volume_viewer(images, [1, 2, 3], "a", truth=masks))["slices"][2][
        "pictures"
    ]
    decoded = (base64.b64decode(picture.split(",")[1]) for picture in pictures)
    shown = [
        cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_GRAYSCALE) for picture in decoded
    ]
    # Each channel is stretched to the volume's brightest: 40 of 40, 60 of 120, 240 of 240.
    assert [picture.mean() for picture in shown] == pytest.approx([255, 127.5, 255], abs=2)


def test_a_prediction_is_drawn_and_scored():
    images, masks = volume()
    predicted = np.roll(masks, 1, axis=2)
    predicted[1, 3, 3] = 0
    page = viewer.volume_viewer(images, [1, 2, 3], "a", truth=masks, prediction=predicted)
    assert content(page)["outlines"] == ["truth", "prediction"]
    rows = content(page)["slices"]
    assert rows[0]["reading"] == "slice 1: no tumour, none predicted"
    assert rows[0]["prediction"] == ""
    # One hit, two false alarms, three misses.
    assert rows[1]["reading"] == "slice 2: tumour on 6.2% of it, Dice 0.29"
    assert rows[2]["reading"] == "slice 3: tumour on 25.0% of it, Dice 0.75"
    assert corners(rows[2]["truth"]) == (1, 5, 1, 5)
    assert corners(rows[2]["prediction"]) == (2, 6, 1, 5)


def test_a_false_alarm_alone_has_a_dice_of_0():
    images, masks = volume()
    page = viewer.volume_viewer(images, [1, 2, 3], "a", truth=masks, prediction=masks[::-1])
    assert content(page)["slices"][0]["reading"] == "slice 1: no tumour, Dice 0.00"


def test_colours_and_channels_are_the_books():
    images, masks = volume()
    page = viewer.volume_viewer(images, [1, 2, 3], "a", truth=masks)
    assert content(page)["channels"] == list(data.CHANNELS)
    assert content(page)["outlines"] == ["truth"]
    assert plots.TRUTH in page.data
    assert plots.PREDICTION in page.data


def test_a_patients_name_cannot_leave_its_place_and_two_viewers_do_not_meet():
    images, masks = volume()
    pages = [
        viewer.volume_viewer(images, numbers, '"><b>', truth=masks).data
        for numbers in ([1, 2, 3], [4, 5, 6])
    ]
    assert "<b>" not in pages[0]
    assert len({re.search(r'id="(volume-\w+)"', page)[1] for page in pages}) == 2


def small_volume(side=8):
    images = np.zeros((1, side, side, 3), np.uint8)
    masks = np.zeros((1, side, side), np.uint8)
    masks[0, 2:4, 2:4] = 1
    return images, masks


def test_truth_and_prediction_have_the_books_colours():
    images, masks = small_volume()
    page = viewer.volume_viewer(images, [1], "a", truth=masks).data
    assert (
        f".truth {{ stroke: {plots.TRUTH};" in page
        and f".prediction {{ stroke: {plots.PREDICTION};" in page
    )


def test_an_outline_is_exact_on_large_slices():
    """Beyond the hundredth pixel an outline still ends at a pixel's edge."""
    mask = np.zeros((256, 256), np.uint8)
    mask[120:131, 201:212] = 1
    numbers = set(map(float, re.findall(r"[\d.]+", viewer.outline(mask))))
    assert {120.0, 131.0, 201.0, 212.0, 201.5} <= numbers
