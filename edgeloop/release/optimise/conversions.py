"""Backbones that were converted before: a new head on the same backbone finds them, and nodes fetch nothing anew.

It matters most for ``int8``, whose bytes follow from the inputs that it was calibrated on, which later dataset versions
have others of: what is released first decides what a backbone is in this precision, for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import sqlalchemy as sa

from edgeloop.clients.objects import ObjectStore
from edgeloop.errors import EdgeloopError
from edgeloop.exports.litert import Form
from edgeloop.release.optimise.examples import Examples
from edgeloop.release.optimise.measure import OutOfTolerance
from edgeloop.samples.profiles import Profile
from edgeloop.samples.records import canonical, digest, now
from edgeloop.samples.releases import blob_key
from edgeloop.samples.service import Service
from edgeloop.store.database import Database

#: A change of how backbones are converted, or variants judged, changes it too.
_RECIPE = 1
meta = sa.MetaData()

conversions = sa.Table(
    "conversions",
    meta,
    sa.Column("key", sa.String(80), primary_key=True),
    sa.Column("backbone", sa.String(80), nullable=False),
    sa.Column("at", sa.DateTime(timezone=True), nullable=False),
)
refusals = sa.Table(
    "refused_variants",
    meta,
    sa.Column("key", sa.String(80), primary_key=True),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("at", sa.DateTime(timezone=True), nullable=False),
)


class DamagedLayer(EdgeloopError):
    """A layer that variants are made of is not in the store, or its bytes are others."""


def conversion_key(service: str, source: str, form: Form, compiler: str | None = None) -> str:
    """Name of what a backbone became; ``source`` is the digest of what it was made of: the Keras backbone, or for a
    compiler what was converted from it."""
    return digest(canonical([_RECIPE, service, source, form, compiler]))


class Conversions:
    """What backbones became, and what was refused: in SQL, because whoever can write to the store must not say what is
    packaged, and signed then. The bytes are blobs."""

    def __init__(self, database: Database, store: ObjectStore) -> None:
        self._database = database
        self._store = store
        database.create(meta)

    def converted(self, key: str, make: Callable[[], bytes]) -> tuple[str, bytes]:
        """Digest and bytes of the backbone under ``key``; made and kept where there is none.

        Of two who make it at once, the second takes the first's.
        """
        known = self._load(key)
        if known:
            return known
        data = make()
        self._store.create(blob_key(digest(data)), data)
        if not self._database.insert(conversions, key=key, backbone=digest(data), at=now()):
            return self._load(key) or (digest(data), data)
        return digest(data), data

    def forget_unreleased(self, service: str, key: str) -> None:
        """Let the conversion under ``key`` be made anew, with other inputs, unless a release has it."""
        known = self._load(key)
        manifests = (self._store.get(one.key) for one in self._store.list(f"releases/{service}"))
        if known is None or not any(known[0].encode() in manifest for manifest in manifests):
            with self._database.writing() as connection:
                connection.execute(sa.delete(conversions).where(conversions.c.key == key))

    def check_refused(self, key: str) -> None:
        """Raise OutOfTolerance in the words of the first time, if there was one.

        A release is asked for every few seconds, and converting costs minutes.
        """
        found = self._database.one(sa.select(refusals).where(refusals.c.key == key))
        if found:
            raise OutOfTolerance(str(found["reason"]))

    def refuse(self, key: str, why: OutOfTolerance) -> None:
        """Remember it."""
        self._database.insert(refusals, key=key, reason=str(why), at=now())

    def _load(self, key: str) -> tuple[str, bytes] | None:
        """What is kept under ``key``, if that is whole."""
        found = self._database.one(sa.select(conversions).where(conversions.c.key == key))
        if found is None or self._store.size(blob_key(found["backbone"])) is None:
            return None
        data = self._store.get(blob_key(found["backbone"]))
        return (str(found["backbone"]), data) if digest(data) == found["backbone"] else None


def refusal_key(service: Service, layers: Mapping[str, str], profile: Profile, inputs: Examples) -> str:
    """Name of the judgement of a variant, by all that it follows from: any other of them is judged anew."""
    known = [digest(payload) for payload in (*inputs.calibration, *inputs.judging)]
    told = [dict(layers), profile.model_dump(mode="json"), service.node_config().model_dump(mode="json")]
    return digest(canonical([_RECIPE, service.name, *told, known]))


def sound_layer(store: ObjectStore, service: str, name: str) -> bytes:
    """The blob ``name``.

    Raises:
        DamagedLayer: it is not there, or is another.
    """
    key = blob_key(name)
    data = store.get(key) if store.size(key) is not None else b""
    if digest(data) != name:
        raise DamagedLayer(f"layer {name} of {service} is not whole at {store.url}/{key}: register the version again")
    return data
