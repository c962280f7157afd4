"""Score a recorded run once more on the grid its network works on: python results/own_grid.py DATA_FOLDER RUN_FOLDER NAME

RUN_FOLDER is the finished run that results/NAME records. Writes per_slice_own_grid.csv and metrics_own_grid.json there, for
validation and test; slices stand in the order they were first scored in.
"""

import dataclasses
import json
from pathlib import Path

import click
import pandas as pd

from lggseg_utils import cli, config, evaluate, preprocess, records, train

SETS = ("val", "test")


def score(run, split):
    """Per-slice table of validation and test, counted on the network's own grid."""
    own = run.experiment.model_copy(update={"score_size": run.experiment.size})
    cohort = preprocess.load_cohort(run)
    records.refuse_phantom(cohort.kind)
    cohort = dataclasses.replace(cohort, truths=cohort.masks)
    model = train.load_model(run.path("model.keras"))
    tables = []
    for name in SETS:
        rows = evaluate.shuffled(preprocess.rows_of(split, name), run.experiment.seed)
        predicted = evaluate.probabilities(model, cohort, rows, own)
        tables.append(evaluate.score_slices(predicted, cohort).assign(split=name))
    return pd.concat(tables)[evaluate.PER_SLICE_COLUMNS]


@click.command()
@click.argument("data_folder", type=click.Path(exists=True, path_type=Path))
@click.argument("run_folder", type=click.Path(exists=True, path_type=Path))
@click.argument("name")
def main(data_folder, run_folder, name):
    """Score and write."""
    run, target = config.reopen(run_folder, data_folder), records.RECORDS / name
    if config.read_record(target)["data"] != run.record()["data"]:
        raise config.UserError(f"results/{name} records a run on other data than {run_folder}.")
    scored = score(run, config.read_csv(run.path("split.csv")))
    whole = run.experiment.split == "patient"
    metrics = {part: evaluate.set_scores(scored[scored["split"] == part], whole) for part in SETS}
    config.write_csv(target / "per_slice_own_grid.csv", scored)
    config.write_json(target / "metrics_own_grid.json", metrics)
    print(json.dumps({part: metrics[part]["dice_pooled"] for part in SETS}))


if __name__ == "__main__":
    cli.main(main)
