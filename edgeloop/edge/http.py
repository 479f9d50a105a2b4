"""The same answers over HTTP, so that whatever speaks KServe's protocols can stand before a node.

V1 paths of TF Serving and KServe, the Open Inference Protocol (V2), health and metrics.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import ipaddress
import json
import math
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from edgeloop.edge.gateway import Gateway, MalformedTime, Result, parse_time
from edgeloop.edge.metrics import exposition
from edgeloop.edge.runtime import Loaded, Runtime
from edgeloop.edge.spool import Spool
from edgeloop.edge.stats import Stats
from edgeloop.errors import BadInput, Unavailable
from edgeloop.samples.payloads import encode_features

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

MAX_BODY = 64 * 1024 * 1024
MAX_INSTANCES = 1024
_STATUS = {"bad_input": 400, "not_ready": 503, "model_error": 500, "unknown": 404}


class UnusableAddress(BadInput):
    """The HTTP address cannot be used."""


class AddressTaken(Unavailable):
    """Something else listens there."""


class MalformedRequest(BadInput):
    """The body is not a request of this protocol."""


class _Failed(Exception):
    def __init__(self, status: int, error: str) -> None:
        super().__init__(error)
        self.status = status


def bind(address: str, insecure: bool) -> socket.socket:
    """Listen on ``host:port``; anything but loopback needs ``insecure``: callers are not asked who they are.

    Raises:
        UnusableAddress: malformed, or not loopback.
        AddressTaken: the port is in use.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdigit() or int(port) > 65535:
        raise UnusableAddress(f"http is {address!r}: write host:port, port 0 for a free one")
    if not insecure and not _is_loopback(host):
        raise UnusableAddress(
            f"http is {address!r}, which others reach without a password: use 127.0.0.1, or set insecure_http: true"
        )
    try:
        return socket.create_server((host, int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise AddressTaken(f"http address {address} cannot be used ({error}): name another in node.yaml") from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True)
class Site:
    """What the pages are made from; ``pool`` runs the gateway's blocking calls."""

    gateway: Gateway
    runtime: Runtime
    stats: Stats
    spool: Spool
    pool: Executor


Endpoint = Callable[["Request"], Awaitable["Response"]]


def make_app(site: Site) -> Starlette:
    """The application."""
    from starlette.applications import Starlette
    from starlette.routing import Route

    def get(path: str, page: Callable[[Site, Request], Response]) -> Route:
        async def endpoint(request: Request) -> Response:
            return page(site, request)

        return Route(path, endpoint, methods=["GET"])

    def post(path: str, page: Callable[[Site, Request], Awaitable[Response]]) -> Route:
        async def endpoint(request: Request) -> Response:
            return await _guarded(site, request, page)

        return Route(path, endpoint, methods=["POST"])

    return Starlette(
        routes=[
            get("/healthz", _alive),
            get("/readyz", _ready),
            get("/metrics", _metrics),
            get("/v1/models/{service}", _v1_model),
            post("/v1/models/{service}:predict", _v1_predict),
            get("/v2/health/live", _alive),
            get("/v2/health/ready", _ready),
            get("/v2/models/{service}", _v2_model),
            get("/v2/models/{service}/ready", _v2_ready),
            post("/v2/models/{service}/infer", _v2_infer),
        ]
    )


async def _guarded(site: Site, request: Request, page: Callable[[Site, Request], Awaitable[Response]]) -> Response:
    try:
        _loaded(site, request)
        return await page(site, request)
    except _Failed as error:
        return _json({"error": str(error)}, error.status)
    except (MalformedRequest, MalformedTime) as error:
        return _json({"error": str(error)}, 400)


def _json(value: object, status: int = 200) -> Response:
    from starlette.responses import JSONResponse

    return JSONResponse(value, status_code=status)


def _loaded(site: Site, request: Request) -> Loaded:
    service = request.path_params["service"]
    if service not in site.stats.services:
        raise _Failed(404, f"this node does not serve {service}: see its node.yaml")
    loaded = site.runtime.loaded(service)
    if loaded is None:
        raise _Failed(503, f"service {service} has no release on this node yet: roll one out to its ring")
    return loaded


def _alive(_site: Site, _request: Request) -> Response:
    return _json({"live": True})


def _ready(site: Site, _request: Request) -> Response:
    services = {name: site.runtime.loaded(name) is not None for name in site.stats.services}
    ready = all(services.values())
    return _json({"ready": ready, "services": services}, 200 if ready else 503)


def _metrics(site: Site, _request: Request) -> Response:
    from starlette.responses import PlainTextResponse

    text = exposition(site.stats, site.spool, site.runtime)
    return PlainTextResponse(text, media_type="text/plain; version=0.0.4")


def _v1_model(site: Site, request: Request) -> Response:
    try:
        loaded = _loaded(site, request)
    except _Failed as error:
        return _json({"error": str(error)}, error.status)
    status = {
        "version": loaded.version,
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }
    return _json({"name": loaded.config.service, "ready": True, "model_version_status": [status]})


def _v2_model(site: Site, request: Request) -> Response:
    try:
        loaded = _loaded(site, request)
    except _Failed as error:
        return _json({"error": str(error)}, error.status)
    width = len(loaded.config.feature_names)
    takes = {"name": "input", "datatype": "FP64", "shape": [-1, width]}
    if loaded.config.kind == "image-classifier":
        takes = {"name": "input", "datatype": "BYTES", "shape": [-1]}
    platform = "litert" if loaded.config.kind == "image-classifier" else "onnx"
    gives = [{"name": n, "datatype": t, "shape": [-1]} for n, t in _output_types(loaded).items()]
    body = {"name": loaded.config.service, "versions": [loaded.version], "platform": platform}
    return _json({**body, "inputs": [takes], "outputs": gives})


def _output_types(loaded: Loaded) -> dict[str, str]:
    kind = "FP64" if loaded.model.labels is None else "BYTES"
    return {"prediction": kind, "confidence": "FP64", "sample_id": "BYTES"}


def _v2_ready(site: Site, request: Request) -> Response:
    service = request.path_params["service"]
    ready = site.runtime.loaded(service) is not None
    return _json({"name": service, "ready": ready}, 200 if ready else 503)


async def _v1_predict(site: Site, request: Request) -> Response:
    body = await _body(request)
    instances = body.get("instances")
    if not isinstance(instances, list) or not instances:
        raise MalformedRequest('the body has no list "instances": send {"instances": [{"b64": …}]} or feature rows')
    results = await _answer(site, request, [_v1_payload(i) for i in instances])
    loaded = _loaded(site, request)
    return _json(
        {
            "predictions": [_value(r, loaded) for r in results],
            "confidences": [r.confidence for r in results],
            "sample_ids": [r.sample_id for r in results],
        }
    )


def _v1_payload(instance: object) -> bytes:
    if isinstance(instance, dict) and set(instance) == {"b64"}:
        return _decode64(instance["b64"])
    if isinstance(instance, dict):
        return json.dumps(instance).encode()
    return _row(instance)


def _decode64(text: object) -> bytes:
    try:
        return base64.b64decode(text if isinstance(text, str) else "", validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedRequest(f"b64 is not base64 ({error}): encode the whole payload") from error


def _row(values: object) -> bytes:
    def is_number(value: object) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool)

    if not isinstance(values, list) or not all(is_number(v) for v in values):
        raise MalformedRequest('an instance is neither {"b64": …} nor a list of numbers: send one of them')
    try:
        row = [float(v) for v in values]
        if not all(math.isfinite(v) for v in row):
            raise OverflowError("not finite")
    except OverflowError as error:
        raise MalformedRequest(f"a number is out of range ({error}): send finite numbers") from error
    return encode_features(row)


async def _v2_infer(site: Site, request: Request) -> Response:
    body = await _body(request)
    loaded = _loaded(site, request)
    results = await _answer(site, request, _v2_payloads(body.get("inputs")))
    columns: dict[str, list[Any]] = {
        "prediction": [_value(r, loaded) for r in results],
        "confidence": [r.confidence for r in results],
        "sample_id": [r.sample_id for r in results],
    }
    outputs = [
        {"name": name, "datatype": kind, "shape": [len(results)], "data": columns[name]}
        for name, kind in _output_types(loaded).items()
        if None not in columns[name]
    ]
    answer = {"model_name": loaded.config.service, "model_version": loaded.version, "outputs": outputs}
    return _json(answer | ({"id": body["id"]} if isinstance(body.get("id"), str) else {}))


def _v2_payloads(inputs: object) -> list[bytes]:
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise MalformedRequest('"inputs" is not a list of one tensor: send one')
    tensor: dict[str, Any] = inputs[0]
    data, shape, kind = tensor.get("data"), tensor.get("shape"), tensor.get("datatype")
    if not isinstance(data, list) or not data or not isinstance(shape, list):
        raise MalformedRequest("the tensor has no data or shape: send both")
    if kind == "BYTES":
        return [_decode64(d.get("b64") if isinstance(d, dict) else d) for d in data]
    if kind not in ("FP32", "FP64") or len(shape) != 2:
        raise MalformedRequest(f"a tensor of {kind} and shape {shape!s:.80}: send BYTES [n], or FP32 or FP64 [n, d]")
    flat = [v for row in data for v in row] if all(isinstance(r, list) for r in data) else data
    count, width = (n if isinstance(n, int) and n > 0 else 0 for n in shape)
    if not count or count * width != len(flat):
        raise MalformedRequest(f"shape {shape!s:.80} does not fit {len(flat)} numbers: mend the shape")
    return [_row(flat[i * width : (i + 1) * width]) for i in range(count)]


async def _body(request: Request) -> dict[str, Any]:
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BODY:
            raise _Failed(413, f"the body is over {MAX_BODY} bytes: send fewer instances")
    try:
        value = json.loads(bytes(data))
    except (ValueError, RecursionError) as error:
        raise MalformedRequest(f"the body is not JSON ({error!s:.100}): send JSON") from error
    if not isinstance(value, dict):
        raise MalformedRequest("the body is not a JSON object: send one")
    return value


async def _answer(site: Site, request: Request, payloads: list[bytes]) -> list[Result]:
    if len(payloads) > MAX_INSTANCES:
        raise _Failed(413, f"{len(payloads)} instances are over {MAX_INSTANCES}: send fewer")
    service = request.path_params["service"]
    device = request.headers.get("x-device") or "http"
    at: datetime | None = parse_time(request.headers.get("x-captured-at"))
    loop = asyncio.get_running_loop()
    jobs = [loop.run_in_executor(site.pool, site.gateway.handle, service, device, p, at) for p in payloads]
    results = await asyncio.gather(*jobs)
    for number, result in enumerate(results):
        if result.error is not None:
            raise _Failed(_STATUS[result.outcome], f"instance {number}: {result.error}")
    return results


def _value(result: Result, loaded: Loaded) -> str | float | None:
    if loaded.model.labels is None and result.prediction is not None:
        return float(result.prediction)
    return result.prediction
