"""What variants took where they were made, in SQL: a manifest must be the same bytes wherever it is built."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from pydantic import BaseModel

from edgeloop.store.database import Database

meta = sa.MetaData()

variants = sa.Table(
    "variants",
    meta,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("service", sa.String(64), nullable=False, index=True),
    sa.Column("release", sa.String(80), nullable=False),
    sa.Column("profile", sa.String(64), nullable=False),
    sa.Column("machine", sa.String(128), nullable=False),
    sa.Column("runtime", sa.String(16), nullable=False),
    sa.Column("precision", sa.String(16), nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("agreement", sa.Float, nullable=False),
    sa.Column("compared", sa.Integer, nullable=False),
    sa.Column("p50_ms", sa.Float),
    sa.Column("p99_ms", sa.Float),
    sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    sa.UniqueConstraint("release", "profile", "machine"),
)


class Figures(BaseModel):
    """What was measured of one variant on one machine."""

    service: str
    release: str
    profile: str
    machine: str
    runtime: str
    precision: str
    size: int
    """Bytes of all its layers."""
    agreement: float
    compared: int
    p50_ms: float | None
    """Of one answer on that machine; None where the variant does not run there."""
    p99_ms: float | None
    at: datetime


class Measured:
    """The figures of all variants."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.create(meta)

    def record(self, figures: Figures) -> bool:
        """Keep the first figures of a variant on a machine; False when there were some."""
        return self._database.insert(variants, **figures.model_dump())

    def of_release(self, release: str) -> list[Figures]:
        """Figures of a release's variants, in the order in which they were measured."""
        query = sa.select(variants).where(variants.c.release == release).order_by(variants.c.id)
        return [Figures.model_validate(row) for row in self._database.all(query)]

    def newest(self, service: str, limit: int = 50) -> list[Figures]:
        """The newest figures of a service, newest first."""
        query = sa.select(variants).where(variants.c.service == service).order_by(variants.c.id.desc()).limit(limit)
        return [Figures.model_validate(row) for row in self._database.all(query)]
