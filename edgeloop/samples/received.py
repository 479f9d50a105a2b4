"""Capture and label segments as the cloud reads them: with pyarrow, which names what is wrong with a corrupt file.

Apart from :mod:`edgeloop.samples.segments`, because a node must never import pyarrow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from edgeloop.errors import BadInput
from edgeloop.samples.records import Record

R = TypeVar("R", bound=Record)


class ForeignSegment(BadInput):
    """The bytes are not a segment of the expected records."""


def read_segment(data: bytes, model: type[R]) -> tuple[list[R], list[tuple[dict[str, Any], str]]]:
    """Decode a segment to (records, rejected); a rejected row comes with the reason in one line.

    Raises:
        ForeignSegment: the bytes are not Parquet, or a column that ``model`` needs is missing.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(data))
        rows = table.to_pylist()
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise ForeignSegment(f"not a readable Parquet file ({_one_line(error)})") from error
    names = table.column_names
    missing = [n for n, f in model.model_fields.items() if f.is_required() and n not in names]
    if missing:
        raise ForeignSegment(f"columns {missing} are missing; found {names}")
    good: list[R] = []
    bad: list[tuple[dict[str, Any], str]] = []
    for row in rows:
        try:
            good.append(model.model_validate(_fields(row)))
        except (ValidationError, ValueError, TypeError, RecursionError) as error:
            bad.append((row, _one_line(error)))
    return good, bad


def _fields(row: Mapping[str, Any]) -> dict[str, Any]:
    """All fields of a record; what came as ``extra`` never stands in for a column."""
    fields = {k: v for k, v in row.items() if k != "extra"}
    return json.loads(row["extra"]) | fields if row.get("extra") else fields


def _one_line(error: BaseException) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
    return " ".join(str(error).split())[:300]
