from __future__ import annotations

import json
import subprocess
import sys
import time
import warnings
from pathlib import Path

import anndata
import numpy as np
import pytest
import zarr

from histill.errors import HistillError
from histill.features import store as module
from histill.features.store import (
    Group,
    count_valid,
    counts,
    group_names,
    read_group,
    read_recipe,
    read_rows,
    verify,
    write_store,
)


def group(rows: int, dim: int = 5, dtype=np.float16, seed: int = 0) -> Group:
    generator = np.random.default_rng(rows + seed)
    valid = generator.random(rows) > 0.1
    return Group(
        x=generator.normal(size=(rows, dim)).astype(dtype) * valid[:, None],
        spatial=generator.integers(0, 10**6, (rows, 2)),
        obs={
            "tile": np.arange(rows, dtype=np.int32),
            "valid": valid,
            "tissue": generator.random(rows).astype(np.float32),
        },
    )


@pytest.mark.parametrize("rows", [0, 1, 1025, 2048, 5000])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_round_trip_and_anndata_reads_it(tmp_path, rows, dtype):
    path = tmp_path / "s.zarr"
    written = {"10x": group(rows, dtype=dtype), "20x": group(4 * rows, dtype=dtype)}
    recipe = {"encoder": "x", "revision": None, "mean": [0.5, 0.1], "note": "µ"}
    write_store(path, written, recipe)
    assert group_names(path) == ["10x", "20x"]
    assert read_recipe(path, "20x") == recipe
    for name, expected in written.items():
        read = read_group(path, name)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            table = anndata.read_zarr(path / name)
        assert read.x.dtype == dtype == table.X.dtype
        for x in (read.x, table.X, zarr.open_group(path, mode="r")[name]["X"][:]):
            np.testing.assert_array_equal(x, expected.x)
        np.testing.assert_array_equal(read.spatial, expected.spatial)
        np.testing.assert_array_equal(table.obsm["spatial"], expected.spatial)
        assert set(read.obs) == set(table.obs) == {"tile", "valid", "tissue"}
        for column, values in expected.obs.items():
            assert read.obs[column].dtype == table.obs[column].dtype == values.dtype
            np.testing.assert_array_equal(read.obs[column], values)
            np.testing.assert_array_equal(table.obs[column], values)
        assert read.var_names == list(table.var_names) == [f"f{index}" for index in range(5)]
        assert list(table.obs_names[:2]) == ["0", "1"][: len(expected.x)]
        assert json.loads(table.uns["recipe"]) == recipe
        assert counts(path)[name] == {
            "rows": len(expected.x),
            "valid": int(expected.valid.sum()),
            "dim": 5,
            "dtype": np.dtype(dtype).name,
        }


@pytest.mark.parametrize("dim", [1, 4096])
def test_any_dimension(tmp_path, dim):
    expected = group(1025, dim)
    expected.var_names = [f"µ {index}" for index in range(dim)]
    write_store(tmp_path / "s.zarr", {"slide": expected}, {})
    read = read_group(tmp_path / "s.zarr", "slide")
    np.testing.assert_array_equal(read.x, expected.x)
    assert read.var_names == expected.var_names == list(anndata.read_zarr(tmp_path / "s.zarr" / "slide").var_names)


def test_few_files_at_fifteen_thousand_tiles(tmp_path):
    record = write_store(tmp_path / "s.zarr", {"10x": group(3750), "20x": group(15000)}, {"encoder": "x"})
    files = [path for path in (tmp_path / "s.zarr").rglob("*") if path.is_file()]
    assert len(files) == len(record["files"]) + 1 < 60


def test_rows_that_are_not_valid_are_zeros(tmp_path):
    expected = group(50)
    expected.x[:] = 3
    write_store(tmp_path / "s.zarr", {"10x": expected}, {})
    read = read_group(tmp_path / "s.zarr", "10x")
    assert (read.x[expected.valid] == 3).all()
    assert (read.x[~expected.valid] == 0).all()


def test_single_rows(tmp_path):
    expected = group(5000)
    write_store(tmp_path / "s.zarr", {"20x": expected}, {})
    bag = expected.x[expected.valid]
    for rows in ([], [0], [len(bag) - 1, 0, 3], np.random.default_rng(0).permutation(len(bag))):
        np.testing.assert_array_equal(read_rows(tmp_path / "s.zarr", "20x", rows), bag[np.asarray(rows, int)])
    for rows in ([len(bag)], [-1]):
        with pytest.raises(HistillError, match="valid rows"):
            read_rows(tmp_path / "s.zarr", "20x", rows)


def test_the_same_content_gives_the_same_bytes(tmp_path):
    digests = [write_store(tmp_path / name, {"10x": group(100)}, {"a": 1})["digest"] for name in ("a", "b")]
    other = write_store(tmp_path / "c", {"10x": group(100)}, {"a": 2})["digest"]
    assert digests[0] == digests[1] != other


def test_rows_that_disagree_leave_nothing_behind(tmp_path):
    bad = group(10)
    bad.obs["tile"] = bad.obs["tile"][:5]
    with pytest.raises(ValueError, match="10 rows"):
        write_store(tmp_path / "s.zarr", {"10x": bad}, {})
    bad.obs = {"valid": np.ones(9, bool)}
    with pytest.raises(ValueError, match="10 rows"):
        write_store(tmp_path / "s.zarr", {"10x": bad}, {})
    assert list(tmp_path.iterdir()) == []


def test_a_missing_store_or_group_is_named(tmp_path):
    with pytest.raises(HistillError, match=r"none\.zarr is missing"):
        read_group(tmp_path / "none.zarr", "10x")
    write_store(tmp_path / "s.zarr", {"slide": group(1)}, {})
    for read in (read_group, read_recipe, count_valid, lambda *names: read_rows(*names, [0])):
        with pytest.raises(HistillError, match="no group '20x'; it has slide"):
            read(tmp_path / "s.zarr", "20x")


def rewrite(file: Path, **attributes):
    node = json.loads(file.read_text())
    node["attributes"].update(attributes)
    file.write_text(json.dumps(node))


def test_damage_is_told_with_the_mend(tmp_path):
    def harmed(harm, message, read=read_group):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.zarr"
        write_store(path, {"20x": group(3000)}, {})
        assert verify(path)["groups"]["20x"]["rows"] == 3000
        harm(path)
        with pytest.raises(HistillError, match=message) as caught:
            read(path, "20x") if read is read_group else read(path)
        assert str(path) in str(caught.value)
        assert "snakemake -R" in caught.value.mend

    def flip(file: Path, at: int = -1):
        content = bytearray(file.read_bytes())
        content[at] ^= 1
        file.write_bytes(content)

    harmed(lambda path: (path / "zarr.json").write_text('{"attributes": {}}'), "no completion record")
    harmed(lambda path: (path / "zarr.json").write_text(""), "no completion record")
    harmed(lambda path: (path / "zarr.json").unlink(), "zarr.json is missing")
    harmed(lambda path: rewrite(path / "zarr.json", histill={"format": 1, "digest": "x"}), "was changed")
    harmed(lambda path: (path / "20x/X/c/1/0").unlink(), "20x/X/c/1/0 is missing")
    harmed(lambda path: (path / "20x/X/c/1/0").write_bytes(b"short"), "not the size of a chunk")
    harmed(lambda path: flip(path / "20x/obs/tile/c/0"), "obs/tile/c/0 does not have the digest")
    harmed(lambda path: rewrite(path / "20x/X/zarr.json", a=1), "20x/X/zarr.json does not have the digest")
    harmed(lambda path: flip(path / "20x/X/c/0/0"), "20x/X/c/0/0 does not have the digest", verify)
    harmed(lambda path: (path / "20x" / "more").write_text(""), "20x/more is no file of it", verify)


REPLACE = """
import sys
import numpy as np
from histill.features import store_group, store_writer
from histill.features.store import Group, write_store
store_group.fsync = store_writer.fsync = lambda path: None  # many versions a second
for turn in range(1000):
    x = np.full((3000, 64), 1 + turn % 7, np.float16)
    table = Group(x[: 1000 + turn % 7], np.full((1000 + turn % 7, 2), 1 + turn % 7))
    write_store(sys.argv[1], {"10x": Group(x, np.full((3000, 2), 1 + turn % 7)), "20x": table}, {"turn": 1 + turn % 7})
    print(turn, flush=True)
"""


def test_a_reader_sees_one_version_while_a_store_is_replaced(tmp_path):
    path = tmp_path / "s.zarr"
    process = subprocess.Popen([sys.executable, "-c", REPLACE, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        process.stdout.readline()
        seen = set()
        end, turns = time.monotonic() + 20, 0
        while (len(seen) < 7 or turns < 300) and time.monotonic() < end:
            turns += 1
            read = read_group(path, "10x")
            (version,) = {*np.unique(read.x), *np.unique(read.spatial)}
            seen.add(float(version))
            rows = read_rows(path, "20x", np.arange(1000))
            assert len(np.unique(rows)) == 1
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
    assert len(seen) == 7


def test_reading_imports_nothing_heavy():
    code = "import sys; import histill.features.store; print({'zarr', 'anndata', 'pandas'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


def test_a_store_that_vanishes_for_a_moment_is_waited_for(tmp_path, monkeypatch):
    path = tmp_path / "s.zarr"
    write_store(path, {"10x": group(10)}, {})
    path.rename(tmp_path / "aside")
    monkeypatch.setattr(module.time, "sleep", lambda _: path.exists() or (tmp_path / "aside").rename(path))
    assert len(read_group(path, "10x").x) == 10
