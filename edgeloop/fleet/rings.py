"""Which node is in which ring: one YAML per fleet. A service says in which order they get a release."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edgeloop.errors import BadInput
from edgeloop.fleet.places import Places

Ring = Annotated[int, Field(ge=0)]
#: The label that ``zone`` is short for, as Kubernetes names it.
ZONE = "topology.kubernetes.io/zone"


class MalformedFleet(BadInput):
    """A fleet YAML cannot be used; the message names the file and the field."""


class OverlappingRings(MalformedFleet):
    """A node is in two rings, or may be."""


class EmptyRing(BadInput):
    """A ring that a fleet YAML names has no node."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Marks(_Strict):
    """What is known of a node, or asked of the nodes of a ring."""

    zone: str | None = None
    """Short for the label ``topology.kubernetes.io/zone``."""
    labels: dict[str, str] = Field(default_factory=dict)

    @property
    def all_labels(self) -> dict[str, str]:
        """Labels with the zone among them."""
        return {**self.labels, **({ZONE: self.zone} if self.zone is not None else {})}


class Members(Marks):
    """Who is in a ring: nodes by name, and all nodes that have the labels. A list is short for names."""

    nodes: list[str] = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return {"nodes": value} if isinstance(value, list) else value

    def has(self, node: str, labels: Mapping[str, str]) -> bool:
        """Whether a node of this name and these labels is one of them."""
        wanted = self.all_labels
        return node in self.nodes or bool(wanted and wanted.items() <= labels.items())


class FleetPlan(_Strict):
    """One fleet YAML. Version 1 has names of nodes only."""

    version: Literal[1, 2]
    name: str
    rings: dict[Ring, Members]
    """Members by ring."""
    otherwise: Ring
    """Ring of every node that is in none of ``rings``."""
    nodes: dict[str, Marks] = Field(default_factory=dict)
    """Labels of nodes, by name."""
    targets: Places = Places()
    """Clusters that rings run on."""

    @model_validator(mode="before")
    @classmethod
    def _of_version_1(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("version") == 1:
            newer = [name for name in ("nodes", "targets") if name in value]
            rings = value.get("rings")
            if isinstance(rings, dict) and not all(isinstance(members, list) for members in rings.values()):
                newer.append("rings by labels")
            if newer:
                raise ValueError(f"version 1 has no {newer[0]}: set version to 2")
        return value

    def ring_of(self, node: str) -> int:
        """The ring that ``node`` is in."""
        return next(iter(self.rings_of(node)), self.otherwise)

    def rings_of(self, node: str) -> list[int]:
        """All rings whose members ``node`` is among; in a fleet that was loaded at most one."""
        labels = self.nodes[node].all_labels if node in self.nodes else {}
        return [ring for ring, members in self.rings.items() if members.has(node, labels)]

    @property
    def known_nodes(self) -> set[str]:
        """Nodes that it names."""
        return {*self.nodes, *(node for members in self.rings.values() for node in members.nodes)}

    @property
    def known_rings(self) -> set[int]:
        """Rings that it names."""
        return {*self.rings, self.otherwise, *(self.targets.kserve.sites if self.targets.kserve else ())}


def named_in(path: Path) -> set[str]:
    """Nodes that a fleet names; one that cannot be read is nobody's business here."""
    try:
        return _parsed(path).known_nodes
    except BadInput:
        return set()


def read_fleet(path: Path) -> FleetPlan:
    """Read a fleet YAML by itself.

    Raises:
        MalformedFleet: it cannot be read or does not parse.
        OverlappingRings: a node is in two rings, or a node with the labels of two rings would be.
        EmptyRing: a ring that it names has no node; leave it out, nodes that are not named are in ``otherwise``.
    """
    plan = _parsed(path)
    refuse_overlaps(path, plan)
    for ring in sorted(plan.rings):
        if _is_empty(plan, ring):
            raise EmptyRing(f"fleet {path}: ring {ring} has no node: name one or leave the ring out")
    return plan


def _parsed(path: Path) -> FleetPlan:
    try:
        return FleetPlan.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise MalformedFleet(
            f"fleet {path} cannot be read ({error.strerror}): add it or choose another --fleet"
        ) from error
    except yaml.YAMLError as error:
        raise MalformedFleet(f"fleet {path} is not YAML ({' '.join(str(error).split())[:200]}): mend it") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "fleet"
        raise MalformedFleet(f"fleet {path}: field {field}: {first['msg']}: mend it") from error
    except BadInput as error:  # options of a target that contradict one another
        raise MalformedFleet(f"fleet {path}: targets: {error}") from error


def refuse_overlaps(path: Path, plan: FleetPlan) -> None:
    """Refuse a node that is, or that some labels would put, in two rings; raises OverlappingRings."""
    for node in sorted(plan.known_nodes):
        found = plan.rings_of(node)
        if len(found) > 1:
            raise OverlappingRings(
                f"fleet {path}: {node} is in two rings, {found[0]} and {found[1]}: let one of them have it"
            )
    for ring, members in plan.rings.items():
        if len(set(members.nodes)) < len(members.nodes):
            twice = next(node for node in members.nodes if members.nodes.count(node) > 1)
            raise OverlappingRings(f"fleet {path}: ring {ring} names {twice} twice: name each node once")
    asked = [(ring, members.all_labels) for ring, members in plan.rings.items() if members.all_labels]
    for (one, first), (other, second) in combinations(asked, 2):
        if may_share(first, second):
            raise OverlappingRings(
                f"fleet {path}: rings {one} and {other} overlap, a node may have the labels of both: give them"
                " different values of one label"
            )


def may_share(first: Mapping[str, str], second: Mapping[str, str]) -> bool:
    """Whether one node may have the labels of both."""
    return not any(second.get(label, value) != value for label, value in first.items())


def _is_empty(plan: FleetPlan, ring: int) -> bool:
    """Whether nobody is in a ring; on a cluster only its labels say who is."""
    members = plan.rings[ring]
    if ring == plan.otherwise or members.nodes or (plan.targets.kubeedge and members.all_labels):
        return False
    if plan.targets.kserve and plan.targets.kserve.sites.get(ring):
        return False
    return not any(ring in plan.rings_of(node) for node in plan.nodes)
