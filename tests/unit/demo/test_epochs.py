"""A person who waits for a training sees its epochs, each once."""

from __future__ import annotations

from edgeloop.demo.epochs import PACE, EpochLines


def test_every_epoch_is_shown_once_and_the_log_is_not_read_all_the_time() -> None:
    log = ["training Xception on 90 images, 10 say when to stop"]
    shown: list[str] = []
    reads: list[int] = []
    now = [0.0]

    def read() -> list[str]:
        reads.append(len(log))
        return log

    lines = EpochLines(read, shown.append, lambda: now[0])
    for number in range(1, 4):
        log.append(f"epoch {number}/3 loss 0.{number}")
        log.append("some other line about an epoch")
        for _ in range(5):
            lines.look()
            now[0] += PACE / 5
        assert shown == [f"epoch {n}/3 loss 0.{n}" for n in range(1, number + 1)]
    assert len(reads) == 3
