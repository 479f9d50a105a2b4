"""A node's log never holds what a device sent, whatever happens to it: a mark in each input is looked for in the log.

What the device itself is told may quote its input; that is between the two.
"""

from __future__ import annotations

import base64
import io
import json
import logging
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeloop.clients.models import Answer, Endpoint, FailedProbe, RemoteModel
from edgeloop.clients.objects import MemoryStore
from edgeloop.edge.logs import JsonLines, Repeats, kind_of
from edgeloop.edge.releases import loading
from edgeloop.edge.releases.loading import Loader
from edgeloop.edge.releases.state import StateFile
from edgeloop.edge.runtime import Loaded
from edgeloop.edge.spool import contents
from edgeloop.edge.spool.frames import encode, frame
from edgeloop.edge.spool.recovery import find_logs
from edgeloop.edge.spool.spool import Limits
from edgeloop.samples.records import Label, Sample, digest
from edgeloop.samples.releases import Layer, Release
from edgeloop.samples.service import ImageInput, NodeConfig, Selection
from tests.contract.peers.scripted import Reply, scripted
from tests.unit.edge.fakes import FEATURES, SERVICE, Bench, FakeModel, config
from tests.unit.edge.faulty_disk import FaultyDisk
from tests.unit.edge.spooled import label, sample
from tests.unit.edge.test_mqtt import Site

AT = datetime(2026, 1, 1, tzinfo=UTC)
MARK = "Zq7xJ"
#: A row that no schema takes, and numbers that look like nothing else in a log.
ROW, NUMBERS = b'{"a": "%s", "b": 1}' % MARK.encode(), b"[0.5, 7.13371337]"
PICTURE = b"\xff\xd8\xff" + MARK.encode() * 20
MARKS = (MARK, MARK.encode().hex(), "WnE3eEo", "7.13371337")


class Log:
    """What the node's handler wrote."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        self.handler = logging.StreamHandler(self.stream)
        self.handler.setFormatter(JsonLines())
        self.handler.addFilter(Repeats())

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]

    def check(self, *messages: str) -> None:
        """These things were logged, and nothing that a device sent."""
        text = self.stream.getvalue()
        assert not [mark for mark in MARKS if mark in text], text
        said = [line["message"] for line in self.lines if datetime.fromisoformat(line["at"])]
        assert set(messages) <= set(said), said


@pytest.fixture
def log() -> Iterator[Log]:
    made, root = Log(), logging.getLogger()
    level = root.level
    root.setLevel(logging.DEBUG)
    root.addHandler(made.handler)
    yield made
    root.removeHandler(made.handler)
    root.setLevel(level)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, grouped=True)
    yield made
    made.close()


@dataclass
class Telltale:
    """Fails with the input in its words, or answers well."""

    fails: bool = True
    sees: bool = True
    labels: tuple[str, ...] | None = ("yes", "no")
    backbone_digest: str | None = None

    def predict(self, payload: bytes) -> Answer:
        if self.fails:
            try:
                raise KeyError(payload.decode(errors="replace"))
            except KeyError as error:
                raise ValueError(f"cannot use {payload!r}") from error
        return Answer("yes", 0.5, (0.5, 0.5), np.array([1, 2], np.float16) if self.sees else None)


def serve(bench: Bench, model: Any, kind: str = "image-classifier", **selection: Any) -> None:
    image, labels = (ImageInput(size=16), ["yes", "no"]) if kind == "image-classifier" else (None, None)
    policy = Selection(audit=1.0, **selection)
    made = NodeConfig(service=SERVICE, kind=kind, image=image, labels=labels, features=FEATURES, selection=policy)
    bench.runtime.switch(SERVICE, Loaded("sha256:r1", "1", made, model))


def sent(bench: Bench) -> None:
    bench.spool.cut(everything=True)
    bench.spool.upload(MemoryStore())


def test_good_inputs_say_nothing(bench: Bench, log: Log) -> None:
    assert bench.gateway.handle(SERVICE, "d1", NUMBERS, AT).captured
    serve(bench, Telltale(fails=False))
    assert bench.gateway.handle(SERVICE, "d1", PICTURE, AT).captured
    serve(bench, Telltale(fails=False), payload="embedding")
    assert bench.gateway.handle(SERVICE, "d2", PICTURE, AT).captured
    sent(bench)
    log.check()


def test_bad_inputs_say_nothing(bench: Bench, log: Log) -> None:
    for payload in (ROW, MARK.encode(), b'["%s", 1]' % MARK.encode(), b'{"%s": 1}' % MARK.encode(), PICTURE * 100_000):
        assert bench.gateway.handle(SERVICE, "d1", payload, AT).error
    assert bench.gateway.handle("other", "d1", ROW, AT).error
    log.check()


def test_a_failing_models_words_are_for_the_device_only(bench: Bench, log: Log) -> None:
    serve(bench, Telltale())
    assert MARK in str(bench.gateway.handle(SERVICE, "d1", PICTURE, AT).error)
    log.check("a model failed")
    assert [line["error"] for line in log.lines] == ["ModelFailed of ValueError of KeyError"]


@pytest.mark.parametrize(
    ("reply", "is_logged"),
    [
        (Reply({"error": f"what is {MARK}?"}, 500), True),
        (Reply({"error": f"what is {MARK}?"}, 400), False),
        (Reply({"error": f"what is {MARK}?"}, 503), False),
        (Reply(MARK.encode()), True),
        (Reply({"predictions": [MARK]}), True),
    ],
    ids=["failed", "refused", "away", "no-json", "no-answer"],
)
def test_a_model_servers_words_are_for_the_device_only(bench: Bench, log: Log, reply: Reply, is_logged: bool) -> None:
    ready = {"model_version_status": [{"state": "AVAILABLE"}]}
    with scripted({"/v1/models/m": Reply(ready), "/v1/models/m:predict": reply}) as server:
        model = RemoteModel(Endpoint(protocol="v1", url=server.url, model="m"), config())
        bench.runtime.switch(SERVICE, Loaded("sha256:r1", "1", config(), model))
        assert MARK in str(bench.gateway.handle(SERVICE, "d1", NUMBERS, AT).error)
    log.check(*(["a model failed"] if is_logged else []))


def test_no_embedding_a_full_spool_and_a_full_disk_say_nothing(tmp_path: Path, log: Log) -> None:
    bench = Bench(tmp_path, limits=Limits(spool_bytes=10))
    assert not bench.gateway.handle(SERVICE, "d1", NUMBERS, AT).captured
    log.check("not captured")
    bench.close()
    bench = Bench(tmp_path / "second")
    serve(bench, Telltale(fails=False))
    with FaultyDisk(tmp_path) as disk:
        disk.mode = "full"
        assert not bench.gateway.handle(SERVICE, "d1", PICTURE, AT).captured
    serve(bench, Telltale(fails=False, sees=False), payload="embedding")
    assert not bench.gateway.handle(SERVICE, "d2", PICTURE, AT).captured
    bench.close()
    log.check("not captured")
    assert len(log.lines) == 3


def test_feedback_says_nothing(bench: Bench, log: Log) -> None:
    name = "ab" * 32

    def feedback(value: object) -> object:
        return bench.gateway.feedback(SERVICE, "d1", json.dumps(value).encode(), AT)

    for value in ({"sample_id": name, "label": MARK}, {"sample_id": MARK, "label": "yes"}, MARK, {"label": MARK}):
        assert feedback(value) is not None
    serve(bench, FakeModel(labels=None), "tabular-regressor")
    assert feedback({"sample_id": name, "label": "7.13371337"}) is None
    with FaultyDisk(bench.folder) as disk:
        disk.mode = "full"
        assert feedback({"sample_id": name, "label": "7.133713371", "by": MARK}) is not None
    log.check("not captured")


# --- the spool


def spoiled(record: Sample | Label, **fields: object) -> bytes:
    """A body that holds, but whose record lacks or twists fields."""
    body = encode(record, 1)
    end = 4 + int(struct.unpack(">I", body[:4])[0])
    head = json.loads(body[4:end])
    head["record"] |= fields
    head["record"] = {name: value for name, value in head["record"].items() if value != "gone"}
    text = json.dumps(head).encode()
    return struct.pack(">I", len(text)) + text + body[end:]


def test_a_spooled_record_that_does_not_parse_is_named_by_its_fields_only(bench: Bench, log: Log) -> None:
    assert bench.gateway.handle(SERVICE, "d1", NUMBERS, AT).captured
    bench.close()
    (path,) = find_logs(bench.folder)
    bodies = [
        spoiled(label(1), label=[MARK]),
        spoiled(sample(2, payload=MARK.encode()), device="gone"),
        spoiled(sample(3), captured_at=MARK),
        b"\0\0\0\x09" + MARK.encode() * 3,
    ]
    path.write_bytes(path.read_bytes() + b"".join(frame(body) for body in bodies))
    bench.start()
    sent(bench)
    log.check("a spooled record does not parse", "damaged bytes in the spool")
    said = {line["error"] for line in log.lines if line["message"] == "a spooled record does not parse"}
    assert "ValidationError at label (string_type)" in said
    assert "ValidationError at device (missing)" in said
    assert any(each.startswith("JSONDecodeError") for each in said)


def test_a_record_that_fits_in_no_segment_is_named_by_its_sample_only(
    bench: Bench, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(records: object) -> bytes:
        raise TypeError(f"cannot convert {records!r}")

    monkeypatch.setattr(contents, "write_segment", fail)
    serve(bench, Telltale(fails=False))
    assert bench.gateway.handle(SERVICE, "d1", PICTURE, AT).captured
    sent(bench)
    log.check("a log cannot be made a segment as it is", "a record fits in no segment")
    assert [line["error"] for line in log.lines if "error" in line] == ["TypeError"]


# --- what nobody foresaw


def test_a_fault_in_the_node_itself_is_traced_without_its_words(tmp_path: Path, log: Log) -> None:
    site = Site(tmp_path)

    def fail(service: str, device: str, payload: bytes, *_: object) -> Callable[[], object]:
        raise RuntimeError(f"who sends {payload!r}?")

    site.bench.gateway.begin = fail  # type: ignore[assignment,method-assign]
    site.send(ROW)
    assert "the node failed" in site.result()[1]["error"]
    site.intake.stop(60)
    site.bench.close()
    log.check("an input was not answered")
    (line,) = log.lines
    assert "RuntimeError" in line["trace"] and ", in fail\n" in line["trace"], "where it was is said"


def test_a_trace_names_each_error_of_a_chain_and_of_a_group(log: Log) -> None:
    try:
        try:
            raise ExceptionGroup(MARK, [ValueError(MARK), OSError(28, "No space left on device", MARK)])
        except ExceptionGroup as error:
            raise KeyError(MARK) from error
    except KeyError:
        logging.getLogger("edgeloop.edge").exception("a part failed")
    log.check("a part failed")
    trace = log.lines[0]["trace"]
    names = ["ValueError", "OSError: No space left on device", "ExceptionGroup", "KeyError"]
    assert [line for line in trace.splitlines() if not line.startswith(" ")] == names


def test_a_cause_that_goes_in_a_circle_ends() -> None:
    first, second = ValueError(MARK), KeyError(MARK)
    first.__cause__, second.__cause__ = second, first
    assert kind_of(first) == "ValueError of KeyError"
    assert JsonLines().formatException((ValueError, first, None)) == "KeyError\nValueError"
    group = ExceptionGroup("", [first])
    second.__cause__ = group
    assert kind_of(group) == "ExceptionGroup of ValueError of KeyError"


def test_a_salt_is_not_told(tmp_path: Path, log: Log) -> None:
    (tmp_path / "state.json").write_text(json.dumps({"salt": [MARK], "services": {}}))
    assert StateFile(tmp_path).state.salt != MARK
    log.check("state.json begins anew")
    assert log.lines[0]["error"] == "ValidationError at salt (string_type)"


def test_a_self_check_that_fails_does_not_tell_its_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "load_model", lambda *_, **__: Telltale())
    cases = {"cases": [{"payload": base64.b64encode(PICTURE).decode(), "prediction": "yes"}]}
    layers = {"config": config().model_dump_json().encode(), "probe": json.dumps(cases).encode(), "model": b""}
    made = [Layer.model_validate({"role": r, "digest": digest(b""), "size": 1, "media_type": "x"}) for r in layers]
    release = Release(service=SERVICE, version="1", run_id="r", dataset="d", layers=made)
    with pytest.raises(FailedProbe, match="ValueError") as failed:
        Loader().load(release, layers)
    assert MARK not in str(failed.value)
