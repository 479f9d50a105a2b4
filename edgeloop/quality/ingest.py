"""From capture segments to the samples table, once each.

A segment is merged first and put away second: a crash between the two merges it again, which changes nothing. What
does not parse goes to quarantine with the reason; the rest of the batch goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from pydantic import BaseModel

from edgeloop.clients.objects import ObjectInfo, ObjectStore
from edgeloop.samples.received import ForeignSegment, read_segment
from edgeloop.samples.records import Label, Quarantined, Record, Sample, digest, now
from edgeloop.samples.segments import segment_key, to_row
from edgeloop.samples.service import Service
from edgeloop.samples.table import Tables, compact, one_of

#: Segments are merged in batches of at most this many bytes, which bounds memory.
BATCH_BYTES = 64_000_000


class Ingested(BaseModel):
    """What one ingest did."""

    service: str
    segments: int = 0
    samples: int = 0
    """New rows in the samples table."""
    duplicates: int = 0
    """Rows that were there already."""
    labels: int = 0
    """New rows in the labels table."""
    unmatched: int = 0
    """Labels received for samples that are not here: kept, and used if the sample ever comes."""
    rejected: int = 0
    """Records set aside because they do not parse or carry an impossible label."""
    foreign: dict[str, str] = {}
    """Quarantined objects, by their new key, with the reason."""


@dataclass
class _Batch:
    keys: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    rejected: list[Quarantined] = field(default_factory=list)
    foreign: list[tuple[str, str]] = field(default_factory=list)


def ingest(store: ObjectStore, tables: Tables, service: Service) -> Ingested:
    """Merge all capture and label segments of ``service`` that wait in the store.

    Raises:
        StoreUnavailable: the store does not answer; nothing is lost, run again.
        TableUnavailable: the tables could not be written; likewise.
    """
    total = Ingested(service=service.name)
    for infos in _batches(store, service.name):
        _merge(store, tables, _read(store, service, infos), total)
    if total.segments:
        compact(tables, partial(claim_compaction, store, service.name, now()))
    return total


def claim_compaction(store: ObjectStore, service: str, at: datetime, table: str) -> bool:
    """Whether the caller may compact ``table``: the first in an hour, unless somebody did in the hour before.

    So one that takes less than an hour is alone. A claim needs no giving back and outlives nobody's crash for long.
    """
    hour = int(at.timestamp() // 3600)
    before, here, after = (f"claims/compaction/{service}/{table}/{n}" for n in (hour - 1, hour, hour + 1))
    if store.size(before) is not None or not store.create(here, at.isoformat().encode()):
        return False
    # At the turn of an hour two may each claim their own: whoever claims last sees the other.
    return store.size(before) is None and store.size(after) is None


def something_waits(store: ObjectStore, service: str) -> bool:
    """Whether a segment of ``service`` waits to be ingested."""
    return any(True for kind in ("captures", "labels") for _ in store.list(f"{kind}/{service}/"))


def _batches(store: ObjectStore, service: str) -> Iterator[list[ObjectInfo]]:
    batch: list[ObjectInfo] = []
    size = 0
    for kind in ("captures", "labels"):
        for info in list(store.list(f"{kind}/{service}/")):
            if batch and size + info.size > BATCH_BYTES:
                yield batch
                batch, size = [], 0
            batch.append(info)
            size += info.size
    if batch:
        yield batch


def _read(store: ObjectStore, service: Service, infos: Sequence[ObjectInfo]) -> _Batch:
    batch = _Batch()
    for info in infos:
        kind = info.key.split("/", 1)[0]
        data = store.get(info.key)
        try:
            if segment_key(kind, service.name, data) != info.key:
                raise ForeignSegment("its name is not the digest of its bytes")
            if kind == "captures":
                samples, bad = read_segment(data, Sample)
                reasons = [(s, _sample_fault(s, service)) for s in samples]
                batch.samples += [s for s, fault in reasons if fault is None]
                faulty: list[tuple[Record, str]] = [(s, fault) for s, fault in reasons if fault]
            else:
                labels, bad = read_segment(data, Label)
                judged = [(x, _label_fault(x, service)) for x in labels]
                batch.labels += [x for x, fault in judged if fault is None]
                faulty = [(x, fault) for x, fault in judged if fault]
        except ForeignSegment as error:
            batch.foreign.append((info.key, str(error)))
            continue
        batch.keys.append(info.key)
        batch.rejected += [quarantined(to_row(r), why, "value", info.key) for r, why in faulty]
        batch.rejected += [quarantined(row, why, "schema", info.key) for row, why in bad]
    return batch


def _merge(store: ObjectStore, tables: Tables, batch: _Batch, total: Ingested) -> None:
    added = tables.merge("samples", [to_row(s) for s in batch.samples], Sample)
    total.samples += added
    total.duplicates += len(batch.samples) - added
    total.labels += tables.merge("labels", [to_row(x) for x in batch.labels], Label)
    total.unmatched += _unmatched(tables, batch.labels)
    foreign = [(key, f"quarantine/{key}", why) for key, why in batch.foreign]
    set_aside = [quarantined({"object": target}, why, "segment", key) for key, target, why in foreign]
    tables.merge("quarantine", [to_row(q) for q in batch.rejected + set_aside], Quarantined)
    total.rejected += len(batch.rejected)
    for key, target, why in foreign:
        store.move(key, target)
        total.foreign[target] = why
    for key in batch.keys:
        store.move(key, f"archive/{key}")
    total.segments += len(batch.keys)


def _unmatched(tables: Tables, labels: list[Label]) -> int:
    """How many labels are about samples that were not captured, or not yet delivered."""
    names = {x.sample_id for x in labels}
    rows = tables.read("samples", ["sample_id"], where=one_of("sample_id", names)) if names else []
    known = {r["sample_id"] for r in rows}
    return sum(x.sample_id not in known for x in labels)


def _label_fault(label: Label, service: Service) -> str | None:
    if label.service != service.name:
        return f"label is of service {label.service}, not {service.name}"
    return service.label_fault(label.label)


def _sample_fault(sample: Sample, service: Service) -> str | None:
    if sample.service != service.name:
        return f"sample is of service {sample.service}, not {service.name}"
    return None


def quarantined(row: dict[str, Any], reason: str, check: str, origin: str) -> Quarantined:
    """Make the quarantine record of a row; its id depends on the row alone, so that it is set aside once."""
    shown = {k: _shown(v) for k, v in row.items() if v is not None}
    text = json.dumps(shown, sort_keys=True, default=str)
    name = str(row.get("sample_id") or "")
    return Quarantined(
        record_id=digest(f"{name}\n{check}\n{text}".encode()),
        reason=reason,
        check=check,
        origin=origin,
        at=now(),
        record=text,
    )


def _shown(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"digest": digest(value), "bytes": len(value)}
    return value
