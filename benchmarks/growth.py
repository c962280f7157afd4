"""Seconds and memory of cohort, training epoch and evaluation against the number of slices: are they linear?"""

import json
import subprocess
import sys
import tempfile
import time

import common
import numpy as np

from lggseg_utils import config, evaluate, phantom, preprocess, train

COUNTS = (500, 1000, 2000, 4000, 8000)
SLICES_A_PATIENT = 20
SMALL = {"size": 64, "filters": 4, "depth": 3, "epochs": 2, "split": "patient", "augmentation": "report"}


def stages(cohort):
    """Seconds and memory after each stage, on a phantom cohort."""
    with tempfile.TemporaryDirectory() as folder:
        run = config.open_run("smoke", cohort, folder, 0, SMALL)
        measured = {}
        for name, stage in (
            ("cohort", preprocess.load_cohort),
            ("training", train.train),
            ("evaluation", evaluate.evaluate),
        ):
            started = time.perf_counter()
            made = stage(run)
            # The second of two epochs: the first one pays for tracing.
            seconds = made[1]["seconds"].iloc[-1] if name == "training" else time.perf_counter() - started
            measured[name] = {"seconds": float(seconds), "peak_mib": common.peak() / 2**20}
    return measured


def line(counts, values):
    """Least squares line: value a slice, constant, and the share of the variance that it explains."""
    slope, constant = np.polyfit(counts, values, 1)
    rest = np.asarray(values) - (slope * np.asarray(counts) + constant)
    return {"a_slice": slope, "constant": constant, "r_squared": 1 - rest.var() / np.var(values)}


def main():
    """Measure each count in a process of its own and write growth.json."""
    measured = {}
    with tempfile.TemporaryDirectory() as cohort:
        for count in COUNTS:
            # Patients that are there already are kept, so the cohort grows from count to count.
            phantom.write_cohort(cohort, count // SLICES_A_PATIENT, SLICES_A_PATIENT)
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
