"""The webhook receiver: MLflow says that an alias moved, and the reconciler is asked to look now.

It decides nothing. What it is told only makes the next look earlier, and a delivery that is lost costs thirty seconds.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from edgeloop.errors import EdgeloopError
from edgeloop.promotion.signature import (
    BadSignature,
    MalformedEvent,
    ReplayedDelivery,
    StaleDelivery,
    Verifier,
)

_log = logging.getLogger(__name__)
PATH = "/mlflow"
MAX_BODY = 64 * 1024
#: What is not here by then does not come from MLflow, which sends some hundred bytes.
BODY_SECONDS = 10.0
_SAY_EVERY = 60.0
_REFUSALS: dict[type[EdgeloopError], int] = {
    BadSignature: 401,
    StaleDelivery: 401,
    ReplayedDelivery: 409,
    MalformedEvent: 400,
}
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class TooLarge(EdgeloopError):
    """A body over :data:`MAX_BODY`."""


class TooSlow(EdgeloopError):
    """A body that took more than :data:`BODY_SECONDS`."""


class Hook:
    """The ASGI application: ``POST /mlflow`` for MLflow, ``GET /healthz`` for whoever started it.

    Args:
        nudge: asks for a look at one service; called in a thread, its errors are logged.
        knows: whether there is a service of this name; only those are nudged.
        wait: seconds in which further deliveries about a service ask for no look of their own. While a look is asked
            for, all that come ask for one more together.
    """

    def __init__(
        self,
        secret: str,
        nudge: Callable[[str], object],
        knows: Callable[[str], bool],
        wait: float = 1.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._verifier = Verifier(secret)
        self._nudge = nudge
        self._knows = knows
        self._wait = wait
        self._clock = clock
        self._due: dict[str, asyncio.Task[None]] = {}
        self._told: set[str] = set()
        self._said_at = 0.0
        self.counts: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        status, body = await self._answer(scope, receive)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        if status in (408, 413):  # the rest of the body is not read
            headers.append((b"connection", b"close"))
        if status == 405:
            headers.append((b"allow", b"POST" if scope["path"] == PATH else b"GET"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[int, bytes]:
        if scope["path"] == "/healthz":
            return (200, json.dumps(self.counts).encode()) if scope["method"] == "GET" else (405, b"")
        if scope["path"] != PATH:
            return 404, b""
        return (await self._deliver(scope, receive), b"") if scope["method"] == "POST" else (405, b"")

    async def _deliver(self, scope: Scope, receive: Receive) -> int:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            body = await _read(headers, receive)
            event = self._verifier.verify(headers, body, self._clock())
        except TooLarge:
            return self._refuse("TooLarge", 413)
        except TooSlow:
            return self._refuse("TooSlow", 408)
        except tuple(_REFUSALS) as error:
            return self._refuse(type(error).__name__, _REFUSALS[type(error)])
        self.counts["accepted"] += 1
        if event.moves and self._knows(event.moves):
            self._ask(event.moves)
        return 204

    def _refuse(self, why: str, status: int) -> int:
        """Count it, and say so once a minute: whoever knocks must not fill the log."""
        self.counts[why] += 1
        if self._clock() - self._said_at >= _SAY_EVERY:
            self._said_at = self._clock()
            _log.warning("refused deliveries so far: %s", dict(self.counts))
        return status

    def _ask(self, service: str) -> None:
        self._told.add(service)
        if service not in self._due:
            self._due[service] = asyncio.get_running_loop().create_task(self._looks(service))

    async def _looks(self, service: str) -> None:
        try:
            while service in self._told:
                await asyncio.sleep(self._wait)
                # Forgotten first: what is told from here on may come too late for this look.
                self._told.discard(service)
                await self._look(service)
        finally:
            del self._due[service]

    async def _look(self, service: str) -> None:
        try:
            await asyncio.to_thread(self._nudge, service)
        except EdgeloopError as error:
            self.counts["lost"] += 1
            _log.warning("%s is looked at with the next poll: %s", service, error)
        else:
            self.counts["nudged"] += 1


async def _read(headers: dict[str, str], receive: Receive) -> bytes:
    """The body; raises TooLarge before more than :data:`MAX_BODY` bytes are kept, and TooSlow."""
    length = headers.get("content-length", "0")
    if not length.isdigit() or len(length) > 9 or int(length) > MAX_BODY:
        raise TooLarge(length)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _received(receive)
    except TimeoutError:
        raise TooSlow(f"{BODY_SECONDS} s") from None


async def _received(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            raise TooLarge(str(len(body)))
        if message["type"] != "http.request" or not message.get("more_body"):
            return bytes(body)
