"""The audit share is uniform and independent, every probability is exact, and estimates from them are unbiased."""

from __future__ import annotations

import io
import random
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from edgeloop.clients.models import Answer
from edgeloop.edge.selection import lease
from edgeloop.edge.selection.selector import Choice, Selectors, audit_draw
from edgeloop.samples.service import NodeConfig
from tests.unit.edge.choosing import SERVICE, Chooser, Clock, answer, config, rows, unsure

shares = st.floats(0.001, 1)
limits = st.floats(0, 1)
BLACK = np.zeros((32, 32, 3), np.uint8)
NOISE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


@pytest.fixture
def on_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases cost no disk where a test counts chances, not crashes."""
    monkeypatch.setattr(lease, "write_durably", lambda path, data: None)


@given(limits, limits, shares, st.text(max_size=20))
def test_the_draw_alone_decides_the_audit(confidence: float, below: float, audit: float, name: str) -> None:
    policy = config(audit=audit, informative=unsure(below))
    choice = Selectors(Path("unused"), b"s").choose(policy, name, b"", answer(confidence), 10)
    assert (choice.selected_by == "audit") == (audit_draw(b"s", name) < audit)


@given(limits, limits, shares, st.text(max_size=20))
def test_what_is_not_audited_is_sent_by_a_rule_or_not_at_all(
    confidence: float, below: float, audit: float, name: str
) -> None:
    policy = config(audit=audit, informative=unsure(below))
    choice = Selectors(Path("unused"), b"s").choose(policy, name, b"", answer(confidence), 10)
    is_unsure = confidence < below
    if choice.selected_by != "audit":
        assert (choice.selected_by, choice.dropped) == (("threshold", None) if is_unsure else (None, "uninformative"))
    assert choice.probability == (1.0 if is_unsure else audit)
    assert 0 <= choice.value <= 1


@settings(max_examples=20)
@given(st.binary(min_size=1, max_size=64), st.floats(0.05, 0.95))
def test_the_audit_draw_is_uniform_over_samples(salt: bytes, audit: float) -> None:
    count = 2000
    hits = sum(audit_draw(salt, f"{n:064x}") < audit for n in range(count))
    assert abs(hits / count - audit) <= 5 * (audit * (1 - audit) / count) ** 0.5


def test_the_audit_draw_is_the_same_for_one_sample_and_another_for_another_node() -> None:
    draws = [audit_draw(b"one", f"{n:064x}") for n in range(500)]
    assert draws == [audit_draw(b"one", f"{n:064x}") for n in range(500)]
    others = [audit_draw(b"two", f"{n:064x}") for n in range(500)]
    both = sum(a < 0.5 and b < 0.5 for a, b in zip(draws, others, strict=True))
    assert both / 500 == pytest.approx(0.25, abs=0.1)


HARSH = {
    "validity": {"black_below": 30, "blur_below": 1e6},
    "duplicates": {"by": "dhash", "within": 64},
    "informative": unsure(0.7),
}


def test_the_audit_is_drawn_whatever_is_invalid_or_a_duplicate(tmp_path: Path) -> None:
    """Black frames, blurred ones, duplicates and sure ones are audited as often as any other."""
    chooser, policy, count = Chooser(tmp_path), config(audit=0.3, **HARSH), 4000
    kinds = [answer(0.2, image=BLACK), answer(0.2, image=NOISE), answer(0.99), answer(0.2)]
    audited = [0] * len(kinds)
    for number in range(count):
        choice = chooser.ask(policy, kinds[number % 4])
        audited[number % 4] += choice.selected_by == "audit"
        if number % 4 < 3:
            assert choice.probability == 0.3
    assert set(chooser.tally) == {"audit", "invalid-black", "invalid-blur", "uninformative", "threshold"}
    deviation = (0.3 * 0.7 / (count / 4)) ** 0.5
    assert all(abs(n / (count / 4) - 0.3) <= 5 * deviation for n in audited)


@pytest.mark.parametrize("why", ["duplicate", "out-of-range"])
def test_duplicates_and_rows_out_of_range_are_audited_as_often_as_any_other(tmp_path: Path, why: str) -> None:
    chooser, count = Chooser(tmp_path), 1500
    if why == "duplicate":
        policy = config(audit=0.3, informative=unsure(0.7), duplicates={"by": "dhash", "within": 8})
        given, payload = answer(0.2, image=NOISE), b""
        assert chooser.ask(policy, given).selected_by in {"audit", "threshold"}, "the first is none"
    else:
        policy = rows(audit=0.3, informative=unsure(0.7), validity={"out_of_range": "drop"})
        given, payload = answer(0.2), b"[11,0]"
    chosen = [chooser.ask(policy, given, payload=payload) for _ in range(count)]
    assert {(c.selected_by, c.dropped, c.probability) for c in chosen} == {("audit", None, 0.3), (None, why, 0.3)}
    audited = sum(c.selected_by == "audit" for c in chosen)
    assert abs(audited / count - 0.3) <= 5 * (0.3 * 0.7 / count) ** 0.5


def with_bits(count: int) -> NDArray[np.uint8]:
    """An image of 8 x 9 flat fields, of whose difference hash ``count`` bits are set: at most nine."""
    fields = np.full((8, 9), 100, np.uint8)
    fields[: min(count, 8), 8] = 200
    fields[0, 0] = 50 if count == 9 else 100
    return np.repeat(np.repeat(fields, 4, 0), 4, 1)[..., np.newaxis].repeat(3, 2)


def test_images_are_duplicates_within_so_many_bits_and_no_further(tmp_path: Path) -> None:
    chooser = Chooser(tmp_path)
    policy = config(audit=1e-9, informative=unsure(), duplicates={"by": "dhash", "within": 8})
    first = [chooser.ask(policy, answer(0.2, image=with_bits(n))) for n in (0, 8, 9)]
    assert [(c.selected_by, c.dropped) for c in first] == [
        ("threshold", None),
        (None, "duplicate"),
        ("threshold", None),
    ]
    assert chooser.ask(policy, answer(0.2, image=with_bits(1))).dropped == "duplicate", "of either"
    assert chooser.ask(policy, answer(0.2)).selected_by == "threshold", "what was not seen is no duplicate"
    assert chooser.ask(policy, answer(0.2, image=NOISE)).selected_by == "threshold"


def towards(distance: float, length: int = 2) -> list[float]:
    """A vector at this cosine distance from the first axis; its own length is not one."""
    return [3 * (1 - distance), 3 * (1 - (1 - distance) ** 2) ** 0.5, *[0.0] * (length - 2)]


def test_embeddings_are_duplicates_within_a_cosine_distance_and_no_further(tmp_path: Path) -> None:
    chooser = Chooser(tmp_path)
    policy = config(audit=1e-9, informative=unsure(), duplicates={"by": "embedding", "within": 0.1})

    def ask(distance: float, length: int = 2, confidence: float = 0.2) -> str | None:
        given = answer(confidence, embedding=towards(distance, length), image=NOISE)
        return chooser.ask(policy, given).dropped

    assert ask(0.0, confidence=0.9) == "uninformative", "what was not captured is not remembered"
    assert [ask(0.0), ask(0.09), ask(0.11)] == [None, "duplicate", None]
    assert chooser.ask(policy, answer(0.2, image=NOISE)).selected_by == "threshold", "it has no embedding"
    assert [ask(0.0), ask(0.0, 3), ask(0.0, 3)] == ["duplicate", None, "duplicate"], "a new backbone begins anew"


def test_each_reason_to_drop_has_its_name(tmp_path: Path) -> None:
    chooser = Chooser(tmp_path)
    policy = config(audit=1e-9, **{**HARSH, "validity": {"black_below": 30, "blur_below": 5}})
    grey = np.full((32, 32, 3), 128, np.uint8)
    assert chooser.ask(policy, answer(0.2, image=BLACK)).dropped == "invalid-black"
    assert chooser.ask(policy, answer(0.2, image=grey)).dropped == "invalid-blur"
    assert chooser.ask(policy, answer(0.9, image=NOISE)).dropped == "uninformative"
    assert chooser.ask(policy, answer(0.2, image=NOISE)).selected_by == "threshold"
    again = chooser.ask(policy, answer(0.2, image=NOISE))
    assert (again.selected_by, again.probability, again.dropped) == (None, 1e-9, "duplicate")
    assert again.value == pytest.approx(5 / 7), "worth something, had it come first"
    table = rows(audit=1e-9, informative=unsure(), validity={"out_of_range": "drop"})
    assert chooser.ask(table, answer(0.2), payload=b"[11,0]").dropped == "out-of-range"
    assert chooser.ask(table, answer(0.2), payload=b"[10,0]").selected_by == "threshold"
    names = ("invalid-black", "invalid-blur", "uninformative", "duplicate", "out-of-range")
    assert chooser.tally == dict.fromkeys(names, 1) | {"threshold": 2}


def test_a_small_image_is_dropped_whatever_the_model_made_of_it_and_audited_all_the_same(tmp_path: Path) -> None:
    chooser, policy = Chooser(tmp_path), config(audit=0.3, informative=unsure(), validity={"smallest_side": 48})
    small, fine = (as_png(np.full((side, 64, 3), 9, np.uint8)) for side in (47, 48))
    chosen = [chooser.ask(policy, answer(0.2, image=NOISE), payload=small) for _ in range(100)]
    assert {(c.selected_by, c.dropped) for c in chosen} == {("audit", None), (None, "invalid-size")}
    assert {c.probability for c in chosen} == {0.3}
    assert chooser.ask(policy, answer(0.2, image=NOISE), payload=fine).probability == 1.0


def as_png(pixels: NDArray[np.uint8]) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()


def test_the_first_rule_that_holds_gives_its_name_and_the_best_its_value(tmp_path: Path) -> None:
    chooser = Chooser(tmp_path)
    policy = config(
        audit=1e-9, informative=[{"rule": "margin", "below": 0.2}, *unsure(0.8), {"rule": "entropy", "above": 0.5}]
    )
    assert chooser.ask(policy, answer(0.9)).selected_by is None
    second = chooser.ask(policy, answer(0.75))
    assert second.selected_by == "threshold"
    assert second.value == pytest.approx(0.6225562), "of the entropy, which is further beyond its limit"
    assert chooser.ask(policy, answer(0.5)) == Choice("margin", 1.0, 1.0, None)


def test_the_older_spelling_is_the_rule_threshold_and_stands_first(tmp_path: Path) -> None:
    policy = config(audit=1e-9, confidence_below=0.6, informative=[{"rule": "margin", "below": 1}])
    chooser = Chooser(tmp_path)
    assert [chooser.ask(policy, answer(c)).selected_by for c in (0.5, 0.7)] == ["threshold", "margin"]


# --- probabilities against a simulation

Stream = list[tuple[Answer, int]]
TIGHT = {"audit": 0.3, "informative": unsure(0.8), "bytes_per_hour": 20_000}
EVERYTHING = {
    "audit": 0.2,
    "informative": [*unsure(0.6), {"rule": "novelty", "above": 0.1, "size": 4}],
    "duplicates": {"by": "embedding", "within": 0.002, "remember": 8},
    "bytes_per_hour": 40_000,
}


def stream(seed: int, count: int = 60) -> Stream:
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        angle = rng.choice([0.0, 0.5, 1.0, 1.5]) + rng.random() * 0.05
        made.append((answer(rng.random(), embedding=[np.cos(angle), np.sin(angle)]), rng.choice([300, 900, 2000])))
    return made


def run(policy: NodeConfig, given_stream: Stream, salt: int) -> list[Choice]:
    clock = Clock()
    chooser = Chooser(Path("unused"), salt.to_bytes(4, "big"), clock)
    chosen = []
    for given_answer, size in given_stream:
        clock.now += 20
        chosen.append(chooser.ask(policy, given_answer, size))
    return chosen


@pytest.mark.usefixtures("on_memory")
@pytest.mark.parametrize("policy", [TIGHT, EVERYTHING], ids=["tight", "everything"])
def test_the_probability_is_how_often_a_sample_with_that_past_is_sent(policy: dict[str, object]) -> None:
    made, node = stream(1), config(**policy)
    chosen = [choice for salt in range(300) for choice in run(node, made, salt)]
    audit = node.selection.audit
    assert {choice.probability for choice in chosen} <= {0.0, audit, 1.0}
    for probability in (0.0, 1.0):
        sent = {choice.selected_by is not None for choice in chosen if choice.probability == probability}
        assert sent <= {probability == 1.0}
    drawn = [choice.selected_by == "audit" for choice in chosen if choice.probability == audit]
    assert len(drawn) > 1000
    assert abs(sum(drawn) / len(drawn) - audit) <= 5 * (audit * (1 - audit) / len(drawn)) ** 0.5
    assert {choice.dropped for choice in chosen} >= {"budget", "uninformative", None}


@pytest.mark.usefixtures("on_memory")
@pytest.mark.parametrize(
    "policy", [EVERYTHING, {"audit": 0.3, "informative": unsure(0.5)}], ids=["everything", "threshold"]
)
def test_weighted_by_their_probabilities_samples_estimate_the_whole_without_bias(policy: dict[str, object]) -> None:
    """Horvitz and Thompson's estimate of a sum over a finite stream, although rules prefer some of it."""
    made, node = stream(2), config(**policy)
    worth = [1.0 + (given_answer.confidence or 0) * size / 100 for given_answer, size in made]
    estimates = []
    for salt in range(600):
        chosen = run(node, made, salt)
        assert all(choice.probability > 0 for choice in chosen), "nothing may starve in this stream"
        estimates.append(sum(w / c.probability for w, c in zip(worth, chosen, strict=True) if c.selected_by))
    error = np.std(estimates) / len(estimates) ** 0.5
    assert abs(np.mean(estimates) - sum(worth)) <= 4 * error
    assert error < 0.02 * sum(worth)


@pytest.mark.usefixtures("on_memory")
def test_audited_samples_alone_need_no_weights_even_where_a_budget_binds_the_rules() -> None:
    made, node = stream(3), config(**{**TIGHT, "bytes_per_hour": 60_000})
    audited, unaudited = [], 0
    for salt in range(300):
        chosen = run(node, made, salt)
        audited += [a.confidence or 0 for (a, _), c in zip(made, chosen, strict=True) if c.selected_by == "audit"]
        unaudited += sum(c.dropped == "budget" for c in chosen)
    assert unaudited > 0
    everyone = [a.confidence or 0 for a, _ in made]
    assert abs(np.mean(audited) - np.mean(everyone)) <= 4 * np.std(everyone) / len(audited) ** 0.5


# --- over releases, threads and disks


def test_a_new_policy_keeps_what_was_spent_and_what_is_known(tmp_path: Path) -> None:
    chooser = Chooser(tmp_path)
    novel = {"rule": "novelty", "above": 0.1, "size": 8}
    first = config(audit=1e-9, informative=[novel], bytes_per_hour=10_000)
    assert chooser.ask(first, answer(embedding=[1, 0]), 6000).selected_by == "novelty"
    second = config(audit=1e-9, informative=[{**novel, "size": 4}], bytes_per_hour=10_001)
    assert chooser.ask(second, answer(embedding=[1, 0.01]), 100).dropped == "uninformative"
    assert chooser.ask(second, answer(embedding=[0, 1]), 6000).dropped == "budget"
    assert chooser.ask(second, answer(embedding=[0, 1]), 100).selected_by == "novelty"
    assert chooser.ask(second, answer(embedding=[1, 0, 0]), 100).selected_by == "novelty", "a new backbone"
    assert chooser.ask(second, answer(embedding=[1, 0.01, 0]), 100).dropped == "uninformative"


def test_a_budget_that_comes_with_a_new_policy_counts_what_was_sent_before_it(tmp_path: Path) -> None:
    chooser = Chooser(tmp_path)
    for _ in range(5):
        chooser.ask(config(audit=1.0), answer(), 1000)
    assert chooser.ask(config(audit=1.0, bytes_per_hour=5500), answer(), 1000).dropped == "budget"
    assert chooser.ask(config(audit=1.0, bytes_per_hour=6000), answer(), 1000).selected_by == "audit"


def test_services_have_budgets_of_their_own(tmp_path: Path) -> None:
    chooser = Chooser(tmp_path)
    policy = config(audit=1.0, bytes_per_hour=1024)
    other = policy.model_copy(update={"service": "other"})
    assert [chooser.ask(c, answer(), 1024).selected_by for c in (policy, other, policy)] == ["audit", "audit", None]
    assert (chooser.starved, chooser.selectors.starved("other")) == (1, 0)


def test_many_threads_spend_one_budget(tmp_path: Path) -> None:
    selectors = Selectors(tmp_path, b"salt")
    policy = config(audit=0.5, informative=unsure(1.0), bytes_per_hour=50_000)
    sent: list[Choice] = []

    def ask(first: int) -> None:
        sent.extend(selectors.choose(policy, f"{first}-{n}", b"", answer(0.1), 700) for n in range(100))

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0 < sum(c.selected_by is not None for c in sent) * 700 <= 50_000
    assert len(sent) == 800


def refuse(path: Path, data: bytes) -> None:
    raise OSError(28, "No space left on device")


def test_a_disk_that_refuses_the_lease_stops_spending_and_not_answering(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chooser = Chooser(tmp_path)
    policy = config(audit=1.0, bytes_per_hour=600_000)
    assert chooser.ask(policy, answer(), 4000).selected_by == "audit"
    monkeypatch.setattr(lease, "write_durably", refuse)
    assert chooser.ask(policy, answer(), 6000).selected_by == "audit", "a minute's share was leased"
    assert chooser.ask(policy, answer(), 4000).dropped == "no-lease"
    known = chooser.ask(policy, answer(), 4000)
    assert (known.dropped, known.probability) == ("no-lease", 0.0), "that the disk refuses is known by now"
    assert chooser.ask(config(audit=0.001), answer(), 4000).dropped == "uninformative"
    assert chooser.starved == 2
    monkeypatch.undo()
    chooser.clock.now += 1
    assert chooser.ask(policy, answer(), 4000).selected_by == "audit"


@pytest.mark.alone
def test_memory_does_not_grow_with_inputs(tmp_path: Path, on_memory: None) -> None:
    import tracemalloc

    policy = config(audit=0.5, **{k: v for k, v in EVERYTHING.items() if k != "audit"})
    clock, made = Clock(), stream(4, 200)
    chooser = Chooser(tmp_path, clock=clock)

    def feed(count: int) -> None:
        for number in range(count):
            clock.now += 7
            chooser.ask(policy, *made[number % 200])

    feed(2000)
    tracemalloc.start()
    try:
        feed(2000)
        assert tracemalloc.get_traced_memory()[0] < 50_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("spoil", [lambda p: p.write_bytes(b"{"), lambda p: (p.unlink(), p.mkdir())])
def test_a_lease_file_that_cannot_be_read_counts_as_all_spent(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    policy = config(audit=1.0, bytes_per_hour=10_000)
    assert Chooser(tmp_path).ask(policy, answer(), 100).selected_by == "audit"
    spoil(tmp_path / f"{SERVICE}.json")
    chooser = Chooser(tmp_path)
    assert chooser.ask(policy, answer(), 100).dropped == "budget"


def test_nothing_is_written_without_a_budget() -> None:
    with tempfile.TemporaryDirectory() as folder:
        chooser = Chooser(Path(folder) / "leases")
        for _ in range(20):
            chooser.ask(config(audit=1.0), answer())
            chooser.clock.now += 100
        assert list(Path(folder).iterdir()) == []
