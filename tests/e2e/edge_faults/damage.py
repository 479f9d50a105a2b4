"""What happens to a blob between the one who made it and the node that loads it."""

from __future__ import annotations

from pathlib import Path

from edgeloop.samples.records import digest
from tests.e2e.edge_faults.proxies import Damage


def flip_on_the_way(path: str, body: bytes) -> bytes:
    """One bit of each blob flips on its way from the store."""
    return flip(body) if "/blobs/" in path and body else body


def truncate_on_the_way(path: str, body: bytes) -> bytes:
    """Each blob arrives as its first half, and looks complete."""
    return body[: len(body) // 2] if "/blobs/" in path else body


def flip(data: bytes) -> bytes:
    """The data with one bit flipped in its middle."""
    place = len(data) // 2
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def truncate(data: bytes) -> bytes:
    """The first half."""
    return data[: len(data) // 2]


def rot(state: Path, how: Damage) -> str:
    """Damage the newest model on the node's own disk; returns its name.

    One at a time, and only where there is another: with every release on its disk damaged, a node has nothing to
    answer with until it reaches the store.
    """
    blobs = state / "blobs" / "sha256"
    found = {path: path.read_bytes() for path in blobs.iterdir()} if blobs.is_dir() else {}
    models = {path: data for path, data in found.items() if len(path.name) == 64 and data[:1] != b"{"}
    if len(models) < 2 or any(digest(data) != f"sha256:{path.name}" for path, data in models.items()):
        return "nothing: no other whole model there"
    newest = max(models, key=lambda path: path.stat().st_mtime_ns)
    data = how(str(newest), models[newest])
    with newest.open("r+b") as file:  # in place, which needs no room on a full disk
        file.write(data)
        file.truncate()
    return newest.name
