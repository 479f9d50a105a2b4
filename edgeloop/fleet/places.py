"""Clusters that rings run on, as a fleet YAML names them (``targets:``)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from edgeloop.fleet.targets.kserve_manifests import KServeOptions
from edgeloop.fleet.targets.kubeedge_options import KubeEdgeOptions

_Context = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KubeEdgePlace(_Strict):
    """One cluster whose nodes KubeEdge brings pods to."""

    context: _Context
    """Of the kubeconfig; ``in-cluster`` for the cluster that the worker runs in."""
    kubeconfig: Path | None = None
    """By default what the variable KUBECONFIG names, else ~/.kube/config."""
    options: KubeEdgeOptions = KubeEdgeOptions()


class KServePlace(_Strict):
    """Sites, each a cluster of its own."""

    sites: dict[Annotated[int, Field(ge=0)], Annotated[list[_Context], Field(min_length=1)]] = Field(min_length=1)
    """Contexts of the kubeconfig, by ring."""
    kubeconfig: Path | None = None
    """By default what the variable KUBECONFIG names, else ~/.kube/config."""
    options: KServeOptions = KServeOptions()


class Places(_Strict):
    """The section ``targets``."""

    kubeedge: KubeEdgePlace | None = None
    kserve: KServePlace | None = None
