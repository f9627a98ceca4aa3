"""JPEG tiles of a TIFF, decoded straight from the file: the pixels OpenSlide gives, several times as fast.

OpenSlide composites every tile it decodes, which takes longer than decoding. What is plain (one page a level, 8-bit
RGB, JPEG tiles) needs no compositing. Whatever is unusual (a missing tile, one that is cut short or does not decode) is
left to OpenSlide, which knows the formats' ways and has the word on errors.
"""

from __future__ import annotations

import os
import struct
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from histill.slides.readers.base import Window

_CACHE_BYTES = 32 << 20  # neighbouring regions share tiles
_MAX_PAGES = 256
_MAX_TILE = 1 << 24  # pixels
_TAGS = {256, 257, 258, 259, 262, 277, 284, 322, 323, 324, 325, 347}
_TYPES = {1: "u1", 3: "u2", 4: "u4", 7: "u1", 16: "u8"}
_JPEG = 7
_COLOURS = {2: "RGB", 6: "YCBCR"}  # PhotometricInterpretation
_END_OF_IMAGE = b"\xff\xd9"
_MAX_EXPANSION = 8  # bytes of JPEG for a pixel; more is a wrong byte count
_LARGEST_FILE = 1 << 62  # offsets beyond are no numbers for the operating system


@dataclass(frozen=True)
class _Page:
    """A level's tiles: sides and size in pixels, where each tile lies, and what all of them share."""

    size: tuple[int, int]
    tile: tuple[int, int]
    offsets: np.ndarray
    counts: np.ndarray
    tables: bytes | None
    colour: str


class DirectTiles:
    """Tiles of the levels of a TIFF.

    Parameters
    ----------
    path
        The file.
    sizes
        (width, height) of the levels. A level that is not exactly one page of JPEG tiles is not served.
    """

    def __init__(self, path: Path, sizes: Sequence[tuple[int, int]]):
        self._path = path
        self._file: int | None = None
        self._cache: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self._held = 0
        self._checked: set[int] = set()
        try:
            pages = _pages(path)
        except (OSError, ValueError, struct.error):
            pages = []  # what it is made of is for OpenSlide to say
        found = [[page for page in pages if page.size == tuple(size)] for size in sizes]
        self._levels = [same[0] if len(same) == 1 else None for same in found]

    def close(self) -> None:
        """Release the file; a later read opens it again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def read(
        self, index: int, window: Window, reference: Callable[[Window], np.ndarray], *, anywhere: bool
    ) -> np.ndarray | None:
        """Pixels of a window inside a level, or None where they are to be read otherwise.

        Parameters
        ----------
        reference
            Reads a window with OpenSlide. One tile of a level is compared before any is used.
        anywhere
            Whether windows of `reference` start on whole pixels everywhere, not only at the level's origin.

        Returns
        -------
        uint8 RGB [height, width, 3].
        """
        page = self._levels[index]
        if page is None:
            return None
        if index not in self._checked:
            self._checked.add(index)
            if not self._agrees(index, page, reference, int(np.argmax(page.counts)) if anywhere else 0):
                self._levels[index] = None
                return None
        return self._assemble(index, page, window)

    def _agrees(self, index: int, page: _Page, reference: Callable[[Window], np.ndarray], number: int) -> bool:
        row, column = divmod(number, -(-page.size[0] // page.tile[0]))
        left, top = column * page.tile[0], row * page.tile[1]
        window = Window(left, top, min(left + page.tile[0], page.size[0]), min(top + page.tile[1], page.size[1]))
        mine = self._assemble(index, page, window)
        return mine is not None and np.array_equal(mine, reference(window)[..., :3])

    def _assemble(self, index: int, page: _Page, window: Window) -> np.ndarray | None:
        wide, high = page.tile
        across = -(-page.size[0] // wide)
        pixels = np.empty((window.bottom - window.top, window.right - window.left, 3), np.uint8)
        for row in range(window.top // high, -(-window.bottom // high)):
            for column in range(window.left // wide, -(-window.right // wide)):
                tile = self._tile(index, page, row * across + column)
                if tile is None:
                    return None
                x, y = column * wide, row * high
                left, top = max(x, window.left), max(y, window.top)
                right, bottom = min(x + wide, window.right), min(y + high, window.bottom)
                part = tile[top - y : bottom - y, left - x : right - x]
                pixels[top - window.top : bottom - window.top, left - window.left : right - window.left] = part
        return pixels

    def _tile(self, index: int, page: _Page, number: int) -> np.ndarray | None:
        key = index, number
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        tile = self._decode(page, number)
        if tile is not None:
            self._cache[key] = tile
            self._held += tile.nbytes
            while self._held > _CACHE_BYTES:
                self._held -= self._cache.popitem(last=False)[1].nbytes
        return tile

    def _decode(self, page: _Page, number: int) -> np.ndarray | None:
        from imagecodecs import Jpeg8Error, jpeg8_decode

        offset, count = int(page.offsets[number]), int(page.counts[number])
        if count > _MAX_EXPANSION * page.tile[0] * page.tile[1] or offset > _LARGEST_FILE:
            return None
        if self._file is None:
            self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        data = os.pread(self._file, count, offset)
        # libjpeg makes up what is missing at the end, with no more than a warning.
        if len(data) < count or _END_OF_IMAGE not in data[-16:]:
            return None
        tile = np.empty((page.tile[1], page.tile[0], 3), np.uint8)
        try:
            # A picture of another size is an error before it takes any memory.
            return jpeg8_decode(data, tables=page.tables, colorspace=page.colour, outcolorspace="RGB", out=tile)
        except (Jpeg8Error, ValueError):
            return None


def _pages(path: Path) -> list[_Page]:
    """Pages of JPEG tiles, in the order of the file."""
    pages = []
    with open(path, "rb") as file:
        length = os.fstat(file.fileno()).st_size
        order = {b"II": "<", b"MM": ">"}.get(file.read(2), "")
        version = struct.unpack(order + "H", file.read(2))[0] if order else 0
        if version not in (42, 43):
            return []
        big = version == 43
        file.seek(8 if big else 4)
        pointer = order + ("Q" if big else "I")
        place = struct.unpack(pointer, file.read(struct.calcsize(pointer)))[0]
        seen: set[int] = set()
        while place and place not in seen and len(seen) < _MAX_PAGES:
            seen.add(place)
            file.seek(place)
            tags, place = _directory(file, order, big, length)
            page = _page(tags)
            if page is not None:
                pages.append(page)
    return pages


def _directory(file, order: str, big: bool, length: int) -> tuple[dict[int, np.ndarray], int]:
    """Values of the tags in use of the directory at the file's position, and where the next one lies."""
    head, entry, pointer = (
        (order + "Q", order + "HHQ", order + "Q") if big else (order + "H", order + "HHI", order + "I")
    )
    inline = struct.calcsize(pointer)
    width = struct.calcsize(entry) + inline
    number = struct.unpack(head, file.read(struct.calcsize(head)))[0]
    if number * width > length:
        raise ValueError("a directory larger than the file")
    block = file.read(number * width)
    following = struct.unpack(pointer, file.read(inline))[0]
    tags = {}
    for start in range(0, number * width, width):
        tag, kind, count = struct.unpack_from(entry, block, start)
        if tag not in _TAGS or kind not in _TYPES:
            continue
        dtype = np.dtype(order + _TYPES[kind])
        size = count * dtype.itemsize
        if size > length:
            raise ValueError("a tag larger than the file")
        data = block[start + width - inline : start + width]
        if size > inline:
            file.seek(struct.unpack(pointer, data)[0])
            data = file.read(size)
        tags[tag] = np.frombuffer(data, dtype, count)
    return tags, following


def _page(tags: dict[int, np.ndarray]) -> _Page | None:
    """The page, if it is one of 8-bit RGB in JPEG tiles."""

    def value(tag: int, default: int = 0) -> int:
        return int(tags[tag][0]) if tag in tags and len(tags[tag]) else default

    plain = value(259) == _JPEG and value(277) == 3 and value(284, 1) == 1 and value(262) in _COLOURS
    size, tile = (value(256), value(257)), (value(322), value(323))
    if min(*size, *tile) < 1 or tile[0] * tile[1] > _MAX_TILE:
        return None
    if not plain or set(tags.get(258, ())) != {8} or not {324, 325} <= tags.keys():
        return None
    number = -(-size[0] // tile[0]) * -(-size[1] // tile[1])
    if len(tags[324]) != number or len(tags[325]) != number:
        return None
    tables = tags[347].tobytes() if 347 in tags else None
    return _Page(size, tile, tags[324], tags[325], tables, _COLOURS[value(262)])
