"""A whole node inside the test: everything is the node's own but the broker, the models and the store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgeloop.clients import broker as brokers
from edgeloop.clients.broker import Broker, MemoryBroker, MemoryHub
from edgeloop.clients.objects import MemoryStore
from edgeloop.edge import node as nodes
from edgeloop.edge.config import NodeSettings, load_node_settings
from edgeloop.edge.http import new_event_loop
from edgeloop.edge.node import Node
from edgeloop.edge.releases import loading
from edgeloop.fleet.publisher import Publisher
from edgeloop.fleet.signing import Keys
from edgeloop.samples.records import Report
from edgeloop.samples.releases import Release
from edgeloop.samples.topics import report_topic
from tests.unit.edge.fakes import SERVICE, load_fake


class Whole:
    """One node of fake models on an in-memory store and broker, or the broker at ``url``.

    ``connected`` are the options of its connection to the one in memory.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, url: str | None = None) -> None:
        self.folder = folder
        self.store = MemoryStore()
        self.publisher = Publisher(self.store, Keys(folder / "keys"))
        self.root = self.publisher.ensure()
        self.hub = MemoryHub()
        self.connected: dict[str, Any] = {}
        self.url = url or "mqtt://127.0.0.1:1"
        self.cloud: Broker = brokers.connect(url, "cloud") if url else self.hub.connect("cloud")
        if url is None:
            monkeypatch.setattr(brokers, "connect", self._connect)
        monkeypatch.setattr(nodes, "open_store", lambda _: self.store)
        monkeypatch.setattr(loading, "load_model", load_fake)

    def _connect(self, _url: str, name: str, *, busy: Callable[[], bool], **options: Any) -> MemoryBroker:
        self.connected = options | {"busy": busy}
        return self.hub.connect(name, **options)

    def settings(self, **more: Any) -> NodeSettings:
        """As a node.yaml says."""
        (self.folder / "root.json").write_bytes(self.root)
        given: dict[str, Any] = {
            "node": "n1",
            "ring": 0,
            "services": [SERVICE],
            "state": "state",
            "store": "memory",
            "broker": self.url,
            "http": None,
            "trust": "root.json",
            "poll_seconds": 0.05,
            "report_seconds": 3600,
        }
        path = self.folder / "node.yaml"
        path.write_text(yaml.safe_dump(given | more), encoding="utf-8")
        return load_node_settings(path, {})

    def want(self, release: Release) -> None:
        self.publisher.approve(release.service, release.digest)
        self.publisher.point(release.service, 0, release.digest)

    def report(self, service: str = SERVICE) -> Report | None:
        """The report that the broker keeps."""
        found = self.cloud.collect_retained(report_topic("n1", service))
        return Report.model_validate_json(found[0].payload) if found else None

    @asynccontextmanager
    async def running(self, **more: Any) -> AsyncIterator[Node]:
        """The node at work; it ends in good order."""
        node = Node(self.settings(**more))
        task = asyncio.create_task(node.serve())
        try:
            yield node
        finally:
            node._stop.set()
            await task

    def run(self, work: Callable[[Node], Any], **more: Any) -> None:
        """Run a test's coroutine function beside the node."""

        async def main() -> None:
            async with self.running(**more) as node:
                await work(node)

        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(main())


async def until(condition: Callable[[], Any], seconds: float = 30) -> Any:
    """The first true value of ``condition``, which is asked in a thread beside the node's loop."""
    end = time.monotonic() + seconds
    while not (value := await asyncio.to_thread(condition)):
        assert time.monotonic() < end, f"not in {seconds} s"
        await asyncio.sleep(0.005)
    return value
