"""One seed's view of a stream: pool, gate and test by group, in the feature space that all methods share.

The features are fixed before the stream begins: standardised by the start's pool, then, where the stream asks for it,
a random ReLU layer (Rahimi and Recht, NeurIPS 2007; as RanPAC uses it, McDonnell et al., NeurIPS 2023).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgeloop.bench.stream.data import Bucket, ConstantFeatures, EmptyBucket, OneClass, Stream
from edgeloop.errors import EdgeloopError
from edgeloop.samples.splits import Split, split_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SLOPE = 3.0
_BIAS = 1.0


class Leak(EdgeloopError):
    """A group is on both sides of a split."""


@dataclass(frozen=True)
class Part:
    """A split of one bucket."""

    features: NDArray[np.float32]
    """[samples, features], the last of which is 1."""
    truth: NDArray[np.int64]
    groups: NDArray[np.str_]
    sizes: NDArray[np.int64]
    previous: NDArray[np.int64]


@dataclass(frozen=True)
class SplitBucket:
    """Who may learn from what of a bucket."""

    name: str
    pool: Part
    gate: Part
    test: Part


@dataclass(frozen=True)
class SplitStream:
    """A stream as one seed sees it."""

    labels: tuple[str, ...]
    buckets: tuple[SplitBucket, ...]


@dataclass(frozen=True)
class FeatureMap:
    """Raw rows to the features that learners take."""

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    weights: NDArray[np.float32] | None
    bias: NDArray[np.float32]

    def __call__(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 [samples, raw] to float32 [samples, features + 1]; the last column is 1."""
        mapped = (rows - self.mean) / self.scale
        if self.weights is not None:
            mapped = np.maximum(mapped @ self.weights + self.bias, 0)
        return np.hstack([mapped, np.ones((len(mapped), 1), np.float32)]).astype(np.float32)


def fit_map(rows: NDArray[np.float32], width: int, seed: int) -> FeatureMap:
    """Fit the map on the start's pool, float32 [samples, raw]; ``width`` 0 standardises only.

    Raises:
        ConstantFeatures: no feature varies in the pool.
    """
    spread = rows.std(axis=0, dtype=np.float64)
    overall = float(np.sqrt(np.mean(spread**2)))
    if overall == 0:
        raise ConstantFeatures("every feature is constant in the pool of the labelled start: give a larger one")
    # A pixel that hardly ever changes must not become the loudest one.
    scale = np.maximum(spread, overall / 2).astype(np.float32) if width else np.where(spread > 1e-6, spread, 1)
    mean = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    if not width:
        return FeatureMap(mean, scale.astype(np.float32), None, np.zeros(0, np.float32))
    rng = np.random.default_rng([101, seed])
    weights = (rng.normal(size=(rows.shape[1], width)) * _SLOPE / np.sqrt(rows.shape[1])).astype(np.float32)
    return FeatureMap(mean, scale.astype(np.float32), weights, (rng.normal(size=width) * _BIAS).astype(np.float32))


def split_stream(stream: Stream, seed: int, limit: int) -> SplitStream:
    """Cut each bucket to about ``limit`` rows in whole groups, split it by group, and map its features.

    The salt of the split is the stream's name and the seed, so that seeds differ in who is where.

    Raises:
        EmptyBucket: a split of a bucket has no rows.
        OneClass: the pool of the start has one label only.
        Leak: a group is in two splits.
    """
    cut = [_limited(bucket, limit, np.random.default_rng([7, seed, n])) for n, bucket in enumerate(stream.buckets)]
    salt = f"{stream.name}/{seed}"
    sides = [_sides(bucket, salt) for bucket in cut]
    _refuse_leaks(sides)
    start = sides[0]["pool"]
    if len(np.unique(start.truth)) < 2:
        raise OneClass(f"the pool of bucket {start.name} has one label only: give a larger labelled start")
    to_features = fit_map(start.rows, stream.random_features, seed)
    buckets = tuple(
        SplitBucket(b.name, *(_part(one[name], to_features) for name in ("pool", "gate", "test")))
        for b, one in zip(cut, sides, strict=True)
    )
    return SplitStream(stream.labels, buckets)


def _limited(bucket: Bucket, limit: int, rng: np.random.Generator) -> Bucket:
    """Whole groups, drawn at random, until ``limit`` rows; the rows keep their order."""
    if len(bucket.rows) <= limit:
        return bucket
    names, counts = np.unique(bucket.groups, return_counts=True)
    order = rng.permutation(len(names))
    kept = order[: max(1, int(np.searchsorted(np.cumsum(counts[order]), limit, side="right")))]
    return bucket.take(np.flatnonzero(np.isin(bucket.groups, names[kept])))


def _sides(bucket: Bucket, salt: str) -> dict[Split, Bucket]:
    side = {group: split_of(group, salt) for group in np.unique(bucket.groups).tolist()}
    named = np.array([side[group] for group in bucket.groups.tolist()])
    parts: dict[Split, Bucket] = {}
    for name in ("pool", "gate", "test"):
        chosen = np.flatnonzero(named == name)
        if not len(chosen):
            raise EmptyBucket(f"bucket {bucket.name}: no group of {len(side)} falls into {name}: give more groups")
        parts[name] = bucket.take(chosen)
    return parts


def _refuse_leaks(sides: list[dict[Split, Bucket]]) -> None:
    """By construction there are none; a run that would leak must still not happen."""
    found: dict[Split, set[str]] = {
        name: {g for one in sides for g in one[name].groups.tolist()} for name in ("pool", "gate", "test")
    }
    both = (found["pool"] & (found["gate"] | found["test"])) | (found["gate"] & found["test"])
    if both:
        raise Leak(f"group {min(both)} is in two splits: name groups by what they hold, over all buckets")


def _part(bucket: Bucket, to_features: FeatureMap) -> Part:
    return Part(to_features(bucket.rows), bucket.truth, bucket.groups, bucket.sizes, bucket.previous)
