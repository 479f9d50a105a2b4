"""Tensors of the Open Inference Protocol, in JSON or binary, as the payloads that models take.

Source: https://github.com/kserve/open-inference-protocol (REST, "Tensor Data" and "Tensor Data Types").
"""

from __future__ import annotations

import binascii
from dataclasses import dataclass
from itertools import chain
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.edge.http.bodies import strings_of
from edgeloop.edge.http.messages import MalformedRequest, TooLarge, short
from edgeloop.samples.payloads import encode_features

if TYPE_CHECKING:
    from numpy.typing import NDArray

INPUT = "input"
"""Name of the one input tensor of every model."""
MAX_INSTANCES = 1024
_LARGEST_DIMENSION = 2**31 - 1
_MOST_DIMENSIONS = 8
#: Datatypes of the protocol as little-endian numpy ones.
NUMBERS = {
    **{f"UINT{8 * n}": np.dtype(f"<u{n}") for n in (1, 2, 4, 8)},
    **{f"INT{8 * n}": np.dtype(f"<i{n}") for n in (1, 2, 4, 8)},
    **{f"FP{8 * n}": np.dtype(f"<f{n}") for n in (2, 4, 8)},
}
DATATYPES = ("BYTES", *NUMBERS)


@dataclass(frozen=True)
class Tensor:
    """One input: its elements are in ``data`` (JSON) or in ``raw`` (binary)."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: list[Any] | None
    raw: memoryview | None

    @property
    def count(self) -> int:
        """Elements that the shape asks for."""
        return prod(self.shape)


def read_inputs(inputs: object, raw: memoryview) -> list[Tensor]:
    """The tensors of a request; binary ones take their bytes from ``raw`` in the order in which they are named.

    Raises:
        MalformedRequest: a tensor is not as the protocol says, or the sizes do not add up.
    """
    if not isinstance(inputs, list) or not inputs or len(inputs) > MAX_INSTANCES:
        raise MalformedRequest(f'"inputs" is {short(inputs)}: send a list of tensors')
    tensors, at = list[Tensor](), 0
    for number, value in enumerate(inputs):
        tensor, size = _read_input(number, value, raw[at:])
        tensors.append(tensor)
        at += size
    if at != len(raw):
        raise MalformedRequest(
            f"{len(raw) - at} bytes of binary data belong to no input: set binary_data_size of each to its length"
        )
    names = [t.name for t in tensors]
    if len(set(names)) < len(names):
        raise MalformedRequest(f"an input is named twice in {short(names)}: send each once")
    return tensors


def _read_input(number: int, value: object, raw: memoryview) -> tuple[Tensor, int]:
    if not isinstance(value, dict):
        raise MalformedRequest(f"input {number} is {short(value)}: send an object with name, datatype and shape")
    name, kind, data = value.get("name"), value.get("datatype"), value.get("data")
    if not isinstance(name, str) or not name:
        raise MalformedRequest(f"the name of input {number} is {short(name)}: send the name of a tensor of the model")
    if kind not in DATATYPES:
        raise MalformedRequest(f"datatype of input {name[:80]} is {short(kind)}: send one of {', '.join(DATATYPES)}")
    shape = _shape(name, value.get("shape"))
    size = _binary_size(name, value.get("parameters"), len(raw))
    if size is None:
        if not isinstance(data, list):
            raise MalformedRequest(f"data of input {name[:80]} is {short(data)}: send a list, or binary data")
        return Tensor(name, str(kind), shape, data, None), 0
    if data is not None:
        raise MalformedRequest(f"input {name[:80]} has data and binary_data_size: send one of them")
    return Tensor(name, str(kind), shape, None, raw[:size]), size


def _shape(name: str, value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= _MOST_DIMENSIONS:
        raise MalformedRequest(f"shape of input {name[:80]} is {short(value)}: send a list of its dimensions")
    for size in value:
        if type(size) is not int or not 0 < size <= _LARGEST_DIMENSION:
            raise MalformedRequest(f"shape of input {name[:80]} has the dimension {short(size)}: send numbers above 0")
    if value[0] > MAX_INSTANCES:
        raise TooLarge(f"{value[0]} instances are over {MAX_INSTANCES}: send fewer")
    return tuple(value)


def _binary_size(name: str, parameters: object, left: int) -> int | None:
    if parameters is None:
        return None
    if not isinstance(parameters, dict):
        raise MalformedRequest(f"parameters of input {name[:80]} is {short(parameters)}: send an object")
    size = parameters.get("binary_data_size")
    if size is None:
        return None
    if type(size) is not int or not 0 <= size <= left:
        raise MalformedRequest(
            f"binary_data_size of input {name[:80]} is {short(size)} and {left} bytes are left: send its length"
        )
    return size


def strings(tensor: Tensor) -> list[bytes]:
    """The elements of a BYTES tensor: in binary as they are, in JSON in base64.

    Raises:
        MalformedRequest: they are not what the shape says, or not base64.
    """
    if tensor.raw is not None:
        return strings_of(tensor.raw, tensor.count, tensor.name[:80])
    return [decode64(value, f"{tensor.name[:80]}[{number}]") for number, value in enumerate(_flat(tensor))]


def decode64(value: object, where: str) -> bytes:
    """Decode base64 text, or ``{"b64": text}``.

    Raises:
        MalformedRequest: it is neither; the message says ``where``.
    """
    text = value.get("b64") if isinstance(value, dict) and set(value) == {"b64"} else value
    if not isinstance(text, str):
        raise MalformedRequest(f'{where} is {short(text)}: send {{"b64": …}}, the bytes in base64')
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:  # also for what is not ASCII
        raise MalformedRequest(f"{where} is not base64 ({error!s:.80}): encode the whole payload") from error


def numbers(tensor: Tensor) -> NDArray[np.float64]:
    """The elements of a numeric tensor: float64 of its shape, finite.

    Raises:
        MalformedRequest: they are not what datatype and shape say, or not finite.
    """
    dtype = NUMBERS[tensor.datatype]
    values = _from_json(tensor, dtype) if tensor.raw is None else _from_raw(tensor, tensor.raw, dtype)
    if not np.isfinite(values).all():
        bad = int(np.flatnonzero(~np.isfinite(values))[0])
        raise MalformedRequest(f"element {bad} of input {tensor.name[:80]} is not finite: send finite numbers")
    return values.reshape(tensor.shape)


def _from_raw(tensor: Tensor, raw: memoryview, dtype: np.dtype[Any]) -> NDArray[np.float64]:
    want = tensor.count * dtype.itemsize
    if len(raw) != want:
        raise MalformedRequest(
            f"input {tensor.name[:80]} has {len(raw)} bytes and its shape {list(tensor.shape)} of {tensor.datatype} "
            f"takes {want}: mend shape or size"
        )
    return np.frombuffer(raw, dtype).astype(np.float64)


def _from_json(tensor: Tensor, dtype: np.dtype[Any]) -> NDArray[np.float64]:
    flat = _flat(tensor)
    kinds: set[type] = set(map(type, flat))
    if not kinds <= {int, float}:
        bad = next(n for n, v in enumerate(flat) if type(v) not in (int, float))
        raise MalformedRequest(f"element {bad} of input {tensor.name[:80]} is {short(flat[bad])}: send a number")
    try:
        values = np.array(flat, np.float64)
    except OverflowError as error:
        raise MalformedRequest(f"input {tensor.name[:80]} has a number that is out of range: send less") from error
    _check_fits(tensor, values, flat, dtype)
    return values


def _check_fits(tensor: Tensor, values: NDArray[np.float64], flat: list[Any], dtype: np.dtype[Any]) -> None:
    """Raise MalformedRequest unless the numbers are ones that the datatype has (rounding is not an error)."""
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            fits = bool(np.isfinite(values.astype(dtype)).all())
    else:
        low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
        fits = bool((values == np.floor(values)).all()) and low <= min(flat) and max(flat) <= high
    if not fits:
        raise MalformedRequest(f"input {tensor.name[:80]} has a number that no {tensor.datatype} is: mend one of them")


def _flat(tensor: Tensor) -> list[Any]:
    """The elements in row-major order, however deep the lists they were sent in."""
    level = tensor.data or []
    if level and isinstance(level[0], list):
        if len(level) != tensor.shape[0]:
            raise _misfit(tensor, len(level), "rows")
        for size in tensor.shape[1:]:
            if not all(isinstance(row, list) and len(row) == size for row in level):
                raise MalformedRequest(f"input {tensor.name[:80]} has a row that is not of {size}: mend data or shape")
            level = list(chain.from_iterable(level))
    if len(level) != tensor.count:
        raise _misfit(tensor, len(level), "elements")
    return level


def _misfit(tensor: Tensor, found: int, what: str) -> MalformedRequest:
    return MalformedRequest(
        f"input {tensor.name[:80]} has {found} {what}, its shape {list(tensor.shape)} says otherwise: mend one of them"
    )


def rows(values: NDArray[np.float64]) -> list[bytes]:
    """Feature rows, float64 [n, features], as payloads."""
    return [encode_features(row) for row in values.tolist()]
