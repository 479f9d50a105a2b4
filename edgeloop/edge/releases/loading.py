"""From the bytes of a release to a model that has passed its self-check, within the node's memory."""

from __future__ import annotations

import json
from collections.abc import Mapping

from pydantic import ValidationError

from edgeloop.clients.models import Endpoint, FailedProbe, ModelUnavailable, UnloadableModel, load_model, run_probe
from edgeloop.edge.logs import kind_of
from edgeloop.edge.memory import MemoryBudget, ModelTooBig
from edgeloop.edge.runtime import Loaded
from edgeloop.samples.releases import Layer, Release
from edgeloop.samples.service import NodeConfig

#: All that is needed of a release whose model runs in a server beside the node.
_BESIDE = frozenset({"config", "probe"})
#: What runs in the node itself.
_RUNTIMES = ("litert", "onnx")


class UnrunnableVariant(UnloadableModel):
    """The variant for this node's profile needs a runtime that is not in a node."""


class Loader:
    """Makes models of releases.

    Args:
        budget: refuses what would not fit; None is no limit.
        endpoints: services whose model runs in a server beside the node.
        profile: the node's hardware profile, which decides the variant; None loads the model as it was trained.
    """

    def __init__(
        self,
        budget: MemoryBudget | None = None,
        endpoints: Mapping[str, Endpoint] | None = None,
        profile: str | None = None,
    ) -> None:
        self._budget = budget or MemoryBudget(None)
        self._endpoints = dict(endpoints or {})
        self._profile = profile

    def needed(self, release: Release) -> list[Layer]:
        """The layers that this node has to have.

        Raises:
            NoVariant: the release has none for this node's profile.
            UnrunnableVariant: it has one, for a runtime that is not in a node.
        """
        layers = release.layers_for(self._profile)
        if release.service in self._endpoints:
            return [layer for layer in layers if layer.role in _BESIDE]
        self._check_runtime(release)
        return layers

    def _check_runtime(self, release: Release) -> None:
        for variant in release.variants:
            if variant.profile == self._profile and variant.runtime not in _RUNTIMES:
                raise UnrunnableVariant(
                    f"release {release.digest} is for {variant.runtime} on profile {variant.profile}, and this node"
                    f" runs {' and '.join(_RUNTIMES)}: name a server in endpoints of node.yaml, or another profile"
                )

    def check_config(self, release: Release, layers: Mapping[str, bytes]) -> None:
        """Raise UnloadableModel when the config of ``release`` cannot be used; nothing is loaded."""
        _config(release, layers)

    def check_room(self, release: Release) -> None:
        """Raise ModelTooBig when ``release`` would not fit beside what is loaded; before anything is fetched."""
        sizes = [layer.size for layer in self.needed(release) if layer.role not in _BESIDE]
        if sizes:
            self._budget.check(f"{release.service} {release.digest}", sum(sizes))

    def load(self, release: Release, layers: Mapping[str, bytes]) -> Loaded:
        """Build the model of ``release`` from ``layers`` by role, and run its self-check.

        Raises:
            UnloadableModel, FailedProbe: the release is at fault.
            ModelTooBig: it does not fit, now.
            ModelUnavailable: the server beside the node is away.
        """
        self.check_room(release)
        loaded = self._build(release, layers)
        if "probe" in layers:
            _probe(loaded, layers["probe"])
        self._budget.confirm(f"{release.service} {release.digest}")
        return loaded

    def _build(self, release: Release, layers: Mapping[str, bytes]) -> Loaded:
        config = _config(release, layers)
        backbone = next((la for la in release.layers_for(self._profile) if la.role == "backbone"), None)
        endpoint = self._endpoints.get(release.service)
        try:
            model = load_model(config, layers, backbone.digest if backbone else None, endpoint=endpoint)
        except (UnloadableModel, ModelUnavailable):
            raise
        except MemoryError as error:
            raise _without_memory(release.digest) from error
        except Exception as error:
            raise UnloadableModel(
                f"release {release.digest} does not load ({str(error)[:200]}): release it again"
            ) from error
        return Loaded(release.digest, release.version, config, model)


def _without_memory(name: str) -> ModelTooBig:
    """It is the machine's fault, and may pass."""
    return ModelTooBig(f"no memory to load release {name} now: raise memory_mb in node.yaml or give the machine more")


def _config(release: Release, layers: Mapping[str, bytes]) -> NodeConfig:
    try:
        config = NodeConfig.model_validate(json.loads(layers["config"]))
    except KeyError as error:
        raise UnloadableModel(f"release {release.digest} has no whole layer {error}: release it again") from error
    except (ValueError, ValidationError) as error:
        raise UnloadableModel(
            f"config of {release.digest} does not parse ({str(error)[:200]}): release it again"
        ) from error
    if config.service != release.service:
        whose = f"is of service {config.service!r:.100}, not {release.service!r}"
        raise UnloadableModel(f"config of {release.digest} {whose}: release it again")
    return config


def _probe(loaded: Loaded, probe: bytes) -> None:
    try:
        run_probe(loaded.model, probe, loaded.config.kind != "tabular-regressor")
    except (FailedProbe, ModelUnavailable):
        raise
    except MemoryError as error:
        raise _without_memory(loaded.release) from error
    except Exception as error:
        raise FailedProbe(f"the probe of {loaded.release} does not run ({kind_of(error)}): release it again") from error
