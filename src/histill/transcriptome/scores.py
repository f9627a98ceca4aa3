"""Scores of gene sets in single samples: ssGSEA and mean z-scores."""

from __future__ import annotations

import numpy as np

from histill.errors import HistillError
from histill.transcriptome.gene_sets import GeneSets, members

MIN_GENES = 10
_ROWS = 32  # samples at a time: gseapy keeps a running sum over all genes for every sample and set


def ssgsea(values: np.ndarray, genes: list[str], sets: GeneSets, *, min_genes: int = MIN_GENES) -> np.ndarray:
    """Enrichment of each set in each sample by single-sample GSEA (Barbie et al. 2009, doi:10.1038/nature08460).

    A score depends on its sample alone: genes are ranked within the sample, and the score is not divided by the range
    over samples and sets. It needs all genes: ranks within a panel say little.

    Parameters
    ----------
    values
        Finite expression [samples, genes], on any scale that keeps the order of genes within a sample.

    Returns
    -------
    numpy.ndarray
        float64 [samples, sets] in the order of `sets`; NaN for sets of which fewer than `min_genes` genes are in
        `genes`.

    Raises
    ------
    HistillError
        When values are missing, or every set is too small.
    """
    import gseapy
    import pandas

    used = _positions(genes, sets, min_genes)
    if not np.isfinite(values).all():
        raise HistillError("expression has missing values; they have no rank", mend="leave the genes out")
    # Sorted, so that ties are broken the same way in every table; numbered, as gseapy may compare names in capitals.
    order = np.argsort(genes, kind="stable")
    names = [f"G{index}" for index in range(len(genes))]
    numbered = {name: [names[index] for index in positions] for name, positions in used.items()}
    scores = np.full((len(values), len(sets)), np.nan)
    column = {name: index for index, name in enumerate(sets)}
    for start in range(0, len(values), _ROWS):
        rows = range(start, min(start + _ROWS, len(values)))
        ranked = values[rows.start : rows.stop, order].T
        table = pandas.DataFrame(ranked, index=[names[index] for index in order], columns=[str(row) for row in rows])
        found = gseapy.ssgsea(
            table, numbered, sample_norm_method="rank", min_size=1, max_size=len(genes), outdir=None, threads=1
        ).res2d
        scores[found["Name"].astype(int), found["Term"].map(column)] = found["ES"].astype(float)
    return scores


def mean_z(
    values: np.ndarray,
    genes: list[str],
    sets: GeneSets,
    *,
    reference: np.ndarray | None = None,
    min_genes: int = MIN_GENES,
) -> np.ndarray:
    """Mean over each set's genes of their z-scores, clipped to ±5.

    Parameters
    ----------
    values
        Log-scale expression [samples, genes].
    reference
        Samples that mean and standard deviation of a gene are taken from [samples, genes]; default: `values`, which
        describes a cohort and must not enter a model. Genes that are constant there are left out.

    Returns
    -------
    numpy.ndarray
        float64 [samples, sets]; NaN for sets of which fewer than `min_genes` genes are in `genes`.
    """
    used = _positions(genes, sets, min_genes)
    reference = values if reference is None else reference
    scores = np.full((len(values), len(sets)), np.nan)
    for index, name in enumerate(sets):
        if name not in used:
            continue
        own = reference[:, used[name]].astype(np.float64)
        mean, deviation = own.mean(axis=0), own.std(axis=0)
        varies = deviation > 1e-6 * np.maximum(np.abs(mean), 1e-12)
        z = (values[:, used[name]][:, varies] - mean[varies]) / deviation[varies]
        scores[:, index] = np.clip(z, -5, 5).mean(axis=1) if varies.any() else 0.0
    return scores


def subspace_scores(
    values: np.ndarray, genes: list[str], spaces: dict[str, GeneSets], *, min_genes: int = MIN_GENES
) -> dict[str, np.ndarray]:
    """One score a sample and subspace: `<subspace>:ssgsea` and `<subspace>:mean_z` of all genes of its sets [samples].

    For figures and as a positive control: over a cohort, the microenvironment's falls with tumour purity.
    """
    whole = {space: members(sets) for space, sets in spaces.items()}
    found = {}
    for name, score in (("ssgsea", ssgsea), ("mean_z", mean_z)):
        scores = score(values, genes, whole, min_genes=min_genes)
        found |= {f"{space}:{name}": scores[:, index] for index, space in enumerate(whole)}
    return found


def _positions(genes: list[str], sets: GeneSets, min_genes: int) -> dict[str, list[int]]:
    """Set -> positions of its genes in a table, of sets with enough of them."""
    column = {gene: index for index, gene in enumerate(genes)}
    found = {name: [column[gene] for gene in own if gene in column] for name, own in sets.items()}
    used = {name: positions for name, positions in found.items() if len(positions) >= min_genes}
    if not used:
        raise HistillError(
            f"none of {len(sets)} gene sets has {min_genes} genes in the table",
            mend="give sets that fit the table's gene symbols",
        )
    return used
