"""Brokers that ask who is there: real mosquittos with TLS, passwords and access rules; every refusal is one line."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from edgeloop.clients import broker_connect
from edgeloop.clients.broker import (
    Ack,
    Broker,
    BrokerRefused,
    BrokerUnavailable,
    Handler,
    Message,
    UntrustedBroker,
    connect,
)
from edgeloop.errors import EdgeloopError
from tests.servers.amqtt import Amqtt
from tests.servers.authority import Authority
from tests.servers.mosquitto import Mosquitto, Secured

pytestmark = pytest.mark.timeout(180)

SECRET = "s3cret/p@ss:wörd"


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


def refusal(url: str) -> EdgeloopError:
    """The error of a connection that must fail: one line that shows no password."""
    with pytest.raises(EdgeloopError) as caught:
        connect(url, "c", timeout=30).close()
    text = f"{caught.value} {caught.value!r}"
    assert "\n" not in text and SECRET not in text and "s3cret" not in text
    return caught.value


def received(broker: Broker, topic: str) -> SimpleQueue[Message]:
    inbox: SimpleQueue[Message] = SimpleQueue()
    broker.subscribe(topic, keep(inbox))
    return inbox


def keep(inbox: SimpleQueue[Message]) -> Handler:
    def take(message: Message, ack: Ack) -> None:
        ack()
        inbox.put(message)

    return take


def round_trip(url: str) -> Message:
    client = connect(url, "c", timeout=30)
    try:
        inbox = received(client, "t")
        client.publish("t", b"x" * 100_000, properties={"captured-at": "7"})
        return inbox.get(timeout=30)
    finally:
        client.close()


def test_tls_carries_messages_and_properties(tmp_path: Path, ca: Authority) -> None:
    with Mosquitto(tmp_path / "m", secured=Secured(ca.sign("server"))) as server:
        message = round_trip(f"{server.url}?ca={ca.cert}")
    assert len(message.payload) == 100_000 and message.properties == {"captured-at": "7"}


def test_a_broker_of_an_older_version_is_found_out_over_tls(ca: Authority) -> None:
    server = ca.sign("server")
    old = Amqtt(ssl=True, certfile=str(server.cert), keyfile=str(server.key))
    try:
        message = round_trip(f"mqtts://localhost:{old.port}?ca={ca.cert}")
    finally:
        old.stop()
    assert len(message.payload) == 100_000 and message.properties == {}


def test_a_certificate_of_an_unknown_authority_is_not_trusted(tmp_path: Path, ca: Authority) -> None:
    other = Authority(tmp_path / "other")
    with Mosquitto(tmp_path / "m", secured=Secured(ca.sign("server"))) as server:
        for url in (server.url, f"{server.url}?ca={other.cert}"):
            error = refusal(url)
            assert isinstance(error, UntrustedBroker)
            assert f"broker 127.0.0.1:{server.port} is not trusted" in str(error) and "?ca=FILE" in str(error)


def test_an_expired_certificate_is_not_trusted(tmp_path: Path, ca: Authority) -> None:
    with Mosquitto(tmp_path / "m", secured=Secured(ca.sign("server", days_ago=3))) as server:
        error = refusal(f"{server.url}?ca={ca.cert}")
    assert isinstance(error, UntrustedBroker) and "certificate has expired" in str(error)


def test_a_certificate_of_another_host_is_not_trusted(tmp_path: Path, ca: Authority) -> None:
    with Mosquitto(tmp_path / "m", secured=Secured(ca.sign("server", hosts=("elsewhere",)))) as server:
        error = refusal(f"{server.url}?ca={ca.cert}")
    assert isinstance(error, UntrustedBroker) and "127.0.0.1" in str(error) and "not valid" in str(error)


def test_tls_to_a_port_without_and_the_other_way_round(tmp_path: Path, ca: Authority) -> None:
    with Mosquitto(tmp_path / "plain") as plain:
        error = refusal(f"mqtts://127.0.0.1:{plain.port}?ca={ca.cert}")
        assert isinstance(error, BrokerUnavailable)
    with Mosquitto(tmp_path / "m", secured=Secured(ca.sign("server"))) as server:
        error = refusal(f"mqtt://127.0.0.1:{server.port}")
        assert isinstance(error, BrokerUnavailable) and f":{server.port}" in str(error)


def test_a_client_certificate_is_asked_for_and_believed(tmp_path: Path, ca: Authority) -> None:
    other = Authority(tmp_path / "other")
    acl = "user edge-1\ntopic readwrite t"
    secured = Secured(ca.sign("server"), client_ca=ca.cert, acl=acl)
    with Mosquitto(tmp_path / "m", secured=secured) as server:
        own, foreign = ca.sign("edge-1"), other.sign("edge-1")
        assert round_trip(f"{server.url}?ca={ca.cert}&cert={own.cert}&key={own.key}").payload
        for url in (
            f"{server.url}?ca={ca.cert}",
            f"{server.url}?ca={ca.cert}&cert={foreign.cert}&key={foreign.key}",
        ):
            error = refusal(url)
            assert isinstance(error, UntrustedBroker), error
            assert "?cert=FILE&key=FILE" in str(error)


def test_renewed_certificates_are_used_by_the_next_connection(tmp_path: Path) -> None:
    first, second = Authority(tmp_path / "first"), Authority(tmp_path / "second")
    believed, back, inbox = tmp_path / "believed.crt", SimpleQueue[None](), SimpleQueue[Message]()
    believed.write_bytes(first.cert.read_bytes())
    server = Mosquitto(tmp_path / "m", secured=Secured(first.sign("server")))
    with server:
        client = connect(
            f"{server.url}?ca={believed}", "c", subscriptions={"s": keep(inbox)}, on_connect=lambda: back.put(None)
        )
        back.get(timeout=30)
        server.kill()
        renewed, shown = second.sign("server"), tmp_path / "first" / "server"
        shown.with_suffix(".crt").write_bytes(renewed.cert.read_bytes())
        shown.with_suffix(".key").write_bytes(renewed.key.read_bytes())
        believed.write_bytes(second.cert.read_bytes())
        server.start()
        back.get(timeout=40)
        client.publish("s", b"hello")
        assert inbox.get(timeout=30).payload == b"hello"
        client.close()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Mosquitto]:
    acl = "user edge-1\ntopic write allowed\ntopic read allowed"
    with Mosquitto(tmp_path / "m", secured=Secured(passwords={"edge-1": SECRET}, acl=acl)) as server:
        yield server


def test_the_right_password_is_let_in(guarded: Mosquitto) -> None:
    client = connect(guarded.url_for("edge-1", SECRET), "c")
    client.publish("allowed", b"")
    client.close()


@pytest.mark.parametrize("user", ["edge-1", "edge-2"])
def test_a_wrong_password_or_user_is_refused(guarded: Mosquitto, user: str) -> None:
    error = refusal(guarded.url_for(user, SECRET + "x"))
    assert isinstance(error, BrokerRefused) and "refuses the connection (Not authorized)" in str(error)


def test_no_password_where_one_is_asked_for_is_refused(guarded: Mosquitto) -> None:
    assert isinstance(refusal(guarded.url), BrokerRefused)


def test_the_password_is_in_no_log(guarded: Mosquitto, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    client: Any = connect(guarded.url_for("edge-1", SECRET), "c")
    text = f"{client.address} {client.address!r}"
    client.close()
    refusal(guarded.url_for("edge-1", SECRET + "x"))
    assert "s3cret" not in text + caplog.text


def test_a_forbidden_publish_is_refused_and_the_connection_stands(guarded: Mosquitto) -> None:
    client = connect(guarded.url_for("edge-1", SECRET), "c")
    with pytest.raises(BrokerRefused, match=r"Not authorized.*access rules"):
        client.publish("forbidden", b"x")
    client.publish("allowed", b"x")
    client.close()


def test_a_broker_of_an_older_version_drops_a_forbidden_publish_without_a_word(
    guarded: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_connect, "_speaks_mqtt5", lambda address, timeout: False)
    client = connect(guarded.url_for("edge-1", SECRET), "c")
    inbox = received(client, "allowed")
    client.publish("forbidden", b"acknowledged, and lost: MQTT 3.1.1 has no word for it")
    client.publish("allowed", b"x")
    assert inbox.get(timeout=30).payload == b"x"
    client.close()


def test_a_wrong_password_is_refused_under_the_older_version_too(
    guarded: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_connect, "_speaks_mqtt5", lambda address, timeout: False)
    assert isinstance(refusal(guarded.url_for("edge-1", SECRET + "x")), BrokerRefused)


def test_a_message_over_the_packet_size_of_the_broker_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "m", options=["max_packet_size 10000"]) as server:
        client = connect(server.url, "c")
        inbox = received(client, "t")
        with pytest.raises(BrokerRefused, match=r"takes 10000: send a smaller one"):
            client.publish("t", b"x" * 10_000)
        client.publish("t", b"x" * 9_900)
        assert len(inbox.get(timeout=30).payload) == 9_900
        client.close()


def test_a_message_over_the_message_size_of_the_broker_is_refused(tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "m", options=["message_size_limit 10000"]) as server:
        client = connect(server.url, "c")
        inbox = received(client, "t")
        with pytest.raises(BrokerRefused, match=r"Packet too large 0x95: send a smaller one"):
            client.publish("t", b"x" * 10_001)
        client.publish("t", b"x" * 10_000)
        assert len(inbox.get(timeout=30).payload) == 10_000
        client.close()
