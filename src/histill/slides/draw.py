"""A picture of what was found on a slide: tissue outlines, the 10x grid, flagged tiles."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from shapely.geometry import shape

from histill.slides import regions, table

TISSUE_COLOUR = (16, 122, 52)
KEPT_COLOUR = (35, 95, 200)
FLAG_COLOURS = {"pen": (200, 0, 200), "blur": (240, 140, 0), "black": (20, 20, 20), "white": (0, 170, 190)}
_TINT = 0.35


def draw_overview(
    overview_rgb: np.ndarray, geojson: Any, tiles_table: Any, slide_json: dict[str, Any], max_px: int = 900
) -> np.ndarray:
    """Overview with tissue outlines (green), kept 10x tiles (blue frames) and flagged 10x tiles (tinted).

    Parameters
    ----------
    overview_rgb
        uint8 [H, W, 3] of the whole slide.
    geojson
        Content of tissue.geojson; features other than polygons are left out.
    tiles_table
        Arrow table or columns (`histill.slides.table.read`) of tiles.parquet, or None.
    slide_json
        Content of slide.json; `width` and `height` are read.
    max_px
        Longer side of the picture at most; it is never enlarged.

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
        _draw_tiles(picture, columns, scale)
    for feature in regions.features_of(geojson, "tissue.geojson"):
        if feature["geometry"]["type"] in ("Polygon", "MultiPolygon"):
            _draw_outline(picture, shape(feature["geometry"]), scale)
    return picture


def _draw_tiles(picture: np.ndarray, columns: table.Columns, scale: np.ndarray) -> None:
    coarse = columns["magnification"] == "10x"
    low = np.stack([columns["x"], columns["y"]], axis=1)[coarse]
    high = low + np.stack([columns["width"], columns["height"]], axis=1)[coarse]
    corners = np.rint(np.concatenate([low * scale, high * scale], axis=1)).astype(int)
    flags = {flag: columns[flag][coarse] for flag in FLAG_COLOURS}
    keep = columns["keep"][coarse]
    for row, (left, top, right, bottom) in enumerate(corners.tolist()):
        flag = next((name for name, values in flags.items() if values[row]), None)
        if flag is not None:
            inside = picture[top:bottom, left:right]
            inside[:] = np.rint(inside * (1 - _TINT) + np.array(FLAG_COLOURS[flag]) * _TINT)
        if keep[row]:
            cv2.rectangle(picture, (left, top), (right, bottom), KEPT_COLOUR, 1)


def _draw_outline(picture: np.ndarray, geometry: Any, scale: np.ndarray) -> None:
    thickness = 2 if max(picture.shape[:2]) >= 500 else 1
    for polygon in getattr(geometry, "geoms", [geometry]):
        for ring in (polygon.exterior, *polygon.interiors):
            points = np.rint(np.asarray(ring.coords)[:, :2] * scale).astype(np.int32)
            cv2.polylines(picture, [points], True, TISSUE_COLOUR, thickness, cv2.LINE_AA)
