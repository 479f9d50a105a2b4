"""Requests and answers of the two protocols of model servers, as bytes: V1 of TensorFlow Serving and KServe, and V2.

V1: https://www.tensorflow.org/tfx/serving/api_rest; V2: the Open Inference Protocol, and its binary tensor data
extension, in which tensors follow the JSON as little-endian bytes and a BYTES element has its length in four bytes.
One request holds one input, so that every number of its answer belongs to that input.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgeloop.clients.model_types import MalformedAnswer

#: The flat values of each output by its name; the only output of V1 has the name "".
Outputs = dict[str, list[Any]]

HEADER_LENGTH = "Inference-Header-Content-Length"
_LENGTH = struct.Struct("<I")
_JSON = {"Content-Type": "application/json"}
_DTYPES = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}


@dataclass(frozen=True)
class Tensor:
    """How a V2 server names and types the one input of its model."""

    name: str = "input"
    datatype: str = "FP64"


@dataclass(frozen=True)
class Call:
    """One POST."""

    body: bytes
    headers: dict[str, str] = field(default_factory=lambda: dict(_JSON))


def v1_call(payload: bytes | list[float]) -> Call:
    """An image's bytes as ``b64``, or a feature row, as the one instance."""
    instance: Any = {"b64": base64.b64encode(payload).decode()} if isinstance(payload, bytes) else payload
    return Call(json.dumps({"instances": [instance]}).encode())


def v2_call(payload: bytes | list[float], tensor: Tensor, *, binary: bool) -> Call:
    """An image's bytes as BYTES [1] (base64 in JSON), or a feature row as [1, d]. Some servers need the ``id``."""
    if binary:
        return _binary_call(payload, tensor)
    if isinstance(payload, bytes):
        data: list[Any] = [base64.b64encode(payload).decode()]
        described = _described(payload, tensor) | {"parameters": {"content_type": "base64"}, "data": data}
    else:
        described = _described(payload, tensor) | {"data": payload}
    return Call(json.dumps({"id": "0", "inputs": [described]}).encode())


def _described(payload: bytes | list[float], tensor: Tensor) -> dict[str, Any]:
    if isinstance(payload, bytes):
        return {"name": tensor.name, "datatype": "BYTES", "shape": [1]}
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": [1, len(payload)]}


def _binary_call(payload: bytes | list[float], tensor: Tensor) -> Call:
    if isinstance(payload, bytes):
        data = join_strings([payload])
    else:
        data = np.asarray(payload, dtype=_DTYPES[tensor.datatype]).tobytes()
    described = _described(payload, tensor) | {"parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"id": "0", "inputs": [described], "parameters": {"binary_data_output": True}}).encode()
    headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(head))}
    return Call(head + data, headers)


def v1_outputs(body: bytes) -> Outputs:
    """The first prediction: its named parts, or "" for its only one; an edgeloop node's ``confidences`` too."""
    value = _object(body)
    predictions = value.get("predictions")
    if not isinstance(predictions, list) or not predictions:
        raise MalformedAnswer(f"no list of predictions in {_short(body)}: is that a V1 model server?")
    first = predictions[0]
    outputs = {name: _flat(part) for name, part in first.items()} if isinstance(first, dict) else {"": _flat(first)}
    confidences = value.get("confidences")
    if isinstance(confidences, list) and confidences:
        outputs["confidence"] = _flat(confidences[0])
    return outputs


def v2_outputs(body: bytes, headers: Mapping[str, str]) -> Outputs:
    """The outputs of a V2 answer, in JSON or with binary data behind it."""
    length = headers.get(HEADER_LENGTH)
    size = int(length) if length and length.isdigit() else len(body)
    outputs = _object(body[:size]).get("outputs")
    if not isinstance(outputs, list):
        raise MalformedAnswer(f"no list of outputs in {_short(body)}: is that a V2 model server?")
    found: Outputs = {}
    for output in outputs:
        try:
            taken = (output.get("parameters") or {}).get("binary_data_size")
            raw = None if taken is None else body[size : (size := size + int(taken))]
            found[str(output["name"])] = _tensor(output, raw)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise MalformedAnswer(f"an output of {_short(body)} is no tensor ({error}): mend the model") from error
    return found


def _tensor(output: Mapping[str, Any], raw: bytes | None) -> list[Any]:
    kind = output["datatype"]
    if raw is None:
        values = _flat(output["data"])
        return [float(v) for v in values] if kind.startswith("FP") else values
    if kind == "BYTES":
        return [text.decode() for text in split_strings(raw)]
    return [v.item() for v in np.frombuffer(raw, dtype=_DTYPES[kind])]


def split_strings(raw: bytes | memoryview) -> Iterator[bytes]:
    """The elements of a BYTES tensor: each is a little-endian uint32 length and that many bytes.

    Raises:
        ValueError: what is left of ``raw`` is shorter than an element says.
    """
    at, number = 0, 0
    while at < len(raw):
        begin = at + _LENGTH.size
        if begin > len(raw):
            raise ValueError(f"element {number} has {len(raw) - at} of the 4 bytes of its length")
        at = begin + _LENGTH.unpack_from(raw, at)[0]
        if at > len(raw):
            raise ValueError(f"element {number} says {at - begin} bytes and {len(raw) - begin} are left")
        yield bytes(raw[begin:at])
        number += 1


def join_strings(values: Iterable[bytes]) -> bytes:
    """What :func:`split_strings` reads."""
    return b"".join(_LENGTH.pack(len(value)) + value for value in values)


def _flat(value: Any) -> list[Any]:
    if isinstance(value, list):
        return [v for part in value for v in _flat(part)]
    return [value]


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MalformedAnswer(f"{_short(body)} is not JSON ({error}): is that a model server?") from error
    if not isinstance(value, dict):
        raise MalformedAnswer(f"{_short(body)} is no JSON object: is that a model server?")
    return value


def words_of(body: bytes) -> str:
    """What a server says of an error, in one line of at most 300 characters."""
    try:
        value = json.loads(body)
        said = value.get("error") or value.get("detail") or value
    except (ValueError, AttributeError, RecursionError):
        said = body[:1000].decode(errors="replace")
    return " ".join(str(said).split())[:300] or "no reason given"


def _short(body: bytes) -> str:
    return repr(body[:80].decode(errors="replace"))
