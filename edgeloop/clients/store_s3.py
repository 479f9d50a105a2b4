"""Objects in a bucket of any S3 server that knows conditional writes, through obstore."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote

from edgeloop.clients.s3_address import CONNECT_SECONDS, S3Address
from edgeloop.clients.store_keys import check_range, checked, folder_of, probe, table_folder
from edgeloop.clients.store_types import (
    BucketMissing,
    ObjectInfo,
    ObjectMissing,
    ObjectStore,
    StoreDenied,
    StoreUnavailable,
    TableLocation,
)
from edgeloop.errors import EdgeloopError

if TYPE_CHECKING:
    from obstore.store import S3Config, S3Credential
    from obstore.store import S3Store as Bucket

_RETRY_SECONDS = 8


class S3Store(ObjectStore):
    """Objects in one bucket, under one prefix, through obstore; requests are retried for a few seconds."""

    def __init__(self, address: S3Address) -> None:
        self.url = address.url
        self._at = address
        self._store = _bucket(address)

    def get(self, key: str) -> bytes:
        with self._wrapped(key):
            return bytes(self._store.get(checked(key)).bytes())

    def get_range(self, key: str, start: int, end: int) -> bytes:
        check_range(key, start, end)
        # An empty range is not a request that HTTP knows, and one behind the end is an error there.
        if start == end:
            return self._nothing_of(key)
        try:
            with self._wrapped(key):
                return bytes(self._store.get_range(checked(key), start=start, end=end))
        except _BehindTheEnd:
            return b""

    def put(self, key: str, data: bytes) -> None:
        """See ObjectStore; more than 5 MiB go in parts and appear when all have arrived."""
        with self._wrapped(key):
            self._store.put(checked(key), data)

    def create(self, key: str, data: bytes) -> bool:
        """See ObjectStore; always one request, so within `timeout`."""
        from obstore.exceptions import AlreadyExistsError

        with self._wrapped(key):
            try:
                self._store.put(checked(key), data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return False
        return True

    def size(self, key: str) -> int | None:
        try:
            with self._wrapped(key):
                try:
                    return self._store.head(checked(key))["size"]
                except FileNotFoundError:
                    # HEAD is answered without a body: only GET tells a missing bucket from a missing object.
                    return self._store.get(key).meta["size"]
        except ObjectMissing:
            return None

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ObjectStore; a thousand keys per request, as the caller goes on."""
        folder = folder_of(prefix)
        return self._pages(folder)

    def delete(self, key: str) -> None:
        with suppress(ObjectMissing), self._wrapped(key):
            self._store.delete(checked(key))

    def move(self, source: str, target: str) -> None:
        if checked(source) == checked(target):
            done = self.size(source) is not None
        else:
            done = self._rename(source, target) or self.size(target) is not None
        if not done:
            raise ObjectMissing(self.url, source)

    def table(self, prefix: str) -> TableLocation:
        folder = table_folder(prefix, self._at.prefix)
        path = f"{self._at.prefix}/{folder}" if self._at.prefix else folder
        return TableLocation(f"s3://{self._at.bucket}/{quote(path)}", _delta_options(self._at))

    def check(self) -> None:
        probe(self)

    def _nothing_of(self, key: str) -> bytes:
        if self.size(key) is None:
            raise ObjectMissing(self.url, key)
        return b""

    def _rename(self, source: str, target: str) -> bool:
        try:
            with self._wrapped(source):
                self._store.rename(source, target)
        except ObjectMissing:
            return False
        return True

    def _pages(self, folder: str) -> Iterator[ObjectInfo]:
        with self._wrapped(folder):
            for page in self._store.list(folder or None):
                for one in page:
                    yield ObjectInfo(one["path"], one["size"], one["last_modified"])

    @contextmanager
    def _wrapped(self, key: str) -> Iterator[None]:
        """Turns obstore's errors into the store's."""
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, FileNotFoundError) as error:
            raise self._explained(error, key) from error

    def _explained(self, error: Exception, key: str) -> EdgeloopError:
        status, code, reason = _said(error)
        if code == "NoSuchBucket":
            return BucketMissing(self.url, self._at.bucket)
        if isinstance(error, FileNotFoundError):
            return ObjectMissing(self.url, key)
        if status in (401, 403):
            return StoreDenied(self.url, key, reason)
        if status == 416:
            return _BehindTheEnd(self.url, reason)
        return StoreUnavailable(self.url, reason)


class _BehindTheEnd(StoreUnavailable):
    """A range that starts where the object has ended."""


def _said(error: Exception) -> tuple[int | None, str, str]:
    """HTTP status, S3 error code and one readable line, from the text that is all obstore gives."""
    text = str(error)
    status = re.search(r"status code: (\d{3})", text)
    code = re.search(r"<Code>(\w+)</Code>", text)
    if status is None:
        cause = re.search(r'(?:message|error): "([^"]+)"', text) or re.search(r"kind: (Connect|Timeout)", text)
        return None, "", cause[1] if cause else text.splitlines()[0].split(" - ")[-1]
    name = code[1] if code else ""
    return int(status[1]), name, f"HTTP {status[1]} {name}".strip()


def _bucket(at: S3Address) -> Bucket:
    from obstore.store import S3Store as Bucket

    # A provider, because a token left in the environment would otherwise be sent along with our keys.
    def credentials() -> S3Credential:
        return {
            "access_key_id": at.access_key,
            "secret_access_key": at.secret_key,
            "token": at.token,
            "expires_at": None,
        }

    # One DELETE per object says what went wrong with that object, and every S3 server knows it.
    config: S3Config = {"region": at.region, "disable_bulk_delete": True}
    if at.endpoint:
        config["endpoint"] = at.endpoint
    return Bucket(
        at.bucket,
        prefix=at.prefix or None,
        config=config,
        credential_provider=credentials,
        client_options={
            "allow_http": at.plain_http,
            "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
            "timeout": timedelta(seconds=at.timeout),
        },
        retry_config={
            "max_retries": 3,
            "retry_timeout": timedelta(seconds=_RETRY_SECONDS),
            "backoff": {
                "init_backoff": timedelta(milliseconds=100),
                "max_backoff": timedelta(seconds=2),
                "base": 2,
            },
        },
    )


def _delta_options(at: S3Address) -> dict[str, str]:
    options = {
        "aws_access_key_id": at.access_key,
        "aws_secret_access_key": at.secret_key,
        "aws_region": at.region,
        "conditional_put": "etag",
        "allow_http": str(at.plain_http).lower(),
        "connect_timeout": f"{CONNECT_SECONDS}s",
        "timeout": f"{at.timeout:g}s",
        "max_retries": "3",
        "retry_timeout": f"{_RETRY_SECONDS}s",
    }
    optional = {"aws_endpoint_url": at.endpoint, "aws_session_token": at.token}
    return options | {name: value for name, value in optional.items() if value}
