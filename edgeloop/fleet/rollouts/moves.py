"""Nodes that a person puts into another ring, and when they go there.

A node that leaves a ring that has a release for one that does not have it yet would go back, and forward again when its
new ring's turn comes. With ``moves: keep`` it stays in the old ring until then: there it keeps what it runs, is judged
with its ring, and is taken back with it. So a move is asked for here, and told to the node when nothing holds it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from edgeloop.errors import BadInput
from edgeloop.fleet.channel import Rings
from edgeloop.fleet.rollouts.roster import Roster
from edgeloop.fleet.rollouts.state_store import StateStore
from edgeloop.fleet.rollouts.states import ACTIVE, ENDED, View
from edgeloop.samples.cohorts import NOBODY
from edgeloop.samples.moves import DEFAULT
from edgeloop.samples.service import Service
from edgeloop.store import FleetStore
from edgeloop.store.database import Database
from edgeloop.store.tables import ledger

_log = logging.getLogger(__name__)

meta = sa.MetaData()
ring_moves = sa.Table(
    "ring_moves",
    meta,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("fleet", sa.String(64), nullable=False, index=True),
    sa.Column("node", sa.String(128), nullable=False),
    sa.Column("ring", sa.Integer),
    #: ``waiting``, ``done``, or ``dropped`` for a newer one.
    sa.Column("state", sa.String(16), nullable=False),
    #: Whether it waits for no rollout.
    sa.Column("at_once", sa.Boolean, nullable=False),
    sa.Column("who", sa.String(64), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("at", sa.DateTime(timezone=True), nullable=False),
)


class UnservedRing(BadInput):
    """No release ever comes to this ring."""


class RingOfCluster(BadInput):
    """The ring of pods is said by their cluster; nobody there follows the channel."""


@dataclass(frozen=True)
class Move:
    """A node that is to be in another ring."""

    id: int
    fleet: str
    node: str
    ring: int | None
    """None is the ring of its node.yaml."""
    at_once: bool
    who: str
    reason: str
    at: datetime


class MoveStore:
    """The moves in SQL."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.create(meta)

    def ask(self, services: Sequence[str], node: str, ring: int | None, at: datetime, **values: Any) -> None:
        """Write a move, in place of any of the node that waits, and a row in the ledger of each service."""
        row = {"node": node, "ring": ring, "at": at, **values}
        text = f"node {node} goes to " + ("the ring of its node.yaml" if ring is None else f"ring {ring}")
        said = f"{text}: {values['reason']}" if values["reason"] else text
        older = ring_moves.c.fleet == values["fleet"], ring_moves.c.node == node, ring_moves.c.state == "waiting"
        with self._database.writing() as connection:
            connection.execute(sa.update(ring_moves).where(*older).values(state="dropped"))
            made = connection.execute(sa.insert(ring_moves).values(**row, state="waiting"))
            key = f"move-{made.inserted_primary_key[0] if made.inserted_primary_key else 0}"
            for service in services:
                words = {"event": "ring", "key": key, "verdict": "pass", "reason": said, "who": values["who"], "at": at}
                connection.execute(sa.insert(ledger).values(service=service, **words))

    def waiting(self) -> list[Move]:
        """Moves that no node was told of yet, the oldest first."""
        query = sa.select(ring_moves).where(ring_moves.c.state == "waiting").order_by(ring_moves.c.id)
        return [Move(**{n: row[n] for n in Move.__dataclass_fields__}) for row in self._database.all(query)]

    def finish(self, moves: Sequence[Move]) -> None:
        """The nodes were told."""
        mine = ring_moves.c.id.in_([move.id for move in moves]), ring_moves.c.state == "waiting"
        with self._database.writing() as connection:
            connection.execute(sa.update(ring_moves).where(*mine).values(state="done"))


def move_node(
    fleet: FleetStore,
    channel: Rings,
    services: Mapping[str, Service],
    node: str,
    ring: int | None,
    who: str,
    reason: str,
    at: datetime,
    *,
    at_once: bool = False,
    name: str = DEFAULT,
) -> str | None:
    """Put ``node`` into ``ring``, None for that of its node.yaml; what it waits for, None when it was told.

    Args:
        services: all services, by name.
        at_once: also where it goes back to an older release for that.
        name: of the fleet.

    Raises:
        RingOfCluster: all services of the node run on clusters.
        UnservedRing: ``ring`` is left out by a service that the node serves, or, if it was never heard, by every one.
        KeyUnavailable: the channel cannot say so. Nothing was written.
    """
    mine = [row.service for row in Roster(fleet.database).rows(node=node)]
    _refuse_pods(services, mine, node)
    concerned = _served(services, mine, node, ring)
    channel.move(name, dict)  # whether it can be said at all
    words = {"fleet": name, "at_once": at_once, "who": who[:64] or "unknown", "reason": reason}
    MoveStore(fleet.database).ask(concerned, node, ring, at, **words)
    settle(fleet, channel)
    return next((why for move, why in held(fleet) if (move.fleet, move.node) == (name, node)), None)


def _refuse_pods(services: Mapping[str, Service], mine: Sequence[str], node: str) -> None:
    targets = {services[name].rollout.target for name in mine if name in services}
    if targets and "agent" not in targets:
        raise RingOfCluster(
            f"what is heard of {node} are pods of {', '.join(sorted(targets))}: their ring is that of the labels of the"
            " Kubernetes node, or of the site, so change it there"
        )


def _served(services: Mapping[str, Service], mine: Sequence[str], node: str, ring: int | None) -> list[str]:
    """The services that a move concerns."""
    if ring is None:
        return list(mine) or list(services)
    without = [name for name in mine if name in services and ring not in services[name].rings]
    concerned = [name for name in mine or services if name in services and ring in services[name].rings]
    if without or not concerned:
        which = f"of {without[0]}, which {node} serves" if without else "of any service"
        raise UnservedRing(f"ring {ring} is not one {which}: add it to  rings  in the service YAML or name another")
    return concerned


def settle(fleet: FleetStore, channel: Rings) -> list[Move]:
    """Tell the nodes of every move that nothing holds any more. Safe to call again, wherever it was cut off."""
    moves = MoveStore(fleet.database)
    names = {move.fleet for move in moves.waiting()}
    told: list[Move] = []
    for name in sorted(names):
        due = _Due(fleet, name)
        channel.move(name, due)
        moves.finish(due.moves)
        told += due.moves
    return told


class _Due:
    """The moves of one fleet that nothing holds, as they are when it is called."""

    def __init__(self, fleet: FleetStore, name: str) -> None:
        self._fleet = fleet
        self._name = name
        self.moves: list[Move] = []

    def __call__(self) -> dict[str, int | None]:
        waiting = MoveStore(self._fleet.database).waiting()
        kept = {move.id for move, _ in held(self._fleet)}
        self.moves = [move for move in waiting if move.fleet == self._name and move.id not in kept]
        return {move.node: move.ring for move in self.moves}


def held(fleet: FleetStore) -> list[tuple[Move, str]]:
    """The moves that wait, each with what for."""
    waiting = [move for move in MoveStore(fleet.database).waiting() if not move.at_once]
    if not waiting:
        return []
    views = {saved.view.service: saved.view for saved in StateStore(fleet.database).open() if _keeps(saved.view)}
    roster = Roster(fleet.database)
    found = ((move, _reason(move, views, roster.rows(node=move.node))) for move in waiting)
    return [(move, why) for move, why in found if why]


def _keeps(view: View) -> bool:
    return view.state in ACTIVE and view.strategy.moves == "keep" and view.strategy.target == "agent"


def _reason(move: Move, views: Mapping[str, View], rows: Sequence[Any]) -> str:
    for row in rows:
        view = views.get(row.service)
        if view is not None and _would_go_back(view, row.ring, move.ring):
            to = "its node.yaml's ring" if move.ring is None else f"ring {move.ring}"
            return f"{move.node} stays in ring {row.ring} until the rollout of {row.service} has come to {to} or ended"
    return ""


def _would_go_back(view: View, old: int, new: int | None) -> bool:
    """Whether nodes of ring ``old`` may have the release, and not all of ring ``new``; of None that is not known."""
    rings = {ring.ring: ring for ring in view.rings}
    has_it = old in rings and rings[old].below != NOBODY
    return has_it and old != new and (new not in rings or rings[new].state not in ENDED)
