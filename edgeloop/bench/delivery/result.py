"""What ``edgeloop bench delivery`` found, as figures and as text."""

from __future__ import annotations

from pydantic import BaseModel

class Travelled(BaseModel):
    """Bytes of one node's reads."""

    bytes: int
    requests: int
    parts: dict[str, int]
