"""Work on one slide in a child process, within limits of time and memory.

Decoders are C code that trusts its input: a damaged file can make them crash, loop, or ask for all the memory there is.
In a child that is one slide's misfortune. The child is forked, so closures work as they are and nothing is imported
again. Python 3.12 and later warn of forking where threads run; the warning is silenced, since what runs in a child must
use no thread pool that its parent started. NumPy, Arrow and OpenCV (see `forked`) mind that themselves. torch does not:
a child may use it only where the parent has not.
"""

from __future__ import annotations

import pickle
import re
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any

from histill.errors import HistillError, SlideError
from histill.forked import END, ERROR, Child, Died, Packed, pack
from histill.storage import UnreachableError

_OUT_OF_MEMORY = re.compile(
    r"(failed|unable|cannot|could not) (to )?allocate|allocation .*failed|bad_alloc|insufficient memory|out of memory|"
    r"MemoryError",
    re.IGNORECASE,
)
_AGAIN = "run snakemake again"


def limits(config: dict[str, Any]) -> dict[str, Any]:
    """The limits that a complete config sets, as keyword arguments of the functions here."""
    return {"seconds": config["slides"]["time_limit"], "memory_mb": config["slides"]["memory_mb"]}


def call(function: Callable[[], Any], *, seconds: float, memory_mb: int, what: str, again: str = _AGAIN) -> Any:
    """What `function` returns when it runs in a child process.

    Parameters
    ----------
    function
        Its result must be picklable; what it changes stays in the child.
    seconds
        Wall time it may take.
    memory_mb
        Memory (private and writable, MiB) it may take beside what the process has.
    what
        Begins the messages: the file and what is done with it.
    again
        Ends the mends: what to do to have it tried again.

    Raises
    ------
    SlideError
        If it takes too long, needs too much memory, crashes the child, or ends it without an answer.
    Exception
        What `function` raises; an exception that cannot be pickled as one of the same name and text.
    """

    def once() -> Iterator[Any]:
        yield function()

    with closing(stream(once, seconds=seconds, memory_mb=memory_mb, what=what, again=again)) as answers:
        return next(answers)


def stream(
    function: Callable[[], Iterable[Any]], *, seconds: float, memory_mb: int, what: str, again: str = _AGAIN
) -> Stream:
    """The items of an iterable that lives in a child process, in order; `close` ends it.

    The child starts at once and makes the next item while the last one is in use; beyond what a pipe holds (1 MiB at
    most) it waits until an item is asked for. Parameters and errors as of `call`; `seconds` are what one item may be
    waited for.
    """
    return Stream(Child(function, memory_mb), seconds, memory_mb, what, again)


class Stream(Iterator[Any]):
    """Items of a child that is at work already."""

    def __init__(self, child: Child, *limits: Any):
        self._child, self._limits = child, limits

    def __next__(self) -> Any:
        if self._child.ended:
            raise StopIteration
        try:
            kind, content = _receive(self._child, *self._limits)
        except BaseException:
            self.close()
            raise
        if kind == END:
            self.close()
            raise StopIteration
        return content

    def close(self) -> None:
        self._child.end()


def each(
    function: Callable[[Any], Any],
    items: Iterable[Any],
    *,
    seconds: float,
    memory_mb: int,
    what: Callable[[Any], str],
    again: str = _AGAIN,
) -> Iterator[Any]:
    """`function` of every item, in order, in one child process; where it fails, the exception in place of a result.

    Behind an item that exceeds a limit or crashes the child, a new child goes on. `seconds` hold for each item, `what`
    names it; else as `call`.
    """
    items = list(items)
    done = 0

    def rest() -> Iterator[Any]:
        for item in items[done:]:
            try:
                yield function(item)
            except Exception as error:
                yield pack(error)

    while done < len(items):
        child = Child(rest, memory_mb)
        try:
            while done < len(items) and not child.ended:
                name = what(items[done])
                try:
                    _, answer = _receive(child, seconds, memory_mb, name, again)
                    if isinstance(answer, Packed):
                        answer = _unpack(answer, memory_mb, name, again)
                except Exception as error:
                    answer = error
                done += 1
                yield answer
        finally:
            child.end()


class _InChild(Exception):
    """Traceback of an exception in the child, as text; the cause of the exception that is raised again."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def _receive(child: Child, seconds: float, memory_mb: int, what: str, again: str) -> tuple[str, Any]:
    """The child's next item or its end; a `SlideError` where there is none, and whatever the child raised."""
    try:
        kind, content = child.receive(seconds)
    except TimeoutError:
        raise SlideError(
            f"{what} took longer than {seconds:g} s and was stopped",
            mend=f"if the file is sound and its storage quick, raise slides.time_limit; then {again}",
        ) from None
    except Died as death:
        raise _cause(death, memory_mb, what, again) from None
    if kind == ERROR:
        child.end()
        raise _unpack(content, memory_mb, what, again)
    return kind, content


def _unpack(packed: Packed, memory_mb: int, what: str, again: str) -> Exception:
    """The exception that was packed in the child."""
    try:
        error = pickle.loads(packed.pickled)
    except Exception:  # exceptions may have constructors of any kind
        error = type(packed.name, (Exception,), {})(packed.text)
    text = " ".join(f"{packed.name}: {packed.text}".split()).rstrip(": ")
    if packed.ends:
        error = SlideError(f"{what}: the reader tried to end the program ({text})", mend=_mend(again))
    elif packed.of_memory or _OUT_OF_MEMORY.search(text):
        problem = error.message if isinstance(error, HistillError) else f"{what}: {text}"
        error = _no_memory(problem, memory_mb, again)
    elif isinstance(error, UnreachableError):
        error = UnreachableError(error.message, mend=f"{error.mend}, then {again}")
    error.__cause__ = _InChild(packed.traceback)
    return error


def _cause(death: Died, memory_mb: int, what: str, again: str) -> SlideError:
    """What the child died of."""
    if death.status is not None and death.status >= 0:
        reason = f"the reader ended the process without an answer (exit status {death.status})"
        return SlideError(f"{what}: {reason}", mend=_mend(again))
    name = {-number: number.name for number in signal.Signals}.get(death.status, "reason unknown")
    if name == "SIGKILL":  # not ours: the kernel's when memory runs out, or a person's
        problem = f"{what}: the process was killed (SIGKILL), as happens when memory runs out"
        return _no_memory(problem, memory_mb, again)
    if said := _OUT_OF_MEMORY.search(death.words):
        line = death.words[said.start() :].splitlines()[0].strip()
        return _no_memory(f"{what}: the reader gave up ({name}): {line}", memory_mb, again)
    return SlideError(f"{what}: the reader crashed ({name})", mend=_mend(again))


def _no_memory(problem: str, memory_mb: int, again: str) -> SlideError:
    return SlideError(
        f"{problem} (memory limit: {memory_mb} MB)",
        mend=f"if the file is sound, raise slides.memory_mb; then {again}",
    )


def _mend(again: str) -> str:
    return f"the file is probably damaged: copy or download it again, then {again}"
