"""What samples are compared by: the features of one backbone, brought or computed, or the row itself.

A queue that knows nothing of its samples can only draw lots. So features that are missing are computed, some for each
queue, and kept in the cache that training uses: no work is lost, and the next queue knows more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.clients.models import Backbone, UnknownBackbone, UnloadableModel, read_backbone, read_head
from edgeloop.clients.objects import ObjectMissing, ObjectStore
from edgeloop.learning.features import KnownSpace, Space, brought_features, features_of, find_features
from edgeloop.learning.sample_features import input_digests
from edgeloop.samples.payloads import UndecodablePayload, decode_features
from edgeloop.samples.releases import blob_key
from edgeloop.samples.service import Service
from edgeloop.samples.table import Tables, one_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

Say = Callable[[str], None]
#: Images whose features are computed for one queue: seconds, not minutes, for a person who waits.
MOST_COMPUTED = 500
_ROW = ["sample_id", "embedding", "backbone_digest"]


@dataclass(frozen=True)
class Vectors:
    """Samples as models take them: float32 [features] by sample id."""

    raw: Mapping[str, NDArray[np.float32]]
    backbone: str | None = None
    """Digest of the backbone whose features they are; None for rows."""

    def comparable(self) -> dict[str, NDArray[np.float32]]:
        """The same of length 1 (features), or with mean 0 and deviation 1 (rows)."""
        if self.backbone is None:
            return _standard(self.raw)
        return {n: v / max(float(np.linalg.norm(v)), 1e-12) for n, v in self.raw.items()}


def vectors_of(
    store: ObjectStore,
    tables: Tables,
    service: Service,
    names: Sequence[str],
    layers: Mapping[str, str] | None = None,
    say: Say = lambda _: None,
) -> Vectors:
    """Vectors of the samples that have one, or can get one now.

    The backbone is the champion's, else the one that most samples brought features of, else the file that
    ``trainer.backbone`` names.

    Args:
        store: keeps backbones and features.
        tables: of the service.
        service: that the samples are of.
        names: of the samples.
        layers: blob digests of the champion, by role.
        say: told how far the computing is.
    """
    if service.image is None:
        return Vectors(_rows(tables, service, names))
    rows = tables.read("samples", _ROW, where=one_of("sample_id", names))
    space = champion_space(store, layers) or _commonest(rows) or _named(service)
    if space is None:
        return Vectors({})
    brought = {r["sample_id"]: brought_features(r, space) for r in rows}
    missing = [n for n in names if brought.get(n) is None]
    found = {n: v.astype(np.float32) for n, v in brought.items() if v is not None}
    return Vectors(found | _computed(store, tables, service, missing, space, say), space.digest)


def champion_space(store: ObjectStore, layers: Mapping[str, str] | None) -> KnownSpace | None:
    """The features that an image model takes; None without one, or where its head does not load."""
    if layers is None or "head" not in layers:
        return None
    try:
        return KnownSpace(layers["backbone"], read_head(store.get(blob_key(layers["head"]))).width)
    except (ObjectMissing, UnloadableModel):  # the round says so; a queue can do without
        return None


def _commonest(rows: Sequence[Mapping[str, Any]]) -> KnownSpace | None:
    spaces = Counter((r["backbone_digest"], len(r["embedding"]) // 2) for r in rows if r["embedding"])
    return KnownSpace(*max(spaces, key=lambda s: (spaces[s], str(s)))) if spaces else None


def _named(service: Service) -> Backbone | None:
    path = Path(str(service.trainer.backbone)).expanduser()
    try:
        return read_backbone(path) if path.suffix == ".tflite" else None
    except (UnknownBackbone, UnloadableModel):
        return None


def _computed(
    store: ObjectStore, tables: Tables, service: Service, names: Sequence[str], space: Space, say: Say
) -> dict[str, NDArray[np.float32]]:
    """Features that are in the cache, and those of ``MOST_COMPUTED`` images more."""
    digests = input_digests(store, tables, names) if names else {}
    kept = find_features(store, space, digests.values())
    found = {n: kept[d].astype(np.float32) for n, d in digests.items() if d in kept}
    missing = [n for n in names if n not in found][:MOST_COMPUTED]
    rows = tables.read("samples", ["sample_id", "payload", "extra"], where=one_of("sample_id", missing))
    fresh = [row for row in rows if row["payload"]]
    backbone = _backbone(store, service, space) if fresh else None
    if backbone is None:
        return found
    say(f"computing the features of {len(fresh)} images")
    made = features_of(store, backbone, fresh, lambda done, of: say(f"features {done}/{of}"))
    return found | {row["sample_id"]: vector for row, vector in zip(fresh, made, strict=True)}


def _backbone(store: ObjectStore, service: Service, space: Space) -> Backbone | None:
    """The backbone of a space, from the store or the service's own file; None where neither has it."""
    if isinstance(space, Backbone):
        return space
    try:
        return Backbone(store.get(blob_key(space.digest)), space.digest)
    except (ObjectMissing, UnknownBackbone, UnloadableModel):
        named = _named(service)
        return named if named is not None and named.digest == space.digest else None


def _rows(tables: Tables, service: Service, names: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    found: dict[str, NDArray[np.float32]] = {}
    for row in tables.read("samples", ["sample_id", "payload"], where=one_of("sample_id", names)):
        try:
            found[row["sample_id"]] = decode_features(row["payload"], service.feature_names)
        except UndecodablePayload:  # the service's features were others when it was accepted
            continue
    return found


def _standard(rows: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    if not rows:
        return {}
    values = np.stack(list(rows.values())).astype(np.float64)
    spread = values.std(axis=0)
    scaled = ((values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0)).astype(np.float32)
    return dict(zip(rows, scaled, strict=True))
