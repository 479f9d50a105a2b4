"""Eight real nodes in three rings with devices that say what was right, and the rollouts that move them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeloop.clients import broker as brokers
from edgeloop.clients.broker import Ack, Broker, Message
from edgeloop.clients.objects import DirectoryStore
from edgeloop.fleet.reports import collect_reports
from edgeloop.fleet.rollout import RolloutStatus, start, tick
from edgeloop.samples.payloads import encode_features
from edgeloop.samples.records import Report
from edgeloop.samples.releases import Release
from edgeloop.samples.service import Feature, NodeConfig, Selection, Service
from edgeloop.samples.strategy import Strategy
from edgeloop.samples.topics import device_topic
from edgeloop.store import FleetStore
from tests.e2e.nodes import NodeProcess, Releaser, until
from tests.servers.mosquitto import Mosquitto

SERVICE = "sorter"
LABELS = ["high", "low"]
RINGS = {0: ["n1"], 1: ["n2", "n3"], 2: ["n4", "n5", "n6", "n7", "n8"]}
NODES = {node: ring for ring, nodes in RINGS.items() for node in nodes}
#: Audited answers of every node before its release is the measure of the next.
ENOUGH = 60
FEATURES = [Feature(name="a"), Feature(name="b")]


def truth(rows: NDArray[np.float32]) -> NDArray[np.int64]:
    """What is right, [samples], as the number of the label: whether the first feature is above zero."""
    return np.where(rows[:, 0] > 0, 0, 1).astype(np.int64)


def fitted(rows: NDArray[np.float32], labels: NDArray[np.int64], seed: int) -> Any:
    """A tree that knows these rows and nothing of others."""
    from sklearn.tree import DecisionTreeClassifier

    return DecisionTreeClassifier(random_state=seed).fit(rows, [LABELS[n] for n in labels])


def onnx_of(tree: Any) -> bytes:
    from skl2onnx import to_onnx

    made: bytes = to_onnx(tree, np.zeros((1, 2), np.float32), options={"zipmap": False}).SerializeToString()
    return made


class Devices:
    """One device per node: sends inputs of the field, says what was right, and remembers which release answered."""

    def __init__(self, url: str) -> None:
        self.answered: set[tuple[str, str]] = set()
        """(node, release) of every answer."""
        self.errors: list[str] = []
        self._rng = np.random.default_rng(7)
        self._sent: dict[str, NDArray[np.float32]] = {}
        self._broker = brokers.connect(url, "devices", clean=True, receive_maximum=1000)
        self._broker.subscribe(f"edgeloop/v1/{SERVICE}/+/result", self._result)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self._stop.wait(0.05):
            for node in NODES:
                number += 1
                row = self._rng.uniform([5, 0], [9, 1], size=2).astype(np.float32)
                self._sent[str(number)] = row
                payload = encode_features([float(v) for v in row])
                topic = device_topic(SERVICE, f"at-{node}", "input")
                self._broker.publish_nowait(topic, payload, properties={"captured-at": str(number)})

    def _result(self, message: Message, ack: Ack) -> None:
        told = json.loads(message.payload)
        row = self._sent.pop(message.properties.get("captured-at", ""), None)
        if "error" in told or row is None:
            self.errors.append(str(told))
        else:
            self.answered.add((told["node"], told["model"]))
            body = {"sample_id": told["sample_id"], "label": LABELS[int(truth(row[None])[0])]}
            topic = device_topic(SERVICE, told["device"], "feedback")
            self._broker.publish_nowait(topic, json.dumps(body).encode())
        ack()

    def who(self, release: Release) -> set[str]:
        """Nodes that answered with it."""
        return {node for node, name in self.answered.copy() if name == release.digest}

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._broker.close()


class Field:
    """The whole fleet: nodes, devices, channel and the state of rollouts."""

    def __init__(self, folder: Path, broker: Mosquitto) -> None:
        self.folder = folder
        self.mosquitto = broker
        self.store = DirectoryStore(folder / "store")
        self.releaser = Releaser(self.store, folder / "keys")
        self.fleet = FleetStore(f"sqlite:///{folder / 'fleet.db'}")
        self.service = Service(
            version=1,
            name=SERVICE,
            kind="tabular-classifier",
            description="Says whether a is above zero.",
            features=FEATURES,
            labels=LABELS,
            rings=list(RINGS),
            rollout=strategy(),
        )
        self.broker: Broker = brokers.connect(broker.url, "rollouts")
        self.nodes = [self._node(name, ring) for name, ring in NODES.items()]
        self.devices: Devices

    def _node(self, name: str, ring: int) -> NodeProcess:
        more: dict[str, Any] = {
            "node": name,
            "ring": ring,
            "services": [SERVICE],
            "devices": [f"at-{name}"],
            "report_seconds": 0.5,
        }
        return NodeProcess(self.folder / name, self.mosquitto, self.folder / "store", **more)

    def release(self, model: bytes) -> Release:
        """Packaged and not yet approved."""
        config = NodeConfig(
            service=SERVICE, kind=self.service.kind, features=FEATURES, labels=LABELS, selection=Selection(audit=1.0)
        )
        return self.releaser.publish(config, {"model": model}, [encode_features([0.5, 0.5])])

    def roll_out(self, release: Release) -> bool:
        """Approve it and begin."""
        self.releaser.channel.approve(SERVICE, release.digest)
        self.fleet.add_release(SERVICE, f"v-{release.digest[7:13]}", release.digest)
        return start(self.fleet, self.releaser.channel, self.service, release.digest, "a test", who="test")

    def to_end(self, seconds: float = 90, seen: Callable[[RolloutStatus], None] = lambda _: None) -> RolloutStatus:
        """Tick until the rollout has ended."""

        last: list[RolloutStatus] = []

        def ended() -> RolloutStatus | None:
            found = tick(self.fleet, self.releaser.channel, self.broker, lambda _: self.service)
            last[:] = found
            for status in found:
                seen(status)
            return next((s for s in found if s.state in {"done", "reverted", "aborted", "holding"}), None)

        try:
            status: RolloutStatus = until(ended, "a rollout that ends", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}: {last[-1:]}; {self.reports()}") from error
        return status

    def reports(self) -> dict[str, Report]:
        return {report.node: report for report in collect_reports(self.broker, SERVICE)}

    def serve(self, release: Release, seconds: float = 30) -> None:
        """Wait until every node serves ``release``, and answers with it."""

        def all_do() -> bool:
            found = self.reports().values()
            return len(found) == len(NODES) and {r.serving for r in found} == {release.digest}

        try:
            until(all_do, f"all serve {release.digest}", seconds)
        except AssertionError as error:
            said = [(n, r.serving, r.last_error) for n, r in self.reports().items()]
            raise AssertionError(f"{error}: {said}") from error

    def settle(self, release: Release) -> None:
        """Wait until every node serves it and devices have judged enough of its answers to compare others with."""
        self.serve(release)
        until(lambda: min(r.audit.get("labelled", 0) for r in self.reports().values()) >= ENOUGH, "audited answers", 60)

    def close(self) -> None:
        self.devices.close()
        for node in self.nodes:
            node.stop()
        self.broker.close()
        self.fleet.close()


def strategy() -> Strategy:
    """A ring goes on only when devices have said how right it is."""
    return Strategy.model_validate(
        {
            "batches": [0.5, 1.0],
            "soak_seconds": 1.0,
            "thresholds": {"require_accuracy": True, "max_accuracy_drop": 0.2, "min_answers": 30},
        }
    )


@contextmanager
def field(folder: Path) -> Iterator[Field]:
    """The fleet, with a champion everywhere."""
    broker = Mosquitto(folder / "broker")
    broker.start()
    made = Field(folder, broker)
    try:
        for node in made.nodes:
            node.start()
        made.devices = Devices(broker.url)
        try:
            yield made
        finally:
            made.close()
    finally:
        broker.stop()


def known(folder_seed: int, low: float, high: float, count: int = 400) -> NDArray[np.float32]:
    """Rows [count, 2] with the first feature between ``low`` and ``high``."""
    return np.random.default_rng(folder_seed).uniform([low, 0], [high, 1], size=(count, 2)).astype(np.float32)


def fresh(fleet: Field, seed: int) -> bytes:
    """A model that is right everywhere, another for every seed."""
    edge = np.asarray([[0.001 * seed, 0], [-0.001, 0]], np.float32)  # so that each seed cuts elsewhere
    rows = np.vstack([known(seed, -9, 9, 900), edge])
    return onnx_of(fitted(rows, truth(rows), seed))
