"""Everything that trains: a run, the folds of a cross-validation, the arms of an ablation."""

import os
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from joblib import Parallel, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError
from tqdm import tqdm

from lggseg_utils import evaluate, model, preprocess, train
from lggseg_utils.runs import (
    Workers,
    git_commit,
    lock,
    read_csv,
    stderr_into,
    write_csv,
    write_json,
)
from lggseg_utils.settings import Experiment, UserError

WRITTEN = ("per_slice.csv", "per_patient.csv", "history.csv", "metrics.json")
ABLATION = ("ablation_patients.csv", "ablation.csv")
ATTEMPTS = 3  # a process that dies this often dies for a reason


@dataclass(frozen=True)
class Job:
    """One training: `sets` of the `split`, a table `patient, slice, split`, are scored after it."""

    name: str
    experiment: Experiment
    split: pd.DataFrame
    sets: tuple


THIS_PROCESS = Workers()


class Result(NamedTuple):
    """What a job leaves: tables of slices, of patients and of the training."""

    per_slice: pd.DataFrame
    per_patient: pd.DataFrame
    history: pd.DataFrame


def run_job(job, dataset, folder):
    """Train and score one job, or read what an earlier call left in `folder`; return a `Result`.

    An interrupted job resumes from its last epoch.
    """
    tables = [folder / f"{name}.csv" for name in Result._fields]
    model = folder / "model.keras"
    if not all(path.exists() for path in (*tables, model)):
        trained = model.exists() and (folder / "history.csv").exists()
        network = train.load_network(model) if trained else _train(job, dataset, folder)
        scored = evaluate.score_split(network, dataset, job.split, job.experiment, job.sets)
        for path, table in zip(tables[:2], scored, strict=True):
            write_csv(path, table)
        for place in (folder, *folder.glob("network_*")):
            (place / "checkpoint.keras").unlink(missing_ok=True)
    return Result(*map(read_csv, tables))


def _train(job, dataset, folder):
    """Train a job's networks and return their average.

    Writes model.keras and history.csv, where the column `network` numbers several.
    """
    networks, histories = [], []
    several = job.experiment.networks > 1
    for number in range(job.experiment.networks):
        seed = job.experiment.seed * job.experiment.networks + number
        member = job.experiment.model_copy(update={"seed": seed})
        place = folder / f"network_{number}" if several else folder
        network, history = train.fit(member, dataset, job.split, place)
        networks.append(network)
        histories.append(history.assign(network=number))
    if several:
        write_csv(folder / "history.csv", pd.concat(histories))
    network = model.average(networks, job.experiment.mirrored)
    train.save_network(network, folder / "model.keras")
    return network


def _settled(run):
    """Return a run's experiment in the precision that it began in, whatever machine resumes it.

    The precision is noted in run.json.
    """
    precision = run.record().get("precision", run.experiment.precision)
    if precision == "auto":
        precision = train.machine_precision()
    run.note(precision=precision)
    return run.experiment.model_copy(update={"precision": precision})


def run_jobs(jobs, dataset, folder, unit, workers=THIS_PROCESS):
    """Run independent jobs, each in a folder of its name below `folder`; return a `Result` each.

    unit: what the progress bar calls a job. A worker that dies loses its job, which another one
    resumes from its last epoch. Raises `UserError` where workers can't be used.
    """
    # Other processes may work in another folder.
    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if workers.scheduler:
        return _run_on_cluster(jobs, dataset, folder, unit, workers.scheduler)
    if workers.processes > 1:
        return _run_in_processes(jobs, dataset, folder, unit, workers.processes)
    done = (run_job(job, dataset, folder / job.name) for job in jobs)
    return list(tqdm(done, total=len(jobs), desc=unit, unit=unit, leave=False))


def _run_in_processes(jobs, dataset, folder, unit, processes):
    """Run jobs in several processes of this machine, whose chatter goes to workers.log."""
    for _ in range(ATTEMPTS):
        with stderr_into(folder / "workers.log") as terminal:
            bar = {"total": len(jobs), "desc": unit, "unit": unit, "leave": False}
            calls = (delayed(run_job)(job, dataset, folder / job.name) for job in jobs)
            try:
                done = Parallel(n_jobs=processes, return_as="generator")(calls)
                return list(tqdm(done, file=terminal, **bar))
            except TerminatedWorkerError:
                continue
    raise UserError(
        f"a process died {ATTEMPTS} times, perhaps because memory ran out (see "
        f"{folder / 'workers.log'}); the same command resumes, with a smaller --jobs."
    )


def _run_on_cluster(jobs, dataset, folder, unit, address):
    """Run jobs on the workers of the Dask scheduler at an address.

    joblib's Dask backend would run everything here if there is one worker of one thread. The data
    are the result of a task: Dask computes that again if the worker that holds it dies.
    """
    from distributed import KilledWorker, as_completed
    from distributed.client import FutureCancelledError

    with _connected(address) as client:
        _check_workers(client, folder)
        held = client.submit(_identity, dataset, pure=False)
        futures = [
            client.submit(_run_locked_job, job, held, folder / job.name, pure=False) for job in jobs
        ]
        try:
            ended = as_completed(futures, loop=client.loop)
            for future in tqdm(ended, total=len(jobs), desc=unit, unit=unit, leave=False):
                future.result()
            return client.gather(futures)
        except KilledWorker:
            raise UserError(
                "a job ended several workers, perhaps because memory ran out; their logs say more, "
                "and the same command resumes."
            ) from None
        except (FutureCancelledError, OSError) as error:
            raise UserError(
                f"the scheduler at {address} is gone ({type(error).__name__}); start it again, and "
                "the same command resumes."
            ) from None


def _identity(dataset):
    """Return what is given."""
    return dataset


def _run_locked_job(job, dataset, folder):
    """Run a job that no other worker runs: one that lost its scheduler may still be training."""
    with lock(folder):
        return run_job(job, dataset, folder)


@contextmanager
def _connected(address):
    """Yield a client of the Dask scheduler at an address; `UserError` where there is none."""
    try:
        from distributed import Client
    except ImportError:
        raise UserError(
            "--scheduler needs Dask: pip install distributed, here and for the workers."
        ) from None
    advice = "start one with 'dask scheduler', which prints its address."
    # Of another kind of address, Dask's own clean-up ends in a traceback.
    if not address.startswith(("tcp://", "tls://")):
        raise UserError(
            f"no Dask scheduler at {address} (it begins with tcp:// or tls://); {advice}"
        )
    try:
        client = Client(address, timeout=10, set_as_default=False)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:100]
        raise UserError(f"no Dask scheduler at {address} ({reason}); {advice}") from None
    with client, warnings.catch_warnings():
        # The data are sent once, and that they are large is known.
        warnings.filterwarnings("ignore", message="Sending large graph")
        yield client


def _check_workers(client, folder):
    """Refuse workers that could not do a job, before anything is trained."""
    _check_threads(client)
    _check_commits(client)
    _check_folder(client, folder)


def _check_threads(client):
    """Refuse no worker at all, and workers of several threads."""
    threads = client.nthreads()
    if not threads:
        raise UserError(
            "the scheduler has no worker; start some with 'dask worker ADDRESS --nthreads 1'."
        )
    if max(threads.values()) > 1:
        raise UserError(
            "two trainings in one process would share a generator of random numbers; start the "
            "workers with --nthreads 1."
        )


def _check_commits(client):
    """Refuse workers that lack the package, or have another commit of it."""
    try:
        commits = client.run(git_commit)
    except ImportError as error:
        raise UserError(
            f"a worker can't import {error.name}; start the workers in a clone, after make install."
        ) from None
    for worker, commit in commits.items():
        if commit != git_commit():
            raise UserError(
                f"worker {worker} has commit {commit or 'unknown'}, this process {git_commit()}; "
                "use the same on all machines."
            )


def _check_folder(client, folder):
    """Refuse workers that do not see a folder of this machine."""
    marker = folder / f".part-seen-{os.getpid()}"
    marker.touch()
    seen = client.run(os.path.exists, str(marker))
    marker.unlink(missing_ok=True)
    blind = [worker for worker, sees in seen.items() if not sees]
    if blind:
        raise UserError(
            f"worker {blind[0]} does not see {folder}; name a folder of a file system that all "
            "machines share, under the same path."
        )


def train_and_score(run, cohort):
    """Train and score a run's network on its own split, or read the results.

    Returns (per-slice table, history table). Writes history.csv, model.keras, per_slice.csv,
    per_patient.csv, per_slice_own_grid.csv (where the network works on another grid than the
    scores) and, last, metrics.json into the run folder.
    """
    split = preprocess.load_split(run, cohort.slices)
    if not all(run.path(name).exists() for name in (*WRITTEN, "model.keras")):
        job = Job("run", _settled(run), split, preprocess.SETS)
        dataset = preprocess.prepare(cohort, run.experiment)
        result = run_job(job, dataset, run.folder)
        if run.experiment.size != run.experiment.score_size:
            _score_own_grid(run, dataset, split)
        _write_scores(run, result.per_slice, result.history)
    return read_csv(run.path("per_slice.csv")), read_csv(run.path("history.csv"))


def _score_own_grid(run, dataset, split):
    """Score a run's network on its own grid, too, and write per_slice_own_grid.csv."""
    network = train.load_network(run.path("model.keras"))
    per_slice = evaluate.score_own_grid(network, dataset, split, run.experiment)
    write_csv(run.path("per_slice_own_grid.csv"), per_slice)


def cross_validate(run, cohort, workers=THIS_PROCESS):
    """Cross-validate a run's experiment, or read the results.

    Returns the per-slice table of all tested slices, with `fold`. There are five folds of slices or
    patients, as the setting `split` says, or those of a split.csv that is there. Writes split.csv,
    history.csv, per_slice.csv, per_patient.csv and, last, metrics.json.
    """
    if not all(run.path(name).exists() for name in WRITTEN):
        folds = preprocess.load_split(run, cohort.slices, preprocess.draw_folds)
        settings = _settled(run)
        tested = sorted(set(folds.query("split == 'test'")["fold"]))
        jobs = [
            Job(str(fold), settings, preprocess.split_of_fold(folds, fold), ("test",))
            for fold in tested
        ]
        dataset = preprocess.prepare(cohort, run.experiment)
        results = run_jobs(jobs, dataset, run.path("folds"), "fold", workers)
        whole = _of_all_folds(results, tested, run.experiment.split)
        for name, table in whole._asdict().items():
            write_csv(run.path(f"{name}.csv"), table)
        _write_scores(run, whole.per_slice, whole.history)
    return read_csv(run.path("per_slice.csv"))


def _of_all_folds(results, tested, protocol):
    """Return the `Result` of several folds together: tables with the column `fold`."""
    numbered = [
        [table.assign(fold=fold) for table in result]
        for fold, result in zip(tested, results, strict=True)
    ]
    whole = Result(*(pd.concat(each, ignore_index=True) for each in zip(*numbered, strict=True)))
    if protocol == "slice":
        # A patient's slices lie in several folds, and so do its borders.
        return whole._replace(per_patient=evaluate.per_patient_table(whole.per_slice))
    return whole


def _write_scores(run, per_slice, history):
    """Write the training's time into run.json and, last, metrics.json."""
    run.note_end(training=_effort([history]))
    whole_patients = run.experiment.split == "patient"
    sets = per_slice.groupby("split", sort=False)
    scores = {name: evaluate.set_scores(scored, whole_patients) for name, scored in sets}
    write_json(run.path("metrics.json"), scores)


def _effort(histories):
    """Return epochs and seconds of some trainings, together."""
    seconds = sum(history["seconds"].sum() for history in histories)
    return {"epochs": sum(map(len, histories)), "seconds": round(float(seconds), 1)}


def ablate(run, cohort, workers=THIS_PROCESS):
    """Train under each augmentation and seed, or read the results.

    Returns a table `condition, seed, patient, dice`. All trainings have the run's split, and are
    scored on its validation patients. Writes ablation_patients.csv (this table) and, last,
    ablation.csv: condition, seed, dice_patient_mean, epochs.
    """
    if not all(run.path(name).exists() for name in ABLATION):
        settings, split = _settled(run), preprocess.load_split(run, cohort.slices)
        arms = _arms(settings)
        jobs = [Job(f"{arm.augmentation}-{arm.seed}", arm, split, ("val",)) for arm in arms]
        dataset = preprocess.prepare(cohort, settings)
        results = run_jobs(jobs, dataset, run.path("ablation"), "training", workers)
        _write_ablation(run, arms, results)
    return read_csv(run.path("ablation_patients.csv"))


def _arms(settings):
    """Return an ablation's experiments, one for each augmentation and seed."""
    first, count = settings.seed * settings.ablation_seeds, settings.ablation_seeds
    return [
        settings.model_copy(update={"augmentation": name, "seed": seed})
        for name in settings.ablation_conditions
        for seed in range(first, first + count)
    ]


def _write_ablation(run, arms, results):
    """Write the tables of an ablation, whose arms have these results."""
    keys = ["condition", "seed"]
    tables = pd.concat(
        [result.per_patient for result in results],
        keys=[(arm.augmentation, arm.seed) for arm in arms],
        names=keys,
    )
    scores = tables.reset_index(keys)[[*keys, "patient", "dice"]]
    write_csv(run.path("ablation_patients.csv"), scores)
    means = scores.groupby(keys, sort=False)["dice"].mean().rename("dice_patient_mean")
    histories = [result.history for result in results]
    run.note_end(training=_effort(histories))
    epochs = [len(history) for history in histories]
    write_csv(run.path("ablation.csv"), means.reset_index().assign(epochs=epochs))
