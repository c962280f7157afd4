"""Masks for one's own slices: as the evaluation would give them, or one line and nothing written."""

import subprocess
import sys
import zipfile

import cv2
import nibabel
import numpy as np
import pandas as pd
import pytest
from conftest import write_slice
from PIL import Image

from lggseg_utils import data, evaluate, model, predict, preprocess, runs, train
from lggseg_utils.settings import UserError


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with an untrained network that scales whole volumes."""
    folder = tmp_path_factory.mktemp("run") / "run"
    run = runs.open_run("smoke", "", folder, 0, {"scaling": "head"})
    train.save_network(model.build_unet(run.experiment), run.path("model.keras"))
    return run


def test_a_folder_is_predicted_as_the_evaluation_predicts_it(finished, cohort_folder, tmp_path):
    dataset = preprocess.prepare(data.read_cohort(cohort_folder), finished.experiment)
    network = train.load_network(finished.path("model.keras"))
    highest = evaluate.predict(network, dataset.images, finished.experiment).max((1, 2))
    table = predict.predict([cohort_folder], finished.folder, tmp_path).slices
    assert table[["patient", "slice"]].equals(dataset.slices[["patient", "slice"]])
    assert table["highest_probability"].to_numpy() == pytest.approx(highest, abs=1e-4)
    assert (
        len(list(tmp_path.iterdir())) == 62
        and runs.read_csv(tmp_path / "predictions.csv").shape == table.shape
    )


def probable_in_a_corner(network, images, experiment):
    """Return probabilities as `evaluate.predict` does: from 0 at the lower right to 0.8 at the upper left."""
    line = np.linspace(1, 0, 128, dtype=np.float32)
    return np.repeat(0.8 * (line[:, None] * line)[None], len(images), axis=0)


def test_a_mask_is_what_is_probable_and_its_outline_is_drawn(finished, tmp_path, monkeypatch):
    image = np.full((90, 70, 3), (50, 100, 150), np.uint8)
    scan, _ = write_slice(tmp_path, "scan", 1, image)
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
    table = predict.predict([scan], finished.folder, tmp_path / "out").slices
    mask = cv2.imread(str(tmp_path / "out" / "scan_1_mask.png"), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (90, 70) and set(np.unique(mask)) <= {0, 255}
    assert (mask > 0).sum() == table["tumour_pixels"][0]
    assert cv2.imread(str(tmp_path / "out" / "scan_1_overlay.png")).shape == (90, 70, 3)


def test_what_cannot_be_used_is_named_and_nothing_is_written(finished, tmp_path):
    good, mask = write_slice(tmp_path / "cohort", "A", 1)
    cut, empty = tmp_path / "cut.tif", tmp_path / "empty"
    cut.write_bytes(good.read_bytes()[:50])
    empty.mkdir()
    zipped = tmp_path / "download" / "scans.zip"
    zipped.parent.mkdir()
    zipped.touch()
    notes = tmp_path / "photo.jpg"
    Image.open(good).save(notes)
    for images, message in (
        ([tmp_path / "nowhere"], "nowhere does not exist"),
        ([good.parent, cut], r"cut.tif can't be used: .*Nothing was written"),
        ([mask], "no image in .*A_1_mask.tif; supported: .tif, .tiff, .png, .nii, .nii.gz"),
        ([], "name images to predict, folders of them, or a volume with --flair"),
        ([good, tmp_path / "cohort"], "two images are named A_1"),
        ([zipped.parent], f"no image in {zipped.parent}, but a zip; name it: {zipped}"),
        ([empty], "no image in .*empty; supported: .tif, .tiff, .png"),
        ([notes], r"photo.jpg can't be used: JPEG has changed the pixels; export the slices again"),
    ):
        with pytest.raises(UserError, match=message):
            predict.predict(images, finished.folder, tmp_path / "out")
    with pytest.raises(UserError, match="empty is not a run folder: run.json is missing"):
        predict.predict([good], empty, tmp_path / "out")
    with pytest.raises(UserError, match="model.keras is a file; name the folder of its run"):
        predict.predict([good], finished.path("model.keras"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(
        UserError,
        match="holds the images themselves, and masks could be written over; name another",
    ):
        predict.predict([good], finished.folder, good.parent)


def test_kaggles_two_trees_a_zip_and_a_link_are_one_stack(finished, tmp_path):
    rng, scans = np.random.default_rng(0), tmp_path / "scans"
    for number in (2, 10):
        image = rng.integers(0, 255, (24, 24, 3), np.uint8)
        for tree in ("kaggle_3m", "lgg-mri-segmentation/kaggle_3m"):
            write_slice(scans / tree, "A", number, image)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "A").symlink_to(scans / "kaggle_3m")
    with zipfile.ZipFile(tmp_path / "scans.zip", "w") as archive:
        for path in scans.rglob("*.tif"):
            archive.write(path, str(path.relative_to(scans)).replace("/", "\\"))
    tables = [
        predict.predict([tmp_path / name], finished.folder, tmp_path / "out" / name).slices
        for name in ("scans", "scans.zip", "linked")
    ]
    for table in tables:
        assert table["slice"].tolist() == [2, 10] and table["patient"].tolist() == ["A", "A"]
        assert table.drop(columns="image").equals(tables[0].drop(columns="image"))


def test_natural_names_are_one_patients_and_others_are_said_to_be_alone(finished, tmp_path, capsys):
    image, _ = write_slice(tmp_path / "scans", "A", 1)
    for name in ("Pat1/slice000", "Pat1/slice001", "x-ray", "y-ray"):
        path = tmp_path / "scans" / f"{name}.tif"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(image.read_bytes())
    table = predict.predict([tmp_path / "scans"], finished.folder, tmp_path / "out").slices
    assert table["patient"].tolist() == ["A", "Pat1", "Pat1", "x-ray", "y-ray"]
    assert table["slice"].tolist() == [1, 0, 1, 0, 0]
    assert capsys.readouterr().err.startswith("2 images are not named PATIENT_NUMBER, so each")


def test_what_a_folder_leaves_out_is_said(finished, tmp_path, capsys):
    image, _ = write_slice(tmp_path / "scans", "A", 1)
    for number in range(17):
        Image.open(image).save(tmp_path / "scans" / f"B_{number}.jpg")
    predict.predict([tmp_path / "scans"], finished.folder, tmp_path / "out")
    said = f"{tmp_path / 'scans'}: 17 images left out (.jpg); read are .tif, .tiff, .png. JPEG has changed the pixels; export the slices again, as PNG or TIFF.\n"
    assert capsys.readouterr().err == said


def test_masks_beside_the_images_give_a_dice_per_patient(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "predict", probable_in_a_corner)
    for patient, number, white in (("A", 1, 255), ("A", 2, 0), ("B", 1, 0)):
        mask = np.zeros((64, 64), np.uint8)
        mask[:10, :20] = white
        write_slice(tmp_path / "scans", patient, number, np.full((64, 64, 3), 90, np.uint8), mask)
    write_slice(tmp_path / "scans", "C", 1)[1].unlink()
    predict.predict([tmp_path / "scans"], finished.folder, tmp_path / "out")
    first, second = runs.read_csv(tmp_path / "out" / "dice.csv").itertuples(index=False)
    drawn = np.asarray(Image.open(tmp_path / "out" / "A_1_mask.png")) > 0
    tp, all_drawn = drawn[:10, :20].sum(), drawn.sum()
    assert first[:5] == ("A", 2, tp, 2 * all_drawn - tp, 200 - tp)
    assert first.dice == pytest.approx(2 * tp / (2 * all_drawn + 200))
    assert 0.2 < first.dice < 1
    assert second == ("B", 1, 0, all_drawn, 0, 0)


def test_slices_are_in_the_order_of_patients_and_numbers_however_they_are_given(finished, tmp_path):
    names = (("B", 1), ("A", 10), ("A", 9))
    scans = [write_slice(tmp_path, patient, number)[0] for patient, number in names]
    table = predict.predict(scans, finished.folder, tmp_path / "out").slices
    assert table["mask"].tolist() == ["A_9_mask.png", "A_10_mask.png", "B_1_mask.png"]


def test_a_volume_given_by_its_sequences_has_slices_from_0(tmp_path):
    for number, ending in enumerate(("t1", "flair", "t1ce")):
        values = np.full((3, 4, 5), 10 * number, np.uint8)
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / f"P_{ending}.nii")
    given = [str(tmp_path / f"P_{ending}.nii") for ending in ("t1", "flair", "t1ce")]
    scans = predict._of_volume(*predict.named_volume(*given))
    assert [scan[:4] for scan in scans] == [
        (given[1], "P", number, "P_mask.nii.gz") for number in range(5)
    ]
    assert scans[0].pixels[0, 0].tolist() == [0, 10, 20]


def test_an_image_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    def fill_the_disk(image, path):
        path.write_bytes(b"half")
        raise OSError

    monkeypatch.setattr(Image.Image, "save", fill_the_disk)
    with pytest.raises(OSError):
        predict._write_png(tmp_path / "mask.png", np.zeros((2, 2), np.uint8))
    assert not list(tmp_path.iterdir())


def test_masks_predicted_earlier_are_not_taken_for_the_truth(finished, tmp_path):
    write_slice(tmp_path / "scans", "A", 1)[1].unlink()
    for out in ("first", "second", "third"):
        found = predict.predict([tmp_path / "scans"], finished.folder, tmp_path / "scans" / out)
        assert found.dice is None and len(found.slices) == 1


def test_a_second_call_leaves_no_masks_of_the_first(finished, tmp_path):
    first = [write_slice(tmp_path / "scans", "A", number)[0] for number in (1, 2)]
    predict.predict([tmp_path / "scans"], finished.folder, tmp_path / "out")
    (tmp_path / "out" / "mine_mask.png").touch()
    first[0].with_name("A_1_mask.tif").unlink()
    predict.predict(first[:1], finished.folder, tmp_path / "out")
    left = ["A_1_mask.png", "A_1_overlay.png", "mine_mask.png", "predictions.csv"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == left


def test_a_cross_validation_is_averaged_and_a_fold_stands_alone(tmp_path, cohort_folder):
    run = runs.open_run("smoke", "", tmp_path / "folds run", 0, {}, "crossval")
    networks = []
    for seed in (0, 1):
        networks.append(model.build_unet(run.experiment.model_copy(update={"seed": seed})))
        place = run.path("folds", str(seed), "model.keras")
        place.parent.mkdir(parents=True)
        train.save_network(networks[-1], place)
    with pytest.raises(UserError, match="folds run is not finished; the command that began it"):
        runs.find_network(run.folder)
    run.path("metrics.json").write_text("{}")
    split = {"patient": ["A", "A"], "slice": [1, 2], "split": "test", "fold": [0, 1]}
    runs.write_csv(run.path("split.csv"), pd.DataFrame(split))
    dataset = preprocess.prepare(data.read_cohort(cohort_folder), run.experiment)
    alone = [evaluate.predict(each, dataset.images, run.experiment) for each in networks]
    for folder, expected in ((run.folder, np.mean(alone, axis=0)), (run.path("folds/1"), alone[1])):
        table = predict.predict([cohort_folder], folder, tmp_path / "out").slices
        highest = expected.max((1, 2))
        assert table["highest_probability"].to_numpy() == pytest.approx(highest, abs=2e-4)
    run.path("folds/1/model.keras").unlink()
    with pytest.raises(UserError, match=r"folds/1/model.keras is missing; delete .*metrics.json"):
        runs.find_network(run.folder)


def test_what_can_be_refused_is_refused_before_tensorflow_is_loaded(tmp_path):
    image, _ = write_slice(tmp_path, "A", 1)
    cut = tmp_path / "cut.tif"
    cut.write_bytes(image.read_bytes()[:50])
    code = """
import sys
from lggseg_utils import cli
sys.argv = ["lggseg", "predict", *sys.argv[1:], "--out", "masks"]
try:
    cli.main()
except SystemExit as ended:
    print(ended.code)
print("tensorflow" in sys.modules)
"""
    for wrong in ("nowhere", cut, tmp_path / "a.nii", "--pre=a.nii", f"--run={tmp_path}"):
        given = [wrong] if wrong != f"--run={tmp_path}" else [image, wrong]
        command = [sys.executable, "-c", code, *map(str, given)]
        ended = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
        message, loaded = ended.stdout.splitlines()
        assert message.startswith("lggseg: ") and loaded == "False", ended.stdout
