"""Expression tables: one file with named rows and columns (csv, tsv, parquet, h5ad, featureCounts)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from histill.errors import HistillError
from histill.transcriptome.bounds import check_table
from histill.transcriptome.read_beside import describes_genes
from histill.transcriptome.read_columns import ROW_NAMES, read_columns
from histill.transcriptome.read_layouts import ONE_SAMPLE

FEATURE_COUNTS = ("geneid", "chr", "start", "end", "strand", "length")
NOT_VALUES = ("", "unnamed: 0")  # running index of pandas and R
ALIGNER_SUFFIX = re.compile(r"([._]?(Aligned|sorted|sortedByCoord|dedup|markdup|out))*\.(bam|sam|cram)$", re.IGNORECASE)
_MEND_CELL = "correct the cell, or remove the column if it holds no values of the matrix"


@dataclass
class Finding:
    """What was taken for true of a table, and why.

    Attributes
    ----------
    value
        Such as `rows`, `ensembl`, `counts`.
    by
        `config` where the user said so, else `detected`.
    evidence
        What speaks for it.
    """

    value: str
    by: str
    evidence: str


@dataclass
class Table:
    """A matrix with named axes.

    Attributes
    ----------
    values
        float32 [rows, columns]; missing cells are NaN.
    rows, columns
        Names of both axes; they may repeat.
    patients
        Patient of each row where the file says so in a column of its own, else None.
    findings
        What the format itself says: `genes` (the axis: rows or columns), `unit`, `strand`, `transcripts`, `sheet`.
    left_out
        Names of columns that describe genes.
    """

    values: np.ndarray
    rows: list[str]
    columns: list[str]
    patients: list[str] | None = None
    findings: dict[str, Finding] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def read_table(path: str | Path) -> tuple[np.ndarray, list[str], list[str]]:
    """Values float32 [rows, columns], row names and column names of a matrix in any supported format."""
    table = load(path)
    return table.values, table.rows, table.columns


def load(path: str | Path) -> Table:
    """Read a matrix from one file.

    The row names are the column called as one of `ROW_NAMES`, else the first column. A table of featureCounts is known
    by its first six columns.

    Raises
    ------
    HistillError
        When the file cannot be read, has no rows, or holds a cell that is no number; row and column are named.
    """
    if str(path).lower().endswith(".h5ad"):
        return _read_h5ad(path)
    feature_counts, described = False, []

    def layout(header: list[str]) -> tuple[list[int], list[int]]:
        nonlocal feature_counts, described
        feature_counts = tuple(name.lower() for name in header[: len(FEATURE_COUNTS)]) == FEATURE_COUNTS
        if feature_counts:
            return [0], list(range(1, len(FEATURE_COUNTS)))
        _check_many(path, header)
        text, left_out = _row_name_columns(header)
        described = [header[index] for index in left_out if header[index].strip().lower() not in NOT_VALUES]
        return text, left_out

    columns = read_columns(path, layout, np.float32)
    if columns.problems:
        shown, more = columns.problems[:5], len(columns.problems) - 5
        text = "; ".join(shown) + (f"; and {more} more columns" if more > 0 else "")
        raise HistillError(f"{path}: {text}", mend=_MEND_CELL)
    names = next(iter(columns.text))
    rows = columns.text[names]
    if any(name is None for name in rows):
        empty = rows.index(None)
        raise HistillError(f"{path}: data row {empty + 1} has no name in column '{names}'", mend="fill it or remove it")
    if columns.values.size == 0:
        raise HistillError(f"{path} holds no numbers", mend="check that it is the expression matrix")
    patients = next((cells for name, cells in columns.text.items() if name != names), None)
    if patients is not None and None in patients:
        raise HistillError(f"{path}: sample '{rows[patients.index(None)]}' has no patient_id", mend="fill the cell")
    table = Table(columns.values, rows, columns.names, patients, left_out=described)
    if feature_counts:
        table.columns = [sample_of_alignment(name) for name in columns.names]
        evidence = "the header of featureCounts"
        table.findings = {name: Finding(value, "detected", evidence) for name, value in _FEATURE_COUNTS.items()}
    return table


_FEATURE_COUNTS = {"genes": "rows", "unit": "counts"}


def sample_of_alignment(path: str) -> str:
    """Sample that an alignment file is named for: `bam/S1.Aligned.sortedByCoord.out.bam` -> `S1`."""
    return ALIGNER_SUFFIX.sub("", path.replace("\\", "/").rsplit("/", 1)[-1])


def _check_many(path: str | Path, header: list[str]) -> None:
    """Refuse what a quantifier writes of one sample: its columns would be taken for samples."""
    found = [name for name in header if name.lower() in ONE_SAMPLE]
    if len(found) > 1:
        raise HistillError(
            f"{path} holds one sample: {', '.join(found)} are columns of a quantifier",
            mend="give the folder that holds such a file of every sample, or a table with one column a sample",
        )


def _row_name_columns(header: list[str]) -> tuple[list[int], list[int]]:
    """The column of row names, then the patients' column where it is another one; and columns that hold no values."""
    lower = [name.strip().lower() for name in header]
    text = [next((lower.index(name) for name in ROW_NAMES if name in lower), 0)]
    if lower[text[0]] in ("sample_id", "sample", "barcode") and "patient_id" in lower:
        text.append(lower.index("patient_id"))
    left_out = (index for index, name in enumerate(lower) if name in NOT_VALUES or describes_genes(name))
    return text, [index for index in left_out if index not in text]


def _read_h5ad(path: str | Path) -> Table:
    import anndata
    import h5py

    try:
        with h5py.File(path) as handle:
            check_table(path, handle)
        table = anndata.read_h5ad(path)
    except (OSError, KeyError, ValueError) as error:
        raise HistillError(f"{path} cannot be read as h5ad: {error}", mend="write it again with anndata") from None
    if table.X is None:
        raise HistillError(f"{path}: X is empty", mend="put the matrix into X; layers are not read")
    values = table.X.toarray() if hasattr(table.X, "toarray") else np.asarray(table.X)
    patients = [str(patient) for patient in table.obs["patient_id"]] if "patient_id" in table.obs else None
    return Table(
        values.astype(np.float32, copy=False),
        [str(n) for n in table.obs_names],
        [str(n) for n in table.var_names],
        patients,
    )
