"""Time reading, checking, resizing and caching a cohort at 128x128, and loading it from the cache."""

import json
import sys
import tempfile
import time
from pathlib import Path

from lggseg_utils import config, preprocess


def timed(run):
    """Seconds to load a run's cohort."""
    started = time.perf_counter()
    cohort = preprocess.load_cohort(run)
    return time.perf_counter() - started, cohort


def main(data_dir, repeats=3):
    """Measure and write cohort.json."""
    cold, warm = [], []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            run = config.open_run("report128", data_dir, folder)
            seconds, cohort = timed(run)
            cold.append(seconds)
            warm.append(timed(run)[0])
            record = run.record()
    result = {"data": record["data"], "size": cohort.images.shape[1], "cold_seconds": cold, "cached_seconds": warm,
              "machine": record["machine"], "versions": record["versions"]}  # fmt: skip
    config.write_json(Path(__file__).with_suffix(".json"), result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main(sys.argv[1])
