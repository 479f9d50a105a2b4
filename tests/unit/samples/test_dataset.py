"""A dataset version is its members: who delivered them, when and in which order is forgotten."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest

from edgeloop.clients.objects import MemoryStore
from edgeloop.samples.dataset import (
    DatasetVersion,
    Member,
    UnknownDataset,
    example_payloads,
    freeze,
    hold_labels,
    load_dataset,
    members_of,
)
from edgeloop.samples.records import Label, LabelSource, Sample, Verdict
from edgeloop.samples.segments import to_row
from edgeloop.samples.splits import split_of
from edgeloop.samples.table import Tables, compact
from tests.unit.samples.make import START, label, picture, sample, withheld

SAMPLES = [sample(n) for n in range(8)]


class World:
    """A store, and the tables of one service in it."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.tables = Tables("rater", self.store.table)

    def add(self, samples: Sequence[Sample], accepted: bool = True) -> None:
        self.tables.merge("samples", [to_row(s) for s in samples], Sample)
        verdicts = [Verdict(sample_id=s.sample_id, accepted=accepted, at=START) for s in samples]
        self.tables.merge("verdicts", [to_row(v) for v in verdicts], Verdict)

    def label(self, *labels: Label) -> None:
        self.tables.merge("labels", [to_row(x) for x in labels], Label)

    def freeze(self) -> DatasetVersion:
        return freeze(self.store, self.tables, "rater")

    def members(self) -> list[Member]:
        return members_of(self.tables, "rater", self.freeze().tables)

    def labels(self) -> dict[str, str]:
        return {m.sample_id: m.label for m in self.members()}


@pytest.fixture
def world() -> World:
    return World()


def test_of_nothing_there_is_an_empty_version(world: World) -> None:
    version = world.freeze()
    assert version.counts == {"pool": 0, "gate": 0, "test": 0}
    assert set(version.tables.values()) == {None}
    assert world.members() == []


def test_a_member_is_accepted_and_labelled(world: World) -> None:
    world.add(SAMPLES[:2])
    world.add(SAMPLES[2:3], accepted=False)
    world.tables.merge("samples", [to_row(SAMPLES[3])], Sample)
    world.label(*(label(s, "4") for s in (*SAMPLES[1:4], SAMPLES[7])))
    assert world.labels() == {SAMPLES[1].sample_id: "4"}


def test_counts_are_those_of_the_splits(world: World) -> None:
    world.add(SAMPLES)
    world.label(*(label(s, "4") for s in SAMPLES))
    splits = [split_of(s.group, "rater") for s in SAMPLES]
    assert world.freeze().counts == {name: splits.count(name) for name in ("pool", "gate", "test")}
    assert {m.sample_id: m.split for m in world.members()} == {
        s.sample_id: split for s, split in zip(SAMPLES, splits, strict=True)
    }


def test_a_group_is_on_one_side(world: World) -> None:
    grouped = [sample(n, group=f"session-{n % 4}") for n in range(24)]
    world.add(grouped)
    world.label(*(label(s, "4") for s in grouped))
    by_group: dict[str, set[str]] = {}
    groups = {s.sample_id: s.group for s in grouped}
    for member in world.members():
        by_group.setdefault(groups[member.sample_id], set()).add(member.split)
    assert len(by_group) == 4
    assert all(len(splits) == 1 for splits in by_group.values())


def test_the_order_of_delivery_is_forgotten() -> None:
    labels = [label(s, str(n)) for n, s in enumerate(SAMPLES[:3])]
    names = set()
    for order in itertools.permutations(range(3)):
        world = World()
        for at in order:
            world.label(labels[at])
            world.add([SAMPLES[at]])
        names.add(world.freeze().id)
    assert len(names) == 1


def test_the_order_of_labels_given_at_one_time_is_forgotten() -> None:
    found = set()
    for texts in (("1", "2"), ("2", "1")):
        world = World()
        world.add(SAMPLES[:1])
        for text in texts:
            world.label(label(SAMPLES[0], text))
        found.add((world.freeze().id, world.labels()[SAMPLES[0].sample_id]))
    assert len(found) == 1


def test_nothing_new_is_the_same_version(world: World) -> None:
    world.add(SAMPLES)
    world.label(label(SAMPLES[0], "4"))
    first = world.freeze()
    world.label(label(SAMPLES[0], "3", "pseudo", seconds=99))
    world.add([sample(50)])
    assert world.freeze().id == first.id


def test_another_label_is_another_version(world: World) -> None:
    world.add(SAMPLES[:1])
    world.label(label(SAMPLES[0], "4"))
    first = world.freeze().id
    world.label(label(SAMPLES[0], "5", seconds=1))
    assert world.freeze().id != first


Given = tuple[str, LabelSource, float]


@pytest.mark.parametrize(
    ("given", "wins"),
    [
        ([("1", "human", 0)], "1"),
        ([("1", "human", 0), ("2", "human", 1)], "2"),
        ([("1", "human", 1), ("2", "human", 0)], "1"),
        ([("1", "human", 0), ("2", "device", 9)], "1"),
        ([("1", "device", 0), ("2", "pseudo", 9)], "1"),
        ([("1", "pseudo", 9), ("2", "device", 0), ("3", "human", 1)], "3"),
        ([("1", "human", 0), ("2", "pseudo", 5), ("3", "device", 9), ("4", "human", 1)], "4"),
    ],
)
def test_the_newest_label_of_the_strongest_source_wins(given: list[Given], wins: str) -> None:
    for order in (given, given[::-1], given[1:] + given[:1]):
        world = World()
        world.add(SAMPLES[:1])
        for text, source, seconds in order:
            world.label(label(SAMPLES[0], text, source, seconds))
        assert world.labels() == {SAMPLES[0].sample_id: wins}


def test_a_held_label_is_not_learned_from(world: World) -> None:
    world.add(SAMPLES[:2])
    world.label(label(SAMPLES[0], "1", "device"), label(SAMPLES[1], "2", "device"))
    held = [m for m in world.members() if m.sample_id == SAMPLES[0].sample_id]
    assert hold_labels(world.tables, held, "did harm") == 1
    assert hold_labels(world.tables, held, "did harm") == 0
    assert world.labels() == {SAMPLES[1].sample_id: "2"}


@pytest.mark.parametrize(("source", "seconds"), [("human", -5), ("human", 0), ("device", 1)])
def test_a_stronger_or_newer_label_counts_again(world: World, source: LabelSource, seconds: float) -> None:
    world.add(SAMPLES[:1])
    world.label(label(SAMPLES[0], "1", "device"))
    hold_labels(world.tables, world.members(), "did harm")
    world.label(label(SAMPLES[0], "1", "device"))
    assert world.labels() == {}
    world.label(label(SAMPLES[0], "3", source, seconds))
    assert world.labels() == {SAMPLES[0].sample_id: "3"}


def test_a_held_label_leaves_the_one_before_it(world: World) -> None:
    world.add(SAMPLES[:1])
    world.label(label(SAMPLES[0], "1", "device"), label(SAMPLES[0], "2", "device", seconds=1))
    hold_labels(world.tables, world.members(), "did harm")
    assert world.labels() == {SAMPLES[0].sample_id: "1"}


def test_a_version_reads_the_same_for_ever(world: World) -> None:
    world.add(SAMPLES[:3])
    world.label(*(label(s, "4") for s in SAMPLES[:3]))
    version, then = world.freeze(), world.members()
    payloads = example_payloads(world.tables, "rater", version, 2)
    world.add(SAMPLES[3:])
    world.label(*(label(s, "5", seconds=9) for s in SAMPLES))
    hold_labels(world.tables, then[:1], "did harm")
    again = load_dataset(world.store, "rater", version.id)
    assert again == version
    assert members_of(world.tables, "rater", again.tables) == then
    assert example_payloads(world.tables, "rater", again, 2) == payloads
    assert len(payloads) == 2


def test_a_version_reads_the_same_after_compaction(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeloop.samples.table.COMPACT_FILES", 3)
    then: list[tuple[DatasetVersion, list[Member]]] = []
    for one in SAMPLES:
        world.add([one])
        world.label(label(one, "4"))
        then.append((world.freeze(), world.members()))
        compact(world.tables, lambda _: True)
    assert compact(world.tables, lambda _: True) == []
    for version, members in then:
        again = load_dataset(world.store, "rater", version.id)
        assert members_of(world.tables, "rater", again.tables) == members
    assert [len(members) for _, members in then] == list(range(1, 9))
    assert world.freeze().id == then[-1][0].id


def test_examples_are_of_samples_that_came_with_their_input(world: World) -> None:
    raw = [sample(n, "looker", picture(n)) for n in range(3)]
    bare = [withheld(n, [1], "sha256:b") for n in range(3, 9)]
    world.add([*raw, *bare])
    world.label(*(label(s, "cat") for s in [*raw, *bare]))
    version = world.freeze()
    ordered = [s.payload for s in sorted(raw, key=lambda s: s.sample_id)]
    assert example_payloads(world.tables, "rater", version, 4) == ordered
    assert example_payloads(world.tables, "rater", version, 2) == ordered[:2]


def test_where_no_sample_came_with_its_input_there_is_no_example(world: World) -> None:
    bare = [withheld(n, [1], "sha256:b") for n in range(3)]
    world.add(bare)
    world.label(*(label(s, "cat") for s in bare))
    assert example_payloads(world.tables, "rater", world.freeze(), 4) == []


def test_freezing_twice_writes_one_manifest(world: World) -> None:
    world.add(SAMPLES[:1])
    world.label(label(SAMPLES[0], "4"))
    assert world.freeze() == world.freeze()
    assert len(list(world.store.list("datasets"))) == 1


def test_a_version_that_is_not_there_is_named(world: World) -> None:
    with pytest.raises(UnknownDataset, match=r"dataset version sha256:no of rater is not at memory/datasets/rater/no"):
        load_dataset(world.store, "rater", "sha256:no")


def test_a_member_says_where_its_label_came_from(world: World) -> None:
    world.add([sample(1, selected_by="audit")])
    world.label(label(sample(1), "4", "device", seconds=3))
    [member] = world.members()
    expected: dict[str, Any] = {"source": "device", "selected_by": "audit", "label": "4"}
    assert {name: getattr(member, name) for name in expected} == expected
    assert member.labelled_at == label(sample(1), "4", "device", seconds=3).at
