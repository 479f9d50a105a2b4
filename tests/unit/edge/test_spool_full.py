"""A full spool: what goes first, what never goes, and what it costs."""

from __future__ import annotations

import errno
import os
import random
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.clients.objects import MemoryStore, StoreUnavailable
from edgeloop.edge.spool import contents, eviction
from edgeloop.edge.spool.contents import Thinned
from edgeloop.edge.spool.frames import encode, frame
from edgeloop.edge.spool.spool import Limits, Spool, SpoolFull
from edgeloop.edge.spool.tiers import LABEL_TIER, TIERS, Tiers, plan, tier_of, total
from tests.servers.ports import wait_until
from tests.unit.edge.spooled import Flaky, label, sample, samples_in, stored, stored_labels

#: One sample without an embedding.
SIZE = len(frame(encode(sample(1), 1)))
#: Twelve of them, the few bytes by which they differ, and no thirteenth.
ROOM = SIZE * 12 + 150


def spool_of(folder: Path, **more: int) -> Spool:
    return Spool(folder, Limits(**({"samples": 4, "spool_bytes": ROOM} | more)))


@given(st.floats())
def test_a_value_has_a_tier(value: float) -> None:
    assert 0 <= tier_of(value) < TIERS


@given(st.floats(0, 1), st.floats(0, 1))
def test_more_value_is_no_lower_tier(one: float, other: float) -> None:
    assert (tier_of(one) <= tier_of(other)) or one > other


logs = st.lists(st.lists(st.tuples(st.integers(0, LABEL_TIER), st.integers(1, 50)), max_size=8), max_size=6)


@given(logs, st.integers(1, 600), st.integers(0, LABEL_TIER))
def test_a_plan_frees_enough_from_the_lowest_tiers_and_the_oldest_logs(
    contents: list[list[tuple[int, int]]], need: int, below: int
) -> None:
    counted = [Tiers() for _ in contents]
    for tiers, records in zip(counted, contents, strict=True):
        for tier, size in records:
            tiers.add(tier, size)
    steps = plan(counted, need, below)
    lost = [(index, tier) for index, tiers in steps for tier in tiers]
    freed = sum(counted[index].sizes[tier] for index, tier in lost)
    assert freed >= min(need, sum(total(counted).sizes[:below]))
    assert len({index for index, _ in steps}) == len(steps)
    assert all(tier < below and counted[index].counts[tier] for index, tier in lost)
    highest = max((tier for _, tier in lost), default=-1)
    for index, tiers in enumerate(counted):
        assert all((index, tier) in lost for tier in range(highest) if tiers.counts[tier])
    if lost:  # without the youngest part of the highest tier it would not have been enough
        assert freed - counted[max(i for i, tier in lost if tier == highest)].sizes[highest] < need


def test_the_least_valuable_goes_first_and_the_oldest_of_it(tmp_path: Path) -> None:
    spool = spool_of(tmp_path)
    for number in range(1, 24, 2):
        spool.append(sample(number), 0.1 if number in {5, 21} else 0.5)
    spool.append(sample(25), 0.9)
    assert sorted(samples_in(tmp_path)) == [1, 3, *range(7, 24, 2), 25]
    spool.append(sample(27), 0.9)
    assert 21 not in samples_in(tmp_path) and spool.dropped == {"adder": 2}
    assert spool.samples == 12 and spool.size <= ROOM
    spool.close()


def test_nothing_of_equal_value_is_dropped(tmp_path: Path) -> None:
    spool = spool_of(tmp_path)
    for number in range(1, 24, 2):
        spool.append(sample(number), 0.5)
    with pytest.raises(SpoolFull, match="check the store"):
        spool.append(sample(25), 0.5)
    with pytest.raises(SpoolFull, match="check the store"):
        spool.append(sample(27), 0.0)
    assert (spool.refused, spool.dropped, spool.samples) == (2, {}, 12) and spool.accepting
    assert not spool.is_known(sample(25).sample_id)
    spool.close()


def test_nothing_is_dropped_in_vain(tmp_path: Path) -> None:
    spool = spool_of(tmp_path)
    for number in range(1, 24, 2):
        spool.append(sample(number), 0.1 if number == 5 else 0.5)
    with pytest.raises(SpoolFull, match="check the store"):
        spool.append(sample(25, payload=b"x" * 2 * SIZE), 0.4)
    with pytest.raises(SpoolFull, match="raise spool_bytes"):
        spool.append(sample(27, payload=b"x" * ROOM))
    assert spool.samples == 12 and not spool.dropped
    spool.close()


def test_a_pass_frees_a_tenth_and_rewrites_each_log_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = spool_of(tmp_path, spool_bytes=SIZE * 40)
    for number in range(1, 80, 2):
        spool.append(sample(number), (number % 10) / 10)
    replaced: list[str] = []
    real = os.replace

    def replace(source: Path, target: Path) -> None:
        replaced.append(os.fspath(target))
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    spool.append(sample(81), 1.0)
    assert len(replaced) == 1
    spool.cut()
    rewritten = [name for name in replaced if name.endswith(".sealed")]
    assert len(set(rewritten[1:])) == len(rewritten[1:])
    assert SIZE * 34 < spool.size <= SIZE * 36
    left = samples_in(tmp_path).values()
    assert spool.samples == len(left) and min(left) == tier_of(0.1)
    count = len(replaced)
    spool.cut()
    assert len(replaced) == count
    spool.close()


def test_an_arriving_record_waits_for_one_log_of_a_pass_and_not_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = spool_of(tmp_path, spool_bytes=SIZE * 40)
    for number in range(1, 80, 2):
        spool.append(sample(number), (number % 10) / 10)
    spool.append(sample(81), 1.0)  # a pass is due
    arriving = threading.Thread(target=spool.append, args=(sample(83), 1.0))
    taken: list[bool] = []

    def thin(*work: Any) -> Thinned:
        if threading.current_thread() is not arriving:
            if not taken:
                arriving.start()
                wait_until("a record waits", spool._eviction._next.locked, every=0.001)
            else:
                arriving.join(60)
            taken.append(spool.is_known(sample(83).sample_id))
        return contents.thin(*work)

    monkeypatch.setattr(eviction, "thin", thin)
    spool.cut()
    arriving.join()
    assert taken == [False] + [True] * (len(taken) - 1) and len(taken) > 2
    assert spool.size <= SIZE * 40
    spool.close()


def test_a_pass_that_fails_stays_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = spool_of(tmp_path, spool_bytes=SIZE * 40)
    for number in range(1, 80, 2):
        spool.append(sample(number), (number % 10) / 10)
    spool.append(sample(81), 1.0)

    def broken(*_: object) -> Thinned:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="Input"):
        patched.setattr(eviction, "thin", broken)
        spool._eviction.finish()
    assert spool.size > SIZE * 36
    spool._eviction.finish()
    assert spool.size <= SIZE * 36
    spool.close()


def test_labels_are_the_last_to_go_and_drop_samples(tmp_path: Path) -> None:
    spool, store = spool_of(tmp_path), MemoryStore()
    taken = 0
    with pytest.raises(SpoolFull):
        for number in range(1000):
            spool.append(sample(number), 1.0)
    for number in range(100):
        try:
            spool.append(label(number), 0.0)
        except SpoolFull:
            break
        taken += 1
    assert not samples_in(tmp_path) and taken > 12
    with pytest.raises(SpoolFull):
        spool.append(sample(1001), 1.0)
    spool.cut(everything=True)
    spool.upload(store)
    assert len(stored_labels(store)) == taken and not stored(store)
    spool.close()


def test_a_log_that_the_store_may_have_is_not_changed(tmp_path: Path) -> None:
    spool, store = spool_of(tmp_path), Flaky()
    for number in range(1, 24, 2):
        spool.append(sample(number), number / 100)
    store.fail = "after"
    with pytest.raises(StoreUnavailable):
        spool.upload(store)
    for number in range(25, 40, 2):
        spool.append(sample(number), 1.0)
    assert {1, 3, 5, 7} <= samples_in(tmp_path).keys()
    spool.close()  # nor after a restart
    spool = spool_of(tmp_path)
    with pytest.raises(SpoolFull):
        spool.append(sample(41), 1.0)
    assert {1, 3, 5, 7} <= samples_in(tmp_path).keys()
    store.fail = None
    spool.cut(everything=True)
    spool.upload(store)
    assert stored(store) == [1, 3, 5, 7, *range(25, 40, 2)]
    spool.close()


def test_a_log_that_is_being_sent_is_not_changed(tmp_path: Path) -> None:
    spool = spool_of(tmp_path)

    class Busy(MemoryStore):
        def create(self, key: str, data: bytes) -> bool:
            before = samples_in(tmp_path)
            if min(before) == 1:
                spool.append(sample(101), 1.0)
                assert {1, 3, 5, 7} <= samples_in(tmp_path).keys() and 9 not in samples_in(tmp_path)
            return super().create(key, data)

    for number in range(1, 24, 2):
        spool.append(sample(number), 0.5)
    store = Busy()
    spool.cut(everything=True)
    spool.upload(store)
    assert {1, 3, 5, 7, 101} - set(stored(store)) <= {101}
    assert sorted([*stored(store), *samples_in(tmp_path)]) == [1, 3, 5, 7, *range(17, 24, 2), 101]
    assert spool.dropped == {"adder": 4}
    spool.close()


def test_the_most_valuable_of_a_stream_stay(tmp_path: Path) -> None:
    spool = spool_of(tmp_path)
    generator = random.Random(1)
    for number in range(1, 100, 2):
        try:
            spool.append(sample(number), generator.random())
        except SpoolFull:
            continue
    waiting = samples_in(tmp_path)
    assert min(waiting.values()) >= tier_of(0.6) and spool.size <= ROOM
    spool.close()
    spool = spool_of(tmp_path)
    assert (spool.samples, spool.size <= ROOM) == (len(waiting), True)
    spool.close()
