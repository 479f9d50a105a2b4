"""The pages of the reference list every field of services, profiles, records and settings, with defaults and bounds."""

from __future__ import annotations

import json
from typing import get_args

import annotated_types
import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from edgeloop.edge.config import NodeSettings
from edgeloop.fleet.rings import FleetPlan
from edgeloop.samples import delivery, judging, labelling, moves, profiles, records, releases, service, strategy
from edgeloop.samples.splits import SHARES
from edgeloop.samples.table import KEYS
from edgeloop.settings import Settings
from tests.unit.pages import REFERENCE, ROOT, codes, described, sections


def default_text(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        assert value == type(value)()
        return "all defaults"
    return json.dumps(value)


def bounds_text(field: FieldInfo) -> str:
    found: dict[str, str] = {}
    for one in field.metadata:
        match one:
            case annotated_types.Ge(ge=n):
                found["low"] = f"≥ {n}"
            case annotated_types.Gt(gt=n):
                found["low"] = f"> {n}"
            case annotated_types.Le(le=n):
                found["high"] = f"≤ {n}"
            case annotated_types.Lt(lt=n):
                found["high"] = f"< {n}"
            case annotated_types.MinLen(min_length=1):
                found["low"] = "not empty"
    return ", ".join(found[k] for k in ("low", "high") if k in found)


@pytest.mark.parametrize(
    "model",
    [
        service.Service,
        service.ImageInput,
        service.Feature,
        service.Selection,
        service.Trainer,
        service.Head,
        service.Full,
        service.Gate,
        judging.Vetoes,
        judging.Veto,
        labelling.Labelling,
        labelling.Shares,
        labelling.Pseudo,
        delivery.Delivery,
        delivery.Approvals,
        delivery.TwinRules,
        strategy.Strategy,
        strategy.Window,
        strategy.Step,
        strategy.Thresholds,
        service.Expectation,
    ],
    ids=lambda m: str(m.__name__),
)
def test_the_service_page_has_every_field_with_default_and_bounds(model: type[BaseModel]) -> None:
    table = described("service-yaml.md", model.__name__)
    found = [(codes(r[0])[0], r[2], r[3]) for r in table]
    assert found == [(n, default_text(f), bounds_text(f)) for n, f in model.model_fields.items()]


def test_the_profile_page_has_every_field_runtime_and_precision() -> None:
    found = [(codes(r[0])[0], r[2], r[3]) for r in described("profile-yaml.md", "Profile")]
    assert found == [(n, default_text(f), bounds_text(f)) for n, f in profiles.Profile.model_fields.items()]
    for heading, words in (("Runtimes", profiles.Runtime), ("Precisions", profiles.Precision)):
        assert [codes(r[0])[0] for r in described("profile-yaml.md", heading)] == list(get_args(words))
    shipped = sections(REFERENCE / "profile-yaml.md")["Profiles that come with edgeloop"]
    assert all(f"`{path.stem}`" in shipped for path in (ROOT / "deployments" / "profiles").glob("*.yaml"))


@pytest.mark.parametrize(
    "model",
    [
        records.Sample,
        records.Label,
        records.Report,
        records.Verdict,
        records.Quarantined,
        records.Hold,
        releases.Release,
        releases.Layer,
        releases.Variant,
        releases.Wanted,
        releases.Next,
        moves.Moves,
    ],
    ids=lambda m: str(m.__name__),
)
def test_the_records_page_has_every_field_with_default(model: type[BaseModel]) -> None:
    found = [(codes(r[0])[0], r[1]) for r in described("records.md", model.__name__)]
    assert found == [(n, default_text(f)) for n, f in model.model_fields.items()]


def test_the_records_page_has_every_table_and_split() -> None:
    table = described("records.md", "Tables")
    assert {codes(r[0])[0]: tuple(codes(r[2])) for r in table} == KEYS
    text = sections(REFERENCE / "records.md")["Split"]
    assert all(f"`{name}` ({share} %)" in text for name, share in SHARES.items())


def test_the_settings_page_has_every_setting() -> None:
    table = described("settings.md", "Settings")
    names = {codes(r[0])[0]: r[1] for r in table}
    wanted = {"PREFECT_API_URL" if n == "prefect" else f"EDGELOOP_{n.upper()}" for n in Settings.model_fields}
    assert set(names) == wanted
    for field in ("home", "broker", "mlflow"):
        assert names[f"EDGELOOP_{field.upper()}"] == str(Settings.model_fields[field].default)
    assert names["PREFECT_API_URL"] == Settings.model_fields["prefect"].default


@pytest.mark.parametrize(("heading", "model"), [("node.yaml", NodeSettings), ("fleet.yaml", FleetPlan)])
def test_the_settings_page_has_every_field_of_the_files(heading: str, model: type[BaseModel]) -> None:
    found = [(codes(r[0])[0], r[1], r[2]) for r in described("settings.md", heading)]
    assert found == [(n, default_text(f), bounds_text(f)) for n, f in model.model_fields.items()]


def test_variables_of_others_are_read_by_the_code() -> None:
    code = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "edgeloop").rglob("*.py"))
    named = [name for r in described("settings.md", "Variables of others") for name in codes(r[0])]
    assert named
    assert all(f'"{name}"' in code for name in named)
