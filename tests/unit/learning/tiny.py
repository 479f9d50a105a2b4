"""Pictures and a backbone that train in a second, of the layers that Xception is made of."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.exports.litert import save_keras
from edgeloop.exports.tensorflow import load_tensorflow
from edgeloop.learning.augment import Images
from edgeloop.learning.full_config import Labels, Mask

N_CLASSES = 2


def bars(n: int, seed: int = 0) -> tuple[Images, Labels]:
    """Noisy pictures of one dark bar, lying (0) or standing (1)."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % N_CLASSES
    images = rng.integers(180, 255, (n, 71, 71, 3)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        at = rng.integers(15, 45)
        image[(slice(at, at + 12), slice(8, 63))[:: 1 if label == 0 else -1]] //= 5
    return images, labels.astype(np.int64)


def last(n: int, aside: int) -> Mask:
    """Of ``n`` images the last ``aside``."""
    return np.arange(n) >= n - aside


def small_backbone(seed: int = 0) -> Any:
    """Sixteen features from 71 px images; the same seed gives the same weights and names."""
    _, keras = load_tensorflow()
    keras.utils.clear_session()  # names are numbered from the start, as in the fresh process that a job has
    keras.utils.set_random_seed(seed)
    layers = [
        keras.layers.Rescaling(1 / 127.5, offset=-1.0),
        keras.layers.SeparableConv2D(16, 5, strides=3),
        keras.layers.BatchNormalization(),
        keras.layers.ReLU(),
        keras.layers.GlobalAveragePooling2D(),
    ]
    return keras.Sequential([keras.Input((71, 71, 3), dtype="uint8"), *layers])


def small_base(path: Path, seed: int = 0) -> Path:
    """``small_backbone`` as a .keras file to start from."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Keras' own, of NumPy
        save_keras(small_backbone(seed), path)
    return path
