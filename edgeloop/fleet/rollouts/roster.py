"""Every node that was ever heard, with what it said last: the fleet as the cloud knows it.

A node that is silent keeps its row and goes stale; only what is heard changes one. What a node counted under the
release before its present one stays beside it: that is what the present one is compared with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from edgeloop.fleet.rollouts.evidence import RingEvidence
from edgeloop.fleet.rollouts.lives import carried
from edgeloop.fleet.rollouts.sums import NODE_COLUMNS, sum_up
from edgeloop.samples.strategy import Thresholds
from edgeloop.store.database import Database

#: A node that has said nothing new for this long is taken for offline.
STALE = timedelta(seconds=120)
#: A node that was not heard for so long is of no ring any more until it is heard again.
GONE = timedelta(days=7)
#: Nodes that are asked for by name at once, and how often before all are asked for.
_LOOK_UP, _LOOK_UPS = 500, 4
_FORMER = ("former", "former_until", "former_counted")

meta = sa.MetaData()
nodes = sa.Table(
    "nodes",
    meta,
    sa.Column("fleet", sa.String(64), primary_key=True),
    sa.Column("node", sa.String(128), primary_key=True),
    sa.Column("service", sa.String(64), primary_key=True),
    sa.Column("ring", sa.Integer, nullable=False),
    sa.Column("said_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("heard_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("online", sa.Boolean, nullable=False),
    sa.Column("wanted", sa.String(80)),
    sa.Column("serving", sa.String(80)),
    sa.Column("staged", sa.String(80)),
    sa.Column("refused", sa.String(80)),
    sa.Column("refused_at", sa.DateTime(timezone=True)),
    sa.Column("last_error", sa.Text),
    sa.Column("profile", sa.String(64)),
    # What it counted, and the release that it counted under: the one it serves, or served until it had none.
    sa.Column("counted", sa.Text, nullable=False),
    sa.Column("counted_of", sa.String(80)),
    sa.Column("former", sa.String(80)),
    sa.Column("former_until", sa.DateTime(timezone=True)),
    sa.Column("former_counted", sa.Text),
    sa.Column("payload", sa.String(64), nullable=False),
    sa.Index("nodes_of_ring", "fleet", "service", "ring"),
)
node_words = sa.Table(
    "node_words",
    meta,
    sa.Column("fleet", sa.String(64), primary_key=True),
    sa.Column("node", sa.String(128), primary_key=True),
    sa.Column("online", sa.Boolean, nullable=False),
    sa.Column("payload", sa.String(64), nullable=False),
)
hearings = sa.Table(
    "hearings",
    meta,
    sa.Column("fleet", sa.String(64), primary_key=True),
    sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("complete", sa.Boolean, nullable=False),
)


@dataclass(frozen=True)
class NodeRow:
    """What is known of one node for one service."""

    node: str
    ring: int
    service: str
    serving: str | None
    wanted: str | None
    staged: str | None
    refused: str | None
    online: bool
    heard_at: datetime
    last_error: str | None


class Roster:
    """The nodes of one fleet in SQL; makes its tables. Every method raises DatabaseUnavailable."""

    def __init__(self, database: Database, fleet: str = "default") -> None:
        self._database = database
        self._fleet = fleet
        database.create(meta)

    def names(self, service: str, ring: int, online_at: datetime | None = None) -> list[str]:
        """The nodes of a ring, in order; with ``online_at`` those that are there."""
        query = sa.select(nodes.c.node).outerjoin(node_words, ITS_WORD).where(*self._of(service, ring))
        if online_at is not None:
            query = query.where(self._is_online(online_at))
        return [str(row["node"]) for row in self._database.all(query.order_by(nodes.c.node))]

    def rings(self, service: str, at: datetime | None = None) -> dict[int, int]:
        """How many nodes each ring has; with ``at`` without those that are :data:`GONE` then."""
        counted = sa.select(nodes.c.ring, sa.func.count().label("count")).where(*self._of(service))
        if at is not None:
            counted = counted.where(_is_of_ring(at))
        found = self._database.all(counted.group_by(nodes.c.ring).order_by(nodes.c.ring))
        return {int(row["ring"]): int(row["count"]) for row in found}

    def profiles(self, service: str, at: datetime) -> dict[str, list[str]]:
        """The nodes of each hardware profile, in order; without those that are :data:`GONE` or have none."""
        query = sa.select(nodes.c.profile, nodes.c.node).order_by(nodes.c.profile, nodes.c.node)
        found: dict[str, list[str]] = {}
        for profile, node in self._rows(query.where(*self._of(service), _is_of_ring(at), nodes.c.profile.is_not(None))):
            found.setdefault(profile, []).append(node)
        return found

    def serving(self, service: str, release: str, at: datetime) -> list[str]:
        """The online nodes that serve ``release``, in order."""
        query = sa.select(nodes.c.node).outerjoin(node_words, ITS_WORD).order_by(nodes.c.node)
        found = query.where(*self._of(service), nodes.c.serving == release, self._is_online(at))
        return [str(row["node"]) for row in self._database.all(found)]

    def evidence(
        self,
        service: str,
        ring: int,
        release: str,
        former: str | None,
        salt: str,
        below: str,
        limits: Thresholds,
        at: datetime,
        *,
        since: datetime | None = None,
        batch_since: datetime | None = None,
    ) -> RingEvidence:
        """What the nodes of a ring say of ``release``; those of them with a place below ``below`` were told to switch.

        With ``since``, the moment from which they were told, what they refused, counted or did before does not count: a
        release may be tried again. With ``batch_since``, of the last batch, nor does it that a node left the release
        before: it may come from a ring that has it. Nodes that are :data:`GONE` are not of the ring. ``complete`` is
        that of the last :meth:`note`.
        """
        query = sa.select(*_EVIDENCE, self._is_online(at).label("online")).outerjoin(node_words, ITS_WORD)
        rows = self._rows(query.where(*self._of(service, ring), _is_of_ring(at)).order_by(nodes.c.node))
        heard = self.last_heard()
        complete = heard is None or bool(heard["complete"])
        moments = {"since": since, "batch_since": batch_since}
        return sum_up(rows, release, former, salt, below, limits, complete=complete, **moments)

    def rows(self, service: str | None = None, at: datetime | None = None, *, node: str | None = None) -> list[NodeRow]:
        """Nodes (of one service, or one), by service, ring and name; online as of ``at``, else of the last hearing."""
        heard = self.last_heard()
        at = at or (heard["at"] if heard else None)
        columns = [nodes.c[name] for name in NodeRow.__dataclass_fields__ if name != "online"]
        online = sa.false() if at is None else self._is_online(at)
        query = sa.select(*columns, online.label("online")).outerjoin(node_words, ITS_WORD)
        query = query.where(nodes.c.fleet == self._fleet).order_by(nodes.c.service, nodes.c.ring, nodes.c.node)
        if service is not None:
            query = query.where(nodes.c.service == service)
        if node is not None:
            query = query.where(nodes.c.node == node)
        return [NodeRow(**row | {"online": bool(row["online"])}) for row in self._database.all(query)]

    def last_heard(self) -> dict[str, Any] | None:
        """``at`` and ``complete`` of the last hearing."""
        return self._database.one(sa.select(hearings).where(hearings.c.fleet == self._fleet))

    def payloads(self) -> dict[tuple[str, str], str]:
        """Digests of what was heard last, by (node, service); of the word on a node by (node, "")."""
        reports = sa.select(nodes.c.node, nodes.c.service, nodes.c.payload).where(nodes.c.fleet == self._fleet)
        words = sa.select(node_words.c.node, sa.literal(""), node_words.c.payload)
        words = words.where(node_words.c.fleet == self._fleet)
        return {(n, s): p for query in (reports, words) for n, s, p in self._rows(query)}

    def note(self, reports: Sequence[Mapping[str, Any]], words: Sequence[Mapping[str, Any]], **hearing: Any) -> None:
        """Write what was heard, in one transaction.

        Args:
            reports: rows of ``nodes`` without ``fleet``, ``refused_at``, ``counted_of`` and the ``former`` columns.
            words: rows of ``node_words`` without ``fleet``.
            hearing: ``at``, our time, and ``complete``.
        """
        with self._database.writing() as connection:
            known = self._known(connection, reports)
            filled = [self._filled(row, known.get((row["node"], row["service"])), hearing["at"]) for row in reports]
            self._upsert(connection, nodes, filled)
            self._upsert(connection, node_words, [{**word, "fleet": self._fleet} for word in words])
            self._upsert(connection, hearings, [{**hearing, "fleet": self._fleet}])

    def _known(
        self, connection: sa.Connection, reports: Sequence[Mapping[str, Any]]
    ) -> dict[tuple[str, str], Mapping[str, Any]]:
        found: dict[tuple[str, str], Mapping[str, Any]] = {}
        kept = ("service", "node", "refused", "refused_at", "counted", "counted_of", *_FORMER)
        query = sa.select(*(nodes.c[name] for name in kept)).where(nodes.c.fleet == self._fleet)
        names = sorted({row["node"] for row in reports})
        some = [names[start : start + _LOOK_UP] for start in range(0, len(names), _LOOK_UP)]
        wholly = [query] if len(some) > _LOOK_UPS else [query.where(nodes.c.node.in_(part)) for part in some]
        for part in wholly:
            found |= {(row["node"], row["service"]): row for row in connection.execute(part).mappings()}
        return found

    def _filled(self, row: Mapping[str, Any], known: Mapping[str, Any] | None, at: datetime) -> dict[str, Any]:
        """``row`` with what only we know: since when it refuses, and what it counted under the release before."""
        values = {**row, "fleet": self._fleet, "counted_of": row["serving"], **dict.fromkeys(_FORMER)}
        values["refused_at"] = at if row["refused"] else None
        if known is None:  # since when it refuses is not known, only when it said so
            values["refused_at"] = min(at, row["said_at"]) if row["refused"] else None
            return values
        if known["refused"] == row["refused"]:
            values["refused_at"] = known["refused_at"]
        last = known["counted_of"]
        if last is not None and row["serving"] not in {None, last}:
            return values | {"former": last, "former_until": at, "former_counted": known["counted"]}
        if last is not None:  # also while it starts, or has lost its model
            values["counted_of"], values["counted"] = last, carried(known["counted"], row["counted"])
        return values | {name: known[name] for name in _FORMER}

    def _upsert(self, connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
        if not rows:
            return
        dialect: Any = postgresql if self._database.dialect == "postgresql" else sqlite
        insert = dialect.insert(table)
        changed = {c.name: insert.excluded[c.name] for c in table.columns if not c.primary_key}
        connection.execute(insert.on_conflict_do_update(index_elements=list(table.primary_key), set_=changed), rows)

    def _rows(self, query: sa.Select[Any]) -> Iterable[Any]:
        """Plain tuples: a dictionary for each of ten thousand nodes takes longer than all the rest."""
        with self._database.writing() as connection:
            return connection.execute(query).fetchall()

    def _of(self, service: str, ring: int | None = None) -> list[sa.ColumnElement[bool]]:
        mine = [nodes.c.fleet == self._fleet, nodes.c.service == service]
        return mine if ring is None else [*mine, nodes.c.ring == ring]

    def _is_online(self, at: datetime) -> sa.ColumnElement[bool]:
        """Of ``nodes`` with ``node_words`` beside it, which speaks for a node that could not say goodbye."""
        said = sa.and_(nodes.c.online, sa.func.coalesce(node_words.c.online, sa.true()))
        at = at.astimezone(UTC)  # what was heard in the future was so by a clock that was wrong
        return sa.and_(said, nodes.c.heard_at > at - STALE, nodes.c.heard_at < at + STALE)


def _is_of_ring(at: datetime) -> sa.ColumnElement[bool]:
    return nodes.c.heard_at > at.astimezone(UTC) - GONE


ITS_WORD = sa.and_(node_words.c.fleet == nodes.c.fleet, node_words.c.node == nodes.c.node)
_EVIDENCE = tuple(nodes.c[name] for name in NODE_COLUMNS)
