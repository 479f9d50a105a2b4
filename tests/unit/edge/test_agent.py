"""What the channel names is fetched once, checked and served; what is not sound is refused and the old one stays."""

from __future__ import annotations

import shutil
from types import SimpleNamespace
from typing import Any

import pytest

from edgeloop.clients.objects import MemoryStore, ObjectMissing, StoreUnavailable
from edgeloop.edge.memory import MemoryBudget
from edgeloop.edge.releases import loading
from edgeloop.edge.releases.agent import Agent
from edgeloop.edge.releases.attempts import PAUSE_SECONDS
from edgeloop.edge.releases.blobs import Blobs
from edgeloop.edge.releases.channel import UnverifiedChannel
from edgeloop.edge.releases.loading import Loader
from edgeloop.edge.releases.state import StateFile
from edgeloop.samples.records import hexdigest
from tests.unit.edge.agents import TIMESTAMP, Site, layer_key, site
from tests.unit.edge.fakes import SERVICE, FakeModel, load_fake, publish

__all__ = ["site"]


def flip(store: MemoryStore, key: str) -> None:
    data = bytearray(store.get(key))
    data[len(data) // 2] ^= 1
    store.put(key, bytes(data))


def test_an_empty_channel_asks_for_nothing(site: Site) -> None:
    assert site.poll() is False
    assert site.agent.serving(SERVICE) is None


def test_a_release_is_fetched_once_and_only_what_is_lacking(site: Site) -> None:
    first = publish(site.store, "1")
    assert site.roll_out(first) is True
    assert site.agent.serving(SERVICE) == first.digest
    site.store.gets.clear()
    assert site.poll() is False
    assert site.store.gets == [TIMESTAMP]
    second = publish(site.store, "2")
    site.store.gets.clear()
    assert site.roll_out(second) is True
    assert [k for k in site.store.gets if k.startswith("blobs/")] == [layer_key(second)]


def test_only_the_blobs_of_the_serving_and_the_previous_release_stay(site: Site) -> None:
    releases = [publish(site.store, str(n)) for n in range(3)]
    for release in releases:
        site.roll_out(release)
    wanted = {hexdigest(la.digest) for r in releases[1:] for la in r.layers}
    assert site.blobs() == wanted
    state, _ = site.agent.status(SERVICE)
    assert (state.serving, state.previous) == (releases[2].digest, releases[1].digest)


def test_it_boots_from_the_disk_without_a_store(site: Site) -> None:
    release = publish(site.store, "1")
    site.roll_out(release)
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
    site.roll_out(first)
    site.roll_out(second)
    path = site.folder / "blobs" / "sha256" / layer_key(second).rsplit("/", 1)[1]
    path.write_bytes(b"rotten")
    site.boot()
    assert site.agent.serving(SERVICE) == first.digest
    assert site.poll() is True
    assert site.agent.serving(SERVICE) == second.digest


@pytest.mark.parametrize("fault", ["load", "probe", "config"])
def test_a_faulty_release_is_refused_and_not_tried_again_until_the_channel_changes(site: Site, fault: str) -> None:
    good = publish(site.store, "1")
    site.roll_out(good)
    bad = publish(site.store, "2", probe="no" if fault == "probe" else "yes", load=fault != "load")
    if fault == "config":
        bad = bad.model_copy(update={"layers": [la for la in bad.layers if la.role != "config"]})
        site.store.put(f"releases/{SERVICE}/{hexdigest(bad.digest)}.json", bad.to_bytes())
    site.changes = 0
    assert site.roll_out(bad) is False
    state, error = site.agent.status(SERVICE)
    assert site.agent.serving(SERVICE) == good.digest
    assert state.refused is not None and state.refused.release == bad.digest and error
    assert state.wanted == bad.digest and site.changes >= 1 and state.trying is None
    assert {"load": "does not load", "probe": "probe input 0"}.get(fault, "config") in error
    site.store.gets.clear()
    site.boot()  # not even after a restart
    site.wall += 10 * PAUSE_SECONDS
    assert site.poll() is False
    assert not [key for key in site.store.gets if key == layer_key(bad)]
    site.want(good)
    site.poll()
    site.roll_out(bad)
    assert f"releases/{SERVICE}/{hexdigest(bad.digest)}.json" in site.store.gets
    assert site.roll_out(publish(site.store, "3")) is True
    assert site.agent.status(SERVICE)[0].refused is None


@pytest.mark.parametrize("fault", ["flipped", "truncated", "manifest"])
def test_wrong_bytes_in_the_store_are_refused_for_a_while(site: Site, fault: str) -> None:
    good, bad = publish(site.store, "1"), publish(site.store, "2")
    site.roll_out(good)
    site.want(bad)
    key = f"releases/{SERVICE}/{hexdigest(bad.digest)}.json" if fault == "manifest" else layer_key(bad)
    whole = site.store.get(key)
    if fault == "truncated":
        site.store.put(key, whole[:-3])
    else:
        flip(site.store, key)
    assert site.poll() is False
    assert site.store.gets.count(key) >= 2
    assert site.agent.serving(SERVICE) == good.digest
    state, error = site.agent.status(SERVICE)
    assert state.refused is not None and state.refused.release == bad.digest
    assert ("is not what was signed" if fault == "manifest" else "came as") in str(error)
    assert layer_key(bad).rsplit("/", 1)[1] not in {name.removesuffix(".part") for name in site.blobs()}
    site.store.gets.clear()
    assert site.poll() is False and site.store.gets == [TIMESTAMP]
    site.store.put(key, whole)
    site.wall += PAUSE_SECONDS + 1
    assert site.poll() is True
    assert site.agent.serving(SERVICE) == bad.digest
    assert site.agent.status(SERVICE)[1] is None


def test_a_release_that_would_fill_the_disk_is_tried_again_when_there_is_room(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, big = publish(site.store, "1"), publish(site.store, "2")
    site.roll_out(good)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100, total=10**9))
        assert site.roll_out(big) is False
    state, error = site.agent.status(SERVICE)
    assert site.agent.serving(SERVICE) == good.digest and "free some" in str(error)
    assert state.refused is not None and state.refused.until is not None
    site.store.gets.clear()
    assert site.poll() is False and site.store.gets == [TIMESTAMP]
    site.wall += PAUSE_SECONDS + 1
    assert site.poll() is True


def test_a_release_that_was_not_approved_is_not_even_fetched(site: Site) -> None:
    good, bad = publish(site.store, "1"), publish(site.store, "2")
    site.roll_out(good)
    site.want(bad)
    site.publisher.withdraw(SERVICE, bad.digest)
    site.store.gets.clear()
    assert site.poll() is False
    assert "is not approved" in str(site.agent.status(SERVICE)[1])
    assert not [key for key in site.store.gets if key.startswith(("blobs/", "releases/"))]
    assert site.agent.serving(SERVICE) == good.digest
    site.publisher.approve(SERVICE, bad.digest)
    site.wall += PAUSE_SECONDS + 1
    assert site.poll() is True


def test_a_store_that_is_away_is_not_the_releases_fault(site: Site) -> None:
    release = publish(site.store, "1")
    key = layer_key(release)
    data = site.store.get(key)
    site.store.delete(key)
    with pytest.raises(ObjectMissing):
        site.roll_out(release)
    assert site.agent.status(SERVICE)[0].refused is None
    site.store.put(key, data)
    assert site.poll() is True


def test_a_channel_that_cannot_be_believed_is_not_followed_and_said(site: Site) -> None:
    first, second = publish(site.store, "1"), publish(site.store, "2")
    site.roll_out(first)
    site.want(second)
    flip(site.store, TIMESTAMP)
    with pytest.raises(UnverifiedChannel):
        site.poll()
    assert site.agent.serving(SERVICE) == first.digest
    assert "channel" in str(site.agent.status(SERVICE)[1])
    site.publisher.refresh()
    assert site.poll() is True
    assert site.agent.status(SERVICE)[1] is None


def test_a_model_that_does_not_fit_is_refused_with_figures_and_before_it_is_fetched(site: Site) -> None:
    big = publish(site.store, "1")
    loader = Loader(MemoryBudget(100, resident=lambda: 99 * 1024 * 1024))
    agent = Agent(site.channel, site.runtime, Blobs(site.folder), StateFile(site.folder), site.stats, loader=loader)
    site.want(big)
    assert agent.poll(SERVICE, site.store) is False
    assert "over the limit of 100 MB" in str(agent.status(SERVICE)[1])
    assert layer_key(big) not in site.store.gets


# --- by hand


def test_unloaded_by_hand_it_stays_so_until_loaded(site: Site) -> None:
    first, second = publish(site.store, "1"), publish(site.store, "2")
    site.roll_out(first)
    assert site.agent.unload(SERVICE) is True
    assert site.agent.unload(SERVICE) is False
    assert site.roll_out(second) is False and site.agent.serving(SERVICE) is None
    assert site.agent.load(SERVICE) is True
    assert site.agent.serving(SERVICE) == first.digest
    assert site.poll() is True and site.agent.serving(SERVICE) == second.digest


def test_an_unload_while_a_boot_loads_is_not_undone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.roll_out(publish(site.store, "1"))
    site.prove()

    def slow(*given: Any, **more: Any) -> FakeModel:
        site.agent.unload(SERVICE)  # meanwhile
        return load_fake(*given, **more)

    monkeypatch.setattr(loading, "load_model", slow)
    site.agent.boot([SERVICE])
    assert site.agent.serving(SERVICE) is None and site.agent.status(SERVICE)[0].trying is None
