"""An image model as TensorFlow Serving reads it: one SavedModel that decodes, takes features and answers.

Its weights and its graph lie in separate files, so that a new head on the same backbone changes the small one alone.
Both are plain tar with fixed times: the same model gives the same bytes, as every layer of a release must.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeloop.clients.model_heads import Head, HiddenHead, LinearHead
from edgeloop.errors import BadInput, EdgeloopError
from edgeloop.exports.tensorflow import load_tensorflow

SIGNATURE = "serving_default"
#: The one input, string [n] of JPEG or PNG bytes, and the one output, float32 [n, labels].
INPUT, OUTPUT = "image_bytes", "probabilities"
MEDIA_TYPE = "application/vnd.edgeloop.savedmodel+tar"
#: Which files of a SavedModel are which layer of a release: weights stay, the graph has the head in it.
PARTS = {"backbone": "variables", "model": "saved_model.pb"}


class UnknownHead(EdgeloopError):
    """A head that cannot be written as TensorFlow operations."""


class MalformedSavedModel(BadInput):
    """Bytes that should be a part of a SavedModel are not."""


def export_savedmodel(backbone: Any, head: Head, folder: Path) -> None:
    """Write a SavedModel of ``backbone`` (Keras, uint8 [n, s, s, 3] to [n, d]) and ``head`` to ``folder``.

    Its one signature ``serving_default`` takes ``image_bytes``, string [n], and answers ``probabilities``, float32
    [n, labels] in the head's order of labels. Images are resized to the square as nodes do it, by TensorFlow's decoder:
    pixels may differ by a little from Pillow's, which reads a JPEG at a fraction of its size.
    """
    tf, _ = load_tensorflow()
    size = int(backbone.input_shape[1])

    def pixels(image: Any) -> Any:
        decoded = tf.io.decode_image(image, channels=3, expand_animations=False)
        resized = tf.image.resize(decoded, (size, size), antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name=INPUT)])  # type: ignore[untyped-decorator]
    def serve(image_bytes: Any) -> dict[str, Any]:
        images = tf.map_fn(pixels, image_bytes, fn_output_signature=tf.TensorSpec((size, size, 3), tf.uint8))
        # Nodes hand float16 features to the head, since those travel with a sample.
        features = tf.cast(tf.cast(backbone(images, training=False), tf.float16), tf.float64)
        return {OUTPUT: tf.cast(tf.nn.softmax(_logits(tf, head, features)), tf.float32)}

    module = tf.Module()
    module.weights = list(backbone.weights)
    module.serve = serve
    tf.saved_model.save(module, str(folder), signatures={SIGNATURE: serve.get_concrete_function()})
    (folder / "fingerprint.pb").unlink(missing_ok=True)  # a random number: servers do without it


def _logits(tf: Any, head: Head, features: Any) -> Any:
    if isinstance(head, LinearHead):
        return features @ tf.constant(head.weights, tf.float64) + tf.constant(head.bias, tf.float64)
    if isinstance(head, HiddenHead):
        lifted = tf.nn.relu(tf.cast(features, tf.float32) @ tf.constant(head.first) + tf.constant(head.first_bias))
        return tf.cast(lifted, tf.float64) @ tf.constant(head.second, tf.float64) + tf.constant(
            head.second_bias, tf.float64
        )
    raise UnknownHead(f"a head of {type(head).__name__} has no TensorFlow form: use another runtime than savedmodel")


def pack(folder: Path) -> dict[str, bytes]:
    """The SavedModel in ``folder`` as tar archives by layer role, see :data:`PARTS`; same files, same bytes."""
    return {role: _tar(folder, part) for role, part in PARTS.items()}


def unpack(layers: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files of a SavedModel by their path in its folder, from layers by role; other layers are left alone.

    Raises:
        MalformedSavedModel: a part is missing, is no archive, or holds what is none of it.
    """
    files: dict[str, bytes] = {}
    for role, part in PARTS.items():
        if role not in layers:
            raise MalformedSavedModel(f"SavedModel without its part {role} ({part}): release it again")
        files |= _untar(layers[role], role, part)
    return dict(sorted(files.items()))


def _tar(folder: Path, part: str) -> bytes:
    top = folder / part
    paths = sorted(p for p in (top.rglob("*") if top.is_dir() else [top]) if p.is_file())
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in paths:
            entry = tarfile.TarInfo(path.relative_to(folder).as_posix())
            entry.size, entry.mode = path.stat().st_size, 0o644
            with path.open("rb") as content:
                archive.addfile(entry, content)
    return sink.getvalue()


def _untar(data: bytes, role: str, part: str) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for entry in archive:
                content = archive.extractfile(entry) if entry.isreg() else None
                if content is None or entry.name.split("/")[0] != part or ".." in entry.name.split("/"):
                    raise MalformedSavedModel(f"part {role} of a SavedModel holds {entry.name!r}: release it again")
                files[entry.name] = content.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise MalformedSavedModel(f"part {role} of a SavedModel is no archive ({error}): release it again") from error
    return files
