"""Which rows of a table to read, and how to read them without the others: a table holds photos by the gigabyte."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow.compute as pc

#: Rows that are looked at together when a read is filtered: a hundred megabytes of photos.
_BATCH_ROWS = 4096
_AHEAD = {"batch_readahead": 2, "fragment_readahead": 4}
#: Arrow's name for the file that a row is in.
_FILE = "__filename"


@dataclass(frozen=True)
class Where:
    """Which rows to read: what holds of one column."""

    column: str
    holds: pc.Expression


def one_of(column: str, values: Collection[str]) -> Where:
    """Rows whose ``column`` is one of ``values``."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return Where(column, pc.field(column).isin(pa.array(list(values), type=pa.string())))


def not_empty(column: str) -> Where:
    """Rows whose binary ``column`` holds at least one byte."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return Where(column, pc.field(column) != pa.scalar(b"", type=pa.binary()))


def filtered(dataset: Any, columns: Sequence[str], where: Where) -> Iterator[dict[str, Any]]:
    """Filtered batch by batch: the Delta library's own statistics do not compare with Arrow's strings."""
    names = list(columns)
    needed = list(dict.fromkeys([*names, where.column]))
    if len(needed) > 1 and not _is_binary(dataset, where.column):
        dataset = _files_with(dataset, where)
    for batch in dataset.to_batches(columns=needed, batch_size=_BATCH_ROWS, **_AHEAD):
        yield from batch.filter(where.holds).select(names).to_pylist()


def _is_binary(dataset: Any, column: str) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_binary(dataset.schema.field(column).type))


def _files_with(dataset: Any, where: Where) -> Any:
    """The part of a dataset whose files have a row that is asked for: of the others, photos need not be read."""
    from pyarrow.dataset import FileSystemDataset

    there: set[str] = set()
    for batch in dataset.to_batches(columns=[where.column, _FILE], **_AHEAD):
        there |= set(batch.filter(where.holds).column(_FILE).unique().to_pylist())
    fragments = [fragment for fragment in dataset.get_fragments() if fragment.path in there]
    return FileSystemDataset(fragments, dataset.schema, dataset.format, dataset.filesystem)
