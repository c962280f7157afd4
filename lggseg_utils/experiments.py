"""Everything that trains: one job function for a run, the folds of a cross-validation and the trainings of an ablation."""

from dataclasses import dataclass, replace

import pandas as pd
from joblib import Parallel, delayed
from tqdm import tqdm

from lggseg_utils import evaluate, model, preprocess, train
from lggseg_utils.runs import read_csv, write_csv, write_json
from lggseg_utils.settings import Experiment

WRITTEN = ("per_slice.csv", "history.csv", "metrics.json")


@dataclass(frozen=True)
class Job:
    """One training. `split` is a table `patient, slice, split`; the sets named in `sets` are scored afterwards."""

    name: str
    experiment: Experiment
    split: pd.DataFrame
    sets: tuple


def run_job(job, dataset, folder):
    """Train and score one job, or read what an earlier call left in `folder`.

    Returns three tables: per slice, per patient, and the history. An interrupted job resumes from its last epoch.
    """
    tables = [folder / name for name in ("per_slice.csv", "per_patient.csv", "history.csv")]
    if not all(path.exists() for path in (*tables, folder / "model.keras")):
        network = _train(job, dataset, folder)
        scored = evaluate.score_split(network, dataset, job.split, job.experiment, job.sets)
        for path, table in zip(tables[:2], scored, strict=True):
            write_csv(path, table)
        for place in (folder, *folder.glob("network_*")):
            (place / "checkpoint.keras").unlink(missing_ok=True)
    return tuple(map(read_csv, tables))


def _train(job, dataset, folder):
    """Train a job's networks and return their average; writes model.keras and history.csv, where `network` numbers several."""
    networks, histories, several = [], [], job.experiment.networks > 1
    for number in range(job.experiment.networks):
        member = job.experiment.model_copy(
            update={"seed": job.experiment.seed * job.experiment.networks + number}
        )
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
    """Return a run's experiment in the precision that the run began in, on whatever machine it resumes; notes it in run.json."""
    fastest = run.experiment.precision.replace("auto", train.machine_precision())
    run.note(precision=run.record().get("precision", fastest))
    return run.experiment.model_copy(update={"precision": run.record()["precision"]})


def run_jobs(jobs, dataset, folder, unit):
    """Run independent jobs, each in a folder of its name below `folder`; return the tables of `run_job` for each.

    joblib runs them: `joblib.parallel_config` chooses this process (the default), several, or a Dask cluster.
    """
    results = Parallel(return_as="generator")(
        delayed(run_job)(job, dataset, folder / job.name) for job in jobs
    )
    return list(tqdm(results, total=len(jobs), desc=unit, unit=unit, leave=False))


def train_and_score(run, cohort):
    """Train and score a run's network on its own split, or read the results: (per-slice table, history table).

    Writes history.csv, model.keras, per_slice.csv, per_patient.csv, per_slice_own_grid.csv (where the network works on
    another grid than the scores) and, last, metrics.json into the run folder.
    """
    split = preprocess.load_split(run, cohort.slices)
    if not all(run.path(name).exists() for name in (*WRITTEN, "model.keras")):
        job, dataset = (
            Job("run", _settled(run), split, preprocess.SETS),
            preprocess.prepare(cohort, run.experiment),
        )
        per_slice, _, history = run_job(job, dataset, run.folder)
        if run.experiment.size != run.experiment.score_size:
            network, own = (
                train.load_network(run.path("model.keras")),
                replace(dataset, truths=dataset.masks),
            )
            settings = run.experiment.model_copy(update={"score_size": run.experiment.size})
            write_csv(
                run.path("per_slice_own_grid.csv"),
                evaluate.score_split(network, own, split, settings)[0],
            )
        _write_scores(run, per_slice, history)
    return read_csv(run.path("per_slice.csv")), read_csv(run.path("history.csv"))


def cross_validate(run, cohort):
    """Cross-validate a run's experiment, or read the results: the per-slice table of all tested slices, with `fold`.

    There are five folds of slices or patients, as the setting `split` says, or those of a split.csv that is there. Writes split.csv,
    history.csv, per_slice.csv, per_patient.csv and, last, metrics.json.
    """
    if not all(run.path(name).exists() for name in WRITTEN):
        folds, settings = (
            preprocess.load_split(run, cohort.slices, preprocess.draw_folds),
            _settled(run),
        )
        tested = sorted(set(folds.query("split == 'test'")["fold"]))
        jobs = [
            Job(str(fold), settings, preprocess.split_of_fold(folds, fold), ("test",))
            for fold in tested
        ]
        results = run_jobs(
            jobs, preprocess.prepare(cohort, run.experiment), run.path("folds"), "fold"
        )
        tables = [
            [table.assign(fold=fold) for table in each]
            for fold, each in zip(tested, results, strict=True)
        ]
        per_slice, per_patient, history = (
            pd.concat(each, ignore_index=True) for each in zip(*tables, strict=True)
        )
        if run.experiment.split == "slice":
            # A patient's slices lie in several folds, and so do its borders.
            per_patient = evaluate.per_patient_table(per_slice)
        for name, table in {
            "per_slice": per_slice,
            "per_patient": per_patient,
            "history": history,
        }.items():
            write_csv(run.path(f"{name}.csv"), table)
        _write_scores(run, per_slice, history)
    return read_csv(run.path("per_slice.csv"))


def _write_scores(run, per_slice, history):
    """Write the training's time into run.json and, last, metrics.json."""
    run.note_end(training={"epochs": len(history), "seconds": round(history["seconds"].sum(), 1)})
    whole, sets = run.experiment.split == "patient", per_slice.groupby("split", sort=False)
    write_json(
        run.path("metrics.json"),
        {name: evaluate.set_scores(scored, whole) for name, scored in sets},
    )


def ablate(run, cohort):
    """Train under each augmentation and seed, or read the results: a table condition, seed, patient, dice.

    All trainings have the run's split, and are scored on its validation patients. Writes
    ablation_patients.csv (this table) and, last, ablation.csv: condition, seed, dice_patient_mean, epochs.
    """
    if not run.path("ablation.csv").exists():
        settings, split = _settled(run), preprocess.load_split(run, cohort.slices)
        seeds = [
            settings.seed * settings.ablation_seeds + number
            for number in range(settings.ablation_seeds)
        ]
        pairs = [(name, seed) for name in settings.ablation_conditions for seed in seeds]
        arms = [
            settings.model_copy(update={"augmentation": name, "seed": seed}) for name, seed in pairs
        ]
        jobs = [Job(f"{arm.augmentation}-{arm.seed}", arm, split, ("val",)) for arm in arms]
        results = run_jobs(
            jobs, preprocess.prepare(cohort, settings), run.path("ablation"), "training"
        )
        tables = pd.concat(
            [per_patient for _, per_patient, _ in results], keys=pairs, names=["condition", "seed"]
        )
        scores = tables.reset_index(["condition", "seed"])[["condition", "seed", "patient", "dice"]]
        write_csv(run.path("ablation_patients.csv"), scores)
        means = (
            scores.groupby(["condition", "seed"], sort=False)["dice"]
            .mean()
            .rename("dice_patient_mean")
        )
        run.note_end()
        epochs = [len(history) for *_, history in results]
        write_csv(run.path("ablation.csv"), means.reset_index().assign(epochs=epochs))
    return read_csv(run.path("ablation_patients.csv"))
