"""The composition root: the one place where settings become clients. Everything is made when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
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
from edgeloop.samples.profiles import Profile, load_profile
from edgeloop.samples.service import Expectation, Service, list_services, load_service
from edgeloop.samples.table import Tables
from edgeloop.settings import Settings, load_settings, make_home
from edgeloop.store import FleetStore

if TYPE_CHECKING:
    from edgeloop.fleet.clusters import Clusters
    from edgeloop.fleet.publisher import Publisher
    from edgeloop.fleet.targets.protocol import Target
    from edgeloop.promotion.parts import Parts
    from edgeloop.twin.rehearser import Twin
    from edgeloop.twin.run import Parts as TwinParts

#: Messages that may be on the way to this process unacknowledged, all that MQTT allows: what a fleet says between two
#: ticks comes at once then, and never meets a full queue.
INFLIGHT = 65_535


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

    @cached_property
    def promotion(self) -> Parts:
        """What takes a version from its alias to the fleet."""
        from edgeloop.promotion.fleeting import ChannelSigner, RingRollouts
        from edgeloop.promotion.kept import Promotions
        from edgeloop.promotion.parts import Parts, ReleaseBuilder

        return Parts(
            registry=self.registry,
            fleet=self.fleet,
            promotions=Promotions(self.fleet.database),
            builder=ReleaseBuilder(self.store, self.tables, self.fleet, self.profiles),
            rehearser=self.twin,
            signer=ChannelSigner(self.channel),
            rollouts=RingRollouts(self.fleet, self.channel, self.check_place),
        )

    @cached_property
    def clusters(self) -> Clusters:
        """The targets that the fleet YAMLs name."""
        from edgeloop.clients.cluster_kubernetes import connect as connect_cluster
        from edgeloop.fleet.clusters import Clusters
        from edgeloop.fleet.members import load_fleets

        return Clusters(lambda: load_fleets(self.settings.fleet_folders), connect_cluster)

    def targets(self, name: str) -> Target:
        """The target of this name; raises NoTarget, UnknownContext, MissingExtra or what is wrong with the YAMLs."""
        return self.clusters.target(name)

    @cached_property
    def images(self) -> Callable[[str], Mapping[str, str]]:
        """Which images a release was pushed as, by its digest."""
        from edgeloop.release.images import Images

        return Images(self.fleet.database).of

    def check_rollout(self, service: Service, release: str) -> None:
        """Whether a release can be brought to where the service's rings are.

        Raises:
            BadInput: as :meth:`~edgeloop.fleet.clusters.Clusters.check`.
            NotApproved: it is for a cluster, and no key signed that it may run.
            ExpiredSignature: nodes would believe nothing that the channel says.
            NoVariant: nodes have a hardware profile that the release has no variant for.
        """
        from edgeloop.fleet.rollouts.roster import Roster
        from edgeloop.fleet.rollouts.tick import refs_of
        from edgeloop.fleet.targets.agent import AgentTarget

        ref = refs_of(self.fleet, self.images)(service.name, release)
        self.clusters.check(service, ref, Roster(self.fleet.database).rings(service.name))
        if service.rollout.target == "agent":
            self._check_channel(service)
            self._check_variants(service, release)
        else:  # before a cluster stands no channel that would refuse it
            AgentTarget(self.channel).refuse_unapproved(service.name, release)

    def check_place(self, service: Service, release: str) -> None:
        """As ``check_rollout``, but nodes that follow the channel need no YAML, so none stops them."""
        if service.rollout.target == "agent":
            self._check_channel(service)
        else:
            self.check_rollout(service, release)

    def _check_variants(self, service: Service, release: str) -> None:
        from edgeloop.fleet.rollouts.checks import check_variants
        from edgeloop.fleet.rollouts.roster import Roster
        from edgeloop.samples.records import now
        from edgeloop.samples.releases import parse_release, release_key

        if profiles := Roster(self.fleet.database).profiles(service.name, now()):
            check_variants(parse_release(self.store.get(release_key(service.name, release)), release), profiles)

    def _check_channel(self, service: Service) -> None:
        from edgeloop.fleet.show import refuse_expired

        refuse_expired(self.channel.roles(), service.name)

    @cached_property
    def rehearsing(self) -> TwinParts:
        """What a rehearsal on the digital twin works with."""
        from edgeloop.twin.kept import Rehearsals
        from edgeloop.twin.run import Parts

        return Parts(self.store, self.tables, Rehearsals(self.fleet.database), self.settings.twin_cgroup)

    @cached_property
    def twin(self) -> Twin:
        """The digital twin."""
        from edgeloop.twin.rehearser import Twin

        return Twin(self.rehearsing, self.twin_profiles)

    @contextmanager
    def broker(self) -> Iterator[Broker]:
        """A connection to the broker under a name of its own, for as long as the block lasts."""
        broker = connect(self.settings.broker, f"edgeloop-{uuid4().hex[:12]}", receive_maximum=INFLIGHT)
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

    def profiles(self, service: Service) -> list[Profile]:
        """The hardware profiles that a service is released for; raises UnknownProfile or MalformedProfile."""
        return [load_profile(n, self.settings.profile_folders) for n in dict.fromkeys(service.delivery.profiles)]

    def twin_profiles(self, service: Service) -> list[Profile]:
        """Those that a service is rehearsed for: its own, else the budgets of an ordinary machine like this one."""
        from edgeloop.twin.rehearser import usual_profile

        return self.profiles(service) or [load_profile(usual_profile(), self.settings.profile_folders)]

    def tables(self, service: str) -> Tables:
        """The Delta tables of a service."""
        return Tables(service, self.store.table)

    def suite(self, service: Service) -> list[Expectation]:
        """The expectations of a service."""
        return suite_of(service, self.settings.rooms / "data" / "expectations")


def open_app(home: Path | None = None) -> App:
    """The app for the settings of this process."""
    return App(load_settings(home))
