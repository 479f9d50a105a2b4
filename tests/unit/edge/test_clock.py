"""Capture times on a clock that jumps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from edgeloop.edge.clock import FLOOR, SKEW_SECONDS, NodeClock


class Time:
    """A wall clock and a monotonic one, set by hand."""

    def __init__(self) -> None:
        self.wall = 1_800_000_000.0
        self.monotonic = 50.0

    def clock(self) -> NodeClock:
        return NodeClock(lambda: self.wall, lambda: self.monotonic)

    def pass_by(self, seconds: float, jump: float = 0.0) -> None:
        self.monotonic += seconds
        self.wall += seconds + jump


def test_two_captures_never_have_the_same_time() -> None:
    clock = Time().clock()
    times = [clock.now() for _ in range(100)]
    assert times == sorted(set(times))


def test_a_small_step_back_is_waited_out() -> None:
    time = Time()
    clock = time.clock()
    first = clock.now()
    time.pass_by(1, jump=-10)
    assert clock.now() == first + timedelta(microseconds=1) and clock.jumps == 0
    time.pass_by(20)
    assert clock.now().timestamp() == time.wall


def test_a_large_step_is_believed_and_counted() -> None:
    time = Time()
    clock = time.clock()
    for jump in (-3600.0, 7200.0):
        clock.now()
        time.pass_by(1, jump)
        assert clock.now().timestamp() == time.wall
    assert clock.jumps == 2


def test_a_device_whose_clock_is_far_off_is_marked() -> None:
    time = Time()
    clock = time.clock()
    at = clock.now()
    assert not clock.is_skewed(at - timedelta(seconds=SKEW_SECONDS - 1))
    assert clock.is_skewed(at - timedelta(seconds=SKEW_SECONDS + 1))
    assert clock.is_skewed(at + timedelta(seconds=SKEW_SECONDS + 1))


def test_a_clock_that_was_never_set_is_not_believed_and_blames_nobody() -> None:
    time = Time()
    time.wall = 30.0  # since 1970
    clock = time.clock()
    assert clock.is_skewed(clock.now()), "its own time is marked"
    assert not clock.is_skewed(datetime(2026, 5, 1, tzinfo=UTC)), "a device may know better"
    assert clock.is_skewed(FLOOR - timedelta(seconds=1)), "or was never set either"
    time.pass_by(1, jump=1_800_000_000.0)
    assert not clock.is_skewed(clock.now()) and clock.is_skewed(datetime(2026, 5, 1, tzinfo=UTC))


@given(st.floats(FLOOR.timestamp(), 4e9), st.lists(st.floats(-SKEW_SECONDS, SKEW_SECONDS), max_size=20))
def test_a_node_never_marks_its_own_time_once_its_clock_is_set(wall: float, steps: list[float]) -> None:
    time = Time()
    time.wall = wall
    clock = time.clock()
    for step in steps:
        assert not clock.is_skewed(clock.now())
        time.pass_by(1, max(step, FLOOR.timestamp() - time.wall))


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(-400, 400)), max_size=60))
def test_times_stay_near_the_wall_clock_and_in_order_between_jumps(steps: list[tuple[float, float]]) -> None:
    time = Time()
    clock = time.clock()
    last = clock.now()
    for seconds, jump in steps:
        jumps = clock.jumps
        time.pass_by(seconds, jump)
        at = clock.now()
        assert abs(at.timestamp() - time.wall) <= SKEW_SECONDS + 1
        assert at > last or clock.jumps > jumps
        last = at
