"""Incremental learning as KubeEdge Sedna does it, faults and all: the system to beat.

From Sedna's source: the node uploads hard examples in order of arrival; train and evaluation parts are cut in order of
arrival; nothing is replayed; the model is deployed when its metric on the uploaded evaluation part beats the serving
model's by ``metric_delta``; the next round starts from the last *trained* model, deployed or not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgeloop.bench.stream.policy import Batch, Choice, Method, Seen, as_head

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeloop.bench.stream.learner import Model


class Sedna(Method):
    """The filter ``CrossEntropy(0.5)``, 80 % to train and 20 % to evaluate, and a ``metric_delta`` of 0.1."""

    name: ClassVar[str] = "sedna"
    about: ClassVar[str] = "hard examples as they arrive, no replay, its own gate, from the last trained"
    audited: ClassVar[bool] = False
    own_gate: ClassVar[bool] = True
    HARD_BELOW: ClassVar[float] = 0.5
    TRAIN_SHARE: ClassVar[float] = 0.8
    METRIC_DELTA: ClassVar[float] = 0.1

    def begin(self, start: Batch) -> Model:
        self.last_trained = self.learner.fit(start.features, start.truth)
        return self.last_trained

    def choose(self, seen: Seen) -> Choice:
        hard = np.flatnonzero(cross_entropy(seen.probabilities) < self.HARD_BELOW).astype(np.intp)[: seen.upload]
        return Choice(hard, hard[: seen.ask])

    def learn(self, batch: Batch, deployed: Model) -> Model | None:
        cut = int(len(batch.truth) * self.TRAIN_SHARE)
        if not cut:
            return None
        self._held = batch.features[cut:], batch.truth[cut:]
        self.last_trained = self.learner.fit(batch.features[:cut], batch.truth[:cut], start=as_head(self.last_trained))
        return self.last_trained

    def promotes(self, candidate: Model, deployed: Model) -> bool:
        features, truth = self._held
        new, old = (
            float((m.probabilities(features).argmax(axis=1) == truth).mean()) if len(truth) else 0.0
            for m in (candidate, deployed)
        )
        return new - old > self.METRIC_DELTA


def cross_entropy(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sedna's score ``1 + sum(p ln p) / ln K``, [samples]: 1 for sure, 0 for no idea."""
    raised = np.maximum(probabilities, 1e-12)
    return np.asarray(1 + (raised * np.log(raised)).sum(axis=1) / np.log(probabilities.shape[1]))
