"""A picture of what was found on a slide: tissue outlines, holes, the grid, flagged tiles.

The colours are those of Okabe & Ito (Color Universal Design, 2008), told apart with any colour vision; red, which they
avoid, is in the stain already. A flagged tile is tinted and has a border in the pure colour, since a tint mixes with
what lies below.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from shapely.geometry import shape

from histill.slides import regions, table

TISSUE_COLOUR = (0, 128, 96)
KEPT_COLOUR = (0, 84, 147)  # darker than the palette's blue, to part from the blue of folds
FLAG_COLOURS = {
    "pen": (240, 228, 66),
    "blur": (230, 159, 0),
    "fold": (86, 180, 233),
    "blood": (213, 94, 0),
    "black": (20, 20, 20),
    "white": (204, 121, 167),
}
BOTH = "both"
TINT, THIN = 0.35, 0.45  # opacity of tints, and of lines that must not hide the tissue
MIN_CELL = 8  # pixels of a tile's side in the picture below which its lines would hide the tissue
_BORDER_CELL = 14  # pixels from which a flagged tile gets its border
_BOLD_CELL = 36  # pixels from which frames and borders are wider than one pixel
_DASH = 5.0  # pixels
_HALO = (255, 255, 255)
_BOLD_FROM = 500  # pixels of the longer side from which lines are two pixels wide


def draw_overview(
    overview_rgb: np.ndarray,
    geojson: Any,
    tiles_table: Any,
    slide_json: dict[str, Any],
    max_px: int = 900,
    magnification: str = "10x",
) -> np.ndarray:
    """Overview with tissue outlines, kept tiles (frames) and flagged tiles (tinted, with a border).

    Parameters
    ----------
    overview_rgb
        uint8 [H, W, 3] of the whole slide.
    geojson
        Content of tissue.geojson; features other than polygons are left out. Holes are dashed.
    tiles_table
        Arrow table or columns (`histill.slides.table.read`) of tiles.parquet, or None.
    slide_json
        Content of slide.json; `width` and `height` are read.
    max_px
        Longer side of the picture at most; it is never enlarged.
    magnification
        `10x`, `20x`, or `both`: the tiles of 10x, and thin lines that part the kept ones into their four 20x tiles.

    Returns
    -------
    uint8 RGB [h, w, 3]. A tile with several flags has the colour of the first in `FLAG_COLOURS`.
    """
    height, width = overview_rgb.shape[:2]
    shrink = min(1.0, max_px / max(height, width))
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    picture = cv2.resize(overview_rgb, size, interpolation=cv2.INTER_AREA) if shrink < 1 else overview_rgb.copy()
    scale = np.array([size[0] / slide_json["width"], size[1] / slide_json["height"]])
    if tiles_table is not None:
        columns = tiles_table if isinstance(tiles_table, dict) else table.from_arrow(tiles_table)
        _draw_tiles(picture, columns, scale, magnification)
    for feature in regions.features_of(geojson, "tissue.geojson"):
        if feature["geometry"]["type"] in ("Polygon", "MultiPolygon"):
            _draw_outline(picture, shape(feature["geometry"]), scale)
    return picture


def cell_px(columns: table.Columns, magnification: str, scale: float) -> float:
    """Side of a tile in a picture of `scale` pixels a level-0 pixel; 0 without tiles."""
    sides = columns["width"][columns["magnification"] == magnification]
    return float(sides[0]) * scale if len(sides) else 0.0


def _draw_tiles(picture: np.ndarray, columns: table.Columns, scale: np.ndarray, magnification: str) -> None:
    level = "10x" if magnification == BOTH else magnification
    boxes, rows = _boxes(columns, level, scale), columns["magnification"] == level
    flags = np.stack([columns[flag][rows] for flag in FLAG_COLOURS]).astype(bool)
    flag_of = np.where(flags.any(0), flags.argmax(0) + 1, 0)
    _tint(picture, boxes, flag_of)
    cell = cell_px(columns, level, float(scale[0]))
    colours = list(FLAG_COLOURS.values())
    bold = 1 if cell < _BOLD_CELL else 2
    inset = 1 + bold
    for row in np.flatnonzero(flag_of) if cell >= _BORDER_CELL else ():
        left, top, right, bottom = boxes[row].tolist()
        cv2.rectangle(
            picture, (left + inset, top + inset), (right - inset, bottom - inset), colours[flag_of[row] - 1], bold
        )
    if magnification == BOTH and cell_px(columns, "20x", float(scale[0])) >= MIN_CELL:
        fine = columns["keep"][columns["magnification"] == "20x"].astype(bool)
        _draw_frames(picture, _boxes(columns, "20x", scale)[fine], THIN, 1)
    kept = boxes[columns["keep"][rows].astype(bool)]
    if cell >= MIN_CELL:
        _draw_frames(picture, kept, 1.0, 1 + (cell >= _BOLD_CELL) + (cell >= 3 * _BOLD_CELL))
    else:
        _draw_frames(picture, kept, THIN, 1)


def _boxes(columns: table.Columns, level: str, scale: np.ndarray) -> np.ndarray:
    """Left, top, right, bottom of the tiles of a magnification in pixels of the picture, int [N, 4]."""
    rows = columns["magnification"] == level
    low = np.stack([columns["x"], columns["y"]], axis=1)[rows].astype(np.int64)
    high = low + np.stack([columns["width"], columns["height"]], axis=1)[rows]
    return np.rint(np.concatenate([low * scale, high * scale], axis=1)).astype(int)


def _tint(picture: np.ndarray, boxes: np.ndarray, flag_of: np.ndarray) -> None:
    """Blend the colours of flags over their tiles, once where tiles overlap."""
    shown = np.zeros(picture.shape[:2], np.uint8)
    for row in np.flatnonzero(flag_of):
        left, top, right, bottom = boxes[row]
        shown[top:bottom, left:right] = flag_of[row]
    colours = np.array([(0, 0, 0), *FLAG_COLOURS.values()])
    inside = shown > 0
    picture[inside] = np.rint(picture[inside] * (1 - TINT) + colours[shown[inside]] * TINT)


def _draw_frames(picture: np.ndarray, boxes: np.ndarray, opacity: float, width: int) -> None:
    lines = np.zeros(picture.shape[:2], np.uint8)
    for left, top, right, bottom in boxes.tolist():
        cv2.rectangle(lines, (left, top), (right, bottom), 1, width)
    at = lines > 0
    picture[at] = np.rint(picture[at] * (1 - opacity) + np.array(KEPT_COLOUR) * opacity)


def _draw_outline(picture: np.ndarray, geometry: Any, scale: np.ndarray) -> None:
    bold = max(picture.shape[:2]) >= _BOLD_FROM
    for polygon in getattr(geometry, "geoms", [geometry]):
        for number, ring in enumerate((polygon.exterior, *polygon.interiors)):
            points = np.asarray(ring.coords)[:, :2] * scale
            lines = [points] if number == 0 else _dashes(points)
            lines = [np.rint(line).astype(np.int32) for line in lines]
            if bold:  # seen on dark tissue as well
                cv2.polylines(picture, lines, False, _HALO, 4, cv2.LINE_AA)
            cv2.polylines(picture, lines, False, TISSUE_COLOUR, 2 if bold else 1, cv2.LINE_AA)


def _dashes(points: np.ndarray) -> list[np.ndarray]:
    """Every second stretch of `_DASH` pixels along a closed line of points [N, 2]."""
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    stops = np.arange(0.0, along[-1], _DASH)
    ends = np.stack([np.interp(stops, along, points[:, axis]) for axis in (0, 1)], axis=1)
    return [ends[index : index + 2] for index in range(0, len(ends) - 1, 2)] or [points]
