"""A release in a folder answers as a node does, and keeps, sends and writes nothing."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import threading
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from edgeloop.clients.models import FailedProbe
from edgeloop.clients.objects import MemoryStore
from edgeloop.edge.http import UnusableAddress, new_event_loop
from edgeloop.edge.releases import loading
from edgeloop.edge.releases.loading import UnrunnableVariant
from edgeloop.edge.standalone import FILES, MANIFEST, Standalone, UnusableFolder, read_packed, serve_folder
from edgeloop.samples.releases import Release, Variant, blob_key
from tests.unit.edge.fakes import SERVICE, FakeModel, load_fake, publish
from tests.unit.edge.whole import until

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "load_model", load_fake)


def pack(folder: Path, release: Release, store: MemoryStore, profile: str | None = None) -> Path:
    """Write ``release`` as an image has it."""
    folder.mkdir()
    (folder / MANIFEST).write_bytes(release.to_bytes())
    for layer in release.layers_for(profile):
        (folder / FILES[layer.role]).write_bytes(store.get(blob_key(layer.digest)))
    return folder


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def varied(store: MemoryStore, runtime: str = "onnx") -> Release:
    small = publish(store, "small")
    given: dict[str, Any] = {"runtime": runtime, "precision": "int8", "agreement": 1.0, "compared": 9}
    return publish(store, "1").model_copy(update={"variants": [Variant(profile="pi", layers=small.layers, **given)]})


# --- the folder


@pytest.mark.parametrize("profile", [None, "pi"])
def test_the_files_tell_which_variant_they_are(tmp_path: Path, store: MemoryStore, profile: str | None) -> None:
    release = varied(store)
    packed = read_packed(pack(tmp_path / "models", release, store, profile))
    assert (packed.release, packed.profile) == (release, profile)
    assert {role: store.get(blob_key(la.digest)) for la in release.layers_for(profile) for role in [la.role]} == (
        packed.layers
    )


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        (MANIFEST, None, r"release\.json cannot be read \(No such file or directory\): name the folder of a release"),
        (MANIFEST, b"{}", r"release\.json is no manifest"),
        ("model.onnx", None, r"model\.onnx is missing: release\.json names it"),
        (
            "model.onnx",
            b"other",
            r"model\.onnx is another than release\.json names it, for the release and for its 1 v",
        ),
        ("probe.json", b"other", r"probe\.json is another"),
    ],
)
def test_a_folder_without_a_whole_release_is_refused(
    tmp_path: Path, store: MemoryStore, name: str, data: bytes | None, words: str
) -> None:
    folder = pack(tmp_path / "models", varied(store), store)
    (folder / name).unlink() if data is None else (folder / name).write_bytes(data)
    with pytest.raises(UnusableFolder, match=words):
        read_packed(folder)


def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pack(tmp_path / "models", publish(store, "1"), store)
    real = Path.read_bytes

    def read(path: Path) -> bytes:
        if path.name == "config.json":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    with pytest.raises(UnusableFolder, match=r"config\.json cannot be read \(Permission denied\)"):
        read_packed(folder)


def test_others_than_loopback_are_answered_only_when_told_so(tmp_path: Path, store: MemoryStore) -> None:
    folder = pack(tmp_path / "models", publish(store, "1"), store)
    with pytest.raises(UnusableAddress, match="without being asked who they are"):
        serve_briefly(folder, "0.0.0.0:0")


def test_a_release_that_fails_its_self_check_ends_the_process_with_the_reason(
    tmp_path: Path, store: MemoryStore
) -> None:
    folder = pack(tmp_path / "models", publish(store, "1", probe="no"), store)
    with pytest.raises(FailedProbe, match="probe input 0"):
        serve_briefly(folder, "127.0.0.1:0")


def test_a_variant_for_another_runtime_is_refused(tmp_path: Path, store: MemoryStore) -> None:
    folder = pack(tmp_path / "models", varied(store, "edgetpu"), store, "pi")
    with pytest.raises(UnrunnableVariant, match="is for edgetpu on profile pi"):
        serve_briefly(folder, "127.0.0.1:0")


def serve_briefly(folder: Path, address: str) -> None:
    """It is asked to stop in a while, so that a test of what must not be served ends."""
    stop = threading.Timer(120, os.kill, (os.getpid(), signal.SIGTERM))
    stop.start()
    try:
        serve_folder(folder, address)
    finally:
        stop.cancel()


# --- over HTTP


def ask(port: int, path: str, body: Any = None) -> tuple[int, Any]:
    link = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        link.request("GET" if body is None else "POST", path, json.dumps(body) if body else None)
        response = link.getresponse()
        data = response.read()
        return response.status, data.decode() if path == "/metrics" else json.loads(data)
    finally:
        link.close()


def run(
    folder: Path, caplog: pytest.LogCaptureFixture, work: Callable[[int], None], *, address: str = "127.0.0.1:0"
) -> None:
    """Run ``work`` in a thread beside the server, which gets SIGTERM then."""
    caplog.set_level(logging.INFO)

    def port() -> int:
        return next((int(r.port) for r in caplog.records if r.message == "listening"), 0)  # type: ignore[attr-defined]

    async def main() -> None:
        server = Standalone(read_packed(folder))
        task = asyncio.create_task(server.serve(address, None, is_open=True))
        found = await until(port)
        try:
            await asyncio.to_thread(work, found)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.wait_for(task, 10)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main())


def test_it_answers_both_protocols_and_keeps_nothing(
    tmp_path: Path, store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    folder = pack(tmp_path / "models", publish(store, "1"), store)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}

    def work(port: int) -> None:
        assert ask(port, "/healthz") == (200, {"live": True})
        rows = {"instances": [[0.25, 1]]}
        status, first = ask(port, f"/v1/models/{SERVICE}:predict", rows)  # waits until it is ready
        assert (status, first["predictions"], first["confidences"]) == (200, ["yes"], [0.25])
        tensor = {"name": "input", "datatype": "FP64", "shape": [1, 2], "data": [0.5, 1]}
        status, answer = ask(port, f"/v2/models/{SERVICE}/infer", {"inputs": [tensor]})
        assert status == 200 and "id" not in answer and answer["outputs"][0]["data"] == ["yes"]
        assert ask(port, "/v2/health/ready") == (200, {"ready": True, "services": {SERVICE: True}})
        metrics = ask(port, "/metrics")[1]
        assert f'edgeloop_passed_total{{service="{SERVICE}",reason="not-collected"}} 2' in metrics
        assert f'edgeloop_captured_total{{service="{SERVICE}",selected_by="audit"}} 0' in metrics
        word = {"sample_id": first["sample_ids"][0], "label": "yes"}
        assert ask(port, f"/v1/models/{SERVICE}/feedback", word)[0] == 404
        assert ask(port, f"/v2/repository/models/{SERVICE}/unload", {"a": 1})[0] == 403

    run(folder, caplog, work, address="0.0.0.0:0")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_it_is_alive_while_it_loads_and_ready_after_its_self_check(
    tmp_path: Path, store: MemoryStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, folder = threading.Event(), pack(tmp_path / "models", publish(store, "1"), store)

    def slow(*given: Any, **more: Any) -> FakeModel:
        assert go.wait(10)
        return load_fake(*given, **more)

    monkeypatch.setattr(loading, "load_model", slow)

    def work(port: int) -> None:
        assert ask(port, "/v2/health/live")[0] == 200
        assert ask(port, "/v2/health/ready")[0] == 503
        go.set()
        assert ask(port, f"/v1/models/{SERVICE}:predict", {"instances": [[0.25, 1]]})[0] == 200
        assert ask(port, "/v2/health/ready")[0] == 200

    run(folder, caplog, work)


def test_asked_to_stop_while_it_loads_it_stops(
    tmp_path: Path, store: MemoryStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, folder = threading.Event(), pack(tmp_path / "models", publish(store, "1"), store)

    def slow(*given: Any, **more: Any) -> FakeModel:
        go.wait(10)
        return load_fake(*given, **more)

    monkeypatch.setattr(loading, "load_model", slow)
    run(folder, caplog, lambda port: None)
    go.set()
    assert "ready" not in [record.message for record in caplog.records]
