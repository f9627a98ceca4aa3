"""Whether a TIFF can be whole: its directories and where they say the pixels lie, held against the file's size.

A slide cut short by a broken copy opens well, since its header comes first, and its JPEG tiles may even decode to grey.
Its directories tell at once, without decoding a pixel.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from histill.errors import SlideError

MAX_DIRECTORIES = 10_000  # slides have tens; a reader takes minutes over millions
MAX_TILES = 1 << 24  # of one level: 262 144 pixels a side in tiles of 64
_OFFSETS, _COUNTS, _CHILDREN = (273, 324), (279, 325), 330  # strips, tiles; SubIFDs
_INTEGERS = {3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}  # TIFF type -> NumPy
_CLASSIC_LIMIT = 1 << 32
_MEND = "copy or download the file again, and compare its size and checksum"


class _Layout(NamedTuple):
    """How a file writes its directories: byte order, and the sizes that differ between TIFF and BigTIFF."""

    order: str
    number: str  # of entries in a directory
    entry: int  # bytes of an entry
    count: str  # of an entry's values
    offset: str


def check_tiff(path: str | Path) -> None:
    """Refuse a TIFF that cannot be whole; say nothing of any other file.

    Classic TIFFs beyond 4 GiB (NDPI) are not judged: their offsets are not what they say.

    Raises
    ------
    SlideError
        If a directory, or the strips and tiles it lists, reach beyond the file's end, or if directories form a loop or
        are more than any slide has.
    """
    size = os.stat(path).st_size
    with open(path, "rb") as file:
        found = _layout(file.read(16))
        if found is None or (found[0].offset == "I" and size >= _CLASSIC_LIMIT):
            return
        layout, first = found
        for reach in _reaches(file, layout, first, size, str(path)):
            if reach > size:
                raise SlideError(
                    f"{path}: is cut short or damaged: its directories reach to byte {reach:,}, it ends at {size:,}",
                    mend=_MEND,
                )


def _layout(head: bytes) -> tuple[_Layout, int] | None:
    """The layout and where the first directory lies; None for what is no TIFF."""
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None:
        return None
    if len(head) >= 8 and struct.unpack(order + "H", head[2:4])[0] == 42:
        return _Layout(order, "H", 12, "I", "I"), struct.unpack(order + "I", head[4:8])[0]
    if len(head) == 16 and struct.unpack(order + "HHH", head[2:8]) == (43, 8, 0):
        return _Layout(order, "Q", 20, "Q", "Q"), struct.unpack(order + "Q", head[8:])[0]
    return None


def _reaches(file: BinaryIO, layout: _Layout, first: int, size: int, name: str) -> Iterator[int]:
    """How far into the file each part reaches that the directories name; nothing beyond its end is read."""
    todo, seen = [(first, 0)], {}  # with the chain each belongs to: SubIFDs may be listed and chained at once
    while todo:
        at, chain = todo.pop()
        if seen.get(at, chain) != chain:
            continue
        if at in seen:
            raise SlideError(f"{name}: is damaged: its TIFF directories form a loop", mend=_MEND)
        if len(seen) == MAX_DIRECTORIES:
            raise SlideError(f"{name}: has more than {MAX_DIRECTORIES:,} TIFF directories: no slide", mend=_MEND)
        seen[at] = chain
        head = at + struct.calcsize(layout.number)
        yield head
        file.seek(at)
        number = struct.unpack(layout.order + layout.number, file.read(head - at))[0]
        end = head + number * layout.entry + struct.calcsize(layout.offset)
        yield end
        content = file.read(end - head)
        following = struct.unpack(layout.order + layout.offset, content[number * layout.entry :])[0]
        todo += [(following, chain)] if following else []
        lists: dict[int, np.ndarray] = {}
        for start in range(0, number * layout.entry, layout.entry):
            entry = content[start : start + layout.entry]
            tag, kind = struct.unpack(layout.order + "HH", entry[:4])
            if tag in (*_OFFSETS, *_COUNTS, _CHILDREN) and kind in _INTEGERS:
                yield from _values(file, layout, entry, kind, lists, tag, name)
        todo += [(int(child), int(child)) for child in lists.get(_CHILDREN, []) if child]
        for offsets, counts in zip(_OFFSETS, _COUNTS, strict=True):
            if offsets in lists and counts in lists:
                length = min(len(lists[offsets]), len(lists[counts]))
                start, extent = (lists[key][:length].astype(np.uint64) for key in (offsets, counts))
                reach = np.where(extent > 0, start + extent, 0)  # nothing is stored of an empty tile
                yield int(reach.max(initial=0))


def _values(
    file: BinaryIO, layout: _Layout, entry: bytes, kind: int, lists: dict[int, np.ndarray], tag: int, name: str
) -> Iterator[int]:
    """Put an entry's numbers into `lists`, yielding first how far they reach if they lie elsewhere."""
    width = struct.calcsize(layout.offset)
    count = struct.unpack(layout.order + layout.count, entry[4 : 4 + width])[0]
    if count > MAX_TILES:
        raise SlideError(f"{name}: is damaged: it states {count:,} tiles in one level", mend=_MEND)
    dtype = np.dtype(_INTEGERS[kind]).newbyteorder(layout.order)
    data = entry[4 + width :]
    if count * dtype.itemsize > width:
        at = struct.unpack(layout.order + layout.offset, data)[0]
        yield at + count * dtype.itemsize
        file.seek(at)
        data = file.read(count * dtype.itemsize)
    lists[tag] = np.frombuffer(data, dtype, count)
