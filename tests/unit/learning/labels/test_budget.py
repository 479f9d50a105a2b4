"""What may still be asked today and in this round, and what the YAML says of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.learning.labels.budget import BudgetSpent, left_to_ask
from edgeloop.learning.labels.waiting import build_queue
from edgeloop.samples.labelling import Labelling
from edgeloop.samples.records import Label
from edgeloop.samples.service import MalformedService, parse_service
from tests.unit.learning.labels.test_answers import answer, samples
from tests.unit.learning.labels.world import World
from tests.unit.samples.make import label, regressor, sample

NOON = datetime(2024, 5, 2, 12, tzinfo=UTC)
ASKED = {"purpose": "learn", "why": "random", "probability": 0.5}


def given_at(*hours: float, by: str = "ann") -> list[Label]:
    """Answers to requests, so many hours after noon."""
    return [label(sample(n), "4", by=by, at=NOON + timedelta(hours=h), asked=ASKED) for n, h in enumerate(hours)]


def test_without_limits_there_are_none() -> None:
    assert left_to_ask(given_at(0, 1), Labelling(), None, NOON) is None


def test_a_day_is_a_day_of_utc() -> None:
    rules = Labelling(per_day=4)
    labels = given_at(-13, -12, 0, 11.9, 12)
    assert left_to_ask(labels, rules, None, NOON) == 1
    elsewhere = NOON.astimezone(timezone(timedelta(hours=13)))
    assert left_to_ask(labels, rules, None, elsewhere) == 1
    with pytest.raises(BudgetSpent, match=r"3 answers .* labelling.per_day is 3: wait until 2024-05-03 00:00 UTC"):
        left_to_ask(labels, Labelling(per_day=3), None, NOON)


def test_a_round_begins_with_the_gates_decision() -> None:
    labels, rules = given_at(-30, -2, -1), Labelling(per_round=5)
    assert left_to_ask(labels, rules, None, NOON) == 2
    assert left_to_ask(labels, rules, NOON - timedelta(hours=1.5), NOON) == 4
    with pytest.raises(BudgetSpent, match="per_round is 3: wait until the gate has decided"):
        left_to_ask(labels, Labelling(per_round=3), None, NOON)


def test_only_what_was_asked_counts_and_a_correction_does_not() -> None:
    mine = given_at(0)
    corrected = mine[0].model_copy(update={"label": "5", "at": NOON + timedelta(hours=1)})
    others = [label(sample(9), "4", at=NOON), label(sample(8), "4", "device", at=NOON)]
    assert left_to_ask([*mine, corrected, *others], Labelling(per_day=5), None, NOON) == 4


@given(st.lists(st.floats(-48, 48), max_size=20), st.integers(1, 20), st.integers(1, 20))
def test_the_tighter_limit_holds(hours: list[float], per_day: int, per_round: int) -> None:
    rules = Labelling(per_day=per_day, per_round=per_round)
    try:
        left = left_to_ask(given_at(*hours), rules, None, NOON)
    except BudgetSpent:
        assert len(hours) >= min(per_day, per_round)
    else:
        assert left is not None
        assert 1 <= left <= min(per_day, per_round - len(hours))


def test_a_queue_is_no_longer_than_what_is_left() -> None:
    world = World(regressor(labelling={"per_day": 3}))
    waiting = samples("pool", 10)
    world.add(waiting)
    assert len(build_queue(world.store, world.tables, world.service, "ann", 8, 0)) == 3
    answer(world, waiting[0], "4")
    assert len(build_queue(world.store, world.tables, world.service, "ann", 8, 0)) == 2
    answer(world, waiting[1], "4"), answer(world, waiting[2], "4")
    with pytest.raises(BudgetSpent):
        build_queue(world.store, world.tables, world.service, "bob", 8, 0)


def test_shares_are_the_services() -> None:
    world = World(regressor(labelling={"shares": {"judge": 1.0}}))
    world.add([*samples("pool", 10), *samples("gate", 10)])
    assert {one.asked.purpose for one in build_queue(world.store, world.tables, world.service, "ann", 8, 0)} == {
        "judge"
    }


TEXT = """version: 1
name: rater
kind: tabular-regressor
description: rates
features: [{name: a}]
target: {name: y}
labelling:
  %s
"""


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("per_day: 0", r"labelling.per_day: .*greater than or equal to 1"),
        ("shares: {judge: 1.5}", r"labelling.shares.judge: .*less than or equal to 1"),
        ("doubt: guess", r"labelling.doubt: .*'margin' or 'entropy'"),
        ("pseudo: {enabled: true}", "labelling.pseudo needs a confidence, which a tabular-regressor has not"),
    ],
)
def test_what_the_yaml_cannot_say(line: str, part: str) -> None:
    with pytest.raises(MalformedService, match=part):
        parse_service(TEXT % line, "rater.yaml")
