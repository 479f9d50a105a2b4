"""What a rollout would do, in words, before anything is begun."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field

from edgeloop.errors import BadInput, Unavailable
from edgeloop.fleet.channel import Rings
from edgeloop.fleet.rollouts.batches import reach
from edgeloop.fleet.rollouts.checks import check_strategy
from edgeloop.fleet.rollouts.effects import Refs
from edgeloop.fleet.rollouts.roster import Roster
from edgeloop.fleet.rollouts.standing import former_of, freeze, what_stands
from edgeloop.fleet.rollouts.state_store import StateStore
from edgeloop.fleet.rollouts.states import View
from edgeloop.fleet.rollouts.windows import opens
from edgeloop.fleet.targets.protocol import Next, Target, Wave
from edgeloop.samples.cohorts import EVERYONE
from edgeloop.samples.records import now
from edgeloop.samples.service import Service
from edgeloop.samples.strategy import Window
from edgeloop.store import FleetStore


class UnknownVersion(BadInput):
    """No release was made of this version."""


class RingPlan(BaseModel):
    """What one ring would go through."""

    ring: int
    nodes: int
    """That were heard of."""
    stands: str | None
    """Release that it runs now."""
    batches: list[int]
    """Nodes that have switched after each batch."""
    soak_seconds: float
    approve: bool
    windows: list[str]
    """When batches may begin; empty for always."""
    opens: datetime | None = None
    """From when on a batch may begin, as things are now; None for now, or where there is no window."""
    changes: list[str] = Field(default_factory=list)
    """What would change on the ring's clusters."""
    warnings: list[str] = Field(default_factory=list)
    """What will not go as it should there."""


class RolloutPlan(BaseModel):
    """What a rollout would do."""

    service: str
    release: str
    version: str | None = None
    """Model version of the release."""
    former: str | None
    former_version: str | None = None
    target: str
    rings: list[RingPlan]

    def text(self) -> str:
        """For a terminal."""
        coming = release_text(self.version, self.release)
        before = "a first release," if self.former is None else f"{release_text(self.former_version, self.former)} ->"
        lines = [f"{self.service}: {before} {coming} on {self.target}"]
        for ring in self.rings:
            lines.append(_line(ring, self.release, "sites" if self.target == "kserve" else "nodes"))
            lines += [f"  {change}" for change in ring.changes] + [f"  warning: {text}" for text in ring.warnings]
        return "\n".join(lines)


def release_text(version: str | None, release: str, digits: int = 12) -> str:
    """A release for a terminal: its model version, where that is known, and so many digits of its digest."""
    shown = release.removeprefix("sha256:")[:digits]
    return shown if version is None else f"version {version} ({shown})"


def release_named(fleet: FleetStore, service: str, version: str) -> str:
    """Digest of the newest release of a version.

    Raises:
        UnknownVersion: none was made of it.
    """
    found = fleet.release_of(service, version)
    if found is None:
        raise UnknownVersion(
            f"no release was made of version {version!r} of {service}: if MLflow has it, set the alias champion to it"
        )
    return found


def plan_rollout(fleet: FleetStore, channel: Rings, service: Service, version: str | None) -> RolloutPlan:
    """What a rollout of a version, else of the newest release, would do. Writes nothing.

    Raises:
        UnknownVersion: there is no such release.
        BadInput: the strategy cannot be followed.
    """
    at = now()
    check_strategy(service, at)
    store = StateStore(fleet.database)
    release = release_named(fleet, service.name, version) if version else _newest(fleet, channel, service.name)
    stands = what_stands(store, channel, service.name, service.rings)
    former = former_of(store, service.name, release, stands)
    view = freeze(service, release, "", "", stands, former)
    counts = Roster(fleet.database).rings(service.name, at)
    rings = [_ring(view, ring.ring, counts.get(ring.ring, 0), at) for ring in view.rings]
    return RolloutPlan(
        service=service.name,
        release=release,
        version=fleet.version_of(service.name, release),
        former=former,
        former_version=fleet.version_of(service.name, former) if former else None,
        target=view.strategy.target,
        rings=rings,
    )


def _newest(fleet: FleetStore, channel: Rings, service: str) -> str:
    """The newest release that may run, else the newest."""
    made = [release for _, release in fleet.released(service)]
    if not made:
        raise UnknownVersion(f"{service} has no release: set the alias champion to a version of it in MLflow")
    return next((release for release in made if channel.allowed(service, release)), made[0])


def _ring(view: View, number: int, nodes: int, at: datetime) -> RingPlan:
    windows = view.windows(number)
    opening = opens(windows, at) if windows else None
    ring = next(one for one in view.rings if one.ring == number)
    return RingPlan(
        ring=number,
        nodes=nodes,
        stands=ring.stands,
        batches=[nodes] if view.is_direct(ring) else _reaches(view.batches(number), nodes),
        soak_seconds=view.soak_seconds(number),
        approve=view.step(number).approve,
        windows=[_window(one) for one in windows],
        opens=opening if opening is not None and opening > at else None,
    )


def _window(one: Window) -> str:
    days = one.date.isoformat() if one.date else ",".join(one.days) or "every day"
    return f"{days} {one.begin:%H:%M}-{one.end:%H:%M} {one.zone}"


def with_changes(plan: RolloutPlan, target: Target, refs: Refs) -> RolloutPlan:
    """A plan with what its target would change, ring by ring. Reads only.

    Raises:
        BadInput, FieldConflict, ClusterDenied, ForeignObject: the target would refuse.
    """
    rings = [_changing(plan, ring, target, refs) for ring in plan.rings]
    return plan.model_copy(update={"rings": rings})


def _changing(plan: RolloutPlan, ring: RingPlan, target: Target, refs: Refs) -> RingPlan:
    coming = Next(refs(plan.service, plan.release), "", EVERYONE)
    wave = Wave(plan.service, ring.ring, refs(plan.service, ring.stands) if ring.stands else None, coming)
    try:
        diff, seen = target.plan(wave), target.observe(wave)
    except Unavailable as error:
        return ring.model_copy(update={"warnings": [str(error)]})
    found: dict[str, object] = {"changes": list(diff.lines), "warnings": list(diff.warnings)}
    if seen is not None:
        found |= {"nodes": seen.nodes, "batches": [seen.nodes]}
    return ring.model_copy(update=found)


def _reaches(batches: list[int | float], nodes: int) -> list[int]:
    found = [reach(batches, 0, nodes)]
    while found[-1] < nodes:
        found.append(reach(batches, found[-1], nodes))
    return found


def _line(ring: RingPlan, release: str, word: str) -> str:
    steps = [f"ring {ring.ring}: {ring.nodes} {word.removesuffix('s') if ring.nodes == 1 else word}"]
    if ring.stands == release:
        steps.append("runs it already")
    if len(ring.batches) > 1:
        steps.append(f"in {len(ring.batches)} batches, up to {', '.join(map(str, ring.batches))} of them")
    if ring.approve:
        steps.append("after a word")
    if ring.windows:
        steps.append(f"within {' or '.join(ring.windows)}")
    if ring.opens:
        steps.append(f"not before {ring.opens:%Y-%m-%d %H:%M} UTC")
    if ring.soak_seconds:
        steps.append(f"soaks {ring.soak_seconds:g} s")
    return ", ".join(steps)
