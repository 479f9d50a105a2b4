"""A real node on a real mosquitto and a directory store: nothing acknowledged is lost, nothing counts twice."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from edgeloop.clients import broker as brokers
from edgeloop.clients.broker import Ack, BrokerUnavailable, Message
from edgeloop.clients.models import LinearHead, load_model, make_probe, read_backbone
from edgeloop.clients.objects import DirectoryStore
from edgeloop.fleet.publisher import Publisher
from edgeloop.fleet.signing import Keys
from edgeloop.samples.payloads import encode_features
from edgeloop.samples.received import read_segment
from edgeloop.samples.records import Label, Report, Sample, digest
from edgeloop.samples.releases import Layer, Release, blob_key, release_key
from edgeloop.samples.service import Feature, ImageInput, NodeConfig, Selection
from edgeloop.samples.topics import FLUSH, device_topic, report_topic, wanted_topic
from tests.servers.mosquitto import Mosquitto

pytestmark = pytest.mark.timeout(60)
FEATURES = [Feature(name=n) for n in ("a", "b", "c")]
TABULAR = "adder"
IMAGE = "pets"


def until(condition: Callable[[], Any], what: str, seconds: float = 15) -> Any:
    """The first true value of ``condition``."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"not in {seconds} s: {what}")


@pytest.fixture(scope="module")
def regressors() -> dict[int, bytes]:
    """ONNX models that answer ``factor * (a + b + c)``, by factor."""
    from skl2onnx import to_onnx
    from sklearn.linear_model import LinearRegression

    rows = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    models = {}
    for factor in (1, 2, 3):
        fitted = LinearRegression().fit(rows, factor * rows.sum(axis=1))
        models[factor] = to_onnx(fitted, rows[:1]).SerializeToString()
    return models


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

    def answer(self, at: int, seconds: float = 15) -> dict[str, Any]:
        found: dict[str, Any] = until(lambda: self._answers.get(str(at)), f"a result for {at}", seconds)
        return found

    def wait_for(self, count: int) -> None:
        until(lambda: len(self.answered()) >= count, f"{count} results")

    def answered(self) -> set[int]:
        return {int(at) for at in list(self._answers) if at != "none"}


class NodeProcess:
    """``python -m edgeloop.edge.node`` and what it reports."""

    def __init__(self, folder: Path, broker: Mosquitto, store: Path, **more: Any) -> None:
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
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        env = {k: v for k, v in os.environ.items() if not k.startswith("EDGELOOP_")}
        command = [sys.executable, "-m", "edgeloop.edge.node", "--config", str(self._config)]
        (self.state / "http.json").unlink(missing_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stderr=log, env=env)
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
        code = self._process.wait(20)
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

    def use(self, **more: Any) -> NodeProcess:
        self.node = NodeProcess(self.folder / "node", self.broker, self.folder / "store", **more)
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


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    try:
        yield made
    finally:
        made.close()


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


def test_inputs_get_results_and_captures_land_in_the_store(
    stage: Stage, regressors: dict[int, bytes], shared: Path
) -> None:
    rows = stage.releaser.regressor(regressors[1])
    config, layers = pets(shared)
    images = stage.releaser.publish(config, layers, [jpeg(10)])
    stage.releaser.want(rows)
    stage.releaser.want(images)
    node = stage.use(services=[TABULAR, IMAGE])
    stage.serving(rows)
    stage.serving(images)
    assert node.get("/readyz")[0] == 200

    stage.device.send(1, b'{"c": 3, "a": 1, "b": 2}')
    stage.device.send(2, jpeg(200), IMAGE)
    stage.device.send(3, b"not a row")
    number, picture, wrong = (stage.device.answer(at) for at in (1, 2, 3))
    assert float(number["prediction"]) == pytest.approx(6.0, abs=1e-3)
    assert number["captured"] and number["selected_by"] == "audit" and number["model"] == rows.digest
    assert picture["prediction"] in ("cat", "dog") and 0.5 <= picture["confidence"] <= 1
    assert "not JSON" in wrong["error"] and wrong["sample_id"] and "prediction" not in wrong
    label = {"sample_id": number["sample_id"], "label": 6.5}
    stage.device.broker.publish(device_topic(TABULAR, "d1", "feedback"), json.dumps(label).encode())

    status, body = node.get(f"/v1/models/{TABULAR}:predict", b'{"instances": [[1, 2, 4], [0, 0, 0]]}')
    assert status == 200 and json.loads(body)["predictions"] == pytest.approx([7.0, 0.0], abs=1e-3)
    assert f'edgeloop_release_info{{service="{IMAGE}",digest="{images.digest}"}} 1' in node.get("/metrics")[1]

    assert node.signal(signal.SIGTERM) == 0
    samples = stage.captured()
    assert sorted(s.device for s in samples) == ["d1", "web", "web"]
    assert {s.payload for s in samples} >= {encode_features([1.0, 2.0, 3.0])}
    (image,) = stage.captured(IMAGE)
    assert image.payload == jpeg(200) and image.sample_id == picture["sample_id"]
    assert image.embedding is not None and len(image.embedding) % 2 == 0
    assert image.backbone_digest == digest(layers["backbone"]) and image.selection_probability == 1.0
    (info,) = stage.store.list(f"labels/{TABULAR}")
    (kept,) = read_segment(stage.store.get(info.key), Label)[0]
    assert (kept.sample_id, kept.label, kept.source) == (number["sample_id"], "6.5", "device")
    report = stage.report()
    assert report is not None and not report.online and report.spool_samples == 0 and report.answered == 3


def test_a_killed_node_loses_nothing_acknowledged_and_a_resend_counts_once(
    stage: Stage, regressors: dict[int, bytes]
) -> None:
    release = stage.releaser.regressor(regressors[1])
    stage.releaser.want(release)
    node = stage.use(segment_samples=40, segment_seconds=0.5)
    stage.serving(release)
    total, acknowledged = 600, set[int]()
    for number in range(total):
        stage.device.send(number, row(number))
        if number in (200, 400):
            stage.device.wait_for(number - 150)
            node.signal(signal.SIGKILL)
            acknowledged |= stage.device.answered()
            node.start()
    for number in range(total):  # also those that were answered: a device cannot always know
        stage.device.send(number, row(number))
    for number in range(total):
        assert stage.device.answer(number)["captured"]
    # The resent inputs are answered too before the count is taken.
    until(lambda: sum(stage.device.doubled.values()) >= total + len(acknowledged), "answers to the resent")
    stage.flush()
    counts = Counter(s.sample_id for s in stage.captured())
    assert {stage.device.answer(n)["sample_id"] for n in range(total)} == set(counts)
    assert max(counts.values()) == 1 and len(counts) == total
    assert len(acknowledged) > 100


def test_a_new_release_takes_over_under_load_without_a_failed_request(
    stage: Stage, regressors: dict[int, bytes]
) -> None:
    first, second = (stage.releaser.regressor(regressors[n]) for n in (1, 2))
    stage.releaser.want(first)
    stage.use(poll_seconds=30)
    stage.serving(first)
    stopped, sent = threading.Event(), [0]

    def load() -> None:
        while not stopped.wait(0.002):
            stage.device.send(sent[0], row(sent[0]))
            sent[0] += 1

    sender = threading.Thread(target=load)
    sender.start()
    until(lambda: len(stage.device.answered()) > 50, "answers of the first release")
    stage.releaser.want(second)
    stage.device.broker.publish(wanted_topic(TABULAR, 0), b"look", retain=True)
    report = stage.serving(second)
    seen = len(stage.device.answered())
    until(lambda: len(stage.device.answered()) > seen + 50, "answers of the second release")
    stopped.set()
    sender.join()
    answers = [stage.device.answer(n) for n in range(sent[0])]
    assert not [a for a in answers if "error" in a]
    assert {a["model"] for a in answers} == {first.digest, second.digest}
    for number, answer in enumerate(answers):
        factor = 1 if answer["model"] == first.digest else 2
        assert float(answer["prediction"]) == pytest.approx(factor * (number + 0.75), rel=1e-3, abs=1e-2)
    assert report.previous == first.digest and report.wanted == second.digest


def test_a_flipped_bit_is_refused_and_the_old_release_keeps_serving(stage: Stage, regressors: dict[int, bytes]) -> None:
    good, bad, better = (stage.releaser.regressor(regressors[n]) for n in (1, 2, 3))
    stage.releaser.want(good)
    node = stage.use()
    stage.serving(good)
    layer = bad.layer("model")
    assert layer is not None
    data = bytearray(stage.store.get(blob_key(layer.digest)))
    data[100] ^= 1
    stage.store.put(blob_key(layer.digest), bytes(data))
    stage.releaser.want(bad)

    def refused() -> Report | None:
        report = stage.report()
        return report if report and report.refused == bad.digest else None

    report: Report = until(refused, "the refusal")
    assert report.serving == good.digest and report.wanted == bad.digest
    assert report.last_error is not None and layer.digest in report.last_error
    stage.device.send(1, row(1))
    assert stage.device.answer(1)["model"] == good.digest
    node.signal(signal.SIGKILL)
    node.start()
    assert stage.serving(good).refused == bad.digest
    stage.releaser.want(better)
    assert stage.serving(better).refused is None


def test_a_node_starts_without_a_network_and_comes_back_to_a_killed_broker(
    stage: Stage, regressors: dict[int, bytes]
) -> None:
    release = stage.releaser.regressor(regressors[1])
    stage.releaser.want(release)
    node = stage.use()
    stage.serving(release)
    node.signal(signal.SIGTERM)
    stage.broker.kill()
    (stage.folder / "store").rename(stage.folder / "gone")
    node.start()
    until(lambda: node.get("/readyz")[0] == 200, f"ready; {node.log()[-1000:]}")
    assert node.get(f"/v1/models/{TABULAR}:predict", b'{"instances": [[1, 2, 4]]}')[0] == 200
    stage.broker.start()
    stage.serving(release)
    stage.broker.restart()  # without persistence: the report is there again when the node is
    stage.serving(release)
    stage.device.send(5, row(5))
    assert stage.device.answer(5)["captured"]
