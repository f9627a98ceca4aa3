import pytest

from histill.errors import SlideError
from histill.slides.resolution import check_size, check_target, resolve

APERIO = {"openslide.mpp-x": "0.2520", "openslide.mpp-y": "0.2520", "aperio.MPP": "0.2520"}
TAGS = {"tiff.ResolutionUnit": "centimeter", "tiff.XResolution": "20000", "tiff.YResolution": "20000"}


def find(properties, vendor="aperio", override=None):
    return resolve(properties, vendor, override=override, name="a.svs")


def test_vendor_property_wins_over_tags_and_the_conflict_is_told():
    found = find(APERIO | TAGS)
    assert (found.x, found.y, found.source) == (0.252, 0.252, "openslide.mpp-x")
    assert len(found.candidates) == 3
    assert len(found.conflicts) == 1
    assert "0.5" in found.conflicts[0]
    assert found.warnings


def test_sheet_wins_over_everything():
    found = find(APERIO, override=0.5)
    assert (found.x, found.source) == (0.5, "sample sheet")
    assert any("0.252" in text for text in found.conflicts)
    assert find(APERIO, override=0.255).conflicts == []


def test_mpp_of_a_generic_tiff_is_called_what_it_is():
    found = find(TAGS | {"openslide.mpp-x": "0.5", "openslide.mpp-y": "0.5"}, vendor="generic-tiff")
    assert found.source.startswith("TIFF resolution tags")
    assert len(found.candidates) == 1
    assert found.conflicts == []


@pytest.mark.parametrize(("unit", "value"), [("inch", "50800"), ("RESUNIT.INCH", "50800"), ("CENTIMETER", "20000.0")])
def test_tags_alone(unit, value):
    found = find({"tiff.ResolutionUnit": unit, "tiff.XResolution": value, "tiff.YResolution": value}, "generic-tiff")
    assert (found.x, found.y) == pytest.approx((0.5, 0.5))


def test_objective_power_is_the_last_resort_and_warned_about():
    found = find({"openslide.objective-power": "40"})
    assert (found.x, found.source) == (0.25, "objective power")
    assert "objective power 40 alone" in found.warnings[0]
    assert find(APERIO | {"openslide.objective-power": "40"}).warnings == []
    assert find(APERIO | {"openslide.objective-power": "20"}).conflicts


@pytest.mark.parametrize("value", ["0.0499", "10.1", "352.8"])
def test_implausible_is_refused_with_the_sheet_column(value):
    with pytest.raises(SlideError, match=r"outside 0\.05 to 10") as caught:
        find({"openslide.mpp-x": value, "openslide.mpp-y": value})
    assert "column mpp" in caught.value.mend


def test_unequal_axes():
    with pytest.raises(SlideError, match="5 % apart"):
        find({"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.27"})
    found = find({"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.26"})
    assert (found.x, found.y) == (0.25, 0.26)


@pytest.mark.parametrize("value", ["", "nan", "0", "-1", "inf", "a quarter"])
def test_no_resolution_is_refused(value):
    with pytest.raises(SlideError, match="states no resolution") as caught:
        find({"openslide.mpp-x": value, "tiff.ResolutionUnit": "inch"})
    assert "column mpp" in caught.value.mend


def test_placeholder_dpi_makes_no_conflict():
    tags = {"tiff.ResolutionUnit": "inch", "tiff.XResolution": "72", "tiff.YResolution": "72"}
    found = find(APERIO | tags)
    assert found.conflicts == []
    assert len(found.candidates) == 3


def test_tiles_finer_than_the_scan():
    assert check_target(0.55, 0.5, allow_upsampling=False, name="a") == []
    with pytest.raises(SlideError, match="coarser than") as caught:
        check_target(0.5, 0.56, allow_upsampling=False, name="a")
    assert "allow_upsampling" in caught.value.mend
    assert "2.00 times" in check_target(1.0, 1.0, allow_upsampling=True, name="a")[0]


def test_a_slide_larger_than_any_glass_is_refused():
    check_size((200_000, 300_000), (0.25, 0.25), name="a.svs")  # 50 x 75 mm
    with pytest.raises(SlideError, match="would be a slide of 250 × 250 mm") as caught:
        check_size((500_000, 500_000), (0.5, 0.5), name="a.svs")
    assert "column mpp" in caught.value.mend
