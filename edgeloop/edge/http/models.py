"""What a model takes and gives, in the words of both protocols, and how its instances are answered."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from edgeloop.edge.http.bodies import decompressed
from edgeloop.edge.http.messages import (
    Failed,
    MalformedRequest,
    NotHere,
    NotReady,
    Refused,
    Request,
    TooLarge,
)
from edgeloop.edge.http.tensors import INPUT, MAX_INSTANCES

if TYPE_CHECKING:
    from edgeloop.edge.http.app import Site
    from edgeloop.edge.results import Result
    from edgeloop.edge.runtime import Loaded

T = TypeVar("T")
_REFUSALS: dict[str, type[Refused]] = {"bad_input": MalformedRequest, "unknown": NotHere, "not_ready": NotReady}
#: Sent unless the caller says which outputs it wants.
DEFAULT_OUTPUTS = ("prediction", "confidence", "sample_id")


def served(site: Site, request: Request) -> Loaded:
    """The release that serves what the path names.

    Raises:
        NotHere: the service is not one of this node, or serves another version.
        NotReady: it has no release yet, or was unloaded.
    """
    service = request.service
    if service not in site.stats.services:
        raise NotHere(f"this node does not serve {service[:80]}: see its node.yaml")
    loaded = site.runtime.loaded(service)
    if loaded is None:
        raise NotReady(f"service {service} has no release loaded on this node: roll one out to its ring, or load it")
    if request.version not in (None, loaded.version):
        raise NotHere(f"service {service} serves version {loaded.version}, not {request.version:.80}: ask for that one")
    return loaded


def takes_images(loaded: Loaded) -> bool:
    """Whether payloads are images; else they are feature rows."""
    return not loaded.config.feature_names


def inputs_of(loaded: Loaded) -> list[dict[str, Any]]:
    """Metadata of the inputs: one tensor, of encoded images or of feature rows."""
    if takes_images(loaded):
        return [{"name": INPUT, "datatype": "BYTES", "shape": [-1]}]
    return [{"name": INPUT, "datatype": "FP64", "shape": [-1, len(loaded.config.feature_names)]}]


def outputs_of(loaded: Loaded) -> dict[str, tuple[str, list[int]]]:
    """Datatype and shape of each output by name: a regressor has no confidence."""
    labels = loaded.model.labels
    if labels is None:
        return {"prediction": ("FP64", [-1]), "sample_id": ("BYTES", [-1])}
    return {
        "prediction": ("BYTES", [-1]),
        "confidence": ("FP64", [-1]),
        "sample_id": ("BYTES", [-1]),
        "probabilities": ("FP64", [-1, len(labels)]),
    }


def read(site: Site, request: Request, reader: Callable[[Loaded, Request], T]) -> tuple[Loaded, T]:
    """What ``reader`` finds in the request; what it refuses is counted as an input of the service.

    Raises:
        Refused: the service does not serve here, or the request is not one of its.
    """
    try:
        loaded = served(site, request)
        return loaded, reader(loaded, decompressed(request, site.max_body))
    except NotReady:
        site.stats.failed(request.service, "not_ready")
        raise
    except (MalformedRequest, TooLarge):
        site.stats.failed(request.service, "bad_input")
        raise


def answers(site: Site, request: Request, loaded: Loaded, payloads: list[bytes]) -> list[Result]:
    """The results of all instances, one by one in order.

    Raises:
        Refused: one got an error; the message says which and why.
    """
    if len(payloads) > MAX_INSTANCES:
        raise TooLarge(f"{len(payloads)} instances are over {MAX_INSTANCES}: send fewer")
    handle, service, device, at = site.gateway.handle, request.service, request.device, request.captured_at
    order = loaded.config.feature_names
    results = site.work.each(lambda payload: handle(service, device, payload, at, order), payloads)
    last = results[-1]
    if last.error is not None:
        kind = _REFUSALS.get(last.outcome, Failed)
        raise kind(last.error if len(payloads) == 1 else f"instance {len(results) - 1}: {last.error}")
    if request.version is not None and any(r.model != loaded.release for r in results):
        raise NotHere(f"version {request.version} was replaced while it answered: ask for the version that serves now")
    return results


def version_of(site: Site, loaded: Loaded, results: Iterable[Result]) -> str:
    """The version that answered: between request and answer another release may have come into service."""
    if all(result.model == loaded.release for result in results):
        return loaded.version
    return (site.runtime.loaded(loaded.config.service) or loaded).version


def column(name: str, loaded: Loaded, results: list[Result]) -> list[Any] | None:
    """One output, an element per instance; None when the model that answered does not give it.

    Raises:
        Failed: the model gave no number where one belongs.
    """
    if name == "prediction" and loaded.model.labels is None:
        return list(map(_number, results))
    values = list(map(partial(_get, name), results))
    return None if any(value is None for value in values) else values


def _get(name: str, result: Result) -> Any:
    return getattr(result, name)


def _number(result: Result) -> float:
    value = float(result.prediction or "nan")
    if not math.isfinite(value):
        raise Failed(f"the model answered {result.prediction}, which is no number: roll out another release")
    return value
