"""What stands between the alias and the fleet, for whoever is to say yes or no. It shows; the word is a command."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgeloop.clients.objects import ObjectStore
from edgeloop.errors import EdgeloopError
from edgeloop.promotion.kept import Promotions
from edgeloop.promotion.records import Promotion
from edgeloop.release.optimise.measured import Measured
from edgeloop.store import FleetStore
from edgeloop.twin.kept import Rehearsal, Rehearsals, load_report
from edgeloop.twin.show import rows

#: States in which a promotion has not reached ring 0 yet.
_BEFORE = ("building", "rehearsing", "waiting", "signing")


def waiting(fleet: FleetStore, store: ObjectStore, services: Sequence[str]) -> list[dict[str, Any]]:
    """The promotions that have not begun their rollout, JSON-able, by service.

    Args:
        store: has the reports of the digital twin.

    Returns:
        ``service``, ``version``, ``former``, ``release``, ``state``, ``reason``, ``who``, ``since``; ``gate``: what the
        gate said of the version, if it did; ``approvals``; ``variants``: figures by hardware profile; ``twin``: what
        was found on the digital twin, by profile, with the report's ``figures`` (what, found, asked for), ``reasons``
        and ``notes``; ``commands``.
    """
    kept = Promotions(fleet.database)
    found = [kept.current(name) for name in services]
    return [_shown(fleet, store, kept, one) for one in found if one is not None and one.state in _BEFORE]


def _shown(fleet: FleetStore, store: ObjectStore, kept: Promotions, one: Promotion) -> dict[str, Any]:
    judged = fleet.events(one.service, "gate", one.version)
    figures = Measured(fleet.database).of_release(one.release) if one.release else []
    words = kept.words(one)
    return {
        **{name: getattr(one, name) for name in ("service", "version", "former", "release", "state", "reason", "who")},
        "since": one.at.isoformat(),
        "gate": {"verdict": judged[0]["verdict"], "reason": judged[0]["reason"]} if judged else None,
        "approvals": [{"who": word.who, "reason": word.reason, "at": word.at.isoformat()} for word in words],
        "variants": [figure.model_dump(mode="json") for figure in figures],
        "twin": [{**found.model_dump(mode="json"), **_reported(store, found)} for found in _rehearsed(fleet, one)],
        "commands": _commands(one),
    }


def _rehearsed(fleet: FleetStore, one: Promotion) -> list[Rehearsal]:
    return Rehearsals(fleet.database).of_release(one.release) if one.release else []


def _reported(store: ObjectStore, found: Rehearsal) -> dict[str, Any]:
    """What the report says; why it cannot be read where it cannot, for the outcome stands all the same."""
    try:
        report = load_report(store, found.report)
    except EdgeloopError as error:
        return {"figures": [], "reasons": [str(error)], "notes": []}
    return {"figures": rows(report), "reasons": report.reasons, "notes": report.notes}


def _commands(one: Promotion) -> list[str]:
    said = [f'edgeloop release reject {one.service} --reason "…"']
    if one.state == "signing" and one.release:
        return [f"edgeloop release sign {one.service} {one.release}", *said]
    if one.state == "waiting":
        return [f"edgeloop release approve {one.service} --version {one.version}", *said]
    return said
