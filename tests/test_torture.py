"""A whole run, killed again and again: the same command ends with the numbers of an undisturbed run (make torture)."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

KILLS = 20
LGGSEG = Path(sys.executable).with_name("lggseg")


def start(data, folder):
    """Start a smoke run in a process group of its own."""
    command = [LGGSEG, "run", "--profile", "smoke", "--data", data, "--out", folder]
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


@pytest.mark.torture
def test_a_run_killed_twenty_times_ends_as_if_undisturbed(tmp_path, phantom_folder):
    started = time.monotonic()
    assert start(phantom_folder, tmp_path / "whole").wait(600) == 0
    seconds = time.monotonic() - started
    draw = random.Random(0)
    for kill in range(KILLS):
        process = start(phantom_folder, tmp_path / "killed")
        time.sleep(draw.uniform(0, seconds))
        # In turn: the command alone, whose notebook's kernel is left behind, and everything it started.
        (os.kill if kill % 2 else os.killpg)(process.pid, signal.SIGKILL)
        process.wait()
    process = start(phantom_folder, tmp_path / "killed")
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    for name in ("metrics.json", "per_slice.csv", "per_patient.csv", "split.csv", "slices.csv", "ablation.csv"):
        assert (tmp_path / "killed" / name).read_text() == (tmp_path / "whole" / name).read_text(), name
    histories = [pd.read_csv(tmp_path / name / "history.csv").drop(columns="seconds") for name in ("killed", "whole")]
    pd.testing.assert_frame_equal(*histories, check_exact=True)
    assert len(list((tmp_path / "killed" / "notebooks").glob("*.ipynb"))) > 10
