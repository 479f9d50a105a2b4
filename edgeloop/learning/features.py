"""Backbone features of samples, computed once: at the edge where the sample brought them, else here, then kept.

Features are keyed by (payload digest, backbone digest); a new backbone recomputes only what it has not seen. A sample
whose raw input stayed at the node has the features that it brought and no others: they are of no use to another
backbone.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edgeloop.clients.models import Backbone
from edgeloop.clients.objects import ObjectStore
from edgeloop.errors import EdgeloopError
from edgeloop.samples.inputs import input_digest
from edgeloop.samples.payloads import decode_image
from edgeloop.samples.records import digest, hexdigest

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Two interpreters in a thread pool keep two cores busy; LiteRT releases the interpreter lock.
WORKERS = 2
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

    Raises:
        MissingFeatures: a row has no raw input and no features of this backbone; see :func:`lacking`.
    """
    brought = [brought_features(row, backbone) for row in rows]
    if all(vector is not None for vector in brought):
        return _stack(brought, backbone)
    names = [input_digest(row) for row in rows]
    own = {name: vector for name, vector in zip(names, brought, strict=True) if vector is not None}
    known = own | load_cache(store, backbone.digest)
    missing = {n: row["payload"] for n, row in zip(names, rows, strict=True) if n not in known and row["payload"]}
    _refuse_unknown({*names} - {*known} - {*missing}, backbone)
    if missing:
        fresh = _compute(backbone, missing, progress)
        _save_cache(store, backbone.digest, fresh)
        known |= fresh
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


def brought_features(row: dict[str, Any], space: Space) -> NDArray[np.float16] | None:
    """The features that a sample row came with, float16 [features]; None unless whole, finite and of this space."""
    embedding = row.get("embedding") or b""
    if row.get("backbone_digest") != space.digest or len(embedding) != 2 * space.length:
        return None
    vector = np.frombuffer(embedding, dtype="<f2")
    return vector if np.isfinite(vector).all() else None


def lacking(store: ObjectStore, space: Space | None, rows: Sequence[dict[str, Any]]) -> list[str | None]:
    """Why each sample row cannot be used, None where it can.

    Args:
        store: keeps the features computed here earlier.
        space: the features that are needed; None where only raw inputs will do.
        rows: with ``payload``, ``embedding``, ``backbone_digest`` and ``extra``.
    """
    if space is None:
        return [None if row["payload"] else NO_INPUT for row in rows]
    open_rows = [r for r in rows if not r["payload"] and brought_features(r, space) is None]
    kept = load_cache(store, space.digest) if open_rows else {}
    reasons = {id(row): _reason(row, space) for row in open_rows if input_digest(row) not in kept}
    return [reasons.get(id(row)) for row in rows]


def _reason(row: dict[str, Any], space: Space) -> str:
    named = row.get("backbone_digest")
    return OTHER_BACKBONE if named and named != space.digest else UNUSABLE


def _compute(
    backbone: Backbone, payloads: dict[str, bytes], progress: Callable[[int, int], None] | None
) -> dict[str, NDArray[np.float16]]:
    from concurrent.futures import ThreadPoolExecutor

    def one(payload: bytes) -> NDArray[np.float16]:
        return backbone.features(decode_image(payload, backbone.size)).astype(np.float16)

    found: dict[str, NDArray[np.float16]] = {}
    with ThreadPoolExecutor(WORKERS) as pool:
        for name, vector in zip(payloads, pool.map(one, payloads.values()), strict=True):
            found[name] = vector
            if progress and len(found) % 100 == 0:
                progress(len(found), len(payloads))
    return found


def _cache_prefix(backbone_digest: str) -> str:
    return f"features/{hexdigest(backbone_digest)}/"


def load_cache(store: ObjectStore, backbone_digest: str) -> dict[str, NDArray[np.float16]]:
    """All features that are kept for a backbone, by payload digest."""
    found: dict[str, NDArray[np.float16]] = {}
    for info in store.list(_cache_prefix(backbone_digest)):
        with np.load(io.BytesIO(store.get(info.key)), allow_pickle=False) as parts:
            found |= dict(zip((str(n) for n in parts["names"]), parts["features"], strict=True))
    return found


def _save_cache(store: ObjectStore, backbone_digest: str, fresh: dict[str, NDArray[np.float16]]) -> None:
    sink = io.BytesIO()
    np.savez(sink, names=np.array(list(fresh), dtype=np.str_), features=np.stack(list(fresh.values())))
    data = sink.getvalue()
    store.create(f"{_cache_prefix(backbone_digest)}{hexdigest(digest(data))}.npz", data)
