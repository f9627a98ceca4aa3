"""One group of a store that is being written: its layout, and its rows going into the chunk files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from histill.errors import SlideError
from histill.features.zarr_files import array_node, chunk_file, little_endian, table_files
from histill.storage import fsync

CHUNK_ROWS = 2048


@dataclass(frozen=True)
class Layout:
    """What is known of a group before its features are.

    Attributes
    ----------
    rows, dim
        Shape of X.
    obs
        Columns [rows] but `valid`, which the writer makes.
    spatial
        Level-0 pixels of each tile's top-left corner [rows, 2].
    var_names
        Names of the features; None numbers them.
    dtype
        `float16`, or `float32` (which may hold NaN: a value that is missing).
    """

    rows: int
    dim: int
    obs: dict[str, np.ndarray]
    spatial: np.ndarray
    var_names: list[str] | None = None
    dtype: str = "float16"

    def check(self) -> None:
        """Raise a ValueError when the arrays disagree."""
        lengths = {"spatial": len(self.spatial), **{key: len(column) for key, column in self.obs.items()}}
        if any(length != self.rows for length in lengths.values()):
            raise ValueError(f"{self.rows} rows in X, but {lengths}")
        if self.dtype not in ("float16", "float32") or self.dim < 1:
            raise ValueError(f"{self.dim} features of type {self.dtype}")
        if self.var_names is not None and len(self.var_names) != self.dim:
            raise ValueError(f"{len(self.var_names)} names for {self.dim} features")

    @property
    def chunk_rows(self) -> int:
        return max(1, min(self.rows, CHUNK_ROWS))

    @property
    def row_bytes(self) -> int:
        return self.dim * np.dtype(self.dtype).itemsize

    def files(self, described: dict[str, Any]) -> dict[str, bytes]:
        """Everything of the group but the chunks of X and of `valid`, by relative path."""
        names = self.var_names or [f"f{index}" for index in range(self.dim)]
        obs = {**self.obs, "valid": np.zeros(self.rows, bool)}
        files = table_files(obs=obs, spatial=self.spatial, var_names=names, recipe=described)
        files.pop(chunk_file("obs/valid", 1), None)
        files["X/zarr.json"] = array_node((self.rows, self.dim), self.dtype, "array", chunk_rows=self.chunk_rows)
        return files


class GroupFiles:
    """Chunks of X and of the column `valid` of one group below `folder`.

    Attributes
    ----------
    done
        Rows below this one are stored, or were left out as unreadable.
    kept
        As `done`, by an earlier run.
    """

    def __init__(self, folder: Path, layout: Layout):
        self.layout = layout
        self.valid = np.zeros(layout.rows, bool)
        self.done = self.kept = 0
        self._size = layout.chunk_rows * layout.row_bytes
        chunks = -(-layout.rows // layout.chunk_rows)
        self._chunks = [folder / chunk_file("X", 2, chunk) for chunk in range(chunks)]
        self._valid = folder / chunk_file("obs/valid", 1)
        self._open: tuple[int, int] | None = None  # (chunk, file handle)
        self._unsaved: set[Path] = set()

    def create(self) -> None:
        """Make the chunks, of zeros: what an unreadable tile is."""
        for file in self._chunks:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
            os.truncate(file, self._size)
        if self.layout.rows:
            self._valid.parent.mkdir(parents=True, exist_ok=True)
            self._valid.write_bytes(self.valid.tobytes())

    def rewind(self, done: int) -> None:
        """Go back to the first `done` rows; raises OSError or ValueError where the files do not hold them."""
        if not 0 <= done <= self.layout.rows:
            raise ValueError(f"{done} of {self.layout.rows} rows are done")
        for chunk, file in enumerate(self._chunks):
            if file.stat().st_size != self._size:
                raise ValueError(f"{file} has not the size of a chunk")
            here = min(max(0, done - chunk * self.layout.chunk_rows), self.layout.chunk_rows)
            os.truncate(file, here * self.layout.row_bytes)
            os.truncate(file, self._size)
        if self.layout.rows:
            valid = np.fromfile(self._valid, bool)
            if len(valid) != self.layout.rows:
                raise ValueError(f"{self._valid} has not a byte a row")
            self.valid[:done] = valid[:done]
        self.done = self.kept = done

    def write(self, rows: np.ndarray, values: np.ndarray) -> None:
        """Store rows [K], increasing, with their features [K, D]; those below `kept` are dropped."""
        if values.shape != (len(rows), self.layout.dim):
            raise ValueError(f"features {values.shape} for {len(rows)} rows of {self.layout.dim}")
        new = rows >= self.kept
        rows, values = rows[new], values[new]
        if not len(rows):
            return
        if (np.diff(rows) <= 0).any() or rows[0] < self.done or rows[-1] >= self.layout.rows:
            raise ValueError(f"rows must increase, from {self.done} to below {self.layout.rows}")
        values = self._stored(rows, values)
        which = rows // self.layout.chunk_rows
        for chunk in np.unique(which):
            inside = which == chunk
            self._put(int(chunk), rows[inside] - chunk * self.layout.chunk_rows, values[inside])
        self.valid[rows] = True
        self.done = int(rows[-1]) + 1

    def save(self) -> None:
        """Make durable what was written."""
        if self.layout.rows:
            with open(self._valid, "r+b") as handle:
                handle.write(self.valid.tobytes())
            self._unsaved.add(self._valid)
        for file in self._unsaved:
            fsync(file)
        self._unsaved = {self._chunks[self._open[0]]} if self._open else set()

    def close(self) -> None:
        if self._open:
            os.close(self._open[1])
        self._open = None

    def _stored(self, rows: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Values in the group's type, refusing what it cannot hold rather than storing infinity."""
        kind = np.dtype(self.layout.dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            stored = values.astype(kind)
        wrong = np.isinf(stored) if kind == np.float32 else ~np.isfinite(stored)
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise SlideError(
                f"feature {column} of row {rows[row]} is {values[row, column]:g}, which {kind.name} cannot hold",
                mend="report this encoder and slide",
            )
        return little_endian(stored)

    def _put(self, chunk: int, rows: np.ndarray, values: np.ndarray) -> None:
        """Write rows of one chunk in one go; rows between them that were left out are zeros."""
        block = np.zeros((rows[-1] - rows[0] + 1, values.shape[1]), values.dtype)
        block[rows - rows[0]] = values
        if self._open is None or self._open[0] != chunk:
            self.close()
            self._open = chunk, os.open(self._chunks[chunk], os.O_WRONLY)
            self._unsaved.add(self._chunks[chunk])
        content, offset = memoryview(block).cast("B"), int(rows[0]) * self.layout.row_bytes
        while content:  # a nearly full disk takes a part
            count = os.pwrite(self._open[1], content, offset)
            content, offset = content[count:], offset + count
