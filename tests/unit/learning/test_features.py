"""Features are computed once: not where a sample brought them, and not where somebody did it before."""

from __future__ import annotations

import threading
from typing import Any, cast

import numpy as np
import pytest

from edgeloop.clients.models import Backbone
from edgeloop.clients.objects import MemoryStore
from edgeloop.learning.features import (
    MissingFeatures,
    features_of,
    load_cache,
)
from edgeloop.samples.records import digest
from edgeloop.samples.segments import to_row
from tests.unit.samples.make import picture, withheld

DIGEST = "sha256:" + "0" * 64


class Counting:
    """A backbone that counts what it is asked for; its features are no round numbers."""

    size = 8
    length = 3

    def __init__(self, name: str = DIGEST) -> None:
        self.digest = name
        self.calls = 0
        self._lock = threading.Lock()

    def features(self, image: Any) -> Any:
        with self._lock:
            self.calls += 1
        assert image.shape == (8, 8, 3)
        return image.astype(np.float32).mean(axis=(0, 1)) / 3


def row(number: int, **changes: Any) -> dict[str, Any]:
    return {"payload": picture(number), "embedding": None, "backbone_digest": None} | changes


def brought(number: int, values: list[float], name: str = DIGEST) -> dict[str, Any]:
    return row(number, embedding=np.asarray(values, "<f2").tobytes(), backbone_digest=name)


def ask(store: MemoryStore, backbone: Counting, rows: list[dict[str, Any]]) -> Any:
    return features_of(store, cast(Backbone, backbone), rows)


def test_each_payload_is_computed_once_and_kept() -> None:
    store, backbone = MemoryStore(), Counting()
    first = ask(store, backbone, [row(1), row(2), row(1)])
    assert backbone.calls == 2
    assert first.shape == (3, 3)
    assert first.dtype == np.float32
    assert np.array_equal(first[0], first[2])
    assert np.array_equal(ask(store, backbone, [row(2), row(1)]), first[[1, 0]])
    assert backbone.calls == 2
    ask(store, backbone, [row(1), row(3)])
    assert backbone.calls == 3
    assert set(load_cache(store, DIGEST)) == {digest(picture(n)) for n in (1, 2, 3)}


def test_features_pass_through_the_precision_they_travel_with() -> None:
    backbone = Counting()
    found = ask(MemoryStore(), backbone, [row(1)])
    assert np.array_equal(found, found.astype(np.float16).astype(np.float32))
    again = ask(MemoryStore(), backbone, [brought(1, found[0].tolist())])
    assert np.array_equal(again, found)


def test_what_a_sample_brought_is_used() -> None:
    store, backbone = MemoryStore(), Counting()
    found = ask(store, backbone, [brought(1, [1, 2, 3]), brought(2, [4, 5, 6])])
    assert found.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert backbone.calls == 0
    assert list(store.list("features")) == []


def test_the_features_of_another_backbone_are_not() -> None:
    store, backbone = MemoryStore(), Counting()
    assert ask(store, backbone, [brought(1, [1, 2, 3], "sha256:other")]).tolist() != [[1, 2, 3]]
    assert backbone.calls == 1
    other = Counting("sha256:" + "1" * 64)
    ask(store, other, [row(1)])
    assert other.calls == 1


def test_a_sample_that_names_a_backbone_and_brought_nothing_is_computed() -> None:
    backbone = Counting()
    assert ask(MemoryStore(), backbone, [row(1, backbone_digest=DIGEST)]).shape == (1, 3)
    assert backbone.calls == 1


def test_empty_features_are_computed_anew() -> None:
    rows = [brought(1, [1, 2, 3]), row(2, embedding=b"", backbone_digest=DIGEST)]
    assert ask(MemoryStore(), Counting(), rows).shape == (2, 3)


@pytest.mark.parametrize("embedding", [b"\0", bytes(4), bytes(20)], ids=["odd", "short", "long"])
def test_features_of_another_length_are_computed_anew(embedding: bytes) -> None:
    """One damaged sample must not keep a service from ever being trained again."""
    backbone = Counting()
    rows = [brought(1, [1, 2, 3]), row(2, embedding=embedding, backbone_digest=DIGEST), row(3)]
    found = ask(MemoryStore(), backbone, rows)
    assert found.shape == (3, 3)
    assert backbone.calls == 2


def test_features_that_are_not_finite_are_computed_anew() -> None:
    backbone = Counting()
    found = ask(MemoryStore(), backbone, [brought(1, [1, np.inf, 2]), brought(2, [np.nan, 1, 2])])
    assert np.isfinite(found).all()
    assert backbone.calls == 2


# --- samples whose raw input stayed at the node


def bare(number: int, values: list[float], name: str = DIGEST) -> dict[str, Any]:
    return to_row(withheld(number, values, name))


def test_without_a_raw_input_the_features_it_brought_are_used() -> None:
    store, backbone = MemoryStore(), Counting()
    found = ask(store, backbone, [bare(1, [1, 2, 3]), row(2), bare(3, [7, 8, 9])])
    assert found[[0, 2]].tolist() == [[1, 2, 3], [7, 8, 9]]
    assert backbone.calls == 1
    assert set(load_cache(store, DIGEST)) == {digest(picture(2))}


def test_inputs_that_share_an_empty_payload_do_not_share_features() -> None:
    found = ask(MemoryStore(), Counting(), [bare(n, [n, n, n]) for n in range(5)])
    assert found[:, 0].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "lost",
    [bare(1, [1, 2, 3], "sha256:other"), bare(1, [1, 2]), bare(1, [1, np.nan, 3]), bare(1, [])],
    ids=["another backbone", "short", "not finite", "none"],
)
def test_without_input_and_features_a_sample_is_of_no_use(lost: dict[str, Any]) -> None:
    with pytest.raises(MissingFeatures, match=f"1 inputs, {digest(picture(1))} among them.*: leave them out"):
        ask(MemoryStore(), Counting(), [row(2), lost, bare(3, [1, 2, 3])])


def test_an_input_that_was_computed_before_needs_no_bytes() -> None:
    """The same photo came with its bytes once, say with the reference data."""
    store = MemoryStore()
    before = ask(store, Counting(), [row(1)])
    lost = bare(1, [1, 2, 3], "sha256:other")
    assert np.array_equal(ask(store, Counting(), [lost]), before)


def test_the_same_input_with_and_without_its_bytes() -> None:
    backbone = Counting()
    for rows in ([row(1), bare(1, [1, 2, 3], "sha256:other")], [bare(1, [1, 2, 3], "sha256:other"), row(1)]):
        found = ask(MemoryStore(), backbone, rows)
        assert np.array_equal(found[0], found[1])


def test_of_no_rows_there_are_no_features() -> None:
    assert ask(MemoryStore(), Counting(), []).shape == (0, 3)


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    tiny = [row(n, payload=picture(n, (8, 8))) for n in range(250)]
    features_of(MemoryStore(), cast(Backbone, Counting()), tiny, lambda done, of: told.append((done, of)))
    assert told == [(100, 250), (200, 250)]
