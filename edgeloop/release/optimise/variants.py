"""Make, compare and measure the variants of a model version: one per hardware profile, or none at all.

Layers reach the store before any manifest names them; figures in milliseconds stay out of the manifest, which must be
the same bytes wherever it is built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgeloop.clients.model_heads import media_type
from edgeloop.clients.model_types import Model
from edgeloop.clients.models import load_model, make_probe, small_input
from edgeloop.clients.objects import ObjectStore
from edgeloop.exports.savedmodel import MEDIA_TYPE as SAVEDMODEL
from edgeloop.release.optimise.conversions import Conversions, conversion_key, refusal_key, sound_layer
from edgeloop.release.optimise.convert import Job, compile_edgetpu, convert_litert, convert_savedmodel
from edgeloop.release.optimise.examples import LEAST, Examples
from edgeloop.release.optimise.measure import (
    OutOfTolerance,
    Recorded,
    Times,
    check_tolerance,
    clear_inputs,
    compare,
    machine,
    time_answers,
    times_of,
)
from edgeloop.release.optimise.measured import Figures
from edgeloop.release.optimise.plan import Recipe, recipe
from edgeloop.samples.inputs import drawn_inputs
from edgeloop.samples.payloads import decode_image
from edgeloop.samples.profiles import Profile
from edgeloop.samples.records import canonical, digest, now
from edgeloop.samples.releases import Layer, Role, Variant, blob_key
from edgeloop.samples.service import Service

if TYPE_CHECKING:
    from numpy.typing import NDArray

MEDIA: dict[Role, str] = {
    "backbone": "application/vnd.edgeloop.litert",
    "model": "application/vnd.edgeloop.onnx",
    "config": "application/vnd.edgeloop.node-config+json",
    "probe": "application/vnd.edgeloop.probe+json",
}
#: Inputs with known answers that travel with a release, for a node to check a freshly loaded model with.
PROBES = 4
#: Pixels that ranges are taken from, at most.
_MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class Made:
    """A variant, and what it took here."""

    variant: Variant
    times: Times | None

    def figures(self, service: str, release: str) -> Figures:
        """The row to keep of it."""
        told = self.variant
        return Figures(
            service=service,
            release=release,
            profile=told.profile,
            machine=machine(),
            runtime=told.runtime,
            precision=told.precision,
            size=size_of(told),
            agreement=told.agreement,
            compared=told.compared,
            p50_ms=self.times and self.times.p50_ms,
            p99_ms=self.times and self.times.p99_ms,
            at=now(),
        )


@dataclass(frozen=True)
class _Built:
    """The layers of a variant without its probe, and what runs them here or did so elsewhere."""

    contents: dict[Role, bytes]
    media: Mapping[Role, str]
    model: Model
    times: Times | None


def size_of(variant: Variant) -> int:
    """Bytes of all layers of a variant."""
    return sum(layer.size for layer in variant.layers)


def make_variants(
    store: ObjectStore,
    kept: Conversions,
    service: Service,
    layers: Mapping[str, str],
    profiles: Sequence[Profile],
    inputs: Examples,
) -> list[Made]:
    """One variant per profile of the model version with these ``layers``, blob digest by role.

    All that can be said without converting is said before anything is converted.

    Raises:
        NoVariantFor, NoCompiler, NoSource, VariantFeatures: a profile cannot be served, and why.
        NoExamples: too few raw inputs.
        ConversionFailed: the child that converts failed.
        OutOfTolerance: a variant is not the model that was trained, or too large.
    """
    recipes = [recipe(profile, service, layers) for profile in profiles]
    if any(r.converts for r in recipes):
        inputs.check(service.name, any(r.form == "int8" for r in recipes))
    refusals = [refusal_key(service, layers, profile, inputs) for profile in profiles]
    for key in refusals:
        kept.check_refused(key)
    workshop = _Workshop(store, kept, service, layers, inputs)
    made = []
    for profile, wanted, key in zip(profiles, recipes, refusals, strict=True):
        try:
            made.append(workshop.make(profile, wanted))
        except OutOfTolerance as error:
            kept.refuse(key, error)
            if wanted.form == "int8":
                kept.forget_unreleased(service.name, conversion_key(service.name, layers["keras"], wanted.form))
            raise
    return made


class _Workshop:
    """One model version and the inputs that its variants are made and judged with."""

    def __init__(
        self, store: ObjectStore, kept: Conversions, service: Service, layers: Mapping[str, str], inputs: Examples
    ) -> None:
        self._store, self._kept, self._service, self._names, self._inputs = store, kept, service, layers, inputs
        self._config = service.node_config()
        # Made-up inputs say nothing of how alike two models are; they do for the very model that was trained.
        self._judging = inputs.judging or drawn_inputs(service, PROBES)
        self._small = [small_input(payload) for payload in self._judging]
        roles: list[Role] = ["backbone", "head", "model"]
        self._trained = {role: sound_layer(store, service.name, layers[role]) for role in roles if role in layers}
        self._model = self._load(self._trained)

    def _load(self, contents: Mapping[Role, bytes]) -> Model:
        name = digest(contents["backbone"]) if "backbone" in contents else None
        return load_model(self._config, {str(r): data for r, data in contents.items()}, name, interpreters=1)

    def make(self, profile: Profile, wanted: Recipe) -> Made:
        """The variant of one profile, its layers in the store."""
        built = self._savedmodel() if wanted.runtime == "savedmodel" else self._litert_or_onnx(wanted)
        agreed = compare(self._model, built.model, self._judging if self._inputs.judging else [])
        clear = clear_inputs(built.model, self._small, PROBES)
        contents: dict[Role, bytes] = {
            **built.contents,
            "config": canonical(self._config.model_dump(mode="json")),
            "probe": make_probe(built.model, clear),
        }
        layers = [_layer(role, data, built.media) for role, data in contents.items()]
        check_tolerance(profile, self._service.name, sum(layer.size for layer in layers), agreed)
        for layer in layers:
            self._store.create(blob_key(layer.digest), contents[layer.role])
        variant = Variant(
            profile=profile.name,
            runtime=wanted.runtime,
            precision=wanted.precision,
            layers=layers,
            agreement=agreed.share,
            compared=agreed.compared,
        )
        return Made(variant, built.times)

    def _litert_or_onnx(self, wanted: Recipe) -> _Built:
        """What runs here as it does on the node; of an Edge TPU's file what it was compiled from runs here."""
        if wanted.form is None:
            return _Built(self._trained, MEDIA, self._model, time_answers(self._model, self._judging))
        contents = self._trained | {"backbone": self._backbone(wanted)}
        model = self._load(contents)
        if wanted.compiler is None:
            return _Built(contents, MEDIA, model, time_answers(model, self._judging))
        compiled = {**contents, "backbone": self._compiled(wanted, contents["backbone"])}
        return _Built(compiled, {**MEDIA, "backbone": f"{MEDIA['backbone']}+edgetpu"}, model, None)

    def _backbone(self, wanted: Recipe) -> bytes:
        form = wanted.form
        assert form is not None

        def make() -> bytes:
            keras = sound_layer(self._store, self._service.name, self._names["keras"])
            side = self._model_side()
            return convert_litert(keras, Job(form=form), self._images(side) if form == "int8" else None)

        return self._kept.converted(conversion_key(self._service.name, self._names["keras"], form), make)[1]

    def _images(self, side: int) -> NDArray[np.uint8]:
        """What ranges are taken from, uint8 [n, side, side, 3]; fewer where images are large."""
        most = max(LEAST, _MOST_BYTES // (side * side * 3))
        return np.stack([decode_image(payload, side) for payload in self._inputs.calibration[:most]])

    def _model_side(self) -> int:
        """Side of the square that the backbone takes, in pixels: that of the image that the model saw."""
        image = self._model.predict(self._judging[0]).image
        assert image is not None
        return len(image)

    def _compiled(self, wanted: Recipe, litert: bytes) -> bytes:
        program = str(wanted.compiler)
        assert wanted.form is not None
        key = conversion_key(self._service.name, digest(litert), wanted.form, wanted.runtime)
        return self._kept.converted(key, lambda: compile_edgetpu(program, litert))[1]

    def _savedmodel(self) -> _Built:
        keras = sound_layer(self._store, self._service.name, self._names["keras"])
        asked = [*self._judging, *self._small]
        served = convert_savedmodel(keras, self._trained["head"], asked, Job(form="savedmodel"))
        model = Recorded(tuple(self._model.labels or ()), asked, served.answers)
        contents: dict[Role, bytes] = {"backbone": served.layers["backbone"], "model": served.layers["model"]}
        media: dict[Role, str] = {**MEDIA, "backbone": SAVEDMODEL, "model": SAVEDMODEL}
        return _Built(contents, media, model, times_of(served.seconds[: len(self._judging)]))


def _layer(role: Role, data: bytes, media: Mapping[Role, str]) -> Layer:
    kind = media_type(data) if role == "head" else media[role]
    return Layer(role=role, digest=digest(data), size=len(data), media_type=kind)
