"""What a packed release says of itself: a report, so that a rollout judges a pod by its answers too.

It says no word on whether the pod is there, and no last one: Kubernetes knows that, and while a pod is replaced the old
one and the new one speak for the same node.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import secrets
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgeloop.edge.daemon import in_daemon
from edgeloop.edge.memory import resident_bytes
from edgeloop.edge.reports import counted
from edgeloop.errors import BadInput, EdgeloopError
from edgeloop.samples.records import Report, now
from edgeloop.samples.topics import report_topic

if TYPE_CHECKING:
    from edgeloop.clients.broker import Broker
    from edgeloop.edge.stats import Stats

_log = logging.getLogger(__name__)
_LONGEST_PAUSE = 15.0
#: A node's name as topics and the cloud's tables take it.
_NODE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")


class UnusableNode(BadInput):
    """A node has a name under which nobody would hear it."""


@dataclass(frozen=True)
class Teller:
    """Whom to tell, and as whom."""

    broker: str = field(repr=False)
    """``mqtt[s]://[user:password@]host:port``"""
    node: str
    ring: int
    seconds: float = 30.0
    """Between reports."""

    def report(self, service: str, release: str, profile: str | None, stats: Stats) -> Report:
        """The state of ``service``, whose ``release`` is served."""
        with stats.lock:
            numbers = counted(stats.services[service])
        return Report(
            node=self.node,
            ring=self.ring,
            service=service,
            at=now(),
            wanted=release,
            serving=release,
            profile=profile,
            memory_bytes=resident_bytes(),
            **numbers,
        )

    async def tell(self, service: str, release: str, profile: str | None, stats: Stats) -> None:
        """Report until cancelled, once connected and then every so often; without a broker, try again."""
        broker = await self._connected(service)
        try:
            while True:
                if broker.connected:
                    body = self.report(service, release, profile, stats).model_dump_json().encode()
                    sent = broker.publish_nowait(report_topic(self.node, service), body, retain=True)
                    sent.add_done_callback(_warn)
                await asyncio.sleep(self.seconds * random.uniform(0.8, 1.2))
        finally:
            # It may wait for a broker that hangs, which the answers under way must not.
            threading.Thread(target=broker.close, daemon=True).start()

    async def _connected(self, service: str) -> Broker:
        pause = 0.5
        while True:
            try:
                broker: Broker = await in_daemon(self._connect, service)
            except EdgeloopError as error:
                _log.warning("no broker", extra={"error": str(error)})
                await asyncio.sleep(pause * random.uniform(0.8, 1.2))
                pause = min(pause * 2, _LONGEST_PAUSE)
            else:
                return broker

    def _connect(self, service: str) -> Broker:
        from edgeloop.clients import broker as brokers  # who tells nobody does not pay for it

        # Two pods of one node must not end each other's connection.
        return brokers.connect(self.broker, f"edgeloop-pod-{service}-{self.node}-{secrets.token_hex(4)}")

    def check(self) -> None:
        """Whether reports can arrive.

        Raises:
            MalformedBrokerUrl: ``broker`` is no URL, or names a file that cannot be used.
            UnusableNode: the cloud hears no node of this name.
        """
        from edgeloop.clients.broker import parse_url

        parse_url(self.broker)
        if not _NODE.fullmatch(self.node):
            raise UnusableNode(
                f"{self.node!r:.80} cannot be the name of a node: give at most 128 letters, digits, dots, dashes or"
                " underscores as --node or EDGELOOP_NODE"
            )


def _warn(sent: Future[None]) -> None:
    """A broker that takes no reports of this user is told of: nobody would judge what nobody hears."""
    from edgeloop.clients.broker import BrokerRefused

    error = sent.exception()
    if isinstance(error, BrokerRefused):
        _log.warning("a report was refused", extra={"error": str(error)})
