import os

import numpy as np
import pytest
import tifffile

from histill.errors import SlideError
from histill.slides import overview
from histill.slides.overview import read_overview
from histill.slides.readers import READERS, open_slide
from histill.slides.readers.base import on_white

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


def test_auto_falls_back_to_tiffslide_for_tiles_and_to_tifffile_for_strips(tmp_path, gradient):
    tiled, strips = tmp_path / "tiled.tif", tmp_path / "strips.tif"
    tifffile.imwrite(tiled, gradient, photometric="rgb", tile=(128, 128), compression="png")
    tifffile.imwrite(strips, gradient, photometric="rgb", compression="zlib", rowsperstrip=50, predictor=True)
    for path, name in ((tiled, "tiffslide"), (strips, "tifffile")):
        with pytest.raises(SlideError):
            open_slide(path, "openslide")
        with open_slide(path) as reader:
            assert reader.name == name
            np.testing.assert_array_equal(reader.read_region(5, 6, 30, 20, 30, 20), gradient[6:26, 5:35])
    with open_slide(strips, "tiffslide") as reader:  # a doubt is no refusal where the reader is pinned
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
        asked = (2.99, 2.99), (4.0, 4.0), (3.998, 4.0), (3.9, 4.0), (0.5, 0.5)
        assert [reader.level_for(*downsample).downsample for downsample in asked] == [2, 4, 4, 2, 1]


def test_enlarging_is_linear(slide):
    with open_slide(slide) as reader:
        assert reader.read_region(0, 0, 10, 10, 35, 20).shape == (20, 35, 3)


def test_transparent_is_white():
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0, 3], pixels[0, 1] = 255, (0, 100, 200, 51)
    assert on_white(pixels).tolist() == [[[0, 0, 0], [204, 224, 244]], [[255] * 3, [255] * 3]]


def test_bands_of_an_overview_fit_together(slide, monkeypatch):
    with open_slide(slide) as reader:
        whole = read_overview(reader, MPP, 2.0)
        monkeypatch.setattr(overview, "_BLOCK", (160, 60))
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
    with pytest.raises(SlideError, match=r"tiffslide says: .*not 8-bit RGB.*tifffile says: .*16 bits") as caught:
        open_slide(path)
    assert caught.value.mend.startswith("convert the slide to 8-bit RGB")


@pytest.mark.parametrize("name", ["auto", "openslide"])
def test_what_openslide_would_give_in_part_is_refused(name, tmp_path, gradient):
    planes = np.moveaxis(gradient, 2, 0)
    tiled = {"tile": (128, 128), "photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "deep.tif", gradient.astype(np.uint16), tile=(128, 128), photometric="rgb")
    tifffile.imwrite(tmp_path / "four.ome.tif", planes[[0, 1, 2, 0]], metadata={"axes": "CYX"}, **tiled)
    depth = np.stack([gradient, gradient])
    tifffile.imwrite(tmp_path / "z.ome.tif", depth, tile=(128, 128), photometric="rgb", metadata={"axes": "ZYXS"})
    for file, said in (("deep.tif", "16 bits"), ("four.ome.tif", "stack of axes CYX"), ("z.ome.tif", "axes ZYXS")):
        with pytest.raises(SlideError, match=f"openslide says: .*{said}") as caught:
            open_slide(tmp_path / file, name)
        assert "convert the slide" in caught.value.mend


def test_three_channels_in_pages_of_their_own_are_not_taken_for_one_grey(tmp_path, gradient):
    path = tmp_path / "three.ome.tif"
    planes = np.moveaxis(gradient, 2, 0)
    tifffile.imwrite(path, planes, tile=(128, 128), photometric="minisblack", metadata={"axes": "CYX"})
    with open_slide(path) as reader:
        assert reader.name == "tifffile"
        np.testing.assert_array_equal(reader.read_region(130, 210, 60, 40, 60, 40), gradient[210:250, 130:190])


def test_colours_multiplied_with_their_alpha_are_left_to_who_knows_them(tmp_path, gradient):
    path = tmp_path / "premultiplied.tif"
    half = np.concatenate([gradient // 2, np.full((700, 1000, 1), 128, np.uint8)], axis=2)
    options = {"tile": (128, 128), "photometric": "rgb", "compression": "png", "extrasamples": ["assocalpha"]}
    tifffile.imwrite(path, half, **options)
    with open_slide(path) as reader:
        assert reader.name == "tifffile"
        np.testing.assert_array_equal(reader.read_region(0, 0, 9, 9, 9, 9), gradient[:9, :9] // 2 + 127)


def test_what_cannot_be_looked_at_is_refused(tmp_path):
    loop = tmp_path / "loop.svs"
    loop.symlink_to(loop)
    for path in (loop, tmp_path / ("a" * 300 + ".svs")):
        with pytest.raises(SlideError, match="cannot be read"):
            open_slide(path)


def test_a_fallback_says_what_the_first_reader_said(tmp_path, gradient, slide):
    path = tmp_path / "png.tif"
    tifffile.imwrite(path, gradient, photometric="rgb", tile=(128, 128), compression="png")
    with open_slide(path) as reader:
        (said,) = reader.refusals
        assert said.startswith("read with tiffslide, since openslide says: ")
    with open_slide(slide) as reader:
        assert reader.refusals == []


def test_a_pipe_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe.svs")
    with pytest.raises(SlideError, match="is no regular file"):
        open_slide(tmp_path / "pipe.svs")


@pytest.mark.parametrize("name", READERS)
def test_an_unknown_option_is_a_programming_error(name, slide):
    with pytest.raises(ValueError, match="resample is one of"):
        READERS[name](slide, resample="nearest")


def test_an_unknown_reader_is_a_programming_error(slide):
    with pytest.raises(ValueError, match="reader is auto or one of"):
        open_slide(slide, "bioformats")


def test_a_region_far_larger_than_the_slide_costs_no_more(slide, gradient):
    with open_slide(slide) as reader:
        picture = reader.read_region(-(10**7), -(10**7), 2 * 10**7, 2 * 10**7, 200, 200)
    assert (picture[:99] == 255).all()
    assert picture.shape == (200, 200, 3)


def test_a_pixel_partly_outside_is_partly_white(tmp_path, write_slide):
    path = write_slide(tmp_path / "black.tiff", np.zeros((300, 300, 3), np.uint8), levels=1)
    with open_slide(path) as reader:
        picture = reader.read_region(-1, 0, 301, 300, 100, 100)  # the first pixel is a third outside
    assert np.abs(picture[:, 0].astype(int) - round(255 / 3.01)).max() <= 1
    assert (picture[:, 1:] == 0).all()


def test_a_pixel_partly_outside_has_the_mean_of_what_is_inside(tmp_path, write_slide):
    pixels = np.full((300, 300, 3), 200, np.uint8)
    pixels[:, 0] = pixels[:, -1] = 0
    path = write_slide(tmp_path / "edge.tiff", pixels, levels=1)
    with open_slide(path, "tifffile") as reader:
        stored = reader.read_region(0, 0, 300, 300, 300, 300).astype(float)
        picture = reader.read_region(-2, 0, 304, 300, 76, 75)
    left, right = stored[:, :2].mean((0, 1)), stored[:, -2:].mean((0, 1))
    assert np.abs(picture[5:-5, 0].mean(0) - (left + 255) / 2).max() <= 1.5
    assert np.abs(picture[5:-5, -1].mean(0) - (right + 255) / 2).max() <= 1.5


@pytest.mark.parametrize("method", ["area", "lanczos"])
@pytest.mark.parametrize("name", ["openslide", "tiffslide", "tifffile"])
def test_the_far_edge_of_floored_levels_has_no_white_line(name, method, tmp_path, write_slide):
    path = write_slide(tmp_path / "dark.tiff", np.full((515, 519, 3), 40, np.uint8))
    with open_slide(path, name, resample=method) as reader:
        assert [level.downsample for level in reader.levels] == [1, 2, 4]
        for scale in (1, 2, 3, 4, 7):
            picture = reader.read_region(519 - 280, 515 - 280, 280, 280, 280 // scale, 280 // scale)
            assert np.abs(picture.astype(int) - 40).max() <= 2, scale


@pytest.mark.parametrize("name", ["openslide", "tiffslide", "tifffile"])
def test_a_handle_is_never_used_in_another_process(name, slide, gradient):
    with open_slide(slide, name) as reader:
        mine, reader._owner = reader._handle, os.getpid() + 1  # as after a fork
        np.testing.assert_array_equal(reader.read_region(3, 4, 9, 9, 9, 9), gradient[4:13, 3:12])
        assert reader._handle is not mine
        child = os.fork()
        if child == 0:
            same = np.array_equal(reader.read_region(3, 4, 9, 9, 9, 9), gradient[4:13, 3:12])
            os._exit(0 if same and reader._owner == os.getpid() else 1)
        assert os.waitpid(child, 0)[1] == 0
        mine.close()


@pytest.mark.parametrize("name", ["openslide", "tiffslide", "tifffile"])
def test_closing_gives_the_file_back(name, slide):
    def open_files() -> list[str]:
        links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
        return [link for link in links if os.path.exists(link) and os.path.realpath(link) == os.path.realpath(slide)]

    before = len(open_files())
    for _ in range(3):
        with open_slide(slide, name) as reader:
            reader.read_region(0, 0, 9, 9, 9, 9)
    assert len(open_files()) == before
