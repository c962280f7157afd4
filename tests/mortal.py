"""A job that ends its process; TensorFlow is not loaded for it."""

import os
import signal


def die_once(job, dataset, folder):
    """End the process the first time; return the job's name the second."""
    folder.mkdir(parents=True, exist_ok=True)
    if job.name == "mortal" or not (folder / "died").exists():
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return job.name
