"""Bags in the layouts of other tools.

What each layout must hold follows the public descriptions of the tools (docs/features.md). Features are written as
float32, which holds every float16 value exactly and which training code expects.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from histill.errors import SlideError
from histill.features.store import Group
from histill.features.zarr_files import group_node
from histill.provenance import atomic_file, atomic_folder

_ROWS = 1024  # of an HDF5 chunk: one-row chunks, as other tools write them, are 30 times slower to read
_TRIDENT = ("patch_size", "patch_size_level0", "level0_magnification", "target_magnification", "overlap")


@dataclass(frozen=True)
class Tiles:
    """A slide at one magnification, to be exported.

    Attributes
    ----------
    group
        With X as float32.
    settings
        Attributes of the tiles in TRIDENT's words, as far as they are known.
    """

    slide: str
    encoder: str
    magnification: str
    group: Group
    recipe: dict[str, Any]
    settings: dict[str, Any]

    def need(self, *keys: str) -> None:
        """Raise when a setting that a layout cannot do without is not known."""
        missing = [key for key in keys if key not in self.settings]
        if missing:
            raise SlideError(
                f"slide {self.slide}: {', '.join(missing)} of its tiles is not known: neither its store nor slide.json "
                "says it",
                mend="export within the results folder that the slide was tiled in, or export as pt or h5ad",
            )


def trident(slides: list[Tiles], out: Path) -> list[Path]:
    """`<mag>x_<px>px_<overlap>px_overlap/patches/<slide>_patches.h5` and `.../features_<encoder>/<slide>.h5`."""
    files = []
    for tiles in slides:
        tiles.need(*_TRIDENT)
        setting = {**tiles.settings, "name": tiles.slide}
        folder = out / "{target_magnification}x_{patch_size}px_{overlap}px_overlap".format(**setting)
        x, coords = readable(tiles.group)
        places = coords, {**setting, "savetodir": str(folder)}
        features = folder / f"features_{tiles.encoder}"
        made = {"name": tiles.slide, "savetodir": str(features), "encoder": tiles.encoder}
        files.append(_hdf5(folder / "patches" / f"{tiles.slide}_patches.h5", {"coords": places}))
        files.append(_hdf5(features / f"{tiles.slide}.h5", {"features": (x, made), "coords": places}))
    return files


def clam(slides: list[Tiles], out: Path) -> list[Path]:
    """`<magnification>/patches/<slide>.h5`, `.../h5_files/<slide>.h5` and `.../pt_files/<slide>.pt`.

    CLAM names a tile by its size on a level of the slide; here that is its size on level 0.
    """
    files = []
    for tiles in slides:
        folder, setting = out / tiles.magnification, dict(tiles.settings)
        if "patch_level" not in setting:
            tiles.need("patch_size_level0", "level0_width", "level0_height")
            size = [setting["level0_width"], setting["level0_height"]]
            setting |= {"patch_size": setting["patch_size_level0"], "patch_level": 0, "downsample": [1.0, 1.0]}
            setting |= {"level_dim": size, "downsampled_level_dim": size}
        setting |= {"name": tiles.slide, "save_path": str(folder / "patches")}
        x, coords = readable(tiles.group)
        files.append(_hdf5(folder / "patches" / f"{tiles.slide}.h5", {"coords": (coords, setting)}))
        bag = {"features": (x, {}), "coords": (coords.astype(np.int32), {})}
        files.append(_hdf5(folder / "h5_files" / f"{tiles.slide}.h5", bag))
        files.append(_tensors(folder / "pt_files" / f"{tiles.slide}.pt", lambda torch, x=x: torch.from_numpy(x)))
    return files


def pt(slides: list[Tiles], out: Path) -> list[Path]:
    """`<magnification>/<slide>.pt`: a dict of `features`, `coords` and the settings."""

    def bag(torch: Any, tiles: Tiles) -> dict[str, Any]:
        x, coords = readable(tiles.group)
        settings = {key: value for key, value in tiles.settings.items() if not isinstance(value, list)}
        return {**settings, "name": tiles.slide, "features": torch.from_numpy(x), "coords": torch.from_numpy(coords)}

    return [
        _tensors(out / tiles.magnification / f"{tiles.slide}.pt", lambda torch, tiles=tiles: bag(torch, tiles))
        for tiles in slides
    ]


def h5ad(slides: list[Tiles], out: Path) -> list[Path]:
    """`<magnification>/<slide>.h5ad`: every row, with its columns; settings in `uns['attributes']`."""
    files = []
    for tiles in slides:
        path = out / tiles.magnification / f"{tiles.slide}.h5ad"
        with atomic_file(path) as part:
            _table(tiles).write_h5ad(part)
        files.append(path)
    return files


def lazyslide(slides: list[Tiles], out: Path) -> list[Path]:
    """`<slide>.zarr`: SpatialData with the shapes `tiles_<magnification>` and a table of features for each."""
    import anndata

    path = out / f"{slides[0].slide}.zarr"
    with (
        atomic_folder(path) as part,
        anndata.settings.override(zarr_write_format=3, auto_shard_zarr_v3=False),
    ):
        specifications = {}
        for tiles in slides:
            tiles.need("patch_size", "patch_size_level0", "overlap", "mpp", "tile_mpp")
            key = f"tiles_{tiles.magnification}"
            specifications[key] = _tile_specification(tiles.settings)
            _shapes(part / "shapes" / key, tiles)
            _features(part / "tables" / f"{tiles.encoder}_{key}", key, tiles)
        versions = {"spatialdata_attrs": {"version": "0.2"}, "tile_spec": specifications}
        (part / "zarr.json").write_bytes(group_node(versions))
        for folder in ("shapes", "tables"):
            (part / folder / "zarr.json").write_bytes(group_node({}))
    return [path]


FORMATS: dict[str, Callable[[list[Tiles], Path], list[Path]]] = {
    "trident": trident,
    "clam": clam,
    "pt": pt,
    "h5ad": h5ad,
    "lazyslide": lazyslide,
}


def readable(group: Group) -> tuple[np.ndarray, np.ndarray]:
    """Features and coordinates of the tiles that could be read: other tools have no flag for the others."""
    return group.x[group.valid], group.spatial[group.valid]


def _hdf5(path: Path, arrays: dict[str, tuple[np.ndarray, dict[str, Any]]]) -> Path:
    import h5py

    with atomic_file(path) as part, h5py.File(part, "w") as handle:
        for name, (values, attributes) in arrays.items():
            columns = values.shape[1:]
            chunks = (max(1, min(len(values), _ROWS)), *columns)
            array = handle.create_dataset(name, data=values, maxshape=(None, *columns), chunks=chunks)
            array.attrs.update(attributes)
    return path


def _tensors(path: Path, content: Callable[[Any], Any]) -> Path:
    import torch

    with atomic_file(path) as part:
        torch.save(content(torch), part)
    return path


def _table(tiles: Tiles) -> Any:
    import anndata
    import pandas

    group = tiles.group
    return anndata.AnnData(
        X=group.x,
        obs=pandas.DataFrame(group.obs, index=[str(row) for row in range(len(group.x))]),
        var=pandas.DataFrame(index=group.var_names),
        obsm={"spatial": group.spatial},
        uns={"recipe": json.dumps(tiles.recipe, sort_keys=True), "attributes": {**tiles.settings, "name": tiles.slide}},
    )


def _features(path: Path, region: str, tiles: Tiles) -> None:
    """A SpatialData table: its rows name the shapes they belong to."""
    import pandas
    import zarr
    from anndata.io import write_elem

    table = _table(tiles)
    rows = len(table)
    table.obs["tile_id"] = np.arange(rows)
    table.obs["library_id"] = pandas.Categorical([region] * rows, categories=[region])
    link = {"region": region, "region_key": "library_id", "instance_key": "tile_id"}
    table.uns["spatialdata_attrs"] = link
    # `write_zarr` would add consolidated metadata, which is no part of the format.
    write_elem(zarr.open_group(path.parent, mode="a"), path.name, table)
    zarr.open_group(path, mode="r+").attrs.update(
        {"spatialdata-encoding-type": "ngff:regions_table", "version": "0.2", **link}
    )


def _shapes(path: Path, tiles: Tiles) -> None:
    """A SpatialData element of squares in level-0 pixels, as GeoParquet."""
    import pyarrow
    import pyarrow.parquet
    import shapely

    x, y = tiles.group.spatial.T
    size = tiles.settings["patch_size_level0"]
    columns = {"tile_id": np.arange(len(x)), "x": x, "y": y, "valid": tiles.group.valid}
    squares = shapely.to_wkb(shapely.box(x, y, x + size, y + size))
    table = pyarrow.table({**columns, "geometry": pyarrow.array(squares, pyarrow.binary())})
    geometry = {"encoding": "WKB", "crs": None, "geometry_types": ["Polygon"]}
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": geometry}}
    path.mkdir(parents=True)
    pyarrow.parquet.write_table(table.replace_schema_metadata({"geo": json.dumps(geo)}), path / "shapes.parquet")
    axes = [{"name": axis, "type": "space", "unit": "unit"} for axis in "xy"]
    same = {"type": "identity", "input": {"name": "xy", "axes": axes}, "output": {"name": "global", "axes": axes}}
    attributes = {"encoding-type": "ngff:shapes", "axes": ["x", "y"], "coordinateTransformations": [same]}
    (path / "zarr.json").write_bytes(group_node({**attributes, "spatialdata_attrs": {"version": "0.3"}}))


def _tile_specification(settings: dict[str, Any]) -> dict[str, Any]:
    """A tile as LazySlide's `TileSpec` names it, cut from level 0."""
    size = settings["patch_size"]
    step, downsample = size - settings["overlap"], settings["tile_mpp"] / settings["mpp"]
    return {
        **dict.fromkeys(("height", "width"), size),
        **dict.fromkeys(("stride_height", "stride_width"), step),
        **dict.fromkeys(("ops_level", "base_level"), 0),
        **dict.fromkeys(("ops_downsample", "base_downsample"), downsample),
        "mpp": settings["tile_mpp"],
        "tissue_name": None,
    }
