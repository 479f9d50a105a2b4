"""A service to retrain, with everything real but its devices: tables, object store, ledger and an MLflow server."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from edgeloop.bench.retrain.pictures import LABELS, Picture
from edgeloop.bootstrap import App
from edgeloop.samples.records import Label, Sample, Verdict, digest, sample_id
from edgeloop.samples.segments import to_row
from edgeloop.samples.service import Service
from edgeloop.settings import Settings
from edgeloop.stack.environment import child_environment
from edgeloop.stack.parts import Part, mlflow_part
from edgeloop.stack.plan import StackPlan, build_addresses
from edgeloop.stack.running import running_stack

Say = Callable[[str], None]
NAME = "bench-retrain"
_START = datetime(2024, 5, 1, tzinfo=UTC)


def bench_service(backbone: Path, size: int, replay: int) -> Service:
    """Digits on a given extractor, retrained with ``replay`` earlier samples."""
    return Service.model_validate(
        {
            "version": 1,
            "name": NAME,
            "kind": "image-classifier",
            "description": "Reads one scanned handwritten digit.",
            "image": {"size": size},
            "labels": list(LABELS),
            "trainer": {"backbone": str(backbone), "replay": replay},
        }
    )


@contextmanager
def bench_app(settings: Settings, home: Path, say: Say) -> Iterator[App]:
    """An app on an empty home with an MLflow server on SQLite, as ``edgeloop up`` runs it; cached features stay."""
    _empty(home)
    plan = StackPlan(home=home, rooms=settings.rooms, services=[], nodes=0, free_ports=True, runner=False)
    with running_stack(plan, lambda event: say(f"{event.part} {event.state}"), build=_mlflow_alone) as stack:
        app = App(stack.settings())
        try:
            yield app
        finally:
            app.fleet.close()


def _empty(home: Path) -> None:
    kept = home / "store" / "features"
    for path in [*home.glob("*"), *home.glob("store/*")]:
        if path not in (kept, kept.parent):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _mlflow_alone(plan: StackPlan, ports: Mapping[str, int], life: Mapping[str, str]) -> list[Part]:
    import os

    addresses = build_addresses(plan, ports)
    return [mlflow_part(plan, ports["mlflow"], addresses, {**child_environment(plan, addresses, os.environ), **life})]


def collect(app: App, pictures: Sequence[Picture], first: int) -> None:
    """Put accepted samples, labelled by people, into the tables; ``first`` numbers the first of them."""
    tables, at = app.tables(NAME), _START + timedelta(days=1000)
    samples = [_sample(picture, number) for number, picture in enumerate(pictures, first)]
    labels = [
        Label(sample_id=s.sample_id, service=NAME, label=p.label, source="human", by="bench", at=s.captured_at)
        for s, p in zip(samples, pictures, strict=True)
    ]
    tables.merge("samples", [to_row(s) for s in samples], Sample)
    tables.merge("verdicts", [to_row(Verdict(sample_id=s.sample_id, accepted=True, at=at)) for s in samples], Verdict)
    tables.merge("labels", [to_row(x) for x in labels], Label)


def _sample(picture: Picture, number: int) -> Sample:
    at = _START + timedelta(seconds=number)
    return Sample(
        sample_id=sample_id(NAME, "bench", at, picture.payload),
        service=NAME,
        device="bench",
        node="edge-1",
        captured_at=at,
        payload=picture.payload,
        model_digest="none",
        prediction="",
        selected_by="audit",
        selection_probability=0.1,
        group=digest(picture.payload),
    )
