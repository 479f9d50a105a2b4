"""The Xception backbone itself: where it comes from, how it is trained, and its one trap in Keras.

Full training happens seldom: at a service's first bootstrap and on a worker with room for it. TensorFlow never gives
its memory back, so what is here is meant to run in the process that `edgeloop.learning.full_job` starts for it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from edgeloop.errors import BadInput, MissingExtra, Unavailable
from edgeloop.learning.augment import Images, augment

Labels = npt.NDArray[np.int64]
Progress = Callable[[int, int, dict[str, float]], None]
"""Told of every epoch: its number, of how many, and its loss, accuracy and seconds."""

SMALLEST_INPUT = 71
_STEPS_WORTH_REWRITES = 300


class BackboneUnavailable(Unavailable):
    """The weights a backbone should start from cannot be had."""


class FullTraining(BaseModel):
    """How a full training runs. The defaults fit a few hundred small images on two cores in under a minute."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=5, ge=1, le=1000)
    """Passes over the training images, at most."""
    batch_size: int = Field(default=32, ge=2, le=1024)
    """Images a step; the ragged last batch of an epoch is dropped, one shape keeps memory flat."""
    learning_rate: float = Field(default=1e-3, gt=0, le=1)
    """Peak rate of Adam; a tenth of the steps warm up to it, a cosine takes it to zero."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    augment: bool = True
    """Small random shifts, turns, scales and contrast; never mirrors."""
    stop_at_accuracy: float | None = Field(default=None, gt=0, le=1)
    """End after the first epoch whose training accuracy reaches this; `None` runs every epoch."""
    budget_s: float | None = Field(default=None, gt=0)
    """End after the epoch that would leave no time for another; a run cut short is not reproducible."""
    seed: int = 0


@dataclass(frozen=True)
class TrainedBackbone:
    """A backbone whose BatchNorm statistics are recalibrated, and how it came about."""

    model: Any
    """keras.Model: uint8 [n, s, s, 3] -> float32 [n, d]."""
    history: list[dict[str, float]]
    """Per epoch: loss, accuracy (as trained), seconds."""
    stopped: Literal["epochs", "accuracy", "budget"]


def load_tensorflow() -> tuple[Any, Any]:
    """TensorFlow and Keras, imported without a word on stderr. Raises MissingExtra when not installed."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import keras
            import tensorflow as tf
    except ImportError as missing:
        raise MissingExtra(missing.name or "tensorflow", "train") from missing
    return tf, keras


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


# --- training


def train_full(
    images: Images,
    labels: Labels,
    n_classes: int,
    config: FullTraining,
    base: Path | None = None,
    progress: Progress | None = None,
) -> TrainedBackbone:
    """Train every weight on uint8 [n, s, s, 3] images and int labels [n]; the same seed gives the same weights.

    Starts from `base` (a .keras file), else from random weights. `progress` is told (epoch, epochs, numbers).
    """
    check_examples(images, labels, n_classes)
    backbone = build_backbone(images.shape[1], None if base is None else str(base), config.seed)
    return fit_backbone(backbone, images, labels, n_classes, config, progress)


def check_examples(images: Images, labels: Labels, n_classes: int) -> None:
    """Raises BadInput for shapes, types or labels that cannot be trained on."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != images.shape[2] or images.shape[3] != 3:
        raise BadInput(f"images are {images.dtype} {images.shape}: give uint8 [n, size, size, 3]")
    if labels.shape != (len(images),):
        raise BadInput(f"{len(images)} images come with labels of shape {labels.shape}: give one label an image")
    if len(np.unique(labels)) < 2 or labels.min() < 0 or labels.max() >= n_classes:
        raise BadInput(f"labels {np.unique(labels)[:5]} do not fit: give two classes or more in 0..{n_classes - 1}")


def fit_backbone(
    backbone: Any,
    images: Images,
    labels: Labels,
    n_classes: int,
    config: FullTraining,
    progress: Progress | None = None,
) -> TrainedBackbone:
    """Train `backbone` in place under a throw-away softmax head, then recalibrate its BatchNorm layers."""
    _, keras = load_tensorflow()
    started = time.monotonic()
    rng = np.random.default_rng(config.seed)
    batch = min(config.batch_size, len(images))
    classifier = keras.Sequential([backbone, keras.layers.Dense(n_classes, name="throwaway")])
    steps = config.epochs * (len(images) // batch)
    _skip_graph_rewrites(steps < _STEPS_WORTH_REWRITES)
    step = _training_step(classifier, config, steps)
    history: list[dict[str, float]] = []
    stopped: Literal["epochs", "accuracy", "budget"] = "epochs"
    for epoch in range(1, config.epochs + 1):
        numbers = _epoch(step, images, labels, batch, config.augment, rng)
        history.append(numbers)
        if progress is not None:
            progress(epoch, config.epochs, numbers)
        if config.stop_at_accuracy is not None and numbers["accuracy"] >= config.stop_at_accuracy:
            stopped = "accuracy"
            break
        if epoch < config.epochs and _out_of_time(config.budget_s, time.monotonic() - started, numbers["seconds"]):
            stopped = "budget"
            break
    recalibrate_batchnorm(backbone, images, batch)
    return TrainedBackbone(backbone, history, stopped)


def _skip_graph_rewrites(skip: bool) -> None:
    """TensorFlow rewrites the graph for 15 s before the first step; a short run never earns that back."""
    tf, _ = load_tensorflow()
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": skip})


def _out_of_time(budget_s: float | None, spent_s: float, epoch_s: float) -> bool:
    return budget_s is not None and spent_s + epoch_s > budget_s


Step = Callable[[Images, Labels], tuple[Any, Any]]


def _training_step(classifier: Any, config: FullTraining, steps: int) -> Step:
    tf, keras = load_tensorflow()
    warmup = max(1, steps // 10)
    rate = keras.optimizers.schedules.CosineDecay(
        config.learning_rate / 10,
        max(1, steps - warmup),
        warmup_target=config.learning_rate,
        warmup_steps=warmup,
    )
    optimizer = keras.optimizers.Adam(rate)
    loss_of = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=config.label_smoothing)
    n_classes = classifier.output_shape[-1]

    def step(images: Any, labels: Any) -> tuple[Any, Any]:
        with tf.GradientTape() as tape:
            logits = classifier(images, training=True)
            loss = loss_of(tf.one_hot(labels, n_classes), logits)
        variables = classifier.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        hits = tf.reduce_mean(tf.cast(tf.equal(tf.argmax(logits, -1), labels), tf.float32))
        return loss, hits

    optimizer.build(classifier.trainable_variables)
    compiled: Step = tf.function(step, jit_compile=False)
    return compiled


def _epoch(
    step: Step, images: Images, labels: Labels, batch: int, augmented: bool, rng: np.random.Generator
) -> dict[str, float]:
    started = time.monotonic()
    order = rng.permutation(len(images))
    losses, hits = [], []
    for rows in order[: len(order) // batch * batch].reshape(-1, batch):
        picked = augment(images[rows], rng) if augmented else images[rows]
        loss, hit = step(picked, labels[rows])
        losses.append(float(loss))
        hits.append(float(hit))
    seconds = time.monotonic() - started
    return {"loss": float(np.mean(losses)), "accuracy": float(np.mean(hits)), "seconds": seconds}


def recalibrate_batchnorm(model: Any, images: Images, batch_size: int) -> None:
    """Set every BatchNorm layer's moving mean and variance to what `images` (uint8 [n, s, s, 3]) give, in place.

    At Keras's momentum of 0.99 a few hundred steps leave the moving statistics near their start, and the model
    evaluates at chance although it trained well. The variance counts the spread between batches as well.
    """
    layers = [layer for layer in model._flatten_layers() if type(layer).__name__ == "BatchNormalization"]
    momenta = [layer.momentum for layer in layers]
    batch = min(batch_size, len(images))
    means: list[list[Any]] = []
    variances: list[list[Any]] = []
    try:
        for layer in layers:
            layer.momentum = 0.0  # so that one pass leaves exactly that batch's statistics behind
        for rows in np.arange(len(images) // batch * batch).reshape(-1, batch):
            model(images[rows], training=True)
            means.append([layer.moving_mean.numpy() for layer in layers])
            variances.append([layer.moving_variance.numpy() for layer in layers])
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
    for layer, mean, variance in zip(layers, zip(*means, strict=True), zip(*variances, strict=True), strict=True):
        layer.moving_mean.assign(np.mean(mean, axis=0))
        layer.moving_variance.assign(np.mean(variance, axis=0) + np.var(mean, axis=0))
