"""edgeloop's policy: ask where it tells most, replay all, and take an unlabelled neighbour's word when two agree.

Labels are chosen as the most central sample of each cluster of what was sent (typical first, as TypiClust, Hacohen et
al. 2022), the clusters drawn towards what the model is unsure of. A pseudo-label counts only where the head and the
nearest labelled samples say the same. How much the new weighs, and whether pseudo-labels help at all, is settled by
cross-validation on labelled samples of the pool.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgeloop.bench.stream.methods.baselines import Remembering
from edgeloop.bench.stream.methods.closed import unit
from edgeloop.bench.stream.policy import Batch, Choice, Seen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeloop.bench.stream.learner import Model, RidgeHead


@dataclass(frozen=True)
class _Recipe:
    new_weight: float
    with_pseudo: bool


class Ours(Remembering):
    """Typical and unsure labels, an audit, uniform replay, anchored pseudo-labels."""

    name: ClassVar[str] = "ours"
    about: ClassVar[str] = "typical and unsure labels, replay of all, pseudo-labels where head and neighbours agree"
    RECIPES: ClassVar[tuple[_Recipe, ...]] = tuple(_Recipe(w, p) for p in (False, True) for w in (1.0, 4.0, 12.0))
    PSEUDO_WEIGHT: ClassVar[float] = 0.5
    NEIGHBOURS: ClassVar[int] = 3
    FOLDS: ClassVar[int] = 3
    SENT: ClassVar[float] = 0.6
    """Share of the upload allowance that is used: what is not labelled helps little, and bytes are counted."""

    def begin(self, start: Batch) -> Model:
        self._strangers = np.zeros((0, start.features.shape[1]), np.float32)
        return super().begin(start)

    def choose(self, seen: Seen) -> Choice:
        """The upload is uniform, and less than it may be; labels are asked for across all of it."""
        sent = self.rng.permutation(len(seen.features)).astype(np.intp)[: max(seen.ask, int(self.SENT * seen.upload))]
        unsure = 1 - _margin(seen.probabilities[sent])
        picked = _typical(unit(seen.features[sent]), 0.1 + unsure, min(seen.ask, len(sent)), self.rng)
        return Choice(sent, sent[picked])

    def learn(self, batch: Batch, deployed: Model) -> Model | None:
        if not len(batch.truth):
            return None
        self.keep(batch)
        self._strangers = np.vstack([self._strangers, batch.unlabelled])
        everything = np.arange(len(self.truth))
        return self._fit(self._best_recipe(), everything)

    def _best_recipe(self) -> _Recipe:
        """By accuracy on held-out labelled samples of the pool, every bucket with the same weight."""
        folds = np.array_split(self.rng.permutation(len(self.truth)), self.FOLDS)
        share = 1 / np.maximum(np.bincount(self.births), 1)[self.births]
        right = np.zeros(len(self.RECIPES))
        for fold in folds:
            kept = np.setdiff1d(np.arange(len(self.truth)), fold)
            for number, recipe in enumerate(self.RECIPES):
                answers = self._fit(recipe, kept).probabilities(self.features[fold]).argmax(axis=1)
                right[number] += float(share[fold] @ (answers == self.truth[fold]))
        return self.RECIPES[int(np.argmax(right))]

    def _fit(self, recipe: _Recipe, kept: NDArray[np.intp]) -> RidgeHead:
        features, truth = self.features[kept], self.truth[kept]
        weights = np.where(self.births[kept] > 0, recipe.new_weight, 1.0).astype(np.float32)
        head = self.learner.fit(features, truth, weights)
        if not recipe.with_pseudo or not len(self._strangers):
            return head
        agreed, pseudo = self._agreed(head, features, truth)
        return self.learner.fit(
            np.vstack([features, self._strangers[agreed]]),
            np.concatenate([truth, pseudo]),
            np.concatenate([weights, np.full(len(pseudo), recipe.new_weight * self.PSEUDO_WEIGHT, np.float32)]),
        )

    def _agreed(
        self, head: RidgeHead, features: NDArray[np.float32], truth: NDArray[np.int64]
    ) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """Unlabelled samples whose nearest labelled ones all say what the head says, and what that is."""
        answers = head.probabilities(self._strangers).argmax(axis=1)
        count = min(self.NEIGHBOURS, len(truth) - 1)
        near = np.argpartition(-(unit(self._strangers) @ unit(features).T), count, axis=1)[:, :count]
        agree = (truth[near] == answers[:, None]).all(axis=1)
        return np.flatnonzero(agree), answers[agree].astype(np.int64)


def _margin(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Best minus second best, [samples]."""
    best = np.partition(probabilities, -2, axis=1)
    return np.asarray(best[:, -1] - best[:, -2])


def _typical(
    features: NDArray[np.float32], weights: NDArray[np.float64], count: int, rng: np.random.Generator
) -> NDArray[np.intp]:
    """The sample nearest to each of ``count`` weighted cluster centres, [count], none twice."""
    import warnings

    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    if count >= len(features) or not count:
        return np.arange(len(features), dtype=np.intp)[:count]
    seed = int(rng.integers(2**31))
    clusters = KMeans(count, n_init=1, max_iter=25, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # equal samples make fewer clusters, which is no harm
        distances = clusters.fit_transform(features, sample_weight=weights)
    picked: list[int] = []
    for centre in range(count):
        order = np.argsort(distances[:, centre], kind="stable")
        picked.append(next(int(i) for i in order if int(i) not in picked))
    return np.array(picked, np.intp)
