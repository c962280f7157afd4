"""Augmentation of image and mask together, inside the tf.data pipeline (report, section 1-3).

Images are float32 (n, side, side, channels) from 0 to 1, masks float32 (n, side, side, 1) of 0
and 1, a seed is two integers. Each slice is drawn for anew, and the same seed gives the same
result. Geometry draws one affine map per slice, by which image and mask are moved; what comes
from outside is 0. Intensity leaves the mask alone.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from lggseg_utils.data import FLAIR
from lggseg_utils.settings import parse_augmentation

PROBABILITY = 0.5
MAX_ROTATION = 15.0  # degrees
MAX_SHIFT = 0.0625  # of the side
MIN_CROP = 0.8  # of the side
SHEAR = (0.1, 0.35)
NOISE_AMOUNT = 0.05
KERNEL_SIDE = 5
KERNEL_SIGMA = 0.3 * ((KERNEL_SIDE - 1) * 0.5 - 1) + 0.8  # OpenCV's choice for this side
CONTRAST = (0.8, 1.2)
BRIGHTNESS = 0.1


def _uniform(count, seed, low=0.0, high=1.0):
    """Return one uniform random number per slice, from low to below high: float32 (count,)."""
    return tf.random.stateless_uniform([count], seed, low, high)


def _split(seed, number):
    """Return a list of independent seeds derived from one."""
    return tf.unstack(tf.random.split(seed, number))


def _matrix(count, a, b, c, d, e, f):
    """Return one affine map per slice, (a b c; d e f; 0 0 1): float32 (count, 3, 3).

    It gives a pixel's place before the move, x and y in pixels, from that after it. Each value is
    a number or a tensor (count,).
    """
    values = []
    for value in (a, b, c, d, e, f, 0, 0, 1):
        values.append(tf.broadcast_to(tf.cast(value, tf.float32), [count]))
    return tf.reshape(tf.stack(values, axis=1), (-1, 3, 3))


def _about_centre(count, side, a, b, d, e):
    """Return the maps (a b; d e) that leave the slice's centre where it is."""
    centre = (side - 1) / 2
    return _matrix(count, a, b, centre * (1 - a - b), d, e, centre * (1 - d - e))


def rotation(count, side, seed):
    """Turn by a random angle of at most MAX_ROTATION degrees either way."""
    angle = _uniform(count, seed, -MAX_ROTATION, MAX_ROTATION) * np.pi / 180
    cosine = tf.cos(angle)
    sine = tf.sin(angle)
    return _about_centre(count, side, cosine, -sine, sine, cosine)


def flip(count, side, seed):
    """Mirror left-right and up-down, each with probability 0.5."""
    seed_x, seed_y = _split(seed, 2)
    x = tf.where(_uniform(count, seed_x) < 0.5, -1.0, 1.0)
    y = tf.where(_uniform(count, seed_y) < 0.5, -1.0, 1.0)
    return _about_centre(count, side, x, 0, 0, y)


def shift(count, side, seed):
    """Move by whole pixels along x and y, at most MAX_SHIFT of the side either way."""
    seed_x, seed_y = _split(seed, 2)
    dx = tf.round(_uniform(count, seed_x, -MAX_SHIFT, MAX_SHIFT) * side)
    dy = tf.round(_uniform(count, seed_y, -MAX_SHIFT, MAX_SHIFT) * side)
    return _matrix(count, 1, 0, dx, 0, 1, dy)


def _random_square(count, side, seed):
    """Return one random square per slice, four tensors float32 (count,).

    Its side as a share of the slice's, its left and its top edge, and the room that it leaves,
    all three in pixels.
    """
    seed_scale, seed_left, seed_top = _split(seed, 3)
    scale = _uniform(count, seed_scale, MIN_CROP, 1.0)
    room = (side - 1) * (1 - scale)
    left = _uniform(count, seed_left) * room
    top = _uniform(count, seed_top) * room
    return scale, left, top, room


def crop_zoom(count, side, seed):
    """Cut a random square and enlarge it to full size; the aspect ratio is kept."""
    scale, left, top, _ = _random_square(count, side, seed)
    return _matrix(count, scale, 0, left, 0, scale, top)


def crop_pad(count, side, seed):
    """Move a random square to the middle; around it lies `crop_pad_margin` of zeros."""
    _, left, top, room = _random_square(count, side, seed)
    return _matrix(count, 1, 0, tf.round(left - room / 2), 0, 1, tf.round(top - room / 2))


def crop_pad_margin(count, side, seed):
    """Return the width of the border around the square of `crop_pad` in pixels: (count,)."""
    *_, room = _random_square(count, side, seed)
    return room / 2


def shear(count, side, seed):
    """Slant along x or y by a random factor of either sign."""
    seed_amount, seed_sign, seed_axis = _split(seed, 3)
    sign = tf.sign(_uniform(count, seed_sign) - 0.5)
    factor = _uniform(count, seed_amount, *SHEAR) * sign
    along_x = tf.cast(_uniform(count, seed_axis) < 0.5, tf.float32)
    return _about_centre(count, side, 1, factor * along_x, factor * (1 - along_x), 1)


def rotate_90(count, side, seed):
    """Turn by 0, 90, 180 or 270 degrees."""
    quarters = tf.random.stateless_uniform([count], seed, 0, 4, tf.int32)
    cosine = tf.gather((1.0, 0.0, -1.0, 0.0), quarters)
    sine = tf.gather((0.0, -1.0, 0.0, 1.0), quarters)
    return _about_centre(count, side, cosine, -sine, sine, cosine)


def noise(images, seed):
    """Salt and pepper: set a share NOISE_AMOUNT of the values to 0 or 1."""
    draw = tf.random.stateless_uniform(tf.shape(images), seed)
    salt = tf.cast(draw < NOISE_AMOUNT / 2, images.dtype)
    kept = tf.cast(draw <= 1 - NOISE_AMOUNT / 2, images.dtype)
    return tf.maximum(images, salt) * kept


def gaussian_filter(images, seed):
    """Blur with a Gaussian kernel; the borders are mirrored. Nothing of it is random."""
    offsets = tf.range(KERNEL_SIDE, dtype=tf.float32) - KERNEL_SIDE // 2
    line = tf.exp(-(offsets**2) / (2 * KERNEL_SIGMA**2))
    kernel = line[:, None] * line[None] / tf.reduce_sum(line) ** 2
    kernel = tf.tile(kernel[..., None, None], (1, 1, tf.shape(images)[-1], 1))
    margin = [KERNEL_SIDE // 2, KERNEL_SIDE // 2]
    padded = tf.pad(images, [[0, 0], margin, margin, [0, 0]], "REFLECT")
    return tf.nn.depthwise_conv2d(padded, kernel, (1, 1, 1, 1), "VALID")


def contrast(images, seed):
    """Stretch or squeeze a slice's values about their mean; clipped to 0 and 1."""
    factor = _uniform(tf.shape(images)[0], seed, *CONTRAST)[:, None, None, None]
    mean = tf.reduce_mean(images, (1, 2, 3), keepdims=True)
    return tf.clip_by_value(mean + factor * (images - mean), 0, 1)


def brightness(images, seed):
    """Add one number to a slice; clipped to 0 and 1."""
    added = _uniform(tf.shape(images)[0], seed, -BRIGHTNESS, BRIGHTNESS)
    return tf.clip_by_value(images + added[:, None, None, None], 0, 1)


def flair_only(images, seed):
    """Replace pre- and post-contrast by FLAIR in half of the slices given.

    So it is in the cohort where a patient lacks them.
    """
    copied = tf.repeat(images[..., FLAIR, None], 3, axis=-1)
    return _choose(_uniform(tf.shape(images)[0], seed) < 0.5, copied, images)


@dataclass(frozen=True)
class Geometry:
    """How an augmentation moves slices.

    maps(count, side, seed): float32 (count, 3, 3), as `_matrix`.
    margin(count, side, seed): float32 (count,), pixels at the border that become 0; or None.
    always: it draws for itself which slices it moves, so it is applied to all.
    """

    maps: Callable
    margin: Callable | None = None
    always: bool = False


GEOMETRY = {
    "rotation": Geometry(rotation),
    "flip": Geometry(flip, always=True),
    "shift": Geometry(shift),
    "crop_zoom": Geometry(crop_zoom),
    "crop_pad": Geometry(crop_pad, margin=crop_pad_margin),
    "shear": Geometry(shear),
    "rotate_90": Geometry(rotate_90),
}
INTENSITY = {
    "noise": noise,
    "gaussian_filter": gaussian_filter,
    "contrast": contrast,
    "brightness": brightness,
    "flair_only": flair_only,
}


@dataclass(frozen=True)
class Drawn:
    """An augmentation of one batch: its name, its slices, bool (n,), and the seed of its values."""

    name: str
    chosen: tf.Tensor
    seed: tf.Tensor


def augment(images, masks, text, seed, probability=PROBABILITY):
    """Apply the augmentations named by `text` in turn, each to a slice with this probability.

    `text` is a composition or names joined by +. Geometry comes first: its maps are composed to
    one, so that a slice is interpolated once at most. Returns images and masks, shaped as given.
    """
    drawn = _draw(tf.shape(images)[0], text, seed, probability)
    moves = [each for each in drawn if each.name in GEOMETRY]
    if moves:
        images, masks = _move(images, masks, moves)
    for each in drawn:
        if each.name in INTENSITY:
            changed = INTENSITY[each.name](images, each.seed)
            images = _choose(each.chosen, changed, images)
    return images, masks


def _draw(count, text, seed, probability):
    """Return for each augmentation named by `text` what is `Drawn` for a batch of `count`."""
    drawn = []
    for stream, name in enumerate(parse_augmentation(text)):
        seed_choice, seed_values = _split(tf.random.fold_in(seed, stream), 2)
        chosen = _uniform(count, seed_choice) < probability
        if name in GEOMETRY and GEOMETRY[name].always:
            chosen = tf.ones_like(chosen)
        drawn.append(Drawn(name, chosen, seed_values))
    return drawn


def _choose(chosen, changed, images):
    """Return the changed slices where chosen, bool (n,), the others as they were."""
    # TensorFlow 1's `where` copies whole slices; the newer one broadcasts to every pixel, 17
    # times as slowly.
    return tf.compat.v1.where(chosen, changed, images)


def _move(images, masks, moves):
    """Apply a list of `Drawn` geometry to images and masks; return both."""
    count = tf.shape(images)[0]
    side = tf.cast(tf.shape(images)[1], tf.float32)
    maps = tf.eye(3, batch_shape=[count])
    window = 1.0
    # From the last to the first: a map leads from a slice's place after the move to that before.
    for each in reversed(moves):
        geometry = GEOMETRY[each.name]
        if geometry.margin:
            margin = geometry.margin(count, side, each.seed)
            window *= _inside(maps, side, tf.where(each.chosen, margin, -np.inf))
        moved = tf.matmul(geometry.maps(count, side, each.seed), maps)
        maps = tf.where(each.chosen[:, None, None], moved, maps)
    return _warp(images, maps, "BILINEAR") * window, _warp(masks, maps, "NEAREST") * window


def _warp(slices, maps, interpolation):
    """Move slices by one affine map each; shifts by whole pixels are exact."""
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=slices,
        transforms=tf.reshape(maps, (-1, 9))[:, :8],
        output_shape=tf.shape(slices)[1:3],
        fill_value=0.0,
        interpolation=interpolation,
        fill_mode="CONSTANT",
    )


def _inside(maps, side, margin):
    """Return 1 where the points given by `maps` keep their margin from every border, else 0.

    margin: pixels, (n,). Returns float32 (n, side, side, 1).
    """
    line = tf.range(side)
    x, y = tf.meshgrid(line, line)
    plane = tf.stack([x, y, tf.ones_like(x)])
    points = tf.matmul(maps[:, :2], tf.reshape(plane, (3, -1)))
    margin = margin[:, None, None]
    inside = tf.reduce_all((points >= margin) & (points <= side - 1 - margin), axis=1)
    return tf.cast(tf.reshape(inside, (-1, len(line), len(line), 1)), tf.float32)
