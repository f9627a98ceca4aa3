"""What a table holds twice: rows of genes, samples under one barcode, samples under two names."""

from __future__ import annotations

import hashlib

import numpy as np

from histill.errors import HistillError
from histill.transcriptome import barcodes

PATIENT = len("TCGA-AA-0001")


def genes_written_twice(values: np.ndarray, genes: list[str]) -> list[int]:
    """Positions of genes that repeat the name and all values of an earlier one.

    Parameters
    ----------
    values
        [samples, genes].
    """
    import pandas

    names = pandas.Series(genes, dtype=str)
    seen: set[tuple[str, bytes]] = set()
    found = []
    for index in np.flatnonzero(names.duplicated(keep=False)):
        key = (genes[index], np.ascontiguousarray(values[:, index]).tobytes())
        if key in seen:
            found.append(int(index))
        seen.add(key)
    return found


def warning(values: np.ndarray, genes: list[str], repeated: list[int]) -> list[str]:
    """A warning about genes that are written twice, unless all of them are zeros."""
    held = [genes[index] for index in repeated if values[:, index].any()]
    if not held:
        return []
    return [f"{len(held)} genes are written twice with the same values, such as '{held[0]}'; they are taken once"]


def barcodes_twice(path: str, values: np.ndarray, samples: list[str]) -> tuple[list[int], list[str]]:
    """Positions of samples that repeat the barcode and the values of an earlier one, and warnings.

    A barcode of a patient alone may come again with other values: replicates of one tumour are cut to it.

    Parameters
    ----------
    values
        [samples, genes].
    samples
        Barcodes; dots and small letters make no difference.

    Raises
    ------
    HistillError
        When values differ of one barcode of a sample or aliquot.
    """
    first: dict[str, int] = {}
    repeated, warnings = [], []
    for index, barcode in enumerate(barcodes.clean(samples)):
        other = first.setdefault(barcode, index)
        if other == index:
            continue
        if np.array_equal(values[index], values[other], equal_nan=True):
            repeated.append(index)
            warnings.append(f"sample '{samples[index]}' is written twice, with the same values; it is taken once")
        elif len(barcode) == PATIENT:
            warnings.append(f"patient '{samples[index]}' occurs again, with other values: are both of one tumour?")
        else:
            raise HistillError(
                f"{path}: barcode '{samples[index]}' occurs more than once, with different values",
                mend="give the full barcodes of the aliquots, or keep one of them",
            )
    return repeated, warnings


def samples_alike(values: np.ndarray, names: list[str]) -> list[str]:
    """A warning for each sample that repeats another's values: one patient under two names is in two folds."""
    first: dict[bytes, str] = {}
    warnings = []
    for name, row in zip(names, values, strict=True):
        other = first.setdefault(hashlib.sha256(np.ascontiguousarray(row)).digest(), name)
        if other != name:
            warnings.append(f"samples '{other}' and '{name}' have the same values: are they of one patient?")
    return warnings
