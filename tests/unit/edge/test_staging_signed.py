"""Between staging and switch the channel is attacked, or its keys change: a node runs what was signed, or stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeloop.edge.releases import loading
from edgeloop.edge.releases.channel import RolledBackChannel, UnverifiedChannel
from edgeloop.fleet.signing import ROLES
from edgeloop.samples.releases import Next, Release, Wanted, metadata_key
from tests.unit.edge.batches import EVERYONE, NOBODY, Ring, RingNode, asked
from tests.unit.edge.fakes import SERVICE, load_fake, publish

TIMESTAMP = metadata_key("timestamp.json")


@pytest.fixture
def ring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ring:
    monkeypatch.setattr(loading, "load_model", load_fake)
    return Ring(tmp_path)


@pytest.fixture
def waiting(ring: Ring) -> tuple[RingNode, Release, Release]:
    """A node that serves one release and has another ready."""
    good, new, node = publish(ring.store, "1"), publish(ring.store, "2"), ring.node()
    ring.run(good)
    node.poll()
    ring.bring(good, new)
    node.poll()
    assert (node.serving, node.staged) == (good.digest, new.digest)
    return node, good, new


def versions(ring: Ring, role: str) -> list[str]:
    """Keys of the metadata of ``role``, the oldest first."""
    keys = [info.key for info in ring.store.list("channel") if info.key.endswith(f".{role}.json")]
    return sorted(keys, key=lambda key: int(key.split("/")[1].split(".")[0]))


@pytest.mark.parametrize("role", ["snapshot", f"rings-{SERVICE}", f"releases-{SERVICE}"])
def test_metadata_of_different_times_is_not_put_together(
    ring: Ring, waiting: tuple[RingNode, Release, Release], role: str
) -> None:
    """Each file is signed with the true key; only that they belong together is a lie."""
    node, good, new = waiting
    third = publish(ring.store, "3")
    ring.approve(third)  # so that each role has another version
    ring.bring(good, new, EVERYONE)
    *_, before, newest = versions(ring, role)
    true = ring.store.get(newest)
    ring.store.put(newest, ring.store.get(before))
    with pytest.raises(UnverifiedChannel):
        node.poll()
    assert node.serving == good.digest
    assert "channel" in str(node.agent.status(SERVICE)[1])
    ring.store.put(newest, true)
    assert node.poll() is True and node.serving == new.digest
    assert asked(ring.store.gets, new) == []


@pytest.mark.parametrize("restarted", [False, True])
def test_an_older_timestamp_between_staging_and_switch_changes_nothing(
    ring: Ring, waiting: tuple[RingNode, Release, Release], restarted: bool
) -> None:
    node, good, new = waiting
    old = ring.store.get(TIMESTAMP)
    ring.run(good)  # the rollout is taken back
    node.poll()
    assert node.staged is None
    ring.store.put(TIMESTAMP, old)
    if restarted:
        node.boot()
    with pytest.raises(RolledBackChannel):
        node.poll()
    assert (node.serving, node.staged) == (good.digest, None) and not node.holds(new)


@pytest.mark.parametrize("below", [NOBODY, EVERYONE])
def test_a_next_release_that_the_approver_never_signed_is_not_fetched_nor_served(ring: Ring, below: str) -> None:
    """The key of the rings is stolen."""
    good, node = publish(ring.store, "1"), ring.node()
    ring.run(good)
    node.poll()
    bad = publish(ring.store, "2")
    for sequence, salt in ((5, "s"), (6, "s"), (7, "t")):
        coming = Next(release=bad.digest, salt=salt, below=below)
        ring.sign(Wanted(service=SERVICE, ring=0, release=good.digest, sequence=sequence, next=coming, wish="at 1"))
        assert node.poll() is False
        assert (node.serving, node.staged) == (good.digest, None)
        assert asked(ring.store.gets, bad) == [] and not node.holds(bad)
        assert node.given_up is not None and node.given_up.release == bad.digest
        assert "is not approved" in str(node.agent.status(SERVICE)[1])


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("role", ROLES)
def test_a_key_that_is_changed_between_staging_and_switch_stops_no_rollout(
    ring: Ring, waiting: tuple[RingNode, Release, Release], role: str, restarted: bool
) -> None:
    node, good, new = waiting
    ring.publisher.rotate(role)
    if restarted:
        node.boot()
    assert node.poll() is False
    assert (node.serving, node.staged) == (good.digest, new.digest)
    ring.bring(good, new, EVERYONE)
    assert node.poll() is True and node.serving == new.digest
    assert asked(ring.store.gets, new) == []
