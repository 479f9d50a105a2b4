"""What ``edgeloop bench delivery`` found, as figures and as text."""

from __future__ import annotations

from pydantic import BaseModel, computed_field

#: What a new head may cost a node.
LIMIT = 64 * 1024
#: And how many times as much a full image must be.
TIMES = 500


class Travelled(BaseModel):
    """What one node has read and been sent, bodies alone."""

    bytes: int
    requests: int
    """To the store; each costs a header or two besides."""
    parts: dict[str, int]
    """Bytes by what they were."""


class Sizes(BaseModel):
    """One image, manifest and configuration included."""

    stored: int
    """As it lies in a registry: the base compressed as it was found, layers of a release plain."""
    gzip: int
    """With all layers as gzip,"""
    zstd: int
    """and as zstd."""
    unpacked: int


class Change(BaseModel):
    """One change of a node's release, as it travels here and elsewhere."""

    travelled: Travelled
    image: Sizes
    """The predictor image of the new release, whole."""
    pulled: int
    """By an OCI client that keeps the layers it has."""
    image_zstd: int | None = None
    """A zstd delta of the image to the one before, unpacked; no signature and no manifest travels with it."""
    layers_zstd: int | None = None
    """Likewise of each model layer that changed,"""
    layers_bsdiff: int | None = None
    """and by bsdiff4; None also where a layer is too large for it."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def ratio(self) -> float:
        """The smallest full image by what travelled."""
        return min(self.image.stored, self.image.gzip, self.image.zstd) / self.travelled.bytes


class DeliveryBench(BaseModel):
    """What ``edgeloop bench delivery`` measured."""

    base: str
    """The image that predictors stand on; ``stand-in`` for packages of this environment without a system below."""
    backbone_bytes: int
    features: int
    labels: int
    rings: int
    services: int
    approvals: int
    """Of the service, in the signed metadata."""
    first: Change
    head: Change
    full: Change
    look: Travelled
    """A look when nothing has changed."""
    elsewhere: Travelled
    """A look after another ring was pointed elsewhere."""
    batched: Travelled
    """A new head that comes to the node's ring in two batches, not at once as it does by default."""
    fleet: Travelled
    """A new head through all rings, for a node of the last one that looks after every commit."""
    seconds: float

    @computed_field  # type: ignore[prop-decorator]
    @property
    def most_labels(self) -> int:
        """With how many labels a new head would still be within :data:`LIMIT`, on as many features."""
        parts = self.head.travelled.parts
        fixed = self.head.travelled.bytes - parts["head"]
        return int((LIMIT - fixed) * self.labels / parts["head"])

    @computed_field  # type: ignore[prop-decorator]
    @property
    def missed(self) -> list[str]:
        """What a new head should have kept to and did not."""
        found = []
        if self.head.travelled.bytes > LIMIT:
            found.append(f"a new head of {self.labels} labels is {self.head.travelled.bytes} bytes, over {LIMIT}")
        if self.head.ratio < TIMES:
            found.append(f"a full image is {self.head.ratio:.0f} times a new head, less than {TIMES}")
        return found


def delivery_text(result: DeliveryBench) -> str:
    """The measurement for a terminal."""
    changes = {"first release": result.first, "new head": result.head, "full fine-tune": result.full}
    rows = [_row(name, change) for name, change in changes.items()]
    header = ["", "node", "requests", "image", "gzip", "zstd", "pull", "image zstd", "layers zstd", "layers bsdiff"]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    table = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in [header, *rows]]
    parts = ", ".join(f"{name} {count}" for name, count in _by_size(result.head.travelled.parts))
    return "\n".join(
        [
            f"bytes to a node; {result.rings} rings, {result.services} services, {result.approvals} approvals,"
            f" {result.features} features, {result.labels} labels, base {result.base}",
            *table,
            f"new head: {parts}",
            f"new head: a full image is at least {result.head.ratio:.0f} times as much;"
            f" up to {result.most_labels} labels fit {LIMIT} bytes",
            f"a look: {result.look.bytes} when nothing has changed, {result.elsewhere.bytes} after a change elsewhere;"
            f" a new head in two batches: {result.batched.bytes}; through all rings: {result.fleet.bytes}",
            *(f"not reached: {line}" for line in result.missed),
        ]
    )


def _row(name: str, change: Change) -> list[str]:
    deltas = (change.image_zstd, change.layers_zstd, change.layers_bsdiff)
    numbers = (change.travelled.bytes, change.travelled.requests, change.image.stored, change.image.gzip)
    all_ = [*numbers, change.image.zstd, change.pulled, *deltas]
    return [name, *("-" if number is None else f"{number}" for number in all_)]


def _by_size(parts: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(parts.items(), key=lambda part: -part[1])
