"""Incremental learning as KubeEdge Sedna does it, faults and all: the system to beat.

Read from Sedna's source at commit 2c30e56, file by file:

- ``lib/sedna/core/incremental_learning/incremental_learning.py``, ``inference``: the filter sees one result at a time,
  so what is hard is sent in order of arrival.
- ``lib/sedna/algorithms/hard_example_mining/hard_example_mining.py``: ``CrossEntropyFilter``, hard where
  ``1 + sum(p ln p) / ln K < 0.5``, and ``RandomFilter``, which sends with probability 0.3. Its filters for detections
  (``Threshold``, ``IBT``) have no meaning here.
- ``pkg/localcontroller/managers/incrementallearning/incrementallearningjob.go``: ``handleData`` gives the first
  ``int(trainProb * n)`` of each batch to training and the rest to evaluation; ``forwardSamples`` drops the training
  part once it was used, so nothing is replayed, and keeps the evaluation parts of five batches for the next one;
  ``triggerTrainTask`` starts from the newest *trained* model, deployed or not; ``triggerEvalTask`` evaluates it and
  the deployed one on the parts kept and the newest; ``triggerDeployTask`` takes the difference of their metrics.
- ``pkg/localcontroller/trigger/trigger.go``: ``>`` holds where the difference exceeds the threshold and does not equal
  it to within 1e-6.
- ``examples/incremental_learning/*/*.yaml``: ``trainProb`` 0.8, and deployed where ``precision_delta > 0.1``.

Where Sedna leaves a choice it is given the better one. The trigger ``num_of_samples`` is met in every round. The
metric, precision over all answers, is the accuracy here; it is read as a number, while the trigger reads the list that
``precision_delta`` is without an index as 0 and would never deploy. The logarithm of a probability of 0, at which the
filter raises, counts 0. Sedna takes all that is sent for labelled; where there are fewer labels they are spread over
it, which does better than labelling the first to arrive.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgeloop.bench.stream.policy import Batch, Choice, Method, Seen, as_head

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeloop.bench.stream.learner import Model, RidgeHead

#: Differences that Sedna's trigger takes for none.
_EQUAL = 1e-6


class Sedna(Method):
    """The filter ``CrossEntropy(0.5)``, 80 % to train and 20 % to evaluate, and a ``metric_delta`` of 0.1."""

    name: ClassVar[str] = "sedna"
    about: ClassVar[str] = "hard examples as they arrive, no replay, its own gate, from the last trained"
    audited: ClassVar[bool] = False
    own_gate: ClassVar[bool] = True
    HARD_BELOW: ClassVar[float] = 0.5
    TRAIN_SHARE: ClassVar[float] = 0.8
    METRIC_DELTA: ClassVar[float] = 0.1
    EVALUATED: ClassVar[int] = 6
    """Batches whose evaluation parts are used: five kept and the newest."""

    def begin(self, start: Batch) -> Model:
        self._held: deque[tuple[NDArray[np.float32], NDArray[np.int64]]] = deque(maxlen=self.EVALUATED)
        self.last_trained: RidgeHead = self.learner.fit(start.features, start.truth)
        return self.last_trained

    def choose(self, seen: Seen) -> Choice:
        hard = np.flatnonzero(cross_entropy(seen.probabilities) < self.HARD_BELOW).astype(np.intp)[: seen.upload]
        return Choice(hard, spread(hard, seen.ask))

    def learn(self, batch: Batch, deployed: Model) -> Model | None:
        if not len(batch.truth):
            return None
        cut = int(len(batch.truth) * self.TRAIN_SHARE)
        self._held.append((batch.features[cut:], batch.truth[cut:]))
        if not cut:
            return None
        self.last_trained = self.learner.fit(batch.features[:cut], batch.truth[:cut], start=as_head(self.last_trained))
        return self.last_trained

    def promotes(self, candidate: Model, deployed: Model) -> bool:
        features = np.vstack([held for held, _ in self._held])
        truth = np.concatenate([held for _, held in self._held])
        new, old = (float((m.probabilities(features).argmax(axis=1) == truth).mean()) for m in (candidate, deployed))
        return exceeds(new - old, self.METRIC_DELTA)


class SednaRandom(Sedna):
    """The filter ``Random(0.3)``, as in Sedna's example of dogs and croissants."""

    name: ClassVar[str] = "sedna-random"
    about: ClassVar[str] = "sedna with its filter Random(0.3)"
    RATIO: ClassVar[float] = 0.3

    def choose(self, seen: Seen) -> Choice:
        sent = np.flatnonzero(self.rng.random(len(seen.features)) < self.RATIO).astype(np.intp)[: seen.upload]
        return Choice(sent, spread(sent, seen.ask))


class SednaEager(SednaRandom):
    """The same, deployed as soon as it is better at all: what a careful user of Sedna would set."""

    name: ClassVar[str] = "sedna-eager"
    about: ClassVar[str] = "sedna-random, deployed when better at all on its evaluation part"
    METRIC_DELTA: ClassVar[float] = 0.0


def cross_entropy(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sedna's score ``1 + sum(p ln p) / ln K``, [samples]: 1 for sure, 0 for no idea."""
    raised = np.maximum(probabilities, 1e-12)
    return np.asarray(1 + (raised * np.log(raised)).sum(axis=1) / np.log(probabilities.shape[1]))


def exceeds(difference: float, threshold: float) -> bool:
    """Sedna's ``>``: what is equal to within 1e-6 is not more."""
    return difference > threshold and abs(difference - threshold) >= _EQUAL


def spread(sent: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """At most ``count`` of the positions, at equal steps, in their order."""
    if count >= len(sent):
        return sent
    return sent[np.linspace(0, len(sent) - 1, count).astype(np.intp)]
