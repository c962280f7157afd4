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
KAGGLE_SIZE = 256
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


def enlarge(data_dir, folder):
    """Write the cohort as Kaggle stores it, 256x256 without compression; what the slices show does not matter here."""
    for row in data.find_slices(data_dir).itertuples():
        for name in (row.image, row.mask):
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = cv2.imread(str(Path(data_dir, name)), cv2.IMREAD_UNCHANGED)
            enlarged = cv2.resize(pixels, (KAGGLE_SIZE, KAGGLE_SIZE), interpolation=cv2.INTER_NEAREST)
            cv2.imwrite(str(path), enlarged, [cv2.IMWRITE_TIFF_COMPRESSION, cv2.IMWRITE_TIFF_COMPRESSION_NONE])


def measure(data_dir, folder):
    """Seconds of loop, package and cache, and memory, for one folder of slices."""
    contenders = {
        "loop": lambda: loop(data_dir),
        "package": lambda: load(data_dir, f"{folder}/run", fresh=True),
        "cached": lambda: load(data_dir, f"{folder}/run", fresh=False),
    }
    times = common.in_turn(contenders, ROUNDS)
    command = [sys.executable, "-c", MEASURE, str(data_dir), f"{folder}/memory"]
    beside = Path(__file__).parent
    memory = float(subprocess.run(command, check=True, capture_output=True, text=True, cwd=beside).stdout)
    return {
        "data": config.open_run("report128", data_dir, f"{folder}/run").record()["data"],
        "seconds": {name: statistics.median(values) for name, values in times.items()},
        "loop_over_package": common.ratio(times["loop"], times["package"]),
        "memory_over_arrays": memory,
    }


def main(data_dir):
    """Measure the files as they are and in Kaggle's form, and write cohort.json."""
    with tempfile.TemporaryDirectory() as folder:
        enlarge(data_dir, f"{folder}/kaggle")
        measured = {
            "as given": measure(Path(data_dir).resolve(), f"{folder}/given"),
            "256x256, uncompressed": measure(Path(folder, "kaggle"), f"{folder}/enlarged"),
        }
    common.save(__file__, {"measured": measured, "rounds": ROUNDS})


if __name__ == "__main__":
    main(sys.argv[1])
