"""Where a slide may state its resolution: every source found in its properties, each with its value.

Property names are those of OpenSlide (openslide.org/properties, and "Known Properties" of each format there), of
tiffslide, and `dicom.PixelSpacing` of the DICOM reader. What is stated is collected here and judged in
`histill.slides.resolution`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from histill.slides.ome import OmeImage, read_ome, unit_um

TIFF, POWER, OME = "TIFF resolution tags", "objective power", "OME-XML"
MIN_POWER, MAX_POWER = 0.5, 200.0  # of an objective; 400 is that of objective and eyepiece together
MOST_OF_COMMENTS = 8  # values taken from comments: a log of a whole cohort is no statement about one slide
MAX_COMMENT = 64_000  # characters of a comment that are searched
_READER = (("openslide.mpp-x", "openslide.mpp-y"), ("tiffslide.mpp-x", "tiffslide.mpp-y"))
_VENDOR = (  # property of x, of y, µm in its unit
    ("aperio.MPP", "aperio.MPP", 1.0),
    ("mirax.LAYER_0_LEVEL_0_SECTION.MICROMETER_PER_PIXEL_X", "mirax.LAYER_0_LEVEL_0_SECTION.MICROMETER_PER_PIXEL_Y", 1),
    ("ventana.ScanRes", "ventana.ScanRes", 1.0),
    ("zeiss.Scaling.Items.X.Value", "zeiss.Scaling.Items.Y.Value", 1e6),
)
# mm, the distance between rows (y) first, as DICOM has it (PS3.3, 10.7.1.3): in one property, or one each
_SPACING_TEXT = ("dicom.PixelSpacing", "philips.DICOM_PIXEL_SPACING")
_SPACING_ITEMS = ("dicom.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing", "dicom.PixelSpacing")
_POWERS = (
    "openslide.objective-power",
    "tiffslide.objective-power",
    "aperio.AppMag",
    "hamamatsu.SourceLens",
    "mirax.GENERAL.OBJECTIVE_MAGNIFICATION",
    "leica.objective",
    "ventana.Magnification",
    "trestle.Objective Power",
    "sakura.NominalLensMagnification",
    "argos.ObjectiveMagnification",
    "dicom.OpticalPathSequence[0].ObjectiveLensPower",
)
_COMMENTS = ("openslide.comment", "tiffslide.comment", "tiff.ImageDescription", "dicom.ImageComments")
_GENERIC = ("generic-tiff", "ome-tiff", "unknown", "None")
_OWN_TAGS = ("hamamatsu", "leica", "trestle")  # formats whose resolution tags are the scanner's own word
_TAG_UNITS = {"2": "inch", "3": "centimeter", "4": "millimeter", "5": "micrometer"}

_NUMBER = r"(?:[0-9]{1,9}(?:[.,][0-9]{0,20})?|[.,][0-9]{1,20})(?:[eE][-+]?[0-9]{1,3})?"
_IS = r"[\"']?[ \t]{0,8}[=:][ \t]{0,8}[\"']?"  # `MPP = 0.25`, `"mpp": 0.25`, `mpp="0.25"`
_LENGTH = r"([µμu]m|microns?|micromet(?:er|re)s?|nm|mm)"
_END = r"(?![0-9A-Za-zµμ%]|[.,][0-9])"
_PER_PIXEL = r"mpp|microns?[ _]per[ _]pixel|pixel[ _-]?size[ _-]?(?:microns?|[µμu]m)|[µμu]m[ ]?/[ ]?px"
_MPP_TEXT = re.compile(
    rf"(?<![A-Za-z0-9])(?:{_PER_PIXEL})(?:[ _-]?([xy]))?{_IS}({_NUMBER})"
    rf"(?:[ ]?[µμu]m|[ ]?microns?)?(?:[ ]?/[ ]?(?:px|pixel))?{_END}",
    re.IGNORECASE,
)
_SIZE_TEXT = re.compile(
    rf"(?<![A-Za-z0-9])pixel[ _-]?size(?:[ _-]?([xy]))?{_IS}({_NUMBER})[ ]?{_LENGTH}(?:[ ]?/[ ]?(?:px|pixel))?{_END}",
    re.IGNORECASE,
)
_POWER_TEXT = (
    re.compile(rf"(?<![A-Za-z0-9])AppMag{_IS}({_NUMBER})[ ]?[x×]?{_END}", re.IGNORECASE),
    re.compile(
        r"(?<![A-Za-z0-9])(?:objective|magnification)(?:[ _-]?(?:lens|power|magnification))?"
        rf"(?:{_IS}({_NUMBER})[ ]?[x×]?|[ ]({_NUMBER})[ ]?[x×]){_END}",
        re.IGNORECASE,
    ),
    re.compile(rf"(?<![0-9A-Za-z.,])({_NUMBER})[ ]?[x×][ ](?:objective|magnification)(?![A-Za-z])", re.IGNORECASE),
)


@dataclass(frozen=True)
class Candidate:
    """One source's word on the resolution, in µm per pixel."""

    source: str
    x: float
    y: float


def stated(properties: dict[str, str], vendor: str, dimensions: tuple[int, int] | None) -> list[Candidate]:
    """What a file says of its µm per pixel, most trusted first.

    The reader's value and the vendor's own properties, DICOM pixel spacing, OME-XML, comments, TIFF resolution tags. A
    reader's value that is nothing but the tags (generic TIFF, or a vendor file without the vendor's property) has the
    tags' trust. One axis alone counts for both. A value of zero or below, or that is no number, is not stated.
    `dimensions` are (width, height) of level 0 in pixels, if known.
    """
    tags = _from_tags(properties)
    reader, from_tags = [], []
    for x_key, y_key in _READER:
        found = _pair(x_key, number(properties.get(x_key)), number(properties.get(y_key)))
        if found is None:
            continue
        if vendor in _GENERIC or (vendor not in _OWN_TAGS and tags and _same(found, tags)):
            from_tags.append(Candidate(f"{TIFF} ({x_key})", found.x, found.y))
        else:
            reader.append(found)
    own = [
        _pair(x_key, number(properties.get(x_key)), number(properties.get(y_key)), unit)
        for x_key, y_key, unit in _VENDOR
    ]
    image = _ome(properties, dimensions)
    ome = _pair(OME, image.x, image.y) if image else None
    last = from_tags or ([tags] if tags and vendor != "trestle" else [])  # Trestle writes µm per pixel into the tags
    rest = [*own, _physical_width(properties, dimensions), *_spacings(properties), ome, *_from_comments(properties)]
    return [*reader, *(found for found in rest if found is not None), *last]


def powers(properties: dict[str, str], dimensions: tuple[int, int] | None) -> list[tuple[str, float]]:
    """Objective powers that a file states, each power once, as (source, power), most trusted first.

    The reader's is called `objective power`; another comes with the property or the text it was read from.
    """
    texts = [(key, properties.get(key, "").strip().rstrip("xX×")) for key in _POWERS]
    image = _ome(properties, dimensions)
    texts.append((OME, image.power if image else None))
    for key, comment in _comments(properties):
        matches = [match for pattern in _POWER_TEXT for match in pattern.finditer(comment)][:MOST_OF_COMMENTS]
        texts += [(key, next(group for group in match.groups() if group)) for match in matches]
    found: dict[float, str] = {}
    for key, text in texts:
        power = number(text)
        if power is not None and MIN_POWER <= power <= MAX_POWER:
            found.setdefault(power, POWER if key.endswith("objective-power") else f"{POWER} ({key})")
    return [(source, power) for power, source in found.items()]


def number(text: str | None) -> float | None:
    """A positive finite number, with a point or a comma before its decimals; None for anything else."""
    if text is None or not re.fullmatch(rf"[+]?{_NUMBER}", text.strip()):
        return None
    value = float(text.strip().replace(",", "."))
    return value if math.isfinite(value) and value > 0 else None


def _pair(source: str, x: float | None, y: float | None, unit: float = 1.0) -> Candidate | None:
    """A candidate of values in `unit` µm; None if neither axis is a positive finite number."""
    x, y = (value * unit if value and math.isfinite(value * unit) and value * unit > 0 else None for value in (x, y))
    return None if x is None and y is None else Candidate(source, x or y, y or x)


def _same(one: Candidate, other: Candidate) -> bool:
    return math.isclose(one.x, other.x, rel_tol=1e-3) and math.isclose(one.y, other.y, rel_tol=1e-3)


def _ome(properties: dict[str, str], dimensions: tuple[int, int] | None) -> OmeImage | None:
    texts = dict.fromkeys(properties[key] for key in _COMMENTS if properties.get(key))
    images = (read_ome(text, dimensions) for text in texts)
    return next((image for image in images if image is not None), None)


def _physical_width(properties: dict[str, str], dimensions: tuple[int, int] | None) -> Candidate | None:
    """Hamamatsu VMS: the width and height of the picture in nm."""
    width, height = (number(properties.get(f"hamamatsu.Physical{side}")) for side in ("Width", "Height"))
    if dimensions is None or width is None:
        return None
    return _pair("hamamatsu.PhysicalWidth", width / dimensions[0], height / dimensions[1] if height else None, 1e-3)


def _spacings(properties: dict[str, str]) -> list[Candidate | None]:
    found = []
    for key in _SPACING_TEXT:
        parts = [number(part.strip("\"'")) for part in re.split(r"[\\\s]+", properties.get(key, "").strip())]
        if len(parts) == 2:
            found.append(_pair(key, parts[1], parts[0], 1e3))
    for key in _SPACING_ITEMS:
        row, column = (number(properties.get(f"{key}[{index}]")) for index in (0, 1))
        found.append(_pair("dicom.PixelSpacing", column, row, 1e3))
    return found


def _comments(properties: dict[str, str]) -> list[tuple[str, str]]:
    """Free texts, each once, as (property, text); XML is no free text."""
    texts = {properties.get(key, "")[:MAX_COMMENT]: key for key in reversed(_COMMENTS)}
    return [
        (key, text)
        for text, key in reversed(texts.items())
        if text and not text.lstrip("\ufeff \t\r\n").startswith("<")
    ]


def _from_comments(properties: dict[str, str]) -> list[Candidate]:
    """Explicit statements only, such as `MPP = 0.2520` or `PixelSizeX: 0.25 um`; each value once."""
    found: dict[Candidate, None] = {}
    for key, text in _comments(properties):
        values: dict[str, list[float]] = {"x": [], "y": [], "": []}
        for pattern in (_MPP_TEXT, _SIZE_TEXT):
            for match in pattern.finditer(text):
                value, unit = number(match[2]), unit_um(match[3]) if pattern is _SIZE_TEXT else 1.0
                if value is not None and unit is not None:
                    values[(match[1] or "").lower()].append(value * unit)
        if values["x"] or values["y"]:
            found[_pair(f"comment ({key})", next(iter(values["x"]), None), next(iter(values["y"]), None))] = None
        for value in values[""]:
            found[_pair(f"comment ({key})", value, value)] = None
    return [candidate for candidate in found if candidate is not None][:MOST_OF_COMMENTS]


def _from_tags(properties: dict[str, str]) -> Candidate | None:
    """The TIFF resolution tags in their unit. ImageJ writes no unit there, but into the description."""
    unit = properties.get("tiff.ResolutionUnit", "").rpartition(".")[2].lower()
    length = unit_um(_TAG_UNITS.get(unit, unit))
    description = properties.get("tiff.ImageDescription", "")
    if length is None and description.startswith("ImageJ="):
        stated = re.search(r"^unit=(.{1,20}?)\s*$", description[:MAX_COMMENT], re.MULTILINE)
        length = unit_um(stated[1].replace("\\u00B5", "µ")) if stated else None
    x, y = number(properties.get("tiff.XResolution")), number(properties.get("tiff.YResolution"))
    return None if length is None or x is None or y is None else _pair(TIFF, length / x, length / y)
