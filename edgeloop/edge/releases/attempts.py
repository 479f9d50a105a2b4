"""Remembers over a crash which release was being tried, so that one that kills the process does not do so for ever."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from edgeloop.edge.releases.state import Refused, ServiceState, StateFile
from edgeloop.edge.releases.wishes import Wish

_log = logging.getLogger(__name__)
#: A release is refused after so many processes in a row that did not live to see it proven.
CRASHES = 3
#: A release that may be mended without a word in the channel, or is all there is, is tried again after so long.
PAUSE_SECONDS = 900.0
#: A process that has lived so long with a release on trial does not die of it at once: the count begins anew.
SURVIVED_SECONDS = 300.0


class Attempts:
    """What state.json says of the release that is being loaded or on trial. Not locked: the agent's lock is held."""

    def __init__(
        self,
        state: StateFile,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state = state
        self._wall = wall
        self._monotonic = monotonic
        self._since: dict[str, float] = {}
        self._resting: dict[tuple[str, str], float] = {}

    def begin(self, service: str, name: str, *, proven: bool = False) -> None:
        """Write down that ``name`` is tried now, before it can do harm; ``proven`` it is only loaded again."""
        known = self._state.service(service)
        tries = known.tries + 1 if known.trying == name else 1
        self._since[service] = self._monotonic()
        self._change(service, known, trying=name, tries=tries, proven=proven)

    def is_trying(self, service: str, name: str) -> bool:
        """Whether ``name`` is not proven yet."""
        return self._state.service(service).trying == name

    def end(self, service: str) -> None:
        """It is proven, or given up."""
        self._change(service, self._state.service(service), trying=None, tries=0)

    def look(self, service: str) -> None:
        """Begin the count anew when this process has lived long enough."""
        known = self._state.service(service)
        now = self._monotonic()
        if known.tries and now - self._since.get(service, now) > SURVIVED_SECONDS:
            self._change(service, known, tries=0)

    def bury(self, service: str) -> None:
        """At a start: refuse the release that the processes before this one died of.

        A proven one may have been killed for no fault of its own: it rests for a while, and is not given up.
        """
        known = self._state.service(service)
        if known.trying is None or known.tries < CRASHES:
            return
        why = f"the process died {known.tries} times while release {known.trying} was loaded or on trial"
        _log.error("a release is refused", extra={"service": service, "release": known.trying, "error": why})
        # With nothing to fall back on it gets other chances, rarely enough to leave the other services in peace.
        alone = known.previous is None if known.serving == known.trying else known.serving is None
        until = self._wall() + PAUSE_SECONDS if alone or known.proven else None
        refused = refusal(known, known.trying, f"{why}: roll out another", until)
        change: dict[str, object] = {"refused": refused, "trying": None, "tries": 0}
        if known.proven:
            self._resting[service, known.trying] = self._monotonic()
        elif known.serving == known.trying:
            change |= {"serving": known.previous, "previous": None}
        self._change(service, known, **change)

    def rests(self, service: str, name: str) -> bool:
        """Whether ``name``, though proven, is not to be loaded yet."""
        since = self._resting.get((service, name))
        return since is not None and self._monotonic() - since <= PAUSE_SECONDS

    def refuse(self, service: str, wish: Wish, error: Exception, *, passing: bool, staged: bool) -> None:
        """Give ``wish`` up; ``passing``: for a while. ``staged``: it was only to be had ready."""
        _log.error("a release is refused", extra={"service": service, "release": wish.release, "error": str(error)})
        known = self._state.service(service)
        refused = refusal(known, wish.release, str(error), self._wall() + PAUSE_SECONDS if passing else None)
        self._change(service, known, **{"declined" if staged else "refused": refused})

    def refuses(self, service: str, wish: Wish) -> bool:
        """Whether ``wish`` was given up, and may not be tried again yet."""
        known = self._state.service(service)
        return any(self._bars(refused, wish) for refused in (known.refused, known.declined) if refused)

    def _bars(self, refused: Refused, wish: Wish) -> bool:
        """What was refused for another wish is forgotten already, see ``ServiceState.told``."""
        rests = refused.until is None or 0 < refused.until - self._wall() <= PAUSE_SECONDS
        return refused.release == wish.release and rests

    def close(self) -> None:
        """The process ends in good order: nothing it loaded is to blame."""
        for service, known in list(self._state.state.services.items()):
            self._change(service, known, tries=0)

    def _change(self, service: str, known: ServiceState, **change: object) -> None:
        self._state.update(service, known.model_copy(update=change))


def refusal(known: ServiceState, release: str, error: str, until: float | None = None) -> Refused:
    """``release`` is given up, for as long as it is wanted by the wish that is ``known``."""
    wish = known.wishes.get(release)
    return Refused(release=release, sequence=known.sequence, error=error, until=until, wish=wish)
