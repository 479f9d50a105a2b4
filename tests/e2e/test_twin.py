"""Releases on a real confined node: a good one passes, and each way of being bad is refused for its own reason."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeloop.bootstrap import App
from edgeloop.cli import main
from edgeloop.clients.objects import DirectoryStore, open_store
from edgeloop.clients.registry import MemoryRegistry, ModelVersion
from edgeloop.promotion.reconcile import reconcile
from edgeloop.quality.validate import validate
from edgeloop.release.build import build_release
from edgeloop.samples.dataset import freeze
from edgeloop.samples.payloads import encode_features
from edgeloop.samples.records import Label, Sample, digest
from edgeloop.samples.releases import blob_key
from edgeloop.samples.segments import to_row
from edgeloop.samples.service import Service
from edgeloop.samples.table import Tables
from edgeloop.settings import load_settings
from edgeloop.store.database import Database
from edgeloop.twin.kept import Rehearsals, load_report
from edgeloop.twin.run import Parts, rehearse
from tests.e2e.nodes import pets
from tests.unit.samples.make import label, looker, picture, sample
from tests.unit.twin.house import House, onnx, profile

pytestmark = pytest.mark.timeout(120)
#: A node whose models do something to each answer, as a release can that is wrong only under traffic.
_SPOILED = """
import sys, os, time
from edgeloop.clients.models_onnx import OnnxModel
plain = OnnxModel.predict
hoard, asked = [], [0]
def predict(self, payload):
    asked[0] += 1
    if asked[0] > 9:
        {spoil}
    return plain(self, payload)
OnnxModel.predict = predict
from edgeloop.edge.node import main
sys.exit(main())
"""


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def spoiled(folder: Path, spoil: str) -> tuple[str, ...]:
    script = folder / "spoiled.py"
    script.write_text(_SPOILED.format(spoil=spoil), encoding="utf-8")
    return (sys.executable, str(script))


def test_a_good_release_passes_and_is_kept(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGELOOP_STORE", "s3://nowhere")  # the node must not hear of the world outside
    service = house.service
    service = service.model_copy(update={"delivery": service.delivery.model_copy(update={"twin": _with_load(house)})})
    release = house.release()
    found = rehearse(house.parts(load_seconds=4), service, release, profile())
    assert (found.outcome, found.reasons) == ("pass", [])
    assert (found.source, found.inputs, found.errors, found.agreement, found.self_check) == (
        "captured",
        40,
        0,
        1.0,
        True,
    )
    assert found.p99_ms and found.p50_ms and found.p50_ms <= found.p99_ms
    assert found.peak_mb and 50 < found.peak_mb < 512
    assert found.confinement and found.confinement.cores == 1
    assert found.load and found.load.holds_at
    (row,) = house.rehearsals.of_release(release.digest)
    assert load_report(house.store, row.report) == found
    assert [info.key for info in house.store.list("channel")] == [], "nothing was approved"
    again = rehearse(house.parts(command=("/does/not/exist",)), service, release, profile())
    assert again == found, "it is not rehearsed twice"


def _with_load(house: House) -> Any:
    return house.service.delivery.twin.model_copy(update={"load": True})


def test_a_variant_that_answers_otherwise_is_refused(house: House) -> None:
    found = rehearse(house.parts(), house.service, house.varied(), profile())
    assert found.outcome == "fail" and found.self_check is True
    assert "min_agreement is 98.0%" in found.reasons[0]


@pytest.mark.parametrize(
    ("spoil", "budgets", "said"),
    [
        ("time.sleep(0.1)", {"latency_ms_p99": 80}, "the budget of bench is 80 ms"),
        ("hoard.append(b'x' * (8 << 20))", {"memory_mb": 256}, "more memory"),
        ("raise RuntimeError('no')", {}, "37 of 40 inputs got no answer"),
        ("os._exit(3)", {}, "the node ended with 3"),
    ],
    ids=["slow", "leaking", "failing", "dying"],
)
def test_a_release_that_is_bad_under_traffic_is_refused(
    house: House, spoil: str, budgets: dict[str, Any], said: str
) -> None:
    parts = house.parts(command=spoiled(house.folder, spoil))
    found = rehearse(parts, house.service, house.release(), profile(**budgets))
    assert found.outcome == "fail"
    assert any(said in reason for reason in found.reasons), found.reasons


def test_a_release_that_does_not_load_is_refused(house: House) -> None:
    release = house.release()
    (model,) = (layer for layer in release.layers if layer.role == "model")
    house.store.put(blob_key(model.digest), b"x" * model.size)
    found = rehearse(house.parts(), house.service, release, profile())
    assert found.outcome == "fail"
    assert found.reasons[0].startswith("the node refused the release: ") and found.inputs == 0


def test_without_traffic_nobody_can_be_sure(tmp_path: Path) -> None:
    house = House(tmp_path, samples=0)
    found = rehearse(house.parts(), house.service, house.release(), profile())
    assert (found.outcome, found.source, found.agreement) == ("inconclusive", "drawn", 1.0)


def test_pictures_are_sent_as_they_are(tmp_path: Path, shared: Path) -> None:
    _, layers = pets(shared)
    values = {"image": {"size": 224}, "delivery": {"twin": {"inputs": 10, "load": False}}}
    service, store = looker(**values), DirectoryStore(tmp_path / "store")
    for data in layers.values():
        store.create(blob_key(digest(data)), data)
    told = {"service": "looker", "version": "1", "key": "sha256:1", "run_id": "r", "dataset": "d"}
    named = {role: digest(data) for role, data in layers.items()}
    release = build_release(store, service, ModelVersion.model_validate({**told, "layers": named}), [picture(1)], {})
    tables = Tables("looker", store.table)
    rows = [to_row(sample(n, "looker", picture(n), prediction="cat", confidence=0.5)) for n in range(12)]
    tables.merge("samples", rows, Sample)
    parts = Parts(store, lambda _: tables, Rehearsals(Database(f"sqlite:///{tmp_path / 'fleet.db'}")))
    board = profile(runtime={"image-classifier": "litert"}, latency_ms_p99=5000)
    found = rehearse(parts, service, release, board)
    assert (found.outcome, found.inputs, found.agreement, found.reasons) == ("pass", 10, 1.0, [])
    assert found.self_check is True


# --- the command

_YAML = """version: 1
name: rater
kind: tabular-regressor
description: rates
features: [{name: a, min: 0, max: 10}, {name: b}]
target: {name: y, min: 0, max: 10}
delivery: {twin: {inputs: 30, load: false, required: true}}
"""
_PROFILE = """version: 1
name: slow-board
description: nothing is quick enough
arch: amd64
runtime: {tabular-regressor: onnx}
cores: 1
memory_mb: 512
latency_ms_p99: 0.001
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with captured samples, a profile, and versions 1 and 2 in the registry."""
    home = tmp_path / "home"
    # The machine of these tests is often late, which is not what they are about.
    patient = _PROFILE.replace("slow-board", "generic-amd64").replace("nothing", "all").replace("0.001", "5000")
    texts = {"services/rater": _YAML, "profiles/slow-board": _PROFILE, "profiles/generic-amd64": patient}
    for name, text in texts.items():
        path = home / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    store = open_store(str(home / "store"))
    tables = Tables("rater", store.table)
    samples = [sample(n, payload=encode_features([n % 10, n / 10])) for n in range(40)]
    tables.merge("samples", [to_row(s) for s in samples], Sample)
    tables.merge("labels", [to_row(label(s, "5")) for s in samples], Label)
    registry = MemoryRegistry()
    monkeypatch.setattr(App, "registry", registry)
    app = app_at(home)
    validate(tables, app.service("rater"), [])
    dataset = freeze(store, tables, "rater").id
    for number, factor in (("1", 1), ("2", 2)):
        data = onnx(factor)
        store.create(blob_key(digest(data)), data)
        values = {"service": "rater", "key": f"sha256:{number}", "run_id": "r", "dataset": dataset}
        registry.versions.append(
            ModelVersion.model_validate({**values, "version": number, "layers": {"model": digest(data)}})
        )
    return home


def app_at(home: Path) -> App:
    return App(load_settings(home))


def command(home: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["--home", str(home), "twin", *words])
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


def test_a_data_scientist_tries_a_version(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = command(home, capsys, "--service", "rater", "--version", "2", "--json")
    told = json.loads(out)
    (report,) = told["reports"]
    assert (code, report["outcome"], report["agreement"], report["source"]) == (0, "pass", 1.0, "captured")
    assert load_report(app_at(home).store, report["report"]).release == told["release"]
    before = report["at"]
    assert json.loads(command(home, capsys, "--service", "rater", "--version", "2", "--json")[1])["reports"] == [report]
    again = json.loads(command(home, capsys, "--service", "rater", "--version", "2", "--again", "--json")[1])
    assert again["reports"][0]["at"] > before
    app = app_at(home)
    assert app.twin.outcome(app.service("rater"), told["release"]) == "pass"
    assert app.channel.show() is None, "nothing was approved"


def test_a_profile_that_the_service_does_not_name_is_tried_on_a_draft(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--service", "rater", "--version", "1", "--profile", "slow-board")
    code, out, err = command(home, capsys, *words)
    assert code == 1 and "slow-board: FAIL" in out and "budget of slow-board is 0.001 ms" in out
    assert "captured inputs" in err
    assert app_at(home).fleet.release_of("rater", "1") is None, "a draft is no release"


# --- before the fleet


def with_profile(home: Path, name: str) -> Service:
    """The service, released for this profile."""
    path = home / "services" / "rater.yaml"
    path.write_text(_YAML.replace("delivery: {", f"delivery: {{profiles: [{name}], "), encoding="utf-8")
    return app_at(home).service("rater")


def test_a_champion_that_fails_on_the_twin_reaches_no_ring(home: Path) -> None:
    service, app = with_profile(home, "slow-board"), app_at(home)
    app.registry.set_champion("rater", "1")
    reconcile(app.promotion, service)
    (last,) = app.promotion.promotions.history("rater")
    assert (last.state, last.closed_by) == ("failed", "twin")
    assert app.fleet.last_rollout("rater") is None and app.channel.show() is None
    assert app.registry.champion("rater") is None
    (row,) = app.rehearsing.rehearsals.of_release(last.release or "")
    assert (row.outcome, row.profile) == ("fail", "slow-board")


def test_a_champion_that_passes_is_signed_with_its_report(home: Path) -> None:
    service, app = app_at(home).service("rater"), app_at(home)
    app.registry.set_champion("rater", "1")
    found = reconcile(app.promotion, service)
    assert (found.state, found.started) == ("released", True)
    (row,) = app.rehearsing.rehearsals.of_release(found.release or "")
    view = app.channel.show()
    assert view is not None and view.services["rater"][0].custom["twin"] == [row.report]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--version", "9"), "9"),
        (("--version", "1", "--profile", "nothing-known"), "unknown profile 'nothing-known'; known: "),
    ],
    ids=["version", "profile"],
)
def test_what_is_not_known_is_one_line(
    home: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    code, out, err = command(home, capsys, "--service", "rater", *words)
    assert code == 2 and out == "" and said in err and err.count("\n") == 1
