"""The fake and MLflow promise the same: versions found by their key, and an alias that says who is champion."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import time
import warnings
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
)
from edgeloop.learning.logged import LoggedImageModel, LoggedPipeline
from edgeloop.learning.tabular import fit_pipeline, to_onnx
from edgeloop.samples.payloads import encode_features
from edgeloop.samples.service import Service
from edgeloop.stack.parts import mlflow_part
from edgeloop.stack.plan import StackPlan
from tests.servers.ports import free_port, wait_until
from tests.unit.samples.make import looker, picture, regressor

ELSEWHERE = "s3://elsewhere/model"
# MLflow compares columns in a way that the next pandas will no longer take.
by_mlflow = pytest.mark.filterwarnings("ignore:Operation with range is deprecated:DeprecationWarning")
EXTRACTOR = "mobilenet_v1_1.0_224_quant_embedding_extractor.tflite"


@pytest.fixture(scope="module")
def mlflow_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server that a local stack starts, on a port of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.pyfunc
        import mlflow.sklearn
    home = tmp_path_factory.mktemp("mlflow")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    plan = StackPlan(home=home, rooms=home, services=[])
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "EDGELOOP_"))}
    env |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1"}
    part = mlflow_part(plan, port, {"mlflow": url}, env)
    with (home / "log").open("wb") as log:
        server = subprocess.Popen(part.command, env=dict(part.env), cwd=part.cwd, stdout=log, stderr=log)
    try:
        wait_until("MLflow", lambda: server.poll() is not None or part.health() is None, seconds=120)
        assert server.poll() is None, (home / "log").read_text(encoding="utf-8")[-2000:]
        yield url
    finally:
        mlflow.set_tracking_uri(None)
        mlflow.set_registry_uri(None)
        server.terminate()
        server.wait(30)


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


# --- what only the server can show


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


def test_a_version_that_is_not_there_cannot_be_champion(mlflow_url: str, service: str, files: Path) -> None:
    registry = MlflowRegistry(mlflow_url)
    registry.register(entry(service), Nothing(), files)
    with pytest.raises(RegistryUnavailable, match="not found"):
        registry.set_champion(service, "99")


@contextmanager
def answering(status: int) -> Iterator[str]:
    """Something at an address that is no MLflow."""

    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Other)
    thread = Thread(target=server.serve_forever)
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
        lambda: away.set_champion("x", "1"),
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
