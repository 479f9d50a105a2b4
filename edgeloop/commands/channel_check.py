"""What ``edgeloop doctor`` finds in the channel: signatures that nobody here will renew in time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeloop.commands.channel_show import view_of
from edgeloop.errors import EdgeloopError
from edgeloop.stack.doctor import Check

if TYPE_CHECKING:
    from edgeloop.fleet.show import RoleView
    from edgeloop.settings import Settings


def check_channel(settings: Settings) -> list[Check]:
    """Signatures that have run out, and those past half of their life that nobody here can renew."""
    if not (settings.keys_folder / "root.json").is_file():
        return [Check("channel", True, f"no root in {settings.keys_folder}: nothing is signed here yet")]
    try:
        view = view_of(settings)
    except EdgeloopError as error:
        return [Check("channel", False, str(error), "look at  edgeloop channel show")]
    if view is None:
        return [Check("channel", True, "will be made by  edgeloop up")]
    found = [_finding(role) for role in view.roles if role.life == "expired" or (role.life == "due" and not role.here)]
    first = min(role.expires for role in view.roles)
    return found or [Check("channel", True, f"{len(view.roles)} roles, the first runs out {first:%Y-%m-%d %H:%M} UTC")]


def _finding(role: RoleView) -> Check:
    from edgeloop.fleet.show import remedy

    expired = role.life == "expired"
    detail = f"the signature of {role.role} {'ran' if expired else 'runs'} out {role.expires:%Y-%m-%d %H:%M} UTC"
    return Check(
        f"channel: {role.role}", False, detail + ("" if role.here else ", key not here"), remedy(role), not expired
    )
