"""Variants are made of the trained backbone, compared with the trained model, and not released when they differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeloop.clients.models import load_model, run_probe
from edgeloop.clients.models_litert import Backbone
from edgeloop.exports.savedmodel import unpack
from edgeloop.release.build import OtherProfiles, find_release
from edgeloop.release.optimise import convert, variants
from edgeloop.release.optimise.conversions import Conversions
from edgeloop.release.optimise.examples import NoExamples
from edgeloop.release.optimise.measure import OutOfTolerance
from edgeloop.release.optimise.measured import Measured
from edgeloop.release.optimise.plan import NoCompiler, NoSource
from edgeloop.samples.releases import blob_key, parse_release, release_key
from tests.unit.release.champion import release_champion
from tests.unit.release.optimise.bars import SAMPLES, Bars, name_of, profile

INT8 = profile("pi", precision="int8", min_agreement=0.9)
HALF = profile("half", precision="float16")
SERVED = profile("served", runtime={"image-classifier": "savedmodel"}, precision="float32", min_agreement=0.9)
SAME = profile("same")


def manifests(world: Bars) -> list[str]:
    return [info.key for info in world.store.list("releases")]


def never(*_: Any, **__: Any) -> Any:
    raise AssertionError("nothing may be converted")


def test_variants_are_released_with_what_they_are_worth(world: Bars) -> None:
    made = world.release(world.version(), SAME, INT8, SERVED)
    assert parse_release(world.store.get(release_key("looker", made.digest)), made.digest) == made
    assert [(v.profile, v.runtime, v.precision) for v in made.variants] == [
        ("same", "litert", "as-trained"),
        ("pi", "litert", "int8"),
        ("served", "savedmodel", "float32"),
    ]
    same, whole, served = made.variants
    trained = made.layer("backbone")
    assert trained is not None
    assert name_of(same, "backbone") == trained.digest
    assert len({name_of(v, "backbone") for v in made.variants}) == 3
    assert all(v.agreement >= 0.9 and 10 <= v.compared < SAMPLES * 0.6 for v in made.variants)
    config = world.service().node_config()
    for variant in (same, whole):
        assert [layer.role for layer in variant.layers] == ["backbone", "head", "config", "probe"]
        layers = {str(x.role): world.layer(variant, x.role) for x in variant.layers}
        run_probe(load_model(config, layers, interpreters=1), layers["probe"], classifier=True)
    files = unpack({"backbone": world.layer(served, "backbone"), "model": world.layer(served, "model")})
    assert sorted(files) == [
        "saved_model.pb", "variables/variables.data-00000-of-00001", "variables/variables.index"
    ]  # fmt: skip
    kept = Measured(world.fleet.database).of_release(made.digest)
    assert [(f.profile, f.size) for f in kept] == [(v.profile, variants.size_of(v)) for v in made.variants]
    assert all(f.p50_ms and f.p99_ms and 0 < f.p50_ms <= f.p99_ms for f in kept)
    # A second making finds the same bytes, though converters and servers run anew.
    assert world.release(world.version(), SAME, INT8, SERVED).digest == made.digest
    assert len(Measured(world.fleet.database).of_release(made.digest)) == 3
    features = np.stack([Backbone(world.layer(whole, "backbone"), "b", 1).features(i) for i in world.images])
    assert not np.array_equal(features, world.features)


def test_a_new_head_on_the_same_backbone_changes_no_other_layer(world: Bars, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def convert_litert(*given: Any) -> bytes:
        asked.append(given)
        return world.files["backbone"] + b"another precision"

    monkeypatch.setattr(variants, "convert_litert", convert_litert)
    (old,) = world.release(world.version(), INT8).variants
    (new,) = world.release(world.version("2"), INT8).variants
    assert name_of(old, "backbone") == name_of(new, "backbone")
    assert name_of(old, "head") != name_of(new, "head")
    assert len(asked) == 1
    keras, job, images = asked[0]
    assert (keras, job.form) == (world.files["keras"], "int8")
    # Calibrated on pictures of the pool as nodes see them, and on none that judged.
    known = {image.tobytes() for image in world.images}
    assert {image.tobytes() for image in images} <= known
    assert len(images) + old.compared <= world.dataset.counts["pool"]


def test_a_variant_that_is_another_model_is_not_released(
    world: Bars, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variants, "convert_litert", lambda *_: (trained / "other.tflite").read_bytes())
    with pytest.raises(
        OutOfTolerance, match=r"variant half of looker answers as the trained model on \d+ of \d+"
    ) as first:
        world.release(world.version(), HALF)
    assert manifests(world) == []
    # A release is asked for every few seconds: it is not converted and judged every time.
    monkeypatch.setattr(variants, "compare", never)
    with pytest.raises(OutOfTolerance) as again:
        world.release(world.version(), HALF)
    assert str(again.value) == str(first.value)
    # Another wish is judged anew.
    monkeypatch.undo()
    assert world.release(world.version(), profile("half", precision="float16", min_agreement=0)).variants


def test_a_variant_that_is_too_large_is_not_released(world: Bars) -> None:
    with pytest.raises(OutOfTolerance, match=r"variant same of looker has \d+ bytes, max_bytes is 100: ask"):
        world.release(world.version(), profile("same", max_bytes=100))
    assert manifests(world) == []


@pytest.mark.parametrize(
    ("second", "keras", "error"),
    [
        (profile("coral", runtime={"image-classifier": "edgetpu"}, precision="int8"), True, NoCompiler),
        (profile("half", precision="float16"), False, NoSource),
    ],
    ids=["no compiler", "no source"],
)
def test_what_cannot_be_made_is_said_before_anything_is(
    world: Bars, monkeypatch: pytest.MonkeyPatch, second: Any, keras: bool, error: type[Exception]
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(variants, "convert_litert", never)
    first = SAME if not keras else profile("whole", precision="float32")
    with pytest.raises(error, match=second.name):
        world.release(world.version(keras=keras), first, second)
    assert manifests(world) == []


def test_without_raw_inputs_a_converted_backbone_is_not_released(world: Bars, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "convert_litert", never)
    monkeypatch.setattr("edgeloop.release.optimise.examples._payloads", lambda *_: [])
    with pytest.raises(NoExamples, match="the pool of looker has 0 raw inputs to judge a variant with, 10 are needed"):
        world.release(world.version(), HALF)
    # The trained model itself is what it is.
    made = world.release(world.version(), SAME)
    assert (made.variants[0].agreement, made.variants[0].compared) == (1.0, 0)
    assert len(json.loads(world.layer(made.variants[0], "probe"))["cases"]) == variants.PROBES


def test_an_edge_tpu_file_is_compiled_from_whole_numbers(
    world: Bars, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the compiler, which takes the same words and leaves a file of the same name."""
    monkeypatch.setattr(variants, "convert_litert", lambda *_: world.files["backbone"])
    program = tmp_path / "edgetpu_compiler"
    program.write_text('#!/bin/sh\n{ printf compiled; cat "$4"; } > "$3/variant_edgetpu.tflite"\n')
    program.chmod(0o755)
    coral = profile(
        "coral", runtime={"image-classifier": "edgetpu"}, precision="int8", compiler=str(program), min_agreement=0.9
    )
    made = world.release(world.version(), INT8, coral)
    pi, board = made.variants
    assert world.layer(board, "backbone") == b"compiled" + world.layer(pi, "backbone")
    assert [x.media_type for x in board.layers if x.role == "backbone"] == ["application/vnd.edgeloop.litert+edgetpu"]
    assert (board.runtime, board.agreement) == ("edgetpu", pi.agreement)
    kept = {f.profile: f.p50_ms for f in Measured(world.fleet.database).of_release(made.digest)}
    assert kept["coral"] is None
    assert kept["pi"] is not None
    # Compiled is what was judged: not what was compiled of an earlier conversion, whose bytes are lost.
    world.store.delete(blob_key(name_of(pi, "backbone")))
    world.files["backbone"] += b"\0"  # another calibration
    pi, board = world.release(world.version("2"), INT8, coral).variants
    assert world.layer(board, "backbone") == b"compiled" + world.layer(pi, "backbone")


def test_a_calibration_that_was_refused_and_never_released_is_not_kept(
    world: Bars, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the few inputs of a first dataset would keep a backbone from a profile for ever."""
    bad, good = (trained / "other.tflite").read_bytes(), world.files["backbone"]
    asked: list[bytes] = []

    def calibrated(*_: Any) -> bytes:
        asked.append(bad if not asked else good)
        return asked[-1]

    monkeypatch.setattr(variants, "convert_litert", calibrated)
    with pytest.raises(OutOfTolerance):
        world.release(world.version(), INT8)
    monkeypatch.setattr(Conversions, "check_refused", lambda *_: None)  # as with the inputs of a later dataset version
    made = world.release(world.version(), INT8)
    assert world.layer(made.variants[0], "backbone") == good
    # What was released once stays, also when another head is refused on it.
    with pytest.raises(OutOfTolerance):
        world.release(world.version("2"), INT8.model_copy(update={"max_bytes": 1}))
    world.release(world.version("3"), INT8.model_copy(update={"min_agreement": 0}))
    assert asked == [bad, good]


def test_the_champion_is_released_for_the_profiles_of_its_service(world: Bars) -> None:
    version = world.version()
    world.registry.versions = [version]
    world.registry.set_champion("looker", "1")

    def released(*profiles: Any) -> str:
        service = world.service(*profiles)
        found = release_champion(world.store, world.tables, world.registry, world.fleet, service, profiles)
        assert found is not None
        return found[1]

    plain = released()
    both = released(SAME, profile("more"))
    assert both != plain
    assert released(SAME, profile("more")) == both
    assert find_release(world.store, world.fleet, world.service(SAME), version, [SAME]) is None
    with pytest.raises(OtherProfiles, match=r"looker names the profiles same in delivery.profiles, .* with none"):
        release_champion(world.store, world.tables, world.registry, world.fleet, world.service(SAME))


def test_a_conversion_that_fails_releases_nothing(world: Bars, monkeypatch: pytest.MonkeyPatch) -> None:
    world.files["keras"] = b"no keras file"
    with pytest.raises(convert.ConversionFailed, match="the converter to float16 failed"):
        world.release(world.version(), HALF)
    assert manifests(world) == []
