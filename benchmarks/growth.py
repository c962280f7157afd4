"""Seconds and memory of cohort, training epoch and evaluation against the number of slices: are
they linear?
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common
import numpy as np
from PIL import Image

from lggseg_utils import data, experiments, preprocess, runs, train

COUNTS = (500, 1000, 2000, 4000, 8000)
SMALL = {
    "size": 64,
    "filters": 4,
    "depth": 3,
    "epochs": 2,
    "split": "patient",
    "augmentation": "report",
}


def stages(folder):
    """Seconds and memory after each stage, on a folder of slices."""
    with tempfile.TemporaryDirectory() as work:
        run = runs.open_run("smoke", folder, f"{work}/run", 0, SMALL)
        measured, started = {}, time.perf_counter()
        cohort = data.load_cohort(run)
        dataset, split = (
            preprocess.prepare(cohort, run.experiment),
            preprocess.load_split(run, cohort.slices),
        )
        measured["cohort"] = {
            "seconds": time.perf_counter() - started,
            "peak_mib": common.peak() / 2**20,
        }
        _, history = train.fit(run.experiment, dataset, split, run.folder)
        # The second of two epochs: the first one pays for tracing.
        measured["training"] = {
            "seconds": float(history["seconds"].iloc[-1]),
            "peak_mib": common.peak() / 2**20,
        }
        started = time.perf_counter()
        experiments.train_and_score(run, cohort)
        measured["evaluation"] = {
            "seconds": time.perf_counter() - started,
            "peak_mib": common.peak() / 2**20,
        }
    return measured


def repeat_sample(folder, count):
    """Write at least `count` slices: the sample's patients again and again, under other names."""
    cohort = data.read_cohort()
    for number in range(count):
        row, again = number % len(cohort.slices), number // len(cohort.slices)
        patient, slice_ = f"{cohort.slices['patient'][row]}x{again}", cohort.slices["slice"][row]
        path = Path(folder, patient, f"{patient}_{slice_}.png")
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            Image.fromarray(cohort.images[row]).save(path)
            Image.fromarray(255 * cohort.masks[row]).save(path.with_stem(f"{path.stem}_mask"))


def line(counts, values):
    """Return the least-squares line: value per slice, constant, and the share of the variance that
    it explains.
    """
    slope, constant = np.polyfit(counts, values, 1)
    rest = np.asarray(values) - (slope * np.asarray(counts) + constant)
    return {"a_slice": slope, "constant": constant, "r_squared": 1 - rest.var() / np.var(values)}


def main():
    """Measure each count in a process of its own and write growth.json."""
    measured = {}
    with tempfile.TemporaryDirectory() as cohort:
        for count in COUNTS:
            repeat_sample(cohort, count)
            command = [sys.executable, __file__, cohort]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            measured[count] = json.loads(printed.splitlines()[-1])
    lines = {
        f"{stage}, {quantity}": line(COUNTS, [measured[count][stage][quantity] for count in COUNTS])
        for stage in measured[COUNTS[0]]
        for quantity in ("seconds", "peak_mib")
    }
    common.save(__file__, {"lines": lines, "measured": measured})


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(stages(sys.argv[1])))
    else:
        main()
