"""The scripts of the page on batches, as they are."""

import subprocess
import sys

import pytest

from lggseg_utils import runs

BATCH = runs.REPOSITORY / "book" / "batch"


def run(script, *arguments):
    """Run a script of the page with some arguments."""
    command = [sys.executable, BATCH / script, *arguments]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)


def table_of_grid(cohort_folder, out, jobs):
    """Return what a grid of trainings, some at a time, writes into its table."""
    run("grid.py", cohort_folder, out, "--jobs", jobs)
    return (out / "grid.csv").read_text()


def test_grids_run_in_this_process_and_with_papermill(tmp_path, cohort_folder):
    assert len(table_of_grid(cohort_folder, tmp_path / "grid", 1).splitlines()) == 3
    run("notebooks.py", cohort_folder, tmp_path / "papermill")
    assert len(list((tmp_path / "papermill").glob("seed*/metrics.json"))) == 2


@pytest.mark.workers
def test_a_grid_in_two_processes_gives_what_it_gives_in_one(tmp_path, cohort_folder):
    one, two = (table_of_grid(cohort_folder, tmp_path / str(jobs), jobs) for jobs in (1, 2))
    assert one == two
