"""Counts of the synthetic cohort: negative binomial, two gene programmes driven by the patients' factors."""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import Any

import numpy as np

import histill
from histill.demo.design import EXPRESSED, EXPRESSION, DemoPatient, stream
from histill.errors import HistillError
from histill.subspaces import SUBSPACES
from histill.transcriptome.gene_sets import SHIPPED, members, read_gmt

BACKGROUND = Path(histill.__file__).parent / "resources" / "demo" / "background_genes.txt"
MEDIAN_COUNT = {
    "programme": 120.0,
    "background": 3000.0,
}  # background carries the depth, or a sample's total tells its t
RESPONDING = 0.75  # share of a programme's genes that follow its factor
LOADING = 0.40  # natural-log fold change of a responding gene per standard deviation of its factor
NUISANCE = 0.20  # the same for a third factor (purity, handling) that every gene follows in its own direction


def programme_genes(folder: Path = SHIPPED) -> dict[str, list[str]]:
    """Genes of the programmes `tumor` and `microenvironment` from the GMT files of a folder, sorted."""
    return {name: sorted(set(members(read_gmt(folder / f"{name}.gmt")))) for name in SUBSPACES}


def background_genes(path: Path = BACKGROUND) -> list[str]:
    """Symbols that follow neither factor, one a line in the file."""
    try:
        genes = path.read_text(encoding="utf-8").split()
    except OSError as error:
        raise HistillError(f"{path} cannot be read: {error.strerror}", mend="install histill again") from None
    if not genes:
        raise HistillError(f"{path} holds no gene", mend="install histill again")
    return genes


def counts(
    options: dict[str, Any],
    patients: tuple[DemoPatient, ...],
    programmes: dict[str, list[str]],
    background: list[str],
) -> tuple[list[str], list[str], np.ndarray]:
    """Raw counts of the patients with RNA.

    Returns
    -------
    genes
        Sorted symbols; a gene of both programmes follows both factors, a background gene none.
    samples
        Patient ids, in the order of the cohort.
    counts
        int64 [genes, samples]. Variance is mean + dispersion * mean²; dispersion differs by gene, depth by sample.
    """
    rng = stream(options, EXPRESSION)
    genes = sorted({*background, *(gene for genes in programmes.values() for gene in genes)})
    followed = np.array([[gene in members for members in map(set, programmes.values())] for gene in genes])
    # Draw for every patient, so that who has RNA does not change anybody's counts.
    latents = np.array([(patient.tumor, patient.microenvironment) for patient in patients])
    activity = EXPRESSED * latents + math.sqrt(1 - EXPRESSED**2) * rng.standard_normal(latents.shape)
    loading = np.abs(rng.normal(LOADING, 0.15, followed.shape)) * (rng.random(followed.shape) < RESPONDING) * followed
    nuisance = np.outer(rng.normal(0, NUISANCE, len(genes)), rng.standard_normal(len(patients)))
    median = np.where(followed.any(1, keepdims=True), MEDIAN_COUNT["programme"], MEDIAN_COUNT["background"])
    base = rng.normal(np.log(median), 1.1)
    depth = rng.normal(0, 0.35, len(patients))
    mean = np.exp(base + depth + loading @ activity.T + nuisance)
    dispersion = np.exp(rng.normal(math.log(0.15), 0.5, (len(genes), 1)))
    drawn = rng.poisson(rng.gamma(1 / dispersion, mean * dispersion))
    sequenced = [index for index, patient in enumerate(patients) if patient.has_rna]
    return genes, [patients[index].patient_id for index in sequenced], drawn[:, sequenced]


def write_counts(path: Path, genes: list[str], samples: list[str], table: np.ndarray) -> None:
    """Write a gzipped tsv, genes in rows; the same table gives the same bytes."""
    lines = ["\t".join(["gene", *samples])]
    lines += ["\t".join([gene, *map(str, row)]) for gene, row in zip(genes, table.tolist(), strict=True)]
    # gzip stores the file's name and the time unless told not to.
    with open(path, "wb") as raw, gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed:
        packed.write(("\n".join(lines) + "\n").encode())
