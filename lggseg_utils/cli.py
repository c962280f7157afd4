"""The command line: run, train, crossval, ablate, predict, book, fetch, record."""

import errno
import importlib
import json
import math
import os
import signal
import sys
from typing import NamedTuple

import click
import yaml

from lggseg_utils.settings import UserError, read_yaml

# TensorFlow's start-up messages tell a user nothing.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Patients or slices, whichever are drawn, that a split needs: three sets, or ten parts of folds.
NEEDED = {"run": 3, "train": 3, "ablate": 3, "crossval": 10}


@click.group()
@click.version_option(package_name="lggseg_utils")
def commands():
    """Replicate a report on brain tumour segmentation: execute its notebooks, build its book."""


EXPERIMENT = (
    click.option(
        "--profile", default="demo", show_default=True, help="A profile's name, or a YAML file."
    ),
    click.option(
        "--data",
        "data_dir",
        default="",
        help="Folder or zip in Kaggle's layout.  [default: the sample]",
    ),
    click.option("--out", "run_dir", default="", help="Run folder.  [default: runs/PROFILE]"),
    click.option(
        "--seed", default=0, show_default=True, help="Seed of split, weights, order, augmentation."
    ),
    click.option(
        "--set",
        "pairs",
        multiple=True,
        metavar="KEY=VALUE",
        help="Change one setting; may be repeated.",
    ),
    click.option(
        "--skip-bad", is_flag=True, help="Leave out slices that can't be used; they are recorded."
    ),
)
WORKERS = (
    click.option(
        "--jobs",
        default=1,
        show_default=True,
        type=click.IntRange(1),
        help="Trainings at a time, each in a process of this machine.",
    ),
    click.option(
        "--scheduler",
        default="",
        metavar="ADDRESS",
        help="Train on the workers of this Dask scheduler, tcp://HOST:8786.",
    ),
)


def _options(*options):
    """Return a decorator that adds click's options to a command, in this order."""

    def add(command):
        for option in reversed(options):
            command = option(command)
        return command

    return add


def _overrides(pairs, skip_bad):
    """Turn --set KEY=VALUE and --skip-bad into a dictionary; values are read as YAML."""
    settings = {"skip_bad": True} if skip_bad else {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"--set {pair}: expected KEY=VALUE.")
        try:
            settings[name.strip()] = read_yaml(value)
        except yaml.YAMLError:
            raise UserError(
                f"--set {pair}: the value is not valid YAML; put quotes around it."
            ) from None
    return settings


def _import(name):
    """Import a module of the package when it is needed, without TensorFlow's messages."""
    from lggseg_utils.runs import stderr_into

    with stderr_into(os.devnull):
        return importlib.import_module(f"lggseg_utils.{name}")


class _Opened(NamedTuple):
    """A run whose folder is locked, and the parameters that its notebooks take."""

    run: object
    parameters: dict


def _open(command, profile, data_dir, run_dir, seed, pairs, skip_bad):
    """Open and lock the run folder of a subcommand; return an `_Opened`."""
    from lggseg_utils import runs

    # Notebooks are executed in another folder.
    if profile.endswith((".yml", ".yaml")):
        profile = os.path.abspath(os.path.expanduser(profile))
    if data_dir:
        data_dir = os.path.abspath(os.path.expanduser(data_dir))
    overrides = _overrides(pairs, skip_bad)
    parameters = {
        "profile": profile,
        "data_dir": data_dir,
        "run_dir": run_dir,
        "seed": seed,
        "overrides": overrides,
    }
    if not data_dir:
        runs.require_clone("for its sample of patients")
    runs.experiment_of(command, profile, seed, overrides)
    folder = runs.run_folder(**parameters, command=command)
    click.get_current_context().with_resource(runs.lock(folder))
    run = runs.open_run(**parameters, command=command)
    if not run.record()["git_commit"]:
        click.echo(
            "lggseg: no commit is recorded: git, or the clone's history, is missing.", err=True
        )
    return _Opened(run, {**parameters, "run_dir": str(run.folder)})


def _workers(jobs, scheduler):
    """Return the `Workers` of --jobs and --scheduler."""
    from lggseg_utils.runs import Workers

    if scheduler and jobs > 1:
        raise UserError("--jobs counts processes of this machine; leave it out with --scheduler.")
    return Workers(jobs, scheduler)


@commands.command()
@_options(*EXPERIMENT)
@click.option("--book", "builds_book", is_flag=True, help="Then build the book of this run.")
def run(builds_book, **options):
    """Execute the chapters that depend on the run; with --book, all of them.

    After an interruption, the same command resumes.

    The last line is the folder of the executed notebooks or, with --book, the book's first page.
    """
    from lggseg_utils import runs

    runs.require_clone("to execute its notebooks")
    opened = _open("run", **options)
    # Not kept while the notebooks run: it takes a gigabyte.
    _import("data").load_cohort(opened.run, NEEDED["run"])
    _import("chapters").execute(opened.run, opened.parameters, whole_book=builds_book)
    _print_scores(opened.run)
    if builds_book:
        print(_import("book").build(opened.run.folder))
    else:
        print(opened.run.path("notebooks"))


@commands.command()
@_options(*EXPERIMENT)
def train(**options):
    """Train and score a network, without notebooks.

    After an interruption, the same command resumes. `lggseg run` with the same options goes on in
    the same folder.
    """
    opened = _open("train", **options)
    cohort = _import("data").load_cohort(opened.run, NEEDED["train"])
    _import("experiments").train_and_score(opened.run, cohort)
    _print_scores(opened.run)
    print(opened.run.path("metrics.json"))


@commands.command()
@_options(*EXPERIMENT, *WORKERS)
def crossval(jobs, scheduler, **options):
    """Cross-validate in five folds. After an interruption, the same command resumes."""
    workers = _workers(jobs, scheduler)
    opened = _open("crossval", **options)
    cohort = _import("data").load_cohort(opened.run, NEEDED["crossval"])
    _import("experiments").cross_validate(opened.run, cohort, workers)
    _print_scores(opened.run)
    print(opened.run.path("metrics.json"))


@commands.command()
@_options(*EXPERIMENT, *WORKERS)
def ablate(jobs, scheduler, **options):
    """Train under each augmentation and seed. After an interruption, the same command resumes."""
    workers = _workers(jobs, scheduler)
    opened = _open("ablate", **options)
    cohort = _import("data").load_cohort(opened.run, NEEDED["ablate"])
    scores = _import("experiments").ablate(opened.run, cohort, workers)
    _print_conditions(opened.run, scores)
    print(opened.run.path("ablation.csv"))


def _print_scores(run):
    """Print the Dice of a run's test set, with its interval, its patients and the time it took."""
    from lggseg_utils.data import count_of
    from lggseg_utils.runs import read_csv

    scores = json.loads(run.path("metrics.json").read_text(encoding="utf-8"))["test"]
    tested = read_csv(run.path("per_patient.csv")).query("split == 'test'")
    patients = count_of(tested["patient"].nunique(), "patient")
    by_patient = "dice_patient_mean" in scores
    score = scores["dice_patient_mean" if by_patient else "dice_pooled"]
    over = "mean over" if by_patient else "all test slices, of"
    seconds = run.record()["training"]["seconds"]
    trained = f"trained for {seconds:.0f} s"
    if run.path("folds").exists():
        trained = f"the folds {trained} in all"
    print(f"Dice {_with_interval(**score)}, {over} {patients}; {trained}.")


def _print_conditions(run, scores):
    """Print the mean Dice of each condition of an ablation over its validation patients."""
    from lggseg_utils.data import count_of
    from lggseg_utils.stats import interval_over_patients

    means = scores.groupby(["condition", "patient"], sort=False)["dice"].mean()
    for condition, dice in means.groupby("condition", sort=False):
        values = dice.to_numpy()
        low, high = interval_over_patients(lambda drawn, of=values: of[drawn].mean(-1), len(values))
        print(f"{condition:20} Dice {_with_interval(values.mean(), low, high)}")
    patients = count_of(scores["patient"].nunique(), "validation patient")
    seconds = run.record()["training"]["seconds"]
    print(f"Mean over {patients}; trained for {seconds:.0f} s in all.")


def _with_interval(value, low, high):
    """Return a score as text, with its interval unless that is None or NaN, as for one patient."""
    if low is None or math.isnan(low):
        return f"{value:.3f}"
    return f"{value:.3f} (95% interval {low:.3f} to {high:.3f})"


@commands.command()
@click.argument("images", nargs=-1)
@_options(
    *(
        click.option(
            f"--{name}", type=click.Path(), help=f"{sequence} volume: NIfTI, or a DICOM folder."
        )
        for name, sequence in (
            ("pre", "Pre-contrast"),
            ("flair", "FLAIR"),
            ("post", "Post-contrast"),
        )
    )
)
@click.option(
    "--run",
    "run_dir",
    default="",
    help="Folder of a finished run, cross-validation or fold.  [default: the reference network]",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False),
    help="Folder for masks and predictions.csv.",
)
def predict(images, pre, flair, post, run_dir, out):
    """Predict the masks of IMAGES: slices, volumes, folders of them, or zips of slices.

    Slices are 8-bit TIFF or PNG with pre-contrast, FLAIR and post-contrast as channels, named
    PATIENT_NUMBER. Volumes are NIfTI whose names end in t1, flair and t1ce or t1gd, or folders of
    a DICOM series each, named with --pre, --flair and --post; FLAIR alone will do. Masks beside the
    images (_mask, _seg) are compared. Not for clinical use.
    """
    from lggseg_utils.data import count_of

    predictor = _import("predict")
    volume = predictor.named_volume(pre, flair, post)
    found = predictor.predict([*images, *volume], run_dir or predictor.reference(), out)
    if found.dice is not None:
        print(found.dice[["patient", "slices", "dice"]].round(3).to_string(index=False))
        patients = count_of(len(found.dice), "patient")
        print(f"Mean Dice over {patients}: {found.dice['dice'].mean():.3f}.")
    tumour = (found.slices["tumour_pixels"] > 0).sum()
    print(f"{count_of(len(found.slices), 'slice')}, {tumour} with tumour; masks: {out}")
    print(predictor.NOT_VALIDATED)


@commands.command()
@click.option("--run", "run_dir", required=True, help="Folder of an executed run.")
def book(run_dir):
    """Build the book from an executed run; the last line is the path of its index.html."""
    from lggseg_utils import runs

    runs.require_clone("to build its book")
    print(_import("book").build(run_dir))


@commands.command()
@click.argument("folder")
def fetch(folder):
    """Download the LGG cohort from Kaggle into FOLDER and check that it is whole."""
    print(_import("data").fetch(folder))


@commands.command()
@click.argument("run_dir")
@click.argument("name")
def record(run_dir, name):
    """Copy the numbers of a finished run to records/NAME, and compare them with the book's."""
    from lggseg_utils import records, runs

    runs.require_clone("to keep a record")
    kept = records.record(run_dir, name)
    print(kept)
    if kept.name in records.readers_names():
        (compared,) = records.compare_with_book([kept.name]).to_dict("records")
        _print_comparison(compared)


def _print_comparison(row):
    """Print a row of `records.compare_with_book`: two scores, what differs, and the data."""
    from lggseg_utils.data import count_of

    for name, ending in ((row["record"], ""), (f"{row['of_book']}, of the book", "_of_book")):
        score = _with_interval(*(row[part + ending] for part in ("dice", "low", "high")))
        over = count_of(row[f"patients{ending}"], "patient")
        print(f"{name}: test Dice {score}, {over}; data: {row[f'data{ending}']}.")
    print(f"Settings that differ: {row['differ'] or 'none'}.")
    if not row["same_data"]:
        print("The data differ, so these numbers do not say which network is better.")


class _Stop:
    """Stops the command at Ctrl-C, or at the SIGTERM of a batch system's time limit.

    One KeyboardInterrupt is not enough. Python drops what is raised while a destructor runs, Keras
    has an `except:` that swallows it, and zipfile makes another error of it; yet the signal comes
    only once. So this handler sets an alarm that calls it again a second later, and so on, until
    the command has ended. While a KeyboardInterrupt is on its way already, nothing is raised:
    that would interrupt the `finally` blocks that leave things in order.
    """

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)

    def __init__(self):
        self.asked = False
        for number in self.signals:
            # A shell lets what it starts in the background ignore Ctrl-C.
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._interrupt)

    def _interrupt(self, number, frame):
        """Raise KeyboardInterrupt, now and each second from now on."""
        self.asked = True
        signal.alarm(1)
        # Destructors of what was interrupted may fail, which Python would report with a traceback.
        sys.unraisablehook = lambda dropped: None
        if sys.exc_info()[0] is not KeyboardInterrupt:
            raise KeyboardInterrupt

    def end(self):
        """Leave the process alone from now on; exit with one line if it was stopped."""
        signal.alarm(0)
        if self.asked:
            for number in self.signals:
                signal.signal(number, signal.SIG_IGN)
            sys.exit("\nlggseg: stopped; the same command resumes.")


def main(command=commands):
    """Run a click command: one line for a user's mistake, and an exit status to be trusted."""
    stop = _Stop()
    try:
        command(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (UserError, OSError) as error:
        sys.exit(" ".join(f"lggseg: {_what_to_do(error)}".splitlines()))
    finally:
        stop.end()


def _what_to_do(error):
    """Return what is said of a `UserError` or of a fault of the disk."""
    kind = getattr(error, "errno", None)
    if kind == errno.ENOSPC:
        return "the disk is full; free some space and run the same command again."
    if kind in (errno.EROFS, errno.EACCES, errno.EPERM):
        reason = error.strerror.lower()
        return f"{error.filename}: {reason}; choose another folder, or change its permissions."
    return str(error)
