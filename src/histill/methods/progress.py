"""How far a training job is, over all its runs and epochs: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

from histill.features.progress import LINE_SECONDS, duration


class TrainingProgress:
    """Shows how far a training job is while its context is open; says nothing if every run is up to date.

    On a terminal it is a bar, with whatever else is printed above it. Elsewhere it is a line at the first run, at most
    one every half minute, and one at the end.

    Parameters
    ----------
    what
        What is trained, for the lines.
    runs
        How many, those that are up to date included.
    epochs
        Of a run at most: it may stop early.
    stream
        Where to show it; None: stdout.
    clock
        Seconds, from any start.
    """

    def __init__(
        self,
        what: str,
        *,
        runs: int,
        epochs: int,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._what, self._runs, self._epochs, self._clock = what, runs, epochs, clock
        # A program whose stdout was closed has none.
        self._stream = stream or sys.stdout or io.StringIO()
        self._trained, self._run, self._now, self._loss = 0, "", 0.0, None
        self._start, self._first, self._last_line = 0.0, 0.0, 0.0
        self._bar = self._task = None

    def __enter__(self) -> TrainingProgress:
        self._start = self._clock()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._run:
            stopped = "" if kind is None else "stopped after "
            noun = "run" if self._trained == 1 else "runs"
            self._say(f"{self._what}: {stopped}{self._trained} {noun} in {duration(self._clock() - self._start)}")

    def up_to_date(self) -> None:
        """Leave out a run: there is nothing to train."""
        self._runs -= 1

    def begin(self, run: str) -> None:
        """A run starts; `run` names it."""
        first, self._run, self._now, self._loss = not self._run, run, 0.0, None
        if first:
            self._start = self._last_line = self._clock()
            self._open()
        self._show()

    def at(self, told: tuple[float, float | None]) -> None:
        """Epochs of the run that are done, also parts of one, and its last validation loss."""
        if self._loss is None and not self._now:
            # What an earlier process has trained tells nothing about the time left.
            self._first += max(0.0, told[0] - 1) / self._epochs
        self._now, self._loss = told
        self._show()

    def done(self) -> None:
        """The run is over."""
        self._trained += 1
        self._now = 0.0
        self._show()

    @property
    def share(self) -> float:
        """Of the job, 0 to 1; a run counts as if it needed every epoch until it stops."""
        return min(1.0, (self._trained + min(1.0, self._now / self._epochs)) / max(1, self._runs))

    def _open(self) -> None:
        if not self._stream.isatty():
            self._say(f"{self._what}: {self._status()}")
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        what, at = TextColumn("{task.description}"), TextColumn("{task.fields[at]}")
        console = Console(file=self._stream, highlight=False)
        self._bar = Progress(
            what, BarColumn(40), TaskProgressColumn(), at, console=console, transient=True, refresh_per_second=2
        )
        self._task = self._bar.add_task(self._what, total=1.0, at=self._status())
        self._bar.start()

    def _show(self) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=self.share, at=self._status())
        elif self._clock() - self._last_line >= LINE_SECONDS:
            self._last_line = self._clock()
            self._say(f"{self._what}: {self._status()}")

    def _status(self) -> str:
        texts = [f"run {min(self._trained + 1, self._runs)}/{self._runs} ({self._run})"]
        if self._now:
            texts.append(f"epoch {self._now:.1f}/{self._epochs}")
        if self._loss is not None:
            texts.append(f"validation loss {self._loss:.4f}")
        gone, share = self._clock() - self._start, self.share - self._first / max(1, self._runs)
        if share > 0:
            texts.append(f"at most {duration(gone * (1 - self.share) / share)} left")
        return ", ".join(texts)

    def _say(self, line: str) -> None:
        print(line, file=self._stream, flush=True)
