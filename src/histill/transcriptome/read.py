"""Tables of numbers with named rows and columns: csv and tsv (plain, .gz, .zip), parquet, h5ad.

Text goes through pyarrow with every column's type given beforehand: a type inferred from the first block would fail on
the first fraction of a later one, and duplicate names (two genes, two samples) would collide.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import zipfile
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from histill.errors import HistillError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Header names (lower case) of a column that names its rows, best first.
ROW_NAMES = (
    "sample_id",
    "sample",
    "barcode",
    "patient_id",
    "patient",
    "case_id",
    "hugo_symbol",
    "gene_symbol",
    "gene_id",
    "gene",
)
NOT_VALUES = ("", "unnamed: 0", "entrez_gene_id")  # running index of pandas and R; second column of cBioPortal
MISSING = ("", "NA", "N/A", "na", "NaN", "nan", "NULL", "null", "None")
FORMATS = "csv, tsv or txt (plain, .gz, or .zip with one file), parquet, h5ad"
_BLOCK_BYTES = 32 << 20  # one line of a matrix with its genes in columns may take over 1 MB
_MEND_CELL = "correct the cell, or remove the column if it holds no values of the matrix"


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
    """

    values: np.ndarray
    rows: list[str]
    columns: list[str]
    patients: list[str] | None = None


@dataclass
class Columns:
    """A file's columns: text of those asked for, numbers of all others.

    Attributes
    ----------
    text
        Column name -> cells (None where empty).
    values
        float64 [rows, columns] of the numeric columns `names`.
    problems
        One line for each column that should be numeric and is not (its values are absent).
    """

    text: dict[str, list[str | None]]
    values: np.ndarray
    names: list[str]
    problems: list[str] = field(default_factory=list)


def read_table(path: str | Path) -> tuple[np.ndarray, list[str], list[str]]:
    """Values float32 [rows, columns], row names and column names of a matrix in any supported format."""
    table = load(path)
    return table.values, table.rows, table.columns


def load(path: str | Path) -> Table:
    """Read a matrix.

    The row names are the column called as one of `ROW_NAMES`, else the first column.

    Raises
    ------
    HistillError
        When the file cannot be read, has no rows, or holds a cell that is no number; row and column are named.
    """
    if str(path).lower().endswith(".h5ad"):
        return _read_h5ad(path)
    columns = read_columns(path, _row_name_columns)
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
    return Table(columns.values.astype(np.float32), rows, columns.names, patients)


def read_columns(path: str | Path, text_columns: Callable[[list[str]], tuple[list[int], list[int]]]) -> Columns:
    """Read a csv, tsv or parquet file by column.

    Parameters
    ----------
    text_columns
        Header -> positions of the columns read as text, and of those left out.
    """
    lower = str(path).lower()
    try:
        if lower.endswith((".parquet", ".pq")):
            return _read_parquet(Path(path), text_columns)
        if lower.endswith((".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz", ".zip")):
            return _read_text(Path(path), text_columns)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:  # pyarrow's errors are ValueErrors
        raise HistillError(
            f"{path} cannot be read: {str(error)[:300]}", mend=f"check the file; read are {FORMATS}"
        ) from None
    raise HistillError(f"{path}: unknown format '{''.join(Path(path).suffixes[-2:])}'", mend=f"read are {FORMATS}")


def _row_name_columns(header: list[str]) -> tuple[list[int], list[int]]:
    """The column of row names, then the patients' column where it is another one; and columns that hold no values."""
    lower = [name.strip().lower() for name in header]
    text = [next((lower.index(name) for name in ROW_NAMES if name in lower), 0)]
    if lower[text[0]] in ("sample_id", "sample", "barcode") and "patient_id" in lower:
        text.append(lower.index("patient_id"))
    return text, [index for index, name in enumerate(lower) if name in NOT_VALUES and index not in text]


def _read_text(path: Path, text_columns: Callable[[list[str]], tuple[list[int], list[int]]]) -> Columns:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    header, delimiter, skip = _header(path)
    text, left_out = text_columns(header)
    keys = [f"f{index}" for index in range(len(header))]

    def read(wanted: dict[str, Any], *, threads: bool) -> Any:
        with _open(path) as stream:
            return arrow_csv.read_csv(
                stream,
                arrow_csv.ReadOptions(skip_rows=skip, column_names=keys, block_size=_BLOCK_BYTES, use_threads=threads),
                arrow_csv.ParseOptions(delimiter=delimiter),
                arrow_csv.ConvertOptions(
                    column_types=wanted,
                    include_columns=list(wanted),
                    null_values=list(MISSING),
                    strings_can_be_null=True,
                ),
            )

    strings = {keys[index]: pa.string() for index in text}
    numeric = [index for index in range(len(header)) if index not in {*text, *left_out}]
    names = [header[index] for index in numeric]
    try:
        table = read(strings | {keys[index]: pa.float64() for index in numeric}, threads=True)
        values, problems = _stack(table, [keys[index] for index in numeric]), []
    except pa.ArrowInvalid as error:
        if "onversion error" not in str(error):
            raise
        table = read({key: pa.string() for key in keys}, threads=False)
        rows = table[keys[text[0]]].to_pylist() if text else None
        values, problems = _convert(table, [keys[index] for index in numeric], names, rows)
    return Columns(
        {header[i]: [_name(cell) for cell in table[keys[i]].to_pylist()] for i in text}, values, names, problems
    )


def _header(path: Path) -> tuple[list[str], str, int]:
    """Column names, delimiter, and how many lines to skip (comments and the header)."""
    with _open(path) as stream:
        lines = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
        skip = 1
        line = lines.readline()
        while line.startswith("#") or (line and not line.strip()):
            line, skip = lines.readline(), skip + 1
        second = lines.readline()
    if not second:
        raise HistillError(f"{path} holds no data below its header", mend="check that the file is complete")
    delimiter = max("\t,;", key=line.count)
    header, first = (next(csv.reader([text], delimiter=delimiter)) for text in (line, second))
    header = [name.strip() for name in header]
    if len(first) == len(header) + 1:
        if header[0].lower() in (*ROW_NAMES, "slide_id"):
            # Taken for R's table, every cell of every row would move by one column.
            raise HistillError(
                f"{path}: the first row has {len(first)} cells, the header {len(header)}",
                mend="give every column a name, and remove delimiters at the ends of lines",
            )
        header = ["", *header]  # as R's write.table writes it: the row names have no header
    return header, delimiter, skip


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    """The file's bytes, decompressed."""
    lower = path.name.lower()
    if lower.endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.namelist() if not m.endswith("/") and not m.startswith("__MACOSX")]
            if len(members) != 1:
                raise HistillError(f"{path} holds {len(members)} files", mend="give an archive with the matrix alone")
            with archive.open(members[0]) as stream:
                yield stream
    else:
        with (gzip.open if lower.endswith(".gz") else open)(path, "rb") as stream:
            yield stream


def _read_parquet(path: Path, text_columns: Callable[[list[str]], tuple[list[int], list[int]]]) -> Columns:
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    index = [name for name in (table.schema.pandas_metadata or {}).get("index_columns", []) if isinstance(name, str)]
    running = {name for name in index if name.startswith("__index_level_") and not _is_text(table.field(name).type)}
    # pandas writes the index behind the columns: as row names it belongs before them.
    front = [i for i, name in enumerate(table.column_names) if name in index and name not in running]
    rest = [i for i, name in enumerate(table.column_names) if name not in index]
    header = [table.column_names[i] for i in (*front, *rest)]
    table = table.select([*front, *rest]).rename_columns([f"f{i}" for i in range(len(header))])
    text, left_out = text_columns(header)
    numeric = [i for i in range(len(header)) if i not in {*text, *left_out}]
    names = [header[i] for i in numeric]
    problems: list[str] = []
    if any(_is_text(table.column(i).type) for i in numeric):
        rows = [str(cell) for cell in table.column(text[0]).to_pylist()] if text else None
        values, problems = _convert(table, [f"f{i}" for i in numeric], names, rows)
    else:
        values = _stack(table, [f"f{i}" for i in numeric])
    cells = {header[i]: [_name(cell) for cell in table.column(i).to_pylist()] for i in text}
    return Columns(cells, values, names, problems)


def _name(cell: Any) -> str | None:
    """Text of an id without blanks around it; pandas holds whole numbers as fractions where one of them is missing."""
    if isinstance(cell, float):
        if math.isnan(cell):
            return None
        return str(int(cell)) if cell.is_integer() else str(cell)
    return None if cell is None else str(cell).strip() or None


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _stack(table: Any, keys: list[str]) -> np.ndarray:
    """Numeric columns as float64 [rows, columns]."""
    values = np.empty((len(keys), len(table)), dtype=np.float64)
    for row, key in enumerate(keys):
        # Integers with nulls become float64 with NaN on the way to NumPy; booleans become 0 and 1.
        values[row] = table[key].to_numpy().astype(np.float64)
    return values.T


def _convert(
    table: Any, keys: list[str], names: list[str], rows: list[str | None] | None
) -> tuple[np.ndarray, list[str]]:
    """Text columns to numbers where they are; the first cell that is none is told of every other column."""
    values = np.full((len(table), len(keys)), np.nan)
    problems = []
    for column, (key, name) in enumerate(zip(keys, names, strict=True)):
        for row, cell in enumerate(table[key].to_pylist()):
            try:
                # float() would take 1_000 for a thousand
                values[row, column] = np.nan if cell is None else float(str(cell).replace("_", "?"))
            except (TypeError, ValueError):
                where = f"row '{rows[row]}'" if rows else f"data row {row + 1}"
                problems.append(f"column '{name}', {where} holds {str(cell)!r}, which is no number")
                break
    return values, problems


def _read_h5ad(path: str | Path) -> Table:
    import anndata

    try:
        table = anndata.read_h5ad(path)
    except (OSError, KeyError, ValueError) as error:
        raise HistillError(f"{path} cannot be read as h5ad: {error}", mend="write it again with anndata") from None
    if table.X is None:
        raise HistillError(f"{path}: X is empty", mend="put the matrix into X; layers are not read")
    values = table.X.toarray() if hasattr(table.X, "toarray") else np.asarray(table.X)
    patients = [str(patient) for patient in table.obs["patient_id"]] if "patient_id" in table.obs else None
    return Table(
        values.astype(np.float32), [str(n) for n in table.obs_names], [str(n) for n in table.var_names], patients
    )
