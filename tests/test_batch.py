"""The scripts of the page on batches do what it says: the same code, the same numbers, wherever the grid runs."""

import json
import re
import subprocess
import sys
import time
from contextlib import contextmanager

import pandas as pd
import pytest
from distributed import Client

from lggseg_utils import config

BATCH = config.REPOSITORY / "book" / "batch"


def run_script(name, *arguments):
    """Run a script of the page as a reader would; it must succeed."""
    subprocess.run([sys.executable, BATCH / name, *map(str, arguments)], check=True, capture_output=True, timeout=400)


@contextmanager
def dask_cluster(folder):
    """A Dask scheduler and two workers as processes of their own; yields the scheduler's address."""
    log = folder / "scheduler.log"
    with log.open("w") as stream:
        scheduler = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "distributed.cli.dask_scheduler",
                "--host",
                "127.0.0.1",
                "--port",
                "0",
                "--no-dashboard",
            ],
            stderr=stream,
        )
    try:
        address = wait_for_address(log)
        worker = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "distributed.cli.dask_worker",
                address,
                "--nworkers",
                "2",
                "--nthreads",
                "1",
                "--no-dashboard",
            ],
            stderr=subprocess.DEVNULL,
            cwd=folder,
        )
        yield address
        worker.terminate()
        worker.wait(30)
    finally:
        scheduler.terminate()
        scheduler.wait(30)


def wait_for_address(log):
    """The scheduler's address, once it has printed it."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        found = re.search(r"Scheduler at:\s+(tcp://\S+)", log.read_text())
        if found:
            return found[1]
        time.sleep(0.1)
    pytest.fail(f"no scheduler: {log.read_text()}")


def test_a_grid_has_the_same_numbers_in_one_process_in_two_and_on_a_dask_scheduler(tmp_path, phantom_folder):
    run_script("grid.py", phantom_folder, tmp_path / "one")
    run_script("grid.py", phantom_folder, tmp_path / "two", "--jobs", 2)
    with dask_cluster(tmp_path) as address:
        run_script("grid.py", phantom_folder, tmp_path / "dask", "--scheduler", address)
        with Client(address) as client:
            steps = client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.transition_counter)
    assert steps > 0, "nothing was sent to the scheduler"
    one, two, dask = (pd.read_csv(tmp_path / name / "grid.csv") for name in ("one", "two", "dask"))
    assert one[["seed", "dropout"]].to_numpy().tolist() == [[0, 0.0], [0, 0.2]]
    assert one["loss"].nunique() == 2
    pd.testing.assert_frame_equal(one, two, rtol=1e-6)
    pd.testing.assert_frame_equal(one, dask, rtol=1e-6)


def test_a_notebook_is_run_over_a_grid(tmp_path, phantom_folder):
    run_script("notebooks.py", phantom_folder, tmp_path)
    executed = sorted(path.stem for path in tmp_path.glob("*.ipynb"))
    assert executed == ["seed0-report", "seed1-report"]
    for name in executed:
        settings = json.loads((tmp_path / name / "run.json").read_text())["experiment"]
        assert f"seed{settings['seed']}-{settings['augmentation']}" == name
        assert len(pd.read_csv(tmp_path / name / "history.csv")) == 1
