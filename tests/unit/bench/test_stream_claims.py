"""What must hold is said line by line, and the page of benchmarks is written from what was saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgeloop.bench.stream.bench import StreamOptions, bench_data
from edgeloop.bench.stream.claims import claims, reason
from edgeloop.bench.stream.methods import find_methods
from edgeloop.bench.stream.published import BEGIN, END, NoPlace, NoResult, benchmarks_page, missed, read_results
from edgeloop.bench.stream.report import remarks, stream_html
from edgeloop.bench.stream.result import Interval, StreamBench
from edgeloop.cli import main
from tests.unit.bench.made import made_stream


@pytest.fixture(scope="module")
def result() -> StreamBench:
    kinds = find_methods(["sedna", "sedna-random", "sedna-eager", "ours"])
    return bench_data(made_stream(600), kinds, StreamOptions(seeds=2), lambda _: None)


def interval(value: float, half: float = 0.01) -> Interval:
    return Interval(value=value, low=value - half, high=value + half)


def changed(
    result: StreamBench, name: str = "ours", figures: dict[str, Interval] | None = None, **more: Any
) -> StreamBench:
    methods = [
        m.model_copy(update={"figures": m.figures | (figures or {}), **more}) if m.method == name else m
        for m in result.methods
    ]
    return result.model_copy(update={"methods": methods})


def good(result: StreamBench) -> StreamBench:
    """All that is asked for."""
    both = {"final": interval(0.05), "near_future": interval(0.03)}
    figures = {"recovered": interval(0.97), "bwt": interval(-0.005), "final": interval(0.9)}
    shares = {"label_share": 0.06, "upload_share": 0.13, "labels": 10.0, "bytes": 10.0, "over_budget": 0.0}
    held = {"final_candidate": 0.9, "over_sedna": both, "over_best_sedna": both}
    return changed(result.model_copy(update={"seeds": 5}), "ours", figures, **shares, **held)


def verdicts(result: StreamBench) -> dict[str, str]:
    return {claim.what: claim.verdict for claim in claims(result)}


def test_all_that_is_asked_for_holds(result: StreamBench) -> None:
    found = verdicts(good(result))
    assert set(found.values()) == {"holds"}
    assert len(found) == 12
    assert reason(good(result)) is None
    assert missed([good(result)]) == []


@pytest.mark.parametrize(
    ("figures", "more", "what"),
    [
        ({}, {"over_sedna": {"final": interval(0.005), "near_future": interval(0.03)}}, "ours over sedna, final ACC"),
        ({}, {"over_sedna": {"final": interval(0.05), "near_future": interval(0.0)}}, "ours over sedna, near future"),
        ({}, {"labels": 1e9}, "ours at no more labels than sedna"),
        ({}, {"bytes": 1e9}, "ours at no more bytes than sedna"),
        ({"recovered": interval(0.94)}, {}, "recovered 0.95 (aim)"),
        ({"bwt": interval(-0.011)}, {}, "BWT -0.01 or more"),
        ({}, {"label_share": 0.07}, "labelled at most 5% and the audit of 1%"),
        ({}, {"upload_share": 0.22}, "sent at most 20% and the audit of 1%"),
    ],
)
def test_each_miss_is_a_line_of_its_own(
    result: StreamBench, figures: dict[str, Interval], more: dict[str, Any], what: str
) -> None:
    missing = changed(good(result), "ours", figures, **more)
    assert [name for name, verdict in verdicts(missing).items() if verdict != "holds"] == [what]
    (line,) = missed([missing])
    assert line.startswith(f"made: {what}: ")
    assert any(said.startswith(f"{what}: not reached: ") for said in remarks(missing))


def test_two_thirds_recovered_misses_both_marks(result: StreamBench) -> None:
    found = verdicts(changed(good(result), "ours", {"recovered": interval(0.66)}))
    assert found["recovered 0.80"] == found["recovered 0.95 (aim)"] == "not reached"


def test_fewer_than_five_seeds_are_said(result: StreamBench) -> None:
    assert verdicts(result)["5 seeds"] == "not reached"


def test_the_best_of_sednas_rows_is_the_one_that_measured_best(result: StreamBench) -> None:
    eager = changed(result, "sedna-eager", {"final": interval(0.999)})
    assert any("best of Sedna's rows, sedna-eager, final ACC" in claim.what for claim in claims(eager))
    final = {m.method: m.figures["final"].value for m in result.methods}
    best = max(final[name] for name in final if name.startswith("sedna"))
    ours = next(m for m in result.methods if m.method == "ours")
    assert ours.over_best_sedna["final"].value == pytest.approx(final["ours"] - best)
    assert ours.over_sedna["final"].value == pytest.approx(final["ours"] - final["sedna"])


def test_what_cannot_be_told_is_no_miss(result: StreamBench) -> None:
    two = good(result).model_copy(update={"buckets": ["b0", "b1"]})
    assert verdicts(two)["ours over sedna, near future"] == "cannot be told"
    flat = [
        m.model_copy(update={"figures": {k: v for k, v in m.figures.items() if k != "recovered"}}) for m in two.methods
    ]
    bare = two.model_copy(update={"methods": flat})
    assert verdicts(bare)["recovered 0.80"] == "cannot be told"
    assert missed([bare]) == []
    assert claims(bare.model_copy(update={"methods": [m for m in flat if m.method != "ours"]})) == []


def test_the_reason_tells_gate_budget_and_learning_apart(result: StreamBench) -> None:
    bad = changed(good(result), "ours", {"recovered": interval(0.5)})
    assert str(reason(bad)).startswith("not the gate's doing")
    assert str(reason(changed(bad, final_candidate=0.95, held=1.0))).startswith("the gate held 1.0 of 2 candidates")
    assert str(reason(changed(bad, over_budget=2.0))).startswith("2.0 of 2 candidates took longer")


def test_the_page_keeps_what_stands_outside_of_the_marks(result: StreamBench) -> None:
    page = benchmarks_page([result], None, "b.png")
    again = benchmarks_page([good(result)], f"before\n\n{page}\nafter\n", "b.png")
    assert again.startswith("before\n")
    assert again.endswith("after\n")
    assert again.count(BEGIN) == again.count(END) == 1
    assert "Nothing was missed." in again
    assert "Nothing was missed." not in page
    for text in ("a page", f"{END} {BEGIN}", BEGIN):
        with pytest.raises(NoPlace, match="add both"):
            benchmarks_page([result], text, "b.png")


def test_every_table_of_the_page_has_as_many_cells_as_its_header(result: StreamBench) -> None:
    lines = [line for line in benchmarks_page([result], None, "b.png").splitlines() if line.startswith("|")]
    widths = {line.count("|") for line in lines if line.startswith(("| ours |", "| method |"))}
    assert len(widths) == 2
    assert sum(line.startswith("| ours |") for line in lines) == 2
    assert "<li>5 seeds: not reached: 2</li>" in stream_html(result)


def test_the_command_writes_page_and_figure(
    result: StreamBench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "made.json"
    saved.write_text(result.model_dump_json(), encoding="utf-8")
    page = tmp_path / "docs" / "benchmarks.md"
    with pytest.raises(SystemExit) as ended:
        main(["--json", "--home", str(tmp_path / "home"), "bench", "report", str(saved), "--markdown", str(page)])
    assert ended.value.code == 0
    said = json.loads(capsys.readouterr().out)
    assert said["streams"] == ["made"]
    assert "made: 5 seeds: 2" in said["not_reached"]
    assert "![Recovered fraction of every method on every stream](benchmarks.png)" in page.read_text(encoding="utf-8")
    assert (tmp_path / "docs" / "benchmarks.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_no_result_is_named(result: StreamBench, tmp_path: Path) -> None:
    good_one, old, noise = tmp_path / "good.json", tmp_path / "old.json", tmp_path / "noise.json"
    good_one.write_text(result.model_dump_json(), encoding="utf-8")
    old.write_text(result.model_dump_json(exclude={"budget"}), encoding="utf-8")
    noise.write_bytes(b"\xff")
    with pytest.raises(NoResult, match=r"old\.json is no result of this version \(budget: Field required\)"):
        read_results([old])
    with pytest.raises(NoResult, match=r"noise\.json is no result") as caught:
        read_results([noise])
    assert "\n" not in str(caught.value)
    with pytest.raises(NoResult, match="stream made is in 2 of the files"):
        read_results([good_one, good_one])
    with pytest.raises(NoResult, match="cannot be read"):
        read_results([tmp_path / "absent.json"])
