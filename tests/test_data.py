"""Finding, reading and checking files; zips; the download."""

import os
import resource
import struct
import zipfile

import cv2
import numpy as np
import pytest

from lggseg_utils import data, preprocess
from lggseg_utils.config import UserError


def test_channels_come_in_the_cohorts_order_whatever_the_reader_delivers(tmp_path, write_slice):
    blue_green_red = np.dstack([np.full((16, 16), value, np.uint8) for value in (30, 20, 10)])
    image_path, mask_path = write_slice(tmp_path, "P", 1, blue_green_red)
    image, _ = data.decode_pair(image_path.read_bytes(), mask_path.read_bytes())
    assert dict(zip(data.CHANNELS, image[0, 0], strict=True)) == {"pre-contrast": 10, "FLAIR": 20, "post-contrast": 30}


def test_slices_are_found_at_any_depth_once_and_in_numeric_order(tmp_path, write_slice):
    for number in (10, 2, 1):
        write_slice(tmp_path / "kaggle_3m", "TCGA_CS_1", number)
        write_slice(tmp_path / "lgg" / "kaggle_3m", "TCGA_CS_1", number)
    (tmp_path / "data.csv").write_text("not a slice")
    found = data.find_slices(tmp_path)
    assert found["slice"].tolist() == [1, 2, 10]
    assert found["image"][0] == "kaggle_3m/TCGA_CS_1/TCGA_CS_1_1.tif"


@pytest.mark.parametrize("mask_is_there", [True, False])
def test_a_slice_that_stands_twice_at_one_depth_is_not_paired_at_will(tmp_path, write_slice, mask_is_there):
    _, mask = write_slice(tmp_path / "first", "1", 1)
    write_slice(tmp_path / "second", "1", 1)
    if not mask_is_there:
        mask.unlink()
    with pytest.raises(
        UserError, match=r"holds one slice twice: first/1/1_1\S+tif and second/1/1_1\S+tif; remove or rename"
    ):
        data.find_slices(tmp_path)


def test_numbers_that_differ_by_zeros_alone_are_one_slice_twice(tmp_path, write_slice):
    for number in ("1", "01"):
        write_slice(tmp_path, "P", number)
    with pytest.raises(UserError, match=r"holds one slice twice: P/P_01\S* and P/P_1\S*;"):
        data.find_slices(tmp_path)


def test_the_table_counts_tumour_on_the_files_own_grid(tmp_path, write_slice):
    mask = np.zeros((16, 16), np.uint8)
    mask[2:5, 3:7] = 255
    write_slice(tmp_path, "TCGA_CS_1", 4, mask=mask)
    slices, problems, _ = data.scan(tmp_path, data.find_slices(tmp_path))
    assert list(slices.columns) == data.SLICES_COLUMNS and problems.empty
    assert slices.loc[0, ["height", "width", "tumour_area"]].tolist() == [16, 16, 12]


def test_masks_of_0_and_1_are_masks_too():
    assert data.binary_mask(np.array([[0, 1]], np.uint8)).tolist() == [[0, 1]]
    assert data.binary_mask(np.array([[0, 255]], np.uint8)).tolist() == [[0, 1]]


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(UserError, match="does not exist. Name the folder that holds the patients, or their zip"):
        data.find_slices(tmp_path / "nowhere")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match="notes.txt is neither a folder nor a zip"):
        data.find_slices(tmp_path / "notes.txt")
    with pytest.raises(UserError, match=r"no slice in .*: expected PATIENT/PATIENT_NUMBER.tif"):
        data.find_slices(tmp_path)


def replaced(make):
    """What makes something else at a file's place, for NO_FILES."""

    def replace(path):
        path.unlink()
        make(path)

    return replace


NO_FILES = {
    "two pages": lambda path: cv2.imwritemulti(str(path), [np.full((16, 16, 3), 90, np.uint8)] * 2),
    "waits for a writer": replaced(os.mkfifo),
    "link to nowhere": replaced(lambda path: path.symlink_to("nowhere.tif")),
    "four tebibytes": lambda path: os.truncate(path, 2**42),
}


def damage(kind, image, mask):
    """Damage one slice's files; returns what the user is told."""
    if kind in NO_FILES:
        NO_FILES[kind](image)
    elif kind == "no mask":
        mask.unlink()
    elif kind == "no image":
        image.unlink()
    elif kind == "zero bytes":
        image.write_bytes(b"")
    elif kind == "cut short":
        image.write_bytes(image.read_bytes()[:-200])
    elif kind == "text":
        mask.write_text("I am no TIFF")
    elif kind == "other size":
        cv2.imwrite(str(mask), np.zeros((8, 16), np.uint8))
    elif kind == "other values":
        cv2.imwrite(str(mask), np.full((16, 16), 7, np.uint8))
    elif kind == "16 bits":
        cv2.imwrite(str(image), np.zeros((16, 16, 3), np.uint16))
    elif kind == "one channel":
        cv2.imwrite(str(image), np.zeros((16, 16), np.uint8))
    elif kind == "odd name":
        image.rename(image.with_name("overview.tif"))
        mask.unlink()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no mask", "image without a mask"),
        ("no image", "mask without an image"),
        ("zero bytes", "empty file (0 bytes)"),
        ("cut short", "not a readable TIFF (damaged, cut short, or another format)"),
        ("text", "mask: not a readable TIFF (damaged, cut short, or another format)"),
        ("other size", "image is 16x16 but its mask is 16x8"),
        ("other values", "mask holds 7; expected 0 and 255, or 0 and 1"),
        ("16 bits", "stored as uint16, expected 8 bits a channel"),
        ("one channel", "image has 1 channel(s), expected 3 (pre-contrast, FLAIR, post-contrast)"),
        ("two pages", "holds several pages, expected one image"),
        ("waits for a writer", "no file that can be read"),
        ("link to nowhere", "no file that can be read"),
        ("four tebibytes", "larger than 256 MiB"),
        ("odd name", "name is not PATIENT_NUMBER.tif"),
    ],
)
def test_a_bad_slice_ends_the_run_with_its_path_or_is_left_out(tmp_path, write_slice, open_smoke, kind, message):
    folder = tmp_path / "cohort"
    for number in range(1, 5):
        write_slice(folder, "TCGA_CS_1", number)
    damage(kind, *write_slice(folder, "TCGA_CS_1", 5))
    with pytest.raises(UserError) as error:
        preprocess.load_cohort(open_smoke(folder))
    assert str(error.value).startswith(f"1 of 5 slices in {folder} can't be used, the first: ")
    assert f": {message}. All are listed in " in str(error.value) and "--skip-bad" in str(error.value)
    assert (tmp_path / "run" / "problems.csv").exists() and not (tmp_path / "run" / "cohort").exists()


def test_skip_bad_goes_on_and_records_it(tmp_path, write_slice, open_smoke):
    folder = tmp_path / "cohort"
    for number in range(1, 5):
        write_slice(folder, "TCGA_CS_1", number, image=np.full((16, 16, 3), 10 * number, np.uint8))
    (folder / "TCGA_CS_1" / "TCGA_CS_1_2.tif").write_bytes(b"")
    run = open_smoke(folder, skip_bad=True)
    cohort = preprocess.load_cohort(run)
    assert cohort.skipped == 1 and run.record()["data"]["skipped"] == 1
    assert cohort.slices["slice"].tolist() == [1, 3, 4]
    assert cohort.images[:, 0, 0, 0].tolist() == [10, 30, 40]


def test_what_failed_for_bad_slices_goes_on_without_them_in_the_same_folder(tmp_path, write_slice, open_smoke):
    for number in range(1, 4):
        write_slice(tmp_path / "cohort", "A", number)
    (tmp_path / "cohort" / "A" / "A_2.tif").write_bytes(b"")
    with pytest.raises(UserError, match="--skip-bad"):
        preprocess.load_cohort(open_smoke(tmp_path / "cohort"))
    assert preprocess.load_cohort(open_smoke(tmp_path / "cohort", skip_bad=True)).skipped == 1


def test_problems_that_are_mended_are_no_longer_listed(tmp_path, write_slice, open_smoke):
    image, _ = write_slice(tmp_path / "cohort", "A", 1)
    whole = image.read_bytes()
    image.write_bytes(b"")
    with pytest.raises(UserError):
        preprocess.load_cohort(open_smoke(tmp_path / "cohort"))
    image.write_bytes(whole)
    preprocess.load_cohort(open_smoke(tmp_path / "cohort"))
    assert not (tmp_path / "run" / "problems.csv").exists()


def test_linked_folders_are_read_once_and_circles_end(tmp_path, write_slice):
    write_slice(tmp_path / "elsewhere", "A", 1)
    write_slice(tmp_path, "cohort", 2)
    (tmp_path / "cohort" / "A").symlink_to(tmp_path / "elsewhere" / "A")
    (tmp_path / "elsewhere" / "A" / "again").symlink_to(tmp_path / "cohort")
    assert data.find_slices(tmp_path / "cohort")["image"].tolist() == ["A/A_1.tif", "cohort_2.tif"]


def test_a_folder_that_cannot_be_read_is_not_skipped(tmp_path, write_slice, monkeypatch):
    write_slice(tmp_path, "A", 1)

    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"can't be read \(Permission denied\); change its permissions"):
        data.find_slices(tmp_path)


@pytest.mark.parametrize("patient", ["A\rB", "A\nB", "A\x07", "A\udcff"])
def test_names_that_no_table_can_hold_are_refused(tmp_path, patient):
    try:
        tmp_path.joinpath(f"{patient}_1.tif").touch()
    except (OSError, UnicodeError):
        pytest.skip("this file system refuses the name itself")
    with pytest.raises(UserError, match="holds a character that can't be written into a table; rename it"):
        data.find_slices(tmp_path)


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_a_zip_that_holds_a_slice_twice_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive:
        archive.writestr("a_1.tif", b"one")
        archive.writestr("a_1.tif", b"other")
    with pytest.raises(UserError, match="twice.zip holds a_1.tif more than once"):
        data.unpack(tmp_path / "twice.zip", tmp_path / "inner" / "target")


def make_zip(path, entries):
    """Write a zip of name -> bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def test_a_zip_serves_as_well_as_a_folder(tmp_path, write_slice, open_smoke):
    for number in range(1, 4):
        write_slice(tmp_path / "cohort", "TCGA_CS_1", number)
    files = {str(path.relative_to(tmp_path)): path.read_bytes() for path in (tmp_path / "cohort").rglob("*.tif")}
    archive = make_zip(tmp_path / "cohort.zip", {**files, "cohort/readme.txt": b"left alone"})
    assert len(preprocess.load_cohort(open_smoke(archive)).slices) == 3


@pytest.mark.parametrize("entry", ["../evil.tif", "/etc/evil.tif", "a/../../evil.tif", "C:\\evil.tif", "..\\evil.tif"])
def test_a_zip_that_points_outside_is_refused_whole(tmp_path, entry):
    archive = make_zip(tmp_path / "evil.zip", {"fine_1.tif": b"x", entry: b"x"})
    with pytest.raises(UserError, match="is unsafe: entry .* points outside the target folder"):
        data.unpack(archive, tmp_path / "inner" / "target")
    assert not list(tmp_path.rglob("*.tif"))


def test_a_damaged_or_huge_zip_leaves_nothing_behind(tmp_path):
    archive = make_zip(tmp_path / "cohort.zip", {"a_1.tif": bytes(10_000)})
    with pytest.raises(UserError, match="would unpack to more than"):
        data.unpack(archive, tmp_path / "inner" / "target", limit=9_999)
    archive.write_bytes(archive.read_bytes()[:40])
    with pytest.raises(UserError, match=r"is damaged or can't be read .*; download it again"):
        data.unpack(archive, tmp_path / "inner" / "target")
    assert not list((tmp_path / "inner").iterdir())


def test_phantom_and_real_are_told_apart(tmp_path, phantom_folder, write_slice):
    assert data.kind(data.find_slices(phantom_folder)) == "phantom cohort"
    write_slice(tmp_path, "TCGA_CS_1", 1)
    assert data.kind(data.find_slices(tmp_path)) == "own data"
    names = [f"TCGA_CS_{patient}" for patient in range(110)]
    whole = data.pd.DataFrame({"patient": (names * 36)[:3929]})
    assert data.kind(whole) == "LGG cohort"


def test_a_tag_that_stands_twice_hides_nothing():
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in ((256, 60_000), (256, 16), (257, 16))]
    content = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + bytes(4)
    with pytest.raises(data.BadSlice, match="60000x16 pixels, at most 4096 a side are read"):
        data.decode(content)


def test_an_image_that_claims_to_be_huge_is_refused_without_the_memory(tmp_path, write_slice):
    """A TIFF of a few hundred bytes whose header promises 60,000 x 60,000 pixels."""
    image, _ = write_slice(tmp_path, "A", 1)
    content = bytearray(image.read_bytes())
    start = int.from_bytes(content[4:8], "little")
    for entry in range(int.from_bytes(content[start : start + 2], "little")):
        at = start + 2 + 12 * entry
        if int.from_bytes(content[at : at + 2], "little") in (256, 257):
            content[at + 2 : at + 4] = (4).to_bytes(2, "little")
            content[at + 8 : at + 12] = (60_000).to_bytes(4, "little")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(data.BadSlice, match="60000x60000 pixels, at most 4096 a side are read"):
        data.decode(bytes(content))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB
