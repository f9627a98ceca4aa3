"""Zarr v3 files of an AnnData table: bytes to write, and arrays from bytes.

A table is written file by file, so that a killed run can go on and every run gives the same bytes; reading it back this
way costs a fifth of what the general library takes (docs/features.md). `anndata.read_zarr` opens what is written here.
Formats: Zarr v3 core specification, with the `vlen-utf8` codec for text; AnnData on-disk format, version 0.1.0 of the
table, 0.2.0 of its parts. Arrays are little-endian and uncompressed, each in one chunk but for X.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np

TYPES = (
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
)
_BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
_TEXT = {"name": "vlen-utf8", "configuration": {}}


def group_node(attributes: dict[str, Any]) -> bytes:
    """`zarr.json` of a group."""
    return _json({"attributes": attributes, "node_type": "group", "zarr_format": 3})


def array_node(shape: tuple[int, ...], kind: str, encoding: str, *, chunk_rows: int | None = None) -> bytes:
    """`zarr.json` of an array of a type of `TYPES` or `string`; in one chunk without `chunk_rows`."""
    chunks = [max(1, length) for length in shape]
    if chunk_rows is not None:
        chunks[0] = chunk_rows
    fill: Any = {"string": "", "bool": False}.get(kind, 0)
    return _json(
        {
            "attributes": {"encoding-type": encoding, "encoding-version": "0.2.0"},
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunks}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "codecs": [_TEXT if kind == "string" else _BYTES],
            "data_type": kind,
            "fill_value": fill,
            "node_type": "array",
            "shape": list(shape),
            "zarr_format": 3,
        }
    )


def array_files(name: str, values: np.ndarray) -> dict[str, bytes]:
    """Files of an array in one chunk."""
    kind = values.dtype.name
    if kind not in TYPES:
        raise ValueError(f"{name}: values of type {kind} cannot be stored; numbers and booleans can")
    files = {f"{name}/zarr.json": array_node(values.shape, kind, "array")}
    if values.size:
        files[chunk_file(name, values.ndim)] = little_endian(values).tobytes()
    return files


def text_files(name: str, texts: list[str]) -> dict[str, bytes]:
    """Files of a column of text."""
    files = {f"{name}/zarr.json": array_node((len(texts),), "string", "string-array")}
    if texts:
        files[chunk_file(name, 1)] = _pack(texts)
    return files


def table_files(
    *, obs: dict[str, np.ndarray], spatial: np.ndarray, var_names: list[str], recipe: dict[str, Any]
) -> dict[str, bytes]:
    """Files of an AnnData table by relative path, all but those of X."""
    rows = len(spatial)
    columns = {key: np.asarray(column) for key, column in obs.items()}
    parts = {
        "zarr.json": group_node({"encoding-type": "anndata", "encoding-version": "0.1.0"}),
        "obs/zarr.json": _frame_node(list(columns)),
        "var/zarr.json": _frame_node([]),
        "obsm/zarr.json": _mapping_node(),
        "uns/zarr.json": _mapping_node(),
        # One JSON text instead of one array a key: few files, and None and lists come back as they were.
        "uns/recipe/zarr.json": array_node((), "string", "string"),
        "uns/recipe/c": _pack([json.dumps(recipe, sort_keys=True, allow_nan=False)]),
    }
    for key, column in columns.items():
        parts |= array_files(f"obs/{key}", column)
    parts |= array_files("obsm/spatial", np.asarray(spatial, dtype=np.int64).reshape(rows, 2))
    parts |= text_files("obs/_index", [str(row) for row in range(rows)])
    parts |= text_files("var/_index", list(var_names))
    return parts


def chunk_file(name: str, ndim: int, index: int = 0) -> str:
    """File of a chunk: the one at `index` along the rows."""
    return "/".join([name, "c", *([str(index)] if ndim else []), *["0"] * (ndim - 1)])


def little_endian(values: np.ndarray) -> np.ndarray:
    """Values as they are stored: C order, little-endian."""
    return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))


def read_node(content: bytes) -> tuple[tuple[int, ...], np.dtype | None, int]:
    """Shape, type (None: text) and rows of a chunk of an array, from its `zarr.json`.

    Raises
    ------
    ValueError
        When the array is not laid out as this module does it.
    """
    node = json.loads(content)
    try:
        shape, kind = tuple(node["shape"]), node["data_type"]
        chunks = tuple(node["chunk_grid"]["configuration"]["chunk_shape"])
        plain = node["codecs"] == [_TEXT if kind == "string" else _BYTES]
    except (KeyError, TypeError):
        raise ValueError("is no array") from None
    if not plain or kind not in (*TYPES, "string") or chunks[1:] != tuple(max(1, length) for length in shape[1:]):
        raise ValueError("is an array of another layout")
    return shape, None if kind == "string" else np.dtype(kind).newbyteorder("<"), chunks[0] if chunks else 1


def read_text(content: bytes) -> list[str]:
    """Texts of a `vlen-utf8` chunk."""
    (count,), at, texts = struct.unpack_from("<I", content), 4, []
    for _ in range(count):
        (length,) = struct.unpack_from("<I", content, at)
        texts.append(content[at + 4 : at + 4 + length].decode())
        at += 4 + length
    return texts


def _pack(texts: list[str]) -> bytes:
    encoded = [text.encode() for text in texts]
    return struct.pack("<I", len(texts)) + b"".join(struct.pack("<I", len(text)) + text for text in encoded)


def _frame_node(columns: list[str]) -> bytes:
    attributes = {"_index": "_index", "column-order": columns}
    return group_node({**attributes, "encoding-type": "dataframe", "encoding-version": "0.2.0"})


def _mapping_node() -> bytes:
    return group_node({"encoding-type": "dict", "encoding-version": "0.1.0"})


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, allow_nan=False).encode()
