"""Tissue outlines: mask to polygons, polygons to GeoJSON that QuPath reads and writes, and back to masks.

A file that histill wrote carries the digest of its features in the member `histill`; a file whose digest differs, or
that has none (QuPath drops it), was edited by a person and is kept.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import shapely
from shapely.geometry import MultiPolygon, Polygon, shape

from histill.errors import SlideError
from histill.provenance import digest, write_json

GENERATOR = "histill"
_SIMPLIFY = 0.5  # pixels of the overview: half of what the mask resolves
_SHIFT = 4  # fractional bits of cv2.fillPoly
QUARTERS = 4  # what `to_mask` gives a pixel that lies wholly in tissue
_MOSTLY_INSIDE = 0.8  # of the drawn area; people draw a little beyond the slide, hardly a fifth
_NAMED = 5  # features that a message lists
_OTHER_OBJECTS = ("detection", "cell", "tile", "tma_core", "root")  # QuPath's, beside annotations
_MEND = "mend it in QuPath (polygons only, coordinates in level-0 pixels), or delete it to have tissue found again"


@dataclass(frozen=True)
class Regions:
    """Tissue of one slide.

    Attributes
    ----------
    polygons
        Disjoint, with their holes, in level-0 pixels.
    edited
        Whether a person made or changed them.
    warnings
        What had to be mended on reading.
    """

    polygons: list[Polygon]
    edited: bool = False
    warnings: tuple[str, ...] = ()

    def area_mm2(self, mpp: tuple[float, float]) -> float:
        """Total area, holes left out."""
        return sum(polygon.area for polygon in self.polygons) * mpp[0] * mpp[1] / 1e6


def from_mask(mask: np.ndarray, dimensions: tuple[int, int]) -> list[Polygon]:
    """Outlines of a mask that covers the whole slide.

    Parameters
    ----------
    mask
        bool [H, W].
    dimensions
        (width, height) of the slide in level-0 pixels.

    Returns
    -------
    Valid polygons with integer coordinates, largest first.
    """
    contours, tree = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    parts = []
    for index, contour in enumerate(contours):
        if tree[0][index][3] >= 0:
            continue
        holes, child = [], tree[0][index][2]
        while child >= 0:
            holes.append(contours[child])
            child = tree[0][child][0]
        parts.append(_outline(contour, holes))
    if not parts:
        return []
    # Contours run through the middle of the mask's own pixels: half a pixel more, on both sides of every edge.
    grown = shapely.buffer(shapely.union_all(parts), 0.5, join_style="mitre", mitre_limit=1.5)
    grown = shapely.simplify(grown, _SIMPLIFY)
    scale = np.array([dimensions[0] / mask.shape[1], dimensions[1] / mask.shape[0]])
    scaled = shapely.transform(grown, lambda points: (points + 0.5) * scale)
    return _tidy(scaled, dimensions)


def to_mask(polygons: list[Polygon], dimensions: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Rasterise polygons over the whole slide.

    Drawn twice as fine, where an outline fills every pixel that it touches: the mask's edge lies a quarter of a pixel
    outside the polygon's on average.

    Parameters
    ----------
    size
        (height, width) of the mask.

    Returns
    -------
    uint8 [H, W], quarters of each pixel in tissue: 0 to 4.
    """
    fine = np.zeros((2 * size[0], 2 * size[1]), np.uint8)
    scale = np.array([fine.shape[1] / dimensions[0], fine.shape[0] / dimensions[1]])
    for polygon in polygons:
        rings = [polygon.exterior, *polygon.interiors]
        points = [np.rint((np.asarray(ring.coords) * scale - 0.5) * (1 << _SHIFT)).astype(np.int32) for ring in rings]
        cv2.fillPoly(fine, points, QUARTERS, shift=_SHIFT)
    return cv2.resize(fine, size[::-1], interpolation=cv2.INTER_AREA)


def write(path: str | Path, polygons: list[Polygon]) -> None:
    """Write a FeatureCollection of QuPath annotations of class Tissue, and the digest by which edits are known."""
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": _rings(polygon)},
            "properties": {"objectType": "annotation", "classification": {"name": "Tissue", "color": [46, 160, 67]}},
        }
        for polygon in polygons
    ]
    write_json(path, {"type": "FeatureCollection", GENERATOR: {"digest": digest(features)}, "features": features})


def read(path: str | Path, dimensions: tuple[int, int]) -> Regions:
    """Read tissue, checked and clipped to the slide.

    A FeatureCollection, a single feature or a list of features. Annotations of any class are tissue, but for QuPath's
    class `Ignore*`, which is cut out. Points, lines, and QuPath's detections, cells, tiles and cores of a TMA grid are
    left out with a warning.

    Raises
    ------
    SlideError
        Naming the file and the feature, if it is no GeoJSON, holds no polygons where it holds something, or lies wholly
        outside the slide.
    """
    collection = _load(path)
    features = features_of(collection, path)
    tissue, ignored, left_out, warnings = [], [], [], []
    for number, feature in enumerate(features, 1):
        why = _no_outline(feature)
        if why:
            left_out.append(f"feature {number}: its geometry is {why}")
            continue
        polygon = _polygon(feature, f"{path}: feature {number}")
        if not polygon.is_valid:
            warnings.append(f"tissue.geojson: feature {number}: {shapely.is_valid_reason(polygon)}; repaired")
            polygon = _polygons_of(shapely.make_valid(polygon))
        (ignored if _class_name(feature).casefold().startswith("ignore") else tissue).append(polygon)
    if left_out and not tissue:
        raise SlideError(
            f"{path}: holds no outline of tissue: {_some(left_out)}, not Polygon or MultiPolygon", mend=_MEND
        )
    if left_out:
        warnings.append(f"tissue.geojson: {len(left_out)} features are no outlines and left out: {_some(left_out)}")
    merged = shapely.difference(shapely.union_all(tissue), shapely.union_all(ignored))
    polygons = _tidy(merged, dimensions)
    if not merged.is_empty and not polygons:
        raise SlideError(
            f"{path}: all its polygons lie outside the slide of {dimensions[0]} × {dimensions[1]} pixels", mend=_MEND
        )
    kept = sum(polygon.area for polygon in polygons) / merged.area if polygons else 1.0
    if kept < _MOSTLY_INSIDE:
        warnings.append(
            f"tissue.geojson: {1 - kept:.0%} of its area lies outside the slide of {dimensions[0]} × {dimensions[1]} "
            "pixels and was cut off: is it drawn for this slide, in pixels of level 0?"
        )
    made = collection.get(GENERATOR) if isinstance(collection, dict) else None
    edited = not isinstance(made, dict) or made.get("digest") != digest(features)
    return Regions(polygons, edited, tuple(warnings))


def features_of(collection: Any, path: str | Path) -> list[Any]:
    """Features of a FeatureCollection, a single feature or a list of features (all of which QuPath writes)."""
    if isinstance(collection, list):
        return collection
    if isinstance(collection, dict) and collection.get("type") == "Feature":
        return [collection]
    features = collection.get("features") if isinstance(collection, dict) else None
    if isinstance(features, list):
        return features
    raise SlideError(f"{path}: is no GeoJSON FeatureCollection", mend=_MEND)


def is_edited(path: str | Path) -> bool:
    """Whether `path` exists and is not what histill last wrote there (unreadable files included)."""
    if not Path(path).exists():
        return False
    try:
        collection = _load(path)
        made = collection[GENERATOR]["digest"]
        return made != digest(collection["features"])
    except (SlideError, KeyError, TypeError, ValueError):
        return True


def _outline(contour: np.ndarray, holes: list[np.ndarray]) -> Any:
    """A contour and its holes as a valid geometry; one or two pixels wide parts become lines and points."""
    if len(contour) < 3:
        points = contour[:, 0].astype(float)
        return shapely.Point(points[0]) if len(points) == 1 else shapely.LineString(points)
    polygon = Polygon(contour[:, 0], [hole[:, 0] for hole in holes if len(hole) > 2])
    return polygon if polygon.is_valid else shapely.make_valid(polygon)


def _tidy(geometry: Any, dimensions: tuple[int, int]) -> list[Polygon]:
    """Polygons inside the slide on whole pixels, largest first."""
    clipped = shapely.intersection(geometry, shapely.box(0, 0, *dimensions))
    parts = shapely.get_parts(shapely.set_precision(clipped, 1))
    polygons = [part for part in parts if isinstance(part, Polygon) and part.area > 0]
    return sorted(polygons, key=lambda polygon: (-polygon.area, polygon.bounds))


def _rings(polygon: Polygon) -> list[list[list[int]]]:
    rings = [polygon.exterior, *polygon.interiors]
    return [np.rint(np.asarray(ring.coords)).astype(int).tolist() for ring in rings]


def _load(path: str | Path) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SlideError(f"{path}: cannot be read: {error.strerror}", mend=_MEND) from None
    except (ValueError, RecursionError) as error:
        raise SlideError(f"{path}: is not valid JSON: {error}", mend=_MEND) from None


def _polygon(feature: Any, at: str) -> Polygon | MultiPolygon:
    geometry = feature.get("geometry") if isinstance(feature, dict) else None
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind not in ("Polygon", "MultiPolygon"):
        named = str(kind or "missing").encode(errors="replace").decode()  # half a character fits into no receipt
        raise SlideError(f"{at}: its geometry is {named}, not Polygon or MultiPolygon", mend=_MEND)
    try:
        polygon = shapely.force_2d(shape(geometry))
    except (ArithmeticError, LookupError, ValueError, TypeError, AttributeError, shapely.errors.ShapelyError) as error:
        raise SlideError(f"{at}: its coordinates make no polygon: {error}", mend=_MEND) from None
    if polygon.is_empty or not np.isfinite(shapely.get_coordinates(polygon)).all():
        raise SlideError(f"{at}: its coordinates are empty or not finite", mend=_MEND)
    return polygon


def _no_outline(feature: Any) -> str | None:
    """What a feature is in place of an outline drawn by a person; None if it is one, or nothing known."""
    if not isinstance(feature, dict):
        return None
    geometry, properties = feature.get("geometry"), feature.get("properties")
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind in ("Point", "MultiPoint", "LineString", "MultiLineString"):
        return kind
    made = properties.get("objectType", properties.get("object_type")) if isinstance(properties, dict) else None
    if made in _OTHER_OBJECTS:
        return f"that of a {made}"
    old = feature.get("id")  # QuPath 0.2 told the kind of an object by its id
    known = {f"Path{name.capitalize()}Object": name for name in _OTHER_OBJECTS}
    return f"that of a {known[old]}" if isinstance(old, str) and old in known else None


def _polygons_of(geometry: Any) -> MultiPolygon:
    """The polygons of a geometry; repair may leave lines and points beside them."""
    return MultiPolygon([part for part in shapely.get_parts(geometry) if isinstance(part, Polygon)])


def _class_name(feature: Any) -> str:
    properties = feature.get("properties")
    label = properties.get("classification") if isinstance(properties, dict) else None
    if isinstance(label, dict):
        names = label.get("names")  # of derived classes, since QuPath 0.4
        label = label.get("name") or (names[0] if isinstance(names, list) and names else "")
    return label if isinstance(label, str) else ""


def _some(texts: list[str]) -> str:
    return "; ".join(texts[:_NAMED]) + (f" and {len(texts) - _NAMED} more" if len(texts) > _NAMED else "")
