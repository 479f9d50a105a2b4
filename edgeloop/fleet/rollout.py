"""The rollout: a release goes ring by ring, each ring is judged by its nodes' own reports, and a bad one is taken back.

The state lives in SQL and a short idempotent ``tick`` moves it: whoever ticks, however often, and wherever the last
one was cut off, the next continues. Offline nodes are skipped; they read the channel when they return.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Literal

from pydantic import BaseModel

from edgeloop.clients.broker import Broker
from edgeloop.errors import BadInput, EdgeloopError
from edgeloop.fleet.channel import NotApproved, Rings, point_ring
from edgeloop.fleet.reports import collect_reports, is_online
from edgeloop.samples.records import Report, now
from edgeloop.samples.service import Service
from edgeloop.store import FleetStore

_log = logging.getLogger(__name__)
#: A ring whose online nodes have not all switched after this long is judged by those that have.
PATIENCE = timedelta(minutes=10)
#: With no node of the ring online for this long, the rollout goes on; they catch up when they return.
ABSENCE = timedelta(seconds=20)

State = Literal["moving", "done", "reverted", "superseded"]


class RolloutUnfinished(EdgeloopError):
    """A rollout did not end in the time allowed; it goes on with the next tick."""


class RolloutStatus(BaseModel):
    """Where a rollout stands."""

    service: str
    release: str
    former: str | None
    state: State
    wave: int
    """Index of the ring whose turn it is."""
    reason: str
    switched: int = 0
    """Online nodes of the ring that run the release."""
    online: int = 0


class Verdict(BaseModel):
    """What a ring's reports say of the release."""

    outcome: Literal["pass", "fail", "wait"]
    reason: str
    switched: int
    online: int


def start(fleet: FleetStore, channel: Rings, service: Service, release: str, reason: str) -> bool:
    """Begin to roll ``release`` out unless it is under way, done, or was taken back; return whether it began.

    The ledger says who promoted it: the gate, or a hand that moved the alias.
    """
    last = fleet.last_rollout(service.name)
    if last and last["digest"] == release and last["state"] in {"moving", "done", "reverted"}:
        return False
    version = fleet.version_of(service.name, release)
    judged = fleet.last_judged(service.name)
    by_gate = judged is not None and judged["verdict"] == "pass" and judged["version"] == version
    before = _good(channel, service, last)
    fleet.start_rollout(service.name, release, before, reason, who="gate" if by_gate else "alias")
    return True


def _good(channel: Rings, service: Service, last: dict[str, Any] | None) -> str | None:
    """The release to go back to; one that is still on its way was never judged and is not it."""
    if last and last["state"] == "moving":
        return str(last["former"]) if last["former"] else None
    former = channel.wanted(service.name, service.rings[0])
    return former.release if former else None


def judge(reports: Sequence[Report], release: str, since_seconds: float) -> Verdict:
    """Judge one ring by its reports: any refusal fails it, all online nodes switched passes it.

    Args:
        reports: newest report of each node of the ring.
        release: digest that the ring should run.
        since_seconds: how long the ring's turn has lasted.
    """
    online = [r for r in reports if is_online(r)]
    refused = [r for r in reports if r.refused == release]
    switched = [r for r in online if r.serving == release]

    def verdict(outcome: Literal["pass", "fail", "wait"], reason: str) -> Verdict:
        return Verdict(outcome=outcome, reason=reason, switched=len(switched), online=len(online))

    if refused:
        return verdict("fail", f"{refused[0].node} gave it up: {refused[0].last_error or 'no reason given'}")
    if online and len(switched) == len(online):
        return verdict("pass", f"{len(switched)} of {len(reports)} nodes serve it")
    if not online and since_seconds > ABSENCE.total_seconds():
        return verdict("pass", "no node of the ring is online; they catch up when they return")
    if switched and since_seconds > PATIENCE.total_seconds():
        return verdict("pass", f"{len(switched)} of {len(online)} online nodes serve it, the others are late")
    return verdict("wait", f"{len(switched)} of {len(online)} online nodes serve it")


def tick(fleet: FleetStore, channel: Rings, broker: Broker, services: Callable[[str], Service]) -> list[RolloutStatus]:
    """Advance every open rollout by at most one ring and say where each stands. Keeps the channel's signatures fresh.

    Raises:
        BrokerUnavailable, StoreUnavailable: nothing was decided; the next tick tries again.
    """
    channel.refresh()
    moving = fleet.open_rollouts()
    if not moving:
        return []
    reports = collect_reports(broker)
    found: list[RolloutStatus] = []
    for row in moving:
        try:
            service = services(row["service"])
        except BadInput as error:  # one service that cannot be read must not stop the others
            _log.error("rollout of %s waits: %s", row["service"], error)
            continue
        try:
            found.append(_advance(fleet, channel, broker, service, row, reports))
        except NotApproved as error:  # withdrawn on its way: it waits for a word, and says so
            _log.error("rollout of %s waits: %s", row["service"], error)
            fleet.update_rollout(row["id"], reason=str(error))
            found.append(describe_rollout(fleet, row["service"]))
    return found


def _advance(
    fleet: FleetStore, channel: Rings, broker: Broker, service: Service, row: dict[str, Any], reports: list[Report]
) -> RolloutStatus:
    ring = service.rings[min(row["wave"], len(service.rings) - 1)]
    point_ring(channel, broker, service.name, ring, row["digest"])
    mine = [r for r in reports if r.service == service.name and r.ring == ring]
    verdict = judge(mine, row["digest"], (now() - row["wave_since"]).total_seconds())
    if verdict.outcome == "fail":
        _revert(fleet, channel, broker, service, row, verdict.reason)
    elif verdict.outcome == "pass" and row["wave"] + 1 < len(service.rings):
        fleet.update_rollout(row["id"], wave=row["wave"] + 1, wave_since=now(), reason=f"ring {ring}: {verdict.reason}")
        point_ring(channel, broker, service.name, service.rings[row["wave"] + 1], row["digest"])
    elif verdict.outcome == "pass":
        fleet.update_rollout(row["id"], state="done", reason=f"ring {ring}: {verdict.reason}")
    return describe_rollout(fleet, service.name, verdict)


def _revert(
    fleet: FleetStore, channel: Rings, broker: Broker, service: Service, row: dict[str, Any], reason: str
) -> None:
    """Point every ring back at the former release; without one there is nothing to go back to."""
    if row["former"]:
        for ring in service.rings:
            point_ring(channel, broker, service.name, ring, row["former"])
    fleet.record(
        service.name,
        "revert",
        str(row["id"]),
        verdict="fail",
        reason=reason,
        who="rollout",
        version=fleet.version_of(service.name, row["former"]) if row["former"] else None,
        former=fleet.version_of(service.name, row["digest"]),
    )
    # Last: what is left of a revert that was cut off is done by the next tick.
    fleet.update_rollout(row["id"], state="reverted", reason=reason)


def describe_rollout(fleet: FleetStore, service: str, verdict: Verdict | None = None) -> RolloutStatus:
    """Status of a service's newest rollout.

    Raises:
        EdgeloopError: there never was one.
    """
    row = fleet.last_rollout(service)
    if row is None:
        raise EdgeloopError(f"{service} was never rolled out: promote a version first")
    return RolloutStatus(
        service=service,
        release=row["digest"],
        former=row["former"],
        state=row["state"],
        wave=row["wave"],
        reason=row["reason"],
        switched=verdict.switched if verdict else 0,
        online=verdict.online if verdict else 0,
    )


def run_to_end(
    step: Callable[[], RolloutStatus], timeout: float, progress: Callable[[RolloutStatus], None]
) -> RolloutStatus:
    """Tick until the rollout ends. The pause is for the nodes, which report when they have switched.

    Raises:
        RolloutUnfinished: it had not ended after ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        status = step()
        progress(status)
        if status.state != "moving":
            return status
        if time.monotonic() > deadline:
            raise RolloutUnfinished(
                f"rollout of {status.service} waits at ring index {status.wave} ({status.reason}); it goes on:"
                " see  edgeloop status"
            )
        time.sleep(0.05)
