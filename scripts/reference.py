"""Train the reference network: python scripts/reference.py COHORT_FOLDER WORK_FOLDER

It is one network with the settings of the profile `ensemble`, and sees the 94 patients who are not
in the sample: 85 to train on and 9 to watch. Writes weights.npz, run.json, split.csv and
metrics.json (test: the sample's patients) into reference/. After an interruption, the same command
resumes.
"""

import shutil
from pathlib import Path

import click
import numpy as np

from lggseg_utils import cli, data, experiments, runs, train
from lggseg_utils.predict import REFERENCE

WATCHED = 9
# Three networks would be too large to store, and some patients are watched.
CHANGES = {"networks": 1, "hold_out": True}


def draw_split(slices):
    """Split a table of slices: the sample's patients are test, WATCHED others validation."""
    sample = set(data.read_cohort().slices["patient"])
    others = sorted(set(slices["patient"]) - sample)
    watched = set(np.random.default_rng(0).permutation(others)[:WATCHED])
    names = [
        "test" if name in sample else "val" if name in watched else "train"
        for name in slices["patient"]
    ]
    return slices[["patient", "slice"]].assign(split=names)


def save_weights(network, path):
    """Write a network's weights to a compressed npz; convolution kernels, nearly all of it, as
    float16.
    """
    arrays = [
        array.astype(np.float16) if array.ndim == 4 else array for array in network.get_weights()
    ]
    with runs.write_whole(path) as temporary:
        np.savez_compressed(temporary, *arrays)


@click.command()
@click.argument("cohort_folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("work_folder", type=click.Path(path_type=Path))
def main(cohort_folder, work_folder):
    """Train, score and store."""
    run = runs.open_run("ensemble", cohort_folder.resolve(), work_folder, 0, CHANGES, "reference")
    cohort = data.load_cohort(run)
    split = draw_split(cohort.slices)
    runs.write_csv(run.path("split.csv"), split)
    experiments.train_and_score(run, cohort)
    save_weights(train.load_network(run.path("model.keras")), REFERENCE / "weights.npz")
    runs.write_csv(REFERENCE / "split.csv", split.drop_duplicates("patient")[["patient", "split"]])
    shutil.copyfile(run.path("metrics.json"), REFERENCE / "metrics.json")
    command = "python scripts/reference.py COHORT_FOLDER WORK_FOLDER"
    runs.write_json(REFERENCE / "run.json", {**run.record(), "command": command})


if __name__ == "__main__":
    cli.main(main)
