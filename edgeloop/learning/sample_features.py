"""Features of samples by their ids, read from the cache alone where that is possible: a sample's row, with its photo,
is read once in its life.

The cache names features by payload digest, and a digest is known only to who has the payload. So what a row said is
kept too: the digest of its input, and whether the raw input came. Features that a sample brought are kept under the
sample's own name, not under the digest that it claims: a node cannot give features to another node's inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.clients.models import Backbone
from edgeloop.clients.objects import ObjectStore
from edgeloop.learning.features import (
    KEPT_TOGETHER,
    NO_INPUT,
    MissingFeatures,
    Space,
    brought_features,
    compute_features,
    feature_rows,
    find_features,
    in_chunks,
    why_unusable,
)
from edgeloop.learning.kept_rows import KeptRows
from edgeloop.samples.inputs import input_digest
from edgeloop.samples.records import digest, hexdigest
from edgeloop.samples.table import Tables, one_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

_COLUMNS = ("sample_id", "payload", "embedding", "backbone_digest", "extra")
_RAW, _BARE = b"\1", b"\0"


def sample_features(
    store: ObjectStore,
    tables: Tables,
    space: Space,
    load: Callable[[], Backbone],
    ids: Sequence[str],
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """Features of samples, float32 [ids, features], as :func:`edgeloop.learning.features.features_of` gives them.

    Args:
        store: keeps features and what is known of inputs.
        tables: of the service; asked for the rows of samples that have no features yet, and for no others.
        space: which features.
        load: makes the backbone; called only if features must be computed.
        ids: of the samples.
        progress: told how many are computed, and of how many that are missing.

    Raises:
        MissingFeatures: a sample has no raw input and no features of this backbone, or is not in the table.
    """
    found = _kept(store, tables.service, space, ids)
    missing = [name for name in dict.fromkeys(ids) if name not in found]
    if missing:
        _fill(store, tables, space, load, missing, progress)
        found |= _kept(store, tables.service, space, missing)
    lost = sorted({*missing} - {*found})
    if lost:
        raise MissingFeatures(
            f"{len(lost)} samples of {tables.service}, {lost[0]} among them, have no raw bytes and no features of"
            f" backbone {space.digest}: leave them out"
        )
    return (
        np.stack([found[name] for name in ids]).astype(np.float32) if ids else np.zeros((0, space.length), np.float32)
    )


def lacking_samples(store: ObjectStore, tables: Tables, space: Space | None, ids: Sequence[str]) -> dict[str, str]:
    """Why samples cannot be used, by id; those that can are not in it.

    Args:
        space: the features that are needed; None where only raw inputs will do.
    """
    inputs = _inputs(store, tables.service, ids)
    fresh = [name for name in ids if name not in inputs]
    for rows in _rows(tables, fresh):
        inputs |= _learn(store, tables.service, rows, space)
    bare = [name for name in ids if not inputs.get(name, ("", False))[1]]
    if space is None:
        return dict.fromkeys(bare, NO_INPUT)
    names = {name: {_own_name(tables.service, name), inputs.get(name, ("", False))[0] or digest(b"")} for name in bare}
    kept = feature_rows(store, space).known(one for some in names.values() for one in some)
    return _reasons(store, tables, space, [name for name in bare if not names[name] & kept])


def input_digests(store: ObjectStore, tables: Tables, ids: Sequence[str]) -> dict[str, str]:
    """Digest of the raw input of each sample that is in the table, by id; each row is read once in its life."""
    inputs = _inputs(store, tables.service, ids)
    for rows in _rows(tables, [name for name in ids if name not in inputs]):
        inputs |= _learn(store, tables.service, rows, None)
    return {name: known for name, (known, _) in inputs.items()}


def _reasons(store: ObjectStore, tables: Tables, space: Space, ids: Sequence[str]) -> dict[str, str]:
    """Of samples without raw input and kept features: what is wrong with those that they brought, if anything."""
    named = tables.read("samples", ["sample_id", "backbone_digest"], where=one_of("sample_id", ids)) if ids else []
    reasons = {row["sample_id"]: why_unusable(row, space) for row in named}
    close = [row["sample_id"] for row in named if row["backbone_digest"] == space.digest]
    for rows in _rows(tables, close):
        _learn(store, tables.service, rows, space)
        for row in rows:
            if brought_features(row, space) is not None:
                del reasons[row["sample_id"]]
    return reasons


def _kept(store: ObjectStore, service: str, space: Space, ids: Iterable[str]) -> dict[str, NDArray[np.float16]]:
    """Features that need no row of the table, by sample id: what the sample brought, else what was computed."""
    names = {name: _own_name(service, name) for name in ids}
    own = find_features(store, space, names.values())
    digests = {n: known for n, (known, _) in _inputs(store, service, [n for n in names if names[n] not in own]).items()}
    computed = find_features(store, space, digests.values())
    found = {name: own[key] for name, key in names.items() if key in own}
    return found | {name: computed[key] for name, key in digests.items() if key in computed}


def _fill(
    store: ObjectStore,
    tables: Tables,
    space: Space,
    load: Callable[[], Backbone],
    ids: Sequence[str],
    progress: Callable[[int, int], None] | None,
) -> None:
    """Keep what rows brought and compute what they lack, a part of them at a time: photos are not all in memory."""
    backbone: Backbone | None = None
    done = 0
    for rows in _rows(tables, ids):
        _learn(store, tables.service, rows, space)
        payloads = {input_digest(r): r["payload"] for r in rows if r["payload"] and brought_features(r, space) is None}
        kept = find_features(store, space, payloads)  # not known(): a damaged row is made anew
        missing = {name: payload for name, payload in payloads.items() if name not in kept}
        if missing:
            backbone = backbone or load()
            compute_features(store, backbone, missing)
        done += len(rows)
        if progress:
            progress(done, len(ids))


def _rows(tables: Tables, ids: Sequence[str]) -> Iterable[list[dict[str, Any]]]:
    if not ids:
        return []
    return in_chunks(tables.each("samples", _COLUMNS, one_of("sample_id", ids)), KEPT_TOGETHER)


def _learn(
    store: ObjectStore, service: str, rows: Sequence[dict[str, Any]], space: Space | None
) -> dict[str, tuple[str, bool]]:
    """Keep what rows say of their inputs, and the features that they brought."""
    known = {row["sample_id"]: (input_digest(row), bool(row["payload"])) for row in rows}
    kept = _input_rows(store, service)
    new = known.keys() - _inputs(store, service, known).keys()
    kept.put({_row_name(n): bytes.fromhex(hexdigest(known[n][0])) + (_RAW if known[n][1] else _BARE) for n in new})
    if space is not None:
        brought = {_own_name(service, r["sample_id"]): brought_features(r, space) for r in rows}
        here = find_features(store, space, (name for name, vector in brought.items() if vector is not None))
        feature_rows(store, space).put({n: v.tobytes() for n, v in brought.items() if v is not None and n not in here})
    return known


def _inputs(store: ObjectStore, service: str, ids: Iterable[str]) -> dict[str, tuple[str, bool]]:
    """What is known of the inputs of samples, by id: their digest, and whether the raw input came."""
    names = {_row_name(name): name for name in ids}
    found = _input_rows(store, service).find(names)
    return {names[key]: (f"sha256:{row[:32].hex()}", row[32:] == _RAW) for key, row in found.items()}


def _input_rows(store: ObjectStore, service: str) -> KeptRows:
    return KeptRows(store, f"inputs/{service}/", digest(service.encode()), 33)


def _row_name(sample: str) -> str:
    return digest(sample.encode())


def _own_name(service: str, sample: str) -> str:
    """The name of the features that a sample brought; no payload digest, and no other sample's."""
    return digest(f"brought\n{service}\n{sample}".encode())
