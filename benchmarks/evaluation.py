"""Seconds from a trained network to every table of a test set: 393 slices, 128x128, 32 filters, 2,000 resamples over patients."""

import statistics
import time

import common
import numpy as np
import pandas as pd

from lggseg_utils import evaluate, model, stats, train
from lggseg_utils.settings import load_experiment

PATIENTS, SLICES, ROUNDS = 11, 393, 3


def main():
    """Measure and write evaluation.json."""
    experiment = load_experiment("report128")
    train.set_up(experiment)
    network = model.build_unet(experiment)
    images, masks = common.example(SLICES, experiment.size)
    patients = [f"P{number % PATIENTS}" for number in range(SLICES)]
    slices = pd.DataFrame({"patient": patients, "slice": np.arange(SLICES)})

    def predict_and_score():
        started = time.perf_counter()
        probabilities = evaluate.predict(network, images, experiment)
        scored = evaluate.score_slices(slices, masks, probabilities).assign(split="test")
        evaluate.per_patient_table(scored)
        evaluate.set_scores(scored, whole_patients=True)
        return time.perf_counter() - started

    seconds = common.in_turn({"evaluation": predict_and_score}, ROUNDS)["evaluation"]
    common.save(__file__, {"seconds": statistics.median(seconds), "slices": SLICES, "resamples": stats.RESAMPLES})


if __name__ == "__main__":
    main()
