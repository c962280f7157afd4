"""Augmentations: image and mask move together, masks stay masks, seeds decide."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

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
    one = one > 0.5
    other = other > 0.5
    return (one & other).sum((1, 2, 3)) / (one | other).sum((1, 2, 3))


def apply(name, images, masks, seed, probability=1.0):
    """What one augmentation makes of the slices: images and masks as arrays."""
    out = augment.augment(images, masks, name, seed, probability)
    return [np.asarray(part) for part in out]


def test_the_reports_eleven_and_our_own_are_there():
    assert (set(GEOMETRY), set(INTENSITY)) == (set(augment.GEOMETRY), set(augment.INTENSITY))
    assert {*GEOMETRY, *INTENSITY} == {*settings.AUGMENTATIONS, *settings.OWN}
    assert len(settings.AUGMENTATIONS) == 11
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
    assert overlap(moved, masks).min() < 0.98


CENTRE = 16
COUNT = 400


@pytest.fixture(scope="module")
def moves():
    """How each geometry moves 400 slices of 33 pixels, measured on images of x and y.

    x, y: where the centre's content comes from, less the centre; a, b, d, e: the linear part;
    corner: where the upper left pixel's comes from, (n, 2); inside: what does not come from
    outside, bool (n, 33, 33).
    """
    side = 2 * CENTRE + 1
    y, x = np.mgrid[:side, :side].astype(np.float32) / side
    images = np.tile(np.stack([x, y, np.ones_like(x)], axis=-1), (COUNT, 1, 1, 1))
    masks = np.ones((COUNT, side, side, 1), np.float32)

    def measure(name, probability=1.0):
        moved, moved_masks = apply(name, images, masks, (5, 2), probability)
        assert np.array_equal(moved_masks[..., 0] > 0, moved[..., 2] > 0.5)
        place = moved[..., :2] * side
        right, left = place[:, CENTRE, CENTRE + 1], place[:, CENTRE, CENTRE - 1]
        below, above = place[:, CENTRE + 1, CENTRE], place[:, CENTRE - 1, CENTRE]
        a, d = ((right - left) / 2).T
        b, e = ((below - above) / 2).T
        found_x, found_y = place[:, CENTRE, CENTRE].T - CENTRE
        return SimpleNamespace(
            **{"x": found_x, "y": found_y, "a": a, "b": b, "d": d, "e": e},
            corner=place[:, 0, 0],
            inside=moved_masks[..., 0] > 0,
        )

    return measure


def assert_near(values, wanted):
    """Assert that values are as wanted, but for the rounding of interpolation."""
    np.testing.assert_allclose(values, wanted, atol=5e-3)


def assert_spread(values, low, high):
    """Assert that values lie between low and high and fill nine tenths of that range."""
    slack = 0.05 * (high - low)
    assert low - 5e-3 <= values.min() < low + slack
    assert high - slack < values.max() <= high + 5e-3


def assert_each_a_quarter(combinations):
    """Assert that four combinations occur, each in about a quarter of the slices."""
    _, counts = np.unique(np.round(combinations), axis=0, return_counts=True)
    assert len(counts) == 4
    assert counts.min() > 0.15 * COUNT


def test_rotation_turns_half_of_the_slices_by_up_to_15_degrees_either_way(moves):
    found = moves("rotation", augment.PROBABILITY)
    angle = np.degrees(np.arctan2(found.d, found.a))
    turned = np.abs(angle) > 0.1
    assert 0.4 < turned.mean() < 0.6
    assert_spread(angle[turned], -15, 15)
    assert_near(found.a**2 + found.d**2, 1)
    assert_near([found.e - found.a, found.b + found.d], 0)
    assert_near([found.x, found.y], 0)


def test_flip_mirrors_in_both_directions_whatever_the_probability(moves):
    found = moves("flip", 0.0)
    assert_each_a_quarter(np.stack([found.a, found.e], axis=1))
    assert_near(np.abs([found.a, found.e]), 1)
    assert_near([found.b, found.d, found.x, found.y], 0)


def test_shift_moves_by_whole_pixels_in_every_direction_and_fills_with_zeros(moves):
    found = moves("shift")
    pairs = {(round(x), round(y)) for x, y in zip(found.x, found.y, strict=True)}
    assert pairs == {(x, y) for x in range(-2, 3) for y in range(-2, 3)}  # 6.25 % of 33 pixels
    for moved in (found.x, found.y):
        assert_near(moved, np.round(moved))
    assert_near([found.a, found.e], 1)
    assert_near(33 - found.inside.any(1).sum(1), np.abs(np.round(found.x)))


def test_crop_zoom_enlarges_a_square_from_anywhere_in_the_slice(moves):
    found = moves("crop_zoom")
    assert_spread(found.a, 0.8, 1)
    assert_near(found.a, found.e)
    assert_near([found.b, found.d], 0)
    assert found.inside.all()
    room = 32 * (1 - found.a)
    clear = room > 1
    left, top = (found.corner[clear] / room[clear, None]).T
    assert_spread(left, 0, 1)
    assert_spread(top, 0, 1)
    assert abs(np.corrcoef(left, top)[0, 1]) < 0.2


def test_crop_pad_shows_a_square_from_anywhere_in_the_middle_of_zeros(moves):
    found = moves("crop_pad")
    assert_near([found.a, found.e], 1)
    assert_near(found.x, np.round(found.x))
    rows = found.inside.any(2)
    sides = rows.sum(1)
    assert set(sides) == {25, 27, 29, 31}  # up to a tenth of 33 pixels less on each side
    assert np.array_equal(found.inside.any(1), rows)
    assert np.array_equal(rows, rows[:, ::-1])
    reach = (33 - sides) / 2
    for moved in (found.x, found.y):
        assert (np.abs(np.round(moved)) <= reach).all()
        assert_spread(moved, -3, 3)
    assert abs(np.corrcoef(found.x, found.y)[0, 1]) < 0.2


def test_only_chosen_slices_are_padded(moves):
    whole = moves("crop_pad", augment.PROBABILITY).inside.all((1, 2))
    assert 0.4 < whole.mean() < 0.6


def test_shear_slants_along_one_axis_by_a_factor_of_either_sign(moves):
    found = moves("shear")
    factor = found.b + found.d
    assert_near(found.b * found.d, 0)
    assert_spread(np.abs(factor), 0.1, 0.35)
    assert_each_a_quarter(np.stack([np.abs(found.b) > 0.05, np.sign(factor)], axis=1))
    assert_near([found.a, found.e], 1)
    assert_near([found.x, found.y], 0)


def test_rotate_90_turns_by_each_quarter():
    images = np.tile(np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1), (COUNT, 1, 1, 1))
    turned = apply("rotate_90", np.repeat(images, 3, -1), images, (1, 1))[1][..., 0]
    assert_each_a_quarter(turned.reshape(COUNT, 16))
    allowed = {np.rot90(images[0, ..., 0], quarter).tobytes() for quarter in range(4)}
    assert {slice_.copy().tobytes() for slice_ in turned} == allowed


def test_noise_changes_its_share_of_the_values():
    images = np.full((8, 64, 64, 3), 0.5, np.float32)
    noisy = augment.noise(images, (0, 3)).numpy()
    assert (noisy == 1).mean() == pytest.approx(0.025, abs=0.004)
    assert (noisy == 0).mean() == pytest.approx(0.025, abs=0.004)
    assert (noisy == 0.5).mean() == pytest.approx(0.95, abs=0.004)
    assert not np.array_equal(noisy[0], noisy[1])
    assert not np.array_equal(noisy[..., 0], noisy[..., 1])


def test_gaussian_filter_is_opencvs():
    image = np.random.default_rng(1).random((1, 32, 32, 3), dtype=np.float32)
    ours = augment.gaussian_filter(image, (0, 0)).numpy()[0]
    # BORDER_REFLECT_101 does not repeat the outermost pixel.
    theirs = cv2.GaussianBlur(image[0], (5, 5), 1.1, borderType=cv2.BORDER_REFLECT_101)
    assert ours == pytest.approx(theirs, abs=1e-5)


def test_contrast_stretches_a_slice_about_the_mean_of_all_its_channels():
    rng = np.random.default_rng(0)
    images = rng.uniform(0.3, 0.5, (COUNT, 4, 4, 3)).astype(np.float32)
    images += np.float32([0, 0.1, 0.2])
    changed = augment.contrast(images, (2, 1)).numpy()
    factor = changed.std((1, 2, 3)) / images.std((1, 2, 3))
    assert_spread(factor, 0.8, 1.2)
    mean = images.mean((1, 2, 3), keepdims=True)
    wanted = mean + factor[:, None, None, None] * (images - mean)
    np.testing.assert_allclose(changed, wanted, atol=1e-5)


def test_brightness_adds_one_number_of_either_sign_to_a_slice():
    images = np.random.default_rng(0).uniform(0.2, 0.8, (COUNT, 4, 4, 3)).astype(np.float32)
    added = augment.brightness(images, (2, 1)).numpy() - images
    assert_spread(added.mean((1, 2, 3)), -0.1, 0.1)
    assert np.ptp(added, axis=(1, 2, 3)).max() < 1e-5


def test_flair_only_copies_flair_into_all_channels_of_a_quarter_of_the_slices():
    images = np.random.default_rng(0).random((800, 2, 2, 3), dtype=np.float32)
    masks = np.zeros((800, 2, 2, 1), np.float32)
    changed = apply("flair_only", images, masks, (1, 1), augment.PROBABILITY)[0]
    copied = (changed == images[..., 1:2]).all((1, 2, 3))
    assert np.array_equal(changed[~copied], images[~copied])
    assert 150 < copied.sum() < 250


@pytest.mark.parametrize("name", INTENSITY)
def test_intensity_leaves_the_mask_alone_and_the_range_whole(name, masks):
    images = np.random.default_rng(0).random((12, SIDE, SIDE, 3), dtype=np.float32)
    images[:, 0] = 0
    images[:, 1] = 1
    changed, same = apply(name, images, masks, (1, 1))
    assert np.array_equal(same, masks)
    assert not np.allclose(changed, images)
    assert np.min(changed) >= 0
    assert np.max(changed) <= 1


def test_two_augmentations_choose_their_slices_independently():
    y = np.arange(33, dtype=np.float32)[None, :, None, None]
    masks = np.tile(y % 2, (COUNT, 1, 33, 1))
    images = np.full((COUNT, 33, 33, 3), 0.5, np.float32)
    noisy, zoomed = apply("crop_zoom+noise", images, masks, (3, 3), augment.PROBABILITY)
    has_noise = (noisy != 0.5).any((1, 2, 3))
    is_zoomed = (zoomed != masks).any((1, 2, 3))
    assert_each_a_quarter(np.stack([has_noise, is_zoomed], axis=1))


@pytest.mark.parametrize("text", ["all", "report", "rotation+noise"])
def test_the_same_seed_gives_the_same_result_and_another_does_not(text, masks):
    images = np.repeat(masks, 3, axis=-1) * np.float32(0.7)
    one, two = (apply(text, images, masks, (3, 4), 0.5) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    for seed in ((3, 5), (2, 4)):
        other = apply(text, images, masks, seed, 0.5)
        assert not np.array_equal(one[0], other[0])


def test_all_draws_what_its_eleven_names_draw(masks):
    images = np.repeat(masks, 3, axis=-1)
    names = (
        "rotation+flip+shift+crop_zoom+crop_pad+shear+noise+gaussian_filter+contrast"
        "+brightness+rotate_90"
    )
    together = apply("all", images, masks, (3, 4), 0.5)
    joined = apply(names, images, masks, (3, 4), 0.5)
    assert all(np.array_equal(a, b) for a, b in zip(together, joined, strict=True))


def test_all_geometry_moves_image_and_mask_together(masks):
    changed, moved = apply("+".join(GEOMETRY), np.repeat(masks, 3, axis=-1), masks, (9, 9))
    kept = moved.sum((1, 2, 3)) > 200
    assert kept.sum() >= 6
    assert overlap(changed[..., :1], moved)[kept].min() >= 0.98


@pytest.mark.parametrize(
    "names",
    [("rotation", "flip"), ("crop_pad", "rotate_90", "shear"), ("shear", "shift", "crop_pad")],
)
def test_composed_geometry_moves_as_one_after_the_other(names, masks):
    white = np.ones_like(masks)
    together = apply("+".join(names), masks, white, (4, 4))
    one_by_one = masks, white
    for drawn in augment._draw(len(masks), "+".join(names), (4, 4), 1.0):
        one_by_one = augment._move(*one_by_one, [drawn])
    for ours, theirs in zip(together, one_by_one, strict=True):
        assert overlap(ours, theirs.numpy()).min() > 0.95
    assert overlap(together[0], masks).min() < 0.7


def test_geometry_blurs_once_and_before_the_noise(masks):
    def blurred(names):
        moved = apply(names, masks, masks, (6, 6))[0]
        return ((moved > 0) & (moved < 1)).sum()

    assert 0 < blurred("rotation+crop_zoom+shear+shift") < 2 * blurred("rotation")
    assert blurred("noise+rotation") < blurred("rotation")


def test_none_changes_nothing(masks):
    images = np.repeat(masks, 3, axis=-1)
    changed, moved = augment.augment(images, masks, "none", (0, 0))
    assert changed is images
    assert moved is masks


def test_slices_are_drawn_for_one_by_one(masks):
    same = np.repeat(masks[:1], 12, axis=0)
    moved = apply("report", np.repeat(same, 3, axis=-1), same, (1, 2), 0.5)[1]
    assert len({mask.tobytes() for mask in moved}) > 3
