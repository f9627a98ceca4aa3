"""A forked child process that sends items through a pipe: its limits, its pipes and its end (see `isolation`).

Items are pickled. Both ends are this program and the pipe is private to them: no pickle ever comes from a file.
"""

from __future__ import annotations

import ctypes
import faulthandler
import fcntl
import os
import pickle
import resource
import select
import signal
import struct
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, NamedTuple

_SIZE = struct.Struct("<Q")
ITEM, END, ERROR = "item", "end", "error"
_PIPE_BYTES = 1 << 20  # what an unprivileged pipe may hold
_KEPT_BYTES = 1 << 14  # of the child's stderr, to tell what it died of
_RELAYED_BYTES = 1 << 20  # of the child's stderr: a decoder in a loop fills no disk with warnings
_REAP_SECONDS = 5.0  # a process that waits for its storage dies only when that answers
_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG
_prctl = ctypes.CDLL(None).prctl  # looked up before any fork: the loader's lock may be held then


class Died(Exception):
    """The child ended without an answer.

    Attributes
    ----------
    status
        Exit status; negative: the signal that ended it; None: unknown.
    words
        The end of what it wrote to stderr.
    """

    def __init__(self, status: int | None, words: str):
        super().__init__(status, words)
        self.status = status
        self.words = words


class Packed(NamedTuple):
    """An exception as what can be sent.

    Attributes
    ----------
    name, text, traceback
        Its type, what it says, and where it was raised.
    of_memory
        Whether it, or one that led to it, is a MemoryError.
    ends
        Whether it is none of the program's errors, as SystemExit.
    pickled
        Itself; empty if it cannot be pickled.
    """

    name: str
    text: str
    traceback: str
    of_memory: bool
    ends: bool
    pickled: bytes


class Child:
    """A child process that sends the items of `function()`, ahead of their use by what a pipe holds and one item.

    It dies with this process, whatever ends that. Its stderr is passed on.

    Parameters
    ----------
    function
        Called in the child. Its items must be picklable.
    memory_mb
        Private, writable memory (MiB) it may have beside what this process has.
    """

    def __init__(self, function: Callable[[], Iterable[Any]], memory_mb: int):
        self.ended = False
        self._heard, self._said = b"", 0
        parent = os.getpid()
        _flush()  # what is buffered here must not be written twice
        self._items, items = os.pipe()
        self._words, words = os.pipe()
        with suppress(OSError):  # beyond the user's quota of pipe memory; costs speed only
            fcntl.fcntl(items, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads: see `isolation`
            self.pid = os.fork()
        if self.pid == 0:
            try:
                _enter(parent, words, memory_mb)
                for item in function():
                    _send(items, ITEM, item)
                _send(items, END, None)
            except BaseException as error:  # SystemExit and KeyboardInterrupt as well: nothing may pass for an answer
                _allow_memory(resource.RLIM_INFINITY)
                _send(items, ERROR, pack(error))
            finally:
                os._exit(1)  # nothing of the parent's is closed or run at exit here
        os.close(items)
        os.close(words)
        with suppress(OSError):  # child or parent, whoever is first; and the child may be gone already
            os.setpgid(self.pid, self.pid)
        os.set_blocking(self._words, False)
        self._poll = select.poll()
        for pipe in (self._items, self._words):
            self._poll.register(pipe, select.POLLIN)

    def receive(self, seconds: float) -> tuple[str, Any]:
        """The next message: (ITEM, item), (END, None) or (ERROR, Packed).

        Raises
        ------
        TimeoutError
            If it did not come in time; the child has been ended.
        Died
            If none will come.
        """
        deadline = time.monotonic() + seconds
        try:
            (number,) = _SIZE.unpack(self._read(_SIZE.size, deadline))
            sizes = [size for (size,) in _SIZE.iter_unpack(self._read(number * _SIZE.size, deadline))]
            message, *arrays = [self._read(size, deadline) for size in sizes]
            return pickle.loads(message, buffers=arrays)
        except TimeoutError:
            self.end()
            raise
        except EOFError:
            # It closed the pipe, so it is about to be gone; killed before that, it would seem to have been killed.
            gone = os.WEXITED | os.WNOHANG | os.WNOWAIT
            while time.monotonic() < deadline and not os.waitid(os.P_PID, self.pid, gone):
                time.sleep(0.001)
            status = self.end()
            raise Died(status, self._heard.decode(errors="replace")) from None

    def end(self) -> int | None:
        """End the child and all it started, and reap it: its exit status, or None if it is not known."""
        if self.ended:
            return None
        self.ended = True
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        status = self._reap()
        self._relay()
        os.close(self._items)
        os.close(self._words)
        return status

    def _read(self, count: int, deadline: float) -> bytearray:
        buffer, got = bytearray(count), 0
        while got < count:
            self._wait(deadline)
            new = os.readv(self._items, [memoryview(buffer)[got:]])
            if not new:
                raise EOFError
            got += new
        return buffer

    def _wait(self, deadline: float) -> None:
        """Wait for an item, or the end of items, passing on what comes through stderr."""
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            ready = dict(self._poll.poll(min(left, 60) * 1000))
            if self._words in ready and not self._relay():
                self._poll.unregister(self._words)
            if self._items in ready:
                return

    def _relay(self) -> bool:
        """Pass on what the child wrote to stderr, a pipe full at most; False when it has closed that."""
        try:
            text = os.read(self._words, 1 << 16)
        except BlockingIOError:
            return True
        self._heard = (self._heard + text)[-_KEPT_BYTES:]
        if self._said < _RELAYED_BYTES:
            with suppress(OSError):
                os.write(2, text)
        self._said += len(text)
        return bool(text)

    def _reap(self) -> int | None:
        deadline = time.monotonic() + _REAP_SECONDS
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.001)
        return None


def pack(error: BaseException) -> Packed:
    """An exception as what can be sent."""
    link: BaseException | None = error
    while link is not None and not isinstance(link, MemoryError):
        link = link.__cause__ or link.__context__
    try:
        pickled = pickle.dumps(error)
    except Exception:  # it holds what cannot be sent; its name and text can
        pickled = b""
    where = "".join(traceback.format_exception(error))
    return Packed(type(error).__name__, str(error), where, link is not None, not isinstance(error, Exception), pickled)


def die_with(parent: int) -> None:
    """Have this process killed when the one that started it, `parent`, is gone, whatever ended that."""
    _prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


def _enter(parent: int, words: int, memory_mb: int) -> None:
    """The child's first steps."""
    with suppress(OSError):
        os.setpgid(0, 0)
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and ends the child
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.dup2(words, 2)
    faulthandler.enable(file=2)  # the log says what was being read when it crashed
    if "cv2" in sys.modules:
        # OpenCV's threads stayed in the parent: 0 works without them, 1 would wait for ever for them to end.
        sys.modules["cv2"].setNumThreads(0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    with open("/proc/self/statm", "rb") as file:
        pages = int(file.read().split()[5])
    _allow_memory(pages * resource.getpagesize() + (memory_mb << 20))


def _allow_memory(limit: int) -> None:
    """Limit private, writable memory, in bytes. RLIMIT_AS would count mapped files too, and slides are mapped whole."""
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    allowed = [value for value in (limit, hard) if value != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(allowed, default=resource.RLIM_INFINITY), hard))


def _send(pipe: int, kind: str, content: Any) -> None:
    _flush()
    arrays: list[pickle.PickleBuffer] = []  # written from where they lie, not copied into the message
    message = pickle.dumps((kind, content), protocol=5, buffer_callback=arrays.append)
    parts = [memoryview(message), *(array.raw() for array in arrays)]
    head = b"".join(_SIZE.pack(size) for size in (len(parts), *(part.nbytes for part in parts)))
    for part in (memoryview(head), *parts):
        while part:
            part = part[os.write(pipe, part) :]


def _flush() -> None:
    for text in (sys.stdout, sys.stderr):
        if text is not None and not text.closed:
            text.flush()
