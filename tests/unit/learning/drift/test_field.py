"""Accuracy over time: tested against what the champion promised, and estimated without the bias of what is labelled."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeloop.learning.drift import looking
from edgeloop.learning.drift.field import LEAST_PERIOD, Answer, periods_of
from edgeloop.learning.drift.kept import WatchState
from edgeloop.learning.drift.telling import accuracy_line, as_json, markdown
from edgeloop.learning.estimate import labelled_probability, weighted_accuracy
from edgeloop.learning.evaluate import Evaluation
from edgeloop.learning.gate import Decision, SliceResult
from edgeloop.learning.labelled import labelling_chances
from edgeloop.learning.measure import field_estimates
from edgeloop.learning.rounds import Promotion, RoundRecord, save_round
from edgeloop.samples.dataset import Member
from edgeloop.samples.records import Sample
from edgeloop.samples.splits import split_of
from tests.unit.learning.drift.world import World
from tests.unit.samples.make import START, classifier

AUDIT = 0.1


def judged(world: World, version: str, accuracy: float, samples: int) -> None:
    """The record of the round that made ``version``."""
    audit = SliceResult(samples=samples, candidate=accuracy, champion=None, gain=None)
    decision = Decision(verdict="pass", reason="better", samples=samples, slices={"audit": audit})
    test: Any = {"samples": 0, "candidate": None, "champion": None}
    save_round(
        world.store,
        RoundRecord(
            id=f"run-{version}",
            service=world.service.name,
            reason="test",
            at=START,
            seconds={},
            evaluation=Evaluation(key="k", metric="accuracy", decision=decision, test=test),
            promotion=Promotion(promoted=True, verdict="pass", reason="better", version=version, former=None),
        ),
    )


def answered(world: World, count: int, right: float, seed: int) -> list[Sample]:
    """Audited answers of the same kind of input, of which a share is right; people label those that may judge."""
    rng = np.random.default_rng(seed)
    made = world.deliver(rng.normal(2, 1, (count, 2)), prediction="x", confidence=0.9, selection_probability=AUDIT)
    judges = [s for s in made if split_of(s.group, world.service.name) != "pool"]
    world.label(judges, ["x" if rng.random() < right else "y" for _ in judges])
    return judges


def sorter(folder: Path) -> World:
    world = World(folder, classifier(selection={"audit": AUDIT}))
    world.deliver(np.random.default_rng(0).normal(2, 1, (80, 2)), "reference")
    world.promote()
    return world


def state_of(world: World) -> WatchState:
    state = world.monitor().state
    assert state is not None
    return state


def test_accuracy_that_fell_below_its_floor_asks_for_a_retrain_of_its_own(tmp_path: Path) -> None:
    world = sorter(tmp_path)
    judged(world, "1", 0.95, 800)
    answered(world, 300, 0.95, 1)
    before = state_of(world)
    assert before.findings == []
    line = accuracy_line(before)
    assert line is not None
    assert "it must stay above 0.8" in line
    answered(world, 400, 0.6, 2)
    after = state_of(world)
    assert [f.kind for f in after.findings] == ["accuracy"]
    assert len(world.asked) == 1
    assert "drift: accuracy drifted" in world.asked[0]["reason"]
    accuracy = as_json(after)["accuracy"]
    assert accuracy["samples"] == after.audited > 200
    assert 0.5 < accuracy["low"] < accuracy["accuracy"] < accuracy["high"] < 0.9
    assert as_json(after)["next"].startswith("answers became worse: label new audit samples")


def test_labels_that_come_late_are_tested_once(tmp_path: Path) -> None:
    world = sorter(tmp_path)
    judged(world, "1", 0.95, 800)
    made = world.deliver(np.random.default_rng(1).normal(2, 1, (100, 2)), prediction="x", confidence=0.9)
    assert state_of(world).audited == 0
    judges = [s for s in made if split_of(s.group, "sorter") != "pool"]
    world.label(judges, ["x"] * len(judges))
    assert state_of(world).audited == len(judges)
    world.label(judges, ["y"] * len(judges))
    assert state_of(world).audited == len(judges)


def test_the_pool_is_no_judge(tmp_path: Path) -> None:
    world = sorter(tmp_path)
    judged(world, "1", 0.95, 800)
    made = world.deliver(np.random.default_rng(1).normal(2, 1, (200, 2)), prediction="x", confidence=0.9)
    pool = [s for s in made if split_of(s.group, "sorter") == "pool"]
    world.label(pool, ["y"] * len(pool))
    state = state_of(world)
    assert (state.audited, state.findings, state.periods) == (0, [], ())


def test_without_a_judgement_accuracy_is_estimated_and_not_tested(tmp_path: Path) -> None:
    world = sorter(tmp_path)
    answered(world, 300, 0.9, 1)
    state = state_of(world)
    assert accuracy_line(state) is None
    assert state.periods
    assert "### Estimated accuracy of the fleet" in markdown(state)


def test_periods_show_when_the_fleet_became_worse(tmp_path: Path) -> None:
    world = sorter(tmp_path)
    answered(world, 300, 0.95, 1)
    answered(world, 300, 0.5, 2)
    periods = state_of(world).periods
    assert len(periods) >= 4
    assert all(a.end <= b.start for a, b in pairwise(periods))
    first, last = periods[0].audit, periods[-1].audit
    assert first is not None
    assert last is not None
    assert first.low > last.high
    assert all(p.audit and p.audit.samples >= LEAST_PERIOD for p in periods)


def test_where_only_the_audit_is_labelled_weighting_knows_it() -> None:
    """Of the hard fifth 60 % are right, of the rest 95 %; rules send all hard ones, and nobody labels those."""
    rng, by_chance, by_label = np.random.default_rng(0), list[float](), list[float]()
    truth = 0.2 * 0.6 + 0.8 * 0.95
    for _ in range(200):
        hard = rng.random(3000) < 0.2
        right = rng.random(3000) < np.where(hard, 0.6, 0.95)
        audit = rng.random(3000) < AUDIT
        chosen = np.where(hard, 1.0, AUDIT)[audit]
        by_chance.append(weighted_accuracy(right[audit], chosen, resamples=2).value)
        chances = labelled_probability(chosen, AUDIT, of_audit=1.0, of_rules=0.0)
        by_label.append(weighted_accuracy(right[audit], chances, resamples=2).value)
    error = float(np.std(by_label)) / 200**0.5
    assert abs(np.mean(by_label) - truth) < 3 * error
    assert np.mean(by_chance) - truth > 0.05, "selection alone would have been wrong"


@pytest.mark.parametrize("of_rules", [0.3, 1.0])
def test_the_fleet_is_estimated_without_bias_from_a_part_of_what_rules_sent(of_rules: float) -> None:
    rng, found = np.random.default_rng(1), list[float]()
    for _ in range(60):
        answers = []
        for number in range(1500):
            hard, audit = rng.random() < 0.2, rng.random() < AUDIT
            right = bool(rng.random() < (0.6 if hard else 0.95))
            labelled = audit or rng.random() < of_rules
            if audit or hard:
                chance = 1.0 if hard else AUDIT
                at = START + timedelta(seconds=number)
                answers.append(Answer(str(number), str(number), at, audit, chance, "r", right if labelled else None))
        periods = periods_of(answers, AUDIT, seed=0)
        found += [p.weighted.value for p in periods if p.weighted]
    error = float(np.std(found)) / len(found) ** 0.5
    assert abs(np.mean(found) - 0.88) < 3 * error + 0.01


def test_the_gates_estimate_knows_who_was_asked(tmp_path: Path) -> None:
    """Half of the audited samples and none of the others are labelled; half of the audited ones are hard, and wrong."""
    world = World(tmp_path, classifier(selection={"audit": AUDIT}))
    hard = world.deliver(np.ones((100, 2)), selection_probability=1.0)
    easy = world.deliver(np.ones((100, 2)), selection_probability=AUDIT)
    world.deliver(np.ones((300, 2)), "confidence", selection_probability=1.0)
    asked = [s for s in (*hard[:50], *easy[:50]) if split_of(s.group, "sorter") == "gate"]
    members = [Member(s.sample_id, "x", "human", START, "gate", s.selected_by) for s in asked]
    right = np.asarray([s.selection_probability < 1 for s in asked])
    chances = labelling_chances(world.tables, world.service, members)
    assert np.allclose(chances, chances[0]), "each was asked about as often as the others"
    found = field_estimates(world.tables, members, {"champion": right}, 0, world.service)
    assert found["champion, all by weight"].value == pytest.approx(found["champion, audit slice"].value)
    blind = field_estimates(world.tables, members, {"champion": right}, 0)
    assert blind["champion, all by weight"].value > found["champion, all by weight"].value + 0.2


def test_a_judgement_that_is_written_after_the_first_look_is_tested_from_the_start(tmp_path: Path) -> None:
    world = sorter(tmp_path)
    first = answered(world, 300, 0.95, 1)
    before = state_of(world)
    assert "accuracy" not in before.tests.monitors
    judged(world, "1", 0.95, 800)
    later = answered(world, 60, 0.95, 2)
    after = state_of(world)
    course = after.tests.monitors["accuracy"].course
    assert course.points[-1].samples == after.audited == len(first) + len(later)
    assert {c.threshold for c in after.courses} == {course.threshold}, "it was counted from the start"


def test_a_new_part_goes_on_with_the_test_of_accuracy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = sorter(tmp_path)
    judged(world, "1", 0.95, 800)
    first = answered(world, 200, 0.9, 1)
    one = state_of(world)
    monkeypatch.setattr(looking, "LONGEST", 100)
    later = answered(world, 90, 0.9, 2)
    two = state_of(world)
    assert (one.part, two.part) == (0, 1)
    courses = [state.tests.monitors["accuracy"].course for state in (one, two)]
    assert courses[1].points[-1].samples == two.audited == len(first) + len(later)
    assert (courses[1].threshold, courses[1].floor) == (courses[0].threshold, courses[0].floor)
    assert two.courses[0].threshold > courses[1].threshold, "what begins anew has what is left of alpha"
    answered(world, 400, 0.5, 3)
    three = state_of(world)
    assert [f.kind for f in three.findings] == ["accuracy"]
    world.deliver(np.random.default_rng(4).normal(2, 1, (10, 2)), prediction="x")
    four = state_of(world)
    assert (four.part, [f.kind for f in four.findings]) == (2, ["accuracy"]), "once, not once a part"


def test_frames_of_one_session_are_one_audited_answer() -> None:
    made = [
        Answer(str(n), str(n % 3), START + timedelta(seconds=n), True, AUDIT, "r", n < 3) for n in range(LEAST_PERIOD)
    ]
    [period] = periods_of(made, AUDIT, seed=0)
    assert period.audit is not None
    assert (period.audit.samples, period.audit.value) == (3, 1.0), "the first of each group"
