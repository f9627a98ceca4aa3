"""Bags in `.pt` files: a tensor [N, D], or a dict with `features` or `feats` and `coords` [N, 2].

Files are read as tensors and plain values only (`weights_only`): pickled objects can run code, and are refused. A bare
tensor has no coordinates.
"""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from histill.errors import SlideError
from histill.features.bag_source import Source

FEATURE_KEYS = ("features", "feats")


@contextlib.contextmanager
def opened(path: str | Path, name: str) -> Iterator[Source]:
    """Open a file; tensors are mapped, not read. `name` chooses nothing here: a file has one bag."""
    yield _source(path, _load(path))


def _load(path: str | Path) -> Any:
    import torch

    _check_zip(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except OSError as error:
        raise SlideError(f"{path} cannot be read: {error}", mend="copy or export it again") from None
    except Exception as error:  # torch has many kinds of error for a file that is none, or holds objects
        objects = "weights_only" in str(error) or "Unsupported" in str(error)
        raise SlideError(
            f"{path} {'holds Python objects, which are not loaded' if objects else 'is no file of tensors'} "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__})",
            mend="save a tensor, or a dict of tensors 'features' and 'coords', with torch.save",
        ) from None


def _check_zip(path: str | Path) -> None:
    """torch.save packs, but does not compress: what is compressed may unpack to more than memory holds."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise SlideError(f"{path} is compressed, which torch.save never does", mend="save it with torch.save")


def _source(path: str | Path, content: Any) -> Source:
    import torch

    if isinstance(content, torch.Tensor):
        return Source("tensor", _array(path, "tensor", content), None, stored=_stored(content))
    if not isinstance(content, dict):
        raise SlideError(
            f"{path} holds a {type(content).__name__}", mend="save a tensor, or a dict of 'features' and 'coords'"
        )
    key = next((key for key in FEATURE_KEYS if isinstance(content.get(key), torch.Tensor)), None)
    if key is None:
        raise SlideError(
            f"{path} has no tensor 'features' or 'feats'; its keys are {', '.join(map(str, content)) or 'none'}",
            mend="save a dict with features [N, D] and coords [N, 2] (level-0 pixels)",
        )
    coords = content.get("coords")
    if coords is not None and not isinstance(coords, torch.Tensor):
        raise SlideError(f"{path}: 'coords' is a {type(coords).__name__}, no tensor", mend="save it as a tensor")
    settings = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, (str, bool, int, float))}
    settings = {k: v for k, v in settings.items() if not isinstance(v, float) or np.isfinite(v)}
    places = None if coords is None else _array(path, "coords", coords)
    return Source(key, _array(path, key, content[key]), places, settings, stored=_stored(content[key]))


def _stored(tensor: Any) -> int:
    """Bytes behind a tensor, which may show one value many times."""
    return tensor.untyped_storage().nbytes()


def _array(path: str | Path, key: str, tensor: Any) -> Any:
    """A tensor as an array that looks at the file."""
    import torch

    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
        raise SlideError(f"{path}: '{key}' is no dense tensor of numbers", mend="save it as a dense float tensor")
    tensor = tensor.detach()
    return _BFloat(tensor) if tensor.dtype == torch.bfloat16 else tensor.numpy()


class _BFloat:
    """A tensor of a type that numpy has not, as float32 once it is read."""

    dtype = np.dtype(np.float32)

    def __init__(self, tensor: Any):
        self.shape = tuple(tensor.shape)
        self._tensor = tensor

    def __getitem__(self, index: Any) -> np.ndarray:
        return self._tensor.float().numpy()[index]
