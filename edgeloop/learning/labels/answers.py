"""What people answered: checked, written as label segments like every other label, and read back with what waits.

An answer takes the same way as a device's feedback: a segment in the store, which ingest merges. So it is durable
before the next question, arrives once however often it is sent, and never overwrites another.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

from edgeloop.clients.objects import ObjectMissing, ObjectStore
from edgeloop.errors import BadInput
from edgeloop.learning.labels.queue import Asked
from edgeloop.samples.inputs import extras
from edgeloop.samples.received import ForeignSegment, read_segment
from edgeloop.samples.records import Label, now
from edgeloop.samples.segments import segment_key, write_segment
from edgeloop.samples.service import Service
from edgeloop.samples.table import Tables, one_of

LONGEST_NAME = 100


class NoName(BadInput):
    """An answer without a name of who gave it, or with one that cannot be kept."""


class ImpossibleLabel(BadInput):
    """What was answered is not a right answer of this service."""


class UnknownSample(BadInput):
    """An answer is about a sample that the service does not have."""


def checked_name(by: str | None) -> str:
    """The name under which answers are kept; raises NoName."""
    name = (by or "").strip()
    if not name:
        raise NoName("nobody is named: say who answers with --by NAME")
    if len(name) > LONGEST_NAME or not name.isprintable():
        raise NoName(f"name {name[:40]!r} is over {LONGEST_NAME} characters or not printable: give a plain one")
    return name


def make_label(
    service: Service, sample_id: str, text: str, by: str, asked: Asked | None, at: datetime | None = None
) -> Label:
    """The record of one answer; ``asked`` goes along in its extra fields.

    Raises:
        ImpossibleLabel: ``text`` is outside the labels, or the target's range, of the service.
        NoName: ``by`` is nobody.
    """
    fault = service.label_fault(text)
    if fault:
        raise ImpossibleLabel(f"{fault}: answer with one that {service.name} has")
    values: dict[str, Any] = {
        "sample_id": sample_id,
        "service": service.name,
        "label": text,
        "source": "human",
        "by": checked_name(by),
        "at": at or now(),
    }
    return Label.model_validate(values | ({"asked": asked.model_dump()} if asked else {}))


def apart(labels: Sequence[Label]) -> list[Label]:
    """The same labels, those of one sample, answer and moment moved apart by microseconds, in the order of ``by``.

    The labels table knows labels by sample, source, time and answer: of two people who gave the same answer at the same
    moment it would keep one.
    """
    seen: set[tuple[str, str, datetime]] = set()
    found: list[Label] = []
    for one in sorted(labels, key=lambda x: (x.sample_id, x.at, x.by, x.label)):
        at = one.at
        while (one.sample_id, one.label, at) in seen:
            at += timedelta(microseconds=1)
        seen.add((one.sample_id, one.label, at))
        found.append(one.model_copy(update={"at": at}))
    return found


def keep(store: ObjectStore, service: Service, labels: Sequence[Label]) -> str | None:
    """Write labels as one segment, all or none, and return its key; durable when this returns, None for no labels."""
    if not labels:
        return None
    data = write_segment(labels)
    key = segment_key("labels", service.name, data)
    store.create(key, data)
    return key


def refuse_unknown(tables: Tables, service: Service, names: Collection[str]) -> None:
    """Raise UnknownSample unless the service has all samples of these names."""
    rows = tables.read("samples", ["sample_id"], where=one_of("sample_id", names)) if names else []
    unknown = set(names) - {r["sample_id"] for r in rows}
    if unknown:
        raise UnknownSample(
            f"{len(unknown)} of {len(names)} samples, {min(unknown):.80} among them, are not of {service.name}:"
            " choose the service and home that they came from"
        )


def all_labels(store: ObjectStore, tables: Tables, service: Service) -> list[Label]:
    """All labels of a service, those that wait for ingest too, each once.

    What waits is read first: a segment that ingest puts away meanwhile is in the table by then.
    """
    waiting = _waiting(store, service)
    columns = [*Label.model_fields, "extra"]
    rows = [
        Label.model_validate(extras(row) | {k: row[k] for k in Label.model_fields})
        for row in tables.read("labels", columns)
    ]
    known = {(x.sample_id, x.source, x.at, x.label): x for x in [*waiting, *rows]}
    return list(known.values())


def _waiting(store: ObjectStore, service: Service) -> list[Label]:
    found: list[Label] = []
    for info in list(store.list(f"labels/{service.name}/")):
        try:
            labels, _ = read_segment(store.get(info.key), Label)
        except (ObjectMissing, ForeignSegment):  # ingest took it, or will set it aside with the reason
            continue
        found += [x for x in labels if x.service == service.name and service.label_fault(x.label) is None]
    return found
