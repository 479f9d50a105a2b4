"""Every sample gets in once, whatever arrives twice, damaged or half; nothing stops the rest."""

from __future__ import annotations

import json
import re
import warnings
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from edgeloop.clients.objects import MemoryStore, ObjectStore
from edgeloop.quality.ingest import BATCH_BYTES, Ingested, claim_compaction, ingest
from edgeloop.quality.validate import suite_of, validate
from edgeloop.samples.dataset import freeze, members_of
from edgeloop.samples.inputs import extras
from edgeloop.samples.records import Record, Sample
from edgeloop.samples.segments import segment_key, to_row, write_segment
from edgeloop.samples.service import Service
from edgeloop.samples.splits import split_of
from edgeloop.samples.table import Tables
from tests.unit.samples.broken import Crash, Fuse, Guarded, crash_everywhere
from tests.unit.samples.make import classifier, label, looker, regressor, sample


@pytest.fixture(scope="module", autouse=True)
def great_expectations() -> None:
    """Imported with its warnings unheard: it imports modules of the standard library that are on their way out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import great_expectations.expectations  # noqa: F401


class World:
    """A store, its tables, and a service."""

    def __init__(self, service: Service | None = None) -> None:
        self.store = MemoryStore()
        self.service = service or regressor()
        self.tables = Tables(self.service.name, self.store.table)

    def send(self, kind: str, *records: Record) -> str:
        data = write_segment(records)
        key = segment_key(kind, self.service.name, data)
        self.store.put(key, data)
        return key

    def ingest(self) -> Ingested:
        return ingest(self.store, self.tables, self.service)

    def keys(self) -> list[str]:
        return [info.key for info in self.store.list("")]

    def state(self) -> dict[str, Any]:
        """Everything that is kept, but for when it was."""

        def known(name: str) -> list[str]:
            rows = [{k: v for k, v in row.items() if name == "labels" or k != "at"} for row in self.tables.read(name)]
            return sorted(json.dumps(row, default=str, sort_keys=True) for row in rows)

        return {"keys": self.keys(), **{name: known(name) for name in ("samples", "labels", "quarantine")}}

    def quarantine(self) -> list[tuple[str, str, str]]:
        return sorted((r["check"], r["reason"], r["origin"]) for r in self.tables.read("quarantine"))


def test_nothing_to_do() -> None:
    assert World().ingest() == Ingested(service="rater")


def test_segments_are_merged_and_put_away() -> None:
    world = World()
    keys = [world.send("captures", sample(0), sample(1)), world.send("labels", label(sample(0), "4"))]
    assert world.ingest() == Ingested(service="rater", segments=2, samples=2, labels=1)
    assert world.keys() == sorted(f"archive/{key}" for key in keys)
    assert len(world.tables.read("samples")) == 2


def test_another_services_segments_are_left_alone() -> None:
    world = World()
    data = write_segment([sample(0, service="sorter")])
    key = segment_key("captures", "sorter", data)
    world.store.put(key, data)
    assert world.ingest().segments == 0
    assert world.keys() == [key]


def test_ingesting_twice_changes_nothing() -> None:
    world = World()
    world.send("captures", sample(0), sample(1))
    world.send("labels", label(sample(0), "4"))
    world.ingest()
    before = world.state()
    assert world.ingest() == Ingested(service="rater")
    assert world.state() == before


def test_a_segment_that_is_delivered_again_changes_nothing() -> None:
    world = World()
    world.send("captures", sample(0), sample(1))
    world.ingest()
    before = world.state()
    world.send("captures", sample(0), sample(1))
    assert world.ingest() == Ingested(service="rater", segments=1, duplicates=2)
    assert world.state() == before


def test_samples_that_overlap_are_counted_once() -> None:
    world = World()
    world.send("captures", sample(0), sample(1))
    world.send("captures", sample(1), sample(2))
    assert world.ingest() == Ingested(service="rater", segments=2, samples=3, duplicates=1)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"not parquet", "not a readable Parquet file"),
        (write_segment([label(sample(0), "4")]), "columns .* are missing"),
    ],
    ids=["no parquet", "labels as captures"],
)
def test_a_foreign_file_is_set_aside_and_named_and_the_rest_goes_on(data: bytes, reason: str) -> None:
    world = World()
    key = segment_key("captures", "rater", data)
    world.store.put(key, data)
    good = world.send("captures", sample(0))
    result = world.ingest()
    assert (result.segments, result.samples) == (1, 1)
    assert list(result.foreign) == [f"quarantine/{key}"]
    assert world.keys() == sorted([f"archive/{good}", f"quarantine/{key}"])
    assert world.store.get(f"quarantine/{key}") == data
    [(check, why, origin)] = world.quarantine()
    assert (check, origin) == ("segment", key)
    assert result.foreign[f"quarantine/{key}"] == why
    assert re.search(reason, why)


def test_a_truncated_file_is_set_aside() -> None:
    world = World()
    data = write_segment([sample(0)])[:-30]
    world.store.put(segment_key("captures", "rater", data), data)
    assert len(world.ingest().foreign) == 1


@pytest.mark.parametrize("name", ["captures/rater/notes.txt", f"captures/rater/{'0' * 64}.parquet"])
def test_a_file_whose_name_is_not_its_digest_is_set_aside(name: str) -> None:
    world = World()
    world.store.put(name, write_segment([sample(0)]))
    assert world.ingest().foreign == {f"quarantine/{name}": "its name is not the digest of its bytes"}
    assert world.tables.read("samples") == []


def test_a_sample_of_another_service_is_rejected_and_the_others_kept() -> None:
    world = World()
    key = world.send("captures", sample(0), sample(1, service="sorter"))
    result = world.ingest()
    assert (result.samples, result.rejected) == (1, 1)
    assert world.quarantine() == [("value", "sample is of service sorter, not rater", key)]


def test_a_row_that_does_not_parse_is_rejected_with_what_it_said() -> None:
    world = World()
    bad = Sample.model_construct(**(sample(1).model_dump() | {"selection_probability": 7.0}))
    world.send("captures", sample(0), bad)
    result = world.ingest()
    assert (result.samples, result.rejected) == (1, 1)
    [row] = world.tables.read("quarantine")
    assert (row["check"], row["reason"]) == (
        "schema",
        "selection_probability: Input should be less than or equal to 1",
    )
    record = json.loads(row["record"])
    assert record["sample_id"] == bad.sample_id
    assert record["payload"] == {"digest": record["payload"]["digest"], "bytes": len(bad.payload)}


@pytest.mark.parametrize(
    ("service", "text", "reason"),
    [
        (regressor(), "five", "is not a number"),
        (regressor(), "", "is not a number"),
        (regressor(), "10.5", "is not between 0.0 and 10.0"),
        (regressor(), "-1", "is not between 0.0 and 10.0"),
        (regressor(), "nan", "is not between"),
        (regressor(), "inf", "is not between"),
        (regressor(target={"name": "y"}), "-inf", "is not between -inf and inf"),
        (classifier(), "w", r"is not one of \['x', 'y', 'z'\]"),
        (looker(), "Cat", r"is not one of \['cat', 'dog'\]"),
        (looker(), "", "is not one of"),
    ],
)
def test_an_impossible_label_is_rejected(service: Service, text: str, reason: str) -> None:
    world = World(service)
    key = world.send("labels", label(sample(0, service=service.name), text))
    result = world.ingest()
    assert (result.labels, result.rejected) == (0, 1)
    [(check, why, origin)] = world.quarantine()
    assert (check, origin) == ("value", key)
    assert re.search(reason, why)


@pytest.mark.parametrize(
    ("service", "text"),
    [(regressor(), "0"), (regressor(), "10"), (regressor(target={"name": "y"}), "-1e9"), (looker(), "dog")],
)
def test_a_possible_label_has_no_fault(service: Service, text: str) -> None:
    assert service.label_fault(text) is None


def test_feedback_for_samples_that_were_not_captured_is_kept_and_counted() -> None:
    world = World()
    known, later, never = sample(0), sample(1), sample(2)
    world.send("captures", known)
    world.send("labels", label(known, "4"), label(later, "5", "device"), label(never, "6", "device"))
    assert world.ingest() == Ingested(service="rater", segments=2, samples=1, labels=3, unmatched=2)
    validate(world.tables, world.service, [])
    assert freeze(world.store, world.tables, "rater").counts == counts(known)
    world.send("captures", later)
    assert world.ingest() == Ingested(service="rater", segments=1, samples=1)
    validate(world.tables, world.service, [])
    dataset = freeze(world.store, world.tables, "rater")
    members = {m.sample_id: m.label for m in members_of(world.tables, "rater", dataset.tables)}
    assert members == {known.sample_id: "4", later.sample_id: "5"}


def test_labels_alone_are_harmless() -> None:
    world = World()
    world.send("labels", *(label(sample(n), "4") for n in range(5)))
    assert world.ingest() == Ingested(service="rater", segments=1, labels=5, unmatched=5)
    assert freeze(world.store, world.tables, "rater").counts == {"pool": 0, "gate": 0, "test": 0}
    assert world.ingest() == Ingested(service="rater")


def counts(*samples: Sample) -> dict[str, int]:
    splits = [split_of(s.group, "rater") for s in samples]
    return {name: splits.count(name) for name in ("pool", "gate", "test")}


def test_a_label_of_another_service_is_rejected() -> None:
    world = World()
    key = world.send("labels", label(sample(0), "4"), label(sample(1, service="sorter"), "4"))
    result = world.ingest()
    assert (result.labels, result.rejected) == (1, 1)
    assert world.quarantine() == [("value", "label is of service sorter, not rater", key)]


def test_fields_that_nobody_here_knows_come_through_unharmed() -> None:
    """A node says in which order it captured, and that its clock was wrong."""
    world = World()
    sent = sample(1, sequence=41, clock_skew=True)
    world.send("captures", sent, sample(2, sequence=42, clock_skew=False))
    assert world.ingest().samples == 2
    found = {r["sample_id"]: r for r in world.tables.read("samples")}
    assert extras(found[sent.sample_id]) == {"sequence": 41, "clock_skew": True}
    assert found[sent.sample_id] == to_row(sent)
    result = validate(world.tables, world.service, suite_of(world.service, Path()))
    assert (result.accepted, result.quarantined) == (2, 0)


def test_batches_bound_memory_and_lose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert BATCH_BYTES <= 1 << 27
    monkeypatch.setattr("edgeloop.quality.ingest.BATCH_BYTES", 1)
    world = World()
    for number in range(4):
        world.send("captures", sample(number))
    world.send("labels", label(sample(0), "4"))
    assert world.ingest() == Ingested(service="rater", segments=5, samples=4, labels=1)


def fill(world: World) -> None:
    """A little of everything."""
    world.send("captures", sample(0), sample(1))
    world.send("captures", sample(1), sample(2, service="sorter"))
    world.send("labels", label(sample(0), "4"), label(sample(1), "five"))
    world.store.put("captures/rater/notes.txt", b"not parquet")


def test_crash_at_every_point_ends_as_if_there_had_been_none() -> None:
    whole = World()
    fill(whole)
    whole.ingest()

    def run(fuse: Fuse) -> None:
        world = World()
        fill(world)
        store = cast(ObjectStore, Guarded(world.store, fuse, "get", "move", "list"))
        tables = cast(Tables, Guarded(world.tables, fuse, "merge"))
        try:
            ingest(store, tables, world.service)
        except Crash:
            world.ingest()
        assert world.state() == whole.state()

    assert crash_everywhere(run) >= 10


def test_segments_that_come_while_others_are_merged_are_not_lost() -> None:
    world = World()
    first = world.send("captures", sample(0))

    class Late(Tables):
        def merge(self, name: str, rows: Any, model: type[Record]) -> int:
            if name == "samples":
                world.send("captures", sample(1))
            return super().merge(name, rows, model)

    ingest(world.store, Late("rater", world.store.table), world.service)
    assert world.store.size(f"archive/{first}") is not None
    assert world.ingest().samples == 1
    assert len(world.tables.read("samples")) == 2


def test_one_compacts_a_table_in_an_hour_and_nobody_in_the_next() -> None:
    store, hour = MemoryStore(), datetime.fromisoformat("2026-01-01T10:00:00+00:00")

    def claims(minutes: int, table: str = "samples", service: str = "digits") -> bool:
        return claim_compaction(store, service, hour + timedelta(minutes=minutes), table)

    assert claims(59)
    assert not claims(59) and not claims(0)
    assert claims(59, table="labels") and claims(59, service="wine-rater")
    assert not claims(60) and not claims(119)
    assert claims(120)


def test_of_two_who_claim_at_the_turn_of_an_hour_at_most_one_compacts() -> None:
    hour, answers = datetime.fromisoformat("2026-01-01T10:00:00+00:00"), list[bool]()

    class Held(MemoryStore):
        """Between the look at the other hour and the claim, somebody in the next hour does all that at once."""

        def create(self, key: str, data: bytes) -> bool:
            if not answers:
                answers.append(False)
                answers[0] = claim_compaction(self, "digits", hour, "samples")
            return super().create(key, data)

    answers.append(claim_compaction(Held(), "digits", hour - timedelta(seconds=1), "samples"))
    assert answers == [True, False]
