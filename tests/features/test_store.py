from __future__ import annotations

import anndata
import numpy as np
import pytest

from histill.errors import HistillError
from histill.features.store import Group, group_names, read_group, read_recipe, write_store


def group(rows: int, dim: int = 5, dtype=np.float16) -> Group:
    generator = np.random.default_rng(rows)
    return Group(
        x=generator.normal(size=(rows, dim)).astype(dtype),
        spatial=generator.integers(0, 10**6, (rows, 2)),
        obs={"tile": np.arange(rows, dtype=np.int32), "valid": generator.random(rows) > 0.1},
    )


@pytest.mark.parametrize("rows", [0, 1, 1024, 2500])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_round_trip_and_anndata_reads_it(tmp_path, rows, dtype):
    path = tmp_path / "s.zarr"
    written = {"10x": group(rows, dtype=dtype), "20x": group(4 * rows, dtype=dtype)}
    recipe = {"encoder": "x", "revision": None, "mean": [0.5, 0.1]}
    write_store(path, written, recipe)
    assert group_names(path) == ["10x", "20x"]
    assert read_recipe(path, "20x") == recipe
    for name, expected in written.items():
        read = read_group(path, name)
        table = anndata.read_zarr(path / name)
        assert read.x.dtype == dtype == table.X.dtype
        for x in (read.x, table.X):
            np.testing.assert_array_equal(x, expected.x)
        np.testing.assert_array_equal(read.spatial, expected.spatial)
        np.testing.assert_array_equal(table.obsm["spatial"], expected.spatial)
        np.testing.assert_array_equal(read.valid, expected.obs["valid"])
        np.testing.assert_array_equal(table.obs["tile"], expected.obs["tile"])


def test_few_files_at_fifteen_thousand_tiles(tmp_path):
    write_store(tmp_path / "s.zarr", {"10x": group(3750), "20x": group(15000)}, {"encoder": "x"})
    assert sum(path.is_file() for path in (tmp_path / "s.zarr").rglob("*")) < 80


def test_rows_that_disagree_leave_nothing_behind(tmp_path):
    bad = group(10)
    bad.obs["tile"] = bad.obs["tile"][:5]
    with pytest.raises(ValueError, match="10 rows"):
        write_store(tmp_path / "s.zarr", {"10x": bad}, {})
    assert list(tmp_path.iterdir()) == []


def test_a_missing_store_or_group_is_named(tmp_path):
    with pytest.raises(HistillError, match=r"none\.zarr"):
        read_group(tmp_path / "none.zarr", "10x")
    write_store(tmp_path / "s.zarr", {"slide": group(1)}, {})
    with pytest.raises(HistillError, match="no group '20x'; it has slide"):
        read_group(tmp_path / "s.zarr", "20x")
