"""The promotions and what people said of them, in SQL: at most one promotion of a service is open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from edgeloop.promotion.records import CLOSED, Approval, Promotion, State
from edgeloop.samples.records import digest, hexdigest, now
from edgeloop.store import Database
from edgeloop.store.tables import ledger

meta = sa.MetaData()

promotions = sa.Table(
    "promotions",
    meta,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("service", sa.String(64), nullable=False, index=True),
    sa.Column("version", sa.String(32), nullable=False),
    sa.Column("former", sa.String(32)),
    sa.Column("release", sa.String(80)),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("who", sa.String(64), nullable=False),
    sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("rollout", sa.Integer),
    sa.Column("closed_by", sa.String(64)),
    sa.Column("left_at", sa.DateTime(timezone=True)),
    # 1 or nothing: both databases let any number of rows have nothing, and one row of a service have 1.
    sa.Column("open", sa.Integer),
    sa.UniqueConstraint("service", "open"),
)
approvals = sa.Table(
    "approvals",
    meta,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("promotion", sa.Integer, sa.ForeignKey("promotions.id"), nullable=False),
    sa.Column("who", sa.String(64), nullable=False),
    sa.Column("verdict", sa.String(8), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    sa.UniqueConstraint("promotion", "who"),
)


class Promotions:
    """Reads and writes the two tables; whoever writes twice changes nothing the second time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.create(meta)

    def current(self, service: str) -> Promotion | None:
        """The open promotion of a service."""
        return self._first(promotions.c.service == service, promotions.c.open == 1)

    def last_closed(self, service: str) -> Promotion | None:
        """The newest promotion of a service that ended."""
        return self._first(promotions.c.service == service, promotions.c.open.is_(None))

    def newest_of(self, service: str, version: str, before: int | None = None) -> Promotion | None:
        """The newest promotion of a version, made before the one with the number ``before``."""
        older = [promotions.c.id < before] if before is not None else []
        return self._first(promotions.c.service == service, promotions.c.version == version, *older)

    def newest_with(self, service: str, release: str) -> Promotion | None:
        """The newest promotion of a release."""
        return self._first(promotions.c.service == service, promotions.c.release == release)

    def history(self, service: str, limit: int = 10) -> list[Promotion]:
        """The newest promotions of a service, newest first."""
        query = sa.select(promotions).where(promotions.c.service == service).order_by(promotions.c.id.desc())
        return [_promotion(row) for row in self._database.all(query.limit(limit))]

    def _first(self, *where: sa.ColumnElement[bool]) -> Promotion | None:
        row = self._database.one(sa.select(promotions).where(*where).order_by(promotions.c.id.desc()))
        return None if row is None else _promotion(row)

    def begin(self, service: str, version: str, former: str | None, who: str) -> bool:
        """Open a promotion; False when another one is open."""
        at = now()
        words = {"state": "building", "reason": "", "at": at, "changed_at": at, "open": 1}
        return self._database.insert(promotions, service=service, version=version, former=former, who=who[:64], **words)

    def note(self, promotion: Promotion, **values: Any) -> bool:
        """Change an open promotion; False when it was closed meanwhile. Nothing is written when nothing changes."""
        if all(getattr(promotion, name) == value for name, value in values.items()):
            return True
        with self._database.writing() as connection:
            return _changed(connection, promotion, changed_at=now(), **values)

    def close(self, promotion: Promotion, state: State, reason: str, who: str, former: str | None, event: str) -> bool:
        """End an open promotion and write the ledger row of it, all or nothing; False when it was closed before.

        Args:
            former: version that the alias goes back to.
            event: what the ledger calls it; empty for no row.
        """
        assert state in CLOSED
        values = {"state": state, "reason": reason, "closed_by": who[:64], "former": former, "open": None}
        with self._database.writing() as connection:
            if not _changed(connection, promotion, changed_at=now(), **values):
                return False
            if event:
                row = _ledger_row(promotion, event, f"promotion-{promotion.id}", who, reason)
                # Of a way back, ``version`` is where it leads and ``former`` what was refused.
                words = {"verdict": "fail", "version": former, "former": promotion.version}
                connection.execute(sa.insert(ledger).values(**row, **words))
        return True

    def left(self, promotion: Promotion) -> None:
        """Remember that the alias was elsewhere after this promotion was closed."""
        unset = promotions.c.id == promotion.id, promotions.c.left_at.is_(None)
        with self._database.writing() as connection:
            connection.execute(sa.update(promotions).where(*unset).values(left_at=now()))

    def say(self, promotion: Promotion, who: str, reason: str) -> bool:
        """Write that somebody approves, with its ledger row; False when that person has spoken before."""
        word = {"promotion": promotion.id, "who": who, "verdict": "approve", "reason": reason, "at": now()}
        # A key has no room for a whole name.
        key = f"promotion-{promotion.id}-{hexdigest(digest(who.encode()))[:12]}"
        row = _ledger_row(promotion, "approve", key, who, reason)
        words = {"verdict": "pass", "version": promotion.version, "former": promotion.former}
        try:
            with self._database.writing() as connection:
                connection.execute(sa.insert(approvals).values(**word))
                connection.execute(sa.insert(ledger).values(**row, **words))
        except IntegrityError:
            return False
        return True

    def words(self, promotion: Promotion) -> tuple[Approval, ...]:
        """What people said of a promotion, oldest first."""
        query = sa.select(approvals).where(approvals.c.promotion == promotion.id).order_by(approvals.c.id)
        rows: Sequence[dict[str, Any]] = self._database.all(query)
        return tuple(Approval(r["who"], r["verdict"], r["reason"], r["at"]) for r in rows)


def _changed(connection: sa.Connection, promotion: Promotion, **values: Any) -> bool:
    still_open = promotions.c.id == promotion.id, promotions.c.open == 1
    return connection.execute(sa.update(promotions).where(*still_open).values(**values)).rowcount == 1


def _ledger_row(promotion: Promotion, event: str, key: str, who: str, reason: str) -> dict[str, Any]:
    return {
        "service": promotion.service,
        "event": event,
        "key": key,
        "reason": reason,
        "who": who[:64],
        "at": now(),
    }


def _promotion(row: dict[str, Any]) -> Promotion:
    return Promotion(**{name: value for name, value in row.items() if name != "open"})
