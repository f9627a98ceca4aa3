import ctypes
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from histill import isolation
from histill.config import complete
from histill.errors import HistillError, SlideError

LIMITS = {"seconds": 20.0, "memory_mb": 400}
QUICK = LIMITS | {"seconds": 0.5}
WHAT = {"what": "a.svs: stage tissue", "again": "snakemake -R tissue_batch"}


def raises(error):
    def function():
        raise error

    return function


def failure(function, limits=LIMITS):
    with pytest.raises(SlideError) as caught:
        isolation.call(function, **limits, **WHAT)
    assert caught.value.message.startswith("a.svs")
    assert caught.value.mend.endswith("snakemake -R tissue_batch")
    return caught.value


def test_the_result_of_a_closure_comes_back_and_its_changes_do_not():
    here = [1]

    def function():
        here.append(2)
        return {"sum": np.arange(5).sum(), "pid": os.getpid(), "here": here}

    answer = isolation.call(function, **LIMITS, **WHAT)
    assert answer["sum"] == 10
    assert answer["here"] == [1, 2]
    assert here == [1]
    assert answer["pid"] != os.getpid()


def test_limits_are_those_of_the_config():
    assert isolation.limits(complete({"cohort": {}})) == {"seconds": 900, "memory_mb": 3000}


def test_errors_keep_type_text_and_mend():
    with pytest.raises(SlideError) as caught:
        isolation.call(raises(SlideError("cannot be read", mend="scan it again")), **LIMITS, **WHAT)
    assert (caught.value.message, caught.value.mend) == ("cannot be read", "scan it again")
    with pytest.raises(KeyError, match="level"):
        isolation.call(raises(KeyError("level")), **LIMITS, **WHAT)
    with pytest.raises(HistillError, match="no such column"):
        isolation.call(raises(HistillError("no such column")), **LIMITS, **WHAT)


def test_an_error_that_cannot_be_sent_keeps_its_name_and_says_where_it_was_raised():
    class OddError(Exception):
        def __init__(self, one, two):
            super().__init__(one)
            self.two = two

    with pytest.raises(Exception, match="half a tile") as caught:
        isolation.call(raises(OddError("half a tile", lambda: 0)), **LIMITS, **WHAT)
    assert type(caught.value).__name__ == "OddError"
    assert "in function" in str(caught.value.__cause__)


def test_a_result_that_cannot_be_sent_is_an_error():
    with pytest.raises(Exception, match="pickle"):
        isolation.call(lambda: lambda: 0, **LIMITS, **WHAT)


def in_python():
    while True:
        pass


def in_c():
    ctypes.PyDLL(None).pause()  # holds the interpreter's lock, as a decoder in a loop does


def deaf():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
    time.sleep(60)


@pytest.mark.parametrize("function", [in_python, in_c, deaf, lambda: time.sleep(60)])
def test_what_takes_too_long_is_stopped(function):
    start = time.monotonic()
    error = failure(function, QUICK)
    assert time.monotonic() - start < 3
    assert "took longer than 0.5 s and was stopped" in error.message
    assert "slides.time_limit" in error.mend


def test_chatter_on_stderr_neither_blocks_nor_prolongs(capfd):
    def talk():
        while True:
            os.write(2, b"TIFFReadDirectory: Warning\n" * 100)

    failure(talk, QUICK)
    heard = len(capfd.readouterr().err)
    assert 1000 < heard < 3 << 20
    assert isolation.call(lambda: os.write(2, b"x" * 500_000) and 7, **LIMITS, **WHAT) == 7


@pytest.mark.parametrize(
    ("number", "name"),
    [(signal.SIGSEGV, "SIGSEGV"), (signal.SIGABRT, "SIGABRT"), (signal.SIGBUS, "SIGBUS"), (signal.SIGFPE, "SIGFPE")],
)
def test_a_crash_names_its_signal(number, name):
    error = failure(lambda: os.kill(os.getpid(), number))
    assert f"the reader crashed ({name})" in error.message
    assert "damaged" in error.mend


def test_a_crash_in_c():
    assert "SIGSEGV" in failure(lambda: ctypes.string_at(0)).message


@pytest.mark.parametrize(("function", "status"), [(lambda: os._exit(0), 0), (lambda: os._exit(3), 3)])
def test_an_end_without_an_answer(function, status):
    assert f"exit status {status}" in failure(function).message


@pytest.mark.parametrize("error", [SystemExit(4), KeyboardInterrupt(), GeneratorExit()])
def test_an_error_that_would_end_the_program_does_not(error):
    message = failure(raises(error)).message
    assert type(error).__name__ in message
    assert "tried to end the program" in message


def eat():
    held = []
    while True:
        held.append(np.ones(32 << 20, np.uint8))


def eat_in_cv2():
    import cv2

    cv2.resize(np.zeros((9, 9, 3), np.uint8), (30000, 30000))


def eat_and_wrap():
    try:
        eat()
    except MemoryError as error:
        raise SlideError("a.svs: pixels cannot be read") from error


def eat_and_abort():
    os.write(2, b"\n(process:1): GLib-ERROR **: gmem.c:106: failed to allocate 40000000000 bytes\n")
    os.abort()


@pytest.mark.parametrize(
    "function",
    [eat, eat_in_cv2, eat_and_wrap, eat_and_abort, raises(MemoryError()), raises(RuntimeError("std::bad_alloc"))],
)
def test_what_needs_too_much_memory_says_so(function):
    error = failure(function)
    assert "memory limit: 400 MB" in error.message
    assert "slides.memory_mb" in error.mend


def test_a_kill_from_outside_is_taken_for_lack_of_memory():
    error = failure(lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert "SIGKILL" in error.message
    assert "slides.memory_mb" in error.mend


def test_memory_is_counted_beside_what_the_program_has():
    held = np.ones(500 << 20, np.uint8)
    size = isolation.call(lambda: len(np.ones(200 << 20, np.uint8)) + len(held), **LIMITS, **WHAT)
    assert size == 700 << 20


def test_opencv_works_in_the_child_whatever_the_parent_did():
    import cv2

    picture = np.random.default_rng(0).integers(0, 256, (2000, 2000, 3), dtype=np.uint8)

    def work():
        small = cv2.resize(picture, (300, 200), interpolation=cv2.INTER_AREA)
        return cv2.GaussianBlur(small, (0, 0), 3)

    here = work()  # OpenCV has its threads now
    np.testing.assert_array_equal(isolation.call(work, **LIMITS, **WHAT), here)


def test_buffered_output_is_written_once():
    code = (
        "import sys; from histill import isolation\n"
        "sys.stdout.write('before ')\n"
        "isolation.call(lambda: sys.stdout.write('inside '), seconds=9, memory_mb=300, what='a')\n"
        "import atexit; atexit.register(lambda: sys.stdout.write('exit'))\n"
        "isolation.call(lambda: 0, seconds=9, memory_mb=300, what='a')\n"
        "sys.stdout.write('after ')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "before inside after exit"


def test_a_stream_comes_in_order_with_its_arrays():
    def batches():
        for number in range(5):
            yield np.array([number]), np.full((3, 400, 400, 3), number, np.uint8)

    for number, (rows, fields) in enumerate(isolation.stream(batches, **LIMITS, **WHAT)):
        assert rows.tolist() == [number]
        assert fields.shape == (3, 400, 400, 3)
        assert (fields == number).all()
        assert fields.flags.writeable
    assert number == 4


def test_a_stream_waits_for_its_reader(tmp_path):
    log = tmp_path / "made"

    def batches():
        for number in range(20):
            with open(log, "a") as file:
                file.write("x")
            yield number, np.zeros(4 << 20, np.uint8)

    answers = isolation.stream(batches, **LIMITS, **WHAT)
    next(answers)
    time.sleep(0.3)
    assert log.stat().st_size <= 3
    answers.close()


def test_the_limit_of_a_stream_is_that_of_an_item():
    def slow():
        for number in range(4):
            time.sleep(0.3)
            yield number
        time.sleep(60)

    answers = isolation.stream(slow, seconds=1.0, memory_mb=400, **WHAT)
    assert [next(answers) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(SlideError, match="took longer"):
        next(answers)


@pytest.mark.parametrize("end", [os.abort, lambda: os._exit(0), raises(ValueError("tile 3"))])
def test_a_stream_that_breaks_off_is_an_error(end):
    def broken():
        yield 1
        end()
        yield 2

    answers = isolation.stream(broken, **LIMITS, **WHAT)
    assert next(answers) == 1
    with pytest.raises((SlideError, ValueError)):
        next(answers)
    assert list(answers) == []


def test_each_goes_on_behind_a_bad_item():
    def function(item):
        {"crash": os.abort, "hang": lambda: time.sleep(60), "error": raises(KeyError("k"))}.get(item, lambda: 0)()
        return item.upper()

    items = ["a", "crash", "b", "error", "hang", "exit", "c"]
    answers = list(isolation.each(function, items, **QUICK, what=lambda item: f"{item}.svs"))
    assert [answers[place] for place in (0, 2, 5, 6)] == ["A", "B", "EXIT", "C"]
    assert "crash.svs: the reader crashed (SIGABRT)" in answers[1].message
    assert isinstance(answers[3], KeyError)
    assert "hang.svs took longer" in answers[4].message


def test_each_of_nothing_is_nothing():
    assert list(isolation.each(len, [], **LIMITS, what=str)) == []


def test_a_child_costs_little():
    isolation.call(lambda: 0, **LIMITS, **WHAT)
    start = time.perf_counter()
    for _ in range(10):
        isolation.call(lambda: 0, **LIMITS, **WHAT)
    assert (time.perf_counter() - start) / 10 < 1  # 3 to 10 ms on an idle machine
