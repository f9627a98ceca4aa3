"""Checks of a matrix against the unit it is said to have, and normalisation of each sample by itself.

Nothing here looks across samples for a value of one sample. TMM and upper quartiles do, so they are fitted on the
training patients of a fold (`histill.data.expression_counts`), as is whatever else is fitted.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from histill.errors import HistillError

LINEAR = ("counts", "tpm", "fpkm")
SCALES = {
    "counts": "log2(CPM + 1)",
    "tpm": "log2(TPM + 1)",
    "fpkm": "log2(FPKM + 1)",
    "log": "log, as given",
    "zscore": "z-score, as given",
}
# What counts can become, sample by sample -> the scale's name.
COUNT_SCALES = {
    "cpm": "log2(CPM + 1)",
    "tpm": "log2(TPM + 1), from counts and gene lengths",
    "fpkm": "log2(FPKM + 1), from counts and gene lengths",
}
LOGGED_BELOW = 50.0  # log2 of any expression value is lower; the maximum of counts, TPM and FPKM never is
LOG_BELOW = 100.0
OUTLIER = 50.0  # z-scores beyond come from genes with next to no variance in the reference samples
MILLION_TOLERANCE = 0.01
FLAT_GENES = 20  # so many never have one value by chance
WHOLE_SHARE = 0.05  # of RSEM's and salmon's counts above 0, far more are whole: genes of one transcript
SAME = 1e-3  # relative spread of library sizes that differ by rounding only
MIN_SAME = 100.0  # quartiles of whole numbers below are alike by chance
TRIM = 0.02  # MAS5 scales the mean without so many of the highest and lowest values to one number
FEW_GENES = 5000  # a table with fewer is a selection
MOST_GENES = 15_000  # no tissue expresses so many in every sample
FEW_READS = 1e6  # in a table of all genes; FPKM and TPM sum to less
_ROWS = 256  # samples at a time


def missing_genes(path: str, values: np.ndarray, samples: list[str], genes: list[str]) -> list[int]:
    """Positions of genes without any value; any other missing or infinite value is an error that says where.

    Parameters
    ----------
    values
        [samples, genes].
    """
    if np.isfinite(values).all():
        return []
    infinite = np.argwhere(np.isinf(values))
    if len(infinite):
        row, column = infinite[0]
        raise HistillError(
            f"{path}: {len(infinite)} values are infinite or beyond float32, the first of gene '{genes[column]}' in "
            f"sample '{samples[row]}'",
            mend="correct them; log of zero needs an offset such as log2(x + 1)",
        )
    missing = np.isnan(values)
    whole = missing.all(axis=0)
    if whole.all():
        raise HistillError(f"{path} holds no number at all", mend="check the file and transcriptome.matrix.genes")
    single = np.argwhere(missing & ~whole)
    if len(single):
        row, column = single[0]
        raise HistillError(
            f"{path}: {len(single)} values are missing, the first of gene '{genes[column]}' in sample "
            f"'{samples[row]}' ({int(missing[row].sum())} missing in that sample, {int(missing[:, column].sum())} of "
            "that gene)",
            mend="fill them or remove the gene or sample; histill does not guess expression",
        )
    return np.flatnonzero(whole).tolist()


def check_unit(path: str, values: np.ndarray, unit: str, samples: list[str], genes: list[str]) -> list[str]:
    """Warnings about values that are odd for their unit.

    Parameters
    ----------
    values
        [samples, genes], finite.

    Raises
    ------
    HistillError
        When the values cannot have the unit of `transcriptome.matrix.unit`.
    """

    def refuse(what: str, instead: str) -> HistillError:
        return HistillError(
            f"{path}: {what}, so it does not hold unit '{unit}'", mend=f"set transcriptome.matrix.unit to {instead}"
        )

    def at(flat: int) -> str:
        row, column = np.unravel_index(flat, values.shape)
        return f"gene '{genes[column]}' in sample '{samples[row]}' is {values[row, column]:g}"

    if values.shape[1] >= FLAT_GENES:
        flat = np.flatnonzero((values == values[:, :1]).all(axis=1))
        if len(flat):
            raise HistillError(
                f"{path}: all values of sample '{samples[flat[0]]}' are {values[flat[0], 0]:g}",
                mend="leave the sample out: its measurement failed, or it was filled in",
            )
    low, high = values.min(), values.max()
    whole = bool((values == np.round(values)).all())
    if unit in LINEAR:
        if low < 0:
            count = int((values < 0).sum())
            raise refuse(f"{count} values are negative ({at(values.argmin())})", "log or zscore")
        if high < LOGGED_BELOW and not whole:
            raise refuse(f"the highest of its fractional values is {high:g}, which looks logged", "log")
        return _check_totals(path, values, unit, samples, whole, refuse)
    if unit == "log":
        if high > LOG_BELOW:
            raise refuse(
                f"{at(values.argmax())}, and no logarithm of an expression value is above {LOG_BELOW:g}",
                "counts, tpm or fpkm (or zscore)",
            )
        return []
    if low >= 0:
        raise refuse("no value is negative", "counts, tpm, fpkm or log")
    beyond = int((np.abs(values) > OUTLIER).sum())
    if not beyond:
        return []
    return [f"{beyond} z-scores are beyond ±{OUTLIER:g} ({at(np.abs(values).argmax())}); clipped in training"]


def _check_totals(
    path: str,
    values: np.ndarray,
    unit: str,
    samples: list[str],
    whole: bool,
    refuse: Callable[[str, str], HistillError],
) -> list[str]:
    totals = values.sum(axis=1, dtype=np.float64)
    if (totals == 0).any():
        raise HistillError(
            f"{path}: sample '{samples[int(totals.argmin())]}' is 0 for all genes", mend="remove the sample"
        )
    if unit == "tpm" and totals.max() > 1e6 * (1 + MILLION_TOLERANCE):
        sample = samples[int(totals.argmax())]
        raise refuse(f"sample '{sample}' sums to {totals.max():,.0f}, and TPM sums to one million", "counts or fpkm")
    if unit != "counts":
        text = "all values are whole numbers: if they are read counts, transcriptome.matrix.unit is counts, not "
        return [text + unit] if whole else []
    scaled = _scaled(values, totals, whole)
    if whole:
        return _odd_whole(values, totals, scaled)
    if np.allclose(totals, 1e6, rtol=MILLION_TOLERANCE):
        raise refuse("every sample sums to one million and values are fractions", "tpm")
    if scaled:
        raise refuse(
            f"{scaled}, and values are fractions: it is normalised",
            "fpkm, which is only log-transformed, or give the raw counts",
        )
    some = values[:_ROWS]
    share = float((some == np.round(some))[some > 0].mean())
    if share < WHOLE_SHARE:
        return [
            f"only {share:.1%} of the counts above 0 are whole numbers: estimated counts scaled by gene lengths are "
            "like that; if the table holds TPM or FPKM, say so in transcriptome.matrix.unit"
        ]
    return []


def _odd_whole(values: np.ndarray, totals: np.ndarray, scaled: str | None) -> list[str]:
    """Warnings about whole numbers that look like rounded TPM, FPKM or intensities."""
    said = "if they are rounded TPM, FPKM or intensities of a microarray, say so in transcriptome.matrix.unit"
    if scaled:
        return [f"{scaled}, which raw counts seldom have: {said}"]
    middle = float(np.median(totals))
    if middle < FEW_READS and values.shape[1] >= FEW_GENES:
        return [f"the median sample sums to {middle:,.0f}, few reads for {values.shape[1]:,} genes: {said}"]
    if values.min() > 0 and values.shape[1] >= MOST_GENES:
        return [f"all {values.shape[1]:,} genes are above 0 in all samples, which counts seldom are: {said}"]
    return []


def _scaled(values: np.ndarray, totals: np.ndarray, whole: bool) -> str | None:
    """What is one number in all samples, in words: they were scaled to it."""
    some = np.sort(values[:_ROWS].astype(np.float64), axis=1)
    cut = int(TRIM * some.shape[1])
    found = {
        "sum": totals,
        "upper quartile": np.quantile(some, 0.75, axis=1),
        "upper quartile of genes above 0": np.nanquantile(np.where(some > 0, some, np.nan), 0.75, axis=1),
        "mean without its highest and lowest values": some[:, cut : some.shape[1] - cut].mean(axis=1),
    }
    least, error = (MIN_SAME, 1.0) if whole else (0.0, 0.0)
    for name, own in found.items():
        if len(own) > 2 and own.min() > least and np.ptp(own) <= max(SAME * own.max(), error):
            return f"every sample has the same {name}, {own.mean():,.6g}"
    return None


def log_scale(
    values: np.ndarray,
    unit: str,
    library: np.ndarray | None = None,
    *,
    method: str = "cpm",
    lengths: np.ndarray | None = None,
) -> np.ndarray:
    """Values on the scale that models read, float32 [samples, genes].

    Parameters
    ----------
    library
        Counts only: all counted reads of each sample, which may be more than `values` hold. Default: their sum.
    method
        Counts only: `cpm`, `tpm` or `fpkm` (`COUNT_SCALES`).
    lengths
        Length of each gene in bases [genes], for `tpm` and `fpkm`.
    """
    if unit not in LINEAR:
        return values.astype(np.float32)
    if unit == "counts" and method != "cpm" and (lengths is None or not (np.asarray(lengths) > 0).all()):
        raise HistillError(
            f"{method} of counts needs the length of every gene",
            mend="name a table of gene lengths in transcriptome.matrix.gene_lengths, or take cpm",
        )
    scaled = np.empty(values.shape, dtype=np.float32)
    for start in range(0, len(values), _ROWS):
        rows = slice(start, start + _ROWS)
        linear = values[rows].astype(np.float64)
        if unit == "counts":
            total = linear.sum(axis=1) if library is None else np.asarray(library[rows], dtype=np.float64)
            if method != "cpm":
                linear /= np.asarray(lengths, dtype=np.float64) / 1e3
            if method == "tpm":
                total = linear.sum(axis=1)
            linear *= (1e6 / total)[:, None]
        np.log2(linear + 1.0, out=scaled[rows], casting="same_kind")
    return scaled
