"""Storage that is full, read-only or out of reach: what is tried again, and what the user is told.

None of it is a slide's fault. What cannot be written ends the stage: to set one slide after another aside would leave a
cohort of failures that a larger disk mends. What cannot be read is tried again a few times, since network storage
often hesitates for seconds; then the slide is set aside, and the next run reads it anew.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from histill.errors import HistillError, SlideError

_T = TypeVar("_T")
PAUSES = (0.5, 2.0, 5.0)  # seconds before a read is tried again
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# Numbers of errors that say nothing of a file's content.
_OUT_OF_REACH = {
    errno.EIO,
    errno.EREMOTEIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.ENOTCONN,
    errno.ECONNRESET,
    errno.ECONNABORTED,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
}
_FORBIDDEN = {errno.EACCES, errno.EPERM}
# Libraries hand on the text of an error, if not its number.
_SAID = {os.strerror(number): number for number in (*_FULL, errno.EROFS, *_OUT_OF_REACH)}
_SAYS = re.compile("|".join(map(re.escape, _SAID)))
_KEPT = "run again: what is done is kept"


class StorageError(HistillError):
    """Results cannot be written. No slide is at fault: the stage ends."""


class UnreachableError(SlideError):
    """The storage does not give a slide's bytes, which says nothing of the slide."""


def explained(
    error: BaseException, results: str | Path | None = None, *, what: str | None = None
) -> StorageError | None:
    """What an error means that came of writing; None where it is about something else.

    Parameters
    ----------
    results
        Of errors that could as well be of reading, those of files below this folder count. None: all do.
    what
        Begins the message, in place of the file.
    """
    for link in _chain(error):
        if isinstance(link, StorageError):
            return link
        number, path = _number(link), getattr(link, "filename", None)
        if number is None:
            continue
        why, name = os.strerror(number), what or path or results or "a file"
        if number in _FULL:
            mend = f"free space, or raise the quota or the limit of a file's size, and {_KEPT}"
            return StorageError(f"{name}: no space is left to write it: {why}", mend=mend)
        if number == errno.EROFS:
            mend = f"have its file system mounted for writing, or name another folder, and {_KEPT}"
            return StorageError(f"{name}: cannot be written: {why}", mend=mend)
        if path is None or not _is_below(path, results):
            continue
        if number in _OUT_OF_REACH:
            mend = f"check the storage (is it mounted, does its server answer?), and {_KEPT}"
            return StorageError(f"{name}: the storage failed: {why}", mend=mend)
        if number in _FORBIDDEN:
            return StorageError(f"{name}: {why}", mend=f"see to the permissions of it and of its folder, and {_KEPT}")
    return None


def patiently(read: Callable[[], _T], path: str | Path, *, note: Callable[[str], None] | None = None) -> _T:
    """What `read` returns; it is called again after a pause while the storage does not answer (`PAUSES`).

    Parameters
    ----------
    read
        Opens what it needs anew each time.
    path
        What it reads, for messages.
    note
        Is told of a read that came only when it was tried again.

    Raises
    ------
    UnreachableError
        When it does not come.
    Exception
        What `read` raises for other reasons.
    """
    failure, why = None, ""
    for pause in (0.0, *PAUSES):
        time.sleep(pause)
        try:
            done = read()
        except Exception as error:
            if not is_out_of_reach(error):
                raise
            failure, why = error, _reason(error)
            continue
        if failure is not None and note is not None:
            note(f"the storage failed ({why}); what was tried again could be read")
        return done
    raise UnreachableError(
        f"{path}: the storage failed {1 + len(PAUSES)} times in a row: {why}",
        mend="check the storage (is it mounted, does its server answer?)",
    ) from failure


def is_out_of_reach(error: BaseException) -> bool:
    """Whether an error is the storage's and may pass; not one that was waited for already."""
    return not isinstance(error, UnreachableError) and _reason(error) is not None


def _reason(error: BaseException) -> str | None:
    numbers = map(_number, _chain(error))
    return next((os.strerror(number) for number in numbers if number in _OUT_OF_REACH), None)


def is_of_the_future(path: str | Path) -> bool:
    """Whether a file's time of change lies ahead of this machine's clock; a file that is not there is of no time."""
    try:
        return os.stat(path).st_mtime > time.time()
    except OSError:
        return False


def fsync(path: str | Path) -> None:
    """Make a file durable, or the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error, and those that led to it."""
    link: BaseException | None = error
    for _ in range(10):  # a chain may be a ring
        if link is None:
            return
        yield link
        link = link.__cause__ if link.__suppress_context__ else link.__context__


def _number(error: BaseException) -> int | None:
    """Its number, by its text where it has none."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    said = _SAYS.search(str(error))
    return _SAID[said[0]] if said else None


def _is_below(path: str | Path, folder: str | Path | None) -> bool:
    return folder is None or Path(os.path.abspath(os.fsdecode(path))).is_relative_to(os.path.abspath(folder))
