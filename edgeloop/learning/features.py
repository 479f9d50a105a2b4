"""Backbone features of samples, computed once: at the edge where the sample brought them, else here, then kept.

Features are keyed by (payload digest, backbone digest); a new backbone recomputes only what it has not seen.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.clients.models import Backbone
from edgeloop.clients.objects import ObjectStore
from edgeloop.samples.payloads import decode_image
from edgeloop.samples.records import digest, hexdigest

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Two interpreters in a thread pool keep two cores busy; LiteRT releases the interpreter lock.
WORKERS = 2


def features_of(
    store: ObjectStore,
    backbone: Backbone,
    rows: Sequence[dict[str, Any]],
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """Features of sample rows (``payload``, ``embedding``, ``backbone_digest``): float32 [rows, features].

    All features pass through float16, as they do on their way from the edge, so that one sample has one vector.
    """
    own = {digest(r["payload"]): _from_row(r) for r in rows if _brought(r, backbone)}
    known = own if all(digest(r["payload"]) in own for r in rows) else load_cache(store, backbone.digest) | own
    missing = {digest(r["payload"]): r["payload"] for r in rows if digest(r["payload"]) not in known}
    if missing:
        fresh = _compute(backbone, missing, progress)
        _save_cache(store, backbone.digest, fresh)
        known |= fresh
    return np.stack([known[digest(r["payload"])] for r in rows]).astype(np.float32)


def _brought(row: dict[str, Any], backbone: Backbone) -> bool:
    """Whether a sample came with whole features of this very backbone."""
    embedding = row.get("embedding")
    return row.get("backbone_digest") == backbone.digest and len(embedding or b"") == 2 * backbone.length


def _from_row(row: dict[str, Any]) -> NDArray[np.float16]:
    return np.frombuffer(row["embedding"], dtype="<f2")


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
