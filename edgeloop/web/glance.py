"""The newest look at the fleet: taken aside, kept for a moment, so that no slow part keeps a person waiting."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from edgeloop.errors import EdgeloopError

_log = logging.getLogger(__name__)
Look = Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class Seen:
    """What there is to show."""

    found: dict[str, Any] | None
    """The newest overview; None while the first is still being taken."""
    at: datetime | None = None
    """When it was taken (UTC)."""
    late: str | None = None
    """Why there is no newer one; None when there need not be."""


class Glance:
    """Calls ``look`` in a thread when the last look is older than ``keep`` seconds, never twice at a time.

    Args:
        keep: seconds for which a look is shown again.
        patience: seconds that a caller waits for a new look before it gets the last one.
    """

    def __init__(self, look: Look, keep: float = 2.0, patience: float = 4.0) -> None:
        self._look = look
        self._keep = keep
        self._patience = patience
        self._lock = threading.Lock()
        self._under_way: threading.Event | None = None
        self._last = Seen(None)
        self._fresh_until = 0.0

    def __call__(self) -> Seen:
        """The newest look; waits at most ``patience`` seconds."""
        with self._lock:
            if time.monotonic() < self._fresh_until:
                return self._last
            ended = self._under_way or self._begin()
        in_time = ended.wait(self._patience)
        with self._lock:
            last = self._last
        return last if in_time else Seen(last.found, last.at, f"no answer in {self._patience:g} s, still asking")

    def _begin(self) -> threading.Event:
        ended = self._under_way = threading.Event()
        # A daemon: the page may end while a part keeps it waiting.
        threading.Thread(target=self._take, args=(ended,), name="look", daemon=True).start()
        return ended

    def _take(self, ended: threading.Event) -> None:
        began = datetime.now(UTC)
        try:
            seen = Seen(self._look(), began)
        except EdgeloopError as error:
            seen = Seen(self._last.found, self._last.at, str(error))
        except Exception as error:
            # The page is for bad days: it says so and goes on.
            _log.exception("the look at the fleet failed")
            seen = Seen(self._last.found, self._last.at, f"{type(error).__name__}: {error}: see the log of the page")
        with self._lock:
            self._last = seen
            self._fresh_until = time.monotonic() + self._keep
            self._under_way = None
        ended.set()
