"""What every benchmark needs: contenders timed in turn, and results written with the machine's
description.
"""

import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from lggseg_utils import runs, train


def in_turn(contenders, rounds):
    """Seconds of each contender, {name: [seconds per round]}; contenders: {name: function that
    returns seconds}.

    All run once a round, one after the other, so that the machine's moods fall on every one; the
    first round warms up and is left out.
    """
    times = {name: [] for name in contenders}
    for _ in range(rounds + 1):
        for name, contender in contenders.items():
            times[name].append(contender())
    return {name: values[1:] for name, values in times.items()}


def seconds(function, *arguments, **options):
    """Seconds a call takes."""
    started = time.perf_counter()
    function(*arguments, **options)
    return time.perf_counter() - started


def example(count, size):
    """Random slices: images uint8 (count, size, size, 3), masks uint8 (count, size, size) of 0 and
    1.
    """
    images = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)
    return images, (images[..., 0] > 250).astype(np.uint8)


def ratio(slower, faster):
    """Median over the rounds of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(slower, faster, strict=True))


def peak():
    """Most memory this process has held so far, in bytes; Linux hands getrusage's own figure down
    from parent to child.
    """
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def save(script, result):
    """Write a benchmark's result beside its script, with the machine and the versions, and print
    it.
    """
    with tempfile.TemporaryDirectory() as folder:
        record = runs.open_run("smoke", run_dir=f"{folder}/run").record()
    threads = os.environ.get("TF_NUM_INTRAOP_THREADS", "all cores")
    about = {
        "machine": record["machine"],
        "versions": record["versions"],
        "precision": train.machine_precision(),
    }
    about["machine"] |= {"threads": threads, "kernel": platform.release()}
    runs.write_json(Path(script).with_suffix(".json"), {**result, **about})
    print(json.dumps(result, indent=2))
