"""Which files of a release an image has, and in which layers: what changes rarely lies below what always changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

from edgeloop.clients.oci_types import Bytes, Source
from edgeloop.errors import BadInput, EdgeloopError
from edgeloop.release.oci.records import Arch, Descriptor, describe_layer
from edgeloop.release.oci.tars import layer_tar
from edgeloop.samples.records import digest
from edgeloop.samples.releases import Layer, Release

Kind = Literal["model", "predictor", "savedmodel"]
Made = tuple[Descriptor, Source]
#: Name and digest of each file of a layer.
_Key = tuple[tuple[str, str], ...]
#: Names under /models by role, as ``edgeloop serve`` and KServe's servers look for them.
FILES: dict[str, str] = {
    "backbone": "backbone.tflite",
    "config": "config.json",
    "head": "head.npz",
    "model": "model.onnx",
    "probe": "probe.json",
    "release": "release.json",
}
#: From the layer that changes least to the one that always does.
_ORDER: tuple[tuple[str, ...], ...] = (("backbone",), ("config",), ("head",), ("model",), ("probe", "release"))
#: What ``edgeloop serve`` and servers of the files under these names run.
_RUNTIMES = ("litert", "onnx")
#: TensorFlow Serving reads ``<base path>/<number>``.
_SERVED = "models/1"


class DamagedBlob(EdgeloopError):
    """A blob in the store is not what its name says."""


class NoSavedModel(BadInput):
    """A release has no SavedModel in it."""


class ModelLayers:
    """Makes the layers of a release, each of them once however many images have it.

    Args:
        read_blob: gives the bytes of a blob by digest.
    """

    def __init__(self, release: Release, read_blob: Callable[[str], bytes]) -> None:
        self._release = release
        self._read = read_blob
        self._made: dict[_Key, Made] = {}

    def of(self, kind: Kind, arch: Arch) -> list[Made]:
        """The layers for this CPU: those of the variant ``generic-<arch>``, or of the model as it was trained.

        Raises:
            DamagedBlob: the store has other bytes than the release names.
            NoSavedModel: one is asked for and none is there.
        """
        if kind == "savedmodel":
            return self._served()
        wanted: dict[str, Layer] = {layer.role: layer for layer in _layers_for(self._release, arch)}
        found = [[role for role in roles if role in wanted or role == "release"] for roles in _ORDER]
        return [self._plain({role: wanted.get(role) for role in roles}) for roles in found if roles]

    def _plain(self, roles: Mapping[str, Layer | None]) -> Made:
        """A layer with one file for each role; the role without a layer is the release's own manifest."""

        def files() -> dict[str, bytes]:
            return {f"models/{FILES[r]}": self._content(x) if x else self._release.to_bytes() for r, x in roles.items()}

        return self._once(tuple((r, x.digest if x else "") for r, x in roles.items()), files)

    def _served(self) -> list[Made]:
        from edgeloop.exports.savedmodel import PARTS, unpack

        variant = next((v for v in self._release.variants if v.runtime == "savedmodel"), None)
        if variant is None:
            raise NoSavedModel(
                f"release {self._release.digest} of {self._release.service} has no SavedModel:"
                " add a profile with runtime savedmodel to delivery.profiles and release the version again"
            )
        parts = {str(layer.role): layer for layer in variant.layers if layer.role in PARTS}
        files = unpack({role: self._content(layer) for role, layer in parts.items()})

        def of_part(part: str) -> dict[str, bytes]:
            return {f"{_SERVED}/{path}": data for path, data in files.items() if path.split("/")[0] == part}

        made = [self._once(((part, parts[role].digest),), partial(of_part, part)) for role, part in PARTS.items()]
        return [*made, self._plain({"release": None})]

    def _once(self, key: _Key, files: Callable[[], dict[str, bytes]]) -> Made:
        if key not in self._made:
            found = files()
            tar = layer_tar(found)
            names = sorted(path.removeprefix("models/") for path in found)
            self._made[key] = (describe_layer(tar, " ".join(names)), Bytes(tar))
        return self._made[key]

    def _content(self, layer: Layer) -> bytes:
        data = self._read(layer.digest)
        if digest(data) != layer.digest:
            raise DamagedBlob(
                f"{layer.role} of release {self._release.digest} has other bytes than its name {layer.digest}:"
                " restore the blob from a copy, or release the version again"
            )
        return data


def _layers_for(release: Release, arch: Arch) -> list[Layer]:
    own = [v.layers for v in release.variants if v.profile == f"generic-{arch}" and v.runtime in _RUNTIMES]
    return own[0] if own else release.layers
