"""Stage `tissue`: where the tissue is, as polygons that a person may edit, and the slide's overview."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from histill import stages
from histill.batches import run_batch
from histill.cohort.sheets import Slide
from histill.provenance import EMPTY, Receipt, file_digest
from histill.slides import colour, regions
from histill.slides.inspect import geometry, read_slide, slide_file
from histill.slides.overview import read_overview, write_overview
from histill.slides.readers import SlideReader, open_slide
from histill.slides.tissue import tissue_mask

STAGE = "tissue"
NO_TISSUE = "no H&E tissue of at least {:g} mm² was found"
DARK_FIELD = "no H&E tissue: dark background, looks like fluorescence"


class Found(NamedTuple):
    """Overview (uint8 RGB [H, W, 3]), tissue, and why there is none (else None)."""

    overview: np.ndarray
    regions: regions.Regions
    reason: str | None


def run(slides: list[Slide], *, config: dict[str, Any], results: str | Path) -> list[Receipt]:
    """Write `tissue.geojson` and `overview.jpg` of every slide.

    A tissue.geojson that a person edited is kept, checked, and said so in the receipt (`info["edited"]`). Delete it to
    have tissue found again.

    Parameters
    ----------
    config
        Complete config; read: `slides.reader`, `tissue`, `on_error`.
    results
        The results folder.

    Returns
    -------
    One receipt a slide; `empty` where there is no tissue.
    """
    results = Path(results)

    def inputs(slide: Slide) -> dict[str, str]:
        outline = slide_file(results, slide.slide_id, "tissue.geojson")
        known = {"slide": read_slide(results, slide.slide_id)["fingerprint"]}
        return known | {"edited": file_digest(outline)} if regions.is_edited(outline) else known

    def work(slide: Slide, receipt: Receipt) -> None:
        facts = read_slide(results, slide.slide_id)
        dimensions, mpp = geometry(facts)
        outline = slide_file(results, slide.slide_id, "tissue.geojson")
        picture = slide_file(results, slide.slide_id, "overview.jpg")
        edited = regions.read(outline, dimensions) if regions.is_edited(outline) else None
        with open_slide(slide.path, facts["reader"]) as reader:
            found = find(reader, mpp, config["tissue"], edited)
        write_overview(picture, found.overview)
        if edited is None:
            regions.write(outline, found.regions.polygons)
        receipt.outputs = {path.relative_to(results).as_posix(): file_digest(path) for path in (outline, picture)}
        receipt.info = {"edited": found.regions.edited, "mpp": config["tissue"]["mpp"]}
        polygons = found.regions.polygons
        receipt.counts = {
            "tissue_mm2": round(found.regions.area_mm2(mpp), 4),
            "regions": len(polygons),
            "holes": sum(len(polygon.interiors) for polygon in polygons),
        }
        receipt.warnings = list(found.regions.warnings)
        if found.reason:
            receipt.state, receipt.reason = EMPTY, found.reason
            receipt.mend = f"if there is tissue, draw it in QuPath and save it as {outline}"
            receipt.warnings.append(found.reason)

    return run_batch(
        STAGE,
        slides,
        work,
        results=results,
        recipe=stages.recipe(STAGE, config),
        inputs=inputs,
        before="inspect",
        on_error=config["on_error"],
    )


def find(
    reader: SlideReader, mpp: tuple[float, float], options: dict[str, Any], edited: regions.Regions | None = None
) -> Found:
    """Overview and tissue of a slide.

    Parameters
    ----------
    mpp
        (x, y) of level 0.
    options
        Config `tissue`: `mpp`, `min_area_mm2`, `min_hole_mm2`.
    edited
        Tissue drawn by a person; then none is looked for.
    """
    overview = read_overview(reader, mpp, options["mpp"])
    if edited is not None:
        return Found(overview, edited, None if edited.polygons else "the edited tissue.geojson holds no polygon")
    if colour.is_fluorescence(overview):
        return Found(overview, regions.Regions([]), DARK_FIELD)
    areas = {key: options[key] for key in ("min_area_mm2", "min_hole_mm2")}
    polygons = regions.from_mask(tissue_mask(overview, options["mpp"], **areas), reader.dimensions)
    reason = None if polygons else NO_TISSUE.format(options["min_area_mm2"])
    return Found(overview, regions.Regions(polygons), reason)
