"""The channel: one record per ring whose number only grows, and a nudge that may be lost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.clients.broker import MemoryHub, Message
from edgeloop.clients.objects import MemoryStore
from edgeloop.fleet.channel import point_ring, wanted
from edgeloop.samples.releases import MalformedRelease, parse_wanted, wanted_key
from edgeloop.samples.topics import wanted_topic


class Nudges:
    """A node that listens to the nudges of a ring."""

    def __init__(self, hub: MemoryHub, ring: int = 0) -> None:
        self.seen: list[bytes] = []
        hub.connect("node", subscriptions={wanted_topic("rater", ring): self._take})

    def _take(self, message: Message, ack: Any) -> None:
        self.seen.append(message.payload)
        ack()


def test_before_the_first_release_there_is_no_record() -> None:
    assert wanted(MemoryStore(), "rater", 0) is None


def test_pointing_writes_the_record_and_nudges() -> None:
    store, hub = MemoryStore(), MemoryHub()
    nudges = Nudges(hub)
    record = point_ring(store, hub.connect("cloud"), "rater", 0, "sha256:1")
    assert (record.service, record.ring, record.release, record.sequence) == ("rater", 0, "sha256:1", 1)
    assert wanted(store, "rater", 0) == record
    assert wanted(store, "rater", 1) is None
    assert [parse_wanted(n, "nudge") for n in nudges.seen] == [record]


def test_a_nudge_is_retained_for_nodes_that_come_later() -> None:
    store, hub = MemoryStore(), MemoryHub()
    point_ring(store, hub.connect("cloud"), "rater", 0, "sha256:1")
    assert len(Nudges(hub).seen) == 1


@given(st.lists(st.sampled_from(["sha256:1", "sha256:2", "sha256:3"]), min_size=1, max_size=12))
def test_the_sequence_grows_with_each_change_and_only_then(releases: list[str]) -> None:
    store, hub = MemoryStore(), MemoryHub()
    nudges, broker = Nudges(hub), hub.connect("cloud")
    sequences = [point_ring(store, broker, "rater", 0, release).sequence for release in releases]
    changes = 1
    for at, release in enumerate(releases):
        changes += at > 0 and release != releases[at - 1]
        assert sequences[at] == changes
    assert len(nudges.seen) == changes
    record = wanted(store, "rater", 0)
    assert record is not None
    assert record.release == releases[-1]


def test_a_lost_nudge_does_not_lose_the_record(caplog: pytest.LogCaptureFixture) -> None:
    store, broker = MemoryStore(), MemoryHub().connect("cloud")
    broker.close()
    point_ring(store, broker, "rater", 3, "sha256:1")
    record = wanted(store, "rater", 3)
    assert record is not None
    assert record.release == "sha256:1"
    assert "nudge of ring 3 lost" in caplog.text


@pytest.mark.parametrize("data", [b"", b"{}", json.dumps({"service": "rater"}).encode()])
def test_a_record_that_does_not_parse_is_named_and_not_replaced(data: bytes) -> None:
    store, hub = MemoryStore(), MemoryHub()
    store.put(wanted_key("rater", 0), data)
    with pytest.raises(MalformedRelease, match=r"channel/rater/ring-0.json"):
        point_ring(store, hub.connect("cloud"), "rater", 0, "sha256:1")
    assert store.get(wanted_key("rater", 0)) == data
