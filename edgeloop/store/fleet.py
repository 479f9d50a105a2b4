"""What was judged, released and rolled out, as rows with unique keys, so that doing a step twice writes it once.

Long histories stay out of memory: every read names what it wants.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from edgeloop.samples.records import now
from edgeloop.store.database import Database
from edgeloop.store.tables import gate_decisions, gate_uses, ledger, meta, releases, rollouts


class FleetStore:
    """What is judged, promoted, released and rolled out; rooms keep what is theirs alone in tables of their own."""

    def __init__(self, url: str) -> None:
        self.database = Database(url)
        self.database.create(meta)

    def close(self) -> None:
        """Give all connections back."""
        self.database.close()

    def record(self, service: str, event: str, key: str, **values: Any) -> bool:
        """Write a ledger row once per (service, event, key); False when it was there."""
        return self.database.insert(ledger, service=service, event=event, key=key, at=now(), **values)

    def entry(self, service: str, event: str, key: str) -> dict[str, Any] | None:
        """The ledger row with this key."""
        return self.database.one(
            sa.select(ledger).where(ledger.c.service == service, ledger.c.event == event, ledger.c.key == key)
        )

    def history(self, service: str, limit: int = 50) -> list[dict[str, Any]]:
        """The newest ledger rows of a service, newest first."""
        return self.database.all(
            sa.select(ledger).where(ledger.c.service == service).order_by(ledger.c.id.desc()).limit(limit)
        )

    def newest(self, service: str, event: str) -> dict[str, Any] | None:
        """The newest ledger row of an event."""
        query = sa.select(ledger).where(ledger.c.service == service, ledger.c.event == event)
        return self.database.one(query.order_by(ledger.c.id.desc()))

    def events(self, service: str, event: str, version: str) -> list[dict[str, Any]]:
        """The ledger rows of one kind about a model version, newest first."""
        about = ledger.c.service == service, ledger.c.event == event, ledger.c.version == version
        return self.database.all(sa.select(ledger).where(*about).order_by(ledger.c.id.desc()))

    def last_judged(self, service: str, harmless: bool = False) -> dict[str, Any] | None:
        """The newest decision of the gate; with ``harmless`` the newest that found a candidate to do no harm.

        A round that could not be judged has a row without a dataset, and is none. An inconclusive decision says nothing
        of harm.
        """
        query = sa.select(ledger).where(
            ledger.c.service == service, ledger.c.event == "gate", ledger.c.dataset.is_not(None)
        )
        if harmless:
            query = query.where(ledger.c.verdict.not_in(("harmful", "inconclusive")))
        return self.database.one(query.order_by(ledger.c.id.desc()))

    def gate_uses(self, service: str, key: str) -> dict[str, int]:
        """How many decisions each gate sample had made before the decision ``key``; samples without any are left out.

        A decision that is made again finds what it found the first time.
        """
        own = sa.select(gate_decisions.c.id).where(gate_decisions.c.service == service, gate_decisions.c.key == key)
        known = self.database.one(own)
        query = sa.select(gate_uses.c.sample_id, sa.func.count().label("uses")).where(gate_uses.c.service == service)
        if known:
            query = query.where(gate_uses.c.decision < known["id"])
        return {str(r["sample_id"]): int(r["uses"]) for r in self.database.all(query.group_by(gate_uses.c.sample_id))}

    def use_gate(self, service: str, key: str, samples: Sequence[str]) -> bool:
        """Count the decision ``key`` on each of these gate samples, once; False when it was counted before."""
        try:
            with self.database.writing() as connection:
                made = connection.execute(sa.insert(gate_decisions).values(service=service, key=key, at=now()))
                number = made.inserted_primary_key[0] if made.inserted_primary_key else 0
                rows = [{"decision": number, "sample_id": name, "service": service} for name in {*samples}]
                if rows:
                    connection.execute(sa.insert(gate_uses), rows)
        except IntegrityError:
            return False
        return True

    def add_release(self, service: str, version: str, digest: str) -> bool:
        """Record a release once; False when it was there."""
        return self.database.insert(releases, service=service, version=version, digest=digest, at=now())

    def release_of(self, service: str, version: str) -> str | None:
        """Digest of the newest release made of a model version."""
        row = self.database.one(
            sa.select(releases)
            .where(releases.c.service == service, releases.c.version == version)
            .order_by(releases.c.id.desc())
        )
        return None if row is None else str(row["digest"])

    def version_of(self, service: str, digest: str) -> str | None:
        """Model version that a release was made of."""
        row = self.database.one(sa.select(releases).where(releases.c.service == service, releases.c.digest == digest))
        return None if row is None else str(row["version"])

    def released(self, service: str, limit: int = 100) -> list[tuple[str, str]]:
        """Model version and digest of the releases of a service, newest first."""
        query = sa.select(releases).where(releases.c.service == service).order_by(releases.c.id.desc())
        return [(str(row["version"]), str(row["digest"])) for row in self.database.all(query.limit(limit))]

    def last_rollout(self, service: str) -> dict[str, Any] | None:
        """The newest rollout of a service."""
        return self.database.one(
            sa.select(rollouts).where(rollouts.c.service == service).order_by(rollouts.c.id.desc())
        )


def describe(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with times as text, for printing."""
    return [{k: v.isoformat() if isinstance(v, datetime) else v for k, v in row.items()} for row in rows]
