"""The bare subscriber: how fast this machine takes messages from a broker when nothing is done with them.

Runs as a process of its own: ``python -m edgeloop.bench.peers.subscriber HOST PORT CLIENT TOPIC COUNT``. With COUNT 0
it only leaves a session behind, so that messages wait for it; else it takes that many, acknowledges each, and prints
``seconds`` from the first to the last.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

TIMEOUT_SECONDS = 300.0


def send_at_once(_client: mqtt.Client, _data: Any, link: Any) -> None:
    """Acknowledgements do not wait for the other side's delayed ones."""
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def open_session(client: mqtt.Client, host: str, port: int) -> None:
    """Connect with a session that stays."""
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = 3600
    client.on_socket_open = send_at_once
    client.connect(host, port, 60, clean_start=False, properties=properties)


def main(arguments: list[str]) -> None:
    host, port, name, topic = arguments[0], int(arguments[1]), arguments[2], arguments[3]
    count = int(arguments[4])
    times: list[float] = []
    done = threading.Event()

    def on_message(_client: mqtt.Client, _data: Any, _message: mqtt.MQTTMessage) -> None:
        times.append(time.perf_counter())
        if len(times) == count:
            done.set()

    def on_subscribe(*_: Any) -> None:
        if not count:
            done.set()

    client = mqtt.Client(CallbackAPIVersion.VERSION2, name, protocol=mqtt.MQTTv5)
    client.on_message = on_message
    client.on_subscribe = on_subscribe
    client.on_connect = lambda c, *_: c.subscribe(topic, 1)
    open_session(client, host, port)
    client.loop_start()
    if not done.wait(TIMEOUT_SECONDS):
        raise SystemExit(f"{len(times)} of {count} messages came in {TIMEOUT_SECONDS:g} s")
    client.disconnect()
    client.loop_stop()
    sys.stdout.write(json.dumps({"seconds": times[-1] - times[0] if times else 0.0}))


if __name__ == "__main__":
    main(sys.argv[1:])
