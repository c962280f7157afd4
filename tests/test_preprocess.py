"""Resizing, scaling, caching and splitting."""

import json
import pathlib

import numpy as np
import pandas as pd
import pytest

from lggseg_utils import config, data, preprocess
from lggseg_utils.config import UserError


def table_of(patients, slices):
    """A table of slices with a growing tumour area a patient."""
    rows = [(f"P{patient:03d}", number, 10 * patient) for patient in range(patients) for number in range(1, slices + 1)]
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


def test_the_cohort_is_decoded_once_and_cached(phantom_folder, open_smoke, monkeypatch):
    run = open_smoke(phantom_folder)
    first = preprocess.load_cohort(run)
    monkeypatch.setattr(data, "scan", lambda *args: pytest.fail("decoded again"))
    second = preprocess.load_cohort(run)
    assert first.images.shape == (30, 32, 32, 3) and first.truths.shape == (30, 128, 128)
    for name in preprocess.ARRAYS:
        assert np.array_equal(getattr(first, name), getattr(second, name))


def test_cached_slices_are_those_of_their_row(phantom_folder, open_smoke):
    cohort = preprocess.load_cohort(open_smoke(phantom_folder))
    row = next(cohort.slices.loc[[17]].itertuples())
    image, mask, _ = data.read_pair(phantom_folder, row)
    assert np.array_equal(cohort.images[17], preprocess.resize_image(image, 32))
    assert np.array_equal(cohort.truths[17], mask) and row.tumour_area == mask.sum()


def test_changed_data_in_the_same_run_folder_are_refused(tmp_path, write_slice, open_smoke):
    folder = tmp_path / "cohort"
    for number in range(1, 5):
        write_slice(folder, "TCGA_CS_1", number)
    run = open_smoke(folder)
    preprocess.load_cohort(run)
    write_slice(folder, "TCGA_CS_1", 1, image=np.full((16, 16, 3), 91, np.uint8))
    with pytest.raises(UserError, match="was made from other data"):
        preprocess.load_cohort(run)


def test_a_slice_split_is_80_10_10_and_complete():
    split = preprocess.draw_split(table_of(20, 20), "slice", seed=1)
    assert split["split"].value_counts().to_dict() == {"train": 320, "val": 40, "test": 40}


@pytest.mark.parametrize("patients", [3, 4, 9, 10, 24, 110])
def test_a_patient_split_puts_no_patient_on_two_sides(patients):
    split = preprocess.draw_split(table_of(patients, 4), "patient", seed=2)
    assert (split.groupby("patient")["split"].nunique() == 1).all()
    assert set(split["split"]) == {"train", "val", "test"}
    seen = preprocess.seen_in_training(split)
    assert seen["patients_seen"] == 0 and seen["slices_with_neighbour"] == 0


def test_a_patient_split_of_110_is_88_11_11_and_stratified_by_volume():
    slices = table_of(110, 3)
    split = preprocess.draw_split(slices, "patient", seed=3).assign(area=slices["tumour_area"])
    assert split.groupby("split")["patient"].nunique().to_dict() == {"train": 88, "val": 11, "test": 11}
    for name in ("val", "test"):
        held_out = split[split["split"] == name].groupby("patient")["area"].first().sort_values().to_numpy()
        assert all(100 * stratum <= area < 100 * (stratum + 1) for stratum, area in enumerate(held_out))


def test_the_leak_of_a_slice_split_is_counted():
    split = pd.DataFrame(
        {"patient": ["A"] * 4 + ["B"], "slice": [1, 2, 3, 7, 1], "split": ["train", "test", "val", "test", "test"]}
    )
    assert preprocess.seen_in_training(split) == {
        "patients": 2,
        "slices": 3,
        "patients_seen": 1,
        "slices_with_neighbour": 1,
    }


def test_splits_depend_on_the_seed_alone():
    slices = table_of(20, 5)
    for protocol in ("slice", "patient"):
        one, two, three = (preprocess.draw_split(slices, protocol, seed)["split"].tolist() for seed in (1, 1, 2))
        assert one == two != three


def test_too_few_patients_or_slices():
    with pytest.raises(UserError, match="a split by patient needs at least 3 patients, the data hold 2"):
        preprocess.draw_split(table_of(2, 5), "patient", 0)
    with pytest.raises(UserError, match="a split needs at least 3 slices, the data hold 2"):
        preprocess.draw_split(table_of(1, 2), "slice", 0)


def test_a_patient_with_one_slice_is_no_problem():
    assert len(preprocess.draw_split(table_of(5, 1), "patient", 0)) == 5


def test_a_split_of_other_slices_is_refused(phantom_folder, open_smoke):
    run = open_smoke(phantom_folder)
    slices = preprocess.load_cohort(run).slices
    preprocess.load_split(run, slices)
    with pytest.raises(UserError, match="does not belong to these slices"):
        preprocess.load_split(run, slices.iloc[::-1].reset_index(drop=True))


def test_a_split_without_a_test_set_is_refused(phantom_folder, open_smoke):
    run = open_smoke(phantom_folder)
    slices = preprocess.load_cohort(run).slices
    split = preprocess.load_split(run, slices)
    config.write_csv(run.path("split.csv"), split.assign(split="train"))
    with pytest.raises(UserError, match="must put slices into each of train, val, test, and nowhere else"):
        preprocess.load_split(run, slices)


def test_a_changed_table_of_slices_is_noticed(phantom_folder, open_smoke):
    run = open_smoke(phantom_folder)
    slices = preprocess.load_cohort(run).slices
    config.write_csv(run.path("slices.csv"), slices.iloc[::-1])
    with pytest.raises(
        UserError, match=r"slices.csv was changed since it was written; remove it, and it is made again"
    ):
        preprocess.load_cohort(run)
    run.path("slices.csv").unlink()
    assert preprocess.load_cohort(run).slices.equals(slices)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"listing": 3}'])
def test_a_damaged_record_of_the_cache_makes_it_anew(phantom_folder, open_smoke, content):
    run = open_smoke(phantom_folder)
    preprocess.load_cohort(run)
    run.path("cohort", "cohort.json").write_text(content)
    assert len(preprocess.load_cohort(run).images) == 30


def test_data_that_lie_where_the_cache_would_are_left_alone(tmp_path, write_slice, open_smoke):
    image, _ = write_slice(tmp_path / "run" / "cohort", "A", 1)
    config.write_json(tmp_path / "run" / "run.json", open_smoke_record(tmp_path))
    with pytest.raises(
        UserError, match="cohort is no cached cohort, and would be written over; choose another run folder"
    ):
        preprocess.load_cohort(open_smoke(tmp_path / "run" / "cohort"))
    assert image.exists()


def open_smoke_record(tmp_path):
    """The content of a run.json."""
    return config.open_run("smoke", run_dir=tmp_path / "other").record()


def test_volumes_are_stretched_one_by_one_and_channel_by_channel():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 100, (6, 8, 8, 3)).astype(np.uint8)
    images[3:] //= 2
    images[:3, ..., 2] = 40
    before = images.copy()
    preprocess.scale_volumes(images, list("AAABBB"), "volume")
    for patient in (slice(0, 3), slice(3, 6)):
        low, high = np.percentile(before[patient][..., 0], (10, 99))
        wanted = np.clip(255 * (before[patient][..., 0].astype(float) - low) / (high - low), 0, 255)
        assert np.abs(images[patient][..., 0] - wanted).max() <= 0.5 + 1e-4
        assert images[patient][..., 0].max() == 255 and images[patient][..., 0].min() == 0
    assert not images[:3, ..., 2].any()


def test_heads_are_brought_to_one_level_whatever_the_fat():
    images = np.zeros((2, 10, 10, 3), np.uint8)
    images[:, 2:8, 2:8] = (50, 60, 70)
    images[:, 2:8, 2] = 100
    images[1] = images[1] // 2 * np.array([1, 1, 0], np.uint8)
    preprocess.scale_volumes(images, ["A", "B"], "head")
    assert images[0, 5, 5].tolist() == [*images[1, 5, 5].tolist()[:2], 102] == [102] * 3
    assert images[:, 5, 2, 0].tolist() == [204, 204] and images[1, ..., 2].max() == 0 and images[:, 0].max() == 0


@pytest.mark.parametrize("scaling", ["slice", "dataset"])
def test_other_scalings_leave_volumes_alone(scaling):
    images = np.arange(96, dtype=np.uint8).reshape(2, 4, 4, 3)
    before = images.copy()
    preprocess.scale_volumes(images, ["A", "A"], scaling)
    assert np.array_equal(images, before)


@pytest.mark.parametrize("scaling", ["volume", "head"])
def test_a_cohort_scaled_by_volume_is_cached_scaled(phantom_folder, open_smoke, tmp_path, scaling):
    plain = preprocess.load_cohort(open_smoke(phantom_folder))
    run = config.open_run("smoke", phantom_folder, tmp_path / "stretched", 0, {"scaling": scaling})
    wanted = np.array(plain.images)
    preprocess.scale_volumes(wanted, plain.slices["patient"], scaling)
    assert np.array_equal(preprocess.load_cohort(run).images, wanted)
    assert not np.array_equal(wanted, plain.images)


def test_context_shows_the_slices_beside_and_never_another_patient():
    slices = pd.DataFrame({"patient": ["A"] * 3 + ["B"] * 2, "slice": [1, 2, 3, 1, 2]})
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    cohort = preprocess.Cohort(slices, images, None, None, "", 0)
    shown = preprocess.network_inputs(cohort, [0, 1, 2, 3, 4], 1)
    assert shown.shape == (5, 2, 2, 9)
    assert shown[:, 0, 0, ::3].tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 2], [3, 3, 4], [3, 4, 4]]
    assert preprocess.network_inputs(cohort, [3], 2)[0, 0, 0, ::3].tolist() == [3, 3, 3, 4, 4]
    assert np.array_equal(preprocess.network_inputs(cohort, [2], 0), images[[2]])


def test_a_changed_cache_is_noticed(phantom_folder, open_smoke):
    run = open_smoke(phantom_folder)
    preprocess.load_cohort(run)
    with run.path("cohort", "masks.npy").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    with pytest.raises(UserError, match="cohort was changed since it was written; remove it, and it is made again"):
        preprocess.load_cohort(run)


def test_a_cache_that_would_execute_code_is_not_unpickled(phantom_folder, open_smoke, tmp_path):
    class Planted:
        def __reduce__(self):
            return (pathlib.Path.touch, (tmp_path / "executed",))

    run = open_smoke(phantom_folder)
    preprocess.load_cohort(run)
    np.save(run.path("cohort", "masks.npy"), np.array([Planted()], dtype=object), allow_pickle=True)
    record = json.loads(run.path("cohort", "cohort.json").read_text())
    record["digests"] = preprocess._digests(run, run.path("cohort"))
    run.path("cohort", "cohort.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="allow_pickle=False|Array can't be memory-mapped"):
        preprocess.load_cohort(run)
    assert not (tmp_path / "executed").exists()


def test_names_of_patients_stay_what_they_are(tmp_path, write_slice, open_smoke):
    for patient in ("01", "1", "NA"):
        write_slice(tmp_path / "data", patient, 1)
    run = open_smoke(tmp_path / "data")
    slices = preprocess.load_cohort(run).slices
    assert slices["patient"].tolist() == ["01", "1", "NA"]
    for _ in ("drawn", "read again"):
        assert preprocess.load_split(run, slices)["patient"].tolist() == ["01", "1", "NA"]


def test_a_cache_is_there_only_once_the_record_says_what_the_data_are(phantom_folder, open_smoke, monkeypatch):
    def killed(*args, **facts):
        raise KeyboardInterrupt

    run = open_smoke(phantom_folder)
    with monkeypatch.context() as patch:
        patch.setattr(config.Run, "note", killed)
        with pytest.raises(KeyboardInterrupt):
            preprocess.load_cohort(run)
    assert not run.path("cohort").exists()
    assert preprocess.load_cohort(run).kind == run.record()["data"]["kind"] == "phantom cohort"
