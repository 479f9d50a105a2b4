"""A release is replaced between two requests, judged by its answers, and never freed under one."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.clients.lending import Lender, usable_cores
from edgeloop.clients.models import Answer, ModelUnavailable
from edgeloop.edge.runtime import TRIAL, WINDOW, Loaded, ModelFailed, NotLoaded, NoTurn, Runtime
from edgeloop.samples.payloads import UndecodablePayload
from tests.servers.ports import wait_until
from tests.unit.edge.fakes import config


class Scripted:
    """A model that does what it is told with each payload."""

    labels: tuple[str, ...] | None = ("yes", "no")
    backbone_digest: str | None = None

    def __init__(self, work: Callable[[bytes], None] = lambda payload: None, answer: str = "yes") -> None:
        self._work = work
        self._answer = answer

    def predict(self, payload: bytes) -> Answer:
        self._work(payload)
        return Answer(self._answer, 0.5, (0.5, 0.5), None)


def fails_on(payload: bytes) -> None:
    errors: dict[bytes, Exception] = {
        b"bad": RuntimeError("a tensor went missing"),
        b"slow": TimeoutError("of the model itself"),
        b"nonsense": UndecodablePayload("no input"),
        b"away": ModelUnavailable("server away"),
    }
    if payload in errors:
        raise errors[payload]


def loaded(model: Scripted | None = None, name: str = "r1", on_trial: bool = False) -> Loaded:
    return Loaded(name, "1", config(), model or Scripted(fails_on), on_trial=on_trial)


class Watched(Runtime):
    """Writes down which releases were lost."""

    def __init__(self, threads: int = 2, wait_seconds: float = 30.0) -> None:
        super().__init__(threads, wait_seconds=wait_seconds)
        self.lost: list[tuple[str, str]] = []
        self.on_lost_trial = lambda service, release: self.lost.append((service, release))

    def send(self, *payloads: bytes) -> None:
        for payload in payloads:
            try:
                self.predict("s", payload)
            except (ModelFailed, UndecodablePayload, ModelUnavailable):
                continue


@pytest.fixture
def runtime() -> Watched:
    found = Watched()
    found.switch("s", loaded())
    return found


def test_what_serves_is_switched_and_unloaded() -> None:
    runtime = Runtime(1)
    with pytest.raises(NotLoaded, match="service s has no release"):
        runtime.predict("s", b"")
    first, second = loaded(name="r1"), loaded(name="r2")
    assert runtime.switch("s", first) is None
    assert runtime.predict("s", b"")[1] is first
    assert runtime.switch("s", second) is first
    assert runtime.loaded("s") is second
    assert runtime.unload("s") is second
    assert runtime.unload("s") is None
    assert runtime.loaded("s") is None
    with pytest.raises(NotLoaded):
        runtime.predict("s", b"")


def test_a_model_runs_in_the_thread_that_asks(runtime: Watched) -> None:
    seen: list[int] = []
    runtime.switch("s", loaded(Scripted(lambda payload: seen.append(threading.get_ident()))))
    runtime.predict("s", b"")
    assert seen == [threading.get_ident()]


@pytest.mark.parametrize("payload", [b"bad", b"slow"])
def test_a_failing_model_is_named(runtime: Watched, payload: bytes) -> None:
    with pytest.raises(ModelFailed, match="release r1 failed on an input"):
        runtime.predict("s", payload)


NAN = float("nan")


@pytest.mark.parametrize(
    ("answer", "labels"),
    [
        (Answer("yes", NAN, None, None), ("yes", "no")),
        (Answer("yes", 0.5, (0.5, NAN), None), ("yes", "no")),
        (Answer("yes", 0.5, None, None, boxes=(0.5, float("inf"))), ("yes", "no")),
        (Answer("nan", None, None, None), None),
        (Answer("-inf", None, None, None), None),
        (Answer("many", None, None, None), None),
    ],
)
def test_an_answer_that_is_no_number_fails_the_release(
    runtime: Watched, answer: Answer, labels: tuple[str, ...] | None
) -> None:
    model = Scripted()
    model.labels = labels
    model.predict = lambda payload: answer  # type: ignore[method-assign]
    runtime.switch("s", loaded(model, "r2", on_trial=True))
    with pytest.raises(ModelFailed, match="release r2 failed on an input"):
        runtime.predict("s", b"")
    runtime.send(*[b""] * TRIAL)
    assert runtime.lost == [("s", "r2")]


# --- the judgement of a release


def test_a_trial_is_lost_by_more_than_half(runtime: Watched) -> None:
    runtime.switch("s", loaded(on_trial=True))
    runtime.send(*[b"bad", b"good"] * (TRIAL // 2))
    assert runtime.lost == []
    runtime.switch("s", loaded(name="r2", on_trial=True))
    runtime.send(*[b"bad"] * (TRIAL // 2))
    assert runtime.lost == []
    runtime.send(b"bad")
    assert runtime.lost == [("s", "r2")]
    runtime.send(*[b"bad"] * 200)
    assert runtime.lost == [("s", "r2")]


def test_after_its_trial_a_release_is_lost_by_more_than_half_of_its_last_answers(runtime: Watched) -> None:
    runtime.send(*[b"good"] * 500, *[b"bad"] * (WINDOW // 2))
    assert runtime.lost == []
    runtime.send(b"bad")
    assert runtime.lost == [("s", "r1")]
    runtime.send(*[b"bad"] * 200, *[b"good"] * 200, *[b"bad"] * 200)
    assert runtime.lost == [("s", "r1")]


def test_failures_of_the_trial_are_not_counted_again(runtime: Watched) -> None:
    serving = loaded(on_trial=True)
    runtime.switch("s", serving)
    runtime.send(*[b"good", b"bad"] * (TRIAL // 2))
    assert not serving.on_trial
    runtime.send(*[b"bad"] * (WINDOW // 2))
    assert runtime.lost == []


@pytest.mark.parametrize("payload", [b"nonsense", b"away"])
def test_bad_inputs_and_an_absent_server_are_no_failures_of_a_release(runtime: Watched, payload: bytes) -> None:
    runtime.switch("s", loaded(on_trial=True))
    runtime.send(*[payload] * 200)
    assert runtime.lost == []


@given(st.lists(st.booleans(), max_size=300))
def test_a_release_is_lost_exactly_when_a_window_holds_too_many_failures(failed: list[bool]) -> None:
    one = loaded()
    said = [one.count(failed=f) for f in failed]
    due = [sum(failed[max(0, n + 1 - WINDOW) : n + 1]) > WINDOW // 2 for n in range(len(failed))]
    assert said == ["lost" if d and not any(due[:n]) else None for n, d in enumerate(due)]


@given(st.lists(st.booleans(), max_size=3 * TRIAL))
def test_a_trial_ends_once_by_its_last_answer_or_by_too_many_failures(failed: list[bool]) -> None:
    one = loaded(on_trial=True)
    said = [one.count(failed=f) for f in failed[:TRIAL]]
    lost_at = next((n for n in range(len(said)) if sum(failed[: n + 1]) > TRIAL // 2), None)
    verdicts: list[str | None] = [None] * len(said)
    if lost_at is not None:
        verdicts[lost_at] = "lost"
    elif len(said) == TRIAL:
        verdicts[-1] = "passed"
    assert said == verdicts


def test_a_passed_trial_is_told_once(runtime: Watched) -> None:
    told: list[tuple[str, str]] = []
    runtime.on_passed_trial = lambda service, release: told.append((service, release))
    runtime.switch("s", loaded(on_trial=True))
    runtime.send(*[b"good", b"bad"] * (TRIAL // 2 - 1), b"good")
    assert told == []
    runtime.send(b"bad", *[b"good"] * TRIAL)
    assert told == [("s", "r1")]


# --- concurrency


def test_as_many_run_at_once_as_there_are_turns() -> None:
    running, most, lock = 0, 0, threading.Lock()
    together = threading.Barrier(2)

    def work(payload: bytes) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        together.wait(10)  # never passed unless two run at once
        with lock:
            running -= 1

    runtime = Runtime(2)
    runtime.switch("s", loaded(Scripted(work)))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: runtime.predict("s", b""), range(16)))
    assert most == 2


def test_who_waits_too_long_is_told() -> None:
    held, free = threading.Event(), threading.Event()

    def work(payload: bytes) -> None:
        held.set()
        assert free.wait(10)

    runtime = Watched(1, wait_seconds=0.05)
    runtime.switch("s", loaded(Scripted(work), on_trial=True))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(runtime.predict, "s", b"")
        assert held.wait(10)
        with pytest.raises(NoTurn, match=r"service s is busy for 0\.05 s"):
            runtime.predict("s", b"")
        free.set()
        assert first.result(10)[0].prediction == "yes"
    assert runtime.predict("s", b"")[0].prediction == "yes"
    assert runtime.lost == []


def test_a_switch_frees_nothing_that_is_in_use() -> None:
    held, free = threading.Event(), threading.Event()

    def work(payload: bytes) -> None:
        held.set()
        assert free.wait(10)

    runtime = Runtime(1)
    before = loaded(Scripted(work, answer="before"))
    gone = weakref.ref(before)
    runtime.switch("s", before)
    del before
    with ThreadPoolExecutor(1) as pool:
        request = pool.submit(runtime.predict, "s", b"")
        assert held.wait(10)
        runtime.switch("s", loaded(Scripted(answer="after"), "r2"))
        gc.collect()
        assert gone() is not None
        free.set()
        answer, served = request.result(10)
    assert (answer.prediction, served.release) == ("before", "r1")
    assert runtime.predict("s", b"")[0].prediction == "after"
    del request, served
    gc.collect()
    assert gone() is None


def test_swaps_under_load_fail_no_request() -> None:
    runtime, stop = Runtime(2), threading.Event()
    runtime.switch("s", loaded(Scripted(answer="0")))

    def ask() -> list[int]:
        seen = []
        while not stop.is_set():
            answer, served = runtime.predict("s", b"")
            assert answer.prediction == served.release.removeprefix("r") or served.release == "r1"
            seen.append(int(answer.prediction))
        return seen

    with ThreadPoolExecutor(8) as pool:
        clients = [pool.submit(ask) for _ in range(8)]
        for number in range(1, 21):
            runtime.switch("s", loaded(Scripted(answer=str(number)), f"r{number}"))
            time.sleep(0.002)
        stop.set()
        for client in clients:
            seen = client.result(10)
            assert seen == sorted(seen)


# --- turns


def test_a_thing_goes_to_who_has_waited_longest() -> None:
    lender, order = Lender(["only"]), list[int]()

    def wait(number: int) -> None:
        with lender.lend():
            order.append(number)

    with ThreadPoolExecutor(5) as pool, lender.lend():
        for number in range(5):
            pool.submit(wait, number)
            wait_until("it waits", lambda n=number: len(lender._waiting) == n + 1, every=0.001)  # type: ignore[misc]
    assert order == [0, 1, 2, 3, 4]


def test_the_last_thing_used_is_lent_next_and_comes_back_after_an_error() -> None:
    lender = Lender("ab")
    with lender.lend() as first, pytest.raises(TimeoutError, match="none of 2"), lender.lend(), lender.lend(0.01):
        pass
    for _ in range(3):
        with lender.lend() as again:
            assert again == first
    assert len(lender) == 2


def test_who_gives_up_leaves_nothing_behind() -> None:
    lender = Lender([1])

    def hurry(_: int) -> bool:
        try:
            with lender.lend(0.0005):
                time.sleep(0.0005)
        except TimeoutError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(hurry, range(400)))
    assert any(got)
    with lender.lend(0) as found:
        assert found == 1


def test_what_comes_at_the_moment_of_giving_up_is_taken() -> None:
    lender, ticket = Lender[str]([]), Future[str]()
    ticket.set_result("late")
    assert lender._give_up(ticket) == "late"


def test_there_is_at_least_one_core() -> None:
    assert 1 <= usable_cores() <= 4
    assert usable_cores(1) == 1
