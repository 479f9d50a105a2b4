"""What all modes of training share: the lesson is drawn and weighed here, and the candidate written down."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from edgeloop.clients.models import Backbone
from edgeloop.clients.objects import ObjectStore
from edgeloop.learning.leak import check_lesson
from edgeloop.learning.pool import Lesson, draw_lesson, sample_rows
from edgeloop.learning.progress import Progress
from edgeloop.learning.pseudo.lesson import with_pseudo_labels
from edgeloop.learning.trainers.candidates import Base, Candidate, round_key
from edgeloop.learning.trainers.weights import importance_weights
from edgeloop.samples.dataset import DatasetVersion
from edgeloop.samples.service import Service
from edgeloop.samples.table import Tables, one_of

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Workshop:
    """What a trainer works with."""

    store: ObjectStore
    tables: Tables
    service: Service
    seed: int
    progress: Progress
    scratch: Path | None = None
    """Where training that takes long keeps its state until the candidate is recorded; None keeps none."""


@dataclass(frozen=True)
class Material:
    """What a candidate is fitted on, one entry a sample."""

    key: str
    """Name of the candidate that it is for."""
    rows: list[dict[str, Any]]
    """Rows of the samples table; with their ids alone where no raw inputs are taken."""
    truth: list[str]
    weights: NDArray[np.float64] | None
    """How much each sample counts, float64 [samples] of mean one; None if all count the same."""


class RoundTrainer(ABC):
    """A trainer that learns from new pool samples and replay; what differs is how layers are made of them."""

    mode: ClassVar[str]
    weighs: ClassVar[bool] = True
    """Whether all that is fitted heeds weights; pseudo-labels are learned from nowhere else."""
    takes_inputs: ClassVar[bool] = True
    """Whether layers are made of raw inputs; features are found by the samples' ids."""

    def __init__(self, workshop: Workshop) -> None:
        self.workshop = workshop

    @abstractmethod
    def space(self, base: Base | None) -> Backbone | None:
        """The backbone whose features will be learned from; None where only raw inputs will do."""

    @abstractmethod
    def layers(self, material: Material, base: Base | None, backbone: Backbone | None) -> dict[str, str]:
        """Make the layers, store them, and return their digests by role."""

    def fit(self, dataset: DatasetVersion, base: Base | None) -> Candidate:
        """See ``Trainer``.

        Raises:
            NothingToLearn: the dataset has no labelled pool samples that this trainer can use.
            Leak: the lesson has a sample of a group that judges.
            BadInput: what there is cannot be learned from; the class and the message say why.
        """
        work, started = self.workshop, time.monotonic()
        service = work.service
        start = (base.start or base) if base else None
        backbone = self.space(start)
        former = start.dataset if start else None
        lesson = draw_lesson(work.store, work.tables, service, dataset, former, backbone, work.seed)
        if base and base.pseudo and self.weighs and (backbone is None or backbone.digest == base.layers["backbone"]):
            lesson = with_pseudo_labels(
                work.store, work.tables, service, dataset.id, base.layers, backbone, lesson, work.seed
            )
        for reason, count in lesson.left_out.items():
            work.progress(f"{count} pool samples are left out: {reason}")
        ids = [m.sample_id for m in lesson.members]
        check_lesson(work.tables, dataset, ids, lesson.dataset_members)
        found = sample_rows(work.tables, ids) if self.takes_inputs else {name: {"sample_id": name} for name in ids}
        rows = [found[name] for name in ids]
        key = round_key(service, dataset.id, base, self.mode, work.seed)
        material = Material(key, rows, [m.label for m in lesson.members], _weights(work.tables, service, ids, lesson))
        layers = self.layers(material, start, backbone)
        return Candidate(
            key=key,
            service=service.name,
            mode=self.mode,
            dataset=dataset.id,
            base=base,
            seed=work.seed,
            layers=layers,
            trained_on=lesson.counts,
            left_out=lesson.left_out,
            seconds=time.monotonic() - started,
        )


def selection_weights(tables: Tables, service: Service, ids: list[str]) -> NDArray[np.float64] | None:
    """Importance weights of samples if the service asks for them, float64 [ids]."""
    if not service.trainer.importance:
        return None
    rows = tables.read("samples", ["sample_id", "selection_probability"], where=one_of("sample_id", ids))
    chance = {row["sample_id"]: row["selection_probability"] for row in rows}
    return importance_weights(np.asarray([chance[name] for name in ids], dtype=np.float64))


def _weights(tables: Tables, service: Service, ids: list[str], lesson: Lesson) -> NDArray[np.float64] | None:
    """Weights of selection times those of the lesson, float64 [ids].

    A pseudo-label is selected like the mean labelled sample: one that hardly any node sends must not outweigh labels.
    """
    selected = selection_weights(tables, service, ids)
    if selected is None or lesson.weights is None:
        return lesson.weights if selected is None else selected
    pseudo = np.asarray([m.source == "pseudo" for m in lesson.members])
    return np.where(pseudo, selected[~pseudo].mean(), selected) * lesson.weights
