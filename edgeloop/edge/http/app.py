"""The ASGI application of a node: finds the page, asks who is there, reads the body within bounds, answers.

Written to ASGI itself: between the socket and the model there is one hand-over to a thread, in which the request is
parsed, answered and encoded. The event loop only moves bytes, so a large body does not hold up the small ones.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from edgeloop.edge.http.access import ANYONE, Access, Caller
from edgeloop.edge.http.messages import (
    Failed,
    Forbidden,
    MalformedRequest,
    NotHere,
    Refused,
    Reply,
    Request,
    TooLarge,
    TooSlow,
    Unauthenticated,
    WrongMethod,
    as_error,
)
from edgeloop.edge.http.server import PEER
from edgeloop.edge.http.work import Held, Work

if TYPE_CHECKING:
    from edgeloop.edge.gateway import Gateway
    from edgeloop.edge.runtime import Runtime
    from edgeloop.edge.spool.captures import Captures
    from edgeloop.edge.stats import Stats

_log = logging.getLogger(__name__)
_MIB = 1024 * 1024
MAX_BODY = 64 * _MIB
BODY_SECONDS = 60.0
#: Longest time in which who asks waits for a node that starts.
BOOT_SECONDS = 30.0
#: Most bytes of requests held at once, in units of the largest request,
BODIES = 4
#: and at most this part of the memory that the node may have: models need the rest, and JSON is larger when parsed.
_PART = 4

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


@dataclass
class Site:
    """What the pages are made from; ``pool`` runs the gateway's blocking calls."""

    gateway: Gateway
    runtime: Runtime
    stats: Stats
    spool: Captures
    pool: Executor
    inflight: int = 64
    """Most inputs in work at once."""
    access: Access | None = None
    """Who may ask; None answers everybody, and lets nobody administrate."""
    load: Callable[[str], object] | None = None
    """Load a service's release; may raise an EdgeloopError."""
    unload: Callable[[str], object] | None = None
    max_body: int = MAX_BODY
    """Most bytes of a request."""
    body_seconds: float = BODY_SECONDS
    """Longest time in which a body must have come."""
    booted: asyncio.Event | None = None
    """Set when the models that were on the disk at the start are loaded; until then inputs wait for a while."""
    memory_mb: int | None = None
    """Most resident memory of the node in MiB; with little of it, ``max_body`` is lower: see :data:`BODIES`."""
    work: Work = field(init=False)

    def __post_init__(self) -> None:
        held = self.max_body * BODIES
        if self.memory_mb is not None:
            held = min(held, self.memory_mb * _MIB // _PART)
            self.max_body = min(self.max_body, held // 2)  # one body fits compressed and decompressed
        self.work = Work(self.pool, self.inflight, held)


Page = Callable[[Site, Request], Reply]
Who = Literal["open", "client", "admin"]


@dataclass(frozen=True)
class Route:
    """One page. Those that take a body or wait for a disk run in a thread, the others on the event loop."""

    methods: tuple[str, ...]
    path: str
    page: Page
    who: Who = "client"
    body: int = 0
    """Most bytes of the body; 0 reads none."""
    waits: bool = False
    """May wait for a disk although it takes no body."""
    infers: bool = False
    """Takes a place among the inputs in work."""

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """What its paths look like."""
        return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/:]+)", self.path))


class _Gone(Exception):
    """The caller hung up before the request was whole."""


class App:
    """The application; ``routes`` are tried in order."""

    def __init__(self, site: Site, routes: Iterable[Route]) -> None:
        self.site = site
        self.routes = list(routes)

    @property
    def knows_certificates(self) -> bool:
        """Whether a caller is known by a certificate."""
        return self.site.access is not None and self.site.access.needs_certificates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; nothing but the caller's hanging up ends without a reply."""
        if scope["type"] != "http":
            return
        headers = dict(scope["headers"])
        try:
            reply = await self._reply(scope, headers, receive)
        except _Gone:
            return
        except Refused as refused:
            reply = self._refusal(refused, headers)
        except Exception:
            _log.exception("a page failed", extra={"path": scope["path"][:200]})
            reply = self._refusal(Failed("the node failed on this request: see its log"), headers)
        await send({"type": "http.response.start", "status": reply.status, "headers": reply.head()})
        await send({"type": "http.response.body", "body": reply.body})

    def _refusal(self, refused: Refused, headers: dict[bytes, bytes]) -> Reply:
        self.site.work.refused[refused.reason] += 1
        reply = as_error(refused)
        if b"expect" not in headers:
            return reply
        # The caller may or may not send the body it asked about, so this connection cannot go on.
        return Reply(reply.body, reply.status, headers=(*reply.headers, (b"connection", b"close")))

    async def _reply(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive) -> Reply:
        route, found = self._find(scope["method"], scope["path"])
        caller = self._caller(scope, headers)
        if not isinstance(route, Route):
            if caller is None:
                raise _unauthenticated()
            raise route
        _check_role(route, caller, asked=self.site.access is not None)
        request = Request(found.get("service", ""), found.get("version"), headers)
        if not route.body:
            return await self._in_thread(route, request) if route.waits else route.page(self.site, request)
        if route.infers:
            self.site.work.check_free()
            await self._wait_for_boot()
        return await self._with_body(route, request, receive)

    async def _wait_for_boot(self) -> None:
        """Who asks while the node starts gets an answer when it has; where that takes long, a 503."""
        booted = self.site.booted
        if booted is not None and not booted.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(BOOT_SECONDS):
                    await booted.wait()

    def _find(self, method: str, path: str) -> tuple[Route | Refused, dict[str, str]]:
        """The page, or what is wrong with the path: that is not told to strangers."""
        allowed: set[str] = set()
        for route in self.routes:
            if match := route.pattern.fullmatch(path):
                if method in route.methods:
                    return route, match.groupdict()
                allowed.update(route.methods)
        if not allowed:
            return NotHere(f"there is no page {path[:200]!r}: see the node's HTTP reference"), {}
        return _wrong_method(method, path, allowed), {}

    def _caller(self, scope: Scope, headers: dict[bytes, bytes]) -> Caller | None:
        if self.site.access is None:
            return ANYONE
        return self.site.access.caller(headers.get(b"authorization"), scope.get("state", {}).get(PEER))

    async def _with_body(self, route: Route, request: Request, receive: Receive) -> Reply:
        limit = min(route.body, self.site.max_body)
        _check_declared(request.headers.get(b"content-length"), limit)
        held = Held(self.site.work)
        try:
            body = await self._read_in_time(receive, limit, held)
            return await self._in_thread(route, replace(request, body=body, hold=held.more))
        finally:
            held.release()

    async def _read_in_time(self, receive: Receive, limit: int, held: Held) -> bytes:
        seconds = self.site.body_seconds
        try:
            async with asyncio.timeout(seconds):
                return await _read(receive, limit, held)
        except TimeoutError as error:
            raise TooSlow(f"the body did not come within {seconds:g} s: send it again") from error

    async def _in_thread(self, route: Route, request: Request) -> Reply:
        work = self.site.work
        if route.infers and not work.take():
            raise work.busy()
        try:
            return await asyncio.get_running_loop().run_in_executor(self.site.pool, route.page, self.site, request)
        finally:
            if route.infers:
                work.give(1)


async def _read(receive: Receive, limit: int, held: Held) -> bytes:
    chunks, size, more = list[bytes](), 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise _Gone
        chunk, more = message.get("body", b""), message.get("more_body", False)
        size += len(chunk)
        if size > limit:
            raise _too_large(size, limit)
        if chunk:
            held.more(len(chunk))
            chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _check_role(route: Route, caller: Caller | None, asked: bool) -> None:
    if route.who == "open":
        return
    if caller is None:
        raise _unauthenticated()
    if route.who == "admin" and caller.role != "admin":
        if asked:
            raise Forbidden(f"{caller.name[:80]} is a client and this page is for administrators: ask one of them")
        raise Forbidden(
            "this page is for administrators and this node names none: list one in a file and set access: access.yaml"
        )


def _unauthenticated() -> Unauthenticated:
    return Unauthenticated(
        "this node does not know you: send a token (Authorization: Bearer …) or certificate that access.yaml lists"
    )


def _wrong_method(method: str, path: str, allowed: set[str]) -> WrongMethod:
    names = ", ".join(sorted(allowed))
    return WrongMethod(f"{path[:200]!r} does not take {method[:20]}: send {names}", names)


def _check_declared(length: bytes | None, limit: int) -> None:
    """Refuse by what the caller says the body will have, before a byte of it is read."""
    if length is None:
        return
    if not length.isdigit():
        raise MalformedRequest(f"Content-Length is {length[:40]!r}: send the number of bytes")
    if len(length) > 18 or int(length) > limit:
        raise _too_large(length[:40].decode(), limit)


def _too_large(size: int | str, limit: int) -> TooLarge:
    return TooLarge(f"the body has {size} bytes or more and may have {limit}: send fewer instances")
