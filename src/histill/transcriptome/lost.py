"""Expression that is lost with names that lead to no symbol."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from histill.errors import HistillError
from histill.transcriptome import identifiers_dates, normalise
from histill.transcriptome.identifiers_detect import ENSEMBL

if TYPE_CHECKING:
    import pandas

MUCH = 0.05
TOO_MUCH = 0.2  # of a sample, of one name
# Genes without a symbol may hold as much where ribosomal RNA was left in.
UNNAMED_GENE = rf"{ENSEMBL}|[A-Z]{{2}}\d{{6}}\.\d+|LOC\d+|\?.*"


def to_unknown_names(path: str, own: np.ndarray, samples: list[str], mapping: pandas.DataFrame) -> list[str]:
    """Refuse a name of no known gene that holds much of a sample: a total, or an id beside the samples, does.

    Parameters
    ----------
    own
        [samples, genes] of counts, TPM or FPKM.
    mapping
        Of `identifiers.resolve`, one row a gene.

    Returns
    -------
    list of str
        A warning in place of the error where such names are kept as genes (`unknown_genes: keep`).

    Raises
    ------
    HistillError
        When one name holds more than a fifth of a sample.
    """
    given = mapping["given"].str.strip()
    nameless = (given == "") | given.str.fullmatch(UNNAMED_GENE)
    unknown = np.flatnonzero(mapping["found"].isin(["", "unknown"]) & ~nameless)
    if not len(unknown):
        return []
    share = np.array([row[unknown].max() / row.sum(dtype=np.float64) for row in own])
    sample = int(share.argmax())
    if share[sample] <= TOO_MUCH:
        return []
    gene = unknown[own[sample, unknown].argmax()]
    name = given.iloc[gene]
    text = f"'{name}', which is no known gene, holds {share[sample]:.0%} of sample '{samples[sample]}'"
    if mapping["found"].iloc[gene] == "unknown":
        return [text]
    raise HistillError(
        f"{path}: {text}",
        mend=f"remove '{name}' if it is no gene; if it is one, set transcriptome.matrix.unknown_genes to keep, or, "
        "where names are ids, name a table with its symbol in transcriptome.matrix.annotation",
    )


def warnings(own: np.ndarray, kept: np.ndarray, unit: str, mapping: pandas.DataFrame) -> list[str]:
    """Warnings about what the names have cost: expression of dropped genes, and dates.

    Parameters
    ----------
    own, kept
        [samples, genes] before and after names became symbols.
    """
    found = []
    if unit in normalise.LINEAR:
        share = 1 - kept.sum(dtype=np.float64) / own.sum(dtype=np.float64)
        if share > MUCH:
            found.append(f"{share:.0%} of the expression is of names that lead to no symbol")
    dates = mapping["given"][identifiers_dates.are_dates(mapping["given"])]
    if len(dates):
        found.append(f"{len(dates)} genes are named like dates, such as '{dates.iloc[0]}': a spreadsheet changed them")
    return found
