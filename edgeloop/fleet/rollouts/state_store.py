"""Rollouts in SQL: one row holds all of one rollout's state, and is replaced only as it was read.

Whoever decided on an older state than the one that is there writes nothing. The ledger's rows, and the row that other
rooms read, are written in the same transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from edgeloop.errors import EdgeloopError
from edgeloop.fleet.rollouts.decide import Event
from edgeloop.fleet.rollouts.states import TERMINAL, View
from edgeloop.store.database import Database
from edgeloop.store.tables import ledger, releases, rollouts

#: How often a change is tried before it is given up.
ATTEMPTS = 20

meta = sa.MetaData()

states = sa.Table(
    "rollout_states",
    meta,
    sa.Column("rollout", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("service", sa.String(64), nullable=False, index=True),
    #: 1 on its way, 2 queued, NULL when it ended: one of each for a service.
    sa.Column("slot", sa.Integer),
    #: Whether it ever was the one on its way: what rings run is its doing.
    sa.Column("begun", sa.Boolean, nullable=False),
    sa.Column("turn", sa.Integer, nullable=False),
    sa.Column("view", sa.Text, nullable=False),
    sa.UniqueConstraint("service", "slot"),
)
leases = sa.Table(
    "rollout_leases",
    meta,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("owner", sa.String(64), nullable=False),
    sa.Column("until", sa.DateTime(timezone=True), nullable=False),
)


@dataclass(frozen=True)
class Saved:
    """A rollout as it was read."""

    view: View
    turn: int
    begun: bool


class RolloutBusy(EdgeloopError):
    """Others changed the rollout at every attempt."""


class Beginning(Exception):
    """Another rollout of the service began meanwhile: read again."""


class StateStore:
    """Reads and replaces the states of rollouts."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.create(meta)

    def open(self) -> list[Saved]:
        """Rollouts that did not end, the older first."""
        return self._all(sa.select(states).where(states.c.slot.is_not(None)).order_by(states.c.rollout))

    def opened(self, service: str) -> tuple[Saved | None, Saved | None]:
        """Of one service the rollout on its way, and the queued one."""
        query = sa.select(states).where(states.c.service == service, states.c.slot.is_not(None))
        found = {one.view.state == "queued": one for one in self._all(query)}
        return found.get(False), found.get(True)

    def newest(self, service: str) -> Saved | None:
        """The newest rollout of a service, queued or not."""
        return self._last(states.c.service == service)

    def told(self, service: str) -> tuple[Saved | None, Saved | None]:
        """The rollout of a service that people ask about, and a newer one that was dropped before its turn.

        The first is the newest, unless that was dropped: what the rings run is then the doing of the one before it.
        """
        newest = self.newest(service)
        if newest is None or newest.begun or newest.view.state not in TERMINAL:
            return newest, None
        before = self._last((states.c.service == service) & states.c.begun)
        return (newest, None) if before is None else (before, newest)

    def standing(self, service: str | None = None) -> list[Saved]:
        """The last rollout of each service (or one) that touched its rings: what they run is its doing."""
        newest = sa.select(sa.func.max(states.c.rollout)).where(states.c.begun).group_by(states.c.service)
        query = sa.select(states).where(states.c.rollout.in_(newest)).order_by(states.c.rollout)
        return self._all(query if service is None else query.where(states.c.service == service))

    def ended(self, service: str, limit: int = 200) -> list[View]:
        """Rollouts of a service that ended, the newest first."""
        query = sa.select(states).where(states.c.service == service, states.c.slot.is_(None))
        return [one.view for one in self._all(query.order_by(states.c.rollout.desc()).limit(limit))]

    def good(self, service: str) -> list[str]:
        """Releases whose rollout was done, the newest first; also of rollouts from before there were states."""
        query = sa.select(rollouts.c.digest).where(rollouts.c.service == service, rollouts.c.state == "done")
        return [str(row["digest"]) for row in self._database.all(query.order_by(rollouts.c.id.desc()).limit(200))]

    def row(self, service: str) -> dict[str, Any] | None:
        """The newest row that other rooms read."""
        query = sa.select(rollouts).where(rollouts.c.service == service).order_by(rollouts.c.id.desc())
        return self._database.one(query)

    def _last(self, which: sa.ColumnElement[bool]) -> Saved | None:
        query = sa.select(states).where(which).order_by(states.c.rollout.desc())
        return next(iter(self._all(query.limit(1))), None)

    def _all(self, query: sa.Select[Any]) -> list[Saved]:
        return [
            Saved(View.model_validate_json(row["view"]), int(row["turn"]), bool(row["begun"]))
            for row in self._database.all(query)
        ]

    def begin(self, view: View, at: datetime, drop: Saved | None = None) -> View:
        """Write a new rollout, its number given by the database; ``drop`` is superseded with it.

        Raises:
            Beginning: there is another in its place, or ``drop`` went on meanwhile. Nothing was written.
        """
        try:
            with self._database.writing() as connection:
                if drop is not None:
                    text = "a newer release takes its place"
                    gone = drop.view.model_copy(update={"state": "superseded", "reason": text, "waits": ""})
                    _replace(connection, drop, gone, (Event("superseded", "inconclusive", text, view.who),), at)
                return _insert(connection, view, at)
        except (IntegrityError, _Older) as error:
            raise Beginning from error

    def save(self, saved: Saved, view: View, events: Sequence[Event], at: datetime) -> bool:
        """Replace ``saved``; False, and nothing is written, when another was faster."""
        try:
            with self._database.writing() as connection:
                _replace(connection, saved, view, events, at)
        except (IntegrityError, _Older):
            return False
        return True


class _Older(Exception):
    """The state was replaced since it was read; leaving the transaction undoes it."""


def _slot(view: View) -> int | None:
    return None if view.state in TERMINAL else 2 if view.state == "queued" else 1


def _replace(connection: sa.Connection, saved: Saved, view: View, events: Sequence[Event], at: datetime) -> None:
    begun = saved.begun or _slot(view) == 1
    values = {"slot": _slot(view), "begun": begun, "turn": saved.turn + 1, "view": view.model_dump_json()}
    same = states.c.rollout == view.rollout, states.c.turn == saved.turn
    if connection.execute(sa.update(states).where(*same).values(**values)).rowcount != 1:
        raise _Older
    connection.execute(sa.update(rollouts).where(rollouts.c.id == view.rollout).values(**_row(view, at)))
    for event in events:
        _write(connection, view, event, f"{view.rollout}-{saved.turn + 1}", at)


def _insert(connection: sa.Connection, view: View, at: datetime) -> View:
    row = _row(view, at) | {"service": view.service, "digest": view.release}
    made = connection.execute(sa.insert(rollouts).values(**row))
    number = int(made.inserted_primary_key[0]) if made.inserted_primary_key else 0
    view = view.model_copy(update={"rollout": number, "salt": f"{view.service}-{number}"})
    values = {"rollout": number, "service": view.service, "slot": _slot(view), "begun": _slot(view) == 1, "turn": 0}
    connection.execute(sa.insert(states).values(**values, view=view.model_dump_json()))
    _write(connection, view, Event("promotion", "pass", view.why, view.who), f"rollout-{number}", at)
    return view


def _row(view: View, at: datetime) -> dict[str, Any]:
    since = view.current.since or at
    found = {"former": view.former, "state": view.state, "wave": view.index, "reason": view.reason}
    return {**found, "wave_since": since, "at": at}


def _write(connection: sa.Connection, view: View, event: Event, key: str, at: datetime) -> None:
    to, away = (view.former, view.release) if event.back else (view.release, view.former)
    versions = {"version": _version(connection, view.service, to), "former": _version(connection, view.service, away)}
    values = {"service": view.service, "event": event.event, "key": key, "verdict": event.verdict}
    who = event.who[:64] or "unknown"
    connection.execute(sa.insert(ledger).values(**values, **versions, reason=event.reason, who=who, at=at))


def _version(connection: sa.Connection, service: str, digest: str | None) -> str | None:
    query = sa.select(releases.c.version).where(releases.c.service == service, releases.c.digest == digest)
    found = connection.execute(query).scalar()
    return None if found is None else str(found)


def busy(service: str) -> RolloutBusy:
    """The error after :data:`ATTEMPTS` attempts."""
    return RolloutBusy(f"rollout of {service}: others change it at every attempt: run it again")
