"""The gate in the loop: what it measures, how often it was asked, what it estimates, and what people read of it."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeloop.learning.evaluate import Evaluation, evaluate
from edgeloop.learning.gate import Decision, SliceResult, decide
from edgeloop.learning.gate_budgets import Agreement, Latency
from edgeloop.learning.gate_text import decision_text
from edgeloop.learning.measure import field_estimates
from edgeloop.learning.rounds import Plan
from edgeloop.learning.train import Candidate, put_blob
from edgeloop.samples.dataset import Member, members_of
from edgeloop.samples.judging import Gate
from edgeloop.samples.records import Sample
from edgeloop.samples.releases import blob_key
from edgeloop.samples.segments import to_row
from edgeloop.samples.splits import split_of
from edgeloop.samples.table import Tables
from edgeloop.store import FleetStore
from tests.unit.learning.loop import GATE, Loop, rater
from tests.unit.samples.make import START, sample

FIRST = range(120)


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    return Loop(tmp_path)


def judged(loop: Loop, plan: Plan, candidate: Candidate) -> Evaluation:
    return evaluate(loop.store, loop.tables, loop.service, plan.dataset, candidate, loop.fleet)


def test_each_decision_on_the_same_samples_is_counted_once(loop: Loop) -> None:
    loop.collect(FIRST)
    plans = [loop.plan(mode="sklearn", seed=seed) for seed in range(3)]
    candidates = [loop.train(plan) for plan in plans]
    uses = [judged(loop, *both).decision.uses for both in zip(plans, candidates, strict=True)]
    assert uses == [1, 2, 3]
    assert judged(loop, plans[1], candidates[1]).decision.uses == 2
    assert loop.evaluate(plans[0], candidates[0]).decision.uses is None


def gate_numbers(start: int, count: int) -> list[int]:
    """Numbers from ``start`` on whose samples are gate samples."""
    found = (n for n in range(start, start + 100 * count) if split_of(f"group-{n}", "rater") == "gate")
    return [next(found) for _ in range(count)]


def test_a_set_that_grows_by_one_sample_is_as_worn_as_before(loop: Loop) -> None:
    loop.collect(FIRST)
    first = loop.plan()
    assert judged(loop, first, loop.train(first)).decision.uses == 1
    loop.collect(gate_numbers(500, 1))
    second = loop.plan()
    decision = judged(loop, second, loop.train(second)).decision
    assert (decision.uses, decision.worn) == (2, 0)


def rounds_with(loop: Loop, seeds: range) -> list[Decision]:
    """The same data judged with other seeds, each a decision."""
    plans = [loop.plan(mode="sklearn", seed=seed) for seed in seeds]
    return [judged(loop, plan, loop.train(plan)).decision for plan in plans]


def test_worn_samples_retire_and_fresh_ones_take_their_place(tmp_path: Path) -> None:
    loop = Loop(tmp_path, rater(gate=GATE | {"max_reuse": 2}))
    loop.collect(FIRST)
    first, second, third = rounds_with(loop, range(3))
    assert [d.verdict for d in (first, second, third)] == ["pass", "pass", "inconclusive"]
    assert (third.samples, third.worn, third.uses) == (0, first.samples, None)
    assert third.reason == (
        f"{first.samples} gate samples have made 2 decisions each and are retired, and the 0 fresh ones are too few,"
        " 20 are needed: label fresh audit samples"
    )
    loop.collect(gate_numbers(500, 19))
    (fourth,) = rounds_with(loop, range(3, 4))
    assert (fourth.verdict, fourth.samples, fourth.candidate) == ("inconclusive", 19, None)
    loop.collect(gate_numbers(5000, 1))
    fifth, sixth, seventh = rounds_with(loop, range(4, 7))
    assert [(d.verdict, d.samples, d.uses) for d in (fifth, sixth)] == [("pass", 20, 1), ("pass", 20, 2)]
    assert (seventh.verdict, seventh.worn) == ("inconclusive", first.samples + 20)


def test_a_decision_made_again_counts_once_and_finds_the_same(tmp_path: Path) -> None:
    loop = Loop(tmp_path, rater(gate=GATE | {"max_reuse": 2}))
    loop.collect(FIRST)
    plan = loop.plan(mode="sklearn", seed=0)
    candidate = loop.train(plan)
    again = [judged(loop, plan, candidate) for _ in range(4)]
    found = [e.decision.model_copy(update={"latency": None}) for e in again]
    assert found == [found[0]] * 4
    rounds_with(loop, range(1, 3))
    assert judged(loop, plan, candidate).decision.model_copy(update={"latency": None}) == found[0]


def test_worn_samples_still_refuse_what_does_harm(tmp_path: Path) -> None:
    loop = Loop(tmp_path, rater(gate=GATE | {"max_reuse": 1}))
    loop.collect(FIRST)
    assert loop.round() is not None
    rounds_with(loop, range(1, 2))
    pool = [n for n in range(1000, 1300) if split_of(f"group-{n}", "rater") == "pool"]
    loop.collect(pool, source="device", shift=-30, noise=20)
    (decision,) = rounds_with(loop, range(2, 3))
    assert (decision.verdict, decision.harmful) == ("fail", True)


def test_uses_are_counted_by_service_and_sample(tmp_path: Path) -> None:
    fleet = FleetStore(f"sqlite:///{tmp_path / 'fleet.db'}")
    assert [fleet.use_gate(service, "k1", ["s", "t"]) for service in ("a", "b", "a")] == [True, True, False]
    assert fleet.use_gate("a", "k2", ["t", "u", "u"])
    assert fleet.use_gate("a", "k3", [])
    assert fleet.gate_uses("a", "k4") == {"s": 1, "t": 2, "u": 1}
    assert fleet.gate_uses("a", "k2") == {"s": 1, "t": 1}
    assert fleet.gate_uses("b", "k1") == {}
    fleet.close()


def test_two_processes_that_judge_one_round_count_it_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'fleet.db'}"
    FleetStore(url).close()
    names = [str(n) for n in range(500)]

    def judge_it(_: int) -> bool:
        fleet = FleetStore(url)
        try:
            return fleet.use_gate("a", "k", names)
        finally:
            fleet.close()

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(judge_it, range(4))) == [False, False, False, True]
    fleet = FleetStore(url)
    assert fleet.gate_uses("a", "next") == dict.fromkeys(names, 1)
    fleet.close()


def test_the_exported_pipeline_is_timed_and_compared_with_the_trained_one(loop: Loop) -> None:
    loop.collect(FIRST)
    loop.round()
    loop.collect(range(1000, 1200))
    plan = loop.plan()
    candidate = loop.train(plan)
    decision = judged(loop, plan, candidate).decision
    assert decision.agreement == Agreement(samples=decision.samples, share=1)
    assert decision.latency is not None
    assert decision.latency.candidate_ms > 0
    assert decision.latency.ratio is not None
    estimator = pickle.loads(loop.store.get(blob_key(candidate.layers["pipeline"])))
    estimator[-1].intercept_ += 5
    wrong = put_blob(loop.store, pickle.dumps(estimator))
    changed = candidate.model_copy(update={"layers": candidate.layers | {"pipeline": wrong}})
    refused = judged(loop, plan, changed).decision
    assert (refused.verdict, refused.harmful) == ("fail", False)
    assert refused.reason.startswith("the exported model answers as the trained one on 0.0% of")


def test_the_field_is_estimated_from_what_the_fleet_sent(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    ways: list[tuple[str, float]] = [("audit", 0.1), ("threshold", 1.0), ("reference", 1.0)]
    made = [
        sample(number, selected_by=ways[number % 3][0], selection_probability=ways[number % 3][1], group=f"g{number}")
        for number in range(90)
    ]
    loop.tables.merge("samples", [to_row(s) for s in made], Sample)
    members = [Member(s.sample_id, "1", "human", START, "gate", s.selected_by) for s in made]
    right = np.asarray([m.selected_by != "threshold" for m in members])
    found = field_estimates(loop.tables, members, {"champion": right}, 0)
    assert {name: one.samples for name, one in found.items()} == {
        "champion, audit slice": 30,
        "champion, all by weight": 60,
    }
    assert found["champion, audit slice"].value == 1
    assert found["champion, all by weight"].value == pytest.approx(300 / 330)


def test_regressors_have_no_accuracy_to_estimate(loop: Loop) -> None:
    loop.collect(FIRST)
    plan = loop.plan()
    assert judged(loop, plan, loop.train(plan)).estimates == {}


def classified(**changes: Any) -> Evaluation:
    truth = np.zeros(200)
    champion, candidate = truth.copy(), truth.copy()
    champion[:60], candidate[:10] = 1, 1
    arguments: dict[str, Any] = {
        "slices": {"old": np.arange(200) < 100, "hard": np.arange(200) > 150},
        "release_bytes": 2000,
        "latency": Latency(samples=50, candidate_ms=2, champion_ms=1),
        "agreed": Agreement(samples=200, share=0.995),
        "uses": 7,
    } | changes
    decision = decide(Gate(max_release_bytes=3000), "accuracy", truth, candidate, champion, **arguments)
    return Evaluation.model_validate(
        {
            "key": "k",
            "metric": "accuracy",
            "decision": decision,
            "test": {"samples": 0, "candidate": None, "champion": None},
        }
    )


def test_people_read_all_that_a_decision_rests_on() -> None:
    text = decision_text(classified(), Gate(max_release_bytes=3000), "4", "3", held=12)
    for line in (
        "## pass: better than the champion: gain +0.250",
        "Version 4 against 3, on 200 locked gate samples.",
        "| old | 100 | 0.900 | 0.400 | +0.500 | ",
        "(90% each) | 0.05 |",
        "| McNemar's exact test, p | 0.0000 | at most 0.01 |",
        "| right alone: candidate, champion | 50, 0 |",
        "| release, bytes | 2000 | at most 3000 |",
        "| median answer against the champion's | 2.00 | at most 3 |",
        "| export answers as the trained pipeline | 99.5% of 200 | at least 99.0%, or all but one |",
        "| most decisions of one gate sample | 7 | at most 50 |",
        "12 new labels are set aside until a stronger source confirms them.",
    ):
        assert line in text
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert all(len({row.count("|") for row in table}) == 1 for table in tables)


@pytest.mark.parametrize("champion", [False, True])
def test_a_decision_on_nothing_can_be_read(champion: bool) -> None:
    nothing = np.zeros(0)
    decision = decide(Gate(), "r2", nothing, nothing, nothing if champion else None, {})
    evaluation = classified().model_copy(update={"decision": decision})
    assert "0 gate samples with trusted labels are too few" in decision_text(evaluation, Gate(), "1", None)


def test_decisions_of_former_versions_can_be_read() -> None:
    """Records of rounds are kept for years."""
    old = {
        "verdict": "fail",
        "reason": "no",
        "samples": 40,
        "candidate": 0.5,
        "champion": 0.6,
        "slices": {"old": {"samples": 20, "candidate": 0.5, "champion": 0.6}},
    }
    decision = Decision.model_validate(old)
    assert decision.slices["old"] == SliceResult(samples=20, candidate=0.5, champion=0.6)
    assert "| old | 20 | 0.500 | 0.600 |" in decision_text(
        classified().model_copy(update={"decision": decision}), Gate(), "1", None
    )


def test_only_gate_samples_are_counted(loop: Loop) -> None:
    loop.collect(FIRST)
    plan = loop.plan()
    tables: Tables = loop.tables
    members = [m for m in members_of(tables, "rater", plan.dataset.tables) if m.split == "gate"]
    judged(loop, plan, loop.train(plan))
    assert loop.fleet.gate_uses("rater", "another") == {m.sample_id: 1 for m in members}
