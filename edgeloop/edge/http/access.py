"""Who may ask a node what: a short list of callers, known by the digest of a token or the name in a certificate.

The file holds no secret: a token is kept as its SHA-256, so that it may lie in a repository or a ConfigMap.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from edgeloop.errors import BadInput
from edgeloop.samples.service import line_of

Role = Literal["client", "admin"]
#: Fields that may be quoted in an error; a token that was written in the wrong place must not reach a log.
_HARMLESS = {"name", "role"}


class MalformedAccess(BadInput):
    """An access.yaml does not say what it must; the message names file, line and field."""


class TlsFiles(BaseModel):
    """PEM files of an HTTPS server."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cert: Path
    """The server's certificate, followed by the intermediate ones."""
    key: Path
    """Its private key, without a password."""
    client_ca: Path | None = None
    """Certificate authorities that may sign client certificates; null asks for none."""


class Caller(BaseModel):
    """One entry of access.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(min_length=1, max_length=128)]
    """For people."""
    role: Role
    """``client`` may read and infer; ``admin`` may load and unload as well."""
    token_sha256: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")] | None = None
    """SHA-256 of the bearer token, in hexadecimal."""
    certificate: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    """Common name of the subject of a certificate that ``tls.client_ca`` signed."""

    @model_validator(mode="after")
    def _is_known_by_one_thing(self) -> Caller:
        if (self.token_sha256 is None) == (self.certificate is None):
            raise ValueError("a caller needs one of token_sha256 and certificate")
        return self


_CALLERS = TypeAdapter(Annotated[list[Caller], Field(min_length=1)])
#: A caller of a node that asks nobody who they are.
ANYONE = Caller.model_construct(name="anyone", role="client")


class Access:
    """The callers of a node."""

    def __init__(self, callers: Sequence[Caller]) -> None:
        self._by_token = [(bytes.fromhex(c.token_sha256), c) for c in callers if c.token_sha256]
        self._by_name = {c.certificate: c for c in callers if c.certificate}

    @property
    def needs_certificates(self) -> bool:
        """Whether a caller is known by a certificate."""
        return bool(self._by_name)

    def caller(self, authorization: bytes | None, certificate: str | None) -> Caller | None:
        """Who asks: by the header ``Authorization`` if there is one, else by the common name of a certificate.

        The name must come from a certificate that TLS has verified. A wrong token is nobody, whatever the certificate.
        """
        if authorization is None:
            return self._by_name.get(certificate) if certificate else None
        scheme, _, token = authorization.partition(b" ")
        if scheme.lower() != b"bearer":
            return None
        return self._holder(token.strip())

    def _holder(self, token: bytes) -> Caller | None:
        """All digests are compared, each in constant time, so that the time taken says nothing of them."""
        given = hashlib.sha256(token).digest()
        found = None
        for kept, caller in self._by_token:
            if hmac.compare_digest(kept, given):
                found = caller
        return found


def load_access(path: Path) -> Access:
    """Read an access.yaml: a list of ``{name, role, token_sha256}`` and ``{name, role, certificate}``.

    Raises:
        MalformedAccess: the file cannot be read, or an entry is wrong; the message names file, line and field.
    """
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        value: Any = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise MalformedAccess(f"{path} cannot be read ({error}): name an existing access.yaml") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise MalformedAccess(f"{path}:{line}: not YAML: {error.problem}: mend the line") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise MalformedAccess(f"{path}:1: not YAML: {_one_line(error)}: mend the file") from error
    if not isinstance(value, list):
        raise MalformedAccess(f"{path}:1: access is a list of callers with name and role: see docs/how-to")
    try:
        callers = _CALLERS.validate_python(value)
    except ValidationError as error:
        raise MalformedAccess(f"{path}:{_explain(error, root)}: mend it and start again") from error
    _check_once(callers, path, root)
    return Access(callers)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _explain(error: ValidationError, root: yaml.Node | None) -> str:
    first = error.errors()[0]
    path = tuple(first["loc"])
    given = f" (given: {first['input']!r:.80})" if path and path[-1] in _HARMLESS and first["type"] != "missing" else ""
    message = first["msg"].removeprefix("Value error, ")
    field = ".".join(map(str, path)) or "access"
    return f"{line_of(root, path)}: field {_plain(field)}: {message}{given}"


def _plain(field: str) -> str:
    return re.sub(r"[^\w.-]", "?", field)[:80]


def _check_once(callers: Sequence[Caller], path: Path, root: yaml.Node | None) -> None:
    """Raise MalformedAccess when two entries would be the same caller."""
    for field in ("name", "token_sha256", "certificate"):
        seen: dict[str, int] = {}
        for number, caller in enumerate(callers):
            value = getattr(caller, field)
            if value is None:
                continue
            first = seen.setdefault(value.lower() if field == "token_sha256" else value, number)
            if first != number:
                raise MalformedAccess(
                    f"{path}:{line_of(root, (number, field))}: field {number}.{field}: is that of entry {first}: "
                    "give each caller its own and start again"
                )
