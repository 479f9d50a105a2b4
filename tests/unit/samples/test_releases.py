"""A release is its bytes: one that was changed on the way is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.samples.records import canonical, digest
from edgeloop.samples.releases import (
    Layer,
    MalformedRelease,
    NoVariant,
    Release,
    Variant,
    Wanted,
    blob_key,
    parse_release,
    parse_wanted,
    release_key,
    wanted_object,
    wanted_target,
)


def release() -> Release:
    layers = [Layer(role="head", digest=digest(b"h"), size=1, media_type="m")]
    return Release(service="rater", version="3", run_id="r", dataset="d", layers=layers, evaluation={"x": 1.5})


def test_keys_are_pinned() -> None:
    """Nodes that are out there look here."""
    name = "sha256:" + "ab" * 32
    assert blob_key(name) == f"blobs/sha256/{'ab' * 32}"
    assert release_key("rater", name) == f"releases/rater/{'ab' * 32}.json"
    assert wanted_target("rater", 2) == "rings/rater/ring-2.json"
    assert wanted_object("rater", 2, name) == f"channel/targets/rings/rater/{'ab' * 32}.ring-2.json"


def test_a_manifest_round_trips_under_its_digest() -> None:
    made = release()
    assert parse_release(made.to_bytes(), made.digest) == made
    assert parse_release(made.to_bytes(), made.digest).to_bytes() == made.to_bytes()
    assert made.layer("head") == made.layers[0]
    assert made.layer("model") is None


def test_a_field_nobody_knows_keeps_the_digest() -> None:
    data = canonical(json.loads(release().to_bytes()) | {"later": [1]})
    assert parse_release(data, digest(data)).to_bytes() == data


def test_releases_and_records_from_before_variants_and_batches_keep_their_bytes() -> None:
    """Nodes refuse what does not have the digest that was signed, also when a newer cloud reads and writes it."""
    assert release().digest == "sha256:b7864999fa08c1a74ff2701939fb56fc04023309c5a2dbda79a3472d9ddf1d8a"
    assert Wanted(service="rater", ring=0, release=digest(b"r"), sequence=1).to_bytes() == canonical(
        {"schema_version": 1, "service": "rater", "ring": 0, "release": digest(b"r"), "sequence": 1}
    )


def test_a_profile_loads_its_own_variant() -> None:
    small = [Layer(role="head", digest=digest(b"s"), size=1, media_type="m")]
    variant = Variant(profile="pi", runtime="litert", precision="int8", layers=small, agreement=1.0, compared=9)
    made = release().model_copy(update={"variants": [variant]})
    assert parse_release(made.to_bytes(), made.digest) == made
    assert made.layers_for("pi") == small
    assert made.layers_for(None) == made.layers
    assert release().layers_for("pi") == release().layers
    with pytest.raises(NoVariant, match="no variant for profile 'jetson', only pi: add it"):
        made.layers_for("jetson")


@given(st.data())
def test_a_flipped_bit_is_refused(data: st.DataObject) -> None:
    whole = release().to_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    bit = data.draw(st.integers(0, 7))
    flipped = whole[:at] + bytes([whole[at] ^ (1 << bit)]) + whole[at + 1 :]
    with pytest.raises(MalformedRelease, match="its bytes have digest"):
        parse_release(flipped, release().digest)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b"\xff", b'{"service":"s"}'])
def test_bytes_of_the_right_digest_that_are_no_manifest_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedRelease, match="does not parse"):
        parse_release(data, digest(data))


NO_DIGESTS = [
    "sha256:../../../x",
    "sha256:0",
    "",
    "../x",
    "sha256:" + "0" * 65,
    "sha256:" + "A" * 64,
    f"sha256:{'0' * 64}\n",
]


@pytest.mark.parametrize("name", NO_DIGESTS)
def test_a_layer_is_named_by_a_digest_and_nothing_else(name: str) -> None:
    """Its name becomes a path on the nodes."""
    value = release().model_dump(mode="json")
    value["layers"][0]["digest"] = name
    with pytest.raises(MalformedRelease, match="does not parse"):
        parse_release(canonical(value), digest(canonical(value)))


@pytest.mark.parametrize(
    "change", [{"sequence": -1}, {"ring": "first"}, {"release": None}, *({"release": name} for name in NO_DIGESTS)]
)
def test_a_channel_record_that_does_not_parse_is_refused(change: dict[str, object]) -> None:
    value: dict[str, object] = {"service": "s", "ring": 0, "release": digest(b""), "sequence": 1}
    assert parse_wanted(json.dumps(value).encode(), "k").sequence == 1
    with pytest.raises(MalformedRelease, match="channel record k does not parse"):
        parse_wanted(json.dumps(value | change).encode(), "k")
