"""Training: it obeys its settings, keeps what it should, and survives being killed."""

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from lggseg_utils import data, losses, model, preprocess, runs, train
from lggseg_utils.settings import UserError, load_experiment


def smoke(seed=0, **overrides):
    """The smoke profile's experiment with changed settings."""
    return load_experiment("smoke", seed, {"batch_size": 8, **overrides})


def batches_of(experiment, epochs, images):
    """Images and masks of the training batches of some epochs, from one pipeline, as arrays."""
    epoch = tf.Variable(0, dtype=tf.int64)
    masks = (images[..., 0] > 128).astype(np.uint8)
    pipeline = train.training_batches(images, masks, experiment, epoch)
    batches = []
    for number in epochs:
        epoch.assign(number)
        batches += [(image.numpy(), mask.numpy()) for image, mask in pipeline]
    return batches


def images_of(experiment, epochs, images):
    """Images of some epochs as one array."""
    return np.concatenate([image for image, _ in batches_of(experiment, epochs, images)])


@pytest.fixture(scope="module")
def slices():
    """Twenty slices of noise, uint8 (20, 32, 32, 3)."""
    return np.random.default_rng(0).integers(0, 255, (20, 32, 32, 3), np.uint8)


@pytest.mark.parametrize("scaling", ["slice", "dataset"])
def test_every_epoch_shows_every_scaled_slice_once_with_its_mask(slices, scaling):
    experiment = smoke(augmentation="none", scaling=scaling)
    batches = batches_of(experiment, (0,), slices)
    assert [len(image) for image, _ in batches] == [8, 8, 4]
    shown = np.concatenate([image for image, _ in batches])
    masks = np.concatenate([mask for _, mask in batches])
    assert masks.dtype == np.float32
    scaled = preprocess.minmax(slices, scaling)
    for number, image in enumerate(scaled):
        place = np.flatnonzero((shown == image).all((1, 2, 3)))
        assert len(place) == 1
        assert np.array_equal(masks[place[0], ..., 0], slices[number, ..., 0] > 128)


def test_the_order_depends_on_seed_and_epoch(slices):
    first, again, later = np.split(images_of(smoke(augmentation="none"), (0, 0, 1), slices), 3)
    other = images_of(smoke(1, augmentation="none"), (0,), slices)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, later)
    assert not np.array_equal(first, other)


def test_the_augmentation_depends_on_seed_epoch_and_step(slices):
    """All slices are the same one, so that their order shows nothing."""
    same = np.repeat(slices[:1], 16, axis=0)
    shown = images_of(smoke(augmentation="brightness"), (0, 0, 1), same)
    first, again, later = np.split(shown, 3)
    other = images_of(smoke(1, augmentation="brightness"), (0,), same)
    assert np.array_equal(first, again)
    for different in (preprocess.minmax(same), later, other):
        assert not np.array_equal(first, different)
    assert not np.array_equal(first[:8], first[8:])


def test_batches_from_a_later_epoch_are_those_of_an_uninterrupted_training(slices):
    experiment = smoke(augmentation="noise")
    whole = batches_of(experiment, (0, 1, 2), slices)
    resumed = batches_of(experiment, (1, 2), slices)
    for (image, mask), (again, mask_again) in zip(whole[3:], resumed, strict=True):
        assert np.array_equal(image, again)
        assert np.array_equal(mask, mask_again)


@pytest.mark.parametrize("scaling", ["slice", "dataset"])
def test_validation_batches_are_in_order_and_not_augmented(slices, scaling):
    experiment = smoke(augmentation="all", scaling=scaling)
    masks = (slices[..., 0] > 200).astype(np.uint8)
    batches = list(train.validation_batches(slices, masks, experiment))
    assert [len(image) for image, _ in batches] == [16, 4]
    seen = np.concatenate([image for image, _ in batches])
    truth = np.concatenate([mask for _, mask in batches])
    assert np.array_equal(seen, preprocess.minmax(slices, scaling))
    assert np.array_equal(truth[..., 0], masks)
    assert truth.dtype == np.float32


def test_no_tuner_holds_up_the_end_of_an_epoch(slices):
    """TensorFlow's tuner of pipelines can make an epoch end after 0.31, 0.63, ... 82 seconds."""
    masks = slices[..., 0]
    for pipeline in (
        train.training_batches(slices, masks, smoke(), 0),
        train.validation_batches(slices, masks, smoke()),
    ):
        assert pipeline.options().autotune.enabled is False


def tiny(experiment):
    """A network that trains in no time: one convolution, after random layers at some depth."""
    inputs = keras.Input((experiment.size, experiment.size, 3))
    noisy = keras.Sequential(
        [
            keras.layers.Dropout(0.5, seed=1),
            keras.Sequential([keras.layers.GaussianNoise(0.5, seed=2)]),
        ]
    )
    outputs = keras.layers.Conv2D(1, 1, activation="sigmoid")(noisy(inputs))
    return keras.Model(inputs, outputs)


TINY_PARAMETERS = 4  # of a 1x1 convolution of three channels


@pytest.mark.parametrize("name", losses.LOSSES)
def test_the_loss_is_the_one_named(name):
    assert train.compile_unet(smoke(loss=name), 10).loss is losses.LOSSES[name]


def test_the_learning_rate_is_constant_or_falls_along_a_cosine():
    constant = train.compile_unet(smoke(learning_rate=0.02), 10)
    assert float(constant.optimizer.learning_rate) == pytest.approx(0.02)
    network = train.compile_unet(smoke(learning_rate=0.02, schedule="cosine"), 10)
    rates = []
    for step in (0, 5, 10):
        network.optimizer.iterations.assign(step)
        rates.append(float(network.optimizer.learning_rate))
    assert rates == pytest.approx([0.02, 0.01, 0])


def test_xla_is_off_on_a_cpu_and_the_network_is_the_experiments():
    network = train.compile_unet(smoke(filters=2, depth=2), 10)
    assert network.jit_compile is (not model.uses_cpu_kernels())
    assert network.count_params() == model.build_unet(smoke(filters=2, depth=2)).count_params()


@pytest.fixture(scope="module")
def cohort(cohort_folder):
    """A small data set and its split: (dataset, split)."""
    read = data.read_cohort(cohort_folder)
    return preprocess.prepare(read, smoke()), preprocess.draw_split(read.slices, "patient", 0)


def fit(cohort, folder, build=tiny, **overrides):
    """Train a tiny network on a cohort: (network, history)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "build_unet", build)
        return train.fit(smoke(**overrides), *cohort, folder)


def test_a_training_keeps_checkpoint_history_and_the_networks_asked_for(cohort, tmp_path):
    settings = {"epochs": 2, "kept_epochs": [1], "schedule": "cosine", "learning_rate": 0.01}
    network, history = fit(cohort, tmp_path, **settings)
    assert network.count_params() == TINY_PARAMETERS
    assert history["epoch"].tolist() == [1, 2]
    names = {"loss", "accuracy", "dice_coef", "jacard_coef"}
    assert set(history) == {"epoch", "seconds", *names, *(f"val_{name}" for name in names)}
    left = ["checkpoint.keras", "epoch_1.keras", "history.csv"]
    assert sorted(path.name for path in tmp_path.iterdir()) == left
    first = train.load_network(tmp_path / "epoch_1.keras").optimizer
    # 20 training slices in batches of 8.
    assert [int(each.iterations) for each in (first, network.optimizer)] == [3, 6]
    rates = [float(each.learning_rate) for each in (first, network.optimizer)]
    assert rates == pytest.approx([0.005, 0], abs=1e-6)


@pytest.mark.parametrize("hold_out", [True, False])
def test_it_trains_and_validates_on_its_own_slices(cohort, tmp_path, monkeypatch, hold_out):
    seen = {}
    for name in ("training_batches", "validation_batches"):
        monkeypatch.setattr(
            train, name, lambda images, masks, *_, name=name: seen.update({name: (images, masks)})
        )
    fit(cohort, tmp_path, build=Mock(), epochs=1, hold_out=hold_out)
    dataset, split = cohort
    names = split["split"].to_numpy()
    trained = names == "train" if hold_out else names != "test"
    for name, rows in (("training_batches", trained), ("validation_batches", names == "val")):
        assert np.array_equal(seen[name][0], dataset.images[rows])
        assert np.array_equal(seen[name][1], dataset.masks[rows])


@pytest.mark.parametrize("weights", ["last", "best"])
def test_the_returned_network_is_the_last_or_the_best(cohort, tmp_path, monkeypatch, weights):
    best = tiny(smoke())
    trained = []

    def train_two_epochs(network, experiment, dataset, rows, folder, history):
        trained.append(network)
        train.save_network(best, Path(folder, "best.keras"))
        return [{"epoch": 1, "val_loss": 0.4}, {"epoch": 2, "val_loss": 0.5}]

    monkeypatch.setattr(train, "_train", train_two_epochs)
    network, history = fit(cohort, tmp_path, weights=weights)
    wanted = best if weights == "best" else trained[0]
    assert np.array_equal(network.get_weights()[0], wanted.get_weights()[0])
    assert history["val_loss"].tolist() == [0.4, 0.5]


AUGMENTED = {"augmentation": "brightness", "precision": "float32"}


@pytest.fixture(scope="module")
def stopped(cohort, tmp_path_factory):
    """The folder of a training that was stopped after one epoch."""
    folder = tmp_path_factory.mktemp("stopped")
    fit(cohort, folder, epochs=1, **AUGMENTED)
    return folder


def test_a_training_resumed_from_its_checkpoint_ends_as_if_undisturbed(cohort, stopped, tmp_path):
    """With random layers of any kind at any depth, and an augmentation."""
    shutil.copytree(stopped, tmp_path / "resumed")
    resumed, history = fit(cohort, tmp_path / "resumed", epochs=2, **AUGMENTED)
    whole, undisturbed = fit(cohort, tmp_path / "whole", epochs=2, **AUGMENTED)
    assert history["epoch"].tolist() == [1, 2]
    columns = undisturbed.columns.drop("seconds")
    np.testing.assert_allclose(history[columns], undisturbed[columns], rtol=1e-6)
    for one, other in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_a_finished_training_is_not_trained_again(cohort, stopped, monkeypatch):
    monkeypatch.setattr(train, "_train", None)
    network, history = fit(cohort, stopped, epochs=1, **AUGMENTED)
    assert history["epoch"].tolist() == [1]
    assert int(network.optimizer.iterations) == 3


def test_an_epoch_that_the_checkpoint_lacks_is_trained_again(
    cohort, stopped, tmp_path, monkeypatch
):
    """The history is written before the checkpoint. In float16, a step may not be counted."""
    network = train.load_network(stopped / "checkpoint.keras")
    network.optimizer.iterations.assign(2)
    train.save_network(network, tmp_path / "checkpoint.keras")
    row = runs.read_csv(stopped / "history.csv")
    runs.write_csv(tmp_path / "history.csv", pd.concat([row, row.assign(epoch=2)]))
    monkeypatch.setattr(train, "_train", lambda *others: others[-1])
    _, history = fit(cohort, tmp_path, epochs=5, **AUGMENTED)
    assert history["epoch"].tolist() == [1]


def random_states(network):
    """State of each random generator of a network, by its layer's position."""
    weights = [id(weight) for weight in network.weights]
    return [
        tuple(np.asarray(variable)) for variable in network.variables if id(variable) not in weights
    ]


@pytest.mark.parametrize("build", [model.build_unet, tiny])
def test_random_layers_draw_anew_in_each_epoch(build):
    network = build(smoke(dropout=0.2))
    states = []
    for seed, epoch in ((0, 0), (0, 1), (1, 0), (0, 0)):
        train._seed_random_layers(network, seed, epoch)
        states.append(random_states(network))
    assert states[0] == states[3]
    count = len(states[0])
    assert count == (10 if build is model.build_unet else 2)
    assert len({state for each in states[:3] for state in each}) == 3 * count


def test_early_stopping_looks_at_the_history():
    experiment = smoke(early_stopping=2, epochs=50)
    history = [{"val_loss": value} for value in (0.5, 0.4, 0.41, 0.42)]
    assert train._finished(history, experiment)
    assert not train._finished(history[:3], experiment)
    assert not train._finished([*history[:3], {"val_loss": 0.39}, history[2]], experiment)
    assert not train._finished(history, experiment.model_copy(update={"early_stopping": 0}))
    assert not train._finished([], experiment)
    assert train._finished(history, experiment.model_copy(update={"epochs": 4}))


def checkpointer_of(folder, experiment, history=()):
    """A callback with a network and a bar of nothing."""
    callback = train.Checkpointer(folder, history, experiment, Mock())
    callback.set_model(SimpleNamespace(stop_training=False))
    return callback


def test_what_is_kept_after_each_epoch_and_in_which_order(tmp_path, monkeypatch):
    """The checkpoint comes last: an epoch that it does not contain is trained again."""
    saved = []

    def save(network, path):
        path = Path(path)
        table = path.with_name("history.csv")
        saved.append((path.stem, len(runs.read_csv(table)) if table.exists() else 0))

    monkeypatch.setattr(train, "save_network", save)
    experiment = smoke(weights="best", kept_epochs=[3], epochs=9, early_stopping=2)
    callback = checkpointer_of(tmp_path, experiment)
    stopped = []
    for epoch, loss in enumerate((0.5, 0.6, 0.4, 0.4, 0.45)):
        callback.on_epoch_end(epoch, {"val_loss": loss, "val_dice_coef": 0.0})
        stopped.append(callback.model.stop_training)
    assert saved == [
        ("best", 0),
        ("checkpoint", 1),
        ("checkpoint", 2),
        ("best", 2),
        ("epoch_3", 2),
        ("checkpoint", 3),
        ("checkpoint", 4),
        ("checkpoint", 5),
    ]
    assert stopped == [False, False, False, False, True]
    assert callback.bar.update.call_count == 5


def test_a_training_that_diverges_is_stopped_and_keeps_what_it_had(tmp_path):
    callback = checkpointer_of(tmp_path, smoke(), [{"epoch": 1, "val_loss": 0.5}])
    before = {"checkpoint.keras": "of epoch 1", "history.csv": "of epoch 1"}
    for name, text in before.items():
        (tmp_path / name).write_text(text)
    message = (
        "the validation loss is not a number after epoch 2; train with a smaller learning_rate"
    )
    for loss in (float("nan"), float("inf")):
        with pytest.raises(UserError, match=message):
            callback.on_epoch_end(1, {"val_loss": loss, "val_dice_coef": 0.0})
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("profile", ["report64", "patient64"])
def test_a_network_that_has_sunk_to_all_background_still_gets_a_gradient(profile):
    experiment = load_experiment(profile, overrides={"size": 32, "depth": 2, "filters": 2})
    train.set_up(experiment)
    network = train.compile_unet(experiment, 10)
    network.run_eagerly = True  # one step is done before a graph of it is traced
    kernel, bias = network.get_layer("probability").get_weights()
    network.get_layer("probability").set_weights([0 * kernel, 0 * bias - 100])
    network.train_on_batch(np.ones((2, 32, 32, 3)), np.ones((2, 32, 32, 1)))
    step = network.get_layer("probability").get_weights()[1][0] + 100
    assert step == pytest.approx(experiment.learning_rate, rel=0.01)


@pytest.fixture
def dtype_policy():
    """Put Keras' dtype policy back afterwards."""
    before = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(before)


def test_set_up_seeds_and_sets_the_precision(dtype_policy, monkeypatch):
    monkeypatch.setattr(train, "machine_precision", lambda: "mixed_float16")
    drawn = []
    for seed in (0, 0, 1):
        train.set_up(smoke(seed, precision="mixed_bfloat16"))
        drawn.append((np.random.rand(), float(keras.random.uniform(()))))
    assert drawn[0] == drawn[1]
    assert drawn[0][0] != drawn[2][0]
    assert drawn[0][1] != drawn[2][1]
    assert keras.config.dtype_policy().name == "mixed_bfloat16"
    train.set_up(smoke(precision="auto"))
    assert keras.config.dtype_policy().name == "mixed_float16"


def test_a_gpus_precision_follows_from_its_compute_capability():
    names = [train._gpu_precision(capability) for capability in ((6, 1), (7, 0), (7, 5), (8, 0))]
    assert names == ["float32", "mixed_float16", "mixed_float16", "mixed_bfloat16"]


@pytest.mark.parametrize("several", [{}, {"networks": 2, "mirrored": True}])
def test_weights_in_half_precision_predict_nearly_the_same(tmp_path, monkeypatch, several):
    run = runs.open_run("smoke", run_dir=tmp_path / "run", overrides=several, command="crossval")
    # Other weights than those that the settings alone would give.
    members = [model.build_unet(smoke(5 + seed)) for seed in range(run.experiment.networks)]
    network = model.average(members, run.experiment.mirrored)
    monkeypatch.syspath_prepend(str(runs.REPOSITORY / "scripts"))
    reference = __import__("reference")
    reference.save_weights(network, run.path("weights.npz"))
    stored, experiment = train.load_trained(run.folder)
    images = np.random.default_rng(0).random((4, 32, 32, 3), np.float32)
    assert experiment == run.experiment
    predicted = stored.predict_on_batch(images)
    assert np.allclose(predicted, network.predict_on_batch(images), atol=0.02)
    assert np.ptp(predicted) > 0.1


def test_a_run_folder_without_a_network_is_refused(open_smoke):
    message = "contains no trained network .model.keras.; name a finished run"
    with pytest.raises(UserError, match=message):
        train.load_trained(open_smoke().folder)


def test_a_trained_run_is_loaded_with_its_experiment(open_smoke):
    run = open_smoke(filters=2, depth=2)
    network = model.build_unet(run.experiment)
    train.save_network(network, run.path("model.keras"))
    assert [path.name for path in run.folder.glob("*.keras")] == ["model.keras"]
    loaded, experiment = train.load_trained(run.folder)
    assert experiment == run.experiment
    for one, other in zip(loaded.get_weights(), network.get_weights(), strict=True):
        assert np.array_equal(one, other)


def test_a_network_that_would_execute_code_is_refused(tmp_path):
    planted = tmp_path / "executed"
    inputs = keras.Input((2,))
    trap = keras.layers.Lambda(lambda x, place=str(planted): Path(place).touch() or x)
    keras.Model(inputs, trap(inputs)).save(tmp_path / "model.keras")
    planted.unlink()
    message = "contains no usable network .*[Ll]ambda.*delete it and run the command that trained it again"
    with pytest.raises(UserError, match=message):
        train.load_network(tmp_path / "model.keras")
    assert not planted.exists()


@pytest.mark.parametrize("content", [b"", b"not a network", b"PK\x05\x06" + bytes(18)])
def test_a_damaged_network_gets_one_line(tmp_path, content):
    (tmp_path / "model.keras").write_bytes(content)
    with pytest.raises(UserError, match="model.keras contains no usable network"):
        train.load_network(tmp_path / "model.keras")


SCRIPT = """
import os, signal, sys
from pathlib import Path
from lggseg_utils import data, experiments, runs, train
killed, save = sys.argv[3] == "killed", train.save_network

def save_or_die(network, path):
    if killed and len(runs.read_csv(Path(path).with_name("history.csv"))) == 2:
        with runs.write_whole(path) as temporary:
            temporary.write_text("half a checkpoint")
            os.kill(os.getpid(), signal.SIGKILL)
    save(network, path)

train.save_network = save_or_die
settings = {"epochs": 4, "depth": 2, "filters": 2}
run = runs.open_run("smoke", sys.argv[1], sys.argv[2], 0, settings)
experiments.train_and_score(run, data.load_cohort(run))
"""


def run_training(data, folder, end):
    """Train for four epochs in a process of its own; return its exit status.

    end: 'killed' while the second epoch is being kept, or 'whole'.
    """
    command = [sys.executable, "-c", SCRIPT, str(data), str(folder), end]
    return subprocess.run(command, stderr=subprocess.DEVNULL, check=False, timeout=600).returncode


def test_a_killed_training_goes_on_and_ends_as_if_undisturbed(tmp_path, cohort_folder):
    assert run_training(cohort_folder, tmp_path / "killed", "killed") != 0
    assert not (tmp_path / "killed" / "model.keras").exists()
    assert len(runs.read_csv(tmp_path / "killed" / "history.csv")) == 2
    assert run_training(cohort_folder, tmp_path / "killed", "whole") == 0
    assert run_training(cohort_folder, tmp_path / "whole", "whole") == 0
    tables = [runs.read_csv(tmp_path / name / "history.csv") for name in ("killed", "whole")]
    killed, whole = (table.drop(columns="seconds") for table in tables)
    assert killed["epoch"].tolist() == [1, 2, 3, 4]
    # Written with nine digits; a difference in order, augmentation or dropout would be far larger.
    np.testing.assert_allclose(killed.to_numpy(), whole.to_numpy(), rtol=1e-6)
    scores = [(tmp_path / name / "metrics.json").read_text() for name in ("killed", "whole")]
    assert scores[0] == scores[1]
