"""Round after round: what is better is promoted, what does harm is held, and nothing is done twice."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from edgeloop.clients.models import load_model
from edgeloop.clients.objects import ObjectMissing
from edgeloop.clients.registry import ModelRegistry
from edgeloop.learning.evaluate import encode_truth, predict_split
from edgeloop.learning.rounds import RoundRecord, load_round, promote, save_round
from edgeloop.samples.records import Label, LabelSource, Sample
from edgeloop.samples.releases import blob_key
from edgeloop.samples.segments import to_row
from edgeloop.samples.splits import split_of
from edgeloop.samples.table import Tables
from edgeloop.store import FleetStore
from tests.unit.learning.loop import Loop
from tests.unit.samples.broken import Crash, Fuse, Guarded, crash_everywhere
from tests.unit.samples.make import START, classifier, label

NOISY, CLEAN = range(120), range(1000, 1400)


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    return Loop(tmp_path)


def poor_start(loop: Loop) -> None:
    """A first champion that has much to learn: its pool labels are poor, those that judge are not."""
    pool = [n for n in NOISY if split_of(f"group-{n}", "rater") == "pool"][:12]
    rest = [n for n in NOISY if split_of(f"group-{n}", "rater") != "pool"]
    loop.collect(pool, noise=4)
    loop.collect(rest)
    promotion = loop.round()
    assert promotion is not None
    assert promotion.promoted


def wrong_labels(loop: Loop, source: LabelSource = "device", numbers: range = CLEAN) -> list[Sample]:
    """New pool samples, all labelled wrongly."""
    return loop.collect(
        [n for n in numbers if split_of(f"group-{n}", "rater") == "pool"], source=source, shift=-30, noise=20
    )


def test_nothing_to_learn_is_said(loop: Loop) -> None:
    assert loop.plan().skip == "no labelled samples to learn from yet"
    loop.collect([n for n in range(40) if split_of(f"group-{n}", "rater") != "pool"])
    assert loop.plan().skip == "no labelled samples to learn from yet"


def test_a_first_model_is_promoted(loop: Loop) -> None:
    loop.collect(NOISY)
    plan = loop.plan()
    assert (plan.skip, plan.base, plan.mode) == (None, None, "sklearn")
    promotion = loop.round()
    assert promotion is not None
    assert (promotion.promoted, promotion.verdict, promotion.version, promotion.former) == (True, "pass", "1", None)
    assert loop.champion() == "1"
    row = loop.fleet.entry("rater", "gate", plan.key)
    assert row is not None
    assert (row["verdict"], row["version"], row["dataset"], row["who"]) == ("pass", "1", plan.dataset.id, "gate")


def test_a_better_model_replaces_the_champion(loop: Loop) -> None:
    poor_start(loop)
    loop.collect(CLEAN)
    plan = loop.plan()
    assert plan.base is not None
    assert plan.base.version == "1"
    promotion = loop.round()
    assert promotion is not None
    assert (promotion.promoted, promotion.version, promotion.former, promotion.held) == (True, "2", "1", 0)
    assert loop.champion() == "2"


def test_with_nothing_new_nothing_is_trained(loop: Loop) -> None:
    loop.collect(NOISY)
    assert loop.round() is not None
    assert loop.plan().skip == "no new data since version 1"
    assert loop.round() is None
    assert loop.champion() == "1"


def test_what_was_judged_is_not_judged_again(loop: Loop) -> None:
    loop.collect(NOISY)
    assert loop.round() is not None
    loop.collect(range(500, 510))
    refused = loop.round()
    assert refused is not None
    assert not refused.promoted
    skip = loop.plan().skip
    assert skip is not None
    assert skip.startswith("no new data since this dataset was judged: fail, ")
    assert loop.champion() == "1"


def test_asked_by_hand_for_another_seed_it_trains_again(loop: Loop) -> None:
    loop.collect(NOISY)
    loop.round()
    assert loop.plan(mode="sklearn").skip is None
    assert loop.plan(mode="sklearn", seed=5).seed == 5


def test_harmful_labels_are_held_and_their_samples_kept(loop: Loop) -> None:
    loop.collect(NOISY)
    loop.round()
    bad = wrong_labels(loop)
    promotion = loop.round()
    assert promotion is not None
    assert (promotion.promoted, promotion.held) == (False, len(bad))
    assert loop.held() == {s.sample_id for s in bad}
    assert loop.champion() == "1"
    assert loop.plan().skip == "no new data since version 1"


def test_after_a_hold_good_data_is_learned_from(loop: Loop) -> None:
    poor_start(loop)
    bad = wrong_labels(loop)
    assert loop.round() is not None
    assert loop.held() == {s.sample_id for s in bad}
    loop.collect(range(2000, 2300))
    promotion = loop.round()
    assert promotion is not None
    assert promotion.promoted, promotion.reason


def test_labels_of_a_trusted_source_are_not_held(loop: Loop) -> None:
    loop.collect(NOISY)
    loop.round()
    bad = wrong_labels(loop)
    trusted = wrong_labels(loop, "human", range(3000, 3040))
    promotion = loop.round()
    assert promotion is not None
    assert not promotion.promoted
    assert loop.held() == {s.sample_id for s in bad}
    assert not loop.held() & {s.sample_id for s in trusted}


def test_labels_of_an_innocent_round_are_not_held(loop: Loop) -> None:
    loop.collect(NOISY)
    loop.round()
    fine = loop.collect(range(500, 520), source="device")
    innocent = loop.round()
    assert innocent is not None
    assert innocent.held == 0
    bad = wrong_labels(loop)
    loop.round()
    assert loop.held() == {s.sample_id for s in bad}
    assert not loop.held() & {s.sample_id for s in fine}


def test_a_wrong_label_given_again_is_held_again(loop: Loop) -> None:
    loop.collect(NOISY)
    loop.round()
    bad = wrong_labels(loop)
    loop.round()
    later = [label(s, "-500.0", "device", seconds=9999 + n) for n, s in enumerate(bad)]
    loop.tables.merge("labels", [to_row(x) for x in later], Label)
    promotion = loop.round()
    assert promotion is not None
    assert (promotion.promoted, promotion.held) == (False, len(bad))


def test_promoting_twice_changes_nothing(loop: Loop) -> None:
    loop.collect(NOISY)
    loop.round()
    wrong_labels(loop)
    plan = loop.plan()
    candidate = loop.train(plan)
    evaluation = loop.evaluate(plan, candidate)
    version = loop.register(candidate)
    first = loop.promote(plan, candidate, evaluation, version)
    before = loop.fleet.history("rater"), loop.held(), loop.champion()
    again = loop.promote(plan, candidate, evaluation, version)
    assert again.model_copy(update={"held": first.held}) == first
    assert (loop.fleet.history("rater"), loop.held(), loop.champion()) == before


def test_only_trusted_labels_judge(loop: Loop) -> None:
    """A model that learned wrong labels must not be judged by more of them."""
    loop.collect(NOISY)
    loop.round()
    loop.collect(CLEAN, source="device", shift=-30)
    plan = loop.plan()
    candidate = loop.train(plan)
    judged = predict_split(loop.store, loop.tables, loop.service, plan.dataset, candidate, "gate")
    assert {m.source for m in judged.members} == {"human"}
    assert {m.split for m in judged.members} == {"gate"}
    decision = loop.evaluate(plan, candidate).decision
    assert decision.samples == len(judged.members)
    assert decision.verdict == "fail"
    assert decision.harmful


def test_the_slices_are_those_of_the_champions_dataset(loop: Loop) -> None:
    loop.collect(NOISY)
    loop.round()
    before = {m for m in range(len(NOISY)) if split_of(f"group-{m}", "rater") == "gate"}
    loop.collect(CLEAN, selected_by="confidence")
    plan = loop.plan()
    decision = loop.evaluate(plan, loop.train(plan)).decision
    slices = {name: part.samples for name, part in decision.slices.items()}
    assert slices["old"] == slices["audit"] == len(before)
    assert slices["old"] + slices["new"] == decision.samples == slices["audit"] + slices["hard"]


def test_the_test_split_is_scored_for_people(loop: Loop) -> None:
    loop.collect(NOISY)
    plan = loop.plan()
    evaluation = loop.evaluate(plan, loop.train(plan))
    assert evaluation.test.samples == plan.dataset.counts["test"] > 0
    assert evaluation.test.candidate is not None
    assert evaluation.test.candidate > 0.9
    assert evaluation.test.champion is None


def test_answers_are_those_of_the_node(loop: Loop) -> None:
    loop.collect(NOISY)
    plan = loop.plan()
    candidate = loop.train(plan)
    found = predict_split(loop.store, loop.tables, loop.service, plan.dataset, candidate, "test")
    layers = {"model": loop.store.get(blob_key(candidate.layers["model"]))}
    model = load_model(loop.service.node_config(), layers)
    payloads = {r["sample_id"]: r["payload"] for r in loop.tables.read("samples", ["sample_id", "payload"])}
    assert list(found.candidate) == [model.predict(payloads[m.sample_id]).value for m in found.members]
    assert list(found.truth) == [float(m.label) for m in found.members]


def test_labels_become_their_place_in_the_services_list() -> None:
    assert encode_truth(classifier(labels=["z", "x"]), ["x", "z", "x"]).tolist() == [1, 0, 1]


def world_after(loop: Loop) -> Any:
    events = [(r["event"], r["verdict"], r["version"], r["former"]) for r in loop.fleet.history("rater")]
    return loop.champion(), loop.held(), sorted(events, key=str)


@pytest.mark.parametrize("harm", [False, True])
def test_a_promotion_that_is_cut_off_anywhere_is_finished_by_the_next_call(tmp_path: Path, harm: bool) -> None:
    ends: list[Any] = []

    def run(fuse: Fuse) -> None:
        folder = tmp_path / str(fuse.left)
        folder.mkdir()
        loop = Loop(folder)
        poor_start(loop)
        if harm:
            wrong_labels(loop)
        else:
            loop.collect(CLEAN)
        plan = loop.plan()
        candidate = loop.train(plan)
        evaluation, version = loop.evaluate(plan, candidate), loop.register(candidate)
        arguments: tuple[Any, ...] = (loop.service, plan, candidate, evaluation, version)
        guarded: tuple[Any, ...] = (
            loop.store,
            cast(Tables, Guarded(loop.tables, fuse, "merge")),
            cast(ModelRegistry, Guarded(loop.registry, fuse, "set_champion")),
            cast(FleetStore, Guarded(loop.fleet, fuse, "record", "last_judged")),
        )
        try:
            promote(*guarded, *arguments)
        except Crash:
            loop.promote(plan, candidate, evaluation, version)
        ends.append(world_after(loop))
        loop.fleet.close()

    assert crash_everywhere(run) == (3 if harm else 2)
    assert all(end == ends[-1] for end in ends)
    assert ends[-1][0] == ("1" if harm else "2")


def test_a_promotion_that_is_never_called_again_is_in_the_ledger_after_the_next_round(loop: Loop) -> None:
    loop.collect(NOISY)
    plan = loop.plan()
    candidate = loop.train(plan)
    evaluation, version = loop.evaluate(plan, candidate), loop.register(candidate)
    fleet = cast(FleetStore, Guarded(loop.fleet, Fuse(0), "record"))
    with pytest.raises(Crash):
        promote(loop.store, loop.tables, loop.registry, fleet, loop.service, plan, candidate, evaluation, version)
    assert loop.champion() == "1"
    loop.round()
    assert [row["version"] for row in loop.fleet.history("rater")] == ["1"]


def test_a_record_of_a_round_is_kept(loop: Loop) -> None:
    at = START + timedelta(seconds=1)
    record = RoundRecord(id="run-1", service="rater", reason="asked", at=at, seconds={"train": 1.5})
    save_round(loop.store, record)
    save_round(loop.store, record)
    assert load_round(loop.store, "rater", "run-1") == record
    with pytest.raises(ObjectMissing):
        load_round(loop.store, "rater", "run-2")


def test_what_a_person_confirms_makes_a_new_dataset(loop: Loop) -> None:
    """The text of a label may be the same: who said it is not."""
    loop.collect(NOISY)
    [one] = loop.collect([5000], source="device")
    before = loop.plan().dataset
    said = {r["sample_id"]: r["label"] for r in loop.tables.read("labels", ["sample_id", "label"])}[one.sample_id]
    loop.tables.merge("labels", [to_row(label(one, said, "human", seconds=9999))], Label)
    assert loop.plan().dataset.id != before.id


def test_a_candidate_is_not_promoted_over_a_champion_that_it_was_not_compared_with(loop: Loop) -> None:
    poor_start(loop)
    loop.collect(CLEAN)
    plan = loop.plan()
    candidate = loop.train(plan)
    evaluation, version = loop.evaluate(plan, candidate), loop.register(candidate)
    assert evaluation.decision.verdict == "pass"
    other = loop.register(candidate.model_copy(update={"key": "by hand"}))
    loop.registry.set_champion("rater", other.version)
    first = loop.promote(plan, candidate, evaluation, version)
    why = f"the champion changed meanwhile from 1 to {other.version}: run retrain again"
    assert (first.promoted, first.verdict, first.reason) == (False, "inconclusive", why)
    assert loop.champion() == other.version
    row = loop.fleet.entry("rater", "gate", plan.key)
    assert row is not None
    assert (row["verdict"], row["reason"]) == ("inconclusive", why)
    loop.registry.set_champion("rater", "1")
    assert loop.promote(plan, candidate, evaluation, version) == first
    assert loop.champion() == "1"


def test_a_promotion_repeated_after_a_hand_moved_the_alias_leaves_it(loop: Loop) -> None:
    poor_start(loop)
    loop.collect(CLEAN)
    plan = loop.plan()
    candidate = loop.train(plan)
    evaluation, version = loop.evaluate(plan, candidate), loop.register(candidate)
    first = loop.promote(plan, candidate, evaluation, version)
    assert first.promoted
    loop.registry.set_champion("rater", "1")
    assert loop.promote(plan, candidate, evaluation, version) == first
    assert loop.champion() == "1"


def test_bad_labels_that_came_in_an_inconclusive_round_are_held_later(loop: Loop) -> None:
    loop.collect(NOISY)
    loop.round()
    bad = wrong_labels(loop)
    few = {"gate": loop.service.gate.model_copy(update={"min_samples": 10_000})}
    usual, loop.service = loop.service, loop.service.model_copy(update=few)
    promotion = loop.round()
    assert promotion is not None
    assert (promotion.verdict, promotion.held) == ("inconclusive", 0)
    loop.service = usual
    more = wrong_labels(loop, numbers=range(4000, 4100))
    promotion = loop.round()
    assert promotion is not None
    assert promotion.held == len(bad) + len(more)
    assert loop.held() == {s.sample_id for s in [*bad, *more]}
