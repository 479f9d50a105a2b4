"""Looks are shared, kept for a moment, and outlive the next one's failure."""

from __future__ import annotations

import threading
from typing import Any

from edgeloop.web.glance import Glance


def test_a_look_is_kept_for_a_moment() -> None:
    looks: list[dict[str, Any]] = []

    def look() -> dict[str, Any]:
        looks.append({"number": len(looks)})
        return looks[-1]

    kept = Glance(look, keep=60)
    assert [kept().found, kept().found] == [{"number": 0}] * 2
    never = Glance(look, keep=0)
    assert [never().found, never().found] == [{"number": 1}, {"number": 2}]


def test_there_is_one_look_at_a_time() -> None:
    go_on, looks = threading.Event(), []

    def look() -> dict[str, Any]:
        looks.append(1)
        assert go_on.wait(30)
        return {}

    glance = Glance(look, keep=60)
    seen: list[Any] = []
    callers = [threading.Thread(target=lambda: seen.append(glance().found)) for _ in range(5)]
    for caller in callers:
        caller.start()
    go_on.set()
    for caller in callers:
        caller.join()
    assert seen == [{}] * 5
    assert looks == [1]


def test_the_last_look_is_shown_while_the_next_is_late() -> None:
    go_on, again = threading.Event(), threading.Event()

    def look() -> dict[str, Any]:
        if again.is_set():
            go_on.wait(30)
            return {"number": 2}
        again.set()
        return {"number": 1}

    # The first look is given all the time it takes, whatever else the machine does.
    glance = Glance(look, keep=0, patience=30)
    first = glance()
    glance._patience = 0.02
    late = glance()
    go_on.set()
    glance._patience = 30
    assert (first.found, first.late) == ({"number": 1}, None)
    assert (late.found, late.at) == ({"number": 1}, first.at)
    assert late.late is not None
    assert "still asking" in late.late
    assert glance().found == {"number": 2}


def test_the_last_look_is_shown_when_the_next_fails() -> None:
    looks = iter([{"number": 1}])
    glance = Glance(lambda: next(looks), keep=0)
    first, second = glance(), glance()
    assert (second.found, second.at) == (first.found, first.at)
    assert second.late is not None
    assert second.late.startswith("StopIteration")
