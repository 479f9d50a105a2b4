"""Who gets a message, and when it is acknowledged; shared by the adapters."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

import paho.mqtt.client as mqtt

from edgeloop.clients.broker_types import Ack, Broker, Handler, Message

_log = logging.getLogger(__name__)
#: Topics whose handlers are remembered; anyone may invent topics, so there is a bound.
_KNOWN_TOPICS = 4096
#: A topic of more bytes is looked up each time: it may have 65,535, and so many would take all memory.
_LONGEST_KNOWN = 512


def bare_filter(topic_filter: str) -> str:
    """The filter without its ``$share/<group>/``."""
    return topic_filter.split("/", 2)[2] if topic_filter.startswith("$share/") else topic_filter


def _matches(topic_filter: str, topic: str) -> bool:
    """As paho, which takes as long for it as for the rest of a message: without ``+``, it is the beginning alone."""
    stem, slash, last = topic_filter.rpartition("/")
    if slash and last == "#" and "+" not in stem and "#" not in stem:
        return topic.startswith(stem) and topic[len(stem) : len(stem) + 1] in ("", "/")
    return bool(mqtt.topic_matches_sub(topic_filter, topic))


class Handlers:
    """Who gets a message. The handlers of a topic are looked up once, then known by the topic's name."""

    def __init__(self, first: Mapping[str, Handler]) -> None:
        self._lock = threading.Lock()
        self._items: list[tuple[str, Handler]] = list(first.items())
        self._by_topic: dict[str, list[Handler]] = {}

    def add(self, topic_filter: str, handler: Handler) -> None:
        with self._lock:
            self._items.append((topic_filter, handler))
            self._by_topic = {}

    def remove(self, topic_filter: str, handler: Handler | None = None) -> bool:
        """Forget; returns whether nobody else listens to this filter."""
        with self._lock:
            self._items = [i for i in self._items if i[0] != topic_filter or handler not in (None, i[1])]
            self._by_topic = {}
            return all(f != topic_filter for f, _ in self._items)

    def filters(self) -> list[str]:
        with self._lock:
            return list(dict.fromkeys(f for f, _ in self._items))

    def _find(self, topic: str) -> list[Handler]:
        with self._lock:
            found = [h for f, h in self._items if _matches(bare_filter(f), topic)]
            if len(topic.encode("utf-8", "replace")) > _LONGEST_KNOWN:
                return found
            if len(self._by_topic) >= _KNOWN_TOPICS:
                self._by_topic = {}
            self._by_topic[topic] = found
        return found

    def dispatch(self, message: Message, ack: Ack) -> bool:
        """Hand ``message`` to every match, acknowledge when all have; False when one failed."""
        found = self._by_topic.get(message.topic)
        if found is None:
            found = self._find(message.topic)
        if len(found) == 1:
            return _call(found[0], message, ack)
        if not found:
            _log.debug("no handler for a message", extra={"topic": message.topic})
            ack()
            return True
        done = _countdown(len(found), ack)
        handled = [_call(handler, message, done) for handler in found]
        return all(handled)


def _call(handler: Handler, message: Message, done: Ack) -> bool:
    try:
        handler(message, done)
    except Exception:
        _log.exception("a handler failed: its message stays unacknowledged", extra={"topic": message.topic})
        return False
    return True


def _countdown(count: int, ack: Ack) -> Ack:
    left = [None] * count

    def done() -> None:
        try:
            left.pop()
        except IndexError:  # acknowledged twice
            return
        if not left:
            ack()

    return done


def collect(broker: Broker, handlers: Handlers, topic_filter: str, quiet: float, timeout: float) -> list[Message]:
    from queue import Empty, SimpleQueue
    from time import monotonic

    arrived: SimpleQueue[Message] = SimpleQueue()

    def keep(message: Message, ack: Ack) -> None:
        if message.retain:
            arrived.put(message)
        ack()

    end, found = monotonic() + timeout, dict[str, Message]()
    try:
        broker.subscribe(topic_filter, keep)
        while (left := end - monotonic()) > 0:
            message = arrived.get(timeout=min(quiet, left))
            found[message.topic] = message
    except Empty:
        pass
    finally:
        if handlers.remove(topic_filter, keep):
            broker.unsubscribe(topic_filter)
    return list(found.values())
