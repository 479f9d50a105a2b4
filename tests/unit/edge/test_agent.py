from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeloop.clients.objects import MemoryStore, ObjectMissing, StoreUnavailable
from edgeloop.edge import agent as agents
from edgeloop.edge import state as states
from edgeloop.edge.agent import Agent
from edgeloop.edge.blobs import Blobs
from edgeloop.edge.gateway import Gateway
from edgeloop.edge.runtime import TRIAL, Runtime
from edgeloop.edge.spool import Spool
from edgeloop.edge.state import StateFile, StateInUse, StateLock, UnreadableState
from edgeloop.edge.stats import Stats
from edgeloop.samples.records import hexdigest
from edgeloop.samples.releases import Release, blob_key, wanted_key
from tests.unit.edge.fakes import SERVICE, load_fake, publish, want


class Site:
    """A store that counts and can be away, and one node's agent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = CountingStore()
        self.changes = 0
        self.boot()

    def boot(self) -> None:
        self.runtime = Runtime(1)
        self.stats = Stats([SERVICE])
        self.agent = Agent(
            0, self.runtime, Blobs(self.folder), StateFile(self.folder), self.stats, changed=self._changed
        )
        self.agent.boot([SERVICE])

    def _changed(self) -> None:
        self.changes += 1

    def poll(self) -> bool:
        return self.agent.poll(SERVICE, self.store)

    def roll_out(self, release: Release, sequence: int) -> bool:
        want(self.store, release, sequence)
        return self.poll()

    def blobs(self) -> set[str]:
        return {p.name for p in (self.folder / "blobs" / "sha256").iterdir()}


class CountingStore(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.gets: list[str] = []
        self.away = False

    def get(self, key: str) -> bytes:
        self.gets.append(key)
        if self.away:
            raise StoreUnavailable("memory:", "away")
        return super().get(key)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(agents, "load_model", load_fake)
    made = Site(tmp_path)
    yield made
    made.runtime.close()


def flip(store: MemoryStore, key: str) -> None:
    data = bytearray(store.get(key))
    data[len(data) // 2] ^= 1
    store.put(key, bytes(data))


def layer_key(release: Release) -> str:
    layer = release.layer("model")
    assert layer is not None
    return blob_key(layer.digest)


def test_an_empty_channel_asks_for_nothing(site: Site) -> None:
    assert site.poll() is False
    assert site.agent.serving(SERVICE) is None


def test_a_release_is_fetched_once_and_only_what_is_lacking(site: Site) -> None:
    first = publish(site.store, "1")
    assert site.roll_out(first, 1) is True
    assert site.agent.serving(SERVICE) == first.digest
    site.store.gets.clear()
    assert site.poll() is False
    assert site.store.gets == [wanted_key(SERVICE, 0)]
    second = publish(site.store, "2")
    site.store.gets.clear()
    assert site.roll_out(second, 2) is True
    assert [k for k in site.store.gets if k.startswith("blobs/")] == [layer_key(second)]


def test_only_the_blobs_of_the_serving_and_the_previous_release_stay(site: Site) -> None:
    releases = [publish(site.store, str(n)) for n in range(3)]
    for sequence, release in enumerate(releases):
        site.roll_out(release, sequence)
    wanted = {hexdigest(la.digest) for r in releases[1:] for la in r.layers}
    assert site.blobs() == wanted
    state, _ = site.agent.status(SERVICE)
    assert (state.serving, state.previous) == (releases[2].digest, releases[1].digest)


def test_it_boots_from_the_disk_without_a_store(site: Site) -> None:
    release = publish(site.store, "1")
    site.roll_out(release, 1)
    site.store.away = True
    site.boot()
    assert site.agent.serving(SERVICE) == release.digest
    with pytest.raises(StoreUnavailable):
        site.poll()
    assert "away" in str(site.agent.status(SERVICE)[1])
    site.store.away = False
    assert site.poll() is False and site.agent.serving(SERVICE) == release.digest


def test_a_blob_damaged_on_the_disk_means_the_previous_release_and_a_new_fetch(site: Site) -> None:
    first, second = publish(site.store, "1"), publish(site.store, "2")
    site.roll_out(first, 1)
    site.roll_out(second, 2)
    path = site.folder / "blobs" / "sha256" / layer_key(second).rsplit("/", 1)[1]
    path.write_bytes(b"rotten")
    site.boot()
    assert site.agent.serving(SERVICE) == first.digest
    assert site.poll() is True
    assert site.agent.serving(SERVICE) == second.digest


@pytest.mark.parametrize("fault", ["blob", "manifest", "load", "probe", "config"])
def test_a_faulty_release_is_refused_and_not_tried_again_until_the_channel_changes(site: Site, fault: str) -> None:
    good = publish(site.store, "1")
    site.roll_out(good, 1)
    bad = publish(site.store, "2", probe="no" if fault == "probe" else "yes", load=fault != "load")
    if fault == "blob":
        flip(site.store, layer_key(bad))
    if fault == "manifest":
        flip(site.store, f"releases/{SERVICE}/{hexdigest(bad.digest)}.json")
    if fault == "config":
        bad = bad.model_copy(update={"layers": [la for la in bad.layers if la.role != "config"]})
        site.store.put(f"releases/{SERVICE}/{hexdigest(bad.digest)}.json", bad.to_bytes())
    site.changes = 0
    assert site.roll_out(bad, 2) is False
    state, error = site.agent.status(SERVICE)
    assert site.agent.serving(SERVICE) == good.digest
    assert state.refused is not None and state.refused.release == bad.digest and error
    assert state.wanted == bad.digest and site.changes >= 1
    expected = {"blob": "came as", "manifest": "its bytes have digest", "load": "does not load"}
    assert expected.get(fault, "probe input 0" if fault == "probe" else "config") in error
    if fault == "blob":
        assert layer_key(bad).rsplit("/", 1)[1] not in site.blobs()
    site.store.gets.clear()
    site.boot()  # not even after a restart
    assert site.poll() is False
    assert site.store.gets == [wanted_key(SERVICE, 0)]
    site.store.gets.clear()
    want(site.store, bad, 3)
    site.poll()
    assert len(site.store.gets) > 1
    assert site.roll_out(publish(site.store, "3"), 4) is True
    assert site.agent.status(SERVICE)[0].refused is None


def test_a_store_that_is_away_is_not_the_releases_fault(site: Site) -> None:
    release = publish(site.store, "1")
    key = layer_key(release)
    data = site.store.get(key)
    site.store.delete(key)
    with pytest.raises(ObjectMissing):
        site.roll_out(release, 1)
    assert site.agent.status(SERVICE)[0].refused is None
    site.store.put(key, data)
    assert site.poll() is True


def test_a_channel_that_goes_back_is_not_followed(site: Site) -> None:
    first, second = publish(site.store, "1"), publish(site.store, "2")
    site.roll_out(second, 5)
    assert site.roll_out(first, 4) is False
    assert site.agent.serving(SERVICE) == second.digest
    assert "went back from 5 to 4" in str(site.agent.status(SERVICE)[1])


def test_a_release_that_fails_on_its_first_inputs_is_taken_back(site: Site, tmp_path: Path) -> None:
    good = publish(site.store, "1")
    site.roll_out(good, 1)
    bad = publish(site.store, "2", broken=True)
    assert site.roll_out(bad, 2) is True
    spool = Spool(tmp_path / "spool")
    gateway = Gateway("n", site.runtime, spool, site.stats, b"s")
    outcomes = [gateway.handle(SERVICE, "d", b"[0.5,%d]" % n).outcome for n in range(TRIAL)]
    assert outcomes == ["model_error"] * (TRIAL // 2 + 1) + ["ok"] * (TRIAL // 2 - 1)
    state, error = site.agent.status(SERVICE)
    assert site.agent.serving(SERVICE) == good.digest == state.serving
    assert state.refused is not None and state.refused.release == bad.digest
    assert "failed on most" in str(error)
    assert site.poll() is False
    site.boot()
    assert site.poll() is False and site.agent.serving(SERVICE) == good.digest
    spool.close()


def test_a_proven_release_stays_even_if_it_fails_later(site: Site, tmp_path: Path) -> None:
    site.roll_out(publish(site.store, "1"), 1)
    second = publish(site.store, "2")
    site.roll_out(second, 2)
    loaded = site.runtime.loaded(SERVICE)
    assert loaded is not None
    for _ in range(TRIAL):
        assert loaded.count(failed=False) is False
    site.agent.forget_previous()
    assert not any(loaded.count(failed=True) for _ in range(TRIAL))
    site.agent.fall_back(SERVICE, second.digest)
    assert site.agent.serving(SERVICE) == second.digest


def test_a_state_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"salt": 1', encoding="utf-8")
    with pytest.raises(UnreadableState, match=r"state\.json cannot be read"):
        StateFile(tmp_path)


def test_a_full_disk_stops_neither_a_switch_nor_a_start(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = publish(site.store, "1"), publish(site.store, "2")
    site.roll_out(first, 1)

    def full(path: Path, _data: bytes) -> None:
        raise OSError(errno.ENOSPC, f"No space left on device: {path.name}")

    with monkeypatch.context() as patch:
        patch.setattr(states, "write_durably", full)
        assert site.roll_out(second, 2) is True
        assert site.agent.serving(SERVICE) == second.digest
        site.boot()
        assert site.agent.serving(SERVICE) == first.digest
    assert site.poll() is True
    site.boot()
    assert site.agent.serving(SERVICE) == second.digest


def test_two_nodes_cannot_share_a_state(tmp_path: Path) -> None:
    first = StateLock(tmp_path)
    with pytest.raises(StateInUse, match="used by another node"):
        StateLock(tmp_path)
    first.release()
    StateLock(tmp_path).release()


def test_the_salt_stays(tmp_path: Path) -> None:
    salt = StateFile(tmp_path).state.salt
    assert StateFile(tmp_path).state.salt == salt and len(salt) == 64
