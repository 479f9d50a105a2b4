"""Images made to cost memory or time, or to be misread, are refused with the reason, before they are decoded."""

from __future__ import annotations

import io
import struct
import time
import tracemalloc
import warnings
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from edgeloop.samples.payloads import MAX_PIXELS, MAX_WHOLE_PIXELS, UndecodablePayload, decode_image
from tests.unit.samples.make import encoded, picture

JPEG, PNG = picture(), picture(kind="PNG")
SCAN = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00"


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *more: bytes, depth: int = 8, colour: int = 2, data: bytes = b"") -> bytes:
    """A PNG with this header, ``more`` chunks and ``data`` (deflated), whatever the size says."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = b"".join(more) + chunk(b"IDAT", zlib.compress(data, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + body


def resized_jpeg(width: int, height: int, **options: bool) -> bytes:
    """A small JPEG whose frame says another size."""
    sink = io.BytesIO()
    Image.new("RGB", (16, 16), (10, 200, 30)).save(sink, "JPEG", **options)
    data = bytearray(sink.getvalue())
    frame = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def refusal(payload: bytes) -> str:
    with pytest.raises(UndecodablePayload) as caught:
        decode_image(payload, 16)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (png(30_000, 30_000), f"image of 30000x30000 pixels is over {MAX_WHOLE_PIXELS}: send a smaller one"),
        (png(7000, 7000), f"image of 7000x7000 pixels is over {MAX_WHOLE_PIXELS}"),
        (png(2**31, 2**31), "image of 2147483648x2147483648 pixels is over"),
        (resized_jpeg(30_000, 30_000), f"image of 30000x30000 pixels is over {MAX_PIXELS}: send a smaller one"),
        (resized_jpeg(5000, 4000, progressive=True), f"image of 5000x4000 pixels is over {MAX_WHOLE_PIXELS}"),
        (
            resized_jpeg(5000, 4000).replace(b"\xff\xc0", b"\xff\xc2"),
            f"image of 5000x4000 pixels is over {MAX_WHOLE_PIXELS}",
        ),
        (resized_jpeg(5000, 4000)[:-2] + SCAN + b"\xff\xd9", f"image of 5000x4000 pixels is over {MAX_WHOLE_PIXELS}"),
        (png(0, 0), "image of 0x0 pixels shows nothing: send one with pixels"),
        (png(0, 5), "image of 0x5 pixels shows nothing"),
        (resized_jpeg(0, 0), "image of 0x0 pixels shows nothing"),
        (resized_jpeg(20, 0), "image of 20x0 pixels shows nothing"),
    ],
)
def test_a_size_that_cannot_be_is_refused_by_the_header(payload: bytes, said: str) -> None:
    tracemalloc.start()
    try:
        assert refusal(payload).startswith(said)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_no_size_makes_a_warning() -> None:
    """Warnings are for the whole process, and a node logs JSON."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for side in (9_000, 10_000, 20_000):
            refusal(png(side, side))
            refusal(resized_jpeg(side, side))
    assert not seen


@pytest.mark.parametrize("cut", [9, 20, 40, len(PNG) // 2, len(PNG) - 12, len(PNG) - 1])
def test_a_png_that_is_cut_anywhere_is_truncated(cut: int) -> None:
    assert "the PNG is truncated" in refusal(PNG[:cut])


@pytest.mark.parametrize("cut", [4, 20, 200, 400, len(JPEG) // 2, len(JPEG) - 20])
def test_a_jpeg_that_is_cut_anywhere_is_truncated(cut: int) -> None:
    assert "truncated" in refusal(JPEG[:cut])


def animated_png() -> bytes:
    sink = io.BytesIO()
    frames = [Image.new("RGB", (20, 20), (level, 0, 0)) for level in (10, 200)]
    frames[0].save(sink, "PNG", save_all=True, append_images=frames[1:])
    return sink.getvalue()


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (animated_png(), "the PNG is animated"),
        (png(4, 4, chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0))), "no single IHDR"),
        (b"\x89PNG\r\n\x1a\n" + chunk(b"tEXt", b"a\0b") + PNG[8:], "no single IHDR"),
        (png(4, 4, *[chunk(b"tEXt", b"a\0b")] * 60_000), "over 50000 chunks"),
        (JPEG[:2] + b"\xff\xda" * 200 + JPEG[2:], "not a JPEG or PNG"),
        (JPEG[:-2] + SCAN * 200 + JPEG[-2:], "over 100 scans"),
        (JPEG[:2] + b"\xff\xe0\x00\x02" * 3000 + JPEG[2:], "over 2000 segments"),
        (JPEG[:2] + b"\xff\xe0\x00\x02" + b"x" * 5000 + JPEG[2:], "other bytes between its segments"),
        (JPEG[:2] + b"\xff" * 100_000 + JPEG[2:], "the JPEG"),
        (JPEG[:2] + b"\xff\xd9", "no frame before its first scan"),
        (b"GIF89a" + b"\0" * 40, "it begins as neither does"),
        (b"", "it is empty"),
    ],
    ids=[
        *("APNG", "two headers", "text first", "chunks", "scans first", "scans", "segments", "junk", "fill"),
        *("no frame", "GIF", "empty"),
    ],
)
def test_what_is_not_one_sound_still_image_is_refused(payload: bytes, said: str) -> None:
    started = time.thread_time()
    message = refusal(payload)
    assert message.startswith(f"payload of {len(payload)} bytes is not a JPEG or PNG image (")
    assert said in message
    assert time.thread_time() - started < 2


def test_text_and_profiles_cost_nothing_and_change_nothing() -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (30, 40, 3), dtype=np.uint8))
    bomb = zlib.compress(bytes(50_000_000), 9)
    plain = encoded(image, "PNG")
    head, rest = plain[:33], plain[33:]
    extras = [chunk(b"zTXt", b"k\0\0" + bomb)] * 20 + [chunk(b"iCCP", b"p\0\0" + bomb)]
    tracemalloc.start()
    try:
        seen = decode_image(head + b"".join(extras) + rest, 16)
        assert tracemalloc.get_traced_memory()[1] < 6_000_000
    finally:
        tracemalloc.stop()
    assert np.array_equal(seen, decode_image(plain, 16))


def test_a_text_after_the_pixels_is_left_out_too() -> None:
    info = PngInfo()
    info.add_text("k", "v" * 100, zip=True)
    sink = io.BytesIO()
    Image.new("RGB", (20, 20), (1, 2, 3)).save(sink, "PNG", pnginfo=info)
    tail = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(5_000_000))) + chunk(b"IEND", b"")
    assert np.array_equal(decode_image(sink.getvalue()[:-12] + tail, 16)[0, 0], [1, 2, 3])


def by_save(mode: str, colour: object, kind: str, **options: object) -> bytes:
    sink = io.BytesIO()
    Image.new(mode, (40, 40), colour).save(sink, kind, **options)  # type: ignore[arg-type]
    return sink.getvalue()


def palette() -> bytes:
    image = Image.new("P", (40, 40), 1)
    image.putpalette([9, 9, 9, 200, 100, 50])
    sink = io.BytesIO()
    image.save(sink, "PNG", transparency=b"\x80\x40")
    return sink.getvalue()


def sixteen_bits() -> bytes:
    return encoded(Image.fromarray(np.full((40, 40), 200 * 256 + 17, np.uint16)), "PNG")


def sixteen_bit_colours() -> bytes:
    row = b"\0" + struct.pack(">HHH", 200 * 256 + 9, 100 * 256, 50 * 256 + 255) * 40
    return png(40, 40, depth=16, data=row * 40)


@pytest.mark.parametrize(
    ("made", "colour", "within"),
    [
        (lambda: by_save("CMYK", (0, 128, 255, 0), "JPEG"), (255, 127, 0), 3),
        (lambda: by_save("CMYK", (0, 0, 0, 255), "JPEG"), (0, 0, 0), 3),
        (lambda: by_save("L", 77, "JPEG"), (77, 77, 77), 1),
        (lambda: by_save("RGBA", (10, 20, 30, 0), "PNG"), (10, 20, 30), 0),
        (lambda: by_save("LA", (90, 3), "PNG"), (90, 90, 90), 0),
        (palette, (200, 100, 50), 0),
        (sixteen_bits, (200, 200, 200), 0),
        (sixteen_bit_colours, (200, 100, 50), 0),
    ],
    ids=["CMYK", "CMYK black", "grey", "RGBA", "LA", "palette", "16-bit grey", "16-bit colours"],
)
def test_every_mode_keeps_its_colour(made: Callable[[], bytes], colour: tuple[int, int, int], within: int) -> None:
    pixels = decode_image(made(), 16).astype(int)
    assert np.abs(pixels - colour).max() <= within


def test_an_orientation_is_not_applied() -> None:
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[:20] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "JPEG", exif=exif)
    seen = decode_image(sink.getvalue(), 16)
    assert seen[:6].mean() > 240
    assert seen[-6:].mean() < 15


@pytest.mark.parametrize("options", [{"progressive": True}, {"restart_marker_blocks": 1}, {"quality": 100}])
def test_what_cameras_write_is_read(options: dict[str, object]) -> None:
    sink = io.BytesIO()
    Image.new("RGB", (300, 200), (40, 80, 120)).save(sink, "JPEG", comment=b"\xff\xd8 a comment", **options)
    assert np.abs(decode_image(sink.getvalue(), 32).astype(int) - (40, 80, 120)).max() <= 3


def test_a_large_photo_is_read_and_a_large_drawing_too() -> None:
    assert decode_image(by_save("RGB", (1, 2, 3), "JPEG", quality=30), 16).shape == (16, 16, 3)
    photo = io.BytesIO()
    Image.new("L", (5000, 4990)).save(photo, "JPEG")
    drawing = io.BytesIO()
    Image.new("1", (4096, 3072)).save(drawing, "PNG")
    for data in (photo.getvalue(), drawing.getvalue()):
        assert decode_image(data, 16).shape == (16, 16, 3)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([JPEG, PNG]), st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=6))
def test_damaged_files_decode_or_are_refused(whole: bytes, damage: list[tuple[int, int]]) -> None:
    data = bytearray(whole)
    for place, value in damage:
        data[place % len(data)] = value
    try:
        pixels = decode_image(bytes(data), 16)
    except UndecodablePayload as error:
        assert "\n" not in str(error)
        return
    assert pixels.shape == (16, 16, 3)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b""]), st.binary(max_size=200))
def test_no_bytes_do_anything_but_decode_or_be_refused(start: bytes, rest: bytes) -> None:
    assert refusal(start + rest)
