"""Slices per second in training: this package, plain Keras as a typical notebook calls it, and a
U-Net in PyTorch.

Needs PyTorch: pip install -r benchmarks/requirements.txt
"""

import os
import statistics
import subprocess
import sys
from pathlib import Path
from unittest import mock

import click
import common
import keras
import numpy as np
import tensorflow as tf

from lggseg_utils import model, preprocess, train
from lggseg_utils.settings import load_experiment

# Profile, what is changed in it, slices an epoch (whole executions of several steps).
CASES = {
    "enhanced U-Net, 128x128, 32 filters": ("report128", {"augmentation": "none"}, 128),
    "enhanced U-Net, 128x128, 32 filters, dropout": (
        "report128",
        {"dropout": 0.1, "augmentation": "none"},
        128,
    ),
    "small U-Net, 64x64, 16 filters, batch normalisation": (
        "crossval64",
        {"augmentation": "none"},
        512,
    ),
}
ROUNDS = 4
PEAK_SIDE = 4096
FORWARD_AND_BACKWARD = 3  # a training step computes about three times what a prediction does


def prepare(case):
    """The experiment of a case, and random slices: images uint8 (n, size, size, 3), masks uint8 (n,
    size, size).
    """
    profile, changed, slices = case
    experiment = load_experiment(profile, overrides={**changed, "epochs": 1000})
    return experiment, *common.example(slices, experiment.size)


def package(case, **compiled):
    """An epoch as this package trains it; compiled: what to compile in another way."""
    experiment, images, masks = prepare(case)
    train.set_up(experiment)
    steps = -(-len(images) // experiment.batch_size)
    network = train.compile_unet(experiment, steps * 1000)
    if compiled:
        kept = {"optimizer": network.optimizer, "loss": network.loss, "jit_compile": False}
        network.compile(**{**kept, "steps_per_execution": train.STEPS_PER_EXECUTION, **compiled})
    batches = train.training_batches(images, masks, experiment, 0)
    return lambda: common.seconds(network.fit, batches, epochs=1, verbose=0, shuffle=False)


def plain_keras(case):
    """An epoch of `fit` with Keras' defaults, in float32, on arrays in memory."""
    keras.config.set_dtype_policy("float32")
    experiment, images, masks = prepare(case)
    plain = {"BatchNormalization": keras.layers.BatchNormalization, "Dropout": keras.layers.Dropout}
    with mock.patch.multiple(model, **plain):
        network = model.build_unet(experiment)
    network.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"])
    x, y = np.asarray(preprocess.minmax(images)), masks[..., None].astype(np.float32)
    return lambda: common.seconds(
        network.fit, x, y, batch_size=experiment.batch_size, epochs=1, verbose=0
    )


def pytorch(case):
    """An epoch of the PyTorch U-Net."""
    from torch_unet import Trainer

    experiment, images, masks = prepare(case)
    bfloat16 = train.machine_precision() == "mixed_bfloat16"
    trainer = Trainer(experiment.filters, np.asarray(preprocess.minmax(images)), masks, bfloat16)
    return lambda: common.seconds(trainer.epoch, experiment.batch_size)


def peak(precision):
    """FLOP/s of a large matrix product."""
    side = tf.random.normal((PEAK_SIDE, PEAK_SIDE), dtype=precision)
    product = tf.function(lambda: tf.reduce_sum(tf.matmul(side, side)))
    product().numpy()
    return (
        2
        * PEAK_SIDE**3
        / statistics.median(common.seconds(lambda: product().numpy()) for _ in range(5))
    )


def flops_a_slice(case):
    """Floating point operations of a training step for one slice."""
    experiment = prepare(case)[0]
    network, one = model.build_unet(experiment), tf.zeros((1, experiment.size, experiment.size, 3))
    graph = tf.function(network).get_concrete_function(one).graph
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    with graph.as_default():
        return (
            FORWARD_AND_BACKWARD
            * tf.compat.v1.profiler.profile(graph, options=options).total_float_ops
        )


def compare(case):
    """Return slices per second of the three, and their ratios."""
    contenders = {
        "package": package(case),
        "plain Keras": plain_keras(case),
        "PyTorch": pytorch(case),
    }
    times = common.in_turn(contenders, ROUNDS)
    speed = {name: case[-1] / statistics.median(values) for name, values in times.items()}
    return {
        "slices_a_second": speed,
        "package_over_plain_keras": common.ratio(times["plain Keras"], times["package"]),
        "package_over_pytorch": common.ratio(times["PyTorch"], times["package"]),
        "gflops": speed["package"] * flops_a_slice(case) / 1e9,
        "rounds": ROUNDS,
    }


def overhead(case):
    """Return slices per second with the package's own settings and with others."""
    others = {f"{steps} steps an execution": {"steps_per_execution": steps} for steps in (1, 32)}
    others["XLA"] = {"jit_compile": True, "steps_per_execution": 1}
    contenders = {
        "as it is": package(case),
        **{name: package(case, **changed) for name, changed in others.items()},
    }
    times = common.in_turn(contenders, ROUNDS)
    return {name: case[-1] / statistics.median(values) for name, values in times.items()}


def side_by_side(case):
    """Return slices per second of two simultaneous trainings, with one thread each, added up."""
    environment = {
        **os.environ,
        "TF_NUM_INTRAOP_THREADS": "1",
        "TF_NUM_INTEROP_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, __file__, "--alone", case]
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    return sum(float(process.communicate()[0].split()[-1]) for process in running)


@click.command()
@click.option("--alone", help="Print the slices a second of the package in one case, nothing else.")
def main(alone):
    """Measure and write training-PRECISION.json, for the precision this machine trains in."""
    if alone:
        times = common.in_turn({"package": package(CASES[alone])}, ROUNDS)
        print(CASES[alone][-1] / statistics.median(times["package"]))
        return
    small = list(CASES)[-1]
    result = {name: compare(case) for name, case in CASES.items()}
    result["overhead, " + small] = {
        **overhead(CASES[small]),
        "two at once, one thread each": side_by_side(small),
    }
    result["peak_gflops"] = {
        precision: peak(precision) / 1e9 for precision in ("bfloat16", "float32")
    }
    common.save(Path(__file__).with_stem(f"training-{train.machine_precision()}"), result)


if __name__ == "__main__":
    main()
