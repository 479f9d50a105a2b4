"""What no trainer can learn from, refused by name before anything is fitted; the champion stays as it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgeloop.errors import BadInput
from edgeloop.learning.heads import labels_present
from edgeloop.learning.trainers.protocol import UnusableFeatures

if TYPE_CHECKING:
    from numpy.typing import NDArray


class TooFewSamples(BadInput):
    """There are fewer training samples than labels to tell apart."""


class ConstantFeatures(BadInput):
    """All training samples have the same features: nothing tells their labels apart."""


class UnusableTargets(BadInput):
    """The right answers for a regressor are no numbers, or all the same one."""


def check_labels(truth: Sequence[str], labels: Sequence[str]) -> None:
    """Refuse the right answers of training samples that no classifier of ``labels`` can be fitted on.

    Raises:
        UnknownLabel: one of ``truth`` is not in ``labels``.
        TooFewSamples: there are fewer samples than ``labels``.
        TooFewClasses: fewer than two labels occur.
    """
    if len(truth) < len(labels):
        raise TooFewSamples(f"{len(truth)} training samples for {len(labels)} labels: label at least {len(labels)}")
    labels_present(truth, labels)


def check_numbers(truth: Sequence[str]) -> None:
    """Refuse the right answers of training samples that no regressor can be fitted on.

    Raises:
        UnusableTargets: one is not a finite number, or there are not two different ones.
    """
    for text in truth:
        if not _is_finite(text):
            raise UnusableTargets(f"a training sample has the label {text[:80]!r}: label it with a finite number")
    if len({float(text) for text in truth}) < 2:
        raise UnusableTargets(
            f"all {len(truth)} training samples have the label {truth[0] if truth else 'none'}:"
            " label samples with other answers"
        )


def check_features(features: NDArray[np.float32], count: int) -> None:
    """Refuse features [samples, features] of ``count`` labelled samples that nothing can be fitted on.

    Raises:
        UnusableFeatures: their number differs, there are none, or one is not finite.
        ConstantFeatures: all samples have the same ones.
    """
    if features.ndim != 2 or len(features) != count or 0 in features.shape:
        raise UnusableFeatures(f"features {features.shape} with {count} labels: give one row of features a label")
    broken = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(broken):
        raise UnusableFeatures(
            f"{len(broken)} of {count} training samples, the first at place {broken[0]}, have features that are not"
            " finite: quarantine them by an expectation, or take their labels back"
        )
    if (features == features[0]).all():
        raise ConstantFeatures(
            f"all {count} training samples have the same {features.shape[1]} features: look at what the devices send,"
            " and label samples that differ"
        )


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
