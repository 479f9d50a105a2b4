"""Which releases were rehearsed, in SQL; the reports themselves are blobs in the store."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import sqlalchemy as sa
from pydantic import BaseModel

from edgeloop.clients.objects import ObjectMissing, ObjectStore
from edgeloop.samples.records import canonical, digest
from edgeloop.samples.releases import blob_key
from edgeloop.store.database import Database
from edgeloop.twin.records import LostReport, Outcome, TwinReport, parse_report, terms_of

meta = sa.MetaData()

rehearsals = sa.Table(
    "rehearsals",
    meta,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("service", sa.String(64), nullable=False, index=True),
    sa.Column("version", sa.String(32), nullable=False),
    sa.Column("release", sa.String(80), nullable=False, index=True),
    sa.Column("profile", sa.String(64), nullable=False),
    sa.Column("terms", sa.String(80), nullable=False),
    sa.Column("machine", sa.String(128), nullable=False),
    sa.Column("outcome", sa.String(16), nullable=False),
    sa.Column("report", sa.String(80), nullable=False),
    sa.Column("breaks_at", sa.Float),
    sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    sa.UniqueConstraint("release", "profile", "report"),
)


class Rehearsal(BaseModel):
    """One row."""

    service: str
    version: str
    release: str
    profile: str
    terms: str
    """Digest of the budgets that it was judged by."""
    machine: str
    outcome: Outcome
    report: str
    """Digest of the report."""
    breaks_at: float | None
    """Requests/s on the profile's hardware at which its latency budget broke."""
    at: datetime


class Rehearsals:
    """Writes and finds rows."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.create(meta)

    def add(self, row: Rehearsal) -> bool:
        """Write a row once; False when it was there."""
        return self._database.insert(rehearsals, **row.model_dump())

    def newest(self, release: str, profile: str, terms: str) -> Rehearsal | None:
        """The newest rehearsal of a release for a profile by these terms, wherever it was."""
        same = rehearsals.c.release == release, rehearsals.c.profile == profile, rehearsals.c.terms == terms
        row = self._database.one(sa.select(rehearsals).where(*same).order_by(rehearsals.c.id.desc()))
        return None if row is None else Rehearsal.model_validate(row)

    def of_release(self, release: str) -> list[Rehearsal]:
        """The newest rehearsal of a release for each profile, by name of the profile."""
        query = sa.select(rehearsals).where(rehearsals.c.release == release).order_by(rehearsals.c.id)
        newest = {row["profile"]: Rehearsal.model_validate(row) for row in self._database.all(query)}
        return [newest[name] for name in sorted(newest)]


def keep(store: ObjectStore, kept: Rehearsals, report: TwinReport) -> Rehearsal:
    """Keep a report and its row: the blob first, so that no row names one that is not there."""
    data = report.to_bytes()
    row = Rehearsal(
        service=report.service,
        version=report.model,
        release=report.release,
        profile=report.profile.name,
        terms=terms_of(report.profile, report.rules),
        machine=report.machine,
        outcome=report.outcome,
        report=digest(data),
        breaks_at=report.load.breaks_at if report.load else None,
        at=report.at,
    )
    store.create(blob_key(row.report), data)
    kept.add(row)
    return row


def keep_list(store: ObjectStore, reports: Mapping[str, str]) -> str:
    """Keep the digests of several reports, by profile, as one blob; its digest."""
    data = canonical({"reports": dict(reports)})
    store.create(blob_key(digest(data)), data)
    return digest(data)


def load_report(store: ObjectStore, name: str) -> TwinReport:
    """The report with this digest.

    Raises:
        LostReport: it is gone, or damaged.
    """
    try:
        return parse_report(store.get(blob_key(name)), name)
    except ObjectMissing as error:
        raise LostReport(f"twin report {name} is not in {store.url}: rehearse with --again") from error
