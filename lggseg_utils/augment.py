"""Augmentation of image and mask together, inside the tf.data pipeline (report, section 1-3).

Images are float32 (n, side, side, channels) from 0 to 1, masks float32 (n, side, side, 1) of 0 and 1, a seed is two
integers. Each slice is drawn for anew, and the same seed gives the same result. Geometry draws `count` affine maps for slices
of `side` pixels, by which image and mask are moved (outside filled with 0); intensity leaves the mask alone.
"""

import numpy as np
import tensorflow as tf

from lggseg_utils.data import FLAIR
from lggseg_utils.settings import parse_augmentation

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


def _uniform(count, seed, low=0.0, high=1.0):
    """Return one uniform random number per slice, between low and high, shape (count,)."""
    return tf.random.stateless_uniform([count], seed, low, high)


def _split(seed, number):
    """Return independent seeds derived from one."""
    return tf.unstack(tf.random.split(seed, number))


def _matrix(count, a, b, c, d, e, f):
    """Return one affine map per slice, which gives input x and y from output x and y in pixels: float32 (count, 3, 3)."""
    values = [
        tf.broadcast_to(tf.cast(value, tf.float32), [count])
        for value in (a, b, c, d, e, f, 0, 0, 1)
    ]
    return tf.reshape(tf.stack(values, axis=1), (-1, 3, 3))


def _about_centre(count, side, a, b, d, e):
    """Return the maps (a b; d e) that leave the slice's centre where it is."""
    centre = (side - 1) / 2
    return _matrix(count, a, b, centre * (1 - a - b), d, e, centre * (1 - d - e))


def rotation(count, side, seed):
    """Turn by a random angle of at most MAX_ROTATION degrees."""
    angle = _uniform(count, seed, -MAX_ROTATION, MAX_ROTATION) * np.pi / 180
    cosine, sine = tf.cos(angle), tf.sin(angle)
    return _about_centre(count, side, cosine, -sine, sine, cosine)


def flip(count, side, seed):
    """Mirror left-right and up-down, each with probability 0.5."""
    x, y = (tf.where(_uniform(count, part) < 0.5, -1.0, 1.0) for part in _split(seed, 2))
    return _about_centre(count, side, x, 0, 0, y)


def shift(count, side, seed):
    """Move by whole pixels along x and y; zeros fill the gap."""
    dx, dy = (
        tf.round(_uniform(count, part, -MAX_SHIFT, MAX_SHIFT) * side) for part in _split(seed, 2)
    )
    return _matrix(count, 1, 0, dx, 0, 1, dy)


def _random_square(count, side, seed):
    """Return one random square per slice: its relative side, its left and top edge, and the room left by it, in pixels."""
    part, left, top = _split(seed, 3)
    scale = _uniform(count, part, MIN_CROP, 1.0)
    room = (side - 1) * (1 - scale)
    return scale, _uniform(count, left) * room, _uniform(count, top) * room, room


def crop_zoom(count, side, seed):
    """Cut a random square and enlarge it to full size; the aspect ratio is kept."""
    scale, left, top, _ = _random_square(count, side, seed)
    return _matrix(count, scale, 0, left, 0, scale, top)


def crop_pad(count, side, seed):
    """Move a random square to the middle; `_move` makes what lies around it zero."""
    _, left, top, room = _random_square(count, side, seed)
    return _matrix(count, 1, 0, tf.round(left - room / 2), 0, 1, tf.round(top - room / 2))


def shear(count, side, seed):
    """Slant along x or y by a random factor of either sign."""
    amount, sign, axis = _split(seed, 3)
    factor = _uniform(count, amount, *SHEAR) * tf.sign(_uniform(count, sign) - 0.5)
    along_x = tf.cast(_uniform(count, axis) < 0.5, tf.float32)
    return _about_centre(count, side, 1, factor * along_x, factor * (1 - along_x), 1)


def rotate_90(count, side, seed):
    """Turn by 0, 90, 180 or 270 degrees."""
    quarters = tf.random.stateless_uniform([count], seed, 0, 4, tf.int32)
    cosine, sine = (
        tf.gather(values, quarters) for values in ((1.0, 0.0, -1.0, 0.0), (0.0, -1.0, 0.0, 1.0))
    )
    return _about_centre(count, side, cosine, -sine, sine, cosine)


def _warp(images, masks, maps):
    """Apply one affine map per slice, bilinear to images, nearest to masks; shifts by whole pixels are exact in both."""
    warp, flat = tf.raw_ops.ImageProjectiveTransformV3, tf.reshape(maps, (-1, 9))[:, :8]
    shared = {
        "transforms": flat,
        "output_shape": tf.shape(images)[1:3],
        "fill_value": 0.0,
        "fill_mode": "CONSTANT",
    }
    moved = warp(images=images, interpolation="BILINEAR", **shared)
    return moved, warp(images=masks, interpolation="NEAREST", **shared)


def _inside(maps, side, margin):
    """Return 1 where the points given by `maps` are `margin` pixels or more from every border, else 0; (n, side, side, 1)."""
    line = tf.range(side)
    x, y = tf.meshgrid(line, line)
    points = tf.matmul(maps[:, :2], tf.reshape(tf.stack([x, y, tf.ones_like(x)]), (3, -1)))
    margin = margin[:, None, None]
    inside = tf.reduce_all((points >= margin) & (points <= side - 1 - margin), axis=1)
    return tf.cast(tf.reshape(inside, (-1, len(line), len(line), 1)), tf.float32)


def noise(images, seed):
    """Salt and pepper: set a share NOISE_AMOUNT of the values to 0 or 1."""
    draw = tf.random.stateless_uniform(tf.shape(images), seed)
    salt = tf.cast(draw < NOISE_AMOUNT / 2, images.dtype)
    kept = tf.cast(draw <= 1 - NOISE_AMOUNT / 2, images.dtype)
    return tf.maximum(images, salt) * kept


def gaussian_filter(images, seed):
    """Blur with a Gaussian kernel; the borders are mirrored."""
    offsets = tf.range(KERNEL_SIDE, dtype=tf.float32) - KERNEL_SIDE // 2
    line = tf.exp(-(offsets**2) / (2 * KERNEL_SIGMA**2))
    kernel = line[:, None] * line[None] / tf.reduce_sum(line) ** 2
    kernel = tf.tile(kernel[..., None, None], (1, 1, tf.shape(images)[-1], 1))
    margin = [[0, 0], [KERNEL_SIDE // 2] * 2, [KERNEL_SIDE // 2] * 2, [0, 0]]
    return tf.nn.depthwise_conv2d(tf.pad(images, margin, "REFLECT"), kernel, (1, 1, 1, 1), "VALID")


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
    """In half of the slices given, replace pre- and post-contrast by FLAIR, as in the cohort where a patient lacks them."""
    copied = tf.repeat(images[..., FLAIR, None], 3, axis=-1)
    return tf.compat.v1.where(_uniform(tf.shape(images)[0], seed) < 0.5, copied, images)


GEOMETRY = {
    move.__name__: move for move in (rotation, flip, shift, crop_zoom, crop_pad, shear, rotate_90)
}
INTENSITY = {
    change.__name__: change for change in (noise, gaussian_filter, contrast, brightness, flair_only)
}


def augment(images, masks, text, seed, probability=PROBABILITY):
    """Apply the augmentations named by `text` in turn, each with the given probability; return images and masks.

    `text` is a composition or names joined by +. flip draws for itself whether it mirrors, so it always acts. Geometry
    comes first: its maps are composed to one, so that a slice is interpolated once at most.
    """
    count, names = tf.shape(images)[0], parse_augmentation(text)
    drawn = {
        name: _split(tf.random.fold_in(seed, position), 2) for position, name in enumerate(names)
    }
    chosen = {
        name: (_uniform(count, draw) < probability) | (name == "flip")
        for name, (draw, _) in drawn.items()
    }
    acts = {name: act for name, (_, act) in drawn.items()}
    images, masks = _move(images, masks, [name for name in names if name in GEOMETRY], acts, chosen)
    for name in [name for name in names if name in INTENSITY]:
        # TensorFlow 1's `where` copies whole slices; the newer one broadcasts to every pixel, 17 times as slowly.
        images = tf.compat.v1.where(chosen[name], INTENSITY[name](images, acts[name]), images)
    return images, masks


def _move(images, masks, names, seeds, chosen):
    """Apply the named geometry to the chosen slices; seeds and chosen (bool (n,)): by name."""
    if not names:
        return images, masks
    count, side = tf.shape(images)[0], tf.cast(tf.shape(images)[1], tf.float32)
    maps, window = tf.eye(3, batch_shape=[count]), 1.0
    # From the last to the first: a map leads from a slice's place after the move to that before it.
    for name in reversed(names):
        if name == "crop_pad":
            *_, room = _random_square(count, side, seeds[name])
            window = _inside(maps, side, tf.where(chosen[name], room / 2, -np.inf))
        moved = tf.matmul(GEOMETRY[name](count, side, seeds[name]), maps)
        maps = tf.where(chosen[name][:, None, None], moved, maps)
    images, masks = _warp(images, masks, maps)
    return images * window, masks * window
