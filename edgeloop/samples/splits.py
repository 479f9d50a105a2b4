"""Who may learn from what: a group goes to pool, gate or test for ever, by a hash of its name alone.

No list of members is kept anywhere, so there is nothing to lose, and a sample that arrives twice or years later
lands where its group did.
"""

from __future__ import annotations

import hashlib
from typing import Literal

Split = Literal["pool", "gate", "test"]

#: Shares in percent. Only the scorer reads test; the gate reads gate; training reads pool.
SHARES: dict[Split, int] = {"pool": 60, "gate": 20, "test": 20}


def split_of(group: str, service: str) -> Split:
    """Return the split that ``group`` of ``service`` belongs to."""
    bucket = int.from_bytes(hashlib.sha256(f"{service}\n{group}".encode()).digest()[:8], "big") % 100
    if bucket < SHARES["pool"]:
        return "pool"
    return "gate" if bucket < SHARES["pool"] + SHARES["gate"] else "test"
