"""What pages get and give, and the errors that callers see: one shape, ``{"error": …}``, for every way to go wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, ClassVar

from edgeloop.edge.results import LONGEST_DEVICE, LONGEST_ERROR, MalformedTime, parse_time
from edgeloop.errors import EdgeloopError

Headers = list[tuple[bytes, bytes]]
JSON = b"application/json"
MAX_VALUES = 1_000_000
_FEW = 1024 * 1024


class Refused(EdgeloopError):
    """A request that gets an error instead of a result; ``status`` is HTTP's word for it."""

    status: ClassVar[int] = 400
    headers: tuple[tuple[bytes, bytes], ...] = ()
    reason: ClassVar[str] = "malformed"
    """Under which it is counted."""


class MalformedRequest(Refused):
    """The request does not say what this protocol asks for."""


class Unauthenticated(Refused):
    """Nobody this node knows."""

    status = 401
    headers = ((b"www-authenticate", b"Bearer"),)
    reason = "unauthenticated"


class Forbidden(Refused):
    """Known, but not allowed to do this."""

    status = 403
    reason = "forbidden"


class NotHere(Refused):
    """No such page, service, version or sample."""

    status = 404
    reason = "not_found"


class WrongMethod(Refused):
    """The page exists and does not take this method."""

    status = 405
    reason = "wrong_method"

    def __init__(self, error: str, allowed: str) -> None:
        super().__init__(error)
        self.headers = ((b"allow", allowed.encode()),)


class TooSlow(Refused):
    """The body did not come in time."""

    status = 408
    reason = "too_slow"


class TooLarge(Refused):
    """More bytes or instances than a request may have."""

    status = 413
    reason = "too_large"


class UnknownEncoding(Refused):
    """The body is compressed in a way that is not taken."""

    status = 415
    reason = "unknown_encoding"


class Busy(Refused):
    """As much is in work as this node allows."""

    status = 429
    headers = ((b"retry-after", b"1"),)
    reason = "busy"


class Failed(Refused):
    """The model or the node failed on a request that should be fine."""

    status = 500
    reason = "failed"


class NotReady(Refused):
    """The service is known, and cannot answer now."""

    status = 503
    reason = "not_ready"


def _unbounded(_count: int) -> None:
    """Hold as much as may be."""


@dataclass(frozen=True)
class Request:
    """One request, its body whole."""

    service: str = ""
    version: str | None = None
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    hold: Callable[[int], None] = _unbounded
    """Counts so many more bytes as held until the reply; raises Busy when all requests hold too many."""

    @cached_property
    def device(self) -> str:
        """Who sensed the inputs; raises MalformedRequest unless it could be a level of a topic."""
        name = self.headers.get(b"x-device", b"").decode("utf-8", "replace") or "http"
        if len(name) > LONGEST_DEVICE or not name.isprintable() or set(name) & set("/+#"):
            raise MalformedRequest(
                f"X-Device is {name[:40]!r}: send at most {LONGEST_DEVICE} printable characters without / + #"
            )
        return name

    @cached_property
    def captured_at(self) -> datetime | None:
        """When they were sensed, if the caller says so; raises MalformedRequest on what is no time."""
        try:
            return parse_time(self.headers.get(b"x-captured-at", b"").decode("latin-1"))
        except MalformedTime as error:
            raise MalformedRequest(f"X-Captured-At: {error}") from error


@dataclass(frozen=True)
class Reply:
    """What goes back."""

    body: bytes
    status: int = 200
    kind: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def head(self) -> Headers:
        """All its headers."""
        length = str(len(self.body)).encode()
        return [(b"content-type", self.kind), (b"content-length", length), *self.headers]


def as_json(value: Any, status: int = 200) -> Reply:
    """A reply in JSON."""
    return Reply(encode(value), status)


def encode(value: Any) -> bytes:
    """Compact JSON; NaN and infinity are a ValueError, because JSON has none."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def as_error(refused: Refused) -> Reply:
    """The error object of both protocols: one line that any terminal may show, however odd what it quotes."""
    text = " ".join(str(refused).split())[:LONGEST_ERROR]
    if not text.isprintable():
        text = "".join(c if c.isprintable() else "?" for c in text)
    return Reply(encode({"error": text}), refused.status, headers=refused.headers)


def parse_object(data: bytes | memoryview, what: str = "the body") -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        MalformedRequest: not UTF-8, not JSON, nested too deep, or no object.
        TooLarge: over a million values, which as Python objects would take many times the bytes of the body.
    """
    text = bytes(data)
    if len(text) > _FEW and sum(map(text.count, b",[{")) > MAX_VALUES:
        raise TooLarge(f"{what} has more than {MAX_VALUES} JSON values: send fewer, or send them as binary data")
    try:
        value = json.loads(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise MalformedRequest(f"{what} is not UTF-8 (byte {error.start}): send JSON in UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise MalformedRequest(
            f"{what} of {len(data)} bytes is not JSON ({error!s:.100}): send a JSON object"
        ) from error
    if not isinstance(value, dict):
        raise MalformedRequest(f"{what} is a JSON {type(value).__name__}: send an object")
    return value


def short(value: object) -> str:
    """``value`` as it may stand in a message, however large it is."""
    if isinstance(value, list | dict):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**30 else "a huge integer"
    return text if len(text) <= 80 else text[:77] + "..."
