"""Tiles decoded past OpenSlide are the pixels OpenSlide gives, and what is unusual is left to it."""

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile

from histill.errors import SlideError
from histill.slides.readers import open_slide
from histill.slides.readers.cache import TileCache
from histill.slides.readers.codecs import UndecodedError
from histill.slides.readers.direct import DirectTiles
from histill.slides.readers.pages import pages_of_sizes
from histill.slides.readers.request import Window
from tests.slides import sparse


@pytest.fixture(scope="module")
def pyramid(tmp_path_factory):
    return sparse.write_sparse(tmp_path_factory.mktemp("direct") / "a.svs", (5120, 4096), seed=2).path


@pytest.fixture
def write(stained, tmp_path):
    """A JPEG pyramid of 700 × 900 px written by tifffile: not by this project's own generator."""

    def make(name="b.tiff", *, byteorder="<", bigtiff=False, levels=2, tile=(240, 240), **options):
        picture = stained(700, 900)
        options = {"compression": "jpeg", "photometric": "rgb", **options}
        with tifffile.TiffWriter(tmp_path / name, byteorder=byteorder, bigtiff=bigtiff) as file:
            for level in range(levels):
                kind = {"subfiletype": 1 if level else 0, "resolution": (2e4, 2e4), "resolutionunit": 3}
                part = np.ascontiguousarray(picture[:: 1 << level, :: 1 << level])
                file.write(part, tile=tile, metadata=None, **kind, **options)
        return tmp_path / name

    return make


def direct_tiles(path, sizes):
    return DirectTiles(path, pages_of_sizes(path, sizes), "OpenSlide", TileCache(), [])


def served(reader) -> list[bool]:
    return [page is not None for page in reader._tiles._levels]


def assert_same(path, expect_served, windows=40):
    random = np.random.default_rng(0)
    with open_slide(path, "openslide") as direct, open_slide(path, "openslide") as composed:
        composed._tiles = None
        width, height = direct.dimensions
        for _ in range(windows):
            x, y = random.integers(-50, (width, height)).tolist()
            w, h = (random.integers(1, 1500, 2)).tolist()
            out = [max(1, round(side / random.uniform(0.8, 20))) for side in (w, h)]
            ours, theirs = direct.read_region(x, y, w, h, *out), composed.read_region(x, y, w, h, *out)
            np.testing.assert_array_equal(ours, theirs)
        assert served(direct) == expect_served
        assert direct.notes == []


def test_a_scanners_pyramid(pyramid):
    assert_same(pyramid, [True] * 3)


def test_levels_of_rounded_sizes_are_not_shifted(tmp_path):
    """OpenSlide's factor for 5001 and 312 px is 16.03, and it draws the level between pixels; the pages are at 16."""
    path = sparse.write_sparse(tmp_path / "a.svs", (5001, 4003), seed=2).path
    with open_slide(path, "openslide") as direct, tifffile.TiffFile(path) as file:
        page = file.pages[3].asarray()
        assert served(direct) == [True] * 3
        picture = direct.read_region(16 * 40, 16 * 30, 16 * 200, 16 * 150, 200, 150)
        assert served(direct)[2]
    np.testing.assert_array_equal(picture, page[30:180, 40:240])


@pytest.mark.parametrize(("byteorder", "bigtiff"), [("<", False), ("<", True), (">", True)])
def test_a_generic_tiff(write, byteorder, bigtiff):
    assert_same(write(byteorder=byteorder, bigtiff=bigtiff), [True] * 2)


def test_other_tile_sizes_and_one_level(write):
    assert_same(write(tile=(256, 128), levels=1), [True])


@pytest.mark.parametrize(("byteorder", "bigtiff"), [("<", False), (">", True)])
@pytest.mark.parametrize(
    ("compression", "predictor"), [(None, False), ("lzw", False), ("lzw", True), ("zlib", False), ("zlib", True)]
)
def test_lossless_tiles(write, compression, predictor, byteorder, bigtiff):
    options = {"compression": compression, "predictor": predictor, "byteorder": byteorder, "bigtiff": bigtiff}
    assert_same(write(tile=(256, 256), **options), [True] * 2)


def test_other_compressions_are_left_to_openslide(write):
    assert_same(write(compression="packbits", tile=(256, 256)), [False] * 2)


def write_aperio_jpeg2000(path, picture, compression, side=128, **options):
    """Aperio's JPEG 2000: bare codestreams, of YCbCr without a transform (33003) or of RGB (33005)."""

    def codestreams():
        for top in range(0, picture.shape[0], side):
            for left in range(0, picture.shape[1], side):
                tile = np.full((side, side, 3), 255, np.uint8)
                part = picture[top : top + side, left : left + side]
                tile[: part.shape[0], : part.shape[1]] = part
                if compression == 33003:
                    tile = np.ascontiguousarray(cv2.cvtColor(tile, cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]])
                yield imagecodecs.jpeg2k_encode(tile, level=30, codecformat="j2k", mct=compression == 33005, **options)

    with tifffile.TiffWriter(path) as file:
        file.write(
            codestreams(),
            shape=picture.shape,
            dtype=np.uint8,
            tile=(side, side),
            photometric="rgb",
            compression=compression,
            description=f"Aperio Image Library v10.0.0\r\n{picture.shape[1]}x{picture.shape[0]}|MPP = 0.5",
            metadata=None,
        )
    return path


@pytest.mark.parametrize("compression", [33003, 33005])
def test_jpeg_2000_of_aperio(stained, tmp_path, compression):
    path = write_aperio_jpeg2000(tmp_path / "a.svs", stained(300, 420), compression)
    with open_slide(path, "openslide") as reader:
        assert reader.vendor == "aperio"
    assert_same(path, [True], windows=15)


def test_a_jpeg_2000_tile_of_another_size_is_not_decoded(stained, tmp_path):
    path = write_aperio_jpeg2000(tmp_path / "a.svs", stained(300, 420), 33005)
    data = bytearray(path.read_bytes())
    offset, _, index = tile_of(path)
    data[offset + 8 : offset + 16] = b"\0\0\xff\xdc" * 2  # 65,500 × 65,500 px
    path.write_bytes(data)
    tiles = direct_tiles(path, [(420, 300)])
    with pytest.raises(UndecodedError, match="not of the tile's size"):
        tiles._decode(tiles._levels[0], index, np.empty((128, 128, 3), np.uint8))
    tiles.close()


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cmu-1-small-region.svs", [True]),
        ("TCGA-06-0174-01Z-00-DX3.tiff", [True] * 3),
    ],
)
def test_real_slides(shared_data, name, expected):
    assert_same(shared_data / "wsi" / name, expected)


@pytest.mark.shared_data
def test_a_real_slide_of_deflate_tiles_with_rounded_levels(shared_data):
    path = shared_data / "wsi" / "openslide_boxes.tiff"
    with open_slide(path, "openslide") as reader, tifffile.TiffFile(path) as file:
        for level, page in zip(reader.levels, file.pages, strict=True):
            scale = round(level.downsample)
            box = 0, 0, level.width * scale, level.height * scale
            found = reader.read_region(*box, level.width, level.height)
            inside = [side // scale for side in reader.dimensions]
            np.testing.assert_array_equal(found[: inside[1], : inside[0]], page.asarray()[: inside[1], : inside[0]])
        assert served(reader) == [True] * 4


def compare_with(path, reference):
    """Levels served after a comparison, and the notes, which name the level once whatever is read later."""
    tiles = direct_tiles(path, [(5120, 4096)])
    out = np.empty((300, 300, 3), np.uint8)
    for _ in range(2):
        assert not tiles.read(0, Window(0, 0, 300, 300), out, reference)
    tiles.close()
    assert tiles._levels == [None]
    return tiles._notes


def test_a_level_that_decodes_otherwise_is_left_to_the_library_with_a_note(pyramid):
    notes = compare_with(pyramid, lambda index, part: np.zeros((256, 256, 4), np.uint8))
    assert len(notes) == 1
    assert "level 0 is read with OpenSlide" in notes[0]
    assert "the pixels differ" in notes[0]


def test_a_level_that_cannot_be_compared_is_left_to_the_library_with_a_note(pyramid):
    def fail(index, part):
        raise OSError("no such thing")

    assert "cannot be compared: no such thing" in compare_with(pyramid, fail)[0]


def test_a_few_tiles_are_compared_once_for_all_clones(pyramid):
    compared = []
    with open_slide(pyramid, "openslide") as reader:
        for one in (reader, reader.clone(), reader.clone()):
            real = one._read_level
            one._read_level = lambda *args, real=real: compared.append(args[1:]) or real(*args)
            one.read_region(1000, 1000, 700, 700, 700, 700)
    assert 2 <= len(compared) <= 3
    assert len(set(compared)) == len(compared)


def test_two_pages_of_a_size_are_not_told_apart(write):
    path = write(levels=1)
    with tifffile.TiffFile(path) as file:
        picture = file.asarray()
    with tifffile.TiffWriter(path) as file:
        for _ in range(2):
            file.write(picture, tile=(240, 240), compression="jpeg", photometric="rgb", metadata=None)
    assert direct_tiles(path, [(900, 700)])._levels == [None]


@pytest.mark.parametrize(
    "content",
    [b"", b"II", b"II*\0\xff\xff\xff\x7f", b"MM\0+\0\x08\0\0" + b"\xff" * 40, b"II*\0\x08\0\0\0" + b"\xff" * 99],
)
def test_no_tiff_is_no_error(tmp_path, content):
    path = tmp_path / "a.tiff"
    path.write_bytes(content)
    assert direct_tiles(path, [(10, 10)])._levels == [None]


def test_a_directory_that_names_itself_ends(write):
    path = write(levels=1)
    with tifffile.TiffFile(path) as file:
        first, pointer = file.pages.first.offset, file.pages.first.offset + 2 + 12 * len(file.pages.first.tags)
    data = bytearray(path.read_bytes())
    data[pointer : pointer + 4] = first.to_bytes(4, "little")
    path.write_bytes(data)
    assert direct_tiles(path, [(900, 700)])._levels[0] is not None


def tile_of(path, page=0):
    """Offset and byte count of the page's longest tile, and its index."""
    with tifffile.TiffFile(path) as file:
        counts = file.pages[page].databytecounts
        index = int(np.argmax(counts))
        return file.pages[page].dataoffsets[index], counts[index], index


def verdict(path, region, *, past):
    """Pixels, or None for an error, with and without decoding past OpenSlide."""
    with open_slide(path, "openslide") as reader:
        if not past:
            reader._tiles = None
        try:
            return reader.read_region(*region)
        except SlideError:
            return None


@pytest.mark.parametrize("damage", ["zeros", "ones", "noise"])
@pytest.mark.parametrize("kind", ["aperio", "generic"])
def test_a_damaged_tile_gets_openslides_verdict(write, pyramid, tmp_path, damage, kind):
    path, side, across = (write(), 240, 4) if kind == "generic" else (tmp_path / "damaged.svs", 256, 20)
    data = bytearray((path if kind == "generic" else pyramid).read_bytes())
    offset, count, index = tile_of(path if kind == "generic" else pyramid)
    half = count // 2
    noise = np.random.default_rng(0).integers(0, 256, half, dtype=np.uint8).tobytes()
    filler = {"zeros": b"\0" * half, "ones": b"\xff" * half, "noise": noise}
    data[offset + count - half : offset + count] = filler[damage]
    path.write_bytes(data)
    row, column = divmod(index, across)
    region = column * side, row * side, 100, 100, 100, 100
    ours, theirs = verdict(path, region, past=True), verdict(path, region, past=False)
    assert (ours is None) == (theirs is None)
    if ours is not None:
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("tag", "value"), [("TileByteCounts", 1 << 40), ("TileOffsets", 1 << 63), ("TileOffsets", 1 << 40)]
)
def test_absurd_places_of_tiles_are_left_to_openslide(pyramid, tmp_path, tag, value):
    path = tmp_path / "absurd.svs"
    data = bytearray(pyramid.read_bytes())
    with tifffile.TiffFile(pyramid) as file:
        found = file.pages.first.tags[tag]
        size = 8 if tag == "TileOffsets" else 4
        index = 20 * 8 + 10
        start = found.valueoffset + index * size
    data[start : start + size] = min(value, (1 << 8 * size) - 1).to_bytes(size, "little")
    path.write_bytes(data)
    tiles = direct_tiles(path, [(5120, 4096)])
    out = np.empty((256, 256, 3), np.uint8)
    with pytest.raises(UndecodedError, match=r"no place of a tile|ends before"):
        tiles._decode(tiles._levels[0], index, out)
    assert tiles._decode(tiles._levels[0], index + 1, out) is out
    tiles.close()


def test_a_tile_of_another_size_than_stated_is_not_decoded(pyramid, tmp_path):
    path = tmp_path / "bomb.svs"
    data = bytearray(pyramid.read_bytes())
    offset, _, index = tile_of(pyramid)
    frame = data.index(b"\xff\xc0", offset)
    data[frame + 5 : frame + 9] = b"\xff\xdc\xff\xdc"  # 65,500 × 65,500 px
    path.write_bytes(data)
    row, column = divmod(index, 20)
    tiles = direct_tiles(path, [(5120, 4096)])
    with pytest.raises(UndecodedError):
        tiles._decode(tiles._levels[0], index, np.empty((256, 256, 3), np.uint8))
    assert verdict(path, (column * 256, row * 256, 100, 100, 100, 100), past=True) is None


def test_a_file_cut_short_gets_openslides_verdict(write):
    path = write()
    reader = open_slide(path, "openslide")
    data = path.read_bytes()
    path.write_bytes(data[:1000])
    with pytest.raises(SlideError, match="cannot be read"):
        reader.read_region(0, 0, 900, 700, 900, 700)


def test_a_closed_reader_opens_again(pyramid):
    reader = open_slide(pyramid, "openslide")
    first = reader.read_region(1000, 1000, 500, 500, 500, 500)
    reader.close()
    assert reader._tiles._file is None
    np.testing.assert_array_equal(reader.read_region(1000, 1000, 500, 500, 500, 500), first)
    reader.close()
