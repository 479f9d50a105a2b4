"""The Open Inference Protocol over HTTP, in JSON and with binary data."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.clients.endpoint_wire import join_strings
from edgeloop.edge.http.bodies import strings_of
from edgeloop.edge.http.messages import MalformedRequest
from edgeloop.edge.http.tensors import NUMBERS, Tensor, numbers
from tests.unit.edge.asking import (
    INFER,
    NUMBER,
    PICTURE,
    PICTURES,
    PREDICT,
    Response,
    Web,
    binary,
    in_binary,
    prefixed,
    tensor,
)
from tests.unit.edge.fakes import FEATURES, SERVICE, FakeModel

PICTURES_INFER = f"/v2/models/{PICTURES}/infer"


def b64(payload: bytes) -> str:
    return base64.b64encode(payload).decode()


def outputs(answer: Any) -> dict[str, Any]:
    return {o["name"]: o["data"] for o in answer["outputs"]}


def apart(response: Response) -> tuple[Any, bytes]:
    """The JSON in front of an answer, and what is behind it."""
    assert response.status == 200, response.body
    assert response.headers[b"content-type"] == b"application/octet-stream"
    length = int(response.headers[b"inference-header-content-length"])
    return json.loads(response.body[:length]), response.body[length:]


# --- JSON


def test_v2_answers_with_outputs_and_the_callers_id(web: Web) -> None:
    answer = web.answer(INFER, tensor("FP32", [2, 2], [0.5, 1, 0.25, 1], id="7"))
    assert (answer["model_name"], answer["model_version"], answer["id"]) == (SERVICE, "1", "7")
    by_name = {o["name"]: o for o in answer["outputs"]}
    assert list(by_name) == ["prediction", "confidence", "sample_id"]
    assert by_name["prediction"]["datatype"] == "BYTES" and by_name["prediction"]["data"] == ["yes", "yes"]
    assert by_name["confidence"]["data"] == [0.5, 0.25] and by_name["sample_id"]["shape"] == [2]
    assert "id" not in web.answer(INFER, tensor("FP32", [1, 2], [0.5, 1]))


@pytest.mark.parametrize("data", [[b64(b"[0.5,1]")], [{"b64": b64(b"[0.5,1]")}], [[b64(b"[0.5,1]")]]])
def test_v2_takes_bytes_as_base64(web: Web, data: list[Any]) -> None:
    shape = [1, 1] if isinstance(data[0], list) else [1]
    assert outputs(web.answer(INFER, tensor("BYTES", shape, data)))["confidence"] == [0.5]


@pytest.mark.parametrize("kind", NUMBERS)
@pytest.mark.parametrize("data", [[1, 2, 0, 4], [[1, 2], [0, 4]]])
def test_every_numeric_datatype_makes_rows(web: Web, kind: str, data: list[Any]) -> None:
    assert outputs(web.answer(INFER, tensor(kind, [2, 2], data)))["confidence"] == [1.0, 0.0]
    body, headers = in_binary(
        {"inputs": [binary(kind, [2, 2], raw := np.array([1, 2, 0, 4], NUMBERS[kind]).tobytes())]}, raw
    )
    assert outputs(web.answer(INFER, body, headers))["confidence"] == [1.0, 0.0]


def test_features_may_come_as_tensors_of_their_own(web: Web) -> None:
    raw = struct.pack("<2f", 0.5, 0.25)
    b = {"name": "b", "datatype": "INT64", "shape": [2, 1], "data": [[1], [2]]}
    body, headers = in_binary({"inputs": [b, binary("FP32", [2], raw, "a")]}, raw)
    assert outputs(web.answer(INFER, body, headers))["confidence"] == [0.5, 0.25]


def test_outputs_come_as_asked(web: Web) -> None:
    wanted = [{"name": "probabilities"}, {"name": "prediction"}]
    answer = web.answer(INFER, tensor("FP32", [2, 2], [0.5, 1, 0.25, 1], outputs=wanted))
    assert [o["name"] for o in answer["outputs"]] == ["probabilities", "prediction"]
    assert answer["outputs"][0]["shape"] == [2, 2]
    assert answer["outputs"][0]["data"] == [0.5, 0.5, 0.25, 0.75]


def test_a_regressor_gives_a_number(web: Web) -> None:
    path = f"/v2/models/{NUMBER}/infer"
    answer = web.answer(path, tensor("FP64", [1, 1], [2.5]))
    assert [(o["name"], o["datatype"]) for o in answer["outputs"]] == [("prediction", "FP64"), ("sample_id", "BYTES")]
    assert outputs(web.answer(path, tensor("FP64", [1], [2.5], "x")))["prediction"] == [2.5]
    response = web.ask(path, tensor("FP64", [1, 1], [2.5], outputs=[{"name": "confidence"}]))
    assert response.status == 400 and "ask for prediction, sample_id" in response.error


def test_only_the_loaded_version_answers(web: Web) -> None:
    message = tensor("FP32", [1, 2], [0.5, 1])
    assert web.answer(f"/v2/models/{SERVICE}/versions/1/infer", message)["model_version"] == "1"
    response = web.ask(f"/v2/models/{SERVICE}/versions/2/infer", message)
    assert response.status == 404 and "serves version 1, not 2" in response.error


def test_an_answer_names_the_version_that_gave_it(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    def switch_then_answer(*given: Any) -> Any:
        web.serve(SERVICE, FakeModel(), web.bench.config, "2")
        return handle(*given)

    handle = web.bench.gateway.handle
    monkeypatch.setattr(web.bench.gateway, "handle", switch_then_answer)
    message = tensor("FP32", [1, 2], [0.5, 1])
    assert web.answer(INFER, message)["model_version"] == "2"
    assert web.answer(f"/v2/models/{SERVICE}/versions/2/infer", message)["model_version"] == "2"
    web.serve(SERVICE, FakeModel(), web.bench.config, "1")
    assert web.ask(f"/v2/models/{SERVICE}/versions/1/infer", message).status == 404


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            INFER,
            {"inputs": [*tensor("FP64", [2], [0.25, 0.5], "a")["inputs"], *tensor("FP64", [2], [1, 1], "b")["inputs"]]},
        ),
        (PREDICT, {"inputs": {"a": [0.25, 0.5], "b": [1, 1]}}),
    ],
)
def test_columns_are_not_answered_by_a_release_of_another_order(
    web: Web, monkeypatch: pytest.MonkeyPatch, path: str, body: object
) -> None:
    def switch_then_answer(*given: Any) -> Any:
        known = web.bench.config.model_copy(update={"features": FEATURES[::-1]})
        web.serve(SERVICE, FakeModel(), known, "2")
        return handle(*given)

    handle = web.bench.gateway.handle
    monkeypatch.setattr(web.bench.gateway, "handle", switch_then_answer)
    response = web.ask(path, body)
    assert response.status == 503 and "send it again" in response.error
    assert web.ask(path, body).status == 200


# --- binary


def test_a_picture_in_binary_is_answered_in_binary(web: Web) -> None:
    raw = prefixed(PICTURE, PICTURE + b"2")
    wanted = [{"name": n} for n in ("prediction", "probabilities", "confidence")]
    inputs, parameters = [binary("BYTES", [2], raw)], {"binary_data_output": True}
    body, headers = in_binary({"inputs": inputs, "outputs": wanted, "id": "é", "parameters": parameters}, raw)
    head, tail = apart(web.ask(PICTURES_INFER, body, headers))
    sizes = [o["parameters"]["binary_data_size"] for o in head["outputs"]]
    assert [o["name"] for o in head["outputs"]] == [w["name"] for w in wanted] and head["id"] == "é"
    assert all("data" not in o for o in head["outputs"]) and sum(sizes) == len(tail)
    assert tail == prefixed(b"dog", b"dog") + struct.pack("<4d", 0.25, 0.75, 0.25, 0.75) + struct.pack(
        "<2d", 0.75, 0.75
    )


def test_outputs_may_be_mixed(web: Web) -> None:
    wanted = [
        {"name": "prediction", "parameters": {"binary_data": True}},
        {"name": "confidence", "parameters": {"binary_data": False}},
        {"name": "sample_id"},
    ]
    message = tensor("FP64", [1, 2], [0.5, 1], outputs=wanted, parameters={"binary_data_output": False})
    head, tail = apart(web.ask(INFER, message))
    assert tail == prefixed(b"yes") and head["outputs"][1]["data"] == [0.5] and len(head["outputs"][2]["data"][0]) == 64


def test_an_answer_without_binary_data_is_plain_json(web: Web) -> None:
    raw = prefixed(PICTURE)
    body, headers = in_binary({"inputs": [binary("BYTES", [1, 1], raw)]}, raw)
    response = web.ask(PICTURES_INFER, body, headers)
    assert response.headers[b"content-type"] == b"application/json"
    assert b"inference-header-content-length" not in response.headers
    assert outputs(response.json())["prediction"] == ["dog"]


def test_a_bare_picture_is_taken_when_no_json_is_in_front(web: Web) -> None:
    headers = {"Inference-Header-Content-Length": "0"}
    assert outputs(web.answer(PICTURES_INFER, PICTURE, headers))["prediction"] == ["dog"]
    response = web.ask(INFER, PICTURE, headers)
    assert response.status == 400 and "which is for images" in response.error


# --- round trips


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_elements_come_back_as_they_were(values: list[bytes]) -> None:
    assert strings_of(memoryview(join_strings(values)), len(values), "x") == values


@given(st.binary(max_size=60), st.integers(0, 6))
def test_any_bytes_are_elements_or_refused(raw: bytes, count: int) -> None:
    try:
        found = strings_of(memoryview(raw), count, "x")
    except MalformedRequest:
        return
    assert join_strings(found) == raw and len(found) == count


@given(st.sampled_from(sorted(NUMBERS)), st.data())
def test_numbers_are_the_same_in_json_and_in_binary(kind: str, data: st.DataObject) -> None:
    dtype = NUMBERS[kind]
    if dtype.kind == "f":
        widest = float(np.finfo(dtype).max)
        element: Any = st.floats(-widest, widest).map(lambda value: float(np.asarray(value).astype(dtype)))
    else:
        element = st.integers(int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    values = data.draw(st.lists(element, min_size=1, max_size=8))
    shape = (len(values), 1)
    as_json = numbers(Tensor("x", kind, shape, json.loads(json.dumps(values)), None))
    as_raw = numbers(Tensor("x", kind, shape, None, memoryview(np.array(values, dtype).tobytes())))
    assert as_json.shape == as_raw.shape == shape and np.array_equal(as_json, as_raw)
