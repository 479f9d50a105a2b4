"""A node whose model runs in a V2 server beside it: that server may be away at any time, and no release is to blame."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from edgeloop.clients.broker import Ack, Message
from edgeloop.clients.models import Endpoint, ModelUnavailable, load_model
from edgeloop.edge.node import Node
from edgeloop.edge.releases import loading
from edgeloop.edge.releases.agent import Agent
from edgeloop.edge.releases.attempts import CRASHES
from edgeloop.edge.releases.blobs import Blobs
from edgeloop.edge.releases.channel import Channel
from edgeloop.edge.releases.downloads import Downloads
from edgeloop.edge.releases.loading import Loader
from edgeloop.edge.releases.state import StateFile
from edgeloop.edge.runtime import TRIAL, WINDOW, Runtime
from edgeloop.edge.stats import Stats
from edgeloop.fleet.publisher import Publisher
from edgeloop.fleet.signing import Keys
from edgeloop.samples.records import hexdigest
from edgeloop.samples.releases import Release
from edgeloop.samples.topics import device_topic
from tests.contract.peers.scripted import Reply, Scripted, scripted
from tests.servers.ports import free_port
from tests.unit.edge.agents import CountingStore
from tests.unit.edge.asking import INFER, PREDICT, tensor
from tests.unit.edge.fakes import SERVICE, publish
from tests.unit.edge.whole import Whole, until

MODEL = "/v2/models/beside"
ROW = b"[0.5,1]"


class Beside:
    """A V2 server on one port, which can be started and ended; it answers ``yes``."""

    def __init__(self) -> None:
        self.port = free_port()
        self.endpoint = Endpoint(protocol="v2", url=f"http://127.0.0.1:{self.port}", model="beside")
        outputs = [
            {"name": "prediction", "datatype": "BYTES", "shape": [1], "data": ["yes"]},
            {"name": "confidence", "datatype": "FP64", "shape": [1], "data": [0.75]},
        ]
        self.replies = {
            "/v2": Reply({"extensions": []}),
            MODEL: Reply({"name": "beside", "inputs": [{"name": "input", "datatype": "FP64", "shape": [-1, 2]}]}),
            f"{MODEL}/ready": Reply(b""),
            f"{MODEL}/infer": Reply({"outputs": outputs}),
        }
        self._running: AbstractContextManager[Scripted] | None = None

    def start(self) -> None:
        self._running = scripted(self.replies, self.port)
        self._running.__enter__().hang_up = True  # a kept connection would outlive the server

    def stop(self) -> None:
        if self._running is not None:
            self._running.__exit__(None, None, None)
            self._running = None


@pytest.fixture
def beside() -> Iterator[Beside]:
    with ExitStack() as stack:
        made = Beside()
        stack.callback(made.stop)
        made.start()
        yield made


def layer_names(release: Release, *roles: str) -> set[str]:
    return {hexdigest(layer.digest) for layer in release.layers if layer.role in roles}


# --- a whole node


class Asker:
    """Asks a running node over both ways."""

    def __init__(self, whole: Whole, node: Node) -> None:
        place = json.loads((node.settings.state / "http.json").read_bytes())
        self._link = http.client.HTTPConnection("127.0.0.1", place["port"], timeout=30)
        self._results = SimpleQueue[Message]()
        self._device = whole.hub.connect("device")
        self._device.subscribe("edgeloop/v1/+/+/result", self._keep)

    def _keep(self, message: Message, ack: Ack) -> None:
        ack()
        self._results.put(message)

    def http(self, path: str, body: Any = None) -> tuple[int, Any]:
        self._link.request("GET" if body is None else "POST", path, None if body is None else json.dumps(body).encode())
        answer = self._link.getresponse()
        return answer.status, json.loads(answer.read())

    def close(self) -> None:
        self._link.close()

    def mqtt(self) -> dict[str, Any]:
        self._device.publish(device_topic(SERVICE, "d", "input"), ROW)
        found: dict[str, Any] = json.loads(self._results.get(timeout=30).payload)
        return found


def test_a_node_answers_by_the_server_beside_it_and_waits_for_it_when_it_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: Beside
) -> None:
    whole = Whole(tmp_path, monkeypatch)
    monkeypatch.setattr(loading, "load_model", load_model)
    release = publish(whole.store, "1")
    whole.want(release)

    def ask(asker: Asker, node: Node) -> None:
        outcomes = node._stats.services[SERVICE].outcomes
        status, answer = asker.http(INFER, tensor("FP64", [1, 2], [0.5, 1]))
        assert (status, answer["outputs"][0]["data"], answer["model_version"]) == (200, ["yes"], "1")
        assert asker.mqtt()["prediction"] == "yes"
        blobs = {path.name for path in (node.settings.state / "blobs" / "sha256").iterdir()}
        assert blobs == layer_names(release, "config", "probe")

        beside.stop()
        for number in range(TRIAL + WINDOW + 2):  # more than would condemn a release that fails
            path, body = (
                (INFER, tensor("FP64", [1, 2], [0.5, 1])) if number % 2 else (PREDICT, {"instances": [[0.5, 1]]})
            )
            status, answer = asker.http(path, body)
            assert status == 503 and "(model beside) does not answer" in answer["error"], answer
        assert "does not answer" in asker.mqtt()["error"]
        assert outcomes["not_ready"] == TRIAL + WINDOW + 3 and "model_error" not in outcomes
        state, _ = node._agent.status(SERVICE)
        assert (state.serving, state.refused) == (release.digest, None)

        beside.start()
        assert asker.http(PREDICT, {"instances": [[0.5, 1]]})[0] == 200
        assert asker.mqtt()["prediction"] == "yes"

    async def work(node: Node) -> None:
        await until(lambda: node.runtime.loaded(SERVICE))
        with closing(Asker(whole, node)) as asker:
            await asyncio.to_thread(ask, asker, node)

    endpoint = beside.endpoint.model_dump(exclude_none=True)
    whole.run(work, endpoints={SERVICE: endpoint}, http="127.0.0.1:0")


# --- the server is away while a release is loaded


class Site:
    """The channel, and one node's agent whose model runs beside it."""

    def __init__(self, folder: Path, beside: Beside) -> None:
        self.folder, self.beside, self.wall = folder, beside, 1_000_000.0
        self.store = CountingStore()
        self.publisher = Publisher(self.store, Keys(folder / "keys"))
        self.root = self.publisher.ensure()
        self.boot()

    def boot(self) -> None:
        self.runtime = Runtime(1)
        self.agent = Agent(
            Channel(lambda: self.store, self.root, self.folder / "channel", 0),
            self.runtime,
            Blobs(self.folder, Downloads(sleep=lambda _: None)),
            StateFile(self.folder),
            Stats([SERVICE]),
            loader=Loader(None, {SERVICE: self.beside.endpoint}),
            wall=lambda: self.wall,
        )
        self.agent.boot([SERVICE])

    def want(self, release: Release) -> None:
        self.publisher.approve(SERVICE, release.digest)
        self.publisher.point(SERVICE, 0, release.digest)

    def poll(self) -> bool:
        return self.agent.poll(SERVICE, self.store)

    def is_away(self) -> None:
        """A poll finds the server away, says so, and blames no release."""
        with pytest.raises(ModelUnavailable, match="does not answer"):
            self.poll()
        state, error = self.agent.status(SERVICE)
        assert state.refused is None and "does not answer" in str(error)


@pytest.fixture
def site(tmp_path: Path, beside: Beside) -> Site:
    return Site(tmp_path, beside)


def test_only_what_is_needed_beside_a_server_is_fetched(site: Site) -> None:
    release = publish(site.store, "1")
    site.want(release)
    site.store.gets.clear()
    assert site.poll() is True
    fetched = {key.rsplit("/", 1)[1] for key in site.store.gets if key.startswith("blobs/")}
    assert fetched == layer_names(release, "config", "probe")
    assert site.runtime.predict(SERVICE, ROW)[0].prediction == "yes"


def test_a_release_waits_for_its_server_and_the_one_before_serves_on(site: Site) -> None:
    first, second = publish(site.store, "1"), publish(site.store, "2")
    site.want(first)
    site.poll()
    site.beside.stop()
    site.want(second)
    for _ in range(CRASHES + 1):
        site.is_away()
        assert site.agent.serving(SERVICE) == first.digest
    site.beside.start()
    assert site.poll() is True
    assert site.agent.serving(SERVICE) == second.digest


def test_a_node_that_starts_before_its_server_serves_as_soon_as_that_is_there(site: Site) -> None:
    release = publish(site.store, "1")
    site.want(release)
    site.poll()
    site.beside.stop()
    for _ in range(CRASHES + 1):  # restarts are no crashes of the release
        site.boot()
        assert site.agent.serving(SERVICE) is None
    for _ in range(CRASHES + 1):
        site.is_away()
    site.beside.replies[f"{MODEL}/ready"] = Reply({"error": "loading"}, 503)
    site.beside.start()
    with pytest.raises(ModelUnavailable, match="is not ready"):
        site.poll()
    site.beside.replies[f"{MODEL}/ready"] = Reply(b"")
    site.poll()
    assert site.agent.serving(SERVICE) == release.digest
    assert site.agent.status(SERVICE)[1] is None
    assert site.runtime.predict(SERVICE, ROW)[0].prediction == "yes"


def test_a_server_that_answers_otherwise_than_the_release_says_is_not_served(site: Site) -> None:
    site.beside.replies[f"{MODEL}/infer"] = Reply(
        {"outputs": [{"name": "y", "shape": [1], "datatype": "BYTES", "data": ["no"]}]}
    )
    site.want(publish(site.store, "1"))
    assert site.poll() is False
    state, _ = site.agent.status(SERVICE)
    assert state.refused is not None and "probe input 0 gave no" in state.refused.error
