"""What docs/ and data/ say is true of the code: fields, defaults, bounds, commands, flows, paths, links and examples.

The schemas in data/schemas are written from the models by  ``python -m tests.unit.test_docs --write``.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, cast, get_args

import annotated_types
import click
import pytest
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from edgeloop.cli import cli
from edgeloop.clients.store_keys import WRITING
from edgeloop.edge.config import NodeSettings
from edgeloop.edge.http import Site, make_app
from edgeloop.edge.metrics import exposition
from edgeloop.edge.runtime import Runtime
from edgeloop.edge.spool.spool import Spool
from edgeloop.edge.stats import Stats
from edgeloop.fleet.pending import request_key
from edgeloop.fleet.rings import FleetPlan
from edgeloop.learning.drift.kept import plot_key, state_key
from edgeloop.learning.rounds import round_record_key
from edgeloop.learning.train import candidate_key
from edgeloop.samples import delivery, judging, labelling, moves, profiles, records, releases, service, strategy, topics
from edgeloop.samples.dataset import dataset_key, members_key
from edgeloop.samples.segments import segment_key
from edgeloop.samples.splits import SHARES
from edgeloop.samples.table import KEYS, table_prefix
from edgeloop.settings import Settings
from edgeloop.sources.catalog import CATALOG

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "CHANGELOG.md", *(ROOT / "data").rglob("*.md")])
SCHEMAS = ROOT / "data" / "schemas"
EXAMPLES = ROOT / "data" / "examples"
RECORDS: dict[str, type[BaseModel]] = {
    "sample": records.Sample,
    "label": records.Label,
    "release": releases.Release,
    "wanted": releases.Wanted,
    "moves": moves.Moves,
    "report": records.Report,
    "service": service.Service,
}
REFRESH = "run  python -m tests.unit.test_docs --write"
Row = list[str]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def prose(page: Path) -> str:
    """The page without its code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def sections(page: Path) -> dict[str, str]:
    """Text below each heading of any level, by the heading."""
    parts = re.split(r"^#+ (.*)$", prose(page), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def rows(text: str) -> list[Row]:
    """Cells of the first table in ``text``, without its header."""
    found: list[Row] = []
    for line in text.splitlines():
        if line.startswith("|"):
            found.append([cell.strip() for cell in line.strip("|").split("|")])
        elif found:
            break
    return found[2:]


def codes(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def slug(heading: str) -> str:
    """The anchor that a heading gets on GitHub."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


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


# --- pages as such


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{name_of(page)} links to {target}"
        if anchor:
            assert anchor in {slug(h) for h in sections(file)}, f"{name_of(page)} links to {target}"


def test_tests_that_are_named_exist() -> None:
    named = {(page, name) for page in PAGES for name in re.findall(r"`(test_\w+)`", prose(page))}
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert named and {(page, name) for page, name in named if f"def {name}(" not in code} == set()


def test_every_page_is_in_the_index() -> None:
    linked = {(DOCS / t.partition("#")[0]).resolve() for t in re.findall(r"\]\(([^)]+)\)", prose(DOCS / "index.md"))}
    assert set(DOCS.rglob("*.md")) - {DOCS / "index.md"} == linked


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_paths_that_are_named_exist(page: Path) -> None:
    tops = {p.name for p in ROOT.iterdir() if p.is_dir() and not p.name.startswith(".")}
    for code in codes(prose(page)):
        if re.fullmatch(r"[\w.-]+(/[\w.*-]+)+/?", code) and code.split("/")[0] in tops and "/v1" not in code:
            # What stands in angle brackets or in capitals is a placeholder and does not match (nor a topic).
            assert list(ROOT.glob(code)), f"{name_of(page)} names {code}"
        if re.fullmatch(r"edgeloop(\.\w+)+:\w+", code):
            module, _, attribute = code.partition(":")
            assert hasattr(importlib.import_module(module), attribute), f"{name_of(page)} names {code}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_names_no_package_index_and_no_machine(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"pypi|pythonhosted|npmjs|index-url|/simple\b", text, re.IGNORECASE)
    assert not re.search(r"(?<![\w.>])/(home|root|Users|work|tmp|mnt)/", text)


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=name_of)
def test_python_that_is_shown_parses_and_imports_what_is_there(page: Path) -> None:
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("edgeloop"):
                module = importlib.import_module(str(node.module))
                assert all(hasattr(module, a.name) for a in node.names), f"{name_of(page)}: {ast.unparse(node)}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_that_are_shown_exist(page: Path) -> None:
    known = {" ".join(words): command for words, command in commands(cli)}
    lines = [line for text in [*blocks(page, "sh"), *codes(prose(page))] for line in text.splitlines()]
    for line in lines:
        shown = re.match(r"(?:\.venv/bin/)?edgeloop ([a-z]+)(?: ([a-z]+))?", line)
        if shown:
            name = f"edgeloop {shown[1]}"
            assert name in known, f"{name_of(page)} shows  {line}"
            if isinstance(known[name], click.Group) and shown[2]:
                assert f"{name} {shown[2]}" in known, f"{name_of(page)} shows  {line}"


# --- models


def described(page: str, heading: str) -> list[Row]:
    return rows(sections(REFERENCE / page)[heading])


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


# --- command line


def commands(group: click.Group, prefix: str = "edgeloop") -> Iterator[tuple[list[str], click.Command]]:
    for name, command in group.commands.items():
        yield [prefix, name], command
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix} {name}")


def options_of(command: click.Command) -> set[str]:
    return {o for p in command.params if isinstance(p, click.Option) for o in p.opts}


def test_the_command_line_page_has_every_command_and_option() -> None:
    page = sections(REFERENCE / "cli.md")
    leaves = {" ".join(w): c for w, c in commands(cli) if not isinstance(c, click.Group)}
    assert {h for h in page if h.startswith("edgeloop ")} == set(leaves)
    assert {o for r in rows(page["edgeloop"]) for o in codes(r[0])} == options_of(cli) | {"--help", "-h"}
    for name, command in leaves.items():
        table = [r for r in rows(page[name]) if codes(r[0])[0].startswith("--")]
        assert {codes(r[0])[0] for r in table} == options_of(command), name
        for row in table:
            option = next(p for p in command.params if codes(row[0])[0] in p.opts)
            if isinstance(option.default, int) and not isinstance(option.default, bool):
                assert row[1] == str(option.default), f"{name} {row[0]}"
            if option.required:
                assert row[1] == "required"


def test_every_data_set_is_in_the_how_to() -> None:
    text = sections(DOCS / "how-to" / "get-data.md")["Get data"]
    assert [codes(r[0])[0] for r in rows(text)] == list(CATALOG)


# --- flows


def deployments() -> list[dict[str, Any]]:
    return list(yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"])


def flow_of(name: str) -> Callable[..., Any]:
    return cast("Callable[..., Any]", getattr(importlib.import_module(f"flows.{name}"), name).fn)


def test_the_flows_page_has_every_deployment() -> None:
    strategies = {"CANCEL_NEW": "is cancelled", "ENQUEUE": "waits"}
    wanted = {}
    for one in deployments():
        schedule = one["schedules"]
        when = f"every {schedule[0]['interval']} s" if schedule else "by hand"
        assert one["concurrency_limit"]["limit"] == 1
        wanted[f"{one['name']}/{one['name']}"] = (when, strategies[one["concurrency_limit"]["collision_strategy"]])
    found = {codes(r[0])[0]: (r[1], r[2]) for r in described("flows.md", "Flows")}
    assert found == wanted


def test_the_flows_page_has_every_parameter() -> None:
    found = {(codes(r[0])[0], codes(r[1])[0]): r[2] for r in described("flows.md", "Parameters")}
    wanted = {}
    for name in (one["name"] for one in deployments()):
        for parameter in inspect.signature(flow_of(name)).parameters.values():
            is_free = parameter.default is inspect.Parameter.empty
            wanted[name, parameter.name] = "required" if is_free else json.dumps(parameter.default)
    assert found == wanted


def test_the_flows_page_has_every_task() -> None:
    from prefect import Task

    made: dict[str, int] = {}
    for path in (ROOT / "tasks").glob("[a-z]*.py"):
        module = importlib.import_module(f"tasks.{path.stem}")
        made |= {t.name: t.retries for t in vars(module).values() if isinstance(t, Task)}
    found = {codes(r[0])[0]: int(r[2]) for r in described("flows.md", "Tasks")}
    assert found == made


def test_the_flows_page_has_every_artifact() -> None:
    code = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "tasks").glob("*.py"))
    named = [codes(r[0])[0] for r in described("flows.md", "Artifacts")]
    for name in named:
        stem, _, rest = name.partition("-<service>")
        assert f'"{stem}' in code
        assert rest in code
    assert len(named) == len(re.findall(r"create_\w+_artifact\(", code))


# --- node


def test_the_topics_page_has_every_topic() -> None:
    named = {codes(r[0])[0] for r in described("topics.md", "MQTT topics")}
    device = {topics.device_topic("{service}", "{device}", leaf) for leaf in ("input", "result", "feedback")}
    assert named == device | {
        topics.report_topic("{node}", "{service}"),
        topics.alive_topic("{node}"),
        topics.wanted_topic("{service}", cast("int", "{ring}")),
        topics.FLUSH,
        f"{topics.MARKS}/{{reader}}",
    }


def test_the_http_page_has_every_path_and_metric(tmp_path: Path) -> None:
    app = make_app(cast("Site", None))
    offered = {(m, r.path) for r in app.routes for m in cast("Any", r).methods if m != "HEAD"}
    assert {(r[0], codes(r[1])[0]) for r in described("http.md", "A node over HTTP")} == offered
    text = exposition(Stats(["digits"]), Spool(tmp_path), Runtime())
    metrics = set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))
    assert set(re.findall(r"edgeloop_\w+", sections(REFERENCE / "http.md")["Metrics"])) == metrics


# --- store


def test_the_store_page_has_every_prefix() -> None:
    named = {codes(r[0])[0].split("/")[0] for r in described("store-layout.md", "What lies in the store")}
    name = records.digest(b"")
    keys = [
        segment_key("captures", "s", b""),
        segment_key("labels", "s", b""),
        table_prefix("s", "samples"),
        dataset_key("s", name),
        members_key("s", name),
        candidate_key("s", name),
        round_record_key("s", "run"),
        releases.blob_key(name),
        releases.release_key("s", name),
        releases.metadata_key("timestamp.json"),
        request_key("s", name),
        state_key("s", 1),
        plot_key("s", "1-1"),
        "archive/",
        "quarantine/",
        "features/",
        "inputs/",
        "claims/",
        ".edgeloop-check/",
    ]
    assert named == {key.split("/")[0] for key in keys}
    code = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "edgeloop").rglob("*.py"))
    assert all(
        f'f"{prefix}' in code
        for prefix in ("archive/", "quarantine/", "features/", "inputs/", "claims/", ".edgeloop-check/")
    )
    assert f"`{WRITING}/`" in prose(REFERENCE / "store-layout.md")


# --- data


def schema_text(model: type[BaseModel]) -> str:
    return json.dumps(model.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("name", RECORDS)
def test_schemas_are_the_models(name: str) -> None:
    path = SCHEMAS / f"{name}.json"
    assert path.is_file(), REFRESH
    assert path.read_text(encoding="utf-8") == schema_text(RECORDS[name]), REFRESH


@pytest.mark.parametrize("name", RECORDS)
def test_examples_validate(name: str) -> None:
    text = (EXAMPLES / f"{name}.json").read_text(encoding="utf-8")
    record = RECORDS[name].model_validate_json(text)
    assert not record.model_extra, "an example shows known fields only"
    assert set(json.loads(text)) >= {n for n, f in type(record).model_fields.items() if f.is_required()}


def test_there_is_a_schema_and_an_example_of_each_record_only() -> None:
    assert {p.stem for p in SCHEMAS.iterdir()} == {p.stem for p in EXAMPLES.iterdir()} == set(RECORDS)


def test_the_examples_belong_together() -> None:
    def example(name: str) -> dict[str, Any]:
        return dict(json.loads((EXAMPLES / f"{name}.json").read_text(encoding="utf-8")))

    sample, label, release = example("sample"), example("label"), example("release")
    payload = sample["payload"].encode()
    at = datetime.fromisoformat(sample["captured_at"])
    assert sample["sample_id"] == records.sample_id(sample["service"], sample["device"], at, payload)
    assert sample["group"] == records.digest(payload)
    assert label["sample_id"] == sample["sample_id"]
    name = releases.Release.model_validate(release).digest
    assert name == sample["model_digest"] == example("wanted")["release"] == example("report")["serving"]


def test_the_service_of_the_how_to_is_one() -> None:
    (text,) = blocks(DOCS / "how-to" / "add-a-service.md", "yaml")
    made = service.parse_service(text, "pump-watch.yaml")
    from edgeloop.learning.tabular import find_pipeline

    find_pipeline(made.trainer.pipeline)(seed=0, **made.trainer.params)


def write_schemas() -> None:
    SCHEMAS.mkdir(parents=True, exist_ok=True)
    for name, model in RECORDS.items():
        (SCHEMAS / f"{name}.json").write_text(schema_text(model), encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        raise SystemExit("usage: python -m tests.unit.test_docs --write")
    write_schemas()
