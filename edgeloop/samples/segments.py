"""Capture and label segments: Parquet files named by the digest of their bytes, small enough for a node to write.

A node that crashes after an upload sends the same bytes again under the same name, which changes nothing.
arro3 writes them, because pyarrow is too heavy for a node; :mod:`edgeloop.samples.received` reads them.
"""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from edgeloop.samples.records import Record, digest, hexdigest

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Column types by name; every other column is a string. ``extra`` holds unknown fields as JSON.
TYPES: dict[str, str] = {
    "schema_version": "int32",
    "accepted": "bool",
    "captured_at": "timestamp",
    "at": "timestamp",
    "payload": "binary",
    "embedding": "binary",
    "miniature": "binary",
    "confidence": "float64",
    "selection_probability": "float64",
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def columns_of(model: type[Record]) -> list[str]:
    """Names of the columns in which ``model`` is stored, in order."""
    return [*model.model_fields, "extra"]


def segment_key(kind: str, service: str, data: bytes) -> str:
    """Object key of a segment: ``captures/<service>/<hex>.parquet`` or ``labels/…``."""
    return f"{kind}/{service}/{hexdigest(digest(data))}.parquet"


def write_segment(records: Sequence[Record]) -> bytes:
    """Encode records of one class as Parquet (zstd). The same records give the same bytes."""
    from arro3.core import Array, DataType, Table
    from arro3.io import write_parquet

    model = type(records[0])
    rows = [to_row(r) for r in records]
    arrays: dict[str, Any] = {}
    for name in columns_of(model):
        values = [row[name] for row in rows]
        match TYPES.get(name):
            case "timestamp":
                micros = [_microseconds(v) for v in values]
                arrays[name] = Array(micros, type=DataType.int64()).cast(DataType.timestamp("us", tz="UTC"))
            case "binary":
                arrays[name] = Array(values, type=DataType.binary())
            case "float64":
                arrays[name] = Array(values, type=DataType.float64())
            case "int32":
                arrays[name] = Array(values, type=DataType.int32())
            case _:
                arrays[name] = Array(values, type=DataType.string())
    sink = io.BytesIO()
    write_parquet(Table.from_pydict(arrays), sink, compression="zstd(3)")
    return sink.getvalue()


def to_row(record: Record) -> dict[str, Any]:
    """The record as column values; fields that its model does not know go to ``extra`` as JSON."""
    row: dict[str, Any] = {name: getattr(record, name) for name in type(record).model_fields}
    unknown = record.__pydantic_extra__
    row["extra"] = json.dumps(unknown, sort_keys=True, default=str) if unknown else None
    return row


def _microseconds(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)
