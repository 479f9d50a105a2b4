"""The Xception backbone itself: where it comes from, what it is, and its one trap in Keras.

Full training happens seldom: at a service's first bootstrap and on a worker with room for it. TensorFlow never gives
its memory back, so what is here is meant to run in the process that `edgeloop.learning.full_job` starts for it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeloop.errors import BadInput, Unavailable
from edgeloop.exports.tensorflow import load_tensorflow
from edgeloop.learning.augment import Images

Rows = npt.NDArray[np.int64]
SMALLEST_INPUT = 71


class BackboneUnavailable(Unavailable):
    """The weights a backbone should start from cannot be had."""


# --- the model


def build_backbone(input_size: int, weights: str | None, seed: int) -> Any:
    """A keras.Model: uint8 [n, input_size, input_size, 3] (0..255, RGB) -> float32 [n, 2048].

    `weights` is None (random under `seed`), "imagenet" (downloaded by Keras), or the path of a .keras or
    .weights.h5 file. Raises BackboneUnavailable when the weights cannot be had, BadInput for a size below 71.
    """
    if input_size < SMALLEST_INPUT:
        raise BadInput(f"input size {input_size} is too small for Xception: use {SMALLEST_INPUT} or more")
    _, keras = load_tensorflow()
    keras.utils.set_random_seed(seed)
    if weights is not None and weights.endswith(".keras"):
        return _load_model(Path(weights), input_size)
    model = _assemble(input_size, "imagenet" if weights == "imagenet" else None)
    if weights is not None and weights != "imagenet":
        _load_weights(model, Path(weights))
    return model


def _assemble(input_size: int, weights: str | None) -> Any:
    _, keras = load_tensorflow()
    shape = (input_size, input_size, 3)
    try:
        xception = keras.applications.Xception(
            include_top=False, weights=weights, input_shape=shape, pooling="avg", name="xception"
        )
    except Exception as error:  # Keras lets any error of the download through: URLError, ValueError, plain Exception
        raise BackboneUnavailable(
            f"Xception weights {weights!r} could not be loaded ({first_line(error)}): connect once, or set "
            "`weights` to a .keras or .weights.h5 file, or leave it empty to train from scratch"
        ) from error
    image = keras.Input(shape, dtype="uint8", name="image")
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="scale")(image)
    return keras.Model(image, xception(scaled), name="backbone")


def _load_model(path: Path, input_size: int) -> Any:
    _, keras = load_tensorflow()
    try:
        model = keras.models.load_model(path, compile=False)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if model.input_shape[1:3] != (input_size, input_size):
        raise BadInput(f"{path} takes {model.input_shape[1]} px images, not {input_size}: make the input sizes agree")
    return model


def _load_weights(model: Any, path: Path) -> None:
    try:
        model.load_weights(path)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> BackboneUnavailable:
    return BackboneUnavailable(
        f"backbone weights {path} cannot be read ({first_line(error)}): "
        "give a .keras or .weights.h5 file written by a full training, or leave `weights` empty"
    )


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def weights_digest(model: Any) -> str:
    """sha256 over every weight in order: the identity of what was learned, whatever file it is in."""
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    return f"sha256:{digest.hexdigest()}"


def recalibrate_batchnorm(model: Any, images: Images, batch_size: int, rows: Rows | None = None) -> None:
    """Set every BatchNorm layer's moving mean and variance to what `images` (uint8 [n, s, s, 3]) give, in place.

    `rows` are the images that count; `None` takes all.

    At Keras's momentum of 0.99 a few hundred steps leave the moving statistics near their start, and the model
    evaluates at chance although it trained well. The variance counts the spread between batches as well.
    """
    layers = [layer for layer in model._flatten_layers() if type(layer).__name__ == "BatchNormalization"]
    momenta = [layer.momentum for layer in layers]
    chosen = np.arange(len(images)) if rows is None else rows
    batch = min(batch_size, len(chosen))
    means: list[list[Any]] = []
    variances: list[list[Any]] = []
    try:
        for layer in layers:
            layer.momentum = 0.0  # so that one pass leaves exactly that batch's statistics behind
        for some in chosen[: len(chosen) // batch * batch].reshape(-1, batch):
            model(np.asarray(images[some]), training=True)
            means.append([layer.moving_mean.numpy() for layer in layers])
            variances.append([layer.moving_variance.numpy() for layer in layers])
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
    for layer, mean, variance in zip(layers, zip(*means, strict=True), zip(*variances, strict=True), strict=True):
        layer.moving_mean.assign(np.mean(mean, axis=0))
        layer.moving_variance.assign(np.mean(variance, axis=0) + np.var(mean, axis=0))
