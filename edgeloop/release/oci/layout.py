"""Images in a folder, as the OCI image layout specification (v1.0) has it: for places without a registry."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

from edgeloop.clients.oci_reference import UnpinnedBase
from edgeloop.clients.oci_types import Bytes, DigestDiffers, ImageMissing, Source, checked
from edgeloop.errors import BadInput
from edgeloop.release.oci.images import Artifact
from edgeloop.release.oci.records import Index, MalformedImage, describe
from edgeloop.samples.records import canonical, hexdigest
from edgeloop.samples.records import digest as digest_of

_TAG = "org.opencontainers.image.ref.name"
_PIECE = 1 << 20


class FolderTaken(BadInput):
    """A folder that images should go to has something else in it, or cannot be written."""


class Layout:
    """Reads the images in a folder; repositories are unknown there, so their names are not looked at."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = f"oci:{folder}"

    def manifest(self, repository: str, reference: str) -> tuple[bytes, str] | None:
        """Bytes and media type of the manifest with this tag or digest."""
        found = reference if reference.startswith("sha256:") else self._tagged(reference)
        path = self._path(found) if found else None
        if path is None or not path.is_file():
            return None
        data = path.read_bytes()
        if digest_of(data) != found:
            raise DigestDiffers(f"{self.name} has other bytes for {found} ({digest_of(data)}): copy it again")
        try:
            return data, str(json.loads(data)["mediaType"])
        except (ValueError, KeyError, TypeError) as error:
            raise MalformedImage(f"{found} in {self.name} is no manifest: name the digest of an image") from error

    def blob(self, repository: str, digest: str) -> Iterator[bytes]:
        """The bytes of a blob, checked by the end."""
        try:
            with self._path(digest).open("rb") as file:
                yield from checked(iter(lambda: file.read(_PIECE), b""), digest, self.name)
        except OSError as error:
            raise ImageMissing(f"{self.name} has no blob {digest} ({error.strerror}): copy it again") from error

    def _tagged(self, tag: str) -> str | None:
        try:
            listed = json.loads((self.folder / "index.json").read_bytes())["manifests"]
            return next((str(x["digest"]) for x in listed if (x.get("annotations") or {}).get(_TAG) == tag), None)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise MalformedImage(f"{self.name} is no image layout ({type(error).__name__}): name its folder") from error

    def _path(self, digest: str) -> Path:
        return self.folder / "blobs" / "sha256" / hexdigest(digest)


def parse_layout(text: str) -> tuple[Path, str]:
    """Folder and digest of ``oci:FOLDER@sha256:…``.

    Raises:
        UnpinnedBase: there is no digest.
    """
    folder, _, digest = text.removeprefix("oci:").rpartition("@")
    if not folder or not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise UnpinnedBase(f"base {text!r:.200} has no digest: name it as oci:FOLDER@sha256:…")
    return Path(folder), digest


def write_layout(folder: Path, artifact: Artifact, tag: str) -> bool:
    """Write ``artifact`` as the only image of a new layout; False when the folder holds it already.

    It is written beside and renamed, so that the folder is never there in part.

    Raises:
        FolderTaken: something else is there.
    """
    listed = Index(manifests=[describe(artifact.index).model_copy(update={"annotations": {_TAG: tag}})]).to_bytes()
    if (folder / "index.json").is_file() and (folder / "index.json").read_bytes() == listed:
        return False
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FolderTaken(f"{folder} is there and holds something else: name a new folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise FolderTaken(f"{folder} cannot be written ({error.strerror}): name another folder") from error
    try:
        _fill(beside, artifact, listed)
        beside.chmod(0o755)
        beside.replace(folder)
    except OSError as error:
        raise FolderTaken(f"{folder} cannot be written ({error.strerror}): make room, or name another") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return True


def _fill(folder: Path, artifact: Artifact, listed: bytes) -> None:
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    records = [image.manifest.to_bytes() for image in artifact.images] + [artifact.index.to_bytes()]
    everything: dict[str, Source] = {**artifact.blobs, **{digest_of(data): Bytes(data) for data in records}}
    for name, source in everything.items():
        with (blobs / hexdigest(name)).open("wb") as file:
            for piece in source.chunks():
                file.write(piece)
    (folder / "index.json").write_bytes(listed)
    (folder / "oci-layout").write_bytes(canonical({"imageLayoutVersion": "1.0.0"}))
