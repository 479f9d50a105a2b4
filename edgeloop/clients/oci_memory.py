"""An image registry in memory that checks what docker-registry checks, for tests of whoever pushes and pulls."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

from edgeloop.clients.oci_types import (
    INDEXES,
    DigestDiffers,
    ImageMissing,
    RegistryDenied,
    RegistryRefused,
    Source,
    checked,
)
from edgeloop.samples.records import digest as digest_of


class MemoryRegistry:
    """Repositories with blobs, manifests and tags. ``closed`` ones let nobody in; ``calls`` counts by method."""

    def __init__(self, name: str = "registry.test", closed: frozenset[str] = frozenset()) -> None:
        self.name = name
        self.closed = closed
        self.calls: Counter[str] = Counter()
        self._blobs: dict[tuple[str, str], bytes] = {}
        self._manifests: dict[tuple[str, str], tuple[bytes, str]] = {}
        self._tags: dict[tuple[str, str], str] = {}

    def has_blob(self, repository: str, digest: str) -> bool:
        """Whether the blob is in ``repository``."""
        self._enter("has_blob", repository)
        return (repository, digest) in self._blobs

    def mount(self, repository: str, digest: str, origin: str) -> bool:
        """As a registry does: only what is in ``origin``."""
        self._enter("mount", repository)
        if origin in self.closed or (origin, digest) not in self._blobs:
            return False
        self._blobs[repository, digest] = self._blobs[origin, digest]
        return True

    def upload(self, repository: str, digest: str, source: Source) -> None:
        """Keep a blob if its bytes have the digest."""
        self._enter("upload", repository)
        data = b"".join(source.chunks())
        if digest_of(data) != digest:
            raise DigestDiffers(
                f"image registry {self.name} got {digest_of(data)}, not {digest}: nothing is kept of it"
            )
        self._blobs[repository, digest] = data

    def blob(self, repository: str, digest: str) -> Iterator[bytes]:
        """The bytes of a blob."""
        self._enter("blob", repository)
        if (repository, digest) not in self._blobs:
            raise ImageMissing(f"image registry {self.name} has no blob {digest} in {repository}: push it again")
        yield from checked(iter([self._blobs[repository, digest]]), digest, f"image registry {self.name}")

    def manifest(self, repository: str, reference: str) -> tuple[bytes, str] | None:
        """By tag or digest."""
        self._enter("manifest", repository)
        return self._manifests.get((repository, self._tags.get((repository, reference), reference)))

    def put_manifest(self, repository: str, reference: str, data: bytes, media_type: str) -> str:
        """Refused when something that it names is not there, or under a digest that is not its own."""
        self._enter("put_manifest", repository)
        name = digest_of(data)
        value = json.loads(data)
        if media_type in INDEXES:
            missing = [x["digest"] for x in value["manifests"] if (repository, x["digest"]) not in self._manifests]
        else:
            named = [value["config"], *value["layers"]]
            missing = [x["digest"] for x in named if (repository, x["digest"]) not in self._blobs]
        if missing:
            raise RegistryRefused(f"image registry {self.name} lacks {missing[0]}, which {name} names: send it first")
        if reference.startswith("sha256:") and reference != name:
            raise RegistryRefused(f"image registry {self.name} got {name}, not {reference}: nothing is kept of it")
        self._manifests[repository, name] = (data, media_type)
        if not reference.startswith("sha256:"):
            self._tags[repository, reference] = name
        return name

    def _enter(self, method: str, repository: str) -> None:
        self.calls[method] += 1
        if repository in self.closed:
            raise RegistryDenied(f"image registry {self.name} refused {repository}: log in as someone who may")
