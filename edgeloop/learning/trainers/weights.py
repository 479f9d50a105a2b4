"""How much each sample counts: against the bias of selection, and against labels that are rare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgeloop.errors import BadInput

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: A sample counts at most this many times as much as the one that was surest to be selected.
MOST = 20.0


class UnusableWeights(BadInput):
    """Weights or probabilities of selection that no sample can have."""


def importance_weights(probability: NDArray[np.float64], most: float = MOST) -> NDArray[np.float64]:
    """Weights of samples that were selected with these probabilities: 1/p, clipped, of mean one. float64 [samples].

    Horvitz and Thompson 1952; clipping trades a little bias for much less variance (Ionides 2008,
    doi:10.1198/106186008X320456). ``most`` is the largest ratio of two weights; 1 makes all equal.

    Raises:
        UnusableWeights: a probability is not in (0, 1], or ``most`` is below one.
    """
    p = np.asarray(probability, dtype=np.float64)
    if not ((p > 0) & (p <= 1)).all() or most < 1:
        raise UnusableWeights(
            f"{len(p)} probabilities of selection, clipped at {most}: each must be in (0, 1], the clip at least 1"
        )
    if len(p) == 0:
        return p
    weights = 1 / np.maximum(p, p.max() / most)
    return np.asarray(weights / weights.mean())


def final_weights(
    truth: Sequence[str], sample_weight: NDArray[np.float64] | None, balanced: bool
) -> NDArray[np.float64] | None:
    """Weights of mean one; ``balanced`` gives all labels that occur the same total. None if all are equal.

    Raises:
        UnusableWeights: not one positive finite number a sample.
    """
    if sample_weight is None and not balanced:
        return None
    weights = np.ones(len(truth)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    if weights.shape != (len(truth),) or not (np.isfinite(weights) & (weights > 0)).all():
        raise UnusableWeights(f"weights {weights.shape} of {len(truth)} samples: give each one positive finite number")
    if balanced:
        _, classes = np.unique(np.asarray(truth), return_inverse=True)
        weights = weights / np.bincount(classes, weights)[classes]
    return np.asarray(weights / weights.mean())
