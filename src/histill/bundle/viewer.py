"""view.html: the slide with its maps, zoomable in any browser; one file that loads nothing from anywhere."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from shapely.geometry import Polygon

from histill.bundle.maps import ATTENTION, SlideMaps, TileMap, Tiles
from histill.bundle.pictures import passed_over, ramp
from histill.bundle.pixels import Pixels
from histill.bundle.raster import raster
from histill.provenance import atomic_file

TEMPLATES = Path(__file__).parent / "templates"
NO_MAPS = "This model has no attention over tiles, so there is nothing to draw over the slide."
_DIGITS = 4
_OUTLINE, _FRAME, _HALO = "#00604a", "#111111", "#ffffff"


def write(
    path: Path,
    facts: dict[str, Any],
    maps: SlideMaps,
    pixels: Pixels,
    polygons: list[Polygon],
    mpp: tuple[float, float],
) -> None:
    """Write the page.

    Parameters
    ----------
    facts
        Content of prediction.json.
    polygons
        Tissue in level-0 pixels, with holes.
    mpp
        (x, y) of level 0.
    """
    from plotly.offline import get_plotlyjs

    # The finest magnification first: its maps show the most.
    levels = maps.levels[::-1]
    shown = [one for tiles in levels for one in tiles.maps]
    layers = list({one.key: {"key": one.key, "title": one.title} for one in shown}.values())
    data = {
        "name": f"{facts['slide']['id']}-view",
        "mpp": mpp[0],
        "order": [tiles.level for tiles in levels],
        "levels": {tiles.level: _level(tiles) for tiles in levels},
        "figure": _figure(pixels, polygons, mpp),
    }
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("view.html.j2").render(
        facts=facts,
        size=_size(facts),
        alerts=facts["warnings"],
        headline=_headline(facts["prediction"]),
        table=_table(facts),
        ood=_apart(facts["out_of_distribution"]),
        tissue=_tissue(facts),
        layers=layers,
        levels=[tiles.level for tiles in levels if tiles.maps],
        notes=maps.notes if layers else [NO_MAPS],
        tops=[_top(tiles, one, pixels) for tiles in levels for one in tiles.maps if one.kind == ATTENTION],
        provenance=_provenance(facts),
        # Inside <script> only `<` could end the element.
        data=json.dumps(data, ensure_ascii=True, allow_nan=False).replace("<", "\\u003c"),
        plotly=get_plotlyjs(),
    )
    with atomic_file(path) as part:
        part.write_text(text, encoding="utf-8")


def _figure(pixels: Pixels, polygons: list[Polygon], mpp: tuple[float, float]) -> dict[str, Any]:
    """The figure: picture, heatmap (filled in by the page), outline of the tissue, frames of the top tiles."""
    import plotly.graph_objects as go

    window = pixels.window
    x, y = _outline(polygons)
    heat = go.Heatmap(
        z=[[0]],
        showscale=False,
        hoverongaps=False,
        zsmooth=False,
        hovertemplate="%{text}<extra></extra>",
        hoverlabel={"align": "left"},
    )
    line = go.Scatter(x=x, y=y, mode="lines", line={"color": _OUTLINE, "width": 1.5}, hoverinfo="skip")
    halo = go.Scatter(x=[], y=[], mode="lines", line={"color": _HALO, "width": 5}, hoverinfo="skip")
    tops = go.Scatter(
        x=[],
        y=[],
        mode="lines+text",
        line={"color": _FRAME, "width": 2},
        textfont={"color": _FRAME, "size": 14, "weight": 700, "shadow": ", ".join([f"0 0 3px {_HALO}"] * 3)},
        textposition="bottom right",
        hoverinfo="skip",
    )
    picture = {
        "source": _uri(pixels.picture),
        "xref": "x",
        "yref": "y",
        "x": window.x,
        "y": window.y,
        "sizex": window.width,
        "sizey": window.height,
        "sizing": "stretch",
        "layer": "below",
    }
    hidden = {"visible": False, "constrain": "range"}
    layout = go.Layout(
        images=[picture],
        xaxis={**hidden, "range": [window.x, window.x + window.width]},
        yaxis={
            **hidden,
            "range": [window.y + window.height, window.y],
            "scaleanchor": "x",
            "scaleratio": mpp[1] / mpp[0],
        },
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        dragmode="pan",
        hovermode="closest",
        showlegend=False,
        template="none",
        modebar={"bgcolor": "rgba(255,255,255,0.85)", "color": "#555555", "activecolor": "#111111"},
    )
    return go.Figure([heat, line, halo, tops], layout).to_plotly_json() | {"frames": []}


def _level(tiles: Tiles) -> dict[str, Any]:
    """A magnification as the page's script reads it."""
    grid = raster(tiles.boxes)
    return {
        "level": tiles.level,
        "x": grid.x.tolist(),
        "y": grid.y.tolist(),
        "grid": grid.tile.tolist(),
        "rows": tiles.rows.tolist(),
        "boxes": tiles.boxes.tolist(),
        "tissue": tiles.tissue.round(_DIGITS).tolist(),
        "maps": {
            one.key: {
                "title": one.title,
                "unit": one.unit,
                "values": one.values.round(_DIGITS).tolist(),
                "ramp": _ramp(one),
                "most": one.top,
                "clipped": one.kind == ATTENTION,
                "top": tiles.top(one).tolist(),
            }
            for one in tiles.maps
        },
    }


def _ramp(one: TileMap) -> list[tuple[float, str]]:
    colours = ramp(one)
    return [
        (round(place / (len(colours) - 1), _DIGITS), f"rgba({red},{green},{blue},{alpha})")
        for place, (red, green, blue, alpha) in enumerate(colours)
    ]


def _top(tiles: Tiles, one: TileMap, pixels: Pixels) -> dict[str, Any]:
    """The most attended tiles of a map, with their pictures."""
    rows = [
        {
            "rank": rank,
            "place": place,
            "x": int(tiles.boxes[place, 0]),
            "y": int(tiles.boxes[place, 1]),
            "value": f"{one.values[place]:.1f}",
            "uri": _uri(pixels.tiles[tiles.level, int(tiles.rows[place])]),
        }
        for rank, place in enumerate(tiles.top(one).tolist(), start=1)
    ]
    group = {"key": one.key, "title": one.title, "level": tiles.level, "colour": one.colour}
    return group | {"tiles": rows, "note": passed_over(tiles, one)}


def _outline(polygons: list[Polygon]) -> tuple[list[float | None], list[float | None]]:
    """Rings of tissue as one line with gaps."""
    rings = [np.asarray(ring.coords)[:, :2] for one in polygons for ring in (one.exterior, *one.interiors)]
    x, y = ([value for ring in rings for value in (*ring[:, axis].tolist(), None)] for axis in (0, 1))
    return x, y


def _uri(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def _size(facts: dict[str, Any]) -> str:
    slide = facts["slide"]
    mpp = slide["mpp"]
    across, down = slide["width"] * mpp["x"] / 1000, slide["height"] * mpp["y"] / 1000
    return f"{across:.3g} × {down:.3g} mm at {mpp['x']:.4g} µm per pixel ({mpp['source']})"


def _headline(said: dict[str, Any]) -> dict[str, str]:
    if said["type"] == "survival":
        return {
            "value": f"{said['percentile']:.0f} %",
            "text": "of the reference patients have a lower predicted risk",
            "spread": f"single models: {said['low']:.0f} to {said['high']:.0f} %",
        }
    own = next(row for row in said["classes"] if row["class"] == said["class"])
    return {
        "value": f"{own['class']} {own['probability']:.0%}",
        "text": "calibrated probability",
        "spread": f"single models: {own['low']:.0%} to {own['high']:.0%}",
    }


def _table(facts: dict[str, Any]) -> dict[str, Any]:
    """Rows of probabilities: a class each, or a time each."""
    said = facts["prediction"]
    if said["type"] == "survival":
        rows = [
            {
                "name": f"{row['time']:.4g}",
                "cells": [f"{row['probability']:.0%}", f"{row['raw']:.0%}"],
                "percent": round(100 * row["probability"], 1),
            }
            for row in said["survival"]
        ]
        heads = [facts["task"]["time"], "calibrated", "uncalibrated"]
        return {"caption": "Free of the event beyond", "heads": heads, "rows": rows}
    rows = [
        {
            "name": row["class"],
            "cells": [f"{row['probability']:.0%}", f"{row['low']:.0%} to {row['high']:.0%}", f"{row['raw']:.0%}"],
            "percent": round(100 * row["probability"], 1),
        }
        for row in said["classes"]
    ]
    heads = ["class", "calibrated", "single models", "uncalibrated"]
    return {"caption": f"Probabilities of {facts['task']['name']}", "heads": heads, "rows": rows}


def _apart(apart: dict[str, Any]) -> str:
    return f"{'yes' if apart['outside'] else 'no'}: distance {apart['score']:.2f}, limit {apart['threshold']:.2f}"


def _tissue(facts: dict[str, Any]) -> str:
    tiles = ", ".join(f"{count['encoded']:,} tiles at {level}" for level, count in facts["tiles"].items())
    return f"{facts['tissue_mm2']:.3g} mm²; {tiles}"


def _provenance(facts: dict[str, Any]) -> list[tuple[str, str]]:
    bundle, slide = facts["bundle"], facts["slide"]
    seconds = ", ".join(f"{step} {value:.1f}" for step, value in facts["seconds"].items())
    return [
        ("Bundle", f"{bundle['digest']} (histill {bundle['histill']})"),
        ("Encoder", str(bundle["encoder"])),
        ("Encoder recipe", json.dumps(bundle["recipe"], ensure_ascii=False)),
        ("Slide", f"{slide['vendor']}, {slide['width']} × {slide['height']} px, fingerprint {slide['fingerprint']}"),
        ("histill", facts["histill"]),
        ("Seconds a step", seconds),
        ("Heatmaps", "mean over the models; attention of 1 is what each tile would get if all got the same"),
        ("Survival or probabilities", "calibrated on patients of the cohort that the models had not seen"),
    ]
