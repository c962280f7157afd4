"""Time training steps fed by the input pipeline (augmentation `report`) against the same steps on tensors in memory."""

import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import tensorflow as tf

from lggseg_utils import config, preprocess, train

# The longer the epoch, the less the start of the iterator counts, which a real training pays once.
CASES = {"demo size": ({"size": 64, "filters": 16}, 512), "128x128": ({"size": 128, "filters": 32}, 96)}
ROUNDS = 4


def seconds_an_epoch(model, batches, steps):
    """Seconds of one epoch."""
    started = time.perf_counter()
    model.fit(batches, steps_per_epoch=steps, epochs=1, verbose=0, shuffle=False)
    return time.perf_counter() - started


def compare(settings, slices):
    """Median seconds an epoch from the pipeline and from memory, measured in turn."""
    experiment = config.load_experiment("demo", overrides={**settings, "epochs": 1000})
    train.set_up(experiment)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (slices, experiment.size, experiment.size, 3), np.uint8)
    masks = (images[..., 0] > 250).astype(np.uint8)
    steps = train.training_steps(slices, experiment.batch_size)
    model = train.compile_unet(experiment, steps * 1000)
    ready = tf.data.Dataset.from_tensors(
        (preprocess.minmax(images[: experiment.batch_size]), tf.cast(masks[: experiment.batch_size, ..., None], tf.float32))
    ).cache().repeat()  # fmt: skip
    sources = {"pipeline": train.training_batches(images, masks, experiment, 0).repeat(), "memory": ready}
    times = {name: [] for name in sources}
    for _ in range(ROUNDS + 1):
        for name, batches in sources.items():
            times[name].append(seconds_an_epoch(model, batches, steps))
    medians = {name: statistics.median(values[1:]) for name, values in times.items()}
    return {**medians, "ratio": medians["pipeline"] / medians["memory"], "slices": slices, "rounds": ROUNDS}


def main():
    """Measure and write pipeline.json."""
    with tempfile.TemporaryDirectory() as folder:
        record = config.open_run("smoke", run_dir=folder).record()
    result = {name: compare(*case) for name, case in CASES.items()}
    result.update(machine=record["machine"], versions=record["versions"], precision=train.machine_precision())
    config.write_json(Path(__file__).with_suffix(".json"), result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
