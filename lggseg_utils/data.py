"""The cohort's files: found, checked and named (report, section 1-1)."""

import errno
import hashlib
import lzma
import os
import re
import shutil
import stat
import struct
import tempfile
import unicodedata
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from lggseg_utils import phantom
from lggseg_utils.config import UserError, place

CHANNELS = ("pre-contrast", "FLAIR", "post-contrast")
FLAIR = CHANNELS.index("FLAIR")
LGG_COHORT = (110, 3929)  # patients, slices
MAX_UNPACKED_BYTES = 8 * 2**30
MAX_SIDE = 4096
MAX_FILE_BYTES = 2**28  # five times what an image of MAX_SIDE takes without compression
CHUNK = 64  # slices a thread reads before it hands them over
WIDTH_TAG, HEIGHT_TAG, SHORT = 256, 257, 3  # TIFF 6.0, sections 2 and 8
TIFF_BEGINNINGS = (b"II*\0", b"MM\0*")
NOT_READABLE = "not a readable TIFF (damaged, cut short, or another format)"
# Not the archive's fault, and not to be reported as such.
FAULTS_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
SLICE_NAME = re.compile(r"(?P<patient>.+)_(?P<slice>\d+)(?P<mask>_mask)?\.tiff?", re.IGNORECASE)
SLICES_COLUMNS = ["patient", "slice", "image", "mask", "height", "width", "tumour_area"]

# A damaged file is reported in our own table; OpenCV's messages would only repeat it.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class BadSlice(ValueError):
    """What is wrong with one slice's files."""


def locate(run):
    """Return the folder that holds a run's slices: the one named, a zip unpacked, or the phantom, made when missing."""
    if not run.data_dir:
        phantom.write_cohort(run.path("phantom"), run.experiment.phantom_patients, run.experiment.phantom_slices)
        return run.path("phantom")
    source = place(run.data_dir)
    if not (source.is_file() and source.suffix.lower() == ".zip"):
        return source
    status = source.stat()
    target = run.path("unzipped", f"{source.stem}-{status.st_size}-{status.st_mtime_ns}")
    if not target.exists():
        unpack(source, target)
    return target


def find_slices(folder):
    """Index a folder in Kaggle's layout, at any depth.

    Returns a table `patient, slice, image, mask`, one row a slice, in numeric order; image and mask are paths
    relative to `folder`, '' where the file is missing. Kaggle's archive holds the tree twice: the shallower
    copy of a slice counts. Raises `UserError` for a folder that is missing, holds no such file, or holds a slice twice at
    the same depth.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "is neither a folder nor a zip" if folder.exists() else "does not exist"
        raise UserError(f"data folder {folder} {what}. Name the folder that holds the patients, or their zip.")
    found = {}
    for path in sorted(tiff_files(folder), key=lambda path: (path.count("/"), path)):
        name = path.rpartition("/")[2]
        match = SLICE_NAME.fullmatch(name)
        patient, number = (match["patient"], int(match["slice"])) if match else (Path(name).stem, -1)
        pair = found.setdefault((patient, number), {"image": "", "mask": ""})
        kind = "mask" if match and match["mask"] else "image"
        if match and pair[kind] and pair[kind].count("/") == path.count("/"):
            raise UserError(f"{folder} holds one slice twice: {pair[kind]} and {path}; remove or rename one of them.")
        pair[kind] = pair[kind] or path
    if not found:
        raise UserError(
            f"no slice in {folder}: expected PATIENT/PATIENT_NUMBER.tif beside PATIENT/PATIENT_NUMBER_mask.tif."
        )
    rows = [{"patient": patient, "slice": number, **pair} for (patient, number), pair in found.items()]
    return pd.DataFrame(rows).sort_values(["patient", "slice"], ignore_index=True)


def tiff_files(folder):
    """Paths, relative to `folder`, of all files below it whose name ends in .tif or .tiff: strings with `/` between the parts.

    Links to folders are followed, to each folder once. Raises `UserError` for a folder that can't be read, and for a name that
    can't be written into a table.
    """
    seen = set()
    _is_new(Path(folder), seen)
    for root, folders, names in os.walk(folder, onerror=_refuse_unreadable, followlinks=True):
        folders[:] = [name for name in sorted(folders) if _is_new(Path(root, name), seen)]
        within = "" if Path(root) == folder else Path(root).relative_to(folder).as_posix() + "/"
        for name in names:
            if name.lower().endswith((".tif", ".tiff")):
                _refuse_unwritable(within + name)
                yield within + name


def _refuse_unreadable(error):
    """`os.walk` would go on without the folder."""
    raise UserError(f"folder {error.filename} can't be read ({error.strerror}); change its permissions.") from None


def _is_new(folder, seen):
    """Whether a folder was not seen yet, under this name or another; then it is now."""
    status = folder.stat()
    key = (status.st_dev, status.st_ino)
    return key not in seen and not seen.add(key)


def _refuse_unwritable(name):
    """Control characters would tear a table's rows apart, and bytes that are no UTF-8 have no place in it."""
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        raise UserError(f"file name {name!r} holds a character that can't be written into a table; rename it.")


def read_file(path):
    """The bytes of an image file; raises `BadSlice` for what is no file, and for one too large to be a slice."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise BadSlice("no file that can be read") from None
    # What waits for a writer, like a FIFO, would be read for ever.
    if not stat.S_ISREG(status.st_mode):
        raise BadSlice("no file that can be read")
    if status.st_size > MAX_FILE_BYTES:
        raise BadSlice(f"larger than {MAX_FILE_BYTES // 2**20} MiB")
    return Path(path).read_bytes()


def _page(content):
    """Width and height of a TIFF's first page as its tags tell, and whether another page follows. Raises `BadSlice`."""
    order = "<" if content.startswith(b"II") else ">"
    try:
        (start,) = struct.unpack_from(f"{order}I", content, 4)
        (count,) = struct.unpack_from(f"{order}H", content, start)
        entries = list(struct.iter_unpack(f"{order}HHI4s", content[start + 2 : start + 2 + 12 * count]))
    except struct.error:
        raise BadSlice(NOT_READABLE) from None
    # Of a tag that stands twice, the larger value: a file that lies must not pass.
    sides = {WIDTH_TAG: 0, HEIGHT_TAG: 0}
    for tag, kind, _, value in entries:
        if tag in sides:
            sides[tag] = max(sides[tag], *struct.unpack_from(f"{order}{'H' if kind == SHORT else 'I'}", value))
    following = content[start + 2 + 12 * count :][:4]
    return sides[WIDTH_TAG], sides[HEIGHT_TAG], any(following)


def decode(content):
    """Decode the bytes of a TIFF to uint8, (height, width, 3) in the order of `CHANNELS` or (height, width).

    The cohort stores the channels as red, green, blue; OpenCV delivers blue first, which is undone here.
    Raises `BadSlice`.
    """
    if not content:
        raise BadSlice("empty file (0 bytes)")
    # OpenCV would try its other decoders, some of which set aside whatever memory a damaged file asks for.
    if not content.startswith(TIFF_BEGINNINGS):
        raise BadSlice(NOT_READABLE)
    width, height, more = _page(content)
    if max(width, height) > MAX_SIDE:
        raise BadSlice(f"{width}x{height} pixels, at most {MAX_SIDE} a side are read")
    if more:
        raise BadSlice("holds several pages, expected one image")
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise BadSlice(NOT_READABLE)
    if pixels.dtype != np.uint8:
        raise BadSlice(f"stored as {pixels.dtype}, expected 8 bits a channel")
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB) if pixels.ndim == 3 and pixels.shape[2] == 3 else pixels


def decode_image(content):
    """Decode the bytes of a slice's image to uint8 (height, width, 3); raise `BadSlice` with what is wrong."""
    image = decode(content)
    if image.ndim != 3 or image.shape[2] != 3:
        raise BadSlice(
            f"image has {1 if image.ndim == 2 else image.shape[2]} channel(s), expected 3 ({', '.join(CHANNELS)})"
        )
    return image


def decode_pair(image_content, mask_content):
    """Decode and check one slice: image uint8 (height, width, 3), mask uint8 (height, width) of 0 and 1.

    Raises `BadSlice` with what is wrong.
    """
    image = decode_image(image_content)
    try:
        mask = decode(mask_content)
    except BadSlice as problem:
        raise BadSlice(f"mask: {problem}") from None
    if mask.ndim != 2:
        raise BadSlice(f"mask has {mask.shape[2]} channels, expected 1")
    if mask.shape != image.shape[:2]:
        raise BadSlice(f"image is {image.shape[1]}x{image.shape[0]} but its mask is {mask.shape[1]}x{mask.shape[0]}")
    return image, binary_mask(mask)


def binary_mask(mask):
    """Return a mask of 0 and 255, or of 0 and 1, as 0 and 1; raise `BadSlice` for other values."""
    tumour, highest = (mask > 0).astype(np.uint8), mask.max()
    if highest not in (0, 1, 255) or not np.array_equal(tumour * highest, mask):
        shown = ", ".join(str(value) for value in np.unique(mask) if value not in (0, 255))
        raise BadSlice(f"mask holds {shown[:40]}; expected 0 and 255, or 0 and 1")
    return tumour


def read_pair(folder, row):
    """Read one slice of a `find_slices` table: (image, mask, SHA-256 digest of both files). Raises `BadSlice`."""
    if row.slice < 0:
        raise BadSlice("name is not PATIENT_NUMBER.tif")
    if not row.mask:
        raise BadSlice("image without a mask")
    if not row.image:
        raise BadSlice("mask without an image")
    contents = [read_file(Path(folder, name)) for name in (row.image, row.mask)]
    image, mask = decode_pair(*contents)
    digest = hashlib.sha256(contents[0])
    digest.update(contents[1])
    return image, mask, digest.hexdigest()


def scan(folder, found, keep=None):
    """Read and check every slice of a `find_slices` table, in threads.

    `keep(position, image, mask)` is called with each good slice while its pixels are at hand. Returns
    (slices, problems, fingerprint): the table of slices.csv, a table `patient, slice, path, problem`, and one
    SHA-256 over names and contents of the good slices. Areas are in pixels of the file's own grid.
    """
    rows = list(found.itertuples(index=False))

    def visit(position):
        row = rows[position]
        try:
            image, mask, digest = read_pair(folder, row)
        except (BadSlice, OSError) as problem:
            return None, {
                "patient": row.patient,
                "slice": row.slice,
                "path": row.image or row.mask,
                "problem": str(problem),
            }
        if keep:
            keep(position, image, mask)
        return {
            **row._asdict(),
            "height": image.shape[0],
            "width": image.shape[1],
            "tumour_area": np.count_nonzero(mask),
            "digest": digest,
        }, None

    visited = _in_threads(visit, len(rows))
    good = pd.DataFrame([row for row, _ in visited if row], columns=[*SLICES_COLUMNS, "digest"])
    bad = pd.DataFrame([problem for _, problem in visited if problem], columns=["patient", "slice", "path", "problem"])
    return good[SLICES_COLUMNS], bad, _fingerprint(good)


def _in_threads(visit, count):
    """[visit(0), ..., visit(count - 1)], in threads that take CHUNK at a time: handing over each one costs as much as reading it."""

    def visit_chunk(start):
        return [visit(position) for position in range(start, min(start + CHUNK, count))]

    visited = []
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=count, desc="reading slices", unit="slice", leave=False) as bar,
    ):
        for chunk in pool.map(visit_chunk, range(0, count, CHUNK)):
            visited += chunk
            bar.update(len(chunk))
    return visited


def _fingerprint(good):
    """One SHA-256 over the slices' names and contents, wherever their folder lies."""
    text = "\n".join(f"{row.patient} {row.slice} {row.digest}" for row in good.itertuples())
    return hashlib.sha256(text.encode()).hexdigest()


def kind(slices):
    """Say what a table of slices shows: 'phantom cohort', 'LGG cohort' or 'own data'."""
    names = slices["patient"].astype(str)
    if names.str.startswith("PHANTOM_").any():
        return "phantom cohort"
    whole = (names.nunique(), len(slices)) == LGG_COHORT
    return "LGG cohort" if names.str.startswith("TCGA_").all() and whole else "own data"


def institution(patient):
    """Return the two letters in a patient's name, e.g. 'CS' of TCGA_CS_4941_19960909; '' where there are none."""
    parts = str(patient).split("_")
    return parts[1] if len(parts) > 1 and len(parts[1]) == 2 else ""


def patient_table(slices):
    """Summarise a table of slices per patient: slices, tumour_slices, tumour_area (summed, pixels), institution."""
    grouped = slices.groupby("patient")["tumour_area"]
    table = pd.DataFrame(
        {
            "slices": grouped.size(),
            "tumour_slices": grouped.agg(lambda area: int((area > 0).sum())),
            "tumour_area": grouped.sum(),
        }
    ).reset_index()
    return table.assign(institution=table["patient"].map(institution))


def unpack(archive, target, limit=MAX_UNPACKED_BYTES):
    """Extract the TIFF files of a zip into `target`, whole or not at all.

    Raises `UserError` for a damaged zip, an entry that points outside, a link, or more than `limit` bytes.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".part-", dir=target.parent))
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = _safe_entries(opened, archive, limit)
            for entry in entries:
                opened.extract(entry, temporary)
        temporary.replace(target)
    except OSError as error:
        if error.errno in FAULTS_OF_THE_DISK:
            raise
        raise _damaged(archive, error) from None
    except (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        NotImplementedError,
        RuntimeError,
        ValueError,
    ) as error:
        raise _damaged(archive, error) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _damaged(archive, error):
    """What is said of a zip that can't be read."""
    reason = " ".join(str(error).split())
    return UserError(f"zip {archive} is damaged or can't be read ({reason}); download it again.")


def _safe_entries(opened, archive, limit):
    """The TIFF entries of an open zip; refuses the whole archive where one entry is unsafe."""
    for entry in opened.infolist():
        parts = entry.filename.replace("\\", "/").split("/")
        is_link = stat.S_ISLNK(entry.external_attr >> 16)
        if ".." in parts or parts[0] == "" or ":" in parts[0] or is_link:
            raise UserError(f"zip {archive} is unsafe: entry {entry.filename!r} points outside the target folder.")
    entries = [entry for entry in opened.infolist() if entry.filename.lower().endswith((".tif", ".tiff"))]
    names = [entry.filename for entry in entries]
    if len(set(names)) < len(names):
        raise UserError(f"zip {archive} holds {max(names, key=names.count)} more than once; extract it by hand.")
    if sum(entry.file_size for entry in entries) > limit:
        raise UserError(
            f"zip {archive} would unpack to more than {limit / 2**30:g} GiB; extract it by hand if you trust it."
        )
    return entries
