"""The scripts of the page on batches, as they are."""

import subprocess
import sys

from lggseg_utils import runs


def test_grids_run_in_this_process_in_two_and_with_papermill(tmp_path, cohort_folder):
    grid = runs.REPOSITORY / "book" / "batch" / "grid.py"
    tables = []
    for jobs in (1, 2):
        command = [sys.executable, grid, cohort_folder, tmp_path / str(jobs), "--jobs", str(jobs)]
        subprocess.run(list(map(str, command)), check=True, capture_output=True)
        tables.append((tmp_path / str(jobs) / "grid.csv").read_text())
    assert tables[0] == tables[1] and len(tables[0].splitlines()) == 3
    command = [
        sys.executable,
        grid.with_name("notebooks.py"),
        cohort_folder,
        tmp_path / "papermill",
    ]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    assert len(list((tmp_path / "papermill").glob("seed*/metrics.json"))) == 2
