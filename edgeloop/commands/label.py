"""``edgeloop label``: people's labels, on the terminal or through Label Studio's files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeloop.commands.output import Context, table
from edgeloop.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeloop.bootstrap import App
    from edgeloop.learning.labels.agreement import Agreement, Contradiction
    from edgeloop.learning.labels.conflicts import Conflicts, Twins
    from edgeloop.learning.labels.queue import Request
    from edgeloop.samples.service import Service

_FILE = click.Path(path_type=Path, dir_okay=False)


class OneAtATime(BadInput):
    """Two options ask for different things."""


@click.command()
@click.argument("service")
@click.option("--count", type=click.IntRange(1, 100_000), help="Most answers to ask for (default: labelling.count).")
@click.option("--by", help="Who answers; needed to answer on the terminal.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Of all draws (default: made of --by).")
@click.option("--export", "target", type=_FILE, help="Write the queue as Label Studio tasks instead of asking.")
@click.option("--import", "source", type=_FILE, help="Take the answers of a Label Studio JSON export instead.")
@click.option("--agreement", "compare", is_flag=True, help="Print how far people agree instead.")
@click.option("--conflicts", "contradict", is_flag=True, help="Print the labels that contradict each other instead.")
@click.option("--allow-pseudo", "allow", is_flag=True, help="Allow pseudo-labels again after the audit stopped them.")
@click.pass_obj
def label(
    context: Context,
    service: str,
    count: int | None,
    by: str | None,
    seed: int | None,
    target: Path | None,
    source: Path | None,
    compare: bool,
    contradict: bool,
    allow: bool,
) -> None:
    """Ask for the labels of SERVICE that are worth most."""
    from edgeloop.bootstrap import App

    given = {
        "--export": target,
        "--import": source,
        "--agreement": compare,
        "--conflicts": contradict,
        "--allow-pseudo": allow,
    }
    chosen = [name for name, value in given.items() if value]
    if len(chosen) > 1:
        raise OneAtATime(f"{' and '.join(chosen)} cannot be used together: run them one after the other")
    app = App(context.settings)
    found = app.service(service)
    many = count or found.labelling.count
    if compare:
        _agreement(context, app, found)
    elif contradict:
        _conflicts(context, app, found)
    elif allow:
        _allow_pseudo(context, app, found, by)
    elif source:
        _import(context, app, found, source, by)
    elif target:
        _export(context, app, found, target, many, by, seed)
    else:
        _terminal(context, app, found, many, by, seed)


def _queue(
    app: App, service: Service, count: int, by: str | None, seed: int | None
) -> tuple[list[Request], dict[str, bytes]]:
    """The queue and the raw input of each sample in it."""
    import zlib

    from edgeloop.commands.labelling import write
    from edgeloop.learning.labels.waiting import build_queue
    from edgeloop.samples.table import one_of

    number = zlib.crc32((by or "").encode()) if seed is None else seed
    tables = app.tables(service.name)
    judged = app.fleet.newest(service.name, "gate")  # one that could not be judged ends a round, too
    requests = build_queue(
        app.store,
        tables,
        service,
        by,
        count,
        number,
        champion=_champion(app, service),
        since=judged["at"] if judged else None,
        say=write,
    )
    names = [one.sample_id for one in requests]
    rows = tables.read("samples", ["sample_id", "payload"], where=one_of("sample_id", names))
    return requests, {r["sample_id"]: r["payload"] for r in rows}


def _champion(app: App, service: Service) -> dict[str, str] | None:
    """Blob digests of the champion, whose doubts are the best to ask by; people can label without MLflow, too."""
    from edgeloop.clients.registry import ForeignVersion, RegistryUnavailable
    from edgeloop.commands.labelling import write

    try:
        found = app.registry.champion(service.name)
    except (RegistryUnavailable, ForeignVersion) as error:
        write(f"the champion is not asked what it doubts ({error})")
        return None
    return found.layers if found else None


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


def _conflicts(context: Context, app: App, service: Service) -> None:
    from edgeloop.learning.labels.answers import all_labels
    from edgeloop.learning.labels.conflicts import find_conflicts
    from edgeloop.learning.labels.waiting import standing

    tables = app.tables(service.name)
    found = find_conflicts(app.store, tables, service, standing(tables, all_labels(app.store, tables, service)))
    context.result(found.model_dump(mode="json"), conflicts_text(found))


def conflicts_text(found: Conflicts) -> str:
    """Samples on which people differ, those on which devices do, and equal inputs with different labels."""
    head = (
        f"{len(found.people)} samples of {found.service} on which people differ, {len(found.devices)} on which devices"
        f" do, {len(found.twins)} inputs that have different labels under different names"
    )
    twins = [
        [one.payload[7:19], ", ".join(f"{name[:12]}: {text}" for name, text in one.labels.items()), _settled(one)]
        for one in found.twins
    ]
    blocks = [_contradictions([*found.people, *found.devices])]
    blocks += [table(twins, ["input", "labels", "learned from"])] if twins else []
    return "\n\n".join([head, *(b for b in blocks if b)])


def _settled(one: Twins) -> str:
    return "what the strongest source says" if one.settled else "none, if it is an image"


def _contradictions(found: Sequence[Contradiction]) -> str:
    rows = [[c.sample_id[:12], ", ".join(f"{by}: {text}" for by, text in c.answers.items()), c.counts] for c in found]
    return table(rows, ["sample", "answers", "counts"]) if rows else ""


def _allow_pseudo(context: Context, app: App, service: Service, by: str | None) -> None:
    from edgeloop.learning.labels.answers import checked_name
    from edgeloop.learning.pseudo.switch import allow

    name = checked_name(by)
    said = allow(app.fleet, service, name)
    context.result({"service": service.name, "by": name, "allowed": said}, _allowed_text(service, said))


def _allowed_text(service: Service, said: bool) -> str:
    if not said:
        return f"nothing had stopped the pseudo-labels of {service.name}"
    rule = "" if service.labelling.pseudo.enabled else "; they are off in its YAML (labelling.pseudo.enabled)"
    return f"rounds of {service.name} may learn from pseudo-labels again{rule}"


def agreement_text(found: Agreement) -> str:
    """The table of pairs, then the samples on which people differ."""
    if not found.pairs:
        return f"no sample of {found.service} has answers by two people yet: let another person run  edgeloop label"
    pairs = [
        [*p.people, str(p.samples), f"{p.share:.3f}", f"{p.low:.3f} to {p.high:.3f}", _kappa(p.kappa)]
        for p in found.pairs
    ]
    blocks = [
        table(pairs, ["person", "and", "samples", "agreed", "95 %", "kappa"]),
        _contradictions(found.contradictions),
    ]
    return "\n\n".join(b for b in blocks if b)


def _kappa(value: Any) -> str:
    return "" if value is None else f"{value:.3f}"
