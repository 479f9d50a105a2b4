"""Make a candidate from a dataset version: which trainer a round needs, and that it trains once.

A candidate is a record and blobs in the object store, named by what it was made from, so that a round that was cut
off finds it again instead of training twice. It starts from the champion or from scratch, never from a candidate
that the gate refused. The trainers are in ``edgeloop.learning.trainers``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from edgeloop.clients.objects import ObjectStore
from edgeloop.errors import BadInput
from edgeloop.learning.full_round import forget_training, training_folder
from edgeloop.learning.pool import sample_rows
from edgeloop.learning.progress import Progress
from edgeloop.learning.trainers.candidates import (
    Base,
    Candidate,
    Trainer,
    candidate_key,
    load_candidate,
    put_blob,
    round_key,
)
from edgeloop.learning.trainers.image import FrozenTrainer, FullTrainer
from edgeloop.learning.trainers.table import PipelineTrainer
from edgeloop.learning.trainers.workshop import Workshop
from edgeloop.samples.dataset import DatasetVersion
from edgeloop.samples.records import canonical
from edgeloop.samples.service import Service
from edgeloop.samples.table import Tables

__all__ = [
    "TRAINERS",
    "Base",
    "Candidate",
    "Mode",
    "Progress",
    "Trainer",
    "Workshop",
    "candidate_key",
    "choose_mode",
    "load_candidate",
    "put_blob",
    "round_key",
    "sample_rows",
    "train",
]
Mode = Literal["auto", "head", "full", "sklearn"]
#: What makes the trainer of each mode but ``auto``; the kinds of head are a table of their own, in ``kinds``.
TRAINERS: dict[str, Callable[[Workshop], Trainer]] = {
    "head": FrozenTrainer,
    "full": FullTrainer,
    "sklearn": PipelineTrainer,
}


def choose_mode(service: Service, mode: Mode, base: Base | None) -> str:
    """Resolve ``auto``: pipelines are scikit-learn's; images get a head, after one full training of ``xception``.

    Raises:
        BadInput: the mode does not fit the kind of service.
    """
    if service.kind != "image-classifier":
        if mode in {"auto", "sklearn"}:
            return "sklearn"
        raise BadInput(f"mode {mode} is for images, {service.name} is {service.kind}: use auto or sklearn")
    if mode == "sklearn":
        raise BadInput(
            f"mode sklearn is for tabular services, {service.name} is {service.kind}: use auto, head or full"
        )
    if mode != "auto":
        return mode
    has_backbone = base is not None or str(service.trainer.backbone).endswith(".tflite")
    return "head" if has_backbone else "full"


def train(
    store: ObjectStore,
    tables: Tables,
    service: Service,
    dataset: DatasetVersion,
    base: Base | None,
    mode: str,
    seed: int,
    progress: Progress = lambda _: None,
    scratch: Path | None = None,
) -> Candidate:
    """Make the candidate for ``dataset``, or return it if it was made already.

    ``scratch`` is a folder where a training that takes long keeps its state until the candidate is recorded.

    Raises:
        NothingToLearn: the dataset has no labelled pool samples that this mode can use.
        TrainingFailed: the training process of ``mode: full`` died.
        BadInput: what there is cannot be learned from; the class and the message say why.
    """
    key = round_key(service, dataset.id, base, mode, seed)
    candidate = load_candidate(store, service.name, key)
    if candidate is None:
        candidate = TRAINERS[mode](Workshop(store, tables, service, seed, progress, scratch)).fit(dataset, base)
        store.create(candidate_key(service.name, key), canonical(candidate.model_dump(mode="json")))
    forget_training(training_folder(scratch, service.name, key))
    return candidate
