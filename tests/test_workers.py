"""Where jobs run: in processes of this machine, and on a Dask cluster; both lose a worker."""

import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from types import SimpleNamespace

import distributed
import mortal
import psutil
import pytest
from conftest import HEARS_CTRL_C, STOPPED, wait_for

from lggseg_utils import data, experiments, preprocess, runs
from lggseg_utils.settings import UserError, load_experiment

DASK = [sys.executable, "-m", "dask"]
EPOCHS = 8
QUICK = {"size": 16, "filters": 1, "depth": 2, "dropout": 0.0, "epochs": EPOCHS}
QUICK |= {"precision": "float32", "augmentation": "none"}
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


@pytest.fixture(scope="module")
def grid(cohort_folder):
    """Two small trainings and their data: (jobs, dataset)."""
    cohort = data.read_cohort(cohort_folder)
    jobs = []
    for seed in range(2):
        experiment = load_experiment("smoke", seed, QUICK)
        split = preprocess.draw_split(cohort.slices, "patient", seed)
        jobs.append(experiments.Job(str(seed), experiment, split, ("val",)))
    return jobs, preprocess.prepare(cohort, jobs[0].experiment)


@pytest.fixture(scope="module")
def expected(grid, tmp_path_factory):
    """The results of the grid in one process."""
    return experiments.run_jobs(*grid, tmp_path_factory.mktemp("here"), "training")


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    """The address of a Dask scheduler of its own process."""
    told = tmp_path_factory.mktemp("dask") / "scheduler.json"
    command = [*DASK, "scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", told]
    process = subprocess.Popen([*map(str, command), "--host", "127.0.0.1"], **QUIET)
    wait_for(told, process)
    while not told.read_text().strip():
        time.sleep(0.1)
    yield runs.json.loads(told.read_text())["address"]
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def workers(scheduler, tmp_path_factory):
    """Two workers of the scheduler, which work in another folder."""
    folder = tmp_path_factory.mktemp("elsewhere")
    options = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(folder)]
    command = [*DASK, "worker", scheduler, *options]
    started = [subprocess.Popen(command, cwd=folder, **QUIET) for _ in range(2)]
    with distributed.Client(scheduler, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=300)
    yield started
    for process in started:
        process.kill()
        process.wait()


def kill_in_the_middle(kill, folder):
    """Call `kill` as soon as a training below a folder has written an epoch; return the thread."""

    def wait_and_kill():
        until = time.monotonic() + 300
        while not list(folder.rglob("history.csv")) and time.monotonic() < until:
            time.sleep(0.01)
        kill()

    thread = threading.Thread(target=wait_and_kill, daemon=True)
    thread.start()
    return thread


def assert_same(results, expected):
    """Assert that trainings ended, with the numbers of others."""
    for result, one in zip(results, expected, strict=True):
        assert result.per_slice.equals(one.per_slice) and len(result.history) == EPOCHS


@pytest.mark.workers
def test_a_cluster_that_loses_a_worker_ends_with_the_numbers_of_one_process(
    grid, expected, scheduler, workers, tmp_path
):
    killer = kill_in_the_middle(workers[0].kill, tmp_path)
    where = experiments.Workers(scheduler=scheduler)
    results = experiments.run_jobs(*grid, tmp_path, "training", where)
    killer.join()
    assert workers[0].wait() == -signal.SIGKILL and workers[1].poll() is None
    assert_same(results, expected)
    assert not list(tmp_path.rglob(".part-*"))


@pytest.mark.workers
def test_one_worker_of_one_thread_trains_there_and_paths_may_be_relative(
    grid, scheduler, workers, tmp_path, monkeypatch
):
    """joblib's Dask backend would train in this process, and the worker in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    workers[0].kill()  # or by the test before
    monkeypatch.setattr(experiments.train, "fit", lambda *_: pytest.fail("trained here"))
    (job, *_), dataset = grid
    where = experiments.Workers(scheduler=scheduler)
    (result,) = experiments.run_jobs([job], dataset, "out", "training", where)
    assert len(result.history) == EPOCHS and (tmp_path / "out" / "0" / "model.keras").exists()
    # What a worker cannot see is said before anything is trained.
    hidden = tmp_path / "hidden"
    monkeypatch.setattr(experiments.Path, "touch", lambda path: None)
    with pytest.raises(UserError, match=rf"does not see {hidden}; name a folder of a file system"):
        experiments.run_jobs([job], dataset, hidden, "training", where)


def refused(tmp_path, message, **options):
    """Assert that a cluster in this process, of these options, is refused with a message."""
    options |= {"processes": False, "protocol": "tcp", "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, pytest.raises(UserError, match=message):
        where = runs.Workers(scheduler=cluster.scheduler_address)
        experiments.run_jobs([], None, tmp_path, "training", where)


def test_workers_that_cannot_do_the_job_are_refused(tmp_path):
    message = "the scheduler has no worker; start some with 'dask worker ADDRESS --nthreads 1'"
    refused(tmp_path, message, n_workers=0)
    message = "start the workers with --nthreads 1"
    refused(tmp_path, message, n_workers=1, threads_per_worker=2)


def test_workers_with_other_code_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(experiments, "git_commit", OtherCommit())
    message = r"has commit other, this process .*; use the same"
    refused(tmp_path, message, n_workers=1, threads_per_worker=1)


class OtherCommit:
    """A commit that differs where it is asked for on a worker, which gets a copy."""

    def __call__(self):
        return "this"

    def __reduce__(self):
        return partial(str, "other").__reduce__()


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense://1"])
def test_a_wrong_address_is_named(tmp_path, monkeypatch, address):
    impatient = partial(distributed.Client, timeout=1)
    monkeypatch.setattr(
        distributed, "Client", lambda address, timeout, **options: impatient(address, **options)
    )
    with pytest.raises(UserError, match=rf"no Dask scheduler at {address} \("):
        experiments.run_jobs([], None, tmp_path, "training", runs.Workers(scheduler=address))


def kill_a_process():
    """Kill one of the processes in which joblib runs jobs."""
    children = psutil.Process().children()
    next(each for each in children if "LokyProcess" in " ".join(each.cmdline())).kill()


@pytest.mark.workers
def test_two_processes_of_which_one_is_killed_end_with_the_numbers_of_one(
    grid, expected, tmp_path, capfd
):
    capfd.readouterr()
    killer = kill_in_the_middle(kill_a_process, tmp_path)
    assert_same(experiments.run_jobs(*grid, tmp_path, "training", runs.Workers(2)), expected)
    killer.join()
    assert "tensorflow" not in capfd.readouterr().err.lower()


def test_a_process_that_dies_loses_its_job_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(experiments, "run_job", mortal.die_once)
    jobs = [SimpleNamespace(name=name) for name in ("a", "b")]
    assert experiments.run_jobs(jobs, None, tmp_path, "training", runs.Workers(2)) == ["a", "b"]
    jobs.append(SimpleNamespace(name="mortal"))
    with pytest.raises(
        UserError, match=r"a process died 3 times, perhaps .* with a smaller --jobs"
    ):
        experiments.run_jobs(jobs, None, tmp_path, "training", runs.Workers(2))


@pytest.mark.workers
def test_ctrl_c_ends_all_processes_and_leaves_a_folder_that_resumes(tmp_path, cohort_folder):
    settings = {**QUICK, "epochs": 30}
    pairs = [f"--set={name}={value}" for name, value in settings.items()]
    command = ["ablate", "--profile", "smoke", "--data", cohort_folder, "--out", tmp_path]
    process = subprocess.Popen(
        [sys.executable, "-c", HEARS_CTRL_C, *map(str, command), *pairs, "--jobs", "2"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    histories = [tmp_path / "ablation" / name / "history.csv" for name in ("none-0", "report-0")]
    for path in histories:
        wait_for(path, process)
    children = psutil.Process(process.pid).children()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    told = process.communicate(timeout=60)[1]
    assert told.strip().splitlines()[-1] == STOPPED and "Traceback" not in told
    assert len(children) >= 2 and not psutil.wait_procs(children, timeout=30)[1]
    before = [runs.read_csv(path) for path in histories]
    assert max(map(len, before)) < settings["epochs"]
    run = runs.open_run("smoke", cohort_folder, tmp_path, 0, settings, "ablate")
    experiments.ablate(run, data.load_cohort(run))
    for path, rows in zip(histories, before, strict=True):
        whole = runs.read_csv(path)
        # A checkpoint follows its row of the history; the last one may be made again.
        kept = len(rows) - 1
        assert len(whole) == settings["epochs"] and whole.head(kept).equals(rows.head(kept))
