"""The feature store: one zarr v3 directory a slide, one AnnData-encoded group a magnification.

`anndata.read_zarr(store / "20x")` opens a group as it is; `read_group` reads the same without importing anndata. X lies
in uncompressed chunks of 1,024 rows, which random row reads profit from more than from compression.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from histill.errors import HistillError
from histill.provenance import atomic_folder

CHUNK_ROWS = 1024


@dataclass
class Group:
    """Features of one slide at one magnification.

    Attributes
    ----------
    x
        Features [N, D], float16 or float32.
    spatial
        Level-0 pixels of each tile's top-left corner [N, 2], int64.
    obs
        Column name -> array [N]: `tile`, `parent`, `valid`, `tissue`, or fewer for imports.
    var_names
        Names of the D features; None numbers them.
    """

    x: np.ndarray
    spatial: np.ndarray
    obs: dict[str, np.ndarray] = field(default_factory=dict)
    var_names: list[str] | None = None

    @property
    def valid(self) -> np.ndarray:
        """Rows whose tile could be read [N], bool."""
        return self.obs["valid"] if "valid" in self.obs else np.ones(len(self.x), dtype=bool)


def store_path(encoder: str, slide_id: str) -> str:
    """Where a slide's store lies, relative to the results folder."""
    return f"features/{encoder}/{slide_id}.zarr"


def write_store(path: str | Path, groups: dict[str, Group], recipe: dict[str, Any]) -> None:
    """Write a slide's groups and the recipe that made them; the store appears whole or not at all.

    Raises
    ------
    ValueError
        When a group's arrays disagree in their number of rows.
    """
    import anndata
    import pandas
    import zarr
    from anndata.io import write_elem

    # Sharding would make each random row read decode a shard's index.
    with atomic_folder(path) as part, anndata.settings.override(auto_shard_zarr_v3=False):
        root = zarr.open_group(part, mode="w", zarr_format=3)
        for name, group in groups.items():
            rows, dim = group.x.shape
            lengths = {"spatial": len(group.spatial), **{key: len(column) for key, column in group.obs.items()}}
            if any(length != rows for length in lengths.values()):
                raise ValueError(f"{path}: group {name} has {rows} rows in X, but {lengths}")
            names = group.var_names or [f"f{index}" for index in range(dim)]
            table = anndata.AnnData(
                obs=pandas.DataFrame(group.obs, index=[str(row) for row in range(rows)]),
                var=pandas.DataFrame(index=names),
                obsm={"spatial": np.asarray(group.spatial, dtype=np.int64).reshape(rows, 2)},
                # As JSON text: one small array instead of one a key, and None and lists come back as they were.
                uns={"recipe": json.dumps(recipe, sort_keys=True)},
            )
            write_elem(root, name, table)
            # anndata wrote no X: it is added here, in the layout that training reads.
            array = root[name].create_array(
                "X",
                shape=(rows, dim),
                chunks=(max(1, min(rows, CHUNK_ROWS)), dim),
                dtype=group.x.dtype,
                compressors=None,
                overwrite=True,
            )
            array.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
            if rows:
                array[:] = group.x


def _open(path: str | Path) -> Any:
    import zarr

    try:
        return zarr.open_group(path, mode="r")
    except (FileNotFoundError, ValueError, KeyError) as error:
        mend = "run: snakemake -R features_batch (imported features: snakemake -R features)"
        raise HistillError(f"feature store {path} cannot be opened: {error}", mend=mend) from None


def group_names(path: str | Path) -> list[str]:
    """Groups of a store (`10x`, `20x`, or `slide`), sorted."""
    return sorted(_open(path).group_keys())


def read_group(path: str | Path, name: str) -> Group:
    """One group of a store, in memory."""
    root = _open(path)
    if name not in root:
        raise HistillError(
            f"feature store {path} has no group '{name}'; it has {', '.join(sorted(root.group_keys())) or 'none'}",
            mend="extract again with the magnifications that the cohort is trained on",
        )
    group = root[name]
    columns = list(group["obs"].attrs["column-order"])
    return Group(
        x=group["X"][:],
        spatial=group["obsm/spatial"][:],
        obs={column: group["obs"][column][:] for column in columns},
        var_names=[str(var) for var in group["var/_index"][:]],
    )


def read_recipe(path: str | Path, name: str) -> dict[str, Any]:
    """The recipe that made a group."""
    return json.loads(str(_open(path)[name]["uns/recipe"][()]))
