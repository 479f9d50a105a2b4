"""A service whose alias moves, with collaborators that remember: everything but a fleet and an MLflow server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from edgeloop.clients.registry import Entry, MemoryRegistry, ModelVersion
from edgeloop.promotion.fleeting import rollout_of_row
from edgeloop.promotion.kept import Promotions
from edgeloop.promotion.parts import Parts
from edgeloop.promotion.reconcile import PromotionStatus, reconcile
from edgeloop.promotion.records import Outcome, Rollout
from edgeloop.samples.records import digest, now
from edgeloop.samples.service import Service
from edgeloop.store import FleetStore
from edgeloop.store.tables import rollouts
from tests.unit.samples.make import regressor


class Builder:
    """Builds at once; the digest tells the version."""

    def __init__(self, fleet: FleetStore) -> None:
        self.fleet = fleet
        self.built: list[str] = []

    def build(self, service: Service, version: ModelVersion) -> str:
        self.built.append(version.version)
        release = release_of(version.version)
        self.fleet.add_release(service.name, version.version, release)
        return release


class Rehearser:
    """A twin that says what ``says`` is, and remembers that it ran."""

    def __init__(self, says: Outcome = "pass") -> None:
        self.says: Outcome = says
        self.ran: dict[str, Outcome] = {}

    def outcome(self, service: Service, release: str) -> Outcome | None:
        return self.ran.get(release)

    def rehearse(self, service: Service, release: str) -> Outcome:
        self.ran[release] = self.says
        return self.says

    def report(self, service: Service, release: str) -> str | None:
        return f"report of {release}" if release in self.ran else None


class Signer:
    """Signs, or asks for a signature while ``awaits`` is set."""

    def __init__(self) -> None:
        self.signed: dict[str, dict[str, Any]] = {}
        self.awaits: str | None = None

    def approve(self, service: str, release: str, custom: Mapping[str, Any]) -> str | None:
        if self.awaits is None:
            self.signed[release] = dict(custom)
        return self.awaits

    def forget(self, service: str, release: str) -> None:
        pass


class Rollouts:
    """Rollouts as rows, without rings: they end when the test says so."""

    def __init__(self, fleet: FleetStore) -> None:
        self.fleet = fleet
        self.began: list[str] = []
        self.stopped: list[tuple[str, str]] = []

    def newest(self, service: str) -> Rollout | None:
        row = self.fleet.last_rollout(service)
        return None if row is None else rollout_of_row(self.fleet, row)

    def start(self, service: Service, release: str, who: str, reason: str, again: bool) -> bool:
        last = self.fleet.last_rollout(service.name)
        had = {"moving", "done"} | (set() if again else {"reverted", "aborted"})
        if last and last["digest"] == release and last["state"] in had:
            return False
        self.begin(release, who, reason, service.name)
        self.began.append(release)
        return True

    def begin(self, release: str, who: str, reason: str, service: str = "rater") -> None:
        """What any rollout begins with, also one that nobody promoted."""
        if self.state(service) == "moving":
            self.end("superseded", service=service)
        former, at = self.runs(service), now()
        versions = {
            "version": self.fleet.version_of(service, release),
            "former": self.fleet.version_of(service, former) if former else None,
        }
        row = {"service": service, "digest": release, "former": former, "reason": reason, "at": at}
        with self.fleet.database.writing() as connection:
            made = connection.execute(sa.insert(rollouts).values(**row, state="moving", wave=0, wave_since=at))
        number = made.inserted_primary_key[0] if made.inserted_primary_key else 0
        self.fleet.record(service, "promotion", f"rollout-{number}", verdict="pass", reason=reason, who=who, **versions)

    def stop(self, service: Service, who: str, reason: str) -> bool:
        if self.state(service.name) != "moving":
            return False
        last = self.fleet.last_rollout(service.name)
        assert last is not None
        self.end("reverted", reason, service.name)
        self.stopped.append((str(last["digest"]), who))
        return True

    def state(self, service: str = "rater") -> str | None:
        last = self.fleet.last_rollout(service)
        return None if last is None else str(last["state"])

    def end(self, state: str, reason: str = "said the test", service: str = "rater") -> None:
        """End the newest rollout."""
        last = self.fleet.last_rollout(service)
        assert last is not None
        with self.fleet.database.writing() as connection:
            changed = sa.update(rollouts).where(rollouts.c.id == last["id"]).values(state=state, reason=reason)
            connection.execute(changed)

    def runs(self, service: str = "rater") -> str | None:
        """The release that all nodes run, or go back to."""
        last = self.fleet.last_rollout(service)
        return None if last is None else last["digest"] if last["state"] == "done" else last["former"]


class World:
    """One service ``rater`` with versions 1 to 3, of which none is champion yet."""

    def __init__(self, folder: Path | None = None, **delivery: Any) -> None:
        self.fleet = FleetStore(f"sqlite:///{folder / 'fleet.db'}" if folder else "sqlite://")
        self.registry = MemoryRegistry()
        self.service = regressor(delivery=delivery)
        self.promotions = Promotions(self.fleet.database)
        self.builder, self.rehearser = Builder(self.fleet), Rehearser()
        self.signer, self.rollouts = Signer(), Rollouts(self.fleet)
        self.parts = Parts(
            registry=self.registry,
            fleet=self.fleet,
            promotions=self.promotions,
            builder=self.builder,
            rehearser=self.rehearser,
            signer=self.signer,
            rollouts=self.rollouts,
        )
        for number in range(1, 4):
            values: dict[str, Any] = {"params": {}, "metrics": {}, "description": "test", "layers": {"model": "m"}}
            entry = Entry(service="rater", key=f"sha256:{number}", dataset="sha256:d", **values)
            self.registry.register(entry, None, Path())  # type: ignore[arg-type]

    def reconcile(self) -> PromotionStatus:
        return reconcile(self.parts, self.service)

    def set(self, version: str | None) -> PromotionStatus:
        """Move the alias, or delete it, and let the reconciler look."""
        if version is None:
            self.registry.clear_champion("rater")
        else:
            self.registry.set_champion("rater", version)
        return self.reconcile()

    def out(self, version: str) -> None:
        """Bring a version to the whole fleet."""
        self.set(version)
        self.rollouts.end("done")
        self.reconcile()

    def champion(self) -> str | None:
        found = self.registry.champion("rater")
        return found.version if found else None

    def ledger(self) -> list[tuple[str, str | None, str | None, str, str]]:
        """Events, oldest first: what, version, former, who, why."""
        rows = reversed(self.fleet.history("rater"))
        return [(r["event"], r["version"], r["former"], r["who"], r["reason"]) for r in rows]


def release_of(version: str) -> str:
    return digest(f"release of {version}".encode())
