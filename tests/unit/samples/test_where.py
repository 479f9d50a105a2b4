"""Filtered reads hand out the right rows, and open the heavy columns of the files that have some, and of no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from edgeloop.samples.where import filtered, not_empty, one_of


@pytest.fixture
def dataset(tmp_path: Path) -> Any:
    """Three files of three rows; the payload of c's rows is empty."""
    for name in "abc":
        payloads = [b"" if name == "c" else f"{name}{n}".encode() for n in range(3)]
        rows = pa.table({"sample_id": [f"{name}{n}" for n in range(3)], "payload": pa.array(payloads, pa.binary())})
        pq.write_table(rows, tmp_path / f"{name}.parquet")
    return ds.dataset(tmp_path)


def test_rows_by_one_column(dataset: Any) -> None:
    found = list(filtered(dataset, ["payload"], one_of("sample_id", ["a1", "c0", "nobody"])))
    assert found == [{"payload": b"a1"}, {"payload": b""}]
    assert list(filtered(dataset, ["payload"], one_of("sample_id", []))) == []
    assert [r["sample_id"] for r in filtered(dataset, ["sample_id"], one_of("sample_id", ["b2"]))] == ["b2"]
    assert len(list(filtered(dataset, ["sample_id"], not_empty("payload")))) == 6


def test_a_file_without_such_rows_is_not_opened_a_second_time(dataset: Any) -> None:
    """Its heavy column may be damaged, and nobody notices."""
    path = next(Path(f) for f in dataset.files if f.endswith("a.parquet"))
    offset = pq.ParquetFile(path).metadata.row_group(0).column(1).data_page_offset
    data = bytearray(path.read_bytes())
    data[offset : offset + 8] = b"\xff" * 8
    path.write_bytes(data)
    assert [r["payload"] for r in filtered(dataset, ["payload"], one_of("sample_id", ["b0", "b2"]))] == [b"b0", b"b2"]
    with pytest.raises((OSError, pa.ArrowException)):
        list(filtered(dataset, ["payload"], one_of("sample_id", ["a0"])))
