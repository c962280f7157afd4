"""Resizing, scaling and splitting."""

import numpy as np
import pandas as pd
import pytest

from lggseg_utils import data, preprocess, runs
from lggseg_utils.settings import UserError


def table_of(patients, slices):
    """A table of slices with a growing tumour area per patient."""
    rows = [
        (f"P{patient:03d}", number, 10 * patient)
        for patient in range(patients)
        for number in range(1, slices + 1)
    ]
    return pd.DataFrame(rows, columns=["patient", "slice", "tumour_area"])


def test_images_shrink_by_area_mean():
    image = np.zeros((4, 4, 3), np.uint8)
    image[:2, :2] = [[[10, 20, 30], [30, 40, 50]], [[10, 20, 30], [30, 40, 50]]]
    assert preprocess.resize_image(image, 2)[0, 0].tolist() == [20, 30, 40]


@pytest.mark.parametrize("side", [16, 24, 33, 64])
def test_masks_stay_binary_at_every_size(side):
    mask = np.zeros((32, 32), np.uint8)
    mask[8:20, 5:25] = 1
    resized = preprocess.resize_mask(mask, side)
    assert set(np.unique(resized)) == {0, 1} and resized.dtype == np.uint8
    assert resized.mean() == pytest.approx(mask.mean(), rel=0.15)


def test_a_mask_pixel_is_tumour_where_at_least_half_of_its_area_was():
    mask = np.array([[1, 1, 0, 0], [1, 0, 1, 0]], np.uint8).repeat(2, axis=0)
    assert preprocess.resize_mask(mask, 2).tolist() == [[1, 0], [1, 1]]


def test_minmax_over_slice_channel_and_dataset():
    images = np.zeros((1, 1, 2, 3), np.uint8)
    images[0, 0] = [[0, 50, 100], [20, 100, 200]]
    assert preprocess.minmax(images, "slice").numpy()[0, 0] == pytest.approx(images[0, 0] / 200)
    assert preprocess.minmax(images, "channel").numpy()[0, 0].tolist() == [[0, 0, 0], [1, 1, 1]]
    assert preprocess.minmax(images, "dataset").numpy()[0, 0] == pytest.approx(images[0, 0] / 255)


@pytest.mark.parametrize("over", ["slice", "channel", "dataset"])
def test_a_constant_slice_becomes_finite(over):
    scaled = preprocess.minmax(np.full((2, 4, 4, 3), 7, np.uint8), over).numpy()
    assert scaled.dtype == np.float32 and np.isfinite(scaled).all()


def test_heads_are_brought_to_one_level_whatever_the_fat():
    images = np.zeros((2, 10, 10, 3), np.uint8)
    images[:, 2:8, 2:8] = (50, 60, 70)
    images[:, 2:8, 2] = 100
    images[1] = images[1] // 2 * np.array([1, 1, 0], np.uint8)
    scaled = preprocess.scale_volumes(images, ["A", "B"], "head")
    assert scaled[0, 5, 5].tolist() == [*scaled[1, 5, 5].tolist()[:2], 102] == [102] * 3
    assert (
        scaled[:, 5, 2, 0].tolist() == [204, 204]
        and scaled[1, ..., 2].max() == 0
        and scaled[:, 0].max() == 0
    )


def test_other_scalings_leave_volumes_alone():
    images = np.arange(96, dtype=np.uint8).reshape(2, 4, 4, 3)
    assert np.array_equal(preprocess.scale_volumes(images, ["A", "A"], "slice"), images)


def test_prepared_slices_are_those_of_their_row(cohort_folder, open_smoke):
    cohort, settings = data.read_cohort(cohort_folder), open_smoke().experiment
    dataset = preprocess.prepare(cohort, settings)
    assert dataset.images.shape == (30, 32, 32, 3) and dataset.truths.shape == (30, 128, 128)
    assert np.array_equal(dataset.images[17], preprocess.resize_image(cohort.images[17], 32))
    assert np.array_equal(dataset.masks[17], preprocess.resize_mask(cohort.masks[17], 32))
    assert dataset.slices["tumour_area"][17] == cohort.masks[17].sum()


def test_a_slice_split_is_80_10_10_and_complete():
    split = preprocess.draw_split(table_of(20, 20), "slice", seed=1)
    assert split["split"].value_counts().to_dict() == {"train": 320, "val": 40, "test": 40}


@pytest.mark.parametrize("patients", [3, 4, 9, 10, 24, 110])
def test_a_patient_split_puts_no_patient_on_two_sides(patients):
    split = preprocess.draw_split(table_of(patients, 4), "patient", seed=2)
    assert (split.groupby("patient")["split"].nunique() == 1).all() and set(split["split"]) == set(
        preprocess.SETS
    )
    seen = preprocess.seen_in_training(split)
    assert seen["patients_seen"] == 0 and seen["slices_with_neighbour"] == 0


def test_a_patient_split_of_110_is_88_11_11_and_stratified_by_volume():
    slices = table_of(110, 3)
    split = preprocess.draw_split(slices, "patient", seed=3).assign(area=slices["tumour_area"])
    assert split.groupby("split")["patient"].nunique().to_dict() == {
        "train": 88,
        "val": 11,
        "test": 11,
    }
    for name in ("val", "test"):
        held_out = (
            split[split["split"] == name]
            .groupby("patient")["area"]
            .first()
            .sort_values()
            .to_numpy()
        )
        assert all(
            100 * stratum <= area < 100 * (stratum + 1) for stratum, area in enumerate(held_out)
        )


def test_the_leak_of_a_slice_split_is_counted():
    names = ["train", "test", "val", "test", "test"]
    split = pd.DataFrame({"patient": ["A"] * 4 + ["B"], "slice": [1, 2, 3, 7, 1], "split": names})
    counts = {"patients": 2, "slices": 3, "patients_seen": 1, "slices_with_neighbour": 1}
    assert preprocess.seen_in_training(split) == counts


@pytest.mark.parametrize("draw", [preprocess.draw_split, preprocess.draw_folds])
@pytest.mark.parametrize("protocol", ["slice", "patient"])
def test_splits_depend_on_the_seed_alone(draw, protocol):
    one, two, three = (draw(table_of(20, 5), protocol, seed) for seed in (1, 1, 2))
    assert one.equals(two) and not one.equals(three)


def test_too_few_are_refused_in_one_line():
    with pytest.raises(
        UserError, match="a split by patient needs at least 3 patients, but the data contain 2"
    ):
        preprocess.draw_split(table_of(2, 5), "patient", 0)
    with pytest.raises(
        UserError, match="a split by slice needs at least 3 slices, but the data contain 2"
    ):
        preprocess.draw_split(table_of(1, 2), "slice", 0)
    with pytest.raises(
        UserError, match="folds by patient need at least 10 patients, but the data contain 9"
    ):
        preprocess.draw_folds(table_of(9, 3), "patient", 0)


@pytest.mark.parametrize("protocol", ["slice", "patient"])
def test_every_slice_is_tested_in_one_fold_and_never_trained_on_there(protocol):
    slices = table_of(30, 6)
    folds = preprocess.draw_folds(slices, protocol, seed=4)
    splits = [preprocess.split_of_fold(folds, fold) for fold in range(preprocess.FOLDS)]
    tested = np.array([split["split"] == "test" for split in splits])
    assert (tested.sum(0) == 1).all() and np.array_equal(tested.argmax(0), folds["fold"])
    for split in splits:
        assert split["split"].value_counts(normalize=True).round(1).to_dict() == {
            "train": 0.7,
            "test": 0.2,
            "val": 0.1,
        }
        seen = preprocess.seen_in_training(split)
        assert seen["patients_seen"] == (0 if protocol == "patient" else seen["patients"])


@pytest.mark.parametrize(
    "change", [lambda split: split.iloc[::-1], lambda split: split.assign(split="train")]
)
def test_a_split_of_other_slices_or_without_a_test_set_is_refused(open_smoke, change):
    run, slices = open_smoke(), table_of(5, 3)
    split = preprocess.load_split(run, slices)
    assert preprocess.load_split(run, slices).equals(split)
    runs.write_csv(run.path("split.csv"), change(split))
    with pytest.raises(
        UserError,
        match=r"split.csv does not match these slices; delete it to have the split drawn again\.",
    ):
        preprocess.load_split(run, slices)
