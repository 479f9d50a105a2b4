"""What people do today when data drifts: nothing, fine-tune, replay, retrain on everything, start over."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgeloop.bench.stream.policy import Batch, Choice, Method, Seen, as_head, no_choice

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeloop.bench.stream.learner import Model


class Frozen(Method):
    """The model of the labelled start, for ever."""

    name: ClassVar[str] = "frozen"
    about: ClassVar[str] = "never changes"
    audited: ClassVar[bool] = False

    def choose(self, seen: Seen) -> Choice:
        return no_choice()

    def learn(self, batch: Batch, deployed: Model) -> Model | None:
        return None


class FineTuneNew(Method):
    """From the last promoted model, on the new labels only."""

    name: ClassVar[str] = "finetune-new"
    about: ClassVar[str] = "random labels, new ones only, from the last promoted"

    def learn(self, batch: Batch, deployed: Model) -> Model | None:
        if not len(batch.truth):
            return None
        return self.learner.fit(batch.features, batch.truth, start=as_head(deployed))


class Remembering(Method):
    """Keeps every labelled sample that came."""

    def begin(self, start: Batch) -> Model:
        self.features, self.truth = start.features, start.truth
        self.births = np.full(len(start.truth), start.number)
        return super().begin(start)

    def keep(self, batch: Batch) -> None:
        """Add a batch's labelled samples to the memory."""
        self.features = np.vstack([self.features, batch.features])
        self.truth = np.concatenate([self.truth, batch.truth])
        self.births = np.concatenate([self.births, np.full(len(batch.truth), batch.number)])


class Random(Remembering):
    """Plain replay of all labels, which are asked for at random."""

    name: ClassVar[str] = "random"
    about: ClassVar[str] = "random labels, from scratch on all labels so far"

    def learn(self, batch: Batch, deployed: Model) -> Model | None:
        if not len(batch.truth):
            return None
        self.keep(batch)
        return self.learner.fit(self.features, self.truth)


class Joint(Random):
    """Retrained from scratch on the whole labelled pool so far, and deployed unasked: the upper bound."""

    name: ClassVar[str] = "joint"
    about: ClassVar[str] = "every label of every pool, from scratch, no gate (upper bound)"
    unlimited: ClassVar[bool] = True
    own_gate: ClassVar[bool] = True

    def promotes(self, candidate: Model, deployed: Model) -> bool:
        return True


class ExperienceReplay(Method):
    """Half of the weight on new samples, half on a reservoir of old ones (Vitter 1985; Chaudhry et al. 2019)."""

    name: ClassVar[str] = "er"
    about: ClassVar[str] = "random labels, half new half reservoir, from the last promoted"
    RESERVOIR: ClassVar[int] = 200

    def begin(self, start: Batch) -> Model:
        self.offered = 0
        self.features = np.zeros((0, start.features.shape[1]), np.float32)
        self.truth = np.zeros(0, np.int64)
        self._offer(start)
        return super().begin(start)

    def _offer(self, batch: Batch) -> None:
        """Each sample ever offered is in the reservoir with the same probability."""
        for row, label in zip(batch.features, batch.truth, strict=True):
            self.offered += 1
            if len(self.truth) < self.RESERVOIR:
                self.features, self.truth = np.vstack([self.features, row]), np.append(self.truth, label)
            elif (slot := int(self.rng.integers(self.offered))) < self.RESERVOIR:
                self.features[slot], self.truth[slot] = row, label

    def learn(self, batch: Batch, deployed: Model) -> Model | None:
        if not len(batch.truth):
            return None
        features = np.vstack([batch.features, self.features])
        weights = half_and_half(len(batch.truth), len(self.truth))
        truth = np.concatenate([batch.truth, self.truth])
        candidate = self.learner.fit(features, truth, weights, as_head(deployed))
        self._offer(batch)
        return candidate


def half_and_half(new: int, old: int) -> NDArray[np.float32]:
    """Weights of ``new`` then ``old`` samples, of mean 1, whose two sums are equal."""
    half = (new + old) / 2
    return np.concatenate([np.full(new, half / new), np.full(old, half / max(old, 1))]).astype(np.float32)


class Reset(Method):
    """Fine-tunes on new labels, and each second round starts from the first model (RDumb, Press et al. 2023)."""

    name: ClassVar[str] = "reset"
    about: ClassVar[str] = "random labels, new ones only, from the first model every second round"
    PERIOD: ClassVar[int] = 2

    def begin(self, start: Batch) -> Model:
        self.first = self.learner.fit(start.features, start.truth)
        self.rounds = 0
        return self.first

    def learn(self, batch: Batch, deployed: Model) -> Model | None:
        if not len(batch.truth):
            return None
        self.rounds += 1
        base = self.first if self.rounds % self.PERIOD == 0 else as_head(deployed)
        return self.learner.fit(batch.features, batch.truth, start=base)
