"""Publisher and node over one store: whatever is cut off, raced, forged or withheld, a node sees the old or the new."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest
from tuf.api.metadata import Metadata, TargetFile, Timestamp

from edgeloop.clients.objects import DirectoryStore, MemoryStore, ObjectStore, StoreUnavailable
from edgeloop.edge.releases.channel import (
    FULL_CHECK_SECONDS,
    Channel,
    CorruptManifest,
    ExpiredChannel,
    NoTrust,
    RolledBackChannel,
    UnapprovedRelease,
    UnsignedChannel,
    UnusableRoot,
    UnverifiedChannel,
    read_root,
)
from edgeloop.fleet.metadata import LIFETIMES
from edgeloop.fleet.publisher import Publisher
from edgeloop.fleet.signing import ROLES, Keys
from edgeloop.samples.records import hexdigest, now
from edgeloop.samples.releases import MalformedRelease, Release, metadata_key, release_key, wanted_target
from tests.contract.channel_site import SERVICE, Site
from tests.contract.stores import at_once
from tests.unit.samples.broken import Crash, Fuse, Guarded, crash_everywhere

TIMESTAMP = metadata_key("timestamp.json")


@pytest.fixture(params=["memory", "directory"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    return Site(tmp_path, MemoryStore() if request.param == "memory" else DirectoryStore(tmp_path / "store"))


@pytest.fixture
def memory(tmp_path: Path) -> Site:
    return Site(tmp_path, MemoryStore())


# --- what a node sees


def test_a_node_follows_its_ring(site: Site) -> None:
    assert site.seen() is None
    for number in (0, 1, 2, 0):
        site.point(number)
        assert site.seen() == site.releases[number].digest
    assert site.node.wanted("other") is None
    assert site.node.release(SERVICE, site.releases[1].digest) == site.releases[1]
    assert site.seen(site.channel("fresh")) == site.seen(site.channel()) == site.releases[0].digest


def test_before_there_is_a_channel_nothing_is_wanted(tmp_path: Path, memory: Site) -> None:
    empty = MemoryStore()
    assert Channel(lambda: empty, memory.root, tmp_path / "n", 0).wanted(SERVICE) is None


def test_when_nothing_has_changed_a_look_costs_one_small_read(memory: Site) -> None:
    memory.point(0)
    memory.seen()
    memory.gets.clear()
    assert memory.seen() == memory.releases[0].digest
    assert [key for key, _ in memory.gets] == [TIMESTAMP]
    assert memory.gets[0][1] < 512
    memory.gets.clear()
    memory.point(1)
    memory.seen()
    assert len(memory.gets) <= 7 and sum(size for _, size in memory.gets) < 8192
    memory.gets.clear()
    memory.seen(memory.channel())  # after a restart: what is on the disk is not read again
    assert sum(size for _, size in memory.gets) < 2048


def test_a_node_reads_the_metadata_of_its_own_services_only(memory: Site) -> None:
    for number in range(30):
        other = Release(service=f"s{number}", version="1", run_id="r", dataset="d", layers=[])
        memory.store.put(release_key(other.service, other.digest), other.to_bytes())
        memory.publisher.approve(other.service, other.digest)
        memory.publisher.point(other.service, 0, other.digest)
    memory.point(0)
    memory.seen()
    memory.node.release(SERVICE, memory.releases[0].digest)
    assert not [key for key, _ in memory.gets if "-s" in key]


def test_without_a_root_nothing_is_believed(tmp_path: Path, memory: Site) -> None:
    channel = Channel(lambda: memory.store, None, tmp_path / "n", 0)
    for ask in (lambda: channel.wanted(SERVICE), lambda: channel.release(SERVICE, "sha256:1")):
        with pytest.raises(NoTrust, match=r"trust: root\.json"):
            ask()


@pytest.mark.parametrize("data", [None, b"", b"[]", b'{"signed": {"_type": "targets"}}'])
def test_a_file_that_is_no_root_is_named(tmp_path: Path, data: bytes | None) -> None:
    path = tmp_path / "root.json"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(UnusableRoot, match=r"root\.json"):
        read_root(path)


# --- what is not approved, or not the bytes


def test_what_the_approver_never_signed_is_refused_even_when_a_ring_wants_it(memory: Site) -> None:
    """The key of the rings is stolen: it can move rings, and nothing else."""
    bad = memory.put("bad")
    memory.point(0)
    repository = memory.repository()

    def steal(draft: object) -> bool:
        from edgeloop.fleet.draft import Draft

        assert isinstance(draft, Draft)
        targets = draft.edit(f"rings-{SERVICE}")
        path = release_key(SERVICE, bad.digest)
        targets.targets[path] = TargetFile(len(bad.to_bytes()), {"sha256": hexdigest(bad.digest)}, path)
        parent = draft.edit("rings").delegations
        assert parent is not None and parent.roles is not None
        parent.roles[f"rings-{SERVICE}"].paths = ["*/*/*"]
        return True

    repository.commit(steal)
    with pytest.raises(UnapprovedRelease, match="is not approved"):
        memory.node.release(SERVICE, bad.digest)
    assert memory.node.release(SERVICE, memory.releases[0].digest)


def test_the_approvers_key_cannot_move_a_ring(memory: Site) -> None:
    memory.point(0)
    path = wanted_target(SERVICE, 0)

    def steal(draft: object) -> bool:
        from edgeloop.fleet.draft import Draft

        assert isinstance(draft, Draft)
        draft.edit(f"releases-{SERVICE}").targets[path] = TargetFile(1, {"sha256": "0" * 64}, path)
        return True

    memory.repository().commit(steal)
    assert memory.seen() == memory.releases[0].digest


def test_a_withdrawn_release_is_refused(memory: Site) -> None:
    memory.point(0)
    memory.seen()
    memory.publisher.withdraw(SERVICE, memory.releases[0].digest)
    assert memory.seen() == memory.releases[0].digest
    with pytest.raises(UnapprovedRelease):
        memory.node.release(SERVICE, memory.releases[0].digest)


def test_a_manifest_that_was_changed_in_the_store_is_refused(memory: Site) -> None:
    key = release_key(SERVICE, memory.releases[0].digest)
    memory.store.put(key, memory.store.get(key).replace(b'"d"', b'"e"'))
    with pytest.raises(CorruptManifest, match="is not what was signed"):
        memory.node.release(SERVICE, memory.releases[0].digest)


def test_a_manifest_in_another_spelling_is_refused(memory: Site) -> None:
    data = json.dumps(json.loads(memory.releases[0].to_bytes()), indent=1).encode()
    from edgeloop.samples.records import digest

    memory.store.put(release_key(SERVICE, digest(data)), data)
    memory.publisher.approve(SERVICE, digest(data))
    with pytest.raises(MalformedRelease, match="not canonical"):
        memory.node.release(SERVICE, digest(data))


def test_a_record_that_was_changed_in_the_store_is_refused(memory: Site) -> None:
    memory.point(0)
    [info] = memory.store.list("channel/targets")
    memory.store.put(info.key, memory.store.get(info.key).replace(b'"ring":0', b'"ring":1'))
    with pytest.raises(UnverifiedChannel):
        memory.seen()


# --- forged, withheld, put back


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "rings", f"rings-{SERVICE}"])
def test_another_signature_is_not_believed(memory: Site, tmp_path: Path, role: str) -> None:
    memory.point(0)
    assert memory.seen() == memory.releases[0].digest
    memory.point(1)
    forged = Site(tmp_path / "stranger", MemoryStore())
    forged.point(2)
    names = [i.key for i in memory.store.list("channel") if i.key.endswith((f".{role}.json", f"/{role}.json"))]
    newest = max(names, key=lambda key: (len(key), key))
    found = Metadata[Timestamp].from_bytes(memory.store.get(newest))
    signer = forged.keys.signers(role)[0]
    found.sign(signer)
    memory.store.put(newest, found.to_bytes())
    has_it = role in {"targets", "rings"}  # these did not change, so nodes do not fetch them again
    for channel in [memory.channel("fresh")] if has_it else [memory.node, memory.channel(), memory.channel("fresh")]:
        with pytest.raises(UnsignedChannel, match="not signed as it must be"):
            memory.seen(channel)


def test_a_root_of_others_is_not_followed(memory: Site, tmp_path: Path) -> None:
    stranger = Site(tmp_path / "stranger", MemoryStore())
    stranger.publisher.rotate("timestamp")
    memory.point(0)
    memory.seen()
    memory.store.put(metadata_key("2.root.json"), stranger.store.get(metadata_key("2.root.json")))

    with pytest.raises(UnverifiedChannel):
        memory.seen(memory.channel())
    with pytest.raises(UnverifiedChannel):
        memory.seen(memory.channel("other", stranger.root))


@pytest.mark.parametrize("restarted", [False, True])
def test_an_old_state_that_is_put_back_is_not_followed(memory: Site, restarted: bool) -> None:
    memory.point(0)
    old = memory.store.get(TIMESTAMP)
    memory.point(1)
    assert memory.seen() == memory.releases[1].digest
    memory.store.put(TIMESTAMP, old)
    with pytest.raises(RolledBackChannel, match="went back"):
        memory.seen(memory.channel() if restarted else memory.node)
    memory.point(2)
    assert memory.seen() == memory.releases[2].digest


def test_what_has_run_out_is_not_believed_until_it_is_signed_anew(memory: Site) -> None:
    memory.late = -LIFETIMES["timestamp"] - timedelta(hours=1)
    memory.point(0)
    with pytest.raises(ExpiredChannel, match="refresh it"):
        memory.seen()
    memory.late = timedelta()
    assert "timestamp" in memory.publisher.refresh()
    assert memory.seen() == memory.releases[0].digest


def test_a_node_that_is_shown_the_same_for_ever_notices(memory: Site) -> None:
    memory.late = -LIFETIMES["timestamp"] + timedelta(seconds=5)
    memory.point(0)
    end = Metadata[Timestamp].from_bytes(memory.store.get(TIMESTAMP)).signed.expires
    assert memory.seen() == memory.releases[0].digest
    _wait_until(lambda: now() > end)
    assert memory.seen() == memory.releases[0].digest  # within the hour it is not asked again
    memory.seconds += FULL_CHECK_SECONDS + 1
    with pytest.raises(ExpiredChannel):
        memory.seen()


def _wait_until(condition: Callable[[], bool]) -> None:
    waiting = threading.Event()
    for _ in range(500):
        if condition():
            return
        waiting.wait(0.02)
    raise AssertionError("waited in vain")


def test_a_channel_that_was_there_and_is_gone_is_said(memory: Site) -> None:
    memory.point(0)
    memory.seen()
    memory.store.delete(TIMESTAMP)
    with pytest.raises(UnverifiedChannel, match="is gone"):
        memory.seen()


def test_metadata_that_is_missing_or_too_long_is_said(memory: Site) -> None:
    memory.point(0)
    [key] = [i.key for i in memory.store.list("channel") if i.key.endswith(f"1.rings-{SERVICE}.json")]
    data = memory.store.get(key)
    memory.store.delete(key)
    with pytest.raises(UnverifiedChannel, match="not whole"):
        memory.seen()
    memory.store.put(key, data + b" " * 6_000_000)
    with pytest.raises(UnverifiedChannel, match="more than 5000000 bytes"):
        memory.seen(memory.channel("fresh"))


def test_a_store_that_is_away_is_that_and_no_more(tmp_path: Path, memory: Site) -> None:
    memory.point(0)

    def away() -> ObjectStore:
        raise StoreUnavailable("memory", "away")

    with pytest.raises(StoreUnavailable):
        Channel(away, memory.root, tmp_path / "n", 0).wanted(SERVICE)


def test_a_disk_that_takes_nothing_does_not_hide_the_channel(memory: Site) -> None:
    memory.point(0)
    (memory.folder / "blocked").write_bytes(b"")
    assert memory.seen(memory.channel("blocked/channel")) == memory.releases[0].digest


def test_what_a_power_cut_left_on_the_disk_is_read_again(memory: Site) -> None:
    memory.point(0)
    memory.seen()
    for path in (memory.folder / "node").rglob("*.json"):
        if not path.is_symlink():
            path.write_bytes(b"")
    assert memory.seen(memory.channel()) == memory.releases[0].digest


# --- new keys


@pytest.mark.parametrize("role", ROLES)
def test_nodes_follow_a_rotated_key(site: Site, role: str) -> None:
    site.point(0)
    assert site.seen() == site.releases[0].digest
    site.publisher.rotate(role)
    for channel in (site.node, site.channel(), site.channel("fresh"), site.channel("new", site.keys.root())):
        assert site.seen(channel) == site.releases[0].digest
    site.publisher.rotate(role)
    site.another().point(SERVICE, 0, site.releases[1].digest)
    assert site.seen() == site.releases[1].digest
    assert site.node.release(SERVICE, site.releases[1].digest) == site.releases[1]


@pytest.mark.parametrize("role", ROLES)
def test_a_rotation_that_is_cut_off_anywhere_leaves_nodes_at_work_and_goes_on(tmp_path: Path, role: str) -> None:
    def run(fuse: Fuse) -> None:
        site = Site(tmp_path / str(fuse.left), MemoryStore())
        site.point(0)
        site.seen()
        guarded = cast(ObjectStore, Guarded(site.store, fuse, "put", "create"))
        try:
            site.another(guarded).rotate(role)
        except Crash:
            assert site.seen() == site.seen(site.channel("fresh")) == site.releases[0].digest
            site.another().point(SERVICE, 0, site.releases[1].digest)
            assert site.seen() == site.releases[1].digest
            site.another().rotate(role)
        site.another().point(SERVICE, 0, site.releases[2].digest)
        assert site.seen() == site.seen(site.channel("fresher")) == site.releases[2].digest
        assert not list(site.keys.folder.glob("*.next.pem"))

    assert crash_everywhere(run) >= 3


# --- cut off, and raced


@pytest.mark.parametrize("kind", ["memory", "directory"])
def test_cut_off_at_any_write_nodes_see_the_old_or_the_new_and_the_next_goes_on(tmp_path: Path, kind: str) -> None:
    def run(fuse: Fuse) -> None:
        folder = tmp_path / str(fuse.left)
        site = Site(folder, MemoryStore() if kind == "memory" else DirectoryStore(folder / "store"))
        site.point(0)
        fourth = site.put("fourth")
        cut = site.another(cast(ObjectStore, Guarded(site.store, fuse, "put", "create")))
        try:
            cut.approve(SERVICE, fourth.digest)
            cut.point(SERVICE, 0, fourth.digest)
            cut.point(SERVICE, 1, fourth.digest)
        except Crash:
            assert site.seen() in {site.releases[0].digest, fourth.digest}
            assert site.seen(site.channel("fresh")) == site.seen()
        site.publisher.approve(SERVICE, fourth.digest)
        site.publisher.point(SERVICE, 0, fourth.digest)
        assert site.seen() == fourth.digest
        assert site.node.release(SERVICE, fourth.digest) == fourth

    assert crash_everywhere(run) >= 10


def test_a_set_up_that_is_cut_off_anywhere_goes_on(tmp_path: Path) -> None:
    def run(fuse: Fuse) -> None:
        store, keys = MemoryStore(), Keys(tmp_path / str(fuse.left))
        with suppress(Crash):
            Publisher(cast(ObjectStore, Guarded(store, fuse, "put", "create")), keys).ensure()
        root = Publisher(store, keys).ensure()
        assert Channel(lambda: store, root, tmp_path / f"node-{fuse.left}", 0).wanted(SERVICE) is None
        assert (tmp_path / f"node-{fuse.left}" / "timestamp.json").exists()

    assert crash_everywhere(run) >= 5


@pytest.mark.timeout(120)
def test_publishers_that_race_lose_nothing(site: Site) -> None:
    rings, rounds = 4, 3

    def publish(number: int) -> None:
        publisher = site.another()
        for turn in range(rounds):
            publisher.point(SERVICE, number, site.releases[(number + turn) % 3].digest)

    at_once(publish, rings)
    last = rounds - 1
    for ring in range(rings):
        record = site.publisher.wanted(SERVICE, ring)
        assert record is not None
        assert (record.release, record.sequence) == (site.releases[(ring + last) % 3].digest, rounds)
    assert site.seen() == site.releases[last % 3].digest


def test_two_first_publishers_make_one_channel(tmp_path: Path) -> None:
    store, keys = MemoryStore(), tmp_path / "keys"
    roots = at_once(lambda _: Publisher(store, Keys(keys)).ensure(), 4)
    assert len(set(cast(list[bytes], roots))) == 1


def test_who_comes_a_second_later_takes_the_root_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, keys = MemoryStore(), tmp_path / "keys"
    first = Publisher(store, Keys(keys)).ensure()
    (keys / "root.json").unlink()
    late = Publisher(store, Keys(keys), lambda: now() + timedelta(seconds=5))
    monkeypatch.setattr(late, "_found", lambda _: None)  # it was not there yet when it was looked for
    assert late.ensure() == first
