"""The Delta tables of a service, written only by insert-only merges on a key.

A record that is delivered twice changes nothing, rows are never changed, and every version of a table can be read
again, however old: neither its log nor a file that compaction replaced is ever deleted. Six tables: ``samples``,
``labels``, ``verdicts`` (one per checked sample), ``quarantine`` (what was set aside, with the reason), ``holds``
(labels that a refused candidate was trained on) and ``miniatures`` (what accepted photos look like from afar).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from edgeloop.errors import EdgeloopError, Unavailable
from edgeloop.samples.segments import TYPES, columns_of
from edgeloop.samples.where import Where as Where  # noqa: PLC0414 (others know it from here)
from edgeloop.samples.where import filtered
from edgeloop.samples.where import not_empty as not_empty  # noqa: PLC0414 (others know it from here)
from edgeloop.samples.where import one_of as one_of  # noqa: PLC0414 (others know it from here)

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable

    from edgeloop.samples.records import Record

KEYS: dict[str, tuple[str, ...]] = {
    "samples": ("sample_id",),
    "labels": ("sample_id", "source", "at", "label"),
    "verdicts": ("sample_id",),
    "quarantine": ("record_id",),
    "holds": ("sample_id", "source", "at", "label"),
    "miniatures": ("sample_id",),
}
_ATTEMPTS = 8
#: Delta forgets versions after a month otherwise, and with them the dataset versions that are reads of them.
_KEEP_HISTORY = {"delta.enableExpiredLogCleanup": "false"}
#: Compaction waits for this many files under the size that it aims at.
COMPACT_FILES = 64
_COMPACT_BYTES = 128_000_000


class TableUnavailable(Unavailable):
    """A table could not be read or written after several attempts."""


class LostVersion(EdgeloopError):
    """A version of a table that something refers to cannot be read any more."""


class Location(Protocol):
    """Where a table is: its URI and what the Delta library must know to reach it."""

    @property
    def uri(self) -> str: ...
    @property
    def storage_options(self) -> dict[str, str] | None: ...


@dataclass(frozen=True)
class Since:
    """What a table has that was not read before."""

    rows: pa.Table
    files: tuple[str, ...]
    """All files of the table at that version, sorted."""
    anew: bool
    """Files that were read before are gone: ``rows`` are all."""


Locate = Callable[[str], Location]
Claim = Callable[[str], bool]


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

    @property
    def service(self) -> str:
        """Name of the service."""
        return self._service

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
                DeltaTable.create(
                    place.uri,
                    schema=schema,
                    mode="ignore",
                    configuration=_KEEP_HISTORY,
                    storage_options=place.storage_options,
                )
                table = DeltaTable(place.uri, storage_options=place.storage_options)
                _keep_history(table)
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

    def read(
        self,
        name: str,
        columns: Sequence[str] | None = None,
        version: int | None = None,
        where: Where | None = None,
    ) -> list[dict[str, Any]]:
        """Read rows as dictionaries, at ``version`` or the newest; an absent table is empty.

        With ``where`` (:func:`one_of`, :func:`not_empty`) other rows pass by in batches and are not kept in memory.

        Raises:
            LostVersion: the table has no such version.
            TableUnavailable: the store is away.
        """
        with self._reading(name):
            return self._read(name, columns, version, where)

    def _read(
        self, name: str, columns: Sequence[str] | None, version: int | None, where: Where | None
    ) -> list[dict[str, Any]]:
        table = self._opened(name, version)
        if table is None:
            return []
        if where is not None:
            return _matching(table.to_pyarrow_dataset(), columns, where)
        rows: list[dict[str, Any]] = table.to_pyarrow_table(columns=list(columns) if columns else None).to_pylist()
        return rows

    def _opened(self, name: str, version: int | None) -> DeltaTable | None:
        """A table at ``version`` or the newest; None if it is absent, see :meth:`read` for the errors."""
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError, TableNotFoundError

        place = self._locate(table_prefix(self._service, name))
        try:
            return DeltaTable(place.uri, version=version, storage_options=place.storage_options)
        except (TableNotFoundError, DeltaError) as error:
            if version is not None:
                raise LostVersion(
                    f"version {version} of table {name} of {self._service} cannot be read"
                    f" ({' '.join(str(error).split())[:200]}): was {place.uri} cleared or vacuumed?"
                ) from error
            if not isinstance(error, TableNotFoundError):
                raise
            return None

    def since(self, name: str, columns: Sequence[str], version: int, known: Sequence[str]) -> Since:
        """Rows of ``version`` that are in none of the files ``known``, all of which were read at some other version.

        Merges add files and change none; only compaction takes files away. Then all rows are read.

        Raises:
            LostVersion, TableUnavailable: see :meth:`read`.
        """
        from pyarrow.dataset import FileSystemDataset

        with self._reading(name):
            table = self._opened(name, version)
            assert table is not None  # a version that is not there is lost
            dataset = table.to_pyarrow_dataset()
            fragments = {fragment.path: fragment for fragment in dataset.get_fragments()}
            anew = not set(known) <= fragments.keys()
            wanted = sorted(fragments.keys() - (set() if anew else set(known)))
            part = FileSystemDataset(
                [fragments[path] for path in wanted], dataset.schema, dataset.format, dataset.filesystem
            )
            return Since(part.to_table(columns=list(columns)), tuple(sorted(fragments)), anew)

    def each(self, name: str, columns: Sequence[str], where: Where) -> Iterator[dict[str, Any]]:
        """Rows of :meth:`read`, newest version, one after the other: for what would not fit into memory together."""
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        place = self._locate(table_prefix(self._service, name))
        with self._reading(name):
            try:
                table = DeltaTable(place.uri, storage_options=place.storage_options)
            except TableNotFoundError:
                return
            yield from filtered(table.to_pyarrow_dataset(), columns, where)

    def version(self, name: str) -> int | None:
        """Newest version number of a table, None if there is none.

        Raises:
            TableUnavailable: the store is away.
        """
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        place = self._locate(table_prefix(self._service, name))
        with self._reading(name):
            try:
                return int(DeltaTable(place.uri, storage_options=place.storage_options).version())
            except TableNotFoundError:
                return None

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        """Say of the library's errors which table it was."""
        from deltalake.exceptions import DeltaError

        try:
            yield
        except (DeltaError, OSError) as error:
            why = " ".join(str(error).split())[:200]
            raise TableUnavailable(f"table {name} of {self._service} cannot be read ({why}): run again") from error

    def compact(self, name: str, claim: Claim) -> bool:
        """Put the small files of a table together once there are ``COMPACT_FILES``; whether that was done.

        ``claim`` (table name) says whether this caller is the only one: the Delta library lets two compactions take
        the same files, and their rows would be double.

        What was replaced is kept, because dataset versions are reads of it. Where another writer gets in between, or
        the store is away, nothing is done, and a later call does it.
        """
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError

        place = self._locate(table_prefix(self._service, name))
        try:
            table = DeltaTable(place.uri, storage_options=place.storage_options)
            sizes = table.get_add_actions(flatten=True)["size_bytes"].to_pylist()
            if sum(size < _COMPACT_BYTES for size in sizes) < COMPACT_FILES or not claim(name):
                return False
            return bool(table.optimize.compact(target_size=_COMPACT_BYTES)["numFilesRemoved"])
        except (DeltaError, OSError):  # an absent table is the first
            return False


def _keep_history(table: DeltaTable) -> None:
    """Tables that were made before this was known get the property with their next merge."""
    if not _KEEP_HISTORY.items() <= table.metadata().configuration.items():
        table.alter.set_table_properties(_KEEP_HISTORY)


def compact(tables: Tables, claim: Claim) -> list[str]:
    """Compact the tables of a service that have many small files; return their names. Rows and old versions stay."""
    return [name for name in KEYS if tables.compact(name, claim)]


def _matching(dataset: Any, columns: Sequence[str] | None, where: Where) -> list[dict[str, Any]]:
    return list(filtered(dataset, columns or dataset.schema.names, where))
