"""Writes a feature store as its rows come, and goes on after a kill where it was.

While it is written a store lies beside its place, in `.<name>.part`: `tree` (the store to be), `journal`, `lock`.
Rows go straight into the chunk files. Every ten seconds what was written is made durable and the journal notes how far
each group is; a run that finds a journal of its own kind cuts the files back to that and goes on. When all is there the
completion record is written, and the folder is renamed into its place.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from histill.errors import SlideError
from histill.features.lock import StoreLock
from histill.features.store_group import GroupFiles, Layout
from histill.features.zarr_files import group_node
from histill.provenance import digest, file_digest, replace_folder
from histill.storage import StorageError, explained, fsync

CHECKPOINT_SECONDS = 10.0
RECORD = "histill"  # attribute of the store's root group that holds the completion record
FORMAT = 1


def store_key(described: dict[str, Any], groups: dict[str, Layout], inputs: dict[str, Any] | None) -> str:
    """Digest of all that a store is made from; parameters as of `StoreWriter`, whose record has it as `key`."""
    return _key(_files(described, groups), inputs)


def _key(files: dict[str, bytes], inputs: dict[str, Any] | None) -> str:
    contents = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return digest({"files": contents, "inputs": inputs})


def _files(described: dict[str, Any], groups: dict[str, Layout]) -> dict[str, bytes]:
    """What is known of the groups' files before the features are, by path in the store."""
    return {
        f"{name}/{file}": content for name, group in groups.items() for file, content in group.files(described).items()
    }


class StoreWriter:
    """Writes one store; a context manager. Not for use by several threads at once.

    Parameters
    ----------
    path
        Where the store shall lie. What lies there stays until `finish` replaces it.
    described
        The recipe, stored in every group.
    groups
        Group name -> layout.
    inputs
        Digests of all that the features depend on beside `described` and the layouts: slide, stage recipe. With them a
        partial store of the same kind is gone on with (`done`), and one is left when this writer is closed early;
        without, writing starts anew and leaves nothing.

    Raises
    ------
    StoreBusyError
        When another process writes this store.
    StorageError
        When the folder cannot be written.
    ValueError
        When the arrays of a layout disagree.
    """

    def __init__(
        self,
        path: str | Path,
        described: dict[str, Any],
        groups: dict[str, Layout],
        *,
        inputs: dict[str, Any] | None = None,
    ):
        self.path = Path(path)
        self._part = self.path.with_name(f".{self.path.name}.part")
        self._tree, self._journal = self._part / "tree", self._part / "journal"
        self._resumable = inputs is not None
        self._groups = {name: GroupFiles(self._tree / name, layout) for name, layout in groups.items()}
        files = {}
        for name, layout in groups.items():
            with self._about(name):
                layout.check()
                files |= _files(described, {name: layout})
        self._key = _key(files, inputs)
        with self._about():
            self._part.mkdir(parents=True, exist_ok=True)
            self._lock: StoreLock | None = StoreLock(self._part / "lock", self.path)
        try:
            with self._about():
                self._begin({"key": self._key}, files)
        except BaseException:
            self.close()
            raise

    def done(self, name: str) -> int:
        """Rows of a group below this one need no computing: an earlier run has stored them."""
        return self._groups[name].kept

    def write(self, name: str, rows: np.ndarray | range | slice, values: np.ndarray) -> None:
        """Store features of tiles that could be read.

        Rows that never come are rows of zeros that are not `valid`. Rows below `done` are dropped.

        Parameters
        ----------
        rows
            Rows [K] of the group, increasing, and above those of the call before.
        values
            Their features [K, dim], of any float type.

        Raises
        ------
        SlideError
            When the type of the store cannot hold a value.
        StorageError
            When the disk is full, or cannot be written for another reason.
        """
        group = self._groups[name]
        rows = np.arange(group.layout.rows)[rows] if isinstance(rows, slice) else np.asarray(rows, dtype=np.int64)
        with self._about(name):
            group.write(rows, np.asarray(values))
        if self._resumable and time.monotonic() - self._saved >= CHECKPOINT_SECONDS:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Make durable what was written, and note it: a later run goes on from here."""
        with self._about():
            self._save()
            line = json.dumps({name: group.done for name, group in self._groups.items()})
            with open(self._journal, "ab") as journal:
                journal.write(line.encode() + b"\n")
                journal.flush()
                os.fsync(journal.fileno())
        self._saved = time.monotonic()

    def finish(self) -> dict[str, Any]:
        """Write the completion record and put the store in its place.

        Returns
        -------
        dict
            The record: `digest` of the store, `key` of all it was made from, `files` with the digest of each, and
            `groups` with `rows`, `valid` (rows that could be read), `dim` and `dtype`.
        """
        with self._about():
            self._save()
            files = sorted(file for file in self._tree.rglob("*") if file.is_file() and file.parent != self._tree)
            record = self._record({file.relative_to(self._tree).as_posix(): file_digest(file) for file in files})
            (self._tree / "zarr.json").write_bytes(group_node({RECORD: record}))
            for file in (*files, self._tree / "zarr.json"):
                fsync(file)
            self._lock.check()
            replace_folder(self._tree, self.path)
            fsync(self.path.parent)
        self._resumable = False  # nothing is left to go on with
        self.close()
        return record

    def discard(self) -> None:
        """Let go of the store, and of what was written of it."""
        self._resumable = False
        self.close()

    def close(self) -> None:
        """Let go of the store, finished or not."""
        for group in self._groups.values():
            group.close()
        if self._lock is None:
            return
        if not self._resumable:
            self._clear()
        self._lock.release()
        self._lock = None
        with contextlib.suppress(OSError):  # not empty when something is kept
            self._part.rmdir()

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _begin(self, header: dict[str, str], files: dict[str, bytes]) -> None:
        name = glob.escape(self.path.name)
        for stale in (*self.path.parent.glob(f".{name}.*.part"), *self.path.parent.glob(f".{name}.*.old")):
            if not stale.stem.endswith(".zarr"):  # else it is of another slide, whose name goes on
                shutil.rmtree(stale, ignore_errors=True)
        resumed = self._resumable and self._resume(header)
        if not resumed:
            self._clear()
            self._groups = {name: GroupFiles(self._tree / name, group.layout) for name, group in self._groups.items()}
        for name, content in files.items():
            file = self._tree / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        if not resumed:
            for group in self._groups.values():
                group.create()
        if self._resumable and not resumed:
            self._journal.write_text(json.dumps(header) + "\n")
        self._saved = time.monotonic()

    def _resume(self, header: dict[str, str]) -> bool:
        """Go back to what the journal says; False where it is of another kind or does not fit the files."""
        done, length = dict.fromkeys(self._groups, 0), 0
        try:
            first, *lines = self._journal.read_bytes().splitlines(keepends=True)
            if json.loads(first) != header:
                return False
            for line in lines:
                if not line.endswith(b"\n"):
                    break  # cut off in the middle
                done, length = json.loads(line), length + len(line)
            for name, group in self._groups.items():
                group.rewind(done[name])
            os.truncate(self._journal, len(first) + length)
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return True

    def _save(self) -> None:
        for group in self._groups.values():
            group.save()
        self._lock.check()

    def _record(self, files: dict[str, str]) -> dict[str, Any]:
        groups = {
            name: {
                "rows": group.layout.rows,
                "valid": int(group.valid.sum()),
                "dim": group.layout.dim,
                "dtype": group.layout.dtype,
            }
            for name, group in self._groups.items()
        }
        record = {"format": FORMAT, "key": self._key, "groups": groups, "files": files}
        return {**record, "digest": digest(record)}

    def _clear(self) -> None:
        for folder in (self._tree, self._tree.with_suffix(".old")):
            shutil.rmtree(folder, ignore_errors=True)
        self._journal.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _about(self, name: str | None = None) -> Iterator[None]:
        """Say of errors which store and group they are about, and what an error of the operating system means."""
        what = f"{self.path}, group {name}" if name else str(self.path)
        try:
            yield
        except ValueError as error:
            raise ValueError(f"{what}: {error}") from None
        except SlideError as error:
            if name is None:
                raise
            raise SlideError(f"{what}: {error.message}", mend=error.mend) from None
        except OSError as error:
            raise explained(error, what=what) or StorageError(
                f"{what}: cannot be written: {error.strerror} ({error.filename})",
                mend="check the folder's permissions and that its file system is mounted for writing",
            ) from None
