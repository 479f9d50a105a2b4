"""What a node does over and over beside answering: report, follow the channel, upload.

Whatever may hang, a store or a disk, is waited for in a thread: on the event loop it would hold up every answer.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from edgeloop.edge.config import NodeSettings
from edgeloop.edge.daemon import in_daemon
from edgeloop.edge.releases.agent import Agent
from edgeloop.edge.reports import Reporter
from edgeloop.edge.spool.spool import Spool
from edgeloop.errors import EdgeloopError

if TYPE_CHECKING:
    from edgeloop.clients.broker import Message
    from edgeloop.clients.objects import ObjectStore

_log = logging.getLogger(__name__)
_LONGEST_PAUSE = 60.0
#: How often a node looks whether there is something to report.
_WATCH_SECONDS = 1.0


class Loops:
    """The loops of one node, and the events that make them turn at once; an event is set in the loop's thread."""

    def __init__(
        self,
        settings: NodeSettings,
        agent: Agent,
        reporter: Reporter,
        spool: Spool,
        store: Callable[[], ObjectStore],
        send: Callable[[Message], None],
    ) -> None:
        self._settings = settings
        self._agent = agent
        self._reporter = reporter
        self._spool = spool
        self._store = store
        self._send = send
        self.report_now = asyncio.Event()
        self.flush_now = asyncio.Event()
        self.nudges = {name: asyncio.Event() for name in settings.services}

    async def report(self) -> None:
        """Publish the reports, every so often and when something changed."""
        while True:
            for service in self._settings.services:
                self._send(await in_daemon(self._reporter.message, service))
            await wait(self.report_now, self._settings.report_seconds)

    async def watch(self) -> None:
        """Report a change that nobody tells of: the disk, or what fails. Not in a loop that a store can hold up."""
        before = self._reporter.condition()
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            now = self._reporter.condition()
            if now != before:
                self.report_now.set()
            before = now

    async def poll(self, service: str) -> None:
        """Follow the channel of ``service``."""
        failures = 0
        while True:
            try:
                await in_daemon(self._poll_once, service)
                failures, pause = 0, self._settings.poll_seconds
            except (EdgeloopError, OSError) as error:
                failures += 1
                longest = max(_LONGEST_PAUSE, self._settings.poll_seconds)
                pause = min(2.0 ** min(failures, 10) / 2, longest)
                _log.warning("the channel was not followed", extra={"service": service, "error": str(error)})
            await wait(self.nudges[service], pause * random.uniform(0.8, 1.2))

    def _poll_once(self, service: str) -> None:
        self._agent.look()
        self._agent.poll(service, self._store())

    async def upload(self) -> None:
        """Send what waits in the spool."""
        failures = 0
        while True:
            flush = self.flush_now.is_set()
            self.flush_now.clear()
            try:
                await in_daemon(self.upload_once, flush)
                failures, pause = 0, 1.0
            except (EdgeloopError, OSError) as error:
                failures += 1
                pause = min(2.0 ** min(failures, 10) / 2, _LONGEST_PAUSE)
                _log.warning("the spool was not uploaded", extra={"error": str(error)})
            if flush:
                self.report_now.set()
            await wait_set(self.flush_now, pause)

    def upload_once(self, everything: bool, deadline: float | None = None) -> None:
        """Send what is due, or everything; no new segment is begun after ``deadline`` (monotonic seconds).

        Raises:
            EdgeloopError, OSError: the store or the disk is away; what was not sent stays.
        """
        self._spool.cut(everything=everything)
        self._spool.upload(self._store(), deadline=deadline)


async def wait(event: asyncio.Event, seconds: float) -> None:
    """Wait for ``event`` at most ``seconds``, and clear it."""
    await wait_set(event, seconds)
    event.clear()


async def wait_set(event: asyncio.Event, seconds: float) -> None:
    """Wait for ``event`` at most ``seconds``."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):  # wait_for of Python 3.11 loses a cancellation that comes with the event
            await event.wait()
