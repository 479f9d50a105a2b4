"""What is wrong with a stream is said by name, and nobody learns from what judges."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from edgeloop.bench.stream.data import (
    Bucket,
    ConstantFeatures,
    EmptyBucket,
    LabelsMissing,
    NotANumber,
    OneClass,
    Stream,
    TooFewBuckets,
    TooFewSamples,
    UnknownLabel,
    WidthDiffers,
    check_stream,
    label_numbers,
    with_previous,
)
from edgeloop.bench.stream.split import Leak, SplitStream, fit_map, split_stream
from edgeloop.errors import BadInput
from tests.unit.bench.made import made_bucket, made_stream, with_bucket

GOOD = made_stream()


def broken() -> dict[type[BadInput], Stream]:
    start = GOOD.buckets[0]
    nan = GOOD.buckets[1].rows.copy()
    nan[3, 2] = np.nan
    return {
        TooFewBuckets: replace(GOOD, buckets=GOOD.buckets[:1]),
        EmptyBucket: replace(GOOD, buckets=(start, start.take(np.zeros(0, np.intp)))),
        WidthDiffers: replace(GOOD, buckets=(start, made_bucket("wide", 1, width=7))),
        NotANumber: with_bucket(GOOD, 1, rows=nan),
        OneClass: with_bucket(GOOD, 0, truth=np.zeros_like(start.truth)),
        TooFewSamples: replace(GOOD, labels=tuple(map(str, range(300)))),
        ConstantFeatures: with_bucket(GOOD, 0, rows=np.ones_like(start.rows)),
    }


@pytest.mark.parametrize("fault", list(broken()), ids=lambda f: str(f.__name__))
def test_a_fault_of_a_stream_is_named(fault: type[BadInput]) -> None:
    check_stream(GOOD)
    with pytest.raises(fault) as caught:
        check_stream(broken()[fault])
    assert "\n" not in str(caught.value)


def test_labels_are_numbered_and_refused() -> None:
    assert label_numbers("b", ["y", None, "x"], ["x", "y"]).tolist() == [1, -1, 0]
    with pytest.raises(LabelsMissing, match="bucket b: none of 2 rows has a label"):
        label_numbers("b", [None, None], ["x"])
    with pytest.raises(UnknownLabel, match="bucket b: label 'z' is not among x, y"):
        label_numbers("b", ["x", "z"], ["x", "y"])


def test_the_label_before_a_row() -> None:
    assert with_previous(np.array([2, 0, 1])).tolist() == [-1, 2, 0]


def sides(split: SplitStream) -> list[set[str]]:
    return [{g for b in split.buckets for g in getattr(b, side).groups.tolist()} for side in ("pool", "gate", "test")]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(60, 300), st.integers(1, 5))
def test_no_group_is_on_two_sides_and_none_is_parted(seed: int, limit: int, size: int) -> None:
    def grouped(bucket: Bucket) -> Bucket:
        return replace(bucket, groups=np.array([f"{bucket.name}-{i // size}" for i in range(len(bucket.rows))]))

    stream = replace(GOOD, buckets=tuple(grouped(b) for b in GOOD.buckets))
    try:
        split = split_stream(stream, seed, limit)
    except EmptyBucket:  # few groups may leave a side without any
        reject()
    pool, gate, test = sides(split)
    assert not pool & gate and not pool & test and not gate & test
    for bucket in split.buckets:
        parts = [bucket.pool, bucket.gate, bucket.test]
        names, counts = np.unique(np.concatenate([p.groups for p in parts]), return_counts=True)
        assert counts.sum() <= limit
        whole = {f"{bucket.name}-{i}": min(size, 240 - i * size) for i in range(-(-240 // size))}
        assert all(whole[name] == count for name, count in zip(names.tolist(), counts.tolist(), strict=True))


def test_duplicates_across_buckets_are_on_one_side() -> None:
    twice = replace(GOOD, buckets=(GOOD.buckets[0], replace(GOOD.buckets[0], name="again")))
    split = split_stream(twice, 0, 10_000)
    first, second = split.buckets
    assert set(first.test.groups.tolist()) == set(second.test.groups.tolist())
    assert not set(first.test.groups.tolist()) & set(second.pool.groups.tolist())


def test_a_leak_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    sides = iter(["pool", "gate", "test"] * 10_000)
    monkeypatch.setattr("edgeloop.bench.stream.split.split_of", lambda group, salt: next(sides))
    again = replace(GOOD.buckets[0].take(np.arange(1, 200)), name="again")
    with pytest.raises(Leak, match="is in two splits"):
        split_stream(replace(GOOD, buckets=(GOOD.buckets[0], again)), 0, 10_000)


def test_seeds_differ_in_who_is_where() -> None:
    one, other = (set(split_stream(GOOD, seed, 10_000).buckets[0].pool.groups.tolist()) for seed in (0, 1))
    assert one != other


def test_a_bucket_of_one_group_cannot_be_split() -> None:
    alone = with_bucket(GOOD, 1, groups=np.array(["g"] * 240))
    with pytest.raises(EmptyBucket, match="bucket b1: no group of 1 falls into"):
        split_stream(alone, 0, 10_000)


@pytest.mark.parametrize("width", [0, 20])
def test_features_are_standardised_and_lifted(width: int) -> None:
    rows = GOOD.buckets[0].rows
    mapped = fit_map(rows, width, 0)(rows)
    assert mapped.dtype == np.float32
    assert mapped.shape == (240, (width or 6) + 1)
    assert (mapped[:, -1] == 1).all()
    if width:
        assert mapped.min() == 0
    else:
        assert np.allclose(mapped[:, :-1].std(axis=0), 1, atol=1e-3)
    with pytest.raises(ConstantFeatures):
        fit_map(np.ones((5, 3), np.float32), width, 0)
