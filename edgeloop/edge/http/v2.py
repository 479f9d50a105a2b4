"""Inference as the Open Inference Protocol (V2) has it, in JSON and with the binary tensor data extension.

Source: https://github.com/kserve/open-inference-protocol (REST, "Inference").
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.clients.endpoint_wire import join_strings
from edgeloop.edge.http.bodies import HEADER_LENGTH, split
from edgeloop.edge.http.messages import MalformedRequest, Reply, Request, as_json, encode, short
from edgeloop.edge.http.models import DEFAULT_OUTPUTS, answers, column, outputs_of, read, takes_images, version_of
from edgeloop.edge.http.tensors import INPUT, Tensor, numbers, read_inputs, rows, strings

if TYPE_CHECKING:
    from edgeloop.edge.http.app import Site
    from edgeloop.edge.runtime import Loaded

_BINARY = b"application/octet-stream"
_MOST_OUTPUTS = 16


@dataclass(frozen=True)
class _Wanted:
    """One output that the caller asks for."""

    name: str
    binary: bool
    asked: bool = True


@dataclass(frozen=True)
class _Asked:
    """What a request says."""

    payloads: list[bytes]
    outputs: list[_Wanted]
    name: str | None
    """The caller's ``id``."""


def infer(site: Site, request: Request) -> Reply:
    """``POST /v2/models/{service}[/versions/{version}]/infer``."""
    loaded, asked = read(site, request, _asked)
    results = answers(site, request, loaded, asked.payloads)
    outputs, tail = list[dict[str, Any]](), list[bytes]()
    for wanted in asked.outputs:
        values = column(wanted.name, loaded, results)
        if values is not None:
            outputs.append(_output(loaded, wanted, values, tail))
        elif wanted.asked:
            raise MalformedRequest(f"output {wanted.name} is not given by the model that answered: leave it out")
    answer = {"model_name": loaded.config.service, "model_version": version_of(site, loaded, results)}
    return _reply({**answer, **({} if asked.name is None else {"id": asked.name}), "outputs": outputs}, tail)


def _output(loaded: Loaded, wanted: _Wanted, values: list[Any], tail: list[bytes]) -> dict[str, Any]:
    """One output as it stands in the JSON; one in binary is put behind it, into ``tail``."""
    kind, shape = outputs_of(loaded)[wanted.name]
    output = {"name": wanted.name, "datatype": kind, "shape": [len(values), *shape[1:]]}
    if wanted.binary:
        tail.append(_in_binary(kind, values))
        return {**output, "parameters": {"binary_data_size": len(tail[-1])}}
    return {**output, "data": values if len(shape) == 1 else [v for row in values for v in row]}


def _reply(answer: dict[str, Any], tail: list[bytes]) -> Reply:
    if not tail:
        return as_json(answer)
    front = encode(answer)
    length = (HEADER_LENGTH, str(len(front)).encode())
    return Reply(b"".join([front, *tail]), kind=_BINARY, headers=(length,))


def _in_binary(kind: str, values: Sequence[Any]) -> bytes:
    if kind == "BYTES":
        return join_strings(str(value).encode() for value in values)
    return struct.pack(f"<{len(values)}d", *values) if np.ndim(values) == 1 else np.asarray(values, "<f8").tobytes()


def _asked(loaded: Loaded, request: Request) -> _Asked:
    message, raw = split(request)
    if message is None:
        return _Asked([_bare(loaded, raw)], _defaults(loaded, binary=False), None)
    name = message.get("id")
    if name is not None and not isinstance(name, str):
        raise MalformedRequest(f"id is {short(name)}: send a string, or none")
    outputs = _outputs(loaded, message.get("outputs"), _wants_binary(message.get("parameters")))
    return _Asked(_payloads(loaded, read_inputs(message.get("inputs"), raw)), outputs, name)


def _bare(loaded: Loaded, raw: memoryview) -> bytes:
    """A body that is one image and nothing else, as Triton takes it when the JSON in front has the length 0."""
    if not takes_images(loaded):
        raise MalformedRequest("Inference-Header-Content-Length is 0, which is for images: send JSON in front")
    return bytes(raw)


def _wants_binary(parameters: object) -> bool:
    if parameters is None:
        return False
    if not isinstance(parameters, dict):
        raise MalformedRequest(f"parameters is {short(parameters)}: send an object")
    return _flag(parameters, "binary_data_output")


def _flag(parameters: dict[str, Any], name: str, default: bool = False) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise MalformedRequest(f"parameter {name} is {short(value)}: send true or false")
    return value


def _defaults(loaded: Loaded, binary: bool) -> list[_Wanted]:
    return [_Wanted(name, binary, asked=False) for name in DEFAULT_OUTPUTS if name in outputs_of(loaded)]


def _outputs(loaded: Loaded, outputs: object, binary: bool) -> list[_Wanted]:
    """The outputs asked for, in their order; the default ones when none is."""
    if outputs is None or outputs == []:
        return _defaults(loaded, binary)
    if not isinstance(outputs, list) or len(outputs) > _MOST_OUTPUTS:
        raise MalformedRequest(f'"outputs" is {short(outputs)}: send a list of {{"name": …}}, each output once')
    wanted = [_wanted(loaded, value, binary) for value in outputs]
    if len({w.name for w in wanted}) < len(wanted):
        raise MalformedRequest('an output is named twice in "outputs": send each once')
    return wanted


def _wanted(loaded: Loaded, value: object, binary: bool) -> _Wanted:
    name = value.get("name") if isinstance(value, dict) else value
    known = outputs_of(loaded)
    if not isinstance(value, dict) or not isinstance(name, str) or name not in known:
        raise MalformedRequest(f"output {short(name)} is none of this model: ask for {', '.join(known)}")
    parameters = value.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise MalformedRequest(f"parameters of output {name} is {short(parameters)}: send an object")
    return _Wanted(name, _flag(parameters, "binary_data", binary))


def _payloads(loaded: Loaded, tensors: list[Tensor]) -> list[bytes]:
    """The instances: of one tensor named ``input``, or of one tensor per feature."""
    first, names = tensors[0], loaded.config.feature_names
    if len(tensors) == 1 and first.name == INPUT:
        return _of_one(loaded, first)
    if not names or {t.name for t in tensors} != set(names):
        expected = f", or {', '.join(names)}" if names else ""
        raise MalformedRequest(f"inputs are {_named(tensors)} and this model takes {INPUT}{expected}: rename them")
    if len({t.shape[0] for t in tensors}) > 1:
        raise MalformedRequest(f"inputs {_named(tensors)} differ in length: send as many values of each feature")
    columns = {tensor.name: _feature(tensor) for tensor in tensors}
    return rows(np.column_stack([columns[name] for name in names]))


def _named(tensors: list[Tensor]) -> str:
    return short(", ".join(t.name for t in tensors))


def _of_one(loaded: Loaded, tensor: Tensor) -> list[bytes]:
    width = len(loaded.config.feature_names)
    if tensor.datatype == "BYTES":
        if tensor.shape[1:] not in ((), (1,)):
            raise MalformedRequest(
                f"shape of input {INPUT} is {list(tensor.shape)}: send [n], one element per instance"
            )
        return strings(tensor)
    if takes_images(loaded):
        raise MalformedRequest(f"input {INPUT} is {tensor.datatype} and this model takes images: send BYTES")
    if tensor.shape[1:] != (width,):
        raise MalformedRequest(f"shape of input {INPUT} is {list(tensor.shape)} and this model takes [n, {width}]")
    return rows(numbers(tensor))


def _feature(tensor: Tensor) -> Any:
    if tensor.datatype == "BYTES" or tensor.shape[1:] not in ((), (1,)):
        raise MalformedRequest(
            f"input {tensor.name} is {tensor.datatype} of shape {list(tensor.shape)}: send numbers of shape [n]"
        )
    return numbers(tensor).reshape(-1)
