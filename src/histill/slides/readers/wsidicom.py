"""DICOM series through wsidicom, an optional library (`histill[wsidicom]`).

The slide sheet names one file; the series is that of its SeriesInstanceUID in the same folder.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from histill.errors import SlideError
from histill.slides.parts import parts
from histill.slides.readers.base import Reader
from histill.slides.readers.request import Window


class WsiDicomReader(Reader):
    """Reads with wsidicom."""

    name = "wsidicom"

    def _new_handle(self) -> Any:
        try:
            from wsidicom import WsiDicom
        except ImportError:
            raise SlideError(
                "the library wsidicom is not installed",
                mend="pip install 'histill[wsidicom]', or set slides.reader: auto",
            ) from None
        return WsiDicom.open([str(part) for part in parts(self.path)])

    def _describe(self, handle: Any) -> list[tuple[int, int]]:
        self._numbers = [level.level for level in handle.levels]
        spacing = handle.levels.base_level.pixel_spacing
        self.vendor = "dicom"
        self.properties = {}
        if spacing is not None:
            self.properties["dicom.PixelSpacing"] = f"{float(spacing.height)!r}\\{float(spacing.width)!r}"
        for path in handle.levels.metadata.optical_paths:
            if path.objective is not None and path.objective.objective_power:
                power = str(path.objective.objective_power)
                self.properties.setdefault("dicom.OpticalPathSequence[0].ObjectiveLensPower", power)
        return [(int(level.size.width), int(level.size.height)) for level in handle.levels]

    def _read_level(self, handle: Any, index: int, window: Window) -> tuple[np.ndarray, tuple[float, float]]:
        size = window.right - window.left, window.bottom - window.top
        picture = handle.read_region((window.left, window.top), self._numbers[index], size)
        return np.asarray(picture), (window.left, window.top)

    def _profile(self, handle: Any) -> bytes | None:
        return next((path.icc_profile for path in handle.levels.metadata.optical_paths if path.icc_profile), None)
