"""Resizing, scaling and splitting."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from lggseg_utils import data, preprocess, runs
from lggseg_utils.settings import UserError, load_experiment


def table_of(patients, slices):
    """A table of slices with a growing tumour area per patient."""
    rows = [
        (f"P{patient:03d}", number, 10 * patient)
        for patient in range(patients)
        for number in range(1, slices + 1)
    ]
    return pd.DataFrame(rows, columns=["patient", "slice", "tumour_area"])


@pytest.mark.parametrize("side", [2, 4])
def test_images_shrink_by_area_mean(side):
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    means = image.reshape(side, 16 // side, side, 16 // side, 3).mean((1, 3))
    # OpenCV rounds a half to the even number or up, as it is compiled.
    np.testing.assert_allclose(preprocess.resize_image(image, side), means, atol=0.5)


def test_images_grow_smoothly():
    image = np.zeros((2, 4, 3), np.uint8)
    image[1] = 100
    # The shorter side decides, here the height.
    assert preprocess.resize_image(image, 4)[:, 0, 0].tolist() == [0, 25, 75, 100]
    grown = preprocess.resize_image(image, 8)[:, 0, 0]
    np.testing.assert_allclose(grown, [0, 0, 12.5, 37.5, 62.5, 87.5, 100, 100], atol=0.5)


@pytest.mark.parametrize("side", [16, 24, 33, 64])
def test_masks_stay_binary_at_every_size(side):
    mask = np.zeros((32, 32), np.uint8)
    mask[8:20, 5:25] = 1
    resized = preprocess.resize_mask(mask, side)
    assert set(np.unique(resized)) == {0, 1}
    assert resized.dtype == np.uint8
    assert resized.mean() == pytest.approx(mask.mean(), rel=0.15)


def test_a_mask_pixel_is_tumour_where_at_least_half_of_its_area_was():
    mask = np.zeros((4, 12), np.uint8)
    mask[:2, :4] = 1
    mask[0, 4:8] = 1
    mask[:2, 8:] = 1
    mask[2, 8] = 1
    tumour = [mask[:, start : start + 4] for start in (0, 4, 8)]
    assert [preprocess.resize_mask(each, 1).item() for each in tumour] == [1, 0, 1]
    assert preprocess.resize_mask(tumour[2], 2).tolist() == [[1, 1], [0, 0]]


def test_minmax_over_slice_channel_and_dataset():
    images = np.zeros((2, 1, 2, 3), np.uint8)
    images[0, 0] = [[10, 50, 100], [20, 110, 210]]
    images[1, 0] = [[0, 0, 0], [255, 255, 255]]
    by_slice = preprocess.minmax(images, "slice")
    assert by_slice[0, 0] == pytest.approx((images[0, 0] - 10.0) / 200)
    assert preprocess.minmax(images, "channel")[0, 0].tolist() == [[0, 0, 0], [1, 1, 1]]
    for over in ("dataset", "head"):
        assert preprocess.minmax(images, over) == pytest.approx(images / 255)
    assert np.array_equal(preprocess.minmax(images), by_slice)


@pytest.mark.parametrize("over", ["slice", "channel", "dataset", "head"])
def test_minmax_of_a_tensor_is_that_of_an_array_to_the_last_bit(over):
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    images[4] = 7
    tensor = preprocess.minmax(tf.constant(images), over)
    array = preprocess.minmax(images, over)
    assert array.dtype == np.float32
    assert np.array_equal(tensor.numpy(), array)


@pytest.mark.parametrize(("over", "wanted"), [("slice", 0), ("channel", 0), ("dataset", 7 / 255)])
def test_a_constant_slice_becomes_finite(over, wanted):
    scaled = preprocess.minmax(np.full((2, 4, 4, 3), 7, np.uint8), over)
    assert scaled == pytest.approx(np.full((2, 4, 4, 3), wanted))


def test_heads_are_brought_to_one_level_whatever_the_fat():
    images = np.zeros((2, 10, 10, 3), np.uint8)
    images[:, 2:8, 2:8] = (50, 60, 70)
    images[:, 2:8, 2] = 100
    images[1] = images[1] // 2 * np.array([1, 1, 0], np.uint8)
    scaled = preprocess.scale_volumes(images, ["A", "B"], "head")
    assert scaled[0, 5, 5].tolist() == [102, 102, 102]
    assert scaled[1, 5, 5].tolist() == [102, 102, 0]
    assert scaled[:, 5, 2, 0].tolist() == [204, 204]
    assert scaled[1, ..., 2].max() == 0
    assert scaled[:, 0].max() == 0


def test_a_head_is_what_is_brighter_than_its_share_of_the_volumes_99th_percentile():
    """The percentile is 100, so the head begins above 15, and its median is 60.

    The first channel has half of all that, the last one a third.
    """
    values = [14] * 100 + [16] * 45 + [60] * 10 + [80] * 41 + [100] * 3 + [250]
    images = np.array(values, np.uint8).reshape(2, 10, 10, 1) // np.array([2, 1, 3], np.uint8)
    scaled = preprocess.scale_volumes(images, ["A", "A"], "head").reshape(200, 3)
    assert scaled[[0, 100, 145, 199], 0].tolist() == [24, 27, 102, 255]
    assert scaled[[0, 100, 145, 199], 1].tolist() == [24, 27, 102, 255]
    assert scaled[[145, 199], 2].tolist() == [102, 255]


def test_other_scalings_leave_volumes_alone():
    images = np.arange(96, dtype=np.uint8).reshape(2, 4, 4, 3)
    assert np.array_equal(preprocess.scale_volumes(images, ["A", "A"], "slice"), images)


def test_prepared_slices_are_those_of_their_row(cohort_folder):
    cohort = data.read_cohort(cohort_folder)
    experiment = load_experiment("smoke", overrides={"score_size": 64})
    dataset = preprocess.prepare(cohort, experiment)
    assert dataset.images.shape == (30, 32, 32, 3)
    assert np.array_equal(dataset.images[17], preprocess.resize_image(cohort.images[17], 32))
    assert np.array_equal(dataset.masks[17], preprocess.resize_mask(cohort.masks[17], 32))
    assert np.array_equal(dataset.truths[17], preprocess.resize_mask(cohort.masks[17], 64))
    assert dataset.slices["tumour_area"][17] == cohort.masks[17].sum()


def test_prepared_images_are_scaled_as_the_experiment_says(cohort_folder):
    cohort = data.read_cohort(cohort_folder)
    experiment = load_experiment("smoke", overrides={"scaling": "head"})
    small = np.stack([preprocess.resize_image(image, 32) for image in cohort.images])
    wanted = preprocess.scale_volumes(small, cohort.slices["patient"], "head")
    assert np.array_equal(preprocess.prepare(cohort, experiment).images, wanted)
    assert not np.array_equal(wanted, small)


def test_a_slice_split_is_80_10_10_and_complete():
    split = preprocess.draw_split(table_of(20, 20), "slice", seed=1)
    assert split["split"].value_counts().to_dict() == {"train": 320, "val": 40, "test": 40}
    assert split[["patient", "slice"]].equals(table_of(20, 20)[["patient", "slice"]])
    assert split.groupby("patient")["split"].nunique().max() == 3


@pytest.mark.parametrize("patients", [3, 4, 9, 10, 24, 110])
def test_a_patient_split_puts_no_patient_on_two_sides(patients):
    split = preprocess.draw_split(table_of(patients, 4), "patient", seed=2)
    assert (split.groupby("patient")["split"].nunique() == 1).all()
    assert set(split["split"]) == set(preprocess.SETS)
    seen = preprocess.seen_in_training(split)
    assert seen["patients_seen"] == 0
    assert seen["slices_with_neighbour"] == 0


def test_a_patient_split_of_110_is_88_11_11_and_stratified_by_volume():
    slices = table_of(110, 3)
    split = preprocess.draw_split(slices, "patient", seed=3).assign(area=slices["tumour_area"])
    counts = split.groupby("split")["patient"].nunique().to_dict()
    assert counts == {"train": 88, "val": 11, "test": 11}
    for name in ("val", "test"):
        areas = split[split["split"] == name].groupby("patient")["area"].first().sort_values()
        # One of each ten patients: their areas grow by 10.
        assert (areas.to_numpy() // 100).tolist() == list(range(11))


def test_the_leak_of_a_slice_split_is_counted():
    rows = [
        ("A", 1, "train"),
        ("A", 2, "test"),  # after one of training
        ("A", 3, "val"),
        ("A", 4, "test"),  # beside validation alone
        ("A", 8, "test"),  # before one of training
        ("A", 9, "train"),
        ("A", 12, "test"),
        ("B", 2, "test"),  # a patient of its own
        ("C", 2, "train"),
    ]
    split = pd.DataFrame(rows, columns=["patient", "slice", "split"])
    assert preprocess.seen_in_training(split) == {
        "patients": 2,
        "slices": 5,
        "patients_seen": 1,
        "slices_with_neighbour": 2,
    }


@pytest.mark.parametrize("draw", [preprocess.draw_split, preprocess.draw_folds])
@pytest.mark.parametrize("protocol", ["slice", "patient"])
def test_splits_depend_on_the_seed_alone(draw, protocol):
    one, two, three = (draw(table_of(20, 5), protocol, seed) for seed in (1, 1, 2))
    assert one.equals(two)
    for name in {"val", "test"} & set(one["split"]):
        held_out = one["split"] == name
        assert not one[held_out].equals(three[three["split"] == name])


@pytest.mark.parametrize(
    ("draw", "protocol", "patients", "slices", "message"),
    [
        ("draw_split", "patient", 2, 5, "splitting by patient needs at least 3 patients, .* 2"),
        ("draw_split", "slice", 1, 2, "splitting by slice needs at least 3 slices, .* 2"),
        ("draw_folds", "patient", 9, 3, "splitting by patient needs at least 10 patients, .* 9"),
        ("draw_folds", "slice", 3, 3, "splitting by slice needs at least 10 slices, .* 9"),
    ],
)
def test_too_few_are_refused_in_one_line(draw, protocol, patients, slices, message):
    with pytest.raises(UserError, match=message):
        getattr(preprocess, draw)(table_of(patients, slices), protocol, 0)


@pytest.mark.parametrize("protocol", ["slice", "patient"])
def test_every_slice_is_tested_in_one_fold_and_never_trained_on_there(protocol):
    slices = table_of(30, 6)
    folds = preprocess.draw_folds(slices, protocol, seed=4)
    splits = [preprocess.split_of_fold(folds, fold) for fold in range(preprocess.FOLDS)]
    tested = np.array([split["split"] == "test" for split in splits])
    assert (tested.sum(0) == 1).all()
    assert np.array_equal(tested.argmax(0), folds["fold"])
    validated = np.array([split["split"] == "val" for split in splits])
    assert validated.sum(0).max() == 1
    for split in splits:
        shares = split["split"].value_counts(normalize=True).round(1).to_dict()
        assert shares == {"train": 0.7, "test": 0.2, "val": 0.1}
        seen = preprocess.seen_in_training(split)
        assert seen["patients_seen"] == (0 if protocol == "patient" else seen["patients"])


def test_folds_by_patient_are_stratified_by_volume():
    slices = table_of(100, 2)
    folds = preprocess.draw_folds(slices, "patient", seed=0)
    stratum = slices["tumour_area"] // 100
    assert (folds.groupby(["part", stratum])["patient"].nunique() == 1).all()


@pytest.mark.parametrize(
    "change", [lambda split: split.iloc[::-1], lambda split: split.assign(split="train")]
)
def test_a_split_of_other_slices_or_without_a_test_set_is_refused(open_smoke, change):
    run, slices = open_smoke(), table_of(5, 3)
    split = preprocess.load_split(run, slices)
    assert split.equals(preprocess.draw_split(slices, "patient", 0))
    runs.write_csv(run.path("split.csv"), change(split))
    message = r"split.csv does not match these slices; delete it to have the split drawn again\."
    with pytest.raises(UserError, match=message):
        preprocess.load_split(run, slices)


def test_folds_are_kept_and_a_split_in_their_place_is_refused(open_smoke):
    run, slices = open_smoke(seed=2, split="slice"), table_of(20, 3)
    folds = preprocess.load_split(run, slices, preprocess.draw_folds)
    assert folds.equals(preprocess.draw_folds(slices, "slice", 2))
    runs.write_csv(run.path("split.csv"), folds.assign(fold=0))
    kept = preprocess.load_split(run, slices, preprocess.draw_folds)
    assert set(kept["fold"]) == {0}
    runs.write_csv(run.path("split.csv"), preprocess.draw_split(slices, "slice", 2))
    with pytest.raises(UserError, match="does not match these slices"):
        preprocess.load_split(run, slices, preprocess.draw_folds)


NO_TENSORFLOW = """
import sys
import numpy
from lggseg_utils import evaluate, metrics, plots, preprocess, viewer
preprocess.minmax(numpy.zeros((1, 2, 2, 3), numpy.uint8))
sys.exit("tensorflow" in sys.modules)
"""


def test_preprocessing_scoring_and_plotting_load_no_tensorflow():
    assert subprocess.run([sys.executable, "-c", NO_TENSORFLOW], check=False).returncode == 0
