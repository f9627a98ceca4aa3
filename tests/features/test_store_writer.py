from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pytest

from histill.errors import SlideError
from histill.features import store_writer
from histill.features.store import Group, counts, read_group, verify, write_store
from histill.features.store_group import Layout
from histill.features.store_writer import StoreWriter
from histill.provenance import tree_digest
from histill.storage import StorageError


def layout(rows: int, dim: int = 3, **options) -> Layout:
    obs = {"tile": np.arange(rows, dtype=np.int32)}
    return Layout(rows, dim, obs, np.arange(2 * rows).reshape(rows, 2), **options)


def features(rows: int, dim: int = 3) -> np.ndarray:
    return np.random.default_rng(rows).normal(size=(rows, dim)).astype(np.float16)


@pytest.mark.parametrize("rows", [1, 2048, 5000])
@pytest.mark.parametrize("step", [1000, 7, 5000])
def test_streamed_in_pieces_as_written_at_once(tmp_path, rows, step):
    x = features(rows)
    with StoreWriter(tmp_path / "a.zarr", {"a": 1}, {"20x": layout(rows)}) as writer:
        for start in range(0, rows, step):
            writer.write("20x", slice(start, min(start + step, rows)), x[start : start + step].astype(np.float64))
        record = writer.finish()
    whole = Group(x, np.arange(2 * rows).reshape(rows, 2), {"tile": np.arange(rows, dtype=np.int32)})
    assert write_store(tmp_path / "b.zarr", {"20x": whole}, {"a": 1}) == record == verify(tmp_path / "a.zarr")
    assert tree_digest(tmp_path / "a.zarr") == tree_digest(tmp_path / "b.zarr")
    np.testing.assert_array_equal(read_group(tmp_path / "a.zarr", "20x").x, x)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "b.zarr"]


def test_rows_that_never_come_are_zeros_and_not_valid(tmp_path):
    x, left_out = features(5000), np.r_[0:3, 100, 2000:4200, 4999]
    rows = np.delete(np.arange(5000), left_out)
    with StoreWriter(tmp_path / "s.zarr", {}, {"10x": layout(5000), "20x": layout(10)}) as writer:
        for part in np.array_split(rows, 40):
            writer.write("10x", part, x[part])
        writer.finish()
    read = read_group(tmp_path / "s.zarr", "10x")
    np.testing.assert_array_equal(np.flatnonzero(~read.valid), left_out)
    np.testing.assert_array_equal(read.x[rows], x[rows])
    assert not read.x[left_out].any()
    assert counts(tmp_path / "s.zarr")["20x"] == {"rows": 10, "valid": 0, "dim": 3, "dtype": "float16"}
    assert not anndata.read_zarr(tmp_path / "s.zarr" / "20x").obs["valid"].any()


@pytest.mark.parametrize(("kind", "value"), [("float16", np.nan), ("float16", 7e4), ("float32", 1e39)])
def test_values_that_the_store_cannot_hold(tmp_path, kind, value):
    values = np.zeros((4, 3))
    values[2, 1] = value
    message = rf"s\.zarr, group 20x: feature 1 of row 7 .* {kind} cannot hold"
    with (
        StoreWriter(tmp_path / "s.zarr", {}, {"20x": layout(10, dtype=kind)}) as writer,
        pytest.raises(SlideError, match=message),
    ):
        writer.write("20x", range(5, 9), values)
    assert list(tmp_path.iterdir()) == []


def test_float32_holds_missing_values(tmp_path):
    with StoreWriter(tmp_path / "s.zarr", {}, {"slide": layout(1, dtype="float32")}) as writer:
        writer.write("slide", [0], np.array([[np.nan, 1e5, 2]]))
        writer.finish()
    np.testing.assert_array_equal(read_group(tmp_path / "s.zarr", "slide").x, np.float32([[np.nan, 1e5, 2]]))


@pytest.mark.parametrize(
    ("rows", "shape"),
    [([3, 2], (2, 3)), ([4, 4], (2, 3)), ([2, 3], (2, 3)), ([9, 10], (2, 3)), ([5, 6], (2, 4)), ([5, 6], (3, 3))],
)
def test_rows_out_of_order_or_of_another_shape_are_refused(tmp_path, rows, shape):
    with StoreWriter(tmp_path / "s.zarr", {}, {"20x": layout(10)}) as writer:
        writer.write("20x", [0, 2], np.zeros((2, 3)))
        with pytest.raises(ValueError, match=r"s\.zarr, group 20x"):
            writer.write("20x", rows, np.zeros(shape))


@pytest.mark.parametrize(
    "bad",
    [
        Layout(5, 3, {"tile": np.zeros(4)}, np.zeros((5, 2))),
        Layout(5, 3, {}, np.zeros((4, 2))),
        Layout(5, 0, {}, np.zeros((5, 2))),
        Layout(5, 3, {}, np.zeros((5, 2)), dtype="float64"),
        Layout(5, 3, {}, np.zeros((5, 2)), var_names=["a"]),
        Layout(5, 3, {"name": np.array(["a"] * 5)}, np.zeros((5, 2))),
    ],
)
def test_layouts_that_disagree(tmp_path, bad):
    with pytest.raises(ValueError, match=r"s\.zarr, group 10x"):
        StoreWriter(tmp_path / "s.zarr", {}, {"10x": bad})
    assert list(tmp_path.iterdir()) == []


def test_what_lies_there_stays_until_the_new_store_is_whole(tmp_path):
    path = tmp_path / "s.zarr"
    write_store(path, {"10x": Group(features(5), np.zeros((5, 2)))}, {"turn": 1})
    with StoreWriter(path, {"turn": 2}, {"10x": layout(7)}) as writer:
        writer.write("10x", range(7), features(7))
        assert counts(path)["10x"]["rows"] == 5
    assert counts(path)["10x"]["rows"] == 5
    assert [entry.name for entry in tmp_path.iterdir()] == ["s.zarr"]


def begin(path, described=None, inputs=None, rows=100):
    return StoreWriter(path, described or {}, {"10x": layout(rows)}, inputs=inputs or {"slide": "a"})


def test_going_on_after_an_error(tmp_path):
    path = tmp_path / "s.zarr"
    x = features(100)
    with begin(path) as writer:
        writer.write("10x", range(0, 30), x[:30])
        writer.checkpoint()
        writer.write("10x", range(30, 60), x[30:60])
    with begin(path) as writer:
        assert writer.done("10x") == 30
        writer.write("10x", range(20, 50), np.concatenate([np.full((10, 3), np.nan), x[30:50]]))  # known rows: dropped
        writer.write("10x", range(50, 100), x[50:])
        resumed = writer.finish()
    np.testing.assert_array_equal(read_group(path, "10x").x, x)
    with begin(tmp_path / "whole.zarr") as writer:
        writer.write("10x", range(100), x)
        assert writer.finish() == resumed


def test_rows_after_the_checkpoint_leave_no_trace(tmp_path):
    path = tmp_path / "s.zarr"
    with begin(path) as writer:
        writer.write("10x", range(0, 10), np.ones((10, 3)))
        writer.checkpoint()
        writer.write("10x", range(10, 100), np.ones((90, 3)))
        writer._save()
    with begin(path) as writer:  # the tiles that could be read before cannot be now
        writer.finish()
    read = read_group(path, "10x")
    assert read.valid.sum() == read.x[:, 0].sum() == 10


@pytest.mark.parametrize(
    "other",
    [{"described": {"encoder": "b"}}, {"inputs": {"slide": "b"}}, {"rows": 101}],
    ids=["recipe", "slide", "tiles"],
)
def test_a_partial_store_of_another_kind_is_thrown_away(tmp_path, other):
    path = tmp_path / "s.zarr"
    with begin(path) as writer:
        writer.write("10x", range(50), features(50))
        writer.checkpoint()
    with begin(path, **other) as writer:
        assert writer.done("10x") == 0
        writer.finish()
    assert not read_group(path, "10x").valid.any()


def harm_journal(part: Path):
    with open(part / "journal", "ab") as journal:
        journal.write(b'{"10x": 9')


@pytest.mark.parametrize(
    ("harm", "kept"),
    [
        (harm_journal, 50),
        (lambda part: (part / "journal").write_text(""), 0),
        (lambda part: (part / "journal").write_bytes(b"\xff\n"), 0),
        (lambda part: (part / "tree/10x/X/c/0/0").unlink(), 0),
        (lambda part: (part / "tree/10x/obs/valid/c/0").write_bytes(b""), 0),
        (lambda part: (part / "tree/10x/obs/tile/c/0").unlink(), 50),
    ],
)
def test_a_damaged_partial_store_gives_no_wrong_rows(tmp_path, harm, kept):
    path, x = tmp_path / "s.zarr", features(100)
    with begin(path) as writer:
        writer.write("10x", range(50), x[:50])
        writer.checkpoint()
    harm(tmp_path / ".s.zarr.part")
    with begin(path) as writer:
        assert writer.done("10x") == kept
        writer.write("10x", range(kept, 70), x[kept:70])
        writer.checkpoint()
    with begin(path) as writer:
        assert writer.done("10x") == 70
        writer.write("10x", range(70, 100), x[70:])
        writer.finish()
    np.testing.assert_array_equal(read_group(path, "10x").x, x)
    verify(path)


def test_leftovers_of_other_runs_are_removed(tmp_path):
    for name in (".s.zarr.x1.part", ".s.zarr.x1.old", ".other.zarr.x.part"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("")
    write_store(tmp_path / "s.zarr", {"10x": Group(features(5), np.zeros((5, 2)))}, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.zarr.x.part", "s.zarr"]


KILLED = """
import sys, time
import numpy as np
from histill.features import store_writer
from histill.features.store_group import Layout

store_writer.CHECKPOINT_SECONDS = 0.02
x = {name: np.random.default_rng(rows).normal(size=(rows, 16)) for name, rows in (("10x", 3000), ("20x", 12000))}
layouts = {n: Layout(len(v), 16, {"tile": np.arange(len(v))}, np.zeros((len(v), 2))) for n, v in x.items()}
with store_writer.StoreWriter(sys.argv[1], {"a": 1}, layouts, inputs={"slide": "a"}) as writer:
    start = min(writer.done("10x"), writer.done("20x") // 4)
    print(start, flush=True)
    for low in range(start - start % 16, 3000, 16):
        if low // 16 % 9:  # every ninth batch cannot be read
            writer.write("20x", range(4 * low, min(4 * low + 64, 12000)), x["20x"][4 * low : 4 * low + 64])
            writer.write("10x", range(low, min(low + 16, 3000)), x["10x"][low : low + 16])
        print(low, flush=True)
        time.sleep(float(sys.argv[2]))
    writer.finish()
"""


def test_killed_at_ten_moments_the_store_is_what_an_undisturbed_run_gives(tmp_path):
    def start(name: str, pause: float) -> subprocess.Popen:
        command = [sys.executable, "-c", KILLED, str(tmp_path / name), str(pause)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    assert start("whole.zarr", 0).wait() == 0
    starts = []
    for batches in np.random.default_rng().integers(1, 9, 10):
        process = start("killed.zarr", 0.02)
        first, *_ = [process.stdout.readline() for _ in range(1 + batches)]
        starts.append(int(first))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "killed.zarr").exists()
    last = start("killed.zarr", 0)
    starts.append(int(last.communicate()[0].split()[0]))
    assert last.returncode == 0
    assert starts == sorted(starts)
    assert starts[-1] > 0, "nothing of ten runs was gone on with"
    assert tree_digest(tmp_path / "killed.zarr") == tree_digest(tmp_path / "whole.zarr")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed.zarr", "whole.zarr"]


@pytest.mark.parametrize("inputs", [None, {"slide": "a"}])
def test_a_full_disk_is_told_and_what_is_done_is_kept(tmp_path, inputs):
    path, x = tmp_path / "s.zarr", features(3000, 200)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with StoreWriter(path, {}, {"20x": layout(3000, 200)}, inputs=inputs) as writer:
        writer.write("20x", range(100), x[:100])
        writer.checkpoint()
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            with pytest.raises(StorageError, match=r"s\.zarr, group 20x: no space is left") as caught:
                writer.write("20x", range(100, 3000), x[100:])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "what is done is kept" in caught.value.mend
    assert not path.exists()
    with StoreWriter(path, {}, {"20x": layout(3000, 200)}, inputs=inputs) as writer:
        done = writer.done("20x")
        assert done == (100 if inputs else 0)
        writer.write("20x", range(done, 3000), x[done:])
        writer.finish()
    np.testing.assert_array_equal(read_group(path, "20x").x, x)


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file/s\.zarr: cannot be written"):
        StoreWriter(tmp_path / "file" / "s.zarr", {}, {"10x": layout(5)})
    if os.getuid() == 0:
        pytest.skip("everything can be written by root")
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(StorageError, match="Permission denied"):
        StoreWriter(tmp_path / "closed" / "s.zarr", {}, {"10x": layout(5)})


@pytest.mark.parametrize("name", ["a b/ü [1] *.zarr", "s.zarr"])
def test_any_path(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_store(name, {"10x": Group(features(5), np.zeros((5, 2)))}, {})
    write_store(name, {"10x": Group(features(6), np.zeros((6, 2)))}, {})
    assert verify(name)["groups"]["10x"]["rows"] == 6
    assert [path.name for path in Path(name).parent.iterdir()] == [Path(name).name]


def test_a_checkpoint_is_made_from_time_to_time(tmp_path, monkeypatch):
    monkeypatch.setattr(store_writer, "CHECKPOINT_SECONDS", 0)
    with begin(tmp_path / "s.zarr") as writer:
        writer.write("10x", range(40), features(40))
    with begin(tmp_path / "s.zarr") as writer:
        assert writer.done("10x") == 40


def test_two_writers_of_one_store(tmp_path):
    with begin(tmp_path / "s.zarr") as writer:
        with pytest.raises(SlideError, match=rf"s\.zarr is being written by process {os.getpid()} on"):
            begin(tmp_path / "s.zarr")
        with begin(tmp_path / "other.zarr") as other:
            other.finish()
        writer.write("10x", range(100), features(100))
        writer.finish()
    assert read_group(tmp_path / "s.zarr", "10x").valid.all()
