from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgeloop.clients.objects import DirectoryStore, MemoryStore, ObjectMissing, StoreUnavailable
from edgeloop.edge.memory import MemoryBudget
from edgeloop.edge.releases import loading
from edgeloop.edge.releases import state as states
from edgeloop.edge.releases.agent import Agent
from edgeloop.edge.releases.attempts import CRASHES, PAUSE_SECONDS, SURVIVED_SECONDS
from edgeloop.edge.releases.blobs import Blobs
from edgeloop.edge.releases.channel import Channel, UnverifiedChannel
from edgeloop.edge.releases.downloads import Downloads
from edgeloop.edge.releases.loading import Loader
from edgeloop.edge.releases.state import StateFile, StateInUse, StateLock
from edgeloop.edge.runtime import TRIAL, WINDOW, ModelFailed, Runtime
from edgeloop.edge.stats import Stats
from edgeloop.fleet.publisher import Publisher
from edgeloop.fleet.signing import Keys
from edgeloop.samples.records import hexdigest
from edgeloop.samples.releases import Release, blob_key, metadata_key
from tests.unit.edge.fakes import SERVICE, FakeModel, load_fake, publish

TIMESTAMP = metadata_key("timestamp.json")


class Site:
    """A store that counts and can be away, the signed channel in it, and one node's agent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = CountingStore()
        self.publisher = Publisher(self.store, Keys(folder / "keys"))
        self.root = self.publisher.ensure()
        self.changes = 0
        self.wall = 1_000_000.0
        self.uptime = 50.0
        self.boot()

    def boot(self) -> None:
        self.runtime = Runtime(1)
        self.stats = Stats([SERVICE])
        self.channel = Channel(lambda: self.store, self.root, self.folder / "channel", 0)
        self.agent = Agent(
            self.channel,
            self.runtime,
            Blobs(self.folder, Downloads(sleep=lambda _: None)),
            StateFile(self.folder),
            self.stats,
            changed=self._changed,
            wall=lambda: self.wall,
            monotonic=lambda: self.uptime,
        )
        self.agent.boot([SERVICE])

    def _changed(self) -> None:
        self.changes += 1

    def poll(self) -> bool:
        return self.agent.poll(SERVICE, self.store)

    def want(self, release: Release) -> None:
        self.publisher.approve(SERVICE, release.digest)
        self.publisher.point(SERVICE, 0, release.digest)
        self.store.gets.clear()

    def roll_out(self, release: Release) -> bool:
        self.want(release)
        return self.poll()

    def prove(self) -> None:
        """The release in service passes its trial."""
        loaded = self.runtime.loaded(SERVICE)
        assert loaded is not None
        for _ in range(TRIAL):
            self.runtime.predict(SERVICE, b"[1, 0]")
        assert not loaded.on_trial

    def blobs(self) -> set[str]:
        return {p.name for p in (self.folder / "blobs" / "sha256").iterdir()}


class CountingStore(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.gets: list[str] = []
        self.away = False

    def get(self, key: str) -> bytes:
        if self.away:
            raise StoreUnavailable("memory:", "away")
        return super().get(key)

    def get_range(self, key: str, start: int, end: int) -> bytes:
        self.gets.append(key)
        return super().get_range(key, start, end)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(loading, "load_model", load_fake)
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


def layer_name(release: Release) -> str:
    return layer_key(release).rsplit("/", 1)[1]


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


def fail(site: Site, times: int) -> int:
    """Ask so often; how often it failed."""
    failed = 0
    for _ in range(times):
        try:
            site.runtime.predict(SERVICE, b"[0.5,0.5]")
        except ModelFailed:
            failed += 1
    return failed


def test_a_release_that_fails_on_its_first_inputs_is_taken_back(site: Site) -> None:
    good = publish(site.store, "1")
    site.roll_out(good)
    bad = publish(site.store, "2", broken=True)
    assert site.roll_out(bad) is True
    assert site.agent.status(SERVICE)[0].trying == bad.digest
    assert fail(site, TRIAL) == TRIAL // 2 + 1
    state, error = site.agent.status(SERVICE)
    assert site.agent.serving(SERVICE) == good.digest == state.serving
    assert state.refused is not None and state.refused.release == bad.digest and state.trying is None
    assert "failed on most" in str(error)
    assert site.poll() is False
    site.boot()
    assert site.poll() is False and site.agent.serving(SERVICE) == good.digest


def test_a_proven_release_that_fails_later_is_taken_back_once_and_from_the_disk(site: Site) -> None:
    good, bad = publish(site.store, "1"), publish(site.store, "2")
    site.roll_out(good)
    site.prove()
    site.roll_out(bad)
    site.prove()
    loaded = site.runtime.loaded(SERVICE)
    assert loaded is not None and isinstance(loaded.model, FakeModel)
    loaded.model.broken = True
    assert fail(site, WINDOW // 2) == WINDOW // 2 and site.agent.serving(SERVICE) == bad.digest
    fail(site, 1)
    until(lambda: site.agent.serving(SERVICE) == good.digest)
    state, error = site.agent.status(SERVICE)
    assert state.refused is not None and state.refused.release == bad.digest and "failed on most" in str(error)
    again = site.runtime.loaded(SERVICE)
    assert again is not None and isinstance(again.model, FakeModel)
    again.model.broken = True
    fail(site, 2 * WINDOW)
    site.agent.fall_back(SERVICE, good.digest)
    assert site.agent.serving(SERVICE) == good.digest  # there is nothing behind it


def test_a_release_on_trial_is_nothing_to_fall_back_to_while_there_is_a_proven_one(site: Site) -> None:
    proven, tried = publish(site.store, "1"), publish(site.store, "2")
    site.roll_out(proven)
    site.prove()
    site.roll_out(tried)
    site.roll_out(publish(site.store, "3", broken=True))
    assert site.agent.status(SERVICE)[0].previous == proven.digest and layer_name(proven) in site.blobs()
    fail(site, TRIAL)
    assert site.agent.serving(SERVICE) == proven.digest


def test_after_a_restart_too_it_falls_back_to_the_proven_release(site: Site) -> None:
    proven, tried = publish(site.store, "1"), publish(site.store, "2")
    site.roll_out(proven)
    site.prove()
    site.roll_out(tried)
    site.boot()
    site.roll_out(publish(site.store, "3", broken=True))
    fail(site, TRIAL)
    until(lambda: site.agent.serving(SERVICE) == proven.digest)


def test_rolled_back_to_the_proven_release_it_does_not_fall_back_to_itself(site: Site) -> None:
    proven, tried = publish(site.store, "1"), publish(site.store, "2")
    site.roll_out(proven)
    site.prove()
    site.roll_out(tried)
    site.roll_out(proven)
    assert site.agent.status(SERVICE)[0].previous == tried.digest
    site.roll_out(publish(site.store, "3", broken=True))  # on trial again or not, it has served longer
    fail(site, TRIAL)
    assert site.agent.serving(SERVICE) == proven.digest


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_the_previous_release_is_forgotten_when_the_next_is_proven(site: Site) -> None:
    site.roll_out(publish(site.store, "1"))
    second = publish(site.store, "2")
    site.roll_out(second)
    assert site.agent.status(SERVICE)[0].trying == second.digest
    site.prove()
    assert site.agent.status(SERVICE)[0].trying is None


# --- a release that kills the process


def die(site: Site) -> None:
    """The process is gone, and the next one starts."""
    site.boot()


def test_a_release_that_kills_the_process_on_trial_is_refused_in_the_end(site: Site) -> None:
    good, bad = publish(site.store, "1"), publish(site.store, "2")
    site.roll_out(good)
    site.prove()
    site.roll_out(bad)
    for _ in range(CRASHES - 1):
        die(site)
        assert site.agent.serving(SERVICE) == bad.digest
        loaded = site.runtime.loaded(SERVICE)
        assert loaded is not None and loaded.on_trial
    die(site)
    state, error = site.agent.status(SERVICE)
    assert site.agent.serving(SERVICE) == good.digest == state.serving
    assert f"the process died {CRASHES} times" in str(error)
    assert site.poll() is False and site.agent.serving(SERVICE) == good.digest
    assert site.roll_out(publish(site.store, "3")) is True


def test_a_release_with_nothing_before_it_gets_another_chance_after_a_pause(site: Site) -> None:
    only = publish(site.store, "1")
    site.roll_out(only)
    for _ in range(CRASHES):
        die(site)
    assert site.agent.serving(SERVICE) is None
    assert site.poll() is False and site.agent.serving(SERVICE) is None
    site.wall += PAUSE_SECONDS
    assert site.poll() is True and site.agent.serving(SERVICE) == only.digest
    site.prove()
    die(site)
    assert site.agent.serving(SERVICE) == only.digest


def test_a_refused_release_with_one_before_it_gets_no_other_chance(site: Site) -> None:
    good, bad = publish(site.store, "1"), publish(site.store, "2")
    site.roll_out(good)
    site.prove()
    site.roll_out(bad)
    for _ in range(CRASHES):
        die(site)
    site.wall += 2 * PAUSE_SECONDS
    assert site.poll() is False and site.agent.serving(SERVICE) == good.digest


@pytest.mark.parametrize("mercy", ["a good end", "a long life"])
def test_ends_that_are_not_its_fault_do_not_count(site: Site, mercy: str) -> None:
    site.roll_out(publish(site.store, "1"))
    site.prove()
    bad = publish(site.store, "2")
    site.roll_out(bad)
    for _ in range(2 * CRASHES):
        if mercy == "a good end":
            site.agent.close()
        else:
            site.uptime += SURVIVED_SECONDS + 1
            site.agent.look()
        die(site)
        assert site.agent.serving(SERVICE) == bad.digest


def test_a_clock_that_is_set_forward_is_no_long_life(site: Site) -> None:
    site.roll_out(publish(site.store, "1"))
    site.wall += 10 * SURVIVED_SECONDS
    site.agent.look()
    assert site.agent.status(SERVICE)[0].tries == 1
    site.uptime += SURVIVED_SECONDS + 1
    site.agent.look()
    assert site.agent.status(SERVICE)[0].tries == 0


def killed_while_it_loads(site: Site, monkeypatch: pytest.MonkeyPatch, times: int = 1) -> None:
    """Processes begin to load what serves, and are gone before it is loaded."""

    def kill(*_: object, **__: object) -> FakeModel:
        raise KeyboardInterrupt

    for _ in range(times):
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(loading, "load_model", kill)
            site.boot()


def test_a_proven_release_is_proven_still_when_a_start_was_cut_short(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.roll_out(publish(site.store, "1"))
    site.prove()
    killed_while_it_loads(site, monkeypatch, CRASHES - 1)
    die(site)
    loaded = site.runtime.loaded(SERVICE)
    assert loaded is not None and not loaded.on_trial
    assert site.agent.status(SERVICE)[0].trying is None and site.agent.status(SERVICE)[0].tries == 0


@pytest.mark.parametrize("count", [1, 2])
def test_a_proven_release_rests_and_is_not_given_up(site: Site, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    releases = [publish(site.store, str(number)) for number in range(count)]
    for release in releases:
        site.roll_out(release)
        site.prove()
    killed_while_it_loads(site, monkeypatch, CRASHES)
    site.store.away = True
    die(site)
    before = releases[0].digest if count > 1 else None
    assert site.agent.serving(SERVICE) == before  # not loaded at once: the other services have a life too
    assert f"the process died {CRASHES} times" in str(site.agent.status(SERVICE)[1])
    with pytest.raises(StoreUnavailable):
        site.poll()
    assert site.agent.serving(SERVICE) == before
    site.wall += PAUSE_SECONDS + 1
    site.uptime += PAUSE_SECONDS + 1
    site.store.away = count == 1  # with nothing else it needs no store for another chance
    with suppress(StoreUnavailable):
        site.poll()
    assert site.agent.serving(SERVICE) == releases[-1].digest
    assert site.agent.status(SERVICE)[0].refused is None


def test_a_boot_ends_between_two_services_and_blames_nobody(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    release = publish(site.store, "1")
    site.roll_out(release)
    site.boot()
    site.runtime.unload(SERVICE)
    loads, buried = list[object](), list[str]()

    def slow(*given: Any, **more: Any) -> FakeModel:
        loads.append(given)
        site.agent.close()  # meanwhile
        return load_fake(*given, **more)

    monkeypatch.setattr(loading, "load_model", slow)
    monkeypatch.setattr(site.agent._attempts, "bury", buried.append)
    site.agent.boot([SERVICE, "other"])
    assert len(loads) == 1 and buried == [SERVICE]
    state, _ = site.agent.status(SERVICE)
    assert site.agent.serving(SERVICE) is None and (state.trying, state.tries) == (release.digest, 0)
    assert site.agent.load(SERVICE) is False and len(loads) == 1


DYING = """
import os, signal, sys
from pathlib import Path
from edgeloop.clients.objects import DirectoryStore
from edgeloop.edge.releases import loading
from edgeloop.edge.releases.agent import Agent
from edgeloop.edge.releases.blobs import Blobs
from edgeloop.edge.releases.channel import Channel
from edgeloop.edge.runtime import Runtime
from edgeloop.edge.releases.state import StateFile
from edgeloop.edge.stats import Stats
from tests.unit.edge.fakes import SERVICE, load_fake

def load(config, layers, backbone=None, **more):
    if b'"kills": true' in layers["model"]:
        os.kill(os.getpid(), signal.SIGSEGV)
    return load_fake(config, layers, backbone)

loading.load_model = load
folder = Path(sys.argv[1])
store, root = DirectoryStore(folder / "store"), (folder / "keys" / "root.json").read_bytes()
channel = Channel(lambda: store, root, folder / "channel", 0)
agent = Agent(channel, Runtime(1), Blobs(folder), StateFile(folder), Stats([SERVICE]))
agent.boot([SERVICE])
agent.poll(SERVICE, store)
print(agent.serving(SERVICE))
"""


def run_dying(folder: Path) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-c", DYING, str(folder)], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.strip()


def test_a_release_that_kills_the_process_while_it_loads_does_not_do_so_for_ever(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    publisher = Publisher(store, Keys(tmp_path / "keys"))
    good, bad = publish(store, "1"), publish(store, "2", kills=True)
    for release in (good, bad):
        publisher.approve(SERVICE, release.digest)
    publisher.point(SERVICE, 0, good.digest)
    assert run_dying(tmp_path) == (0, good.digest)
    publisher.point(SERVICE, 0, bad.digest)
    assert [run_dying(tmp_path)[0] for _ in range(CRASHES)] == [-signal.SIGSEGV] * CRASHES
    assert run_dying(tmp_path) == (0, good.digest)


# --- by hand, and the disk


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


def test_a_model_that_does_not_fit_is_refused_with_figures_and_before_it_is_fetched(site: Site) -> None:
    big = publish(site.store, "1")
    loader = Loader(MemoryBudget(100, resident=lambda: 99 * 1024 * 1024))
    agent = Agent(site.channel, site.runtime, Blobs(site.folder), StateFile(site.folder), site.stats, loader=loader)
    site.want(big)
    assert agent.poll(SERVICE, site.store) is False
    assert "over the limit of 100 MB" in str(agent.status(SERVICE)[1])
    assert layer_key(big) not in site.store.gets


def test_a_state_that_cannot_be_read_is_set_aside_and_the_release_found_again(site: Site) -> None:
    release = publish(site.store, "1")
    site.roll_out(release)
    path = site.folder / "state.json"
    path.write_text('{"salt": 1', encoding="utf-8")
    site.store.away = True
    site.boot()
    assert site.agent.serving(SERVICE) == release.digest
    assert path.with_name("state.json.unreadable").read_text(encoding="utf-8") == '{"salt": 1'
    assert json.loads(path.read_text(encoding="utf-8"))["services"][SERVICE]["serving"] == release.digest


def test_a_disk_that_cannot_be_written_stops_no_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    StateLock(tmp_path).release()
    kept = StateFile(tmp_path).state.salt
    (tmp_path / "lock").unlink()
    real = os.open

    def refuse(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, "Read-only file system")
        return real(path, flags, mode)

    monkeypatch.setattr("edgeloop.edge.releases.state.os.open", refuse)
    first = StateLock(tmp_path)
    with pytest.raises(StateInUse):
        StateLock(tmp_path)
    first.release()
    assert StateFile(tmp_path).state.salt == kept


def test_a_full_disk_stops_neither_a_switch_nor_a_start(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = publish(site.store, "1"), publish(site.store, "2")
    site.roll_out(first)

    def full(path: Path, _data: bytes) -> None:
        raise OSError(errno.ENOSPC, f"No space left on device: {path.name}")

    with monkeypatch.context() as patch:
        patch.setattr(states, "write_durably", full)
        assert site.roll_out(second) is True
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
