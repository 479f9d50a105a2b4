"""The ring that a node is in: the one of its node.yaml, until the channel names another for it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from edgeloop.samples.moves import DEFAULT, MalformedMoves, moves_object, moves_target, parse_moves

if TYPE_CHECKING:
    from tuf.api.metadata import TargetFile
    from tuf.ngclient import Updater

_log = logging.getLogger(__name__)


class Place:
    """Where one node is, by what the channel said last.

    Args:
        home: ring of node.yaml.
        node: name of the node.
        fleet: where it is looked for among the nodes that moved.
        moved_to: the ring that the channel named before a restart.
        on_move: called with the ring that the channel names, None for ``home``, when that is another than before;
            it must not ask the channel.
    """

    def __init__(
        self,
        home: int,
        node: str = "",
        fleet: str = DEFAULT,
        moved_to: int | None = None,
        on_move: Callable[[int | None], None] = lambda _: None,
    ) -> None:
        self._home = home
        self._node = node
        self._fleet = fleet
        self._moved_to = moved_to
        self._on_move = on_move
        self._known: tuple[str, dict[str, int]] = ("", {})

    @property
    def ring(self) -> int:
        """The ring that the node is in now."""
        return self._home if self._moved_to is None else self._moved_to

    def read(self, updater: Updater, content: Callable[[str, TargetFile], bytes]) -> int | None:
        """The ring that a verified channel names for this node; its record is read only when it is another one.

        Raises:
            MalformedMoves: what was signed does not parse, or is of another fleet.
        """
        target = updater.get_targetinfo(moves_target(self._fleet))
        if target is None:
            return None
        name = target.hashes["sha256"]
        if self._known[0] != name:
            key = moves_object(self._fleet, name)
            found = parse_moves(content(key, target), key)
            if found.fleet != self._fleet:
                raise MalformedMoves(f"record {key} is of fleet {found.fleet}: move a node again")
            self._known = name, found.rings
        return self._known[1].get(self._node)

    def go(self, to: int | None) -> None:
        """Be in ring ``to`` from now on."""
        if to != self._moved_to:
            self._moved_to = to
            _log.info("this node moved", extra={"ring": self.ring})
            self._on_move(to)
