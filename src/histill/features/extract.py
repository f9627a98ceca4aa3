"""Feature extraction: every kept tile of a slide through the encoder, both magnifications from one read.

The region of a 10x tile is read once at 20x; its quarters are the four 20x tiles, and its 2 × 2 average is the 10x
tile. A tile that cannot be read becomes a flagged row (`valid` False, zeros), never silent white.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from histill import isolation
from histill.batches import run_batch
from histill.cohort.sheets import Slide
from histill.encoders import recipes
from histill.encoders.build import Encoder, build
from histill.encoders.prefetch import for_run
from histill.errors import SlideError
from histill.features import stain
from histill.features.store import Group, store_path, write_store
from histill.magnifications import MAGNIFICATIONS
from histill.provenance import EMPTY, Receipt, digest, file_digest, read_json, tree_digest, unchanged
from histill.slides import tile
from histill.slides.readers import SlideReader, open_slide
from histill.slides.table import read as read_tiles
from histill.stages import recipe

CHILDREN = 4


def run(slides: list[Slide], *, config: dict[str, Any], results: str | Path) -> list[Receipt]:
    """Extract features of a batch of slides; the encoder is built once, when the first slide needs it."""
    results = Path(results)
    options = config["features"]
    entry = recipes.get(options["encoder"])
    off_recipe = recipes.check(
        entry.name,
        tile_size=config["tiles"]["size"],
        mpps=MAGNIFICATIONS,
        allow_off_recipe=options["allow_off_recipe"],
        stain_normalisation=options["stain_normalisation"],
    )
    method = recipes.stain_method(entry.name, options["stain_normalisation"])
    described = {**entry.as_dict(), "off_recipe": off_recipe, "tile_size": config["tiles"]["size"]}
    described["stain"] = {"method": method, "target": stain.target(method)}
    weights = for_run(entry, given=options["weights"], receipt=results / "receipts" / "encoder.json")
    identity = digest([entry.as_dict(), weights.identity if weights else None])
    described["weights"] = {"revision": weights.revision, "sha256": weights.sha256} if weights else None
    built: list[Encoder] = []

    def encoder() -> Encoder:
        if not built:
            built.append(build(entry, weights=weights, device=options["device"]))
        return built[0]

    def inputs(slide: Slide) -> dict[str, str]:
        folder = results / "slides" / slide.slide_id
        found = {
            "tiles": file_digest(folder / "tiles.parquet"),
            "slide": read_json(folder / "slide.json")["fingerprint"],
            "encoder": identity,
        }
        return found if method == "none" else found | {"stain": file_digest(folder / tile.QUALITY)}

    def work(slide: Slide, receipt: Receipt) -> None:
        groups = extract(slide, results, encoder(), config)
        path = store_path(entry.name, slide.slide_id)
        write_store(results / path, groups, described)
        receipt.outputs = {path: tree_digest(results / path)}
        receipt.counts = {name: len(group.x) for name, group in groups.items()}
        receipt.counts["unreadable"] = sum(int((~group.valid).sum()) for group in groups.values())
        receipt.info = {"encoder": entry.name, "dim": entry.dim, "patient_id": slide.patient_id}
        receipt.info["stain_normalisation"] = method
        receipt.warnings = list(off_recipe)
        rows = sum(len(group.x) for group in groups.values())
        if rows == 0:
            receipt.state, receipt.reason = EMPTY, "no tile is kept, so the bag is empty"
            receipt.mend = "look at the overview with: histill doctor <slide>"
        elif receipt.counts["unreadable"]:
            receipt.warnings.append(f"{receipt.counts['unreadable']} of {rows} tiles could not be read")

    def on_empty(slide: Slide, receipt: Receipt) -> None:
        """A bag of zero rows: whoever opens the store of any slide that could be read finds one."""
        path = store_path(entry.name, slide.slide_id)
        nothing = {
            name: Group(
                np.zeros((0, entry.dim), np.float16),
                np.zeros((0, 2), np.int64),
                {
                    "tile": np.zeros(0, np.int32),
                    "parent": np.zeros(0, np.int32),
                    "valid": np.zeros(0, bool),
                    "tissue": np.zeros(0, np.float32),
                },
            )
            for name in MAGNIFICATIONS
        }
        write_store(results / path, nothing, described)
        receipt.outputs = {path: tree_digest(results / path)}
        receipt.counts = {**dict.fromkeys(MAGNIFICATIONS, 0), "unreadable": 0}

    return run_batch(
        "features",
        slides,
        work,
        results=results,
        recipe=recipe("features", config),
        inputs=inputs,
        before="tiles",
        on_empty=on_empty,
        on_error=config["on_error"],
    )


def extract(slide: Slide, results: Path, encoder: Encoder, config: dict[str, Any]) -> dict[str, Group]:
    """Features of one slide at both magnifications, rows in the order of the tile table.

    A child process reads the next tiles while this one encodes (`isolation`); the limit of time holds for every batch
    of tiles.
    """
    size, batch_size = config["tiles"]["size"], config["features"]["batch_size"]
    tiles = _kept_tiles(results / "slides" / slide.slide_id / "tiles.parquet")
    parents = len(tiles["10x"]["tile"])
    x = {name: np.zeros((len(table["tile"]), encoder.dim), np.float16) for name, table in tiles.items()}
    valid = {name: np.zeros(len(table["tile"]), bool) for name, table in tiles.items()}
    if parents:
        folder = results / "slides" / slide.slide_id
        info = read_json(folder / "slide.json")
        method = recipes.stain_method(config["features"]["encoder"], config["features"]["stain_normalisation"])
        normalise = stain.normaliser(
            method, {} if method == "none" else read_json(folder / tile.QUALITY), slide.slide_id
        )

        def read() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            how = {key: config["slides"][key] for key in ("icc", "resample")}
            with unchanged(slide.path), open_slide(slide.path, info["reader"], **how) as reader:
                for rows, fields in _fields(reader, tiles["10x"], size, max(1, batch_size // CHILDREN)):
                    yield rows, fields if normalise is None else normalise(fields)

        what, again = f"{slide.path}: stage features", "snakemake -R features_batch"
        with closing(isolation.stream(read, what=what, again=again, **isolation.limits(config))) as batches:
            for rows, fields in batches:
                children = (CHILDREN * rows[:, None] + np.arange(CHILDREN)).ravel()
                x["20x"][children] = _half_precision(encoder.encode(_quarters(fields, size), MAGNIFICATIONS["20x"]))
                x["10x"][rows] = _half_precision(encoder.encode(_averages(fields, size), MAGNIFICATIONS["10x"]))
                valid["10x"][rows] = True
                valid["20x"][children] = True
    return {
        name: Group(
            x=x[name],
            spatial=np.column_stack([table["x"], table["y"]]).astype(np.int64),
            obs={
                "tile": table["tile"],
                "parent": np.repeat(np.arange(parents, dtype=np.int32), CHILDREN)
                if name == "20x"
                else np.full(parents, -1, np.int32),
                "valid": valid[name],
                "tissue": table["tissue"],
            },
            var_names=encoder.names,
        )
        for name, table in tiles.items()
    }


def _kept_tiles(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """Columns of the kept tiles by magnification; 20x rows ordered by parent, four each."""
    columns = read_tiles(path)
    columns["tile"] = np.arange(len(columns["x"]), dtype=np.int32)
    fine, coarse = columns["magnification"] == "20x", columns["magnification"] == "10x"
    coarse_rows = np.flatnonzero(coarse & columns["keep"])
    fine_rows = np.flatnonzero(fine & np.isin(columns["parent"], coarse_rows))
    fine_rows = fine_rows[np.argsort(columns["parent"][fine_rows], kind="stable")]
    if not np.array_equal(columns["parent"][fine_rows], np.repeat(coarse_rows, CHILDREN)):
        raise SlideError(
            f"{path.name}: a 10x tile does not have its four 20x children", mend="run: snakemake -R tiles_batch"
        )
    return {
        name: {key: values[rows] for key, values in columns.items()}
        for name, rows in (("10x", coarse_rows), ("20x", fine_rows))
    }


def _fields(
    reader: SlideReader, tiles: dict[str, np.ndarray], size: int, count: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of (rows, uint8 RGB fields [B, 2·size, 2·size, 3]) of the 10x tiles that can be read.

    Raises
    ------
    SlideError
        If none of them can: why the last one cannot.
    """
    rows, fields, number, bad = [], [], len(tiles["tile"]), 0
    for row in range(number):
        box = (int(tiles[key][row]) for key in ("x", "y", "width", "height"))
        try:
            fields.append(reader.read_region(*box, 2 * size, 2 * size))
        except SlideError as error:
            bad += 1
            if bad == number:
                problem = f"none of its {number} fields can be read; the last one: {error.message}"
                raise SlideError(problem, mend=error.mend) from error
            continue  # the row stays flagged invalid; the caller counts and reports it
        rows.append(row)
        if len(rows) == count:
            yield np.array(rows), np.stack(fields)
            rows, fields = [], []
    if rows:
        yield np.array(rows), np.stack(fields)


def _quarters(fields: np.ndarray, size: int) -> np.ndarray:
    """The 20x tiles [4·B, size, size, 3] of fields, row-major within each field."""
    count = len(fields)
    split = fields.reshape(count, 2, size, 2, size, 3).transpose(0, 1, 3, 2, 4, 5)
    return split.reshape(CHILDREN * count, size, size, 3)


def _averages(fields: np.ndarray, size: int) -> np.ndarray:
    """The 10x tiles [B, size, size, 3] of fields: exact 2 × 2 area average."""
    return np.stack([cv2.resize(field, (size, size), interpolation=cv2.INTER_AREA) for field in fields])


def _half_precision(values: np.ndarray) -> np.ndarray:
    """float16, refusing what does not fit rather than storing infinity."""
    if len(values) and not np.abs(values).max() <= np.finfo(np.float16).max:
        raise SlideError("the encoder gave values that float16 cannot hold", mend="report this encoder and slide")
    return values.astype(np.float16)
