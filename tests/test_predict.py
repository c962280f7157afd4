"""Masks for one's own slices: as the evaluation would give them, or one line and nothing written."""

import cv2
import numpy as np
import pytest
from conftest import write_slice
from PIL import Image

from lggseg_utils import data, evaluate, experiments, predict, preprocess, runs, train
from lggseg_utils.settings import UserError


@pytest.fixture(scope="module")
def finished(tmp_path_factory, cohort_folder):
    """A trained run whose network scales whole volumes."""
    run = runs.open_run(
        "smoke", cohort_folder, tmp_path_factory.mktemp("run") / "run", 0, {"scaling": "head"}
    )
    experiments.train_and_score(run, data.load_cohort(run))
    return run


def test_a_folder_is_predicted_as_the_evaluation_predicts_it(finished, cohort_folder, tmp_path):
    dataset = preprocess.prepare(data.read_cohort(cohort_folder), finished.experiment)
    network = train.load_network(finished.path("model.keras"))
    highest = evaluate.predict(network, dataset.images, finished.experiment).max((1, 2))
    table = predict.predict([cohort_folder], finished.folder, tmp_path)
    assert table[["patient", "slice"]].equals(dataset.slices[["patient", "slice"]])
    assert table["highest_probability"].to_numpy() == pytest.approx(highest, abs=1e-4)
    assert (
        len(list(tmp_path.iterdir())) == 61
        and runs.read_csv(tmp_path / "predictions.csv").shape == table.shape
    )


def probable_in_a_corner(network, images, experiment):
    """Return probabilities as `evaluate.predict` does: from 0 at the lower right to 0.8 at the upper left."""
    line = np.linspace(1, 0, 128, dtype=np.float32)
    return np.repeat(0.8 * (line[:, None] * line)[None], len(images), axis=0)


def test_a_mask_is_what_is_probable_and_its_outline_is_drawn(finished, tmp_path, monkeypatch):
    scan, _ = write_slice(tmp_path, "scan", 1, np.full((90, 70, 3), 100, np.uint8))
    monkeypatch.setattr(evaluate, "predict", probable_in_a_corner)
    predict.predict([scan], finished.folder, tmp_path / "out")
    mask, overlay = (
        np.asarray(Image.open(tmp_path / "out" / f"scan_1_{kind}.png"))
        for kind in ("mask", "overlay")
    )
    y, x = (np.arange(90) + 0.5) / 90, (np.arange(70) + 0.5) / 70
    expected = 0.8 * (1 - y)[:, None] * (1 - x) > 0.5
    assert expected.mean() > 0.05 and ((mask > 0) != expected).mean() < 0.01
    marked = (overlay == predict.OUTLINE).all(-1)
    inside = np.pad(mask > 0, 1)
    inner = np.all(
        [np.roll(inside, *shift) for shift in ((1, 0), (-1, 0), (1, 1), (-1, 1))], axis=0
    )[1:-1, 1:-1]
    assert (marked == ((mask > 0) & ~inner)).mean() > 0.999 and (overlay[~marked] == 100).all()


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_images_of_any_size_keep_their_grid(finished, tmp_path, suffix):
    image = np.random.default_rng(0).integers(0, 255, (90, 70, 3), np.uint8)
    scan, _ = write_slice(tmp_path, "scan", 1, image, suffix=suffix)
    table = predict.predict([scan], finished.folder, tmp_path / "out")
    mask = cv2.imread(str(tmp_path / "out" / "scan_1_mask.png"), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (90, 70) and set(np.unique(mask)) <= {0, 255}
    assert (mask > 0).sum() == table["tumour_pixels"][0]
    assert cv2.imread(str(tmp_path / "out" / "scan_1_overlay.png")).shape == (90, 70, 3)


def test_what_cannot_be_used_is_named_and_nothing_is_written(finished, tmp_path):
    good, mask = write_slice(tmp_path / "cohort", "A", 1)
    cut, empty = tmp_path / "cut.tif", tmp_path / "empty"
    cut.write_bytes(good.read_bytes()[:50])
    empty.mkdir()
    for images, message in (
        ([tmp_path / "nowhere"], "nowhere does not exist"),
        ([good.parent, cut], r"cut.tif can't be used: .*Nothing was written"),
        ([mask], r"has 1 channel\(s\), expected 3 \(pre-contrast, FLAIR, post-contrast\)"),
        ([good, tmp_path / "cohort"], "two images are named A_1"),
        ([empty], "no image in .*empty; supported: .tif, .tiff, .png"),
    ):
        with pytest.raises(UserError, match=message):
            predict.predict(images, finished.folder, tmp_path / "out")
    with pytest.raises(UserError, match="empty is not a run folder: run.json is missing"):
        predict.predict([good], empty, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(
        UserError,
        match="holds the images themselves, and masks could be written over; name another",
    ):
        predict.predict([good], finished.folder, good.parent)
