"""A champion made a release in one step, as a promotion does it in two."""

from __future__ import annotations

from collections.abc import Sequence

from edgeloop.clients.objects import ObjectStore
from edgeloop.clients.registry import ModelRegistry
from edgeloop.release.build import find_release, make_release
from edgeloop.samples.profiles import Profile
from edgeloop.samples.service import Service
from edgeloop.samples.table import Tables
from edgeloop.store import FleetStore


def release_champion(
    store: ObjectStore,
    tables: Tables,
    registry: ModelRegistry,
    fleet: FleetStore,
    service: Service,
    profiles: Sequence[Profile] = (),
) -> tuple[str, str] | None:
    """Version and release digest of the champion, None without one."""
    version = registry.champion(service.name)
    if version is None:
        return None
    known = find_release(store, fleet, service, version, profiles)
    return version.version, known or make_release(store, tables, fleet, service, version, profiles).digest
