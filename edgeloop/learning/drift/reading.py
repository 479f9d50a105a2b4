"""What of a service's tables may be tested: audit samples, once each, one of a group, in the order of capture.

Only what the uniform audit drew says what nodes see; what was sent for being hard does not. Tables are insert-only, so
what is new since a look is what these versions have and those of the look had not: nothing is tested twice, however
often one looks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.clients.objects import ObjectStore
from edgeloop.learning.drift.watch import Window
from edgeloop.learning.features import KnownSpace, Space, brought_features, find_features
from edgeloop.samples.inputs import input_digest
from edgeloop.samples.payloads import UndecodablePayload, decode_features
from edgeloop.samples.service import Service
from edgeloop.samples.table import Tables, one_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

Versions = Mapping[str, int | None]
#: ``selected_by`` of a uniform draw of what nodes see, and of data that was imported before there were nodes.
AUDIT, IMPORTED = "audit", "reference"
_COLUMNS = ["sample_id", "group", "captured_at", "selected_by", "model_digest", "prediction", "confidence"]


@dataclass(frozen=True)
class Drawn:
    """An accepted sample, without its payload."""

    sample_id: str
    group: str
    captured_at: datetime
    selected_by: str
    release: str
    prediction: str
    confidence: float | None


def drawn(tables: Tables, versions: Versions, selected_by: str) -> list[Drawn]:
    """Accepted samples at these table versions that ``selected_by`` chose, in the order of capture."""
    if versions.get("samples") is None or versions.get("verdicts") is None:
        return []
    verdicts = tables.read("verdicts", ["sample_id", "accepted"], versions["verdicts"])
    accepted = {r["sample_id"] for r in verdicts if r["accepted"]}
    rows = tables.read("samples", _COLUMNS, versions["samples"], one_of("selected_by", [selected_by]))
    chosen = [
        Drawn(**{**{k: r[k] for k in _COLUMNS if k != "model_digest"}, "release": r["model_digest"]})
        for r in rows
        if r["sample_id"] in accepted
    ]
    return sorted(chosen, key=lambda d: (d.captured_at, d.sample_id))


def fresh(now: Sequence[Drawn], before: Sequence[Drawn] = ()) -> list[Drawn]:
    """Of ``now``, the first sample of each group that ``before`` has nothing of."""
    groups = {d.group for d in before}
    found: list[Drawn] = []
    for one in now:
        if one.group not in groups:
            groups.add(one.group)
            found.append(one)
    return found


@dataclass(frozen=True)
class Source:
    """Where the numbers behind samples come from."""

    store: ObjectStore
    tables: Tables
    service: Service
    backbone: str | None
    """Digest of the champion's backbone; None for a tabular service."""

    def inputs(self, samples: Sequence[Drawn]) -> Window:
        """Columns or embeddings of ``samples``, in their order; those that cannot be had are left out."""
        ordered = self._rows(samples)
        return self._columns(ordered) if self.service.image is None else self._embeddings(ordered)

    def _rows(self, samples: Sequence[Drawn]) -> list[dict[str, Any]]:
        """Table rows of ``samples``; pictures are read only where features are kept under their digest."""
        names = ["sample_id", "embedding", "backbone_digest", "selected_by", "extra"]
        if self.service.image is None or any(d.selected_by == IMPORTED for d in samples):
            names.append("payload")
        where = one_of("sample_id", [d.sample_id for d in samples])
        rows = {r["sample_id"]: r for r in self.tables.read("samples", names, where=where)} if samples else {}
        return [rows[d.sample_id] for d in samples]

    def _columns(self, rows: Sequence[dict[str, Any]]) -> Window:
        names = self.service.feature_names
        values = [v for v in (_decoded(row, names) for row in rows) if v is not None]
        if not values:
            return Window()
        return Window(columns=dict(zip(names, np.stack(values).astype(np.float64).T, strict=True)))

    def _embeddings(self, rows: Sequence[dict[str, Any]]) -> Window:
        space = _space(self.backbone, rows)
        if space is None:
            return Window()
        # Only of imported samples are all computed here; of others only those that were labelled, no uniform draw.
        imported = any(r["selected_by"] == IMPORTED for r in rows)
        kept = find_features(self.store, space, [input_digest(r) for r in rows]) if imported else {}
        vectors = [_vector(row, space, kept) for row in rows]
        found = [v for v in vectors if v is not None]
        return Window(embeddings=np.stack(found).astype(np.float32)) if found else Window()


def _decoded(row: Mapping[str, Any], names: Sequence[str]) -> NDArray[np.float32] | None:
    try:
        return decode_features(row["payload"], names)
    except UndecodablePayload:  # the raw input stayed at the node, or the service's features were others then
        return None


def _space(backbone: str | None, rows: Sequence[Mapping[str, Any]]) -> Space | None:
    """The backbone's features, as long as most samples brought them."""
    if backbone is None:
        return None
    lengths = Counter(len(r["embedding"]) // 2 for r in rows if r["embedding"] and r["backbone_digest"] == backbone)
    return KnownSpace(backbone, lengths.most_common(1)[0][0] if lengths else 0)


def _vector(row: dict[str, Any], space: Space, kept: Mapping[str, NDArray[np.float16]]) -> NDArray[np.float16] | None:
    if space.length and (brought := brought_features(row, space)) is not None:
        return brought
    return kept.get(input_digest(row)) if row["selected_by"] == IMPORTED else None


def predictions(service: Service, samples: Sequence[Drawn]) -> Window:
    """Answers of ``samples``, labels or numbers."""
    answers = [d.prediction for d in samples]
    if not answers:
        return Window()
    return Window(predictions=answers if service.is_classifier else np.asarray([_number(a) for a in answers]))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def confidences(samples: Sequence[Drawn]) -> Window:
    """Confidences of the answers, where they have one."""
    found = [d.confidence for d in samples if d.confidence is not None]
    return Window(confidence=np.asarray(found)) if found else Window()
