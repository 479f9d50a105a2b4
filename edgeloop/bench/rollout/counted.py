"""Counts what a control plane asks of others: the object store, the database and the broker, by kind of call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from edgeloop.clients.broker import Broker, Gathered
from edgeloop.clients.objects import ObjectStore

_OBJECT_CALLS = {"get": "get", "get_range": "get", "size": "head", "put": "put", "create": "put", "list": "list"}
_OBJECT_CALLS |= {"delete": "delete", "move": "move"}
_WRITES = ("INSERT", "UPDATE", "DELETE")


class _Counting:
    """Stands before ``part``, and counts calls under the names given."""

    def __init__(self, part: Any, names: dict[str, str], calls: Counter[str]) -> None:
        self._part = part
        self._names = names
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        if name in self._names:
            self._calls[self._names[name]] += 1
        return getattr(self._part, name)


def counted_store(store: ObjectStore, calls: Counter[str]) -> ObjectStore:
    """``store``; ``objects get``, ``objects put`` … are counted."""
    found: Any = _Counting(store, {name: f"objects {kind}" for name, kind in _OBJECT_CALLS.items()}, calls)
    return found  # type: ignore[no-any-return]


class CountedBroker:
    """A broker; ``broker publish`` and ``broker read`` are counted, and how many messages came with each read."""

    def __init__(self, broker: Broker, calls: Counter[str]) -> None:
        self._broker = broker
        self._calls = calls
        self.came: list[int] = []

    def publish(self, topic: str, payload: bytes, **more: Any) -> None:
        self._calls["broker publish"] += 1
        self._broker.publish(topic, payload, **more)

    def gather(self, topic_filter: str, mark: str, *, timeout: float = 30.0) -> Gathered:
        self._calls["broker read"] += 1
        found = self._broker.gather(topic_filter, mark, timeout=timeout)
        self.came.append(len(found.messages))
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)


def count_sql(calls: Counter[str]) -> Callable[[], None]:
    """Count what every engine of this process does until the returned is called: ``sql read``, ``write``, ``commit``.

    A statement for many rows is one. A transaction in which nothing was written is no commit.
    """

    def execute(connection: sa.Connection, _cursor: Any, statement: str, *_: Any) -> None:
        is_write = statement.lstrip().upper().startswith(_WRITES)
        calls["sql write" if is_write else "sql read"] += 1
        connection.info["wrote"] = connection.info.get("wrote", False) or is_write

    def commit(connection: sa.Connection) -> None:
        if connection.info.pop("wrote", False):
            calls["sql commit"] += 1

    sa.event.listen(sa.Engine, "before_cursor_execute", execute)
    sa.event.listen(sa.Engine, "commit", commit)

    def stop() -> None:
        sa.event.remove(sa.Engine, "before_cursor_execute", execute)
        sa.event.remove(sa.Engine, "commit", commit)

    return stop
