"""Devices that ask without a pause, and remember what they were told.

Over MQTT a device publishes once, with QoS 1; only when the broker lost its memory does it send again what has no
answer. Over HTTP it sends a request again, with the same capture time, until the node has answered it.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edgeloop.samples.payloads import encode_features
from edgeloop.samples.records import sample_id
from edgeloop.samples.topics import device_topic
from tests.e2e.edge_faults.ledger import Ledger, Told

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock:
    """Capture times in microseconds since 1970 that never come twice."""

    def __init__(self) -> None:
        self._numbers = count(time.time_ns() // 1000)
        self._lock = threading.Lock()

    def next(self) -> int:
        """The next one."""
        with self._lock:
            return next(self._numbers)


def _name(service: str, device: str, at: int, payload: bytes) -> str:
    return sample_id(service, device, _EPOCH + timedelta(microseconds=at), payload)


class _Device:
    """What both ways have in common: a thread that asks every ``pause`` seconds on average, a burst at a time."""

    _burst = 1

    def __init__(self, name: str, service: str, ledger: Ledger, clock: Clock, pause: float) -> None:
        self.name = name
        self.service = service
        self._ledger = ledger
        self._clock = clock
        self._pause = pause
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """Ask nothing new; what is on its way is still waited for."""
        self._stopped.set()

    def join(self, timeout: float) -> bool:
        """Whether the thread has ended within ``timeout`` seconds."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopped.wait(self._pause * self._burst):
            self.burst(self._burst)

    def burst(self, number: int) -> None:
        """Ask so many times at once."""
        for _ in range(number):
            self._ask_next()

    def _ask_next(self) -> None:
        at = self._clock.next()
        row = [float(at % 997), 0.5, 0.25]
        payload = encode_features(row)
        name = _name(self.service, self.name, at, payload)
        self._ledger.ask(name, sum(row))
        self._ask(name, at, row, payload)

    def _ask(self, name: str, at: int, row: list[float], payload: bytes) -> None:
        raise NotImplementedError


class MqttDevice(_Device):
    """A device on the broker, with a session that the broker keeps. Its bursts keep the node at work on several.

    It stands on paho alone, so that a fault of the node's own client cannot hide behind the same one here.
    """

    _burst = 10

    def __init__(self, name: str, service: str, ledger: Ledger, clock: Clock, pause: float, port: int) -> None:
        super().__init__(name, service, ledger, clock, pause)
        self._sent: dict[str, tuple[float, int, bytes]] = {}
        self._lock = threading.Lock()
        self._answered = threading.Event()
        self.resent = 0
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, name, protocol=mqtt.MQTTv5)
        self._client.reconnect_delay_set(0.2, 0.4)  # type: ignore[arg-type]
        self._client.on_connect = lambda client, *_: client.subscribe(device_topic(service, name, "result"), 1)
        self._client.on_message = self._result
        lasting = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        lasting.SessionExpiryInterval = 3600
        self._client.connect("127.0.0.1", port, clean_start=False, properties=lasting)
        self._client.loop_start()

    def close(self) -> None:
        """Hang up."""
        self._client.disconnect()
        self._client.loop_stop()

    def _ask(self, name: str, at: int, row: list[float], payload: bytes) -> None:
        with self._lock:
            self._sent[name] = (time.monotonic(), at, payload)
        self._publish(at, payload)

    def _publish(self, at: int, payload: bytes) -> None:
        user = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        user.UserProperty = [("captured-at", str(at))]
        self._client.publish(device_topic(self.service, self.name, "input"), payload, 1, properties=user)

    def _result(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        result: dict[str, Any] = json.loads(message.payload)
        name = result.get("sample_id")
        prediction = None if result.get("prediction") is None else float(result["prediction"])
        told = Told(prediction, result.get("model"), bool(result.get("captured")), result.get("error"))
        self._ledger.tell(name, told)
        with self._lock:
            self._sent.pop(str(name), None)
        self._answered.set()

    def catch_at_work(self, number: int = 60) -> bool:
        """Ask so many times at once, and wait until the node is at it; False when it answers nothing."""
        self._answered.clear()
        self.burst(number)
        return self._answered.wait(1.0)

    def send_again(self, since: float) -> None:
        """Send what was sent after ``since`` (monotonic) and has no answer: the broker may have forgotten it."""
        with self._lock:
            waiting = [(at, payload) for sent, at, payload in self._sent.values() if sent > since]
        self.resent += len(waiting)
        for at, payload in waiting:
            self._publish(at, payload)

    def waiting(self) -> dict[str, float]:
        """What has no answer, and when it was sent (monotonic)."""
        with self._lock:
            return {name: sent for name, (sent, _, _) in self._sent.items()}


class HttpDevice(_Device):
    """A device that asks over the V2 protocol, one request at a time."""

    def __init__(self, name: str, service: str, ledger: Ledger, clock: Clock, pause: float, port: int) -> None:
        super().__init__(name, service, ledger, clock, pause)
        self._port = port
        self.again: Counter[str] = Counter()
        """Why requests were sent again, and how often."""

    def _ask(self, name: str, at: int, row: list[float], payload: bytes) -> None:
        tensor = {"name": "input", "datatype": "FP64", "shape": [1, len(row)], "data": row}
        body = json.dumps({"inputs": [tensor]}).encode()
        while (told := self._once(name, at, body)) is None:
            time.sleep(0.1)
        self._ledger.tell(name, told)

    def _once(self, name: str, at: int, body: bytes) -> Told | None:
        headers = {"x-device": self.name, "x-captured-at": str(at), "content-type": "application/json"}
        link = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        try:
            link.request("POST", f"/v2/models/{self.service}/infer", body, headers)
            answer = link.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.again[type(error).__name__] += 1
            return None
        finally:
            link.close()
        if answer.status == 429:
            self.again["429"] += 1
            return None
        return _told(name, answer.status, text)


def _told(name: str, status: int, text: bytes) -> Told:
    if status != 200:
        return Told(error=f"HTTP {status}: {text[:300]!r}")
    answer = json.loads(text)
    columns = {output["name"]: output["data"][0] for output in answer["outputs"]}
    if columns["sample_id"] != name:
        return Told(error=f"the answer is to {columns['sample_id']}")
    # The answer does not say whether it was captured, so over HTTP nothing is promised but the answer.
    return Told(float(columns["prediction"]), answer["model_version"])
