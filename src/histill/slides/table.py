"""The tile table on disk: `tiles.parquet`, with fixed columns and types.

Columns cross between numpy and Arrow as buffers: `pyarrow.array` and `to_numpy` import pandas, which would double the
time of a small slide.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from histill.errors import SlideError
from histill.magnifications import MAGNIFICATIONS
from histill.provenance import atomic_file
from histill.slides.quality import FLAGS

SCHEMA = pa.schema(
    [
        ("magnification", pa.string()),
        *((name, pa.int32()) for name in ("x", "y", "width", "height")),
        ("tissue", pa.float32()),
        *((flag, pa.bool_()) for flag in FLAGS),
        ("pen_colour", pa.string()),
        ("keep", pa.bool_()),
        ("parent", pa.int32()),
    ]
)
Columns = dict[str, np.ndarray]


def empty() -> Columns:
    """Columns of zero rows."""
    return {field.name: np.zeros(0, "<U5" if pa.types.is_string(field.type) else np.float64) for field in SCHEMA}


def write(path: Path, columns: Columns, *, size: int, overlap: float) -> None:
    """Write a tile table atomically; tile size, overlap and resolutions go to the file's metadata `histill` as JSON."""
    about = {"size": size, "mpp": MAGNIFICATIONS, "overlap": overlap}
    schema = SCHEMA.with_metadata({b"histill": json.dumps(about).encode()})
    arrays = [_to_arrow(columns[field.name], field.type) for field in SCHEMA]
    with atomic_file(path) as part:
        pq.write_table(pa.Table.from_arrays(arrays, schema=schema), part, compression="zstd")


def read(path: str | Path) -> Columns:
    """Columns of a tile table by name.

    Raises
    ------
    SlideError
        If the file is missing, is no Parquet, lacks a column, or one of its columns is of another type or has gaps.
    """
    try:
        with pq.ParquetFile(path) as file:
            table = file.read(columns=SCHEMA.names)
        for name, kind in zip(SCHEMA.names, SCHEMA.types, strict=True):
            column = table.column(name)  # its buffers are taken as they are
            if column.type != kind or column.null_count:
                raise ValueError(f"column '{name}' is {column.type} with {column.null_count} gaps, not {kind}")
        return from_arrow(table)
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise SlideError(f"{path} is no tile table: {error}", mend="run: snakemake -R tiles_batch") from None


def from_arrow(table: pa.Table) -> Columns:
    """Columns of an Arrow table with the schema of a tile table."""
    return {field.name: _to_numpy(table.column(field.name), field.type) for field in SCHEMA}


def _to_arrow(values: np.ndarray, kind: pa.DataType) -> pa.Array:
    number = len(values)
    if pa.types.is_string(kind):
        text = "".join(values.tolist()).encode()
        ends = np.concatenate([[0], np.cumsum(np.char.str_len(values))]).astype(np.int32)
        return pa.StringArray.from_buffers(number, pa.py_buffer(ends.tobytes()), pa.py_buffer(text))
    if pa.types.is_boolean(kind):
        data = np.packbits(values.astype(bool), bitorder="little")
    else:
        data = values.astype("int32" if pa.types.is_int32(kind) else "float32")
    return pa.Array.from_buffers(kind, number, [None, pa.py_buffer(data.tobytes())])


def _to_numpy(column: pa.ChunkedArray, kind: pa.DataType) -> np.ndarray:
    if pa.types.is_string(kind):
        return np.array(column.to_pylist(), dtype="<U5")
    parts = [_chunk(chunk, kind) for chunk in column.chunks]
    dtype = bool if pa.types.is_boolean(kind) else "int32" if pa.types.is_int32(kind) else "float32"
    return np.concatenate(parts).astype(dtype) if parts else np.zeros(0, dtype)


def _chunk(chunk: pa.Array, kind: pa.DataType) -> np.ndarray:
    data, first, last = chunk.buffers()[1], chunk.offset, chunk.offset + len(chunk)
    if data is None:
        return np.zeros(0)
    if pa.types.is_boolean(kind):
        bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
        return bits[first:last].astype(bool)
    return np.frombuffer(data, "int32" if pa.types.is_int32(kind) else "float32")[first:last]
