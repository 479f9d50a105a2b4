"""How many answers may still be asked for: people's time is what a fleet has least of, so its owner caps it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from edgeloop.errors import BadInput
from edgeloop.samples.labelling import Labelling
from edgeloop.samples.records import Label


class BudgetSpent(BadInput):
    """All answers that may be asked for now were given; the message says when there will be more."""


def left_to_ask(labels: Iterable[Label], labelling: Labelling, since: datetime | None, at: datetime) -> int | None:
    """Answers that may still be asked for; None where there is no limit.

    What counts is what was asked: labels that came with a data set, and by devices, do not. Who corrects himself has
    answered once. Requests that were exported and not answered yet are not known.

    Args:
        labels: all there are.
        labelling: the limits.
        since: the last decision of the gate; None where there was none, and all answers count for the round.
        at: the present, in any time zone.

    Raises:
        BudgetSpent: none is left.
    """
    given: dict[tuple[str, str], datetime] = {}
    for one in labels:
        if one.source == "human" and "asked" in (one.__pydantic_extra__ or {}):
            name = (one.sample_id, one.by)
            given[name] = min(one.at, given.get(name, one.at))
    midnight = at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    today = sum(midnight <= when < midnight + timedelta(days=1) for when in given.values())
    now = sum(since is None or when > since for when in given.values())
    left = [
        _left("per_round", labelling.per_round, now, "the gate has decided on the next candidate"),
        _left("per_day", labelling.per_day, today, f"{midnight + timedelta(days=1):%Y-%m-%d %H:%M} UTC"),
    ]
    return min((n for n in left if n is not None), default=None)


def _left(field: str, limit: int | None, given: int, until: str) -> int | None:
    if limit is None:
        return None
    if given >= limit:
        raise BudgetSpent(
            f"{given} answers were given and labelling.{field} is {limit}: wait until {until}, or raise it"
        )
    return limit - given
