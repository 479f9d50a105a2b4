"""The two models of a round as the gate loads them: every blob checked against its name, each model loaded once.

A store loses or damages bytes at times. The gate then cannot judge, which is not the candidate's fault and no reason to
move the champion: the error says which blob of which model it is, and what to do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.clients.models import (
    Backbone,
    Head,
    ImageModel,
    Model,
    OnnxModel,
    UnknownBackbone,
    UnloadableModel,
    read_head,
)
from edgeloop.clients.objects import ObjectStore
from edgeloop.errors import EdgeloopError
from edgeloop.learning.blobs import DamagedBlob, sound_blob
from edgeloop.learning.features import KnownSpace, features_of
from edgeloop.learning.pool import sample_rows
from edgeloop.learning.sample_features import sample_features
from edgeloop.learning.train import Base, Candidate
from edgeloop.samples.dataset import UnknownDataset, load_dataset
from edgeloop.samples.service import Service
from edgeloop.samples.table import Tables

if TYPE_CHECKING:
    from numpy.typing import NDArray


class DamagedModel(EdgeloopError):
    """A packaged model cannot be loaded; ``blob`` names the bytes that are at fault, if it is they."""

    def __init__(self, message: str, blob: str | None = None) -> None:
        super().__init__(message)
        self.blob = blob


class DamagedChampion(DamagedModel):
    """The champion cannot be loaded: nothing can be compared with it."""


class DamagedCandidate(DamagedModel):
    """The candidate cannot be loaded: there is nothing to judge."""


@dataclass(frozen=True)
class Packaged:
    """A packaged model, loaded from its blobs."""

    layers: Mapping[str, str]
    """Blob digest by role."""
    model: Model
    backbone: Backbone | None = None
    head: Head | None = None

    @property
    def space(self) -> KnownSpace | None:
        """The features that it takes; None where it takes raw inputs only."""
        return None if self.backbone is None else KnownSpace(self.backbone.digest, self.backbone.length)


@dataclass(frozen=True)
class Pair:
    """The candidate, and the champion that it is compared with."""

    candidate: Packaged
    champion: Packaged | None


def load_packaged(
    store: ObjectStore, service: Service, layers: Mapping[str, str], known: Packaged | None = None
) -> Packaged:
    """Load a packaged model; a backbone that ``known`` has loaded already is not loaded again.

    Raises:
        DamagedBlob: see :func:`sound_blob`.
        UnloadableModel: a layer is not named, does not load, or knows labels that the service has not.
        UnknownBackbone: the backbone is no image feature extractor.
    """
    wanted = ("backbone", "head") if service.kind == "image-classifier" else ("model",)
    lacking = [role for role in wanted if role not in layers]
    if lacking:
        raise UnloadableModel(f"it names no layer {' and no '.join(lacking)}")
    if service.kind != "image-classifier":
        content = sound_blob(store, layers["model"])
        return Packaged(layers, OnnxModel(content, service.feature_names, service.labels))
    head = read_head(sound_blob(store, layers["head"]))
    unknown = sorted({*head.labels} - {*(service.labels or [])})
    if unknown:
        raise UnloadableModel(f"its head knows the labels {unknown}, which {service.name} has not")
    name = layers["backbone"]
    shared = known.backbone if known and known.layers.get("backbone") == name else None
    backbone = shared or Backbone(sound_blob(store, name), name)
    if head.width != backbone.length:
        raise UnloadableModel(f"its head takes {head.width} features, its backbone gives {backbone.length}")
    return Packaged(layers, ImageModel(backbone, head), backbone, head)


def load_pair(store: ObjectStore, service: Service, candidate: Candidate) -> Pair:
    """Load the candidate, and the champion that it was made from.

    Raises:
        DamagedChampion, DamagedCandidate: one cannot be loaded.
    """
    champion = load_champion(store, service, candidate.base) if candidate.base else None
    with candidate_damage(service, candidate):
        return Pair(load_packaged(store, service, candidate.layers, champion), champion)


def load_champion(store: ObjectStore, service: Service, base: Base) -> Packaged:
    """Load the champion.

    Raises:
        DamagedChampion: it cannot be loaded.
    """
    with champion_damage(service, base):
        return load_packaged(store, service, base.layers)


def check_champion(store: ObjectStore, service: Service, base: Base, mode: str) -> None:
    """See that a round can start from the champion, or from the former one that it is reset to: each loads, its
    dataset is known, and what ``mode`` starts from is there.

    Raises:
        DamagedChampion: it cannot.
    """
    for one in (base, base.start):
        if one is None:
            continue
        with champion_damage(service, one):
            load_packaged(store, service, one.layers)
            load_dataset(store, service.name, one.dataset)
            if mode == "full" and "keras" in one.layers:
                sound_blob(store, one.layers["keras"])
            if mode == "sklearn" and service.trainer.incremental and "pipeline" in one.layers:
                sound_blob(store, one.layers["pipeline"])


@contextmanager
def champion_damage(service: Service, base: Base) -> Iterator[None]:
    """Say of what is wrong inside that it is the champion's."""
    try:
        yield
    except (DamagedBlob, UnloadableModel, UnknownBackbone, UnknownDataset) as error:
        blob = error.name if isinstance(error, DamagedBlob) else None
        named = ", ".join(f"{role} {name}" for role, name in sorted(base.layers.items())) or "none"
        mend = "put the bytes back under that name" if blob else f"mend what is named (its blobs: {named})"
        raise DamagedChampion(
            f"champion version {base.version} of {service.name} cannot be loaded ({error}): {mend},"
            " or set the alias champion to another version, then run again",
            blob,
        ) from error


@contextmanager
def candidate_damage(service: Service, candidate: Candidate) -> Iterator[None]:
    """Say of what is wrong inside that it is the candidate's."""
    try:
        yield
    except (DamagedBlob, UnloadableModel, UnknownBackbone) as error:
        blob = error.name if isinstance(error, DamagedBlob) else None
        then = "run again, it is made anew" if blob else "train with another seed or trainer"
        raise DamagedCandidate(
            f"candidate {candidate.key} of {service.name} cannot be loaded ({error}): {then}", blob
        ) from error


def answers(
    store: ObjectStore, service: Service, packaged: Packaged, rows: list[dict[str, Any]]
) -> NDArray[np.float64]:
    """Answers to sample rows: float64 [rows]; the number of the label, or the value.

    Raises:
        MissingFeatures: a row has no raw input, and no features that this model can take.
    """
    if not rows:
        return np.zeros(0)
    if packaged.backbone is None or packaged.head is None:
        return encode_truth(service, [packaged.model.predict(r["payload"]).prediction for r in rows])
    return of_features(service, packaged.head, features_of(store, packaged.backbone, rows))


def sample_answers(
    store: ObjectStore, tables: Tables, service: Service, models: Sequence[Packaged], ids: Sequence[str]
) -> list[NDArray[np.float64]]:
    """:func:`answers` of each of ``models`` to samples by their ids, float64 [samples]. Heads need no rows that have
    features, and those on one backbone take them from one reading."""
    features: dict[str, NDArray[np.float32]] = {}

    def one(packaged: Packaged) -> NDArray[np.float64]:
        backbone = packaged.backbone
        if backbone is None or packaged.head is None or not ids:
            rows = sample_rows(tables, ids) if ids else {}
            return answers(store, service, packaged, [rows[name] for name in ids])
        if backbone.digest not in features:
            features[backbone.digest] = sample_features(store, tables, backbone, lambda: backbone, ids)
        return of_features(service, packaged.head, features[backbone.digest])

    return [one(packaged) for packaged in models]


def of_features(service: Service, head: Head, features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Numbers of the labels that ``head`` answers to features [rows, features]: float64 [rows]."""
    order = np.asarray([(service.labels or []).index(label) for label in head.labels])
    return np.asarray(order[head.probabilities(features).argmax(axis=1)], dtype=np.float64)


def encode_truth(service: Service, labels: list[str]) -> NDArray[np.float64]:
    """Labels as numbers: their place in the service's list, or their value. float64 [labels]."""
    if service.is_classifier:
        known = service.labels or []
        return np.asarray([known.index(label) for label in labels], dtype=np.float64)
    return np.asarray([float(label) for label in labels], dtype=np.float64)
