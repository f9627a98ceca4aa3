import struct
from contextlib import suppress

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from histill.errors import SlideError
from histill.slides.readers import open_slide
from histill.slides.readers.tiff_check import check_tiff

PICTURE = np.random.default_rng(3).integers(0, 256, (520, 700, 3), dtype=np.uint8)


def write(path, *, big=False, order="<", layout="tiles", sub=False):
    form = {"tiles": {"tile": (256, 256)}, "strips": {"rowsperstrip": 64}}[layout]
    form |= {"photometric": "rgb", "compression": "zlib"}
    with tifffile.TiffWriter(path, bigtiff=big, byteorder=order) as file:
        file.write(PICTURE, subifds=1 if sub else 0, **form)
        file.write(PICTURE[::2, ::2], subfiletype=1, **form)
    return path


KINDS = [
    {"big": big, "order": order, "layout": layout, "sub": sub}
    for big in (False, True)
    for order in "<>"
    for layout in ("tiles", "strips")
    for sub in (False, True)
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_whole_files_pass_and_cut_ones_do_not(kind, tmp_path):
    path = write(tmp_path / "a.tif", **kind)
    check_tiff(path)
    whole = path.read_bytes()
    for size in (*range(16, 600, 37), len(whole) // 2, len(whole) - 1000, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(SlideError, match=r"a\.tif: is cut short or damaged: .* it ends at") as caught:
            check_tiff(path)
        assert "copy" in caught.value.mend
    path.write_bytes(whole + b"\0" * 77)  # what follows the last tile is nobody's business
    check_tiff(path)


@pytest.mark.parametrize(
    "content", [b"", b"II", b"II*", b"II*\0\x08", b"\x89PNG\r\n\x1a\n", b"DICM" * 9, b"II+\0\x08\0"]
)
def test_what_is_no_tiff_is_for_the_readers(content, tmp_path):
    path = tmp_path / "a.svs"
    path.write_bytes(content)
    check_tiff(path)


def test_tiles_that_are_not_there_are_no_damage(tmp_path):
    path = write(tmp_path / "a.tif")
    with tifffile.TiffFile(path, mode="r+b") as file:
        page = file.pages[0]
        offsets, counts = (list(page.tags[name].value) for name in ("TileOffsets", "TileByteCounts"))
        offsets[2], counts[2] = 0xFFFFFFF0, 0  # a sparse level: nothing is stored of glass
        page.tags["TileOffsets"].overwrite(offsets)
        page.tags["TileByteCounts"].overwrite(counts)
    check_tiff(path)


def test_loops_and_chains_without_end(tmp_path):
    path = tmp_path / "a.tif"
    directory = struct.pack("<HHHII", 1, 256, 4, 1, 100)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<I", 8))
    with pytest.raises(SlideError, match="loop"):
        check_tiff(path)
    chain = b"".join(directory + struct.pack("<I", 26 + 18 * number) for number in range(20_000))
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + chain)
    with pytest.raises(SlideError, match="more than 10,000"):
        check_tiff(path)


def test_a_list_of_tiles_larger_than_any(tmp_path):
    path = tmp_path / "a.tif"
    entries = struct.pack("<HHII", 324, 4, 1 << 31, 100)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 1) + entries + bytes(4))
    with pytest.raises(SlideError, match="2,147,483,648 tiles"):
        check_tiff(path)


def test_opening_a_cut_slide_says_so(tmp_path):
    path = write(tmp_path / "a.tif")
    path.write_bytes(path.read_bytes()[:-1])
    for reader in ("auto", "tifffile"):
        with pytest.raises(SlideError, match="cut short"):
            open_slide(path, reader)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("flips")


@settings(max_examples=150, deadline=2000)
@given(
    big=st.booleans(), order=st.sampled_from("<>"), flips=st.lists(st.tuples(st.integers(0, 700), st.integers(1, 255)))
)
def test_no_damage_raises_anything_else(big, order, flips, folder):
    path = write(folder / "a.tif", big=big, order=order)
    content = bytearray(path.read_bytes())
    for place, mask in flips:
        content[place] ^= mask
    path.write_bytes(content)
    with suppress(SlideError):
        check_tiff(path)
