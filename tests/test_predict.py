"""Masks for one's own slices: as the evaluation would give them, whole or not at all."""

import json
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest

from lggseg_utils import cli, config, evaluate, predict, preprocess, records, train
from lggseg_utils.config import UserError


@pytest.fixture(scope="module")
def finished(tmp_path_factory, phantom_folder):
    """A trained run that looks at volumes and neighbours."""
    overrides = {"context": 1, "scaling": "volume", "test_time_flips": True, "epochs": 1}
    run = config.open_run("smoke", phantom_folder, tmp_path_factory.mktemp("run"), 0, overrides)
    train.train(run)
    return run


def test_a_folder_is_predicted_as_the_evaluation_predicts_it(finished, phantom_folder, tmp_path):
    cohort = preprocess.load_cohort(finished)
    network, _ = train.train(finished)
    wanted = evaluate.predicted_masks(network, cohort, np.arange(len(cohort.slices)), finished.experiment)
    table = predict.predict([phantom_folder], finished.folder, tmp_path / "out")
    assert table[["patient", "slice"]].equals(cohort.slices[["patient", "slice"]])
    assert table["tumour_pixels"].tolist() == wanted.sum((1, 2)).tolist() and table["tumour_pixels"].any()
    name = f"{table['patient'][7]}_{table['slice'][7]}"
    mask = cv2.imread(str(tmp_path / "out" / f"{name}_mask.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(mask, 255 * wanted[7].astype(np.uint8))
    overlay = cv2.imread(str(tmp_path / "out" / f"{name}_overlay.png"))
    assert overlay.shape == (128, 128, 3)
    assert (overlay != overlay[..., :1]).any() == wanted[7].any()
    written = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert written["tumour_pixels"].equals(table["tumour_pixels"]) and len(list((tmp_path / "out").iterdir())) == 61


def test_images_of_any_size_keep_their_grid(finished, tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (90, 70, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "scan.tif"), image)
    predict.predict([tmp_path / "scan.tif"], finished.folder, tmp_path / "out")
    assert cv2.imread(str(tmp_path / "out" / "scan_mask.png"), cv2.IMREAD_UNCHANGED).shape == (90, 70)


def test_what_cannot_be_used_is_named_and_nothing_is_written(finished, tmp_path, write_slice):
    good, mask = write_slice(tmp_path / "cohort", "A", 1)
    cut = tmp_path / "cut.tif"
    cut.write_bytes(good.read_bytes()[:50])
    for images, message in (
        ([tmp_path / "nowhere"], "nowhere does not exist"),
        ([tmp_path / "cohort" / "A", cut], r"cut.tif can't be used: not a readable TIFF .*Nothing was written"),
        ([mask], r"image has 1 channel\(s\), expected 3 \(pre-contrast, FLAIR, post-contrast\)"),
        ([good, tmp_path / "cohort"], "two images are named A_1"),
        ([b"no\xff.tif".decode(errors="surrogateescape")], "can't be used as a path"),
    ):
        with pytest.raises(UserError, match=message):
            predict.predict(images, finished.folder, tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no image in .*empty; .tif, .tiff are read"):
        predict.predict([tmp_path / "empty"], finished.folder, tmp_path / "out")
    with pytest.raises(UserError, match="holds no trained network: run.json and model.keras are looked for"):
        predict.predict([good], tmp_path / "empty", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_it_wrote(finished, tmp_path, write_slice, capsys):
    write_slice(tmp_path / "cohort", "A", 1)
    arguments = ["predict", str(tmp_path / "cohort"), "--run", str(finished.folder), "--out", str(tmp_path / "masks")]
    cli.commands(arguments, standalone_mode=False)
    assert capsys.readouterr().out.startswith("1 image(s), ")


def test_weights_kept_in_half_the_space_predict_the_same(finished, tmp_path, phantom_folder):
    trained, _ = train.train(finished)
    predict.keep_weights(trained, tmp_path / "weights.npz")
    shutil.copyfile(finished.path("run.json"), tmp_path / "run.json")
    stored, experiment = predict.load_network(tmp_path)
    assert experiment == finished.experiment
    images = np.random.default_rng(0).random((4, experiment.size, experiment.size, 9), np.float32)
    assert np.allclose(stored.predict_on_batch(images), trained.predict_on_batch(images), atol=0.02)
    table = predict.predict([phantom_folder], tmp_path, tmp_path / "out")
    whole = predict.predict([phantom_folder], finished.folder, tmp_path / "other")
    assert np.allclose(table["highest_probability"], whole["highest_probability"], atol=0.02)


def test_damaged_weights_and_those_of_another_network_are_refused(finished, tmp_path):
    shutil.copyfile(finished.path("run.json"), tmp_path / "run.json")
    trained, _ = train.train(finished)
    predict.keep_weights(trained, tmp_path / "weights.npz")
    content = (tmp_path / "weights.npz").read_bytes()
    np.savez(tmp_path / "other.npz", np.zeros(3))
    np.savez(tmp_path / "pickled.npz", np.array([{}], dtype=object))
    for damaged in (
        content[:2000],
        b"",
        (tmp_path / "other.npz").read_bytes(),
        (tmp_path / "pickled.npz").read_bytes(),
    ):
        (tmp_path / "weights.npz").write_bytes(damaged)
        with pytest.raises(UserError, match=r"weights.npz does not hold this network's weights"):
            predict.load_network(tmp_path)


def test_a_network_that_is_not_the_one_recorded_is_refused(finished, tmp_path):
    record = {**finished.record(), "experiment": {**finished.record()["experiment"], "context": 0}}
    config.write_json(tmp_path / "run.json", record)
    trained, _ = train.train(finished)
    trained.save(tmp_path / "model.keras")
    with pytest.raises(UserError, match=r"model.keras takes \(32, 32, 9\), but .*run.json says \(32, 32, 3\)"):
        predict.load_network(tmp_path)


def test_the_reference_model_belongs_to_its_record():
    evidence = records.load_records("crossval")["recipe-cv"]
    kept = json.loads((predict.REFERENCE / "run.json").read_text())
    assert kept["experiment"] == evidence.record["experiment"] and kept["data"] == evidence.record["data"]
    tested = evidence.evaluation.per_patient[evidence.evaluation.per_patient["fold"] == kept["fold"]]
    assert kept["stored"]["dice_trained"] == pytest.approx(tested["dice"].mean(), abs=1e-5)
    assert kept["stored"]["dice_stored"] == pytest.approx(tested["dice"].mean(), abs=1e-3)
    split = pd.read_csv(predict.REFERENCE / "split.csv")
    assert len(split) == split["patient"].nunique() == 110
    assert set(split.loc[split["split"] == "test", "patient"]) == set(tested["patient"])


def test_the_reference_model_predicts_at_once(phantom_folder, tmp_path, capsys):
    patient = sorted(path for path in phantom_folder.iterdir() if path.is_dir())[0]
    cli.commands(["predict", str(patient), "--out", str(tmp_path)], standalone_mode=False)
    assert capsys.readouterr().out.startswith("5 image(s), ")
    table = pd.read_csv(tmp_path / "predictions.csv")
    assert table["highest_probability"].between(0, 1).all() and table["highest_probability"].nunique() > 1
    assert len(list(tmp_path.glob("*_overlay.png"))) == 5
