"""Seconds that `import lggseg_utils` and `lggseg --help` take beyond Python's own start."""

import statistics
import subprocess
import sys
from pathlib import Path

import common

COMMANDS = {
    "python": [sys.executable, "-c", "pass"],
    "import lggseg_utils": [sys.executable, "-c", "import lggseg_utils"],
    "lggseg --help": [str(Path(sys.executable).with_name("lggseg")), "--help"],
}
ROUNDS = 15


def main():
    """Measure and write startup.json."""
    times = common.in_turn(
        {
            name: lambda command=command: common.seconds(subprocess.run, command, check=True, stdout=subprocess.DEVNULL)
            for name, command in COMMANDS.items()
        },
        ROUNDS,
    )
    beyond = {
        name: statistics.median(a - b for a, b in zip(values, times["python"], strict=True))
        for name, values in times.items()
        if name != "python"
    }
    common.save(
        __file__, {"seconds_beyond_python": beyond, "python": statistics.median(times["python"]), "rounds": ROUNDS}
    )


if __name__ == "__main__":
    main()
