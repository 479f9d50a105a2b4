"""50,000 hostile messages through a real mosquitto to a node's intake: each gets one answer, and nothing else happens.

The seed is printed with a failure; set EDGELOOP_FUZZ_SEED to replay it, EDGELOOP_FUZZ_MESSAGES for more of them.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeloop.clients.broker import Ack, Message, connect
from edgeloop.clients.broker_wire import PublishProperties
from edgeloop.edge.allocator import give_back_large_blocks
from edgeloop.edge.mqtt.intake import Intake
from edgeloop.edge.spool.spool import Limits
from edgeloop.samples.topics import device_topic
from tests.servers.mosquitto import Mosquitto
from tests.servers.ports import wait_until
from tests.unit.edge.damaged import EYE, damaged, serve_eye
from tests.unit.edge.fakes import SERVICE, Bench

SEED = int(os.environ.get("EDGELOOP_FUZZ_SEED", "20260101"))
MESSAGES = int(os.environ.get("EDGELOOP_FUZZ_MESSAGES", "50000"))
#: Unanswered messages at once.
WINDOW = 300
#: Growth of this process over the last messages: the gateway fills its memory of results, nothing else may grow.
MIB_MORE = 18
LAST = MESSAGES * 2 // 5

pytestmark = pytest.mark.timeout(240)

_ODD = ["", "-", "é", "\ufeff", "\u202e", "\U0001f600", "nodes", "$SYS", "a b", "..", "%00", "x" * 128, "x" * 129]
_ROWS = [
    b"[0.5,1]",
    b'{"a":1,"b":2}',
    b"[1,2,3]",
    b"[]",
    b"{}",
    b"null",
    b'"text"',
    b"[NaN,1]",
    b"[1e400,1]",
    b"[true,1]",
]
_ROWS += [
    b"[" * 5000,
    b'{"a":' * 3000,
    b"\xff\xfe[0.5,1]",
    b"[0.5,1]\0",
    b"\xef\xbb\xbf[0.5,1]",
    b"-",
    b'{"a":1,"a":2,"b":3}',
]
_TIMES = ["0", "-1", "7", "1767225600000000", "2026-01-01T00:00:00Z", "noon", "9" * 400, "\ufeff7", "NaN"]
_TIMES += ["2026-13-01", "2026-01-01T25:00:00", "1e9"]
_LABELS = [b"", b"{}", b"[]", b"\xff", b'{"sample_id": 1}', b'{"sample_id": "%s", "label": "yes"}' % (b"0" * 64)]
_OTHERS = [
    "edgeloop/v1/a/b/c/d",
    "edgeloop/v1//",
    "edgeloop",
    f"edgeloop/v1/{SERVICE}/d",
    f"edgeloop/v1/{SERVICE}/d/x/input",
]


class Wire:
    """A device that writes its packets itself."""

    def __init__(self, port: int, name: str = "hostile") -> None:
        self._link = socket.create_connection(("127.0.0.1", port), 10)
        self._link.sendall(_packet(0x10, _text(b"MQTT") + b"\x05\x02\0\0\0" + _text(name.encode())))
        assert self._link.recv(4)[0] == 0x20
        threading.Thread(target=self._swallow, daemon=True).start()

    def _swallow(self) -> None:
        try:
            while self._link.recv(65_536):
                pass
        except OSError:
            return

    def publish(self, topic: str, payload: bytes, properties: bytes, number: int) -> None:
        head = _text(topic.encode()) + struct.pack(">H", number % 65_535 + 1)
        self._link.sendall(_packet(0x32, head + properties + payload))

    def send(self, data: bytes) -> None:
        self._link.sendall(data)

    def close(self) -> None:
        self._link.close()


def _text(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while True:
        value, low = divmod(value, 128)
        out.append(low | (128 if value else 0))
        if not value:
            return bytes(out)


def _packet(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + _varint(len(body)) + body


def _payload(draw: random.Random, service: str, leaf: str) -> bytes:
    kind = draw.random()
    if leaf == "feedback":
        return draw.choice(_LABELS) if kind < 0.8 else draw.randbytes(draw.randrange(200))
    if service == EYE and kind < 0.9:
        return damaged(draw)
    if kind < 0.3:
        return json.dumps([draw.random(), draw.randrange(1000)]).encode()
    if kind < 0.8:
        return draw.choice(_ROWS)
    return draw.randbytes(draw.choice([0, 1, 10, 300, 30_000] if kind < 0.99 else [200_000]))


def _properties(draw: random.Random, number: int, own: str) -> bytes:
    """Correlation data is the message's number, so that its answers can be counted."""
    user = {"captured-at": draw.choice(_TIMES)} if draw.random() < 0.5 else {}
    if draw.random() < 0.1:
        user |= {draw.choice(_TIMES): "x" * draw.randrange(3000) for _ in range(3)}
    packed = PublishProperties(user, str(number).encode()).pack()
    body = packed[len(packed) - _length(packed) :]
    if draw.random() < 0.2:
        wanted = [f"{own}/{number}", own, device_topic(SERVICE, "d1", "input"), f"{own}/#", "\ufeff", ""]
        body += b"\x08" + _text(draw.choice(wanted).encode())
    if draw.random() < 0.1:
        body += draw.choice([b"\x01\x01", b"\x03" + _text("\ufeff".encode()), b"\x02\0\0\x0e\x10"])
    return _varint(len(body)) + body


def _length(packed: bytes) -> int:
    return packed[0] if packed[0] < 128 else (packed[0] & 127) | packed[1] << 7


class Answered:
    """Answers by the number of the message they are to."""

    def __init__(self) -> None:
        self.count = bytearray(MESSAGES)
        self.total = 0
        self.wrong: list[str] = []

    def __call__(self, message: Message, ack: Ack) -> None:
        ack()
        self.count[int(message.correlation or b"-1")] += 1
        self.total += 1
        result = json.loads(message.payload)
        if not message.topic.startswith(device_topic(result["service"], result["device"], "result")):
            self.wrong.append(message.topic[:200])


def _rss() -> float:
    """MiB of this process."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "spool", limits=Limits(spool_bytes=4_000_000), audit=0.02)
    yield made
    made.close()


def _send_garbage(port: int, draw: random.Random) -> None:
    """Connections that are no MQTT after the first packet; the broker hangs up on them."""
    garbage = Wire(port, f"garbage-{draw.random()}")
    try:
        garbage.send(draw.choice([b"\x32\xff\xff\xff\xff", b"\xf0\x00", _packet(0x32, _text(b"a/#") + b"\0\1\0")]))
        garbage.send(draw.randbytes(300))
    except OSError:
        pass
    garbage.close()


def _send(port: int, draw: random.Random, answered: Answered, memory: list[float]) -> bytearray:
    """Send all; returns how often each must be answered."""
    wire, expected, sent = Wire(port), bytearray(MESSAGES), 0
    for number in range(MESSAGES):
        if number == MESSAGES - LAST:
            memory.append(_rss())
        if number % 2500 == 0:
            _send_garbage(port, draw)
        leaf = "input" if draw.random() < 0.9 else "feedback"
        device = draw.choice(_ODD) if draw.random() < 0.3 else f"d{draw.randrange(40)}"
        service = EYE if draw.random() < 0.25 else SERVICE
        topic, own = device_topic(service, device, leaf), device_topic(service, device, "result")
        if draw.random() < 0.03:
            topic = draw.choice(_OTHERS)
        else:
            expected[number] = 1
            sent += 1
        wire.publish(topic, _payload(draw, service, leaf), _properties(draw, number, own), number)
        end = time.monotonic() + 30
        while sent - answered.total > WINDOW:
            assert time.monotonic() < end, f"no answers any more after message {number}"
            time.sleep(0.001)
    wait_until("every message is answered", lambda: answered.total >= sent)
    wire.close()
    return expected


@pytest.mark.alone
def test_every_hostile_message_gets_one_answer_and_nothing_grows(
    tmp_path: Path, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    print(f"EDGELOOP_FUZZ_SEED={SEED}")
    caplog.set_level(logging.ERROR)
    give_back_large_blocks()  # as a node does
    draw, memory, connected = random.Random(SEED), list[float](), list[None]()
    intake, answered, decoded = Intake(bench.gateway, 32), Answered(), serve_eye(bench).outcomes
    with Mosquitto(tmp_path / "m") as server:
        watcher = connect(server.url, "watcher", subscriptions={"edgeloop/v1/+/+/result/#": answered})
        node = connect(
            server.url,
            "node",
            clean=False,
            receive_maximum=32,
            subscriptions=intake.handlers([SERVICE, EYE], ["+"], None),
            on_connect=lambda: connected.append(None),
            busy=intake.busy,
        )
        intake.attach(node)
        expected = _send(server.port, draw, answered, memory)
        finished = intake.stop(10)
        memory.append(_rss())
        node.close()
        watcher.close()
    assert finished and len(connected) == 1
    assert answered.count == expected
    assert not answered.wrong
    assert set(decoded) == {"ok", "bad_input"} and min(decoded.values()) > MESSAGES // 50, decoded
    assert not [r.getMessage() for r in caplog.records if r.exc_info]
    assert memory[1] - memory[0] < MIB_MORE, memory
