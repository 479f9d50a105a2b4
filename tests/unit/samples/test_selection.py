"""A policy is refused where it is written, with line and field; older ones go on meaning what they meant."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edgeloop.samples.selection import Selection, ThresholdRule
from edgeloop.samples.service import MalformedService, NodeConfig, parse_service
from tests.unit.samples.make import classifier, looker, regressor

IMAGES = "kind: image-classifier\nimage: {size: 32}\nlabels: [a, b]\ntrainer: {backbone: a.tflite}\n"
LABELS = "kind: tabular-classifier\nfeatures: [{name: a}]\nlabels: [a, b]\n\n"
NUMBERS = "kind: tabular-regressor\nfeatures: [{name: a}]\ntarget: {name: y}\n\n"


def refused(kind: str, selection: str) -> str:
    text = f"version: 1\nname: rater\ndescription: rates\n{kind}selection:\n{selection}"
    with pytest.raises(MalformedService) as caught:
        parse_service(text, "f.yaml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "selection", "start"),
    [
        (IMAGES, "  audit: 0\n", "f.yaml:9: field selection.audit: Input should be greater than 0"),
        (IMAGES, "  sometimes: 1\n", "f.yaml:9: field selection.sometimes: Extra inputs"),
        (IMAGES, "  confidence_below: 2\n", "f.yaml:9: field selection.confidence_below: Input should be less"),
        (IMAGES, "  bytes_per_hour: 5\n", "f.yaml:9: field selection.bytes_per_hour: Input should be greater"),
        (IMAGES, "  payload: half\n", "f.yaml:9: field selection.payload: Input should be 'raw', 'embedding'"),
        (IMAGES, "  informative:\n    - 3\n", "f.yaml:10: field selection.informative.0: Input should be a valid dict"),
        (
            IMAGES,
            "  informative:\n    - {above: 1}\n",
            "f.yaml:10: field selection.informative.0: Unable to extract tag",
        ),
        (IMAGES, "  informative:\n    - {rule: luck}\n", "f.yaml:10: field selection.informative.0: Input tag 'luck'"),
        (
            IMAGES,
            "  informative:\n    - {rule: margin, below: 1}\n    - rule: entropy\n      above: 1\n",
            "f.yaml:12: field selection.informative.1.above: Input should be less than 1 (given: 1)",
        ),
        (IMAGES, "  informative: [{rule: entropy}]\n", "f.yaml:9: field selection.informative.0.above: Field required"),
        (
            IMAGES,
            "  informative: [{rule: entropy, above: 0.5, below: 1}]\n",
            "f.yaml:9: field selection.informative.0.below: Extra inputs are not permitted",
        ),
        (
            IMAGES,
            "  informative: [{rule: ibt}, {rule: ibt, box: 0.1}]\n",
            "f.yaml:8: field selection: informative names the rule ibt twice",
        ),
        (
            IMAGES,
            "  confidence_below: 0.5\n  informative: [{rule: threshold, below: 0.1}]\n",
            "f.yaml:8: field selection: informative names the rule threshold twice",
        ),
        (
            IMAGES,
            "  duplicates: {by: embedding, within: 3}\n",
            "f.yaml:9: field selection.duplicates: within is 3, a cosine distance is at most 2",
        ),
        (
            IMAGES,
            "  duplicates:\n    by: dhash\n    within: 2.5\n",
            "f.yaml:9: field selection.duplicates: within is 2.5, of dhash it is a whole number of bits",
        ),
        (
            IMAGES,
            "  validity:\n    out_of_range: drop\n",
            "f.yaml:10: field selection.validity.out_of_range: an image-classifier takes no features",
        ),
        (
            LABELS,
            "  informative:\n    - {rule: margin, below: 1}\n    - {rule: novelty, above: 0.1}\n",
            "f.yaml:11: field selection.informative.1.rule: the rule novelty needs an embedding; a tabular-classifier",
        ),
        (
            LABELS,
            "  informative: [{rule: ibt}]\n",
            "f.yaml:9: field selection.informative.0.rule: the rule ibt needs boxes",
        ),
        (
            LABELS,
            "  validity: {black_below: 3}\n",
            "f.yaml:9: field selection.validity.black_below: a tabular-classifier takes no images",
        ),
        (
            NUMBERS,
            "  validity: {smallest_side: 3}\n",
            "f.yaml:9: field selection.validity.smallest_side: a tabular-regressor takes no images",
        ),
        (
            IMAGES,
            "  validity: {smallest_side: 0}\n",
            "f.yaml:9: field selection.validity.smallest_side: Input should be greater",
        ),
        (LABELS, "  duplicates: {by: dhash, within: 3}\n", "f.yaml:9: field selection.duplicates.by: duplicates are"),
        (LABELS, "  payload: embedding\n", "f.yaml:9: field selection.payload: a tabular-classifier has no embedding"),
        (
            NUMBERS,
            "  confidence_below: 0.5\n",
            "f.yaml:9: field selection.confidence_below: a tabular-regressor has no confidence",
        ),
        *[
            (
                NUMBERS,
                f"  informative:\n    - rule: {name}\n      {limit}: 0.5\n",
                f"f.yaml:10: field selection.informative.0.rule: the rule {name} needs probabilities; a",
            )
            for name, limit in [
                ("confidence", "above"),
                ("threshold", "below"),
                ("margin", "below"),
                ("entropy", "above"),
                ("cross-entropy", "below"),
            ]
        ],
    ],
)
def test_a_policy_that_cannot_be_names_line_and_field(kind: str, selection: str, start: str) -> None:
    assert refused(kind, selection).startswith(start), refused(kind, selection)


def test_every_kind_takes_what_it_can_use() -> None:
    rules = [{"rule": "margin", "below": 0.2}, {"rule": "ibt"}, {"rule": "novelty", "above": 0.2}]
    images = looker(
        selection={
            "informative": rules,
            "validity": {"black_below": 10, "blur_below": 20, "smallest_side": 96},
            "duplicates": {"by": "dhash", "within": 4},
            "payload": "embedding",
        }
    )
    assert [rule.rule for rule in images.selection.rules] == ["margin", "ibt", "novelty"]
    assert classifier(selection={"informative": rules[:1], "validity": {"out_of_range": "drop"}}).selection.informative
    assert regressor(selection={"validity": {"out_of_range": "drop"}, "payload": "raw"}).selection.payload == "raw"


def test_an_older_policy_means_the_rule_threshold() -> None:
    older = Selection.model_validate({"audit": 0.1, "confidence_below": 0.8})
    assert older.rules == (ThresholdRule(rule="threshold", below=0.8),)
    assert Selection.model_validate({"audit": 0.1, "confidence_below": None}).rules == ()
    assert Selection().rules == ()


def test_a_node_takes_an_older_release_that_the_cloud_would_refuse_today() -> None:
    """Releases are signed as they were; a rule that can never hold selects nothing."""
    value = regressor().node_config().model_dump(mode="json")
    value["selection"] = {"audit": 0.5, "confidence_below": 0.8}
    assert NodeConfig.model_validate(value).selection.rules[0].rule == "threshold"


rules = st.one_of(
    st.builds(lambda x: {"rule": "confidence", "above": x}, st.floats(0, 1, exclude_max=True)),
    st.builds(lambda x: {"rule": "threshold", "below": x}, st.floats(0, 1)),
    st.builds(lambda x, n: {"rule": "novelty", "above": x, "size": n}, st.floats(0, 1.9), st.integers(2, 1024)),
    st.builds(lambda x, y: {"rule": "ibt", "image": x, "box": y}, st.floats(0.01, 1), st.floats(0, 1)),
)


@given(st.lists(rules, max_size=4, unique_by=lambda r: str(r["rule"])), st.sampled_from(["raw", "embedding", "both"]))
def test_a_policy_travels_whole(listed: list[dict[str, Any]], payload: str) -> None:
    policy = Selection.model_validate({"informative": listed, "payload": payload, "bytes_per_hour": 10**6})
    assert Selection.model_validate_json(policy.model_dump_json()) == policy
    assert looker(selection=policy.model_dump()).selection == policy


def test_a_kind_is_checked_with_every_fault() -> None:
    policy = Selection.model_validate({"informative": [{"rule": "ibt"}, {"rule": "margin", "below": 1}]})
    with pytest.raises(ValidationError) as caught:
        policy.check_kind("tabular-regressor")
    assert [one["loc"] for one in caught.value.errors()] == [("informative", 0, "rule"), ("informative", 1, "rule")]
    assert policy.check_kind("image-classifier") is policy
