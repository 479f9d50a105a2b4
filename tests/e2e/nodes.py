"""A real node as a process, with what is around it: broker, store, signed channel, a device."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from edgeloop.clients import broker as brokers
from edgeloop.clients.broker import Ack, BrokerUnavailable, Message
from edgeloop.clients.models import LinearHead, load_model, make_probe, read_backbone
from edgeloop.clients.objects import DirectoryStore
from edgeloop.fleet.publisher import Publisher
from edgeloop.fleet.signing import Keys
from edgeloop.samples.payloads import encode_features
from edgeloop.samples.received import read_segment
from edgeloop.samples.records import Report, Sample, digest
from edgeloop.samples.releases import Layer, Release, blob_key, release_key
from edgeloop.samples.service import Feature, ImageInput, NodeConfig, Selection
from edgeloop.samples.topics import FLUSH, device_topic, report_topic
from tests.servers.mosquitto import Mosquitto

FEATURES = [Feature(name=n) for n in ("a", "b", "c")]
TABULAR = "adder"
IMAGE = "pets"
PYTHON_NODE = [sys.executable, "-m", "edgeloop.edge.node"]


def until(condition: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    """The first true value of ``condition``."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"not in {seconds} s: {what}")


class Releaser:
    """Publishes releases and channel records as the cloud does."""

    def __init__(self, store: DirectoryStore, keys: Path) -> None:
        self.store = store
        self.channel = Publisher(store, Keys(keys))
        self.channel.ensure()

    def publish(self, config: NodeConfig, layers: dict[str, bytes], probe: list[bytes]) -> Release:
        backbone = digest(layers["backbone"]) if "backbone" in layers else None
        model = load_model(config, layers, backbone)
        parts = {**layers, "config": config.model_dump_json().encode(), "probe": make_probe(model, probe)}
        for data in parts.values():
            self.store.create(blob_key(digest(data)), data)
        described = [
            Layer(role=role, digest=digest(data), size=len(data), media_type="application/octet-stream")
            for role, data in parts.items()
        ]
        release = Release(service=config.service, version="1", run_id="r", dataset="d", layers=described)
        self.store.put(release_key(config.service, release.digest), release.to_bytes())
        return release

    def want(self, release: Release) -> None:
        self.channel.approve(release.service, release.digest)
        self.channel.point(release.service, 0, release.digest)

    def regressor(self, model: bytes, audit: float = 1.0) -> Release:
        config = NodeConfig(
            service=TABULAR, kind="tabular-regressor", features=FEATURES, selection=Selection(audit=audit)
        )
        return self.publish(config, {"model": model}, [encode_features([1.0, 2.0, 3.0])])


class Device:
    """Publishes inputs with their capture time and keeps the results by it."""

    def __init__(self, url: str) -> None:
        self._answers: dict[str, dict[str, Any]] = {}
        self.doubled: Counter[str] = Counter()
        self.broker = brokers.connect(url, "device", clean=False, receive_maximum=1000)
        self.broker.subscribe("edgeloop/v1/+/d1/result", self._result)

    def _result(self, message: Message, ack: Ack) -> None:
        at = message.properties.get("captured-at", "none")
        self.doubled[at] += 1
        self._answers[at] = json.loads(message.payload)
        ack()

    def send(self, at: int, payload: bytes, service: str = TABULAR) -> None:
        topic = device_topic(service, "d1", "input")
        self.broker.publish_nowait(topic, payload, properties={"captured-at": str(at)})

    def answer(self, at: int, seconds: float = 60) -> dict[str, Any]:
        found: dict[str, Any] = until(lambda: self._answers.get(str(at)), f"a result for {at}", seconds)
        return found

    def wait_for(self, count: int) -> None:
        until(lambda: len(self.answered()) >= count, f"{count} results")

    def answered(self) -> set[int]:
        return {int(at) for at in list(self._answers) if at != "none"}


class NodeProcess:
    """A node and what it says; started as ``python -m edgeloop.edge.node`` unless ``command`` says otherwise."""

    def __init__(
        self, folder: Path, broker: Mosquitto, store: Path, command: list[str] | None = None, **more: Any
    ) -> None:
        self.folder = folder
        self.state = folder / "state"
        self._log = folder / "node.log"
        self._config = folder / "node.yaml"
        folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "node": "n1",
            "ring": 0,
            "services": [TABULAR],
            "http": "127.0.0.1:0",
            "state": "state",
            "store": str(store),
            "broker": broker.url,
            "poll_seconds": 0.3,
            "report_seconds": 1,
            "trust": str(store.parent / "keys" / "root.json"),
        }
        self._config.write_text(yaml.safe_dump(settings | more), encoding="utf-8")
        self._command = [*(command or PYTHON_NODE), "--config", str(self._config)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        env = {k: v for k, v in os.environ.items() if not k.startswith("EDGELOOP_")}
        (self.state / "http.json").unlink(missing_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stderr=log, env=env)
        until((self.state / "http.json").exists, f"http.json; {self.log()[-2000:]}")

    def url(self) -> str:
        return str(json.loads((self.state / "http.json").read_text(encoding="utf-8"))["url"])

    def get(self, path: str, data: bytes | None = None) -> tuple[int, str]:
        request = urllib.request.Request(self.url() + path, data, {"X-Device": "web"})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8") if self._log.exists() else ""

    def signal(self, number: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        code = self._process.wait(60)
        self._process = None
        return code

    def stop(self) -> None:
        if self._process is not None:
            self.signal(signal.SIGKILL)


class Stage:
    """Broker, store, node and device of one test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = DirectoryStore(folder / "store")
        self.releaser = Releaser(self.store, folder / "keys")
        self.broker = Mosquitto(folder / "broker")
        self.broker.start()
        self.device = Device(self.broker.url)
        self.node: NodeProcess = NodeProcess(folder / "node", self.broker, folder / "store")

    def use(self, command: list[str] | None = None, **more: Any) -> NodeProcess:
        """Start a node with these settings; ``command`` is another way to start one."""
        self.node = NodeProcess(self.folder / "node", self.broker, self.folder / "store", command, **more)
        self.node.start()
        return self.node

    def report(self, service: str = TABULAR) -> Report | None:
        try:
            found = self.device.broker.collect_retained(report_topic("n1", service), quiet=0.1, timeout=1)
        except BrokerUnavailable:  # the tests kill it
            return None
        return Report.model_validate_json(found[0].payload) if found else None

    def serving(self, release: Release) -> Report:
        def is_so() -> Report | None:
            report = self.report(release.service)
            return report if report and report.serving == release.digest else None

        found: Report = until(is_so, f"{release.service} serves; {self.node.log()[-2000:]}")
        return found

    def flush(self) -> None:
        def is_empty() -> bool:
            report = self.report()
            return bool(report and report.at.timestamp() > asked and report.spool_samples == 0)

        asked = time.time()
        self.device.broker.publish(FLUSH, b"")
        until(is_empty, f"an empty spool; {self.node.log()[-2000:]}")

    def captured(self, service: str = TABULAR) -> list[Sample]:
        samples = []
        for info in self.store.list(f"captures/{service}"):
            good, bad = read_segment(self.store.get(info.key), Sample)
            assert not bad
            samples += good
        return samples

    def close(self) -> None:
        self.node.stop()
        self.device.broker.close()
        self.broker.stop()


def row(number: int) -> bytes:
    return encode_features([float(number), 0.5, 0.25])


def jpeg(shade: int) -> bytes:
    from PIL import Image

    sink = io.BytesIO()
    Image.new("RGB", (64, 48), (shade, 255 - shade, shade // 2)).save(sink, "JPEG")
    return sink.getvalue()


def pets(shared: Path) -> tuple[NodeConfig, dict[str, bytes]]:
    path = shared / "models" / "mobilenet_v1_1.0_224_quant_embedding_extractor.tflite"
    backbone = read_backbone(path)
    width = len(backbone.features(np.zeros((backbone.size, backbone.size, 3), np.uint8)))
    weights = np.random.default_rng(0).normal(size=(width, 2)).astype(np.float32)
    head = LinearHead(weights, np.zeros(2, np.float32), ("cat", "dog"))
    config = NodeConfig(
        service=IMAGE,
        kind="image-classifier",
        image=ImageInput(size=224),
        labels=["cat", "dog"],
        selection=Selection(audit=1.0),
    )
    return config, {"backbone": path.read_bytes(), "head": head.to_bytes()}
