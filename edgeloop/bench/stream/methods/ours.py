"""edgeloop's policy: ask where it tells most, replay all, and believe an unlabelled sample where graph and head agree.

What is sent is uniform. Labels are asked for the most central sample of each cluster of it (typical first, as
TypiClust, Hacohen et al. 2022), the clusters drawn towards what the model is unsure of. A pseudo-label counts only
where the head and label spreading among the samples of the bucket say the same, and no pseudo-label counts where the
head is wrong too often. The kind of head, how much the new weighs, and whether pseudo-labels help at all, are settled
one after the other by cross-validation on labelled samples of the pool.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgeloop.bench.stream.methods.baselines import Remembering
from edgeloop.bench.stream.methods.closed import unit
from edgeloop.bench.stream.methods.kinds import affordable, fit_kind
from edgeloop.bench.stream.methods.spreading import spread_labels
from edgeloop.bench.stream.policy import Batch, Choice, Seen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeloop.bench.stream.learner import Model, RidgeHead


@dataclass(frozen=True)
class Recipe:
    """How a candidate is fitted."""

    kind: str = "ridge"
    new_weight: float = 4.0
    """Of a labelled sample that came after the start."""
    pseudo_weight: float = 0.0
    """Of a pseudo-label, as a part of that; 0 for none."""


class Ours(Remembering):
    """Typical and unsure labels, an audit, uniform replay, anchored pseudo-labels."""

    name: ClassVar[str] = "ours"
    about: ClassVar[str] = "typical and unsure labels, replay of all, pseudo-labels where head and graph agree"
    WEIGHTS: ClassVar[tuple[float, ...]] = (4.0, 1.0, 12.0)
    """The first is what is taken unless another is clearly better; so below."""
    PSEUDO: ClassVar[tuple[float, ...]] = (0.5, 0.0)
    TRUSTED: ClassVar[float] = 0.75
    """Least accuracy on held-out labels that came after the start: from a worse teacher nothing is learned."""
    FOLDS: ClassVar[int] = 3
    SENT: ClassVar[tuple[float, float, float]] = (0.6, 0.45, 0.85)
    """Share of the upload allowance that is used: at first, where pseudo-labels were of no use, and where they were."""
    ASKED: ClassVar[float] = 0.85
    """Share of the labels that is asked for: as little as Sedna's filter leaves to ask where it is sure of much."""

    def begin(self, start: Batch) -> Model:
        self._strangers: dict[int, NDArray[np.float32]] = {}
        self._share = self.SENT[0]
        return super().begin(start)

    def choose(self, seen: Seen) -> Choice:
        """The upload is uniform, and as large as the unlabelled part of it was of use; labels are asked across all."""
        ask = int(self.ASKED * seen.ask)
        sent = self.rng.permutation(len(seen.features)).astype(np.intp)[: max(ask, int(self._share * seen.upload))]
        unsure = 1 - _margin(seen.probabilities[sent])
        picked = _typical(unit(seen.features[sent]), 0.1 + unsure, min(ask, len(sent)), self.rng)
        return Choice(sent, sent[picked])

    def learn(self, batch: Batch, deployed: Model) -> Model | None:
        if not len(batch.truth):
            return None
        self.keep(batch)
        self._strangers[batch.number] = batch.unlabelled
        recipe = self._settled()
        self._share = self.SENT[2] if recipe.pseudo_weight else self.SENT[1]
        return self._fit(recipe, np.arange(len(self.truth)))

    def _settled(self) -> Recipe:
        """One choice after the other, since all together would cost their product."""
        folds = np.array_split(self.rng.permutation(len(self.truth)), self.FOLDS)
        recipe = Recipe()
        kinds = affordable(self.features, self.learner.labels)
        recipe = self._best([replace(recipe, kind=kind) for kind in kinds], folds, doubt=0.0)
        recipe = self._best([replace(recipe, new_weight=weight) for weight in self.WEIGHTS], folds)
        came = self.births > 0
        if self._held_out(recipe, folds)[came].mean() < self.TRUSTED:
            return recipe
        return self._best([replace(recipe, pseudo_weight=weight) for weight in self.PSEUDO], folds)

    def _best(self, recipes: list[Recipe], folds: list[NDArray[np.intp]], doubt: float = 1.0) -> Recipe:
        """The first, unless another is better by ``doubt`` standard errors on held-out labels, all buckets alike."""
        if len(recipes) == 1:
            return recipes[0]
        share = 1 / np.maximum(np.bincount(self.births), 1)[self.births]
        right = np.stack([self._held_out(recipe, folds) for recipe in recipes]).astype(np.float64)
        gains = (right - right[0]) * share
        clear = gains.sum(axis=1) - doubt * np.sqrt((gains**2).sum(axis=1))
        return recipes[int(np.argmax(np.where(clear > 0, gains.sum(axis=1), 0)))]

    def _held_out(self, recipe: Recipe, folds: list[NDArray[np.intp]]) -> NDArray[np.bool_]:
        """Right answers on each labelled sample by a head that did not learn from it, [samples]."""
        right = np.zeros(len(self.truth), np.bool_)
        for fold in folds:
            head = self._fit(recipe, np.setdiff1d(np.arange(len(self.truth)), fold))
            right[fold] = head.probabilities(self.features[fold]).argmax(axis=1) == self.truth[fold]
        return right

    def _fit(self, recipe: Recipe, kept: NDArray[np.intp]) -> RidgeHead:
        features, truth = self.features[kept], self.truth[kept]
        weights = np.where(self.births[kept] > 0, recipe.new_weight, 1.0).astype(np.float32)
        head = fit_kind(recipe.kind, self.learner, features, truth, weights)
        if not recipe.pseudo_weight:
            return head
        more, answers = self._agreed(head, kept)
        worth = np.full(len(answers), recipe.new_weight * recipe.pseudo_weight, np.float32)
        return fit_kind(
            recipe.kind,
            self.learner,
            np.vstack([features, more]),
            np.concatenate([truth, answers]),
            np.concatenate([weights, worth]),
        )

    def _agreed(self, head: RidgeHead, kept: NDArray[np.intp]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Unlabelled samples of all buckets for which the labels ``kept``, spread, and the head say the same."""
        rows, found = [self.features[:0]], [self.truth[:0]]
        for number, strangers in self._strangers.items():
            mine = kept[self.births[kept] == number]
            if not len(mine) or not len(strangers):
                continue
            spread = spread_labels(self.features[mine], self.truth[mine], strangers, self.learner.labels)
            answers = head.probabilities(strangers).argmax(axis=1)
            agree = spread.argmax(axis=1) == answers
            rows.append(strangers[agree])
            found.append(answers[agree].astype(np.int64))
        return np.vstack(rows), np.concatenate(found)


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
