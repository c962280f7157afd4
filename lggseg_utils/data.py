"""The cohort's files: found, checked and read (report, section 1-1)."""

import errno
import hashlib
import io
import os
import re
import shutil
import sys
import warnings
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image, TiffImagePlugin, UnidentifiedImageError
from tqdm import tqdm

from lggseg_utils.runs import REPOSITORY, require_clone, write_csv
from lggseg_utils.settings import UserError

CHANNELS = ("pre-contrast", "FLAIR", "post-contrast")
FLAIR = CHANNELS.index("FLAIR")
SAMPLE = REPOSITORY / "sample" / "lgg-sample.zip"
LGG_COHORT = (110, 3929)  # patients, slices
KAGGLE = "mateuszbuda/lgg-mri-segmentation"
SUFFIXES = (".tif", ".tiff", ".png")
NOT_READ = (".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".dcm")  # images that are left out, and said
JPEG = "JPEG has changed the pixels; export the slices again, as PNG or TIFF."
EIGHT_BITS = "divide all slices of a patient by one number, so that they reach from 0 to 255"
# Words that programs write before a slice's number, and that name no patient: slice_012.png.
WORD = "slice|image|img|frame|z"
NO_WORD = rf"(?!({WORD})[-_. ]\d+(_mask)?\.)"
KAGGLE_NAME = re.compile(
    rf"{NO_WORD}(?P<patient>.+)_(?P<slice>\d+)(?P<mask>_mask)?\.(tiff?|png)", re.IGNORECASE
)
# What other programs write: slice000.tif, 7.png, Pat1-z001.tif.
NATURAL_NAME = re.compile(
    rf"({NO_WORD}(?P<patient>.+?)[-_. ])?({WORD})?[-_. ]?(?P<slice>\d+)(?P<mask>_mask)?"
    r"\.(tiff?|png)",
    re.IGNORECASE,
)


class BadSlice(ValueError):
    """A slice's files can't be used; the message says why."""


@dataclass(frozen=True)
class Cohort:
    """The checked slices of a cohort, in the order of patient and slice number.

    slices: a table `patient, slice, image, mask, height, width, tumour_area` (file names; area in
    pixels of the file); images: a list of uint8 (height, width, 3), channels as `CHANNELS`; masks:
    a list of uint8 (height, width) of 0 and 1; problems: a table `patient, slice, path, problem` of
    the slices left out; fingerprint: SHA-256 over names and contents.
    """

    slices: pd.DataFrame
    images: list
    masks: list
    problems: pd.DataFrame
    fingerprint: str


class Files(NamedTuple):
    """The files of a folder or zip: their names with / between folders, and read(name) -> bytes."""

    names: list
    read: Callable


class _Visited(NamedTuple):
    """A slice's files after a look into them; what could not be read is None.

    problem: what is wrong, or ''; contents: SHA-256 of both files; picture: SHA-256 of the image's
    pixels, '' for a constant one.
    """

    problem: str
    image: np.ndarray | None = None
    mask: np.ndarray | None = None
    contents: str = ""
    picture: str = ""


def read_cohort(source="", skip_bad=False, report=None):
    """Read and check every slice of a folder or zip in Kaggle's layout; return a `Cohort`.

    Empty `source`: the sample. `report`: the `Path` of a table of the slices that can't be used,
    written where there are some or were some before. Raises `UserError` for a source without
    slices, for such slices unless `skip_bad` leaves them out, and for one image under two patients.
    """
    source = _source(source)
    files = open_files(source)
    found = find_slices(files.names, source)
    say_what_is_left_out(files.names, source)
    visited = _visit(found, files.read)
    problems = _problems(found, visited)
    if report and (len(problems) or report.exists()):
        write_csv(report, problems)
    if len(problems) and not (skip_bad and len(problems) < len(found)):
        raise UserError(_what_is_wrong(problems, len(found), source, report))
    usable = [not each.problem for each in visited]
    slices = found[usable].reset_index(drop=True)
    good = [each for each in visited if not each.problem]
    _refuse_twins(slices, good, source)
    slices = slices.assign(
        height=[each.mask.shape[0] for each in good],
        width=[each.mask.shape[1] for each in good],
        tumour_area=[int(each.mask.sum()) for each in good],
    )
    images = [each.image for each in good]
    masks = [each.mask for each in good]
    return Cohort(slices, images, masks, problems, _fingerprint(slices, good))


def _source(source):
    """Return the `Path` of a data folder or zip; the sample's for ''."""
    if not str(source):
        require_clone("for its sample of patients")
    return Path(str(source) or SAMPLE).expanduser()


@contextmanager
def quiet_pillow():
    """Silence Pillow's warnings while images are read: what is wrong is said in our own words."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        yield


def _visit(found, read):
    """Return a `_Visited` for each row of a table of `find_slices`, read in threads."""
    with ThreadPoolExecutor(os.cpu_count()) as pool, quiet_pillow():
        visits = pool.map(lambda row: _read_slice(row, read), found.itertuples(index=False))
        return list(tqdm(visits, "reading", len(found), leave=False, disable=None))


def _problems(found, visited):
    """Return a table `patient, slice, path, problem` of the slices that can't be used."""
    table = found[["patient", "slice"]].assign(
        path=found["image"].where(found["image"] != "", found["mask"]),
        problem=[each.problem for each in visited],
    )
    return table[table["problem"] != ""].reset_index(drop=True)


def _what_is_wrong(problems, slices, source, report):
    """Return one line on the first of the `problems`, which are listed in `report`."""
    first = problems.iloc[0]
    listed = f" All are listed in {report}." if report else ""
    return (
        f"{len(problems)} of {slices} slices in {source} can't be used, the first: "
        f"{first['path']}: {first['problem']}.{listed} Repair or remove them, or continue without "
        "them (--skip-bad; in a notebook, the setting skip_bad)."
    )


def _refuse_twins(slices, visited, source):
    """Refuse one image under two patients: trained on as one, it would be tested as the other."""
    first = {}
    for row, each in zip(slices.itertuples(), visited, strict=True):
        twin = first.setdefault(each.picture, row)
        if each.picture and twin.patient != row.patient:
            raise UserError(
                f"{source} holds one image under two patients, {twin.image} and {row.image}, which "
                "could be trained on and tested; remove or rename one."
            )


def _fingerprint(slices, visited):
    """Return the SHA-256 over patients, slice numbers and contents of the files."""
    lines = [
        f"{row.patient} {row.slice} {each.contents}"
        for row, each in zip(slices.itertuples(), visited, strict=True)
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def load_cohort(run, needed=0):
    """Read a run's cohort; write slices.csv and, where slices are bad, problems.csv.

    needed: how many patients the split needs or, of a split by slice, slices. Raises `UserError`
    for slices that can't be used, for data without tumour or with fewer than needed, and for a run
    folder that was made from other data.
    """
    cohort = read_cohort(run.data_dir, run.experiment.skip_bad, run.path("problems.csv"))
    then = run.record().get("data", {}).get("fingerprint", cohort.fingerprint)
    if then != cohort.fingerprint:
        raise UserError(
            f"run folder {run.folder} was made from other data; choose another one, or remove it."
        )
    if not cohort.slices["tumour_area"].any():
        raise UserError(f"no mask in {run.data_dir} shows tumour, so there is nothing to learn.")
    check_enough(cohort.slices, run.experiment.split, needed)
    write_csv(run.path("slices.csv"), cohort.slices)
    patients, slices = cohort.slices["patient"].nunique(), len(cohort.slices)
    facts = {
        "kind": "LGG cohort" if (patients, slices) == LGG_COHORT else f"{patients} patients",
        "fingerprint": cohort.fingerprint,
        "patients": patients,
        "slices": slices,
        "tumour_slices": int((cohort.slices["tumour_area"] > 0).sum()),
        "skipped": len(cohort.problems),
    }
    run.note(data=facts)
    return cohort


def subset(cohort, keep):
    """Return the cohort of those slices alone for which `keep`, bool (n,), is true."""
    rows = np.flatnonzero(keep)
    return replace(
        cohort,
        slices=cohort.slices.iloc[rows].reset_index(drop=True),
        images=[cohort.images[row] for row in rows],
        masks=[cohort.masks[row] for row in rows],
    )


def of_lgg(slices):
    """Return whether all patients of a table of slices are named as those of the LGG cohort."""
    return bool(slices["patient"].str.fullmatch(r"TCGA_[A-Z]{2}_\w{4}_\d{8}").all())


def describe(cohort):
    """Return the data in words, such as "16 patients of the LGG cohort, 658 slices"."""
    patients, slices = cohort.slices["patient"].nunique(), len(cohort.slices)
    origin = " of the LGG cohort" if of_lgg(cohort.slices) else ""
    return f"{count_of(patients, 'patient')}{origin}, {count_of(slices, 'slice')}"


def count_of(number, noun):
    """Return a number with its noun, in the plural where it is not 1."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def credit(cohort):
    """Return as Markdown whose slices a page shows and their licence; "" for other data."""
    if not of_lgg(cohort.slices):
        return ""
    return (
        "*Slices on this page: LGG cohort (TCGA-LGG, The Cancer Imaging Archive; "
        "[Buda et al. (2019)](https://doi.org/10.1016/j.compbiomed.2019.05.002)), "
        "[CC BY-NC-SA 4.0](https://creativecommons.org/licenses/by-nc-sa/4.0/), "
        "resized, outlines added.*"
    )


def open_files(source):
    """Return the `Files` of a folder or zip. Raises `UserError` for anything else.

    PowerShell 5 and some other programs write \\ between folders into a zip; read as part of a
    name, it would make a patient of each of the two trees of Kaggle's archive.
    """
    if source.is_dir():
        found = os.walk(source, onerror=_refuse_unreadable, followlinks=True)
        paths = [Path(root, name) for root, _, names in found for name in names]
        stored = {path: path.relative_to(source).as_posix() for path in paths}
        read = Path.read_bytes
    elif source.suffix.lower() == ".zip" and source.is_file():
        archive = _open_zip(source)
        stored = {name: name for name in archive.namelist()}
        read = archive.read
    else:
        what = "is neither a folder nor a zip" if source.exists() else "does not exist"
        raise UserError(
            f"data folder {source} {what}. Name the folder that holds the patients, or their zip."
        )
    names = [name.replace("\\", "/") for name in stored.values()]
    place = dict(zip(names, stored, strict=True))
    return Files(names, lambda name: read(place[name]))


def _open_zip(source):
    """Return an open `ZipFile`; raise `UserError` for a damaged one."""
    try:
        return zipfile.ZipFile(source)
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(
            f"zip {source} is damaged or can't be read ({error}); download it again."
        ) from None


def _refuse_unreadable(error):
    """Raise `UserError` for a folder that can't be read, which `os.walk` would skip."""
    raise UserError(
        f"folder {error.filename} can't be read ({error.strerror}); change its permissions."
    )


def read_bytes(read, name):
    """Return `read(name)`, the bytes of a file or of a zip's entry. Raises `BadSlice`."""
    try:
        return read(name)
    except Exception as error:  # zipfile passes on the errors of whatever compressed the entry
        raise BadSlice(f"can't be read ({getattr(error, 'strerror', None) or error})") from None


def visible(names, suffixes):
    """Return those of some file names that have one of the suffixes and are not hidden."""
    return [
        name
        for name in names
        if name.lower().endswith(suffixes) and not name.rpartition("/")[2].startswith(".")
    ]


def say_what_is_left_out(names, source):
    """Print a line where some images are of a kind that is not read, such as JPEG beside TIFF."""
    left = visible(names, NOT_READ)
    if left:
        kinds = sorted({Path(name).suffix.lower() for name in left})
        advice = f" {JPEG}" if {".jpg", ".jpeg"} & set(kinds) else ""
        print(
            f"{source}: {count_of(len(left), 'image')} left out ({', '.join(kinds)}); read are "
            f"{', '.join(SUFFIXES)}.{advice}",
            file=sys.stderr,
        )


class _SliceName(NamedTuple):
    """What a file's name says: patient, slice number (-1 where it has none), and whether a mask."""

    patient: str
    number: int
    is_mask: bool


def _parse(path, source):
    """Return the `_SliceName` of a file; a name that is a number alone takes its folder's name."""
    folder, _, name = path.rpartition("/")
    match = KAGGLE_NAME.fullmatch(name) or NATURAL_NAME.fullmatch(name)
    if not match:
        return _SliceName(Path(name).stem, -1, False)
    patient = match["patient"] or folder.rpartition("/")[2] or Path(source).resolve().stem
    return _SliceName(patient, int(match["slice"]), bool(match["mask"]))


def find_slices(names, source):
    """Pair images with masks by their names: a table `patient, slice, image, mask`.

    A missing file is ''; a name without a number has the slice -1. Kaggle's archive holds the tree
    twice: the shallower copy of a slice counts. Raises `UserError` for no slice at all, for a slice
    that occurs twice at one depth, and for a name that is not UTF-8.
    """
    found = {}
    shallow_first = sorted(visible(names, SUFFIXES), key=lambda name: (name.count("/"), name))
    for path in shallow_first:
        if path.encode(errors="ignore").decode() != path:
            raise UserError(f"file name {path!a} in {source} is not UTF-8; rename it.")
        name = _parse(path, source)
        pair = found.setdefault((name.patient, name.number), {"image": "", "mask": ""})
        kind = "mask" if name.is_mask else "image"
        if name.number >= 0 and pair[kind] and pair[kind].count("/") == path.count("/"):
            raise UserError(
                f"{source} contains one slice twice: {pair[kind]} and {path}; remove or rename one."
            )
        pair[kind] = pair[kind] or path
    if not found:
        raise UserError(
            f"no slice in {source}: expected PATIENT/PATIENT_NUMBER.tif and "
            "PATIENT_NUMBER_mask.tif."
        )
    rows = [{"patient": name[0], "slice": name[1], **pair} for name, pair in found.items()]
    return pd.DataFrame(rows).sort_values(["patient", "slice"], ignore_index=True)


def _read_slice(row, read):
    """Return the `_Visited` of one row of a table of `find_slices`."""
    try:
        if row.slice < 0:
            raise BadSlice("name is not PATIENT_NUMBER.tif")
        if not row.mask or not row.image:
            raise BadSlice("image without a mask" if row.image else "mask without an image")
        contents = [read_bytes(read, name) for name in (row.image, row.mask)]
        image, mask = decode_pair(*contents)
    except BadSlice as problem:
        return _Visited(str(problem))
    picture = hashlib.sha256(image).hexdigest() if image.min() < image.max() else ""
    return _Visited("", image, mask, hashlib.sha256(b"".join(contents)).hexdigest(), picture)


def decode(content, channels):
    """Decode the bytes of a TIFF or PNG with eight bits and 3 channels or 1.

    Returns uint8 (height, width, 3) or (height, width). Raises `BadSlice` for anything else, which
    says how to convert it.
    """
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
        raise BadSlice(
            "contains several pages, expected one image; save each page as PATIENT_NUMBER.tif"
        )
    if image.mode in ("P", "YCbCr", "LAB", "CMYK"):
        raise BadSlice(
            f"stored as {image.mode}, expected RGB or grey; convert it with Pillow's convert('RGB')"
        )
    if wide or pixels.dtype != np.uint8:
        stored = "uint16" if pixels.dtype == np.uint8 else pixels.dtype
        raise BadSlice(f"stored as {stored}, expected 8 bits per channel; {EIGHT_BITS}")
    found = 1 if pixels.ndim == 2 else pixels.shape[2]
    if found != channels:
        raise BadSlice(f"has {count_of(found, 'channel')}, expected {_expected(found, channels)}")
    return pixels


def _expected(found, channels):
    """Return how many channels there should be, and how to get there from those `found`."""
    if channels == 1:
        return "1"
    how = {
        1: "; stack the three as colours, or FLAIR three times: numpy.dstack([pre, flair, post])",
        4: "; drop the fourth with Pillow's convert('RGB')",
    }
    return f"3 ({', '.join(CHANNELS)}){how.get(found, '')}"


def decode_pair(image_content, mask_content):
    """Decode and check a slice: (image, mask), uint8 (height, width, 3) and (height, width).

    The mask is of 0 and 1. Raises `BadSlice`.
    """
    image = decode(image_content, 3)
    mask = decode_mask(mask_content)
    if mask.shape != image.shape[:2]:
        sides = [f"{each.shape[1]}x{each.shape[0]}" for each in (image, mask)]
        raise BadSlice(f"image is {sides[0]} but its mask is {sides[1]}")
    return image, mask


def decode_mask(content):
    """Decode a mask: uint8 (height, width) of 0 and 1. Raises `BadSlice`."""
    try:
        mask = decode(content, 1)
    except BadSlice as problem:
        raise BadSlice(f"mask: {problem}") from None
    values = set(np.unique(mask).tolist())
    if not (values <= {0, 255} or values <= {0, 1}):
        shown = ", ".join(map(str, sorted(values)))
        raise BadSlice(f"mask contains {shown[:40]}; expected 0 and 255, or 0 and 1")
    return (mask > 0).astype(np.uint8)


def check_enough(slices, protocol, needed):
    """Raise `UserError` where a table of slices is too small to be split.

    protocol: 'patient' or 'slice', what is drawn; needed: how many of them.
    """
    found = slices["patient"].nunique() if protocol == "patient" else len(slices)
    if found < needed:
        raise UserError(
            f"splitting by {protocol} needs at least {needed} {protocol}s, but the data contain "
            f"{found}."
        )


def patient_table(slices):
    """Summarise a table of slices per patient.

    Returns a table `patient, slices, tumour_slices, tumour_area, institution`; the area is summed,
    in pixels.
    """
    grouped = slices.assign(tumour=slices["tumour_area"] > 0).groupby("patient")
    table = grouped.agg(
        slices=("slice", "size"),
        tumour_slices=("tumour", "sum"),
        tumour_area=("tumour_area", "sum"),
    )
    return table.reset_index().assign(institution=lambda table: institutions(table["patient"]))


def institutions(patients):
    """Return the two letters in TCGA names, 'CS' of TCGA_CS_4941_19960909; '' for other names."""
    return patients.str.extract("^[^_]+_([^_]{2})_", expand=False).fillna("")


def fetch(folder):
    """Download the LGG cohort from Kaggle (about 1 GB) into `folder` and return the folder.

    kagglehub shows the progress and resumes a download; the folder appears once it is whole. Raises
    `UserError` with what to do.
    """
    folder = Path(folder).expanduser().resolve()
    if folder.is_file():
        raise UserError(f"{folder} is a file; name a new or an empty folder.")
    # A folder that a Mac's Finder has shown holds .DS_Store, and is empty to its owner.
    if not any(folder.glob("[!.]*")):
        staging = folder.with_name(f".{folder.name}-download")
        downloaded = _download(staging)
        _check_whole(downloaded, f"remove {staging} and run the same command again")
        _move(downloaded, folder, staging)
    _check_whole(folder, "name a new or an empty folder")
    return folder


def _download(staging):
    """Let kagglehub download the cohort below `staging`; return the folder that it names."""
    os.environ["KAGGLEHUB_CACHE"] = str(staging)
    # There, kagglehub would hand out a folder of a shared file system, which can't be moved.
    os.environ["DISABLE_COLAB_CACHE"] = os.environ["DISABLE_KAGGLE_CACHE"] = "true"
    try:
        import kagglehub

        return Path(kagglehub.dataset_download(KAGGLE))
    except Exception as error:  # errors of its HTTP client, too, whose text may hold a token
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise
        raise UserError(
            f"the cohort could not be downloaded ({type(error).__name__}). Check the network; if "
            "Kaggle asks who you are, put a token in KAGGLE_API_TOKEN or ~/.kaggle/kaggle.json and "
            "run the same command again."
        ) from None


def _move(downloaded, folder, staging):
    """Move a folder to where hidden files alone may be; it appears there whole.

    Where it lies on another file system, it is copied to `staging` first.
    """
    whole = staging / "whole"
    shutil.rmtree(whole, ignore_errors=True)
    staging.mkdir(exist_ok=True)
    try:
        downloaded.replace(whole)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copytree(downloaded, whole)
    for hidden in folder.glob(".*"):
        hidden.replace(whole / hidden.name)
    whole.replace(folder)
    shutil.rmtree(staging)


def _check_whole(folder, advice):
    """Raise `UserError` with some advice where a folder does not hold the whole cohort."""
    found = find_slices(open_files(folder).names, folder)
    counts = (found["patient"].nunique(), len(found))
    if counts != LGG_COHORT:
        raise UserError(
            f"{folder} holds {count_of(counts[0], 'patient')} and {count_of(counts[1], 'slice')}, "
            "expected "
            f"{LGG_COHORT[0]} and {LGG_COHORT[1]}; {advice}."
        )
