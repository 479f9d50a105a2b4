"""One way to keep bytes by name, in a directory or in an S3 bucket, so nodes and cloud need not care which.

What every store guarantees, and no more:

- `put` and `create` are atomic: a reader sees all of the old object, all of the new one, or none.
- `create` is decided by the store (If-None-Match on S3, a hard link in a directory): of many writers one gets
  True. False means that the key was taken; on S3, after a broken connection, that may be by this very call,
  so give objects names that follow from their content, or look at what is there.
- `put` by several writers: one of them wins, whole. Nothing is merged and nobody is told.
- `move` replaces its target. In a directory it is one step; on S3 it is copy, then delete, so a crash between
  them leaves both, and calling it again finishes the work.
- `modified` is the store's clock, in whole seconds on S3, and a move may renew it: good for sweeping what is
  old, not for putting events in order.
- A key cannot also be a folder of another key. Directories enforce it and raise BadInput, S3 does not notice.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from edgeloop.clients.s3_address import s3_address
from edgeloop.clients.s3_bucket import make_bucket
from edgeloop.clients.store_directory import DirectoryStore, directory_of
from edgeloop.clients.store_memory import MemoryStore
from edgeloop.clients.store_s3 import S3Store
from edgeloop.clients.store_types import (
    BucketMissing,
    ObjectInfo,
    ObjectMissing,
    ObjectStore,
    StoreDenied,
    StoreUnavailable,
    TableLocation,
)
from edgeloop.errors import BadInput

__all__ = [
    "BucketMissing",
    "DirectoryStore",
    "MemoryStore",
    "ObjectInfo",
    "ObjectMissing",
    "ObjectStore",
    "S3Store",
    "StoreDenied",
    "StoreUnavailable",
    "TableLocation",
    "ensure_bucket",
    "open_store",
]


def open_store(url: str, *, environ: Mapping[str, str] = os.environ) -> ObjectStore:
    """A store by its URL; does not talk to it yet (`check` does).

    `PATH` or `file:///PATH` is a directory, created if absent. `s3://BUCKET[/PREFIX]` takes `endpoint` (else
    AWS_ENDPOINT_URL, else AWS), `region` (else AWS_REGION, else us-east-1) and `timeout` (seconds for one
    request, 60) as query, and AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, if set, AWS_SESSION_TOKEN from
    `environ`. The prefix is percent-decoded once.
    Raises BadInput for anything else, or when credentials are missing.
    """
    if not url or url != url.strip():
        raise BadInput(f"store URL {url!r} is empty or has spaces around it: give a directory or s3://bucket")
    if url.startswith("s3://"):
        return S3Store(s3_address(url, environ))
    return DirectoryStore(directory_of(url))


def ensure_bucket(url: str, *, environ: Mapping[str, str] = os.environ) -> bool:
    """Creates what `url` names, if it is missing; True if a bucket was created.

    Raises MissingExtra without the `minio` package, StoreUnavailable, StoreDenied, or BadInput (URL).
    """
    if not url.startswith("s3://"):
        open_store(url, environ=environ)
        return False
    return make_bucket(s3_address(url, environ))
