"""However the last process ended and whatever the disk holds, a node starts with the best release it can serve."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from edgeloop.clients.objects import DirectoryStore, StoreUnavailable
from edgeloop.edge.releases import loading
from edgeloop.edge.releases import state as states
from edgeloop.edge.releases.attempts import CRASHES, PAUSE_SECONDS, SURVIVED_SECONDS
from edgeloop.edge.releases.state import StateFile, StateInUse, StateLock
from edgeloop.fleet.publisher import Publisher
from edgeloop.fleet.signing import Keys
from tests.unit.edge.agents import Site, site
from tests.unit.edge.fakes import SERVICE, FakeModel, load_fake, publish

__all__ = ["site"]


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


# --- the disk


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
