"""Stage `inspect`: what the slide is, and whether its pixels can be read at a known resolution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from histill import isolation, stages
from histill.batches import run_batch
from histill.cohort.sheets import Slide
from histill.errors import HistillError, SlideError
from histill.provenance import Receipt, file_digest, read_json, write_json
from histill.slides import resolution
from histill.slides.parts import slide_fingerprint
from histill.slides.readers import SlideReader, check_file, open_slide

STAGE = "inspect"
_PROBE = 256  # pixels a side of the test read


def run(slides: list[Slide], *, config: dict[str, Any], results: str | Path) -> list[Receipt]:
    """Write `slides/<slide>/slide.json` of every slide.

    Parameters
    ----------
    config
        Complete config; read: `slides`, `on_error`.
    results
        The results folder.

    Returns
    -------
    One receipt a slide. What no reader opens, what has no plausible resolution and what is scanned too coarsely is
    quarantined with its reason.
    """
    results = Path(results)

    def inputs(slide: Slide) -> dict[str, str]:
        check_file(Path(slide.path))
        override = "none" if slide.mpp is None else repr(float(slide.mpp))
        return {"slide": slide_fingerprint(slide.path), "mpp": override}

    def work(slide: Slide, receipt: Receipt) -> None:
        options = config["slides"]
        with open_slide(slide.path, options["reader"], icc=options["icc"], resample=options["resample"]) as reader:
            facts, receipt.warnings = describe(reader, override=slide.mpp, config=config)
        facts["fingerprint"] = receipt.inputs["slide"]
        path = slide_file(results, slide.slide_id, "slide.json")
        write_json(path, facts)
        receipt.outputs = {path.relative_to(results).as_posix(): file_digest(path)}
        receipt.counts = {"width": facts["width"], "height": facts["height"]}
        mpp = facts["mpp"]
        receipt.info = {
            "mpp": [mpp["x"], mpp["y"]],
            "mpp_source": mpp["source"],
            "reader": facts["reader"],
            "vendor": facts["vendor"],
        }

    return run_batch(
        STAGE,
        slides,
        work,
        results=results,
        recipe=stages.recipe(STAGE, config),
        inputs=inputs,
        on_error=config["on_error"],
        limits=isolation.limits(config),
    )


def describe(
    reader: SlideReader, *, override: float | None, config: dict[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """The content of slide.json (without the fingerprint), and warnings.

    The slide's centre is read once from the coarsest level: a file whose header is fine and whose pixels are not is
    found here, though a single bad tile elsewhere is not.

    Raises
    ------
    SlideError
        As `resolution.resolve`, `resolution.check_size`, `resolution.check_target` and `SlideReader.read_region`.
    """
    name = str(reader.path)
    width, height = reader.dimensions
    probe = min(_PROBE, reader.levels[-1].width), min(_PROBE, reader.levels[-1].height)
    scale = reader.levels[-1].downsample
    span = min(width, max(1, int(probe[0] * scale))), min(height, max(1, int(probe[1] * scale)))
    reader.read_region((width - span[0]) // 2, (height - span[1]) // 2, *span, *probe)
    size = width, height
    found = resolution.resolve(reader.properties, reader.vendor, override=override, name=name, dimensions=size)
    resolution.check_size(size, (found.x, found.y), name=name)
    allow = config["slides"]["allow_upsampling"]
    coarse = resolution.check_target(
        found.x, found.y, allow_upsampling=allow, name=name, power=found.power, source=found.source
    )
    skewed = resolution.check_levels([(level.width, level.height) for level in reader.levels])
    facts = {
        "vendor": reader.vendor,
        "reader": reader.name,
        "width": width,
        "height": height,
        "levels": [level._asdict() for level in reader.levels],
        "mpp": found.as_json(),
        "objective_power": found.power,
        "icc_profile": reader.icc_profile,
    }
    return facts, [*reader.refusals, *reader.notes, *found.warnings, *coarse, *skewed]


def slide_file(results: str | Path, slide: str, name: str) -> Path:
    """Where a file of a slide lies."""
    return Path(results) / "slides" / slide / name


def read_slide(results: str | Path, slide: str) -> dict[str, Any]:
    """slide.json of a slide."""
    path = slide_file(results, slide, "slide.json")
    mend = "run: snakemake -R inspect_batch"
    try:
        facts = read_json(path)
    except HistillError as error:
        raise SlideError(error.message, mend=mend) from None
    needed = {"width", "height", "mpp", "reader", "fingerprint"}
    if not isinstance(facts, dict) or needed - facts.keys():
        raise SlideError(f"{path} is no record of a slide", mend=mend)
    return facts


def geometry(facts: dict[str, Any]) -> tuple[tuple[int, int], tuple[float, float]]:
    """(width, height) in level-0 pixels and (x, y) in µm per pixel, of slide.json's content."""
    return (facts["width"], facts["height"]), (facts["mpp"]["x"], facts["mpp"]["y"])
