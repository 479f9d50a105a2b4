"""Broker URLs: what is wrong with one is said in one line, and never with the password."""

from __future__ import annotations

import ssl
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.clients.broker import Address, MalformedBrokerUrl, parse_url
from edgeloop.clients.broker_url import RenewingContext
from tests.servers.authority import Authority


@pytest.mark.parametrize(
    "url",
    [
        "", "localhost:1883", "http://h:1", "mqtt://", "mqtt://h:99999", "mqtt://h:0", "mqtt://h/x", "mqtt://h#x",
        "mqtts://h?insecure=true", "mqtts://h?ca=", "mqtts://h?ca", "mqtts://h?ca=a&ca=b", "mqtts://h?CA=x",
    ],
)  # fmt: skip
def test_a_malformed_url_is_the_users_mistake(url: str) -> None:
    with pytest.raises(MalformedBrokerUrl, match="write mqtt://"):
        parse_url(url)


def test_user_and_password_are_read_from_the_url() -> None:
    address = parse_url("mqtt://me:p%40ss@host")
    assert (address.host, address.port, address.user, address.password) == ("host", 1883, "me", "p@ss")


def test_tls_has_a_port_of_its_own_and_the_systems_authorities() -> None:
    address = parse_url("mqtts://host")
    assert address.port == 8883 and address.tls is not None and address.tls.ca is None
    assert parse_url("mqtt://host").tls is None and str(parse_url("mqtts://[::1]:9000")) == "[::1]:9000"


def test_verification_is_always_on(tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    for url in ("mqtts://host", f"mqtts://host?ca={ca.cert}"):
        tls = parse_url(url).tls
        assert tls is not None
        for context in (tls.context(), RenewingContext.of(tls)):
            assert context.verify_mode == ssl.CERT_REQUIRED and context.check_hostname
        assert tls.context().minimum_version == ssl.TLSVersion.TLSv1_2


def test_a_named_authority_is_the_only_one_believed(tmp_path: Path) -> None:
    tls = parse_url(f"mqtts://host?ca={Authority(tmp_path, 'mine').cert}").tls
    assert tls is not None and tls.context().cert_store_stats()["x509_ca"] == 1


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    one, two, locked = ca.sign("one"), ca.sign("two"), ca.sign("locked", passphrase=b"secret")
    text, gone = tmp_path / "text", tmp_path / "gone"
    text.write_text("no certificate")
    cases = {
        f"ca={gone}": f"ca {gone} cannot be read (No such file or directory)",
        f"ca={tmp_path}": f"ca {tmp_path} cannot be read (Is a directory)",
        f"ca={text}": f"ca {text} holds no certificate",
        f"cert={gone}&key={one.key}": f"cert {gone} cannot be read",
        f"cert={one.cert}&key={gone}": f"key {gone} cannot be read",
        f"cert={one.cert}&key={two.key}": f"key {two.key} does not belong to cert {one.cert}",
        f"cert={locked.cert}&key={locked.key}": f"key {locked.key} is encrypted",
        f"cert={text}&key={one.key}": f"cert {text} and key {one.key} are no PEM pair",
        f"cert={one.cert}": f"cert {one.cert} and key {one.cert} are no PEM pair",
        f"key={one.key}": "has a key and no cert",
    }
    for query, expected in cases.items():
        with pytest.raises(MalformedBrokerUrl) as caught:
            parse_url(f"mqtts://me:hidden@host?{query}")
        assert expected in str(caught.value) and "\n" not in str(caught.value)
        assert "hidden" not in str(caught.value)


def test_files_without_tls_are_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(MalformedBrokerUrl, match="write mqtts://"):
        parse_url(f"mqtt://me:hidden@host?ca={Authority(tmp_path).cert}")


@given(
    st.text(min_size=1), st.sampled_from(["http://{}@h", "mqtt://{}@h/path", "mqtt://{}@h:port", "mqtts://{}@h?x=1"])
)
def test_no_message_shows_the_password(password: str, form: str) -> None:
    secret = f"hunter{password}hunter"
    for written in (quote(secret, safe=""), secret.replace("/", "").replace("?", "").replace("#", "")):
        with pytest.raises(MalformedBrokerUrl) as caught:
            parse_url(form.format(f"me:{written}"))
        assert "hunter" not in f"{caught.value}{caught.value!r}{caught.value.__cause__!r}"


@pytest.mark.parametrize(
    "url",
    [
        "mqtt://me:hunter2",
        "mqtt://me:hunter2/",
        "mqtts://me:hunter2?ca=x",
        "mqtt://me:a/hunter2@h",
        "mqtt://me:hunter/2@h",
    ],
)
def test_a_forgotten_host_or_a_raw_slash_shows_no_password_either(url: str) -> None:
    with pytest.raises(MalformedBrokerUrl) as caught:
        parse_url(url)
    assert "hunter" not in str(caught.value)


@given(st.text(min_size=1))
def test_an_address_shows_no_password(password: str) -> None:
    address = Address("h", 1, "me", f"hunter{password}")
    assert "hunter" not in f"{address} {address!r} {address.unavailable('x')} {address.refused('x')}"
