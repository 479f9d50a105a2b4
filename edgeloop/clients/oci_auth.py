"""Who we are to an image registry: the credentials file that docker, podman and skopeo write when someone logs in.

Credentials are sent to the registry that they were written for and to the token service that it names, and to nobody
else; they stand in no message and no repr.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeloop.errors import BadInput

#: The name under which a login to Docker Hub is written.
_HUB = "https://index.docker.io/v1/"


class MalformedAuthFile(BadInput):
    """The file of registry credentials cannot be read."""


class KeptElsewhere(BadInput):
    """The credentials of a registry are with a helper program, which we do not run."""


@dataclass(frozen=True)
class Credentials:
    """A user with a password, or a token that stands for them."""

    user: str = field(repr=False)
    password: str = field(repr=False)
    identity_token: str | None = field(default=None, repr=False)

    @property
    def basic(self) -> str:
        """The value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


@dataclass(frozen=True)
class Challenge:
    """What a registry answers when it wants to know who is there (RFC 9110, section 11.6.1)."""

    scheme: str
    """``bearer`` or ``basic``."""
    parameters: Mapping[str, str]


def auth_file(environ: Mapping[str, str] | None = None) -> Path:
    """Where credentials are: ``REGISTRY_AUTH_FILE``, else ``config.json`` in ``DOCKER_CONFIG`` or in ``~/.docker``."""
    env = os.environ if environ is None else environ
    if env.get("REGISTRY_AUTH_FILE"):
        return Path(env["REGISTRY_AUTH_FILE"])
    return Path(env.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"


def read_credentials(path: Path, registry: str, repository: str) -> Credentials | None:
    """The credentials for ``registry``, those for a part of it such as ``registry/team`` first; None without any.

    Raises:
        MalformedAuthFile: the file is there and cannot be read.
        KeptElsewhere: a credential helper has them.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        logins = dict(stored.get("auths") or {})
        for name in _names(registry, repository):
            if logins.get(name):
                return _decode(dict(logins[name]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError, binascii.Error) as error:
        kind = type(error).__name__  # its text may quote the file
        raise MalformedAuthFile(f"registry credentials in {path} cannot be read ({kind}): log in again") from error
    if registry in (stored.get("credHelpers") or {}) or (registry in logins and stored.get("credsStore")):
        raise KeptElsewhere(
            f"credentials of {registry} are with a helper program and not in {path}: log in with"
            " skopeo login --authfile FILE  and set REGISTRY_AUTH_FILE to that file"
        )
    return None


def read_challenge(header: str) -> Challenge | None:
    """The first challenge of a WWW-Authenticate header that we can answer, None if there is none."""
    found = re.search(r"\b(bearer|basic)\b\s*(.*)", header, re.IGNORECASE)
    if found is None:
        return None
    pairs = re.findall(r'(\w+)="([^"]*)"', found[2])
    return Challenge(found[1].lower(), {k.lower(): v for k, v in pairs})


def _names(registry: str, repository: str) -> list[str]:
    parts = [registry, *repository.split("/")]
    own = ["/".join(parts[:n]) for n in range(len(parts), 0, -1)]
    return [*own, f"https://{registry}", f"https://{registry}/", *([_HUB] if registry == "docker.io" else [])]


def _decode(entry: Mapping[str, Any]) -> Credentials:
    if entry.get("auth"):
        user, _, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
    else:
        user, password = str(entry.get("username", "")), str(entry.get("password", ""))
    return Credentials(user, password.rstrip("\0"), entry.get("identitytoken") or None)
