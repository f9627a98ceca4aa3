"""The feature store: one zarr v3 directory a slide, one AnnData-encoded group a magnification.

`anndata.read_zarr(store / "20x")` opens a group as it is; what is read here needs neither zarr nor anndata. X lies in
uncompressed chunks, so that single rows can be read through a memory map. The completion record in the root group
(attribute `histill`) names every file with its digest. A store is read through one handle of its folder, so that a
reader sees the old or the new version of a store that is replaced meanwhile, never a mixture.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from histill.errors import HistillError
from histill.features.store_group import Layout
from histill.features.store_writer import FORMAT, RECORD, StoreWriter
from histill.features.zarr_files import chunk_file, read_node, read_text
from histill.provenance import bytes_digest, digest

_ATTEMPTS, _PAUSE_SECONDS = 5, 0.02
_GONE = (errno.ENOENT, errno.ESTALE)
_REMAKE = "delete it and run: snakemake -R features_batch (imported features: snakemake -R features)"
_T = TypeVar("_T")


@dataclass
class Group:
    """Features of one slide at one magnification.

    Attributes
    ----------
    x
        Features [N, D], float16 or float32.
    spatial
        Level-0 pixels of each tile's top-left corner [N, 2], int64.
    obs
        Column name -> array [N]: `tile`, `parent`, `valid`, `tissue`, or fewer for imports.
    var_names
        Names of the D features; None numbers them.
    """

    x: np.ndarray
    spatial: np.ndarray
    obs: dict[str, np.ndarray] = field(default_factory=dict)
    var_names: list[str] | None = None

    @property
    def valid(self) -> np.ndarray:
        """Rows whose tile could be read [N], bool."""
        return self.obs["valid"] if "valid" in self.obs else np.ones(len(self.x), dtype=bool)


def store_path(encoder: str, slide_id: str) -> str:
    """Where a slide's store lies, relative to the results folder."""
    return f"features/{encoder}/{slide_id}.zarr"


def write_store(path: str | Path, groups: dict[str, Group], recipe: dict[str, Any]) -> dict[str, Any]:
    """Write a slide's groups and the recipe that made them; the store appears whole or not at all.

    Rows that are not valid become zeros. Returns the completion record (`StoreWriter.finish`).

    Raises
    ------
    ValueError
        When a group's arrays disagree in their number of rows.
    """
    layouts = {}
    for name, group in groups.items():
        obs = {key: column for key, column in group.obs.items() if key != "valid"}
        rows, dim = group.x.shape
        if len(group.valid) != rows:
            raise ValueError(f"{path}, group {name}: {rows} rows in X, but {len(group.valid)} in 'valid'")
        layouts[name] = Layout(rows, dim, obs, group.spatial, group.var_names, group.x.dtype.name)
    with StoreWriter(path, recipe, layouts) as writer:
        for name, group in groups.items():
            rows = np.flatnonzero(group.valid)
            writer.write(name, rows, group.x[rows])
        return writer.finish()


def group_names(path: str | Path) -> list[str]:
    """Groups of a store (`10x`, `20x`, or `slide`), sorted."""
    return sorted(counts(path))


def counts(path: str | Path) -> dict[str, dict[str, Any]]:
    """Group -> `rows`, `valid` (rows that could be read), `dim` and `dtype`."""
    return _consistent(path, lambda store: store.record["groups"])


def record_digest(path: str | Path) -> str:
    """Digest of the completion record, which holds the digest of every file; none of them is read."""
    return _consistent(path, lambda store: store.record["digest"])


def count_valid(path: str | Path, name: str) -> int:
    """Number of rows of a group that could be read."""
    return _consistent(path, lambda store: store.record["groups"][store.group(name)]["valid"])


def read_group(path: str | Path, name: str, *, features: bool = True) -> Group:
    """One group of a store, in memory; without `features`, X has no columns and is not read."""

    def read(store: _Store) -> Group:
        columns = json.loads(store.content(f"{store.group(name)}/obs/zarr.json"))["attributes"]["column-order"]
        return Group(
            x=store.matrix(name) if features else np.empty((store.record["groups"][name]["rows"], 0), np.float16),
            spatial=store.array(f"{name}/obsm/spatial"),
            obs={column: store.array(f"{name}/obs/{column}") for column in columns},
            var_names=store.text(f"{name}/var/_index"),
        )

    return _consistent(path, read)


def read_rows(path: str | Path, name: str, rows: np.ndarray) -> np.ndarray:
    """Features of some rows [K, D] of a group, through a memory map of the chunks that hold them.

    Parameters
    ----------
    rows
        Numbers [K] of rows, in any order, counted among the rows that are valid.
    """
    rows = np.asarray(rows, dtype=np.int64)

    def read(store: _Store) -> np.ndarray:
        valid = np.flatnonzero(store.array(f"{store.group(name)}/obs/valid"))
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(valid):
            raise HistillError(
                f"feature store {path}: group {name} has {len(valid)} valid rows; row {rows.max()} is asked for",
                mend="start again: the store was made anew meanwhile",
            )
        return store.rows(name, valid[rows])

    return _consistent(path, read)


def read_recipe(path: str | Path, name: str) -> dict[str, Any]:
    """The recipe that made a group."""
    return _consistent(path, lambda store: json.loads(store.text(f"{store.group(name)}/uns/recipe")[0]))


def verify(path: str | Path) -> dict[str, Any]:
    """Compare every file of a store with its digest and return the completion record.

    Raises
    ------
    HistillError
        Naming the first file that is missing, added or changed.
    """

    def check(store: _Store) -> dict[str, Any]:
        for name in store.record["files"]:
            store.content(name)
        return store.record

    record = _consistent(path, check)
    here = {file.relative_to(path).as_posix() for file in Path(path).rglob("*") if file.is_file()}
    added = sorted(here - {"zarr.json", *record["files"]})
    if added:
        raise HistillError(f"feature store {path}: {added[0]} is no file of it", mend=_REMAKE)
    return record


def _consistent(path: str | Path, read: Callable[[_Store], _T]) -> _T:
    """What `read` says of one version of a store; a store that is replaced meanwhile is opened again."""
    for attempt in range(_ATTEMPTS):
        try:
            with _Store(path) as store:
                return read(store)
        except OSError as error:
            reason = error
            if error.errno not in _GONE:
                break
            time.sleep(_PAUSE_SECONDS * attempt)
    what = f"{reason.filename} is missing" if reason.errno == errno.ENOENT else f"{reason}"
    raise HistillError(f"feature store {path} cannot be read: {what}", mend=_REMAKE) from None


class _Store:
    """An open store: reads files of the folder that was there when it was opened."""

    def __init__(self, path: str | Path):
        self.path = path
        self._folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.record = self._record()
        except BaseException:
            os.close(self._folder)
            raise

    def __enter__(self) -> _Store:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._folder)

    def _record(self) -> dict[str, Any]:
        with self._file("zarr.json") as file:
            content = file.read()
        try:
            record = json.loads(content)["attributes"][RECORD]
            made = record["format"], digest({key: value for key, value in record.items() if key != "digest"})
        except (ValueError, RecursionError, KeyError, TypeError):
            raise self._damaged("has no completion record: it is of an earlier version, or was cut off") from None
        if made != (FORMAT, record["digest"]):
            raise self._damaged("has a completion record that was changed, or is of a later version")
        return record

    def group(self, name: str) -> str:
        """The name of a group that must be there."""
        if name not in self.record["groups"]:
            raise HistillError(
                f"feature store {self.path} has no group '{name}'; it has "
                f"{', '.join(sorted(self.record['groups'])) or 'none'}",
                mend="extract again with the magnifications that the cohort is trained on",
            )
        return name

    def content(self, name: str) -> bytes:
        """Content of a file, as its digest has it."""
        with self._file(name) as file:
            content = file.read()
        if bytes_digest(content) != self.record["files"].get(name):
            raise self._damaged(f"is damaged: {name} does not have the digest of the completion record")
        return content

    def array(self, name: str) -> np.ndarray:
        """An array in one chunk."""
        shape, kind, _ = read_node(self.content(f"{name}/zarr.json"))
        if not np.prod(shape):
            return np.zeros(shape, kind)
        return np.frombuffer(self.content(chunk_file(name, len(shape))), kind).reshape(shape).copy()

    def text(self, name: str) -> list[str]:
        """A column of text, or a single text."""
        shape, _, _ = read_node(self.content(f"{name}/zarr.json"))
        return read_text(self.content(chunk_file(name, len(shape)))) if np.prod(shape) else []

    def matrix(self, name: str) -> np.ndarray:
        """X of a group [N, D]."""
        (count, dim), kind, chunk_rows = read_node(self.content(f"{self.group(name)}/X/zarr.json"))
        x = np.empty((count, dim), kind)
        for chunk in range(-(-count // chunk_rows)):
            with self._chunk(name, chunk, chunk_rows * dim * kind.itemsize) as file:
                file.readinto(memoryview(x[chunk * chunk_rows : (chunk + 1) * chunk_rows]).cast("B"))
        return x

    def rows(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Rows of X [K, D]; only the pages that hold them are read."""
        (_, dim), kind, chunk_rows = read_node(self.content(f"{self.group(name)}/X/zarr.json"))
        order = np.argsort(rows, kind="stable")
        rows, x = rows[order], np.empty((len(rows), dim), kind)
        for chunk in np.unique(rows // chunk_rows):
            low, high = np.searchsorted(rows, [chunk * chunk_rows, (chunk + 1) * chunk_rows])
            with (
                self._chunk(name, int(chunk), chunk_rows * dim * kind.itemsize) as file,
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
            ):
                whole = np.frombuffer(mapped, kind).reshape(chunk_rows, dim)
                np.take(whole, rows[low:high] - chunk * chunk_rows, axis=0, out=x[low:high], mode="clip")
                del whole  # the map cannot be closed while an array looks at it
        return x[np.argsort(order)] if (np.diff(order) != 1).any() else x

    def _chunk(self, name: str, chunk: int, size: int) -> BinaryIO:
        file = self._file(chunk_file(f"{name}/X", 2, chunk))
        if os.fstat(file.fileno()).st_size != size:
            file.close()
            raise self._damaged(f"is damaged: {chunk_file(f'{name}/X', 2, chunk)} has not the size of a chunk")
        return file

    def _file(self, name: str) -> BinaryIO:
        return open(name, "rb", buffering=0, opener=lambda file, flags: os.open(file, flags, dir_fd=self._folder))

    def _damaged(self, how: str) -> HistillError:
        return HistillError(f"feature store {self.path} {how}", mend=_REMAKE)
