"""Training: it learns, stops, keeps what it should, and survives being killed."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from lggseg_utils import data, model, preprocess, runs, train
from lggseg_utils.settings import UserError, load_experiment


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
    experiment = load_experiment(
        "smoke", overrides={"augmentation": "none", "batch_size": 8, "epochs": 2}
    )
    batches = [image for image, _ in batches_of(experiment, (0, 1))]
    assert [len(batch) for batch in batches] == [8, 8, 4] * 2
    first, second = np.concatenate(batches[:3]), np.concatenate(batches[3:])
    assert not np.array_equal(first, second)
    assert {image.tobytes() for image in first} == {image.tobytes() for image in second} and len(
        {i.tobytes() for i in first}
    ) == 20


def test_batches_from_a_later_epoch_are_those_of_an_uninterrupted_training():
    experiment = load_experiment(
        "smoke", overrides={"augmentation": "all", "batch_size": 8, "epochs": 3}
    )
    whole, resumed = batches_of(experiment, (0, 1, 2)), batches_of(experiment, (1, 2))
    for (image, mask), (again, mask_again) in zip(whole[3:], resumed, strict=True):
        assert np.array_equal(image, again) and np.array_equal(mask, mask_again)


def test_validation_batches_are_in_order_and_unchanged():
    experiment = load_experiment("smoke", overrides={"augmentation": "all"})
    images = np.random.default_rng(0).integers(0, 255, (20, 32, 32, 3), np.uint8)
    masks = (images[..., 0] > 200).astype(np.uint8)
    pairs = [
        (image.numpy(), mask.numpy())
        for image, mask in train.validation_batches(images, masks, experiment)
    ]
    seen, truth = (np.concatenate(part) for part in zip(*pairs, strict=True))
    assert np.array_equal(seen, preprocess.minmax(images).numpy()) and np.array_equal(
        truth[..., 0], masks
    )


def fit(cohort_folder, folder, **overrides):
    """Train a smoke network on a cohort's own split: (network, history)."""
    cohort, experiment = (
        data.read_cohort(cohort_folder),
        load_experiment("smoke", overrides=overrides),
    )
    split = preprocess.draw_split(cohort.slices, "patient", 0)
    return train.fit(experiment, preprocess.prepare(cohort, experiment), split, folder)


def test_a_training_keeps_checkpoint_history_and_the_networks_asked_for(cohort_folder, tmp_path):
    network, history = fit(cohort_folder, tmp_path, epochs=3, kept_epochs=[2])
    assert history["epoch"].tolist() == [1, 2, 3]
    assert {
        "loss",
        "accuracy",
        "dice_coef",
        "jacard_coef",
        "val_loss",
        "val_dice_coef",
        "seconds",
    } <= set(history)
    left = ["checkpoint.keras", "epoch_2.keras", "history.csv"]
    assert sorted(path.name for path in tmp_path.iterdir()) == left
    assert int(train.load_network(tmp_path / "epoch_2.keras").optimizer.iterations) * 3 == 2 * int(
        network.optimizer.iterations
    )


def test_the_best_weights_are_those_of_the_lowest_loss(cohort_folder, tmp_path):
    best, history = fit(
        cohort_folder, tmp_path, epochs=4, learning_rate=0.1, weights="best", precision="float32"
    )
    cohort, experiment = data.read_cohort(cohort_folder), load_experiment("smoke")
    dataset, split = (
        preprocess.prepare(cohort, experiment),
        preprocess.draw_split(cohort.slices, "patient", 0),
    )
    rows = preprocess.rows_by_set(split)["val"]
    batches = train.validation_batches(dataset.images[rows], dataset.masks[rows], experiment)
    assert best.evaluate(batches, verbose=0)[0] == pytest.approx(
        history["val_loss"].min(), rel=1e-4
    )


def test_no_tuner_holds_up_the_end_of_an_epoch(cohort_folder):
    """TensorFlow's tuner of pipelines can make an epoch end after 0.31, 0.63, 1.27, ... 41, 82 seconds only."""
    cohort, experiment = data.read_cohort(cohort_folder), load_experiment("smoke")
    dataset = preprocess.prepare(cohort, experiment)
    pipelines = (
        train.training_batches(dataset.images, dataset.masks, experiment, 0),
        train.validation_batches(dataset.images, dataset.masks, experiment),
    )
    assert [pipeline.options().autotune.enabled for pipeline in pipelines] == [False, False]


def test_early_stopping_looks_at_the_history(tmp_path):
    experiment = load_experiment("smoke", overrides={"early_stopping": 2, "epochs": 50})
    history = [{"val_loss": value} for value in (0.5, 0.4, 0.41, 0.42)]
    assert train._finished(history, experiment) and not train._finished(history[:3], experiment)
    assert not train._finished(history, experiment.model_copy(update={"early_stopping": 0}))


def test_early_stopping_ends_a_training(cohort_folder, tmp_path):
    assert len(fit(cohort_folder, tmp_path, epochs=12, early_stopping=1, learning_rate=1.0)[1]) < 12


# Shells make what they start in the background deaf to Ctrl-C; the script hears it again.
SCRIPT = """
import os, signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)
from lggseg_utils import data, experiments, runs, train
blow, save = int(sys.argv[3]), train.save_network

def save_or_stop(network, path):
    if blow and len(runs.read_csv(Path(path).with_name("history.csv"))) == 3:
        with runs.write_whole(path) as temporary:
            temporary.write_text("half a checkpoint")
            os.kill(os.getpid(), blow)
    save(network, path)

train.save_network = save_or_stop
run = runs.open_run("smoke", sys.argv[1], sys.argv[2], 0, {"epochs": 8})
experiments.train_and_score(run, data.load_cohort(run))
"""


def run_training(data, folder, blow=0):
    """Train for eight epochs in a process of its own, which a signal may stop after three; return its exit status."""
    command = [sys.executable, "-c", SCRIPT, str(data), str(folder), str(int(blow))]
    return subprocess.run(command, stderr=subprocess.DEVNULL, check=False, timeout=600).returncode


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_a_stopped_training_goes_on_and_ends_as_if_undisturbed(tmp_path, cohort_folder, blow):
    assert run_training(cohort_folder, tmp_path / "stopped", blow) != 0
    assert not (tmp_path / "stopped" / "model.keras").exists()
    assert len(runs.read_csv(tmp_path / "stopped" / "history.csv")) == 3
    assert (
        run_training(cohort_folder, tmp_path / "stopped")
        == run_training(cohort_folder, tmp_path / "whole")
        == 0
    )
    tables = [runs.read_csv(tmp_path / name / "history.csv") for name in ("stopped", "whole")]
    stopped, whole = (table.drop(columns="seconds") for table in tables)
    assert stopped["epoch"].tolist() == list(range(1, 9))
    # Written with nine digits; any difference in order, augmentation or dropout would be far larger.
    np.testing.assert_allclose(stopped.to_numpy(), whole.to_numpy(), rtol=1e-6)
    scores = [(tmp_path / name / "metrics.json").read_text() for name in ("stopped", "whole")]
    assert scores[0] == scores[1]


@pytest.mark.parametrize("profile", ["report64", "patient64", "paper"])
def test_a_network_that_has_sunk_to_all_background_still_gets_a_gradient(profile):
    experiment = load_experiment(profile, overrides={"size": 32, "depth": 3, "filters": 4})
    train.set_up(experiment)
    network = train.compile_unet(experiment, 10)
    kernel, bias = network.get_layer("probability").get_weights()
    network.get_layer("probability").set_weights([0 * kernel, 0 * bias - 100])
    network.train_on_batch(np.ones((2, 32, 32, 3)), np.ones((2, 32, 32, 1)))
    step = network.get_layer("probability").get_weights()[1][0] + 100
    assert step == pytest.approx(experiment.learning_rate, rel=0.01)


def test_a_network_that_would_execute_code_is_refused(tmp_path):
    import keras

    planted = tmp_path / "executed"
    inputs = keras.Input((2,))
    model = keras.Model(
        inputs, keras.layers.Lambda(lambda x, place=str(planted): Path(place).touch() or x)(inputs)
    )
    model.save(tmp_path / "model.keras")
    planted.unlink()
    with pytest.raises(
        UserError, match="contains no usable network .*[Ll]ambda.*delete it to have it made again"
    ):
        train.load_network(tmp_path / "model.keras")
    assert not planted.exists()


@pytest.mark.parametrize("content", [b"", b"not a network", b"PK\x05\x06" + bytes(18)])
def test_a_damaged_network_gets_one_line(tmp_path, content):
    (tmp_path / "model.keras").write_bytes(content)
    with pytest.raises(UserError, match="model.keras contains no usable network"):
        train.load_network(tmp_path / "model.keras")


def test_a_training_that_diverges_is_stopped_and_keeps_what_it_had(tmp_path):
    keeper = train.Keeper(tmp_path, [{"epoch": 1, "val_loss": 0.5}], load_experiment("smoke"))
    keeper.set_params({"epochs": 3})
    keeper.started = 0.0
    for name in ("checkpoint.keras", "history.csv"):
        (tmp_path / name).write_text("of epoch 1")
    with pytest.raises(
        UserError,
        match=r"the validation loss is not a number after epoch 2; train with a smaller learning_rate",
    ):
        keeper.on_epoch_end(1, {"val_loss": float("nan"), "val_dice_coef": 0.0})
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "checkpoint.keras": "of epoch 1",
        "history.csv": "of epoch 1",
    }


@pytest.mark.parametrize("several", [{}, {"networks": 2, "mirrored": True}])
def test_weights_in_half_precision_predict_nearly_the_same(
    cohort_folder, tmp_path, monkeypatch, several
):
    run = runs.open_run("smoke", run_dir=tmp_path / "run", overrides=several, command="crossval")
    trained = [
        fit(cohort_folder, tmp_path / str(epochs), epochs=epochs)[0]
        for epochs in range(1, run.experiment.networks + 1)
    ]
    network = model.average(trained, run.experiment.mirrored)
    monkeypatch.syspath_prepend(str(runs.REPOSITORY / "scripts"))
    reference = __import__("reference")
    reference.save_weights(network, run.path("weights.npz"))
    stored, experiment = train.load_trained(run.folder)
    images = np.random.default_rng(0).random((4, 32, 32, 3), np.float32)
    assert experiment == run.experiment
    assert np.allclose(stored.predict_on_batch(images), network.predict_on_batch(images), atol=0.02)
    run.path("weights.npz").unlink()
    with pytest.raises(
        UserError, match="contains no trained network .model.keras.; name a finished run"
    ):
        train.load_trained(run.folder)
