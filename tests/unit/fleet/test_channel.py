"""The channel: only what is approved reaches a ring, a record's number only grows, and a nudge may be lost."""

from __future__ import annotations

import itertools
import os
import stat
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib.signer import Key, Signature, SSlibKey
from tuf.api.metadata import Metadata, Root, Snapshot, Targets

from edgeloop.clients.broker import MemoryHub, Message
from edgeloop.clients.objects import MemoryStore, ObjectStore
from edgeloop.fleet.approvals import APPROVED
from edgeloop.fleet.channel import AwaitingSignature, NotApproved, point_ring
from edgeloop.fleet.metadata import LIFETIMES, ChannelBusy, ForeignKey, ForeignMetadata
from edgeloop.fleet.publisher import Publisher
from edgeloop.fleet.signing import ROLES, Keys, KeyUnavailable, UnknownRole, UnusableKey
from edgeloop.samples.records import now
from edgeloop.samples.releases import (
    MalformedRelease,
    Release,
    Wanted,
    metadata_key,
    parse_wanted,
    release_key,
)
from edgeloop.samples.topics import wanted_topic

SERVICE = "rater"


def release(version: str, service: str = SERVICE) -> Release:
    return Release(service=service, version=version, run_id="r", dataset="d", layers=[])


def put(store: ObjectStore, *versions: str, service: str = SERVICE) -> list[str]:
    """Put manifests in ``store``; their digests."""
    made = [release(version, service) for version in versions]
    for one in made:
        store.put(release_key(service, one.digest), one.to_bytes())
    return [one.digest for one in made]


class World:
    """A store, its keys, and a clock that can be moved."""

    def __init__(self, folder: Path) -> None:
        self.store = MemoryStore()
        self.keys = Keys(folder / "keys")
        self.late = timedelta()
        self.publisher = self.another()

    def another(self) -> Publisher:
        """Another process."""
        return Publisher(self.store, self.keys, self.now)

    def now(self) -> datetime:
        return now() + self.late

    def approved(self, *versions: str, service: str = SERVICE) -> list[str]:
        names = put(self.store, *versions, service=service)
        for name in names:
            self.publisher.approve(service, name)
        return names

    def snapshot(self) -> int:
        return Metadata[Snapshot].from_bytes(self.store.get(metadata_key("timestamp.json"))).signed.version

    def role(self, role: str) -> Targets:
        snapshot = Metadata[Snapshot].from_bytes(self.store.get(metadata_key(f"{self.snapshot()}.snapshot.json")))
        version = snapshot.signed.meta[f"{role}.json"].version
        return Metadata[Targets].from_bytes(self.store.get(metadata_key(f"{version}.{role}.json"))).signed


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


class Nudges:
    """A node that listens to the nudges of a ring."""

    def __init__(self, hub: MemoryHub, ring: int = 0) -> None:
        self.seen: list[bytes] = []
        hub.connect("node", subscriptions={wanted_topic(SERVICE, ring): self._take})

    def _take(self, message: Message, ack: Any) -> None:
        self.seen.append(message.payload)
        ack()


# --- rings and releases


def test_before_the_first_release_there_is_nothing(world: World) -> None:
    assert world.publisher.wanted(SERVICE, 0) is None
    assert world.publisher.refresh() == []
    assert list(world.store.list("")) == [] and not world.keys.folder.exists()
    with pytest.raises(NotApproved, match="there is no channel yet"):
        world.publisher.point(SERVICE, 0, "sha256:1")


def test_pointing_writes_the_record_and_nudges(world: World) -> None:
    hub, [one] = MemoryHub(), world.approved("1")
    nudges = Nudges(hub)
    record = point_ring(world.publisher, hub.connect("cloud"), SERVICE, 0, one)
    assert (record.service, record.ring, record.release, record.sequence) == (SERVICE, 0, one, 1)
    assert world.another().wanted(SERVICE, 0) == record
    assert world.publisher.wanted(SERVICE, 1) is None
    assert [parse_wanted(n, "nudge") for n in nudges.seen] == [record]
    assert len(Nudges(hub).seen) == 1  # retained, for nodes that come later


_folders = itertools.count()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from([0, 1, 2]), min_size=1, max_size=8))
def test_the_sequence_grows_with_each_change_and_only_then(
    tmp_path_factory: pytest.TempPathFactory, releases: list[int]
) -> None:
    world, hub = World(tmp_path_factory.mktemp(f"world-{next(_folders)}")), MemoryHub()
    names = world.approved("1", "2", "3")
    nudges, broker = Nudges(hub), hub.connect("cloud")
    sequences = [point_ring(world.publisher, broker, SERVICE, 0, names[at]).sequence for at in releases]
    changes = 1
    for at, number in enumerate(releases):
        changes += at > 0 and number != releases[at - 1]
        assert sequences[at] == changes
    assert len(nudges.seen) == changes
    record = world.publisher.wanted(SERVICE, 0)
    assert record is not None and record.release == names[releases[-1]]


def test_a_lost_nudge_does_not_lose_the_record(world: World, caplog: pytest.LogCaptureFixture) -> None:
    broker, [one] = MemoryHub().connect("cloud"), world.approved("1")
    broker.close()
    point_ring(world.publisher, broker, SERVICE, 3, one)
    record = world.publisher.wanted(SERVICE, 3)
    assert record is not None and record.release == one
    assert "nudge of ring 3 lost" in caplog.text


def test_only_what_is_approved_can_be_pointed_to(world: World) -> None:
    one, other = world.approved("1")[0], put(world.store, "2")[0]
    with pytest.raises(NotApproved, match=other):
        world.publisher.point(SERVICE, 0, other)
    world.publisher.point(SERVICE, 0, one)
    world.publisher.withdraw(SERVICE, one)
    world.publisher.withdraw(SERVICE, one)
    with pytest.raises(NotApproved):
        world.publisher.point(SERVICE, 1, one)


def test_an_approval_is_of_bytes_that_are_there_and_of_this_service(world: World) -> None:
    with pytest.raises(MalformedRelease, match=r"there is no releases/rater/1\.json to approve"):
        world.publisher.approve(SERVICE, "sha256:1")
    [foreign] = put(world.store, "1", service="other")
    world.store.put(release_key(SERVICE, foreign), world.store.get(release_key("other", foreign)))
    with pytest.raises(MalformedRelease, match="of another service"):
        world.publisher.approve(SERVICE, foreign)
    [one] = put(world.store, "1")
    world.store.put(release_key(SERVICE, one), b"{}")
    with pytest.raises(MalformedRelease, match="its bytes have digest"):
        world.publisher.approve(SERVICE, one)
    with pytest.raises(NotApproved):
        world.publisher.point(SERVICE, 0, one)


def test_old_approvals_go_but_never_one_that_a_ring_runs(world: World) -> None:
    [first] = world.approved("first")
    world.publisher.point(SERVICE, 0, first)
    later = world.approved(*[str(n) for n in range(APPROVED + 5)])
    kept = {t.hashes["sha256"] for t in world.role(f"releases-{SERVICE}").targets.values()}
    assert len(kept) <= APPROVED + 1
    assert first.removeprefix("sha256:") in kept and later[-1].removeprefix("sha256:") in kept
    assert later[0].removeprefix("sha256:") not in kept


def test_the_oldest_approvals_go_whatever_is_said_beside_them(world: World) -> None:
    names = put(world.store, *[str(n) for n in range(APPROVED + 2)])
    for number, name in enumerate(names):
        world.publisher.approve(SERVICE, name, {"a": 99 - number})
    kept = {"sha256:" + t.hashes["sha256"] for t in world.role(f"releases-{SERVICE}").targets.values()}
    assert kept == set(names[2:])


def test_the_channel_can_be_looked_at_without_any_key(world: World) -> None:
    assert world.publisher.show() is None
    [one] = world.approved("1")
    world.publisher.point(SERVICE, 0, one)
    world.store.delete(metadata_key("timestamp.json"))
    for role in ROLES:
        (world.keys.folder / f"{role}.pem").unlink()
    before = {i.key for i in world.store.list("")}
    view = world.another().show()
    assert view is not None and [a.rings for a in view.services[SERVICE]] == [(0,)]
    assert not any(role.here for role in view.roles) and "timestamp" not in {role.role for role in view.roles}
    assert {i.key for i in world.store.list("")} == before


def test_services_do_not_share_metadata(world: World) -> None:
    world.approved("1")
    world.approved("1", service="other")
    assert len(world.role("releases-rater").targets) == len(world.role("releases-other").targets) == 1
    delegations = world.role("rings").delegations
    [one] = world.approved("2")
    before = world.snapshot()
    world.publisher.point(SERVICE, 0, one)
    assert world.snapshot() == before + 1
    assert delegations is not None and world.role("releases").delegations is not None


# --- two writers, and crashes: tests/contract/test_channel.py has the real ones


def test_a_version_left_by_a_writer_that_was_cut_off_is_never_replaced(world: World) -> None:
    one, two = world.approved("1", "2")
    world.publisher.point(SERVICE, 0, one)
    left = metadata_key(f"{world.role(f'rings-{SERVICE}').version + 1}.rings-{SERVICE}.json")
    world.store.put(left, b"half")
    world.publisher.point(SERVICE, 0, two)
    assert world.store.get(left) == b"half"
    record = world.another().wanted(SERVICE, 0)
    assert record is not None and record.release == two


def test_a_writer_that_is_always_overtaken_gives_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    [one] = world.approved("1")
    monkeypatch.setattr("edgeloop.fleet.repository.time.sleep", lambda _: None)
    real = world.store.create

    def overtaken(key: str, data: bytes) -> bool:
        return False if key.endswith(".snapshot.json") else real(key, data)

    monkeypatch.setattr(world.store, "create", overtaken)
    with pytest.raises(ChannelBusy, match="changed by others"):
        world.publisher.point(SERVICE, 0, one)


# --- what is not ours is not believed, nor signed again


@pytest.mark.parametrize("name", ["snapshot", "targets", "rings", f"rings-{SERVICE}", "record"])
def test_what_somebody_put_into_the_store_is_not_signed_again(world: World, tmp_path: Path, name: str) -> None:
    one, two = world.approved("1", "2")
    world.publisher.point(SERVICE, 0, one)
    stranger = World(tmp_path / "stranger")
    stranger.approved("1", "2")
    stranger.publisher.point(SERVICE, 0, two)
    if name == "record":
        [key] = [i.key for i in world.store.list("channel/targets")]
        world.store.put(key, b'{"service": "rater"}')
    else:
        version = world.snapshot() if name == "snapshot" else world.role(name).version
        found = next(i.key for i in stranger.store.list("channel") if i.key.endswith(f".{name}.json"))
        world.store.put(metadata_key(f"{version}.{name}.json"), stranger.store.get(found))
    with pytest.raises(ForeignMetadata, match="channel/"):
        world.publisher.point(SERVICE, 0, two)


def test_a_timestamp_that_cannot_be_believed_is_written_anew(world: World) -> None:
    [one] = world.approved("1")
    record, _ = world.publisher.point(SERVICE, 0, one)
    for data in (b"", b"{}", world.store.get(metadata_key("1.root.json"))):
        world.store.put(metadata_key("timestamp.json"), data)
        assert world.publisher.wanted(SERVICE, 0) == record
    world.store.delete(metadata_key("timestamp.json"))
    assert world.another().wanted(SERVICE, 0) == record
    assert world.publisher.refresh() == []


def test_the_store_of_others_is_refused(world: World, tmp_path: Path) -> None:
    world.publisher.ensure()
    for stranger in (Keys(tmp_path / "none"), Keys(tmp_path / "full")):
        if stranger.folder.name == "full":
            Publisher(MemoryStore(), stranger).ensure()
            (stranger.folder / "root.json").unlink()
        with pytest.raises(ForeignKey, match="set EDGELOOP_KEYS"):
            Publisher(world.store, stranger).ensure()


def _foreign_root(own: Key, stranger: Keys, *, takes_our_name: bool) -> bytes:
    """A first root that names our root key and is signed with the stranger's."""
    signer = stranger.signers("root")[-1]
    root = Root(version=1, consistent_snapshot=True)
    for role in ("root", "targets", "snapshot", "timestamp"):
        root.add_key(signer.public_key, role)
    made = Metadata(root)
    if takes_our_name:  # a keyid is what its author writes
        theirs = signer.public_key
        renamed = SSlibKey(own.keyid, theirs.keytype, theirs.scheme, theirs.keyval)
        root.revoke_key(theirs.keyid, "root")
        root.add_key(renamed, "root")
        made.signatures[own.keyid] = Signature(own.keyid, signer.sign(made.signed_bytes).signature)
    else:
        root.add_key(own, "root")
        made.sign(signer)
    return made.to_bytes()


@pytest.mark.parametrize("takes_our_name", [False, True])
def test_a_first_root_that_names_our_key_and_is_signed_by_another_is_refused(
    world: World, tmp_path: Path, takes_our_name: bool
) -> None:
    world.keys.ensure()
    stranger = Keys(tmp_path / "stranger")
    stranger.ensure()
    data = _foreign_root(world.keys.public("root"), stranger, takes_our_name=takes_our_name)
    world.store.put(metadata_key("1.root.json"), data)
    with pytest.raises((ForeignKey, ForeignMetadata), match="restore the store" if takes_our_name else "EDGELOOP_KEYS"):
        world.publisher.ensure()
    assert world.keys.root() is None


def test_a_root_that_is_swapped_while_it_is_made_is_not_trusted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    real, written = world.store.create, list[bytes]()

    def swapped(key: str, data: bytes) -> bool:
        done = real(key, data)
        if key == metadata_key("1.root.json"):
            written.append(data)
            world.store.put(key, b"{}")
        return done

    monkeypatch.setattr(world.store, "create", swapped)
    world.publisher.ensure()
    assert [world.keys.root()] == written


def test_keys_without_their_root_take_it_from_the_store(world: World) -> None:
    root = world.publisher.ensure()
    (world.keys.folder / "root.json").unlink()
    assert world.another().ensure() == root


def test_the_same_keys_serve_another_store(world: World) -> None:
    root = world.publisher.ensure()
    other = Publisher(MemoryStore(), world.keys)
    assert other.ensure() == root
    [one] = put(other._store, "1")
    other.approve(SERVICE, one)
    assert other.point(SERVICE, 0, one)[0].release == one
    with pytest.raises(NotApproved):
        world.publisher.point(SERVICE, 0, one)


# --- keys


def test_keys_are_private_and_made_once(world: World) -> None:
    world.publisher.ensure()
    files = sorted(path.name for path in world.keys.folder.iterdir())
    assert files == sorted([*(f"{role}.pem" for role in ROLES), "root.json"])
    assert {stat.S_IMODE(os.stat(world.keys.folder / f"{role}.pem").st_mode) for role in ROLES} == {0o600}
    before = {role: world.keys.public(role).keyid for role in ROLES}
    assert len(set(before.values())) == len(ROLES)
    world.another().ensure()
    assert {role: world.keys.public(role).keyid for role in ROLES} == before


def test_a_person_can_keep_root_and_targets_elsewhere(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.publisher.ensure()
    for role in ("root", "targets"):
        (world.keys.folder / f"{role}.pem").rename(world.keys.folder.parent / f"{role}.pem")
    publisher = world.publisher = world.another()
    publisher.ensure()
    [one] = world.approved("1")
    publisher.point(SERVICE, 0, one)
    world.late = LIFETIMES["root"] / 2 + timedelta(days=1)
    assert "root" not in publisher.refresh() and "targets" not in publisher.refresh()
    assert "targets runs out" in caplog.text
    with pytest.raises(KeyUnavailable, match="to sign root with"):
        publisher.rotate("root")


def test_without_the_approvers_key_nothing_is_approved_but_rings_still_move(world: World) -> None:
    one, two = world.approved("1", "2")
    (world.keys.folder / "releases.pem").unlink()
    [three] = put(world.store, "3")
    with pytest.raises(AwaitingSignature, match=r"releases\.pem: run  edgeloop release sign rater sha256:"):
        world.publisher.approve(SERVICE, three)
    for name in (one, two):
        world.publisher.point(SERVICE, 0, name)
    (world.keys.folder / "releases.pem").write_bytes((world.keys.folder / "rings.pem").read_bytes())
    with pytest.raises(ForeignKey, match="is not the key that the channel names"):
        world.publisher.approve(SERVICE, three)
    (world.keys.folder / "releases.pem").write_bytes(b"no key")
    with pytest.raises(UnusableKey, match="no private key"):
        world.publisher.approve(SERVICE, three)


# --- upkeep


def test_far_from_the_end_nothing_is_signed_anew_and_one_object_is_read(world: World) -> None:
    world.approved("1")
    before = {i.key for i in world.store.list("")}
    assert world.publisher.refresh() == []
    assert {i.key for i in world.store.list("")} == before


@pytest.mark.parametrize("role", ["timestamp", "rings", "targets", "root"])
def test_what_is_past_half_of_its_life_is_signed_anew(world: World, role: str) -> None:
    [one] = world.approved("1")
    world.publisher.point(SERVICE, 0, one)
    world.late = LIFETIMES[role] / 2 + timedelta(hours=1)
    done = world.publisher.refresh()
    assert role in done and world.publisher.refresh() == []
    short = [r for r in ("releases-rater", "rings-rater", "targets") if LIFETIMES[r.split("-")[0]] <= LIFETIMES[role]]
    assert set(short) <= set(done) and ("root" in done) == (role in {"root", "targets"})
    least = world.now() + LIFETIMES["timestamp"] / 2
    assert all(world.role(r).expires > least for r in ("targets", "rings", "rings-rater", "releases-rater"))


@pytest.mark.parametrize("role", ROLES)
def test_a_key_is_rotated(world: World, role: str) -> None:
    one, two = world.approved("1", "2")
    world.publisher.point(SERVICE, 0, one)
    old = world.keys.public(role).keyid
    world.publisher.rotate(role)
    assert world.keys.public(role).keyid != old
    assert not list(world.keys.folder.glob("*.next.pem"))
    publisher = world.another()
    record, _ = publisher.point(SERVICE, 0, two)
    assert publisher.wanted(SERVICE, 0) == record and record.sequence == 2
    pinned = world.keys.root()
    assert pinned is not None
    assert Metadata[Root].from_bytes(pinned).signed.version == (1 if role in {"releases", "rings"} else 2)


def test_a_role_that_there_is_not_cannot_be_rotated(world: World) -> None:
    world.publisher.ensure()
    with pytest.raises(UnknownRole, match="no role 'king'"):
        world.publisher.rotate("king")


# --- set-up


def test_set_up_signs_nothing_that_it_finds_in_the_store(world: World) -> None:
    [one] = put(world.store, "1")
    said = Wanted(service=SERVICE, ring=0, release=one, sequence=7)
    world.store.put(f"channel/{SERVICE}/ring-0.json", said.model_dump_json().encode())
    world.publisher.ensure()
    assert world.publisher.wanted(SERVICE, 0) is None
    with pytest.raises(NotApproved):
        world.publisher.point(SERVICE, 0, one)
