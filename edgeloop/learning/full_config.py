"""How a full training runs, and what came of it: the words that the trainer, its process and its caller share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from edgeloop.errors import BadInput, EdgeloopError
from edgeloop.learning.augment import Images

Labels = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
EpochProgress = Callable[[int, int, dict[str, float]], None]
"""Told of every epoch: its number, of how many, and its loss, accuracy and seconds, held out and not."""
Say = Callable[[str], None]
"""Told in a line what a reader of the log should know."""
Precision = Literal["auto", "float32", "mixed"]
Stopped = Literal["epochs", "patience", "accuracy", "budget"]


class TrainingDiverged(EdgeloopError):
    """The loss is no number any more."""


class FullTraining(BaseModel):
    """How a full training runs. The defaults fit a few hundred small images on two cores in under a minute."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=5, ge=1, le=1000)
    """Passes over the training images, at most."""
    batch_size: int = Field(default=32, ge=2, le=1024)
    """Images a step; the ragged last batch of an epoch is dropped, one shape keeps memory flat."""
    learning_rate: float = Field(default=1e-3, gt=0, le=1)
    """Peak rate of Adam from random weights; a tenth of the steps warm up to it, a cosine takes it to zero."""
    fine_tuning_rate: float = Field(default=1e-4, gt=0, le=1)
    """Peak rate where training starts from weights that were trained before."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    augment: bool = True
    """Small random shifts, turns, scales and contrast; never mirrors."""
    balanced: bool = False
    """Give all labels that occur the same total weight in the loss."""
    precision: Precision = "auto"
    """"mixed" computes in float16 and keeps weights in float32; "auto" does so on a GPU that is quick at it."""
    patience: int = Field(default=3, ge=1)
    """Epochs without a lower held-out loss until training stops; the best epoch's weights are kept."""
    stop_at_accuracy: float | None = Field(default=None, gt=0, le=1)
    """End after the first epoch whose training accuracy reaches this; `None` runs every epoch."""
    budget_s: float | None = Field(default=None, gt=0)
    """End after the epoch that would leave no time for another; a run cut short is not reproducible."""
    seed: int = Field(default=0, ge=0, lt=2**31)


@dataclass(frozen=True)
class TrainedBackbone:
    """A backbone that is ready to export, and how it came about."""

    model: Any
    """keras.Model: uint8 [n, s, s, 3] -> float32 [n, d]; of the best epoch where some images were held out."""
    history: list[dict[str, float]]
    """Per epoch: loss, accuracy (as trained), seconds; with images held out also val_loss and val_accuracy."""
    stopped: Stopped
    best_epoch: int
    precision: Literal["float32", "mixed"]


def check_examples(images: Images, labels: Labels, n_classes: int) -> None:
    """Raises BadInput for shapes, types or labels that cannot be trained on."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != images.shape[2] or images.shape[3] != 3:
        raise BadInput(f"images are {images.dtype} {images.shape}: give uint8 [n, size, size, 3]")
    if labels.shape != (len(images),):
        raise BadInput(f"{len(images)} images come with labels of shape {labels.shape}: give one label an image")
    if len(np.unique(labels)) < 2 or labels.min() < 0 or labels.max() >= n_classes:
        raise BadInput(f"labels {np.unique(labels)[:5]} do not fit: give two classes or more in 0..{n_classes - 1}")


def check_held_out(labels: Labels, held_out: Mask) -> None:
    """Raises BadInput unless ``held_out`` marks images and leaves two classes to train on."""
    if held_out.dtype != np.bool_ or held_out.shape != labels.shape:
        raise BadInput(f"held_out is {held_out.dtype} {held_out.shape} for {len(labels)} labels: give one bool a label")
    if len(np.unique(labels[~held_out])) < 2:
        raise BadInput(f"{held_out.sum()} of {len(labels)} images are held out and leave one class: hold out fewer")
