"""What the whole backbone costs to train on the same pictures: a few epochs of it, and what they would take on all."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from edgeloop.bench.retrain.pictures import LABELS, Picture
from edgeloop.bench.retrain.result import FullTime
from edgeloop.learning.full_config import FullTraining
from edgeloop.learning.full_job import FullJob, FullResult, run_full, write_job
from edgeloop.samples.payloads import decode_image

#: The smallest side that Xception takes: the cheapest full training there is.
SIDE = 71
#: One image of so many is held out to see how good it is; that adds about a third of its share to the time.
_HELD_OUT = 10


def measure_full(
    pictures: Sequence[Picture],
    images: int,
    epochs: int,
    head: tuple[int, float, float],
    say: Callable[[str], None],
) -> FullTime:
    """Train Xception from random weights on the first ``images`` pictures for ``epochs``.

    Args:
        pictures: to train on; the same that the head was fitted on.
        images: how many of them; all, or an epoch's time is extrapolated.
        epochs: at most.
        head: samples, accuracy and seconds of the head's whole retrain.
        say: told of every epoch.
    """
    chosen = pictures[:images]
    with tempfile.TemporaryDirectory(prefix="edgeloop-bench-full-") as folder:
        result = _train(Path(folder), chosen, epochs, say)
    return full_time([(e["seconds"], e["val_accuracy"]) for e in result.history], len(chosen), head)


def _train(folder: Path, pictures: Sequence[Picture], epochs: int, say: Callable[[str], None]) -> FullResult:
    shown = np.stack([decode_image(p.payload, SIDE) for p in pictures])
    truth = np.asarray([LABELS.index(p.label) for p in pictures], np.int64)
    held_out = np.arange(len(pictures)) % _HELD_OUT == 0
    training = FullTraining(epochs=epochs, patience=epochs)
    write_job(folder, FullJob(n_classes=len(LABELS), training=training), shown, truth, held_out)

    def epoch(number: int, of: int, figures: dict[str, float]) -> None:
        say(f"full fine-tune on {len(pictures)} images: epoch {number}/{of}, {figures['seconds']:.0f} s")

    return run_full(folder, epoch)


def full_time(history: Sequence[tuple[float, float]], images: int, head: tuple[int, float, float]) -> FullTime:
    """Of the epochs (seconds, held-out accuracy) on ``images``: what they take on the head's samples, and the ratio.

    Only a training on all samples can say that it reached the head's accuracy.
    """
    samples, head_accuracy, head_seconds = head
    scale = samples / images
    enough = [number for number, (_, accuracy) in enumerate(history, 1) if accuracy >= head_accuracy]
    reached = bool(enough) and images >= samples
    counted = history[: enough[0]] if reached else history
    seconds = scale * sum(second for second, _ in counted)
    return FullTime(
        images=images,
        samples=samples,
        epochs=len(counted),
        epoch_seconds=seconds / len(counted),
        accuracy=max(accuracy for _, accuracy in history),
        head_accuracy=head_accuracy,
        reached=reached,
        seconds=seconds,
        ratio=seconds / head_seconds,
    )
