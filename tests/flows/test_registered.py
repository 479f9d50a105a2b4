"""Every flow is deployed, by its module path, and its form says what each parameter means."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import Flow
from prefect.utilities.callables import parameter_schema

ROOT = Path(__file__).resolve().parents[2]
DEPLOYMENTS: list[dict[str, Any]] = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
FLOWS = ("ingest", "retrain", "release", "rollout", "monitor", "loop")


def flow_of(name: str) -> Flow[Any, Any]:
    found = getattr(importlib.import_module(f"flows.{name}"), name)
    assert isinstance(found, Flow)
    return found


def test_every_flow_is_deployed_by_its_module_path() -> None:
    assert {d["entrypoint"] for d in DEPLOYMENTS} == {f"flows.{name}.{name}" for name in FLOWS}
    assert {p.stem for p in (ROOT / "flows").glob("*.py")} == {*FLOWS, "parameters", "__init__"}


@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_is_async_and_has_the_name_of_its_file(name: str) -> None:
    flow = flow_of(name)
    assert flow.name == name
    assert flow.isasync, "a synchronous flow costs a second of heartbeat"


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda d: d["name"])
def test_a_deployment_runs_once_at_a_time(deployment: dict[str, Any]) -> None:
    assert deployment["concurrency_limit"]["limit"] == 1
    assert deployment["description"]
    assert "edgeloop" in deployment["tags"]


@pytest.mark.parametrize("name", ["ingest", "release", "monitor", "rollout", "loop"])
def test_what_runs_by_itself_has_a_schedule(name: str) -> None:
    (deployment,) = [d for d in DEPLOYMENTS if d["name"] == name]
    assert deployment["schedules"]


@pytest.mark.parametrize("name", FLOWS)
def test_every_parameter_is_described(name: str) -> None:
    for parameter, schema in parameter_schema(flow_of(name)).properties.items():
        assert schema.get("description"), f"{name}.{parameter}"


def test_the_form_of_retrain_has_choices_and_bounds() -> None:
    form = parameter_schema(flow_of("retrain")).properties
    assert set(form) == {"service", "mode", "reason", "seed"}
    assert form["mode"]["enum"] == ["auto", "head", "full", "sklearn"]
    assert (form["reason"]["minLength"], form["reason"]["maxLength"]) == (3, 200)
    assert form["service"]["pattern"]
    bounds = next(part for part in form["seed"]["anyOf"] if part["type"] == "integer")
    assert (bounds["minimum"], bounds["maximum"]) == (0, 2**31 - 1)
