"""Small changes to training images, such as another camera would make; a digit must never be mirrored."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


def augment(images: Images, rng: np.random.Generator) -> Images:
    """uint8 [n, s, s, 3] -> the same shape: turned up to 8 degrees, scaled, shifted, contrast and tint changed."""
    from PIL import Image

    size = images.shape[1]
    out = np.empty_like(images)
    for i, picture in enumerate(images):
        corner = tuple(int(v) for v in picture[0, 0])
        warped = Image.fromarray(picture).transform(
            (size, size),
            Image.Transform.AFFINE,
            _affine(size, rng),
            Image.Resampling.BILINEAR,
            fillcolor=corner,
        )
        out[i] = _relight(np.asarray(warped, np.float32), rng)
    return out


def _affine(size: int, rng: np.random.Generator) -> tuple[float, ...]:
    angle, scale = np.deg2rad(rng.uniform(-8, 8)), rng.uniform(0.9, 1.1)
    a, b = np.cos(angle) / scale, np.sin(angle) / scale
    centre = (size - 1) / 2
    dx, dy = centre + rng.uniform(-0.06, 0.06, 2) * size
    return (a, b, centre - a * dx - b * dy, -b, a, centre + b * dx - a * dy)


def _relight(picture: Floats, rng: np.random.Generator) -> Images:
    gain, offset = rng.uniform(0.8, 1.1, 3), rng.uniform(-15, 15)
    return np.clip(picture * gain + offset, 0, 255).astype(np.uint8)
