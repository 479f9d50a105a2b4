"""Believes a webhook only when MLflow's secret signed it, lately, and for the first time.

The scheme is MLflow's (``mlflow/webhooks/delivery.py``, in the manner of Standard Webhooks): the header
``X-MLflow-Signature`` is ``v1,`` and the base64 of HMAC-SHA256 under the secret over
``<delivery id>.<timestamp>.<body>``.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeloop.errors import EdgeloopError

#: Seconds by which a delivery may be older or newer than our clock. MLflow signs once and tries for some seconds.
WINDOW = 300
_REMEMBERED = 4096


class BadSignature(EdgeloopError):
    """A delivery without a signature of ours."""


class StaleDelivery(EdgeloopError):
    """A delivery from another time."""


class ReplayedDelivery(EdgeloopError):
    """A delivery that came before."""


class MalformedEvent(EdgeloopError):
    """A signed delivery that says nothing that can be read."""


class UnusableSecret(EdgeloopError):
    """The file of the secret cannot be used."""


@dataclass(frozen=True)
class Event:
    """What MLflow says happened."""

    entity: str
    action: str
    model: str
    alias: str

    @property
    def moves(self) -> str | None:
        """The service whose champion was set or deleted; None when it is about something else."""
        return self.model if (self.entity, self.alias) == ("model_version_alias", "champion") else None


def sign(secret: str, delivery: str, at: int, body: bytes) -> str:
    """The header ``X-MLflow-Signature`` of a delivery; ``at`` in Unix seconds."""
    mac = hmac.new(secret.encode(), f"{delivery}.{at}.".encode() + body, hashlib.sha256)
    return "v1," + base64.b64encode(mac.digest()).decode()


class Verifier:
    """Checks deliveries and remembers their ids for as long as their time would be believed."""

    def __init__(self, secret: str) -> None:
        if not secret:
            raise UnusableSecret("the secret of the webhook is empty: remove its file, and a new one is made")
        self._secret = secret
        self._seen: OrderedDict[str, float] = OrderedDict()

    def verify(self, headers: Mapping[str, str], body: bytes, now: float) -> Event:
        """What a delivery says.

        Args:
            headers: names in lower case.
            now: Unix seconds.

        Raises:
            BadSignature, StaleDelivery, ReplayedDelivery, MalformedEvent: it is not to be believed; nothing of it was
                read before its signature was.
        """
        delivery, at = headers.get("x-mlflow-delivery-id", ""), headers.get("x-mlflow-timestamp", "")
        if not (delivery and len(delivery) <= 128 and at.isascii() and at.isdigit() and len(at) <= 12):
            raise BadSignature("a delivery without id or time")
        given = headers.get("x-mlflow-signature", "").encode()
        if not hmac.compare_digest(given, sign(self._secret, delivery, int(at), body).encode()):
            raise BadSignature("a delivery that this secret did not sign")
        if abs(now - int(at)) > WINDOW:
            raise StaleDelivery("a delivery from another time: do both clocks go right?")
        self._remember(delivery, now)
        return _event(body)

    def _remember(self, delivery: str, now: float) -> None:
        # Twice the window: a time ahead of ours is believed for that long.
        while self._seen and (next(iter(self._seen.values())) < now - 2 * WINDOW or len(self._seen) >= _REMEMBERED):
            self._seen.popitem(last=False)
        if delivery in self._seen:
            raise ReplayedDelivery("a delivery that came before")
        self._seen[delivery] = now


def _event(body: bytes) -> Event:
    try:
        said = json.loads(body)
        data = said["data"]
        return Event(str(said["entity"]), str(said["action"]), str(data["name"]), str(data.get("alias", "")))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MalformedEvent("a signed delivery that is no event of MLflow") from error


def ensure_secret(path: Path) -> str:
    """The secret in the file ``path``, which is made for its owner alone when it is missing.

    Raises:
        UnusableSecret: it cannot be read or made, others may read it, or it is too short.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _create(path)
        mode, secret = path.stat().st_mode & 0o777, path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise UnusableSecret(f"secret of the webhook {path} cannot be used ({error}): name another file") from error
    if mode & 0o077:
        raise UnusableSecret(f"secret of the webhook {path} has mode {mode:o}: run  chmod 600 {path}")
    if len(secret) < 32:
        raise UnusableSecret(f"secret of the webhook {path} has fewer than 32 letters: remove it, a new one is made")
    return secret


def _create(path: Path) -> None:
    """Written beside and linked: whoever comes second finds a whole secret."""
    if path.exists():
        return
    beside = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
        try:
            os.link(beside, path)
        except FileExistsError:
            return
    finally:
        beside.unlink()
