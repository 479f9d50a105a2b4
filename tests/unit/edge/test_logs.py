"""Lines of the node's log: whole JSON each, and not the same a thousand times."""

from __future__ import annotations

import json
import logging

from edgeloop.edge.logs import JsonLines, Repeats


def record(message: str, at: float, **extra: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": "edgeloop.edge", "levelno": 30, "levelname": "WARNING", "msg": message})
    made.created = at
    made.__dict__.update(extra)
    return made


def written(records: list[logging.LogRecord]) -> list[dict[str, object]]:
    repeats, lines = Repeats(), JsonLines()
    return [json.loads(lines.format(each)) for each in records if repeats.filter(each)]


def test_a_line_is_one_json_object_with_what_was_given() -> None:
    (line,) = written([record("not\ncaptured", 0.0, service="digits", error="full")])
    assert line["message"] == "not\ncaptured" and line["level"] == "warning"
    assert (line["service"], line["error"], line["at"]) == ("digits", "full", "1970-01-01T00:00:00+00:00")


def test_what_repeats_is_left_out_and_counted() -> None:
    lines = written([record("not captured", n / 1000, service="digits") for n in range(1000)])
    assert len(lines) == 5
    lines = written([record("not captured", n / 100, service="digits") for n in range(2500)])
    assert len(lines) == 15
    assert [line["left_out"] for line in lines if "left_out" in line] == [995, 995]


def test_other_lines_and_other_services_are_not_held_back() -> None:
    mixed = [record(message, 0.0, service=service) for message in "abc" for service in "xyz" for _ in range(5)]
    assert len(written(mixed)) == 45


def test_a_clock_that_goes_back_silences_nobody() -> None:
    assert len(written([record("a", at) for at in (1000.0,) * 9 + (1.0,)])) == 6
