"""Features made elsewhere into the feature store: one vector a slide from a table, or bags of tiles from files."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from histill.batches import run_batch, write_batch
from histill.cohort.sheets import MAX_PROBLEMS_A_SHEET, Sheets, Slide
from histill.config import schema
from histill.errors import ConfigError, SlideError
from histill.features.bag_files import peek, read_bag
from histill.features.hdf5_bags import companion
from histill.features.store import Group, store_path, write_store
from histill.provenance import EMPTY, Receipt, fingerprint
from histill.slides.readers import check_file
from histill.stages import recipe as stage_recipe


def run(*, config: dict[str, Any], results: str | Path, sheets: Sheets) -> list[Receipt]:
    """Import what `features.source` names and write `receipts/features.json`.

    Parameters
    ----------
    config
        A complete config with `features.source` `table` or `bags`; the store is named `features.encoder`.
    sheets
        For bags: each slide's `path` is its file.
    """
    options = config["features"]
    common: dict[str, Any] = {
        "name": options["encoder"],
        "results": results,
        "recipe": stage_recipe("features_import", config),
        "on_error": config["on_error"],
    }
    if options["source"] == "table":
        receipts = import_table(options["table"], **common)
    else:
        receipts = import_bags(list(sheets.slides.values()), **common)
    write_batch(Path(results) / "receipts" / "features.json", "features", receipts)
    return receipts


@dataclass(frozen=True)
class SlideVector:
    """A row of a table of slide vectors; `values` is float32 [D] and may hold NaN."""

    slide_id: str
    patient_id: str
    values: np.ndarray


def import_table(
    path: str | Path, *, name: str, results: str | Path, recipe: str, on_error: str = "quarantine"
) -> list[Receipt]:
    """Import a table with one feature vector a slide as stores with a group `slide` of one row.

    Missing values stay NaN, to be filled in the fold by what was fitted there; their number is in the receipt. A slide
    without any value is quarantined. Values are float32: such tables hold areas and counts beyond float16.

    Parameters
    ----------
    path
        csv, tsv (plain, .gz, .zip) or parquet with columns slide_id, patient_id, and numbers.

    Raises
    ------
    ConfigError
        With every problem of the table: ids that are missing, double or no file names, columns that are no numbers.
    """
    vectors, features = read_vectors(path)
    results = Path(results)
    columns = hashlib.sha256("\n".join(features).encode()).hexdigest()

    def inputs(vector: SlideVector) -> dict[str, str]:
        content = vector.patient_id.encode() + b"\n" + columns.encode() + vector.values.tobytes()
        return {"row": hashlib.sha256(content).hexdigest()[:20]}

    def work(vector: SlideVector, receipt: Receipt) -> None:
        # First of all: what is quarantined below still belongs to a patient.
        receipt.info = _info(vector.patient_id, name, len(features), path)
        missing = int(np.isnan(vector.values).sum())
        if missing == len(features):
            raise SlideError(f"{path}: slide '{vector.slide_id}' has no value", mend="fill its row or remove it")
        if missing:
            receipt.warnings.append(f"{missing} of {len(features)} values are missing")
        group = Group(
            x=vector.values[None],
            spatial=np.zeros((1, 2), np.int64),
            obs={"valid": np.ones(1, bool)},
            var_names=features,
        )
        _store(receipt, results, name, {"slide": group}, {"encoder": name, "source": Path(path).name})
        receipt.counts = {"slide": 1, "missing_values": missing}

    return run_batch("features", vectors, work, results=results, recipe=recipe, inputs=inputs, on_error=on_error)


def read_vectors(path: str | Path) -> tuple[list[SlideVector], list[str]]:
    """Rows of a table of slide vectors, sorted by slide id, and the names of its features."""
    from histill.transcriptome.read import read_columns

    ids = ("slide_id", "patient_id")

    def layout(header: list[str]) -> tuple[list[int], list[int]]:
        left_out = [index for index, column in enumerate(header) if column.lower() in ("", "unnamed: 0")]
        return [header.index(column) for column in ids if column in header], left_out

    table = read_columns(path, layout)
    problems = [f"{path}: has no column '{column}'" for column in ids if column not in table.text]
    if problems:
        raise ConfigError(problems)
    problems = [f"{path}: {problem}; remove the column or correct the cell" for problem in table.problems]
    twice = [column for column, count in Counter(table.names).items() if count > 1]
    problems.extend(f"{path}: feature column '{column}' occurs more than once" for column in twice)
    if not table.names:
        problems.append(f"{path}: has no feature column beside {' and '.join(ids)}")
    slides, patients = (table.text[column] for column in ids)
    problems.extend(_id_problems(path, slides, patients))
    beyond = np.argwhere(np.isinf(table.values) | (np.abs(table.values) > np.finfo(np.float32).max))
    problems.extend(
        f"{path}: slide '{slides[row]}': column '{table.names[column]}' is infinite or beyond float32"
        for row, column in beyond
    )
    if not slides:
        problems.append(f"{path}: holds no rows")
    if problems:
        more = len(problems) - MAX_PROBLEMS_A_SHEET
        raise ConfigError(problems if more <= 0 else [*problems[:MAX_PROBLEMS_A_SHEET], f"and {more} more problems"])
    values = table.values.astype(np.float32)
    vectors = [SlideVector(*ids, row) for *ids, row in zip(slides, patients, values, strict=True)]
    return sorted(vectors, key=lambda vector: vector.slide_id), table.names


def _id_problems(path: str | Path, slides: list[str | None], patients: list[str | None]) -> list[str]:
    properties = schema("slides")["properties"]
    problems: list[str] = []
    first: dict[str, int] = {}
    for row, (slide, patient) in enumerate(zip(slides, patients, strict=True), start=1):
        for column, value in (("slide_id", slide), ("patient_id", patient)):
            if value is None:
                problems.append(f"{path}, data row {row}: '{column}' is empty")
            elif not re.fullmatch(properties[column]["pattern"], value):
                problems.append(
                    f"{path}, data row {row}: {column} {value!r} is no safe file name: use letters, digits, '.', '_' "
                    "and '-' only, a letter or digit first, 100 characters at most"
                )
        if slide is None:
            continue
        if slide.casefold() in first:
            earlier = first[slide.casefold()]
            problems.append(f"{path}, data row {row}: slide_id '{slide}' occurs a second time (first in row {earlier})")
        first.setdefault(slide.casefold(), row)
    return problems


def import_bags(
    slides: list[Slide], *, name: str, results: str | Path, recipe: str, on_error: str = "quarantine"
) -> list[Receipt]:
    """Import bags of tile features, one file a slide, as the store's group `10x` or `20x`.

    Files are HDF5, AnnData (.h5ad) or tensors (.pt): `bag_files`. Their settings say which magnification they hold; one
    without any is taken for 20x with a warning. Rows with a value that is not finite are flagged (`valid` False,
    zeros). X is float16 where every value fits.
    """
    results = Path(results)
    seen = [peek(slide, name) for slide in slides]
    dims = Counter(dim for dim, _ in seen if dim is not None)
    groups = Counter(group for dim, group in seen if dim is not None and group is not None)
    common_dim, common_group = (counter.most_common(1)[0][0] if counter else None for counter in (dims, groups))

    def inputs(slide: Slide) -> dict[str, str]:
        check_file(Path(slide.path))
        found = {"bag": fingerprint(slide.path), "patient": slide.patient_id, "mpp": str(slide.mpp)}
        settings = companion(slide.path)
        return found | {"settings": fingerprint(settings)} if settings else found

    def work(slide: Slide, receipt: Receipt) -> None:
        bag = read_bag(slide, name)
        rows, dim = bag.x.shape
        if dim != common_dim:
            raise SlideError(
                f"{slide.path}: features have {dim} dimensions, those of {dims[common_dim]} other slides {common_dim}",
                mend="extract the slide again with the encoder of the others",
            )
        if bag.magnification != common_group:
            raise SlideError(
                f"{slide.path}: features are of {bag.magnification}, those of {groups[common_group]} other slides of "
                f"{common_group}",
                mend="extract the slide again at the magnification of the others, or import the two as two encoders",
            )
        if rows and not bag.valid.any():
            raise SlideError(
                f"{slide.path}: every row holds a value that is not finite, or is flagged as unreadable",
                mend="extract it again",
            )
        receipt.warnings = bag.warnings
        fits = not rows or np.abs(bag.x).max() <= np.finfo(np.float16).max
        group = Group(bag.x.astype(np.float16 if fits else np.float32), bag.spatial, {"valid": bag.valid})
        written = {"encoder": name, "source": Path(slide.path).name, "attributes": bag.attributes}
        _store(receipt, results, name, {bag.magnification: group}, written)
        receipt.counts = {bag.magnification: rows, "unreadable": int((~bag.valid).sum())}
        receipt.info = _info(slide.patient_id, name, dim, slide.path)
        if rows == 0:
            receipt.state, receipt.reason = EMPTY, f"{slide.path} holds a bag of zero rows"
            receipt.mend = "check the tissue of the slide where the features were made"

    return run_batch("features", slides, work, results=results, recipe=recipe, inputs=inputs, on_error=on_error)


def _store(receipt: Receipt, results: Path, name: str, groups: dict[str, Group], written: dict[str, Any]) -> None:
    path = store_path(name, receipt.slide)
    receipt.outputs = {path: write_store(results / path, groups, written)["digest"]}


def _info(patient: str, encoder: str, dim: int, path: str | Path) -> dict[str, Any]:
    return {"patient_id": patient, "dim": dim, "encoder": encoder, "source": Path(path).name}
