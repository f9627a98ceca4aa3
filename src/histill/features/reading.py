"""Reading the fields of one slide into a ring, in a child process of several threads.

The child reads on while this process encodes, as far as the ring has room. It says of each batch which of its fields
could not be read, and why.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from histill import isolation
from histill.errors import SlideError
from histill.features.ring import Ring
from histill.provenance import unchanged
from histill.slides.parts import slide_fingerprint
from histill.storage import UnreachableError

AGAIN = "snakemake -R features_batch"
_AHEAD = 2  # parts of a batch whose fields are being read at once: threads need not wait for the last field of one


class Part(NamedTuple):
    """Consecutive fields of a slide that lie in one batch.

    Attributes
    ----------
    batch
        Its number.
    start, stop
        The fields.
    place
        Place of the first.
    """

    batch: int
    start: int
    stop: int
    place: int


def parts(start: int, stop: int, place: int, size: int) -> list[Part]:
    """Fields `start` to `stop` cut at the borders of batches of `size` places, the first of them lying at `place`."""
    cut = []
    while start < stop:
        end = min(stop, start + size - place % size)
        cut.append(Part(place // size, start, end, place))
        start, place = end, place + end - start
    return cut


@dataclass(frozen=True)
class Source:
    """How the fields of a slide are read.

    Attributes
    ----------
    path
        The slide's file.
    open
        Opens it: a `SlideReader` as a context manager.
    fingerprint
        Of the file that the fields were laid on.
    boxes
        Level-0 x, y, width, height of its fields [N, 4].
    normalise
        Changes the stain of a field, uint8 [S, S, 3] to the same; None leaves it.
    """

    path: str
    open: Callable[[], AbstractContextManager[Any]]
    fingerprint: str
    boxes: np.ndarray
    normalise: Callable[[np.ndarray], np.ndarray] | None = None


def stream(source: Source, cut: list[Part], ring: Ring, *, threads: int, limits: dict[str, Any]) -> isolation.Stream:
    """Start a child that fills the parts' places; its items say of each part, in order, what could not be read of it.

    Parameters
    ----------
    limits
        `isolation.limits(config)`; the limit of time holds for every part.

    Returns
    -------
    Items: for each part, field -> why it cannot be read (its place is undefined); at last the reader's notes.

    Raises
    ------
    SlideError
        If the slide cannot be opened or breaks a limit, or its storage fails.
    """

    def read() -> Iterator[dict[int, SlideError] | list[str]]:
        with unchanged(source.path), source.open() as reader:
            if slide_fingerprint(source.path) != source.fingerprint:
                problem = f"{source.path}: it is not the file that was inspected"
                raise SlideError(problem, mend="run snakemake again, which inspects it anew")
            known = set(reader.notes)
            yield from _fill(source, reader, cut, ring, threads)
            notes = [note for note in reader.notes if note not in known]
        yield notes

    what = f"{source.path}: stage features"
    return isolation.stream(read, what=what, again=AGAIN, **limits)


def _fill(source: Source, reader: Any, cut: list[Part], ring: Ring, threads: int) -> Iterator[dict[int, SlideError]]:
    side = ring.place(0).shape[0]
    own = threading.local()
    reader.expect(source.boxes[cut[0].start : cut[-1].stop], side, side)

    def fill(field: int, place: np.ndarray) -> SlideError | None:
        if not hasattr(own, "reader"):
            own.reader = reader.clone()
        try:
            own.reader.read_region(*source.boxes[field].tolist(), side, side, out=place)
        except UnreachableError:  # its pixels may be there tomorrow: no field is flagged for good
            raise
        except SlideError as error:
            return error
        if source.normalise is not None:
            place[:] = source.normalise(place)
        return None

    begun: deque[tuple[Part, list[Future]]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for part in cut:
            # What waits for room would otherwise keep back what is done, and so the room.
            while begun and (len(begun) == _AHEAD or part.place >= ring.end()):
                yield _errors(*begun.popleft(), ring)
            ring.wait(part.place)
            places = range(part.place, part.place + part.stop - part.start)
            fields = zip(range(part.start, part.stop), places, strict=True)
            begun.append((part, [pool.submit(fill, field, ring.place(place)) for field, place in fields]))
        while begun:
            yield _errors(*begun.popleft(), ring)
    finally:
        pool.shutdown(cancel_futures=True)  # the reader may only be closed when no thread reads


def _errors(part: Part, done: list[Future], ring: Ring) -> dict[int, SlideError]:
    """Wait for a part: field -> error."""
    results = zip(range(part.start, part.stop), (future.result() for future in done), strict=True)
    errors = {field: error for field, error in results if error is not None}
    ring.fill(part.place + part.stop - part.start)
    return errors
