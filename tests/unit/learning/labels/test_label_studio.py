"""What goes to Label Studio comes back as the same answers; every other file is refused with where it is wrong."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.learning.labels.label_studio import (
    ForeignExport,
    labelling_config,
    read_export,
    tasks_of,
    write_tasks,
)
from edgeloop.learning.labels.queue import Asked, Request
from edgeloop.samples.service import Service
from tests.unit.samples.make import classifier, looker, picture, regressor, sample

ASKED = Asked(purpose="judge", why="random", probability=0.25)
AT = "2024-05-02T08:00:00.250000Z"


def requests(count: int = 1) -> list[Request]:
    return [Request(sample_id=sample(i).sample_id, asked=ASKED) for i in range(count)]


def payloads(count: int = 1) -> dict[str, bytes]:
    return {sample(i).sample_id: sample(i).payload for i in range(count)}


def annotated(task: dict[str, Any], value: dict[str, Any], kind: str, **changes: Any) -> dict[str, Any]:
    """The task as Label Studio exports it after one person answered."""
    result = {"from_name": "label", "to_name": "input", "id": "x", "type": kind, "value": value}
    note = {"id": 1, "completed_by": 7, "was_cancelled": False, "created_at": AT, "updated_at": AT, "result": [result]}
    return {"id": 3, "annotations": [note | changes], "predictions": [], **task}


def export(path: Path, *tasks: Any) -> Path:
    path.write_text(json.dumps(tasks), encoding="utf-8")
    return path


def sorted_as(text: str, **changes: Any) -> dict[str, Any]:
    [task] = tasks_of(classifier(), requests(), payloads())
    task["data"]["service"] = "sorter"
    return annotated(task, {"choices": [text]}, "choices", **changes)


@pytest.mark.parametrize(
    ("service", "kind", "value", "text"),
    [
        (classifier(), "choices", {"choices": ["y"]}, "y"),
        (regressor(), "number", {"number": 7}, "7"),
        (regressor(), "number", {"number": 2.5}, "2.5"),
    ],
)
def test_a_round_trip(tmp_path: Path, service: Service, kind: str, value: dict[str, Any], text: str) -> None:
    path = tmp_path / "tasks.json"
    write_tasks(path, tasks_of(service, requests(3), payloads(3)))
    tasks = json.loads(path.read_text(encoding="utf-8"))
    assert tasks[1]["data"]["input"] == {"a": 1.0, "b": 1.0}
    assert list(tmp_path.iterdir()) == [path]
    done = [annotated(tasks[0], value, kind), tasks[1] | {"annotations": []}, annotated(tasks[2], value, kind)]
    found = read_export(export(path, *done), service)
    assert (found.tasks, found.unanswered) == (3, 1)
    assert {x.sample_id for x in found.labels} == {sample(0).sample_id, sample(2).sample_id}
    for one in found.labels:
        assert (one.label, one.source, one.by, one.service) == (text, "human", "label-studio:7", service.name)
        assert one.at.isoformat() == "2024-05-02T08:00:00.250000+00:00"
        assert one.__pydantic_extra__ == {"asked": ASKED.model_dump()}
    assert read_export(path, service) == found, "the same file twice says the same"


@pytest.mark.parametrize(("kind", "media"), [("PNG", "image/png"), ("JPEG", "image/jpeg")])
def test_images_travel_inside_the_tasks(kind: str, media: str) -> None:
    shown = picture(1, kind=kind)
    [task] = tasks_of(looker(), requests(), {sample(0).sample_id: shown})
    head, _, body = task["data"]["input"].partition(",")
    assert head == f"data:{media};base64"
    assert base64.b64decode(body) == shown


def test_the_labelling_interface_has_every_label() -> None:
    tree = ET.fromstring(labelling_config(looker(labels=["cat & dog", '"none"'])))
    assert [c.get("value") for c in tree.iter("Choice")] == ["cat & dog", '"none"']
    assert tree.find("Image") is not None
    assert ET.fromstring(labelling_config(regressor())).find("Number") is not None


@pytest.mark.parametrize(
    ("who", "by"),
    [
        (7, "label-studio:7"),
        ("ann", "ann"),
        ({"id": 7, "email": "ann@example.com"}, "ann@example.com"),
        ({"id": 7}, "label-studio:7"),
        (None, "someone"),
    ],
)
def test_who_answered(tmp_path: Path, who: Any, by: str) -> None:
    path = export(tmp_path / "f.json", sorted_as("y", completed_by=who))
    assert [x.by for x in read_export(path, classifier(), "someone").labels] == [by]


def test_skipped_annotations_are_no_answers(tmp_path: Path) -> None:
    tasks = [sorted_as("y", was_cancelled=True), sorted_as("y", result=[])]
    found = read_export(export(tmp_path / "f.json", *tasks), classifier())
    assert (found.labels, found.unanswered) == ([], 2)


def test_a_corrected_annotation_is_a_newer_answer(tmp_path: Path) -> None:
    first = read_export(export(tmp_path / "a.json", sorted_as("y")), classifier()).labels[0]
    later = sorted_as("x", updated_at="2024-05-02T09:00:00Z")
    assert read_export(export(tmp_path / "b.json", later), classifier()).labels[0].at > first.at


def broken(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    task = sorted_as("y")
    change(task)
    return task


def note(**values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda task: task["annotations"][0].update(values)


def result(**values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda task: task["annotations"][0]["result"][0].update(values)


def data(**values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda task: task["data"].update(values)


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (broken(lambda t: t.pop("data")), "task 2 has no field data"),
        (broken(lambda t: t["data"].pop("sample_id")), r"task 2, field data has no field sample_id"),
        (broken(data(sample_id=5)), r"task 2, field data.sample_id is 5, not a text"),
        (broken(data(service="rater")), r"data.service is 'rater', not sorter"),
        (broken(data(asked={"purpose": "learn", "why": "random", "probability": 3})), r"data.asked.probability Input"),
        (broken(data(asked=5)), r"data.asked Input"),
        (broken(lambda t: t.pop("annotations")), "task 2 has no field annotations"),
        (broken(lambda t: t.update(annotations=["x"])), "task 2, annotation 1 is 'x', not an object"),
        (broken(note(result="y")), "annotation 1, field result is 'y', not a list"),
        (broken(note(result=[5])), r"field result.0 is 5, not an object"),
        (broken(lambda t: t["annotations"][0]["result"].append({})), "result has 2 answers"),
        (broken(result(type="rectanglelabels")), r"result.0.type is 'rectanglelabels', not choices"),
        (broken(result(value={"number": 5})), r"result.0.value has no field choices"),
        (broken(result(value={"choices": ["x", "y"]})), r"value.choices is \['x', 'y'\], not one label"),
        (broken(result(value={"choices": [["x"]]})), "not one label"),
        (broken(result(value={"choices": ["w"]})), "task 2, annotation 1, field result: label 'w' is not one of"),
        (broken(note(completed_by=None)), "field completed_by is None, not a person: name one with --by"),
        (broken(note(completed_by=True)), "completed_by is True"),
        (broken(note(updated_at="yesterday")), "field updated_at is 'yesterday', not a time"),
        (broken(note(updated_at=None, created_at=None)), "field created_at is None, not a text"),
        (broken(note(updated_at="2024-05-02T08:00:00")), "without a time zone"),
        ("task", "task 2 is 'task', not an object"),
    ],
)
def test_a_malformed_task_is_refused_with_its_field(tmp_path: Path, task: Any, said: str) -> None:
    path = export(tmp_path / "f.json", sorted_as("y"), task)
    with pytest.raises(ForeignExport, match=said) as refused:
        read_export(path, classifier())
    assert str(refused.value).startswith(f"{path}: task 2")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("number", ["5", True, None, [1]])
def test_what_is_no_number_is_refused(tmp_path: Path, number: Any) -> None:
    [task] = tasks_of(regressor(), requests(), payloads())
    path = export(tmp_path / "f.json", annotated(task, {"number": number}, "number"))
    with pytest.raises(ForeignExport, match=r"value.number is .*, not a number"):
        read_export(path, regressor())


@pytest.mark.parametrize("content", [b"", b"not JSON", b"\xff\xfe", b'{"a": 1}', b"[" * 100_000])
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "f.json"
    path.write_bytes(content)
    with pytest.raises(ForeignExport, match="export as JSON"):
        read_export(path, classifier())


def test_files_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ForeignExport, match="cannot be read"):
        read_export(tmp_path / "none.json", classifier())
    with pytest.raises(ForeignExport, match="cannot be written"):
        write_tasks(tmp_path / "none" / "f.json", [])


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["data", "sample_id", "service", "asked", "annotations", "result", "value", "type"]), inner
        )
    ),
    max_leaves=8,
)


@given(st.lists(ANY, max_size=3))
def test_any_other_json_is_refused_or_says_nothing(tmp_path_factory: pytest.TempPathFactory, tasks: list[Any]) -> None:
    path = export(tmp_path_factory.getbasetemp() / "any.json", *tasks)
    try:
        assert read_export(path, classifier()).labels == []
    except ForeignExport as refused:
        assert "\n" not in str(refused)
