"""A slow card holds up who waits for it, and nobody who only asks."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeloop.edge.spool import ledger
from edgeloop.edge.spool.spool import Limits, Spool
from tests.unit.edge.spooled import sample


class Card:
    """Syncs at once, or, once it is slow, when :attr:`go` is set."""

    def __init__(self) -> None:
        self.slow = False
        self.asked = threading.Event()
        self.go = threading.Event()

    def sync(self, file: int) -> None:
        self._wait()
        os.fsync(file)

    def sync_path(self, _: Path) -> None:
        self._wait()

    def _wait(self) -> None:
        if self.slow:
            self.asked.set()
            assert self.go.wait(60)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    made = Card()
    monkeypatch.setattr(ledger, "sync", made.sync_path)
    return made


def is_answered(spool: Spool) -> bool:
    """Whether somebody who asks for the size hears it before the card has synced."""
    asking = threading.Thread(target=lambda: spool.size, daemon=True)
    asking.start()
    asking.join(20)
    return not asking.is_alive()


def cut(spool: Spool) -> Callable[[], object]:
    """A record is written and not synced yet when the log is cut."""
    wait = spool.begin(sample(1))

    def work() -> None:
        spool.cut(everything=True)
        wait()

    return work


def fill(spool: Spool) -> Callable[[], object]:
    """The last record that fits in the log."""
    spool.append(sample(1))
    return lambda: spool.append(sample(2))


@pytest.mark.parametrize("begin", [cut, fill])
@pytest.mark.parametrize("what", ["bytes", "names"])
def test_the_size_is_told_while_a_log_is_sealed(
    tmp_path: Path, card: Card, begin: Callable[[Spool], Callable[[], object]], what: str
) -> None:
    spool = Spool(tmp_path, Limits(samples=2), fsync=card.sync if what == "bytes" else os.fsync)
    work = threading.Thread(target=begin(spool))
    card.slow = True
    work.start()
    assert card.asked.wait(10)
    answered = is_answered(spool)
    card.go.set()
    work.join()
    assert answered
    assert [path.suffix for path in tmp_path.glob("*.*.*.*")] == [".sealed"]
    spool.close()
