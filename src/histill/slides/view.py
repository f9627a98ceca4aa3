"""`histill view`: one picture of a slide with its tissue, its grid at both magnifications, and what was flagged."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from shapely.geometry import Polygon

from histill import isolation
from histill.errors import HistillError, SlideError
from histill.provenance import atomic_file, fingerprint, read_json
from histill.slides import regions, table
from histill.slides.examine import examine, open_as_config, sheet_mpp
from histill.slides.inspect import describe, geometry, read_slide
from histill.slides.overview import read_overview
from histill.slides.readers import check_file

CHOICES = ("10x", "20x", "both")
SUFFIXES = (".png", ".jpg", ".jpeg")
AGAIN = "run histill view again"
_SMALLEST = 400  # pixels of the longer side below which a small slide is enlarged
_JPEG_QUALITY = 92


@dataclass(frozen=True)
class Scene:
    """What is drawn.

    Attributes
    ----------
    name
        The slide's file name.
    note
        Whether stored results are shown, or what was found just now.
    facts
        The content of slide.json.
    polygons
        Tissue in level-0 pixels, with holes.
    columns
        The tile table; None where the stage has not run.
    quality
        The content of quality.json, or None.
    remarks
        Why there is no tissue, and warnings.
    picture
        uint8 RGB [h, w, 3] of the whole slide.
    """

    name: str
    note: str
    facts: dict[str, Any]
    polygons: list[Polygon]
    columns: table.Columns | None
    quality: dict[str, Any] | None
    remarks: list[str]
    picture: np.ndarray


def view(
    path: str | Path,
    out: str | Path,
    *,
    config: dict[str, Any],
    mpp: float | None = None,
    results: str | Path | None = None,
    magnification: str = "both",
    max_px: int = 1600,
) -> Scene:
    """Draw a slide into a PNG or JPEG.

    What is stored below `results` is drawn where the slide was processed (known by its fingerprint, whatever its path);
    else what a run with this config would find. The slide is read in a process of its own, within the limits of
    `slides`.

    Parameters
    ----------
    out
        The picture; replaced if it exists.
    config
        Complete config; read: `slides`, `tissue`, `tiles`, and the slide sheet.
    mpp
        µm per pixel; then nothing stored is drawn. None: as the slide sheet of the config says, if it names one.
    results
        A results folder, or None.
    magnification
        `10x`, `20x`, or `both`.
    max_px
        Longer side of the slide in the picture, in pixels.

    Raises
    ------
    SlideError
        If the slide cannot be read or its resolution is not known.
    HistillError
        If `out` cannot be written, or the config names sheets that have problems.
    """
    from histill.slides.view_page import draw_page

    path, out = Path(path), Path(out)
    if magnification not in CHOICES:
        raise HistillError(f"there is no magnification '{magnification}'", mend=f"one of {', '.join(CHOICES)}")
    check_file(path)
    _check_out(path, out)
    stored = None if mpp is not None or results is None else find_stored(results, path)
    if mpp is None and stored is None:
        mpp = sheet_mpp(config).get(Path(os.path.realpath(path)))
    work = partial(_stored_scene, path, stored) if stored else partial(_new_scene, path, mpp)
    scene = isolation.call(
        partial(work, config, max_px), **isolation.limits(config), what=f"{path}: drawing it", again=AGAIN
    )
    page = draw_page(scene, magnification, config["tiles"]["exclude"])
    _write(out, page)
    return scene


def find_stored(results: str | Path, path: str | Path) -> Path | None:
    """Folder of a slide's results: the one whose slide.json has the file's fingerprint; None if there is none."""
    known = sorted(Path(results).glob("slides/*/slide.json"))
    if not known:
        return None
    own = fingerprint(path)
    for record in known:
        try:
            facts = read_json(record)
        except HistillError:  # another slide's broken record is not this slide's problem
            continue
        if isinstance(facts, dict) and facts.get("fingerprint") == own:
            return record.parent
    return None


def _new_scene(path: Path, mpp: float | None, config: dict[str, Any], max_px: int) -> Scene:
    with open_as_config(path, config) as reader:
        facts, warnings = describe(reader, override=mpp, config=config)
        seen = examine(reader, facts, config)
        picture = _picture(reader, facts, max_px)
    remarks = [*([seen.reason] if seen.reason else []), *warnings, *seen.warnings]
    return Scene(path.name, "examined now", facts, seen.polygons, seen.columns, seen.quality, remarks, picture)


def _stored_scene(path: Path, folder: Path, config: dict[str, Any], max_px: int) -> Scene:
    facts = read_slide(folder.parent.parent, folder.name)
    dimensions, _ = geometry(facts)
    outline, tiles, judged = (folder / name for name in ("tissue.geojson", "tiles.parquet", "quality.json"))
    tissue = regions.read(outline, dimensions) if outline.exists() else regions.Regions([])
    columns = table.read(tiles) if tiles.exists() else None
    quality = read_json(judged) if judged.exists() else None
    own = {**config, "slides": {**config["slides"], "reader": facts["reader"]}}
    with open_as_config(path, own) as reader:
        picture = _picture(reader, facts, max_px)
    remarks = [] if columns is not None else ["the stage tiles has not run"]
    remarks += [] if tissue.polygons else ["no tissue is stored"]
    note = f"stored results of slide {folder.name}" + (", tissue edited by a person" if tissue.edited else "")
    return Scene(path.name, note, facts, tissue.polygons, columns, quality, remarks, picture)


def _picture(reader: Any, facts: dict[str, Any], max_px: int) -> np.ndarray:
    """The whole slide, its longer side `max_px` pixels unless its own pixels are fewer; a tiny one is enlarged."""
    dimensions, mpp = geometry(facts)
    longer = max(side * value for side, value in zip(dimensions, mpp, strict=True))
    picture = read_overview(reader, mpp, max(longer / max_px, *mpp))
    times = min(_SMALLEST, max_px) // max(picture.shape[:2])
    return picture if times < 2 else cv2.resize(picture, None, fx=times, fy=times, interpolation=cv2.INTER_NEAREST)


def _check_out(path: Path, out: Path) -> None:
    if out.suffix.lower() not in SUFFIXES:
        raise HistillError(f"{out}: is no name of a PNG or JPEG", mend=f"end it in one of {', '.join(SUFFIXES)}")
    if out.is_dir():
        raise HistillError(f"{out} is a folder", mend="name a picture inside it")
    if out.exists() and out.samefile(path):
        raise HistillError(f"{out} is the slide itself", mend="name another file with --out")


def _write(out: Path, page: np.ndarray) -> None:
    options = [] if out.suffix.lower() == ".png" else [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    done, data = cv2.imencode(out.suffix.lower(), cv2.cvtColor(page, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise SlideError(f"{out}: a picture of {page.shape[1]} × {page.shape[0]} pixels cannot be encoded")
    try:
        with atomic_file(out) as part:
            part.write_bytes(data.tobytes())
    except OSError as error:
        raise HistillError(
            f"{out}: cannot be written: {error.strerror}", mend="name another place with --out"
        ) from None
