"""Whatever is sent, a node answers with what its pages declare, fails nowhere, waits for nothing and keeps nothing."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections import Counter
from pathlib import Path

import pytest

from edgeloop.clients.models import Answer
from edgeloop.edge.allocator import give_back_large_blocks
from edgeloop.edge.http.access import Access, Caller
from edgeloop.edge.once import Once
from tests.unit.edge.asking import INFER, MakeWeb, Response, Web, call, tensor
from tests.unit.edge.damaged import EYE, serve_eye
from tests.unit.edge.fakes import SERVICE, FakeModel
from tests.unit.edge.hostile import Asked, Hostile, good
from tests.unit.edge.test_access import bearer, sha256

INPUTS = int(os.environ.get("EDGELOOP_FUZZ_INPUTS", "60000"))
#: What the reference declares, less 408 and 429 (nothing is slow or many here) and less 500 (nothing fails here).
DECLARED = {200, 202, 400, 401, 403, 404, 405, 413, 415, 503}
#: More than this after the first quarter is growth: the allocator's own ups and downs were under 2 MiB.
MOST_GROWTH = 8 * 1024 * 1024


class Steady(FakeModel):
    """Its confidence is one, whatever it is asked."""

    def predict(self, payload: bytes) -> Answer:
        found = super().predict(payload)
        return Answer(found.prediction, min(max(found.confidence or 0.0, 0.0), 1.0), (0.5, 0.5), None)


@pytest.fixture
def web(webs: MakeWeb) -> Web:
    admin = Caller(name="ann", role="admin", token_sha256=sha256("key"))
    client = Caller(name="eye", role="client", certificate="eye")
    # Few are chosen, because a disk is no part of this; few are remembered, so that the memory is soon full.
    made = webs(audit=1e-9, access=Access([admin, client]), load=lambda _: None, max_body=50_000)
    made.bench.gateway._once = Once(200)
    give_back_large_blocks()  # as a node does
    made.serve(SERVICE, Steady(), made.bench.config, "1")
    serve_eye(made.bench)
    return made


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def check(asked: Asked, response: Response | None) -> None:
    """Raise AssertionError unless the answer is one that the protocol has."""
    if response is None:
        assert not asked.whole, "only who hangs up gets no answer"
        return
    assert response.status in DECLARED, response.body
    if response.status >= 400 and response.headers[b"content-type"] == b"application/json":
        said = response.json()
        if asked.path not in ("/readyz", "/v2/health/ready") and not asked.path.endswith("/ready"):
            assert response.error and len(response.error) <= 600
        assert isinstance(said, dict)
    elif b"inference-header-content-length" in response.headers:
        front = int(response.headers[b"inference-header-content-length"])
        sizes = [
            o["parameters"]["binary_data_size"] for o in json.loads(response.body[:front])["outputs"] if "data" not in o
        ]
        assert front + sum(sizes) == len(response.body)
    elif asked.path != "/metrics":
        response.json()


@pytest.mark.alone
@pytest.mark.parametrize("seed", [20261])
def test_nothing_that_is_sent_does_harm(web: Web, seed: int, caplog: pytest.LogCaptureFixture) -> None:
    hostile, seen = Hostile(seed), Counter[int]()
    caplog.set_level(logging.ERROR)

    async def ask(number: int) -> None:
        asked = hostile.next()
        peer = None if number % 3 else "eye"
        work = call(web.app, asked.method, asked.path, asked.headers, asked.messages(), peer)
        try:
            response = await asyncio.wait_for(work, 20)
            check(asked, response)
        except Exception as error:
            raise AssertionError(f"input {number} of seed {seed} did harm: {asked}") from error
        seen[response.status if response else 0] += 1

    async def many(count: int) -> None:
        for number in range(count):
            await ask(number)

    web.run(many(INPUTS // 4))
    before = resident()
    web.run(many(INPUTS - INPUTS // 4))
    grown = resident() - before

    assert not caplog.records
    assert {0, *DECLARED} - {202, 503} <= set(seen), seen
    assert web.site.work.in_work == 0 and web.site.work._held == 0
    decoded = web.bench.stats.services[EYE].outcomes
    assert set(decoded) == {"ok", "bad_input"} and min(decoded.values()) > INPUTS // 50, decoded
    assert web.answer(INFER, tensor("FP32", [1, 2], [0.5, 1]), bearer("key"))["outputs"]
    assert grown < MOST_GROWTH, f"{grown} bytes more are resident after {INPUTS} inputs of seed {seed}"


def test_what_is_bent_was_good_before(web: Web) -> None:
    async def all_of_it() -> list[int]:
        answers = [await call(web.app, a.method, a.path, a.headers, a.messages()) for a in good()]
        return [answer.status for answer in answers if answer]

    statuses = Counter(web.run(all_of_it()))
    assert statuses == {200: len(good()) - 2, 403: 1, 404: 1}  # nothing to unload with; a sample that nobody has


def test_the_same_seed_sends_the_same() -> None:
    one, two, other = Hostile(7), Hostile(7), Hostile(8)
    sent = [one.next() for _ in range(200)]
    assert sent == [two.next() for _ in range(200)] != [other.next() for _ in range(200)]
