"""The one learner that all policies share, so that only the policy differs: a ridge head that can start from another.

Minimises ``sum w_i |x_i W - y_i|^2 + strength |W - start|^2`` in closed form, over one-hot (or soft) targets. With
``start`` zero this is training from scratch (the head of RanPAC, McDonnell et al. 2023); with the head that serves it
is fine-tuning that stays near it. Where samples are fewer than features the dual is solved, which costs their cube.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from edgeloop.clients.model_heads import softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

STRENGTHS = (10.0, 100.0, 300.0, 1000.0, 3000.0)
_SHARPNESS = (2.0, 4.0, 6.0, 8.0, 12.0)


class Model(Protocol):
    """What answers: probabilities float64 [samples, labels] for features float32 [samples, features]."""

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float64]: ...


@dataclass(frozen=True)
class RidgeHead:
    """A linear map and how sharply its scores become probabilities."""

    weights: NDArray[np.float32]
    """[features, labels]"""
    sharpness: float

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Softmax of the sharpened scores, float64 [samples, labels]."""
        return softmax((features @ self.weights).astype(np.float64) * self.sharpness)


@dataclass(frozen=True)
class Learner:
    """Fits heads; strength and sharpness are settled once, on the labelled start."""

    labels: int
    strength: float
    sharpness: float

    def fit(
        self,
        features: NDArray[np.float32],
        truth: NDArray[np.int64],
        weights: NDArray[np.float32] | None = None,
        start: RidgeHead | None = None,
    ) -> RidgeHead:
        """Fit a head on features [samples, features] and label numbers [samples], from scratch or from ``start``."""
        targets = np.eye(self.labels, dtype=np.float32)[truth]
        base = np.zeros((features.shape[1], self.labels), np.float32) if start is None else start.weights
        root = np.ones(len(features), np.float32) if weights is None else np.sqrt(weights)
        scaled = features * root[:, None]
        wanted = targets * root[:, None] - scaled @ base
        return RidgeHead(base + _solve(scaled, wanted, self.strength), self.sharpness)


def _solve(scaled: NDArray[np.float32], wanted: NDArray[np.float32], strength: float) -> NDArray[np.float32]:
    samples, width = scaled.shape
    dual = samples < width
    gram = scaled @ scaled.T if dual else scaled.T @ scaled
    gram[np.diag_indices_from(gram)] += strength
    if dual:
        return np.asarray(scaled.T @ np.linalg.solve(gram, wanted), np.float32)
    return np.asarray(np.linalg.solve(gram, scaled.T @ wanted), np.float32)


def make_learner(features: NDArray[np.float32], truth: NDArray[np.int64], labels: int, seed: int) -> Learner:
    """Choose strength by accuracy and sharpness by likelihood on a quarter of the start's pool, held out."""
    order = np.random.default_rng([3, seed]).permutation(len(features))
    held, kept = order[: max(1, len(order) // 4)], order[max(1, len(order) // 4) :]
    heads = [Learner(labels, s, 1.0).fit(features[kept], truth[kept]) for s in STRENGTHS]
    right = [float((h.probabilities(features[held]).argmax(axis=1) == truth[held]).mean()) for h in heads]
    best = int(np.argmax(right))
    scores = (features[held] @ heads[best].weights).astype(np.float64)
    losses = [-np.log(softmax(scores * k)[np.arange(len(held)), truth[held]] + 1e-12).mean() for k in _SHARPNESS]
    return Learner(labels, STRENGTHS[best], _SHARPNESS[int(np.argmin(losses))])
