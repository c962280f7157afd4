"""Training that can be killed and goes on where it stopped (report, section 1-5)."""

import time
import zipfile
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from tqdm import tqdm

from lggseg_utils import losses, preprocess
from lggseg_utils.augment import augment
from lggseg_utils.config import UserError, read_csv, write_csv, write_whole
from lggseg_utils.metrics import SCORED_BATCH
from lggseg_utils.model import build_unet

# Steps that TensorFlow runs between two returns to Python; what that saves is measured in benchmarks/.
STEPS_PER_EXECUTION = 8

# A notebook loads and runs several models; TensorFlow would remark on that in the middle of the page.
tf.get_logger().setLevel("ERROR")


def machine_precision():
    """Return the Keras dtype policy this machine trains fastest in: bfloat16 or float16 where the hardware has it."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
        return "mixed_bfloat16" if capability >= (8, 0) else "mixed_float16" if capability >= (7, 0) else "float32"
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return "float32"
    return "mixed_bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"


def advice():
    """Say which GPU this machine has, if any, and which profiles suit it."""
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return (
            "No GPU found. The profiles demo and patient64 suit a CPU. In Colab, a GPU is chosen under Runtime, Change "
            "runtime type."
        )
    name = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "unnamed")
    return f"GPU: {name}, trained on in {machine_precision()}. The profiles patient64, report64 and report128 suit it."


def set_up(experiment):
    """Seed every generator and set the precision; return the name of the dtype policy."""
    keras.utils.set_random_seed(experiment.seed)
    policy = machine_precision() if experiment.precision == "auto" else experiment.precision
    keras.config.set_dtype_policy(policy)
    return policy


def compile_unet(experiment, steps):
    """Build and compile the U-Net of an experiment; `steps` are the training steps of the whole training."""
    model = build_unet(experiment)
    rate = experiment.learning_rate
    if experiment.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, steps)
    # XLA halves the speed of these convolutions on a CPU.
    on_gpu = bool(tf.config.list_physical_devices("GPU"))
    model.compile(
        optimizer=keras.optimizers.Adam(rate),
        loss=losses.LOSSES[experiment.loss],
        metrics=[losses.accuracy, losses.dice_coef, losses.jacard_coef],
        jit_compile="auto" if on_gpu else False,
        steps_per_execution=STEPS_PER_EXECUTION,
    )
    return model


def training_steps(count, batch_size):
    """Steps of one epoch over `count` slices, rounded up; the last batch may be smaller."""
    return -(-count // batch_size)


def training_batches(images, masks, experiment, epoch):
    """tf.data pipeline of (images, masks) batches over one epoch.

    images uint8 (n, side, side, channels), masks uint8 (n, side, side) of 0 and 1; epoch int64, or a `tf.Variable` that is
    read each time the pipeline is started. Order and augmentation are functions of seed, epoch and step alone, so a
    training that was interrupted goes on with the batches it would have seen.
    """
    images, masks = tf.constant(images), tf.constant(masks[..., None])
    count, size, seed = len(images), experiment.batch_size, experiment.seed
    steps = training_steps(count, size)

    def batches_of(epoch):
        order = tf.random.experimental.stateless_shuffle(
            tf.range(count), seed=tf.stack([seed, tf.cast(epoch, tf.int32)])
        )
        batches = tf.data.Dataset.from_tensor_slices(order).batch(size).enumerate()
        return batches.map(lambda step, rows: (epoch * steps + step, rows))

    def load(step, rows):
        scaled = preprocess.minmax(tf.gather(images, rows), experiment.scaling)
        truth = tf.cast(tf.gather(masks, rows), tf.float32)
        return augment(scaled, truth, experiment.augmentation, tf.stack([seed, tf.cast(step, tf.int32)]))

    started = tf.data.Dataset.range(1).map(lambda _: tf.convert_to_tensor(epoch, tf.int64))
    loaded = started.flat_map(batches_of).map(load, num_parallel_calls=2, deterministic=True)
    # Keras warns of a pipeline that ends where it did not expect it.
    return loaded.apply(tf.data.experimental.assert_cardinality(steps)).prefetch(4)


def evaluation_batches(images, masks, experiment):
    """tf.data pipeline of (images, masks) in the order given, scaled, without augmentation."""
    batches = tf.data.Dataset.from_tensor_slices((images, masks[..., None])).batch(SCORED_BATCH)
    return batches.map(
        lambda image, mask: (preprocess.minmax(image, experiment.scaling), tf.cast(mask, tf.float32))
    ).prefetch(2)


class Keeper(keras.callbacks.Callback):
    """Writes history, best model and checkpoint after each epoch, whole or not at all; stops early when asked.

    All it needs to know stands in the history, so it holds after an interruption too. The checkpoint comes last:
    what it does not cover is trained again.
    """

    def __init__(self, folder, history, experiment, keep):
        super().__init__()
        self.folder, self.history, self.experiment, self.keep = Path(folder), list(history), experiment, keep
        self.epoch = tf.Variable(0, dtype=tf.int64, trainable=False)

    def on_train_begin(self, logs=None):
        self.bar = tqdm(
            total=self.params["epochs"], initial=len(self.history), desc="training", unit="epoch", leave=False
        )

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch.assign(epoch)
        reseed_dropout(self.model, self.experiment.seed, epoch)
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        if not np.isfinite(logs["val_loss"]):
            self.bar.close()
            raise UserError(
                f"the validation loss is not a number after epoch {epoch + 1}; train with a smaller learning_rate, or "
                "with precision float32."
            )
        row = {"epoch": epoch + 1, **logs, "seconds": time.perf_counter() - self.started}
        self.history.append(row)
        losses = [past["val_loss"] for past in self.history]
        best = int(np.argmin(losses))
        if self.keep and best == len(losses) - 1:
            save_model(self.model, self.folder / "model_best.keras")
        write_csv(self.folder / "history.csv", pd.DataFrame(self.history))
        if self.keep:
            save_model(self.model, self.folder / "checkpoint.keras")
        self.bar.update()
        self.bar.set_postfix(val_loss=f"{logs['val_loss']:.4f}", val_dice_coef=f"{logs['val_dice_coef']:.3f}")
        if _finished(self.history, self.experiment):
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        self.bar.close()


def reseed_dropout(model, seed, epoch):
    """Let dropout's noise depend on seed and epoch alone: a saved model does not hold the state of its generators."""
    dropouts = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    for number, layer in enumerate(dropouts):
        layer.seed_generator.state.assign(np.random.SeedSequence((seed, epoch, number)).generate_state(2) >> 1)


def load_model(path):
    """Load a Keras model; nothing in the file is executed (Keras' safe mode). Raises `UserError` for one that can't be used."""
    try:
        return keras.models.load_model(path)
    except (ValueError, TypeError, KeyError, AttributeError, OSError, zipfile.BadZipFile) as problem:
        reason = " ".join(str(problem).split())[:200]
        raise UserError(
            f"{path} holds no network that can be used ({reason}); remove it, and it is made again."
        ) from None


def save_model(model, path):
    """Save a Keras model, whole or not at all."""
    with write_whole(path) as temporary:
        model.save(temporary)


def fit(experiment, cohort, train_rows, val_rows, folder, network=None, keep=True):
    """Train the U-Net of an experiment on rows of a cohort; return (model of the last epoch, history table).

    `folder` receives history.csv, model_best.keras (lowest validation loss) and checkpoint.keras; where a
    checkpoint lies there, the training goes on from it. `network`: a compiled one of the same shape that is started
    afresh and trained, which spares the time TensorFlow takes to trace a new one. Without `keep`, only history.csv is
    written, for trainings so short that saving them would cost more than doing them again.
    """
    set_up(experiment)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    steps = training_steps(len(train_rows), experiment.batch_size)
    model, history = _resume(experiment, folder, steps, network)
    keeper = Keeper(folder, history, experiment, keep)
    train_images, val_images = (
        preprocess.network_inputs(cohort, rows, experiment.context) for rows in (train_rows, val_rows)
    )
    batches = training_batches(train_images, cohort.masks[train_rows], experiment, keeper.epoch)
    validation = evaluation_batches(val_images, cohort.masks[val_rows], experiment)
    if not _finished(history, experiment):
        model.fit(
            batches,
            epochs=experiment.epochs,
            initial_epoch=len(history),
            validation_data=validation,
            shuffle=False,
            verbose=0,
            callbacks=[keeper],
        )
    return model, pd.DataFrame(keeper.history)


def restart(model, experiment):
    """Give a compiled network the weights and the optimizer state of a new one; returns it."""
    model.set_weights(build_unet(experiment).get_weights())
    for variable in model.optimizer.variables:
        if variable.path.endswith("dynamic_scale"):
            variable.assign(model.optimizer.initial_scale)
        elif not variable.path.endswith("learning_rate"):
            variable.assign(tf.zeros_like(variable))
    return model


def _resume(experiment, folder, steps, network):
    """The model and history to go on from: the checkpoint's, or a model that has not learnt anything and none."""
    checkpoint = folder / "checkpoint.keras"
    if not checkpoint.exists():
        if network is not None:
            return restart(network, experiment), []
        return compile_unet(experiment, steps * experiment.epochs), []
    model = load_model(checkpoint)
    # Rounded up: in float16, Adam does not count a step whose gradient overflowed.
    epochs = training_steps(int(model.optimizer.iterations), steps)
    history = read_csv(folder / "history.csv").head(epochs).to_dict("records")
    if len(history) < epochs:
        raise UserError(
            f"{folder / 'history.csv'} ends before the checkpoint.keras beside it; remove both, and the training starts anew."
        )
    return model, history


def _finished(history, experiment):
    """Whether the training is over: all epochs done, or stopped early."""
    losses = [row["val_loss"] for row in history]
    stale = len(losses) - 1 - int(np.argmin(losses)) if losses else 0
    return len(losses) >= experiment.epochs or 0 < experiment.early_stopping <= stale


def train(run):
    """Train a run's model, or load it; return (model that is scored, history table).

    Writes history.csv, model.keras (the weights the setting `weights` names) and model_best.keras.
    """
    if not run.path("model.keras").exists():
        cohort = preprocess.load_cohort(run)
        split = preprocess.load_split(run, cohort.slices)
        rows = preprocess.rows_by_set(split)
        model, history = fit(run.experiment, cohort, rows["train"], rows["val"], run.folder)
        run.note(
            training={
                "precision": keras.config.dtype_policy().name,
                "parameters": model.count_params(),
                "epochs": len(history),
                "best_epoch": int(history["val_loss"].idxmin()) + 1,
                "seconds": round(float(history["seconds"].sum()), 1),
            }
        )
        scored = load_model(run.path("model_best.keras")) if run.experiment.weights == "best" else model
        save_model(scored, run.path("model.keras"))
        run.path("checkpoint.keras").unlink()
    return load_model(run.path("model.keras")), read_csv(run.path("history.csv"))


def overfit(experiment, images, masks, steps=100):
    """Learn a few slices by heart, without dropout or augmentation; return the soft Dice after each step.

    images uint8 (n, size, size, channels), masks uint8 (n, size, size) of 0 and 1. A network that fails here is broken.
    """
    easy = {
        "dropout": 0.0,
        "loss": "dice_crossentropy",
        "output": "sigmoid",
        "normalization": "batch",
        "learning_rate": 0.01,
    }
    plain = experiment.model_copy(update=easy)
    set_up(plain)
    model = compile_unet(plain, steps)
    scaled = preprocess.minmax(images, experiment.scaling)
    truth = tf.cast(masks[..., None], tf.float32)
    scores = [model.train_on_batch(scaled, truth, return_dict=True)["dice_coef"] for _ in range(steps)]
    set_up(experiment)
    return [float(score) for score in scores]
