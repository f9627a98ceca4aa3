"""Slides through OpenSlide: most scanners' own formats."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from histill.errors import SlideError
from histill.slides.readers.direct import DirectTiles
from histill.slides.readers.icc import BROKEN
from histill.slides.readers.pages import pages_of_sizes
from histill.slides.readers.request import Window
from histill.slides.readers.tiled import TiledReader

_GENERIC = "generic-tiff"
_PLAIN = ("aperio", _GENERIC)  # formats whose levels are pages of the TIFF as they are
_MEND = "convert the slide to a pyramidal 8-bit RGB TIFF (vips tiffsave --pyramid --tile), or leave it out"


class OpenSlideReader(TiledReader):
    """Reads with OpenSlide; plain tiles of a TIFF are decoded past it, to the same pixels."""

    name = "openslide"

    def doubt(self) -> str | None:
        if self.vendor != _GENERIC or len(self.levels) > 1:
            return None
        import tifffile

        try:
            with tifffile.TiffFile(self.path) as file:
                hidden = bool(file.pages.first.subifds)
        except (tifffile.TiffFileError, OSError, ValueError):
            return None
        return "it sees one level of a file that keeps its pyramid in SubIFDs" if hidden else None

    def _new_handle(self) -> Any:
        import openslide

        return openslide.OpenSlide(self.path)

    def _describe(self, handle: Any) -> list[tuple[int, int]]:
        self.properties = {str(key): str(value) for key, value in handle.properties.items()}
        self.vendor = self.properties.get("openslide.vendor", "unknown")
        if self.vendor == _GENERIC and (found := _no_slide(self.path)):
            raise SlideError(found, mend=_MEND)
        self._stated = [float(value) for value in handle.level_downsamples]
        sizes = [(int(width), int(height)) for width, height in handle.level_dimensions]
        if self.vendor in _PLAIN:
            self._tiles = DirectTiles(self.path, pages_of_sizes(self.path, sizes), "OpenSlide", self._cache, self.notes)
        return sizes

    def _read_level(self, handle: Any, index: int, window: Window) -> tuple[np.ndarray, tuple[float, float]]:
        # OpenSlide takes level-0 locations, divides them by its own downsample, and draws the level shifted by the
        # fraction that is left. Where that is no whole number the pixels returned start between those of the level.
        scale = self._stated[index]
        x, y = round(window.left * scale), round(window.top * scale)
        origin = x / scale, y / scale
        # A pixel that reaches beyond the level would be drawn half transparent.
        width = max(1, math.floor(min(window.right, self.levels[index].width - origin[0] + window.left)) - window.left)
        height = max(1, math.floor(min(window.bottom, self.levels[index].height - origin[1] + window.top)) - window.top)
        return np.asarray(handle.read_region((x, y), index, (width, height))), origin

    def _profile(self, handle: Any) -> bytes | None:
        from PIL import ImageCms

        try:
            profile = handle.color_profile
        except ImageCms.PyCMSError:  # OpenSlide hands over the profile parsed
            return BROKEN
        return None if profile is None else profile.tobytes()


def _no_slide(path: Path) -> str | None:
    """What a TIFF is that OpenSlide would give in part without a word: a stack, or of more than 8 bits; else None."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            bits = max(page.bitspersample) if isinstance(page.bitspersample, tuple) else page.bitspersample
            if bits > 8:
                return f"its pixels are of {bits} bits a channel: not 8-bit"
            series = file.series[0] if file.is_ome else None
            if series is not None and len(series.levels[0].pages) > 1:
                return f"it is a stack of axes {series.axes}, shape {series.shape}, of which it sees the first page"
    except Exception:  # what tifffile cannot make out OpenSlide may
        return None
    return None
