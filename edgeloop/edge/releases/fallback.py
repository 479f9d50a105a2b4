"""What a service goes back to when its release fails: the one that was proven last, in memory while that is at hand."""

from __future__ import annotations

from edgeloop.edge.releases.state import StateFile
from edgeloop.edge.runtime import Loaded


class Fallbacks:
    """The release behind the serving one, by service. Not locked: the agent's lock is held."""

    def __init__(self, state: StateFile) -> None:
        self._state = state
        self._loaded: dict[str, Loaded] = {}

    def switched(self, service: str, release: str, before: Loaded | None) -> str | None:
        """``release`` serves instead of ``before``: digest of what to go back to.

        That is ``before``, unless it is on trial itself and a proven one stands behind it.
        """
        behind, loaded = self._state.service(service).previous, self._loaded.get(service)
        proven = behind not in (None, release) and not (loaded and loaded.on_trial)
        if before is None or (before.on_trial and proven):
            return behind
        self._loaded[service] = before
        return before.release

    def take(self, service: str) -> Loaded | None:
        """What is in memory, which it is no longer afterwards."""
        return self._loaded.pop(service, None)
