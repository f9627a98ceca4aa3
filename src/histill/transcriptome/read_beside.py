"""Columns of a table that stand beside its matrix: descriptions of genes, and what is known of samples."""

from __future__ import annotations

import re

import numpy as np

# Columns that describe genes, or a test of them, as `plain` spells their names. None is a symbol, so they are left out
# before it is known which axis holds the genes.
ABOUT_GENES = re.compile(
    r"""(gene|transcript|exon|eff|effective)?_?length|width
    |(gene_)?(name|biotype|description|version|level)|gene_type
    |(gene_)?(chr|chrom|chromosome|chromosome_name|seqnames?|strand|start|end)|(start|end)_position|tss|tx_?(start|end)
    |cytoband|map_location|(percentage_)?(gene_)?gc_(content|percent)
    |(num|n)_(exons|transcripts)|(exon|transcript)_count|exons
    |entrez(_?gene)?(_?id)?|(ncbi|hgnc)(_gene)?_id|ensembl_version
    |(avg_?)?log2?_?(fc|foldchange|fold_change)|fold_?change|fc|lfcse|base_?mean|aveexpr
    |p_?val(ue)?|q_?val(ue)?|fdr|p_?adj|adj_p_?val(ue)?|p_?val(ue)?_adj
    |mean|mean_expression|average|median|variance|sum|total""",
    re.VERBOSE,
)
# So may these, where genes are rows; as columns they are symbols (GC, MAX) or were some (RANGAP1, SOAT1).
ABOUT_ROWS = frozenset(("gc", "max", "min", "rank", "sd", "stat"))
# Names that a running number has.
INDEX = frozenset(("column1", "id", "idx", "index", "no", "nr", "number", "row", "row_number", "rownames", "v1", "x"))
# Columns of a clinical sheet. Some are other names of genes: SEX of PLXNA3, OS of MID1, DSS of NR0B1, RACE of AMACR.
CLINICAL = re.compile(
    r"""age|age_at_(diagnosis|index)|sex|gender|race|ethnicity|height|weight|bmi|smoking
    |stage|grade|tnm|histology|diagnosis|(cancer|sub)_?type|tmb|purity|recurrence|response|treatment
    |(os|pfs|pfi|dfs|dfi|dss|rfs)(_(time|event|status|days|months))?|(overall_)?survival(_(time|days|months))?
    |days_to_(birth|death|last_follow_?up)|follow_?up|vital_status|status|event|dead|death|censor(ed|ship)
    |batch|plate|site|cohort|rin|year""",
    re.VERBOSE,
)
# So are these where they hold codes; as measurements they are genes: ERBB2, ESR1, PGR.
CODED = frozenset(("er", "her2", "m", "n", "pr", "t"))
# Current symbols: codes (metastasis, part of a split) only where other clinical columns stand beside them.
CODED_SYMBOLS = frozenset(("met", "set"))
MAX_CODE = 4


def plain(name: str) -> str:
    """A column's name in small letters, words joined by underscores: `Gene.Start (bp)` -> `gene_start_bp`."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def describes_genes(name: str) -> bool:
    """Whether a column of this name holds neither a sample nor a gene."""
    return ABOUT_GENES.fullmatch(plain(name).removesuffix("_bp")) is not None


def beside_genes(names: list[str], values: np.ndarray) -> list[int]:
    """Positions of samples that are none: descriptions of the genes, and running numbers.

    Parameters
    ----------
    names
        Samples, as the columns of a table are called.
    values
        [samples, genes].
    """
    return [
        index
        for index, (name, row) in enumerate(zip(names, values, strict=True))
        if plain(name) in ABOUT_ROWS or (plain(name) in INDEX and _is_running(row))
    ]


def beside_samples(names: list[str], values: np.ndarray) -> list[int]:
    """Positions of genes that are none: columns of a clinical sheet.

    Parameters
    ----------
    names
        Genes, as the columns of a table are called.
    values
        [samples, genes].
    """
    coded = CODED | CODED_SYMBOLS
    found = {
        index: name
        for index, name in enumerate(map(plain, names))
        if CLINICAL.fullmatch(name) or (name in coded and _is_coded(values[:, index]))
    }
    clinical = any(name not in CODED_SYMBOLS for name in found.values())
    return [index for index, name in found.items() if clinical or name not in CODED_SYMBOLS]


def _is_running(row: np.ndarray) -> bool:
    """Whether values rise by one step throughout, as an index does."""
    steps = np.diff(row.astype(np.float64))
    return bool(len(steps) and steps[0] > 0 and (steps == steps[0]).all())


def _is_coded(column: np.ndarray) -> bool:
    known = column[np.isfinite(column)]
    return bool((known == np.round(known)).all() and (known >= 0).all() and (known <= MAX_CODE).all())
