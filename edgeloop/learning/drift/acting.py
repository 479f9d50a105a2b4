"""What follows from a finding: a retrain is asked for, once, and the ledger says why. The gate decides, as ever.

The run is asked for first, under a key made of the watch, and the ledger's row is written second: whoever is cut off
between the two asks again for the same run.
"""

from __future__ import annotations

from edgeloop.clients.orchestrator import Orchestrator
from edgeloop.learning.drift.finding import Finding
from edgeloop.learning.drift.kept import WatchState
from edgeloop.samples.records import digest, hexdigest
from edgeloop.store import FleetStore

EVENT = "drift"
#: The flow that gathers what waits, trains, judges and delivers; its slot makes a second run wait.
DEPLOYMENT = "loop/loop"
_LONGEST_REASON = 200


def entry_key(state: WatchState, finding: Finding) -> str:
    """Key of the ledger row of a finding."""
    return f"{state.watch}-{hexdigest(digest(finding.quantity.encode()))[:16]}"


def cause(finding: Finding) -> str:
    """What a retrain is asked for once a watch: that something moved, and that answers became worse."""
    return "accuracy" if finding.kind == "accuracy" else "shift"


def act(fleet: FleetStore, orchestrator: Orchestrator, state: WatchState) -> list[str]:
    """Ask for a retrain because of each finding that the ledger does not have yet; return the runs, each once.

    Many columns that move are one cause: they lead to one run. Safe to call again, whenever it was cut off.

    Raises:
        OrchestratorUnavailable, DatabaseUnavailable: call again.
        UnknownDeployment: the flows are not registered.
    """
    asked: list[str] = []
    for finding in state.findings:
        key = entry_key(state, finding)
        if fleet.entry(state.service, EVENT, key):
            continue
        run = orchestrator.run(
            DEPLOYMENT,
            {"service": state.service, "reason": f"drift: {finding.reason}"[:_LONGEST_REASON]},
            idempotency_key=f"drift-{state.service}-{state.watch}-{cause(finding)}",
        )
        fleet.record(
            state.service,
            EVENT,
            key,
            verdict="found",
            reason=f"{finding.reason}; asked for run {run}",
            version=state.champion,
            dataset=state.dataset,
            who="drift",
        )
        asked.append(run)
    return list(dict.fromkeys(asked))
