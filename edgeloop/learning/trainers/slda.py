"""Linear discriminant analysis on features: means and one covariance, as Deep SLDA keeps them of a stream.

Hayes and Kanan 2020, "Lifelong machine learning with deep streaming linear discriminant analysis". Means and
covariance are sums over samples, so that fitting them in one go or one by one is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgeloop.clients.models import LinearHead
from edgeloop.learning.trainers.protocol import Lesson

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class StreamingLda:
    """Classes as clouds of one shape: logit ``x.Pmu - mu.Pmu / 2 + log prior``, P the inverse shrunk covariance.

    The covariance within classes is mixed with ``shrinkage`` parts of a round one of the same mean variance.
    ``balanced`` gives all labels the same weight, in the covariance and as a prior.
    """

    shrinkage: float = 0.01
    balanced: bool = False

    def fit(
        self,
        features: NDArray[np.float32],
        truth: Sequence[str],
        labels: Sequence[str],
        sample_weight: NDArray[np.float64] | None = None,
        seed: int = 0,
    ) -> LinearHead:
        """Fit on float32 [samples, features]; ``seed`` changes nothing. Raises what ``Lesson`` does."""
        lesson = Lesson(features, truth, labels, sample_weight, self.balanced)
        means = lesson.means()
        centre = lesson.rows.mean(axis=0)
        off = lesson.rows - means[lesson.classes]
        covariance = (off * lesson.weights[:, np.newaxis]).T @ off / lesson.weights.sum()
        mean_variance = max(float(np.trace(covariance)) / len(covariance), 1e-6)
        covariance *= 1 - self.shrinkage
        covariance[np.diag_indices_from(covariance)] += self.shrinkage * mean_variance
        moved = means - centre
        coef = np.linalg.solve(covariance, moved.T).T
        prior = np.log(lesson.masses / lesson.masses.sum())
        return lesson.head(coef, prior - (coef * moved).sum(axis=1) / 2 - coef @ centre)
