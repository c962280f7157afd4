"""Make the sample, the same bytes each time: python scripts/make_sample.py COHORT_FOLDER

COHORT_FOLDER is the LGG cohort at 128x128. From each of the four large institutions come four
patients: of those whose stack is no longer than the institution's median, the ones at 1/8, 3/8, 5/8
and 7/8 of the order by tumour volume. All their slices are taken. Also writes records/cohort.csv,
every slice of the cohort with size and tumour area, and records/sequences.csv, the patients who
lack a sequence.
"""

import io
import zipfile
from pathlib import Path

import click
import pandas as pd
from PIL import Image

from lggseg_utils import cli, data
from lggseg_utils.records import RECORDS
from lggseg_utils.runs import write_csv, write_whole

INSTITUTIONS = ("CS", "DU", "FG", "HT")
PLACES = (1 / 8, 3 / 8, 5 / 8, 7 / 8)


def choose(slices):
    """Return the names of the sample's patients, sorted, from the table of all slices."""
    patients = data.patient_table(slices)
    chosen = []
    for institution in INSTITUTIONS:
        own = patients[patients["institution"] == institution]
        short = own[own["slices"] <= own["slices"].median()].sort_values(["tumour_area", "patient"])
        chosen += [short["patient"].iloc[int(place * len(short))] for place in PLACES]
    return sorted(chosen)


def write_sample(folder, slices, target):
    """Write the slices of a table into a zip in Kaggle's layout, as PNG: a fifth smaller than TIFF,
    with the same pixels.
    """
    with (
        write_whole(target) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
    ):
        for row in slices.itertuples():
            for name in (row.image, row.mask):
                stored, content = io.BytesIO(), Path(folder, name).read_bytes()
                Image.fromarray(data.decode(content, 3 if name == row.image else 1)).save(
                    stored, "PNG", optimize=True
                )
                entry = zipfile.ZipInfo(f"kaggle_3m/{row.patient}/{Path(name).stem}.png")
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, stored.getvalue())


def missing_sequences(cohort):
    """Return a table patient, missing of the patients who lack a sequence: FLAIR stands in its
    place on every slice.
    """
    same = [(image == image[..., [data.FLAIR]]).all((0, 1)) for image in cohort.images]
    whole = (
        pd.DataFrame(same, columns=data.CHANNELS)
        .groupby(cohort.slices["patient"])
        .all()
        .drop(columns="FLAIR")
    )
    missing = whole[whole.any(axis=1)].apply(lambda row: " and ".join(row.index[row]), axis=1)
    return missing.rename("missing").reset_index()


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(folder):
    """Choose the patients, write the zip and the tables of all slices and of missing sequences."""
    cohort = data.read_cohort(folder)
    slices = cohort.slices
    write_csv(RECORDS / "sequences.csv", missing_sequences(cohort))
    write_csv(RECORDS / "cohort.csv", slices.drop(columns=["image", "mask"]))
    chosen = choose(slices)
    write_sample(folder, slices[slices["patient"].isin(chosen)], data.SAMPLE)
    print(f"{data.SAMPLE}: {data.SAMPLE.stat().st_size / 1e6:.1f} MB, {', '.join(chosen)}")


if __name__ == "__main__":
    cli.main(main)
