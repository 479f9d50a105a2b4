"""Only what MLflow signed with our secret, lately and for the first time, is believed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeloop.promotion.signature import (
    WINDOW,
    BadSignature,
    Event,
    MalformedEvent,
    ReplayedDelivery,
    StaleDelivery,
    UnusableSecret,
    Verifier,
    ensure_secret,
    sign,
)

SECRET = "not a secret, but of some length..."
NOW = 1_790_000_000
SAID = {
    "entity": "model_version_alias",
    "action": "created",
    "timestamp": "2026-09-21T00:00:00+00:00",
    "data": {"name": "rater", "alias": "champion", "version": "2"},
}
BODY = json.dumps(SAID).encode()


def headers(body: bytes = BODY, delivery: str = "d-1", at: int = NOW, secret: str = SECRET) -> dict[str, str]:
    return {
        "x-mlflow-signature": sign(secret, delivery, at, body),
        "x-mlflow-timestamp": str(at),
        "x-mlflow-delivery-id": delivery,
    }


def test_a_delivery_is_read() -> None:
    event = Verifier(SECRET).verify(headers(), BODY, NOW)
    assert event == Event("model_version_alias", "created", "rater", "champion")
    assert event.moves == "rater"


def test_the_signature_is_mlflows_own() -> None:
    from mlflow.webhooks.delivery import _generate_hmac_signature

    assert sign(SECRET, "d-1", NOW, BODY) == _generate_hmac_signature(SECRET, "d-1", str(NOW), BODY.decode())


@pytest.mark.parametrize(
    "changed",
    [
        {"x-mlflow-signature": ""},
        {"x-mlflow-signature": "v1,"},
        {"x-mlflow-signature": "v2," + sign(SECRET, "d-1", NOW, BODY)[3:]},
        {"x-mlflow-signature": sign("another secret", "d-1", NOW, BODY)},
        {"x-mlflow-signature": "v1,ünlesbar"},
        {"x-mlflow-timestamp": str(NOW + 1)},
        {"x-mlflow-timestamp": ""},
        {"x-mlflow-timestamp": "-5"},
        {"x-mlflow-timestamp": "9" * 40},
        {"x-mlflow-timestamp": "\u0661"},
        {"x-mlflow-delivery-id": "d-2"},
        {"x-mlflow-delivery-id": ""},
        {"x-mlflow-delivery-id": "x" * 1000},
    ],
    ids=lambda c: "-".join(f"{k[9:]}-{v[:6]}" for k, v in c.items()),
)
def test_what_is_not_signed_like_that_is_refused(changed: dict[str, str]) -> None:
    with pytest.raises(BadSignature):
        Verifier(SECRET).verify(headers() | changed, BODY, NOW)


@settings(max_examples=60)
@given(st.binary(max_size=200))
def test_another_body_is_refused(body: bytes) -> None:
    if body != BODY:
        with pytest.raises(BadSignature):
            Verifier(SECRET).verify(headers(), body, NOW)


@pytest.mark.parametrize("off", [-WINDOW - 1, WINDOW + 1])
def test_another_time_is_refused(off: int) -> None:
    with pytest.raises(StaleDelivery):
        Verifier(SECRET).verify(headers(), BODY, NOW + off)


@pytest.mark.parametrize("off", [-WINDOW, WINDOW])
def test_clocks_need_not_be_equal(off: int) -> None:
    assert Verifier(SECRET).verify(headers(), BODY, NOW + off).moves == "rater"


def test_the_same_delivery_counts_once_for_as_long_as_it_would_be_believed() -> None:
    verifier = Verifier(SECRET)
    ahead = headers(at=NOW + WINDOW)
    verifier.verify(ahead, BODY, NOW)
    for later in (0, 1, 2 * WINDOW):
        with pytest.raises(ReplayedDelivery):
            verifier.verify(ahead, BODY, NOW + later)
    assert verifier.verify(headers(delivery="d-2"), BODY, NOW).moves == "rater"


def test_a_stranger_cannot_fill_the_memory() -> None:
    verifier = Verifier(SECRET)
    for number in range(100):
        with pytest.raises(BadSignature):
            verifier.verify(headers(delivery=f"d-{number}", secret="wrong"), BODY, NOW)
    assert len(verifier._seen) == 0
    for number in range(5000):
        verifier.verify(headers(delivery=f"d-{number}"), BODY, NOW)
    assert len(verifier._seen) <= 4096


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'"x"', b"\xff", b'{"entity": 1}', b'{"data": []}', b"[" * 10000])
def test_what_is_signed_and_says_nothing_is_named(body: bytes) -> None:
    with pytest.raises(MalformedEvent):
        Verifier(SECRET).verify(headers(body), body, NOW)


@pytest.mark.parametrize(
    "other",
    [
        {"entity": "prompt_alias"},
        {"entity": "model_version"},
        {"data": {"name": "rater", "alias": "candidate"}},
        {"data": {"name": "rater"}},
    ],
    ids=str,
)
def test_other_events_move_nothing(other: dict[str, object]) -> None:
    body = json.dumps(SAID | other).encode()
    assert Verifier(SECRET).verify(headers(body), body, NOW).moves is None


def test_a_secret_is_made_once_and_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "webhook.secret"
    secret = ensure_secret(path)
    assert len(secret) >= 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert ensure_secret(path) == secret
    assert [p.name for p in path.parent.iterdir()] == ["webhook.secret"]


def test_a_secret_that_others_read_or_that_is_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "webhook.secret"
    ensure_secret(path)
    path.chmod(0o640)
    with pytest.raises(UnusableSecret, match="has mode 640: run  chmod 600"):
        ensure_secret(path)
    path.chmod(0o600)
    path.write_text("short", encoding="ascii")
    with pytest.raises(UnusableSecret, match="fewer than 32 letters"):
        ensure_secret(path)
    with pytest.raises(UnusableSecret, match="empty"):
        Verifier("")
    assert os.access(path, os.R_OK)
