"""A dataset version: an immutable, reproducible read of a service's tables, with its split.

It is named by its content (which samples with which labels of which source), so that two reads of unchanged data are
the same version and a round with nothing new is seen to be one. The table versions are kept with it, to read it again.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

from pydantic import BaseModel

from edgeloop.errors import EdgeloopError
from edgeloop.samples.members import Member as Member  # noqa: PLC0414 (others know it from here)
from edgeloop.samples.members import Members as Members  # noqa: PLC0414 (others know it from here)
from edgeloop.samples.members import from_parquet, to_parquet
from edgeloop.samples.records import Hold, canonical, digest, hexdigest
from edgeloop.samples.seen import accepted_counts, load_seen, look, members_seen, nothing_seen, save_seen
from edgeloop.samples.segments import to_row
from edgeloop.samples.table import Tables, one_of

_LOG = logging.getLogger(__name__)
TABLES = ("samples", "labels", "verdicts", "holds")


class UnknownDataset(EdgeloopError):
    """A dataset version that is named somewhere is not in the store."""


class Manifests(Protocol):
    """The part of an object store that dataset manifests need."""

    @property
    def url(self) -> str: ...
    def get(self, key: str) -> bytes: ...
    def put(self, key: str, data: bytes) -> None: ...
    def create(self, key: str, data: bytes) -> bool: ...
    def size(self, key: str) -> int | None: ...


class DatasetVersion(BaseModel):
    """Reference to a dataset version; its members are read from the tables."""

    id: str
    service: str
    tables: dict[str, int | None]
    """Version of each table that it is a read of."""
    counts: dict[str, int]
    """Labelled samples per split."""
    members: str | None = None
    """Digest of the object that lists its members; None in versions from before there were any."""
    accepted: dict[str, int] | None = None
    """Accepted samples that nodes sent, labelled or not, by split and by what chose them: ``gate, audit``,
    ``gate, rule`` and so on."""


def dataset_key(service: str, name: str) -> str:
    """Object key of a dataset version's manifest."""
    return f"datasets/{service}/{hexdigest(name)}.json"


def members_key(service: str, name: str) -> str:
    """Object key of a list of members."""
    return f"members/{service}/{hexdigest(name)}.parquet"


def members_of(tables: Tables, service: str, versions: Mapping[str, int | None]) -> list[Member]:
    """Accepted samples with a usable label at these table versions, sorted by id, as the tables say it.

    A label that a model gave is usable in the pool only: gate and test samples that have no other are no members.
    """
    return members_at(tables, service, versions).listed()


def members_at(tables: Tables, service: str, versions: Mapping[str, int | None]) -> Members:
    """:func:`members_of` as columns."""
    return members_seen(look(tables, service, versions, nothing_seen()))


def dataset_members(store: Manifests, tables: Tables, dataset: DatasetVersion) -> Members:
    """Who is in a dataset version: what was kept when it was frozen, else what the tables say."""
    if dataset.members is not None:
        key = members_key(dataset.service, dataset.members)
        data = store.get(key) if store.size(key) is not None else b""
        if digest(data) == dataset.members:
            return from_parquet(data)
        why = "its bytes are others" if data else "it is not there"
        _LOG.warning("%s/%s cannot be used (%s): the tables are read", store.url, key, why)
    return members_at(tables, dataset.service, dataset.tables)


def former_members(store: Manifests, tables: Tables, service: str, name: str) -> Members:
    """Who was in an earlier dataset version.

    Raises:
        UnknownDataset: see :func:`load_dataset`.
    """
    return dataset_members(store, tables, load_dataset(store, service, name))


def freeze(store: Manifests, tables: Tables, service: str) -> DatasetVersion:
    """Read the tables as they are now and record the dataset version that this read is. Idempotent.

    Of the tables it reads what came since the last time.
    """
    versions = {name: tables.version(name) for name in TABLES}
    before = load_seen(store, service)
    seen = look(tables, service, versions, before)
    members = members_seen(seen)
    if seen.files != before.files:
        save_seen(store, service, seen)
    kept = to_parquet(members)
    splits = Counter(members.column("split"))
    version = DatasetVersion(
        id=content_id(service, members),
        service=service,
        tables=versions,
        counts={split: splits[split] for split in ("pool", "gate", "test")},
        members=digest(kept),
        accepted=accepted_counts(seen),
    )
    store.create(members_key(service, digest(kept)), kept)
    store.create(dataset_key(service, version.id), canonical(version.model_dump(mode="json")))
    return version


def content_id(service: str, members: Members) -> str:
    """Name of the dataset version with these members: a digest of who is in it with which label of which source.

    A label that a person confirms is another one: it may judge, and it is held no more.
    """
    told = zip(members.ids, members.column("label"), members.column("source"), strict=True)
    return digest(canonical([service, list(told)]))


def load_dataset(store: Manifests, service: str, name: str) -> DatasetVersion:
    """Read a dataset version's manifest.

    Raises:
        UnknownDataset: the store has none of this name.
    """
    key = dataset_key(service, name)
    if store.size(key) is None:
        raise UnknownDataset(f"dataset version {name} of {service} is not at {store.url}/{key}: was the store cleared?")
    return DatasetVersion.model_validate(json.loads(store.get(key)))


def hold_labels(tables: Tables, members: Sequence[Member], reason: str) -> int:
    """Set the labels of ``members`` aside, so that later rounds do not learn from them; return how many were.

    A label of a stronger source, or a newer one, given later counts again.
    """
    rows = [
        Hold(sample_id=m.sample_id, label=m.label, source=m.source, at=m.labelled_at, reason=reason) for m in members
    ]
    return tables.merge("holds", [to_row(r) for r in rows], Hold)


def example_payloads(
    tables: Tables, service: str, dataset: DatasetVersion, count: int, members: Members | None = None
) -> list[bytes]:
    """Raw inputs of the first ``count`` samples of a dataset version, by id, that have one: always the same ones.

    There are fewer where most samples came without their raw input, and none where all did. ``members`` are those of
    the version, where the caller knows them.
    """
    ids = (members_at(tables, service, dataset.tables) if members is None else members).ids
    found: list[bytes] = []
    start, size = 0, count  # most have one, and each may be in another file
    while start < len(ids) and len(found) < count:
        some = ids[start : start + size]
        rows = tables.read("samples", ["sample_id", "payload"], where=one_of("sample_id", some))
        payloads = {r["sample_id"]: r["payload"] for r in rows}
        found += [payloads[name] for name in some if payloads[name]]
        start, size = start + size, 4 * size
    return found[:count]
