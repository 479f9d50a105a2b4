"""Names of images: ``registry/repository[:tag][@digest]``.

The registry is always named: a default would send a company's model to a public place because of a typing error.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from edgeloop.errors import BadInput

_HOST = r"(?:\[[0-9a-fA-F:]+\]|[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)(?::[0-9]{1,5})?"
_PART = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?P<registry>{_HOST})/(?P<repository>{_PART}(?:/{_PART})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
#: The specification's bound on host and repository together.
_LONGEST = 255


class MalformedReference(BadInput):
    """Text that should name an image does not."""


class UnpinnedBase(BadInput):
    """A base image is named by a tag alone, which may be another image tomorrow."""


@dataclass(frozen=True)
class Reference:
    """An image in a registry."""

    registry: str
    """Host, with the port if there is one."""
    repository: str
    tag: str | None = None
    digest: str | None = None

    @property
    def name(self) -> str:
        """``registry/repository``."""
        return f"{self.registry}/{self.repository}"

    def at(self, digest: str) -> str:
        """The name by which nothing else can ever be meant: ``registry/repository@digest``."""
        return f"{self.name}@{digest}"

    def pinned(self) -> str:
        """Its digest; raises UnpinnedBase without one."""
        if self.digest is None:
            raise UnpinnedBase(
                f"base {self.name}{f':{self.tag}' if self.tag else ''} has no digest, and a tag can change:"
                f" name it as {self.name}@sha256:…, which  skopeo inspect  shows"
            )
        return self.digest

    def without_digest(self) -> Reference:
        """As the target of a push, whose digest is known only when it is made.

        Raises:
            MalformedReference: it has a digest.
        """
        if self.digest is not None:
            raise MalformedReference(f"{self} names an image that is there: push to {self.name}:TAG")
        return self

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}{f'@{self.digest}' if self.digest else ''}"


def parse(text: str) -> Reference:
    """Read ``registry/repository[:tag][@sha256:…]``.

    Raises:
        MalformedReference: it is anything else, a name without a registry among them.
    """
    found = _REFERENCE.fullmatch(text.removeprefix("docker://"))
    if found is None or not _is_host(found["registry"]) or len(f"{found['registry']}/{found['repository']}") > _LONGEST:
        raise MalformedReference(
            f"{_without_credentials(text)!r:.300} names no image: write REGISTRY/REPOSITORY[:TAG], as in"
            " registry.example.com/models/wine-rater:7, the repository in small letters"
        )
    return Reference(found["registry"], found["repository"], found["tag"], found["digest"])


def is_loopback(host: str) -> bool:
    """Whether ``host``, with or without a port, is this machine."""
    name = host.rsplit(":", 1)[0] if re.search(r":[0-9]+$", host) and (host[0] == "[" or host.count(":") == 1) else host
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def _is_host(text: str) -> bool:
    """As Docker tells a registry from the first part of a path: by a dot, a port, or the name localhost."""
    return text == "localhost" or any(c in text for c in ".:")


def _without_credentials(text: str) -> str:
    return re.sub(r"^(?:[a-z]+://)?[^/@]*:[^/@]*@(?!sha256:)", "…@", text)
