"""What a broker is to edgeloop: messages, handlers that acknowledge when their work is durable, and the errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import unquote, urlsplit

from edgeloop.errors import BadInput, EdgeloopError, Unavailable

#: A broker keeps the session of a client with ``clean=False`` this long, in seconds.
SESSION_SECONDS = 86_400


class BrokerUnavailable(Unavailable):
    """The broker does not answer, or the connection to it is lost."""


class BrokerRefused(EdgeloopError):
    """The broker answered, and refused a publish or a subscription."""


class MalformedBrokerUrl(BadInput):
    """Not ``mqtt://[user:password@]host:port``."""


@dataclass(frozen=True)
class Message:
    """One message; ``properties`` are MQTT 5 user properties and stay empty under 3.1.1."""

    topic: str
    payload: bytes
    properties: Mapping[str, str] = field(default_factory=dict)
    retain: bool = False
    correlation: bytes | None = None
    """MQTT 5 correlation data."""


Ack = Callable[[], None]
#: Called in the network thread: it must not block. It calls ``ack`` when the work is durable.
Handler = Callable[[Message, Ack], None]


class Broker(Protocol):
    """A connection that comes back by itself, with its subscriptions. For use from any thread."""

    @property
    def connected(self) -> bool:
        """Whether the connection stands now."""
        ...

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        properties: Mapping[str, str] | None = None,
        correlation: bytes | None = None,
        qos: int = 1,
        timeout: float = 10.0,
    ) -> None:
        """Publish and wait for the acknowledgement; never call it from a handler.

        Raises:
            BrokerUnavailable: no acknowledgement within ``timeout`` seconds (it may still go out later).
            BrokerRefused: the broker does not take it.
        """
        ...

    def publish_nowait(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        properties: Mapping[str, str] | None = None,
        correlation: bytes | None = None,
        qos: int = 1,
    ) -> Future[None]:
        """Publish; the future is done when the broker has acknowledged, if need be after a reconnect."""
        ...

    def subscribe(self, topic_filter: str, handler: Handler) -> None:
        """Subscribe with QoS 1, now and after every reconnect. Messages no handler matches are acknowledged.

        Raises:
            BrokerUnavailable: no answer within ten seconds; the subscription is made on reconnect.
            BrokerRefused: the broker forbids the filter.
        """
        ...

    def unsubscribe(self, topic_filter: str) -> None:
        """Forget the handlers of ``topic_filter``."""
        ...

    def collect_retained(self, topic_filter: str, *, quiet: float = 0.3, timeout: float = 5.0) -> list[Message]:
        """Retained messages under ``topic_filter``, collected until none came for ``quiet`` seconds.

        Raises:
            BrokerUnavailable: there is no connection.
        """
        ...

    def check(self) -> None:
        """Raise BrokerUnavailable unless the connection stands."""
        ...

    def close(self) -> None:
        """Say goodbye (no will is published) and stop; the session keeps what is unacknowledged."""
        ...


@dataclass(frozen=True)
class Address:
    """Where a broker listens."""

    host: str
    port: int
    user: str | None = None
    password: str | None = None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    def unavailable(self, why: str) -> BrokerUnavailable:
        """The error that names this broker and the next step."""
        return BrokerUnavailable(f"broker {self} does not answer ({why}): start it, or set EDGELOOP_BROKER")


def parse_url(url: str) -> Address:
    """Read ``mqtt://[user:password@]host:port``; the port defaults to 1883.

    Raises:
        MalformedBrokerUrl: anything else.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise MalformedBrokerUrl(f"broker URL {url!r}: {error}: write mqtt://[user:password@]host:port") from error
    if parts.scheme != "mqtt" or not parts.hostname or parts.path.strip("/") or parts.query:
        raise MalformedBrokerUrl(f"broker URL {url!r} is not one: write mqtt://[user:password@]host:port")
    user = unquote(parts.username) if parts.username else None
    return Address(parts.hostname, port or 1883, user, unquote(parts.password) if parts.password else None)
