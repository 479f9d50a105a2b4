"""The keys that the channel is signed with: one ed25519 key per role, each in a file of its own.

Files, so that a person can keep ``root.pem`` and ``targets.pem`` off this machine and bring them back for a rotation;
what is needed every day (``rings``, ``snapshot``, ``timestamp``) stays.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from edgeloop.clients.store_directory import sync_folder
from edgeloop.errors import BadInput

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner, Key

#: Who signs what: the root names all others, ``targets`` names the two below it, ``releases`` says which releases may
#: run at all, ``rings`` which ring runs which of them; ``snapshot`` and ``timestamp`` hold them together.
ROLES = ("root", "targets", "releases", "rings", "snapshot", "timestamp")


class KeyUnavailable(BadInput):
    """The key that a step has to sign with is not in the folder of keys."""


class UnusableKey(BadInput):
    """A file of the folder of keys is no ed25519 key."""


class UnknownRole(BadInput):
    """No role of the channel has this name."""


def role_key(role: str) -> str:
    """The name of the key that signs ``role``: all of ``rings-<service>`` are signed by ``rings``."""
    return role.split("-", 1)[0]


class Keys:
    """``<folder>/<role>.pem`` (PKCS8, mode 0600), and ``<folder>/root.json``, the newest root that is trusted here.

    While a key is rotated its successor lies beside it as ``<role>.next.pem``, and both sign.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def ensure(self) -> None:
        """Make the keys that are missing, unless there is a root already: then they are elsewhere on purpose."""
        if self.root() is None:
            for role in ROLES:
                self._make(f"{role}.pem")

    def public(self, role: str) -> Key:
        """The public half of ``role``'s key, of its successor during a rotation; raises KeyUnavailable."""
        return self.signers(role)[-1].public_key

    def has(self, role: str) -> bool:
        """Whether ``role`` can be signed here."""
        return (self.folder / f"{role_key(role)}.pem").is_file()

    def signers(self, role: str) -> list[CryptoSigner]:
        """The key of ``role`` and, while it is rotated, its successor.

        Raises:
            KeyUnavailable: it is not here.
            UnusableKey: the file is no key.
        """
        name = role_key(role)
        paths = [self.folder / f"{name}.pem", self.folder / f"{name}.next.pem"]
        found = [key for path in paths if (key := _read(path)) is not None]
        if not found:
            raise KeyUnavailable(f"no key {paths[0]} to sign {role} with: copy it there or set EDGELOOP_KEYS")
        return found

    def begin_rotation(self, role: str) -> None:
        """Make the successor of ``role``'s key; one that is there already, of a rotation cut off, is kept."""
        if role not in ROLES:
            raise UnknownRole(f"no role {role!r} in the channel: name one of {', '.join(ROLES)}")
        self.signers(role)
        self._make(f"{role}.next.pem")

    def end_rotation(self, role: str) -> None:
        """Put the successor in the key's place."""
        successor = self.folder / f"{role}.next.pem"
        if successor.is_file():
            successor.replace(self.folder / f"{role}.pem")
            sync_folder(self.folder)

    def root(self) -> bytes | None:
        """The trusted root; None before the channel was made."""
        return self.kept("root.json")

    def pin(self, data: bytes) -> None:
        """Trust the root ``data`` from now on; a folder that cannot be written keeps the older one."""
        self.keep("root.json", data)

    def kept(self, name: str) -> bytes | None:
        """What :meth:`keep` wrote last."""
        path = self.folder / name
        return path.read_bytes() if path.is_file() else None

    def keep(self, name: str, data: bytes) -> bool:
        """Write ``data`` beside the keys; False when nothing can be written there."""
        if self.kept(name) != data:
            with suppress(OSError):
                self._put(name, data, os.replace)
        return self.kept(name) == data

    def _make(self, name: str) -> None:
        from securesystemslib.signer import CryptoSigner

        if not (self.folder / name).exists():
            with suppress(FileExistsError):  # another process was first: its key is the one
                self._put(name, CryptoSigner.generate_ed25519().private_bytes, os.link)

    def _put(self, name: str, data: bytes, place: Callable[[Path, Path], None]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        beside = self.folder / f".{name}.{uuid4().hex}"
        try:
            with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            place(beside, self.folder / name)
        finally:
            beside.unlink(missing_ok=True)
        sync_folder(self.folder)


def _read(path: Path) -> CryptoSigner | None:
    """The key in this file; None when there is no such file, as when a rotation ends at this moment."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from securesystemslib.signer import CryptoSigner

    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise UnusableKey(f"{path} is no private key in PEM without a password ({error!s:.100}): replace it") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UnusableKey(f"{path} is a {type(key).__name__}, not an ed25519 key: replace it")
    return CryptoSigner(key)
