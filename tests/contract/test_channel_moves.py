"""The record of moved nodes between publisher and nodes: who may sign it, and channels from before there was one."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from typing import cast

import pytest
from tuf.api.metadata import TargetFile

from edgeloop.clients.objects import DirectoryStore, MemoryStore, ObjectStore
from edgeloop.edge.releases.channel import Channel
from edgeloop.edge.releases.place import Place
from edgeloop.fleet.channel import NotApproved
from edgeloop.fleet.delegations import MOVES
from edgeloop.fleet.draft import Draft
from edgeloop.fleet.signing import KeyUnavailable
from edgeloop.samples.moves import moves_target
from tests.contract.channel_site import SERVICE, Site
from tests.unit.samples.broken import Crash, Fuse, Guarded, crash_everywhere

FLEET = "default"


@pytest.fixture(params=["memory", "directory"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    found = Site(tmp_path, MemoryStore() if request.param == "memory" else DirectoryStore(tmp_path / "store"))
    for ring in (0, 1):
        found.publisher.point(SERVICE, ring, found.releases[ring].digest)
    return found


def make_old(site: Site) -> None:
    """As a channel was before nodes could move."""

    def change(draft: Draft) -> bool:
        delegations = draft.edit("targets").delegations
        assert delegations is not None and delegations.roles is not None
        paths = delegations.roles["rings"].paths
        assert paths is not None
        paths.remove(MOVES)
        return True

    site.repository().commit(change)


def at(site: Site, name: str = "n1") -> Place:
    """Where a node is that looks now, and never looked before."""
    place = Place(0, name)
    folder = site.folder / f"{name}-{len(list(site.folder.iterdir()))}"
    Channel(lambda: site.store, site.root, folder, place).wanted(SERVICE)
    return place


def move(site: Site, **rings: int | None) -> bool:
    return site.publisher.move(FLEET, lambda: rings)


def test_only_what_is_new_is_written(site: Site) -> None:
    assert move(site, n1=None) is False
    assert move(site, n1=1) is True
    assert move(site, n1=1) is False
    assert move(site, n2=3, n1=2) is True
    assert site.publisher.moves(FLEET) == {"n1": 2, "n2": 3}
    assert (at(site).ring, at(site, "n3").ring) == (2, 0)
    assert site.publisher.moves("other") == {}


def test_an_old_channel_is_made_fit_once_and_old_nodes_go_on(site: Site) -> None:
    make_old(site)
    assert at(site).ring == 0 and site.publisher.moves(FLEET) == {}
    version = _version(site)
    assert move(site, n1=1) and _version(site) == version + 1
    assert move(site, n1=2) and _version(site) == version + 1
    assert at(site).ring == 2
    assert site.seen() == site.releases[0].digest  # a node that never heard of moves


def test_without_the_key_of_targets_an_old_channel_stays_as_it_is(site: Site) -> None:
    make_old(site)
    pem = site.keys.folder / "targets.pem"
    kept = pem.rename(pem.with_suffix(".away"))
    with pytest.raises(KeyUnavailable, match=r"targets\.pem: bring it once"):
        move(site, n1=1)
    assert site.publisher.moves(FLEET) == {} and at(site).ring == 0
    kept.rename(pem)
    assert move(site, n1=1)
    pem.unlink()  # from here on it is not needed
    assert move(site, n1=2) and at(site).ring == 2


def _version(site: Site) -> int:
    draft = site.repository().read()
    assert draft is not None
    return draft.roles["targets"]


def test_the_role_of_a_service_moves_no_node(site: Site) -> None:
    """Nor does the approver's key: neither is asked about fleets."""
    for role in (f"rings-{SERVICE}", "releases", f"releases-{SERVICE}"):

        def change(draft: Draft, role: str = role) -> bool:
            path = moves_target(FLEET)
            draft.edit(role).targets[path] = TargetFile(2, {"sha256": "0" * 64}, path)
            return True

        site.repository().commit(change)
    assert at(site).ring == 0


def test_a_writer_that_was_overtaken_asks_again(site: Site) -> None:
    """Its move is of the past: what is asked for now is written."""
    asked: list[dict[str, int | None]] = []

    def ask() -> dict[str, int | None]:
        asked.append({"n1": 1} if not asked else {"n1": 3})
        if len(asked) == 1:
            site.another().move(FLEET, lambda: {"n1": 3})
        return asked[-1]

    site.publisher.move(FLEET, ask)
    assert site.publisher.moves(FLEET) == {"n1": 3} and len(asked) == 2


def test_moves_and_rings_at_once_are_all_written(site: Site) -> None:
    def moving(name: str) -> None:
        site.another().move(FLEET, lambda: {name: 1})

    threads = [threading.Thread(target=moving, args=(f"n{n}",)) for n in range(3)]
    threads.append(threading.Thread(target=lambda: site.another().point(SERVICE, 1, site.releases[2].digest)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert site.publisher.moves(FLEET) == {"n0": 1, "n1": 1, "n2": 1}
    record = site.publisher.wanted(SERVICE, 1)
    assert record is not None and record.release == site.releases[2].digest


def test_keys_that_are_changed_keep_the_moves(site: Site) -> None:
    move(site, n1=1)
    site.publisher.rotate("rings")
    site.publisher.rotate("targets")
    assert at(site).ring == 1
    assert move(site, n1=2) and at(site).ring == 2


def test_before_there_is_a_channel_a_move_makes_one(tmp_path: Path) -> None:
    from edgeloop.fleet.publisher import Publisher
    from edgeloop.fleet.signing import Keys

    publisher = Publisher(MemoryStore(), Keys(tmp_path / "keys"))
    assert publisher.moves(FLEET) == {}
    assert publisher.move(FLEET, lambda: {"n1": 1})
    with pytest.raises(NotApproved):
        publisher.point(SERVICE, 0, "sha256:" + "0" * 64)
    assert publisher.moves(FLEET) == {"n1": 1}


def test_a_move_that_is_cut_off_anywhere_is_made_by_the_next(tmp_path: Path) -> None:
    def run(fuse: Fuse) -> None:
        site = Site(tmp_path / str(fuse.left), MemoryStore())
        site.point(0)
        make_old(site)
        cut = site.another(cast(ObjectStore, Guarded(site.store, fuse, "put", "create")))
        with suppress(Crash):
            cut.move(FLEET, lambda: {"n1": 1})
        assert at(site).ring in {0, 1}
        move(site, n1=1)
        assert at(site).ring == 1 and site.seen() == site.releases[0].digest

    assert crash_everywhere(run) >= 5
