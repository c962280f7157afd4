"""What answers to the reader: outlines lie where the masks are, charts hold what they should, no name breaks a page."""

import base64
import html
import json
import re

import cv2
import numpy as np
import pandas as pd
import pytest

from lggseg_utils import interactive


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


def test_an_outline_runs_around_the_pixels_of_the_mask():
    mask = np.zeros((6, 6), np.uint8)
    mask[2:4, 1:5] = 1
    points = np.array(
        [[float(v) for v in pair.split()] for pair in re.findall(r"[\d.]+ [\d.]+", interactive.outline(mask))]
    )
    assert points[:, 0].min() == 1 and points[:, 0].max() == 5
    assert points[:, 1].min() == 2 and points[:, 1].max() == 4
    assert interactive.outline(np.zeros((6, 6))) == "" and interactive.outline(mask).count("M") == 1


def test_an_outline_at_the_border_stays_in_the_picture():
    points = [
        float(v)
        for v in re.findall(r"[\d.-]+", interactive.outline(np.ones((4, 4))).replace("M", " ").replace("L", " "))
    ]
    assert min(points) == 0 and max(points) == 4


def test_it_opens_at_the_largest_truth_and_holds_every_slice():
    images, masks = volume()
    page = interactive.volume_viewer(images, [7, 8, 9], "TCGA_XX", truth=masks)
    assert 'value="2"' in page.data and 'max="2"' in page.data
    readings = [row["reading"] for row in content(page)["slices"]]
    assert readings == ["slice 7: no tumour", "slice 8: tumour on 6.2% of it", "slice 9: tumour on 25.0% of it"]


def test_pictures_are_the_channels_in_their_order():
    images, masks = volume()
    images[2, ..., 1] = 60
    pictures = content(interactive.volume_viewer(images, [1, 2, 3], "a", truth=masks))["slices"][2]["pictures"]
    shown = [
        cv2.imdecode(np.frombuffer(base64.b64decode(p.split(",")[1]), np.uint8), cv2.IMREAD_GRAYSCALE) for p in pictures
    ]
    # Each channel is stretched to the brightest value of the volume: 40 of 40, 60 of 120, 240 of 240.
    assert [picture.mean() for picture in shown] == pytest.approx([255, 127.5, 255], abs=2)


def test_a_prediction_is_drawn_and_scored():
    images, masks = volume()
    page = interactive.volume_viewer(images, [1, 2, 3], "a", truth=masks, prediction=np.roll(masks, 1, axis=2))
    rows = content(page)["slices"]
    assert rows[0]["reading"] == "slice 1: no tumour, none predicted" and rows[0]["prediction"] == ""
    assert rows[1]["reading"].endswith("Dice 0.50") and rows[1]["prediction"] != rows[1]["truth"]
    assert 'name="prediction"' in page.data


def test_a_patients_name_cannot_leave_its_place():
    images, masks = volume()
    page = interactive.volume_viewer(images, ["</script><script>alert(1)</script>"] * 3, '"><b>', truth=masks)
    assert page.data.count("</script>") == 1 and "<b>" not in page.data


def test_two_viewers_on_a_page_do_not_meet():
    images, masks = volume()
    first, second = (
        interactive.volume_viewer(images, numbers, "a", truth=masks).data for numbers in ([1, 2, 3], [4, 5, 6])
    )
    found = [re.search(r'id="(volume-\w+)"', page)[1] for page in (first, second)]
    assert found[0] != found[1]


def chart_of(page):
    """The page inside the frame of a chart."""
    return html.unescape(re.search(r'srcdoc="([^"]*)"', page.data)[1]).strip()


def test_charts_hold_the_numbers_and_ask_the_network_for_nothing():
    history = pd.DataFrame({"epoch": [1, 2], "loss": [0.5, 0.25], "val_loss": [0.625, 0.375]})
    history = history.assign(
        **{f"{part}{name}": 0.5 for part in ("", "val_") for name in ("accuracy", "dice_coef", "jacard_coef")}
    )
    patients = pd.DataFrame(
        {"patient": ["TCGA_A", "TCGA_B"], "split": "test", "slices": 9, "tumour_slices": 4, "dice": [0.75, 0.5]}
    )
    for page, expected in (
        (interactive.hover_curves(history, "phantom cohort"), ("0.375", "validation", "phantom cohort")),
        (interactive.hover_patients(patients, "phantom cohort"), ("TCGA_B", "0.75", "phantom cohort")),
    ):
        inside = chart_of(page)
        assert all(text in inside for text in expected)
        assert not re.search(r'(src|href)="http', inside) and 'title="' in page.data


def test_a_chart_is_not_broken_by_a_patients_name():
    patients = pd.DataFrame(
        {"patient": ['"><script>alert(1)</script>'], "split": "test", "slices": 9, "tumour_slices": 4, "dice": [0.75]}
    )
    page = interactive.hover_patients(patients, "own data")
    assert "<script>" not in page.data and chart_of(page).endswith("</html>")
