"""Who is in a dataset version, as columns: kept as one object, so that a round need not put tables together again.

A history is long and a round looks at little of it. Columns are read, filtered and drawn from without an object for
every sample; only what was drawn becomes ``Member`` objects.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.samples.splits import Split

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Member:
    """One labelled sample of a dataset version."""

    sample_id: str
    label: str
    source: str
    labelled_at: Any
    split: Split
    selected_by: str
    group: str | None = None
    """None where it was not read."""
    chance: float | None = None
    """``selection_probability``; None where it was not read."""


@dataclass(frozen=True)
class Members:
    """Labelled samples, by id."""

    table: pa.Table
    """See :func:`members_schema`."""

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def ids(self) -> list[str]:
        """Their sample ids."""
        return self.column("sample_id")

    def column(self, name: str) -> list[Any]:
        """One column as Python values."""
        values: list[Any] = self.table[name].to_pylist()
        return values

    def ranks(self) -> NDArray[np.uint64]:
        """See :func:`rank_of`; uint64 [members]."""
        return np.asarray(self.table["rank"].to_numpy(), dtype=np.uint64)

    def among(self, name: str, values: Iterable[Any] | pa.ChunkedArray) -> NDArray[np.bool_]:
        """Whose value of a column is one of ``values``, bool [members]."""
        import pyarrow as pa
        import pyarrow.compute as pc

        kind = self.table.schema.field(name).type
        known = values if isinstance(values, pa.ChunkedArray) else pa.array(list(values), type=kind)
        return np.asarray(pc.is_in(self.table[name], value_set=known).to_numpy(), dtype=np.bool_)

    def where(self, mask: NDArray[np.bool_]) -> Members:
        """Those of the mask, bool [members]."""
        return self if mask.all() else Members(self.table.filter(mask))

    def take(self, places: NDArray[np.intp]) -> Members:
        """Those at ``places``, in that order."""
        return Members(self.table.take(places))

    def by_id(self) -> Members:
        """The same, sorted by id."""
        import pyarrow.compute as pc

        return Members(self.table.take(pc.sort_indices(self.table["sample_id"])))

    def of(self, *splits: Split) -> Members:
        """Those of some splits."""
        return self.where(self.among("split", splits))

    def listed(self) -> list[Member]:
        """One object each."""
        fields = ("sample_id", "label", "source", "at", "split", "selected_by", "group", "selection_probability")
        return [Member(*row) for row in zip(*(self.column(name) for name in fields), strict=True)]


def members_schema() -> pa.Schema:
    """Columns of :class:`Members`; ``at`` is when the label was given."""
    import pyarrow as pa

    names = ("sample_id", "label", "source", "split", "group", "selected_by")
    return pa.schema(
        [
            *(pa.field(name, pa.string()) for name in names),
            pa.field("at", pa.timestamp("us", tz="UTC")),
            pa.field("selection_probability", pa.float64()),
            pa.field("rank", pa.uint64()),
        ]
    )


def rank_of(service: str, sample_id: str) -> int:
    """Where a sample stands among all that could be drawn to judge, for ever: what is drawn by it stays drawn."""
    return int.from_bytes(hashlib.sha256(f"judges\n{service}\n{sample_id}".encode()).digest()[:8], "big")


def to_parquet(members: Members) -> bytes:
    """The same bytes for the same members, by the same Arrow."""
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(members.table, sink, compression="zstd", compression_level=1)
    return sink.getvalue()


def from_parquet(data: bytes) -> Members:
    """What :func:`to_parquet` made."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    return Members(pq.read_table(pa.BufferReader(data)).select(members_schema().names))
