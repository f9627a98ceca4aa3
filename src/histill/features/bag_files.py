"""Bags of tile features made by other tools, checked: HDF5 and AnnData files (`hdf5_bags`), tensors (`tensor_bags`)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from histill.cohort.sheets import Slide
from histill.errors import SlideError
from histill.features import hdf5_bags, tensor_bags
from histill.features.bag_source import Source
from histill.magnifications import MAGNIFICATIONS

TENSOR_SUFFIXES = (".pt", ".pth")
MAX_BYTES = 8 << 30  # of a bag: 500,000 tiles of 4,096 float32
_BOMB_BYTES, _BOMB_RATIO = 64 << 20, 100  # no features are compressed as much as that
_NEAR, _SAME = 0.2, 0.02  # how far tiles may be from a magnification at all, and without a word


@dataclass
class Bag:
    """A bag as it is imported.

    Attributes
    ----------
    x
        Features float32 [N, D]; rows that are not valid are zeros.
    spatial
        Level-0 pixels of each tile's top-left corner [N, 2], int64; −1 where the file has none.
    valid
        Rows without a value that is not finite [N], bool.
    attributes
        Settings the file came with.
    magnification
        `10x` or `20x`.
    """

    x: np.ndarray
    spatial: np.ndarray
    valid: np.ndarray
    attributes: dict[str, Any]
    magnification: str
    warnings: list[str] = field(default_factory=list)


def peek(slide: Slide, name: str) -> tuple[int | None, str | None]:
    """Feature dimension and magnification of a file; None for what cannot be told, which reading it then explains."""
    dim = None
    try:
        with _opened(slide, name) as source:
            dim = int(source.features.shape[-1]) if len(source.features.shape) else None
            return dim, level(slide, source.attributes)[0]
    except (OSError, SlideError):
        return dim, None


def read_bag(slide: Slide, name: str) -> Bag:
    """Read and check the bag of a slide.

    Parameters
    ----------
    name
        Of the import: chooses among the encoders of a file with several (`hdf5_bags`).

    Raises
    ------
    SlideError
        Naming the file, the array and the mend.
    """
    with _opened(slide, name) as source:
        shape, coords_shape = _check_shapes(slide.path, source)
        magnification, warning = level(slide, source.attributes)
        try:
            x, coords = source.features[...], None if source.coords is None else source.coords[...]
        except (OSError, RuntimeError) as error:
            raise SlideError(
                f"{slide.path}: '{source.key}' cannot be read: {error}", mend="copy or export it again"
            ) from None
    warnings = [warning] if warning else []
    if coords is None:
        warnings.append("the file has no coordinates: no map can be drawn of this slide")
        spatial = np.full((shape[0], 2), -1, np.int64)
    else:
        spatial = _level0(slide, np.asarray(coords).reshape(coords_shape)[:, :2], source.attributes)
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and flagged as such
        x = np.asarray(x).reshape(shape).astype(np.float32)
    finite = np.isfinite(x).all(axis=1)
    if not finite.all():
        warnings.append(f"{(~finite).sum()} of {len(x)} rows hold a value that is not finite")
    valid = finite if source.valid is None else finite & source.valid
    if (finite & ~valid).any():
        warnings.append(f"{(finite & ~valid).sum()} of {len(x)} rows are flagged as unreadable in the file")
    x[~valid] = 0
    return Bag(x, spatial, valid, source.attributes, magnification, warnings)


@contextlib.contextmanager
def _opened(slide: Slide, name: str) -> Iterator[Source]:
    reader = tensor_bags if Path(slide.path).suffix.lower() in TENSOR_SUFFIXES else hdf5_bags
    with reader.opened(slide.path, name) as source:
        yield source


def _check_shapes(path: str, source: Source) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Shapes [N, D] and [N, 2 or more] of a file's arrays, of which nothing has been read yet."""
    arrays = {source.key: source.features, "coords": source.coords}
    shapes = {}
    for key, array in arrays.items():
        if array is None:
            shapes[key] = None
            continue
        if array.dtype.kind not in "fiu":
            raise SlideError(f"{path}: '{key}' is of type {array.dtype}, not numbers", mend="export it as float32")
        shapes[key] = tuple(array.shape[1:] if len(array.shape) == 3 and array.shape[0] == 1 else array.shape)
    shape, coords = shapes.values()
    if len(shape) == 1:
        raise SlideError(
            f"{path}: '{source.key}' has shape {shape}: one vector of the whole slide, no bag of tiles",
            mend="import slide vectors as a table (features.source: table)",
        )
    if len(shape) != 2 or (
        coords is not None and (len(coords) != 2 or coords[1] not in (2, 5) or coords[0] != shape[0])
    ):
        raise SlideError(
            f"{path}: '{source.key}' has shape {shape} and 'coords' {coords}; wanted are [N, D] and [N, 2]",
            mend="export both for the same tiles",
        )
    if shape[1] == 0:
        raise SlideError(f"{path}: '{source.key}' has no columns (shape {shape})", mend="extract the slide again")
    size = shape[0] * shape[1] * max(4, source.features.dtype.itemsize)
    if size > MAX_BYTES:
        raise SlideError(
            f"{path}: '{source.key}' says it has shape {shape}, which is {size / 2**30:.0f} GiB; up to "
            f"{MAX_BYTES >> 30} GiB are read",
            mend="check the file; a slide has no more than some 100,000 tiles",
        )
    if source.stored is not None and size > max(_BOMB_BYTES, _BOMB_RATIO * source.stored):
        raise SlideError(
            f"{path}: '{source.key}' says it has shape {shape}, but holds {source.stored} bytes",
            mend="its writing was cut off, or it holds nothing but one value: extract the slide again",
        )
    return shape, coords


def _level0(slide: Slide, coords: np.ndarray, attributes: dict[str, Any]) -> np.ndarray:
    """Coordinates as level-0 pixels; micrometres (STAMP) need the slide's mpp from the sheet."""
    if not np.isfinite(coords).all():
        raise SlideError(f"{slide.path}: a coordinate is not finite", mend="export the coordinates again")
    if attributes.get("unit") == "um":
        if slide.mpp is None:
            raise SlideError(
                f"{slide.path}: coords are in µm (attribute unit), and the slide's resolution is not known",
                mend="give the slide's mpp in the sheet",
            )
        coords = coords / slide.mpp
    elif not np.array_equal(coords, np.round(coords)):
        raise SlideError(
            f"{slide.path}: coords are fractions (first: {coords[0].tolist()}), not level-0 pixels",
            mend="export level-0 pixels, or micrometres with the attribute unit = 'um'",
        )
    if len(coords) and np.abs(coords.astype(np.float64)).max() > np.iinfo(np.int32).max:
        raise SlideError(
            f"{slide.path}: a coordinate is {np.abs(coords.astype(np.float64)).max():.3g}, beyond any slide",
            mend="export level-0 pixels",
        )
    return np.round(coords).astype(np.int64)


def level(slide: Slide, attributes: dict[str, Any]) -> tuple[str, str | None]:
    """Magnification of a bag (`10x`, `20x`), and a warning where it had to be assumed.

    From `target_magnification` (TRIDENT, AtlasPatch, histill), else from the µm per pixel of the tiles: LazySlide says
    it in the tile specification, STAMP as the ratio of `tile_size_um` and `tile_size_px`, CLAM as the `downsample`
    of a level of a slide whose mpp is in the sheet.
    """
    target = attributes.get("target_magnification")
    names = {float(name.rstrip("x")): name for name in MAGNIFICATIONS}
    if target is not None:
        try:
            return names[float(str(target).lower().rstrip("x"))], None
        except (ValueError, KeyError):
            raise SlideError(
                f"{slide.path}: target_magnification is {target!r}; histill's bags are 10x or 20x",
                mend="extract at 10x or 20x",
            ) from None
    mpp = _tile_mpp(slide, attributes)
    if mpp is None:
        return "20x", "no attribute target_magnification: taken for 20x"
    name, wanted = min(MAGNIFICATIONS.items(), key=lambda item: abs(np.log(mpp / item[1])))
    if abs(mpp / wanted - 1) > _NEAR:
        raise SlideError(
            f"{slide.path}: its tiles are of {mpp:.3g} µm per pixel; histill's bags are 10x (1.0) or 20x (0.5)",
            mend="extract at 10x or 20x",
        )
    near = abs(mpp / wanted - 1) <= _SAME
    return name, None if near else f"tiles of {mpp:.3g} µm per pixel are taken for {name} ({wanted:g})"


def _tile_mpp(slide: Slide, attributes: dict[str, Any]) -> float | None:
    try:
        if "tile_spec_mpp" in attributes:
            mpp = float(attributes["tile_spec_mpp"])
        elif {"tile_size_um", "tile_size_px"} <= attributes.keys():
            mpp = float(attributes["tile_size_um"]) / float(attributes["tile_size_px"])
        elif "downsample" in attributes and slide.mpp is not None:
            downsample = np.ravel(attributes["downsample"])[0] * float(attributes.get("custom_downsample", 1))
            mpp = slide.mpp * float(downsample)
        else:
            return None
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return mpp if np.isfinite(mpp) and mpp > 0 else None
