"""What training makes, and how it is named: by what it was made from, so that a cut-off round finds it again."""

from __future__ import annotations

import json
from typing import Any, Protocol

from pydantic import BaseModel

from edgeloop.clients.objects import ObjectStore
from edgeloop.samples.dataset import DatasetVersion
from edgeloop.samples.records import canonical, digest, hexdigest
from edgeloop.samples.releases import blob_key
from edgeloop.samples.service import Service

#: What every version of a service must be told apart by; a change of the trainers' own code changes it too.
_RECIPE = 2


class Base(BaseModel):
    """The champion that a round starts from."""

    version: str
    dataset: str
    layers: dict[str, str]
    """Blob digest by role."""
    key: str | None = None
    """Name of the candidate that it was."""
    start: Base | None = None
    """Where training starts instead, after a reset: the last champion that learned from no pseudo-labels."""
    pseudo: bool = False
    """Whether this round may learn from labels that this champion gives, see ``edgeloop.learning.pseudo``."""


class Candidate(BaseModel):
    """What training made; the bytes are blobs in the object store."""

    key: str
    service: str
    mode: str
    dataset: str
    base: Base | None
    seed: int
    layers: dict[str, str]
    """Blob digest by role: ``backbone`` and ``head``, or ``model`` and ``pipeline``; ``keras`` after ``full``."""
    trained_on: dict[str, int]
    """Samples used: ``new`` since the champion's dataset, ``replay`` from it."""
    left_out: dict[str, int] = {}
    """Pool samples that this model could not learn from, by the reason."""
    seconds: float


class Trainer(Protocol):
    """What stands behind every mode of training: made for one service, store and seed, see ``Workshop``."""

    def fit(self, dataset: DatasetVersion, base: Base | None) -> Candidate:
        """Make a candidate from the pool of ``dataset``, starting from ``base`` or, if None, from scratch.

        The same dataset version, base, service and seed give the same layers, on any number of threads.
        """
        ...


def round_key(service: Service, dataset: str, base: Base | None, mode: str, seed: int) -> str:
    """Name of the candidate that these inputs make."""
    recipe = service.model_dump(mode="json", include={"trainer", "labels", "features", "image"})
    version = base.version if base else None
    return digest(
        canonical([_RECIPE, service.name, dataset, version, mode, seed, recipe, *_pseudo_part(service, base)])
    )


def _pseudo_part(service: Service, base: Base | None) -> list[Any]:
    """What pseudo-labels add to the name of a candidate: nothing where there are none and were none."""
    if base is None or not (base.start or base.pseudo):
        return []
    rules = service.labelling.pseudo.model_dump(mode="json") if base.pseudo else None
    return [base.start.version if base.start else None, rules]


def candidate_key(service: str, key: str) -> str:
    """Object key of a candidate's record."""
    return f"candidates/{service}/{hexdigest(key)}.json"


def load_candidate(store: ObjectStore, service: str, key: str) -> Candidate | None:
    """The candidate of this name, if it was made before."""
    where = candidate_key(service, key)
    return None if store.size(where) is None else Candidate.model_validate(json.loads(store.get(where)))


def put_blob(store: ObjectStore, data: bytes) -> str:
    """Store bytes under their digest, once, and return it."""
    name = digest(data)
    store.create(blob_key(name), data)
    return name
