"""Links that fail on demand: proxies before the broker and the store, each connection in one event loop of its own.

The store's proxy understands as much HTTP as it needs to end a request at its worst moment, and buffers whole
bodies: what passes through it in tests is small.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Literal, TypeVar

T = TypeVar("T")
Damage = Callable[[str, bytes], bytes]
Cut = Literal["request", "answer", "before-answer"]
_Streams = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


class ProxyLoop:
    """The event loop in which proxies live, in a thread that ends with :meth:`close`."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Future[None]] = set()
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do ``work`` in the loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def listen(self, serve: _Streams) -> int:
        """Accept connections on a free port of 127.0.0.1, which is returned."""

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(serve(reader, writer))
            self._tasks.add(task)  # the loop itself would forget it while it waits
            task.add_done_callback(self._tasks.discard)

        server = self.run(asyncio.start_server(accept, "127.0.0.1", 0))
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Drop every connection and end the thread."""
        self.run(self._cancel())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _cancel(self) -> None:
        for server in self._servers:
            server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class LinkProxy:
    """Passes bytes to a port and back; can be slow, and can cut everything that is connected."""

    def __init__(self, loop: ProxyLoop, target: int) -> None:
        self.delay = 0.0
        """Seconds that each piece waits,"""
        self.rate: float | None = None
        """and bytes per second in each direction; None for no limit."""
        self._loop = loop
        self._target = target
        self._open: set[asyncio.StreamWriter] = set()
        self.port = loop.listen(self._serve)

    def cut(self) -> int:
        """Reset all connections; returns how many ends there were."""
        return self._loop.run(self._abort())

    async def _abort(self) -> int:
        ends = list(self._open)
        for end in ends:
            end.transport.abort()
        return len(ends)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        with suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
            self._open.add(far_writer)
            try:
                pipes = (self._pipe(reader, far_writer), self._pipe(far_reader, writer))
                tasks = [asyncio.ensure_future(pipe) for pipe in pipes]
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            finally:
                self._drop(far_writer)
        self._drop(writer)

    def _drop(self, writer: asyncio.StreamWriter) -> None:
        self._open.discard(writer)
        writer.transport.abort()

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(4096):
                await asyncio.sleep(self.delay + (len(data) / self.rate if self.rate else 0.0))
                writer.write(data)
                await writer.drain()


class StoreProxy:
    """An S3 server's front that refuses, cuts, delays and damages. Signatures hold: the Host header passes as it is."""

    def __init__(self, loop: ProxyLoop, target: int) -> None:
        self.down = False
        """Connections are closed at once."""
        self.refuse: int | None = None
        """HTTP status that answers every request."""
        self.cut: Cut | None = None
        """Where every request ends: in its own body, in the answer's, or between the two."""
        self.delay = 0.0
        self.rate: float | None = None
        """Bytes per second of answers."""
        self.damage: Damage | None = None
        """Given the path and the body of a good GET answer, returns the body to send instead."""
        self.hits: Counter[str] = Counter()
        """How often each fault met a request."""
        self._target = target
        self.port = loop.listen(self._serve)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self.down:
                self.hits["down"] += 1
                return
            with suppress(OSError, asyncio.IncompleteReadError):
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(_length(head))
                await self._answer(head, body, writer)
        finally:
            writer.close()

    async def _answer(self, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(self.delay)
        if self.refuse is not None:
            self.hits["refuse"] += 1
            writer.write(_refusal(self.refuse))
            await writer.drain()
            return
        answer = await self._pass_on(head, body)
        if answer is not None:
            await self._send(self._damaged(head, answer), writer)

    async def _pass_on(self, head: bytes, body: bytes) -> bytes | None:
        """The server's whole answer; None when the request or the answer is cut off."""
        cut = self.cut
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            sent = _closing(head) + (body[: len(body) // 2] if cut == "request" else body)
            far_writer.write(sent)
            await far_writer.drain()
            if cut == "request":
                self.hits["cut-request"] += 1
                return None
            answer = await far_reader.read(-1)
        finally:
            far_writer.transport.abort()
        if cut == "before-answer":
            self.hits["cut-before-answer"] += 1
            return None
        return answer

    def _damaged(self, head: bytes, answer: bytes) -> bytes:
        method, path = head.split(b" ", 2)[:2]
        top, _, body = answer.partition(b"\r\n\r\n")
        if self.damage is None or method != b"GET" or not re.match(rb"HTTP/1.1 20[06] ", top):
            return answer
        changed = self.damage(path.decode(), body)
        if changed != body:
            self.hits["damage"] += 1
        return re.sub(rb"(?i)(content-length: *)\d+", rb"\g<1>%d" % len(changed), top) + b"\r\n\r\n" + changed

    async def _send(self, answer: bytes, writer: asyncio.StreamWriter) -> None:
        if self.cut == "answer":
            self.hits["cut-answer"] += 1
            answer = answer[: len(answer) * 2 // 3]
        piece = max(1, int(self.rate * 0.05)) if self.rate else len(answer)
        for start in range(0, len(answer), max(1, piece)):
            writer.write(answer[start : start + piece])
            await writer.drain()
            if self.rate:
                await asyncio.sleep(0.05)


def _length(head: bytes) -> int:
    found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    return int(found[1]) if found else 0


def _closing(head: bytes) -> bytes:
    """The request's head, asking for the end of the connection after the answer."""
    head = re.sub(rb"(?i)\r\nconnection:[^\r]*", b"", head)
    return head[:-2] + b"Connection: close\r\n\r\n"


def _refusal(status: int) -> bytes:
    body = b"<Error><Code>SlowDown</Code></Error>"
    return b"HTTP/1.1 %d Refused\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (status, len(body), body)
