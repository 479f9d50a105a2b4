"""How small a release is after compression, and as a delta, which knows the file before: what others would send."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zstandard import ZstdCompressor

#: As registries compress.
GZIP_LEVEL = 6
#: Of images; slower levels than this save a few per cent.
ZSTD_LEVEL = 10
#: Of deltas. Without a search for shorter matches than the long ones, an unchanged stretch stays one match.
DELTA_LEVEL = 1
#: bsdiff sorts the old file in some 17 times its memory, which takes minutes where all weights differ: larger ones are
#: left out.
LARGEST_BSDIFF = 32_000_000


def gzip_size(pieces: Iterable[bytes]) -> int:
    """Bytes of gzip."""
    stream = zlib.compressobj(GZIP_LEVEL, wbits=31)
    return sum(len(stream.compress(piece)) for piece in pieces) + len(stream.flush())


def zstd_size(pieces: Iterable[bytes]) -> int:
    """Bytes of zstd."""
    from zstandard import ZstdCompressor

    stream = ZstdCompressor(level=ZSTD_LEVEL).compressobj()
    return sum(len(stream.compress(piece)) for piece in pieces) + len(stream.flush())


def zstd_delta(old: bytes, new: bytes) -> bytes:
    """What zstd sends of ``new`` to whoever has ``old``: the end of one stream over both, its window as long as they.

    That is what ``zstd --patch-from`` does, but for the header of a frame; :func:`zstd_apply` is the way back.
    """
    from zstandard import COMPRESSOBJ_FLUSH_BLOCK

    stream = _long(len(old) + len(new)).compressobj(size=len(old) + len(new))
    stream.compress(old)
    stream.flush(COMPRESSOBJ_FLUSH_BLOCK)
    return stream.compress(new) + stream.flush()


def zstd_apply(old: bytes, delta: bytes, size: int) -> bytes:
    """The new file of ``size`` bytes from the old one and its delta."""
    from zstandard import COMPRESSOBJ_FLUSH_BLOCK, ZstdDecompressor

    stream = _long(len(old) + size).compressobj(size=len(old) + size)
    begin = stream.compress(old) + stream.flush(COMPRESSOBJ_FLUSH_BLOCK)
    whole: bytes = ZstdDecompressor(max_window_size=1 << 31).decompress(begin + delta)
    return whole[len(old) :]


def _long(size: int) -> ZstdCompressor:
    from zstandard import ZstdCompressionParameters, ZstdCompressor

    window = min(31, max(20, (size - 1).bit_length()))
    settings = ZstdCompressionParameters.from_level(DELTA_LEVEL, window_log=window, enable_ldm=True)
    return ZstdCompressor(compression_params=settings)


def bsdiff_delta(old: bytes, new: bytes) -> bytes | None:
    """A bsdiff4 patch; None where ``old`` is too large for it."""
    if len(old) > LARGEST_BSDIFF:
        return None
    import bsdiff4  # type: ignore[import-untyped]

    found: bytes = bsdiff4.diff(old, new)
    return found
