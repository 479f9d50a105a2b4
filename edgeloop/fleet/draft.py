"""One change to the channel while it is made: what is signed now, and what shall be signed next."""

from __future__ import annotations

from collections.abc import Callable

from tuf.api.metadata import Root, Targets

from edgeloop.fleet.signing import role_key

#: Reads one version of a role and verifies it with its delegator.
Load = Callable[[Root | Targets, str, int], Targets]


class Draft:
    """One consistent state of the channel, and the changes that shall be made to it."""

    def __init__(self, load: Load, root: Root, version: int, roles: dict[str, int]) -> None:
        self.root = root
        self.version = version
        self.roles = roles
        """Version of each targets role, without ``targets``' own children being loaded."""
        self.contents: dict[str, bytes] = {}
        self.edited: dict[str, Targets] = {}
        self.signed: dict[str, tuple[int, bytes]] = {}
        """Version and bytes of roles that were signed elsewhere."""
        self._load = load
        self._loaded: dict[str, Targets] = {}

    def delegator(self, role: str) -> Root | Targets:
        """Who names the keys of ``role``."""
        if role == "targets":
            return self.root
        return self.targets("targets" if role in {"releases", "rings"} else role_key(role))

    def targets(self, role: str) -> Targets:
        """The verified content of ``role``; raises ForeignMetadata, or KeyError when there is no such role."""
        if role not in self._loaded:
            self._loaded[role] = self._load(self.delegator(role), role, self.roles[role])
        return self._loaded[role]

    def edit(self, role: str) -> Targets:
        """The content of ``role`` to be changed, or only signed anew; empty when the role is new."""
        if role not in self.edited:
            self.edited[role] = self.targets(role) if role in self.roles else Targets()
            self._loaded[role] = self.edited[role]
        return self.edited[role]
