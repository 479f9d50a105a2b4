"""One engine for all SQL state, and the few ways in which it is read and written."""

from __future__ import annotations

import random
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError

from edgeloop.errors import BadInput, Unavailable

_CREATE_SECONDS = 10.0
#: What passes by itself when several open an empty database at once: SQLite refuses its change to a write-ahead log
#: without waiting, and each table is committed alone.
_PASSES = re.compile("locked|already exists|duplicate key")


class DatabaseUnavailable(Unavailable):
    """The fleet database does not answer."""


class BadDatabaseUrl(BadInput):
    """The fleet database's URL cannot be used."""


class Database:
    """Reads and writes through one engine; every method raises DatabaseUnavailable when it does not answer."""

    def __init__(self, url: str) -> None:
        try:
            self._engine = sa.create_engine(url, pool_pre_ping=True)
        except (sa.exc.ArgumentError, ModuleNotFoundError) as error:
            raise BadDatabaseUrl(
                f"EDGELOOP_DATABASE {url!r} cannot be used ({error}): give a SQLAlchemy URL"
            ) from error
        self._made: set[sa.MetaData] = set()
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", _wait_for_writers)

    @property
    def dialect(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return self._engine.dialect.name

    def create(self, meta: sa.MetaData) -> None:
        """Make the tables of ``meta`` that are missing; another process that makes them at the same time wins.

        Looked at once: stores are made anew as often as one likes.
        """
        if meta in self._made:
            return
        try:
            _past_others(lambda: meta.create_all(self._engine))
        except DBAPIError as error:
            raise _unavailable(error) from error
        self._made.add(meta)

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """One transaction: committed at the end of the block, rolled back by any error. IntegrityError goes through."""
        try:
            with self._engine.begin() as connection:
                yield connection
        except IntegrityError:
            raise
        except DBAPIError as error:
            raise _unavailable(error) from error

    def insert(self, table: sa.Table, **values: Any) -> bool:
        """Write one row; False when one with its key was there."""
        try:
            with self.writing() as connection:
                connection.execute(sa.insert(table).values(**values))
        except IntegrityError:
            return False
        return True

    def one(self, query: sa.Select[Any]) -> dict[str, Any] | None:
        """The first row."""
        rows = self.all(query.limit(1))
        return rows[0] if rows else None

    def all(self, query: sa.Select[Any]) -> list[dict[str, Any]]:
        """All rows, their times in UTC."""
        try:
            with self._engine.connect() as connection:
                return [_aware(dict(row)) for row in connection.execute(query).mappings()]
        except DBAPIError as error:
            raise _unavailable(error) from error

    def close(self) -> None:
        """Give all connections back."""
        self._engine.dispose()


def _unavailable(error: DBAPIError) -> DatabaseUnavailable:
    return DatabaseUnavailable(
        f"fleet database does not answer ({error.orig}): check EDGELOOP_DATABASE, then run again"
    )


def _wait_for_writers(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA busy_timeout = 10000")
    _past_others(lambda: connection.execute("PRAGMA journal_mode = WAL"))


def _past_others(step: Callable[[], object]) -> None:
    """Do ``step``, again for as long as others who open the same empty database are in its way."""
    until = time.monotonic() + _CREATE_SECONDS
    while True:
        try:
            step()
            return
        except (DBAPIError, sqlite3.OperationalError) as error:
            if not _PASSES.search(str(getattr(error, "orig", error))) or time.monotonic() > until:
                raise
        time.sleep(random.uniform(0.005, 0.05))  # not as long as another, who would be in the way once more


def _aware(row: dict[str, Any]) -> dict[str, Any]:
    """SQLite forgets the time zone; everything here is UTC."""
    return {k: v.replace(tzinfo=UTC) if isinstance(v, datetime) and v.tzinfo is None else v for k, v in row.items()}
