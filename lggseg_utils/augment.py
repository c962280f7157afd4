"""Augmentation of image and mask together, inside the tf.data pipeline (report, section 1-3).

Every function takes images float32 (n, side, side, channels) from 0 to 1, masks float32 (n, side, side, 1) of 0 and 1,
and a seed (two integers); it draws anew for each slice and returns both. The same seed gives the same result.
Geometry moves both (image bilinear, mask nearest, outside filled with 0); intensity leaves the mask alone.
"""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from lggseg_utils.config import AUGMENTATIONS, parse_augmentation

PROBABILITY = 0.5
MAX_ROTATION = 15.0
MAX_SHIFT = 0.0625
MIN_CROP = 0.8
SHEAR = (0.1, 0.35)
NOISE_AMOUNT = 0.05
KERNEL_SIDE = 5
KERNEL_SIGMA = 0.3 * ((KERNEL_SIDE - 1) * 0.5 - 1) + 0.8
CONTRAST = (0.8, 1.2)
BRIGHTNESS = 0.1


@dataclass(frozen=True)
class Description:
    """What an augmentation does, in which range, and who says so."""

    range: str
    source: str


DESCRIPTIONS = {
    "rotation": Description(f"-{MAX_ROTATION:g} to {MAX_ROTATION:g} degrees", "report"),
    "flip": Description("left-right and up-down, each with probability 0.5", "report"),
    "shift": Description(
        f"up to {MAX_SHIFT:.2%} of the side along x and y", "default of albumentations, the report's library"
    ),
    "crop_zoom": Description(f"a square of {MIN_CROP:g} to 1 times the side, enlarged to full size", "our choice"),
    "crop_pad": Description(f"a square of {MIN_CROP:g} to 1 times the side, centred, zeros around it", "our choice"),
    "shear": Description(f"factor {SHEAR[0]} to {SHEAR[1]}, either sign, along x or y", "report"),
    "noise": Description(
        f"salt and pepper on {NOISE_AMOUNT:.0%} of the values", "kind: report; amount: scikit-image's default"
    ),
    "gaussian_filter": Description(
        f"{KERNEL_SIDE}x{KERNEL_SIDE} kernel, sigma {KERNEL_SIGMA:.1f} pixels",
        "kernel: report; sigma: OpenCV's rule for it",
    ),
    "contrast": Description(f"factor {CONTRAST[0]} to {CONTRAST[1]} about the slice's mean", "report"),
    "brightness": Description(f"-{BRIGHTNESS} to {BRIGHTNESS} added", "report"),
    "rotate_90": Description("by 0, 90, 180 or 270 degrees", "report"),
}


def _uniform(count, seed, low=0.0, high=1.0):
    """One number a slice, uniform between low and high, shape (count,)."""
    return tf.random.stateless_uniform([count], seed, low, high)


def _split(seed, number):
    """Independent seeds from one."""
    return tf.unstack(tf.random.split(seed, number))


def _warp(images, masks, rows):
    """Apply one affine map a slice; rows: the six numbers (n,) that give input x and y from output x and y."""
    zeros = tf.zeros_like(rows[0])
    transforms = tf.stack([*rows, zeros, zeros], axis=1)

    def warp(pixels, interpolation):
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=pixels,
            transforms=transforms,
            output_shape=tf.shape(pixels)[1:3],
            fill_value=0.0,
            interpolation=interpolation,
            fill_mode="CONSTANT",
        )

    return warp(images, "BILINEAR"), warp(masks, "NEAREST")


def _about_centre(images, a, b, c, d):
    """Rows of the map (a b; c d) that leaves the slice's centre where it is."""
    centre = (tf.cast(tf.shape(images)[1], tf.float32) - 1) / 2
    return a, b, centre * (1 - a - b), c, d, centre * (1 - c - d)


def rotation(images, masks, seed):
    """Turn by a random angle of at most MAX_ROTATION degrees."""
    angle = _uniform(tf.shape(images)[0], seed, -MAX_ROTATION, MAX_ROTATION) * np.pi / 180
    cosine, sine = tf.cos(angle), tf.sin(angle)
    return _warp(images, masks, _about_centre(images, cosine, -sine, sine, cosine))


def shear(images, masks, seed):
    """Slant along x or y by a random factor of either sign."""
    count = tf.shape(images)[0]
    amount, sign, axis = _split(seed, 3)
    factor = _uniform(count, amount, *SHEAR) * tf.sign(_uniform(count, sign) - 0.5)
    along_x = tf.cast(_uniform(count, axis) < 0.5, tf.float32)
    one = tf.ones_like(factor)
    return _warp(images, masks, _about_centre(images, one, factor * along_x, factor * (1 - along_x), one))


def shift(images, masks, seed):
    """Move by whole pixels along x and y, zeros moving in."""
    count, side = tf.shape(images)[0], tf.cast(tf.shape(images)[1], tf.float32)
    dx, dy = (tf.round(_uniform(count, part, -MAX_SHIFT, MAX_SHIFT) * side) for part in _split(seed, 2))
    one, zero = tf.ones_like(dx), tf.zeros_like(dx)
    return _warp(images, masks, (one, zero, dx, zero, one, dy))


def _random_square(images, seed):
    """Random square a slice: its relative side, and the left and top edge in pixels."""
    count, side = tf.shape(images)[0], tf.cast(tf.shape(images)[1], tf.float32)
    part, left, top = _split(seed, 3)
    scale = _uniform(count, part, MIN_CROP, 1.0)
    room = (side - 1) * (1 - scale)
    return scale, _uniform(count, left) * room, _uniform(count, top) * room


def crop_zoom(images, masks, seed):
    """Cut a random square and enlarge it to full size; the aspect ratio is kept."""
    scale, left, top = _random_square(images, seed)
    zero = tf.zeros_like(scale)
    return _warp(images, masks, (scale, zero, left, zero, scale, top))


def crop_pad(images, masks, seed):
    """Cut a random square, put it in the middle and fill up with zeros."""
    scale, left, top = _random_square(images, seed)
    side = tf.cast(tf.shape(images)[1], tf.float32)
    margin = (side - 1) * (1 - scale) / 2
    one, zero = tf.ones_like(scale), tf.zeros_like(scale)
    images, masks = _warp(images, masks, (one, zero, tf.round(left - margin), zero, one, tf.round(top - margin)))
    position = tf.range(side)[None]
    inside = tf.cast((position >= margin[:, None]) & (position <= side - 1 - margin[:, None]), tf.float32)
    window = (inside[:, :, None] * inside[:, None, :])[..., None]
    return images * window, masks * window


def _where(chosen, changed, kept):
    """Take `changed` for the chosen slices; chosen: bool (n,)."""
    # TensorFlow 1's `where` copies whole slices; the newer one broadcasts the choice to every pixel, 17 times as slowly.
    return tf.compat.v1.where(chosen, changed, kept)


def flip(images, masks, seed):
    """Mirror left-right and up-down, each with probability 0.5."""
    for axis, part in zip((2, 1), _split(seed, 2), strict=True):
        chosen = _uniform(tf.shape(images)[0], part) < 0.5
        images, masks = (_where(chosen, tf.reverse(pixels, [axis]), pixels) for pixels in (images, masks))
    return images, masks


def rotate_90(images, masks, seed):
    """Turn by 0, 90, 180 or 270 degrees, without interpolation."""
    quarters = tf.random.stateless_uniform([tf.shape(images)[0]], seed, 0, 4, tf.int32)
    for step, axes in ((1, (2,)), (2, (1, 2)), (3, (1,))):
        chosen = quarters == step
        images, masks = (
            _where(chosen, tf.reverse(tf.transpose(pixels, (0, 2, 1, 3)) if step != 2 else pixels, axes), pixels)
            for pixels in (images, masks)
        )
    return images, masks


def noise(images, masks, seed):
    """Salt and pepper: set a share NOISE_AMOUNT of the values to 0 or 1."""
    draw = tf.random.stateless_uniform(tf.shape(images), seed)
    salt = tf.cast(draw < NOISE_AMOUNT / 2, images.dtype)
    kept = tf.cast(draw <= 1 - NOISE_AMOUNT / 2, images.dtype)
    return tf.maximum(images, salt) * kept, masks


def gaussian_filter(images, masks, seed):
    """Blur with a Gaussian kernel; the borders are mirrored."""
    offsets = tf.range(KERNEL_SIDE, dtype=tf.float32) - KERNEL_SIDE // 2
    line = tf.exp(-(offsets**2) / (2 * KERNEL_SIGMA**2))
    kernel = line[:, None] * line[None] / tf.reduce_sum(line) ** 2
    kernel = tf.tile(kernel[..., None, None], (1, 1, tf.shape(images)[-1], 1))
    margin = [[0, 0], [KERNEL_SIDE // 2] * 2, [KERNEL_SIDE // 2] * 2, [0, 0]]
    return tf.nn.depthwise_conv2d(tf.pad(images, margin, "REFLECT"), kernel, (1, 1, 1, 1), "VALID"), masks


def contrast(images, masks, seed):
    """Stretch or squeeze a slice's values about their mean; clipped to 0 and 1."""
    factor = _uniform(tf.shape(images)[0], seed, *CONTRAST)[:, None, None, None]
    mean = tf.reduce_mean(images, (1, 2, 3), keepdims=True)
    return tf.clip_by_value(mean + factor * (images - mean), 0, 1), masks


def brightness(images, masks, seed):
    """Add one number to a slice; clipped to 0 and 1."""
    added = _uniform(tf.shape(images)[0], seed, -BRIGHTNESS, BRIGHTNESS)
    return tf.clip_by_value(images + added[:, None, None, None], 0, 1), masks


FUNCTIONS = {name: globals()[name] for name in AUGMENTATIONS}


def augment(images, masks, text, seed, probability=PROBABILITY):
    """Apply the augmentations behind `text` one after the other, each to a slice with the given probability.

    `text` is a composition or names joined by +. flip draws for itself whether it mirrors, so it always acts.
    """
    for position, name in enumerate(parse_augmentation(text)):
        draw, act = _split(tf.random.fold_in(seed, position), 2)
        changed = FUNCTIONS[name](images, masks, act)
        threshold = 1.0 if name == "flip" else probability
        chosen = _uniform(tf.shape(images)[0], draw) < threshold
        images, masks = _where(chosen, changed[0], images), _where(chosen, changed[1], masks)
    return images, masks
