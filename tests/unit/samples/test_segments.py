"""A segment written on a node is read in the cloud as it was, and a damaged one says what is wrong with it."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeloop.samples.received import ForeignSegment, read_segment
from edgeloop.samples.records import Label, Sample, digest
from edgeloop.samples.segments import segment_key, to_row, write_segment
from tests.unit.samples.make import label, sample

TEXT = st.text(st.characters(blacklist_categories=["Cs"]), max_size=12)
TIMES = st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)).map(lambda t: t.replace(tzinfo=UTC))
UNKNOWN = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=5).map(lambda s: f"x_{s}"),
    st.integers(-(2**53), 2**53) | TEXT | st.none() | st.lists(st.booleans()),
    max_size=3,
)
SAMPLES = st.builds(
    lambda fields, unknown: Sample.model_validate(sample().model_dump() | fields | unknown),
    st.fixed_dictionaries(
        {
            "device": TEXT,
            "captured_at": TIMES,
            "payload": st.binary(max_size=40),
            "embedding": st.none() | st.binary(max_size=8),
            "backbone_digest": st.none() | TEXT,
            "confidence": st.none() | st.floats(0, 1),
            "selection_probability": st.floats(0, 1, exclude_min=True),
            "schema_version": st.integers(1, 2**31 - 1),
        }
    ),
    UNKNOWN,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(SAMPLES, min_size=1, max_size=5))
def test_samples_round_trip_with_the_fields_nobody_knows(records: list[Sample]) -> None:
    data = write_segment(records)
    assert read_segment(data, Sample) == (records, [])
    assert write_segment(records) == data


def test_labels_round_trip() -> None:
    records = [label(sample(n), str(n), at_hand=True) for n in range(3)]
    assert read_segment(write_segment(records), Label) == (records, [])


def test_every_column_of_a_segment_is_compressed_with_zstd() -> None:
    payloads = [bytes([n]) * 4000 for n in range(20)]
    data = write_segment([sample(n, payload=payload) for n, payload in enumerate(payloads)])
    found = pq.ParquetFile(pa.BufferReader(data)).metadata
    groups = [found.row_group(n) for n in range(found.num_row_groups)]
    assert found.num_rows == 20
    assert {group.column(n).compression for group in groups for n in range(found.num_columns)} == {"ZSTD"}
    assert len(data) < sum(map(len, payloads)) // 4


def test_a_key_is_the_digest_of_the_bytes() -> None:
    assert segment_key("captures", "rater", b"") == f"captures/rater/{digest(b'')[7:]}.parquet"


def rewritten(records: list[Sample], change: Any) -> bytes:
    """The segment of ``records`` as another writer, which has its own mind, would have written it."""
    table = change(pq.read_table(pa.BufferReader(write_segment(records))))
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


@pytest.mark.parametrize("column", ["sample_id", "payload", "selection_probability", "group"])
def test_a_missing_column_is_named(column: str) -> None:
    with pytest.raises(ForeignSegment, match=rf"columns \['{column}'\] are missing; found \["):
        read_segment(rewritten([sample()], lambda t: t.drop_columns([column])), Sample)


def test_a_column_that_may_be_left_out_may_be_missing() -> None:
    data = rewritten([sample()], lambda t: t.drop_columns(["embedding", "confidence", "extra", "schema_version"]))
    assert read_segment(data, Sample) == ([sample()], [])


def test_an_added_column_is_a_field_nobody_knows() -> None:
    data = rewritten([sample()], lambda t: t.append_column("humidity", pa.array([3])))
    assert read_segment(data, Sample)[0][0].model_dump()["humidity"] == 3


@pytest.mark.parametrize("data", [b"", b"PAR1", b"not parquet at all", b"PAR1" + bytes(100) + b"PAR1"])
def test_foreign_bytes_are_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(ForeignSegment, match="not a readable Parquet file") as caught:
        read_segment(data, Sample)
    assert "\n" not in str(caught.value)


def test_no_damage_to_a_segment_does_more_than_refuse_it() -> None:
    """A bit flipped anywhere is refused or read as a record; it is never another kind of error."""
    whole = write_segment([sample(n, humidity=n) for n in range(3)])
    refused = 0
    for at in range(0, len(whole), 7):
        data = whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :]
        try:
            read_segment(data, Sample)
        except ForeignSegment:
            refused += 1
    assert refused
    for cut in range(0, len(whole), 101):
        with pytest.raises(ForeignSegment):
            read_segment(whole[:cut], Sample)


def changed(number: int, column: str, value: Any) -> bytes:
    """Three samples, the one at ``number`` with ``value`` in ``column``."""

    def change(table: pa.Table) -> pa.Table:
        values = table.column(column).to_pylist()
        values[number] = value
        kind = table.schema.field(column).type
        return table.set_column(table.column_names.index(column), column, pa.array(values, kind))

    return rewritten([sample(n) for n in range(3)], change)


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("selection_probability", 1.5, "selection_probability: Input should be less than or equal to 1"),
        ("selection_probability", None, "selection_probability: Input should be a valid number"),
        ("device", None, "device: Input should be a valid string"),
        ("payload", None, "payload: Input should be valid bytes|payload: Input should be a valid bytes"),
        ("captured_at", None, "captured_at: Input should be a valid datetime"),
        ("extra", "{not json", "Expecting property name"),
        ("extra", "[1]", ""),
        ("extra", "5", ""),
        ("extra", "[" * 100_000, ""),
    ],
)
def test_one_bad_row_is_rejected_with_the_reason_and_the_others_kept(column: str, value: Any, reason: str) -> None:
    good, bad = read_segment(changed(1, column, value), Sample)
    assert good == [sample(0), sample(2)]
    [(row, why)] = bad
    assert row["sample_id"] == sample(1).sample_id
    assert why
    assert any(part in why for part in reason.split("|"))


def test_a_time_out_of_range_is_refused() -> None:
    def change(table: pa.Table) -> pa.Table:
        far = pa.array([2**62], pa.int64()).cast(pa.timestamp("us", tz="UTC"))
        return table.set_column(table.column_names.index("captured_at"), "captured_at", far)

    data = rewritten([sample()], change)
    with pytest.raises(ForeignSegment, match="date value out of range"):
        read_segment(data, Sample)


def test_a_row_keeps_unknown_fields_as_json() -> None:
    row = to_row(sample(humidity=3, place={"room": "b"}))
    assert json.loads(row["extra"]) == {"humidity": 3, "place": {"room": "b"}}
    assert to_row(sample())["extra"] is None


def test_what_comes_as_extra_never_stands_in_for_a_column() -> None:
    mark = json.dumps({"device": "another", "sample_id": "another", "sequence": 7})

    def change(table: Any) -> Any:
        index = table.column_names.index("extra")
        return table.set_column(index, "extra", pa.array([mark], pa.string()))

    [read], bad = read_segment(rewritten([sample(1)], change), Sample)
    assert bad == []
    assert (read.device, read.sample_id) == (sample(1).device, sample(1).sample_id)
    assert read.__pydantic_extra__ == {"sequence": 7}
