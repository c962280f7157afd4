"""Slices per second of each augmentation, and how much augmentation slows a training at 128x128
with 32 filters.
"""

import statistics

import common
import tensorflow as tf

from lggseg_utils import preprocess, train
from lggseg_utils.settings import AUGMENTATIONS, load_experiment

# A pipeline is started anew each epoch, which takes it as long as some hundred slices do: enough of
# them hide that, as the 3,143 of a training do.
SIZE, FILTERS, SLICES, ROUNDS = 128, 32, 512, 5


def experiment_of(augmentation):
    """The enhanced U-Net at 128x128, trained under an augmentation."""
    changed = {"size": SIZE, "filters": FILTERS, "augmentation": augmentation, "epochs": 1000}
    return load_experiment("report128", overrides=changed)


def pass_through(augmentation):
    """Seconds of one pass over the pipeline, without a network."""
    batches = train.training_batches(*common.example(SLICES, SIZE), experiment_of(augmentation), 0)

    return lambda: common.seconds(list, batches)


def epochs(augmentations):
    """Seconds of an epoch of one network from the pipeline of each augmentation, and from a tensor
    in memory.
    """
    experiment = experiment_of("none")
    train.set_up(experiment)
    images, masks = common.example(SLICES, SIZE)
    steps = -(-SLICES // experiment.batch_size)
    network = train.compile_unet(experiment, steps * 1000)
    first = slice(experiment.batch_size)
    ready = (preprocess.minmax(images[first]), tf.cast(masks[first, ..., None], tf.float32))
    sources = {"in memory": tf.data.Dataset.from_tensors(ready).cache().repeat(steps)}
    sources |= {
        name: train.training_batches(images, masks, experiment_of(name), 0)
        for name in augmentations
    }
    return {
        name: lambda batches=batches: common.seconds(
            network.fit, batches, epochs=1, verbose=0, shuffle=False
        )
        for name, batches in sources.items()
    }


def main():
    """Measure and write augmentation.json."""
    passes = common.in_turn(
        {name: pass_through(name) for name in ("none", *AUGMENTATIONS, "report", "all")}, ROUNDS
    )
    trained = common.in_turn(epochs(("none", "report", "all")), ROUNDS)
    # Other work on the machine can only slow an epoch down: the fastest of each tells least of it.
    fastest = {name: min(values) for name, values in trained.items()}
    work = {name: statistics.median(values) for name, values in passes.items()}
    result = {
        "slices_a_second": {name: SLICES / value for name, value in work.items()},
        "share_of_an_epoch": {
            name: (value - work["none"]) / fastest["none"]
            for name, value in work.items()
            if name != "none"
        },
        "fastest_epoch_over_that_in_memory": {
            name: value / fastest["in memory"] for name, value in fastest.items()
        },
        "rounds": ROUNDS,
    }
    common.save(__file__, result)


if __name__ == "__main__":
    main()
