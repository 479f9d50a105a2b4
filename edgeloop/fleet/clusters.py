"""Targets that are clusters, made of what the fleet YAMLs say; nothing is connected before a rollout asks for it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cache
from pathlib import Path

from edgeloop.clients.cluster import Cluster
from edgeloop.fleet.members import Fleets
from edgeloop.fleet.places import KServePlace, KubeEdgePlace
from edgeloop.fleet.rollouts.effects import NoTarget
from edgeloop.fleet.targets.kserve import KServeTarget
from edgeloop.fleet.targets.kubeedge import KubeEdgeTarget
from edgeloop.fleet.targets.pods import image
from edgeloop.fleet.targets.protocol import ReleaseRef, Target
from edgeloop.samples.service import Service

#: A cluster by its context and, if one is named, the kubeconfig.
Connect = Callable[[str, Path | None], Cluster]


class Clusters:
    """The targets of all fleets, each made once."""

    def __init__(self, fleets: Callable[[], Fleets], connect: Connect) -> None:
        self._fleets = fleets
        self._connect = connect
        self._made: dict[str, Target] = {}

    def target(self, name: str) -> Target:
        """The target of this name.

        Raises:
            NoTarget: no fleet says where it is.
            UnknownContext: the kubeconfig lacks its context; of a site, that is said when the site is asked.
            MissingExtra: the client is not installed.
        """
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def _make(self, name: str) -> Target:
        if name == "kubeedge":
            place = self._fleets().kubeedge()[1]
            return KubeEdgeTarget(self._cluster(place, place.context), place.options)
        if name == "kserve":
            sites = self._fleets().kserve()[1]
            return KServeTarget(cache(lambda site: self._cluster(sites, site)), sites.sites, sites.options)
        raise NoTarget(f"target {name!r} is no cluster: nodes that follow the channel need no target")

    def _cluster(self, place: KubeEdgePlace | KServePlace, context: str) -> Cluster:
        return self._connect(context, place.kubeconfig.expanduser() if place.kubeconfig else None)

    def check(self, service: Service, release: ReleaseRef, heard: Collection[int] = ()) -> None:
        """Whether a release of a service can be brought to where its rings are; asks no cluster.

        Args:
            heard: rings that nodes were heard in.

        Raises:
            BadInput: fleets contradict one another, a ring has no place, a context is unknown, or the release was not
                pushed as the image that runs there.
        """
        fleets = self._fleets()
        fleets.check(service, heard)
        if service.rollout.target == "kubeedge":
            self.target("kubeedge")
            image(release, fleets.kubeedge()[1].options.image, service.name)
        elif service.rollout.target == "kserve":
            place = fleets.kserve()[1]
            self.target("kserve")
            for site in sorted({site for ring in service.rings for site in place.sites[ring]}):
                self._cluster(place, site)
            image(release, place.options.image, service.name)
