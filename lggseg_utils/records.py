"""The numbers kept of finished runs, one folder under records/ each."""

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from lggseg_utils.runs import REPOSITORY, read_csv, read_record
from lggseg_utils.settings import UserError

RECORDS = REPOSITORY / "records"
# The numbers of a run: what a record keeps. Images and weights stay in the run folder.
TABLES = ("per_slice", "per_patient", "history", "split", "ablation_patients", "per_slice_own_grid")
RECORDED_FILES = ("run.json", "metrics.json", "ablation.csv", *(f"{table}.csv" for table in TABLES))


@dataclass(frozen=True)
class Record:
    """The numbers of one finished run, cross-validation or ablation; missing tables are None.

    run: run.json; metrics: metrics.json, set -> score -> {"value", "low", "high"}; the others are the tables of that name.
    own_grid: per_slice on the grid of a network that works on another one than 128x128.
    """

    name: str
    run: dict
    metrics: dict | None
    per_slice: pd.DataFrame | None
    per_patient: pd.DataFrame | None
    history: pd.DataFrame | None
    split: pd.DataFrame | None
    ablation: pd.DataFrame | None
    own_grid: pd.DataFrame | None


def load_record(name):
    """Return the `Record` of that name under records/, or of a finished run folder, given by its absolute path."""
    folder = RECORDS / name
    if not any((folder / last).exists() for last in ("metrics.json", "ablation.csv")):
        raise UserError(
            f"{folder} contains no finished run: metrics.json is missing. Run the evaluation first."
        )
    metrics = folder / "metrics.json"
    scores = json.loads(metrics.read_text(encoding="utf-8")) if metrics.exists() else None
    paths = [next(folder.glob(f"{table}.csv*"), None) for table in TABLES]
    tables = [read_csv(path) if path else None for path in paths]
    return Record(folder.name, read_record(folder), scores, *tables)


def record_names():
    """Return the names of all records, sorted."""
    return sorted(path.parent.name for path in RECORDS.glob("[!.]*/run.json"))


def record(folder, name):
    """Copy a finished run's numbers to records/NAME, large tables compressed; return that folder. Of a path, the end counts."""
    load_record(Path(folder).resolve())
    target = RECORDS / Path(name).name
    if target.exists():
        raise UserError(f"{target} is there already; remove it first, or choose another name.")
    with TemporaryDirectory(prefix=".part-", dir=RECORDS) as place:
        copy = Path(place, target.name)
        copy.mkdir()
        for source in [
            Path(folder, file) for file in RECORDED_FILES if Path(folder, file).exists()
        ]:
            content, large = (
                source.read_bytes(),
                source.stem in TABLES and source.stat().st_size > 16_384,
            )
            (copy / f"{source.name}{'.gz' * large}").write_bytes(
                gzip.compress(content, mtime=0) if large else content
            )
        copy.replace(target)
    return target
