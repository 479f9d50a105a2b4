"""What edgeloop asks of a model registry, in its own words: versions, what is logged, and the alias."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel

from edgeloop.errors import BadInput, EdgeloopError, Unavailable

CHAMPION = "champion"
CANDIDATE = "candidate"
TAG = "edgeloop."


class RegistryUnavailable(Unavailable):
    """The MLflow server does not answer, or what answers is none."""


class ForeignVersion(EdgeloopError):
    """A model version was not registered by edgeloop and lacks what a release needs."""


class UnknownVersion(BadInput):
    """There is no such version of a service's model."""

    def __init__(self, service: str, version: str) -> None:
        super().__init__(f"{service} has no version {version}: see its versions in MLflow under Models")


class ModelVersion(BaseModel):
    """One registered version of a service's model."""

    service: str
    version: str
    run_id: str
    key: str
    """Name of the candidate that it is."""
    dataset: str
    layers: dict[str, str]
    """Blob digest by role."""


class Alias(BaseModel):
    """What the registry answered when it was asked for the champion; a registry that is away answers nothing."""

    version: ModelVersion | None
    """None: the registry itself says that there is no such alias."""


class Entry(BaseModel):
    """What is logged when a candidate is registered."""

    service: str
    key: str
    dataset: str
    layers: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str] = {}
    description: str


class LoggedModel(Protocol):
    """How a model is written to the run that is open."""

    def log(self, name: str, registered: str) -> str:
        """Log it under ``name``, register it, and return the version."""


class ModelRegistry(Protocol):
    """What edgeloop asks of a model registry. Every method raises RegistryUnavailable when it does not answer."""

    def check(self) -> None:
        """Return if the registry answers."""

    def alias(self, service: str) -> Alias:
        """What the alias ``champion`` names now, or that there is none.

        Raises:
            RegistryUnavailable: nobody could say; this must not be read as a deleted alias.
            ForeignVersion: it names a version that edgeloop did not register.
        """

    def champion(self, service: str) -> ModelVersion | None:
        """The version that the alias ``champion`` names."""

    def version(self, service: str, number: str) -> ModelVersion:
        """The version of this number.

        Raises:
            UnknownVersion: there is none.
            ForeignVersion: edgeloop did not register it.
        """

    def find(self, service: str, key: str) -> ModelVersion | None:
        """The version registered for a candidate."""

    def register(self, entry: Entry, model: LoggedModel, files: Path) -> ModelVersion:
        """Log a run with its model and ``files`` as artifacts, and register the version. Not idempotent: find first."""

    def set_champion(self, service: str, version: str) -> None:
        """Move the alias ``champion``."""

    def clear_champion(self, service: str) -> None:
        """Delete the alias ``champion``; nothing when there is none."""

    def stamp(self, service: str, version: str, tags: Mapping[str, str]) -> None:
        """Set tags ``edgeloop.<name>`` on a version, for people who look at it."""


def parse_version(service: str, value: Mapping[str, Any]) -> ModelVersion:
    """A version out of MLflow's answer; raises ForeignVersion."""
    tags = {t["key"]: t["value"] for t in value.get("tags", [])}
    try:
        return ModelVersion(
            service=service,
            version=str(value["version"]),
            run_id=str(value.get("run_id", "")),
            key=tags[f"{TAG}key"],
            dataset=tags[f"{TAG}dataset"],
            layers=json.loads(tags[f"{TAG}layers"]),
        )
    except (KeyError, ValueError) as error:
        raise ForeignVersion(
            f"version {value.get('version')} of {service} has no tag {error}: promote one that edgeloop registered"
        ) from error
