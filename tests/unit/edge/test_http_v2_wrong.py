"""Requests that are not of the Open Inference Protocol are told what is wrong with them."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from tests.unit.edge.asking import (
    INFER,
    PICTURE,
    PICTURES,
    Web,
    binary,
    in_binary,
    prefixed,
    tensor,
)
from tests.unit.edge.fakes import SERVICE

PICTURES_INFER = f"/v2/models/{PICTURES}/infer"
ROW = {"name": "input", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}
WRONG: list[tuple[Any, str]] = [
    ({}, '"inputs" is None'),
    ({"inputs": []}, '"inputs" is a list of 0'),
    ({"inputs": ["x"]}, "input 0 is 'x'"),
    ({"inputs": [ROW | {"name": None}]}, "the name of input 0 is None"),
    ({"inputs": [ROW | {"name": "x"}]}, "inputs are 'x' and this model takes input, or a, b"),
    ({"inputs": [ROW | {"name": "a"}]}, "inputs are 'a'"),
    ({"inputs": [ROW, ROW]}, "named twice"),
    ({"inputs": [ROW | {"datatype": "FP8"}]}, "datatype of input input is 'FP8': send one of BYTES, UINT8"),
    ({"inputs": [ROW | {"datatype": "BOOL"}]}, "is 'BOOL'"),
    ({"inputs": [ROW | {"datatype": ["FP32"]}]}, "is a list of 1"),
    ({"inputs": [ROW | {"shape": None}]}, "shape of input input is None"),
    ({"inputs": [ROW | {"shape": []}]}, "is a list of 0"),
    ({"inputs": [ROW | {"shape": [1] * 9}]}, "is a list of 9"),
    ({"inputs": [ROW | {"shape": [-1, 2]}]}, "has the dimension -1"),
    ({"inputs": [ROW | {"shape": [0, 2]}]}, "has the dimension 0"),
    ({"inputs": [ROW | {"shape": [True, 2]}]}, "has the dimension True"),
    ({"inputs": [ROW | {"shape": [1.0, 2]}]}, "has the dimension 1.0"),
    ({"inputs": [ROW | {"shape": [1, 10**40]}]}, "has the dimension a huge integer"),
    ({"inputs": [ROW | {"shape": [1, 2**31 - 1]}]}, "this model takes [n, 2]"),
    ({"inputs": [ROW | {"shape": [2]}]}, "this model takes [n, 2]"),
    ({"inputs": [ROW | {"shape": [2, 2]}]}, "has 2 elements, its shape [2, 2]"),
    ({"inputs": [ROW | {"shape": [2, 2], "data": [[1, 2]]}]}, "has 1 rows"),
    ({"inputs": [ROW | {"data": [[1]]}]}, "has a row that is not of 2"),
    ({"inputs": [ROW | {"data": [[1, 2], 3]}]}, "has 2 rows"),
    ({"inputs": [ROW | {"data": None}]}, "data of input input is None"),
    ({"inputs": [ROW | {"data": [1, "2"]}]}, "element 1 of input input is '2'"),
    ({"inputs": [ROW | {"data": [1, True]}]}, "element 1 of input input is True"),
    ({"inputs": [ROW | {"data": [1, 10**400]}]}, "out of range"),
    ({"inputs": [ROW | {"data": [1, 1e39]}]}, "a number that no FP32 is"),
    ({"inputs": [ROW | {"data": [1, float("nan")]}]}, "a number that no FP32 is"),
    ({"inputs": [ROW | {"datatype": "INT8", "data": [1, 128]}]}, "a number that no INT8 is"),
    ({"inputs": [ROW | {"datatype": "UINT64", "data": [1, -1]}]}, "a number that no UINT64 is"),
    ({"inputs": [ROW | {"datatype": "UINT64", "data": [1, 2**64]}]}, "a number that no UINT64 is"),
    ({"inputs": [ROW | {"datatype": "INT32", "data": [1, 1.5]}]}, "a number that no INT32 is"),
    ({"inputs": [ROW | {"datatype": "BYTES", "shape": [1, 2]}]}, "send [n], one element per instance"),
    ({"inputs": [ROW | {"datatype": "BYTES", "shape": [1], "data": [7]}]}, 'input[0] is 7: send {"b64": …}'),
    ({"inputs": [ROW | {"datatype": "BYTES", "shape": [1], "data": ["%"]}]}, "input[0] is not base64"),
    ({"inputs": [ROW | {"parameters": 7}]}, "parameters of input input is 7"),
    ({"inputs": [ROW | {"parameters": {"binary_data_size": 1}}]}, "binary_data_size of input input is 1 and 0 bytes"),
    ({"inputs": [ROW | {"parameters": {"binary_data_size": 0}}]}, "has data and binary_data_size"),
    ({"inputs": [ROW], "id": 7}, "id is 7"),
    ({"inputs": [ROW], "outputs": 7}, '"outputs" is 7'),
    ({"inputs": [ROW], "outputs": ["prediction"]}, "output 'prediction' is none of this model"),
    ({"inputs": [ROW], "outputs": [{"name": "logits"}]}, "output 'logits' is none of this model: ask for prediction"),
    ({"inputs": [ROW], "outputs": [{"name": "prediction"}] * 2}, "named twice"),
    ({"inputs": [ROW], "outputs": [{"name": "prediction", "parameters": 7}]}, "parameters of output prediction is 7"),
    ({"inputs": [ROW], "outputs": [{"name": "prediction", "parameters": {"binary_data": 1}}]}, "binary_data is 1"),
    ({"inputs": [ROW], "parameters": []}, "parameters is a list"),
    ({"inputs": [ROW], "parameters": {"binary_data_output": "yes"}}, "binary_data_output is 'yes'"),
]  # fmt: skip


@pytest.mark.parametrize(("message", "says"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_message_is_told_what_is_wrong(web: Web, message: object, says: str) -> None:
    response = web.ask(INFER, message)
    assert (response.status, says in response.error) == (400, True), response.body
    assert web.bench.stats.services[SERVICE].outcomes == {"bad_input": 1}
    assert web.bench.spool.samples == 0


def test_too_many_instances_are_refused_before_they_are_read(web: Web) -> None:
    assert web.ask(INFER, tensor("FP32", [1025, 2], [1])).status == 413
    raw = b"\x00" * 1025 * 16
    body, headers = in_binary({"inputs": [binary("FP64", [1025, 2], raw)]}, raw)
    assert web.ask(INFER, body, headers).status == 413


def test_pictures_are_bytes(web: Web) -> None:
    response = web.ask(PICTURES_INFER, tensor("UINT8", [1, 2], [1, 2]))
    assert response.status == 400 and "takes images: send BYTES" in response.error
    assert "takes input: rename" in web.ask(PICTURES_INFER, tensor("BYTES", [1], ["aaaa"], "image")).error


@pytest.mark.parametrize("length", ["-1", "+2", " 2", "1e1", "99999", "9" * 5000, "", "٣".encode().decode("latin-1")])
def test_a_length_of_the_json_that_cannot_be_is_refused(web: Web, length: str) -> None:
    body, _ = in_binary({"inputs": [ROW]})
    response = web.ask(INFER, body, {"Inference-Header-Content-Length": length})
    assert response.status == 400 and "Inference-Header-Content-Length is" in response.error


@pytest.mark.parametrize(
    ("shape", "raw", "says"),
    [
        ([2], prefixed(PICTURE), "has 1 of the 2 elements of its shape"),
        ([1], b"\x05\x00\x00", "element 0 has 3 of the 4 bytes of its length"),
        ([1], b"\x05\x00\x00\x00abcd", "input input: element 0 says 5 bytes and 4 are left"),
        ([1], b"\xff\xff\xff\xffabcd", "says 4294967295 bytes and 4 are left"),
        ([1], prefixed(PICTURE) + b"x", "element 1 has 1 of the 4 bytes of its length"),
        ([1], prefixed(PICTURE, PICTURE), "has more than the 1 elements of its shape"),
        ([1], b"", "has 0 of the 1 elements of its shape"),
    ],
)
def test_elements_that_do_not_add_up_are_refused(web: Web, shape: list[int], raw: bytes, says: str) -> None:
    body, headers = in_binary({"inputs": [binary("BYTES", shape, raw)]}, raw)
    response = web.ask(PICTURES_INFER, body, headers)
    assert response.status == 400 and says in response.error


@pytest.mark.parametrize(
    ("size", "says"),
    [
        (-8, "binary_data_size of input input is -8 and 16 bytes are left"),
        (17, "is 17 and 16 bytes are left"),
        (10**40, "is a huge integer and"),
        (True, "is True and"),
        ("16", "is '16' and"),
        (8, "8 bytes of binary data belong to no input"),
    ],
)
def test_sizes_that_do_not_add_up_are_refused(web: Web, size: object, says: str) -> None:
    raw = struct.pack("<2d", 0.5, 1)
    message = {"inputs": [binary("FP64", [1, 2], raw) | {"parameters": {"binary_data_size": size}}]}
    body, headers = in_binary(message, raw)
    response = web.ask(INFER, body, headers)
    assert response.status == 400 and says in response.error


def test_numbers_in_binary_must_fill_their_shape_and_be_finite(web: Web) -> None:
    for values, kind, says in (
        ((0.5,), "FP64", "has 8 bytes and its shape [1, 2] of FP64 takes 16"),
        ((0.5, float("inf")), "FP64", "element 1 of input input is not finite"),
    ):
        raw = struct.pack(f"<{len(values)}d", *values)
        body, headers = in_binary({"inputs": [binary(kind, [1, 2], raw)]}, raw)
        assert says in web.ask(INFER, body, headers).error
    assert web.bench.model.calls == 0
