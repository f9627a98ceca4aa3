"""Tiles of a TIFF decoded straight from the file: the pixels the library gives, several times as fast.

OpenSlide composites every tile it decodes, which takes longer than decoding; tifffile takes fresh memory for each. What
is plain (one page a level, tiles of 8-bit RGB) needs neither. Whatever is unusual (a missing tile, one that is cut
short or does not decode) is left to the library, which knows the formats' ways and has the word on errors.
"""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from histill.slides.readers.cache import TileCache
from histill.slides.readers.codecs import UndecodedError, can_decode, decode
from histill.slides.readers.pages import Page
from histill.slides.readers.request import Window
from histill.storage import is_out_of_reach

_MAX_EXPANSION = 8  # bytes in the file for a pixel; more is a wrong byte count
_LARGEST_FILE = 1 << 62  # offsets beyond are no numbers for the operating system

Key = tuple[int, int]


class DirectTiles:
    """Tiles of the levels of a TIFF, for one thread; others take a `clone`.

    Parameters
    ----------
    path
        The file.
    pages
        Of each level; one that is None, or of a kind that is not decoded here, is not served.
    library
        Name of what reads them otherwise, for the notes.
    cache
        Decoded tiles, shared with clones.
    notes
        Where to write which level is left to the library because its pixels differ.
    """

    def __init__(self, path: Path, pages: Sequence[Page | None], library: str, cache: TileCache, notes: list[str]):
        self._path = path
        self._library = library
        self._cache = cache
        self._notes = notes
        self._file: int | None = None
        self._levels = [page if page is not None and can_decode(page) else None for page in pages]
        self._checked: set[int] = set()
        self._checking = threading.Lock()

    def clone(self) -> DirectTiles:
        """The same tiles for another thread."""
        other = copy.copy(self)
        other._file = None
        return other

    def renew(self, cache: TileCache) -> None:
        """After a fork: use another cache and lock, since a thread that is not here may hold the old ones."""
        self._cache, self._checking = cache, threading.Lock()

    def close(self) -> None:
        """Release the file; a later read opens it again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def keys(self, index: int, window: Window) -> list[Key]:
        """Names in the cache of the tiles that a window inside a level touches; none where it is not served."""
        page = self._levels[index]
        return [] if page is None else [(index, number) for number in page.numbers(window)]

    def read(
        self,
        index: int,
        window: Window,
        out: np.ndarray,
        reference: Callable[[int, Window], np.ndarray],
        *,
        anywhere: bool = True,
        factor: int = 1,
    ) -> bool:
        """Decode a window inside a level.

        Parameters
        ----------
        out
            uint8 RGB [height, width, 3] of the window, both divided by `factor`; C-contiguous. It may be written to
            where the answer is False.
        reference
            Reads a window of a level with the library, [height, width, 3 or 4]. A few tiles of a level are compared
            before any is used.
        anywhere
            Whether windows of `reference` start on whole pixels everywhere, not only at the level's origin.
        factor
            Each pixel of `out` is the mean of `factor` × `factor`. It must divide where the window and the file's tiles
            begin, so that no pixel is of two tiles; else the answer is False.

        Returns
        -------
        Whether the pixels are there; else they are to be read with the library.
        """
        if not self._serves(index, reference, anywhere):
            return False
        if any(start % factor for start in (*window[:2], *self._levels[index].tile)):
            return False
        try:
            self._assemble(index, window, out, factor)
        except UndecodedError:
            return False
        return True

    def _serves(self, index: int, reference: Callable[[int, Window], np.ndarray], anywhere: bool) -> bool:
        if index not in self._checked:
            with self._checking:  # the other threads need the verdict as well
                if index not in self._checked:
                    self._check(index, reference, anywhere)
                    self._checked.add(index)
        return self._levels[index] is not None

    def _check(self, index: int, reference: Callable[[int, Window], np.ndarray], anywhere: bool) -> None:
        """Stop serving a level whose tiles are not what the library gives, or cannot be compared."""
        page = self._levels[index]
        if page is None:
            return
        try:
            for number in _probes(page) if anywhere else [0]:
                left, top, right, bottom = page.place(number)
                window = Window(left, top, min(right, page.size[0]), min(bottom, page.size[1]))
                mine = np.empty((window.bottom - window.top, window.right - window.left, 3), np.uint8)
                self._assemble(index, window, mine)
                if not np.array_equal(mine, reference(index, window)[..., :3]):
                    why = f"at x {left}, y {top} of the level the pixels differ"
                    break
            else:
                return
        except Exception as error:  # the library raises its own types
            if is_out_of_reach(error):
                raise
            why = f"the pixels cannot be compared: {' '.join(str(error).split()) or type(error).__name__}"
        self._levels[index] = None
        self._notes.append(f"level {index} is read with {self._library} in place of the faster own decoding: {why}")

    def _assemble(self, index: int, window: Window, out: np.ndarray, factor: int = 1) -> None:
        page = self._levels[index]
        (wide, high), across = page.tile, page.across
        left, top, right, bottom = window
        shape = high, wide * 3
        lines = out.reshape(len(out), -1)  # NumPy copies rows of bytes twice as fast as rows of pixels
        with self._cache.region((index, window), self.keys(index, window)) as region:
            for row in range(top // high, -(-bottom // high)):
                y = row * high
                above, below = max(y, top), min(y + high, bottom)
                here = slice((above - top) // factor, (below - top) // factor)
                for column in range(left // wide, -(-right // wide)):
                    number, x = row * across + column, column * wide
                    first, last = max(x, left), min(x + wide, right)
                    tile = region.tile((index, number), partial(self._decode, page, number), shape)
                    part = tile[above - y : below - y, 3 * (first - x) : 3 * (last - x)]
                    if factor == 1:
                        lines[here, 3 * (first - left) : 3 * (last - left)] = part
                    else:  # without a picture of the window between
                        place = out[here, (first - left) // factor : (last - left) // factor]
                        pixels = part.reshape(len(part), -1, 3)
                        cv2.resize(pixels, place.shape[1::-1], dst=place, interpolation=cv2.INTER_AREA)

    def _decode(self, page: Page, number: int, out: np.ndarray) -> np.ndarray:
        offset, count = int(page.offsets[number]), int(page.counts[number])
        if not 0 < count <= _MAX_EXPANSION * page.tile[0] * page.tile[1] or not 0 < offset <= _LARGEST_FILE:
            raise UndecodedError("no bytes, or no place of a tile")
        if self._file is None:
            self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        data = os.pread(self._file, count, offset)
        if len(data) < count:
            raise UndecodedError("the file ends before the tile does")
        decode(page, data, out.reshape(page.tile[1], page.tile[0], 3))
        return out


def _probes(page: Page) -> list[int]:
    """The largest tile, the first and the middle one of those that are stored."""
    stored = np.flatnonzero(page.counts)
    if not len(stored):
        return [0]
    return list(dict.fromkeys([int(np.argmax(page.counts)), int(stored[0]), int(stored[len(stored) // 2])]))
