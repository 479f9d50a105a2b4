"""What holds after every demo, whatever it played."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from edgeloop.clients.objects import DirectoryStore
from edgeloop.samples.dataset import freeze, members_of
from edgeloop.samples.table import Tables
from tests.e2e.cli import ROOT

KEYS = {
    "round", "seen", "sent", "labelled", "quarantined", "candidate_accuracy", "champion_accuracy", "promoted",
    "reason", "version",
}  # fmt: skip


def send_all(home: Path, service: str) -> None:
    """Let the nodes of this home send every input.

    Which share they draw is their secret, another in each run, and with so few inputs it decides whether the gate can
    see that a candidate is better.
    """
    text = (ROOT / "deployments" / "services" / f"{service}.yaml").read_text(encoding="utf-8")
    (home / "services").mkdir(parents=True)
    (home / "services" / f"{service}.yaml").write_text(re.sub(r"audit: [\d.]+", "audit: 1.0", text), encoding="utf-8")


def check(result: dict[str, Any], service: str, nodes: int) -> None:
    """What holds for every run with a round of wrong labels."""
    assert result["service"] == service
    assert all(set(r) >= KEYS for r in result["rounds"])
    wrong = [r for r in result["rounds"] if r["wrong_labels"]]
    assert len(wrong) == 1
    assert not wrong[0]["promoted"]
    assert wrong[0]["candidate_accuracy"] < wrong[0]["champion_accuracy"]
    assert sum(r["promoted"] for r in result["rounds"]) >= 2
    assert result["accuracy"]["last"] > result["accuracy"]["first"]
    check_fleet(result, nodes)


def check_fleet(result: dict[str, Any], nodes: int) -> None:
    assert len(result["fleet"]) == nodes
    assert {n["ring"] for n in result["fleet"]} == {0, 1}
    assert len({n["serving"] for n in result["fleet"]}) == 1
    assert all(n["serving"] == n["wanted"] for n in result["fleet"])


def check_table(tables: Tables, service: str, result: dict[str, Any]) -> None:
    """Every sample that a node said it captured is in the table, once."""
    rows = [r for r in tables.read("samples", ["sample_id", "device"]) if r["device"] != "reference"]
    assert len(rows) == len({r["sample_id"] for r in rows})
    assert len(rows) == sum(r["sent"] for r in result["rounds"])


def check_splits(home: Path, service: str) -> None:
    """Pool, gate and test are disjoint by group, and only people's labels judge."""
    store = DirectoryStore(home / "store")
    tables = Tables(service, store.table)
    members = members_of(tables, service, freeze(store, tables, service).tables)
    groups = {r["sample_id"]: r["group"] for r in tables.read("samples", ["sample_id", "group"])}
    by_split = {s: {groups[m.sample_id] for m in members if m.split == s} for s in ("pool", "gate", "test")}
    assert all(by_split.values())
    assert not by_split["pool"] & by_split["gate"]
    assert not by_split["pool"] & by_split["test"]
    assert not by_split["gate"] & by_split["test"]
    assert {m.source for m in members if m.split != "pool"} == {"human"}
