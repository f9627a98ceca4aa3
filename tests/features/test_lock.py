from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time

import pytest

from histill.errors import SlideError
from histill.features import lock as module
from histill.features.lock import StoreLock

HOLD = """
import sys, time
from pathlib import Path
from histill.features.lock import StoreLock
lock = StoreLock(Path(sys.argv[1]), "the store")
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.02)
    monkeypatch.setattr(module, "STALE_SECONDS", 0.2)


def of_another_machine(path):
    path.write_text(json.dumps({"host": "node7", "machine": "other", "pid": 4}))
    return path


def test_a_living_writer_is_left_alone_and_a_dead_one_followed_at_once(tmp_path, holder):
    with pytest.raises(SlideError, match=f"the store is being written by process {holder.pid} on") as caught:
        StoreLock(tmp_path / "lock", "the store")
    assert str(tmp_path / "lock") in caught.value.mend
    holder.kill()
    holder.wait()
    assert (tmp_path / "lock").exists()
    StoreLock(tmp_path / "lock", "the store").release()
    assert list(tmp_path.iterdir()) == []


def test_one_lock_at_a_time_in_one_process(tmp_path):
    first = StoreLock(tmp_path / "lock", "the store")
    with pytest.raises(SlideError, match=f"process {os.getpid()}"):
        StoreLock(tmp_path / "lock", "the store")
    first.check()
    first.release()
    StoreLock(tmp_path / "lock", "the store").release()


def test_a_lock_of_another_machine_is_taken_over_once_nobody_touches_it(tmp_path):
    path = of_another_machine(tmp_path / "lock")
    start = time.monotonic()
    lock = StoreLock(path, "the store")
    assert time.monotonic() - start > 0.15
    lock.check()
    assert json.loads(path.read_text())["pid"] == os.getpid()
    lock.release()


def test_a_lock_of_another_machine_that_is_touched_holds(tmp_path):
    path = of_another_machine(tmp_path / "lock")
    stop = threading.Event()

    def beat():
        while not stop.wait(0.01):
            os.utime(path)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(SlideError, match="process 4 on node7"):
            StoreLock(path, "the store")
    finally:
        stop.set()
        thread.join()
    assert path.exists()


def test_where_there_are_no_locks_the_touch_decides(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(module.fcntl, "lockf", none)
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.01)
    path = tmp_path / "lock"
    lock = StoreLock(path, "the store")
    module._held.clear()  # as another process
    with pytest.raises(SlideError, match=f"process {os.getpid()}"):
        StoreLock(path, "the store")
    lock.release()
    assert not path.exists()


def test_a_writer_that_was_taken_for_dead_is_told(tmp_path):
    lock = StoreLock(tmp_path / "lock", "the store")
    os.pwrite(lock._handle, b'{"host": "node7", "machine": "other", "pid": 4}', 0)
    with pytest.raises(SlideError, match="taken over"):
        lock.check()
    (tmp_path / "lock").unlink()
    with pytest.raises(SlideError, match="taken over"):
        lock.check()
    lock.release()


def test_a_file_cut_off_while_it_was_made_is_no_lock(tmp_path):
    (tmp_path / "lock").write_text('{"host"')
    StoreLock(tmp_path / "lock", "the store").release()
