"""Whole messages that are written are read as they were: V2 requests and answers in both forms, results over MQTT."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeloop.clients.endpoint_answers import answer_of
from edgeloop.clients.endpoint_wire import Tensor as Named
from edgeloop.clients.endpoint_wire import v1_call, v1_outputs, v2_call, v2_outputs
from edgeloop.clients.models import Answer
from edgeloop.edge.http.bodies import split
from edgeloop.edge.http.messages import Request
from edgeloop.edge.http.tensors import numbers, read_inputs, strings
from edgeloop.edge.results import Result
from edgeloop.samples.service import NodeConfig
from tests.unit.edge.asking import NUMBER, Web, prefixed
from tests.unit.edge.fakes import FEATURES, SERVICE

Element = NDArray[Any] | list[bytes]
#: The protocol's own table, written down once more: bytes are little-endian.
NUMBERS = {
    **{
        f"{kind}{8 * n}": np.dtype(f"<{letter}{n}")
        for kind, letter in (("UINT", "u"), ("INT", "i"))
        for n in (1, 2, 4, 8)
    },
    **{f"FP{8 * n}": np.dtype(f"<f{n}") for n in (2, 4, 8)},
}
NAMES = st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=12)
SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=4)
FINITE = st.floats(allow_nan=False, allow_infinity=False)


@dataclass
class Sent:
    """One input of a message, as its sender has it."""

    kind: str
    shape: list[int]
    values: Element
    binary: bool

    def described(self, name: str) -> tuple[dict[str, Any], bytes]:
        """Its part of the JSON, and what follows behind."""
        entry: dict[str, Any] = {"name": name, "datatype": self.kind, "shape": self.shape}
        is_text = isinstance(self.values, list)
        if self.binary:
            raw = prefixed(*self.values) if isinstance(self.values, list) else self.values.tobytes()
            return {**entry, "parameters": {"binary_data_size": len(raw)}}, raw
        data = [base64.b64encode(v).decode() for v in self.values] if is_text else np.asarray(self.values).tolist()
        return {**entry, "data": data}, b""


@st.composite
def inputs(draw: st.DrawFn) -> Sent:
    kind, shape, binary = draw(st.sampled_from(["BYTES", *NUMBERS])), draw(SHAPES), draw(st.booleans())
    count = int(np.prod(shape))
    if kind == "BYTES":
        return Sent(kind, [count], draw(st.lists(st.binary(max_size=20), min_size=count, max_size=count)), binary)
    raw = draw(st.binary(min_size=count * NUMBERS[kind].itemsize, max_size=count * NUMBERS[kind].itemsize))
    return Sent(
        kind, shape, np.nan_to_num(np.frombuffer(raw, NUMBERS[kind]), posinf=1, neginf=-1).reshape(shape), binary
    )


def received(body: bytes, headers: dict[str, str]) -> Request:
    return Request(SERVICE, None, {k.lower().encode(): v.encode() for k, v in headers.items()}, body)


@settings(deadline=None)
@given(st.dictionaries(NAMES, inputs(), min_size=1, max_size=5), st.text("0123456789abc", max_size=5))
def test_a_request_is_read_as_it_was_written(sent: dict[str, Sent], name: str) -> None:
    described = {key: one.described(key) for key, one in sent.items()}
    front = json.dumps({"id": name, "inputs": [entry for entry, _ in described.values()]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(front))} if any(o.binary for o in sent.values()) else {}
    message, raw = split(received(front + b"".join(tail for _, tail in described.values()), headers))
    assert message is not None and message["id"] == name
    tensors = read_inputs(message["inputs"], raw)
    assert [(t.name, t.datatype, list(t.shape)) for t in tensors] == [(k, o.kind, o.shape) for k, o in sent.items()]
    for tensor, one in zip(tensors, sent.values(), strict=True):
        if isinstance(one.values, list):
            assert strings(tensor) == one.values
        else:
            assert np.array_equal(numbers(tensor), one.values.astype(np.float64))


@settings(deadline=None)
@given(st.lists(FINITE, min_size=1, max_size=6) | st.binary(max_size=60), NAMES, st.booleans())
def test_what_a_node_asks_another_reads(payload: bytes | list[float], name: str, binary: bool) -> None:
    call = v2_call(payload, Named(name, "FP64"), binary=binary)
    message, raw = split(received(call.body, call.headers))
    assert message is not None
    (tensor,) = read_inputs(message["inputs"], raw)
    assert tensor.name == name
    if isinstance(payload, bytes):
        assert strings(tensor) == [payload]
    else:
        assert numbers(tensor).tolist() == [payload]


@dataclass
class Told:
    """Answers what it is told to, by the first number of the row."""

    answers: list[Answer]
    labels: tuple[str, ...] | None
    backbone_digest: str | None = None

    def predict(self, payload: bytes) -> Answer:
        return self.answers[int(json.loads(payload)[0])]


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    with closing(Web(tmp_path_factory.mktemp("node"), audit=1e-9)) as made:
        yield made


@st.composite
def told(draw: st.DrawFn) -> Told:
    labels = tuple(draw(st.lists(NAMES, min_size=2, max_size=4, unique=True)))
    weights = st.lists(st.floats(0.01, 1), min_size=len(labels), max_size=len(labels))
    answers = []
    for given_weights in draw(st.lists(weights, min_size=1, max_size=4)):
        shares = tuple(float(v) for v in np.array(given_weights) / sum(given_weights))
        best = max(range(len(labels)), key=shares.__getitem__)
        answers.append(Answer(labels[best], shares[best], shares, None))
    return Told(answers, labels)


def serve(web: Web, model: Told) -> None:
    known = NodeConfig(service=SERVICE, kind="tabular-classifier", features=FEATURES, labels=list(model.labels or ()))
    web.serve(SERVICE, model, known.model_copy(update={"selection": web.bench.config.selection}))


def asked(web: Web, service: str, row: list[float], way: str) -> dict[str, list[Any]]:
    call = v1_call(row) if way == "v1" else v2_call(row, Named(), binary=way == "binary")
    path = f"/v1/models/{service}:predict" if way == "v1" else f"/v2/models/{service}/infer"
    response = web.ask(path, call.body, call.headers)
    assert response.status == 200, response.body
    headers = {k.decode().title(): v.decode() for k, v in response.headers.items()}
    assert ("Inference-Header-Content-Length" in headers) == (way == "binary")
    return v1_outputs(response.body) if way == "v1" else v2_outputs(response.body, headers)


WAYS = st.sampled_from(["v1", "json", "binary"])


@settings(deadline=None)
@given(told(), WAYS)
def test_a_label_that_a_node_answers_is_what_its_caller_reads(web: Web, model: Told, way: str) -> None:
    serve(web, model)
    found, answer = answer_of(asked(web, SERVICE, [0.0, 1.0], way), model.labels), model.answers[0]
    assert (found.prediction, found.confidence) == (answer.prediction, answer.confidence)


@settings(deadline=None)
@given(told(), st.booleans())
def test_every_output_of_many_rows_is_read_as_it_was_answered(web: Web, model: Told, binary: bool) -> None:
    serve(web, model)
    sent = Sent("FP32", [len(model.answers), 2], np.array([[n, 1] for n in range(len(model.answers))], "<f4"), binary)
    entry, raw = sent.described("input")
    names = ["probabilities", "prediction", "confidence", "sample_id"]
    outputs = [{"name": name, "parameters": {"binary_data": binary}} for name in names]
    front = json.dumps({"inputs": [entry], "outputs": outputs}).encode()
    headers = {"Inference-Header-Content-Length": str(len(front))} if binary else {}
    response = web.ask(f"/v2/models/{SERVICE}/infer", front + raw, headers)
    found = v2_outputs(response.body, {k.decode().title(): v.decode() for k, v in response.headers.items()})
    assert list(found) == names and len(set(found["sample_id"])) == len(model.answers)
    assert found["prediction"] == [answer.prediction for answer in model.answers]
    assert found["confidence"] == [answer.confidence for answer in model.answers]
    assert found["probabilities"] == [share for answer in model.answers for share in answer.probabilities or ()]


@settings(deadline=None)
@given(FINITE, WAYS)
def test_a_number_that_a_node_answers_is_what_its_caller_reads(web: Web, value: float, way: str) -> None:
    web.number.says = repr(value)
    assert answer_of(asked(web, NUMBER, [1.0], way), None).value == value


TEXT = st.text(max_size=20)
RESULTS = st.builds(
    Result,
    *[TEXT] * 4,
    sample_id=st.none() | TEXT,
    prediction=st.none() | TEXT,
    confidence=st.none() | st.floats(0, 1),
    captured=st.booleans(),
    selected_by=st.none() | TEXT,
    model=st.none() | TEXT,
    error=st.none() | TEXT,
)


@given(RESULTS)
def test_a_result_over_mqtt_is_read_as_it_was_written(result: Result) -> None:
    data = result.to_bytes()
    assert b"\n" not in data and data.isascii()
    read = json.loads(data)
    known = {field.name for field in fields(Result)}
    about_error = {"error", "service", "device", "node", "at", "sample_id"}
    about_answer = known - {"error", "outcome", "probabilities"}
    assert set(read) == (about_answer if result.error is None else about_error)
    assert {name: getattr(result, name) for name in read} == read
