"""A bounded number of inputs and bytes in work: what is over it is refused at once."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from tests.unit.edge.asking import PREDICT, MakeWeb, Web, call
from tests.unit.edge.serving import ROW


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
