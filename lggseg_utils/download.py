"""The LGG cohort from Kaggle: downloaded, taken up again after an interruption, checked."""

import os
import shutil
import threading
from concurrent.futures import Future, wait
from pathlib import Path

import requests
import tenacity

from lggseg_utils.config import UserError, place
from lggseg_utils.data import FAULTS_OF_THE_DISK, LGG_COHORT, find_slices

HANDLE = "mateuszbuda/lgg-mri-segmentation"
ATTEMPTS = 4
PAUSE = 5.0  # seconds before the second attempt, doubled before each further one
PATIENCE = 60.0  # seconds without a byte after which a server is given up
PASSING = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError, TimeoutError)


def fetch(folder):
    """Download the LGG cohort into `folder`, which appears whole or not at all; return the folder.

    kagglehub downloads, shows the progress and takes a token from the environment or Kaggle's own file. Faults of the network
    and of the server are tried again, ATTEMPTS times in all; what has arrived is kept beside `folder` for the next call. Raises
    `UserError` with what to do when the cohort can't be had, and for a folder that holds something else.
    """
    folder = place(folder)
    if folder.exists() and any(folder.iterdir()):
        _refuse_other(_count(folder), f"{folder} holds", "remove it and run the same command again")
        return folder
    staging = folder.with_name(f".{folder.name}-download")
    downloaded = Path(_try(staging))
    try:
        _refuse_other(_count(downloaded), "what came from Kaggle holds", "nothing was kept; run the same command again")
        folder.parent.mkdir(parents=True, exist_ok=True)
        downloaded.replace(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder


def _try(staging):
    """Download into kagglehub's cache under `staging`; what can't be used is removed, what can be taken up again is kept."""
    retry = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=tenacity.wait_exponential(PAUSE),
        retry=tenacity.retry_if_exception(_may_pass),
        reraise=True,
    )
    try:
        return retry(_download, staging)
    except Exception as error:  # kagglehub raises its HTTP client's, the archive's and its own errors alike
        if getattr(error, "errno", None) in FAULTS_OF_THE_DISK:
            raise
        if not _may_pass(error):
            shutil.rmtree(staging, ignore_errors=True)
        raise UserError(
            f"Kaggle's cohort could not be downloaded ({_name(error)}). Check the network; if Kaggle asks who you are, "
            "put a token in KAGGLE_API_TOKEN or ~/.kaggle/kaggle.json (kaggle.com, Settings, API), and run the same command again."
        ) from None


def _download(staging):
    """One attempt; returns the folder with the unpacked files.

    kagglehub would wait for ever for a server that stalls, so it works in a thread that is left behind when nothing arrives.
    """
    outcome = Future()
    threading.Thread(target=_work, args=(staging, outcome), daemon=True).start()
    before, now = None, _size(staging)
    while now != before:
        wait([outcome], timeout=PATIENCE)
        if outcome.done():
            return outcome.result()
        before, now = now, _size(staging)
    raise TimeoutError


def _work(staging, outcome):
    """Let kagglehub download; the outcome is the folder or the exception."""
    os.environ["KAGGLEHUB_CACHE"] = str(staging)
    try:
        import kagglehub

        outcome.set_result(kagglehub.dataset_download(HANDLE))
    except Exception as error:
        outcome.set_exception(error)


def _size(folder):
    """Bytes in a folder."""
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


def _may_pass(error):
    """Whether another attempt may succeed, with what has arrived so far."""
    if isinstance(error, requests.HTTPError):
        return error.response is not None and error.response.status_code in (429, *range(500, 600))
    return isinstance(error, PASSING)


def _name(error):
    """Kind of an error, without its message, which might hold a token."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP status {error.response.status_code}"
    return type(error).__name__


def _count(folder):
    """Number of patients and of slices in a folder; (0, 0) where it holds none."""
    try:
        found = find_slices(folder)
    except UserError:
        return 0, 0
    return found["patient"].nunique(), len(found)


def _refuse_other(counted, what, remedy):
    """Raise `UserError` where this is not the whole cohort."""
    if counted != LGG_COHORT:
        patients, slices = LGG_COHORT
        raise UserError(
            f"{what} {counted[0]} patients and {counted[1]} slices, expected {patients} and {slices}: {remedy}."
        )
