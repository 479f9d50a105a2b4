"""When batches may begin: maintenance windows by the clock on the wall, with what summer time does to it.

A boundary that does not exist on some day is refused when a rollout is planned, not on the night it comes. An hour that
happens twice belongs to the window whole: it opens with the first and closes with the second.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from edgeloop.errors import BadInput
from edgeloop.samples.strategy import Day, Window

_DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = timedelta(days=1)
#: Days within which a window of weekdays opens again, however long a night is skipped.
_AHEAD = 15


class BadWindow(BadInput):
    """A maintenance window that cannot be kept."""


def opens(windows: Sequence[Window], at: datetime) -> datetime | None:
    """The moment from which a batch may begin: ``at`` itself when one is open, else the next opening, in UTC.

    None when none opens any more. Without windows it is always open.

    Raises:
        BadWindow: a zone is not known.
    """
    if not windows:
        return at
    found: list[datetime] = []
    for window in windows:
        for day in _days_near(window, at):
            begin, end = _span(window, day)
            if begin <= at < end:
                return at
            if begin > at and end > begin:
                found.append(begin)
    return min(found, default=None)


def check_windows(windows: Sequence[Window], at: datetime, days: int = 400) -> None:
    """Refuse what cannot be kept on any of the next ``days`` days.

    Raises:
        BadWindow: a boundary in the gap of summer time, an unknown zone, a window that is empty or never opens.
    """
    for window in windows:
        _check_form(window)
        for day in _days_of(window, at.astimezone(_zone(window)).date(), days):
            _check_exists(window, day)
        if window.date and _span(window, window.date)[1] <= at:
            raise BadWindow(f"{_name(window)} was over on {window.date} and never opens again: name a day to come")


def _check_form(window: Window) -> None:
    _zone(window)
    if window.date and window.days:
        raise BadWindow(f"{_name(window)} names both a day and days of the week: leave `date` or `days` out")
    if window.begin.tzinfo or window.end.tzinfo:
        raise BadWindow(f"{_name(window)} has an offset in its times: give times of day, and `zone`")


def _check_exists(window: Window, day: date) -> None:
    zone = _zone(window)
    ends = day + _DAY if window.end <= window.begin else day
    for verb, when in (("begin", datetime.combine(day, window.begin)), ("end", datetime.combine(ends, window.end))):
        real = when.replace(tzinfo=zone).astimezone(UTC).astimezone(zone)
        if real.replace(tzinfo=None) == when:
            continue
        instead = _after_gap(when, zone)
        otherwise = "" if window.date else f" or leave {_DAYS[day.weekday()]} out"
        raise BadWindow(
            f"window {when:%H:%M} {window.zone} does not exist on {when.date()}: {verb} at {instead:%H:%M}{otherwise}"
        )
    begin, end = _span(window, day)
    if end <= begin:
        raise BadWindow(f"{_name(window)} is empty on {day}: let it end later")


def _after_gap(when: datetime, zone: ZoneInfo) -> datetime:
    """The first time of day after the gap that ``when`` lies in."""
    low, high = (when.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (1, 0))
    before = low.astimezone(zone).utcoffset()
    while high - low > timedelta(seconds=1):
        middle = low + (high - low) / 2
        low, high = (middle, high) if middle.astimezone(zone).utcoffset() == before else (low, middle)
    return (high + timedelta(seconds=0.5)).replace(microsecond=0).astimezone(zone)


def _span(window: Window, day: date) -> tuple[datetime, datetime]:
    """From and to in UTC, of the window that begins on ``day``."""
    zone = _zone(window)
    last = day + _DAY if window.end <= window.begin else day
    begin = datetime.combine(day, window.begin, zone).replace(fold=0)
    end = datetime.combine(last, window.end, zone).replace(fold=1)
    return begin.astimezone(UTC), end.astimezone(UTC)


def _days_near(window: Window, at: datetime) -> Iterator[date]:
    return _days_of(window, at.astimezone(_zone(window)).date() - 2 * _DAY, _AHEAD + 2)


def _days_of(window: Window, first: date, count: int) -> Iterator[date]:
    if window.date:
        yield window.date
        return
    for number in range(count):
        day = first + number * _DAY
        if not window.days or _DAYS[day.weekday()] in window.days:
            yield day


def _zone(window: Window) -> ZoneInfo:
    try:
        return _load(window.zone)
    except (KeyError, ValueError, OSError) as error:
        raise BadWindow(
            f"{_name(window)} is in no time zone that is known here: write a name such as Europe/Berlin"
        ) from error


@lru_cache(maxsize=64)
def _load(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def _name(window: Window) -> str:
    return f"window {window.begin:%H:%M}-{window.end:%H:%M} {window.zone}"
