"""A packed release tells a broker what it counts; without one it answers all the same."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edgeloop.cli import cli
from edgeloop.clients import broker as brokers
from edgeloop.clients.broker import (
    Broker,
    BrokerRefused,
    BrokerUnavailable,
    MalformedBrokerUrl,
    MemoryBroker,
    MemoryHub,
)
from edgeloop.clients.objects import MemoryStore
from edgeloop.edge.releases import loading
from edgeloop.edge.standalone import Standalone, read_packed, serve_folder
from edgeloop.edge.stats import Stats
from edgeloop.edge.telling import Teller, UnusableNode
from edgeloop.samples.records import Report
from edgeloop.samples.topics import NODES, report_topic
from tests.unit.edge.fakes import SERVICE, load_fake, publish
from tests.unit.edge.test_standalone import pack
from tests.unit.edge.whole import until

pytestmark = pytest.mark.timeout(300)
RELEASE = "sha256:" + "a" * 64


class Hub:
    """A broker in memory behind ``connect``; as often as ``away`` says it is not there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, away: int = 0) -> None:
        self.hub = MemoryHub()
        self.away = away
        self.clients: list[str] = []
        self.reader = self.hub.connect("reader")
        monkeypatch.setattr(brokers, "connect", self.connect)

    def connect(self, url: str, client: str, **_: Any) -> Broker:
        assert url == "mqtt://broker:1"
        if self.away:
            self.away -= 1
            raise BrokerUnavailable("broker:1 does not answer")
        self.clients.append(client)
        return self.hub.connect(client)

    def reports(self) -> list[Report]:
        found = self.reader.collect_retained(NODES, quiet=0.01)
        assert {message.topic for message in found} <= {report_topic("edge-7", SERVICE)}, "nothing else is said"
        return [Report.model_validate_json(message.payload) for message in found]


def during(work: Callable[[], Coroutine[Any, Any, None]], teller: Teller, stats: Stats) -> None:
    async def run() -> None:
        telling = asyncio.create_task(teller.tell(SERVICE, RELEASE, "pi", stats))
        try:
            await work()
        finally:
            telling.cancel()
            await asyncio.wait([telling])

    asyncio.run(run())


def test_it_says_what_was_counted_of_which_release(monkeypatch: pytest.MonkeyPatch) -> None:
    hub, stats = Hub(monkeypatch), Stats([SERVICE])
    stats.answered(SERVICE, 0.02, 0.95)
    stats.failed(SERVICE, "model_error")

    async def work() -> None:
        found: Report = (await until(hub.reports))[0]
        assert (found.node, found.ring, found.service, found.profile) == ("edge-7", 2, SERVICE, "pi")
        assert (found.wanted, found.serving, found.online) == (RELEASE, RELEASE, True)
        assert (found.release_answered, found.release_failed, found.latency_ms_p99) == (1, 1, 20.0)
        assert found.confidence_histogram == [0] * 9 + [1]
        stats.answered(SERVICE, 0.02, 0.95)
        await until(lambda: hub.reports()[0].release_answered == 2)

    during(work, Teller("mqtt://broker:1", "edge-7", 2, seconds=0.02), stats)
    (last,) = hub.reports()
    assert last.online, "an old pod's goodbye must not be the word on the new one"


def test_a_broker_that_is_away_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hub = Hub(monkeypatch, away=1)

    async def work() -> None:
        assert await until(hub.reports)

    during(work, Teller("mqtt://broker:1", "edge-7", 0), Stats([SERVICE]))
    assert [record.message for record in caplog.records] == ["no broker"]


def test_two_pods_of_one_node_are_two_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(monkeypatch)
    for count in (1, 2):

        async def work(count: int = count) -> None:
            await until(lambda: len(hub.clients) == count)

        during(work, Teller("mqtt://broker:1", "edge-7", 0), Stats([SERVICE]))
    assert len(set(hub.clients)) == 2


def test_what_goes_wrong_with_reports_does_not_end_the_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loading, "load_model", load_fake)
    store = MemoryStore()
    folder = pack(tmp_path / "models", publish(store, "1"), store)

    def broken(*_: Any, **__: Any) -> Broker:
        raise RuntimeError("a defect")

    monkeypatch.setattr(brokers, "connect", broken)
    caplog.set_level(logging.INFO)

    def said(word: str) -> bool:
        return word in [record.message for record in caplog.records]

    async def work() -> None:
        server = Standalone(read_packed(folder), teller=Teller("mqtt://broker:1", "edge-7", 0))
        serving = asyncio.create_task(server.serve("127.0.0.1:0", None, is_open=False))
        await until(lambda: said("no more reports"))
        assert not serving.done()
        server.stop()
        await serving

    asyncio.run(work())


def test_a_broker_that_hangs_at_the_end_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    hub, hangs, closing = Hub(monkeypatch), threading.Event(), threading.Event()

    def close(_: MemoryBroker) -> None:
        closing.set()
        hangs.wait(60)

    monkeypatch.setattr(MemoryBroker, "close", close)

    async def work() -> None:
        await until(hub.reports)

    begun = time.monotonic()
    during(work, Teller("mqtt://broker:1", "edge-7", 0), Stats([SERVICE]))
    took = time.monotonic() - begun
    assert closing.wait(60), "it says goodbye all the same"
    hangs.set()
    assert took < 30, "and nobody waits for that"


def test_a_report_that_the_broker_refuses_is_told_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hub = Hub(monkeypatch)

    def refuse(*_: Any, **__: Any) -> Future[None]:
        sent: Future[None] = Future()
        sent.set_exception(BrokerRefused("broker:1 refuses the message (not authorized)"))
        return sent

    monkeypatch.setattr(MemoryBroker, "publish_nowait", refuse)

    async def work() -> None:
        await until(lambda: "a report was refused" in [record.message for record in caplog.records])

    during(work, Teller("mqtt://broker:1", "edge-7", 0), Stats([SERVICE]))
    assert not hub.reports()


def test_the_password_is_not_shown() -> None:
    assert "hunter2" not in repr(Teller("mqtts://pods:hunter2@broker:1", "edge-7", 0))


@pytest.mark.parametrize("node", ["a/b", "a+", "#", "-a", "n" * 129, "a b", ""])
def test_a_name_that_nobody_would_hear_is_refused(node: str) -> None:
    with pytest.raises(UnusableNode, match="cannot be the name of a node: give at most 128"):
        Teller("mqtt://broker:1", node, 0).check()


@pytest.mark.parametrize("node", ["ip-10-0-0-1.eu-west-1.compute.internal", "n" * 128, "7"])
def test_names_of_kubernetes_nodes_are_names(node: str) -> None:
    Teller("mqtt://broker:1", node, 0).check()


def test_a_broker_url_that_is_none_is_refused_before_anything_listens(tmp_path: Path) -> None:
    store = MemoryStore()
    folder = pack(tmp_path / "models", publish(store, "1"), store)
    with pytest.raises(MalformedBrokerUrl, match="is not one"):
        serve_folder(folder, "127.0.0.1:0", teller=Teller("http://broker", "edge-7", 0))


def test_reports_to_nobody_are_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["serve", str(tmp_path), "--node", "edge-7"], env={"EDGELOOP_BROKER": None})
    assert done.exit_code == 2 and "--node has no broker to report to: add --broker" in done.output


@pytest.mark.parametrize(("node", "teller"), [("edge-7", Teller("mqtt://broker:1", "edge-7", 3, 5.0)), (None, None)])
def test_a_broker_alone_is_no_wish_to_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, node: str | None, teller: Teller | None
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr("edgeloop.edge.standalone.serve_folder", lambda *_, **more: given.update(more))
    monkeypatch.setattr("edgeloop.edge.logs.start_logging", lambda: None)
    environment = {"EDGELOOP_BROKER": "mqtt://broker:1", "EDGELOOP_RING": "3", "EDGELOOP_REPORT_SECONDS": "5"}
    done = CliRunner().invoke(cli, ["serve", str(tmp_path)], env={**environment, "EDGELOOP_NODE": node})
    assert (done.exit_code, given["teller"]) == (0, teller), done.output
