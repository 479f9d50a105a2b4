"""The pages around inference: health, metadata, the repository, feedback, metrics."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from edgeloop.edge.http.bodies import decompressed
from edgeloop.edge.http.messages import (
    Failed,
    Forbidden,
    MalformedRequest,
    NotHere,
    NotReady,
    Refused,
    Reply,
    Request,
    as_json,
    parse_object,
)
from edgeloop.edge.http.models import inputs_of, outputs_of, served, takes_images
from edgeloop.edge.http.work import work_lines
from edgeloop.edge.metrics import exposition
from edgeloop.errors import BadInput, EdgeloopError, Unavailable

if TYPE_CHECKING:
    from edgeloop.edge.http.app import Site

#: Most bytes of a body that is not an inference.
SMALL = 64 * 1024
_METRICS = b"text/plain; version=0.0.4; charset=utf-8"
_FEEDBACK: dict[str, type[Refused]] = {"unknown": NotHere, "not_ready": NotReady}


def alive(_site: Site, _request: Request) -> Reply:
    """The process answers."""
    return as_json({"live": True})


def ready(site: Site, _request: Request) -> Reply:
    """Every service has a release loaded."""
    services = {name: site.runtime.loaded(name) is not None for name in site.stats.services}
    fine = all(services.values())
    return as_json({"ready": fine, "services": services}, 200 if fine else 503)


def metrics(site: Site, _request: Request) -> Reply:
    """Prometheus text: the node's counters and those of HTTP."""
    text = exposition(site.stats, site.spool, site.runtime) + "\n".join(work_lines(site.work)) + "\n"
    return Reply(text.encode(), kind=_METRICS)


def v1_models(site: Site, _request: Request) -> Reply:
    """The services of this node, as KServe V1 lists them."""
    return as_json({"models": list(site.stats.services)})


def v1_model(site: Site, request: Request) -> Reply:
    """State of the version that serves, as TF Serving and KServe V1 have it."""
    loaded = served(site, request)
    status = {"version": loaded.version, "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    return as_json({"name": loaded.config.service, "ready": True, "model_version_status": [status]})


def v2_server(_site: Site, _request: Request) -> Reply:
    """Metadata of the server."""
    return as_json(
        {"name": "edgeloop", "version": _version(), "extensions": ["binary_tensor_data", "model_repository"]}
    )


@cache
def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("edgeloop")
    except PackageNotFoundError:  # run from a folder, not installed
        return "unknown"


def v2_model(site: Site, request: Request) -> Reply:
    """Metadata of a model: names, datatypes and shapes of its tensors, its labels and features in their order."""
    loaded = served(site, request)
    outputs = [{"name": n, "datatype": t, "shape": s} for n, (t, s) in outputs_of(loaded).items()]
    parameters: dict[str, Any] = {"features": loaded.config.feature_names, "labels": list(loaded.model.labels or ())}
    return as_json(
        {
            "name": loaded.config.service,
            "versions": [loaded.version],
            "platform": "litert" if takes_images(loaded) else "onnx",
            "inputs": inputs_of(loaded),
            "outputs": outputs,
            "parameters": {name: values for name, values in parameters.items() if values},
        }
    )


def v2_ready(site: Site, request: Request) -> Reply:
    """Whether a model answers."""
    try:
        served(site, request)
        fine = True
    except NotReady:
        fine = False
    return as_json({"name": request.service, "ready": fine}, 200 if fine else 503)


def v2_index(site: Site, request: Request) -> Reply:
    """The models this node may serve; ``{"ready": true}`` leaves out those it does not serve now."""
    body = parse_object(request.body) if request.body.strip() else {}
    wanted = body.get("ready", False)
    if not isinstance(wanted, bool):
        raise MalformedRequest('"ready" of the index is not true or false: send one of them')
    entries = [_entry(site, name) for name in site.stats.services]
    return as_json([entry for entry in entries if entry["state"] == "READY" or not wanted])


def _entry(site: Site, name: str) -> dict[str, str]:
    loaded = site.runtime.loaded(name)
    if loaded is None:
        return {"name": name, "version": "", "state": "UNAVAILABLE", "reason": "no release is loaded"}
    return {"name": name, "version": loaded.version, "state": "READY", "reason": ""}


def load(site: Site, request: Request) -> Reply:
    """Load a service's release."""
    return _administrate(site, request, site.load, "load")


def unload(site: Site, request: Request) -> Reply:
    """Take a service's release out of memory."""
    return _administrate(site, request, site.unload, "unload")


def _administrate(site: Site, request: Request, act: Callable[[str], object] | None, what: str) -> Reply:
    service = request.service
    if service not in site.stats.services:
        raise NotHere(f"this node does not serve {service[:80]}: see its node.yaml")
    if act is None:
        raise Forbidden(f"this node does not {what} over HTTP: roll out a release instead")
    try:
        act(service)
    except BadInput as error:
        raise MalformedRequest(str(error)) from error
    except Unavailable as error:
        raise NotReady(str(error)) from error
    except EdgeloopError as error:
        raise Failed(str(error)) from error
    return as_json({"name": service, "ready": site.runtime.loaded(service) is not None})


def feedback(site: Site, request: Request) -> Reply:
    """Take a label for a sample; 202 once it is durable here."""
    if request.service not in site.stats.services:
        raise NotHere(f"this node does not serve {request.service[:80]}: see its node.yaml")
    body = decompressed(request, SMALL).body
    refused = site.gateway.feedback(request.service, request.device, body, request.captured_at)
    if refused is None:
        return as_json({"accepted": True}, 202)
    raise _FEEDBACK.get(refused.outcome, MalformedRequest)(refused.error or "refused")
