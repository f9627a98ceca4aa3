"""TIFF through tifffile: what the slide libraries refuse or would read slowly.

Strips, OME-TIFF with its pyramid in SubIFDs, BigTIFF, every compression that imagecodecs knows; 8 bits a sample: RGB,
RGB with alpha, grey, palette; samples together or in planes. Plain tiles are decoded past tifffile, to the same pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from histill.errors import SlideError
from histill.slides.readers import segments
from histill.slides.readers.base import reason
from histill.slides.readers.cache import TileCache
from histill.slides.readers.direct import DirectTiles
from histill.slides.readers.icc import of_tag
from histill.slides.readers.pages import page_of
from histill.slides.readers.request import Window
from histill.slides.readers.segments import Plane
from histill.slides.readers.tiled import TiledReader

_MEND = "convert the slide to a pyramidal 8-bit RGB TIFF (vips tiffsave --pyramid --tile), or leave it out"
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6
_JPEG = (6, 7, 33007)  # compressions whose decoder turns YCbCr to RGB
_PREMULTIPLIED, _STRAIGHT = 1, 2
_UNITS = {2: "inch", 3: "centimeter"}


class TiffFileReader(TiledReader):
    """Reads with tifffile and imagecodecs."""

    name = "tifffile"

    def _new_handle(self) -> Any:
        from tifffile import TiffFile

        file = TiffFile(self.path)
        try:
            return _Pyramid(file)
        except BaseException:
            file.close()
            raise

    def _describe(self, handle: Any) -> list[tuple[int, int]]:
        self.vendor = "ome-tiff" if handle.file.is_ome else "generic-tiff"
        self.properties = _properties(handle.page)
        self.notes += handle.notes
        pages = [page_of(planes[0].page) if len(planes) == 1 else None for planes in handle.levels]
        self._tiles = DirectTiles(self.path, pages, "tifffile", self._cache, self.notes)
        return handle.sizes

    def _new_cache(self) -> TileCache:
        return TileCache(segments.CACHE_BYTES, segments.CACHE_BYTES)

    def _keys(self, index: int, window: Window) -> list[Any]:
        return super()._keys(index, window) or _keys(self._open().levels[index], window)

    def _read_level(self, handle: Any, index: int, window: Window) -> tuple[np.ndarray, tuple[float, float]]:
        planes = handle.levels[index]
        with self._cache.region((index, window), _keys(planes, window)) as region:
            parts = [plane.read(window, region) for plane in planes]
        samples = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
        return _rgb(samples, planes), (window.left, window.top)

    def _profile(self, handle: Any) -> bytes | None:
        return of_tag(handle.page.tags.get(34675))


def _keys(planes: list[Plane], window: Window) -> list[Any]:
    return [key for plane in planes for key in plane.keys(window)]


class _Pyramid:
    """An open file, and the pages of each level of its largest picture."""

    def __init__(self, file: Any):
        self.file = file
        self.notes: list[str] = []
        self.levels: list[list[Plane]] = []
        series = max(file.series, key=lambda one: _size(one)[0] * _size(one)[1], default=None)
        if series is None:
            raise SlideError("it holds no picture", mend=_MEND)
        for index, level in enumerate(series.levels):
            try:
                self.levels.append(self._planes(level, index))
            except SlideError as error:
                if index == 0:
                    raise
                self.notes.append(f"level {index} is left out: {reason(error)}")
                break
        self.sizes = [(planes[0].width, planes[0].height) for planes in self.levels]
        self.page = self.levels[0][0].frame

    def _planes(self, level: Any, index: int) -> list[Plane]:
        pages = list(level.pages)
        if any(page is None or page.parent.filehandle.path != self.file.filehandle.path for page in pages):
            raise SlideError("its pictures are spread over several files", mend=_MEND)
        if not (len(pages) == 1 and level.axes in ("YXS", "YX", "SYX")):
            if level.axes != "CYX" or len(pages) != 3 or any(page.keyframe.samplesperpixel != 1 for page in pages):
                raise SlideError(f"it is a stack of axes {level.axes}, shape {level.shape}, no RGB picture", mend=_MEND)
            if index == 0:
                self.notes.append("its three channels are taken as red, green and blue")
        planes = [Plane(page, (index, number)) for number, page in enumerate(pages)]
        _check(planes)
        return planes

    def close(self) -> None:
        self.file.close()


def _size(series: Any) -> tuple[int, int]:
    return series.keyframe.imagewidth, series.keyframe.imagelength


def _check(planes: list[Plane]) -> None:
    page = planes[0].frame
    colours = 3 if page.photometric in (_RGB, _YCBCR) else 1
    kind = f"{page.bitspersample} bits, {page.samplesperpixel} samples a pixel, {page.photometric!s}"
    if page.bitspersample != 8 or page.dtype != np.uint8:
        raise SlideError(f"its pixels are {kind}: not 8-bit", mend=_MEND)
    if page.photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR):
        raise SlideError(f"its pixels are {kind}: neither RGB, grey nor palette", mend=_MEND)
    if page.photometric == _YCBCR and page.compression not in _JPEG:
        raise SlideError(f"its pixels are {kind}, compression {page.compression!s}: YCbCr outside JPEG", mend=_MEND)
    if page.photometric == _PALETTE and page.colormap is None:
        raise SlideError("its palette is missing", mend=_MEND)
    if not colours <= page.samplesperpixel <= colours + 1 or page.imagedepth > 1:
        raise SlideError(f"its pixels are {kind}, depth {page.imagedepth}: no RGB or grey picture", mend=_MEND)


def _rgb(samples: np.ndarray, planes: list[Plane]) -> np.ndarray:
    """RGB, or RGBA where there is alpha that is not multiplied in, of stored samples."""
    page = planes[0].frame
    colours = 3 if len(planes) == 3 or page.photometric in (_RGB, _YCBCR) else 1
    rgb, rest = samples[..., :colours], samples[..., colours:]
    if page.photometric == _PALETTE:
        table = np.asarray(page.colormap)
        rgb = (table >> 8 if table.max() > 255 else table).astype(np.uint8).T[rgb[..., 0]]
    elif page.photometric == _WHITE_IS_ZERO:
        rgb = 255 - rgb
    if rgb.shape[2] == 1:
        rgb = np.repeat(rgb, 3, axis=2)
    kind = int(page.extrasamples[0]) if rest.size and page.extrasamples else 0
    if kind == _PREMULTIPLIED:
        return np.minimum(rgb.astype(np.uint16) + (255 - rest), 255).astype(np.uint8)
    if kind == _STRAIGHT:
        return np.concatenate([rgb, rest], axis=2)
    return np.ascontiguousarray(rgb)


def _properties(page: Any) -> dict[str, str]:
    """Description and resolution tags, named as OpenSlide names them."""
    found = {}
    for name in ("ImageDescription", "Make", "Model", "Software", "DateTime"):
        tag = page.tags.get(name)
        if tag is not None:
            found[f"tiff.{name}"] = str(tag.value)
    for name in ("XResolution", "YResolution"):
        tag = page.tags.get(name)
        if tag is not None and tag.value[1]:
            found[f"tiff.{name}"] = repr(tag.value[0] / tag.value[1])
    unit = page.tags.get("ResolutionUnit")
    if unit is not None and int(unit.value) in _UNITS:
        found["tiff.ResolutionUnit"] = _UNITS[int(unit.value)]
    return found
