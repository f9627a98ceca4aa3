"""Tissue by a learned model, config `tissue.method: deeplabv3`: the public segmenter of HEST, or weights of that shape.

torchvision's deeplabv3_resnet50 with two classes (1 is tissue) reads the slide at 1 µm per pixel in overlapping tiles;
of each only the middle counts, so that no seam shows. Its probabilities are averaged into the pixels of the overview.
Jaume et al., HEST-1k: a dataset for spatial transcriptomics and histology image analysis, NeurIPS 2024.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np

from histill import device
from histill.errors import SlideError
from histill.slides import colour, morphology
from histill.slides.illumination import find_glass
from histill.slides.readers import SlideReader
from histill.slides.tissue import Tissue
from histill.slides.tissue_weights import Weights, load_model

if TYPE_CHECKING:
    import torch

MPP = 1.0  # µm per pixel
SIDE_UM = 512  # a tile's side; pixels as well
MARGIN_UM = 64  # of a tile's side that its neighbour judges better
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, which the model was made with
BARE_DENSITY = 0.03  # where no pixel of the overview exceeds it, there is glass; a pale stain has twice that
_BATCH = {"cuda": 16, "cpu": 2}


class _Box(NamedTuple):
    """A tile in pixels of the overview (left, top, right, bottom): where it is read, and the part of it that counts."""

    read: tuple[int, int, int, int]
    core: tuple[int, int, int, int]


def find_tissue(reader: SlideReader, overview: np.ndarray, options: dict[str, Any], weights: Weights) -> Tissue:
    """Find tissue with the model.

    Parameters
    ----------
    overview
        The whole slide at `tissue.mpp`, uint8 [H, W, 3]; tiles where it shows nothing but glass or black are not read.
    options
        Config `tissue`: `mpp`, `device`, `min_area_mm2`, `min_hole_mm2`.
    weights
        Of `tissue_weights.prepare`.

    Returns
    -------
    The mask has the overview's size.
    """
    mpp, pixel_mm2 = options["mpp"], (options["mpp"] / 1000) ** 2
    height, width = overview.shape[:2]
    anything = _not_bare(overview, mpp)
    boxes = [box for box in _boxes(width, height, mpp) if _cut(anything, box.read).any()]
    mask = np.zeros((height, width), np.uint8)
    with device.lease(options["device"]) as place:
        model = load_model(weights).to(place)
        for batch in _batches(boxes, _BATCH[place.type]):
            tiles = np.stack([_read(reader, box.read, (width, height), mpp) for box in batch])
            for box, likely in zip(batch, _tissue_probability(model, tiles, place), strict=True):
                left, top, right, bottom = box.read
                coarse = cv2.resize(likely, (right - left, bottom - top), interpolation=cv2.INTER_AREA)
                x0, y0, x1, y1 = box.core
                mask[y0:y1, x0:x1] = coarse[y0 - top : y1 - top, x0 - left : x1 - left] > 0.5
    mask = morphology.large(mask, options["min_area_mm2"] / pixel_mm2)
    mask = morphology.fill_holes(mask, options["min_hole_mm2"] / pixel_mm2)
    facts = {"weights": weights.digest, "source": weights.source, "device": str(place), "tiles_read": len(boxes)}
    return Tissue(mask.view(bool), facts)


def _boxes(width: int, height: int, mpp: float) -> Iterator[_Box]:
    """Tiles over an overview; their cores cover it without gap or overlap."""
    side = int(SIDE_UM / mpp)
    margin = round(MARGIN_UM / mpp)
    step = side - 2 * margin
    for top in range(0, height, step):
        for left in range(0, width, step):
            core = left, top, min(left + step, width), min(top + step, height)
            yield _Box((left - margin, top - margin, left - margin + side, top - margin + side), core)


def _not_bare(overview: np.ndarray, mpp: float) -> np.ndarray:
    """Where the overview shows more than glass and unlit area, bool [H, W]."""
    glass = find_glass(overview, mpp)
    found = ~colour.dark(overview)
    if glass.order < 0:  # nothing is known to be glass
        return found
    logs = np.log10(np.maximum(np.arange(256, dtype=np.float32), 1))
    for top in range(0, len(overview), 256):
        rows = slice(top, min(top + 256, len(overview)))
        density = glass.rows(rows.start, rows.stop, overview.shape[:2]) - cv2.LUT(overview[rows], logs)
        found[rows] &= colour.highest(density) > BARE_DENSITY
    return found


def _cut(plane: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    left, top, right, bottom = box
    return plane[max(top, 0) : bottom, max(left, 0) : right]


def _read(reader: SlideReader, box: tuple[int, int, int, int], size: tuple[int, int], mpp: float) -> np.ndarray:
    """A tile at 1 µm per pixel, uint8 [S, S, 3]; `box` and `size` in pixels of the overview."""
    scale = np.array(reader.dimensions * 2) / np.array(size * 2)
    left, top, right, bottom = np.rint(np.array(box) * scale).astype(int).tolist()
    side = round((box[2] - box[0]) * mpp / MPP)
    return reader.read_region(left, top, right - left, bottom - top, side, side)


def _tissue_probability(model: torch.nn.Module, tiles: np.ndarray, place: torch.device) -> np.ndarray:
    """Probability of tissue, float32 [N, S, S], of uint8 tiles [N, S, S, 3]."""
    import torch

    with torch.inference_mode(), torch.autocast(place.type, torch.float16, enabled=place.type == "cuda"):
        pixels = torch.from_numpy(tiles).to(place).permute(0, 3, 1, 2).float() / 255
        mean, std = (torch.tensor(values, device=place).view(1, 3, 1, 1) for values in (MEAN, STD))
        scores = model((pixels - mean) / std)["out"].float()
    if not torch.isfinite(scores).all():
        raise SlideError(
            "tissue by deeplabv3: the model's answers are not finite",
            mend="check the weights (tissue.weights), or set tissue.method: colour",
        )
    return torch.softmax(scores, dim=1)[:, 1].cpu().numpy()


def _batches(boxes: list[_Box], size: int) -> Iterator[list[_Box]]:
    for start in range(0, len(boxes), size):
        yield boxes[start : start + size]
