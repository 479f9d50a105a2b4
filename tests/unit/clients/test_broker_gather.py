"""What others write where a reader marks the end does not disturb it."""

from __future__ import annotations

from edgeloop.clients.broker import Message
from edgeloop.clients.broker_gather import Mailbox


def test_what_is_no_mark_is_passed_over_and_acknowledged() -> None:
    box, acked = Mailbox("mark"), []
    for payload in (b"", b"x", b"-1", b"9" * 5000, b"3"):
        box(Message("mark", payload), lambda: acked.append(1))
    assert len(acked) == 5
    assert box.wait(3, 0) == 3
    assert box.take() == ([], 0)
