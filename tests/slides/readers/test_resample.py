"""Resampling against arithmetic in float64, and reading through a pyramid against the finest level."""

import math
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from histill.slides.readers import open_slide
from histill.slides.readers.resample import Box, resample

TILE = 1024
READERS = ["openslide", "tiffslide", "tifffile"]


def shares(low: float, high: float, count: int, length: int) -> np.ndarray:
    """Share of each source pixel in each pixel of the answer, float64 [count, length]."""
    edges = low + (high - low) * np.arange(count + 1) / count
    pixels = np.arange(length)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.maximum(covered, 0) * count / (high - low)


def area(picture: np.ndarray, box: Box, width: int, height: int) -> np.ndarray:
    down = shares(box.top, box.bottom, height, picture.shape[0])
    across = shares(box.left, box.right, width, picture.shape[1])
    return np.einsum("ij,jkc,lk->ilc", down, picture.astype(float), across, optimize=True)


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).integers(0, 256, (90, 110, 3), dtype=np.uint8)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_area_is_the_mean_over_the_pixel_wherever_the_edges_fall(noise, data):
    def span(length: int) -> tuple[float, float, int]:
        low = data.draw(st.floats(0, length - 12))
        high = data.draw(st.floats(low + 10, length))
        if data.draw(st.booleans()):
            low, high = math.floor(low), math.floor(high)
        return low, high, data.draw(st.integers(1, int(high - low)))

    left, right, width = span(110)
    top, bottom, height = span(90)
    box = Box(left, top, right, bottom)
    found = resample(noise, box, width, height)
    assert np.abs(found - area(noise, box, width, height)).max() < 0.502


def test_blocks_of_rows_do_not_show(noise, monkeypatch):
    box = Box(3.3, 2.7, 101.1, 88.8)
    whole = resample(noise, box, 40, 31)
    monkeypatch.setattr("histill.slides.readers.resample._BLOCK", 500)
    np.testing.assert_array_equal(resample(noise, box, 40, 31), whole)


@pytest.mark.parametrize("method", ["area", "lanczos"])
@pytest.mark.parametrize("size", [16, 64, 150])
def test_a_ramp_stays_where_it_is(method, size):
    """A linear ramp is its own reconstruction: any shift of the grid would show as an offset."""
    ramp = np.repeat(np.arange(0, 250, 2, dtype=np.uint8)[None, :, None], 60, axis=0).repeat(3, axis=2)
    box = Box(20.4, 10.2, 100.13, 40.2)
    found = resample(ramp, box, size, 30, method)[..., 0].mean(0)
    centres = box.left + (np.arange(size) + 0.5) * (box.right - box.left) / size
    assert np.abs(found - 2 * (centres - 0.5)).max() < (1.01 if method == "area" and size > 60 else 0.76)
    assert abs(np.mean(found - 2 * (centres - 0.5))) < 0.15


def test_beyond_the_picture_its_border_goes_on(noise):
    for method in ("area", "lanczos"):
        found = resample(np.full((20, 20, 3), 77, np.uint8), Box(10, 10, 20.8, 20.8), 7, 5, method)
        assert (found == 77).all()


@pytest.fixture(scope="module")
def texture():
    """Level 0 of a slide, [3001, 4003, 3]: slow waves and a texture of 1.2 pixels, 18 grey levels strong."""
    height, width = 3001, 4003
    y, x = np.mgrid[:height, :width].astype(np.float32)
    grain = cv2.GaussianBlur(np.random.default_rng(1).normal(0, 1, (height, width)).astype(np.float32), (0, 0), 1.2)
    wave = 150 + 40 * np.sin(x / 37) + 30 * np.cos(y / 53 + x / 91) + 18 * grain / grain.std()
    return np.repeat(np.clip(np.rint(wave), 0, 255).astype(np.uint8)[..., None], 3, axis=2)


@pytest.fixture(scope="module")
def pyramid(texture, tmp_path_factory):
    path = tmp_path_factory.mktemp("pyramid") / "texture.tiff"
    with tifffile.TiffWriter(path) as file:
        for factor in (1, 4, 16):
            size = texture.shape[1] // factor, texture.shape[0] // factor
            whole = texture[: size[1] * factor, : size[0] * factor]
            file.write(
                cv2.resize(whole, size, interpolation=cv2.INTER_AREA),
                tile=(256, 256),
                photometric="rgb",
                compression="zlib",
                compressionargs={"level": 1},
                subfiletype=int(factor > 1),
            )
    return path


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("mpp", [0.2528, 0.499, 0.2265, 0.12])
def test_tiles_through_the_pyramid_are_those_of_the_finest_level(name, mpp, pyramid, texture):
    """Exact to rounding where the finest level serves; elsewhere the level's own pixels bound what is possible.

    A coarser level is as blurred as its pixels are large: the closer its scale is to the one asked for, the more.
    """
    with open_slide(pyramid, name) as reader:
        for target, pixels in ((0.5, 224), (1.0, 224), (2.0, 64), (8.0, 32)):
            side = round(pixels * target / mpp)
            if side > 2900:
                continue
            downsample = reader.level_for(side / pixels, side / pixels).downsample
            finer = side / pixels / downsample
            for x, y in ((101, 3001 - side), (4003 - side - 3, 7)):
                found = reader.read_region(x, y, side, side, pixels, pixels)
                if side < pixels:
                    continue
                part = texture[y : y + side, x : x + side, :1]
                error = np.abs(found[..., :1] - area(part, Box(0, 0, side, side), pixels, pixels))
                mean, high = error.mean(), np.percentile(error, 99.9)
                if downsample == 1:
                    assert high <= 0.51
                else:
                    # OpenSlide blends neighbours where its own downsample is no whole number, as here: 4.00217.
                    blend = 1.5 if name == "openslide" else 1.0
                    assert mean < (1.6 if finer > 1.9 else 4.5) * blend, (target, mean)
                    assert high < (9 if finer > 1.9 else 21) * blend, (target, high)


@pytest.mark.parametrize("method", ["area", "lanczos"])
@pytest.mark.parametrize("name", READERS)
def test_nothing_moves_at_the_far_corner_of_a_large_slide(name, method, tmp_path):
    """A dot near (150,000, 100,000), found in a picture of any scale to within a tenth of its pixels."""
    path = tmp_path / "sparse.tiff"
    width, height, centre = 150_003, 100_001, (149_600.0, 99_700.0)
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for factor in (1, 4, 16):
            size = width // factor, height // factor
            file.write(
                sparse_tiles(size, factor, centre),
                shape=(size[1], size[0], 3),
                dtype=np.uint8,
                tile=(TILE, TILE),
                photometric="rgb",
                compression="zlib",
                subfiletype=int(factor > 1),
            )
    with open_slide(path, name, resample=method) as reader:
        assert [level.downsample for level in reader.levels] == [1, 4, 16]
        for x0, y0, side, pixels in (
            (149_401, 99_499, 401, 203),
            (149_403, 99_501, 399, 96),
            (149_402, 99_503, 400, 57),
            (149_303, 99_407, 580, 31),
            (149_401, 99_499, 401, 600),
        ):
            dark = 255.0 - reader.read_region(x0, y0, side, side, pixels, pixels)[..., 0]
            dark[dark < 8] = 0
            scale = side / pixels
            found = [(dark.sum(axis) * (np.arange(pixels) + 0.5)).sum() / dark.sum() * scale for axis in (0, 1)]
            shift = np.abs(np.add(found, (x0, y0)) - centre) / max(scale, 1.0)
            assert shift.max() < 0.1, (scale, shift)


def sparse_tiles(size, factor, centre):
    """Compressed tiles of a white level with a dark Gaussian dot; the white ones are all the same bytes."""
    blank = zlib.compress(np.full((TILE, TILE, 3), 255, np.uint8).tobytes(), 1)
    for top in range(0, size[1], TILE):
        for left in range(0, size[0], TILE):
            if max(abs(left * factor - centre[0]), abs(top * factor - centre[1])) > (TILE + 200) * factor:
                yield blank
                continue
            across, down = (
                np.exp(-(((np.arange(TILE) + 0.5 + start) * factor - at) ** 2) / (2 * (40.0**2 + factor**2 / 12)))
                for start, at in ((left, centre[0]), (top, centre[1]))
            )
            dot = np.rint(255 - 200 * down[:, None] * across).astype(np.uint8)
            yield zlib.compress(np.repeat(dot[..., None], 3, axis=2).tobytes(), 1)


@pytest.mark.parametrize("method", ["area", "lanczos"])
@pytest.mark.parametrize("name", READERS)
def test_neighbouring_tiles_agree_with_one_large_one(name, method, tmp_path, write_slide, texture):
    path = write_slide(tmp_path / "a.tiff", texture[:1200, :2000])
    with open_slide(path, name, resample=method) as reader:
        for pixels in (200, 150, 99, 820):  # from levels of 4, 4, 4 and 1, the last one enlarged
            whole = reader.read_region(101, 202, 1600, 800, 2 * pixels, pixels)
            left = reader.read_region(101, 202, 800, 800, pixels, pixels)
            right = reader.read_region(901, 202, 800, 800, pixels, pixels)
            difference = np.abs(np.concatenate([left, right], axis=1).astype(int) - whole)
            assert difference.max() <= 1, pixels
