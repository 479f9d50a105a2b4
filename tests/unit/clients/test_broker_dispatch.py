"""Topics are invented by others: looking up who gets them takes no memory without a bound."""

from __future__ import annotations

import sys

import paho.mqtt.client as mqtt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.clients.broker_dispatch import Handlers, collect
from edgeloop.clients.broker_memory import MemoryHub
from edgeloop.clients.broker_types import Ack, BrokerUnavailable, Handler, Message


def _sizes(topics: list[str]) -> tuple[int, int]:
    """How many of ``topics`` are handed out, and how many bytes of topics are remembered then."""
    got: list[str] = []

    def take(message: Message, ack: Ack) -> None:
        ack()
        got.append(message.topic)

    handlers = Handlers({"t/#": take})
    for topic in topics:
        assert handlers.dispatch(Message(topic, b""), lambda: None)
    return len(got), sum(sys.getsizeof(topic) for topic in handlers._by_topic)


@pytest.mark.parametrize("sign", ["x", "ä", "\U0001f600"])
def test_long_topics_are_handed_out_and_not_remembered(sign: str) -> None:
    handed_out, remembered = _sizes([f"t/{n}/" + sign * 10_000 for n in range(50)] * 2)
    assert handed_out == 100 and remembered == 0


def test_as_many_short_topics_as_anyone_invents_take_little() -> None:
    handed_out, remembered = _sizes([f"t/{n:06}/" + "x" * 503 for n in range(5000)])
    assert handed_out == 5000 and 0 < remembered < 4096 * 600


def test_a_topic_of_the_most_bytes_is_remembered_and_the_next_is_not() -> None:
    assert _sizes(["t/" + "ä" * 255])[1] > 0
    assert _sizes(["t/x" + "ä" * 255])[1] == 0


def test_collecting_that_fails_leaves_no_subscription_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    handlers, broker = Handlers({}), MemoryHub().connect("c")

    def subscribe(topic_filter: str, handler: Handler) -> None:
        handlers.add(topic_filter, handler)
        raise BrokerUnavailable("no answer")

    monkeypatch.setattr(broker, "subscribe", subscribe)
    with pytest.raises(BrokerUnavailable):
        collect(broker, handlers, "t", 0.1, 1)
    assert not handlers.filters()


_LEVELS = st.lists(st.sampled_from(["a", "ab", "b", "", "$x"]), min_size=1, max_size=4)


@given(_LEVELS, _LEVELS, st.booleans())
def test_a_filter_takes_the_topics_that_paho_says(levels: list[str], topic: list[str], is_open: bool) -> None:
    topic_filter, name = "/".join([*levels, "#"] if is_open else levels), "/".join(topic)
    got: list[str] = []

    def take(message: Message, ack: Ack) -> None:
        got.append(message.topic)
        ack()

    Handlers({topic_filter: take}).dispatch(Message(name, b""), lambda: None)
    assert bool(got) == mqtt.topic_matches_sub(topic_filter, name)
