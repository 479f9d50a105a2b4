"""One node, its broker, its store, its devices and its releases, with a hand on everything that can fail."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgeloop.clients.broker import BrokerUnavailable, connect
from edgeloop.clients.objects import ObjectStore, ensure_bucket, open_store
from edgeloop.errors import EdgeloopError
from edgeloop.quality.ingest import ingest
from edgeloop.samples.service import Feature, Selection, Service
from edgeloop.samples.table import Tables
from edgeloop.samples.topics import FLUSH, report_topic, wanted_topic
from tests.e2e.edge_faults.devices import Clock, HttpDevice, MqttDevice
from tests.e2e.edge_faults.ledger import Ledger
from tests.e2e.edge_faults.node import NodeProcess, Tearer
from tests.e2e.edge_faults.proxies import LinkProxy, ProxyLoop, StoreProxy
from tests.e2e.edge_faults.releases import Publisher
from tests.e2e.edge_faults.signed import SignedChannel
from tests.servers.ceph import S3Server
from tests.servers.mosquitto import Mosquitto

NODE = "n1"
RING = 0
SERVICE = Service(
    version=1,
    name="adder",
    kind="tabular-regressor",
    description="A number that is a multiple of the sum of three others.",
    features=[Feature(name=n) for n in ("a", "b", "c")],
    target=Feature(name="sum"),
    selection=Selection(audit=1.0),
)


class Journal:
    """What was done when, as JSON lines."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._started = time.monotonic()

    def time(self, moment: float) -> float:
        """A monotonic moment in seconds since the start."""
        return moment - self._started

    def write(self, what: str, **more: object) -> None:
        """Add a line; ``at`` is in seconds since the start."""
        line = json.dumps({"at": round(self.time(time.monotonic()), 3), "what": what, **more}, default=str)
        with self._lock, self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def tail(self, lines: int = 30) -> str:
        """The last lines."""
        return "\n".join(self.path.read_text(encoding="utf-8").splitlines()[-lines:])


class LastingBroker(Mosquitto):
    """A broker that writes down what it has every second: what it took in the last one, it forgets when it is killed.

    To write after every message, as the durable broker of other tests does, costs more the more it holds.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.remembers = time.monotonic()
        """What it took before this time (monotonic) it has not forgotten."""
        lasting = f"persistence true\npersistence_location {folder}/\nautosave_interval 1\n"
        with (folder / "mosquitto.conf").open("a", encoding="utf-8") as file:
            file.write(lasting)

    def kill(self) -> None:
        """See Mosquitto; with a minute of slack for a machine that stood still, which is late to write."""
        if self._process is not None:
            self.remembers = time.monotonic() - 60.0
        super().kill()


class Cloud:
    """The store as the cloud sees it, without the node's bad link, and ingest that runs beside the node."""

    def __init__(self, server: S3Server, bucket: str) -> None:
        url = server.store_url(bucket)
        ensure_bucket(url, environ=server.environ())
        self.server = server
        self.store: ObjectStore = open_store(url, environ=server.environ())
        self._tables = Tables(SERVICE.name, self.store.table)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ingest", daemon=True)
        self.failures = 0
        self.duplicates = 0

    def start(self) -> None:
        """Ingest every few seconds from now on."""
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.wait(4):
            self._ingest()

    def _ingest(self) -> bool:
        try:
            self.duplicates += ingest(self.store, self._tables, SERVICE).duplicates
        except EdgeloopError:
            self.failures += 1
            return False
        return True

    def stop(self) -> None:
        """End the ingest that runs beside."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(60)

    def rows(self) -> list[dict[str, Any]]:
        """The samples table after a last ingest."""
        assert self._ingest()
        return self._tables.read("samples")

    def quarantined(self) -> list[dict[str, Any]]:
        """The quarantine table."""
        return self._tables.read("quarantine")


class Fleet:
    """Everything under one folder; :meth:`start` it, let faults strike, :meth:`settle` it, look, :meth:`close` it."""

    def __init__(self, folder: Path, server: S3Server, *, pause: float = 0.05) -> None:
        self.journal = Journal(folder / "journal.jsonl")
        self.loop = ProxyLoop()
        self.ledger = Ledger()
        self.cloud = Cloud(server, f"faults-{time.time_ns()}")
        self.broker = LastingBroker(folder / "broker")
        self.broker.start()
        self.link = LinkProxy(self.loop, self.broker.port)
        self.link_to_store = StoreProxy(self.loop, server.port)
        channel = SignedChannel(self.cloud.store, folder, SERVICE.name, RING)
        self.node = NodeProcess(folder, {**self._settings(server), **channel.settings()}, server.environ())
        self.tearer = Tearer(self.node.state)
        clock = Clock()
        self.sensors = [
            MqttDevice(f"d{i}", SERVICE.name, self.ledger, clock, pause, self.broker.port) for i in range(2)
        ]
        self.caller = HttpDevice("web", SERVICE.name, self.ledger, clock, 2 * pause, self.node.port)
        self.line = connect(self.broker.url, "operator")
        self.publisher = Publisher(self.cloud.store, channel, SERVICE.node_config(), self.nudge)

    def _settings(self, server: S3Server) -> Mapping[str, Any]:
        bucket = self.cloud.store.url.removeprefix("s3://").split("?")[0]
        endpoint = f"http://127.0.0.1:{self.link_to_store.port}"
        return {
            "node": NODE,
            "ring": RING,
            "services": [SERVICE.name],
            "store": f"s3://{bucket}?endpoint={endpoint}&region=us-east-1&timeout=5",
            "broker": f"mqtt://127.0.0.1:{self.link.port}",
            "poll_seconds": 1,
            "report_seconds": 1,
            "segment_samples": 100,
            "segment_seconds": 1,
        }

    def start(self) -> None:
        """A node that serves a first release, and devices that ask it."""
        self.publisher.good()
        self.node.start()
        self.node.wait_ready()
        for device in (*self.sensors, self.caller):
            device.start()
        self.cloud.start()
        self.journal.write("started", disk="tmpfs" if self.node.disk.mounted else "limit")

    def flush(self) -> None:
        """Ask the node to upload what it has."""
        self.line.publish_nowait(FLUSH, b"")

    def nudge(self) -> None:
        """Say to the node that its channel has changed."""
        self.line.publish_nowait(wanted_topic(SERVICE.name, RING), b"look", retain=True)

    def report(self) -> dict[str, Any]:
        """The node's own report, as it is retained by the broker; empty when there is none."""
        topic = report_topic(NODE, SERVICE.name)
        try:
            found = self.line.collect_retained(topic, quiet=0.1, timeout=1)
        except BrokerUnavailable:
            return {}
        report: dict[str, Any] = json.loads(found[0].payload) if found else {}
        return report

    def waiting(self) -> dict[str, str]:
        """Requests without an answer over MQTT: by whom, and when in the journal's time."""
        return {
            name: f"{device.name} at {self.journal.time(sent):.3f}"
            for device in self.sensors
            for name, sent in device.waiting().items()
        }

    def wait(self, what: str, done: Callable[[], bool], seconds: float) -> str | None:
        """None when ``done`` came true in time, else what did not."""
        end = time.monotonic() + seconds
        while not done():
            if time.monotonic() > end:
                return f"not in {seconds:g} s: {what}"
            time.sleep(0.1)
        return None

    def close(self) -> None:
        """End every process, connection and thread."""
        for device in (*self.sensors, self.caller):
            device.stop()
        self.publisher.finish(1)
        self.cloud.stop()
        self.node.close()
        for device in self.sensors:
            device.close()
        self.line.close()
        self.broker.stop()
        self.loop.close()
