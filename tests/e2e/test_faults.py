"""kill -9 at every stage boundary and of every part: the next run finishes, and nothing is lost or counted twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeloop.clients.broker import Ack, Message
from edgeloop.learning.rounds import load_round
from edgeloop.learning.train import put_blob
from edgeloop.stack.environment import child_environment
from tests.e2e.fleet import SERVICE, Fleet, wine_fleet
from tests.e2e.kill_after import STAGES

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Iterator[Fleet]:
    with wine_fleet(tmp_path_factory.mktemp("faults") / "home", shared / "datasets" / "wine") as made:
        yield made


def test_a_round_with_no_new_data_trains_nothing_and_says_so(fleet: Fleet) -> None:
    before = fleet.versions()
    run = fleet.app.orchestrator.run("loop/loop", {"service": SERVICE, "reason": "nothing new"})
    assert fleet.app.orchestrator.wait(run, timeout=120).succeeded
    record = load_round(fleet.app.store, SERVICE, run)
    assert record.skip is not None and "no new data" in record.skip
    assert record.promotion is None
    assert fleet.versions() == before
    assert not {"train", "evaluate", "register"} & {t.name for t in fleet.app.orchestrator.tasks(run)}


def test_killed_at_every_stage_boundary_the_next_run_finishes(fleet: Fleet) -> None:
    assert fleet.stream(400) > 0
    judged = len(fleet.events("gate"))
    versions = len(fleet.versions())
    env = child_environment(fleet.plan, fleet.stack.addresses, os.environ)
    env["PYTHONPATH"] = os.pathsep.join([str(fleet.plan.rooms), env["PYTHONPATH"]])
    for stage in STAGES:
        command = [sys.executable, "-m", "tests.e2e.kill_after", SERVICE, stage]
        done = subprocess.run(command, env=env, cwd=fleet.plan.rooms, capture_output=True, text=True, check=False)
        assert done.returncode == -signal.SIGKILL, (stage, done.stderr[-2000:])
    fleet.loop()
    fleet.check()
    assert len(fleet.versions()) == versions + 1, "one candidate is one version, however often it was cut off"
    assert len(fleet.events("gate")) == judged + 1
    assert not list(fleet.app.store.list(f"captures/{SERVICE}/"))


@pytest.mark.parametrize("part", ["edge-1", "broker", "mlflow", "prefect", "runner"])
def test_a_part_killed_in_mid_round_comes_back_and_nothing_is_lost(fleet: Fleet, part: str) -> None:
    before = fleet.stack.pids()[part]
    killer = threading.Timer(0.3, os.kill, (before, signal.SIGKILL))
    killer.start()
    fleet.stream(60)
    killer.join()
    fleet.until(lambda: fleet.stack.pids().get(part) not in {None, before} and not fleet.stack.check(), 90)
    fleet.loop()
    fleet.check()


def test_a_runner_killed_while_the_loop_runs(fleet: Fleet) -> None:
    fleet.stream(60)
    run = fleet.app.orchestrator.run("loop/loop", {"service": SERVICE, "reason": "killed with its runner"})
    fleet.until(lambda: bool(fleet.app.orchestrator.tasks(run)), 60)
    pid = fleet.stack.pids()["runner"]
    os.kill(pid, signal.SIGKILL)
    fleet.until(lambda: fleet.stack.pids().get("runner") not in {None, pid} and not fleet.stack.check(), 90)
    fleet.loop(attempts=4)
    fleet.check()


def test_a_corrupt_file_in_captures_is_set_aside_and_named(fleet: Fleet) -> None:
    fleet.app.store.put(f"captures/{SERVICE}/holiday.jpg", b"\xff\xd8 not a segment")
    fleet.stream(40)
    fleet.loop()
    fleet.check()
    assert fleet.app.store.size(f"quarantine/captures/{SERVICE}/holiday.jpg") is not None
    assert "holiday.jpg" in fleet.artifact(f"validation-{SERVICE}")


def test_an_alias_set_by_hand_is_rolled_out_within_a_minute(fleet: Fleet) -> None:
    if len(fleet.versions()) == 1:  # it runs alone
        fleet.stream(200)
        fleet.loop()
    champion = fleet.app.registry.champion(SERVICE)
    assert champion is not None
    other = next(v["version"] for v in fleet.versions() if v["version"] != champion.version)
    fleet.app.orchestrator.set_schedules(True)
    try:
        fleet.app.registry.set_champion(SERVICE, other)
        fleet.until(lambda: {r.serving for r in fleet.reports()} == {fleet.app.fleet.release_of(SERVICE, other)}, 60)
        assert (fleet.events("promotion")[0]["version"], fleet.events("promotion")[0]["who"]) == (other, "alias")
    finally:
        fleet.app.orchestrator.set_schedules(False)


def test_a_release_that_fails_on_ring_0_is_taken_back(fleet: Fleet) -> None:
    """A version whose model does not load: ring 0 refuses it, ring 1 never sees it, both stay on the former one."""
    from edgeloop.fleet.rollout import run_to_end, start, tick
    from edgeloop.samples.releases import Layer, parse_release, release_key

    serving = {r.node: r.serving for r in fleet.reports()}
    good = next(iter(serving.values()))
    assert good is not None
    release = parse_release(fleet.app.store.get(release_key(SERVICE, good)), good)
    broken = put_blob(fleet.app.store, b"no model at all")
    layers = [
        Layer(role="model", digest=broken, size=15, media_type=x.media_type) if x.role == "model" else x
        for x in release.layers
    ]
    bad = release.model_copy(update={"layers": layers})
    fleet.app.store.create(release_key(SERVICE, bad.digest), bad.to_bytes())
    fleet.app.channel.approve(SERVICE, bad.digest)
    assert start(fleet.app.fleet, fleet.app.channel, fleet.service, bad.digest, "a bad release")
    with fleet.app.broker() as broker:
        heard: list[str] = []

        def listen(message: Message, ack: Ack) -> None:
            heard.append(message.topic)
            ack()

        broker.subscribe("edgeloop/v1/rings/1/wanted/#", listen)
        heard.clear()
        status = run_to_end(
            lambda: tick(fleet.app.fleet, fleet.app.channel, broker, fleet.app.service)[0], 60, lambda _: None
        )
    assert status.state == "reverted"
    fleet.until(lambda: {r.node: r.serving for r in fleet.reports()} == serving, 30)
