"""A node whose ring the channel changes: it follows the new one without a restart, and knows it after one."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from edgeloop.clients.objects import StoreUnavailable
from edgeloop.edge.connecting import Filters
from edgeloop.edge.node import Node
from edgeloop.edge.releases import loading
from edgeloop.samples.moves import MalformedMoves
from edgeloop.samples.topics import alive_topic, wanted_topic
from tests.unit.edge.batches import Ring, RingNode
from tests.unit.edge.fakes import SERVICE, load_fake, publish
from tests.unit.edge.whole import Whole, until

FLEET = "default"


@pytest.fixture
def ring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ring:
    monkeypatch.setattr(loading, "load_model", load_fake)
    return Ring(tmp_path)


@pytest.fixture
def pair(ring: Ring) -> tuple[str, str]:
    """Releases of ring 0 and of ring 1."""
    found = publish(ring.store, "1"), publish(ring.store, "2")
    for number, release in enumerate(found):
        ring.approve(release)
        ring.publisher.point(SERVICE, number, release.digest)
    return found[0].digest, found[1].digest


def move(ring: Ring, **rings: int | None) -> bool:
    return ring.publisher.move(FLEET, lambda: rings)


def test_a_node_that_moves_follows_its_new_ring_and_comes_back(ring: Ring, pair: tuple[str, str]) -> None:
    moved, other = ring.nodes("n1", "n2")
    for number in (None, 1, None):
        move(ring, n1=number)
        for node in (moved, other):
            node.poll()
        assert moved.serving == pair[number or 0] and moved.place.ring == (number or 0)
        assert other.serving == pair[0] and other.place.ring == 0
    assert ring.publisher.moves(FLEET) == {}


def test_where_it_is_survives_a_restart_without_a_store(ring: Ring, pair: tuple[str, str]) -> None:
    node = ring.node("n1")
    move(ring, n1=1)
    node.poll()
    ring.store.away = True
    node.boot()
    with pytest.raises(StoreUnavailable):
        node.poll()
    assert (node.place.ring, node.serving) == (1, pair[1])
    ring.store.away = False
    move(ring, n1=None)
    node.poll()
    node.boot()
    assert (node.place.ring, node.serving) == (0, pair[0])


def test_a_move_into_a_ring_that_has_nothing_changes_nothing_that_serves(ring: Ring, pair: tuple[str, str]) -> None:
    node = ring.node("n1")
    node.poll()
    move(ring, n1=7)
    assert node.poll() is False
    assert (node.place.ring, node.serving) == (7, pair[0])


def test_what_was_not_read_whole_moves_nobody(ring: Ring, pair: tuple[str, str]) -> None:
    node = ring.node("n1")
    node.poll()
    move(ring, n1=1)
    [key] = [info.key for info in ring.store.list("channel/targets/fleets")]
    ring.store.flip(key)
    with pytest.raises(Exception, match="channel cannot be believed"):
        node.poll()
    assert (node.place.ring, node.serving) == (0, pair[0])
    ring.store.flip(key)
    assert node.poll() is True and node.serving == pair[1]


def test_the_record_of_another_fleet_is_no_record_of_this_one(ring: Ring, pair: tuple[str, str]) -> None:
    """The key of the rings is stolen, and the record of one fleet put in the place of another's."""
    from edgeloop.fleet.draft import Draft
    from edgeloop.fleet.repository import Repository
    from edgeloop.samples.moves import moves_object, moves_target
    from edgeloop.samples.records import digest, now

    ring.publisher.move("other", lambda: {"n1": 1})
    node = ring.node("n1")
    node.poll()
    assert node.place.ring == 0

    def swap(draft: Draft) -> bool:
        target = draft.targets("rings").targets[moves_target("other")]
        data = ring.store.get(moves_object("other", "sha256:" + target.hashes["sha256"]))
        mine = type(target)(len(data), target.hashes, moves_target(FLEET))
        draft.edit("rings").targets[mine.path] = mine
        draft.contents[moves_object(FLEET, digest(data))] = data
        return True

    Repository(ring.store, ring.keys, now).commit(swap)
    with pytest.raises(MalformedMoves, match="of fleet other"):
        node.poll()
    assert (node.place.ring, node.serving) == (0, pair[0])


def test_the_record_is_read_only_when_it_changed(ring: Ring, pair: tuple[str, str]) -> None:
    node = ring.node("n1")
    move(ring, n2=1)
    node.poll()
    third = publish(ring.store, "3")
    ring.run(third)
    node.poll()
    assert node.serving == third.digest
    assert not [key for key in ring.store.gets if "fleets" in key]


@pytest.mark.parametrize("restarted", [False, True])
def test_a_node_that_comes_to_a_ring_in_the_middle_of_its_batches_is_of_one(ring: Ring, restarted: bool) -> None:
    from edgeloop.fleet.channel import Pointing
    from edgeloop.samples.cohorts import EVERYONE, NOBODY
    from edgeloop.samples.releases import Next

    old, new = publish(ring.store, "1"), publish(ring.store, "2")
    for one in (old, new):
        ring.approve(one)
    ring.publisher.point(SERVICE, 0, old.digest)
    node = RingNode(ring, "n1")
    node.poll()
    move(ring, n1=1)
    for below, expected in ((NOBODY, old), (EVERYONE, new)):
        coming = Next(release=new.digest, salt="s", below=below)
        ring.publisher.point_many(SERVICE, {1: Pointing(old.digest, coming)})
        if restarted:
            node.boot()
        node.poll()
        assert node.serving == expected.digest
        assert node.staged == (new.digest if below == NOBODY else None)


@pytest.mark.parametrize("early", [False, True], ids=["heard", "before it was heard"])
def test_reports_words_and_nudges_are_of_the_new_ring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, early: bool
) -> None:
    whole = Whole(tmp_path, monkeypatch)
    nudged, add = threading.Event(), Filters.add

    def add_late(filters: Filters, topic: str) -> None:
        assert nudged.wait(60)
        add(filters, topic)

    if early:
        monkeypatch.setattr(Filters, "add", add_late)
    first, second = publish(whole.store, "1"), publish(whole.store, "2")
    whole.want(first)

    def told() -> bool:
        report = whole.report()
        [word] = whole.cloud.collect_retained(alive_topic("n1"))
        return report is not None and (report.ring, json.loads(word.payload)["ring"]) == (1, 1)

    async def work(node: Node) -> None:
        await until(lambda: (report := whole.report()) and report.serving == first.digest)
        whole.publisher.move(FLEET, lambda: {"n1": 1})
        whole.cloud.publish(wanted_topic(SERVICE, 0), b"", retain=True)
        await until(told)
        whole.publisher.approve(SERVICE, second.digest)
        whole.publisher.point(SERVICE, 1, second.digest)
        whole.cloud.publish(wanted_topic(SERVICE, 1), b"", retain=True)  # it looks once an hour else
        nudged.set()
        await until(lambda: (report := whole.report()) and report.serving == second.digest)
        assert wanted_topic(SERVICE, 1) in json.loads((node.settings.state / "subscriptions.json").read_text())

    whole.run(work, poll_seconds=3600)
    found = whole.report()
    assert found is not None and (found.ring, found.online) == (1, False)

    async def again(_node: Node) -> None:
        await until(lambda: (report := whole.report()) and report.online and report.ring == 1)

    def away(*_: object) -> bytes:
        raise StoreUnavailable("memory:", "away")

    monkeypatch.setattr(whole.store, "get_range", away)
    whole.run(again, poll_seconds=3600)
