"""The answer to one input as devices get it, and the capture time they may send: the same over MQTT and HTTP."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from edgeloop.errors import BadInput

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_YEAR = datetime(9000, 1, 1, tzinfo=UTC)
#: Most characters of a device's name.
LONGEST_DEVICE = 128
#: Most characters of an error: it may quote what it refuses, and that may be large.
LONGEST_ERROR = 600
#: Errors that count as inputs of a service.
OUTCOMES = ("bad_input", "model_error", "not_ready")
_ANSWER = (
    *("service", "device", "node", "at", "sample_id"),
    *("prediction", "confidence", "captured", "selected_by", "model"),
)
_ERROR = ("error", "sample_id", "service", "device", "node", "at")


class MalformedTime(BadInput):
    """A capture time is neither ISO 8601 nor microseconds since 1970."""


@dataclass(frozen=True, slots=True)
class Result:
    """The answer to one input."""

    service: str
    device: str
    node: str
    at: str
    sample_id: str | None = None
    prediction: str | None = None
    confidence: float | None = None
    captured: bool = False
    selected_by: str | None = None
    model: str | None = None
    """Digest of the release that answered."""
    error: str | None = None
    outcome: str = "ok"
    """``ok``, one of the errors :data:`OUTCOMES`, ``unknown`` (service or sample) or ``feedback`` (malformed); not
    sent."""
    probabilities: tuple[float, ...] | None = None
    """One per label, in the order of the labels; sent over HTTP to those who ask for it."""

    def to_json(self) -> dict[str, Any]:
        """What is sent: with ``error``, or with the prediction."""
        return {name: getattr(self, name) for name in (_ANSWER if self.error is None else _ERROR)}

    def to_bytes(self) -> bytes:
        """:meth:`to_json`, encoded."""
        return json.dumps(self.to_json()).encode()


def parse_time(text: str | None) -> datetime | None:
    """A capture time: ISO 8601 (UTC where no zone is given) or integer microseconds since 1970.

    Raises:
        MalformedTime: anything else.
    """
    if not text:
        return None
    try:
        if text.isascii() and text.lstrip("-").isdigit():
            at = _EPOCH + timedelta(microseconds=int(text))
        else:
            at = datetime.fromisoformat(text)
            at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise MalformedTime(f"captured-at is {text[:80]!r}: send ISO 8601 or microseconds since 1970") from error
    if not _EPOCH <= at < _LAST_YEAR:
        raise MalformedTime(f"captured-at is {text[:80]!r}: send a time after 1970 and before 9000")
    return at
