"""A service YAML that is wrong is refused with file, line and field; one that is right reaches the node whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from edgeloop.samples.service import (
    MalformedService,
    NodeConfig,
    Service,
    UnknownService,
    list_services,
    load_service,
    parse_service,
)
from tests.unit.samples.make import classifier, looker, regressor

ROOT = Path(__file__).resolve().parent.parent.parent

GOOD = """\
version: 1
name: rater
kind: tabular-regressor
description: rates
features:
  - {name: a, min: 0, max: 10}
  - {name: b}
target: {name: y}
gate:
  min_samples: 40
rings: [0, 1]
"""


def test_what_is_left_out_has_its_default() -> None:
    service = parse_service(GOOD, "rater.yaml")
    assert service.gate.min_samples == 40
    assert service.gate.confidence == 0.99
    assert service.feature_names == ["a", "b"]
    assert (service.metric, service.is_classifier) == ("r2", False)
    assert (looker().metric, looker().is_classifier) == ("accuracy", True)


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "message"),
    [
        ("version: 1", "version: 2", 1, "version", "Input should be 1"),
        ("version: 1", "", 1, "version", "Field required"),
        ("name: rater", "name: Rater", 2, "name", "should match pattern"),
        ("name: rater", "name: -rater", 2, "name", "should match pattern"),
        ("name: rater", f"name: {'a' * 64}", 2, "name", "should match pattern"),
        ("name: rater", "name: 5", 2, "name", "valid string"),
        ("tabular-regressor", "sorcery", 3, "kind", "given: 'sorcery'"),
        ("{name: b}", "{nam: b}", 7, "features.1.name", "Field required"),
        ("{name: b}", "{name: b, step: 3}", 7, "features.1.step", "Extra inputs are not permitted"),
        ("min: 0", "min: low", 6, "features.0.min", "given: 'low'"),
        ("min_samples: 40", "min_samples: 1", 10, "gate.min_samples", "greater than or equal to 2"),
        ("min_samples: 40", "min_sample: 40", 10, "gate.min_sample", "Extra inputs"),
        ("min_samples: 40", "confidence: 1.0", 10, "gate.confidence", "less than 1"),
        ("min_samples: 40", "trust: []", 10, "gate.trust", "at least 1"),
        ("min_samples: 40", "trust: [oracle]", 10, "gate.trust.0", "'human', 'device' or 'pseudo'"),
        ("rings: [0, 1]", "rings: []", 11, "rings", "at least 1"),
        ("rings: [0, 1]", "rings: [0, -1]", 11, "rings.1", "greater than or equal to 0"),
        ("rings: [0, 1]", "selection: {audit: 0}", 11, "selection.audit", "greater than 0"),
        ("rings: [0, 1]", "colour: red", 11, "colour", "Extra inputs"),
        ("target: {name: y}\n", "", 1, "service", "kind tabular-regressor needs the field target"),
        ("tabular-regressor", "tabular-classifier", 1, "service", "needs the field labels"),
        ("tabular-regressor", "image-classifier", 1, "service", "needs the field image"),
    ],
)
def test_a_malformed_service_names_file_line_and_field(old: str, new: str, line: int, field: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(MalformedService) as caught:
        parse_service(GOOD.replace(old, new, 1), "some/rater.yaml")
    text = str(caught.value)
    assert text.startswith(f"some/rater.yaml:{line}: field {field}: "), text
    assert message in text
    assert "\n" not in text


def test_an_image_classifier_needs_a_backbone() -> None:
    text = "version: 1\nname: x\nkind: image-classifier\ndescription: d\nimage: {size: 32}\nlabels: [a, b]\n"
    with pytest.raises(MalformedService, match=r"field service: .*needs the field trainer\.backbone"):
        parse_service(text, "x.yaml")


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("", "f.yaml:1: a service is a mapping"),
        ("- 1\n", "f.yaml:1: a service is a mapping"),
        ("just words", "f.yaml:1: a service is a mapping"),
        ("version: 1\nname: [\n", "f.yaml:3: not YAML"),
        ("version: 1\n\tname: x\n", "f.yaml:2: not YAML"),
        ("a: 1\n? [b]\n: 2\n", "f.yaml:2: not YAML"),
        ("version: !!python/object:os.system 1\n", "f.yaml:1: not YAML"),
    ],
)
def test_what_is_no_yaml_mapping_is_refused_with_its_line(text: str, start: str) -> None:
    with pytest.raises(MalformedService) as caught:
        parse_service(text, "f.yaml")
    assert str(caught.value).startswith(start)


@pytest.mark.parametrize(
    "text", ["version: 1\nname: a\0b\n", "version: 1\nsince: 2024-13-45\n", "[" * 5000], ids=["NUL", "date", "deep"]
)
def test_text_that_the_yaml_reader_itself_stumbles_on_is_refused(text: str) -> None:
    with pytest.raises(MalformedService, match=r"f.yaml"):
        parse_service(text, "f.yaml")


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rater.yaml").write_bytes(GOOD.replace("rates", "rätes").encode("latin-1"))
    with pytest.raises(MalformedService, match=r"rater.yaml"):
        load_service("rater", [tmp_path])


def test_the_first_folder_that_has_it_wins(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, text in ((first, GOOD.replace("rates", "mine")), (second, GOOD)):
        folder.mkdir()
        (folder / "rater.yaml").write_text(text, encoding="utf-8")
    assert load_service("rater", [tmp_path / "absent", first, second]).description == "mine"
    assert load_service("rater", [second, first]).description == "rates"


def test_an_unknown_service_lists_those_there_are(tmp_path: Path) -> None:
    for name in ("rater", "also"):
        (tmp_path / f"{name}.yaml").write_text(GOOD.replace("name: rater", f"name: {name}"), encoding="utf-8")
    (tmp_path / "notes.txt").write_text("no service", encoding="utf-8")
    assert list_services([tmp_path, tmp_path / "absent"]) == ["also", "rater"]
    with pytest.raises(UnknownService) as caught:
        load_service("other", [tmp_path])
    assert "unknown service 'other'; known: also, rater" in str(caught.value)
    assert str(tmp_path / "other.yaml") in str(caught.value)
    with pytest.raises(UnknownService, match="known: none"):
        load_service("other", [tmp_path / "absent"])


def test_a_file_that_names_another_service_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text(GOOD, encoding="utf-8")
    with pytest.raises(MalformedService, match="field name: is 'rater', the file says 'other'"):
        load_service("other", [tmp_path])


@pytest.mark.parametrize("service", [regressor(), classifier(), looker()], ids=["regressor", "classifier", "images"])
def test_the_nodes_part_round_trips(service: Service) -> None:
    config = service.node_config()
    again = NodeConfig.model_validate_json(config.model_dump_json())
    assert again == config
    assert again.service == service.name
    assert again.kind == service.kind
    assert again.feature_names == service.feature_names
    assert again.labels == service.labels
    assert again.selection == service.selection


def test_a_node_keeps_what_a_newer_cloud_tells_it() -> None:
    value: dict[str, Any] = regressor().node_config().model_dump(mode="json") | {"later": 1}
    assert NodeConfig.model_validate(value).model_dump()["later"] == 1


@pytest.mark.parametrize("path", sorted((ROOT / "deployments" / "services").glob("*.yaml")), ids=lambda p: p.stem)
def test_the_services_that_ship_are_valid(path: Path) -> None:
    service = load_service(path.stem, [path.parent])
    assert yaml.safe_load(path.read_text(encoding="utf-8"))["name"] == service.name


def test_going_on_does_not_go_with_pseudo_labels() -> None:
    trainer = {"pipeline": "edgeloop.learning.tabular:logistic", "incremental": True}
    assert classifier(trainer=trainer).trainer.incremental
    with pytest.raises(ValueError, match=r"leave out trainer\.incremental or labelling\.pseudo\.enabled"):
        classifier(trainer=trainer, labelling={"pseudo": {"enabled": True}})
