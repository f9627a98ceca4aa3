import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from histill.errors import SlideError
from histill.slides import inspect
from histill.slides.readers import open_slide, picture


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (120, 200, 3), dtype=np.uint8)


def test_a_png_is_read_as_it_is(pixels, tmp_path):
    Image.fromarray(pixels).save(tmp_path / "a.png", dpi=(300, 300))
    with open_slide(tmp_path / "a.png") as reader:
        assert (reader.name, reader.vendor, reader.dimensions) == ("picture", "png", (200, 120))
        np.testing.assert_array_equal(reader.read_region(30, 40, 50, 60, 50, 60), pixels[40:100, 30:80])
        assert reader.properties == {}, "a printer's dpi is no resolution"


def test_its_resolution_is_that_of_the_sheet(pixels, tmp_path, config):
    Image.fromarray(pixels).save(tmp_path / "a.png", dpi=(300, 300))
    with open_slide(tmp_path / "a.png") as reader:
        facts, _ = inspect.describe(reader, override=0.5, config=config)
        assert (facts["mpp"]["x"], facts["mpp"]["source"]) == (0.5, "sample sheet")
        with pytest.raises(SlideError, match="no resolution") as caught:
            inspect.describe(reader, override=None, config=config)
    assert "column mpp" in caught.value.mend


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_colour_that_a_png_calls_transparent_is_white(pixels, tmp_path, mode):
    picture = pixels.copy()
    picture[20:40, 30:60] = 7
    picture[picture == 7] = 8
    picture[20:40, 30:60] = 7
    image = Image.fromarray(picture if mode == "RGB" else picture[..., 0])
    image.save(tmp_path / "a.png", transparency=(7, 7, 7) if mode == "RGB" else 7)
    wanted = np.array(image.convert("RGB"))
    wanted[20:40, 30:60] = 255
    with open_slide(tmp_path / "a.png") as reader:
        np.testing.assert_array_equal(reader.read_region(0, 0, 200, 120, 200, 120), wanted)


def test_grey_palette_and_alpha_become_rgb(pixels, tmp_path):
    path = tmp_path / "a.png"
    grey = Image.fromarray(pixels[..., 0])
    alpha = np.concatenate([pixels, np.full((120, 200, 1), 51, np.uint8)], axis=2)
    for image, wanted in (
        (grey, np.repeat(pixels[..., :1], 3, 2)),
        (Image.fromarray(pixels).quantize(16), np.asarray(Image.fromarray(pixels).quantize(16).convert("RGB"))),
        (Image.fromarray(alpha), pixels * 0.2 + 204),
    ):
        image.save(path)
        with open_slide(path) as reader:
            found = reader.read_region(0, 0, 200, 120, 200, 120)
        assert np.abs(found - wanted.astype(float)).max() <= 0.51


def test_sixteen_bits_and_cmyk_are_refused_with_a_mend(pixels, tmp_path):
    rows = b"".join(b"\0" + row.tobytes() for row in (pixels.astype(">u2") << 8))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 200, 120, 16, 2, 0, 0, 0))
    path = tmp_path / "deep.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    Image.fromarray(pixels[..., 0].astype(np.uint16) << 8).save(tmp_path / "grey16.png")
    Image.fromarray(pixels).convert("CMYK").save(tmp_path / "print.jpg")
    for name in ("deep.png", "grey16.png", "print.jpg"):
        with pytest.raises(SlideError, match=r"picture says: its (channels have 16 bits|pixels are of mode)") as caught:
            open_slide(tmp_path / name)
        assert "8 bits a channel" in caught.value.mend


def test_the_exif_orientation_is_not_applied_and_said(pixels, tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, quality=95)
    with open_slide(tmp_path / "a.jpg") as reader:
        assert reader.dimensions == (200, 120)
        assert "EXIF orientation 6 is not applied" in reader.notes[0]


@pytest.mark.parametrize("side", [10_001, 50_000])
def test_a_declared_size_over_the_bound_is_refused_before_decoding(side, tmp_path):
    head = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    data = b"IDAT" + zlib.compress(b"\0")
    png += struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    (tmp_path / "bomb.png").write_bytes(png)
    with pytest.raises(SlideError, match=r"pixels|decompression bomb") as caught:
        open_slide(tmp_path / "bomb.png", "picture")
    assert "pyramidal TIFF" in caught.value.mend
    assert picture.MAX_PIXELS < 10_001**2


def test_a_truncated_picture_says_so(pixels, tmp_path):
    for name in ("a.png", "a.jpg"):
        Image.fromarray(pixels).save(tmp_path / name)
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2])
        with open_slide(tmp_path / name) as reader, pytest.raises(SlideError, match="cannot be read"):
            reader.read_region(0, 0, 200, 120, 200, 120)


def test_other_formats_are_no_pictures(pixels, tmp_path):
    Image.fromarray(pixels).save(tmp_path / "a.bmp")
    with pytest.raises(SlideError, match="picture says: it is no PNG or JPEG"):
        open_slide(tmp_path / "a.bmp")


def test_clones_share_the_decoded_picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (80, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with open_slide(tmp_path / "a.png") as reader:
        first, second = reader.clone(), reader.clone()
        box = 10, 20, 30, 40, 30, 40
        np.testing.assert_array_equal(first.read_region(*box), pixels[20:60, 10:40])
        assert np.shares_memory(first._handle.pixels(), reader._handle.pixels())
        first.close()
        np.testing.assert_array_equal(second.read_region(*box), pixels[20:60, 10:40])
        np.testing.assert_array_equal(first.read_region(*box), pixels[20:60, 10:40])
