"""Learning on the real stack: drift asks for one retrain; a champion that is gone costs a round, never the alias."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from edgeloop.learning.drift.acting import act
from edgeloop.learning.drift.kept import load_state
from edgeloop.learning.rounds import load_round
from edgeloop.samples.payloads import decode_features, encode_features
from edgeloop.samples.releases import blob_key
from edgeloop.sources.streams import Item
from edgeloop.store import FleetStore
from tests.e2e.fleet import SERVICE, Fleet, wine_fleet

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Iterator[Fleet]:
    with wine_fleet(tmp_path_factory.mktemp("learning") / "home", shared / "datasets" / "wine") as made:
        yield made


def finished(fleet: Fleet, deployment: str, **parameters: object) -> str:
    """Run a deployment, wait for it, and return the run's id."""
    run = fleet.app.orchestrator.run(deployment, parameters)
    state = fleet.app.orchestrator.wait(run, timeout=120)
    assert state.succeeded, state
    return run


def sweetened(fleet: Fleet, item: Item) -> Item:
    """The same wine with far more sugar than any of the reference."""
    names = fleet.service.feature_names
    row = decode_features(item.payload, names)
    row[names.index("residual sugar")] += 50
    return replace(item, payload=encode_features(row.tolist()))


def runs_for_drift(fleet: Fleet) -> list[dict[str, Any]]:
    """Flow runs that a finding asked for."""
    # By their parameters: a run gets its name when it begins.
    url = f"{fleet.stack.addresses['prefect']}/flow_runs/filter"
    reply = httpx.post(url, json={"sort": "START_TIME_DESC"}, timeout=30).raise_for_status()
    return [run for run in reply.json() if str(run["parameters"].get("reason")).startswith("drift: ")]


def test_drift_asks_for_one_retrain_and_promotes_nothing(fleet: Fleet) -> None:
    before = fleet.app.registry.champion(SERVICE)
    assert before is not None
    fleet.items = iter([sweetened(fleet, fleet.take(1)[0]) for _ in range(200)] + list(fleet.items))
    fleet.stream(200)
    finished(fleet, "ingest/ingest", service=SERVICE)
    finished(fleet, "monitor/monitor")
    (run,) = runs_for_drift(fleet)
    assert run["parameters"]["service"] == SERVICE
    assert fleet.app.orchestrator.wait(run["id"], timeout=120).succeeded
    kept = load_state(fleet.app.store, SERVICE)
    assert kept is not None and kept[0].findings
    assert act(fleet.app.fleet, fleet.app.orchestrator, kept[0]) == [], "the ledger knows"
    forgetful = FleetStore("sqlite://")  # cut off before the ledger was written: the key leads to the same run
    assert act(forgetful, fleet.app.orchestrator, kept[0]) == [run["id"]]
    forgetful.close()
    assert len(runs_for_drift(fleet)) == 1
    rows = fleet.events("drift")
    assert any("residual sugar" in row["reason"] for row in rows)
    assert all(row["reason"].endswith(f"; asked for run {run['id']}") for row in rows)
    assert "residual sugar" in fleet.artifact(f"drift-{SERVICE}")
    record = load_round(fleet.app.store, SERVICE, run["id"])
    assert record.promotion is not None
    after = fleet.app.registry.champion(SERVICE)
    assert after is not None
    assert (after.version == before.version) is not (record.promotion.verdict == "pass"), "the gate alone promotes"


def test_a_champion_whose_blob_is_gone_stays_and_is_judged_against_when_it_is_back(fleet: Fleet) -> None:
    champion = fleet.app.registry.champion(SERVICE)
    assert champion is not None
    key = blob_key(champion.layers["model"])
    blob = fleet.app.store.get(key)
    fleet.stream(60)
    versions = fleet.versions()
    fleet.app.store.delete(key)
    record = fleet.loop(attempts=1)
    assert record.promotion is not None and record.evaluation is not None
    assert (record.promotion.verdict, record.promotion.version) == ("inconclusive", "none")
    assert record.evaluation.damage is not None and f"version {champion.version}" in record.evaluation.damage
    assert fleet.events("gate")[0]["verdict"] == "inconclusive"
    assert fleet.artifact(f"gate-{SERVICE}").startswith("## inconclusive: champion version")
    assert fleet.versions() == versions
    still = fleet.app.registry.champion(SERVICE)
    assert still is not None and still.version == champion.version
    fleet.app.store.put(key, blob)
    mended = fleet.loop(attempts=1)
    assert mended.promotion is not None and mended.evaluation is not None
    assert mended.evaluation.damage is None
    assert mended.promotion.former == champion.version
    assert mended.promotion.version in {v["version"] for v in fleet.versions()}
    fleet.check()
