"""The command line: run, crossval, ablate, predict, book, fetch, record."""

import errno
import importlib
import os
import signal
import sys

import click
import yaml

from lggseg_utils.settings import UserError

# TensorFlow's start-up messages tell a user nothing.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@click.group()
@click.version_option(package_name="lggseg_utils")
def commands():
    """Replicate a report on brain tumour segmentation: execute its notebooks, build its book."""


def _experiment(command):
    """Add the options that choose an experiment, its data and its run folder."""
    options = (
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
            "--seed",
            default=0,
            show_default=True,
            help="Seed of split, weights, order and augmentation.",
        ),
        click.option(
            "--set",
            "pairs",
            multiple=True,
            metavar="KEY=VALUE",
            help="Change one setting; may be repeated.",
        ),
        click.option(
            "--skip-bad",
            is_flag=True,
            help="Leave out slices that can't be used; they are recorded.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _overrides(pairs, skip_bad):
    """Turn --set KEY=VALUE and --skip-bad into a dictionary; values are read as YAML."""
    settings = {"skip_bad": True} if skip_bad else {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"--set {pair}: expected KEY=VALUE.")
        try:
            settings[name.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UserError(
                f"--set {pair}: the value is not valid YAML; put quotes around it."
            ) from None
    return settings


def _import(name):
    """Import a module of the package when it is needed, without the messages that TensorFlow prints; return it."""
    from lggseg_utils.runs import stderr_into

    with stderr_into(os.devnull):
        return importlib.import_module(f"lggseg_utils.{name}")


def _open(name, profile, data_dir, run_dir, seed, pairs, skip_bad):
    """Open and lock the run folder of a subcommand, and check its data: (run, cohort, parameters of the notebooks)."""
    from lggseg_utils import data, runs, settings

    # Notebooks are executed in another folder.
    profile = (
        os.path.abspath(os.path.expanduser(profile))
        if profile.endswith((".yml", ".yaml"))
        else profile
    )
    data_dir = os.path.abspath(os.path.expanduser(data_dir)) if data_dir else ""
    overrides = _overrides(pairs, skip_bad)
    parameters = {
        "profile": profile,
        "data_dir": data_dir,
        "run_dir": run_dir,
        "seed": seed,
        "overrides": overrides,
    }
    settings.load_experiment(profile, seed, overrides)
    click.get_current_context().with_resource(
        runs.lock(runs.run_folder(**parameters, command=name))
    )
    run = runs.open_run(**parameters, command=name)
    return run, data.load_cohort(run), {**parameters, "run_dir": str(run.folder)}


@commands.command()
@_experiment
def run(**options):
    """Execute the notebooks in order. After an interruption, the same command resumes."""
    opened, parameters = _open("run", **options)[::2]  # without the cohort, which takes a gigabyte
    _import("book").execute(opened, parameters)
    print(opened.path("notebooks"))


@commands.command()
@_experiment
def train(**options):
    """Train and score one network, without notebooks. After an interruption, the same command resumes."""
    opened, cohort, _ = _open("train", **options)
    _import("experiments").train_and_score(opened, cohort)
    print(opened.path("metrics.json"))


@commands.command()
@_experiment
def crossval(**options):
    """Cross-validate an experiment in five folds. After an interruption, the same command resumes."""
    opened, cohort, _ = _open("crossval", **options)
    _import("experiments").cross_validate(opened, cohort)
    print(opened.path("metrics.json"))


@commands.command()
@_experiment
def ablate(**options):
    """Train under each augmentation and seed. After an interruption, the same command resumes."""
    opened, cohort, _ = _open("ablate", **options)
    _import("experiments").ablate(opened, cohort)
    print(opened.path("ablation.csv"))


@commands.command()
@click.argument("images", nargs=-1, required=True)
@click.option(
    "--run",
    "run_dir",
    default="",
    help="Folder of a finished run.  [default: the reference network]",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False),
    help="Folder for masks and predictions.csv.",
)
def predict(images, run_dir, out):
    """Predict the masks of IMAGES: 8-bit TIFF or PNG with pre-contrast, FLAIR and post-contrast as channels, or folders.

    Not for clinical use.
    """
    predictor = _import("predict")
    table = predictor.predict(images, run_dir or predictor.REFERENCE, out)
    print(
        f"{len(table)} image(s), {(table['tumour_pixels'] > 0).sum()} with tumour; masks and overlays: {out}"
    )


@commands.command()
@click.option("--run", "run_dir", required=True, help="Folder of an executed run.")
def book(run_dir):
    """Build the book from an executed run; the last line is the path of its index.html."""
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
    """Copy the numbers of a finished run to records/NAME, where the book shows them."""
    print(_import("runs").record(run_dir, name))


def _stop(number, frame):
    """Raise KeyboardInterrupt, and again each second until the command ends: libraries swallow it, or raise another error instead."""
    signal.alarm(1)
    sys.unraisablehook = lambda dropped: None  # errors in destructors of what it interrupted
    if (
        sys.exc_info()[0] is not KeyboardInterrupt
    ):  # whose `finally` blocks are not interrupted again
        raise KeyboardInterrupt


def main(command=commands):
    """Run a click command: one line for a user's mistake, and an exit status that can be trusted."""
    # A batch system's time limit ends a process with SIGTERM; it stops as for Ctrl-C.
    stops = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    for number in stops:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _stop)
    try:
        command(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (UserError, OSError) as error:
        kind, said = getattr(error, "errno", None), str(error)
        if kind == errno.ENOSPC:
            said = "the disk is full; free some space and run the same command again."
        elif kind in (errno.EROFS, errno.EACCES, errno.EPERM):
            said = f"{error.filename}: {error.strerror.lower()}; choose another folder, or change its permissions."
        sys.exit(" ".join(f"lggseg: {said}".splitlines()))
    finally:
        if signal.alarm(0):
            for number in stops:
                signal.signal(number, signal.SIG_IGN)
            sys.exit("\nlggseg: stopped; the same command resumes.")
