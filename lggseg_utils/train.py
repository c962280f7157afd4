"""Training that can be killed and resumed without changing its result (report, section 1-5)."""

import math
import time
import zipfile
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from tqdm import tqdm

from lggseg_utils import losses, metrics, preprocess
from lggseg_utils.augment import augment
from lggseg_utils.model import CPU_KERNELS, Dropout, average, build_unet
from lggseg_utils.runs import read_csv, recorded_experiment, write_csv, write_whole
from lggseg_utils.settings import UserError

# Steps that TensorFlow runs between two returns to Python; what that saves is measured in benchmarks/. JAX would compile them all.
STEPS_PER_EXECUTION = 8 if keras.config.backend() == "tensorflow" else 1

# TensorFlow's tuner has nothing to tune here, but its thread sleeps for up to a minute, and an epoch often ends only when it wakes.
UNTUNED = tf.data.Options()
UNTUNED.autotune.enabled = False

# A notebook loads and runs several models; TensorFlow would remark on that in the middle of the page.
tf.get_logger().setLevel("ERROR")


def machine_precision():
    """Return the Keras dtype policy this machine trains fastest in: bfloat16 or float16 where the hardware has it."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        capability = tf.config.experimental.get_device_details(gpus[0]).get(
            "compute_capability", (0, 0)
        )
        return (
            "mixed_bfloat16"
            if capability >= (8, 0)
            else "mixed_float16"
            if capability >= (7, 0)
            else "float32"
        )
    if keras.distribution.list_devices()[0].startswith("gpu"):
        return "mixed_bfloat16"  # of JAX, since TensorFlow sees none
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return "mixed_bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"


def set_up(experiment):
    """Seed every generator and set the precision."""
    keras.utils.set_random_seed(experiment.seed)
    keras.config.set_dtype_policy(
        machine_precision() if experiment.precision == "auto" else experiment.precision
    )


def compile_unet(experiment, steps):
    """Build and compile the U-Net of an experiment; `steps` are the training steps of the whole training."""
    rate = experiment.learning_rate
    if experiment.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, steps)
    network = build_unet(experiment)
    network.compile(
        optimizer=keras.optimizers.Adam(rate),
        loss=losses.LOSSES[experiment.loss],
        metrics=["accuracy", losses.dice_coef, losses.jacard_coef],
        # XLA halves the speed of these convolutions on a CPU.
        jit_compile=False if CPU_KERNELS else "auto",
        steps_per_execution=STEPS_PER_EXECUTION,
    )
    return network


def training_batches(images, masks, experiment, epoch):
    """Return a tf.data pipeline of scaled and augmented (images, masks) batches over one epoch, float32.

    images: uint8 (n, side, side, 3); masks: uint8 (n, side, side) of 0 and 1; epoch: int, or a `tf.Variable` that is read
    each time the pipeline starts. Order and augmentation depend on seed, epoch and step alone, so a resumed training
    sees the batches that it would have seen.
    """
    count, seed = len(images), experiment.seed
    steps = math.ceil(count / experiment.batch_size)
    images, masks = tf.constant(images), tf.constant(masks[..., None])

    def batches_of(epoch):
        shuffle_seed = tf.stack([seed, tf.cast(epoch, tf.int32)])
        order = tf.random.experimental.stateless_shuffle(tf.range(count), seed=shuffle_seed)
        batches = tf.data.Dataset.from_tensor_slices(order).batch(experiment.batch_size).enumerate()
        return batches.map(lambda step, rows: (epoch * steps + step, rows))

    def load(step, rows):
        scaled = preprocess.minmax(tf.gather(images, rows), experiment.scaling)
        truth = tf.cast(tf.gather(masks, rows), tf.float32)
        return augment(
            scaled, truth, experiment.augmentation, tf.stack([seed, tf.cast(step, tf.int32)])
        )

    started = tf.data.Dataset.range(1).map(lambda _: tf.convert_to_tensor(epoch, tf.int64))
    loaded = started.flat_map(batches_of).map(load, num_parallel_calls=2, deterministic=True)
    # Without a known length, Keras warns at the end of the pipeline.
    return (
        loaded.apply(tf.data.experimental.assert_cardinality(steps))
        .prefetch(4)
        .with_options(UNTUNED)
    )


def validation_batches(images, masks, experiment):
    """Return a tf.data pipeline of scaled (images, masks) batches in the order given, without augmentation."""
    batches = tf.data.Dataset.from_tensor_slices((images, masks[..., None])).batch(
        metrics.SCORED_BATCH
    )
    scaled = batches.map(
        lambda image, mask: (
            preprocess.minmax(image, experiment.scaling),
            tf.cast(mask, tf.float32),
        )
    )
    return scaled.prefetch(2).with_options(UNTUNED)


class Keeper(keras.callbacks.Callback):
    """Writes history, best network, kept epochs and checkpoint after each epoch, atomically; stops early if the settings say so.

    Keras' own callbacks write in place, and after a kill they no longer know the best epoch; this one reads it from the history. The
    checkpoint is written last: an epoch that it does not contain is trained again.
    """

    def __init__(self, folder, history, experiment):
        super().__init__()
        self.folder, self.history, self.experiment = Path(folder), list(history), experiment
        self.epoch = tf.Variable(0, dtype=tf.int64, trainable=False)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch.assign(epoch)
        # A saved network does not hold the state of dropout's generators, so it depends on seed and epoch alone.
        for number, layer in enumerate(
            layer for layer in self.model.layers if isinstance(layer, Dropout)
        ):
            state = (
                np.random.SeedSequence((self.experiment.seed, epoch, number)).generate_state(2) >> 1
            )
            layer.seed_generator.state.assign(state)
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        if not np.isfinite(logs["val_loss"]):
            hint = "train with a smaller learning_rate, or with precision float32"
            raise UserError(f"the validation loss is not a number after epoch {epoch + 1}; {hint}.")
        self.history.append(
            {"epoch": epoch + 1, **logs, "seconds": time.perf_counter() - self.started}
        )
        lowest = min((row["val_loss"] for row in self.history[:-1]), default=np.inf)
        if self.experiment.weights == "best" and logs["val_loss"] < lowest:
            save_network(self.model, self.folder / "best.keras")
        if epoch + 1 in self.experiment.kept_epochs:
            save_network(self.model, self.folder / f"epoch_{epoch + 1}.keras")
        write_csv(self.folder / "history.csv", pd.DataFrame(self.history))
        save_network(self.model, self.folder / "checkpoint.keras")
        self.bar.set_postfix(
            val_loss=f"{logs['val_loss']:.4f}", val_dice_coef=f"{logs['val_dice_coef']:.3f}"
        )
        self.bar.update()
        self.model.stop_training = _finished(self.history, self.experiment)


def _finished(history, experiment):
    """Return whether the training is over: all epochs done, or stopped early."""
    losses = [row["val_loss"] for row in history]
    stale = len(losses) - 1 - int(np.argmin(losses)) if losses else 0
    return len(history) >= experiment.epochs or 0 < experiment.early_stopping <= stale


def fit(experiment, dataset, split, folder):
    """Train the U-Net of an experiment on a split's training slices.

    Returns (network, history table), the network with the weights that
    `weights` names. `folder` receives history.csv, the kept networks, and
    checkpoint.keras, from which an interrupted training resumes.
    """
    set_up(experiment)
    rows = preprocess.rows_by_set(split)
    if not experiment.hold_out:
        rows["train"] = np.union1d(rows["train"], rows["val"])
    sets = [(dataset.images[rows[s]], dataset.masks[rows[s]]) for s in ("train", "val")]
    steps = math.ceil(len(rows["train"]) / experiment.batch_size)
    network, history = _resume(experiment, Path(folder), steps)
    keeper = Keeper(folder, history, experiment)
    if not _finished(history, experiment):
        done = {"total": experiment.epochs, "initial": len(history)}
        with tqdm(**done, unit="epoch", leave=False) as keeper.bar:
            network.fit(
                training_batches(*sets[0], experiment, keeper.epoch),
                validation_data=validation_batches(*sets[1], experiment),
                epochs=experiment.epochs,
                initial_epoch=len(history),
                shuffle=False,
                verbose=0,
                callbacks=[keeper],
            )
    if experiment.weights == "best":
        network = load_network(Path(folder, "best.keras"))
    return network, pd.DataFrame(keeper.history)


def _resume(experiment, folder, steps):
    """Return network and history of the checkpoint, or an untrained network and an empty history."""
    checkpoint = folder / "checkpoint.keras"
    if not checkpoint.exists():
        return compile_unet(experiment, steps * experiment.epochs), []
    network = load_network(checkpoint)
    # Rounded up: in float16, Adam does not count a step whose gradient overflowed.
    epochs = math.ceil(int(network.optimizer.iterations) / steps)
    return network, read_csv(folder / "history.csv").head(epochs).to_dict("records")


def save_network(network, path):
    """Save a Keras network, atomically."""
    with write_whole(path) as temporary:
        network.save(temporary)


def load_network(path):
    """Load a Keras network; nothing in the file is executed (Keras' safe mode). Raises `UserError` for a damaged one."""
    try:
        return keras.models.load_model(path)
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        OSError,
        EOFError,
        zipfile.BadZipFile,
    ) as problem:
        reason = " ".join(str(problem).split())[:200]
        raise UserError(
            f"{path} contains no usable network ({reason}); delete it to have it made again."
        ) from None


def load_trained(folder):
    """Return (network, experiment) of a finished run folder or of the reference network; `UserError` for any other folder."""
    folder, experiment = Path(folder), recorded_experiment(folder)
    if (folder / "model.keras").exists():
        return load_network(folder / "model.keras"), experiment
    if not (folder / "weights.npz").exists():
        raise UserError(f"{folder} contains no trained network (model.keras); name a finished run.")
    keras.config.set_dtype_policy("float32")
    network = average(
        [build_unet(experiment) for _ in range(experiment.networks)], experiment.mirrored
    )
    with np.load(folder / "weights.npz") as stored:
        network.set_weights([stored[name] for name in stored.files])
    return network, experiment
