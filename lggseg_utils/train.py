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
from lggseg_utils.model import average, build_unet, uses_cpu_kernels
from lggseg_utils.runs import find_network, read_csv, write_csv, write_whole
from lggseg_utils.settings import UserError

# Steps that TensorFlow runs between two returns to Python; what that saves is measured in
# benchmarks/. JAX would compile them all.
STEPS_PER_EXECUTION = 8 if keras.config.backend() == "tensorflow" else 1

# TensorFlow's tuner has nothing to tune here, but its thread sleeps for up to a minute, and an
# epoch often ends only when it wakes.
UNTUNED = tf.data.Options()
UNTUNED.autotune.enabled = False


def machine_precision():
    """Return the name of the Keras dtype policy in which this machine trains fastest.

    'mixed_bfloat16' or 'mixed_float16' where the hardware has it, else 'float32'.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        return _gpu_precision(details.get("compute_capability", (0, 0)))
    if keras.distribution.list_devices()[0].startswith("gpu"):
        return "mixed_bfloat16"  # of JAX, since TensorFlow sees none
    cpu = Path("/proc/cpuinfo")
    flags = cpu.read_text() if cpu.exists() else ""
    if "avx512_bf16" in flags or "amx_bf16" in flags:
        return "mixed_bfloat16"
    return "float32"


def _gpu_precision(capability):
    """Return the dtype policy for an Nvidia GPU of this compute capability, (major, minor)."""
    if capability >= (8, 0):
        return "mixed_bfloat16"
    if capability >= (7, 0):
        return "mixed_float16"
    return "float32"


def set_up(experiment):
    """Seed every generator of Python, NumPy and Keras, and set the precision."""
    _silence_tensorflow()
    keras.utils.set_random_seed(experiment.seed)
    precision = experiment.precision
    if precision == "auto":
        precision = machine_precision()
    keras.config.set_dtype_policy(precision)


def _silence_tensorflow():
    """Keep TensorFlow from remarks on several networks in one notebook, amid the page."""
    tf.get_logger().setLevel("ERROR")


def compile_unet(experiment, steps):
    """Return an experiment's network, compiled and untrained.

    steps: training steps of the whole training.
    """
    rate = experiment.learning_rate
    if experiment.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, steps)
    network = build_unet(experiment)
    network.compile(
        optimizer=keras.optimizers.Adam(rate),
        loss=losses.LOSSES[experiment.loss],
        metrics=["accuracy", losses.dice_coef, losses.jacard_coef],
        # XLA halves the speed of these convolutions on a CPU.
        jit_compile=False if uses_cpu_kernels() else "auto",
        steps_per_execution=STEPS_PER_EXECUTION,
    )
    return network


def training_batches(images, masks, experiment, epoch):
    """Return a tf.data pipeline of scaled and augmented batches over one epoch.

    images: uint8 (n, side, side, 3); masks: uint8 (n, side, side) of 0 and 1; epoch: int, or a
    `tf.Variable` that is read each time the pipeline starts. A batch is (images, masks), float32
    (batch_size, side, side, 3) and (batch_size, side, side, 1); the last one may be smaller.
    Order and augmentation depend on seed, epoch and step alone, so a resumed training sees the
    batches that it would have seen.
    """
    count = len(images)
    steps = steps_per_epoch(experiment, count)
    images = tf.constant(images)
    masks = tf.constant(masks[..., None])

    def numbered_rows_of(epoch):
        seed = tf.stack([experiment.seed, tf.cast(epoch, tf.int32)])
        order = tf.random.experimental.stateless_shuffle(tf.range(count), seed=seed)
        batches = tf.data.Dataset.from_tensor_slices(order).batch(experiment.batch_size)
        return batches.enumerate(start=epoch * steps)

    def load(step, rows):
        seed = tf.stack([experiment.seed, tf.cast(step, tf.int32)])
        scaled = preprocess.minmax(tf.gather(images, rows), experiment.scaling)
        truth = tf.cast(tf.gather(masks, rows), tf.float32)
        return augment(scaled, truth, experiment.augmentation, seed)

    # The epoch is read when the pipeline starts, not when it is built.
    started = tf.data.Dataset.range(1).map(lambda _: tf.convert_to_tensor(epoch, tf.int64))
    rows = started.flat_map(numbered_rows_of)
    loaded = rows.map(load, num_parallel_calls=2, deterministic=True)
    # Without a known length, Keras warns at the end of the pipeline.
    counted = loaded.apply(tf.data.experimental.assert_cardinality(steps))
    return counted.prefetch(4).with_options(UNTUNED)


def validation_batches(images, masks, experiment):
    """Return a tf.data pipeline of scaled batches in the order given, without augmentation.

    images, masks and batches as for `training_batches`; a batch has 16 slices.
    """

    def load(image, mask):
        return preprocess.minmax(image, experiment.scaling), tf.cast(mask, tf.float32)

    slices = tf.data.Dataset.from_tensor_slices((images, masks[..., None]))
    return slices.batch(metrics.SCORED_BATCH).map(load).prefetch(2).with_options(UNTUNED)


class Checkpointer(keras.callbacks.Callback):
    """Writes history, best network, kept epochs and checkpoint after each epoch, atomically.

    It also stops early if the settings say so. Keras' own callbacks write in place, and after a
    kill they no longer know the best epoch; this one reads it from the history. The checkpoint is
    written last: an epoch that it does not contain is trained again.

    history: a list of one dictionary per finished epoch; epoch: the number of the current one,
    from 0, for `training_batches`; bar: a tqdm bar over epochs.
    """

    def __init__(self, folder, history, experiment, bar):
        super().__init__()
        self.folder = Path(folder)
        self.history = list(history)
        self.experiment = experiment
        self.bar = bar
        self.epoch = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.started = time.perf_counter()

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch.assign(epoch)
        _seed_random_layers(self.model, self.experiment.seed, epoch)
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self._refuse_divergence(epoch, logs["val_loss"])
        seconds = time.perf_counter() - self.started
        lowest = min((row["val_loss"] for row in self.history), default=np.inf)
        self.history.append({"epoch": epoch + 1, **logs, "seconds": seconds})
        if self.experiment.weights == "best" and logs["val_loss"] < lowest:
            save_network(self.model, self.folder / "best.keras")
        if epoch + 1 in self.experiment.kept_epochs:
            save_network(self.model, self.folder / f"epoch_{epoch + 1}.keras")
        write_csv(self.folder / "history.csv", pd.DataFrame(self.history))
        save_network(self.model, self.folder / "checkpoint.keras")
        self._show_progress(logs)
        self.model.stop_training = _finished(self.history, self.experiment)

    def _refuse_divergence(self, epoch, loss):
        """Raise `UserError` where the validation loss is not a finite number."""
        if not np.isfinite(loss):
            hint = "train with a smaller learning_rate, or with precision float32"
            raise UserError(f"the validation loss is not a number after epoch {epoch + 1}; {hint}.")

    def _show_progress(self, logs):
        """Move the bar on by one epoch."""
        self.bar.set_postfix(
            val_loss=f"{logs['val_loss']:.4f}", val_dice_coef=f"{logs['val_dice_coef']:.3f}"
        )
        self.bar.update()


def _seed_random_layers(network, seed, epoch):
    """Set every random generator of a network, whatever its layer and depth, from seed and epoch.

    A saved network does not hold the state of its generators, so for an exact resumption it must
    follow from what is known.
    """
    weights = {id(variable) for variable in network.weights}
    # Keras: variables are the weights and the state of the generators.
    states = [variable for variable in network.variables if id(variable) not in weights]
    for number, state in enumerate(states):
        drawn = np.random.SeedSequence((seed, epoch, number)).generate_state(2)
        state.assign(drawn >> 1)  # 31 bits fit into signed integers too


def _finished(history, experiment):
    """Return whether a training is over: all epochs done, or stopped early."""
    if len(history) >= experiment.epochs:
        return True
    if not history or not experiment.early_stopping:
        return False
    values = [row["val_loss"] for row in history]
    epochs_since_lowest = len(values) - 1 - int(np.argmin(values))
    return epochs_since_lowest >= experiment.early_stopping


def fit(experiment, dataset, split, folder):
    """Train the network of an experiment on a split's training slices.

    Returns (network, history table), the network with the weights that
    `weights` names. `folder` receives history.csv, the kept networks, and
    checkpoint.keras, from which an interrupted training resumes.
    """
    set_up(experiment)
    rows = preprocess.rows_by_set(split)
    if not experiment.hold_out:
        rows["train"] = np.union1d(rows["train"], rows["val"])
    steps = steps_per_epoch(experiment, len(rows["train"]))
    network, history = _resume(experiment, Path(folder), steps)
    if not _finished(history, experiment):
        history = _train(network, experiment, dataset, rows, folder, history)
    if experiment.weights == "best":
        network = load_network(Path(folder, "best.keras"))
    return network, pd.DataFrame(history)


def steps_per_epoch(experiment, count):
    """Return the number of training steps in an epoch of `count` slices."""
    return math.ceil(count / experiment.batch_size)


def _resume(experiment, folder, steps):
    """Return the checkpoint's network and history, or an untrained network and an empty list.

    steps: training steps of an epoch.
    """
    checkpoint = folder / "checkpoint.keras"
    if not checkpoint.exists():
        return compile_unet(experiment, steps * experiment.epochs), []
    network = load_network(checkpoint)
    history = read_csv(folder / "history.csv").head(epochs_trained(network, steps))
    return network, history.to_dict("records")


def epochs_trained(network, steps):
    """Return after how many epochs a compiled network was saved.

    steps: training steps of an epoch.
    """
    # Rounded up: in float16, Adam does not count a step whose gradient overflowed.
    return math.ceil(int(network.optimizer.iterations) / steps)


def _train(network, experiment, dataset, rows, folder, history):
    """Train a compiled network from the end of its history on; return the whole history.

    rows: as `preprocess.rows_by_set`.
    """
    images, masks = dataset.images, dataset.masks
    done = len(history)
    with tqdm(total=experiment.epochs, initial=done, unit="epoch", leave=False) as bar:
        checkpointer = Checkpointer(folder, history, experiment, bar)
        network.fit(
            training_batches(
                images[rows["train"]], masks[rows["train"]], experiment, checkpointer.epoch
            ),
            validation_data=validation_batches(images[rows["val"]], masks[rows["val"]], experiment),
            epochs=experiment.epochs,
            initial_epoch=done,
            shuffle=False,
            verbose=0,
            callbacks=[checkpointer],
        )
    return checkpointer.history


def save_network(network, path):
    """Save a Keras network, atomically."""
    with write_whole(path) as temporary:
        network.save(temporary)


def load_network(path):
    """Load a Keras network; nothing in the file is executed (Keras' safe mode).

    Raises `UserError` for a file without a usable network.
    """
    _silence_tensorflow()
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
            f"{path} contains no usable network ({reason}); delete it and run the command that "
            "trained it again."
        ) from None


def load_trained(folder):
    """Return (network, experiment) of a folder that `runs.find_network` takes.

    Of a cross-validation, the network is the average of all folds.
    """
    experiment, files = find_network(folder)
    if files[0].suffix == ".npz":
        return _of_weights(files[0], experiment), experiment
    return average([load_network(file) for file in files], mirrored=False), experiment


def _of_weights(path, experiment):
    """Return an experiment's network with the weights in a file of `scripts/reference.py`."""
    keras.config.set_dtype_policy("float32")
    networks = [build_unet(experiment) for _ in range(experiment.networks)]
    network = average(networks, experiment.mirrored)
    with np.load(path) as stored:
        network.set_weights([stored[name] for name in stored.files])
    return network
