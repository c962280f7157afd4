"""Reading, checking, resizing and caching a cohort at 128x128 beside the loop of many notebooks, and its memory.

python benchmarks/cohort.py DATA_FOLDER
"""

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common
import cv2

from lggseg_utils import config, data, preprocess

ROUNDS = 3
SIZE = 128
MEASURE = """
import sys
import common
from lggseg_utils import config, preprocess
before = common.peak()
cohort = preprocess.load_cohort(config.open_run("report128", sys.argv[1], sys.argv[2]))
print((common.peak() - before) / sum(array.nbytes for array in (cohort.images, cohort.masks, cohort.truths)))
"""


def loop(data_dir):
    """Read and resize one file after the other into lists; no check, no table, no cache."""
    started = time.perf_counter()
    images, masks = [], []
    for row in data.find_slices(data_dir).itertuples():
        images.append(cv2.resize(cv2.imread(str(Path(data_dir, row.image))), (SIZE, SIZE)))
        masks.append(cv2.resize(cv2.imread(str(Path(data_dir, row.mask)), cv2.IMREAD_GRAYSCALE), (SIZE, SIZE)))
    return time.perf_counter() - started


def load(data_dir, folder, fresh):
    """Load the cohort of a run folder, from the files or from the cache."""
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    run = config.open_run("report128", data_dir, folder)
    started = time.perf_counter()
    preprocess.load_cohort(run)
    return time.perf_counter() - started


def main(data_dir):
    """Measure and write cohort.json."""
    with tempfile.TemporaryDirectory() as folder:
        contenders = {
            "loop": lambda: loop(data_dir),
            "package": lambda: load(data_dir, folder, fresh=True),
            "cached": lambda: load(data_dir, folder, fresh=False),
        }
        times = common.in_turn(contenders, ROUNDS)
        command = [sys.executable, "-c", MEASURE, str(Path(data_dir).resolve()), f"{folder}/memory"]
        beside = Path(__file__).parent
        memory = float(subprocess.run(command, check=True, capture_output=True, text=True, cwd=beside).stdout)
        about = config.open_run("report128", data_dir, folder).record()["data"]
    result = {
        "data": about,
        "seconds": {name: statistics.median(values) for name, values in times.items()},
        "loop_over_package": common.ratio(times["loop"], times["package"]),
        "memory_over_arrays": memory,
        "rounds": ROUNDS,
    }
    common.save(__file__, result)


if __name__ == "__main__":
    main(sys.argv[1])
