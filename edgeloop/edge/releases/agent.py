"""Follows the channel of the node's ring: fetch, check, load beside, try, switch; and fall back by itself.

The signed channel in the store is the truth and a message only a nudge. A release that fails here is refused, until
the channel says something new or, where time may heal it, for a while; a store that is away is asked again. A release
that takes the whole process with it is recognised by the next one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from edgeloop.clients.models import ModelUnavailable
from edgeloop.edge.releases.attempts import Attempts, refusal
from edgeloop.edge.releases.blobs import Blobs
from edgeloop.edge.releases.channel import Channel
from edgeloop.edge.releases.fallback import Fallbacks
from edgeloop.edge.releases.loading import Loader
from edgeloop.edge.releases.staging import FAULTS, PASSING, Staging
from edgeloop.edge.releases.state import ServiceState, StateFile
from edgeloop.edge.releases.wishes import Wish, Wishes, wishes_of
from edgeloop.edge.runtime import Loaded, Runtime
from edgeloop.edge.stats import Stats
from edgeloop.errors import EdgeloopError
from edgeloop.samples.releases import Wanted

if TYPE_CHECKING:
    from edgeloop.clients.objects import ObjectStore

_log = logging.getLogger(__name__)


class Agent:
    """The releases of one node. ``poll`` is called by one thread per service at a time, the rest by any."""

    def __init__(
        self,
        channel: Channel,
        runtime: Runtime,
        blobs: Blobs,
        state: StateFile,
        stats: Stats,
        *,
        node: str = "",
        loader: Loader | None = None,
        changed: Callable[[], None] = lambda: None,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node = node
        self._channel = channel
        self._runtime = runtime
        self._blobs = blobs
        self._state = state
        self._stats = stats
        self._loader = loader or Loader()
        self._staging = Staging(channel, blobs, self._loader, monotonic)
        self._changed = changed
        self._wall = wall
        self._lock = threading.RLock()
        self._fallbacks = Fallbacks(state)
        self._errors: dict[str, str | None] = {}
        self._attempts = Attempts(state, wall, monotonic)
        self._stopped: set[str] = set()
        self._closed = threading.Event()
        runtime.on_lost_trial = self.fall_back
        runtime.on_passed_trial = self.passed

    def status(self, service: str) -> tuple[ServiceState, str | None]:
        """What is remembered of ``service``, and the last error."""
        known = self._state.service(service)
        return known, self._errors.get(service) or (known.given_up.error if known.given_up else None)

    def serving(self, service: str) -> str | None:
        """Digest of the release that answers now."""
        loaded = self._runtime.loaded(service)
        return loaded.release if loaded else None

    def staged(self, service: str) -> str | None:
        """Digest of the release that is here, verified, and waits for this node's batch."""
        return self._staging.waiting(service)

    # --- from the disk

    def boot(self, services: list[str]) -> None:
        """Load the last good release of each service from the disk, or the one before; needs no network.

        Ends before the next service when the process is to end.
        """
        for service in services:
            with self._lock:
                if self._closed.is_set():
                    return
                self._attempts.bury(service)
            self._boot(service)

    def _boot(self, service: str) -> bool:
        known = self._state.service(service)
        # Where what was remembered is lost, what was fetched may be here still.
        names = known.good or [name for name in self._blobs.newest(service) if name not in known.bad]
        return any(self._boot_one(service, name) for name in names if not self._attempts.rests(service, name))

    def _boot_one(self, service: str, name: str) -> bool:
        with self._lock:
            if self._closed.is_set():
                return False
            known = self._state.service(service)
            on_trial = known.trying == name and not known.proven
            counts = known.trying in (None, name)  # the count of another that kills the process must stay
            if counts:
                self._attempts.begin(service, name, proven=not on_trial)
        loaded = self._load_local(service, name)
        with self._lock:
            if self._closed.is_set():
                return False
            if counts and (not on_trial or loaded is None):
                self._attempts.end(service)
            if loaded is None or service in self._stopped:  # meanwhile
                return False
            loaded.on_trial = on_trial
            self._runtime.switch(service, loaded)
            self._state.update(service, self._state.service(service).booted(name))
            return True

    def _load_local(self, service: str, name: str) -> Loaded | None:
        try:
            found = self._staging.local(name)
            return self._loader.load(*found) if found else None
        except (*FAULTS, *PASSING, ModelUnavailable, OSError) as error:
            self._errors[service] = f"release {name} on the disk: {error}"
            _log.error("a release on the disk does not load", extra={"service": service, "error": str(error)})
            return None

    # --- from the channel

    def poll(self, service: str, store: ObjectStore) -> bool:
        """Read the channel and follow it; returns whether something new serves.

        Raises:
            EdgeloopError, OSError: the store or the disk is away, or the channel cannot be believed; nothing has
                changed, call again later.
        """
        if service in self._stopped:
            return False
        try:
            if self._runtime.loaded(service) is None and self._state.service(service).serving:
                self._boot(service)  # the server that has its model may be there now
            wanted = self._channel.wanted(service)
            switched = wanted is not None and self._obey(service, wanted, wishes_of(wanted, self._node), store)
        except (EdgeloopError, OSError) as error:
            self._errors[service] = str(error)
            raise
        self._errors[service] = None
        return switched

    def _obey(self, service: str, record: Wanted, wishes: Wishes, store: ObjectStore) -> bool:
        with self._lock:
            known = self._state.service(service)
            new = known.told(record.sequence, wishes)  # before anything is done for it
            self._state.update(service, new)
            if known.next not in (None, new.next, new.wanted):
                self._blobs.sweep(self._state.state.in_use())
        if new != known:
            self._changed()
        switched = not self._is_settled(service, wishes.now) and self._follow(service, wishes.now, store)
        self._make_ready(service, wishes.later, store)
        return switched

    def _is_settled(self, service: str, wish: Wish) -> bool:
        """Whether there is nothing to do for ``wish``."""
        return self.serving(service) == wish.release or self._attempts.refuses(service, wish)

    def _follow(self, service: str, wish: Wish, store: ObjectStore) -> bool:
        try:
            loaded = self._prepare(service, wish.release, store)
        except (*FAULTS, *PASSING) as error:
            self._refuse(service, wish, error, staged=False)
            return False
        return self._switch(service, wish.release, loaded)

    def _prepare(self, service: str, name: str, store: ObjectStore) -> Loaded:
        release, layers = self._staging.take(service, name, store)
        with self._lock:
            self._attempts.begin(service, name)
        try:
            return self._loader.load(release, layers)
        except BaseException:
            with self._lock:
                self._attempts.end(service)
            raise

    def _make_ready(self, service: str, wish: Wish | None, store: ObjectStore) -> None:
        """Have on the disk, verified, what this node's batch will switch to."""
        if wish is None or self._is_settled(service, wish):
            self._staging.forget(service)
            return
        try:
            is_new = self._staging.stage(service, wish.release, store)
        except (*FAULTS, *PASSING) as error:
            self._staging.forget(service)
            self._refuse(service, wish, error, staged=True)
            return
        if is_new:
            with self._lock:
                self._state.change(service, declined=None)
            _log.info("staged", extra={"service": service, "release": wish.release})
            self._changed()

    def _refuse(self, service: str, wish: Wish, error: Exception, *, staged: bool) -> None:
        with self._lock:
            self._attempts.refuse(service, wish, error, passing=isinstance(error, PASSING), staged=staged)
            self._blobs.sweep(self._state.state.in_use())
        self._changed()

    def _switch(self, service: str, name: str, loaded: Loaded) -> bool:
        loaded.on_trial = True
        with self._lock:
            if service in self._stopped:  # meanwhile
                self._attempts.end(service)
                return False
            before = self._runtime.switch(service, loaded)
            self._stats.new_release(service)
            previous = self._fallbacks.switched(service, name, before)
            self._state.update(service, self._state.service(service).switched(name, previous))
            self._staging.forget(service)
            self._blobs.sweep(self._state.state.in_use())
        _log.info("switched", extra={"service": service, "release": name, "previous": previous})
        self._changed()
        return True

    def fall_back(self, service: str, release: str) -> None:
        """Serve the release before again, because ``release`` fails on its inputs.

        On trial it is still in memory. Later it has to be loaded, which is not for the thread of a request.
        """
        with self._lock:
            before = self._fallbacks.take(service)
            if before is not None:
                self._serve_again(service, release, before)
                return
            name = self._state.service(service).previous
        if name is not None and name != release:
            work = (service, release, name)
            threading.Thread(target=self._fall_back_to_the_disk, args=work, daemon=True).start()

    def _fall_back_to_the_disk(self, service: str, release: str, name: str) -> None:
        before = self._load_local(service, name)
        if before is not None:
            with self._lock:
                self._serve_again(service, release, before)

    def _serve_again(self, service: str, release: str, before: Loaded) -> None:
        if self.serving(service) != release:
            return
        self._runtime.switch(service, before)
        self._stats.new_release(service)
        why = f"release {release} failed on most of its inputs: roll out another"
        refused = refusal(self._state.service(service), release, why)
        self._state.change(service, serving=before.release, previous=None, refused=refused, trying=None, tries=0)
        _log.error("fell back", extra={"service": service, "release": before.release, "refused": release})
        self._changed()

    def passed(self, service: str, release: str) -> None:
        """Write down that ``release`` has passed its trial, and free the memory of the one before."""
        with self._lock:
            if self.serving(service) == release:
                self._fallbacks.take(service)
            if self._attempts.is_trying(service, release):
                self._attempts.end(service)

    def look(self) -> None:
        """A release on trial that this process has lived with for long does not kill it."""
        with self._lock:
            for service in self._state.state.services:
                self._attempts.look(service)

    def close(self) -> None:
        """The process ends in good order, and loads nothing more from the disk."""
        with self._lock:
            self._closed.set()
            self._attempts.close()

    def unload(self, service: str) -> bool:
        """Serve nothing for ``service`` until :meth:`load`, also when the channel changes; whether it served."""
        with self._lock:
            self._stopped.add(service)
            self._fallbacks.take(service)
            unloaded = self._runtime.unload(service)
        self._changed()
        return unloaded is not None

    def load(self, service: str) -> bool:
        """Serve the last good release again and follow the channel; whether one serves now."""
        self._stopped.discard(service)
        serves = self._runtime.loaded(service) is not None or self._boot(service)
        self._changed()
        return serves
