"""The model registry: MLflow remembers every candidate, and the alias ``champion`` says which one the fleet may run.

Asking for the champion is one REST call, because a reconciler does it every few seconds; the MLflow library is
imported only to log a model.
"""

from edgeloop.clients.registry_memory import MemoryRegistry
from edgeloop.clients.registry_mlflow import MlflowRegistry
from edgeloop.clients.registry_types import (
    CANDIDATE,
    CHAMPION,
    Alias,
    Entry,
    ForeignVersion,
    LoggedModel,
    ModelRegistry,
    ModelVersion,
    RegistryUnavailable,
    UnknownVersion,
)

__all__ = [
    "CANDIDATE",
    "CHAMPION",
    "Alias",
    "Entry",
    "ForeignVersion",
    "LoggedModel",
    "MemoryRegistry",
    "MlflowRegistry",
    "ModelRegistry",
    "ModelVersion",
    "RegistryUnavailable",
    "UnknownVersion",
]
