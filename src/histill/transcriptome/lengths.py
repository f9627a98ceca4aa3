"""Gene lengths, for TPM and FPKM of counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from histill.errors import HistillError
from histill.transcriptome.read_columns import read_columns

COLUMNS = ("length", "eff_length", "effective_length", "effectivelength", "gene_length", "size")
COVERED = 0.9


def read_lengths(path: str | Path) -> dict[str, float]:
    """Length in bases of each gene, from a table (csv, tsv, parquet) of genes in rows, named in its first column.

    The column of lengths is the only one, or the one called `length` (featureCounts), `EffectiveLength` (salmon) or the
    like. Of a gene that occurs more than once, the longest counts.

    Raises
    ------
    HistillError
        When no column is told to hold lengths, or a length is not above 0.
    """
    columns = read_columns(path, lambda header: ([0], []))
    genes = next(iter(columns.text.values()))
    named = [index for index, name in enumerate(columns.names) if name.strip().lower() in COLUMNS]
    named = named or ([0] if len(columns.names) == 1 else [])
    if len(named) != 1:
        raise HistillError(
            f"{path}: {len(named)} of {len(columns.names)} columns are named like gene lengths",
            mend=f"call one column of gene lengths in bases by one of: {', '.join(COLUMNS)}",
        )
    lengths = columns.values[:, named[0]]
    wrong = np.flatnonzero(~(lengths > 0) | np.isinf(lengths))
    if len(wrong):
        raise HistillError(
            f"{path}: gene '{genes[wrong[0]]}' has length {lengths[wrong[0]]:g} ({len(wrong)} such genes)",
            mend="give lengths in bases above 0, or remove the genes",
        )
    order = np.argsort(lengths, kind="stable")
    return {genes[index]: float(lengths[index]) for index in order}


def lengths_of(path: str | Path, lengths: dict[str, float], genes: list[str]) -> np.ndarray:
    """Length of each gene [genes], NaN where it is not known.

    Raises
    ------
    HistillError
        When fewer than 90 % of the genes have one: a TPM of the rest would be of a selection.
    """
    found = np.array([lengths.get(gene, np.nan) for gene in genes])
    known = int(np.isfinite(found).sum())
    if known < COVERED * len(genes):
        raise HistillError(
            f"{path} has the lengths of {known} of {len(genes)} genes",
            mend="give the annotation that the reads were counted with, by the ids of the expression table",
        )
    return found
