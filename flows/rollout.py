"""Rollout: tick the rollouts that are on their way, ring by ring. Safe to run as often as one likes."""

from __future__ import annotations

from prefect import flow

from edgeloop.fleet.rollout import RolloutStatus
from tasks.deploy import tick_rollouts


@flow(name="rollout")
async def rollout() -> list[RolloutStatus]:
    """Advance every open rollout, judging its rings by what their nodes say."""
    return tick_rollouts()
