"""What a profile needs is decided before anything is made: a table of wishes and of what comes of them."""

from __future__ import annotations

from typing import Any

import pytest

from edgeloop.release.optimise.plan import (
    NoCompiler,
    NoSource,
    NoVariantFor,
    Recipe,
    VariantFeatures,
    form_of,
    recipe,
)
from edgeloop.samples.profiles import Profile
from tests.unit.release.optimise.bars import profile
from tests.unit.samples.make import classifier, looker, regressor

IMAGE = ("backbone", "head", "keras")
BARE = ("backbone", "head")


def images(runtime: str, **changes: Any) -> Profile:
    return profile(runtime={"image-classifier": runtime}, **changes)


def nothing(_: str) -> str | None:
    return None


def found(program: str) -> str | None:
    return f"/opt/{program}"


@pytest.mark.parametrize(
    ("precision", "form"),
    [
        ("as-trained", None),
        ("float32", "float32"),
        ("float16", "float16"),
        ("int8-dynamic", "dynamic"),
        ("int8", "int8"),
    ],
)
def test_litert_has_every_precision(precision: Any, form: Any) -> None:
    made = recipe(images("litert", precision=precision), looker(), IMAGE, nothing)
    assert made == Recipe("pi", "litert", precision, form)
    assert made.converts == (form is not None)


@pytest.mark.parametrize("service", [regressor(), classifier()], ids=["regressor", "classifier"])
@pytest.mark.parametrize("precision", ["as-trained", "int8"])
def test_tables_are_float32_whatever_images_are(service: Any, precision: Any) -> None:
    made = recipe(profile(precision=precision), service, ("model",), nothing)
    assert made == Recipe("pi", "onnx", "float32")
    assert not made.converts


def test_a_savedmodel_is_float32() -> None:
    made = recipe(images("savedmodel"), looker(), IMAGE, nothing)
    assert (made.precision, made.form, made.converts) == ("float32", None, True)


def test_an_edge_tpu_takes_whole_numbers_and_its_compiler() -> None:
    made = recipe(images("edgetpu"), looker(), IMAGE, found)
    assert made == Recipe("pi", "edgetpu", "int8", "int8", "/opt/edgetpu_compiler")
    own = images("edgetpu", compiler="my_compiler", precision="int8")
    assert recipe(own, looker(), IMAGE, found).compiler == "/opt/my_compiler"


def test_the_trained_model_itself_needs_no_source() -> None:
    assert recipe(images("litert"), looker(), BARE, nothing).form is None


@pytest.mark.parametrize(
    ("wanted", "service", "layers", "error", "said"),
    [
        (profile(runtime={"tabular-regressor": "onnx"}), looker(), IMAGE, NoVariantFor, "no runtime for image-class"),
        (profile(runtime={"image-classifier": "onnx"}), looker(), IMAGE, NoVariantFor, "by onnx, which cannot"),
        (profile(runtime={"tabular-regressor": "litert"}), regressor(), IMAGE, NoVariantFor, "by litert, which cannot"),
        (profile(runtime={"tabular-regressor": "savedmodel"}), regressor(), IMAGE, NoVariantFor, "name onnx"),
        (images("savedmodel", precision="int8"), looker(), IMAGE, NoVariantFor, "write precision: float32"),
        (images("edgetpu", precision="float16"), looker(), IMAGE, NoVariantFor, "write precision: int8"),
        (images("edgetpu"), looker(), IMAGE, NoCompiler, "profile pi needs the program edgetpu_compiler, which is not"),
        (images("tensorrt"), looker(), IMAGE, NoCompiler, "profile pi needs the program trtexec, which is not"),
        (images("litert", precision="int8"), looker(), BARE, NoSource, "precision: as-trained"),
        (images("litert", precision="float32"), looker(), BARE, NoSource, "profile pi needs the backbone of looker"),
        (images("savedmodel"), looker(), BARE, NoSource, "mode: full"),
    ],
)
def test_what_cannot_be_made_is_named(
    wanted: Profile, service: Any, layers: tuple[str, ...], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said) as raised:
        recipe(wanted, service, layers, nothing)
    assert wanted.name in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_engine_that_only_the_device_builds_is_said_even_where_the_program_is() -> None:
    with pytest.raises(NoVariantFor, match="builds on the device itself"):
        recipe(images("tensorrt"), looker(), IMAGE, found)


def test_features_that_travel_must_be_the_trained_models() -> None:
    service = looker(selection={"payload": "embedding"})
    with pytest.raises(VariantFeatures, match=r"looker sends features only .* those of profile pi are not"):
        recipe(images("litert", precision="float16"), service, IMAGE, nothing)
    assert not recipe(images("litert"), service, IMAGE, nothing).converts


def test_what_a_release_is_looked_up_by_needs_no_compiler() -> None:
    assert form_of(images("edgetpu"), looker()) == ("edgetpu", "int8")
