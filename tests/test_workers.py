"""Where jobs run: in processes of this machine, and on a Dask cluster that loses a worker."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import partial

import pytest
from conftest import assert_one_line, call

from lggseg_utils import data, experiments, preprocess, runs
from lggseg_utils.settings import UserError, load_experiment

DASK = [sys.executable, "-m", "dask"]
EPOCHS = 4
QUICK = {"epochs": EPOCHS, "precision": "float32", "augmentation": "none", "dropout": 0.0}
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

pytestmark = pytest.mark.workers


@pytest.fixture
def grid(cohort_folder):
    """Two small trainings and their data: (jobs, dataset)."""
    cohort = data.read_cohort(cohort_folder)
    jobs = []
    for seed in range(2):
        experiment = load_experiment("smoke", seed, QUICK)
        split = preprocess.draw_split(cohort.slices, "patient", seed)
        jobs.append(experiments.Job(str(seed), experiment, split, ("val",)))
    return jobs, preprocess.prepare(cohort, jobs[0].experiment)


@pytest.fixture
def scheduler(tmp_path):
    """The address of a Dask scheduler of its own process."""
    told = tmp_path / "scheduler.json"
    command = [*DASK, "scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", told]
    process = subprocess.Popen([*map(str, command), "--host", "127.0.0.1"], **QUIET)
    try:
        until = time.monotonic() + 300
        while not told.exists() or not told.read_text().strip():
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.1)
        yield runs.json.loads(told.read_text())["address"]
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def workers(scheduler, tmp_path):
    """Start workers of the scheduler: workers(count, *options) returns their processes."""
    started = []

    def start(count, *options, folder=tmp_path):
        given = ["--no-nanny", "--no-dashboard", "--local-directory", str(tmp_path / "scratch")]
        for _ in range(count):
            command = [*DASK, "worker", scheduler, *given, *(options or ("--nthreads", "1"))]
            started.append(subprocess.Popen(command, cwd=folder, **QUIET))
        from distributed import Client

        with Client(scheduler, set_as_default=False) as client:
            client.wait_for_workers(count, timeout=300)
        return started

    yield start
    for process in started:
        process.kill()
        process.wait()


def kill_in_the_middle(processes, folder):
    """Kill the first process as soon as a training has written an epoch; return the thread."""

    def wait_and_kill():
        until = time.monotonic() + 300
        while not list(folder.rglob("history.csv")) and time.monotonic() < until:
            time.sleep(0.05)
        processes[0].send_signal(signal.SIGKILL)

    thread = threading.Thread(target=wait_and_kill, daemon=True)
    thread.start()
    return thread


def test_a_cluster_that_loses_a_worker_ends_with_the_numbers_of_one_process(
    grid, scheduler, workers, tmp_path
):
    expected = experiments.run_jobs(*grid, tmp_path / "here", "training")
    processes = workers(2)
    out = tmp_path / "cluster"
    killer = kill_in_the_middle(processes, out)
    results = experiments.run_jobs(*grid, out, "training", experiments.Workers(scheduler=scheduler))
    killer.join()
    assert processes[0].wait() == -signal.SIGKILL and processes[1].poll() is None
    for result, one in zip(results, expected, strict=True):
        assert result.per_slice.equals(one.per_slice) and len(result.history) == EPOCHS
    assert not list(out.rglob(".part-*"))


def test_one_worker_of_one_thread_trains_there_and_paths_may_be_relative(
    grid, scheduler, workers, tmp_path, monkeypatch
):
    """joblib's Dask backend would train in this process, and the worker in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    workers(1, folder=tmp_path / "elsewhere")
    monkeypatch.setattr(experiments.train, "fit", lambda *_: pytest.fail("trained here"))
    (job, *_), dataset = grid
    job = experiments.replace(job, experiment=job.experiment.model_copy(update={"epochs": 1}))
    where = experiments.Workers(scheduler=scheduler)
    (result,) = experiments.run_jobs([job], dataset, "out", "training", where)
    assert len(result.history) == 1 and (tmp_path / "out" / "0" / "model.keras").exists()
    assert not (tmp_path / "elsewhere" / "out").exists()
    # What a worker cannot see is said before anything is trained.
    hidden = tmp_path / "hidden"
    monkeypatch.setattr(experiments.Path, "touch", lambda path: None)
    with pytest.raises(UserError, match=rf"does not see {hidden}; name a folder of a file system"):
        experiments.run_jobs([job], dataset, hidden, "training", where)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (None, "the scheduler has no worker; start some with 'dask worker ADDRESS --nthreads 1'"),
        (("--nthreads", "2"), "start the workers with --nthreads 1"),
    ],
)
def test_workers_that_cannot_do_the_job_are_refused(scheduler, workers, tmp_path, options, message):
    if options:
        workers(1, *options)
    with pytest.raises(UserError, match=message):
        experiments.run_jobs([], None, tmp_path, "training", runs.Workers(scheduler=scheduler))


def test_workers_with_other_code_are_refused(scheduler, workers, tmp_path, monkeypatch):
    workers(1)
    monkeypatch.setattr(experiments, "git_commit", OtherCommit())
    with pytest.raises(UserError, match=r"has commit other, this process .*; use the same"):
        experiments.run_jobs([], None, tmp_path, "training", runs.Workers(scheduler=scheduler))


class OtherCommit:
    """A commit that differs where it is asked for on a worker, which gets a copy."""

    def __call__(self):
        return "this"

    def __reduce__(self):
        return partial(str, "other").__reduce__()


def test_processes_of_this_machine_give_the_same_numbers_and_one_may_die(grid, tmp_path, capfd):
    jobs = [
        experiments.replace(job, experiment=job.experiment.model_copy(update={"epochs": 2}))
        for job in grid[0][:2]
    ]
    expected = experiments.run_jobs(jobs, grid[1], tmp_path / "here", "training")
    capfd.readouterr()
    results = experiments.run_jobs(jobs, grid[1], tmp_path / "two", "training", runs.Workers(2))
    assert all(
        one.per_slice.equals(two.per_slice) for one, two in zip(expected, results, strict=True)
    )
    assert "tensorflow" not in capfd.readouterr().err.lower()


def die_once(job, dataset, folder):
    """End the process the first time; return the job's name the second."""
    folder.mkdir(parents=True, exist_ok=True)
    if job.name == "mortal" or not (folder / "died").exists():
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return job.name


def test_a_process_that_dies_loses_its_job_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(experiments, "run_job", die_once)
    jobs = [experiments.Job(name, None, None, ()) for name in ("a", "b")]
    assert experiments.run_jobs(jobs, None, tmp_path, "training", runs.Workers(2)) == ["a", "b"]
    jobs.append(experiments.Job("mortal", None, None, ()))
    with pytest.raises(
        UserError, match=r"a process died 3 times, perhaps .* with a smaller --jobs"
    ):
        experiments.run_jobs(jobs, None, tmp_path, "training", runs.Workers(2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--scheduler tcp://127.0.0.1:1", "no Dask scheduler at tcp://127.0.0.1:1 ("),
        ("--scheduler nonsense://1", "no Dask scheduler at nonsense://1 ("),
        ("--scheduler tcp://a:1 --jobs 2", "--jobs counts processes of this machine; leave it out"),
    ],
)
def test_a_wrong_address_gets_one_line(tmp_path, large_cohort_folder, options, message):
    shutil.copytree(large_cohort_folder, tmp_path / "data")
    command = ["crossval", "--profile", "smoke", "--data", tmp_path / "data"]
    ended = call(*command, "--out", tmp_path / "run", *options.split())
    assert_one_line(ended, message)
