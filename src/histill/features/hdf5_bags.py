"""Bags in HDF5, as TRIDENT, CLAM, STAMP, AtlasPatch and histill write them, and AnnData tables (.h5ad).

| made by | features | coordinates | settings |
|---|---|---|---|
| TRIDENT | `features` [N, D] | `coords` [N, 2], level 0 | attributes of `coords` |
| CLAM | `features` | `coords` | attributes of `coords` of `../patches/<name>.h5` |
| STAMP | `feats` | `coords` in µm | attributes of the file |
| AtlasPatch | `features/<encoder>` | `coords` [N, 5], x and y first | attributes of the file |
| AnnData | `X` | `obsm/spatial` | `uns/attributes`, or LazySlide's `uns/tile_spec` |
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from histill.errors import SlideError
from histill.features.bag_source import Source

FEATURE_KEYS = ("features", "feats")
_SHORT_ATTRIBUTE = 16  # values; longer attributes are data, not settings


@contextlib.contextmanager
def opened(path: str | Path, name: str) -> Iterator[Source]:
    """Open a file. Among several encoders the one is taken that `name` is, or ends with after a hyphen."""
    try:
        handle = h5py.File(path)
    except OSError as error:
        raise SlideError(f"{path} cannot be opened as HDF5: {error}", mend="copy or export it again") from None
    with handle:
        try:
            source = _table(path, handle) if _is_table(handle) else _bag(path, handle, name)
        except (OSError, RuntimeError, KeyError, TypeError) as error:  # what h5py says of damaged links and types
            raise SlideError(f"{path} is damaged: {error}", mend="copy or export it again") from None
        yield source


def companion(path: str | Path) -> Path | None:
    """The file of settings that CLAM writes beside a file of features; None where there is none."""
    patches = Path(path).parent.with_name("patches") / Path(path).name
    return patches if Path(path).parent.name == "h5_files" and patches.is_file() else None


def _bag(path: str | Path, handle: h5py.File, name: str) -> Source:
    key = next((key for key in FEATURE_KEYS if _array(path, handle, key) is not None), None)
    if key is None and isinstance(_item(path, handle, "features"), h5py.Group):
        key = _encoder(path, handle, name)
    coords = _array(path, handle, "coords")
    if key is None or coords is None:
        wanted = "'features' or 'feats'" if key is None else "'coords'"
        raise SlideError(
            f"{path} has no array {wanted}; its keys are {', '.join(handle) or 'none'}",
            mend="export features [N, D] and coords [N, 2] (level-0 pixels)",
        )
    features = _array(path, handle, key)
    attributes = _attributes(handle, coords, features)
    patches = companion(path)
    if patches is not None:
        with h5py.File(patches) as other:
            listed = _array(patches, other, "coords")
            attributes = {**({} if listed is None else _attributes(listed)), **attributes}
    return Source(key, features, coords, attributes, stored=features.id.get_storage_size())


def _encoder(path: str | Path, handle: h5py.File, name: str) -> str:
    encoders = [key for key in handle["features"] if _array(path, handle, f"features/{key}") is not None]
    chosen = [key for key in encoders if name == key or name.endswith(f"-{key}")] if len(encoders) != 1 else encoders
    if not chosen:
        raise SlideError(
            f"{path} holds features of {', '.join(encoders) or 'no encoder'}, and '{name}' says of none of them which",
            mend="name the import (features.encoder, --name) after one, such as "
            f"'atlaspatch-{encoders[0] if encoders else 'uni'}'",
        )
    return f"features/{max(chosen, key=len)}"


def _is_table(handle: h5py.File) -> bool:
    return handle.attrs.get("encoding-type") in ("anndata", b"anndata")


def _table(path: str | Path, handle: h5py.File) -> Source:
    features, coords = _array(path, handle, "X"), _array(path, handle, "obsm/spatial")
    if features is None or coords is None:
        raise SlideError(
            f"{path}: the table has no {'dense X' if features is None else 'coordinates in obsm/spatial'}",
            mend="export features as a dense X [N, D] and obsm['spatial'] [N, 2] (level-0 pixels)",
        )
    attributes = _values(path, handle, "uns/attributes")
    spec = _values(path, handle, "uns/tile_spec")
    if "mpp" in spec:
        attributes.setdefault("tile_spec_mpp", spec["mpp"])
    valid = _array(path, handle, "obs/valid")
    if valid is not None and (valid.dtype != bool or valid.shape != features.shape[:1]):
        raise SlideError(f"{path}: obs/valid is no column of booleans", mend="export the table again")
    flags = None if valid is None else valid[:]
    return Source("X", features, coords, attributes, valid=flags, stored=features.id.get_storage_size())


def _item(path: str | Path, handle: h5py.Group, key: str) -> Any:
    """What lies at a key, or None; never what lies in another file."""
    place = handle
    for part in key.split("/"):
        if not isinstance(place, h5py.Group) or part not in place.keys():  # noqa: SIM118  `in place` follows links
            return None
        if isinstance(place.get(part, getlink=True), h5py.ExternalLink):
            raise SlideError(f"{path}: '{key}' is a link to another file", mend="export the array itself")
        place = place.get(part)
    return place


def _array(path: str | Path, handle: h5py.Group, key: str) -> h5py.Dataset | None:
    found = _item(path, handle, key)
    if not isinstance(found, h5py.Dataset) or found.ndim == 0:
        return None
    if found.external or found.is_virtual:
        raise SlideError(f"{path}: the values of '{key}' lie in another file", mend="export the array itself")
    return found


def _values(path: str | Path, handle: h5py.File, key: str) -> dict[str, Any]:
    """Single values of a mapping in `uns`."""
    group = _item(path, handle, key)
    if not isinstance(group, h5py.Group):
        return {}
    values = {name: _item(path, group, name) for name in group}
    single = {name: item[()] for name, item in values.items() if isinstance(item, h5py.Dataset) and item.ndim == 0}
    return _plain_values(single)


def _attributes(*items: h5py.HLObject) -> dict[str, Any]:
    """Attributes that JSON can hold; those of the first item go first."""
    found: dict[str, Any] = {}
    for item in items:
        found = {**_plain_values(dict(item.attrs)), **found}
    return found


def _plain_values(values: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for key, value in values.items():
        plain = value.decode(errors="replace") if isinstance(value, bytes) else np.asarray(value).tolist()
        if isinstance(plain, list) and (len(plain) > _SHORT_ATTRIBUTE or not all(map(_plain, plain))):
            continue
        if isinstance(plain, list) or _plain(plain):
            found[key] = plain
    return found


def _plain(value: Any) -> bool:
    return isinstance(value, (str, bool, int)) or (isinstance(value, float) and np.isfinite(value))
