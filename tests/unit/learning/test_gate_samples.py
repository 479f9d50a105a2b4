"""Of very many gate samples a part judges: the same from round to round, until they are worn."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from edgeloop.learning.evaluate import Evaluation, evaluate, predict_split
from edgeloop.learning.gate_text import decision_text
from edgeloop.learning.kept_inputs import inputs_key, kept_inputs
from edgeloop.learning.labelled import labelled_shares
from edgeloop.learning.pool import first_usable
from edgeloop.learning.rounds import Plan
from edgeloop.learning.train import Candidate
from edgeloop.samples.dataset import dataset_members
from edgeloop.samples.judging import Gate
from edgeloop.samples.members import Member, rank_of
from tests.unit.learning.loop import GATE, Loop, rater

FIRST, SECOND = range(400), range(400, 800)


def capped(folder: Path, **gate: Any) -> Loop:
    return Loop(folder, rater(gate=GATE | {"max_samples": 30} | gate))


def made(loop: Loop) -> tuple[Plan, Candidate]:
    plan = loop.plan()
    return plan, loop.train(plan)


def judges(loop: Loop, plan: Plan, candidate: Candidate, split: Literal["gate", "test"] = "gate") -> list[Member]:
    return predict_split(loop.store, loop.tables, loop.service, plan.dataset, candidate, split).members


def lowest(loop: Loop, plan: Plan, split: Literal["gate", "test"], skip: frozenset[str] = frozenset()) -> set[str]:
    ids = [name for name in dataset_members(loop.store, loop.tables, plan.dataset).of(split).ids if name not in skip]
    return {*sorted(ids, key=lambda name: rank_of("rater", name))[:30]}


@pytest.mark.parametrize("split", ["gate", "test"])
def test_the_lowest_ranks_judge_and_go_on_judging(tmp_path: Path, split: Literal["gate", "test"]) -> None:
    loop = capped(tmp_path)
    loop.collect(FIRST)
    plan, candidate = made(loop)
    assert plan.dataset.counts[split] > 60
    first = judges(loop, plan, candidate, split)
    assert [m.sample_id for m in first] == sorted(lowest(loop, plan, split))
    loop.collect(SECOND)
    again, later = made(loop)
    second = {m.sample_id for m in judges(loop, again, later, split)}
    came = {m.sample_id for m in dataset_members(loop.store, loop.tables, again.dataset).listed()}
    came -= {m.sample_id for m in dataset_members(loop.store, loop.tables, plan.dataset).listed()}
    assert second == lowest(loop, again, split)
    assert second - {m.sample_id for m in first} <= came, "only new ones can take a place"
    assert 5 < len(second - came) < 25


def test_where_there_are_no_more_all_judge_and_nothing_is_said_of_it(tmp_path: Path) -> None:
    loop = capped(tmp_path, max_samples=5000)
    loop.collect(FIRST)
    plan, candidate = made(loop)
    evaluation = loop.evaluate(plan, candidate)
    assert evaluation.decision.samples == plan.dataset.counts["gate"]
    assert evaluation.drawn_from == {}
    assert "drawn" not in decision_text(evaluation, loop.service.gate, "1", None)
    loop.service = rater(gate=GATE | {"max_samples": None})
    assert loop.evaluate(plan, candidate).decision.samples == plan.dataset.counts["gate"]


def test_people_are_told_of_how_many_they_were_drawn(tmp_path: Path) -> None:
    loop = capped(tmp_path)
    loop.collect(FIRST)
    plan, candidate = made(loop)
    evaluation = loop.evaluate(plan, candidate)
    counts = plan.dataset.counts
    assert evaluation.drawn_from == {"gate": counts["gate"], "test": counts["test"]}
    assert (evaluation.decision.samples, evaluation.test.samples) == (30, 30)
    text = decision_text(evaluation, loop.service.gate, "1", None)
    assert f"on 30 locked gate samples, drawn from {counts['gate']} by a hash of their names." in text


def test_worn_samples_make_room_for_others(tmp_path: Path) -> None:
    loop = capped(tmp_path, max_reuse=1)
    loop.collect(FIRST)
    plan, candidate = made(loop)
    seen: list[Evaluation] = []
    worn: frozenset[str] = frozenset()
    for number in range(2):
        one = candidate.model_copy(update={"key": f"sha256:{number}"})
        seen.append(evaluate(loop.store, loop.tables, loop.service, plan.dataset, one, loop.fleet))
        uses = loop.fleet.gate_uses("rater", "the next")
        assert set(uses) - worn == lowest(loop, plan, "gate", worn)
        worn = frozenset(uses)
    assert [e.decision.samples for e in seen] == [30, 30]
    assert [e.decision.worn for e in seen] == [0, 0]
    for number in range(2, 6):
        one = candidate.model_copy(update={"key": f"sha256:{number}"})
        last = evaluate(loop.store, loop.tables, loop.service, plan.dataset, one, loop.fleet).decision
    assert last.worn > 0, "when few are fresh, worn ones fill the places and may refuse"
    assert last.worn + last.samples == 30
    assert last.verdict == "inconclusive"


def test_what_cannot_be_used_is_skipped_in_order_and_no_more_is_looked_at(tmp_path: Path) -> None:
    loop = capped(tmp_path)
    loop.collect(FIRST)
    members = dataset_members(loop.store, loop.tables, loop.plan().dataset)
    ids = members.ids
    bad = {name: "no" for place, name in enumerate(ids) if place % 3 == 0}
    asked: list[str] = []

    def faults_of(names: Any) -> dict[str, str]:
        asked.extend(names)
        return {name: bad[name] for name in names if name in bad}

    found = first_usable(members, 100, faults_of, besides=["other"])
    good = [name for name in ids if name not in bad]
    assert found.members.ids == good[:100]
    assert found.looked == ids.index(good[99]) + 1
    assert found.faults == {name: "no" for name in ids[: found.looked] if name in bad}
    assert len(asked) == len(set(asked)) <= 100 + 100 + 1
    few = first_usable(members, 10_000, faults_of)
    assert (few.members.ids, few.looked) == (good, len(ids))


def test_a_most_below_the_least_is_refused() -> None:
    with pytest.raises(ValueError, match="max_samples 20 is below min_samples 30"):
        Gate(max_samples=20)


def test_chances_are_those_of_the_field_when_a_part_was_drawn(tmp_path: Path) -> None:
    loop = capped(tmp_path)
    loop.collect(FIRST, selected_by="audit", selection_probability=0.1)
    loop.collect(SECOND, selected_by="threshold", selection_probability=1.0)
    dataset = loop.plan().dataset
    gate = dataset_members(loop.store, loop.tables, dataset).of("gate")
    assert labelled_shares(dataset, gate.listed(), 1.0) == (1.0, 1.0)
    half = gate.where(gate.ranks() < np.uint64(2**63))
    shares = labelled_shares(dataset, half.listed(), len(half) / len(gate))
    assert shares is not None
    assert min(shares) > 0.8, "they were drawn; what they stand for is all labelled"
    assert labelled_shares(dataset.model_copy(update={"accepted": None}), gate.listed(), 1.0) is None


def test_raw_inputs_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = capped(tmp_path)
    made = loop.collect(range(6))
    ids = [s.sample_id for s in made]
    asked: list[int] = []
    read = loop.tables.read

    def counted(*args: Any, **kwargs: Any) -> Any:
        found = read(*args, **kwargs)
        asked.append(len(found))
        return found

    monkeypatch.setattr(loop.tables, "read", counted)
    payloads = {s.sample_id: s.payload for s in made}
    assert kept_inputs(loop.store, loop.tables, ids[:4]) == {name: payloads[name] for name in ids[:4]}
    assert kept_inputs(loop.store, loop.tables, ids[1:]) == {name: payloads[name] for name in ids[1:]}
    assert kept_inputs(loop.store, loop.tables, ids[1:]) == {name: payloads[name] for name in ids[1:]}
    assert asked == [4, 2]
    loop.store.put(inputs_key("rater"), b"no zip")
    assert kept_inputs(loop.store, loop.tables, ids) == payloads
