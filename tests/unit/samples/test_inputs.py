"""Raw inputs may stay at the node: what is known of them then, and what stands in where one is needed."""

from __future__ import annotations

import numpy as np
import pytest

from edgeloop.samples.inputs import drawn_inputs, extras, input_digest, is_digest, is_withheld
from edgeloop.samples.payloads import decode_features, decode_image
from edgeloop.samples.records import digest
from edgeloop.samples.segments import to_row
from tests.unit.samples.make import looker, picture, regressor, sample, withheld

BACKBONE = "sha256:" + "b" * 64


def test_an_input_has_one_name_wherever_it_is() -> None:
    here = to_row(sample(1, "looker", picture(1)))
    there = to_row(withheld(1, [1, 2], BACKBONE))
    assert input_digest(here) == input_digest(there) == digest(picture(1))
    assert (is_withheld(here), is_withheld(there)) == (False, True)
    assert here["sample_id"] == there["sample_id"]


def test_a_raw_input_names_itself_whatever_else_is_said() -> None:
    row = to_row(sample(1, "looker", picture(1), payload_digest=digest(b"other")))
    assert input_digest(row) == digest(picture(1))
    assert not is_withheld(row)


def test_an_empty_payload_alone_is_not_a_withheld_one() -> None:
    row = to_row(sample(1, payload=b""))
    assert not is_withheld(row)
    assert extras(row) == {}
    assert input_digest(row) == digest(b"")


@pytest.mark.parametrize("text", ["", "sha256:", "sha256:" + "g" * 64, "sha256:" + "0" * 65, "../" + "0" * 68, 5, None])
def test_what_is_no_digest(text: object) -> None:
    assert not is_digest(text)
    assert is_digest(BACKBONE)


def test_drawn_pictures_are_inputs_and_always_the_same() -> None:
    drawn = drawn_inputs(looker(), 4)
    assert drawn == drawn_inputs(looker(), 4)
    assert len(set(drawn)) == 4
    assert all(np.std(decode_image(payload, 32)) > 3 for payload in drawn)


def test_drawn_rows_are_within_the_promised_ranges() -> None:
    service = regressor(
        features=[
            {"name": "a", "min": 0.9, "max": 1.2},
            {"name": "b"},
            {"name": "c", "min": 300},
            {"name": "d", "max": -5},
        ]
    )
    rows = np.stack([decode_features(p, service.feature_names) for p in drawn_inputs(service, 20)])
    assert len({tuple(row) for row in rows}) == 20
    assert (rows[:, 0] >= 0.9).all()
    assert (rows[:, 0] <= 1.2).all()
    assert (rows[:, 2] >= 300).all()
    assert (rows[:, 3] <= -5).all()
