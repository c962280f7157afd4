"""Damaged files by the hundred (by the thousand in `make torture`): one of our errors or a result, nothing else."""

import re
import shutil
import struct
import tempfile
import zipfile
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from lggseg_utils import config, data, preprocess

TWO_GIB = 2 * 2**20  # in KiB


def encoded(shape):
    """Bytes of a TIFF of noise."""
    pixels = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    return cv2.imencode(".tif", pixels)[1].tobytes()


IMAGES = [encoded(shape) for shape in ((24, 20, 3), (24, 20))]


def archive():
    """Bytes of a zip with two slices."""
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as opened:
        for number in (1, 2):
            opened.writestr(f"cohort/A/A_{number}.tif", IMAGES[0])
            opened.writestr(f"cohort/A/A_{number}_mask.tif", IMAGES[1])
    return stream.getvalue()


ARCHIVE = archive()


@st.composite
def damaged(draw, originals):
    """A file with bytes changed, taken out, put in, or cut off."""
    content = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(len(content) - 1, 0)))
        match draw(st.sampled_from(("change", "number", "take", "put", "cut"))):
            case "change":
                content[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case "number":
                content[at : at + 4] = struct.pack("<I", draw(st.sampled_from((0, 1, 2**16, 2**31 - 1, 2**32 - 1))))
            case "take":
                del content[at : at + draw(st.integers(1, 64))]
            case "put":
                content[at:at] = draw(st.binary(max_size=64))
            case "cut":
                del content[at:]
    return bytes(content)


@contextmanager
def little_memory():
    """Fail where what is done inside takes more than 2 GiB; measured where the system can (Linux)."""
    peak = Path("/proc/self/clear_refs")
    if peak.exists():
        peak.write_text("5")
    yield
    if peak.exists():
        status = Path("/proc/self/status").read_text()
        assert int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) < TWO_GIB


@given(damaged(IMAGES))
def test_a_damaged_image_is_read_or_named_as_bad(content):
    with little_memory():
        try:
            pixels = data.decode(content)
        except data.BadSlice as problem:
            assert "\n" not in str(problem)
        else:
            assert pixels.dtype == np.uint8 and max(pixels.shape[:2]) <= data.MAX_SIDE


@given(damaged(IMAGES), damaged(IMAGES))
def test_a_damaged_pair_is_read_or_named_as_bad(image, mask):
    try:
        pixels, outline = data.decode_pair(image, mask)
    except data.BadSlice as problem:
        assert "\n" not in str(problem)
    else:
        assert pixels.shape[:2] == outline.shape and set(np.unique(outline)) <= {0, 1}


@given(damaged([ARCHIVE]))
def test_a_damaged_zip_is_unpacked_or_refused_and_writes_nowhere_else(content):
    place = Path(tempfile.mkdtemp())
    try:
        (place / "cohort.zip").write_bytes(content)
        try:
            with little_memory():
                data.unpack(place / "cohort.zip", place / "inner" / "target", limit=10**7)
        except config.UserError as problem:
            assert "\n" not in str(problem)
            assert not list((place / "inner").iterdir())
        assert {path.name for path in place.iterdir()} <= {"cohort.zip", "inner"}
        assert {path.name for path in (place / "inner").iterdir()} <= {"target"}
    finally:
        shutil.rmtree(place)


@given(st.text(min_size=1, max_size=40))
def test_a_zip_entry_of_any_name_stays_inside_or_is_refused(name):
    assume("\0" not in name)
    place = Path(tempfile.mkdtemp())
    try:
        with zipfile.ZipFile(place / "cohort.zip", "w") as opened:
            try:
                opened.writestr(f"{name}.tif", b"x")
            except UnicodeEncodeError:
                assume(False)
        try:
            data.unpack(place / "cohort.zip", place / "inner" / "target")
        except config.UserError as problem:
            assert "\n" not in str(problem)
        assert {path.name for path in place.iterdir()} <= {"cohort.zip", "inner"}
        assert {path.name for path in (place / "inner").iterdir()} <= {"target"}
    finally:
        shutil.rmtree(place)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(damaged(IMAGES), min_size=4, max_size=4))
def test_a_cohort_with_damaged_files_ends_in_one_line_or_in_arrays(tmp_path_factory, contents):
    place = tmp_path_factory.mktemp("fuzz")
    names = ["A_1.tif", "A_1_mask.tif", "A_2.tif", "A_2_mask.tif"]
    (place / "cohort").mkdir()
    for name, content in zip(names, contents, strict=True):
        (place / "cohort" / name).write_bytes(content)
    run = config.open_run("smoke", place / "cohort", place / "run", 0, {"skip_bad": True})
    try:
        cohort = preprocess.load_cohort(run)
    except config.UserError as problem:
        assert "\n" not in str(problem)
    else:
        assert cohort.images.shape[1:] == (32, 32, 3)


@pytest.mark.parametrize(
    "key", ["seed", "epochs", "size", "split", "augmentation", "ablation_conditions", "learning_rate"]
)
@given(value=st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=20), st.lists(st.text(max_size=5))))
def test_any_value_of_a_setting_is_taken_or_refused_in_one_line(key, value):
    seed, overrides = (value, {}) if key == "seed" else (0, {key: value})
    try:
        experiment = config.load_experiment("smoke", seed, overrides)
    except config.UserError as problem:
        assert str(problem).startswith(("setting ", "unknown ", "loss ", "largest_component "))
    else:
        assert experiment.profile == "smoke"
