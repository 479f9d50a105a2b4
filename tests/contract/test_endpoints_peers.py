"""KServe's and MLServer's real servers and a node give the same answers, each asked by the others' clients."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeloop.clients.endpoints import EndpointFailed, RefusedInput
from edgeloop.clients.models import Answer, Endpoint, Model, ModelUnavailable, UnloadableModel, load_model
from edgeloop.learning.tabular import fit_pipeline, to_onnx
from edgeloop.samples.payloads import UndecodablePayload, encode_features
from edgeloop.samples.service import NodeConfig
from tests.conftest import ROOT
from tests.contract.peers.node import node_serving
from tests.contract.test_models import EXTRACTOR, head
from tests.servers.peers import PROGRAMS, ModelFiles, kserve_peer, mlserver_peer, peer_python
from tests.unit.samples.make import classifier, looker, picture, regressor

ROWS = [[0.5, 0.25], [-1.5, 2.0], [3.0, 0.0]]
PICTURES = [picture(1), picture(2, (300, 200)), picture(3, (64, 64), "PNG")]
SERVICES: dict[str, NodeConfig] = {s.name: s.node_config() for s in (regressor(), classifier(), looker())}
WAYS = [
    ("kserve", "v1", False),
    ("kserve", "v2", False),
    ("kserve", "v2", True),
    ("mlserver", "v2", False),
    ("node", "v1", False),
    ("node", "v2", False),
    ("node", "v2", True),
]


@dataclass
class Beside:
    """The same three models on every server, and in this process."""

    urls: dict[str, str]
    here: dict[str, Model]

    def model(self, server: str, protocol: Any, binary: bool, service: str) -> Model:
        endpoint = Endpoint(protocol=protocol, url=self.urls[server], model=service, binary=binary, timeout_seconds=60)
        return load_model(SERVICES[service], {}, endpoint=endpoint)


def fitted(service: Any) -> Any:
    rows = np.random.default_rng(1).normal(size=(60, 2)).astype(np.float32)
    if service.is_classifier:
        truth = [service.labels[int(i)] for i in np.digitize(rows[:, 0], [-0.5, 0.5])]
    else:
        truth = [str(v) for v in rows @ [1.0, 2.0]]
    return fit_pipeline(service, rows, truth, 0)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> ModelFiles:
    backbone = (shared / "models" / EXTRACTOR).read_bytes()
    folder = tmp_path_factory.mktemp("models")
    made = ModelFiles(folder, fitted(regressor()), fitted(classifier()), backbone, head(1024).to_bytes())
    made.write()
    return made


@pytest.fixture(scope="module")
def here(files: ModelFiles) -> dict[str, Model]:
    layers = {
        "rater": {"model": to_onnx(files.rater, 2)},
        "sorter": {"model": to_onnx(files.sorter, 2)},
        "looker": {"backbone": files.backbone, "head": files.head},
    }
    return {name: load_model(SERVICES[name], layers[name]) for name in SERVICES}


@pytest.fixture(scope="module")
def beside(files: ModelFiles, here: dict[str, Model]) -> Iterator[Beside]:
    peers = [kserve_peer(files), mlserver_peer(files)]
    with ExitStack() as stack:
        urls = {peer.name: stack.enter_context(peer).url for peer in peers}
        models = {name: (SERVICES[name], model) for name, model in here.items()}
        urls["node"] = stack.enter_context(node_serving(files.folder / "spool", models))
        yield Beside(urls, here)


def same(found: Answer, wanted: Answer, *, by_label: bool) -> None:
    """``by_label``: a node answers the label and its confidence, the others all probabilities."""
    if wanted.confidence is None:
        assert found.value == pytest.approx(wanted.value, rel=1e-4)
        return
    assert found.prediction == wanted.prediction
    assert found.confidence == pytest.approx(wanted.confidence, abs=1e-5)
    if not by_label:
        assert found.probabilities == pytest.approx(wanted.probabilities, abs=1e-5)


@pytest.mark.parametrize(("server", "protocol", "binary"), WAYS)
@pytest.mark.parametrize("service", ["rater", "sorter"])
def test_a_row_gets_the_same_answer_everywhere(
    beside: Beside, service: str, server: str, protocol: str, binary: bool
) -> None:
    model = beside.model(server, protocol, binary, service)
    for row in ROWS:
        payload = encode_features(row)
        same(model.predict(payload), beside.here[service].predict(payload), by_label=server == "node")


# KServe 0.21 takes binary tensors of numbers; BYTES it reads as UTF-8 text, which a picture is not.
@pytest.mark.parametrize(("server", "protocol", "binary"), [way for way in WAYS if way != ("kserve", "v2", True)])
def test_a_picture_gets_the_same_answer_everywhere(beside: Beside, server: str, protocol: str, binary: bool) -> None:
    model = beside.model(server, protocol, binary, "looker")
    for data in PICTURES:
        found, wanted = model.predict(data), beside.here["looker"].predict(data)
        same(found, wanted, by_label=server == "node")
        assert found.image is not None
        assert found.image.shape == (32, 32, 3)


@pytest.mark.parametrize(("server", "protocol"), [("kserve", "v1"), ("kserve", "v2"), ("mlserver", "v2")])
def test_a_model_that_the_server_does_not_know_is_no_model(beside: Beside, server: str, protocol: Any) -> None:
    endpoint = Endpoint(protocol=protocol, url=beside.urls[server], model="nobody")
    with pytest.raises(UnloadableModel, match=r"model nobody\) does not know it .*load it there"):
        load_model(SERVICES["rater"], {}, endpoint=endpoint)


def test_a_server_that_dies_is_away_and_comes_back(files: ModelFiles) -> None:
    with kserve_peer(files) as peer:
        model = load_model(SERVICES["rater"], {}, endpoint=Endpoint(protocol="v2", url=peer.url, model="rater"))
        payload = encode_features(ROWS[0])
        before = model.predict(payload).value
        peer.stop()
        with pytest.raises(ModelUnavailable, match="does not answer"):
            model.predict(payload)
        with peer:
            assert model.predict(payload).value == before


@pytest.mark.parametrize(
    ("server", "words"),
    [("kserve", "features"), ("mlserver", "Internal Server Error"), ("node", "shape|columns|numbers")],
)
def test_what_a_server_says_of_a_request_is_passed_on(beside: Beside, server: str, words: str) -> None:
    wide = regressor(features=[{"name": n} for n in "abc"]).node_config()
    model = load_model(wide, {}, endpoint=Endpoint(protocol="v2", url=beside.urls[server], model="rater"))
    with pytest.raises((RefusedInput, EndpointFailed), match=rf"said \d+: .*({words})"):
        model.predict(encode_features([1, 2, 3]))


def test_what_is_no_picture_does_not_reach_the_server(beside: Beside) -> None:
    with pytest.raises(UndecodablePayload, match="not a JPEG or PNG"):
        beside.model("kserve", "v2", False, "looker").predict(b"no picture")


# --- the peers' own clients ask the node


def ask(peer: str, url: str, protocol: str, service: str, payload: bytes, folder: Path) -> dict[str, Any]:
    given = folder / "payload"
    given.write_bytes(payload)
    done = subprocess.run(
        [str(peer_python(peer)), "-m", f"{PROGRAMS}.{peer}_client", url, protocol, service, str(given)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("protocol", ["v1", "v2", "binary"])
@pytest.mark.parametrize("service", ["rater", "sorter", "looker"])
def test_kserves_client_gets_a_nodes_answers(beside: Beside, tmp_path: Path, service: str, protocol: str) -> None:
    payload = PICTURES[0] if service == "looker" else encode_features(ROWS[0])
    found = ask("kserve", beside.urls["node"], protocol, service, payload, tmp_path)
    wanted = beside.here[service].predict(payload)
    if protocol == "v1":
        (prediction,), (confidence,) = found["predictions"], found["confidences"]
    else:
        assert (found["id"], found["model"], found["ready"]) == ("7", service, True)
        (prediction,), (confidence,) = found["prediction"], found.get("confidence", [None])
    assert str(prediction) == wanted.prediction
    assert confidence == (None if wanted.confidence is None else pytest.approx(wanted.confidence))


@pytest.mark.parametrize("protocol", ["v2", "binary"])
@pytest.mark.parametrize("service", ["rater", "sorter", "looker"])
def test_mlservers_client_gets_a_nodes_answers(beside: Beside, tmp_path: Path, service: str, protocol: str) -> None:
    payload = PICTURES[0] if service == "looker" else encode_features(ROWS[0])
    found = ask("mlserver", beside.urls["node"], protocol, service, payload, tmp_path)
    wanted = beside.here[service].predict(payload)
    assert (found["id"], found["model"], found["ready"]) == ("7", service, True)
    assert [str(value) for value in found["prediction"]] == [wanted.prediction]
    assert found.get("confidence") == (None if wanted.confidence is None else [pytest.approx(wanted.confidence)])
    if wanted.probabilities is not None:
        assert found["probabilities"] == pytest.approx(wanted.probabilities)
