"""What a packaged model answers, and that a layer that is not one is refused before anybody relies on it."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeloop.clients.models import (
    Answer,
    Backbone,
    FailedProbe,
    ImageModel,
    LinearHead,
    Model,
    OnnxModel,
    UnknownBackbone,
    UnloadableModel,
    load_model,
    make_probe,
    read_backbone,
    run_probe,
)
from edgeloop.clients.models_litert import _as_input
from edgeloop.learning.tabular import fit_pipeline, to_onnx
from edgeloop.samples.payloads import UndecodablePayload, decode_image, encode_features
from edgeloop.samples.records import digest
from tests.unit.samples.make import classifier, looker, picture, regressor

EXTRACTOR = "mobilenet_v1_1.0_224_quant_embedding_extractor.tflite"

finite = st.floats(-50, 50, width=32)


def head(features: int, labels: tuple[str, ...] = ("cat", "dog"), seed: int = 0) -> LinearHead:
    rng = np.random.default_rng(seed)
    weights = rng.normal(0, 0.2, (features, len(labels))).astype(np.float32)
    return LinearHead(weights, np.zeros(len(labels), np.float32), labels)


@pytest.fixture(scope="module")
def backbone(shared: Path) -> Backbone:
    return read_backbone(shared / "models" / EXTRACTOR)


@pytest.fixture(scope="module")
def image_layers(shared: Path, backbone: Backbone) -> dict[str, bytes]:
    width = len(backbone.features(np.zeros((backbone.size, backbone.size, 3), np.uint8)))
    return {"backbone": (shared / "models" / EXTRACTOR).read_bytes(), "head": head(width).to_bytes()}


@pytest.fixture(scope="module")
def onnx() -> bytes:
    return fitted_onnx(regressor())


def fitted_onnx(service: Any) -> bytes:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(60, 2)).astype(np.float32)
    if service.is_classifier:
        truth = [service.labels[int(i)] for i in np.digitize(rows[:, 0], [-0.5, 0.5])]
    else:
        truth = [str(v) for v in rows @ [1.0, 2.0]]
    return to_onnx(fit_pipeline(service, rows, truth, 0), 2)


@settings(deadline=None)
@given(hnp.arrays(np.float32, (3, 4), elements=finite), hnp.arrays(np.float32, (4, 2), elements=finite))
def test_a_heads_probabilities_are_probabilities(features: Any, weights: Any) -> None:
    found = LinearHead(weights, np.zeros(2, np.float32), ("a", "b")).probabilities(features)
    assert found.shape == (3, 2)
    assert (found >= 0).all()
    assert np.allclose(found.sum(axis=1), 1)


def test_a_head_is_the_same_bytes_every_time_and_comes_back_whole() -> None:
    made = head(5, ("größe", "b"))
    again = LinearHead.from_bytes(made.to_bytes())
    assert head(5, ("größe", "b")).to_bytes() == made.to_bytes() == again.to_bytes()
    assert again.labels == made.labels
    assert np.array_equal(again.weights, made.weights)
    assert digest(head(2, seed=3).to_bytes()) == digest(head(2, seed=3).to_bytes())


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_half_a_head_does_not_load(cut: int) -> None:
    with pytest.raises(UnloadableModel, match="does not load"):
        LinearHead.from_bytes(head(5).to_bytes()[:cut])


def test_no_damage_to_a_head_is_another_error() -> None:
    whole = head(3).to_bytes()
    for at in range(0, len(whole), 5):
        data = whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :]
        try:
            LinearHead.from_bytes(data)
        except UnloadableModel:
            continue


def test_an_image_model_answers_with_what_travels_with_the_sample(
    backbone: Backbone, image_layers: dict[str, bytes]
) -> None:
    model = load_model(looker().node_config(), image_layers, backbone.digest)
    answer = model.predict(picture(1))
    assert model.labels == ("cat", "dog")
    assert model.backbone_digest == backbone.digest
    assert answer.embedding is not None
    assert answer.probabilities is not None
    assert answer.embedding.dtype == np.float16
    features = answer.embedding[np.newaxis].astype(np.float32)
    expected = LinearHead.from_bytes(image_layers["head"]).probabilities(features)[0]
    assert answer.probabilities == tuple(expected)
    assert answer.confidence == max(expected)
    assert answer.prediction == ("cat", "dog")[int(expected.argmax())]


def test_an_answer_shows_the_picture_that_the_model_saw(backbone: Backbone, image_layers: dict[str, bytes]) -> None:
    answer = load_model(looker().node_config(), image_layers, backbone.digest).predict(picture(1))
    assert answer.image is not None
    assert answer.image.dtype == np.uint8
    assert np.array_equal(answer.image, decode_image(picture(1), backbone.size))
    assert answer.boxes is None


def test_interpreters_are_made_and_run_before_the_first_request(
    image_layers: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ai_edge_litert.interpreter import Interpreter

    made: list[int] = []
    ran: list[Any] = []
    make, invoke = Interpreter.__init__, Interpreter.invoke

    def made_by(self: Any, **named: Any) -> None:
        made.append(named["num_threads"])
        make(self, **named)

    def run_by(self: Any) -> None:
        ran.append(self)
        invoke(self)

    monkeypatch.setattr(Interpreter, "__init__", made_by)
    monkeypatch.setattr(Interpreter, "invoke", run_by)
    model = load_model(looker().node_config(), image_layers, interpreters=3)
    assert made == [1, 1, 1]
    assert len(set(ran)) == 3
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(model.predict, [picture(n) for n in range(16)]))
    assert len(made) == 3


def test_every_interpreter_gives_the_features_that_one_alone_gives(image_layers: dict[str, bytes]) -> None:
    from ai_edge_litert.interpreter import Interpreter

    alone = Interpreter(model_content=image_layers["backbone"], num_threads=1)
    alone.allocate_tensors()
    source, sink = alone.get_input_details()[0], alone.get_output_details()[0]
    several = Backbone(image_layers["backbone"], "sha256:0", interpreters=3)
    images = [decode_image(picture(n), several.size) for n in range(6)]
    wanted = []
    for image in images:
        alone.set_tensor(source["index"], image[np.newaxis].astype(source["dtype"]))
        alone.invoke()
        scale, zero = sink["quantization"]
        wanted.append((alone.get_tensor(sink["index"]).reshape(-1).astype(np.float32) - zero) * scale)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(several.features, images))
    assert np.array_equal(found, wanted)
    found[0][:] = 0  # a copy: the next image must not see it
    assert np.array_equal(several.features(images[0]), wanted[0])


def test_a_model_that_takes_no_square_picture_is_no_backbone(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ai_edge_litert.interpreter import Interpreter

    content = (shared / "models" / EXTRACTOR).read_bytes()
    details = Interpreter.get_input_details
    for change in ({"shape": np.array([1, 224, 200, 3])}, {"shape": np.array([1, 10])}, {"dtype": np.float64}):
        monkeypatch.setattr(Interpreter, "get_input_details", lambda self, c=change: [details(self)[0] | c])
        with pytest.raises(UnknownBackbone, match="choose another file"):
            Backbone(content, "sha256:0", 1)


def test_int8_pixels_are_the_same_pixels_shifted() -> None:
    image = np.arange(256, dtype=np.uint8).reshape(1, 256, 1)
    shifted = _as_input(image, np.dtype(np.int8))
    assert np.array_equal(shifted.astype(int), image.astype(int) - 128)


def test_threads_get_the_same_answers(backbone: Backbone, image_layers: dict[str, bytes]) -> None:
    model = ImageModel(backbone, LinearHead.from_bytes(image_layers["head"]))
    pictures = [picture(n) for n in range(4)]
    alone = [model.predict(p).probabilities for p in pictures]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda p: model.predict(p).probabilities, pictures * 3))
    assert together == alone * 3


def test_what_is_no_picture_is_refused(backbone: Backbone, image_layers: dict[str, bytes]) -> None:
    model = load_model(looker().node_config(), image_layers, backbone.digest)
    with pytest.raises(UndecodablePayload):
        model.predict(b"[1, 2]")


def test_a_regressor_answers_a_number(onnx: bytes) -> None:
    model = load_model(regressor().node_config(), {"model": onnx})
    answer = model.predict(encode_features([0.5, 0.25]))
    assert answer.value == float(answer.prediction) == pytest.approx(1.0, abs=0.1)
    assert (answer.confidence, answer.probabilities, answer.embedding) == (None, None, None)
    assert model.predict(b'{"b": 0.25, "a": 0.5}').prediction == answer.prediction


def test_a_tabular_classifier_answers_a_label() -> None:
    model = load_model(classifier().node_config(), {"model": fitted_onnx(classifier())})
    answer = model.predict(encode_features([3, 0]))
    assert answer.prediction == "z"
    assert answer.probabilities is not None
    assert len(answer.probabilities) == 3
    assert answer.confidence == max(answer.probabilities)


@pytest.mark.parametrize("missing", ["backbone", "head"])
def test_a_missing_layer_is_named(image_layers: dict[str, bytes], missing: str) -> None:
    layers = {role: data for role, data in image_layers.items() if role != missing}
    with pytest.raises(UnloadableModel, match=f"release of looker has no layer '{missing}'"):
        load_model(looker().node_config(), layers)
    with pytest.raises(UnloadableModel, match="release of rater has no layer 'model'"):
        load_model(regressor().node_config(), {})


@pytest.mark.parametrize("data", [b"", b"not onnx", bytes(100)])
def test_bytes_that_are_no_model_do_not_load(image_layers: dict[str, bytes], data: bytes) -> None:
    with pytest.raises(UnloadableModel):
        load_model(regressor().node_config(), {"model": data})
    with pytest.raises(UnloadableModel):
        load_model(looker().node_config(), image_layers | {"backbone": data})
    with pytest.raises(UnloadableModel):
        load_model(looker().node_config(), image_layers | {"head": data})


def test_half_a_model_does_not_load(image_layers: dict[str, bytes], onnx: bytes) -> None:
    with pytest.raises(UnloadableModel):
        OnnxModel(onnx[: len(onnx) // 2], ["a", "b"], None)
    with pytest.raises(UnloadableModel):
        Backbone(image_layers["backbone"][:5000], "sha256:0")


def test_a_backbone_is_named_by_its_bytes(shared: Path, backbone: Backbone) -> None:
    assert backbone.digest == digest((shared / "models" / EXTRACTOR).read_bytes())
    assert backbone.size == 224


def test_a_file_that_is_no_backbone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownBackbone, match=r"does not exist: name a .tflite file"):
        read_backbone(tmp_path / "absent.tflite")
    (tmp_path / "text.tflite").write_text("no model", encoding="utf-8")
    with pytest.raises(UnloadableModel, match="does not load"):
        read_backbone(tmp_path / "text.tflite")


class Fixed:
    """A model that answers what it is told to."""

    labels: tuple[str, ...] | None = None
    backbone_digest: str | None = None

    def __init__(self, *answers: str) -> None:
        self._answers = list(answers)

    def predict(self, payload: bytes) -> Answer:
        return Answer(self._answers[int(payload)], None, None, None)


def probe_of(*answers: str) -> bytes:
    return make_probe(cast(Model, Fixed(*answers)), [str(n).encode() for n in range(len(answers))])


def fits(answers: Sequence[str], probe: bytes, labels: bool) -> bool:
    try:
        run_probe(cast(Model, Fixed(*answers)), probe, labels)
    except FailedProbe:
        return False
    return True


def test_a_probe_is_made_and_passed() -> None:
    probe = probe_of("cat", "dog")
    cases = json.loads(probe)["cases"]
    assert [(base64.b64decode(c["payload"]), c["prediction"]) for c in cases] == [(b"0", "cat"), (b"1", "dog")]
    assert fits(["cat", "dog"], probe, True)
    assert probe == probe_of("cat", "dog")


def test_another_answer_fails_and_is_named() -> None:
    with pytest.raises(FailedProbe, match="probe input 1 gave cat, the release says dog"):
        run_probe(cast(Model, Fixed("cat", "cat")), probe_of("cat", "dog"), True)


@pytest.mark.parametrize(
    ("answer", "fine"), [("100.0", True), ("100.05", True), ("100.2", False), ("99.95", True), ("nan", False)]
)
def test_a_number_may_differ_by_a_thousandth(answer: str, fine: bool) -> None:
    assert fits([answer], probe_of("100.0"), False) is fine


def test_a_tampered_probe_fails(onnx: bytes) -> None:
    model = load_model(regressor().node_config(), {"model": onnx})
    probe = make_probe(model, [encode_features([1, 2]), encode_features([3, 4])])
    run_probe(model, probe, False)
    cases = json.loads(probe)["cases"]
    cases[1]["prediction"] = "0.0"
    with pytest.raises(FailedProbe, match="probe input 1"):
        run_probe(model, json.dumps({"cases": cases}).encode(), False)
