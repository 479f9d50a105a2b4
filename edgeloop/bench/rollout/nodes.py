"""Simulated nodes, all in one process: they say what real nodes say, where and when they say it.

Each ring's record is read and verified by one real client of the channel, for all its nodes: ten thousand clients would
take 24 MB each. What a node then does is one step of a state machine: nothing is fetched but the manifest, and nothing
is loaded.

Run as ``python -m edgeloop.bench.rollout.nodes SITE_JSON``; it ends with SIGTERM.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from edgeloop.bench.rollout.site import SERVICE, Member, Site, read_site
from edgeloop.clients.broker import Ack, Broker, Message, connect
from edgeloop.edge.files import write_durably
from edgeloop.edge.releases.channel import Channel
from edgeloop.edge.releases.wishes import wishes_of
from edgeloop.samples.records import Report, now
from edgeloop.samples.releases import Wanted
from edgeloop.samples.topics import FLUSH, alive_topic, report_topic, wanted_topic

#: As a node's own default.
REPORT_SECONDS = 30.0
_CONNECTIONS = 4
#: Messages on their way to the broker at once.
_UNDER_WAY = 1000
_AWAY_SINCE = timedelta(hours=1)
#: Stands for a ring in ``obeyed.json``: how often all nodes were asked to report.
ASKED = -1


@dataclass(slots=True)
class Node:
    """What one node is doing."""

    member: Member
    wanted: str | None = None
    serving: str | None = None
    staged: str | None = None
    refused: str | None = None
    since: float = 0.0
    """When it loaded what it serves, by the monotonic clock."""

    def obey(self, record: Wanted, bad: str) -> bool:
        """Do as the ring's record says; whether that changed anything. A failing node cannot load ``bad``."""
        wishes = wishes_of(record, self.member.name)
        before = self.wanted, self.serving, self.staged, self.refused
        self.wanted, self.staged = record.release, wishes.later.release if wishes.later else None
        wish = wishes.now.release
        self.refused = wish if self.member.is_failing and wish == bad else None
        if self.refused is None and wish != self.serving:
            self.serving, self.since = wish, time.monotonic()
        return before != (self.wanted, self.serving, self.staged, self.refused)

    def report(self) -> bytes:
        """As a node's reporter makes it: ten answers a second since the release was loaded."""
        answered = int((time.monotonic() - self.since) * 10)
        one = Report(
            node=self.member.name,
            ring=self.member.ring,
            service=SERVICE,
            at=now() - _AWAY_SINCE if self.member.is_offline else now(),
            wanted=self.wanted,
            serving=self.serving,
            staged=self.staged,
            refused=self.refused,
            last_error="the model does not load: simulated" if self.refused else None,
            answered=answered,
            failed=answered // 500,
            release_answered=answered,
            release_failed=answered // 500,
            captured=answered // 100,
            latency_ms_p50=2.5,
            latency_ms_p99=8.0,
            confidence_histogram=[answered * share // 100 for share in (0, 0, 1, 2, 4, 8, 10, 15, 25, 35)],
            passed={"interval": answered - answered // 100},
            audit={"labelled": answered // 100, "agreed": answered // 110},
            disk_free_bytes=8_000_000_000,
            memory_bytes=90_000_000,
        )
        return one.model_dump_json().encode()

    def alive(self) -> bytes:
        body = {"node": self.member.name, "ring": self.member.ring, "online": not self.member.is_offline}
        return json.dumps({**body, "at": now().isoformat()}).encode()


class Mouth:
    """Publishes for all nodes, on a few connections, with a bound on what is under way."""

    def __init__(self, brokers: list[Broker]) -> None:
        self._brokers = brokers
        self._free = threading.Semaphore(_UNDER_WAY)

    def say(self, topic: str, payload: bytes) -> None:
        self._free.acquire()
        broker = self._brokers[hash(topic) % len(self._brokers)]
        broker.publish_then(topic, payload, lambda _: self._free.release(), retain=True)

    def finish(self) -> None:
        """Wait until the broker has acknowledged all."""
        for _ in range(_UNDER_WAY):
            self._free.acquire()
        self._free.release(_UNDER_WAY)


class Fleet:
    """All nodes of a site."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.nodes = [Node(member) for member in site.members()]
        self._rings: dict[int, list[Node]] = {ring: [] for ring in range(site.rings)}
        for node in self.nodes:
            self._rings[node.member.ring].append(node)
        self._channels = {
            ring: Channel(lambda: site.store, site.root, site.folder / f"ring-{ring}", ring) for ring in self._rings
        }
        self._nudged: queue.Queue[int] = queue.Queue()
        self._brokers = [connect(site.broker, f"bench-nodes-{n}") for n in range(_CONNECTIONS)]
        self._mouth = Mouth(self._brokers)
        self._obeyed: dict[int, int] = {}
        self._round = time.monotonic()
        self._said = 0

    def run(self) -> None:
        """Follow the channel and report, until the process is ended."""
        for ring, nodes in self._rings.items():
            self._obey(ring, nodes)
        for node in self.nodes:
            self._mouth.say(alive_topic(node.member.name), node.alive())
        self._report(self.nodes)
        for ring in self._rings:
            self._brokers[0].subscribe(wanted_topic(SERVICE, ring), self._nudge)
        self._brokers[0].subscribe(FLUSH, self._nudge)
        self._write()
        while True:
            self._turn()

    def _nudge(self, message: Message, ack: Ack) -> None:
        self._nudged.put(ASKED if message.topic == FLUSH else int(message.topic.split("/")[3]))
        ack()

    def _turn(self) -> None:
        self._report(self._due())
        try:
            ring = self._nudged.get(timeout=0.05)
        except queue.Empty:
            return
        there = [node for node in self._rings.get(ring, self.nodes) if not node.member.is_offline]
        if ring == ASKED:
            self._obeyed[ASKED] = self._obeyed.get(ASKED, 0) + 1
        self._report(there if ring == ASKED else self._obey(ring, there))
        self._write()

    def _obey(self, ring: int, nodes: Iterable[Node]) -> list[Node]:
        channel = self._channels[ring]
        record = channel.wanted(SERVICE)
        assert record is not None, "the site points every ring before its nodes begin"
        for name in {record.release, record.next.release if record.next else record.release}:
            channel.release(SERVICE, name)
        self._obeyed[ring] = record.sequence
        return [node for node in nodes if node.obey(record, self._site.new)]

    def _due(self) -> list[Node]:
        """Nodes whose time to report has come; they are spread over the interval."""
        share = (time.monotonic() - self._round) / REPORT_SECONDS
        until = min(int(share * len(self.nodes)), len(self.nodes))
        found = self.nodes[self._said : until]
        self._said = until
        if share >= 1:
            self._round, self._said = time.monotonic(), 0
        return [node for node in found if not node.member.is_offline]

    def _report(self, nodes: Iterable[Node]) -> None:
        for node in nodes:
            self._mouth.say(report_topic(node.member.name, SERVICE), node.report())

    def _write(self) -> None:
        """Say which records were obeyed, when the broker has all that followed from it."""
        self._mouth.finish()
        write_durably(self._site.folder / "obeyed.json", json.dumps(self._obeyed).encode())


if __name__ == "__main__":
    Fleet(read_site(Path(sys.argv[1]))).run()
