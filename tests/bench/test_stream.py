"""The stream benchmark runs on real streams from the command line, and joint retraining is what bounds the rest."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.e2e


def bench(home: Path, shared: Path, name: str, *more: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "edgeloop.cli", "--home", str(home), "bench", "stream", name, "--json"]
    command += ["--data", str(shared / "datasets"), *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=220)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout))


def written(folder: Path) -> dict[str, int]:
    """When each file was."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.timeout(240)
def test_the_digits_drift_and_replay_of_typical_labels_beats_sedna(tmp_path: Path, shared: Path) -> None:
    found = bench(tmp_path, shared, "digits", "--seeds", "2", "--limit", "600", "--methods", "sedna,ours")
    assert found["buckets"] == ["mnist", "usps", "optdigits", "semeion"]
    final = {m["method"]: m["figures"]["final"]["value"] for m in found["methods"]}
    assert final["frozen"] < final["ours"] < final["joint"]
    ours = next(m for m in found["methods"] if m["method"] == "ours")
    assert ours["over_sedna"]["final"]["low"] > 0
    assert ours["label_share"] <= 0.061


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("name", "buckets", "labels"), [("elec", 10, 2), ("weather", 10, 2), ("wine", 2, 7)])
def test_the_tables_are_streams(tmp_path: Path, shared: Path, name: str, buckets: int, labels: int) -> None:
    found = bench(tmp_path, shared, name, "--seeds", "1", "--limit", "1000", "--methods", "random")
    assert len(found["buckets"]) == buckets
    assert len(found["labels"]) == labels
    assert (found["same_as_last"] is None) == (name == "wine")
    if name == "elec":  # the label before is a better answer than most models'
        assert found["same_as_last"]["value"] > 0.8


@pytest.mark.timeout(240)
def test_photos_are_features_that_are_computed_once(tmp_path: Path, shared: Path) -> None:
    backbone = shared / "models" / "mobilenet_v1_1.0_224_quant_embedding_extractor.tflite"
    more = ("--seeds", "1", "--methods", "random", "--backbone", str(backbone))
    first = bench(tmp_path, shared, "cats-dogs", *more)
    kept = written(tmp_path / "bench" / "stream")
    assert kept
    again = bench(tmp_path, shared, "cats-dogs", *more)
    assert written(tmp_path / "bench" / "stream") == kept
    assert first["methods"][0]["matrix"] == again["methods"][0]["matrix"]
    assert first["methods"][0]["figures"]["final"]["value"] > 0.9


@pytest.mark.timeout(240)
def test_saved_results_become_the_page_and_no_baseline_is_over_budget(tmp_path: Path, shared: Path) -> None:
    results = []
    for name in ("digits", "wine"):
        results.append(str(tmp_path / f"{name}.json"))
        found = bench(tmp_path, shared, name, "--seeds", "1", "--limit", "400", "--json", results[-1])
        assert {m["method"]: m["over_budget"] for m in found["methods"] if m["over_budget"]} == {}
        assert found == json.loads(Path(results[-1]).read_text(encoding="utf-8"))
    page = tmp_path / "benchmarks.md"
    command = [sys.executable, "-m", "edgeloop.cli", "--home", str(tmp_path), "bench", "report", *results]
    done = subprocess.run([*command, "--markdown", str(page)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-3000:]
    text = page.read_text(encoding="utf-8")
    assert text.count("## ") == 2
    assert "| requirement | digits | wine |" in text
    assert "not reached: digits: 5 seeds: 1" in done.stdout
    assert page.with_suffix(".png").is_file()
