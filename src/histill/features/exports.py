"""Feature stores into the files of other tools (`bag_writers`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from histill.batches import collect
from histill.errors import HistillError
from histill.features.bag_writers import FORMATS, Tiles
from histill.features.store import read_group, read_recipe, store_path, verify
from histill.magnifications import MAGNIFICATIONS
from histill.provenance import OK, read_json

_OBJECTIVES = (5, 10, 20, 40, 60, 80)
# Of an import's settings: what every layout says anew, and the unit of coordinates that are level-0 pixels by now.
_OUTDATED = ("name", "savetodir", "save_path", "encoder", "unit")


@dataclass
class Exported:
    """What was written, and what was not."""

    files: list[Path] = field(default_factory=list)
    slides: int = 0
    rows: int = 0
    unreadable: int = 0
    notes: list[str] = field(default_factory=list)


def stores_of(results: str | Path, encoder: str) -> tuple[list[Path], list[str]]:
    """Stores that an encoder made of the slides of a run, and a note on every slide that has none.

    Raises
    ------
    HistillError
        When it made none, naming the encoders that did.
    """
    results = Path(results)
    stores, notes = [], []
    for receipt in collect([results / "receipts" / "features.json"]):
        path = store_path(encoder, receipt.slide)
        if receipt.state == OK and path in receipt.outputs:
            stores.append(results / path)
        elif receipt.state == OK:
            notes.append(f"slide {receipt.slide} is left out: it has no features of '{encoder}'")
        else:
            notes.append(f"slide {receipt.slide} is left out: {receipt.state} ({receipt.reason})")
    if not stores:
        there = sorted(path.name for path in (results / "features").glob("[!.]*")) or ["none"]
        raise HistillError(f"{results} holds no features of '{encoder}'", mend=f"encoders there: {', '.join(there)}")
    return stores, notes


def export(
    stores: Iterable[str | Path],
    *,
    to: str,
    out: str | Path,
    magnification: str | None = None,
    overlap: float | None = None,
) -> Exported:
    """Write stores in the layout of another tool; both magnifications without `magnification`.

    Parameters
    ----------
    to
        A name of `bag_writers.FORMATS`.
    out
        Folder; files of the same names are replaced.
    overlap
        Share of a tile's side that neighbours have in common; None reads it from the run's `config.json`.

    Raises
    ------
    HistillError
        For a store that is damaged or lacks the magnification, for settings that the layout needs and nobody knows,
        and for a folder that cannot be written.
    """
    if to not in FORMATS:
        raise HistillError(f"there is no format '{to}'", mend=f"use one of {', '.join(FORMATS)}")
    stores, done = [Path(store) for store in stores], Exported()
    twice = [name for name, count in Counter(store.stem for store in stores).items() if count > 1]
    if twice:
        raise HistillError(
            f"slide {twice[0]} has more than one store here, of which one would overwrite the other",
            mend="export each encoder to a folder of its own",
        )
    for store in stores:
        record = verify(store)
        names = [magnification] if magnification else sorted(record["groups"])
        slides = [_tiles(store, name, overlap) for name in names]
        try:
            done.files += FORMATS[to](slides, Path(out))
        except (OSError, RuntimeError) as error:  # torch tells a full disk as the latter
            reason = str(getattr(error, "strerror", None) or error).splitlines()[0]
            raise HistillError(
                f"{out}: cannot be written: {reason}", mend="check the folder and the space left"
            ) from None
        done.slides += 1
        done.rows += sum(len(tiles.group.x) for tiles in slides)
        done.unreadable += sum(int((~tiles.group.valid).sum()) for tiles in slides)
    if done.unreadable:
        what = "are flagged (valid)" if to in ("h5ad", "lazyslide") else "are left out"
        done.notes.append(f"{done.unreadable} of {done.rows} tiles could not be read and {what}")
    return done


def _tiles(store: Path, name: str, overlap: float | None) -> Tiles:
    group, recipe = read_group(store, name), read_recipe(store, name)
    group.x = group.x.astype(np.float32)
    settings = _settings(store, name, recipe, overlap)
    return Tiles(store.stem, store.absolute().parent.name, name, group, recipe, settings)


def _settings(store: Path, name: str, recipe: dict[str, Any], overlap: float | None) -> dict[str, Any]:
    """What is known of the tiles: the settings an import came with, or those of the slide and the run."""
    if "attributes" in recipe:
        return {key: value for key, value in recipe["attributes"].items() if key not in _OUTDATED}
    results = store.absolute().parents[2]
    slide = results / "slides" / store.stem / "slide.json"
    if name not in MAGNIFICATIONS or "tile_size" not in recipe or not slide.is_file():
        return {}
    if overlap is None:
        overlap = read_json(results / "config.json")["tiles"]["overlap"]
    facts, size, tile_mpp = read_json(slide), recipe["tile_size"], MAGNIFICATIONS[name]
    mpp = facts["mpp"]["x"]
    # Neighbouring 10x tiles share this much; so do the 20x children of two of them, in twice as many pixels.
    shared = round(size * overlap * MAGNIFICATIONS["10x"] / tile_mpp)
    return {
        "patch_size": size,
        "patch_size_level0": round(size * tile_mpp / mpp),
        "level0_magnification": min(_OBJECTIVES, key=lambda power: abs(np.log(power * mpp / 10))),
        "target_magnification": int(name.rstrip("x")),
        "overlap": shared,
        "level0_width": facts["width"],
        "level0_height": facts["height"],
        "mpp": mpp,
        "tile_mpp": tile_mpp,
    }
