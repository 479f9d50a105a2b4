"""A lease on ticking, so that two ticks rarely do the same work twice; what is right does not depend on it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

import sqlalchemy as sa

from edgeloop.fleet.rollouts.state_store import leases
from edgeloop.store.database import Database

#: A tick that was cut off holds the others up for as long at most.
LEASE = timedelta(seconds=5)


@contextmanager
def lease(database: Database, name: str, at: datetime) -> Iterator[bool]:
    """Whether this process may tick now: nobody else does, or began so long ago that it is gone."""
    owner = f"{socket.gethostname()[:40]}:{os.getpid()}"
    got = _take(database, name, owner, at)
    try:
        yield got
    finally:
        if got:
            _give_back(database, name, owner, at)


def _take(database: Database, name: str, owner: str, at: datetime) -> bool:
    row = {"owner": owner, "until": at + LEASE}
    # A lease that runs out later than a new one would was taken under a clock that is wrong.
    free = sa.or_(leases.c.owner == owner, leases.c.until <= at, leases.c.until > at + LEASE)
    with database.writing() as connection:
        if connection.execute(sa.update(leases).where(leases.c.name == name, free).values(**row)).rowcount == 1:
            return True
    return database.insert(leases, name=name, **row)


def _give_back(database: Database, name: str, owner: str, at: datetime) -> None:
    with database.writing() as connection:
        mine = leases.c.name == name, leases.c.owner == owner
        connection.execute(sa.update(leases).where(*mine).values(until=at))
