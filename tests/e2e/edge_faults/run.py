"""A run: the schedule's steps in time, the invariants between them, and what must hold when all is over."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime

from tests.e2e.edge_faults.fleet import Fleet
from tests.e2e.edge_faults.ledger import some, wrong_answers, wrong_rows
from tests.e2e.edge_faults.schedule import Fault, steps
from tests.e2e.edge_faults.strikes import do


def strike(fleet: Fleet, faults: Sequence[Fault]) -> list[str]:
    """Do every step when it is due, or as soon after as can be; returns the violations seen, and ends at the first."""
    behind = 0.0
    started = time.monotonic()
    for step in steps(faults):
        due = started + behind + step.at
        time.sleep(max(0.0, due - time.monotonic()))  # the schedule's own clock: there is no condition to wait for
        do(fleet, step)
        behind += max(0.0, time.monotonic() - due - 0.1)  # what took long moves the rest, and keeps their distances
        if found := violations(fleet):
            return found
    return []


def violations(fleet: Fleet) -> list[str]:
    """What is wrong by now, whatever is still on its way."""
    factors = dict(fleet.publisher.factors)
    gave_up = fleet.node.gave_up()
    found = [gave_up] if gave_up else []
    return found + some(wrong_answers(fleet.ledger.asked(), factors)) + some(fleet.ledger.strange())


def settle(fleet: Fleet, seconds: float = 60) -> list[str]:
    """After the last fault: nothing new is asked, all answers come, the last release serves and the spool is empty."""
    for device in (*fleet.sensors, fleet.caller):
        device.stop()
    fleet.publisher.good()
    if not fleet.publisher.finish(seconds):
        return ["the publisher did not finish"]
    fleet.nudge()
    last = fleet.publisher.latest
    assert last is not None
    late = [
        fleet.wait("an answer to every request", lambda: not fleet.ledger.unanswered(), seconds),
        fleet.wait("the node is ready", lambda: fleet.node.get("/readyz")[0] == 200, seconds),
        fleet.wait("the last release serves", lambda: fleet.report().get("serving") == last.digest, seconds),
        fleet.wait("an empty spool", lambda: _flushed(fleet), seconds),
    ]
    fleet.journal.write("settled", report=fleet.report(), unanswered=fleet.waiting())
    return [what for what in late if what]


def _flushed(fleet: Fleet) -> bool:
    asked = time.time()
    fleet.flush()
    fleet.wait("a new report", lambda: _at(fleet) > asked, 3)
    return _at(fleet) > asked and fleet.report().get("spool_samples") == 0


def _at(fleet: Fleet) -> float:
    at = fleet.report().get("at")
    return datetime.fromisoformat(at).timestamp() if at else 0.0


def leave(fleet: Fleet) -> list[str]:
    """The node says that it is well, and goes when it is asked to."""
    report = fleet.report()
    found = [f"the node refuses {report['refused']}"] if report.get("refused") else []
    found += [] if report.get("accepting", True) else ["the node captures nothing"]
    code = fleet.node.terminate()
    return found + ([f"the node ended with {code} when it was asked to"] if code else [])


def tried(fleet: Fleet) -> dict[str, int]:
    """How much has happened: a run in which nothing did proves nothing."""
    asked = fleet.ledger.asked()
    answers = [told for one in asked.values() for told in one.told]
    log = fleet.node.log()
    return {
        "asked": len(asked),
        "answers": len(answers),
        "acknowledged": sum(any(told.captured for told in one.told) for one in asked.values()),
        "releases": len({told.model for told in answers if str(told.model).startswith("sha256:")}),
        "refused": log.count('"a release is refused"'),
        "tampered": len(fleet.publisher.tampered),
        "starts": fleet.node.starts,
        "not captured": log.count('"not captured"'),
        "sent again": sum(device.resent for device in fleet.sensors) + fleet.caller.again.total(),
        "twice delivered": fleet.cloud.duplicates,
        **fleet.link_to_store.hits,
    }


def arrived(fleet: Fleet) -> list[str]:
    """What is wrong with the samples table in the end."""
    fleet.cloud.stop()
    rows = fleet.cloud.rows()
    asked = fleet.ledger.asked()
    fleet.journal.write("arrived", rows=len(rows), **tried(fleet))
    found = some(wrong_rows(asked, rows, fleet.publisher.factors))
    quarantined = [f"quarantined: {row['reason']}" for row in fleet.cloud.quarantined()]
    return found + some(quarantined)
