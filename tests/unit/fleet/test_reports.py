"""The fleet is what its nodes say: the newest word of each counts, the last will speaks for the dead."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from edgeloop.clients.broker import MemoryBroker, MemoryHub
from edgeloop.fleet.reports import STALE, collect_reports, is_online, status_of
from edgeloop.samples.records import Report, now
from edgeloop.samples.topics import alive_topic, report_topic


def report(node: str = "n1", **changes: Any) -> Report:
    values: dict[str, Any] = {"node": node, "ring": 0, "service": "rater", "at": now()}
    return Report.model_validate(values | changes)


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryHub().connect("test")


def say(broker: MemoryBroker, *reports: Report) -> None:
    for one in reports:
        broker.publish(report_topic(one.node, one.service), one.model_dump_json().encode(), retain=True)


def alive(broker: MemoryBroker, node: str, online: bool) -> None:
    body = {"node": node, "ring": 0, "online": online, "at": now().isoformat()}
    broker.publish(alive_topic(node), json.dumps(body).encode(), retain=True)


def test_an_empty_fleet(broker: MemoryBroker) -> None:
    assert collect_reports(broker) == []


def test_reports_are_in_order_and_the_newest_counts(broker: MemoryBroker) -> None:
    say(broker, report("b", ring=1), report("c"), report("a"), report("a", service="another"), report("c", answered=7))
    found = collect_reports(broker)
    assert [(r.service, r.ring, r.node) for r in found] == [
        ("another", 0, "a"),
        ("rater", 0, "a"),
        ("rater", 0, "c"),
        ("rater", 1, "b"),
    ]
    assert found[2].answered == 7
    assert [r.node for r in collect_reports(broker, "another")] == ["a"]


@pytest.mark.parametrize("payload", [b"{", b"[]", b"null", b"{}", b'{"node": "x"}', b"\xff\xfe", b"5"])
def test_what_does_not_parse_is_left_out_and_named(
    broker: MemoryBroker, caplog: pytest.LogCaptureFixture, payload: bytes
) -> None:
    say(broker, report("good"))
    broker.publish(report_topic("odd", "rater"), payload, retain=True)
    broker.publish(alive_topic("odd"), payload, retain=True)
    assert [r.node for r in collect_reports(broker)] == ["good"]
    assert report_topic("odd", "rater") in caplog.text


def test_a_report_keeps_what_a_newer_node_says(broker: MemoryBroker) -> None:
    say(broker, report("n1", temperature=51))
    assert collect_reports(broker)[0].model_dump()["temperature"] == 51


def test_online_is_said_and_recent(monkeypatch: pytest.MonkeyPatch) -> None:
    at = now()
    monkeypatch.setattr("edgeloop.fleet.reports.now", lambda: at)
    assert is_online(report())
    assert not is_online(report(online=False))
    assert not is_online(report(at=at - STALE))
    assert is_online(report(at=at - STALE + timedelta(microseconds=1)))


def test_the_last_will_speaks_for_all_reports_of_its_node(broker: MemoryBroker) -> None:
    say(broker, report("dead"), report("dead", service="another"), report("well"))
    alive(broker, "dead", online=False)
    alive(broker, "well", online=True)
    assert {(r.node, r.service): is_online(r) for r in collect_reports(broker)} == {
        ("dead", "rater"): False,
        ("dead", "another"): False,
        ("well", "rater"): True,
    }
    alive(broker, "dead", online=True)
    assert all(is_online(r) for r in collect_reports(broker))


def test_status_is_the_part_about_what_runs_where() -> None:
    status = status_of(report(wanted="sha256:2", serving="sha256:1", online=False))
    assert (status.node, status.ring, status.service) == ("n1", 0, "rater")
    assert (status.wanted, status.serving, status.online) == ("sha256:2", "sha256:1", False)
