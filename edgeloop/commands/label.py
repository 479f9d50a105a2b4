"""``edgeloop label``: people's labels, on the terminal or through Label Studio's files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeloop.commands.output import Context, table
from edgeloop.errors import BadInput

if TYPE_CHECKING:
    from edgeloop.bootstrap import App
    from edgeloop.learning.labels.agreement import Agreement
    from edgeloop.learning.labels.queue import Request
    from edgeloop.samples.service import Service

_FILE = click.Path(path_type=Path, dir_okay=False)


class OneAtATime(BadInput):
    """Two options ask for different things."""


@click.command()
@click.argument("service")
@click.option(
    "--count", type=click.IntRange(1, 100_000), default=20, show_default=True, help="Most answers to ask for."
)
@click.option("--by", help="Who answers; needed to answer on the terminal.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Of all draws (default: made of --by).")
@click.option("--export", "target", type=_FILE, help="Write the queue as Label Studio tasks instead of asking.")
@click.option("--import", "source", type=_FILE, help="Take the answers of a Label Studio JSON export instead.")
@click.option("--agreement", "compare", is_flag=True, help="Print how far people agree instead.")
@click.pass_obj
def label(
    context: Context,
    service: str,
    count: int,
    by: str | None,
    seed: int | None,
    target: Path | None,
    source: Path | None,
    compare: bool,
) -> None:
    """Ask for the labels of SERVICE that are worth most."""
    from edgeloop.bootstrap import App

    chosen = [n for n, v in (("--export", target), ("--import", source), ("--agreement", compare)) if v]
    if len(chosen) > 1:
        raise OneAtATime(f"{' and '.join(chosen)} cannot be used together: run them one after the other")
    app = App(context.settings)
    found = app.service(service)
    if compare:
        _agreement(context, app, found)
    elif source:
        _import(context, app, found, source, by)
    elif target:
        _export(context, app, found, target, count, by, seed)
    else:
        _terminal(context, app, found, count, by, seed)


def _queue(
    app: App, service: Service, count: int, by: str | None, seed: int | None
) -> tuple[list[Request], dict[str, bytes]]:
    """The queue and the raw input of each sample in it."""
    import zlib

    from edgeloop.learning.labels.waiting import build_queue
    from edgeloop.samples.table import one_of

    number = zlib.crc32((by or "").encode()) if seed is None else seed
    tables = app.tables(service.name)
    requests = build_queue(app.store, tables, service, by, count, number)
    names = [one.sample_id for one in requests]
    rows = tables.read("samples", ["sample_id", "payload"], where=one_of("sample_id", names))
    return requests, {r["sample_id"]: r["payload"] for r in rows}


def _terminal(context: Context, app: App, service: Service, count: int, by: str | None, seed: int | None) -> None:
    from tempfile import TemporaryDirectory

    from edgeloop.commands.labelling import Terminal, forgive_input
    from edgeloop.learning.labels.answers import checked_name

    name = checked_name(by)
    requests, payloads = _queue(app, service, count, name, seed)
    forgive_input()
    with TemporaryDirectory(prefix="edgeloop-label-") as folder:
        sitting = Terminal(app.store, service, name, Path(folder)).ask(requests, payloads)
    left = len(requests) - len(sitting.labels) - sitting.skipped
    context.result(
        {
            "service": service.name,
            "by": name,
            "answered": len(sitting.labels),
            "skipped": sitting.skipped,
            "left": left,
            "labels": [x.model_dump(mode="json") for x in sitting.labels],
        },
        f"{len(sitting.labels)} answered, {sitting.skipped} skipped, {left} left; the next ingest takes the answers",
    )


def _export(
    context: Context, app: App, service: Service, target: Path, count: int, by: str | None, seed: int | None
) -> None:
    from edgeloop.learning.labels.answers import checked_name
    from edgeloop.learning.labels.label_studio import labelling_config, tasks_of, write_tasks

    requests, payloads = _queue(app, service, count, checked_name(by) if by is not None else None, seed)
    write_tasks(target, tasks_of(service, requests, payloads))
    config = labelling_config(service)
    context.result(
        {"service": service.name, "file": str(target), "tasks": len(requests), "labelling_config": config},
        f"{len(requests)} tasks are in {target}; the labelling interface of their project is\n\n{config}",
    )


def _import(context: Context, app: App, service: Service, source: Path, by: str | None) -> None:
    from edgeloop.learning.labels.answers import checked_name, keep, refuse_unknown
    from edgeloop.learning.labels.label_studio import read_export

    found = read_export(source, service, checked_name(by) if by is not None else None)
    refuse_unknown(app.tables(service.name), service, {x.sample_id for x in found.labels})
    key = keep(app.store, service, found.labels)
    people = sorted({x.by for x in found.labels})
    context.result(
        {
            "service": service.name,
            "file": str(source),
            "tasks": found.tasks,
            "answered": len(found.labels),
            "unanswered": found.unanswered,
            "people": people,
            "segment": key,
        },
        f"{len(found.labels)} answers by {', '.join(people) or 'nobody'} to {found.tasks} tasks,"
        f" {found.unanswered} of them without one; the next ingest takes them",
    )


def _agreement(context: Context, app: App, service: Service) -> None:
    from edgeloop.learning.labels.agreement import agreement
    from edgeloop.learning.labels.answers import all_labels

    labels = all_labels(app.store, app.tables(service.name), service)
    found = agreement(service.name, labels, numbers=not service.is_classifier)
    context.result(found.model_dump(mode="json"), agreement_text(found))


def agreement_text(found: Agreement) -> str:
    """The table of pairs, then the samples on which people differ."""
    if not found.pairs:
        return f"no sample of {found.service} has answers by two people yet: let another person run  edgeloop label"
    pairs = [
        [*p.people, str(p.samples), f"{p.share:.3f}", f"{p.low:.3f} to {p.high:.3f}", _kappa(p.kappa)]
        for p in found.pairs
    ]
    blocks = [table(pairs, ["person", "and", "samples", "agreed", "95 %", "kappa"])]
    rows = [
        [c.sample_id[:12], ", ".join(f"{by}: {text}" for by, text in c.answers.items()), c.counts]
        for c in found.contradictions
    ]
    return "\n\n".join([*blocks, *([table(rows, ["sample", "answers", "counts"])] if rows else [])])


def _kappa(value: Any) -> str:
    return "" if value is None else f"{value:.3f}"
