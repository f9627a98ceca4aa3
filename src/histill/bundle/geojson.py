"""The tiles as QuPath reads them: one GeoJSON object a tile, with its values as measurements."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

from histill.bundle.maps import ATTENTION, SlideMaps, Tiles, spelled
from histill.provenance import atomic_file

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "histill.tiles")


def write(path: Path, slide: str, maps: SlideMaps) -> None:
    """Write `tiles.geojson`: every tile that was encoded, as a polygon in level-0 pixels.

    Measurements are those of the maps (`Attention: tumour`, ...), the fraction of tissue and the magnification. The
    top tiles of each map of attention are classified (`Top 20x tumour`), in the colour of their subspace. Ids follow
    from slide and tile, so that importing a second file of the same slide updates the objects.

    Source: https://qupath.readthedocs.io/en/stable/docs/advanced/exporting_annotations.html#geojson
    """
    features = [feature for tiles in maps.levels for feature in _features(slide, tiles)]
    with atomic_file(path) as part:
        part.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")


def _features(slide: str, tiles: Tiles) -> list[dict[str, Any]]:
    classes = _classes(tiles)
    found = []
    for place, (row, box) in enumerate(zip(tiles.rows.tolist(), tiles.boxes.tolist(), strict=True)):
        measured = {one.title: round(float(one.values[place]), 5) for one in tiles.maps}
        measured |= {"Tissue": round(float(tiles.tissue[place]), 4), "Magnification": int(tiles.level[:-1])}
        properties = {
            "objectType": "tile",
            "name": f"{tiles.level} tile {row}",
            "measurements": measured,
        }
        if place in classes:
            properties["classification"] = classes[place]
        found.append(
            {
                "type": "Feature",
                "id": str(uuid.uuid5(_NAMESPACE, f"{slide}/{row}")),
                "geometry": {"type": "Polygon", "coordinates": [_ring(*box)]},
                "properties": properties,
            }
        )
    return found


def _classes(tiles: Tiles) -> dict[int, dict[str, Any]]:
    """Position of a tile -> its class; of several, that of the first map."""
    classes: dict[int, dict[str, Any]] = {}
    for one in tiles.maps:
        if one.kind == ATTENTION:
            name = f"Top {tiles.level}" + ("" if one.subspace is None else f" {spelled(one.subspace)}")
            for place in tiles.top(one).tolist():
                classes.setdefault(place, {"name": name, "color": list(one.colour)})
    return classes


def _ring(x: int, y: int, width: int, height: int) -> list[list[int]]:
    return [[x, y], [x + width, y], [x + width, y + height], [x, y + height], [x, y]]
