"""Identifiers of genes and samples: which axis holds the genes, symbols, duplicates, TCGA barcodes."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache

import numpy as np

from histill.errors import HistillError
from histill.subspaces import SUBSPACES
from histill.transcriptome.gene_sets import SHIPPED, members, read_gmt

ENSEMBL = re.compile(r"ENS[A-Z]{0,4}G\d{6,}")
SYMBOL_ENTREZ = re.compile(r"([^|]+)\|(\d+)")
BARCODE = re.compile(r"TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}(?:-(\d\d)[A-Z]?(?:-.*)?)?", re.IGNORECASE)
# Made of gene symbols by spreadsheets: SEPT2 -> 2-Sep, MARCH1 -> 1-Mar.
DATE = re.compile(r"\d{1,2}-(?:Mar|Sep|Dec|Oct)", re.IGNORECASE)
# Lines below the genes in the tables of HTSeq and STAR: reads counted for no gene.
SUMMARY = re.compile(r"__\w+|N_(?:unmapped|multimapping|noFeature|ambiguous)")
PATIENT_CHARACTERS = 12
MIN_GENE_NAMES = 5


@cache
def known_symbols() -> frozenset[str]:
    """Gene symbols of the shipped gene sets."""
    return frozenset(g for space in SUBSPACES for g in members(read_gmt(SHIPPED / f"{space}.gmt")))


def gene_names(names: list[str]) -> int:
    """How many names are surely genes: known symbols, `SYMBOL|ENTREZ` pairs, Ensembl ids."""
    known = known_symbols()
    return sum(
        name in known or SYMBOL_ENTREZ.fullmatch(name) is not None or ENSEMBL.match(name) is not None
        for name in set(names)
    )


def genes_axis(path: str, rows: list[str], columns: list[str], setting: str) -> str:
    """The axis that holds the genes, `rows` or `columns`; `setting` other than `auto` decides.

    By evidence only: at least five names of one axis are surely genes, and at most a tenth as many of the other.

    Raises
    ------
    HistillError
        When the names do not say.
    """
    if setting != "auto":
        return setting
    found = {"rows": gene_names(rows), "columns": gene_names(columns)}
    axis, other = sorted(found, key=found.__getitem__, reverse=True)
    if found[axis] < MIN_GENE_NAMES or 10 * found[other] > found[axis]:
        raise HistillError(
            f"{path}: cannot tell which axis holds the genes: {found['rows']} of {len(rows)} row names (such as "
            f"{rows[0]!r}) and {found['columns']} of {len(columns)} column names (such as {columns[0]!r}) "
            "are known gene symbols",
            mend="set transcriptome.matrix.genes to rows or columns",
        )
    return axis


def symbols(path: str, names: list[str]) -> list[str | None]:
    """Gene symbol of each name; None where it has none (`?|100130426`, an empty name).

    Raises
    ------
    HistillError
        For Ensembl ids, which need an annotation to become symbols.
    """
    ensembl = [name for name in names if ENSEMBL.match(name)]
    if ensembl:
        raise HistillError(
            f"{path}: {len(ensembl)} of {len(names)} genes are Ensembl ids (such as {ensembl[0]}); "
            "histill reads gene symbols",
            mend="name the genes by HGNC symbol, with the annotation that the matrix was counted with",
        )
    found: list[str | None] = []
    for name in names:
        pair = SYMBOL_ENTREZ.fullmatch(name)
        symbol = (pair.group(1) if pair else name).strip()
        found.append(symbol if symbol not in ("", "?") else None)
    return found


def summary_lines(names: list[str]) -> list[int]:
    """Positions of names that are read counters of HTSeq or STAR (`__no_feature`, `N_unmapped`), not genes."""
    return [index for index, name in enumerate(names) if SUMMARY.fullmatch(name)]


def spreadsheet_dates(names: list[str]) -> list[str]:
    """Names that a spreadsheet has turned into dates."""
    return [name for name in names if DATE.fullmatch(name)]


def merge_duplicates(
    values: np.ndarray, genes: list[str], *, average: bool
) -> tuple[np.ndarray, list[str], dict[str, int]]:
    """One column a gene: columns of the same symbol are summed, or averaged where values are on a log scale.

    Parameters
    ----------
    values
        [samples, genes].

    Returns
    -------
    values, genes
        Genes in the order of their first column.
    merged
        Symbol -> number of columns, of those that were more than one.
    """
    counts = Counter(genes)
    merged = {gene: count for gene, count in counts.items() if count > 1}
    if not merged:
        return values, genes, {}
    unique = list(counts)
    position = {gene: index for index, gene in enumerate(unique)}
    target = np.array([position[gene] for gene in genes])
    total = np.zeros((len(unique), len(values)), dtype=np.float64)
    np.add.at(total, target, values.T)
    if average:
        total /= np.array([counts[gene] for gene in unique])[:, None]
    return total.T.astype(values.dtype), unique, merged


def patients_of_barcodes(path: str, samples: list[str]) -> tuple[list[str], list[int], list[str]]:
    """Patients of TCGA barcodes, tumour samples only.

    Sample types 01 to 09 are tumours, 10 to 19 normal tissue, 20 and above controls. A barcode of a patient alone
    (`TCGA-A8-A08X`) is taken as its tumour.

    Returns
    -------
    patients
        Patient (first 12 characters) of each kept sample.
    kept
        Positions of the kept samples.
    dropped
        Barcodes of normal and control samples.
    """
    patients, kept, dropped, wrong = [], [], [], []
    for index, sample in enumerate(samples):
        barcode = BARCODE.fullmatch(sample.replace(".", "-"))
        if barcode is None:
            wrong.append(sample)
        elif barcode.group(1) is not None and not 1 <= int(barcode.group(1)) <= 9:
            dropped.append(sample)
        else:
            patients.append(sample.replace(".", "-")[:PATIENT_CHARACTERS].upper())
            kept.append(index)
    if wrong:
        raise HistillError(
            f"{path}: {len(wrong)} of {len(samples)} sample ids are no TCGA barcodes, such as {wrong[0]!r}",
            mend="set transcriptome.matrix.patient to same, or correct the ids",
        )
    return patients, kept, dropped
