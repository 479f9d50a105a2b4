"""A node's HTTP application asked without a network, in the words of ASGI; it serves rows, pictures and a number."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeloop.clients.models import Answer, Model
from edgeloop.edge.http import App, Site, make_app
from edgeloop.edge.http.server import PEER
from edgeloop.edge.runtime import Loaded
from edgeloop.edge.stats import ServiceStats
from edgeloop.samples.payloads import UndecodablePayload, decode_features
from edgeloop.samples.service import Feature, ImageInput, NodeConfig, Selection
from tests.unit.edge.fakes import SERVICE, Bench

PICTURES, NUMBER = "pictures", "number"
PREDICT, INFER = f"/v1/models/{SERVICE}:predict", f"/v2/models/{SERVICE}/infer"
PICTURE = b"\xff\xd8 a picture"


@dataclass
class PictureModel:
    """Answers ``dog`` to whatever begins as a JPEG file does."""

    labels: tuple[str, ...] | None = ("cat", "dog")
    backbone_digest: str | None = None

    def predict(self, payload: bytes) -> Answer:
        if not payload.startswith(b"\xff\xd8"):
            raise UndecodablePayload(f"payload of {len(payload)} bytes is not an image: send one")
        return Answer("dog", 0.75, (0.25, 0.75), None)


@dataclass
class NumberModel:
    """A regressor: answers its one feature, or what it is told to."""

    says: str | None = None
    labels: tuple[str, ...] | None = None
    backbone_digest: str | None = None

    def predict(self, payload: bytes) -> Answer:
        return Answer(self.says or repr(float(decode_features(payload, ["x"])[0])), None, None, None)


@dataclass
class Response:
    """What came back."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The text of an error object, which must be the whole answer."""
        value = self.json()
        assert set(value) == {"error"}
        assert value["error"].isprintable()
        return str(value["error"])


class Web:
    """The application, and an event loop to ask it in."""

    def __init__(self, folder: Path, **site: Any) -> None:
        self.bench = b = Bench(folder, audit=site.pop("audit", 1.0))
        self.number = NumberModel()
        selection = b.config.selection
        self.serve(PICTURES, PictureModel(), _pictures(selection))
        self.serve(NUMBER, self.number, _number(selection))
        self.pool = ThreadPoolExecutor(16)
        self.site = Site(b.gateway, b.runtime, b.stats, b.spool, self.pool, **site)
        self.app: App = make_app(self.site)
        self._runner = asyncio.Runner()

    def serve(self, name: str, model: Model, config: NodeConfig, version: str = "3") -> None:
        self.bench.stats.services.setdefault(name, ServiceStats())
        self.bench.runtime.switch(name, Loaded(f"sha256:{name}-{version}", version, config, model))

    def close(self) -> None:
        self._runner.close()
        self.pool.shutdown()
        self.bench.close()

    def run(self, work: Any) -> Any:
        """Run a coroutine in the event loop."""
        return self._runner.run(work)

    def ask(self, path: str, body: object = None, headers: Mapping[str, str] | None = None, **how: Any) -> Response:
        """GET, or POST when there is a body (bytes as they are, anything else as JSON)."""
        response = self.run(self.asking(path, body, headers, **how))
        assert isinstance(response, Response)
        return response

    async def asking(
        self,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        *,
        method: str | None = None,
        peer: str | None = None,
        chunk: int = 65536,
    ) -> Response:
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        given = [(k.lower().encode(), v.encode("latin-1")) for k, v in (headers or {}).items()]
        parts = [data[at : at + chunk] for at in range(0, len(data), chunk)] or [b""]
        messages = [{"type": "http.request", "body": p, "more_body": n < len(parts)} for n, p in enumerate(parts, 1)]
        found = await call(self.app, method or ("GET" if body is None else "POST"), path, given, messages, peer)
        assert found is not None
        return found

    def answer(self, path: str, body: object = None, headers: Mapping[str, str] | None = None, **how: Any) -> Any:
        """The JSON of a good answer."""
        response = self.ask(path, body, headers, **how)
        assert response.status == 200, response.body
        return response.json()


MakeWeb = Callable[..., Web]


async def call(
    app: App,
    method: str,
    path: str,
    headers: Iterable[tuple[bytes, bytes]],
    messages: list[dict[str, Any]],
    peer: str | None = None,
) -> Response | None:
    """One request as a server would hand it over; None when there was no answer."""
    scope: dict[str, Any] = {"type": "http", "method": method, "path": path, "headers": list(headers)}
    scope["state"] = {PEER: peer}
    left = iter(messages)
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return next(left, {"type": "http.disconnect"})

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    if not sent:
        return None
    start, body = sent
    response = Response(start["status"], dict(start["headers"]), body["body"])
    assert int(response.headers[b"content-length"]) == len(response.body)
    return response


def _pictures(selection: Selection) -> NodeConfig:
    image = ImageInput(size=16, max_bytes=4096)
    return NodeConfig(
        service=PICTURES, kind="image-classifier", image=image, labels=["cat", "dog"], selection=selection
    )


def _number(selection: Selection) -> NodeConfig:
    return NodeConfig(service=NUMBER, kind="tabular-regressor", features=[Feature(name="x")], selection=selection)


def tensor(kind: str, shape: object, data: object, name: str = "input", **more: Any) -> dict[str, Any]:
    """A V2 request with one tensor."""
    return {"inputs": [{"name": name, "datatype": kind, "shape": shape, "data": data}], **more}


def binary(kind: str, shape: object, raw: bytes, name: str = "input") -> dict[str, Any]:
    """A V2 tensor whose bytes follow behind."""
    return {"name": name, "datatype": kind, "shape": shape, "parameters": {"binary_data_size": len(raw)}}


def in_binary(message: object, *tails: bytes) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a V2 request with binary data."""
    front = json.dumps(message).encode()
    return front + b"".join(tails), {"Inference-Header-Content-Length": str(len(front))}


def prefixed(*values: bytes) -> bytes:
    """Elements of a BYTES tensor in binary."""
    return b"".join(struct.pack("<I", len(v)) + v for v in values)
