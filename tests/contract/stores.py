"""What the tests of object stores share: a bucket of their own, a listing's keys, many callers at one moment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

from edgeloop.clients.objects import ObjectStore, ensure_bucket
from tests.servers.ceph import S3Server

ENVIRON = {"AWS_ACCESS_KEY_ID": "a-key", "AWS_SECRET_ACCESS_KEY": "a-secret"}
"""Credentials for stores that are never reached."""


def s3_url(server: S3Server, prefix: str = "") -> str:
    url = server.store_url(f"bucket-{uuid4().hex[:12]}", prefix)
    assert ensure_bucket(url, environ=server.environ())
    return url


def keys_of(store: ObjectStore, prefix: str = "") -> list[str]:
    return [found.key for found in store.list(prefix)]


def at_once(work: Callable[[int], object], count: int = 16) -> list[object]:
    gate = threading.Barrier(count)

    def one(number: int) -> object:
        gate.wait(30)
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))
