"""Fixtures: a small cohort on disk, and one smoke run that several tests read."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, settings

from lggseg_utils import config, phantom

settings.register_profile("quick", max_examples=100, deadline=None, derandomize=True)
settings.register_profile("torture", max_examples=5000, deadline=None, suppress_health_check=list(HealthCheck))
settings.load_profile("quick")


@pytest.fixture(scope="session")
def phantom_folder(tmp_path_factory):
    """A phantom cohort of 6 patients with 5 slices."""
    folder = tmp_path_factory.mktemp("phantom")
    phantom.write_cohort(folder, patients=6, slices=5)
    return folder


@pytest.fixture(scope="session")
def repository():
    """The repository's address."""
    return yaml.safe_load((config.REPOSITORY / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]


@pytest.fixture
def open_smoke(tmp_path):
    """Open a run with the smoke profile in a fresh folder: open_smoke(data_dir, **overrides)."""

    def open_it(data_dir="", seed=0, **overrides):
        return config.open_run("smoke", data_dir, tmp_path / "run", seed, overrides)

    return open_it


@pytest.fixture
def write_slice():
    """Write one slice's image and mask: write_slice(folder, patient, number, image=None, mask=None)."""

    def write(folder, patient, number, image=None, mask=None):
        place = folder / patient
        place.mkdir(parents=True, exist_ok=True)
        image = np.full((16, 16, 3), 90, np.uint8) if image is None else image
        mask = np.zeros((16, 16), np.uint8) if mask is None else mask
        names = [place / f"{patient}_{number}.tif", place / f"{patient}_{number}_mask.tif"]
        for name, pixels in zip(names, (image, mask), strict=True):
            assert cv2.imwrite(str(name), pixels)
        return names

    return write
