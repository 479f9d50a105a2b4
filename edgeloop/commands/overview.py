"""What ``edgeloop status`` shows: parts, flows, champions and what each node serves. Parts that are away are named."""

from __future__ import annotations

from typing import Any

from edgeloop.commands.output import table
from edgeloop.web.overview import overview

__all__ = ["overview", "overview_text"]


def overview_text(found: dict[str, Any]) -> str:
    """The overview for a terminal."""
    parts = [
        [p["name"], "up" if p["alive"] else "down", "" if p["healthy"] else "not healthy", p["address"] or ""]
        for p in found["stack"]["parts"]
    ]
    flows = [
        [f["name"], f["schedule"], "paused" if f["paused"] else "on", f["last_state"] or ""] for f in found["flows"]
    ]
    champions = [
        [name, c["version"], _short(c["release"]), c["rollout"] or "", "drifted" if c.get("drift") else ""]
        if c
        else [name, "none", "", "", ""]
        for name, c in found["champions"].items()
    ]
    nodes = [
        [
            n["node"],
            str(n["ring"]),
            n["service"],
            _short(n["serving"]),
            _short(n["wanted"]),
            "" if n["online"] else "offline",
        ]
        for n in found["nodes"]
    ]
    blocks = [
        table(parts, ["part", "", "", "address"])
        if parts
        else "no stack runs on this home: start one with  edgeloop up"
        + ("\nwhat follows answers at the addresses of the environment, else the usual ones" if flows or nodes else ""),
        table(flows, ["flow", "schedule", "", "last run"]) if flows else "",
        table(champions, ["service", "champion", "release", "rollout", ""]) if champions else "",
        table(nodes, ["node", "ring", "service", "serving", "wanted", ""]) if nodes else "",
        "\n".join(
            f"{count} more nodes of {service}: see  edgeloop fleet list --service {service}"
            for service, count in found.get("left_out", {}).items()
        ),
        "\n".join(found["problems"]),
    ]
    return "\n\n".join(b for b in blocks if b)


def _short(digest: str | None) -> str:
    return digest.removeprefix("sha256:")[:12] if digest else "none"
