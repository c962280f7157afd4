"""The command line: run, crossval, ablate, predict, book, phantom, fetch, record."""

import errno
import signal
import sys

import click

from lggseg_utils.config import UserError, place, read_yaml


@click.group()
@click.version_option(package_name="lggseg_utils")
def commands():
    """Replicate a report on brain tumour segmentation: execute its notebooks, build its book."""


def _settings(pairs, skip_bad):
    """Turn --set KEY=VALUE and --skip-bad into a dictionary; values are read as YAML."""
    settings = {"skip_bad": True} if skip_bad else {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"--set {pair}: expected KEY=VALUE.")
        try:
            settings[name.strip()] = read_yaml(value)
        except ValueError:
            raise UserError(f"--set {pair}: the value is not valid YAML; put quotes around it.") from None
    return settings


def _experiment(command):
    """Add the options that choose an experiment, its data and its run folder."""
    options = (
        click.option(
            "--profile", default="demo", show_default=True, help="A profile's name, or a YAML file of your own."
        ),
        click.option(
            "--data", "data_dir", default="", help="Folder or zip in Kaggle's layout.  [default: the phantom cohort]"
        ),
        click.option(
            "--out", "run_dir", default="", help="Run folder.  [default: one under runs/, named after the profile]"
        ),
        click.option("--seed", default=0, show_default=True, help="Seed of split, weights, order and augmentation."),
        click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="Change one setting; may be repeated."),
        click.option("--skip-bad", is_flag=True, help="Go on without slices that can't be used; they are recorded."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _open(name, profile, data_dir, run_dir, seed, pairs, skip_bad):
    """Open the run folder of a subcommand, and read and check its data: (run, parameters of the notebooks)."""
    from lggseg_utils import config, preprocess

    overrides = _settings(pairs, skip_bad)
    # Notebooks are executed in another folder.
    profile = str(place(profile)) if profile.endswith((".yml", ".yaml")) else profile
    data_dir = str(place(data_dir)) if data_dir else ""
    chosen = (profile, data_dir, run_dir, seed, overrides, name)
    config.load_experiment(profile, seed, overrides)
    click.get_current_context().with_resource(config.lock(config.run_folder(*chosen)))
    opened = config.open_run(*chosen)
    config.remove_unfinished(opened.folder)
    cohort = preprocess.load_cohort(opened)
    if not cohort.slices["tumour_area"].any():
        raise UserError(f"no mask in {data_dir or 'the phantom cohort'} shows tumour, so there is nothing to learn.")
    return opened, {
        "profile": profile,
        "data_dir": data_dir,
        "run_dir": str(opened.folder),
        "seed": seed,
        "overrides": overrides,
    }


@commands.command()
@_experiment
def run(**options):
    """Execute the notebooks in order. The same command goes on where a killed run stopped."""
    from lggseg_utils import book

    opened, parameters = _open("run", **options)
    book.execute(opened, parameters)
    print(opened.path("notebooks"))


@commands.command()
@_experiment
def crossval(**options):
    """Cross-validate an experiment in five folds. The same command goes on where a killed one stopped."""
    from lggseg_utils.crossval import cross_validate

    opened, _ = _open("crossval", **options)
    cross_validate(opened)
    print(opened.path("metrics.json"))


@commands.command()
@_experiment
def ablate(**options):
    """Train under each augmentation and seed, nothing else. The same command goes on where a killed one stopped."""
    from lggseg_utils.ablation import ablate as compare

    opened, _ = _open("ablate", **options)
    compare(opened)
    print(opened.path("ablation.csv"))


@commands.command()
@click.argument("images", nargs=-1, required=True)
@click.option(
    "--run",
    "run_dir",
    default="",
    help="Run folder of a finished run, whose network predicts.  [default: the reference model]",
)
@click.option("--out", required=True, help="Folder for masks, overlays and predictions.csv.")
def predict(images, run_dir, out):
    """Predict the masks of IMAGES: 8-bit TIFFs with pre-contrast, FLAIR and post-contrast as channels, or folders of them.

    Not for clinical use.
    """
    from lggseg_utils.predict import REFERENCE
    from lggseg_utils.predict import predict as predict_masks

    table = predict_masks(images, run_dir or REFERENCE, out)
    print(f"{len(table)} image(s), {(table['tumour_pixels'] > 0).sum()} with tumour; masks and overlays: {out}")


@commands.command()
@click.option("--run", "run_dir", required=True, help="Run folder of an executed run.")
def book(run_dir):
    """Build the book from an executed run; the last line is the path of its index.html."""
    from lggseg_utils.book import build

    print(build(place(run_dir)))


@commands.command()
@click.argument("folder")
@click.option("--patients", default=40, show_default=True, type=click.IntRange(1, 2000), help="Number of patients.")
@click.option("--slices", default=12, show_default=True, type=click.IntRange(1, 100), help="Slices per patient.")
@click.option(
    "--seed", default=2022, show_default=True, type=click.IntRange(0, 2**31 - 1), help="Same seed, same bytes."
)
def phantom(folder, patients, slices, seed):
    """Write a phantom cohort in Kaggle's layout into FOLDER."""
    from lggseg_utils.phantom import write_cohort

    write_cohort(place(folder), patients, slices, seed)
    print(folder)


@commands.command()
@click.argument("folder")
def fetch(folder):
    """Download the LGG cohort from Kaggle into FOLDER and check that it is whole."""
    from lggseg_utils import download

    print(download.fetch(folder))


@commands.command()
@click.argument("run_dir")
@click.argument("name")
def record(run_dir, name):
    """Copy the numbers of a finished run to results/NAME, where the book shows them."""
    from lggseg_utils.records import record as keep

    print(keep(place(run_dir), name))


def main(command=commands):
    """Run a click command: one line for a user's mistake, and an exit status that can be trusted."""
    # What asks a process to end, a batch system's time limit too, ends it as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        command(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit("\nlggseg: stopped; the same command goes on from here.")
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (UserError, OSError) as error:
        sys.exit(" ".join(f"lggseg: {_explain(error)}".splitlines()))


def _explain(error):
    """One line for a user's mistake, or a fault of the disk: what is wrong, where, what to do."""
    kind = getattr(error, "errno", None)
    if kind == errno.ENOSPC:
        return "the disk is full; free some space and run the same command again."
    if kind in (errno.EROFS, errno.EACCES, errno.EPERM):
        return f"{error.filename}: {error.strerror.lower()}; choose another folder, or change its permissions."
    return error
