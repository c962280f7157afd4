"""Volumes, NIfTI or DICOM: found by their names, read as the slices they are made of, masks on their grid."""

import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image

from lggseg_utils import data, predict, runs, volumes
from lggseg_utils.settings import UserError

# From an array's axes to millimetres: to the left and the front and up, turned, and not by one.
AFFINE = np.array([[0, -0.9, 0, 90], [0.9, 0, 0, -80], [0, 0, -5.0, 60], [0, 0, 0, 1]])


def save(path, values, affine=AFFINE):
    """Save an array as a NIfTI file; return its path."""
    path.parent.mkdir(exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, affine), path)
    return path


def from_canonical(values):
    """Return a volume in canonical orientation as it is stored with AFFINE."""
    stored = nibabel.Nifti1Image(np.zeros((1, 1, 1), np.uint8), AFFINE)
    turned = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), nibabel.io_orientation(stored.affine)
    )
    return nibabel.orientations.apply_orientation(values, turned)


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
    """A patient of the sample: the slices' images in order, and the masks predicted for them."""
    folder = tmp_path_factory.mktemp("patient")
    with zipfile.ZipFile(data.SAMPLE) as archive:
        found = data.find_slices(archive.namelist(), data.SAMPLE)
        slices = found[found["patient"] == found["patient"].iloc[0]]
        archive.extractall(folder / "scans", slices["image"])
    table = predict.predict([folder / "scans"], predict.REFERENCE, folder / "out").slices
    images = [np.asarray(Image.open(path)) for path in table["image"]]
    return images, [np.asarray(Image.open(folder / "out" / name)) > 0 for name in table["mask"]]


def test_a_volume_of_a_patients_slices_gives_the_masks_of_the_slices(patient, tmp_path):
    images, expected = patient
    for channel, ending in enumerate(("t1", "flair", "t1ce")):
        values = volumes.from_slices(np.stack([image[..., channel] for image in images]))
        save(tmp_path / "nifti" / f"P_{ending}.nii.gz", from_canonical(values).astype(np.int16))
    found = predict.predict([tmp_path / "nifti"], predict.REFERENCE, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "P_mask.nii.gz",
        "predictions.csv",
    ]
    written = nibabel.load(tmp_path / "out" / "P_mask.nii.gz")
    flair = nibabel.load(tmp_path / "nifti" / "P_flair.nii.gz")
    assert np.array_equal(written.affine, flair.affine) and written.shape == flair.shape
    assert written.get_data_dtype() == np.uint8
    mask = volumes.to_slices(nibabel.as_closest_canonical(written).get_fdata())
    assert np.array_equal(mask > 0, expected) and mask.sum() > 1000
    assert found.slices["tumour_pixels"].tolist() == [each.sum() for each in expected]


def test_a_slice_lies_as_in_the_cohort():
    """Rows from front to back, columns from the patient's right to left, slices from bottom to top."""
    volume = np.zeros((4, 5, 6))
    volume[3, 4, 0] = 1  # right, front, bottom
    slices = volumes.to_slices(volume)
    assert slices.shape == (6, 5, 4) and slices[0, 0, 0] == 1
    assert np.array_equal(volumes.from_slices(slices), volume)


def test_flair_alone_stands_in_for_the_others(tmp_path, capsys):
    values = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    flair = save(tmp_path / "a.nii", values, np.eye(4))
    (scan, *rest) = predict._of_volume(*predict.named_volume(None, str(flair), None))
    assert len(rest) == 4 and (scan.pixels == scan.pixels[..., :1]).all()
    assert scan.pixels[..., 1].tolist() == volumes.to_slices(values)[0].tolist()
    said = "a: no pre and no post-contrast volume; FLAIR stands in.\n"
    assert capsys.readouterr().err == said


def test_a_volume_is_scaled_to_eight_bits_as_a_whole():
    whole = np.array([[[0, 7, 200]]], np.float32)
    assert volumes.to_eight_bits(whole).tolist() == [[[0, 7, 200]]]
    values = np.linspace(0, 3000, 10_000, dtype=np.float32).reshape(10, 10, 100)
    values[0, 0, 0] = 1e6  # one bright vessel
    scaled = volumes.to_eight_bits(values)
    assert scaled.dtype == np.uint8 and scaled[5, 0, 0] in (127, 128) and scaled[-1, -1, -1] == 255
    assert volumes.to_eight_bits(np.array([[[-2.0, 0.0, 2.0]]]))[0, 0].tolist() == [0, 128, 255]
    assert not volumes.to_eight_bits(np.zeros((2, 2, 2))).any()


def test_what_is_no_number_is_dark(tmp_path):
    values = np.arange(60, dtype=np.float32).reshape(3, 4, 5) * 10
    values[0, 0, 0], values[0, 0, 1] = np.nan, np.inf
    images = volumes.read(volumes.Volume("P", save(tmp_path / "flair.nii", values))).images
    assert (images == 0).all(-1).sum() == 2
    assert images.max() == 255


def test_volumes_are_found_by_the_usual_endings():
    names = ("P1/P1_t1.nii.gz", "P1/P1_T1ce.nii.gz", "P1/P1_flair.nii.gz", "P1/P1_t2.nii.gz")
    names += (
        "P1/P1_seg.nii.gz",
        "P2/flair.nii",
        "P3/B-3-t1n.nii",
        "P3/B-3-t2f.nii",
        "P3/B-3-t1c.nii",
    )
    first, second, third = volumes.find([Path(name) for name in names])
    assert first == volumes.Volume("P1", *(Path(names[number]) for number in (2, 0, 1, 4)))
    assert second == volumes.Volume("P2", Path("P2/flair.nii"))
    assert third == volumes.Volume("B-3", *(Path(names[number]) for number in (7, 6, 8)))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("P_t1.nii",), r"no FLAIR volume of P in \., which the network needs; call it P_flair"),
        (("P_t1.nii", "P_t1n.nii", "P_flair.nii"), "P_t1.nii and P_t1n.nii are both pre of P"),
    ],
)
def test_what_is_missing_or_there_twice_is_named(names, message):
    with pytest.raises(UserError, match=message):
        volumes.find([Path(name) for name in names])


def test_masks_of_an_earlier_prediction_are_left_out():
    names = ("P/P_flair.nii", "P/out/P_mask.nii.gz")
    assert volumes.find([Path(name) for name in names]) == [volumes.Volume("P", Path(names[0]))]


def test_a_volume_of_unknown_sequence_is_named(tmp_path):
    save(tmp_path / "brain.nii.gz", np.ones((3, 4, 5), np.uint8))
    with pytest.raises(UserError, match=r"brain.nii.gz: its name does not say which sequence"):
        predict.predict([tmp_path], predict.REFERENCE, tmp_path / "out")


def test_a_volume_of_another_sequence_is_left_out_and_said(tmp_path, capsys):
    for name in ("P_flair", "P_t2"):
        save(tmp_path / "P" / f"{name}.nii.gz", np.ones((3, 4, 5), np.uint8))
    predict.predict([tmp_path / "P"], predict.REFERENCE, tmp_path / "out")
    said = f"{tmp_path / 'P' / 'P_t2.nii.gz'} is left out: its name ends in none of the sequences."
    assert said in capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("lacking", ["flair", "pre"])
def test_a_volume_that_is_not_there_is_named_first(tmp_path, lacking):
    paths = dict.fromkeys(("pre", "flair"), save(tmp_path / "P" / "x.nii.gz", np.ones((3, 4, 5))))
    paths[lacking] = tmp_path / "nowhere.nii.gz"
    with pytest.raises(UserError, match=r"nowhere.nii.gz does not exist\.$"):
        predict.named_volume(paths["pre"], paths["flair"], None)


def test_true_masks_give_a_dice(tmp_path, monkeypatch):
    save(tmp_path / "P" / "P_flair.nii.gz", np.ones((3, 4, 5), np.uint8))
    label = np.zeros((3, 4, 5), np.uint8)
    label[1, 1, 1] = 4
    save(tmp_path / "P" / "P_seg.nii.gz", label)
    (volume,) = volumes.find(sorted((tmp_path / "P").iterdir()))
    assert volumes.read(volume).truths.sum() == 1
    scans = predict._of_volume(volume)
    masks = [scan.truth > 0 for scan in scans]
    masks[0][0, 0] = True  # one pixel of tumour is found, and one is marked wrongly
    assert predict._dice(scans, masks)["dice"].tolist() == [2 / 3]


def test_files_that_cannot_be_used_are_named(tmp_path):
    flair = save(tmp_path / "flair.nii.gz", np.ones((3, 4, 5), np.uint8))
    moved = save(tmp_path / "moved.nii.gz", np.ones((3, 4, 5), np.uint8), AFFINE + 1)
    smaller = save(tmp_path / "smaller.nii.gz", np.ones((3, 4, 4), np.uint8))
    four = save(tmp_path / "four.nii.gz", np.ones((3, 4, 5, 2), np.uint8))
    noise = np.random.default_rng(0).integers(0, 255, (30, 40, 50), np.uint8)
    cut, text = save(tmp_path / "cut.nii.gz", noise), tmp_path / "text.nii"
    cut.write_bytes(cut.read_bytes()[:-5000])
    text.write_text("no NIfTI")
    for other in (moved, smaller):
        with pytest.raises(UserError, match="lie on different grids; register and resample"):
            volumes.read(volumes.Volume("P", flair, pre=other))
    for wrong, message in (
        (four, r"four.nii.gz is 3x4x5x2, expected one volume; save each sequence by itself"),
        (cut, r"cut.nii.gz can't be read as NIfTI \(.*\)\. Nothing was written"),
        (text, r"text.nii can't be read as NIfTI \(.*\)\. Nothing was written"),
        (tmp_path / "none.nii", r"none.nii can't be read as NIfTI"),
    ):
        with pytest.raises(UserError, match=message):
            volumes.read(volumes.Volume("P", wrong))
    one = save(tmp_path / "one.nii.gz", np.ones((3, 4, 5, 1), np.uint8))
    assert volumes.read(volumes.Volume("P", one)).images.shape == (5, 3, 4, 3)


def test_stale_volumes_are_removed(tmp_path):
    (tmp_path / "old_mask.nii.gz").touch()
    (tmp_path / "predictions.csv").write_text("patient,mask\nold,old_mask.nii.gz\n")
    table = runs.pd.DataFrame({"patient": ["P"], "mask": ["P_mask.nii.gz"]})
    predict._write_tables(tmp_path, table, None)
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.csv"]


AXIAL = (1, 0, 0, 0, 1, 0)  # rows to the left, columns to the back, as the cohort's slices lie


def save_dicom(path, values, position, description="FLAIR", directions=AXIAL, slope=1):
    """Save values, whole numbers, as a slice of the DICOM series of that description."""
    slice_ = pydicom.Dataset()
    slice_.SeriesDescription, slice_.SeriesInstanceUID = description, f"1.2.{len(description)}"
    slice_.SOPInstanceUID, slice_.SOPClassUID = (
        pydicom.uid.generate_uid(),
        pydicom.uid.MRImageStorage,
    )
    slice_.ImageOrientationPatient, slice_.ImagePositionPatient = list(directions), list(position)
    slice_.PixelSpacing = [0.5, 0.25]
    slice_.RescaleSlope, slice_.RescaleIntercept = slope, -3
    stored = ((values.astype(int) + 3) / slope).astype(np.uint16)
    slice_.set_pixel_data(stored, "MONOCHROME2", 16)
    path.parent.mkdir(parents=True, exist_ok=True)
    slice_.save_as(path, implicit_vr=False, little_endian=True, enforce_file_format=True)


def save_series(folder, slices, **options):
    """Save slices from bottom to top, 5 mm apart, under names in another order, scaled unlike."""
    for number, values in enumerate(slices):
        position, slope = (-100, -90, 5 * number - 40), (1, 0.5)[number % 2]
        save_dicom(folder / f"{99 - number}", values, position, slope=slope, **options)


def test_dicom_series_of_a_patients_slices_give_the_masks_of_the_slices(patient, tmp_path):
    images, expected = patient
    paths = [tmp_path / name for name in ("T1", "FLAIR", "T1 contrast")]
    for channel, path in enumerate(paths):
        save_series(path, [image[..., channel] for image in images], description=path.name)
    named = predict.named_volume(*map(str, paths))
    found = predict.predict(named, predict.REFERENCE, tmp_path / "out")
    written = nibabel.load(tmp_path / "out" / "FLAIR_mask.nii.gz")
    mask = volumes.to_slices(nibabel.as_closest_canonical(written).get_fdata())
    assert np.array_equal(mask > 0, expected) and mask.sum() > 1000
    assert found.slices["tumour_pixels"].tolist() == [each.sum() for each in expected]
    with pytest.raises(UserError, match="FLAIR holds the images themselves"):
        predict.predict(named, predict.REFERENCE, paths[1])


def test_a_dicom_volume_lies_where_its_slices_say(tmp_path):
    """A pixel's place is position + column distance * column + row distance * row, to the left and back."""
    along, down = np.array([0, 0.8, 0.6]), np.array([0, -0.6, 0.8])
    for number in range(3):
        values = np.full((4, 5), number)
        save_dicom(
            tmp_path / "021"[number], values, (7 + 2 * number, 8, 9), directions=(*along, *down)
        )
    image = volumes._load(tmp_path)
    column, row, number = 4, 3, 2
    left, back, up = [7 + 2 * number, 8, 9] + along * 0.25 * column + down * 0.5 * row
    assert image.shape == (5, 4, 3)
    assert image.get_fdata()[column, row].tolist() == [0, 1, 2]
    place = image.affine @ [column, row, number, 1]
    assert place == pytest.approx([-left, -back, up, 1])


def test_dicom_that_cannot_be_used_is_named(tmp_path):
    flair, grey = tmp_path / "flair", np.ones((4, 5), np.uint8)
    save_series(tmp_path / "gap", [grey] * 4)
    (tmp_path / "gap" / "98").unlink()
    save_series(tmp_path / "two", [grey] * 2)
    save_dicom(tmp_path / "two" / "1", grey, (0, 0, 0), "T1 post")
    save_series(tmp_path / "turned", [grey] * 2)
    save_dicom(tmp_path / "turned" / "z", grey, (-100, -90, -45), directions=(1, 0, 0, 0, 0, 1))
    save_series(tmp_path / "sizes", [grey] * 2)
    save_dicom(tmp_path / "sizes" / "1", grey.T, (-100, -90, -45))
    save_series(tmp_path / "one", [grey])
    save_series(flair, [grey] * 2)
    (flair / "notes.txt").write_text("Not DICOM.")
    for name, message in (
        ("gap", "gap are no even stack: one is missing or there twice"),
        ("two", r"two holds 2 series \(FLAIR, T1 post\); put each into a folder of its own"),
        ("turned", "turned are no even stack.* differ in direction"),
        ("sizes", "sizes differ in size"),
        ("one", r"one holds 1 DICOM slice; name that of a series"),
        ("flair", r"notes.txt can't be read as a DICOM slice \(.*\); dcm2niix may convert"),
    ):
        with pytest.raises(UserError, match=message):
            volumes.read(volumes.Volume("P", tmp_path / name))


def test_a_volume_from_0_to_1_keeps_its_greys():
    """A volume scaled to 0..1, as many tools leave it, is not cut to 0 and 1."""
    values = np.linspace(0, 1, 1000, dtype=np.float32).reshape(10, 10, 10)
    assert len(np.unique(volumes.to_eight_bits(values))) > 200


def test_a_volume_without_a_name_has_that_of_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert volumes.find([Path("flair.nii")])[0].patient == tmp_path.name


def test_names_in_capitals_are_read():
    assert volumes.is_volume("P_FLAIR.NII.GZ")
    assert volumes.find([Path("p/P_FLAIR.NII.GZ")])[0].patient == "P"


def test_one_name_in_two_folders_is_two_volumes():
    """One name in two folders, such as two visits: two volumes."""
    paths = [Path("v1/P_flair.nii"), Path("v2/P_flair.nii")]
    assert [volume.flair for volume in volumes.find(paths)] == paths


def test_a_shifted_volume_is_refused(tmp_path):
    shifted = AFFINE.copy()
    shifted[0, 3] += 0.3  # millimetres
    flair = save(tmp_path / "flair.nii", np.ones((3, 4, 5)))
    pre = save(tmp_path / "pre.nii", np.ones((3, 4, 5)), shifted)
    with pytest.raises(UserError, match="lie on different grids"):
        volumes.read(volumes.Volume("P", flair, pre=pre))


@pytest.mark.parametrize(
    ("ending", "kind"),
    [
        (e, k)
        for k, ends in {
            "pre": ("pre", "t1", "t1n"),
            "flair": ("flair", "t2f"),
            "post": ("post", "t1ce", "t1gd", "t1c"),
            "truth": ("seg", "mask"),
        }.items()
        for e in ends
    ],
)
def test_every_ending_names_its_sequence(ending, kind):
    assert volumes._parse(Path(f"P_{ending}.nii.gz")) == ("P", kind)


def test_a_mask_keeps_units_and_orientation(tmp_path):
    image = nibabel.Nifti1Image(np.ones((3, 4, 5), np.int16), np.eye(4))
    image.header.set_xyzt_units("mm", "sec")
    image.header["qform_code"], image.header["sform_code"] = 1, 2
    nibabel.save(image, tmp_path / "flair.nii")
    volumes.write_mask(
        tmp_path / "m.nii", np.ones((5, 4, 3), bool), volumes.Volume("P", tmp_path / "flair.nii")
    )
    header = nibabel.load(tmp_path / "m.nii").header
    assert header.get_xyzt_units()[0] == "mm" and int(header["sform_code"]) == 2


def test_an_uneven_stack_is_refused_and_finders_file_is_not_a_slice(tmp_path):
    grey = np.ones((4, 5), np.uint8)
    for number, place in enumerate((0, 5, 10)):
        save_dicom(tmp_path / "even" / str(number), grey, (0, 0, place))
    (tmp_path / "even" / ".DS_Store").write_text("Finder's")
    assert volumes.read(volumes.Volume("P", tmp_path / "even")).images.shape == (3, 4, 5, 3)
    for number, place in enumerate((0, 5, 10.5)):
        save_dicom(tmp_path / "uneven" / str(number), grey, (0, 0, place))
    with pytest.raises(UserError, match="no even stack"):
        volumes.read(volumes.Volume("P", tmp_path / "uneven"))
