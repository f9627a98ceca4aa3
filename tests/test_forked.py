"""No child outlives what started it, and none leaves a process, a pipe or a core file behind."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from histill import isolation
from histill.errors import SlideError
from histill.forked import Child

LIMITS = {"seconds": 20.0, "memory_mb": 400}


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"  # a zombie waits for whoever adopted it


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not alive(pid)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_child_dies_with_its_parent(number, tmp_path):
    note = tmp_path / "pid"
    code = f"""
import os, pathlib, signal, time
from histill import isolation
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
def work():
    pathlib.Path({str(note)!r}).write_text(str(os.getpid()))
    time.sleep(60)
isolation.call(work, seconds=60, memory_mb=300, what="a")
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while not (note.exists() and note.read_text()) and time.monotonic() < deadline:
        time.sleep(0.01)
    child = int(note.read_text())
    assert alive(child)
    parent.send_signal(number)
    parent.wait(10)
    assert gone(child)


def test_what_a_child_started_ends_with_it(tmp_path):
    note = tmp_path / "pid"

    def work():
        note.write_text(str(subprocess.Popen(["sleep", "60"]).pid))
        time.sleep(60)

    with pytest.raises(SlideError, match="took longer"):
        isolation.call(work, seconds=0.7, memory_mb=300, what="a.svs")
    assert gone(int(note.read_text()))


def test_an_end_that_leaves_a_process_behind_is_noticed(tmp_path):
    note = tmp_path / "pid"

    def work():
        pid = os.fork()
        if pid == 0:
            time.sleep(60)
        note.write_text(str(pid))
        os._exit(5)

    with pytest.raises(SlideError, match=r"took longer|exit status 5"):
        isolation.call(work, seconds=0.7, memory_mb=300, what="a.svs")
    assert gone(int(note.read_text()))


def test_closing_a_stream_ends_the_child():
    def pids():
        while True:
            yield os.getpid()

    answers = isolation.stream(pids, **LIMITS, what="a")
    child = next(answers)
    assert alive(child)
    answers.close()
    assert not Path(f"/proc/{child}").exists(), "it was not reaped"


def test_nothing_is_left_open():
    def children() -> set[str]:
        # Other tests of this process may have left some of their own (multiprocessing's helpers).
        return {
            pid for thread in Path("/proc/self/task").iterdir() for pid in (thread / "children").read_text().split()
        }

    before, own = len(os.listdir("/proc/self/fd")), children()
    for function in (lambda: 1, os.abort, lambda: 1 / 0):
        with suppress(SlideError, ZeroDivisionError):
            isolation.call(function, **LIMITS, what="a")
    assert len(os.listdir("/proc/self/fd")) == before
    assert children() <= own


def test_children_in_children():
    def outer():
        return isolation.call(lambda: os.getppid(), **LIMITS, what="inner") == os.getpid()

    assert isolation.call(outer, **LIMITS, what="outer")


def test_a_child_that_is_ended_twice():
    child = Child(lambda: iter([1]), 300)
    assert child.receive(10) == ("item", 1)
    assert child.end() is not None
    assert child.end() is None
