"""The cohort's files: found, checked, read; bad ones named with their place."""

import errno
import io
import os
import shutil
import struct
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import write_ellipses, write_slice
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lggseg_utils import data, records, runs
from lggseg_utils.settings import UserError


def test_channels_come_in_the_order_of_the_file(tmp_path):
    write_slice(tmp_path, "TCGA_CS_1", 1, image=np.full((16, 16, 3), (10, 20, 30), np.uint8))
    assert data.read_cohort(tmp_path).images[0][0, 0].tolist() == [10, 20, 30]


@pytest.mark.parametrize("suffix", [".tif", ".TIFF", ".png"])
def test_tiff_and_png_are_read_alike(tmp_path, suffix):
    image = np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)
    mask = np.eye(16, dtype=np.uint8) * 255
    write_slice(tmp_path, "P", 1, image, mask, suffix)
    cohort = data.read_cohort(tmp_path)
    assert np.array_equal(cohort.images[0], image) and np.array_equal(cohort.masks[0], np.eye(16))


def test_slices_are_found_at_any_depth_once_and_in_numeric_order(tmp_path):
    for number in (10, 2):
        write_slice(tmp_path / "kaggle_3m", "TCGA_CS_1", number)
    shutil.copytree(tmp_path / "kaggle_3m", tmp_path / "archive" / "kaggle_3m")
    (tmp_path / "kaggle_3m" / "data.csv").touch()
    slices = data.read_cohort(tmp_path).slices
    assert (
        slices["slice"].tolist() == [2, 10] and slices["image"].str.startswith("kaggle_3m/").all()
    )


def test_a_slice_that_stands_twice_at_one_depth_is_refused(tmp_path):
    write_slice(tmp_path / "one", "A", 1)
    write_slice(tmp_path / "two", "A", 1)
    with pytest.raises(
        UserError,
        match=r"contains one slice twice: one/A/A_1\.tif and two/A/A_1\.tif; remove or rename",
    ):
        data.read_cohort(tmp_path)


def with_backslashes(folder, target):
    """Zip a cohort's two trees as PowerShell 5 does."""
    with zipfile.ZipFile(target, "w") as archive:
        for tree in ("kaggle_3m", "lgg-mri-segmentation/kaggle_3m"):
            for path in sorted(folder.rglob("*.tif")):
                name = f"{tree}/{path.relative_to(folder).as_posix()}".replace("/", "\\")
                archive.write(path, name)
    return target


def test_backslashes_in_a_zip_do_not_double_the_patients(tmp_path, cohort_folder):
    """Each patient's twin would be another patient, in training for one in the test set."""
    written = data.read_cohort(with_backslashes(cohort_folder, tmp_path / "c.zip"))
    assert written.slices["patient"].nunique() == 6 and len(written.slices) == 30
    assert written.fingerprint == data.read_cohort(cohort_folder).fingerprint


def test_files_that_unzip_left_with_backslashes_are_read(tmp_path):
    image, mask = write_slice(tmp_path, "A", 1)
    for path in (image, mask):
        path.rename(tmp_path / f"kaggle_3m\\A\\{path.name}")
    assert data.read_cohort(tmp_path).slices["patient"].tolist() == ["A"]


def test_one_image_under_two_patients_is_refused_unless_it_is_empty(tmp_path):
    speckled = np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)
    for patient in ("A", "B"):
        write_slice(tmp_path, patient, 1, np.zeros((16, 16, 3), np.uint8))
    for number in (2, 3):  # of one patient: no leak
        write_slice(tmp_path, "A", number, speckled)
    assert len(data.read_cohort(tmp_path).slices) == 4
    write_slice(tmp_path, "B", 7, speckled, suffix=".png")
    message = r"one image under two patients, A/A_2\.tif and B/B_7\.png, .*; remove or rename one"
    with pytest.raises(UserError, match=message):
        data.read_cohort(tmp_path)


@pytest.mark.parametrize(
    ("name", "patient", "number"),
    [
        ("A/TCGA_CS_4941_1996_7.tif", "TCGA_CS_4941_1996", 7),
        ("A/slice000.tif", "A", 0),
        ("A/slice_12.png", "A", 12),
        ("A/Slice 3.png", "A", 3),
        ("A/img_2_7.tif", "img_2", 7),
        ("A/imgs_7.tif", "imgs", 7),
        ("deep/A/007.tif", "A", 7),
        ("A/Pat1-z001.tif", "Pat1", 1),
        ("A/Pat1_slice 3.tiff", "Pat1", 3),
        ("z3.tif", "source", 3),
        ("A/Pat1.tif", "Pat1", -1),
        ("A/overview.tif", "overview", -1),
    ],
)
def test_natural_names_are_understood(tmp_path, name, patient, number):
    found = data.find_slices([name], tmp_path / "source").iloc[0]
    assert (found["patient"], found["slice"], found["image"]) == (patient, number, name)


def test_natural_names_have_masks_too(tmp_path):
    found = data.find_slices(["A/z01.tif", "A/z01_mask.tif"], tmp_path)
    assert found[["image", "mask"]].to_numpy().tolist() == [["A/z01.tif", "A/z01_mask.tif"]]


def test_folders_of_slices_that_name_no_patient_are_patients(tmp_path):
    names = [
        f"{patient}/img_{number}{end}.png"
        for patient, number in (("A", 1), ("B", 4))
        for end in ("", "_mask")
    ]
    found = data.find_slices(names, tmp_path)
    assert list(found["patient"]) == ["A", "B"]
    assert list(found["slice"]) == [1, 4]


def test_what_is_left_out_is_said(tmp_path, capsys):
    image, _ = write_slice(tmp_path, "A", 1)
    data.read_cohort(tmp_path)
    assert capsys.readouterr().err == ""
    for name in ("a.jpg", "b.JPEG", ".hidden.jpg"):
        Image.open(image).save(image.with_name(name), "JPEG")
    data.read_cohort(tmp_path)
    said = f"{tmp_path}: 2 images left out (.jpeg, .jpg); read are .tif, .tiff, .png. JPEG has changed the pixels; export the slices again, as PNG or TIFF.\n"
    assert capsys.readouterr().err == said


def test_pillow_warns_others_after_the_package_is_imported():
    filters = "[f for f in warnings.filters if 'PIL' in str(f[3])]"
    code = f"import warnings, lggseg_utils.data; print({filters})"
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert printed.stdout == "[]\n"


def test_a_split_that_cannot_be_made_is_refused(tmp_path):
    slices = pd.DataFrame({"patient": ["A", "A", "B"], "slice": [1, 2, 1]})
    data.check_enough(slices, "slice", 3)
    message = "splitting by patient needs at least 3 patients, but the data contain 2."
    with pytest.raises(UserError, match=message):
        data.check_enough(slices, "patient", 3)


def test_the_table_counts_tumour_on_the_files_own_grid(tmp_path):
    mask = np.zeros((16, 24), np.uint8)
    mask[2:5, 3:7] = 255
    write_slice(tmp_path, "TCGA_HT_1", 1, np.zeros((16, 24, 3), np.uint8), mask)
    row = data.read_cohort(tmp_path).slices.iloc[0]
    assert (row["height"], row["width"], row["tumour_area"]) == (16, 24, 12)


@pytest.mark.parametrize("white", [1, 255])
def test_masks_of_0_and_1_are_masks_too(tmp_path, white):
    write_slice(tmp_path, "A", 1, mask=np.eye(16, dtype=np.uint8) * np.uint8(white))
    assert data.read_cohort(tmp_path).masks[0].sum() == 16


def test_missing_and_empty_sources(tmp_path):
    with pytest.raises(
        UserError, match="does not exist. Name the folder that holds the patients, or their zip"
    ):
        data.read_cohort(tmp_path / "nowhere")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match="notes.txt is neither a folder nor a zip"):
        data.read_cohort(tmp_path / "notes.txt")
    with pytest.raises(UserError, match=r"no slice in .*: expected PATIENT/PATIENT_NUMBER.tif"):
        data.read_cohort(tmp_path)


def two_pages(path):
    """Write a TIFF of two pages."""
    page = Image.fromarray(np.full((16, 16, 3), 90, np.uint8))
    page.save(path, save_all=True, append_images=[page])


def save(pixels):
    """Return a function that replaces a file by an image."""
    return lambda path: Image.fromarray(pixels).save(path)


def sixteen_bits():
    """Return the bytes of a TIFF with three channels of sixteen bits, of which Pillow would keep eight."""
    return cv2.imencode(".tif", np.full((16, 16, 3), 300, np.uint16))[1].tobytes()


def sixteen_bits_by_channel():
    """Return the bytes of a TIFF whose three channels of sixteen bits follow each other: Pillow reads such a file as bytes."""
    start, plane = 8 + 2 + 10 * 12 + 4, 16 * 16 * 2
    lists = struct.pack(
        "<3H6I", 16, 16, 16, *(start + 30 + plane * channel for channel in range(3)), *[plane] * 3
    )
    tags = [
        (256, 3, 1, 16),
        (257, 3, 1, 16),
        (258, 3, 3, start),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 3, start + 6),
    ]
    tags += [(277, 3, 1, 3), (278, 3, 1, 16), (279, 4, 3, start + 18), (284, 3, 1, 2)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return (
        struct.pack("<2sHIH", b"II", 42, 8, len(tags))
        + entries
        + bytes(4)
        + lists
        + b"\x2c\x01" * (3 * 16 * 16)
    )


IMAGE_DAMAGE = {
    "mask without an image": lambda path: path.unlink(),
    "damaged or cut short": lambda path: path.write_bytes(path.read_bytes()[:-300]),
    "not a readable TIFF or PNG": lambda path: path.write_text("I am no TIFF"),
    "stored as uint16, expected 8 bits": lambda path: path.write_bytes(sixteen_bits()),
    "stored as uint16, expected 8": lambda path: path.write_bytes(sixteen_bits_by_channel()),
    "has 1 channel, expected 3 (pre-contrast, FLAIR, post-contrast); stack the three": save(
        np.full((16, 16), 90, np.uint8)
    ),
    "has 4 channels, expected 3 (pre-contrast, FLAIR, post-contrast); drop the fourth": save(
        np.full((16, 16, 4), 90, np.uint8)
    ),
    "stored as uint16, expected 8 bits per channel; divide all slices of a patient": save(
        np.full((16, 16), 300, np.uint16)
    ),
    "contains several pages, expected one image; save each page as PATIENT_NUMBER.tif": two_pages,
    "can't be read (No such file or directory)": lambda path: (
        path.unlink(),
        path.symlink_to("nowhere.tif"),
    ),
}


def palette(path):
    """Replace a file by an image whose values are places in a palette."""
    image = Image.fromarray(np.zeros((16, 16), np.uint8)).convert("P")
    image.save(path)


MASK_DAMAGE = {
    "mask: stored as P, expected RGB or grey": palette,
    "image without a mask": lambda path: path.unlink(),
    "mask: not a readable TIFF or PNG": lambda path: path.write_text("no TIFF"),
    "mask contains 7; expected 0 and 255, or 0 and 1": save(np.full((16, 16), 7, np.uint8)),
    "mask contains 0, 1, 255; expected 0 and 255, or 0 and 1": save(
        np.diag([0, 1, 255] * 5 + [0]).astype(np.uint8)
    ),
    "mask: stored as float32, expected 8 bits": save(np.zeros((16, 16), np.float32)),
    "mask: stored as int32, expected 8 bits": save(np.zeros((16, 16), np.int32)),
    "mask: has 3 channels, expected 1": save(np.zeros((16, 16, 3), np.uint8)),
}


@pytest.mark.parametrize(
    ("which", "message", "damage"),
    [(0, *case) for case in IMAGE_DAMAGE.items()] + [(1, *case) for case in MASK_DAMAGE.items()],
)
def test_a_bad_slice_ends_the_run_with_its_path_or_is_left_out(
    tmp_path, open_smoke, which, message, damage
):
    folder = write_ellipses(tmp_path / "cohort", 1, 4, side=40)
    damage(write_slice(folder, "TCGA_CS_00", 0)[which])
    with pytest.raises(UserError) as error:
        data.load_cohort(open_smoke(folder))
    assert str(error.value).startswith(
        f"1 of 5 slices in {folder} can't be used, the first: TCGA_CS_00/TCGA_CS_00_0"
    )
    assert (
        f": {message}" in str(error.value)
        and "--skip-bad" in str(error.value)
        and "\n" not in str(error.value)
    )
    assert len(runs.read_csv(tmp_path / "run" / "problems.csv")) == 1
    run = open_smoke(folder, skip_bad=True)
    assert data.load_cohort(run).slices["slice"].tolist() == [1, 2, 3, 4]
    facts = run.record()["data"]
    assert (facts["slices"], facts["tumour_slices"], facts["skipped"]) == (4, 3, 1)


def test_bad_slices_are_listed_until_they_are_repaired_and_not_skipped_where_all_are(tmp_path):
    image, _ = write_slice(tmp_path / "cohort", "A", 1)
    report = tmp_path / "problems.csv"
    image.rename(tmp_path / "away.tif")
    with pytest.raises(UserError, match="1 of 1 slices in .* can't be used"):
        data.read_cohort(tmp_path / "cohort", skip_bad=True, report=report)
    assert runs.read_csv(report)["path"].tolist() == ["A/A_1_mask.tif"]
    (tmp_path / "away.tif").rename(image)
    data.read_cohort(tmp_path / "cohort", report=report)
    assert len(runs.read_csv(report)) == 0


def test_a_mask_that_is_turned_by_a_quarter_does_not_fit(tmp_path):
    _, mask = write_slice(tmp_path, "A", 1, np.full((16, 8, 3), 90, np.uint8))
    save(np.zeros((8, 16), np.uint8))(mask)
    with pytest.raises(UserError, match="image is 8x16 but its mask is 16x8"):
        data.read_cohort(tmp_path)


def test_hidden_files_of_other_systems_are_left_out(tmp_path):
    image, _ = write_slice(tmp_path, "A", 1)
    (image.parent / f"._{image.name}").write_bytes(b"macOS")
    assert len(data.read_cohort(tmp_path).slices) == 1


def test_a_name_that_is_not_utf8_gets_one_line(tmp_path):
    image, _ = write_slice(tmp_path, "A", 1)
    image.rename(os.fsdecode(bytes(image.parent) + b"/M\xfcller_1.tif"))
    with pytest.raises(
        UserError, match=r"file name 'A/M.*ller_1\.tif' in .* is not UTF-8; rename it\."
    ):
        data.read_cohort(tmp_path)


def test_a_file_of_another_name_is_named(tmp_path):
    write_slice(tmp_path, "A", 1)
    save(np.zeros((16, 16, 3), np.uint8))(tmp_path / "overview.tif")
    with pytest.raises(UserError, match=r"overview\.tif: name is not PATIENT_NUMBER\.tif"):
        data.read_cohort(tmp_path)


@pytest.mark.parametrize("name", ["TCGA_CS_00_1.tif", "TCGA_CS_00_1_mask.tif"])
def test_a_run_folder_of_other_data_is_refused(tmp_path, open_smoke, name):
    folder = write_ellipses(tmp_path / "cohort", 1, 4, side=40)
    run = open_smoke(folder)
    data.load_cohort(run)
    data.load_cohort(run)
    changed = folder / "TCGA_CS_00" / name
    save(255 - np.asarray(Image.open(changed)))(changed)
    with pytest.raises(
        UserError, match=r"was made from other data; choose another one, or remove it\."
    ):
        data.load_cohort(run)


def test_a_cohort_without_tumour_teaches_nothing(tmp_path, open_smoke):
    write_slice(tmp_path / "cohort", "A", 1)
    with pytest.raises(UserError, match="shows tumour, so there is nothing to learn"):
        data.load_cohort(open_smoke(tmp_path / "cohort"))


def zipped(folder, target, prefix=""):
    """Zip a cohort folder."""
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.rglob("*.tif")):
            archive.write(path, prefix + path.relative_to(folder).as_posix())
    return target


def test_a_zip_serves_as_well_as_a_folder(tmp_path, cohort_folder):
    from_zip, from_folder = (
        data.read_cohort(zipped(cohort_folder, tmp_path / "c.zip")),
        data.read_cohort(cohort_folder),
    )
    assert from_zip.fingerprint == from_folder.fingerprint and len(from_zip.images) == 30


def test_an_unsafe_zip_writes_nothing_anywhere(tmp_path, cohort_folder):
    (tmp_path / "inner").mkdir()
    data.read_cohort(zipped(cohort_folder, tmp_path / "inner" / "c.zip", prefix="../../evil/"))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["c.zip", "inner"]


def test_a_damaged_zip_is_named(tmp_path, cohort_folder):
    content = zipped(cohort_folder, tmp_path / "c.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(content[:-100])
    with pytest.raises(
        UserError, match=r"zip .*cut.zip is damaged or can't be read \(.*\); download it again\."
    ):
        data.read_cohort(tmp_path / "cut.zip")
    changed = bytearray(content)
    changed[len(content) // 2] ^= 255
    (tmp_path / "changed.zip").write_bytes(changed)
    with pytest.raises(UserError, match=r"1 of 30 slices in .*can.t be read .Bad CRC-32 for file"):
        data.read_cohort(tmp_path / "changed.zip")


@given(st.binary(max_size=60), st.integers(0, 1200), st.sampled_from(["tiff", "png"]))
def test_damaged_files_are_read_or_named(junk, place, kind):
    Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save(stored := io.BytesIO(), kind)
    content = stored.getvalue()
    damaged = content[:place] + junk + content[place + len(junk) :]
    try:
        pixels = data.decode(damaged, 3)
    except data.BadSlice as problem:
        assert "\n" not in str(problem)
    else:
        assert pixels.dtype == np.uint8 and pixels.shape[2] == 3


def test_the_sample_is_what_its_readme_says():
    cohort = data.read_cohort()
    patients = data.patient_table(cohort.slices)
    assert len(patients) == 16 and patients[
        "institution"
    ].value_counts().to_dict() == dict.fromkeys(("CS", "DU", "FG", "HT"), 4)
    assert {image.shape for image in cohort.images} == {
        (128, 128, 3)
    } and data.SAMPLE.stat().st_size < 12e6
    listed = runs.read_csv(records.RECORDS / "cohort.csv")
    assert (listed["patient"].nunique(), len(listed)) == data.LGG_COHORT
    same = cohort.slices.merge(listed, on=["patient", "slice", "height", "width", "tumour_area"])
    assert len(same) == len(cohort.slices)


def test_the_sample_is_made_the_same_each_time(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(runs.REPOSITORY / "scripts"))
    import make_sample

    listed = runs.read_csv(records.RECORDS / "cohort.csv")
    with zipfile.ZipFile(data.SAMPLE) as archive:
        names = archive.namelist()
        chosen = make_sample.choose(listed)
        assert chosen == sorted({name.split("/")[1] for name in names})
        few = [name for name in names if name.split("/")[1] in chosen[::8]]
        archive.extractall(tmp_path, few)
        make_sample.write_sample(
            tmp_path, data.read_cohort(tmp_path).slices, tmp_path / "again.zip"
        )
        with zipfile.ZipFile(tmp_path / "again.zip") as again:
            assert sorted(again.namelist()) == sorted(few)
            assert all(again.read(name) == archive.read(name) for name in few)


def test_patients_are_summarised_by_hand():
    slices = pd.DataFrame(
        {"patient": ["TCGA_CS_1", "TCGA_CS_1", "x"], "slice": [1, 2, 1], "tumour_area": [0, 5, 7]}
    )
    table = data.patient_table(slices)
    assert table.iloc[0].tolist() == ["TCGA_CS_1", 2, 1, 5, "CS"] and table.iloc[1].tolist() == [
        "x",
        1,
        1,
        7,
        "",
    ]


class TestFetch:
    """kagglehub is replaced: there is no Kaggle here."""

    @pytest.fixture
    def kaggle(self, monkeypatch):
        """Let kagglehub do what a function says."""
        monkeypatch.setenv("KAGGLEHUB_CACHE", "")
        return lambda act: monkeypatch.setitem(
            sys.modules, "kagglehub", types.SimpleNamespace(dataset_download=act)
        )

    def test_the_cohort_appears_when_it_is_whole_and_is_not_fetched_again(
        self, tmp_path, kaggle, monkeypatch
    ):
        monkeypatch.setattr(data, "LGG_COHORT", (2, 4))
        kaggle(lambda handle: write_ellipses(tmp_path / ".lgg-download" / "versions", 2, 2, 40))
        assert data.fetch(tmp_path / "lgg") == tmp_path / "lgg"
        kaggle(lambda handle: pytest.fail("fetched again"))
        data.fetch(tmp_path / "lgg")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["lgg"]

    def test_a_mount_of_another_file_system_is_copied(self, tmp_path, kaggle, monkeypatch):
        monkeypatch.setattr(data, "LGG_COHORT", (2, 4))
        mounted = write_ellipses(tmp_path / "mount", 2, 2, 40)
        replace = Path.replace

        def refuse_the_mount(path, target):
            if path == mounted:
                raise OSError(errno.EXDEV, "Invalid cross-device link")
            return replace(path, target)

        monkeypatch.setattr(Path, "replace", refuse_the_mount)
        kaggle(lambda handle: mounted)
        assert data.fetch(tmp_path / "lgg") == tmp_path / "lgg"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["lgg", "mount"]

    def test_the_caches_of_colab_and_kaggle_are_off(self, tmp_path, kaggle, monkeypatch):
        from kagglehub import config

        monkeypatch.setattr(data, "LGG_COHORT", (2, 4))
        for name in ("DISABLE_COLAB_CACHE", "DISABLE_KAGGLE_CACHE"):
            monkeypatch.setenv(name, "")

        def download(handle):
            assert config.is_colab_cache_disabled() and config.is_kaggle_cache_disabled()
            return write_ellipses(tmp_path / ".lgg-download" / "versions", 2, 2, 40)

        kaggle(download)
        data.fetch(tmp_path / "lgg")

    def test_a_folder_that_a_mac_has_shown_is_empty(self, tmp_path, kaggle, monkeypatch):
        monkeypatch.setattr(data, "LGG_COHORT", (2, 4))
        (tmp_path / "lgg").mkdir()
        (tmp_path / "lgg" / ".DS_Store").write_text("Finder's")
        kaggle(lambda handle: write_ellipses(tmp_path / ".lgg-download" / "versions", 2, 2, 40))
        data.fetch(tmp_path / "lgg")
        assert (tmp_path / "lgg" / ".DS_Store").read_text() == "Finder's"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["lgg"]

    def test_a_part_is_refused(self, tmp_path, kaggle):
        kaggle(lambda handle: write_ellipses(tmp_path / ".lgg-download" / "versions", 2, 2, 40))
        with pytest.raises(
            UserError,
            match=r"holds 2 patients and 4 slices, expected 110 and 3929; remove .*\.lgg-download",
        ):
            data.fetch(tmp_path / "lgg")
        assert not (tmp_path / "lgg").exists()

    def test_a_folder_of_the_users_is_left_alone(self, tmp_path, kaggle):
        kaggle(lambda handle: pytest.fail("fetched"))
        image, _ = write_slice(tmp_path, "holiday", 1)
        with pytest.raises(
            UserError, match=r"holds 1 patient and 1 slice, .*; name a new or an empty folder\."
        ):
            data.fetch(tmp_path)
        assert image.exists()

    def test_a_file_is_refused_before_anything_is_fetched(self, tmp_path, kaggle):
        kaggle(lambda handle: pytest.fail("fetched"))
        (tmp_path / "lgg.zip").touch()
        with pytest.raises(UserError, match=r"lgg.zip is a file; name a new or an empty folder\."):
            data.fetch(tmp_path / "lgg.zip")

    def test_a_failure_gets_one_line_without_the_token(self, tmp_path, kaggle):
        def fail(handle):
            raise ConnectionError("GET https://kaggle.example?token=KGAT_secret")

        kaggle(fail)
        with pytest.raises(
            UserError, match=r"could not be downloaded \(ConnectionError\)\. Check the network"
        ) as error:
            data.fetch(tmp_path / "lgg")
        assert "KGAT" not in str(error.value) and not (tmp_path / "lgg").exists()


class TestWordsAboutTheData:
    """What a page may say of a cohort."""

    def cohort(self, *patients):
        slices = pd.DataFrame({"patient": patients, "slice": range(len(patients))})
        images = [np.full((2, 2, 3), number, np.uint8) for number in range(len(patients))]
        masks = [np.zeros((2, 2), np.uint8)] * len(patients)
        return data.Cohort(slices, images, masks, pd.DataFrame(), "")

    def test_the_lgg_cohort_is_known_by_its_names(self):
        cohort = self.cohort("TCGA_CS_4941_19960909", "TCGA_CS_4941_19960909")
        assert data.describe(cohort) == "1 patient of the LGG cohort, 2 slices"
        assert "CC BY-NC-SA 4.0" in data.credit(cohort)

    @pytest.mark.parametrize("names", [("A",), ("TCGA_CS_4941_19960909", "mine")])
    def test_other_patients_get_neither_its_name_nor_its_licence(self, names):
        cohort = self.cohort(*names)
        assert "LGG" not in data.describe(cohort)
        assert data.credit(cohort) == ""

    def test_a_subset_keeps_each_slice_with_its_image(self):
        part = data.subset(self.cohort("A", "B", "C"), np.array([False, True, True]))
        assert part.slices["patient"].tolist() == ["B", "C"]
        assert list(part.slices.index) == [0, 1]
        assert [image[0, 0, 0] for image in part.images] == [1, 2]
        assert len(part.masks) == 2

    def test_large_numbers_are_grouped(self):
        assert data.count_of(3929, "slice") == "3,929 slices"
