"""Making a bucket: the one thing that obstore cannot do, so the one use of the `minio` package."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from edgeloop.clients.s3_address import CONNECT_SECONDS, S3Address
from edgeloop.clients.store_types import StoreDenied, StoreUnavailable
from edgeloop.errors import BadInput, MissingExtra

if TYPE_CHECKING:
    import minio


def make_bucket(at: S3Address) -> bool:
    client = _minio(at)
    import minio.error
    import urllib3.exceptions

    try:
        if client.bucket_exists(at.bucket):
            return False
        client.make_bucket(at.bucket)
        return True
    except minio.error.S3Error as error:
        if error.code == "BucketAlreadyOwnedByYou":
            return False
        if error.code in ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"):
            raise StoreDenied(at.url, at.bucket, str(error.code)) from error
        raise StoreUnavailable(at.url, f"{error.code} {error.message or ''}".strip()) from error
    except (minio.error.MinioException, urllib3.exceptions.HTTPError, OSError) as error:
        raise StoreUnavailable(at.url, str(getattr(error, "reason", error)).splitlines()[0]) from error
    except ValueError as error:
        raise BadInput(f"bucket {at.bucket!r} cannot be created: {error}; choose another name") from error


def _minio(at: S3Address) -> minio.Minio:
    try:
        import minio
    except ImportError as error:
        raise MissingExtra("minio", "cloud") from error
    import urllib3

    return minio.Minio(
        urlsplit(at.endpoint).netloc if at.endpoint else "s3.amazonaws.com",
        at.access_key,
        at.secret_key,
        session_token=at.token,
        secure=not at.plain_http,
        region=at.region,
        # The SDK's own client goes on trying for minutes.
        http_client=urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=at.timeout),
            retries=urllib3.Retry(total=3, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504]),
        ),
    )
