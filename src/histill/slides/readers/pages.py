"""Pages of a TIFF that are tiled 8-bit RGB, as far as it takes to decode their tiles.

The directories are read here and not with tifffile, which takes several times as long to open a large slide.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from histill.slides.readers.request import Window

_MAX_PAGES = 256
_MAX_TILE = 1 << 24  # pixels
_TAGS = {256, 257, 258, 259, 262, 266, 277, 284, 317, 322, 323, 324, 325, 339, 347}
_TYPES = {1: "u1", 3: "u2", 4: "u4", 7: "u1", 16: "u8"}


@dataclass(frozen=True)
class Page:
    """Tiles of one page.

    Attributes
    ----------
    size, tile
        (width, height) of the page and of a tile in pixels.
    offsets, counts
        Where the bytes of each tile lie in the file, row-major.
    compression, photometric, predictor
        TIFF tags 259, 262, 317.
    tables
        JPEG tables that all tiles share.
    """

    size: tuple[int, int]
    tile: tuple[int, int]
    offsets: np.ndarray
    counts: np.ndarray
    compression: int
    photometric: int
    predictor: int = 1
    tables: bytes | None = None

    @property
    def across(self) -> int:
        """Tiles in a row."""
        return -(-self.size[0] // self.tile[0])

    def numbers(self, window: Window) -> list[int]:
        """The tiles that a window touches, row-major."""
        (wide, high), across = self.tile, self.across
        columns = range(window.left // wide, -(-window.right // wide))
        rows = range(window.top // high, -(-window.bottom // high))
        return [row * across + column for row in rows for column in columns]

    def place(self, number: int) -> Window:
        """Where a tile lies on the page; the last row and column may reach beyond it."""
        row, column = divmod(number, self.across)
        left, top = column * self.tile[0], row * self.tile[1]
        return Window(left, top, left + self.tile[0], top + self.tile[1])


def pages_of_sizes(path: Path, sizes: Sequence[tuple[int, int]]) -> list[Page | None]:
    """For each (width, height) the page of that size; None where there is not exactly one, or the file is no TIFF."""
    try:
        with open(path, "rb") as file:
            pages = _pages(file)
    except (OSError, ValueError, struct.error):
        pages = []  # what it is made of is for the library to say
    found = [[page for page in pages if page.size == tuple(size)] for size in sizes]
    return [same[0] if len(same) == 1 else None for same in found]


def page_of(page: Any) -> Page | None:
    """A `tifffile.TiffPage` or `TiffFrame`; None if it is not one of tiled 8-bit RGB."""
    frame = page.keyframe
    if not frame.is_tiled or frame.dtype != np.uint8 or frame.imagedepth != 1:
        return None
    tags = {
        256: frame.imagewidth,
        257: frame.imagelength,
        258: frame.bitspersample,
        259: int(frame.compression),
        262: int(frame.photometric),
        266: int(frame.fillorder),
        277: frame.samplesperpixel,
        284: int(frame.planarconfig or 1),
        317: int(frame.predictor),
        322: frame.tilewidth,
        323: frame.tilelength,
        324: page.dataoffsets,
        325: page.databytecounts,
    }
    if frame.jpegtables is not None:
        tags[347] = np.frombuffer(frame.jpegtables, np.uint8)
    return _page({tag: np.atleast_1d(value) for tag, value in tags.items()})


def _pages(file: BinaryIO) -> list[Page]:
    """In the order of the file."""
    pages: list[Page] = []
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


def _directory(file: BinaryIO, order: str, big: bool, length: int) -> tuple[dict[int, np.ndarray], int]:
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


def _page(tags: dict[int, np.ndarray]) -> Page | None:
    """The page, if it is one of 8-bit RGB tiles, samples together."""

    def value(tag: int, default: int = 0) -> int:
        return int(tags[tag][0]) if tag in tags and len(tags[tag]) else default

    size, tile = (value(256), value(257)), (value(322), value(323))
    if min(*size, *tile) < 1 or tile[0] * tile[1] > _MAX_TILE:
        return None
    plain = value(277) == 3 and value(284, 1) == 1 and value(266, 1) == 1 and value(339, 1) == 1
    if not plain or set(tags.get(258, ())) != {8} or not {324, 325} <= tags.keys():
        return None
    number = -(-size[0] // tile[0]) * -(-size[1] // tile[1])
    if len(tags[324]) != number or len(tags[325]) != number:
        return None
    tables = tags[347].tobytes() if 347 in tags else None
    return Page(size, tile, tags[324], tags[325], value(259, 1), value(262), value(317, 1), tables)
