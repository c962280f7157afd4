"""Training: it learns, stops, keeps what it should, and survives being killed."""

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from lggseg_utils import config, preprocess, train
from lggseg_utils.config import UserError


def batches_of(experiment, epochs, count=20):
    """Images and masks of the training batches of some epochs, as NumPy arrays."""
    images = np.random.default_rng(0).integers(0, 255, (count, 32, 32, 3), np.uint8)
    epoch = tf.Variable(0, dtype=tf.int64)
    pipeline = train.training_batches(images, images[..., 0] > 128, experiment, epoch)
    batches = []
    for number in epochs:
        epoch.assign(number)
        batches += [(image.numpy(), mask.numpy()) for image, mask in pipeline]
    return batches


def test_every_epoch_shows_every_slice_once_in_another_order():
    experiment = config.load_experiment("smoke", overrides={"augmentation": "none", "batch_size": 8, "epochs": 2})
    batches = [image for image, _ in batches_of(experiment, (0, 1))]
    assert [len(batch) for batch in batches] == [8, 8, 4] * 2
    first, second = np.concatenate(batches[:3]), np.concatenate(batches[3:])
    assert not np.array_equal(first, second)
    assert {image.tobytes() for image in first} == {image.tobytes() for image in second} and len(
        {i.tobytes() for i in first}
    ) == 20


def test_batches_from_a_later_epoch_are_those_of_an_uninterrupted_training():
    experiment = config.load_experiment("smoke", overrides={"augmentation": "all", "batch_size": 8, "epochs": 3})
    whole, resumed = batches_of(experiment, (0, 1, 2)), batches_of(experiment, (1, 2))
    for (image, mask), (again, mask_again) in zip(whole[3:], resumed, strict=True):
        assert np.array_equal(image, again) and np.array_equal(mask, mask_again)


def test_validation_batches_are_in_order_and_unchanged():
    experiment = config.load_experiment("smoke", overrides={"augmentation": "all"})
    images = np.random.default_rng(0).integers(0, 255, (20, 32, 32, 3), np.uint8)
    seen = np.concatenate([image.numpy() for image, _ in train.evaluation_batches(images, images[..., 0], experiment)])
    assert np.array_equal(seen, preprocess.minmax(images).numpy())


def test_a_run_keeps_best_and_last_weights_and_its_history(phantom_folder, open_smoke):
    run = open_smoke(phantom_folder, epochs=3)
    _, history = train.train(run)
    assert history["epoch"].tolist() == [1, 2, 3]
    assert {"loss", "accuracy", "dice_coef", "jacard_coef", "val_loss", "val_dice_coef"} <= set(history.columns)
    assert (
        run.path("model.keras").exists()
        and run.path("model_best.keras").exists()
        and not run.path("checkpoint.keras").exists()
    )
    facts = run.record()["training"]
    assert facts["epochs"] == 3 and facts["best_epoch"] == history["val_loss"].idxmin() + 1
    assert facts["precision"] == train.machine_precision()


def test_early_stopping_looks_at_the_history(tmp_path):
    experiment = config.load_experiment("smoke", overrides={"early_stopping": 2, "epochs": 50})
    history = [{"val_loss": value} for value in (0.5, 0.4, 0.41, 0.42)]
    assert train._finished(history, experiment) and not train._finished(history[:3], experiment)
    assert not train._finished(history, experiment.model_copy(update={"early_stopping": 0}))


def test_early_stopping_ends_a_training(phantom_folder, open_smoke):
    run = open_smoke(phantom_folder, epochs=12, early_stopping=1, learning_rate=1.0)
    assert len(train.train(run)[1]) < 12


def test_precision_is_what_was_asked_for(phantom_folder, open_smoke):
    run = open_smoke(phantom_folder, epochs=1, precision="float32")
    train.train(run)
    assert run.record()["training"]["precision"] == "float32"


def test_the_papers_two_channels_train(phantom_folder, open_smoke):
    run = open_smoke(phantom_folder, epochs=1, loss="categorical_crossentropy", output="softmax")
    network, history = train.train(run)
    assert network.output.shape[-1] == 2 and np.isfinite(history["loss"]).all()


def test_a_network_started_afresh_trains_like_a_new_one(tmp_path, phantom_folder, open_smoke):
    run = open_smoke(phantom_folder, normalization="batch")
    cohort = preprocess.load_cohort(run)
    split = preprocess.load_split(run, cohort.slices)
    rows = [preprocess.rows_of(split, name) for name in ("train", "val")]
    used, history = train.fit(run.experiment, cohort, *rows, tmp_path / "new")
    _, again = train.fit(run.experiment, cohort, *rows, tmp_path / "afresh", used)
    assert again.drop(columns="seconds").equals(history.drop(columns="seconds"))


def test_a_network_started_afresh_forgets_its_loss_scale(open_smoke):
    experiment = open_smoke(precision="mixed_float16").experiment
    train.set_up(experiment)
    model = train.compile_unet(experiment, 1)
    model.optimizer.build(model.trainable_variables)
    model.optimizer.dynamic_scale.assign(1.0)
    train.restart(model, experiment)
    assert float(model.optimizer.dynamic_scale) == model.optimizer.initial_scale
    train.set_up(experiment.model_copy(update={"precision": "float32"}))


# Shells make what they start in the background deaf to Ctrl-C; the script hears it again.
SCRIPT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from lggseg_utils import config, train
train.train(config.open_run("smoke", sys.argv[1], sys.argv[2], 0, {"epochs": 8, "early_stopping": 0}))
"""


def start(data, folder):
    """Start a training of eight epochs in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), str(data), str(folder)],
        stderr=subprocess.DEVNULL,
    )


def wait_for_epoch(path, epoch, process):
    """Wait until a history has so many rows."""
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        if path.exists() and len(pd.read_csv(path)) >= epoch:
            return
        time.sleep(0.02)
    pytest.fail("the training did not get so far")


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_a_stopped_training_goes_on_and_ends_as_if_undisturbed(tmp_path, phantom_folder, blow):
    process = start(phantom_folder, tmp_path / "stopped")
    wait_for_epoch(tmp_path / "stopped" / "history.csv", 3, process)
    process.send_signal(blow)
    process.wait(60)
    assert not (tmp_path / "stopped" / "model.keras").exists()
    assert start(phantom_folder, tmp_path / "stopped").wait(200) == 0
    assert start(phantom_folder, tmp_path / "whole").wait(200) == 0
    stopped, whole = (
        pd.read_csv(tmp_path / name / "history.csv").drop(columns="seconds") for name in ("stopped", "whole")
    )
    assert stopped["epoch"].tolist() == list(range(1, 9))
    # Written with nine digits; any difference in order, augmentation or dropout would be far larger.
    np.testing.assert_allclose(stopped.to_numpy(), whole.to_numpy(), rtol=1e-6)
    assert not [path for path in (tmp_path / "stopped").rglob(".part-*") if path.suffix == ".csv"]


@pytest.mark.parametrize("profile", ["report64", "patient64", "paper"])
def test_a_network_that_has_sunk_to_all_background_still_gets_a_gradient(profile):
    experiment = config.load_experiment(profile, overrides={"size": 32, "depth": 3, "filters": 4})
    train.set_up(experiment)
    network = train.compile_unet(experiment, 10)
    kernel, bias = network.get_layer("probability").get_weights()
    background = np.array([-100.0] if len(bias) == 1 else [100.0, 0.0])
    network.get_layer("probability").set_weights([0 * kernel, background])
    network.train_on_batch(np.ones((2, 32, 32, 3)), np.ones((2, 32, 32, 1)))
    step = network.get_layer("probability").get_weights()[1][-1] - background[-1]
    assert step == pytest.approx(experiment.learning_rate, rel=0.01)


def test_advice_says_what_machine_it_is(monkeypatch):
    assert train.advice().startswith(("No GPU found", "GPU: "))
    monkeypatch.setattr(train.tf.config, "list_physical_devices", lambda kind: ["a GPU"])
    details = {"device_name": "Tesla T4", "compute_capability": (7, 5)}
    monkeypatch.setattr(train.tf.config.experimental, "get_device_details", lambda gpu: details)
    assert train.advice().startswith("GPU: Tesla T4, trained on in mixed_float16.")


def test_a_network_that_would_execute_code_is_refused(tmp_path):
    import keras

    planted = tmp_path / "executed"
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Lambda(lambda x, place=str(planted): Path(place).touch() or x)(inputs))
    model.save(tmp_path / "model.keras")
    planted.unlink()
    with pytest.raises(
        UserError, match="holds no network that can be used .*[Ll]ambda.*remove it, and it is made again"
    ):
        train.load_model(tmp_path / "model.keras")
    assert not planted.exists()


@pytest.mark.parametrize("content", [b"", b"not a network", b"PK\x05\x06" + bytes(18)])
def test_a_damaged_network_gets_one_line(tmp_path, content):
    (tmp_path / "model.keras").write_bytes(content)
    with pytest.raises(UserError, match="model.keras holds no network that can be used"):
        train.load_model(tmp_path / "model.keras")


def test_a_training_that_diverges_is_stopped_and_keeps_what_it_had(tmp_path):
    keeper = train.Keeper(tmp_path, [{"epoch": 1, "val_loss": 0.5}], config.load_experiment("smoke"), keep=True)
    keeper.set_params({"epochs": 3})
    keeper.on_train_begin()
    keeper.started = 0.0
    with pytest.raises(
        UserError, match=r"the validation loss is not a number after epoch 2; train with a smaller learning_rate"
    ):
        keeper.on_epoch_end(1, {"val_loss": float("nan"), "val_dice_coef": 0.0})
    assert list(tmp_path.iterdir()) == []
