"""A stream in memory and what is wrong with it, so that no method ever sees data that it would trip over silently."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgeloop.errors import BadInput

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: ``previous`` of a row that is the first of its stream, or of a stream without an order inside its buckets.
NO_PREVIOUS = -1


class EmptyBucket(BadInput):
    """A bucket has no rows."""


class WidthDiffers(BadInput):
    """A bucket has more or fewer features than the first."""


class NotANumber(BadInput):
    """A feature is not a finite number."""


class LabelsMissing(BadInput):
    """No row of a bucket has a label."""


class UnknownLabel(BadInput):
    """A row has a label outside the closed set of the stream."""


class OneClass(BadInput):
    """The labelled start has one label only."""


class TooFewSamples(BadInput):
    """The labelled start has fewer samples than the stream has labels."""


class ConstantFeatures(BadInput):
    """No feature of the labelled start varies."""


class TooFewBuckets(BadInput):
    """A stream of one bucket has nothing to adapt to."""


@dataclass(frozen=True)
class Bucket:
    """Rows of one time, in their order."""

    name: str
    rows: NDArray[np.float32]
    """[samples, features], as they come from the device."""
    truth: NDArray[np.int64]
    """Numbers of labels, [samples]."""
    groups: NDArray[np.str_]
    """What must not be parted by a split, [samples]."""
    sizes: NDArray[np.int64]
    """Bytes that sending a sample costs, [samples]."""
    previous: NDArray[np.int64]
    """Label of the row before it in the stream, [samples]; :data:`NO_PREVIOUS` where there is none."""

    def take(self, chosen: NDArray[np.intp]) -> Bucket:
        """Those rows."""
        return Bucket(
            self.name,
            self.rows[chosen],
            self.truth[chosen],
            self.groups[chosen],
            self.sizes[chosen],
            self.previous[chosen],
        )


@dataclass(frozen=True)
class Stream:
    """Buckets in time order; the first is the labelled start."""

    name: str
    labels: tuple[str, ...]
    buckets: tuple[Bucket, ...]
    random_features: int
    """Width of the fixed random-feature map in front of every method's learner; 0 for none."""
    ordered: bool = False
    """Rows stand in time order, so "same as last" is a classifier to be named."""


def label_numbers(bucket: str, found: Sequence[str | None], labels: Sequence[str]) -> NDArray[np.int64]:
    """Numbers of labels, [samples]; -1 where a row has none.

    Raises:
        LabelsMissing: no row has a label.
        UnknownLabel: a label is not among ``labels``.
    """
    if not any(found):
        raise LabelsMissing(f"bucket {bucket}: none of {len(found)} rows has a label: name the label column")
    known = {label: number for number, label in enumerate(labels)}
    strange = sorted({label for label in found if label and label not in known})
    if strange:
        raise UnknownLabel(
            f"bucket {bucket}: label {strange[0]!r} is not among {', '.join(labels)[:200]}: mend it or add it to labels"
        )
    return np.array([known[label] if label else -1 for label in found], np.int64)


def with_previous(truth: NDArray[np.int64]) -> NDArray[np.int64]:
    """The label before each row, [samples]."""
    return np.concatenate([[NO_PREVIOUS], truth[:-1]]).astype(np.int64)


def contradictions(bucket: Bucket) -> int:
    """Rows that equal another row of the bucket and bear another label: nobody can get all of them right."""
    keys = [row.tobytes() for row in bucket.rows + np.float32(0)]  # adding 0 makes -0 the 0 that it equals
    found: dict[bytes, set[int]] = {}
    for key, label in zip(keys, bucket.truth.tolist(), strict=True):
        found.setdefault(key, set()).add(label)
    return sum(len(found[key]) > 1 for key in keys)


def check_stream(stream: Stream) -> None:
    """Refuse what no method can learn from.

    Raises:
        TooFewBuckets, EmptyBucket, WidthDiffers, NotANumber, OneClass, TooFewSamples, ConstantFeatures: see each.
    """
    if len(stream.buckets) < 2:
        raise TooFewBuckets(f"stream {stream.name} has {len(stream.buckets)} bucket: it needs a start and one more")
    width = stream.buckets[0].rows.shape[1]
    for bucket in stream.buckets:
        _check_bucket(bucket, width, stream.buckets[0].name)
    _check_start(stream.buckets[0], stream.labels)


def _check_bucket(bucket: Bucket, width: int, first: str) -> None:
    if not len(bucket.rows):
        raise EmptyBucket(f"bucket {bucket.name} has no labelled rows: leave it out of buckets, or fill it")
    if bucket.rows.shape[1] != width:
        raise WidthDiffers(
            f"bucket {bucket.name} has {bucket.rows.shape[1]} features, {first} has {width}: give all the same columns"
        )
    bad = np.argwhere(~np.isfinite(bucket.rows))
    if len(bad):
        row, column = bad[0]
        raise NotANumber(f"bucket {bucket.name}: feature {column} of row {row} is not a finite number: fill or drop it")


def _check_start(start: Bucket, labels: tuple[str, ...]) -> None:
    present = np.unique(start.truth)
    if len(present) < 2:
        raise OneClass(
            f"bucket {start.name}, the labelled start, has only the label {labels[present[0]]!r}: it needs two or more"
        )
    if len(start.rows) < len(labels):
        raise TooFewSamples(
            f"bucket {start.name} has {len(start.rows)} samples for {len(labels)} labels: give a larger start"
        )
    if not (start.rows != start.rows[0]).any():
        raise ConstantFeatures(f"bucket {start.name}: every feature is constant: nothing can be learned from it")
