"""Bags of tile features in HDF5, as CLAM, TRIDENT and STAMP write them.

`features` or `feats` [N, D] (also [1, N, D]), `coords` [N, 2], and settings as attributes of the file or its arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from histill.cohort.sheets import Slide
from histill.errors import SlideError

FEATURE_KEYS = ("features", "feats")
GROUPS = {10.0: "10x", 20.0: "20x"}
_SHORT_ATTRIBUTE = 16  # values; longer attributes are data, not settings


def peek(path: str) -> tuple[int | None, str | None]:
    """Feature dimension and group of an HDF5 file; None for what cannot be told, which reading it then explains."""
    import h5py

    dim = None
    try:
        with h5py.File(path) as handle:
            array = next((handle[key] for key in FEATURE_KEYS if _is_array(handle.get(key))), None)
            dim = None if array is None else int(array.shape[-1])
            settings = [item for item in (handle, handle.get("coords"), array) if hasattr(item, "attrs")]
            return dim, level(path, _attributes(*settings))[0]
    except (OSError, SlideError):
        return dim, None


def _is_array(item: Any) -> bool:
    import h5py

    return isinstance(item, h5py.Dataset) and item.ndim > 0


def read_bag(slide: Slide) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Features float32 [N, D], level-0 coordinates int64 [N, 2], and the attributes of file and arrays."""
    import h5py

    try:
        handle = h5py.File(slide.path)
    except OSError as error:
        raise SlideError(f"{slide.path} cannot be opened as HDF5: {error}", mend="copy or export it again") from None
    with handle:
        key = next((key for key in FEATURE_KEYS if _is_array(handle.get(key))), None)
        if key is None or not _is_array(handle.get("coords")):
            wanted = "'features' or 'feats'" if key is None else "'coords'"
            raise SlideError(
                f"{slide.path} has no array {wanted}; its keys are {', '.join(handle) or 'none'}",
                mend="export features [N, D] and coords [N, 2] (level-0 pixels)",
            )
        attributes = _attributes(handle, handle["coords"], handle[key])
        try:
            x, coords = handle[key][:], handle["coords"][:]
        except OSError as error:
            raise SlideError(f"{slide.path} is damaged: {error}", mend="copy or export it again") from None
    x, coords = (array[0] if array.ndim == 3 and len(array) == 1 else array for array in (x, coords))
    if x.ndim != 2 or coords.ndim != 2 or coords.shape[1] != 2 or len(x) != len(coords):
        raise SlideError(
            f"{slide.path}: '{key}' has shape {x.shape} and 'coords' {coords.shape}; wanted are [N, D] and [N, 2]",
            mend="export both for the same tiles",
        )
    for name, array in ((key, x), ("coords", coords)):
        if not (np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)):
            raise SlideError(
                f"{slide.path}: '{name}' is of type {array.dtype}, not numbers", mend="export it as float32"
            )
    if x.shape[1] == 0:
        raise SlideError(f"{slide.path}: '{key}' has no columns (shape {x.shape})", mend="extract the slide again")
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and flagged as such
        x = x.astype(np.float32)
    return x, _level0(slide, coords, attributes), attributes


def _attributes(*items: Any) -> dict[str, Any]:
    """Attributes that JSON can hold; those of the file go first."""
    found: dict[str, Any] = {}
    for item in items:
        for key, value in item.attrs.items():
            plain = value.decode(errors="replace") if isinstance(value, bytes) else np.asarray(value).tolist()
            if isinstance(plain, list) and (len(plain) > _SHORT_ATTRIBUTE or not all(map(_plain, plain))):
                continue
            if isinstance(plain, list) or _plain(plain):
                found.setdefault(key, plain)
    return found


def _plain(value: Any) -> bool:
    return isinstance(value, (str, bool, int)) or (isinstance(value, float) and np.isfinite(value))


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


def level(path: str, attributes: dict[str, Any]) -> tuple[str, str | None]:
    """Group name of a bag's magnification, and a warning where it had to be assumed."""
    target = attributes.get("target_magnification")
    if target is None:
        return "20x", "no attribute target_magnification: taken for 20x"
    try:
        return GROUPS[float(str(target).lower().rstrip("x"))], None
    except (ValueError, KeyError):
        raise SlideError(
            f"{path}: target_magnification is {target!r}; histill's bags are 10x or 20x", mend="extract at 10x or 20x"
        ) from None
