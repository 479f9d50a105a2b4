"""Hostile pictures at every way in, before the real decoder and a real model: told what is wrong, counted, no harm."""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgeloop.clients.broker import Ack, MemoryHub, Message
from edgeloop.clients.models import LinearHead, Model, load_model
from edgeloop.edge.mqtt.intake import Intake
from edgeloop.samples.payloads import MAX_PIXELS, MAX_WHOLE_PIXELS
from edgeloop.samples.topics import device_topic
from tests.unit.edge.asking import Response, Web, binary, in_binary, prefixed, tensor
from tests.unit.edge.fakes import SERVICE
from tests.unit.samples.make import looker, picture
from tests.unit.samples.test_payloads_hostile import animated_png, by_save, chunk, png, resized_jpeg

EXTRACTOR = "mobilenet_v1_1.0_224_quant_embedding_extractor.tflite"
LOOKER = looker().node_config()
HONEST = picture(1)
EMPTY = b""


def animated(kind: str) -> bytes:
    sink = io.BytesIO()
    frames = [Image.new("RGB", (20, 20), (level, 0, 0)) for level in (10, 200)]
    frames[0].save(sink, kind, save_all=True, append_images=frames[1:])
    return sink.getvalue()


def text_bomb() -> bytes:
    """A small PNG that unfolds to a gigabyte of text."""
    head, rest = picture(2, kind="PNG")[:33], picture(2, kind="PNG")[33:]
    return head + chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(50_000_000), 9)) * 20 + rest


#: What is refused, and the words that say why.
REFUSED = {
    "pixel bomb": (png(12_000, 12_000, data=bytes(3_000_000)), f"12000x12000 pixels is over {MAX_WHOLE_PIXELS}"),
    "huge PNG": (png(30_000, 30_000), f"image of 30000x30000 pixels is over {MAX_WHOLE_PIXELS}: send a smaller one"),
    "huge JPEG": (resized_jpeg(30_000, 30_000), f"image of 30000x30000 pixels is over {MAX_PIXELS}"),
    "0x0 PNG": (png(0, 0), "image of 0x0 pixels shows nothing: send one with pixels"),
    "0x0 JPEG": (resized_jpeg(0, 0), "image of 0x0 pixels shows nothing"),
    "truncated JPEG": (picture(3)[:400], "truncated"),
    "truncated PNG": (picture(3, kind="PNG")[:-20], "the PNG is truncated"),
    "too little data": (png(64, 64, data=bytes(100)), "send one whole still image"),
    "APNG": (animated_png(), "the PNG is animated"),
    "GIF": (animated("GIF"), "not a JPEG or PNG image"),
    "WebP": (animated("WEBP"), "not a JPEG or PNG image"),
    "no image": (b'{"a": 1}', "it begins as neither does"),
    "empty": (EMPTY, "it is empty"),
    "too many bytes": (b"\xff\xd8\xff" + bytes(8_000_000), "payload has 8000003 bytes and may have 8000000"),
}
#: What looks odd and is answered all the same.
ANSWERED = {
    "CMYK": by_save("CMYK", (0, 128, 255, 0), "JPEG"),
    "text bomb": text_bomb(),
    "more data than pixels": png(16, 16, data=bytes(3_000_000)),
}


def v1(payload: bytes) -> tuple[str, Any, dict[str, str]]:
    return "/v1/models/looker:predict", {"instances": [{"b64": base64.b64encode(payload).decode()}]}, {}


def v2(payload: bytes) -> tuple[str, Any, dict[str, str]]:
    return "/v2/models/looker/infer", tensor("BYTES", [1], [base64.b64encode(payload).decode()]), {}


def v2_binary(payload: bytes) -> tuple[str, Any, dict[str, str]]:
    raw = prefixed(payload)
    return "/v2/models/looker/infer", *in_binary({"inputs": [binary("BYTES", [1], raw)]}, raw)


def v2_bare(payload: bytes) -> tuple[str, Any, dict[str, str]]:
    return "/v2/models/looker/infer", payload, {"Inference-Header-Content-Length": "0"}


Way = Callable[[bytes], tuple[str, Any, dict[str, str]]]
WAYS: list[Way] = [v1, v2, v2_binary, v2_bare]


@pytest.fixture(scope="module")
def model(shared: Path) -> Model:
    weights = np.random.default_rng(0).normal(0, 0.2, (1024, 2)).astype(np.float32)
    head = LinearHead(weights, np.zeros(2, np.float32), ("cat", "dog"))
    layers = {"backbone": (shared / "models" / EXTRACTOR).read_bytes(), "head": head.to_bytes()}
    return load_model(LOOKER, layers, interpreters=2)


@pytest.fixture(scope="module")
def web(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    with closing(Web(tmp_path_factory.mktemp("node"), audit=1e-9)) as made:
        made.serve("looker", model, LOOKER)
        yield made


def ask(web: Web, way: Way, payload: bytes) -> Response:
    path, body, headers = way(payload)
    return web.ask(path, body, headers)


def predicted(response: Response) -> str:
    assert response.status == 200, response.body
    said = response.json()
    return str(said["predictions"][0] if "predictions" in said else said["outputs"][0]["data"][0])


def counted(web: Web) -> tuple[int, int]:
    outcomes = web.bench.stats.services["looker"].outcomes
    return outcomes["bad_input"], outcomes.total()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_picture_is_refused_over_http_with_the_reason_and_the_next_one_answered(
    web: Web, model: Model, way: Way, name: str
) -> None:
    payload, words = REFUSED[name]
    bad, total = counted(web)
    response = ask(web, way, payload)
    assert response.status == 400, response.body
    assert words in response.error and "\n" not in response.error and len(response.error) < 300
    assert counted(web) == (bad + 1, total + 1)
    assert predicted(ask(web, way, HONEST)) == model.predict(HONEST).prediction
    assert counted(web) == (bad + 1, total + 2)
    assert web.site.work.in_work == 0


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ANSWERED)
def test_a_picture_that_only_looks_hostile_is_answered_over_http(web: Web, model: Model, way: Way, name: str) -> None:
    bad, total = counted(web)
    assert predicted(ask(web, way, ANSWERED[name])) == model.predict(ANSWERED[name]).prediction
    assert counted(web) == (bad, total + 1)


def test_a_hostile_picture_among_honest_ones_is_named(web: Web) -> None:
    pictures = [HONEST, HONEST, REFUSED["huge PNG"][0], HONEST]
    raw = prefixed(*pictures)
    body, headers = in_binary({"inputs": [binary("BYTES", [4], raw)]}, raw)
    response = web.ask("/v2/models/looker/infer", body, headers)
    assert response.status == 400 and response.error.startswith("instance 2: image of 30000x30000 pixels")


class Fleet:
    """Devices on a broker before the same node."""

    def __init__(self, web: Web) -> None:
        self.hub = MemoryHub()
        self.intake = Intake(web.bench.gateway, 4)
        handlers = self.intake.handlers(["looker", SERVICE], ["+"], None)
        self.intake.attach(self.hub.connect("node", clean=False, subscriptions=handlers))
        self._results = SimpleQueue[Message]()
        self._device = self.hub.connect("devices")
        self._device.subscribe("edgeloop/v1/+/+/result", self._keep)

    def _keep(self, message: Message, ack: Ack) -> None:
        ack()
        self._results.put(message)

    def send(self, device: str, payload: bytes, service: str = "looker") -> None:
        self._device.publish(device_topic(service, device, "input"), payload)

    def results(self, count: int) -> dict[str, dict[str, Any]]:
        """The next results by their topics, one for each."""
        found = [self._results.get(timeout=10) for _ in range(count)]
        assert self._results.empty()
        by_topic = {m.topic: json.loads(m.payload) for m in found}
        assert len(by_topic) == count
        return by_topic


@pytest.fixture
def fleet(web: Web) -> Iterator[Fleet]:
    made = Fleet(web)
    yield made
    assert made.intake.stop(60)


def topic(device: str, service: str = "looker") -> str:
    return device_topic(service, device, "result")


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_picture_gets_an_error_over_mqtt_and_nobody_else_does(
    web: Web, model: Model, fleet: Fleet, name: str
) -> None:
    payload, words = REFUSED[name]
    bad, total = counted(web)
    fleet.send("before", HONEST)
    fleet.send("hostile", payload)
    fleet.send("after", HONEST)
    fleet.send("other", b"[0.5,1]", SERVICE)
    results = fleet.results(4)
    error = results.pop(topic("hostile"))
    assert ("payload is empty" if payload == EMPTY else words) in error["error"]
    assert (error["service"], error["device"]) == ("looker", "hostile") and "prediction" not in error
    assert not any(result.get("error") for result in results.values())
    honest = model.predict(HONEST).prediction
    assert results[topic("before")]["prediction"] == results[topic("after")]["prediction"] == honest
    assert results[topic("other", SERVICE)]["prediction"] == "yes"
    assert counted(web) == (bad + 1, total + 3)


@pytest.mark.parametrize("name", ANSWERED)
def test_a_picture_that_only_looks_hostile_is_answered_over_mqtt(model: Model, fleet: Fleet, name: str) -> None:
    fleet.send("d", ANSWERED[name])
    assert fleet.results(1)[topic("d")]["prediction"] == model.predict(ANSWERED[name]).prediction
