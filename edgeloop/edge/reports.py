"""What a node says of itself: a retained report per service, and a retained word on whether it is there at all.

MQTT allows one last will per connection and a node has a report per service, so the will speaks for the node,
on ``edgeloop/v1/nodes/<node>/alive``: ``{"node": …, "ring": …, "online": false, "at": …}``. A reader of the
reports takes a node for offline when this says so. ``at`` in the will is when the node connected.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from edgeloop.clients.broker import Message
from edgeloop.edge.clock import NodeClock
from edgeloop.edge.memory import resident_bytes
from edgeloop.edge.releases.agent import Agent
from edgeloop.edge.releases.place import Place
from edgeloop.edge.selection.selector import Selectors
from edgeloop.edge.spool.spool import Spool
from edgeloop.edge.stats import ServiceStats, Stats
from edgeloop.samples.records import Report, now
from edgeloop.samples.topics import alive_topic, report_topic


def alive_message(node: str, ring: int, online: bool) -> Message:
    """The retained word on whether a node is there."""
    body = {"node": node, "ring": ring, "online": online, "at": now().isoformat()}
    return Message(alive_topic(node), json.dumps(body).encode(), retain=True)


class Reporter:
    """Makes the reports of one node; ``folder`` is on the disk whose free space it tells."""

    def __init__(
        self,
        node: str,
        place: Place,
        agent: Agent,
        stats: Stats,
        spool: Spool,
        selectors: Selectors,
        clock: NodeClock,
        folder: Path,
        *,
        profile: str | None = None,
    ) -> None:
        self._node = node
        self._place = place
        self._agent = agent
        self._stats = stats
        self._spool = spool
        self._selectors = selectors
        self._clock = clock
        self._folder = folder
        self._profile = profile

    def report(self, service: str, *, online: bool = True) -> Report:
        """The state of ``service`` on this node now."""
        state, error = self._agent.status(service)
        waiting, waiting_bytes = self._spool.counts(service)
        with self._stats.lock:
            numbers = counted(self._stats.services[service])
        if starved := self._selectors.starved(service):
            numbers["audit"]["starved"] = starved
        return Report(
            node=self._node,
            ring=self._place.ring,
            service=service,
            at=now(),
            wanted=state.wanted,
            serving=self._agent.serving(service),
            previous=state.previous,
            online=online,
            spool_samples=waiting,
            spool_bytes=waiting_bytes,
            dropped=self._spool.dropped[service],
            accepting=self._spool.accepting,
            disk_free_bytes=self._free(),
            memory_bytes=resident_bytes(),
            clock_jumps=self._clock.jumps,
            refused=state.given_up.release if state.given_up else None,
            staged=self._agent.staged(service),
            profile=self._profile,
            last_error=error or self._spool.last_error,
            **numbers,
        )

    def condition(self) -> tuple[object, ...]:
        """What is reported as soon as it changes: whether the spool takes captures, and what fails now."""
        errors = [self._agent.status(service)[1] for service in self._stats.services]
        return self._spool.accepting, self._spool.last_error, *errors

    def _free(self) -> int | None:
        try:
            return shutil.disk_usage(self._folder).free
        except OSError:
            return None

    def message(self, service: str, *, online: bool = True) -> Message:
        """The report as it is published."""
        body = self.report(service, online=online).model_dump_json().encode()
        return Message(report_topic(self._node, service), body, retain=True)


def counted(stats: ServiceStats) -> dict[str, Any]:
    """The fields of a report that are counters; for whoever holds the lock of the stats."""
    return {
        "answered": stats.outcomes["ok"],
        "failed": stats.failed,
        "captured": stats.captured.total(),
        "not_captured": stats.not_captured,
        "passed": dict(stats.passed),
        "audit": dict(stats.audit),
        "release_answered": stats.release_answered,
        "release_failed": stats.release_failed,
        "latency_ms_p50": stats.quantile(0.5),
        "latency_ms_p99": stats.quantile(0.99),
        "confidence_histogram": list(stats.histogram),
    }
