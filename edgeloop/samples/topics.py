"""The MQTT topics of edgeloop, spelled once."""

from __future__ import annotations

PREFIX = "edgeloop/v1"
#: Everything that nodes say of themselves, retained: a report per service, and whether they are there.
NODES = f"{PREFIX}/nodes/#"
#: Not retained: asks every node to cut and upload what it has spooled.
FLUSH = f"{PREFIX}/nodes/all/flush"

#: Below this, a reader of :data:`NODES` marks the end of what is retained, for itself.
MARKS = f"{PREFIX}/nodes/all/mark"


def device_topic(service: str, device: str, leaf: str) -> str:
    """Topic of a device: ``leaf`` is ``input``, ``result`` or ``feedback``."""
    return f"{PREFIX}/{service}/{device}/{leaf}"


def report_topic(node: str, service: str) -> str:
    """Where ``node`` keeps its retained report on ``service``."""
    return f"{PREFIX}/nodes/{node}/report/{service}"


def alive_topic(node: str) -> str:
    """Where ``node`` says that it is there, and its last will that it is not: ``{"node", "ring", "online", "at"}``."""
    return f"{PREFIX}/nodes/{node}/alive"


def parse_node_topic(topic: str) -> tuple[str, str] | None:
    """Node and service of a report's topic, the service empty for the word on a node; None when it is another topic."""
    parts = topic.split("/")
    if len(parts) < 5 or "/".join(parts[:3]) != f"{PREFIX}/nodes":
        return None
    if len(parts) == 5 and parts[4] == "alive":
        return parts[3], ""
    return (parts[3], parts[5]) if len(parts) == 6 and parts[4] == "report" and parts[5] else None


def wanted_topic(service: str, ring: int) -> str:
    """Retained nudge: the channel of this ring has changed; the object store says to what."""
    return f"{PREFIX}/rings/{ring}/wanted/{service}"


def parse_device_topic(topic: str) -> tuple[str, str, str] | None:
    """Split ``edgeloop/v1/{service}/{device}/{leaf}``; None when it is another topic."""
    parts = topic.split("/")
    if len(parts) != 5 or "/".join(parts[:2]) != PREFIX or parts[2] in {"nodes", "rings"}:
        return None
    return parts[2], parts[3], parts[4]
