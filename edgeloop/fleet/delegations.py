"""Who may speak of what: ``releases`` of manifests, ``rings`` of rings, and below each a role per service.

The roles of a service are made and signed with the key of the role above them, so a new service needs neither root
nor ``targets``; and a node reads the metadata of its own services only.
"""

from __future__ import annotations

from tuf.api.metadata import DelegatedRole, Delegations, Targets

from edgeloop.fleet.draft import Draft
from edgeloop.fleet.signing import Keys, KeyUnavailable

#: Target paths of each delegated role, by service; a node never asks it about another path.
PATHS = {"releases": "releases/{}/*.json", "rings": "rings/{}/ring-*.json"}
#: Of which the role ``rings`` itself speaks: the nodes that moved.
MOVES = "fleets/*/rings.json"


def begin(draft: Draft, keys: Keys) -> None:
    """Make ``targets`` and the two roles below it."""
    top = draft.edit("targets")
    top.delegations = Delegations({}, {})
    for role, paths in PATHS.items():
        _add(top, role, [paths.format("*"), *([MOVES] if role == "rings" else [])], keys)
        draft.edit(role).delegations = Delegations({}, {})


def service_role(draft: Draft, parent: str, service: str, keys: Keys) -> Targets:
    """The content of ``<parent>-<service>`` to be changed; delegated to when it is new."""
    role = f"{parent}-{service}"
    if role not in draft.roles and role not in draft.edited:
        _add(draft.edit(parent), role, [PATHS[parent].format(service)], keys)
    return draft.edit(role)


def allow_moves(draft: Draft, keys: Keys) -> bool:
    """Let ``rings`` speak of nodes that moved, in a channel from before there were any; False where it may already.

    Raises:
        KeyUnavailable: the key ``targets`` is not here, which has to sign that once.
    """
    delegations = draft.targets("targets").delegations
    assert delegations is not None and delegations.roles is not None
    paths = delegations.roles["rings"].paths
    if paths is None or MOVES in paths:
        return False
    if not keys.has("targets"):
        missing = keys.folder / "targets.pem"
        raise KeyUnavailable(f"the channel is from before nodes could move, and there is no {missing}: bring it once")
    draft.edit("targets")
    paths.append(MOVES)
    return True


def _add(parent: Targets, role: str, paths: list[str], keys: Keys) -> None:
    assert parent.delegations is not None and parent.delegations.roles is not None
    parent.delegations.roles[role] = DelegatedRole(role, [], 1, terminating=True, paths=paths)
    parent.add_key(keys.public(role), role)


def redelegate(draft: Draft, role: str, keys: Keys) -> None:
    """Name the newest key of ``role`` wherever it is named, and sign everything below with it."""
    children = [name for name in draft.roles if name.startswith(f"{role}-")]
    for name in [role, *children]:
        draft.edit(name)
    for parent, names in ((draft.edit("targets"), [role]), (draft.edit(role), children)):
        assert parent.delegations is not None and parent.delegations.roles is not None
        for name in names:
            for old in list(parent.delegations.roles[name].keyids):
                parent.revoke_key(old, name)
            parent.add_key(keys.public(role), name)
