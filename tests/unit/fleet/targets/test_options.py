"""The options of targets are those that docs/reference/targets.md lists, with their defaults."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from edgeloop.fleet.targets.keel import KeelOptions
from edgeloop.fleet.targets.kserve_manifests import KServeOptions
from edgeloop.fleet.targets.kubeedge_manifests import KubeEdgeOptions
from edgeloop.fleet.targets.pods import Resources
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "reference" / "targets.md").read_text(encoding="utf-8")


def shown(value: Any) -> str:
    match value:
        case None | () | {}:
            return "none"
        case bool():
            return "yes" if value else "no"
        case Resources():
            return "Resources"
    return str(value)


@pytest.mark.parametrize("options", [KubeEdgeOptions, KServeOptions, KeelOptions, Resources])
def test_options_are_documented(options: type[Any]) -> None:
    section = PAGE.split(f"## {options.__name__}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", section, re.MULTILINE)
    made = options()
    assert rows == [(field.name, shown(getattr(made, field.name))) for field in dataclasses.fields(options)]
