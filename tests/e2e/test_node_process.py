"""A node as a process among others: what the broker says when it dies, and what it answers that is not its own."""

from __future__ import annotations

import json
import signal
import subprocess
from typing import Any

import pytest

from edgeloop.samples.records import Report
from edgeloop.samples.topics import alive_topic
from tests.e2e.nodes import PYTHON_NODE, TABULAR, Stage, row, until

pytestmark = pytest.mark.timeout(240)


def alive(stage: Stage) -> dict[str, Any]:
    """What the broker keeps of whether the node is there."""
    found = stage.device.broker.collect_retained(alive_topic("n1"), quiet=0.1, timeout=1)
    said: dict[str, Any] = json.loads(found[0].payload) if found else {}
    return said


def test_a_killed_node_is_offline_for_all_who_ask(stage: Stage) -> None:
    node = stage.use()
    until(lambda: alive(stage).get("online") is True, f"a word that it is there; {node.log()[-2000:]}")
    node.signal(signal.SIGKILL)
    last = until(lambda: (word := alive(stage)).get("online") is False and word, "its last will")
    assert (last["node"], last["ring"]) == ("n1", 0)
    node.start()
    until(lambda: alive(stage).get("online") is True, "a word that it is back")
    assert node.signal(signal.SIGTERM) == 0
    until(lambda: alive(stage).get("online") is False, "its goodbye")


def test_a_node_alone_on_its_broker_answers_for_services_that_nobody_has(
    stage: Stage, regressors: dict[int, bytes]
) -> None:
    release = stage.releaser.regressor(regressors[1])
    stage.releaser.want(release)
    node = stage.use()
    stage.serving(release)
    stage.device.send(1, row(1), "other")
    stage.device.send(2, row(2))
    assert stage.device.answer(2)["captured"]
    assert stage.device.answered() == {2}  # by default other services are others'
    assert node.signal(signal.SIGTERM) == 0

    node = stage.use(answers_unknown=True)
    until(lambda: alive(stage).get("online") is True, f"connected; {node.log()[-2000:]}")
    stage.device.send(3, row(3), "other")
    answer = stage.device.answer(3)
    assert "does not serve other" in answer["error"] and answer["service"] == "other" and "prediction" not in answer
    assert 'edgeloop_messages_ignored_total{reason="unknown"} 1' in node.get("/metrics")[1]
    stage.device.send(4, row(4))
    assert stage.device.answer(4)["captured"]
    assert node.signal(signal.SIGTERM) == 0

    node = stage.use()  # what the broker remembers of the time before must not bring an input twice
    until(lambda: alive(stage).get("online") is True, f"connected; {node.log()[-2000:]}")
    stage.device.send(5, row(5))
    stage.device.send(6, row(6))
    assert stage.device.answer(5)["captured"] and stage.device.answer(6)["captured"]
    assert node.signal(signal.SIGTERM) == 0
    assert {at: n for at, n in stage.device.doubled.items() if n > 1} == {}
    assert len(stage.captured(TABULAR)) == 4


OWN_MOUNTS = ["unshare", "--map-root-user", "--mount"]
#: Mounts a read-only disk at the first argument, makes it writable when the second exists, and becomes the node.
_READ_ONLY = """
disk=$1 flag=$2; shift 2
mkdir -p "$disk" && mount -t tmpfs -o ro,size=8m none "$disk" || exit 1
( for _ in $(seq 600); do [ -e "$flag" ] && exec mount -o remount,rw "$disk"; sleep 0.1; done ) &
exec "$@"
"""


def test_a_node_whose_spool_is_read_only_from_the_start_answers_and_later_captures(
    stage: Stage, regressors: dict[int, bytes]
) -> None:
    if subprocess.run([*OWN_MOUNTS, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mounts of one's own here: run as root or allow user namespaces")
    release = stage.releaser.regressor(regressors[1])
    stage.releaser.want(release)
    disk, flag = stage.folder / "node" / "state" / "spool", stage.folder / "mended"
    node = stage.use([*OWN_MOUNTS, "sh", "-c", _READ_ONLY, "sh", str(disk), str(flag), *PYTHON_NODE])
    report = stage.serving(release)
    assert not report.accepting and "Read-only file system" in str(report.last_error)
    stage.device.send(1, row(1))
    answer = stage.device.answer(1)
    assert float(answer["prediction"]) == pytest.approx(1.75, abs=1e-3) and not answer["captured"]
    assert node.get("/readyz")[0] == 200 and "edgeloop_spool_accepting 0" in node.get("/metrics")[1]

    flag.touch()

    def accepts() -> Report | None:
        found = stage.report()
        return found if found and found.accepting else None

    mended: Report = until(accepts, f"a mended disk; {node.log()[-2000:]}", 20)
    assert mended.last_error is None and mended.not_captured == 1
    stage.device.send(2, row(2))
    assert stage.device.answer(2)["captured"]
    assert node.signal(signal.SIGTERM) == 0
    assert [s.sample_id for s in stage.captured()] == [stage.device.answer(2)["sample_id"]]
