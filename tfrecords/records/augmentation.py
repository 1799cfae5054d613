"""Random changes of training pictures: shift, mirror and light. Pure functions of pictures and keys."""

import tensorflow as tf

# What a change of light is in gray levels. Contrast leaves MIDDLE_GRAY as it is. The others go well beyond what a
# network shall bear, for at the end of what it saw it is weak: CLAHE makes up to 11.5 levels of a sensor's 6 (NEU),
# where a change by 0.3 has up to 18; and bright parts that burn out at 30 % more exposure are white after CLAHE too.
MIDDLE_GRAY, NOISE_LEVELS, EXPOSURE_SPAN = 128.0, 60.0, 2.0
BALANCE_SPAN = 1 / 3  # white balance: a change by 0.3 makes each of three channels brighter or darker by up to 10 %


def bordered(picture: tf.Tensor, most_px: int) -> tf.Tensor:
    """A picture with its mirrored border: uint8 (S, S, C) to (S + 2 most_px, S + 2 most_px, C). most_px: below S."""
    return tf.pad(picture, [[most_px, most_px], [most_px, most_px], [0, 0]], "REFLECT")


def shift(picture: tf.Tensor, corner: tf.Tensor, size_px: int) -> tf.Tensor:
    """Moves a picture; what comes in from outside is the mirrored border.

    Args:
        picture: with its border, see `bordered`.
        corner: int32 (3,), of the part that is kept: row, column, 0. See `shift_corners`.

    Returns: uint8 (size, size, C).
    """
    shape = [size_px, size_px, picture.shape[-1]]
    return tf.ensure_shape(tf.slice(picture, corner, shape), shape)


def shift_corners(offsets: tf.Tensor, most_px: int) -> tf.Tensor:
    """Offsets, int32 (N, 2), rows down and columns right, each from -most_px to most_px, to int32 (N, 3)."""
    return tf.pad(most_px - offsets, [[0, 0], [0, 1]])


def shift_offsets(seed: int, epoch: tf.Tensor, count: int, most_px: int) -> tf.Tensor:
    """Shifts of all `count` records in one epoch: int32 (count, 2), each from -most_px to most_px.

    Stateless: the same (seed, epoch, index) gives the same shift, in whatever order records are read.
    """
    key = tf.stack([tf.constant(seed, tf.int64), tf.cast(epoch, tf.int64)])
    return tf.random.stateless_uniform([count, 2], key, -most_px, most_px + 1, tf.int32)


def mirror(picture: tf.Tensor, key: tf.Tensor, horizontal: bool, vertical: bool) -> tf.Tensor:
    """A picture that is mirrored or not, as often: left to right, top to bottom, or each by itself.

    picture: uint8 (S, S, C). key: int64 (2,); the same key gives the same picture. Returns: uint8 (S, S, C).
    """
    across, down = tf.unstack(tf.random.stateless_uniform([2], key + 3) < 0.5)
    if horizontal:
        picture = tf.where(across, tf.reverse(picture, [1]), picture)
    return tf.where(down, tf.reverse(picture, [0]), picture) if vertical else picture


def relight(picture: tf.Tensor, key: tf.Tensor, most: float) -> tf.Tensor:
    """A picture in another light: contrast, exposure and sensor noise, each anew for each key.

    Contrast and exposure are alike in all channels. Of a color picture the white balance changes too, since lamps
    change their color: each channel has a small factor of its own. Noise is of each channel and pixel alone.

    Args:
        picture: uint8 (S, S, C).
        key: int64 (2,); the same key gives the same light.
        most: largest change of contrast, as a part of it; of exposure EXPOSURE_SPAN times it, of a channel's balance
            BALANCE_SPAN times it; and the noise's deviation NOISE_LEVELS times it.

    Returns: uint8 (S, S, C).
    """
    contrast, exposure, noise = tf.unstack(most * tf.random.stateless_uniform([3], key, -1.0, 1.0))
    grain = NOISE_LEVELS * tf.abs(noise) * tf.random.stateless_normal(tf.shape(picture), key + 1)
    flat = (tf.cast(picture, tf.float32) - MIDDLE_GRAY) * (1 + contrast) + MIDDLE_GRAY
    factor = 1 + EXPOSURE_SPAN * exposure
    if picture.shape[-1] > 1:
        factor *= 1 + BALANCE_SPAN * most * tf.random.stateless_uniform([picture.shape[-1]], key + 2, -1.0, 1.0)
    lit = flat * factor + grain
    return tf.ensure_shape(tf.cast(tf.clip_by_value(tf.round(lit), 0, 255), tf.uint8), picture.shape)
