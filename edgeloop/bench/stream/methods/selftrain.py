"""Learning from the model's own sure answers: bare, and held by labelled anchors and replay."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgeloop.bench.stream.methods.baselines import Remembering
from edgeloop.bench.stream.policy import Batch, Choice, Method, Seen, as_head

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeloop.bench.stream.learner import Model

#: Confidence from which an own answer is taken for a label.
SURE = 0.95


def surest(seen: Seen) -> NDArray[np.intp]:
    """Positions of the sure, the surest first, as many as may be sent."""
    confidence = seen.probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    return np.asarray(order[confidence[order] >= SURE][: seen.upload], np.intp)


class SelfTraining(Method):
    """No label at all: fits the deployed model to its own sure answers."""

    name: ClassVar[str] = "selftrain"
    about: ClassVar[str] = "no labels: own answers of confidence 0.95 and more, from the last promoted"
    audited: ClassVar[bool] = False

    def choose(self, seen: Seen) -> Choice:
        return Choice(surest(seen), np.zeros(0, np.intp))

    def learn(self, batch: Batch, deployed: Model) -> Model | None:
        sure, pseudo = sure_answers(batch.unlabelled, deployed)
        return self.learner.fit(sure, pseudo, start=as_head(deployed)) if len(pseudo) else None


class AnchoredSelfTraining(Remembering):
    """Own sure answers, beside random labels and everything that was labelled before."""

    name: ClassVar[str] = "selftrain-anchored"
    about: ClassVar[str] = "random labels and replay beside own answers of confidence 0.95 and more"

    def choose(self, seen: Seen) -> Choice:
        asked = self.rng.permutation(len(seen.features))[: seen.ask].astype(np.intp)
        rest = surest(seen)
        rest = rest[~np.isin(rest, asked)][: seen.upload - len(asked)]
        return Choice(np.concatenate([asked, rest]), asked)

    def learn(self, batch: Batch, deployed: Model) -> Model | None:
        if not len(batch.truth):
            return None
        self.keep(batch)
        sure, pseudo = sure_answers(batch.unlabelled, deployed)
        return self.learner.fit(np.vstack([self.features, sure]), np.concatenate([self.truth, pseudo]))


def sure_answers(features: NDArray[np.float32], model: Model) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Those that the model is sure of, and its answers."""
    probabilities = model.probabilities(features)
    sure = probabilities.max(axis=1, initial=0) >= SURE
    return features[sure], probabilities[sure].argmax(axis=1).astype(np.int64)
