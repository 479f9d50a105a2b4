"""Releases come to a ring batch by batch: fetched and verified before they serve, and given up before they can harm."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgeloop.clients.objects import StoreUnavailable
from edgeloop.edge.releases import loading
from edgeloop.edge.releases.attempts import PAUSE_SECONDS
from edgeloop.edge.releases.downloads import Interrupted
from edgeloop.edge.releases.staging import LOOK_SECONDS
from edgeloop.samples.records import digest, hexdigest
from edgeloop.samples.releases import Layer, Next, Release, Wanted, blob_key, metadata_key, release_key
from tests.unit.edge.batches import EVERYONE, NOBODY, NODES, Ring, RingNode, asked, bound, first, key_of
from tests.unit.edge.fakes import SERVICE, FakeModel, load_fake, publish


@pytest.fixture
def ring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ring:
    monkeypatch.setattr(loading, "load_model", load_fake)
    return Ring(tmp_path)


def with_config(ring: Ring, release: Release, config: bytes) -> Release:
    """``release`` with another config."""
    ring.store.create(blob_key(digest(config)), config)
    layer = Layer(role="config", digest=digest(config), size=len(config), media_type="x")
    layers = [layer if one.role == "config" else one for one in release.layers]
    made = release.model_copy(update={"layers": layers})
    ring.store.put(release_key(SERVICE, made.digest), made.to_bytes())
    return made


def settled(ring: Ring, *names: str) -> tuple[Release, list[RingNode]]:
    """A release that nodes serve, and these."""
    good, nodes = publish(ring.store, "1"), ring.nodes(*names)
    ring.run(good)
    for node in nodes:
        assert node.poll() and node.serving == good.digest
    return good, nodes


# --- batches


def test_batch_by_batch_nodes_switch_and_the_others_have_it_ready(ring: Ring) -> None:
    good, nodes = settled(ring)
    new = publish(ring.store, "2")
    for count in (0, 1, 2):
        ring.bring(good, new, bound("s", NODES, count))
        for node in nodes:
            node.poll()
        assert sum(node.serving == new.digest for node in nodes) == count
        for node in nodes:
            waits = node.serving == good.digest
            assert node.staged == (new.digest if waits else None) and node.holds(new)
            assert node.agent.status(SERVICE)[0].wanted == node.serving
    ring.run(new)
    assert [node.poll() for node in nodes].count(True) == 1
    assert all((node.serving, node.staged) == (new.digest, None) for node in nodes)


def test_what_waits_is_not_loaded_and_read_from_the_disk_once(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    good, [node] = settled(ring, "n1")
    new = publish(ring.store, "2", load=False)
    ring.bring(good, new)
    assert node.poll() is False and node.staged == new.digest and node.changes > 0
    node.changes = 0
    with monkeypatch.context() as patched:
        patched.setattr(node.blobs, "bring", None)
        node.poll()
    assert node.staged == new.digest and node.changes == 0
    assert [key for key in ring.store.gets if not key.startswith("channel/")] == []


def test_a_node_that_joins_late_runs_what_the_ring_runs_and_makes_ready(ring: Ring) -> None:
    good, new = publish(ring.store, "1"), publish(ring.store, "2")
    ring.run(good)
    ring.bring(good, new)
    late = ring.node("late")
    assert late.poll() is True
    assert (late.serving, late.staged) == (good.digest, new.digest)


def test_a_rollout_that_is_taken_back_leaves_nothing_behind(ring: Ring) -> None:
    good, nodes = settled(ring)
    new = publish(ring.store, "2")
    ring.bring(good, new, bound("s", NODES, 1))
    for node in nodes:
        node.poll()
    ring.run(good)
    for node in nodes:
        node.poll()
        assert (node.serving, node.staged) == (good.digest, None)
        assert node.holds(new) == (node.name == first())  # there it is the release before


def test_a_record_of_an_older_cloud_and_fields_of_a_newer_one_are_understood(ring: Ring) -> None:
    good, [node] = settled(ring, "n1")
    new = publish(ring.store, "2")
    ring.publisher.approve(SERVICE, new.digest)
    ring.sign(Wanted(service=SERVICE, ring=0, release=new.digest, sequence=50))
    assert node.poll() is True and node.serving == new.digest
    coming = Next.model_validate({"release": good.digest, "salt": "s", "below": EVERYONE, "colour": "blue"})
    unknown: dict[str, Any] = {"hints": {"a": [1]}}
    ring.sign(Wanted(service=SERVICE, ring=0, release=new.digest, sequence=51, next=coming, **unknown))
    assert node.poll() is True and node.serving == good.digest


# --- the store is cut off


def test_a_node_that_has_it_ready_switches_with_everything_but_the_record_cut_off(ring: Ring) -> None:
    good, [node] = settled(ring, "n1")
    new = publish(ring.store, "2")
    ring.bring(good, new)
    node.poll()
    ring.bring(good, new, EVERYONE)
    ring.store.away, ring.store.leaves = True, "channel/"
    assert node.poll() is True and node.serving == new.digest
    assert asked(ring.store.gets, new) == []


def test_a_node_that_has_it_ready_and_has_read_the_record_needs_nothing_more(
    ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, [node] = settled(ring, "n1")
    new = publish(ring.store, "2")
    ring.bring(good, new)
    node.poll()
    ring.bring(good, new, EVERYONE)
    read = node.channel.wanted

    def then_cut(service: str) -> Wanted | None:
        record = read(service)
        ring.store.away = True
        return record

    monkeypatch.setattr(node.channel, "wanted", then_cut)
    assert node.poll() is True and node.serving == new.digest


@pytest.mark.parametrize("kind", ["staged", "its turn"])
def test_a_long_download_hides_no_way_back(ring: Ring, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    former, [node] = settled(ring, "n1")
    bad, large = publish(ring.store, "2"), publish(ring.store, "3", pad="x" * 100_000)
    ring.run(bad)
    node.poll()
    node.rate = 65_536  # chunks of 16 KiB
    node.boot()
    ring.bring(bad, large, NOBODY if kind == "staged" else EVERYONE)
    real, chunks = ring.store.get_range, list[int]()

    def slow(key: str, start: int, end: int) -> bytes:
        if key == key_of(large):
            chunks.append(start)
            ring.uptime += LOOK_SECONDS / 2
            if len(chunks) == 2 and node.serving == bad.digest:
                ring.run(former)
        return real(key, start, end)

    monkeypatch.setattr(ring.store, "get_range", slow)
    with pytest.raises(Interrupted, match="the channel has changed"):
        node.poll()
    assert chunks == [0, 16_384]
    assert node.poll() is True and node.serving == former.digest
    ring.bring(former, large, salt="t")
    chunks.clear()
    node.poll()
    assert node.agent.staged(SERVICE) == large.digest and len(chunks) == 7


def test_a_channel_that_is_away_interrupts_no_download(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    good, [node] = settled(ring, "n1")
    large = publish(ring.store, "2", pad="x" * 100_000)
    node.rate = 65_536
    node.boot()
    ring.bring(good, large)
    real, chunks = ring.store.get_range, list[int]()

    def slow(key: str, start: int, end: int) -> bytes:
        if key == key_of(large):
            chunks.append(start)
            ring.uptime += LOOK_SECONDS
        ring.store.away = bool(chunks) and not key.startswith("blobs/")
        return real(key, start, end)

    monkeypatch.setattr(ring.store, "get_range", slow)
    node.poll()
    assert node.staged == large.digest and len(chunks) == 7
    assert ring.store.gets.count(metadata_key("timestamp.json")) >= 6


def test_a_store_that_goes_away_while_it_is_staged_is_asked_again(ring: Ring) -> None:
    good, [node] = settled(ring, "n1")
    new = publish(ring.store, "2")
    ring.bring(good, new)
    ring.store.away, ring.store.leaves = True, "channel/"
    with pytest.raises(StoreUnavailable):
        node.poll()
    assert (node.serving, node.staged, node.given_up) == (good.digest, None, None)
    assert "away" in str(node.agent.status(SERVICE)[1])
    ring.store.away = False
    node.poll()
    assert node.staged == new.digest and node.agent.status(SERVICE)[1] is None


# --- kills


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("at", ["manifest", "blob", "disk"])
def test_killed_while_it_stages_a_node_goes_on_where_it_was(
    ring: Ring, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    good, [node] = settled(ring, "n1")
    new = publish(ring.store, "2")
    ring.bring(good, new)
    real = ring.store.get_range

    def kill(key: str, start: int, end: int) -> bytes:
        if key.startswith("releases/" if at == "manifest" else "blobs/"):
            raise Killed
        return real(key, start, end)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        if at == "disk":
            patched.setattr(node.agent._loader, "check_config", lambda *_: (_ for _ in ()).throw(Killed))
        else:
            patched.setattr(ring.store, "get_range", kill)
        node.poll()
    node.boot()
    assert (node.serving, node.staged) == (good.digest, None)
    node.blobs.sweep(node.state.state.in_use())  # as any other service may
    node.poll()
    assert node.staged == new.digest and node.holds(new)
    again = asked(ring.store.gets, new)
    assert (again == []) == (at == "disk")


def test_killed_between_staging_and_switch_it_needs_no_blob_again(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    good, [node] = settled(ring, "n1")
    new = publish(ring.store, "2")
    ring.bring(good, new)
    node.poll()
    ring.bring(good, new, EVERYONE)

    def kill(*_: object, **__: object) -> FakeModel:
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(loading, "load_model", kill)
        node.poll()
    node.boot()
    assert node.serving == good.digest
    node.blobs.sweep(node.state.state.in_use())
    assert node.poll() is True and node.serving == new.digest
    assert asked(ring.store.gets, new) == []


def test_without_its_memory_a_node_does_not_start_with_what_only_waits(ring: Ring) -> None:
    good, [node] = settled(ring, "n1")
    new = publish(ring.store, "2")
    ring.bring(good, new)
    node.poll()
    (node.folder / "state.json").unlink()
    node.boot()
    assert node.serving == good.digest
    ring.bring(good, new, EVERYONE)
    node.poll()
    (node.folder / "state.json").unlink()
    node.boot()
    assert node.serving == new.digest


# --- the disk


def test_a_full_disk_is_said_before_the_switch_and_looked_at_again(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    good, [node] = settled(ring, "n1")
    new = publish(ring.store, "2")
    ring.bring(good, new)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100, total=10**9))
        assert node.poll() is False
        assert node.given_up is not None and node.given_up.release == new.digest and node.given_up.until
        assert "free some" in str(node.agent.status(SERVICE)[1])
        assert (node.serving, node.staged) == (good.digest, None)
    ring.bring(good, new, bound("s", ["x", "n1"], 0))
    node.poll()
    assert asked(ring.store.gets, new) == []
    ring.wall += PAUSE_SECONDS + 1
    node.poll()
    assert node.staged == new.digest and node.state.service(SERVICE).declined is None


@pytest.mark.parametrize("restarted", [False, True])
def test_what_rots_on_the_disk_while_it_waits_is_fetched_again_before_it_serves(ring: Ring, restarted: bool) -> None:
    good, [node] = settled(ring, "n1")
    new = publish(ring.store, "2")
    ring.bring(good, new)
    node.poll()
    (node.folder / "blobs" / "sha256" / key_of(new).rpartition("/")[2]).write_bytes(b"rotten")
    if restarted:
        node.boot()
        node.poll()
        assert node.staged == new.digest and key_of(new) in ring.store.gets
    ring.bring(good, new, EVERYONE)
    assert node.poll() is True and node.serving == new.digest
    assert (key_of(new) in ring.store.gets) != restarted


# --- given up


def faulty(ring: Ring, fault: str) -> Release:
    """A release that is given up when it is staged."""
    new = publish(ring.store, "2")
    if fault == "config":
        return with_config(ring, new, b'{"service": "adder"}')
    if fault == "service":
        config = json.loads(ring.store.get(key_of(new, "config"))) | {"service": "another"}
        return with_config(ring, new, json.dumps(config).encode())
    if fault == "flipped":
        ring.store.flip(key_of(new))
    return new


@pytest.mark.parametrize("fault", ["config", "service", "flipped", "manifest"])
def test_what_does_not_verify_is_given_up_and_said_before_any_switch(ring: Ring, fault: str) -> None:
    good, nodes = settled(ring)
    bad = faulty(ring, fault)
    for below in (NOBODY, bound("s", NODES, 1), EVERYONE):
        ring.bring(good, bad, below)
        if fault == "manifest" and below == NOBODY:
            ring.store.flip(release_key(SERVICE, bad.digest))
        for node in nodes:
            assert node.poll() is False
            assert (node.serving, node.staged) == (good.digest, None)
            assert node.given_up is not None and node.given_up.release == bad.digest
            assert node.agent.status(SERVICE)[1]
            assert (below == NOBODY) or asked(ring.store.gets, bad) == []
    ring.run(bad)  # its rollout has ended with most nodes on it
    for node in nodes:
        assert node.poll() is False and asked(ring.store.gets, bad) == []
    ring.run(good)
    ring.bring(good, bad, salt="t")
    for node in nodes:
        node.poll()
        assert asked(ring.store.gets, bad) != [] or fault in {"config", "service"}
        assert node.given_up is not None and node.given_up.wish == "t"


@pytest.mark.parametrize("fault", ["probe", "trial"])
def test_what_fails_at_the_switch_is_not_tried_again_by_the_same_rollout_or_the_next(ring: Ring, fault: str) -> None:
    good, [node] = settled(ring, "n1")
    node.ask()
    bad = publish(ring.store, "2", **({"probe": "no"} if fault == "probe" else {"broken": True}))

    def stays() -> None:
        assert node.poll() is False and node.serving == good.digest
        assert asked(ring.store.gets, bad) == []
        assert bad.digest not in (node.state.service(SERVICE).trying, node.staged)

    ring.bring(good, bad, "f" * 15 + "d")
    node.poll()
    node.ask()
    assert node.serving == good.digest and node.given_up is not None and node.given_up.wish == "s"
    for below in ("f" * 15 + "e", EVERYONE):
        ring.bring(good, bad, below)
        stays()
        node.boot()
        stays()
    ring.run(bad)
    stays()
    newest = publish(ring.store, "3")
    for below in (NOBODY, "0" * 15 + "1", "0" * 15 + "2"):  # the next rollout, on top of the one that failed here
        ring.bring(bad, newest, below, salt="u")
        stays()
        assert node.staged == newest.digest
    ring.run(newest)
    assert node.poll() is True and node.serving == newest.digest and node.given_up is None


def test_another_rollout_of_a_refused_release_is_tried_again(ring: Ring) -> None:
    good, [node] = settled(ring, "n1")
    bad = publish(ring.store, "2", probe="no")
    for salt in ("s", "t"):
        ring.bring(good, bad, salt=salt)
        node.poll()
        assert (node.staged, node.given_up) == (bad.digest, None)
        ring.bring(good, bad, EVERYONE, salt=salt)
        assert node.poll() is False and node.given_up is not None and node.given_up.wish == salt
        assert asked(ring.store.gets, bad) == []  # it was here


def test_faults_of_what_serves_and_of_what_waits_do_not_take_turns(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    _, [node] = settled(ring, "n1")
    base = publish(ring.store, "2", probe="no")
    coming = with_config(ring, publish(ring.store, "3"), b"{}")
    ring.run(base)
    ring.bring(base, coming)
    loads: list[object] = []

    def counted(*given: Any, **more: Any) -> FakeModel:
        loads.append(given)
        return load_fake(*given, **more)

    monkeypatch.setattr(loading, "load_model", counted)
    for _ in range(5):
        node.poll()
    known = node.state.service(SERVICE)
    assert known.refused is not None and known.refused.release == base.digest
    assert known.declined is not None and known.declined.release == coming.digest
    assert len(loads) == 1
    assert node.blobs.kept(coming.digest) is None and node.blobs.kept(base.digest) is None


def test_a_release_that_is_withdrawn_while_it_waits_never_serves(ring: Ring) -> None:
    good, [node] = settled(ring, "n1")
    new = publish(ring.store, "2")
    ring.bring(good, new)
    node.poll()
    ring.publisher.withdraw(SERVICE, new.digest)
    node.poll()
    assert node.staged is None and "is not approved" in str(node.agent.status(SERVICE)[1])
    assert not node.holds(new)


def test_an_unloaded_service_makes_nothing_ready(ring: Ring) -> None:
    good, [node] = settled(ring, "n1")
    node.agent.unload(SERVICE)
    ring.bring(good, publish(ring.store, "2"))
    assert node.poll() is False and node.staged is None


def test_counters_begin_anew_with_the_release_that_serves(ring: Ring) -> None:
    _, [node] = settled(ring, "n1")
    node.stats.answered(SERVICE, 0.5, 0.5)
    node.stats.failed(SERVICE, "model_error")
    counted = node.stats.services[SERVICE]
    assert (counted.release_answered, counted.release_failed, counted.quantile(0.5)) == (1, 1, 500.0)
    ring.run(publish(ring.store, "2"))
    node.poll()
    assert (counted.release_answered, counted.release_failed, counted.quantile(0.5)) == (0, 0, None)
    assert (counted.outcomes["ok"], counted.failed) == (1, 1)


def test_blobs_of_what_waits_stay_when_others_go(ring: Ring) -> None:
    good, [node] = settled(ring, "n1")
    old = publish(ring.store, "0")
    ring.publisher.approve(SERVICE, old.digest)
    new, newer = publish(ring.store, "2"), publish(ring.store, "3")
    ring.bring(good, new)
    node.poll()
    ring.bring(good, newer, salt="t")  # another rollout has taken its place
    node.poll()
    names = {path.name for path in (node.folder / "blobs" / "sha256").iterdir()}
    assert names == {hexdigest(layer.digest) for release in (good, newer) for layer in release.layers}


def test_a_file_that_goes_away_after_it_came_is_no_fault_of_the_release(
    ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, [node] = settled(ring, "n1")
    new = publish(ring.store, "2")
    ring.bring(good, new)
    with monkeypatch.context() as patched:
        patched.setattr("edgeloop.edge.releases.blobs.Blobs.read", lambda *_: None)
        with pytest.raises(OSError, match="was here and is gone"):
            node.poll()
    assert node.agent.status(SERVICE)[0].declined is None
    node.poll()
    assert node.staged == new.digest
