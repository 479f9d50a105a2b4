"""Samples whose raw input stayed at the node: judged by their features, and never for lacking what they may lack."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeloop.clients.models import UnloadableModel
from edgeloop.clients.objects import MemoryStore
from edgeloop.quality.validate import Validated, suite_of, validate
from edgeloop.quality.withheld import Backbones
from edgeloop.samples.records import Sample, digest
from edgeloop.samples.releases import blob_key
from edgeloop.samples.segments import to_row
from edgeloop.samples.service import Expectation, Service
from edgeloop.samples.table import Tables
from tests.unit.samples.make import looker, picture, plain_picture, regressor, sample, withheld

EXPECTATIONS = Path(__file__).resolve().parent.parent.parent.parent / "data" / "expectations"
CONTENT = b"a backbone of three features"
BACKBONE = digest(CONTENT)
IMAGES = looker(expectations="images")


@pytest.fixture(scope="module", autouse=True)
def great_expectations() -> None:
    """Imported with its warnings unheard: it imports modules of the standard library that are on their way out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import great_expectations.expectations  # noqa: F401


class Three:
    """A backbone of three features, of the right bytes only."""

    loaded = 0

    def __init__(self, content: bytes, name: str) -> None:
        if content != CONTENT:
            raise UnloadableModel("not this one")
        self.length = 3
        Three.loaded += 1


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    monkeypatch.setattr("edgeloop.quality.withheld.Backbone", Three)
    store = MemoryStore()
    store.put(blob_key(BACKBONE), CONTENT)
    return store


def judged(
    store: MemoryStore | None, samples: Sequence[Sample], service: Service = IMAGES, suite: Any = None
) -> tuple[Validated, dict[str, str | None]]:
    """What validation found, and the reason by sample id (None for an accepted one)."""
    tables = Tables(service.name, MemoryStore().table)
    tables.merge("samples", [to_row(s) for s in samples], Sample)
    result = validate(tables, service, suite_of(service, EXPECTATIONS) if suite is None else suite, store)
    verdicts = {r["sample_id"]: r["reason"] for r in tables.read("verdicts")}
    set_aside = {r["reason"] for r in tables.read("quarantine")}
    assert set_aside == {reason for reason in verdicts.values() if reason}
    return result, verdicts


def test_features_alone_are_accepted_beside_pictures(store: MemoryStore) -> None:
    bare, raw = withheld(1, [1, 2, 3], BACKBONE), sample(2, "looker", picture(2), prediction="dog")
    grey = sample(3, "looker", plain_picture(128, (200, 200)), prediction="cat")
    result, verdicts = judged(store, [bare, raw, grey])
    assert verdicts == {
        bare.sample_id: None,
        raw.sample_id: None,
        grey.sample_id: "expect_column_values_to_be_between failed on contrast",
    }
    assert [c.column for c in result.checks] == ["contrast", "brightness", "payload_bytes", "device", "prediction"]
    assert result.checks[-1].passed, "the rule about predictions is about all samples"


def test_of_features_alone_no_rule_about_pictures_is_asked(store: MemoryStore) -> None:
    strict = [
        Expectation(type="expect_column_values_to_not_be_null", kwargs={"column": "contrast"}),
        Expectation(type="expect_column_mean_to_be_between", kwargs={"column": "brightness", "min_value": 3}),
        Expectation(
            type="expect_column_pair_values_a_to_be_greater_than_b",
            kwargs={"column_A": "payload_bytes", "column_B": "contrast"},
        ),
        Expectation(type="expect_column_values_to_not_be_null", kwargs={"column": "device"}),
    ]
    result, verdicts = judged(store, [withheld(n, [1, 2, 3], BACKBONE) for n in range(3)], suite=strict)
    assert set(verdicts.values()) == {None}
    assert [(c.column, c.passed) for c in result.checks] == [("device", True)]


def test_rules_about_other_columns_set_bare_samples_aside(store: MemoryStore) -> None:
    rule = Expectation(
        type="expect_column_values_to_be_in_set", kwargs={"column": "prediction", "value_set": ["cat", "dog"]}
    )
    odd = withheld(2, [1, 2, 3], BACKBONE, prediction="cow")
    _, verdicts = judged(store, [withheld(1, [1, 2, 3], BACKBONE), odd], suite=[rule])
    assert verdicts[odd.sample_id] == "expect_column_values_to_be_in_set failed on prediction"
    assert len([r for r in verdicts.values() if r]) == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"embedding": bytes(4)}, "embedding has 2 features, its backbone makes 3"),
        ({"embedding": bytes(8)}, "embedding has 4 features, its backbone makes 3"),
        ({"embedding": bytes(5)}, "embedding has 5 bytes, which are no float16 numbers"),
        ({"embedding": b""}, "sample has no raw input and no embedding with its backbone_digest: send one of the two"),
        ({"embedding": None}, "sample has no raw input and no embedding with its backbone_digest: send one of the two"),
        (
            {"backbone_digest": None},
            "sample has no raw input and no embedding with its backbone_digest: send one of the two",
        ),
        ({"embedding": np.array([1, np.nan, 2], "<f2").tobytes()}, "embedding has numbers that are not finite"),
        ({"embedding": np.array([1, 2, -np.inf], "<f2").tobytes()}, "embedding has numbers that are not finite"),
        (
            {"backbone_digest": "sha256:" + "0" * 64},
            f"embedding is of backbone sha256:{'0' * 64}, which is not known here",
        ),
        ({"backbone_digest": "../secrets"}, "embedding is of backbone ../secrets, which is not known here"),
        ({"payload_digest": 5}, "payload_digest is 5, not sha256: and 64 hexadecimal digits"),
        ({"payload_digest": "sha256:12"}, "payload_digest is 'sha256:12', not sha256: and 64 hexadecimal digits"),
    ],
)
def test_features_that_cannot_be_learned_from_are_set_aside(
    store: MemoryStore, changes: dict[str, Any], reason: str
) -> None:
    good, bad = withheld(1, [1, 2, 3], BACKBONE), withheld(2, [1, 2, 3], BACKBONE, **changes)
    result, verdicts = judged(store, [good, bad])
    assert verdicts == {good.sample_id: None, bad.sample_id: reason}
    assert result.reasons == {reason: 1}


def test_a_blob_that_is_no_backbone_is_none(store: MemoryStore) -> None:
    store.put(blob_key(digest(b"a head")), b"a head")
    bad = withheld(1, [1, 2, 3], digest(b"a head"))
    _, verdicts = judged(store, [bad])
    assert str(verdicts[bad.sample_id]).endswith("which is not known here")


def test_a_backbone_is_looked_up_once(store: MemoryStore) -> None:
    Three.loaded = 0
    known = Backbones(store)
    assert [known.length(BACKBONE) for _ in range(3)] == [3, 3, 3]
    assert known.length("sha256:no") is None
    assert Three.loaded == 1


def test_without_a_store_the_backbone_goes_unchecked_and_the_numbers_do_not(store: MemoryStore) -> None:
    fine, bad = withheld(1, [1, 2], "sha256:whatever"), withheld(2, [np.nan], "sha256:whatever")
    _, verdicts = judged(None, [fine, bad])
    assert verdicts == {fine.sample_id: None, bad.sample_id: "embedding has numbers that are not finite"}


def test_a_table_row_that_stayed_at_the_node_is_no_use() -> None:
    bare = sample(1, payload=b"", payload_digest=digest(b"[1.0,1.0]"))
    _, verdicts = judged(None, [bare, sample(2)], regressor())
    reason = "sample has no raw input, which a tabular-regressor needs: set selection.payload to raw or both"
    assert verdicts == {bare.sample_id: reason, sample(2).sample_id: None}


def test_an_empty_payload_without_a_digest_is_judged_as_a_payload(store: MemoryStore) -> None:
    empty = sample(1, "looker", b"", embedding=bytes(6), backbone_digest=BACKBONE, prediction="cat")
    _, verdicts = judged(store, [empty])
    assert str(verdicts[empty.sample_id]).startswith("payload of 0 bytes is not a JPEG or PNG image")


def test_a_digest_beside_its_payload_must_be_the_payloads(store: MemoryStore) -> None:
    right = sample(1, "looker", picture(1), payload_digest=digest(picture(1)), prediction="cat")
    wrong = sample(2, "looker", picture(2), payload_digest=digest(picture(1)), prediction="dog")
    _, verdicts = judged(store, [right, wrong])
    assert verdicts[right.sample_id] is None
    assert str(verdicts[wrong.sample_id]).startswith("payload_digest is 'sha256:")


def test_with_its_raw_input_a_sample_is_not_judged_by_its_features(store: MemoryStore) -> None:
    """They are computed anew where they are of no use."""
    both = sample(1, "looker", picture(1), embedding=bytes(5), backbone_digest="sha256:no", prediction="cat")
    _, verdicts = judged(store, [both])
    assert verdicts == {both.sample_id: None}
