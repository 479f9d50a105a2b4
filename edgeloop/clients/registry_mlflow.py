"""The registry that is an MLflow server, over its REST API: importing MLflow takes seconds and is kept for logging."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeloop.clients.registry_types import (
    CANDIDATE,
    CHAMPION,
    TAG,
    Alias,
    Entry,
    LoggedModel,
    ModelVersion,
    RegistryUnavailable,
    UnknownVersion,
    parse_version,
)
from edgeloop.errors import MissingExtra

if TYPE_CHECKING:
    from collections.abc import Iterator

_ALIAS = "/api/2.0/mlflow/registered-models/alias"
_NOT_THERE = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}


class MlflowRegistry:
    """The adapter over an MLflow tracking server with a registry."""

    def __init__(self, url: str, timeout: float = 10.0) -> None:
        self.url = url.rstrip("/")
        self._timeout = timeout

    def check(self) -> None:
        """Raise RegistryUnavailable unless the server answers its health check."""
        reply = self._send("GET", "/health")
        if reply.status_code != 200:
            raise RegistryUnavailable(f"MLflow at {self.url} answered {reply.status_code} to its health check")

    def _send(self, method: str, path: str, **words: Any) -> Any:
        import httpx

        given: dict[str, Any] = {"params": words} if method == "GET" else {"json": words}
        try:
            return httpx.request(method, f"{self.url}{path}", timeout=self._timeout, **given)
        except httpx.HTTPError as error:
            raise RegistryUnavailable(
                f"MLflow at {self.url} does not answer ({error}): is  edgeloop up  running?"
            ) from error

    def ask(self, method: str, path: str, **words: Any) -> dict[str, Any]:
        """Send ``words`` and return what MLflow answers; raises RegistryUnavailable unless it answers 200 with JSON."""
        reply = self._send(method, path, **words)
        if reply.status_code != 200:
            raise self._wrong(reply)
        try:
            return dict(reply.json())
        except (ValueError, TypeError) as error:
            raise RegistryUnavailable(
                f"MLflow at {self.url} answered {path} with no JSON: is EDGELOOP_MLFLOW the server's address?"
            ) from error

    def _wrong(self, reply: Any) -> RegistryUnavailable:
        return RegistryUnavailable(f"MLflow at {self.url} answered {reply.status_code}: {reply.text[:200]}")

    def alias(self, service: str) -> Alias:
        """What the alias names; a version of None only where MLflow itself says that there is no alias or no model."""
        reply = self._send("GET", _ALIAS, name=service, alias=CHAMPION)
        if reply.status_code in {400, 404} and _says_not_there(reply, CHAMPION, service):
            return Alias(version=None)
        if reply.status_code != 200:
            raise self._wrong(reply)
        return Alias(version=parse_version(service, _part(reply, "model_version", self)))

    def champion(self, service: str) -> ModelVersion | None:
        """The version that the alias names; None when there is no model or no alias."""
        return self.alias(service).version

    def version(self, service: str, number: str) -> ModelVersion:
        """The version of this number; raises UnknownVersion or ForeignVersion."""
        if not number.isdigit():
            raise UnknownVersion(service, number)
        reply = self._send("GET", "/api/2.0/mlflow/model-versions/get", name=service, version=number)
        if reply.status_code in {400, 404} and _says_not_there(reply, number, service):
            raise UnknownVersion(service, number)
        if reply.status_code != 200:
            raise self._wrong(reply)
        return parse_version(service, _part(reply, "model_version", self))

    def find(self, service: str, key: str) -> ModelVersion | None:
        """The version whose tag names this candidate."""
        query = f"name='{service}' and tags.`{TAG}key`='{key}'"
        answer = self.ask("GET", "/api/2.0/mlflow/model-versions/search", filter=query, max_results="10")
        found = answer.get("model_versions", [])
        return parse_version(service, found[0]) if found else None

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
                    client.set_model_version_tag(entry.service, version, TAG + name, value)
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
        """Move the alias ``champion`` to ``version``; raises UnknownVersion."""
        if not version.isdigit():
            raise UnknownVersion(service, version)
        reply = self._send("POST", _ALIAS, name=service, alias=CHAMPION, version=version)
        if reply.status_code in {400, 404} and _says_not_there(reply, version, service):
            raise UnknownVersion(service, version)
        if reply.status_code != 200:
            raise self._wrong(reply)

    def clear_champion(self, service: str) -> None:
        """Delete the alias ``champion``; nothing when there is none."""
        reply = self._send("DELETE", _ALIAS, name=service, alias=CHAMPION)
        gone = reply.status_code in {400, 404} and _says_not_there(reply, CHAMPION, service)
        if reply.status_code != 200 and not gone:
            raise self._wrong(reply)

    def stamp(self, service: str, version: str, tags: Mapping[str, str]) -> None:
        """Set tags on a version; MLflow cuts none, so neither does this."""
        for name, value in tags.items():
            words = {"name": service, "version": version, "key": TAG + name, "value": value}
            self.ask("POST", "/api/2.0/mlflow/model-versions/set-tag", **words)

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


def _says_not_there(reply: Any, *named: str) -> bool:
    """Whether this is MLflow's own word that something is not there, and not that of a proxy or of another server.

    The message must name the thing, because a parameter that was refused has the same code.
    """
    try:
        said = reply.json()
        code, message = str(said["error_code"]), str(said["message"])
    except (ValueError, KeyError, TypeError):
        return False
    return code in _NOT_THERE and "not found" in message.lower() and any(name in message for name in named)


def _part(reply: Any, name: str, registry: MlflowRegistry) -> Mapping[str, Any]:
    try:
        return dict(reply.json()[name])
    except (ValueError, KeyError, TypeError) as error:
        raise RegistryUnavailable(
            f"MLflow at {registry.url} answered without {name}: is EDGELOOP_MLFLOW the server's address?"
        ) from error
