"""Resolution: µm per pixel of level 0 on both axes, where it comes from, and who disagrees.

Sources in order of trust: the sample sheet, the vendor's own property, the TIFF resolution tags, the objective power.
Nothing is guessed or rounded to a nominal magnification.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from histill.errors import SlideError

PLAUSIBLE = (0.05, 10.0)  # µm per pixel: beyond any scanner, and beyond any use
MAX_ANISOTROPY = 0.05
MAX_CONFLICT = 0.05
MAX_POWER_CONFLICT = 0.3
MAX_UPSAMPLING = 1.10
FINEST = 0.5  # µm per pixel of the 20x tiles
LARGEST_MM2 = 20_000.0  # twice the largest glass slides, of 5 x 3 inches
OBJECTIVE = 10.0  # µm per pixel at objective power 1: 0.25 at 40x

SHEET, TIFF, POWER = "sample sheet", "TIFF resolution tags", "objective power"
_VENDOR = (
    ("openslide.mpp-x", "openslide.mpp-y"),
    ("tiffslide.mpp-x", "tiffslide.mpp-y"),
    ("aperio.MPP", "aperio.MPP"),
)
_UNIT_UM = {"inch": 25400.0, "centimeter": 10000.0, "cm": 10000.0, "millimeter": 1000.0, "micrometer": 1.0}
_MEND = "give the right µm per pixel in the column mpp of the slide sheet"


@dataclass(frozen=True)
class Candidate:
    """One source's word on the resolution, in µm per pixel."""

    source: str
    x: float
    y: float


@dataclass(frozen=True)
class Resolution:
    """The resolution in use, with every candidate and the conflicts between them."""

    x: float
    y: float
    source: str
    candidates: list[Candidate] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The entry `mpp` of slide.json."""
        record = asdict(self)
        del record["warnings"]
        return record


def resolve(properties: dict[str, str], vendor: str, *, override: float | None, name: str) -> Resolution:
    """Decide the resolution of level 0.

    Parameters
    ----------
    properties, vendor
        As a `SlideReader` gives them.
    override
        µm per pixel from the sample sheet, for both axes.
    name
        The slide, for messages.

    Raises
    ------
    SlideError
        If nothing gives a resolution, or what gives it is implausible (outside 0.05 to 10, axes over 5 % apart).
    """
    power = _number(properties, "openslide.objective-power") or _number(properties, "tiffslide.objective-power")
    candidates = _candidates(properties, vendor, override)
    if not candidates and power is None:
        raise SlideError(f"{name}: the file states no resolution (µm per pixel) and no objective power", mend=_MEND)
    notes = []
    if not candidates:
        notes.append(f"resolution taken from the objective power {power:g} alone: {OBJECTIVE / power:g} µm per pixel")
    if power is not None:
        candidates.append(Candidate(POWER, OBJECTIVE / power, OBJECTIVE / power))
    best = candidates[0]
    _check(best, name)
    conflicts = [
        f"{other.source} says {_text(other)}, {best.source} {_text(best)} µm per pixel"
        for other in candidates[1:]
        # A tag of 72 or 96 dpi is the writer's placeholder, and powers are nominal (20x is 0.46 to 0.52).
        if other.source != POWER and _plausible(other) and _apart(best, other) > MAX_CONFLICT
    ]
    conflicts += [
        f"{POWER} says about {_text(other)}, {best.source} {_text(best)} µm per pixel"
        for other in candidates[1:]
        if other.source == POWER and _apart(best, other) > MAX_POWER_CONFLICT
    ]
    notes += [f"resolutions disagree: {conflict}; the second is used" for conflict in conflicts]
    return Resolution(best.x, best.y, best.source, candidates, conflicts, notes)


def check_size(dimensions: tuple[int, int], mpp: tuple[float, float], *, name: str) -> None:
    """Refuse a slide larger than any glass: its header or its resolution is wrong, and no memory would hold it."""
    width, height = (side * value / 1000 for side, value in zip(dimensions, mpp, strict=True))
    if width * height > LARGEST_MM2:
        raise SlideError(
            f"{name}: {dimensions[0]} × {dimensions[1]} pixels at {mpp[0]:.4g} × {mpp[1]:.4g} µm would be a slide of "
            f"{width:,.0f} × {height:,.0f} mm",
            mend="correct the column mpp of the slide sheet; if it is right, the file is damaged: copy it again",
        )


def check_target(x: float, y: float, *, allow_upsampling: bool, name: str) -> list[str]:
    """Warnings about tiles finer than the scan; a `SlideError` unless upsampling is allowed.

    20x tiles (0.5 µm per pixel) may be up to 10 % finer than the scan without a word.
    """
    coarser = max(x, y)
    if coarser <= FINEST * MAX_UPSAMPLING:
        return []
    problem = f"{name}: scanned at {coarser:g} µm per pixel, coarser than the {FINEST:g} of 20x tiles"
    if not allow_upsampling:
        raise SlideError(
            problem,
            mend="leave the slide out, or set slides.allow_upsampling: true to enlarge its pixels; "
            "if the scan is finer than stated, give the column mpp of the slide sheet",
        )
    return [f"{problem}; 20x tiles are enlarged {coarser / FINEST:.2f} times (slides.allow_upsampling)"]


def _candidates(properties: dict[str, str], vendor: str, override: float | None) -> list[Candidate]:
    found = []
    if override is not None:
        found.append(Candidate(SHEET, override, override))
    generic = vendor in ("generic-tiff", "unknown", "None")
    for x_key, y_key in _VENDOR:
        x, y = _number(properties, x_key), _number(properties, y_key)
        if x is None and y is None:
            continue
        # For a generic TIFF the reader's mpp is nothing but the resolution tags, and deserves their trust only.
        source = f"{TIFF} ({x_key})" if generic and x_key != "aperio.MPP" else x_key
        found.append(Candidate(source, x or y, y or x))
    if not any(candidate.source.startswith(TIFF) for candidate in found):
        found += _from_tags(properties)
    return found


def _from_tags(properties: dict[str, str]) -> list[Candidate]:
    unit = properties.get("tiff.ResolutionUnit", "").rpartition(".")[2].lower()
    x, y = _number(properties, "tiff.XResolution"), _number(properties, "tiff.YResolution")
    if unit not in _UNIT_UM or x is None or y is None:
        return []
    return [Candidate(TIFF, _UNIT_UM[unit] / x, _UNIT_UM[unit] / y)]


def _check(best: Candidate, name: str) -> None:
    if not _plausible(best):
        raise SlideError(
            f"{name}: {best.source} says {_text(best)} µm per pixel, outside {PLAUSIBLE[0]:g} to {PLAUSIBLE[1]:g}",
            mend=_MEND,
        )
    if max(best.x, best.y) / min(best.x, best.y) - 1 > MAX_ANISOTROPY:
        raise SlideError(
            f"{name}: {best.source} says {best.x:g} µm per pixel in x and {best.y:g} in y, more than 5 % apart",
            mend=_MEND,
        )


def _plausible(candidate: Candidate) -> bool:
    return all(PLAUSIBLE[0] <= value <= PLAUSIBLE[1] for value in (candidate.x, candidate.y))


def _apart(one: Candidate, other: Candidate) -> float:
    return max(abs(math.log(one.x / other.x)), abs(math.log(one.y / other.y)))


def _text(candidate: Candidate) -> str:
    return f"{candidate.x:.4g}" if candidate.x == candidate.y else f"{candidate.x:.4g} × {candidate.y:.4g}"


def _number(properties: dict[str, str], key: str) -> float | None:
    """A positive finite property; anything else counts as absent."""
    try:
        value = float(properties.get(key, ""))
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None
