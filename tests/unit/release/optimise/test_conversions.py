"""A backbone is converted once per precision: who comes later, and with other samples, finds what there is."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from edgeloop.clients.objects import MemoryStore, ObjectStore
from edgeloop.release.optimise.conversions import Conversions, DamagedLayer, conversion_key, conversions, sound_layer
from edgeloop.samples.records import digest
from edgeloop.samples.releases import blob_key
from edgeloop.store import Database
from tests.unit.samples.broken import Crash, Fuse, Guarded, crash_everywhere

KEY = conversion_key("looker", "sha256:keras", "int8")


def test_each_backbone_precision_and_compiler_is_another() -> None:
    keys = {
        KEY,
        conversion_key("looker", "sha256:other", "int8"),
        conversion_key("looker", "sha256:keras", "float16"),
        conversion_key("looker", "sha256:keras", "int8", "edgetpu"),
        conversion_key("other", "sha256:keras", "int8"),
    }
    assert len(keys) == 5


def kept_beside(store: ObjectStore) -> Conversions:
    return Conversions(Database("sqlite://"), store)


def test_it_is_made_once() -> None:
    store = MemoryStore()
    kept = kept_beside(store)
    assert kept.converted(KEY, lambda: b"first") == (digest(b"first"), b"first")
    assert kept.converted(KEY, lambda: b"second") == (digest(b"first"), b"first")
    assert store.get(blob_key(digest(b"first"))) == b"first"


def test_of_two_who_make_it_at_once_the_second_takes_the_firsts() -> None:
    kept = kept_beside(MemoryStore())

    def late() -> bytes:
        kept.converted(KEY, lambda: b"first")
        return b"second"

    assert kept.converted(KEY, late) == (digest(b"first"), b"first")


def test_one_whose_bytes_are_lost_or_damaged_is_made_anew() -> None:
    store = MemoryStore()
    kept = kept_beside(store)
    kept.converted(KEY, lambda: b"first")
    store.put(blob_key(digest(b"first")), b"damaged")
    assert kept.converted(KEY, lambda: b"second") == (digest(b"second"), b"second")
    store.delete(blob_key(digest(b"first")))
    assert kept.converted(KEY, lambda: b"third")[1] == b"third"


def test_crash_at_every_point_leaves_no_record_without_its_bytes() -> None:
    def run(fuse: Fuse) -> None:
        store = MemoryStore()
        database = Database("sqlite://")
        guarded = Guarded(store, fuse, "get", "create", "size")
        try:
            Conversions(database, guarded).converted(KEY, lambda: b"made")
        except Crash:
            rows = database.all(sa.select(conversions))
            assert not rows or store.size(blob_key(digest(b"made"))) is not None
        assert Conversions(database, store).converted(KEY, lambda: b"made")[1] == b"made"

    assert crash_everywhere(run) >= 1


@pytest.mark.parametrize("data", [None, b"other"], ids=["lost", "damaged"])
def test_a_layer_that_is_not_whole_is_named(data: bytes | None) -> None:
    store, name = MemoryStore(), digest(b"layer")
    if data is not None:
        store.put(blob_key(name), data)
    with pytest.raises(DamagedLayer, match=f"layer {name} of looker is not whole"):
        sound_layer(store, "looker", name)
