"""A real image registry, by the OCI distribution specification (v1.0): what Harbor, GHCR and others speak.

Images are sent by our own client, since others compress layers on their way: the digests in a registry would not be
those that were built and signed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgeloop.clients.oci_http import RegistryHttp, read_whole
from edgeloop.clients.oci_types import (
    LARGEST_MANIFEST,
    MANIFESTS,
    Bytes,
    DigestDiffers,
    ImageMissing,
    RegistryDenied,
    RegistryRefused,
    Source,
    checked,
)
from edgeloop.samples.records import digest as digest_of

if TYPE_CHECKING:
    import httpx

#: Blobs up to this size are sent whole, larger ones in pieces of it: proxies bound what they hold.
_PIECE = 32 << 20
_DIGEST = "docker-content-digest"


class HttpRegistry:
    """The adapter over HTTP.

    Args:
        registry: host, with a port if it has one.
        auth: file of credentials; default where docker, podman and skopeo keep theirs.
        plain_http: speak http to a registry that is not on this machine.
        timeout: seconds without a byte after which the registry is away.
        piece: bytes of a piece of a large blob.
        pause: seconds until a busy registry is asked again.
    """

    def __init__(
        self,
        registry: str,
        auth: Path | None = None,
        plain_http: bool = False,
        timeout: float = 60.0,
        piece: int = _PIECE,
        pause: float = 1.0,
    ) -> None:
        self.name = registry
        self._http = RegistryHttp(registry, auth, plain_http, timeout, pause)
        self._piece = piece

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def has_blob(self, repository: str, digest: str) -> bool:
        """Whether the blob is in ``repository``."""
        answer = self._http.send("HEAD", f"/v2/{repository}/blobs/{digest}", repository, missing_is_fine=True)
        answer.close()
        return answer.status_code != 404

    def mount(self, repository: str, digest: str, origin: str) -> bool:
        """Make a blob of ``origin`` one of ``repository`` too; False where the registry wants it to be sent."""
        try:
            answer = self._http.send(
                "POST", f"/v2/{repository}/blobs/uploads/?mount={digest}&from={origin}", repository
            )
        except RegistryDenied:
            return False  # of origin; what is refused in the repository itself, the upload says
        answer.close()
        if answer.status_code == 202 and "location" in answer.headers:
            self._http.send("DELETE", answer.headers["location"], repository, missing_is_fine=True).close()
        return answer.status_code == 201

    def upload(self, repository: str, digest: str, source: Source) -> None:
        """Send a blob, whole or in pieces."""
        answer = self._http.send("POST", f"/v2/{repository}/blobs/uploads/", repository, body=Bytes(b""))
        place = self._place(answer)
        if source.size > self._piece:
            place = self._pieces(place, repository, source)
            source = Bytes(b"")
        headers = {"Content-Type": "application/octet-stream"}
        try:
            done = self._http.send("PUT", _with_digest(place, digest), repository, body=source, headers=headers)
        except RegistryRefused as error:
            if "DIGEST_INVALID" in str(error):
                raise DigestDiffers(f"{error}; blob {digest} did not arrive as it was sent") from error
            raise
        self._confirm(done, digest, f"blob in {repository}")

    def _pieces(self, place: str, repository: str, source: Source) -> str:
        start = 0
        for piece in _in_pieces(source, self._piece):
            end = start + len(piece) - 1
            headers = {"Content-Type": "application/octet-stream", "Content-Range": f"{start}-{end}"}
            place = self._place(self._http.send("PATCH", place, repository, body=Bytes(piece), headers=headers))
            start = end + 1
        return place

    def _place(self, answer: httpx.Response) -> str:
        answer.close()
        if "location" not in answer.headers:
            raise RegistryRefused(f"image registry {self.name} did not say where to upload to: read the registry's log")
        return str(answer.headers["location"])

    def blob(self, repository: str, digest: str) -> Iterator[bytes]:
        """The bytes of a blob, checked by the end."""
        import httpx

        answer = self._http.send("GET", f"/v2/{repository}/blobs/{digest}", repository, missing_is_fine=True)
        try:
            if answer.status_code == 404:
                raise ImageMissing(f"image registry {self.name} has no blob {digest} in {repository}: push it again")
            yield from checked(answer.iter_raw(), digest, f"image registry {self.name}")
        except httpx.HTTPError as error:
            raise self._http.away(error) from error
        finally:
            answer.close()

    def manifest(self, repository: str, reference: str) -> tuple[bytes, str] | None:
        """Bytes and media type of a manifest, None if there is none."""
        import httpx

        path = f"/v2/{repository}/manifests/{reference}"
        headers = {"Accept": ", ".join(MANIFESTS)}
        answer = self._http.send("GET", path, repository, headers=headers, missing_is_fine=True)
        try:
            data = read_whole(answer, LARGEST_MANIFEST)
        except httpx.HTTPError as error:
            raise self._http.away(error) from error
        if answer.status_code == 404:
            return None
        if data is None:
            raise RegistryRefused(
                f"image registry {self.name} has a manifest {reference} in {repository} of over 4 MiB"
            )
        if reference.startswith("sha256:") and digest_of(data) != reference:
            raise DigestDiffers(f"image registry {self.name} gave {digest_of(data)} for manifest {reference}")
        return data, answer.headers.get("content-type", "").partition(";")[0].strip()

    def put_manifest(self, repository: str, reference: str, data: bytes, media_type: str) -> str:
        """Write a manifest under a tag or its digest."""
        path = f"/v2/{repository}/manifests/{reference}"
        done = self._http.send("PUT", path, repository, body=Bytes(data), headers={"Content-Type": media_type})
        if _DIGEST not in done.headers:
            done.close()
            kept = self.manifest(repository, reference)
            if kept is None or kept[0] != data:
                raise DigestDiffers(f"image registry {self.name} keeps something else as {reference} in {repository}")
            return digest_of(data)
        return self._confirm(done, digest_of(data), f"manifest {reference} in {repository}")

    def _confirm(self, answer: httpx.Response, digest: str, what: str) -> str:
        answer.close()
        said = answer.headers.get(_DIGEST, digest)
        if said != digest:
            raise DigestDiffers(f"image registry {self.name} says {said} of {what}, sent was {digest}: do not use it")
        return digest


def _with_digest(place: str, digest: str) -> str:
    return f"{place}{'&' if '?' in place else '?'}digest={digest}"


def _in_pieces(source: Source, size: int) -> Iterator[bytes]:
    """The source in pieces of ``size`` bytes, the last one shorter."""
    held = bytearray()
    for chunk in source.chunks():
        held += chunk
        while len(held) >= size:
            yield bytes(held[:size])
            del held[:size]
    if held:
        yield bytes(held)
