"""A rollout over clusters for tests: fleet YAMLs, the real state and targets, and API servers in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeloop.clients.cluster import Cluster, UnknownContext
from edgeloop.clients.cluster_memory import MemoryCluster
from edgeloop.fleet.clusters import Clusters
from edgeloop.fleet.members import load_fleets
from edgeloop.fleet.rollout import RolloutStatus, tick
from edgeloop.fleet.rollouts.effects import Perform, in_turn
from edgeloop.release.images import Images
from edgeloop.samples.records import digest
from tests.unit.fleet.rollouts.world import LAST, NAMES, NEW, NEXT, OLD, World
from tests.unit.samples.make import regressor


def pushed(release: str) -> str:
    """Digest of the image that a release was pushed as."""
    return digest(f"image of {release}".encode())


class ClusterWorld(World):
    """A world whose rings are on clusters; ``controllers`` are what runs on those, and is called after every tick."""

    def __init__(
        self, folder: Path, fleet: str, clusters: Mapping[str, MemoryCluster], controllers: Callable[[], None]
    ) -> None:
        target = "kserve" if "kserve" in fleet else "kubeedge"
        strategy = {"target": target, "patience_seconds": 60, "soak_seconds": 0}
        super().__init__(regressor(rings=[0, 1], rollout=strategy), {})
        self.clusters, self._controllers = clusters, controllers
        self.perform: Perform = in_turn
        (folder / "f.yaml").write_text(fleet, encoding="utf-8")
        self.reach = Clusters(lambda: load_fleets([folder]), self._connect)
        self.images = Images(self.fleet.database)
        for release in (OLD, NEW, NEXT, LAST):
            self.images.add(self.service.name, release, "predictor", "registry.example.com/rater", pushed(release))

    def _connect(self, context: str, _kubeconfig: Path | None) -> Cluster:
        if context not in self.clusters:
            raise UnknownContext(f"the kubeconfig has no context {context!r}: name one of {', '.join(self.clusters)}")
        return self.clusters[context]

    def tick(self, seconds: float = 10.0, **_: Any) -> RolloutStatus | None:
        self.pass_time(seconds)
        found = tick(
            self.fleet,
            self.rings,
            self.broker,
            lambda _: self.service,
            self.at,
            targets=self.reach.target,
            images=self.images.of,
            perform=self.perform,
        )
        self._controllers()
        return found[-1] if found else None

    def run(self, seconds: float = 10.0, limit: int = 60) -> RolloutStatus:
        return super().run(seconds, limit)


def running(images: Sequence[str]) -> list[str]:
    """Which releases these images are of."""
    known = {pushed(release): name for release, name in NAMES.items()}
    return [known[image.split("@")[1]] for image in images]
