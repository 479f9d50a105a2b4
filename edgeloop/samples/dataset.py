"""A dataset version: an immutable, reproducible read of a service's tables, with its split.

It is named by its content (which samples with which labels), so that two reads of unchanged data are the same
version and a round with nothing new is seen to be one. The table versions are kept with it, to read it again.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import BaseModel

from edgeloop.errors import EdgeloopError
from edgeloop.samples.records import LABEL_STRENGTH, Hold, canonical, digest, hexdigest
from edgeloop.samples.segments import to_row
from edgeloop.samples.splits import Split, split_of
from edgeloop.samples.table import Tables, not_empty, one_of

TABLES = ("samples", "labels", "verdicts", "holds")


class UnknownDataset(EdgeloopError):
    """A dataset version that is named somewhere is not in the store."""


class Manifests(Protocol):
    """The part of an object store that dataset manifests need."""

    @property
    def url(self) -> str: ...
    def get(self, key: str) -> bytes: ...
    def create(self, key: str, data: bytes) -> bool: ...
    def size(self, key: str) -> int | None: ...


@dataclass(frozen=True)
class Member:
    """One labelled sample of a dataset version."""

    sample_id: str
    label: str
    source: str
    labelled_at: Any
    split: Split
    selected_by: str


class DatasetVersion(BaseModel):
    """Reference to a dataset version; its members are read from the tables."""

    id: str
    service: str
    tables: dict[str, int | None]
    """Version of each table that it is a read of."""
    counts: dict[str, int]
    """Labelled samples per split."""


def dataset_key(service: str, name: str) -> str:
    """Object key of a dataset version's manifest."""
    return f"datasets/{service}/{hexdigest(name)}.json"


def members_of(tables: Tables, service: str, versions: dict[str, int | None]) -> list[Member]:
    """Accepted samples with a usable label at these table versions, sorted by id."""

    def rows(name: str, columns: list[str]) -> list[dict[str, Any]]:
        return tables.read(name, columns, versions[name]) if versions[name] is not None else []

    accepted = {r["sample_id"] for r in rows("verdicts", ["sample_id", "accepted"]) if r["accepted"]}
    labels = _best_labels(
        rows("labels", ["sample_id", "label", "source", "at"]),
        {_label_key(r) for r in rows("holds", ["sample_id", "source", "at", "label"])},
    )
    return sorted(
        (
            Member(
                sample_id=r["sample_id"],
                label=labels[r["sample_id"]]["label"],
                source=labels[r["sample_id"]]["source"],
                labelled_at=labels[r["sample_id"]]["at"],
                split=split_of(r["group"], service),
                selected_by=r["selected_by"],
            )
            for r in rows("samples", ["sample_id", "group", "selected_by"])
            if r["sample_id"] in accepted and r["sample_id"] in labels
        ),
        key=lambda m: m.sample_id,
    )


def _best_labels(rows: list[dict[str, Any]], held: set[tuple[Any, ...]]) -> dict[str, dict[str, Any]]:
    """The newest label of the strongest source per sample, held ones left out."""
    best: dict[str, dict[str, Any]] = {}
    for row in rows:
        if _label_key(row) in held:
            continue
        former = best.get(row["sample_id"])
        if former is None or _rank(row) > _rank(former):
            best[row["sample_id"]] = row
    return best


def _label_key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["sample_id"], row["source"], row["at"], row["label"]


def _rank(row: dict[str, Any]) -> tuple[int, Any, str]:
    return LABEL_STRENGTH.get(row["source"], -1), row["at"], row["label"]


def freeze(store: Manifests, tables: Tables, service: str) -> DatasetVersion:
    """Read the tables as they are now and record the dataset version that this read is. Idempotent."""
    versions = {name: tables.version(name) for name in TABLES}
    members = members_of(tables, service, versions)
    name = content_id(service, members)
    counts = Counter(m.split for m in members)
    version = DatasetVersion(
        id=name,
        service=service,
        tables=versions,
        counts={split: counts[split] for split in ("pool", "gate", "test")},
    )
    store.create(dataset_key(service, name), canonical(version.model_dump(mode="json")))
    return version


def content_id(service: str, members: list[Member]) -> str:
    """Name of the dataset version with these members: a digest of who is in it with which label."""
    return digest(canonical([service, [[m.sample_id, m.label] for m in members]]))


def load_dataset(store: Manifests, service: str, name: str) -> DatasetVersion:
    """Read a dataset version's manifest.

    Raises:
        UnknownDataset: the store has none of this name.
    """
    key = dataset_key(service, name)
    if store.size(key) is None:
        raise UnknownDataset(f"dataset version {name} of {service} is not at {store.url}/{key}: was the store cleared?")
    return DatasetVersion.model_validate(json.loads(store.get(key)))


def hold_labels(tables: Tables, members: list[Member], reason: str) -> int:
    """Set the labels of ``members`` aside, so that later rounds do not learn from them; return how many were.

    A label of a stronger source, or a newer one, given later counts again.
    """
    rows = [
        Hold(sample_id=m.sample_id, label=m.label, source=m.source, at=m.labelled_at, reason=reason) for m in members
    ]
    return tables.merge("holds", [to_row(r) for r in rows], Hold)


def example_payloads(tables: Tables, service: str, dataset: DatasetVersion, count: int) -> list[bytes]:
    """Raw inputs of the first ``count`` samples of a dataset version, by id, that have one: always the same ones.

    There are fewer where most samples came without their raw input, and none where all did.
    """
    raw = {r["sample_id"] for r in tables.read("samples", ["sample_id"], where=not_empty("payload"))}
    chosen = [m.sample_id for m in members_of(tables, service, dataset.tables) if m.sample_id in raw][:count]
    rows = tables.read("samples", ["sample_id", "payload"], where=one_of("sample_id", chosen))
    payloads = {r["sample_id"]: r["payload"] for r in rows}
    return [payloads[name] for name in chosen]
