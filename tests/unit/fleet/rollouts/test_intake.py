"""Hearing: what is new is written once, what is broken is left out, what is missing is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from edgeloop.clients.broker import BrokerUnavailable, MemoryBroker, MemoryHub
from edgeloop.fleet.rollouts.intake import Heard, hear
from edgeloop.fleet.rollouts.roster import STALE, Roster
from edgeloop.fleet.rollouts.verdict import judge_ring
from edgeloop.samples.cohorts import EVERYONE
from edgeloop.samples.records import Report
from edgeloop.samples.strategy import Thresholds
from edgeloop.samples.topics import FLUSH, alive_topic, report_topic
from edgeloop.store.database import Database, DatabaseUnavailable

AT = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    found = Database(f"sqlite:///{tmp_path / 'fleet.db'}")
    yield found
    found.close()


@pytest.fixture
def roster(database: Database) -> Roster:
    return Roster(database)


@pytest.fixture
def hub() -> MemoryHub:
    return MemoryHub()


@pytest.fixture
def node(hub: MemoryHub) -> MemoryBroker:
    return hub.connect("node")


@pytest.fixture
def cloud(hub: MemoryHub) -> MemoryBroker:
    return hub.connect("cloud")


def say(broker: MemoryBroker, node: str = "n1", at: datetime = AT, **changes: Any) -> None:
    values: dict[str, Any] = {"node": node, "ring": 0, "service": "rater", "at": at, "serving": "sha256:1"}
    report = Report.model_validate(values | changes)
    broker.publish(report_topic(node, report.service), report.model_dump_json().encode(), retain=True)


def alive(broker: MemoryBroker, node: str, online: bool) -> None:
    broker.publish(alive_topic(node), json.dumps({"node": node, "online": online}).encode(), retain=True)


def test_all_is_heard_once(roster: Roster, node: MemoryBroker, hub: MemoryHub) -> None:
    say(node)
    say(node, "n2", ring=1)
    alive(node, "n1", online=True)
    first = hub.connect("first")
    assert hear(roster, first, AT) == Heard(complete=True, heard=3)
    assert hear(roster, first, AT) == Heard(complete=True, heard=0)
    assert hear(roster, hub.connect("second"), AT) == Heard(complete=True, heard=0)
    say(node, answered=5)
    assert hear(roster, first, AT + SECOND).heard == 1
    assert roster.rings("rater") == {0: 1, 1: 1}


def test_what_was_heard_before_is_not_heard_anew(roster: Roster, node: MemoryBroker, hub: MemoryHub) -> None:
    """A dead node's last word is as old as it is, however often the broker tells it."""
    say(node)
    hear(roster, hub.connect("one"), AT)
    hear(roster, hub.connect("two"), AT + STALE)
    assert [row.online for row in roster.rows()] == [False]


def test_a_word_that_was_old_when_first_heard_is_old(roster: Roster, node: MemoryBroker, cloud: MemoryBroker) -> None:
    say(node, at=AT - timedelta(days=3))
    say(node, "ahead", at=AT + timedelta(days=3))
    hear(roster, cloud, AT)
    assert [(row.node, row.online) for row in roster.rows()] == [("ahead", True), ("n1", False)]
    assert [row.heard_at for row in roster.rows()] == [AT, AT - timedelta(days=3)]


def test_a_node_with_a_wrong_clock_is_online_while_it_speaks(
    roster: Roster, node: MemoryBroker, hub: MemoryHub
) -> None:
    slow = timedelta(hours=2)
    say(node, at=AT - slow)
    hear(roster, hub.connect("one"), AT)
    later = AT + timedelta(seconds=30)
    say(node, at=later - slow)
    hear(roster, hub.connect("two"), later)  # retained, and new since a moment ago
    assert roster.rows()[0].heard_at == later
    much_later = AT + timedelta(hours=1)
    listening = hub.connect("three")
    hear(roster, listening, much_later)
    say(node, at=much_later - slow)
    hear(roster, listening, much_later + STALE)  # live
    assert roster.rows()[0].heard_at == much_later + STALE


def test_the_last_will_is_heard(roster: Roster, node: MemoryBroker, cloud: MemoryBroker) -> None:
    alive(node, "n1", online=True)
    say(node)
    hear(roster, cloud, AT)
    assert roster.rows()[0].online
    alive(node, "n1", online=False)
    hear(roster, cloud, AT)
    assert not roster.rows()[0].online
    alive(node, "n1", online=True)
    hear(roster, cloud, AT)
    assert roster.rows()[0].online


def test_a_node_that_the_broker_forgets_is_not_forgotten(
    roster: Roster, node: MemoryBroker, cloud: MemoryBroker
) -> None:
    say(node)
    hear(roster, cloud, AT)
    node.publish(report_topic("n1", "rater"), b"", retain=True)
    assert hear(roster, cloud, AT) == Heard(complete=True, heard=0)
    assert roster.names("rater", 0) == ["n1"]


HOSTILE = [
    b"{",
    b"[]",
    b"null",
    b"\xff\xfe",
    b'{"node": "odd", "ring": 0, "service": "rater"}',
    b'{"node": "odd", "ring": 0, "service": "rater", "at": "0001-01-01T00:00:00+14:00"}',
    b'{"node": "another", "ring": 0, "service": "rater", "at": "2026-11-21T12:00:00Z"}',
    b'{"node": "odd", "ring": 0, "service": "other", "at": "2026-11-21T12:00:00Z"}',
    b'{"node": "odd", "ring": 99999999999999999999, "service": "rater", "at": "2026-11-21T12:00:00Z"}',
    b'{"node": "odd", "ring": -1, "service": "rater", "at": "2026-11-21T12:00:00Z"}',
    b'{"node": "odd", "ring": 0, "service": "rater", "at": "2026-11-21T12:00:00Z", "serving": "%s"}' % (b"x" * 81),
    b'{"node": "odd", "ring": 0, "service": "rater", "at": "2026-11-21T12:00:00Z", "profile": "%s"}' % (b"x" * 65),
]


@pytest.mark.parametrize("payload", HOSTILE, ids=range(len(HOSTILE)))
def test_what_does_not_parse_is_left_out_and_named(
    roster: Roster, node: MemoryBroker, cloud: MemoryBroker, caplog: pytest.LogCaptureFixture, payload: bytes
) -> None:
    say(node, "good")
    node.publish(report_topic("odd", "rater"), payload, retain=True)
    node.publish(alive_topic("odd"), payload if payload[:1] != b"{" else b"{}", retain=True)
    node.publish(FLUSH, b"now")
    assert hear(roster, cloud, AT).complete
    assert [row.node for row in roster.rows()] == ["good"]
    assert report_topic("odd", "rater") in caplog.text
    assert alive_topic("odd") in caplog.text


def test_counts_that_cannot_be_are_none(roster: Roster, node: MemoryBroker, cloud: MemoryBroker) -> None:
    broken: dict[str, Any] = {
        "release_answered": -4,
        "audit": {"labelled": 3, "agreed": 9},
        "confidence_histogram": [1, 2],
    }
    say(node, serving="sha256:2", last_error="a\0b", **broken)
    hear(roster, cloud, AT)
    found = roster.evidence("rater", 0, "sha256:2", None, "s", EVERYONE, Thresholds(), AT).release
    assert (found.answered, found.audited, found.agreed, sum(found.histogram)) == (0, 3, 3, 0)
    assert roster.rows()[0].last_error == "ab"


def test_what_a_report_says_becomes_evidence(roster: Roster, node: MemoryBroker, cloud: MemoryBroker) -> None:
    counted: dict[str, Any] = {
        "release_answered": 50,
        "release_failed": 2,
        "latency_ms_p99": 3.0,
        "confidence_histogram": [5] * 10,
    }
    say(node, **counted, audit={"labelled": 9, "agreed": 8})
    hear(roster, cloud, AT)
    say(node, serving="sha256:2", answered=999, release_answered=40, confidence_histogram=[1] * 10)
    hear(roster, cloud, AT)
    found = roster.evidence("rater", 0, "sha256:2", "sha256:1", "s", EVERYONE, Thresholds(), AT)
    former = found.former
    assert found.release.answered == 40
    assert (former.answered, former.failed, former.audited, former.agreed, former.histogram) == (50, 2, 9, 8, (5,) * 10)
    assert judge_ring(found, Thresholds(), timedelta()).outcome == "pass"


def test_what_could_not_be_written_is_heard_again(
    roster: Roster, node: MemoryBroker, cloud: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    hear(roster, cloud, AT)
    say(node)

    def fail(*_: object, **__: object) -> None:
        raise DatabaseUnavailable("away")

    with monkeypatch.context() as broken:
        broken.setattr(Roster, "note", fail)
        with pytest.raises(DatabaseUnavailable):
            hear(roster, cloud, AT)
    assert hear(roster, cloud, AT).heard == 1


def test_hearing_nothing_is_written_down_now_and_then(roster: Roster, cloud: MemoryBroker) -> None:
    def last() -> datetime | None:
        heard = roster.last_heard()
        return heard["at"] if heard else None

    for later, expected in ((0, 0), (4, 0), (6, 6), (10, 6), (12, 12), (5, 5)):
        hear(roster, cloud, AT + later * SECOND)
        assert last() == AT + expected * SECOND


def test_a_lost_connection_is_an_error(roster: Roster, cloud: MemoryBroker) -> None:
    cloud.close()
    with pytest.raises(BrokerUnavailable):
        hear(roster, cloud, AT)
