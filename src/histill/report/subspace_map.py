"""A slide with its tiles coloured by subspace and shaded by weight, as a small PNG."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from histill.data.geometry import tile_step
from histill.errors import HistillError
from histill.provenance import read_json

# Vermilion and blue of Okabe & Ito, as in the figures; further ones for further subspaces.
COLOURS = ((213, 94, 0), (0, 114, 178), (0, 158, 115), (204, 121, 167))
MAX_BYTES = 200_000
_SIDES = (420, 340, 270, 200, 140)  # pixels of a panel's longer side, tried in turn until the picture is small enough
_COLOURS = 128  # of the palette
_GAP = 16  # pixels between panels
_FAINT = 0.25  # opacity of a tile without weight
_FULL = 0.98  # quantile of the weights from which a tile is opaque
_PALE = 0.45  # contrast that is left of the tissue below


@dataclass(frozen=True)
class Layer:
    """Tiles of a slide at one magnification.

    Attributes
    ----------
    origins
        Level-0 pixels of the top-left corners [N, 2].
    assignment
        Share in each subspace [N, K].
    weights
        Attention weight in each subspace [N, K].
    """

    origins: np.ndarray
    assignment: np.ndarray
    weights: np.ndarray


def drawable(layer: Layer) -> bool:
    """Whether the tiles have places: features made elsewhere may have none."""
    return len(np.unique(layer.origins, axis=0)) > 1


def draw_map(folder: Path, layers: list[Layer]) -> dict[str, Any]:
    """Panels of the magnifications side by side, cut to where the tiles are.

    A tile's colour mixes those of the subspaces by its shares, and it is the more opaque the more it weighs in the
    subspaces it belongs to. Below it lies the overview in grey, where the slide has one.

    Parameters
    ----------
    folder
        `results/slides/<slide>`; need not exist.

    Returns
    -------
    `uri` (PNG data URI of less than 200 kB), `width`, `height`.
    """
    steps = [tile_step(layer.origins.astype(np.float64)) for layer in layers]
    low = np.min([layer.origins.min(axis=0) - step for layer, step in zip(layers, steps, strict=True)], axis=0)
    high = np.max([layer.origins.max(axis=0) + 2 * step for layer, step in zip(layers, steps, strict=True)], axis=0)
    overview = None
    if (folder / "overview.jpg").exists():
        info = read_json(folder / "slide.json")
        extent = np.array([info["width"], info["height"]])
        low, high = np.maximum(low, 0), np.minimum(high, extent)
        overview = _cut(folder / "overview.jpg", low / extent, high / extent)
    for side in _SIDES:
        scale = side / max(high - low)
        size = np.maximum(1, np.round((high - low) * scale)).astype(int)
        panels = [
            _panel(_background(overview, size), layer, step, low, scale)
            for layer, step in zip(layers, steps, strict=True)
        ]
        gap = np.full((size[1], _GAP, 3), 255, np.uint8)
        joined = np.hstack([part for panel in panels for part in (panel, gap)][:-1])
        content = _png(joined)
        if len(content) < MAX_BYTES:
            break
    uri = "data:image/png;base64," + base64.b64encode(content).decode()
    return {"uri": uri, "width": joined.shape[1], "height": joined.shape[0]}


def _cut(path: Path, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The part of an overview between two corners (x, y), in shares of the slide, as lightness [h, w]."""
    import cv2

    picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if picture is None:
        raise HistillError(f"{path} is no readable picture", mend="delete it; run: snakemake report")
    size = np.array(picture.shape[::-1])
    left, top = np.minimum(np.floor(low * size).astype(int), size - 1)
    right, bottom = np.maximum(np.ceil(high * size).astype(int), (left + 1, top + 1))
    return picture[top:bottom, left:right]


def _background(overview: np.ndarray | None, size: np.ndarray) -> np.ndarray:
    import cv2

    if overview is None:
        return np.full((size[1], size[0], 3), 255.0)
    resized = cv2.resize(overview, (int(size[0]), int(size[1])), interpolation=cv2.INTER_AREA)
    pale = 255 - _PALE * (255 - resized.astype(np.float64))
    return np.repeat(pale[..., None], 3, axis=2)


def _panel(below: np.ndarray, layer: Layer, step: np.ndarray, low: np.ndarray, scale: float) -> np.ndarray:
    """The picture [h, w, 3] uint8 of one magnification."""
    share = layer.assignment / np.maximum(layer.assignment.sum(axis=1, keepdims=True), 1e-6)
    colours = share @ np.array(COLOURS[: share.shape[1]], dtype=np.float64)
    heavy = np.maximum(np.quantile(layer.weights, _FULL, axis=0), np.finfo(np.float64).tiny)
    weight = (share * np.minimum(1.0, layer.weights / heavy)).sum(axis=1)
    opacity = _FAINT + (1 - _FAINT) * weight
    corners = np.round((layer.origins - low) * scale).astype(int)
    ends = np.maximum(np.round((layer.origins + step - low) * scale).astype(int), corners + 1)
    for (left, top), (right, bottom), colour, alpha in zip(corners, ends, colours, opacity, strict=True):
        below[top:bottom, left:right] += alpha * (colour - below[top:bottom, left:right])
    return below.round().astype(np.uint8)


def _png(picture: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).quantize(_COLOURS).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
