"""Which images a release is in: rollouts name them by digest, so a push is remembered.

A release that was never pushed, or one that nobody made, is said here too, before anything is built.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from edgeloop.clients.objects import ObjectMissing, ObjectStore
from edgeloop.errors import BadInput
from edgeloop.samples.records import now
from edgeloop.samples.releases import Release, parse_release, release_key
from edgeloop.store import FleetStore
from edgeloop.store.database import Database

meta = sa.MetaData()

images = sa.Table(
    "images",
    meta,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("service", sa.String(64), nullable=False, index=True),
    sa.Column("release", sa.String(80), nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("reference", sa.String(255), nullable=False),
    sa.Column("digest", sa.String(80), nullable=False),
    sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    sa.UniqueConstraint("release", "kind", "reference", "digest"),
)


class NotReleased(BadInput):
    """A service has no release, or none of this version."""


class Images:
    """The images that releases were pushed as."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.create(meta)

    def add(self, service: str, release: str, kind: str, reference: str, digest: str) -> None:
        """Remember that ``reference`` (registry/repository) has the release as ``digest``; the newest push counts."""
        key = {"release": release, "kind": kind, "reference": reference, "digest": digest}
        at = now()
        if self._database.insert(images, service=service, **key, at=at):
            return
        with self._database.writing() as connection:
            same = sa.and_(*(images.c[name] == value for name, value in key.items()))
            connection.execute(sa.update(images).where(same).values(at=at))

    def of(self, release: str) -> dict[str, str]:
        """By kind ``registry/repository@digest`` of the newest push of a release, as targets want them."""
        query = sa.select(images).where(images.c.release == release).order_by(images.c.at, images.c.id)
        return {str(r["kind"]): f"{r['reference']}@{r['digest']}" for r in self._database.all(query)}

    def pushed(self, service: str, limit: int = 50) -> list[dict[str, Any]]:
        """The newest pushes of a service, newest first: ``release, kind, reference, digest, at``."""
        query = sa.select(*(images.c[n] for n in ("release", "kind", "reference", "digest", "at")))
        query = query.where(images.c.service == service).order_by(images.c.at.desc(), images.c.id.desc())
        return self._database.all(query.limit(limit))


def find_release(
    fleet: FleetStore,
    store: ObjectStore,
    service: str,
    version: str | None,
    allowed: Callable[[str], bool] = lambda _release: True,
) -> Release:
    """The newest release of ``service`` that is allowed to run, or the newest of its model version ``version``.

    Raises:
        NotReleased: there is none, or its manifest is gone from the store.
        MalformedRelease: the manifest's bytes are not the ones that its name says.
    """
    made = fleet.released(service)
    named = [name for number, name in made if number == version] if version else [n for _, n in made if allowed(n)]
    if not named:
        what = f"version {version} of {service}" if version else service
        lacks = "has no release that may run" if made and not version else "was never released"
        raise NotReleased(
            f"{what} {lacks}: set the alias champion to it in MLflow, and run again once  edgeloop status  shows its"
            " release"
        )
    name = named[0]
    try:
        return parse_release(store.get(release_key(service, name)), name)
    except ObjectMissing as error:
        raise NotReleased(
            f"release {name} of {service} is not in {store.url}: is EDGELOOP_STORE the store it was released to?"
        ) from error
