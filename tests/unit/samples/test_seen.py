"""What a freeze reads of what came since is what it would read of everything, in whatever order it came."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edgeloop.clients.objects import DirectoryStore
from edgeloop.samples.dataset import (
    DatasetVersion,
    Member,
    dataset_members,
    freeze,
    load_dataset,
    members_at,
    members_key,
    members_of,
)
from edgeloop.samples.records import LABEL_STRENGTH, Hold, Label, LabelSource, Sample, Verdict
from edgeloop.samples.seen import seen_key
from edgeloop.samples.segments import to_row
from edgeloop.samples.splits import split_of
from edgeloop.samples.table import Since, Tables, compact
from tests.unit.samples.make import START, label, sample

SAMPLES = [sample(n, selected_by=("audit", "threshold", "reference")[n % 3]) for n in range(10)]
GIVEN: list[tuple[str, LabelSource, float]] = [
    ("1", "pseudo", 9),
    ("2", "device", 1),
    ("3", "device", 1),
    ("4", "human", 0),
]
LABELS = [label(s, text, source, seconds) for s in SAMPLES for text, source, seconds in GIVEN]


class Counted(Tables):
    """Tables that count the rows that a freeze reads."""

    rows = 0

    def since(self, name: str, columns: Sequence[str], version: int, known: Sequence[str]) -> Since:
        found = super().since(name, columns, version, known)
        self.rows += len(found.rows)
        return found


class World:
    """A store, and the tables of one service in it."""

    def __init__(self, folder: Path) -> None:
        self.store = DirectoryStore(folder)
        self.tables = Counted("rater", self.store.table)

    def samples(self, *which: int) -> None:
        self.tables.merge("samples", [to_row(SAMPLES[n]) for n in which], Sample)

    def verdict(self, n: int, accepted: bool = True) -> None:
        verdict = Verdict(sample_id=SAMPLES[n].sample_id, accepted=accepted, at=START)
        self.tables.merge("verdicts", [to_row(verdict)], Verdict)

    def label(self, n: int) -> None:
        self.tables.merge("labels", [to_row(LABELS[n])], Label)

    def hold(self, n: int) -> None:
        one = LABELS[n]
        held = Hold(sample_id=one.sample_id, label=one.label, source=one.source, at=one.at, reason="did harm")
        self.tables.merge("holds", [to_row(held)], Hold)

    def compact(self, _: int) -> None:
        compact(self.tables, lambda _: True)

    def freeze(self) -> DatasetVersion:
        return freeze(self.store, self.tables, "rater")

    def grow(self) -> None:
        self.samples(*range(6))
        for n in range(6):
            self.verdict(n)
            self.label(4 * n + 3)


def expected(tables: Tables) -> list[Member]:
    """Who is a member, worked out row by row."""
    held = {(r["sample_id"], r["source"], r["at"], r["label"]) for r in tables.read("holds")}
    accepted = {r["sample_id"] for r in tables.read("verdicts") if r["accepted"]}
    found = []
    for row in tables.read("samples"):
        said = [r for r in tables.read("labels") if r["sample_id"] == row["sample_id"]]
        said = [r for r in said if (r["sample_id"], r["source"], r["at"], r["label"]) not in held]
        split = split_of(row["group"], "rater")
        if row["sample_id"] not in accepted or not said:
            continue
        best: dict[str, Any] = max(said, key=lambda r: (LABEL_STRENGTH[r["source"]], r["at"], r["label"]))
        if split == "pool" or best["source"] != "pseudo":
            chance = row["selection_probability"]
            label_of = (best["label"], best["source"], best["at"])
            found.append(Member(row["sample_id"], *label_of, split, row["selected_by"], row["group"], chance))
    return sorted(found, key=lambda m: m.sample_id)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("samples"), st.integers(0, 3)),
        st.tuples(st.just("verdict"), st.integers(0, 3)),
        st.tuples(st.just("label"), st.integers(0, 15)),
        st.tuples(st.just("hold"), st.integers(0, 15)),
        st.tuples(st.just("compact"), st.just(0)),
        st.tuples(st.just("freeze"), st.just(0)),
    ),
    max_size=25,
)


SET_ASIDE = [("samples", 1), ("verdict", 1), ("label", 5), ("label", 7), ("freeze", 0), ("hold", 7), ("freeze", 0)]


@example(steps=SET_ASIDE, refused=set())
@example(steps=[("hold", 5), *SET_ASIDE, ("hold", 6), ("label", 6), ("freeze", 0), ("compact", 0)], refused=set())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS, refused=st.sets(st.integers(0, 3), max_size=1))
def test_what_came_since_makes_the_same_members_as_everything(
    steps: list[tuple[str, int]], refused: set[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    world = World(tmp_path_factory.mktemp("world"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgeloop.samples.table.COMPACT_FILES", 2)
        for step, n in [*steps, ("freeze", 0)]:
            if step == "freeze":
                version = world.freeze()
                kept = dataset_members(world.store, world.tables, version)
                assert kept.listed() == expected(world.tables)
                assert kept.table.equals(members_at(world.tables, "rater", version.tables).table)
            elif step == "verdict":
                world.verdict(n, n not in refused)
            else:
                getattr(world, step)(n)


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.grow()
    return made


def test_a_freeze_reads_what_came_since_and_nothing_else(world: World) -> None:
    first = world.freeze()
    world.tables.rows = 0
    assert world.freeze() == first
    assert world.tables.rows == 0
    world.samples(6, 7)
    world.verdict(6)
    world.label(4 * 6)
    world.label(4 * 5)
    world.freeze()
    assert world.tables.rows == 5


def test_after_a_compaction_a_table_is_read_whole(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeloop.samples.table.COMPACT_FILES", 3)
    first = world.freeze()
    world.compact(0)
    world.tables.rows = 0
    assert world.freeze().id == first.id
    assert world.tables.rows == 12, "verdicts and labels, of which there were many files"


def test_a_compaction_that_leaves_large_files_loses_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeloop.samples.table.COMPACT_FILES", 2)
    monkeypatch.setattr("edgeloop.samples.table._COMPACT_BYTES", 15_000)
    many = [sample(n) for n in range(100, 400)]
    world.tables.merge("samples", [to_row(s) for s in many], Sample)
    verdicts = [to_row(Verdict(sample_id=s.sample_id, accepted=True, at=START)) for s in many]
    world.tables.merge("verdicts", verdicts, Verdict)
    world.tables.merge("labels", [to_row(label(s, "1")) for s in many], Label)
    first = world.freeze()
    paths = set(world.tables.since("labels", ["label"], first.tables["labels"] or 0, ()).files)
    world.compact(0)
    again = world.freeze()
    there = set(world.tables.since("labels", ["label"], again.tables["labels"] or 0, ()).files)
    assert paths & there, "the large one, at least"
    assert there - paths, "what small ones became"
    assert paths - there
    assert again.id == first.id
    assert dataset_members(world.store, world.tables, again).listed() == expected(world.tables)


@pytest.mark.parametrize("damage", [b"", b"no zip", None])
def test_what_was_seen_is_made_anew_where_it_cannot_be_used(world: World, damage: bytes | None) -> None:
    first = world.freeze()
    key = seen_key("rater")
    data = world.store.get(key)
    if damage is None:
        world.store.put(key, data[: len(data) // 2] + bytes(8) + data[len(data) // 2 + 8 :])
    else:
        world.store.put(key, damage)
    assert world.freeze() == first
    world.store.delete(key)
    assert world.freeze() == first


def test_members_are_read_from_the_tables_where_none_were_kept(world: World, caplog: pytest.LogCaptureFixture) -> None:
    version = world.freeze()
    there = members_of(world.tables, "rater", version.tables)
    assert len(there) == 6
    former = DatasetVersion.model_validate(version.model_dump(exclude={"members", "accepted"}))
    assert dataset_members(world.store, world.tables, former).listed() == there
    assert not caplog.messages
    key = members_key("rater", str(version.members))
    world.store.put(key, b"other bytes")
    assert dataset_members(world.store, world.tables, version).listed() == there
    world.store.delete(key)
    assert dataset_members(world.store, world.tables, version).listed() == there
    assert ["its bytes are others" in m for m in caplog.messages] == [True, False]


def test_kept_members_are_the_manifests_own(world: World) -> None:
    version = world.freeze()
    assert load_dataset(world.store, "rater", version.id) == version
    assert len(list(world.store.list("members/rater/"))) == 2, "what was seen, and one list"
    assert version.accepted == {
        f"{split}, {kind}": count
        for split in ("gate", "pool", "test")
        for kind, ways in (("audit", ("audit",)), ("rule", ("threshold",)))
        if (count := sum(split_of(s.group, "rater") == split and s.selected_by in ways for s in SAMPLES[:6]))
    }
