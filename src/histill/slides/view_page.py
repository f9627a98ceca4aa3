"""The page of `histill view`: title, traffic light, the drawn slide, scale bar, and a legend with counts."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from shapely.geometry import mapping

from histill.magnifications import MAGNIFICATIONS
from histill.slides.draw import (
    BOTH,
    FLAG_COLOURS,
    KEPT_COLOUR,
    MIN_CELL,
    THIN,
    TINT,
    TISSUE_COLOUR,
    cell_px,
    draw_overview,
)
from histill.slides.examine import area_mm2
from histill.slides.inspect import geometry

if TYPE_CHECKING:
    from histill.slides.view import Scene

LIGHT_COLOURS = {"green": (0, 158, 115), "amber": (230, 159, 0), "red": (213, 94, 0)}
_LEGEND, _MARGIN, _LEAST_WIDTH = 400, 26, 640
_INK, _GREY, _PALE = (25, 25, 25), (105, 105, 105), (205, 205, 205)
_SWATCH = 22
_ROW, _COLUMN = 29, 72
_MOST_REMARKS = 4


def draw_page(scene: Scene, magnification: str, excluded: list[str]) -> np.ndarray:
    """The whole page.

    Parameters
    ----------
    scene
        What was found on the slide, and its picture.
    magnification
        `10x`, `20x` or `both`.
    excluded
        Flags whose tiles are left out (config `tiles.exclude`).

    Returns
    -------
    uint8 RGB [h, w, 3].
    """
    features = {"features": [{"geometry": mapping(polygon)} for polygon in scene.polygons]}
    size = max(scene.picture.shape[:2])
    panel = draw_overview(scene.picture, features, scene.columns, scene.facts, size, magnification)
    height, width = panel.shape[:2]
    page_width = max(width, _LEAST_WIDTH) + _LEGEND + 3 * _MARGIN
    lines = _remarks(scene, page_width - 2 * _MARGIN)
    top = 92 + 20 * len(lines) + _MARGIN
    legend = _legend(scene, magnification, excluded, width)
    page_height = top + max(height + 64, legend.height) + _MARGIN
    page = Image.new("RGB", (page_width, page_height), "white")
    draw = ImageDraw.Draw(page)
    _title(draw, scene, page_width)
    for index, line in enumerate(lines):
        draw.text((_MARGIN, 92 + 20 * index), line, _GREY, _font(14))
    page.paste(Image.fromarray(panel), (_MARGIN, top))
    draw.rectangle((_MARGIN - 1, top - 1, _MARGIN + width, top + height), outline=_PALE)
    _scale_bar(draw, scene, width, top + height + 16)
    page.paste(legend, (page_width - _LEGEND - _MARGIN, top - 4))
    return np.asarray(page)


def _title(draw: ImageDraw.ImageDraw, scene: Scene, page_width: int) -> None:
    facts = scene.facts
    (width, height), (x, y) = geometry(facts)
    power = facts.get("objective_power")
    same = f"{x:.4g}" == f"{y:.4g}"
    about = [
        f"{width:,} × {height:,} px",
        f"{width * x / 1000:.3g} × {height * y / 1000:.3g} mm",
        f"{x:.4g} µm/px from {facts['mpp']['source']}"
        if same
        else f"{x:.4g} × {y:.4g} µm/px from {facts['mpp']['source']}",
        f"objective {power:g}×" if power else "objective not stated",
        f"{facts['vendor']}, {facts['reader']}",
        scene.note,
    ]
    room = page_width - 2 * _MARGIN
    light = scene.quality["light"] if scene.quality else None
    if light:
        text = f"quality: {light}"
        long = draw.textlength(text, _font(17, bold=True))
        left = page_width - _MARGIN - long
        draw.text((left, 31), text, _INK, _font(17, bold=True))
        draw.ellipse((left - 32, 28, left - 8, 52), fill=LIGHT_COLOURS[light], outline=_INK)
        room -= long + 60
    draw.text((_MARGIN, 24), _fit(draw, scene.name, room, _font(25, bold=True)), _INK, _font(25, bold=True))
    draw.text((_MARGIN, 62), _fit(draw, "  ·  ".join(about), page_width - 2 * _MARGIN, _font(15)), _INK, _font(15))


def _remarks(scene: Scene, room: int) -> list[str]:
    texts = [*scene.remarks, *(scene.quality["reasons"] if scene.quality else [])]
    draw = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    lines = [_fit(draw, f"– {text}", room, _font(14)) for text in dict.fromkeys(texts)]
    more = len(lines) - _MOST_REMARKS
    return lines if more <= 0 else [*lines[: _MOST_REMARKS - 1], f"– and {more + 1} more: histill doctor tells them"]


def _scale_bar(draw: ImageDraw.ImageDraw, scene: Scene, width: int, y: int) -> None:
    (level0, _), (mpp, _) = geometry(scene.facts)
    px_per_mm = 1000 / mpp * width / level0
    about = max(width / 4, 60) / px_per_mm
    step = 10.0 ** math.floor(math.log10(about))
    length = max(value * step for value in (1, 2, 5) if value * step <= about)
    right = _MARGIN + round(length * px_per_mm)
    draw.rectangle((_MARGIN, y, right, y + 5), fill=_INK)
    label = f"{length:g} mm" if length >= 0.01 else f"{length * 1000:g} µm"
    draw.text((_MARGIN, y + 11), label, _INK, _font(15))


def _legend(scene: Scene, magnification: str, excluded: list[str], width: int) -> Image.Image:
    """Every colour with its meaning, and counts at 10x and 20x."""
    _, mpp = geometry(scene.facts)
    levels = list(MAGNIFICATIONS)
    holes = sum(len(polygon.interiors) for polygon in scene.polygons)
    rows = len(FLAG_COLOURS) + 11
    image = Image.new("RGB", (_LEGEND, rows * _ROW), "white")
    draw = ImageDraw.Draw(image)
    y = _heading(draw, 0, "Tissue")
    count = len(scene.polygons)
    area = f"{area_mm2(scene.polygons, mpp):.3g} mm²"
    _line_swatch(draw, y, [(0, _SWATCH)])
    y = _row(draw, y, f"outline of {count} region{'s' * (count != 1)}", [area])
    _line_swatch(draw, y, [(0, 6), (9, 15), (18, _SWATCH)])
    y = _row(draw, y, "hole (dashed)", [str(holes)])
    y = _heading(draw, y + _ROW // 2, "Tiles", levels)
    if scene.columns is None:
        _row(draw, y, "not tiled yet", [], left=0)
        return image
    counts = {level: _counts(scene.columns, level) for level in levels}
    _frame_swatch(draw, y, magnification)
    y = _row(draw, y, "kept", [f"{counts[level]['keep']:,}" for level in levels])
    y = _row(draw, y, "on tissue", [f"{counts[level]['tiles']:,}" for level in levels])
    draw.text((0, y), "no blue frame: left out; 20x tiles go with their 10x tile", _GREY, _font(13))
    y += _ROW
    if magnification != "10x" and 0 < cell_px(scene.columns, "20x", width / scene.facts["width"]) < MIN_CELL:
        draw.text((0, y), f"20x lines need {MIN_CELL} px a tile: raise --max-px", _GREY, _font(13))
        y += _ROW
    y = _heading(draw, y + _ROW // 2, f"Flagged ({'20x' if magnification == '20x' else '10x'} tiles shown)", levels)
    for flag, colour in FLAG_COLOURS.items():
        numbers = [f"{counts[level][flag]:,}" for level in levels]
        pens = f" ({', '.join(_pens(scene.columns))})" if flag == "pen" and counts["10x"][flag] else ""
        tint = tuple(round(255 * (1 - TINT) + value * TINT) for value in colour)
        draw.rectangle((1, y + 1, _SWATCH - 1, y + _SWATCH - 1), fill=tint, outline=colour, width=3)
        y = _row(draw, y, f"{flag}{pens}, {'left out' if flag in excluded else 'stays'}", numbers)
    return image.crop((0, 0, _LEGEND, min(image.height, y + 4)))


def _counts(columns: dict[str, np.ndarray], level: str) -> dict[str, int]:
    rows = columns["magnification"] == level
    named = {name: int(np.count_nonzero(columns[name][rows])) for name in ("keep", *FLAG_COLOURS)}
    return {"tiles": int(np.count_nonzero(rows)), **named}


def _pens(columns: dict[str, np.ndarray]) -> list[str]:
    rows = (columns["magnification"] == "10x") & columns["pen"].astype(bool)
    return sorted(set(columns["pen_colour"][rows].tolist()) - {""})


def _heading(draw: ImageDraw.ImageDraw, y: int, text: str, columns: list[str] | None = None) -> int:
    draw.text((0, y), text, _INK, _font(16, bold=True))
    for index, column in enumerate(columns or []):
        draw.text((_LEGEND - _COLUMN * (len(columns) - 1 - index), y + 1), column, _GREY, _font(14), anchor="ra")
    draw.line((0, y + 23, _LEGEND, y + 23), fill=_PALE)
    return y + 32


def _row(draw: ImageDraw.ImageDraw, y: int, text: str, numbers: list[Any], left: int = _SWATCH + 11) -> int:
    room = _LEGEND - left - (_COLUMN * len(numbers) if len(numbers) > 1 else 90)
    draw.text((left, y + 2), _fit(draw, text, room, _font(15)), _INK, _font(15))
    for index, number in enumerate(numbers):
        at = _LEGEND - _COLUMN * (len(numbers) - 1 - index)
        draw.text((at, y + 2), number, _GREY if number == "0" else _INK, _font(15), anchor="ra")
    return y + _ROW


def _line_swatch(draw: ImageDraw.ImageDraw, y: int, spans: list[tuple[int, int]]) -> None:
    for left, right in spans:
        draw.line((left, y + 11, right, y + 11), fill=TISSUE_COLOUR, width=3)


def _frame_swatch(draw: ImageDraw.ImageDraw, y: int, magnification: str) -> None:
    middle = _SWATCH // 2
    if magnification == BOTH:
        pale = tuple(round(255 * (1 - THIN) + value * THIN) for value in KEPT_COLOUR)
        draw.line((middle, y + 1, middle, y + _SWATCH - 1), fill=pale)
        draw.line((1, y + middle, _SWATCH - 1, y + middle), fill=pale)
    draw.rectangle((1, y + 1, _SWATCH - 1, y + _SWATCH - 1), outline=KEPT_COLOUR, width=2)


def _fit(draw: ImageDraw.ImageDraw, text: str, room: float, font: ImageFont.FreeTypeFont) -> str:
    """The text, its end replaced by dots where it is longer than the room."""
    text = " ".join(text.split())
    if draw.textlength(text, font) <= room:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if draw.textlength(text[:middle] + "…", font) <= room else (low, middle - 1)
    return text[:low].rstrip() + "…"


def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans as matplotlib ships it: it has µ, × and ², which Pillow's own font lacks."""
    folder = Path(find_spec("matplotlib").submodule_search_locations[0])
    return ImageFont.truetype(folder / "mpl-data/fonts/ttf" / f"DejaVuSans{'-Bold' * bold}.ttf", size)
