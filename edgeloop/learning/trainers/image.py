"""Image services: a head on frozen features, or a whole backbone trained first and a head on that."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import ClassVar

from edgeloop.clients.models import Backbone, read_backbone
from edgeloop.clients.objects import ObjectStore
from edgeloop.learning.blobs import sound_blob
from edgeloop.learning.full_round import train_backbone, training_folder
from edgeloop.learning.progress import counted
from edgeloop.learning.sample_features import sample_features
from edgeloop.learning.threads import one_thread
from edgeloop.learning.trainers.candidates import Base, load_candidate, put_blob
from edgeloop.learning.trainers.checks import check_features, check_labels
from edgeloop.learning.trainers.kinds import head_trainer
from edgeloop.learning.trainers.workshop import Material, RoundTrainer
from edgeloop.samples.records import digest
from edgeloop.samples.service import Service

_LOG = logging.getLogger(__name__)


class FrozenTrainer(RoundTrainer):
    """Mode ``head``: no backbone is trained."""

    mode: ClassVar[str] = "head"
    takes_inputs: ClassVar[bool] = False

    def space(self, base: Base | None) -> Backbone | None:
        """See :func:`frozen_backbone`."""
        return frozen_backbone(self.workshop.store, self.workshop.service, base)

    def layers(self, material: Material, base: Base | None, backbone: Backbone | None) -> dict[str, str]:
        """The backbone as it is, with what it was exported from where it was trained here, and a new head."""
        assert backbone is not None
        check_labels(material.truth, self.workshop.service.labels or [])
        head = self._head(material, backbone)
        return {"backbone": backbone.digest, **trained_source(base, backbone.digest), "head": head}

    def _head(self, material: Material, backbone: Backbone) -> str:
        work, count = self.workshop, len(material.rows)
        labels = work.service.labels or []
        work.progress(f"features of {count} samples")
        ids = [row["sample_id"] for row in material.rows]
        features = sample_features(
            work.store,
            work.tables,
            backbone,
            lambda: backbone,
            ids,
            lambda done, of: work.progress(counted("features", done, of)),
        )
        check_features(features, len(material.truth))
        work.progress(f"head on {count} samples")
        with one_thread():
            head = head_trainer(work.service.trainer).fit(features, material.truth, labels, material.weights, work.seed)
        return put_blob(work.store, head.to_bytes())


class FullTrainer(FrozenTrainer):
    """Mode ``full``: Xception is trained on these very images first."""

    mode: ClassVar[str] = "full"
    weighs: ClassVar[bool] = False
    takes_inputs: ClassVar[bool] = True

    def space(self, base: Base | None) -> Backbone | None:
        """None: images are needed."""
        return None

    def layers(self, material: Material, base: Base | None, backbone: Backbone | None) -> dict[str, str]:
        """A new backbone, as LiteRT and as Keras, and a head on it."""
        work = self.workshop
        check_labels(material.truth, work.service.labels or [])
        made = train_backbone(
            work.store,
            work.tables,
            work.service,
            material.rows,
            material.truth,
            base.layers.get("keras") if base else None,
            work.seed,
            training_folder(work.scratch, work.service.name, material.key),
            work.progress,
        )
        fresh = Backbone(sound_blob(work.store, made["backbone"]), made["backbone"])
        return {**made, "head": self._head(material, fresh)}


def frozen_backbone(store: ObjectStore, service: Service, base: Base | None) -> Backbone:
    """The file that ``trainer.backbone`` names, else the champion's backbone; that also where it was trained here, or
    where the file is gone.

    Raises:
        UnknownBackbone: there is no champion, and no such file, or it is no image feature extractor.
    """
    path = Path(str(service.trainer.backbone)).expanduser()
    if base is not None and not _is_changed(store, service, base, path):
        return Backbone(sound_blob(store, base.layers["backbone"]), base.layers["backbone"])
    backbone = read_backbone(path)
    put_blob(store, path.read_bytes())
    return backbone


def trained_source(base: Base | None, backbone: str) -> dict[str, str]:
    """Layer ``keras`` of the champion while the backbone is its: later training starts from it, and other precisions
    are made of it."""
    layers = base.layers if base else {}
    return {"keras": layers["keras"]} if "keras" in layers and layers.get("backbone") == backbone else {}


def _is_changed(store: ObjectStore, service: Service, base: Base, path: Path) -> bool:
    """Whether the service names another file than the champion's backbone was read from."""
    if path.suffix != ".tflite":
        return False
    if not path.is_file():
        _LOG.warning("%s of %s does not exist: the champion's backbone is used", path, service.name)
        return False
    return digest(path.read_bytes()) != base.layers["backbone"] and not _trained_here(store, service, base)


def _trained_here(store: ObjectStore, service: Service, base: Base) -> bool:
    """Whether a round of mode ``full`` made the champion's backbone: the file is what came before it."""
    step: Base | None = base
    while step and step.layers.get("backbone") == base.layers["backbone"]:
        made = load_candidate(store, service.name, step.key) if step.key else None
        if "keras" in step.layers or (made and made.mode == "full"):
            return True
        step = made.base if made else None
    return False
