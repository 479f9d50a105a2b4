"""A backbone is converted once per precision: who comes later, and with other samples, finds what there is."""

from __future__ import annotations

import pytest

from edgeloop.clients.objects import MemoryStore
from edgeloop.release.optimise.conversions import DamagedLayer, conversion_key, converted, sound_layer
from edgeloop.samples.records import digest
from edgeloop.samples.releases import blob_key
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


def test_it_is_made_once() -> None:
    store = MemoryStore()
    assert converted(store, KEY, lambda: b"first") == (digest(b"first"), b"first")
    assert converted(store, KEY, lambda: b"second") == (digest(b"first"), b"first")
    assert store.get(blob_key(digest(b"first"))) == b"first"


def test_of_two_who_make_it_at_once_the_second_takes_the_firsts() -> None:
    store = MemoryStore()

    def late() -> bytes:
        converted(store, KEY, lambda: b"first")
        return b"second"

    assert converted(store, KEY, late) == (digest(b"first"), b"first")


def test_one_whose_bytes_are_lost_or_damaged_is_made_anew() -> None:
    store = MemoryStore()
    converted(store, KEY, lambda: b"first")
    store.put(blob_key(digest(b"first")), b"damaged")
    assert converted(store, KEY, lambda: b"second") == (digest(b"second"), b"second")
    store.delete(blob_key(digest(b"first")))
    assert converted(store, KEY, lambda: b"third")[1] == b"third"


def test_crash_at_every_point_leaves_no_record_without_its_bytes() -> None:
    def run(fuse: Fuse) -> None:
        store = MemoryStore()
        guarded = Guarded(store, fuse, "get", "create", "size")
        try:
            converted(guarded, KEY, lambda: b"made")
        except Crash:
            assert store.size(KEY) is None or store.size(blob_key(digest(b"made"))) is not None
        assert converted(store, KEY, lambda: b"made")[1] == b"made"

    assert crash_everywhere(run) >= 3


@pytest.mark.parametrize("data", [None, b"other"], ids=["lost", "damaged"])
def test_a_layer_that_is_not_whole_is_named(data: bytes | None) -> None:
    store, name = MemoryStore(), digest(b"layer")
    if data is not None:
        store.put(blob_key(name), data)
    with pytest.raises(DamagedLayer, match=f"layer {name} of looker is not whole"):
        sound_layer(store, "looker", name)
