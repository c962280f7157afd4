"""The phantom cohort: reproducible, plausible, neither trivial nor hopeless."""

import hashlib

import numpy as np

from lggseg_utils import data, evaluate, metrics, phantom


def digest(folder):
    """Digest of all files below a folder, with their names."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(
        b"".join(str(path.relative_to(folder)).encode() + path.read_bytes() for path in files)
    ).hexdigest()


def test_same_seed_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in (("one", 5), ("two", 5), ("three", 6)):
        phantom.write_cohort(tmp_path / name, patients=2, slices=3, seed=seed)
    assert digest(tmp_path / "one") == digest(tmp_path / "two") != digest(tmp_path / "three")


def test_an_interrupted_cohort_is_completed(tmp_path):
    phantom.write_cohort(tmp_path, patients=2, slices=3)
    whole = digest(tmp_path)
    for path in sorted(tmp_path.rglob("*_2022_[23]*.tif")):
        path.unlink()
    phantom.write_cohort(tmp_path, patients=2, slices=3)
    assert digest(tmp_path) == whole


def test_it_is_written_in_kaggles_layout_and_passes_the_checks(phantom_folder):
    slices, problems, _ = data.scan(phantom_folder, data.find_slices(phantom_folder))
    assert problems.empty and slices["patient"].nunique() == 6 and len(slices) == 30
    assert set(map(data.institution, slices["patient"])) <= set(phantom.INSTITUTIONS)


def test_every_patient_has_tumour_and_some_slices_have_none():
    areas = [np.count_nonzero(phantom.make_patient(1, number, 10)[1], axis=(1, 2)) for number in range(8)]
    assert all(area.any() for area in areas)
    assert 0.2 < np.mean(np.concatenate(areas) == 0) < 0.8


def test_lesions_grow_through_neighbouring_slices():
    for number in range(6):
        present = np.flatnonzero(phantom.make_patient(2, number, 10)[1].any(axis=(1, 2)))
        assert np.ptp(present) <= len(present)


def test_a_threshold_on_flair_is_a_poor_segmentation():
    scores = []
    for number in range(6):
        images, masks = phantom.make_patient(3, number, 6)
        predicted = np.stack([evaluate.otsu_mask(np.ascontiguousarray(image[..., data.FLAIR])) for image in images])
        truth = masks > 0
        scores.append(metrics.dice((predicted & truth).sum(), (predicted & ~truth).sum(), (~predicted & truth).sum()))
    assert np.mean(scores) < 0.5


def test_flair_is_brighter_in_the_lesion_than_around_it():
    brighter = []
    for number in range(8):
        images, masks = phantom.make_patient(4, number, 8)
        flair, inside = images[..., data.FLAIR].astype(float), masks > 0
        head = flair > 40
        brighter.append(flair[inside].mean() > flair[head & ~inside].mean())
    assert np.mean(brighter) > 0.6
