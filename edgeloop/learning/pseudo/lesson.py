"""A lesson with pseudo-labels: the labelled samples stay in it, all of them, and what is added weighs less.

Whoever judges sees none of it: pseudo-labels are no labels in any table, and what is added here is of the pool.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.clients.models import Backbone, OnnxModel, read_head
from edgeloop.clients.objects import ObjectStore
from edgeloop.errors import EdgeloopError
from edgeloop.learning.features import KnownSpace
from edgeloop.learning.labels.doubts import row_probabilities
from edgeloop.learning.pool import Lesson, unusable
from edgeloop.learning.pseudo.propose import confirmed, in_turns, most_pseudo
from edgeloop.learning.sample_features import sample_features
from edgeloop.learning.threads import one_thread
from edgeloop.samples.dataset import Member, load_dataset
from edgeloop.samples.payloads import decode_features
from edgeloop.samples.releases import blob_key
from edgeloop.samples.service import Service
from edgeloop.samples.splits import split_of
from edgeloop.samples.table import Tables, one_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Open samples that the champion is asked about: of more, some are drawn, so that a round does not cost more with
#: every sample that was ever sent.
MOST_OPEN = 2000


class PseudoLeak(EdgeloopError):
    """A pseudo-label is about a sample that judges, or that somebody has labelled: a defect, and nothing is trained."""


def with_pseudo_labels(
    store: ObjectStore,
    tables: Tables,
    service: Service,
    dataset: str,
    champion: Mapping[str, str],
    backbone: Backbone | None,
    lesson: Lesson,
    seed: int,
) -> Lesson:
    """The lesson with what the champion says of unlabelled pool samples, and with weights.

    It is the same for the same arguments, whenever it is made: tables are read at the versions that the dataset's
    manifest names.

    Args:
        store: keeps manifests, blobs and features.
        tables: of the service.
        service: a classifier; its rules for pseudo-labels hold.
        dataset: name of the dataset version.
        champion: blob digests by role; an image champion's backbone is ``backbone``.
        backbone: makes the features that are learned from; None for rows.
        lesson: labelled samples.
        seed: of all draws.

    Raises:
        PseudoLeak: see there.
    """

    rules = service.labelling.pseudo
    most = most_pseudo(len(lesson.members), rules.share)
    open_rows = _open_rows(store, tables, service, dataset, backbone, seed) if most else []
    if not open_rows:
        return lesson
    ids = [r["sample_id"] for r in open_rows]
    labelled = [m.sample_id for m in lesson.members]
    points = _points(store, tables, service, backbone, [*labelled, *ids])
    with one_thread():
        labels, probabilities = _answers(store, service, champion, points[len(labelled) :])
        known = {label: place for place, label in enumerate(labels)}
        classes = np.asarray([known.get(m.label, -1) for m in lesson.members], dtype=np.int64)
        space = _comparable(service, points)
        fine = confirmed(probabilities, space[len(labelled) :], space[: len(labelled)], classes, rules)
    places, said = np.flatnonzero(fine), probabilities.argmax(axis=1)
    chosen = in_turns(said[places].tolist(), most, np.random.default_rng(seed))
    made = [_member(open_rows[at], labels[said[at]], service.name) for at in places[chosen].tolist()]
    return _joined(lesson, made, rules.weight)


def _joined(lesson: Lesson, made: Sequence[Member], weight: float) -> Lesson:
    known = {m.sample_id for m in lesson.members}
    wrong = [m.sample_id for m in made if m.split != "pool" or m.sample_id in known]
    if wrong:
        raise PseudoLeak(f"{len(wrong)} pseudo-labels, of {wrong[0]} for one, are not of open pool samples: report it")
    if not made:
        return lesson
    weights = np.concatenate([np.ones(len(lesson.members)), np.full(len(made), weight)])
    counts = {**lesson.counts, "pseudo": len(made)}
    return replace(lesson, members=[*lesson.members, *made], counts=counts, weights=weights)


def _member(row: Mapping[str, Any], label: str, service: str) -> Member:
    return Member(
        sample_id=row["sample_id"],
        label=label,
        source="pseudo",
        labelled_at=None,
        split=split_of(row["group"], service),
        selected_by=row["selected_by"],
    )


def _open_rows(
    store: ObjectStore, tables: Tables, service: Service, dataset: str, backbone: Backbone | None, seed: int
) -> list[dict[str, Any]]:
    """Accepted pool samples that nobody has ever labelled, at the versions of a dataset, by id; at most MOST_OPEN."""
    versions = load_dataset(store, service.name, dataset).tables

    def rows(name: str, columns: list[str]) -> list[dict[str, Any]]:
        return tables.read(name, columns, versions[name]) if versions[name] is not None else []

    accepted = {r["sample_id"] for r in rows("verdicts", ["sample_id", "accepted"]) if r["accepted"]}
    labelled = {r["sample_id"] for r in rows("labels", ["sample_id"])}
    found = {
        r["sample_id"]: r
        for r in rows("samples", ["sample_id", "group", "selected_by"])
        if split_of(r["group"], service.name) == "pool" and r["sample_id"] in accepted - labelled
    }
    names = sorted(found)
    if len(names) > MOST_OPEN:
        names = [names[i] for i in np.sort(np.random.default_rng(seed).choice(len(names), MOST_OPEN, replace=False))]
    faults = unusable(store, tables, names, backbone)
    return [found[name] for name in names if name not in faults]


def _points(
    store: ObjectStore, tables: Tables, service: Service, backbone: Backbone | None, ids: Sequence[str]
) -> NDArray[np.float32]:
    """What a model of the service takes of each sample, float32 [ids, features]."""
    if backbone is not None:
        return sample_features(store, tables, KnownSpace(backbone.digest, backbone.length), lambda: backbone, ids)
    each = tables.each("samples", ["sample_id", "payload"], one_of("sample_id", ids))
    found = {r["sample_id"]: decode_features(r["payload"], service.feature_names) for r in each}
    return np.stack([found[name] for name in ids])


def _answers(
    store: ObjectStore, service: Service, champion: Mapping[str, str], points: NDArray[np.float32]
) -> tuple[Sequence[str], NDArray[np.float64]]:
    """The champion's labels, and its probabilities of them, float64 [points, labels]."""
    if "head" in champion:
        head = read_head(store.get(blob_key(champion["head"])))
        return head.labels, head.probabilities(points)
    model = OnnxModel(store.get(blob_key(champion["model"])), service.feature_names, service.labels)
    return service.labels or [], row_probabilities(model, points)


def _comparable(service: Service, points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Points between which distances mean something: features of length 1, rows of mean 0 and deviation 1."""
    if service.image is not None:
        lengths = np.linalg.norm(points, axis=1, keepdims=True)
        return np.asarray(points / np.maximum(lengths, 1e-12), dtype=np.float32)
    spread = points.std(axis=0, dtype=np.float64)
    return np.asarray((points - points.mean(axis=0)) / np.where(spread > 0, spread, 1.0), dtype=np.float32)
