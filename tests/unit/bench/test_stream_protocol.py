"""The protocol hands out what it should, counts what it hands out, and gates what comes back."""

from __future__ import annotations

import time
from typing import ClassVar

import numpy as np
import pytest

from edgeloop.bench.stream.learner import Learner, Model, RidgeHead, make_learner
from edgeloop.bench.stream.methods import METHODS, UnknownMethod, find_methods
from edgeloop.bench.stream.methods.baselines import ExperienceReplay, FineTuneNew, Frozen, Joint, half_and_half
from edgeloop.bench.stream.methods.ours import _typical
from edgeloop.bench.stream.policy import Batch, Choice, Method, Seen
from edgeloop.bench.stream.protocol import BUDGET, LATE, OverBudget, Run, run_method
from edgeloop.bench.stream.split import SplitStream, split_stream
from tests.unit.bench.made import made_stream

SPLIT = split_stream(made_stream(900), 0, 900)
LEARNER = make_learner(SPLIT.buckets[0].pool.features, SPLIT.buckets[0].pool.truth, 3, 0)


def play(kind: type[Method], split: SplitStream = SPLIT, delay: int = 0, budget: float = BUDGET) -> Run:
    return run_method(kind, split, LEARNER, 0, delay, budget=budget)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_stays_in_budget_and_answers_every_test_after_every_round(name: str) -> None:
    run = play(METHODS[name])
    assert [len(row) for row in run.deployed] == [3, 3, 3]
    assert len(run.prequential) == len(run.rounds) == 2
    pooled = sum(len(b.pool.truth) for b in SPLIT.buckets[1:])
    assert run.pooled == pooled
    if name == "joint":
        assert run.labels == run.samples == pooled
    else:
        assert run.labels <= 0.061 * pooled
        assert run.samples <= 0.211 * pooled
    assert run.bytes == run.samples * 24


@pytest.mark.parametrize("name", METHODS)
def test_the_same_seed_gives_the_same_answers(name: str) -> None:
    one, other = play(METHODS[name]), play(METHODS[name])
    assert all(
        (a == b).all() for x, y in zip(one.deployed, other.deployed, strict=True) for a, b in zip(x, y, strict=True)
    )
    assert one.candidate == other.candidate


class Spy(FineTuneNew):
    """Notes all that it is given."""

    given: ClassVar[list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]] = []

    def begin(self, start: Batch) -> Model:
        self.given.append(start.features)
        return super().begin(start)

    def choose(self, seen: Seen) -> Choice:
        self.given.append(seen.features)
        return super().choose(seen)

    def learn(self, batch: Batch, deployed: Model) -> Model | None:
        self.given.extend([batch.features, batch.unlabelled])
        return super().learn(batch, deployed)


def test_a_method_is_never_given_gate_or_test() -> None:
    Spy.given.clear()
    play(Spy)
    given = {row.tobytes() for part in Spy.given for row in part}
    judged = {row.tobytes() for b in SPLIT.buckets for part in (b.gate, b.test) for row in part.features}
    assert given == {row.tobytes() for b in SPLIT.buckets for row in b.pool.features}
    assert not given & judged


class Greedy(FineTuneNew):
    extra: ClassVar[int] = 1

    def choose(self, seen: Seen) -> Choice:
        return Choice(np.arange(seen.upload + self.extra), np.arange(seen.ask))


class Asking(FineTuneNew):
    def choose(self, seen: Seen) -> Choice:
        return Choice(np.arange(3), np.arange(3, 5))


def test_a_method_that_breaks_the_rules_is_stopped() -> None:
    with pytest.raises(OverBudget, match="method finetune-new sends"):
        play(Greedy)
    with pytest.raises(OverBudget, match="asks for what it did not send"):
        play(Asking)


def test_late_labels_make_the_first_round_a_round_without_candidate() -> None:
    assert play(Joint, delay=1).rounds[0].verdict == "none"
    assert play(Joint).rounds[0].verdict == "pass"


def test_too_few_gate_samples_are_inconclusive_and_the_champion_stays() -> None:
    small = split_stream(made_stream(45, 2), 0, 45)
    assert sum(len(b.gate.truth) for b in small.buckets) < 30
    run = play(FineTuneNew, small)
    assert run.rounds[0].verdict == "inconclusive"
    assert all((a == b).all() for a, b in zip(run.deployed[0], run.deployed[1], strict=True))


class Broken(FineTuneNew):
    """Its candidate always says the same."""

    def learn(self, batch: Batch, deployed: Model) -> Model | None:
        return RidgeHead(np.zeros((batch.features.shape[1], 3), np.float32), 1.0)


class Believed(Broken):
    own_gate: ClassVar[bool] = True

    def promotes(self, candidate: Model, deployed: Model) -> bool:
        return True


def test_the_gate_holds_a_broken_candidate_and_a_gate_that_does_not_is_counted() -> None:
    held, believed = play(Broken), play(Believed)
    assert [r.verdict for r in held.rounds] == ["fail", "fail"]
    assert not any(r.false_promotion or r.false_rejection for r in held.rounds)
    assert believed.rounds[0].false_promotion
    assert believed.deployed[1][0].mean() < held.deployed[1][0].mean() - 0.3


def test_joint_adapts_and_frozen_does_not() -> None:
    frozen, joint = play(Frozen), play(Joint)
    assert frozen.rounds[-1].verdict == "none"
    assert joint.deployed[-1][2].mean() > frozen.deployed[-1][2].mean() + 0.03


# --- budget


def spend(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


class Slow(Joint):
    """Takes a tenth of a CPU-second to learn, and three to choose."""

    name: ClassVar[str] = "slow"
    unlimited: ClassVar[bool] = False

    def choose(self, seen: Seen) -> Choice:
        spend(0.3)
        return super().choose(seen)

    def learn(self, batch: Batch, deployed: Model) -> Model | None:
        spend(0.1)
        return super().learn(batch, deployed)


class SlowBound(Slow):
    unlimited: ClassVar[bool] = True


def test_a_candidate_that_took_too_long_is_dropped_and_counted() -> None:
    late = play(Slow, budget=0.1)
    assert [one.verdict for one in late.rounds] == [LATE, LATE]
    assert " of 0.1 CPU-seconds" in late.rounds[0].reason
    assert not any(one.false_rejection for one in late.rounds)
    assert all((a == b).all() for a, b in zip(late.deployed[0], late.deployed[-1], strict=True))
    assert late.cpu_seconds > 0.8
    assert 0.1 < late.slowest < 0.3


def test_only_learning_counts_and_the_upper_bound_has_no_limit() -> None:
    assert [one.verdict for one in play(Slow, budget=0.25).rounds] == ["pass", "pass"]
    assert [one.verdict for one in play(SlowBound, budget=0.01).rounds] == ["pass", "pass"]


# --- parts


def test_half_of_the_weight_is_on_the_new() -> None:
    weights = half_and_half(10, 30)
    assert weights[:10].sum() == pytest.approx(weights[10:].sum())
    assert weights.mean() == pytest.approx(1)


def test_a_reservoir_keeps_old_and_new_alike() -> None:
    kept = np.zeros(3)
    for seed in range(20):
        method = ExperienceReplay(LEARNER, np.random.default_rng(seed))
        rows = np.zeros((600, 2), np.float32)
        for number in range(3):
            batch = Batch(number, rows, np.full(600, number), rows[:0])
            _ = method.begin(batch) if number == 0 else method._offer(batch)  # type: ignore[func-returns-value]
        kept += np.bincount(method.truth, minlength=3)
    assert np.abs(kept / kept.sum() - 1 / 3).max() < 0.03


def test_typical_samples_come_one_from_each_cluster() -> None:
    rng = np.random.default_rng(0)
    points = np.repeat(np.eye(4, dtype=np.float32) * 9, 10, axis=0) + rng.normal(size=(40, 4)).astype(np.float32) * 0.1
    picked = _typical(points, np.ones(40), 4, rng)
    assert sorted(picked // 10) == [0, 1, 2, 3]
    assert len(_typical(np.zeros((5, 2), np.float32), np.ones(5), 3, rng)) == 3
    assert len(set(_typical(np.zeros((9, 2), np.float32), np.ones(9), 5, rng).tolist())) == 5


def test_the_dual_is_the_primal_and_a_weight_of_two_is_two_samples() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(30, 8)).astype(np.float32)
    truth = rng.integers(3, size=30)
    learner = Learner(3, 2.0, 1.0)
    twice = learner.fit(np.vstack([features, features[:5]]), np.concatenate([truth, truth[:5]]))
    weighted = learner.fit(features, truth, np.where(np.arange(30) < 5, 2, 1).astype(np.float32))
    assert np.allclose(twice.weights, weighted.weights, atol=1e-4)
    dual = learner.fit(features[:6], truth[:6])
    primal = np.linalg.solve(features[:6].T @ features[:6] + 2 * np.eye(8), features[:6].T @ np.eye(3)[truth[:6]])
    assert np.allclose(dual.weights, primal, atol=1e-4)


def test_fine_tuning_stays_near_its_start() -> None:
    rng = np.random.default_rng(0)
    features, truth = rng.normal(size=(20, 8)).astype(np.float32), rng.integers(3, size=20)
    start = RidgeHead(rng.normal(size=(8, 3)).astype(np.float32), 1.0)
    near, far = (Learner(3, s, 1.0).fit(features, truth, start=start).weights for s in (1e6, 1.0))
    assert np.abs(near - start.weights).max() < 1e-2 < np.abs(far - start.weights).max()


def test_methods_by_name() -> None:
    assert [m.name for m in find_methods(["ours", "sedna"])] == ["frozen", "sedna", "ours", "joint"]
    assert len(find_methods([])) == len(METHODS)
    with pytest.raises(UnknownMethod, match="unknown method 'magic'; known: frozen, "):
        find_methods(["magic"])
