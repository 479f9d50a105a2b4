"""The composition root: the one place where settings become clients. Everything is made when it is first asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from edgeloop.clients.broker import Broker, connect
from edgeloop.clients.objects import ObjectStore, open_store
from edgeloop.clients.orchestrator import Orchestrator, PrefectOrchestrator
from edgeloop.clients.registry import MlflowRegistry, ModelRegistry
from edgeloop.fleet.channel import open_channel
from edgeloop.quality.validate import suite_of
from edgeloop.samples.service import Expectation, Service, list_services, load_service
from edgeloop.samples.table import Tables
from edgeloop.settings import Settings, load_settings, make_home
from edgeloop.store import FleetStore

if TYPE_CHECKING:
    from edgeloop.fleet.publisher import Publisher


class App:
    """Clients and services of one set of settings."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @cached_property
    def store(self) -> ObjectStore:
        """The object store."""
        return open_store(self.settings.store_url)

    @cached_property
    def channel(self) -> Publisher:
        """The signed channel in the object store."""
        return open_channel(self.store, self.settings.keys_folder)

    @cached_property
    def registry(self) -> ModelRegistry:
        """The model registry."""
        return MlflowRegistry(self.settings.mlflow)

    @cached_property
    def fleet(self) -> FleetStore:
        """The SQL state."""
        make_home(self.settings.home)
        return FleetStore(self.settings.database_url)

    @cached_property
    def orchestrator(self) -> Orchestrator:
        """The orchestrator."""
        return PrefectOrchestrator(self.settings.prefect)

    @contextmanager
    def broker(self) -> Iterator[Broker]:
        """A connection to the broker under a name of its own, for as long as the block lasts."""
        broker = connect(self.settings.broker, f"edgeloop-{uuid4().hex[:12]}")
        try:
            yield broker
        finally:
            broker.close()

    def service(self, name: str) -> Service:
        """The service of this name; raises UnknownService or MalformedService."""
        return load_service(name, self.settings.service_folders)

    def services(self) -> list[str]:
        """Names of all services."""
        return list_services(self.settings.service_folders)

    def tables(self, service: str) -> Tables:
        """The Delta tables of a service."""
        return Tables(service, self.store.table)

    def suite(self, service: Service) -> list[Expectation]:
        """The expectations of a service."""
        return suite_of(service, self.settings.rooms / "data" / "expectations")


def open_app(home: Path | None = None) -> App:
    """The app for the settings of this process."""
    return App(load_settings(home))
