"""The model registry: MLflow remembers every candidate, and the alias ``champion`` says which one the fleet may run.

Asking for the champion is one REST call, because a reconciler does it every few seconds; the MLflow library is
imported only to log a model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel

from edgeloop.errors import EdgeloopError, MissingExtra, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

CHAMPION = "champion"
CANDIDATE = "candidate"
_TAG = "edgeloop."


class RegistryUnavailable(Unavailable):
    """The MLflow server does not answer."""


class ForeignVersion(EdgeloopError):
    """A model version was not registered by edgeloop and lacks what a release needs."""


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


class ModelRegistry(Protocol):
    """What edgeloop asks of a model registry."""

    def check(self) -> None:
        """Raise RegistryUnavailable unless the registry answers."""

    def champion(self, service: str) -> ModelVersion | None:
        """The version that the alias ``champion`` names."""

    def find(self, service: str, key: str) -> ModelVersion | None:
        """The version registered for a candidate."""

    def register(self, entry: Entry, model: LoggedModel, files: Path) -> ModelVersion:
        """Log a run with its model and ``files`` as artifacts, and register the version. Not idempotent: find first."""

    def set_champion(self, service: str, version: str) -> None:
        """Move the alias ``champion``."""


class LoggedModel(Protocol):
    """How a model is written to the run that is open."""

    def log(self, name: str, registered: str) -> str:
        """Log it under ``name``, register it, and return the version."""


def _parse(service: str, value: Mapping[str, Any]) -> ModelVersion:
    tags = {t["key"]: t["value"] for t in value.get("tags", [])}
    try:
        return ModelVersion(
            service=service,
            version=str(value["version"]),
            run_id=str(value.get("run_id", "")),
            key=tags[f"{_TAG}key"],
            dataset=tags[f"{_TAG}dataset"],
            layers=json.loads(tags[f"{_TAG}layers"]),
        )
    except (KeyError, ValueError) as error:
        raise ForeignVersion(
            f"version {value.get('version')} of {service} has no tag {error}: promote one that edgeloop registered"
        ) from error


class MlflowRegistry:
    """The adapter over an MLflow tracking server with a registry."""

    def __init__(self, url: str, timeout: float = 10.0) -> None:
        self.url = url.rstrip("/")
        self._timeout = timeout

    def check(self) -> None:
        """Raise RegistryUnavailable unless the server answers its health check."""
        reply = self._get("/health")
        if reply.status_code != 200:
            raise RegistryUnavailable(f"MLflow at {self.url} answered {reply.status_code} to its health check")

    def _get(self, path: str, **params: str) -> Any:
        import httpx

        try:
            return httpx.get(f"{self.url}{path}", params=params, timeout=self._timeout)
        except httpx.HTTPError as error:
            raise RegistryUnavailable(
                f"MLflow at {self.url} does not answer ({error}): is  edgeloop up  running?"
            ) from error

    def champion(self, service: str) -> ModelVersion | None:
        """The version that the alias names; None when there is no model or no alias."""
        reply = self._get("/api/2.0/mlflow/registered-models/alias", name=service, alias=CHAMPION)
        if reply.status_code in {400, 404}:
            return None
        if reply.status_code != 200:
            raise RegistryUnavailable(f"MLflow at {self.url} answered {reply.status_code}: {reply.text[:200]}")
        return _parse(service, reply.json()["model_version"])

    def find(self, service: str, key: str) -> ModelVersion | None:
        """The version whose tag names this candidate."""
        query = f"name='{service}' and tags.`{_TAG}key`='{key}'"
        reply = self._get("/api/2.0/mlflow/model-versions/search", filter=query, max_results="10")
        if reply.status_code != 200:
            raise RegistryUnavailable(f"MLflow at {self.url} answered {reply.status_code}: {reply.text[:200]}")
        found = reply.json().get("model_versions", [])
        return _parse(service, found[0]) if found else None

    def register(self, entry: Entry, model: LoggedModel, files: Path) -> ModelVersion:
        """Log parameters, metrics, plots and the model in one run, and register the version with its tags."""
        with self._library() as mlflow:
            mlflow.set_experiment(entry.service)
            with mlflow.start_run(run_name=entry.description, tags=entry.tags) as run:
                mlflow.log_params(entry.params)
                mlflow.log_metrics(entry.metrics)
                mlflow.log_artifacts(str(files), "evaluation")
                version = model.log("model", entry.service)
                client = mlflow.MlflowClient()
                for name, value in self._tags(entry).items():
                    client.set_model_version_tag(entry.service, version, _TAG + name, value)
                client.set_registered_model_alias(entry.service, CANDIDATE, version)
                run_id = str(run.info.run_id)
        return ModelVersion(
            service=entry.service,
            version=version,
            run_id=run_id,
            key=entry.key,
            dataset=entry.dataset,
            layers=entry.layers,
        )

    @staticmethod
    def _tags(entry: Entry) -> dict[str, str]:
        """The key comes last: a version without it was cut off and is registered again."""
        return {"dataset": entry.dataset, "layers": json.dumps(entry.layers), "key": entry.key}

    def set_champion(self, service: str, version: str) -> None:
        """Move the alias ``champion`` to ``version``."""
        with self._library() as mlflow:
            mlflow.MlflowClient().set_registered_model_alias(service, CHAMPION, version)

    @contextmanager
    def _library(self) -> Iterator[Any]:
        import os

        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
        try:
            import mlflow
        except ImportError as error:
            raise MissingExtra("mlflow", "cloud") from error
        import logging

        logging.getLogger("mlflow").setLevel(logging.ERROR)
        mlflow.set_tracking_uri(self.url)
        mlflow.set_registry_uri(self.url)
        try:
            yield mlflow
        except mlflow.exceptions.MlflowException as error:
            raise RegistryUnavailable(
                f"MLflow at {self.url}: {' '.join(str(error).split())[:300]}: run again"
            ) from error


class MemoryRegistry:
    """The fake: versions in a dictionary, for tests of what stands on a registry."""

    def __init__(self) -> None:
        self.versions: list[ModelVersion] = []
        self.entries: dict[str, Entry] = {}
        self._champion: dict[str, str] = {}

    def check(self) -> None:
        """Always there."""

    def champion(self, service: str) -> ModelVersion | None:
        """The version that was set."""
        version = self._champion.get(service)
        return next((v for v in self.versions if (v.service, v.version) == (service, version)), None)

    def find(self, service: str, key: str) -> ModelVersion | None:
        """The version registered under ``key``."""
        return next((v for v in self.versions if (v.service, v.key) == (service, key)), None)

    def register(self, entry: Entry, model: LoggedModel, files: Path) -> ModelVersion:
        """Keep the entry as the next version."""
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
        self._champion[service] = version
