"""What a broker is to edgeloop: messages, handlers that acknowledge when their work is durable, and the errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from edgeloop.errors import BadInput, EdgeloopError, Unavailable

#: A broker keeps the session of a client with ``clean=False`` this long, in seconds.
SESSION_SECONDS = 86_400


class BrokerUnavailable(Unavailable):
    """The broker does not answer, or the connection to it is lost."""


class UntrustedBroker(BrokerUnavailable):
    """TLS with the broker failed: one side does not believe the other's certificate."""


class BrokerRefused(EdgeloopError):
    """The broker answered, and refused a connection, a publish or a subscription."""


class MalformedBrokerUrl(BadInput):
    """Not ``mqtt://`` or ``mqtts://[user:password@]host:port``, or a file it names cannot be used."""


@dataclass(frozen=True)
class Message:
    """One message; ``properties`` are MQTT 5 user properties and stay empty under 3.1.1."""

    topic: str
    payload: bytes
    properties: Mapping[str, str] = field(default_factory=dict)
    retain: bool = False
    correlation: bytes | None = None
    """MQTT 5 correlation data."""
    response_topic: str | None = None
    """Where the sender wants its answer (MQTT 5); nothing has checked that it may ask for that."""


@dataclass(frozen=True)
class Gathered:
    """One read of what a broker keeps."""

    messages: Sequence[Message]
    """The newest of each topic."""
    complete: bool
    """False when something is missing."""
    whole: bool = False
    """Whether this is all that is retained; else it is what came since the read before."""
    why: str = ""
    """What is known of the part that is missing."""
    again: Callable[[], None] = field(default=lambda: None, compare=False)
    """Call it when the messages could not be used: the next read is of all that is retained."""


Ack = Callable[[], None]
#: Called in the network thread: it must not block. It calls ``ack`` when the work is durable, also if the connection
#: was lost and came back meanwhile: what it was given once is not given to it again while the process lives.
Handler = Callable[[Message, Ack], None]
#: Called once, in any thread, when the broker has acknowledged (None) or will not (the error). It must not block.
Done = Callable[[Exception | None], None]


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

    def publish_then(
        self,
        topic: str,
        payload: bytes,
        done: Done,
        *,
        retain: bool = False,
        properties: Mapping[str, str] | None = None,
        correlation: bytes | None = None,
        qos: int = 1,
    ) -> None:
        """Publish, and call ``done`` as :meth:`publish_nowait`'s future would be: for thousands a second."""
        ...

    def subscribe(self, topic_filter: str, handler: Handler) -> None:
        """Subscribe with QoS 1, now and after every reconnect. Messages no handler matches are acknowledged.

        Raises:
            BrokerUnavailable: no answer within ten seconds; the subscription is made on reconnect.
            BrokerRefused: the broker forbids the filter.
        """
        ...

    def unsubscribe(self, topic_filter: str, handler: Handler | None = None) -> None:
        """Forget ``handler``, else all handlers, of ``topic_filter``."""
        ...

    def collect_retained(
        self, topic_filter: str, *, quiet: float = 0.3, timeout: float = 5.0, mark: str | None = None
    ) -> list[Message]:
        """Retained messages under ``topic_filter``, collected until none came for ``quiet`` seconds.

        With ``mark``, see :meth:`gather`, they are read to their end instead, and what is missing is logged.

        Raises:
            BrokerUnavailable: there is no connection.
        """
        ...

    def gather(self, topic_filter: str, mark: str, *, timeout: float = 30.0) -> Gathered:
        """All that is retained under ``topic_filter``, read to its end; called again, what came since.

        The end is a message on a topic below ``mark``, which must be below ``topic_filter`` and be ours to write; the
        subscription stays until the connection is closed. One ``topic_filter`` has one ``mark``.

        Raises:
            BrokerUnavailable: there is no connection.
            BrokerRefused: the broker forbids the filter.
        """
        ...

    def check(self) -> None:
        """Raise BrokerUnavailable unless the connection stands."""
        ...

    def close(self) -> None:
        """Say goodbye (no will is published) and stop; the session keeps what is unacknowledged."""
        ...
