"""Image services: a head on frozen features, or a whole backbone trained first and a head on that."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from edgeloop.clients.models import Backbone, read_backbone
from edgeloop.clients.objects import ObjectStore
from edgeloop.learning.full_round import train_backbone, training_folder
from edgeloop.learning.progress import counted
from edgeloop.learning.sample_features import sample_features
from edgeloop.learning.trainers.candidates import Base, put_blob
from edgeloop.learning.trainers.checks import check_features, check_labels
from edgeloop.learning.trainers.kinds import head_trainer
from edgeloop.learning.trainers.workshop import Material, RoundTrainer, one_thread
from edgeloop.samples.releases import blob_key
from edgeloop.samples.service import Service


class FrozenTrainer(RoundTrainer):
    """Mode ``head``: the champion's backbone stays as it is."""

    mode: ClassVar[str] = "head"
    takes_inputs: ClassVar[bool] = False

    def space(self, base: Base | None) -> Backbone | None:
        """The champion's backbone, or the file that the service names."""
        return frozen_backbone(self.workshop.store, self.workshop.service, base)

    def layers(self, material: Material, base: Base | None, backbone: Backbone | None) -> dict[str, str]:
        """The backbone as it was, and a new head."""
        assert backbone is not None
        check_labels(material.truth, self.workshop.service.labels or [])
        return {"backbone": backbone.digest, "head": self._head(material, backbone)}

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
        fresh = Backbone(work.store.get(blob_key(made["backbone"])), made["backbone"])
        return {**made, "head": self._head(material, fresh)}


def frozen_backbone(store: ObjectStore, service: Service, base: Base | None) -> Backbone:
    """The champion's backbone, else the file that ``trainer.backbone`` names."""
    if base is not None:
        return Backbone(store.get(blob_key(base.layers["backbone"])), base.layers["backbone"])
    path = Path(str(service.trainer.backbone)).expanduser()
    backbone = read_backbone(path)
    put_blob(store, path.read_bytes())
    return backbone
