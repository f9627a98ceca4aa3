"""OME-XML: pixel size and objective of the image at hand, and units of length.

The XML comes from a file that nobody vouches for: only its first 4 MB are looked at, a document type (and with it every
entity) ends the reading, and a document that breaks off gives what came before.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from typing import NamedTuple
from xml.parsers import expat

MAX_CHARACTERS = 4_000_000
_HEAD = 2000  # characters in which the root element is looked for
_SIZE_TOLERANCE = 0.01
_PREFIXES = {
    "k": 3, "h": 2, "da": 1, "": 0, "d": -1, "c": -2, "m": -3, "μ": -6, "u": -6, "n": -9, "p": -12, "f": -15, "a": -18,
}  # fmt: skip
_INCH = 25_400.0
_UNITS = {f"{prefix}m": 10.0 ** (power + 6) for prefix, power in _PREFIXES.items()} | {
    "å": 1e-4, "angstrom": 1e-4, "micron": 1.0, "micrometer": 1.0, "micrometre": 1.0, "nanometer": 1e-3,
    "nanometre": 1e-3, "millimeter": 1e3, "millimetre": 1e3, "centimeter": 1e4, "centimetre": 1e4, "meter": 1e6,
    "metre": 1e6, "in": _INCH, "inch": _INCH, "thou": _INCH / 1000, "li": _INCH / 12, "ft": 12 * _INCH,
    "pt": _INCH / 72,
}  # fmt: skip


class OmeImage(NamedTuple):
    """µm per pixel on both axes and the nominal magnification of the objective; None where the XML is silent."""

    x: float | None
    y: float | None
    power: str | None


@dataclass
class _Seen:
    """What the parser has met: one entry of attributes for every `Pixels`, and the objectives by their id."""

    pixels: list[dict[str, str]] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)
    objectives: dict[str, str] = field(default_factory=dict)

    def element(self, tag: str, attributes: dict[str, str]) -> None:
        name = tag.rpartition(":")[2]
        if name == "Objective":
            self.objectives[attributes.get("ID", "")] = attributes.get("NominalMagnification", "")
        elif name == "Image":
            self.settings = {}
        elif name == "ObjectiveSettings":
            self.settings = attributes
        elif name == "Pixels":
            self.pixels.append({**attributes, "objective": self.settings.get("ID", "")})


def unit_um(unit: str) -> float | None:
    """µm in a unit of length, as OME or a person writes it (`µm`, `μm`, `um`, `Å`, `inch`, `microns`); None if unknown.

    Examples
    --------
    >>> unit_um("mm"), unit_um("microns"), unit_um("pixel")
    (1000.0, 1.0, None)
    """
    # "Â" before the sign: UTF-8 read as Latin-1. NFKC makes one letter of the two micro and the two Ångström signs.
    text = unicodedata.normalize("NFKC", unit.replace("Âµ", "µ").strip())
    plain = text.lower()
    return _UNITS.get(text) or _UNITS.get(plain) or _UNITS.get(plain.removesuffix("s"))


def read_ome(text: str, dimensions: tuple[int, int] | None) -> OmeImage | None:
    """The pixel size that OME-XML states for an image.

    Parameters
    ----------
    text
        Any text, OME-XML or not.
    dimensions
        (width, height) of level 0 in pixels, if known. The image of that size counts, since a file may hold several
        (label, macro); a file that has none of this size was resampled after the XML was written, and gives nothing.
        Unknown: the largest image.

    Returns
    -------
    None if the text is no OME-XML, has a document type, or describes no such image.
    """
    if not _is_ome(text):
        return None
    seen = _Seen()
    parser = expat.ParserCreate()
    parser.StartElementHandler = seen.element
    parser.StartDoctypeDeclHandler = _refuse
    try:
        parser.Parse(text[:MAX_CHARACTERS].encode("utf-8", "replace"), False)
    except _DocumentType:
        return None
    except expat.ExpatError:  # broken off or damaged: what came before the break is whole
        if not seen.pixels:
            return None
    pixels = _choose(seen.pixels, dimensions)
    if pixels is None:
        return None
    power = seen.objectives.get(pixels["objective"])
    if power is None and len(seen.objectives) == 1:
        (power,) = seen.objectives.values()
    return OmeImage(_size(pixels, "X"), _size(pixels, "Y"), power)


class _DocumentType(Exception):
    """Raised at a document type declaration: only there can entities be declared."""


def _refuse(*_: object) -> None:
    raise _DocumentType


def _is_ome(text: str) -> bool:
    head = text[:_HEAD]
    return head.lstrip("\ufeff \t\r\n").startswith("<") and ("<OME" in head or ":OME" in head)


def _choose(images: list[dict[str, str]], dimensions: tuple[int, int] | None) -> dict[str, str] | None:
    sizes = [tuple(_whole(image.get(f"Size{axis}")) for axis in "XY") for image in images]
    if dimensions is not None:
        fits = [image for image, size in zip(images, sizes, strict=True) if _alike(size, dimensions)]
        return fits[0] if fits else None
    return max(zip(sizes, images, strict=True), key=lambda pair: pair[0][0] * pair[0][1], default=(None, None))[1]


def _alike(size: tuple[int, ...], dimensions: tuple[int, int]) -> bool:
    # A size that is not stated (0) contradicts nothing; an edge may be cropped or padded by a reader.
    return all(not own or abs(own - real) <= _SIZE_TOLERANCE * real for own, real in zip(size, dimensions, strict=True))


def _whole(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 10 else 0


def _size(pixels: dict[str, str], axis: str) -> float | None:
    unit = unit_um(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
    try:
        value = float(pixels.get(f"PhysicalSize{axis}", ""))
    except ValueError:
        return None
    return value * unit if unit else None
