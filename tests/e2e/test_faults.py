"""kill -9 at every stage boundary and of every part: the next run finishes, and nothing is lost or counted twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeloop.bootstrap import App
from edgeloop.clients.broker import Ack, Message
from edgeloop.demo.devices import flush, replay
from edgeloop.demo.run import import_reference
from edgeloop.errors import EdgeloopError
from edgeloop.fleet.reports import collect_reports
from edgeloop.learning.rounds import RoundRecord, load_round
from edgeloop.learning.train import put_blob
from edgeloop.samples.records import Label, now
from edgeloop.samples.segments import segment_key, write_segment
from edgeloop.settings import load_settings
from edgeloop.sources.catalog import get_dataset
from edgeloop.sources.streams import Item, Stream, load_stream
from edgeloop.stack.environment import child_environment
from edgeloop.stack.plan import StackPlan
from edgeloop.stack.running import RunningStack, running_stack
from tests.e2e.kill_after import STAGES

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
SERVICE = "wine-rater"
NODES = 2


class Fleet:
    """A running stack with a wine champion, its stream, and what the devices were told was captured."""

    def __init__(self, stack: RunningStack, plan: StackPlan, stream: Stream) -> None:
        self.stack = stack
        self.plan = plan
        self.app = App(stack.settings())
        self.service = self.app.service(SERVICE)
        self.items = iter([i for domain in stream.rounds for i in domain.items])
        self.captured: list[str] = []
        self._lock = threading.Lock()

    def take(self, count: int) -> list[Item]:
        return [next(self.items) for _ in range(count)]

    def stream(self, count: int) -> int:
        """Play inputs, with a person's label on every captured one; returns how many were captured."""
        labels: list[Label] = []

        def label(item: Item, sample: str) -> str | None:
            with self._lock:
                self.captured.append(sample)
                labels.append(
                    Label(sample_id=sample, service=SERVICE, label=item.label, source="human", by="test", at=now())
                )
            return None

        with self.app.broker() as broker:
            played = replay(broker, SERVICE, self.take(count), label, devices=2)
            flush(broker, SERVICE, NODES)
        data = write_segment(labels)
        self.app.store.create(segment_key("labels", SERVICE, data), data)
        return played.sent

    def loop(self, attempts: int = 3) -> RoundRecord:
        """Run the deployed loop; a run that something killed is asked for again."""
        last: object = None
        for _ in range(attempts):
            try:
                run = self.app.orchestrator.run("loop/loop", {"service": SERVICE, "reason": "fault test"})
                state = self.app.orchestrator.wait(run, timeout=180)
                if state.succeeded:
                    return load_round(self.app.store, SERVICE, run)
                last = state
            except EdgeloopError as error:
                last = error
        raise AssertionError(f"the loop did not finish: {last}")

    def check(self) -> None:
        """Every answered capture is in the table once; every candidate is one version; the fleet is on the champion."""
        rows = self.app.tables(SERVICE).read("samples", ["sample_id", "device"])
        streamed = sorted(r["sample_id"] for r in rows if r["device"] != "reference")
        assert streamed == sorted(self.captured)
        keys = [v["key"] for v in self.versions()]
        assert len(keys) == len(set(keys))
        champion = self.app.registry.champion(SERVICE)
        assert champion is not None
        wanted = self.app.fleet.release_of(SERVICE, champion.version)
        self.until(lambda: {r.serving for r in self.reports()} == {wanted}, 60)
        assert len(self.reports()) == NODES

    def versions(self) -> list[dict[str, Any]]:
        import httpx

        url = f"{self.stack.addresses['mlflow']}/api/2.0/mlflow/model-versions/search"
        found = httpx.get(url, params={"filter": f"name='{SERVICE}'"}).json().get("model_versions", [])
        tags = [{t["key"]: t["value"] for t in v.get("tags", [])} for v in found]
        return [{"version": v["version"], "key": t.get("edgeloop.key")} for v, t in zip(found, tags, strict=True)]

    def events(self, event: str) -> list[dict[str, Any]]:
        return [row for row in self.app.fleet.history(SERVICE, limit=1000) if row["event"] == event]

    def reports(self) -> list[Any]:
        with self.app.broker() as broker:
            return collect_reports(broker, SERVICE)

    def until(self, wanted: Any, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not wanted():
            assert time.monotonic() < end, "waited in vain"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Iterator[Fleet]:
    home = tmp_path_factory.mktemp("faults") / "home"
    get_dataset("wine", home, shared / "datasets" / "wine")
    settings = load_settings(home)
    root = App(settings).channel.ensure()
    plan = StackPlan(home=home, rooms=settings.rooms, services=[SERVICE], nodes=NODES, free_ports=True, root=root)
    with running_stack(plan) as stack:
        app = App(stack.settings())
        app.orchestrator.set_schedules(False)
        service = app.service(SERVICE)
        stream = load_stream(service, home / "data" / "wine", 3, 0)
        import_reference(app, service, [*stream.start, *stream.test])
        made = Fleet(stack, plan, stream)
        first = made.loop()
        assert first.promotion is not None and first.promotion.promoted
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
    assert "holiday.jpg" in artifact(fleet, f"validation-{SERVICE}")


def artifact(fleet: Fleet, key: str) -> str:
    import httpx

    found = httpx.get(f"{fleet.stack.addresses['prefect']}/artifacts/{key}/latest").json()
    return str(found["data"])


def test_an_alias_set_by_hand_is_rolled_out_within_a_minute(fleet: Fleet) -> None:
    champion = fleet.app.registry.champion(SERVICE)
    assert champion is not None and champion.version != "1"
    fleet.app.orchestrator.set_schedules(True)
    try:
        fleet.app.registry.set_champion(SERVICE, "1")
        wanted = fleet.app.fleet.release_of(SERVICE, "1")
        fleet.until(lambda: {r.serving for r in fleet.reports()} == {wanted}, 60)
        assert (fleet.events("promotion")[0]["version"], fleet.events("promotion")[0]["who"]) == ("1", "alias")
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
