"""Resolution: µm per pixel of level 0 on both axes, where it comes from, and who disagrees.

Sources in order of trust: the sample sheet, the reader's value and the vendor's own properties, DICOM pixel spacing,
OME-XML, comments, the TIFF resolution tags, the objective power. The first plausible one is used. Nothing is guessed or
rounded to a nominal magnification, and every other source is kept beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from histill.errors import SlideError
from histill.magnifications import MAGNIFICATIONS
from histill.slides.resolution_sources import POWER, TIFF, Candidate, powers, stated

PLAUSIBLE = (0.05, 10.0)  # µm per pixel: beyond any scanner, and beyond any use
MAX_ANISOTROPY = 0.05
MAX_CONFLICT = 0.05
MAX_POWER_CONFLICT = 0.3  # powers are nominal: 20x is 0.46 to 0.52 µm per pixel
MAX_UPSAMPLING = 1.10
MAX_LEVEL_SKEW = 0.01
LARGEST_MM2 = 20_000.0  # twice the largest glass slides, of 5 x 3 inches
OBJECTIVE = 10.0  # µm per pixel at objective power 1: 0.25 at 40x

SHEET = "sample sheet"
_MEND = "give the right µm per pixel in the column mpp of the slide sheet"


@dataclass(frozen=True)
class Resolution:
    """The resolution in use, with every candidate and the conflicts between them; the objective power if stated."""

    x: float
    y: float
    source: str
    candidates: list[Candidate] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    power: float | None = None

    def as_json(self) -> dict[str, Any]:
        """The entry `mpp` of slide.json."""
        record = asdict(self)
        del record["warnings"], record["power"]
        return record


def resolve(
    properties: dict[str, str],
    vendor: str,
    *,
    override: float | None,
    name: str,
    dimensions: tuple[int, int] | None = None,
) -> Resolution:
    """Decide the resolution of level 0.

    An implausible value (outside 0.05 to 10 µm per pixel) is passed over for the next source that states one. The
    objective power, which is nominal, stands in where nothing else is stated but placeholders of TIFF tags (72 dpi); it
    does not overrule an implausible value of the scanner.

    Parameters
    ----------
    properties, vendor
        As a `SlideReader` gives them.
    override
        µm per pixel from the sample sheet, for both axes. It always wins; a file that says otherwise is warned about.
    name
        The slide, for messages.
    dimensions
        (width, height) of level 0 in pixels: tells which image of OME-XML is meant.

    Raises
    ------
    SlideError
        If nothing gives a resolution, or what gives it is implausible or has axes over 5 % apart.
    """
    candidates = collect(properties, vendor, override, dimensions)
    nominal = [candidate for candidate in candidates if candidate.source.startswith(POWER)]
    found = candidates[: len(candidates) - len(nominal)]
    best = _choose(found, nominal, name)
    conflicts = _conflicts(best, found) + _power_conflicts(best, nominal)
    notes = [f"resolutions disagree: {conflict}; the second is used" for conflict in conflicts]
    if best in nominal:
        notes.insert(
            0, f"resolution taken from the {best.source} {OBJECTIVE / best.x:g} alone: {best.x:.4g} µm per pixel"
        )
    power = next((power for _, power in powers(properties, dimensions)), None)
    return Resolution(best.x, best.y, best.source, candidates, conflicts, notes, power)


def collect(
    properties: dict[str, str], vendor: str, override: float | None, dimensions: tuple[int, int] | None
) -> list[Candidate]:
    """Every source's word, most trusted first; those of `resolve`, which decides between them."""
    sheet = [] if override is None else [Candidate(SHEET, override, override)]
    nominal = [
        Candidate(source, OBJECTIVE / power, OBJECTIVE / power) for source, power in powers(properties, dimensions)
    ]
    return [*sheet, *stated(properties, vendor, dimensions), *nominal]


def check_size(dimensions: tuple[int, int], mpp: tuple[float, float], *, name: str) -> None:
    """Refuse a slide larger than any glass: its header or its resolution is wrong, and no memory would hold it."""
    width, height = (side * value / 1000 for side, value in zip(dimensions, mpp, strict=True))
    if width * height > LARGEST_MM2:
        raise SlideError(
            f"{name}: {dimensions[0]} × {dimensions[1]} pixels at {mpp[0]:.4g} × {mpp[1]:.4g} µm would be a slide of "
            f"{width:,.0f} × {height:,.0f} mm",
            mend="correct the column mpp of the slide sheet; if it is right, the file is damaged: copy it again",
        )


def check_target(
    x: float, y: float, *, allow_upsampling: bool, name: str, power: float | None = None, source: str | None = None
) -> list[str]:
    """Warnings about tiles finer than the scan; a `SlideError` unless upsampling is allowed.

    Tiles may be up to 10 % finer than the scan without a word.

    Parameters
    ----------
    x, y
        µm per pixel of level 0.
    power, source
        Objective power and where the resolution comes from, for the message.
    """
    coarser = max(x, y)
    short = [name for name, mpp in MAGNIFICATIONS.items() if coarser > mpp * MAX_UPSAMPLING]
    if not short:
        return []
    wanted = " and ".join(f"{MAGNIFICATIONS[level]:g} of {level} tiles" for level in short)
    objective = f"objective {power:g}x" if power else "objective not stated"
    told = f"{source}, {objective}" if source else objective
    problem = f"{name}: scanned at {coarser:.4g} µm per pixel ({told}), coarser than the {wanted}"
    if not allow_upsampling:
        raise SlideError(
            problem,
            mend="use a finer scan or leave the slide out; or set slides.allow_upsampling: true to enlarge its pixels; "
            "if the scan is finer than stated, give the column mpp of the slide sheet",
        )
    enlarged = ", ".join(f"{level} tiles {coarser / MAGNIFICATIONS[level]:.2f} times" for level in short)
    return [f"{problem}; enlarged: {enlarged} (slides.allow_upsampling)"]


def check_levels(sizes: Sequence[tuple[int, int]]) -> list[str]:
    """Warnings about levels that are shrunk more along one axis than along the other.

    Parameters
    ----------
    sizes
        (width, height) of every level in pixels, finest first. One pixel of rounding a side is no skew.
    """
    width, height = sizes[0]
    warnings = []
    for index, (level_width, level_height) in enumerate(sizes[1:], 1):
        x, y = width / level_width, height / level_height
        rounding = 1 / level_width + 1 / level_height
        if abs(math.log(x / y)) > MAX_LEVEL_SKEW + rounding:
            warnings.append(
                f"level {index} is {x:.4g} times smaller in x and {y:.4g} times in y: "
                "coarse views of the slide (overview, tissue) may be off by that much"
            )
    return warnings


def _choose(found: list[Candidate], nominal: list[Candidate], name: str) -> Candidate:
    if found and found[0].source == SHEET and not _plausible(found[0]):
        raise _implausible(found[0], name)
    best = next((candidate for candidate in found if _plausible(candidate)), None)
    told = [candidate for candidate in found if not _is_tags(candidate)]
    if best is None and not told:
        best = next((candidate for candidate in nominal if _plausible(candidate)), None)
    if best is None and (found or nominal):
        raise _implausible((told or found or nominal)[0], name)
    if best is None:
        raise SlideError(f"{name}: the file states no resolution (µm per pixel) and no objective power", mend=_MEND)
    if max(best.x, best.y) / min(best.x, best.y) - 1 > MAX_ANISOTROPY:
        raise SlideError(
            f"{name}: {best.source} says {best.x:g} µm per pixel in x and {best.y:g} in y, more than 5 % apart",
            mend=_MEND,
        )
    return best


def _implausible(candidate: Candidate, name: str) -> SlideError:
    return SlideError(f"{name}: {candidate.source} says {_text(candidate)} µm per pixel, {_outside()}", mend=_MEND)


def _conflicts(best: Candidate, found: list[Candidate]) -> list[str]:
    texts = []
    for other in found:
        if _plausible(other) and _apart(best, other) > MAX_CONFLICT:
            texts.append(f"{other.source} says {_text(other)}, {best.source} {_text(best)} µm per pixel")
        # A tag of 72 or 96 dpi is the writer's placeholder and contradicts nobody.
        elif not _plausible(other) and not _is_tags(other):
            texts.append(f"{other.source} says {_text(other)} ({_outside()}), {best.source} {_text(best)} µm per pixel")
    return texts


def _power_conflicts(best: Candidate, nominal: list[Candidate]) -> list[str]:
    return [
        f"{other.source} says about {_text(other)}, {best.source} {_text(best)} µm per pixel"
        for other in nominal
        if _apart(best, other) > MAX_POWER_CONFLICT
    ]


def _is_tags(candidate: Candidate) -> bool:
    return candidate.source.startswith(TIFF)


def _plausible(candidate: Candidate) -> bool:
    return all(PLAUSIBLE[0] <= value <= PLAUSIBLE[1] for value in (candidate.x, candidate.y))


def _apart(one: Candidate, other: Candidate) -> float:
    return max(abs(math.log(one.x / other.x)), abs(math.log(one.y / other.y)))


def _outside() -> str:
    return f"outside {PLAUSIBLE[0]:g} to {PLAUSIBLE[1]:g}"


def _text(candidate: Candidate) -> str:
    return f"{candidate.x:.4g}" if candidate.x == candidate.y else f"{candidate.x:.4g} × {candidate.y:.4g}"
