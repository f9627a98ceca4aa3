"""TIFF that the slide libraries refuse, read with tifffile."""

import struct

import numpy as np
import pytest
import tifffile

from histill.errors import SlideError
from histill.slides.readers import open_slide, segments
from histill.slides.readers.tifffile import TiffFileReader

PLAIN = {"photometric": "rgb"}


@pytest.fixture(scope="module")
def picture():
    y, x = np.mgrid[:300, :420]
    return np.stack([x % 251, y % 241, (x + y) % 239], axis=2).astype(np.uint8)


def check(path, wanted, reader="tifffile", tolerance=0):
    with open_slide(path, reader) as opened:
        assert opened.dimensions == (wanted.shape[1], wanted.shape[0])
        for x, y, width, height in ((0, 0, 420, 300), (130, 77, 200, 150), (419, 299, 1, 1), (0, 49, 420, 2)):
            found = opened.read_region(x, y, width, height, width, height).astype(int)
            assert np.abs(found - wanted[y : y + height, x : x + width]).max() <= tolerance
    return opened


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "zstd", "packbits", "lzma", "png"])
@pytest.mark.parametrize(
    "layout",
    [
        {"rowsperstrip": 1},
        {"rowsperstrip": 37},
        {"rowsperstrip": 300},
        {"tile": (64, 96)},
        {"bigtiff": True},
        {"byteorder": ">"},
    ],
)
def test_every_layout_and_lossless_compression(compression, layout, picture, tmp_path):
    options = dict(layout)
    kind = {key: options.pop(key) for key in ("bigtiff", "byteorder") if key in options}
    tifffile.imwrite(tmp_path / "a.tif", picture, **kind, **options, **PLAIN, compression=compression)
    check(tmp_path / "a.tif", picture)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("layout", [{"rowsperstrip": 41}, {"tile": (64, 64)}])
def test_planes_and_predictors(compression, layout, picture, tmp_path):
    planes = np.moveaxis(picture, 2, 0)
    path = tmp_path / "planes.tif"
    tifffile.imwrite(path, planes, **PLAIN, planarconfig="separate", compression=compression, **layout)
    check(path, picture)
    if compression:
        tifffile.imwrite(path, picture, **PLAIN, compression=compression, predictor=True, **layout)
        check(path, picture)


@pytest.mark.parametrize("compression", ["jpeg", "webp", "jpeg2000", "jpegxl"])
def test_lossy_compressions_give_rgb(compression, tmp_path):
    y, x = np.mgrid[:300, :420]
    smooth = np.stack([60 + x / 3, 200 - y / 3, 90 + (x + y) / 9], axis=2).astype(np.uint8)
    path = tmp_path / "a.tif"
    for options in ({"rowsperstrip": 64}, {"tile": (64, 64)}):
        tifffile.imwrite(path, smooth, **PLAIN, compression=compression, **options)
        check(path, smooth, tolerance=30)  # at the padded edge of the last tile; colours mixed up are 100 off


def test_grey_palette_and_white_is_zero(picture, tmp_path):
    grey = picture[..., 0]
    path = tmp_path / "grey.tif"
    tifffile.imwrite(path, grey, photometric="minisblack", compression="zlib")
    assert check(path, np.repeat(grey[..., None], 3, 2), "auto").name == "tifffile"
    tifffile.imwrite(path, grey, photometric="miniswhite")
    check(path, 255 - np.repeat(grey[..., None], 3, 2))
    table = np.random.default_rng(0).integers(0, 65536, (3, 256), dtype=np.uint16)
    tifffile.imwrite(path, grey, photometric="palette", colormap=table, compression="lzw")
    check(path, (table >> 8).astype(np.uint8).T[grey])


def test_alpha_of_both_kinds_is_on_white(picture, tmp_path):
    alpha = np.full((300, 420, 1), 51, np.uint8)
    path = tmp_path / "alpha.tif"
    tifffile.imwrite(path, np.concatenate([picture, alpha], 2), **PLAIN, extrasamples=["unassalpha"])
    check(path, np.rint(picture * 0.2 + 255 * 0.8), tolerance=1)
    tifffile.imwrite(path, np.concatenate([picture // 5, alpha], 2), **PLAIN, extrasamples=["assocalpha"])
    check(path, picture // 5 + 204)
    tifffile.imwrite(path, np.concatenate([picture, alpha], 2), **PLAIN, extrasamples=["unspecified"])
    check(path, picture)


def test_a_pyramid_in_subifds_has_all_its_levels(picture, tmp_path):
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as file:
        options = {"tile": (64, 64), "compression": "zlib", **PLAIN}
        file.write(picture, subifds=2, metadata={"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}, **options)
        file.write(picture[::2, ::2], subfiletype=1, **options)
        file.write(picture[::4, ::4], subfiletype=1, **options)
    with open_slide(path) as reader:
        assert reader.name == "tifffile"
        assert [level.downsample for level in reader.levels] == [1, 2, 4]
        assert "it sees one level" in reader.refusals[0]
    with open_slide(path, "openslide") as reader:  # pinned, it is taken as it is
        assert len(reader.levels) == 1
    reader = check(path, picture)
    assert reader.vendor == "ome-tiff"
    assert "PhysicalSizeX" in reader.properties["tiff.ImageDescription"]
    with open_slide(path, "tifffile") as reader:
        np.testing.assert_array_equal(reader.read_region(40, 40, 40, 40, 10, 10), picture[::4, ::4][10:20, 10:20])


def test_three_channels_on_three_pages_are_a_picture_and_other_stacks_are_not(picture, tmp_path):
    path = tmp_path / "channels.ome.tif"
    tifffile.imwrite(path, np.moveaxis(picture, 2, 0), photometric="minisblack", ome=True, metadata={"axes": "CYX"})
    assert "its three channels are taken as red, green and blue" in check(path, picture).notes
    tifffile.imwrite(path, np.zeros((5, 40, 40), np.uint8), photometric="minisblack", metadata={"axes": "ZYX"})
    with pytest.raises(SlideError, match="is a stack of axes"):
        open_slide(path)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, bool])
def test_other_depths_are_refused_with_a_mend(dtype, picture, tmp_path):
    path = tmp_path / "deep.tif"
    tifffile.imwrite(path, picture[..., 0].astype(dtype), photometric="minisblack")
    with pytest.raises(SlideError, match=r"tifffile says: .*not 8-bit") as caught:
        open_slide(path)
    assert "8-bit RGB" in caught.value.mend


def test_resolution_and_description_are_passed_on(picture, tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, picture, **PLAIN, resolution=(40000, 20000), resolutionunit=3, description="MPP = 0.25")
    with open_slide(path) as reader:
        assert float(reader.properties["tiff.XResolution"]) == 40000
        assert float(reader.properties["tiff.YResolution"]) == 20000
        assert reader.properties["tiff.ResolutionUnit"] == "centimeter"
        assert reader.properties["tiff.ImageDescription"] == "MPP = 0.25"


def test_each_strip_is_decoded_once_whatever_the_order_of_tiles(picture, tmp_path, monkeypatch):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, picture, **PLAIN, compression="zlib", rowsperstrip=20)
    decoded = []
    real = segments.Plane._decode
    monkeypatch.setattr(segments.Plane, "_decode", lambda self, index: decoded.append(index) or real(self, index))
    with open_slide(path) as reader:
        for y in range(0, 300, 30):
            for x in range(0, 420, 30):
                reader.read_region(x, y, 30, 30, 15, 15)
    assert sorted(decoded) == list(range(15))


def test_a_huge_strip_is_refused_compressed_and_read_in_part_uncompressed(picture, tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "MAX_SEGMENT_BYTES", 100_000)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, picture, **PLAIN, compression="zlib", rowsperstrip=300)
    with pytest.raises(SlideError, match=r"one strip or tile of 420 × 300 pixels"):
        open_slide(path, "tifffile")
    tifffile.imwrite(path, picture, **PLAIN, rowsperstrip=300)
    check(path, picture)


@pytest.mark.parametrize("compression", [None, "zlib", "jpeg"])
def test_a_truncated_file_says_so_where_it_ends(compression, picture, tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, picture, **PLAIN, compression=compression, rowsperstrip=16)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with TiffFileReader(path) as reader:  # `open_slide` would refuse it as a whole
        reader.read_region(0, 0, 420, 16, 420, 16)
        with pytest.raises(SlideError, match="cannot be read") as caught:
            reader.read_region(0, 280, 420, 16, 420, 16)
        assert "copy" in caught.value.mend
        reader.read_region(0, 0, 420, 16, 420, 16)


def test_strips_that_were_never_written_are_white(picture, tmp_path):
    path = tmp_path / "sparse.tif"
    tifffile.imwrite(path, picture, **PLAIN, compression="zlib", rowsperstrip=100)
    with tifffile.TiffFile(path, mode="r+b") as file:
        for name in ("StripOffsets", "StripByteCounts"):
            tag = file.pages.first.tags[name]
            values = list(tag.value)
            values[1] = 0
            tag.overwrite(values)
    wanted = picture.copy()
    wanted[100:200] = 255
    check(path, wanted)


def test_a_header_of_absurd_size_costs_nothing(tmp_path):
    tags = [(256, 4, 10**9), (257, 4, 10**9), (258, 3, 8), (259, 3, 8), (262, 3, 1), (273, 4, 8), (277, 3, 1)]
    tags += [(278, 4, 10**9), (279, 4, 16)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    head = struct.pack("<2sHI", b"II", 42, 24) + bytes(16)
    path = tmp_path / "bomb.tif"
    path.write_bytes(head + struct.pack("<H", len(tags)) + entries + bytes(4))
    with pytest.raises(SlideError, match="no reader can open it"):
        open_slide(path)
