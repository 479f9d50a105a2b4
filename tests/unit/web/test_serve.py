"""The page listens on this machine and nowhere else."""

from __future__ import annotations

import pytest

from edgeloop.stack.ports import PortTaken
from edgeloop.web.serve import NotLoopback, address_of, bind


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", "", "127.0.0.1.example.org"])
def test_others_are_not_let_in(host: str) -> None:
    with pytest.raises(NotLoopback, match="asks nobody who they are"):
        bind(host, 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_is_served(host: str) -> None:
    with bind(host, 0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"
        assert address_of(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_taken_port_is_named_with_the_option_that_chooses_another() -> None:
    with bind("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"port {port} is taken: .*edgeloop web --port") as refused:
            bind("127.0.0.1", port)
    assert refused.value.exit_code == 2
