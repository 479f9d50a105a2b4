"""What only a bucket has to prove: credentials, missing buckets, a gateway that dies, an endpoint that is not there."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator

import pytest

from edgeloop.clients.objects import (
    BucketMissing,
    ObjectStore,
    StoreDenied,
    StoreUnavailable,
    ensure_bucket,
    open_store,
)
from edgeloop.errors import BadInput
from tests.contract.stores import ENVIRON, s3_url
from tests.servers.ceph import S3Server
from tests.servers.ports import free_port


def _every_call(store: ObjectStore) -> list[Callable[[], object]]:
    return [
        lambda: store.get("k"),
        lambda: store.get_range("k", 0, 1),
        lambda: store.put("k", b""),
        lambda: store.create("k", b""),
        lambda: store.size("k"),
        lambda: store.delete("k"),
        lambda: list(store.list("k")),
        lambda: store.move("k", "l"),
    ]


@pytest.mark.s3
def test_wrong_credentials_are_told_from_everything_else(s3_server: S3Server) -> None:
    url = s3_url(s3_server)
    for wrong in ({"AWS_ACCESS_KEY_ID": "nobody"}, {"AWS_SECRET_ACCESS_KEY": "not it"}):
        store = open_store(url, environ=s3_server.environ() | wrong)
        for call in _every_call(store):
            with pytest.raises(StoreDenied, match=r"s3://bucket-.*'k"):
                call()
        with pytest.raises(StoreDenied) as failed:
            ensure_bucket(url, environ=s3_server.environ() | wrong)
        assert s3_server.secret_key not in str(failed.value)


@pytest.mark.s3
def test_a_stray_session_token_in_the_process_is_not_sent(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of somebody else")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody else")
    open_store(s3_url(s3_server), environ=s3_server.environ()).check()


@pytest.mark.s3
def test_a_missing_bucket_is_not_a_missing_object(s3_server: S3Server) -> None:
    store = open_store(s3_server.store_url("never-made"), environ=s3_server.environ())
    for call in [*_every_call(store), store.check]:
        with pytest.raises(BucketMissing, match="never-made"):
            call()


@pytest.mark.s3
def test_ensure_bucket_is_idempotent_and_refuses_bad_names(s3_server: S3Server) -> None:
    url = s3_url(s3_server)
    assert not ensure_bucket(url, environ=s3_server.environ())
    with pytest.raises(BadInput, match=r"a\.\.b"):
        ensure_bucket(s3_server.store_url("a..b"), environ=s3_server.environ())


@pytest.mark.s3
def test_nothing_is_lost_when_the_gateway_is_killed(s3_server: S3Server) -> None:
    store = open_store(s3_url(s3_server), environ=s3_server.environ())
    keys = [f"k/{number}" for number in range(20)]
    for key in keys:
        assert store.create(key, key.encode())
    s3_server.kill_gateway()
    try:
        with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1"):
            store.get(keys[0])
    finally:
        s3_server.start_gateway()
    assert [store.get(key).decode() for key in keys] == keys
    assert not store.create(keys[0], b"again")


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A server that accepts and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield listener.getsockname()[1]


def _unavailable_within(url: str, seconds: float, reason: str) -> None:
    store = open_store(url, environ=ENVIRON)
    for call in (store.check, lambda: ensure_bucket(url, environ=ENVIRON)):
        started = time.monotonic()
        with pytest.raises(StoreUnavailable, match=rf"s3://bucket\?endpoint=http://127.*{reason}") as failed:
            call()
        assert time.monotonic() - started < seconds
        assert "\n" not in str(failed.value)
        assert "a-secret" not in str(failed.value)


def test_an_endpoint_that_is_not_there_is_unavailable_within_seconds() -> None:
    _unavailable_within(f"s3://bucket?endpoint=http://127.0.0.1:{free_port()}", 5, "[Cc]onnection refused")


def test_an_endpoint_that_never_answers_is_unavailable_within_seconds(silent_port: int) -> None:
    _unavailable_within(f"s3://bucket?endpoint=http://127.0.0.1:{silent_port}&timeout=0.5", 10, "[Tt]ime")
