"""Windows keep to the clock on the wall, through summer time and the date line, or are refused when planned."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeloop.fleet.rollouts.windows import BadWindow, check_windows, opens
from edgeloop.samples.strategy import Window

AUTUMN = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)  # a Saturday


def window(begin: str, end: str, zone: str = "Europe/Berlin", **more: Any) -> Window:
    return Window.model_validate({"from": begin, "to": end, "zone": zone, **more})


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type,misc]


def test_without_windows_it_is_always_open() -> None:
    assert opens([], AUTUMN) == AUTUMN


@pytest.mark.parametrize(
    ("which", "at", "expected"),
    [
        (window("10:00", "14:00"), utc(2026, 11, 21, 12), utc(2026, 11, 21, 12)),
        (window("10:00", "13:00"), utc(2026, 11, 21, 12), utc(2026, 11, 22, 9)),
        (window("13:00", "14:00"), utc(2026, 11, 21, 12), utc(2026, 11, 21, 12)),
        (window("22:00", "04:00"), utc(2026, 11, 21, 2, 59), utc(2026, 11, 21, 2, 59)),
        (window("22:00", "04:00"), utc(2026, 11, 21, 3, 0), utc(2026, 11, 21, 21)),
        (window("22:00", "04:00", days=["fri"]), utc(2026, 11, 21, 2), utc(2026, 11, 21, 2)),
        (window("22:00", "04:00", days=["sat"]), utc(2026, 11, 21, 2), utc(2026, 11, 21, 21)),
        (window("02:00", "04:00", days=["thu"]), utc(2026, 11, 26, 3), utc(2026, 12, 3, 1)),
        (window("00:00", "00:00", days=["sun"]), utc(2026, 11, 22, 22, 59), utc(2026, 11, 22, 22, 59)),
        (window("02:00", "04:00", date="2026-12-24"), AUTUMN, utc(2026, 12, 24, 1)),
        (window("02:00", "04:00", date="2026-11-20"), AUTUMN, None),
        (window("23:00", "01:00", date="2026-11-21"), utc(2026, 11, 21, 23, 30), utc(2026, 11, 21, 23, 30)),
    ],
)
def test_it_opens(which: Window, at: datetime, expected: datetime | None) -> None:
    assert opens([which], at) == expected


def test_several_windows_are_open_together() -> None:
    both = [window("02:00", "03:00"), window("20:00", "21:00", "America/New_York")]
    assert opens(both, utc(2026, 11, 21, 12)) == utc(2026, 11, 22, 1)  # New York at 20:00 and Berlin at 02:00
    assert opens(both, utc(2026, 11, 22, 1, 30)) == utc(2026, 11, 22, 1, 30)
    assert opens([window("02:00", "04:00", date="2026-11-01"), both[0]], AUTUMN) == utc(2026, 11, 22, 1)


@pytest.mark.parametrize(
    ("which", "opening", "closing"),
    [
        # The hour that happens twice belongs to the window whole.
        (window("02:00", "02:30", days=["sun"]), utc(2026, 10, 25, 0), utc(2026, 10, 25, 1, 30)),
        (window("01:15", "01:45", "America/New_York", days=["sun"]), utc(2026, 11, 1, 5, 15), utc(2026, 11, 1, 6, 45)),
        # Half an hour of summer time.
        (
            window("01:30", "02:00", "Australia/Lord_Howe", days=["sun"]),
            utc(2026, 4, 4, 14, 30),
            utc(2026, 4, 4, 15, 30),
        ),
        # A night that is an hour short is short, not shifted.
        (window("22:00", "04:00", days=["sat"]), utc(2027, 3, 27, 21), utc(2027, 3, 28, 2)),
    ],
)
def test_summer_time(which: Window, opening: datetime, closing: datetime) -> None:
    tick = timedelta(seconds=1)
    assert opens([which], opening - tick) == opening
    assert opens([which], opening) == opening
    assert opens([which], closing - tick) == closing - tick
    assert opens([which], closing) != closing


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC", "Asia/Kathmandu"]),
    st.integers(0, 47),
    st.integers(0, 47),
    st.sets(st.sampled_from(["mon", "wed", "sat", "sun"])),
    st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31)),
)
def test_it_agrees_with_a_look_at_every_quarter_of_an_hour(
    zone: str, begin: int, end: int, days: set[str], start: datetime
) -> None:
    def text(half: int) -> str:
        return f"{half // 2:02d}:{half % 2 * 30:02d}"

    which = window(text(begin), text(end), zone, days=sorted(days))
    start = start.replace(minute=0, second=0, microsecond=0, tzinfo=UTC)
    try:
        check_windows([which], start, days=12)
    except BadWindow:
        return
    found = opens([which], start)
    assert found is not None
    for number in range(int((found - start) / timedelta(minutes=15))):
        at = start + number * timedelta(minutes=15)
        assert opens([which], at) == found
        assert _is_turning(zone, at) or not _is_open(which, at)
    assert _is_turning(zone, found) or _is_open(which, found)


def _is_open(which: Window, at: datetime) -> bool:
    """By the wall clock alone."""
    local = at.astimezone(ZoneInfo(which.zone))
    days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
    today, yesterday = days[local.weekday()], days[local.weekday() - 1]
    clock, wanted = local.time(), which.days or days
    if which.begin < which.end:
        inside = which.begin <= clock < which.end and today in wanted
    else:
        inside = (clock >= which.begin and today in wanted) or (clock < which.end and yesterday in wanted)
    return inside


def _is_turning(zone: str, at: datetime) -> bool:
    """Whether the clock is set within three hours of ``at``: no wall clock tells then."""
    near = {(at + timedelta(hours=h)).astimezone(ZoneInfo(zone)).utcoffset() for h in (-3, 0, 3)}
    return len(near) > 1


BAD = [
    (
        window("02:30", "05:00", days=["sat", "sun"]),
        "window 02:30 Europe/Berlin does not exist on 2027-03-28: begin at 03:00 or leave sun out",
    ),
    (
        window("00:30", "02:15"),
        "window 02:15 Europe/Berlin does not exist on 2027-03-28: end at 03:00 or leave sun out",
    ),
    (
        window("23:00", "02:15", days=["sat"]),
        "window 02:15 Europe/Berlin does not exist on 2027-03-28: end at 03:00 or leave sat out",
    ),
    (
        window("02:30", "05:00", date="2027-03-28"),
        "window 02:30 Europe/Berlin does not exist on 2027-03-28: begin at 03:00",
    ),
    (
        window("02:00", "05:00", "America/New_York"),
        "window 02:00 America/New_York does not exist on 2027-03-14: begin at 03:00 or leave sun out",
    ),
    (
        window("02:10", "05:00", "Australia/Lord_Howe"),
        "window 02:10 Australia/Lord_Howe does not exist on 2027-10-03: begin at 02:30 or leave sun out",
    ),
    (
        window("02:00", "04:00", date="2026-11-20"),
        "window 02:00-04:00 Europe/Berlin was over on 2026-11-20 and never opens again: name a day to come",
    ),
    (
        window("02:00", "04:00", date="2027-01-01", days=["fri"]),
        "window 02:00-04:00 Europe/Berlin names both a day and days of the week: leave `date` or `days` out",
    ),
    (
        window("02:00Z", "04:00Z"),
        "window 02:00-04:00 Europe/Berlin has an offset in its times: give times of day, and `zone`",
    ),
]


@pytest.mark.parametrize(("which", "message"), BAD, ids=[message[:60] for _, message in BAD])
def test_what_cannot_be_kept_is_refused(which: Window, message: str) -> None:
    with pytest.raises(BadWindow) as caught:
        check_windows([window("10:00", "12:00"), which], AUTUMN)
    assert str(caught.value) == message


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../etc/passwd", "Europe", "/etc/localtime"])
def test_an_unknown_zone_is_refused(zone: str) -> None:
    for use in (check_windows, opens):
        with pytest.raises(BadWindow, match="in no time zone that is known here"):
            use([window("10:00", "12:00", zone)], AUTUMN)


def test_a_day_that_was_skipped_is_refused() -> None:
    apia = window("02:00", "04:00", "Pacific/Apia")
    with pytest.raises(BadWindow, match="does not exist on 2011-12-30: begin at 00:00 or leave fri out"):
        check_windows([apia], utc(2011, 12, 20), days=20)
    check_windows([window("02:00", "04:00", "Pacific/Apia", days=["sat"])], utc(2011, 12, 20), days=20)


def test_what_can_be_kept_passes() -> None:
    check_windows([window("03:00", "05:00"), window("22:00", "01:00"), window("00:00", "00:00", "UTC")], AUTUMN)
    check_windows([], AUTUMN)
