"""What a rehearsal replays: the newest inputs that nodes saw, because that is what the release will see first."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from edgeloop.samples.inputs import drawn_inputs
from edgeloop.samples.service import Service
from edgeloop.samples.table import Tables, one_of
from edgeloop.twin.records import Source

#: Newest samples that are looked through for raw inputs, as a multiple of what is wanted: some came without.
_LOOKED_THROUGH = 3


@dataclass(frozen=True)
class Traffic:
    """Inputs, newest first."""

    payloads: list[bytes]
    source: Source


def recent_traffic(tables: Tables, service: Service, count: int) -> Traffic:
    """Raw inputs of the newest samples; drawn ones where there are none.

    Inputs that were drawn are none that a device would send: nothing can be learned of them about answers.

    Raises:
        TableUnavailable: the store is away.
    """
    newest = _newest(tables, count * _LOOKED_THROUGH)
    found = tables.read("samples", ["sample_id", "payload"], where=one_of("sample_id", newest)) if newest else []
    payloads = {row["sample_id"]: row["payload"] for row in found}
    captured = [payloads[name] for name in newest if payloads.get(name)][:count]
    return Traffic(captured, "captured") if captured else Traffic(drawn_inputs(service, count), "drawn")


def _newest(tables: Tables, count: int) -> list[str]:
    """Names of the newest samples, newest first; the others pass by and are not kept in memory."""
    rows = tables.each("samples", ["captured_at", "sample_id"], one_of("service", [tables.service]))
    return [name for _, name in heapq.nlargest(count, ((row["captured_at"], row["sample_id"]) for row in rows))]
