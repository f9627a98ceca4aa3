"""Strips and tiles of one level of a TIFF, decoded when they are needed and kept while they may be needed again.

Reading a slide tile by tile crosses the same strips over and over; a cache of recently decoded ones makes the cost that
of decoding the file once. Uncompressed strips are not decoded at all: the bytes asked for are read from the file.
"""

from __future__ import annotations

import os
from collections.abc import Hashable
from typing import Any

import numpy as np

from histill.errors import SlideError
from histill.slides.readers.cache import Region
from histill.slides.readers.request import Window

CACHE_BYTES = 512 << 20  # a strip may span the slide
MAX_SEGMENT_BYTES = 1 << 30
_JPEG = (6, 7, 33007, 34892)
_UNCOMPRESSED = 1


class Plane:
    """One page of a TIFF: a picture of `samples` contiguous samples, or as many separate planes.

    Parameters
    ----------
    page
        `tifffile.TiffPage` or `TiffFrame`.
    key
        Names the page in the cache.
    """

    def __init__(self, page: Any, key: Hashable):
        self.page, self.frame = page, page.keyframe
        self.key = key
        self.height, self.width = self.frame.imagelength, self.frame.imagewidth
        self.separate = self.frame.planarconfig == 2 and self.frame.samplesperpixel > 1
        self.samples = self.frame.samplesperpixel
        tiled = self.frame.is_tiled
        self.rows = self.frame.tilelength if tiled else min(self.frame.rowsperstrip or self.height, self.height)
        self.columns = self.frame.tilewidth if tiled else self.width
        self.down, self.across = -(-self.height // self.rows), -(-self.width // self.columns)
        self._within = 1 if self.separate else self.samples
        self._raw = (
            not tiled and self.frame.compression == _UNCOMPRESSED and self.frame.predictor == 1 and _plain(self.frame)
        )
        self._check()

    def _check(self) -> None:
        wanted = self.down * self.across * (self.samples if self.separate else 1)
        found = min(len(self.page.dataoffsets), len(self.page.databytecounts))
        if found < wanted:
            raise SlideError(f"it declares {wanted} strips or tiles and holds {found}", mend="copy the file again")
        decoded = self.rows * self.columns * self._within
        if decoded > MAX_SEGMENT_BYTES and not self._raw:
            raise SlideError(
                f"one strip or tile of {self.columns} × {self.rows} pixels takes {decoded / (1 << 30):.1f} GB decoded, "
                f"more than {MAX_SEGMENT_BYTES >> 30}",
                mend="convert it to a tiled pyramidal TIFF (vips tiffsave --pyramid --tile --bigtiff)",
            )

    def keys(self, window: Window) -> list[Hashable]:
        """Names in the cache of the strips or tiles that a window inside the picture touches."""
        return [] if self._raw else [(self.key, index) for _, index, _, _ in self._touched(window)]

    def read(self, window: Window, region: Region) -> np.ndarray:
        """Samples of a window inside the picture, uint8 [height, width, samples]."""
        left, top, right, bottom = window
        out = np.full((bottom - top, right - left, self.samples), self._missing(), np.uint8)
        for plane, index, y, x in self._touched(window):
            target = out[..., plane : plane + 1] if self.separate else out
            y0, y1 = max(top, y), min(bottom, y + self.rows)
            x0, x1 = max(left, x), min(right, x + self.columns)
            part = self._part(region, index, y0 - y, y1 - y, x0 - x, x1 - x)
            if part is not None:
                target[y0 - top : y1 - top, x0 - left : x1 - left] = part
        return out

    def _touched(self, window: Window) -> list[tuple[int, int, int, int]]:
        """Plane, number, top and left of the strips or tiles that a window touches."""
        rows = range(window.top // self.rows, -(-window.bottom // self.rows))
        columns = range(window.left // self.columns, -(-window.right // self.columns))
        return [
            (plane, (plane * self.down + row) * self.across + column, row * self.rows, column * self.columns)
            for plane in range(self.samples if self.separate else 1)
            for row in rows
            for column in columns
        ]

    def _part(self, region: Region, index: int, y0: int, y1: int, x0: int, x1: int) -> np.ndarray | None:
        if self._raw:
            return self._bytes_of(index, y0, y1, x0, x1)
        whole = region.tile((self.key, index), lambda _: self._decode(index))
        if whole is None:
            return None
        if whole.shape[0] < y1 or whole.shape[1] < x1 or whole.shape[2] != self._within:
            raise SlideError(f"strip or tile {index} decodes to {whole.shape}, too small", mend="copy the file again")
        return whole[y0:y1, x0:x1]

    def _decode(self, index: int) -> np.ndarray | None:
        offset, count = self.page.dataoffsets[index], self.page.databytecounts[index]
        if not count or not offset:
            return None  # sparse: never written
        data = self._read(offset, count)
        tables = {}
        if self.frame.compression in _JPEG:
            tables = {"jpegtables": self.page.jpegtables, "jpegheader": self.frame.jpegheader}
        decoded = self.frame.decode(data, index, _fullsize=self.frame.is_tiled, **tables)[0]
        return None if decoded is None else decoded[0]

    def _bytes_of(self, index: int, y0: int, y1: int, x0: int, x1: int) -> np.ndarray | None:
        offset, count = self.page.dataoffsets[index], self.page.databytecounts[index]
        if not count or not offset:
            return None
        line = self.width * self._within
        if y1 * line > count:
            raise SlideError(f"strip {index} holds {count} bytes, too few", mend="copy the file again")
        if x1 - x0 == self.width:
            data = self._read(offset + y0 * line, (y1 - y0) * line)
        else:
            length = (x1 - x0) * self._within
            data = b"".join(self._read(offset + y * line + x0 * self._within, length) for y in range(y0, y1))
        return np.frombuffer(data, np.uint8).reshape(y1 - y0, x1 - x0, self._within)

    def _read(self, offset: int, count: int) -> bytes:
        data = os.pread(self.page.parent.filehandle.fileno(), count, offset)
        if len(data) < count:
            raise SlideError(f"the file ends before byte {offset + count}", mend="copy or download the file again")
        return data

    def _missing(self) -> int:
        return 0 if self.frame.photometric == 0 else 255


def _plain(frame: Any) -> bool:
    return frame.bitspersample == 8 and frame.fillorder == 1
