"""Seconds from a trained network to every table of a test set: 393 slices, 128x128, 32 filters, 2,000 resamples over patients."""

import statistics
import tempfile
import time

import common
import numpy as np

from lggseg_utils import config, evaluate, metrics, model, phantom, preprocess, train

PATIENTS, SLICES, ROUNDS = 11, 393, 3


def main():
    """Measure and write evaluation.json."""
    experiment = config.load_experiment("report128")
    train.set_up(experiment)
    network = model.build_unet(experiment)
    with tempfile.TemporaryDirectory() as folder:
        phantom.write_cohort(folder, PATIENTS, -(-SLICES // PATIENTS))
        cohort = preprocess.load_cohort(config.open_run("report128", folder, f"{folder}/run"))
        rows = np.arange(SLICES)

        def predict_and_score():
            started = time.perf_counter()
            predicted = evaluate.probabilities(network, cohort, rows, experiment)
            scored = evaluate.score_slices(predicted, cohort).assign(split="test")
            evaluate.per_patient_table(scored)
            evaluate.set_scores(scored, whole_patients=True)
            return time.perf_counter() - started

        seconds = common.in_turn({"evaluation": predict_and_score}, ROUNDS)["evaluation"]
    common.save(__file__, {"seconds": statistics.median(seconds), "slices": SLICES, "resamples": metrics.RESAMPLES})


if __name__ == "__main__":
    main()
