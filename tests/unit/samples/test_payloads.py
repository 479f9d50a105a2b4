"""What is an input and what is not, and that the reason is named."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgeloop.samples.payloads import (
    UndecodablePayload,
    decode_features,
    decode_image,
    encode_features,
)
from tests.unit.samples.make import encoded, picture, plain_picture

NAMES = ["a", "b", "c"]
NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.lists(NUMBERS, min_size=3, max_size=3))
def test_a_row_round_trips_as_list_and_as_object(row: list[float]) -> None:
    expected = np.asarray(row, dtype=np.float32)
    as_list = decode_features(encode_features(row), NAMES)
    as_object = decode_features(json.dumps(dict(zip(reversed(NAMES), reversed(row), strict=True))).encode(), NAMES)
    assert as_list.dtype == np.float32
    assert np.array_equal(as_list, expected)
    assert np.array_equal(as_object, expected)


def test_equal_rows_are_equal_bytes() -> None:
    assert encode_features([1, 2]) == encode_features([1.0, 2.0]) == b"[1.0,2.0]"


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"[1, 2]", "row has 2 values: send 3"),
        (b"[1, 2, 3, 4]", "row has 4 values"),
        (b"[]", "row has 0 values"),
        (b'"abc"', "JSON str"),
        (b"3", "JSON int"),
        (b"null", "JSON NoneType"),
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[1, 2,", "not JSON"),
        (b'[1, "2", 3]', "feature b is '2', not a number"),
        (b"[1, 2, null]", "feature c is None, not a number"),
        (b"[true, 2, 3]", "feature a is True, not a number"),
        (b"[[1], 2, 3]", r"feature a is \[1\], not a number"),
        (b"[1, NaN, 3]", "feature b is nan"),
        (b"[1, 2, Infinity]", "feature c is inf"),
        (b"[-Infinity, 2, 3]", "feature a is -inf"),
        (b"[1, 2, 1e999]", "feature c is inf"),
        (b'{"a": 1, "b": 2}', r"lacks \['c'\] and has unknown \[\]"),
        (b'{"a": 1, "b": 2, "c": 3, "d": 4}', r"lacks \[\] and has unknown \['d'\]"),
        (b"{}", r"lacks \['a', 'b', 'c'\]"),
    ],
)
def test_a_bad_row_is_refused_by_name(payload: bytes, reason: str) -> None:
    with pytest.raises(UndecodablePayload, match=reason):
        decode_features(payload, NAMES)


LARGE = "x" * 100_000


@pytest.mark.parametrize(
    "value",
    [
        [1, 2, LARGE],
        [1, 2, [["x" * 100] * 30] * 30],
        [1, 2, {LARGE + str(n): LARGE for n in range(9)}],
        {LARGE + str(n): n for n in range(9)},
        {f"name {n}": n for n in range(100_000)},
    ],
    ids=["text", "lists", "object", "names", "many"],
)
def test_a_refusal_quotes_little_of_a_large_row(value: object) -> None:
    with pytest.raises(UndecodablePayload, match=r"(feature c is|has unknown) .*: send ") as refused:
        decode_features(json.dumps(value).encode(), NAMES)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    "payload", [b"[1, 2, 1e39]", b"[1, 2, " + b"9" * 400 + b"]", b"[" * 100_000], ids=["float32", "int", "deep"]
)
def test_a_number_or_nesting_beyond_what_a_model_takes_is_refused(payload: bytes) -> None:
    with pytest.raises(UndecodablePayload):
        decode_features(payload, NAMES)


@given(st.binary(max_size=60))
def test_no_bytes_do_anything_but_decode_or_be_refused(payload: bytes) -> None:
    try:
        row = decode_features(payload, NAMES)
    except UndecodablePayload:
        return
    assert row.shape == (3,)
    assert np.isfinite(row).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_picture_becomes_a_square(kind: str) -> None:
    pixels = decode_image(picture(kind=kind), 24)
    assert pixels.shape == (24, 24, 3)
    assert pixels.dtype == np.uint8


def test_pixels_are_the_pictures_own() -> None:
    assert np.array_equal(decode_image(plain_picture(77), 16), np.full((16, 16, 3), 77, np.uint8))
    assert decode_image(plain_picture(77), 16, channels=1).shape == (16, 16, 1)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "I;16"])
def test_other_modes_become_rgb(mode: str) -> None:
    assert decode_image(encoded(Image.new(mode, (20, 20)), "PNG"), 16).shape == (16, 16, 3)


@pytest.mark.parametrize(
    "payload",
    [
        picture()[: len(picture()) // 2],
        picture(kind="PNG")[:-40],
        picture(kind="GIF"),
        picture(kind="BMP"),
        b"",
        b"\xff\xd8\xff",
        b"<svg/>",
        encode_features([1, 2]),
    ],
    ids=["truncated JPEG", "truncated PNG", "GIF", "BMP", "empty", "head only", "SVG", "row"],
)
def test_what_is_no_whole_jpeg_or_png_is_refused(payload: bytes) -> None:
    with pytest.raises(UndecodablePayload, match=f"payload of {len(payload)} bytes is not a JPEG or PNG"):
        decode_image(payload, 16)
