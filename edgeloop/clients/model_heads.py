"""Heads: what turns the features of a backbone into probabilities, on nodes and in the cloud alike, with numpy only.

There are two formats, told apart by their first bytes: a linear map, and one with a hidden layer of rectified units
before it. A node that is too old for the second refuses it by name and goes on with the release that it has.

Weights on labels travel as half precision (IEEE 754 binary16) where they are such numbers exactly, as trainers make
them, else as float32. What is loaded is float32 either way.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

from edgeloop.clients.model_types import UnloadableModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: First bytes of a head with a hidden layer; an npz archive follows. A linear head is an npz archive alone.
HIDDEN = b"edgeloop hidden head 1\n"
#: A hidden layer of more weights is refused before memory is taken for it.
MOST_WEIGHTS = 1 << 26


class Head(Protocol):
    """Probabilities of labels for features."""

    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def width(self) -> int:
        """Number of features."""
        ...

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Probabilities for features [n, features]: float64 [n, labels], rows sum to one."""
        ...

    def to_bytes(self) -> bytes: ...


@dataclass(frozen=True)
class LinearHead:
    """Softmax of a linear map: ``weights`` float32 [features, labels], ``bias`` float32 [labels]."""

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    labels: tuple[str, ...]

    @property
    def width(self) -> int:
        """Number of features."""
        return len(self.weights)

    @cached_property
    def _exact(self) -> NDArray[np.float64]:
        return self.weights.astype(np.float64)

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Probabilities for features [n, features]: float64 [n, labels], rows sum to one."""
        return softmax(features.astype(np.float64) @ self._exact + self.bias)

    def to_bytes(self) -> bytes:
        """Encode as npz; the same head gives the same bytes."""
        sink = io.BytesIO()
        weights, labels = narrowed(self.weights), np.array(self.labels, dtype=np.str_)
        np.savez(sink, allow_pickle=False, weights=weights, bias=self.bias, labels=labels)
        return sink.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> LinearHead:
        """Decode what :meth:`to_bytes` wrote; raises UnloadableModel on anything else."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as parts:
                weights, bias = parts["weights"], parts["bias"]
                # Other numbers than half precision stay what they are.
                wide = weights.astype(np.float32) if weights.dtype == np.float16 else weights
                return cls(wide, bias, tuple(str(x) for x in parts["labels"]))
        except MemoryError:  # the machine's fault
            raise
        except Exception as error:  # damaged archives raise classes of zipfile, zlib and numpy
            raise UnloadableModel(f"head of {len(data)} bytes does not load ({error}): export it again") from error


@dataclass(frozen=True)
class HiddenHead:
    """Softmax of ``relu(x @ first + first_bias) @ second + second_bias``, all float32.

    A first layer that is nothing but :func:`projection` of ``seed`` is kept as that seed and a digest.
    """

    first: NDArray[np.float32]
    """[features, units]."""
    first_bias: NDArray[np.float32]
    second: NDArray[np.float32]
    """[units, labels]."""
    second_bias: NDArray[np.float32]
    labels: tuple[str, ...]
    seed: int | None = None

    @property
    def width(self) -> int:
        """Number of features."""
        return len(self.first)

    @cached_property
    def _exact(self) -> NDArray[np.float64]:
        return self.second.astype(np.float64)

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Probabilities for features [n, features]: float64 [n, labels], rows sum to one."""
        return softmax(lift(features, self.first, self.first_bias) @ self._exact + self.second_bias)

    def to_bytes(self) -> bytes:
        """Encode as a mark and npz; the same head gives the same bytes."""
        layer: dict[str, NDArray[np.generic]] = {"first": self.first}
        if self.seed is not None:
            known = np.frombuffer(_sha256(self.first), np.uint8)
            layer = {"seed": np.array([self.seed, self.width], "<i8"), "digest": known}
        sink = io.BytesIO()
        np.savez(
            sink,
            allow_pickle=False,
            **layer,
            first_bias=self.first_bias,
            second=narrowed(self.second),
            second_bias=self.second_bias,
            labels=np.array(self.labels, dtype=np.str_),
        )
        return HIDDEN + sink.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> HiddenHead:
        """Decode what :meth:`to_bytes` wrote; raises UnloadableModel on anything else."""
        try:
            if not data.startswith(HIDDEN):
                raise ValueError("it is not a head with a hidden layer")
            with np.load(io.BytesIO(data[len(HIDDEN) :]), allow_pickle=False) as parts:
                arrays = {name: parts[name] for name in parts.files}
            return cls._from_parts(arrays)
        except MemoryError:  # the machine's fault
            raise
        except Exception as error:  # damaged archives raise classes of zipfile, zlib and numpy
            raise UnloadableModel(f"head of {len(data)} bytes does not load ({error}): export it again") from error

    @classmethod
    def _from_parts(cls, parts: dict[str, NDArray[np.generic]]) -> HiddenHead:
        bias, second, second_bias = (
            np.asarray(parts[name], np.float32) for name in ("first_bias", "second", "second_bias")
        )
        seed, first = _first_layer(parts, len(bias))
        labels = tuple(str(x) for x in parts["labels"])
        shapes = (first.shape[1:], bias.shape, second.shape, second_bias.shape)
        units = len(bias)
        if shapes != ((units,), (units,), (units, len(labels)), (len(labels),)):
            raise ValueError(f"layers of shapes {shapes} do not fit {len(labels)} labels")
        return cls(first, bias, second, second_bias, labels, seed)


def _first_layer(parts: dict[str, NDArray[np.generic]], units: int) -> tuple[int | None, NDArray[np.float32]]:
    if "first" in parts:
        return None, np.asarray(parts["first"], np.float32)
    seed, features = (int(n) for n in parts["seed"].astype(np.int64))
    if not 0 < features * units <= MOST_WEIGHTS:
        raise ValueError(f"a hidden layer of {features} x {units} weights is not between 1 and {MOST_WEIGHTS}")
    first = projection(seed, features, units)
    if _sha256(first) != bytes(parts["digest"].astype(np.uint8)):
        raise ValueError(f"the projection of seed {seed} is another one here, with numpy {np.__version__}")
    return seed, first


def narrowed(weights: NDArray[np.float32]) -> NDArray[np.float16] | NDArray[np.float32]:
    """The same numbers as half precision, or as they are where one of them is none of that."""
    with np.errstate(over="ignore"):
        half = weights.astype(np.float16)
    return half if np.array_equal(half.astype(np.float32), weights) else weights


def read_head(data: bytes) -> Head:
    """Decode a head of either format; raises UnloadableModel on anything else."""
    return HiddenHead.from_bytes(data) if data.startswith(HIDDEN) else LinearHead.from_bytes(data)


def media_type(data: bytes) -> str:
    """Media type of a head's bytes, for the layer of a release."""
    return f"application/vnd.edgeloop.{'hidden-head' if data.startswith(HIDDEN) else 'linear-head+npz'}"


def projection(seed: int, features: int, units: int) -> NDArray[np.float32]:
    """A random matrix of mean zero and variance one, float32 [features, units]: the same bits on every machine.

    Each entry is the sum of the four 16-bit parts of one raw number of PCG64, whose stream numpy promises to keep, as
    it does not for its normal numbers; such a sum is nearly normal (Irwin-Hall). One row at a time keeps memory low.
    """
    source = np.random.PCG64(seed)
    made = np.empty((features, units), np.float32)
    for row in made:
        parts = source.random_raw(units).astype("<u8").view("<u2").reshape(units, 4)
        row[:] = (parts.sum(axis=1, dtype=np.int64) - 2 * 0xFFFF) / np.sqrt((2.0**32 - 1) / 3)
    return made


def lift(features: NDArray[np.float32], first: NDArray[np.float32], bias: NDArray[np.float32]) -> NDArray[np.float64]:
    """Outputs of the hidden layer for features [n, features]: float64 [n, units], from float32 arithmetic."""
    return np.asarray(np.maximum(features.astype(np.float32) @ first + bias, 0), np.float64)


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities of logits [n, labels]."""
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exp / exp.sum(axis=1, keepdims=True))


def _sha256(matrix: NDArray[np.float32]) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(matrix, "<f4").tobytes()).digest()
