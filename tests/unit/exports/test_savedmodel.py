"""A SavedModel answers encoded images as the node's model does, and a new head changes its small part alone."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from edgeloop.clients.endpoint_answers import answer_of
from edgeloop.clients.model_heads import Head, HiddenHead, LinearHead, projection
from edgeloop.exports.savedmodel import (
    INPUT,
    OUTPUT,
    PARTS,
    SIGNATURE,
    MalformedSavedModel,
    UnknownHead,
    export_savedmodel,
    pack,
    unpack,
)
from tests.unit.learning.tiny import bars, small_backbone
from tests.unit.samples.make import encoded

LABELS = ("lying", "standing", "neither")
IMAGES, _ = bars(4)
RANDOM = np.random.default_rng(3)


def linear(seed: int = 0) -> LinearHead:
    weights = np.random.default_rng(seed).normal(size=(16, 3)).astype(np.float32)
    return LinearHead(weights, np.asarray([0.1, 0, -0.1], np.float32), LABELS)


def hidden() -> HiddenHead:
    first, second = projection(1, 16, 8), RANDOM.normal(size=(8, 3)).astype(np.float32)
    return HiddenHead(first, np.full(8, 0.5, np.float32), second, np.zeros(3, np.float32), LABELS)


@pytest.fixture(scope="module")
def keras_model() -> Any:
    pytest.importorskip("tensorflow")
    return small_backbone()


def served(folder: Path) -> Any:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(folder))
    return lambda payloads: loaded.signatures[SIGNATURE](**{INPUT: tf.constant(payloads)})[OUTPUT].numpy()


@pytest.mark.parametrize("head", [linear(), hidden()], ids=["linear", "hidden"])
def test_it_answers_as_backbone_and_head_do(tmp_path: Path, keras_model: Any, head: Head) -> None:
    export_savedmodel(keras_model, head, tmp_path / "1")
    payloads = [encoded(Image.fromarray(image), "PNG") for image in IMAGES]
    features = keras_model(IMAGES, training=False).numpy().astype(np.float16).astype(np.float32)
    got = served(tmp_path / "1")(payloads)
    assert np.allclose(got, head.probabilities(features), atol=2e-3)
    # As TensorFlow Serving sends it, and a node in front of it reads it.
    answer = answer_of({"": got[0].astype(float).tolist()}, LABELS)
    assert answer.prediction == LABELS[int(head.probabilities(features)[0].argmax())]


def test_images_of_other_sizes_are_resized_as_on_a_node(tmp_path: Path, keras_model: Any) -> None:
    from edgeloop.samples.payloads import decode_image

    export_savedmodel(keras_model, linear(), tmp_path / "1")
    large = [encoded(Image.fromarray(image).resize((200, 120)), "PNG") for image in IMAGES]
    seen = np.stack([decode_image(payload, 71) for payload in large])
    features = keras_model(seen, training=False).numpy()
    assert np.allclose(served(tmp_path / "1")(large), linear().probabilities(features), atol=5e-3)


def test_a_new_head_changes_the_graph_and_not_the_weights(tmp_path: Path, keras_model: Any) -> None:
    parts = []
    for seed in (0, 1):
        export_savedmodel(keras_model, linear(seed), tmp_path / str(seed))
        parts.append(pack(tmp_path / str(seed)))
    assert parts[0]["backbone"] == parts[1]["backbone"]
    assert parts[0]["model"] != parts[1]["model"]
    assert list(unpack(parts[0])) == [
        "saved_model.pb", "variables/variables.data-00000-of-00001", "variables/variables.index"
    ]  # fmt: skip


def test_what_was_packed_is_unpacked_and_serves(tmp_path: Path, keras_model: Any) -> None:
    export_savedmodel(keras_model, linear(), tmp_path / "made")
    for name, content in unpack(pack(tmp_path / "made")).items():
        path = tmp_path / "1" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    payload = [encoded(Image.fromarray(IMAGES[0]), "PNG")]
    assert np.array_equal(served(tmp_path / "1")(payload), served(tmp_path / "made")(payload))


def test_a_head_of_another_kind_is_refused(tmp_path: Path, keras_model: Any) -> None:
    with pytest.raises(UnknownHead, match="a head of object has no TensorFlow form"):
        export_savedmodel(keras_model, cast("Head", object()), tmp_path / "1")


def test_packing_forgets_times_owners_and_modes(tmp_path: Path) -> None:
    def folder(name: str, mode: int) -> Path:
        made = tmp_path / name
        (made / "variables").mkdir(parents=True)
        for part in ("saved_model.pb", "variables/b", "variables/a"):
            (made / part).write_bytes(part.encode())
            (made / part).chmod(mode)
        return made

    first, second = pack(folder("one", 0o600)), pack(folder("two", 0o644))
    assert first == second
    with tarfile.open(fileobj=io.BytesIO(first["backbone"])) as archive:
        found = [(e.name, e.mtime, e.uid, e.uname, e.mode) for e in archive]
    assert found == [(f"variables/{name}", 0, 0, "", 0o644) for name in "ab"]


def archive(name: str, kind: bytes = tarfile.REGTYPE) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as packed:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kind, "elsewhere"
        packed.addfile(entry)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("backbone", "said"),
    [
        (b"no archive at all", "part backbone of a SavedModel is no archive"),
        (archive("variables/../../etc/passwd"), "holds 'variables/../../etc/passwd'"),
        (archive("/variables/a"), "holds '/variables/a'"),
        (archive("saved_model.pb"), "part backbone of a SavedModel holds 'saved_model.pb'"),
        (archive("variables/a", tarfile.SYMTYPE), "holds 'variables/a'"),
        (None, "SavedModel without its part backbone"),
    ],
)
def test_what_is_no_part_is_refused(backbone: bytes | None, said: str) -> None:
    layers = {"model": archive("saved_model.pb")} | ({} if backbone is None else {"backbone": backbone})
    with pytest.raises(MalformedSavedModel, match=said):
        unpack(layers)
    assert PARTS["model"] == "saved_model.pb"
