"""The cohort's files: found, checked and read (report, section 1-1)."""

import errno
import hashlib
import io
import os
import re
import shutil
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, TiffImagePlugin, UnidentifiedImageError
from tqdm import tqdm

from lggseg_utils.runs import REPOSITORY, write_csv
from lggseg_utils.settings import UserError

CHANNELS = ("pre-contrast", "FLAIR", "post-contrast")
FLAIR = CHANNELS.index("FLAIR")
SAMPLE = REPOSITORY / "sample" / "lgg-sample.zip"
LGG_COHORT = (110, 3929)  # patients, slices
KAGGLE = "mateuszbuda/lgg-mri-segmentation"
SLICE_NAME = re.compile(
    r"(?P<patient>.+)_(?P<slice>\d+)(?P<mask>_mask)?\.(tiff?|png)", re.IGNORECASE
)
SUFFIXES = (".tif", ".tiff", ".png")

# What is wrong with a file is said in our own table.
warnings.filterwarnings("ignore", module="PIL")


class BadSlice(ValueError):
    """A slice's files can't be used; the message says why."""


@dataclass(frozen=True)
class Cohort:
    """The checked slices of a cohort, in the order of patient and slice number.

    slices: a table `patient, slice, image, mask, height, width, tumour_area` (file names; area in pixels of the file);
    images: a list of uint8 (height, width, 3), channels as `CHANNELS`; masks: a list of uint8 (height, width) of 0 and 1;
    problems: a table `patient, slice, path, problem` of the slices left out; fingerprint: SHA-256 over names and contents.
    """

    slices: pd.DataFrame
    images: list
    masks: list
    problems: pd.DataFrame
    fingerprint: str


def read_cohort(source="", skip_bad=False, report=None):
    """Read and check every slice of a folder or zip in Kaggle's layout; return a `Cohort`. Empty `source`: the sample.

    Raises `UserError` for a source without slices, and for slices that can't be used unless `skip_bad` leaves them out.
    `report`: the `Path` of a table of such slices, written where there are some or were some before.
    """
    source = Path(source or SAMPLE).expanduser()
    names, read = _open(source)
    found = find_slices(names, source)
    rows = list(found.itertuples(index=False))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        visited = list(
            tqdm(
                pool.map(lambda row: _read_slice(row, read), rows),
                "reading",
                len(rows),
                leave=False,
            )
        )
    problem = np.array([str(each) if isinstance(each, BadSlice) else "" for each in visited])
    path, good = (
        found["image"].where(found["image"] != "", found["mask"]),
        np.flatnonzero(problem == ""),
    )
    problems = (
        found[["patient", "slice"]]
        .assign(path=path, problem=problem)
        .drop(index=good)
        .reset_index(drop=True)
    )
    if report and (len(problems) or report.exists()):
        write_csv(report, problems)
    if len(problems) and not (skip_bad and len(good)):
        first, listed = problems.iloc[0], f" All are listed in {report}." if report else ""
        raise UserError(
            f"{len(problems)} of {len(rows)} slices in {source} can't be used, the first: {first['path']}: {first['problem']}."
            f"{listed} Repair or remove them, or continue without them (--skip-bad; in a notebook, the setting skip_bad)."
        )
    images, masks, digests = (
        list(part) for part in zip(*(visited[position] for position in good), strict=True)
    )
    slices = found.iloc[good].reset_index(drop=True)
    heights, widths = zip(*(mask.shape for mask in masks), strict=True)
    slices = slices.assign(
        height=heights, width=widths, tumour_area=[int(mask.sum()) for mask in masks]
    )
    lines = [
        f"{row.patient} {row.slice} {digest}"
        for row, digest in zip(slices.itertuples(), digests, strict=True)
    ]
    return Cohort(
        slices, images, masks, problems, hashlib.sha256("\n".join(lines).encode()).hexdigest()
    )


def load_cohort(run):
    """Read a run's cohort, and write slices.csv and, where slices are bad, problems.csv into its folder.

    Raises `UserError` for slices that can't be used and for a run folder that was made from other data.
    """
    cohort = read_cohort(run.data_dir, run.experiment.skip_bad, run.path("problems.csv"))
    then = run.record().get("data", {}).get("fingerprint", cohort.fingerprint)
    if then != cohort.fingerprint:
        raise UserError(
            f"run folder {run.folder} was made from other data; choose another one, or remove it."
        )
    if not cohort.slices["tumour_area"].any():
        raise UserError(f"no mask in {run.data_dir} shows tumour, so there is nothing to learn.")
    write_csv(run.path("slices.csv"), cohort.slices)
    counts = {"patients": cohort.slices["patient"].nunique(), "slices": len(cohort.slices)}
    kind = (
        "LGG cohort" if tuple(counts.values()) == LGG_COHORT else f"{counts['patients']} patients"
    )
    tumour = {
        "tumour_slices": int((cohort.slices["tumour_area"] > 0).sum()),
        "skipped": len(cohort.problems),
    }
    run.note(data={"kind": kind, "fingerprint": cohort.fingerprint, **counts, **tumour})
    return cohort


def _open(source):
    """Return the names of all files in a folder or zip, and a function that returns the bytes behind a name."""
    if source.is_dir():
        found = os.walk(source, onerror=_refuse_unreadable, followlinks=True)
        paths = (Path(root, name) for root, _, files in found for name in files)
        names = [path.relative_to(source).as_posix() for path in paths]
        return names, lambda name: (source / name).read_bytes()
    if source.suffix.lower() == ".zip" and source.is_file():
        try:
            archive = zipfile.ZipFile(source)
        except (zipfile.BadZipFile, OSError) as error:
            raise UserError(
                f"zip {source} is damaged or can't be read ({error}); download it again."
            ) from None
        return archive.namelist(), archive.read
    what = "is neither a folder nor a zip" if source.exists() else "does not exist"
    raise UserError(
        f"data folder {source} {what}. Name the folder that holds the patients, or their zip."
    )


def _refuse_unreadable(error):
    """Raise `UserError` for a folder that can't be read, which `os.walk` would skip."""
    raise UserError(
        f"folder {error.filename} can't be read ({error.strerror}); change its permissions."
    )


def read_bytes(read, name):
    """Return `read(name)`, the bytes of a file or of a zip's entry, which is never written to disk. Raises `BadSlice`."""
    try:
        return read(name)
    except Exception as error:  # zipfile passes on the errors of whatever compressed the entry
        raise BadSlice(f"can't be read ({getattr(error, 'strerror', None) or error})") from None


def find_slices(names, source):
    """Pair images with masks by their names: a table `patient, slice, image, mask`, '' for a missing file.

    Kaggle's archive holds the tree twice: the shallower copy of a slice counts. Raises `UserError` for no slice at all, for a
    slice that occurs twice at one depth, and for a name that is not UTF-8.
    """
    found, shown = (
        {},
        [name for name in names if name.lower().endswith(SUFFIXES) and Path(name).name[0] != "."],
    )
    for path in sorted(shown, key=lambda name: (name.count("/"), name)):
        if path.encode(errors="ignore").decode() != path:
            raise UserError(f"file name {path!a} in {source} is not UTF-8; rename it.")
        match = SLICE_NAME.fullmatch(path.rpartition("/")[2])
        patient, number = (
            (match["patient"], int(match["slice"])) if match else (Path(path).stem, -1)
        )
        pair = found.setdefault((patient, number), {"image": "", "mask": ""})
        kind = "mask" if match and match["mask"] else "image"
        if match and pair[kind] and pair[kind].count("/") == path.count("/"):
            raise UserError(
                f"{source} contains one slice twice: {pair[kind]} and {path}; remove or rename one."
            )
        pair[kind] = pair[kind] or path
    if not found:
        raise UserError(
            f"no slice in {source}: expected PATIENT/PATIENT_NUMBER.tif and PATIENT_NUMBER_mask.tif."
        )
    rows = [
        {"patient": patient, "slice": number, **pair} for (patient, number), pair in found.items()
    ]
    return pd.DataFrame(rows).sort_values(["patient", "slice"], ignore_index=True)


def _read_slice(row, read):
    """Return (image, mask, digest of both files) of one slice, or the `BadSlice` that says what is wrong with it."""
    try:
        if row.slice < 0:
            raise BadSlice("name is not PATIENT_NUMBER.tif")
        if not row.mask or not row.image:
            raise BadSlice("image without a mask" if row.image else "mask without an image")
        contents = [read_bytes(read, name) for name in (row.image, row.mask)]
        return *decode_pair(*contents), hashlib.sha256(contents[0] + contents[1]).hexdigest()
    except BadSlice as problem:
        return problem


def decode(content, channels):
    """Decode the bytes of a TIFF or PNG with 3 channels, uint8 (height, width, 3), or 1, (height, width). Raises `BadSlice`."""
    try:
        image = Image.open(io.BytesIO(content), formats=("TIFF", "PNG"))
        # Pillow keeps eight of sixteen bits of a colour, and tells only here.
        bits = max(getattr(image, "tag_v2", {}).get(TiffImagePlugin.BITSPERSAMPLE, (8,)))
        pages, wide = getattr(image, "n_frames", 1), bits > 8 or ";16" in str(image.tile)
        pixels = np.asarray(image.convert("L") if image.mode == "1" else image)
    except UnidentifiedImageError:
        raise BadSlice(
            "not a readable TIFF or PNG (damaged, cut short, or another format)"
        ) from None
    except Exception as error:  # Pillow passes on whatever its decoders raise on damaged files
        raise BadSlice(f"damaged or cut short ({' '.join(str(error).split())[:80]})") from None
    if pages > 1:
        raise BadSlice("contains several pages, expected one image")
    if image.mode in ("P", "YCbCr", "LAB", "CMYK"):
        raise BadSlice(f"stored as {image.mode}, expected RGB or grey")
    if wide or pixels.dtype != np.uint8:
        raise BadSlice(
            f"stored as {'uint16' if wide else pixels.dtype}, expected 8 bits per channel"
        )
    found = 1 if pixels.ndim == 2 else pixels.shape[2]
    if found != channels:
        names = f" ({', '.join(CHANNELS)})" if channels == 3 else ""
        raise BadSlice(f"has {found} channel(s), expected {channels}{names}")
    return pixels


def decode_pair(image_content, mask_content):
    """Decode and check a slice: image uint8 (height, width, 3), mask uint8 (height, width) of 0 and 1. Raises `BadSlice`."""
    image = decode(image_content, 3)
    try:
        mask = decode(mask_content, 1)
    except BadSlice as problem:
        raise BadSlice(f"mask: {problem}") from None
    if mask.shape != image.shape[:2]:
        raise BadSlice(
            f"image is {image.shape[1]}x{image.shape[0]} but its mask is {mask.shape[1]}x{mask.shape[0]}"
        )
    values = set(np.unique(mask).tolist())
    if not (values <= {0, 255} or values <= {0, 1}):
        shown = ", ".join(map(str, sorted(values)))
        raise BadSlice(f"mask contains {shown[:40]}; expected 0 and 255, or 0 and 1")
    return image, (mask > 0).astype(np.uint8)


def patient_table(slices):
    """Summarise a table of slices per patient: patient, slices, tumour_slices, tumour_area (summed, pixels), institution."""
    grouped = slices.assign(tumour=slices["tumour_area"] > 0).groupby("patient")
    table = grouped.agg(
        slices=("slice", "size"),
        tumour_slices=("tumour", "sum"),
        tumour_area=("tumour_area", "sum"),
    )
    return table.reset_index().assign(institution=lambda table: institutions(table["patient"]))


def institutions(patients):
    """Return the two letters in TCGA names, e.g. 'CS' of TCGA_CS_4941_19960909; '' where there are none."""
    return patients.str.extract("^[^_]+_([^_]{2})_", expand=False).fillna("")


def fetch(folder):
    """Download the LGG cohort from Kaggle (about 1 GB) into `folder` and return the folder.

    kagglehub shows the progress and resumes a download; the folder appears once it is whole. Raises `UserError` with what to do.
    """
    folder = Path(folder).expanduser().resolve()
    if not folder.exists() or not any(folder.iterdir()):
        staging = folder.with_name(f".{folder.name}-download")
        os.environ["KAGGLEHUB_CACHE"] = str(staging)
        try:
            import kagglehub

            downloaded = Path(kagglehub.dataset_download(KAGGLE))
        except (
            Exception
        ) as error:  # kagglehub passes on errors of its HTTP client, whose text may hold a token
            if getattr(error, "errno", None) == errno.ENOSPC:
                raise
            raise UserError(
                f"the cohort could not be downloaded ({type(error).__name__}). Check the network; if Kaggle asks who you "
                "are, put a token in KAGGLE_API_TOKEN or ~/.kaggle/kaggle.json and run the same command again."
            ) from None
        _check_whole(downloaded, f"remove {staging} and run the same command again")
        downloaded.replace(folder)
        shutil.rmtree(staging)
    _check_whole(folder, "name a new or an empty folder")
    return folder


def _check_whole(folder, advice):
    """Raise `UserError` with some advice where a folder does not hold the whole cohort."""
    found = find_slices(_open(folder)[0], folder)
    counts, wanted = (found["patient"].nunique(), len(found)), " and ".join(map(str, LGG_COHORT))
    if counts != LGG_COHORT:
        raise UserError(
            f"{folder} holds {counts[0]} patients and {counts[1]} slices, expected {wanted}; {advice}."
        )
