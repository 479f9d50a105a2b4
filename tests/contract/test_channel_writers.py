"""What one writer of the channel does between two steps of another never takes the nodes back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata, Timestamp

from edgeloop.clients.objects import MemoryStore
from edgeloop.samples.releases import metadata_key
from tests.contract.channel_site import SERVICE, Site

TIMESTAMP = metadata_key("timestamp.json")


class HeldUp(MemoryStore):
    """Right after a snapshot was written ``meanwhile`` happens, once; keeps which snapshots the timestamps named."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Callable[[], object] | None = None
        self.named: list[int] = []

    def create(self, key: str, data: bytes) -> bool:
        made = super().create(key, data)
        if made and key.endswith(".snapshot.json") and self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        return made

    def put(self, key: str, data: bytes) -> None:
        super().put(key, data)
        if key == TIMESTAMP:
            self.named.append(Metadata[Timestamp].from_bytes(data).signed.version)


@pytest.mark.parametrize("what", ["a point", "another key of snapshot", "another key of timestamp"])
def test_a_writer_that_was_held_up_names_what_others_wrote_meanwhile(tmp_path: Path, what: str) -> None:
    store = HeldUp()
    site = Site(tmp_path, store)
    site.point(0)
    assert site.seen() == site.releases[0].digest
    other = site.another()
    acts = {
        "a point": lambda: other.point(SERVICE, 1, site.releases[1].digest),
        "another key of snapshot": lambda: other.rotate("snapshot"),
        "another key of timestamp": lambda: other.rotate("timestamp"),
    }
    store.meanwhile = acts[what]
    site.point(2)
    assert store.named == sorted(store.named), "a node that saw the newer one would see it go back"
    assert site.seen() == site.releases[2].digest
