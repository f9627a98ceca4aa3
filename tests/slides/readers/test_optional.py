"""cuCIM and wsidicom: a clear word where they are absent, the same pixels where they are there."""

import sys

import numpy as np
import pytest

from histill.errors import SlideError
from histill.slides.readers import AUTO, READERS, open_slide


@pytest.mark.parametrize("name", ["cucim", "wsidicom"])
def test_an_absent_library_is_named_with_its_extra(name, tmp_path, monkeypatch):
    (tmp_path / "a.dcm").write_bytes(b"something")
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SlideError, match=f"the library {name} is not installed") as caught:
        open_slide(tmp_path / "a.dcm", name)
    assert f"pip install 'histill[{name}]'" in caught.value.mend
    assert name in READERS
    assert name not in AUTO


def test_cucim_gives_the_pixels_of_openslide(tmp_path, write_slide):
    pytest.importorskip("cucim")
    random = np.random.default_rng(0)
    path = write_slide(tmp_path / "a.tiff", random.integers(0, 256, (1003, 1401, 3), dtype=np.uint8))
    with open_slide(path, "cucim") as one, open_slide(path, "tifffile") as other:
        assert one.dimensions == other.dimensions
        assert one.levels == other.levels
        for box in ((0, 0, 99, 88, 99, 88), (701, 303, 640, 512, 160, 128), (1201, 803, 400, 400, 100, 100)):
            np.testing.assert_array_equal(one.read_region(*box), other.read_region(*box))
        assert float(one.properties["tiff.XResolution"]) == 20000


@pytest.mark.shared_data
def test_wsidicom_gives_the_pixels_of_openslide(shared_data):
    pytest.importorskip("wsidicom")
    path = shared_data / "wsi" / "openslide_boxes_0.dcm"
    with open_slide(path, "wsidicom") as one, open_slide(path, "openslide") as other:
        assert one.levels == other.levels
        assert one.icc_profile == other.icc_profile
        assert one.properties["dicom.PixelSpacing"] == "0.000499\\0.000499"
        for box in ((0, 0, 16, 16, 16, 16), (-4, 3, 16, 16, 8, 8)):
            found, wanted = one.read_region(*box).astype(int), other.read_region(*box)
            assert np.abs(found - wanted).max() <= 2
