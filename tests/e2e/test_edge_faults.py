"""A node under random faults while inputs flow: what it acknowledged arrives once, every request is answered, and
nothing is served that was not signed. ``EDGELOOP_FAULT_SEED`` chooses the schedule; the same seed gives the same."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.edge_faults.fleet import Fleet
from tests.e2e.edge_faults.run import arrived, leave, settle, strike, tried, violations
from tests.e2e.edge_faults.schedule import DECK, schedule
from tests.servers.ceph import S3Server

pytestmark = [pytest.mark.e2e, pytest.mark.s3]
SEED = int(os.environ.get("EDGELOOP_FAULT_SEED", "20250607"))


@pytest.fixture
def fleet(tmp_path: Path, s3_server: S3Server) -> Iterator[Fleet]:
    made = Fleet(tmp_path, s3_server)
    try:
        yield made
    finally:
        made.close()


def _suffer(fleet: Fleet, count: int) -> None:
    print(f"EDGELOOP_FAULT_SEED={SEED}, {count} faults, journal {fleet.journal.path}")
    fleet.start()
    found = strike(fleet, schedule(SEED, count)) or [*settle(fleet), *violations(fleet)]
    found = found or [*leave(fleet), *arrived(fleet)]
    tail = f"{fleet.journal.tail()}\n{fleet.node.log()[-3000:]}"
    assert not found, "\n".join([f"EDGELOOP_FAULT_SEED={SEED}", *found, tail])


def _was_tried(fleet: Fleet, count: int) -> None:
    """The faults have met the node: a run in which nothing happened proves nothing."""
    did = tried(fleet)
    print(did)
    assert did["asked"] > 15 * count
    assert did["acknowledged"] > did["asked"] // 4
    assert did["releases"] > count // 20
    assert did["tampered"] and did["starts"] > count // 8
    assert "refuse" in did


@pytest.mark.timeout(400)
def test_twenty_five_faults_lose_nothing(fleet: Fleet) -> None:
    _suffer(fleet, DECK)
    _was_tried(fleet, DECK)


@pytest.mark.timeout(1000)
def test_two_hundred_faults_lose_nothing(fleet: Fleet) -> None:
    _suffer(fleet, 200)
    _was_tried(fleet, 200)
    did = tried(fleet)
    assert did["refused"] and did["not captured"] and did["twice delivered"]
    assert {"down", "cut-request", "cut-before-answer", "cut-answer", "damage"} <= set(did)
