"""What a model server beside the node answers becomes an answer of the service, or one error that says what is wrong.

TensorFlow Serving cannot be had from the package index: the server here answers as its documentation says it does.
"""

from __future__ import annotations

import base64
import json
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pydantic import ValidationError

from edgeloop.clients import endpoints
from edgeloop.clients.endpoint_answers import answer_of
from edgeloop.clients.endpoint_wire import Tensor, v2_call, v2_outputs
from edgeloop.clients.endpoints import EndpointFailed, RefusedInput
from edgeloop.clients.models import (
    Answer,
    Endpoint,
    MalformedAnswer,
    Model,
    ModelUnavailable,
    UnloadableModel,
    load_model,
    make_probe,
    run_probe,
)
from edgeloop.samples.payloads import UndecodablePayload, decode_image, encode_features
from edgeloop.samples.service import NodeConfig
from tests.contract.peers.scripted import Reply, Scripted, scripted
from tests.servers.ports import free_port
from tests.unit.samples.make import classifier, looker, picture, regressor

if TYPE_CHECKING:
    from numpy.typing import NDArray

RATER, SORTER, LOOKER = (s.node_config() for s in (regressor(), classifier(), looker()))
ROW = encode_features([1.5, 2])
AVAILABLE = {"model_version_status": [{"version": "3", "state": "AVAILABLE", "status": {"error_code": "OK"}}]}
METADATA = {"name": "m", "platform": "x", "inputs": [{"name": "row", "datatype": "FP32", "shape": [-1, 2]}]}


@pytest.fixture
def server() -> Iterator[Scripted]:
    replies = {
        "/v1/models/m": Reply(AVAILABLE),
        "/v1/models/m:predict": Reply({"predictions": [4.5]}),
        "/v2": Reply({"name": "x", "version": "1", "extensions": []}),
        "/v2/models/m": Reply(METADATA),
        "/v2/models/m/ready": Reply(b""),
        "/v2/models/m/infer": Reply({"outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 1], "data": [4.5]}]}),
    }
    with scripted(replies) as running:
        yield running


def remote(server: Scripted, protocol: Any = "v1", config: NodeConfig = RATER, **more: Any) -> Model:
    return load_model(config, {}, endpoint=Endpoint(protocol=protocol, url=server.url, model="m", **more))


# --- TensorFlow Serving's V1


def test_v1_sends_a_row_and_takes_a_number(server: Scripted) -> None:
    assert remote(server).predict(ROW).value == 4.5
    path, body, _ = server.asked[-1]
    assert (path, json.loads(body)) == ("/v1/models/m:predict", {"instances": [[1.5, 2.0]]})


def test_v1_sends_a_picture_as_b64_and_takes_a_row_of_probabilities(server: Scripted) -> None:
    server.replies["/v1/models/m:predict"] = Reply({"predictions": [[0.2, 0.8]]})
    answer = remote(server, config=LOOKER).predict(picture(1))
    assert (answer.prediction, answer.confidence, answer.probabilities) == ("dog", 0.8, (0.2, 0.8))
    (sent,) = json.loads(server.asked[-1][1])["instances"]
    assert base64.b64decode(sent["b64"]) == picture(1)


@pytest.mark.parametrize("state", ["LOADING", "END"])
def test_a_version_that_is_not_available_is_waited_for(server: Scripted, state: str) -> None:
    server.replies["/v1/models/m"] = Reply({"model_version_status": [{"version": "1", "state": state}]})
    with pytest.raises(ModelUnavailable, match="has not loaded its model yet"):
        remote(server)


def test_the_path_of_a_proxy_before_the_server_is_kept(server: Scripted) -> None:
    server.replies |= {f"/serving{path}": reply for path, reply in server.replies.items()}
    endpoint = Endpoint(protocol="v1", url=f"{server.url}/serving/", model="m")
    assert load_model(RATER, {}, endpoint=endpoint).predict(ROW).value == 4.5
    assert all(path.startswith("/serving/v1/") for path, _, _ in server.asked)


# --- V2


def test_v2_names_and_types_the_input_as_the_server_does(server: Scripted) -> None:
    assert remote(server, "v2").predict(ROW).value == 4.5
    sent = json.loads(server.asked[-1][1])
    assert sent["inputs"] == [{"name": "row", "datatype": "FP32", "shape": [1, 2], "data": [1.5, 2.0]}]
    assert sent["id"]


@pytest.mark.parametrize(("listed", "asked", "binary"), [(True, None, True), (False, None, False), (False, True, True)])
def test_v2_sends_binary_data_where_that_is_known(
    server: Scripted, listed: bool, asked: bool | None, binary: bool
) -> None:
    server.replies["/v2"] = Reply({"extensions": ["binary_tensor_data"] if listed else []})
    head = {"outputs": [{"name": "y", "datatype": "FP64", "shape": [1], "parameters": {"binary_data_size": 8}}]}
    data = json.dumps(head).encode()
    length = {"Inference-Header-Content-Length": str(len(data))}
    server.replies["/v2/models/m/infer"] = (
        Reply(data + struct.pack("<d", 7.25), headers=length)
        if binary
        else Reply({"outputs": [{"name": "y", "datatype": "FP64", "shape": [1], "data": [7.25]}]})
    )
    assert remote(server, "v2", binary=asked).predict(ROW).value == 7.25
    _, body, headers = server.asked[-1]
    assert ("Inference-Header-Content-Length" in headers) is binary
    if binary:
        assert body[int(headers["Inference-Header-Content-Length"]) :] == struct.pack("<2f", 1.5, 2)


def test_a_picture_as_binary_data_has_its_length_before_it() -> None:
    call = v2_call(b"JPEG", Tensor(), binary=True)
    assert call.body[int(call.headers["Inference-Header-Content-Length"]) :] == b"\4\0\0\0JPEG"


@pytest.mark.parametrize("cut", [b"", b"\1\0\0", b"\5\0\0\0ab", b"\1\0\0\0\xff"])
def test_texts_that_are_cut_off_are_no_tensor(cut: bytes) -> None:
    outputs = [{"name": "y", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(cut)}}]
    head = json.dumps({"outputs": outputs}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    if not cut:
        assert v2_outputs(head, headers) == {"y": []}
        return
    with pytest.raises(MalformedAnswer, match="is no tensor"):
        v2_outputs(head + cut, headers)


# --- pictures


@pytest.fixture
def one_core(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(endpoints, "usable_cores", lambda: 1)
    endpoints.decoding.cache_clear()
    yield
    endpoints.decoding.cache_clear()


@pytest.mark.usefixtures("one_core")
def test_pictures_are_decoded_in_turn_and_answered_all_at_once(
    server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.replies["/v1/models/m:predict"] = Reply({"predictions": [[0.2, 0.8]]})
    models = [remote(server, config=LOOKER) for _ in range(2)]  # the turns are those of the process
    decoding, most, all_asked = 0, 0, threading.Barrier(6)

    def decode(payload: bytes, size: int) -> NDArray[np.uint8]:
        nonlocal decoding, most
        decoding += 1
        most = max(most, decoding)
        time.sleep(0.02)  # others come meanwhile
        decoding -= 1
        return decode_image(payload, size)

    def ask(number: int) -> str:
        return models[number % 2].predict(picture(number)).prediction

    def infer(self: endpoints._Server, *given: Any) -> Any:
        all_asked.wait(10)  # which is for nobody if somebody waits for the network in his turn
        return taken(self, *given)

    taken = endpoints._Server.infer
    monkeypatch.setattr(endpoints, "decode_image", decode)
    monkeypatch.setattr(endpoints._Server, "infer", infer)
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(ask, range(6))) == ["dog"] * 6
    assert most == 1


# --- errors


@pytest.mark.parametrize("protocol", ["v1", "v2"])
def test_a_model_that_is_not_there_does_not_load(server: Scripted, protocol: str) -> None:
    del server.replies[f"/{protocol}/models/m"]
    with pytest.raises(UnloadableModel, match=rf"does not know it \(nothing at /{protocol}/models/m\): load it there"):
        remote(server, protocol)


def test_a_server_that_is_not_there_is_away() -> None:
    endpoint = Endpoint(protocol="v1", url=f"http://127.0.0.1:{free_port()}", model="m")
    with pytest.raises(ModelUnavailable, match="does not answer"):
        load_model(RATER, {}, endpoint=endpoint)


def test_a_server_that_is_too_slow_is_away(server: Scripted) -> None:
    model = remote(server, timeout_seconds=2)
    server.replies["/v1/models/m:predict"].wait_seconds = 5
    with pytest.raises(ModelUnavailable, match="timed out"):
        model.predict(ROW)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, RefusedInput),
        (413, RefusedInput),
        (404, ModelUnavailable),
        (429, ModelUnavailable),
        (503, ModelUnavailable),
        (500, EndpointFailed),
        (302, EndpointFailed),
    ],
)
def test_the_status_says_whose_fault_it_is(server: Scripted, status: int, kind: type[Exception]) -> None:
    model = remote(server)
    server.replies["/v1/models/m:predict"] = Reply({"error": "shape\nmismatch"}, status, {"Location": "/v1/models/m"})
    with pytest.raises(kind, match=rf"model m\) said {status}: shape mismatch: "):
        model.predict(ROW)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'{"predictions": []}', b'{"predictions": 1}', b"[" * 100_000]
)
@pytest.mark.parametrize("protocol", ["v1", "v2"])
def test_what_is_no_answer_is_an_error_and_no_guess(server: Scripted, protocol: str, body: bytes) -> None:
    model = remote(server, protocol)
    for path in ("/v1/models/m:predict", "/v2/models/m/infer"):
        server.replies[path] = Reply(body)
    with pytest.raises(MalformedAnswer):
        model.predict(ROW)


def test_an_endless_answer_is_cut_off(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeloop.clients.endpoints.MAX_ANSWER", 1000)
    model = remote(server)
    server.replies["/v1/models/m:predict"] = Reply(b" " * 5000)
    with pytest.raises(MalformedAnswer, match="over 1000 bytes"):
        model.predict(ROW)


def test_a_connection_is_kept_and_one_that_was_closed_is_opened_again(server: Scripted) -> None:
    model = remote(server)
    for _ in range(5):
        model.predict(ROW)
    assert len(server.connections) == 1
    server.hang_up = True
    for _ in range(3):
        assert model.predict(ROW).value == 4.5


def test_a_request_that_a_closing_connection_lost_is_sent_once_more(server: Scripted) -> None:
    model = remote(server)
    server.drops = 1
    assert model.predict(ROW).value == 4.5
    server.drops = 2
    with pytest.raises(ModelUnavailable, match="does not answer"):
        model.predict(ROW)
    assert server.drops == 0


def test_an_input_that_is_none_is_not_sent(server: Scripted) -> None:
    model = remote(server)
    before = len(server.asked)
    with pytest.raises(UndecodablePayload, match="row has 3 values"):
        model.predict(b"[1, 2, 3]")
    assert len(server.asked) == before


def test_a_probe_checks_a_remote_model(server: Scripted) -> None:
    model = remote(server)
    run_probe(model, make_probe(model, [ROW]), False)


@pytest.mark.parametrize("url", ["127.0.0.1:80", "ftp://a", "http://", "http://a/b?c", "http://a b"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        Endpoint(protocol="v1", url=url, model="m")


def test_a_proxy_of_the_environment_is_not_used(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    assert remote(server).predict(ROW).value == 4.5


# --- what outputs mean


def meant(outputs: dict[str, list[Any]], labels: tuple[str, ...] | None = ("x", "y")) -> Answer:
    return answer_of(outputs, labels)


@pytest.mark.parametrize(
    ("outputs", "prediction", "confidence", "probabilities"),
    [
        ({"": [0.25, 0.75]}, "y", 0.75, (0.25, 0.75)),
        ({"": [1, 0]}, "x", 1.0, (1.0, 0.0)),
        ({"any": ["y"]}, "y", None, None),
        ({"any": [1]}, "y", None, None),
        ({"any": [0.25]}, "x", 0.75, (0.75, 0.25)),
        ({"predict_proba": [0.25, 0.75], "predict": ["x"]}, "y", 0.75, (0.25, 0.75)),
        ({"prediction": ["x"], "confidence": [0.9], "sample_id": ["ab"]}, "x", 0.9, None),
        ({"sample_id": ["ab"], "other": ["x"]}, "x", None, None),
    ],
)
def test_a_classifiers_outputs(
    outputs: dict[str, list[Any]], prediction: str, confidence: float | None, probabilities: Any
) -> None:
    found = meant(outputs)
    assert (found.prediction, found.confidence, found.probabilities) == (prediction, confidence, probabilities)


def test_the_name_of_a_class_comes_before_its_number() -> None:
    assert meant({"": [1]}, ("1", "0")).prediction == "1"
    assert meant({"": [1.0]}, ("5", "1", "7")).prediction == "1"
    assert meant({"": [2]}, ("5", "1", "7")).prediction == "7"


@pytest.mark.parametrize(
    "outputs",
    [
        {},
        {"": []},
        {"": ["z"]},
        {"": [2]},
        {"": [-1]},
        {"": [None]},
        {"": [1.5]},
        {"": [float("nan")]},
        {"": [0.5, 0.6]},
        {"": [1.5, -0.5]},
        {"": [0.1, 0.2, 0.7]},
        {"": [float("nan"), 1.0]},
        {"": ["x", "y"]},
        {"predict_proba": [1.0]},
        {"prediction": ["x"], "confidence": [2.0]},
        {"": [{"deep": 1}]},
    ],
)
def test_outputs_that_mean_nothing_to_a_classifier(outputs: dict[str, list[Any]]) -> None:
    with pytest.raises(MalformedAnswer):
        meant(outputs)


@pytest.mark.parametrize("values", [[], [1.0, 2.0], ["1"], [True], [float("inf")], [None]])
def test_a_regressor_answers_one_finite_number(values: list[Any]) -> None:
    assert meant({"": [3]}, None).value == 3.0
    with pytest.raises(MalformedAnswer, match="not one finite number"):
        meant({"": values}, None)


def test_a_detectors_boxes_are_kept() -> None:
    found = meant({"detection_scores": [0.3, 0.9], "detection_classes": [0.0, 1.0], "detection_boxes": [0.0] * 8})
    assert (found.prediction, found.confidence, found.boxes) == ("y", 0.9, (0.3, 0.9))
    assert meant({"prediction": ["x"], "boxes": [0.4]}).boxes == (0.4,)
    nothing = meant({"boxes": []})
    assert (nothing.prediction, nothing.confidence, nothing.boxes) == ("", 0.0, ())
    with pytest.raises(MalformedAnswer):
        meant({"boxes": [1.5]})


def test_any_number_type_travels_as_binary_data() -> None:
    kinds = {"INT8": np.int8, "UINT16": np.uint16, "INT64": np.int64, "FP16": np.float16, "FP32": np.float32}
    for kind, dtype in kinds.items():
        data = np.array([1, 2], dtype).tobytes()
        head = json.dumps(
            {"outputs": [{"name": "y", "datatype": kind, "shape": [2], "parameters": {"binary_data_size": len(data)}}]}
        ).encode()
        found = v2_outputs(head + data, {"Inference-Header-Content-Length": str(len(head))})["y"]
        assert found == [1, 2]
        assert isinstance(found[0], float if kind.startswith("FP") else int)
