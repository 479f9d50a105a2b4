"""Follows the channel of the node's ring: fetch, check, load beside, try, switch; and fall back by itself.

The channel in the store is the truth and a message only a nudge. A release that fails here is refused until
the channel says something new; a store that is away is asked again.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from pydantic import ValidationError

from edgeloop.clients.models import FailedProbe, UnloadableModel, load_model, run_probe
from edgeloop.clients.objects import ObjectMissing
from edgeloop.edge.blobs import Blobs, CorruptBlob
from edgeloop.edge.runtime import Loaded, Runtime
from edgeloop.edge.state import Refused, ServiceState, StateFile
from edgeloop.edge.stats import Stats
from edgeloop.errors import EdgeloopError
from edgeloop.samples.releases import MalformedRelease, Release, Wanted, parse_wanted, wanted_key
from edgeloop.samples.service import NodeConfig

if TYPE_CHECKING:
    from edgeloop.clients.objects import ObjectStore

_log = logging.getLogger(__name__)


class ForeignRelease(EdgeloopError):
    """The channel names a release of another service."""


#: The release is at fault: trying again changes nothing.
_FAULTS = (CorruptBlob, MalformedRelease, UnloadableModel, FailedProbe, ForeignRelease)


class Agent:
    """The releases of one node. ``poll`` is called by one thread at a time, ``fall_back`` by any."""

    def __init__(
        self,
        ring: int,
        runtime: Runtime,
        blobs: Blobs,
        state: StateFile,
        stats: Stats,
        *,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._ring = ring
        self._runtime = runtime
        self._blobs = blobs
        self._state = state
        self._stats = stats
        self._changed = changed
        self._lock = threading.RLock()
        self._previous: dict[str, Loaded] = {}
        self._errors: dict[str, str | None] = {}
        runtime.on_lost_trial = self.fall_back

    def status(self, service: str) -> tuple[ServiceState, str | None]:
        """What is remembered of ``service``, and the last error."""
        return self._state.service(service), self._errors.get(service)

    def serving(self, service: str) -> str | None:
        """Digest of the release that answers now."""
        loaded = self._runtime.loaded(service)
        return loaded.release if loaded else None

    def boot(self, services: list[str]) -> None:
        """Load the last good release of each service from the disk, or the one before; needs no network."""
        for service in services:
            known = self._state.service(service)
            for name in filter(None, (known.serving, known.previous)):
                loaded = self._load_local(service, name)
                if loaded is not None:
                    self._runtime.switch(service, loaded)
                    break

    def _load_local(self, service: str, name: str) -> Loaded | None:
        try:
            release = self._blobs.manifest(name)
            if release is None:
                return None
            layers = {layer.role: self._blobs.read(layer.digest) for layer in release.layers}
            return _load(release, {role: data for role, data in layers.items() if data is not None})
        except (*_FAULTS, OSError) as error:
            self._errors[service] = f"release {name} on the disk: {error}"
            _log.error("a release on the disk does not load", extra={"service": service, "error": str(error)})
            return None

    def poll(self, service: str, store: ObjectStore) -> bool:
        """Read the channel and follow it; returns whether something new serves.

        Raises:
            EdgeloopError, OSError: the store or the disk is away; nothing has changed, call again later.
        """
        try:
            wanted = self._read_channel(service, store)
            if wanted is None or self._is_settled(service, wanted):
                return False
            return self._follow(service, wanted, store)
        except (EdgeloopError, OSError) as error:
            self._errors[service] = str(error)
            raise

    def _read_channel(self, service: str, store: ObjectStore) -> Wanted | None:
        key = wanted_key(service, self._ring)
        try:
            wanted = parse_wanted(store.get(key), key)
        except ObjectMissing:
            return None
        if (wanted.service, wanted.ring) != (service, self._ring):
            raise MalformedRelease(f"channel record {key} is of {wanted.service}, ring {wanted.ring}: publish it again")
        return wanted

    def _is_settled(self, service: str, wanted: Wanted) -> bool:
        """Whether there is nothing to do for ``wanted``; writes down what is new in it."""
        with self._lock:
            known = self._state.service(service)
            if wanted.sequence < known.sequence:
                back = f"the channel went back from {known.sequence} to {wanted.sequence}"
                self._errors[service] = f"{back}: publish it with a higher sequence"
                return True
            if (wanted.release, wanted.sequence) != (known.wanted, known.sequence):
                self._state.update(
                    service, known.model_copy(update={"wanted": wanted.release, "sequence": wanted.sequence})
                )
                self._changed()
            serving = self._runtime.loaded(service)
            refused = known.refused
            is_refused = refused and (refused.release, refused.sequence) == (wanted.release, wanted.sequence)
            return bool(is_refused) or (serving is not None and serving.release == wanted.release)

    def _follow(self, service: str, wanted: Wanted, store: ObjectStore) -> bool:
        try:
            loaded = self._prepare(service, wanted.release, store)
        except _FAULTS as error:
            self._refuse(service, wanted, error)
            return False
        self._switch(service, wanted, loaded)
        return True

    def _prepare(self, service: str, name: str, store: ObjectStore) -> Loaded:
        release = self._blobs.fetch_manifest(store, service, name)
        if release.service != service:
            raise ForeignRelease(f"release {name} is of {release.service}, not of {service}: publish another")
        layers = {la.role: self._blobs.fetch(store, la.digest, la.size) for la in release.layers}
        loaded = _load(release, {str(role): data for role, data in layers.items()})
        if "probe" in layers:
            _probe(loaded, layers["probe"])
        return loaded

    def _refuse(self, service: str, wanted: Wanted, error: Exception) -> None:
        _log.error("a release is refused", extra={"service": service, "release": wanted.release, "error": str(error)})
        with self._lock:
            self._errors[service] = str(error)
            refused = Refused(release=wanted.release, sequence=wanted.sequence, error=str(error))
            self._state.update(service, self._state.service(service).model_copy(update={"refused": refused}))
            self._sweep()
        self._changed()

    def _switch(self, service: str, wanted: Wanted, loaded: Loaded) -> None:
        loaded.on_trial = True
        with self._lock:
            before = self._runtime.switch(service, loaded)
            if before is not None:
                self._previous[service] = before
            self._stats.new_release(service)
            known = self._state.service(service)
            previous = before.release if before else known.previous
            self._errors[service] = None
            change = {"serving": wanted.release, "previous": previous, "refused": None}
            self._state.update(service, known.model_copy(update=change))
            self._sweep()
        _log.info("switched", extra={"service": service, "release": wanted.release, "previous": previous})
        self._changed()

    def fall_back(self, service: str, release: str) -> None:
        """Serve the previous release again, because ``release`` fails on its inputs."""
        with self._lock:
            serving, before = self._runtime.loaded(service), self._previous.pop(service, None)
            if serving is None or serving.release != release or before is None:
                return
            self._runtime.switch(service, before)
            self._stats.new_release(service)
            known = self._state.service(service)
            why = f"release {release} failed on most of its first inputs"
            refused = Refused(release=release, sequence=known.sequence, error=why)
            self._errors[service] = why
            change = {"serving": before.release, "previous": None, "refused": refused}
            self._state.update(service, known.model_copy(update=change))
        _log.error("fell back", extra={"service": service, "release": before.release, "refused": release})
        self._changed()

    def forget_previous(self) -> None:
        """Free the memory of releases whose successor has passed its trial."""
        with self._lock:
            for service in list(self._previous):
                serving = self._runtime.loaded(service)
                if serving is not None and not serving.on_trial:
                    del self._previous[service]

    def _sweep(self) -> None:
        states = self._state.state.services.values()
        self._blobs.sweep({name for s in states for name in (s.serving, s.previous) if name})


def _load(release: Release, layers: dict[str, bytes]) -> Loaded:
    """Build the model of ``release``; raises UnloadableModel."""
    try:
        config = NodeConfig.model_validate(json.loads(layers["config"]))
    except KeyError as error:
        raise UnloadableModel(f"release {release.digest} has no whole layer {error}: release it again") from error
    except (ValueError, ValidationError) as error:
        raise UnloadableModel(
            f"config of {release.digest} does not parse ({str(error)[:200]}): release it again"
        ) from error
    backbone = release.layer("backbone")
    try:
        model = load_model(config, layers, backbone.digest if backbone else None)
    except UnloadableModel:
        raise
    except Exception as error:
        raise UnloadableModel(
            f"release {release.digest} does not load ({str(error)[:200]}): release it again"
        ) from error
    return Loaded(release.digest, release.version, config, model)


def _probe(loaded: Loaded, probe: bytes) -> None:
    try:
        run_probe(loaded.model, probe, loaded.config.kind != "tabular-regressor")
    except FailedProbe:
        raise
    except Exception as error:
        raise FailedProbe(
            f"the probe of {loaded.release} does not run ({str(error)[:200]}): release it again"
        ) from error
