"""Fixtures: small cohorts of ellipses on disk, written as users bring them."""

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import settings as hypothesis_settings
from PIL import Image

from lggseg_utils import exploration, records, runs, sources

hypothesis_settings.register_profile("quick", max_examples=100, deadline=None, derandomize=True)
hypothesis_settings.load_profile("quick")


# What the contract says a run leaves, beside its notebooks.
LEFT_BY_A_RUN = (
    "run.json",
    "slices.csv",
    "split.csv",
    "history.csv",
    "model.keras",
    "metrics.json",
    "per_slice.csv",
    "per_patient.csv",
)
LGGSEG = Path(sys.executable).with_name("lggseg")
STOPPED = "lggseg: stopped; the same command resumes."
# Shells make what they start in the background deaf to Ctrl-C; this lggseg hears it again.
HEARS_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from lggseg_utils.cli import main; main()"


def pages_of_the_book():
    """Return the names of all pages of the table of contents, without suffix, as in the built book."""
    from sphinx_external_toc.parsing import parse_toc_yaml

    return list(parse_toc_yaml(runs.REPOSITORY / "book" / "_toc.yml"))


def call(*arguments, **options):
    """Run lggseg; return the finished process with its output as text."""
    command = [LGGSEG, *map(str, arguments)]
    # Ends what hangs: a run of all notebooks takes five minutes here, and three times that on a slow machine.
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=1500, **options
    )


def assert_one_line(finished, message):
    """Assert that a command ended with one line that holds a message."""
    assert finished.returncode == 1 and message in finished.stderr, finished.stderr
    assert len(finished.stderr.strip().splitlines()) == 1 and "Traceback" not in finished.stderr


def wait_for(path, process):
    """Wait until a file appears: on a slow machine, the first four chapters take minutes."""
    until = time.monotonic() + 600
    while not path.exists():
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)


def stop(process, blow):
    """Send a signal once, wait until the process ends, and return its error text."""
    process.send_signal(blow)
    try:
        return process.communicate(timeout=60)[1]
    finally:
        process.kill()


def write_slice(folder, patient, number, image=None, mask=None, suffix=".tif"):
    """Write one slice's image and mask in Kaggle's layout; return their paths."""
    (folder / patient).mkdir(parents=True, exist_ok=True)
    image = np.full((16, 16, 3), 90, np.uint8) if image is None else image
    mask = np.zeros(image.shape[:2], np.uint8) if mask is None else mask
    paths = [
        folder / patient / f"{patient}_{number}{ending}" for ending in (suffix, f"_mask{suffix}")
    ]
    for path, pixels in zip(paths, (image, mask), strict=True):
        Image.fromarray(pixels).save(path)
    return paths


def write_ellipses(folder, patients, slices, side=48):
    """Write a cohort, wider than high: a grey head in each slice, and in all but the first a lesion that is bright on FLAIR."""
    rng, shape = np.random.default_rng(0), (side, side + 8)
    for patient in range(patients):
        centre = rng.integers(18, side - 18, 2).tolist()
        for number in range(1, slices + 1):
            head, lesion = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
            cv2.ellipse(
                head, (side // 2, side // 2), (side // 2 - 4, side // 2 - 7), 0, 0, 360, 1, -1
            )
            if number > 1:
                cv2.ellipse(lesion, centre, (3 + number % 4, 4 + number % 3), 0, 0, 360, 1, -1)
            image = (
                70 * head[..., None]
                + np.array([0, 110, 30]) * lesion[..., None]
                + rng.integers(0, 12, (*shape, 3))
            )
            write_slice(
                folder, f"TCGA_CS_{patient:02d}", number, image.astype(np.uint8), 255 * lesion
            )
    return folder


@pytest.fixture(scope="session")
def cohort_folder(tmp_path_factory):
    """Six patients with five slices."""
    return write_ellipses(tmp_path_factory.mktemp("cohort"), 6, 5)


@pytest.fixture(scope="session")
def large_cohort_folder(tmp_path_factory):
    """Twelve patients with three slices: enough for folds."""
    return write_ellipses(tmp_path_factory.mktemp("large"), 12, 3)


@pytest.fixture
def open_smoke(tmp_path):
    """Open a run with the smoke profile in a fresh folder: open_smoke(data_dir, **overrides)."""

    def open_it(data_dir="", seed=0, folder="run", **overrides):
        return runs.open_run("smoke", data_dir, tmp_path / folder, seed, overrides)

    return open_it


def extension(name):
    """Return a Sphinx extension of the book as a module."""
    return load_module(runs.REPOSITORY / "book" / "_ext" / f"{name}.py")


def load_module(path):
    """Return a Python file outside the package as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def early(monkeypatch):
    """Let x-0 be 0.01 above every reported number at an earlier epoch, x-1 0.04 and x-2 below."""
    rows = []
    for part, subset in exploration.SCORED_ON.items():
        for score, way in exploration.EARLY_WAY_OF.items():
            for name, apart in {"x-0": 0.01, "x-1": 0.04, "x-2": -0.001}.items():
                value = sources.reported(part, score) + apart
                rows.append((name, 66, part, subset, "own", *way, value))
                rows.append((name, 66, part, subset, "128", *way, 0.5))
    columns = ["training", "epoch", "set", "subset", "grid", *records.WAY, "value"]
    monkeypatch.setattr(records, "read_early", lambda: pd.DataFrame(rows, columns=columns))
