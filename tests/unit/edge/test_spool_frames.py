"""Frames: what comes back of a log that was cut or damaged, and logs of before records had a value."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.edge.spool.frames import decode, encode, frame, scan
from edgeloop.edge.spool.tiers import LABEL_TIER
from edgeloop.samples.records import Label, Sample
from tests.unit.edge.spooled import label, sample

tiers = st.integers(0, LABEL_TIER)
bodies = st.lists(st.tuples(st.binary(max_size=60), tiers), max_size=8)


def old_frame(body: bytes) -> bytes:
    """As it was written before records had a value."""
    return struct.pack(">4sII", b"\xf5EL\x01", len(body), zlib.crc32(body, len(body))) + body


@given(bodies, st.integers(0, 500))
def test_a_log_cut_anywhere_keeps_its_whole_frames(parts: list[tuple[bytes, int]], cut: int) -> None:
    framed = [frame(*p) for p in parts]
    data = b"".join(framed)
    kept = data[: min(cut, len(data))]
    whole, size = 0, 0
    while whole < len(framed) and size + len(framed[whole]) <= len(kept):
        size += len(framed[whole])
        whole += 1
    found = scan(kept)
    assert [(each.body, each.tier) for each in found.frames] == parts[:whole]
    assert (found.broken, found.end) == ([], size)
    assert [kept[each.start : each.end] for each in found.frames] == framed[:whole]


@given(st.lists(st.binary(min_size=1, max_size=60), min_size=2, max_size=8), st.data())
def test_a_flipped_bit_costs_the_frame_it_is_in_and_no_other(parts: list[bytes], data: st.DataObject) -> None:
    framed = [frame(p) for p in parts]
    hit = data.draw(st.integers(0, len(parts) - 2))
    start = sum(map(len, framed[:hit]))
    position = start + data.draw(st.integers(0, len(framed[hit]) - 1))
    damaged = bytearray(b"".join(framed))
    damaged[position] ^= 1 << data.draw(st.integers(0, 7))
    found = scan(bytes(damaged))
    assert [each.body for each in found.frames] == parts[:hit] + parts[hit + 1 :]
    assert found.broken == [(start, start + len(framed[hit]))]


def test_blocks_of_zeros_at_the_end_are_a_tail_never_written() -> None:
    whole = frame(b"one")
    assert scan(whole + b"\0" * 4096).end == len(whole)


@pytest.mark.parametrize(
    "record", [sample(1), sample(1, service="\ud800"), sample(2, payload=b"\xff\xd8\x00"), label(3)]
)
def test_a_record_comes_back_as_it_went(record: Sample | Label) -> None:
    assert decode(encode(record)) == record


@given(st.binary(max_size=80))
def test_foreign_bytes_do_not_decode(body: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        decode(body)


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=40), st.none() | tiers), max_size=8), st.integers(0, 300))
def test_frames_of_before_and_of_now_stand_in_one_log(parts: list[tuple[bytes, int | None]], cut: int) -> None:
    framed = [old_frame(body) if tier is None else frame(body, tier) for body, tier in parts]
    data = b"".join(framed)
    kept = data[: min(cut, len(data))]
    found = scan(kept)
    whole = [(body, 15 if tier is None else tier) for body, tier in parts][: len(found.frames)]
    assert [(each.body, each.tier) for each in found.frames] == whole
    assert not found.broken and found.end == sum(map(len, framed[: len(whole)])) <= len(kept)
    assert len(whole) == len(parts) or found.end + len(framed[len(whole)]) > len(kept)


def test_a_flipped_tier_is_damage() -> None:
    data = bytearray(frame(b"one", 3) + frame(b"two", 4))
    data[12] ^= 1
    found = scan(bytes(data))
    assert [each.body for each in found.frames] == [b"two"] and len(found.broken) == 1


@given(st.dictionaries(st.from_regex("[a-z_]{3,12}", fullmatch=True), st.integers() | st.text() | st.booleans()))
def test_fields_that_nobody_knows_come_back(extra: dict[str, int | str | bool]) -> None:
    known = {k: v for k, v in extra.items() if k not in {*Sample.model_fields, "sequence"}}
    record = Sample.model_validate(dict(sample(1)) | known)
    back = decode(encode(record, 7))
    assert isinstance(back, Sample) and back.__pydantic_extra__ == known | {"sequence": 7}
