"""The promise that nothing which judges is learned from, checked on every lesson before anything is fitted on it.

The split is a hash of the group, so this holds by construction; a change that breaks it must stop a round, and not show
as a model that is strangely good.
"""

from __future__ import annotations

from collections.abc import Iterable

from edgeloop.errors import EdgeloopError
from edgeloop.samples.dataset import DatasetVersion, Members, members_at
from edgeloop.samples.splits import split_of
from edgeloop.samples.table import Tables, one_of


class Leak(EdgeloopError):
    """A sample that a model would learn from shares a group with samples that judge it."""


def check_lesson(
    tables: Tables, dataset: DatasetVersion, lesson: Iterable[str], members: Members | None = None
) -> None:
    """See that no group of the samples ``lesson`` (ids) is one of the gate or the test split.

    Groups are read from the samples table, whatever the lesson was drawn from; ``members`` are those of the version,
    where the caller knows them.

    Raises:
        Leak: one is, or its group is not known; the message names it.
    """
    service = dataset.service
    names = list(lesson)
    rows = tables.read("samples", ["sample_id", "group"], where=one_of("sample_id", names)) if names else []
    learned = {str(r["group"]): str(r["sample_id"]) for r in rows}
    lost = sorted(set(names) - {r["sample_id"] for r in rows})
    if lost:
        raise Leak(
            f"sample {lost[0]} of {service} would be learned from and is in no table, so nobody knows its group:"
            " nothing was trained; report this as a fault of edgeloop"
        )
    known = members_at(tables, service, dataset.tables) if members is None else members
    judges = known.of("gate", "test")
    same = judges.where(judges.among("group", learned))
    judging = dict(zip(same.column("group"), same.column("split"), strict=True))
    for name in sorted(learned):
        side = judging.get(name, split_of(name, service))
        if side != "pool":
            raise Leak(
                f"sample {learned[name]} of {service} would be learned from, but its group {name} belongs to {side}:"
                " nothing was trained; report this as a fault of edgeloop"
            )
