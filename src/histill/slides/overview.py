"""The slide's overview: read from the slide in bands, kept as JPEG, read back."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from histill.errors import SlideError
from histill.provenance import atomic_file
from histill.slides.readers import LEVEL_TOLERANCE, SlideReader

_BAND_PIXELS = 1 << 24  # pixels of a level held at once
_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 92, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]


def read_overview(reader: SlideReader, mpp: tuple[float, float], target: float) -> np.ndarray:
    """The whole slide at about `target` µm per pixel.

    Read in bands, so that a slide without coarse levels needs no more memory than another.

    Parameters
    ----------
    mpp
        (x, y) of level 0.

    Returns
    -------
    uint8 RGB array [height * mpp_y / target, width * mpp_x / target, 3], rounded, at least one pixel a side.
    """
    width, height = reader.dimensions
    out_width, out_height = max(1, round(width * mpp[0] / target)), max(1, round(height * mpp[1] / target))
    fine = [level.downsample for level in reader.levels if level.downsample <= width / out_width * LEVEL_TOLERANCE]
    row_pixels = (width / max(fine, default=1.0)) * (height / out_height / max(fine, default=1.0))
    step = max(1, int(_BAND_PIXELS / row_pixels))
    picture = np.empty((out_height, out_width, 3), np.uint8)
    for top in range(0, out_height, step):
        bottom = min(top + step, out_height)
        y0, y1 = round(top * height / out_height), round(bottom * height / out_height)
        picture[top:bottom] = reader.read_region(0, y0, width, max(1, y1 - y0), out_width, bottom - top)
    return picture


def write_overview(path: Path, rgb: np.ndarray) -> None:
    """Write the overview as JPEG without chroma subsampling: quality flags are read from its colours."""
    done, encoded = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), _JPEG)
    if not done:
        raise SlideError(f"{path}: the overview of {rgb.shape[1]} × {rgb.shape[0]} pixels cannot be written as JPEG")
    with atomic_file(path) as part:
        part.write_bytes(encoded.tobytes())


def read_picture(path: Path) -> np.ndarray:
    """The overview as uint8 RGB [H, W, 3]."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise SlideError(f"{path}: is missing or no picture", mend="run: snakemake -R tissue_batch")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
