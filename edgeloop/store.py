"""The SQL state: what was judged, released and rolled out. SQLite by default, PostgreSQL by URL.

Rows are facts with unique keys, so that doing a step twice writes it once. Long histories stay out of memory: every
read names what it wants.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError

from edgeloop.errors import BadInput, Unavailable
from edgeloop.samples.records import now

_CREATE_ATTEMPTS = 5
_meta = sa.MetaData()

ledger = sa.Table(
    "ledger",
    _meta,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("service", sa.String(64), nullable=False, index=True),
    sa.Column("key", sa.String(80), nullable=False),
    sa.Column("event", sa.String(16), nullable=False),
    sa.Column("verdict", sa.String(16), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("version", sa.String(32)),
    sa.Column("former", sa.String(32)),
    sa.Column("dataset", sa.String(80)),
    sa.Column("who", sa.String(64), nullable=False),
    sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    sa.UniqueConstraint("service", "event", "key"),
)
releases = sa.Table(
    "releases",
    _meta,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("service", sa.String(64), nullable=False, index=True),
    sa.Column("version", sa.String(32), nullable=False),
    sa.Column("digest", sa.String(80), nullable=False),
    sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    sa.UniqueConstraint("service", "digest"),
)
rollouts = sa.Table(
    "rollouts",
    _meta,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("service", sa.String(64), nullable=False, index=True),
    sa.Column("digest", sa.String(80), nullable=False),
    sa.Column("former", sa.String(80)),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("wave", sa.Integer, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("wave_since", sa.DateTime(timezone=True), nullable=False),
    sa.Column("at", sa.DateTime(timezone=True), nullable=False),
)
gate_decisions = sa.Table(
    "gate_decisions",
    _meta,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("service", sa.String(64), nullable=False),
    sa.Column("key", sa.String(80), nullable=False),
    sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    sa.UniqueConstraint("service", "key"),
)
gate_uses = sa.Table(
    "gate_sample_uses",
    _meta,
    sa.Column("decision", sa.Integer, sa.ForeignKey("gate_decisions.id"), primary_key=True),
    sa.Column("sample_id", sa.String(80), primary_key=True),
    sa.Column("service", sa.String(64), nullable=False, index=True),
)


class DatabaseUnavailable(Unavailable):
    """The fleet database does not answer."""


class BadDatabaseUrl(BadInput):
    """The fleet database's URL cannot be used."""


class FleetStore:
    """Reads and writes the SQL state through one engine."""

    def __init__(self, url: str) -> None:
        try:
            self._engine = sa.create_engine(url, pool_pre_ping=True)
        except (sa.exc.ArgumentError, ModuleNotFoundError) as error:
            raise BadDatabaseUrl(
                f"EDGELOOP_DATABASE {url!r} cannot be used ({error}): give a SQLAlchemy URL"
            ) from error
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", _wait_for_writers)
        self._create()

    def _create(self) -> None:
        """Make the tables that are missing; another process that makes them at the same time wins."""
        for attempt in range(_CREATE_ATTEMPTS):
            try:
                _meta.create_all(self._engine)
                return
            except DBAPIError as error:
                if attempt + 1 == _CREATE_ATTEMPTS:
                    raise _unavailable(error) from error

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except IntegrityError:
            raise
        except DBAPIError as error:
            raise _unavailable(error) from error

    def close(self) -> None:
        """Give all connections back."""
        self._engine.dispose()

    def record(self, service: str, event: str, key: str, **values: Any) -> bool:
        """Write a ledger row once per (service, event, key); False when it was there."""
        return self._insert(ledger, service=service, event=event, key=key, at=now(), **values)

    def entry(self, service: str, event: str, key: str) -> dict[str, Any] | None:
        """The ledger row with this key."""
        return self._one(
            sa.select(ledger).where(ledger.c.service == service, ledger.c.event == event, ledger.c.key == key)
        )

    def history(self, service: str, limit: int = 50) -> list[dict[str, Any]]:
        """The newest ledger rows of a service, newest first."""
        return self._all(sa.select(ledger).where(ledger.c.service == service).order_by(ledger.c.id.desc()).limit(limit))

    def newest(self, service: str, event: str) -> dict[str, Any] | None:
        """The newest ledger row of an event."""
        query = sa.select(ledger).where(ledger.c.service == service, ledger.c.event == event)
        return self._one(query.order_by(ledger.c.id.desc()))

    def events(self, service: str, event: str, version: str) -> list[dict[str, Any]]:
        """The ledger rows of one kind about a model version, newest first."""
        about = ledger.c.service == service, ledger.c.event == event, ledger.c.version == version
        return self._all(sa.select(ledger).where(*about).order_by(ledger.c.id.desc()))

    def last_judged(self, service: str, harmless: bool = False) -> dict[str, Any] | None:
        """The newest decision of the gate; with ``harmless`` the newest that found a candidate to do no harm.

        A round that could not be judged has a row without a dataset, and is none. An inconclusive decision says nothing
        of harm.
        """
        query = sa.select(ledger).where(
            ledger.c.service == service, ledger.c.event == "gate", ledger.c.dataset.is_not(None)
        )
        if harmless:
            query = query.where(ledger.c.verdict.not_in(("harmful", "inconclusive")))
        return self._one(query.order_by(ledger.c.id.desc()))

    def gate_uses(self, service: str, key: str) -> dict[str, int]:
        """How many decisions each gate sample had made before the decision ``key``; samples without any are left out.

        A decision that is made again finds what it found the first time.
        """
        own = sa.select(gate_decisions.c.id).where(gate_decisions.c.service == service, gate_decisions.c.key == key)
        known = self._one(own)
        query = sa.select(gate_uses.c.sample_id, sa.func.count().label("uses")).where(gate_uses.c.service == service)
        if known:
            query = query.where(gate_uses.c.decision < known["id"])
        return {str(r["sample_id"]): int(r["uses"]) for r in self._all(query.group_by(gate_uses.c.sample_id))}

    def use_gate(self, service: str, key: str, samples: Sequence[str]) -> bool:
        """Count the decision ``key`` on each of these gate samples, once; False when it was counted before."""
        try:
            with self._writing() as connection:
                made = connection.execute(sa.insert(gate_decisions).values(service=service, key=key, at=now()))
                number = made.inserted_primary_key[0] if made.inserted_primary_key else 0
                rows = [{"decision": number, "sample_id": name, "service": service} for name in {*samples}]
                if rows:
                    connection.execute(sa.insert(gate_uses), rows)
        except IntegrityError:
            return False
        return True

    def add_release(self, service: str, version: str, digest: str) -> bool:
        """Record a release once; False when it was there."""
        return self._insert(releases, service=service, version=version, digest=digest, at=now())

    def release_of(self, service: str, version: str) -> str | None:
        """Digest of the newest release made of a model version."""
        row = self._one(
            sa.select(releases)
            .where(releases.c.service == service, releases.c.version == version)
            .order_by(releases.c.id.desc())
        )
        return None if row is None else str(row["digest"])

    def version_of(self, service: str, digest: str) -> str | None:
        """Model version that a release was made of."""
        row = self._one(sa.select(releases).where(releases.c.service == service, releases.c.digest == digest))
        return None if row is None else str(row["version"])

    def start_rollout(self, service: str, digest: str, former: str | None, reason: str, who: str = "") -> int:
        """Begin a rollout, supersede an open one of the same service, and write who promoted it; all or nothing."""
        at = now()
        with self._writing() as connection:
            connection.execute(
                sa.update(rollouts)
                .where(rollouts.c.service == service, rollouts.c.state == "moving")
                .values(state="superseded", at=at)
            )
            row = {"service": service, "digest": digest, "former": former, "reason": reason, "at": at}
            made = connection.execute(sa.insert(rollouts).values(**row, state="moving", wave=0, wave_since=at))
            number = int(made.inserted_primary_key[0]) if made.inserted_primary_key else 0
            event = {"service": service, "event": "promotion", "key": f"rollout-{number}", "verdict": "pass"}
            versions = {
                "version": _version(connection, service, digest),
                "former": _version(connection, service, former),
            }
            connection.execute(
                sa.insert(ledger).values(**event, **versions, reason=reason, who=who or "unknown", at=at)
            )
        return number

    def update_rollout(self, number: int, **values: Any) -> None:
        """Change a rollout's state, wave or reason."""
        with self._writing() as connection:
            connection.execute(sa.update(rollouts).where(rollouts.c.id == number).values(at=now(), **values))

    def last_rollout(self, service: str) -> dict[str, Any] | None:
        """The newest rollout of a service."""
        return self._one(sa.select(rollouts).where(rollouts.c.service == service).order_by(rollouts.c.id.desc()))

    def open_rollouts(self) -> list[dict[str, Any]]:
        """Rollouts that are on their way."""
        return self._all(sa.select(rollouts).where(rollouts.c.state == "moving").order_by(rollouts.c.id))

    def _insert(self, table: sa.Table, **values: Any) -> bool:
        try:
            with self._writing() as connection:
                connection.execute(sa.insert(table).values(**values))
        except IntegrityError:
            return False
        return True

    def _one(self, query: sa.Select[Any]) -> dict[str, Any] | None:
        rows = self._all(query.limit(1))
        return rows[0] if rows else None

    def _all(self, query: sa.Select[Any]) -> list[dict[str, Any]]:
        try:
            with self._engine.connect() as connection:
                return [_aware(dict(row)) for row in connection.execute(query).mappings()]
        except DBAPIError as error:
            raise _unavailable(error) from error


def _unavailable(error: DBAPIError) -> DatabaseUnavailable:
    return DatabaseUnavailable(
        f"fleet database does not answer ({error.orig}): check EDGELOOP_DATABASE, then run again"
    )


def _version(connection: sa.Connection, service: str, digest: str | None) -> str | None:
    query = sa.select(releases.c.version).where(releases.c.service == service, releases.c.digest == digest)
    found = connection.execute(query).scalar()
    return None if found is None else str(found)


def _wait_for_writers(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA busy_timeout = 10000")
    connection.execute("PRAGMA journal_mode = WAL")


def _aware(row: dict[str, Any]) -> dict[str, Any]:
    """SQLite forgets the time zone; everything here is UTC."""
    return {k: v.replace(tzinfo=UTC) if isinstance(v, datetime) and v.tzinfo is None else v for k, v in row.items()}


def describe(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with times as text, for printing."""
    return [{k: v.isoformat() if isinstance(v, datetime) else v for k, v in row.items()} for row in rows]
