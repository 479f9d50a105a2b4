"""The receiver answers in one word, asks for one look however often it is told, and takes nothing else."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import MutableMapping
from typing import Any, cast

import pytest

from edgeloop.clients.orchestrator import Orchestrator, RunState, RunUnfinished
from edgeloop.clients.registry import RegistryUnavailable
from edgeloop.promotion.hook import MAX_BODY, Hook
from edgeloop.promotion.nudging import nudge
from edgeloop.promotion.serving import keep_registered
from tests.unit.promotion.test_signature import BODY, NOW, SAID, SECRET, headers


class Told:
    """What a hook asked for."""

    def __init__(self, wait: float = 0.0) -> None:
        self.asked: list[str] = []
        self.fails = False
        self.hook = Hook(SECRET, self.nudge, lambda name: name == "rater", wait, clock=lambda: NOW)

    def nudge(self, service: str) -> None:
        if self.fails:
            raise RegistryUnavailable("nobody is there")
        self.asked.append(service)


async def request(
    hook: Hook,
    given: dict[str, str],
    *parts: bytes,
    method: str = "POST",
    path: str = "/mlflow",
) -> tuple[int, bytes]:
    """One request, its body in parts."""
    left = [{"type": "http.request", "body": p, "more_body": n + 1 < len(parts)} for n, p in enumerate(parts)]
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return left.pop(0) if left else {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    raw = [(k.title().encode(), v.encode("latin-1")) for k, v in given.items()]
    await hook({"type": "http", "method": method, "path": path, "headers": raw}, receive, send)
    return int(sent[0]["status"]), bytes(sent[1]["body"])


def status(told: Told, given: dict[str, str], *parts: bytes, **how: str) -> int:
    async def ask() -> int:
        code, _ = await request(told.hook, given, *parts, **how)
        await asyncio.gather(*told.hook._due.values())
        return code

    return asyncio.run(ask())


def test_a_delivery_asks_for_a_look() -> None:
    told = Told()
    assert status(told, headers(), BODY) == 204
    assert told.asked == ["rater"]
    assert dict(told.hook.counts) == {"accepted": 1, "nudged": 1}


def test_a_body_may_come_in_parts() -> None:
    told = Told()
    assert status(told, headers(), BODY[:20], BODY[20:]) == 204
    assert told.asked == ["rater"]


def test_many_deliveries_ask_for_one_look() -> None:
    told = Told(wait=0.05)

    async def storm() -> None:
        for number in range(20):
            code, _ = await request(told.hook, headers(delivery=f"d-{number}"), BODY)
            assert code == 204
        await asyncio.gather(*told.hook._due.values())

    asyncio.run(storm())
    assert told.asked == ["rater"]
    assert told.hook.counts["accepted"] == 20


def test_other_models_and_events_ask_for_nothing() -> None:
    told = Told()
    others: list[dict[str, object]] = [{"data": {"name": "other", "alias": "champion"}}, {"entity": "prompt_alias"}]
    for number, changed in enumerate(others):
        body = json.dumps({**SAID, **changed}).encode()
        assert status(told, headers(body, delivery=f"d-{number}"), body) == 204
    assert told.asked == []


@pytest.mark.parametrize(
    ("given", "body", "code"),
    [
        ({}, BODY, 401),
        (headers(secret="wrong"), BODY, 401),
        (headers(at=NOW - 3600), BODY, 401),
        (headers(), BODY + b" ", 401),
        (headers(b"{}"), b"{}", 400),
        (headers() | {"content-length": str(MAX_BODY + 1)}, BODY, 413),
        (headers() | {"content-length": "much"}, BODY, 413),
        (headers(b"x" * (MAX_BODY + 1)), b"x" * (MAX_BODY + 1), 413),
    ],
    ids=["unsigned", "wrong-secret", "stale", "other-body", "says-nothing", "announced", "no-number", "too-large"],
)
def test_what_is_not_believed_asks_for_nothing(given: dict[str, str], body: bytes, code: int) -> None:
    told = Told()
    assert status(told, given, body) == code
    assert told.asked == []
    assert told.hook.counts["accepted"] == 0


def test_a_large_body_is_not_kept() -> None:
    told = Told()
    taken = 0

    async def endless() -> MutableMapping[str, Any]:
        nonlocal taken
        taken += 1
        return {"type": "http.request", "body": b"x" * 4096, "more_body": True}

    async def ask() -> None:
        async def send(message: MutableMapping[str, Any]) -> None:
            assert message.get("status", 413) == 413

        await told.hook({"type": "http", "method": "POST", "path": "/mlflow", "headers": []}, endless, send)

    asyncio.run(ask())
    assert taken == MAX_BODY // 4096 + 1


def test_a_replay_is_refused() -> None:
    told = Told()
    assert [status(told, headers(), BODY) for _ in range(2)] == [204, 409]
    assert told.asked == ["rater"]


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/mlflow", 405),
        ("PUT", "/mlflow", 405),
        ("POST", "/", 404),
        ("POST", "/healthz", 405),
        ("GET", "/", 404),
    ],
)
def test_nothing_else_is_offered(method: str, path: str, code: int) -> None:
    told = Told()
    assert status(told, headers(), BODY, method=method, path=path) == code
    assert told.asked == []


def test_its_counts_can_be_read() -> None:
    told = Told()
    status(told, {}, BODY)
    code, body = asyncio.run(request(told.hook, {}, method="GET", path="/healthz"))
    assert (code, json.loads(body)) == (200, {"BadSignature": 1})


def test_who_knocks_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    told = Told()
    with caplog.at_level(logging.WARNING):
        for _ in range(50):
            status(told, {}, BODY)
    assert len(caplog.records) == 1
    assert SECRET not in caplog.text


def test_a_look_that_cannot_be_asked_for_is_said(caplog: pytest.LogCaptureFixture) -> None:
    told = Told()
    told.fails = True
    with caplog.at_level(logging.WARNING):
        assert status(told, headers(), BODY) == 204
    assert "rater is looked at with the next poll: nobody is there" in caplog.text


class Runs:
    """An orchestrator whose first ``dropped`` runs find another one under way."""

    def __init__(self, dropped: int, unfinished: bool = False) -> None:
        self.asked: list[Any] = []
        self.dropped, self.unfinished = dropped, unfinished

    def run(self, deployment: str, parameters: dict[str, Any]) -> str:
        self.asked.append((deployment, parameters))
        return str(len(self.asked))

    def wait(self, run: str, timeout: float) -> RunState:
        if self.unfinished:
            raise RunUnfinished("it takes its time")
        state = "Cancelled" if int(run) <= self.dropped else "Completed"
        return RunState(run, state, "", "", final=True, succeeded=state == "Completed")


def test_a_run_that_is_dropped_is_asked_for_again() -> None:
    runs, paused = Runs(dropped=2), list[float]()
    assert nudge(cast("Orchestrator", runs), "rater", pause=paused.append)
    assert runs.asked == [("release/release", {"service": "rater"})] * 3
    assert paused == [2.0, 3.0]


def test_a_run_that_takes_its_time_is_not_asked_for_again() -> None:
    runs = Runs(dropped=0, unfinished=True)
    assert nudge(cast("Orchestrator", runs), "rater")
    assert len(runs.asked) == 1


def test_asking_ends() -> None:
    runs = Runs(dropped=99)
    assert not nudge(cast("Orchestrator", runs), "rater", tries=3, pause=lambda _: None)
    assert len(runs.asked) == 3


class Bell:
    """An event that rings after so many waits, and remembers how long each would have been."""

    def __init__(self, waits: int) -> None:
        self.left = waits
        self.waited: list[float] = []

    def wait(self, seconds: float) -> bool:
        self.waited.append(seconds)
        self.left -= 1
        return self.left == 0


def test_registering_is_tried_until_it_works_and_then_again(caplog: pytest.LogCaptureFixture) -> None:
    told, tries, bell = Told(), [], Bell(5)

    def ensure() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise RegistryUnavailable("not yet")

    with caplog.at_level(logging.WARNING):
        keep_registered(ensure, bell, told.hook)  # type: ignore[arg-type]
    assert bell.waited[0] < bell.waited[1] < bell.waited[2] == bell.waited[3] == 300.0
    assert told.hook.counts["registered"] == 1
    assert len(caplog.records) == 1, "said once"


def test_whoever_sends_nothing_more_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeloop.promotion.hook.BODY_SECONDS", 0.01)
    told = Told()

    async def ask() -> int:
        sent: list[MutableMapping[str, Any]] = []

        async def receive() -> MutableMapping[str, Any]:
            await asyncio.sleep(30)
            return {"type": "http.disconnect"}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        raw = [(k.encode(), v.encode()) for k, v in headers().items()]
        await told.hook({"type": "http", "method": "POST", "path": "/mlflow", "headers": raw}, receive, send)
        return int(sent[0]["status"])

    assert asyncio.run(ask()) == 408
    assert told.hook.counts == {"TooSlow": 1}


def test_while_a_look_is_asked_for_others_are_one_more() -> None:
    """An alias that flaps must not pile up runs of the flow."""
    told = Told()
    began, go_on = threading.Event(), threading.Event()

    def slow(service: str) -> None:
        told.asked.append(service)
        began.set()
        assert go_on.wait(60)

    told.hook = Hook(SECRET, slow, lambda name: name == "rater", 0.0, clock=lambda: NOW)

    async def ask() -> None:
        await request(told.hook, headers(), BODY)
        await asyncio.to_thread(began.wait, 60)
        for number in range(5):
            await request(told.hook, headers(delivery=f"again-{number}"), BODY)
            await asyncio.sleep(0.01)
        go_on.set()
        while told.hook._due:
            await asyncio.gather(*told.hook._due.values())

    asyncio.run(ask())
    assert told.asked == ["rater", "rater"]
