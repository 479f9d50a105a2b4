"""Attacks on the channel, each against the node's own client, on a directory and on a real S3 server.

Those with rollback, freeze, wrong keys and unapproved manifests are in test_channel.py.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import Metadata, MetaFile, Snapshot, Targets, Timestamp

from edgeloop.clients.objects import DirectoryStore, MemoryStore, ObjectStore, open_store
from edgeloop.edge.releases.channel import (
    Channel,
    CorruptManifest,
    ExpiredChannel,
    RolledBackChannel,
    UnapprovedRelease,
    UnsignedChannel,
    UnverifiedChannel,
)
from edgeloop.fleet.approvals import APPROVED
from edgeloop.fleet.channel import NotApproved, Pointing
from edgeloop.fleet.draft import Draft
from edgeloop.fleet.metadata import LIFETIMES
from edgeloop.fleet.pointings import point
from edgeloop.fleet.signing import ROLES, role_key
from edgeloop.samples.releases import Next, Release, Wanted, metadata_key, release_key
from tests.contract.channel_site import SERVICE, Site
from tests.contract.stores import s3_url

TIMESTAMP = metadata_key("timestamp.json")
FAR = 10**6


@pytest.fixture(params=["directory", pytest.param("s3", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "directory":
        return DirectoryStore(tmp_path / "store")
    server = request.getfixturevalue("s3_server")
    return open_store(s3_url(server), environ=server.environ())


@pytest.fixture
def site(store: ObjectStore, tmp_path: Path) -> Site:
    return Site(tmp_path, store)


@pytest.fixture
def memory(tmp_path: Path) -> Site:
    return Site(tmp_path, MemoryStore())


def version_of(site: Site, role: str) -> int:
    draft = site.repository().read(finish=False)
    assert draft is not None
    return draft.version if role == "snapshot" else draft.roles[role]


def name_of(site: Site, role: str, back: int = 0) -> str:
    return metadata_key(f"{version_of(site, role) - back}.{role}.json")


# --- mix and match: every file is signed, and they never were together


@pytest.mark.parametrize("role", ["snapshot", f"rings-{SERVICE}", f"releases-{SERVICE}"])
def test_an_older_file_under_the_name_of_the_newest_is_refused(site: Site, role: str) -> None:
    site.point(0)
    assert site.seen() == site.releases[0].digest
    site.point(1)
    newest = name_of(site, role)
    kept = site.store.get(newest)
    site.store.put(newest, site.store.get(name_of(site, role, back=1)))
    for channel in (site.node, site.channel(), site.channel("fresh")):
        with pytest.raises(RolledBackChannel, match="went back"):
            site.seen(channel)
            channel.release(SERVICE, site.releases[1].digest)
    site.store.put(newest, kept)
    assert site.seen() == site.releases[1].digest
    assert site.node.release(SERVICE, site.releases[1].digest)


def test_an_older_snapshot_with_the_targets_of_today_is_refused(site: Site) -> None:
    site.point(0)
    then = site.store.get(TIMESTAMP)
    old = name_of(site, f"rings-{SERVICE}")
    site.point(1)
    site.store.put(TIMESTAMP, then)
    site.store.put(old, site.store.get(name_of(site, f"rings-{SERVICE}")))
    with pytest.raises(UnverifiedChannel):
        site.seen(site.channel("fresh"))


@pytest.mark.parametrize("kind", ["releases", "rings"])
def test_the_role_of_another_service_says_nothing_of_this_one(memory: Site, kind: str) -> None:
    """Both are signed by the same key, and metadata does not say whose it is."""
    made = [Release(service="other", version=str(n), run_id="r", dataset="d", layers=[]) for n in range(3)]
    for one in made:
        memory.store.put(release_key("other", one.digest), one.to_bytes())
        memory.publisher.approve("other", one.digest)
    memory.publisher.point("other", 0, made[0].digest)
    memory.point(0)
    assert version_of(memory, f"{kind}-other") == version_of(memory, f"{kind}-{SERVICE}")
    memory.store.put(name_of(memory, f"{kind}-{SERVICE}"), memory.store.get(name_of(memory, f"{kind}-other")))
    assert memory.seen() == (memory.releases[0].digest if kind == "releases" else None)
    if kind == "releases":
        for name in (made[0].digest, memory.releases[0].digest):
            with pytest.raises(UnapprovedRelease):
                memory.node.release(SERVICE, name)


# --- expired


def _sign_for_the_past(site: Site, role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = site.repository()
    with monkeypatch.context() as past:
        past.setitem(LIFETIMES, role_key(role), timedelta(hours=-1))
        _sign_anew(site, role)
    assert repository.read(finish=False) is not None


def _sign_anew(site: Site, role: str) -> None:
    repository = site.repository()
    if role == "root":
        root = repository.root()
        assert root is not None
        root.version += 1
        repository.write_root(root)
    repository.commit(lambda draft: role not in draft.roles or draft.edit(role) is not None)


@pytest.mark.parametrize("role", [*ROLES, f"releases-{SERVICE}", f"rings-{SERVICE}"])
def test_expired_metadata_of_every_role_is_refused(memory: Site, role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.point(0)
    assert memory.seen() == memory.releases[0].digest
    _sign_for_the_past(memory, role, monkeypatch)
    for channel in (memory.node, memory.channel(), memory.channel("fresh")):
        with pytest.raises(ExpiredChannel, match="has run out"):
            memory.seen(channel)
            channel.release(SERVICE, memory.releases[0].digest)
    _sign_anew(memory, role)
    assert memory.seen() == memory.releases[0].digest
    assert memory.node.release(SERVICE, memory.releases[0].digest)


# --- new keys in the middle of a rollout


def test_keys_that_change_between_two_rings_stop_no_node(site: Site) -> None:
    first, second, third = (one.digest for one in site.releases)
    away = site.channel("away", ring=1)
    site.publisher.point_many(SERVICE, {0: Pointing(first), 1: Pointing(first)})
    assert site.seen() == site.seen(away) == first
    coming = Next(release=second, salt="s", below="8" * 16)
    site.publisher.point_many(SERVICE, {0: Pointing(first, coming)})
    stolen = {role: site.keys.signers(role)[0] for role in ("rings", "releases")}

    for role in ("rings", "releases"):  # by another process, as a command does
        site.another().rotate(role)
    wanted = site.node.wanted(SERVICE)
    assert wanted is not None and wanted.next == coming and site.node.release(SERVICE, second)
    site.publisher.point_many(SERVICE, {0: Pointing(second), 1: Pointing(first, coming)})
    wanted = away.wanted(SERVICE)  # the first look since before both rotations
    assert wanted is not None and wanted.next == coming and away.release(SERVICE, second)
    assert site.seen() == second
    fourth = site.put("4")
    site.publisher.approve(SERVICE, fourth.digest)
    site.publisher.point_many(SERVICE, {0: Pointing(fourth.digest), 1: Pointing(fourth.digest)})
    for channel in (site.node, away, site.channel("fresh")):
        assert site.seen(channel) == fourth.digest and channel.release(SERVICE, fourth.digest) == fourth

    for role, signer in stolen.items():  # the old keys are worth nothing
        key = name_of(site, f"{role}-{SERVICE}")
        found = Metadata[Targets].from_bytes(site.store.get(key))
        found.sign(signer)
        kept = site.store.get(key)
        site.store.put(key, found.to_bytes())
        fresh = site.channel(f"after {role}")
        with pytest.raises(UnsignedChannel):
            site.seen(fresh)
            fresh.release(SERVICE, third)
        site.store.put(key, kept)


def test_all_keys_change_while_rings_move_and_nodes_look(tmp_path: Path) -> None:
    site = Site(tmp_path, DirectoryStore(tmp_path / "store"))
    site.point(0)
    done = threading.Event()
    failed: list[BaseException] = []

    def until_done(work: Callable[[int], object]) -> threading.Thread:
        def run() -> None:
            turn = 0
            while not done.wait(0.03):
                turn += 1
                try:
                    work(turn)
                except Exception as error:
                    failed.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def look(_: int) -> None:
        end = time.monotonic() + 20
        while True:
            try:
                looker.wanted(SERVICE)
                return
            except (UnsignedChannel, RolledBackChannel):
                # It read the root before a rotation and the timestamp after it, or that of a writer who was held up.
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)

    mover, looker = site.another(), site.channel("looker")
    threads = [
        until_done(lambda turn: mover.point(SERVICE, 1, site.releases[turn % 3].digest)),
        until_done(look),
    ]
    try:
        for role in ROLES:
            site.another().rotate(role)
    finally:
        done.set()
        for thread in threads:
            thread.join(60)
    assert failed == []
    site.publisher.point(SERVICE, 0, site.releases[2].digest)
    assert site.seen() == site.seen(looker) == site.releases[2].digest


@pytest.mark.parametrize("role", ROLES)
def test_a_writer_whose_key_is_replaced_meanwhile_begins_again_with_the_new_one(memory: Site, role: str) -> None:
    memory.point(0)
    turns: list[int] = []

    def change(draft: Draft) -> bool:
        if not turns:  # it has read the state, and signs after the rotation
            memory.another().rotate(role)
        turns.append(draft.version)
        for name in (f"rings-{SERVICE}", f"releases-{SERVICE}", "targets"):
            draft.edit(name)
        return True

    assert memory.repository().commit(change)
    assert len(turns) == 2 and turns[1] > turns[0]
    memory.point(1)
    assert memory.seen() == memory.seen(memory.channel("fresh")) == memory.releases[1].digest


def test_a_writer_whose_timestamp_key_is_replaced_after_it_decided_stamps_with_the_new_one(
    memory: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.point(0)
    real = memory.store.create

    def create(key: str, data: bytes) -> bool:
        done = real(key, data)
        if key.endswith(".snapshot.json"):
            monkeypatch.setattr(memory.store, "create", real)
            memory.another().rotate("timestamp")
        return done

    monkeypatch.setattr(memory.store, "create", create)
    assert memory.publisher.point(SERVICE, 0, memory.releases[1].digest)[1]  # new, so nodes are nudged
    assert memory.seen() == memory.seen(memory.channel("fresh")) == memory.releases[1].digest


def test_what_a_new_release_costs_a_node_is_a_few_kilobytes(memory: Site) -> None:
    said = {"twin": "sha256:" + "a" * 64, "approvers": ["ada", "bo"]}
    for number in range(2 * APPROVED):
        memory.publisher.approve(SERVICE, memory.put(f"more {number}").digest, said)
        if number == 0:
            memory.point(0)
    memory.seen()
    fresh = memory.put("new")
    memory.publisher.approve(SERVICE, fresh.digest, said)
    memory.publisher.point(SERVICE, 0, fresh.digest)
    memory.gets.clear()
    assert memory.seen() == fresh.digest and memory.node.release(SERVICE, fresh.digest)
    assert sum(size for _, size in memory.gets) < 10_000


# --- fast-forward: a thief counts so far ahead that nothing true is newer


def _signed(site: Site, role: str, signed: Any) -> bytes:
    made: Metadata[Any] = Metadata(signed)
    made.sign(site.keys.signers(role)[0])
    return made.to_bytes()


@pytest.mark.parametrize("reach", ["timestamp", "snapshot", "role"])
def test_versions_that_a_thief_counted_far_ahead_are_overcome_by_new_keys(site: Site, reach: str) -> None:
    site.point(0)
    site.seen()
    draft = site.repository().read()
    assert draft is not None
    until = site.now().replace(microsecond=0) + timedelta(days=9)
    site.store.put(TIMESTAMP, _signed(site, "timestamp", Timestamp(FAR, None, until, MetaFile(FAR))))
    if reach != "timestamp":
        role = f"rings-{SERVICE}"
        meta = {f"{name}.json": MetaFile(version) for name, version in draft.roles.items()}
        if reach == "role":
            meta[f"{role}.json"] = MetaFile(FAR)
        snapshot = _signed(site, "snapshot", Snapshot(FAR, None, until, meta))
        site.store.put(metadata_key(f"{FAR}.snapshot.json"), snapshot)
    if reach == "snapshot":
        site.seen()
    else:
        with pytest.raises(UnverifiedChannel, match="not whole"):
            site.seen()
    for role in ("timestamp", "snapshot"):
        site.another().rotate(role)
    site.point(1)
    for channel in (site.node, site.channel(), site.channel("fresh")):
        assert site.seen(channel) == site.releases[1].digest
        assert channel.release(SERVICE, site.releases[1].digest)


# --- endless data


def _sparse(store: ObjectStore, folder: Path, key: str, size: int = 100_000_000) -> None:
    assert isinstance(store, DirectoryStore)
    path = folder / "store" / key
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)


def _endless(site: Site) -> dict[str, str]:
    [record] = [i.key for i in site.store.list("channel/targets")]
    roles = ("targets", "rings", "releases", f"rings-{SERVICE}", f"releases-{SERVICE}", "snapshot")
    return {
        **{role: name_of(site, role) for role in roles},
        "timestamp": TIMESTAMP,
        "root": metadata_key("2.root.json"),
        "record": record,
        "manifest": release_key(SERVICE, site.releases[0].digest),
    }


@pytest.mark.parametrize("what", [*(r for r in ROLES), f"rings-{SERVICE}", f"releases-{SERVICE}", "record", "manifest"])
def test_endless_data_is_not_read_to_its_end(tmp_path: Path, what: str) -> None:
    site = Site(tmp_path, DirectoryStore(tmp_path / "store"))
    site.point(0)
    _sparse(site.store, tmp_path, _endless(site)[what])
    channel = site.channel("fresh")
    with pytest.raises((UnverifiedChannel, CorruptManifest)):
        site.seen(channel)
        channel.release(SERVICE, site.releases[0].digest)
    most = 2 * 5_000_001 if what == "manifest" else 5_100_000
    assert sum(size for _, size in site.gets) < most


# --- a ring wants what nobody approved


def _steal(site: Site, record: Wanted) -> None:
    """Sign ``record`` with the key of the rings, which asks nobody."""

    def change(draft: Draft) -> bool:
        point(draft, site.keys, record)
        return True

    site.repository().commit(change)


def test_a_record_that_names_an_unapproved_release_now_or_next_runs_nothing(site: Site) -> None:
    bad, good = site.put("bad").digest, site.releases[0].digest
    coming = Next(release=bad, salt="s", below="f" * 16)
    with pytest.raises(NotApproved):
        site.publisher.point_many(SERVICE, {0: Pointing(good, coming)})
    for record in (
        Wanted(service=SERVICE, ring=0, release=bad, sequence=1),
        Wanted(service=SERVICE, ring=0, release=good, sequence=2, next=coming),
    ):
        _steal(site, record)
        assert site.node.wanted(SERVICE) == record
        with pytest.raises(UnapprovedRelease, match="is not approved"):
            site.node.release(SERVICE, bad)
        assert site.node.release(SERVICE, good)


def test_a_record_of_another_ring_or_service_is_refused(memory: Site) -> None:
    memory.point(0)
    memory.publisher.point(SERVICE, 1, memory.releases[1].digest)

    def swap(draft: Draft) -> bool:
        targets = draft.edit(f"rings-{SERVICE}").targets
        mine, theirs = (f"rings/{SERVICE}/ring-{n}.json" for n in (0, 1))
        other = targets[theirs]
        data = memory.store.get(f"channel/targets/rings/{SERVICE}/{other.hashes['sha256']}.ring-1.json")
        draft.contents[f"channel/targets/rings/{SERVICE}/{other.hashes['sha256']}.ring-0.json"] = data
        targets[mine].hashes, targets[mine].length = other.hashes, other.length
        return True

    memory.repository().commit(swap)
    with pytest.raises(UnverifiedChannel, match="ring 1"):
        memory.seen()


# --- a release is withdrawn in the middle of a rollout


def test_a_release_that_is_withdrawn_half_way_goes_no_further(site: Site) -> None:
    old, new = site.releases[0].digest, site.releases[1].digest
    waits = site.channel("waits", ring=1)
    coming = Next(release=new, salt="s", below="8" * 16)
    site.publisher.point_many(SERVICE, {0: Pointing(new), 1: Pointing(old, coming)})
    assert site.seen() == new and site.node.release(SERVICE, new) and waits.release(SERVICE, new)

    site.another().withdraw(SERVICE, new)
    for channel in (site.node, waits, site.channel("late")):
        assert channel.wanted(SERVICE) is not None
        with pytest.raises(UnapprovedRelease):
            channel.release(SERVICE, new)
        assert channel.release(SERVICE, old)
    for to in (Pointing(new), Pointing(old, coming)):
        with pytest.raises(NotApproved):
            site.publisher.point_many(SERVICE, {2: to})
    site.publisher.point_many(SERVICE, {0: Pointing(old), 1: Pointing(old)})
    assert site.seen() == site.seen(waits) == old


# --- signed elsewhere


def test_an_approval_signed_elsewhere_reaches_nodes(site: Site, tmp_path: Path) -> None:
    from edgeloop.fleet import offline, pending
    from edgeloop.fleet.channel import AwaitingSignature
    from edgeloop.fleet.signing import Keys

    safe = tmp_path / "safe"
    safe.mkdir()
    (site.keys.folder / "releases.pem").rename(safe / "releases.pem")
    (safe / "root.json").write_bytes(site.root)
    fourth = site.put("4")
    with pytest.raises(AwaitingSignature):
        site.publisher.approve(SERVICE, fourth.digest)
    asked = pending.posted(site.store, SERVICE, fourth.digest)
    assert asked is not None
    pending.answer(site.store, offline.sign(asked, Keys(safe)))
    assert site.publisher.refresh() == [f"releases-{SERVICE}"]
    site.publisher.point(SERVICE, 0, fourth.digest)
    channel: Channel = site.channel("fresh")
    assert site.seen(channel) == fourth.digest and channel.release(SERVICE, fourth.digest) == fourth
    assert site.publisher.pending() == []
