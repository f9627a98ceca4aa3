"""`histill doctor`: what a slide is, what the run would do with it, and the mend of every problem and warning."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from histill import isolation
from histill.errors import HistillError
from histill.magnifications import MAGNIFICATIONS
from histill.slides import quality, resolution, tile
from histill.slides.examine import Examination, area_mm2, examine, open_as_config, sheet_mpp
from histill.slides.grid import make_grid
from histill.slides.inspect import describe, geometry
from histill.slides.readers import SlideReader

AGAIN = "run histill doctor again"
_LOOK = "look at it: histill view SLIDE --out picture.png"
_SHEET = "check the scanner's record, and give the right µm per pixel in the column mpp of the slide sheet"
_MENDS = (  # words of a warning -> its mend; any other is to be looked at
    ("resolutions disagree", _SHEET),
    ("resolution taken from", _SHEET),
    ("sources of its resolution", _SHEET),
    ("coarser than", "use a finer scan; or go on, knowing that these tiles hold no finer detail than the scan"),
    ("read with", f"nothing if the picture is whole; else convert the file to a pyramidal TIFF. {_LOOK}"),
    (
        "times smaller in x",
        f"write the pyramid again (vips tiffsave --pyramid --tile) if the outlines are off. {_LOOK}",
    ),
    ("tiles kept at 10x", f"nothing if there is no more tissue; else change the config key tiles. {_LOOK}"),
    ("is soft", f"scan the slide again if its tiles are needed sharp. {_LOOK}"),
    ("stain", f"check that the slide is stained with H&E. {_LOOK}"),
    ("haematoxylin", f"check that the slide is stained with H&E. {_LOOK}"),
)


@dataclass
class Warned:
    """A warning and what to do about it."""

    text: str
    mend: str


@dataclass
class Finding:
    """One slide's examination.

    Attributes
    ----------
    path
        The slide.
    ok
        Whether it would give tiles.
    light
        Traffic light of its quality (green, amber, red); None where it was not judged.
    found, planned
        Plain lines.
    warnings
        Each with its mend.
    problem, mend
        Why it would be left out, and what to do about it; None if it would not.
    """

    path: str
    ok: bool = False
    light: str | None = None
    found: list[str] = field(default_factory=list)
    planned: list[str] = field(default_factory=list)
    warnings: list[Warned] = field(default_factory=list)
    problem: str | None = None
    mend: str | None = None


def doctor(paths: list[Path], *, mpp: float | None, config: dict[str, Any]) -> list[Finding]:
    """Examine slides as a run with this config would, writing nothing. A bad slide is a finding, never an error.

    Each slide is examined in a process of its own, within the limits of `slides`: one that hangs or crashes its reader
    is a finding as well, and the next ones are examined.

    Parameters
    ----------
    mpp
        µm per pixel of all of them. None: as the slide sheet of the config says, if it names one.
    config
        Complete config; read: `slides`, `tissue`, `tiles`, and the slide sheet.

    Raises
    ------
    ConfigError
        If the config names sheets and they have problems.
    """
    findings = []
    sheet = sheet_mpp(config) if mpp is None else {}
    for path in paths:
        work = partial(_examine, Path(path), sheet.get(Path(os.path.realpath(path)), mpp), config)
        try:
            finding = isolation.call(work, **isolation.limits(config), what=f"{path}: examining it", again=AGAIN)
        except HistillError as error:  # the limits; what the slide itself raises is in the finding
            finding = Finding(str(path), problem=error.message, mend=error.mend)
        findings.append(finding)
    return findings


def render(findings: list[Finding]) -> str:
    """The findings as text."""
    blocks = []
    for finding in findings:
        light = f", quality {finding.light}" if finding.light else ""
        lines = [f"{finding.path}: {'ok' if finding.ok else 'PROBLEM'}{light}"]
        lines += [f"  found    {line}" for line in finding.found]
        lines += [f"  plan     {line}" for line in finding.planned]
        for warned in finding.warnings:
            lines += [f"  warning  {warned.text}", f"  mend     {warned.mend}"]
        if finding.problem:
            lines.append(f"  problem  {finding.problem}")
        if finding.mend:
            lines.append(f"  mend     {finding.mend}")
        blocks.append("\n".join(lines))
    bad = sum(not finding.ok for finding in findings)
    blocks.append(f"{len(findings)} slide{'s' * (len(findings) != 1)}: {len(findings) - bad} ok, {bad} with problems")
    return "\n\n".join(blocks)


def _examine(path: Path, mpp: float | None, config: dict[str, Any]) -> Finding:
    finding = Finding(str(path))
    try:
        with open_as_config(path, config) as reader:
            finding.found = _of_file(reader, mpp)
            finding.warnings = _warned(reader.refusals, path)
            facts, warnings = describe(reader, override=mpp, config=config)
            finding.found += _of_resolution(facts)
            finding.warnings = _warned(warnings, path)
            _plan(finding, examine(reader, facts, config), facts, config)
    except HistillError as error:
        finding.problem, finding.mend = error.message, error.mend
    except Exception as error:  # examined are broken files: whatever a decoder raises is the finding
        finding.problem = f"{type(error).__name__}: {error}"
        finding.mend = "copy or download the file again; if it is sound, report this message"
    if finding.problem and os.path.isdir(path):
        finding.mend = f"name a slide's main file; or list the slides of a folder: histill scan {path}"
    return finding


def _of_file(reader: SlideReader, mpp: float | None) -> list[str]:
    levels = ", ".join(f"{level.width} × {level.height}" for level in reader.levels)
    count = len(reader.levels)
    lines = [f"{reader.vendor}, read with {reader.name}", f"{count} level{'s' * (count != 1)}: {levels}"]
    for candidate in resolution.collect(reader.properties, reader.vendor, mpp, reader.dimensions):
        value = f"{candidate.x:.4g}" if candidate.x == candidate.y else f"{candidate.x:.4g} × {candidate.y:.4g}"
        about = "about " if candidate.source.startswith(resolution.POWER) else ""
        lines.append(f"resolution, {candidate.source}: {about}{value} µm per pixel")
    return lines


def _of_resolution(facts: dict[str, Any]) -> list[str]:
    (width, height), (x, y) = geometry(facts)
    power = facts["objective_power"]
    lines = [
        f"in use: {x:.4g} × {y:.4g} µm per pixel, from {facts['mpp']['source']}; "
        f"the slide is {width * x / 1000:.3g} × {height * y / 1000:.3g} mm",
        f"objective power {f'{power:g}' if power else 'not stated'}",
    ]
    if facts.get("icc_profile"):
        lines.append(f"ICC profile: {facts['icc_profile']}")
    return lines


def _plan(finding: Finding, seen: Examination, facts: dict[str, Any], config: dict[str, Any]) -> None:
    dimensions, mpp = geometry(facts)
    options = config["tiles"]
    count = len(seen.polygons)
    regions = f"{count} region{'s' * (count != 1)}"
    finding.planned.append(
        f"tissue ({config['tissue']['method']}): {area_mm2(seen.polygons, mpp):.3g} mm² in {regions}"
    )
    finding.warnings += _warned(seen.warnings, finding.path)
    if seen.reason:
        finding.problem = seen.reason
        finding.mend = "leave the slide out, or draw its tissue (tissue.geojson) after the stage tissue"
        return
    counts = tile.count(seen.columns)
    for level in MAGNIFICATIONS:
        flags = ", ".join(f"{counts[f'{flag}_{level}']} {flag}" for flag in quality.FLAGS)
        kept = f"{counts[f'kept_{level}']} of {counts[f'tiles_{level}']} tiles on tissue kept"
        finding.planned.append(f"{level}: {kept}; flagged: {flags}")
    excluded = ", ".join(options["exclude"]) or "no flag"
    finding.planned.append(f"left out: tiles with under {options['min_tissue']:g} tissue, or flagged {excluded}")
    whole = len(make_grid(dimensions, mpp, options["size"], options["overlap"]).parents)
    finding.planned.append(f"the grid of the whole slide has {whole} full 10x tiles of {options['size']} px")
    _judge(finding, seen.quality)
    finding.ok = counts["kept_10x"] > 0
    if not finding.ok:
        finding.problem = tile.why_empty(seen.columns, dimensions, mpp, options)
        finding.mend = tile.MEND_EMPTY


def _judge(finding: Finding, judged: dict[str, Any]) -> None:
    finding.light = judged["light"]
    finding.warnings += _warned([f"quality {finding.light}: {reason}" for reason in judged["reasons"]], finding.path)
    sharp = judged["focus"]["median"]
    if sharp is not None:
        finding.planned.append(f"sharpness {sharp:.2f} (median tile at 10x; below 1 the slide is soft)")
    if judged["stain"] and judged["stain"]["macenko"]:
        finding.planned.append("stain: haematoxylin and eosin told apart (Macenko)")


def _warned(texts: list[str], path: str | Path) -> list[Warned]:
    return [Warned(text, _mend(text).replace("SLIDE", str(path))) for text in texts]


def _mend(text: str) -> str:
    return next((mend for words, mend in _MENDS if words in text), _LOOK)
