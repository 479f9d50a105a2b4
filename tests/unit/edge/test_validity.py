"""Black, blurred and impossible inputs are told from dim, soft and unusual ones."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from edgeloop.edge.selection.validity import Look, image_fault, row_fault, size_fault
from edgeloop.samples.selection import Validity
from edgeloop.samples.service import Feature

RNG = np.random.default_rng(0)
FEATURES = [Feature(name="a", min=0.7, max=10), Feature(name="b"), Feature(name="c", max=-1)]


def scene(side: int = 96) -> Image.Image:
    """Sharp shapes."""
    blocks = RNG.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((side, side), Image.Resampling.NEAREST)


def grey(level: int) -> NDArray[np.uint8]:
    return np.full((32, 32, 3), level, np.uint8)


def test_brightness_is_mean_luma() -> None:
    assert Look(grey(77)).brightness == 77
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 255
    assert Look(red).brightness == pytest.approx(0.299 * 255, abs=1)


def test_sharpness_is_the_variance_of_the_laplacian() -> None:
    pixels = np.asarray(scene())
    luma = np.asarray(Image.fromarray(pixels).convert("L")).astype(float)
    laplacian = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * luma[1:-1, 1:-1]
    assert Look(pixels).sharpness == pytest.approx(laplacian.var(), rel=1e-4)
    bowl = (np.arange(15) ** 2).astype(np.uint8)[None, :, None].repeat(15, 0).repeat(3, 2)
    assert Look(bowl).sharpness == 0, "its Laplacian is 2 everywhere"
    assert Look(grey(200)).sharpness == 0
    assert Look(np.zeros((2, 2, 3), np.uint8)).sharpness == 0


def test_blurring_takes_sharpness_away() -> None:
    image = scene()
    sharp = Look(np.asarray(image)).sharpness
    soft = Look(np.asarray(image.filter(ImageFilter.GaussianBlur(4)))).sharpness
    assert soft < sharp / 20


def file(width: int, height: int, form: str = "JPEG", mode: str = "RGB") -> bytes:
    sink = io.BytesIO()
    Image.new(mode, (width, height)).save(sink, form)
    return sink.getvalue()


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_an_image_is_too_small_by_the_shorter_side_of_its_file(form: str) -> None:
    policy = Validity(smallest_side=64)
    for width, height, fault in [(64, 64, None), (63, 900, "invalid-size"), (900, 63, "invalid-size"), (65, 64, None)]:
        assert size_fault(file(width, height, form), policy) == fault
    assert size_fault(file(1, 1, form), Validity()) is None
    assert size_fault(b"what a model behind a server took", policy) is None, "that is not for this test to refuse"


@given(st.sampled_from(["JPEG", "PNG"]), st.integers(0, 300), st.binary(max_size=20))
def test_a_damaged_header_has_no_size_or_another_and_does_no_harm(form: str, place: int, put: bytes) -> None:
    data = file(40, 40, form)
    for damaged in (data[:place], data[:place] + put + data[place + len(put) :]):
        assert size_fault(damaged, Validity(smallest_side=64)) in {None, "invalid-size"}


def test_images_are_judged_only_by_what_is_given() -> None:
    assert image_fault(Look(grey(0)), Validity()) is None
    assert image_fault(Look(grey(9)), Validity(black_below=10)) == "invalid-black"
    assert image_fault(Look(grey(10)), Validity(black_below=10)) is None
    assert image_fault(Look(grey(9)), Validity(blur_below=1)) == "invalid-blur"
    assert image_fault(Look(np.asarray(scene())), Validity(black_below=10, blur_below=50)) is None


def test_a_difference_hash_survives_light_and_noise_and_tells_scenes_apart() -> None:
    images = [scene() for _ in range(20)]
    hashes = [Look(np.asarray(image)).dhash for image in images]
    darker = [Look((np.asarray(image) * 0.8).astype(np.uint8)).dhash for image in images]
    noisy = [
        Look(np.clip(np.asarray(image) + RNG.normal(0, 3, (96, 96, 3)), 0, 255).astype(np.uint8)).dhash
        for image in images
    ]
    assert max((a ^ b).bit_count() for a, b in zip(hashes, darker, strict=True)) <= 4
    assert max((a ^ b).bit_count() for a, b in zip(hashes, noisy, strict=True)) <= 8
    assert min((a ^ b).bit_count() for n, a in enumerate(hashes) for b in hashes[:n]) > 12


def test_a_hash_has_64_bits_from_left_to_right() -> None:
    rising = np.repeat(np.arange(0, 252, 7, dtype=np.uint8)[None, :, None], 36, 0).repeat(3, 2)
    assert Look(np.ascontiguousarray(rising)).dhash == 2**64 - 1
    assert Look(np.ascontiguousarray(rising[:, ::-1])).dhash == 0


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ([5, 0, -1], None),
        ([0.7, 1e30, -5], None),
        ([10, 0, -1], None),
        ([0.6999, 0, -1], "out-of-range"),
        ([10.001, 0, -1], "out-of-range"),
        ([5, 0, -0.999], "out-of-range"),
    ],
)
def test_a_row_is_judged_by_the_range_of_each_feature(row: list[float], fault: str | None) -> None:
    assert row_fault(json.dumps(row).encode(), FEATURES) == fault


@settings(max_examples=100)
@given(st.binary(max_size=40))
def test_what_is_no_row_is_not_for_this_test_to_refuse(payload: bytes) -> None:
    assert row_fault(payload, FEATURES) in (None, "out-of-range")
