"""The load test finds what a server of known capacity takes, and says when it was not the server that gave up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from edgeloop.twin import load
from edgeloop.twin.asking import NoAnswer
from edgeloop.twin.load import Offered, find_break, offer
from edgeloop.twin.records import Step

SERVICE_SECONDS = 0.01
BUDGET_MS = 60.0


@pytest.fixture(autouse=True)
def _short_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "STEP_SECONDS", 0.5)
    monkeypatch.setattr(load, "LEAST", 25)


def server(width: int = 1, seconds: float = SERVICE_SECONDS) -> Callable[[int], object]:
    """Takes ``width`` requests at a time, each for ``seconds``."""
    room = threading.Semaphore(width)

    def send(_number: int) -> None:
        with room:
            time.sleep(seconds)

    return send


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], object]:
    """One request at a time, each a little over 10 ms, on a clock that nothing else on the machine disturbs."""

    def offer(_send: object, rate: float, budget_ms: float, _threads: int = 1) -> Offered:
        count = max(load.LEAST, round(rate * load.STEP_SECONDS))
        free, took = 0.0, []
        for number in range(count):
            due = number / rate
            free = max(free, due) + 1.05 * SERVICE_SECONDS
            took.append(free - due)
        p99 = float(np.quantile(took, 0.99)) * 1000
        return Offered(Step(rate=rate, asked=count, failed=0, p99_ms=p99, held=p99 <= budget_ms), False)

    monkeypatch.setattr(load, "offer", offer)
    return lambda _number: None


def test_a_server_breaks_at_its_capacity(queue: Callable[[int], object]) -> None:
    found = find_break(queue, BUDGET_MS, start=40)
    assert found.breaks_at is not None and found.holds_at is not None
    # About 95 a second. In a step the queue must grow past the budget.
    assert 50 <= found.holds_at < found.breaks_at <= 150, found
    assert found.breaks_at / found.holds_at < 1.25
    assert found.limit == "node"


def test_rates_are_those_of_the_profile(queue: Callable[[int], object]) -> None:
    found = find_break(queue, BUDGET_MS * 4, start=40, slowdown=4)
    assert found.breaks_at is not None
    assert 8 <= found.breaks_at <= 38, found
    assert found.breaks_at * 4 in {step.rate for step in found.steps}


def test_what_is_quick_enough_here_may_be_too_slow_there() -> None:
    found = find_break(server(width=50), 300, start=40, slowdown=40, longest=2)
    assert found.holds_at is None and found.breaks_at is not None and found.breaks_at <= 1.0


def test_a_first_rate_that_was_too_high_is_lowered_until_one_holds(queue: Callable[[int], object]) -> None:
    found = find_break(queue, BUDGET_MS, start=150, longest=4)
    assert found.holds_at is not None and found.breaks_at is not None
    assert not found.steps[0].held and 50 <= found.holds_at < found.breaks_at <= 150


def test_a_late_request_is_late_although_it_was_answered_at_once() -> None:
    """Four threads at 10 ms each take 400 requests/s; at 1000 the others wait for a thread, and that counts."""
    found = offer(server(width=4), 1000, BUDGET_MS, threads=4).step
    assert not found.held and found.p99_ms > 250


def test_a_request_that_fails_breaks_a_rate() -> None:
    def send(number: int) -> None:
        if number == 7:
            raise NoAnswer("HTTP 429: too many")

    found = offer(send, 200, BUDGET_MS)
    assert (found.step.failed, found.step.held, found.step.asked) == (1, False, 100)
    assert offer(lambda _: None, 200, 60_000).step.held


def test_a_moment_of_the_machine_is_no_break() -> None:
    calls = iter(range(10**6))

    def send(number: int) -> None:
        if next(calls) == 3:
            raise NoAnswer("once")
        time.sleep(0.001)

    found = find_break(send, 60_000, start=50, longest=1.2)
    assert [step.held for step in found.steps[:2]] == [False, True]
    assert found.holds_at is not None and found.breaks_at is None and found.limit == "time"


def test_a_sender_that_has_its_hands_full_says_nothing_of_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "_HALVINGS", 0)

    def send(_number: int) -> None:
        until = time.thread_time() + 0.002
        while time.thread_time() < until:
            pass

    assert not offer(server(), 300, 5.0).strained
    assert find_break(send, 50.0, start=1000, longest=1).limit == "sender"


def test_what_is_too_slow_for_a_step_has_no_figure() -> None:
    found = find_break(server(), BUDGET_MS, start=load.LEAST / 10, longest=1)
    assert (found.steps, found.holds_at, found.breaks_at, found.limit) == ([], None, None, "time")
