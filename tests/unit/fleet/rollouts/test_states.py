"""The state of a rollout has one writer at a time, outlives its process, and is read as earlier versions wrote it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from edgeloop.fleet.rollouts.lease import LEASE, lease
from edgeloop.fleet.rollouts.standing import freeze
from edgeloop.fleet.rollouts.state_store import StateStore
from edgeloop.store import FleetStore
from edgeloop.store.tables import rollouts
from tests.unit.fleet.rollouts.strategies import Make, make
from tests.unit.fleet.rollouts.world import NEW, OLD, of_day
from tests.unit.samples.make import regressor

__all__ = ["make"]


def test_of_two_who_decided_on_the_same_state_one_writes(make: Make) -> None:
    world = make()
    world.start(NEW)
    [saved] = world.store.open()
    for expected in (True, False):
        changed = saved.view.model_copy(update={"reason": f"{expected}"})
        assert world.store.save(saved, changed, (), world.at) is expected
    assert world.view().reason == "True"


def test_a_lease_is_free_again_in_time(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    database = make().fleet.database
    at = of_day(1)
    with lease(database, "x", at) as mine:
        assert mine
        monkeypatch.setattr("edgeloop.fleet.rollouts.lease.os.getpid", lambda: 1)
        for seconds, free in ((0, False), (LEASE.total_seconds() - 1, False), (LEASE.total_seconds(), True)):
            with lease(database, "x", at + timedelta(seconds=seconds)) as other:
                assert other is free


def test_a_rollout_of_before_there_were_states_goes_on(make: Make) -> None:
    world = make()
    values = {"service": "rater", "digest": NEW, "former": OLD, "state": "moving", "wave": 1, "reason": "why"}
    world.fleet.database.insert(rollouts, **values, wave_since=world.at, at=world.at)
    assert world.run().state == "done"
    assert world.channel_says() == ["new", "new"]
    assert world.status().former == OLD


def test_states_are_kept_as_they_were(tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path / 'fleet.db'}"
    fleet = FleetStore(url)
    service = regressor(rings=[0], rollout={"windows": [{"from": "01:00", "to": "02:00", "zone": "UTC"}]})
    made = StateStore(fleet.database).begin(freeze(service, NEW, "why", "ann", {0: OLD}, OLD), of_day(3))
    fleet.close()
    again = FleetStore(url)
    [saved] = StateStore(again.database).open()
    assert saved.view == made
    assert [row["name"] for row in again.database.all(_tables())]
    again.close()


def _tables() -> sa.Select[Any]:
    return sa.select(sa.column("name")).select_from(sa.table("sqlite_master"))
