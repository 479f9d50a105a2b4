"""One node as one process: puts the parts together, keeps them turning, and stops in good order.

A kill at any point loses nothing that was acknowledged: messages stay with the broker's session until their
work is on the disk, and what is on the disk is found again at the next start.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from edgeloop.clients import broker as brokers
from edgeloop.clients.broker import Message
from edgeloop.clients.objects import ObjectStore, open_store
from edgeloop.edge.allocator import give_back_large_blocks
from edgeloop.edge.config import NodeSettings, load_node_settings
from edgeloop.edge.connecting import Connection
from edgeloop.edge.daemon import in_daemon
from edgeloop.edge.files import write_durably
from edgeloop.edge.gateway import Gateway
from edgeloop.edge.http import Site, bind, make_app, make_server, new_event_loop
from edgeloop.edge.http.access import load_access
from edgeloop.edge.logs import start_logging
from edgeloop.edge.loops import Loops
from edgeloop.edge.memory import MemoryBudget
from edgeloop.edge.mqtt.intake import Intake
from edgeloop.edge.releases.agent import Agent
from edgeloop.edge.releases.blobs import Blobs
from edgeloop.edge.releases.channel import Channel, read_root
from edgeloop.edge.releases.downloads import Downloads
from edgeloop.edge.releases.loading import Loader
from edgeloop.edge.releases.place import Place
from edgeloop.edge.releases.state import StateFile, StateLock
from edgeloop.edge.reports import Reporter, alive_message
from edgeloop.edge.runtime import Runtime
from edgeloop.edge.selection.selector import Selectors
from edgeloop.edge.spool.spool import Limits, Spool
from edgeloop.edge.stats import Stats
from edgeloop.errors import BadInput, EdgeloopError
from edgeloop.samples.topics import FLUSH

if TYPE_CHECKING:
    import socket

    import uvicorn

_log = logging.getLogger(__name__)
#: Seconds to finish what is in work, and to upload, when asked to stop.
FINISH_SECONDS = 5.0
UPLOAD_SECONDS = 5.0


class UnusableState(BadInput):
    """The state directory cannot be written."""


class GatewayEnded(EdgeloopError):
    """The HTTP server ended while the node was to run."""


class Node:
    """The parts of one node."""

    def __init__(self, settings: NodeSettings) -> None:
        self.settings = settings
        name, folder = settings.node, settings.state
        self._lock = StateLock(folder)
        self._state = StateFile(folder)
        limits = Limits(
            settings.segment_samples, settings.segment_seconds, settings.segment_bytes, settings.spool_bytes
        )
        self._spool = Spool(folder / "spool", limits)
        self._stats = Stats(settings.services)
        self.runtime = Runtime()
        blobs = Blobs(folder, Downloads(settings.download_bytes_per_second), settings.profile)
        root = read_root(settings.trust) if settings.trust else None
        self._place = Place(settings.ring, name, settings.fleet, self._state.state.moved_to, self._moved)
        channel = Channel(self._open_store, root, folder / "channel", self._place)
        loader = Loader(MemoryBudget(settings.memory_mb), settings.endpoints, settings.profile)
        parts = (channel, self.runtime, blobs, self._state, self._stats)
        self._agent = Agent(*parts, node=name, loader=loader, changed=self._report_soon)
        selectors = Selectors(folder / "selection", bytes.fromhex(self._state.state.salt))
        grouped = settings.group is not None
        self._gateway = Gateway(name, self.runtime, self._spool, self._stats, selectors, grouped=grouped)
        self._intake = Intake(self._gateway, settings.inflight, self._stats.ignored)
        told = (self._agent, self._stats, self._spool, selectors, self._gateway.clock, folder)
        self._reporter = Reporter(name, self._place, *told, profile=settings.profile)
        self._pool = ThreadPoolExecutor(settings.inflight + 8, "node")
        self._store: ObjectStore | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._failure: Exception | None = None
        self._stop = asyncio.Event()
        self._booted = asyncio.Event()
        self._loops = Loops(settings, self._agent, self._reporter, self._spool, self._open_store, self._send)
        notices = {FLUSH: partial(self._from_thread, self._loops.flush_now)}
        nudges = {name: partial(self._from_thread, nudge) for name, nudge in self._loops.nudges.items()}
        self._connection = Connection(settings, self._intake, notices, nudges, self._report_soon, self._place)

    async def serve(self) -> None:
        """Run until asked to stop. Health is answered from the start on, while the models are still loaded."""
        self._loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop.set)
        web = self._web_server()
        serving = self._start(self._serve_http(*web)) if web else None
        tasks = [self._start(in_daemon(self._agent.boot, self.settings.services))]
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
        self._booted.set()
        if not self._stop.is_set():
            tasks += [self._start(job) for job in self._jobs()]
            _log.info("started", extra={"node": self.settings.node, "services": self.settings.services})
        await stopping
        await self._finish(tasks, web[0] if web else None, serving)
        if self._failure is not None:
            raise self._failure

    def _jobs(self) -> list[Coroutine[Any, Any, None]]:
        loops = self._loops
        polls = [loops.poll(name) for name in self.settings.services]
        return [self._connection.open(), loops.report(), loops.watch(), loops.upload(), *polls]

    def _start(self, job: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.create_task(self._guard(job))

    async def _guard(self, job: Coroutine[Any, Any, None]) -> None:
        """A part that fails ends the node: whoever started it starts it again, whole."""
        try:
            await job
        except Exception as error:
            _log.exception("a part of the node failed")
            self._failure = error
            self._stop.set()

    async def _in_thread(self, work: Callable[..., Any], *arguments: Any) -> Any:
        assert self._loop is not None
        return await self._loop.run_in_executor(self._pool, work, *arguments)

    def _from_thread(self, event: asyncio.Event) -> None:
        """Set ``event`` from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(event.set)

    def _report_soon(self) -> None:
        self._from_thread(self._loops.report_now)

    def _send(self, message: Message) -> None:
        self._connection.send(message)

    def _moved(self, ring: int | None) -> None:
        """The channel names another ring for this node."""
        self._state.move(ring)
        for nudge in self._loops.nudges.values():  # of two services, one may have looked just before
            self._from_thread(nudge)
        self._report_soon()
        # Aside: a broker may let one wait, and this is called while the channel is read.
        threading.Thread(target=self._connection.moved, name="moved", daemon=True).start()

    def _open_store(self) -> ObjectStore:
        if self._store is None:
            self._store = open_store(self.settings.store)
        return self._store

    # --- HTTP

    def _web_server(self) -> tuple[uvicorn.Server, socket.socket] | None:
        if self.settings.http is None:
            return None
        settings = self.settings
        access = load_access(settings.access) if settings.access else None
        site = Site(
            self._gateway,
            self.runtime,
            self._stats,
            self._spool,
            self._pool,
            inflight=settings.inflight,
            access=access,
            load=self._agent.load,
            unload=self._agent.unload,
            booted=self._booted,
            memory_mb=settings.memory_mb,
        )
        server = make_server(make_app(site), settings.tls)
        listener = bind(settings.http or "", access is not None)
        self._tell_address(listener, "https" if settings.tls else "http")
        return server, listener

    async def _serve_http(self, server: uvicorn.Server, listener: socket.socket) -> None:
        await server.serve([listener])
        if not self._stop.is_set():
            raise GatewayEnded("the HTTP gateway ended by itself: see the log, and start the node again")

    def _tell_address(self, listener: socket.socket, scheme: str) -> None:
        host, port = listener.getsockname()[:2]
        place = {"host": host, "port": port, "url": f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"}
        try:
            write_durably(self.settings.state / "http.json", json.dumps(place).encode())
        except OSError as error:  # with a full disk, answering goes on
            _log.error("http.json was not written", extra={"error": str(error)})

    # --- the end

    async def _finish(
        self, tasks: list[asyncio.Task[None]], web: uvicorn.Server | None, serving: asyncio.Task[None] | None
    ) -> None:
        _log.info("stopping")
        await self._in_thread(self._agent.close)  # first: who asked may kill before all is done
        if web is not None and serving is not None:
            web.should_exit = True
            await asyncio.wait([serving], timeout=FINISH_SECONDS)
        await self._in_thread(self._intake.stop, FINISH_SECONDS)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with suppress(TimeoutError):
            await asyncio.wait_for(in_daemon(self._last_upload), UPLOAD_SECONDS)
        await self._in_thread(self._leave)
        self._lock.release()
        _log.info("stopped")

    def _last_upload(self) -> None:
        try:
            self._loops.upload_once(everything=True, deadline=monotonic() + UPLOAD_SECONDS)
        except (EdgeloopError, OSError) as error:
            _log.warning("the spool keeps what it has", extra={"error": str(error)})

    def _leave(self) -> None:
        self._spool.close()
        self._agent.close()
        self._connection.close(self._last_words)

    def _last_words(self) -> list[Message]:
        reports = [self._reporter.message(name, online=False) for name in self.settings.services]
        return [*reports, alive_message(self.settings.node, self._place.ring, False)]


def run(settings: NodeSettings) -> None:
    """Run a node until SIGTERM or SIGINT.

    Raises:
        BadInput: the settings cannot be used (address, broker URL, store URL, state directory in use).
    """
    give_back_large_blocks()
    brokers.parse_url(settings.broker)
    try:
        open_store(settings.store)
    except BadInput:
        raise
    except EdgeloopError as error:  # a store that is away now may come back
        _log.warning("no store yet", extra={"error": str(error)})
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_main(settings))


async def _main(settings: NodeSettings) -> None:
    try:
        node = Node(settings)
    except OSError as error:
        raise UnusableState(f"state directory {settings.state} cannot be used ({error}): name another") from error
    await node.serve()


def main(arguments: list[str] | None = None) -> int:
    """``python -m edgeloop.edge.node --config node.yaml``."""
    import argparse
    import sys

    parser = argparse.ArgumentParser(prog="edgeloop.edge.node", description="Run one edge node.")
    parser.add_argument("--config", type=Path, required=True, help="path of node.yaml")
    path = parser.parse_args(arguments).config
    try:
        settings = load_node_settings(path)
        start_logging()
        run(settings)
    except EdgeloopError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
