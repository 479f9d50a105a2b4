"""What is wrong, in sentences: a person who opens the page should not have to compare digests to find out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

#: Nodes that are named here for one kind of trouble.
_EACH = 8
_BAD_RUNS = {"Failed", "Crashed", "TimedOut"}


def part_trouble(part: Mapping[str, Any]) -> str:
    """What is wrong with a part that is not healthy."""
    return f"{part['name']} {'does not work' if part['alive'] else 'is down'}: {part['missing']}"


def troubles(found: Mapping[str, Any]) -> list[str]:
    """Everything that is wrong in an overview, each thing once, what stands under the others first."""
    return list(dict.fromkeys([*_stack(found["stack"]), *found["problems"], *_fleet(found), *_flows(found["flows"])]))


def _stack(stack: Mapping[str, Any]) -> Iterator[str]:
    if not stack["parts"]:
        yield "No stack runs on this home: start one with  edgeloop up"
    elif not stack["running"]:
        yield "The stack's supervisor is gone, so nothing starts a dead part again: run  edgeloop up"
    yield from (part_trouble(part) for part in stack["parts"] if not part["healthy"])


def _fleet(found: Mapping[str, Any]) -> Iterator[str]:
    for service, champion in found["champions"].items():
        if champion and champion["rollout"] == "reverted":
            version = champion.get("rolled") or champion["version"]
            yield f"{service}: version {version} was taken back: {champion['reason'] or 'no reason given'}"
        if champion and champion.get("drift"):
            yield f"{service}: {champion['drift']}; see  edgeloop drift {service}"
    for one in found.get("rollouts", []):
        if one["state"] == "holding":
            yield f"{one['service']}: the rollout holds for a person: {one['reason']}"
    crowd = found.get("crowd", [])
    away = [f"{_who(node)} is offline; it catches up when it returns" for node in found["nodes"] if not node["online"]]
    yield from _some(away, sum(one["nodes"] - one["online"] for one in crowd), "nodes are offline")
    failing = [f"{_who(n)} reports an error: {n['last_error']}" for n in found["nodes"] if n.get("last_error")]
    yield from _some(failing, sum(one["failing"] for one in crowd), "nodes report errors")


def _who(node: Mapping[str, Any]) -> str:
    return f"{node['node']} ({node['service']}, ring {node['ring']})"


def _some(texts: Sequence[str], total: int, what: str) -> Iterator[str]:
    """The first of ``texts``, and how many more there are."""
    yield from texts[:_EACH]
    more = max(total, len(texts)) - len(texts[:_EACH])
    if more > 0:
        yield f"{more} more {what}: see the table below, and  edgeloop fleet list"


def _flows(flows: list[dict[str, Any]]) -> Iterator[str]:
    for flow in flows:
        if flow["last_state"] in _BAD_RUNS:
            yield f"The last run of {flow['name']} ended as {flow['last_state']}: see it in Prefect"
