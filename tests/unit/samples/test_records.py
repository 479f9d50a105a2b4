"""Names are content: what is pinned here names samples, datasets and releases that already exist somewhere."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edgeloop.samples.records import Sample, canonical, digest, hexdigest, sample_id
from tests.unit.samples.make import START, sample

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def test_digest_is_pinned() -> None:
    assert digest(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert hexdigest(digest(b"x")) == digest(b"x")[7:]


def test_canonical_is_pinned() -> None:
    assert canonical({"b": [1, 2.5, None, True], "a": "ä"}) == b'{"a":"\\u00e4","b":[1,2.5,null,true]}'


@given(st.dictionaries(st.text(), JSON))
def test_canonical_depends_on_the_value_alone(value: dict[str, object]) -> None:
    backwards = dict(reversed(value.items()))
    assert canonical(backwards) == canonical(value)
    assert json.loads(canonical(value)) == value


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_canonical_refuses_what_is_not_json(number: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical([number])


def test_sample_id_is_pinned() -> None:
    assert sample(3).sample_id == "750864590a4b9ca131e5d37e73ced7ae196c5a7577103f6a8de6994cd72ad40a"


def test_sample_id_names_an_instant_and_not_its_spelling() -> None:
    east = START.astimezone(timezone(timedelta(hours=9)))
    assert sample_id("s", "d", east, b"p") == sample_id("s", "d", START, b"p")


@pytest.mark.parametrize(
    "other",
    [
        ("t", "d", START, b"p"),
        ("s", "e", START, b"p"),
        ("s", "d", START + timedelta(microseconds=1), b"p"),
        ("s", "d", START, b"q"),
    ],
)
def test_sample_id_depends_on_every_part(other: tuple[str, str, datetime, bytes]) -> None:
    assert sample_id(*other) != sample_id("s", "d", START, b"p")


def test_unknown_fields_are_kept_and_missing_ones_refused() -> None:
    values = sample().model_dump()
    assert Sample.model_validate(values | {"humidity": 3}).model_dump()["humidity"] == 3
    del values["device"]
    with pytest.raises(ValidationError, match="device"):
        Sample.model_validate(values)


@pytest.mark.parametrize("probability", [0, -0.1, 1.01, float("nan")])
def test_a_selection_probability_that_estimates_nothing_is_refused(probability: float) -> None:
    with pytest.raises(ValidationError, match="selection_probability"):
        sample(selection_probability=probability)
