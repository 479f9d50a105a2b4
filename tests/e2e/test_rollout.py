"""Eight nodes in three rings under live traffic: what is good goes everywhere, what is not is stopped at ring 0."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import numpy as np
import pytest

from edgeloop.clients.objects import DirectoryStore
from edgeloop.learning.gate import decide
from edgeloop.samples.judging import Gate
from edgeloop.samples.records import digest
from edgeloop.samples.releases import Layer, Release, blob_key, release_key
from tests.e2e.field import LABELS, NODES, RINGS, SERVICE, Field, field, fitted, fresh, known, onnx_of, truth
from tests.e2e.nodes import Releaser, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    with field(tmp_path_factory.mktemp("field")) as made:
        yield made


@pytest.fixture(scope="module")
def champion(fleet: Field) -> Release:
    """The first release, on every node, with answers that devices have judged."""
    first = fleet.release(fresh(fleet, 1))
    assert fleet.roll_out(first)
    assert fleet.to_end().state == "done"
    fleet.settle(first)
    fleet.devices.errors.clear()  # of before there was a release
    return first


def good_one(fleet: Field, seed: int) -> Release:
    made = fleet.release(fresh(fleet, seed))
    assert fleet.roll_out(made)
    assert fleet.to_end().state == "done"
    fleet.settle(made)
    return made


def test_a_good_release_goes_everywhere_ring_by_ring(fleet: Field, champion: Release) -> None:
    made = fleet.release(fresh(fleet, 2))
    assert fleet.roll_out(made)
    early: list[str] = []

    def look(status: object) -> None:
        serving = {name for name, report in fleet.reports().items() if report.serving == made.digest}
        if serving & set(RINGS[2]) and not set(RINGS[0] + RINGS[1]) <= serving:
            early.append(f"ring 2 before the others: {serving}")

    status = fleet.to_end(seen=look)
    assert (status.state, early) == ("done", [])
    fleet.settle(made)
    assert fleet.devices.who(made) == set(NODES)
    assert fleet.devices.errors == [], "no request fails while nodes switch"


def test_a_release_that_is_wrong_only_in_the_field_is_taken_back_by_itself(fleet: Field, champion: Release) -> None:
    """It passes the gate, whose samples are of the world as it was; devices know the world as it is."""
    before = good_one(fleet, 3)
    old, live = known(4, -1, 1), known(5, 5, 9)
    rows, labels = np.vstack([old, live]), np.concatenate([truth(old), 1 - truth(live)])
    tree = fitted(rows, labels, 4)
    gate = known(6, -1, 1)
    former = np.where(gate[:, 1] < 0.2, 0, truth(gate)).astype(np.float64)
    said = np.asarray([LABELS.index(label) for label in tree.predict(gate)], dtype=np.float64)
    verdict = decide(Gate(min_samples=40), "accuracy", truth(gate).astype(np.float64), said, former, {})
    assert verdict.verdict == "pass"
    bad = fleet.release(onnx_of(tree))
    assert fleet.roll_out(bad)
    status = fleet.to_end()
    assert status.state == "reverted", status
    assert "accuracy" in status.reason
    assert fleet.devices.who(bad) == set(RINGS[0]), "it answered in ring 0 and nowhere else"
    fleet.settle(before)


def test_what_is_broken_or_foreign_answers_nothing(fleet: Field, champion: Release) -> None:
    before = good_one(fleet, 7)
    unloadable = fleet.release(fresh(fleet, 8))
    model = unloadable.layer("model")
    assert model is not None
    blob = fleet.folder / "store" / blob_key(model.digest)
    whole = blob.read_bytes()
    blob.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # one bit of the model, after it was signed
    assert fleet.roll_out(unloadable)
    status = fleet.to_end()
    assert status.state == "reverted", status
    fleet.settle(before)
    assert fleet.devices.who(unloadable) == set()


def test_a_release_signed_by_another_key_answers_nothing(fleet: Field, champion: Release) -> None:
    before = good_one(fleet, 9)
    stranger = fleet.release(fresh(fleet, 10))
    ours = fleet.folder / "store" / "channel"
    kept = fleet.folder / "kept"
    shutil.copytree(ours, kept)
    elsewhere = fleet.folder / "elsewhere"
    shutil.copytree(fleet.folder / "store", elsewhere / "store", ignore=shutil.ignore_patterns("channel"))
    other = Releaser(DirectoryStore(elsewhere / "store"), elsewhere / "keys")
    other.channel.approve(SERVICE, stranger.digest)
    for ring in RINGS:
        other.channel.point(SERVICE, ring, stranger.digest)
    shutil.copytree(elsewhere / "store" / "channel", ours, dirs_exist_ok=True)
    try:
        until(lambda: all(_complains(r.last_error) for r in fleet.reports().values()), "every node says so", 30)
        assert {r.serving for r in fleet.reports().values()} == {before.digest}
    finally:
        shutil.rmtree(ours)
        shutil.copytree(kept, ours)
    assert fleet.devices.who(stranger) == set()
    until(lambda: not any(_complains(r.last_error) for r in fleet.reports().values()), "every node believes again", 30)
    assert good_one(fleet, 11).digest in {r.serving for r in fleet.reports().values()}


def _complains(error: str | None) -> bool:
    return error is not None and "channel" in error


def test_a_model_that_does_not_load_answers_nothing(fleet: Field, champion: Release) -> None:
    before = good_one(fleet, 12)
    good = fleet.release(fresh(fleet, 13))
    junk = b"no model at all"
    fleet.store.create(blob_key(digest(junk)), junk)
    media = good.layers[0].media_type
    broken = Layer(role="model", digest=digest(junk), size=len(junk), media_type=media)
    layers = [broken if one.role == "model" else one for one in good.layers]
    bad = good.model_copy(update={"layers": layers})
    fleet.store.put(release_key(SERVICE, bad.digest), bad.to_bytes())
    assert fleet.roll_out(bad)
    status = fleet.to_end()
    assert status.state == "reverted", status
    fleet.settle(before)
    assert fleet.devices.who(bad) == set()
