"""A queue keeps to its budget, asks nobody twice, says why, and draws as it says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeloop.learning.labels.picks import typical, uncertain, unlike
from edgeloop.learning.labels.queue import Purpose, Request, Waiting, make_queue, wants_two
from edgeloop.samples.labelling import Shares


def names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{i:03}" for i in range(count)]


@st.composite
def waitings(draw: st.DrawFn) -> Waiting:
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    learn = names("l", draw(st.integers(0, 30)))
    drawn = [n for n in learn if rng.random() < draw(st.sampled_from([0.0, 0.5, 1.0]))]
    width = draw(st.integers(1, 3))
    purposes: list[Purpose] = ["learn", "judge"]
    return Waiting(
        learn=learn,
        judge=names("j", draw(st.integers(0, 15))),
        second={n: purposes[i % 2] for i, n in enumerate(names("s", draw(st.integers(0, 8))))},
        disputed={n: purposes[i % 2] for i, n in enumerate(names("d", draw(st.integers(0, 4))))},
        # Whole numbers, so that points repeat.
        vectors={n: rng.integers(0, 3, width).astype(np.float32) for n in drawn},
        doubts={n: float(rng.random()) for n in drawn} if draw(st.booleans()) else {},
        known=rng.integers(0, 3, (draw(st.integers(0, 6)), width)).astype(np.float32),
        few=draw(st.booleans()),
    )


@settings(max_examples=60, deadline=None)
@given(waitings(), st.integers(0, 40), st.integers(0, 5))
def test_a_queue_holds_what_it_promises(waiting: Waiting, count: int, seed: int) -> None:
    queue = make_queue(waiting, count, seed)
    asked = [one.sample_id for one in queue]
    there = {*waiting.learn, *waiting.judge, *waiting.second, *waiting.disputed}
    assert len(queue) == min(count, len(there))
    assert len(set(asked)) == len(asked)
    assert set(asked) <= there
    assert queue == make_queue(waiting, count, seed)
    mixed = replace(waiting, learn=list(waiting.learn)[::-1], judge=list(waiting.judge)[::-1])
    assert queue == make_queue(mixed, count, seed), "the order in which samples are listed says nothing"
    for one in queue:
        assert (one.asked.probability is not None) == (one.asked.why == "random")
        if one.sample_id in waiting.judge:
            assert (one.asked.purpose, one.asked.why) == ("judge", "random")
        if one.sample_id in waiting.learn:
            assert one.asked.purpose == "learn"
        if one.sample_id in waiting.second:
            assert (one.asked.purpose, one.asked.why) == (waiting.second[one.sample_id], "second")
        if one.sample_id in waiting.disputed:
            assert (one.asked.purpose, one.asked.why) == (waiting.disputed[one.sample_id], "disputed")
    if any(one.asked.why == "second" for one in queue):
        assert set(waiting.disputed) <= set(asked), "contradictions come first"


@settings(max_examples=40, deadline=None)
@given(waitings(), st.integers(1, 40), st.integers(0, 5))
def test_some_of_what_is_learned_from_is_random(waiting: Waiting, count: int, seed: int) -> None:
    learn = [
        one
        for one in make_queue(waiting, count, seed)
        if one.asked.purpose == "learn" and one.asked.why not in {"second", "disputed"}
    ]
    assert not learn or any(one.asked.why == "random" for one in learn)


def whys(queue: Sequence[Request]) -> dict[str, int]:
    return dict(Counter(f"{one.asked.purpose} {one.asked.why}" for one in queue))


def spread_out(count: int = 100, **changes: Any) -> Waiting:
    rng = np.random.default_rng(1)
    learn = names("l", count)
    vectors = {n: rng.normal(size=4).astype(np.float32) for n in learn}
    return replace(Waiting(learn=learn, judge=names("j", count), vectors=vectors), **changes)


def test_the_parts_of_a_budget() -> None:
    doubts = dict.fromkeys(names("l", 100), 0.5)
    second: dict[str, Purpose] = {"s1": "learn", "s2": "judge"}
    assert whys(make_queue(spread_out(), 20, 0)) == {"judge random": 8, "learn random": 2, "learn typical": 10}
    assert whys(make_queue(spread_out(few=False), 20, 0)) == {
        "judge random": 8, "learn random": 2, "learn diverse": 10,
    }  # fmt: skip
    assert whys(make_queue(spread_out(few=False, doubts=doubts, second=second), 22, 0)) == {
        "learn second": 1, "judge second": 1, "judge random": 8, "learn random": 2, "learn uncertain": 10,
    }  # fmt: skip
    assert whys(make_queue(spread_out(judge=[]), 10, 0)) == {"learn random": 2, "learn typical": 8}
    assert whys(make_queue(spread_out(vectors={}), 10, 0)) == {"judge random": 4, "learn random": 6}
    assert whys(make_queue(spread_out(learn=[]), 10, 0)) == {"judge random": 10}


def test_who_stops_early_has_answered_some_of_each() -> None:
    first = make_queue(spread_out(), 40, 0)[:10]
    assert whys(first).keys() == {"judge random", "learn random", "learn typical"}


def test_a_random_request_has_the_probability_that_it_says() -> None:
    waiting = spread_out(20)
    drawn: Counter[str] = Counter()
    said: set[tuple[str, float | None]] = set()
    rounds = 2000
    for seed in range(rounds):
        for one in make_queue(replace(waiting, vectors={}), 10, seed):
            drawn[one.sample_id] += 1
            said.add((one.asked.purpose, one.asked.probability))
    assert said == {("learn", 6 / 20), ("judge", 4 / 20)}
    for name, count in drawn.items():
        wanted = 0.3 if name.startswith("l") else 0.2
        assert abs(count / rounds - wanted) < 5 * (wanted * (1 - wanted) / rounds) ** 0.5
    assert len(drawn) == 40


def test_another_seed_draws_others() -> None:
    assert make_queue(spread_out(), 10, 0) != make_queue(spread_out(), 10, 1)


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_a_share_of_samples_wants_two_people(share: float) -> None:
    hits = sum(wants_two(n, share) for n in names("x", 3000))
    assert abs(hits / 3000 - share) < 0.02


def test_shares_can_be_chosen() -> None:
    queue = make_queue(spread_out(), 10, 0, Shares(judge=0.0, random=1.0))
    assert whys(queue) == {"learn random": 10}


# --- picks


def blobs(sizes: Sequence[int], seed: int = 0) -> tuple[np.ndarray[Any, np.dtype[np.float32]], list[int]]:
    rng = np.random.default_rng(seed)
    home = [i for i, size in enumerate(sizes) for _ in range(size)]
    points = np.array([[10.0 * i, 0.0] for i in home]) + rng.normal(size=(len(home), 2))
    return points.astype(np.float32), home


NONE = np.zeros((0, 2), np.float32)


def test_typical_picks_cover_every_cluster_that_random_ones_miss() -> None:
    points, home = blobs([200, 40, 20, 10])
    picks = typical(points, NONE, 4, seed=0)
    assert {home[i] for i in picks} == {0, 1, 2, 3}
    for pick in picks:
        own = points[[h == home[pick] for h in home]]
        assert np.linalg.norm(points[pick] - own.mean(axis=0)) < 0.8, "from where its cluster is dense"


def test_typical_picks_leave_out_clusters_that_have_labels() -> None:
    points, home = blobs([50, 50, 50])
    known = np.array([[0, 0], [10, 0]], np.float32)
    picks = typical(points, known, 1, seed=0)
    assert [home[i] for i in picks] == [2]


def test_uncertain_picks_are_doubtful_and_unlike_each_other() -> None:
    points, home = blobs([30, 10, 10])
    rng = np.random.default_rng(0)
    doubts = np.array([(0.1, 0.8, 0.7)[h] for h in home]) + rng.uniform(0, 0.05, len(home))
    picks = uncertain(points, doubts, 2, seed=0)
    assert [home[i] for i in picks] == [1, 2], "not the two most doubtful, which are alike, and nothing that is sure"
    assert doubts[picks[0]] == doubts.max()


def test_unlike_picks_keep_their_distance() -> None:
    points, home = blobs([30, 30, 30])
    known = np.array([[0, 0]], np.float32)
    assert [home[i] for i in unlike(points, known, 2)] == [2, 1]
    ends = unlike(points, NONE, 2)
    assert {home[i] for i in ends} == {0, 2}


def test_points_that_are_all_the_same_are_picked_once_each() -> None:
    same = np.ones((6, 2), np.float32)
    assert sorted(typical(same, same[:2], 6, seed=0)) == list(range(6))
    assert sorted(unlike(same, same[:2], 6)) == list(range(6))
    assert sorted(uncertain(same, np.zeros(6), 6, seed=0)) == list(range(6))
    assert typical(same, NONE, 0, seed=0) == []
    assert unlike(same[:0], NONE, 3) == uncertain(same[:0], np.zeros(0), 3, seed=0) == []
