"""The schedule of faults: the same seed gives the same, every kind comes, and every fault ends."""

from __future__ import annotations

import itertools
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.e2e.edge_faults.schedule import DECK, GAP, NATURE, Kind, schedule, steps

SEEDS = st.integers(0, 2**32)


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_the_same_seed_gives_the_same_schedule_and_another_another(seed: int) -> None:
    assert schedule(seed, 60) == schedule(seed, 60)
    assert schedule(seed, 60)[:20] == schedule(seed, 20)
    assert schedule(seed, 60) != schedule(seed + 1, 60)


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_every_kind_comes_as_often_as_it_is_dealt(seed: int) -> None:
    assert set(Kind) == set(NATURE)
    count = Counter(fault.kind for fault in schedule(seed, 4 * DECK))
    assert count == Counter({kind: 4 * nature.weight for kind, nature in NATURE.items()})


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(1, 200))
def test_a_fault_ends_before_the_next_strikes_the_same_place(seed: int, count: int) -> None:
    free = dict.fromkeys((nature.place for nature in NATURE.values()), 0.0)
    for fault in schedule(seed, count):
        assert fault.at >= free[fault.place]
        assert NATURE[fault.kind].shortest <= fault.seconds <= NATURE[fault.kind].longest
        free[fault.place] = fault.at + fault.seconds + NATURE[fault.kind].rest


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_recovery_follows_every_fault(seed: int) -> None:
    under_way: set[int] = set()
    last = 0.0
    for step in steps(schedule(seed, 100)):
        assert step.at >= last
        last = step.at
        if step.phase == "begin":
            under_way.add(step.fault.number)
        else:
            under_way.remove(step.fault.number)
    assert not under_way


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_faults_come_in_quick_succession_and_overlap(seed: int) -> None:
    faults = schedule(seed, 200)
    assert [fault.number for fault in faults] == list(range(200))
    gaps = [after.at - before.at for before, after in itertools.pairwise(faults)]
    assert min(gaps) >= GAP[0] - 1e-9
    assert faults[-1].at < 200
    assert sum(a.at + a.seconds > b.at for a, b in itertools.pairwise(faults)) > 20
