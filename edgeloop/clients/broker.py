"""The MQTT broker behind one small protocol, because a message may be forgotten only when its work is durable.

paho acknowledges a message when its callback returns; here the handler is given an ``ack`` that it calls when it
is done, from whichever thread. What is not acknowledged comes again with the next connection of the session.
:class:`MemoryHub` is a broker inside the process with the same behaviour.
"""

from __future__ import annotations

from edgeloop.clients.broker_connect import connect
from edgeloop.clients.broker_memory import MemoryBroker, MemoryHub
from edgeloop.clients.broker_paho import PahoBroker
from edgeloop.clients.broker_types import (
    Ack,
    Broker,
    BrokerRefused,
    BrokerUnavailable,
    Done,
    Gathered,
    Handler,
    MalformedBrokerUrl,
    Message,
    UntrustedBroker,
)
from edgeloop.clients.broker_url import Address, Tls, parse_url

__all__ = [
    "Ack",
    "Address",
    "Broker",
    "BrokerRefused",
    "BrokerUnavailable",
    "Done",
    "Gathered",
    "Handler",
    "MalformedBrokerUrl",
    "MemoryBroker",
    "MemoryHub",
    "Message",
    "PahoBroker",
    "Tls",
    "UntrustedBroker",
    "connect",
    "parse_url",
]
