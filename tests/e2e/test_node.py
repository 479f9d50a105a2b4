"""A real node on a real mosquitto and a directory store: nothing acknowledged is lost, nothing counts twice."""

from __future__ import annotations

import json
import signal
import threading
from collections import Counter
from pathlib import Path

import pytest

from edgeloop.samples.payloads import encode_features
from edgeloop.samples.received import read_segment
from edgeloop.samples.records import Label, Report, digest
from edgeloop.samples.releases import blob_key
from edgeloop.samples.topics import device_topic, wanted_topic
from tests.e2e.nodes import IMAGE, TABULAR, Device, Stage, jpeg, pets, row, until

pytestmark = pytest.mark.timeout(240)


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
    report: Report = until(stage.report, "a report")
    assert not report.online and report.spool_samples == 0 and report.answered == 3


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
    stage.device.broker.close()
    stage.device = Device(stage.broker.url)  # whose patience is not spent
    stage.serving(release)
    stage.device.send(5, row(5))
    assert stage.device.answer(5)["captured"]
