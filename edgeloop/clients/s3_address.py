"""An S3 store's URL and the environment, read once and checked before anything is sent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from edgeloop.clients.store_keys import checked
from edgeloop.errors import BadInput

CONNECT_SECONDS = 3
"""How long a connection to an endpoint may take."""


@dataclass(frozen=True)
class S3Address:
    """Everything that an S3 URL and the environment say."""

    bucket: str
    prefix: str
    endpoint: str | None
    region: str
    timeout: float
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    token: str | None = field(repr=False)

    @property
    def url(self) -> str:
        path = f"{self.bucket}/{quote(self.prefix)}" if self.prefix else self.bucket
        return f"s3://{path}" + (f"?endpoint={self.endpoint}" if self.endpoint else "")

    @property
    def plain_http(self) -> bool:
        return self.endpoint is not None and self.endpoint.startswith("http://")


def s3_address(url: str, environ: Mapping[str, str]) -> S3Address:
    parts = urlsplit(url)
    shown = f"s3://{parts.netloc.split('@')[-1]}{parts.path}"
    if "@" in parts.netloc or parts.fragment or not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", parts.netloc):
        raise BadInput(f"store URL {shown!r} is not s3://bucket/prefix; credentials go in AWS_ACCESS_KEY_ID")
    query = _query(parts.query, shown)
    prefix = unquote(parts.path).strip("/")
    return S3Address(
        bucket=parts.netloc,
        prefix=checked(prefix) if prefix else "",
        endpoint=_endpoint(query.get("endpoint") or environ.get("AWS_ENDPOINT_URL"), shown),
        region=query.get("region") or environ.get("AWS_REGION") or "us-east-1",
        timeout=_seconds(query.get("timeout", "60"), shown),
        access_key=_credential("AWS_ACCESS_KEY_ID", shown, environ),
        secret_key=_credential("AWS_SECRET_ACCESS_KEY", shown, environ),
        token=environ.get("AWS_SESSION_TOKEN") or None,
    )


def _query(text: str, shown: str) -> dict[str, str]:
    query = dict(parse_qsl(text, keep_blank_values=True))
    unknown = sorted(set(query) - {"endpoint", "region", "timeout"})
    if unknown:
        raise BadInput(f"store URL {shown!r} has the option {unknown[0]!r}: only endpoint, region, timeout are known")
    return query


def _endpoint(text: str | None, shown: str) -> str | None:
    if not text:
        return None
    parts = urlsplit(text)
    bare = parts.scheme in ("http", "https") and parts.hostname and not (parts.path.strip("/") or parts.query)
    if not bare or "@" in parts.netloc:
        raise BadInput(f"store URL {shown!r}: the endpoint must be like http://host:9000, nothing before or after it")
    return f"{parts.scheme}://{parts.netloc}"


def _seconds(text: str, shown: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise BadInput(f"store URL {shown!r}: timeout={text!r} is not a number of seconds from 1 to 3600")
    return seconds


def _credential(name: str, shown: str, environ: Mapping[str, str]) -> str:
    value = environ.get(name, "")
    if not value:
        raise BadInput(f"store URL {shown!r} needs credentials and {name} is not set: export {name}")
    return value
