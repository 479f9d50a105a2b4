"""What a service's tables said when its last dataset version was frozen, so that the next reads only what came since.

The tables are insert-only, and a merge adds files and changes none: what was not read yet lies in files that were not
there. Where a file that was read is gone, as after a compaction, that table is read whole. What is kept here is no
record of anything: lost or damaged, it is made anew from the tables.
"""

from __future__ import annotations

import io
import json
import logging
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edgeloop.samples.members import Members, members_schema, rank_of
from edgeloop.samples.records import LABEL_STRENGTH, Label, Record, Sample, Verdict
from edgeloop.samples.splits import split_of
from edgeloop.samples.table import Tables, arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa

_LOG = logging.getLogger(__name__)
_SAMPLES = ("sample_id", "group", "selected_by", "selection_probability")
_VERDICTS = ("sample_id", "accepted")
_LABELS = ("sample_id", "label", "source", "at")
_PARTS = ("samples", "accepted", "labels")
#: Changes when what is kept means something else than before.
_LAYOUT = 1


class Kept(Protocol):
    """The part of an object store that this needs."""

    def get(self, key: str) -> bytes: ...
    def put(self, key: str, data: bytes) -> None: ...
    def size(self, key: str) -> int | None: ...


@dataclass(frozen=True)
class Seen:
    """What was read of the tables."""

    samples: pa.Table
    """All of them: id, group, split, selected_by, selection_probability, rank."""
    accepted: pa.Table
    """Ids of accepted samples."""
    labels: pa.Table
    """The label that counts for each labelled sample: id, label, source, at."""
    files: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Files that were read, by table."""


def seen_key(service: str) -> str:
    """Object key of what was read of a service's tables."""
    return f"members/{service}/seen.zip"


def nothing_seen() -> Seen:
    """Before anything was read."""
    schema = members_schema()
    names = {"samples": [*_SAMPLES, "split", "rank"], "accepted": ["sample_id"], "labels": list(_LABELS)}
    import pyarrow as pa

    return Seen(**{part: pa.schema([schema.field(n) for n in names[part]]).empty_table() for part in _PARTS})


def look(tables: Tables, service: str, versions: Mapping[str, int | None], before: Seen) -> Seen:
    """What the tables say at ``versions``, when they said ``before`` at other ones, earlier or later."""
    files: dict[str, tuple[str, ...]] = {}

    def fresh(name: str, columns: tuple[str, ...], model: type[Record], known: tuple[str, ...]) -> tuple[Any, bool]:
        import pyarrow as pa

        wanted = arrow_schema(model)
        schema = pa.schema([wanted.field(n) for n in columns])
        version = versions[name]
        if version is None:
            files[name] = ()
            return schema.empty_table(), bool(known)
        found = tables.since(name, columns, version, known)
        files[name] = found.files
        return found.rows.cast(schema), found.anew

    rows, anew = fresh("samples", _SAMPLES, Sample, before.files.get("samples", ()))
    samples = _added(nothing_seen().samples if anew else before.samples, _placed(rows, service))
    rows, anew = fresh("verdicts", _VERDICTS, Verdict, before.files.get("verdicts", ()))
    accepted = _added(
        nothing_seen().accepted if anew else before.accepted, rows.filter(rows["accepted"]).select(["sample_id"])
    )
    holds, _ = fresh("holds", _LABELS, Label, ())
    same_holds = files["holds"] == before.files.get("holds", ())
    rows, anew = fresh("labels", _LABELS, Label, before.files.get("labels", ()) if same_holds else ())
    start = before.labels if same_holds and not anew else nothing_seen().labels
    return Seen(samples, accepted, _best(_added(start, _without(rows, holds))), files)


def _added(before: pa.Table, rows: pa.Table) -> pa.Table:
    import pyarrow as pa

    return pa.concat_tables([before, rows.select(before.schema.names).cast(before.schema)]) if len(rows) else before


def _placed(rows: pa.Table, service: str) -> pa.Table:
    """Rows of samples with their split and rank."""
    import pyarrow as pa

    splits = [split_of(group, service) for group in rows["group"].to_pylist()]
    ranks = [rank_of(service, name) for name in rows["sample_id"].to_pylist()]
    placed = rows.append_column("split", pa.array(splits, pa.string()))
    return placed.append_column("rank", pa.array(ranks, pa.uint64()))


def _without(labels: pa.Table, holds: pa.Table) -> pa.Table:
    """Labels that are not held."""
    import pyarrow.compute as pc

    close = np.asarray(pc.is_in(labels["sample_id"], value_set=holds["sample_id"]).to_numpy(), dtype=np.bool_)
    if not close.any():
        return labels
    held = {tuple(row.values()) for row in holds.select(_LABELS).to_pylist()}
    keys = [tuple(row.values()) for row in labels.select(_LABELS).filter(close).to_pylist()]
    close[np.flatnonzero(close)] = [key in held for key in keys]
    return labels.filter(~close)


def _best(labels: pa.Table) -> pa.Table:
    """The newest label of the strongest source per sample, ties by the text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not len(labels):
        return labels
    order = pa.array(sorted(LABEL_STRENGTH, key=lambda source: LABEL_STRENGTH[source]), pa.string())
    strength = pc.fill_null(pc.index_in(labels["source"], value_set=order), -1)
    keyed = labels.append_column("strength", strength)
    ordered = keyed.take(
        pc.sort_indices(keyed, sort_keys=[(n, "ascending") for n in ("sample_id", "strength", "at", "label")])
    ).combine_chunks()
    names = ordered["sample_id"]
    last = np.append(np.asarray(pc.not_equal(names[1:], names[:-1]).to_numpy(), dtype=np.bool_), True)
    return ordered.filter(last).select(labels.schema.names)


def members_seen(seen: Seen) -> Members:
    """Accepted samples with a usable label, sorted by id.

    A label that a model gave is usable in the pool only: gate and test samples that have no other are no members.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    place = pc.index_in(seen.samples["sample_id"], value_set=seen.labels["sample_id"])
    there = pc.and_(pc.is_valid(place), pc.is_in(seen.samples["sample_id"], value_set=seen.accepted["sample_id"]))
    labels = seen.labels.take(place.filter(there))
    columns = {name: seen.samples.filter(there)[name] for name in seen.samples.schema.names}
    columns |= {name: labels[name] for name in ("label", "source", "at")}
    table = pa.table({name: columns[name] for name in members_schema().names}, schema=members_schema())
    table = table.filter(pc.or_(pc.equal(table["split"], "pool"), pc.not_equal(table["source"], "pseudo")))
    return Members(table.take(pc.sort_indices(table["sample_id"])).combine_chunks())


def accepted_counts(seen: Seen) -> dict[str, int]:
    """Accepted samples that nodes sent, labelled or not, by split and by whether the audit or a rule chose them."""
    import pyarrow.compute as pc

    there = pc.is_in(seen.samples["sample_id"], value_set=seen.accepted["sample_id"])
    some = seen.samples.filter(there).group_by(["split", "selected_by"]).aggregate([([], "count_all")])
    counts: dict[str, int] = {}
    for row in some.to_pylist():
        if row["selected_by"] != "reference":
            key = accepted_key(row["split"], row["selected_by"] == "audit")
            counts[key] = counts.get(key, 0) + row["count_all"]
    return counts


def accepted_key(split: str, is_audit: bool) -> str:
    """Name of a count of :func:`accepted_counts`."""
    return f"{split}, {'audit' if is_audit else 'rule'}"


def load_seen(store: Kept, service: str) -> Seen:
    """What was kept; nothing, where nothing is there or it cannot be trusted."""
    key = seen_key(service)
    if store.size(key) is None:
        return nothing_seen()
    try:
        return _unpacked(store.get(key))
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, OSError, EOFError, NotImplementedError) as error:
        _LOG.warning("%s is damaged and made anew from the tables: %s", key, " ".join(str(error).split())[:200])
        return nothing_seen()


def save_seen(store: Kept, service: str, seen: Seen) -> None:
    """Keep it for the next time; of several writers one wins, and whichever does serves."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as packed:
        packed.writestr("files.json", json.dumps({"layout": _LAYOUT, "files": seen.files}))
        for part in _PARTS:
            data = pa.BufferOutputStream()
            pq.write_table(getattr(seen, part), data, compression="zstd", compression_level=1)
            packed.writestr(f"{part}.parquet", data.getvalue().to_pybytes())
    store.put(seen_key(service), sink.getvalue())


def _unpacked(data: bytes) -> Seen:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        head = json.loads(packed.read("files.json"))
        if head["layout"] != _LAYOUT:
            raise ValueError(f"it has layout {head['layout']}")
        files = {name: tuple(map(str, some)) for name, some in head["files"].items()}
        empty = nothing_seen()
        parts = {
            part: pq.read_table(pa.BufferReader(packed.read(f"{part}.parquet"))).cast(getattr(empty, part).schema)
            for part in _PARTS
        }
    return Seen(files=files, **parts)
