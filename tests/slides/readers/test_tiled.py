"""Regions of a slide read by threads: native tiles decoded once, into memory that is given."""

import multiprocessing
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import tifffile

from histill.errors import SlideError
from histill.slides.readers import codecs, direct, open_slide, segments
from histill.slides.readers.cache import TileCache
from histill.slides.readers.tiled import TiledReader
from tests.slides import sparse

PLAIN = {"photometric": "rgb", "tile": (64, 64)}


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(0).integers(0, 256, (600, 800, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    return sparse.write_sparse(tmp_path_factory.mktemp("tiled") / "a.svs", (5120, 4096), seed=2).path


@pytest.fixture
def subifds(tmp_path, picture):
    """OME-TIFF with its pyramid in SubIFDs, of JPEG tiles."""
    path = tmp_path / "a.ome.tif"
    smooth = np.repeat(np.repeat(picture[::40, ::40], 40, 0), 40, 1)
    with tifffile.TiffWriter(path, ome=True, bigtiff=True) as file:
        options = {"compression": "jpeg", **PLAIN}
        file.write(smooth, subifds=1, metadata={"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}, **options)
        file.write(smooth[::2, ::2], subfiletype=1, **options)
    return path


@pytest.fixture
def decoded(monkeypatch):
    """Places in the file of the tiles that are decoded, and how often each is."""
    counts, lock = Counter(), threading.Lock()
    real = codecs.decode

    def decode(page, data, out):
        with lock:
            counts[data] += 1
        real(page, data, out)

    monkeypatch.setattr(direct, "decode", decode)
    return counts


def fields(width, height, side):
    """Boxes that share tiles of 64 and of 256 px on both axes."""
    return np.array([(x, y, side, side) for y in range(0, height - side, side) for x in range(0, width - side, side)])


def read_all(reader, boxes, size, threads):
    """Every box, as [N, size, size, 3]."""
    out = np.zeros((len(boxes), size, size, 3), np.uint8)
    own = threading.local()

    def read(index):
        if not hasattr(own, "reader"):
            own.reader = reader.clone()
        found = own.reader.read_region(*boxes[index].tolist(), size, size, out=out[index])
        assert np.shares_memory(found, out[index])

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, range(len(boxes))))
    return out


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("scale", [1, 2, 1.7])
def test_every_tile_is_decoded_once(tmp_path, picture, decoded, threads, scale):
    path = tmp_path / "a.tiff"
    tifffile.imwrite(path, picture, compression="zlib", **PLAIN)
    boxes = fields(800, 600, 100)
    size = round(100 / scale)
    with open_slide(path, "openslide") as reader:
        reader.expect(boxes, size, size)
        found = read_all(reader, boxes, size, threads)
        assert set(decoded.values()) == {1}
        assert len(decoded) == 11 * 8  # of 13 × 10; those that are compared with OpenSlide are among them
        assert not reader._cache._uses
    with open_slide(path, "openslide") as plain:
        plain._tiles = None
        for index, box in enumerate(boxes.tolist()):
            np.testing.assert_array_equal(found[index], plain.read_region(*box, size, size))


@pytest.mark.parametrize("threads", [1, 4])
def test_every_tile_of_subifds_is_decoded_once(subifds, decoded, threads):
    boxes = fields(800, 600, 100)
    with open_slide(subifds, "tifffile") as reader:
        reader.expect(boxes, 50, 50)
        found = read_all(reader, boxes, 50, threads)
        assert reader.notes == []
    assert decoded
    with tifffile.TiffFile(subifds) as file:
        page = file.series[0].levels[1].asarray()
    for index, (x, y, _, _) in enumerate(boxes.tolist()):
        np.testing.assert_array_equal(found[index], page[y // 2 : y // 2 + 50, x // 2 : x // 2 + 50])


@pytest.mark.parametrize("threads", [1, 4])
def test_every_strip_is_decoded_once(tmp_path, picture, monkeypatch, threads):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, picture, compression="zlib", photometric="rgb", rowsperstrip=37)
    monkeypatch.setattr(segments, "CACHE_BYTES", 40 * 800 * 3 * 8)  # half of the strips
    counts, real = Counter(), segments.Plane._decode

    def decode(self, index):
        counts[index] += 1
        return real(self, index)

    monkeypatch.setattr(segments.Plane, "_decode", decode)
    boxes = fields(800, 600, 50)
    with open_slide(path, "tifffile") as reader:
        reader.expect(boxes, 50, 50)
        found = read_all(reader, boxes, 50, threads)
        assert not reader._cache._entries
    assert set(counts.values()) == {1}
    for index, (x, y, side, _) in enumerate(boxes.tolist()):
        np.testing.assert_array_equal(found[index], picture[y : y + side, x : x + side])


def test_beyond_the_bound_tiles_are_decoded_again(tmp_path, picture, decoded, monkeypatch):
    tile = 64 * 64 * 3
    monkeypatch.setattr(TiledReader, "_new_cache", lambda self: TileCache(6 * tile))
    path = tmp_path / "a.tiff"
    tifffile.imwrite(path, picture, compression="zlib", **PLAIN)
    boxes = fields(800, 600, 100)
    with open_slide(path, "openslide") as reader:
        reader.expect(boxes, 100, 100)
        found = read_all(reader, boxes, 100, 2)
        assert reader._cache._held <= 6 * tile
    assert max(decoded.values()) > 1
    for index, (x, y, side, _) in enumerate(boxes.tolist()):
        np.testing.assert_array_equal(found[index], picture[y : y + side, x : x + side])


@pytest.mark.parametrize("box", [(1000, 1000, 600, 600), (-100, 50, 600, 600), (9000, 0, 600, 600), (0, 0, 601, 599)])
@pytest.mark.parametrize("size", [600, 300, 171])
def test_pixels_are_written_where_they_are_wanted(slide, box, size):
    out = np.full((size, size, 3), 7, np.uint8)
    with open_slide(slide, "openslide") as reader:
        fresh = reader.read_region(*box, size, size)
        assert reader.read_region(*box, size, size, out=out) is out
    np.testing.assert_array_equal(out, fresh)


@pytest.mark.parametrize(
    "out",
    [np.zeros((50, 40, 3), np.uint8), np.zeros((50, 50, 3), np.float32), np.zeros((50, 100, 3), np.uint8)[:, ::2]],
)
def test_what_cannot_be_written_to_is_refused(slide, out):
    with open_slide(slide, "openslide") as reader, pytest.raises(ValueError, match="out is uint8"):
        reader.read_region(0, 0, 50, 50, 50, 50, out=out)


def test_regions_do_not_share_memory(slide):
    with open_slide(slide, "openslide") as reader:
        first = reader.read_region(1000, 1000, 600, 600, 300, 300)
        kept = first.copy()
        reader.read_region(2000, 2000, 600, 600, 300, 300)
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("name", ["openslide", "tiffslide", "tifffile"])
def test_clones_of_every_reader_read_at_once(write_slide, stained, tmp_path, name):
    path = write_slide(tmp_path / "a.tiff", stained(700, 900))
    boxes = fields(900, 700, 90)
    with open_slide(path, name) as reader:
        reader.expect(boxes, 60, 60)
        found = read_all(reader, boxes, 60, 4)
        for index, box in enumerate(boxes.tolist()):
            np.testing.assert_array_equal(found[index], reader.read_region(*box, 60, 60))


def test_clones_close_with_their_reader_and_not_the_other_way_round(slide):
    box = 1000, 1000, 500, 500, 500, 500
    with open_slide(slide, "openslide") as reader:
        clone = reader.clone()
        wanted = clone.read_region(*box)
        clone.close()
        assert reader._handle is not None
        np.testing.assert_array_equal(clone.read_region(*box), wanted)
        assert clone._tiles._file is not None or clone._cache._entries
    assert clone._tiles._file is None
    assert clone._handle is None


def test_boxes_are_four_columns(slide):
    with open_slide(slide, "openslide") as reader, pytest.raises(ValueError, match=r"\[N, 4\]"):
        reader.expect(np.zeros((3, 2), int), 10, 10)


def test_a_damaged_tile_harms_its_own_regions_alone(tmp_path, picture):
    path = tmp_path / "a.tiff"
    tifffile.imwrite(path, picture, compression="zlib", **PLAIN)
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        offset, count = page.dataoffsets[13 * 2 + 3], page.databytecounts[13 * 2 + 3]  # x 192, y 128
        probes = {int(np.argmax(page.databytecounts)), 0, 65}
    assert 13 * 2 + 3 not in probes
    data = bytearray(path.read_bytes())
    data[offset + 20 : offset + count] = bytes(count - 20)
    path.write_bytes(data)
    boxes = fields(800, 600, 50)
    bad = (boxes[:, 0] < 256) & (boxes[:, 0] > 142) & (boxes[:, 1] < 192) & (boxes[:, 1] > 78)
    with open_slide(path, "openslide") as reader:
        reader.expect(boxes, 50, 50)

        def works(reader, box):
            try:
                reader.read_region(*box, 50, 50)
            except SlideError:
                return False
            return True

        with ThreadPoolExecutor(4) as pool:
            read = list(pool.map(lambda box: works(reader.clone(), box), boxes.tolist()))
        assert (np.array(read) == ~bad).all()
        assert not reader._cache._uses


def test_after_a_fork_no_lock_of_the_parent_is_waited_for(slide):
    with open_slide(slide, "openslide") as reader:
        wanted = reader.read_region(1000, 1000, 500, 500, 500, 500)
        held, context = reader._cache._lock, multiprocessing.get_context("fork")
        with held, reader._tiles._checking:  # as by another thread of this process at that moment
            child = context.Process(target=_read_in_child, args=(reader, wanted))
            child.start()
        child.join(20)
        assert child.exitcode == 0


def _read_in_child(reader, wanted):
    clone = reader.clone()
    np.testing.assert_array_equal(clone.read_region(1000, 1000, 500, 500, 500, 500), wanted)
    np.testing.assert_array_equal(reader.read_region(1000, 1000, 500, 500, 500, 500), wanted)
    assert clone._cache is reader._cache


@pytest.mark.parametrize("factor", [2, 3])  # the next level is of factor 4
@pytest.mark.parametrize("place", [(0, 0), (256, 512), (6, 10), (3, 5)])
def test_a_whole_factor_gives_the_mean_of_as_many_pixels(slide, place, factor):
    """Also where it is taken tile by tile, without a picture of the region between."""
    side = 420 * factor
    with open_slide(slide, "openslide") as reader:
        whole = reader.read_region(*place, side, side, side, side)
        reduced = reader.read_region(*place, side, side, 420, 420)
    np.testing.assert_array_equal(reduced, cv2.resize(whole, (420, 420), interpolation=cv2.INTER_AREA))
