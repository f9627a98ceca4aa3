"""What a slide's resolution is decided from: real property sets of many scanners, contradictions, and nonsense."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histill.errors import SlideError
from histill.slides.resolution import PLAUSIBLE, check_levels, check_size, check_target, resolve
from histill.slides.resolution_sources import Candidate, number

APERIO = {"openslide.mpp-x": "0.2520", "openslide.mpp-y": "0.2520", "aperio.MPP": "0.2520"}
TAGS = {"tiff.ResolutionUnit": "centimeter", "tiff.XResolution": "20000", "tiff.YResolution": "20000"}


def find(properties, vendor="aperio", override=None, dimensions=(40000, 30000)):
    return resolve(properties, vendor, override=override, name="a.svs", dimensions=dimensions)


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
    with pytest.raises(SlideError, match=r"0\.56 µm per pixel .*coarser than the 0\.5 of 20x tiles") as caught:
        check_target(0.5, 0.56, allow_upsampling=False, name="a")
    assert "allow_upsampling" in caught.value.mend
    assert "column mpp" in caught.value.mend
    with pytest.raises(
        SlideError, match=r"\(aperio\.MPP, objective 10x\), .* the 1 of 10x tiles and 0\.5 of 20x tiles"
    ):
        check_target(1.2, 1.2, allow_upsampling=False, name="a", power=10.0, source="aperio.MPP")
    assert "2.00 times" in check_target(1.0, 1.0, allow_upsampling=True, name="a")[0]


def test_a_slide_larger_than_any_glass_is_refused():
    check_size((200_000, 300_000), (0.25, 0.25), name="a.svs")  # 50 x 75 mm
    with pytest.raises(SlideError, match="would be a slide of 250 × 250 mm") as caught:
        check_size((500_000, 500_000), (0.5, 0.5), name="a.svs")
    assert "column mpp" in caught.value.mend


@pytest.mark.parametrize(
    ("sizes", "warned"),
    [
        ([(2220, 2967)], []),
        ([(40001, 30003), (10000, 7500), (2500, 1875), (39, 29)], []),  # rounded down
        ([(40000, 30000), (10001, 7501), (7, 6)], []),  # rounded up
        ([(40000, 30000), (10240, 7680)], []),  # padded alike
        ([(40000, 30000), (10240, 7500), (2500, 1875)], [1]),
        ([(100_000, 50_000), (25_000, 12_000)], [1]),
    ],
)
def test_levels_shrunk_unevenly_are_warned_about(sizes, warned):
    assert [int(text.split()[1]) for text in check_levels(sizes)] == warned


APERIO_COMMENT = (
    "Aperio Image Library v11.2.1 \r\n46000x32914 [0,100 46000x32914] (256x256) JPEG/RGB Q=30|AppMag = 20|"
    "StripeWidth = 2040|Filename = CMU-1|MPP = 0.4990|Left = 25.69"
)
OME = (
    '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
    '<Instrument ID="Instrument:0"><Objective ID="Objective:0" NominalMagnification="40.0"/></Instrument>'
    '<Image ID="Image:0"><ObjectiveSettings ID="Objective:0"/><Pixels ID="Pixels:0" SizeX="40000" SizeY="30000" {}/>'
    "</Image></OME>"
)


def sides(key, x, y=None):
    return {f"{key}-x": str(x), f"{key}-y": str(x if y is None else y)}


def tags(unit, x, y=None):
    return {"tiff.ResolutionUnit": unit, "tiff.XResolution": str(x), "tiff.YResolution": str(x if y is None else y)}


def ome(attributes):
    return {"tiff.ImageDescription": OME.format(attributes)}


CASES = {  # vendor, properties, (x, y, source) of the winner, further sources in order, words of each conflict
    "aperio": (
        "aperio",
        sides("openslide.mpp", 0.499)
        | {"aperio.MPP": "0.4990", "aperio.AppMag": "20", "openslide.objective-power": "20"}
        | {"openslide.comment": APERIO_COMMENT, "tiff.ImageDescription": APERIO_COMMENT},
        (0.499, 0.499, "openslide.mpp-x"),
        ["aperio.MPP", "comment (openslide.comment)", "objective power"],
        [],
    ),
    "aperio without MPP, as some TCGA slides": (
        "aperio",
        {"aperio.AppMag": "40", "openslide.objective-power": "40"} | tags("inch", 72),
        (0.25, 0.25, "objective power"),
        ["TIFF resolution tags"],
        [],
    ),
    "aperio without MPP through tiffslide, which takes 72 dpi for the vendor's": (
        "aperio",
        sides("tiffslide.mpp", 25400 / 72) | tags("INCH", 72.0) | {"tiffslide.objective-power": "20"},
        (0.5, 0.5, "objective power"),
        ["TIFF resolution tags (tiffslide.mpp-x)"],
        [],
    ),
    "20x objective with a doubler: power 20, 0.2325 µm": (
        "aperio",
        sides("openslide.mpp", 0.2325) | {"openslide.objective-power": "20"},
        (0.2325, 0.2325, "openslide.mpp-x"),
        ["objective power"],
        ["objective power says about 0.5"],
    ),
    "hamamatsu NDPI": (
        "hamamatsu",
        sides("openslide.mpp", 0.2281750559) | tags("centimeter", 43826) | {"hamamatsu.SourceLens": "40"},
        (0.2281750559, 0.2281750559, "openslide.mpp-x"),
        ["TIFF resolution tags", "objective power (hamamatsu.SourceLens)"],
        [],
    ),
    "hamamatsu at 22.6x is not 20x": (
        "hamamatsu",
        sides("openslide.mpp", 0.4419) | {"hamamatsu.SourceLens": "22.6", "openslide.objective-power": "22.6"},
        (0.4419, 0.4419, "openslide.mpp-x"),
        ["objective power"],
        [],
    ),
    "hamamatsu NDPI without resolution": (
        "hamamatsu",
        {"hamamatsu.SourceLens": "22.6", "tiff.ResolutionUnit": "none", "tiff.XResolution": "0"},
        (10 / 22.6, 10 / 22.6, "objective power (hamamatsu.SourceLens)"),
        [],
        [],
    ),
    "hamamatsu VMS": (
        "hamamatsu",
        {"hamamatsu.PhysicalWidth": "9200000", "hamamatsu.PhysicalHeight": "6930000"},
        (0.23, 0.231, "hamamatsu.PhysicalWidth"),
        [],
        [],
    ),
    "mirax": (
        "mirax",
        sides("openslide.mpp", 0.23387573964497, 0.23417079)
        | {f"mirax.LAYER_0_LEVEL_0_SECTION.MICROMETER_PER_PIXEL_{axis}": "0,23387573964497" for axis in "XY"}
        | {"mirax.GENERAL.OBJECTIVE_MAGNIFICATION": "20", "openslide.objective-power": "20"},
        (0.23387573964497, 0.23417079, "openslide.mpp-x"),
        ["mirax.LAYER_0_LEVEL_0_SECTION.MICROMETER_PER_PIXEL_X", "objective power"],
        ["objective power says about 0.5"],
    ),
    "mirax without the reader's value": (
        "mirax",
        {f"mirax.LAYER_0_LEVEL_0_SECTION.MICROMETER_PER_PIXEL_{axis}": "0,23387" for axis in "XY"},
        (0.23387, 0.23387, "mirax.LAYER_0_LEVEL_0_SECTION.MICROMETER_PER_PIXEL_X"),
        [],
        [],
    ),
    "leica": (
        "leica",
        sides("openslide.mpp", 0.5) | tags("centimeter", 20000) | {"leica.objective": "20"},
        (0.5, 0.5, "openslide.mpp-x"),
        ["TIFF resolution tags", "objective power (leica.objective)"],
        [],
    ),
    "ventana": (
        "ventana",
        sides("openslide.mpp", 0.465) | {"ventana.ScanRes": "0.465", "ventana.Magnification": "20"} | tags("inch", 96),
        (0.465, 0.465, "openslide.mpp-x"),
        ["ventana.ScanRes", "TIFF resolution tags", "objective power (ventana.Magnification)"],
        [],
    ),
    "philips, rows first": (
        "philips",
        {"philips.DICOM_PIXEL_SPACING": '"0.000226907" "0.000226891"'} | tags("inch", 0),
        (0.226891, 0.226907, "philips.DICOM_PIXEL_SPACING"),
        [],
        [],
    ),
    "trestle writes µm per pixel into the tags": (
        "trestle",
        sides("openslide.mpp", 0.33) | tags("none", 0.33) | {"trestle.Objective Power": "20"},
        (0.33, 0.33, "openslide.mpp-x"),
        ["objective power (trestle.Objective Power)"],
        ["objective power (trestle.Objective Power) says about 0.5"],
    ),
    "zeiss": (
        "zeiss",
        {"zeiss.Scaling.Items.X.Value": "2.2E-07", "zeiss.Scaling.Items.Y.Value": "2.2E-07"},
        (0.22, 0.22, "zeiss.Scaling.Items.X.Value"),
        [],
        [],
    ),
    "dicom of OpenSlide": (
        "dicom",
        {
            "dicom.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing[0]": ".000499",
            "dicom.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing[1]": ".000498",
            "dicom.OpticalPathSequence[0].ObjectiveLensPower": "20",
        },
        (0.498, 0.499, "dicom.PixelSpacing"),
        ["objective power (dicom.OpticalPathSequence[0].ObjectiveLensPower)"],
        [],
    ),
    "dicom of wsidicom": (
        "dicom",
        {"dicom.PixelSpacing": "0.00026\\0.00025"},
        (0.25, 0.26, "dicom.PixelSpacing"),
        [],
        [],
    ),
    "OME-TIFF with placeholder tags": (
        "generic-tiff",
        ome('PhysicalSizeX="0.2528" PhysicalSizeY="0.2529"') | tags("inch", 72),
        (0.2528, 0.2529, "OME-XML"),
        ["TIFF resolution tags", "objective power (OME-XML)"],
        [],
    ),
    "OME-TIFF in nm against its tags": (
        "generic-tiff",
        ome('PhysicalSizeX="252.8" PhysicalSizeXUnit="nm" PhysicalSizeY="252.8" PhysicalSizeYUnit="nm"')
        | tags("centimeter", 20000)
        | sides("openslide.mpp", 0.5),
        (0.2528, 0.2528, "OME-XML"),
        ["TIFF resolution tags (openslide.mpp-x)", "objective power (OME-XML)"],
        ["TIFF resolution tags (openslide.mpp-x) says 0.5, OME-XML 0.2528"],
    ),
    "ImageJ": (
        "generic-tiff",
        tags("NONE", 2.0) | {"tiff.ImageDescription": "ImageJ=1.53t\nimages=3\nunit=micron\nspacing=1.0\n"},
        (0.5, 0.5, "TIFF resolution tags"),
        [],
        [],
    ),
    "generic TIFF at 96 dpi that kept the scanner's comment": (
        "generic-tiff",
        sides("openslide.mpp", 25400 / 96) | tags("inch", 96) | {"openslide.comment": APERIO_COMMENT},
        (0.499, 0.499, "comment (openslide.comment)"),
        ["TIFF resolution tags (openslide.mpp-x)", "objective power (openslide.comment)"],
        [],
    ),
    "generic TIFF shrunk by two that kept the scanner's comment": (
        "generic-tiff",
        tags("centimeter", 10020) | {"tiff.ImageDescription": APERIO_COMMENT},
        (0.499, 0.499, "comment (tiff.ImageDescription)"),
        ["TIFF resolution tags", "objective power (tiff.ImageDescription)"],
        ["TIFF resolution tags says 0.998, comment (tiff.ImageDescription) 0.499"],
    ),
    "three scale fields, none like another (SDPC)": (
        "aperio",
        sides("openslide.mpp", 0.1035) | {"aperio.MPP": "0.207", "openslide.objective-power": "20"},
        (0.1035, 0.1035, "openslide.mpp-x"),
        ["aperio.MPP", "objective power"],
        ["aperio.MPP says 0.207", "objective power says about 0.5"],
    ),
    "a vendor value in mm is passed over and told": (
        "mirax",
        sides("openslide.mpp", 0.00025) | {"tiff.ImageDescription": "mpp: 0.25 um/px"},
        (0.25, 0.25, "comment (tiff.ImageDescription)"),
        ["openslide.mpp-x"],
        ["openslide.mpp-x says 0.00025 (outside 0.05 to 10)"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_scanners(case):
    vendor, properties, (x, y, source), others, conflicts = CASES[case]
    found = find(properties, vendor)
    assert (found.x, found.y) == pytest.approx((x, y), rel=1e-5)
    assert found.source == source
    assert [candidate.source for candidate in found.candidates if candidate.source != source] == others
    assert [text for text, words in zip(found.conflicts, conflicts, strict=True) if words not in text] == []
    assert len(found.warnings) == len(conflicts) + source.startswith("objective power")


@pytest.mark.parametrize("case", CASES)
def test_the_sheet_wins_and_names_what_disagrees(case):
    vendor, properties, (x, _, source), _, _ = CASES[case]
    found = find(properties, vendor, override=2.5)
    assert (found.x, found.y, found.source) == (2.5, 2.5, "sample sheet")
    assert any(source in text and f"{x:.4g}" in text and "sample sheet 2.5" in text for text in found.warnings)
    with pytest.raises(SlideError, match="sample sheet says 25"):
        find(properties, vendor, override=25.0)


def test_a_nominal_power_does_not_overrule_the_scanner():
    with pytest.raises(SlideError, match=r"openslide\.mpp-x says 25 µm per pixel, outside"):
        find(sides("openslide.mpp", 25) | {"openslide.objective-power": "40"})


@pytest.mark.parametrize(
    ("comment", "mpp"),
    [
        ("MPP = 0.2520", (0.252, 0.252)),
        ("mpp: 0.25 um/px, scanned on Monday.", (0.25, 0.25)),
        ('{"mpp_x": 0.25, "mpp_y": 0.26}', (0.25, 0.26)),
        ("mpp=0,2528;", (0.2528, 0.2528)),
        ("PixelSizeX = 250 nm\nPixelSizeY = 251 nm", (0.25, 0.251)),
        ("pixel size: 0.00025mm", (0.25, 0.25)),
        ("microns per pixel: 0.25.", (0.25, 0.25)),
        ("PixelSizeMicrons=0.25", (0.25, 0.25)),
        ("PixelSize = 0.25", None),  # of what unit?
        ("MPP 0.25", None),
        ("COMPP = 0.25", None),
        ("MPP = 0.25.3", None),
        ("MPP = 0.25e", None),
        ("MPP = 25%", None),
        ("mpp: about 0.25", None),
        ("0.25", None),
        ("", None),
    ],
)
def test_comments_count_only_where_they_are_explicit(comment, mpp):
    if mpp is None:
        with pytest.raises(SlideError, match="states no resolution"):
            find({"openslide.comment": comment}, "generic-tiff")
    else:
        found = find({"openslide.comment": comment}, "generic-tiff")
        assert (found.x, found.y) == pytest.approx(mpp)


@pytest.mark.parametrize(
    ("comment", "power"),
    [
        ("AppMag = 40|", 40),
        ("Objective: 20x/0.8", 20),
        ("objective power = 22.6", 22.6),
        ("Magnification=40X", 40),
        ("scanned with a 40x objective", 40),
        ("magnification 20x", 20),
        ("40x", None),
        ("46000x32914 (240x240)", None),
        ("magnification = 400", None),  # with the eyepiece
        ("objective 20", None),
    ],
)
def test_powers_in_comments_need_their_word(comment, power):
    assert find(TAGS | {"openslide.comment": comment}, "generic-tiff").power == power


def test_two_values_in_one_comment_are_a_conflict():
    found = find({"openslide.comment": "MPP = 0.25|...|MPP = 0.5|MPP = 0.25"})
    assert (found.x, len(found.candidates), len(found.conflicts)) == (0.25, 2, 1)


def test_number():
    assert [number(text) for text in ("0.25", " 0,25 ", ".5", "+1", "2.2E-07", "5.")] == [0.25, 0.25, 0.5, 1, 2.2e-7, 5]
    assert {number(text) for text in ("", "0", "-1", "nan", "1e999", "1e-999", "0x1", "1_0", "1 0", "٣", None)} == {
        None
    }


KEYS = sorted({key for _, properties, *_ in CASES.values() for key in properties})
TEXTS = st.one_of(
    st.text(max_size=40),
    st.floats().map(str),
    st.sampled_from(
        ["0.25", "1e-320", "1e308", "0,25", "inch", "centimeter", "none", "2", "1\\2", "<OME", "MPP = 0.25"]
    ),
    st.builds("MPP = {}".format, st.floats()),
    st.builds(
        OME.format, st.builds('PhysicalSizeX="{}" PhysicalSizeXUnit="{}"'.format, st.floats(), st.text(max_size=3))
    ),
)


@given(
    st.dictionaries(st.sampled_from(KEYS), TEXTS),
    st.sampled_from(["aperio", "generic-tiff", "trestle", "hamamatsu", "None"]),
)
@settings(max_examples=300, deadline=None)
def test_whatever_the_file_says_the_result_is_plausible_or_refused(properties, vendor):
    try:
        found = find(properties, vendor)
    except SlideError:
        return
    assert all(PLAUSIBLE[0] <= value <= PLAUSIBLE[1] for value in (found.x, found.y))
    assert max(found.x, found.y) / min(found.x, found.y) <= 1.05 + 1e-9
    assert Candidate(found.source, found.x, found.y) in found.candidates
    json.dumps(found.as_json(), allow_nan=False)
    assert all(
        math.isfinite(side) and side > 0 for candidate in found.candidates for side in (candidate.x, candidate.y)
    )
