"""Backbone features of samples, computed once: at the edge where the sample brought them, else here, then kept.

Features are keyed by (payload digest, backbone digest); a new backbone recomputes only what it has not seen. A sample
whose raw input stayed at the node has the features that it brought and no others: they are of no use to another
backbone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from edgeloop.clients.models import Backbone
from edgeloop.clients.objects import ObjectStore
from edgeloop.errors import EdgeloopError
from edgeloop.learning.kept_rows import KeptRows
from edgeloop.samples.inputs import input_digest
from edgeloop.samples.payloads import decode_image
from edgeloop.samples.records import hexdigest

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")
#: Two interpreters in a thread pool keep two cores busy; LiteRT releases the interpreter lock.
#: Measured on a quantized MobileNet: a batch of 16 saves 4 % of an interpreter's time, a second thread half of it.
WORKERS = 2
#: So many features are written together: a second or a few of work, which is what a crash costs.
KEPT_TOGETHER = 512
#: Why a sample cannot be used; the keys under which such samples are counted.
NO_INPUT = "no raw input"
OTHER_BACKBONE = "no raw input, and features of another backbone"
UNUSABLE = "no raw input, and no usable features"


class MissingFeatures(EdgeloopError):
    """A sample has neither a raw input nor features of the backbone that is asked for."""


class Space(Protocol):
    """What features are: of which backbone, and how many. A :class:`Backbone` is one."""

    @property
    def digest(self) -> str: ...
    @property
    def length(self) -> int: ...


@dataclass(frozen=True)
class KnownSpace:
    """A feature space where the backbone itself need not be loaded."""

    digest: str
    length: int


def features_of(
    store: ObjectStore,
    backbone: Backbone,
    rows: Sequence[dict[str, Any]],
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """Features of sample rows (``payload``, ``embedding``, ``backbone_digest``, ``extra``): float32 [rows, features].

    All features pass through float16, as they do on their way from the edge, so that one sample has one vector.
    For rows of a table see :func:`edgeloop.learning.sample_features.sample_features`, which reads fewer of them.

    Raises:
        MissingFeatures: a row has no raw input and no features of this backbone.
    """
    brought = [brought_features(row, backbone) for row in rows]
    if all(vector is not None for vector in brought):
        return _stack(brought, backbone)
    names = [input_digest(row) for row in rows]
    own = {name: vector for name, vector in zip(names, brought, strict=True) if vector is not None}
    known = own | find_features(store, backbone, (name for name in names if name not in own))
    missing = {n: row["payload"] for n, row in zip(names, rows, strict=True) if n not in known and row["payload"]}
    _refuse_unknown({*names} - {*known} - {*missing}, backbone)
    known |= compute_features(store, backbone, missing, progress)
    return _stack([known[n] if v is None else v for n, v in zip(names, brought, strict=True)], backbone)


def _stack(vectors: Sequence[NDArray[np.float16] | None], backbone: Backbone) -> NDArray[np.float32]:
    stacked = np.stack([v for v in vectors if v is not None]) if vectors else np.zeros((0, backbone.length))
    return stacked.astype(np.float32)


def _refuse_unknown(names: set[str], backbone: Backbone) -> None:
    if names:
        raise MissingFeatures(
            f"{len(names)} inputs, {min(names)} among them, have no raw bytes and no features of backbone"
            f" {backbone.digest}: leave them out"
        )


def brought_features(row: Mapping[str, Any], space: Space) -> NDArray[np.float16] | None:
    """The features that a sample row came with, float16 [features]; None unless whole, finite and of this space."""
    embedding = row.get("embedding") or b""
    if row.get("backbone_digest") != space.digest or len(embedding) != 2 * space.length:
        return None
    vector = np.frombuffer(embedding, dtype="<f2")
    return vector if np.isfinite(vector).all() else None


def why_unusable(row: Mapping[str, Any], space: Space) -> str:
    """What is said of a row (``backbone_digest``) that has neither a raw input nor features of ``space``."""
    named = row.get("backbone_digest")
    return OTHER_BACKBONE if named and named != space.digest else UNUSABLE


def compute_features(
    store: ObjectStore,
    backbone: Backbone,
    payloads: Mapping[str, bytes],
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, NDArray[np.float16]]:
    """Compute and keep the features of ``payloads`` (by digest), :data:`KEPT_TOGETHER` at a time, so that a
    computation that is cut off keeps what it did: float16 [features] by digest."""
    from concurrent.futures import ThreadPoolExecutor

    def one(payload: bytes) -> NDArray[np.float16]:
        return backbone.features(decode_image(payload, backbone.size)).astype("<f2")

    kept, found = feature_rows(store, backbone), dict[str, "NDArray[np.float16]"]()
    with ThreadPoolExecutor(WORKERS) as pool:
        for names in in_chunks(payloads, KEPT_TOGETHER):
            fresh: dict[str, NDArray[np.float16]] = {}
            for name, vector in zip(names, pool.map(one, [payloads[name] for name in names]), strict=True):
                fresh[name] = vector
                if progress and (len(found) + len(fresh)) % 100 == 0:
                    progress(len(found) + len(fresh), len(payloads))
            kept.put({name: vector.tobytes() for name, vector in fresh.items()})
            found |= fresh
    return found


def in_chunks(names: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of ``size``, the last one shorter."""
    left = iter(names)
    while chunk := list(islice(left, size)):
        yield chunk


def feature_prefix(backbone_digest: str) -> str:
    """Folder of the features of a backbone in the object store."""
    return f"features/{hexdigest(backbone_digest)}/"


def feature_rows(store: ObjectStore, space: Space) -> KeptRows:
    """The features that are kept of a backbone, float16 little-endian, by payload digest. What another backbone wrote
    there, or one of another width, is passed over."""
    return KeptRows(store, feature_prefix(space.digest), space.digest, 2 * space.length)


def find_features(store: ObjectStore, space: Space, names: Iterable[str]) -> dict[str, NDArray[np.float16]]:
    """The features kept for those of ``names`` (payload digests) that have some; others are not read."""
    found = feature_rows(store, space).find(names)
    return {name: np.frombuffer(row, "<f2") for name, row in found.items()}


def load_cache(store: ObjectStore, backbone_digest: str) -> dict[str, NDArray[np.float16]]:
    """All features that are kept for a backbone, by name: as many as there ever were. See :func:`find_features`."""
    rows = KeptRows(store, feature_prefix(backbone_digest), backbone_digest, None).all()
    return {name: np.frombuffer(row, "<f2") for name, row in rows.items()}
