"""One writer a store: a lock file that says who writes, and when a lock may be taken over.

The file holds the machine and process of the writer, which holds a POSIX lock on it and touches it every half minute.

- The POSIX lock is held: somebody writes; the newcomer is refused.
- It is free and the file names this machine: that process has died; the lock is taken over at once.
- The file names another machine (POSIX locks may not reach across a network file system): the lock is taken over once
  the file has not been touched for five minutes by the file server's clock. The newcomer waits until that is decided.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from histill.errors import SlideError

HEARTBEAT_SECONDS = 30.0
STALE_SECONDS = 300.0
_POLL_SECONDS = 5.0
_UNSUPPORTED = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}

# A POSIX lock belongs to the process: two writers of one process need a list of their own.
_held: set[str] = set()
_held_guard = threading.Lock()


class StoreBusyError(SlideError):
    """Somebody else writes a store."""


class StoreLock:
    """Holds a lock file from its making to `release`.

    Parameters
    ----------
    path
        The lock file; its folder exists.
    what
        What is written, for messages.

    Raises
    ------
    StoreBusyError
        When somebody else writes.
    """

    def __init__(self, path: Path, what: str | Path):
        self.path, self.what = path, what
        self._key = os.path.realpath(path)
        self._own = {"host": socket.gethostname(), "machine": _machine(), "pid": os.getpid()}
        with _held_guard:
            if self._key in _held:
                raise self._refusal(self._own)
            _held.add(self._key)
        try:
            self._handle = self._acquire()
        except BaseException:
            _held.discard(self._key)
            raise
        self._inode = os.fstat(self._handle).st_ino
        self._stop = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def _acquire(self) -> int:
        while True:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                locked = _try_lock(handle)
                owner = _owner(handle)
                if locked is False:
                    raise self._refusal(owner)
                if not _same_file(handle, self.path):
                    os.close(handle)
                    continue  # its owner removed it in between
                if owner and not (locked and owner.get("machine") == _machine()) and not self._abandoned():
                    raise self._refusal(owner)
                os.ftruncate(handle, 0)
                os.pwrite(handle, json.dumps(self._own).encode(), 0)
                return handle
            except BaseException:
                os.close(handle)
                raise

    def _abandoned(self) -> bool:
        """Whether the file stays untouched for as long as no living writer leaves it; waits until that is known."""
        touched = os.stat(self.path).st_mtime
        while os.stat(self.path).st_mtime == touched:
            with tempfile.TemporaryFile(dir=self.path.parent) as probe:  # the file server's clock, not this machine's
                if os.fstat(probe.fileno()).st_mtime - touched > STALE_SECONDS:
                    return True
            time.sleep(_POLL_SECONDS)
        return False

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            with contextlib.suppress(OSError):
                os.utime(self.path)

    def check(self) -> None:
        """Raise when the lock has been taken over: this process was taken for dead."""
        try:
            mine = os.stat(self.path).st_ino == self._inode and _owner(self._handle) == self._own
        except FileNotFoundError:
            mine = False
        if not mine:
            raise SlideError(
                f"{self.what}: another process has taken over the writing of it", mend="let that one finish"
            )

    def release(self) -> None:
        """Remove the file and let go of the lock."""
        self._stop.set()
        with contextlib.suppress(OSError):
            if _same_file(self._handle, self.path):
                self.path.unlink()
        os.close(self._handle)
        _held.discard(self._key)

    def _refusal(self, owner: dict[str, Any] | None) -> StoreBusyError:
        owner = owner or {}
        return StoreBusyError(
            f"{self.what} is being written by process {owner.get('pid', '?')} on {owner.get('host', '?')}",
            mend=f"let it finish or end it; if it is gone, delete {self.path} and run again",
        )


def _try_lock(handle: int) -> bool | None:
    """True: locked; False: somebody else holds it; None: this file system has no locks."""
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return None
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        raise
    return True


def _owner(handle: int) -> dict[str, Any] | None:
    try:
        owner = json.loads(os.pread(handle, 4096, 0))
    except ValueError:
        return None  # just made, or its maker died before it wrote
    return owner if isinstance(owner, dict) else None


def _same_file(handle: int, path: Path) -> bool:
    try:
        return os.fstat(handle).st_ino == os.stat(path).st_ino
    except FileNotFoundError:
        return False


def _machine() -> str:
    """What tells machines apart: containers of one machine share its locks, whatever they call themselves."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()
