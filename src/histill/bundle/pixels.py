"""What is shown of a slide's own pixels: the surroundings of its tissue, and single tiles.

Label and macro images are never opened; a label that the scanner took along lies outside of what is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from histill import isolation
from histill.errors import SlideError
from histill.slides.examine import open_as_config
from histill.slides.readers import SlideReader

SIDE = 8192  # pixels of the picture's longer side at most: what a browser still zooms smoothly
BYTES = 12_000_000  # of the picture's JPEG; in a page it takes a third more
MARGIN_UM = 500.0  # around the tissue
_STRIP = 256  # rows of the picture that are read at once
_QUALITIES = (88, 80, 70, 60)
AGAIN = "run histill predict again"


class Window(NamedTuple):
    """A part of a slide, in level-0 pixels."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Pixels:
    """Pixels of a slide as JPEG.

    Attributes
    ----------
    window
        What the picture shows.
    picture
        The surroundings of the tissue.
    tiles
        (magnification, row in tiles.parquet) -> the tile at its magnification.
    """

    window: Window
    picture: bytes
    tiles: dict[tuple[str, int], bytes]


def window_around(
    bounds: tuple[float, float, float, float], dimensions: tuple[int, int], mpp: tuple[float, float]
) -> Window:
    """The part of a slide around its tissue.

    Parameters
    ----------
    bounds
        Of the tissue: left, top, right, bottom in level-0 pixels.
    dimensions, mpp
        (x, y) of level 0.
    """
    margin = MARGIN_UM / mpp[0], MARGIN_UM / mpp[1]
    low = [max(0, int(bounds[axis] - margin[axis])) for axis in (0, 1)]
    high = [min(dimensions[axis], int(bounds[axis + 2] + margin[axis]) + 1) for axis in (0, 1)]
    return Window(*low, high[0] - low[0], high[1] - low[1])


def read_pixels(
    path: str | Path,
    reader: str,
    window: Window,
    wanted: dict[tuple[str, int], np.ndarray],
    config: dict[str, Any],
) -> Pixels:
    """Read a picture and some tiles of a slide, in a process of its own and within the limits of `slides`.

    Parameters
    ----------
    reader
        That the slide was inspected with.
    wanted
        (magnification, row) -> x, y, width, height of tiles in level-0 pixels.
    config
        Complete config; read: `slides`, `tiles.size`.

    Raises
    ------
    SlideError
        If the slide cannot be read.
    """
    own = {**config, "slides": {**config["slides"], "reader": reader}}
    work = partial(_read, Path(path), window, wanted, own)
    return isolation.call(work, **isolation.limits(config), what=f"{path}: reading pictures", again=AGAIN)


def decode(jpeg: bytes) -> np.ndarray:
    """A picture of `Pixels` as uint8 RGB [H, W, 3]."""
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def _read(path: Path, window: Window, wanted: dict[tuple[str, int], np.ndarray], config: dict[str, Any]) -> Pixels:
    side = config["tiles"]["size"]
    with open_as_config(path, config) as reader:
        tiles = {key: _jpeg(reader.read_region(*box.tolist(), side, side)) for key, box in wanted.items()}
        picture = _picture(reader, window)
    return Pixels(window, _small_enough(picture), tiles)


def _picture(reader: SlideReader, window: Window) -> np.ndarray:
    """The window with up to `SIDE` pixels a side; a level of the slide is taken as it is where one is near that."""
    least = max(1.0, window.width / SIDE, window.height / SIDE)
    near = [level.downsample for level in reader.levels if least <= level.downsample <= 2 * least]
    downsample = min(near, default=least)
    width, height = max(1, round(window.width / downsample)), max(1, round(window.height / downsample))
    picture = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, _STRIP):
        bottom = min(height, top + _STRIP)
        low, high = (window.y + round(row * window.height / height) for row in (top, bottom))
        picture[top:bottom] = reader.read_region(window.x, low, window.width, high - low, width, bottom - top)
    return picture


def _small_enough(picture: np.ndarray) -> bytes:
    """As JPEG of no more than `BYTES`: first of lower quality, then of fewer pixels."""
    while True:
        for quality in _QUALITIES:
            content = _jpeg(picture, quality)
            if len(content) <= BYTES:
                return content
        picture = cv2.resize(picture, None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA)


def _jpeg(rgb: np.ndarray, quality: int = _QUALITIES[0]) -> bytes:
    done, content = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise SlideError(f"a picture of {rgb.shape[1]} × {rgb.shape[0]} pixels cannot be written as JPEG")
    return content.tobytes()
