"""Topics that are built are understood, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.client import topic_matches_sub

from edgeloop.samples import topics

LEVEL = st.text(st.characters(blacklist_characters="/+#\0", blacklist_categories=["Cs"]), min_size=1, max_size=20)


@given(LEVEL.filter(lambda s: s not in {"nodes", "rings"}), LEVEL, st.sampled_from(["input", "result", "feedback"]))
def test_a_device_topic_round_trips(service: str, device: str, leaf: str) -> None:
    topic = topics.device_topic(service, device, leaf)
    assert topics.parse_device_topic(topic) == (service, device, leaf)


@given(LEVEL, LEVEL)
def test_a_nodes_topic_round_trips(node: str, service: str) -> None:
    assert topics.parse_node_topic(topics.report_topic(node, service)) == (node, service)
    assert topics.parse_node_topic(topics.alive_topic(node)) == (node, "")


@pytest.mark.parametrize(
    "topic",
    [
        topics.FLUSH,
        f"{topics.MARKS}/7",
        topics.wanted_topic("s", 1),
        topics.device_topic("s", "d", "input"),
        topics.report_topic("n", ""),
        topics.report_topic("n", "s/more"),
        topics.alive_topic("n") + "/more",
        "edgeloop/v2/nodes/n/alive",
        "",
    ],
)
def test_what_is_no_nodes_topic(topic: str) -> None:
    assert topics.parse_node_topic(topic) is None


def test_filters_match_what_is_published() -> None:
    assert topic_matches_sub(topics.NODES, topics.report_topic("n", "s"))
    assert topic_matches_sub(topics.NODES, topics.alive_topic("n"))
    assert topic_matches_sub(topics.NODES, f"{topics.MARKS}/reader")
    assert not topic_matches_sub(topics.NODES, topics.device_topic("s", "d", "input"))
    assert not topic_matches_sub(topics.NODES, topics.wanted_topic("s", 0))


@pytest.mark.parametrize(
    "topic",
    [
        topics.report_topic("n", "s"),
        topics.wanted_topic("s", 1),
        topics.alive_topic("n"),
        topics.FLUSH,
        "edgeloop/v2/s/d/input",
        "edgeloop/v1/s/d",
        "edgeloop/v1/s/d/input/more",
        "",
    ],
)
def test_other_topics_are_not_a_devices(topic: str) -> None:
    assert topics.parse_device_topic(topic) is None
