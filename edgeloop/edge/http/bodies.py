"""Bodies as they come over the wire: compressed or not, JSON alone or JSON with tensors in binary behind it.

Sources: RFC 9110 (Content-Encoding), RFC 1952 (gzip) and the binary tensor data extension of the Open Inference
Protocol (https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol/binary-tensor-data-extension).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from edgeloop.edge.http.messages import MalformedRequest, Request, TooLarge, UnknownEncoding, parse_object

HEADER_LENGTH = b"inference-header-content-length"
_GZIP = 16 + zlib.MAX_WBITS
_LENGTH = struct.Struct("<I")


def decompressed(request: Request, limit: int) -> Request:
    """The request with its body as it was before compression; at most ``limit`` bytes are ever made.

    Raises:
        UnknownEncoding: another Content-Encoding than gzip or identity.
        MalformedRequest: the body is not one whole gzip stream.
        TooLarge: it would be over ``limit`` bytes.
    """
    encoding = request.headers.get(b"content-encoding", b"").strip().lower()
    if encoding in (b"", b"identity"):
        return request
    if encoding != b"gzip":
        raise UnknownEncoding(f"Content-Encoding is {encoding[:40].decode('latin-1')!r}: send gzip or no encoding")
    return replace(request, body=_gunzip(request.body, limit))


def _gunzip(data: bytes, limit: int) -> bytes:
    stream = zlib.decompressobj(_GZIP)
    try:
        plain = stream.decompress(data, limit + 1)
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


def split_strings(raw: memoryview, count: int, name: str) -> list[bytes]:
    """The elements of a BYTES tensor: each is a little-endian uint32 length and that many bytes.

    Raises:
        MalformedRequest: the lengths do not add up to ``count`` elements in ``raw``.
    """
    found, at = list[bytes](), 0
    for number in range(count):
        end = at + _LENGTH.size
        if end > len(raw):
            raise MalformedRequest(f"input {name} ends before element {number} of {count}: send its 4-byte length")
        length = _LENGTH.unpack_from(raw, at)[0]
        at = end + length
        if at > len(raw):
            raise MalformedRequest(
                f"element {number} of input {name} says {length} bytes and {len(raw) - end} are left: mend its length"
            )
        found.append(bytes(raw[end:at]))
    if at != len(raw):
        raise MalformedRequest(f"input {name} has {len(raw) - at} bytes behind its {count} elements: mend the shape")
    return found


def join_strings(values: Iterable[bytes]) -> bytes:
    """What :func:`split_strings` reads."""
    return b"".join(_LENGTH.pack(len(value)) + value for value in values)
