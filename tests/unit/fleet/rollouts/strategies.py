"""Worlds whose service has the strategy that a test names, and what their ledger says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from typing import Any

import pytest

from tests.unit.fleet.rollouts.world import OLD, World
from tests.unit.samples.make import regressor

Make = Callable[..., World]
SIX = {"a": 0, "b": 0, "c": 1, "d": 1, "e": 1, "f": 1}


@pytest.fixture
def make() -> Iterator[Make]:
    """Worlds on OLD whose service then has this strategy."""
    with ExitStack() as stack:

        def new(nodes: dict[str, int] | None = None, at: datetime | None = None, **strategy: Any) -> World:
            rings = sorted(set((nodes or SIX).values()))
            world = World(regressor(rings=rings), nodes or SIX)
            stack.callback(world.close)
            world.at = at or world.at
            world.delivered(OLD)
            world.service = regressor(rings=rings, rollout=strategy)
            return world

        yield new


def events(world: World) -> list[tuple[str, str]]:
    """What the ledger says besides promotions and ends, the oldest first."""
    rows = [(r["event"], r["who"]) for r in reversed(world.fleet.history("rater"))]
    return [row for row in rows if row[0] not in {"promotion", "done"}]
