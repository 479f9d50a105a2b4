"""Where every rollout stands, for a person: what it does, what it waits for, who agreed, and what to type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgeloop.fleet.rollouts.moves import held
from edgeloop.fleet.rollouts.roster import Roster
from edgeloop.fleet.rollouts.state_store import StateStore
from edgeloop.fleet.rollouts.states import TERMINAL, RingView, View
from edgeloop.fleet.rollouts.status import dropped_text, ring_status
from edgeloop.promotion.kept import Promotions
from edgeloop.release.optimise.measured import Measured
from edgeloop.store import FleetStore, describe

#: Rows of the ledger that are shown for each service.
ROWS = 6
_WAITS = {
    "": "its nodes",
    "approval": "a person who lets the ring switch",
    "window": "its maintenance window",
    "rate": "the hourly limit",
    "soak": "the soak time of the ring",
    "pause": "the person who paused it",
    "turn": "the rollout before it",
    "person": "a person, to go on or to take it back",
}


def rollouts(fleet: FleetStore, services: Sequence[str]) -> list[dict[str, Any]]:
    """The newest rollout of each service that had one, and before it the one that it waits for; JSON-able.

    One that was dropped before its turn is only named, in ``dropped`` of the one before it.
    """
    store = StateStore(fleet.database)
    waits = held(fleet)
    found: list[dict[str, Any]] = []
    for service in services:
        active, queued = store.opened(service)
        told, dropped = store.told(service)
        views = [one.view for one in (active or told, queued if active else None) if one is not None]
        moves = [why for _, why in waits if f"rollout of {service} " in why]
        found += [_shown(fleet, view, moves if view is views[0] else [], dropped_text(dropped)) for view in views]
    return found


def ledger(fleet: FleetStore, services: Sequence[str]) -> list[dict[str, Any]]:
    """The newest rows of every service, the newest first."""
    found = [row for service in services for row in fleet.history(service, ROWS)]
    names = ("service", "at", "event", "verdict", "version", "who", "reason")
    return describe([{name: row[name] for name in names} for row in sorted(found, key=_number, reverse=True)])


def _number(row: dict[str, Any]) -> int:
    return int(row["id"])


def _shown(fleet: FleetStore, view: View, moves: list[str], dropped: str) -> dict[str, Any]:
    sizes = Roster(fleet.database).rings(view.service)
    return {
        **{name: getattr(view, name) for name in ("service", "rollout", "release", "former", "state", "who", "why")},
        "version": fleet.version_of(view.service, view.release),
        "former_version": fleet.version_of(view.service, view.former) if view.former else None,
        "reason": view.reason if view.state == "reverting" else view.cause or view.reason,
        "target": view.strategy.target,
        "waits": _waits(view),
        "next_look": view.next_look.isoformat() if view.next_look else None,
        "rings": [_ring(view, ring, sizes.get(ring.ring, 0)) for ring in view.rings],
        "approvals": _approvals(fleet, view),
        "moves": moves,
        "dropped": dropped,
        "variants": [one.model_dump(mode="json") for one in Measured(fleet.database).of_release(view.release)],
        "commands": _commands(view),
    }


def _waits(view: View) -> str | None:
    if view.state in TERMINAL:
        return None
    if view.waits == "pause":
        return f"{view.paused_by}, who paused it"
    return "every ring to be back" if view.state == "reverting" else _WAITS[view.waits]


def _ring(view: View, ring: RingView, size: int) -> dict[str, Any]:
    """Counts of the last look; before its turn, ``nodes`` that were heard of in it."""
    names = ("ring", "state", "batch", "online", "switched", "failed")
    asks = view.step(ring.ring).approve and not ring.approved_by and view.state != "reverting"
    told = ring_status(view, ring)
    return {**{name: getattr(told, name) for name in names}, "nodes": ring.nodes or size, "asks": asks}


def _approvals(fleet: FleetStore, view: View) -> list[dict[str, str]]:
    """Who agreed to what: to the release before ring 0, and to single rings."""
    kept = Promotions(fleet.database)
    promotion = kept.newest_with(view.service, view.release)
    words = kept.words(promotion) if promotion else ()
    found = [{"who": word.who, "what": "the release"} for word in words if word.verdict == "approve"]
    return found + [{"who": who, "what": f"ring {ring.ring}"} for ring in view.rings for who in ring.approved_by]


def _commands(view: View) -> list[str]:
    """What a person may want to type now, the likeliest first."""
    name, why = view.service, '--reason "…"'
    if view.state in TERMINAL:
        return [f"edgeloop rollback {name} {why}"] if view.state == "done" and view.former else []
    if view.state == "reverting":
        return [f"edgeloop fleet list --service {name}"]
    if view.state == "queued":
        return [f"edgeloop rollout status {name}"]
    first = f"edgeloop rollout pause {name}"
    if view.waits == "approval":
        first = f"edgeloop rollout approve {name} --ring {view.current.ring}"
    elif view.paused_by or view.state == "holding":
        first = f"edgeloop rollout resume {name}"
    return [first, f"edgeloop rollout revert {name} {why}"]
