"""The network thread of a paho client, because paho's own can neither pause reading nor spread reconnects.

A thread of ours turns paho's ``loop_read``, ``loop_write`` and ``loop_misc``, its interface for foreign loops:

- While the handlers are ``busy``, nothing is read: the kernel's buffers fill, and the broker keeps what it has. Pings
  still go out, so that the broker does not take a busy node for a dead one.
- After a lost connection the first wait is random up to :data:`FIRST_SECONDS`, then doubles, always with full
  jitter: ten thousand nodes whose broker restarts come back spread over seconds, not at once.
- A packet queued by another thread wakes the thread once, not once per packet.
"""

from __future__ import annotations

import logging
import random
import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from edgeloop.clients.broker_client import BufferedClient

_log = logging.getLogger(__name__)
#: The longest first wait before a reconnect, and the longest of all, in seconds.
FIRST_SECONDS = 3.0
LONGEST_SECONDS = 30.0
#: A connection that stood this long starts the waits anew.
_STEADY_SECONDS = 10.0
_PINGREQ = b"\xc0\x00"
#: How long a busy thread sleeps before it asks again; a result that leaves wakes it earlier.
_BUSY_SECONDS = 0.005
#: Messages that were read from the socket together and are handed out before the next look at it.
_AT_ONCE = 16


def reconnect_wait(failures: int) -> float:
    """Seconds to wait before the reconnect after ``failures`` failed ones: full jitter on a doubling bound."""
    bound = min(FIRST_SECONDS * 2.0 ** min(failures, 16), LONGEST_SECONDS)
    return random.uniform(0.05, bound)


def never() -> bool:
    """Handlers that are never busy."""
    return False


class NetworkLoop:
    """Turns ``client`` in a thread until :meth:`stop`."""

    def __init__(
        self,
        client: BufferedClient,
        name: str,
        *,
        keepalive: float,
        busy: Callable[[], bool],
    ) -> None:
        self._client = client
        self._keepalive = keepalive
        self._busy = busy
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._asleep = False
        self._stopping = threading.Event()
        self._deadline = float("inf")
        self._goodbye = False
        self._link: socket.socket | None = None
        self._poll = select.poll()
        self._since = self._last_misc = self._last_ping = time.monotonic()
        self._failures = 0
        self._drained = True
        self._thread = threading.Thread(target=self._run, name=f"mqtt-{name}", daemon=True)
        client.on_socket_register_write = lambda *_: self.wake()

    def start(self) -> None:
        """After the client's ``connect``."""
        self._thread.start()

    def wake(self) -> None:
        """There is something to send, or the handlers are not busy any more."""
        if self._asleep:
            with suppress(OSError):  # it is full, or closed: either way nobody sleeps
                self._writer.send(b"w")

    def give_up(self) -> None:
        """Connect no more: the thread ends with the connection that stands, or is being made now."""
        self._stopping.set()

    def stop(self, seconds: float = 5.0, *, goodbye: bool = False) -> None:
        """Send what is queued, a DISCONNECT last, for at most ``seconds``, and end the thread.

        Args:
            seconds: how long to try.
            goodbye: say the DISCONNECT here, on a connection that was being made when the client had none to say it on;
                without one the broker would publish the will.
        """
        self._goodbye = goodbye
        self._deadline = time.monotonic() + seconds
        self._stopping.set()
        self._asleep = True
        self.wake()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(seconds + 5)
        if not self._thread.is_alive():
            self._reader.close()
            self._writer.close()

    def _run(self) -> None:
        while not self._is_over():
            try:
                if self._client.socket() is None:
                    self._reconnect()
                else:
                    self._turn()
            except Exception:  # a bug must not leave a node without a broker
                _log.exception("the broker connection failed unexpectedly")
                self._drop()
        self._drop()

    def _is_over(self) -> bool:
        return self._stopping.is_set() and (self._client.socket() is None or time.monotonic() > self._deadline)

    def _drop(self) -> None:
        link: Any = self._client.socket()
        if link is not None:
            with suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
                self._client.loop_read()

    def _turn(self) -> None:
        """Write, wait, read."""
        client = self._client
        if self._goodbye:
            self._goodbye = False
            client.disconnect()
        if client.want_write():
            client.loop_write()
        link: Any = client.socket()
        if link is None:
            return
        if link is not self._link:
            self._adopt(link)
        is_busy = self._busy()
        buffered = client.buffered
        readable = self._wait(link, is_busy, buffered) or buffered
        if is_busy:
            self._drained = False
        elif readable:
            self._read()
        else:
            self._drained = True
        self._keep_alive()

    def _read(self) -> None:
        """What has come, and more of what lies in the buffer: to look at the socket takes as long as a message."""
        self._client.loop_read()
        for _ in range(_AT_ONCE - 1):
            if not self._client.buffered or self._busy():
                return
            self._client.loop_read()

    def _wait(self, link: Any, is_busy: bool, buffered: bool) -> bool:
        """Whether ``link`` can be read."""
        flags = (0 if is_busy else select.POLLIN) | (select.POLLOUT if self._client.want_write() else 0)
        self._poll.modify(link, flags)
        self._asleep = True
        if (buffered and not is_busy) or (self._client.want_write() and not flags & select.POLLOUT):
            seconds = 0.0
        else:
            seconds = _BUSY_SECONDS if is_busy else 1.0
        events = dict(self._poll.poll(seconds * 1000))
        self._asleep = False
        if self._reader.fileno() in events:
            self._clear()
        seen = events.get(link.fileno(), 0)
        if is_busy and seen & (select.POLLHUP | select.POLLERR):
            time.sleep(_BUSY_SECONDS)  # the broker hung up; what is in work goes on, and this must not spin
        return bool(seen & ~select.POLLOUT)

    def _clear(self) -> None:
        with suppress(BlockingIOError):
            self._reader.recv(4096)

    def _adopt(self, link: Any) -> None:
        self._link = link
        self._poll = select.poll()
        self._poll.register(link, 0)
        self._poll.register(self._reader, select.POLLIN)
        self._since = self._last_misc = self._last_ping = time.monotonic()
        self._drained = True

    def _keep_alive(self) -> None:
        """paho's own check, unless an answer to its ping may lie unread: then only say that we are alive."""
        now = time.monotonic()
        if self._drained:
            if now - self._last_misc >= 1.0:
                self._last_misc = now
                self._client.loop_misc()
        elif now - self._last_ping >= self._keepalive / 2 and not self._client.want_write():
            self._last_ping = now
            link: Any = self._client.socket()
            if link is not None:
                with suppress(OSError):  # a lost link is found by reading
                    link.send(_PINGREQ)  # between packets: this thread alone writes

    def _reconnect(self) -> None:
        self._failures = 0 if time.monotonic() - self._since > _STEADY_SECONDS and self._link else self._failures
        self._link = None
        if self._stopping.wait(reconnect_wait(self._failures)):
            return
        self._failures += 1
        try:
            self._client.empty_buffer()
            self._client.reconnect()
        except (OSError, ValueError) as error:
            _log.info("the broker does not answer yet", extra={"error": str(error)})
