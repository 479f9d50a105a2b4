"""From a release to a model: what is the release's fault, and what is only the moment's."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import numpy as np
import pytest

from edgeloop.clients.models import LinearHead, OnnxModel, UnloadableModel
from edgeloop.clients.objects import MemoryStore
from edgeloop.edge.memory import ModelTooBig
from edgeloop.edge.releases import loading
from edgeloop.edge.releases.loading import Loader
from edgeloop.samples.releases import Release, blob_key
from tests.unit.edge.fakes import load_fake, publish


def without_memory(*_: object, **__: object) -> NoReturn:
    raise MemoryError


def layers_of(store: MemoryStore, release: Release) -> dict[str, bytes]:
    return {layer.role: store.get(blob_key(layer.digest)) for layer in release.layers}


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    monkeypatch.setattr(loading, "load_model", load_fake)
    return MemoryStore()


def test_a_release_becomes_a_model(store: MemoryStore) -> None:
    release = publish(store, "1")
    loaded = Loader().load(release, layers_of(store, release))
    assert (loaded.release, loaded.config.service) == (release.digest, release.service)


@pytest.mark.parametrize("service", ["other", "../../x"])
def test_a_configuration_of_another_service_is_refused(store: MemoryStore, service: str) -> None:
    """Its name becomes a path of the node."""
    release = publish(store, "1")
    layers = layers_of(store, release)
    layers["config"] = layers["config"].replace(release.service.encode(), service.encode())
    with pytest.raises(UnloadableModel, match=f"is of service '{service}', not '{release.service}'"):
        Loader().load(release, layers)


@pytest.mark.parametrize("step", ["load_model", "run_probe"])
def test_a_moment_without_memory_is_not_the_releases_fault(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr(loading, step, without_memory)
    release = publish(store, "1")
    with pytest.raises(ModelTooBig, match="raise memory_mb"):
        Loader().load(release, layers_of(store, release))


@pytest.mark.parametrize("make", [lambda: LinearHead.from_bytes(b""), lambda: OnnxModel(b"", ["a"], None)])
def test_a_loader_does_not_hide_that_there_is_no_memory(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[], object]
) -> None:
    monkeypatch.setattr(np, "load", without_memory)
    monkeypatch.setattr("onnxruntime.InferenceSession", without_memory)
    with pytest.raises(MemoryError):
        make()
