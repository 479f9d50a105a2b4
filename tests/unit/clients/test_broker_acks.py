"""Every message is handed out once, whatever is lost on the way and however numbers are used again."""

from __future__ import annotations

import random
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.clients import broker_acks
from edgeloop.clients.broker_acks import AckOrder, Delivery

_IN_FLIGHT = 4


class Session:
    """A broker that gives each message the lowest free number, the client, and the wires between them."""

    def __init__(self, messages: int, draw: random.Random) -> None:
        self._draw = draw
        self._queue = deque(range(messages))
        self._flying: dict[int, int] = {}
        self._down: deque[tuple[int, int, bool]] = deque()
        self._up: deque[int] = deque()
        self._in_work: list[Delivery] = []
        self.handed_out: list[int] = []
        self._order = AckOrder(self._up.append)

    def send(self) -> None:
        free = set(range(1, _IN_FLIGHT + 1)) - self._flying.keys()
        if free and self._queue:
            mid = min(free)
            self._flying[mid] = self._queue.popleft()
            self._down.append((mid, self._flying[mid], False))

    def arrive(self) -> None:
        if self._down:
            mid, message, again = self._down.popleft()
            delivery = self._order.arrived(mid, message, again)
            if delivery is not None:
                self.handed_out.append(message)
                self._in_work.append(delivery)

    def finish(self) -> None:
        if self._in_work:
            self._in_work.pop(self._draw.randrange(len(self._in_work)))()

    def acknowledge(self) -> None:
        if self._up:
            del self._flying[self._up.popleft()]

    def cut(self) -> None:
        self._down.clear()
        self._up.clear()
        self._order.lost()
        self._order.stands(same_session=True)
        self._down.extend((mid, message, True) for mid, message in self._flying.items())

    def drain(self) -> None:
        while self._queue or self._flying:
            for step in (self.send, self.arrive, self.finish, self.acknowledge):
                step()


@given(
    st.lists(st.sampled_from(["send", "arrive", "finish", "acknowledge", "cut"]), min_size=60, max_size=200),
    st.randoms(),
)
def test_each_message_of_a_session_is_handed_out_once(steps: list[str], draw: random.Random) -> None:
    session = Session(40, draw)
    for step in steps:
        getattr(session, step)()
    session.drain()
    assert sorted(session.handed_out) == list(range(40))


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_acks, "_REMEMBERED", 10)
    order = AckOrder(lambda mid: None)
    for mid in range(1, 100):
        delivery = order.arrived(mid, mid, False)
        assert delivery is not None
        delivery()
    order.lost()
    order.stands(same_session=True)
    assert [mid for mid in range(1, 100) if order.arrived(mid, mid, True) is None] == list(range(90, 100))
