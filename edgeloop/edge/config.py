"""What a node must be told: one small YAML, because everything else comes with the release."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeloop.clients.endpoints import Endpoint
from edgeloop.edge.http.access import TlsFiles
from edgeloop.errors import BadInput
from edgeloop.samples.moves import DEFAULT
from edgeloop.samples.service import Name, line_of

_MIB = 1024 * 1024
TopicLevel = Annotated[str, Field(pattern=r"^[^/+#\x00]+$", max_length=128)]
#: A level of a topic filter: one name, or a lone ``+`` for all.
FilterLevel = Annotated[str, Field(pattern=r"^(\+|[^/+#\x00]+)$", max_length=128)]
#: Fields that an error does not quote: a URL may hold a password.
_SECRET = {"store", "broker", "endpoints", "tls"}


class MalformedNode(BadInput):
    """A node.yaml does not say what it must; the message names file, line and field."""


class NodeSettings(BaseModel):
    """One node.yaml. Relative paths are relative to the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    node: Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?$")]
    """Name of this node, unique in the fleet."""
    ring: int = Field(ge=0)
    """The ring whose channel this node follows, unless the channel says that it moved to another."""
    fleet: Name = DEFAULT
    """The fleet among whose moved nodes it is looked for."""
    services: list[Name] = Field(min_length=1)
    """Services served here."""
    state: Path
    """Directory of the spool, the blobs and state.json; one per node."""
    store: str
    """Object store: a directory or ``s3://…`` (``EDGELOOP_STORE`` stands above it)."""
    broker: str
    """``mqtt://[user:password@]host:port`` (``EDGELOOP_BROKER`` stands above it)."""
    http: str | None = "127.0.0.1:8081"
    """Address of the HTTP gateway, or null; port 0 takes a free one, written to ``<state>/http.json``."""
    access: Path | None = None
    """Who may ask what (``access.yaml``); needed for any HTTP address but loopback."""
    tls: TlsFiles | None = None
    """Certificate and key of the HTTP gateway, and who may sign client certificates."""
    trust: Path | None = None
    """Root of the signed channel (``root.json``): without it, nothing that the store says is believed."""
    download_bytes_per_second: int | None = Field(default=None, ge=1024)
    """Most bytes a second that releases are fetched with; null is no limit."""
    group: TopicLevel | None = None
    """Shared-subscription name: inputs are divided among the nodes of a group."""
    devices: list[FilterLevel] = Field(default_factory=lambda: ["+"], min_length=1)
    """Device levels of the topics to answer: names, or a lone ``+`` for all."""
    answers_unknown: bool = False
    """This node is alone on its broker: inputs for services that it does not serve get a result with an error."""
    poll_seconds: float = Field(default=10, gt=0)
    """How often the channel is read; a nudge over MQTT comes quicker."""
    report_seconds: float = Field(default=30, gt=0)
    segment_samples: int = Field(default=500, ge=1)
    """A segment is cut at this many samples,"""
    segment_seconds: float = Field(default=60, gt=0)
    """or this age,"""
    segment_bytes: int = Field(default=16 * _MIB, ge=1024)
    """or this size."""
    spool_bytes: int = Field(default=1024 * _MIB, ge=1024)
    """Over this much waiting for the store, the least valuable samples are dropped; answering goes on."""
    inflight: int = Field(default=32, ge=1, le=1000)
    """Most inputs in work at once."""
    memory_mb: int | None = Field(default=None, ge=32)
    """Most resident memory of the node in MiB: a model that would exceed it is refused; null is no limit."""
    endpoints: dict[Name, Endpoint] = Field(default_factory=dict)
    """Services whose model runs in a V1 or V2 server beside the node, and where."""
    profile: Name | None = None
    """Hardware profile: of releases with variants, this one's is loaded; null loads models as they were trained."""


def load_node_settings(path: Path, environ: Mapping[str, str] | None = None) -> NodeSettings:
    """Read a node.yaml; ``EDGELOOP_STORE`` and ``EDGELOOP_BROKER`` of the environment override it.

    Raises:
        MalformedNode: the file cannot be read, or a field is wrong; the message names file, line and field.
    """
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        value = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise MalformedNode(f"{path} cannot be read ({error}): name an existing node.yaml") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise MalformedNode(f"{path}:{line}: not YAML: {error.problem}: mend the line") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise MalformedNode(f"{path}:1: not YAML: {' '.join(str(error).split()):.200}: mend the file") from error
    if not isinstance(value, dict):
        raise MalformedNode(f"{path}:1: a node is a mapping with node, ring and services: see docs/reference")
    merged = _from_file(value, path.absolute().parent) | _from_environment(os.environ if environ is None else environ)
    try:
        return NodeSettings.model_validate(merged)
    except ValidationError as error:
        raise MalformedNode(f"{path}:{_explain(error, root)}: mend it and start again") from error


def _from_file(value: dict[str, Any], base: Path) -> dict[str, Any]:
    value = dict(value)
    for name in ("state", "trust", "access"):
        if isinstance(value.get(name), str):
            value[name] = base / value[name]
    if isinstance(value.get("tls"), dict):
        value["tls"] = {k: base / v if isinstance(v, str) else v for k, v in value["tls"].items()}
    store = value.get("store")
    if isinstance(store, str) and "://" not in store:
        value["store"] = str(base / store)
    return value


def _from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    names = {"store": "EDGELOOP_STORE", "broker": "EDGELOOP_BROKER"}
    return {field: environ[name] for field, name in names.items() if environ.get(name)}


def _explain(error: ValidationError, root: yaml.Node | None) -> str:
    first = error.errors()[0]
    path = first["loc"]
    is_harmless = path[0] in NodeSettings.model_fields.keys() - _SECRET and first["type"] != "missing"
    given = f" (given: {first['input']!r:.80})" if is_harmless else ""
    field = re.sub(r"[^\w.-]", "?", ".".join(map(str, path)))[:80]
    return f"{line_of(root, path)}: field {field}: {first['msg']}{given}"
