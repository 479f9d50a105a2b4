"""Which of a model's own labels may be learned from: those that the labelled samples nearby confirm, and not many.

Plain functions of arrays, so that each promise can be tested without samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgeloop.samples.labelling import Pseudo

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CHUNK = 1024


def most_pseudo(anchors: int, share: float) -> int:
    """Most pseudo-labels beside ``anchors`` labelled samples, so that they are at most ``share`` of the lesson."""
    count = math.floor(anchors * share / (1 - share))
    return count if count <= share * (anchors + count) else count - 1  # where the division was rounded up


def confirmed(
    probabilities: NDArray[np.float64],
    points: NDArray[np.float32],
    anchors: NDArray[np.float32],
    anchor_classes: NDArray[np.int64],
    rules: Pseudo,
) -> NDArray[np.bool_]:
    """Which open samples may have the label that the model gives, [open].

    The model must be confident, and all of the nearest ``rules.neighbours`` labelled samples (fewer where there are
    fewer, more where several are as near as the last) must have that label: a model and its neighbours err in
    different ways.

    Args:
        probabilities: of the model, float64 [open, labels].
        points: float32 [open, features].
        anchors: labelled samples in the same space, float32 [anchors, features].
        anchor_classes: places of their labels, [anchors].
        rules: of the service.
    """
    if not len(points) or not len(anchors):
        return np.zeros(len(points), dtype=bool)
    answers = probabilities.argmax(axis=1)
    fine = np.zeros(len(points), dtype=bool)
    sure = np.flatnonzero(probabilities.max(axis=1) >= rules.confidence)
    for start in range(0, len(sure), _CHUNK):
        part = sure[start : start + _CHUNK]
        far = ~_nearest(points[part], anchors, min(rules.neighbours, len(anchors)))
        fine[part] = (far | (anchor_classes == answers[part, np.newaxis])).all(axis=1)
    return fine


def _nearest(points: NDArray[np.float32], anchors: NDArray[np.float32], count: int) -> NDArray[np.bool_]:
    """Whether an anchor is one of the ``count`` nearest of a point, or as near as the last, [points, anchors]."""
    away = (anchors**2).sum(axis=1) - 2 * points @ anchors.T
    return np.asarray(away <= np.partition(away, count - 1, axis=1)[:, count - 1 : count])


def in_turns(classes: Sequence[int], most: int, rng: np.random.Generator) -> list[int]:
    """Places of at most ``most`` samples, of each class as many as of any other while they last, sorted.

    Within a class they are drawn, not the surest first: those teach least. No class takes the place of the others,
    which is how a model that prefers one label talks itself into more of it.
    """
    order = rng.permutation(len(classes))
    turns: dict[int, int] = {}
    placed: list[tuple[int, int]] = []
    for at in order.tolist():
        turns[classes[at]] = turns.get(classes[at], -1) + 1
        placed.append((turns[classes[at]], at))
    return sorted(at for _, at in sorted(placed, key=lambda p: p[0])[:most])
