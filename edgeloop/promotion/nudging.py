"""Asks for one run of the flow `release`, and again when the run was dropped because another one was under way."""

from __future__ import annotations

import time
from collections.abc import Callable

from edgeloop.clients.orchestrator import Orchestrator, RunUnfinished

_DEPLOYMENT = "release/release"


def nudge(
    orchestrator: Orchestrator,
    service: str,
    tries: int = 5,
    patience: float = 20.0,
    pause: Callable[[float], None] = time.sleep,
) -> bool:
    """Let the reconciler look at ``service``; False when every run was dropped, and the next poll has to do.

    Args:
        tries: runs to ask for.
        patience: seconds in which a run that is to be dropped is.

    Raises:
        OrchestratorUnavailable, UnknownDeployment: nobody could be asked.
    """
    for attempt in range(tries):
        run = orchestrator.run(_DEPLOYMENT, {"service": service})
        try:
            if orchestrator.wait(run, patience).state != "Cancelled":
                return True
        except RunUnfinished:
            return True
        if attempt + 1 < tries:
            # The one under way may have looked at this service before the alias moved.
            pause(2.0 + attempt)
    return False
