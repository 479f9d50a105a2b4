"""What a node counted under one release, over its restarts: one that crashes again and again hides nothing by it.

A node counts since its process loaded the release. A count that falls is a new process, which goes on from the old one.
"""

from __future__ import annotations

import json
from typing import Any

_NUMBERS = ("answered", "failed", "audited", "agreed")
#: Answers of a new process from which its p99 is believed before that of a longer one.
_KNOWN_WELL = 200


def carried(known: str, fresh: str) -> str:
    """What was counted in all, as JSON, when the process said ``fresh`` last and ``known`` was there before.

    Beside the sums are the counts of the present process, ``life``, and the answers that ``p99`` is of, ``timed``.
    """
    before, now = json.loads(known), json.loads(fresh)
    life = before.get("life", before)
    went_on = all(now[name] >= life[name] for name in ("answered", "failed", "audited"))
    earlier = _less(before, life) if went_on else before
    if not any(earlier[name] for name in _NUMBERS):
        return fresh
    timed = before.get("timed", before["answered"])
    if now["p99"] is None or now["answered"] < min(timed, _KNOWN_WELL):
        p99 = {"p99": before["p99"], "timed": timed}
    else:
        p99 = {"p99": now["p99"], "timed": now["answered"]}
    return json.dumps(_more(now, earlier) | p99 | {"life": now})


def _more(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    bins = [a + b for a, b in zip(one["histogram"], other["histogram"], strict=True)]
    return {name: one[name] + other[name] for name in _NUMBERS} | {"histogram": bins}


def _less(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    bins = [a - b for a, b in zip(one["histogram"], other["histogram"], strict=True)]
    return {name: one[name] - other[name] for name in _NUMBERS} | {"histogram": bins}
