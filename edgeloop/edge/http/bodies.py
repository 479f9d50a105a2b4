"""Bodies as they come over the wire: compressed or not, JSON alone or JSON with tensors in binary behind it.

Sources: RFC 9110 (Content-Encoding), RFC 1952 (gzip) and the binary tensor data extension of the Open Inference
Protocol (https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol/binary-tensor-data-extension).
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from itertools import islice
from typing import Any

from edgeloop.clients.endpoint_wire import split_strings
from edgeloop.edge.http.messages import MalformedRequest, Request, TooLarge, UnknownEncoding, parse_object

HEADER_LENGTH = b"inference-header-content-length"
_GZIP = 16 + zlib.MAX_WBITS


def decompressed(request: Request, limit: int) -> Request:
    """The request with its body as it was before compression; at most ``limit`` bytes are ever made, and held first.

    Raises:
        Busy: requests hold too many bytes already.
        UnknownEncoding: another Content-Encoding than gzip or identity.
        MalformedRequest: the body is not one whole gzip stream.
        TooLarge: it would be over ``limit`` bytes.
    """
    encoding = request.headers.get(b"content-encoding", b"").strip().lower()
    if encoding in (b"", b"identity"):
        return request
    if encoding != b"gzip":
        raise UnknownEncoding(f"Content-Encoding is {encoding[:40].decode('latin-1')!r}: send gzip or no encoding")
    size = min(limit, int.from_bytes(request.body[-4:], "little"))  # what the stream says of itself, see RFC 1952
    request.hold(size)
    return replace(request, body=_gunzip(request.body, size, limit))


def _gunzip(data: bytes, size: int, limit: int) -> bytes:
    """At most ``size`` bytes and one more are made: a stream that has more than it says is none."""
    stream = zlib.decompressobj(_GZIP)
    try:
        plain = stream.decompress(data, size + 1)
    except zlib.error as error:
        raise MalformedRequest(f"the body is not gzip ({error}): compress it again") from error
    if len(plain) > limit:
        raise TooLarge(f"the body is over {limit} bytes when decompressed: send fewer instances")
    if not stream.eof or stream.unused_data:
        raise MalformedRequest(f"the body of {len(data)} bytes is not one whole gzip stream: compress it again")
    return plain


def split(request: Request) -> tuple[dict[str, Any] | None, memoryview]:
    """The JSON of a request and the binary data behind it; None for JSON when the header says that there is none.

    Raises:
        MalformedRequest: Inference-Header-Content-Length is no length, or the JSON is none.
    """
    body = memoryview(request.body)
    given = request.headers.get(HEADER_LENGTH)
    if given is None:
        return parse_object(request.body), body[:0]
    if not given.isdigit() or len(given) > 18 or int(given) > len(body):
        raise MalformedRequest(
            f"Inference-Header-Content-Length is {given[:40].decode('latin-1')!r} and the body has {len(body)} bytes: "
            "send the length of the JSON in front"
        )
    length = int(given)
    if length == 0:
        return None, body
    return parse_object(body[:length], "the JSON in front"), body[length:]


def strings_of(raw: memoryview, count: int, name: str) -> list[bytes]:
    """The ``count`` elements of a BYTES tensor in binary.

    Raises:
        MalformedRequest: the lengths do not add up to ``count`` elements in ``raw``.
    """
    try:
        found = list(islice(split_strings(raw), count + 1))  # four bytes are an element: no more are made than that
    except ValueError as error:
        raise MalformedRequest(f"input {name}: {error}: mend its length") from error
    if len(found) != count:
        has = "more than" if len(found) > count else f"{len(found)} of"
        raise MalformedRequest(f"input {name} has {has} the {count} elements of its shape: mend the shape")
    return found
