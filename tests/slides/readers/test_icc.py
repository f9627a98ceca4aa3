"""Colour profiles: applied, described, missing, broken; in every kind of file."""

import io

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from histill.errors import SlideError
from histill.slides import inspect
from histill.slides.readers import open_slide

LAB = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def swapped() -> bytes:
    """An sRGB profile whose red and blue primaries have changed places: what it does is known exactly."""
    profile = bytearray(SRGB)
    count = int.from_bytes(profile[128:132], "big")
    at = {bytes(profile[132 + 12 * i : 136 + 12 * i]): 132 + 12 * i for i in range(count)}
    red, blue = at[b"rXYZ"], at[b"bXYZ"]
    profile[red + 4 : red + 12], profile[blue + 4 : blue + 12] = (
        profile[blue + 4 : blue + 12],
        profile[red + 4 : red + 12],
    )
    return bytes(profile)


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)


def write(path, pixels, profile):
    if path.suffix == ".png":
        Image.fromarray(pixels).save(path, icc_profile=profile)
    else:
        layout = {"rowsperstrip": 50} if "strips" in path.name else {"tile": (128, 128)}
        tifffile.imwrite(path, pixels, photometric="rgb", compression="zlib", iccprofile=profile, **layout)
    return path


CASES = [("openslide", "a.tif"), ("tiffslide", "a.tif"), ("tifffile", "strips.tif"), ("picture", "a.png")]


@pytest.mark.parametrize(("name", "file"), CASES)
def test_a_profile_is_applied_when_asked(name, file, pixels, tmp_path):
    path = write(tmp_path / file, pixels, swapped())
    with open_slide(path, name) as plain, open_slide(path, name, icc=True) as turned:
        assert plain.icc_profile == turned.icc_profile == ImageCms.getProfileDescription(io.BytesIO(SRGB)).strip()
        np.testing.assert_array_equal(plain.read_region(0, 0, 300, 200, 300, 200), pixels)
        found = turned.read_region(0, 0, 300, 200, 300, 200)
        assert np.abs(found.astype(int) - pixels[..., ::-1]).max() <= 1
        outside = turned.read_region(-5, -5, 10, 10, 10, 10)
        assert (outside[:5] == 255).all()
        assert turned.notes == []


@pytest.mark.parametrize(("name", "file"), CASES)
def test_without_a_profile_colours_stay_with_a_note(name, file, pixels, tmp_path, config):
    path = write(tmp_path / file, pixels, None)
    with open_slide(path, name, icc=True) as reader:
        assert reader.icc_profile is None
        np.testing.assert_array_equal(reader.read_region(0, 0, 300, 200, 300, 200), pixels)
        facts, warnings = inspect.describe(reader, override=0.5, config=config)
    assert facts["icc_profile"] is None
    assert any("carries no ICC profile" in warning for warning in warnings)


@pytest.mark.parametrize("profile", [b"no profile at all" * 20, SRGB[:200], LAB], ids=["junk", "short", "lab"])
@pytest.mark.parametrize(("name", "file"), CASES)
def test_a_profile_that_cannot_be_used_has_a_mend(name, file, profile, pixels, tmp_path):
    path = write(tmp_path / file, pixels, profile)
    with pytest.raises(SlideError, match="its ICC profile cannot be used") as caught:
        open_slide(path, icc=True)
    assert "slides.icc: false" in caught.value.mend
    with open_slide(path, name) as reader:
        assert isinstance(reader.icc_profile, str)
        np.testing.assert_array_equal(reader.read_region(0, 0, 9, 9, 9, 9), pixels[:9, :9])


def test_levels_agree_after_the_transform(pixels, tmp_path):
    """The mean of turned pixels is not the turned mean; a coarser level holds the latter, so the answer must too."""
    board = np.tile(np.array([[40, 220], [220, 40]], np.uint8), (256, 256))[..., None].repeat(3, 2)
    path = tmp_path / "board.tif"
    for levels in (1, 2):
        with tifffile.TiffWriter(path) as file:
            for level in range(levels):
                data = board if level == 0 else np.full((256, 256, 3), 130, np.uint8)
                options = {"tile": (128, 128), "compression": "zlib", "subfiletype": level, "iccprofile": swapped()}
                file.write(data, photometric="rgb", **options)
        with open_slide(path, icc=True) as reader:
            assert np.abs(reader.read_region(0, 0, 512, 512, 256, 256).astype(int) - 130).max() <= 1


@pytest.mark.shared_data
def test_real_profiles(shared_data):
    for name in ("openslide_boxes.tiff", "openslide_boxes_0.dcm"):
        with open_slide(shared_data / "wsi" / name, icc=True) as reader:
            assert reader.icc_profile
            assert reader.read_region(0, 0, 16, 16, 16, 16).shape == (16, 16, 3)


@pytest.mark.parametrize("name", ["tiffslide", "tifffile"])
def test_a_profile_stored_as_text_is_a_broken_one(name, pixels, tmp_path):
    path = tmp_path / "text.tif"
    tag = (34675, 2, 8, "garbage", True)
    tifffile.imwrite(path, pixels, tile=(128, 128), photometric="rgb", extratags=[tag])
    with open_slide(path, name) as reader:
        assert reader.icc_profile == "unreadable"
