"""Stage `tiles`: the table of 10x tiles and their 20x children, with tissue fraction and quality flags.

Beside it lies quality.json: the slide's summary with a traffic light, and its stain statistics.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from histill import isolation, stages
from histill.batches import read_receipt, run_batch
from histill.cohort.sheets import Slide
from histill.magnifications import MAGNIFICATIONS
from histill.provenance import EMPTY, Receipt, file_digest, write_json
from histill.slides import colour, detail, quality, regions, stain, summary, table
from histill.slides.grid import Coverage, make_grid
from histill.slides.inspect import geometry, read_slide, slide_file
from histill.slides.overview import read_picture
from histill.slides.readers import SlideReader, open_slide

STAGE = "tiles"
QUALITY = "quality.json"
_UNSTAINED = ("pen", "blur", "fold", "blood", "black")  # tiles that say nothing of the stain, kept or not
_STAIN_TILES = 400  # that the stain is measured on, evenly over the slide
MEND_EMPTY = "nothing, if the slide is like that; else edit tissue.geojson or the config key tiles"


class Examined(NamedTuple):
    """The tile table, sharpness of its 10x tiles (`histill.slides.detail.Detail`), and the slide's stain statistics."""

    columns: table.Columns
    sharpness: np.ndarray
    stain: dict[str, Any]


def run(slides: list[Slide], *, config: dict[str, Any], results: str | Path) -> list[Receipt]:
    """Write `tiles.parquet` and `quality.json` of every slide.

    The table holds every 10x tile that touches tissue, row-major, then the four children of each in the same order.
    `keep` says which 10x tiles pass (enough tissue, none of the flags in `tiles.exclude`); children follow their
    parent.

    Parameters
    ----------
    config
        Complete config; read: `tiles`, `slides`, `on_error`.
    results
        The results folder.

    Returns
    -------
    One receipt a slide; `empty` where no tile passes. A slide without tissue gets a table of zero rows.
    """
    results = Path(results)
    options = config["tiles"]

    def inputs(slide: Slide) -> dict[str, str]:
        facts = read_slide(results, slide.slide_id)
        outline = slide_file(results, slide.slide_id, "tissue.geojson")
        return {"tissue": file_digest(outline), "slide": facts["fingerprint"]}

    def work(slide: Slide, receipt: Receipt) -> None:
        facts = read_slide(results, slide.slide_id)
        dimensions, mpp = geometry(facts)
        tissue = regions.read(slide_file(results, slide.slide_id, "tissue.geojson"), dimensions)
        overview = read_picture(slide_file(results, slide.slide_id, "overview.jpg"))
        how = config["slides"]
        with open_slide(slide.path, facts["reader"], icc=how["icc"], resample=how["resample"]) as reader:
            columns, sharpness, stains = examine(reader, mpp, tissue.polygons, overview, options)
        path = slide_file(results, slide.slide_id, "tiles.parquet")
        table.write(path, columns, size=options["size"], overlap=options["overlap"])
        found = summary.summarise(
            columns,
            tissue_mm2=tissue.area_mm2(mpp),
            sharpness=sharpness,
            stain=stains,
            conflicts=facts["mpp"]["conflicts"],
        )
        summarised = slide_file(results, slide.slide_id, QUALITY)
        write_json(summarised, found)
        receipt.outputs = {file.relative_to(results).as_posix(): file_digest(file) for file in (path, summarised)}
        receipt.counts = count(columns)
        receipt.info = {"size": options["size"], "overlap": options["overlap"], "edited": tissue.edited}
        receipt.info["quality"] = {"light": found["light"], "reasons": found["reasons"]}
        receipt.warnings = list(tissue.warnings)
        if not receipt.counts["kept_10x"]:
            receipt.state, receipt.reason = EMPTY, why_empty(columns, dimensions, mpp, options)
            receipt.mend = MEND_EMPTY

    for slide in slides:
        if read_receipt(results, "tissue", slide.slide_id).state == EMPTY:
            # The stage passes such a slide on; what an earlier run wrote must not stay behind.
            slide_file(results, slide.slide_id, QUALITY).unlink(missing_ok=True)
            path = slide_file(results, slide.slide_id, "tiles.parquet")
            table.write(path, table.empty(), size=options["size"], overlap=options["overlap"])
    return run_batch(
        STAGE,
        slides,
        work,
        results=results,
        recipe=stages.recipe(STAGE, config),
        inputs=inputs,
        before="tissue",
        on_error=config["on_error"],
        limits=isolation.limits(config),
    )


def examine(
    reader: SlideReader, mpp: tuple[float, float], polygons: list, overview: np.ndarray, options: dict[str, Any]
) -> Examined:
    """The tile table of a slide, column by column, with what its pixels say of focus and stain.

    The tissue fraction comes from the polygons rasterised at the overview's resolution; with 224 px and 8 µm per pixel
    it is right to 0.02 for a 10x tile and to 0.05 for a 20x tile. Where there is too little tissue the tile is left out
    anyway, so it is not read: no blur and no blood is looked for.

    Parameters
    ----------
    mpp
        (x, y) of level 0.
    polygons
        Tissue in level-0 pixels.
    overview
        uint8 RGB [H, W, 3] of the whole slide.
    options
        Config `tiles`: `size`, `overlap`, `min_tissue`, `exclude`.
    """
    dimensions = reader.dimensions
    grid = make_grid(dimensions, mpp, options["size"], options["overlap"])
    glass = colour.glass_colour(overview)
    if not len(grid.parents) or not polygons:
        return Examined(table.empty(), np.zeros(0, np.float32), stain.statistics(np.zeros((0, 3), np.uint8), glass))
    inside = regions.to_mask(polygons, dimensions, overview.shape[:2])
    cover = Coverage(inside, dimensions, full=regions.QUARTERS)
    grid = grid.take(np.flatnonzero(cover.of(grid.parents) > 0))
    boxes = np.concatenate([grid.parents, grid.children])
    number = len(grid.parents)
    tissue = cover.of(boxes)
    del cover, inside  # as large as the overview in float64; the flags need the room
    least = max(options["min_tissue"], np.finfo(np.float32).tiny)
    fine = detail.measure(reader, mpp, grid, np.flatnonzero(tissue[:number] >= least), glass)
    columns = {
        "magnification": np.repeat(list(MAGNIFICATIONS), [number, 4 * number]),
        **dict(zip(("x", "y", "width", "height"), boxes.T, strict=True)),
        "tissue": tissue,
        **quality.flags_of(overview, dimensions, mpp, grid, fine, glass),
        "parent": np.concatenate([np.full(number, -1), np.repeat(np.arange(number), 4)]),
    }
    keep = tissue[:number] >= least
    for flag in options["exclude"]:
        keep &= ~columns[flag][:number]
    # A 10x tile goes with its four children or not at all: a bag then covers the same tissue at both magnifications.
    columns["keep"] = np.concatenate([keep, np.repeat(keep, 4)])
    clean = np.flatnonzero(keep & fine.judged & ~np.any([columns[flag][:number] for flag in _UNSTAINED], axis=0))
    sample = fine.pixels[clean[:: max(1, len(clean) // _STAIN_TILES)]].reshape(-1, 3)
    return Examined(columns, fine.sharpness, stain.statistics(sample, glass))


def count(columns: table.Columns) -> dict[str, float]:
    """Tiles per magnification: in the table, kept, and flagged."""
    counts: dict[str, float] = {}
    for name in MAGNIFICATIONS:
        rows = columns["magnification"] == name
        counts[f"tiles_{name}"] = int(rows.sum())
        counts[f"kept_{name}"] = int(np.count_nonzero(columns["keep"][rows]))
        for flag in quality.FLAGS:
            counts[f"{flag}_{name}"] = int(np.count_nonzero(columns[flag][rows]))
    return counts


def why_empty(
    columns: table.Columns, dimensions: tuple[int, int], mpp: tuple[float, float], options: dict[str, Any]
) -> str:
    """Why no 10x tile is kept, in one line."""
    size = options["size"]
    if not len(make_grid(dimensions, mpp, size).parents):
        return f"the slide of {dimensions[0]} × {dimensions[1]} pixels is smaller than one 10x tile of {size} µm"
    counts = count(columns)
    total = counts["tiles_10x"]
    if not total:
        return "no full tile touches tissue"
    flags = ", ".join(f"{counts[f'{flag}_10x']} {flag}" for flag in options["exclude"] if counts[f"{flag}_10x"])
    small = int(np.count_nonzero(columns["tissue"][:total] < options["min_tissue"]))
    bare = f"{small} below {options['min_tissue']:g} tissue"
    return f"none of {total} 10x tiles passes: {bare}; flagged: {flags or 'none'}"
