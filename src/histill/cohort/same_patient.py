"""Whether two patients are one: ids written in two ways, and copies of slides, features and expression profiles."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator
from itertools import combinations
from pathlib import Path

import numpy as np

_TCGA = re.compile(r"(tcga)[^a-z0-9]*([a-z0-9]{2})[^a-z0-9]*([a-z0-9]{4})(?![a-z0-9])")
_RUNS = re.compile(r"[^\W\d_]+|\d+")
_BLOCK = 1024  # rows compared with all others at once

# Copies of 53 synthetic slides saved again at half to 1.7 times the size and JPEG quality 30 to 90 reach 0.96 and more;
# two slides reach 0.3, and drawn cores of a tissue microarray, alike but for their texture, 0.75.
SAME_PICTURE = 0.9
_SIDE, _SIGMA = 64, 1.5  # pixels

# Spearman correlation over the most variable genes, each about its median. Five TCGA tables (BRCA, COADREAD, GBMLGG,
# LUAD, STAD; 60 to 569 patients) have no pair above 0.90; noise of a tenth of a gene's standard deviation leaves 0.97
# and more, of a fifth 0.90 to 0.95. Without the medians, pairs of patients of one tumour type reach 0.98.
SAME_PROFILE = 0.95
_GENES = 1000
FEWEST_PROFILES, FEWEST_GENES = 10, 100  # below, correlations about the median say nothing
# Different numbers in a profile or feature array, below which two are alike by chance: a panel of mutations, zeros.
FEWEST_VALUES = 10


def id_key(patient: str) -> tuple[str, ...]:
    """What is left of an id without case, blanks, separators and padding zeros.

    Letters and digits are runs of their own, so `P1-1` is not `P11`. Of a TCGA barcode, in whatever spelling, the
    patient counts and not the sample.
    """
    text = unicodedata.normalize("NFKC", patient).casefold().strip()
    if barcode := _TCGA.match(text):
        return barcode.groups()
    return tuple(run.lstrip("0") or "0" for run in _RUNS.findall(text)) or (text,)


def pairs_by_key(
    keys: Iterable[tuple[Hashable, str]], owner: dict[str, str] | None = None
) -> Iterator[tuple[str, str]]:
    """Pairs of items with one key, each pair once and sorted.

    Parameters
    ----------
    keys
        (key, item).
    owner
        Item -> patient, for items that are no patients: pairs of one patient are left out.
    """
    items: dict[Hashable, set[str]] = defaultdict(set)
    for key, item in keys:
        items[key].add(item)
    pairs = {pair for own in items.values() for pair in combinations(sorted(own), 2)}
    yield from sorted(pair for pair in pairs if owner is None or owner[pair[0]] != owner[pair[1]])


def distinct(values: np.ndarray) -> int:
    """How many different numbers an array holds; what is not finite does not count."""
    return len(np.unique(values[np.isfinite(values)]))


def picture_vector(path: str | Path) -> np.ndarray:
    """A slide's picture as a vector [4096] of length 1, without its coarse layout; zeros where it is flat.

    At 64 pixels a side less a blur of itself, the shapes of the tissue are left, which a copy has, whatever its format,
    size and compression, and no other slide.
    """
    import cv2
    from PIL import Image

    with Image.open(path) as picture:
        picture.draft("L", (4 * _SIDE, 4 * _SIDE))  # JPEG is decoded at a fraction of its size
        small = picture.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    grey = np.asarray(small, dtype=np.float32)
    return _unit((grey - cv2.GaussianBlur(grey, (0, 0), _SIGMA)).reshape(1, -1))[0]


def profile_ranks(x: np.ndarray) -> np.ndarray | None:
    """Rows [N, K] of length 1 whose products are Spearman correlations of expression profiles.

    Parameters
    ----------
    x
        [N, G] on a log scale, or z-scores. Genes with a missing value do not count.

    Returns
    -------
    None where there are too few profiles or genes to tell copies from patients who are alike.
    """
    from scipy.stats import rankdata

    x = x[:, np.isfinite(x).all(axis=0)]
    variance = x.var(axis=0)
    order = np.argsort(-variance, kind="stable")[: min(_GENES, int((variance > 0).sum()))]
    if len(x) < FEWEST_PROFILES or len(order) < FEWEST_GENES:
        return None
    chosen = x[:, order]
    return _unit(rankdata(chosen - np.median(chosen, axis=0), axis=1).astype(np.float32))


def similar(rows: np.ndarray, threshold: float) -> Iterator[tuple[int, int, float]]:
    """(i, j, product), i < j, of rows [N, D] of length 1 whose product is `threshold` or more; in blocks."""
    for start in range(0, len(rows), _BLOCK):
        products = rows[start : start + _BLOCK] @ rows[start:].T
        for i, j in np.argwhere(products >= threshold).tolist():
            if i < j:
                yield start + i, start + j, float(products[i, j])


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows less their means, of length 1; zeros where a row is flat."""
    rows = rows - rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, length, out=np.zeros_like(rows), where=length > 1e-6)
