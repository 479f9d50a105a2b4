"""What all fleet YAMLs say together, and whether a service's rollout fits it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from edgeloop.errors import BadInput
from edgeloop.fleet.places import KServePlace, KubeEdgePlace
from edgeloop.fleet.rings import FleetPlan, OverlappingRings, may_share, named_in, read_fleet
from edgeloop.fleet.rollouts.effects import NoTarget
from edgeloop.fleet.targets.kubeedge_manifests import marks
from edgeloop.samples.service import Service


class NodeInTwoFleets(BadInput):
    """Two fleet YAMLs name the same node; the message names both."""


class TargetInTwoFleets(BadInput):
    """Two fleet YAMLs say where the same target is."""


class RingNotInFleet(BadInput):
    """A ring that a service names is in no fleet, or has no place in the service's target."""


@dataclass(frozen=True)
class Fleets:
    """All fleets, by the file that each is from."""

    plans: Mapping[Path, FleetPlan]
    folders: tuple[Path, ...] = ()

    def kubeedge(self) -> tuple[FleetPlan, KubeEdgePlace]:
        """The fleet on KubeEdge and where that is, its rings selected by their labels; raises NoTarget."""
        for plan in self.plans.values():
            if (place := plan.targets.kubeedge) is not None:
                labels = {ring: members.all_labels for ring, members in plan.rings.items() if members.all_labels}
                return plan, place.model_copy(update={"options": replace(place.options, ring_labels=labels)})
        raise self._unplaced("kubeedge")

    def kserve(self) -> tuple[FleetPlan, KServePlace]:
        """The fleet of sites with KServe and which those are; raises NoTarget."""
        for plan in self.plans.values():
            if plan.targets.kserve is not None:
                return plan, plan.targets.kserve
        raise self._unplaced("kserve")

    def check(self, service: Service, heard: Collection[int] = ()) -> None:
        """Refuse a service whose rings have no place.

        Args:
            heard: rings that nodes were heard in; they need no YAML.

        Raises:
            RingNotInFleet: a ring is in no fleet; without any fleet YAML nodes alone say what rings there are.
            NoTarget: no fleet says where the service's target is.
            OverlappingRings: a node of the cluster may have the labels of two of the rings.
        """
        name = service.rollout.target
        if name == "kserve":
            found, where = set(self.kserve()[1].sites), "targets.kserve.sites has"
        elif name == "kubeedge":
            found, where = self.kubeedge()[0].known_rings, "the fleet has"
        else:
            found = {ring for plan in self.plans.values() for ring in plan.known_rings} | set(heard)
            where = "fleets have"
        lacking = [ring for ring in service.rings if ring not in found]
        if lacking and (self.plans or name != "agent"):
            known = ", ".join(map(str, sorted(found))) or "none"
            raise RingNotInFleet(
                f"{service.name}: rings names ring {lacking[0]}, {where} {known}: add it to the fleet's YAML,"
                " or leave it out of the service's"
            )
        if name == "kubeedge":
            self._refuse_overlaps(service)

    def _refuse_overlaps(self, service: Service) -> None:
        """Of rings as the cluster knows them: one without labels of its own has that of its number."""
        options = self.kubeedge()[1].options
        asked = [(ring, marks(ring, options)) for ring in service.rings]
        for (one, first), (other, second) in combinations(asked, 2):
            if may_share(first, second):
                both = ", ".join(f"{label}={value}" for label, value in (first | second).items())
                raise OverlappingRings(
                    f"{service.name}: rings {one} and {other} overlap on kubeedge, a node may have {both}: give both"
                    " labels in the fleet's YAML, with different values of one label"
                )

    def _unplaced(self, name: str) -> NoTarget:
        where = self.folders[0] if self.folders else "fleets"
        return NoTarget(f"no fleet says where target {name} is: add targets.{name} to a YAML in {where}")


def load_fleet(name: str, folders: list[Path]) -> FleetPlan:
    """The fleet ``NAME.yaml`` of the first of ``folders`` that has it.

    Raises:
        MalformedFleet, OverlappingRings, EmptyRing: as :func:`~edgeloop.fleet.rings.read_fleet`.
        NodeInTwoFleets: another fleet names one of its nodes.
    """
    paths = _paths(folders)
    path = paths.get(name, folders[-1] / f"{name}.yaml")
    plan = read_fleet(path)
    for other in paths.values():
        if other != path:
            _refuse_shared(path, plan.known_nodes, other, named_in(other))
    return plan


def load_fleets(folders: list[Path]) -> Fleets:
    """All fleets; of two files of one name that of the first folder counts.

    Raises:
        MalformedFleet, OverlappingRings, EmptyRing: as :func:`~edgeloop.fleet.rings.read_fleet`.
        NodeInTwoFleets, TargetInTwoFleets: two fleets cannot both be followed.
    """
    plans = {path: read_fleet(path) for path in _paths(folders).values()}
    for (path, plan), (other, second) in combinations(plans.items(), 2):
        _refuse_shared(path, plan.known_nodes, other, second.known_nodes)
        for name in ("kubeedge", "kserve"):
            if getattr(plan.targets, name) and getattr(second.targets, name):
                raise TargetInTwoFleets(f"target {name} is in fleet {path} and in fleet {other}: keep it in one")
    return Fleets(plans, tuple(folders))


def _paths(folders: list[Path]) -> dict[str, Path]:
    found = {path.stem: path for folder in reversed(folders) for path in folder.glob("*.yaml")}
    return dict(sorted(found.items()))


def _refuse_shared(path: Path, nodes: set[str], other: Path, others: set[str]) -> None:
    twice = sorted(nodes & others)
    if twice:
        raise NodeInTwoFleets(f"{twice[0]} is in fleet {path} and in fleet {other}: name it in one of them")
