"""Stage `tissue`: where the tissue is, as polygons that a person may edit, and the slide's overview."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from histill import isolation, stages
from histill.batches import run_batch
from histill.cohort.sheets import Slide
from histill.provenance import EMPTY, Receipt, file_digest
from histill.slides import colour, placement, regions
from histill.slides.inspect import geometry, read_slide, slide_file
from histill.slides.overview import read_overview, write_overview
from histill.slides.readers import SlideReader, open_slide
from histill.slides.tissue import Tissue, find_tissue

if TYPE_CHECKING:
    from histill.slides.tissue_weights import Weights

STAGE = "tissue"
NO_TISSUE = "no H&E tissue of at least {:g} mm² was found"
DARK_FIELD = "no H&E tissue: dark background, looks like fluorescence"


MOST, LEAST = 0.95, 0.001  # share of the slide beyond which tissue is plausible for crops and smears only
TISSUE_ON_LABEL = 0.02  # of its area: what an outline drawn beside it may cover
_DOWNLOAD_SECONDS, _CHECK_MB = 3600, 8000


class Found(NamedTuple):
    """What was found on a slide.

    Attributes
    ----------
    overview
        uint8 RGB [H, W, 3]; a printed label is blank.
    regions
        Tissue, with warnings.
    reason
        Why there is none; None if there is.
    facts
        By which method and thresholds it was found.
    """

    overview: np.ndarray
    regions: regions.Regions
    reason: str | None
    facts: dict[str, Any]


def run(slides: list[Slide], *, config: dict[str, Any], results: str | Path) -> list[Receipt]:
    """Write `tissue.geojson` and `overview.jpg` of every slide.

    A tissue.geojson that a person edited is kept, checked, and said so in the receipt (`info["edited"]`). Delete it to
    have tissue found again.

    Parameters
    ----------
    config
        Complete config; read: `slides`, `tissue`, `on_error`.
    results
        The results folder.

    Returns
    -------
    One receipt a slide; `empty` where there is no tissue.
    """
    results = Path(results)
    weights = _weights(config["tissue"])

    def inputs(slide: Slide) -> dict[str, str]:
        outline = slide_file(results, slide.slide_id, "tissue.geojson")
        known = {"slide": read_slide(results, slide.slide_id)["fingerprint"]}
        if weights is not None:
            known["weights"] = weights.digest
        return known | {"edited": file_digest(outline)} if regions.is_edited(outline) else known

    def work(slide: Slide, receipt: Receipt) -> None:
        facts = read_slide(results, slide.slide_id)
        dimensions, mpp = geometry(facts)
        outline = slide_file(results, slide.slide_id, "tissue.geojson")
        picture = slide_file(results, slide.slide_id, "overview.jpg")
        edited = regions.read(outline, dimensions) if regions.is_edited(outline) else None
        options = config["slides"]
        with open_slide(slide.path, facts["reader"], icc=options["icc"], resample=options["resample"]) as reader:
            found = find(reader, mpp, config["tissue"], edited, weights)
        write_overview(picture, found.overview)
        if edited is None:
            regions.write(outline, found.regions.polygons)
        receipt.outputs = {path.relative_to(results).as_posix(): file_digest(path) for path in (outline, picture)}
        receipt.info = {"edited": found.regions.edited, "mpp": config["tissue"]["mpp"], **found.facts}
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
        work if weights is None else _in_child(work),
        results=results,
        recipe=stages.recipe(STAGE, config),
        inputs=inputs,
        before="inspect",
        on_error=config["on_error"],
        limits=isolation.limits(config),
    )


def find(
    reader: SlideReader,
    mpp: tuple[float, float],
    options: dict[str, Any],
    edited: regions.Regions | None = None,
    weights: Weights | None = None,
) -> Found:
    """Overview and tissue of a slide.

    Parameters
    ----------
    mpp
        (x, y) of level 0.
    options
        Config `tissue`.
    edited
        Tissue drawn by a person; then none is looked for.
    weights
        Of the learned model, where they are known already.
    """
    overview = read_overview(reader, mpp, options["mpp"])
    dark = colour.is_fluorescence(overview)
    if edited is not None:
        reason = None if edited.polygons else "the edited tissue.geojson holds no polygon"
        if not dark:
            stained = find_tissue(overview, options["mpp"], min_area_mm2=0.0, min_hole_mm2=0.0)
            doubts = placement.doubts(edited.polygons, stained.mask, reader, mpp)
            drawn = regions.to_mask(edited.polygons, reader.dimensions, overview.shape[:2]) > 0
            doubts += _without_label(overview, _unless_tissue(stained.label, drawn))
            edited = replace(edited, warnings=(*edited.warnings, *doubts))
        return Found(overview, edited, reason, {"method": "edited"})
    facts = {"method": options["method"]}
    if dark:
        return Found(overview, regions.Regions([]), DARK_FIELD, facts)
    found = _tissue(reader, overview, options, weights)
    polygons = regions.from_mask(found.mask, reader.dimensions)
    facts |= {"thresholds": found.facts, "tissue_share": round(float(found.mask.mean()), 4)}
    reason = None if polygons else NO_TISSUE.format(options["min_area_mm2"])
    doubts = _doubts(facts["tissue_share"], bool(polygons)) + _without_label(overview, found.label)
    return Found(overview, regions.Regions(polygons, warnings=doubts), reason, facts)


def _tissue(reader: SlideReader, overview: np.ndarray, options: dict[str, Any], weights: Weights | None) -> Tissue:
    areas = {key: options[key] for key in ("min_area_mm2", "min_hole_mm2")}
    by_colour = find_tissue(overview, options["mpp"], **areas)
    if options["method"] == "colour":
        return by_colour
    from histill.slides import tissue_model, tissue_weights

    found = tissue_model.find_tissue(reader, overview, options, weights or tissue_weights.prepare(options))
    return found._replace(label=_unless_tissue(by_colour.label, found.mask))


def _weights(options: dict[str, Any]) -> Weights | None:
    """Weights of the learned model, once for all slides; what is wrong with them is no fault of a slide.

    In a child, since the slides' own children cannot use torch where this process has.
    """
    if options["method"] == "colour":
        return None
    from histill.slides import tissue_weights

    return isolation.call(
        _in_child(lambda: tissue_weights.prepare(options)),
        seconds=_DOWNLOAD_SECONDS,
        memory_mb=_CHECK_MB,
        what="the weights of tissue.method deeplabv3",
    )


def _in_child(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` for a child process that may use torch.

    Where this process has used it, its threads are missing in the child, and torch would wait for them for ever.
    """
    if "torch" not in sys.modules:
        return function

    def alone(*arguments: Any) -> Any:
        import torch

        torch.set_num_threads(1)
        return function(*arguments)

    return alone


def _doubts(share: float, found: bool) -> tuple[str, ...]:
    """Shares of tissue that a whole slide hardly has."""
    if share > MOST:
        return (f"tissue covers {share:.1%} of the slide: right for a crop; else look at overview.jpg",)
    if found and share < LEAST:
        return (f"tissue covers {share:.2%} of the slide: look at overview.jpg whether any was missed",)
    return ()


def _unless_tissue(label: np.ndarray, tissue: np.ndarray) -> np.ndarray | None:
    """The label; None where it was drawn as tissue, or is tissue to the learned model."""
    return None if label.any() and tissue[label].mean() > TISSUE_ON_LABEL else label


def _without_label(overview: np.ndarray, label: np.ndarray | None) -> tuple[str, ...]:
    """Blank the label, which may name the patient: the overview goes into reports. As it is a guess, say so."""
    if label is None or not label.any():
        return ()
    overview[label] = 255
    return (
        "a printed rectangle at the slide's end was taken for its label: it is no tissue, and blank in overview.jpg;"
        " if it is tissue, draw it in QuPath",
    )
