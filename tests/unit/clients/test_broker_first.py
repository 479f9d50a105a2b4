"""A first connection stands or fails once, whatever comes late."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from edgeloop.clients.broker_first import FirstConnection


def test_what_came_before_it_stands_is_done_first_and_in_order() -> None:
    first, done = FirstConnection(), list[int]()
    for number in range(3):
        first.then(lambda number=number: done.append(number))  # type: ignore[misc]
    assert not done
    assert first.begin()
    first.then(lambda: done.append(3))
    assert done == [0, 1, 2, 3]
    first.succeed()
    first.wait(0)
    assert not first.fail(RuntimeError("a later loss"))
    assert first.begin() and done == [0, 1, 2, 3]


def test_after_nobody_waits_any_more_nothing_is_done() -> None:
    first, done = FirstConnection(), list[int]()
    first.then(lambda: done.append(0))
    with pytest.raises(TimeoutError):
        first.wait(0)
    assert not first.begin()
    first.then(lambda: done.append(1))
    first.succeed()
    assert not first.fail(RuntimeError("late")) and not done


def test_after_it_failed_nothing_is_done() -> None:
    first, done = FirstConnection(), list[int]()
    first.then(lambda: done.append(0))
    assert first.fail(RuntimeError("refused"))
    first.then(lambda: done.append(1))
    assert not first.begin() and not done and not first._held
    with pytest.raises(RuntimeError, match="refused"):
        first.wait(0)


def test_one_that_is_lost_before_it_is_announced_has_failed() -> None:
    first, done = FirstConnection(), list[int]()
    assert first.begin()
    assert first.fail(RuntimeError("lost"))
    first.then(lambda: done.append(0))
    assert not done
    with pytest.raises(RuntimeError, match="lost"):
        first.wait(0)


def test_one_that_stands_while_the_wait_ends_is_not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    first, timeouts = FirstConnection(), [TimeoutError()]
    result = first._answer.result

    def late(timeout: float) -> None:
        if timeouts:
            raise timeouts.pop()
        result(timeout)

    monkeypatch.setattr(first._answer, "result", late)
    assert first.begin()
    with ThreadPoolExecutor(1) as pool:
        waited = pool.submit(first.wait, 10)
        first.succeed()
        waited.result(10)
