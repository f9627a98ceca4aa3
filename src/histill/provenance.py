"""Digests, fingerprints, atomic writes and receipts: how histill knows what was done and with what.

Every stage ends in receipts (`docs/architecture.md`, "Receipts"): one per slide and stage, written last and
atomically, and one per batch that lists them. Only receipts are tracked by Snakemake; stores, tables and pictures are
named in them together with their digests.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import glob
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from histill.errors import HistillError, SlideError
from histill.storage import fsync, patiently

DIGEST_CHARACTERS = 20  # 80 bits: no accidental collision in any cohort, and short enough to read
_PROBE_BYTES = 1 << 20
_PROBE_COUNT = 16

_PART = re.compile(r"\.([0-9a-f]{8})-(\d+)\.\w+\.(part|old)\b")
_MOVE = "move it away and run again"
_FORGOTTEN_SECONDS = 86400.0

OK, EMPTY, QUARANTINED = "ok", "empty", "quarantined"
# Of a slide's receipt; one that was edited by hand may hold anything.
_KINDS = {
    **dict.fromkeys(("slide", "stage", "state", "recipe"), str),
    **dict.fromkeys(("inputs", "outputs", "counts", "info"), dict),
    "warnings": list,
    "seconds": (int, float),
    **dict.fromkeys(("reason", "mend", "software"), (str, type(None))),
}


def digest(value: Any) -> str:
    """Digest of a JSON-serialisable value, independent of the order of mapping keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_CHARACTERS]


def bytes_digest(content: bytes) -> str:
    """Digest of bytes; that of a file with this content."""
    return hashlib.sha256(content).hexdigest()[:DIGEST_CHARACTERS]


def file_digest(path: str | Path) -> str:
    """Digest of a whole file's bytes."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()[:DIGEST_CHARACTERS]


def tree_digest(folder: str | Path) -> str:
    """Digest of every file below a folder (a zarr store), by relative path and content."""
    folder = Path(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return digest({path.relative_to(folder).as_posix(): file_digest(path) for path in files})


def fingerprint(path: str | Path) -> str:
    """Fingerprint of a large file: its size and 16 evenly spaced probes of 1 MiB, first and last included.

    Reading a 3 GB slide whole only to see whether it changed would cost more than segmenting it. Files of up to 16 MiB
    are read whole.

    Raises
    ------
    UnreachableError
        If the storage fails again and again.
    """
    return patiently(lambda: _fingerprint(path), path)


def _fingerprint(path: str | Path) -> str:
    size = os.stat(path).st_size
    state = hashlib.sha256(str(size).encode())
    last = max(0, size - _PROBE_BYTES)
    starts = (
        range(0, size, _PROBE_BYTES)
        if size <= _PROBE_COUNT * _PROBE_BYTES
        else (last * index // (_PROBE_COUNT - 1) for index in range(_PROBE_COUNT))
    )
    with open(path, "rb") as handle:
        for start in starts:
            handle.seek(start)
            state.update(handle.read(_PROBE_BYTES))
    return state.hexdigest()[:DIGEST_CHARACTERS]


@contextlib.contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path`; it becomes `path` when the block ends without an error.

    What a process left that was killed at the same work is removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_parts(path.parent, glob.escape(path.stem))
    # The suffix stays last: writers such as cv2.imwrite choose the format by it.
    prefix = f".{path.stem}.{owner()}."
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=f".part{path.suffix}")
    os.close(handle)
    part = Path(name)
    try:
        yield part
        fsync(part)
        os.chmod(part, 0o666 & ~_umask())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def remove_parts(folder: str | Path, name: str = "*") -> None:
    """Remove what `atomic_file` and `atomic_folder` left in a folder when their process was killed.

    What a living process of this machine is writing stays, and what one of another machine wrote today.

    Parameters
    ----------
    name
        Of the files they would have become, without suffix, as a pattern.
    """
    for part in Path(folder).glob(f".{name}.*"):
        match = _PART.search(part.name)
        if not match:
            continue
        with contextlib.suppress(FileNotFoundError):  # it is in its place by now
            if match[1] != _machine():
                left = time.time() - part.stat().st_mtime > _FORGOTTEN_SECONDS
            else:
                left = not _lives(int(match[2]))
            if left:
                shutil.rmtree(part) if part.is_dir() else part.unlink()


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # another user's
    return True


def owner() -> str:
    """This process, in the names of what it is writing."""
    return f"{_machine()}-{os.getpid()}"


@functools.cache
def _machine() -> str:
    """Where process ids mean the same: one boot of a machine, one container."""
    try:
        boot, space = Path("/proc/sys/kernel/random/boot_id").read_text(), os.readlink("/proc/self/ns/pid")
    except OSError:
        boot, space = socket.gethostname(), ""
    return bytes_digest(f"{boot} {space}".encode())[:8]


@contextlib.contextmanager
def unchanged(path: str | Path) -> Iterator[None]:
    """Refuse what was made in the block if the file at `path` changed meanwhile, by its size and time.

    Raises
    ------
    SlideError
        On leaving the block.
    """
    before = _stamp(path)
    yield
    if _stamp(path) != before:
        mend = "wait until it has been copied completely, then run snakemake again"
        raise SlideError(f"{path}: changed while it was read", mend=mend)


def _stamp(path: str | Path) -> tuple[int, ...] | None:
    try:
        status = os.stat(path)
    except OSError:  # gone, or never there; the reader says so better
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """As `atomic_file`, of a folder: an empty one is yielded, and replaces `path`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_parts(path.parent, glob.escape(path.name))
    part = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.{owner()}.", suffix=".part"))
    try:
        yield part
        os.chmod(part, 0o777 & ~_umask())
        replace_folder(part, path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def replace_folder(part: Path, path: Path) -> None:
    """Put a finished folder in the place of `path`, which may exist; both lie on one file system."""
    # Two renames: whoever opens the path finds the old folder, nothing for a moment, or the new one.
    old = part.with_suffix(".old")
    shutil.rmtree(old, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        os.replace(path, old)
    os.replace(part, path)
    shutil.rmtree(old, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def keep_secret(path: str | Path) -> bytes:
    """The random bytes kept at a path, which only its owner can read; made where there are none."""
    path = Path(path)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.stem}.", suffix=".part") as part:
            part.write(secrets.token_bytes(32))
            part.flush()
            os.fsync(part.fileno())
            # Of two jobs that make it at once the first stays.
            with contextlib.suppress(FileExistsError):
                os.link(part.name, path)
    return path.read_bytes()


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON atomically, keys in the given order, with a final newline."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        with atomic_file(path) as part:
            # A half surrogate (a file name that is no UTF-8, a decoder's message) becomes its JSON escape.
            part.write_text(text, encoding="utf-8", errors="backslashreplace")
    except IsADirectoryError:
        raise _folder(path) from None
    except (FileExistsError, NotADirectoryError):
        raise HistillError(
            f"{path} cannot be written: a file lies where one of its folders belongs", mend=_MOVE
        ) from None


def write_csv(path: str | Path, columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
    """Write a table atomically, one dict a row; keys that a row lacks are empty cells."""
    with atomic_file(path) as part, open(part, "w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, columns, lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(rows)


def read_json(path: str | Path) -> Any:
    """Read JSON; an unreadable file is an error that names it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise HistillError(f"{path} does not exist", mend="run the stage that writes it first") from None
    except IsADirectoryError:
        raise _folder(path) from None
    except (ValueError, RecursionError) as error:  # no text, no JSON, a number of a thousand digits, too deep
        raise HistillError(f"{path} is not valid JSON: {error}", mend="delete it and run snakemake again") from None


def _folder(path: str | Path) -> HistillError:
    return HistillError(f"{path} is a folder where a file belongs", mend=_MOVE)


@dataclass
class Receipt:
    """What one stage did to one slide.

    Attributes
    ----------
    slide, stage
        Slide id and stage name.
    state
        `ok`, `empty` (nothing to do further: no tissue, no tile) or `quarantined`.
    recipe
        Digest of everything that was asked for (`histill.stages.recipe`).
    inputs
        Digest or fingerprint of each input by name.
    outputs
        Path relative to the results folder, to digest.
    counts
        What was found: tiles, tissue area in mm², ...
    info
        Small facts a reader of the report wants to see (mpp and its source, reader, ...).
    reason, mend
        Why the slide is not `ok`, and what to do about it.
    software
        Digest of what computed it (`histill.software`); None in receipts of earlier versions.

    Raises
    ------
    TypeError
        Where one of them is of another type.
    """

    slide: str
    stage: str
    state: str
    recipe: str
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    reason: str | None = None
    mend: str | None = None
    seconds: float = 0.0
    software: str | None = None

    def __post_init__(self) -> None:
        for name, kind in _KINDS.items():
            if not isinstance(getattr(self, name), kind):
                raise TypeError(f"'{name}' of a receipt cannot be {getattr(self, name)!r}")

    def write(self, path: str | Path) -> None:
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: str | Path) -> Receipt | None:
        """The receipt at `path`, or None where there is none that can be read (it is then made again)."""
        try:
            return cls(**json.loads(Path(path).read_text(encoding="utf-8")))
        except IsADirectoryError:
            raise _folder(path) from None
        except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError, TypeError):
            return None


def verify_outputs(receipt: Receipt, results: str | Path) -> bool:
    """Whether every output named in the receipt is there, and every file unchanged.

    Not compared are stores, which are folders too large for it, and outlines of tissue, which people may edit.
    """
    for name, made in receipt.outputs.items():
        path = Path(results) / name
        if not path.exists() or (path.is_file() and path.suffix != ".geojson" and file_digest(path) != made):
            return False
    return True
