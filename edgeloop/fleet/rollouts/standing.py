"""How a rollout begins: with the strategy as it is now, at what the rings run now."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from edgeloop.errors import BadInput
from edgeloop.fleet.channel import Rings
from edgeloop.fleet.rollouts.state_store import StateStore, states
from edgeloop.fleet.rollouts.states import RingView, View, began, desired
from edgeloop.samples.service import Service
from edgeloop.store import FleetStore
from edgeloop.store.tables import rollouts

_log = logging.getLogger(__name__)


def freeze(service: Service, release: str, why: str, who: str, stands: dict[int, str], former: str | None) -> View:
    """A rollout of ``release`` as the service's YAML says now; later changes of it are for the next one."""
    return View(
        rollout=0,
        service=service.name,
        release=release,
        former=former,
        reason=why,
        rings=tuple(RingView(ring=ring, stands=stands.get(ring)) for ring in service.rings),
        strategy=service.rollout,
        salt="",
        who=who,
        why=why,
    )


def what_stands(store: StateStore, channel: Rings, service: str, rings: Iterable[int]) -> dict[int, str]:
    """What each ring should run now: by the last rollout, and where that says nothing by the channel."""
    found = by_last_rollout(store, service)
    for ring in rings:
        record = None if ring in found else channel.wanted(service, ring)
        if record is not None:
            found[ring] = record.release
    return found


def by_last_rollout(store: StateStore, service: str) -> dict[int, str]:
    """What the last rollout that began wishes each ring to run."""
    last = next(iter(store.standing(service)), None)
    return {ring: to.release for ring, to in desired(last.view).items()} if last else {}


def former_of(store: StateStore, service: str, release: str, stands: dict[int, str]) -> str | None:
    """The newest release that was rolled out to the end; one that was on its way was never judged and is not it.

    None when that is ``release`` itself: there is nothing better to go back to.
    """
    good = store.good(service)
    if not good and store.row(service) is None:
        good = list(stands.values())[:1]  # the rollouts are lost, the channel is not
    return good[0] if good and good[0] != release else None


def within_the_hour(store: StateStore, view: View) -> View:
    """``view``, counting the nodes that the rollout before it told to switch: an hour does not begin with a release."""
    last = next(iter(store.standing(view.service)), None)
    return view.model_copy(update={"touches": last.view.touches}) if last else view


def at_its_turn(store: StateStore, view: View) -> View:
    """A queued rollout, begun at what the one before it left behind."""
    before = {ring.ring: ring.stands for ring in view.rings if ring.stands} | by_last_rollout(store, view.service)
    return within_the_hour(store, began(view, before, former_of(store, view.service, view.release, before)))


def adopt(fleet: FleetStore, store: StateStore, services: Callable[[str], Service], at: datetime) -> None:
    """Give rollouts that were under way before their state was kept whole such a state."""
    known = sa.select(states.c.rollout)
    old = sa.select(rollouts).where(rollouts.c.state == "moving", rollouts.c.id.not_in(known))
    for row in fleet.database.all(old):
        try:
            service = services(row["service"])
        except BadInput as error:  # one service that cannot be read must not stop the others
            _log.error("rollout of %s waits: %s", row["service"], error)
            continue
        view = _adopted(service, row)
        fleet.database.insert(
            states, rollout=row["id"], service=view.service, slot=1, begun=True, turn=0, view=view.model_dump_json()
        )


def _adopted(service: Service, row: dict[str, Any]) -> View:
    former = row["former"]
    view = freeze(service, row["digest"], row["reason"], "unknown", dict.fromkeys(service.rings, former), former)
    passed = {"state": "passed", "below": "f" * 16, "ended_at": row["wave_since"]}
    rings = tuple(ring.model_copy(update=passed) if n < row["wave"] else ring for n, ring in enumerate(view.rings))
    return view.model_copy(update={"rollout": row["id"], "salt": f"{service.name}-{row['id']}", "rings": rings})
