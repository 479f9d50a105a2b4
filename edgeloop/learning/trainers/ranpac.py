"""Random projection and ridge regression on features: strong without replay, and a head of kilobytes.

McDonnell et al. 2023, "RanPAC: Random projections and pre-trained models for continual learning". The random layer is
drawn again from its seed wherever the head is loaded; what was fitted is all that travels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgeloop.clients.model_heads import lift, projection, softmax
from edgeloop.clients.models import HiddenHead
from edgeloop.learning.trainers.protocol import Lesson

if TYPE_CHECKING:
    from numpy.typing import NDArray

_RIDGES = 10.0 ** np.arange(-4, 5)
_SHARPNESS = 2.0 ** np.arange(0, 6.5, 0.5)
_HELD_OUT = 0.2


@dataclass(frozen=True)
class RanPac:
    """The trainer; ``width`` is the number of random features.

    The ridge is chosen on a held-out fifth, and so is the factor that makes probabilities of the scores.
    """

    width: int = 2000
    balanced: bool = False

    def fit(
        self,
        features: NDArray[np.float32],
        truth: Sequence[str],
        labels: Sequence[str],
        sample_weight: NDArray[np.float64] | None = None,
        seed: int = 0,
    ) -> HiddenHead:
        """Fit on float32 [samples, features]. Raises what ``Lesson`` does."""
        lesson = Lesson(features, truth, labels, sample_weight, self.balanced)
        first = projection(seed, features.shape[1], self.width)
        bias = (-lesson.rows.mean(axis=0) @ first).astype(np.float32)
        # A rectified layer scales with its input, so that the spread of the features is left to the second layer.
        factor = features.shape[1] ** -0.5 / max(float(lesson.rows.std()), 1e-6)
        lifted = lift(features, first, bias) * factor
        targets = np.eye(len(lesson.present))[lesson.classes]
        ridge, sharpness = _choose(lifted, targets, lesson.weights, np.random.default_rng(seed))
        weights = _regression(lifted, targets, lesson.weights)(ridge)
        coef = weights.T * (factor * sharpness)
        return lesson.hidden(first, bias, coef, np.zeros(len(lesson.present)), seed)


def _choose(
    lifted: NDArray[np.float64], targets: NDArray[np.float64], weights: NDArray[np.float64], rng: np.random.Generator
) -> tuple[float, float]:
    """The ridge with the least weighted squared error on a held-out fifth, at least one sample; and the factor of its
    scores whose softmax gives the right answers there the most probability."""
    order = rng.permutation(len(lifted))
    cut = max(1, int(_HELD_OUT * len(lifted)))
    judged, fitted = order[:cut], order[cut:]
    solve = _regression(lifted[fitted], targets[fitted], weights[fitted])
    scores = [lifted[judged] @ solve(ridge) for ridge in _RIDGES.tolist()]
    misses = [weights[judged] @ ((found - targets[judged]) ** 2).sum(axis=1) for found in scores]
    best = int(np.argmin(misses))
    surprise = [weights[judged] @ _surprise(scores[best] * factor, targets[judged]) for factor in _SHARPNESS.tolist()]
    return float(_RIDGES[best]), float(_SHARPNESS[int(np.argmin(surprise))])


def _surprise(logits: NDArray[np.float64], targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """Minus the logarithm of the probability of each right answer, float64 [samples]."""
    return np.asarray(-np.log(np.maximum((softmax(logits) * targets).sum(axis=1), 1e-12)))


def _regression(
    lifted: NDArray[np.float64], targets: NDArray[np.float64], weights: NDArray[np.float64]
) -> Callable[[float], NDArray[np.float64]]:
    """Weighted ridge regression [n, width] -> [n, targets], as a function of the ridge.

    One eigendecomposition, of the smaller of samples and width, serves all ridges.
    """
    root = np.sqrt(weights)[:, np.newaxis]
    rows, wanted = lifted * root, targets * root
    is_wide = len(rows) < rows.shape[1]
    values, vectors = np.linalg.eigh(rows @ rows.T if is_wide else rows.T @ rows)
    aims = vectors.T @ (wanted if is_wide else rows.T @ wanted)
    back = rows.T @ vectors if is_wide else vectors

    def solve(ridge: float) -> NDArray[np.float64]:
        return np.asarray(back @ (aims / (np.maximum(values, 0) + ridge)[:, np.newaxis]))

    return solve
