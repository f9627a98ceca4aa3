"""`histill doctor`: what a slide is, what the run would do with it, and the mend of every problem."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from histill.errors import HistillError
from histill.slides import quality, segment, tile
from histill.slides.grid import make_grid
from histill.slides.inspect import describe, geometry
from histill.slides.readers import open_slide


@dataclass
class Finding:
    """One slide's examination.

    Attributes
    ----------
    path
        The slide.
    ok
        Whether it would give tiles.
    found, planned, warnings
        Plain lines.
    problem, mend
        Why it would be left out, and what to do about it; None if it would not.
    """

    path: Path
    ok: bool = False
    found: list[str] = field(default_factory=list)
    planned: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    problem: str | None = None
    mend: str | None = None


def doctor(paths: list[Path], *, mpp: float | None, config: dict[str, Any]) -> list[Finding]:
    """Examine slides as a run with this config would, writing nothing. A bad slide is a finding, never an error.

    Parameters
    ----------
    mpp
        µm per pixel, as the column of the slide sheet would say it.
    config
        Complete config; read: `slides`, `tissue`, `tiles`.
    """
    findings = []
    for path in paths:
        finding = Finding(Path(path))
        try:
            _examine(finding, mpp, config)
        except HistillError as error:
            finding.problem, finding.mend = error.message, error.mend
        except Exception as error:  # examined are broken files: whatever a decoder raises is the finding
            finding.problem = f"{type(error).__name__}: {error}"
            finding.mend = "copy or download the file again; if it is sound, report this message"
        findings.append(finding)
    return findings


def render(findings: list[Finding]) -> str:
    """The findings as text."""
    blocks = []
    for finding in findings:
        lines = [f"{finding.path}: {'ok' if finding.ok else 'PROBLEM'}"]
        lines += [f"  found    {line}" for line in finding.found]
        lines += [f"  plan     {line}" for line in finding.planned]
        lines += [f"  warning  {line}" for line in finding.warnings]
        if finding.problem:
            lines.append(f"  problem  {finding.problem}")
        if finding.mend:
            lines.append(f"  mend     {finding.mend}")
        blocks.append("\n".join(lines))
    bad = sum(not finding.ok for finding in findings)
    blocks.append(f"{len(findings)} slides: {len(findings) - bad} ok, {bad} with problems")
    return "\n\n".join(blocks)


def _examine(finding: Finding, mpp: float | None, config: dict[str, Any]) -> None:
    with open_slide(finding.path, config["slides"]["reader"]) as reader:
        levels = ", ".join(f"{level.width} × {level.height}" for level in reader.levels)
        finding.found.append(f"{reader.vendor}, read with {reader.name}")
        finding.found.append(f"{len(reader.levels)} levels: {levels}")
        facts, finding.warnings = describe(reader, override=mpp, config=config)
        resolution = facts["mpp"]
        finding.found.append(
            f"{resolution['x']:.4g} × {resolution['y']:.4g} µm per pixel, from {resolution['source']}; "
            f"objective power {facts['objective_power'] or 'not stated'}"
        )
        dimensions, scale = geometry(facts)
        found = segment.find(reader, scale, config["tissue"])
        polygons, options = found.regions.polygons, config["tiles"]
        whole = len(make_grid(dimensions, scale, options["size"], options["overlap"]).parents)
        finding.planned.append(f"{found.regions.area_mm2(scale):.3g} mm² of tissue in {len(polygons)} regions")
        if found.reason:
            finding.problem = found.reason
            finding.mend = "leave the slide out, or draw its tissue (tissue.geojson) after the stage tissue"
            return
        columns = tile.make_table(reader, scale, polygons, found.overview, options)
    counts = tile.count(columns)
    for name in ("10x", "20x"):
        flags = ", ".join(f"{counts[f'{flag}_{name}']} {flag}" for flag in quality.FLAGS)
        finding.planned.append(
            f"{name}: {counts[f'kept_{name}']} of {counts[f'tiles_{name}']} tiles on tissue kept; flagged: {flags}"
        )
    finding.planned.append(f"the grid of the whole slide has {whole} full 10x tiles of {options['size']} px")
    finding.ok = counts["kept_10x"] > 0
    if not finding.ok:
        finding.problem = tile.why_empty(columns, dimensions, scale, options)
        finding.mend = tile.MEND_EMPTY
