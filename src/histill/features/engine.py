"""The engine of extraction: fields of many slides, read once, through the encoders, into the stores.

Children read slide after slide into batches, which fill across the borders of slides (`ring`, `reading`). Here the
batches go through the encoders (`histill.encoders.passes`) and the features to the writers. Every batch has the same
shape, so that nothing of what shared a batch with a tile is left in its features, and a run that goes on after a kill
writes what an undisturbed one does.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from histill.encoders.passes import CHILDREN, TILES, Encoded, Pass
from histill.errors import HistillError, SlideError
from histill.features import reading
from histill.features.progress import Progress
from histill.features.reading import Part, Source
from histill.features.ring import Ring
from histill.features.store_writer import StoreWriter
from histill.isolation import Stream

_BATCHES = 4  # that the ring holds
_READERS = 2  # the next slide is opened while the last fields of one are read
_IN_FLIGHT = 1  # batches whose features may still be on the device when the next one is handed over


@dataclass
class Job:
    """A slide to extract.

    Attributes
    ----------
    slide_id
        Its name.
    source
        How its fields are read; None when it failed before.
    writers
        Encoder -> store. Fields that all stores have are not read again.
    error
        Why it could not be extracted.
    records
        Encoder -> completion record of the store.
    unreadable
        Field -> why it could not be read.
    notes
        What the reader had to say.
    seconds
        From the first batch that holds it to its store.
    """

    slide_id: str
    source: Source | None = None
    writers: dict[str, StoreWriter] = field(default_factory=dict)
    error: Exception | None = None
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    unreadable: dict[int, SlideError] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def close(self) -> None:
        """Let go of its stores; a later run goes on with what is in them."""
        for writer in self.writers.values():
            writer.close()

    def discard(self) -> None:
        """Let go of its stores, and of what is in them as far as it can be removed."""
        for writer in self.writers.values():
            with suppress(OSError):
                writer.discard()

    def fields(self) -> tuple[int, int]:
        """The fields to read, from and to: earlier runs may have stored the first ones."""
        if self.error is not None:
            return 0, 0
        done = [min(writer.done("10x"), writer.done("20x") // CHILDREN) for writer in self.writers.values()]
        return min(done, default=len(self.source.boxes)), len(self.source.boxes)


class _Piece(NamedTuple):
    """What a batch holds of a job: a part of its fields or none, and whether it is the last of the job."""

    job: Job
    part: Part | None
    last: bool


@dataclass
class _Reading:
    """A job that is being read, and the parts that are still to come."""

    job: Job
    parts: deque[Part]
    stream: Stream | None


class Engine:
    """Extracts jobs.

    Parameters
    ----------
    encode
        The encoders.
    fields, side
        Fields of a batch, and their side in pixels.
    threads
        Threads that read a slide.
    limits
        `isolation.limits(config)`.
    """

    def __init__(
        self, encode: Pass, *, fields: int, side: int, threads: int, limits: dict[str, Any], progress: Progress
    ):
        self._encode, self._progress = encode, progress
        self._ring = Ring(_BATCHES, fields, side)
        self._threads, self._limits = threads, limits
        self._place = 0
        self._open: dict[str, Job] = {}
        self._began: dict[str, float] = {}

    def run(self, jobs: Iterable[Job]) -> Iterator[Job]:
        """Yield every job when it is done or has failed, in order. Jobs are taken when there is room to read them."""
        flight: deque[tuple[Encoded | None, list[_Piece]]] = deque()
        try:
            with closing(self._batches(iter(jobs))) as batches:
                for number, pieces in batches:
                    flight.append((self._submit(number, pieces), pieces))
                    if len(flight) > _IN_FLIGHT:
                        yield from self._store(*flight.popleft())
            while flight:
                yield from self._store(*flight.popleft())
        finally:
            for job in self._open.values():
                job.close()

    def _submit(self, number: int, pieces: list[_Piece]) -> Encoded | None:
        parts = [piece.part for piece in pieces if piece.part is not None]
        if not parts:
            return None
        end = max(part.place + part.stop - part.start for part in parts) - number * self._ring.fields
        encoded = self._encode.submit(self._ring.batch(number), end)
        self._progress.busy(self._encode.busy_seconds)
        return encoded

    def _batches(self, jobs: Iterator[Job]) -> Iterator[tuple[int, list[_Piece]]]:
        """Number and content of each batch, all its places filled; it is freed when the next one is asked for."""
        live: deque[_Reading] = deque()
        try:
            for number in count():
                pieces: list[_Piece] = []
                while True:
                    self._start(live, jobs)
                    if not live or (live[0].parts and live[0].parts[0].batch > number):
                        break
                    pieces.append(self._receive(live))
                if not pieces and not live:
                    return
                self._progress.waiting(self._ring.filled(number))
                yield number, pieces
                self._ring.free(number)
        finally:
            for one in live:
                _end(one)

    def _start(self, live: deque[_Reading], jobs: Iterator[Job]) -> None:
        """Begin to read what there is room for."""
        # A slide that failed leaves its places empty; the next one may be begun long before there is room for it.
        while len(live) < _READERS and (not live or self._place < self._ring.end()):
            job = next(jobs, None)
            if job is None:
                return
            self._open[job.slide_id] = job
            start, stop = job.fields()
            self._progress.tiles_stored(TILES * start)
            cut = reading.parts(start, stop, self._place, self._ring.fields)
            self._place += stop - start
            options = {"threads": self._threads, "limits": self._limits}
            stream = reading.stream(job.source, cut, self._ring, **options) if cut else None
            live.append(_Reading(job, deque(cut), stream))

    def _receive(self, live: deque[_Reading]) -> _Piece:
        """The next part of the slide in front, once it has been read."""
        one, part = live[0], None
        job = one.job
        self._began.setdefault(job.slide_id, time.monotonic())
        try:
            if one.parts and job.error is None:
                part = one.parts.popleft()
                job.unreadable |= next(one.stream)
                if not one.parts:
                    job.notes = next(one.stream)
        except Exception as error:  # whatever reading it met with is this slide's misfortune
            job.error, part = error, None
            job.discard()
        if job.error is not None:
            one.parts.clear()
        if not one.parts:
            _end(live.popleft())
        return _Piece(job, part, last=not one.parts)

    def _store(self, encoded: Encoded | None, pieces: list[_Piece]) -> Iterator[Job]:
        features = encoded.result() if encoded is not None else {}
        for job, part, last in pieces:
            try:
                if part is not None and job.error is None:
                    self._write(job, part, features)
                if last and job.error is None:
                    self._finish(job)
            except SlideError as error:
                job.error = error
            if last:
                self._open.pop(job.slide_id).close()
                job.seconds = time.monotonic() - self._began.pop(job.slide_id)
                yield job

    def _write(self, job: Job, part: Part, features: dict[str, dict[str, np.ndarray]]) -> None:
        rows = np.arange(part.start, part.stop)
        readable = np.array([row not in job.unreadable for row in rows])
        places = part.place % self._ring.fields + np.flatnonzero(readable)
        rows = rows[readable]
        for encoder, writer in job.writers.items():
            _check_numbers(encoder, features[encoder], len(rows))
            writer.write("10x", rows, features[encoder]["10x"][places])
            writer.write("20x", _children(rows), features[encoder]["20x"][_children(places)])
        self._progress.tiles_done(TILES * len(readable))

    def _finish(self, job: Job) -> None:
        number = len(job.source.boxes)
        if number and len(job.unreadable) == number:
            job.discard()
            error = job.unreadable[number - 1]
            problem = f"none of its {number} fields can be read; the last one: {error.message}"
            raise SlideError(problem, mend=error.mend) from error
        job.records |= {encoder: writer.finish() for encoder, writer in job.writers.items()}


def _check_numbers(encoder: str, vectors: dict[str, np.ndarray], rows: int) -> None:
    """An encoder none of whose numbers is one is no fault of a slide."""
    if rows and not any(np.isfinite(values).any() for values in vectors.values()):
        raise HistillError(
            f"encoder '{encoder}' gives no finite numbers: its weights are damaged, or too large for its precision",
            mend="fetch or name its weights again (histill encoders prefetch), or run with features.device: cpu",
        )


def _children(rows: np.ndarray) -> np.ndarray:
    return (CHILDREN * rows[:, None] + np.arange(CHILDREN)).ravel()


def _end(one: _Reading) -> None:
    if one.stream is not None:
        one.stream.close()
