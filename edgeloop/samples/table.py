"""The Delta tables of a service, written only by insert-only merges on a key.

A record that is delivered twice changes nothing, rows are never rewritten, and every version of a table can be read
again. Five tables: ``samples``, ``labels``, ``verdicts`` (one per checked sample), ``quarantine`` (what was set aside,
with the reason) and ``holds`` (labels that a refused candidate was trained on).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from edgeloop.errors import Unavailable
from edgeloop.samples.segments import TYPES, columns_of

if TYPE_CHECKING:
    import pyarrow as pa

    from edgeloop.samples.records import Record

KEYS: dict[str, tuple[str, ...]] = {
    "samples": ("sample_id",),
    "labels": ("sample_id", "source", "at", "label"),
    "verdicts": ("sample_id",),
    "quarantine": ("record_id",),
    "holds": ("sample_id", "source", "at", "label"),
}
_ATTEMPTS = 8


class TableUnavailable(Unavailable):
    """A table could not be read or written after several attempts."""


class Location(Protocol):
    """Where a table is: its URI and what the Delta library must know to reach it."""

    @property
    def uri(self) -> str: ...
    @property
    def storage_options(self) -> dict[str, str] | None: ...


Locate = Callable[[str], Location]


def table_prefix(service: str, name: str) -> str:
    """Key prefix of a table in the object store."""
    return f"tables/{service}/{name}"


def arrow_schema(model: type[Record]) -> pa.Schema:
    """Arrow schema in which ``model`` is stored."""
    import pyarrow as pa

    types: dict[str, pa.DataType] = {
        "timestamp": pa.timestamp("us", tz="UTC"),
        "binary": pa.binary(),
        "float64": pa.float64(),
        "int32": pa.int32(),
        "bool": pa.bool_(),
    }
    return pa.schema([pa.field(n, types.get(TYPES.get(n, ""), pa.string())) for n in columns_of(model)])


class Tables:
    """The tables of one service. Holds no connection and no state."""

    def __init__(self, service: str, locate: Locate) -> None:
        self._service = service
        self._locate = locate

    def merge(self, name: str, rows: Sequence[Mapping[str, Any]], model: type[Record]) -> int:
        """Insert the rows whose key is not there yet; return how many were.

        Raises:
            TableUnavailable: other writers, or the store, kept it from committing.
        """
        if not rows:
            return 0
        import pyarrow as pa
        from deltalake import DeltaTable
        from deltalake.exceptions import CommitFailedError, DeltaError

        schema = arrow_schema(model)
        keys = KEYS[name]
        unique = {tuple(row[k] for k in keys): {**dict.fromkeys(schema.names), **row} for row in rows}
        source = pa.Table.from_pylist(list(unique.values()), schema=schema)
        place = self._locate(table_prefix(self._service, name))
        last: Exception | None = None
        for attempt in range(_ATTEMPTS):
            try:
                DeltaTable.create(place.uri, schema=schema, mode="ignore", storage_options=place.storage_options)
                table = DeltaTable(place.uri, storage_options=place.storage_options)
                merger = table.merge(
                    source,
                    predicate=" AND ".join(f"t.{k} = s.{k}" for k in keys),
                    source_alias="s",
                    target_alias="t",
                )
                return int(merger.when_not_matched_insert_all().execute()["num_target_rows_inserted"])
            except (CommitFailedError, DeltaError, OSError) as error:
                last = error
                time.sleep(random.uniform(0, 0.05 * 2**attempt))
        raise TableUnavailable(f"table {name} of {self._service} did not commit ({last}): run again") from last

    def read(self, name: str, columns: Sequence[str] | None = None, version: int | None = None) -> list[dict[str, Any]]:
        """Read rows as dictionaries, at ``version`` or the newest; an absent table is empty."""
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        place = self._locate(table_prefix(self._service, name))
        try:
            table = DeltaTable(place.uri, version=version, storage_options=place.storage_options)
        except TableNotFoundError:
            return []
        rows: list[dict[str, Any]] = table.to_pyarrow_table(columns=list(columns) if columns else None).to_pylist()
        return rows

    def version(self, name: str) -> int | None:
        """Newest version number of a table, None if there is none."""
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        place = self._locate(table_prefix(self._service, name))
        try:
            return int(DeltaTable(place.uri, storage_options=place.storage_options).version())
        except TableNotFoundError:
            return None
