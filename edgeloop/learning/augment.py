"""Small changes to training images, such as another camera would make; a digit must never be mirrored.

They are TensorFlow operations, so that the input pipeline makes a batch while another one trains. What happens to an
image follows from the seed alone, whatever thread it happens in and whenever training was cut off.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_TURN = np.deg2rad(8.0)


def augment(images: Any, seed: Any) -> Any:
    """uint8 [n, s, s, 3] -> the same shape: turned up to 8 degrees, scaled, shifted, contrast and tint changed.

    Both are tensors or arrays; `seed` is int32 [2], and the same one does the same to the same images.
    """
    from edgeloop.exports.tensorflow import load_tensorflow

    tf, _ = load_tensorflow()
    count, size = images.shape[0], images.shape[1]
    draws = tf.random.stateless_uniform((count, 10), seed)
    warped = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(images, tf.float32),
        transforms=_affine(tf, draws[:, :4], size),
        output_shape=(size, size),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )
    gain = 0.8 + 0.3 * draws[:, tf.newaxis, tf.newaxis, 4:7]
    offset = -15.0 + 30.0 * draws[:, tf.newaxis, tf.newaxis, 7:10]
    return tf.cast(tf.clip_by_value(warped * gain + offset, 0.0, 255.0), tf.uint8)


def _affine(tf: Any, draws: Any, size: int) -> Any:
    """From four draws in [0, 1) an image, where each output pixel comes from: eight numbers an image."""
    angle, scale = _TURN * (2 * draws[:, 0] - 1), 0.9 + 0.2 * draws[:, 1]
    a, b = tf.cos(angle) / scale, tf.sin(angle) / scale
    centre = (size - 1) / 2
    dx, dy = (centre + 0.12 * size * (draws[:, column] - 0.5) for column in (2, 3))
    zero = tf.zeros_like(a)
    return tf.stack([a, b, centre - a * dx - b * dy, -b, a, centre + b * dx - a * dy, zero, zero], axis=1)
