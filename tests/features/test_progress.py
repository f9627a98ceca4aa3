"""What a person sees of a run, and the figures of its receipt."""

from __future__ import annotations

import io
import json
import os
import re
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from histill.features import progress
from histill.features.progress import Progress


class Clock:
    """Seconds that pass when told to."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True

    def text(self) -> str:
        """All that was written, without escape sequences."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.getvalue())


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def terminal(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LINES", "30")
    return Terminal()


@pytest.fixture
def alone(monkeypatch):
    """The view is renewed only by `refresh`."""
    monkeypatch.setattr(progress, "_REFRESH_SECONDS", 3600.0)


def work(shown: Progress, clock: Clock, seconds: int, *, rate: int, busy: float = 0.5, queue: float = 2.0) -> None:
    """Seconds of steady work, `rate` tiles and one batch in each."""
    total = shown.figures()["encoder_busy"] * shown.figures()["seconds"]
    for second in range(1, seconds + 1):
        clock.now += 1
        shown.tiles_done(rate)
        shown.busy(total + second * busy)
        shown.waiting(queue)
        shown.refresh()


@pytest.mark.usefixtures("alone")
def test_a_log_reads_well(clock):
    log = io.StringIO()
    with Progress(slides=8, tiles=50_000, what="features", stream=log, clock=clock) as shown:
        work(shown, clock, 29, rate=400, busy=0.96, queue=2.8)
        shown.slide_done()
        shown.slide_done()
        work(shown, clock, 2, rate=400, busy=0.96, queue=2.8)
        work(shown, clock, 40, rate=400, busy=0.96, queue=2.8)
        for _ in range(6):
            shown.slide_done()
        clock.now += 19
        shown.tiles_done(50_000 - 71 * 400)
    assert log.getvalue().splitlines() == [
        "features: 0/8 slides, 0/50,000 tiles",
        "features: 2/8 slides, 12,000/50,000 tiles, 400 tiles/s, encoder busy 96 %, queue 2.8, ETA 1 min 35 s",
        "features: 2/8 slides, 24,000/50,000 tiles, 400 tiles/s, encoder busy 96 %, queue 2.8, ETA 1 min 5 s",
        "features: 8/8 slides, 50,000/50,000 tiles in 1 min 30 s, 556 tiles/s, encoder busy 76 %, queue 2.8",
    ]


@pytest.mark.usefixtures("alone")
def test_the_rate_shown_is_of_late_and_the_receipt_tells_the_whole_run(clock):
    log = io.StringIO()
    with Progress(slides=1, tiles=100_000, what="features", stream=log, clock=clock) as shown:
        work(shown, clock, 60, rate=1000, busy=1.0, queue=4)
        work(shown, clock, 60, rate=10, busy=0.1, queue=0)
        assert shown.figures() == {
            "slides": 0,
            "tiles": 60_600,
            "seconds": 120.0,
            "tiles_per_second": 505.0,
            "encoder_busy": 0.55,
            "queue_depth": 2.0,
        }
    last = log.getvalue().splitlines()[-2]
    assert last.endswith("60,600/100,000 tiles, 10 tiles/s, encoder busy 10 %, queue 0.0, ETA 1 h 5 min")
    clock.now += 100
    assert shown.figures()["seconds"] == 120.0
    assert json.loads(json.dumps(shown.figures())) == shown.figures()


@pytest.mark.usefixtures("alone")
def test_nothing_is_foretold_before_the_first_tile_or_in_a_standstill(clock):
    log = io.StringIO()
    with Progress(slides=2, tiles=1000, what="features", stream=log, clock=clock) as shown:
        clock.now += 30
        shown.refresh()
        clock.now += 1
        shown.tiles_done(5)
        for _ in range(2):
            clock.now += 31
            shown.refresh()
    assert log.getvalue().splitlines()[1:-1] == [
        "features: 0/2 slides, 0/1,000 tiles, ETA unknown",
        "features: 0/2 slides, 5/1,000 tiles, 0.2 tiles/s, encoder busy 0 %, queue 0.0, ETA 1 h 46 min",
        "features: 0/2 slides, 5/1,000 tiles, 0.0 tiles/s, encoder busy 0 %, queue 0.0, ETA unknown",
    ]


@pytest.mark.parametrize("slides", [0, 2])
def test_no_tiles_are_no_trouble(slides, clock, terminal):
    for stream in (io.StringIO(), terminal):
        with Progress(slides=slides, tiles=0, what="features", stream=stream, clock=clock) as shown:
            shown.refresh()
            for _ in range(slides):
                shown.slide_done()
            shown.refresh()
        assert shown.figures()["tiles_per_second"] == shown.figures()["queue_depth"] == 0.0
        assert f"features: {slides}/{slides} slides in 0 s" in stream.getvalue()


@pytest.mark.usefixtures("alone")
def test_more_tiles_than_were_announced_are_counted(clock, terminal):
    with Progress(slides=1, tiles=10, what="features", stream=terminal, clock=clock) as shown:
        work(shown, clock, 2, rate=10)
    assert shown.figures()["tiles"] == 20
    assert "100 %" in terminal.text()
    assert "ETA" not in terminal.text().rsplit("20/10", 1)[1]


def test_a_log_is_written_without_anybody_counting(monkeypatch):
    monkeypatch.setattr(progress, "_REFRESH_SECONDS", 0.01)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    log = io.StringIO()
    with Progress(slides=1, tiles=10, what="features", stream=log):
        deadline = time.monotonic() + 30
        while log.getvalue().count("ETA unknown") < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert log.getvalue().count("ETA unknown") >= 2


@pytest.mark.usefixtures("alone")
def test_the_live_view_shows_all_and_leaves_the_results(clock, terminal):
    with Progress(slides=3, tiles=1000, what="features", stream=terminal, clock=clock) as shown:
        work(shown, clock, 2, rate=250, busy=0.9, queue=1.5)
        view = terminal.text()[-300:]
        assert "━" in view
        assert "50 %" in view
        status = "0/3 slides, 500/1,000 tiles, 250 tiles/s, encoder busy 90 %, queue 1.5, ETA 2 s, 2 s so far"
        assert status in " ".join(view.split())
        assert "\x1b[?25l" in terminal.getvalue()
        shown.slide_done()
    assert terminal.getvalue().rindex("\x1b[?25h") > terminal.getvalue().rindex("\x1b[?25l")
    end = "features: 1/3 slides, 500/1,000 tiles in 2 s, 250 tiles/s, encoder busy 90 %, queue 1.5\n"
    assert terminal.text().endswith(end)


@pytest.mark.usefixtures("alone")
def test_no_color_is_respected(clock, terminal, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    with Progress(slides=1, tiles=10, what="features", stream=terminal, clock=clock) as shown:
        work(shown, clock, 1, rate=5)
        shown.slide_done()
    codes = {code for found in re.findall(r"\x1b\[([0-9;]*)m", terminal.getvalue()) for code in found.split(";")}
    assert codes <= {"", "0", "1", "2", "3", "4"}  # bold and the like, no colour


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("columns", [1, 20, 40])
def test_a_narrow_terminal_wraps_and_is_not_overrun(columns, clock, terminal, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    with Progress(slides=3, tiles=1000, what="features", stream=terminal, clock=clock) as shown:
        work(shown, clock, 2, rate=250)
    live = terminal.text()
    assert max(map(len, re.split(r"[\r\n]+", live))) <= columns
    assert "500/1,000tiles" in "".join(live.split())


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("variable", [("TERM", "dumb"), ("TTY_INTERACTIVE", "0"), ("TTY_COMPATIBLE", "0")])
def test_a_terminal_that_can_do_nothing_gets_lines(variable, clock, terminal, monkeypatch):
    monkeypatch.setenv(*variable)
    with Progress(slides=1, tiles=10, what="features", stream=terminal, clock=clock):
        pass
    assert terminal.getvalue() == "features: 0/1 slides, 0/10 tiles\nfeatures: 0/1 slides, 0/10 tiles in 0 s\n"


@pytest.mark.usefixtures("alone")
def test_colours_that_are_forced_put_no_live_view_in_a_log(clock, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    log = io.StringIO()
    with Progress(slides=1, tiles=10, what="features", stream=log, clock=clock) as shown:
        shown.slide_done()
    assert "\x1b" not in log.getvalue()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_gives_the_terminal_back(error, clock, terminal, monkeypatch):
    monkeypatch.setattr(sys, "stdout", terminal)
    before = threading.active_count()
    with suppress(error), Progress(slides=3, tiles=1000, what="features", clock=clock):
        print("a warning of a library")
        raise error
    assert sys.stdout is terminal
    assert threading.active_count() == before
    assert terminal.getvalue().rindex("\x1b[?25h") > terminal.getvalue().rindex("\x1b[?25l")
    assert "a warning of a library\n" in terminal.text()
    assert terminal.text().endswith("features: stopped after 0/3 slides, 0/1,000 tiles in 0 s\n")


def test_what_is_sent_to_a_file_stays_out_of_the_view(clock, terminal, monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    with Progress(slides=1, tiles=1, what="features", stream=terminal, clock=clock):
        print("for the file", file=sys.stderr)
    assert file.getvalue() == "for the file\n"
    assert "for the file" not in terminal.text()


def test_threads_lose_no_tile(terminal, monkeypatch):
    monkeypatch.setattr(progress, "_REFRESH_SECONDS", 0.001)
    with Progress(slides=4, tiles=40_000, what="features", stream=terminal) as shown, ThreadPoolExecutor(4) as pool:

        def count(_: int) -> None:
            for _ in range(10_000):
                shown.tiles_done(1)
                shown.waiting(3)
            shown.slide_done()

        list(pool.map(count, range(4)))
    assert {key: shown.figures()[key] for key in ("slides", "tiles", "queue_depth")} == {
        "slides": 4,
        "tiles": 40_000,
        "queue_depth": 3.0,
    }


def test_a_forked_child_finds_its_streams_as_they_were(terminal, monkeypatch):
    """Children that read slides are forked while the view is drawn, here nearly always, on a slow terminal."""
    monkeypatch.setattr(progress, "_REFRESH_SECONDS", 0.0001)
    write = terminal.write
    monkeypatch.setattr(terminal, "write", lambda text: time.sleep(0.002) or write(text))
    monkeypatch.setattr(sys, "stdout", terminal)
    with Progress(slides=1, tiles=1, what="features"):
        assert sys.stdout is not terminal
        for _ in range(20):
            child = os.fork()
            if child == 0:
                os._exit(0 if sys.stdout is terminal and progress._showing.acquire(timeout=10) else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_counting_costs_next_to_nothing(terminal):
    with Progress(slides=1, tiles=10**6, what="features", stream=terminal) as shown:
        start = time.thread_time()
        for _ in range(1000):
            shown.tiles_done(64)
            shown.waiting(2)
            shown.busy(1.0)
        seconds = time.thread_time() - start
    assert seconds < 0.1  # ten seconds of a busy engine: 1 % of them, and it takes a tenth of that


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (7499, "2 h 4 min"), (90_000, "1 d 1 h")],
)
def test_durations_read_well(seconds, text):
    assert progress.duration(seconds) == text
