"""A node of a hardware profile fetches, keeps and loads that profile's variant of a release, and no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgeloop.clients.models import Endpoint
from edgeloop.edge.releases import loading
from edgeloop.edge.releases.loading import Loader, UnrunnableVariant
from edgeloop.samples.records import digest
from edgeloop.samples.releases import Layer, NoVariant, Release, Variant, blob_key, release_key
from tests.unit.edge.batches import EVERYONE, Ring, RingNode, asked
from tests.unit.edge.fakes import SERVICE, FakeModel, load_fake, publish


@pytest.fixture
def ring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ring:
    monkeypatch.setattr(loading, "load_model", load_fake)
    return Ring(tmp_path)


def model_of(layers: list[Layer]) -> str:
    return next(layer.digest for layer in layers if layer.role == "model")


def varied(ring: Ring, version: str, *profiles: str, runtime: str = "onnx", **behaviour: Any) -> Release:
    """A release with a variant for each profile; only the model differs."""
    release = publish(ring.store, version)
    variants = []
    for profile in profiles:
        other = publish(ring.store, f"{version}-{profile}", **behaviour)
        given = {"runtime": runtime, "precision": "int8", "agreement": 1.0, "compared": 9, "layers": other.layers}
        variants.append(Variant.model_validate({"profile": profile, **given}))
    made = release.model_copy(update={"variants": variants})
    ring.store.put(release_key(SERVICE, made.digest), made.to_bytes())
    return made


def names_on(node: RingNode) -> set[str]:
    return {f"sha256:{path.name}" for path in (node.folder / "blobs" / "sha256").iterdir()}


def test_a_node_fetches_keeps_and_loads_its_own_variant(ring: Ring) -> None:
    node = ring.node(profile="pi")
    for version in ("1", "2", "3"):
        release = varied(ring, version, "pi", "jetson")
        ring.run(release)
        assert node.poll() is True and node.serving == release.digest
        own = release.layers_for("pi")
        fetched = {key for key in ring.store.gets if key.startswith("blobs/")}
        assert blob_key(model_of(own)) in fetched
        others = {model_of(release.layers), model_of(release.layers_for("jetson"))}
        assert not fetched & {blob_key(name) for name in others}
        assert {layer.digest for layer in own} <= names_on(node) and not names_on(node) & others
    ring.store.away = True
    node.boot()  # from the disk
    assert node.serving == release.digest


def test_without_a_profile_the_model_as_it_was_trained_is_loaded(ring: Ring) -> None:
    node, release = ring.node(), varied(ring, "1", "pi")
    ring.run(release)
    assert node.poll() is True
    assert names_on(node) == {layer.digest for layer in release.layers}


def test_a_release_without_variants_is_for_every_profile(ring: Ring) -> None:
    node, release = ring.node(profile="pi"), publish(ring.store, "1")
    ring.run(release)
    assert node.poll() is True and node.serving == release.digest


def test_a_release_without_this_profiles_variant_is_refused_when_it_is_staged(ring: Ring) -> None:
    node, good = ring.node(profile="pi"), varied(ring, "1", "pi")
    ring.run(good)
    node.poll()
    bad = varied(ring, "2", "jetson")
    ring.bring(good, bad)
    assert node.poll() is False
    assert (node.serving, node.staged) == (good.digest, None)
    assert node.given_up is not None and node.given_up.release == bad.digest and node.given_up.until is None
    assert "no variant for profile 'pi', only jetson" in str(node.agent.status(SERVICE)[1])
    assert not [key for key in asked(ring.store.gets, bad) if key.startswith("blobs/")]
    ring.bring(good, bad, EVERYONE)
    assert node.poll() is False and asked(ring.store.gets, bad) == []


def test_a_node_whose_profile_changed_fetches_the_other_variant(ring: Ring) -> None:
    release = varied(ring, "1", "pi", "jetson")
    ring.run(release)
    node = ring.node(profile="pi")
    node.poll()
    node.profile = "jetson"
    node.boot()
    assert node.agent.serving(SERVICE) is None  # nothing of it is here
    assert node.poll() is True
    assert node.agent.serving(SERVICE) == release.digest
    assert names_on(node) == {layer.digest for layer in release.layers_for("jetson")}


def test_a_variant_for_a_runtime_that_is_not_in_a_node_is_refused_and_fine_beside_it(ring: Ring) -> None:
    release = varied(ring, "1", "coral", runtime="edgetpu")
    with pytest.raises(UnrunnableVariant, match="is for edgetpu on profile coral, and this node runs litert and onnx"):
        Loader(profile="coral").needed(release)
    beside = Loader(None, {SERVICE: Endpoint(protocol="v2", url="http://127.0.0.1:1", model="m")}, "coral")
    assert {layer.role for layer in beside.needed(release)} == {"config", "probe"}
    assert Loader(profile=None).needed(release) == release.layers
    with pytest.raises(NoVariant):
        Loader(profile="pi").needed(release)


def test_the_backbone_that_a_model_names_is_its_variants(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    """Embeddings say which backbone made them: another variant's are in another space."""
    release = varied(ring, "1", "pi")
    layers = [*release.variants[0].layers, Layer(role="backbone", digest=digest(b"q"), size=1, media_type="x")]
    own = release.variants[0].model_copy(update={"layers": layers})
    plain = Layer(role="backbone", digest=digest(b"f"), size=1, media_type="x")
    made = release.model_copy(update={"variants": [own], "layers": [*release.layers, plain]})
    seen: list[object] = []

    def looked(*given: Any, **more: Any) -> FakeModel:
        seen.append(given[2])
        return load_fake(*given, **more)

    monkeypatch.setattr(loading, "load_model", looked)
    parts: dict[str, bytes] = {
        la.role: ring.store.get(blob_key(la.digest)) for la in own.layers if la.role != "backbone"
    }
    for profile in ("pi", None):
        Loader(profile=profile).load(made, parts)
    assert seen == [digest(b"q"), digest(b"f")]
