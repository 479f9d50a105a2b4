"""Requests that go wrong in every way that a seed can think of: good ones bent a little, and plain noise."""

from __future__ import annotations

import base64
import gzip
import json
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tests.unit.edge.asking import INFER, NUMBER, PICTURE, PICTURES, PREDICT, binary, in_binary, prefixed, tensor
from tests.unit.edge.damaged import EYE, WHOLE, damaged
from tests.unit.edge.fakes import SERVICE

#: Values that parsers trip over.
NASTY: list[Any] = [
    *(None, True, False, 0, -1, 1, 2, 1.5, -0.0, 1e39, -1e308, 2**31, 2**63, 2**64, 10**30, 10**400),
    *(float("nan"), float("inf"), "", "x", "\ud800", "\x00", "é" * 50, "A" * 5000, "0", "[]", "input", "a", "b64"),
    *([], {}, [[]], [{}], {"b64": ""}, {"b64": "===="}, {"input": {}}, [[[[[[[[[[1]]]]]]]]]], ["x"] * 30, [0] * 2000),
    *("BYTES", "FP16", "UINT64", "BOOL", "prediction", "probabilities", {"binary_data_size": 4}, {"binary_data": 1}),
]
HEADERS = [
    *(b"inference-header-content-length", b"content-length", b"content-encoding", b"content-type", b"expect"),
    *(b"authorization", b"x-device", b"x-captured-at", b"transfer-encoding", b"x-more"),
]
VALUES = [
    *(
        b"",
        b"0",
        b"1",
        b"40",
        b"-1",
        b"9" * 30,
        b"1e3",
        b"gzip",
        b"identity",
        b"br",
        b"gzip;q=1",
        b"chunked",
        b"Bearer",
    ),
    *(b"Bearer key", b"Basic a2V5", b"100-continue", b"\xff\xfe", b"a/b", b"noon", b"2026-01-01T00:00:00Z", b"-5"),
    *(b"99999999999999999999", b"9999-12-31T23:59:59+00:00", b"0001-01-01", b"d" * 200, b" key ", b"\xd9\xa3"),
]
SEGMENTS = ["", "v1", "v2", "models", SERVICE, PICTURES, NUMBER, "other", "versions", "1", "infer", "ready", "load"]
METHODS = ["GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "", "GE T", "POST" * 50]


@dataclass(frozen=True)
class Asked:
    """One request: ``chunks`` are what comes of the body, ``whole`` is False when the caller then hangs up."""

    method: str
    path: str
    headers: tuple[tuple[bytes, bytes], ...]
    chunks: tuple[bytes, ...]
    whole: bool = True

    def messages(self) -> list[dict[str, Any]]:
        """As a server hands them on."""
        parts = self.chunks or (b"",)
        last = len(parts) - 1
        return [
            {"type": "http.request", "body": part, "more_body": number < last or not self.whole}
            for number, part in enumerate(parts)
        ]


def good() -> list[Asked]:
    """A request of every kind that is answered with success, or would be for a sample that is known."""
    picture, raw = {"b64": base64.b64encode(PICTURE).decode()}, prefixed(PICTURE, PICTURE)
    row, two = struct.pack("<2f", 0.5, 1), {"name": "b", "datatype": "INT8", "shape": [1, 1], "data": [[3]]}
    wanted = [{"name": "probabilities", "parameters": {"binary_data": True}}, {"name": "sample_id"}]
    pictures = f"/v2/models/{PICTURES}/versions/3/infer"
    bodies: list[tuple[str, Any]] = [
        (PREDICT, {"instances": [[0.5, 1], {"a": 0.25, "b": 2}, {"b64": base64.b64encode(b"[0.5,1]").decode()}]}),
        (PREDICT, {"inputs": {"a": [0.5, 0.25], "b": [[1], [2]]}, "signature_name": "serving_default"}),
        (f"/v1/models/{PICTURES}:predict", {"instances": [picture, {"input": picture}]}),
        (f"/v1/models/{NUMBER}/versions/3:predict", {"inputs": [[2.5]]}),
        (INFER, tensor("FP32", [2, 2], [[0.5, 1], [0.25, 2]], id="7", outputs=wanted)),
        (INFER, tensor("BYTES", [1], [base64.b64encode(b"[0.5,1]").decode()], parameters={"binary_data_output": True})),
        (INFER, in_binary({"inputs": [two, binary("FP64", [1], struct.pack("<d", 0.5), "a")]}, struct.pack("<d", 0.5))),
        (INFER, in_binary({"inputs": [binary("FP32", [1, 2], row)], "outputs": wanted}, row)),
        (pictures, in_binary({"inputs": [binary("BYTES", [2], raw)], "outputs": wanted, "id": "x"}, raw)),
        (pictures, (PICTURE, {"Inference-Header-Content-Length": "0"})),
        *[seen(way, image) for way, image in zip(SEEING, WHOLE * 2, strict=False)],
        (PREDICT, (gzip.compress(b'{"instances": [[0.5, 1]]}'), {"Content-Encoding": "gzip"})),
        (f"/v1/models/{SERVICE}/feedback", {"sample_id": "a" * 64, "label": "no", "by": "ann"}),
        ("/v2/repository/index", {"ready": True}),
        (f"/v2/repository/models/{SERVICE}/load", {}),
        (f"/v2/repository/models/{SERVICE}/unload", {}),
    ]
    pages = ["/healthz", "/readyz", "/metrics", "/v1/models", "/v2", f"/v2/models/{SERVICE}", f"/v1/models/{NUMBER}"]
    return [*(_post(path, body) for path, body in bodies), *(Asked("GET", page, _known(), ()) for page in pages)]


SEEING = ("v1", "v2", "binary")


def seen(way: str, image: bytes) -> tuple[str, Any]:
    """Path and body of a request that takes ``image`` to the real decoder."""
    if way == "v1":
        return f"/v1/models/{EYE}:predict", {"instances": [{"b64": base64.b64encode(image).decode()}]}
    if way == "v2":
        return f"/v2/models/{EYE}/infer", tensor("BYTES", [1], [base64.b64encode(image).decode()])
    raw = prefixed(image)
    return f"/v2/models/{EYE}/infer", in_binary({"inputs": [binary("BYTES", [1], raw)]}, raw)


def _known() -> tuple[tuple[bytes, bytes], ...]:
    return ((b"authorization", b"Bearer key"), (b"x-device", b"cam"))


def _post(path: str, body: Any) -> Asked:
    data, more = body if isinstance(body, tuple) else (json.dumps(body).encode(), {})
    return Asked("POST", path, (*_known(), *((k.lower().encode(), v.encode()) for k, v in more.items())), (data,))


class Hostile:
    """An endless supply; the same seed gives the same requests."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._good = good()
        self._bends: list[Callable[[Asked], Asked]] = [
            *[self._bytes] * 4,
            *[self._value] * 6,
            *[self._header] * 3,
            *(self._path, self._method, self._chunks, self._hang_up, self._swap, self._noise, self._large),
        ]

    def next(self) -> Asked:
        """One request, bent up to four times, or with a damaged picture that came through whole."""
        if self._random.random() < 0.1:
            return _post(*seen(self._random.choice(SEEING), damaged(self._random)))
        asked = self._random.choice(self._good)
        for _ in range(self._random.choice((0, 1, 1, 1, 2, 2, 3, 4))):
            asked = self._random.choice(self._bends)(asked)
        return asked

    def _bytes(self, asked: Asked) -> Asked:
        """Flip, cut, double or add some bytes."""
        data, r = bytearray(b"".join(asked.chunks)), self._random
        for _ in range(r.randint(1, 4)):
            at = r.randint(0, len(data))
            end = at + r.choice((0, 1, 1, 4, 16))
            data[at:end] = r.choice(
                (b"", data[at:end] * 2, r.randbytes(end - at), b"\x00", b'"', b"]", b"\xff\xff\xff\xff")
            )
        return replace(asked, chunks=(bytes(data),))

    def _value(self, asked: Asked) -> Asked:
        """Put a nasty value somewhere into the JSON, and keep what is behind it and its length right."""
        headers = dict(asked.headers)
        data = b"".join(asked.chunks)
        length = headers.get(b"inference-header-content-length", b"")
        front = int(length) if length.isdigit() and int(length[:18]) <= len(data) else len(data)
        try:
            value = json.loads(data[:front])
        except (ValueError, RecursionError):
            return self._bytes(asked)
        text = json.dumps(self._bent(value)).encode()
        if length:
            headers[b"inference-header-content-length"] = str(len(text)).encode()
        return replace(asked, chunks=(text + data[front:],), headers=tuple(headers.items()))

    def _bent(self, value: Any, depth: int = 0) -> Any:
        r = self._random
        if not value or not isinstance(value, list | dict) or r.random() < 0.1 * depth:
            return r.choice(NASTY)
        if isinstance(value, list):
            at = r.randrange(len(value))
            return r.choice(
                (value + value, value[:at], [*value[:at], self._bent(value[at], depth + 1), *value[at + 1 :]])
            )
        key = r.choice(list(value))
        bent = {k: v for k, v in value.items() if k != key}
        name = key if r.random() < 0.9 else r.choice(["name", "data", "inputs", "instances", "", "b64"])
        return bent if r.random() < 0.1 else {**bent, name: self._bent(value[key], depth + 1)}

    def _header(self, asked: Asked) -> Asked:
        r, headers = self._random, dict(asked.headers)
        name = r.choice(HEADERS)
        if r.random() < 0.2:
            headers.pop(name, None)
        else:
            headers[name] = r.choice(VALUES) if r.random() < 0.9 else r.randbytes(12)
        return replace(asked, headers=tuple(headers.items()))

    def _path(self, asked: Asked) -> Asked:
        r, parts = self._random, asked.path.split("/")
        parts[r.randrange(len(parts))] = r.choice([*SEGMENTS, f"{SERVICE}:predict", "%2e%2e", "\x00", "é", "x" * 3000])
        return replace(asked, path="/".join(parts))

    def _method(self, asked: Asked) -> Asked:
        return replace(asked, method=self._random.choice(METHODS))

    def _chunks(self, asked: Asked) -> Asked:
        data, size = b"".join(asked.chunks), self._random.randint(1, 50)
        return replace(asked, chunks=tuple(data[at : at + size] for at in range(0, len(data), size)))

    def _hang_up(self, asked: Asked) -> Asked:
        return replace(asked, whole=False)

    def _swap(self, asked: Asked) -> Asked:
        """The body of one request, sent to the page of another."""
        other = self._random.choice(self._good)
        return replace(asked, chunks=other.chunks, headers=self._random.choice((asked.headers, other.headers)))

    def _noise(self, asked: Asked) -> Asked:
        return replace(asked, chunks=(self._random.randbytes(self._random.randint(0, 300)),))

    def _large(self, asked: Asked) -> Asked:
        return replace(asked, chunks=(b"".join(asked.chunks), b" " * self._random.choice((9_000, 70_000))))
