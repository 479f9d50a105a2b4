"""A node's own process and a release on its way in: it is said to be ready, and a kill and a cut link cost nothing."""

from __future__ import annotations

import signal

import pytest

from edgeloop.fleet.channel import Pointing
from edgeloop.samples.cohorts import EVERYONE, NOBODY
from edgeloop.samples.records import Report
from edgeloop.samples.releases import Next
from tests.e2e.nodes import Stage, row, until

pytestmark = pytest.mark.timeout(240)


def test_ready_killed_and_cut_off_a_node_switches_when_its_batch_comes(
    stage: Stage, regressors: dict[int, bytes]
) -> None:
    good, new = stage.releaser.regressor(regressors[1]), stage.releaser.regressor(regressors[2])
    stage.releaser.want(good)
    stage.releaser.channel.approve(new.service, new.digest)
    node = stage.use(profile="generic-amd64")
    stage.serving(good)
    stage.device.send(1, row(1))
    stage.device.answer(1)

    def bring(below: str) -> None:
        coming = Next(release=new.digest, salt="r1", below=below)
        stage.releaser.channel.point_many(new.service, {0: Pointing(good.digest, coming)})

    def is_ready() -> Report | None:
        report = stage.report()
        return report if report and report.staged == new.digest else None

    bring(NOBODY)
    report: Report = until(is_ready, f"staged; {node.log()[-2000:]}")
    assert (report.serving, report.wanted, report.refused) == (good.digest, good.digest, None)
    assert (report.release_answered, report.release_failed, report.profile) == (1, 0, "generic-amd64")
    node.signal(signal.SIGKILL)
    (stage.folder / "store" / "blobs").rename(stage.folder / "cut")
    bring(EVERYONE)
    node.start()
    report = stage.serving(new)
    assert (report.staged, report.wanted, report.release_answered) == (None, new.digest, 0)
    stage.device.send(2, row(1))
    assert float(stage.device.answer(2)["prediction"]) == pytest.approx(3.5, abs=1e-3)
    assert node.signal(signal.SIGTERM) == 0
