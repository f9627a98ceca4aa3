"""Layouts of the feature store beside each other, in one run: files, writing, reading whole bags and single rows.

    python benchmarks/store.py [FOLDER] [--dim 1024] [--repeats 15]

One slide of 15,000 tiles at 20x and 3,750 at 10x, random float16 features. Times: the best of the repeats, in ms, the
page cache warm. Reading is of the 20x group.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas
import zarr
from anndata.io import write_elem

from histill.features import store_group
from histill.features.store import Group, read_group, read_rows, write_store

ROWS = {"10x": 3750, "20x": 15_000}
SAMPLE = 4096


def tables(dim: int) -> dict[str, Group]:
    generator = np.random.default_rng(0)
    return {
        name: Group(
            x=generator.normal(size=(rows, dim)).astype(np.float16),
            spatial=generator.integers(0, 100_000, (rows, 2)),
            obs={
                "tile": np.arange(rows, dtype=np.int32),
                "parent": np.arange(rows, dtype=np.int32) // 4,
                "tissue": generator.random(rows).astype(np.float32),
                "valid": np.ones(rows, bool),
            },
        )
        for name, rows in ROWS.items()
    }


def by_anndata(path: Path, groups: dict[str, Group], *, chunk: int, shard: int | None = None) -> None:
    """What anndata writes (small arrays with zstd), X without a compressor."""
    with anndata.settings.override(auto_shard_zarr_v3=False):
        root = zarr.open_group(path, mode="w", zarr_format=3)
        for name, group in groups.items():
            table = anndata.AnnData(
                obs=pandas.DataFrame(group.obs, index=[str(row) for row in range(len(group.x))]),
                var=pandas.DataFrame(index=[f"f{index}" for index in range(group.x.shape[1])]),
                obsm={"spatial": group.spatial},
                uns={"recipe": json.dumps({})},
            )
            write_elem(root, name, table)
            rows, dim = group.x.shape
            array = root[name].create_array(
                "X",
                shape=(rows, dim),
                chunks=(min(rows, chunk), dim),
                shards=None if shard is None else (-(-rows // chunk) * chunk, dim),
                dtype=group.x.dtype,
                compressors=None,
                overwrite=True,
            )
            array.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
            array[:] = group.x


def by_histill(path: Path, groups: dict[str, Group], *, chunk: int) -> None:
    store_group.CHUNK_ROWS = chunk
    write_store(path, groups, {})


def milliseconds(work: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - start))
    return min(times)


def measure(label: str, path: Path, write: Callable[[], None], rows: np.ndarray, repeats: int, own: bool) -> None:
    def again() -> None:
        shutil.rmtree(path, ignore_errors=True)
        write()

    written = milliseconds(again, 3)
    files = [file for file in path.rglob("*") if file.is_file()]

    def x() -> zarr.Array:
        return zarr.open_group(path, mode="r")["20x"]["X"]

    figures = [
        milliseconds(lambda: anndata.read_zarr(path / "20x"), repeats),
        milliseconds(lambda: x()[:], repeats),
        milliseconds(lambda: x()[rows], repeats),
    ]
    if own:
        figures.append(milliseconds(lambda: read_group(path, "20x"), repeats))
        figures.append(milliseconds(lambda: read_rows(path, "20x", rows), repeats))
    size = sum(file.stat().st_size for file in files) / 1e6
    print(
        f"| {label} | {len(files)} | {size:.1f} | {written:.0f} | {' | '.join(f'{figure:.1f}' for figure in figures)} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=None)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=15)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    groups = tables(given.dim)
    rows = np.sort(np.random.default_rng(1).choice(ROWS["20x"], SAMPLE, replace=False))
    columns = "layout", "files", "MB", "write", "anndata", "zarr all", f"zarr {SAMPLE} rows", "bag", f"{SAMPLE} rows"
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        path = Path(folder) / "s.zarr"
        for chunk in (1024, 2048, 4096):
            label = f"anndata's own, chunks of {chunk:,}"
            measure(label, path, lambda c=chunk: by_anndata(path, groups, chunk=c), rows, given.repeats, own=False)
        label = "the same, one shard of 1,024"
        measure(label, path, lambda: by_anndata(path, groups, chunk=1024, shard=1), rows, given.repeats, own=False)
        for chunk in (1024, 2048, 4096):
            label = f"histill, chunks of {chunk:,}"
            measure(label, path, lambda c=chunk: by_histill(path, groups, chunk=c), rows, given.repeats, own=True)


if __name__ == "__main__":
    main()
