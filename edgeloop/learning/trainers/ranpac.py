"""Random projection and ridge regression on features: strong without replay, and too large for a node.

McDonnell et al. 2023, "RanPAC: Random projections and pre-trained models for continual learning". Its answers are not
linear in the features, so that a node could not run it as a head: it is a yardstick.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgeloop.learning.trainers.protocol import Lesson

if TYPE_CHECKING:
    from numpy.typing import NDArray

_RIDGES = 10.0 ** np.arange(-4, 5)
_HELD_OUT = 0.2


@dataclass(frozen=True)
class ProjectedRidge:
    """A fitted RanPAC: scores ``relu((x - m) / s @ P) @ W`` of the labels that occur."""

    labels: tuple[str, ...]
    present: tuple[int, ...]
    """Places in ``labels`` of the labels that occur."""
    centre: NDArray[np.float64]
    scale: float
    projection: NDArray[np.float64]
    """[features, width]."""
    weights: NDArray[np.float64]
    """[width, present]."""

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Softmax of the scores, float64 [n, labels]: its order is right, its confidence is not calibrated."""
        scores = self.lift(features.astype(np.float64)) @ self.weights
        out = np.zeros((len(features), len(self.labels)))
        exp = np.exp(scores - scores.max(axis=1, keepdims=True))
        out[:, self.present] = exp / exp.sum(axis=1, keepdims=True)
        return out

    def lift(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Rows [n, features] -> float64 [n, width]."""
        return np.maximum((rows - self.centre) / self.scale @ self.projection, 0)


@dataclass(frozen=True)
class RanPac:
    """The trainer; ``width`` is the number of random features. The ridge is chosen on a held-out fifth."""

    width: int = 2000
    balanced: bool = False

    def fit(
        self,
        features: NDArray[np.float32],
        truth: Sequence[str],
        labels: Sequence[str],
        sample_weight: NDArray[np.float64] | None = None,
        seed: int = 0,
    ) -> ProjectedRidge:
        """Fit on float32 [samples, features]. Raises what ``Lesson`` does."""
        lesson = Lesson(features, truth, labels, sample_weight, self.balanced)
        rng = np.random.default_rng(seed)
        projection = rng.normal(0, lesson.rows.shape[1] ** -0.5, (lesson.rows.shape[1], self.width))
        present = tuple(lesson.labels.index(label) for label in lesson.present)
        scale = max(float(lesson.rows.std()), 1e-6)
        bare = ProjectedRidge(
            lesson.labels, present, lesson.rows.mean(axis=0), scale, projection, np.zeros((self.width, len(present)))
        )
        lifted = bare.lift(lesson.rows)
        targets = np.eye(len(present))[lesson.classes]
        ridge = _choose_ridge(lifted, targets, lesson.weights, rng)
        weights = _regression(lifted, targets, lesson.weights)(ridge)
        return ProjectedRidge(lesson.labels, present, bare.centre, scale, projection, weights)


def _choose_ridge(
    lifted: NDArray[np.float64], targets: NDArray[np.float64], weights: NDArray[np.float64], rng: np.random.Generator
) -> float:
    """The ridge with the least weighted squared error on a held-out fifth, at least one sample."""
    order = rng.permutation(len(lifted))
    cut = max(1, int(_HELD_OUT * len(lifted)))
    judged, fitted = order[:cut], order[cut:]
    solve = _regression(lifted[fitted], targets[fitted], weights[fitted])
    misses = [((lifted[judged] @ solve(ridge) - targets[judged]) ** 2).sum(axis=1) for ridge in _RIDGES.tolist()]
    return float(_RIDGES[int(np.argmin([weights[judged] @ miss for miss in misses]))])


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
