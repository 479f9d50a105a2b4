"""The rollout as other rooms use it; what it is made of is in ``rollouts``."""

from __future__ import annotations

from edgeloop.fleet.rollouts.commands import abort, approve, pause, resume, revert, start, stop
from edgeloop.fleet.rollouts.rollback import rollback
from edgeloop.fleet.rollouts.status import (
    RingStatus,
    RolloutStatus,
    RolloutUnfinished,
    describe_rollout,
    run_to_end,
)
from edgeloop.fleet.rollouts.tick import tick

__all__ = [
    "RingStatus",
    "RolloutStatus",
    "RolloutUnfinished",
    "abort",
    "approve",
    "describe_rollout",
    "pause",
    "resume",
    "revert",
    "rollback",
    "run_to_end",
    "start",
    "stop",
    "tick",
]
