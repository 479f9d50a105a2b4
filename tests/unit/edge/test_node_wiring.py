"""The node's parts are put together as node.yaml says: what each test breaks is a line of the node itself."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import ssl
import threading
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import yaml

from edgeloop.clients.broker import MemoryBroker, Message
from edgeloop.clients.objects import StoreUnavailable
from edgeloop.edge import loops
from edgeloop.edge import node as nodes
from edgeloop.edge.config import NodeSettings
from edgeloop.edge.connecting import Filters
from edgeloop.edge.http import Site, make_app
from edgeloop.edge.node import GatewayEnded, Node
from edgeloop.edge.releases import loading
from edgeloop.edge.releases.agent import Agent
from edgeloop.edge.releases.attempts import CRASHES
from edgeloop.edge.releases.downloads import Allowance, Downloads
from edgeloop.edge.reports import Reporter
from edgeloop.fleet.channel import Pointing
from edgeloop.samples.cohorts import place
from edgeloop.samples.releases import Next, Variant, release_key
from tests.servers.authority import Authority
from tests.unit.edge.fakes import SERVICE, FakeModel, load_fake, publish
from tests.unit.edge.whole import Whole, until

pytestmark = pytest.mark.timeout(300)
Reply = tuple[int, str]


@pytest.fixture
def whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Whole:
    return Whole(tmp_path, monkeypatch)


# --- reports


def test_a_switch_is_reported_at_once_however_rare_reports_are(whole: Whole) -> None:
    first, second = publish(whole.store, "1"), publish(whole.store, "2")
    whole.want(first)

    def serves(digest: str) -> bool:
        report = whole.report()
        return report is not None and report.serving == digest

    async def work(_node: Node) -> None:
        await until(lambda: serves(first.digest))
        whole.want(second)
        await until(lambda: serves(second.digest))

    whole.run(work)


def test_reports_come_every_30_seconds_unless_told_otherwise(whole: Whole) -> None:
    given = whole.settings().model_dump(exclude={"report_seconds"})
    assert NodeSettings.model_validate(given).report_seconds == 30


def test_a_disk_that_fails_and_is_mended_is_reported_at_once(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "_WATCH_SECONDS", 0.01)
    monkeypatch.setattr("edgeloop.edge.spool.disk._PAUSE", 3600)  # before which it does not look by itself

    def said(accepting: bool, error: str | None) -> bool:
        report = whole.report()
        return report is not None and (report.accepting, report.last_error) == (accepting, error)

    async def work(node: Node) -> None:
        await until(lambda: said(True, None))
        node._spool._disk.failed(OSError("No space left on device"))
        await until(lambda: said(False, "spool: No space left on device"))
        node._spool._disk.took()
        await until(lambda: said(True, None))

    whole.run(work)


def test_an_error_of_a_service_is_reported_at_once_and_its_end_too(
    whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loops, "_WATCH_SECONDS", 0.01)

    def said(error: str | None) -> bool:
        report = whole.report()
        return report is not None and report.last_error == error

    async def work(node: Node) -> None:
        # The first poll is over: it clears the error.
        await until(lambda: SERVICE in node._agent._errors and said(None))
        node._agent._errors[SERVICE] = "the store is away"
        await until(lambda: said("the store is away"))
        node._agent._errors[SERVICE] = None
        await until(lambda: said(None))

    whole.run(work, poll_seconds=3600)


def test_a_report_that_waits_for_the_disk_holds_up_no_answer(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[threading.Thread]()
    real = Reporter.message

    def message(self: Reporter, service: str, *, online: bool = True) -> Message:
        asked.append(threading.current_thread())
        return real(self, service, online=online)

    monkeypatch.setattr(Reporter, "message", message)

    async def work(_node: Node) -> None:
        await until(whole.report)

    whole.run(work)
    assert asked and threading.main_thread() not in asked


def test_its_name_decides_its_batch_and_its_profile_the_variant(whole: Whole) -> None:
    salt = next(s for s in map(str, range(100)) if place(s, "n1") < place(s, ""))
    below = f"{int(place(salt, 'n1'), 16) + 1:016x}"
    first, own = publish(whole.store, "1"), publish(whole.store, "own")
    given = {"profile": "pi", "runtime": "onnx", "precision": "int8", "agreement": 1.0, "compared": 9}
    variant = Variant.model_validate({**given, "layers": own.layers})
    second = publish(whole.store, "2").model_copy(update={"variants": [variant]})
    whole.store.put(release_key(SERVICE, second.digest), second.to_bytes())
    whole.want(first)
    whole.publisher.approve(SERVICE, second.digest)
    to = Pointing(first.digest, Next(release=second.digest, salt=salt, below=below))
    whole.publisher.point_many(SERVICE, {0: to})

    def serves() -> bool:
        report = whole.report()
        return report is not None and (report.serving, report.profile) == (second.digest, "pi")

    async def work(_node: Node) -> None:
        await until(serves)

    whole.run(work, profile="pi")
    blobs = {f"sha256:{path.name}" for path in (whole.folder / "state" / "blobs" / "sha256").iterdir()}
    assert {layer.digest for layer in own.layers} <= blobs
    assert not {layer.digest for layer in second.layers if layer.role == "model"} & blobs


# --- what node.yaml says reaches its part


def ask(node: Node, path: str, body: bytes | None = None, token: str | None = None, ca: Path | None = None) -> Reply:
    """Ask over the network, as anyone does; ``ca`` is who is believed to sign the node's certificate."""
    place = json.loads((node.settings.state / "http.json").read_text(encoding="utf-8"))
    host, port = place["host"], place["port"]
    assert place["url"].startswith("https:" if ca else "http:")
    link = HTTPConnection(host, port, timeout=10)
    if ca:
        link = HTTPSConnection(host, port, timeout=10, context=ssl.create_default_context(cafile=ca))
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with closing(link):
        link.request("GET" if body is None else "POST", path, body, headers)
        response = link.getresponse()
        return response.status, response.read().decode()


def answers(node: Node, ca: Path | None = None) -> bool:
    """Whether the gateway is there; anyone may ask for its health."""
    with suppress(OSError):
        return ask(node, "/healthz", ca=ca)[0] == 200
    return False


def test_who_may_ask_and_the_certificate_reach_the_gateway(whole: Whole) -> None:
    authority = Authority(whole.folder)
    pair = authority.sign("node", hosts=("127.0.0.1",))
    callers = [{"name": "eye", "role": "client", "token_sha256": hashlib.sha256(b"look").hexdigest()}]
    (whole.folder / "access.yaml").write_text(yaml.safe_dump(callers), encoding="utf-8")
    load = f"/v2/repository/models/{SERVICE}/load"

    async def work(node: Node) -> None:
        def asked(path: str, body: bytes | None = None, token: str | None = None) -> Reply:
            return ask(node, path, body, token, authority.cert)

        def check() -> None:
            assert asked("/metrics")[0] == 401 and asked("/metrics", token="wrong")[0] == 401
            assert asked("/metrics", token="look")[0] == 200
            assert asked(load, b"", "look")[0] == 403  # a client is no administrator

        await until(lambda: answers(node, authority.cert))
        await asyncio.to_thread(check)

    tls = {"cert": str(pair.cert), "key": str(pair.key)}
    whole.run(work, http="127.0.0.1:0", access="access.yaml", tls=tls)


def test_an_administrator_stops_and_starts_a_service_of_the_running_node(whole: Whole) -> None:
    release = publish(whole.store, "1")
    whole.want(release)
    callers = [{"name": "ann", "role": "admin", "token_sha256": hashlib.sha256(b"key").hexdigest()}]
    (whole.folder / "access.yaml").write_text(yaml.safe_dump(callers), encoding="utf-8")

    def check(node: Node) -> None:
        def act(what: str) -> Reply:
            return ask(node, f"/v2/repository/models/{SERVICE}/{what}", b"", "key")

        def predict() -> int:
            return ask(node, f"/v1/models/{SERVICE}:predict", b'{"instances": [[0.5, 1]]}', "key")[0]

        assert predict() == 200
        assert act("unload") == (200, f'{{"name":"{SERVICE}","ready":false}}')
        assert predict() == 503 and ask(node, "/readyz")[0] == 503
        whole.want(publish(whole.store, "2"))
        assert node._agent.poll(SERVICE, whole.store) is False and predict() == 503  # not by itself
        assert act("load") == (200, f'{{"name":"{SERVICE}","ready":true}}')
        assert predict() == 200 and ask(node, "/readyz")[0] == 200

    async def work(node: Node) -> None:
        await until(lambda: node._agent.serving(SERVICE) == release.digest)
        await until(lambda: answers(node))
        await asyncio.to_thread(check, node)
        await until(lambda: node._agent.serving(SERVICE) not in (None, release.digest))  # follows the channel again
        report = await until(whole.report)
        assert report.accepting

    whole.run(work, http="127.0.0.1:0", access="access.yaml")


def test_bounds_reach_the_downloads_and_both_ways_in(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed: list[int | None] = []
    sites: list[Site] = []

    def downloads(bytes_per_second: int | None) -> Downloads:
        allowed.append(bytes_per_second)
        return Downloads(bytes_per_second)

    def app(site: Site) -> object:
        sites.append(site)
        return make_app(site)

    monkeypatch.setattr(nodes, "Downloads", downloads)
    monkeypatch.setattr(nodes, "make_app", app)

    async def work(node: Node) -> None:
        await until(lambda: whole.connected)
        assert whole.connected["receive_maximum"] == 7 and whole.connected["clean"] is False
        assert whole.connected["busy"] == node._intake.busy and node._intake._inflight == 7
        assert sites[0].inflight == 7 and sites[0].memory_mb == 4000 and allowed == [4096]

    whole.run(work, http="127.0.0.1:0", inflight=7, download_bytes_per_second=4096, memory_mb=4000)


def test_a_slow_link_is_kept_slow(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(Allowance, "take", lambda self, count: slept.append(count / (self.rate or 1e9)))
    release = publish(whole.store, "1")
    whole.want(release)

    async def work(node: Node) -> None:
        await until(lambda: node._agent.serving(SERVICE) == release.digest)

    whole.run(work, download_bytes_per_second=1024)
    assert sum(slept) == pytest.approx(sum(layer.size for layer in release.layers) / 1024, rel=0.01)


# --- the broker's session


def test_what_node_yaml_no_longer_names_is_unsubscribed(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    gone: list[str] = []
    monkeypatch.setattr(MemoryBroker, "unsubscribe", lambda _self, topic: gone.append(topic))

    async def work(node: Node) -> None:
        await until(lambda: node._connection._broker)

    def left_behind(**more: Any) -> set[str]:
        gone.clear()
        whole.run(work, **more)
        return {topic for topic in gone if topic.endswith("/input")}

    assert left_behind(devices=["a", "b"]) == set()
    assert left_behind(devices=["a", "b"]) == set()
    assert left_behind(devices=["b"]) == {f"edgeloop/v1/{SERVICE}/a/input"}
    first = {f"edgeloop/v1/{SERVICE}/{device}/input" for device in "ab"}
    assert left_behind(devices=["b"], group="g") == first
    shared = f"$share/g/edgeloop/v1/{SERVICE}/b/input"
    assert left_behind(devices=["b"], answers_unknown=True) == first | {shared}
    gone_for_good = {f"edgeloop/v1/{SERVICE}/a/input", shared, "edgeloop/v1/+/b/input"}
    assert left_behind(devices=["b"]) == gone_for_good


@pytest.mark.parametrize("kept", ["{", "{}", "[" * 5000, '[1, "x/y"]', "\udcff"])
def test_subscriptions_that_cannot_be_read_stop_no_start(tmp_path: Path, kept: str) -> None:
    (tmp_path / "subscriptions.json").write_bytes(kept.encode("utf-8", "surrogateescape"))
    assert Filters(tmp_path).replace(["a"]) == ({"x/y"} if "x/y" in kept else set())
    assert Filters(tmp_path).replace(["b"]) >= {"a"}


def test_a_full_disk_stops_no_subscription(tmp_path: Path) -> None:
    (tmp_path / "subscriptions.json.tmp").mkdir()
    assert Filters(tmp_path).replace(["a"]) == set()


# --- the start


class Gate:
    """A model that takes as long to load as the test wants."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()
        self.waited_in_vain = False
        monkeypatch.setattr(loading, "load_model", self._load)

    def _load(self, *given: Any, **more: Any) -> FakeModel:
        self.reached.set()
        self.waited_in_vain |= not self.opened.wait(60)
        return load_fake(*given, **more)


@pytest.fixture
def served(whole: Whole) -> Whole:
    """A release is on the node's disk, and proven."""
    release = publish(whole.store, "1")
    whole.want(release)

    async def work(node: Node) -> None:
        await until(lambda: node._agent.serving(SERVICE) == release.digest)
        node._agent.passed(SERVICE, release.digest)

    whole.run(work)
    return whole


def test_health_is_answered_while_a_model_loads_and_inputs_wait_for_it(
    served: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)

    async def work(node: Node) -> None:
        await until(gate.reached.is_set)
        await until(lambda: answers(node))
        input_ = (f"/v1/models/{SERVICE}:predict", b'{"instances": [[0.5, 1]]}')
        early = asyncio.create_task(asyncio.to_thread(ask, node, *input_))
        assert (await asyncio.to_thread(ask, node, "/readyz"))[0] == 503
        gate.opened.set()
        await until(lambda: ask(node, "/readyz")[0] == 200)
        assert (await early)[0] == 200

    served.run(work, http="127.0.0.1:0")


def test_an_input_waits_for_a_start_for_a_while_only(served: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    monkeypatch.setattr("edgeloop.edge.http.app.BOOT_SECONDS", 0.05)

    async def work(node: Node) -> None:
        await until(gate.reached.is_set)
        await until(lambda: answers(node))
        input_ = (f"/v1/models/{SERVICE}:predict", b'{"instances": [[0.5, 1]]}')
        assert (await asyncio.to_thread(ask, node, *input_))[0] == 503
        gate.opened.set()

    served.run(work, http="127.0.0.1:0")


def test_a_stop_does_not_wait_for_a_model_that_loads_and_blames_no_release(
    served: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)

    async def work(node: Node) -> None:
        await until(gate.reached.is_set)
        gate.reached.clear()
        assert node._agent.status(SERVICE)[0].tries == 1

    for _ in range(CRASHES + 1):
        served.run(work)
        known = json.loads((served.folder / "state" / "state.json").read_text(encoding="utf-8"))["services"][SERVICE]
        assert (known["tries"], known["refused"]) == (0, None)
    gate.opened.set()
    assert not gate.waited_in_vain


def test_a_start_that_fails_ends_the_node(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    def boot(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Agent, "boot", boot)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(Node(whole.settings()).serve())


def test_a_gateway_that_ends_by_itself_ends_the_node(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    async def serve(_self: uvicorn.Server, sockets: list[socket.socket]) -> None:
        sockets[0].close()

    monkeypatch.setattr(uvicorn.Server, "serve", serve)
    with pytest.raises(GatewayEnded):
        asyncio.run(Node(whole.settings(http="127.0.0.1:0")).serve())


# --- the end


@pytest.mark.parametrize("turns", range(5))
def test_a_loop_ends_also_when_it_is_called_at_that_moment(turns: int) -> None:
    async def main() -> None:
        event = asyncio.Event()

        async def loop() -> None:
            while True:
                await loops.wait(event, 3600)

        task = asyncio.create_task(loop())
        for _ in range(3):
            await asyncio.sleep(0)
        event.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=1)
        task.cancel()
        assert done and task.cancelled()

    asyncio.run(main())


# --- the channel is polled


def test_a_poll_that_outlives_the_node_is_nobodys(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, threads, failed = threading.Event(), list[threading.Thread](), list[object]()

    def poll(*_: object) -> bool:
        threads.append(threading.current_thread())
        return gate.wait(10)

    async def work(_node: Node) -> None:
        await until(lambda: threads)

    monkeypatch.setattr(Agent, "poll", poll)
    monkeypatch.setattr(threading, "excepthook", failed.append)
    whole.run(work)
    gate.set()
    threads[0].join(10)
    assert not threads[0].is_alive() and failed == []


class Enough(Exception):
    """As many pauses as the test wants."""


def pauses(node: Node, monkeypatch: pytest.MonkeyPatch, count: int, error: Exception | None = None) -> list[float]:
    """The first waits of a node between its polls, which succeed or fail with ``error``."""
    found: list[float] = []

    async def poll(*_: object) -> None:
        if error is not None:
            raise error

    async def wait(_event: asyncio.Event, seconds: float) -> None:
        found.append(seconds)
        if len(found) == count:
            raise Enough

    monkeypatch.setattr(loops, "wait", wait)
    monkeypatch.setattr(loops, "in_daemon", poll)
    with pytest.raises(Enough):
        asyncio.run(node._loops.poll(SERVICE))
    node._spool.close()
    node._lock.release()
    return found


def test_polls_of_many_nodes_do_not_come_together(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    found = pauses(Node(whole.settings(poll_seconds=10)), monkeypatch, 300)
    assert 8 <= min(found) < 8.4 and 11.6 < max(found) <= 12
    assert sum(found) / 300 == pytest.approx(10, abs=0.5)


def test_a_store_that_is_away_is_asked_less_and_less(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    away = StoreUnavailable("memory:", "away")
    found = pauses(Node(whole.settings(poll_seconds=1)), monkeypatch, 12, away)
    for pause, base in zip(found, [1, 2, 4, 8, 16, 32, *[60] * 6], strict=True):
        assert 0.8 * base <= pause <= 1.2 * base
    assert len({round(pause, 6) for pause in found[-6:]}) == 6
