"""Reads what a broker keeps to its end, and knows whether something is missing.

A broker drops what does not fit into a client's queue, and says nothing (mosquitto: ``max_queued_messages``). So a read
does not end when it is quiet for a while. It ends with a mark, a message that the reader sends to itself:

- Right behind the subscription, while no message is acknowledged yet and so nothing leaves the queue, a first mark is
  put in line behind all that is retained. If it comes, the queue had room to the end, and nothing was dropped.
- If a later mark comes without the first, the read is over, and is a part only.

A :class:`Gathering` stays subscribed: the next read takes what came since, and is over with one mark. More messages
between two reads than the broker may have on the way unacknowledged can have met a full queue: then all is read anew.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from uuid import uuid4

from edgeloop.clients.broker_types import Ack, Broker, BrokerRefused, BrokerUnavailable, Gathered, Message

_log = logging.getLogger(__name__)
#: Seconds without the first mark after which another is sent.
_AGAIN = 0.25
_NO_MARK = -1


class Mailbox:
    """The newest message of each topic, and the marks; its ``__call__`` is a handler."""

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._came = threading.Condition()
        self._messages: dict[str, Message] = {}
        self._count = 0
        self._marks: list[int] = []
        self._held: list[Ack] | None = None

    def __call__(self, message: Message, ack: Ack) -> None:
        with self._came:
            if message.topic == self._mark:
                if message.payload.isdigit():  # anybody may write there, and this is the network's thread
                    self._marks.append(int(message.payload[:18]))
                    self._came.notify_all()
            else:
                self._messages[message.topic] = message
                self._count += 1
            if self._held is not None:
                self._held.append(ack)
                return
        ack()

    def hold(self) -> None:
        """Acknowledge nothing until :meth:`release`."""
        with self._came:
            self._held = []

    def release(self) -> None:
        """Acknowledge what came, and from now on at once."""
        with self._came:
            held, self._held = self._held or [], None
        for ack in held:
            ack()

    def wait(self, first: int, seconds: float) -> int:
        """The smallest mark from ``first`` on that has come, after at most so many seconds; -1 when none has."""
        with self._came:
            self._came.wait_for(lambda: any(m >= first for m in self._marks), seconds)
            return min((m for m in self._marks if m >= first), default=_NO_MARK)

    def settle(self, end: float) -> None:
        """Wait until nothing has come for a while, or until ``end``."""
        count = -1
        while count != self._count and time.monotonic() < end:
            count = self._count
            time.sleep(_AGAIN)

    def take(self) -> tuple[list[Message], int]:
        """All there is, and how many messages that were; the box is empty then."""
        with self._came:
            found, count = list(self._messages.values()), self._count
            self._messages, self._count, self._marks = {}, 0, []
            return found, count


@dataclass(frozen=True)
class Limits:
    """What a connection says of its broker."""

    window: int | None = None
    """Messages that may be on the way unacknowledged; None where the broker drops none."""
    holds: bool = True
    """Whether acknowledgements may be held back for a moment; not where a broker takes nothing in meanwhile."""


class Gathering:
    """Everything under one filter, read now and again; for one thread at a time."""

    def __init__(self, broker: Broker, topic_filter: str, mark: str, limits: Limits) -> None:
        self._broker = broker
        self._filter = topic_filter
        self._mark = f"{mark}/{uuid4().hex[:12]}"
        self._limits = limits
        self._box: Mailbox | None = None
        self._next = 0
        self._reading = threading.Lock()
        self._is_sure = False

    def renewed(self) -> None:
        """The connection was lost, or what was read: the next read is of everything."""
        self._is_sure = False

    def read(self, timeout: float) -> Gathered:
        """What came since the last read; all that is retained with the first, and when something may be missing.

        Raises:
            BrokerUnavailable: there is no connection, or not one message to the end of the read.
        """
        with self._reading:
            self._broker.check()
            if self._box is not None and self._is_sure:
                found = self._read_on(self._box, timeout)
                if self._is_sure:
                    return found
            return self._read_all(timeout)

    def _read_on(self, box: Mailbox, timeout: float) -> Gathered:
        complete, why = self._to_the_end(box, self._send(), timeout)
        messages, count = box.take()
        self._is_sure = self._is_sure and complete and (self._limits.window is None or count <= self._limits.window)
        return Gathered(messages, complete, why=why, again=self.renewed)

    def _read_all(self, timeout: float) -> Gathered:
        self.stop()
        box = self._box = Mailbox(self._mark)
        self._is_sure = True  # unless the connection breaks meanwhile
        if self._limits.holds:
            box.hold()
        try:
            self._broker.subscribe(self._filter, box)
            sent = self._send()
        finally:
            box.release()
        complete, why = self._to_the_end(box, sent, timeout)
        self._is_sure = self._is_sure and complete
        if not self._is_sure and complete:
            complete, why = False, "the connection was lost on the way"
        return Gathered(box.take()[0], complete, whole=True, why=why, again=self.renewed)

    def _send(self) -> tuple[int, str]:
        """Send a mark and wait until the broker has put it in line; its number, and why it did not."""
        self._next += 1
        try:
            future: Future[None] = self._broker.publish_nowait(self._mark, b"%d" % self._next)
            future.result(10)
        except (BrokerRefused, BrokerUnavailable, TimeoutError) as error:
            return self._next, str(error) or "the broker did not answer in 10 s"
        return self._next, ""

    def _to_the_end(self, box: Mailbox, sent: tuple[int, str], timeout: float) -> tuple[bool, str]:
        first, why = sent
        end = time.monotonic() + timeout
        if why:  # no mark comes: at least what does is waited for
            box.settle(end)
        while not why and (left := end - time.monotonic()) > 0:
            came = box.wait(first, min(_AGAIN, left))
            if came == first:
                return True, ""
            if came > first:
                return False, "the broker dropped a part: its queue is too short (mosquitto: max_queued_messages 0)"
            _, why = self._send()
        return False, why or f"it did not come to an end in {timeout:g} s"

    def stop(self) -> None:
        """Forget the subscription."""
        if self._box is not None:
            self._broker.unsubscribe(self._filter, self._box)
            self._box, self._is_sure = None, False


class Gatherings:
    """The gatherings of one connection, by filter."""

    def __init__(self, broker: Broker, limits: Limits) -> None:
        self._broker = broker
        self._limits = limits
        self._found: dict[str, Gathering] = {}

    def read(self, topic_filter: str, mark: str, timeout: float) -> Gathered:
        """See :meth:`Broker.gather`."""
        if topic_filter not in self._found:
            self._found[topic_filter] = Gathering(self._broker, topic_filter, mark, self._limits)
        return self._found[topic_filter].read(timeout)

    def once(self, topic_filter: str, mark: str, timeout: float) -> list[Message]:
        """All that is retained, without staying subscribed; what is missing is logged."""
        gathering = Gathering(self._broker, topic_filter, mark, self._limits)
        try:
            found = gathering.read(timeout)
        finally:
            gathering.stop()
        if not found.complete:
            _log.warning("not all that the broker keeps was read: %s", found.why)
        return [message for message in found.messages if message.payload]

    def renewed(self) -> None:
        """The connection was lost."""
        for gathering in list(self._found.values()):
            gathering.renewed()
