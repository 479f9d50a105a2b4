"""What has to be made for a hardware profile, decided before anything is: pure, so that a bad wish costs nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Container
from dataclasses import dataclass

from edgeloop.errors import BadInput
from edgeloop.exports.litert import Form
from edgeloop.samples.profiles import Precision, Profile, Runtime
from edgeloop.samples.service import Service

#: Precision of a profile as the LiteRT converter names it.
FORMS: dict[Precision, Form] = {
    "float32": "float32",
    "float16": "float16",
    "int8-dynamic": "dynamic",
    "int8": "int8",
}


class NoVariantFor(BadInput):
    """A profile cannot run this kind of service, or not in this precision."""


class NoSource(BadInput):
    """A backbone that was not trained here cannot be had in another precision."""


class NoCompiler(BadInput):
    """The compiler of a profile's runtime is not on this machine."""


class VariantFeatures(BadInput):
    """Samples bring features of the backbone that made them, and a variant's are others than the trained model's."""


@dataclass(frozen=True)
class Recipe:
    """How the model of one profile is had from the model that was trained."""

    profile: str
    runtime: Runtime
    precision: Precision
    form: Form | None = None
    """What the LiteRT converter makes of the Keras backbone; None where it makes nothing."""
    compiler: str | None = None
    """Path of the program that compiles what the converter made."""

    @property
    def converts(self) -> bool:
        """Whether a backbone is made that is not the trained model's own."""
        return self.form is not None or self.runtime == "savedmodel"


def form_of(profile: Profile, service: Service) -> tuple[Runtime, Precision]:
    """Runtime and precision of a service's variant for a profile.

    Raises:
        NoVariantFor: the profile runs no service of this kind, or its runtime does not.
    """
    runtime = profile.runtime.get(service.kind)
    if runtime is None:
        raise NoVariantFor(
            f"profile {profile.name} has no runtime for {service.kind}, which {service.name} is: add it to"
            f" runtime: of the profile, or leave the profile out of delivery.profiles"
        )
    is_image = service.kind == "image-classifier"
    if is_image == (runtime == "onnx"):
        raise NoVariantFor(
            f"profile {profile.name} runs {service.kind} by {runtime}, which cannot: name"
            f" {'litert or savedmodel' if is_image else 'onnx'} in runtime: of the profile"
        )
    if not is_image:
        return runtime, "float32"
    return runtime, _precision(profile, runtime)


def _precision(profile: Profile, runtime: Runtime) -> Precision:
    """The precision that the runtime makes of what the profile asks for."""
    forced: dict[Runtime, Precision] = {"savedmodel": "float32", "edgetpu": "int8"}
    only = forced.get(runtime)
    if only and profile.precision not in ("as-trained", only):
        raise NoVariantFor(
            f"profile {profile.name} asks {runtime} for precision {profile.precision}, it has {only} only:"
            f" write precision: {only}"
        )
    return only or profile.precision


def recipe(
    profile: Profile,
    service: Service,
    layers: Container[str],
    which: Callable[[str], str | None] = shutil.which,
) -> Recipe:
    """What is to be made for ``profile`` of a model version that has ``layers`` by role.

    Raises:
        NoVariantFor, NoCompiler, NoSource, VariantFeatures: nothing can be, and why.
    """
    runtime, precision = form_of(profile, service)
    compiler = _compiler(profile, runtime, which)
    wanted = Recipe(profile.name, runtime, precision, None if runtime == "savedmodel" else _form(service, precision))
    if wanted.converts:
        _check_source(profile, service, layers)
        _check_features(profile, service)
    return wanted if compiler is None else Recipe(profile.name, runtime, precision, wanted.form, compiler)


def _form(service: Service, precision: Precision) -> Form | None:
    return FORMS.get(precision) if service.kind == "image-classifier" else None


def _compiler(profile: Profile, runtime: Runtime, which: Callable[[str], str | None]) -> str | None:
    usual: dict[Runtime, str] = {"edgetpu": "edgetpu_compiler", "tensorrt": "trtexec"}
    program = usual.get(runtime)
    if program is None:
        return None
    program = profile.compiler or program
    found = which(program)
    if found is None:
        raise NoCompiler(
            f"profile {profile.name} needs the program {program}, which is not on this machine: install it, or leave"
            f" the profile out of delivery.profiles"
        )
    if runtime == "tensorrt":
        raise NoVariantFor(
            f"profile {profile.name} runs by tensorrt, whose engines {program} builds on the device itself: name"
            f" litert in runtime: of the profile"
        )
    return found


def _check_source(profile: Profile, service: Service, layers: Container[str]) -> None:
    if "keras" not in layers:
        raise NoSource(
            f"profile {profile.name} needs the backbone of {service.name} as Keras trained it, there is a .tflite file"
            f" only: write precision: as-trained with runtime litert, or train the service with mode: full"
        )


def _check_features(profile: Profile, service: Service) -> None:
    if service.selection.payload == "embedding":
        raise VariantFeatures(
            f"service {service.name} sends features only (selection.payload: embedding), and those of profile"
            f" {profile.name} are not the trained model's: write precision: as-trained, or payload: both"
        )
