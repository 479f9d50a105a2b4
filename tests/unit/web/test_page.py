"""What the page shows of a fleet, and what it lets nobody do."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any

import pytest

from edgeloop.errors import Unavailable
from edgeloop.web.page import is_link, short
from tests.unit.web.browser import Browser
from tests.unit.web.fleet import DIGEST, OTHER, empty, healthy, node, part, troubled

Look = Callable[[], dict[str, Any]]
HOSTILE = "<script>alert(1)</script>\"' onload=x {{ 1234567*7 }}"


def shown(look: Look) -> str:
    """The text of the page as a person reads it, without tags and in one line."""
    answer = Browser(look).get("/")
    assert answer.status_code == 200
    return " ".join(re.sub(r"<[^>]+>", " ", answer.text).split())


def test_a_fleet_with_nothing_wrong() -> None:
    text = shown(healthy)
    assert "None that can be seen from here." in text
    assert "digits version 4 ab12cd34ef56 done ring 1: 3 of 3 nodes serve it" in text
    assert "wine-rater No version is approved yet." in text
    assert "2 of 2 online." in text
    assert "edge-2 1 digits ab12cd34ef56 the same online" in text
    assert "ingest/ingest every 30 s on Completed" in text
    assert "loop/loop by hand paused never" in text
    assert "broker up mqtt://127.0.0.1:1883" in text


def test_what_is_wrong_is_said_in_words() -> None:
    text = shown(troubled)
    assert "Problems (6)" in text
    assert "mlflow does not work: http://127.0.0.1:5000/health does not answer" in text
    assert "edge-2 is down: its process is gone" in text
    assert "digits: version 5 was taken back: ring 0: edge-1 gave it up" in text
    assert "edge-1 (digits, ring 0) reports an error: release 9f8e7d6c5b4a" in text
    assert "edge-2 (digits, ring 1) is offline" in text
    assert "The last run of ingest/ingest ended as Failed" in text
    assert "edge-3 1 cats-dogs ab12cd34ef56 9f8e7d6c5b4a online, switching" in text
    assert "edge-4 1 cats-dogs none none online, no release" in text


def test_nothing_there_and_nothing_known_are_told_apart() -> None:
    text = shown(empty)
    assert "No stack runs on this home: start one with edgeloop up" in text
    assert "MLflow at http://127.0.0.1:5000 does not answer" in text
    assert "Services Not known" in text
    assert "Nodes No node has reported yet." in text


def test_a_digest_is_short_and_whole_where_asked() -> None:
    assert f'<code title="{DIGEST}">ab12cd34ef56</code>' in Browser(healthy).get("/").text
    assert (short(OTHER), short(None)) == ("9f8e7d6c5b4a", "none")


def test_addresses_are_links_only_where_a_browser_may_go() -> None:
    found = healthy()
    found["stack"]["parts"].append(part("odd", "javascript:alert(1)"))
    html = Browser(lambda: found).get("/").text
    assert '<a href="http://127.0.0.1:4200">' in html
    assert 'href="javascript' not in html
    assert not any(is_link(a) for a in ("mqtt://x", "javascript:http://x", "", None, "//x"))


def hostile() -> dict[str, Any]:
    """A fleet in which everything that others may write is an attack."""
    found = healthy()
    found["home"] = HOSTILE
    found["problems"] = [HOSTILE]
    found["champions"] = {HOSTILE: dict.fromkeys(("version", "release", "rollout", "reason"), HOSTILE)}
    found["nodes"] = [node(HOSTILE, 0, HOSTILE, serving=HOSTILE, wanted=f"{HOSTILE}2", last_error=HOSTILE)]
    found["flows"] = [dict.fromkeys(("name", "flow", "schedule", "last_state"), HOSTILE)]
    found["flows"][0] |= {"paused": False, "url": f"http://{HOSTILE}"}
    found["stack"]["parts"] = [part(HOSTILE, f"http://{HOSTILE}", HOSTILE)]
    return found


def test_hostile_strings_stay_text() -> None:
    html = Browser(hostile).get("/").text
    assert "<script" not in html
    assert "8641969" not in html
    assert html.count("&lt;script&gt;") > 10
    # No value ends the attribute it stands in.
    attributes = re.findall(r"<(?:a|code)\b([^>]*)>", html)
    assert attributes
    assert all(re.fullmatch(r'(\s(href|title)="[^"]*")?', a) for a in attributes)


@pytest.mark.parametrize("path", ["/", "/status.json", "/healthz", "/style.css", "/missing"])
def test_every_answer_forbids_what_the_page_does_not_do(path: str) -> None:
    headers = Browser(healthy).get(path).headers
    assert headers["content-security-policy"].startswith("default-src 'none'; style-src 'self'")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] == ("max-age=300" if path == "/style.css" else "no-store")


def test_the_page_asks_for_nothing_that_its_own_rules_forbid() -> None:
    html = Browser(troubled).get("/").text
    assert "<script" not in html
    assert " style=" not in html
    assert re.findall(r'<link rel="stylesheet" href="([^"]*)">', html) == ["/style.css"]


def test_the_style_is_served_as_one() -> None:
    answer = Browser(healthy).get("/style.css")
    assert answer.headers["content-type"].startswith("text/css")
    assert "prefers-color-scheme: dark" in answer.text


def test_it_refreshes_itself_unless_held_still() -> None:
    assert 'http-equiv="refresh"' in Browser(healthy).get("/").text
    assert 'http-equiv="refresh"' not in Browser(healthy).get("/?still=1").text


def test_another_name_for_this_machine_is_refused() -> None:
    assert Browser(healthy).get("/status.json", headers={"host": "rebound.example"}).status_code == 400
    assert Browser(healthy).get("/status.json", headers={"host": "localhost:9"}).status_code == 200


@pytest.mark.parametrize("path", ["/", "/status.json"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_changed(method: str, path: str) -> None:
    assert Browser(healthy).request(method, path).status_code == 405


def test_programs_get_the_same() -> None:
    found = Browser(troubled).get("/status.json").json()
    assert found.pop("at")
    assert found.pop("late") is None
    assert found == troubled()


def test_the_page_stays_when_the_look_fails() -> None:
    def refused() -> dict[str, Any]:
        raise Unavailable(f"{HOSTILE} is away")

    browser = Browser(refused)
    page, status = browser.get("/"), browser.get("/status.json")
    assert page.status_code == 200
    assert "Nothing to show yet" in page.text
    assert "<script" not in page.text
    assert (status.status_code, status.json()) == (503, {"error": f"{HOSTILE} is away"})


def test_a_look_that_hangs_keeps_nobody_waiting() -> None:
    go_on = threading.Event()

    def slow() -> dict[str, Any]:
        go_on.wait(30)
        return healthy()

    browser = Browser(slow, patience=0.05)
    assert browser.get("/healthz").json() == {"live": True}
    assert "no answer in 0.05 s" in browser.get("/").text
    go_on.set()
    assert browser.get("/healthz").status_code == 200
