"""The fake and MLflow promise the same: versions found by their key, and an alias that says who is champion."""

from __future__ import annotations

import io
import json
import pickle
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

from edgeloop.clients.models import LinearHead, OnnxModel, load_model, read_backbone
from edgeloop.clients.registry import (
    Entry,
    ForeignVersion,
    LoggedModel,
    MemoryRegistry,
    MlflowRegistry,
    ModelRegistry,
    RegistryUnavailable,
    UnknownVersion,
)
from edgeloop.learning.logged import LoggedImageModel, LoggedPipeline
from edgeloop.learning.tabular import fit_pipeline, to_onnx
from edgeloop.samples.payloads import encode_features
from edgeloop.samples.service import Service
from tests.servers.ports import free_port
from tests.unit.samples.make import looker, picture, regressor

ELSEWHERE = "s3://elsewhere/model"
# MLflow compares columns in a way that the next pandas will no longer take.
by_mlflow = pytest.mark.filterwarnings("ignore:Operation with range is deprecated:DeprecationWarning")
EXTRACTOR = "mobilenet_v1_1.0_224_quant_embedding_extractor.tflite"


@pytest.fixture(params=["memory", "mlflow"])
def registry(request: pytest.FixtureRequest) -> ModelRegistry:
    if request.param == "memory":
        return MemoryRegistry()
    return MlflowRegistry(request.getfixturevalue("mlflow_url"))


@pytest.fixture
def service(request: pytest.FixtureRequest) -> str:
    """A name that no other test uses, because the server lives as long as the module."""
    return f"service-{time.monotonic_ns():x}"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "evaluation"
    folder.mkdir()
    (folder / "gate.json").write_text("{}", encoding="utf-8")
    return folder


class Nothing:
    """A version without a model: what most of the contract needs, and quick."""

    def log(self, name: str, registered: str) -> str:
        import mlflow

        client = mlflow.MlflowClient()
        run = mlflow.active_run()
        assert run is not None
        with_name = {m.name for m in client.search_registered_models()}
        if registered not in with_name:
            client.create_registered_model(registered)
        made = client.create_model_version(registered, f"runs:/{run.info.run_id}/{name}", run.info.run_id)
        return str(made.version)


def entry(service: str, key: str = "sha256:key", **changes: Any) -> Entry:
    values: dict[str, Any] = {
        "service": service,
        "key": key,
        "dataset": "sha256:data",
        "layers": {"head": "sha256:h", "backbone": "sha256:b"},
        "params": {"mode": "head", "seed": "0"},
        "metrics": {"gate_accuracy": 0.75},
        "tags": {"edgeloop.reason": "asked"},
        "description": "head: asked",
    }
    return Entry.model_validate(values | changes)


def test_it_is_there(registry: ModelRegistry) -> None:
    registry.check()


def test_an_unknown_service_has_nothing(registry: ModelRegistry, service: str) -> None:
    assert registry.champion(service) is None
    assert registry.find(service, "sha256:key") is None


def test_what_is_registered_is_found_by_its_key(registry: ModelRegistry, service: str, files: Path) -> None:
    made = registry.register(entry(service), Nothing(), files)
    assert (made.service, made.version, made.key) == (service, "1", "sha256:key")
    assert made.layers == {"head": "sha256:h", "backbone": "sha256:b"}
    assert made.dataset == "sha256:data"
    assert made.run_id
    assert registry.find(service, "sha256:key") == made
    assert registry.find(service, "sha256:other") is None
    assert registry.find(f"{service}-b", "sha256:key") is None


def test_registering_makes_no_champion(registry: ModelRegistry, service: str, files: Path) -> None:
    registry.register(entry(service), Nothing(), files)
    assert registry.champion(service) is None


def test_the_alias_moves(registry: ModelRegistry, service: str, files: Path) -> None:
    first = registry.register(entry(service, "sha256:1"), Nothing(), files)
    second = registry.register(entry(service, "sha256:2"), Nothing(), files)
    assert (first.version, second.version) == ("1", "2")
    for version in (first, second, second, first):
        registry.set_champion(service, version.version)
        assert registry.champion(service) == version
    assert registry.find(service, "sha256:2") == second


def test_services_do_not_share_champions(registry: ModelRegistry, service: str, files: Path) -> None:
    mine = registry.register(entry(service), Nothing(), files)
    other = registry.register(entry(f"{service}-b"), Nothing(), files)
    registry.set_champion(service, mine.version)
    assert registry.champion(f"{service}-b") is None
    registry.set_champion(f"{service}-b", other.version)
    assert registry.champion(f"{service}-b") == other
    assert registry.champion(service) == mine


def test_an_alias_that_is_not_there_is_an_answer(registry: ModelRegistry, service: str, files: Path) -> None:
    assert registry.alias(service).version is None, "no such model"
    made = registry.register(entry(service), Nothing(), files)
    assert registry.alias(service).version is None, "no such alias"
    registry.set_champion(service, made.version)
    assert registry.alias(service).version == made


def test_an_alias_can_be_deleted_again_and_again(registry: ModelRegistry, service: str, files: Path) -> None:
    registry.clear_champion(service)
    made = registry.register(entry(service), Nothing(), files)
    registry.set_champion(service, made.version)
    for _ in range(2):
        registry.clear_champion(service)
        assert registry.champion(service) is None
    assert registry.version(service, "1") == made


@pytest.mark.parametrize("number", ["99", "x", ""])
def test_a_version_that_is_not_there_is_named(registry: ModelRegistry, service: str, files: Path, number: str) -> None:
    with pytest.raises(UnknownVersion, match=f"{service} has no version {number}"):
        registry.version(service, number)
    registry.register(entry(service), Nothing(), files)
    calls: list[Any] = [registry.version, registry.set_champion]
    for call in calls:
        with pytest.raises(UnknownVersion, match=f"{service} has no version {number}"):
            call(service, number)
    assert registry.champion(service) is None


def test_a_version_is_found_by_its_number(registry: ModelRegistry, service: str, files: Path) -> None:
    made = [registry.register(entry(service, f"sha256:{n}"), Nothing(), files) for n in range(3)]
    assert [registry.version(service, v.version) for v in made] == made


# --- what only the server can show


def test_a_stamp_is_a_tag_that_people_see(mlflow_url: str, client: Any, service: str, files: Path) -> None:
    registry = MlflowRegistry(mlflow_url)
    made = registry.register(entry(service), Nothing(), files)
    registry.stamp(service, made.version, {"refused": "rejected by alice: wrong"})
    assert client.get_model_version(service, made.version).tags["edgeloop.refused"] == "rejected by alice: wrong"
    assert registry.version(service, made.version) == made


@pytest.fixture
def client(mlflow_url: str) -> Any:
    import mlflow

    return mlflow.MlflowClient(mlflow_url, mlflow_url)


def test_a_version_of_another_hand_is_named(mlflow_url: str, client: Any, service: str) -> None:
    client.create_registered_model(service)
    made = client.create_model_version(service, ELSEWHERE)
    client.set_registered_model_alias(service, "champion", made.version)
    with pytest.raises(ForeignVersion, match=rf"version 1 of {service} has no tag .*promote one that edgeloop"):
        MlflowRegistry(mlflow_url).champion(service)


def test_a_version_whose_layers_are_no_json_is_foreign(mlflow_url: str, client: Any, service: str) -> None:
    client.create_registered_model(service)
    tags = {"edgeloop.key": "k", "edgeloop.dataset": "d", "edgeloop.layers": "{"}
    made = client.create_model_version(service, ELSEWHERE, tags=tags)
    client.set_registered_model_alias(service, "champion", made.version)
    with pytest.raises(ForeignVersion):
        MlflowRegistry(mlflow_url).champion(service)


def test_the_run_holds_what_was_logged(mlflow_url: str, client: Any, service: str, files: Path) -> None:
    made = MlflowRegistry(mlflow_url).register(entry(service), Nothing(), files)
    run = client.get_run(made.run_id)
    assert run.data.params == {"mode": "head", "seed": "0"}
    assert run.data.metrics == {"gate_accuracy": 0.75}
    assert run.data.tags["edgeloop.reason"] == "asked"
    assert run.info.run_name == "head: asked"
    assert run.info.status == "FINISHED"
    assert [f.path for f in client.list_artifacts(made.run_id, "evaluation")] == ["evaluation/gate.json"]
    assert client.get_experiment(run.info.experiment_id).name == service
    assert client.get_model_version_by_alias(service, "candidate").version == made.version


def test_a_registration_that_was_cut_off_is_not_found(
    mlflow_url: str, client: Any, service: str, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = MlflowRegistry(mlflow_url)
    tags = {k: v for k, v in registry._tags(entry(service)).items() if k != "key"}
    monkeypatch.setattr(MlflowRegistry, "_tags", staticmethod(lambda _: tags))
    registry.register(entry(service), Nothing(), files)
    monkeypatch.undo()
    assert registry.find(service, "sha256:key") is None
    again = registry.register(entry(service), Nothing(), files)
    assert registry.find(service, "sha256:key") == again


@contextmanager
def answering(status: int, body: bytes = b"") -> Iterator[str]:
    """Something at an address that is no MLflow, or is one that says this."""

    class Other(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_DELETE = do_PATCH = answer

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Other)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_server_that_is_away_is_named(mlflow_url: str, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    url = f"http://127.0.0.1:{free_port()}"
    away = MlflowRegistry(url, timeout=1)
    calls: list[Any] = [
        away.check,
        lambda: away.champion("x"),
        lambda: away.find("x", "k"),
        lambda: away.alias("x"),
        lambda: away.version("x", "1"),
        lambda: away.set_champion("x", "1"),
        lambda: away.clear_champion("x"),
        lambda: away.stamp("x", "1", {"a": "b"}),
        lambda: away.register(entry("x"), Nothing(), files),
    ]
    for call in calls:
        with pytest.raises(RegistryUnavailable, match=f"MLflow at {url}"):
            call()


@pytest.mark.parametrize("status", [500, 503])
def test_a_server_in_trouble_is_named(status: int) -> None:
    with answering(status) as url:
        broken = MlflowRegistry(url)
        calls: list[Any] = [broken.check, lambda: broken.champion("x"), lambda: broken.find("x", "k")]
        for call in calls:
            with pytest.raises(RegistryUnavailable, match=f"{url} answered {status}"):
                call()


def test_another_server_is_not_taken_for_mlflow() -> None:
    with answering(404) as url, pytest.raises(RegistryUnavailable, match="answered 404"):
        MlflowRegistry(url).check()


REFUSED = {"error_code": "INVALID_PARAMETER_VALUE", "message": "Missing value for required parameter 'name'."}
LOST = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "Endpoint champion of x not there"}


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b""),
        (404, b"<html>champion of x was not found</html>"),
        (404, b"[]"),
        (404, b'"not found"'),
        (404, b'{"message": "champion not found"}'),
        (400, json.dumps(REFUSED).encode()),
        (404, json.dumps(LOST).encode()),
        (403, json.dumps(LOST | {"message": "champion not found"}).encode()),
        (200, b"<html>log in</html>"),
        (200, b"{}"),
    ],
)
def test_what_is_not_mlflows_own_word_is_never_a_deleted_alias(status: int, body: bytes) -> None:
    """A path that a proxy lost, a page to log in, another program: whoever answers so knows nothing of the alias."""
    with answering(status, body) as url:
        other = MlflowRegistry(url)
        calls: list[Any] = [other.alias, other.champion]
        if status != 200:
            calls.append(other.clear_champion)
        for call in calls:
            with pytest.raises(RegistryUnavailable, match=url):
                call("x")


# --- real models


def load_back(url: str, service: str, version: str) -> Any:
    import mlflow

    mlflow.set_tracking_uri(url)
    mlflow.set_registry_uri(url)
    return mlflow.pyfunc.load_model(f"models:/{service}/{version}")


def logged_pipeline(service: Service) -> tuple[LoggedModel, Any, bytes]:
    rows = np.random.default_rng(0).uniform(0, 10, (40, 2)).astype(np.float32)
    estimator = fit_pipeline(service, rows, [str(float(a + b) / 2) for a, b in rows], 0)
    sink = io.BytesIO()
    pickle.dump(estimator, sink)
    onnx = to_onnx(estimator, 2)
    return LoggedPipeline(service, sink.getvalue(), onnx, encode_features(rows[0].tolist())), estimator, onnx


@by_mlflow
# The pipeline was fitted on arrays, MLflow gives it the frame that the signature promises.
@pytest.mark.filterwarnings("ignore:X has feature names:UserWarning")
def test_a_pipeline_answers_from_the_registry_as_on_a_node(mlflow_url: str, service: str, files: Path) -> None:
    import pandas as pd

    model, estimator, onnx = logged_pipeline(regressor(name=service))
    made = MlflowRegistry(mlflow_url).register(entry(service), model, files)
    rows = np.array([[1.0, 2.0], [7.5, 0.25]])
    loaded = load_back(mlflow_url, service, made.version)
    answers = np.asarray(loaded.predict(pd.DataFrame(rows, columns=["a", "b"])), dtype=float)
    assert answers == pytest.approx(estimator.predict(rows.astype(np.float32)), rel=1e-5)
    node = OnnxModel(onnx, ["a", "b"], None)
    assert answers == pytest.approx([node.predict(encode_features(row)).value for row in rows.tolist()], rel=1e-4)
    assert [i.name for i in loaded.metadata.signature.inputs] == ["a", "b"]
    assert loaded.metadata.saved_input_example_info is not None


@by_mlflow
def test_an_image_model_answers_from_the_registry_as_on_a_node(
    mlflow_url: str, service: str, files: Path, tmp_path: Path, shared: Path
) -> None:
    import pandas as pd

    backbone = read_backbone(shared / "models" / EXTRACTOR)
    width = len(backbone.features(np.zeros((224, 224, 3), np.uint8)))
    weights = np.random.default_rng(0).normal(0, 0.2, (width, 2)).astype(np.float32)
    head = LinearHead(weights, np.zeros(2, np.float32), ("cat", "dog"))
    layers = {"backbone": (shared / "models" / EXTRACTOR).read_bytes(), "head": head.to_bytes()}
    spec = looker(name=service)
    model = LoggedImageModel(spec, layers, backbone.digest, picture(0), tmp_path)
    made = MlflowRegistry(mlflow_url).register(entry(service), model, files)
    pictures = [picture(1), picture(2, kind="PNG")]
    answers = load_back(mlflow_url, service, made.version).predict(pd.DataFrame({"image": pictures}))
    node = load_model(spec.node_config(), layers, backbone.digest)
    expected = [node.predict(p) for p in pictures]
    assert list(answers["prediction"]) == [a.prediction for a in expected]
    assert list(answers["confidence"]) == pytest.approx([a.confidence for a in expected])
