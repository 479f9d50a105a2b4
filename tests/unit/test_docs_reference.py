"""The pages list every command, data set, flow, topic, path, metric and prefix of the store, and no other."""

from __future__ import annotations

import importlib
import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import click
import yaml

from edgeloop.cli import cli
from edgeloop.clients.store_keys import WRITING
from edgeloop.edge.http import Site, make_app
from edgeloop.edge.metrics import exposition
from edgeloop.edge.runtime import Runtime
from edgeloop.edge.spool.spool import Spool
from edgeloop.edge.stats import Stats
from edgeloop.fleet.pending import request_key
from edgeloop.learning.drift.kept import plot_key, state_key
from edgeloop.learning.rounds import round_record_key
from edgeloop.learning.train import candidate_key
from edgeloop.samples import records, releases, topics
from edgeloop.samples.dataset import dataset_key, members_key
from edgeloop.samples.segments import segment_key
from edgeloop.samples.table import table_prefix
from edgeloop.sources.catalog import CATALOG
from tests.unit.pages import DOCS, REFERENCE, ROOT, codes, commands, described, prose, rows, sections

# --- command line


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
