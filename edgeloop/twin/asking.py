"""Asks a node over the Open Inference Protocol (V2), as devices do, and keeps what it says and when."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgeloop.clients.model_types import Answer
from edgeloop.errors import EdgeloopError
from edgeloop.samples.records import digest
from edgeloop.twin.stage import HOST

if TYPE_CHECKING:
    import urllib3

#: Seconds after which an answer is none.
PATIENCE = 30.0


class NoAnswer(EdgeloopError):
    """The node did not answer an input with what its model says."""


class Sender:
    """Connections to one node; for as many threads as it has connections."""

    def __init__(self, port: int, service: str, threads: int = 1) -> None:
        import urllib3

        self._pool = urllib3.HTTPConnectionPool(HOST, port, maxsize=threads, timeout=PATIENCE, retries=False)
        self._path = f"/v2/models/{service}"

    def close(self) -> None:
        """Hang up."""
        self._pool.close()

    def is_ready(self) -> bool:
        """Whether the model serves."""
        import urllib3

        try:
            return self._pool.request("GET", f"{self._path}/ready").status == 200
        except urllib3.exceptions.HTTPError:
            return False

    def ask(self, payload: bytes) -> Answer:
        """One input; raises NoAnswer."""
        import urllib3

        body, headers = _request(payload)
        try:
            reply = self._pool.request("POST", f"{self._path}/infer", body=body, headers=headers)
        except urllib3.exceptions.HTTPError as error:
            raise NoAnswer(f"the node did not answer ({type(error).__name__}): see its log") from error
        return _read(reply)


@dataclass
class Replayed:
    """What a node answered to inputs, one after the other."""

    answers: dict[str, Answer] = field(default_factory=dict)
    """By digest of the input."""
    seconds: list[float] = field(default_factory=list)
    """Time of each answer."""
    asked: int = 0
    errors: list[str] = field(default_factory=list)


def replay(
    ask: Callable[[bytes], Answer],
    payloads: Sequence[bytes],
    longest: float,
    clock: Callable[[], float] = time.perf_counter,
) -> Replayed:
    """Ask one input at a time, for at most ``longest`` seconds: nothing waits for anything but the model."""
    found = Replayed()
    until = clock() + longest
    for payload in payloads:
        began = clock()
        if began > until:
            break
        found.asked += 1
        try:
            answer = ask(payload)
        except NoAnswer as error:
            found.errors.append(str(error))
            continue
        found.seconds.append(clock() - began)
        found.answers[digest(payload)] = answer
    return found


@dataclass
class Recalled:
    """The node as a model, by what it answered."""

    answers: Mapping[str, Answer]
    labels: tuple[str, ...] | None
    backbone_digest: str | None = None

    def predict(self, payload: bytes) -> Answer:
        """What it answered; KeyError for an input that it did not answer."""
        return self.answers[digest(payload)]


def _request(payload: bytes) -> tuple[bytes, dict[str, str]]:
    """One BYTES element by the binary tensor data extension: images as they are, feature rows as their JSON."""
    element = struct.pack("<I", len(payload)) + payload
    tensor = {"name": "input", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(element)}}
    front = json.dumps({"inputs": [tensor]}).encode()
    kind = {"Inference-Header-Content-Length": str(len(front)), "Content-Type": "application/octet-stream"}
    return front + element, kind


def _read(reply: urllib3.BaseHTTPResponse) -> Answer:
    if reply.status != 200:
        raise NoAnswer(f"HTTP {reply.status}: {' '.join(reply.data[:200].decode(errors='replace').split())}")
    try:
        outputs: dict[str, Any] = {one["name"]: one["data"][0] for one in json.loads(reply.data)["outputs"]}
        said = outputs["prediction"]
        prediction = said if isinstance(said, str) else repr(float(said))
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise NoAnswer(f"the node answered something that is no answer ({error}): see its log") from error
    return Answer(prediction, outputs.get("confidence"), None, None)
