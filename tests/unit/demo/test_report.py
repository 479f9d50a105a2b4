"""The page stands alone, is well formed, and lets nothing in that it was told."""

from __future__ import annotations

import base64
from html.parser import HTMLParser
from pathlib import Path

import pytest

from edgeloop.demo.report import report_page, write_report
from edgeloop.demo.result import DemoResult
from tests.unit.demo.sample_run import run, turn

VOID = {"meta", "link", "img", "br"}
HOSTILE = "</td></table><script>alert(1)</script><img src=http://evil.example/x onerror='x'> \" & %"


class Page(HTMLParser):
    """Checks that tags nest, and keeps elements and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"doubled attribute on {tag}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page(result: DemoResult | None = None, plot: bytes = b"png") -> Page:
    return Page(report_page(result or run(), plot))


def test_page_is_written_whole_with_the_picture_inside(tmp_path: Path) -> None:
    write_report(run(), tmp_path / "report.html", b"\x89PNG")
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    (picture,) = Page(html).all("img")
    assert base64.b64decode((picture["src"] or "").removeprefix("data:image/png;base64,")) == b"\x89PNG"
    assert "Round 3: champion 86.0 % before, 86.0 % after, refused" in (picture["alt"] or "")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_nothing_is_fetched_and_nothing_runs() -> None:
    seen = page()
    fetched = [a.get("src") or a.get("href") or "" for tag, a in seen.elements if tag != "a"]
    assert all(address.startswith("data:") for address in fetched if address)
    assert "url(" not in report_page(run(), b"") and "@import" not in report_page(run(), b"")
    assert not seen.all("script")
    assert [link["href"] for link in seen.all("a")] == ["http://127.0.0.1:4200", "http://127.0.0.1:5000"]


def test_each_table_has_a_caption_and_named_columns_and_rows() -> None:
    seen = page()
    assert len(seen.all("table")) == len(seen.all("caption")) == 3
    assert {heading["scope"] for heading in seen.all("th")} == {"col", "row"}


def test_page_tells_the_run() -> None:
    text = page().text
    for words in (
        "the wrong labels of round 3 were refused",
        "Simulated: the devices and the drift.",
        "Refused worse than the champion by 45 points",
        "Promoted: version 4",
        "3 promoted, 1 refused",
        "600 of 2400 (25 %)",
        "serves another release",
    ):
        assert words in text


def test_digest_is_short_with_the_whole_one_at_hand() -> None:
    (first, *_) = page().all("code")
    assert first["title"] == run().fleet[0].serving
    assert (first["title"] or "").removeprefix("sha256:")[:12] in page().text
    assert (first["title"] or "").removeprefix("sha256:")[:13] not in page().text


@pytest.mark.parametrize("field", ["reason", "title", "version"])
def test_hostile_round_stays_text(field: str) -> None:
    seen = page(run(rounds=[turn(0, None, 0.5, True, **{field: HOSTILE})]))
    assert not seen.all("script")
    assert len(seen.all("img")) == 1
    assert "<script>alert(1)</script>" in seen.text


@pytest.mark.parametrize("field", ["service", "simulated"])
def test_hostile_run_stays_text(field: str) -> None:
    seen = page(run(**{field: HOSTILE}))
    assert not seen.all("script")
    assert "<script>alert(1)</script>" in seen.text


def test_hostile_node_and_stage_stay_text() -> None:
    node = {"node": HOSTILE, "ring": 0, "serving": HOSTILE, "wanted": None}
    seen = page(run(fleet=[node], rounds=[turn(0, None, 0.5, True, seconds={HOSTILE: 1.0})]))
    assert not seen.all("script")
    assert len(seen.all("img")) == 1
    assert "nothing is wanted" in seen.text


@pytest.mark.parametrize("address", ["javascript:alert(1)", "/tmp/mlflow.db", "http://[broken"])
def test_only_web_addresses_become_links(address: str) -> None:
    pages = {"prefect": address, "mlflow": None}
    seen = page(run(pages=pages))
    assert not seen.all("a")
    assert address in seen.text


def test_what_was_not_given_leaves_no_empty_section() -> None:
    bare = page(run(pages={}, fleet=[], rounds=[turn(0, None, 0.5, True, seconds={})]))
    assert "While the demo is up" not in bare.text
    assert "Where the time went" not in bare.text
    assert "No node reported." in bare.text
