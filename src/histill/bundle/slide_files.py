"""What `histill predict` leaves of one slide: prediction.json, pictures, tiles for QuPath, and the page."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from histill.batches import read_receipt
from histill.bundle import geojson, pictures, prediction, viewer
from histill.bundle.bundle import Bundle, mean_features
from histill.bundle.maps import ATTENTION, SHARE, SlideMaps, slide_maps
from histill.bundle.pixels import read_pixels, window_around
from histill.cohort.sheets import Slide
from histill.data.bags import BagReader
from histill.magnifications import MAGNIFICATIONS
from histill.provenance import read_json, write_json
from histill.redact import redact
from histill.slides import regions, tile
from histill.slides.inspect import geometry, read_slide
from histill.stages import SLIDE_STAGES

PREDICTION, TILES, TOP_TILES, PAGE = "prediction.json", "tiles.geojson", "top-tiles.png", "view.html"
PICTURES = tuple(f"{kind}-{level}.png" for kind in (ATTENTION, SHARE) for level in MAGNIFICATIONS)
NAMES = (PREDICTION, TILES, TOP_TILES, PAGE, *PICTURES)  # all that there can be
GIVEN = "given with --mpp"
# The stages' words in warnings and reasons, and those of a command that has no sheet and keeps no overview.
_WORDS = {r"sample sheet (says )?(?=[\d.]+ µm)": r"--mpp \1", r"else look at overview\.jpg": f"else look at {PAGE}"}


def write(bundle: Bundle, slide: Slide, work: Path, folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Predict a slide whose features lie in the work folder, and write its files; prediction.json comes last.

    Returns
    -------
    Content of prediction.json.

    Raises
    ------
    HistillError
        If the bundle cannot read the features, or the slide can no longer be read.
    """
    own = work / "slides" / slide.slide_id
    device = config["features"]["device"]
    receipts = {stage: read_receipt(work, stage, slide.slide_id) for stage in SLIDE_STAGES}
    seconds = {stage: receipt.seconds for stage, receipt in receipts.items()}
    facts, quality = read_slide(work, slide.slide_id), read_json(own / tile.QUALITY)
    dimensions, mpp = geometry(facts)
    tissue = regions.read(own / "tissue.geojson", dimensions)
    bags = BagReader(work / "features" / config["features"]["encoder"], {slide.slide_id: [slide.slide_id]})
    with _timed(seconds, "prediction"):
        said = bundle.predict(bags, device=device)
        features = {k: v for k, v in mean_features(bags, slide.slide_id).items() if k in bundle.levels}
        told = prediction.describe(bundle, said, bundle.reference.out_of_distribution(features))
        maps = slide_maps(bundle, bags, slide.slide_id, folder=own, device=device)
    name = file_name(slide)
    with _timed(seconds, "pictures"):
        polygons = tissue.polygons
        bounds = np.array([polygon.bounds for polygon in polygons])
        window = window_around((*bounds[:, :2].min(axis=0), *bounds[:, 2:].max(axis=0)), dimensions, mpp)
        pixels = read_pixels(slide.path, facts["reader"], window, pictures.wanted_tiles(maps), config)
        drawn = pictures.write_heatmaps(folder, name, maps, pixels, mpp)
        if drawn:
            pictures.write_top_tiles(folder / TOP_TILES, name, maps, pixels, mpp)
            drawn.append(TOP_TILES)
        geojson.write(folder / TILES, slide.slide_id, maps)
    notes = list(dict.fromkeys(note for receipt in receipts.values() for note in receipt.warnings))
    told |= {
        "slide": {
            "id": slide.slide_id,
            "file": name,
            "fingerprint": facts["fingerprint"],
            "width": dimensions[0],
            "height": dimensions[1],
            "mpp": {"x": mpp[0], "y": mpp[1], "source": facts["mpp"]["source"] if slide.mpp is None else GIVEN},
            "objective_power": facts["objective_power"],
            "vendor": facts["vendor"],
        },
        "quality": {"light": quality["light"], "reasons": quality["reasons"]},
        "tissue_mm2": quality["tissue_mm2"],
        "tiles": _counts(quality, maps),
        "warnings": portable(prediction.warnings(told, quality, notes), slide),
        "files": [*drawn, TILES, PAGE],
    }
    with _timed(seconds, "page"):
        viewer.write(folder / PAGE, told | {"seconds": seconds}, maps, pixels, polygons, mpp)
    told["seconds"] = {step: round(value, 3) for step, value in seconds.items()}
    write_json(folder / PREDICTION, told)
    return told


def file_name(slide: Slide) -> str:
    """Name of a slide's file as it is shown; bytes that are no text are `?`, as no page or picture can hold them."""
    return Path(slide.path).name.encode(errors="replace").decode()


def portable(value: Any, slide: Slide) -> Any:
    """A value without folders of this machine in its texts, at any depth: the slide by its file's name alone."""
    text = json.dumps(value, ensure_ascii=False)
    for pattern, own in _WORDS.items():
        text = re.sub(pattern, own, text)
    for path in (slide.path, Path(slide.path).name):
        text = text.replace(_inside(path), _inside(file_name(slide)))
    return redact(json.loads(text))


def _inside(text: str) -> str:
    """As it stands within JSON."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[step] = time.perf_counter() - start


def _counts(quality: dict[str, Any], maps: SlideMaps) -> dict[str, dict[str, int]]:
    """By magnification: tiles on tissue, kept, and encoded."""
    read = {tiles.level: len(tiles.rows) for tiles in maps.levels}
    return {
        level: {"on_tissue": quality[level]["tiles"], "kept": quality[level]["kept"], "encoded": read.get(level, 0)}
        for level in MAGNIFICATIONS
    }
