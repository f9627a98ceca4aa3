"""A slide as a run would see it, in memory: what `histill doctor` tells and `histill view` draws."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from shapely.geometry import Polygon

from histill.cohort import sheets
from histill.slides import segment, summary, table, tile
from histill.slides.inspect import geometry
from histill.slides.parts import parts
from histill.slides.readers import SlideReader, check_file, open_slide


@dataclass(frozen=True)
class Examination:
    """What the stages `tissue` and `tiles` would find.

    Attributes
    ----------
    polygons
        Tissue in level-0 pixels, with holes.
    columns
        The tile table.
    quality
        The content of quality.json; None without tissue.
    reason
        Why there is no tissue; None if there is.
    warnings
        What is doubtful about the tissue.
    """

    polygons: list[Polygon]
    columns: table.Columns
    quality: dict[str, Any] | None
    reason: str | None
    warnings: list[str]


def open_as_config(path: str | Path, config: dict[str, Any]) -> SlideReader:
    """Open a slide with the reader and the options of a complete config (`slides`)."""
    options = config["slides"]
    check_file(Path(path))
    parts(path)  # a file that is missing beside the main one is told by its name, not by the reader's riddle
    return open_slide(path, options["reader"], icc=options["icc"], resample=options["resample"])


def examine(reader: SlideReader, facts: dict[str, Any], config: dict[str, Any]) -> Examination:
    """Find tissue, lay the grid and judge the tiles, writing nothing.

    Parameters
    ----------
    facts
        Of `histill.slides.inspect.describe`.
    config
        Complete config; read: `tissue`, `tiles`.
    """
    _, mpp = geometry(facts)
    found = segment.find(reader, mpp, config["tissue"])
    polygons, warnings = found.regions.polygons, list(found.regions.warnings)
    if found.reason:
        return Examination(polygons, table.empty(), None, found.reason, warnings)
    tiles = tile.examine(reader, mpp, polygons, found.overview, config["tiles"])
    quality = summary.summarise(
        tiles.columns,
        tissue_mm2=found.regions.area_mm2(mpp),
        sharpness=tiles.sharpness,
        stain=tiles.stain,
        conflicts=facts["mpp"]["conflicts"],
    )
    return Examination(polygons, tiles.columns, quality, None, warnings)


def sheet_mpp(config: dict[str, Any]) -> dict[Path, float]:
    """Resolved path -> µm per pixel of the slides whose row in the config's slide sheet gives it.

    Raises
    ------
    ConfigError
        If the config names sheets and they have problems.
    """
    if "demo" not in config and not config["cohort"]["slides"]:
        return {}
    slides = sheets.load(config).slides.values()
    return {Path(os.path.realpath(slide.path)): slide.mpp for slide in slides if slide.mpp is not None}


def area_mm2(polygons: list[Polygon], mpp: tuple[float, float]) -> float:
    """Total area of tissue in level-0 pixels, holes left out."""
    return float(np.sum([polygon.area for polygon in polygons])) * mpp[0] * mpp[1] / 1e6
