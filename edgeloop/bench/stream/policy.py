"""What a method may know and must answer; the protocol hands out nothing else, so no method can read gate or test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgeloop.bench.stream.learner import Learner, Model, RidgeHead

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Seen:
    """A bucket's pool as the node sees it, in arrival order, without its labels."""

    number: int
    features: NDArray[np.float32]
    probabilities: NDArray[np.float64]
    """Of the deployed model, [samples, labels]."""
    upload: int
    """Samples that may be sent, at most."""
    ask: int
    """Samples among them whose label may be asked for, at most."""


@dataclass(frozen=True)
class Choice:
    """Positions in the pool: what is sent, and which of it is labelled."""

    upload: NDArray[np.intp]
    ask: NDArray[np.intp]


@dataclass(frozen=True)
class Batch:
    """What comes back of a bucket: labelled samples (those of the audit among them) and the others that were sent."""

    number: int
    features: NDArray[np.float32]
    truth: NDArray[np.int64]
    unlabelled: NDArray[np.float32]


class Method:
    """A policy; subclasses say what they send, what they ask and how they learn."""

    name: ClassVar[str]
    about: ClassVar[str]
    audited: ClassVar[bool] = True
    """A uniform 1 % is labelled beside the choice; a method without gets as many more labels to choose."""
    unlimited: ClassVar[bool] = False
    """Gets every label: an upper bound, not a policy."""
    own_gate: ClassVar[bool] = False
    """Promotes by :meth:`promotes` instead of by the gate."""

    def __init__(self, learner: Learner, rng: np.random.Generator) -> None:
        self.learner = learner
        self.rng = rng

    def begin(self, start: Batch) -> Model:
        """The first model, from the labelled start."""
        return self.learner.fit(start.features, start.truth)

    def choose(self, seen: Seen) -> Choice:
        """Uniform upload, uniform labels."""
        drawn = self.rng.permutation(len(seen.features)).astype(np.intp)
        return Choice(drawn[: seen.upload], drawn[: min(seen.ask, seen.upload)])

    def learn(self, batch: Batch, deployed: Model) -> Model | None:
        """A candidate, or None for none."""
        raise NotImplementedError

    def promotes(self, candidate: Model, deployed: Model) -> bool:
        """For ``own_gate``: whether the candidate is deployed."""
        raise NotImplementedError


def no_choice() -> Choice:
    """Send and ask nothing."""
    return Choice(np.zeros(0, np.intp), np.zeros(0, np.intp))


def as_head(model: Model) -> RidgeHead:
    """The head to go on from; methods of the shared learner deploy nothing else."""
    assert isinstance(model, RidgeHead)
    return model
