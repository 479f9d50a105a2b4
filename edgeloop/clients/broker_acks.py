"""What is on its way between a client and its broker: messages to acknowledge, and packets to be acknowledged.

A message that comes again after a reconnect is the same message, whether its first delivery is still in work or its
acknowledgement was lost with the connection: it is not handed out twice, and the acknowledgement of the first delivery
counts for it. Otherwise a device without a capture time would get two answers and its input would become two samples.
The number alone does not tell: the broker may have got the acknowledgement and used the number for another message.
Only if that other one is the same in every byte, and was cut off on its way, is it taken for the first.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future

from edgeloop.clients.broker_types import Done

#: Acknowledged deliveries that are remembered: more than a client lets the broker send without an acknowledgement.
_REMEMBERED = 1024


class Delivery:
    """One message that was handed out; calling it acknowledges."""

    __slots__ = ("_order", "done", "fingerprint", "mid", "send")

    def __init__(self, order: AckOrder, mid: int, fingerprint: int) -> None:
        self._order = order
        self.mid = mid
        self.fingerprint = fingerprint
        self.done = False
        self.send = True

    def __call__(self) -> None:
        self._order.finish(self)

    def forget(self) -> None:
        """Never acknowledge: the broker sends it again with the next connection, and then it is handed out again."""
        self.send = False
        self._order.finish(self)


class AckOrder:
    """Acknowledgements leave in the order in which the messages came, as the standard wants."""

    def __init__(self, send: Callable[[int], object]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._waiting: deque[Delivery] = deque()
        self._before: dict[int, Delivery] = {}
        self._acked: OrderedDict[int, Delivery] = OrderedDict()

    def arrived(self, mid: int, fingerprint: int, again: bool) -> Delivery | None:
        """What to hand out with a message of this connection; None when it was handed out before.

        ``again`` is the packet's DUP flag: only what the broker marks so can have been here before. ``fingerprint``
        tells messages apart that had the same number one after the other.
        """
        with self._lock:
            before = self._before.pop(mid, None) or self._acked.pop(mid, None)
            if before is not None and again and before.fingerprint == fingerprint:
                self._waiting.append(before)
                self._flush()
                return None
            delivery = Delivery(self, mid, fingerprint)
            self._waiting.append(delivery)
            return delivery

    def finish(self, delivery: Delivery) -> None:
        """Mark ``delivery`` done, and send what has become due; later calls do nothing."""
        with self._lock:
            delivery.done = True
            self._flush()

    def _flush(self) -> None:
        while self._waiting and self._waiting[0].done:
            delivery = self._waiting.popleft()
            if delivery.send:
                self._acked[delivery.mid] = delivery
                self._send(delivery.mid)
        while len(self._acked) > _REMEMBERED:
            self._acked.popitem(last=False)

    def lost(self) -> None:
        """The connection is gone: the ids mean nothing until the same session goes on."""
        with self._lock:
            self._before |= {d.mid: d for d in self._waiting if d.send}
            self._waiting = deque()

    def stands(self, *, same_session: bool) -> None:
        """A new connection; in another session the broker has forgotten what was not acknowledged."""
        if not same_session:
            with self._lock:
                self._before = {}
                self._acked.clear()


class Receipts:
    """What to call when a packet is acknowledged; the answer may be here before the question."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[int, Done] = {}
        self._early: dict[int, Exception | None] = {}

    def expect(self, mid: int, done: Done) -> None:
        """Call ``done`` when packet ``mid`` is answered."""
        with self._lock:
            if mid not in self._early:
                self._waiting[mid] = done
                return
            error = self._early.pop(mid)
        done(error)

    def came(self, mid: int, error: Exception | None) -> None:
        """Packet ``mid`` is answered."""
        with self._lock:
            done = self._waiting.pop(mid, None)
            if done is None:
                self._early[mid] = error
        if done is not None:
            done(error)

    def fail_all(self, error: Exception) -> None:
        """Nothing will be answered any more."""
        with self._lock:
            waiting, self._waiting = list(self._waiting.values()), {}
        for done in waiting:
            done(error)


def settled(future: Future[None]) -> Done:
    """What settles ``future``."""

    def done(error: Exception | None) -> None:
        if future.set_running_or_notify_cancel():
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

    return done


def no_ack() -> None:
    """The acknowledgement of a message that needs none."""
