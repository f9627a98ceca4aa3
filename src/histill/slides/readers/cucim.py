"""Slides through cuCIM, an optional library (`histill[cucim]`): tiled TIFF, fast, without the need of a GPU."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from histill.errors import SlideError
from histill.slides.readers.base import Reader
from histill.slides.readers.icc import of_tag
from histill.slides.readers.request import Window


class CuCimReader(Reader):
    """Reads with cuCIM on the CPU."""

    name = "cucim"

    def _new_handle(self) -> Any:
        try:
            from cucim import CuImage
        except ImportError:
            raise SlideError(
                "the library cucim is not installed", mend="pip install 'histill[cucim]', or set slides.reader: auto"
            ) from None
        return CuImage(str(self.path))

    def _describe(self, handle: Any) -> list[tuple[int, int]]:
        said = handle.resolutions
        self._stated = [float(value) for value in said["level_downsamples"]]
        metadata = dict(handle.metadata)
        self.vendor = next((name for name in metadata if name not in ("cucim", "tiff")), "generic-tiff")
        self.properties = {f"aperio.{key}": str(value) for key, value in metadata.get("aperio", {}).items()}
        if handle.raw_metadata:
            self.properties["tiff.ImageDescription"] = handle.raw_metadata
        tags = metadata.get("tiff", {})
        for name, key in (("XResolution", "x_resolution"), ("YResolution", "y_resolution")):
            if tags.get(key) and tags.get("resolution_unit"):
                self.properties[f"tiff.{name}"] = str(tags[key])
                self.properties["tiff.ResolutionUnit"] = str(tags["resolution_unit"])
        return [(int(width), int(height)) for width, height in said["level_dimensions"]]

    def _read_level(self, handle: Any, index: int, window: Window) -> tuple[np.ndarray, tuple[float, float]]:
        # cuCIM divides the location by its own downsample and rounds down.
        scale = self._stated[index]
        location = [math.ceil(edge * scale) for edge in (window.left, window.top)]
        size = window.right - window.left, window.bottom - window.top
        return np.asarray(handle.read_region(location=location, size=size, level=index)), (window.left, window.top)

    def _profile(self, handle: Any) -> bytes | None:
        import tifffile

        with tifffile.TiffFile(self.path) as file:
            return of_tag(file.pages.first.tags.get(34675))
