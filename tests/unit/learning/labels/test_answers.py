"""An answer takes the way of all labels, once, and what may be asked follows from what is there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeloop.learning.labels.answers import (
    ImpossibleLabel,
    NoName,
    UnknownSample,
    all_labels,
    apart,
    checked_name,
    keep,
    make_label,
    refuse_unknown,
)
from edgeloop.learning.labels.queue import Asked
from edgeloop.learning.labels.waiting import Asker, Found, NothingToAsk, build_queue, sort_samples, standing
from edgeloop.quality.ingest import ingest
from edgeloop.samples.inputs import extras
from edgeloop.samples.labelling import Shares
from edgeloop.samples.records import Hold, Label, Sample, digest
from edgeloop.samples.segments import to_row
from edgeloop.samples.splits import split_of
from tests.unit.learning.labels.world import World
from tests.unit.samples.make import classifier, label, looker, picture, regressor, sample, withheld

ASKED = Asked(purpose="learn", why="typical")


def samples(split: str, count: int, service: str = "rater", start: int = 0, **changes: Any) -> list[Sample]:
    """Samples whose group is of this side of the split."""
    isin = (n for n in range(start, 10_000) if (split_of(f"group-{n}", service) == "pool") == (split == "pool"))
    return [sample(next(isin), service, **changes) for _ in range(count)]


def look(world: World, by: str | None, twice: float) -> Found:
    labels = standing(world.tables, all_labels(world.store, world.tables, world.service))
    return sort_samples(world.tables, world.service, labels, Asker(by, Shares(twice=twice)))


def answer(world: World, of: Sample, text: str, by: str = "ann") -> Label:
    one = make_label(world.service, of.sample_id, text, by, ASKED)
    keep(world.store, world.service, [one])
    return one


def test_an_answer_is_ingested_with_why_it_was_asked() -> None:
    world = World(regressor())
    world.add([sample(1)])
    one = answer(world, sample(1), "4")
    assert all_labels(world.store, world.tables, world.service) == [one]
    assert ingest(world.store, world.tables, world.service).labels == 1
    [row] = world.tables.read("labels")
    assert (row["label"], row["source"], row["by"]) == ("4", "human", "ann")
    assert extras(row) == {"asked": {"purpose": "learn", "why": "typical", "probability": None}}
    assert all_labels(world.store, world.tables, world.service) == [one]


def test_the_same_answer_twice_is_one() -> None:
    world = World(regressor())
    world.add([sample(1)])
    one = answer(world, sample(1), "4")
    ingest(world.store, world.tables, world.service)
    keep(world.store, world.service, [one])
    assert len(all_labels(world.store, world.tables, world.service)) == 1
    assert ingest(world.store, world.tables, world.service).labels == 0


def test_contradictory_answers_are_both_kept() -> None:
    world = World(regressor())
    world.add([sample(1)])
    answer(world, sample(1), "4"), answer(world, sample(1), "7", "bob")
    assert ingest(world.store, world.tables, world.service).labels == 2


def test_equal_answers_of_one_moment_are_both_kept() -> None:
    world = World(regressor())
    twins = [label(sample(1), "4", by="ann"), label(sample(1), "4", by="bob")]
    assert apart(twins) == apart(twins[::-1])
    keep(world.store, world.service, apart(twins))
    assert ingest(world.store, world.tables, world.service).labels == 2


@pytest.mark.parametrize("by", [None, "", "  ", "a\nb", "x" * 101])
def test_nobody_cannot_answer(by: str | None) -> None:
    with pytest.raises(NoName, match=r"--by NAME|plain one"):
        checked_name(by)


def test_impossible_answers_are_refused() -> None:
    with pytest.raises(ImpossibleLabel, match="'w' is not one of"):
        make_label(classifier(), "a", "w", "ann", None)
    with pytest.raises(ImpossibleLabel, match="not between"):
        make_label(regressor(), "a", "11", "ann", None)


def test_unknown_samples_are_refused() -> None:
    world = World(regressor())
    world.add([sample(1)])
    refuse_unknown(world.tables, world.service, [sample(1).sample_id])
    with pytest.raises(UnknownSample, match=f"1 of 2 samples, {sample(2).sample_id}"):
        refuse_unknown(world.tables, world.service, [sample(1).sample_id, sample(2).sample_id])


# --- what may be asked


def test_judges_samples_are_audit_samples_only() -> None:
    world = World(regressor())
    audited, chosen = samples("gate", 3), samples("gate", 3, start=500, selected_by="margin")
    world.add([*audited, *chosen])
    found = look(world, "ann", 0.1)
    assert set(found.judge) == {s.sample_id for s in audited}
    assert found.learn == []
    queue = build_queue(world.store, world.tables, world.service, "ann", 10, 0)
    assert {one.asked.purpose for one in queue} == {"judge"}


def test_a_devices_label_teaches_and_does_not_judge() -> None:
    world = World(regressor())
    [learn], [judge] = samples("pool", 1), samples("gate", 1)
    world.add([learn, judge])
    world.label(label(learn, "4", "device"), label(judge, "4", "device"))
    found = look(world, "ann", 0.1)
    assert (found.learn, found.judge) == ([], [judge.sample_id])
    [row] = [r for r in world.tables.read("labels") if r["sample_id"] == learn.sample_id]
    hold = Hold(sample_id=learn.sample_id, label="4", source="device", at=row["at"], reason="harm")
    world.tables.merge("holds", [to_row(hold)], Hold)
    assert look(world, "ann", 0.1).learn == [learn.sample_id]


def test_nobody_is_asked_twice_and_two_people_where_two_are_wanted() -> None:
    world = World(regressor())
    world.add(samples("pool", 30))
    shares = Shares(twice=1.0)
    mine = build_queue(world.store, world.tables, world.service, "ann", 10, 0, shares)
    for one in mine:
        keep(world.store, world.service, [make_label(world.service, one.sample_id, "4", "ann", one.asked)])
    names = {one.sample_id for one in mine}
    again = build_queue(world.store, world.tables, world.service, "ann", 99, 0, shares)
    assert len(again) == 20 and not names & {one.sample_id for one in again}
    others = build_queue(world.store, world.tables, world.service, "bob", 99, 0, shares)
    assert {one.sample_id for one in others if one.asked.why == "second"} == names
    for one in others:
        keep(world.store, world.service, [make_label(world.service, one.sample_id, "5", "bob", one.asked)])
    third = build_queue(world.store, world.tables, world.service, "cy", 99, 0, shares)
    assert not names & {one.sample_id for one in third}, "two have answered"
    nobody = look(world, None, 1.0)
    assert nobody.second == {}


def test_labels_of_a_data_set_want_no_second_opinion() -> None:
    world = World(regressor())
    [one] = samples("pool", 1)
    world.add([one])
    world.send(label(one, "4", by="data set"))
    assert look(world, "ann", 1.0).second == {}


def test_an_empty_queue_says_why() -> None:
    world = World(regressor())
    with pytest.raises(NothingToAsk, match="rater: it has no samples yet"):
        build_queue(world.store, world.tables, world.service, "ann", 5, 0)
    first, second, third = samples("pool", 3)
    world.add([first])
    world.add([second], accepted=None)
    world.add([third], accepted=False)
    world.add(samples("gate", 1, selected_by="margin"))
    world.label(label(first, "4"))
    said = "of 4 samples 1 are kept for judging .*, 1 are labelled, 1 wait for validation, 1 were refused by validation"
    with pytest.raises(NothingToAsk, match=said):
        build_queue(world.store, world.tables, world.service, "ann", 5, 0)


def test_rows_are_compared_by_their_features_and_few_labels_mean_typical_ones() -> None:
    world = World(classifier())
    world.add(samples("pool", 40, "sorter", prediction="x"))
    asked = build_queue(world.store, world.tables, world.service, "ann", 10, 0)
    assert {one.asked.why for one in asked} == {"random", "typical"}
    many = samples("pool", 40, "sorter", start=1000, prediction="x")
    world.add(many)
    world.label(*(label(s, "xyz"[i % 3], seconds=i) for i, s in enumerate(many)))
    asked = build_queue(world.store, world.tables, world.service, "ann", 10, 0)
    assert {one.asked.why for one in asked} == {"random", "uncertain"}


def test_images_are_compared_by_their_embeddings_and_those_that_stayed_away_are_not_asked() -> None:
    world = World(looker())
    backbone = digest(b"backbone")
    shown = samples("pool", 12, "looker", prediction="cat")
    rows = [
        s.model_copy(
            update={
                "payload": picture(i),
                "embedding": np.array([i % 3, 1], "<f2").tobytes(),
                "backbone_digest": backbone,
            }
        )
        for i, s in enumerate(shown)
    ]
    away = withheld(900, [1.0, 2.0], backbone)
    world.add([*rows, away])
    asked = build_queue(world.store, world.tables, world.service, "ann", 20, 0)
    assert {one.sample_id for one in asked} == {s.sample_id for s in shown}
    assert {one.asked.why for one in asked} == {"random", "typical"}


def test_images_without_embeddings_are_drawn_at_random() -> None:
    world = World(looker())
    world.add([s.model_copy(update={"payload": picture(1)}) for s in samples("pool", 8, "looker")])
    asked = build_queue(world.store, world.tables, world.service, "ann", 4, 0)
    assert {(one.asked.why, one.asked.probability) for one in asked} == {("random", 0.5)}
