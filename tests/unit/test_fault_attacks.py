"""The attacks of the fault test, each against a node's reader of the channel: none makes it believe what it says."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from edgeloop.clients.objects import MemoryStore
from edgeloop.edge.releases.channel import Channel
from edgeloop.errors import EdgeloopError
from edgeloop.samples.releases import Release, release_key
from tests.e2e.edge_faults.signed import WAYS, SignedChannel

SERVICE = "adder"


class Stage:
    """A channel, one who attacks it, and a node that reads it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = count(1)
        self.store = MemoryStore()
        self.channel = SignedChannel(self.store, folder, SERVICE, 0)
        self.channel.settings()
        self.restart()

    def restart(self) -> None:
        root = (self._folder / "root.json").read_bytes()
        self.node = Channel(lambda: self.store, root, self._folder / "node", 0)

    def release(self) -> Release:
        made = Release(service=SERVICE, version=str(next(self._numbers)), run_id="r", dataset="d", layers=[])
        self.store.put(release_key(SERVICE, made.digest), made.to_bytes())
        return made

    def publish(self) -> Release:
        made = self.release()
        self.channel.approve(made)
        self.channel.point(made)
        return made

    def follow(self) -> str | None:
        """The digest of the release that the node would load."""
        wanted = self.node.wanted(SERVICE)
        return self.node.release(SERVICE, wanted.release).digest if wanted else None


@pytest.mark.parametrize("variant", range(len(WAYS)), ids=lambda n: WAYS[n].__name__.strip("_"))
@pytest.mark.parametrize("restarts", [False, True])
def test_no_attack_is_believed_and_a_healed_channel_is_followed(tmp_path: Path, variant: int, restarts: bool) -> None:
    stage = Stage(tmp_path)
    before = stage.publish()
    assert stage.follow() == before.digest
    evil = stage.release()
    how = stage.channel.attack(evil, variant)
    if restarts:
        stage.restart()
    try:
        followed = stage.follow()
    except EdgeloopError:
        followed = None
    assert followed in (None, before.digest), how
    stage.channel.heal()
    after = stage.publish()
    assert stage.follow() == after.digest
