"""Augmentations: image and mask move together, masks stay masks, seeds decide."""

import numpy as np
import pytest
import tensorflow as tf

from lggseg_utils import augment, settings

GEOMETRY = ("rotation", "flip", "shift", "crop_zoom", "crop_pad", "shear", "rotate_90")
INTENSITY = ("noise", "gaussian_filter", "contrast", "brightness", "flair_only")
SIDE = 96


@pytest.fixture
def masks():
    """Twelve masks with one off-centre, asymmetric region each, float32 (12, 96, 96, 1)."""
    drawn = np.zeros((12, SIDE, SIDE, 1), np.float32)
    for number in range(12):
        drawn[number, 20:60, 15 + number : 50 + number] = 1
        drawn[number, 50:80, 30:45] = 1
    return drawn


def overlap(one, other):
    """IoU of each pair of masks."""
    one, other = one > 0.5, other > 0.5
    return (one & other).sum((1, 2, 3)) / (one | other).sum((1, 2, 3))


def apply(name, images, masks, seed):
    """What one augmentation makes of every slice: images and masks as arrays."""
    return [np.asarray(out) for out in augment.augment(images, masks, name, seed, probability=1.0)]


def test_the_reports_eleven_and_our_own_are_there():
    assert (set(GEOMETRY), set(INTENSITY)) == (set(augment.GEOMETRY), set(augment.INTENSITY))
    assert {*GEOMETRY, *INTENSITY} == {*settings.AUGMENTATIONS, *settings.OWN} and len(
        settings.AUGMENTATIONS
    ) == 11
    assert settings.COMPOSITIONS == {
        "none": (),
        "report": ("flip", "rotate_90"),
        "all": settings.AUGMENTATIONS,
    }


@pytest.mark.parametrize("name", GEOMETRY)
@pytest.mark.parametrize("seed", range(3))
def test_a_mask_given_as_the_image_comes_out_as_the_mask(name, seed, masks):
    images, moved = apply(name, np.repeat(masks, 3, axis=-1), masks, (seed, 1))
    assert overlap(images[..., :1], moved).min() >= 0.98
    assert set(np.unique(moved)) == {0, 1}


@pytest.mark.parametrize("name", GEOMETRY)
def test_geometry_does_move_something(name, masks):
    moved = apply(name, np.repeat(masks, 3, axis=-1), masks, (7, 1))[1]
    assert overlap(moved, masks).min() < 0.98


@pytest.mark.parametrize("name", INTENSITY)
def test_intensity_leaves_the_mask_alone_and_the_range_whole(name, masks):
    rng = np.random.default_rng(0)
    images = rng.random((12, SIDE, SIDE, 3), dtype=np.float32)
    changed, same = apply(name, images, masks, (1, 1))
    assert np.array_equal(same, masks)
    assert not np.allclose(changed, images) and np.min(changed) >= 0 and np.max(changed) <= 1


@pytest.mark.parametrize("text", ["all", "report", "rotation+noise"])
def test_the_same_seed_gives_the_same_result_and_another_does_not(text, masks):
    images = np.repeat(masks, 3, axis=-1) * 0.7
    one, two, other = (
        augment.augment(images, masks, text, seed) for seed in ((3, 4), (3, 4), (3, 5))
    )
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert not np.array_equal(one[0], other[0])


def test_all_geometry_moves_image_and_mask_together(masks):
    changed, moved = apply("+".join(GEOMETRY), np.repeat(masks, 3, axis=-1), masks, (9, 9))
    kept = moved.sum((1, 2, 3)) > 200
    assert kept.sum() >= 6 and overlap(changed[..., :1], moved)[kept].min() >= 0.98


@pytest.mark.parametrize(
    "names",
    [("rotation", "flip"), ("crop_pad", "rotate_90", "shear"), ("shear", "shift", "crop_pad")],
)
def test_composed_geometry_moves_as_one_after_the_other(names, masks):
    white = np.ones_like(masks)
    together = apply("+".join(names), masks, white, (4, 4))
    one_by_one = masks, white
    for position, name in enumerate(names):
        act = tf.random.split(tf.random.fold_in((4, 4), position), 2)[1]
        one_by_one = augment._move(
            *one_by_one, [name], {name: act}, {name: tf.fill([len(masks)], True)}
        )
    assert all(
        overlap(ours, theirs.numpy()).min() > 0.95
        for ours, theirs in zip(together, one_by_one, strict=True)
    )
    assert overlap(together[0], masks).min() < 0.7


def test_geometry_blurs_once(masks):
    def blurred(names):
        moved = apply(names, masks, masks, (6, 6))[0]
        return ((moved > 0) & (moved < 1)).sum()

    assert 0 < blurred("rotation+crop_zoom+shear+shift") < 2 * blurred("rotation")


def test_none_changes_nothing(masks):
    images = np.repeat(masks, 3, axis=-1)
    assert all(
        out is given
        for out, given in zip(
            augment.augment(images, masks, "none", (0, 0)), (images, masks), strict=True
        )
    )


def test_slices_are_drawn_for_one_by_one(masks):
    same = np.repeat(masks[:1], 12, axis=0)
    moved = augment.augment(np.repeat(same, 3, axis=-1), same, "report", (1, 2))[1].numpy()
    assert len({mask.tobytes() for mask in moved}) > 3


def test_exact_operations_keep_every_pixel(masks):
    for name in ("flip", "rotate_90"):
        moved = apply(name, np.repeat(masks, 3, axis=-1), masks, (2, 2))[1]
        assert np.array_equal(moved.sum((1, 2, 3)), masks.sum((1, 2, 3)))


def test_quarter_turns_are_those_of_numpy():
    image = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    images = np.repeat(image, 40, axis=0)
    turned = apply("rotate_90", np.repeat(images, 3, -1), images, (1, 1))[1][..., 0]
    allowed = {np.rot90(image[0, ..., 0], k).tobytes() for k in range(4)}
    assert {turn.copy().tobytes() for turn in turned} == allowed


def test_rotation_stays_within_its_range(masks):
    point = np.zeros((200, 65, 65, 1), np.float32)
    point[:, 30:35, 60:64] = 1
    moved = apply("rotation", np.repeat(point, 3, -1), point, (5, 5))[1][..., 0]
    rows, columns = (
        np.array([np.argwhere(mask > 0)[:, axis].mean() for mask in moved]) - 32 for axis in (0, 1)
    )
    angles = np.degrees(np.arctan2(rows, columns))
    assert (
        np.abs(angles).max() <= augment.MAX_ROTATION + 1
        and angles.max() > 10
        and angles.min() < -10
    )


def test_noise_changes_its_share_of_the_values():
    images = np.full((8, 64, 64, 3), 0.5, np.float32)
    noisy = augment.noise(images, (0, 3)).numpy()
    assert (noisy == 1).mean() == pytest.approx(0.025, abs=0.004) and (
        noisy == 0
    ).mean() == pytest.approx(0.025, abs=0.004)


def test_gaussian_filter_is_opencvs():
    import cv2

    image = np.random.default_rng(1).random((1, 32, 32, 3), dtype=np.float32)
    ours = augment.gaussian_filter(image, (0, 0)).numpy()[0]
    assert ours == pytest.approx(
        cv2.GaussianBlur(image[0], (5, 5), augment.KERNEL_SIGMA, borderType=cv2.BORDER_REFLECT_101),
        abs=1e-5,
    )


def test_flair_only_copies_flair_into_all_channels_of_a_quarter_of_the_slices():
    images, masks = (
        np.random.default_rng(0).random((800, 2, 2, 3), dtype=np.float32),
        np.zeros((800, 2, 2, 1), np.float32),
    )
    changed = np.asarray(augment.augment(images, masks, "flair_only", (1, 1))[0])
    copied = (changed == images[..., 1:2]).all((1, 2, 3))
    assert np.array_equal(changed[~copied], images[~copied]) and 150 < copied.sum() < 250
