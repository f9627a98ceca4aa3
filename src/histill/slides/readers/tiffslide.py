"""Slides through tiffslide: tiled TIFF that OpenSlide refuses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from histill.errors import SlideError
from histill.slides.readers.base import Reader
from histill.slides.readers.icc import of_tag
from histill.slides.readers.request import Window


class TiffSlideReader(Reader):
    """Reads with tiffslide."""

    name = "tiffslide"

    def doubt(self) -> str | None:
        if not self._tiled:
            return "the picture is not tiled; it would decode whole strips for every tile"
        return "it would decode the tiles of a pyramid in SubIFDs anew for every region" if self._subifds else None

    def _new_handle(self) -> Any:
        from tiffslide import TiffSlide

        return TiffSlide(self.path)

    def _describe(self, handle: Any) -> list[tuple[int, int]]:
        self.properties = {str(key): str(value) for key, value in handle.properties.items() if value is not None}
        self.vendor = self.properties.get("tiffslide.vendor", "generic-tiff")
        self._stated = [float(value) for value in handle.level_downsamples]
        page = handle.ts_tifffile.pages.first
        self._tiled, self._subifds = page.is_tiled, bool(page.subifds)
        axes = self.properties.get("tiffslide.series-axes", "YXS")
        if axes != "YXS" or page.samplesperpixel not in (3, 4) or page.dtype != np.uint8:
            raise SlideError(
                f"its pixels are {page.dtype}, {page.samplesperpixel} a pixel, axes {axes}: not 8-bit RGB",
                mend="convert the slide to 8-bit RGB, or leave it out",
            )
        if page.samplesperpixel == 4 and 1 in page.extrasamples:  # it would take colours for straight ones
            raise SlideError("its colours are multiplied with its alpha", mend="set slides.reader: tifffile")
        return [(int(width), int(height)) for width, height in handle.level_dimensions]

    def _read_level(self, handle: Any, index: int, window: Window) -> tuple[np.ndarray, tuple[float, float]]:
        # tiffslide divides the location by its own downsample and rounds down.
        scale = self._stated[index]
        location = math.ceil(window.left * scale - 1e-6), math.ceil(window.top * scale - 1e-6)
        location = tuple(
            place + (int(place / scale) < edge) for place, edge in zip(location, (window.left, window.top), strict=True)
        )
        size = window.right - window.left, window.bottom - window.top
        return np.asarray(handle.read_region(location, index, size, as_array=True)), (window.left, window.top)

    def _profile(self, handle: Any) -> bytes | None:
        return of_tag(handle.ts_tifffile.pages.first.tags.get("InterColorProfile"))
