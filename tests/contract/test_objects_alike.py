"""Memory and directory, step by step: whatever is done to both, they answer alike and list alike."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from edgeloop.clients.objects import DirectoryStore, MemoryStore, ObjectMissing, ObjectStore
from edgeloop.errors import BadInput
from tests.contract.stores import keys_of

_part = st.sampled_from(["a", "a-", "a.b", "b", "é", "Z", "%2F"])
_key = st.lists(_part, min_size=1, max_size=3).map("/".join)


class SameBehaviour(RuleBasedStateMachine):
    """Whatever is done to both stores, they answer alike and list alike."""

    def __init__(self) -> None:
        super().__init__()
        self.directory: ObjectStore
        self.memory: ObjectStore

    @initialize()
    def start(self) -> None:
        assert MACHINE_ROOT is not None
        self.memory, self.directory = MemoryStore(), DirectoryStore(MACHINE_ROOT / uuid4().hex)

    def _both(self, call: Callable[[ObjectStore], object]) -> None:
        answers: list[object] = []
        for store in (self.memory, self.directory):
            try:
                answers.append(call(store))
            except (BadInput, ObjectMissing) as error:
                answers.append(type(error))
        assert answers[0] == answers[1]

    @rule(key=_key, data=st.binary(max_size=5))
    def put(self, key: str, data: bytes) -> None:
        self._both(lambda store: store.put(key, data))

    @rule(key=_key, data=st.binary(max_size=5))
    def create(self, key: str, data: bytes) -> None:
        self._both(lambda store: store.create(key, data))

    @rule(key=_key)
    def delete(self, key: str) -> None:
        self._both(lambda store: store.delete(key))

    @rule(source=_key, goal=_key)
    def move(self, source: str, goal: str) -> None:
        self._both(lambda store: store.move(source, goal))

    @rule(key=_key, start=st.integers(-1, 6), end=st.integers(-1, 6))
    def read(self, key: str, start: int, end: int) -> None:
        self._both(lambda store: (store.get(key), store.size(key)))
        self._both(lambda store: store.get_range(key, start, end))

    @rule(prefix=_key)
    def list_folder(self, prefix: str) -> None:
        self._both(lambda store: keys_of(store, prefix))

    @invariant()
    def same_objects(self) -> None:
        if hasattr(self, "memory"):
            self._both(lambda store: [(one.key, one.size, store.get(one.key)) for one in store.list("")])


MACHINE_ROOT: Path | None = None


def test_memory_and_directory_cannot_be_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "MACHINE_ROOT", tmp_path)
    run_state_machine_as_test(SameBehaviour, settings=settings(max_examples=40, stateful_step_count=30, deadline=None))
