"""Seconds from a trained network to every table of a test set, and those of `lggseg predict` for
one volume.

The test set has 393 slices at 128x128, the network 32 filters, and the intervals 2,000 resamples
over patients. The volume has 40 slices of the sample and is predicted by the reference network; the
start of Python and TensorFlow counts, and is measured alone.
"""

import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import common
import numpy as np
import pandas as pd
from PIL import Image

from lggseg_utils import data, evaluate, model, stats, train
from lggseg_utils.settings import load_experiment

PATIENTS, SLICES, ROUNDS, VOLUME = 11, 393, 3, 40


def start():
    """Return the seconds until `lggseg predict` could begin."""
    return common.seconds(
        subprocess.run,
        [sys.executable, "-c", "import lggseg_utils.predict"],
        check=True,
        capture_output=True,
    )


def predict_volume(images):
    """Return the seconds that `lggseg predict` takes for the slices of one volume."""
    with tempfile.TemporaryDirectory() as folder:
        for number, image in enumerate(images, start=1):
            Image.fromarray(image).save(f"{folder}/P1_{number}.png")
        command = [
            Path(sys.executable).with_name("lggseg"),
            "predict",
            folder,
            "--out",
            f"{folder}/masks",
        ]
        return common.seconds(subprocess.run, command, check=True, capture_output=True)


def main():
    """Measure and write evaluation.json."""
    experiment = load_experiment("report128")
    train.set_up(experiment)
    network = model.build_unet(experiment)
    images, masks = common.example(SLICES, experiment.size)
    patients = [f"P{number % PATIENTS}" for number in range(SLICES)]
    slices = pd.DataFrame({"patient": patients, "slice": np.arange(SLICES)})

    def predict_and_score():
        probabilities = evaluate.predict(network, images, experiment)
        scored = evaluate.score_slices(slices, masks, probabilities).assign(split="test")
        evaluate.per_patient_table(scored)
        evaluate.set_scores(scored, whole_patients=True)

    volume = data.read_cohort().images[:VOLUME]
    contenders = {"evaluation": partial(common.seconds, predict_and_score), "start": start}
    times = common.in_turn({**contenders, "predict": partial(predict_volume, volume)}, ROUNDS)
    seconds = {f"{name}_seconds": statistics.median(values) for name, values in times.items()}
    common.save(
        __file__, {**seconds, "slices": SLICES, "volume": VOLUME, "resamples": stats.RESAMPLES}
    )


if __name__ == "__main__":
    main()
