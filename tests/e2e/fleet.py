"""A running stack with a wine champion, for tests of what its flows do."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from edgeloop.bootstrap import App
from edgeloop.demo.devices import flush, replay
from edgeloop.demo.run import import_reference
from edgeloop.errors import EdgeloopError
from edgeloop.fleet.reports import collect_reports
from edgeloop.learning.rounds import RoundRecord, load_round
from edgeloop.samples.records import Label, now
from edgeloop.samples.segments import segment_key, write_segment
from edgeloop.settings import load_settings
from edgeloop.sources.catalog import get_dataset
from edgeloop.sources.streams import Item, Stream, load_stream
from edgeloop.stack.plan import StackPlan
from edgeloop.stack.running import RunningStack, running_stack

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
        url = f"{self.stack.addresses['mlflow']}/api/2.0/mlflow/model-versions/search"
        answer = httpx.get(url, params={"filter": f"name='{SERVICE}'"}, timeout=60).raise_for_status()
        found = answer.json().get("model_versions", [])
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

    def artifact(self, key: str) -> str:
        """What the newest artifact of ``key`` says."""
        url = f"{self.stack.addresses['prefect']}/artifacts/{key}/latest"
        return str(httpx.get(url, timeout=60).raise_for_status().json()["data"])


@contextmanager
def wine_fleet(home: Path, wine: Path) -> Iterator[Fleet]:
    """The stack on a new home, with its schedules paused and a champion that was made from red wines."""
    get_dataset("wine", home, wine)
    settings = load_settings(home)
    root = App(settings).channel.ensure()
    plan = StackPlan(home=home, rooms=settings.rooms, services=[SERVICE], nodes=NODES, free_ports=True, root=root)
    with running_stack(plan) as stack:
        app = App(stack.settings())
        app.orchestrator.set_schedules(False)
        stream = load_stream(app.service(SERVICE), home / "data" / "wine", 3, 0)
        import_reference(app, app.service(SERVICE), [*stream.start, *stream.test])
        made = Fleet(stack, plan, stream)
        first = made.loop()
        assert first.promotion is not None and first.promotion.promoted
        yield made
