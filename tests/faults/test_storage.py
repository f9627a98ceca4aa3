"""Storage that is full, read-only, slow, or fails now and then: nothing lost, nothing taken for whole, and told."""

from __future__ import annotations

import errno
import os
import pickle
import resource
import time
from functools import partial
from pathlib import Path

import pytest

from histill import batches, storage
from histill.errors import HistillError, SlideError
from histill.provenance import Receipt, atomic_file, atomic_folder, remove_parts, write_json
from histill.slides import tile
from histill.storage import StorageError, UnreachableError, explained, is_of_the_future, patiently
from tests.faults.conftest import extracted, followed
from tests.faults.runs import differences, leftovers, outcome

LIMITS = {"seconds": 30.0, "memory_mb": 500}


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setattr(storage, "PAUSES", (0.01, 0.01, 0.01))


@pytest.mark.parametrize(
    ("number", "path", "said"),
    [
        (errno.ENOSPC, None, "no space is left"),
        (errno.EDQUOT, "/elsewhere/file", "no space is left"),
        (errno.EROFS, "/elsewhere/file", "Read-only file system"),
        (errno.EIO, "/results/file", "the storage failed: Input/output error"),
        (errno.EACCES, "/results/a/file", "Permission denied"),
        (errno.EIO, "/elsewhere/slide.svs", None),
        (errno.EACCES, "/elsewhere/slide.svs", None),
        (errno.ENOENT, "/results/file", None),
    ],
)
def test_what_is_of_the_results_and_what_of_a_slide(number, path, said):
    problem = explained(OSError(number, os.strerror(number), path), "/results")
    assert (problem is None) == (said is None)
    if said:
        assert said in problem.message
        assert "what is done is kept" in problem.mend


@pytest.mark.parametrize(("hidden", "found"), [(False, True), (True, False)])
def test_errors_without_a_number_are_known_by_what_they_say(hidden, found):
    """As of HDF5 and safetensors; and what led to an error counts, unless it is hidden on purpose."""
    told = RuntimeError("I/O error: No space left on device (os error 28)")
    assert "no space is left" in explained(told).message
    later = SlideError("later")
    later.__context__, later.__suppress_context__ = told, hidden
    assert (explained(later) is not None) == found


@pytest.mark.parametrize("failures", [0, 1, 3])
def test_a_read_is_tried_again_while_the_storage_fails(failures):
    calls, notes = [], []

    def read():
        calls.append(1)
        if len(calls) <= failures:
            raise OSError(errno.EIO, "Input/output error")
        return 5

    assert patiently(read, "a.svs", note=notes.append) == 5
    assert len(calls) == failures + 1
    assert len(notes) == bool(failures)


def test_a_read_that_never_comes_is_told_and_one_that_cannot_is_not_tried_again():
    calls = []

    def fail(error):
        calls.append(1)
        raise error

    with pytest.raises(UnreachableError, match=r"a\.svs: the storage failed 4 times in a row: Stale file handle"):
        patiently(lambda: fail(OSError(errno.ESTALE, "Stale file handle")), "a.svs")
    assert len(calls) == 4
    with pytest.raises(FileNotFoundError):
        patiently(lambda: fail(FileNotFoundError(errno.ENOENT, "gone")), "a.svs")
    assert len(calls) == 5
    with pytest.raises(UnreachableError):  # waited for below already
        patiently(lambda: fail(UnreachableError("Input/output error")), "a.svs")
    assert len(calls) == 6


def failing(share: int, name: str = ""):
    """`os.pread` that fails each `share`-th time, of files that are called so."""
    read, calls = os.pread, []

    def pread(file: int, count: int, offset: int) -> bytes:
        if os.readlink(f"/proc/self/fd/{file}").endswith(name):
            calls.append(1)
            if len(calls) % share == 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(file, count, offset)

    return pread


def test_storage_that_fails_now_and_then_changes_nothing_but_a_warning(slides, undisturbed, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "pread", failing(9))
    receipts = extracted(slides, tmp_path)
    assert [receipt.state for receipt in receipts] == ["ok", "ok"]
    assert any("what was tried again could be read" in line for receipt in receipts for line in receipt.warnings)
    stores = {name: made for receipt in receipts for name, made in receipt.outputs.items()}
    quiet = [Receipt.read(batches.receipt_path(undisturbed, "features", slide.slide_id)) for slide in slides]
    assert stores == {name: made for receipt in quiet for name, made in receipt.outputs.items()}


@pytest.mark.parametrize(("stage", "from_then_on"), [("inspect", None), ("features", tile)])
def test_storage_that_fails_for_good_costs_its_slide_alone_and_flags_no_tile(
    slides, undisturbed, tmp_path, monkeypatch, stage, from_then_on
):
    """A flag would stay for good, though the pixels may be there tomorrow."""
    with monkeypatch.context() as patch:
        fail = partial(patch.setattr, os, "pread", failing(1, Path(slides[0].path).name))
        fail() if from_then_on is None else patch.setattr(from_then_on, "run", followed(from_then_on.run, fail))
        bad, good = extracted(slides, tmp_path)
    assert (bad.state, good.state) == ("quarantined", "ok")
    assert "the storage failed 4 times in a row: Input/output error" in bad.reason
    assert bad.mend.endswith(f"then snakemake -R {stage}_batch")
    assert [receipt.state for receipt in extracted(slides, tmp_path)] == ["ok", "ok"]
    assert differences(outcome(undisturbed), outcome(tmp_path)) == []


def test_storage_that_hangs_is_given_up_in_time(slides, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "pread", lambda *_: time.sleep(60))
    receipts = extracted(slides[:1], tmp_path, {"slides": {"time_limit": 3}})
    assert receipts[0].state == "quarantined"
    assert "took longer than 3 s and was stopped" in receipts[0].reason
    assert "raise slides.time_limit" in receipts[0].mend


def test_a_full_disk_ends_the_stage_and_blames_no_slide(slides, undisturbed, tmp_path, monkeypatch):
    """It is full for what the stages write, and not yet for receipts: the worst that can happen."""

    def full(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch:
        patch.setattr("histill.slides.segment.write_overview", lambda path, picture: full(path))
        with pytest.raises(StorageError, match="no space is left"):
            extracted(slides, tmp_path)
    states = [Receipt.read(path).state for path in tmp_path.rglob("receipts/*.json")]
    assert set(states) == {"ok"}
    extracted(slides, tmp_path)
    assert differences(outcome(undisturbed), outcome(tmp_path)) == []


def test_a_full_disk_in_extraction_ends_the_stage_and_what_is_done_is_kept(slides, undisturbed, tmp_path):
    size = max(path.stat().st_size for path in (undisturbed / "features").rglob("*") if path.is_file())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, hard))
    try:
        with pytest.raises(StorageError, match=r"no space is left to write it: File too large"):
            extracted(slides, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list((tmp_path / "features").rglob("*.zarr"))
    extracted(slides, tmp_path)
    assert differences(outcome(undisturbed), outcome(tmp_path)) == []
    assert leftovers(tmp_path) == []


def test_a_slide_that_vanished_between_two_stages_is_set_aside(slides, undisturbed, tmp_path, monkeypatch):
    """And is taken up again when it is back."""
    away = [type(slide)(slide.slide_id, slide.patient_id, str(tmp_path / Path(slide.path).name)) for slide in slides]
    for slide, moved in zip(slides, away, strict=True):
        os.link(slide.path, moved.path)
    results = tmp_path / "results"
    (tmp_path / "aside").mkdir()
    hidden = tmp_path / "aside" / Path(away[0].path).name
    with monkeypatch.context() as patch:
        patch.setattr(tile, "run", followed(tile.run, lambda: os.rename(away[0].path, hidden)))
        bad, good = extracted(away, results)
    assert (bad.state, good.state) == ("quarantined", "ok")
    assert "No such file or directory" in bad.reason
    os.rename(hidden, away[0].path)
    assert [receipt.state for receipt in extracted(away, results)] == ["ok", "ok"]
    assert differences(outcome(undisturbed), outcome(results)) == []


def test_errors_of_storage_survive_the_way_from_a_child():
    error = pickle.loads(pickle.dumps(StorageError("full", mend="free space")))
    assert (error.message, error.mend, type(error)) == ("full", "free space", StorageError)


def test_what_a_living_process_writes_is_not_tidied_away(tmp_path):
    with atomic_file(tmp_path / "a.json") as part:
        part.write_text("half")
        remove_parts(tmp_path)
        assert part.read_text() == "half"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_what_a_dead_process_left_is_tidied_away(tmp_path):
    pid = os.fork()
    if pid == 0:
        with atomic_file(tmp_path / "a.json") as part:
            part.write_text("half")
            os._exit(9)
    os.waitpid(pid, 0)
    (left,) = tmp_path.iterdir()
    other = left.with_name(left.name.replace(left.name.split(".")[2], f"00000000-{pid}"))
    other.write_text("of another machine")
    write_json(tmp_path / "b.json", {})
    assert left.exists()
    write_json(tmp_path / "a.json", {})
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", "b.json", other.name}
    os.utime(other, (0, 0))
    remove_parts(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", "b.json"}


def test_a_folder_that_a_dead_process_left_halfway_is_tidied_away_by_the_next(tmp_path):
    pid = os.fork()
    if pid == 0:
        with atomic_folder(tmp_path / "bundle") as part:
            (part / "model").write_text("half")
            os._exit(9)
    os.waitpid(pid, 0)
    (left,) = tmp_path.iterdir()
    with atomic_folder(tmp_path / "bundle") as part:
        assert list(tmp_path.iterdir()) == [part]
        (part / "model").write_text("whole")
    assert left.name != "bundle"
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["bundle", "bundle/model"]


def test_the_command_tells_a_full_disk_without_a_traceback(tmp_path, monkeypatch, capsys):
    from histill import cli

    def full() -> None:
        write_json(tmp_path / "x.json", {})

    monkeypatch.setattr(cli, "app", full)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("histill: a file: no space is left")
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def test_other_errors_keep_their_traceback(monkeypatch):
    from histill import cli

    def broken() -> None:
        raise KeyError("a fault of the program")

    monkeypatch.setattr(cli, "app", broken)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(KeyError):
        cli.main()


def test_errors_of_a_slide_stay_errors_of_a_slide():
    assert not issubclass(StorageError, SlideError)
    assert issubclass(StorageError, HistillError)
    assert issubclass(UnreachableError, SlideError)


def test_the_future_begins_now(tmp_path):
    path = tmp_path / "a.svs"
    assert not is_of_the_future(path)
    path.touch()
    assert not is_of_the_future(path)
    os.utime(path, (time.time() + 60,) * 2)
    assert is_of_the_future(path)
