"""Strips and tiles of one level of a TIFF, decoded when they are needed and kept while they may be needed again.

Reading a slide tile by tile crosses the same strips over and over; a cache of recently decoded ones makes the cost that
of decoding the file once. Uncompressed strips are not decoded at all: the bytes asked for are read from the file.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import Any

import numpy as np

from histill.errors import SlideError

CACHE_BYTES = 512 << 20
MAX_SEGMENT_BYTES = 1 << 30
_JPEG = (6, 7, 33007, 34892)
_UNCOMPRESSED = 1


class Cache:
    """Recently used arrays, up to `CACHE_BYTES` together; the last one is kept whatever its size."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Any, np.ndarray | None] = OrderedDict()
        self._bytes = 0

    def get(self, key: Any, make: Any) -> np.ndarray | None:
        """The array under a key, made if it is not kept."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        value = make()
        self._kept[key] = value
        self._bytes += 0 if value is None else value.nbytes
        while self._bytes > CACHE_BYTES and len(self._kept) > 1:
            _, old = self._kept.popitem(last=False)
            self._bytes -= 0 if old is None else old.nbytes
        return value


class Plane:
    """One page of a TIFF: a picture of `samples` contiguous samples, or as many separate planes.

    Parameters
    ----------
    page
        `tifffile.TiffPage` or `TiffFrame`.
    key
        Names the page in the cache.
    """

    def __init__(self, page: Any, key: Any, cache: Cache):
        self.page, self.frame = page, page.keyframe
        self.key, self.cache = key, cache
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

    def read(self, left: int, top: int, right: int, bottom: int) -> np.ndarray:
        """Samples of a window inside the picture, uint8 [bottom - top, right - left, samples]."""
        out = np.full((bottom - top, right - left, self.samples), self._missing(), np.uint8)
        for plane in range(self.samples if self.separate else 1):
            target = out[..., plane : plane + 1] if self.separate else out
            for row in range(top // self.rows, -(-bottom // self.rows)):
                for column in range(left // self.columns, -(-right // self.columns)):
                    y, x = row * self.rows, column * self.columns
                    y0, y1 = max(top, y), min(bottom, y + self.rows)
                    x0, x1 = max(left, x), min(right, x + self.columns)
                    index = (plane * self.down + row) * self.across + column
                    part = self._part(index, y0 - y, y1 - y, x0 - x, x1 - x)
                    if part is not None:
                        target[y0 - top : y1 - top, x0 - left : x1 - left] = part
        return out

    def _part(self, index: int, y0: int, y1: int, x0: int, x1: int) -> np.ndarray | None:
        if self._raw:
            return self._bytes_of(index, y0, y1, x0, x1)
        whole = self.cache.get((self.key, index), lambda: self._decode(index))
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
