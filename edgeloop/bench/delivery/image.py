"""The releases as ready container images on one runtime, and what an OCI client fetches of them."""

from __future__ import annotations

import gzip
import hashlib
import platform
import re
import tarfile
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from edgeloop.bench.delivery.deltas import GZIP_LEVEL
from edgeloop.clients.oci_types import CONFIG, LAYER, ImageMissing, Reader
from edgeloop.errors import BadInput
from edgeloop.release.oci.base import Base
from edgeloop.release.oci.records import (
    NO_TIME,
    Arch,
    Descriptor,
    ImageConfig,
    Manifest,
    RootFs,
    read_index,
    read_manifest,
)

_PIECE = 1 << 20
_SELF = "edgeloop"


class UnknownArch(BadInput):
    """This machine's kind of CPU has no image."""


class NoFiles(BadInput):
    """A package of the running environment does not say which files it has."""


def own_arch() -> Arch:
    """The kind of CPU of this machine."""
    machine = platform.machine()
    if machine in {"x86_64", "AMD64"}:
        return "amd64"
    if machine in {"aarch64", "arm64"}:
        return "arm64"
    raise UnknownArch(f"this machine is {machine}, and images are for amd64 and arm64: measure on one of those")


@dataclass(frozen=True)
class File:
    """A source of bytes on the disk."""

    path: Path

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self.path.stat().st_size

    def chunks(self) -> Iterator[bytes]:
        """The bytes from the start."""
        with self.path.open("rb") as file:
            while piece := file.read(_PIECE):
                yield piece


# --- a runtime to stand on


def stand_in(folder: Path, arch: Arch) -> Base:
    """A base image of the packages that a node needs, as installed here, in one gzip layer as registries have it.

    It lacks the interpreter and the system below, so that a real base is larger. Nothing can be run in it.

    Raises:
        NoFiles: a package does not say which files it has.
    """
    path = folder / "base.tar.gz"
    diff = _write_packages(path)
    size, name = path.stat().st_size, _file_digest(path)
    layer = Descriptor(media_type=f"{LAYER}+gzip", digest=name, size=size)
    config = ImageConfig(architecture=arch, created=NO_TIME, rootfs=RootFs(diff_ids=[diff]))
    described = Descriptor(media_type=CONFIG, digest=_digest(config.to_bytes()), size=len(config.to_bytes()))
    manifest = Manifest(config=described, layers=[layer])
    return Base("stand-in", _digest(manifest.to_bytes()), config, (layer,), {name: File(path)})


def _write_packages(path: Path) -> str:
    """Write the layer, and return the digest that it has unpacked."""
    files = {str(name): file for name, file in _node_files() if file.is_file()}
    with (
        path.open("wb") as sink,
        gzip.GzipFile("", "wb", GZIP_LEVEL, sink, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name in sorted(files):
            entry = tarfile.TarInfo(f"opt/edgeloop/{name}")
            entry.size, entry.mode = files[name].stat().st_size, 0o644
            with files[name].open("rb") as source:
                tar.addfile(entry, source)
    with gzip.open(path) as tarred:
        return f"sha256:{hashlib.file_digest(tarred, 'sha256').hexdigest()}"


def _node_files() -> Iterator[tuple[str, Path]]:
    """Files of the base install without what is compiled anew everywhere: name in the layer, and path here."""
    for name in sorted(_closure(_SELF)):
        if name == _SELF:
            yield from _own_files()
            continue
        found = metadata.distribution(name).files
        if found is None:
            raise NoFiles(f"package {name} has no list of its files: install it with pip, or give --base")
        yield from (
            (str(one), Path(str(one.locate()))) for one in found if one.suffix != ".pyc" and ".." not in one.parts
        )


def _own_files() -> Iterator[tuple[str, Path]]:
    """This package, wherever it was imported from."""
    root = Path(__file__).resolve().parents[2]
    yield from ((f"{_SELF}/{path.relative_to(root)}", path) for path in sorted(root.rglob("*.py")))


def _closure(name: str) -> set[str]:
    """Names of the packages that ``name`` needs without extras, with itself."""
    from packaging.requirements import Requirement

    found: set[str] = set()
    left = [name]
    while left:
        one = re.sub(r"[-_.]+", "-", left.pop()).lower()
        if one not in found:
            found.add(one)
            needs = map(Requirement, metadata.distribution(one).requires or [])
            left += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    return found


# --- what a client fetches


@dataclass(frozen=True)
class Pulled:
    """What a client has fetched."""

    bytes: int
    requests: int
    manifest: Manifest
    blobs: Mapping[str, int]
    """Of the image, by digest, whether fetched now or held before."""


def pull(reader: Reader, repository: str, digest: str, arch: Arch, held: Set[str] = frozenset()) -> Pulled:
    """Fetch the image for ``arch`` of the index ``digest`` as OCI clients do: but for the blobs that are ``held``."""
    index = _read(reader, repository, digest)
    listed = read_index(index, digest).manifests
    name = next(x.digest for x in listed if x.platform and x.platform.architecture == arch)
    data = _read(reader, repository, name)
    manifest = read_manifest(data, name)
    blobs = {one.digest: one.size for one in (manifest.config, *manifest.layers)}
    lacking = [blob for blob in blobs if blob not in held]
    count = sum(len(piece) for blob in lacking for piece in reader.blob(repository, blob))
    return Pulled(len(index) + len(data) + count, 2 + len(lacking), manifest, blobs)


def _read(reader: Reader, repository: str, digest: str) -> bytes:
    found = reader.manifest(repository, digest)
    if found is None:
        raise ImageMissing(f"{reader.name} has no {digest}: write the image again")
    return found[0]


def unpacked(reader: Reader, repository: str, layer: Descriptor) -> Iterator[bytes]:
    """The tar of a layer, however it is compressed."""
    pieces = reader.blob(repository, layer.digest)
    if layer.media_type.endswith("+gzip"):
        return _gunzipped(pieces)
    if layer.media_type.endswith("+zstd"):
        return _unzstd(pieces)
    return pieces


def _gunzipped(pieces: Iterator[bytes]) -> Iterator[bytes]:
    import zlib

    stream = zlib.decompressobj(wbits=31)
    for piece in pieces:
        yield stream.decompress(piece)
    yield stream.flush()


def _unzstd(pieces: Iterator[bytes]) -> Iterator[bytes]:
    import zstandard

    stream = zstandard.ZstdDecompressor().decompressobj()
    yield from map(stream.decompress, pieces)


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
