"""The planted cohort on disk: features, counts and outcomes from known factors, without a pixel (`planted_design`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from histill.config import complete
from histill.demo.expression import write_counts
from histill.demo.planted_design import (
    CLASSES,
    FACTORS,
    KINDS,
    Appearance,
    Level,
    Patients,
    draw_counts,
    draw_patients,
    partners,
    slide_stream,
)
from histill.errors import HistillError
from histill.provenance import OK, Receipt, atomic_file, write_csv, write_json
from histill.stages import recipe

ENCODER = "planted"
README = """histill planted cohort
======================

Everything here is drawn from random numbers: no patient, tissue or measurement stands behind any of it. There are no
slides, only features of their tiles as an encoder might give them.

{patients} patients with one slide each, {coarse} tiles at 10x and {fine} at 20x a slide, {dim} dimensions, seed {seed}
transcriptomes: {pairing}

results/features/{encoder}/   a store a slide, as histill extracts them
results/receipts/        says that these features are done
slides.csv               one row a slide; path names the store's own entry, since there is no slide
clinical.csv             os_months, os_event (1 death, 0 censored), diagnosis ({classes})
expression.tsv.gz        raw counts, genes in rows, patients in columns
truth.parquet            slide, magnification, tile (row of its group), cluster: for checks only, never an input
factors.csv              the hidden factors of each patient, likewise
config.yaml              run: snakemake --cores all --configfile {folder}/config.yaml
                         (in the folder that this one was made from; paths are relative to it)
"""


StoreWriter = Callable[[Path, Mapping[str, Level], dict[str, Any]], dict[str, Any]]


def make(
    folder: str | Path,
    write_store: StoreWriter,
    *,
    patients: int = 400,
    tiles: int = 160,
    dim: int = 64,
    seed: int = 0,
    permute_genes: bool = False,
) -> None:
    """Write the cohort below `folder`, ready to run.

    Parameters
    ----------
    write_store
        `histill.features.store.write_store`: the stores are of a later layer than this module.
    tiles
        20x tiles a slide, a multiple of 4; there is one 10x tile to four of them.
    dim
        Dimensions of the features, at least 2 × `FACTORS`.
    permute_genes
        Give every patient the transcriptome of another one. Nothing else changes.

    Raises
    ------
    HistillError
        When `tiles` or `dim` cannot be had.
    """
    if tiles < 12 or tiles % 4:
        raise HistillError(f"--tiles {tiles}: 10x tiles have four 20x tiles each", mend="give a multiple of 4 over 11")
    if dim < 2 * FACTORS:
        raise HistillError(f"--dim {dim}: the factors alone need {2 * FACTORS}", mend=f"give {2 * FACTORS} or more")
    folder = Path(folder)
    cohort = draw_patients(patients, seed)
    genes, counts = draw_counts(cohort, seed)
    if permute_genes:
        counts = counts[:, partners(patients, seed)]
    config = _config(folder)
    receipts, truth = _write_stores(cohort, folder, config, write_store, tiles=tiles, dim=dim, seed=seed)
    _write_truth(folder / "truth.parquet", truth)
    _write_sheets(cohort, folder)
    with atomic_file(folder / "expression.tsv.gz") as part:
        write_counts(part, genes, cohort.ids, counts)
    with atomic_file(folder / "config.yaml") as part:
        part.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    with atomic_file(folder / "README.txt") as part:
        text = README.format(
            patients=patients,
            coarse=tiles // 4,
            fine=tiles,
            dim=dim,
            seed=seed,
            pairing="permuted over the patients; nothing can be learnt from them"
            if permute_genes
            else "of every patient",
            encoder=ENCODER,
            classes=", ".join(CLASSES),
            folder=folder,
        )
        part.write_text(text, encoding="utf-8")
    # Last: with it the features count as done.
    write_json(
        folder / "results" / "receipts" / "features.json",
        {"stage": "features", "slides": [asdict(receipt) for receipt in receipts]},
    )


def _config(folder: Path) -> dict[str, Any]:
    """Config of a run on the cohort; what is left out stands at its default."""
    return {
        "results": str(folder / "results"),
        "cohort": {
            "slides": str(folder / "slides.csv"),
            "clinical": str(folder / "clinical.csv"),
            "expression": str(folder / "expression.tsv.gz"),
        },
        "features": {"source": "bags", "encoder": ENCODER},
        "transcriptome": {"matrix": {"unit": "counts", "ids": "symbol"}},
        "tasks": {
            "survival": {"type": "survival", "time": "os_months", "event": "os_event", "bins": 4},
            "diagnosis": {"type": "classification", "label": "diagnosis"},
        },
        "folds": {"n": 3},
        "methods": {"run": ["disentangled", "wsi-only", "linear-slide", "linear-rna", "linear-both"]},
    }


def _write_stores(
    cohort: Patients,
    folder: Path,
    config: dict[str, Any],
    write_store: StoreWriter,
    *,
    tiles: int,
    dim: int,
    seed: int,
) -> tuple[list[Receipt], dict[str, list[np.ndarray]]]:
    """Write a store a patient; returns the receipts of the features stage and the columns of the truth."""
    appearance, asked = Appearance(dim, seed), recipe("features_import", complete(config))
    receipts: list[Receipt] = []
    truth: dict[str, list[np.ndarray]] = {"slide": [], "magnification": [], "tile": [], "cluster": []}
    for index, patient in enumerate(cohort.ids):
        slide = slide_id(patient)
        levels = appearance.slide(
            {subspace: z[index] for subspace, z in cohort.factors.items()}, tiles, slide_stream(seed, index)
        )
        path = store_path(slide)
        record = write_store(folder / "results" / path, levels, {"encoder": ENCODER, "source": "planted"})
        receipts.append(
            Receipt(
                slide,
                "features",
                OK,
                asked,
                outputs={path: record["digest"]},
                counts={name: len(level.x) for name, level in levels.items()},
                info={"patient_id": patient, "dim": dim, "encoder": ENCODER},
            )
        )
        for name, level in levels.items():
            for column, values in (("slide", slide), ("magnification", name)):
                truth[column].append(np.full(len(level.x), values))
            truth["tile"].append(np.arange(len(level.x)))
            truth["cluster"].append(np.array(KINDS)[level.kind])
    return receipts, truth


def slide_id(patient: str) -> str:
    return f"{patient}-1"


def store_path(slide: str) -> str:
    """Where a slide's store lies, relative to the results folder."""
    return f"features/{ENCODER}/{slide}.zarr"


def _write_truth(path: Path, columns: dict[str, list[np.ndarray]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with atomic_file(path) as part:
        pq.write_table(pa.table({name: np.concatenate(parts) for name, parts in columns.items()}), part)


def _write_sheets(cohort: Patients, folder: Path) -> None:
    slides = [
        {
            "slide_id": slide_id(patient),
            "patient_id": patient,
            "path": folder / "results" / store_path(slide_id(patient)) / "zarr.json",
        }
        for patient in cohort.ids
    ]
    write_csv(folder / "slides.csv", ["slide_id", "patient_id", "path"], slides)
    rows = zip(cohort.ids, cohort.months, cohort.event, cohort.diagnosis, strict=True)
    clinical = [
        {"patient_id": p, "os_months": f"{months:.2f}", "os_event": event, "diagnosis": CLASSES[label]}
        for p, months, event, label in rows
    ]
    write_csv(folder / "clinical.csv", list(clinical[0]), clinical)
    factors = [
        {"patient_id": p}
        | {f"{subspace}_{k + 1}": f"{z[row, k]:.4f}" for subspace, z in cohort.factors.items() for k in range(FACTORS)}
        for row, p in enumerate(cohort.ids)
    ]
    write_csv(folder / "factors.csv", list(factors[0]), factors)
