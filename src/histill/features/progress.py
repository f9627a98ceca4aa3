"""How far a batch of slides is: a live view on a terminal, plain lines in a log, figures for the receipt."""

from __future__ import annotations

import io
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

if TYPE_CHECKING:
    from rich.console import Group

WINDOW_SECONDS = 30.0  # what the rate shown, and with it the time left, is taken over
LINE_SECONDS = 30.0  # between two plain lines
_REFRESH_SECONDS = 0.5
_BAR_WIDTH = 40  # columns

# Held while something is shown, and across every fork: a child that inherits the lock of a half-written stream from the
# thread that shows would wait for it for ever.
_showing = threading.RLock()


class _Totals(NamedTuple):
    """Where a run stands at a moment: clock (s), tiles, encoder's seconds at work, queue depths summed, batches."""

    clock: float
    tiles: int
    busy: float
    depths: float
    batches: int

    def since(self, earlier: _Totals) -> _Pace:
        seconds = self.clock - earlier.clock
        if seconds <= 0:
            return _Pace(0.0, 0.0, 0.0)
        return _Pace(
            tiles_per_second=(self.tiles - earlier.tiles) / seconds,
            encoder_busy=min(1.0, (self.busy - earlier.busy) / seconds),
            queue_depth=(self.depths - earlier.depths) / max(1, self.batches - earlier.batches),
        )


class _Pace(NamedTuple):
    """What happened between two moments: tiles/s, share of the time the encoder was at work, mean queue depth."""

    tiles_per_second: float
    encoder_busy: float
    queue_depth: float


class Progress:
    """Shows how far a batch of slides is while its context is open.

    On a terminal it is a live view, with whatever else is printed above it. Elsewhere it is a line at the start, at
    most one every half minute, and one at the end. Every method may be called from any thread; those that count take
    microseconds.

    Parameters
    ----------
    slides, tiles
        To be done in all; tiles of both magnifications.
    what
        What is done, for the lines: a stage's name.
    stream
        Where to show it; None: stdout.
    clock
        Seconds, from any start.
    """

    def __init__(
        self,
        *,
        slides: int,
        tiles: int,
        what: str,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._slides, self._tiles, self._what, self._clock = slides, tiles, what, clock
        # A program whose stdout was closed has none.
        self._stream = stream or sys.stdout or io.StringIO()
        self._counting = threading.Lock()
        self._slides_done = 0
        self._start = self._now = _Totals(clock(), 0, 0.0, 0.0, 0)
        self._running = False
        self._recent = deque([self._start])
        self._last_line = self._start.clock
        self._console, self._live = None, None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_showing, daemon=True)

    def __enter__(self) -> Progress:
        self._start = self._now = self._now._replace(clock=self._clock())
        self._recent = deque([self._start])
        self._last_line = self._start.clock
        self._running = True
        if self._stream.isatty():
            self._open_live_view()
        if self._live is None:
            self._say(f"{self._what}: {self._counts(self._start)}")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        now = self._totals()
        self._running = False
        with _showing:
            if self._live is not None:
                self._live.stop()
                self._live = None
            head = f"{self._what}: {'' if kind is None else 'stopped after '}{self._counts(now)}"
            seconds = duration(now.clock - self._start.clock)
            self._say(", ".join([f"{head} in {seconds}", *self._speeds(now, self._start)]))

    def tiles_done(self, count: int) -> None:
        """Count tiles whose features are known."""
        with self._counting:
            self._now = self._now._replace(tiles=self._now.tiles + count)

    def tiles_stored(self, count: int) -> None:
        """Leave out tiles that an earlier run has stored: they are not to be done."""
        with self._counting:
            self._tiles -= count

    def busy(self, seconds: float) -> None:
        """Note how long the encoder has been at work: the seconds in all so far."""
        with self._counting:
            self._now = self._now._replace(busy=seconds)

    def waiting(self, batches: float) -> None:
        """Note the queue depth when a batch is taken: batches that are read and not yet encoded."""
        with self._counting:
            self._now = self._now._replace(depths=self._now.depths + batches, batches=self._now.batches + 1)

    def slide_done(self) -> None:
        """Count a slide."""
        with self._counting:
            self._slides_done += 1
        self.refresh()

    def figures(self) -> dict[str, Any]:
        """Figures of the run so far, for a receipt.

        Returns
        -------
        dict
            `slides`, `tiles`: how many are done. `seconds` since the start, to the end if it is over.
            `tiles_per_second` and `encoder_busy` (share, 0 to 1) over all of these. `queue_depth`: mean, in batches.
        """
        now = self._totals()
        pace = now.since(self._start)
        return {
            "slides": self._slides_done,
            "tiles": now.tiles,
            "seconds": round(now.clock - self._start.clock, 3),
            "tiles_per_second": round(pace.tiles_per_second, 1),
            "encoder_busy": round(pace.encoder_busy, 3),
            "queue_depth": round(pace.queue_depth, 2),
        }

    def refresh(self) -> None:
        """Show how things stand, if it is time; a thread does it twice a second."""
        with _showing:
            now = self._totals()
            self._recent.append(now)
            while now.clock - self._recent[1].clock >= WINDOW_SECONDS:
                self._recent.popleft()
            if self._live is not None:
                self._live.update(self._view(now), refresh=True)
            elif now.clock - self._last_line >= LINE_SECONDS:
                self._last_line = now.clock
                self._say(f"{self._what}: {self._status(now)}")

    def _keep_showing(self) -> None:
        while not self._stop.wait(_REFRESH_SECONDS):
            self.refresh()

    def _totals(self) -> _Totals:
        with self._counting:
            if self._running:
                self._now = self._now._replace(clock=self._clock())
            return self._now

    def _counts(self, now: _Totals) -> str:
        tiles = f", {now.tiles:,}/{self._tiles:,} tiles" if self._tiles else ""
        return f"{self._slides_done:,}/{self._slides:,} slides{tiles}"

    def _speeds(self, now: _Totals, earlier: _Totals) -> list[str]:
        """How fast it went from `earlier` to `now`; nothing before the first tile."""
        if not now.tiles:
            return []
        rate, busy, queue = now.since(earlier)
        return [
            f"{rate:,.{0 if rate >= 10 else 1}f} tiles/s",
            f"encoder busy {100 * busy:.0f} %",
            f"queue {queue:.1f}",
        ]

    def _status(self, now: _Totals) -> str:
        texts = [self._counts(now), *self._speeds(now, self._recent[0])]
        left, rate = self._tiles - now.tiles, now.since(self._recent[0]).tiles_per_second
        if left > 0:
            texts.append(f"ETA {duration(left / rate)}" if rate > 0 else "ETA unknown")
        return ", ".join(texts)

    def _say(self, line: str) -> None:
        """Write a line, above the live view if there is one."""
        with _showing:
            if self._console is None:
                print(line, file=self._stream, flush=True)
                return
            from rich.text import Text

            self._console.print(Text(line))

    def _open_live_view(self) -> None:
        from rich.console import Console
        from rich.live import Live

        console = Console(file=self._stream, highlight=False)
        if not console.is_interactive:
            return
        self._console = console
        # What is printed goes above the view; what the user sent to a file goes there all the same.
        self._live = Live(
            self._view(self._start),
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
            redirect_stderr=sys.stderr.isatty(),
        )
        self._live.start(refresh=True)

    def _view(self, now: _Totals) -> Group:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        done, total = (now.tiles, self._tiles) if self._tiles else (self._slides_done, self._slides)
        share = min(1.0, done / total) if total else 0.0
        bar = Table.grid(padding=(0, 1))
        bar.add_row(self._what, ProgressBar(total=1.0, completed=share, width=_BAR_WIDTH), f"{int(100 * share)} %")
        elapsed = duration(now.clock - self._start.clock)
        return Group(bar, Text(f"{self._status(now)}, {elapsed} so far"))


def duration(seconds: float) -> str:
    """`45 s`, `1 min 32 s`, `2 h 5 min` or `3 d 4 h`."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes else f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"


def _after_fork_in_child() -> None:
    """What a child prints is no part of its parent's live view."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        setattr(sys, name, getattr(stream, "rich_proxied_file", stream))
    _showing.release()


os.register_at_fork(before=_showing.acquire, after_in_parent=_showing.release, after_in_child=_after_fork_in_child)
