"""Columns of csv, tsv (plain, .gz, .zip) and parquet files, without guessed types.

Text goes through pyarrow with every column's type given beforehand: a type inferred from the first block would fail on
the first fraction of a later one, and duplicate names (two genes, two samples) would collide.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import re
import zipfile
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from histill.errors import HistillError
from histill.transcriptome.bounds import Bounded, check

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
    "geneid",
)
MISSING = ("", "NA", "N/A", "na", "NaN", "nan", "NULL", "null", "None")
PARQUET = (".parquet", ".pq")
TEXT = (".csv", ".tsv", ".txt", ".gct", ".csv.gz", ".tsv.gz", ".txt.gz", ".gct.gz", ".zip")
FORMATS = "csv, tsv, txt or gct (plain, .gz, or .zip with one file), parquet, h5ad, or a folder with one file a sample"
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
FLOATED = re.compile(r"\d+\.0")
_ROWS = 1024  # rows of a parquet file at a time
_BLOCK_BYTES = 32 << 20  # one line of a matrix with its genes in columns may take over 1 MB

TextColumns = Callable[[list[str]], tuple[list[int], list[int]]]


@dataclass
class Columns:
    """A file's columns: text of those asked for, numbers of all others.

    Attributes
    ----------
    text
        Column name -> cells (None where empty).
    values
        [rows, columns] of the numeric columns `names`.
    problems
        One line for each column that should be numeric and is not (its values are absent).
    """

    text: dict[str, list[str | None]]
    values: np.ndarray
    names: list[str]
    problems: list[str] = field(default_factory=list)


def read_columns(path: str | Path, text_columns: TextColumns, dtype: type = np.float64) -> Columns:
    """Read a csv, tsv or parquet file by column.

    Parameters
    ----------
    text_columns
        Header -> positions of the columns read as text, and of those left out.
    dtype
        Of the numbers: float64, or float32 for half the memory.

    Raises
    ------
    HistillError
        When the file cannot be read.
    """
    lower = str(path).lower()
    try:
        if lower.endswith(PARQUET):
            return _read_parquet(Path(path), text_columns, dtype)
        if lower.endswith(TEXT):
            return _read_text(Path(path), text_columns, dtype)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:  # pyarrow's errors are ValueErrors
        raise HistillError(
            f"{path} cannot be read: {str(error)[:300]}", mend=f"check the file; read are {FORMATS}"
        ) from None
    raise HistillError(f"{path}: unknown format '{''.join(Path(path).suffixes[-2:])}'", mend=f"read are {FORMATS}")


def _read_text(path: Path, text_columns: TextColumns, dtype: type) -> Columns:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    header, delimiter, skip = read_header(path)
    text, left_out = text_columns(header)
    keys = [f"f{index}" for index in range(len(header))]

    def read(wanted: dict[str, Any], *, threads: bool) -> Any:
        with open_bytes(path) as stream:
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
    others = {*text, *left_out}
    numeric = [index for index in range(len(header)) if index not in others]
    names = [header[index] for index in numeric]
    number = pa.from_numpy_dtype(dtype)
    try:
        table = read(strings | {keys[index]: number for index in numeric}, threads=True)
        arrays = (table[keys[index]].to_numpy() for index in numeric)
        values, problems = _stack(arrays, len(numeric), len(table), dtype), []
    except pa.ArrowInvalid as error:
        if "onversion error" not in str(error):
            raise
        table = read({key: pa.string() for key in keys}, threads=False)
        rows = table[keys[text[0]]].to_pylist() if text else None
        values, problems = _convert([table[keys[i]].to_pylist() for i in numeric], names, rows, dtype)
    return Columns({header[i]: _names(table[keys[i]].to_pylist()) for i in text}, values, names, problems)


def read_header(path: Path) -> tuple[list[str], str, int]:
    """Column names, delimiter, and how many lines to skip (comments and the header)."""
    with open_bytes(path) as stream:
        lines = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
        skip, above = 1, ""
        line = lines.readline()
        gct = line.startswith("#1.2")
        if line.startswith("#1.3"):
            raise HistillError(
                f"{path} is GCT 1.3, which holds annotations beside the matrix", mend="save it as GCT 1.2, or as tsv"
            )
        while line.startswith("#") or (line and not line.strip()):
            above, line, skip = line, lines.readline(), skip + 1
        if gct:  # its second line counts the rows and columns
            line, skip = lines.readline(), skip + 1
        second = lines.readline()
        if _names_columns(above, line):
            line, second, skip = above.lstrip("# "), line, skip - 1
    if not second:
        raise HistillError(f"{path} holds no data below its header", mend="check that the file is complete")
    delimiter = max("\t,;", key=line.count)
    header, first = (next(csv.reader([text], delimiter=delimiter)) for text in (line, second))
    header = [name.strip() for name in header]
    if len(first) == len(header) + 1:
        # Taken for R's table, every cell of every row would move by one column. R names its first column, and ends no
        # line in a delimiter.
        if header[0].lower() in ("", *ROW_NAMES, "slide_id") or not first[-1].strip():
            raise HistillError(
                f"{path}: the first row has {len(first)} cells, the header {len(header)}",
                mend="give every column a name, and remove delimiters at the ends of lines",
            )
        header = ["", *header]  # as R's write.table writes it: the row names have no header
    return header, delimiter, skip


def _names_columns(comment: str, line: str) -> bool:
    """Whether a line that begins with # is the header, as `#gene_id`: the next has as many cells and holds numbers."""
    delimiter = max("\t,;", key=comment.count)
    cells = line.rstrip().split(delimiter)
    if len(cells) < 2 or comment.count(delimiter) != len(cells) - 1:
        return False
    return any(NUMBER.fullmatch(cell.strip()) for cell in cells[1:])


@contextmanager
def open_bytes(path: Path) -> Iterator[Any]:
    """The file's bytes, decompressed."""
    lower = path.name.lower()
    if lower.endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.namelist() if not m.endswith("/") and not m.startswith("__MACOSX")]
            if len(members) != 1:
                raise HistillError(f"{path} holds {len(members)} files", mend="give an archive with the matrix alone")
            stored = archive.getinfo(members[0]).compress_size
            with archive.open(members[0]) as stream, io.BufferedReader(Bounded(stream, path, stored)) as bounded:
                yield bounded
    elif lower.endswith(".gz"):
        stored = path.stat().st_size
        with gzip.open(path, "rb") as stream, io.BufferedReader(Bounded(stream, path, stored)) as bounded:
            yield bounded
    else:
        with open(path, "rb") as stream:
            yield stream


def _read_parquet(path: Path, text_columns: TextColumns, dtype: type) -> Columns:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        found, types = schema.names, schema.types
        index = [name for name in (schema.pandas_metadata or {}).get("index_columns", []) if isinstance(name, str)]
        running = {n for n in index if n.startswith("__index_level_") and not _is_text(types[found.index(n)])}
        # pandas writes the index behind the columns: as row names it belongs before them.
        front = [i for i, name in enumerate(found) if name in index and name not in running]
        order = [*front, *(i for i, name in enumerate(found) if name not in index)]
        header = [found[i] for i in order]
        text, left_out = text_columns(header)
        others = {*text, *left_out}
        numeric = [i for i in range(len(header)) if i not in others]
        names = [header[i] for i in numeric]
        cells: dict[str, list[str | None]] = {header[i]: [] for i in text}
        check(path, file.metadata.num_rows * len(header) * np.dtype(dtype).itemsize, path.stat().st_size)
        if any(_is_text(types[order[i]]) for i in numeric):
            table = file.read()
            for i in text:
                cells[header[i]] = [_name(cell) for cell in table.column(order[i]).to_pylist()]
            columns = [table.column(order[i]).to_pylist() for i in numeric]
            rows = cells[header[text[0]]] if text else None
            values, problems = _convert(columns, names, rows, dtype)
            return Columns(cells, values, names, problems)
        values, row = np.empty((file.metadata.num_rows, len(numeric)), dtype), 0
        # By batches: one table of 20,000 columns is slow and a second copy of the file.
        for batch in file.iter_batches(_ROWS):
            for i in text:
                cells[header[i]].extend(_name(cell) for cell in batch.column(order[i]).to_pylist())
            arrays = (batch.column(order[i]).to_numpy(zero_copy_only=False) for i in numeric)
            values[row : row + len(batch)] = _stack(arrays, len(numeric), len(batch), dtype)
            row += len(batch)
    return Columns(cells, values, names)


def _name(cell: Any) -> str | None:
    """Text of an id without blanks around it; pandas holds whole numbers as fractions where one of them is missing."""
    if isinstance(cell, float):
        if math.isnan(cell):
            return None
        return str(int(cell)) if cell.is_integer() else str(cell)
    return None if cell is None else str(cell).strip() or None


def _names(cells: list[Any]) -> list[str | None]:
    """Text of a column of ids; whole numbers that were all written as fractions, 1.0, are whole again."""
    names = [_name(cell) for cell in cells]
    if all(name is None or FLOATED.fullmatch(name) for name in names):
        return [name and name.removesuffix(".0") for name in names]
    return names


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _stack(arrays: Iterable[np.ndarray], columns: int, rows: int, dtype: type) -> np.ndarray:
    """Numeric columns as an array [rows, columns]."""
    values = np.empty((columns, rows), dtype)
    for own, array in zip(values, arrays, strict=True):
        # Integers with nulls become float64 with NaN on the way to NumPy; booleans become 0 and 1.
        own[:] = array
    return values.T


def _convert(
    columns: list[list[Any]], names: list[str], rows: list[str | None] | None, dtype: type
) -> tuple[np.ndarray, list[str]]:
    """Text columns to numbers where they are; the first cell that is none is told of every other column."""
    values = np.full((len(columns[0]) if columns else 0, len(names)), np.nan, dtype)
    problems = []
    for column, (cells, name) in enumerate(zip(columns, names, strict=True)):
        for row, cell in enumerate(cells):
            try:
                # float() would take 1_000 for a thousand
                values[row, column] = np.nan if cell is None else float(str(cell).replace("_", "?"))
            except (TypeError, ValueError):
                where = f"row '{rows[row]}'" if rows else f"data row {row + 1}"
                problems.append(f"column '{name}', {where} holds {str(cell)!r}, which is no number")
                break
    return values, problems
