"""Keep one fold's network of a cross-validation as the reference model: python results/reference.py DATA_FOLDER RUN_FOLDER

RUN_FOLDER is a finished run of `lggseg crossval`. Writes to reference/ the weights, the split of the fold, and the record of the run
with what storing the weights in half the space changed on the fold's test patients. The fold is the first, not the best.
"""

import json
import shutil
from pathlib import Path

import click
import numpy as np

from lggseg_utils import cli, config, evaluate, predict, preprocess, records, train

FOLD = 0


def compare(run, cohort, rows, networks):
    """What two networks make of the same slices: pixels, pixels that differ, and the mean Dice a patient of each."""
    masks, dice = [], []
    for network in networks:
        predicted = list(evaluate.probabilities(network, cohort, rows, run.experiment))
        masks.append(np.concatenate([probability > evaluate.THRESHOLD for _, probability in predicted]))
        scored = evaluate.score_slices(predicted, cohort).assign(split="test")
        dice.append(round(float(evaluate.per_patient_table(scored)["dice"].mean()), 6))
    changed = int((masks[0] != masks[1]).sum())
    return {"pixels": masks[0].size, "pixels_changed": changed, "dice_trained": dice[0], "dice_stored": dice[1]}


@click.command()
@click.argument("data_folder", type=click.Path(exists=True, path_type=Path))
@click.argument("run_folder", type=click.Path(exists=True, path_type=Path))
def main(data_folder, run_folder):
    """Store the network, read it again, and write down what that changed."""
    run = config.reopen(run_folder, data_folder)
    cohort = preprocess.load_cohort(run)
    records.refuse_phantom(cohort.kind)
    split = preprocess.split_of_fold(config.read_csv(run.path("split.csv")), FOLD)
    trained = train.load_model(run.path("folds", str(FOLD), "model.keras"))
    predict.keep_weights(trained, predict.REFERENCE / "weights.npz")
    config.write_csv(predict.REFERENCE / "split.csv", split.drop_duplicates("patient")[["patient", "split"]])
    shutil.copyfile(run.path("run.json"), predict.REFERENCE / "run.json")
    stored, _ = predict.load_network(predict.REFERENCE)
    changed = compare(run, cohort, preprocess.rows_of(split, "test"), (trained, stored))
    config.write_json(predict.REFERENCE / "run.json", {**run.record(), "fold": FOLD, "stored": changed})
    print(json.dumps(changed))


if __name__ == "__main__":
    cli.main(main)
