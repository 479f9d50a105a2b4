"""What docs/ and data/ show is there: links, paths, tests, commands, code, schemas and examples.

The schemas in data/schemas are written from the models by  ``python -m tests.unit.test_docs --write``.
"""

from __future__ import annotations

import ast
import importlib
import json
import re
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import pytest
from pydantic import BaseModel

from edgeloop.cli import cli
from edgeloop.samples import moves, records, releases, service
from tests.unit.pages import DOCS, PAGES, ROOT, blocks, codes, commands, name_of, prose, sections

SCHEMAS = ROOT / "data" / "schemas"
EXAMPLES = ROOT / "data" / "examples"
RECORDS: dict[str, type[BaseModel]] = {
    "sample": records.Sample,
    "label": records.Label,
    "release": releases.Release,
    "wanted": releases.Wanted,
    "moves": moves.Moves,
    "report": records.Report,
    "service": service.Service,
}
REFRESH = "run  python -m tests.unit.test_docs --write"


# --- pages as such


def slug(heading: str) -> str:
    """The anchor that a heading gets on GitHub."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{name_of(page)} links to {target}"
        if anchor:
            assert anchor in {slug(h) for h in sections(file)}, f"{name_of(page)} links to {target}"


def test_tests_that_are_named_exist() -> None:
    named = {(page, name) for page in PAGES for name in re.findall(r"`(test_\w+)`", prose(page))}
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert named and {(page, name) for page, name in named if f"def {name}(" not in code} == set()


def test_every_page_is_in_the_index() -> None:
    linked = {(DOCS / t.partition("#")[0]).resolve() for t in re.findall(r"\]\(([^)]+)\)", prose(DOCS / "index.md"))}
    assert set(DOCS.rglob("*.md")) - {DOCS / "index.md"} == linked


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_paths_that_are_named_exist(page: Path) -> None:
    tops = {p.name for p in ROOT.iterdir() if p.is_dir() and not p.name.startswith(".")}
    for code in codes(prose(page)):
        if re.fullmatch(r"[\w.-]+(/[\w.*-]+)+/?", code) and code.split("/")[0] in tops and "/v1" not in code:
            # What stands in angle brackets or in capitals is a placeholder and does not match (nor a topic).
            assert list(ROOT.glob(code)), f"{name_of(page)} names {code}"
        if re.fullmatch(r"edgeloop(\.\w+)+:\w+", code):
            module, _, attribute = code.partition(":")
            assert hasattr(importlib.import_module(module), attribute), f"{name_of(page)} names {code}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_names_no_package_index_and_no_machine(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"pypi|pythonhosted|npmjs|index-url|/simple\b", text, re.IGNORECASE)
    assert not re.search(r"(?<![\w.>])/(home|root|Users|work|tmp|mnt)/", text)


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=name_of)
def test_python_that_is_shown_parses_and_imports_what_is_there(page: Path) -> None:
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("edgeloop"):
                module = importlib.import_module(str(node.module))
                assert all(hasattr(module, a.name) for a in node.names), f"{name_of(page)}: {ast.unparse(node)}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_that_are_shown_exist(page: Path) -> None:
    known = {" ".join(words): command for words, command in commands(cli)}
    lines = [line for text in [*blocks(page, "sh"), *codes(prose(page))] for line in text.splitlines()]
    for line in lines:
        shown = re.match(r"(?:\.venv/bin/)?edgeloop ([a-z]+)(?: ([a-z]+))?", line)
        if shown:
            name = f"edgeloop {shown[1]}"
            assert name in known, f"{name_of(page)} shows  {line}"
            if isinstance(known[name], click.Group) and shown[2]:
                assert f"{name} {shown[2]}" in known, f"{name_of(page)} shows  {line}"


# --- data


def schema_text(model: type[BaseModel]) -> str:
    return json.dumps(model.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("name", RECORDS)
def test_schemas_are_the_models(name: str) -> None:
    path = SCHEMAS / f"{name}.json"
    assert path.is_file(), REFRESH
    assert path.read_text(encoding="utf-8") == schema_text(RECORDS[name]), REFRESH


@pytest.mark.parametrize("name", RECORDS)
def test_examples_validate(name: str) -> None:
    text = (EXAMPLES / f"{name}.json").read_text(encoding="utf-8")
    record = RECORDS[name].model_validate_json(text)
    assert not record.model_extra, "an example shows known fields only"
    assert set(json.loads(text)) >= {n for n, f in type(record).model_fields.items() if f.is_required()}


def test_there_is_a_schema_and_an_example_of_each_record_only() -> None:
    assert {p.stem for p in SCHEMAS.iterdir()} == {p.stem for p in EXAMPLES.iterdir()} == set(RECORDS)


def test_the_examples_belong_together() -> None:
    def example(name: str) -> dict[str, Any]:
        return dict(json.loads((EXAMPLES / f"{name}.json").read_text(encoding="utf-8")))

    sample, label, release = example("sample"), example("label"), example("release")
    payload = sample["payload"].encode()
    at = datetime.fromisoformat(sample["captured_at"])
    assert sample["sample_id"] == records.sample_id(sample["service"], sample["device"], at, payload)
    assert sample["group"] == records.digest(payload)
    assert label["sample_id"] == sample["sample_id"]
    name = releases.Release.model_validate(release).digest
    assert name == sample["model_digest"] == example("wanted")["release"] == example("report")["serving"]


def test_the_service_of_the_how_to_is_one() -> None:
    (text,) = blocks(DOCS / "how-to" / "add-a-service.md", "yaml")
    made = service.parse_service(text, "pump-watch.yaml")
    from edgeloop.learning.tabular import find_pipeline

    find_pipeline(made.trainer.pipeline)(seed=0, **made.trainer.params)


def write_schemas() -> None:
    SCHEMAS.mkdir(parents=True, exist_ok=True)
    for name, model in RECORDS.items():
        (SCHEMAS / f"{name}.json").write_text(schema_text(model), encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        raise SystemExit("usage: python -m tests.unit.test_docs --write")
    write_schemas()
