"""The nodes as a page shows them: counted in the database, and of ten thousand only those that somebody should see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from edgeloop.fleet.rollouts.roster import ITS_WORD, NodeRow, Roster, node_words, nodes


@dataclass(frozen=True)
class RingCount:
    """How the nodes of one ring do."""

    service: str
    ring: int
    nodes: int
    online: int
    there: int
    """Online, and serving what is wanted of them."""
    failing: int
    """That refuse what is wanted of them, or tell of an error."""


class Crowd(Roster):
    """Reads of the roster that cost the same to show whatever the size of the fleet."""

    def counts(self, at: datetime) -> list[RingCount]:
        """By service and ring; online as of ``at``."""
        online = self._is_online(at)
        there = sa.and_(online, nodes.c.serving.is_not(None), nodes.c.serving == nodes.c.wanted)
        failing = sa.or_(nodes.c.refused.is_not(None), nodes.c.last_error.is_not(None))
        sums = [_sum(online, "online"), _sum(there, "there"), _sum(failing, "failing")]
        query = sa.select(nodes.c.service, nodes.c.ring, sa.func.count().label("nodes"), *sums)
        query = query.outerjoin(node_words, ITS_WORD).where(nodes.c.fleet == self._fleet)
        query = query.group_by(nodes.c.service, nodes.c.ring).order_by(nodes.c.service, nodes.c.ring)
        return [RingCount(**row) for row in self._database.all(query)]

    def worst(self, service: str, limit: int, at: datetime) -> list[NodeRow]:
        """At most ``limit`` nodes of a service, by ring and name; those that fail, are away or behind come first."""
        online = self._is_online(at)
        rank = sa.case(
            (sa.or_(nodes.c.refused.is_not(None), nodes.c.last_error.is_not(None)), 0),
            (sa.not_(online), 1),
            (sa.or_(nodes.c.serving.is_(None), nodes.c.serving != nodes.c.wanted), 2),
            else_=3,
        )
        columns = [nodes.c[name] for name in NodeRow.__dataclass_fields__ if name != "online"]
        query = sa.select(*columns, online.label("online")).outerjoin(node_words, ITS_WORD)
        query = query.where(nodes.c.fleet == self._fleet, nodes.c.service == service)
        rows = self._database.all(query.order_by(rank, nodes.c.ring, nodes.c.node).limit(limit))
        return _in_order([NodeRow(**row | {"online": bool(row["online"])}) for row in rows])


def _sum(condition: sa.ColumnElement[bool], name: str) -> sa.Label[Any]:
    return sa.func.sum(sa.case((condition, 1), else_=0)).label(name)


def _in_order(rows: Sequence[NodeRow]) -> list[NodeRow]:
    return sorted(rows, key=lambda row: (row.ring, row.node))
