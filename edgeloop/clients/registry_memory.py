"""The fake registry: versions in a dictionary, for tests of what stands on a registry."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgeloop.clients.registry_types import (
    Alias,
    Entry,
    LoggedModel,
    ModelVersion,
    RegistryUnavailable,
    UnknownVersion,
)


class MemoryRegistry:
    """Keeps what it is told. ``away`` makes it a registry that does not answer."""

    def __init__(self) -> None:
        self.versions: list[ModelVersion] = []
        self.entries: dict[str, Entry] = {}
        self.stamps: dict[tuple[str, str], dict[str, str]] = {}
        self.away = False
        self._champion: dict[str, str] = {}

    def check(self) -> None:
        """Return unless it is away."""
        if self.away:
            raise RegistryUnavailable("the registry is away: run again")

    def alias(self, service: str) -> Alias:
        """The version that was set."""
        self.check()
        number = self._champion.get(service)
        return Alias(version=None if number is None else self.version(service, number))

    def champion(self, service: str) -> ModelVersion | None:
        """The version that was set."""
        return self.alias(service).version

    def version(self, service: str, number: str) -> ModelVersion:
        """The version of this number."""
        self.check()
        for known in self.versions:
            if (known.service, known.version) == (service, number):
                return known
        raise UnknownVersion(service, number)

    def find(self, service: str, key: str) -> ModelVersion | None:
        """The version registered under ``key``."""
        self.check()
        return next((v for v in self.versions if (v.service, v.key) == (service, key)), None)

    def register(self, entry: Entry, model: LoggedModel, files: Path) -> ModelVersion:
        """Keep the entry as the next version."""
        self.check()
        number = str(1 + sum(v.service == entry.service for v in self.versions))
        made = ModelVersion(
            service=entry.service,
            version=number,
            run_id=f"run-{number}",
            key=entry.key,
            dataset=entry.dataset,
            layers=entry.layers,
        )
        self.versions.append(made)
        self.entries[number] = entry
        return made

    def set_champion(self, service: str, version: str) -> None:
        """Move the alias."""
        self.check()
        self._champion[service] = self.version(service, version).version

    def clear_champion(self, service: str) -> None:
        """Forget the alias."""
        self.check()
        self._champion.pop(service, None)

    def stamp(self, service: str, version: str, tags: Mapping[str, str]) -> None:
        """Keep the tags."""
        number = self.version(service, version).version
        self.stamps.setdefault((service, number), {}).update(tags)
