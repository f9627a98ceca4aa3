"""What happened to the slides: states, reasons, resolution, quality, and pictures of some of them."""

from __future__ import annotations

import base64
import os
import statistics
from pathlib import Path
from typing import Any

from histill.batches import collect
from histill.cohort.rows import read_rows
from histill.errors import HistillError, SlideError
from histill.magnifications import MAGNIFICATIONS
from histill.provenance import EMPTY, OK, QUARANTINED, Receipt, read_json
from histill.stages import SLIDE_STAGES

THUMBNAIL_PX = 460
THUMBNAIL_BYTES = 40_000
_GROUPS = ("10x", "20x", "slide")  # of a feature store; other counts are no vectors
_QUALITIES = (82, 70, 58, 45, 35)  # of JPEG, tried in turn until a thumbnail is small enough


def read_receipts(results: Path) -> dict[str, list[Receipt]]:
    """Stage -> receipts of its slides; stages that have not run are absent."""
    found = {}
    for stage in SLIDE_STAGES:
        path = results / "receipts" / f"{stage}.json"
        if path.exists():
            found[stage] = collect([path])
    return found


def shorten_paths(receipts: dict[str, list[Receipt]], sheet: str | None) -> None:
    """Take the folders of the sheet's slides out of what their receipts say.

    Elsewhere paths are known by their form (`histill.redact`); folders with commas, colons or brackets are not.
    """
    rows = [row for _, row in read_rows(sheet, [])[1]] if sheet else []
    paths = {row["slide_id"]: row["path"] for row in rows if "slide_id" in row and os.sep in row.get("path", "")}

    def short(text: str | None, path: str) -> str | None:
        return text and text.replace(path, f"…/{os.path.basename(path)}")

    for receipt in (one for entries in receipts.values() for one in entries if one.slide in paths):
        path = paths[receipt.slide]
        receipt.reason, receipt.mend = short(receipt.reason, path), short(receipt.mend, path)
        receipt.warnings = [short(text, path) for text in receipt.warnings]


def slide_states(receipts: dict[str, list[Receipt]]) -> dict[str, int]:
    """How many slides ended `ok`, `empty` and `quarantined` in the last stage that ran."""
    last = list(receipts.values())[-1] if receipts else []
    return {state: sum(receipt.state == state for receipt in last) for state in (OK, EMPTY, QUARANTINED)}


def failures(receipts: dict[str, list[Receipt]]) -> list[dict[str, Any]]:
    """Slides that are not `ok`, each with the first stage that said so, quarantined ones first."""
    found: dict[str, dict[str, Any]] = {}
    for stage, entries in receipts.items():
        for receipt in entries:
            if receipt.state != OK:
                entry = {"slide": receipt.slide, "state": receipt.state, "stage": stage}
                found.setdefault(receipt.slide, entry | {"reason": receipt.reason, "mend": receipt.mend})
    return sorted(found.values(), key=lambda entry: (entry["state"] != QUARANTINED, entry["slide"]))


def warnings(receipts: dict[str, list[Receipt]]) -> list[dict[str, str]]:
    """Warnings of slides, each once: the first stage that gave it."""
    seen = {}
    for stage, entries in receipts.items():
        for receipt in entries:
            for text in receipt.warnings:
                seen.setdefault((receipt.slide, text), {"slide": receipt.slide, "stage": stage, "text": text})
    return [seen[key] for key in sorted(seen)]


def slide_facts(results: Path, receipts: dict[str, list[Receipt]]) -> dict[str, dict[str, Any]]:
    """Slide id -> content of its `slide.json`, for slides that could be inspected."""
    inspected = [receipt.slide for receipt in receipts.get("inspect", ()) if receipt.state == OK]
    return {slide: read_json(results / "slides" / slide / "slide.json") for slide in inspected}


def feature_facts(receipts: dict[str, list[Receipt]]) -> dict[str, Any] | None:
    """Vectors by group over all slides, how many tiles could not be read, and the length of a vector."""
    found = [receipt for receipt in receipts.get("features", ()) if receipt.counts]
    if not found:
        return None
    names = [name for name in _GROUPS if any(name in receipt.counts for receipt in found)]
    return {
        "groups": [(name, sum(int(receipt.counts.get(name, 0)) for receipt in found)) for name in names],
        "unreadable": sum(int(receipt.counts.get("unreadable", 0)) for receipt in found),
        "dim": found[0].info.get("dim"),
    }


def resolution_table(slides: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Slides by where their resolution came from, and every conflict between sources."""
    by_source: dict[str, list[dict[str, Any]]] = {}
    for info in slides.values():
        by_source.setdefault(info["mpp"]["source"], []).append(info)
    rows = [
        {
            "source": source,
            "slides": len(infos),
            "low": min(info["mpp"]["x"] for info in infos),
            "high": max(info["mpp"]["x"] for info in infos),
            "vendors": sorted({info["vendor"] for info in infos if info["vendor"]}),
            "objectives": sorted({f"{info['objective_power']:g}×" for info in infos if info.get("objective_power")}),
        }
        for source, infos in sorted(by_source.items(), key=lambda item: (-len(item[1]), item[0]))
    ]
    conflicts = [(slide, text) for slide, info in sorted(slides.items()) for text in info["mpp"]["conflicts"]]
    return {"rows": rows, "conflicts": conflicts}


def quality_counts(receipts: list[Receipt]) -> list[dict[str, Any]]:
    """By magnification: tiles that touch tissue, how many carry each quality flag, and how many are kept."""
    from histill.slides.quality import FLAGS

    counted = [receipt.counts for receipt in receipts if receipt.counts]
    rows = []
    for level in MAGNIFICATIONS:
        of = {name: [int(c[f"{name}_{level}"]) for c in counted] for name in ("tiles", *FLAGS, "kept")}
        sums = {name: sum(values) for name, values in of.items()}
        flags = {flag: sums.pop(flag) for flag in FLAGS}
        median = statistics.median(of["kept"] or [0])
        rows.append({"magnification": level, **sums, "flags": flags, "median_kept": median})
    return rows if counted else []


def lights(receipts: list[Receipt]) -> dict[str, Any] | None:
    """Slides by traffic light; those that are not green with their reasons, worst first. None before the stage ran."""
    from histill.slides.summary import GREEN, LIGHTS, RULE

    found = {receipt.slide: receipt.info["quality"] for receipt in receipts if "quality" in receipt.info}
    if not found:
        return None
    rows = [{"slide": slide, **quality} for slide, quality in found.items() if quality["light"] != GREEN]
    return {
        "counts": {light: sum(quality["light"] == light for quality in found.values()) for light in LIGHTS},
        "rows": sorted(rows, key=lambda row: (LIGHTS.index(row["light"]), row["slide"])),
        "rule": RULE,
    }


def tissue_facts(receipts: list[Receipt]) -> dict[str, Any]:
    """Tissue area in mm² over all slides, the median, and the slides whose outline a person has edited."""
    areas = [receipt.counts["tissue_mm2"] for receipt in receipts if receipt.state == OK]
    edited = sorted(receipt.slide for receipt in receipts if receipt.info.get("edited"))
    return {"total": sum(areas), "median": statistics.median(areas) if areas else None, "edited": edited}


def gallery(results: Path, slides: dict[str, dict[str, Any]], most: int) -> tuple[list[dict[str, Any]], int]:
    """Thumbnails of the first `most` slides that have an overview, and how many have one.

    Returns
    -------
    Items with `slide`, `uri` (JPEG data URI of about 40 kB at most), `width`, `height`, `caption`; and the count.
    """
    pictured = [slide for slide in sorted(slides) if (results / "slides" / slide / "overview.jpg").exists()]
    return [_item(results, slide, slides[slide]) for slide in pictured[:most]], len(pictured)


def legend() -> dict[str, Any]:
    """RGB colours of the pictures: tissue outline, frames of kept tiles, tints of flagged ones."""
    from histill.slides import draw

    return {"tissue": draw.TISSUE_COLOUR, "kept": draw.KEPT_COLOUR, "flags": list(draw.FLAG_COLOURS.items())}


def _item(results: Path, slide: str, info: dict[str, Any]) -> dict[str, Any]:
    import cv2
    import pyarrow.parquet as pq

    from histill.slides.draw import draw_overview

    folder = results / "slides" / slide
    picture = cv2.imread(str(folder / "overview.jpg"), cv2.IMREAD_COLOR)
    if picture is None:
        raise HistillError(f"{folder / 'overview.jpg'} is no readable picture", mend="delete it; run: snakemake report")
    outline, table = folder / "tissue.geojson", folder / "tiles.parquet"
    shapes = _outlines(outline, info)
    tiles = pq.read_table(table) if table.exists() else None
    drawn = draw_overview(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), shapes, tiles, info, THUMBNAIL_PX)
    height, width = drawn.shape[:2]
    caption = f"{info['mpp']['x']:.3g} µm per pixel, "
    if tiles is not None and tiles.num_rows:
        levels, keep = tiles["magnification"].to_pylist(), tiles["keep"].to_pylist()
        kept = [value for level, value in zip(levels, keep, strict=True) if level == "10x"]
        caption += f"{sum(kept)} of {len(kept)} tiles kept at 10x"
    else:
        caption += "no tile"
    return {"slide": slide, "uri": _jpeg(drawn), "width": width, "height": height, "caption": caption}


def _outlines(path: Path, info: dict[str, Any]) -> dict[str, Any]:
    """Tissue as the stages read it; none where the file is missing or, edited, cannot be used (its slide says why)."""
    from shapely.geometry import mapping

    from histill.slides import regions

    try:
        polygons = regions.read(path, (info["width"], info["height"])).polygons if path.exists() else []
    except SlideError:
        polygons = []
    return {"type": "FeatureCollection", "features": [{"geometry": mapping(polygon)} for polygon in polygons]}


def _jpeg(picture: Any) -> str:
    import cv2

    for quality in _QUALITIES:
        _, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
        if len(data) <= THUMBNAIL_BYTES:
            break
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
