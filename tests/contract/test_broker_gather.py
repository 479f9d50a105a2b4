"""What a broker keeps is read to its end, and a part is told as a part: in memory, on mosquitto and on amqtt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeloop.clients import broker as clients
from edgeloop.clients.broker import BrokerUnavailable, Gathered
from edgeloop.fleet.reports import collect_reports
from edgeloop.fleet.rollouts.intake import hear
from edgeloop.fleet.rollouts.roster import Roster
from edgeloop.samples.records import Report, now
from edgeloop.samples.topics import MARKS, NODES, report_topic
from edgeloop.store.database import Database
from tests.contract.test_broker import Site, site
from tests.servers.mosquitto import Mosquitto, Secured
from tests.servers.ports import wait_until

__all__ = ["site"]
pytestmark = pytest.mark.timeout(180)


def keep(talker: Any, *numbers: int, word: bytes = b"old") -> None:
    futures = [talker.publish_nowait(f"n/{number}", word, retain=True) for number in numbers]
    for future in futures:
        future.result(20)


def gather(listener: Any) -> Gathered:
    found = listener.gather("n/#", "n/mark")
    assert isinstance(found, Gathered)
    return found


def told(found: Gathered) -> dict[str, bytes]:
    return {message.topic: message.payload for message in found.messages}


def test_first_all_then_what_is_new(site: Site) -> None:
    talker, listener = site.connect("talker"), site.connect("listener")
    keep(talker, *range(30))
    first = gather(listener)
    assert (first.complete, first.whole, first.why) == (True, True, "")
    assert told(first) == {f"n/{number}": b"old" for number in range(30)}
    nothing = gather(listener)
    assert (nothing.complete, nothing.whole, list(nothing.messages)) == (True, False, [])
    keep(talker, 3, 4, 99)
    keep(talker, 3, word=b"new")
    later = gather(listener)
    assert (later.complete, later.whole) == (True, False)
    assert told(later) == {"n/3": b"new", "n/4": b"old", "n/99": b"old"}


def test_two_readers_do_not_disturb_each_other(site: Site) -> None:
    talker, one, two = site.connect("talker"), site.connect("one"), site.connect("two")
    keep(talker, 1)
    assert set(told(gather(one))) == {"n/1"}
    assert set(told(gather(two))) == {"n/1"}
    keep(talker, 2)
    for reader in (one, two):
        found = gather(reader)
        assert found.complete
        assert {topic for topic in told(found) if "mark" not in topic} == {"n/2"}


def test_all_is_read_again_when_asked_and_after_a_lost_connection(site: Site) -> None:
    connections: list[None] = []
    talker, listener = site.connect("talker"), site.connect("listener", on_connect=lambda: connections.append(None))
    keep(talker, 1, 2)
    gather(listener).again()
    again = gather(listener)
    assert (again.whole, set(told(again))) == (True, {"n/1", "n/2"})
    listener.drop()
    wait_until("the connection", lambda: len(connections) == 2)
    back = gather(listener)
    assert (back.complete, back.whole, set(told(back))) == (True, True, {"n/1", "n/2"})


def test_reading_once_beside_it_leaves_the_subscription(site: Site) -> None:
    talker, listener = site.connect("talker"), site.connect("listener")
    keep(talker, 1, 2)
    gather(listener)
    for _ in range(2):
        assert {m.topic for m in listener.collect_retained("n/#", mark="n/mark") if "mark" not in m.topic} == {
            "n/1",
            "n/2",
        }
    keep(talker, 3)
    found = gather(listener)
    assert (found.complete, found.whole) == (True, False)
    assert "n/3" in told(found)


def test_without_a_connection_it_is_an_error(site: Site) -> None:
    listener = site.connect("listener")
    gather(listener)
    listener.close()
    with pytest.raises(BrokerUnavailable):
        gather(listener)


@pytest.fixture
def short(tmp_path: Path) -> Iterator[Mosquitto]:
    """It keeps 100 messages for a client, beyond those on the way, and drops the others."""
    with Mosquitto(tmp_path / "short", options=["max_queued_messages 100"]) as server:
        yield server


def connect(server: Mosquitto, name: str, **options: Any) -> Any:
    return clients.connect(server.url, name, **options)


def test_what_mosquitto_drops_in_silence_is_missed(short: Mosquitto) -> None:
    talker, listener = connect(short, "talker"), connect(short, "listener")
    keep(talker, *range(400))
    for _ in range(2):
        found = gather(listener)
        assert (found.complete, found.whole) == (False, True)
        assert "max_queued_messages" in found.why
        assert 100 < len(found.messages) < 400
    for client in (talker, listener):
        client.close()


@pytest.mark.parametrize(("kept", "complete"), [(163, True), (164, True), (165, False), (200, False)])
def test_it_is_missed_from_the_first_message_on(short: Mosquitto, kept: int, complete: bool) -> None:
    """64 on the way and 100 in line: the mark is the 165th or does not fit."""
    talker, listener = connect(short, "talker"), connect(short, "listener")
    keep(talker, *range(kept - 1))
    found = gather(listener)
    assert (found.complete, len(found.messages)) == (complete, min(kept - 1, 164))
    for client in (talker, listener):
        client.close()


def test_a_wider_window_needs_no_longer_queue(short: Mosquitto) -> None:
    talker, listener = connect(short, "talker"), connect(short, "listener", receive_maximum=1000)
    keep(talker, *range(400))
    found = gather(listener)
    assert (found.complete, len(found.messages)) == (True, 400)
    for client in (talker, listener):
        client.close()


def test_more_than_may_be_on_the_way_is_read_anew(short: Mosquitto) -> None:
    """Between two reads a queue may have been full, and nobody can tell: only the whole is sure."""
    talker, listener = connect(short, "talker"), connect(short, "listener", receive_maximum=20)
    keep(talker, *range(50))
    assert gather(listener).complete
    keep(talker, *range(20), word=b"new")
    assert not gather(listener).whole
    keep(talker, *range(21), word=b"newer")
    again = gather(listener)
    assert (again.complete, again.whole, len(again.messages)) == (True, True, 50)
    for client in (talker, listener):
        client.close()


def test_a_mark_that_is_forbidden_is_named_and_what_comes_is_kept(tmp_path: Path) -> None:
    acl = f"user cloud\ntopic read {NODES}\nuser node\ntopic write {NODES}"
    secured = Secured(passwords={"cloud": "c", "node": "n"}, acl=acl)
    with Mosquitto(tmp_path / "strict", secured=secured) as server:
        node = clients.connect(server.url_for("node", "n"), "node")
        cloud = clients.connect(server.url_for("cloud", "c"), "cloud")
        report = Report(node="n1", ring=0, service="rater", at=now())
        node.publish(report_topic("n1", "rater"), report.model_dump_json().encode(), retain=True)
        roster = Roster(Database(f"sqlite:///{tmp_path / 'fleet.db'}"))
        heard = hear(roster, cloud, now())
        assert (heard.complete, heard.heard) == (False, 1)
        assert "access rules" in heard.why
        assert roster.names("rater", 0) == ["n1"]
        assert [r.node for r in collect_reports(cloud)] == ["n1"]
        for client in (node, cloud):
            client.close()


def test_ten_thousand_messages_are_all_read(tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "long", options=["max_queued_messages 0", "max_queued_bytes 268435456"]) as server:
        talker, listener = connect(server, "talker", receive_maximum=1000), connect(server, "listener")
        for start in range(0, 10_000, 500):
            keep(talker, *range(start, start + 500), word=b"x" * 600)
        found = listener.gather("n/#", MARKS.replace("edgeloop/v1/nodes", "n"))
        assert (found.complete, len(found.messages)) == (True, 10_000)
        for client in (talker, listener):
            client.close()
