"""Classifiers in closed form on fixed features, which forget nothing: class means, streaming LDA, ridge, neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgeloop.bench.stream.methods.baselines import Remembering
from edgeloop.bench.stream.policy import Batch
from edgeloop.clients.model_heads import softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeloop.bench.stream.learner import Model


@dataclass(frozen=True)
class _Linear:
    weights: NDArray[np.float64]
    bias: NDArray[np.float64]

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        return softmax(features @ self.weights + self.bias)


@dataclass(frozen=True)
class _Neighbours:
    features: NDArray[np.float32]
    truth: NDArray[np.int64]
    labels: int
    count: int = 5

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        nearest = np.argsort(-(unit(features) @ unit(self.features).T), axis=1)[:, : self.count]
        votes = np.eye(self.labels)[self.truth[nearest]].sum(axis=1)
        return np.asarray(votes / votes.sum(axis=1, keepdims=True))


def unit(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of length one."""
    return np.asarray(features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-9), np.float32)


class _Closed(Remembering):
    """Random labels; the answer depends on all labels so far, in any order."""

    def make(self) -> Model:
        """A model of what is remembered."""
        raise NotImplementedError

    def begin(self, start: Batch) -> Model:
        super().begin(start)
        return self.make()

    def learn(self, batch: Batch, deployed: Model) -> Model | None:
        if not len(batch.truth):
            return None
        self.keep(batch)
        return self.make()

    def _means(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Mean of each label, [labels, features], and its samples; a label that never came has none."""
        counts = np.bincount(self.truth, minlength=self.learner.labels)
        sums = np.eye(self.learner.labels)[self.truth].T @ self.features
        return sums / np.maximum(counts, 1)[:, None], counts


def _linear(weights: NDArray[np.float64], bias: NDArray[np.float64], counts: NDArray[np.int64]) -> _Linear:
    return _Linear(weights, np.where(counts > 0, bias, -1e9))


class NearestClassMean(_Closed):
    """The label whose mean is nearest (Mensink et al. 2013)."""

    name: ClassVar[str] = "ncm"
    about: ClassVar[str] = "random labels, nearest class mean"

    def make(self) -> Model:
        means, counts = self._means()
        return _linear(2 * means.T, -(means**2).sum(axis=1), counts)


class StreamingLda(_Closed):
    """Class means under one shared, shrunk covariance (Hayes and Kanan 2020)."""

    name: ClassVar[str] = "slda"
    about: ClassVar[str] = "random labels, streaming linear discriminant analysis"
    SHRINKAGE: ClassVar[float] = 0.1

    def make(self) -> Model:
        means, counts = self._means()
        centred = self.features - means[self.truth]
        covariance = centred.T @ centred / len(centred)
        ridge = self.SHRINKAGE * max(float(np.trace(covariance)) / len(covariance), 1e-6)
        covariance = (1 - self.SHRINKAGE) * covariance + ridge * np.eye(len(covariance))
        weights = np.linalg.solve(covariance, means.T)
        return _linear(np.asarray(weights, np.float64), -0.5 * (means.T * weights).sum(axis=0), counts)


class RanPac(_Closed):
    """Ridge on a wider random ReLU layer (McDonnell et al. 2023)."""

    name: ClassVar[str] = "ranpac"
    about: ClassVar[str] = "random labels, ridge on 1000 more random features"
    WIDTH: ClassVar[int] = 1000

    def make(self) -> Model:
        if not hasattr(self, "_layer"):
            width = self.features.shape[1]
            self._layer = (self.rng.normal(size=(width, self.WIDTH)) / np.sqrt(width)).astype(np.float32)
        return _Lifted(self._layer, self.learner.fit(lift(self.features, self._layer), self.truth))


def lift(features: NDArray[np.float32], layer: NDArray[np.float32]) -> NDArray[np.float32]:
    """The features and a random ReLU layer over them."""
    return np.hstack([features, np.maximum(features @ layer, 0)])


@dataclass(frozen=True)
class _Lifted:
    layer: NDArray[np.float32]
    head: Model

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        return self.head.probabilities(lift(features, self.layer))


class NearestNeighbours(_Closed):
    """Five neighbours by cosine."""

    name: ClassVar[str] = "knn"
    about: ClassVar[str] = "random labels, five nearest neighbours by cosine"

    def make(self) -> Model:
        return _Neighbours(self.features, self.truth, self.learner.labels)
