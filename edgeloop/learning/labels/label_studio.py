"""The queue as Label Studio's tasks, and its JSON export as answers, for whoever labels in a browser.

Format: Label Studio's documentation, "Label Studio JSON format of annotated tasks". A file is taken whole or not at
all, and the same file twice changes nothing: an answer's time is the annotation's.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from pydantic import ValidationError

from edgeloop.errors import BadInput
from edgeloop.learning.labels.answers import ImpossibleLabel, NoName, apart, make_label
from edgeloop.learning.labels.queue import Asked, Request
from edgeloop.samples.payloads import decode_features
from edgeloop.samples.records import Label, canonical
from edgeloop.samples.service import Service


class ForeignExport(BadInput):
    """A file is no Label Studio export of tasks that edgeloop made; the message names file, task and field."""


@dataclass(frozen=True)
class Imported:
    """What a Label Studio export says."""

    labels: list[Label]
    tasks: int
    unanswered: int
    """Tasks without an answer: not annotated, skipped or left empty."""


def tasks_of(service: Service, requests: Sequence[Request], payloads: Mapping[str, bytes]) -> list[dict[str, Any]]:
    """Label Studio tasks of a queue; images as data URIs, rows by feature name.

    No predictions go along: people who see one agree with it too often.

    Args:
        service: that the samples are of.
        requests: the queue.
        payloads: raw input by sample id.
    """
    return [
        {
            "data": {
                "service": service.name,
                "sample_id": one.sample_id,
                "asked": one.asked.model_dump(),
                "input": _shown(service, payloads[one.sample_id]),
            }
        }
        for one in requests
    ]


def _shown(service: Service, payload: bytes) -> str | dict[str, float]:
    if service.image is None:
        row = decode_features(payload, service.feature_names)
        return {n: float(v) for n, v in zip(service.feature_names, row, strict=True)}
    return f"data:{media_type(payload)};base64,{base64.b64encode(payload).decode()}"


def media_type(payload: bytes) -> str:
    """``image/png`` or ``image/jpeg``, by the first bytes."""
    return "image/png" if payload.startswith(b"\x89PNG") else "image/jpeg"


def labelling_config(service: Service) -> str:
    """The labelling interface to paste into a Label Studio project of this service."""
    shown = (
        '  <Table name="input" value="$input"/>' if service.image is None else '  <Image name="input" value="$input"/>'
    )
    if not service.is_classifier:
        return f'<View>\n{shown}\n  <Number name="label" toName="input" step="any" required="true"/>\n</View>'
    choices = "\n".join(f"    <Choice value={quoteattr(x)}/>" for x in service.labels or [])
    head = '  <Choices name="label" toName="input" choice="single" required="true">'
    return f"<View>\n{shown}\n{head}\n{choices}\n  </Choices>\n</View>"


def write_tasks(path: Path, tasks: Sequence[dict[str, Any]]) -> None:
    """Write tasks as one JSON file, whole or not at all; raises ForeignExport where that cannot be."""
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_bytes(canonical(list(tasks)))
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ForeignExport(f"{path} cannot be written ({error.strerror}): name another file") from error


def read_export(path: Path, service: Service, by: str | None = None) -> Imported:
    """Answers in a Label Studio JSON export.

    Args:
        path: of the file.
        service: that its samples are of.
        by: who answered where an annotation does not say.

    Raises:
        ForeignExport: the file, a task or a field is not what it must be.
    """
    tasks = _load(path)
    labels: list[Label] = []
    unanswered = 0
    for number, task in enumerate(tasks, 1):
        place = f"{path}: task {number}"
        given = _answers(_Part(place, task), service, by)
        unanswered += not given
        labels += given
    return Imported(apart(labels), len(tasks), unanswered)


def _load(path: Path) -> list[Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ForeignExport(f"{path} cannot be read ({error.strerror}): name a file that can") from error
    except (ValueError, RecursionError) as error:
        raise ForeignExport(f"{path} is not JSON ({' '.join(str(error).split())[:100]}): export as JSON") from error
    if not isinstance(value, list):
        raise ForeignExport(f"{path} is a JSON {type(value).__name__}, not a list of tasks: export as JSON")
    return value


@dataclass(frozen=True)
class _Part:
    """One value of a file, with where it stands."""

    place: str
    value: Any

    def refuse(self, what: str, step: str = "export as JSON, from tasks that edgeloop wrote") -> ForeignExport:
        return ForeignExport(f"{self.place} {what}: {step}")

    def field(self, name: str, kind: type, before: str = ", field ") -> _Part:
        """The value of a field, which must be of ``kind``; ``before`` stands between the place of this part and its."""
        if not isinstance(self.value, dict):
            raise self.refuse(f"is {self.value!r:.40}, not an object")
        if name not in self.value:
            raise self.refuse(f"has no field {name}")
        found = _Part(f"{self.place}{before}{name}", self.value[name])
        if not isinstance(found.value, kind):
            raise found.refuse(f"is {found.value!r:.40}, not {_KINDS[kind]}")
        return found


_KINDS: dict[type, str] = {dict: "an object", list: "a list", str: "a text"}


def _answers(task: _Part, service: Service, by: str | None) -> list[Label]:
    data = task.field("data", dict)
    sample, of = data.field("sample_id", str, "."), data.field("service", str, ".")
    if of.value != service.name:
        raise of.refuse(f"is {of.value!r:.60}, not {service.name}", "import it for the service that it is of")
    asked = _asked(data)
    found: list[Label] = []
    for number, value in enumerate(task.field("annotations", list).value, 1):
        note = _Part(f"{task.place}, annotation {number}", value)
        results = note.field("result", list)
        if not results.value or note.value.get("was_cancelled"):
            continue
        if len(results.value) != 1:
            raise results.refuse(f"has {len(results.value)} answers", "ask for one label per sample")
        text = _text(_Part(f"{results.place}.0", results.value[0]), service)
        try:
            found.append(make_label(service, sample.value, text, _person(note, by), asked, _at(note)))
        except (ImpossibleLabel, NoName) as error:
            raise ForeignExport(f"{results.place}: {error}") from error
    return found


def _asked(data: _Part) -> Asked | None:
    if data.value.get("asked") is None:
        return None
    try:
        return Asked.model_validate(data.value["asked"])
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(("asked", *map(str, first["loc"])))
        raise ForeignExport(f"{data.place}.{path} {first['msg']}: leave it as edgeloop wrote it") from error


def _text(result: _Part, service: Service) -> str:
    """The label in one result: the only choice, or the number."""
    kind = result.field("type", str, ".")
    wanted = "choices" if service.is_classifier else "number"
    if kind.value != wanted:
        raise kind.refuse(f"is {kind.value!r:.40}, not {wanted}", f"label {service.name} with its own interface")
    value = result.field("value", dict, ".")
    if not service.is_classifier:
        number = value.value.get("number")
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise _Part(f"{value.place}.number", number).refuse(f"is {number!r:.40}, not a number", "answer again")
        return str(number)
    choices = value.field("choices", list, ".")
    if len(choices.value) != 1 or not isinstance(choices.value[0], str):
        raise choices.refuse(f"is {choices.value!r:.60}, not one label", "let people choose one")
    return str(choices.value[0])


def _person(note: _Part, by: str | None) -> str:
    """Who annotated: a name or e-mail address as it is, a number as ``label-studio:NUMBER``."""
    who = note.value.get("completed_by")
    if isinstance(who, dict):
        who = who.get("email") or who.get("username") or who.get("id")
    if isinstance(who, int) and not isinstance(who, bool):
        return f"label-studio:{who}"
    if isinstance(who, str) and who.strip():
        return who
    if who is None and by:
        return by
    raise _Part(f"{note.place}, field completed_by", who).refuse(f"is {who!r:.40}, not a person", "name one with --by")


def _at(note: _Part) -> datetime:
    """When the annotation was last changed: an answer that was corrected since is another one."""
    name = "updated_at" if note.value.get("updated_at") is not None else "created_at"
    found = note.field(name, str)
    try:
        at = datetime.fromisoformat(found.value)
    except ValueError as error:
        raise found.refuse(f"is {found.value!r:.40}, not a time") from error
    if at.tzinfo is None:
        raise found.refuse(f"is {found.value!r:.40}, without a time zone")
    return at
