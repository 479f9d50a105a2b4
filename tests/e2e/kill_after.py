"""Run the loop in this process and kill it with SIGKILL the moment a stage has ended: the exact boundary.

``python -m tests.e2e.kill_after SERVICE STAGE``, against the stack that the environment names.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import flows.ingest
import flows.loop
import flows.retrain

#: Where the loop looks a stage's task up.
STAGES: dict[str, tuple[Any, str]] = {
    "ingest": (flows.ingest, "ingest_segments"),
    "validate": (flows.ingest, "validate_samples"),
    "plan": (flows.retrain, "plan_retrain"),
    "train": (flows.retrain, "train_candidate"),
    "evaluate": (flows.retrain, "evaluate_candidate"),
    "register": (flows.retrain, "register_candidate"),
    "promote": (flows.retrain, "promote_candidate"),
    "release": (flows.loop, "release_service"),
    "rollout": (flows.loop, "finish_rollout"),
}


def die_after(stage: str) -> None:
    """Make the task of ``stage`` the last thing that this process does."""
    module, name = STAGES[stage]
    task: Callable[..., Any] = getattr(module, name)

    def last(*arguments: Any, **words: Any) -> None:
        task(*arguments, **words)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(module, name, last)


if __name__ == "__main__":
    die_after(sys.argv[2])
    asyncio.run(flows.loop.loop(service=sys.argv[1], reason=f"killed after {sys.argv[2]}"))
