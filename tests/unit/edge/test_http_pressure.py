"""A bounded number of inputs and bytes in work: what is over it is refused at once."""

from __future__ import annotations

import asyncio
import gzip
import threading
import zlib
from typing import Any

import pytest

from edgeloop.edge.http import pages
from edgeloop.edge.metrics import exposition
from tests.unit.edge.asking import PREDICT, MakeWeb, Web, call
from tests.unit.edge.serving import ROW

MIB = 1024 * 1024


class Gate:
    """A gateway's ``handle`` that waits until it is opened."""

    def __init__(self, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.waiting = 0
        self._lock = threading.Lock()
        self._handle = web.bench.gateway.handle
        monkeypatch.setattr(web.bench.gateway, "handle", self._wait)

    def _wait(self, *given: Any) -> Any:
        with self._lock:
            self.waiting += 1
        assert self.open.wait(20)
        return self._handle(*given)


def test_over_the_places_a_request_is_refused_at_once(webs: MakeWeb, monkeypatch: pytest.MonkeyPatch) -> None:
    web = webs(inflight=3)
    gate = Gate(web, monkeypatch)

    async def all_of_it() -> None:
        first = [asyncio.create_task(web.asking(PREDICT, {"instances": [[n / 8, 1]]})) for n in range(3)]
        while gate.waiting < 3:
            await asyncio.sleep(0.001)
        over = await asyncio.wait_for(web.asking(PREDICT, {"instances": [[0.5, 1]]}), 20)
        assert over.status == 429 and over.headers[b"retry-after"] == b"1"
        assert "3 inputs are in work" in over.error
        unread = await call(web.app, "POST", PREDICT, [], [])  # to read a body would be to find that nobody is there
        assert unread and unread.status == 429
        assert (await web.asking("/healthz")).status == 200
        gate.open.set()
        assert [r.status for r in await asyncio.gather(*first)] == [200] * 3
        assert (await web.asking(PREDICT, {"instances": [[0.5, 1]]})).status == 200

    web.run(all_of_it())
    assert web.site.work.refused == {"busy": 2} and web.site.work.in_work == 0


def test_a_batch_takes_what_is_free_and_no_more_than_its_lanes(webs: MakeWeb, monkeypatch: pytest.MonkeyPatch) -> None:
    web = webs(inflight=10)
    gate = Gate(web, monkeypatch)
    batch = {"instances": [[n / 128, 1] for n in range(100)]}

    async def all_of_it() -> None:
        one = asyncio.create_task(web.asking(PREDICT, batch))
        while gate.waiting < 8:
            await asyncio.sleep(0.001)
        assert web.site.work.in_work == 8
        two = asyncio.create_task(web.asking(PREDICT, batch))
        while web.site.work.in_work < 10:
            await asyncio.sleep(0.001)
        gate.open.set()
        for response in await asyncio.gather(one, two):
            assert response.json()["confidences"] == [n / 128 for n in range(100)]

    web.run(all_of_it())
    assert web.site.work.in_work == 0


def test_bodies_that_are_held_are_bounded(webs: MakeWeb, monkeypatch: pytest.MonkeyPatch) -> None:
    web = webs(max_body=10_000)
    gate = Gate(web, monkeypatch)
    body = ROW + b" " * (9000 - len(ROW))

    async def all_of_it() -> None:
        held = [asyncio.create_task(web.asking(PREDICT, body)) for _ in range(4)]
        while gate.waiting < 4:
            await asyncio.sleep(0.001)
        over = await web.asking(PREDICT, body)
        assert over.status == 429 and "requests hold 45000 bytes" in over.error
        gate.open.set()
        assert [r.status for r in await asyncio.gather(*held)] == [200] * 4

    web.run(all_of_it())
    assert web.site.work._held == 0


def test_decompressed_bodies_take_from_the_same_bytes(webs: MakeWeb, monkeypatch: pytest.MonkeyPatch) -> None:
    web = webs(max_body=10_000)
    gate = Gate(web, monkeypatch)
    body, headers = gzip.compress(ROW + b" " * (9000 - len(ROW))), {"Content-Encoding": "gzip"}
    assert len(body) < 100

    async def all_of_it() -> None:
        held = [asyncio.create_task(web.asking(PREDICT, body, headers)) for _ in range(4)]
        while gate.waiting < 4:
            await asyncio.sleep(0.001)
        assert web.site.work._held == 4 * (len(body) + 9000)
        over = await asyncio.wait_for(web.asking(PREDICT, body, headers), 20)
        assert over.status == 429 and "more than 40000" in over.error
        gate.open.set()
        assert [r.status for r in await asyncio.gather(*held)] == [200] * 4

    web.run(all_of_it())
    assert web.site.work._held == 0
    assert web.ask(PREDICT, body[:-4] + b"\xff" * 4, headers).status == 400  # says that it is larger than any may be
    assert web.ask(PREDICT, body[:-4] + b"\1\0\0\0", headers).status == 400  # says that it is smaller than it is
    assert web.site.work._held == 0


def test_what_is_refused_makes_no_bytes(webs: MakeWeb, monkeypatch: pytest.MonkeyPatch) -> None:
    web = webs(max_body=10_000)
    web.site.work._bytes = 5000
    monkeypatch.setattr(zlib, "decompressobj", lambda _bits: pytest.fail("decompressed what it cannot hold"))
    response = web.ask(PREDICT, gzip.compress(b" " * 9000), {"Content-Encoding": "gzip"})
    assert response.status == 429 and web.site.work._held == 0


@pytest.mark.parametrize(
    ("memory_mb", "held", "body"), [(None, 256, 64), (4096, 256, 64), (1024, 256, 64), (256, 64, 32), (32, 8, 4)]
)
def test_bodies_leave_the_memory_to_the_models(webs: MakeWeb, memory_mb: int | None, held: int, body: int) -> None:
    site = webs(memory_mb=memory_mb).site
    assert (site.work._bytes, site.max_body) == (held * MIB, body * MIB)


def test_the_metrics_do_not_hold_up_the_event_loop(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = threading.Event()

    def slow(*given: Any) -> str:
        assert opened.wait(60)  # as for the lock of a spool that is being written
        return exposition(*given)

    monkeypatch.setattr(pages, "exposition", slow)

    async def all_of_it() -> None:
        metrics = asyncio.create_task(web.asking("/metrics"))
        await asyncio.sleep(0)
        assert (await web.asking("/healthz")).status == 200
        opened.set()
        answer = await metrics
        assert answer.status == 200 and b"edgeloop_requests_total" in answer.body

    web.run(all_of_it())
