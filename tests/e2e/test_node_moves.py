"""A node's own process that is moved to another ring, is killed, and finds no channel when it starts again."""

from __future__ import annotations

import json
import signal

import pytest

from edgeloop.samples.records import Report
from edgeloop.samples.topics import alive_topic
from tests.e2e.nodes import Stage, row, until

pytestmark = pytest.mark.timeout(240)


def test_moved_killed_and_cut_off_a_node_knows_its_ring(stage: Stage, regressors: dict[int, bytes]) -> None:
    first, second = stage.releaser.regressor(regressors[1]), stage.releaser.regressor(regressors[2])
    channel = stage.releaser.channel
    stage.releaser.want(first)
    channel.approve(second.service, second.digest)
    channel.point(second.service, 1, second.digest)
    node = stage.use()
    assert stage.serving(first).ring == 0
    channel.move("default", lambda: {"n1": 1})
    assert stage.serving(second).ring == 1
    [word] = until(
        lambda: stage.device.broker.collect_retained(alive_topic("n1"), quiet=0.1), "a word that it is there"
    )
    assert json.loads(word.payload)["ring"] == 1
    node.signal(signal.SIGKILL)
    (stage.folder / "store" / "channel").rename(stage.folder / "cut")
    killed: Report = until(stage.report, "what it said last")
    node.start()

    def is_back() -> Report | None:
        report = stage.report()
        return report if report and report.at > killed.at and report.serving else None

    report: Report = until(is_back, f"a report; {node.log()[-2000:]}")
    assert (report.ring, report.serving) == (1, second.digest)
    stage.device.send(1, row(1))
    assert float(stage.device.answer(1)["prediction"]) == pytest.approx(3.5, abs=1e-3)
    (stage.folder / "cut").rename(stage.folder / "store" / "channel")
    channel.move("default", lambda: {"n1": None})
    assert stage.serving(first).ring == 0
    assert node.signal(signal.SIGTERM) == 0
