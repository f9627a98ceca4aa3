"""Unit of a table that does not say it: detected with evidence, or an error that asks for it."""

from __future__ import annotations

import numpy as np

from histill.errors import HistillError
from histill.transcriptome.normalise import LOGGED_BELOW, MILLION_TOLERANCE, MOST_GENES
from histill.transcriptome.read import Finding

UNITS = ("counts", "log2_counts", "tpm", "fpkm", "log", "zscore")
SAMPLES = 128  # looked at, evenly spaced
MIN_LOG_HIGH = 8.0  # highest value of a table of logarithms
MIN_COUNT_HIGH = 1000.0  # highest value of a table of counts
SURE_WHOLE_SHARE = 0.3  # of RSEM's and salmon's counts above 0, whole numbers are more; of FPKM they are next to none
NEAR_WHOLE = 0.01
FLOOR_SHARE = 0.005  # values equal to the lowest one: zeros of a logarithm with an offset below 1
MAX_LOG_TOTAL = 3e6  # sums of FPKM and TPM are below; of counts, above
SAME_QUARTILE = 0.02
BASES = {"log2": 2.0, "ln": float(np.e), "log10": 10.0}
# Logarithms of whole numbers: the lowest values, one apart in the number, are many, and the same in all samples.
# Intensities of microarrays that were rounded before the logarithm have few so low.
LOWEST, LOWEST_SHARE, STEP_ERROR = 5, 0.02, 0.15


def detect(path: str, values: np.ndarray, setting: str = "auto", stated: Finding | None = None) -> Finding:
    """Unit of a matrix: `counts`, `log2_counts` (log2(count + 1), as Xena writes them), `tpm`, `fpkm`, `log`, `zscore`.

    Parameters
    ----------
    values
        [samples, genes]; missing values are left aside.
    setting
        `transcriptome.matrix.unit`; other than `auto` it decides.
    stated
        What the file's format says, which decides where the setting does not.

    Raises
    ------
    HistillError
        When the values do not say; it names `transcriptome.matrix.unit`.
    """
    if setting != "auto":
        return Finding(setting, "config", "transcriptome.matrix.unit")
    if stated is not None:
        return stated
    some = values[np.linspace(0, len(values) - 1, min(SAMPLES, len(values))).astype(int)].astype(np.float64)
    some = some[:, np.isfinite(some).all(axis=0)]
    if not some.size:
        raise _unsure(path, "no gene has a value in all samples", "one of " + ", ".join(UNITS))
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if low < 0:
        return _of_negative(path, some, low, high)
    if (some == np.round(some)).all():
        if np.allclose(some.sum(axis=1), 1e6, rtol=MILLION_TOLERANCE):
            text = "all values are whole numbers, and every sample sums to one million"
            raise _unsure(path, text, "tpm if they are rounded, counts if they are reads")
        if high >= MIN_COUNT_HIGH:
            return Finding("counts", "detected", f"all values are whole numbers from {low:g} to {high:g}")
        raise _unsure(path, f"all values are whole numbers, but none is above {high:g}", "counts if they are reads")
    if high < LOGGED_BELOW:
        return _of_logged(path, some, high)
    totals = some.sum(axis=1)
    if np.allclose(totals, 1e6, rtol=MILLION_TOLERANCE):
        return Finding("tpm", "detected", "every sample sums to one million")
    whole = float((some == np.round(some))[some > 0].mean())
    text = f"values are from {low:g} to {high:g}, {whole:.0%} of those above 0 are whole numbers"
    # Below, whole numbers among fractions may be thousands that are written with a point.
    if whole >= SURE_WHOLE_SHARE and high >= MIN_COUNT_HIGH:
        return Finding("counts", "detected", f"{text}, as of estimated counts")
    raise _unsure(path, text, "fpkm, tpm (of a selection of genes), or counts")


def _unsure(path: str, text: str, choice: str) -> HistillError:
    return HistillError(
        f"{path}: cannot tell the unit of its values: {text}", mend=f"set transcriptome.matrix.unit to {choice}"
    )


def _of_negative(path: str, some: np.ndarray, low: float, high: float) -> Finding:
    centre, spread = float(np.median(np.abs(some.mean(axis=0)))), float(np.median(some.std(axis=0)))
    text = f"values are from {low:g} to {high:g}; the median gene has a mean of ±{centre:.2g} and an SD of {spread:.2g}"
    if len(some) >= 10 and centre < 0.25 and 0.5 < spread < 1.5:
        return Finding("zscore", "detected", text)
    floor = float((some == some.min()).mean())
    if high < LOGGED_BELOW and floor >= FLOOR_SHARE:
        _refuse_logged_counts(path, some, text)
        return Finding("log", "detected", f"{text}; {floor:.1%} of the values are the lowest one, {some.min():g}")
    raise _unsure(path, text, "log or zscore")


def _of_logged(path: str, some: np.ndarray, high: float) -> Finding:
    text = f"values are fractions from 0 or above to {high:g}"
    if high < MIN_LOG_HIGH:
        _refuse_logged_counts(path, some, text)
        raise _unsure(path, text, "log if they are logarithms")
    linear = np.exp2(some) - 1
    totals = linear.sum(axis=1)
    if np.allclose(totals, 1e6, rtol=MILLION_TOLERANCE):
        return Finding("log", "detected", f"{text}; 2^x - 1 of every sample sums to one million, as of log2(TPM + 1)")
    near = near_whole(linear)
    if near > 0.99:
        text = f"{text}; 2^x - 1 is a whole number for {near:.1%} of the small values"
        if some.min() > 0:
            choice = "log2_counts if they are log2(count + 1), log if they are intensities or another number was added"
            raise _unsure(path, f"{text}, but none is 0", choice)
        return Finding("log2_counts", "detected", text)
    _refuse_logged_counts(path, some, text)
    quartile = np.array([np.quantile(row[row > 0], 0.75) for row in linear if (row > 0).any()])
    if np.median(totals) < MAX_LOG_TOTAL or np.ptp(quartile) < SAME_QUARTILE * quartile.max():
        return Finding("log", "detected", f"{text}; 2^x - 1 of a sample sums to {np.median(totals):.3g}")
    raise _unsure(
        path,
        f"{text}; 2^x - 1 of a sample sums to {np.median(totals):.3g}, as of counts",
        "log2_counts if they are log2(count + 1), log if library sizes are taken out",
    )


def _refuse_logged_counts(path: str, some: np.ndarray, text: str) -> None:
    """Logarithms of whole numbers are counts whose depth was not taken out: `log` would keep it in every gene."""
    found = logged_whole(some)
    if found:
        choice = "log2_counts if they are log2(count + 1), log if library sizes are taken out; else give the raw counts"
        raise _unsure(path, f"{text}; {found}, as of counts", choice)


def logged_whole(values: np.ndarray) -> str | None:
    """What shows that values are logarithms of whole numbers plus an offset, or None.

    Parameters
    ----------
    values
        [samples, genes], finite.
    """
    distinct, sizes = np.unique(values.round(4), return_counts=True)
    share = sizes[1 : LOWEST + 1].sum() / max(sizes[1:].sum(), 1)
    lowest = distinct[: LOWEST + 1]
    if len(lowest) <= LOWEST or share < LOWEST_SHARE:
        return None
    for name, base in BASES.items():
        if np.abs(np.diff(base**lowest) - 1).max() < STEP_ERROR:
            return f"the lowest are {name} of numbers one apart, and {share:.0%} of those above the very lowest"
    return None


def near_whole(values: np.ndarray) -> float:
    """Share of the values between 0.5 and 100 that are whole numbers but for rounding; 0 where there are none."""
    small = values[(values > 0.5) & (values < 100)]
    return float((np.abs(small - np.round(small)) < NEAR_WHOLE).mean()) if small.size else 0.0


def odd_offset(values: np.ndarray) -> list[str]:
    """A warning about log2(count + 1) of all genes without a zero."""
    low = float(np.nanmin(values))
    if low <= 0 or values.shape[1] < MOST_GENES:
        return []
    return [f"no value of log2(count + 1) is 0, the lowest is {low:g}: was another number than 1 added to the counts?"]


def counts_of_log2(path: str, values: np.ndarray) -> np.ndarray:
    """Counts of log2(count + 1), float32 (to a millionth); whole numbers again where they were.

    Raises
    ------
    HistillError
        When a value is negative or beyond any count.
    """
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if low < 0 or high >= LOGGED_BELOW:
        raise HistillError(
            f"{path}: values are from {low:g} to {high:g}, which log2(count + 1) cannot be",
            mend="set transcriptome.matrix.unit to what they are",
        )
    counts = np.exp2(values, dtype=np.float32)
    counts -= 1
    if near_whole(counts[:SAMPLES]) > 0.99:
        np.round(counts, out=counts)
    return counts
