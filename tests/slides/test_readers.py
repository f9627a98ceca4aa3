import os

import numpy as np
import pytest
import tifffile

from histill.errors import SlideError
from histill.slides import overview, readers
from histill.slides.overview import read_overview
from histill.slides.readers import open_slide

MPP = (0.5, 0.5)


@pytest.fixture(scope="module")
def gradient():
    """Every pixel differs from its neighbours, [700, 1000, 3]."""
    y, x = np.mgrid[:700, :1000]
    return np.stack([x % 251, y % 241, (x + y) % 239], axis=2).astype(np.uint8)


@pytest.fixture(scope="module")
def slide(gradient, write_slide, tmp_path_factory):
    return write_slide(tmp_path_factory.mktemp("slide") / "a.tiff", gradient)


@pytest.mark.parametrize("name", ["openslide", "tiffslide"])
def test_both_readers_agree_on_geometry_and_pixels(name, slide, gradient):
    with open_slide(slide, name) as reader:
        assert (reader.name, reader.dimensions) == (name, (1000, 700))
        assert [level.downsample for level in reader.levels] == pytest.approx([1, 2, 4])
        np.testing.assert_array_equal(reader.read_region(130, 210, 60, 40, 60, 40), gradient[210:250, 130:190])


def test_auto_prefers_openslide(slide):
    with open_slide(slide) as reader:
        assert reader.name == "openslide"


def test_auto_falls_back_to_tiffslide(tmp_path, gradient):
    path = tmp_path / "untiled.tif"
    tifffile.imwrite(path, gradient, photometric="rgb", compression="zlib", rowsperstrip=700, predictor=True)
    with pytest.raises(SlideError):
        open_slide(path, "openslide")
    with open_slide(path) as reader:
        assert reader.name == "tiffslide"
        np.testing.assert_array_equal(reader.read_region(5, 6, 30, 20, 30, 20), gradient[6:26, 5:35])


@pytest.mark.parametrize("name", ["openslide", "tiffslide"])
def test_outside_is_white(name, slide, gradient):
    with open_slide(slide, name) as reader:
        picture = reader.read_region(-10, -5, 40, 30, 40, 30)
        np.testing.assert_array_equal(picture[5:, 10:], gradient[:25, :30])
        assert (picture[:5] == 255).all()
        assert (picture[:, :10] == 255).all()
        far = reader.read_region(980, 690, 40, 40, 40, 40)
        assert (far[10:] == 255).all()
        assert (far[:, 20:] == 255).all()
        assert (reader.read_region(5000, 0, 10, 10, 10, 10) == 255).all()


def test_shrinking_averages_and_uses_the_coarser_level(tmp_path, write_slide):
    board = (np.indices((512, 512)).sum(0) % 2 * 255).astype(np.uint8)
    path = write_slide(tmp_path / "board.tiff", np.repeat(board[..., None], 3, axis=2))
    with open_slide(path) as reader:
        picture = reader.read_region(0, 0, 512, 512, 171, 171)  # from level 1
        assert np.abs(picture.astype(int) - 127).max() <= 1
        assert reader._level_for(2.99) == 1
        assert reader._level_for(4.0) == 2
        assert reader._level_for(0.5) == 0


def test_enlarging_is_linear(slide):
    with open_slide(slide) as reader:
        assert reader.read_region(0, 0, 10, 10, 35, 20).shape == (20, 35, 3)


def test_transparent_is_white():
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0, 3], pixels[0, 1] = 255, (0, 100, 200, 51)
    assert readers._on_white(pixels).tolist() == [[[0, 0, 0], [204, 224, 244]], [[255] * 3, [255] * 3]]


def test_bands_of_an_overview_fit_together(slide, monkeypatch):
    with open_slide(slide) as reader:
        whole = read_overview(reader, MPP, 2.0)
        monkeypatch.setattr(overview, "_BAND_PIXELS", 20_000)
        assert whole.shape == (175, 250, 3)
        np.testing.assert_array_equal(read_overview(reader, MPP, 2.0), whole)


class Handle:
    """A handle that fails a number of times, as a poisoned OpenSlide handle does for good."""

    def __init__(self, reader, failures):
        self.inner, self.failures = reader._new_handle(), failures

    def read_region(self, *args):
        if self.failures:
            raise RuntimeError("poisoned")
        return self.inner.read_region(*args)

    def close(self):
        self.inner.close()


def test_a_failing_read_is_tried_on_a_fresh_handle(slide, gradient):
    reader = open_slide(slide)
    reader._handle.close()
    reader._handle = Handle(reader, failures=1)
    np.testing.assert_array_equal(reader.read_region(0, 0, 9, 9, 9, 9), gradient[:9, :9])
    reader.close()


def test_a_read_that_fails_twice_says_why_and_the_reader_recovers(slide, gradient, monkeypatch):
    reader = open_slide(slide)
    reader.close()
    with monkeypatch.context() as patch:
        patch.setattr(reader, "_new_handle", lambda: Handle(type(reader)(slide), failures=1))
        with pytest.raises(SlideError, match="openslide says: poisoned"):
            reader.read_region(0, 0, 9, 9, 9, 9)
    np.testing.assert_array_equal(reader.read_region(0, 0, 9, 9, 9, 9), gradient[:9, :9])
    reader.close()


def test_bad_files_are_refused_with_a_reason(tmp_path, slide, write_slide):
    garbage = tmp_path / "garbage.svs"
    garbage.write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(SlideError, match=r"openslide says: .*tiffslide says: ") as caught:
        open_slide(garbage)
    assert caught.value.mend
    empty = tmp_path / "empty.svs"
    empty.touch()
    with pytest.raises(SlideError, match="0 bytes"):
        open_slide(empty)
    with pytest.raises(SlideError, match="folder"):
        open_slide(tmp_path)
    with pytest.raises(SlideError, match="No such file"):
        open_slide(tmp_path / "absent.svs")


def test_sixteen_bit_pixels_are_refused(tmp_path, gradient):
    path = tmp_path / "deep.tif"
    tifffile.imwrite(path, gradient.astype(np.uint16), photometric="rgb")
    with open_slide(path, "tiffslide") as reader, pytest.raises(SlideError, match="not 8-bit RGB"):
        reader.read_region(0, 0, 10, 10, 10, 10)


def test_a_fallback_says_what_the_first_reader_said(tmp_path, gradient, slide):
    path = tmp_path / "untiled.tif"
    tifffile.imwrite(path, gradient, photometric="rgb", compression="zlib", rowsperstrip=700, predictor=True)
    with open_slide(path) as reader:
        (said,) = reader.refusals
        assert said.startswith("read with tiffslide, since openslide says: ")
    with open_slide(slide) as reader:
        assert reader.refusals == []


def test_a_pipe_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe.svs")
    with pytest.raises(SlideError, match="is no regular file"):
        open_slide(tmp_path / "pipe.svs")


def test_grey_pixels_have_a_mend_of_their_own(tmp_path, gradient):
    path = tmp_path / "grey.tif"
    tifffile.imwrite(path, gradient[..., 0])
    with open_slide(path, "tiffslide") as reader, pytest.raises(SlideError, match="not 8-bit RGB") as caught:
        reader.read_region(0, 0, 10, 10, 10, 10)
    assert caught.value.mend.startswith("convert the slide to 8-bit RGB")
