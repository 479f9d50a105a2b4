"""``edgeloop label``: from a queue to answers that ingest takes, by hand and by file."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgeloop.bootstrap import App
from edgeloop.cli import main
from edgeloop.clients.registry import Entry, MemoryRegistry
from edgeloop.commands.labelling import Terminal
from edgeloop.learning.labels.answers import all_labels
from edgeloop.learning.labels.waiting import build_queue
from edgeloop.quality.ingest import ingest
from edgeloop.samples.records import Sample
from edgeloop.samples.service import Service
from edgeloop.settings import load_settings
from tests.unit.learning.labels.world import World
from tests.unit.samples.make import classifier, label, looker, picture, regressor, sample


class Desk(World):
    """A home on disk with a service, and somebody who types."""

    def __init__(self, home: Path, service: Service, count: int) -> None:
        folder = home / "services"
        folder.mkdir(parents=True)
        value = yaml.safe_dump(service.model_dump(mode="json", exclude_none=True, exclude_defaults=True))
        (folder / f"{service.name}.yaml").write_text(f"version: 1\n{value.replace('version: 1', '')}", encoding="utf-8")
        self.home = home
        super().__init__(service, App(load_settings(home)).store)
        self.samples: list[Sample] = [sample(i, service.name) for i in range(count)]
        if service.image:
            self.samples = [s.model_copy(update={"payload": picture(1)}) for s in self.samples]
        self.add(self.samples)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EDGELOOP_STORE", "EDGELOOP_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("EDGELOOP_MLFLOW", "http://127.0.0.1:1")  # nobody listens there


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs ``label`` with lines typed: (exit code, the JSON on stdout, stderr)."""

    def run(desk: Desk, *words: str, lines: str = "") -> tuple[int, Any, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(lines))
        with pytest.raises(SystemExit) as ended:
            main(["--home", str(desk.home), "--json", "label", desk.service.name, *words])
        said = capsys.readouterr()
        return int(str(ended.value.code or 0)), json.loads(said.out), said.err

    return run


def test_answers_by_number_and_by_name(tmp_path: Path, typed: Any) -> None:
    desk = Desk(tmp_path, classifier(), 12)
    code, found, said = typed(desk, "--by", "ann", "--count", "5", lines="2\nw\nz\ns\nq\n")
    assert code == 0, said
    assert (found["answered"], found["skipped"], found["left"]) == (2, 1, 2)
    assert [x["label"] for x in found["labels"]] == ["y", "z"]
    assert {x["by"] for x in found["labels"]} == {"ann"}
    assert "answer with 1 x, 2 y, 3 z; s skips, q quits" in said
    assert "'w' is not one of" in said
    assert "  a = " in said
    assert ingest(desk.store, desk.tables, desk.service).labels == 2


def test_every_answer_is_durable_before_the_next_question(tmp_path: Path) -> None:
    desk = Desk(tmp_path, classifier(), 12)
    requests = build_queue(desk.store, desk.tables, desk.service, "ann", 3, 0)
    kept: list[int] = []

    def read() -> str:
        kept.append(len(all_labels(desk.store, desk.tables, desk.service)))
        return "x"

    payloads = {s.sample_id: s.payload for s in desk.samples}
    Terminal(desk.store, desk.service, "ann", tmp_path, read).ask(requests, payloads)
    assert kept == [0, 1, 2]


def test_the_end_of_the_input_quits_and_the_next_sitting_asks_others(tmp_path: Path, typed: Any) -> None:
    desk = Desk(tmp_path, regressor(), 12)
    first = typed(desk, "--by", "ann", lines="4\n11\n5.5\n")[1]
    assert [x["label"] for x in first["labels"]] == ["4", "5.5"]
    second = typed(desk, "--by", "ann", "--count", "50", lines="4\n" * 50)[1]
    both = [x["sample_id"] for x in first["labels"] + second["labels"]]
    assert len(both) == len(set(both)) == 12
    code, found, _ = typed(desk, "--by", "ann")
    assert code == 2
    assert "nothing to label for rater: of 12 samples 12 are labelled" in found["error"]


def test_bytes_that_are_no_text_are_no_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(tmp_path, classifier(), 8)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe\nx\n"), encoding="utf-8"))
    with pytest.raises(SystemExit):
        main(["--home", str(desk.home), "--json", "label", "sorter", "--by", "ann"])
    assert json.loads(capsys.readouterr().out)["answered"] == 1


def test_labels_that_are_numbers_or_commands_are_taken_by_name(tmp_path: Path, typed: Any) -> None:
    desk = Desk(tmp_path, classifier(labels=["1", "0", "s"]), 8)
    _, found, said = typed(desk, "--by", "ann", lines="1\n0\ns\n/s\nq\n")
    assert [x["label"] for x in found["labels"]] == ["1", "0", "s"]
    assert found["skipped"] == 1
    assert "answer with 1, 0, s; /s skips, q quits" in said


def test_an_image_is_shown_as_a_file_that_goes_away(tmp_path: Path, typed: Any) -> None:
    desk = Desk(tmp_path, looker(), 8)
    _, found, said = typed(desk, "--by", "ann", "--count", "1", lines="cat\n")
    assert found["answered"] == 1
    [path] = [Path(line.strip()) for line in said.splitlines() if line.endswith(".jpeg")]
    assert path.name == f"{found['labels'][0]['sample_id'][:12]}.jpeg"
    assert not path.parent.exists()


def test_a_queue_goes_through_label_studio(tmp_path: Path, typed: Any) -> None:
    desk = Desk(tmp_path / "home", classifier(), 12)
    path = tmp_path / "tasks.json"
    code, found, _ = typed(desk, "--export", str(path), "--count", "4", "--seed", "3")
    assert (code, found["tasks"]) == (0, 4)
    assert '<Choice value="x"/>' in found["labelling_config"]
    tasks = json.loads(path.read_text(encoding="utf-8"))
    value = {"from_name": "label", "to_name": "input", "type": "choices", "value": {"choices": ["z"]}}
    for number, task in enumerate(tasks):
        at = f"2024-05-02T08:00:0{number}Z"
        task["annotations"] = [{"completed_by": 1, "created_at": at, "result": [value]}]
    path.write_text(json.dumps(tasks), encoding="utf-8")
    for _ in range(2):
        code, found, _ = typed(desk, "--import", str(path))
        assert (code, found["answered"], found["people"]) == (0, 4, ["label-studio:1"])
    assert ingest(desk.store, desk.tables, desk.service).labels == 4
    tasks[0]["data"]["sample_id"] = "nobody"
    path.write_text(json.dumps(tasks), encoding="utf-8")
    code, found, _ = typed(desk, "--import", str(path))
    assert code == 2 and "1 of 4 samples, nobody among them" in found["error"]
    assert list(desk.store.list("labels/")) == []


def test_agreement_is_printed(tmp_path: Path, typed: Any, capsys: pytest.CaptureFixture[str]) -> None:
    desk = Desk(tmp_path, classifier(), 3)
    first, second, _ = desk.samples
    desk.send(label(first, "x", by="ann"), label(first, "x", by="bob", seconds=1))
    desk.send(label(second, "x", by="ann"), label(second, "y", by="bob", seconds=1))
    _, found, _ = typed(desk, "--agreement")
    assert [(p["people"], p["agreed"], p["samples"]) for p in found["pairs"]] == [(["ann", "bob"], 1, 2)]
    with pytest.raises(SystemExit):
        main(["--home", str(desk.home), "label", "sorter", "--agreement"])
    said = capsys.readouterr().out
    assert "ann: x, bob: y" in said
    assert "0.500" in said


def test_conflicts_are_printed(tmp_path: Path, typed: Any, capsys: pytest.CaptureFixture[str]) -> None:
    desk = Desk(tmp_path, looker(), 3)
    first, second, third = desk.samples
    desk.send(label(first, "cat", by="ann"), label(first, "dog", by="bob", seconds=1), label(second, "cat"))
    _, found, _ = typed(desk, "--conflicts")
    assert [c["sample_id"] for c in found["people"]] == [first.sample_id]
    assert [set(t["labels"]) for t in found["twins"]] == [{first.sample_id, second.sample_id}]
    with pytest.raises(SystemExit):
        main(["--home", str(desk.home), "label", "looker", "--conflicts"])
    said = capsys.readouterr().out
    assert "1 samples of looker on which people differ, 0 on which devices do, 1 inputs" in said
    assert "ann: cat, bob: dog" in said
    assert third.sample_id[:12] not in said


def test_the_queue_is_as_long_as_the_service_says(tmp_path: Path, typed: Any) -> None:
    desk = Desk(tmp_path, classifier(labelling={"count": 3}), 12)
    assert typed(desk, "--by", "ann", lines="q\n")[1]["left"] == 3
    _, found, said = typed(desk, "--by", "ann", "--count", "5", lines="q\n")
    assert found["left"] == 5
    assert "the champion is not asked what it doubts (MLflow at" in said


def test_the_champion_is_asked_and_the_round_begins_with_the_last_decision(
    tmp_path: Path, typed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(tmp_path, classifier(labelling={"per_round": 1}), 12)
    registry, asked = MemoryRegistry(), []
    values: dict[str, Any] = {"params": {}, "metrics": {}, "description": "test"}
    entry = Entry(service="sorter", key="sha256:a", dataset="sha256:d", layers={"model": "sha256:m"}, **values)
    version = registry.register(entry, None, Path())  # type: ignore[arg-type]
    registry.set_champion("sorter", version.version)
    monkeypatch.setattr("edgeloop.bootstrap.MlflowRegistry", lambda url: registry)

    def spy(*args: Any, **options: Any) -> Any:
        asked.append(options["champion"])
        return build_queue(*args, **options)

    monkeypatch.setattr("edgeloop.learning.labels.waiting.build_queue", spy)
    assert typed(desk, "--by", "ann", lines="x\nx\n")[1]["answered"] == 1
    assert asked == [{"model": "sha256:m"}]
    assert "labelling.per_round is 1" in typed(desk, "--by", "ann")[1]["error"]
    fleet = App(load_settings(tmp_path)).fleet
    fleet.record("sorter", "gate", "sha256:a", verdict="fail", reason="no gain", dataset="sha256:d", who="gate")
    fleet.close()
    assert typed(desk, "--by", "ann", lines="x\nx\n")[1]["answered"] == 1


def test_a_round_that_could_not_be_judged_ends_the_budget_of_a_round(tmp_path: Path, typed: Any) -> None:
    desk = Desk(tmp_path, classifier(labelling={"per_round": 1}), 12)
    assert typed(desk, "--by", "ann", lines="x\n")[1]["answered"] == 1
    assert "labelling.per_round is 1" in typed(desk, "--by", "ann")[1]["error"]
    fleet = App(load_settings(tmp_path)).fleet
    fleet.record("sorter", "gate", "sha256:a", verdict="inconclusive", reason="damaged", who="gate")
    fleet.close()
    assert typed(desk, "--by", "ann", lines="x\n")[1]["answered"] == 1


def test_a_spent_budget_is_said(tmp_path: Path, typed: Any) -> None:
    desk = Desk(tmp_path, classifier(labelling={"per_day": 2}), 12)
    assert typed(desk, "--by", "ann", lines="x\nx\nx\n")[1]["answered"] == 2
    code, found, _ = typed(desk, "--by", "ann")
    assert code == 2
    assert "2 answers were given and labelling.per_day is 2" in found["error"]


def test_pseudo_labels_are_allowed_again_by_name(tmp_path: Path, typed: Any) -> None:
    desk = Desk(tmp_path, classifier(), 1)
    assert typed(desk, "--allow-pseudo", "--by", "ann")[1] == {"service": "sorter", "by": "ann", "allowed": False}
    fleet = App(load_settings(tmp_path)).fleet
    fleet.record("sorter", "pseudo", "sha256:a", verdict="off", reason="a drop", version="3", who="audit")
    code, found, _ = typed(desk, "--allow-pseudo")
    assert code == 2 and "nobody is named" in found["error"]
    assert typed(desk, "--allow-pseudo", "--by", "ann")[1]["allowed"] is True
    row = fleet.newest("sorter", "pseudo")
    assert row is not None
    assert (row["verdict"], row["who"], row["version"]) == ("on", "ann", "3")
    fleet.close()


def test_bad_input(tmp_path: Path, typed: Any) -> None:
    desk = Desk(tmp_path, classifier(), 0)
    for words, part in [
        ([], "nobody is named: say who answers with --by NAME"),
        (["--by", " "], "nobody is named"),
        (["--by", "ann"], "it has no samples yet"),
        (["--agreement", "--import", "f"], "--import and --agreement cannot be used together"),
        (["--import", str(tmp_path / "none.json")], "cannot be read"),
        (["--count", "0"], "--count"),
    ]:
        code, found, _ = typed(desk, *words)
        assert code == 2
        assert part in found["error"]
