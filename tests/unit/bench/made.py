"""A small drifting stream, made up: blobs whose centres move from bucket to bucket."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgeloop.bench.stream.data import NO_PREVIOUS, Bucket, Stream
from edgeloop.samples.records import digest


def made_bucket(name: str, seed: int, rows: int = 240, shift: float = 0.0, labels: int = 3, width: int = 6) -> Bucket:
    """Blobs on the corners of a simplex, all moved by ``shift`` along a fixed direction."""
    rng = np.random.default_rng([seed, 1])
    truth = rng.integers(labels, size=rows).astype(np.int64)
    centres = np.eye(labels, width) * 3
    moved = centres[truth] + shift * np.roll(centres, 1, axis=0)[truth]
    points = np.asarray(moved + rng.normal(size=(rows, width)) * 0.7, np.float32)
    groups = np.array([digest(row.tobytes()) for row in points])
    sizes = np.full(rows, width * 4, np.int64)
    return Bucket(name, points, truth, groups, sizes, np.full(rows, NO_PREVIOUS, np.int64))


def made_stream(rows: int = 240, buckets: int = 3, labels: int = 3) -> Stream:
    """Buckets that drift by 0.5 each."""
    made = tuple(made_bucket(f"b{n}", n, rows, 0.5 * n, labels) for n in range(buckets))
    return Stream("made", tuple(f"l{n}" for n in range(labels)), made, 0)


def with_bucket(stream: Stream, number: int, **changes: object) -> Stream:
    """The stream with one bucket changed."""
    buckets = list(stream.buckets)
    buckets[number] = replace(buckets[number], **changes)  # type: ignore[arg-type]
    return replace(stream, buckets=tuple(buckets))
