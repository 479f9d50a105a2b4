"""InferenceServices are what the kserve package's models know, down to the last field."""

from __future__ import annotations

import copy
import json
import subprocess
from typing import Any

import pytest

from edgeloop.clients.cluster import Manifest
from tests.conftest import ROOT
from tests.servers.peers import PROGRAMS, peer_python
from tests.unit.fleet.targets.kept_manifests import made

KNOWN = {name: manifest for name, manifest in made().items() if manifest["kind"] == "InferenceService"}
BROKEN: dict[str, tuple[tuple[Any, ...], Any]] = {
    "unknown at the top": (("spec", "predictors"), {}),
    "unknown in the predictor": (("spec", "predictor", "replicas"), 1),
    "unknown in the container": (("spec", "predictor", "containers", 0, "imagePolicy"), "Always"),
    "a wrong type": (("spec", "predictor", "minReplicas"), "1"),
    "a python name": (("spec", "predictor", "min_replicas"), 1),
    "a format that is no mapping": (("spec", "predictor", "model"), {"modelFormat": "onnx"}),
    "nothing where a predictor must be": (("spec",), {}),
}


def broken(where: tuple[Any, ...], value: Any) -> Manifest:
    manifest: Any = copy.deepcopy(KNOWN["inferenceservice-predictor"])
    here = manifest
    for step in where[:-1]:
        here = here[step]
    here[where[-1]] = value
    return manifest  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def faults() -> dict[str, list[str]]:
    """Of the known and of the broken ones, asked for once: the package takes seconds to import."""
    asked = KNOWN | {name: broken(*change) for name, change in BROKEN.items()}
    done = subprocess.run(
        [peer_python("kserve"), "-W", "ignore", "-m", f"{PROGRAMS}.kserve_validate"],
        input=json.dumps(list(asked.values())), capture_output=True, text=True, cwd=ROOT, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(zip(asked, json.loads(done.stdout.splitlines()[-1]), strict=True))


@pytest.mark.parametrize("name", KNOWN)
def test_true_to_the_models(faults: dict[str, list[str]], name: str) -> None:
    assert faults[name] == []


@pytest.mark.parametrize("name", BROKEN)
def test_the_models_find_what_is_wrong(faults: dict[str, list[str]], name: str) -> None:
    assert faults[name]
