"""A world of its own for one release and one node: nothing that happens there reaches the fleet.

The release is copied to a scratch store and approved with keys that are thrown away, so that the node does all that it
does in the field: it follows a signed channel, fetches by digest, checks itself, and serves.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from edgeloop.clients.objects import DirectoryStore, ObjectStore
from edgeloop.edge.releases.state import State
from edgeloop.fleet.publisher import Publisher
from edgeloop.fleet.signing import Keys
from edgeloop.samples.profiles import Profile
from edgeloop.samples.releases import Release, blob_key, release_key

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Staged:
    """A node that can be started."""

    config: Path
    state: Path
    log: Path
    service: str
    release: str

    def port(self) -> int | None:
        """Of its HTTP gateway; None while it does not listen."""
        try:
            return int(json.loads((self.state / "http.json").read_text(encoding="utf-8"))["port"])
        except (OSError, ValueError, KeyError):
            return None

    def refusal(self) -> str | None:
        """Why the node gave the release up; None when it did not."""
        try:
            known = State.model_validate_json((self.state / "state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        refused = known.services[self.service].refused if self.service in known.services else None
        return refused.error if refused and refused.release == self.release else None

    def last_words(self) -> str:
        """The end of the node's log, on one line."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
        except OSError:
            return ""
        return " ".join(next((line for line in reversed(lines) if line.strip()), "").split())[-300:]


@contextmanager
def staged(store: ObjectStore, release: Release, profile: Profile, folder: Path) -> Iterator[Staged]:
    """Copy ``release`` and all that a node of ``profile`` needs of it to ``folder``.

    The port of the node's broker is taken for as long as the block lasts, and nobody listens there.

    Raises:
        ObjectMissing, StoreUnavailable: the release is not whole, or the store is away.
        NoVariant: the release has none for the profile.
    """
    scratch = DirectoryStore(folder / "store")
    manifest = release_key(release.service, release.digest)
    for layer in release.layers_for(profile.name):
        scratch.create(blob_key(layer.digest), store.get(blob_key(layer.digest)))
    scratch.create(manifest, store.get(manifest))
    channel = Publisher(scratch, Keys(folder / "keys"))
    (folder / "root.json").write_bytes(channel.ensure())
    channel.approve(release.service, release.digest)
    channel.point(release.service, 0, release.digest)
    with socket.socket() as nobody:
        nobody.bind((HOST, 0))
        config = folder / "node.yaml"
        told = _node(release, profile, folder, int(nobody.getsockname()[1]))
        config.write_text(yaml.safe_dump(dict(told)), encoding="utf-8")
        yield Staged(config, folder / "state", folder / "node.log", release.service, release.digest)


def _node(release: Release, profile: Profile, folder: Path, broker: int) -> Mapping[str, Any]:
    return {
        "node": "twin",
        "ring": 0,
        "services": [release.service],
        "state": str(folder / "state"),
        "store": str(folder / "store"),
        "trust": str(folder / "root.json"),
        "broker": f"mqtt://{HOST}:{broker}",
        "http": f"{HOST}:0",
        "poll_seconds": 1,
        "memory_mb": profile.memory_mb,
        "profile": profile.name,
    }
